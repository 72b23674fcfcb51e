//! Accepting connections, and the pauses when there are too many.

use super::Broker;
use crate::broker::admission::Verdict;
use crate::broker::connection::Connection;
use crate::event::Loop;
use crate::os::{self, channel};
use crate::upstream::zone::counters::{OfListener, Place, Refusal};

/// Connections taken from one listener per turn, so that none starves the others.
const BATCH: usize = channel::DESCRIPTORS;

impl Broker {
    /// Accepts connections from a listener that is readable.
    pub(super) fn accept(&mut self, index: usize, events: &mut Loop) {
        let blocking = self.workers.blocking();
        for _ in 0..BATCH {
            let full = self.notice_limit(events);
            if self.is_paused() {
                break;
            }
            match self.listeners.accept(index, blocking) {
                Ok(Some(mut connection)) => match self.judge(full, index, &connection, events) {
                    Verdict::Admitted(seat) => {
                        connection.set_seat(seat);
                        connection.name_listener();
                        let Broker { workers, listeners, .. } = self;
                        self.dispatch.take(connection, workers, listeners, events);
                    }
                    Verdict::Closed(why) => {
                        self.dispatch.accepting_works();
                        self.workers.count_refusal(index, why);
                    }
                    Verdict::Reset(why) => {
                        self.dispatch.accepting_works();
                        self.workers.count_refusal(index, why);
                        connection.socket.reset_on_close();
                    }
                },
                Ok(None) if self.listeners.is_datagram(index) => {}
                Ok(None) => {
                    self.workers.count_arrival(index);
                    self.workers.count_refusal(index, Refusal::Proxy);
                }
                Err(error) if os::would_block(&error) => break,
                Err(error) => {
                    self.dispatch.rest("accept", &error, events);
                    break;
                }
            }
        }
        self.dispatch.deliver(&mut self.workers, &self.listeners, events);
    }

    /// Decides whether a connection is admitted.
    #[inline]
    fn judge(
        &self,
        full: bool,
        listener: usize,
        connection: &Connection,
        events: &Loop,
    ) -> Verdict {
        self.workers.count_arrival(listener);
        self.admission.judge(full, events.now(), || connection.client())
    }

    /// Notes which listeners are bound, for the status page.
    pub(super) fn note_bound(&self) {
        for (listener, bound) in self.listeners.bound().enumerate() {
            self.workers.counters().set(Place::Listener(listener, OfListener::Bound), bound.into());
        }
    }

    /// Accepts what waits in the backlogs of listeners that are about to be closed.
    pub(super) fn accept_backlogs(&mut self, events: &mut Loop) {
        for index in 0..self.listeners.len() {
            if let Some(most) = self.listeners.backlog(index) {
                for _ in 0..=most / BATCH {
                    self.accept(index, events);
                }
            }
        }
    }

    /// True while no connections are accepted.
    pub(super) fn is_paused(&self) -> bool {
        self.admission.is_queueing() || self.dispatch.is_busy()
    }

    /// Notices when the total reaches the limit, or falls below it. True if no more connections may
    /// be taken.
    #[inline]
    pub(super) fn notice_limit(&mut self, events: &mut Loop) -> bool {
        let full = self.workers.policy().is_full();
        if full != self.admission.is_overloaded() {
            self.follow_limit(full, events);
        }
        full
    }

    #[cold]
    fn follow_limit(&mut self, full: bool, events: &mut Loop) {
        if self.is_serving() {
            self.admission.follow(full, self.workers.policy().limit());
            self.listeners.follow_limit(full, self.admission.overload(), events);
            self.note_bound();
        }
    }
}
