//! What C code holds of an alias: a `struct token_list **`, which it only hands back.

use std::cell::RefCell;
use std::ffi::c_void;
use std::ptr;

thread_local! {
    /// Names of aliases that C code is defining; it has their addresses.
    #[allow(clippy::vec_box, reason = "the addresses must not change")]
    static ALIASES: RefCell<Vec<Box<AliasName>>> = const { RefCell::new(Vec::new()) };
}

/// The alias, with room for the pointer that C code may look at.
#[repr(C)]
pub struct AliasName {
    list: *mut c_void,
    name: Vec<u8>,
}

/// Keeps the name of an alias for good.
pub(crate) fn keep(name: &[u8]) -> *mut AliasName {
    let mut entry = Box::new(AliasName { list: ptr::null_mut(), name: name.to_vec() });
    let handle = &raw mut *entry;
    ALIASES.with_borrow_mut(|aliases| aliases.push(entry));
    handle
}

/// The name, if it is one of an alias.
pub(crate) fn name(handle: *const AliasName) -> Option<Vec<u8>> {
    ALIASES.with_borrow(|aliases| {
        let found = aliases.iter().find(|entry| ptr::eq(&raw const ***entry, handle));
        found.map(|entry| entry.name.clone())
    })
}
