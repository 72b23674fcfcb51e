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
//! remote needs it. Rows are taken under a lock. The broker opens the lock of a worker that died
//! with it; a worker that does not get the lock in time does without rows.
//!
//! A worker that changes a row tells each other worker, by a bit for the row in a set that belongs
//! to that other worker. A worker takes its bits before it selects, and reads those rows again;
//! however much has happened, a row is read once. A bit without a change does no harm, and whatever
//! a rogue process writes leads to wrong numbers at worst.
//!
//! All is sequentially consistent but the turns, which are hints. If a bit is found set, its owner
//! has not taken it yet and will read the row after that, so the bit need not be set again.
//!
//! The monitor writes the health of remotes, as a word in each row, and the addresses of names. It keeps what it knows when the
//! monitor dies, and as long as the row is the remote's.
//!
//! [`identity`]: super::remote::Remote::identity

pub mod counters;
pub mod mail;
pub mod names;
pub mod notes;

use super::health::Health;
use super::wish::Wish;
use crate::os::shared::Words;
use std::collections::HashMap;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::time::Duration;
use std::{io, thread};

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
/// published.
const LAYOUT: usize = 0;
const MEMBERS: usize = 8;
const SELECTIONS: usize = 16;
const TURNS: usize = 24;
const LOCK: usize = 32;
const MONITORED: usize = 40;
const NAMES: usize = 48;
const HEADER: usize = 64;

/// Change this with the layout: broker and workers may be of different versions.
const THIS_LAYOUT: u64 = u64::from_be_bytes(*b"relay  8");

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
const SIZE: usize = MAIL + mail::SIZE;
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

