//! Which remote a session gets, and what happens when one is down.

use crate::common::{connect, free_port, ping, relay, remote, wait_for, Peer};
use crate::relay::with_mechanism;
use crate::runner::Entry;
use crate::support::{ask, count, has_been_closed, stays_idle, wait_loads};
use std::net::TcpStream;

pub(crate) const CASES: &[Entry] = &[
    ("E011", e011),
    ("E012", e012),
    ("E013", || first_peer_down("")),
    ("E014", e014),
    ("E015", e015),
    ("E016", e016),
    ("E017", e017),
    ("E018", e018),
    ("E019", e019),
    ("E020", e020),
    ("E021", e021),
    ("E039", e039),
];

/// All remotes are down at first, then up.
fn down_then_up(more: &str) {
    let (first, second) = (free_port(), free_port());
    let (_relay, port) = relay(format!("{}{}{more}", remote(first), remote(second))).start();
    for _ in 0..3 {
        assert!(has_been_closed(&mut connect(port)));
    }
    let _a = Peer::named_on(first, "A");
    let _b = Peer::named_on(second, "B");
    // At once.
    assert_eq!(ask(port).1, "A");
}

fn e011() {
    down_then_up("");
}

fn e012() {
    down_then_up("rebalance = 3\n");
}

/// E013 and E039: the second remote serves everything.
pub(crate) fn first_peer_down(mechanism: &str) {
    let (down, peer) = (free_port(), Peer::named("B"));
    let text = format!("{}{}", remote(down), peer.remote());
    let (port, _relay) = with_mechanism(mechanism, &text);
    let mut streams: Vec<TcpStream> = Vec::new();
    for _ in 0..5 {
        let (mut stream, name) = ask(port);
        assert_eq!(name, "B");
        ping(&mut stream, b"hello");
        streams.push(stream);
    }
    for stream in &mut streams {
        ping(stream, b"again");
    }
}

fn e014() {
    let (down, peer) = (free_port(), Peer::named("B"));
    let (_relay, port) = relay(format!("{}{}", remote(down), peer.remote())).start();
    assert_eq!(ask(port).1, "B");
    let _back = Peer::named_on(down, "A");
    wait_for("the first peer to be used again", || (ask(port).1 == "A").then_some(()));
}

/// Two concurrent clients while the second remote is unusable: no CPU time used, no flood of log
/// lines.
fn second_unusable(second: &str, text: &str) {
    let peer = Peer::named("A");
    let (relay, port) = relay(format!("{}{second}", peer.remote())).start();
    let mut streams: Vec<TcpStream> = (0..2)
        .map(|_| {
            let (stream, name) = ask(port);
            assert_eq!(name, "A");
            stream
        })
        .collect();
    let worker = relay.workers()[0];
    stays_idle(worker);
    for stream in &mut streams {
        ping(stream, b"hello");
    }
    assert!(count(&relay, text) <= 1, "{}", relay.log());
}

fn e015() {
    let down = free_port();
    second_unusable(&remote(down), &format!(":{down}"));
}

fn e016() {
    let second = "remote = { address = 127.255.255.255 port = 9 }\n";
    second_unusable(second, "127.255.255.255");
}

/// Servers A, B and so on with these weights.
fn weighted(weights: &[u32]) -> (Vec<Peer>, String) {
    let names = ["A", "B", "C"];
    let peers: Vec<Peer> = names.iter().take(weights.len()).map(|name| Peer::named(name)).collect();
    let block = |(peer, weight): (&Peer, &u32)| {
        let port = peer.port;
        format!("remote = {{ address = 127.0.0.1 port = {port} weight = {weight} }}\n")
    };
    let text = peers.iter().zip(weights).map(block).collect();
    (peers, text)
}

/// The servers that this many lasting connections reach, in order.
fn order(text: &str, connections: usize) -> String {
    let (_relay, port) = relay(text).start();
    let asked: Vec<(TcpStream, String)> = (0..connections).map(|_| ask(port)).collect();
    asked.into_iter().map(|(_, name)| name).collect()
}

fn e017() {
    let (_peers, text) = weighted(&[1, 2, 3]);
    assert_eq!(order(&text, 12), "ABCCBCABCCBC");
}

fn e018() {
    let (_peers, text) = weighted(&[1, 1]);
    let (relay, port) = relay(format!("{text}ties = first\n")).start();
    for _ in 0..5 {
        assert_eq!(ask(port).1, "A");
        wait_loads(&relay, 0);
    }
}

fn e019() {
    let (first, peer) = (free_port(), Peer::named("B"));
    // A listener cannot both refuse and count connects, so A is down until it is expected to be
    // chosen.
    let text = format!("{}{}rebalance = 4\nretry delay = 0\n", remote(first), peer.remote());
    let (_relay, port) = relay(&text).start();
    let mut streams = Vec::new();
    let mut used = |expected: &str| {
        let (stream, name) = ask(port);
        assert_eq!(name, expected, "connection {}", streams.len() + 1);
        streams.push(stream);
    };
    // Connection 1 is selection 1 (A, refused) and 2; connections 2 and 3 are selections 3 and 4.
    used("B");
    used("B");
    used("B");
    // Selection 5 lifts the mark: A is tried again, refused, and selection 6 is B.
    used("B");
    // Selection 7.
    used("B");
    let _back = Peer::named_on(first, "A");
    // Selection 8 does not consider A; the next one lifts the mark.
    used("B");
    used("A");
    used("A");
}

fn e020() {
    let down = free_port();
    let (_relay, port) = relay(format!("{}rebalance = -1\n", remote(down))).start();
    assert!(has_been_closed(&mut connect(port)));
    let _back = Peer::named_on(down, "A");
    assert_eq!(ask(port).1, "A");
}

fn e021() {
    // A remote of weight 1000 gets four connections before its priority rises above zero.
    let (_peers, text) = weighted(&[1000, 1]);
    assert_eq!(order(&text, 6), "AAAABA");
}

fn e039() {
    first_peer_down("16");
}
