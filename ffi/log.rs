//! mavis/log.h: log messages. The C half formats those with variable arguments (`compat/shims.c`).

use super::entry::entry;
use crate::os::{common_data, log};

/// Opens the log as `common_data` says.
pub(super) fn open() {
    let ident = common_data::syslog_ident().or_else(common_data::program_name);
    log::reopen_as(&ident.unwrap_or_default());
}

entry! {
    /// `void logopen(void)`: opens the log as `common_data` says.
    pub fn logopen() {
        open();
    }

    /// `void logmsg(char *format, ...)`, `int logerr(char *format, ...)`
    pub(in crate::ffi) fn log_message(message: Option<String>) {
        log::message(&message.unwrap_or_default());
    }
}
