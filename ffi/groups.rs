//! mavis/groups.h: lists of group ids.
//!
//! # Safety
//! Texts are null or NUL-terminated; buffers are null or have room for as much as their length
//! says.
#![allow(clippy::missing_safety_doc, reason = "said at the head of the file")]

use super::memory::{put, put_text, slice};
use super::{bytes, guard};
use crate::library::groups;
use crate::os::names;
use std::ffi::{c_char, c_int, CStr};

/// `char *groups_list2ascii(size_t size, gid_t *list, char *buf, size_t buflen)`: as many of the
/// groups as fit, with commas. Returns `buf`.
#[no_mangle]
pub unsafe extern "C" fn groups_list2ascii(
    size: usize,
    list: *const libc::gid_t,
    buffer: *mut c_char,
    room: usize,
) -> *mut c_char {
    guard(buffer, || {
        // SAFETY: as the caller promises.
        let list = unsafe { slice(list, size) };
        // SAFETY: as above.
        unsafe { put_text(buffer, room, groups::to_text(list, room).as_bytes()) };
        buffer
    })
}

/// `void groups_ascii2list(char *alist, int *size, gid_t *list)`: the numbers of a text. There must
/// be room for as many as the text has, up to 65536.
#[no_mangle]
pub unsafe extern "C" fn groups_ascii2list(
    text: *const c_char,
    size: *mut c_int,
    list: *mut libc::gid_t,
) {
    guard((), || {
        // SAFETY: as the caller promises.
        unsafe {
            let mut numbers = groups::from_text(bytes(text).unwrap_or_default());
            if list.is_null() {
                numbers.clear();
            }
            put(size, numbers.len() as c_int);
            if !numbers.is_empty() {
                list.copy_from_nonoverlapping(numbers.as_ptr(), numbers.len());
            }
        }
    });
}

/// `char *groups_getlist(char *name, gid_t gid, char *buf, size_t buflen)`: `gid` and the other
/// groups of a user, as many as fit, with commas. Returns `buf`.
#[no_mangle]
pub unsafe extern "C" fn groups_getlist(
    name: *const c_char,
    gid: libc::gid_t,
    buffer: *mut c_char,
    room: usize,
) -> *mut c_char {
    guard(buffer, || {
        let list = match name.is_null() {
            true => vec![gid],
            // SAFETY: as the caller promises.
            false => names::groups_of(unsafe { CStr::from_ptr(name) }, gid),
        };
        // SAFETY: as above.
        unsafe { put_text(buffer, room, groups::to_text(&list, room).as_bytes()) };
        buffer
    })
}
