//! kqueue(2) as the tests emulate it on Linux (`tests/shims/kqueue.c`); layout and numbers are those of
//! FreeBSD's sys/event.h.

use std::ffi::c_void;

/// `struct kevent`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Kevent {
    pub(crate) ident: usize,
    pub(crate) filter: i16,
    pub(crate) flags: u16,
    pub(crate) fflags: u32,
    pub(crate) data: i64,
    pub(crate) udata: *mut c_void,
}

pub(crate) const EV_ADD: u16 = 1;

extern "C" {
    #[link_name = "shim_kqueue"]
    pub(crate) fn kqueue() -> libc::c_int;
    #[link_name = "shim_kevent"]
    pub(crate) fn kevent(
        queue: libc::c_int,
        changes: *const Kevent,
        change_count: libc::c_int,
        events: *mut Kevent,
        event_count: libc::c_int,
        timeout: *const libc::timespec,
    ) -> libc::c_int;
}
