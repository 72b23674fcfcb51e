//! misc/io_sched.h: the event loop for C.
//!
//! A null context, a loop that is not lent out, and a descriptor below zero are answered and not
//! followed. Callbacks and timer procedures are `void (*)(void *, int)`.

use super::guard;
use crate::event::{Callback, Choice, Condition, Context, Interest, Loop};
use crate::os::{common_data, log};
use crate::program;
use std::ffi::{c_int, c_long, c_void};
use std::ptr;

/// Runs `action` on the loop of `io`.
///
/// # Safety
/// `io` is null or a context of a loop that exists; C code calls this library from one thread.
unsafe fn with<T>(io: *const Context, fallback: T, action: impl FnOnce(&mut Loop) -> T) -> T
where
    T: Copy,
{
    // SAFETY: as the caller promises.
    guard(fallback, || unsafe { Context::with(io, action) }.unwrap_or(fallback))
}

/// `struct io_context *io_init(void)`: a loop for C code.
#[no_mangle]
pub extern "C" fn io_init() -> *mut c_void {
    guard(ptr::null_mut(), || {
        if let Some(warning) = Choice::from_environment().warning {
            log::message(&warning);
            std::process::abort();
        }
        let Ok((events, _)) = program::make_loop() else {
            std::process::abort();
        };
        common_data::refresh_clock();
        events.into_foreign().1
    })
}

/// `struct io_context *io_destroy(struct io_context *io, void (*freeproc)(void *))`: ends a loop
/// of [`io_init`]. `freeproc` gets each context that is registered. Descriptors stay open.
///
/// # Safety
/// `io` is null or of io_init, and not used afterwards.
#[no_mangle]
pub unsafe extern "C" fn io_destroy(
    io: *const Context,
    freeproc: Option<unsafe extern "C" fn(*mut c_void)>,
) -> *mut c_void {
    guard((), || {
        // SAFETY: as the caller promises; a context that a module has lent is not of io_init.
        unsafe {
            let contexts = Loop::end_foreign(io);
            if let Some(free) = freeproc {
                contexts.into_iter().filter(|context| !context.is_null()).for_each(|c| free(c));
            }
        }
    });
    ptr::null_mut()
}

/// `int io_close(struct io_context *io, int fd)`: unregisters and closes.
///
/// # Safety
/// As for all functions here; the descriptor is the caller's.
#[no_mangle]
pub unsafe extern "C" fn io_close(io: *const Context, fd: c_int) -> c_int {
    if fd < 0 {
        return -1;
    }
    // SAFETY: as the caller promises. Only a descriptor that is open is taken over, to be closed.
    unsafe {
        with(io, ptr::null_mut(), |events| events.foreign_unregister(fd));
        libc::close(fd)
    }
}

/// `int io_get_nfds_limit(struct io_context *io)`: how many descriptors there can be.
///
/// # Safety
/// As for all functions here.
#[no_mangle]
pub unsafe extern "C" fn io_get_nfds_limit(io: *const Context) -> c_int {
    // SAFETY: as the caller promises.
    unsafe {
        with(io, 0, |_| {
            let limit = crate::os::process::descriptor_limit();
            c_int::try_from(limit).unwrap_or(c_int::MAX)
        })
    }
}

/// `int io_poll(struct io_context *io, int timeout)`: one round; waits `timeout` milliseconds, for
/// ever if that is negative. Returns how many descriptors were ready.
///
/// # Safety
/// As for all functions here.
#[no_mangle]
pub unsafe extern "C" fn io_poll(io: *const Context, timeout: c_int) -> c_int {
    let timeout = u64::try_from(timeout).ok();
    // SAFETY: as the caller promises.
    unsafe { with(io, 0, |events| events.foreign_poll(timeout) as c_int) }
}

/// `void io_main(struct io_context *io)`: serves for ever.
///
/// # Safety
/// As for all functions here.
#[no_mangle]
pub unsafe extern "C" fn io_main(io: *const Context) {
    if io.is_null() {
        return;
    }
    loop {
        common_data::refresh_clock();
        // SAFETY: as the caller promises.
        unsafe { with(io, (), program::serve_foreign) };
    }
}

/// `int io_sched_exec(struct io_context *io)`: runs what is due; milliseconds until the next is,
/// -1 if there is none.
///
/// # Safety
/// As for all functions here.
#[no_mangle]
pub unsafe extern "C" fn io_sched_exec(io: *const Context) -> c_int {
    // SAFETY: as the caller promises.
    unsafe {
        with(io, -1, |events| {
            common_data::refresh_clock();
            let next = events.foreign_run_due();
            next.map_or(-1, |ms| c_int::try_from(ms + 1).unwrap_or(c_int::MAX))
        })
    }
}

