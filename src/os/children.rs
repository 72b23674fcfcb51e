//! Children of this process, each with a callback for when it ends.

use super::process::{self, Fork, Pid};
use std::cell::RefCell;
use std::io;

thread_local! {
    /// The youngest child comes last.
    static CHILDREN: RefCell<Vec<(Pid, Ending)>> = const { RefCell::new(Vec::new()) };
}

/// Called when a child has ended, with its process id and the status of waitpid(2).
pub type Ending = Box<dyn FnOnce(Pid, i32)>;

/// fork(2). The parent remembers the child; the child starts with an empty list.
pub fn fork(ending: Ending) -> io::Result<Fork> {
    let fork = process::fork()?;
    CHILDREN.with_borrow_mut(|children| match fork {
        Fork::Parent(pid) => {
            // Other code may have reaped an earlier child whose id is now used again.
            children.retain(|(known, _)| *known != pid);
            children.push((pid, ending));
        }
        Fork::Child => children.clear(),
    });
    Ok(fork)
}

/// Replaces the callback of a remembered child.
pub fn set(pid: Pid, ending: Ending) {
    CHILDREN.with_borrow_mut(|children| {
        if let Some(entry) = children.iter_mut().find(|(known, _)| *known == pid) {
            entry.1 = ending;
        }
    });
}

/// Forgets a child: nothing is called when it ends.
pub fn ignore(pid: Pid) {
    CHILDREN.with_borrow_mut(|children| children.retain(|(known, _)| *known != pid));
}

/// Reaps all children that have ended, remembered or not, without waiting.
pub fn reap() {
    while let Some((pid, status)) = process::reap_status() {
        // Removed before the call: the callback may fork and get the same id.
        let ending = CHILDREN.with_borrow_mut(|children| {
            let at = children.iter().position(|(known, _)| *known == pid)?;
            Some(children.remove(at).1)
        });
        if let Some(ending) = ending {
            ending(pid, status);
        }
    }
}
