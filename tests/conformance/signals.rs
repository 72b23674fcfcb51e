//! Signals to brokers and workers.

use crate::common::{
    connect, ends_within, expect_eof, free_port, is_gone, kill, mechanisms, next, ping, relay,
    remote, wait_for, Peer, Relay, PATIENCE,
};
use crate::runner::Entry;
use crate::support::{
    ask, at_once, client, content, count, eventually_served, expect_title, section, wait_loads,
    BlackHole, Daemon, Launch,
};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, thread};

pub(crate) const CASES: &[Entry] = &[
    ("S001", s001),
    ("S002", s002),
    ("S003", s003),
    ("S004", s004),
    ("S005", s005),
    ("S006", s006),
    ("S007", s007),
    ("S008", s008),
    ("S009", s009),
    ("S010", s010),
    ("S011", s011),
    ("S012", s012),
    ("S013", s013),
    ("S014", s014),
    ("S015", s015),
    ("S016", s016),
    ("S017", s017),
];

/// A relay with two workers and a pid file, in front of an echo.
fn two_workers() -> (Peer, u16, Relay) {
    let peer = Peer::echo();
    let layout = relay(peer.remote()).workers(2).users_by_default().spawn("users min = 100");
    let (relay, port) = layout.broker("pidfile = @DIR@/pid").start();
    wait_loads(&relay, 0);
    (peer, port, relay)
}

fn gone(pid: i32) {
    wait_for(&format!("the end of process {pid}"), || is_gone(pid).then_some(()));
}

/// Requires that this signal ends the broker.
fn ends_by(signal: Signal) {
    let (_peer, port, mut relay) = two_workers();
    let mut stream = client(port);
    wait_loads(&relay, 1);
    let workers = relay.workers();
    relay.signal(signal);
    let begin = Instant::now();
    assert_eq!(relay.wait().code(), Some(0));
    at_once(begin);
    relay.expect_log("SIGTERM: exiting");
    assert!(!relay.directory.file("pid").exists());
    // The first worker has the connection; the second is idle.
    gone(workers[1]);
    ping(&mut stream, b"still there");
    assert!(!is_gone(workers[0]));
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    drop(stream);
    gone(workers[0]);
}

fn s001() {
    ends_by(Signal::SIGTERM);
}

fn s002() {
    ends_by(Signal::SIGINT);
}

/// Overwrites the configuration of a running relay.
fn rewrite(relay: &Relay, text: &str) {
    let text = text.replace("@DIR@", &relay.directory.path().display().to_string());
    fs::write(&relay.config, text).expect("to write the configuration");
}

/// Waits until the broker has executed itself again.
fn restarted(relay: &Relay) {
    relay.expect_log("SIGHUP: restarting");
    let started = format!("[{}]: startup (version", relay.pid());
    wait_for("the new image", || (count(relay, &started) == 2).then_some(()));
}

fn s003() {
    let (a, b, port) = (Peer::named("A"), Peer::named("B"), free_port());
    let text = |peer: &Peer| section(port, "pidfile = @DIR@/pid", "", &peer.remote());
    let relay = Launch::new(text(&a)).start();
    let (mut old, name) = ask(port);
    assert_eq!(name, "A");
    rewrite(&relay, &text(&b));
    let begin = Instant::now();
    relay.signal(Signal::SIGHUP);
    restarted(&relay);
    at_once(begin);
    wait_for("the new configuration", || (ask(port).1 == "B").then_some(()));
    ping(&mut old, b"still there");
    assert!(!is_gone(relay.pid()));
    assert_eq!(content(&relay.directory.file("pid")), relay.pid().to_string());
}

fn s004() {
    let (peer, port) = (Peer::echo(), free_port());
    let relay = Launch::simple(port, &peer.remote()).start();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let stop = stop.clone();
            thread::spawn(move || {
                let mut served = 0;
                while !stop.load(Ordering::Relaxed) {
                    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
                    stream.set_read_timeout(Some(crate::common::PATIENCE))?;
                    stream.write_all(b"hello")?;
                    stream.read_exact(&mut [0; 5])?;
                    served += 1;
                }
                std::io::Result::Ok(served)
            })
        })
        .collect();
    for round in 1..=3 {
        relay.signal(Signal::SIGHUP);
        let started = format!("[{}]: startup (version", relay.pid());
        wait_for("the new image", || (count(&relay, &started) == round + 1).then_some(()));
        client(port);
    }
    stop.store(true, Ordering::Relaxed);
    for thread in clients {
        let served = thread.join().expect("a client").expect("no refused or reset connection");
        assert!(served > 0);
    }
}

