//! kqueue(2): the BSDs and macOS.
//!
//! Uses only what all of these systems have: EVFILT_READ and EVFILT_WRITE, added without EV_CLEAR
//! and so level-triggered, for listening sockets too. Each change is a system call of its own, so
//! that its error is known; EV_RECEIPT, which would report errors per change in a batch, is not
//! available everywhere, and neither are EV_DISPATCH and NOTE_FILE_POLL.

// The types of the fields and constants differ from system to system.
#![allow(clippy::unnecessary_cast)]

use super::{backend::timespec, Interest, Ready, PAUSED};
use crate::os::{check, descriptor, files, process};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::{io, ptr};

#[cfg(not(event_shims))]
mod sys {
    pub(super) use libc::{kevent, kqueue};
    pub(super) use libc::{
        kevent as Kevent, EVFILT_READ, EVFILT_WRITE, EV_ADD, EV_DELETE, EV_DISABLE, EV_ENABLE,
        EV_ERROR,
    };

    pub(super) fn change(fd: i32, filter: i16, flags: u16) -> Kevent {
        // SAFETY: struct kevent is plain data, for which all zeroes is a valid value; its
        // fields differ in number and type between the systems.
        let mut event: Kevent = unsafe { std::mem::zeroed() };
        event.ident = fd as _;
        event.filter = filter as _;
        event.flags = flags as _;
        event
    }
}

/// The test-only emulation on Linux; the constants are those of FreeBSD's sys/event.h.
#[cfg(event_shims)]
mod sys {
    pub(super) use crate::os::emulation::{kevent, kqueue, Kevent, EV_ADD};

    pub(super) const EVFILT_READ: i16 = -1;
    pub(super) const EVFILT_WRITE: i16 = -2;
    pub(super) const EV_DELETE: u16 = 2;
    pub(super) const EV_ENABLE: u16 = 4;
    pub(super) const EV_DISABLE: u16 = 8;
    pub(super) const EV_ERROR: u16 = 0x4000;

    pub(super) fn change(fd: i32, filter: i16, flags: u16) -> Kevent {
        let udata = std::ptr::null_mut();
        Kevent { ident: fd as usize, filter, flags, fflags: 0, data: 0, udata }
    }
}

/// Most events that one wait takes. The rest stay in the kernel for the next turn.
const BATCH: usize = 256;

const FILTERS: [(Interest, i32); 2] =
    [(Interest::READ, sys::EVFILT_READ as i32), (Interest::WRITE, sys::EVFILT_WRITE as i32)];

/// The errnos by which systems say that a filter does not support a file.
const NOT_SUPPORTED: [libc::c_int; 3] = [libc::EINVAL, libc::ENODEV, libc::EOPNOTSUPP];

pub(super) struct Poller {
    queue: ManuallyDrop<OwnedFd>,
    /// The process that created the queue.
    owner: process::Pid,
    events: Vec<sys::Kevent>,
}

impl Poller {
    pub(super) fn new() -> io::Result<Poller> {
        // SAFETY: kqueue(2) takes no arguments.
        let fd = check(unsafe { sys::kqueue() })?;
        // SAFETY: the descriptor has just been created and nothing else owns it.
        let queue = unsafe { OwnedFd::from_raw_fd(fd) };
        descriptor::close_on_exec(&queue)?;
        Ok(Poller {
            queue: ManuallyDrop::new(queue),
            owner: process::id(),
            events: Vec::with_capacity(BATCH),
        })
    }

    pub(super) fn update(&mut self, fd: RawFd, old: Interest, new: Interest) -> io::Result<()> {
        // EVFILT_READ is silent at the end of a regular file, and EVFILT_WRITE does not support
        // files.
        if old.is_empty() && files::is_regular(fd) {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        for (bit, filter) in FILTERS {
            let flags = match (old.contains(bit), new.contains(bit)) {
                (false, true) => sys::EV_ADD,
                (true, false) => sys::EV_DELETE,
                (true, true) if new.contains(PAUSED) => sys::EV_DISABLE,
                (true, true) if old.contains(PAUSED) => sys::EV_ENABLE,
                _ => continue,
            };
            match self.change(fd, filter as i16, flags as u16) {
                Ok(_) => {}
                // The filter went away when its descriptor was closed.
                Err(_) if flags == sys::EV_DELETE => {}
                // The filter does not support this kind of file, such as a device.
                Err(error) if NOT_SUPPORTED.contains(&error.raw_os_error().unwrap_or(0)) => {
                    return Err(io::Error::from_raw_os_error(libc::EPERM));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, fd: RawFd, old: Interest) {
        for (_, filter) in FILTERS.into_iter().filter(|&(bit, _)| old.contains(bit)) {
            let _ = self.change(fd, filter as i16, sys::EV_DELETE as u16);
        }
    }

    fn change(&mut self, fd: RawFd, filter: i16, flags: u16) -> io::Result<()> {
        let change = sys::change(fd, filter, flags);
        let queue = self.queue.as_raw_fd();
        // SAFETY: one change is read from `change`, which outlives the call; no room for events is
        // given, so errors come back through errno.
        check(unsafe { sys::kevent(queue, &change, 1, ptr::null_mut(), 0, ptr::null()) }).map(drop)
    }

    pub(super) fn wait(&mut self, timeout: Option<u64>, ready: &mut Vec<Ready>) -> io::Result<()> {
        let time = timespec(timeout);
        let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: `events` has room for BATCH entries, and the kernel writes no more; `time`
        // outlives the call.
        let count = check(unsafe {
            sys::kevent(
                self.queue.as_raw_fd(),
                ptr::null(),
                0,
                self.events.as_mut_ptr(),
                BATCH as _, // a size_t on NetBSD, an int elsewhere
                time,
            )
        })?;
        // SAFETY: the kernel has initialised `count` entries.
        unsafe { self.events.set_len(count as usize) };
        let start = ready.len();
        for event in &self.events {
            let fd = event.ident as RawFd;
            let failed = event.flags as u16 & sys::EV_ERROR as u16 != 0;
            // EV_EOF on the read filter is end of file, which the next read finds; on the write
            // filter it means that the other side is gone, which the next write finds.
            let readable = event.filter as i16 == sys::EVFILT_READ as i16;
            let entry =
                Ready { fd, readable, writable: !readable, hangup: failed, ..Ready::default() };
            // The two filters of a descriptor are two events; report them as one.
            match ready[start..].iter_mut().rev().take(8).find(|other| other.fd == fd) {
                Some(other) => {
                    other.readable |= entry.readable;
                    other.writable |= entry.writable;
                    other.hangup |= entry.hangup;
                }
                None => ready.push(entry),
            }
        }
        Ok(())
    }
}

impl Drop for Poller {
    /// A kqueue is not inherited across fork(2): in a child, its number is free or already names
    /// another file, which must stay open.
    fn drop(&mut self) {
        if self.owner == process::id() {
            // SAFETY: `queue` is dropped here and nowhere else, and not used after this.
            unsafe { ManuallyDrop::drop(&mut self.queue) };
        }
    }
}
