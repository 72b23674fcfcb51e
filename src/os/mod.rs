//! The only door to the operating system.
//!
//! Everything above this module is safe code that never calls libc. Each file here wraps one
//! family of system calls, owns its descriptors, retries what POSIX says must be retried, and
//! returns `io::Error` with the errno of the call that failed.

pub mod address;
pub mod anonymous;
pub mod background;
pub mod calendar;
#[cfg(target_os = "linux")]
mod capabilities;
pub mod channel;
pub mod children;
pub mod common_data;
pub mod crash;
pub mod descriptor;
pub mod dns;
#[cfg(event_shims)]
pub(crate) mod emulation;
pub mod entry;
#[cfg(feature = "curl")]
pub mod fetch;
pub mod files;
pub mod hash;
pub mod ktls;
pub mod log;
pub mod malloc;
pub mod module;
pub mod names;
pub mod parent;
pub mod pidfile;
pub mod pipe;
pub mod process;
pub mod regex;
pub mod sandbox;
pub mod scope;
pub mod secret;
pub mod shared;
pub mod shm;
pub mod signals;
pub mod sockaddr;
pub mod socket;
pub mod splicing;
pub mod supervisor;
pub mod title;
pub mod tls;

pub use channel::Channel;
pub use pipe::Pipe;
pub use socket::{Listener, Socket};

use std::io;

/// Turns the −1 convention of system calls into a `Result`, reading errno once.
pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Like [`check`], for calls that return a byte count.
pub(crate) fn check_size(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Seconds since 1970.
pub fn wall_clock() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

/// Milliseconds on the monotonic clock, which all processes share and nobody can set.
pub fn monotonic_clock() -> u64 {
    monotonic_microseconds() / 1000
}

/// Like [`monotonic_clock`], in microseconds.
pub fn monotonic_microseconds() -> u64 {
    // SAFETY: timespec is plain data, which clock_gettime(2) fills; every system has this clock.
    let now = unsafe {
        let mut now: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now);
        now
    };
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

/// True if the error means "try again when the descriptor is ready".
pub fn would_block(error: &io::Error) -> bool {
    match error.raw_os_error() {
        // Every event ends with such an error; translating the number into a kind takes longer.
        Some(number) => number == libc::EAGAIN || number == libc::EWOULDBLOCK,
        None => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// True if a signal has interrupted the call, before it did anything.
#[inline]
pub fn interrupted(error: &io::Error) -> bool {
    match error.raw_os_error() {
        Some(number) => number == libc::EINTR,
        None => error.kind() == io::ErrorKind::Interrupted,
    }
}

/// True if the process or the system has run out of descriptors (EMFILE, ENFILE) or of memory for
/// them (ENOBUFS, ENOMEM). These conditions pass; they must neither end the process nor make it
/// spin.
pub fn out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// True if the system is out of memory (ENOMEM, ENOBUFS), a condition that passes.
pub fn out_of_memory(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}

/// True if a connect attempt failed because of this host, not of the remote: the local address does
/// not exist, ports have run out (EADDRNOTAVAIL, EADDRINUSE, EAGAIN), or memory has.
pub fn host_is_short(error: &io::Error) -> bool {
    let address = matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE));
    address || would_block(error) || out_of_memory(error)
}

/// The system's text for an error, as strerror(3) gives it: without Rust's "(os error N)" suffix.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}
