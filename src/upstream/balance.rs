//! Which remote a session is connected to: bookkeeping with an injected clock.
//!
//! The arithmetic is that of the C program: the priority of a remote is
//! `(use × 256) / weight`, and the smallest wins. Dead remotes take no part. With `ties = first`
//! equals are as in the C program: the first one wins. Otherwise they take turns, by weight. The turn
//! of a remote is when it is due, on a clock that selections move: being selected puts it off by a
//! step, the shorter the larger the weight, and the earliest wins. One that was dead for a while, or
//! busier than others, begins where the clock is now: what it has missed is not made up for, so it gets
//! no burst of sessions.
//!
//! A dead mark is lifted by `rebalance` (with every so many selections), when all remotes are
//! dead, and for one attempt at a time after `retry delay`.
//!
//! Use and dead marks are in a zone, which workers may share. Each has its own copy of what it
//! has read there last, in an order that makes selecting as fast with many remotes as with few.
//!
//! Remotes come and go while sessions run. One that is taken out is not selected any more, and drains:
//! its place and its row are given up with the last session that uses it.

#[cfg(test)]
mod linear;
#[cfg(test)]
mod shared_tests;
#[cfg(test)]
mod tests;
mod tree;

use super::remote::RemoteId;
use super::zone::{State, Zone, FOREVER};
use crate::config::relay::Ties;
use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Included};
use tree::{Tree, OUT};

/// What one session has tried already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// In order.
    failed: Vec<RemoteId>,
    /// Of these, those for which this host was short of something.
    aside: Vec<RemoteId>,
    /// All were dead, and their marks were lifted once for this session.
    revived: bool,
}

impl Tried {
    /// Remotes that only this host has kept it from are to be tried again. False if there are none.
    pub fn retry_aside(&mut self) -> bool {
        let aside = std::mem::take(&mut self.aside);
        self.failed.retain(|id| !aside.contains(id));
        !aside.is_empty()
    }

    fn has_failed(&self, id: RemoteId) -> bool {
        self.failed.binary_search(&id).is_ok()
    }

    fn add_failed(&mut self, id: RemoteId) {
        if let Err(place) = self.failed.binary_search(&id) {
            self.failed.insert(place, id);
        }
    }
}

/// What balancing has to know of a remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// At least 1.
    pub weight: u32,
    /// A small number, as there is a place for each.
    pub tag: Option<u32>,
    /// By what it is known in the zone; at least 1, and different for each.
    pub identity: u64,
}

/// The step of a remote with weight 1. That of another one is a whole part of it for all weights up to
/// 10, and most others that are used.
const STEP: u64 = 256 * TICK;
/// Turns are compared in ticks of the clock, so that they round as priorities do.
const TICK: u64 = 5040;
/// The largest number in half a word.
const HALF: u64 = u32::MAX as u64;

/// Whether a place has a remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    InUse,
    /// It was taken out, and some sessions still use it.
    Draining,
    Vacant,
}

struct Remote {
    id: RemoteId,
    standing: Standing,
    weight: u64,
    /// By how much its turn is put off by a session.
    step: u64,
    tag: Option<u32>,
    /// Its place among those with its tag.
    place: usize,
    identity: u64,
    /// Its row in the zone.
    row: usize,
    /// Sessions of this worker that use it.
    own: u64,
    /// What the zone said last.
    state: State,
}

impl Remote {
    fn set(&mut self, entry: &Entry) {
        let weight = u64::from(entry.weight.max(1));
        (self.weight, self.step) = (weight, (STEP / weight).max(1));
        (self.tag, self.identity) = (entry.tag, entry.identity);
    }
}

/// Those with one tag, or all.
#[derive(Default)]
struct Group {
    members: Vec<usize>,
    tree: Tree,
}

/// The remotes of a worker.
pub struct Balancer {
    zone: Zone,
    remotes: Vec<Remote>,
    /// Places without a remote.
    vacant: Vec<usize>,
    /// Which remote has a row.
    by_row: Vec<Option<usize>>,
    /// All, and then those with each tag.
    groups: Vec<Group>,
    /// Dead remotes by the time when they may be tried again.
    dead: BTreeSet<(u64, usize)>,
    /// The latest time that was heard of: what is due since then takes part.
    now: u64,
    /// Rows to be read again; kept for its memory.
    changes: Vec<usize>,
    /// 0 for never.
    rebalance: u64,
    retry_delay: u64,
    ties: Ties,
    /// Turns are counted from here, in ticks.
    origin: u64,
    /// 0 for never.
    fail_count: u64,
}

