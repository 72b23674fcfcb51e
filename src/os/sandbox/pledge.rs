//! OpenBSD: pledge(2) and unveil(2).

use super::{Confinement, Needs};
use crate::os::check;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// What pledge(2) calls the life of a worker: its descriptors and those that the broker sends,
/// remotes, names of addresses, and files for reading. With `error`, what is refused fails with
/// ENOSYS instead of ending the process.
const PROMISES: &std::ffi::CStr = c"stdio rpath inet unix dns recvfd error";

/// As [`super::enter`].
pub(super) fn enter(needs: &Needs<'_>) -> io::Result<Confinement> {
    unveil(Path::new("/"), c"r")?;
    for socket in needs.sockets {
        match unveil(socket, c"rw") {
            // In a folder that is not there: nobody can be reached.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    // Without the promise `unveil` that was the last one.
    // SAFETY: a NUL-terminated text; the null pointer leaves alone what executed programs promise.
    check(unsafe { libc::pledge(PROMISES.as_ptr(), ptr::null()) })?;
    Ok(Confinement::Whole)
}

fn unveil(path: &Path, permissions: &std::ffi::CStr) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: two NUL-terminated texts that outlive the call.
    check(unsafe { libc::unveil(path.as_ptr(), permissions.as_ptr()) }).map(drop)
}
