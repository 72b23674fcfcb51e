//! What the workers of a broker know in common about remotes: how many sessions of each worker use
//! which, which are dead until when, and how many selections there were.
//!
//! It is a table of atomic words. A remote is known by what it is, not by its number, so that
//! workers with other configurations, or with the addresses of a host in another order, agree about
//! those that they have in common. Its row has a word for each worker, which that worker alone
//! writes; what all use is the sum, so no total can be wrong when a worker dies: the broker then
//! clears its words.
//!
//! Whoever changes a row says so to each other worker, by a bit for the row in a set that belongs
//! to that worker. A worker takes its bits before it selects, and reads those rows again; however
//! much has happened, a row is read once. A bit without a change does no harm, and what a process
//! gone mad may write leads to wrong numbers at worst.
//!
//! All is sequentially consistent: a bit that is found set was not taken yet by its owner, who
//! will read the row after that, so it need not be set again.

use crate::os::shared::Words;
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

/// Most workers that share a zone.
pub const SLOTS: usize = 59;
/// Most remotes in a shared zone: one word has a bit for each word of their bits.
pub const REMOTES: usize = 64 * 64;

/// Places in the header, on cache lines of their own: what the words below mean, a bit for each
/// worker that takes part, the count of selections, how far turns have come.
const LAYOUT: usize = 0;
const MEMBERS: usize = 8;
const SELECTIONS: usize = 16;
const TURNS: usize = 24;
const HEADER: usize = 64;

/// To be changed with the layout, for brokers and workers of different versions.
const THIS_LAYOUT: u64 = u64::from_be_bytes(*b"relay  2");

/// Places in the row of a remote: what it is, 0 if the row is free; when it may be tried again, 0
/// if it is alive; 1 if it was reported as down and not yet as up again; its next turn; sessions in a
/// row that it has cut short; the use by each worker. With all workers a row has 64 words, and its
/// first cache line is enough for three of them.
const IDENTITY: usize = 0;
const RETRY_AT: usize = 1;
const REPORTED: usize = 2;
const TURN: usize = 3;
const CUT_SHORT: usize = 4;
const USED: usize = 5;

/// Places in the set of a worker: a bit for each word with bits, and these words.
const SUMMARY: usize = 0;
const BITS: usize = 8;
const SET: usize = BITS + REMOTES / 64;

/// All words of a shared zone. Most are never touched, and take no memory.
const SIZE: usize = SETS + SLOTS * SET;
/// Where the sets of the workers begin in one.
pub(crate) const SETS: usize = HEADER + REMOTES * (USED + SLOTS);

/// A remote that is dead until it is declared alive, however late it is.
pub const FOREVER: u64 = u64::MAX;

/// What the workers know in common, as seen by one of them.
pub struct Zone {
    words: Words,
    remotes: usize,
    slots: usize,
    slot: usize,
}

/// The state of a remote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Sessions of all workers that use it.
    pub used: u64,
    /// When it may be tried again, 0 if it is alive.
    pub retry_at: u64,
    /// Its next turn among equals.
    pub turn: u64,
}

impl Zone {
    /// One that is not shared.
    pub fn own(remotes: usize) -> Zone {
        let words = Words::own(HEADER + remotes * (USED + 1));
        Zone { words, remotes, slots: 1, slot: 0 }
    }

    /// One for workers to join, by the descriptor.
    pub fn create() -> io::Result<(Zone, OwnedFd)> {
        let (words, fd) = Words::create(SIZE)?;
        words[LAYOUT].store(THIS_LAYOUT, SeqCst);
        // The broker has no slot: what it changes is news for all.
        Ok((Zone { words, remotes: REMOTES, slots: SLOTS, slot: SLOTS }, fd))
    }

    /// Takes part in one, with the slot that the broker has assigned.
    pub fn join(fd: &OwnedFd, slot: usize) -> io::Result<Zone> {
        let words = Words::map(fd, SIZE)?;
        if slot >= SLOTS || words[LAYOUT].load(SeqCst) != THIS_LAYOUT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // From now on changes are announced to us.
        words[MEMBERS].fetch_or(1 << slot, SeqCst);
        Ok(Zone { words, remotes: REMOTES, slots: SLOTS, slot })
    }

    /// A worker has ended: its sessions are over.
    pub fn clear(&self, slot: usize) {
        if slot >= self.slots {
            return;
        }
        self.words[MEMBERS].fetch_and(!(1 << slot), SeqCst);
        let known = |&row: &usize| self.field(row, IDENTITY).load(SeqCst) != 0;
        for row in (0..self.remotes).take_while(known) {
            if self.field(row, USED + slot).swap(0, SeqCst) != 0 {
                self.announce(row);
            }
        }
    }

