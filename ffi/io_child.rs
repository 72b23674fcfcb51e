//! misc/io_child.h: child processes, each with a function to call when it ends.

use super::entry::entry;
use crate::os::children::{self, Ending};
use crate::os::process::{self, Fork};
use std::ffi::{c_int, c_void};

/// `void (*)(pid_t, void *context, int status)`, or null.
type Function = Option<unsafe extern "C" fn(libc::pid_t, *mut c_void, c_int)>;

fn ending(function: Function, context: *mut c_void) -> Ending {
    Box::new(move |pid, status| {
        if let Some(function) = function {
            // SAFETY: the program registered the function for this call.
            unsafe { function(pid, context, status) };
        }
    })
}

entry! {
    /// `pid_t io_child_fork(void (*fun)(pid_t, void *, int), void *ctx)`: fork(2), and remembers
    /// the child.
    #[otherwise(-1)]
    pub fn io_child_fork(function: Function, context: *mut c_void) -> libc::pid_t {
        match children::fork(ending(function, context)) {
            Ok(Fork::Parent(pid)) => pid,
            Ok(Fork::Child) => 0,
            Err(error) => {
                process::set_errno(error.raw_os_error().unwrap_or(libc::EAGAIN));
                -1
            }
        }
    }

    /// `void io_child_reap(void)`: reaps the children that have ended, and calls their functions.
    pub fn io_child_reap() {
        children::reap();
    }

    /// `void io_child_set(pid_t pid, void (*fun)(pid_t, void *, int), void *ctx)`: replaces the
    /// function of a remembered child.
    pub fn io_child_set(pid: libc::pid_t, function: Function, context: *mut c_void) {
        children::set(pid, ending(function, context));
    }

    /// `void io_child_ign(pid_t pid)`: forgets a child.
    pub fn io_child_ign(pid: libc::pid_t) {
        children::ignore(pid);
    }
}
