//! mavis/mavis.h: text for people.

use super::guard;
use super::memory::{put_text, slice};
use crate::library::escape;
use std::ffi::c_char;

/// `char *escape_string(char *in, size_t inlen, char *out, size_t *outlen)`: makes bytes printable,
/// as many as fit into `*outlen` bytes with a NUL; sets `*outlen` to the length, and returns `out`.
///
/// # Safety
/// Pointers are null or valid, for as many bytes as the lengths say.
#[no_mangle]
pub unsafe extern "C" fn escape_string(
    data: *const c_char,
    length: usize,
    out: *mut c_char,
    out_length: *mut usize,
) -> *mut c_char {
    guard(out, || {
        // SAFETY: as the caller promises.
        let Some(out_length) = (unsafe { out_length.as_mut() }) else {
            return out;
        };
        // SAFETY: as above.
        let data = unsafe { slice(data.cast(), length) };
        let text = escape::escape(data, out_length.saturating_sub(4));
        // SAFETY: as above.
        unsafe { put_text(out, *out_length, &text) };
        *out_length = text.len();
        out
    })
}
