//! Limits of clients: how many sessions one address may have, and how often it may connect.

mod common;

use common::namespace::{enter, must};
use common::sockets::{connect_from, connect_to, try_connect_from};
use common::*;
use nix::sys::signal::Signal;
use std::io::Write;
use std::net::TcpStream;

/// A relay in front of an echo, with these directives in the broker's section and in `listen`.
fn service(peer: &Peer, port: u16, broker: &str, listen: &str, spawn: &str) -> Launch {
    let layout = relay(format!("{} access log = yes", peer.remote())).port(port).workers(2);
    layout.broker(broker).listen(listen).spawn(spawn).launch().0
}

/// Connects until a session of this address is served.
fn wait_until_served(last: u8, port: u16) -> TcpStream {
    wait_for("a place", || {
        let mut client = connect_from(last, port);
        is_served(&mut client).then_some(client)
    })
}

/// A client with two sessions, which is all that it may have.
fn two_sessions(port: u16) -> [TcpStream; 2] {
    let mut both = [(); 2].map(|()| connect_from(2, port));
    assert!(both.iter_mut().all(is_served));
    assert!(!is_served(&mut connect_from(2, port)));
    both
}

const TWO: &str = "client sessions max = 2";

#[test]
fn a_client_has_no_more_sessions_than_it_may() {
    let (port, peer) = (free_port(), Peer::echo());
    let relay = service(&peer, port, TWO, "", "").ready(2).start();
    let both = two_sessions(port);
    relay
        .expect_log("connection attempt from [127.0.0.2] rejected: beyond its client sessions max");
    assert!(is_served(&mut connect_from(3, port)), "others may connect");
    drop(both);
    let again = [(); 2].map(|()| wait_until_served(2, port));
    assert!(!is_served(&mut connect_from(2, port)));
    drop(again);
}

#[test]
fn sessions_of_the_relay_in_this_process_are_counted() {
    let (port, peer) = (free_port(), Peer::echo());
    let single = format!("{TWO}\nsingle process = yes");
    let _relay = service(&peer, port, &single, "", "").ready(None).start();
    let both = wait_for("the listener", || TcpStream::connect(("127.0.0.1", port)).ok())
        .set_nodelay(true)
        .map(|()| two_sessions(port))
        .expect("to set an option");
    drop(both);
    wait_until_served(2, port);
}

#[test]
fn a_worker_that_dies_gives_its_sessions_back() {
    let (port, peer) = (free_port(), Peer::echo());
    let relay = service(&peer, port, TWO, "", "").ready(2).start();
    let mut both = two_sessions(port);
    relay.workers().into_iter().for_each(|pid| kill(pid, Signal::SIGKILL));
    both.iter_mut().for_each(|client| wait_for("the end", || has_ended(client).then_some(())));
    let _again = [(); 2].map(|()| wait_until_served(2, port));
    assert!(!is_served(&mut connect_from(2, port)));
}

#[test]
fn sessions_count_after_a_reload_until_they_end() {
    let (port, peer) = (free_port(), Peer::echo());
    let relay = service(&peer, port, TWO, "", "").ready(2).start();
    let mut both = two_sessions(port);
    for (signal, times) in [(Signal::SIGHUP, 2), (Signal::SIGUSR1, 2)] {
        for _ in 0..times {
            let before = relay.workers();
            relay.signal(signal);
            wait_for("new workers", || {
                let new = relay.workers().into_iter().filter(|pid| !before.contains(pid));
                (new.count() >= 2).then_some(())
            });
            assert!(is_served(&mut wait_until_served(3, port)));
            assert!(!is_served(&mut connect_from(2, port)), "the sessions go on");
        }
    }
    assert!(both.iter_mut().all(is_served));
    let [one, mut other] = both;
    drop(one);
    let _third = wait_until_served(2, port);
    assert!(!is_served(&mut connect_from(2, port)));
    assert!(is_served(&mut other));
}

#[test]
fn a_client_connects_no_more_often_than_it_may() {
    let (port, peer) = (free_port(), Peer::echo());
    let rate = "client rate = 3/3600\nclient refuse = reset\nclient exempt = 127.0.0.4,\
                127.0.0.8/31";
    let relay = service(&peer, port, rate, "", "").ready(2).start();
    assert!((0..3).all(|_| is_served(&mut connect_from(2, port))));
    expect_reset_at_once(try_connect_from(2, port));
    assert!((0..3).all(|_| is_served(&mut connect_from(3, port))));
    assert!((0..9).all(|_| is_served(&mut connect_from(4, port))));
    assert!((0..9).all(|_| is_served(&mut connect_from(9, port))));
    relay.expect_log("connection attempt from [127.0.0.2] rejected: beyond its client rate");
    // The log is not filled.
    (0..200).for_each(|_| expect_reset_at_once(try_connect_from(2, port)));
    let lines = relay.log().lines().filter(|line| line.contains("client rate")).count();
    assert!(lines <= 30, "{lines}");
}

