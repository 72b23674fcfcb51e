//! The timeouts of sessions and connect attempts.

use crate::common::{
    connect, descriptors, free_port, has_ended, next, pattern, relay, remote, reset, wait_for,
    Peer, PATIENCE,
};
use crate::relay::{all_freed, read_clean, with_mechanism};
use crate::runner::Entry;
use crate::support::{
    at_once, has_been_closed, load, serving_worker, wait_loads, BlackHole, Launch, HESITATION,
};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Entry] = &[
    ("E022", e022),
    ("E023", e023),
    ("E024", e024),
    ("E025", || silence("")),
    ("E026", e026),
    ("E027", e027),
    ("E028", e028),
];

/// How long after `begin` the client's connection ends.
fn ends_after(client: &mut TcpStream, begin: Instant) -> Duration {
    assert!(has_been_closed(client));
    begin.elapsed()
}

/// Requires that a timeout of two seconds has ended something: not before, and not much later.
pub(crate) fn after_two_seconds(elapsed: Duration) {
    let bounds = Duration::from_millis(1800)..Duration::from_secs(2) + HESITATION;
    assert!(bounds.contains(&elapsed), "{elapsed:?}");
}

fn e022() {
    let hole = BlackHole::new();
    let (relay, port) = relay(format!("{}idle timeout = 2\n", remote(hole.port))).start();
    let worker = serving_worker(&relay);
    let before = descriptors(worker);
    let begin = Instant::now();
    let mut client = connect(port);
    after_two_seconds(ends_after(&mut client, begin));
    wait_for("the peer's socket to be closed", || (descriptors(worker) == before).then_some(()));
    all_freed(&relay);
}

fn e023() {
    let hole = BlackHole::new();
    let (relay, port) = relay(format!("{}connect timeout = 2\n", remote(hole.port))).start();
    let worker = serving_worker(&relay);
    let before = descriptors(worker);
    drop(connect(port));
    wait_for("the descriptors to be closed", || (descriptors(worker) == before).then_some(()));
    all_freed(&relay);
    // The same when the connection is established after all.
    let (peer, streams) = Peer::manual();
    let hole = BlackHole::new();
    let text = format!("connect timeout = 60\n{}{}", remote(hole.port), peer.remote());
    let (relay, port) = crate::common::relay(&text).start();
    let worker = relay.workers()[0];
    let mut client = connect(port);
    client.write_all(b"last words").expect("to send");
    wait_loads(&relay, 1);
    drop(client);
    drop(hole);
    let mut end = next(&streams);
    assert_eq!(read_clean(&mut end), b"last words");
    drop(end);
    wait_for("the descriptors to be closed", || (load(worker)? == 0).then_some(()));
    all_freed(&relay);
}

fn e024() {
    let hole = BlackHole::new();
    let (relay, port) = relay(format!("{}connect timeout = 60\n", remote(hole.port))).start();
    let client = connect(port);
    wait_loads(&relay, 1);
    let begin = Instant::now();
    reset(client);
    all_freed(&relay);
    at_once(begin);
}

/// E025: silence for two seconds.
pub(crate) fn silence(mechanism: &str) {
    let (peer, streams) = Peer::manual();
    let text = format!("{}idle timeout = 2\n", peer.remote());
    let (port, _relay) = with_mechanism(mechanism, &text);
    let begin = Instant::now();
    let mut client = connect(port);
    let mut end = next(&streams);
    after_two_seconds(ends_after(&mut client, begin));
    assert!(has_been_closed(&mut end));
}

fn e026() {
    let (peer, streams) = Peer::manual();
    let (_relay, port) = relay(format!("{}idle timeout = 5\n", peer.remote())).start();
    let mut client = connect(port);
    let mut end = next(&streams);
    for _ in 0..15 {
        end.write_all(b"x").expect("to send");
        client.read_exact(&mut [0]).expect("to receive");
        crate::common::pace(Duration::from_millis(400));
    }
    assert!(!has_ended(&mut client));
    let begin = Instant::now();
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    assert!(ends_after(&mut client, begin) < Duration::from_secs(5) + HESITATION);
}

fn e027() {
    let (peer, streams) = Peer::manual();
    let (relay, port) = relay(format!("{}idle timeout = 2\n", peer.remote())).start();
    let mut client = connect(port);
    let _end = next(&streams);
    client.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let block = pattern(11, 65536);
    let begin = Instant::now();
    let (mut last, mut stalled) = (begin, false);
    loop {
        match client.write(&block) {
            Ok(_) => last = Instant::now(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                stalled = true;
                assert!(last.elapsed() < PATIENCE, "the connection stays open");
            }
            Err(_) => break,
        }
    }
    // The system may still accept some of the client's data when the relay cannot move any; the
    // reverse must not happen.
    assert!(stalled);
    assert!(begin.elapsed() > Duration::from_millis(1800), "{:?}", begin.elapsed());
    assert!(last.elapsed() < Duration::from_secs(2) + HESITATION, "{:?}", last.elapsed());
    all_freed(&relay);
}

fn e028() {
    let peer = Peer::echo();
    let port = free_port();
    let text = format!("{}idle timeout = -1\n", peer.remote());
    let mut relay = Launch::simple(port, &text).ready(None).start();
    let refused = wait_for("a service or an end", || {
        let served = relay.log().matches("is being used").count() > 1;
        let gone = crate::common::is_gone(relay.pid());
        (served || gone).then_some(gone)
    });
    if refused {
        assert_eq!(relay.wait().code(), Some(78));
        relay.expect_log("-1");
    } else {
        assert!(has_been_closed(&mut connect(port)));
    }
}
