//! mavis/blowfish.h: the cipher of queries to remote backends.

use super::entry::entry;
use super::memory::{slice, slice_mut};
use crate::library::blowfish::{encrypted_length, Key};
use crate::os::malloc::Owned;
use std::ffi::c_char;
use std::ptr::{self, NonNull};

entry! {
    /// `struct blowfish_ctx *blowfish_init(char *key, size_t keylen)`: expands a key, into memory
    /// to be freed with free(3).
    #[otherwise(ptr::null_mut())]
    pub fn blowfish_init(key: *const c_char, length: usize) -> *mut Key {
        // SAFETY: the key has that many bytes.
        Owned::new(Key::new(unsafe { slice(key.cast(), length) })).into_raw()
    }

    /// `size_t blowfish_enc(struct blowfish_ctx *ctx, a_char *data, size_t dlen)`: encrypts in
    /// place and returns the new length, for which there must be room: a multiple of 8, or 4 more.
    /// The data is padded with zeroes before it is encrypted.
    #[otherwise(0)]
    pub fn blowfish_enc(key: &Key, data: NonNull<u8>, length: usize) -> usize {
        let whole = encrypted_length(length);
        // SAFETY: there is room for the result.
        unsafe {
            data.add(length).write_bytes(0, whole - length);
            key.encrypt(slice_mut(data.as_ptr(), whole));
        }
        whole
    }

    /// `size_t blowfish_dec(struct blowfish_ctx *ctx, a_char *data, size_t dlen)`: decrypts in
    /// place, up to the next multiple of 8, and returns the length in 32-bit words.
    #[otherwise(0)]
    pub fn blowfish_dec(key: &Key, data: NonNull<u8>, length: usize) -> usize {
        // SAFETY: the buffer extends to the next multiple of 8.
        key.decrypt(unsafe { slice_mut(data.as_ptr(), length.saturating_add(7) / 8 * 8) });
        encrypted_length(length) / 4
    }
}
