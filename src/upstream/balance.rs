//! Selects the remote for a session: bookkeeping with an injected clock.
//!
//! How that is done is configured, for all remotes or for those with a tag ([`Kind`]).
//!
//! `least-use` is the arithmetic of the C program: the priority of a remote is `(use × 256) / weight`, and
//! the smallest wins. Dead remotes take no part. With `ties = first` ties are resolved as in the C
//! program: the first remote wins. Otherwise tied remotes take turns, by weight. The turn of a
//! remote is a time on a clock that selections advance; the earliest turn wins. Being selected puts
//! a remote's turn off by a step, which is shorter the larger its weight. A remote that was dead
//! for a while, or busier than others, resumes where the clock is now: the turns it missed are not
//! made up for, so it gets no burst of sessions. `round-robin` selects by turns alone.
//!
//! `random` draws two remotes by weight and selects the better one, by priority. `source` and
//! `hash` select by a key that the session brings, through a table ([`super::maglev`]).
//!
//! A dead mark is lifted by `rebalance` (every so many selections), when all remotes are dead, and
//! for one attempt at a time after `retry delay`.
//!
//! A remote that its probes have found down takes no part, whatever its mark says. During a slow
//! start its weight counts in part. Tiers rank one after the other, backups last. An operator can take
//! a remote out, and change its weight ([`super::wish`]).
//!
//! Use and dead marks are in a zone, which workers may share. Each worker has a copy of what it
//! last read there, in an order that makes selecting as fast with many remotes as with few.
//!
//! Remotes come and go while sessions run. A removed remote is not selected any more, and drains:
//! its place and its row are given up with the last session that uses it.

mod group;
#[cfg(test)]
mod health_tests;
#[cfg(test)]
mod kinds_tests;
#[cfg(test)]
mod limit_tests;
#[cfg(test)]
mod linear;
mod marks;
mod members;
mod remote;
mod select;
#[cfg(test)]
mod shared_tests;
#[cfg(test)]
mod tests;
mod tree;

use super::maglev::Host;
use super::wish::Service;
use super::zone::Zone;
use crate::config::balance::Kind;
use crate::config::relay::Ties;
use crate::os::hash::Random;
use group::{Choice, Group};
pub use remote::{Entry, Tried};
use remote::{Remote, Standing, BACKUP};
use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Included};
use tree::Tree;

/// Turns are compared in ticks of this size, so that they round as priorities do.
const TICK: u64 = 5040;

/// The remotes of a worker.
pub struct Balancer {
    zone: Zone,
    remotes: Vec<Remote>,
    /// Places without a remote.
    vacant: Vec<usize>,
    /// The remote of each row.
    by_row: Vec<Option<usize>>,
    /// The group of all remotes, then one group per tag.
    groups: Vec<Group>,
    /// Dead remotes, by the time when they may be tried again.
    dead: BTreeSet<(u64, usize)>,
    /// The latest time that was passed in: dead remotes that are due by then take part.
    now: u64,
    /// Rows to read again; a field only to keep the allocation.
    changes: Vec<usize>,
    /// 0 for never.
    rebalance: u64,
    retry_delay: u64,
    ties: Ties,
    /// How the remotes of each group are selected.
    kinds: Vec<Kind>,
    random: Random,
    /// Ranks count turns from here, in ticks.
    origin: u64,
    /// 0 for never.
    fail_count: u64,
    /// A weight was changed by hand.
    reweighted: bool,
    /// There are remotes with a limit of sessions.
    limits: bool,
}

/// The group of a tag, or of all remotes.
fn number(tag: Option<u32>) -> usize {
    tag.map_or(0, |tag| 1 + tag as usize)
}

impl Balancer {
    /// A balancer without remotes: `rebalance` as configured; `retry_delay` in milliseconds, 0 for
    /// never. Its zone is not shared.
    pub fn empty(rebalance: i32, retry_delay: u64) -> Balancer {
        Balancer {
            zone: Zone::own(0),
            remotes: Vec::new(),
            vacant: Vec::new(),
            by_row: Vec::new(),
            groups: vec![Group::default()],
            dead: BTreeSet::new(),
            now: 0,
            changes: Vec::new(),
            rebalance: u64::try_from(rebalance).unwrap_or(0),
            retry_delay,
            ties: Ties::default(),
            kinds: vec![Kind::default()],
            random: Random::new(0),
            origin: 0,
            fail_count: 0,
            reweighted: false,
            limits: false,
        }
    }

