//! Channels that were full and do not say when there is room again: the BSDs call a full UNIX socket of
//! datagrams writable all the time, and refuse to write (ENOBUFS). So time is what tells.

use super::{Interest, Loop, Ready};
use crate::os;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::RawFd;

/// How often there is said to be room, in milliseconds.
const STEP: u64 = 20;

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

#[derive(Default)]
pub(super) struct Rooms {
    descriptors: BTreeSet<RawFd>,
    /// When they are told next, if there are any.
    due: u64,
}

impl Rooms {
    pub(super) fn set(&mut self, fd: RawFd, wanted: Interest, now: u64) {
        if !wanted.contains(Interest::ROOM) {
            return self.remove(fd);
        }
        if self.descriptors.is_empty() {
            self.due = now + STEP;
        }
        self.descriptors.insert(fd);
    }

    pub(super) fn remove(&mut self, fd: RawFd) {
        if !self.descriptors.is_empty() {
            self.descriptors.remove(&fd);
        }
    }

    /// How long a wait may be.
    pub(super) fn timeout(&self, now: u64) -> Option<u64> {
        (!self.descriptors.is_empty()).then(|| self.due.saturating_sub(now))
    }
}

impl Loop {
    /// Says that there is room, if it is time.
    pub(super) fn tell_of_room(&mut self) {
        if self.rooms.timeout(self.now) == Some(0) {
            self.rooms.due = self.now + STEP;
            for &fd in &self.rooms.descriptors {
                let slot = self.slots[fd as usize];
                let ready = Ready { fd, writable: true, ..Ready::default() };
                self.ready.push_back((ready, slot.generation));
            }
        }
    }
}
