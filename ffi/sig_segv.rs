//! misc/sig_segv.h: the handling of crashes.

use super::entry::entry;
use super::internal::catchsegv;
use super::layout::common_data;
use crate::os::crash;
use std::path::PathBuf;

entry! {
    /// `void setup_sig_segv(char *coredump_dir, char *gcore_cmd, char *debug_cmd)`: catches SIGSEGV
    /// and SIGBUS. A null argument leaves the setting of an earlier call.
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
