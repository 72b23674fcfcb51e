//! misc/sig_segv.h: what is done when a program crashes.

use super::entry::entry;
use super::internal::catchsegv;
use super::layout::common_data;
use crate::os::crash;
use std::path::PathBuf;

entry! {
    /// `void setup_sig_segv(char *coredump_dir, char *gcore_cmd, char *debug_cmd)`: catches SIGSEGV
    /// and SIGBUS. What is null stays as an earlier call has set it.
    pub fn setup_sig_segv(
        directory: Option<String>,
        core_command: Option<String>,
        debug_command: Option<String>,
    ) {
        let actions = crash::Actions {
            version: common_data::version().unwrap_or_default(),
            core_directory: directory.map(PathBuf::from),
            core_command,
            debug_command,
        };
        crash::install_for_program(actions, catchsegv);
    }
}
