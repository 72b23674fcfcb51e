//! `local address = client`: remotes see the client's own address. Three hosts, which are network
//! namespaces: the client's, the relay's and the remote's.
#![cfg(target_os = "linux")]

mod common;

use common::launch::monitor;
use common::namespace::{enter, must, Host};
use common::*;
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// A server that says whom it has for a client, then echoes.
fn whoami(host: &Host, address: &'static str) {
    host.run(move || {
        let listener = TcpListener::bind(address).expect("a listener");
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let peer = stream.peer_addr().expect("a client").ip();
                    let _ = writeln!(stream, "{peer}");
                    echo(stream);
                });
            }
        });
    });
}

/// Whom the server has for its client, if that sends `first` and is served.
fn seen(client: &Host, to: &'static str, first: &'static str) -> Option<String> {
    client.run(move || {
        let mut stream = TcpStream::connect(to).expect("the relay");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(first.as_bytes()).expect("to send");
        let (mut line, mut byte) = (String::new(), [0]);
        while stream.read(&mut byte).is_ok_and(|count| count == 1) && byte[0] != b'\n' {
            line.push(byte[0].into());
        }
        if line.is_empty() {
            return None;
        }
        ping(&mut stream, b"some data");
        Some(line)
    })
}

/// The relay's namespace and those of its neighbours. Whatever comes from the remote's side is for
/// the relay, whoever it is addressed to. `None`, reported, where that is impossible.
fn hosts() -> Option<(Host, Host)> {
    if !enter() {
        return None;
    }
    let (client, remote) = (Host::new()?, Host::new()?);
    client.link(
        "inside",
        ["192.0.2.1/24", "2001:db8:1::1/64"],
        ["192.0.2.7/24", "2001:db8:1::7/64"],
    );
    remote.link(
        "outside",
        ["198.51.100.1/24", "2001:db8:2::1/64"],
        ["198.51.100.9/24", "2001:db8:2::9/64"],
    );
    remote.run(|| {
        must("route add default via 198.51.100.1");
        must("-6 route add default via 2001:db8:2::1");
    });
    for family in ["-4", "-6"] {
        must(&format!("{family} rule add iif outside lookup 100"));
        must(&format!("{family} route add local default dev lo table 100"));
    }
    whoami(&remote, "198.51.100.9:7000");
    whoami(&remote, "[2001:db8:2::9]:7000");
    Some((client, remote))
}

const CONFIG: &str = "id = spawnd {\n\
    listen = { address = 192.0.2.1 port = 4000 realm = four }\n\
    listen = { address = 2001:db8:1::1 port = 4000 realm = six }\n\
    listen = { address = 192.0.2.1 port = 4001 realm = four haproxy = yes }\n\
    listen = { address = 192.0.2.1 port = 4002 realm = six }\n\
    @SINGLE@ spawn { instances min = 1 instances max = 1 }\n}\n\
    id = tcprelay {\nlocal address = client\n\
    route = { listener = four to = four }\nroute = { listener = six to = six }\n\
    remote = { address = 198.51.100.9 port = 7000 tag = four }\n\
    remote = { address = 2001:db8:2::9 port = 7000 tag = six }\n\
    connect timeout = 2\n}\n";

#[test]
fn remotes_see_the_clients_own_addresses() {
    let Some((client, _remote)) = hosts() else {
        return;
    };
    for single in ["", "single process = yes"] {
        let mut relay = Launch::new(CONFIG.replace("@SINGLE@", single)).start();
        for _ in 0..20 {
            assert_eq!(seen(&client, "192.0.2.1:4000", "").as_deref(), Some("192.0.2.7"));
            let six = seen(&client, "[2001:db8:1::1]:4000", "");
            assert_eq!(six.as_deref(), Some("2001:db8:1::7"));
        }
        // With a PROXY header, the address in it.
        let header = "PROXY TCP4 192.0.2.99 192.0.2.1 5000 4001\r\n";
        client.run(|| must("addr add 192.0.2.99/24 dev peer"));
        assert_eq!(seen(&client, "192.0.2.1:4001", header).as_deref(), Some("192.0.2.99"));
        client.run(|| must("addr del 192.0.2.99/24 dev peer"));
        // An IPv4 client has no address to reach an IPv6 remote from.
        assert_eq!(seen(&client, "192.0.2.1:4002", ""), None);
        relay.expect_log("this host has no way to [2001:db8:2::9]:7000");
        relay.signal(Signal::SIGTERM);
        relay.wait();
    }
}

/// The capabilities in /proc/PID/status: permitted, effective, ambient. `None` if it has ended.
fn capabilities(pid: i32) -> Option<[u64; 3]> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(["CapPrm:", "CapEff:", "CapAmb:"].map(|name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        u64::from_str_radix(line.trim(), 16).expect("a mask")
    }))
}

/// Workers that are not root's have the one right that they need, the monitor has none, and after a
/// reload it is the same.
#[test]
fn workers_of_another_user_keep_the_capability_alone() {
    let Some((client, _remote)) = hosts() else {
        return;
    };
    const NET_RAW: u64 = 1 << 13;
    for sandbox in ["yes", "no"] {
        let text = CONFIG.replace("@SINGLE@", "status = { port = 4999 }");
        let text = text.replace("max = 1 }", "max = 1 userid = 65534 groupid = 65534 }");
        let text = text.replace("connect timeout", &format!("sandbox = {sandbox} connect timeout"));
        let mut relay = Launch::new(text).start();
        let mut former = Vec::new();
        for signal in [None, Some(Signal::SIGHUP), Some(Signal::SIGUSR1)] {
            if let Some(signal) = signal {
                relay.signal(signal);
            }
            // Before it is ready it passes the right on to itself.
            wait_for("a worker with that capability alone", || {
                let mut new = relay.workers().into_iter().filter(|pid| !former.contains(pid));
                new.find(|pid| capabilities(*pid) == Some([NET_RAW, NET_RAW, 0]))
            });
            for (address, own) in
                [("192.0.2.1:4000", "192.0.2.7"), ("[2001:db8:1::1]:4000", "2001:db8:1::7")]
            {
                assert_eq!(seen(&client, address, "").as_deref(), Some(own), "{signal:?}");
            }
            former = relay.workers();
        }
        // The former one may still be there.
        let monitor = wait_for("a monitor without rights", || {
            monitor(&relay).filter(|&pid| capabilities(pid) == Some([0; 3]))
        });
        relay.signal(Signal::SIGTERM);
        relay.wait();
        // It may hold the status page's socket a little longer than the broker.
        assert!(ends_within(PATIENCE, monitor));
    }
}

#[test]
fn without_the_right_the_start_says_what_is_missing() {
    if !is_root() {
        return left_out("another user needs root");
    }
    const TEXT: &str = "local address = client: Operation not permitted: workers need the \
                        capability CAP_NET_RAW to use addresses that are not this host's";
    let section = format!("local address = client\n{}", remote(9));
    let port = free_port();
    for single in ["", "single process = yes\n"] {
        let config = format!(
            "id = spawnd {{\n{single}listen = {{ address = 127.0.0.1 port = {port} }}\n\
             spawn {{ instances min = 1 instances max = 1 }}\n}}\n\
             id = tcprelay {{\n{section}\n}}\n"
        );
        let mut relay = Launch::new(config).ready(None).user(65534).start();
        relay.expect_log(TEXT);
        assert!(!relay.wait().success());
    }
}
