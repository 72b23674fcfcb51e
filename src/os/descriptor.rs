//! What every descriptor has: an owner, flags, readiness.

use super::check;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Gives a type that owns one descriptor the conversions of the standard library. `from`: types
/// that own the same kind of descriptor.
macro_rules! owner {
    ($name:ident $(, from $other:ty)*) => {
        $(impl From<$other> for $name {
            fn from(other: $other) -> $name {
                $name(other.into())
            }
        })*
        impl From<OwnedFd> for $name {
            fn from(fd: OwnedFd) -> $name {
                $name(fd)
            }
        }
        impl From<$name> for OwnedFd {
            fn from(owner: $name) -> OwnedFd {
                owner.0
            }
        }
        impl std::os::fd::IntoRawFd for $name {
            fn into_raw_fd(self) -> RawFd {
                self.0.into_raw_fd()
            }
        }
        impl AsFd for $name {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.as_fd()
            }
        }
        impl AsRawFd for $name {
            #[inline]
            fn as_raw_fd(&self) -> RawFd {
                self.0.as_raw_fd()
            }
        }
    };
}
pub(in crate::os) use owner;

/// Takes ownership of a descriptor that a system call has just returned.
pub(in crate::os) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the callers pass a descriptor that the kernel has just created for this process
    // and that nothing else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Takes ownership of an inherited descriptor, by number.
///
/// The caller must be the only code that owns this number: descriptor 0 of a worker, or a
/// descriptor that the parent named when it handed it over. Fails if the number is not open.
pub fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(F_GETFD) takes plain numbers and fails for a closed descriptor.
    check(unsafe { libc::fcntl(fd, libc::F_GETFD) })?;
    Ok(own(fd))
}

/// Calls that would have to wait fail instead (EAGAIN).
pub fn set_nonblocking(fd: &(impl AsRawFd + ?Sized)) -> io::Result<()> {
    set_waiting(fd.as_raw_fd(), 1)
}

/// Calls wait for what they need.
pub fn set_blocking(fd: &(impl AsRawFd + ?Sized)) -> io::Result<()> {
    set_waiting(fd.as_raw_fd(), 0)
}

fn set_waiting(fd: RawFd, mut value: libc::c_int) -> io::Result<()> {
    // SAFETY: FIONBIO reads one int, which `value` is.
    check(unsafe { libc::ioctl(fd, libc::FIONBIO, &mut value) }).map(drop)
}

/// Programs that this process executes do not get the descriptor (FD_CLOEXEC).
pub fn close_on_exec(fd: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: fcntl(F_SETFD) takes plain numbers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) }).map(drop)
}

/// Programs that this process executes get the descriptor, under its number.
pub fn keep_on_exec(fd: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: fcntl(F_SETFD) takes plain numbers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) }).map(drop)
}

/// True if reading from the descriptor blocks until there is data.
pub fn is_blocking(fd: &impl AsRawFd) -> bool {
    // SAFETY: fcntl(F_GETFL) takes plain numbers.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) & libc::O_NONBLOCK == 0 }
}

/// What poll(2) reports for a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollState {
    /// Reading will not block.
    pub readable: bool,
    /// Writing will not block.
    pub writable: bool,
    /// The descriptor has failed.
    pub error: bool,
    /// The other end has hung up.
    pub hangup: bool,
}

/// Polls a descriptor without blocking. A number that is not open reports an error.
pub fn poll_state(fd: RawFd) -> PollState {
    let events = libc::POLLIN | libc::POLLOUT;
    let mut entry = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one entry is given, and it outlives the call.
    unsafe { libc::poll(&mut entry, 1, 0) };
    let has = |bits| entry.revents & bits != 0;
    PollState {
        readable: has(libc::POLLIN),
        writable: has(libc::POLLOUT),
        error: has(libc::POLLERR | libc::POLLNVAL),
        hangup: has(libc::POLLHUP),
    }
}
