//! misc/io_sched.h: TLS for C, over a descriptor that is registered in the loop.
//!
//! The session is one of the OpenSSL that this library is linked to. An operation that waits for
//! the direction which is not its own would not be resumed by what the program watches: until it
//! is finished its callback stands in for both of the descriptor's, and only that direction is
//! watched. The end of a session always is such an operation.

use super::guard;
use crate::event::{Callback, Context, Interest};
use crate::os::process::set_errno;
use crate::os::tls::foreign::{self, Outcome};
use openssl_sys::SSL;
use std::ffi::{c_int, c_uint, c_void};

/// `enum io_status`
const OK: c_uint = 0;
const RETRY: c_uint = 1;
const ERROR: c_uint = 2;
const CLOSE: c_uint = 3;

/// The loop, a descriptor in it, and what to call when an operation can go on.
struct Place {
    io: *const Context,
    fd: c_int,
    callback: Callback,
}

impl Place {
    /// Watches for what an operation needs that would go on by itself once `own` is the case.
    ///
    /// # Safety
    /// The loop exists, and C code calls from one thread.
    unsafe fn settle(&self, outcome: Outcome, own: Interest) {
        let needed = match outcome {
            Outcome::WantRead => Interest::READ,
            Outcome::WantWrite => Interest::WRITE,
            _ => Interest::empty(),
        };
        // SAFETY: as the caller promises.
        unsafe {
            Context::with(self.io, |events| {
                if !own.contains(needed) && !self.callback.is_null() {
                    events.foreign_hold(self.fd, self.callback, needed);
                } else if needed.is_empty() || events.foreign_held(self.fd) != Some(needed) {
                    // One that is held for the same is another operation, which still waits.
                    events.foreign_release(self.fd);
                }
            });
        }
    }
}

fn size(count: usize) -> libc::ssize_t {
    libc::ssize_t::try_from(count).unwrap_or(libc::ssize_t::MAX)
}

/// The result of an operation, in the first form.
fn with_errno(outcome: Outcome) -> libc::ssize_t {
    match outcome {
        Outcome::Done(count) => size(count),
        Outcome::WantRead | Outcome::WantWrite => {
            set_errno(libc::EAGAIN);
            0
        }
        Outcome::Closed | Outcome::Failed => {
            set_errno(libc::EIO);
            -1
        }
    }
}

/// The result of an operation, in the second form.
///
/// # Safety
/// `status` is null or writable.
unsafe fn with_status(outcome: Outcome, status: *mut c_uint) -> libc::ssize_t {
    let (count, value) = match outcome {
        Outcome::Done(count) => (count, OK),
        Outcome::WantRead | Outcome::WantWrite => (0, RETRY),
        Outcome::Closed => (0, CLOSE),
        Outcome::Failed => (0, ERROR),
    };
    // SAFETY: as the caller promises.
    if let Some(status) = unsafe { status.as_mut() } {
        *status = value;
    }
    size(count)
}

/// # Safety
/// As for [`io_SSL_read`].
unsafe fn read(ssl: *mut SSL, buffer: *mut c_void, count: usize, place: &Place) -> Outcome {
    guard(Outcome::Failed, || {
        if ssl.is_null() || buffer.is_null() {
            return Outcome::Failed;
        }
        // SAFETY: as the caller promises.
        unsafe {
            let outcome = foreign::read(ssl, buffer, count);
            place.settle(outcome, Interest::READ);
            outcome
        }
    })
}

/// # Safety
/// As for [`io_SSL_write`].
unsafe fn write(ssl: *mut SSL, buffer: *const c_void, count: usize, place: &Place) -> Outcome {
    guard(Outcome::Failed, || {
        if ssl.is_null() || buffer.is_null() {
            return Outcome::Failed;
        }
        // SAFETY: as the caller promises.
        unsafe {
            let outcome = foreign::write(ssl, buffer, count);
            place.settle(outcome, Interest::WRITE);
            outcome
        }
    })
}

