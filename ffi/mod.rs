//! The C ABI of libmavis.so: entry points, and no logic.
//!
//! One file per C header, as `symbols.tsv` lists them. An entry checks its arguments, turns them
//! into what Rust can hold, calls the code in `src` that tcprelay itself uses, and turns the
//! result back. Null pointers and numbers out of range are answered as the contract says and
//! never followed. No panic leaves (`guard`).
//!
//! What has variable arguments or may leave by longjmp is defined in C (`compat/shims.c`);
//! `trampolines.rs` exports it. Nothing in `src` uses this module.

use std::ffi::{c_char, CStr};
use std::panic::{catch_unwind, AssertUnwindSafe};

/// Runs an entry. A panic is a bug of the library and must not unwind into C: it is logged, and
/// the caller gets `fallback`.
pub(crate) fn guard<T>(fallback: T, entry: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(entry)).unwrap_or_else(|_| {
        let text = || "libmavis: internal error, please report it".to_owned();
        crate::os::log::braked(crate::os::log::Kind::Module, text);
        fallback
    })
}

/// The bytes of a C string without its NUL; `None` for a null pointer.
///
/// # Safety
/// `text` is null or points at a NUL-terminated string that nobody changes while the result lives.
pub(crate) unsafe fn bytes<'a>(text: *const c_char) -> Option<&'a [u8]> {
    // SAFETY: as the caller promises.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// As [`bytes`], as text for people.
///
/// # Safety
/// As for [`bytes`].
pub(crate) unsafe fn text(text: *const c_char) -> Option<String> {
    // SAFETY: as the caller promises.
    unsafe { bytes(text) }.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

pub mod av;
mod av_shims;
pub mod base64;
pub mod blowfish;
pub mod condition;
pub mod configuration;
pub mod crc32;
pub mod data;
pub mod escape;
pub mod exec_path;
pub mod groups;
pub mod interface;
pub mod io_child;
pub mod io_dns;
pub mod io_sched;
pub mod io_ssl;
pub mod log;
pub mod md5crypt;
pub mod memops;
mod memory;
pub mod module;
pub mod mymd4;
pub mod mymd5;
pub mod net;
pub mod net_address;
pub mod ostype;
pub mod pid_write;
pub mod radix;
pub mod rbnode;
pub mod rbtree;
pub mod reading;
pub mod scm;
pub mod script;
pub mod setproctitle;
pub mod sig_segv;
pub mod spawnd;
pub mod start;
pub mod timespec;
pub mod tokenize;
mod trampolines;
pub mod utf;
