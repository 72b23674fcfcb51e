//! The zone: what the workers of a broker share about remotes. It says how many sessions of each
//! worker use which remote, which remotes are dead and until when, and how many selections were
//! made.
//!
//! It is a table of atomic words, with a row for each remote. A remote is known by its
//! [`identity`], not by its number: so workers with different configurations, or with the addresses
//! of a host in another order, agree about the remotes they have in common. A row has a word for
//! each worker, which that worker alone writes. The use of a remote is the sum of these words, so
//! no total is wrong when a worker dies: the broker then clears its words.
//!
//! A row belongs to its remote as long as a worker holds it, and has a bit for each worker that
//! does. A row that nobody holds keeps its marks, for a worker that starts again, until another
//! remote needs it. Rows are taken under a lock. The broker releases the lock of a worker that died
//! holding it. A worker that does not get the lock in time does without rows.
//!
//! A worker that changes a row tells each other worker, by a bit for the row in a set that belongs
//! to that other worker. A worker takes its bits before it selects, and reads those rows again;
//! however much has happened, a row is read once. A bit without a change does no harm, and whatever
//! a rogue process writes leads to wrong numbers at worst.
//!
//! Everything but the turns, which are hints, is sequentially consistent. If a bit is already set,
//! its owner has not taken it yet and will read the row later, so the bit need not be set again.
//!
//! The monitor writes the health of remotes, as a word in each row, and the addresses of names.
//! Both stay when the monitor dies, for as long as the row belongs to the remote. It also writes the
//! OCSP responses of our certificates, which stay in the same way.
//!
//! [`identity`]: super::remote::Remote::identity

pub mod counters;
pub mod mail;
pub mod names;
pub mod notes;
mod rows;
mod rulings;
pub mod staples;

use crate::os::shared::Words;
use std::io;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

/// By which a worker gets the zone.
pub use crate::os::shared::Object;

/// The most workers that can share a zone.
pub const SLOTS: usize = 57;
/// The monitor holds rows like a worker, but has no words of its own in them.
const MONITOR: usize = SLOTS;
/// The broker holds no row, and its changes are announced to all workers.
const BROKER: usize = SLOTS + 1;
/// The most remotes in a shared zone: the summary word has a bit for each word of row bits.
pub const REMOTES: usize = 64 * 64;

/// Words of the header, on cache lines of their own: what the words below mean; a bit for each
/// worker that takes part; the count of selections; how far turns have come; the worker that is
/// taking rows (its slot plus 1, or 0); 1 if there is a monitor; how often addresses of names were
/// published, and OCSP responses.
const LAYOUT: usize = 0;
const MEMBERS: usize = 8;
const SELECTIONS: usize = 16;
const TURNS: usize = 24;
const LOCK: usize = 32;
const MONITORED: usize = 40;
const NAMES: usize = 48;
const STAPLES: usize = 56;
const HEADER: usize = 64;

/// Change this with the layout: broker and workers may be of different versions.
const THIS_LAYOUT: u64 = u64::from_be_bytes(*b"relay  9");

/// Words of a remote's row: its identity, 0 if the row was never used; when it may be tried again,
/// 0 if it is alive; 1 if it was reported as down and not yet as up again; its next turn; how many
/// sessions in a row it has cut short; its health and what operators wish, which the
/// monitor alone writes; its use by each worker. With all workers a row has 64 words.
const IDENTITY: usize = 0;
const RETRY_AT: usize = 1;
const REPORTED: usize = 2;
const TURN: usize = 3;
const CUT_SHORT: usize = 4;
const HEALTH: usize = 5;
const WISH: usize = 6;
const USED: usize = 7;

/// Words of a worker's set: the summary, with a bit for each word of row bits, and those words.
const SUMMARY: usize = 0;
const BITS: usize = 8;
const SET: usize = BITS + REMOTES / 64;

/// The number of words in a shared zone. Most are never touched, and take no memory.
const SIZE: usize = STAPLES_AT + staples::SIZE;
/// Where the OCSP responses begin.
const STAPLES_AT: usize = (MAIL + mail::SIZE).next_multiple_of(64);
/// Where the letters begin.
const MAIL: usize = (NAMES_AT + names::SIZE).next_multiple_of(64);
/// Where the notes begin.
const NOTES: usize = (COUNTERS + counters::SIZE).next_multiple_of(64);
/// Where the counters begin.
const COUNTERS: usize = (HOLDERS + REMOTES).next_multiple_of(64);
/// Where the addresses of names begin.
const NAMES_AT: usize = (NOTES + notes::SIZE).next_multiple_of(64);
/// Where the sets of the workers begin.
pub(crate) const SETS: usize = HEADER + REMOTES * (USED + SLOTS);
/// Where the words of holders begin: one per row, with a bit for each worker that holds it.
const HOLDERS: usize = SETS + SLOTS * SET;

