//! The process title, and the load as figures show it.

use super::{Broker, Life};
use crate::broker::text;
use crate::os::title::State;
use crate::upstream::zone::counters::{General, Place};

/// What the process title says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Serving { total: usize, more: usize, full: bool },
    Draining { left: usize },
}

impl Broker {
    /// Sets the process title and what figures say of it, if they have changed.
    #[inline]
    pub(super) fn refresh_title(&mut self) {
        let now = match self.life {
            Life::Draining => Shown::Draining { left: self.workers.sessions() },
            _ => {
                let waiting = self.dispatch.waiting();
                if self.noted != Some(waiting) {
                    self.note_waiting(waiting);
                }
                let policy = self.workers.policy();
                let (total, more) = (policy.total(), policy.room());
                Shown::Serving { total, more, full: self.admission.is_overloaded() }
            }
        };
        if self.shown != Some(now) {
            self.show(now);
        }
    }

    #[inline(never)]
    fn show(&mut self, now: Shown) {
        self.shown = Some(now);
        let (count, state) = match now {
            Shown::Draining { left } => {
                self.callers.left_over(left);
                (left, State::Leaving)
            }
            Shown::Serving { total, full: true, .. } => {
                (total, State::Full { doing: text::doing(self.admission.overload()) })
            }
            Shown::Serving { total, more, full: false } => (total, State::Accepting { more }),
        };
        self.title.connections(count).state(state).show();
        if let Shown::Serving { total, more, .. } = now {
            let limit = total.saturating_add(more) as u64;
            self.workers.counters().set(Place::General(General::Limit), limit);
        }
    }

    #[cold]
    fn note_waiting(&mut self, waiting: usize) {
        self.noted = Some(waiting);
        self.workers.counters().set(Place::General(General::Waiting), waiting as u64);
    }
}
