//! misc/base64.h: base 64 with the padding of MAVIS.

use super::entry::entry;
use super::memory::{put_text, slice};
use crate::library::base64;
use std::ffi::{c_char, c_int};

entry! {
    /// `int base64enc(char *in, size_t in_len, char *out, size_t *out_len)`: writes the text with a
    /// NUL, and its length to `*out_len`. Returns 0; -1 if it does not fit.
    #[otherwise(-1)]
    pub fn base64enc(
        data: *const c_char,
        data_length: usize,
        out: *mut c_char,
        length: &mut usize,
    ) -> c_int {
        // SAFETY: the lengths are those of the buffers.
        let (text, fits) = unsafe {
            let text = base64::encode(slice(data.cast(), data_length));
            let fits = put_text(out, *length, &text);
            (text, fits)
        };
        if !fits {
            return -1;
        }
        *length = text.len();
        0
    }

    /// `int base64dec(char *in, size_t in_len, char *out, size_t *out_len)`: writes the data with a
    /// NUL, and its length to `*out_len`. Returns 0; -1 if the text is not base 64, or the data
    /// might not fit.
    #[otherwise(-1)]
    pub fn base64dec(
        text: *const c_char,
        text_length: usize,
        out: *mut c_char,
        length: &mut usize,
    ) -> c_int {
        // SAFETY: the lengths are those of the buffers.
        let Some(data) = base64::decode(unsafe { slice(text.cast(), text_length) }) else {
            return -1;
        };
        // The C library demands room for the most data that a text of this length can hold.
        let least = text_length / 4 * 3 + 1;
        // SAFETY: as above.
        if *length < least || !unsafe { put_text(out, *length, &data) } {
            return -1;
        }
        *length = data.len();
        0
    }
}
