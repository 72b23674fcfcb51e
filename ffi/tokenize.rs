//! misc/tokenize.h: splits a line into words.

use super::entry::entry;
use super::memory::slice_mut;
use crate::library::tokenize;
use std::ffi::{c_char, c_int};
use std::ptr;

entry! {
    /// `int tokenize(char *string, char **vector, int v_len)`: splits the string in place; the
    /// vector gets the words, then a null pointer. Returns the number of words; -1 if the vector is
    /// too short, which must have two places more than there are words.
    #[otherwise(-1)]
    pub fn tokenize(string: *mut c_char, vector: *mut *mut c_char, length: c_int) -> c_int {
        // SAFETY: the vector has that length.
        let vector = unsafe { slice_mut(vector, length.try_into().unwrap_or(0)) };
        if vector.is_empty() {
            return -1;
        }
        vector[0] = ptr::null_mut();
        if string.is_null() {
            return 0;
        }
        // SAFETY: the string ends with NUL, and does not overlap the vector.
        let text = unsafe { slice_mut(string.cast::<u8>(), libc::strlen(string) + 1) };
        let Some(words) = tokenize::tokenize(text, vector.len().saturating_sub(2)) else {
            return -1;
        };
        for (place, start) in vector.iter_mut().zip(&words) {
            *place = string.wrapping_add(*start);
        }
        vector[words.len()] = ptr::null_mut();
        words.len() as c_int
    }
}
