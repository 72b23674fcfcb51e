//! The descriptors that a process starts with, and how many it may have.

use crate::os::{check, descriptor, entry, log};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;

/// Makes sure that descriptors 0 to 2 are open, so that no socket takes their numbers, and marks
/// all others close-on-exec: with close_range(2) on Linux and FreeBSD, one by one elsewhere. Not
/// with closefrom(3): descriptors handed over to this process stay in use.
pub fn sanitize_descriptors() {
    for fd in 0..=2 {
        // SAFETY: fcntl(F_GETFD) and open(2) of a constant path take no memory of ours.
        unsafe {
            if libc::fcntl(fd, libc::F_GETFD) < 0 {
                // The lowest free number is `fd`, as those below it are open.
                libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            }
        }
    }
    // Called by number, because not every C library on Linux has the function.
    #[cfg(target_os = "linux")]
    let marked = {
        const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
        // SAFETY: close_range(2) with this flag only marks descriptors.
        unsafe {
            libc::syscall(libc::SYS_close_range, 3u32, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) == 0
        }
    };
    // FreeBSD versions that do not know the flag return EINVAL.
    #[cfg(target_os = "freebsd")]
    let marked = {
        let flags = libc::CLOSE_RANGE_CLOEXEC as libc::c_int;
        // SAFETY: close_range(2) with this flag only marks descriptors.
        unsafe { libc::close_range(3, libc::c_uint::MAX, flags) == 0 }
    };
    #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
    let marked = false;
    if marked {
        return;
    }
    for fd in open_descriptors().into_iter().filter(|&fd| fd > 2) {
        let _ = descriptor::close_on_exec(&fd);
    }
}

/// Descriptor numbers that include all open ones: the entries of /dev/fd, or every number that may
/// be open.
fn open_descriptors() -> Vec<RawFd> {
    // Without fdescfs, /dev/fd on the BSDs holds a fixed set of nodes (3 or 64), whatever is open.
    let listed = !cfg!(any(
        target_os = "freebsd",
        target_os = "netbsd",
        target_os = "openbsd",
        target_os = "dragonfly"
    ));
    match std::fs::read_dir("/dev/fd") {
        Ok(entries) if listed => {
            entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
        }
        // The limit may be so high that trying every number would take seconds.
        _ => (3..descriptor_limit().clamp(1024, 65_536) as RawFd).collect(),
    }
}

/// Raises the soft limit of open descriptors to the hard limit, or to `cap` if that is lower, and
/// returns the limit in effect. The hard limit stays: the next image may use another mechanism.
pub fn raise_descriptor_limit(cap: Option<u64>) -> u64 {
    // Not through nix, which has no limits for Solaris and illumos.
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit(2) writes into `limit`, which outlives the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } < 0 {
        return 1024;
    }
    let (soft, hard) = (limit.rlim_cur, limit.rlim_max);
    // macOS reports an infinite hard limit but refuses an infinite soft one; it always accepts
    // OPEN_MAX of sys/syslimits.h (setrlimit(2), section COMPATIBILITY).
    let most = if cfg!(target_vendor = "apple") && hard == libc::RLIM_INFINITY {
        soft.max(10240)
    } else {
        hard
    };
    let cap = cap.map_or(libc::RLIM_INFINITY, |cap| cap as libc::rlim_t);
    let wanted = libc::rlimit { rlim_cur: most.min(cap), rlim_max: hard };
    // SAFETY: setrlimit(2) reads `wanted`, which outlives the call.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &wanted) };
    // rlim_t is signed on FreeBSD, but a limit is never negative.
    let in_effect = if result == 0 { wanted.rlim_cur } else { soft };
    in_effect as u64
}

/// The soft limit of open descriptors.
pub fn descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit(2) writes into `limit`, which outlives the call.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } {
        #[allow(clippy::unnecessary_cast, reason = "the types differ between systems")]
        0 => limit.rlim_cur as u64,
        _ => 1024,
    }
}

/// Connects a standard descriptor to /dev/null.
pub fn redirect_to_null(fd: RawFd) -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    // SAFETY: dup2(2) takes plain numbers; nothing in this program owns descriptors 0 to 2.
    check(unsafe { libc::dup2(null.as_raw_fd(), fd) }).map(drop)
}

/// Moves standard input to another descriptor and points descriptor 0 to /dev/null, so that nobody
/// can mistake it for the original.
pub fn take_standard_input() -> io::Result<OwnedFd> {
    let moved = io::stdin().as_fd().try_clone_to_owned()?;
    redirect_to_null(0)?;
    Ok(moved)
}

/// Reopens standard error on a file (`debug redirect`), which is truncated, or on a device.
pub fn redirect_stderr(path: &Path) -> io::Result<()> {
    let file = entry::open_log(path)?;
    // SAFETY: dup2(2) takes plain numbers; nothing in this program owns descriptor 2.
    check(unsafe { libc::dup2(file.as_raw_fd(), 2) })?;
    log::stderr_changed();
    Ok(())
}

/// True if standard error is a terminal.
pub fn stderr_is_terminal() -> bool {
    io::IsTerminal::is_terminal(&io::stderr())
}
