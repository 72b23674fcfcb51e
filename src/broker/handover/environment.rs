//! Environment variables that tell a process of ours which descriptors it has inherited.

use crate::os::anonymous::Bytes;
use crate::os::descriptor;
use crate::snapshot::texts::Texts;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// The environment variable that says where the text is.
pub const VARIABLE: &str = "TCPRELAY_HANDOVER";

/// The environment variable with a descriptor: a child that checks the configuration writes there
/// what it has read.
pub const REPORT_VARIABLE: &str = "TCPRELAY_CHECK_REPORT";

/// Takes the descriptor whose number a variable holds. The variable is removed.
pub(super) fn inherited<T: From<OwnedFd>>(variable: &str) -> Option<T> {
    let number = std::env::var(variable).ok()?.parse().ok();
    std::env::remove_var(variable);
    adopt(number?).map(T::from)
}

pub(super) fn adopt(number: RawFd) -> Option<OwnedFd> {
    if number <= 2 {
        return None;
    }
    let fd = descriptor::adopt(number).ok()?;
    descriptor::close_on_exec(&fd).ok()?;
    Some(fd)
}

/// The environment variable with a descriptor of the texts, for our own workers. It stays open.
const SNAPSHOT_VARIABLE: &str = "TCPRELAY_SNAPSHOT";

/// Tells programs that are started from now on where the texts are.
pub fn publish_snapshot(snapshot: Option<&Bytes>) {
    match snapshot {
        Some(fd) => std::env::set_var(SNAPSHOT_VARIABLE, fd.as_raw_fd().to_string()),
        None => std::env::remove_var(SNAPSHOT_VARIABLE),
    }
}

/// The texts that this worker's broker has checked, if it has left any.
pub fn inherited_texts() -> Option<Texts> {
    Texts::decode(&inherited::<Bytes>(SNAPSHOT_VARIABLE)?.read().ok()?)
}

/// Most bytes in one variable (Linux takes 128 KiB).
pub(super) const PART: usize = 100_000;

/// The name of the variable for one part of the text.
pub(super) fn variable(number: usize) -> String {
    if number == 0 {
        VARIABLE.to_owned()
    } else {
        format!("{VARIABLE}_{number}")
    }
}
