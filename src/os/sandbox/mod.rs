//! What a worker gives up once it has started, where the system lets it: from then on it relays,
//! logs and asks its modules, and whoever takes it over can do little else.
//!
//! What is refused fails, and does not end the process: a surprise of a library then costs what it
//! wanted, and not all sessions.

#[cfg(seccomp)]
mod landlock;
#[cfg_attr(target_os = "freebsd", path = "capsicum.rs")]
#[cfg_attr(target_os = "openbsd", path = "pledge.rs")]
#[cfg_attr(any(target_os = "illumos", target_os = "solaris"), path = "privileges.rs")]
#[cfg_attr(seccomp, path = "seccomp.rs")]
#[cfg_attr(
    not(any(
        target_os = "freebsd",
        target_os = "openbsd",
        target_os = "illumos",
        target_os = "solaris",
        seccomp
    )),
    path = "none.rs"
)]
mod system;
#[cfg(seccomp)]
mod threads;

/// The code for other systems over the tests' emulations of their calls.
#[cfg(event_shims)]
mod capsicum;
#[cfg(event_shims)]
mod pledge;
#[cfg(event_shims)]
mod privileges;

use std::io;
use std::path::Path;

/// What a worker still needs once it has started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Needs<'a> {
    /// UNIX-domain sockets of remotes.
    pub sockets: &'a [&'a Path],
    /// The log is at a UNIX-domain socket that takes streams.
    pub log_streams: bool,
    /// There are modules: they may read any file and ask servers of their own.
    pub modules: bool,
    /// The kernel handles records of TLS, and is told about them with sendmsg(2).
    pub kernel_tls: bool,
    /// Where the system is to write a core file after a crash.
    pub core_directory: Option<&'a Path>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confinement {
    /// The system has nothing of that kind.
    None,
    /// All that there is.
    Whole,
    /// So many threads of modules block all signals: what is given up thread by thread they have
    /// still.
    WithoutThreads(usize),
}

/// Confines this process for the rest of its life. It keeps its descriptors and may open connections. As
/// far as the system can refuse that, it may not start or execute anything, open files for writing, look
/// into other processes, or do more with files and UNIX-domain sockets than it `needs`.
///
/// After an error some of it may be in force.
pub fn enter(needs: &Needs<'_>) -> io::Result<Confinement> {
    #[cfg(event_shims)]
    match std::env::var("TCPRELAY_TEST_SYSTEM").as_deref() {
        Ok("freebsd") => return capsicum::enter(needs),
        Ok("openbsd") => return pledge::enter(needs),
        Ok("illumos") => return privileges::enter(needs),
        _ => {}
    }
    system::enter(needs)
}

#[cfg(all(test, event_shims))]
mod foreign_tests;
#[cfg(all(test, seccomp))]
mod tests;
