//! Listeners: addresses, ports, families, UNIX sockets and their options.

use crate::common::{free_port, is_gone, ping, wait_for, Peer, Relay};
use crate::runner::{exclude, Entry};
use crate::support::{
    at_once, backlog_of, client, connections_at, count, group_and_session, listeners, option,
    parent, section, worker_section, Daemon, Launch,
};
use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Entry] = &[
    ("B001", b001),
    ("B002", b002),
    ("B003", b003),
    ("B004", b004),
    ("B005", b005),
    ("B006", b006),
    ("B007", b007),
    ("B008", b008),
    ("B009", b009),
    ("B010", b010),
    ("B011", b011),
    ("B012", b012),
    ("B013", b013),
    ("B014", b014),
    ("B015", b015),
    ("B016", b016),
    ("B017", b017),
    ("B018", b018),
    ("B019", b019),
    ("B020", b020),
    ("B021", b021),
];

/// A broker's section with these listeners, and a worker's section with an echo as remote.
pub(crate) fn with_listeners(listeners: &str, peer: &Peer) -> String {
    format!(
        "id = spawnd {{\n{listeners}\nspawn = {{ instances min = 1 instances max = 1 }}\n}}\n{}",
        worker_section(&peer.remote())
    )
}

fn on(port: u16) -> String {
    format!("listen = {{ address = 127.0.0.1 port = {port} }}\n")
}

/// A listener on 127.0.0.1, so that its port is taken.
pub(crate) fn occupied() -> (u16, TcpListener) {
    let port = free_port();
    (port, TcpListener::bind(("127.0.0.1", port)).expect("a listener"))
}

fn v6_client(port: u16) {
    let mut stream = TcpStream::connect(("::1", port)).expect("a connection");
    stream.set_read_timeout(Some(crate::common::PATIENCE)).expect("a timeout");
    ping(&mut stream, b"hello");
}

fn b001() {
    let (peer, port) = (Peer::echo(), free_port());
    let relay = Launch::new(with_listeners(&on(port), &peer)).start();
    relay.expect_log(&format!("bind to [127.0.0.1]:{port} succeeded"));
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("somaxconn");
    assert_eq!(backlog_of(relay.pid()), most.trim().parse().ok());
}

fn b002() {
    let (peer, port) = (Peer::echo(), free_port());
    let config = with_listeners(&format!("listen {{ port = {port} }}"), &peer);
    let relay = Launch::new(config).start();
    relay.expect_log(&format!("bind to [::]:{port} succeeded"));
    client(port);
    v6_client(port);
}

fn b003() {
    let (peer, port) = (Peer::echo(), free_port());
    let both = format!("listen {{ port = {port} }}\nlisten {{ address = ::0 port = {port} }}\n");
    let relay = Launch::new(with_listeners(&both, &peer)).start();
    relay.expect_log(&format!("bind to [::]:{port} failed"));
    relay.expect_log("Address already in use");
    client(port);
}

fn b004() {
    let peer = Peer::echo();
    let (port, _holder) = occupied();
    let finished = Launch::new(with_listeners(&on(port), &peer)).finish();
    finished.exits(75).says("Failed to bind to any address or port. Exiting.");
}

fn b005() {
    let (peer, free) = (Peer::echo(), free_port());
    let (port, _holder) = occupied();
    let relay = Launch::new(with_listeners(&(on(port) + &on(free)), &peer)).start();
    relay.expect_log(&format!("bind to [127.0.0.1]:{port} failed."));
    client(free);
}

fn b006() {
    let peer = Peer::echo();
    let (port, holder) = occupied();
    let listen = format!("listen = {{ address = 127.0.0.1 port = {port} bind retry delay = 1 }}");
    let relay = Launch::new(with_listeners(&listen, &peer)).start();
    let line = format!("bind to [127.0.0.1]:{port} failed. Will retry every 1 seconds.");
    relay.expect_log(&line);
    // Two more attempts fail, without a log line.
    crate::common::nothing_happens_for(Duration::from_millis(2300));
    assert_eq!(count(&relay, &line), 1);
    assert_eq!(count(&relay, "Address already in use"), 1);
    drop(holder);
    let freed = Instant::now();
    relay.expect_log(&format!("bind to [127.0.0.1]:{port} succeeded"));
    at_once(freed);
    client(port);
}

