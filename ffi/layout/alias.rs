//! C code's handle of an alias: a `struct token_list **`, which it only hands back.

use std::cell::RefCell;
use std::ffi::c_void;
use std::ptr;

thread_local! {
    /// The aliases that C code is defining. C code has the addresses of the entries.
    #[allow(clippy::vec_box, reason = "the addresses must not change")]
    static ALIASES: RefCell<Vec<Box<AliasName>>> = const { RefCell::new(Vec::new()) };
}

/// An alias, which starts with the pointer that C code may read through its handle.
#[repr(C)]
pub struct AliasName {
    list: *mut c_void,
    name: Vec<u8>,
}

/// Keeps the name of an alias for good, and returns its handle.
pub(crate) fn keep(name: &[u8]) -> *mut AliasName {
    let mut entry = Box::new(AliasName { list: ptr::null_mut(), name: name.to_vec() });
    let handle = &raw mut *entry;
    ALIASES.with_borrow_mut(|aliases| aliases.push(entry));
    handle
}

/// The name for a handle; `None` if it is not one of ours.
pub(crate) fn name(handle: *const AliasName) -> Option<Vec<u8>> {
    ALIASES.with_borrow(|aliases| {
        let found = aliases.iter().find(|entry| ptr::eq(&raw const ***entry, handle));
        found.map(|entry| entry.name.clone())
    })
}
