//! The addresses of names, which the monitor looks up and workers follow.
//!
//! Behind the counters, in the same memory, there is a slot for each name: its [`identity`], a
//! sequence number, how many addresses it has, and the addresses. The monitor alone writes. The
//! sequence is odd while it does, and a reader that has seen another number before than after has
//! read nothing. A word in the header counts what was published, so that a worker sees without
//! looking at slots whether there is news.
//!
//! What is known stays when the monitor dies. If it dies while it writes, its successor finds an odd
//! sequence, and the slot has nothing until it writes again: workers go on with what they have.
//!
//! [`identity`]: crate::upstream::names::identity

use super::{Zone, MONITOR, NAMES, NAMES_AT};
use crate::config::relay::names::Place;
use crate::upstream::names::{decode, encode, MOST, WORDS};
use std::sync::atomic::Ordering::SeqCst;

/// The most names.
pub const SLOTS: usize = 256;
/// Words of a slot before its addresses: its identity, its sequence, how many addresses it has.
const IDENTITY: usize = 0;
const SEQUENCE: usize = 1;
const COUNT: usize = 2;
const PLACES: usize = 8;
/// Words of a slot.
const SLOT: usize = 4096;
const _: () = assert!(PLACES + MOST * WORDS <= SLOT);
/// How many words all of it has.
pub(super) const SIZE: usize = SLOTS * SLOT;

/// What was published for a name, as far as it is sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Which edition it is; another number means that there may be news.
    pub edition: u64,
    /// The addresses.
    pub places: Vec<Place>,
}

impl Zone {
    /// Counts what was published; always 0 in a zone that is not shared.
    #[inline]
    pub fn editions(&self) -> u64 {
        self.words[NAMES].load(SeqCst)
    }

    /// What was published for a name. `None`: nothing, or it is being written at this moment.
    pub fn published(&self, identity: u64) -> Option<Published> {
        let slot = self.slot_of(identity)?;
        let edition = self.words[slot + SEQUENCE].load(SeqCst);
        let count = self.words[slot + COUNT].load(SeqCst);
        if edition & 1 == 1 || edition == 0 || count == 0 || count > MOST as u64 {
            return None;
        }
        let word = |place: usize| self.words[slot + PLACES + place].load(SeqCst);
        let places = (0..count as usize).map(|n| [0, 1, 2, 3].map(|at| word(n * WORDS + at)));
        // One that is none spoils all: whoever has written it is not to be believed.
        let places = places.map(decode).collect::<Option<Vec<Place>>>()?;
        let unchanged = self.words[slot + SEQUENCE].load(SeqCst) == edition
            && self.words[slot + IDENTITY].load(SeqCst) == identity;
        unchanged.then_some(Published { edition, places })
    }

    /// The edition of what was published for a name, which need not be readable.
    pub fn edition(&self, identity: u64) -> u64 {
        self.slot_of(identity).map_or(0, |slot| self.words[slot + SEQUENCE].load(SeqCst))
    }

    /// Publishes the addresses of a name; no more than [`MOST`] are. False if there is no slot for
    /// it. For the monitor only.
    pub fn publish(&self, identity: u64, places: &[Place]) -> bool {
        debug_assert!(self.slot == MONITOR);
        let Some(slot) = self.slot_of(identity).or_else(|| self.slot_of(0)) else {
            return false;
        };
        let sequence = &self.words[slot + SEQUENCE];
        let before = sequence.load(SeqCst) | 1;
        sequence.store(before, SeqCst);
        self.words[slot + IDENTITY].store(identity, SeqCst);
        let places = &places[..places.len().min(MOST)];
        for (number, place) in places.iter().enumerate() {
            for (at, word) in encode(place).into_iter().enumerate() {
                self.words[slot + PLACES + number * WORDS + at].store(word, SeqCst);
            }
        }
        self.words[slot + COUNT].store(places.len() as u64, SeqCst);
        // Never 0 again, which says that nothing was ever published.
        sequence.store(before.wrapping_add(1).max(2), SeqCst);
        self.words[NAMES].fetch_add(1, SeqCst);
        true
    }

    /// A new monitor starts, for these names: the slots of others are free. For the monitor only.
    pub fn keep_names(&self, identities: &[u64]) {
        if self.slots == 1 {
            return;
        }
        for slot in (0..SLOTS).map(|slot| NAMES_AT + slot * SLOT) {
            if !identities.contains(&self.words[slot + IDENTITY].load(SeqCst)) {
                self.words[slot + IDENTITY].store(0, SeqCst);
            }
        }
    }

    /// Where the slot of a name begins; of 0, one that is free.
    fn slot_of(&self, identity: u64) -> Option<usize> {
        if self.slots == 1 {
            return None;
        }
        let mut slots = (0..SLOTS).map(|slot| NAMES_AT + slot * SLOT);
        slots.find(|slot| self.words[slot + IDENTITY].load(SeqCst) == identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(count: u32) -> Vec<Place> {
        let address = |n: u32| ([10, 0, (n >> 8) as u8, n as u8], 80);
        (0..count).map(|n| Place { weight: n, ..Place::new(address(n).into()) }).collect()
    }

    #[test]
    fn workers_read_what_the_monitor_publishes() {
        let (broker, fd) = Zone::create().expect("memory");
        let worker = Zone::join(&fd, 0).expect("a place");
        let monitor = Zone::monitor(&fd).expect("the monitor's place");
        assert_eq!((worker.published(7), worker.editions()), (None, 0));
        for count in [3, 1000, 1200, 1] {
            let before = worker.editions();
            assert!(monitor.publish(7, &places(count)));
            let published = worker.published(7).expect("addresses");
            assert_eq!(published.places, places(count.min(1000)));
            assert_ne!(worker.editions(), before);
        }
        // The next monitor finds it, and frees what nobody wants any more.
        broker.clear_monitor();
        let monitor = Zone::monitor(&fd).expect("the monitor's place");
        assert!(monitor.publish(8, &places(2)));
        monitor.keep_names(&[7, 9]);
        assert_eq!(worker.published(7).map(|published| published.places), Some(places(1)));
        assert_eq!(worker.published(8), None);
        // A zone of this process alone has none.
        assert_eq!((Zone::own(1).published(7), Zone::own(1).editions()), (None, 0));
    }

    #[test]
    fn slots_run_out() {
        let (_broker, fd) = Zone::create().expect("memory");
        let monitor = Zone::monitor(&fd).expect("the monitor's place");
        for name in 1..=SLOTS as u64 {
            assert!(monitor.publish(name, &places(1)));
        }
        assert!(!monitor.publish(1000, &places(1)) && monitor.publish(5, &places(2)));
    }

    #[test]
    fn what_is_half_written_or_nonsense_is_not_read() {
        let (_broker, fd) = Zone::create().expect("memory");
        let monitor = Zone::monitor(&fd).expect("the monitor's place");
        assert!(monitor.publish(7, &places(3)));
        let slot = monitor.slot_of(7).expect("its slot");
        let edition = monitor.words[slot + SEQUENCE].load(SeqCst);
        monitor.words[slot + SEQUENCE].store(edition + 1, SeqCst);
        assert_eq!(monitor.published(7), None);
        assert!(monitor.publish(7, &places(3)) && monitor.published(7).is_some());
        for (word, nonsense) in
            [(COUNT, 1001), (COUNT, u64::MAX), (PLACES + 2, 0), (PLACES + 3, 1 << 16)]
        {
            assert!(monitor.publish(7, &places(3)));
            monitor.words[slot + word].store(nonsense, SeqCst);
            assert_eq!(monitor.published(7), None, "{word} {nonsense}");
        }
    }
}
