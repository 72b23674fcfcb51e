//! mavis/debug.h: the debug trace. The C half formats its lines (`compat/shims.c`).

use super::entry::entry;
use crate::library::trace;
use crate::os::{common_data, log, process};
use std::ffi::c_ulong;
use std::sync::atomic::{AtomicUsize, Ordering};

entry! {
    /// `void debug(u_long level, char *format, ...)`: writes a line of the trace to standard error,
    /// if a bit of `level` is set in `common_data.debug`.
    pub(in crate::ffi) fn debug_message(level: c_ulong, message: String) {
        static INDENT: AtomicUsize = AtomicUsize::new(0);
        if c_ulong::from(common_data::debug()) & level == 0 {
            return;
        }
        let (line, indent) = trace::line(&message, INDENT.load(Ordering::Relaxed));
        INDENT.store(indent, Ordering::Relaxed);
        log::stderr(&format!("{:6}: {line}", process::id()));
    }

    /// `void debug_setpid(void)`: notes the process id, to be called after a fork.
    pub fn debug_setpid() {
        common_data::set_process_id(process::id());
    }
}
