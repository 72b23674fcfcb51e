//! What remotes did in the last ten minutes: samples for the lines of the status page. It begins
//! with the monitor.

use super::shared::Shared;
use crate::upstream::zone::counters::{OfRemote, Place};
use std::collections::{BTreeMap, VecDeque};

/// Samples of each remote.
const SAMPLES: usize = 61;

/// A remote at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    /// When, on the monotonic clock in milliseconds.
    pub(super) time: u64,
    /// Sessions that used it.
    pub(super) open: u64,
    /// Bytes both ways so far.
    pub(super) bytes: u64,
}

/// The samples of all remotes.
#[derive(Debug, Default)]
pub(super) struct History {
    /// By row and identity of the remote: its name tells who had the row.
    remotes: BTreeMap<usize, (String, VecDeque<Sample>)>,
}

impl History {
    /// The time between samples, in milliseconds.
    pub(super) const STEP: u64 = 10_000;
    /// The time that all samples cover, in milliseconds.
    pub(super) const SPAN: u64 = History::STEP * (SAMPLES as u64 - 1);

    /// Takes a sample of each remote.
    pub(super) fn sample(&mut self, shared: &Shared, now: u64) {
        let mut remotes = BTreeMap::new();
        for (_, known) in shared.remotes() {
            let row = known.row;
            let counters = [OfRemote::BytesUp, OfRemote::BytesDown];
            let bytes = shared.zone.figures(&counters.map(|counter| Place::Remote(row, counter)));
            let bytes = bytes.into_iter().fold(0, u64::wrapping_add);
            let sample = Sample { time: now, open: shared.zone.state(row).used, bytes };
            self.add(&mut remotes, row, known.name(), sample);
        }
        self.remotes = remotes;
    }

    fn add(
        &mut self,
        to: &mut BTreeMap<usize, (String, VecDeque<Sample>)>,
        row: usize,
        name: String,
        sample: Sample,
    ) {
        let before = self.remotes.remove(&row).filter(|(former, _)| *former == name);
        let mut samples = before.map(|(_, samples)| samples).unwrap_or_default();
        if samples.len() >= SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
        to.insert(row, (name, samples));
    }

    /// The samples of the remote with this row, the oldest first.
    pub(super) fn of(&self, row: usize) -> impl DoubleEndedIterator<Item = Sample> + '_ {
        self.remotes.get(&row).into_iter().flat_map(|(_, samples)| samples.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_samples_of_a_remote_stay() {
        let mut history = History::default();
        let mut take = |time: u64, name: &str| {
            let mut remotes = BTreeMap::new();
            let sample = Sample { time, open: time, bytes: 0 };
            history.add(&mut remotes, 3, name.to_owned(), sample);
            history.remotes = remotes;
            history.of(3).map(|sample| sample.time).collect::<Vec<_>>()
        };
        assert_eq!(take(0, "a"), [0]);
        (1..100).for_each(|time| drop(take(time, "a")));
        assert_eq!(take(100, "a"), (40..=100).collect::<Vec<u64>>());
        // Another remote got the row.
        assert_eq!(take(101, "b"), [101]);
    }
}
