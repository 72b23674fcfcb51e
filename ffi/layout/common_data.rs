//! `struct common_data`: the settings that the library, the program and its modules share in one
//! process.
//!
//! The variable is exported, and the program may have its own copy of it (a copy relocation), so
//! `compat/data.c` looks up its address. C code may write any field at any time, so nobody holds a
//! reference into it. Each field has a getter and a setter that copy: those that the library itself
//! uses are in `os::common_data`, the others here.

#![allow(clippy::not_unsafe_ptr_arg_deref, reason = "such pointers are passed on, not followed")]

pub use crate::os::common_data::*;

use crate::config::common::Common;
use crate::os::{process, Socket};
use std::ffi::{c_char, c_int, c_void, CStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::ptr;

/// Layout of `struct common_data` (352 bytes on LP64).
#[repr(C)]
#[allow(missing_docs, reason = "the names are those of the C fields")]
pub struct CommonData {
    pub io: *mut c_void,
    pub progname: *mut c_char,
    pub progpath: *mut c_char,
    pub version: *mut c_char,
    pub version_only: c_int,
    pub parse_only: c_int,
    pub debug: u32,
    pub debug_redirected: c_int,
    pub syslog_level: c_int,
    pub syslog_facility: c_int,
    /// Bit 0.
    pub syslog_dflt: u32,
    pub syslog_filter: u32,
    pub regex_match_case: u64,
    pub regex_pcre_flags: u32,
    pub regex_posix_flags: c_int,
    pub syslog_ident: *mut c_char,
    pub proctitle: *mut c_char,
    pub coredumpdir: *mut c_char,
    pub gcorepath: *mut c_char,
    pub debug_cmd: *mut c_char,
    pub debugtty: c_int,
    pub debugstderr: c_int,
    pub pid: c_int,
    pub users_min: c_int,
    pub users_max: c_int,
    pub users_cur: c_int,
    pub users_max_total: c_int,
    pub servers_min: c_int,
    pub servers_max: c_int,
    pub servers_cur: c_int,
    /// black, red, green, yellow, blue, magenta, cyan, white, plain, bold
    pub fonts: [*mut c_char; 10],
    pub ipc_key: u64,
    pub ipc_url: *mut c_char,
    pub argv: *mut *mut c_char,
    pub envp: *mut *mut c_char,
    pub pidfile: *mut c_char,
    pub singleprocess: c_int,
    pub conffile: *mut c_char,
    pub confdir: *mut c_char,
    pub id: *mut c_char,
    pub cleanup_interval: u64,
    pub scm_send_msg: *const c_void,
    pub scm_recv_msg: *const c_void,
    pub scm_accept: *const c_void,
    pub scm_udpdata: *const c_void,
}

impl CommonData {
    /// The initial value of the variable.
    // SAFETY: all fields are integers and raw pointers, for which zero is a value.
    pub const ZERO: CommonData = unsafe { std::mem::zeroed() };
}

#[cfg(all(target_pointer_width = "64", test))]
mod layout {
    use super::CommonData;
    use std::mem::{offset_of, size_of};

    #[test]
    fn layout_is_that_of_struct_common_data() {
        assert_eq!(size_of::<CommonData>(), 352);
        assert_eq!(offset_of!(CommonData, debug), 40);
        assert_eq!(offset_of!(CommonData, syslog_filter), 60);
        assert_eq!(offset_of!(CommonData, regex_match_case), 64);
        assert_eq!(offset_of!(CommonData, regex_posix_flags), 76);
        assert_eq!(offset_of!(CommonData, debugtty), 120);
        assert_eq!(offset_of!(CommonData, users_cur), 140);
        assert_eq!(offset_of!(CommonData, fonts), 160);
        assert_eq!(offset_of!(CommonData, ipc_key), 240);
        assert_eq!(offset_of!(CommonData, singleprocess), 280);
        assert_eq!(offset_of!(CommonData, conffile), 288);
        assert_eq!(offset_of!(CommonData, cleanup_interval), 312);
        assert_eq!(offset_of!(CommonData, scm_udpdata), 344);
    }
}

extern "C" {
    fn compat_common_data() -> *mut CommonData;
}

/// The variable's address, once its defaults are set.
fn address() -> *mut CommonData {
    started();
    // SAFETY: the function only returns an address.
    unsafe { compat_common_data() }
}

macro_rules! fields {
    ($($(#[$doc:meta])* $field:ident: $type:ty, $get:ident, $set:ident;)*) => {$(
        $(#[$doc])*
        pub fn $get() -> $type {
            // SAFETY: the variable lives as long as the process; the field is read as a whole.
            unsafe { ptr::read_volatile(&raw const (*address()).$field) }
        }

        $(#[$doc])*
        pub fn $set(value: $type) {
            // SAFETY: as above; it is written as a whole.
            unsafe { ptr::write_volatile(&raw mut (*address()).$field, value) }
        }
    )*};
}

fields! {
    /// Open connections of this process.
    users_cur: c_int, users_cur, set_users_cur;
    /// `users min`: the connections that a process should have.
    users_min: c_int, users_min, set_users_min;
    /// `users max`: the limit of one process.
    users_max: c_int, users_max, set_users_max;
    /// The limit of all processes together.
    users_max_total: c_int, users_max_total, set_users_max_total;
    /// `instances min`
    servers_min: c_int, servers_min, set_servers_min;
    /// `instances max`
    servers_max: c_int, servers_max, set_servers_max;
    /// How many workers this broker has now.
    servers_cur: c_int, servers_cur, set_servers_cur;
    /// `-v`
    version_only: c_int, version_only, set_version_only;
    /// The event loop of C code.
    io: *mut c_void, io, set_io;
    /// The shared-memory key of the configuration.
    ipc_key: u64, ipc_key, set_ipc_key;
    /// `int (*)(int, struct scm_data *, int)`
    scm_send_msg: *const c_void, scm_send, set_scm_send;
    /// `int (*)(int, struct scm_data_accept *, size_t, int *)`
    scm_recv_msg: *const c_void, scm_receive, set_scm_receive;
    /// Single-process mode: broker and worker are one process.
    singleprocess: c_int, single_process, set_single_process;
}

macro_rules! texts {
    ($($(#[$doc:meta])* $field:ident, $get:ident, $set:ident;)*) => {$(
        $(#[$doc])*
        pub fn $get() -> Option<String> {
            // SAFETY: the field is null or a NUL-terminated string, which is copied at once.
            unsafe { text(&raw const (*address()).$field) }
        }

        $(#[$doc])*
        ///
        /// The old text is not freed: C code may hold a pointer to it.
        pub fn $set(text: &str) {
            // SAFETY: the variable lives as long as the process.
            unsafe { set_text(&raw mut (*address()).$field, text) }
        }
    )*};
}

texts! {
    /// Path of the program.
    progpath, program_path, set_program_path;
    /// Version text of the program.
    version, version, set_version;
    /// `coredump directory`
    coredumpdir, core_directory, set_core_directory;
    /// `gcore`
    gcorepath, core_command, set_core_command;
    /// `debug-cmd`
    debug_cmd, debug_command, set_debug_command;
    /// `proctitle`
    proctitle, process_title, set_process_title;
    /// The configuration section of this process.
    id, section, set_section;
    /// The URL of the configuration in shared memory.
    ipc_url, ipc_url, set_ipc_url;
    /// `-p`
    pidfile, pid_file, set_pid_file;
}

/// Copies the settings of the common directives.
pub fn publish(common: &Common) {
    if let Some(directory) = &common.core_directory {
        set_core_directory(&directory.to_string_lossy());
    }
    if let Some(command) = &common.core_command {
        set_core_command(command);
    }
    if let Some(command) = &common.debug_command {
        set_debug_command(command);
    }
    if let Some(title) = &common.process_title {
        set_process_title(title);
    }
}

/// Notes where the program's arguments and environment are.
pub fn set_argv(argv: *mut *mut c_char, envp: *mut *mut c_char) {
    // SAFETY: the variable lives as long as the process; the fields are written as a whole.
    unsafe {
        ptr::write_volatile(&raw mut (*address()).argv, argv);
        ptr::write_volatile(&raw mut (*address()).envp, envp);
    }
}

/// The program's arguments; empty if the program has not set them.
pub fn arguments() -> Vec<OsString> {
    let mut arguments = Vec::new();
    // SAFETY: the field is null or the start of an array of strings, with a null pointer at its
    // end; they are copied.
    unsafe {
        let mut argument = ptr::read_volatile(&raw const (*address()).argv);
        while !argument.is_null() && !(*argument).is_null() {
            let bytes = CStr::from_ptr(*argument).to_bytes().to_vec();
            arguments.push(OsString::from_vec(bytes));
            argument = argument.add(1);
        }
    }
    arguments
}

/// Gives a connection to the worker in this process: `scm_accept(fd, message)`, which takes
/// ownership of `fd`.
///
/// # Safety
/// `message` is a `struct scm_data_accept`.
pub unsafe fn call_accept(fd: c_int, message: *const c_void) {
    // SAFETY: the field is null or a function of this type, which the program has set.
    unsafe { call(ptr::read_volatile(&raw const (*address()).scm_accept), fd, message) };
}

/// As [`call_accept`], for an encoded message.
pub fn give_accept(socket: Socket, message: &[u8]) {
    let mut aligned = [0u64; 5];
    // SAFETY: a message has forty bytes, and missing ones stay zero; the function takes ownership
    // of the descriptor.
    unsafe {
        let length = message.len().min(size_of_val(&aligned));
        let start = aligned.as_mut_ptr().cast::<u8>();
        ptr::copy_nonoverlapping(message.as_ptr(), start, length);
        let fd = std::os::fd::IntoRawFd::into_raw_fd(socket);
        call_accept(fd, aligned.as_ptr().cast());
    }
}

/// Gives a datagram to the worker in this process: `scm_udpdata(fd, message)`.
///
/// # Safety
/// `message` is a `struct scm_data_udp` with its data.
pub unsafe fn call_datagram(fd: c_int, message: *const c_void) {
    // SAFETY: as above.
    unsafe { call(ptr::read_volatile(&raw const (*address()).scm_udpdata), fd, message) };
}

/// # Safety
/// `function` is null or takes these arguments.
unsafe fn call(function: *const c_void, fd: c_int, message: *const c_void) {
    type Function = unsafe extern "C" fn(c_int, *const c_void);
    if !function.is_null() {
        // C code may look at errno, so clear it before every call into C.
        process::set_errno(0);
        // SAFETY: as the caller promises.
        unsafe { std::mem::transmute::<*const c_void, Function>(function)(fd, message) };
    }
}
