//! Children of this process whose end somebody waits for.

use super::process::{self, Fork, Pid};
use std::cell::RefCell;
use std::io;

thread_local! {
    /// The youngest last.
    static CHILDREN: RefCell<Vec<(Pid, Ending)>> = const { RefCell::new(Vec::new()) };
}

/// What is done when a child has ended, with its id and the status of waitpid(2).
pub type Ending = Box<dyn FnOnce(Pid, i32)>;

/// fork(2). The parent remembers the child; the child knows of no children.
pub fn fork(ending: Ending) -> io::Result<Fork> {
    let fork = process::fork()?;
    CHILDREN.with_borrow_mut(|children| match fork {
        Fork::Parent(pid) => {
            // The id of an earlier child that somebody else has reaped may come again.
            children.retain(|(known, _)| *known != pid);
            children.push((pid, ending));
        }
        Fork::Child => children.clear(),
    });
    Ok(fork)
}

/// Does something else when a child ends that is remembered.
pub fn set(pid: Pid, ending: Ending) {
    CHILDREN.with_borrow_mut(|children| {
        if let Some(entry) = children.iter_mut().find(|(known, _)| *known == pid) {
            entry.1 = ending;
        }
    });
}

/// Forgets a child.
pub fn ignore(pid: Pid) {
    CHILDREN.with_borrow_mut(|children| children.retain(|(known, _)| *known != pid));
}

/// Reaps all children that have ended, remembered or not, without waiting.
pub fn reap() {
    while let Some((pid, status)) = process::reap_status() {
        // What is called may fork, and get the same id.
        let ending = CHILDREN.with_borrow_mut(|children| {
            let at = children.iter().position(|(known, _)| *known == pid)?;
            Some(children.remove(at).1)
        });
        if let Some(ending) = ending {
            ending(pid, status);
        }
    }
}
