//! mavis/groups.h: lists of group ids.

use super::entry::{entry, Out};
use super::memory::{put_text, slice};
use crate::library::groups;
use crate::os::names;
use std::ffi::{c_char, c_int, CStr};

entry! {
    /// `char *groups_list2ascii(size_t size, gid_t *list, char *buf, size_t buflen)`: writes as
    /// many of the groups as fit, with commas. Returns `buf`.
    #[otherwise(buffer)]
    pub fn groups_list2ascii(
        size: usize,
        list: *const libc::gid_t,
        buffer: *mut c_char,
        room: usize,
    ) -> *mut c_char {
        // SAFETY: list and buffer are as long as the caller says.
        unsafe { put_text(buffer, room, groups::to_text(slice(list, size), room).as_bytes()) };
        buffer
    }

    /// `void groups_ascii2list(char *alist, int *size, gid_t *list)`: reads the numbers of a text.
    /// `*size` gets their number, and is not looked at. `list` must have room for all of them, up
    /// to NGROUPS_MAX; that is how many are written at most.
    pub fn groups_ascii2list(text: Option<&[u8]>, size: Out<c_int>, list: *mut libc::gid_t) {
        let mut numbers = groups::from_text(text.unwrap_or_default());
        if list.is_null() {
            numbers.clear();
        }
        size.put(numbers.len() as c_int);
        if !numbers.is_empty() {
            // SAFETY: there is room for all numbers of the text.
            unsafe { list.copy_from_nonoverlapping(numbers.as_ptr(), numbers.len()) };
        }
    }

    /// `char *groups_getlist(char *name, gid_t gid, char *buf, size_t buflen)`: writes `gid` and
    /// the other groups of a user, as many as fit, with commas. Returns `buf`.
    #[otherwise(buffer)]
    pub fn groups_getlist(
        name: Option<&CStr>,
        gid: libc::gid_t,
        buffer: *mut c_char,
        room: usize,
    ) -> *mut c_char {
        let list = name.map_or_else(|| vec![gid], |name| names::groups_of(name, gid));
        // SAFETY: the buffer has that room.
        unsafe { put_text(buffer, room, groups::to_text(&list, room).as_bytes()) };
        buffer
    }
}
