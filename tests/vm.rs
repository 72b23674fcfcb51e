//! Tests that need a kernel with features many lack: kernel TLS, SCTP and VRF. `make test-vm` runs
//! them in a virtual machine; elsewhere they are left out.

mod common;

use common::pki::Identity;
use common::*;
use mavis::os::address::{Address, Family};
use mavis::os::socket::{Addressed, Attempt, Blocking, Kind, Listener, Options, Protocol, Socket};
use openssl::ssl::{SslConnector, SslMethod, SslStream, SslVersion};
use openssl::x509::store::X509StoreBuilder;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Instant;
use std::{fs, thread};

/// True in the machine that tools/test-vm starts.
fn in_machine() -> bool {
    let here = std::env::var_os("TCPRELAY_TEST_VM").is_some();
    if !here {
        left_out("needs a kernel with TLS, SCTP and VRF: run `make test-vm`");
    }
    here
}

fn localhost(port: u16) -> Address {
    Address::Ip(SocketAddr::from(([127, 0, 0, 1], port)))
}

/// Wraps any stream socket, since the calls of std's TcpStream work for all of them.
fn as_stream(fd: Socket) -> TcpStream {
    fd.set_blocking().expect("blocking");
    let stream = TcpStream::from(OwnedFd::from(fd));
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Sends `data` through an echo and receives it at the same time.
fn both_ways(mut stream: TcpStream, data: &[u8]) {
    let mut sender = stream.try_clone().expect("a descriptor");
    let mut answer = vec![0; data.len()];
    thread::scope(|scope| {
        scope.spawn(move || {
            for part in data.chunks(65536) {
                sender.write_all(part).expect("to send");
            }
        });
        stream.read_exact(&mut answer).expect("an answer");
    });
    assert!(answer == data, "changed on the way");
}

#[test]
fn the_kernel_has_what_the_tests_are_about() {
    if !in_machine() {
        return;
    }
    let file = "/proc/sys/net/ipv4/tcp_available_ulp";
    let protocols = fs::read_to_string(file).expect(file);
    assert!(protocols.split_whitespace().any(|name| name == "tls"), "{protocols}");
    Socket::new(Family::Ipv4, Kind::Stream, Protocol::Sctp).expect("an SCTP socket");
}

#[test]
fn sctp_is_relayed_to_sctp() {
    if !in_machine() {
        return;
    }
    let (port, remote) = (free_port(), free_port());
    let listener = Listener::new(Family::Ipv4, Kind::Stream, Protocol::Sctp).expect("a socket");
    listener.bind(&localhost(remote)).expect("to bind");
    listener.listen(16).expect("to listen");
    listener.set_blocking().expect("blocking");
    let server = thread::spawn(move || {
        let stream = as_stream(listener.accept(Blocking::Yes).expect("a connection"));
        let address = Socket::from(stream.try_clone().expect("a copy")).peer_address();
        echo(stream);
        address
    });
    let relay = Launch::new(format!(
        "id = spawnd {{ listen {{ address = 127.0.0.1 port = {port} protocol = SCTP }} \
         spawn {{ instances min = 1 instances max = 1 }} }}\n\
         id = tcprelay {{ remote = {{ address = 127.0.0.1 port = {remote} protocol = SCTP }} }}\n"
    ))
    .start();
    // Only SCTP listens on the port, not TCP.
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    let client = Socket::new(Family::Ipv4, Kind::Stream, Protocol::Sctp).expect("a socket");
    client.set_blocking().expect("blocking");
    assert_eq!(client.connect(&localhost(port)).expect("a connection"), Attempt::Connected);
    // SCTP has no half-closed state: the client closes once it has everything.
    both_ways(as_stream(client), &pattern(1, 64 << 20));
    assert!(server.join().expect("the server").is_some());
    assert!(!relay.log().contains("failed"), "{}", relay.log());
}

/// Runs ip(8); `None` without it.
fn ip(arguments: &str) -> Option<()> {
    let words = || arguments.split_whitespace();
    let places = ["ip", "/usr/sbin/ip", "/sbin/ip"];
    let output =
        places.iter().find_map(|program| Command::new(program).args(words()).output().ok());
    let output = output?;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
    Some(())
}

#[test]
fn a_listener_in_a_vrf_serves_that_alone() {
    if !in_machine() {
        return;
    }
    if ip("link add test-blue type vrf table 10").is_none() {
        return left_out("ip (iproute2) is not installed");
    }
    ip("address add 192.0.2.1/32 dev test-blue").expect("ip");
    ip("link set test-blue up").expect("ip");
    let peer = Peer::echo();
    let (port, beside) = (free_port(), free_port());
    let relay = Launch::new(format!(
        "id = spawnd {{ listen {{ address = 0.0.0.0 port = {port} vrf = test-blue }} \
         listen {{ address = 0.0.0.0 port = {beside} }} \
         spawn {{ instances min = 1 instances max = 1 }} }}\n\
         id = tcprelay {{ {} }}\n",
        peer.remote()
    ))
    .start();
    assert!(!relay.log().contains("failed"), "{}", relay.log());
    let inside = |port| {
        let fd = Socket::new(Family::Ipv4, Kind::Stream, Protocol::Tcp)?;
        fd.set_vrf("test-blue")?;
        let address = Address::Ip(SocketAddr::from(([192, 0, 2, 1], port)));
        // SO_SNDTIMEO also limits connecting.
        let stream = as_stream(fd);
        let fd = Socket::from(stream);
        assert_eq!(fd.connect(&address)?, Attempt::Connected, "timed out");
        Ok(TcpStream::from(OwnedFd::from(fd)))
    };
    let outside = |port| TcpStream::connect(("127.0.0.1", port));
    ping(&mut inside(port).expect("a connection"), b"inside");
    ping(&mut outside(beside).expect("a connection"), b"outside");
    let refused = |result: io::Result<TcpStream>| {
        result.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    assert!(refused(outside(port)), "served outside of its VRF");
    assert!(refused(inside(beside)), "served in a VRF");
}

/// One of the kernel's TLS counters.
fn tls_counter(name: &str) -> u64 {
    let file = "/proc/net/tls_stat";
    let counters = fs::read_to_string(file).expect(file);
    let mut lines = counters.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|line| line.first() == Some(&name)).expect(name);
    line[1].parse().expect("a number")
}

/// A client that trusts this certificate and speaks only this version.
fn tls_client(trusted: &Identity, version: SslVersion) -> SslConnector {
    let mut store = X509StoreBuilder::new().expect("a store");
    store.add_cert(trusted.certificate.clone()).expect("a certificate");
    let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("a client");
    builder.set_cert_store(store.build());
    builder.set_min_proto_version(Some(version)).expect("a version");
    builder.set_max_proto_version(Some(version)).expect("a version");
    builder.build()
}

/// As [`both_ways`], but in one thread, because two threads cannot use one OpenSSL session.
fn both_ways_with_tls(stream: &mut SslStream<TcpStream>, data: &[u8]) {
    stream.get_ref().set_nonblocking(true).expect("nonblocking");
    let mut answer = vec![0; data.len()];
    let (mut sent, mut received) = (0, 0);
    // How many bytes a call has moved; `None` if it would block.
    let progress = |result: io::Result<usize>| match result {
        Ok(0) => panic!("the session ends early"),
        Ok(count) => Some(count),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    };
    while received < data.len() {
        let mut wanted = libc::POLLIN;
        if sent < data.len() {
            // At most one record at a time, so that reading gets its turn.
            let end = data.len().min(sent + 16384);
            match progress(stream.write(&data[sent..end])) {
                Some(count) => (sent, wanted) = (sent + count, 0),
                None => wanted |= libc::POLLOUT,
            }
        }
        match progress(stream.read(&mut answer[received..])) {
            Some(count) => received += count,
            None if wanted != 0 => {
                let fd = stream.get_ref().as_raw_fd();
                let mut entry = libc::pollfd { fd, events: wanted, revents: 0 };
                // SAFETY: the pointer is to one entry, which outlives the call.
                let ready = unsafe { libc::poll(&mut entry, 1, PATIENCE.as_millis() as i32) };
                assert!(ready == 1, "stuck after {sent} bytes sent and {received} received");
            }
            None => {}
        }
    }
    stream.get_ref().set_nonblocking(false).expect("blocking");
    assert!(answer == data, "changed on the way");
}

/// A relay in front of an echo, with TLS records handled by the kernel.
struct KernelTls {
    relay: Relay,
    port: u16,
    identity: Identity,
    _peer: Peer,
    _files: Directory,
}

impl KernelTls {
    /// With further directives of the worker's section.
    fn start(directives: &str) -> KernelTls {
        let peer = Peer::echo();
        let identity = Identity::own(&["localhost"]);
        let files = Directory::new();
        let port = free_port();
        let relay = Launch::new(format!(
            "id = spawnd {{ listen {{ address = 127.0.0.1 port = {port} tls = yes }} \
             spawn {{ instances min = 1 instances max = 1 }} }}\n\
             id = tcprelay {{ {}\n{}tls kernel = yes\n{directives} }}\n",
            peer.remote(),
            identity.directives(files.path(), "own")
        ))
        .start();
        KernelTls { relay, port, identity, _peer: peer, _files: files }
    }
}

#[test]
fn the_kernel_seals_and_opens_the_records_of_a_listener() {
    if !in_machine() {
        return;
    }
    let KernelTls { relay: _relay, port, identity, .. } = &KernelTls::start("");
    let port = *port;
    let data = pattern(2, 16 << 20);
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let counters = || ["TlsTxSw", "TlsRxSw"].map(tls_counter);
        let before = counters();
        let client = tls_client(identity, version);
        let mut stream = client.connect("localhost", connect(port)).expect("a handshake");
        both_ways_with_tls(&mut stream, &data);
        // The end is signalled by close_notify in both directions.
        stream.shutdown().expect("to say that nothing follows");
        assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
        let name = stream.ssl().version_str();
        let (after, suite) = (counters(), stream.ssl().current_cipher().expect("a suite").name());
        eprintln!("{name} {suite}: TlsTxSw, TlsRxSw {before:?} -> {after:?}");
        assert!(after[0] > before[0] && after[1] > before[1], "{name}: the kernel was not asked");
    }
}