/// How often the lock is tried, and the pause between two tries. Taking rows takes microseconds.
const LOCK_TRIES: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_micros(100);

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
    /// What the monitor says about it; see [`Health::decode`].
    pub health: u64,
    /// What operators have decided about it; see [`Wish::decode`].
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

    /// Lifts all dead marks: a reload is a new start for sessions, whatever former ones have found.
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

    /// Notes whether there is a monitor. For the broker only.
    pub fn set_monitored(&self, monitored: bool) {
        self.words[MONITORED].store(monitored.into(), SeqCst);
    }

    /// True if there is a monitor, so that remotes are probed.
    pub fn is_monitored(&self) -> bool {
        self.words[MONITORED].load(SeqCst) != 0
    }

    /// What is known of a remote's health.
    pub fn health(&self, row: usize) -> Health {
        Health::decode(self.field(row, HEALTH).load(SeqCst))
    }

    /// Sets the health of a remote, and tells all workers. For the monitor only.
    pub fn set_health(&self, row: usize, health: Health) {
        debug_assert!(self.slots == 1 || self.slot == MONITOR);
        let (place, word) = (self.field(row, HEALTH), health.encode());
        if place.load(SeqCst) != word {
            place.store(word, SeqCst);
            self.announce(row);
        }
    }

    /// What operators have decided about a remote.
    pub fn wish(&self, row: usize) -> Wish {
        Wish::decode(self.field(row, WISH).load(SeqCst))
    }

    /// Sets what an operator has decided about a remote, and tells all workers. For the monitor, and
    /// the broker after a reload.
    pub fn set_wish(&self, row: usize, wish: Wish) {
        let (place, word) = (self.field(row, WISH), wish.encode());
        if place.load(SeqCst) != word {
            place.store(word, SeqCst);
            self.announce(row);
        }
    }

    /// Takes over what operators have decided about our remotes from the zone of a former image, as
    /// far as that counts after a reload.
    pub fn inherit_wishes(&self, former: &Zone) {
        let identity = |zone: &Zone, row| zone.field(row, IDENTITY).load(SeqCst);
        for row in (0..self.remotes).take_while(|&row| identity(self, row) != 0) {
            let mut theirs = (0..former.remotes).take_while(|&row| identity(former, row) != 0);
            let same = |&theirs: &usize| identity(former, theirs) == identity(self, row);
            if let Some(theirs) = theirs.find(same) {
                self.set_wish(row, former.wish(theirs).after_reload());
            }
        }
    }

    /// The configuration was read again: what was decided until then no longer counts.
    pub fn end_passing_wishes(&self) {
        let known = |&row: &usize| self.field(row, IDENTITY).load(SeqCst) != 0;
        for row in (0..self.remotes).take_while(known) {
            self.set_wish(row, self.wish(row).after_reload());
        }
    }

    /// Takes the rows of remotes, each of which has an identity of its own. `None` if there are not
    /// enough rows, or if the lock could not be taken in time; no row is taken then.
    pub fn take_rows(&self, identities: &[u64]) -> Option<Vec<usize>> {
        let lock = &self.words[LOCK];
        let free = || lock.compare_exchange(0, self.slot as u64 + 1, SeqCst, SeqCst).is_ok();
        let locked = (0..LOCK_TRIES).any(|attempt| {
            if attempt > 0 {
                thread::sleep(LOCK_PAUSE);
            }
            free()
        });
        let rows = locked.then(|| self.find(identities)).flatten();
        if let Some(rows) = &rows {
            for (&row, &identity) in rows.iter().zip(identities) {
                self.hold(row, identity);
            }
        }
        if locked {
            self.unlock(self.slot);
        }
        rows
    }

    fn unlock(&self, slot: usize) {
        // A lock of another worker is left alone.
        let _ = self.words[LOCK].compare_exchange(slot as u64 + 1, 0, SeqCst, SeqCst);
    }

    /// The rows of these remotes. Remotes without a row get rows that nobody holds: first those
    /// that were used before.
    fn find(&self, identities: &[u64]) -> Option<Vec<usize>> {
        let mut wanted: HashMap<u64, usize> =
            identities.iter().enumerate().map(|(place, &identity)| (identity, place)).collect();
        // Two remotes with one identity cannot share a row: each counts for itself.
        if wanted.len() < identities.len() || wanted.contains_key(&0) {
            return None;
        }
        let mut rows = vec![None; identities.len()];
        let mut unheld = Vec::new();
        let mut end = 0;
        while end < self.remotes {
            let identity = self.field(end, IDENTITY).load(SeqCst);
            // Rows are used in order, so all the rest are unused.
            if identity == 0 {
                break;
            }
            match wanted.remove(&identity) {
                Some(place) => rows[place] = Some(end),
                None if !self.is_held(end) => unheld.push(end),
                None => {}
            }
            end += 1;
        }
        let mut vacant = unheld.into_iter().chain(end..self.remotes);
        rows.into_iter().map(|row| row.or_else(|| vacant.next())).collect()
    }

    /// Holds a row, and clears it first if it was another remote's.
    fn hold(&self, row: usize, identity: u64) {
        let place = self.field(row, IDENTITY);
        if place.load(SeqCst) != identity {
            for field in RETRY_AT..USED + self.slots {
                self.field(row, field).store(0, SeqCst);
            }
            if place.load(SeqCst) != 0 {
                self.restart_counters(row);
            }
            place.store(identity, SeqCst);
        }
        self.words[self.holders + row].fetch_or(1 << self.slot, SeqCst);
    }

    fn is_held(&self, row: usize) -> bool {
        self.words[self.holders + row].load(SeqCst) != 0
    }

    /// Gives up a row. None of our sessions may use its remote any more.
    pub fn leave_row(&self, row: usize) {
        if self.slot < self.slots {
            self.set_used(row, 0);
        }
        self.words[self.holders + row].fetch_and(!(1 << self.slot), SeqCst);
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
            // Mostly nothing is set, which a load finds out without writing.
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
mod tests {
    use super::*;
    use crate::upstream::health::Standing;
    use crate::upstream::wish::{Lasting, Service};

    #[test]
    fn rows_are_found_by_what_remotes_are() {
        let (_broker, fd) = Zone::create().expect("memory");
        let [a, b] = [0, 1].map(|slot| Zone::join(&fd, slot).expect("a place"));
        assert_eq!(a.take_rows(&[10, 20, 30]), Some(vec![0, 1, 2]));
        assert_eq!(b.take_rows(&[30, 40, 10]), Some(vec![2, 3, 0]));
        assert_eq!(a.take_rows(&[5, 5]), None);
        let many: Vec<u64> = (100..100 + REMOTES as u64).collect();
        assert_eq!(b.take_rows(&many), None);
        assert!(Zone::join(&fd, SLOTS).is_err());
    }

    #[test]
    fn a_row_is_its_remotes_until_nobody_holds_it() {
        let (broker, fd) = Zone::create().expect("memory");
        let [a, b] = [0, 1].map(|slot| Zone::join(&fd, slot).expect("a place"));
        assert_eq!(a.take_rows(&[10, 20]), Some(vec![0, 1]));
        assert_eq!(b.take_rows(&[20]), Some(vec![1]));
        a.set_retry_at(0, 500);
        a.set_retry_at(1, 600);
        a.leave_row(0);
        a.leave_row(1);
        // A dead mark stays for the next worker that takes the row,
        assert_eq!(b.take_rows(&[10]), Some(vec![0]));
        assert_eq!(b.state(0).retry_at, 500);
        b.leave_row(0);
        // but another remote starts afresh.
        assert_eq!(a.take_rows(&[30]), Some(vec![0]));
        assert_eq!(a.state(0), State::default());
        assert_eq!(a.take_rows(&[40]), Some(vec![2]));
        broker.clear(1);
        assert_eq!(a.take_rows(&[50]), Some(vec![1]));
        assert_eq!(a.state(1), State::default());
    }

    #[test]
    fn who_dies_while_it_takes_rows_locks_nobody_out() {
        let (broker, fd) = Zone::create().expect("memory");
        let [a, b] = [0, 1].map(|slot| Zone::join(&fd, slot).expect("a place"));
        a.words[LOCK].store(1, SeqCst);
        assert_eq!(b.take_rows(&[10]), None);
        broker.clear(1);
        assert_eq!(b.take_rows(&[10]), None);
        broker.clear(0);
        assert_eq!(b.take_rows(&[10]), Some(vec![0]));
    }

    #[test]
    fn one_of_this_process_alone_grows() {
        let mut zone = Zone::own(1);
        assert_eq!(zone.take_rows(&[10]), Some(vec![0]));
        zone.set_used(0, 3);
        assert_eq!(zone.take_rows(&[20]), None);
        zone.make_room(1);
        assert_eq!(zone.take_rows(&[20]), Some(vec![1]));
        assert_eq!((zone.state(0).used, zone.state(1).used), (3, 0));
    }

    #[test]
    fn others_learn_of_a_change_once() {
        let (broker, fd) = Zone::create().expect("memory");
        let [a, b] = [0, SLOTS - 1].map(|slot| Zone::join(&fd, slot).expect("a place"));
        a.take_rows(&(1..=200).collect::<Vec<u64>>()).expect("rows");
        let changes = |zone: &Zone| {
            let mut rows = Vec::new();
            zone.changes(&mut rows);
            rows
        };
        for row in [130, 5, 130] {
            a.set_used(row, 2);
        }
        b.set_retry_at(7, 0);
        assert_eq!(changes(&a), [0; 0]);
        assert_eq!(changes(&b), [5, 130]);
        assert_eq!(changes(&b), [0; 0]);
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
    fn what_the_monitor_says_outlives_it() {
        let (broker, fd) = Zone::create().expect("memory");
        let worker = Zone::join(&fd, 0).expect("a place");
        let monitor = Zone::monitor(&fd).expect("the monitor's place");
        assert_eq!(worker.take_rows(&[10, 20]), Some(vec![0, 1]));
        assert_eq!(monitor.take_rows(&[20]), Some(vec![1]));
        let down = Health { standing: Standing::Down, since: 7, ..Health::default() };
        monitor.set_health(1, down);
        let mut rows = Vec::new();
        worker.changes(&mut rows);
        assert_eq!((rows, worker.health(1)), (vec![1], down));
        broker.clear_monitor();
        broker.clear(0);
        // The next image of the broker goes on with it,
        let broker = Zone::adopt(&fd).expect("the same layout");
        assert_eq!(Zone::join(&fd, 1).expect("a place").take_rows(&[20]), Some(vec![1]));
        assert_eq!(Health::decode(broker.state(1).health), down);
        // until the row goes to another remote.
        broker.clear(1);
        let next = Zone::join(&fd, 1).expect("a place");
        assert_eq!(next.take_rows(&[30, 40]), Some(vec![0, 1]));
        assert_eq!(next.health(1), Health::default());
    }

    #[test]
    fn what_operators_wish_outlives_a_reload_unless_it_was_to_pass() {
        let (broker, fd) = Zone::create().expect("memory");
        let worker = Zone::join(&fd, 0).expect("a place");
        let monitor = Zone::monitor(&fd).expect("the monitor's place");
        assert_eq!(worker.take_rows(&[10, 20]), Some(vec![0, 1]));
        let wish = Wish { service: Service::Drained, ..Wish::default() };
        monitor.set_wish(0, wish);
        let passing = Wish { service_lasts: Lasting::UntilReload, weight: Some(3), ..wish };
        monitor.set_wish(1, passing);
        let mut rows = Vec::new();
        worker.changes(&mut rows);
        assert_eq!(rows, [0, 1]);
        broker.clear_monitor();
        let broker = Zone::adopt(&fd).expect("the same layout");
        broker.end_passing_wishes();
        assert_eq!(worker.wish(0), wish);
        assert_eq!(worker.wish(1), Wish { weight: Some(3), ..Wish::default() });
        rows.clear();
        worker.changes(&mut rows);
        assert_eq!(rows, [1]);
    }

    #[test]
    fn of_two_workers_one_may_try() {
        let (_broker, fd) = Zone::create().expect("memory");
        let [a, b] = [0, 1].map(|slot| Zone::join(&fd, slot).expect("a place"));
        a.set_retry_at(0, 100);
        assert!(b.put_off(0, 100, 200));
        assert!(!a.put_off(0, 100, 200));
        assert!(a.report_down(0) && !b.report_down(0) && b.is_down(0) && b.report_up(0));
    }

    #[test]
    fn nonsense_is_survived() {
        let (broker, fd) = Zone::create().expect("memory");
        let a = Zone::join(&fd, 0).expect("a place");
        (0..COUNTERS - 1).for_each(|place| broker.scribble(place, u64::MAX));
        let mut rows = Vec::new();
        a.changes(&mut rows);
        assert_eq!(rows.len(), REMOTES);
        let nonsense = State {
            used: u64::MAX,
            retry_at: FOREVER,
            turn: u64::MAX,
            health: u64::MAX,
            wish: u64::MAX,
        };
        assert_eq!(a.state(REMOTES - 1), nonsense);
        assert_eq!(a.take_rows(&[1]), None);
        a.set_used(9, 9);
        assert!(a.count_selection(4));
        broker.clear(5);
        broker.words[LAYOUT].store(1, SeqCst);
        assert!(Zone::join(&fd, 0).is_err());
    }
}
