//! misc/mymd5.h: MD5.
//!
//! # Safety
//! A context is null or points at 88 bytes, aligned to 4, that nobody else uses during the call;
//! all but `myMD5Init` take one that `myMD5Init` has set. Other pointers are null or point at as
//! many bytes as the length says, a digest at 16.
#![allow(clippy::missing_safety_doc, reason = "said at the head of the file")]

use super::guard;
use super::memory::{put, slice};
use crate::library::md::Md5;
use std::ffi::c_int;

/// `void myMD5Init(myMD5_CTX *context)`: starts a digest.
#[no_mangle]
pub unsafe extern "C" fn myMD5Init(context: *mut Md5) {
    // SAFETY: as the caller promises.
    guard((), || unsafe { put(context, Md5::new()) });
}

/// `void myMD5Update(myMD5_CTX *context, void *input, size_t inputLen)`: continues it.
#[no_mangle]
pub unsafe extern "C" fn myMD5Update(context: *mut Md5, data: *const u8, length: usize) {
    // SAFETY: as the caller promises; a number in the context that is none of its own only spoils
    // the digest.
    guard((), || unsafe {
        if let Some(context) = context.as_mut() {
            context.update(slice(data, length));
        }
    });
}

/// `void myMD5Final(u_char digest[16], myMD5_CTX *context)`: ends it, and clears the context.
#[no_mangle]
pub unsafe extern "C" fn myMD5Final(digest: *mut [u8; 16], context: *mut Md5) {
    // SAFETY: as the caller promises.
    guard((), || unsafe {
        if let Some(context) = context.as_mut() {
            put(digest, context.finish());
        }
    });
}

/// `int md5v(u_char *digest, size_t digest_len, const struct iovec *iov, int iovcnt)`: the digest
/// of several pieces. -1 if the digest is null or its length is not 16.
#[no_mangle]
pub unsafe extern "C" fn md5v(
    digest: *mut [u8; 16],
    digest_length: usize,
    pieces: *const libc::iovec,
    count: c_int,
) -> c_int {
    guard(-1, || {
        if digest.is_null() || digest_length != 16 {
            return -1;
        }
        let mut context = Md5::new();
        // SAFETY: as the caller promises, and so are the pieces of the vector.
        unsafe {
            for piece in slice(pieces, count.try_into().unwrap_or(0)) {
                context.update(slice(piece.iov_base.cast::<u8>(), piece.iov_len));
            }
            put(digest, context.finish());
        }
        0
    })
}
