//! select(2), everywhere, for up to FD_SETSIZE descriptors.

use super::{Interest, Ready};
use crate::os::check;
use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::ptr;

pub(super) struct Poller {
    /// Boxed, because the other mechanisms' pollers are a tenth of its size.
    sets: Box<Sets>,
    /// One more than the highest descriptor in either set.
    limit: RawFd,
}

#[derive(Clone, Copy)]
struct Sets {
    read: libc::fd_set,
    write: libc::fd_set,
}

fn empty_set() -> libc::fd_set {
    // SAFETY: fd_set is plain data; FD_ZERO makes it a valid empty set.
    unsafe {
        let mut set = mem::zeroed();
        libc::FD_ZERO(&mut set);
        set
    }
}

fn put(set: &mut libc::fd_set, fd: RawFd, on: bool) {
    // SAFETY: the callers have checked that `fd` is below FD_SETSIZE.
    unsafe {
        if on {
            libc::FD_SET(fd, set);
        } else {
            libc::FD_CLR(fd, set);
        }
    }
}

fn has(set: &libc::fd_set, fd: RawFd) -> bool {
    // SAFETY: the callers have checked that `fd` is below FD_SETSIZE.
    unsafe { libc::FD_ISSET(fd, set) }
}

impl Poller {
    pub(super) fn new() -> io::Result<Poller> {
        let sets = Sets { read: empty_set(), write: empty_set() };
        Ok(Poller { sets: Box::new(sets), limit: 0 })
    }

    pub(super) fn update(&mut self, fd: RawFd, _old: Interest, new: Interest) -> io::Result<()> {
        // The process's descriptor limit is lowered to FD_SETSIZE with this mechanism, but an
        // inherited descriptor may be higher.
        if fd < 0 || fd as usize >= libc::FD_SETSIZE {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let new = new.reported();
        put(&mut self.sets.read, fd, new.contains(Interest::READ));
        put(&mut self.sets.write, fd, new.contains(Interest::WRITE));
        if new.intersects(Interest::READ | Interest::WRITE) {
            self.limit = self.limit.max(fd + 1);
        } else {
            while self.limit > 0
                && !has(&self.sets.read, self.limit - 1)
                && !has(&self.sets.write, self.limit - 1)
            {
                self.limit -= 1;
            }
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, fd: RawFd, old: Interest) {
        // Can fail only for a descriptor that was refused before and is in no set.
        let _ = self.update(fd, old, Interest::empty());
    }

    pub(super) fn wait(&mut self, timeout: Option<u64>, ready: &mut Vec<Ready>) -> io::Result<()> {
        let Sets { mut read, mut write } = *self.sets;
        // Casts to `_`, because the libc crate deprecates the fields' type names for musl.
        let mut time = timeout.map(|ms| libc::timeval {
            // Some systems refuse more than 10^8 seconds.
            tv_sec: (ms / 1000).min(1_000_000) as _,
            tv_usec: (ms % 1000 * 1000) as _,
        });
        let time = time.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
        // SAFETY: the sets and the time outlive the call; `limit` is at most FD_SETSIZE.
        let mut count = check(unsafe {
            libc::select(self.limit, &mut read, &mut write, ptr::null_mut(), time)
        })?;
        for fd in 0..self.limit {
            if count <= 0 {
                break;
            }
            let (readable, writable) = (has(&read, fd), has(&write, fd));
            if readable || writable {
                count -= i32::from(readable) + i32::from(writable);
                ready.push(Ready { fd, readable, writable, ..Ready::default() });
            }
        }
        Ok(())
    }
}
