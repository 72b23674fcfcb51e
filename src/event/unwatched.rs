//! Descriptors that the system does not watch, though it should: it was out of memory, or out of what
//! it has for that (ENOMEM and ENOSPC of epoll_ctl(2), ENOMEM of kevent(2), EAGAIN of
//! port_associate(3C)), or the mechanism cannot (a number that select(2) has no bit for). They are
//! asked about with poll(2), one by one, which needs no memory, and the system is asked again.

use super::periodic::{FOREVER, STEP};
use super::{Interest, Loop, Ready, EDGE, REGISTERED};
use crate::os::socket;
use std::os::fd::RawFd;
use std::time::Duration;

/// Lets time pass when the system cannot even wait, no longer than a wait may be.
pub(super) fn pause(timeout: u64) {
    std::thread::sleep(Duration::from_millis(timeout.min(STEP)));
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
        // Those that wait already are not looked at earlier for it.
        let due = if self.unwatched.due() == FOREVER { self.now } else { FOREVER };
        self.unwatched.add(fd, due);
    }

    /// Asks the system again, now that it is time, and looks at what it still refuses to watch.
    #[cold]
    pub(super) fn look_at_unwatched(&mut self) {
        for fd in self.unwatched.take() {
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
            self.unwatched.add(fd, self.now + STEP);
            let state = socket::poll_state(fd);
            let (readable, writable) = (state.readable, state.writable);
            let hangup = state.error || state.hangup;
            let ready = Ready { fd, readable, writable, hangup, ..Ready::default() };
            self.ready.push_back((ready, slot.generation));
        }
    }
}
