//! Whether a remote is up, by its probes. Plain data, and a clock that the caller has.
//!
//! [`Judge`] turns the results of probes into up and down: `fall` failures in a row make a remote
//! down, `rise` successes in a row make it up. After that its share of the sessions may grow slowly.
//! [`Health`] is what the monitor writes about a remote into the zone, in one word.

use crate::config::check::{Check, Start};

/// What probes have found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It was not probed yet, or nobody probes it.
    #[default]
    Unknown,
    /// It takes sessions.
    Up,
    /// It gets no session.
    Down,
}

/// Why it is as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// Nothing was found yet.
    #[default]
    Start = 0,
    /// Probes succeed.
    Passed = 1,
    /// It cannot be connected to.
    Connect = 2,
    /// The probe has taken too long.
    Timeout = 3,
    /// The TLS handshake has failed.
    Tls = 4,
    /// It has closed the connection too early.
    Closed = 5,
    /// It has answered something else.
    Answer = 6,
    /// It has answered with another HTTP status.
    Status = 7,
}

impl Reason {
    const ALL: [Reason; 8] = [
        Reason::Start,
        Reason::Passed,
        Reason::Connect,
        Reason::Timeout,
        Reason::Tls,
        Reason::Closed,
        Reason::Answer,
        Reason::Status,
    ];

    /// The reason as a word, for figures and status.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Start => "start",
            Reason::Passed => "passed",
            Reason::Connect => "connect",
            Reason::Timeout => "timeout",
            Reason::Tls => "tls",
            Reason::Closed => "closed",
            Reason::Answer => "answer",
            Reason::Status => "status",
        }
    }
}

/// The whole share.
pub const WHOLE: u16 = 256;

/// What is known of a remote, as it stands in the zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Up or down.
    pub standing: Standing,
    /// Why.
    pub reason: Reason,
    /// Since when, in seconds of the wall clock.
    pub since: u32,
    /// Its share of the sessions, in 256ths, at least 1: below [`WHOLE`] during a slow start.
    pub share: u16,
}

impl Default for Health {
    fn default() -> Health {
        Health { standing: Standing::Unknown, reason: Reason::Start, since: 0, share: WHOLE }
    }
}

impl Health {
    /// As one word. 0 is the default.
    pub fn encode(self) -> u64 {
        let standing = match self.standing {
            Standing::Unknown => 0,
            Standing::Up => 1,
            Standing::Down => 2,
        };
        let missing = u64::from(WHOLE - self.share.clamp(1, WHOLE));
        u64::from(self.since) << 32 | missing << 16 | (self.reason as u64) << 8 | standing
    }

    /// From a word, whatever is in it.
    pub fn decode(word: u64) -> Health {
        let standing = match word & 0xff {
            1 => Standing::Up,
            2 => Standing::Down,
            _ => Standing::Unknown,
        };
        let reason = Reason::ALL.get((word >> 8 & 0xff) as usize).copied().unwrap_or_default();
        let missing = (word >> 16 & 0xff) as u16;
        Health { standing, reason, since: (word >> 32) as u32, share: WHOLE - missing }
    }

    /// True if the remote gets no session. `start` is what it counts as before it was probed.
    pub fn is_down(self, start: Start) -> bool {
        match self.standing {
            Standing::Unknown => start == Start::Down,
            Standing::Up => false,
            Standing::Down => true,
        }
    }
}

/// Decides about one remote.
#[derive(Clone, Debug)]
pub struct Judge {
    rise: u32,
    fall: u32,
    /// In milliseconds; 0 is off.
    slow_start: u64,
    up: bool,
    /// Results in a row that speak against the present state.
    against: u32,
    /// When a slow start has begun.
    climbs_since: Option<u64>,
}

impl Judge {
    /// For a remote of which `before` is known. `now` is in milliseconds, as in all that follows.
    pub fn new(check: &Check, before: Health, now: u64) -> Judge {
        let slow_start = u64::from(check.slow_start) * 1000;
        let up = !before.is_down(check.start);
        // A slow start that another monitor has begun goes on.
        let climbs = up && slow_start > 0 && before.share < WHOLE;
        let passed = slow_start * u64::from(before.share) / u64::from(WHOLE);
        Judge {
            rise: check.rise.max(1),
            fall: check.fall.max(1),
            slow_start,
            up,
            against: 0,
            climbs_since: climbs.then(|| now.saturating_sub(passed)),
        }
    }

    /// True if the remote is up.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// True if the state may change with the next results.
    pub fn is_turning(&self) -> bool {
        self.against > 0
    }

