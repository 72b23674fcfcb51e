//! The last errors of each process, for the monitor to show. Behind the counters, in the same
//! memory: a ring of short texts for each process.
//!
//! Whatever a rogue process writes is text, cut to its length; a text that is read while it is
//! written may be a mixture of two.

use super::counters::{Role, ROWS};
use super::{Zone, BROKER, MONITOR, SLOTS};
use crate::os::process::Pid;
use crate::os::shared::{Object, Words};
use std::io;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Notes of a process.
const RING: usize = 8;
/// Words of a note: when it was made, in seconds of the wall clock, 0 while it is written; the
/// process; the length of its text; the text.
const TIME: usize = 0;
const PID: usize = 1;
const LENGTH: usize = 2;
const TEXT: usize = 3;
const NOTE: usize = 32;
/// The longest text.
const LONGEST: usize = (NOTE - TEXT) * 8;

/// How many words all of it has.
pub(super) const SIZE: usize = ROWS * RING * NOTE;

/// The notes of this process.
pub struct Notes {
    words: Words,
    start: usize,
    next: usize,
    pid: u64,
}

impl Notes {
    /// Those of a worker.
    pub fn of_worker(object: &Object, slot: usize, pid: Pid) -> io::Result<Notes> {
        if slot >= SLOTS {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Notes::map(object, slot, pid)
    }

    /// Those of the monitor.
    pub fn of_monitor(object: &Object, pid: Pid) -> io::Result<Notes> {
        Notes::map(object, MONITOR, pid)
    }

    /// Those of the broker.
    pub fn of_broker(object: &Object, pid: Pid) -> io::Result<Notes> {
        Notes::map(object, BROKER, pid)
    }

    fn map(object: &Object, row: usize, pid: Pid) -> io::Result<Notes> {
        let words = Words::map(object, super::SIZE)?;
        let start = super::NOTES + row * RING * NOTE;
        // Goes on after the newest, which may be another process's.
        let time = |note: usize| words[start + note * NOTE + TIME].load(Relaxed);
        let oldest = (0..RING).min_by_key(|&note| time(note)).unwrap_or(0);
        Ok(Notes { words, start, next: oldest, pid: u64::try_from(pid).unwrap_or(0) })
    }

    /// Adds a note, in the place of the oldest. `time` is in seconds of the wall clock.
    pub fn add(&mut self, time: u64, text: &str) {
        let start = self.start + self.next * NOTE;
        self.next = (self.next + 1) % RING;
        let end = (0..=LONGEST.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
        let text = &text.as_bytes()[..end.unwrap_or(0)];
        let words = &self.words[start..start + NOTE];
        words[TIME].store(0, Release);
        words[PID].store(self.pid, Relaxed);
        words[LENGTH].store(text.len() as u64, Relaxed);
        for (word, bytes) in words[TEXT..].iter().zip(text.chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(padded), Relaxed);
        }
        words[TIME].store(time.max(1), Release);
    }
}

/// An error that a process has logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// When, in seconds of the wall clock.
    pub time: u64,
    /// What the process is, or was.
    pub role: Role,
    /// Its id.
    pub pid: u64,
    /// What it has logged, without control characters.
    pub text: String,
}

impl Zone {
    /// The last errors of all processes, the newest first.
    pub fn notes(&self) -> Vec<Note> {
        if self.slots == 1 {
            return Vec::new();
        }
        let note = |index: usize| {
            let start = super::NOTES + index * NOTE;
            let words = &self.words[start..start + NOTE];
            let time = words[TIME].load(Acquire);
            let length = (words[LENGTH].load(Relaxed) as usize).min(LONGEST);
            let text: Vec<u8> =
                words[TEXT..].iter().flat_map(|word| word.load(Relaxed).to_ne_bytes()).collect();
            let text = String::from_utf8_lossy(&text[..length]);
            let text = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
            let role = Role::of(index / RING);
            (time != 0).then(|| Note { time, role, pid: words[PID].load(Relaxed), text })
        };
        let mut notes: Vec<Note> = (0..ROWS * RING).filter_map(note).collect();
        notes.sort_by_key(|note| std::cmp::Reverse(note.time));
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::SeqCst;

    #[test]
    fn the_last_notes_stay() {
        let (broker, fd) = Zone::create().expect("memory");
        let mut notes = Notes::of_worker(&fd, 2, 77).expect("a ring");
        for time in 1..=20 {
            notes.add(time, &format!("error {time}: {}", "é".repeat(200)));
        }
        let found = broker.notes();
        assert_eq!(found.len(), RING);
        assert_eq!((found[0].time, found[0].pid, found[0].role), (20, 77, Role::Worker));
        assert!(found[0].text.starts_with("error 20: éé") && found[0].text.len() <= LONGEST);
        // Another process goes on in the same ring.
        let mut next = Notes::of_worker(&fd, 2, 78).expect("a ring");
        next.add(21, "short\n");
        let found = broker.notes();
        assert_eq!((&*found[0].text, found[0].pid, found.len()), ("short?", 78, RING));
        assert_eq!(found[RING - 1].time, 14);
    }

    #[test]
    fn whatever_is_there_is_text() {
        let (broker, _fd) = Zone::create().expect("memory");
        for word in 0..SIZE {
            broker.words[super::super::NOTES + word].store(u64::MAX - word as u64, SeqCst);
        }
        assert_eq!(broker.notes().len(), ROWS * RING);
    }
}
