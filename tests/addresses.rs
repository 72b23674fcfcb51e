//! Addresses of listeners and remotes: zones, families, port ranges.

mod common;

use common::*;
use nix::sys::signal::Signal;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddrV6, TcpListener, TcpStream};
use std::ops::Range;
use std::process::Output;
use std::thread;

/// The index of an interface.
fn zone(name: &str) -> u32 {
    // Not from /sys, which shows the network namespace it was mounted in.
    let output = run(std::process::Command::new("ip").args(["-o", "link", "show", "dev", name]));
    text(&output).split(':').next().and_then(|index| index.parse().ok()).expect("an index")
}

fn link_local(port: u16, name: &str) -> SocketAddrV6 {
    SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77), port, 0, zone(name))
}

/// A server that sends its name to each client and closes.
fn named(address: SocketAddrV6, name: &'static str) {
    let listener = TcpListener::bind(address).expect("a link-local address");
    // The thread ends with the test process.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.write_all(name.as_bytes());
        }
    });
}

fn answer(mut stream: TcpStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn config(listen: &str, section: &str) -> String {
    format!(
        "id = spawnd {{ {listen}\n spawn {{ instances min = 1 instances max = 1 users max = 500 }} \
         }}\nid = tcprelay {{\n{section}\n}}\n"
    )
}

fn check(config: &str) -> Output {
    let directory = Directory::new();
    let path = directory.write("t.cfg", config);
    let mut command = ours(TCPRELAY);
    command.arg("-P").arg(path).stdin(std::process::Stdio::null());
    command.output().expect("the program under test")
}

/// The message of `-P` about a configuration that it must refuse.
fn refusal(config: &str) -> String {
    let output = check(config);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    said
}

#[test]
fn remotes_in_two_zones_are_two() {
    if !namespace::enter() || !namespace::links(&["zone0", "zone1"], &["fe80::77/64"]) {
        return;
    }
    named(link_local(8001, "zone0"), "zero");
    named(link_local(8001, "zone1"), "one");
    for (remote, expected) in [
        ("fe80::77%zone0 port = 8001".to_owned(), "zero"),
        ("fe80::77%zone1 port = 8001".to_owned(), "one"),
        ("\"[fe80::77%zone1]:8001\"".to_owned(), "one"),
        (format!("fe80::77%{} port = 8001", zone("zone1")), "one"),
    ] {
        let listen = "listen = { address = 127.0.0.1 port = 9000 }";
        let text = format!("access log = yes\nremote = {{ address = {remote} }}");
        let relay = Launch::new(config(listen, &text)).start();
        assert_eq!(answer(connect(9000)), expected, "{remote}");
        let name = if expected == "one" { "zone1" } else { "zone0" };
        // The worker is confined by now, and yet knows the interface's name.
        relay.expect_log(&format!("remote [fe80::77%{name}]:8001 "));
    }
    // A local address with a zone.
    let listen = "listen = { address = 127.0.0.1 port = 9000 }";
    let text = "remote = { address = fe80::77%zone1 port = 8001 }\n\
                local address = fe80::77%zone1";
    let _relay = Launch::new(config(listen, text)).start();
    assert_eq!(answer(connect(9000)), "one");
}

#[test]
fn a_listener_is_in_its_zone_and_a_reload_moves_it() {
    if !namespace::enter() || !namespace::links(&["zone0", "zone1"], &["fe80::77/64"]) {
        return;
    }
    let peer = Peer::named("hello");
    let text = |name: &str, more: &str| {
        let listen = format!("{more} listen = {{ address = fe80::77%{name} port = 9000 }}");
        config(&listen, &format!("access log = yes {}", peer.remote()))
    };
    let relay = Launch::new(text("zone0", "")).start();
    let ask = |name: &str| {
        let mut stream = TcpStream::connect(link_local(9000, name))?;
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).map(|()| hello)
    };
    let refused = |name: &str| {
        let error = ask(name).expect_err("no listener");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    };
    assert_eq!(&ask("zone0").expect("an answer"), b"hello");
    refused("zone1");
    relay.expect_log("bind to [fe80::77%zone0]:9000 succeeded\n");
    relay.expect_log("access: client [fe80::77%zone0]:");
    // The address is unchanged, so the socket is kept.
    relay.signal(Signal::SIGHUP);
    relay.expect_log("bind to [fe80::77%zone0]:9000 succeeded (inherited)");
    // The other zone is another address, so the socket is not kept.
    std::fs::write(&relay.config, text("zone1", "")).expect("the configuration");
    relay.signal(Signal::SIGHUP);
    relay.expect_log("bind to [fe80::77%zone1]:9000 succeeded\n");
    assert_eq!(&ask("zone1").expect("an answer"), b"hello");
    refused("zone0");
    // An access list with a zone: the client connects from the listener's own address.
    std::fs::write(&relay.config, text("zone1", "deny fe80::77%zone1\npermit ::/0\n"))
        .expect("the configuration");
    relay.signal(Signal::SIGHUP);
    relay.expect_log("bind to [fe80::77%zone1]:9000 succeeded (inherited)");
    ask("zone1").expect_err("denied");
    relay.expect_log("connection attempt from [fe80::77%zone1] rejected: denied by ACL");
    std::fs::write(&relay.config, text("zone1", "deny fe80::77%zone0\npermit ::/0\n"))
        .expect("the configuration");
    relay.signal(Signal::SIGHUP);
    wait_for("the other list", || ask("zone1").ok());
}

