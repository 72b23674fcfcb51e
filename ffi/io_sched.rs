//! misc/io_sched.h: the event loop for C, and TLS over a descriptor in it.
//!
//! A null context, a loop that is not lent out, or a negative descriptor does no harm: most
//! functions then do nothing and return their error value. Callbacks and timer procedures are `void
//! (*)(void *, int)`.
//!
//! A TLS session must be of the OpenSSL that this library is linked to. TLS may make a read wait
//! until the socket is writable, or a write until it is readable, and the program does not watch
//! for that. So until such an operation has finished, its callback replaces both callbacks of the
//! descriptor, and only the direction it waits for is watched. A shutdown is always such an
//! operation.

use super::entry::{entry, Argument, Out};
use super::layout::common_data;
use crate::event::{Callback, Condition, Context, Interest, Loop, Order};
use crate::os::process::set_errno;
use crate::os::tls::foreign::{self, Outcome};
use crate::program;
use openssl_sys::SSL;
use std::ffi::{c_int, c_long, c_uint, c_void};
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

/// A loop that is lent out to C code. C code calls this library from one thread only.
pub struct Events<'a>(&'a mut Loop);

impl Argument for Events<'_> {
    type Raw = *const Context;
    unsafe fn take(raw: *const Context) -> Option<Self> {
        // SAFETY: as the caller promises.
        unsafe { Context::lent(raw) }.map(Events)
    }
}

impl Deref for Events<'_> {
    type Target = Loop;
    fn deref(&self) -> &Loop {
        self.0
    }
}

impl DerefMut for Events<'_> {
    fn deref_mut(&mut self) -> &mut Loop {
        self.0
    }
}

/// A wait in microseconds; `microseconds` may be more than a second.
fn wait(seconds: c_long, microseconds: c_long) -> i64 {
    #[allow(clippy::unnecessary_cast, reason = "the types differ between systems")]
    (seconds as i64).saturating_mul(1_000_000).saturating_add(microseconds as i64)
}

/// The result of `io_is_invalid_*`.
fn invalid(fd: c_int, invalid: bool) -> c_int {
    if fd < 0 {
        -1
    } else {
        invalid.into()
    }
}

