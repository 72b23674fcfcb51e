//! mavis/mavis.h: starting a program, its usage text, and escaped strings. The rest of that header
//! is in the folder: attributes, chains of modules, conditions, configurations, the lexer and the
//! functions that read values, scripts, and time specifications.

pub mod attributes;
pub mod chain;
pub mod condition;
pub mod configuration;
pub mod reading;
pub mod script;
pub mod timespec;

use super::entry::entry;
use super::layout::common_data;
use super::memory::{put_text, slice};
use super::{log, scm};
use crate::library::escape;
use crate::os::process::{self, exit};
use crate::program;
use std::ffi::c_char;

/// Sets `common_data` to its defaults, and opens the log.
pub(super) fn start() {
    common_data::start();
    let terminal = process::stderr_is_terminal();
    common_data::set_debug_terminal(terminal.into());
    common_data::set_fonts(terminal);
    if let Some(tool) = process::core_dumper() {
        common_data::set_core_command(tool);
    }
    scm::set_functions();
    log::open();
}

entry! {
    /// `void init_common_data(void)`: sets `common_data` to its defaults, and opens the log.
    pub fn init_common_data() {
        start();
    }

    /// `void common_usage(void)`: shows the usage, and ends the process.
    pub fn common_usage() {
        let name = common_data::program_name().unwrap_or_default();
        crate::os::log::stderr(&program::usage(&name));
        std::process::exit(exit::USAGE);
    }

    /// `char *escape_string(char *in, size_t inlen, char *out, size_t *outlen)`: makes bytes
    /// printable, as many as fit into `*outlen` bytes with a NUL; sets `*outlen` to the length, and
    /// returns `out`.
    #[otherwise(out)]
    pub fn escape_string(
        data: *const c_char,
        length: usize,
        out: *mut c_char,
        out_length: &mut usize,
    ) -> *mut c_char {
        // SAFETY: the lengths are those of the buffers.
        unsafe {
            let text = escape::escape(slice(data.cast(), length), out_length.saturating_sub(4));
            put_text(out, *out_length, &text);
            *out_length = text.len();
        }
        out
    }
}
