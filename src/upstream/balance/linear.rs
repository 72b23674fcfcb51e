//! The arithmetic in its plainest form, which looks at every remote for each selection. Tests
//! compare the real balancer with it.

use super::remote::STEP;
use super::TICK;
use crate::config::relay::Ties;

/// What one session has tried, and what tag it wants.
#[derive(Clone, Debug, Default)]
pub(super) struct Attempts {
    tag: Option<u32>,
    failed: Vec<u32>,
    revived: bool,
}

impl Attempts {
    pub(super) fn of(tag: Option<u32>) -> Attempts {
        Attempts { tag, ..Attempts::default() }
    }
}

#[derive(Clone, Debug)]
struct Remote {
    tag: Option<u32>,
    weight: u64,
    turn: u64,
    used: u64,
    dead: bool,
    /// When a dead remote may be tried again; `u64::MAX` for never.
    retry_at: u64,
    /// It was reported as down and not yet as up again.
    reported: bool,
}

/// The remotes of all workers together.
#[derive(Clone, Debug)]
pub(super) struct Linear {
    remotes: Vec<Remote>,
    rebalance: i64,
    retry_delay: u64,
    selections: i64,
    ties: Ties,
    /// How far turns have come.
    turns: u64,
}

impl Linear {
    /// Remotes by their weights (at least 1); `rebalance` as configured; `retry_delay` in
    /// milliseconds, 0 for never.
    pub(super) fn new(weights: &[u32], rebalance: i32, retry_delay: u64) -> Linear {
        let remote = |&weight: &u32| Remote {
            tag: None,
            weight: u64::from(weight.max(1)),
            turn: 0,
            used: 0,
            dead: false,
            retry_at: u64::MAX,
            reported: false,
        };
        Linear {
            remotes: weights.iter().map(remote).collect(),
            rebalance: rebalance.into(),
            retry_delay,
            selections: 0,
            ties: Ties::Least,
            turns: 0,
        }
    }

    /// Sets which of tied remotes is selected.
    pub(super) fn set_ties(&mut self, ties: Ties) {
        self.ties = ties;
    }

    /// Gives each remote the number of its tag.
    pub(super) fn set_tags(&mut self, tags: impl Iterator<Item = Option<u32>>) {
        for (remote, tag) in self.remotes.iter_mut().zip(tags) {
            remote.tag = tag;
        }
    }

    /// Selects a remote for a session, and counts it as used by the session. `None` if no remote is
    /// left that this session has not tried.
    pub(super) fn select(&mut self, attempts: &mut Attempts, now: u64) -> Option<usize> {
        if self.rebalance != 0 && self.selections == self.rebalance {
            self.revive();
        }
        self.selections += 1;
        let mut best = self.best(attempts, now);
        if best.is_none() && !attempts.revived {
            attempts.revived = true;
            match attempts.tag {
                None => {
                    self.revive();
                    self.selections += 1;
                }
                // A session with a tag does not lift the marks of remotes without it.
                tag => {
                    let tagged = self.remotes.iter_mut().filter(|remote| remote.tag == tag);
                    tagged.for_each(|remote| remote.dead = false);
                }
            }
            best = self.best(attempts, now);
        }
        let index = best?;
        let remote = &mut self.remotes[index];
        if self.ties == Ties::Least {
            remote.turn = remote.turn.max(self.turns);
            self.turns = self.turns.max(remote.turn - remote.turn % TICK);
            remote.turn += STEP / remote.weight;
        }
        remote.used += 1;
        if remote.dead {
            // One session at a time finds out whether a dead remote is back.
            remote.retry_at = self.retry_delay.saturating_add(now);
        }
        Some(index)
    }

    fn best(&self, attempts: &Attempts, now: u64) -> Option<usize> {
        self.remotes
            .iter()
            .enumerate()
            .filter(|(index, remote)| {
                (attempts.tag.is_none() || attempts.tag == remote.tag)
                    && (!remote.dead || remote.retry_at <= now)
                    && !attempts.failed.contains(&(*index as u32))
            })
            .min_by_key(|(_, remote)| (remote.used * 256 / remote.weight, remote.turn / TICK))
            .map(|(index, _)| index)
    }

    fn revive(&mut self) {
        self.selections = 0;
        for remote in &mut self.remotes {
            remote.dead = false;
        }
    }

    /// A session could not be connected to this remote, which is marked dead. True if that is news.
    pub(super) fn failed(&mut self, index: usize, attempts: &mut Attempts, now: u64) -> bool {
        self.released(index);
        attempts.failed.push(index as u32);
        let delay = self.retry_delay;
        let remote = &mut self.remotes[index];
        remote.dead = true;
        remote.retry_at = if delay == 0 { u64::MAX } else { now.saturating_add(delay) };
        !std::mem::replace(&mut remote.reported, true)
    }

    /// A session was connected to this remote. True if it was reported as down before.
    pub(super) fn connected(&mut self, index: usize) -> bool {
        let remote = &mut self.remotes[index];
        remote.dead = false;
        std::mem::replace(&mut remote.reported, false)
    }

    /// A session no longer uses this remote.
    pub(super) fn released(&mut self, index: usize) {
        let remote = &mut self.remotes[index];
        remote.used = remote.used.saturating_sub(1);
    }
}
