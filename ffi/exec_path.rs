//! mavis/spawnd_headers.h: the path of the running program.

use super::{bytes, guard};
use crate::os::malloc::Text;
use crate::os::process;
use std::ffi::c_char;
use std::os::unix::ffi::OsStrExt;

/// `void get_exec_path(char **path, char *dflt)`: sets `*path` to a copy of `dflt` if that has a
/// slash, otherwise to the path of this process's program, and to `dflt` if that is not known. It
/// is given back with free(3).
///
/// # Safety
/// `path` is null or writable, `dflt` null or NUL-terminated.
#[no_mangle]
pub unsafe extern "C" fn get_exec_path(path: *mut *mut c_char, default: *const c_char) {
    guard((), || {
        // SAFETY: as the caller promises.
        let default = unsafe { bytes(default) }.unwrap_or_default();
        let found = match process::executable() {
            Ok(found) if !default.contains(&b'/') => Text::new(found.as_os_str().as_bytes()),
            _ => Text::new(default),
        };
        if !path.is_null() {
            // SAFETY: as the caller promises.
            unsafe { path.write(found.into_raw()) };
        }
    });
}
