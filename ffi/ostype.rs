//! misc/ostype.h: the type of the system.

use super::memory::put_text;
use super::{bytes, guard};
use crate::library::ostype;
use crate::os::names;
use std::ffi::{c_char, CString};
use std::sync::OnceLock;

fn running() -> &'static CString {
    static RUNNING: OnceLock<CString> = OnceLock::new();
    RUNNING.get_or_init(|| CString::new(names::system_type()).unwrap_or_default())
}

/// `char *ostype(void)`: `sysname-release-machine` in lower case, valid for ever.
#[no_mangle]
pub extern "C" fn ostype() -> *mut c_char {
    guard(c"".as_ptr().cast_mut(), || running().as_ptr().cast_mut())
}

/// `char *ostypef(char *format, char *s, size_t len)`: writes the format, with `%o` and `%O`
/// replaced by the type of the running system and that the library was built for. Returns `s`.
///
/// # Safety
/// The format is null or NUL-terminated; there is room for `len` bytes at `s`, unless it is null.
#[no_mangle]
pub unsafe extern "C" fn ostypef(
    format: *const c_char,
    out: *mut c_char,
    room: usize,
) -> *mut c_char {
    guard(out, || {
        let built = [std::env::consts::OS, "-", std::env::consts::ARCH].concat();
        // SAFETY: as the caller promises.
        let format = unsafe { bytes(format) }.unwrap_or_default();
        let text = ostype::expand(format, room, running().as_bytes(), built.as_bytes());
        // SAFETY: as above.
        unsafe { put_text(out, room, &text) };
        out
    })
}
