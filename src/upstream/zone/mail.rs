//! Letters between monitor and workers: which sessions there are, and that one is to end. Behind the
//! notes, in the same memory, a box for each worker.
//!
//! The monitor writes an order, and its number last. A worker looks into its box once a second as
//! long as it has sessions; it writes the answer, and then the number of the order. So neither waits
//! for the other, and nothing is sent. Whatever a rogue process writes is a number, or text that is
//! cut to its length.

use super::counters::{Counters, Role};
use super::{Zone, SLOTS};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// The most sessions that a worker lists.
pub const MOST: usize = 8192;

/// Words of a box: the number of the order; its kind, and what it is about; the number of the order
/// that was answered; how many sessions there are, or were ended; how many are listed.
const ORDER: usize = 0;
const KIND: usize = 1;
const INDEX: usize = 2;
const BEGUN: usize = 3;
const ANSWERED: usize = 8;
const COUNT: usize = 9;
const LISTED: usize = 10;
const HEAD: usize = 64;

/// Words of a session in a list: numbers as in [`Listed`], the lengths of its texts, the texts.
const NUMBERS: usize = 8;
const TEXTS: usize = NUMBERS;
const ROW: usize = 32;
/// The stage is above the lengths of the texts, each of which takes a byte.
const STAGE: u32 = 32;
/// Room for the texts: client, listener and remote, in bytes.
const ROOM: [usize; 3] = [56, 56, 80];
const _: () = assert!(TEXTS * 8 + ROOM[0] + ROOM[1] + ROOM[2] == ROW * 8);

/// Words of a box.
const BOX: usize = HEAD + MOST * ROW;
/// How many words all of it has. Most are never touched, and take no memory.
pub(super) const SIZE: usize = SLOTS * BOX;

/// What comes first in a list that is too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The oldest.
    #[default]
    Age,
    /// The longest without traffic.
    Idle,
    /// The one with the most bytes.
    Bytes,
}

/// What a worker is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Letter {
    /// List sessions.
    List(Order),
    /// End the session with this number and beginning, if it is still there.
    End {
        /// Its number in the worker.
        index: u32,
        /// When it has begun, in milliseconds of the worker's clock.
        begun: u64,
    },
}

/// How far a session is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Its client is still introducing itself.
    #[default]
    Handshake,
    /// Modules are asked about its client.
    Authorizing,
    /// It waits for a remote.
    Waiting,
    /// It is being connected to a remote.
    Connecting,
    /// It is relayed.
    Relaying,
    /// It ends.
    Closing,
}

impl Stage {
    const ALL: [Stage; 6] = [
        Stage::Handshake,
        Stage::Authorizing,
        Stage::Waiting,
        Stage::Connecting,
        Stage::Relaying,
        Stage::Closing,
    ];

    /// As a word.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Handshake => "handshake",
            Stage::Authorizing => "authorizing",
            Stage::Waiting => "waiting",
            Stage::Connecting => "connecting",
            Stage::Relaying => "relaying",
            Stage::Closing => "closing",
        }
    }
}

/// A session in a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Its number in the worker.
    pub index: u32,
    /// When it has begun, in milliseconds of its worker's clock.
    pub begun: u64,
    /// How long ago that was, and how long ago its last byte moved, in milliseconds.
    pub age: u64,
    /// See `age`.
    pub idle: u64,
    /// Bytes that it has carried, up and down.
    pub bytes: [u64; 2],
    /// How far it is.
    pub stage: Stage,
    /// The row of its remote in the zone.
    pub row: Option<usize>,
    /// The addresses of client, listener and remote, as far as they are known.
    pub texts: [String; 3],
}

fn write_text(words: &[AtomicU64], text: &str, room: usize) -> u64 {
    let end = (0..=room.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    let text = &text.as_bytes()[..end.unwrap_or(0)];
    for (word, bytes) in words.iter().zip(text.chunks(8)) {
        let mut padded = [0; 8];
        padded[..bytes.len()].copy_from_slice(bytes);
        word.store(u64::from_ne_bytes(padded), Relaxed);
    }
    text.len() as u64
}

fn read_text(words: &[AtomicU64], length: u64, room: usize) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.load(Relaxed).to_ne_bytes()).collect();
    let length = usize::try_from(length).unwrap_or(0).min(room).min(bytes.len());
    let text = String::from_utf8_lossy(&bytes[..length]);
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

