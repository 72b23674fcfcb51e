//! Descriptors that the system refused to watch: it was out of memory or at a limit (ENOMEM and
//! ENOSPC of epoll_ctl(2), ENOMEM of kevent(2), EAGAIN of port_associate(3C)), or the mechanism
//! cannot watch them (a number beyond the set of select(2)). The loop checks them one by one with
//! poll(2), which needs no memory, and keeps asking the system to watch them.

use super::periodic::{FOREVER, STEP};
use super::{Interest, Loop, Ready, EDGE, REGISTERED};
use crate::os::descriptor;
use std::os::fd::RawFd;
use std::time::Duration;

/// Sleeps when the system cannot even wait: at most `timeout` milliseconds, and at most one step.
pub(super) fn pause(timeout: u64) {
    std::thread::sleep(Duration::from_millis(timeout.min(STEP)));
}

impl Loop {
    /// Moves a descriptor to `unwatched` after the system refused to watch it.
    pub(super) fn give_up_watching(&mut self, fd: RawFd) {
        let Some(slot) = self.slots.get_mut(fd as usize) else {
            return;
        };
        // The update may have been made in part; the earlier interest would be reported for ever.
        slot.flags &= !EDGE;
        slot.installed = Interest::empty();
        self.backend.remove(fd, Interest::all());
        // If others are waiting already, keep their time: check them no earlier.
        let due = if self.unwatched.due() == FOREVER { self.now } else { FOREVER };
        self.unwatched.add(fd, due);
    }

    /// Asks the system again to watch the descriptors, and polls those that it still refuses.
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
            let state = descriptor::poll_state(fd);
            let (readable, writable) = (state.readable, state.writable);
            let hangup = state.error || state.hangup;
            let ready = Ready { fd, readable, writable, hangup, ..Ready::default() };
            self.ready.push_back((ready, slot.generation));
        }
    }
}
