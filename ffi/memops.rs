//! misc/memops.h: allocation that cannot fail, and pools whose memory is freed together.
//!
//! All memory comes from malloc(3). If there is none left, the process exits with status 71
//! (EX_OSERR). A pool comes from `mem_create`, or is null for memory outside of any pool.

use super::entry::entry;
use super::memory::slice;
use crate::library::pool;
use crate::os::log;
use crate::os::malloc::{allocate, granted, Text};
use std::ffi::{c_char, c_int, c_uint, c_void, CStr};
use std::ptr;

/// A call to make when a pool is destroyed.
struct Action {
    function: unsafe extern "C" fn(*mut c_void),
    argument: *mut c_void,
}

/// `mem_t`, opaque to C code.
#[derive(Default)]
pub struct Pool(pool::Pool<Action>);

/// Names the line of C source that asks for memory, for the log.
fn place<'a>(call: &'a str, file: Option<&'a CStr>, line: c_int) -> impl FnOnce() -> String + 'a {
    move || format!("{call} ({}:{line})", file.unwrap_or_default().to_string_lossy())
}

/// Adds memory to a pool, if there is one.
pub(super) fn attach(pool: Option<&mut Pool>, memory: *mut c_void) -> *mut c_void {
    if let Some(Pool(content)) = pool {
        content.attach(memory.expose_provenance());
    }
    memory
}

/// Zeroed memory.
pub(super) fn zeroed(pool: Option<&mut Pool>, size: usize) -> *mut c_void {
    attach(pool, allocate(size, "mem_alloc").as_ptr().cast())
}

/// A copy with a NUL added.
pub(super) fn text(pool: Option<&mut Pool>, bytes: &[u8]) -> *mut c_char {
    attach(pool, Text::new(bytes).into_raw().cast()).cast()
}

/// A copy of `length` bytes with a NUL.
///
/// # Safety
/// There are that many bytes.
unsafe fn copy(pool: Option<&mut Pool>, from: *const u8, length: usize) -> *mut c_void {
    let memory = allocate(length.saturating_add(1), "mem_copy").as_ptr();
    // SAFETY: as the caller promises; the copy has room for the bytes and a NUL.
    unsafe {
        let from = slice(from, length);
        memory.copy_from_nonoverlapping(from.as_ptr(), from.len());
    }
    attach(pool, memory.cast())
}

/// realloc(3). The result is in the pool if the old block was. Without an old block, the result is
/// zeroed and in the pool.
///
/// # Safety
/// The memory is null, or came from malloc(3) and is not used afterwards.
pub(super) unsafe fn resize(
    mut pool: Option<&mut Pool>,
    memory: *mut c_void,
    size: usize,
) -> *mut c_void {
    if memory.is_null() {
        return zeroed(pool, size);
    }
    let ours = pool.as_mut().is_some_and(|Pool(content)| content.detach(memory.addr()));
    // SAFETY: as the caller promises. Size 0 would free the memory.
    let memory = unsafe { libc::realloc(memory, size.max(1)) };
    attach(pool.filter(|_| ours), granted(memory, place("realloc", Some(c"mem_realloc"), 0)))
}

/// free(3). If there is a pool and the block is not in it, the block belongs to somebody else or
/// was freed before: it is left alone and logged.
///
/// # Safety
/// Memory without a pool is null, or of malloc(3) and not used afterwards.
pub(super) unsafe fn free(pool: Option<&mut Pool>, memory: *mut c_void) {
    if memory.is_null() {
        return;
    }
    if pool.is_none_or(|Pool(content)| content.detach(memory.addr())) {
        // SAFETY: as the caller promises; memory in a pool came from malloc(3).
        unsafe { libc::free(memory) };
    } else {
        log::braked(log::Kind::Module, || format!("mem_free: {memory:p} is not in the pool"));
    }
}

