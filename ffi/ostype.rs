//! misc/ostype.h: the type of the operating system.

use super::entry::entry;
use super::memory::put_text;
use crate::library::ostype;
use crate::os::names;
use std::ffi::{c_char, CString};
use std::sync::OnceLock;

/// Static, as C code keeps the pointer.
fn running() -> &'static CString {
    static RUNNING: OnceLock<CString> = OnceLock::new();
    RUNNING.get_or_init(|| CString::new(names::system_type()).unwrap_or_default())
}

entry! {
    /// `char *ostype(void)`: `sysname-release-machine` in lower case, in static memory.
    #[otherwise(c"".as_ptr().cast_mut())]
    pub fn ostype() -> *mut c_char {
        running().as_ptr().cast_mut()
    }

    /// `char *ostypef(char *format, char *s, size_t len)`: writes the format, with `%o` replaced by
    /// the type of the running system and `%O` by that of the system the library was built for.
    /// Returns `s`.
    #[otherwise(out)]
    pub fn ostypef(format: Option<&[u8]>, out: *mut c_char, room: usize) -> *mut c_char {
        let built = [std::env::consts::OS, "-", std::env::consts::ARCH].concat();
        let format = format.unwrap_or_default();
        let text = ostype::expand(format, room, running().as_bytes(), built.as_bytes());
        // SAFETY: there is that room.
        unsafe { put_text(out, room, &text) };
        out
    }
}
