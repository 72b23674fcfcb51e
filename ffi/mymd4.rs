//! misc/mymd4.h: MD4.
//!
//! # Safety
//! A context is null or points at 88 bytes, aligned to 4, that nobody else uses during the call;
//! all but `MD4Init` take one that `MD4Init` has set. Other pointers are null or point at as many
//! bytes as the length says, a digest at 16.
#![allow(clippy::missing_safety_doc, reason = "said at the head of the file")]

use super::guard;
use super::memory::{put, slice};
use crate::library::md::Md4;
use std::ffi::c_uint;

/// `void MD4Init(myMD4_CTX *context)`: starts a digest.
#[no_mangle]
pub unsafe extern "C" fn MD4Init(context: *mut Md4) {
    // SAFETY: as the caller promises.
    guard((), || unsafe { put(context, Md4::new()) });
}

/// `void MD4Update(myMD4_CTX *context, u_char *input, u_int inputLen)`: continues it.
#[no_mangle]
pub unsafe extern "C" fn MD4Update(context: *mut Md4, data: *const u8, length: c_uint) {
    // SAFETY: as the caller promises; a number in the context that is none of its own only spoils
    // the digest.
    guard((), || unsafe {
        if let Some(context) = context.as_mut() {
            context.update(slice(data, length as usize));
        }
    });
}

/// `void MD4Final(u_char digest[16], myMD4_CTX *context)`: ends it, and clears the context.
#[no_mangle]
pub unsafe extern "C" fn MD4Final(digest: *mut [u8; 16], context: *mut Md4) {
    // SAFETY: as the caller promises.
    guard((), || unsafe {
        if let Some(context) = context.as_mut() {
            put(digest, context.finish());
        }
    });
}
