//! misc/io_child.h: children with a function to call at their end.

use super::guard;
use crate::os::children::{self, Ending};
use crate::os::process::{self, Fork};
use std::ffi::{c_int, c_void};

/// `void (*)(pid_t, void *context, int status)`, or null.
type Function = Option<unsafe extern "C" fn(libc::pid_t, *mut c_void, c_int)>;

fn ending(function: Function, context: *mut c_void) -> Ending {
    Box::new(move |pid, status| {
        if let Some(function) = function {
            // SAFETY: the program has given the function for this very call.
            unsafe { function(pid, context, status) };
        }
    })
}

/// `pid_t io_child_fork(void (*fun)(pid_t, void *, int), void *ctx)`: forks, and remembers the
/// child. As fork(2).
///
/// # Safety
/// `function` is null or takes these arguments, and `context` is what it wants.
#[no_mangle]
pub unsafe extern "C" fn io_child_fork(function: Function, context: *mut c_void) -> libc::pid_t {
    guard(-1, || match children::fork(ending(function, context)) {
        Ok(Fork::Parent(pid)) => pid,
        Ok(Fork::Child) => 0,
        Err(error) => {
            process::set_errno(error.raw_os_error().unwrap_or(libc::EAGAIN));
            -1
        }
    })
}

/// `void io_child_reap(void)`: reaps what has ended, and calls its functions.
#[no_mangle]
pub extern "C" fn io_child_reap() {
    guard((), children::reap);
}

/// `void io_child_set(pid_t pid, void (*fun)(pid_t, void *, int), void *ctx)`: another function
/// for a child that is remembered.
///
/// # Safety
/// As for [`io_child_fork`].
#[no_mangle]
pub unsafe extern "C" fn io_child_set(pid: libc::pid_t, function: Function, context: *mut c_void) {
    guard((), || children::set(pid, ending(function, context)));
}

/// `void io_child_ign(pid_t pid)`: forgets a child.
#[no_mangle]
pub extern "C" fn io_child_ign(pid: libc::pid_t) {
    guard((), || children::ignore(pid));
}
