//! Counters: what processes have done, in a row of words each, behind the zone's own words.
//!
//! A row belongs to one process, which alone writes it, so counting is a plain store to memory of
//! its own. It has a part for the process as a whole, a part for each listener, and a part for each
//! row of the zone, that is for each remote. When a worker has ended, the broker adds its row to
//! that of the totals and clears it; so counters survive workers, and a reload, as the zone does.
//! A reader adds up all rows. While the broker moves a row the sequence word is odd, and a reader
//! tries again; no counter ever seems to run backwards.
//!
//! Gauges (how many there are now) are in the same rows, and are dropped with the process.

mod places;

pub use places::{
    Expiry, Failure, General, Histogram, OfListener, OfRemote, OfSessions, Place, Refusal, Side,
    Standing, TlsFailure, TlsRecords, TlsVersion, LISTENERS,
};

use super::{Zone, BROKER, IDENTITY, MONITOR, SLOTS};
use crate::os::process::Pid;
use crate::os::shared::{Object, Window, Words};
use places::{
    is_gauge, CONNECT_AT, DURATIONS_AT, LISTENERS_AT, LISTENER_WORDS, REMOTES_AT, REMOTE_WORDS, ROW,
};
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

/// Rows: of the workers by their slots, the monitor, the broker, and the totals of those that have
/// ended.
const TOTALS: usize = BROKER + 1;
pub(super) const ROWS: usize = TOTALS + 1;
const _: () = assert!(MONITOR == SLOTS && BROKER == SLOTS + 1);

/// Before the rows: the sequence word, on a cache line of its own.
const SEQUENCE: usize = 0;
const HEADER: usize = 64;

/// How many words all of it has.
pub(super) const SIZE: usize = HEADER + ROWS * ROW;
/// How often a reader tries again while the broker moves a row. That takes microseconds, but the
/// broker may be stopped or dead.
const TRIES: usize = 1000;

/// The row of this process, to be written. By default there is none, and nothing is counted.
#[derive(Default)]
pub struct Counters {
    row: Option<Window<ROW>>,
}

/// The row of this process, where one is kept. What counts several things asks for it once.
#[derive(Clone, Copy)]
pub struct Row<'a>(&'a [AtomicU64; ROW]);

/// What is counted of one remote, in the row of this process.
#[derive(Clone, Copy)]
pub struct RemoteCounters<'a>(&'a [AtomicU64; REMOTE_WORDS]);

/// Where sessions of one listener are counted, in the row of this process.
#[derive(Clone, Copy)]
pub struct SessionCounters<'a>(&'a [AtomicU64; LISTENER_WORDS]);

/// What is counted of one listener, in the row of this process.
#[derive(Clone, Copy)]
pub struct ListenerCounters<'a>(&'a [AtomicU64; LISTENER_WORDS]);

/// No other process writes this word, so adding need not be one step.
#[inline]
fn add(word: &AtomicU64, count: u64) {
    word.store(word.load(Relaxed).wrapping_add(count), Relaxed);
}

impl<'a> Row<'a> {
    /// Adds to a counter.
    #[inline]
    pub fn add(self, place: Place, count: u64) {
        if let Some(word) = place.word() {
            add(&self.0[word], count);
        }
    }

    /// Sets a gauge.
    #[inline]
    pub fn set(self, place: Place, value: u64) {
        if let Some(word) = place.word() {
            self.0[word].store(value, Relaxed);
        }
    }

    /// Those of the remote with this row of the zone, if it has any.
    #[inline]
    pub fn remote(self, row: Option<u16>) -> Option<RemoteCounters<'a>> {
        let (parts, _) = self.0[REMOTES_AT..].as_chunks();
        parts.get(usize::from(row?)).map(RemoteCounters)
    }

    /// Those of this listener, if it has any.
    #[inline]
    pub fn listener(self, number: Option<u16>) -> Option<ListenerCounters<'a>> {
        let (parts, _) = self.0[LISTENERS_AT..REMOTES_AT].as_chunks();
        parts.get(usize::from(number?)).map(ListenerCounters)
    }

    /// Where sessions of this listener are counted.
    #[inline]
    pub fn sessions(self, listener: Option<u16>) -> SessionCounters<'a> {
        let own = self.listener(listener).map(|listener| listener.0);
        SessionCounters(own.unwrap_or_else(|| {
            let (parts, _) = self.0.as_chunks();
            &parts[0]
        }))
    }

    /// A session has ended, which lasted so many milliseconds.
    #[inline]
    pub fn lasted(self, milliseconds: u64) {
        let histogram = Histogram::Duration;
        add(&self.0[DURATIONS_AT + histogram.bucket(milliseconds)], 1);
        add(&self.0[DURATIONS_AT + histogram.sum()], milliseconds);
    }
}

