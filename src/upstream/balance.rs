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
#[cfg(test)]
mod shared_tests;
#[cfg(test)]
mod tests;
mod tree;

use super::hash::mix;
use super::health::{Health, WHOLE};
use super::maglev::Host;
use super::remote::RemoteId;
use super::wish::{Service, Wish};
use super::zone::{State, Zone};
use crate::config::balance::Kind;
use crate::config::check::Start;
use crate::config::relay::Ties;
use group::{Choice, Group, Random};
use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Included};
use tree::{Tree, OUT};

/// What one session has tried already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// Sorted, for binary search.
    failed: Vec<RemoteId>,
    /// Those of them that failed because this host was short of something.
    aside: Vec<RemoteId>,
    /// All remotes were dead, and their marks were lifted for this session. Done once per session.
    revived: bool,
}

impl Tried {
    /// Lets remotes be tried again that failed only because of this host. False if there are none.
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

/// What balancing has to know about a remote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// At least 1.
    pub weight: u32,
    /// Its tags; small numbers, as they are used as indices.
    pub tags: Vec<u32>,
    /// The name of the remote in the zone; at least 1, and different for each remote.
    pub identity: u64,
    /// It is probed, and counts as this until the first results are there.
    pub check: Option<Start>,
    /// It is used when no other remote can be.
    pub backup: bool,
    /// The most sessions of all workers; 0 for any number.
    pub most: u32,
    /// It is used when no remote of a smaller tier can be; below `BACKUP`.
    pub tier: u8,
}

/// The tier of backups, after all others.
const BACKUP: u8 = 7;

/// The step of a remote with weight 1. It is divisible by all weights up to 10, and by most others
/// that are used.
const STEP: u64 = 256 * TICK;
/// Turns are compared in ticks of this size, so that they round as priorities do.
const TICK: u64 = 5040;
/// The largest number in half a word.
const HALF: u64 = u32::MAX as u64;
/// Where the tier is in a priority; what is below counts within the tier.
const TIER: u32 = 29;

/// Whether a place has a remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    InUse,
    /// It was removed, and some sessions still use it.
    Draining,
    Vacant,
}

struct Remote {
    id: RemoteId,
    standing: Standing,
    /// As configured.
    configured: u64,
    /// As configured, or as an operator wishes.
    weight: u64,
    /// How far a session puts off its turn.
    step: u64,
    /// Its tags, with its place in the group of each.
    tags: Vec<(u32, usize)>,
    identity: u64,
    /// Its health counts, if it is probed.
    check: Option<Start>,
    tier: u8,
    /// The most sessions of all workers.
    most: u64,
    /// Its row in the zone.
    row: usize,
    /// Sessions of this worker that use it.
    own: u64,
    /// What the zone said when it was last read.
    state: State,
    /// What an operator has decided, which is part of that.
    service: Service,
}

impl Remote {
    fn set(&mut self, entry: &Entry) {
        self.configured = entry.weight.max(1).into();
        self.obey();
        self.identity = entry.identity;
        self.tags = entry.tags.iter().map(|&tag| (tag, 0)).collect();
        self.check = entry.check;
        self.tier = if entry.backup { BACKUP } else { entry.tier.min(BACKUP - 1) };
        self.most = if entry.most == 0 { u64::MAX } else { entry.most.into() };
    }

    /// Follows what an operator has decided. True if its weight has changed.
    fn obey(&mut self) -> bool {
        let wish = Wish::decode(self.state.wish);
        self.service = wish.service;
        let weight = wish.weight.map_or(self.configured, u64::from);
        self.step = (STEP / weight).max(1);
        std::mem::replace(&mut self.weight, weight) != weight
    }

    /// Its share of the sessions in 256ths; 0 if it gets none.
    fn share(&self) -> u64 {
        match self.service {
            Service::Normal => self.share_by_health(),
            Service::Drained | Service::Disabled => 0,
        }
    }

    /// As [`share`](Self::share), as far as its probes decide.
    fn share_by_health(&self) -> u64 {
        let Some(start) = self.check else {
            return WHOLE.into();
        };
        let health = Health::decode(self.state.health);
        if health.is_down(start) {
            0
        } else {
            health.share.into()
        }
    }

    /// True if it has as many sessions as it may.
    fn is_full(&self) -> bool {
        self.state.used >= self.most
    }

