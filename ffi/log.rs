//! mavis/log.h, mavis/debug.h: messages. What has variable arguments is formatted by the C side.

use super::{guard, text};
use crate::os::{common_data, log, process};
use std::ffi::{c_char, c_int, c_ulong};
use std::sync::atomic::{AtomicUsize, Ordering};

/// `void logopen(void)`: opens the log as `common_data` says.
#[no_mangle]
pub extern "C" fn logopen() {
    guard((), || {
        let ident = common_data::syslog_ident().or_else(common_data::program_name);
        log::reopen_as(&ident.unwrap_or_default());
    });
}

pub(super) unsafe extern "C" fn log_message(message: *const c_char) {
    // SAFETY: the C side passes a NUL-terminated text.
    guard((), || log::message(&unsafe { text(message) }.unwrap_or_default()));
}

/// `report_cfg_error`: `level` is a mask of debug bits, which may turn the message into one of the
/// trace.
pub(super) unsafe extern "C" fn configuration_message(
    priority: c_int,
    level: c_int,
    message: *const c_char,
) {
    guard((), || {
        // SAFETY: the C side passes a NUL-terminated text.
        let message = unsafe { text(message) }.unwrap_or_default();
        let traced = common_data::debug() & level as u32 != 0;
        if priority == libc::LOG_DEBUG && !traced {
            return;
        }
        let prefix = if priority == libc::LOG_ERR { "Error " } else { "" };
        let to_stderr = || log::stderr(&format!("{}: {message}\n", process::id()));
        let terminal = common_data::debug_terminal() != 0 || common_data::debug_stderr() != 0;
        match traced {
            true if terminal => to_stderr(),
            true => log::message_at(log::Severity::DEBUG, &format!("{prefix}{message}")),
            false if common_data::parse_only() != 0 => to_stderr(),
            false => {
                log::message_at(log::Severity::of(priority), &format!("{prefix}{message}"));
            }
        }
    });
}

/// `void debug(u_long level, char *format, ...)`: a line of the trace, indented by what has begun
/// (`+`) and not ended (`-`).
pub(super) unsafe extern "C" fn debug_message(level: c_ulong, message: *const c_char) {
    static INDENT: AtomicUsize = AtomicUsize::new(0);
    guard((), || {
        if c_ulong::from(common_data::debug()) & level == 0 {
            return;
        }
        // SAFETY: the C side passes a NUL-terminated text.
        let message = unsafe { text(message) }.unwrap_or_default();
        if message.starts_with('-') {
            let _ = INDENT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        }
        let indent = " ".repeat(INDENT.load(Ordering::Relaxed).min(60));
        if message.starts_with('+') {
            INDENT.fetch_add(1, Ordering::Relaxed);
        }
        let last = message.chars().count().saturating_sub(1);
        let printable: String = message
            .chars()
            .enumerate()
            .map(|(at, c)| if c.is_control() && at < last { '^' } else { c })
            .collect();
        log::stderr(&format!("{:6}: {indent}{printable}", process::id()));
    });
}

/// `void debug_setpid(void)`: after a fork.
#[no_mangle]
pub extern "C" fn debug_setpid() {
    guard((), || common_data::set_process_id(process::id()));
}
