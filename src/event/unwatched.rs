//! Descriptors that the system does not watch, though it should: it was out of memory, or out of what
//! it has for that (ENOMEM and ENOSPC of epoll_ctl(2), ENOMEM of kevent(2), EAGAIN of
//! port_associate(3C)), or the mechanism cannot (a number that select(2) has no bit for). They are
//! asked about with poll(2), one by one, which needs no memory, and the system is asked again.

use super::{Interest, Loop, Ready, EDGE, REGISTERED};
use crate::os::socket;
use std::collections::BTreeSet;
use std::os::fd::RawFd;
use std::time::Duration;

/// How often that is done, in milliseconds.
const STEP: u64 = 20;

#[derive(Default)]
pub(super) struct Unwatched {
    descriptors: BTreeSet<RawFd>,
    /// When they are looked at next, if there are any.
    due: u64,
}

impl Unwatched {
    fn add(&mut self, fd: RawFd, now: u64) {
        if self.descriptors.is_empty() {
            self.due = now;
        }
        self.descriptors.insert(fd);
    }

    pub(super) fn remove(&mut self, fd: RawFd) {
        if !self.descriptors.is_empty() {
            self.descriptors.remove(&fd);
        }
    }

    pub(super) fn clear(&mut self) {
        self.descriptors.clear();
    }

    /// How long a wait may be.
    pub(super) fn timeout(&self, now: u64) -> Option<u64> {
        (!self.descriptors.is_empty()).then(|| self.due.saturating_sub(now))
    }

    /// Lets time pass when the system cannot even wait, no longer than a wait may be.
    pub(super) fn pause(&self, timeout: Option<u64>) {
        std::thread::sleep(Duration::from_millis(timeout.map_or(STEP, |most| most.min(STEP))));
    }
}

impl Loop {
    /// The system has refused to watch a descriptor as it is wanted.
    pub(super) fn give_up_watching(&mut self, fd: RawFd) {
        let Some(slot) = self.slots.get_mut(fd as usize) else {
            return;
        };
        // Half of it may have been done; what was wanted before would be told for ever.
        slot.flags &= !EDGE;
        slot.installed = Interest::empty();
        self.backend.remove(fd, Interest::all());
        self.unwatched.add(fd, self.now);
    }

    /// Asks the system again, and looks at what it still refuses to watch.
    pub(super) fn look_at_unwatched(&mut self) {
        if self.unwatched.timeout(self.now) != Some(0) {
            return;
        }
        self.unwatched.due = self.now + STEP;
        for fd in std::mem::take(&mut self.unwatched.descriptors) {
            let Some(slot) = self.slots.get_mut(fd as usize) else {
                continue;
            };
            if slot.flags & REGISTERED == 0 || slot.watched().is_empty() {
                continue;
            }
            if self.backend.update(fd, Interest::empty(), slot.watched()).is_ok() {
                slot.installed = slot.watched();
                continue;
            }
            self.backend.remove(fd, Interest::all());
            self.unwatched.descriptors.insert(fd);
            let state = socket::poll_state(fd);
            let (readable, writable) = (state.readable, state.writable);
            let hangup = state.error || state.hangup;
            let ready = Ready { fd, readable, writable, hangup, ..Ready::default() };
            self.ready.push_back((ready, slot.generation));
        }
    }
}
