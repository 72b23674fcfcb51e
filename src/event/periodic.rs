//! Descriptors that time tells of, as the system does not: a look at them is due every [`STEP`]
//! milliseconds.

use std::collections::BTreeSet;
use std::os::fd::RawFd;

/// How often, in milliseconds.
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
    /// Adds a descriptor; the first one is due at `due`.
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

    /// When the next look is due: [`FOREVER`] if there is nothing to look at.
    #[inline]
    pub(super) fn due(&self) -> u64 {
        self.due
    }

    /// Takes all out, to be looked at now; those that stay are to be added again.
    pub(super) fn take(&mut self) -> BTreeSet<RawFd> {
        self.due = FOREVER;
        std::mem::take(&mut self.descriptors)
    }
}
