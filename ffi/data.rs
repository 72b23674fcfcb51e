//! The exported variables.
//!
//! They are defined here because the linker exports only Rust symbols from this library. Rust code
//! must not use them directly: a program may hold the copy that counts (a copy relocation), so
//! `compat/data.c` looks up their addresses through the global offset table.

#![allow(non_upper_case_globals)]

use super::layout::common_data::CommonData;
use std::ffi::{c_char, c_void};
use std::ptr;

/// Data that C code may write at any time, so that Rust never makes a reference to it.
#[repr(transparent)]
pub struct Exported<T>(std::cell::UnsafeCell<T>);

// SAFETY: no Rust code reads or writes the content through this type.
unsafe impl<T> Sync for Exported<T> {}

impl<T> Exported<T> {
    const fn new(value: T) -> Exported<T> {
        Exported(std::cell::UnsafeCell::new(value))
    }
}

/// `str_t`: a string and its length.
#[repr(C)]
pub struct Str {
    text: *const c_char,
    length: usize,
}

/// `struct av_char`: the name of an attribute, and its token number, or 0 if it has none.
#[repr(C)]
pub struct AvChar {
    name: *const c_char,
    token: u32,
}

// SAFETY: constants that point to constants.
unsafe impl Sync for Str {}
// SAFETY: as above.
unsafe impl Sync for AvChar {}

const fn string(text: &'static [u8]) -> Str {
    Str { text: text.as_ptr().cast(), length: text.len() - 1 }
}

const fn attribute(name: &'static [u8], token: u32) -> AvChar {
    AvChar { name: name.as_ptr().cast(), token }
}

// `codestring`, indexed by token number, with an empty entry at the end; and `av_char`, indexed by
// attribute.
include!(concat!(env!("OUT_DIR"), "/exported.rs"));

/// `struct common_data common_data`
#[no_mangle]
pub static common_data: Exported<CommonData> = Exported::new(CommonData::ZERO);

/// `struct timeval io_now`: the time since 1970, as of the last turn of the loop.
#[no_mangle]
pub static io_now: Exported<libc::timeval> = Exported::new(libc::timeval { tv_sec: 0, tv_usec: 0 });

/// `struct spawnd_data spawnd_data`
#[no_mangle]
pub static spawnd_data: Exported<[u64; 22]> = Exported::new([0; 22]);

/// `void (*coredump_handler)(int, siginfo_t *, void *)`: the handler of SIGSEGV that was installed
/// before ours.
#[no_mangle]
pub static coredump_handler: Exported<*const c_void> = Exported::new(ptr::null());

/// `rbnode_type rbtree_null_node`: three pointers to itself, no key, black. Exported for
/// completeness: no module uses it.
#[repr(C)]
pub struct NullNode {
    links: [*const NullNode; 3],
    key: *const c_void,
    colour: u8,
}

/// See [`NullNode`].
#[no_mangle]
pub static rbtree_null_node: Exported<NullNode> =
    Exported::new(NullNode { links: [rbtree_null_node.0.get(); 3], key: ptr::null(), colour: 0 });
