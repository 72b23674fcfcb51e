//! Selects a remote for a session: by use, by turns, by lot or by key.

use super::group::{Choice, Group};
use super::remote::{Standing, Tried};
use super::tree::OUT;
use super::{number, Balancer, TICK};
use crate::config::balance::Kind;
use crate::config::relay::Ties;
use crate::os::hash::mix;
use crate::upstream::health::WHOLE;
use crate::upstream::zone::State;

/// The largest number in half a word.
pub(super) const HALF: u64 = u32::MAX as u64;

/// Where the tier is in a priority; what is below counts within the tier.
const TIER: u32 = 29;

/// How often remotes are drawn for one selection, so that it ends when most of them are down.
const DRAWS: usize = 16;

impl Balancer {
    /// The rank of a remote in a group; the smallest is selected. Its upper half is the priority,
    /// its lower half the turn, which breaks ties.
    pub(super) fn rank(&self, index: usize, group: &Group) -> u64 {
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
        let share = remote.share;
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
        if picked.is_none() && tried.revived && self.is_full(tag, tried) {
            // The session has to wait, and others may mark the remotes as dead again meanwhile.
            tried.revived = false;
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
    pub(super) fn take_turn(&mut self, index: usize) {
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
        let share = remote.share.max(1);
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
            let random = self.random.draw();
            let group = &self.groups[number(tag)];
            let Choice::Random(lots) = &group.choice else {
                return None;
            };
            let drawn = lots.draw(random)?;
            // A remote in its slow start passes on some of its lots,
            let share = self.remotes[drawn].share;
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
        let takes = |index: usize| mix(key) >> 56 < self.remotes[index].share;
        candidates.find(|&index| takes(index) && self.will_do(index, group, tried))
    }

    pub(super) fn will_do(&self, index: usize, group: &Group, tried: &Tried) -> bool {
        self.rank(index, group) != OUT && !tried.has_failed(self.remotes[index].id)
    }
}
