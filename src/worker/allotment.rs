//! What a session with limits has to know, and which limit has ended it.

use super::pair::End;
use super::pump::UNLIMITED;
use crate::channel::clients::ClientId;
use crate::event::TimerId;
use std::fmt;

/// A limit that has ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    Idle,
    Session,
    FirstByte,
    HalfClosed,
    Queue,
}

impl fmt::Display for Limit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Limit::Idle => "idle timeout",
            Limit::Session => "session timeout",
            Limit::FirstByte => "first byte timeout",
            Limit::HalfClosed => "half-closed timeout",
            Limit::Queue => "queue timeout",
        })
    }
}

/// What a session with limits has to know.
#[derive(Debug, Default)]
pub(super) struct Allotment {
    /// When it began.
    pub(super) begun: u64,
    /// When both ends were there.
    pub(super) connected: u64,
    /// The broker's number for the client; 0 if it does not count sessions of clients.
    pub(super) number: u32,
    /// Whom a PROXY header has introduced, if this worker counts sessions of clients.
    pub(super) client: Option<ClientId>,
    /// What may be carried from client to remote, and back.
    pub(super) up: Option<Bucket>,
    pub(super) down: Option<Bucket>,
    /// One of the directions has had to wait for its bandwidth.
    pub(super) throttled: bool,
    /// The timer that ends a pause of one of the directions.
    pub(super) wake: Option<TimerId>,
}

impl Allotment {
    /// What the direction that reads from `end` may carry.
    pub(super) fn bucket(&self, end: End) -> Option<&Bucket> {
        match end {
            End::Client => self.up.as_ref(),
            End::Upstream => self.down.as_ref(),
        }
    }

    /// As [`bucket`](Self::bucket).
    pub(super) fn bucket_mut(&mut self, end: End) -> Option<&mut Bucket> {
        match end {
            End::Client => self.up.as_mut(),
            End::Upstream => self.down.as_mut(),
        }
    }

    /// How many bytes may be read from `end` now.
    pub(super) fn most(&mut self, end: End, now: u64) -> usize {
        self.bucket_mut(end).map_or(UNLIMITED, |bucket| bucket.fill(now))
    }
}

/// How many milliseconds' worth of bytes may be carried at once: short enough to be smooth, and
/// long enough for a timer.
const BURST: u64 = 100;
/// A pause ends when so many milliseconds' worth may be carried.
const STEP: u64 = 40;
/// The credit that one byte takes: a rate in bytes a second grows by itself in a millisecond.
const BYTE: i64 = 1000;

/// A token bucket: bytes that may be carried now.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Bytes a second.
    rate: i64,
    /// Below 0 if more was carried than was allowed, as records of TLS are whole.
    credit: i64,
    /// When it was filled last.
    at: u64,
}

impl Bucket {
    /// A full bucket; `None` without a limit.
    pub(super) fn new(rate: u64, now: u64) -> Option<Bucket> {
        let rate = i64::try_from(rate).ok().filter(|&rate| rate > 0)?;
        let mut bucket = Bucket { rate, credit: 0, at: now };
        bucket.credit = bucket.worth(BURST);
        Some(bucket)
    }

    /// The credit for so many milliseconds, but at least for one byte.
    fn worth(&self, milliseconds: u64) -> i64 {
        self.rate.saturating_mul(milliseconds as i64).max(BYTE)
    }

    /// Fills up to `now`; returns how many bytes may be carried.
    pub(super) fn fill(&mut self, now: u64) -> usize {
        let elapsed = i64::try_from(now.saturating_sub(self.at)).unwrap_or(i64::MAX);
        let grown = self.credit.saturating_add(self.rate.saturating_mul(elapsed));
        self.credit = grown.min(self.worth(BURST));
        self.at = now;
        usize::try_from(self.credit / BYTE).unwrap_or(0)
    }

    /// So many bytes were carried.
    pub(super) fn spend(&mut self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.credit = self.credit.saturating_sub(bytes.saturating_mul(BYTE));
    }

    /// True if not a byte may be carried.
    pub(super) fn is_empty(&self) -> bool {
        self.credit < BYTE
    }

    /// When enough may be carried again.
    pub(super) fn due(&self) -> u64 {
        let missing = self.worth(STEP).saturating_sub(self.credit).max(0) as u64;
        self.at.saturating_add(missing.div_ceil(self.rate.unsigned_abs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A source that always has data: what is carried keeps to the rate, in every stretch of
        /// time, whatever is read beyond the allowance.
        #[test]
        fn a_busy_direction_keeps_to_its_rate(
            rate in 1u64..10_000_000, late in prop::collection::vec(0u64..20, 1..300),
            beyond in 0u64..20_000,
        ) {
            let mut bucket = Bucket::new(rate, 0).expect("a limit");
            let (mut now, mut carried) = (0, 0u64);
            for late in late {
                let most = bucket.fill(now) as u64;
                prop_assert!(most <= (rate / 10).max(1));
                prop_assert!(most > 0, "a pause is not over before it pays");
                let bytes = if most.is_multiple_of(3) { most + beyond } else { most };
                bucket.spend(bytes);
                carried += bytes;
                let least = rate as u128 * now as u128 / 1000;
                let allowed = least + (rate as u128 / 10).max(1) + 1 + beyond as u128;
                prop_assert!(carried as u128 <= allowed, "{carried} in {now} ms, {allowed}");
                if bucket.is_empty() {
                    prop_assert!(bucket.due() > now);
                    // Timers may be late; that is made up for, up to the burst.
                    now = bucket.due() + late;
                }
            }
            // Nor is any lost, as timers are late by less than the burst.
            let sure = rate as u128 * now as u128 / 1000;
            let last = u128::from(rate).max(1) / 5 + 2;
            prop_assert!(carried as u128 + last >= sure, "{carried} in {now} ms, {sure}");
        }
    }

    #[test]
    fn a_slow_direction_gets_single_bytes() {
        let mut bucket = Bucket::new(2, 0).expect("a limit");
        assert_eq!(bucket.fill(0), 1);
        bucket.spend(1);
        assert!(bucket.is_empty());
        assert_eq!(bucket.due(), 500);
        assert_eq!((bucket.fill(499), bucket.fill(500)), (0, 1));
        assert_eq!(Bucket::new(0, 0).map(|_| ()), None);
    }
}
