//! Remotes that accept sessions only to end them (`fail count`). If the remote is the first to end
//! or reset its side, within `fail time` and without having sent anything, it has cut the session
//! short.
//!
//! A session is on probation until that is decided.

use super::pair::End;
use super::session::{Context, Session, State};
use super::shared::{kind, Shared};
use crate::event::{Loop, TimerId, Token};
use crate::os::{self, log};
use crate::upstream::remote::RemoteId;
use crate::upstream::zone::counters::Failure;

impl Shared {
    /// Both ends are connected: the session's probation begins, if there is a `fail count`.
    pub(super) fn begin_probation(&self, events: &mut Loop, index: u32) -> Option<TimerId> {
        if self.settings.fail_count == 0 {
            return None;
        }
        let due = events.now() + u64::from(self.settings.fail_time) * 1000;
        Some(events.arm(Token::new(kind::STATE, index), due))
    }

    /// A remote has not cut its session short.
    pub(super) fn proved(&mut self, remote: RemoteId) {
        if self.registry.proved(remote) {
            let address = self.address(remote);
            log::braked(log::Kind::Remote, || format!("{address} is in use again"));
        }
    }
}

impl Session {
    /// Judges the remote, after the direction that reads from `end` was pumped.
    pub(super) fn judge(&mut self, end: End, context: &mut Context<'_>) {
        let State::Relaying { pair, probation } = &mut self.state else {
            return;
        };
        if pair.down.bytes > 0 {
            probation.take().into_iter().for_each(|timer| context.events.cancel(timer));
            context.shared.proved(pair.remote);
        } else if pair.direction(end).has_ended() {
            self.end_probation(end, context);
        }
    }

    /// An end has left, which ends the probation.
    pub(super) fn end_probation(&mut self, end: End, context: &mut Context<'_>) {
        let Context { shared, events, .. } = context;
        let State::Relaying { pair, probation } = &mut self.state else {
            return;
        };
        let Some(timer) = probation.take() else {
            return;
        };
        events.cancel(timer);
        if end != End::Upstream || pair.down.bytes > 0 {
            return;
        }
        // The client may have left first, without our having read its end yet.
        let gone = match self.client.peek() {
            Ok(count) => count == 0 || events.reads_on(&self.client),
            Err(error) => !os::would_block(&error),
        };
        if !gone {
            shared.count_failure(pair.remote, Failure::CutShort, "");
        }
        if !gone && shared.registry.cut_short(pair.remote, os::monotonic_clock()) {
            let (address, count) = (shared.address(pair.remote), shared.settings.fail_count);
            log::braked(log::Kind::Remote, || {
                format!(
                    "{address} has ended {count} sessions in a row at once, without an answer; it is \
                     not used"
                )
            });
        }
    }
}
