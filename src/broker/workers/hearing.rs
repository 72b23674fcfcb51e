//! What workers say, and what is done about it.

use super::restart::SETTLED;
use super::worker::Worker;
use super::{News, Workers};
use crate::broker::policy::WorkerId;
use crate::broker::text;
use crate::channel::broker_side::Act;
use crate::channel::protocol::{self, FromWorker, FROM_WORKER};
use crate::event::{Event, Loop};
use crate::os::process::exit;
use crate::os::{self, log};

/// Messages read from one worker per turn.
const BATCH: usize = 64;

impl Workers {
    /// A worker's channel is readable or writable, or was closed.
    pub(in crate::broker) fn event(&mut self, id: WorkerId, event: Event, events: &mut Loop) {
        if event.writable {
            self.policy.set_blocked(id, false);
            if let Some(worker) = self.all.get_mut(&id) {
                worker.has_room(events);
            }
        }
        if event.readable || event.hangup {
            self.hear(id, BATCH, events);
        }
    }

    /// Reads up to `limit` messages of a worker.
    pub(super) fn hear(&mut self, id: WorkerId, limit: usize, events: &mut Loop) {
        let mut data = [0; FROM_WORKER];
        for _ in 0..limit {
            let Some(worker) = self.all.get_mut(&id) else {
                return;
            };
            let length = match worker.channel().receive_data(&mut data) {
                Ok(length) => length,
                Err(error) if os::would_block(&error) => return,
                Err(error) => {
                    worker.ignore(events);
                    self.lost(id, &error);
                    return;
                }
            };
            worker.flow.heard(events.now());
            let message = FromWorker::decode(&data[..length.min(data.len())]);
            let has = self.policy.users(id).unwrap_or(worker.users);
            let mut act = worker.side.hear(message, has, events.now());
            if act == Act::Left {
                let numbers = protocol::left(&data[..length.min(data.len())]);
                if numbers.filter(|&number| worker.held.give_back(number)).count() == 0 {
                    act = worker.side.left_nothing(events.now());
                }
            }
            let offends = matches!(act, Act::Offence(_));
            self.act(id, act, events);
            if offends {
                return;
            }
        }
    }

    /// Acts on a message of a worker.
    fn act(&mut self, id: WorkerId, act: Act, events: &mut Loop) {
        match act {
            // No worker is sent callers.
            Act::Nothing | Act::Left | Act::Errand(_) => {}
            Act::Ended(count) => self.subtract(id, count),
            Act::Limit(most) => {
                self.restart.ready();
                self.watch.started();
                self.policy.set_ready(id);
                if let Some(most) = self.policy.cap(id, most) {
                    log::braked(log::Kind::Channel, || text::limited(most));
                }
                self.news.push_back(News::Ready);
            }
            Act::Leaves => {
                let young = |worker: &Worker| events.now() - worker.started < SETTLED;
                if self.all.get(&id).is_some_and(|worker| !worker.served && young(worker)) {
                    self.restart.died_young(events);
                }
                self.let_go(id, events);
                self.start_missing(events);
            }
            Act::CannotStart => self.bad_configuration(events),
            Act::Answer => self.answer(id, events),
            Act::Remark(text) => {
                if self.all.get_mut(&id).is_some_and(Worker::remark) {
                    log::braked(log::Kind::Channel, || text);
                }
            }
            Act::Offence(offence) => self.expel(id, &format!("has sent {offence}"), events),
        }
    }

    /// Logs once that `client sessions max` is without effect.
    pub(super) fn tell_of_uncounted(&mut self) {
        if !std::mem::replace(&mut self.uncounted, true) {
            log::message(text::UNCOUNTED);
        }
    }

    /// Connections of a worker have ended, or are no longer its own.
    pub(super) fn subtract(&mut self, id: WorkerId, count: usize) {
        if self.policy.users(id).is_some() {
            self.policy.done(id, count);
        } else if let Some(worker) = self.all.get_mut(&id) {
            worker.users = worker.users.saturating_sub(count);
        }
    }

    /// Answers HELLO: sends a worker its slot in the zone, which it can do without, and the secrets
    /// that only the broker may read.
    fn answer(&mut self, id: WorkerId, events: &mut Loop) {
        let Some(worker) = self.all.get_mut(&id) else {
            return;
        };
        if let Some((fd, slot)) = self.leases.admit(worker.pid) {
            worker.tell_zone(slot, fd);
        }
        self.give_signer(id, events);
        let Some(worker) = self.all.get_mut(&id) else {
            return;
        };
        self.secrets.tickets.advance(os::wall_clock());
        match self.secrets.tickets.encode_with_public(worker.material()) {
            Ok(data) => worker.answer(data, events),
            Err(error) => {
                log::braked(log::Kind::Channel, || format!("mmap: {}", os::reason(&error)));
            }
        }
    }

    /// A worker cannot use its configuration. That ends the broker unless workers have been
    /// serving: then the file was changed under a running service, and the start is tried again
    /// with pauses.
    fn bad_configuration(&mut self, events: &mut Loop) {
        if self.closing {
            return;
        }
        if self.has_served(events.now()) {
            log::braked(log::Kind::Worker, || {
                "Child reported fatal configuration problem. It will be tried again.".to_owned()
            });
            return;
        }
        log::message(text::BAD_CONFIGURATION);
        self.give_up(exit::CONFIGURATION, events);
    }
}
