//! Pipes that move bytes from socket to socket within the kernel, with splice(2) of Linux. Other
//! systems have none, and making one fails.

use super::Socket;
use std::io;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A pipe, and how many bytes it holds.
#[derive(Debug)]
pub struct Pipe {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    read: OwnedFd,
    #[cfg(any(target_os = "linux", target_os = "android"))]
    write: OwnedFd,
    #[cfg(any(target_os = "linux", target_os = "android"))]
    capacity: usize,
    length: usize,
}

/// The capacity to ask for, in bytes. More than a socket delivers at once would gain nothing.
#[cfg(any(target_os = "linux", target_os = "android"))]
const WANTED_CAPACITY: usize = 256 * 1024;
/// A smaller pipe is not worth using.
#[cfg(any(target_os = "linux", target_os = "android"))]
const LEAST_CAPACITY: usize = 64 * 1024;

/// How many pipes exist.
static COUNT: AtomicUsize = AtomicUsize::new(0);

impl Drop for Pipe {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pipe {
    /// How many pipes exist in this process.
    pub fn count() -> usize {
        COUNT.load(Ordering::Relaxed)
    }

    /// How many bytes are in the pipe.
    pub fn len(&self) -> usize {
        self.length
    }

    /// True if the pipe is empty.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Pipe {
    /// Makes a pipe (pipe2(2), fcntl(2) F_SETPIPE_SZ). Fails if there are no descriptors left, or
    /// if this user's pages for pipes are used up.
    pub fn new() -> io::Result<Pipe> {
        use super::{check, descriptor::own};
        let mut ends = [0; 2];
        // SAFETY: `ends` has room for the two descriptors.
        check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) })?;
        let (read, write) = (own(ends[0]), own(ends[1]));
        // SAFETY: fcntl(F_SETPIPE_SZ) and fcntl(F_GETPIPE_SZ) take plain numbers.
        let capacity = unsafe {
            libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, WANTED_CAPACITY as libc::c_int);
            check(libc::fcntl(write.as_raw_fd(), libc::F_GETPIPE_SZ))?
        } as usize;
        if capacity < LEAST_CAPACITY {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        COUNT.fetch_add(1, Ordering::Relaxed);
        Ok(Pipe { read, write, capacity, length: 0 })
    }

    /// Moves what a socket has received into the pipe, which must be empty, but no more than `most`
    /// bytes; 0 is end of file. Does not block.
    pub fn fill(&mut self, source: &Socket, most: usize) -> io::Result<usize> {
        debug_assert!(self.is_empty(), "a full pipe looks like an empty socket");
        let count = splice(source, &self.write, self.capacity.min(most))?;
        self.length += count;
        Ok(count)
    }

    /// Moves as much from the pipe to a socket as that takes. Does not block.
    pub fn drain(&mut self, sink: &Socket) -> io::Result<usize> {
        let count = splice(&self.read, sink, self.length)?;
        self.length -= count.min(self.length);
        Ok(count)
    }

    /// Reads everything out of the pipe.
    pub fn take(&mut self) -> io::Result<Vec<u8>> {
        use super::{check_size, interrupted};
        let mut data = vec![0; self.length];
        let mut read = 0;
        while read < data.len() {
            let rest = &mut data[read..];
            // SAFETY: the pointer and the length describe `rest`, which outlives the call.
            let result = check_size(unsafe {
                libc::read(self.read.as_raw_fd(), rest.as_mut_ptr().cast(), rest.len())
            });
            let count = match result {
                Err(error) if interrupted(&error) => continue,
                other => other?,
            };
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            read += count;
        }
        self.length = 0;
        Ok(data)
    }
}

/// splice(2) without blocking; interrupted calls are retried.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn splice(from: &impl AsRawFd, to: &impl AsRawFd, length: usize) -> io::Result<usize> {
    use super::{check_size, interrupted};
    use std::ptr::null_mut;
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    loop {
        // SAFETY: the offsets are null, the rest are plain numbers.
        let result = check_size(unsafe {
            libc::splice(from.as_raw_fd(), null_mut(), to.as_raw_fd(), null_mut(), length, flags)
        });
        match result {
            Err(error) if interrupted(&error) => {}
            other => return other,
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Pipe {
    /// This system has no splice(2).
    pub fn new() -> io::Result<Pipe> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Never called, as there is no pipe.
    pub fn fill(&mut self, _: &Socket, _: usize) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Never called, as there is no pipe.
    pub fn drain(&mut self, _: &Socket) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Never called, as there is no pipe.
    pub fn take(&mut self) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
