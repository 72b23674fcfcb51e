//! Keepers: children that keep the sessions of single-process mode when the process itself reloads
//! or exits.

use crate::os::process::{self, Fork, Gate, Pid};
use crate::os::{self, log};
use std::collections::BTreeSet;

/// The keepers that are still running.
#[derive(Debug, Default)]
pub(super) struct Keepers(BTreeSet<Pid>);

impl Keepers {
    /// Takes over the keepers of the former image.
    pub(super) fn new(former: Vec<Pid>) -> Keepers {
        Keepers(former.into_iter().collect())
    }

    /// True if none is running.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their process ids.
    pub(super) fn pids(&self) -> Vec<Pid> {
        self.0.iter().copied().collect()
    }

    /// A process has ended, which may be a keeper.
    pub(super) fn ended(&mut self, pid: Pid) {
        self.0.remove(&pid);
    }

    /// Leaves the sessions to a child, which calls `serve` and exits with the status that returns.
    pub(super) fn leave(&mut self, serve: impl FnOnce() -> i32) {
        match process::fork() {
            Ok(Fork::Child) => std::process::exit(serve()),
            Ok(Fork::Parent(pid)) => drop(self.0.insert(pid)),
            Err(error) => not_left(&error),
        }
    }

    /// As [`leave`](Self::leave), for a reload: the child does nothing until the next image has
    /// certainly taken the place of this one.
    pub(super) fn leave_behind_gate(&mut self, serve: impl FnOnce() -> i32) -> Option<(Gate, Pid)> {
        match process::fork_at_gate() {
            Ok((Fork::Child, gate)) => {
                if !gate.passed() {
                    process::exit_now(0);
                }
                std::process::exit(serve());
            }
            Ok((Fork::Parent(pid), gate)) => {
                self.0.insert(pid);
                Some((gate, pid))
            }
            Err(error) => {
                not_left(&error);
                None
            }
        }
    }

    /// The next image could not be executed: the child goes, and this process keeps its sessions.
    pub(super) fn take_back(&mut self, (gate, pid): (Gate, Pid)) {
        gate.cancel();
        let _ = process::wait_for(pid);
        self.ended(pid);
    }
}

fn not_left(error: &std::io::Error) {
    log::message(&format!("fork: {}: open sessions end", os::reason(error)));
}
