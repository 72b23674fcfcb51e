//! The limits of a session: how long it may last, be idle, wait for the remote's first byte, or go on
//! when one side has ended; and how many bytes it may carry in a second.
//!
//! One timer stands for all of them. It is not moved when bytes do: when it expires, the session
//! looks which limit is next, from when it was last active and how far it has come.

use super::access::Outcome;
use super::allotment::{Bucket, Limit};
use super::connect::set_timer;
use super::direction::State as Flowing;
use super::pair::{End, Pair};
use super::session::{Context, Next, Parting, Session, State};
use super::shared::{kind, Shared};
use crate::config::relay::Limits;
use crate::event::{TimerId, Token};
use crate::upstream::zone::counters::{General, Place};

/// When a limit of so many seconds is over; `None` if there is none.
fn due(since: u64, seconds: u32) -> Option<u64> {
    (seconds > 0).then(|| since + u64::from(seconds) * 1000)
}

impl Session {
    /// The session begins, and its limits with it.
    pub(super) fn limit(&mut self, context: &mut Context<'_>) {
        let (settings, now) = (&context.shared.settings, context.events.now());
        if settings.limits != Limits::default() {
            let allotment = self.allotment.get_or_insert_default();
            (allotment.begun, allotment.connected) = (now, now);
            let bucket = |rate| Bucket::new(rate, now);
            allotment.up = bucket(settings.limits.bandwidth_up);
            allotment.down = bucket(settings.limits.bandwidth_down);
        } else if settings.idle_timeout == 0 {
            return;
        }
        self.limit_sooner(context);
    }

    /// Both ends are there, and perhaps the client's first bytes were sent.
    #[inline]
    pub(super) fn limit_relaying(&mut self, context: &mut Context<'_>) {
        if let Some(allotment) = &mut self.allotment {
            allotment.connected = context.events.now();
            self.limit_sooner(context);
            self.spend(End::Client, 0, context);
        }
    }

    /// A direction has carried bytes, and had carried so many `before`. It pauses if that was its
    /// bandwidth.
    pub(super) fn spend(&mut self, end: End, before: u64, context: &mut Context<'_>) {
        let (State::Relaying { pair, .. }
        | State::Breaking { pair, .. }
        | State::Lingering { pair, .. }) = &mut self.state
        else {
            return;
        };
        let Some(bucket) = self.allotment.as_mut().and_then(|allotment| allotment.bucket_mut(end))
        else {
            return;
        };
        let direction = pair.direction_mut(end);
        bucket.spend(direction.bytes - before);
        if bucket.is_empty() && direction.state == Flowing::Open {
            direction.state = Flowing::Paused;
            self.note_pause(context);
            self.wake_later(context);
        }
    }

    /// A direction pauses: the session is counted the first time, and its line in the access log
    /// says so.
    #[cold]
    fn note_pause(&mut self, context: &mut Context<'_>) {
        let Some(allotment) = self.allotment.as_mut().filter(|one| !one.throttled) else {
            return;
        };
        allotment.throttled = true;
        context.shared.counters.add(Place::General(General::Throttled), 1);
        if let Some(access) = &mut self.access {
            access.throttled = true;
        }
    }

    /// Sets the timer that ends the next pause.
    fn wake_later(&mut self, context: &mut Context<'_>) {
        let due = self.next_wake();
        if let Some(allotment) = &mut self.allotment {
            let token = Token::new(kind::LIMIT, context.index);
            set_timer(&mut allotment.wake, due, token, context.events);
        }
    }

    /// When the next pause is over.
    fn next_wake(&self) -> Option<u64> {
        let ends = [End::Client, End::Upstream].into_iter();
        ends.filter_map(|end| self.pause(end)).min()
    }

    /// When the pause of the direction that reads from `end` is over; `None` if it does not pause.
    fn pause(&self, end: End) -> Option<u64> {
        let (bucket, pair) = (self.allotment.as_ref()?.bucket(end)?, self.pair()?);
        (pair.direction(end).state == Flowing::Paused).then(|| bucket.due())
    }

    /// The pause of a direction may be over. True if it is.
    fn resume(&mut self, end: End, now: u64) -> bool {
        let over = self.pause(end).is_some_and(|due| due <= now);
        if let (true, Some(pair)) = (over, self.pair_mut()) {
            pair.direction_mut(end).state = Flowing::Open;
        }
        over
    }

    /// A pause is over.
    fn wake(&mut self, context: &mut Context<'_>) -> Next {
        let now = context.events.now();
        let (up, down) = (self.resume(End::Client, now), self.resume(End::Upstream, now));
        self.wake_later(context);
        match (up, down) {
            (true, true) => Next::Pump(End::Client, Some(End::Upstream)),
            (true, false) => Next::Pump(End::Client, None),
            (false, true) => Next::Pump(End::Upstream, None),
            (false, false) => Next::Wait,
        }
    }

    /// A limit has begun that may end the session before the timer expires.
    pub(super) fn limit_sooner(&mut self, context: &mut Context<'_>) {
        let due = self.next_limit(context.shared).map(|(due, _)| due);
        let token = Token::new(kind::LIMIT, context.index);
        set_timer(&mut self.limit_timer, due, token, context.events);
    }

    /// The limit that comes first, and when.
    fn next_limit(&self, shared: &Shared) -> Option<(u64, Limit)> {
        let idle = due(self.active, shared.settings.idle_timeout);
        let idle = idle.map(|due| (due, Limit::Idle));
        let Some(allotment) = &self.allotment else {
            return idle;
        };
        let limits = &shared.settings.limits;
        let whole = due(allotment.begun, limits.session_timeout);
        let waits = matches!(&self.state, State::Relaying { pair, .. } if pair.down.bytes == 0);
        let first = due(allotment.connected, limits.first_byte_timeout).filter(|_| waits);
        let ended = |pair: &Pair| pair.up.has_ended() || pair.down.has_ended();
        let half = due(self.active, limits.half_closed_timeout);
        let half = half.filter(|_| self.pair().is_some_and(ended));
        let others =
            [(whole, Limit::Session), (first, Limit::FirstByte), (half, Limit::HalfClosed)];
        let others = others.into_iter().filter_map(|(due, limit)| Some((due?, limit)));
        idle.into_iter().chain(others).min_by_key(|&(due, _)| due)
    }

    /// The timer of the limits has expired.
    pub(super) fn limit_expired(&mut self, timer: TimerId, context: &mut Context<'_>) -> Next {
        if let Some(allotment) = self.allotment.as_mut().filter(|one| one.wake == Some(timer)) {
            allotment.wake = None;
            return self.wake(context);
        }
        if self.limit_timer != Some(timer) {
            // It expired before it could be cancelled.
            return Next::Wait;
        }
        self.limit_timer = None;
        // Bytes that the kernel carries by itself are counted when a direction is taken back.
        for end in [End::Client, End::Upstream] {
            if self.pair().is_some_and(|pair| pair.is_spliced(end)) {
                match self.pump(end, None, context) {
                    Next::Wait => {}
                    next => return next,
                }
            }
        }
        match self.next_limit(context.shared) {
            Some((due, limit)) if due <= context.events.now() => {
                let parting = if self.is_unfinished() { Parting::Reset } else { Parting::Orderly };
                Next::Close(Outcome::Limited(limit), parting)
            }
            _ => {
                self.limit_sooner(context);
                Next::Wait
            }
        }
    }
}
