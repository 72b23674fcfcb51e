//! misc/memops.h: memory that must be there, and pools of memory that is given back together.
//!
//! All of it is of malloc(3). Without memory the process ends with status 71 (EX_OSERR).
//!
//! # Safety
//! A pool is null, or came from `mem_create` and was not destroyed. Memory is null, or of malloc(3)
//! and not given back yet; texts are null or NUL-terminated; other pointers are null or point at
//! as many bytes as the length says.
#![allow(clippy::missing_safety_doc, reason = "said at the head of the file")]

use super::memory::slice;
use super::{guard, text};
use crate::library::pool;
use crate::os::malloc::{allocate, Text};
use crate::os::process::exit;
use crate::os::{log, reason};
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::io;
use std::ptr;

/// What is called when a pool is destroyed.
struct Action {
    function: unsafe extern "C" fn(*mut c_void),
    argument: *mut c_void,
}

/// `mem_t`. C code has only its address.
#[derive(Default)]
pub struct Pool(pool::Pool<Action>);

/// Ends the process if there is no memory, with the place in the C source that asked for it.
unsafe fn must_be(
    memory: *mut c_void,
    what: &str,
    file: *const c_char,
    line: c_int,
) -> *mut c_void {
    if memory.is_null() {
        let reason = reason(&io::Error::last_os_error());
        // SAFETY: as the caller promises.
        let file = unsafe { text(file) }.unwrap_or_default();
        log::message(&format!("{what} ({file}:{line}): {reason}"));
        std::process::exit(exit::OS_ERROR);
    }
    memory
}

/// `void *XXcalloc(size_t nmemb, size_t size, char *file, int line)`: calloc(3).
#[no_mangle]
pub unsafe extern "C" fn XXcalloc(
    count: usize,
    size: usize,
    file: *const c_char,
    line: c_int,
) -> *mut c_void {
    guard(ptr::null_mut(), || {
        let (count, size) = if count == 0 || size == 0 { (1, 1) } else { (count, size) };
        // SAFETY: calloc(3) takes any numbers; the name is as the caller promises.
        unsafe { must_be(libc::calloc(count, size), "calloc", file, line) }
    })
}

/// `void *XXrealloc(void *ptr, size_t size, char *file, int line)`: realloc(3).
#[no_mangle]
pub unsafe extern "C" fn XXrealloc(
    memory: *mut c_void,
    size: usize,
    file: *const c_char,
    line: c_int,
) -> *mut c_void {
    // SAFETY: as the caller promises. Size 0 would give the memory back.
    guard(ptr::null_mut(), || unsafe {
        must_be(libc::realloc(memory, size.max(1)), "realloc", file, line)
    })
}

/// `char *XXstrdup(const char *s, char *file, int line)`: strdup(3); null for null.
#[no_mangle]
pub unsafe extern "C" fn XXstrdup(
    string: *const c_char,
    file: *const c_char,
    line: c_int,
) -> *mut c_char {
    guard(ptr::null_mut(), || {
        if string.is_null() {
            return ptr::null_mut();
        }
        // SAFETY: as the caller promises.
        unsafe { must_be(libc::strdup(string).cast(), "strdup", file, line).cast() }
    })
}

/// `mem_t *mem_create(enum mem_type type)`: a pool; null for 0, which is memory without a pool. The
/// kinds of pool differ in nothing but speed, and not here.
#[no_mangle]
pub extern "C" fn mem_create(kind: c_uint) -> *mut Pool {
    guard(ptr::null_mut(), || match kind {
        0 => ptr::null_mut(),
        _ => Box::into_raw(Box::default()),
    })
}

/// `void *mem_destroy(mem_t *m)`: gives back all memory of the pool, then calls what
/// `mem_add_free` has asked for, which may use the pool. Returns null.
#[no_mangle]
pub unsafe extern "C" fn mem_destroy(pool: *mut Pool) -> *mut c_void {
    guard(ptr::null_mut(), || {
        loop {
            // SAFETY: as the caller promises. The reference ends before anybody is called.
            let Some(Pool(content)) = (unsafe { pool.as_mut() }) else {
                return ptr::null_mut();
            };
            let (blocks, actions) = (content.take_blocks(), content.take_actions());
            if blocks.is_empty() && actions.is_empty() {
                break;
            }
            for block in blocks {
                // SAFETY: what is in a pool is of malloc(3) and belongs to the pool.
                unsafe { libc::free(ptr::with_exposed_provenance_mut(block)) };
            }
            for Action { function, argument } in actions {
                // SAFETY: as whoever has asked for the call promises.
                unsafe { function(argument) };
            }
        }
        // SAFETY: it came from `Box::into_raw`, and the caller does not use it any more.
        drop(unsafe { Box::from_raw(pool) });
        ptr::null_mut()
    })
}

/// Makes memory part of a pool, if there is one.
unsafe fn attach(pool: *mut Pool, memory: *mut c_void) -> *mut c_void {
    // SAFETY: as the caller promises.
    if let Some(Pool(content)) = unsafe { pool.as_mut() } {
        content.attach(memory.expose_provenance());
    }
    memory
}

/// Takes memory out of a pool. False if it was not there.
unsafe fn detach(pool: *mut Pool, memory: *mut c_void) -> bool {
    // SAFETY: as the caller promises.
    unsafe { pool.as_mut() }.is_some_and(|Pool(content)| content.detach(memory.addr()))
}