impl Listed {
    fn write(&self, row: &[AtomicU64]) {
        let stage = Stage::ALL.iter().position(|&stage| stage == self.stage).unwrap_or(0);
        let (mut lengths, mut start) = (0, TEXTS);
        for (place, (text, room)) in self.texts.iter().zip(ROOM).enumerate() {
            lengths |= write_text(&row[start..start + room / 8], text, room) << (8 * place);
            start += room / 8;
        }
        let numbers: [u64; NUMBERS] = [
            self.index.into(),
            self.begun,
            self.age,
            self.idle,
            self.bytes[0],
            self.bytes[1],
            self.row.map_or(0, |row| row as u64 + 1),
            (stage as u64) << STAGE | lengths,
        ];
        for (word, number) in row.iter().zip(numbers) {
            word.store(number, Relaxed);
        }
    }

    fn read(row: &[AtomicU64]) -> Listed {
        let numbers: [u64; NUMBERS] = std::array::from_fn(|place| row[place].load(Relaxed));
        let [index, begun, age, idle, up, down, remote, lengths] = numbers;
        let stage = lengths >> STAGE;
        let mut start = TEXTS;
        let texts = std::array::from_fn(|place| {
            let (room, from) = (ROOM[place], start);
            start += room / 8;
            read_text(&row[from..start], (lengths >> (8 * place)) & 0xff, room)
        });
        Listed {
            index: index as u32,
            begun,
            age,
            idle,
            bytes: [up, down],
            stage: Stage::ALL[(stage as usize).min(Stage::ALL.len() - 1)],
            row: remote.checked_sub(1).map(|row| row as usize),
            texts,
        }
    }
}

/// The box of a worker, as the worker sees it.
pub struct Inbox<'a>(&'a [AtomicU64]);

impl Counters {
    /// The box of this worker.
    pub fn inbox(&self) -> Option<Inbox<'_>> {
        let (words, row) = self.words_of_row()?;
        let start = super::MAIL + row * BOX;
        (row < SLOTS).then(|| Inbox(&words[start..start + BOX]))
    }
}

impl Inbox<'_> {
    /// What the monitor wants, if there is anything new, with its number.
    pub fn letter(&self) -> Option<(u64, Letter)> {
        let number = self.0[ORDER].load(Acquire);
        if number == self.0[ANSWERED].load(Relaxed) {
            return None;
        }
        let letter = match self.0[KIND].load(Relaxed) {
            0 => Letter::List(Order::Age),
            1 => Letter::List(Order::Idle),
            2 => Letter::List(Order::Bytes),
            _ => Letter::End {
                index: self.0[INDEX].load(Relaxed) as u32,
                begun: self.0[BEGUN].load(Relaxed),
            },
        };
        Some((number, letter))
    }

    /// Answers a letter: how many sessions there are, or were ended, and a list of at most [`MOST`].
    pub fn answer(&self, number: u64, count: usize, list: impl Iterator<Item = Listed>) {
        let mut listed = 0;
        for (session, row) in list.zip(self.0[HEAD..].chunks_exact(ROW)) {
            session.write(row);
            listed += 1;
        }
        self.0[COUNT].store(count as u64, Relaxed);
        self.0[LISTED].store(listed, Relaxed);
        self.0[ANSWERED].store(number, Release);
    }
}

/// For the monitor.
impl Zone {
    fn mailbox(&self, slot: usize) -> Option<&[AtomicU64]> {
        let start = |slot: usize| super::MAIL + slot * BOX;
        (self.slots > 1 && slot < SLOTS).then(|| &self.words[start(slot)..start(slot + 1)])
    }