fn s005() {
    let (peer, port) = (Peer::echo(), free_port());
    let broker = "background = yes pidfile = @DIR@/pid";
    let finished = Launch::new(section(port, broker, "", &peer.remote())).finish();
    let path = finished.exits(0).relay.directory.file("pid");
    let daemon = Daemon::of(&path);
    client(port);
    let before = worker_of(daemon.0);
    kill(daemon.0, Signal::SIGHUP);
    gone(before);
    eventually_served(port);
    assert!(!is_gone(daemon.0));
    assert_eq!(content(&path), daemon.0.to_string());
    kill(daemon.0, Signal::SIGTERM);
    gone(daemon.0);
    assert!(!path.exists());
}

/// The only worker of a broker.
fn worker_of(broker: i32) -> i32 {
    wait_for("a worker", || crate::common::children(broker).first().copied())
}

fn s006() {
    let (_peer, port, mut relay) = two_workers();
    let mut stream = client(port);
    rewrite(&relay, "id = spawnd { foo }\n");
    relay.signal(Signal::SIGHUP);
    relay.expect_log("but got 'foo'");
    relay.expect_log("the running one stays in service");
    ping(&mut stream, b"still there");
    client(port);
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.wait().code(), Some(0));
}

fn s007() {
    let (peer, port) = (Peer::echo(), free_port());
    let text = section(port, "", "", &peer.remote());
    let relay = Launch::new(format!("setenv IO_POLL_MECHANISM = 8\n{text}")).start();
    let broker = relay.pid();
    assert_eq!(count(&relay, &format!("[{broker}]: poll event")), 1, "{}", relay.log());
    rewrite(&relay, &text);
    relay.signal(Signal::SIGHUP);
    restarted(&relay);
    relay.expect_log(&format!("[{broker}]: epoll event notification"));
    client(port);
    wait_for("the worker's mechanism", || (count(&relay, "]: epoll event") == 2).then_some(()));
}

fn s008() {
    for signal in [Signal::SIGHUP, Signal::SIGTERM] {
        let (_peer, port, relay) = two_workers();
        let (mut one, mut two) = (client(port), client(port));
        wait_loads(&relay, 2);
        let worker = relay.workers()[0];
        kill(worker, signal);
        let begin = Instant::now();
        relay.expect_log(&format!("[{worker}]: SIGHUP: No longer accepting new connections."));
        expect_title(worker, "1 connection left, dying when idle");
        at_once(begin);
        ping(&mut one, b"one");
        ping(&mut two, b"two");
        assert!(!is_gone(worker));
        drop((one, two));
        gone(worker);
        relay.expect_log(&format!("child (pid {worker}) terminated normally"));
        // An idle worker ends at once.
        let idle =
            wait_for("another worker", || relay.workers().into_iter().find(|&pid| pid != worker));
        kill(idle, signal);
        gone(idle);
        client(port);
    }
}

fn s009() {
    let (_peer, port, relay) = two_workers();
    let mut old = client(port);
    wait_loads(&relay, 1);
    let worker = relay.workers()[0];
    kill(worker, Signal::SIGHUP);
    // Some of them may reach the worker before the broker knows that it is leaving.
    let mut streams: Vec<TcpStream> = (0..20).map(|_| client(port)).collect();
    expect_title(worker, "left, dying when idle");
    for stream in &mut streams {
        ping(stream, b"served");
    }
    let served: usize = relay
        .workers()
        .into_iter()
        .filter(|&pid| pid != worker)
        .filter_map(crate::support::load)
        .sum();
    assert!(served > 0);
    ping(&mut old, b"old");
}

fn s010() {
    let hole = BlackHole::new();
    let (first, first_streams) = Peer::manual();
    let (second, second_streams) = Peer::manual();
    let port = free_port();
    let text =
        format!("connect timeout = 60\n{}{}{}", first.remote(), remote(hole.port), second.remote());
    let relay = Launch::simple(port, &text).start();
    let worker = relay.workers()[0];
    let established = connect(port);
    let mut first_end = next(&first_streams);
    let mut pending = connect(port);
    pending.write_all(b"only this").expect("to send");
    wait_loads(&relay, 2);
    kill(worker, Signal::SIGHUP);
    expect_title(worker, "2 connections left, dying when idle");
    // The pending connect attempt fails over, and then the other session ends.
    drop(hole);
    let mut second_end = next(&second_streams);
    drop(established);
    expect_eof(&mut first_end);
    drop(first_end);
    expect_title(worker, "1 connection left, dying when idle");
    pending.shutdown(std::net::Shutdown::Write).expect("to shut down");
    let mut data = Vec::new();
    second_end.read_to_end(&mut data).expect("the client's data");
    assert_eq!(data, b"only this");
    drop((second_end, pending));
    gone(worker);
}