    /// Like [`empty`](Self::empty), with remotes of these weights.
    pub fn new(weights: &[u32], rebalance: i32, retry_delay: u64) -> Balancer {
        let mut balancer = Balancer::empty(rebalance, retry_delay);
        let entry = |(weight, identity): (&u32, u64)| Entry {
            weight: *weight,
            identity,
            ..Entry::default()
        };
        let entries: Vec<Entry> = weights.iter().zip(1..).map(entry).collect();
        balancer.add(&entries);
        balancer
    }

    /// Takes over what others have changed. As with selections, all must pass the same clock.
    pub fn follow(&mut self, now: u64) {
        self.catch_up(now);
    }

    /// Counts how often addresses of names were published.
    #[inline]
    pub(super) fn editions(&self) -> u64 {
        self.zone.editions()
    }

    /// The zone, for what has nothing to do with balancing.
    pub(super) fn zone(&self) -> &Zone {
        &self.zone
    }

    /// True if a remote is down, and sessions of this worker use it.
    pub fn is_fallen(&self, index: usize) -> bool {
        let remote = &self.remotes[index];
        remote.own > 0 && remote.share_by_health() == 0
    }

    /// True if an operator has disabled a remote, and sessions of this worker use it.
    pub fn is_disabled(&self, index: usize) -> bool {
        let remote = &self.remotes[index];
        remote.own > 0 && remote.service == Service::Disabled
    }

    /// The row in the zone of the remote in a place.
    pub(super) fn row(&self, index: usize) -> usize {
        self.remotes[index].row
    }

    /// Sets which of tied remotes is selected. Call it before the first selection.
    pub fn set_ties(&mut self, ties: Ties) {
        self.ties = ties;
    }

    /// Sets how remotes are selected: all of them, and those with a tag where that differs.
    pub fn set_kinds(&mut self, all: Kind, by_tag: &[(u32, Kind)]) {
        self.kinds = vec![all];
        for &(tag, kind) in by_tag {
            let number = number(Some(tag));
            if number >= self.kinds.len() {
                self.kinds.resize(number + 1, all);
            }
            self.kinds[number] = kind;
        }
        self.group();
    }

    /// Adds a tag that these remotes have.
    pub fn add_tag(&mut self, tag: u32, kind: Kind, members: &[usize]) {
        let (all, number) = (self.kinds[0], number(Some(tag)));
        if number >= self.kinds.len() {
            self.kinds.resize(number + 1, all);
        }
        self.kinds[number] = kind;
        members.iter().for_each(|&index| self.remotes[index].tags.push((tag, 0)));
        self.group();
    }

    /// How the remotes with a tag, or all remotes, are selected.
    pub fn kind(&self, tag: Option<u32>) -> Kind {
        self.kinds.get(number(tag)).copied().unwrap_or(self.kinds[0])
    }

    /// Sets the seed of the random numbers.
    pub fn set_seed(&mut self, seed: u64) {
        self.random = Random::new(seed);
    }

    /// Sets how many sessions in a row a remote may cut short before it is marked dead; 0 for any
    /// number.
    pub fn set_fail_count(&mut self, count: u32) {
        self.fail_count = count.into();
    }

    /// Shares a zone with other workers. False if the zone has no room; it is not shared then.
    pub fn join(&mut self, zone: Zone) -> bool {
        let present = |&index: &usize| self.remotes[index].standing != Standing::Vacant;
        let indices: Vec<usize> = (0..self.remotes.len()).filter(present).collect();
        let identities: Vec<u64> =
            indices.iter().map(|&index| self.remotes[index].identity).collect();
        let Some(rows) = zone.take_rows(&identities) else {
            return false;
        };
        self.zone = zone;
        self.by_row.clear();
        for (index, row) in indices.into_iter().zip(rows) {
            self.take_row(index, row);
        }
        self.group();
        true
    }

