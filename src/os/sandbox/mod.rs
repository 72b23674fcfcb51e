//! The sandbox: what a worker gives up once it has started, as far as the system allows. From then
//! on it relays, logs and asks its modules; an attacker who takes it over can do little else.
//!
//! A forbidden call fails instead of killing the process. If a library makes an unexpected call,
//! that call is lost, not all sessions.

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

/// The code for other systems, run against the tests' emulations of their calls.
#[cfg(event_shims)]
mod capsicum;
#[cfg(event_shims)]
mod pledge;
#[cfg(event_shims)]
mod privileges;

use std::io;
use std::path::Path;

/// Which networks a process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// It opens connections.
    #[default]
    Any,
    /// None.
    None,
}

/// What a worker still needs once it has started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Needs<'a> {
    /// Paths of remotes that are UNIX-domain sockets.
    pub sockets: &'a [&'a Path],
    /// The network.
    pub network: Network,
    /// The log daemon listens on a UNIX-domain stream socket.
    pub log_streams: bool,
    /// Modules are loaded; they may read any file and query servers of their own.
    pub modules: bool,
    /// Names are looked up: resolv.conf and the like are read, and may be replaced by other files.
    pub names: bool,
    /// The kernel handles TLS records (kTLS), which needs sendmsg(2) to set their types.
    pub kernel_tls: bool,
    /// It connects from addresses that are not this host's.
    pub transparent: bool,
    /// It accepts connections at sockets that it was given.
    pub accepts: bool,
    /// The directory where the system writes a core file after a crash.
    pub core_directory: Option<&'a Path>,
}

/// How far the confinement went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confinement {
    /// The system has no sandbox that we use.
    None,
    /// Everything that the system offers is in force.
    Whole,
    /// This many threads of modules block all signals, so they keep what is given up thread by
    /// thread.
    WithoutThreads(usize),
}

/// Confines this process for the rest of its life. It keeps its descriptors and may open
/// connections. As far as the system can forbid it, the process may not start or execute programs,
/// open files for writing, look into other processes, or do more with files and UNIX-domain sockets
/// than `needs` says.
///
/// After an error, parts of the confinement may be in force.
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
mod emulated_tests;
#[cfg(all(test, seccomp))]
mod tests;