entry! {
    /// `struct io_context *io_init(void)`: a loop for C code.
    #[otherwise(ptr::null_mut())]
    pub fn io_init() -> *mut c_void {
        match program::hosted_loop() {
            Some(events) => events.into_foreign().1,
            None => std::process::abort(),
        }
    }

    /// `struct io_context *io_destroy(struct io_context *io, void (*freeproc)(void *))`: ends a
    /// loop of [`io_init`]. `freeproc` is called with each registered context. Descriptors stay
    /// open.
    #[otherwise(ptr::null_mut())]
    pub fn io_destroy(
        io: *const Context,
        freeproc: Option<unsafe extern "C" fn(*mut c_void)>,
    ) -> *mut c_void {
        // SAFETY: the loop is null or came from io_init, and is not used afterwards; a loop lent to
        // a module is left alone.
        unsafe {
            let contexts = Loop::end_foreign(io);
            if let Some(free) = freeproc {
                contexts.into_iter().filter(|context| !context.is_null()).for_each(|c| free(c));
            }
        }
        ptr::null_mut()
    }

    /// `int io_close(struct io_context *io, int fd)`: unregisters and closes.
    #[otherwise(-1)]
    pub fn io_close(events: Option<Events>, fd: c_int) -> c_int {
        if fd < 0 {
            return -1;
        }
        if let Some(mut events) = events {
            events.foreign_unregister(fd);
        }
        // SAFETY: the descriptor is the caller's.
        unsafe { libc::close(fd) }
    }

    /// `int io_get_nfds_limit(struct io_context *io)`: how many descriptors the process may have.
    #[otherwise(0)]
    pub fn io_get_nfds_limit(_events: Events) -> c_int {
        c_int::try_from(crate::os::process::descriptor_limit()).unwrap_or(c_int::MAX)
    }

    /// `int io_poll(struct io_context *io, int timeout)`: one turn: waits up to `timeout`
    /// milliseconds, or for ever if that is negative, and calls the callbacks. Returns how many
    /// descriptors were ready.
    #[otherwise(0)]
    pub fn io_poll(events: Events, timeout: c_int) -> c_int {
        events.foreign_poll(u64::try_from(timeout).ok()) as c_int
    }

    /// `void io_main(struct io_context *io)`: runs the loop for ever.
    pub fn io_main(io: NonNull<Context>) {
        loop {
            // SAFETY: the loop exists.
            unsafe { turn(io.as_ptr()) };
        }
    }

    /// One turn of [`io_main`]. An entry of its own, so that the loop survives a panic in it.
    fn turn(events: Events) {
        common_data::refresh_clock();
        program::serve_foreign(&mut events);
    }

    /// `int io_sched_exec(struct io_context *io)`: runs the timers that are due. Returns the
    /// milliseconds until the next one, -1 if there is none.
    #[otherwise(-1)]
    pub fn io_sched_exec(events: Events) -> c_int {
        common_data::refresh_clock();
        let next = events.foreign_run_due();
        next.map_or(-1, |ms| c_int::try_from(ms + 1).unwrap_or(c_int::MAX))
    }

    /// `void io_register(io, int fd, void *context)`: registers a descriptor, without callbacks and
    /// interest.
    pub fn io_register(events: Events, fd: c_int, context: *mut c_void) {
        events.foreign_register(fd, context);
    }

    /// `void *io_unregister(io, int fd)`: unregisters a descriptor, and returns its context.
    #[otherwise(ptr::null_mut())]
    pub fn io_unregister(events: Events, fd: c_int) -> *mut c_void {
        events.foreign_unregister(fd)
    }

    /// `void io_clone(io, int to, int from)`: copies context, callbacks and interest of `from` to
    /// `to`.
    pub fn io_clone(events: Events, to: c_int, from: c_int) {
        events.foreign_clone(to, from);
    }

    /// `void *io_get_ctx(io, int fd)`: the context of a descriptor.
    #[otherwise(ptr::null_mut())]
    pub fn io_get_ctx(events: Events, fd: c_int) -> *mut c_void {
        events.foreign_context(fd)
    }

    /// `void io_set_i(io, int fd)`: starts to watch for input.
    pub fn io_set_i(events: Events, fd: c_int) {
        events.foreign_want(fd, Interest::READ);
    }

    /// `void io_clr_i(io, int fd)`: stops watching for input.
    pub fn io_clr_i(events: Events, fd: c_int) {
        events.foreign_leave(fd, Interest::READ);
    }

    /// `void io_set_o(io, int fd)`: starts to watch for output.
    pub fn io_set_o(events: Events, fd: c_int) {
        events.foreign_want(fd, Interest::WRITE);
    }

    /// `void io_clr_o(io, int fd)`: stops watching for output.
    pub fn io_clr_o(events: Events, fd: c_int) {
        events.foreign_leave(fd, Interest::WRITE);
    }

    /// `int io_want_read(io, int fd)`: 1 if input is watched for.
    #[otherwise(0)]
    pub fn io_want_read(events: Events, fd: c_int) -> c_int {
        events.foreign_wants(fd, Interest::READ).into()
    }

    /// `int io_want_write(io, int fd)`: 1 if output is watched for.
    #[otherwise(0)]
    pub fn io_want_write(events: Events, fd: c_int) -> c_int {
        events.foreign_wants(fd, Interest::WRITE).into()
    }

    /// `void io_set_cb_i(io, int fd, void *function)`
    pub fn io_set_cb_i(events: Events, fd: c_int, function: Callback) {
        events.foreign_set_callback(fd, Condition::Input, function);
    }

    /// `void io_clr_cb_i(io, int fd)`: back to the fallback callback; interest off.
    pub fn io_clr_cb_i(events: Events, fd: c_int) {
        events.foreign_clear_callback(fd, Condition::Input);
    }

    /// `void io_set_cb_inv_i(io, void *function)`: sets the fallback callback of later
    /// registrations.
    pub fn io_set_cb_inv_i(events: Events, function: Callback) {
        events.foreign_set_invalid(Condition::Input, function);
    }

    /// `void *io_get_cb_i(io, int fd)`
    #[otherwise(ptr::null_mut())]
    pub fn io_get_cb_i(events: Events, fd: c_int) -> Callback {
        events.foreign_callback(fd, Condition::Input)
    }

    /// `void io_set_cb_o(io, int fd, void *function)`
    pub fn io_set_cb_o(events: Events, fd: c_int, function: Callback) {
        events.foreign_set_callback(fd, Condition::Output, function);
    }

    /// `void io_clr_cb_o(io, int fd)`: back to the fallback callback; interest off.
    pub fn io_clr_cb_o(events: Events, fd: c_int) {
        events.foreign_clear_callback(fd, Condition::Output);
    }

    /// `void io_set_cb_inv_o(io, void *function)`: sets the fallback callback of later
    /// registrations.
    pub fn io_set_cb_inv_o(events: Events, function: Callback) {
        events.foreign_set_invalid(Condition::Output, function);
    }

    /// `void *io_get_cb_o(io, int fd)`
    #[otherwise(ptr::null_mut())]
    pub fn io_get_cb_o(events: Events, fd: c_int) -> Callback {
        events.foreign_callback(fd, Condition::Output)
    }

    /// `void io_set_cb_e(io, int fd, void *function)`
    pub fn io_set_cb_e(events: Events, fd: c_int, function: Callback) {
        events.foreign_set_callback(fd, Condition::Error, function);
    }

    /// `void io_clr_cb_e(io, int fd)`: back to the fallback callback.
    pub fn io_clr_cb_e(events: Events, fd: c_int) {
        events.foreign_clear_callback(fd, Condition::Error);
    }

    /// `void io_set_cb_inv_e(io, void *function)`: sets the fallback callback of later
    /// registrations.
    pub fn io_set_cb_inv_e(events: Events, function: Callback) {
        events.foreign_set_invalid(Condition::Error, function);
    }

    /// `void *io_get_cb_e(io, int fd)`
    #[otherwise(ptr::null_mut())]
    pub fn io_get_cb_e(events: Events, fd: c_int) -> Callback {
        events.foreign_callback(fd, Condition::Error)
    }

    /// `void io_set_cb_h(io, int fd, void *function)`
    pub fn io_set_cb_h(events: Events, fd: c_int, function: Callback) {
        events.foreign_set_callback(fd, Condition::Hangup, function);
    }

    /// `void io_clr_cb_h(io, int fd)`: back to the fallback callback.
    pub fn io_clr_cb_h(events: Events, fd: c_int) {
        events.foreign_clear_callback(fd, Condition::Hangup);
    }

    /// `void io_set_cb_inv_h(io, void *function)`: sets the fallback callback of later
    /// registrations.
    pub fn io_set_cb_inv_h(events: Events, function: Callback) {
        events.foreign_set_invalid(Condition::Hangup, function);
    }

    /// `void *io_get_cb_h(io, int fd)`
    #[otherwise(ptr::null_mut())]
    pub fn io_get_cb_h(events: Events, fd: c_int) -> Callback {
        events.foreign_callback(fd, Condition::Hangup)
    }

    /// `void io_sched_add(io, void *key, void *procedure, time_t, suseconds_t)`: adds a timer in
    /// front of the others of this key.
    pub fn io_sched_add(
        events: Events,
        key: *mut c_void,
        procedure: Callback,
        seconds: c_long,
        microseconds: c_long,
    ) {
        events.foreign_schedule(key, procedure, wait(seconds, microseconds), Order::First);
    }

    /// `void io_sched_app(io, void *key, void *procedure, time_t, suseconds_t)`: adds a timer
    /// behind the others of this key.
    pub fn io_sched_app(
        events: Events,
        key: *mut c_void,
        procedure: Callback,
        seconds: c_long,
        microseconds: c_long,
    ) {
        events.foreign_schedule(key, procedure, wait(seconds, microseconds), Order::Last);
    }

    /// `void *io_sched_pop(io, void *key)`: removes the first timer of a key. Returns the procedure
    /// of the next, or null.
    #[otherwise(ptr::null_mut())]
    pub fn io_sched_pop(events: Events, key: *mut c_void) -> Callback {
        events.foreign_pop(key)
    }

    /// `void io_sched_drop(io, void *key)`: removes all timers of a key.
    pub fn io_sched_drop(events: Events, key: *mut c_void) {
        events.foreign_drop(key);
    }

    /// `int io_sched_del(io, void *key, void *procedure)`: removes the first timer of a key if it
    /// has this procedure, otherwise all later ones that have it. -1 if there were any.
    #[otherwise(0)]
    pub fn io_sched_del(events: Events, key: *mut c_void, procedure: Callback) -> c_int {
        -c_int::from(events.foreign_delete(key, procedure))
    }

    /// `int io_sched_renew_proc(io, void *key, void *procedure)`: restarts the first timer of a
    /// key, if it has this procedure or `procedure` is null. 0, or -1 if nothing was restarted.
    #[otherwise(-1)]
    pub fn io_sched_renew_proc(events: Events, key: *mut c_void, procedure: Callback) -> c_int {
        common_data::refresh_clock();
        if events.foreign_renew(key, procedure) {
            0
        } else {
            -1
        }
    }

    /// `void *io_sched_peek(io, void *key)`: the procedure of a key's first timer.
    #[otherwise(ptr::null_mut())]
    pub fn io_sched_peek(events: Events, key: *mut c_void) -> Callback {
        events.foreign_peek(key)
    }

    /// `struct timeval *io_sched_peek_time(io, void *key)`: when a key's first timer is due.
    #[otherwise(ptr::null())]
    pub fn io_sched_peek_time(events: Events, key: *mut c_void) -> *const libc::timeval {
        events.foreign_peek_time(key)
    }

    /// `int io_is_invalid_i(io, int fd)`: 1 if the callback is the fallback one, -1 if `fd` is
    /// negative.
    #[otherwise(-1)]
    pub fn io_is_invalid_i(events: Events, fd: c_int) -> c_int {
        invalid(fd, events.foreign_is_invalid(fd, Condition::Input))
    }

    /// `int io_is_invalid_o(io, int fd)`: 1 if the callback is the fallback one, -1 if `fd` is
    /// negative.
    #[otherwise(-1)]
    pub fn io_is_invalid_o(events: Events, fd: c_int) -> c_int {
        invalid(fd, events.foreign_is_invalid(fd, Condition::Output))
    }

    /// `int io_is_invalid_e(io, int fd)`: 1 if the callback is the fallback one, -1 if `fd` is
    /// negative.
    #[otherwise(-1)]
    pub fn io_is_invalid_e(events: Events, fd: c_int) -> c_int {
        invalid(fd, events.foreign_is_invalid(fd, Condition::Error))
    }

    /// `int io_is_invalid_h(io, int fd)`: 1 if the callback is the fallback one, -1 if `fd` is
    /// negative.
    #[otherwise(-1)]
    pub fn io_is_invalid_h(events: Events, fd: c_int) -> c_int {
        invalid(fd, events.foreign_is_invalid(fd, Condition::Hangup))
    }
}

