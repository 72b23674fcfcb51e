//! The OCSP responses of our certificates, which the monitor fetches and workers staple.
//!
//! Behind the letters, in the same memory, there is a slot for each certificate: its digest, a
//! sequence number, the length of the response, and elsewhere the response. As with the addresses of
//! names the monitor alone writes, the sequence is odd while it does, and a word in the header counts
//! what was published. What is read here is bytes: a worker verifies them before it uses them.
//!
//! What is known stays when the monitor dies, and over a reload, so that new workers have it at once.

use super::{Zone, MONITOR, STAPLES, STAPLES_AT};
use std::sync::atomic::Ordering::SeqCst;

/// The most certificates.
pub const SLOTS: usize = 256;
/// The most bytes of a response.
pub const MOST: usize = 8 * RESPONSE;
/// Words of a slot: the digest of its certificate, the sequence, the length of the response.
const DIGEST: usize = 0;
const SEQUENCE: usize = 4;
const LENGTH: usize = 5;
const SLOT: usize = 8;
/// Words of a response. Most are never touched, and take no memory: so they are behind the slots.
const RESPONSE: usize = 2048;
/// How many words all of it has.
pub(super) const SIZE: usize = SLOTS * (SLOT + RESPONSE);

/// The SHA-256 of a certificate, by which it is known.
pub type Digest = [u8; 32];

/// What was published for a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staple {
    /// Which edition it is; another number means that there may be news.
    pub edition: u64,
    /// The response, as far as it can be believed: not at all.
    pub response: Vec<u8>,
}

impl Zone {
    /// Counts what was published; always 0 in a zone that is not shared.
    #[inline]
    pub fn staple_editions(&self) -> u64 {
        self.words[STAPLES].load(SeqCst)
    }

    /// What was published for a certificate. `None`: nothing, or it is being written at this moment.
    pub fn staple(&self, certificate: &Digest) -> Option<Staple> {
        let slot = self.staple_slot(&words_of(certificate))?;
        let edition = self.words[slot + SEQUENCE].load(SeqCst);
        let length = usize::try_from(self.words[slot + LENGTH].load(SeqCst)).ok()?;
        if edition & 1 == 1 || edition == 0 || length == 0 || length > MOST {
            return None;
        }
        let words = &self.words[response_of(slot)..][..length.div_ceil(8)];
        let mut response: Vec<u8> =
            words.iter().flat_map(|word| word.load(SeqCst).to_ne_bytes()).collect();
        response.truncate(length);
        let unchanged = self.words[slot + SEQUENCE].load(SeqCst) == edition
            && self.digest_in(slot) == words_of(certificate);
        unchanged.then_some(Staple { edition, response })
    }

    /// The edition of what was published for a certificate, which need not be readable.
    pub fn staple_edition(&self, certificate: &Digest) -> u64 {
        let slot = self.staple_slot(&words_of(certificate));
        slot.map_or(0, |slot| self.words[slot + SEQUENCE].load(SeqCst))
    }

    /// Publishes the response for a certificate. False if it is too long, or if there is no slot for
    /// it. For the monitor only.
    pub fn publish_staple(&self, certificate: &Digest, response: &[u8]) -> bool {
        debug_assert!(self.slot == MONITOR);
        let digest = words_of(certificate);
        let slot = self.staple_slot(&digest).or_else(|| self.staple_slot(&[0; 4]));
        let Some(slot) = slot.filter(|_| response.len() <= MOST) else {
            return false;
        };
        let sequence = &self.words[slot + SEQUENCE];
        let before = sequence.load(SeqCst) | 1;
        sequence.store(before, SeqCst);
        for (word, value) in self.words[slot + DIGEST..].iter().zip(digest) {
            word.store(value, SeqCst);
        }
        for (word, bytes) in self.words[response_of(slot)..].iter().zip(response.chunks(8)) {
            let mut value = [0; 8];
            value[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(value), SeqCst);
        }
        self.words[slot + LENGTH].store(response.len() as u64, SeqCst);
        // Never 0 again, which says that nothing was ever published.
        sequence.store(before.wrapping_add(1).max(2), SeqCst);
        self.words[STAPLES].fetch_add(1, SeqCst);
        true
    }

    /// A new monitor starts, for these certificates: the slots of others are free. For the monitor
    /// only.
    pub fn keep_staples(&self, certificates: &[Digest]) {
        if self.slots == 1 {
            return;
        }
        let known: Vec<[u64; 4]> = certificates.iter().map(words_of).collect();
        for slot in slots() {
            if !known.contains(&self.digest_in(slot)) {
                self.words[slot + DIGEST..][..4].iter().for_each(|word| word.store(0, SeqCst));
            }
        }
    }