#[test]
fn a_zone_that_is_not_there_is_named() {
    let remote = "remote = { address = 127.0.0.1 port = 1 }";
    let listen = |text: &str| config(&format!("listen = {{ {text} port = 9000 }}"), remote);
    let with = |text: &str| config("listen = { port = 9000 }", text);
    for text in [
        listen("address = fe80::1%nosuch0"),
        listen("fe80::1%nosuch0"),
        with("remote = { address = fe80::1%nosuch0 port = 1 }"),
        with("remote = { address = \"[fe80::1%nosuch0]:1\" }"),
        with(&format!("{remote} local address = fe80::1%nosuch0")),
        config("listen = { port = 9000 } permit fe80::1%nosuch0", remote),
    ] {
        let said = refusal(&text);
        assert!(
            said.contains("'fe80::1%nosuch0'") || said.contains("[fe80::1%nosuch0]:1"),
            "{said}"
        );
        assert!(said.contains("there is no interface 'nosuch0'"), "{said}");
    }
    let said = refusal(&listen("address = ::%lo"));
    assert!(said.contains("only link-local addresses (fe80::/10) have a zone"), "{said}");
}

fn ipv6_only(relay: &Relay, port: u16) -> Option<bool> {
    let listener = sockets::listener(relay.pid(), port)?;
    sockets::option(&listener, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY).map(|value| value != 0)
}

fn reaches(host: &str, port: u16) -> bool {
    TcpStream::connect((host, port)).is_ok_and(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(b"x").is_ok() && stream.read(&mut [0]).is_ok_and(|count| count == 1)
    })
}

#[test]
fn ipv6_and_ipv4_listeners_share_a_port() {
    let peer = Peer::echo();
    let port = free_port();
    let (both, ipv6) = (
        format!("listen = {{ address = :: port = {port} }} listen = {{ address = 0.0.0.0 port = {port} }}"),
        format!("listen = {{ address = :: port = {port} }}"),
    );
    let relay = Launch::new(config(&both, &peer.remote())).start();
    let serves = |ipv4| {
        wait_for("a listener", || reaches("::1", port).then_some(()));
        assert_eq!(reaches("127.0.0.1", port), ipv4);
    };
    serves(true);
    relay.expect_log(&format!("bind to [::]:{port} succeeded"));
    relay.expect_log(&format!("bind to [0.0.0.0]:{port} succeeded"));
    // Each reload finds the sockets of the previous configuration.
    let alone = format!("listen = {{ address = :: port = {port} ipv6 only = yes }}");
    let double = format!("listen = {{ address = :: port = {port} ipv6 only = no }}");
    let mut reloads = 0;
    let mut reload = |listen: &str, inherited: usize| {
        let before = relay.log().len();
        std::fs::write(&relay.config, config(listen, &peer.remote())).expect("the configuration");
        relay.signal(Signal::SIGHUP);
        reloads += 1;
        relay.wait_for_log("the restart", |log| {
            (log.matches("SIGHUP: restarting").count() == reloads).then_some(())
        });
        relay.wait_for_log("the listeners", |log| {
            let log = &log[before..];
            let count = listen.matches("listen =").count();
            (log.matches("bind to [").count() == count).then_some(())
        });
        let log = relay.log();
        let log = &log[before..];
        assert!(!log.contains("failed"), "{listen}: {log}");
        assert_eq!(log.matches("(inherited)").count(), inherited, "{listen}: {log}");
    };
    // Both sockets are kept.
    reload(&both, 2);
    serves(true);
    // Without an IPv4 listener beside it, the system's default decides about the IPv6 one: Linux
    // serves IPv4 too.
    reload(&ipv6, 0);
    serves(true);
    reload(&ipv6, 1);
    reload(&alone, 0);
    serves(false);
    reload(&double, 0);
    serves(true);
    reload(&both, 0);
    serves(true);
    if sockets::can_look(relay.pid()) {
        assert!(ipv6_only(&relay, port).is_some());
    }
}