fn s011() {
    for (value, _) in mechanisms() {
        let (peer, port) = (Peer::echo(), free_port());
        let launch = Launch::simple(port, &peer.remote());
        let relay = launch.environment("IO_POLL_MECHANISM", value).start();
        let mut stream = client(port);
        let worker = relay.workers()[0];
        relay.signal(Signal::SIGUSR1);
        wait_for("a new worker", || relay.workers().into_iter().find(|&pid| pid != worker));
        client(port);
        ping(&mut stream, b"still there");
        assert!(!is_gone(relay.pid()));
        drop(stream);
        gone(worker);
    }
}

fn s012() {
    for (value, _) in mechanisms() {
        let (peer, port) = (Peer::echo(), free_port());
        let launch = Launch::simple(port, &peer.remote());
        let relay = launch.environment("IO_POLL_MECHANISM", value).start();
        let mut stream = client(port);
        let worker = relay.workers()[0];
        for pid in [relay.pid(), worker] {
            kill(pid, Signal::SIGSTOP);
            let stopped = || crate::support::status_line(pid, "State").starts_with('T');
            wait_for("the stop", || stopped().then_some(()));
            kill(pid, Signal::SIGCONT);
        }
        ping(&mut stream, b"still there");
        client(port);
        assert_eq!(relay.workers(), [worker]);
    }
}

/// Attaches to a process as a debugger does, and detaches again.
fn attach_and_detach(pid: i32) {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: ptrace(2) and waitpid(2) with plain numbers, and a pointer to `status`.
    unsafe {
        let attached = libc::ptrace(libc::PTRACE_ATTACH, pid, none, none);
        assert_eq!(attached, 0, "ptrace: {}", std::io::Error::last_os_error());
        let mut status = 0;
        let waited = libc::waitpid(pid, &raw mut status, libc::__WALL);
        assert_eq!(waited, pid, "waitpid: {}", std::io::Error::last_os_error());
        assert!(libc::WIFSTOPPED(status));
        let detached = libc::ptrace(libc::PTRACE_DETACH, pid, none, none);
        assert_eq!(detached, 0, "ptrace: {}", std::io::Error::last_os_error());
    }
}

fn s013() {
    for (value, _) in mechanisms() {
        let (peer, port) = (Peer::echo(), free_port());
        let launch = Launch::simple(port, &peer.remote());
        let relay = launch.environment("IO_POLL_MECHANISM", value).start();
        let mut stream = client(port);
        let worker = relay.workers()[0];
        for pid in [relay.pid(), worker] {
            attach_and_detach(pid);
        }
        ping(&mut stream, b"still there");
        client(port);
        assert_eq!(relay.workers(), [worker]);
    }
}

fn s014() {
    let (peer, port) = (Peer::echo(), free_port());
    let relay = Launch::simple(port, &peer.remote()).start();
    let mut stream = client(port);
    let worker = relay.workers()[0];
    kill(relay.pid(), Signal::SIGPIPE);
    kill(worker, Signal::SIGPIPE);
    ping(&mut stream, b"still there");
    client(port);
    assert_eq!(relay.workers(), [worker]);
    assert!(!is_gone(relay.pid()));
}

/// A relay in single-process mode, with a pid file.
fn single() -> (Peer, u16, Relay) {
    let (peer, port) = (Peer::echo(), free_port());
    let launch = Launch::new(section(port, "pidfile = @DIR@/pid", "", &peer.remote()));
    (peer, port, launch.arguments(&["-1", "@CFG@"]).start())
}

fn s015() {
    let (_peer, port, mut relay) = single();
    client(port);
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.wait().code(), Some(0));
    assert!(!relay.directory.file("pid").exists());
    // Now with an open connection.
    let (_peer, port, mut relay) = single();
    let mut stream = client(port);
    relay.signal(Signal::SIGINT);
    assert_eq!(relay.wait().code(), Some(0));
    assert!(!relay.directory.file("pid").exists());
    ping(&mut stream, b"still there");
}

fn s016() {
    let (_peer, port, relay) = single();
    let mut stream = client(port);
    relay.signal(Signal::SIGHUP);
    restarted(&relay);
    eventually_served(port);
    ping(&mut stream, b"still there");
    assert!(!is_gone(relay.pid()));
    assert_eq!(content(&relay.directory.file("pid")), relay.pid().to_string());
}

fn s017() {
    let (_peer, port, mut relay) = two_workers();
    let mut stream = client(port);
    wait_loads(&relay, 1);
    let workers = relay.workers();
    relay.signal(Signal::SIGKILL);
    relay.wait();
    assert!(ends_within(Duration::from_secs(75), workers[1]), "the idle worker stays");
    ping(&mut stream, b"still there");
    drop(stream);
    assert!(ends_within(PATIENCE, workers[0]), "the worker stays");
}
