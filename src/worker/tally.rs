//! What has to be known of sessions for counting and for showing them. It stands here and not in
//! the session, as it is rarely needed.

/// What is known of a session for counting.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// The number of its listener.
    pub(super) listener: Option<u16>,
    /// The row in the zone of the remote that it was connected to.
    pub(super) row: Option<u16>,
    /// When it began, in milliseconds of the loop's clock.
    pub(super) begun: u64,
    /// The bytes that were counted already, up and down.
    pub(super) bytes: [u64; 2],
}

/// Of all sessions, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Tallies(Vec<Tally>);

impl Tallies {
    /// Of a session, if it is counted.
    pub(super) fn of(&mut self, index: u32) -> Option<&mut Tally> {
        self.0.get_mut(index as usize)
    }

    /// When a session began; 0 if it is not counted.
    pub(super) fn begun(&self, index: u32) -> u64 {
        self.0.get(index as usize).map_or(0, |tally| tally.begun)
    }

    /// A session begins.
    pub(super) fn begin(&mut self, index: u32, tally: Tally) {
        let index = index as usize;
        if self.0.len() <= index {
            self.0.resize(index + 1, Tally::default());
        }
        self.0[index] = tally;
    }
}
