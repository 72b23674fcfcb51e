//! Remotes with a limit of sessions, and clients that wait for one.

mod common;

use common::sockets::connect_from;
use common::*;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A relay with this many workers; `remotes` is the text of its `remote` blocks.
fn service(port: u16, workers: usize, remotes: &str) -> Relay {
    let section = format!("{remotes} access log = yes");
    relay(section).port(port).workers(workers).spawn("users min = 1 users max = 500").start().0
}

fn limited(port: u16, directives: &str) -> String {
    format!("remote = {{ address = 127.0.0.1 port = {port} {directives} }}\n")
}

/// Sends now; the answer comes when the client is served.
fn ask(mut client: TcpStream) -> TcpStream {
    client.write_all(b"ping").expect("to send");
    client
}

fn is_answered(client: &TcpStream) -> bool {
    let mut client = client.try_clone().expect("a copy");
    client.set_nonblocking(true).expect("not to block");
    let answered = client.read(&mut [0; 4]).is_ok_and(|count| count > 0);
    client.set_nonblocking(false).expect("to block");
    answered
}

#[test]
fn a_remote_has_no_more_sessions_than_it_may() {
    let (port, peer) = (free_port(), Peer::echo());
    let relay = service(port, 2, &limited(peer.port, "sessions max = 2"));
    let mut both = [connect(port), connect(port)];
    assert!(both.iter_mut().all(is_served));
    assert!(!is_served(&mut connect(port)));
    relay.expect_log(" remotes are full");
    relay.expect_log("remotes have as many sessions as they may, and no place in a queue is left");
    drop(both);
    wait_for("room", || is_served(&mut connect(port)).then_some(()));
}

#[test]
fn others_serve_while_one_is_full() {
    let (port, small, large) = (free_port(), Peer::named("small"), Peer::named("large"));
    let remotes = limited(small.port, "sessions max = 1 weight = 100") + &large.remote();
    let _relay = service(port, 1, &remotes);
    let mut clients: Vec<TcpStream> = (0..6).map(|_| connect(port)).collect();
    let names = clients.iter_mut().map(|client| {
        let mut name = [0; 5];
        client.read_exact(&mut name).expect("its name");
        name
    });
    assert_eq!(names.filter(|name| name == b"small").count(), 1);
}

#[test]
fn sessions_wait_and_are_served_in_turn_whatever_worker_has_them() {
    for workers in [1, 2] {
        let (port, peer) = (free_port(), Peer::echo());
        let directives = "sessions max = 1 queue = 20 queue timeout = 60";
        let _relay = service(port, workers, &limited(peer.port, directives));
        let mut first = connect(port);
        assert!(is_served(&mut first));
        let mut waiting: Vec<TcpStream> = (0..6).map(|_| ask(connect(port))).collect();
        nothing_happens_for(Duration::from_millis(200));
        assert!(!waiting.iter().any(is_answered));
        drop(first);
        while !waiting.is_empty() {
            // One at a time.
            let at = wait_for("the next", || waiting.iter().position(is_answered));
            nothing_happens_for(Duration::from_millis(120));
            let served = waiting.swap_remove(at);
            assert!(!waiting.iter().any(is_answered));
            drop(served);
        }
    }
}

#[test]
fn a_client_with_many_sessions_does_not_delay_another() {
    let (port, peer) = (free_port(), Peer::echo());
    let directives = "sessions max = 1 queue = 20 queue timeout = 60";
    let _relay = service(port, 1, &limited(peer.port, directives));
    let mut first = connect_from(2, port);
    assert!(is_served(&mut first));
    let mut crowd: Vec<TcpStream> = (0..8).map(|_| ask(connect_from(2, port))).collect();
    nothing_happens_for(Duration::from_millis(100));
    let other = ask(connect_from(3, port));
    nothing_happens_for(Duration::from_millis(100));
    drop(first);
    let mut before = 0;
    wait_for("the other client", || {
        if let Some(at) = crowd.iter().position(is_answered) {
            before += 1;
            drop(crowd.swap_remove(at));
        }
        is_answered(&other).then_some(())
    });
    assert!(before <= 2, "{before}");
}

#[test]
fn a_queue_is_bounded_and_nobody_waits_longer_than_allowed() {
    let (port, peer) = (free_port(), Peer::echo());
    let directives = "sessions max = 1 queue = 2 queue timeout = 3";
    let relay = service(port, 1, &limited(peer.port, directives));
    let mut first = connect(port);
    assert!(is_served(&mut first));
    let start = Instant::now();
    let mut waiting = [ask(connect(port)), ask(connect(port))];
    nothing_happens_for(Duration::from_millis(100));
    assert!(!is_served(&mut connect(port)), "the queue is full");
    relay.expect_log(" remotes are full");
    waiting.iter_mut().for_each(|client| assert!(!matches!(client.read(&mut [0]), Ok(1..))));
    assert!(start.elapsed() >= Duration::from_millis(2950));
    relay.expect_log(" queue timeout");
    // Those that have given up leave no trace.
    let mut next = ask(connect(port));
    drop(first);
    next.read_exact(&mut [0; 4]).expect("the answer");
}

#[test]
fn a_queue_needs_a_limit() {
    let directory = Directory::new();
    let config = format!(
        "id = spawnd {{ listen = {{ port = 0 }} }}\nid = tcprelay {{ {} }}\n",
        limited(1, "queue = 5")
    );
    let config = directory.write("cfg", config);
    let output = ours(TCPRELAY).arg("-P").arg(config).output().expect("to run");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains(":2: remote: queue needs sessions max"), "{told}");
}