/// `ssize_t io_SSL_read(SSL *, void *buf, size_t, io, int fd, void *cb)`: bytes; 0 with EAGAIN if
/// it is too early; -1 with EIO for errors and at the end.
///
/// # Safety
/// `ssl` is null or a session of this process's OpenSSL, `buffer` null or with room for `count`;
/// `io` is null or a loop; C code calls this library from one thread.
#[no_mangle]
pub unsafe extern "C" fn io_SSL_read(
    ssl: *mut SSL,
    buffer: *mut c_void,
    count: usize,
    io: *const Context,
    fd: c_int,
    callback: Callback,
) -> libc::ssize_t {
    // SAFETY: as the caller promises.
    with_errno(unsafe { read(ssl, buffer, count, &Place { io, fd, callback }) })
}

/// `ssize_t io_SSL_read_ex(SSL *, void *buf, size_t, io, int fd, void *cb, enum io_status *)`: bytes,
/// or 0, and how it went.
///
/// # Safety
/// As for [`io_SSL_read`]; `status` is null or writable.
#[no_mangle]
pub unsafe extern "C" fn io_SSL_read_ex(
    ssl: *mut SSL,
    buffer: *mut c_void,
    count: usize,
    io: *const Context,
    fd: c_int,
    callback: Callback,
    status: *mut c_uint,
) -> libc::ssize_t {
    // SAFETY: as the caller promises.
    unsafe { with_status(read(ssl, buffer, count, &Place { io, fd, callback }), status) }
}

/// `ssize_t io_SSL_write(SSL *, void *buf, size_t, io, int fd, void *cb)`: as [`io_SSL_read`].
///
/// # Safety
/// As for [`io_SSL_read`], but that the buffer has `count` bytes to read.
#[no_mangle]
pub unsafe extern "C" fn io_SSL_write(
    ssl: *mut SSL,
    buffer: *const c_void,
    count: usize,
    io: *const Context,
    fd: c_int,
    callback: Callback,
) -> libc::ssize_t {
    // SAFETY: as the caller promises.
    with_errno(unsafe { write(ssl, buffer, count, &Place { io, fd, callback }) })
}

/// `ssize_t io_SSL_write_ex(SSL *, void *buf, size_t, io, int fd, void *cb, enum io_status *)`: as
/// [`io_SSL_read_ex`].
///
/// # Safety
/// As for [`io_SSL_write`]; `status` is null or writable.
#[no_mangle]
pub unsafe extern "C" fn io_SSL_write_ex(
    ssl: *mut SSL,
    buffer: *const c_void,
    count: usize,
    io: *const Context,
    fd: c_int,
    callback: Callback,
    status: *mut c_uint,
) -> libc::ssize_t {
    // SAFETY: as the caller promises.
    unsafe { with_status(write(ssl, buffer, count, &Place { io, fd, callback }), status) }
}

/// `int io_SSL_shutdown(SSL *, io, int fd, void *cb)`: 1 if both ends have said that nothing will
/// follow. Otherwise -1, with EAGAIN if `cb` will be called to go on, EINPROGRESS if only the other
/// end's word is missing, which another call would wait for, and EIO for errors.
///
/// # Safety
/// As for [`io_SSL_read`].
#[no_mangle]
pub unsafe extern "C" fn io_SSL_shutdown(
    ssl: *mut SSL,
    io: *const Context,
    fd: c_int,
    callback: Callback,
) -> c_int {
    let place = Place { io, fd, callback };
    guard(-1, || {
        if ssl.is_null() {
            set_errno(libc::EIO);
            return -1;
        }
        // SAFETY: as the caller promises.
        let outcome = unsafe {
            let outcome = foreign::shutdown(ssl);
            place.settle(outcome.unwrap_or(Outcome::Done(0)), Interest::empty());
            outcome
        };
        let errno = match outcome {
            Some(Outcome::Done(_)) => return 1,
            Some(Outcome::WantRead | Outcome::WantWrite) => libc::EAGAIN,
            Some(Outcome::Closed | Outcome::Failed) => libc::EIO,
            None => libc::EINPROGRESS,
        };
        set_errno(errno);
        -1
    })
}
