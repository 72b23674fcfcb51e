//! A session with both ends connected: moving bytes, and how the session ends.

use super::access::Outcome;
use super::direction::{State as Flowing, Stop};
use super::pair::{End, Link};
use super::pump::{Ending, UNLIMITED};
use super::session::{Context, Next, Parting, Session, State};
use super::shared::kind;
use crate::event::{TimerId, Token};
use std::net::Shutdown;

/// How often a breaking session is checked, in milliseconds: the system does not tell when its send
/// queue is empty. Less often the longer nothing has happened.
const LINGER_STEP: u64 = 20;
const LINGER_LONGEST_STEP: u64 = 1000;
/// A breaking session is reset at once when its receiver has taken nothing for this many
/// milliseconds.
const LINGER_LIMIT: u64 = 30_000;

impl Session {
    /// Moves what can be moved from one end, or from both.
    pub(super) fn pump(
        &mut self,
        first: End,
        second: Option<End>,
        context: &mut Context<'_>,
    ) -> Next {
        if let Some(next) = self.pump_from(first, context) {
            return next;
        }
        if let Some(next) = second.and_then(|end| self.pump_from(end, context)) {
            return next;
        }
        self.settle(context)
    }

    /// `None` if the session goes on.
    fn pump_from(&mut self, end: End, context: &mut Context<'_>) -> Option<Next> {
        let Context { shared, events, .. } = context;
        let (pair, ending, on_probation) = match &mut self.state {
            State::Relaying { pair, probation } => {
                let ending = pair.ending(end);
                (pair, ending, probation.is_some())
            }
            State::Breaking { pair, .. } | State::Lingering { pair, .. } => {
                (pair, Ending::Nothing, false)
            }
            _ => return None,
        };
        let now = events.now();
        pair.stir(self.active, now);
        let (before, most) = match &mut self.allotment {
            Some(allotment) => (pair.direction(end).bytes, allotment.most(end, now)),
            None => (0, UNLIMITED),
        };
        let buffers = &mut shared.buffers;
        let pumped = pair.pump_some(end, &self.client, ending, most, buffers, events);
        if pumped.moved {
            self.active = now;
        }
        if most != UNLIMITED {
            self.spend(end, before, context);
        }
        if on_probation {
            self.judge(end, context);
        }
        if pumped.truncated {
            self.tls_end_trouble(end, "connection ended without close_notify");
        }
        self.stopped(end, pumped.stop, context)
    }

    /// The direction that reads from `end` has come to a stop. `None` if the session goes on.
    #[inline]
    pub(super) fn stopped(
        &mut self,
        end: End,
        stop: Stop,
        context: &mut Context<'_>,
    ) -> Option<Next> {
        match stop {
            Stop::Waiting => None,
            Stop::Source => self.broken(end, context),
            Stop::Sink => self.broken(end.other(), context),
            Stop::Failed(text) => {
                self.tls_failed(end, &text, context);
                None
            }
        }
    }

    /// An end's connection is broken. What that end had sent is still delivered; nothing more goes
    /// to it.
    fn broken(&mut self, end: End, context: &mut Context<'_>) -> Option<Next> {
        match &mut self.state {
            State::Relaying { pair, .. } => pair.take_back(&self.client),
            State::Breaking { pair, broken } | State::Lingering { pair, broken, .. } => {
                if *broken != end {
                    // The other end was broken already: nobody is left to deliver to.
                    return Some(Next::Close(Outcome::Broken(*broken), Parting::Reset));
                }
                pair.direction_mut(end).abandon(&mut context.shared.buffers);
                return None;
            }
            _ => return None,
        }
        self.end_probation(end, context);
        let State::Relaying { mut pair, .. } = std::mem::replace(&mut self.state, State::Over)
        else {
            return None;
        };
        let Context { shared, events, .. } = context;
        pair.direction_mut(end.other()).abandon(&mut shared.buffers);
        self.active = events.now();
        // What is left in the broken end's receive queue can still be read.
        pair.direction_mut(end).copy_only();
        let buffers = &mut shared.buffers;
        let pumped = pair.pump(end, &self.client, Ending::Nothing, buffers, events);
        match pumped.stop {
            Stop::Waiting => {}
            Stop::Source | Stop::Failed(_) => pair.direction_mut(end).state = Flowing::Shut,
            Stop::Sink => pair.direction_mut(end).abandon(buffers),
        }
        self.state = State::Breaking { pair, broken: end };
        None
    }

