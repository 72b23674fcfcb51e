//! What happens at the connection limit, and after it.

use crate::common::{
    connect, expect_eof, free_port, kill, ping, title, wait_for, Peer, Relay, PATIENCE,
};
use crate::runner::Entry;
use crate::support::{
    backlog_of, client, count, eventually_served, expect_title, listeners, section, stays_silent,
    worker_section, Launch,
};
use nix::sys::signal::Signal;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub(crate) const CASES: &[Entry] = &[
    ("O001", o001),
    ("O002", o002),
    ("O003", o003),
    ("O004", o004),
    ("O005", o005),
    ("O006", o006),
    ("O007", o007),
];

/// A relay that takes two connections, with two connections open.
fn full(mode: &str) -> (Peer, u16, Relay, Vec<TcpStream>) {
    let (peer, port) = (Peer::echo(), free_port());
    let config = section(port, &format!("overload = {mode}"), "users max = 2", &peer.remote());
    let relay = Launch::new(config).start();
    let streams = vec![client(port), client(port)];
    relay.expect_log("limit of 2 concurrent users reached, ");
    (peer, port, relay, streams)
}

fn o001() {
    let (_peer, port, relay, mut streams) = full("queue");
    relay.expect_log("limit of 2 concurrent users reached, queueing new connections");
    let mut third = connect(port);
    third.write_all(b"third").expect("to send");
    assert!(stays_silent(&mut third, Duration::from_millis(300)));
    drop(streams.pop());
    let mut answer = [0; 5];
    third.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"third");
    relay.expect_log("resuming normal operation");
    // The third connection reached the limit again.
    wait_for("the second pair of lines", || {
        (count(&relay, "limit of 2 concurrent users reached") == 2).then_some(())
    });
}

fn o002() {
    let (_peer, port, relay, mut streams) = full("close");
    relay.expect_log("limit of 2 concurrent users reached, immediately closing new connections");
    expect_title(relay.pid(), "2 connections, immediately closing new ones");
    for _ in 0..3 {
        expect_eof(&mut connect(port));
    }
    ping(&mut streams[0], b"still");
    drop(streams.pop());
    eventually_served(port);
}

fn refused(port: u16) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    match TcpStream::connect_timeout(&address, PATIENCE) {
        Err(error) => error.kind() == ErrorKind::ConnectionRefused,
        Ok(_) => false,
    }
}

fn o003() {
    let (_peer, port, relay, mut streams) = full("reset");
    relay.expect_log("limit of 2 concurrent users reached, resetting new connections");
    // It says so before it does it.
    wait_for("a refusal", || refused(port).then_some(()));
    assert!(listeners(relay.pid()).is_empty());
    expect_title(relay.pid(), "2 connections, resetting new ones");
    drop(streams.pop());
    eventually_served(port);
    assert!(count(&relay, "succeeded") >= 2, "{}", relay.log());
}

fn o004() {
    for mode in ["queue", "close"] {
        let (peer, port) = (Peer::echo(), free_port());
        let config = format!(
            "id = spawnd {{ overload = {mode} listen = {{ address = 127.0.0.1 port = {port} \
             backlog = 4 overload backlog = 1 }}\n\
             spawn = {{ instances min = 1 instances max = 1 users max = 2 }} }}\n{}",
            worker_section(&peer.remote())
        );
        let relay = Launch::new(config).start();
        assert_eq!(backlog_of(relay.pid()), Some(4));
        let mut streams = vec![client(port), client(port)];
        wait_for("the small backlog", || (backlog_of(relay.pid()) == Some(1)).then_some(()));
        drop(streams.pop());
        wait_for("the old backlog", || (backlog_of(relay.pid()) == Some(4)).then_some(()));
    }
}

fn o005() {
    for mode in ["queue", "close", "reset"] {
        let (_peer, port, relay, _streams) = full(mode);
        kill(relay.workers()[0], Signal::SIGKILL);
        eventually_served(port);
        relay.expect_log("resuming normal operation");
    }
}

fn o006() {
    for mode in ["queue", "close", "reset"] {
        let (peer, port) = (Peer::echo(), free_port());
        let config = section(port, &format!("overload = {mode}"), "", &peer.remote());
        let launch = Launch::new(config).arguments(&["-1", "@CFG@"]).descriptors(30, 30);
        let relay = launch.start();
        let streams: Vec<TcpStream> = (0..10).map(|_| client(port)).collect();
        relay.expect_log("limit of 10 concurrent users reached, ");
        drop(streams);
        eventually_served(port);
        relay.expect_log("resuming normal operation");
        expect_title(relay.pid(), "0 connections, accepting up to 10 more");
    }
}

fn o007() {
    let (_peer, _port, relay, _streams) = full("queue");
    expect_title(relay.pid(), "2 connections, queueing new ones");
    assert!(title(relay.pid()).starts_with("tcprelay: "));
}
