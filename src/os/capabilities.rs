//! Capabilities of Linux: giving them up, but for the one that lets a process use addresses that are
//! not this host's.
//!
//! Makes system calls only, because it runs in signal handlers and between fork and exec.

use super::check;
use std::io;

/// struct __user_cap_header_struct (linux/capability.h).
#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// struct __user_cap_data_struct, of which there are two: for the lower and the upper 32.
#[repr(C)]
#[derive(Clone, Copy)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The version with two halves, and the calling thread.
const HEADER: Header = Header { version: 0x2008_0522, pid: 0 };
/// Numbers of capabilities, from the same header.
const NET_ADMIN: u32 = 12;
const NET_RAW: u32 = 13;

/// Those of the calling thread.
#[derive(Clone, Copy)]
pub(super) struct Capabilities {
    effective: u32,
    inheritable: u32,
}

impl Capabilities {
    /// None at all: what most confined threads have.
    #[cfg(seccomp)]
    pub(super) const NONE: Capabilities = Capabilities { effective: 0, inheritable: 0 };

    /// The one that foreign addresses need, if this thread may have it. Either of two will do; the
    /// weaker one is preferred.
    pub(super) fn for_transparent_sockets() -> io::Result<Capabilities> {
        let mut header = HEADER;
        let mut own = [Half { effective: 0, permitted: 0, inheritable: 0 }; 2];
        // SAFETY: capget(2) uses the header and fills two elements, which outlive the call.
        let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, own.as_mut_ptr()) };
        check(result as libc::c_int)?;
        let kept = [NET_RAW, NET_ADMIN].map(|number| own[0].permitted & 1 << number);
        let effective = kept.into_iter().find(|&bit| bit != 0).unwrap_or(0);
        Ok(Capabilities { effective, inheritable: 0 })
    }

    /// Makes these all that the thread has and may have.
    pub(super) fn apply(self) -> io::Result<()> {
        let Capabilities { effective, inheritable } = self;
        let mut header = HEADER;
        let nothing = Half { effective: 0, permitted: 0, inheritable: 0 };
        let wanted = [Half { effective, permitted: effective, inheritable }, nothing];
        // SAFETY: capset(2) uses the header and reads two elements, which outlive the call.
        let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, wanted.as_ptr()) };
        check(result as libc::c_int).map(drop)
    }

    /// As [`apply`](Self::apply), also for the program that is executed next.
    pub(super) fn apply_and_pass_on(self) -> io::Result<()> {
        Capabilities { inheritable: self.effective, ..self }.apply()?;
        for number in (0..u32::BITS).filter(|number| self.effective & 1 << number != 0) {
            let raise = libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong;
            let (number, none): (libc::c_ulong, libc::c_ulong) = (number.into(), 0);
            // SAFETY: prctl(PR_CAP_AMBIENT) takes plain numbers.
            check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, raise, number, none, none) })?;
        }
        Ok(())
    }
}

/// Lets the thread keep what it may have when it stops being root, until it executes a program.
pub(super) fn outlive_root() -> io::Result<()> {
    let (yes, none): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: prctl(PR_SET_KEEPCAPS) takes plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, yes, none, none, none) }).map(drop)
}

/// Programs that this thread executes get nothing of what it has.
pub(super) fn pass_nothing_on() -> io::Result<()> {
    let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong;
    let none: libc::c_ulong = 0;
    // SAFETY: prctl(PR_CAP_AMBIENT) takes plain numbers.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, clear, none, none, none) }).map(drop)
}
