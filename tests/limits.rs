//! Limits of sessions: how long they last, wait for a first byte, go on half-closed.

mod common;

use common::ways::*;
use common::*;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Waits for the access log line of a session with this ending.
fn wait_for_end(relay: &Relay, ending: &str) {
    let is_it = |line: &&str| line.contains("access: ") && line.contains(ending);
    relay.wait_for_log(ending, |log| log.lines().find(is_it).map(drop));
}

#[test]
fn no_session_outlasts_the_session_timeout() {
    each(|way| {
        let peer = Peer::echo();
        let section = format!("{}session timeout = 1\naccess log = yes\n", peer.remote());
        let (relay, port) = through(way, &section);
        let start = Instant::now();
        let mut client = connect(port);
        // It is never idle.
        while client.write_all(b"x").is_ok() && matches!(client.read(&mut [0]), Ok(1)) {
            assert!(start.elapsed() < PATIENCE);
            pace(Duration::from_millis(20));
        }
        let elapsed = start.elapsed();
        assert!(elapsed >= Duration::from_millis(950), "{elapsed:?}");
        wait_for_end(&relay, " session timeout");
    });
}

#[test]
fn a_remote_that_says_nothing_in_time_ends_the_session() {
    each(|way| {
        let (peer, arrived) = Peer::manual();
        let section = format!("{}first byte timeout = 1\naccess log = yes\n", peer.remote());
        let (relay, port) = through(way, &section);
        let (mut answered, mut remote) = (connect(port), next(&arrived));
        remote.write_all(b"a").expect("to answer");
        answered.read_exact(&mut [0]).expect("the answer");
        let (mut silent, _other) = (connect(port), next(&arrived));
        let start = Instant::now();
        // What the client says does not count.
        while !has_ended(&mut silent) {
            let _ = silent.write_all(b"x");
            assert!(start.elapsed() < PATIENCE);
            pace(Duration::from_millis(50));
        }
        wait_for_end(&relay, " first byte timeout");
        pace(Duration::from_millis(200));
        remote.write_all(b"b").expect("to go on");
        answered.read_exact(&mut [0]).expect("the session goes on");
    });
}

#[test]
fn a_half_closed_session_may_not_be_idle() {
    each(|way| {
        let (peer, arrived) = Peer::manual();
        let section = format!("{}half-closed timeout = 2\naccess log = yes\n", peer.remote());
        let (relay, port) = through(way, &section);
        let (mut whole, mut whole_remote) = (connect(port), next(&arrived));
        let (mut half, mut remote) = (connect(port), next(&arrived));
        half.shutdown(Shutdown::Write).expect("to end");
        assert_eq!(remote.read(&mut [0]).expect("the end"), 0);
        // Bytes of the other side keep it alive.
        for _ in 0..25 {
            remote.write_all(b"x").expect("to send");
            half.read_exact(&mut [0]).expect("to receive");
            pace(Duration::from_millis(100));
        }
        expect_eof(&mut half);
        wait_for_end(&relay, " half-closed timeout");
        whole_remote.write_all(b"x").expect("to send");
        whole.read_exact(&mut [0]).expect("it is not half-closed");
    });
}

#[test]
fn each_direction_keeps_to_its_bandwidth() {
    const SIZE: usize = 300_000;
    each(|way| {
        let (peer, arrived) = Peer::manual();
        let directives = "bandwidth up = 200000\nbandwidth down = 250000\n";
        let (_relay, port) = through(way, &format!("{}{directives}", peer.remote()));
        let (client, remote) = (connect(port), next(&arrived));
        let start = Instant::now();
        // Both ways at once; what is sent last arrives before the end does.
        let run = |mut from: TcpStream, mut to: TcpStream, seed, rate: f64| {
            let sender = thread::spawn(move || {
                from.write_all(&pattern(seed, SIZE)).expect("to send");
                from.shutdown(Shutdown::Write).expect("to end");
                from
            });
            thread::spawn(move || {
                let mut data = Vec::new();
                to.read_to_end(&mut data).expect("all of it");
                assert!(data == pattern(seed, SIZE));
                // A tenth of a second's worth may go at once, and a record more.
                let least = (SIZE as f64 - 0.1 * rate - 33_000.0) / rate;
                let took = start.elapsed().as_secs_f64();
                assert!(took >= least, "{took} s instead of {least} s");
                sender.join().expect("to have sent");
            })
        };
        let copy = |stream: &TcpStream| stream.try_clone().expect("a copy");
        let up = run(copy(&client), copy(&remote), 1, 200_000.0);
        let down = run(remote, client, 2, 250_000.0);
        up.join().expect("the way up");
        down.join().expect("the way down");
    });
}

#[test]
fn a_paused_session_ends_as_others_do() {
    let (peer, arrived) = Peer::manual();
    let section = format!("{}bandwidth down = 1000\naccess log = yes\n", peer.remote());
    let (relay, port) = through("4", &section);
    let (mut client, mut remote) = (connect(port), next(&arrived));
    remote.write_all(&[7; 5000]).expect("to send");
    client.read_exact(&mut [0; 50]).expect("some of it");
    // The way up has no limit.
    client.write_all(&[8; 100_000]).expect("to send");
    remote.read_exact(&mut [0; 100_000]).expect("all of it");
    reset(client);
    wait_for_end(&relay, " broken by client throttled");
    let (mut client, remote) = (connect(port), next(&arrived));
    let mut sender = remote.try_clone().expect("a copy");
    sender.write_all(&[7; 1500]).expect("to send");
    client.read_exact(&mut [0; 50]).expect("some of it");
    drop((sender, remote));
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("the rest and the end");
    assert_eq!(rest.len(), 1450);
}

/// Clients that send a byte of their handshake now and then.
#[test]
fn handshakes_that_are_never_finished_are_limited() {
    let files = Directory::new();
    let directives = pki::Identity::own(&["localhost"]).directives(files.path(), "relay");
    let (port, peer) = (free_port(), Peer::echo());
    let relay = Launch::new(format!(
        "id = spawnd {{\n listen = {{ address = 127.0.0.1 port = {port} tls = yes }}\n \
         spawn {{ instances min = 1 instances max = 1 users max = 500 }}\n}}\n\
         id = tcprelay {{\n{}{directives}\ntls handshake timeout = 1\naccess log = yes\n}}\n",
        peer.remote()
    ))
    .start();
    // A record with a ClientHello of 512 bytes, none of which is the last.
    let hello = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7];
    let mut clients: Vec<_> = (0..100).map(|_| connect(port)).collect();
    let start = Instant::now();
    for byte in hello.iter().cycle() {
        clients.retain_mut(|client| client.write_all(&[*byte]).is_ok() && !has_ended(client));
        if clients.is_empty() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{} are left", clients.len());
        pace(Duration::from_millis(50));
    }
    relay.wait_for_log("all of them", |log| {
        let ended = |line: &&str| line.contains("access: ") && line.contains("handshake");
        (log.lines().filter(ended).count() >= 100).then_some(())
    });
}
