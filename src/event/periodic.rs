//! Descriptors that the system cannot watch: the loop checks them every [`STEP`] milliseconds.

use std::collections::BTreeSet;
use std::os::fd::RawFd;

/// Milliseconds between two checks.
pub(super) const STEP: u64 = 20;
/// Never.
pub(super) const FOREVER: u64 = u64::MAX;

pub(super) struct Periodic {
    descriptors: BTreeSet<RawFd>,
    due: u64,
}

impl Default for Periodic {
    fn default() -> Periodic {
        Periodic { descriptors: BTreeSet::new(), due: FOREVER }
    }
}

impl Periodic {
    /// Adds a descriptor. The next check is no later than `due`.
    pub(super) fn add(&mut self, fd: RawFd, due: u64) {
        self.due = self.due.min(due);
        self.descriptors.insert(fd);
    }

    #[inline]
    pub(super) fn remove(&mut self, fd: RawFd) {
        if self.due != FOREVER {
            self.forget(fd);
        }
    }

    #[cold]
    fn forget(&mut self, fd: RawFd) {
        self.descriptors.remove(&fd);
        if self.descriptors.is_empty() {
            self.due = FOREVER;
        }
    }

    /// When the next check is due: [`FOREVER`] if there are no descriptors.
    #[inline]
    pub(super) fn due(&self) -> u64 {
        self.due
    }

    /// Takes all descriptors out to be checked now; the caller adds back those that stay.
    pub(super) fn take(&mut self) -> BTreeSet<RawFd> {
        self.due = FOREVER;
        std::mem::take(&mut self.descriptors)
    }
}