/// The retry time of a remote that stays dead until it is declared alive.
pub const FOREVER: u64 = u64::MAX;

/// The zone, as one process sees it.
pub struct Zone {
    words: Words,
    remotes: usize,
    slots: usize,
    slot: usize,
    /// Where the words of holders begin.
    holders: usize,
}

/// The state of a remote, as all workers together see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// How many sessions of all workers use it.
    pub used: u64,
    /// When it may be tried again, 0 if it is alive.
    pub retry_at: u64,
    /// Its next turn among equals.
    pub turn: u64,
    /// What the monitor says about it; see [`crate::upstream::health::Health::decode`].
    pub health: u64,
    /// What operators have decided about it; see [`crate::upstream::wish::Wish::decode`].
    pub wish: u64,
}

impl Zone {
    /// A zone that is not shared.
    pub fn own(remotes: usize) -> Zone {
        let holders = HEADER + remotes * (USED + 1);
        Zone { words: Words::own(holders + remotes), remotes, slots: 1, slot: 0, holders }
    }

    /// Creates a zone that workers can join, by the descriptor.
    pub fn create() -> io::Result<(Zone, Object)> {
        let (words, fd) = Words::create(SIZE)?;
        words[LAYOUT].store(THIS_LAYOUT, SeqCst);
        Ok((Zone::shared(words, BROKER), fd))
    }

    /// Takes over the zone of the broker's former image. Fails if its layout is another one.
    pub fn adopt(object: &Object) -> io::Result<Zone> {
        Zone::map(object, BROKER)
    }

    /// Joins a zone as the monitor, which writes the health of remotes.
    pub fn monitor(object: &Object) -> io::Result<Zone> {
        Zone::map(object, MONITOR)
    }

