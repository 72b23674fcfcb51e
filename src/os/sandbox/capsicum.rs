//! FreeBSD: what a process can give up and still connect to addresses.
//!
//! Capability mode (cap_enter(2)) forbids connect(2); a relay could use it only with a second
//! process that connects for it. What remains: starting no processes (setrlimit(2), which does not
//! bind root), executing no programs that gain rights (procctl(2)), and restricting the standard
//! descriptors to their purpose (cap_rights_limit(2)).

use super::{Confinement, Needs};
use crate::os::check;
use std::io;
use std::mem::MaybeUninit;

#[cfg(not(event_shims))]
mod sys {
    pub(super) use libc::{
        __cap_rights_init as cap_rights_init, __cap_rights_set as cap_rights_set, cap_rights_limit,
        cap_rights_t, procctl, CAP_EVENT, CAP_FCNTL, CAP_FSTAT, CAP_IOCTL, CAP_READ,
        CAP_RIGHTS_VERSION, CAP_SEEK, CAP_WRITE, PROC_NO_NEW_PRIVS_CTL, PROC_NO_NEW_PRIVS_ENABLE,
        P_PID,
    };
}

/// The tests' emulation on Linux; the numbers are those of FreeBSD's sys/capsicum.h and
/// sys/procctl.h.
#[cfg(event_shims)]
mod sys {
    use libc::{c_int, c_void};

    #[allow(non_camel_case_types)]
    #[repr(C)]
    pub(super) struct cap_rights_t {
        rights: [u64; 2],
    }
    const fn right(index: u32, bit: u64) -> u64 {
        1 << (57 + index) | bit
    }
    pub(super) const CAP_RIGHTS_VERSION: c_int = 0;
    pub(super) const CAP_READ: u64 = right(0, 0x1);
    pub(super) const CAP_WRITE: u64 = right(0, 0x2);
    pub(super) const CAP_SEEK: u64 = right(0, 0xc);
    pub(super) const CAP_FCNTL: u64 = right(0, 0x8000);
    pub(super) const CAP_FSTAT: u64 = right(0, 0x80000);
    pub(super) const CAP_EVENT: u64 = right(1, 0x20);
    pub(super) const CAP_IOCTL: u64 = right(1, 0x80);
    pub(super) const P_PID: c_int = 0;
    pub(super) const PROC_NO_NEW_PRIVS_CTL: c_int = 19;
    pub(super) const PROC_NO_NEW_PRIVS_ENABLE: c_int = 1;
    extern "C" {
        #[link_name = "shim_cap_rights_init"]
        pub(super) fn cap_rights_init(
            version: c_int,
            rights: *mut cap_rights_t,
            ...
        ) -> *mut cap_rights_t;
        #[link_name = "shim_cap_rights_set"]
        pub(super) fn cap_rights_set(rights: *mut cap_rights_t, ...) -> *mut cap_rights_t;
        #[link_name = "shim_cap_rights_limit"]
        pub(super) fn cap_rights_limit(fd: c_int, rights: *const cap_rights_t) -> c_int;
        #[link_name = "shim_procctl"]
        pub(super) fn procctl(kind: c_int, id: i64, command: c_int, data: *mut c_void) -> c_int;
    }
}

/// The rights that the C library's streams and an event loop need on a descriptor.
const STREAM: [u64; 5] =
    [sys::CAP_EVENT, sys::CAP_FCNTL, sys::CAP_FSTAT, sys::CAP_IOCTL, sys::CAP_SEEK];

/// As [`super::enter`].
pub(super) fn enter(_needs: &Needs<'_>) -> io::Result<Confinement> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: setrlimit(2) reads `none`, which outlives the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &none) })?;
    limit_rights(0, sys::CAP_READ)?;
    limit_rights(1, sys::CAP_WRITE)?;
    limit_rights(2, sys::CAP_WRITE)?;
    let mut enable = sys::PROC_NO_NEW_PRIVS_ENABLE;
    // SAFETY: PROC_NO_NEW_PRIVS_CTL reads one int, which `enable` is; 0 is this process.
    let result = check(unsafe {
        sys::procctl(sys::P_PID, 0, sys::PROC_NO_NEW_PRIVS_CTL, (&raw mut enable).cast())
    });
    match result {
        // FreeBSD before 13.1 does not know it.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
        result => drop(result?),
    }
    Ok(Confinement::Whole)
}

/// Restricts a descriptor to this right and those of [`STREAM`].
fn limit_rights(fd: libc::c_int, right: u64) -> io::Result<()> {
    let mut rights = MaybeUninit::<sys::cap_rights_t>::uninit();
    // SAFETY: cap_rights_init(3) initialises `rights`; it and cap_rights_set take words up to a
    // zero. cap_rights_limit(2) reads them.
    let result = unsafe {
        const END: u64 = 0;
        sys::cap_rights_init(sys::CAP_RIGHTS_VERSION, rights.as_mut_ptr(), END);
        // One at a time: a right's word includes its index, so or-ing two rights of different index
        // gives an invalid one, and the C library aborts.
        for right in STREAM.into_iter().chain([right]) {
            sys::cap_rights_set(rights.as_mut_ptr(), right, END);
        }
        check(sys::cap_rights_limit(fd, rights.as_ptr()))
    };
    match result {
        // This kernel has no capabilities.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        result => result.map(drop),
    }
}