fn b007() {
    let peer = Peer::echo();
    let (port, _holder) = occupied();
    let before = format!("bind retry delay = 1\n{}", on(port));
    let relay = Launch::new(with_listeners(&before, &peer)).start();
    relay.expect_log("Will retry every 1 seconds.");
    let after = format!("{}bind retry delay = 1\n", on(port));
    Launch::new(with_listeners(&after, &peer)).finish().exits(75);
}

fn b008() {
    let peer = Peer::echo();
    let finished = Launch::new(with_listeners("", &peer)).finish();
    finished.exits(71).says("FATAL: No listeners defined.");
}

fn b009() {
    let peer = Peer::echo();
    let finished = Launch::new(with_listeners("listen { port = 70000 }", &peer)).finish();
    assert_ne!(finished.status.code(), Some(0));
    assert!(finished.status.code().is_some());
    finished.says("70000");
}

fn b010() {
    let peer = Peer::echo();
    let listen = "listen = { address = nosuch.invalid port = 2222 }";
    let launch = Launch::new(with_listeners(listen, &peer));
    let launch = launch.environment("RES_OPTIONS", "attempts:1 timeout:1");
    launch.finish().exits(71).says("FATAL: \"bind to nosuch.invalid:2222\" failed: ");
}

fn b011() {
    let (peer, port) = (Peer::echo(), free_port());
    let listen = format!("listen {{ address = localhost port = {port} }}");
    let relay = Launch::new(with_listeners(&listen, &peer)).start();
    relay.expect_log(&format!("bind to [127.0.0.1]:{port} succeeded"));
    client(port);
}

fn b012() {
    let peer = Peer::echo();
    let relay = Launch::new(with_listeners("listen { }", &peer)).start();
    let list = listeners(relay.pid());
    assert_eq!(list.len(), 1);
    let address = list[0].local_addr().expect("the address");
    assert!(address.is_ipv6() && address.ip().is_unspecified(), "{address}");
    client(address.port());
    v6_client(address.port());
}

/// Requires that a client of this UNIX listener is served.
fn unix_client(relay: &Relay, name: &str) {
    let mut stream = UnixStream::connect(relay.directory.file(name)).expect("a connection");
    stream.set_read_timeout(Some(crate::common::PATIENCE)).expect("a timeout");
    stream.write_all(b"hello").expect("to send");
    let mut answer = [0; 5];
    std::io::Read::read_exact(&mut stream, &mut answer).expect("an answer");
    assert_eq!(&answer, b"hello");
}

fn b013() {
    let peer = Peer::echo();
    let listen = "listen { path = @DIR@/socket mode = 0600 }";
    let relay = Launch::new(with_listeners(listen, &peer)).start();
    let metadata = fs::metadata(relay.directory.file("socket")).expect("the socket");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.mode() & 0o7777, 0o600);
    unix_client(&relay, "socket");
}

fn b014() {
    let peer = Peer::echo();
    let launch = Launch::new(with_listeners("listen { path = @DIR@/socket }", &peer));
    drop(UnixListener::bind(launch.directory.file("socket")).expect("a socket"));
    let relay = launch.start();
    unix_client(&relay, "socket");
}

/// Leaves the case out where SCTP works.
pub(crate) fn require_no_sctp() {
    // SAFETY: socket(2) takes plain numbers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP) };
    if fd >= 0 {
        // SAFETY: the descriptor was made above and is used by nobody else.
        unsafe { libc::close(fd) };
        exclude("this kernel has SCTP");
    }
}

