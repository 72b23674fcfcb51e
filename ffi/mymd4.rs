//! misc/mymd4.h: MD4. `myMD4_CTX` has 88 bytes; garbage in it only spoils the digest.

use super::entry::{entry, Out};
use super::memory::slice;
use crate::library::md::Md4;
use std::ffi::c_uint;

entry! {
    /// `void MD4Init(myMD4_CTX *context)`: starts a digest.
    pub fn MD4Init(context: Out<Md4>) {
        context.put(Md4::new());
    }

    /// `void MD4Update(myMD4_CTX *context, u_char *input, u_int inputLen)`: adds data to it.
    pub fn MD4Update(context: &mut Md4, data: *const u8, length: c_uint) {
        // SAFETY: the data has that many bytes.
        context.update(unsafe { slice(data, length as usize) });
    }

    /// `void MD4Final(u_char digest[16], myMD4_CTX *context)`: finishes it, and clears the context.
    pub fn MD4Final(digest: Out<[u8; 16]>, context: &mut Md4) {
        digest.put(context.finish());
    }
}
