//! Keeps OpenSSL's private keys in protected memory, and wipes copies that it makes.

use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};

extern "C" {
    /// OPENSSL_secure_malloc(3).
    fn CRYPTO_secure_malloc_init(size: usize, minimum: usize) -> c_int;
}

/// While set, memory that OpenSSL frees is wiped.
static WIPING: AtomicBool = AtomicBool::new(false);

/// For systems that report the usable length of an allocation, which wiping needs.
#[cfg(any(
    all(target_os = "linux", any(target_env = "gnu", target_env = "musl")),
    target_os = "freebsd"
))]
mod allocator {
    use super::WIPING;
    use crate::os::secret::wipe;
    use std::ffi::{c_char, c_int, c_void};
    use std::ptr;
    use std::sync::atomic::Ordering;

    extern "C" {
        /// OPENSSL_malloc(3).
        fn CRYPTO_set_mem_functions(
            allocate: unsafe extern "C" fn(usize, *const c_char, c_int) -> *mut c_void,
            reallocate: unsafe extern "C" fn(
                *mut c_void,
                usize,
                *const c_char,
                c_int,
            ) -> *mut c_void,
            release: unsafe extern "C" fn(*mut c_void, *const c_char, c_int),
        ) -> c_int;
    }

    unsafe extern "C" fn allocate(size: usize, _: *const c_char, _: c_int) -> *mut c_void {
        // OpenSSL's own function does the same.
        if size == 0 {
            return ptr::null_mut();
        }
        // SAFETY: malloc(3) takes any size.
        unsafe { libc::malloc(size) }
    }

    unsafe extern "C" fn reallocate(
        old: *mut c_void,
        size: usize,
        _: *const c_char,
        _: c_int,
    ) -> *mut c_void {
        if size == 0 {
            // SAFETY: the pointer is one of ours, or null.
            unsafe { release(old, ptr::null(), 0) };
            return ptr::null_mut();
        }
        if !WIPING.load(Ordering::Relaxed) || old.is_null() {
            // SAFETY: OpenSSL passes a pointer that `allocate` or this function has returned.
            return unsafe { libc::realloc(old, size) };
        }
        // SAFETY: as above; the copy is not longer than either allocation.
        unsafe {
            let new = libc::malloc(size);
            if !new.is_null() {
                let length = libc::malloc_usable_size(old).min(size);
                ptr::copy_nonoverlapping(old.cast::<u8>(), new.cast::<u8>(), length);
                release(old, ptr::null(), 0);
            }
            new
        }
    }

    unsafe extern "C" fn release(memory: *mut c_void, _: *const c_char, _: c_int) {
        if memory.is_null() {
            return;
        }
        if WIPING.load(Ordering::Relaxed) {
            // SAFETY: the allocation is that long, and about to be given back.
            wipe(unsafe {
                let length = libc::malloc_usable_size(memory);
                std::slice::from_raw_parts_mut(memory.cast::<u8>(), length)
            });
        }
        // SAFETY: OpenSSL passes a pointer that `allocate` or `reallocate` has returned.
        unsafe { libc::free(memory) };
    }

    /// Sets the memory functions; works only before OpenSSL has allocated anything.
    pub(super) fn set_memory_functions() {
        // SAFETY: the three functions behave like malloc(3), realloc(3) and free(3).
        unsafe { CRYPTO_set_mem_functions(allocate, reallocate, release) };
    }
}

/// Makes OpenSSL keep private keys in memory that is neither swapped nor dumped. Our own programs
/// call it before they use anything of OpenSSL; other programs that use the library decide for
/// themselves.
pub fn protect_keys() {
    #[cfg(any(
        all(target_os = "linux", any(target_env = "gnu", target_env = "musl")),
        target_os = "freebsd"
    ))]
    allocator::set_memory_functions();
    // If the process may not lock that much memory, the keys are still kept out of core dumps.
    // SAFETY: the call takes plain numbers: an arena of 128 KiB in pieces of at least 32 bytes.
    unsafe { CRYPTO_secure_malloc_init(128 * 1024, 32) };
}

/// Runs an action that uses private keys, and wipes the copies that OpenSSL frees meanwhile.
pub fn wiping<T>(action: impl FnOnce() -> T) -> T {
    WIPING.store(true, Ordering::Relaxed);
    let result = action();
    WIPING.store(false, Ordering::Relaxed);
    result
}
