//! mavis/blowfish.h: the cipher of queries to remote backends.
//!
//! # Safety
//! A key is null or points at as many bytes as its length says; a context is null or came from
//! `blowfish_init`; data is null or points at as many bytes as the function says, which nobody
//! else uses during the call.
#![allow(clippy::missing_safety_doc, reason = "said at the head of the file")]

use super::guard;
use super::memory::{slice, slice_mut};
use crate::library::blowfish::{encrypted_length, Key};
use crate::os::malloc::Owned;
use std::ffi::c_char;
use std::ptr;

/// `struct blowfish_ctx *blowfish_init(char *key, size_t keylen)`: expands a key into memory that
/// is given back with free(3).
#[no_mangle]
pub unsafe extern "C" fn blowfish_init(key: *const c_char, length: usize) -> *mut Key {
    guard(ptr::null_mut(), || {
        // SAFETY: as the caller promises.
        Owned::new(Key::new(unsafe { slice(key.cast(), length) })).into_raw()
    })
}

/// `size_t blowfish_enc(struct blowfish_ctx *ctx, a_char *data, size_t dlen)`: encrypts in place
/// and returns the length, for which there must be room: a multiple of 8, or 4 more. What is added
/// to the data is zero before it is encrypted.
#[no_mangle]
pub unsafe extern "C" fn blowfish_enc(key: *const Key, data: *mut u8, length: usize) -> usize {
    guard(0, || {
        let whole = encrypted_length(length);
        // SAFETY: as the caller promises; there is room for the result.
        unsafe {
            let Some(key) = key.as_ref().filter(|_| !data.is_null()) else {
                return 0;
            };
            ptr::write_bytes(data.add(length), 0, whole - length);
            key.encrypt(slice_mut(data, whole));
        }
        whole
    })
}

/// `size_t blowfish_dec(struct blowfish_ctx *ctx, a_char *data, size_t dlen)`: decrypts in place,
/// up to the next multiple of 8, and returns a number of 32-bit words.
#[no_mangle]
pub unsafe extern "C" fn blowfish_dec(key: *const Key, data: *mut u8, length: usize) -> usize {
    guard(0, || {
        // SAFETY: as the caller promises.
        unsafe {
            let Some(key) = key.as_ref().filter(|_| !data.is_null()) else {
                return 0;
            };
            key.decrypt(slice_mut(data, length.saturating_add(7) / 8 * 8));
        }
        encrypted_length(length) / 4
    })
}
