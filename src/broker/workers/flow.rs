//! How well a worker reads its channel.

use crate::os::channel::{self, Unread};

/// If a worker reads nothing for this long, its unread connections go to others. In milliseconds.
const OVERDUE: u64 = 1000;
/// Least time between two complaints about a worker, in milliseconds.
const QUIET: u64 = 60_000;

/// What was sent to a worker, and how far it has read.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Messages sent, and how many of them it is known to have read.
    sent: u64,
    read: u64,
    /// Since when there is something unread, without anything being read.
    unread_since: Option<u64>,
    /// Since when it has been stalled: it reads nothing, and gets no connections.
    stalled_since: Option<u64>,
    /// Messages were taken out, and no probe was put in their place yet.
    taken: bool,
    /// Everything but the probe was taken back.
    emptied: bool,
    /// When a stall was last logged, and whether the present one was.
    complained: Option<u64>,
    told: bool,
}

/// What a look at a channel shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Nothing is unread.
    Idle,
    /// Nothing is left, as the broker has taken it out: that says nothing about the worker.
    Emptied,
    /// The worker reads, or has not had enough time to.
    Fair,
    /// The worker has read nothing for too long.
    Overdue,
}

impl Flow {
    /// For a channel that is new to this broker, with `unread` in it.
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
            Unread::Nothing if self.taken => return Pace::Emptied,
            Unread::Nothing => {
                (self.read, self.unread_since, self.emptied) = (self.sent, None, false);
                return Pace::Idle;
            }
            Unread::Messages(count) => count as u64,
            // The number is not known: assume that nothing more was read.
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

    /// The worker has sent something: it is alive.
    pub(super) fn heard(&mut self, now: u64) {
        if self.unread_since.is_some() && !channel::COUNTS_UNREAD {
            self.unread_since = Some(now);
        }
    }

    /// A message was sent to it.
    pub(super) fn sent(&mut self, now: u64) {
        self.sent += 1;
        self.emptied = false;
        self.unread_since.get_or_insert(now);
    }

    /// True if it has read a message.
    pub(super) fn has_read(&self) -> bool {
        self.read > 0
    }

    /// True if it has to be watched: something is unread, or it is stalled.
    pub(super) fn is_waited_for(&self) -> bool {
        self.unread_since.is_some() || self.stalled_since.is_some()
    }

    /// Since when it has been stalled.
    pub(super) fn stalled_since(&self) -> Option<u64> {
        self.stalled_since
    }

    /// It is stalled from now on, until it reads again. True if that is to be logged.
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
        self.told
    }

    /// A message was taken out. The worker must not seem to have read it.
    pub(super) fn took(&mut self) {
        self.taken = true;
    }

    /// As [`took`](Self::took), for a message that was counted when it was [`sent`](Self::sent).
    pub(super) fn took_back(&mut self) {
        self.took();
        self.sent = self.sent.saturating_sub(1);
    }

    /// Everything was taken back, and a probe was put in its place. When the worker reads that, it
    /// is back.
    pub(super) fn emptied(&mut self) {
        (self.sent, self.read, self.taken, self.emptied) = (1, 0, false, true);
    }

    /// True if everything but the probe was taken back.
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
        // One message was read; then as many arrive as are read.
        assert_eq!(flow.look(Unread::Messages(4), 1250), Pace::Fair);
        flow.sent += 3;
        assert_eq!(flow.look(Unread::Messages(4), 2200), Pace::Fair);
        assert_eq!(flow.look(Unread::Messages(4), 3100), Pace::Fair);
        assert_eq!(flow.look(Unread::Messages(4), 3200), Pace::Overdue);
        assert_eq!(flow.look(Unread::Nothing, 3300), Pace::Idle);
        assert_eq!(flow.unread_since, None);
    }

    /// Taking back may be interrupted, by a lack of descriptors, or as nobody can have more. The
    /// worker then gets its probe, or MAY_DIE, later.
    #[test]
    fn a_channel_that_the_broker_has_emptied_was_not_read() {
        let mut flow = Flow::default();
        (0..3).for_each(|_| flow.sent(0));
        assert_eq!(flow.look(Unread::Messages(3), 1000), Pace::Overdue);
        flow.stall(1000);
        flow.took_back();
        flow.took_back();
        assert_eq!(flow.look(Unread::Messages(1), 1100), Pace::Overdue);
        flow.took_back();
        assert_eq!(flow.look(Unread::Nothing, 1200), Pace::Emptied);
        assert!(flow.is_waited_for());
        flow.emptied();
        assert_eq!(flow.look(Unread::Messages(1), 1300), Pace::Overdue);
        assert!(flow.is_emptied());
        assert_eq!(flow.look(Unread::Nothing, 1400), Pace::Idle);
        assert!(!flow.is_emptied());
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