impl RemoteCounters<'_> {
    /// Adds to a counter.
    #[inline]
    pub fn add(self, what: OfRemote, count: u64) {
        add(&self.0[what as usize], count);
    }

    /// A session was connected to it, which took so many milliseconds.
    #[inline]
    pub fn connected(self, milliseconds: u64) {
        self.add(OfRemote::Sessions, 1);
        // Which remote it is does not matter for what is where in its part.
        let histogram = Histogram::Connect(0);
        add(&self.0[CONNECT_AT + histogram.bucket(milliseconds)], 1);
        add(&self.0[CONNECT_AT + histogram.sum()], milliseconds);
    }
}

impl SessionCounters<'_> {
    /// Adds to a counter.
    #[inline]
    pub fn add(self, what: OfSessions, count: u64) {
        add(&self.0[what as usize], count);
    }
}

impl ListenerCounters<'_> {
    /// Adds to a counter.
    #[inline]
    pub fn add(self, what: OfListener, count: u64) {
        add(&self.0[what as usize], count);
    }
}

impl Counters {
    /// The row of the worker with this slot, in the memory of a zone, and with this id.
    pub fn of_worker(object: &Object, slot: usize, pid: Pid) -> io::Result<Counters> {
        if slot >= SLOTS {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Counters::map(object, slot, pid)
    }

    /// The row of the monitor, which goes on with what former ones have counted.
    pub fn of_monitor(object: &Object, pid: Pid) -> io::Result<Counters> {
        Counters::map(object, MONITOR, pid)
    }

    /// The row of the broker, which its next image goes on with.
    pub fn of_broker(object: &Object, pid: Pid) -> io::Result<Counters> {
        Counters::map(object, BROKER, pid)
    }

    fn map(object: &Object, row: usize, pid: Pid) -> io::Result<Counters> {
        let words = Words::map(object, super::SIZE)?;
        let row = words.window(super::COUNTERS + HEADER + row * ROW);
        let counters = Counters { row: Some(row.ok_or(io::ErrorKind::InvalidData)?) };
        counters.set(Place::General(General::Pid), u64::try_from(pid).unwrap_or(0));
        Ok(counters)
    }

    /// The memory, and the number of our row.
    pub(super) fn words_of_row(&self) -> Option<(&Words, usize)> {
        let (words, first) = self.row.as_ref()?.all();
        Some((words, (first - super::COUNTERS - HEADER) / ROW))
    }

    /// Says how far this process is; `now` is on the wall clock, in seconds.
    pub fn stand(&self, standing: Standing, since: u64) {
        self.set(Place::General(General::Since), since);
        self.set(Place::General(General::Standing), standing as u64);
    }

    /// True if anything is counted.
    #[inline]
    pub fn are_kept(&self) -> bool {
        self.row.is_some()
    }

    /// The row, if anything is counted.
    #[inline]
    pub fn row(&self) -> Option<Row<'_>> {
        self.row.as_deref().map(Row)
    }

    /// Adds to a counter.
    #[inline]
    pub fn add(&self, place: Place, count: u64) {
        if let Some(row) = self.row() {
            row.add(place, count);
        }
    }

    /// Sets a gauge.
    #[inline]
    pub fn set(&self, place: Place, value: u64) {
        if let Some(row) = self.row() {
            row.set(place, value);
        }
    }
}

/// For the broker, which moves rows, and for readers.
impl Zone {
    fn counter(&self, row: usize, word: usize) -> usize {
        super::COUNTERS + HEADER + row * ROW + word
    }

