//! What this process shares with C code: settings that modules read and C programs write.
//!
//! They are the fields of the exported variable `common_data`, and `io_now`. `common_data` may be
//! the copy in the program that uses the library (a copy relocation), and only C knows where each
//! field is (`compat/data.c`). Nobody holds a reference to a field, because C code may write it at
//! any time. Here are the fields that the library itself uses; the others concern only C code and
//! `ffi`.

use std::ffi::{c_char, c_int, CStr, CString};
use std::ptr;
use std::sync::Once;

/// Sets the initial values.
pub fn start() {
    // SAFETY: the functions only return addresses in a variable that lives as long as the process;
    // nobody refers into it.
    unsafe {
        *compat_syslog_facility() = libc::LOG_UUCP;
        *compat_syslog_level() = libc::LOG_INFO;
        compat_set_syslog_dflt(1);
        *compat_syslog_filter() = 0xffff;
        *compat_regex_pcre_flags() = super::regex::PCRE_CASELESS_UTF;
        *compat_regex_posix_flags() = super::regex::posix_ignore_case();
        *compat_cleanup_interval() = 2;
        *compat_pid() = super::process::id();
    }
}

/// Makes sure that the initial values are set before the variable is used.
pub(crate) fn started() {
    static START: Once = Once::new();
    START.call_once(start);
}

extern "C" {
    fn compat_io_now() -> *mut libc::timeval;
    fn compat_syslog_dflt() -> u32;
    fn compat_set_syslog_dflt(value: u32);
}

/// `syslog default`
pub fn syslog_default() -> u32 {
    started();
    // SAFETY: the function reads a field of a variable that lives as long as the process.
    unsafe { compat_syslog_dflt() }
}

/// `syslog default`
pub fn set_syslog_default(value: u32) {
    started();
    // SAFETY: as above; it writes it.
    unsafe { compat_set_syslog_dflt(value) }
}

macro_rules! fields {
    ($($(#[$doc:meta])* $place:ident: $type:ty, $get:ident, $set:ident;)*) => {
        extern "C" {
            $(fn $place() -> *mut $type;)*
        }
        $(
            $(#[$doc])*
            pub fn $get() -> $type {
                started();
                // SAFETY: the field is one of a variable that lives as long as the process, and is
                // read as a whole.
                unsafe { ptr::read_volatile($place()) }
            }

            $(#[$doc])*
            pub fn $set(value: $type) {
                started();
                // SAFETY: as above; it is written as a whole.
                unsafe { ptr::write_volatile($place(), value) }
            }
        )*
    };
}

fields! {
    /// The debug bits of `-d` and `debug =`.
    compat_debug_bits: u32, debug, set_debug;
    /// `debug redirect`: 1 if debugging output goes to standard error or a file.
    compat_debug_redirected: c_int, debug_redirected, set_debug_redirected;
    /// `-P`
    compat_parse_only: c_int, parse_only, set_parse_only;
    /// 1 if standard error is a terminal.
    compat_debugtty: c_int, debug_terminal, set_debug_terminal;
    /// `-D`
    compat_debugstderr: c_int, debug_stderr, set_debug_stderr;
    /// The severity of ordinary messages, a number of syslog.h.
    compat_syslog_level: c_int, syslog_level, set_syslog_level;
    /// The facility of messages, a number of syslog.h.
    compat_syslog_facility: c_int, syslog_facility, set_syslog_facility;
    /// `syslog filter`
    compat_syslog_filter: u32, syslog_filter, set_syslog_filter;
    /// One bit for each open brace, the innermost one lowest: set if regular expressions ignore
    /// case there.
    compat_regex_match_case: u64, case_stack, set_case_stack;
    /// Flags for pcre2_compile(3).
    compat_regex_pcre_flags: u32, pcre_flags, set_pcre_flags;
    /// Flags for regcomp(3).
    compat_regex_posix_flags: c_int, posix_flags, set_posix_flags;
    /// `cleanup interval`
    compat_cleanup_interval: u64, cleanup_interval, set_cleanup_interval;
    /// The process id, as set after the last fork that we know of.
    compat_pid: c_int, process_id, set_process_id;
    /// The strings that set fonts and colours: black, red, green, yellow, blue, magenta, cyan,
    /// white, plain, bold.
    compat_fonts: [*mut c_char; 10], fonts, put_fonts;
}

macro_rules! texts {
    ($($(#[$doc:meta])* $place:ident, $get:ident, $set:ident;)*) => {
        extern "C" {
            $(fn $place() -> *mut *mut c_char;)*
        }
        $(
            $(#[$doc])*
            pub fn $get() -> Option<String> {
                started();
                // SAFETY: the field is null or a NUL-terminated string, which is copied at once.
                unsafe { text($place()) }
            }

            $(#[$doc])*
            ///
            /// The previous text is not freed: C code may hold a pointer to it.
            pub fn $set(text: &str) {
                started();
                // SAFETY: the field is one of a variable that lives as long as the process.
                unsafe { set_text($place(), text) }
            }
        )*
    };
}

/// A copy of the text that a field points at.
///
/// # Safety
/// The field is null or a NUL-terminated string.
pub(crate) unsafe fn text(field: *const *mut c_char) -> Option<String> {
    // SAFETY: as the caller promises.
    unsafe {
        let text = ptr::read_volatile(field);
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    }
}

/// Sets a field to a copy of a text.
///
/// # Safety
/// The field may be written.
pub(crate) unsafe fn set_text(field: *mut *mut c_char, text: &str) {
    let text = CString::new(text).unwrap_or_default();
    // SAFETY: as the caller promises; the copy is on the heap of malloc(3), as C code expects of
    // it.
    unsafe { ptr::write_volatile(field, libc::strdup(text.as_ptr())) };
}

texts! {
    /// `syslog ident`
    compat_syslog_ident, syslog_ident, set_syslog_ident;
    /// Base name of argv\[0].
    compat_progname, program_name, set_program_name;
    /// Name of the configuration.
    compat_conffile, configuration_file, set_configuration_file;
    /// The folder of the configuration.
    compat_confdir, configuration_directory, set_configuration_directory;
}

/// Sets the strings for fonts and colours: those of ANSI terminals, or empty ones.
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
    put_fonts(FONTS.map(|font| if terminal { font } else { c"" }.as_ptr().cast_mut()));
}

/// Debug output goes to standard error, which then no longer counts as a terminal.
pub fn debug_to_stderr() {
    redirect_debug(1);
}

/// Debug output goes to the log.
pub fn debug_to_log() {
    redirect_debug(0);
}

fn redirect_debug(to_stderr: c_int) {
    set_debug_redirected(to_stderr);
    set_debug_terminal(0);
    set_fonts(false);
}

/// Updates `io_now`, the wall clock of modules.
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