#[test]
fn ranges_of_ports_serve_both_families() {
    let peer = Peer::echo();
    let port = wait_for("ten free ports", || {
        let first = free_port();
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        (first..first + 10).all(free).then_some(first)
    });
    let last = port + 9;
    let listen = format!(
        "listen = {{ address = 0.0.0.0 port = {port}-{last} realm = range }}\n\
         listen = {{ address = :: port = {} }} listen = {{ address = :: port = {port}-{} }}",
        port + 9,
        port + 4
    );
    let relay = Launch::new(config(&listen, &peer.remote())).start();
    let reachable = |host: &str| (port..=last).filter(|&port| reaches(host, port)).count();
    assert_eq!((reachable("127.0.0.1"), reachable("::1")), (10, 6));
    relay.signal(Signal::SIGHUP);
    relay.wait_for_log("the same listeners", |log| {
        (log.matches("succeeded (inherited)").count() == 16).then_some(())
    });
    assert_eq!((reachable("127.0.0.1"), reachable("::1")), (10, 6));
    // A smaller range: the other ports are closed.
    let listen = format!("listen = {{ address = 0.0.0.0 port = {port}-{} }}", port + 2);
    std::fs::write(&relay.config, config(&listen, &peer.remote())).expect("the configuration");
    relay.signal(Signal::SIGHUP);
    wait_for("the smaller range", || (reachable("127.0.0.1") == 3).then_some(()));
}

#[test]
fn ranges_of_ports_are_checked() {
    let remote = "remote = { address = 127.0.0.1 port = 1 }";
    let listen = |text: &str| config(&format!("listen = {{ {text} }}"), remote);
    for wrong in ["5099-5000", "0-10"] {
        let said = refusal(&listen(&format!("port = {wrong}")));
        let expected = format!(
            "t.cfg:1: Expected a range of ports such as 5000-5099, the lower one \
                                first, but got '{wrong}'"
        );
        assert!(said.contains(&expected), "{said}");
    }
    for wrong in ["5000-", "5000-x", "1-70000", "1-2-3"] {
        let said = refusal(&listen(&format!("port = {wrong}")));
        assert!(said.contains(&format!("but got '{wrong}'")), "{said}");
    }
    let said = refusal(&listen("address = /tmp/x port = 5000-5001"));
    assert!(said.contains("t.cfg:1: A UNIX-domain socket has no ports"), "{said}");
    let said =
        refusal(&config("listen = { port = 9000 }", "remote = { address = 127.0.0.1 port = 1-2 }"));
    assert!(said.contains("but got '1-2'"), "{said}");
    let fine = check(&listen("port = 5000-5000"));
    assert!(fine.status.success(), "{}", String::from_utf8_lossy(&fine.stderr));
}

#[test]
fn three_thousand_listeners_are_bound_and_handed_over() {
    let peer = Peer::echo();
    let Range { start, end } = MANY_PORTS;
    let listen = format!("listen = {{ address = 127.77.0.1 port = {start}-{} }}", end - 1);
    let relay = Launch::new(config(&listen, &peer.remote())).start();
    let serves = || [start, start + 1500, end - 1].iter().all(|&port| reaches("127.77.0.1", port));
    assert!(serves());
    relay.signal(Signal::SIGHUP);
    relay.wait_for_log("the same listeners", |log| {
        (log.matches("succeeded (inherited)").count() == 3000).then_some(())
    });
    assert!(serves());
}
