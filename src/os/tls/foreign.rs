//! TLS sessions that belong to C code.

use openssl_sys as ffi;
use std::ffi::{c_int, c_void};

/// The result of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done; this many bytes.
    Done(usize),
    /// Try again when the socket is readable.
    WantRead,
    /// Try again when the socket is writable.
    WantWrite,
    /// The other end has closed the session (close_notify).
    Closed,
    /// Failed for good.
    Failed,
}

/// Runs an operation that returns `done` on success.
///
/// # Safety
/// `ssl` is a session.
unsafe fn run(ssl: *mut ffi::SSL, done: c_int, operation: impl FnOnce() -> c_int) -> Outcome {
    // Errors that other code left in the queue would be taken for this session's.
    // SAFETY: as the caller promises; the first function only concerns this thread's queue.
    let error = unsafe {
        ffi::ERR_clear_error();
        let result = operation();
        if result == done {
            return Outcome::Done(0);
        }
        ffi::SSL_get_error(ssl, result)
    };
    match error {
        ffi::SSL_ERROR_WANT_READ => Outcome::WantRead,
        ffi::SSL_ERROR_WANT_WRITE => Outcome::WantWrite,
        ffi::SSL_ERROR_ZERO_RETURN => Outcome::Closed,
        _ => Outcome::Failed,
    }
}

/// SSL_read_ex(3).
///
/// # Safety
/// `ssl` is a session that nobody else uses meanwhile; `buffer` has room for `size` bytes.
pub unsafe fn read(ssl: *mut ffi::SSL, buffer: *mut c_void, size: usize) -> Outcome {
    let mut count = 0;
    // SAFETY: as the caller promises; `count` outlives the call.
    let outcome = unsafe { run(ssl, 1, || ffi::SSL_read_ex(ssl, buffer, size, &mut count)) };
    with_count(outcome, count)
}

/// SSL_write_ex(3).
///
/// # Safety
/// `ssl` is a session that nobody else uses meanwhile; `buffer` has `size` bytes.
pub unsafe fn write(ssl: *mut ffi::SSL, buffer: *const c_void, size: usize) -> Outcome {
    let mut count = 0;
    // SAFETY: as the caller promises; `count` outlives the call.
    let outcome = unsafe { run(ssl, 1, || ffi::SSL_write_ex(ssl, buffer, size, &mut count)) };
    with_count(outcome, count)
}

fn with_count(outcome: Outcome, count: usize) -> Outcome {
    match outcome {
        Outcome::Done(_) => Outcome::Done(count),
        other => other,
    }
}

/// SSL_shutdown(3). `None`: this end has sent its close_notify, but the other end has not yet.
///
/// # Safety
/// `ssl` is a session that nobody else uses meanwhile.
pub unsafe fn shutdown(ssl: *mut ffi::SSL) -> Option<Outcome> {
    let mut result = 0;
    // SAFETY: as the caller promises.
    let outcome = unsafe {
        run(ssl, 1, || {
            result = ffi::SSL_shutdown(ssl);
            result
        })
    };
    (result != 0).then_some(outcome)
}
