//! mavis/spawnd_headers.h: what a broker that C code builds does when it has too many users.

use super::serve::{bind, close, io};
use crate::config::token::{S_close, S_reset};
use crate::event::{Context, Interest};
use crate::ffi::layout::common_data;
use crate::ffi::layout::spawnd_data::{self, SpawndContext};
use crate::ffi::set_proctitle::{self, ACCEPTING, FULL};
use crate::os::log;
use std::ffi::c_int;

/// The most users there may be at once are there.
pub(super) fn is_full() -> bool {
    let limit = common_data::users_max_total();
    limit > 0 && common_data::users_cur() >= limit
}

/// Says how many users there are, and stops accepting if they are as many as there may be.
pub(super) fn check_overload() {
    if !is_full() {
        return set_proctitle::show(ACCEPTING);
    }
    let data = spawnd_data::address();
    // SAFETY: the variable lives as long as the process, and its array has contexts; the hint is
    // null or NUL-terminated.
    unsafe {
        let hint = spawnd_data::overload_hint();
        let users = common_data::users_cur();
        log::braked(log::Kind::Limit, || {
            format!("limit of {users} concurrent users reached, {hint} new connections")
        });
        set_proctitle::show(FULL);
        (*data).listeners_inactive = -1;
        let overload = (*data).overload;
        for listener in spawnd_data::listeners() {
            let fd = (*listener).r#fn;
            if overload == S_reset.0 {
                close(listener);
                continue;
            }
            set_backlog(listener, (*listener).overload_backlog);
            if overload != S_close.0 {
                Context::with(io(), |events| events.foreign_want(fd, Interest::READ, false));
            }
        }
    }
}

/// Accepts again, if that was stopped.
pub(super) fn resume() {
    let data = spawnd_data::address();
    // SAFETY: as above.
    unsafe {
        if (*data).listeners_inactive == 0 || is_full() {
            return;
        }
        log::braked(log::Kind::Limit, || "resuming normal operation".to_owned());
        (*data).listeners_inactive = 0;
        for listener in spawnd_data::listeners() {
            let fd = (*listener).r#fn;
            if fd < 0 {
                bind(listener);
                continue;
            }
            set_backlog(listener, (*listener).listen_backlog);
            Context::with(io(), |events| events.foreign_want(fd, Interest::READ, true));
        }
    }
}

/// Calls listen(2) again if a listener has two lengths of its queue.
unsafe fn set_backlog(listener: *mut SpawndContext, backlog: c_int) {
    // SAFETY: as the caller promises.
    unsafe {
        let differs = (*listener).listen_backlog != (*listener).overload_backlog;
        if differs && (*listener).socktype != libc::SOCK_DGRAM {
            libc::listen((*listener).r#fn, backlog);
        }
    }
}