    /// Puts a letter into the box of a worker; returns its number.
    pub fn post(&self, slot: usize, letter: Letter) -> u64 {
        let Some(mailbox) = self.mailbox(slot) else {
            return 0;
        };
        let (kind, index, begun) = match letter {
            Letter::List(Order::Age) => (0, 0, 0),
            Letter::List(Order::Idle) => (1, 0, 0),
            Letter::List(Order::Bytes) => (2, 0, 0),
            Letter::End { index, begun } => (3, index.into(), begun),
        };
        for (place, word) in [(KIND, kind), (INDEX, index), (BEGUN, begun)] {
            mailbox[place].store(word, Relaxed);
        }
        let number = mailbox[ORDER].load(Relaxed).wrapping_add(1);
        mailbox[ORDER].store(number, Release);
        number
    }

    /// The count in the answer to a letter; `None` if it was not answered yet.
    pub fn answered(&self, slot: usize, number: u64) -> Option<u64> {
        let mailbox = self.mailbox(slot)?;
        (mailbox[ANSWERED].load(Acquire) == number).then(|| mailbox[COUNT].load(Relaxed))
    }

    /// The list in the last answer of a worker.
    pub fn listed(&self, slot: usize) -> Vec<Listed> {
        let Some(mailbox) = self.mailbox(slot) else {
            return Vec::new();
        };
        let count = usize::try_from(mailbox[LISTED].load(Relaxed)).unwrap_or(0).min(MOST);
        mailbox[HEAD..].chunks_exact(ROW).take(count).map(Listed::read).collect()
    }

    /// The slots of the workers that take part, with their ids and how many sessions they have.
    pub fn workers(&self) -> Vec<(usize, u64, u64)> {
        let workers = self.members().into_iter().filter(|member| member.role == Role::Worker);
        workers.map(|member| (member.slot, member.pid, member.open)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::zone::Zone;

    #[test]
    fn a_letter_is_answered_once() {
        let (_broker, fd) = Zone::create().expect("memory");
        let counters = Counters::of_worker(&fd, 3, 77).expect("a row");
        let monitor = Zone::monitor(&fd).expect("the monitor's place");
        let inbox = counters.inbox().expect("a box");
        assert!(inbox.letter().is_none());
        let number = monitor.post(3, Letter::List(Order::Bytes));
        assert_eq!(monitor.answered(3, number), None);
        assert_eq!(inbox.letter(), Some((number, Letter::List(Order::Bytes))));
        let session = |index: u32| Listed {
            index,
            begun: 5,
            age: 60,
            idle: 6,
            bytes: [7, 8],
            stage: Stage::Relaying,
            row: Some(9),
            texts: ["[192.0.2.1]:5".to_owned(), "x".repeat(100), String::new()],
        };
        inbox.answer(number, 2, (0..2).map(session));
        assert!(inbox.letter().is_none());
        assert_eq!(monitor.answered(3, number), Some(2));
        let list = monitor.listed(3);
        assert_eq!(list[1].texts[1].len(), ROOM[1]);
        let cut = |mut session: Listed| {
            session.texts[1].truncate(ROOM[1]);
            session
        };
        assert_eq!(list, [cut(session(0)), cut(session(1))]);
        assert_eq!(monitor.workers(), [(3, 77, 0)]);
        let end = Letter::End { index: 4, begun: u64::MAX };
        let number = monitor.post(3, end);
        assert_eq!(inbox.letter(), Some((number, end)));
    }

    #[test]
    fn nonsense_in_a_box_is_survived() {
        let (broker, fd) = Zone::create().expect("memory");
        let counters = Counters::of_worker(&fd, 0, 77).expect("a row");
        for word in 0..BOX {
            broker.words[crate::upstream::zone::MAIL + word].store(u64::MAX, Relaxed);
        }
        assert_eq!(broker.listed(0).len(), MOST);
        broker.words[crate::upstream::zone::MAIL + ANSWERED].store(0, Relaxed);
        assert!(counters.inbox().expect("a box").letter().is_some());
        assert_eq!(
            (broker.post(SLOTS, Letter::List(Order::Age)), broker.answered(SLOTS, 0)),
            (0, None)
        );
        assert!(broker.listed(usize::MAX - 1).is_empty());
    }
}
