//! The kinds of balancing, over several workers and relays.

use crate::common::pki::Identity;
use crate::common::sockets::connect_from;
use crate::common::*;
use crate::three;
use nix::sys::signal::Signal;
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use std::io::{Read, Write};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn name(mut stream: impl Read) -> char {
    let mut name = [0];
    stream.read_exact(&mut name).expect("a name");
    name[0].into()
}

/// The servers' names, in the order of the clients.
fn from_all(port: u16) -> String {
    (1..=40).map(|last| name(connect_from(last, port))).collect()
}

fn servers() -> Vec<Peer> {
    NAMES.iter().map(|name| Peer::named(name)).collect()
}

fn remotes(peers: &[Peer]) -> String {
    peers.iter().map(|peer| format!("{}\n", peer.remote())).collect()
}

#[test]
fn a_client_stays_with_its_remote() {
    let mut peers = servers();
    let port = free_port();
    let section = format!("balance = source\nretry delay = 60\n{}", remotes(&peers));
    let relay_here = three(&section).port(port).start().0;
    let first = from_all(port);
    for name in NAMES {
        assert!(first.contains(name), "no client has {name}: {first}");
    }
    // The same in whichever worker, in the workers of the next generation, and in another relay
    // that has the remotes in another order.
    assert_eq!(from_all(port), first);
    relay_here.signal(Signal::SIGHUP);
    relay_here.wait_for_log("new workers", |log| {
        (log.matches("is being used").count() >= 7).then_some(())
    });
    assert_eq!(from_all(port), first);
    peers.reverse();
    let other_port = free_port();
    let other = three(format!("balance = source\n{}", remotes(&peers))).port(other_port).start().0;
    assert_eq!(from_all(other_port), first);
    drop(other);
    // One remote is down: only its clients go elsewhere.
    peers.reverse();
    peers.remove(1).stop();
    for (is, was) in from_all(port).chars().zip(first.chars()) {
        assert!(if was == 'b' { is != 'b' } else { is == was }, "{is} instead of {was}");
    }
}

#[test]
fn a_server_name_has_its_remote() {
    let peers = servers();
    let files = Directory::new();
    let identity = Identity::own(&["localhost"]);
    let port = free_port();
    let section =
        format!("balance = hash\n{}{}", identity.directives(files.path(), "own"), remotes(&peers));
    let _relay = three(&section).port(port).listen("tls = auto").start().0;
    let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("a client");
    builder.set_verify(SslVerifyMode::NONE);
    let client = builder.build();
    let ask = |server: &str| name(client.connect(server, connect(port)).expect("a handshake"));
    let all = || -> String { (0..30).map(|one| ask(&format!("host-{one}.example"))).collect() };
    let first = all();
    for name in NAMES {
        assert!(first.contains(name), "no server name has {name}: {first}");
    }
    assert_eq!(all(), first);
    // Without a name, the address decides.
    let ask = |last| {
        let mut stream = connect_from(last, port);
        stream.write_all(b"not TLS").expect("to send");
        name(stream)
    };
    let all = || -> String { (1..=40).map(ask).collect() };
    let plain = all();
    assert_eq!(all(), plain);
    assert!(plain.chars().any(|name| !plain.starts_with(name)), "{plain}");
}

#[test]
fn turns_go_round_over_all_workers() {
    let peers = servers();
    let port = free_port();
    let section = format!("balance = round-robin\nties = first\n{}", remotes(&peers));
    let _relay = three(&section).port(port).start().0;
    // Sessions stay open on one remote: it gets its turns all the same.
    let mut open = Vec::new();
    let names: String = (0..40)
        .map(|_| {
            let stream = connect(port);
            let name = name(&stream);
            if name == 'a' {
                open.push(stream);
            }
            name
        })
        .collect();
    for name in NAMES {
        assert_eq!(names.matches(name).count(), 10, "{names}");
    }
}