    /// Finds the rows of remotes, each of which has an identity of its own, or takes free ones for
    /// them. `None`: there are not enough.
    pub fn find(&self, identities: &[u64]) -> Option<Vec<usize>> {
        let mut known = HashMap::new();
        let mut next = 0;
        let mut rows = Vec::with_capacity(identities.len());
        for identity in identities.iter().map(|&identity| identity.max(1)) {
            // Rows are taken in order, so that what is not before the first free one is new.
            while !known.contains_key(&identity) {
                if next == self.remotes {
                    return None;
                }
                let place = self.field(next, IDENTITY);
                let found = match place.compare_exchange(0, identity, SeqCst, SeqCst) {
                    Ok(_) => identity,
                    Err(other) => other,
                };
                known.insert(found, next);
                next += 1;
            }
            // Two with one identity cannot share a row: each counts for itself.
            rows.push(known.insert(identity, self.remotes).filter(|&row| row < self.remotes)?);
        }
        Some(rows)
    }

    fn field(&self, row: usize, field: usize) -> &AtomicU64 {
        &self.words[HEADER + row * (USED + self.slots) + field]
    }

    /// Other workers are to look at this row again.
    fn announce(&self, row: usize) {
        if self.slots == 1 {
            return;
        }
        let mut others = self.words[MEMBERS].load(SeqCst) & !(1 << self.slot);
        while others != 0 {
            let slot = others.trailing_zeros() as usize;
            others &= others - 1;
            if slot < SLOTS {
                let (word, set) = (row / 64, SETS + slot * SET);
                // In this order: whoever finds the word's bit set need not care for it, as
                // everybody who sets it goes on to the summary.
                for (place, bit) in [(BITS + word, row % 64), (SUMMARY, word)] {
                    let place = &self.words[set + place];
                    if place.load(SeqCst) & 1 << bit == 0 {
                        place.fetch_or(1 << bit, SeqCst);
                    }
                }
            }
        }
    }

    /// Adds the rows that others have changed since the last call.
    pub fn changes(&self, rows: &mut Vec<usize>) {
        if self.slots == 1 {
            return;
        }
        let take = |place: usize| {
            let place = &self.words[SETS + self.slot * SET + place];
            // Mostly there is nothing, which is found out without writing.
            let mut bits = if place.load(SeqCst) == 0 { 0 } else { place.swap(0, SeqCst) };
            std::iter::from_fn(move || {
                let bit = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
                bits &= bits - 1;
                Some(bit)
            })
        };
        for word in take(SUMMARY) {
            rows.extend(take(BITS + word).map(|bit| word * 64 + bit));
        }
    }

    /// The state of a remote.
    pub fn state(&self, row: usize) -> State {
        let members = self.words[MEMBERS].load(SeqCst) | 1 << self.slot;
        let slots = (64 - members.leading_zeros() as usize).min(self.slots);
        let used = (0..slots)
            .map(|slot| self.field(row, USED + slot).load(SeqCst))
            .fold(0, u64::saturating_add);
        let [retry_at, turn] = [RETRY_AT, TURN].map(|field| self.field(row, field).load(SeqCst));
        State { used, retry_at, turn }
    }

    /// Says how many of our sessions use a remote.
    pub fn set_used(&self, row: usize, count: u64) {
        debug_assert!(self.slot < self.slots);
        self.field(row, USED + self.slot).store(count, SeqCst);
        self.announce(row);
    }

    /// A remote is dead, and may be tried again then; or alive, with 0.
    pub fn set_retry_at(&self, row: usize, time: u64) {
        let place = self.field(row, RETRY_AT);
        if place.load(SeqCst) != time && place.swap(time, SeqCst) != time {
            self.announce(row);
        }
    }

    /// Puts off the next attempt with a dead remote. False if another worker was faster.
    pub fn put_off(&self, row: usize, from: u64, to: u64) -> bool {
        let done = self.field(row, RETRY_AT).compare_exchange(from, to, SeqCst, SeqCst).is_ok();
        if done {
            self.announce(row);
        }
        done
    }

    /// Remembers that a remote is down, or up again. True if that is news.
    pub fn report(&self, row: usize, down: bool) -> bool {
        let down = u64::from(down);
        let place = self.field(row, REPORTED);
        place.load(SeqCst) != down && place.swap(down, SeqCst) != down
    }

    /// The last attempt on a remote failed.
    pub fn is_down(&self, row: usize) -> bool {
        self.field(row, REPORTED).load(SeqCst) != 0
    }

    /// How far turns have come. It and the turns are hints: that two workers write them in the same
    /// moment does no harm, and whoever sees that a remote is used more sees its turn.
    pub fn turns(&self) -> u64 {
        self.words[TURNS].load(Relaxed)
    }

