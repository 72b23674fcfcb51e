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

#[cfg(test)]
mod linear;
#[cfg(test)]
mod shared_tests;
mod tree;

use crate::config::relay::Ties;
use crate::upstream::zone::{State, Zone, FOREVER};
use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Included};
use tree::{Tree, OUT};

/// What one session has tried already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Only remotes with this tag will do.
    tag: Option<u32>,
    /// In order.
    failed: Vec<u32>,
    /// Of these, those for which this host was short of something.
    aside: Vec<u32>,
    /// All were dead, and their marks were lifted once for this session.
    revived: bool,
}

impl Attempts {
    /// Those of a session that is only to go to remotes with a tag.
    pub fn with_tag(tag: u32) -> Attempts {
        Attempts { tag: Some(tag), ..Attempts::default() }
    }

    /// Remotes that only this host has kept it from are to be tried again. False if there are none.
    pub fn take_back(&mut self) -> bool {
        let aside = std::mem::take(&mut self.aside);
        self.failed.retain(|index| !aside.contains(index));
        !aside.is_empty()
    }

    fn has_failed(&self, index: usize) -> bool {
        self.failed.binary_search(&(index as u32)).is_ok()
    }

    fn add_failed(&mut self, index: usize) {
        if let Err(place) = self.failed.binary_search(&(index as u32)) {
            self.failed.insert(place, index as u32);
        }
    }
}

/// The step of a remote with weight 1. That of another one is a whole part of it for all weights up to
/// 10, and most others that are used.
const STEP: u64 = 256 * TICK;
/// Turns are compared in ticks of the clock, so that they round as priorities do.
const TICK: u64 = 5040;
/// The largest number in half a word.
const HALF: u64 = u32::MAX as u64;

