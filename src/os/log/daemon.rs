//! The system's log daemon, reached without blocking.
//!
//! The C libraries' syslog(3) blocks while the daemon does not read, and with it every session.
//! Where the daemon has a socket we send the datagrams ourselves, in the form that the C library
//! uses. Elsewhere syslog(3) is the only way; there it leads into the kernel (log(4D) of Solaris
//! and illumos, sendsyslog(2) of OpenBSD) or to a service that always reads (macOS).

use super::super::process::Pid;
use std::ffi::{CStr, CString};

#[cfg(any(
    target_os = "linux",
    target_os = "android",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "dragonfly"
))]
mod socket;

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "dragonfly"
)))]
mod socket {
    //! This system's log daemon has no socket.

    use super::super::queue::Written;

    #[derive(Debug)]
    pub(in super::super) struct Socket;

    impl Socket {
        pub(in super::super) const fn new() -> Socket {
            Socket
        }

        pub(in super::super) fn open(&mut self) {}

        pub(in super::super) fn is_stream(&self) -> bool {
            false
        }

        pub(in super::super) fn send(&mut self, _line: &[u8]) -> Written {
            Written::Lost
        }
    }

    /// syslog(3) is the only way.
    pub(super) fn is_ours() -> bool {
        false
    }
}

pub(super) use socket::Socket;

/// True if lines are sent by [`Socket`], false if they go to syslog(3). They do if the daemon has
/// no socket, and also if the program or a preloaded library defines its own syslog(3): it wants to
/// see the lines.
pub(super) fn is_ours() -> bool {
    static OURS: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *OURS.get_or_init(socket::is_ours)
}

/// openlog(3), for the lines of [`c_library`] and for C code that calls syslog(3) itself.
/// `ident` must outlive the next call.
pub(super) fn open_c_library(ident: &CStr, facility: i32) {
    // Make syslog(3) connect now only if we use it: connecting to an old daemon may block.
    let when = if is_ours() { libc::LOG_ODELAY } else { libc::LOG_NDELAY };
    // SAFETY: openlog(3) keeps the pointer; the caller makes sure that the string stays.
    unsafe { libc::openlog(ident.as_ptr(), libc::LOG_PID | when, facility) };
}

/// syslog(3).
pub(super) fn c_library(priority: i32, text: &str) {
    let Ok(line) = CString::new(text) else {
        return;
    };
    // SAFETY: the format is a constant with one string argument, which is NUL-terminated.
    unsafe { libc::syslog(priority, c"%s".as_ptr(), line.as_ptr()) };
}

/// A line for the socket, in the form of syslog(3): RFC 3164 section 5.4, without a host name.
pub(super) fn line(priority: i32, ident: &str, pid: Pid, text: &str) -> Vec<u8> {
    let time = timestamp(super::super::wall_clock());
    format!("<{priority}>{time}{ident}[{pid}]: {text}").into_bytes()
}

/// `Mmm dd hh:mm:ss `, in English in every locale. Empty if the year cannot be represented.
fn timestamp(seconds: u64) -> String {
    use super::super::calendar::{self, MONTHS};
    let time = i64::try_from(seconds).ok().and_then(|seconds| {
        // musl's syslog(3) writes UTC, and log daemons on such systems expect that.
        match cfg!(target_env = "musl") {
            true => Some(calendar::universal_time(seconds)),
            false => calendar::local_time(seconds),
        }
    });
    time.map_or_else(String::new, |time| {
        let month = MONTHS.get(usize::from(time.month)).unwrap_or(&"Jan");
        format!("{month} {:2} {:02}:{:02}:{:02} ", time.day, time.hour, time.minute, time.second)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_as_those_of_the_c_library() {
        let line = String::from_utf8(line(70, "relay", 12, "text")).expect("text");
        let rest = line.strip_prefix("<70>").expect("the priority");
        assert_eq!(&rest[3..4], " ");
        assert_eq!(rest[4..6].trim_start().parse::<u8>().ok().map(|day| day > 0), Some(true));
        assert_eq!((&rest[6..7], &rest[9..10], &rest[12..13]), (" ", ":", ":"));
        assert_eq!(&rest[15..], " relay[12]: text");
    }
}