    /// Turns have come so far.
    pub fn set_turns(&self, turn: u64) {
        self.words[TURNS].store(turn, Relaxed);
    }

    /// The next turn of a remote. It is announced with the use that follows.
    pub fn set_turn(&self, row: usize, turn: u64) {
        self.field(row, TURN).store(turn, Relaxed);
    }

    /// Counts a session that a remote has cut short; returns how many it has now.
    pub fn count_cut_short(&self, row: usize) -> u64 {
        self.field(row, CUT_SHORT).fetch_add(1, SeqCst).saturating_add(1)
    }

    /// How many sessions a remote has cut short in a row.
    pub fn cut_short(&self, row: usize) -> u64 {
        self.field(row, CUT_SHORT).load(SeqCst)
    }

    /// A session was not cut short: the count begins anew.
    pub fn forget_cut_short(&self, row: usize) {
        self.field(row, CUT_SHORT).store(0, SeqCst);
    }

    /// Counts a selection. True if `limit` had been reached; this one is the first again then.
    pub fn count_selection(&self, limit: u64) -> bool {
        let next = |count| Some(if count >= limit { 1 } else { count + 1 });
        let before = self.words[SELECTIONS].fetch_update(SeqCst, SeqCst, next);
        before.is_ok_and(|count| count >= limit)
    }

    /// The next selection is the second one.
    pub fn restart_selections(&self) {
        self.words[SELECTIONS].store(1, SeqCst);
    }
}

#[cfg(test)]
impl Zone {
    /// What a process gone mad may do, anywhere but to what the memory is known by.
    pub(crate) fn scribble(&self, place: usize, value: u64) {
        self.words[1 + place % (SIZE - 1)].store(value, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_what_remotes_are() {
        let (_broker, fd) = Zone::create().expect("memory");
        let [a, b] = [0, 1].map(|slot| Zone::join(&fd, slot).expect("a place"));
        assert_eq!(a.find(&[10, 20, 30]), Some(vec![0, 1, 2]));
        assert_eq!(b.find(&[30, 40, 10]), Some(vec![2, 3, 0]));
        assert_eq!(a.find(&[5, 5]), None);
        let many: Vec<u64> = (100..100 + REMOTES as u64).collect();
        assert_eq!(b.find(&many), None);
        assert!(Zone::join(&fd, SLOTS).is_err());
    }

    #[test]
    fn others_learn_of_a_change_once() {
        let (broker, fd) = Zone::create().expect("memory");
        let [a, b] = [0, SLOTS - 1].map(|slot| Zone::join(&fd, slot).expect("a place"));
        a.find(&(1..=200).collect::<Vec<u64>>()).expect("rows");
        let changes = |zone: &Zone| {
            let mut rows = Vec::new();
            zone.changes(&mut rows);
            rows
        };
        for row in [130, 5, 130] {
            a.set_used(row, 2);
        }
        b.set_retry_at(7, 0);
        assert_eq!(changes(&a), []);
        assert_eq!(changes(&b), [5, 130]);
        assert_eq!(changes(&b), []);
        b.set_used(5, 1);
        assert_eq!(b.state(5), State { used: 3, ..State::default() });
        broker.clear(0);
        assert_eq!(changes(&b), [5, 130]);
        assert_eq!(b.state(5).used, 1);
        let a = Zone::join(&fd, 0).expect("the place again");
        broker.clear(SLOTS - 1);
        assert_eq!(changes(&a), [5]);
        assert_eq!(a.state(5).used, 0);
    }

    #[test]
    fn of_two_workers_one_may_try() {
        let (_broker, fd) = Zone::create().expect("memory");
        let [a, b] = [0, 1].map(|slot| Zone::join(&fd, slot).expect("a place"));
        a.set_retry_at(0, 100);
        assert!(b.put_off(0, 100, 200));
        assert!(!a.put_off(0, 100, 200));
        assert!(a.report(0, true) && !b.report(0, true) && b.is_down(0) && b.report(0, false));
    }

    #[test]
    fn nonsense_is_survived() {
        let (broker, fd) = Zone::create().expect("memory");
        let a = Zone::join(&fd, 0).expect("a place");
        (0..SIZE - 1).for_each(|place| broker.scribble(place, u64::MAX));
        let mut rows = Vec::new();
        a.changes(&mut rows);
        assert_eq!(rows.len(), REMOTES);
        let nonsense = State { used: u64::MAX, retry_at: FOREVER, turn: u64::MAX };
        assert_eq!(a.state(REMOTES - 1), nonsense);
        assert_eq!(a.find(&[1]), None);
        a.set_used(9, 9);
        assert!(a.count_selection(4));
        broker.clear(5);
        broker.words[LAYOUT].store(1, SeqCst);
        assert!(Zone::join(&fd, 0).is_err());
    }
}