/// Sends 400,000 bytes each way, of which one is limited to 200,000 a second by this directive.
fn keeps_to_its_bandwidth(directive: &str) {
    const SIZE: usize = 400_000;
    let KernelTls { relay: _relay, port, identity, .. } = &KernelTls::start(directive);
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let counters = || ["TlsTxSw", "TlsRxSw"].map(tls_counter);
        let before = counters();
        let client = tls_client(identity, version);
        let mut stream = client.connect("localhost", connect(*port)).expect("a handshake");
        let start = Instant::now();
        both_ways_with_tls(&mut stream, &pattern(3, SIZE));
        let took = start.elapsed().as_secs_f64();
        let (after, name) = (counters(), stream.ssl().version_str());
        assert!(after[0] > before[0] && after[1] > before[1], "{name}: the kernel was not asked");
        // A tenth of a second's worth may go at once, and two records more.
        let least = (SIZE as f64 - 20_000.0 - 33_000.0) / 200_000.0;
        eprintln!("{name}, {directive}: {SIZE} bytes in {took:.2} s");
        assert!(took >= least, "{took} s instead of {least} s");
        assert!(took <= 5.0 * least, "{took} s: it hardly moves");
    }
}

#[test]
fn bandwidth_up_is_kept_to_when_the_kernel_has_the_records() {
    if in_machine() {
        keeps_to_its_bandwidth("bandwidth up = 200000");
    }
}