    /// An end has violated the TLS protocol, or given up. What it had sent before is delivered, and
    /// then the session ends.
    fn tls_failed(&mut self, end: End, text: &str, context: &mut Context<'_>) {
        self.tls_end_trouble(end, text);
        let Context { shared, events, .. } = context;
        let (pair, relaying) = match &mut self.state {
            State::Relaying { pair, .. } => (pair, true),
            State::Breaking { pair, .. } | State::Lingering { pair, .. } => (pair, false),
            _ => return,
        };
        // Our alert is on its way; nothing else goes to that end.
        pair.direction_mut(end.other()).abandon(&mut shared.buffers);
        let _ = pair.end(end, &self.client).shutdown(Shutdown::Write);
        let direction = pair.direction_mut(end);
        if matches!(direction.state, Flowing::Open | Flowing::Paused) {
            direction.cut_off();
        }
        let ending = if relaying { pair.ending(end) } else { Ending::Nothing };
        let pumped = pair.pump(end, &self.client, ending, &mut shared.buffers, events);
        if !matches!(pumped.stop, Stop::Waiting) {
            pair.direction_mut(end).abandon(&mut shared.buffers);
        }
        debug_assert_ne!(ending, Ending::Shutdown);
    }

    /// Ends a session that has nothing left to do.
    #[inline]
    fn settle(&mut self, context: &mut Context<'_>) -> Next {
        match &self.state {
            State::Relaying { pair, .. } if pair.is_shut() => {
                Next::Close(Outcome::Closed, Parting::Orderly)
            }
            State::Breaking { pair, .. } if pair.is_shut() => self.linger(None, context),
            State::Lingering { timer, .. } => self.linger(Some(*timer), context),
            State::Relaying { pair, .. } | State::Breaking { pair, .. }
                if context.shared.settings.limits.half_closed_timeout > 0
                    && (pair.up.has_ended() || pair.down.has_ended()) =>
            {
                self.limit_sooner(context);
                Next::Wait
            }
            _ => Next::Wait,
        }
    }

    /// A broken session has delivered all it could. Resets the other end as soon as its send queue
    /// is empty, as a reset overtakes what is still queued. `armed`: the timer for the next check,
    /// if it is running.
    pub(super) fn linger(&mut self, armed: Option<TimerId>, context: &mut Context<'_>) -> Next {
        let (pair, broken, before) = match std::mem::replace(&mut self.state, State::Over) {
            State::Breaking { pair, broken } => (pair, broken, 0),
            State::Lingering { pair, broken, unsent, .. } => (pair, broken, unsent),
            other => {
                self.state = other;
                return Next::Wait;
            }
        };
        let receiver = pair.end(broken.other(), &self.client);
        let unsent = receiver.unsent_bytes() as u32;
        // Some mechanisms do not report the receiver's reset, so ask.
        let gone = receiver.take_error().is_err();
        let now = context.events.now();
        if unsent != before {
            self.active = now;
        }
        let quiet = now.saturating_sub(self.active);
        if gone || unsent == 0 || quiet >= LINGER_LIMIT {
            armed.into_iter().for_each(|timer| context.events.cancel(timer));
            self.state = State::Breaking { pair, broken };
            return Next::Close(Outcome::Broken(broken), Parting::Reset);
        }
        let timer = armed.unwrap_or_else(|| {
            let step = (quiet / 2).clamp(LINGER_STEP, LINGER_LONGEST_STEP);
            context.events.arm(Token::new(kind::STATE, context.index), now + step)
        });
        self.state = State::Lingering { pair, broken, unsent, timer };
        Next::Wait
    }

    /// A hangup was reported for an end that is neither read nor written at the moment.
    pub(super) fn hung_up(&mut self, end: End, context: &mut Context<'_>) -> Next {
        let (pair, broken) = match &mut self.state {
            State::Relaying { pair, .. } => (pair, None),
            State::Breaking { pair, broken } | State::Lingering { pair, broken, .. } => {
                (pair, Some(*broken))
            }
            _ => return Next::Wait,
        };
        let error = pair.end(end, &self.client).take_error();
        match end {
            End::Client => self.client_link = Link::HungUp,
            End::Upstream => pair.upstream_link = Link::HungUp,
        }
        // If the end is known to be broken already, what it had sent is still on its way, and
        // reading finds the end of that.
        if error.is_err() && broken != Some(end) {
            if let Some(next) = self.broken(end, context) {
                return next;
            }
        }
        self.settle(context)
    }
}
