//! A bounded queue of lines that wait until they can be written.

use std::collections::VecDeque;

/// How many bytes may wait. The last line may exceed it.
const ROOM: usize = 128 * 1024;

/// The first and the longest pause between two tries, in milliseconds.
const FIRST_PAUSE: u64 = 10;
const LONGEST_PAUSE: u64 = 1000;

/// The result of trying to write a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// All of it is written, or nobody will ever read it.
    Whole,
    /// This many of its first bytes are written; no more can be written now.
    Part(usize),
    /// There is no reader at the moment; the line is lost.
    Lost,
}

/// Lines in the order in which they will be written.
///
/// A line that does not fit is counted, and so is every later one until the queue is empty and the
/// count has been written. So the log stays in order, and shows where lines are missing.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// How many bytes of the first line are written.
    written: usize,
    dropped: u64,
    pause: u64,
    /// When to try again, if lines wait.
    next: Option<u64>,
}

impl Queue {
    pub(super) const fn new() -> Queue {
        Queue { lines: VecDeque::new(), bytes: 0, written: 0, dropped: 0, pause: 0, next: None }
    }

    /// Queues a line and writes what can be written. `note` makes the line that reports how many
    /// are missing.
    pub(super) fn push(
        &mut self,
        line: Vec<u8>,
        now: u64,
        write: &mut impl FnMut(&[u8]) -> Written,
        note: impl FnOnce(u64) -> Vec<u8>,
    ) {
        // The reader may be back, and only trying shows that.
        if !self.lines.is_empty() || self.dropped > 0 {
            self.advance(now, write, note);
        }
        if self.dropped > 0 || self.bytes > ROOM {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        self.bytes += line.len();
        self.lines.push_back(line);
        if self.lines.len() == 1 {
            self.write(now, write);
        }
    }

    /// Writes as much as possible of what waits, then reports how many lines are missing.
    pub(super) fn advance(
        &mut self,
        now: u64,
        write: &mut impl FnMut(&[u8]) -> Written,
        note: impl FnOnce(u64) -> Vec<u8>,
    ) {
        self.next = None;
        self.write(now, write);
        if self.dropped > 0 && self.lines.is_empty() {
            let note = note(self.dropped);
            match write(&note) {
                Written::Whole => self.dropped = 0,
                Written::Part(0) => self.wait(now),
                // The next line will show whether there is a reader again.
                Written::Lost => {}
                Written::Part(written) => {
                    self.dropped = 0;
                    (self.bytes, self.written) = (note.len(), written);
                    self.lines.push_back(note);
                    self.wait(now);
                }
            }
        }
    }

    fn write(&mut self, now: u64, write: &mut impl FnMut(&[u8]) -> Written) {
        while let Some(line) = self.lines.front() {
            match write(&line[self.written..]) {
                Written::Whole => {}
                Written::Part(written) => {
                    self.written += written;
                    if written > 0 {
                        self.pause = 0;
                    }
                    return self.wait(now);
                }
                Written::Lost => self.dropped = self.dropped.saturating_add(1),
            }
            self.bytes -= line.len();
            self.lines.pop_front();
            (self.written, self.pause) = (0, 0);
        }
        self.lines.shrink_to(16);
    }

    fn wait(&mut self, now: u64) {
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.next = Some(now.saturating_add(self.pause));
    }

    /// When to [advance](Self::advance) next, if lines wait.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.next
    }

    /// How many lines are missing if none of those that wait is written any more.
    pub(super) fn lost(&self) -> u64 {
        self.dropped.saturating_add(self.lines.len() as u64)
    }

    /// Starts with this many lines already missing.
    pub(super) fn begin_with(&mut self, dropped: u64) {
        self.dropped = dropped;
    }

    /// True if lines wait.
    pub(super) fn waits(&self) -> bool {
        !self.lines.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that takes `room` bytes.
    struct Reader {
        room: usize,
        seen: Vec<u8>,
    }

    impl Reader {
        fn take(&mut self, bytes: &[u8]) -> Written {
            let taken = bytes.len().min(self.room);
            self.room -= taken;
            self.seen.extend_from_slice(&bytes[..taken]);
            if taken == bytes.len() {
                Written::Whole
            } else {
                Written::Part(taken)
            }
        }

        fn text(&self) -> &str {
            std::str::from_utf8(&self.seen).expect("text")
        }
    }

    fn note(count: u64) -> Vec<u8> {
        format!("{count} dropped\n").into_bytes()
    }

    #[test]
    fn lines_wait_for_their_reader_and_stay_whole() {
        let mut queue = Queue::new();
        let mut reader = Reader { room: 5, seen: Vec::new() };
        for line in ["one\n", "two\n", "three\n"] {
            queue.push(line.into(), 0, &mut |bytes| reader.take(bytes), note);
        }
        assert_eq!(reader.text(), "one\nt");
        assert_eq!(queue.deadline(), Some(FIRST_PAUSE * 2));
        reader.room = 100;
        queue.advance(10, &mut |bytes| reader.take(bytes), note);
        assert_eq!(reader.text(), "one\ntwo\nthree\n");
        assert_eq!(queue.deadline(), None);
    }

    #[test]
    fn what_finds_no_room_is_counted_and_said_in_its_place() {
        let mut queue = Queue::new();
        let mut reader = Reader { room: 0, seen: Vec::new() };
        let line = || vec![b'x'; 1024];
        for _ in 0..1000 {
            queue.push(line(), 0, &mut |bytes| reader.take(bytes), note);
        }
        assert!(queue.bytes <= ROOM + 1024);
        reader.room = usize::MAX;
        queue.push(b"last\n".to_vec(), 0, &mut |bytes| reader.take(bytes), note);
        let kept = ROOM / 1024 + 1;
        assert_eq!(reader.seen.iter().filter(|&&byte| byte == b'x').count(), kept * 1024);
        assert!(reader.text().ends_with(&format!("x{} dropped\nlast\n", 1000 - kept)));
    }

    #[test]
    fn what_nobody_is_there_for_is_counted_too() {
        let mut queue = Queue::new();
        for _ in 0..3 {
            queue.push(b"x\n".to_vec(), 0, &mut |_| Written::Lost, note);
        }
        assert_eq!((queue.waits(), queue.dropped), (false, 3));
        assert_eq!(queue.deadline(), None);
        let mut reader = Reader { room: 100, seen: Vec::new() };
        queue.push(b"y\n".to_vec(), 0, &mut |bytes| reader.take(bytes), note);
        assert_eq!(reader.text(), "3 dropped\ny\n");
    }

    #[test]
    fn pauses_grow_and_begin_anew() {
        let mut queue = Queue::new();
        queue.push(b"x\n".to_vec(), 0, &mut |_| Written::Part(0), note);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let now = queue.deadline().expect("something waits");
            queue.advance(now, &mut |_| Written::Part(0), note);
            pauses.push(queue.deadline().expect("something waits") - now);
        }
        assert_eq!(pauses, [20, 40, 80, 160, 320, 640, 1000, 1000, 1000]);
    }
}
