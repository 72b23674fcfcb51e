//! OpenBSD: pledge(2) and unveil(2).

use super::{Confinement, Needs, Network};
use crate::os::check;
use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

#[cfg(not(event_shims))]
use libc as sys;

/// The tests' emulation on Linux.
#[cfg(event_shims)]
mod sys {
    use libc::{c_char, c_int};

    extern "C" {
        #[link_name = "shim_pledge"]
        pub(super) fn pledge(promises: *const c_char, of_programs: *const c_char) -> c_int;
        #[link_name = "shim_unveil"]
        pub(super) fn unveil(path: *const c_char, permissions: *const c_char) -> c_int;
    }
}

/// The promises of pledge(2) that a worker needs: its descriptors and those that the broker sends,
/// remotes, names of addresses, and reading files. With `error`, a forbidden call fails with ENOSYS
/// instead of ending the process.
const PROMISES: &CStr = c"stdio rpath inet unix dns recvfd error";
/// Modules may query name servers in a routing domain of their own (SO_RTABLE).
const PROMISES_WITH_MODULES: &CStr = c"stdio rpath inet unix dns recvfd wroute error";

/// Without the network: the log remains.
const PROMISES_WITHOUT_NETWORK: &CStr = c"stdio rpath unix recvfd error";

/// As [`super::enter`].
pub(super) fn enter(needs: &Needs<'_>) -> io::Result<Confinement> {
    unveil(Path::new("/"), c"r")?;
    for socket in needs.sockets {
        match unveil(socket, c"rw") {
            // The socket's folder does not exist, so there is nobody to reach.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    let promises = match needs.network {
        Network::None => PROMISES_WITHOUT_NETWORK,
        Network::Any if needs.modules => PROMISES_WITH_MODULES,
        Network::Any => PROMISES,
    };
    // No more unveil(2) after this: its promise is missing.
    // SAFETY: a NUL-terminated text; the null pointer leaves alone what executed programs promise.
    check(unsafe { sys::pledge(promises.as_ptr(), ptr::null()) })?;
    Ok(Confinement::Whole)
}

fn unveil(path: &Path, permissions: &CStr) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: two NUL-terminated texts that outlive the call.
    check(unsafe { sys::unveil(path.as_ptr(), permissions.as_ptr()) }).map(drop)
}
