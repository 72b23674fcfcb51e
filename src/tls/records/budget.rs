//! Limits how many records without data the other side may send: each costs us something, and a
//! KeyUpdate costs two keys.
//!
//! Data from the other side restores the whole budget. A second that passes gives one record back.
//! So does each record that we send, as a client that only reads may limit the bytes of a key, and
//! then updates often.

/// The whole budget.
const MOST: u32 = 32;

#[derive(Debug)]
pub(super) struct Budget {
    left: u32,
    /// The time up to which seconds were given back, in milliseconds; 0 if that has not begun.
    since: u64,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { left: MOST, since: 0 }
    }
}

impl Budget {
    /// Notes that data was received.
    pub(super) fn received(&mut self) {
        *self = Budget::default();
    }

    /// Notes that records were sent.
    pub(super) fn sent(&mut self, count: u32) {
        self.left = self.left.saturating_add(count).min(MOST);
    }

    /// Counts a record without data; false if it was one too many. `now` returns milliseconds, and
    /// is only called if the time matters.
    pub(super) fn spend(&mut self, now: impl FnOnce() -> u64) -> bool {
        if self.left < MOST / 2 {
            let now = now();
            let seconds = now.saturating_sub(self.since) / 1000;
            if self.since == 0 {
                self.since = now;
            } else if seconds > 0 {
                self.since += seconds * 1000;
                let more = u32::try_from(seconds).unwrap_or(MOST).min(MOST);
                self.left = (self.left + more).min(MOST);
            }
        }
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_once_there_may_be_so_many() {
        let mut budget = Budget::default();
        assert!((0..32).all(|_| budget.spend(|| 5000)));
        assert!(!budget.spend(|| 5999));
        budget.received();
        assert!((0..32).all(|_| budget.spend(|| 5999)));
        assert!(!budget.spend(|| 5999));
    }

    #[test]
    fn one_a_second_is_never_too_many() {
        let mut budget = Budget::default();
        assert!((1..10_000).all(|second| budget.spend(|| second * 1000)));
        // But two are.
        let mut budget = Budget::default();
        assert!(!(1..10_000).all(|half| budget.spend(|| half * 500)));
    }

    #[test]
    fn one_for_each_record_that_is_sent_is_never_too_many() {
        let mut budget = Budget::default();
        for _ in 0..1000 {
            assert!(budget.spend(|| 1));
            budget.sent(1);
        }
        assert!((0..32).all(|_| budget.spend(|| 1)));
        assert!(!budget.spend(|| 1));
    }
}
