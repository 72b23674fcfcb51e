//! misc/utf.h: UTF-16.

use super::entry::{entry, Out};
use super::memory::slice;
use crate::library::utf;
use crate::os::malloc;
use std::ffi::{c_char, c_int};

entry! {
    /// `int utf8_to_utf16le(char *in, size_t inlen, char **out, size_t *outlen)`: converts the text
    /// up to its first NUL to UTF-16. Returns 0 and the result in `*out`, to be freed with free(3),
    /// with a NUL that `*outlen` does not count; -1 if the text is not UTF-8.
    #[otherwise(-1)]
    pub fn utf8_to_utf16le(
        text: *const c_char,
        length: usize,
        out: &mut *mut c_char,
        out_length: Out<usize>,
    ) -> c_int {
        // SAFETY: the text has that many bytes.
        let Some(converted) = utf::utf8_to_utf16le(unsafe { slice(text.cast(), length) }) else {
            return -1;
        };
        *out = malloc::copy(&[&*converted, &[0, 0]].concat()).as_ptr().cast();
        out_length.put(converted.len());
        0
    }
}
