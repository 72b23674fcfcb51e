//! The brake on starting workers that die young.

use crate::broker::kind;
use crate::event::{Loop, TimerId, Token};
use crate::os::log;

/// A worker that lives this long has started successfully, in milliseconds.
pub(super) const SETTLED: u64 = 10_000;
/// The first pause before a failed start is repeated, and the longest, in milliseconds.
const FIRST_PAUSE: u64 = 100;
const LONGEST_PAUSE: u64 = 60_000;
const LONGEST_PAUSE_IF_READY: u64 = 1000;
/// If no worker was ever ready, the broker exits after this many failed starts in a row.
const GIVE_UP: u32 = 4;

/// How recent starts went.
pub(super) struct Restart {
    /// What is started, for the log.
    what: &'static str,
    /// Of the timer that ends a pause.
    token: Token,
    /// Workers that died young.
    failures: u32,
    /// Those of them that were never ready, counted since a worker last was.
    failed_starts: u32,
    ever_ready: bool,
    last: u64,
    pause: Option<TimerId>,
}

impl Restart {
    /// `settled`: workers were running before, so a failed start does not end the broker.
    pub(super) fn new(settled: bool) -> Restart {
        Restart {
            ever_ready: settled,
            ..Restart::of("workers do not", Token::new(kind::RESTART, 0))
        }
    }

    /// For something else, without which the broker goes on. `what`: for the log; `token`: of the
    /// timer that ends a pause.
    pub(super) fn of(what: &'static str, token: Token) -> Restart {
        Restart {
            what,
            token,
            failures: 0,
            failed_starts: 0,
            ever_ready: false,
            last: 0,
            pause: None,
        }
    }

    /// The pause is over.
    pub(super) fn expired(&mut self) {
        self.pause = None;
    }

    /// True if no start may be tried at the moment.
    pub(super) fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// A worker is ready: starting works.
    pub(super) fn ready(&mut self) {
        self.failed_starts = 0;
        self.ever_ready = true;
    }

    /// A worker has lived long enough.
    pub(super) fn settled(&mut self) {
        self.failures = 0;
        self.ready();
    }

    /// True if any worker was ever ready.
    pub(super) fn was_ever_ready(&self) -> bool {
        self.ever_ready
    }

    /// True if the broker gives up with the next failed start. Workers that die during a pause, as
    /// others have just done, do not decide that.
    pub(super) fn is_hopeless(&self) -> bool {
        !self.is_paused() && self.failed_starts + 1 >= GIVE_UP
    }

    /// Nothing was started, or it ended before it was ready.
    pub(super) fn failed_to_start(&mut self, events: &mut Loop) {
        self.failed(false, events);
    }

    /// It was ready, and ended before it had lived long.
    pub(super) fn died_young(&mut self, events: &mut Loop) {
        self.failed(true, events);
    }

    /// Counts a failed start and arms the pause before the next one. Workers that die during a
    /// pause count as one failure.
    fn failed(&mut self, ready: bool, events: &mut Loop) {
        if self.pause.is_some() {
            return;
        }
        let pause = self.next_pause(ready, events.now());
        if pause > FIRST_PAUSE {
            let what = self.what;
            log::braked(log::Kind::Worker, || format!("{what} stay up, next start in {pause} ms"));
        }
        self.pause = Some(events.arm(self.token, events.now() + pause));
    }

    /// How long to wait after a failed start, in milliseconds. The pauses are shorter for a worker
    /// that was `ready`, as it is missed more than one that never was.
    fn next_pause(&mut self, ready: bool, now: u64) -> u64 {
        if now.saturating_sub(self.last) > LONGEST_PAUSE + SETTLED {
            (self.failures, self.failed_starts) = (0, 0);
        }
        self.last = now;
        self.failures += 1;
        self.failed_starts += u32::from(!ready);
        // If a worker was killed while it started, that says nothing about the next start.
        let (failures, longest) = if ready {
            (self.failures, LONGEST_PAUSE_IF_READY)
        } else {
            (self.failed_starts, LONGEST_PAUSE)
        };
        (FIRST_PAUSE << (failures - 1).min(16)).min(longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Choice;

    #[test]
    fn workers_that_fail_together_are_one_failure() {
        let mut events = Loop::new(&Choice::from_setting(None)).expect("a loop");
        let mut restart = Restart::new(false);
        for _ in 1..GIVE_UP {
            for _ in 0..2 {
                assert!(!restart.is_hopeless());
                restart.failed_to_start(&mut events);
            }
            restart.expired();
        }
        assert!(restart.is_hopeless());
    }

    #[test]
    fn only_starts_that_fail_one_after_the_other_make_the_pause_long() {
        let mut restart = Restart::new(false);
        let killed = [true; 6].map(|ready| restart.next_pause(ready, 0));
        assert_eq!(killed, [100, 200, 400, 800, 1000, 1000]);
        let killed_at_start = [false; 3].map(|ready| restart.next_pause(ready, 0));
        assert_eq!(killed_at_start, [100, 200, 400]);
        restart.ready();
        assert_eq!(restart.next_pause(false, 0), 100);
        let broken = [false; 20].map(|ready| restart.next_pause(ready, 0));
        assert_eq!(broken.last(), Some(&60_000));
    }
}