/// Addresses of one IPv6 network of 64 bits are one client, or of as many as `client prefix` says.
#[test]
fn an_ipv6_network_is_one_client() {
    if !enter() {
        return;
    }
    let addresses = ["2001:db8:1::1", "2001:db8:1::2", "2001:db8:1:0:9::1", "2001:db8:1:1::1"];
    addresses.iter().for_each(|address| must(&format!("addr add {address}/128 dev lo nodad")));
    for (prefix, expected) in [
        ("", [true, false, false, true]),
        ("client prefix = 128", [true; 4]),
        ("client prefix = 48", [true, false, false, false]),
    ] {
        let (port, peer) = (free_port(), Peer::echo());
        let relay = Launch::new(format!(
            "id = spawnd {{\nclient sessions max = 1 {prefix}\n \
             listen = {{ address = ::1 port = {port} }}\n \
             spawn {{ instances min = 1 instances max = 1 }}\n}}\n\
             id = tcprelay {{ {} }}\n",
            peer.remote()
        ))
        .start();
        let mut clients = addresses.map(|address| connect_to(address, &format!("[::1]:{port}")));
        assert_eq!(clients.each_mut().map(is_served), expected, "{prefix}");
        drop(relay);
    }
}

/// The broker limits the proxy, each worker whom the proxy introduces.
#[test]
fn clients_in_proxy_headers_are_limited() {
    let (port, peer) = (free_port(), Peer::echo());
    let limits = format!("{TWO}\nclient exempt = 127.0.0.0/8");
    let relay = service(&peer, port, &limits, "haproxy = yes", "").ready(2).start();
    let introduced = |host: &str| {
        let mut client = connect(port);
        let header = format!("PROXY TCP4 {host} 192.0.2.1 1 2\r\n");
        client.write_all(header.as_bytes()).expect("to send");
        let served = is_served(&mut client);
        (client, served)
    };
    let mut clients: Vec<_> = (0..5).map(|_| introduced("192.0.2.7")).collect();
    let served = clients.iter().filter(|(_, served)| *served).count();
    let workers = relay.workers().len();
    assert!((2..=2 * workers).contains(&served), "{served}");
    assert!(served < 5, "each worker counts for itself");
    assert!(introduced("192.0.2.8").1);
    relay.expect_log("beyond its client sessions max");
    clients.clear();
    wait_for("a place", || introduced("192.0.2.7").1.then_some(()));
}

#[test]
fn workers_that_do_not_tell_are_said_not_to() {
    let (port, peer) = (free_port(), Peer::echo());
    let directory = Directory::new();
    let worker = directory.program("worker", "#!/bin/sh\nexec sleep 100\n");
    let exec = format!("exec = {}", worker.display());
    let relay = service(&peer, port, TWO, "", &exec).ready(None).start();
    let _clients: Vec<_> = (0..3)
        .map(|_| wait_for("the listener", || TcpStream::connect(("127.0.0.1", port)).ok()))
        .collect();
    relay.expect_log("client sessions max is without effect: the workers are another program");
}

#[test]
fn mistakes_are_refused() {
    for (directive, expected) in [
        ("client rate = 5", "Expected connections/seconds"),
        ("client rate = 0/1", "Expected connections/seconds"),
        ("client prefix = 129", "from 1 to 128"),
        ("client refuse = drop", "Expected 'close' or 'reset'"),
        ("client limit = 5", "'exempt', 'prefix', 'rate', 'refuse', 'sessions' or 'table'"),
        ("client exempt = everybody", "Expected an IP address or network"),
    ] {
        let directory = Directory::new();
        let config = format!(
            "id = spawnd {{ {directive}\n listen = {{ port = 0 }} }}\n\
             id = tcprelay {{ remote = {{ address = 127.0.0.1 port = 1 }} }}\n"
        );
        let config = directory.write("cfg", config);
        let output = ours(TCPRELAY).arg("-P").arg(config).output().expect("to run");
        assert!(!output.status.success(), "{directive}");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(expected) && told.contains(":1:"), "{directive}: {told}");
    }
}
