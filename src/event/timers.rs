//! Timers: a binary heap of deadlines with an index. Arming, moving and cancelling a timer are
//! O(log n); finding the next is O(1).

use super::Token;
use std::num::NonZeroU32;

/// Names an armed timer. Never valid again once the timer has expired or been cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId {
    index: u32,
    /// Not zero, so that an `Option` of an id takes no more room.
    generation: NonZeroU32,
}

/// The generation after this one.
fn next(generation: NonZeroU32) -> NonZeroU32 {
    NonZeroU32::new(generation.get().wrapping_add(1)).unwrap_or(NonZeroU32::MIN)
}

#[derive(Clone, Copy)]
struct Entry {
    generation: NonZeroU32,
    /// Position in the heap; meaningless while the entry is free.
    position: u32,
    token: Token,
}

pub(super) struct Timers {
    /// (deadline, entry), smallest deadline at the top.
    heap: Vec<(u64, u32)>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Generation that new entries start with. Raised whenever the table is thrown away, so that a
    /// stale id can never name a later timer.
    first_generation: NonZeroU32,
}

impl Default for Timers {
    fn default() -> Timers {
        let (heap, entries, free) = (Vec::new(), Vec::new(), Vec::new());
        Timers { heap, entries, free, first_generation: NonZeroU32::MIN }
    }
}

impl Timers {
    pub(super) fn arm(&mut self, token: Token, deadline: u64) -> TimerId {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let generation = self.first_generation;
                self.entries.push(Entry { generation, position: 0, token });
                (self.entries.len() - 1) as u32
            }
        };
        let position = self.heap.len();
        let entry = &mut self.entries[index as usize];
        entry.token = token;
        entry.position = position as u32;
        let id = TimerId { index, generation: entry.generation };
        self.heap.push((deadline, index));
        self.rise(position);
        id
    }

    pub(super) fn renew(&mut self, id: TimerId, deadline: u64) {
        if let Some(position) = self.position(id) {
            let later = deadline > self.heap[position].0;
            self.heap[position].0 = deadline;
            if later {
                self.sink(position);
            } else {
                self.rise(position);
            }
        }
    }

    pub(super) fn cancel(&mut self, id: TimerId) {
        if let Some(position) = self.position(id) {
            self.take(position);
        }
    }

    pub(super) fn armed(&self) -> usize {
        self.heap.len()
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.heap.first().map(|&(deadline, _)| deadline)
    }

    pub(super) fn pop_due(&mut self, now: u64) -> Option<(TimerId, Token)> {
        let &(deadline, index) = self.heap.first()?;
        if deadline > now {
            return None;
        }
        let entry = self.entries[index as usize];
        self.take(0);
        Some((TimerId { index, generation: entry.generation }, entry.token))
    }

    pub(super) fn shrink(&mut self) {
        if self.heap.is_empty() {
            let newest = self.entries.iter().map(|entry| entry.generation).max();
            let first_generation = next(newest.unwrap_or(self.first_generation));
            *self = Timers { first_generation, ..Timers::default() };
        }
    }

    fn position(&self, id: TimerId) -> Option<usize> {
        let entry = self.entries.get(id.index as usize)?;
        (entry.generation == id.generation).then_some(entry.position as usize)
    }

    fn take(&mut self, position: usize) {
        let (_, index) = self.heap.swap_remove(position);
        let entry = &mut self.entries[index as usize];
        entry.generation = next(entry.generation);
        self.free.push(index);
        if position < self.heap.len() {
            self.note(position);
            self.sink(position);
            self.rise(position);
        }
    }

    fn note(&mut self, position: usize) {
        let index = self.heap[position].1;
        self.entries[index as usize].position = position as u32;
    }

    fn rise(&mut self, mut position: usize) {
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.heap[parent].0 <= self.heap[position].0 {
                break;
            }
            self.heap.swap(parent, position);
            self.note(position);
            position = parent;
        }
        self.note(position);
    }

    fn sink(&mut self, mut position: usize) {
        loop {
            let left = 2 * position + 1;
            let Some(&(left_deadline, _)) = self.heap.get(left) else {
                break;
            };
            let child = match self.heap.get(left + 1) {
                Some(&(right_deadline, _)) if right_deadline < left_deadline => left + 1,
                _ => left,
            };
            if self.heap[position].0 <= self.heap[child].0 {
                break;
            }
            self.heap.swap(position, child);
            self.note(position);
            position = child;
        }
        self.note(position);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Step {
        Arm(u64),
        Renew(usize, u64),
        Cancel(usize),
        Advance(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u64..1000).prop_map(Step::Arm),
            (any::<usize>(), 0u64..1000).prop_map(|(which, at)| Step::Renew(which, at)),
            any::<usize>().prop_map(Step::Cancel),
            (0u64..50).prop_map(Step::Advance),
        ]
    }

    proptest! {
        /// Compares with a plain map: the same timers expire, none early, none late, none twice.
        #[test]
        fn behaves_like_a_sorted_map(steps in prop::collection::vec(step(), 0..400)) {
            let mut timers = Timers::default();
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut ids: Vec<(u32, TimerId)> = Vec::new();
            let mut now = 0;
            for step in steps {
                match step {
                    Step::Arm(at) => {
                        let name = ids.len() as u32;
                        ids.push((name, timers.arm(Token::new(1, name), at)));
                        model.insert(name, at);
                    }
                    Step::Renew(which, at) if !ids.is_empty() => {
                        let (name, id) = ids[which % ids.len()];
                        timers.renew(id, at);
                        model.entry(name).and_modify(|old| *old = at);
                    }
                    Step::Cancel(which) if !ids.is_empty() => {
                        let (name, id) = ids[which % ids.len()];
                        timers.cancel(id);
                        model.remove(&name);
                    }
                    Step::Advance(by) => {
                        now += by;
                        let mut last = 0;
                        while let Some((_, token)) = timers.pop_due(now) {
                            let at = model.remove(&token.index()).expect("armed, and once");
                            prop_assert!(at >= last && at <= now);
                            last = at;
                        }
                        prop_assert!(model.values().all(|&at| at > now));
                    }
                    _ => {}
                }
                prop_assert_eq!(timers.next_deadline(), model.values().min().copied());
            }
        }
    }
}
