//! misc/sig_segv.h: what is done when a program crashes.

use super::{guard, text};
use crate::os::{common_data, crash};
use std::ffi::{c_char, c_int, c_void};
use std::path::PathBuf;

/// `void setup_sig_segv(char *coredump_dir, char *gcore_cmd, char *debug_cmd)`: catches SIGSEGV and
/// SIGBUS. What is null stays as an earlier call has set it.
///
/// # Safety
/// The texts are null or NUL-terminated.
#[no_mangle]
pub unsafe extern "C" fn setup_sig_segv(
    directory: *const c_char,
    core_command: *const c_char,
    debug_command: *const c_char,
) {
    guard((), || {
        // SAFETY: as the caller promises; the texts are copied.
        let [directory, core_command, debug_command] =
            [directory, core_command, debug_command].map(|given| unsafe { text(given) });
        let actions = crash::Actions {
            version: common_data::version().unwrap_or_default(),
            core_directory: directory.map(PathBuf::from),
            core_command,
            debug_command,
        };
        crash::install_for_program(actions, catchsegv);
    });
}

/// `void catchsegv(int sig, siginfo_t *, void *)`: the handler; it does not return.
#[no_mangle]
pub extern "C" fn catchsegv(number: c_int, _info: *mut libc::siginfo_t, _context: *mut c_void) {
    guard((), || crash::caught(number));
}
