//! `struct spawnd_data` and `struct spawnd_context`: the settings, listeners and workers of a
//! broker in C.
//!
//! As with `struct common_data`, the variable may be the program's copy, and C code may write any
//! field at any time, so nobody holds a reference into it.

use super::common_data;
use super::sockaddr::SockaddrUnion;
use crate::ffi::entry::Argument;
use crate::os::malloc::{self, Owned};
use std::ffi::{c_char, c_int, c_long, c_uint, c_void};
use std::mem::size_of;
use std::ptr;

/// `struct track_data`: the settings of a stickiness cache. This library uses only the period and
/// the size; the other fields are where the C library keeps the cache itself.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(missing_docs, reason = "the names are those of the C fields")]
pub struct TrackData {
    pub db: *mut c_void,
    pub lru_first: *mut c_void,
    pub lru_last: *mut c_void,
    pub tracking_period: c_long,
    pub tracking_size: c_int,
    pub hash: c_uint,
}

/// `struct spawnd_data`
#[repr(C)]
#[allow(missing_docs, reason = "the names are those of the C fields")]
pub struct SpawndData {
    pub conffile: *mut c_char,
    pub child_id: *mut c_char,
    pub child_config: *mut c_char,
    pub child_path: *mut c_char,
    pub uid: libc::uid_t,
    pub gid: libc::gid_t,
    pub cwd: *mut c_char,
    pub inetd: c_int,
    pub abandon: c_int,
    pub background: c_int,
    pub background_lock: c_int,
    pub pidfile: *mut c_char,
    pub pidfile_lock: c_int,
    pub listeners_max: c_int,
    pub listeners_inactive: c_int,
    pub overload: c_uint,
    pub overload_hint: *const c_char,
    pub listener_arr: *mut *mut SpawndContext,
    pub server_arr: *mut *mut SpawndContext,
    pub retry_delay: c_int,
    pub bind_failures: c_int,
    pub keepcnt: c_int,
    pub keepidle: c_int,
    pub keepintvl: c_int,
    pub scm_bufsize: c_int,
    pub track_data: TrackData,
}

/// `struct spawnd_context`: a listener or a worker.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(missing_docs, reason = "the names are those of the C fields")]
pub struct SpawndContext {
    pub io: *mut c_void,
    pub r#fn: c_int,
    pub bits: c_uint,
    pub sd_flags: c_uint,
    pub tls_versions: c_uint,
    pub dtls_versions: c_uint,
    pub socktype: c_int,
    pub protocol: c_int,
    pub port: u16,
    pub listen_backlog: c_int,
    pub overload_backlog: c_int,
    pub tv: libc::timeval,
    pub r#use: c_int,
    pub pid: libc::pid_t,
    pub tag: [u8; 17],
    pub tag_len: usize,
    pub vrf: *mut c_char,
    pub vrf_len: usize,
    pub uid: libc::uid_t,
    pub gid: libc::gid_t,
    pub mode: libc::mode_t,
    pub retry_delay: c_int,
    pub keepcnt: c_int,
    pub keepidle: c_int,
    pub keepintvl: c_int,
    pub dscp: c_int,
    pub aaa_protocol: c_uint,
    pub sa: SockaddrUnion,
    pub track_data: TrackData,
}

