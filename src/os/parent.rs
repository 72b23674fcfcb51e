//! How a process learns that its parent has died.
//!
//! The channel cannot tell: a UNIX-domain datagram socket reports nothing when its other end
//! closes.

use super::signals::Signal;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// How often the parent is sent something, in milliseconds. A message that fails shows that the
/// parent is dead; on illumos and Solaris nothing else does.
pub const KEEPALIVE_PERIOD: u64 =
    if cfg!(any(target_os = "illumos", target_os = "solaris")) { 2_000 } else { 60_000 };

/// Becomes readable when the parent dies.
#[derive(Debug)]
pub struct Death(OwnedFd);

impl AsRawFd for Death {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Asks for `signal` when the parent dies, or returns a descriptor that becomes readable then.
/// Does nothing on systems with neither (illumos, Solaris).
pub fn watch(signal: Signal) -> Option<Death> {
    ask_for(signal);
    descriptor().map(Death)
}

/// Asks for `signal` when the parent dies, on systems that offer it.
fn ask_for(signal: Signal) {
    #[cfg(all(target_os = "linux", not(event_shims)))]
    // SAFETY: prctl(PR_SET_PDEATHSIG) takes plain numbers.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong);
    }
    #[cfg(target_os = "freebsd")]
    {
        let mut number = signal as libc::c_int;
        // SAFETY: PROC_PDEATHSIG_CTL reads one int, which `number` is.
        unsafe {
            libc::procctl(libc::P_PID, 0, libc::PROC_PDEATHSIG_CTL, (&raw mut number).cast());
        }
    }
    #[cfg(not(any(all(target_os = "linux", not(event_shims)), target_os = "freebsd")))]
    let _ = signal;
}

#[cfg(not(any(
    event_shims,
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly",
    target_vendor = "apple"
)))]
fn descriptor() -> Option<OwnedFd> {
    None
}

/// A separate kqueue, because the event loop may use another mechanism; it becomes readable when it
/// holds an event. Created early: OpenBSD allows watching other processes only before pledge(2).
#[cfg(any(
    event_shims,
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly",
    target_vendor = "apple"
))]
fn descriptor() -> Option<OwnedFd> {
    use super::{check, descriptor};

    // SAFETY: kqueue(2) takes no arguments.
    let queue = descriptor::own(check(unsafe { sys::kqueue() }).ok()?);
    descriptor::close_on_exec(&queue).ok()?;
    let change = sys::exit_of(nix::unistd::getppid().as_raw());
    let none = std::ptr::null_mut();
    // SAFETY: one change is read, which outlives the call; there is no room for events, and no
    // timeout.
    check(unsafe { sys::kevent(queue.as_raw_fd(), &change, 1, none, 0, std::ptr::null()) }).ok()?;
    Some(queue)
}

#[cfg(any(
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly",
    target_vendor = "apple"
))]
mod sys {
    pub(super) use libc::{kevent, kqueue};

    pub(super) fn exit_of(pid: libc::pid_t) -> libc::kevent {
        // SAFETY: struct kevent is plain data, for which all zeroes is a valid value; the types of
        // its fields differ between the systems.
        let mut change: libc::kevent = unsafe { std::mem::zeroed() };
        change.ident = pid as _;
        change.filter = libc::EVFILT_PROC as _;
        change.flags = libc::EV_ADD as _;
        change.fflags = libc::NOTE_EXIT as _;
        change
    }
}

/// The tests' emulation on Linux; the numbers are those of FreeBSD's sys/event.h.
#[cfg(event_shims)]
mod sys {
    pub(super) use crate::os::emulation::{kevent, kqueue};
    use crate::os::emulation::{Kevent, EV_ADD};

    const EVFILT_PROC: i16 = -5;
    const NOTE_EXIT: u32 = 0x8000_0000;

    pub(super) fn exit_of(pid: libc::pid_t) -> Kevent {
        let (data, udata) = (0, std::ptr::null_mut());
        let (filter, flags, fflags) = (EVFILT_PROC, EV_ADD, NOTE_EXIT);
        Kevent { ident: pid as usize, filter, flags, fflags, data, udata }
    }
}
