//! poll(2), everywhere.

use super::{backend::milliseconds, Interest, Ready};
use crate::os::check;
use std::io;
use std::os::fd::RawFd;

const ABSENT: u32 = u32::MAX;

pub(super) struct Poller {
    /// Has no entry for a descriptor without interest, because poll(2) would still report its
    /// hang-ups.
    set: Vec<libc::pollfd>,
    /// Index into `set` by descriptor.
    position: Vec<u32>,
}

/// The poll(2) event bits for an interest; shared by the mechanisms that use the same bits.
pub(super) fn poll_bits(interest: Interest) -> libc::c_short {
    let mut bits = 0;
    if interest.contains(Interest::READ) {
        bits |= libc::POLLIN;
    }
    if interest.contains(Interest::WRITE) {
        bits |= libc::POLLOUT;
    }
    bits
}

/// What poll(2) reported about a descriptor.
pub(super) fn from_poll_bits(fd: RawFd, bits: libc::c_short) -> Ready {
    Ready {
        fd,
        readable: bits & libc::POLLIN != 0,
        writable: bits & libc::POLLOUT != 0,
        hangup: bits & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0,
        ..Ready::default()
    }
}

impl Poller {
    pub(super) fn new() -> io::Result<Poller> {
        Ok(Poller { set: Vec::new(), position: Vec::new() })
    }

    pub(super) fn update(&mut self, fd: RawFd, _old: Interest, new: Interest) -> io::Result<()> {
        let index = fd as usize;
        if index >= self.position.len() {
            self.position.resize(index + 1, ABSENT);
        }
        let position = self.position[index];
        let new = new.reported();
        if new.is_empty() {
            if position != ABSENT {
                self.set.swap_remove(position as usize);
                self.position[index] = ABSENT;
                if let Some(moved) = self.set.get(position as usize) {
                    self.position[moved.fd as usize] = position;
                }
            }
            return Ok(());
        }
        let entry = libc::pollfd { fd, events: poll_bits(new), revents: 0 };
        if position == ABSENT {
            self.position[index] = self.set.len() as u32;
            self.set.push(entry);
        } else {
            self.set[position as usize] = entry;
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, fd: RawFd, old: Interest) {
        // Never fails.
        let _ = self.update(fd, old, Interest::empty());
    }

    pub(super) fn wait(&mut self, timeout: Option<u64>, ready: &mut Vec<Ready>) -> io::Result<()> {
        let (set, timeout) = (&mut self.set, milliseconds(timeout));
        // SAFETY: the pointer and the length describe `set`, which outlives the call.
        let mut count =
            check(unsafe { libc::poll(set.as_mut_ptr(), set.len() as libc::nfds_t, timeout) })?;
        for entry in set.iter() {
            if count == 0 {
                break;
            }
            if entry.revents != 0 {
                count -= 1;
                ready.push(from_poll_bits(entry.fd, entry.revents));
            }
        }
        Ok(())
    }
}
