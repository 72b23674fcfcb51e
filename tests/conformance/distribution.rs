//! Which worker gets a connection, and who may connect.

use crate::common::{connect, free_port, kill, ping, wait_for, Peer, Relay, PATIENCE};
use crate::runner::Entry;
use crate::support::{
    at_once, client, connect_from, count, eventually_served, expect_title, has_been_closed, loads,
    section, stays_silent, wait_loads, worker_section, Launch,
};
use nix::sys::signal::Signal;
use std::net::TcpStream;
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Entry] = &[
    ("D001", d001),
    ("D002", d002),
    ("D003", d003),
    ("D004", d004),
    ("D005", d005),
    ("D006", d006),
    ("D007", d007),
    ("D008", d008),
    ("D009", d009),
    ("D010", d010),
    ("D011", d011),
    ("D012", d012),
    ("D013", d013),
    ("D014", d014),
    ("D015", d015),
    ("D016", d016),
];

/// A relay to an echo, with these directives.
fn echoed(broker: &str, spawn: &str) -> (Peer, u16, Relay) {
    let (peer, port) = (Peer::echo(), free_port());
    let config = section(port, broker, spawn, &peer.remote());
    let ready = spawn.split("instances min = ").nth(1).and_then(|rest| rest.split(' ').next());
    let ready = ready.map_or(1, |word| word.parse().expect("a number"));
    let relay = Launch::new(config).ready(ready).start();
    wait_loads(&relay, 0);
    (peer, port, relay)
}

/// Opens a connection with `open`; returns it, and which worker got it, counted from one.
fn placed(relay: &Relay, open: impl FnOnce() -> TcpStream) -> (TcpStream, usize) {
    let before = loads(relay);
    let mut stream = open();
    ping(&mut stream, b"hello");
    let after = wait_loads(relay, before.iter().sum::<usize>() + 1);
    let grown = |index: &usize| after[*index] > before.get(*index).copied().unwrap_or(0);
    let worker = (0..after.len()).find(grown).expect("a worker with one more");
    (stream, worker + 1)
}

/// Ends a connection, and waits until broker and workers have counted its end.
fn end(relay: &Relay, stream: TcpStream) {
    let total: usize = loads(relay).iter().sum();
    drop(stream);
    wait_loads(relay, total - 1);
    let word = if total == 2 { "connection" } else { "connections" };
    expect_title(relay.pid(), &format!(": {} {word},", total - 1));
}

const THREE: &str = "instances max = 3 instances min = 1 users min = 2 users max = 3";

fn nine() -> (Peer, u16, Relay, Vec<TcpStream>, Vec<usize>) {
    let (peer, port, relay) = echoed("", THREE);
    let placed = (0..9).map(|_| placed(&relay, || connect(port)));
    let (streams, workers) = placed.unzip();
    (peer, port, relay, streams, workers)
}

fn d001() {
    // Connections wait a second for a worker that starts. If that takes longer, on a slow machine,
    // they go elsewhere, and it is done again.
    wait_for("workers that start within a second", || {
        let begin = Instant::now();
        let (_peer, _port, _relay, _streams, workers) = nine();
        let slow = begin.elapsed() >= Duration::from_secs(1);
        let expected = workers == [1, 1, 2, 2, 3, 3, 1, 2, 3];
        assert!(expected || slow, "{workers:?}");
        expected.then_some(())
    });
}

fn d002() {
    let (_peer, port, relay, mut streams, _) = nine();
    relay.expect_log("limit of 9 concurrent users reached, queueing new connections");
    let mut tenth = connect(port);
    std::io::Write::write_all(&mut tenth, b"x").expect("to send");
    assert!(stays_silent(&mut tenth, Duration::from_millis(300)));
    drop(streams.remove(4));
    let mut answer = [0];
    std::io::Read::read_exact(&mut tenth, &mut answer).expect("an answer");
}

fn d003() {
    let (_peer, port, relay) = echoed("", "instances max = 4 instances min = 4 users min = 2");
    let placed = (0..4).map(|_| placed(&relay, || connect(port)));
    let (_streams, mut workers): (Vec<TcpStream>, Vec<usize>) = placed.unzip();
    workers.sort_unstable();
    assert_eq!(workers, [1, 2, 3, 4]);
}

fn d004() {
    let (_peer, _port, relay, streams, _) = nine();
    assert_eq!(relay.workers().len(), 3);
    drop(streams);
    let begin = Instant::now();
    wait_for("one worker", || (relay.workers().len() == 1).then_some(()));
    assert!(begin.elapsed() <= Duration::from_secs(8), "{:?}", begin.elapsed());
}

fn d005() {
    let (_peer, port, relay) = echoed("", "");
    let worker = relay.workers()[0];
    kill(worker, Signal::SIGKILL);
    let begin = Instant::now();
    relay.expect_log(&format!("child (pid {worker}) terminated abnormally (signal 9)"));
    at_once(begin);
    client(port);
    assert_ne!(relay.workers(), [worker]);
}

fn d006() {
    let (_peer, port, relay) = echoed("", "users max = 60");
    let mut streams = [client(port), client(port)];
    wait_loads(&relay, 2);
    kill(relay.workers()[0], Signal::SIGKILL);
    for stream in &mut streams {
        assert!(has_been_closed(stream));
    }
    expect_title(relay.pid(), "0 connections, accepting up to 60 more");
    eventually_served(port);
}

const SPREAD: &str = "instances max = 3 instances min = 3 users min = 10 users max = 20";

