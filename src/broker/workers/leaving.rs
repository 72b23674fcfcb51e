//! Asking workers to leave: all of them, or those that are idle and not needed.

use super::Workers;
use crate::broker::kind;
use crate::broker::policy::WorkerId;
use crate::event::{Loop, Token};

/// How often to look for idle workers beyond the minimum, in milliseconds.
const TRIM_PERIOD: u64 = 4000;

impl Workers {
    /// Asks a worker to leave when idle. It gets nothing after this message, so it can serve what
    /// is queued before it and then exit.
    pub(super) fn dismiss(&mut self, id: WorkerId, events: &mut Loop) {
        if self.all.get(&id).is_some_and(|worker| !worker.side.is_leaving()) {
            self.let_go(id, events);
        }
    }

    /// As [`dismiss`](Self::dismiss), for a worker that may have said already that it leaves.
    pub(super) fn let_go(&mut self, id: WorkerId, events: &mut Loop) {
        let users = self.policy.remove(id);
        self.sticky.forget(id);
        if let Some(worker) = self.all.get_mut(&id) {
            worker.side.dismissed();
            worker.users = users.unwrap_or(worker.users);
            worker.farewell(events);
        }
    }

    /// Asks all workers to leave.
    pub(in crate::broker) fn dismiss_all(&mut self, events: &mut Loop) {
        let ids: Vec<WorkerId> = self.all.keys().copied().collect();
        for id in ids {
            self.dismiss(id, events);
        }
    }

    /// Asks all workers to leave, and starts no more.
    pub(in crate::broker) fn close(&mut self, events: &mut Loop) {
        self.closing = true;
        self.dismiss_all(events);
        self.dismiss_monitor(events);
    }

    /// How many workers are leaving, and the sessions that they still have.
    pub(in crate::broker) fn former(&self) -> (usize, usize) {
        let leaving = self.all.values().filter(|worker| worker.side.is_leaving());
        leaving.fold((0, 0), |(count, users), worker| (count + 1, users + worker.users))
    }

    /// Asks idle workers beyond the minimum to leave.
    pub(in crate::broker) fn dismiss_superfluous(&mut self, events: &mut Loop) {
        self.trim = None;
        for id in self.policy.superfluous() {
            self.dismiss(id, events);
        }
        self.schedule_trim(events);
    }

    /// Arms the timer that looks for idle workers, while there are more than the minimum.
    pub(super) fn schedule_trim(&mut self, events: &mut Loop) {
        if self.trim.is_none() && self.policy.len() > self.policy.limits().instances_min {
            self.trim = Some(events.arm(Token::new(kind::TRIM, 0), events.now() + TRIM_PERIOD));
        }
    }
}
