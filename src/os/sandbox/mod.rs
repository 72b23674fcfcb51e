//! What a worker gives up once it has started, where the system lets it: from then on it relays,
//! logs and asks its modules, and whoever takes it over can do little else.
//!
//! What is refused fails, and does not end the process: a surprise of a library then costs what it
//! wanted, and not all sessions.

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

use std::io;
use std::path::Path;

/// Confines this process for the rest of its life. It keeps its descriptors, may open connections,
/// also to the UNIX-domain `sockets`, and may read files. As far as the system can refuse that, it
/// may not start or execute anything, open files for writing, or look into other processes.
///
/// False if the system has nothing of that kind. After an error some of it may be in force.
pub fn enter(sockets: &[&Path]) -> io::Result<bool> {
    system::enter(sockets)
}
