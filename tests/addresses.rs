//! Addresses of listeners and remotes: zones, families, ranges of ports.

mod common;

use common::*;
use nix::sys::signal::Signal;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddrV6, TcpListener, TcpStream};
use std::process::Output;
use std::thread;

/// The number of an interface.
fn zone(name: &str) -> u32 {
    // Not from /sys, which shows the namespace that it was mounted in.
    let output = run(std::process::Command::new("ip").args(["-o", "link", "show", "dev", name]));
    text(&output).split(':').next().and_then(|index| index.parse().ok()).expect("an index")
}

fn link_local(port: u16, name: &str) -> SocketAddrV6 {
    SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77), port, 0, zone(name))
}

/// A server that sends its name and ends.
fn named(address: SocketAddrV6, name: &'static str) {
    let listener = TcpListener::bind(address).expect("a link-local address");
    // Ends with the test's process.
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

/// What `-P` says, which must refuse.
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
        let relay = Setup::new(config(listen, &text)).start();
        assert_eq!(answer(connect(9000)), expected, "{remote}");
        let name = if expected == "one" { "zone1" } else { "zone0" };
        // The worker is confined, and knows the name all the same.
        relay.expect_log(&format!("remote [fe80::77%{name}]:8001 "));
    }
    // A local address with a zone.
    let listen = "listen = { address = 127.0.0.1 port = 9000 }";
    let text = "remote = { address = fe80::77%zone1 port = 8001 }\n\
                local address = fe80::77%zone1";
    let _relay = Setup::new(config(listen, text)).start();
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
    let relay = Setup::new(text("zone0", "")).start();
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
    // The same address: its socket stays.
    relay.signal(Signal::SIGHUP);
    relay.expect_log("bind to [fe80::77%zone0]:9000 succeeded (inherited)");
    // The other zone: it does not.
    std::fs::write(&relay.config, text("zone1", "")).expect("the configuration");
    relay.signal(Signal::SIGHUP);
    relay.expect_log("bind to [fe80::77%zone1]:9000 succeeded\n");
    assert_eq!(&ask("zone1").expect("an answer"), b"hello");
    refused("zone0");
    // An access list that knows zones: the client has the address of the listener.
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
