//! A network namespace for the thread of one test (Linux, root): its programs and sockets are in it.

use std::process::{Command, Stdio};

/// Moves this thread, and what it starts from now on, to a network namespace of its own whose
/// loopback interface is up. False, said loudly, where that cannot be done.
pub fn enter() -> bool {
    if !super::is_root() {
        super::left_out("a network namespace needs root");
        return false;
    }
    // SAFETY: unshare(2) takes plain numbers; CLONE_NEWNET concerns the calling thread alone.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        super::left_out("there can be no network namespace here");
        return false;
    }
    if !ip("link set lo up") {
        super::left_out("ip(8) is missing");
        return false;
    }
    true
}

/// Runs ip(8); false if it is missing or fails.
pub fn ip(arguments: &str) -> bool {
    let mut command = Command::new("ip");
    command.args(arguments.split(' ')).stdin(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Makes interfaces that are up, each with these addresses; false, said loudly, if that cannot be
/// done.
pub fn links(names: &[&str], addresses: &[&str]) -> bool {
    let made = names.iter().all(|name| {
        let link = format!("link add {name} type veth peer name {name}p");
        let assigned = |address: &&str| ip(&format!("addr add {address} dev {name} nodad"));
        ip(&link)
            && ip(&format!("link set {name}p up"))
            && ip(&format!("link set {name} up"))
            && addresses.iter().all(assigned)
    });
    if !made {
        super::left_out("there can be no veth interfaces here");
    }
    made
}
