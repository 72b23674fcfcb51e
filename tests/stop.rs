//! SIGTERM: ends at once, or after draining.

mod common;

use common::*;
use nix::sys::signal::Signal;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

fn config(port: u16, remote: &str, broker: &str, worker: &str) -> String {
    format!(
        "id = spawnd {{\n listen = {{ address = 127.0.0.1 port = {port} }}\n {broker}\n}}\n\
         id = tcprelay {{\n{remote}{worker}\n}}\n"
    )
}

const MODES: [&str; 2] = ["", "single process = yes\n"];

fn refused(port: u16) {
    wait_until_closed(("127.0.0.1", port));
}

#[test]
fn a_broker_that_drains_stays_until_sessions_have_ended() {
    let peer = Peer::echo();
    for mode in MODES {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let directory = Directory::new();
            let pid_file = directory.file("pid");
            let port = free_port();
            let broker = format!("{mode}stop = drain\n pidfile = {}", pid_file.display());
            let mut relay = Launch::new(config(port, &peer.remote(), &broker, "")).start();
            let mut session = connect(port);
            ping(&mut session, b"hello");
            relay.signal(signal);
            relay.expect_log("no longer accepting, waiting for 1 sessions");
            refused(port);
            // A reload is ignored by now.
            relay.signal(Signal::SIGHUP);
            ping(&mut session, b"still");
            assert!(pid_file.exists() && !is_gone(relay.pid()));
            wait_for("the title", || relay.title().contains("1 connection").then_some(()));
            drop(session);
            assert_eq!(relay.wait().code(), Some(0));
            assert!(!pid_file.exists());
            assert!(!relay.log().contains("restarting"));
        }
    }
}

#[test]
fn a_broker_that_drains_ends_with_the_drain_timeout() {
    let peer = Peer::echo();
    for mode in MODES {
        let port = free_port();
        let broker = format!("{mode}stop = drain");
        let text = config(port, &peer.remote(), &broker, "drain timeout = 1");
        let mut relay = Launch::new(text).start();
        let mut session = connect(port);
        ping(&mut session, b"hello");
        relay.signal(Signal::SIGTERM);
        assert_eq!(relay.wait().code(), Some(0));
        assert!(has_ended(&mut session));
    }
}

#[test]
fn a_second_signal_ends_a_broker_that_drains_at_once() {
    let peer = Peer::echo();
    for mode in MODES {
        let port = free_port();
        let broker = format!("{mode}stop = drain");
        let mut relay = Launch::new(config(port, &peer.remote(), &broker, "")).start();
        let mut session = connect(port);
        ping(&mut session, b"hello");
        relay.signal(Signal::SIGTERM);
        relay.expect_log("no longer accepting");
        relay.signal(Signal::SIGTERM);
        assert_eq!(relay.wait().code(), Some(0));
        // As without "drain": the process that keeps the session goes on.
        ping(&mut session, b"still");
    }
}

#[test]
fn a_broker_that_drains_waits_for_sessions_from_before_a_reload() {
    let peer = Peer::echo();
    for mode in MODES {
        let port = free_port();
        let broker = format!("{mode}stop = drain");
        let mut relay = Launch::new(config(port, &peer.remote(), &broker, "")).start();
        let mut session = connect(port);
        ping(&mut session, b"hello");
        relay.signal(Signal::SIGHUP);
        relay.expect_log("succeeded (inherited)");
        relay.signal(Signal::SIGTERM);
        relay.expect_log("no longer accepting");
        ping(&mut session, b"still");
        drop(session);
        assert_eq!(relay.wait().code(), Some(0));
    }
}

#[test]
fn process_1_of_a_container_drains_unless_told_otherwise() {
    if !is_root() {
        return left_out("a pid namespace needs root");
    }
    let peer = Peer::echo();
    for (stop, drains) in [("", true), ("stop = now", false)] {
        let port = free_port();
        let directory = Directory::new();
        let config = directory.write("relay.cfg", config(port, &peer.remote(), stop, ""));
        let log = directory.file("log");
        let child = ours("unshare")
            .args(["--pid", "--fork", "--kill-child=KILL", TCPRELAY, "-f"])
            .arg(&config)
            .env("TCPRELAY_LOG_STDERR", "1")
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log).expect("the log"))
            .spawn()
            .expect("unshare");
        let mut relay = Relay::assemble(directory, config, log, child);
        relay.expect_log("bind to");
        let mut session = connect(port);
        ping(&mut session, b"hello");
        let broker = relay.workers()[0];
        kill(broker, Signal::SIGTERM);
        if drains {
            relay.expect_log("no longer accepting");
            refused(port);
            ping(&mut session, b"still");
            drop(session);
        }
        assert_eq!(relay.wait().code(), Some(0));
    }
}

#[test]
fn a_signal_before_the_start_is_complete_reaches_process_1() {
    if !is_root() {
        return left_out("a pid namespace needs root");
    }
    let peer = Peer::echo();
    for round in 0..8 {
        let directory = Directory::new();
        let config = directory.write("relay.cfg", config(free_port(), &peer.remote(), "", ""));
        let log = directory.file("log");
        let child = ours("unshare")
            .args(["--pid", "--fork", "--kill-child=KILL", TCPRELAY, "-f"])
            .arg(&config)
            .env("TCPRELAY_LOG_STDERR", "1")
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log).expect("the log"))
            .spawn()
            .expect("unshare");
        let mut relay = Relay::assemble(directory, config, log, child);
        relay.expect_log("startup (version");
        stagger(Duration::from_millis(2 * round));
        kill(relay.workers()[0], Signal::SIGTERM);
        assert_eq!(relay.wait().code(), Some(0), "round {round}");
    }
}

#[test]
fn other_words_for_stop_are_refused() {
    let directory = Directory::new();
    let config = directory.write("relay.cfg", config(1, &remote(1), "stop = later", ""));
    let output = ours(TCPRELAY).arg("-P").arg(&config).output().expect("the program");
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("relay.cfg:3: Expected 'drain' or 'now', but got 'later'"), "{text}");
}
