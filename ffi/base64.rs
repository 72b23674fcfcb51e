//! misc/base64.h: base 64 with the padding of MAVIS.
//!
//! # Safety
//! Pointers are null, or to as many bytes as their length says; the length of the output is a
//! pointer to the bytes there is room for.
#![allow(clippy::missing_safety_doc, reason = "said at the head of the file")]

use super::guard;
use super::memory::{put_text, slice};
use crate::library::base64;
use std::ffi::{c_char, c_int};

/// Writes a result and its length; -1 if there is no room for it, or for as much as the C library
/// asks for.
unsafe fn put(
    out: *mut c_char,
    length: *mut usize,
    least: usize,
    result: Option<Vec<u8>>,
) -> c_int {
    // SAFETY: as the caller promises.
    unsafe {
        match (length.as_ref().copied(), result) {
            (Some(room), Some(result)) if room >= least && put_text(out, room, &result) => {
                length.write(result.len());
                0
            }
            _ => -1,
        }
    }
}

/// `int base64enc(char *in, size_t in_len, char *out, size_t *out_len)`: 0 and the text with a NUL,
/// its length in `*out_len`; -1 if it does not fit.
#[no_mangle]
pub unsafe extern "C" fn base64enc(
    data: *const c_char,
    data_length: usize,
    out: *mut c_char,
    length: *mut usize,
) -> c_int {
    guard(-1, || {
        // SAFETY: as the caller promises.
        let text = base64::encode(unsafe { slice(data.cast(), data_length) });
        // SAFETY: as above.
        unsafe { put(out, length, 0, Some(text)) }
    })
}

/// `int base64dec(char *in, size_t in_len, char *out, size_t *out_len)`: 0 and the data with a NUL,
/// its length in `*out_len`; -1 if the text is not base 64, or the data might not fit.
#[no_mangle]
pub unsafe extern "C" fn base64dec(
    text: *const c_char,
    text_length: usize,
    out: *mut c_char,
    length: *mut usize,
) -> c_int {
    guard(-1, || {
        // SAFETY: as the caller promises.
        let data = base64::decode(unsafe { slice(text.cast(), text_length) });
        // SAFETY: as above.
        unsafe { put(out, length, text_length / 4 * 3 + 1, data) }
    })
}
