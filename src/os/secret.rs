//! Memory for secrets: kept out of core dumps where the system can do that, and wiped before it is
//! freed.

use std::ffi::c_void;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

/// Bytes in memory pages of their own.
pub struct Secret {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the pages belong to this value alone, as those of a `Box<[u8]>` would.
unsafe impl Send for Secret {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Secret {}

impl Secret {
    /// `length` zero bytes.
    pub fn zeroed(length: usize) -> io::Result<Secret> {
        let mapped = length.max(1);
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANON,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        #[cfg(target_os = "linux")]
        const ADVICE: Option<libc::c_int> = Some(libc::MADV_DONTDUMP);
        #[cfg(target_os = "freebsd")]
        const ADVICE: Option<libc::c_int> = Some(libc::MADV_NOCORE);
        #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
        const ADVICE: Option<libc::c_int> = None;
        if let Some(advice) = ADVICE {
            // SAFETY: the range is the mapping that was just made. If the advice is refused, core
            // dumps contain these pages; nothing else depends on it.
            unsafe { libc::madvise(start, mapped, advice) };
        }
        let start = NonNull::new(start.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Secret { start, length })
    }

    /// A copy of `data`. The caller should wipe the original if it is secret.
    pub fn copy(data: &[u8]) -> io::Result<Secret> {
        let mut secret = Secret::zeroed(data.len())?;
        secret.copy_from_slice(data);
        Ok(secret)
    }
}

impl Deref for Secret {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `length` bytes from `start` on are mapped as long as this value lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl DerefMut for Secret {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and nobody else refers to them.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        wipe(self);
        // SAFETY: the mapping that `zeroed` made, which nothing refers to any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length.max(1)) };
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} secret bytes", self.length)
    }
}

/// A short secret such as a key. It is on the heap, so that moving it leaves no copy behind, and is
/// wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Box<[u8]>);

impl SecretBytes {
    /// `length` zero bytes.
    pub fn zeroed(length: usize) -> SecretBytes {
        SecretBytes(vec![0; length].into_boxed_slice())
    }

    /// A copy of `data`. The caller should wipe the original unless it is kept.
    pub fn copy(data: &[u8]) -> SecretBytes {
        SecretBytes(data.into())
    }
}

impl Deref for SecretBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for SecretBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} secret bytes", self.0.len())
    }
}

/// Overwrites with zeroes in a way that the compiler cannot optimise away (OPENSSL_cleanse(3)).
pub fn wipe(data: &mut [u8]) {
    extern "C" {
        fn OPENSSL_cleanse(data: *mut c_void, length: usize);
    }
    // SAFETY: the pointer and the length describe `data`.
    unsafe { OPENSSL_cleanse(data.as_mut_ptr().cast(), data.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_holds_what_it_was_given() {
        let mut secret = Secret::copy(b"key").expect("memory");
        assert_eq!(&*secret, b"key");
        secret[0] = b'K';
        assert_eq!(format!("{:?} {}", secret, secret[0]), "3 secret bytes 75");
        assert!(Secret::zeroed(0).expect("memory").is_empty());
    }
}
