//! Children that keep the sessions of a single process which goes on without them.

use crate::os::process::{self, Fork, Gate, Pid};
use crate::os::{self, log};
use std::collections::BTreeSet;

/// Those that have not ended yet.
#[derive(Debug, Default)]
pub(super) struct Keepers(BTreeSet<Pid>);

impl Keepers {
    /// Those of a former image.
    pub(super) fn new(former: Vec<Pid>) -> Keepers {
        Keepers(former.into_iter().collect())
    }

    /// There is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their processes.
    pub(super) fn pids(&self) -> Vec<Pid> {
        self.0.iter().copied().collect()
    }

    /// A process has ended.
    pub(super) fn ended(&mut self, pid: Pid) {
        self.0.remove(&pid);
    }

    /// Leaves the sessions to a child, which is to `serve` them and ends with what that returns.
    pub(super) fn leave(&mut self, serve: impl FnOnce() -> i32) {
        match process::fork() {
            Ok(Fork::Child) => std::process::exit(serve()),
            Ok(Fork::Parent(pid)) => drop(self.0.insert(pid)),
            Err(error) => not_left(&error),
        }
    }

    /// The same for the time when another image has taken the place of this one: the child does
    /// nothing as long as that is not certain.
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

    /// There is no other image: the child goes, and this process keeps its sessions.
    pub(super) fn take_back(&mut self, (gate, pid): (Gate, Pid)) {
        gate.cancel();
        let _ = process::wait_for(pid);
        self.ended(pid);
    }
}

fn not_left(error: &std::io::Error) {
    log::message(&format!("fork: {}: open sessions end", os::reason(error)));
}
