//! FreeBSD: what there is for a process that connects to addresses.
//!
//! Capability mode (cap_enter(2)) forbids connect(2), and so is nothing for a relay: it needs a
//! second process that connects for it. What is left: no process is started (setrlimit(2), which
//! does not bind root), no program gives rights (procctl(2)), and the standard descriptors are good
//! for nothing but what they are for (cap_rights_limit(2)).

use super::{Confinement, Needs};
use crate::os::check;
use std::io;
use std::mem::MaybeUninit;

/// As [`super::enter`].
pub(super) fn enter(_needs: &Needs<'_>) -> io::Result<Confinement> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: setrlimit(2) reads `none`, which outlives the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &none) })?;
    limit_rights(0, libc::CAP_READ)?;
    limit_rights(1, libc::CAP_WRITE)?;
    limit_rights(2, libc::CAP_WRITE)?;
    let mut enable = libc::PROC_NO_NEW_PRIVS_ENABLE;
    // SAFETY: PROC_NO_NEW_PRIVS_CTL reads one int, which `enable` is; 0 is this process.
    check(unsafe {
        libc::procctl(libc::P_PID, 0, libc::PROC_NO_NEW_PRIVS_CTL, (&raw mut enable).cast())
    })?;
    Ok(Confinement::Whole)
}

/// Leaves a descriptor this right, and those that the C library's streams use.
fn limit_rights(fd: libc::c_int, right: u64) -> io::Result<()> {
    const STREAM: u64 = libc::CAP_FCNTL | libc::CAP_FSTAT | libc::CAP_IOCTL | libc::CAP_SEEK;
    let mut rights = MaybeUninit::<libc::cap_rights_t>::uninit();
    // SAFETY: __cap_rights_init, which is what the macro of cap_rights_init(3) calls, initialises
    // `rights` from words that end with a zero, and cap_rights_limit(2) reads them.
    let result = unsafe {
        const END: u64 = 0;
        libc::__cap_rights_init(
            libc::CAP_RIGHTS_VERSION,
            rights.as_mut_ptr(),
            right | STREAM,
            libc::CAP_EVENT,
            END,
        );
        check(libc::cap_rights_limit(fd, rights.as_ptr()))
    };
    match result {
        // A kernel without capabilities.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        result => result.map(drop),
    }
}