/// Bits of a context: it is a listener; it is a worker that is to leave; the listener's failure was
/// logged.
pub mod bit {
    /// `is_listener`
    pub const LISTENER: u32 = 1;
    /// `dying`
    pub const DYING: u32 = 2;
    /// `logged_retry`
    pub const LOGGED_RETRY: u32 = 4;
}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<TrackData>() == 40);
    assert!(offset_of!(TrackData, tracking_period) == 24 && offset_of!(TrackData, hash) == 36);
    assert!(size_of::<SpawndData>() == 176);
    assert!(offset_of!(SpawndData, uid) == 32 && offset_of!(SpawndData, cwd) == 40);
    assert!(offset_of!(SpawndData, inetd) == 48 && offset_of!(SpawndData, pidfile) == 64);
    assert!(offset_of!(SpawndData, pidfile_lock) == 72);
    assert!(offset_of!(SpawndData, listeners_max) == 76);
    assert!(offset_of!(SpawndData, overload) == 84);
    assert!(offset_of!(SpawndData, overload_hint) == 88);
    assert!(offset_of!(SpawndData, listener_arr) == 96);
    assert!(offset_of!(SpawndData, server_arr) == 104);
    assert!(offset_of!(SpawndData, retry_delay) == 112);
    assert!(offset_of!(SpawndData, scm_bufsize) == 132);
    assert!(offset_of!(SpawndData, track_data) == 136);
    assert!(size_of::<SpawndContext>() == 312);
    assert!(offset_of!(SpawndContext, r#fn) == 8 && offset_of!(SpawndContext, bits) == 12);
    assert!(offset_of!(SpawndContext, sd_flags) == 16);
    assert!(offset_of!(SpawndContext, socktype) == 28 && offset_of!(SpawndContext, port) == 36);
    assert!(offset_of!(SpawndContext, listen_backlog) == 40);
    assert!(offset_of!(SpawndContext, tv) == 48 && offset_of!(SpawndContext, r#use) == 64);
    assert!(offset_of!(SpawndContext, pid) == 68 && offset_of!(SpawndContext, tag) == 72);
    assert!(offset_of!(SpawndContext, tag_len) == 96 && offset_of!(SpawndContext, vrf) == 104);
    assert!(offset_of!(SpawndContext, uid) == 120 && offset_of!(SpawndContext, mode) == 128);
    assert!(offset_of!(SpawndContext, retry_delay) == 132);
    assert!(offset_of!(SpawndContext, dscp) == 148 && offset_of!(SpawndContext, sa) == 156);
    assert!(offset_of!(SpawndContext, track_data) == 272);
};

extern "C" {
    fn compat_spawnd_data() -> *mut SpawndData;
}

/// The variable's address. It lives as long as the process.
pub fn address() -> *mut SpawndData {
    // SAFETY: the function only returns an address.
    unsafe { compat_spawnd_data() }
}

/// A context allocated with malloc(3): no descriptor, the system's keep-alive values.
pub fn new_context(io: *mut c_void) -> *mut SpawndContext {
    // SAFETY: all fields are numbers and raw pointers, for which zero is a value.
    let zero = unsafe { std::mem::zeroed::<SpawndContext>() };
    Owned::new(SpawndContext { io, r#fn: -1, keepcnt: -1, keepidle: -1, keepintvl: -1, ..zero })
        .into_raw()
}

/// Frees a context.
///
/// # Safety
/// It came from [`new_context`], and is not used afterwards.
pub unsafe fn free_context(context: *mut SpawndContext) {
    // SAFETY: as the caller promises.
    drop(unsafe { Owned::from_raw(context) });
}

/// A copy of an array of contexts.
///
/// # Safety
/// The array is null or has `count` entries.
unsafe fn entries(array: *mut *mut SpawndContext, count: c_int) -> Vec<*mut SpawndContext> {
    let count = usize::try_from(count).unwrap_or(0);
    if array.is_null() {
        return Vec::new();
    }
    // SAFETY: as the caller promises.
    unsafe { std::slice::from_raw_parts(array, count) }.to_vec()
}

/// All listeners.
pub fn listeners() -> Vec<*mut SpawndContext> {
    // SAFETY: the fields describe an array, as C code keeps it.
    unsafe { entries((*address()).listener_arr, (*address()).listeners_max) }
}

/// All workers.
pub fn servers() -> Vec<*mut SpawndContext> {
    // SAFETY: as above.
    unsafe { entries((*address()).server_arr, common_data::servers_cur()) }
}

/// Replaces an array by a copy of `entries`, allocated with malloc(3) and with room for `room`
/// entries.
///
/// # Safety
/// `place` holds null or an array of malloc(3) that is not used afterwards.
unsafe fn replace(
    place: *mut *mut *mut SpawndContext,
    entries: &[*mut SpawndContext],
    room: usize,
) {
    let size = room.max(entries.len()) * size_of::<*mut SpawndContext>();
    let array = malloc::allocate(size, "spawnd").as_ptr().cast::<*mut SpawndContext>();
    // SAFETY: the new array has room for the entries; the old one is as the caller promises.
    unsafe {
        array.copy_from_nonoverlapping(entries.as_ptr(), entries.len());
        libc::free(place.replace(array).cast());
    }
}

/// Sets the listeners.
pub fn set_listeners(listeners: &[*mut SpawndContext]) {
    let data = address();
    // SAFETY: the variable lives as long as the process; C code reallocates its array, so it must
    // be of malloc(3).
    unsafe {
        replace(&raw mut (*data).listener_arr, listeners, 0);
        (*data).listeners_max = c_int::try_from(listeners.len()).unwrap_or(c_int::MAX);
    }
}

/// Adds a context to the listeners, with this address; if it is a listener already, adds a copy.
///
/// # Safety
/// The context came from [`new_context`].
pub unsafe fn add_listener(context: *mut SpawndContext, address: &SockaddrUnion) {
    let mut listeners = listeners();
    // SAFETY: as the caller promises; the name of a VRF is null or a string.
    unsafe {
        let mut added = context;
        if listeners.contains(&context) {
            added = new_context((*context).io);
            *added = *context;
            if let Some(vrf) = <&[u8]>::take((*context).vrf) {
                (*added).vrf = malloc::Text::new(vrf).into_raw();
            }
        }
        (*added).sa = *address;
        listeners.push(added);
    }
    set_listeners(&listeners);
}

/// Sets the workers. The array has room for as many as are configured.
pub fn set_servers(servers: &[*mut SpawndContext]) {
    let room = usize::try_from(common_data::servers_max()).unwrap_or(0);
    // SAFETY: as above.
    unsafe { replace(&raw mut (*address()).server_arr, servers, room) };
    common_data::set_servers_cur(c_int::try_from(servers.len()).unwrap_or(c_int::MAX));
}

/// Sets a text of the variable, and frees the old one.
///
/// # Safety
/// `place` is a field of the variable, null or a string of malloc(3).
pub unsafe fn set_text(place: *mut *mut c_char, text: &[u8]) {
    // SAFETY: as the caller promises.
    unsafe { libc::free(place.replace(malloc::Text::new(text).into_raw()).cast()) };
}

/// What happens to new connections while all workers are full, as the process title shows it.
pub fn overload_hint() -> String {
    // SAFETY: the variable lives as long as the process; the hint is null or NUL-terminated, and
    // copied.
    unsafe {
        let hint = ptr::read_volatile(&raw const (*address()).overload_hint);
        match hint.is_null() {
            true => "queueing".to_owned(),
            false => std::ffi::CStr::from_ptr(hint).to_string_lossy().into_owned(),
        }
    }
}