    fn has(&self, tag: u32) -> bool {
        self.tags.iter().any(|&(known, _)| known == tag)
    }

    fn host(&self, index: usize) -> Host {
        Host { identity: self.identity, weight: self.weight, number: index as u16 }
    }
}

/// How often remotes are drawn for one selection, so that it ends when most of them are down.
const DRAWS: usize = 16;

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

    /// The rank of a remote in a group; the smallest is selected. Its upper half is the priority,
    /// its lower half the turn, which breaks ties.
    fn rank(&self, index: usize, group: &Group) -> u64 {
        if self.remotes[index].is_full() {
            return OUT;
        }
        self.rank_with_room(index, group)
    }

    /// As [`rank`](Self::rank), whether or not the remote has as many sessions as it may.
    fn rank_with_room(&self, index: usize, group: &Group) -> u64 {
        let remote = &self.remotes[index];
        // A remote is due at its retry time, not only after it.
        if remote.state.retry_at > self.now {
            return OUT;
        }
        let share = remote.share();
        if share == 0 {
            return OUT;
        }
        let turn = || (remote.state.turn / TICK).saturating_sub(self.origin).min(HALF);
        let mut priority = remote.state.used.saturating_mul(256) / remote.weight;
        if share < u64::from(WHOLE) {
            priority = remote.state.used.saturating_mul(256 * 256) / (remote.weight * share);
        }
        let rank = match (&group.choice, self.ties) {
            (Choice::RoundRobin, _) => turn(),
            (_, Ties::First) => priority.min((1 << TIER) - 2) << 32,
            (_, Ties::Least) => priority.min((1 << TIER) - 2) << 32 | turn(),
        };
        rank | u64::from(remote.tier) << (32 + TIER)
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

    /// Selects a remote for a session, and counts it as used by the session. `None` if no remote is
    /// left that this session has not tried. All workers that share a zone must pass the same
    /// clock. `tag`: only remotes with this tag will do. `key`: which remote the session belongs
    /// to, if these are selected by key; without one they are selected by use.
    pub fn select_by(
        &mut self,
        tag: Option<u32>,
        key: Option<u64>,
        tried: &mut Tried,
        now: u64,
    ) -> Option<usize> {
        self.catch_up(now);
        if self.rebalance != 0 && self.zone.count_selection(self.rebalance) {
            self.revive(None);
        }
        let mut picked = self.pick(tag, key, tried);
        // Marks stay while remotes are only full.
        if picked.is_none() && !tried.revived && !self.is_full(tag, tried) {
            tried.revived = true;
            // A session with a tag does not lift the marks of remotes without it.
            self.revive(tag);
            if tag.is_none() {
                self.zone.restart_selections();
            }
            picked = self.pick(tag, key, tried);
        }
        picked
    }

    /// True if remotes with this tag could serve a session, but for having as many as they may.
    pub fn is_full(&self, tag: Option<u32>, tried: &Tried) -> bool {
        self.limits && self.could_serve(tag, tried).any(|index| self.remotes[index].is_full())
    }

    /// Remotes with this tag that could serve a session and have a limit, reached or not.
    pub fn limited(&self, tag: Option<u32>, tried: &Tried) -> Vec<usize> {
        let limited = |&index: &usize| self.remotes[index].most < u64::MAX;
        self.could_serve(tag, tried).filter(limited).collect()
    }

    fn could_serve<'a>(
        &'a self,
        tag: Option<u32>,
        tried: &'a Tried,
    ) -> impl Iterator<Item = usize> + 'a {
        let group = self.groups.get(number(tag)).into_iter();
        let members =
            group.flat_map(|group| group.members.iter().map(move |&index| (index, group)));
        let serves = |&(index, group): &(usize, &Group)| {
            let remote = &self.remotes[index];
            remote.standing == Standing::InUse
                && !tried.has_failed(remote.id)
                && self.rank_with_room(index, group) != OUT
        };
        members.filter(serves).map(|(index, _)| index)
    }

    /// True if a remote with this tag can serve a session. All must pass the same clock.
    pub fn has_room(&mut self, tag: Option<u32>, now: u64) -> bool {
        self.catch_up(now);
        self.groups.get(number(tag)).is_some_and(|group| group.tree.first().is_some())
    }

    /// [`select_by`](Self::select_by) without a key.
    pub fn select(&mut self, tag: Option<u32>, tried: &mut Tried, now: u64) -> Option<usize> {
        self.select_by(tag, None, tried, now)
    }

    fn pick(&mut self, tag: Option<u32>, key: Option<u64>, tried: &Tried) -> Option<usize> {
        // Other workers may win the race for a dead remote, but not for each of them every time.
        for _ in 0..=self.remotes.len() {
            let index = match self.groups.get(number(tag))?.choice {
                Choice::LeastUse | Choice::RoundRobin => self.best(tag, tried),
                Choice::Random(_) => self.drawn(tag, tried).or_else(|| self.best(tag, tried)),
                Choice::Key(_) => self.owner(tag, key, tried).or_else(|| self.best(tag, tried)),
            }?;
            let remote = &self.remotes[index];
            let State { retry_at, .. } = remote.state;
            // One session at a time, of all workers, finds out whether a dead remote is back.
            if retry_at == 0 || self.zone.put_off(remote.row, retry_at, self.retry_time()) {
                self.take_turn(index);
                self.add_own(index, 1);
                if self.remotes[index].state.used <= self.remotes[index].most {
                    return Some(index);
                }
                // Another worker has taken the last place at the same moment, or believes so too.
                self.add_own(index, -1);
            }
            self.refresh(index);
        }
        None
    }

    /// Puts off the turn of a remote that was selected, and advances the clock.
    fn take_turn(&mut self, index: usize) {
        if self.ties == Ties::First && !self.kinds.contains(&Kind::RoundRobin) {
            return;
        }
        let remote = &self.remotes[index];
        let clock = self.zone.turns();
        let turn = remote.state.turn.max(clock);
        let tick = turn - turn % TICK;
        if tick > clock {
            self.zone.set_turns(tick);
        }
        let mut step = remote.step;
        let share = remote.share().max(1);
        if share < u64::from(WHOLE) {
            step = step * 256 / share;
        }
        self.zone.set_turn(remote.row, turn.saturating_add(step));
        if tick / TICK - self.origin.min(tick / TICK) > HALF / 2 {
            self.origin = tick / TICK;
            for index in 0..self.remotes.len() {
                self.enter(index);
            }
        }
    }

    /// The best remote that the session has not failed on. Remotes it failed on are usually marked
    /// dead; where the marks were lifted, they are left out of this selection.
    fn best(&mut self, tag: Option<u32>, tried: &Tried) -> Option<usize> {
        let number = number(tag);
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

    /// Draws until there are two different remotes that will do, and takes the better one.
    fn drawn(&mut self, tag: Option<u32>, tried: &Tried) -> Option<usize> {
        let mut first = None;
        for _ in 0..DRAWS {
            let random = self.random.next();
            let group = &self.groups[number(tag)];
            let Choice::Random(lots) = &group.choice else {
                return None;
            };
            let drawn = lots.draw(random)?;
            // A remote in its slow start passes on some of its lots,
            let share = self.remotes[drawn].share();
            match first {
                _ if !self.will_do(drawn, group, tried) || random >> 56 >= share => {}
                None => first = Some(drawn),
                Some(other) if other == drawn => {}
                Some(other) if self.rank(drawn, group) < self.rank(other, group) => {
                    return Some(drawn)
                }
                Some(other) => return Some(other),
            }
        }
        first
    }

    /// The remote that a key belongs to, or the next one that will do.
    fn owner(&self, tag: Option<u32>, key: Option<u64>, tried: &Tried) -> Option<usize> {
        let group = &self.groups[number(tag)];
        let Choice::Key(Some(table)) = &group.choice else {
            return None;
        };
        // Nobody would be found in the whole table.
        group.tree.first()?;
        let key = key?;
        let mut candidates = table.candidates(key).map(usize::from);
        // and some of its keys, the same in all processes.
        let takes = |index: usize| mix(key) >> 56 < self.remotes[index].share();
        candidates.find(|&index| takes(index) && self.will_do(index, group, tried))
    }

    fn will_do(&self, index: usize, group: &Group, tried: &Tried) -> bool {
        self.rank(index, group) != OUT && !tried.has_failed(self.remotes[index].id)
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
