//! Channels that were full and do not signal when there is room again: the BSDs report a full UNIX
//! datagram socket as writable all the time, yet refuse the write (ENOBUFS). So the loop retries on
//! a timer.

use super::periodic::STEP;
use super::{Interest, Loop, Ready};
use crate::os;
use std::io;

impl Interest {
    /// The interest to watch a channel for after sending a message failed with `error`.
    pub fn in_room(error: &io::Error) -> Interest {
        if os::would_block(error) {
            Interest::WRITE
        } else {
            Interest::ROOM
        }
    }
}

impl Loop {
    /// Reports every channel in `rooms` as writable, because the timer is due.
    #[cold]
    pub(super) fn tell_of_room(&mut self) {
        for fd in self.rooms.take() {
            self.rooms.add(fd, self.now + STEP);
            let ready = Ready { fd, writable: true, ..Ready::default() };
            self.ready.push_back((ready, self.slots[fd as usize].generation));
        }
    }
}