    fn map(object: &Object, slot: usize) -> io::Result<Zone> {
        let words = Words::map(object, SIZE)?;
        if words[LAYOUT].load(SeqCst) != THIS_LAYOUT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Zone::shared(words, slot))
    }

    /// Joins a zone, with the slot that the broker has assigned.
    pub fn join(object: &Object, slot: usize) -> io::Result<Zone> {
        if slot >= SLOTS {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let zone = Zone::map(object, slot)?;
        // From now on other workers announce changes to us.
        zone.words[MEMBERS].fetch_or(1 << slot, SeqCst);
        Ok(zone)
    }

    fn shared(words: Words, slot: usize) -> Zone {
        Zone { words, remotes: REMOTES, slots: SLOTS, slot, holders: HOLDERS }
    }

    /// Makes room for this many more remotes, if the zone is not shared.
    pub fn make_room(&mut self, more: usize) {
        let held = (0..self.remotes).filter(|&row| self.is_held(row)).count();
        if self.slots > 1 || held + more <= self.remotes {
            return;
        }
        let larger = Zone::own((held + more).max(2 * self.remotes));
        let rows = HEADER + self.remotes * (USED + 1);
        for (to, from) in larger.words.iter().zip(&self.words[..rows]) {
            to.store(from.load(SeqCst), SeqCst);
        }
        for row in 0..self.remotes {
            let holders = self.words[self.holders + row].load(SeqCst);
            larger.words[larger.holders + row].store(holders, SeqCst);
        }
        *self = larger;
    }

    /// A worker has ended, and its sessions with it: clears its words, gives up its rows and its
    /// lock.
    pub fn clear(&self, slot: usize) {
        if slot >= self.slots {
            return;
        }
        self.words[MEMBERS].fetch_and(!(1 << slot), SeqCst);
        // While its rows are still those of the remotes that it has counted for.
        self.fold(slot);
        let known = |&row: &usize| self.field(row, IDENTITY).load(SeqCst) != 0;
        for row in (0..self.remotes).take_while(known) {
            if self.field(row, USED + slot).swap(0, SeqCst) != 0 {
                self.announce(row);
            }
            self.words[self.holders + row].fetch_and(!(1 << slot), SeqCst);
        }
        self.unlock(slot);
    }

    /// Lifts all dead marks: a reload starts afresh, whatever earlier sessions found.
    pub fn lift_marks(&self) {
        let known = |&row: &usize| self.field(row, IDENTITY).load(SeqCst) != 0;
        for row in (0..self.remotes).take_while(known) {
            self.field(row, REPORTED).store(0, SeqCst);
            self.set_retry_at(row, 0);
        }
    }

    /// The monitor has ended: gives up its rows and its lock. What it wrote stays.
    pub fn clear_monitor(&self) {
        for row in 0..self.remotes {
            self.words[self.holders + row].fetch_and(!(1 << MONITOR), SeqCst);
        }
        self.unlock(MONITOR);
        self.forget_monitor();
    }

    fn field(&self, row: usize, field: usize) -> &AtomicU64 {
        &self.words[HEADER + row * (USED + self.slots) + field]
    }

    /// Tells other workers to read this row again.
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
                // In this order: a worker that finds the row's bit set can leave it at that, as
                // whoever has set it goes on to the summary.
                for (place, bit) in [(BITS + word, row % 64), (SUMMARY, word)] {
                    let place = &self.words[set + place];
                    if place.load(SeqCst) & 1 << bit == 0 {
                        place.fetch_or(1 << bit, SeqCst);
                    }
                }
            }
        }
    }

    /// Adds the rows that other workers have changed since the last call.
    pub fn changes(&self, rows: &mut Vec<usize>) {
        if self.slots == 1 {
            return;
        }
        let take = |place: usize| {
            let place = &self.words[SETS + self.slot * SET + place];
            // Usually nothing is set, and a load shows that without a write.
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
        let [retry_at, turn, health, wish] =
            [RETRY_AT, TURN, HEALTH, WISH].map(|field| self.field(row, field).load(SeqCst));
        State { used, retry_at, turn, health, wish }
    }

    /// Sets how many of our sessions use a remote.
    pub fn set_used(&self, row: usize, count: u64) {
        debug_assert!(self.slot < self.slots);
        self.field(row, USED + self.slot).store(count, SeqCst);
        self.announce(row);
    }

    /// Marks a remote as dead until `time`, when it may be tried again, or as alive with 0.
    pub fn set_retry_at(&self, row: usize, time: u64) {
        let place = self.field(row, RETRY_AT);
        if place.load(SeqCst) != time && place.swap(time, SeqCst) != time {
            self.announce(row);
        }
    }

    /// Puts off the next attempt on a dead remote. False if another worker was faster.
    pub fn put_off(&self, row: usize, from: u64, to: u64) -> bool {
        let done = self.field(row, RETRY_AT).compare_exchange(from, to, SeqCst, SeqCst).is_ok();
        if done {
            self.announce(row);
        }
        done
    }

    /// Records that a remote is down. True if that is news.
    pub fn report_down(&self, row: usize) -> bool {
        self.report(row, 1)
    }

    /// Records that a remote is up again. True if that is news.
    pub fn report_up(&self, row: usize) -> bool {
        self.report(row, 0)
    }

    fn report(&self, row: usize, down: u64) -> bool {
        let place = self.field(row, REPORTED);
        place.load(SeqCst) != down && place.swap(down, SeqCst) != down
    }

    /// True if the last attempt on a remote failed.
    pub fn is_down(&self, row: usize) -> bool {
        self.field(row, REPORTED).load(SeqCst) != 0
    }

    /// How far turns have come. This and the turns are hints: it does no harm if two workers write
    /// them at the same moment, and a worker that sees that a remote is used more sees its turn
    /// too.
    pub fn turns(&self) -> u64 {
        self.words[TURNS].load(Relaxed)
    }

    /// Sets how far turns have come.
    pub fn set_turns(&self, turn: u64) {
        self.words[TURNS].store(turn, Relaxed);
    }

    /// Sets the next turn of a remote. The use that follows announces it.
    pub fn set_turn(&self, row: usize, turn: u64) {
        self.field(row, TURN).store(turn, Relaxed);
    }

    /// Counts a session that a remote has cut short; returns the new count.
    pub fn count_cut_short(&self, row: usize) -> u64 {
        self.field(row, CUT_SHORT).fetch_add(1, SeqCst).saturating_add(1)
    }

    /// How many sessions in a row a remote has cut short.
    pub fn cut_short(&self, row: usize) -> u64 {
        self.field(row, CUT_SHORT).load(SeqCst)
    }

    /// A session was not cut short: restarts the count.
    pub fn forget_cut_short(&self, row: usize) {
        self.field(row, CUT_SHORT).store(0, SeqCst);
    }

    /// Counts a selection. True if the count had reached `limit`; this selection then counts as the
    /// first.
    pub fn count_selection(&self, limit: u64) -> bool {
        let next = |count| Some(if count >= limit { 1 } else { count + 1 });
        let before = self.words[SELECTIONS].fetch_update(SeqCst, SeqCst, next);
        before.is_ok_and(|count| count >= limit)
    }

    /// Restarts the count of selections: the next one is the second.
    pub fn restart_selections(&self) {
        self.words[SELECTIONS].store(1, SeqCst);
    }
}

#[cfg(test)]
impl Zone {
    /// Writes garbage anywhere but the layout word, as a rogue process might.
    pub(crate) fn scribble(&self, place: usize, value: u64) {
        self.words[1 + place % (COUNTERS + 1000)].store(value, SeqCst);
    }
}

#[cfg(test)]
mod tests;