    /// Takes over all responses from the zone of a former image.
    pub fn inherit_staples(&self, former: &Zone) {
        let copy = |at: usize, count: usize| {
            for (ours, theirs) in self.words[at..][..count].iter().zip(&former.words[at..]) {
                ours.store(theirs.load(SeqCst), SeqCst);
            }
        };
        for slot in slots() {
            if former.words[slot + SEQUENCE].load(SeqCst) != 0 {
                copy(slot, SLOT);
                copy(response_of(slot), RESPONSE);
            }
        }
        self.words[STAPLES].fetch_add(1, SeqCst);
    }

    fn digest_in(&self, slot: usize) -> [u64; 4] {
        [0, 1, 2, 3].map(|at| self.words[slot + DIGEST + at].load(SeqCst))
    }

    /// Where the slot of a certificate begins; of zeroes, one that is free.
    fn staple_slot(&self, digest: &[u64; 4]) -> Option<usize> {
        if self.slots == 1 {
            return None;
        }
        slots().find(|&slot| self.digest_in(slot) == *digest)
    }
}

/// Where the slots begin.
fn slots() -> impl Iterator<Item = usize> {
    (0..SLOTS).map(|slot| STAPLES_AT + slot * SLOT)
}

/// Where the response of a slot begins.
fn response_of(slot: usize) -> usize {
    STAPLES_AT + SLOTS * SLOT + (slot - STAPLES_AT) / SLOT * RESPONSE
}

fn words_of(digest: &Digest) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(digest.as_chunks::<8>().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_read_what_the_monitor_publishes() {
        let (broker, fd) = Zone::create().expect("memory");
        let worker = Zone::join(&fd, 0).expect("a place");
        let monitor = Zone::monitor(&fd).expect("the monitor's place");
        let (one, other) = ([7; 32], [8; 32]);
        assert_eq!((worker.staple(&one), worker.staple_editions()), (None, 0));
        for length in [1, 8, 471, MOST] {
            let (before, response) = (worker.staple_editions(), vec![length as u8; length]);
            assert!(monitor.publish_staple(&one, &response));
            let staple = worker.staple(&one).expect("a response");
            assert_eq!(staple.response, response);
            assert_eq!(staple.edition, worker.staple_edition(&one));
            assert_ne!(worker.staple_editions(), before);
        }
        assert!(!monitor.publish_staple(&one, &[0; MOST + 1]));
        // The next monitor finds it, and frees what nobody wants any more.
        broker.clear_monitor();
        let monitor = Zone::monitor(&fd).expect("the monitor's place");
        assert!(monitor.publish_staple(&other, b"other"));
        monitor.keep_staples(&[one]);
        assert!(worker.staple(&one).is_some() && worker.staple(&other).is_none());
        // So does the zone of the next image.
        let (next, _object) = Zone::create().expect("memory");
        next.inherit_staples(&broker);
        assert_eq!(next.staple(&one), worker.staple(&one));
        // A zone of this process alone has none.
        assert_eq!((Zone::own(1).staple(&one), Zone::own(1).staple_editions()), (None, 0));
    }

    #[test]
    fn slots_run_out() {
        let (_broker, fd) = Zone::create().expect("memory");
        let monitor = Zone::monitor(&fd).expect("the monitor's place");
        let digest = |number: usize| [[1; 28].as_slice(), &(number as u32).to_ne_bytes()].concat();
        let digest = |number| Digest::try_from(digest(number)).expect("32 bytes");
        for number in 0..SLOTS {
            assert!(monitor.publish_staple(&digest(number), b"x"));
        }
        assert!(!monitor.publish_staple(&digest(SLOTS), b"x"));
        assert!(monitor.publish_staple(&digest(5), b"y"));
    }

    #[test]
    fn what_is_half_written_or_nonsense_is_not_read() {
        let (_broker, fd) = Zone::create().expect("memory");
        let monitor = Zone::monitor(&fd).expect("the monitor's place");
        let one = [7; 32];
        assert!(monitor.publish_staple(&one, b"response"));
        let slot = monitor.staple_slot(&words_of(&one)).expect("its slot");
        monitor.words[slot + SEQUENCE].fetch_add(1, SeqCst);
        assert_eq!(monitor.staple(&one), None);
        assert!(monitor.publish_staple(&one, b"response") && monitor.staple(&one).is_some());
        for length in [0, MOST as u64 + 1, u64::MAX] {
            monitor.words[slot + LENGTH].store(length, SeqCst);
            assert_eq!(monitor.staple(&one), None, "{length}");
        }
    }
}
