//! Channels that were full and do not say when there is room again: the BSDs call a full UNIX socket
//! of datagrams writable all the time, and refuse to write (ENOBUFS). So time is what tells.

use super::periodic::STEP;
use super::{Interest, Loop, Ready};
use crate::os;
use std::io;

impl Interest {
    /// What a channel is to be watched for after a message could not be sent for this reason.
    pub fn in_room(error: &io::Error) -> Interest {
        if os::would_block(error) {
            Interest::WRITE
        } else {
            Interest::ROOM
        }
    }
}

impl Loop {
    /// Says that there is room, now that it is time.
    #[cold]
    pub(super) fn tell_of_room(&mut self) {
        for fd in self.rooms.take() {
            self.rooms.add(fd, self.now + STEP);
            let ready = Ready { fd, writable: true, ..Ready::default() };
            self.ready.push_back((ready, self.slots[fd as usize].generation));
        }
    }
}
