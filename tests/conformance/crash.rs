//! Crashes of workers and the broker: backtraces, core dumps, replacement.

use crate::common::{free_port, kill, wait_for, Peer};
use crate::runner::Entry;
use crate::support::{client, content, eventually_served, section, Launch};
use nix::sys::signal::Signal;

pub(crate) const CASES: &[Entry] = &[("Z001", z001), ("Z002", z002), ("Z003", z003)];

fn z001() {
    let (peer, port) = (Peer::echo(), free_port());
    let relay = Launch::simple(port, &peer.remote()).start();
    client(port);
    let worker = relay.workers()[0];
    kill(worker, Signal::SIGSEGV);
    relay.expect_log(&format!("[{worker}]: Caught SIGSEGV"));
    relay.expect_log(&format!("[{worker}]: EXECINFO: backtrace start"));
    relay.expect_log(&format!("[{worker}]: EXECINFO: backtrace end"));
    relay.expect_log(&format!("child (pid {worker}) exit status 69"));
    eventually_served(port);
    let replaced = relay.workers().into_iter().any(|pid| pid != worker);
    assert!(replaced);
}

fn z002() {
    let (peer, port) = (Peer::echo(), free_port());
    let text = section(port, "", "", &peer.remote());
    let launch = Launch::new(format!(
        "coredump directory = @DIR@/cores\n\
         gcore = \"echo core of $CRASHPID; pwd > where\"\n\
         debug-cmd = \"echo trace of $CRASHPID\"\n{text}"
    ));
    std::fs::create_dir(launch.directory.file("cores")).expect("a directory");
    let relay = launch.start();
    client(port);
    let worker = relay.workers()[0];
    kill(worker, Signal::SIGSEGV);
    relay.expect_log(&format!("[{worker}]: GDB: running: \"echo trace of $CRASHPID\""));
    relay.expect_log("GDB: backtrace start");
    relay.expect_log(&format!("[{worker}]: GDB: trace of {worker}"));
    relay.expect_log("GDB: backtrace end");
    relay.expect_log(&format!("[{worker}]: GCORE: core of {worker}"));
    let cores = relay.directory.file("cores");
    assert_eq!(content(&cores.join("where")).trim(), cores.display().to_string());
    relay.expect_log(&format!("child (pid {worker}) exit status 69"));
}

fn z003() {
    let (peer, port) = (Peer::echo(), free_port());
    let mut relay = Launch::simple(port, &peer.remote()).start();
    let workers = relay.workers();
    relay.signal(Signal::SIGSEGV);
    assert_eq!(relay.wait().code(), Some(69));
    relay.expect_log(&format!("[{}]: Caught SIGSEGV", relay.pid()));
    for pid in workers {
        wait_for("the worker's end", || crate::common::is_gone(pid).then_some(()));
    }
}