struct Remote {
    weight: u64,
    /// By how much its turn is put off by a session.
    step: u64,
    tag: Option<u32>,
    /// Its place among those with its tag.
    place: usize,
    /// Its row in the zone.
    row: usize,
    /// Sessions of this worker that use it.
    own: u64,
    /// What the zone said last.
    state: State,
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
    /// Remotes by their weights (at least 1); `rebalance` as configured; `retry_delay` in
    /// milliseconds, 0 for never. The zone is not shared.
    pub fn new(weights: &[u32], rebalance: i32, retry_delay: u64) -> Balancer {
        let remote = |(row, &weight): (usize, &u32)| Remote {
            weight: u64::from(weight.max(1)),
            step: (STEP / u64::from(weight.max(1))).max(1),
            tag: None,
            place: 0,
            row,
            own: 0,
            state: State::default(),
        };
        let mut balancer = Balancer {
            zone: Zone::own(weights.len()),
            remotes: weights.iter().enumerate().map(remote).collect(),
            by_row: (0..weights.len()).map(Some).collect(),
            groups: Vec::new(),
            dead: BTreeSet::new(),
            now: 0,
            changes: Vec::new(),
            rebalance: u64::try_from(rebalance).unwrap_or(0),
            retry_delay,
            ties: Ties::default(),
            origin: 0,
            fail_count: 0,
        };
        balancer.group();
        balancer
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

    /// Gives each remote its tag, by a number; small ones, as there is a place for each.
    pub fn set_tags(&mut self, tags: impl Iterator<Item = Option<u32>>) {
        for (remote, tag) in self.remotes.iter_mut().zip(tags) {
            remote.tag = tag;
        }
        self.group();
    }

    /// Shares a zone with other workers, before anything is selected. What each remote is known
    /// by there must be different for each. False if the zone is full: it is not shared then.
    pub fn share(&mut self, zone: Zone, identities: &[u64]) -> bool {
        let Some(rows) = zone.find(identities) else {
            return false;
        };
        self.by_row = vec![None; rows.iter().max().map_or(0, |last| last + 1)];
        for (index, (remote, row)) in self.remotes.iter_mut().zip(rows).enumerate() {
            remote.row = row;
            self.by_row[row] = Some(index);
        }
        self.zone = zone;
        for index in 0..self.remotes.len() {
            self.refresh(index);
        }
        true
    }

    fn group(&mut self) {
        self.groups = vec![Group::default()];
        for (index, remote) in self.remotes.iter_mut().enumerate() {
            self.groups[0].members.push(index);
            if let Some(tag) = remote.tag {
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
        let rank = self.rank(index);
        let remote = &self.remotes[index];
        self.groups[0].tree.set(index, rank);
        if let Some(tag) = remote.tag {
            self.groups[1 + tag as usize].tree.set(remote.place, rank);
        }
    }

    /// Takes over what the zone says about a remote.
    fn refresh(&mut self, index: usize) {
        let remote = &mut self.remotes[index];
        let state = self.zone.state(remote.row);
        let former = std::mem::replace(&mut remote.state, state);
        if former.retry_at != state.retry_at {
            self.dead.remove(&(former.retry_at, index));
            if state.retry_at != 0 {
                self.dead.insert((state.retry_at, index));
            }
        }
        if former != state {
            self.enter(index);
        }
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
    pub fn select(&mut self, attempts: &mut Attempts, now: u64) -> Option<usize> {
        self.catch_up(now);
        if self.rebalance != 0 && self.zone.count_selection(self.rebalance) {
            self.revive(None);
        }
        let mut picked = self.pick(attempts);
        if picked.is_none() && !attempts.revived {
            attempts.revived = true;
            // The others' remotes are none of the business of a session with a tag.
            self.revive(attempts.tag);
            if attempts.tag.is_none() {
                self.zone.restart_selections();
            }
            picked = self.pick(attempts);
        }
        picked
    }

    fn pick(&mut self, attempts: &Attempts) -> Option<usize> {
        // Other workers may be faster, but not with each of them all the time.
        for _ in 0..=self.remotes.len() {
            let index = self.best(attempts)?;
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

    /// The best one that the session has not failed with. Those with which it has are dead, unless
    /// they were given another chance: then they are taken out for the time being.
    fn best(&mut self, attempts: &Attempts) -> Option<usize> {
        let number = attempts.tag.map_or(0, |tag| 1 + tag as usize);
        let mut hidden = Vec::new();
        let best = loop {
            let Some(group) = self.groups.get_mut(number) else {
                break None;
            };
            let Some(place) = group.tree.first() else {
                break None;
            };
            let index = group.members[place];
            if !attempts.has_failed(index) {
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
    pub fn failed(&mut self, index: usize, attempts: &mut Attempts, now: u64) -> bool {
        self.catch_up(now);
        attempts.add_failed(index);
        let row = self.remotes[index].row;
        self.zone.set_retry_at(row, self.retry_time());
        self.add_own(index, -1);
        self.zone.report(row, true)
    }

    /// A session cannot be connected to this remote, which is no fault of the remote's: only this
    /// session does without it.
    pub fn rule_out(&mut self, index: usize, attempts: &mut Attempts) {
        attempts.add_failed(index);
        self.add_own(index, -1);
    }

    /// As [`rule_out`](Self::rule_out), for a reason that may pass ([`Attempts::take_back`]).
    pub fn set_aside(&mut self, index: usize, attempts: &mut Attempts) {
        self.rule_out(index, attempts);
        attempts.aside.push(index as u32);
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
    }

    /// Sessions that use a remote, of all workers as far as this one has heard.
    pub fn used(&self, index: usize) -> u64 {
        self.remotes[index].state.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn select(balancer: &mut Balancer, now: u64) -> usize {
        balancer.select(&mut Attempts::default(), now).expect("a live remote")
    }

    #[test]
    fn the_worked_example() {
        let mut balancer = Balancer::new(&[1, 2, 3], 0, 0);
        let chosen: Vec<usize> = (0..12).map(|_| select(&mut balancer, 0)).collect();
        assert_eq!(chosen, [0, 1, 2, 2, 1, 2, 0, 1, 2, 2, 1, 2]);
    }

    /// One whose ties are those of the C program.
    fn first(weights: &[u32]) -> Balancer {
        let mut balancer = Balancer::new(weights, 0, 0);
        balancer.set_ties(Ties::First);
        balancer
    }

    /// So many sessions, one after the other.
    fn one_by_one(balancer: &mut Balancer, count: usize) -> Vec<usize> {
        let one = |_| {
            let index = select(balancer, 0);
            balancer.released(index);
            index
        };
        (0..count).map(one).collect()
    }

    fn shares(chosen: &[usize], remotes: usize) -> Vec<usize> {
        (0..remotes).map(|index| chosen.iter().filter(|&&other| other == index).count()).collect()
    }

    #[test]
    fn the_first_of_equals() {
        let mut balancer = first(&[1, 2, 3]);
        let chosen: Vec<usize> = (0..12).map(|_| select(&mut balancer, 0)).collect();
        assert_eq!(chosen, [0, 1, 2, 2, 1, 2, 0, 1, 2, 2, 1, 2]);
        assert_eq!(one_by_one(&mut first(&[1, 1]), 5), [0; 5]);
        // Large weights tie at zero.
        let mut balancer = first(&[1000, 1]);
        let chosen: Vec<usize> = (0..6).map(|_| select(&mut balancer, 0)).collect();
        assert_eq!(chosen, [0, 0, 0, 0, 1, 0]);
    }

    #[test]
    fn equals_take_turns_by_weight() {
        assert_eq!(one_by_one(&mut Balancer::new(&[1, 1, 1], 0, 0), 6), [0, 1, 2, 0, 1, 2]);
        let chosen = one_by_one(&mut Balancer::new(&[1, 2, 3], 0, 0), 600);
        assert_eq!(shares(&chosen, 3), [100, 200, 300]);
        // Spread out, not one after the other.
        assert_eq!(shares(&chosen[..6], 3), [1, 2, 3]);
        let chosen = one_by_one(&mut Balancer::new(&[1000, 1], 0, 0), 1001);
        assert_eq!(shares(&chosen, 2), [1000, 1]);
        // These round to the same for four sessions each.
        let mut balancer = Balancer::new(&[1000, 1], 0, 0);
        let chosen: Vec<usize> = (0..6).map(|_| select(&mut balancer, 0)).collect();
        assert_eq!(chosen, [0, 0, 0, 0, 1, 0]);
        let chosen = one_by_one(&mut Balancer::new(&[1000, 1000], 0, 0), 4000);
        assert!(shares(&chosen, 2).iter().all(|share| (1996..=2004).contains(share)));
    }

    #[test]
    fn turns_go_on_for_ever() {
        let mut balancer = Balancer::new(&[1, 1, 1], 0, 0);
        // Half a word is full after so many sessions, and again.
        for count in [HALF / 512, HALF / 256, HALF / 256 * 9] {
            balancer.zone.set_turns(count * STEP);
            for row in 0..3 {
                balancer.zone.set_turn(row, count * STEP + row as u64);
                balancer.refresh(row);
            }
            assert_eq!(shares(&one_by_one(&mut balancer, 30_000), 3), [10_000; 3]);
        }
    }

    #[test]
    fn what_was_missed_is_not_made_up_for() {
        // By one that was dead,
        let mut balancer = Balancer::new(&[1, 1, 1], 0, 1000);
        let mut attempts = Attempts::default();
        assert_eq!(balancer.select(&mut attempts, 0), Some(0));
        balancer.failed(0, &mut attempts, 0);
        assert_eq!(shares(&one_by_one(&mut balancer, 1000), 3), [0, 500, 500]);
        assert_eq!(balancer.select(&mut Attempts::default(), 1000), Some(0));
        balancer.connected(0);
        balancer.released(0);
        let after = one_by_one(&mut balancer, 9);
        assert_eq!(shares(&after, 3), [3, 3, 3]);
        assert_eq!(shares(&after[..3], 3), [1, 1, 1]);
        // or had a session that took long.
        let long = select(&mut balancer, 1000);
        let others = one_by_one(&mut balancer, 1000);
        assert_eq!(shares(&others, 3)[long], 0);
        balancer.released(long);
        let share = shares(&one_by_one(&mut balancer, 9), 3)[long];
        assert!((3..=4).contains(&share), "{share} of 9");
    }

    #[test]
    fn a_remote_that_cuts_sessions_short_is_taken_for_dead() {
        let mut balancer = Balancer::new(&[1, 1], 0, 1000);
        balancer.set_fail_count(3);
        let session = |balancer: &mut Balancer, now| {
            let index = select(balancer, now);
            let up_again = balancer.connected(index);
            balancer.released(index);
            (index, up_again)
        };
        // One that answers between them starts the count anew.
        for _ in 0..2 {
            assert!(!balancer.cut_short(0, 0) && !balancer.cut_short(0, 0));
            assert!(!balancer.proved(0));
        }
        assert!(!balancer.cut_short(0, 0) && !balancer.cut_short(0, 0));
        assert!(balancer.cut_short(0, 0));
        assert!((0..5).all(|_| session(&mut balancer, 999) == (1, false)));
        // Then one session tries it. That it was connected says nothing,
        assert_eq!(session(&mut balancer, 1000), (0, false));
        assert_eq!(session(&mut balancer, 1000), (1, false));
        // and if it is cut short, that is enough.
        assert!(!balancer.cut_short(0, 1100));
        assert_eq!(session(&mut balancer, 2099), (1, false));
        assert_eq!(session(&mut balancer, 2100), (0, false));
        assert!(balancer.proved(0));
        let chosen: Vec<usize> = (0..4).map(|_| session(&mut balancer, 2100).0).collect();
        assert_eq!(shares(&chosen, 2), [2, 2]);
    }

    #[test]
    fn when_all_cut_sessions_short_all_are_tried() {
        let mut balancer = Balancer::new(&[1, 1], 0, 0);
        balancer.set_fail_count(1);
        for _ in 0..10 {
            let index = select(&mut balancer, 0);
            balancer.connected(index);
            balancer.cut_short(index, 0);
            balancer.released(index);
        }
        let off = Balancer::new(&[1, 1], 0, 0);
        let mut off = off;
        assert!((0..100).all(|_| !off.cut_short(0, 0)));
        assert_eq!(shares(&one_by_one(&mut off, 10), 2), [5, 5]);
    }

    /// A session's selections until one succeeds; `up` tells which remotes answer.
    fn connect(balancer: &mut Balancer, up: &[bool], now: u64) -> (Option<usize>, usize) {
        let mut attempts = Attempts::default();
        let mut count = 0;
        while let Some(index) = balancer.select(&mut attempts, now) {
            count += 1;
            if up[index] {
                balancer.connected(index);
                return (Some(index), count);
            }
            balancer.failed(index, &mut attempts, now);
        }
        (None, count)
    }

    /// The remote gets every session that finds it as idle as the others, and cuts it short.
    #[test]
    fn a_remote_that_ends_all_sessions_at_once_draws_no_more_than_its_share() {
        let mut balancer = Balancer::new(&[1, 1, 1], 0, 0);
        let mut open: Vec<usize> = Vec::new();
        let mut chosen = Vec::new();
        for step in 0..3000 {
            let index = select(&mut balancer, 0);
            chosen.push(index);
            match index {
                0 => balancer.released(0),
                _ => open.push(index),
            }
            // The others' sessions are over before the next one comes, now and then a step later.
            if step % 10 != 0 {
                open.drain(..).for_each(|index| balancer.released(index));
            }
        }
        let share = shares(&chosen, 3)[0];
        assert!(share < 1500, "{share} of 3000");
    }

    #[test]
    fn rebalance_retries_the_dead_on_every_fourth_selection() {
        let mut balancer = Balancer::new(&[1, 1], 4, 0);
        let up = [false, true];
        let tries: Vec<_> = (0..7).map(|_| connect(&mut balancer, &up, 0)).collect();
        let one = (Some(1), 1);
        let two = (Some(1), 2);
        assert_eq!(tries, [two, one, one, two, one, one, two]);
    }

    #[test]
    fn all_dead_is_one_pass_per_session_and_heals() {
        let mut balancer = Balancer::new(&[1, 1, 1], 0, 0);
        assert_eq!(connect(&mut balancer, &[false; 3], 0), (None, 3));
        assert_eq!(connect(&mut balancer, &[false; 3], 0), (None, 3));
        assert_eq!(connect(&mut balancer, &[false, true, false], 0), (Some(1), 2));
        assert_eq!(connect(&mut balancer, &[true; 3], 0).0, Some(2));
    }

    #[test]
    fn a_second_dead_remote_takes_no_part() {
        let mut balancer = Balancer::new(&[1, 1], 0, 0);
        let up = [true, false];
        assert_eq!(connect(&mut balancer, &up, 0).0, Some(0));
        assert_eq!(connect(&mut balancer, &up, 0).0, Some(0));
        assert_eq!(connect(&mut balancer, &up, 0), (Some(0), 1));
    }

    #[test]
    fn after_the_retry_delay_one_session_tries() {
        let mut balancer = Balancer::new(&[1, 1], 0, 1000);
        assert_eq!(connect(&mut balancer, &[false, true], 0), (Some(1), 2));
        assert_eq!(connect(&mut balancer, &[true, true], 999), (Some(1), 1));
        // Due: the first session is given it, the next one meanwhile is not.
        assert_eq!(select(&mut balancer, 1000), 0);
        assert_eq!(select(&mut balancer, 1000), 1);
        assert!(balancer.connected(0));
        assert_eq!(select(&mut balancer, 1000), 0);
    }

    #[test]
    fn a_tag_restricts_the_choice() {
        let mut balancer = Balancer::new(&[1, 1, 1], 0, 0);
        balancer.set_tags([None, Some(7), Some(7)].into_iter());
        let tagged = |balancer: &mut Balancer| {
            let mut attempts = Attempts::with_tag(7);
            let found = balancer.select(&mut attempts, 0);
            (found, attempts)
        };
        assert_eq!(tagged(&mut balancer).0, Some(1));
        assert_eq!(tagged(&mut balancer).0, Some(2));
        let (first, mut attempts) = tagged(&mut balancer);
        assert_eq!(first, Some(1));
        balancer.failed(1, &mut attempts, 0);
        assert_eq!(balancer.select(&mut attempts, 0), Some(2));
        balancer.failed(2, &mut attempts, 0);
        // Nobody else will do, however idle, and what is down for others stays so.
        assert_eq!(balancer.select(&mut attempts, 0), None);
        assert_eq!(balancer.select(&mut Attempts::with_tag(8), 0), None);
        assert_eq!(select(&mut balancer, 0), 0);
    }

    #[test]
    fn a_change_of_state_is_news_once() {
        let mut balancer = Balancer::new(&[1], 1, 0);
        let mut news = Vec::new();
        for _ in 0..3 {
            let mut attempts = Attempts::default();
            let index = balancer.select(&mut attempts, 0).expect("revived");
            news.push(balancer.failed(index, &mut attempts, 0));
        }
        assert_eq!(news, [true, false, false]);
        assert!(balancer.connected(0));
        assert!(!balancer.connected(0));
    }

    proptest! {
        /// A seeded simulation: remotes go up and down, sessions come and go. No session fails
        /// while a remote is up, none tries a remote twice, and the counts stay right.
        #[test]
        fn simulation(
            weights in prop::collection::vec(1u32..300, 1..6),
            rebalance in -3i32..6,
            retry_delay in 0u64..50,
            steps in prop::collection::vec((0u8..4, any::<usize>(), 0u64..20), 0..200),
        ) {
            let mut balancer = Balancer::new(&weights, rebalance, retry_delay);
            let mut up = vec![true; weights.len()];
            let mut open: Vec<usize> = Vec::new();
            let mut now = 0;
            for (step, which, elapsed) in steps {
                now += elapsed;
                match step {
                    0 | 1 => {
                        let (found, tries) = connect(&mut balancer, &up, now);
                        prop_assert!(tries <= weights.len());
                        prop_assert_eq!(found.is_some(), up.contains(&true));
                        open.extend(found);
                    }
                    2 if !open.is_empty() => {
                        let index = open.swap_remove(which % open.len());
                        balancer.released(index);
                    }
                    3 => {
                        let index = which % up.len();
                        up[index] = !up[index];
                    }
                    _ => {}
                }
                for index in 0..weights.len() {
                    let expected = open.iter().filter(|&&other| other == index).count();
                    prop_assert_eq!(balancer.used(index), expected as u64);
                }
            }
        }
    }
}
