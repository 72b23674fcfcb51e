//! `struct common_data`: what library, programs and modules of one process share.
//!
//! The variable is exported and may be replaced by a copy of the program that uses the library, so
//! its address is asked for (`compat/data.c`), and nobody holds a reference into it: C code may
//! write any field at any time. Each field has a reader and a writer here, which copy.

#![allow(clippy::not_unsafe_ptr_arg_deref, reason = "such pointers are passed on, not followed")]

use std::ffi::{c_char, c_int, c_void, CStr, CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::ptr;
use std::sync::Once;

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
    /// As the variable is before anything is set.
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
    fn compat_io_now() -> *mut libc::timeval;
}

/// The variable's address, with the values set that everything starts from.
fn address() -> *mut CommonData {
    static START: Once = Once::new();
    START.call_once(start);
    // SAFETY: the function only returns an address.
    unsafe { compat_common_data() }
}

/// Sets the values that everything starts from.
pub fn start() {
    // SAFETY: the function only returns an address.
    let data = unsafe { compat_common_data() };
    {
        // SAFETY: the variable lives as long as the process, and nothing refers into it.
        unsafe {
            (*data).syslog_facility = libc::LOG_UUCP;
            (*data).syslog_level = libc::LOG_INFO;
            (*data).syslog_dflt |= 1;
            (*data).syslog_filter = 0xffff;
            (*data).regex_pcre_flags = super::regex::PCRE_CASELESS_UTF;
            (*data).regex_posix_flags = super::regex::posix_ignore_case();
            (*data).cleanup_interval = 2;
            (*data).pid = super::process::id();
        }
    }
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
    /// The debug bits of `-d` and `debug =`.
    debug: u32, debug, set_debug;
    /// `debug redirect`: 1 to standard error or a file.
    debug_redirected: c_int, debug_redirected, set_debug_redirected;
    /// `-P`
    parse_only: c_int, parse_only, set_parse_only;
    /// Standard error is a terminal.
    debugtty: c_int, debug_terminal, set_debug_terminal;
    /// `-D`
    debugstderr: c_int, debug_stderr, set_debug_stderr;
    /// Severity of ordinary messages, as in syslog.h.
    syslog_level: c_int, syslog_level, set_syslog_level;
    /// Facility of messages, as in syslog.h.
    syslog_facility: c_int, syslog_facility, set_syslog_facility;
    /// `syslog default`, in bit 0.
    syslog_dflt: u32, syslog_default, set_syslog_default;
    /// `syslog filter`
    syslog_filter: u32, syslog_filter, set_syslog_filter;
    /// A bit for each open brace, the innermost lowest: regular expressions ignore case there.
    regex_match_case: u64, case_stack, set_case_stack;
    /// Flags for pcre2_compile(3).
    regex_pcre_flags: u32, pcre_flags, set_pcre_flags;
    /// Flags for regcomp(3).
    regex_posix_flags: c_int, posix_flags, set_posix_flags;
    /// `cleanup interval`
    cleanup_interval: u64, cleanup_interval, set_cleanup_interval;
    /// Open connections of this process.
    users_cur: c_int, users_cur, set_users_cur;
    /// Connections that a process should have.
    users_min: c_int, users_min, set_users_min;
    /// Connections that a process may have.
    users_max: c_int, users_max, set_users_max;
    /// Connections that all processes may have.
    users_max_total: c_int, users_max_total, set_users_max_total;
    /// Worker processes that there are always.
    servers_min: c_int, servers_min, set_servers_min;
    /// Worker processes that there may be.
    servers_max: c_int, servers_max, set_servers_max;
    /// Worker processes of this broker.
    servers_cur: c_int, servers_cur, set_servers_cur;
    /// `-v`
    version_only: c_int, version_only, set_version_only;
    /// The process id, as of the last fork that was told.
    pid: c_int, process_id, set_process_id;
    /// The loop of C code.
    io: *mut c_void, io, set_io;
    /// The key of the configuration in shared memory.
    ipc_key: u64, ipc_key, set_ipc_key;
    /// `int (*)(int, struct scm_data *, int)`
    scm_send_msg: *const c_void, scm_send, set_scm_send;
    /// `int (*)(int, struct scm_data_accept *, size_t, int *)`
    scm_recv_msg: *const c_void, scm_receive, set_scm_receive;
    /// Broker and worker are one process.
    singleprocess: c_int, single_process, set_single_process;
}