/// `enum io_status`
const OK: c_uint = 0;
const RETRY: c_uint = 1;
const ERROR: c_uint = 2;
const CLOSE: c_uint = 3;

fn size(count: usize) -> libc::ssize_t {
    libc::ssize_t::try_from(count).unwrap_or(libc::ssize_t::MAX)
}

/// The result of an operation, as the functions without `_ex` report it.
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

/// The result of an operation, as the `_ex` functions report it.
fn with_status(outcome: Outcome, status: &Out<c_uint>) -> libc::ssize_t {
    let (count, value) = match outcome {
        Outcome::Done(count) => (count, OK),
        Outcome::WantRead | Outcome::WantWrite => (0, RETRY),
        Outcome::Closed => (0, CLOSE),
        Outcome::Failed => (0, ERROR),
    };
    status.put(value);
    size(count)
}

/// The loop, a descriptor in it, and the callback for when an operation can go on.
struct Place<'a> {
    events: Option<Events<'a>>,
    fd: c_int,
    callback: Callback,
}

impl Place<'_> {
    /// Makes the loop wait for the direction that an operation needs, unless that is `own`, which
    /// the program watches itself.
    fn settle(self, outcome: Outcome, own: Interest) -> Outcome {
        let needed = match outcome {
            Outcome::WantRead => Interest::READ,
            Outcome::WantWrite => Interest::WRITE,
            _ => Interest::empty(),
        };
        if let Some(mut events) = self.events {
            events.foreign_settle(self.fd, self.callback, needed, own);
        }
        outcome
    }
}