    /// The words that may be in use: those of rows of the zone that were never used are not.
    fn counted(&self) -> impl Iterator<Item = usize> + '_ {
        let known = |&row: &usize| self.field(row, IDENTITY).load(SeqCst) != 0;
        let remotes = (0..self.remotes).take_while(known);
        let remotes = remotes.flat_map(|row| {
            let start = REMOTES_AT + row * REMOTE_WORDS;
            start..start + REMOTE_WORDS
        });
        (0..REMOTES_AT).chain(remotes)
    }

    /// A worker has ended: adds what it has counted to the totals, and clears its row.
    pub(super) fn fold(&self, slot: usize) {
        if self.slots == 1 {
            return;
        }
        let sequence = &self.words[super::COUNTERS + SEQUENCE];
        let begun = sequence.load(Relaxed) | 1;
        sequence.store(begun, SeqCst);
        for word in self.counted() {
            let counted = &self.words[self.counter(slot, word)];
            let count = counted.load(SeqCst);
            if count != 0 {
                counted.store(0, SeqCst);
                if !is_gauge(word) {
                    let total = &self.words[self.counter(TOTALS, word)];
                    total.store(total.load(SeqCst).wrapping_add(count), SeqCst);
                }
            }
        }
        sequence.store(begun.wrapping_add(1), SeqCst);
    }

    /// Goes on with what all processes have counted in the zone of a former image. Call it when the
    /// rows of remotes are taken.
    pub fn inherit_counters(&self, former: &Zone) {
        if self.slots == 1 || former.slots == 1 {
            return;
        }
        let identity = |zone: &Zone, row| zone.field(row, IDENTITY).load(SeqCst);
        let known = |zone: &Zone| {
            let known = (0..zone.remotes).map(|row| identity(zone, row));
            known.take_while(|&identity| identity != 0).collect::<Vec<u64>>()
        };
        let (ours, theirs) = (known(self), known(former));
        let same = |row: usize| theirs.iter().position(|&theirs| theirs == ours[row]);
        let pairs = (0..ours.len()).filter_map(|row| Some((row, same(row)?)));
        let remotes = pairs.flat_map(|(ours, theirs)| {
            let start = |row| REMOTES_AT + row * REMOTE_WORDS;
            (0..REMOTE_WORDS).map(move |word| (start(ours) + word, start(theirs) + word))
        });
        for (our, their) in (0..REMOTES_AT).map(|word| (word, word)).chain(remotes) {
            if !is_gauge(our) {
                let counted = (0..ROWS)
                    .map(|row| former.words[former.counter(row, their)].load(SeqCst))
                    .fold(0, u64::wrapping_add);
                let total = &self.words[self.counter(TOTALS, our)];
                total.store(total.load(SeqCst).wrapping_add(counted), SeqCst);
            }
        }
    }

    /// The monitor has ended. Its counters stay, for the next one to go on.
    pub(super) fn forget_monitor(&self) {
        if let (Some(pid), true) = (Place::General(General::Pid).word(), self.slots > 1) {
            self.words[self.counter(MONITOR, pid)].store(0, SeqCst);
        }
    }

    /// A row of the zone goes to another remote: its counters begin anew.
    pub(super) fn restart_counters(&self, row: usize) {
        if self.slots == 1 {
            return;
        }
        for process in 0..ROWS {
            for word in 0..REMOTE_WORDS {
                let place = self.counter(process, REMOTES_AT + row * REMOTE_WORDS + word);
                self.words[place].store(0, SeqCst);
            }
        }
    }

    /// What is in one row.
    fn figure(&self, row: usize, place: Place) -> u64 {
        let read = |word| self.words[self.counter(row, word)].load(Acquire);
        place.words().map(read).fold(0, u64::wrapping_add)
    }

    /// The sums of all processes, for places that are read together. While the broker moves a row
    /// this waits for it, but not for ever.
    pub fn figures(&self, places: &[Place]) -> Vec<u64> {
        if self.slots == 1 {
            return vec![0; places.len()];
        }
        let sequence = &self.words[super::COUNTERS + SEQUENCE];
        let pid = self.counter(0, General::Pid as usize);
        // Reading the words of slots that were never used would take memory for them.
        let lives = |&row: &usize| row >= SLOTS || self.words[pid + row * ROW].load(Acquire) != 0;
        let sum = |place: &Place, rows: &[usize]| {
            rows.iter().map(|&row| self.figure(row, *place)).fold(0, u64::wrapping_add)
        };
        let mut figures = Vec::new();
        for attempt in 0..TRIES {
            let before = sequence.load(SeqCst);
            if before & 1 != 0 && attempt + 1 < TRIES {
                std::thread::yield_now();
                continue;
            }
            let rows: Vec<usize> = (0..ROWS).filter(lives).collect();
            figures = places.iter().map(|place| sum(place, &rows)).collect();
            if sequence.load(SeqCst) == before {
                break;
            }
        }
        figures
    }
}

/// A process that takes part, as it describes itself. A rogue one may write anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its place; of a worker, its slot.
    pub slot: usize,
    /// What it is.
    pub role: Role,
    /// Its id.
    pub pid: u64,
    /// When it has started, in seconds of the wall clock.
    pub since: u64,
    /// How far it is.
    pub standing: Standing,
    /// Sessions that are open.
    pub open: u64,
    /// Connections that it was given.
    pub accepted: u64,
    /// Bytes that it has carried, up and down.
    pub bytes: [u64; 2],
}

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A worker.
    Worker,
    /// The monitor.
    Monitor,
    /// The broker.
    Broker,
}

impl Role {
    /// Whose row this is.
    pub(super) fn of(row: usize) -> Role {
        match row {
            MONITOR => Role::Monitor,
            BROKER => Role::Broker,
            _ => Role::Worker,
        }
    }

