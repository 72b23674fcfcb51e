//! The socket of the log daemon.

use super::super::queue::Written;
use crate::os;
use crate::os::address::{Address, Family};
use crate::os::monotonic_clock;
use crate::os::socket::{Kind, Protocol};
use std::ffi::{c_void, CStr};
use std::io;
use std::path::PathBuf;

/// Where daemons listen: _PATH_LOG of syslog.h, preceded by root's _PATH_LOG_PRIV.
#[cfg(any(target_os = "linux", target_os = "android"))]
const PATHS: &[&str] = &["/dev/log"];
#[cfg(target_os = "freebsd")]
const PATHS: &[&str] = &["/var/run/logpriv", "/var/run/log", "/dev/log"];
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
const PATHS: &[&str] = &["/var/run/log", "/dev/log"];

/// Lengths to try when a line is too long for a datagram: the BSDs take 2 KiB.
const SHORTENED: [usize; 3] = [8192, 2000, 1000];
/// If the daemon was there within this many milliseconds, assume it is being restarted and let
/// lines wait.
const ABSENCE: u64 = 60_000;
/// A daemon that does not read may have been replaced: try its path again after this many
/// milliseconds.
const PATIENCE: u64 = 1000;

/// A connection to the daemon, made when needed and renewed when the daemon is replaced.
///
/// A datagram socket is kept when the daemon goes, and connected again later: the process may be
/// confined by then, and unable to create another socket.
#[derive(Debug)]
pub(in super::super) struct Socket {
    connection: Connection,
    /// When the path was last tried.
    asked: u64,
    /// When the daemon was last reachable.
    seen: Option<u64>,
}

#[derive(Debug)]
enum Connection {
    None,
    /// A datagram socket, connected or to be reconnected.
    Datagrams(os::Socket),
    /// A stream to a daemon of the old kind, which expects a NUL after each line.
    Stream(os::Socket),
}

impl Socket {
    pub(in super::super) const fn new() -> Socket {
        Socket { connection: Connection::None, asked: 0, seen: None }
    }

    /// Connects before the first line is written.
    pub(in super::super) fn open(&mut self) {
        if matches!(self.connection, Connection::None) {
            let _ = self.connect();
        }
    }

    /// True if the daemon takes a stream (the old kind).
    pub(in super::super) fn is_stream(&self) -> bool {
        matches!(self.connection, Connection::Stream(_))
    }

    fn connect(&mut self) -> io::Result<()> {
        self.asked = monotonic_clock();
        let mut failure = io::Error::from_raw_os_error(libc::ENOENT);
        for path in PATHS {
            match self.connect_to(&Address::Unix(PathBuf::from(path))) {
                Ok(()) => {
                    self.seen = Some(self.asked);
                    return Ok(());
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn connect_to(&mut self, path: &Address) -> io::Result<()> {
        let create = |kind| os::Socket::new(Family::Unix, kind, Protocol::Tcp);
        let fd = match std::mem::replace(&mut self.connection, Connection::None) {
            Connection::Datagrams(fd) => fd,
            _ => create(Kind::Datagram)?,
        };
        match fd.connect(path) {
            Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => {
                let fd = create(Kind::Stream)?;
                fd.connect(path)?;
                self.connection = Connection::Stream(fd);
                Ok(())
            }
            result => {
                self.connection = Connection::Datagrams(fd);
                result.map(drop)
            }
        }
    }

    /// Sends one line, without waiting.
    pub(in super::super) fn send(&mut self, line: &[u8]) -> Written {
        let written = self.send_or_connect(line);
        if written == Written::Whole {
            self.seen = Some(monotonic_clock());
        }
        written
    }

    fn send_or_connect(&mut self, line: &[u8]) -> Written {
        if matches!(self.connection, Connection::None) {
            if let Err(error) = self.connect() {
                return self.failed(&error);
            }
        }
        let error = match self.try_send(line) {
            Ok(written) => return written,
            Err(error) => error,
        };
        let full = is_full(&error);
        if full && monotonic_clock().saturating_sub(self.asked) < PATIENCE {
            return Written::Part(0);
        }
        match error.raw_os_error() {
            // The program has closed our descriptor; its number may belong to another file by now,
            // so do not close it.
            Some(libc::EBADF | libc::ENOTSOCK) => {
                if let Connection::Datagrams(fd) | Connection::Stream(fd) =
                    std::mem::replace(&mut self.connection, Connection::None)
                {
                    std::mem::forget(fd);
                }
            }
            // Part of a line is already in the stream; the rest must follow there.
            _ if full && matches!(self.connection, Connection::Stream(_)) => {
                return Written::Part(0);
            }
            _ => {}
        }
        let sent = self.connect().and_then(|()| self.try_send(line));
        sent.unwrap_or_else(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> Written {
        let now = monotonic_clock();
        let recent = self.seen.is_some_and(|seen| now.saturating_sub(seen) < ABSENCE);
        if recent || is_full(error) {
            Written::Part(0)
        } else {
            Written::Lost
        }
    }

    fn try_send(&self, line: &[u8]) -> io::Result<Written> {
        match &self.connection {
            Connection::None => Err(io::Error::from_raw_os_error(libc::ENOTCONN)),
            Connection::Datagrams(fd) => match fd.write(line) {
                Err(error) if is_too_long(&error) => shortened(fd, line),
                result => result.map(|_| Written::Whole),
            },
            Connection::Stream(fd) => {
                let line = [line, b"\0"].concat();
                let written = fd.write(&line)?;
                Ok(if written == line.len() { Written::Whole } else { Written::Part(written) })
            }
        }
    }
}

fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMSGSIZE)
}

/// Sends the beginning of a line, as much of it as the system accepts.
fn shortened(fd: &os::Socket, line: &[u8]) -> io::Result<Written> {
    for length in SHORTENED {
        match fd.write(&line[..line.len().min(length)]) {
            Err(error) if is_too_long(&error) => {}
            result => return result.map(|_| Written::Whole),
        }
    }
    // No length was accepted; drop the line so that it does not hold up the others.
    Ok(Written::Lost)
}

/// True if the daemon does not read as fast as we write.
fn is_full(error: &io::Error) -> bool {
    crate::os::would_block(error)
        || matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}

/// True if syslog(3) is the C library's own: in the same object as a function that nobody replaces.
pub(super) fn is_ours() -> bool {
    fn object(function: *const c_void) -> Option<*mut c_void> {
        // SAFETY: Dl_info is plain data, for which all zeroes is a value; dladdr(3) fills it, and
        // takes any address.
        unsafe {
            let mut info: libc::Dl_info = std::mem::zeroed();
            (libc::dladdr(function.cast_mut().cast(), &mut info) != 0).then_some(info.dli_fbase)
        }
    }
    /// The address of the function that this name resolves to.
    fn named(name: &CStr) -> *const c_void {
        // SAFETY: dlsym(3) takes a NUL-terminated name.
        unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
    }
    object(named(c"syslog")) == object(named(c"getsubopt"))
}
