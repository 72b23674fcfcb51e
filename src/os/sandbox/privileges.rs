//! Solaris and illumos: gives up basic privileges (privileges(7)), which every process starts with.

use super::{Confinement, Needs, Network};
use std::ffi::{c_char, c_int, CStr};
use std::io;
use std::ptr;

extern "C" {
    /// priv_set(3C), the convenient form of setppriv(2).
    #[cfg_attr(event_shims, link_name = "shim_priv_set")]
    fn priv_set(operation: c_int, which: *const c_char, ...) -> c_int;
}

const PRIV_OFF: c_int = 1;
const PRIV_ALLSETS: *const c_char = ptr::null();

/// Privileges that no worker needs.
const NEEDLESS: [&CStr; 5] =
    [c"file_link_any", c"proc_exec", c"proc_fork", c"proc_info", c"proc_session"];
/// Connecting to a UNIX-domain socket counts as writing to a file.
const WRITE: &CStr = c"file_write";

/// Sockets other than UNIX-domain ones.
const NETWORK: &CStr = c"net_access";

/// As [`super::enter`].
pub(super) fn enter(needs: &Needs<'_>) -> io::Result<Confinement> {
    let write = needs.sockets.is_empty().then_some(WRITE);
    let network = (needs.network == Network::None).then_some(NETWORK);
    for privilege in NEEDLESS.into_iter().chain(write).chain(network) {
        let none: *const c_char = ptr::null();
        // SAFETY: names that are NUL-terminated, and end with a null pointer.
        if unsafe { priv_set(PRIV_OFF, PRIV_ALLSETS, privilege.as_ptr(), none) } != 0 {
            let error = io::Error::last_os_error();
            // EINVAL: this system is too old to have the privilege.
            if error.raw_os_error() != Some(libc::EINVAL) {
                return Err(error);
            }
        }
    }
    Ok(Confinement::Whole)
}