impl Balancer {
    /// Without remotes: `rebalance` as configured; `retry_delay` in milliseconds, 0 for never. The zone
    /// is not shared.
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
            origin: 0,
            fail_count: 0,
        }
    }

    /// As [`empty`](Self::empty), with remotes by their weights.
    pub fn new(weights: &[u32], rebalance: i32, retry_delay: u64) -> Balancer {
        let mut balancer = Balancer::empty(rebalance, retry_delay);
        let entry =
            |(weight, identity): (&u32, u64)| Entry { weight: *weight, tag: None, identity };
        let entries: Vec<Entry> = weights.iter().zip(1..).map(entry).collect();
        balancer.add(&entries);
        balancer
    }

    /// Adds remotes. `None`: a shared zone has no room for them.
    pub fn add(&mut self, entries: &[Entry]) -> Option<Vec<RemoteId>> {
        self.zone.make_room(entries.len());
        let identities: Vec<u64> = entries.iter().map(|entry| entry.identity).collect();
        let rows = self.zone.take_rows(&identities)?;
        let mut ids = Vec::with_capacity(entries.len());
        for (entry, row) in entries.iter().zip(rows) {
            let index = self.vacant.pop().unwrap_or_else(|| {
                let index = self.remotes.len();
                self.remotes.push(Remote {
                    id: RemoteId::first(index),
                    standing: Standing::Vacant,
                    weight: 1,
                    step: 1,
                    tag: None,
                    place: 0,
                    identity: 0,
                    row: 0,
                    own: 0,
                    state: State::default(),
                });
                index
            });
            let remote = &mut self.remotes[index];
            remote.standing = Standing::InUse;
            remote.set(entry);
            ids.push(remote.id);
            self.take_row(index, row);
        }
        self.group();
        Some(ids)
    }

    /// Changes what is known of a remote that was not taken out. False if a shared zone has no room for
    /// what it is now; it stays as it was.
    pub fn change(&mut self, index: usize, entry: &Entry) -> bool {
        if !self.is_in_use(index) {
            return false;
        }
        if entry.identity != self.remotes[index].identity {
            self.zone.make_room(1);
            let Some(rows) = self.zone.take_rows(&[entry.identity]) else {
                return false;
            };
            self.leave_row(index);
            rows.into_iter().for_each(|row| self.take_row(index, row));
        }
        self.remotes[index].set(entry);
        self.group();
        true
    }

    /// A remote is not selected any more. It is there as long as sessions use it.
    pub fn remove(&mut self, index: usize) {
        if self.is_in_use(index) {
            self.remotes[index].standing = Standing::Draining;
            self.vacate_if_drained(index);
            self.group();
        }
    }

    /// The remote in a place, also if it drains.
    pub(super) fn id(&self, index: usize) -> Option<RemoteId> {
        let remote = self.remotes.get(index)?;
        (remote.standing != Standing::Vacant).then_some(remote.id)
    }

    /// True if a place has a remote that was not taken out.
    pub(super) fn is_in_use(&self, index: usize) -> bool {
        self.remotes.get(index).is_some_and(|remote| remote.standing == Standing::InUse)
    }

    fn take_row(&mut self, index: usize, row: usize) {
        if row >= self.by_row.len() {
            self.by_row.resize(row + 1, None);
        }
        self.by_row[row] = Some(index);
        let remote = &mut self.remotes[index];
        remote.row = row;
        self.zone.set_used(row, remote.own);
        self.read(index);
    }

    fn leave_row(&mut self, index: usize) {
        let row = self.remotes[index].row;
        self.by_row[row] = None;
        self.zone.leave_row(row);
    }

    /// Gives up the place of a remote that was taken out and that no session uses.
    fn vacate_if_drained(&mut self, index: usize) {
        let remote = &mut self.remotes[index];
        if remote.standing != Standing::Draining || remote.own > 0 {
            return;
        }
        remote.standing = Standing::Vacant;
        remote.id = remote.id.next();
        self.dead.remove(&(remote.state.retry_at, index));
        remote.state = State::default();
        self.leave_row(index);
        self.vacant.push(index);
    }

    /// Which of equals is selected, before anything is.
    pub fn set_ties(&mut self, ties: Ties) {
        self.ties = ties;
    }

    /// How many sessions in a row a remote may cut short before it is taken for dead; 0 for any
    /// number.
    pub fn set_fail_count(&mut self, count: u32) {
        self.fail_count = count.into();
    }

    /// Shares a zone with other workers. False if that has no room: it is not shared then.
    pub fn share(&mut self, zone: Zone) -> bool {
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
        for (index, remote) in self.remotes.iter_mut().enumerate() {
            self.groups[0].members.push(index);
            if let (Some(tag), Standing::InUse) = (remote.tag, remote.standing) {
                let number = 1 + tag as usize;
                if number >= self.groups.len() {
                    self.groups.resize_with(number + 1, Group::default);
                }
                remote.place = self.groups[number].members.len();
                self.groups[number].members.push(index);
            }
        }
        for group in &mut self.groups {
            group.tree = Tree::new(group.members.len());
        }
        for index in 0..self.remotes.len() {
            self.enter(index);
        }
    }

    /// The smallest is selected: the priority, and of equals the turn, in half a word each.
    fn rank(&self, index: usize) -> u64 {
        let remote = &self.remotes[index];
        // Due: not later than now.
        if remote.state.retry_at > self.now {
            return OUT;
        }
        let priority = remote.state.used.saturating_mul(256) / remote.weight;
        let turn = match self.ties {
            Ties::First => 0,
            Ties::Least => (remote.state.turn / TICK).saturating_sub(self.origin),
        };
        priority.min(HALF - 1) << 32 | turn.min(HALF)
    }

    fn enter(&mut self, index: usize) {
        if self.remotes[index].standing != Standing::InUse {
            return;
        }
        let rank = self.rank(index);
        let remote = &self.remotes[index];
        self.groups[0].tree.set(index, rank);
        if let Some(tag) = remote.tag {
            self.groups[1 + tag as usize].tree.set(remote.place, rank);
        }
    }

    /// Takes over what the zone says about a remote.
    fn refresh(&mut self, index: usize) {
        if self.read(index) {
            self.enter(index);
        }
    }

    /// Reads what the zone says about a remote. True if that is news.
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
        former != state
    }

    /// Takes over what others have changed, and what time has.
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

    /// Picks a remote for a session, and counts it as used by it. `None`: there is none left
    /// that this session has not tried. The clock is to be the same for all that share a zone.
    /// `tag`: only remotes with it will do.
    pub fn select(&mut self, tag: Option<u32>, tried: &mut Tried, now: u64) -> Option<usize> {
        self.catch_up(now);
        if self.rebalance != 0 && self.zone.count_selection(self.rebalance) {
            self.revive(None);
        }
        let mut picked = self.pick(tag, tried);
        if picked.is_none() && !tried.revived {
            tried.revived = true;
            // The others' remotes are none of the business of a session with a tag.
            self.revive(tag);
            if tag.is_none() {
                self.zone.restart_selections();
            }
            picked = self.pick(tag, tried);
        }
        picked
    }

    fn pick(&mut self, tag: Option<u32>, tried: &Tried) -> Option<usize> {
        // Other workers may be faster, but not with each of them all the time.
        for _ in 0..=self.remotes.len() {
            let index = self.best(tag, tried)?;
            let remote = &self.remotes[index];
            let State { retry_at, .. } = remote.state;
            // One session at a time finds out whether a dead one is back, of whichever worker.
            if retry_at == 0 || self.zone.put_off(remote.row, retry_at, self.retry_time()) {
                self.take_turn(index);
                self.add_own(index, 1);
                return Some(index);
            }
            self.refresh(index);
        }
        None
    }

    /// A remote has had its turn.
    fn take_turn(&mut self, index: usize) {
        if self.ties == Ties::First {
            return;
        }
        let remote = &self.remotes[index];
        let clock = self.zone.turns();
        let turn = remote.state.turn.max(clock);
        let tick = turn - turn % TICK;
        if tick > clock {
            self.zone.set_turns(tick);
        }
        self.zone.set_turn(remote.row, turn.saturating_add(remote.step));
        if tick / TICK - self.origin.min(tick / TICK) > HALF / 2 {
            self.origin = tick / TICK;
            for index in 0..self.remotes.len() {
                self.enter(index);
            }
        }
    }

    /// The best one that the session has not failed on. Remotes it failed on are marked dead, unless the
    /// marks were lifted: those are left out of this selection.
    fn best(&mut self, tag: Option<u32>, tried: &Tried) -> Option<usize> {
        let number = tag.map_or(0, |tag| 1 + tag as usize);
        let mut hidden = Vec::new();
        let best = loop {
            let Some(group) = self.groups.get_mut(number) else {
                break None;
            };
            let Some(place) = group.tree.first() else {
                break None;
            };
            let index = group.members[place];
            if !tried.has_failed(self.remotes[index].id) {
                break Some(index);
            }
            group.tree.set(place, OUT);
            hidden.push(index);
        };
        for index in hidden {
            self.enter(index);
        }
        best
    }

    /// Lifts all dead marks, or those of remotes with a tag.
    fn revive(&mut self, tag: Option<u32>) {
        let concerned = |index: usize| tag.is_none() || self.remotes[index].tag == tag;
        let dead: Vec<usize> =
            self.dead.iter().map(|&(_, index)| index).filter(|&index| concerned(index)).collect();
        for index in dead {
            self.zone.set_retry_at(self.remotes[index].row, 0);
            self.refresh(index);
        }
    }

    fn retry_time(&self) -> u64 {
        if self.retry_delay == 0 {
            FOREVER
        } else {
            self.now.saturating_add(self.retry_delay)
        }
    }

    fn add_own(&mut self, index: usize, change: i64) {
        let remote = &mut self.remotes[index];
        remote.own = remote.own.saturating_add_signed(change);
        self.zone.set_used(remote.row, remote.own);
        self.refresh(index);
    }

    /// A session could not be connected to this remote. True if that is news.
    pub fn failed(&mut self, index: usize, tried: &mut Tried, now: u64) -> bool {
        self.catch_up(now);
        tried.add_failed(self.remotes[index].id);
        let row = self.remotes[index].row;
        self.zone.set_retry_at(row, self.retry_time());
        let news = self.zone.report(row, true);
        self.released(index);
        news
    }

    /// A session cannot be connected to this remote, which is no fault of the remote's: only this
    /// session does without it.
    pub fn rule_out(&mut self, index: usize, tried: &mut Tried) {
        tried.add_failed(self.remotes[index].id);
        self.released(index);
    }

    /// As [`rule_out`](Self::rule_out), for a reason that may pass ([`Tried::retry_aside`]).
    pub fn set_aside(&mut self, index: usize, tried: &mut Tried) {
        tried.aside.push(self.remotes[index].id);
        self.rule_out(index, tried);
    }

    /// A session was connected to this remote. True if it was reported as down before.
    pub fn connected(&mut self, index: usize) -> bool {
        if self.is_on_trial(index) {
            // That it accepts says nothing.
            return false;
        }
        let row = self.remotes[index].row;
        // Others may have marked it meanwhile.
        self.zone.set_retry_at(row, 0);
        if self.remotes[index].state.retry_at != 0 {
            self.refresh(index);
        }
        self.zone.report(row, false)
    }

    /// The remote has ended a session at once, without a word. True if it is taken for dead, and that
    /// is news.
    pub fn cut_short(&mut self, index: usize, now: u64) -> bool {
        let row = self.remotes[index].row;
        if self.fail_count == 0 || self.zone.count_cut_short(row) < self.fail_count {
            return false;
        }
        self.catch_up(now);
        self.zone.set_retry_at(row, self.retry_time());
        self.refresh(index);
        self.zone.report(row, true)
    }

    /// The remote has answered a session, or has kept it long enough. True if it was reported as down
    /// before.
    pub fn proved(&mut self, index: usize) -> bool {
        let row = self.remotes[index].row;
        let was_on_trial = self.is_on_trial(index);
        if self.fail_count != 0 && self.zone.cut_short(row) != 0 {
            self.zone.forget_cut_short(row);
        }
        was_on_trial && self.connected(index)
    }

    /// The remote has cut short so many sessions in a row that another one like them is enough.
    fn is_on_trial(&self, index: usize) -> bool {
        let row = self.remotes[index].row;
        self.fail_count != 0 && self.zone.cut_short(row) >= self.fail_count
    }

    /// The last attempt on this remote failed.
    pub fn is_down(&self, index: usize) -> bool {
        self.zone.is_down(self.remotes[index].row)
    }

    /// A session does not use this remote any more.
    pub fn released(&mut self, index: usize) {
        self.add_own(index, -1);
        self.vacate_if_drained(index);
    }

    /// Sessions that use a remote, of all workers as far as this one has heard.
    pub fn used(&self, index: usize) -> u64 {
        self.remotes[index].state.used
    }
}
