//! misc/md5crypt.h: passwords in the `$1$` form.

use super::entry::entry;
use crate::library::md5crypt;
use std::ffi::c_char;
use std::sync::atomic::{AtomicU8, Ordering};

/// The result with its NUL: magic, salt, a dollar, 22 digits, and room to spare.
static STORED: [AtomicU8; 64] = [const { AtomicU8::new(0) }; 64];

entry! {
    /// `char *md5crypt(const char *pw, const char *salt)`: the stored form of a password, valid
    /// until the next call. As with crypt(3), an error gives a text that is not a stored form and
    /// differs from the salt.
    #[otherwise(c"*0".as_ptr().cast_mut())]
    pub fn md5crypt(password: Option<&[u8]>, salt: Option<&[u8]>) -> *mut c_char {
        let stored = match (password, salt) {
            (Some(password), Some(salt)) => md5crypt::md5crypt(password, salt),
            (_, Some(b"*0")) => b"*1".to_vec(),
            _ => b"*0".to_vec(),
        };
        for (place, byte) in STORED.iter().zip(stored.iter().chain(&[0])) {
            place.store(*byte, Ordering::Relaxed);
        }
        STORED.as_ptr().cast_mut().cast()
    }
}
