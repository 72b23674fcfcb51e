//! Counts how often modules have passed each query on.
//!
//! An asynchronous module that has an answer submits the query again, for the rest of its chain. If
//! it is not the last module, and one above it looks at answers, the query comes back to it, in an
//! endless loop. The count ends that.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;

/// No chain has this many modules.
const MOST: u32 = 64;

thread_local! {
    /// By the query's name, which its owner has chosen.
    static PASSES: RefCell<HashMap<usize, u32>> = RefCell::default();
}

/// Starts counting for a query that is about to be submitted.
pub(super) fn begin(name: *mut c_void) {
    PASSES.with_borrow_mut(|passes| passes.insert(name as usize, 0));
}

/// Ends the counting for a query.
pub(super) fn end(name: *mut c_void) {
    PASSES.with_borrow_mut(|passes| passes.remove(&(name as usize)));
}

/// Counts that a module submits the query again. False if that has happened too often; a query that
/// C code started has no limit.
pub(super) fn may_pass(name: *mut c_void) -> bool {
    PASSES.with_borrow_mut(|passes| match passes.get_mut(&(name as usize)) {
        Some(count) => {
            *count += 1;
            *count <= MOST
        }
        None => true,
    })
}
