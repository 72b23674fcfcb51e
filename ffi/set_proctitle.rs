//! mavis/set_proctitle.h: the process title of a worker.

use super::entry::entry;
use super::layout::{common_data, spawnd_data};
use super::setproctitle;
use crate::os::title::State;
use std::ffi::c_int;

/// Accepting, as one of several workers.
pub(super) const ACCEPTING: c_int = 1;
/// Not accepting now.
pub(super) const FULL: c_int = 2;

/// Shows what the process is doing, with its number of connections.
pub(super) fn show(status: c_int) {
    let count = |number: c_int| usize::try_from(number).unwrap_or(0);
    let users = common_data::users_cur();
    let more = count(common_data::users_max_total().saturating_sub(users));
    let hint = spawnd_data::overload_hint();
    let state = match status {
        0 => State::Accepting { more },
        ACCEPTING if common_data::single_process() != 0 => State::Accepting { more },
        ACCEPTING => State::Serving,
        FULL => State::Full { doing: &hint },
        _ => State::Leaving,
    };
    setproctitle::show(|title| {
        title.connections(count(users)).state(state);
    });
}

entry! {
    /// `void set_proctitle(int status)`: shows what a worker is doing: 0 accepting, 1 accepting as
    /// one of several workers, 2 not accepting now, 3 never accepting again.
    pub fn set_proctitle(status: c_int) {
        show(status);
    }
}
