//! How often queries were passed on by modules.
//!
//! An asynchronous module that has an answer submits the query again, for the rest of its chain. If
//! it is not the last of it, and another above it looks at answers, the query comes round to it
//! once more, without end.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;

/// No chain has that many modules.
const MOST: u32 = 64;

thread_local! {
    /// By what the query's owner calls it.
    static PASSES: RefCell<HashMap<usize, u32>> = RefCell::default();
}

/// A query with this name is going to be submitted.
pub(super) fn begin(name: *mut c_void) {
    PASSES.with_borrow_mut(|passes| passes.insert(name as usize, 0));
}

/// It has come to its end.
pub(super) fn end(name: *mut c_void) {
    PASSES.with_borrow_mut(|passes| passes.remove(&(name as usize)));
}

/// A module submits it again. False if it has done so too often; a query of C code may come round
/// as often as that wants.
pub(super) fn may_pass(name: *mut c_void) -> bool {
    PASSES.with_borrow_mut(|passes| match passes.get_mut(&(name as usize)) {
        Some(count) => {
            *count += 1;
            *count <= MOST
        }
        None => true,
    })
}
