//! /dev/poll, poll(7D): Solaris before event ports.
//!
//! Writing an entry for a descriptor that is in the set adds to its events, so a change of interest
//! is a POLLREMOVE followed by a new entry. A closed descriptor stays in the set, so a removal is
//! written at once.

use super::poll::{from_poll_bits, poll_bits};
use super::{backend::milliseconds, Interest, Ready};
use crate::os::{check, check_size};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// poll(7D); not in the libc crate.
const POLLREMOVE: libc::c_short = 0x0800;

/// struct dvpoll of sys/devpoll.h.
#[repr(C)]
struct DvPoll {
    dp_fds: *mut libc::pollfd,
    dp_nfds: libc::c_ulong,
    dp_timeout: libc::c_int,
}

#[cfg(not(event_shims))]
mod sys {
    /// _IO('P', 1)-like number of sys/devpoll.h: DPIOC is 0xD0 << 8, DP_POLL the first.
    const DP_POLL: libc::c_int = (0xD0 << 8) | 1;

    pub(super) unsafe fn open() -> libc::c_int {
        // SAFETY: a constant, NUL-terminated path.
        unsafe { libc::open(c"/dev/poll".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) }
    }
    pub(super) unsafe fn write(
        fd: libc::c_int,
        set: *const libc::pollfd,
        bytes: usize,
    ) -> libc::ssize_t {
        // SAFETY: the caller's.
        unsafe { libc::write(fd, set.cast(), bytes) }
    }
    pub(super) unsafe fn poll(fd: libc::c_int, request: *mut super::DvPoll) -> libc::c_int {
        // SAFETY: the caller's.
        unsafe { libc::ioctl(fd, DP_POLL, request) }
    }
}

/// The test-only emulation on Linux.
#[cfg(event_shims)]
mod sys {
    extern "C" {
        #[link_name = "shim_devpoll_open"]
        pub(super) fn open() -> libc::c_int;
        #[link_name = "shim_devpoll_write"]
        pub(super) fn write(
            fd: libc::c_int,
            set: *const libc::pollfd,
            bytes: usize,
        ) -> libc::ssize_t;
        #[link_name = "shim_devpoll_ioctl"]
        pub(super) fn poll(fd: libc::c_int, request: *mut super::DvPoll) -> libc::c_int;
    }
}

/// Most events that one wait takes. The rest stay in the kernel for the next turn.
const BATCH: usize = 64;

pub(super) struct Poller {
    device: OwnedFd,
    events: Vec<libc::pollfd>,
    /// How many events a wait asks for; at most [`BATCH`].
    batch: usize,
}

impl Poller {
    pub(super) fn new() -> io::Result<Poller> {
        // SAFETY: opens a device; none of our memory is involved.
        let fd = check(unsafe { sys::open() })?;
        // SAFETY: the descriptor has just been created and nothing else owns it.
        let device = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Poller { device, events: Vec::with_capacity(BATCH), batch: BATCH })
    }

    pub(super) fn update(&mut self, fd: RawFd, old: Interest, new: Interest) -> io::Result<()> {
        let mut entries = [libc::pollfd { fd, events: POLLREMOVE, revents: 0 }; 2];
        // A pause is a removal here: an entry without events would still report hang-ups.
        let mut used = usize::from(!old.reported().is_empty());
        if !new.reported().is_empty() {
            entries[used].events = poll_bits(new);
            used += 1;
        }
        self.write(&entries[..used])
    }

    pub(super) fn remove(&mut self, fd: RawFd, _old: Interest) {
        let _ = self.write(&[libc::pollfd { fd, events: POLLREMOVE, revents: 0 }]);
    }

    fn write(&mut self, entries: &[libc::pollfd]) -> io::Result<()> {
        let bytes = std::mem::size_of_val(entries);
        // SAFETY: `bytes` is the size of the entries.
        check_size(unsafe { sys::write(self.device.as_raw_fd(), entries.as_ptr(), bytes) })
            .map(drop)
    }

    pub(super) fn wait(&mut self, timeout: Option<u64>, ready: &mut Vec<Ready>) -> io::Result<()> {
        let count = loop {
            let mut request = DvPoll {
                dp_fds: self.events.as_mut_ptr(),
                dp_nfds: self.batch as libc::c_ulong,
                dp_timeout: milliseconds(timeout),
            };
            // SAFETY: `dp_fds` has room for BATCH entries, and the kernel writes no more than it
            // is asked for.
            match check(unsafe { sys::poll(self.device.as_raw_fd(), &mut request) }) {
                // The system refuses a number that reaches the process's descriptor limit
                // (poll(7D)), which may have been lowered since the last wait.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) && self.batch > 1 => {
                    self.batch /= 2;
                }
                result => break result?,
            }
        };
        // SAFETY: the kernel has initialised `count` entries.
        unsafe { self.events.set_len(count as usize) };
        ready.extend(self.events.iter().map(|event| from_poll_bits(event.fd, event.revents)));
        Ok(())
    }
}
