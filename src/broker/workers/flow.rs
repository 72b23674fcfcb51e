//! How a worker reads its channel.

use crate::os::channel::{self, Unread};

/// After so long without being read, what is in a channel goes to others, in milliseconds.
const OVERDUE: u64 = 1000;
/// A worker is not complained of more often than this.
const QUIET: u64 = 60_000;

/// What was sent to a worker, and how it reads that.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Messages sent, and how many of them it is known to have read.
    sent: u64,
    read: u64,
    /// Since when something is unread, and nothing has been read.
    unread_since: Option<u64>,
    /// Since when it has been given up on.
    stalled_since: Option<u64>,
    /// All but the probe was taken back.
    emptied: bool,
    /// When that was last logged, and whether it was this time.
    complained: Option<u64>,
    told: bool,
}

/// What a look at a channel has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// There is nothing to wait for.
    Idle,
    /// The worker reads, or has not had the time to.
    Fair,
    /// It has not read anything for too long.
    Overdue,
}

impl Flow {
    /// That of a channel which is new here, with so much unread.
    pub(super) fn with(unread: Unread, now: u64) -> Flow {
        let mut flow = Flow::default();
        match unread {
            Unread::Nothing => return flow,
            Unread::Something => flow.sent = 1,
            Unread::Messages(count) => flow.sent = count as u64,
        }
        flow.unread_since = Some(now);
        flow
    }

    pub(super) fn look(&mut self, unread: Unread, now: u64) -> Pace {
        let left = match unread {
            Unread::Nothing => {
                self.read = self.sent;
                self.unread_since = None;
                return Pace::Idle;
            }
            Unread::Messages(count) => count as u64,
            // How many is not known: any of them may be the last.
            Unread::Something => self.sent.saturating_sub(self.read),
        };
        let read = self.sent.saturating_sub(left);
        if read > self.read {
            self.read = read;
            self.unread_since = Some(now);
        }
        let since = *self.unread_since.get_or_insert(now);
        if now.saturating_sub(since) >= OVERDUE {
            Pace::Overdue
        } else {
            Pace::Fair
        }
    }

    /// The worker has said something: it is alive.
    pub(super) fn heard(&mut self, now: u64) {
        if self.unread_since.is_some() && !channel::COUNTS_UNREAD {
            self.unread_since = Some(now);
        }
    }

    /// It was sent something.
    pub(super) fn sent(&mut self, now: u64) {
        self.sent += 1;
        self.unread_since.get_or_insert(now);
    }

    /// It has read something.
    pub(super) fn has_read(&self) -> bool {
        self.read > 0
    }

    /// There is something unread, or it has been given up on.
    pub(super) fn is_waited_for(&self) -> bool {
        self.unread_since.is_some() || self.stalled_since.is_some()
    }

    /// Since when it has been given up on.
    pub(super) fn stalled_since(&self) -> Option<u64> {
        self.stalled_since
    }

    /// It is given up on, until it reads again. True if that is to be logged.
    pub(super) fn stall(&mut self, now: u64) -> bool {
        self.stalled_since = Some(now);
        self.told = self.complained.is_none_or(|last| now - last >= QUIET);
        if self.told {
            self.complained = Some(now);
        }
        self.told
    }

    /// It reads again. True if that is to be logged.
    pub(super) fn revive(&mut self) -> bool {
        self.stalled_since = None;
        self.emptied = false;
        self.told
    }

    /// All was taken back, and one message put in its place: when that is read, the worker is back.
    pub(super) fn emptied(&mut self) {
        (self.sent, self.read, self.emptied) = (1, 0, true);
    }

    /// All was taken back.
    pub(super) fn is_emptied(&self) -> bool {
        self.emptied
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_overdue_when_nothing_is_read() {
        let mut flow = Flow { sent: 5, unread_since: Some(0), ..Flow::default() };
        assert_eq!(flow.look(Unread::Messages(5), 900), Pace::Fair);
        assert_eq!(flow.look(Unread::Messages(5), 1000), Pace::Overdue);
        // One was read; as many come as are read.
        assert_eq!(flow.look(Unread::Messages(4), 1250), Pace::Fair);
        flow.sent += 3;
        assert_eq!(flow.look(Unread::Messages(4), 2200), Pace::Fair);
        assert_eq!(flow.look(Unread::Messages(4), 3100), Pace::Fair);
        assert_eq!(flow.look(Unread::Messages(4), 3200), Pace::Overdue);
        assert_eq!(flow.look(Unread::Nothing, 3300), Pace::Idle);
        assert_eq!(flow.unread_since, None);
    }

    #[test]
    fn where_messages_are_not_counted_time_alone_tells() {
        let mut flow = Flow { sent: 5, unread_since: Some(0), ..Flow::default() };
        flow.sent += 2;
        assert_eq!(flow.look(Unread::Something, 900), Pace::Fair);
        flow.sent += 2;
        assert_eq!(flow.look(Unread::Something, 1000), Pace::Overdue);
    }
}