macro_rules! texts {
    ($($(#[$doc:meta])* $field:ident, $get:ident, $set:ident;)*) => {$(
        $(#[$doc])*
        pub fn $get() -> Option<String> {
            // SAFETY: the field is null or a NUL-terminated string, which is copied at once.
            unsafe {
                let text = ptr::read_volatile(&raw const (*address()).$field);
                (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
            }
        }

        $(#[$doc])*
        ///
        /// The former text is not given back: somebody may hold a pointer to it.
        pub fn $set(text: &str) {
            let text = CString::new(text).unwrap_or_default();
            // SAFETY: the copy is on the heap of malloc(3), as C code expects of it.
            unsafe {
                let copy = libc::strdup(text.as_ptr());
                ptr::write_volatile(&raw mut (*address()).$field, copy);
            }
        }
    )*};
}

texts! {
    /// `syslog ident`
    syslog_ident, syslog_ident, set_syslog_ident;
    /// Base name of argv\[0].
    progname, program_name, set_program_name;
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
    /// Name of the configuration.
    conffile, configuration_file, set_configuration_file;
    /// The folder of the configuration.
    confdir, configuration_directory, set_configuration_directory;
    /// The section of this process.
    id, section, set_section;
    /// Where the configuration is in shared memory.
    ipc_url, ipc_url, set_ipc_url;
    /// `-p`
    pidfile, pid_file, set_pid_file;
}

/// Where the program's arguments and environment are.
pub fn set_argv(argv: *mut *mut c_char, envp: *mut *mut c_char) {
    // SAFETY: the variable lives as long as the process; the fields are written as a whole.
    unsafe {
        ptr::write_volatile(&raw mut (*address()).argv, argv);
        ptr::write_volatile(&raw mut (*address()).envp, envp);
    }
}

/// The program's arguments, as far as they are known.
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

/// Sets the strings that change fonts and colours: those of ANSI terminals, or none.
pub fn set_fonts(terminal: bool) {
    const FONTS: [&CStr; 10] = [
        c"\x1b[1;30m",
        c"\x1b[1;31m",
        c"\x1b[1;32m",
        c"\x1b[1;33m",
        c"\x1b[1;34m",
        c"\x1b[1;35m",
        c"\x1b[1;36m",
        c"\x1b[1;37m",
        c"\x1b[0m",
        c"\x1b[1m",
    ];
    let fonts = FONTS.map(|font| if terminal { font } else { c"" }.as_ptr().cast_mut());
    // SAFETY: as above; the strings are constants.
    unsafe { ptr::write_volatile(&raw mut (*address()).fonts, fonts) };
}

/// `debug redirect`: to standard error, which is no terminal then, or not.
pub fn redirect_debug(to_stderr: bool) {
    set_debug_redirected(to_stderr.into());
    set_debug_terminal(0);
    set_fonts(false);
}

/// Gives a connection to the worker in this process: `scm_accept(fd, message)`, which owns `fd`.
///
/// # Safety
/// `message` is a `struct scm_data_accept`.
pub unsafe fn call_accept(fd: c_int, message: *const c_void) {
    // SAFETY: the field is null or a function of this type, which the program has set.
    unsafe { call(ptr::read_volatile(&raw const (*address()).scm_accept), fd, message) };
}

/// As [`call_accept`], for a message of ours.
pub fn give_accept(socket: std::os::fd::OwnedFd, message: &[u8]) {
    let mut aligned = [0u64; 5];
    // SAFETY: a message has forty bytes, and what is missing of it stays zero; the function gets
    // the descriptor for its own.
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
        // As before each call into C code that may look at it.
        super::process::set_errno(0);
        // SAFETY: as the caller promises.
        unsafe { std::mem::transmute::<*const c_void, Function>(function)(fd, message) };
    }
}

/// Sets `io_now`, the wall clock of modules.
pub fn refresh_clock() {
    let mut now = libc::timeval { tv_sec: 0, tv_usec: 0 };
    // SAFETY: gettimeofday(2) writes into `now`; the exported variable lives as long as the
    // process, and nobody refers into it.
    unsafe {
        libc::gettimeofday(&mut now, ptr::null_mut());
        ptr::write_volatile(compat_io_now(), now);
    }
}

/// `io_now` in microseconds since 1970.
pub fn clock() -> i64 {
    // SAFETY: the exported variable lives as long as the process; it is copied.
    let now = unsafe { ptr::read_volatile(compat_io_now()) };
    now.tv_sec as i64 * 1_000_000 + now.tv_usec as i64
}
