//! misc/md5crypt.h: passwords in the `$1$` form.

use super::{bytes, guard};
use crate::library::md5crypt;
use std::cell::UnsafeCell;
use std::ffi::c_char;

thread_local! {
    /// The result: magic, salt, a dollar and 22 digits, and room to spare.
    static STORED: UnsafeCell<[u8; 64]> = const { UnsafeCell::new([0; 64]) };
}

/// `char *md5crypt(const char *pw, const char *salt)`: the stored form of a password, valid until
/// this thread asks again. As with crypt(3), an error is a text that is no stored form, and that
/// differs from the salt.
///
/// # Safety
/// Both are null or NUL-terminated.
#[no_mangle]
pub unsafe extern "C" fn md5crypt(password: *const c_char, salt: *const c_char) -> *mut c_char {
    guard(c"*0".as_ptr().cast_mut(), || {
        // SAFETY: as the caller promises.
        let (password, salt) = unsafe { (bytes(password), bytes(salt)) };
        let stored = match (password, salt) {
            (Some(password), Some(salt)) => md5crypt::md5crypt(password, salt),
            (_, Some(b"*0")) => b"*1".to_vec(),
            _ => b"*0".to_vec(),
        };
        STORED.with(|buffer| {
            let buffer: *mut u8 = buffer.get().cast();
            // SAFETY: the buffer is this thread's own and has room for the 34 bytes at most and a
            // NUL; a salt that points into it is not used any more.
            unsafe {
                buffer.copy_from_nonoverlapping(stored.as_ptr(), stored.len());
                buffer.add(stored.len()).write(0);
            }
            buffer.cast()
        })
    })
}