    /// Takes the result of a probe. True if that has changed the state.
    pub fn hear(&mut self, passed: bool, now: u64) -> bool {
        if passed == self.up {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let needed = if self.up { self.fall } else { self.rise };
        if self.against < needed {
            return false;
        }
        self.against = 0;
        self.up = passed;
        self.climbs_since = (self.up && self.slow_start > 0).then_some(now);
        true
    }

    /// True while the share grows.
    pub fn is_climbing(&self) -> bool {
        self.climbs_since.is_some()
    }

    /// The share of the remote now, in 256ths, at least 1.
    pub fn share(&mut self, now: u64) -> u16 {
        let Some(since) = self.climbs_since else {
            return WHOLE;
        };
        let passed = now.saturating_sub(since);
        if passed >= self.slow_start {
            self.climbs_since = None;
            return WHOLE;
        }
        ((passed * u64::from(WHOLE) / self.slow_start) as u16).max(1)
    }
}

/// When to probe again, in milliseconds from now. `random` is any number; it moves the interval by
/// up to 10 %, so that the probes of many remotes and relays spread out.
pub fn pause(check: &Check, turning: bool, random: u64) -> u64 {
    let seconds = if turning { check.fast_interval } else { check.interval };
    let interval = u64::from(seconds.max(1)) * 1000;
    let span = interval / 5;
    interval - span / 2 + random % (span + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check::{OnDown, Probe};
    use proptest::prelude::*;

    fn check(rise: u32, fall: u32) -> Check {
        Check {
            probe: Probe::Tcp,
            interval: 5,
            fast_interval: 1,
            timeout: 5,
            rise,
            fall,
            address: None,
            port: None,
            start: Start::Up,
            slow_start: 0,
            on_down: OnDown::Keep,
        }
    }

    #[test]
    fn so_many_in_a_row_change_the_state() {
        let mut judge = Judge::new(&check(2, 3), Health::default(), 0);
        let results = [false, false, true, false, false, false, true, false, true, true];
        let states = results.map(|passed| {
            judge.hear(passed, 0);
            judge.is_up()
        });
        assert_eq!(states, [true, true, true, true, true, false, false, false, false, true]);
    }

    #[test]
    fn what_was_known_is_where_it_starts() {
        let down = Health { standing: Standing::Down, ..Health::default() };
        assert!(!Judge::new(&check(1, 1), down, 0).is_up());
        let cautious = Check { start: Start::Down, ..check(1, 1) };
        assert!(!Judge::new(&cautious, Health::default(), 0).is_up());
        let up = Health { standing: Standing::Up, ..Health::default() };
        assert!(Judge::new(&cautious, up, 0).is_up());
    }

    #[test]
    fn the_share_grows_after_a_remote_came_up() {
        let slow = Check { slow_start: 10, ..check(1, 1) };
        let mut judge = Judge::new(&slow, Health::default(), 0);
        assert_eq!(judge.share(0), WHOLE);
        assert!(judge.hear(false, 1000) && judge.hear(true, 2000));
        let shares = [2000, 4500, 7000, 11_999].map(|now| judge.share(now));
        assert_eq!(shares, [1, 64, 128, 255]);
        // Another monitor goes on from what is in the zone.
        let known = Health { standing: Standing::Up, share: 128, ..Health::default() };
        let mut next = Judge::new(&slow, known, 100_000);
        assert_eq!(next.share(102_500), 192);
        assert_eq!((judge.share(12_000), judge.is_climbing()), (WHOLE, false));
    }

    proptest! {
        /// As a plain look at the latest results has it.
        #[test]
        fn as_a_look_at_the_latest_results_has_it(
            rise in 1u32..5, fall in 1u32..5, results in prop::collection::vec(any::<bool>(), 0..200)
        ) {
            let mut judge = Judge::new(&check(rise, fall), Health::default(), 0);
            let (mut up, mut begin) = (true, 0);
            for end in 1..=results.len() {
                let changed = judge.hear(results[end - 1], 0);
                let needed = if up { fall } else { rise } as usize;
                let row = &results[begin..end];
                let turns = row.len() >= needed
                    && row[row.len() - needed..].iter().all(|&passed| passed != up);
                if turns {
                    (up, begin) = (!up, end);
                }
                prop_assert_eq!((judge.is_up(), changed), (up, turns));
                prop_assert_eq!(judge.is_turning(), !turns && results[end - 1] != up);
            }
        }

        #[test]
        fn any_word_is_some_health(word: u64) {
            let health = Health::decode(word);
            prop_assert!((1..=WHOLE).contains(&health.share));
            prop_assert_eq!(Health::decode(health.encode()), health);
        }

        #[test]
        fn pauses_are_within_a_tenth(random: u64, interval in 1u32..86_400) {
            let check = Check { interval, ..check(1, 1) };
            let exact = u64::from(interval) * 1000;
            let pause = pause(&check, false, random);
            prop_assert!(pause >= exact - exact / 10 && pause <= exact + exact / 10);
        }
    }

    #[test]
    fn nothing_known_is_zero() {
        assert_eq!(Health::default().encode(), 0);
        assert_eq!(Health::decode(0), Health::default());
    }
}
