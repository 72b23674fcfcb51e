//! Remotes that accept sessions only to end them (`fail count`): a session in which the remote is the
//! first to end or reset its side, within `fail time` and without having sent anything, was cut short.
//!
//! The timer of the phase runs as long as that is open.

use super::direction::State;
use super::engine::{kind, Engine};
use super::session::End;
use crate::event::{Loop, Token};
use crate::os::{self, log, socket};

impl Engine {
    /// A session begins.
    pub(super) fn begin_probation(&mut self, events: &mut Loop, index: u32) {
        if self.settings.fail_count == 0 {
            return;
        }
        if let Some(session) = self.sessions.get_mut(index) {
            let due = events.now() + u64::from(self.settings.fail_time) * 1000;
            session.phase_timer = Some(events.arm(Token::new(kind::PHASE, index), due));
        }
    }

    /// The direction that reads from `end` has been looked at.
    pub(super) fn judge(&mut self, events: &mut Loop, index: u32, end: End) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        if session.down.bytes > 0 {
            if let Some(timer) = session.phase_timer.take() {
                events.cancel(timer);
            }
            self.proved(index);
        } else if matches!(session.direction(end).state, State::Ended | State::Shut) {
            self.end_probation(events, index, end);
        }
    }

    /// An end has left.
    pub(super) fn end_probation(&mut self, events: &mut Loop, index: u32, end: End) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        if let Some(timer) = session.phase_timer.take() {
            events.cancel(timer);
        }
        let (End::Peer, 0, Some(remote)) = (end, session.down.bytes, session.remote) else {
            return;
        };
        // A client whose end is not found yet may have been the first.
        let gone = match socket::peek(&session.client) {
            Ok(count) => count == 0 || events.reads_on(&session.client),
            Err(error) => !os::would_block(&error),
        };
        let remote = remote as usize;
        if !gone && self.balancer.cut_short(remote, os::monotonic_clock()) {
            log::braked(log::Kind::Remote, || {
                format!(
                    "{} has ended {} sessions in a row at once, without an answer; it is not used",
                    self.settings.remotes[remote].address, self.settings.fail_count,
                )
            });
        }
    }

    /// The remote does not cut the session short.
    pub(super) fn proved(&mut self, index: u32) {
        let Some(remote) = self.sessions.get_mut(index).and_then(|session| session.remote) else {
            return;
        };
        if self.balancer.proved(remote as usize) {
            let address = &self.settings.remotes[remote as usize].address;
            log::braked(log::Kind::Remote, || format!("{address} is in use again"));
        }
    }
}