/// A wait in microseconds. Carries of more than a second are the caller's to have.
fn wait(seconds: c_long, microseconds: c_long) -> i64 {
    #[allow(clippy::unnecessary_cast, reason = "the types differ between systems")]
    (seconds as i64).saturating_mul(1_000_000).saturating_add(microseconds as i64)
}

/// Entries that do one thing with the loop, and answer `else` without one.
macro_rules! on_loop {
    ($(
        $(#[$doc:meta])*
        fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty, else $fallback:expr;
        |$events:ident| $body:expr
    )*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// As for all functions here.
        #[no_mangle]
        pub unsafe extern "C" fn $name(io: *const Context, $($argument: $type),*) -> $result {
            // SAFETY: as the caller promises.
            unsafe { with(io, $fallback, |$events| $body) }
        }
    )*};
}

/// An answer of io_is_invalid_*.
fn invalid(fd: c_int, invalid: bool) -> c_int {
    if fd < 0 {
        -1
    } else {
        invalid.into()
    }
}

on_loop! {
    /// `void io_register(io, int fd, void *context)`: a descriptor without callbacks and interest.
    fn io_register(fd: c_int, context: *mut c_void) -> (), else ();
    |events| events.foreign_register(fd, context)

    /// `void *io_unregister(io, int fd)`: returns the context.
    fn io_unregister(fd: c_int) -> *mut c_void, else ptr::null_mut();
    |events| events.foreign_unregister(fd)

    /// `void io_clone(io, int to, int from)`: `to` becomes what `from` is.
    fn io_clone(to: c_int, from: c_int) -> (), else ();
    |events| events.foreign_clone(to, from)

    /// `void *io_get_ctx(io, int fd)`: the context.
    fn io_get_ctx(fd: c_int) -> *mut c_void, else ptr::null_mut();
    |events| events.foreign_context(fd)

    /// `void io_set_i(io, int fd)`: interest on.
    fn io_set_i(fd: c_int) -> (), else ();
    |events| events.foreign_want(fd, Interest::READ, true)

    /// `void io_clr_i(io, int fd)`: interest off.
    fn io_clr_i(fd: c_int) -> (), else ();
    |events| events.foreign_want(fd, Interest::READ, false)

    /// `void io_set_o(io, int fd)`: interest on.
    fn io_set_o(fd: c_int) -> (), else ();
    |events| events.foreign_want(fd, Interest::WRITE, true)

    /// `void io_clr_o(io, int fd)`: interest off.
    fn io_clr_o(fd: c_int) -> (), else ();
    |events| events.foreign_want(fd, Interest::WRITE, false)

    /// `int io_want_read(io, int fd)`: the interest.
    fn io_want_read(fd: c_int) -> c_int, else 0;
    |events| events.foreign_wants(fd, Interest::READ).into()

    /// `int io_want_write(io, int fd)`: the interest.
    fn io_want_write(fd: c_int) -> c_int, else 0;
    |events| events.foreign_wants(fd, Interest::WRITE).into()

    /// `void io_set_cb_i(io, int fd, void *function)`
    fn io_set_cb_i(fd: c_int, function: Callback) -> (), else ();
    |events| events.foreign_set_callback(fd, Condition::Input, function)

    /// `void io_clr_cb_i(io, int fd)`: back to what complains.
    fn io_clr_cb_i(fd: c_int) -> (), else ();
    |events| events.foreign_clear_callback(fd, Condition::Input)

    /// `void io_set_cb_inv_i(io, void *function)`: what complains, for later registrations.
    fn io_set_cb_inv_i(function: Callback) -> (), else ();
    |events| events.foreign_set_invalid(Condition::Input, function)

    /// `void *io_get_cb_i(io, int fd)`
    fn io_get_cb_i(fd: c_int) -> Callback, else ptr::null_mut();
    |events| events.foreign_callback(fd, Condition::Input)

    /// `void io_set_cb_o(io, int fd, void *function)`
    fn io_set_cb_o(fd: c_int, function: Callback) -> (), else ();
    |events| events.foreign_set_callback(fd, Condition::Output, function)

    /// `void io_clr_cb_o(io, int fd)`: back to what complains.
    fn io_clr_cb_o(fd: c_int) -> (), else ();
    |events| events.foreign_clear_callback(fd, Condition::Output)

    /// `void io_set_cb_inv_o(io, void *function)`: what complains, for later registrations.
    fn io_set_cb_inv_o(function: Callback) -> (), else ();
    |events| events.foreign_set_invalid(Condition::Output, function)

    /// `void *io_get_cb_o(io, int fd)`
    fn io_get_cb_o(fd: c_int) -> Callback, else ptr::null_mut();
    |events| events.foreign_callback(fd, Condition::Output)

    /// `void io_set_cb_e(io, int fd, void *function)`
    fn io_set_cb_e(fd: c_int, function: Callback) -> (), else ();
    |events| events.foreign_set_callback(fd, Condition::Error, function)

    /// `void io_clr_cb_e(io, int fd)`: back to what complains.
    fn io_clr_cb_e(fd: c_int) -> (), else ();
    |events| events.foreign_clear_callback(fd, Condition::Error)

    /// `void io_set_cb_inv_e(io, void *function)`: what complains, for later registrations.
    fn io_set_cb_inv_e(function: Callback) -> (), else ();
    |events| events.foreign_set_invalid(Condition::Error, function)

    /// `void *io_get_cb_e(io, int fd)`
    fn io_get_cb_e(fd: c_int) -> Callback, else ptr::null_mut();
    |events| events.foreign_callback(fd, Condition::Error)

    /// `void io_set_cb_h(io, int fd, void *function)`
    fn io_set_cb_h(fd: c_int, function: Callback) -> (), else ();
    |events| events.foreign_set_callback(fd, Condition::Hangup, function)

    /// `void io_clr_cb_h(io, int fd)`: back to what complains.
    fn io_clr_cb_h(fd: c_int) -> (), else ();
    |events| events.foreign_clear_callback(fd, Condition::Hangup)

    /// `void io_set_cb_inv_h(io, void *function)`: what complains, for later registrations.
    fn io_set_cb_inv_h(function: Callback) -> (), else ();
    |events| events.foreign_set_invalid(Condition::Hangup, function)

    /// `void *io_get_cb_h(io, int fd)`
    fn io_get_cb_h(fd: c_int) -> Callback, else ptr::null_mut();
    |events| events.foreign_callback(fd, Condition::Hangup)

    /// `void io_sched_add(io, void *key, void *procedure, time_t, suseconds_t)`: before what the key has.
    fn io_sched_add(key: *mut c_void, procedure: Callback, seconds: c_long, microseconds: c_long) -> (), else ();
    |events| {
            events.foreign_schedule(key, procedure, wait(seconds, microseconds), false)
        }

    /// `void io_sched_app(io, void *key, void *procedure, time_t, suseconds_t)`: behind what the key has.
    fn io_sched_app(key: *mut c_void, procedure: Callback, seconds: c_long, microseconds: c_long) -> (), else ();
    |events| {
            events.foreign_schedule(key, procedure, wait(seconds, microseconds), true)
        }

    /// `void *io_sched_pop(io, void *key)`: removes the first; the procedure of the next.
    fn io_sched_pop(key: *mut c_void) -> Callback, else ptr::null_mut();
    |events| events.foreign_pop(key)

    /// `void io_sched_drop(io, void *key)`: removes all.
    fn io_sched_drop(key: *mut c_void) -> (), else ();
    |events| events.foreign_drop(key)

    /// `int io_sched_del(io, void *key, void *procedure)`: -1 if something was removed.
    fn io_sched_del(key: *mut c_void, procedure: Callback) -> c_int, else 0;
    |events| -c_int::from(events.foreign_delete(key, procedure))

    /// `int io_sched_renew_proc(io, void *key, void *procedure)`: 0 if it was armed again, else -1.
    fn io_sched_renew_proc(key: *mut c_void, procedure: Callback) -> c_int, else -1;
    |events| {
            common_data::refresh_clock();
            if events.foreign_renew(key, procedure) {
                0
            } else {
                -1
            }
        }

    /// `void *io_sched_peek(io, void *key)`: the procedure of the first.
    fn io_sched_peek(key: *mut c_void) -> Callback, else ptr::null_mut();
    |events| events.foreign_peek(key)

    /// `struct timeval *io_sched_peek_time(io, void *key)`: when the first is due.
    fn io_sched_peek_time(key: *mut c_void) -> *const libc::timeval, else ptr::null();
    |events| events.foreign_peek_time(key)

    /// `int io_is_invalid_i(io, int fd)`: 1 if the callback is what complains, -1 for no descriptor.
    fn io_is_invalid_i(fd: c_int) -> c_int, else -1;
    |events| invalid(fd, events.foreign_is_invalid(fd, Condition::Input))

    /// `int io_is_invalid_o(io, int fd)`: 1 if the callback is what complains, -1 for no descriptor.
    fn io_is_invalid_o(fd: c_int) -> c_int, else -1;
    |events| invalid(fd, events.foreign_is_invalid(fd, Condition::Output))

    /// `int io_is_invalid_e(io, int fd)`: 1 if the callback is what complains, -1 for no descriptor.
    fn io_is_invalid_e(fd: c_int) -> c_int, else -1;
    |events| invalid(fd, events.foreign_is_invalid(fd, Condition::Error))

    /// `int io_is_invalid_h(io, int fd)`: 1 if the callback is what complains, -1 for no descriptor.
    fn io_is_invalid_h(fd: c_int) -> c_int, else -1;
    |events| invalid(fd, events.foreign_is_invalid(fd, Condition::Hangup))
}