/// `void *mem_alloc(mem_t *m, size_t size)`: memory of zeroes.
#[no_mangle]
pub unsafe extern "C" fn mem_alloc(pool: *mut Pool, size: usize) -> *mut c_void {
    // SAFETY: as the caller promises.
    guard(ptr::null_mut(), || unsafe { attach(pool, allocate(size, "mem_alloc").as_ptr().cast()) })
}

/// `char *mem_strdup(mem_t *m, char *s)`: a copy of a text; null for null.
#[no_mangle]
pub unsafe extern "C" fn mem_strdup(pool: *mut Pool, string: *const c_char) -> *mut c_char {
    guard(ptr::null_mut(), || {
        // SAFETY: as the caller promises.
        unsafe {
            match super::bytes(string) {
                Some(bytes) => attach(pool, Text::new(bytes).into_raw().cast()).cast(),
                None => ptr::null_mut(),
            }
        }
    })
}

/// `char *mem_strndup(mem_t *m, u_char *s, size_t len)`: a copy of `len` bytes with a NUL.
#[no_mangle]
pub unsafe extern "C" fn mem_strndup(
    pool: *mut Pool,
    string: *const u8,
    length: usize,
) -> *mut c_char {
    // SAFETY: as the caller promises.
    guard(ptr::null_mut(), || unsafe { copy(pool, string, length) }.cast())
}

/// `void *mem_copy(mem_t *m, void *p, size_t len)`: a copy of `len` bytes with a NUL.
#[no_mangle]
pub unsafe extern "C" fn mem_copy(
    pool: *mut Pool,
    memory: *const c_void,
    length: usize,
) -> *mut c_void {
    // SAFETY: as the caller promises.
    guard(ptr::null_mut(), || unsafe { copy(pool, memory.cast(), length) })
}

unsafe fn copy(pool: *mut Pool, from: *const u8, length: usize) -> *mut c_void {
    // SAFETY: as the caller promises; the copy has room for the bytes and a NUL.
    unsafe {
        let from = slice(from, length);
        let memory = allocate(length.saturating_add(1), "mem_copy").as_ptr();
        memory.copy_from_nonoverlapping(from.as_ptr(), from.len());
        attach(pool, memory.cast())
    }
}

/// `void *mem_realloc(mem_t *m, void *p, size_t len)`: realloc(3). The result is in the pool if the
/// memory was, or if there was none; then it is zeroes.
#[no_mangle]
pub unsafe extern "C" fn mem_realloc(
    pool: *mut Pool,
    memory: *mut c_void,
    size: usize,
) -> *mut c_void {
    guard(ptr::null_mut(), || {
        // SAFETY: as the caller promises.
        unsafe {
            if memory.is_null() {
                return attach(pool, allocate(size, "mem_realloc").as_ptr().cast());
            }
            let ours = detach(pool, memory);
            let memory = libc::realloc(memory, size.max(1));
            let memory = must_be(memory, "realloc", c"mem_realloc".as_ptr(), 0);
            match ours {
                true => attach(pool, memory),
                false => memory,
            }
        }
    })
}

/// `void *mem_free(mem_t *m, void *ptr)`: gives back the memory that `*ptr` points at, and clears
/// `*ptr`. What is not in the pool is somebody else's or was given back before, and only logged.
/// Returns null.
#[no_mangle]
pub unsafe extern "C" fn mem_free(pool: *mut Pool, pointer: *mut *mut c_void) -> *mut c_void {
    guard(ptr::null_mut(), || {
        // SAFETY: as the caller promises; `pointer` is null or the address of a pointer.
        unsafe {
            if let Some(pointer) = pointer.as_mut().filter(|pointer| !pointer.is_null()) {
                let memory = std::mem::take(pointer);
                if pool.is_null() || detach(pool, memory) {
                    libc::free(memory);
                } else {
                    log::braked(log::Kind::Module, || {
                        format!("mem_free: {memory:p} is not in the pool")
                    });
                }
            }
        }
        ptr::null_mut()
    })
}

/// `void *mem_attach(mem_t *m, void *p)`: makes memory of malloc(3) part of the pool; returns it.
#[no_mangle]
pub unsafe extern "C" fn mem_attach(pool: *mut Pool, memory: *mut c_void) -> *mut c_void {
    // SAFETY: as the caller promises.
    guard(memory, || unsafe { attach(pool, memory) })
}

/// `void *mem_detach(mem_t *m, void *p)`: takes memory out of the pool; returns it, or null if it
/// was not there.
#[no_mangle]
pub unsafe extern "C" fn mem_detach(pool: *mut Pool, memory: *mut c_void) -> *mut c_void {
    // SAFETY: as the caller promises.
    guard(ptr::null_mut(), || match pool.is_null() || unsafe { detach(pool, memory) } {
        true => memory,
        false => ptr::null_mut(),
    })
}

/// `void mem_add_free(mem_t *m, void *freefun, void *p)`: calls `freefun(p)` when the pool is
/// destroyed. Without a pool nothing is called.
#[no_mangle]
pub unsafe extern "C" fn mem_add_free(
    pool: *mut Pool,
    function: Option<unsafe extern "C" fn(*mut c_void)>,
    argument: *mut c_void,
) {
    guard((), || {
        // SAFETY: as the caller promises.
        if let (Some(Pool(content)), Some(function)) = (unsafe { pool.as_mut() }, function) {
            content.at_end(Action { function, argument });
        }
    });
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
        // SAFETY: each function gets what it asks for.
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
        // SAFETY: each function gets what it asks for.
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
