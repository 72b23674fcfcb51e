//! What sessions have found out about remotes: dead marks, and those that were cut short.

use super::super::zone::FOREVER;
use super::{Balancer, Tried};

impl Balancer {
    /// Lifts all dead marks, or those of the remotes with a tag.
    pub(super) fn revive(&mut self, tag: Option<u32>) {
        let concerned = |index: usize| tag.is_none_or(|tag| self.remotes[index].has(tag));
        let dead: Vec<usize> =
            self.dead.iter().map(|&(_, index)| index).filter(|&index| concerned(index)).collect();
        for index in dead {
            self.zone.set_retry_at(self.remotes[index].row, 0);
            self.refresh(index);
        }
    }

    pub(super) fn retry_time(&self) -> u64 {
        if self.retry_delay == 0 {
            FOREVER
        } else {
            self.now.saturating_add(self.retry_delay)
        }
    }

    /// A session could not be connected to this remote, which is marked dead. True if that is news.
    pub fn failed(&mut self, index: usize, tried: &mut Tried, now: u64) -> bool {
        self.catch_up(now);
        tried.add_failed(self.remotes[index].id);
        let row = self.remotes[index].row;
        self.zone.set_retry_at(row, self.retry_time());
        let news = self.zone.report_down(row);
        self.released(index);
        news
    }

    /// A session cannot be connected to this remote, for a reason that is not the remote's fault:
    /// only this session goes without it.
    pub fn rule_out(&mut self, index: usize, tried: &mut Tried) {
        tried.add_failed(self.remotes[index].id);
        self.released(index);
    }

    /// Like [`rule_out`](Self::rule_out), for a reason that may pass ([`Tried::retry_aside`]).
    pub fn set_aside(&mut self, index: usize, tried: &mut Tried) {
        tried.aside.push(self.remotes[index].id);
        self.rule_out(index, tried);
    }

    /// A session was connected to this remote, which lifts its mark. True if the remote was
    /// reported as down before.
    pub fn connected(&mut self, index: usize) -> bool {
        if self.is_on_trial(index) {
            // It has cut sessions short: that it accepts another one proves nothing.
            return false;
        }
        let row = self.remotes[index].row;
        // Other workers may have marked it meanwhile.
        self.zone.set_retry_at(row, 0);
        if self.remotes[index].state.retry_at != 0 {
            self.refresh(index);
        }
        self.zone.report_up(row)
    }

    /// The remote has ended a session at once, without sending anything. True if it is now marked
    /// dead, and that is news.
    pub fn cut_short(&mut self, index: usize, now: u64) -> bool {
        let row = self.remotes[index].row;
        if self.fail_count == 0 || self.zone.count_cut_short(row) < self.fail_count {
            return false;
        }
        self.catch_up(now);
        self.zone.set_retry_at(row, self.retry_time());
        self.refresh(index);
        self.zone.report_down(row)
    }

    /// The remote has answered a session, or has kept it long enough. True if the remote was
    /// reported as down before.
    pub fn proved(&mut self, index: usize) -> bool {
        let row = self.remotes[index].row;
        let was_on_trial = self.is_on_trial(index);
        if self.fail_count != 0 && self.zone.cut_short(row) != 0 {
            self.zone.forget_cut_short(row);
        }
        was_on_trial && self.connected(index)
    }

    /// True if the remote has cut short so many sessions in a row that one more marks it dead.
    pub(super) fn is_on_trial(&self, index: usize) -> bool {
        let row = self.remotes[index].row;
        self.fail_count != 0 && self.zone.cut_short(row) >= self.fail_count
    }

    /// True if the last attempt on this remote failed.
    pub fn is_down(&self, index: usize) -> bool {
        self.zone.is_down(self.remotes[index].row)
    }
}
