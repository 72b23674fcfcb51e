//! Included by our programs, not by the library: their thin mains enter libmavis.so here.

use std::ffi::{c_char, c_int, CString};
use std::os::unix::ffi::OsStringExt;

/// The first field of the library's `Interface`.
#[repr(C)]
struct Interface {
    main: unsafe extern "C" fn(kind: c_int, argc: c_int, argv: *const *const c_char) -> c_int,
}

extern "C" {
    fn tcprelay_interface() -> *const Interface;
}

/// `main` of tcprelay(8).
#[allow(dead_code, reason = "each program is one of these")]
pub const TCPRELAY: c_int = 0;
/// `main` of spawnd(8).
#[allow(dead_code, reason = "each program is one of these")]
pub const SPAWND: c_int = 1;
/// `main` of mavistest(1).
#[allow(dead_code, reason = "each program is one of these")]
pub const MAVISTEST: c_int = 2;
/// `main` of tcprelayctl(8).
#[allow(dead_code, reason = "each program is one of these")]
pub const TCPRELAYCTL: c_int = 3;

/// Runs the program with this process's arguments; returns its exit status.
pub fn run(kind: c_int) -> i32 {
    // Arguments have no NUL in them.
    let arguments: Vec<CString> = std::env::args_os()
        .map(|argument| CString::new(argument.into_vec()).unwrap_or_default())
        .collect();
    let pointers: Vec<*const c_char> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    // SAFETY: the function returns a constant of the library, whose first field has this type; the
    // pointers are to NUL-terminated strings that live until the call returns.
    unsafe {
        let interface = &*tcprelay_interface();
        (interface.main)(kind, pointers.len() as c_int, pointers.as_ptr())
    }
}