/// # Safety
/// `ssl` is null or a session of this process's OpenSSL; `buffer` is null or has room for `count`
/// bytes.
unsafe fn read(ssl: *mut SSL, buffer: *mut c_void, count: usize, place: Place<'_>) -> Outcome {
    if ssl.is_null() || buffer.is_null() {
        return Outcome::Failed;
    }
    // SAFETY: as the caller promises.
    place.settle(unsafe { foreign::read(ssl, buffer, count) }, Interest::READ)
}

/// # Safety
/// As for [`read`], except that the buffer holds `count` bytes to send.
unsafe fn write(ssl: *mut SSL, buffer: *const c_void, count: usize, place: Place<'_>) -> Outcome {
    if ssl.is_null() || buffer.is_null() {
        return Outcome::Failed;
    }
    // SAFETY: as the caller promises.
    place.settle(unsafe { foreign::write(ssl, buffer, count) }, Interest::WRITE)
}

entry! {
    /// `ssize_t io_SSL_read(SSL *, void *buf, size_t, io, int fd, void *cb)`: the number of bytes
    /// read; 0 with EAGAIN if the operation must wait; -1 with EIO for errors and at the end.
    #[otherwise(-1)]
    pub fn io_SSL_read(
        ssl: *mut SSL,
        buffer: *mut c_void,
        count: usize,
        events: Option<Events>,
        fd: c_int,
        callback: Callback,
    ) -> libc::ssize_t {
        // SAFETY: session and buffer are as `read` requires.
        with_errno(unsafe { read(ssl, buffer, count, Place { events, fd, callback }) })
    }

    /// `ssize_t io_SSL_read_ex(SSL *, void *buf, size_t, io, int fd, void *cb, enum io_status *)`:
    /// the number of bytes read, or 0, and the status of the operation.
    #[otherwise(0)]
    pub fn io_SSL_read_ex(
        ssl: *mut SSL,
        buffer: *mut c_void,
        count: usize,
        events: Option<Events>,
        fd: c_int,
        callback: Callback,
        status: Out<c_uint>,
    ) -> libc::ssize_t {
        status.put(ERROR);
        // SAFETY: as above.
        let outcome = unsafe { read(ssl, buffer, count, Place { events, fd, callback }) };
        with_status(outcome, &status)
    }

    /// `ssize_t io_SSL_write(SSL *, void *buf, size_t, io, int fd, void *cb)`: as [`io_SSL_read`].
    #[otherwise(-1)]
    pub fn io_SSL_write(
        ssl: *mut SSL,
        buffer: *const c_void,
        count: usize,
        events: Option<Events>,
        fd: c_int,
        callback: Callback,
    ) -> libc::ssize_t {
        // SAFETY: session and buffer are as `write` requires.
        with_errno(unsafe { write(ssl, buffer, count, Place { events, fd, callback }) })
    }

    /// `ssize_t io_SSL_write_ex(SSL *, void *buf, size_t, io, int fd, void *cb, enum io_status *)`:
    /// as [`io_SSL_read_ex`].
    #[otherwise(0)]
    pub fn io_SSL_write_ex(
        ssl: *mut SSL,
        buffer: *const c_void,
        count: usize,
        events: Option<Events>,
        fd: c_int,
        callback: Callback,
        status: Out<c_uint>,
    ) -> libc::ssize_t {
        status.put(ERROR);
        // SAFETY: as above.
        let outcome = unsafe { write(ssl, buffer, count, Place { events, fd, callback }) };
        with_status(outcome, &status)
    }

    /// `int io_SSL_shutdown(SSL *, io, int fd, void *cb)`: 1 if both ends have sent close_notify.
    /// Otherwise -1, with EAGAIN if `cb` will be called to continue; with EINPROGRESS if only the
    /// other end's close_notify is missing, which another call would wait for; and with EIO for
    /// errors.
    #[otherwise(-1)]
    pub fn io_SSL_shutdown(
        ssl: *mut SSL,
        events: Option<Events>,
        fd: c_int,
        callback: Callback,
    ) -> c_int {
        if ssl.is_null() {
            set_errno(libc::EIO);
            return -1;
        }
        // SAFETY: the session is of this process's OpenSSL.
        let outcome = unsafe { foreign::shutdown(ssl) };
        let place = Place { events, fd, callback };
        place.settle(outcome.unwrap_or(Outcome::Done(0)), Interest::empty());
        set_errno(match outcome {
            Some(Outcome::Done(_)) => return 1,
            Some(Outcome::WantRead | Outcome::WantWrite) => libc::EAGAIN,
            Some(Outcome::Closed | Outcome::Failed) => libc::EIO,
            None => libc::EINPROGRESS,
        });
        -1
    }
}