fn b015() {
    require_no_sctp();
    let (peer, port) = (Peer::echo(), free_port());
    let listen = format!("listen {{ address = 127.0.0.1 port = {port} protocol = SCTP }}");
    let finished = Launch::new(with_listeners(&listen, &peer)).finish();
    finished.exits(75).says("Failed to bind to any address or port. Exiting.");
    assert!(!finished.stderr.contains("Bad file descriptor"), "{}", finished.stderr);
}

fn b016() {
    let (peer, port) = (Peer::echo(), free_port());
    let listen = format!("listen {{ address = 127.0.0.1 port = {port} vrf = nosuch }}");
    let mut relay = Launch::new(with_listeners(&listen, &peer)).ready(None).start();
    relay.expect_log("nosuch");
    // It either serves, or ends with an explanation.
    let ended = wait_for("a service or an end", || {
        if is_gone(relay.pid()) {
            return Some(true);
        }
        TcpStream::connect(("127.0.0.1", port)).ok().map(|_| false)
    });
    if ended {
        assert_ne!(relay.wait().code(), Some(0));
    } else {
        client(port);
    }
}

fn b017() {
    let (peer, port) = (Peer::echo(), free_port());
    let listen = format!("listen {{ address = 127.0.0.1 port = {port} backlog = 7 }}");
    let relay = Launch::new(with_listeners(&listen, &peer)).start();
    assert_eq!(backlog_of(relay.pid()), Some(7));
}

/// A copy of the worker's socket to its only client.
fn accepted(relay: &Relay, port: u16) -> TcpStream {
    let worker = relay.workers()[0];
    wait_for("the connection in the worker", || connections_at(worker, port).pop())
}

fn b018() {
    let (peer, port) = (Peer::echo(), free_port());
    let listen = format!("listen {{ address = 127.0.0.1 port = {port} dscp = 0x38 }}");
    let relay = Launch::new(with_listeners(&listen, &peer)).start();
    let _client = client(port);
    let socket = accepted(&relay, port);
    assert_eq!(option(&socket, libc::IPPROTO_IP, libc::IP_TOS), Some(224));
}

fn b019() {
    let (peer, port) = (Peer::echo(), free_port());
    let listen = format!(
        "listen {{ address = 127.0.0.1 port = {port} tcp keepalive idle = 44 \
         tcp keepalive count = 3 tcp keepalive interval = 5 }}"
    );
    let relay = Launch::new(with_listeners(&listen, &peer)).start();
    let _client = client(port);
    let socket = accepted(&relay, port);
    assert_eq!(option(&socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE), Some(1));
    assert_eq!(option(&socket, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE), Some(44));
    assert_eq!(option(&socket, libc::IPPROTO_TCP, libc::TCP_KEEPCNT), Some(3));
    assert_eq!(option(&socket, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL), Some(5));
}

fn b020() {
    let (peer, port) = (Peer::echo(), free_port());
    let config = section(port, "background = yes pidfile = @DIR@/pid", "", &peer.remote());
    let finished = Launch::new(config).finish();
    let daemon = Daemon::of(&finished.exits(0).relay.directory.file("pid"));
    client(port);
    assert_ne!(daemon.0, finished.relay.pid());
    assert_eq!(group_and_session(daemon.0).1, daemon.0);
    // The test is the reaper of orphans here, as process 1 is elsewhere.
    assert_eq!(parent(daemon.0), std::process::id() as i32);
    for number in 0..3 {
        let name = fs::read_link(format!("/proc/{}/fd/{number}", daemon.0)).expect("open");
        assert_eq!(name.to_str(), Some("/dev/null"), "descriptor {number}");
    }
}

fn b021() {
    let peer = Peer::echo();
    let (port, _holder) = occupied();
    let config = section(port, "background = yes", "", &peer.remote());
    let finished = Launch::new(config).finish();
    assert!(!finished.status.success());
    assert!(finished.status.code().is_some(), "{:?}", finished.status);
}
