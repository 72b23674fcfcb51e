//! misc/mymd5.h: MD5. `myMD5_CTX` has 88 bytes; garbage in it only spoils the digest.

use super::entry::{entry, Out};
use super::memory::slice;
use crate::library::md::Md5;
use std::ffi::c_int;

entry! {
    /// `void myMD5Init(myMD5_CTX *context)`: starts a digest.
    pub fn myMD5Init(context: Out<Md5>) {
        context.put(Md5::new());
    }

    /// `void myMD5Update(myMD5_CTX *context, void *input, size_t inputLen)`: adds data to it.
    pub fn myMD5Update(context: &mut Md5, data: *const u8, length: usize) {
        // SAFETY: the data has that many bytes.
        context.update(unsafe { slice(data, length) });
    }

    /// `void myMD5Final(u_char digest[16], myMD5_CTX *context)`: finishes it, and clears the
    /// context.
    pub fn myMD5Final(digest: Out<[u8; 16]>, context: &mut Md5) {
        digest.put(context.finish());
    }

    /// `int md5v(u_char *digest, size_t digest_len, const struct iovec *iov, int iovcnt)`: the
    /// digest of several pieces. -1 if the digest is null or its length is not 16.
    #[otherwise(-1)]
    pub fn md5v(
        digest: Out<[u8; 16]>,
        digest_length: usize,
        pieces: *const libc::iovec,
        count: c_int,
    ) -> c_int {
        if !digest.is_wanted() || digest_length != 16 {
            return -1;
        }
        let mut context = Md5::new();
        // SAFETY: there are that many pieces, each as long as it says.
        unsafe {
            for piece in slice(pieces, count.try_into().unwrap_or(0)) {
                context.update(slice(piece.iov_base.cast::<u8>(), piece.iov_len));
            }
        }
        digest.put(context.finish());
        0
    }
}