entry! {
    /// `void *XXcalloc(size_t nmemb, size_t size, char *file, int line)`: calloc(3).
    #[otherwise(ptr::null_mut())]
    pub fn XXcalloc(count: usize, size: usize, file: Option<&CStr>, line: c_int) -> *mut c_void {
        let (count, size) = if count == 0 || size == 0 { (1, 1) } else { (count, size) };
        // SAFETY: calloc(3) takes any numbers.
        granted(unsafe { libc::calloc(count, size) }, place("calloc", file, line))
    }

    /// `void *XXrealloc(void *ptr, size_t size, char *file, int line)`: realloc(3).
    #[otherwise(ptr::null_mut())]
    pub fn XXrealloc(
        memory: *mut c_void,
        size: usize,
        file: Option<&CStr>,
        line: c_int,
    ) -> *mut c_void {
        // SAFETY: the memory came from malloc(3). Size 0 would free it.
        granted(unsafe { libc::realloc(memory, size.max(1)) }, place("realloc", file, line))
    }

    /// `char *XXstrdup(const char *s, char *file, int line)`: strdup(3); null for null.
    #[otherwise(ptr::null_mut())]
    pub fn XXstrdup(string: &CStr, file: Option<&CStr>, line: c_int) -> *mut c_char {
        // SAFETY: the string ends with NUL.
        let copy = unsafe { libc::strdup(string.as_ptr()) };
        granted(copy.cast(), place("strdup", file, line)).cast()
    }

    /// `mem_t *mem_create(enum mem_type type)`: a pool; null for type 0, which stands for memory
    /// without a pool. In the C library the other types differ in speed; here they are the same.
    #[otherwise(ptr::null_mut())]
    pub fn mem_create(kind: c_uint) -> *mut Pool {
        match kind {
            0 => ptr::null_mut(),
            _ => Box::into_raw(Box::default()),
        }
    }

    /// `void *mem_destroy(mem_t *m)`: frees all memory of the pool, then makes the calls that
    /// `mem_add_free` asked for, which may still use the pool. Returns null.
    #[otherwise(ptr::null_mut())]
    pub fn mem_destroy(pool: *mut Pool) -> *mut c_void {
        loop {
            // SAFETY: the pool is null or of `mem_create`. The reference ends before any callback
            // runs.
            let Some(Pool(content)) = (unsafe { pool.as_mut() }) else {
                return ptr::null_mut();
            };
            let (blocks, actions) = (content.take_blocks(), content.take_actions());
            if blocks.is_empty() && actions.is_empty() {
                break;
            }
            for block in blocks {
                // SAFETY: memory in a pool came from malloc(3) and belongs to the pool.
                unsafe { libc::free(ptr::with_exposed_provenance_mut(block)) };
            }
            for Action { function, argument } in actions {
                // SAFETY: `mem_add_free` was given the function for this call.
                unsafe { function(argument) };
            }
        }
        // SAFETY: it came from `Box::into_raw`, and nothing uses it any more.
        drop(unsafe { Box::from_raw(pool) });
        ptr::null_mut()
    }

    /// `void *mem_alloc(mem_t *m, size_t size)`: zeroed memory.
    #[otherwise(ptr::null_mut())]
    pub fn mem_alloc(pool: Option<&mut Pool>, size: usize) -> *mut c_void {
        zeroed(pool, size)
    }

    /// `char *mem_strdup(mem_t *m, char *s)`: a copy of a text; null for null.
    #[otherwise(ptr::null_mut())]
    pub fn mem_strdup(pool: Option<&mut Pool>, string: &[u8]) -> *mut c_char {
        text(pool, string)
    }

    /// `char *mem_strndup(mem_t *m, u_char *s, size_t len)`: a copy of `len` bytes with a NUL.
    /// Unlike strndup(3), it does not end at a NUL: C programs keep binary data with it.
    #[otherwise(ptr::null_mut())]
    pub fn mem_strndup(pool: Option<&mut Pool>, string: *const u8, length: usize) -> *mut c_char {
        // SAFETY: there are that many bytes.
        unsafe { copy(pool, string, length) }.cast()
    }

    /// `void *mem_copy(mem_t *m, void *p, size_t len)`: a copy of `len` bytes with a NUL.
    #[otherwise(ptr::null_mut())]
    pub fn mem_copy(pool: Option<&mut Pool>, memory: *const c_void, length: usize) -> *mut c_void {
        // SAFETY: as above.
        unsafe { copy(pool, memory.cast(), length) }
    }

    /// `void *mem_realloc(mem_t *m, void *p, size_t len)`: realloc(3). The result is in the pool if
    /// the old block was. Without an old block, the result is zeroed and in the pool.
    #[otherwise(ptr::null_mut())]
    pub fn mem_realloc(pool: Option<&mut Pool>, memory: *mut c_void, size: usize) -> *mut c_void {
        // SAFETY: the memory is null or came from malloc(3).
        unsafe { resize(pool, memory, size) }
    }

    /// `void *mem_free(mem_t *m, void *ptr)`: frees the memory that `*ptr` points at, and sets
    /// `*ptr` to null. Returns null.
    #[otherwise(ptr::null_mut())]
    pub fn mem_free(pool: Option<&mut Pool>, pointer: &mut *mut c_void) -> *mut c_void {
        let memory = *pointer;
        *pointer = ptr::null_mut();
        // SAFETY: the memory is null or came from malloc(3).
        unsafe { free(pool, memory) };
        ptr::null_mut()
    }

    /// `void *mem_attach(mem_t *m, void *p)`: adds memory of malloc(3) to the pool; returns it.
    #[otherwise(memory)]
    pub fn mem_attach(pool: Option<&mut Pool>, memory: *mut c_void) -> *mut c_void {
        attach(pool, memory)
    }

    /// `void *mem_detach(mem_t *m, void *p)`: takes memory out of the pool, to be freed by the
    /// caller; returns it, or null if it was not in the pool.
    #[otherwise(ptr::null_mut())]
    pub fn mem_detach(pool: Option<&mut Pool>, memory: *mut c_void) -> *mut c_void {
        match pool.is_none_or(|Pool(content)| content.detach(memory.addr())) {
            true => memory,
            false => ptr::null_mut(),
        }
    }

    /// `void mem_add_free(mem_t *m, void *freefun, void *p)`: calls `freefun(p)` when the pool is
    /// destroyed. Without a pool nothing is called.
    pub fn mem_add_free(
        pool: &mut Pool,
        function: unsafe extern "C" fn(*mut c_void),
        argument: *mut c_void,
    ) {
        pool.0.at_end(Action { function, argument });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    unsafe extern "C" fn note(argument: *mut c_void) {
        // SAFETY: the test passes the address of a number.
        unsafe { *argument.cast::<u32>() += 1 };
    }

    #[test]
    fn memory_of_a_pool_is_given_back_once() {
        let mut called = 0u32;
        // SAFETY: each function gets the arguments it requires.
        unsafe {
            let pool = mem_create(2);
            let mut block = mem_alloc(pool, 10);
            let text = mem_strdup(pool, c"text".as_ptr());
            let text = mem_realloc(pool, text.cast(), 1000);
            assert_eq!(CStr::from_ptr(text.cast()), c"text");
            assert_eq!(mem_detach(pool, text), text);
            assert!(mem_detach(pool, text).is_null());
            mem_free(pool, &mut block);
            assert!(block.is_null());
            mem_add_free(pool, Some(note), (&raw mut called).cast());
            mem_copy(pool, text, 2);
            assert!(mem_destroy(pool).is_null());
            libc::free(text);
        }
        assert_eq!(called, 1);
    }

    #[test]
    fn without_pool_it_is_plain_memory() {
        // SAFETY: each function gets the arguments it requires.
        unsafe {
            assert!(mem_create(0).is_null());
            let text = mem_strndup(ptr::null_mut(), b"text".as_ptr(), 2);
            assert_eq!(CStr::from_ptr(text), c"te");
            assert_eq!(mem_detach(ptr::null_mut(), text.cast()), text.cast());
            libc::free(text.cast());
            assert!(mem_strdup(ptr::null_mut(), ptr::null()).is_null());
        }
    }
}
