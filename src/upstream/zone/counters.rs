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

use super::{Zone, BROKER, IDENTITY, MONITOR, REMOTES, SLOTS};
use crate::os::shared::{Object, Words};
use std::io;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

/// The most listeners with counters of their own; what others do is counted for the process only.
pub const LISTENERS: usize = 64;
/// Words of each part. Not all of them have a meaning yet.
const GENERAL_WORDS: usize = 128;
const LISTENER_WORDS: usize = 16;
const REMOTE_WORDS: usize = 32;

/// Rows: of the workers by their slots, the monitor, the broker, and the totals of those that have
/// ended.
const TOTALS: usize = BROKER + 1;
const ROWS: usize = TOTALS + 1;
const _: () = assert!(MONITOR == SLOTS && BROKER == SLOTS + 1);

/// Words of a row. Pages that are never used take no memory.
const LISTENERS_AT: usize = GENERAL_WORDS;
const REMOTES_AT: usize = LISTENERS_AT + LISTENERS * LISTENER_WORDS;
const ROW: usize = REMOTES_AT + REMOTES * REMOTE_WORDS;

/// Before the rows: the sequence word, on a cache line of its own.
const SEQUENCE: usize = 0;
const HEADER: usize = 64;

/// How many words all of it has.
pub(super) const SIZE: usize = HEADER + ROWS * ROW;
/// How often a reader tries again while the broker moves a row. That takes microseconds, but the
/// broker may be stopped or dead.
const TRIES: usize = 1000;

/// A counter, or gauge, of a process. The numbers are places in a row: add new ones at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum General {
    /// Connections that a worker was given.
    Accepted = 0,
    /// Gauge: sessions that are open.
    Open = 1,
    /// Bytes that clients have sent, as carried to remotes.
    BytesUp = 2,
    /// Bytes that remotes have sent, as carried to clients.
    BytesDown = 3,
}

/// A counter of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum OfListener {
    /// Connections that were accepted and admitted.
    Accepted = 0,
}

/// A counter of a remote. How many sessions use it now is in the zone's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum OfRemote {
    /// Sessions that were connected to it.
    Sessions = 0,
    /// Bytes sent to it.
    BytesUp = 1,
    /// Bytes received from it.
    BytesDown = 2,
}

/// A place in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Of the process.
    General(General),
    /// Of a listener, by its number.
    Listener(usize, OfListener),
    /// Of a remote, by its row in the zone.
    Remote(usize, OfRemote),
}

impl Place {
    /// The word of a row; `None` for a listener or remote without counters.
    fn word(self) -> Option<usize> {
        match self {
            Place::General(counter) => Some(counter as usize),
            Place::Listener(listener, counter) => (listener < LISTENERS)
                .then(|| LISTENERS_AT + listener * LISTENER_WORDS + counter as usize),
            Place::Remote(remote, counter) => {
                (remote < REMOTES).then(|| REMOTES_AT + remote * REMOTE_WORDS + counter as usize)
            }
        }
    }
}

/// True for words that say how many there are now.
fn is_gauge(word: usize) -> bool {
    word == General::Open as usize
}

/// The row of this process, to be written. By default there is none, and nothing is counted.
#[derive(Default)]
pub struct Counters {
    row: Option<(Words, usize)>,
}

impl Counters {
    /// The row of the worker with this slot, in the memory of a zone.
    pub fn of_worker(object: &Object, slot: usize) -> io::Result<Counters> {
        if slot >= SLOTS {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Counters::map(object, slot)
    }

    fn map(object: &Object, row: usize) -> io::Result<Counters> {
        let words = Words::map(object, super::SIZE)?;
        Ok(Counters { row: Some((words, super::COUNTERS + HEADER + row * ROW)) })
    }

    /// True if anything is counted.
    #[inline]
    pub fn are_kept(&self) -> bool {
        self.row.is_some()
    }

    /// Adds to a counter.
    #[inline]
    pub fn add(&self, place: Place, count: u64) {
        if let (Some((words, start)), Some(word)) = (&self.row, place.word()) {
            // No other process writes here, so this need not be one step.
            let word = &words[start + word];
            word.store(word.load(Relaxed).wrapping_add(count), Relaxed);
        }
    }

    /// Sets a gauge.
    #[inline]
    pub fn set(&self, place: Place, value: u64) {
        if let (Some((words, start)), Some(word)) = (&self.row, place.word()) {
            words[start + word].store(value, Relaxed);
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

    /// The sums of all processes, for places that are read together. While the broker moves a row
    /// this waits for it, but not for ever.
    pub fn figures(&self, places: &[Place]) -> Vec<u64> {
        if self.slots == 1 {
            return vec![0; places.len()];
        }
        let sequence = &self.words[super::COUNTERS + SEQUENCE];
        let sum = |place: &Place| {
            place.word().map_or(0, |word| {
                (0..ROWS)
                    .map(|row| self.words[self.counter(row, word)].load(Acquire))
                    .fold(0, u64::wrapping_add)
            })
        };
        let mut figures = Vec::new();
        for attempt in 0..TRIES {
            let before = sequence.load(SeqCst);
            if before & 1 != 0 && attempt + 1 < TRIES {
                std::thread::yield_now();
                continue;
            }
            figures = places.iter().map(sum).collect();
            if sequence.load(SeqCst) == before {
                break;
            }
        }
        figures
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
        let counters = [0, 1].map(|slot| Counters::of_worker(&fd, slot).expect("a row"));
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
    fn places_are_places_of_their_own() {
        let all = [
            ACCEPTED,
            OPEN,
            Place::General(General::BytesDown),
            Place::Listener(0, OfListener::Accepted),
            Place::Listener(LISTENERS - 1, OfListener::Accepted),
            Place::Remote(0, OfRemote::Sessions),
            Place::Remote(REMOTES - 1, OfRemote::BytesDown),
        ];
        let words: Vec<usize> = all.iter().filter_map(|place| place.word()).collect();
        assert!(words.is_sorted_by(|one, other| one < other) && words.len() == all.len());
        assert!(words.iter().all(|&word| word < ROW));
        assert_eq!(Place::Listener(LISTENERS, OfListener::Accepted).word(), None);
        assert_eq!(Place::Remote(usize::MAX, OfRemote::Sessions).word(), None);
        assert!(is_gauge(words[1]) && !is_gauge(words[0]) && !is_gauge(words[5]));
        // What nobody counts is nothing.
        Counters::default().add(ACCEPTED, 1);
    }
}
