//! Remotes that are listeners of the same relay: such loops are refused.

mod common;

use common::*;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::process::{Output, Stdio};

fn config(listen: &str, section: &str) -> String {
    format!(
        "id = spawnd {{\n{listen}\n spawn {{ instances min = 1 instances max = 1 users max = 30 }}\n}}\n\
         id = tcprelay {{\n{section}\n}}\n"
    )
}

fn check(directory: &Directory, config: &str) -> Output {
    let path = directory.write("t.cfg", config);
    let mut command = ours(TCPRELAY);
    command.arg("-P").arg(path).stdin(Stdio::null());
    command.output().expect("the program under test")
}

/// An address of this host outside its loopback interface.
fn own_address() -> Option<String> {
    // Nothing is sent: connecting a UDP socket makes the kernel choose the source address.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

#[test]
fn a_remote_that_is_a_listener_is_refused() {
    let directory = Directory::new();
    let path = |name: &str| directory.file(name).display().to_string();
    std::fs::create_dir(directory.file("sub")).expect("a folder");
    std::os::unix::fs::symlink(path("sub"), path("link")).expect("a link");
    let _other = UnixListener::bind(directory.file("there")).expect("a socket");
    std::os::unix::fs::symlink(path("there"), path("alias")).expect("a link");
    let unix = |path: String| format!("address = {path}");
    let ip = |address: &str| format!("address = {address} port = 4711");
    let mut own = vec![
        (ip("127.0.0.1"), ip("127.0.0.1")),
        (ip("127.0.0.1"), "address = 127.0.0.1:4711".into()),
        (ip("127.0.0.1"), ip("localhost")),
        (ip("127.0.0.1"), ip("\"::ffff:127.0.0.1\"")),
        (ip("127.0.0.1"), ip("0.0.0.0")),
        (ip("0.0.0.0"), ip("127.0.0.2")),
        (ip("::1"), ip("::1")),
        (ip("::"), ip("::1")),
        (ip("::"), ip("127.0.0.1")),
        ("port = 4711".into(), ip("127.0.0.1")),
        ("address = 127.0.0.1 port = 4700-4720".into(), ip("127.0.0.1")),
        (ip("127.0.0.1") + " protocol = MPTCP", ip("127.0.0.1")),
        (ip("127.0.0.1"), ip("127.0.0.1") + " protocol = MPTCP"),
        (unix(path("there")), unix(path("there"))),
        (unix(path("there")), unix(path("alias"))),
        (unix(path("not-yet")), unix(path("not-yet"))),
        (unix(path("sub/not-yet")), unix(path("link/not-yet"))),
    ];
    if let Some(address) = own_address() {
        own.push((ip("0.0.0.0"), ip(&address)));
        own.push((ip("::"), ip(&address)));
    }
    for (listen, remote) in own {
        let text = config(&format!("listen = {{ {listen} }}"), &format!("remote = {{ {remote} }}"));
        let output = check(&directory, &text);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{listen} {remote}: {said}");
        assert!(said.contains("t.cfg:6: remote "), "{said}");
        assert!(
            said.contains(" is a listener of this relay, which would relay to itself"),
            "{said}"
        );
    }
    let other = [
        (ip("127.0.0.1"), "address = 127.0.0.1 port = 4712".into()),
        (ip("127.0.0.1"), ip("127.0.0.2")),
        (ip("127.0.0.1"), ip("::1")),
        (ip("127.0.0.1"), ip("127.0.0.1") + " protocol = SCTP"),
        (ip("0.0.0.0"), ip("::1")),
        (ip("0.0.0.0"), ip("192.0.2.1")),
        (ip("::"), ip("2001:db8::1")),
        (ip("::") + " ipv6 only = yes", ip("127.0.0.1")),
        // In another routing domain.
        (ip("0.0.0.0") + " vrf = blue", ip("127.0.0.1")),
        ("port = 0".into(), ip("127.0.0.1")),
        (unix(path("there")), unix(path("not-yet"))),
    ];
    for (listen, remote) in other {
        let text = config(&format!("listen = {{ {listen} }}"), &format!("remote = {{ {remote} }}"));
        let output = check(&directory, &text);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{listen} {remote}: {said}");
    }
    // With an IPv4 listener on the same port, the IPv6 one accepts no further IPv4 addresses.
    let listen =
        "listen = { address = :: port = 4711 } listen = { address = 127.0.0.3 port = 4711 }";
    let output = check(&directory, &config(listen, &format!("remote = {{ {} }}", ip("127.0.0.1"))));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_service_begins_without_the_remote_that_is_itself() {
    for single in ["no", "yes"] {
        let peer = Peer::named("hello");
        let port = free_port();
        let listen =
            format!("listen = {{ address = 0.0.0.0 port = {port} }} single process = {single}");
        let itself = remote(port);
        let relay = Launch::new(config(&listen, &format!("{itself}{}", peer.remote()))).start();
        relay.expect_log(&format!("remote [127.0.0.1]:{port} is a listener of this relay"));
        relay.expect_log("; it is not used");
        for _ in 0..5 {
            let mut hello = [0; 5];
            connect(port).read_exact(&mut hello).expect("the other remote");
            assert_eq!(&hello, b"hello");
        }
        // A reload checks as `-P` does: the configuration is refused, and the service goes on.
        relay.signal(nix::sys::signal::Signal::SIGHUP);
        relay.expect_log("the configuration is refused, the running one stays in service");
        drop(connect(port));
    }
}

#[test]
fn a_relay_that_has_only_itself_sends_its_clients_away() {
    for single in ["no", "yes"] {
        let port = free_port();
        let listen =
            format!("listen = {{ address = 127.0.0.1 port = {port} }} single process = {single}");
        let relay = Launch::new(config(&listen, &remote(port))).start();
        relay.expect_log("all remotes are listeners of this relay: clients are disconnected");
        for _ in 0..3 {
            let mut client = connect(port);
            wait_for("the end of the session", || has_ended(&mut client).then_some(()));
        }
    }
}