    /// As messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Worker => "worker",
            Role::Monitor => "monitor",
            Role::Broker => "broker",
        }
    }
}

impl Zone {
    /// The processes that take part.
    pub fn members(&self) -> Vec<Member> {
        if self.slots == 1 {
            return Vec::new();
        }
        let member = |row: usize| {
            let read = |general| self.figure(row, Place::General(general));
            Some(Member {
                slot: row,
                role: Role::of(row),
                pid: Some(read(General::Pid)).filter(|&pid| pid != 0)?,
                since: read(General::Since),
                standing: Standing::of(read(General::Standing)),
                open: read(General::Open),
                accepted: read(General::Accepted),
                bytes: [read(General::BytesUp), read(General::BytesDown)],
            })
        };
        (0..TOTALS).filter_map(member).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPTED: Place = Place::General(General::Accepted);
    const OPEN: Place = Place::General(General::Open);

    #[test]
    fn what_a_dead_worker_has_counted_stays() {
        let (broker, fd) = Zone::create().expect("memory");
        let zones = [0, 1].map(|slot| Zone::join(&fd, slot).expect("a place"));
        let counters = [0, 1].map(|slot| Counters::of_worker(&fd, slot, 7).expect("a row"));
        zones.iter().for_each(|zone| assert_eq!(zone.take_rows(&[10, 20]), Some(vec![0, 1])));
        let down = Place::Remote(1, OfRemote::BytesDown);
        let sessions = Place::Remote(1, OfRemote::Sessions);
        for worker in &counters {
            worker.add(ACCEPTED, 3);
            worker.add(down, 1000);
            worker.set(OPEN, 2);
            worker.add(sessions, 1);
        }
        let figures = || broker.figures(&[ACCEPTED, OPEN, down, sessions]);
        assert_eq!(figures(), [6, 4, 2000, 2]);
        broker.clear(0);
        assert_eq!(figures(), [6, 2, 2000, 2]);
        // The slot goes to another worker, and another image reads the same.
        let counters = [Counters::of_worker(&fd, 0, 8).expect("a row")];
        counters[0].add(ACCEPTED, 1);
        let next = Zone::adopt(&fd).expect("the same layout");
        assert_eq!(next.figures(&[ACCEPTED]), [7]);
        // The row goes to another remote.
        broker.clear(1);
        assert_eq!(zones[0].take_rows(&[30, 40]), Some(vec![0, 1]));
        assert_eq!(figures(), [7, 0, 0, 0]);
    }

    #[test]
    fn a_reader_does_not_wait_for_ever() {
        let (broker, fd) = Zone::create().expect("memory");
        broker.words[super::super::COUNTERS + SEQUENCE].store(7, SeqCst);
        let reader = Zone::monitor(&fd).expect("the monitor's place");
        assert_eq!(reader.figures(&[ACCEPTED]), [0]);
    }

    #[test]
    fn histograms_count_where_the_value_belongs() {
        let (broker, fd) = Zone::create().expect("memory");
        let counters = Counters::of_worker(&fd, 0, 7).expect("a row");
        let row = counters.row().expect("a row");
        let remote = row.remote(Some(3)).expect("a remote's part");
        for milliseconds in [0, 1, 2, 100_000] {
            remote.connected(milliseconds);
        }
        for milliseconds in [10, 11, u64::from(u32::MAX)] {
            row.lasted(milliseconds);
        }
        let count = |histogram: Histogram| {
            let buckets = 0..=histogram.bounds().len();
            let places = buckets.map(|bucket| Place::Bucket(histogram, bucket));
            broker.figures(&places.collect::<Vec<Place>>())
        };
        let sum = |histogram| broker.figures(&[Place::Sum(histogram)])[0];
        assert_eq!(count(Histogram::Connect(3)), [2, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!((sum(Histogram::Connect(3)), sum(Histogram::Connect(2))), (100_003, 0));
        assert_eq!(count(Histogram::Duration), [1, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(sum(Histogram::Duration), 21 + u64::from(u32::MAX));
    }

    #[test]
    fn processes_describe_themselves() {
        let (broker, fd) = Zone::create().expect("memory");
        let worker = Counters::of_worker(&fd, 3, 77).expect("a row");
        worker.set(Place::General(General::Standing), 9);
        let members = broker.members();
        assert_eq!(members.len(), 1);
        assert_eq!((members[0].role, members[0].pid), (Role::Worker, 77));
        assert_eq!(members[0].standing, Standing::Starting);
        broker.clear(3);
        assert_eq!(broker.members(), []);
    }
}
