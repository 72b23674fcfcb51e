//! misc/utf.h: UTF-16.

use super::guard;
use super::memory::{put, slice};
use crate::library::utf;
use crate::os::malloc;
use std::ffi::{c_char, c_int};

/// `int utf8_to_utf16le(char *in, size_t inlen, char **out, size_t *outlen)`: 0, and in `*out` the
/// text up to its first NUL as UTF-16, to be given back with free(3), with a NUL that does not
/// count; -1 if it is not UTF-8.
///
/// # Safety
/// Pointers are null or valid; the text has that many bytes.
#[no_mangle]
pub unsafe extern "C" fn utf8_to_utf16le(
    text: *const c_char,
    length: usize,
    out: *mut *mut c_char,
    out_length: *mut usize,
) -> c_int {
    guard(-1, || {
        // SAFETY: as the caller promises.
        let converted = utf::utf8_to_utf16le(unsafe { slice(text.cast(), length) });
        let Some(converted) = converted.filter(|_| !out.is_null()) else {
            return -1;
        };
        let memory = malloc::allocate(converted.len() + 2, "utf8_to_utf16le").as_ptr();
        // SAFETY: the memory has room for the text; the results are where the caller says.
        unsafe {
            memory.copy_from_nonoverlapping(converted.as_ptr(), converted.len());
            out.write(memory.cast());
            put(out_length, converted.len());
        }
        0
    })
}