    fn group(&mut self) {
        self.groups = vec![Group::default()];
        self.limits = self.remotes.iter().any(|remote| remote.most < u64::MAX);
        for (index, remote) in self.remotes.iter_mut().enumerate() {
            self.groups[0].members.push(index);
            if remote.standing != Standing::InUse {
                continue;
            }
            for (tag, place) in &mut remote.tags {
                let number = number(Some(*tag));
                if number >= self.groups.len() {
                    self.groups.resize_with(number + 1, Group::default);
                }
                *place = self.groups[number].members.len();
                self.groups[number].members.push(index);
            }
        }
        let kinds = (0..).map(|number| self.kinds.get(number).copied().unwrap_or(self.kinds[0]));
        for (group, kind) in self.groups.iter_mut().zip(kinds) {
            group.tree = Tree::new(group.members.len());
            let present = group.members.iter().map(|&index| &self.remotes[index]);
            let present = present.filter(|remote| remote.standing == Standing::InUse);
            let first = present.map(|remote| remote.tier).min().unwrap_or_default();
            // Only those of the first tier are drawn and own keys, and no backups: the others are
            // selected by use, if none of these is left.
            let in_use = |&&index: &&usize| {
                let remote = &self.remotes[index];
                remote.standing == Standing::InUse && remote.tier == first && first < BACKUP
            };
            let members: Vec<Host> = group
                .members
                .iter()
                .filter(in_use)
                .map(|&index| self.remotes[index].host(index))
                .collect();
            group.choice = Choice::new(kind, &members);
        }
        for index in 0..self.remotes.len() {
            self.enter(index);
        }
    }

    fn enter(&mut self, index: usize) {
        if self.remotes[index].standing != Standing::InUse {
            return;
        }
        let rank = self.rank(index, &self.groups[0]);
        self.groups[0].tree.set(index, rank);
        for membership in 0..self.remotes[index].tags.len() {
            let (tag, place) = self.remotes[index].tags[membership];
            let number = number(Some(tag));
            let rank = self.rank(index, &self.groups[number]);
            self.groups[number].tree.set(place, rank);
        }
    }

    /// Reads the state of a remote from the zone, and updates its rank.
    fn refresh(&mut self, index: usize) {
        if !self.read(index) {
            return;
        }
        match std::mem::take(&mut self.reweighted) {
            // Lots and tables depend on the weights.
            true => self.group(),
            false => self.enter(index),
        }
    }

    /// Reads the state of a remote from the zone. True if it has changed.
    fn read(&mut self, index: usize) -> bool {
        let remote = &mut self.remotes[index];
        let state = self.zone.state(remote.row);
        let former = std::mem::replace(&mut remote.state, state);
        if former.retry_at != state.retry_at {
            self.dead.remove(&(former.retry_at, index));
            if state.retry_at != 0 {
                self.dead.insert((state.retry_at, index));
            }
        }
        if former.wish != state.wish {
            self.reweighted |= remote.obey();
        }
        if former.health != state.health {
            remote.follow_health();
        }
        former != state
    }

    /// Takes over what other workers have changed, and what has become due.
    fn catch_up(&mut self, now: u64) {
        let mut changes = std::mem::take(&mut self.changes);
        self.zone.changes(&mut changes);
        for row in changes.drain(..) {
            if let Some(&Some(index)) = self.by_row.get(row) {
                self.refresh(index);
            }
        }
        self.changes = changes;
        let before = self.now;
        self.now = before.max(now);
        if before < self.now && !self.dead.is_empty() {
            let times = (Excluded((before, usize::MAX)), Included((self.now, usize::MAX)));
            let due: Vec<usize> = self.dead.range(times).map(|&(_, index)| index).collect();
            for index in due {
                self.enter(index);
            }
        }
    }

    fn add_own(&mut self, index: usize, change: i64) {
        let remote = &mut self.remotes[index];
        remote.own = remote.own.saturating_add_signed(change);
        self.zone.set_used(remote.row, remote.own);
        self.refresh(index);
    }

    /// A session no longer uses this remote.
    pub fn released(&mut self, index: usize) {
        self.add_own(index, -1);
        self.vacate_if_drained(index);
    }

    /// How many sessions use this remote, of all workers as far as this one has read.
    pub fn used(&self, index: usize) -> u64 {
        self.remotes[index].state.used
    }
}
