//! epoll(7), Linux.

use super::{backend::milliseconds, Interest, Ready, PAUSED};
use crate::os::check;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Most events that one wait takes. The rest stay in the kernel for the next turn.
const BATCH: usize = 256;

/// A stream's entry has in its data, above the descriptor, the generation and this flag.
const GENERATION_SHIFT: u32 = 32;
const EDGE: u64 = 1 << 40;

pub(super) struct Poller {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

fn bits(interest: Interest) -> u32 {
    if interest.contains(PAUSED) {
        // epoll still reports errors and hang-ups, but no more than once.
        return (libc::EPOLLET | libc::EPOLLONESHOT) as u32;
    }
    // HANGUP alone is an empty set: EPOLLERR and EPOLLHUP are always reported.
    let mut bits = 0;
    if interest.contains(Interest::READ) {
        bits |= libc::EPOLLIN;
    }
    if interest.contains(Interest::WRITE) {
        bits |= libc::EPOLLOUT;
    }
    bits as u32
}

impl Poller {
    pub(super) fn new() -> io::Result<Poller> {
        // SAFETY: epoll_create1(2) takes a plain number.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor has just been created and nothing else owns it.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Poller { epoll, events: Vec::with_capacity(BATCH) })
    }

    pub(super) fn update(&mut self, fd: RawFd, old: Interest, new: Interest) -> io::Result<()> {
        let operation = if old.is_empty() { libc::EPOLL_CTL_ADD } else { libc::EPOLL_CTL_MOD };
        let control = |operation| {
            let mut event = libc::epoll_event { events: bits(new), u64: fd as u64 };
            // SAFETY: `event` outlives the call; the descriptors are plain numbers.
            check(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &mut event) })
        };
        match control(operation) {
            // The number was closed and reused without `remove`.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                control(libc::EPOLL_CTL_ADD).map(drop)
            }
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                control(libc::EPOLL_CTL_MOD).map(drop)
            }
            other => other.map(drop),
        }
    }

    pub(super) fn remove(&mut self, fd: RawFd, _old: Interest) {
        let (epoll, operation) = (self.epoll.as_raw_fd(), libc::EPOLL_CTL_DEL);
        // SAFETY: the call takes plain numbers; no event is read when an entry is deleted.
        unsafe { libc::epoll_ctl(epoll, operation, fd, std::ptr::null_mut()) };
    }

    /// Watches for every edge. EPOLLRDHUP is asked for so that data and the end behind it are found
    /// together; EPOLLPRI because a read stops at the mark of urgent data, however much follows it.
    pub(super) fn add_stream(&mut self, fd: RawFd, generation: u8) -> io::Result<()> {
        let bits =
            libc::EPOLLIN | libc::EPOLLPRI | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        let data = fd as u64 | (u64::from(generation) << GENERATION_SHIFT) | EDGE;
        let mut event = libc::epoll_event { events: bits as u32, u64: data };
        let add = libc::EPOLL_CTL_ADD;
        // SAFETY: `event` outlives the call; the descriptors are plain numbers.
        check(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), add, fd, &mut event) }).map(drop)
    }

    pub(super) fn wait(&mut self, timeout: Option<u64>, ready: &mut Vec<Ready>) -> io::Result<()> {
        // SAFETY: `events` has room for BATCH entries, and the kernel writes no more.
        let count = check(unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                BATCH as libc::c_int,
                milliseconds(timeout),
            )
        })?;
        // SAFETY: the kernel has initialised `count` entries.
        unsafe { self.events.set_len(count as usize) };
        ready.extend(self.events.iter().map(|event| {
            let bits = event.events as libc::c_int;
            let data = event.u64;
            Ready {
                fd: data as u32 as RawFd,
                readable: bits & libc::EPOLLIN != 0,
                writable: bits & libc::EPOLLOUT != 0,
                hangup: bits & (libc::EPOLLERR | libc::EPOLLHUP) != 0,
                ended: bits & libc::EPOLLRDHUP != 0,
                urgent: bits & libc::EPOLLPRI != 0,
                lost: false,
                edge: (data & EDGE != 0).then_some((data >> GENERATION_SHIFT) as u8),
            }
        }));
        Ok(())
    }
}