#[test]
fn bandwidth_down_is_kept_to_when_the_kernel_has_the_records() {
    if in_machine() {
        keeps_to_its_bandwidth("bandwidth down = 200000");
    }
}

/// Sends `input` with openssl s_client, where a line with K updates the keys; returns what comes
/// back.
fn s_client(port: u16, version: &str, input: &[&str]) -> String {
    let mut client = Command::new(program("openssl"))
        .args(["s_client", "-quiet", "-no_ign_eof", version, "-connect"])
        .arg(format!("127.0.0.1:{port}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl");
    let mut stdin = client.stdin.take().expect("a pipe");
    let mut stdout = client.stdout.take().expect("a pipe");
    let mut answer = Vec::new();
    for line in input {
        // Commands written together would be read as one command, or as data.
        if stdin.write_all(format!("{line}\n").as_bytes()).is_err() {
            break;
        }
        let mut part = [0; 1024];
        if line.len() > 1 {
            match stdout.read(&mut part) {
                Ok(count @ 1..) => answer.extend_from_slice(&part[..count]),
                _ => break,
            }
        }
        // There is no answer to the command that could be waited for.
        outlast(std::time::Duration::from_millis(500));
    }
    drop(stdin);
    let _ = client.kill();
    let _ = client.wait();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn new_keys_are_given_to_the_kernel_or_the_session_ends() {
    if !in_machine() {
        return;
    }
    let KernelTls { relay, port, .. } = &KernelTls::start("");
    let port = *port;
    let worker = relay.workers()[0];
    let before = descriptors(worker);
    let answer = s_client(port, "-tls1_3", &["first", "K", "second"]);
    assert!(answer.starts_with("first\n"), "{answer:?}");
    // Kernels before 6.14 cannot install new keys.
    if !answer.ends_with("second\n") {
        relay.expect_log("the kernel takes no new keys");
    }
    wait_for("the end of the session", || (descriptors(worker) == before).then_some(()));
    // Renegotiation is refused, and does no harm.
    let answer = s_client(port, "-tls1_2", &["first", "R", "second"]);
    assert!(answer.starts_with("first\n"), "{answer:?}");
    wait_for("the end of the session", || (descriptors(worker) == before).then_some(()));
    let ticks = cpu_ticks(worker);
    nothing_happens_for(std::time::Duration::from_millis(500));
    assert!(cpu_ticks(worker) - ticks <= 5, "no busy loop");
}
