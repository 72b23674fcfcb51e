//! Process titles.

use crate::common::{connect, free_port, kill, ping, relay, title, Peer, Relay};
use crate::runner::Entry;
use crate::support::{client, expect_title, section, wait_loads, Launch};
use nix::sys::signal::Signal;
use std::net::TcpStream;

pub(crate) const CASES: &[Entry] =
    &[("T001", t001), ("T002", t002), ("T003", t003), ("T004", t004), ("T005", t005)];

fn sixty(section: &str) -> (Peer, u16, Relay) {
    let peer = Peer::echo();
    let section = format!("{}{section}", peer.remote());
    let (relay, port) = relay(section).spawn("users max = 60").start();
    (peer, port, relay)
}

fn exactly(pid: i32, text: &str) {
    expect_title(pid, text);
    assert_eq!(title(pid), text);
}

fn t001() {
    let (_peer, port, relay) = sixty("");
    exactly(relay.pid(), "tcprelay: 0 connections, accepting up to 60 more");
    let stream = client(port);
    exactly(relay.pid(), "tcprelay: 1 connection, accepting up to 59 more");
    let _second = client(port);
    exactly(relay.pid(), "tcprelay: 2 connections, accepting up to 58 more");
    drop(stream);
    exactly(relay.pid(), "tcprelay: 1 connection, accepting up to 59 more");
}

fn t002() {
    let (_peer, port, relay) = sixty("");
    let worker = relay.workers()[0];
    exactly(worker, "tcprelay: 0 connections");
    let _stream = client(port);
    exactly(worker, "tcprelay: 1 connection");
    let _second = client(port);
    exactly(worker, "tcprelay: 2 connections");
}

fn t003() {
    let (_peer, port, drained) = sixty("");
    let mut streams: Vec<TcpStream> = (0..3).map(|_| client(port)).collect();
    let worker = wait_loads_of_one(&drained, 3);
    kill(worker, Signal::SIGTERM);
    exactly(worker, "tcprelay: 3 connections left, dying when idle");
    drop(streams.pop());
    drop(streams.pop());
    exactly(worker, "tcprelay: 1 connection left, dying when idle");

    let (_peer, port, retired) = sixty("retire limit = 3");
    let worker = retired.workers()[0];
    let mut streams: Vec<TcpStream> = (0..3).map(|_| connect(port)).collect();
    for stream in &mut streams {
        ping(stream, b"hello");
    }
    exactly(worker, "tcprelay: 3 connections left, dying when idle");
}

/// Waits until the only worker has `total` connections; returns its pid.
fn wait_loads_of_one(relay: &Relay, total: usize) -> i32 {
    wait_loads(relay, total);
    relay.workers()[0]
}

fn t004() {
    let (peer, port) = (Peer::echo(), free_port());
    let launch = Launch::simple(port, &peer.remote()).arguments(&["-1", "@CFG@"]);
    let relay = launch.descriptors(1010, 1010).start();
    exactly(relay.pid(), "tcprelay: 0 connections, accepting up to 500 more");
    let _stream = client(port);
    exactly(relay.pid(), "tcprelay: 1 connection, accepting up to 499 more");
}

fn t005() {
    let (peer, port) = (Peer::echo(), free_port());
    let text = format!("proctitle = foo\n{}", peer.remote());
    let config = section(port, "proctitle = bar", "users max = 60", &text);
    let relay = Launch::new(format!("proctitle = baz\n{config}")).start();
    exactly(relay.pid(), "tcprelay: 0 connections, accepting up to 60 more");
    exactly(relay.workers()[0], "tcprelay: 0 connections");
}