/// Which workers get six connections from one source that stay open.
fn six(broker: &str) -> Vec<usize> {
    let (_peer, port, relay) = echoed(broker, SPREAD);
    let placed = (0..6).map(|_| placed(&relay, || connect(port)));
    let (_streams, workers): (Vec<TcpStream>, Vec<usize>) = placed.unzip();
    workers
}

fn d007() {
    assert_eq!(six("sticky cache period = 60"), [1; 6]);
    // Without stickiness they go round.
    assert_eq!(six(""), [1, 2, 3, 1, 2, 3]);
}

fn d008() {
    let (_peer, port, relay) = echoed("sticky cache period = 60", SPREAD);
    let mut streams = Vec::new();
    let mut workers = Vec::new();
    for round in 0..6 {
        let (stream, worker) = placed(&relay, || connect_from(2 + round % 2, port));
        streams.push(stream);
        workers.push(worker);
    }
    assert_eq!(workers, [1, 2, 1, 2, 1, 2]);
}

fn d009() {
    let spawn = "instances max = 2 instances min = 2 users min = 2 users max = 2";
    let (_peer, port, relay) = echoed("sticky cache period = 60", spawn);
    let open = || placed(&relay, || connect_from(2, port));
    let (first, one) = open();
    let (_second, two) = open();
    let (third, three) = open();
    assert_eq!((one, two, three), (1, 1, 2));
    // The first worker has room again, but the second is the one remembered.
    end(&relay, first);
    let (_fourth, four) = open();
    assert_eq!(four, 2);
    drop(third);
}

fn d010() {
    let (_peer, port, relay) = echoed("sticky cache period = 4", SPREAD);
    let (_first, one) = placed(&relay, || connect(port));
    let (_second, two) = placed(&relay, || connect(port));
    assert_eq!((one, two), (1, 1));
    // Outlasts the tracking period.
    crate::common::outlast(Duration::from_millis(4200));
    let (_third, three) = placed(&relay, || connect(port));
    assert_eq!(three, 2);
}

fn d011() {
    let (peer, port) = (Peer::echo(), free_port());
    let config = format!(
        "id = spawnd {{ listen = {{ address = 127.0.0.1 port = {port} sticky cache period = 60 \
         }}\nspawn = {{ {SPREAD} }} }}\n{}",
        worker_section(&peer.remote())
    );
    let relay = Launch::new(config).ready(3).start();
    wait_loads(&relay, 0);
    let placed = (0..6).map(|_| placed(&relay, || connect(port)));
    let (_streams, workers): (Vec<TcpStream>, Vec<usize>) = placed.unzip();
    assert_eq!(workers, [1; 6]);
}

fn d012() {
    let (peer, port) = (Peer::echo(), free_port());
    let spawn = "instances max = 2 instances min = 2 users min = 10 users max = 15";
    let config = section(port, "", spawn, &peer.remote());
    let relay = Launch::new(config).descriptors(34, 34).ready(2).start();
    relay.expect_log("child limits maximum number of users to 12");
    let mut streams: Vec<TcpStream> = (0..24).map(|_| client(port)).collect();
    relay.expect_log("limit of 24 concurrent users reached, queueing new connections");
    let mut waiting = connect(port);
    std::io::Write::write_all(&mut waiting, b"x").expect("to send");
    assert!(stays_silent(&mut waiting, Duration::from_millis(300)));
    for stream in &mut streams {
        ping(stream, b"still");
    }
    drop(streams.pop());
    std::io::Read::read_exact(&mut waiting, &mut [0]).expect("an answer");
    assert_eq!(count(&relay, "BUG"), 0);
}

/// A dual-stack listener with an access list.
fn guarded(acl: &str) -> (Peer, u16, Relay) {
    let (peer, port) = (Peer::echo(), free_port());
    let config = format!(
        "id = spawnd {{ {acl}\nlisten = {{ port = {port} }}\n\
         spawn = {{ instances min = 1 instances max = 1 }} }}\n{}",
        worker_section(&peer.remote())
    );
    let relay = Launch::new(config).start();
    (peer, port, relay)
}

fn permitted(host: u8, port: u16) {
    let mut stream = connect_from(host, port);
    ping(&mut stream, b"hello");
}

fn denied(host: u8, port: u16, relay: &Relay) {
    let mut stream = connect_from(host, port);
    assert!(has_been_closed(&mut stream));
    relay.expect_log(&format!("connection attempt from [127.0.0.{host}] rejected: "));
}

fn d013() {
    let (_peer, port, relay) = guarded("permit 127.0.0.0/8");
    let mut stream = TcpStream::connect(("::1", port)).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    assert!(has_been_closed(&mut stream));
    relay.expect_log("connection attempt from [::1] rejected: ");
    permitted(1, port);
}

fn d014() {
    let (_peer, port, relay) = guarded("deny 127.0.0.2 permit 127.0.0.0/8");
    denied(2, port, &relay);
    permitted(3, port);
    let (_peer, port, _relay) = guarded("permit 127.0.0.0/8 deny 127.0.0.2");
    permitted(2, port);
}

fn d015() {
    let (_peer, port, _relay) = guarded("permit not 10.0.0.0/8");
    permitted(1, port);
    // The other way round: a network that contains some of the test's addresses.
    let (_peer, port, relay) = guarded("permit not 127.0.0.8/30");
    permitted(1, port);
    denied(10, port, &relay);
}

fn d016() {
    let (_peer, port, relay) = guarded("permit 127.0.0.1/32");
    permitted(1, port);
    denied(2, port, &relay);
}
