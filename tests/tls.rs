//! TLS from a user's point of view: real clients, certificates that are replaced, sessions that are
//! resumed.

#[path = "tls/certificates.rs"]
mod certificates;
mod common;
#[path = "tls/programs.rs"]
mod programs;
#[path = "tls/resumption.rs"]
mod resumption;

use common::memory::memory_contains;
use common::pki::{self, Identity};
use common::*;
use nix::sys::signal::Signal;
use openssl::ssl::{
    ShutdownState, SslConnector, SslConnectorBuilder, SslMethod, SslSession, SslSessionCacheMode,
    SslStream, SslVerifyMode, SslVersion,
};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::X509;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A client that trusts this certificate or authority.
fn connector(trusted: &X509) -> SslConnectorBuilder {
    let mut store = X509StoreBuilder::new().expect("a store");
    store.add_cert(trusted.clone()).expect("a certificate");
    let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("a client");
    builder.set_cert_store(store.build());
    builder
}

fn handshake(client: &SslConnector, port: u16) -> io::Result<SslStream<TcpStream>> {
    let address = ([127, 0, 0, 1], port).into();
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    client.connect("localhost", stream).map_err(|error| io::Error::other(error.to_string()))
}

fn exchange(stream: &mut SslStream<TcpStream>, word: &[u8]) {
    stream.write_all(word).expect("to send");
    let mut answer = vec![0; word.len()];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer, word);
}

/// A relay with a TLS listener; `section` is added to the directives for its certificate.
struct Service {
    relay: Relay,
    port: u16,
    identity: Identity,
    files: Directory,
}

impl Service {
    fn start(listener: &str, spawn: &str, section: &str) -> Service {
        let identity = Identity::own(&["localhost", "127.0.0.1"]);
        let files = Directory::new();
        let directives = identity.directives(files.path(), "own");
        let workers = if spawn.contains("instances min = 2") { 2 } else { 1 };
        let section = format!("{section}\n{directives}access log = yes");
        let (relay, port) = relay(section).workers(workers).listen(listener).spawn(spawn).start();
        Service { relay, port, identity, files }
    }

    fn simple(section: &str) -> Service {
        Service::start("tls = yes", "instances min = 1 instances max = 1 users max = 5000", section)
    }

    fn client(&self) -> SslConnector {
        connector(&self.identity.certificate).build()
    }

    fn reload(&self) {
        let before = self.relay.log().matches("SIGHUP: restarting").count();
        self.relay.signal(Signal::SIGHUP);
        self.relay.wait_for_log("the restart", |log| {
            (log.matches("SIGHUP: restarting").count() > before).then_some(())
        });
    }
}

#[test]
fn slow_handshakes_end_and_hold_up_nobody() {
    let peer = Peer::echo();
    let service = Service::simple(&format!("{}tls handshake timeout = 3\n", peer.remote()));
    let worker = service.relay.workers()[0];
    let before = descriptors(worker);
    let start = Instant::now();
    let silent: Vec<TcpStream> = (0..50).map(|_| connect(service.port)).collect();
    let mut half: Vec<TcpStream> = (0..50).map(|_| connect(service.port)).collect();
    for stream in &mut half {
        stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1]).expect("half a record");
    }
    let client = service.client();
    exchange(&mut handshake(&client, service.port).expect("a handshake"), b"quick");
    for mut stream in silent.into_iter().chain(half) {
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert!(start.elapsed() >= Duration::from_millis(2900), "{:?}", start.elapsed());
    wait_for("their descriptors", || (descriptors(worker) <= before).then_some(()));
    service.relay.expect_log("handshake timeout");
}

#[test]
fn an_automatic_listener_takes_both() {
    let peer = Peer::echo();
    let spawn = "instances min = 1 instances max = 1 users max = 100";
    let service = Service::start("tls = auto", spawn, &peer.remote());
    let client = service.client();
    exchange(&mut handshake(&client, service.port).expect("a handshake"), b"with TLS");
    ping(&mut connect(service.port), b"plain");
    // Bytes that look like TLS at first are passed on like any others.
    let mut stream = connect(service.port);
    for word in [&b"\x16"[..], b"\x03\x01", b"\xff\xff plain after all"] {
        stream.write_all(word).expect("to send");
        pace(Duration::from_millis(20));
    }
    stream.shutdown(Shutdown::Write).expect("to shut down");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the echo");
    assert_eq!(answer, b"\x16\x03\x01\xff\xff plain after all");
    let data = pattern(9, 1 << 20);
    let mut stream = connect(service.port);
    let copy = stream.try_clone().expect("a copy");
    let sent = data.clone();
    let sender = thread::spawn(move || {
        let mut copy = copy;
        copy.write_all(&sent).expect("to send");
        copy.shutdown(Shutdown::Write).expect("to shut down");
    });
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the echo");
    sender.join().expect("the sender");
    assert!(answer == data);
}

#[test]
fn a_remote_that_cannot_be_trusted_is_a_failed_remote() {
    let live = Peer::named("live");
    let trusted = Service::simple(&live.remote());
    let stranger = Service::simple(&live.remote());
    let plain = Peer::named("none");
    let ca = trusted.files.file("own.pem");
    let remote = |port: u16| {
        format!(
            "remote = {{ address = 127.0.0.1 port = {port} tls = yes tls ca-file = {} }}\n",
            ca.display()
        )
    };
    let section =
        format!("{}{}{}", remote(stranger.port), remote(plain.port), remote(trusted.port));
    let port = free_port();
    let relay = Launch::simple(port, &section).start();
    for _ in 0..3 {
        let mut client = connect(port);
        let mut name = [0; 4];
        client.read_exact(&mut name).expect("the name");
        assert_eq!(&name, b"live");
        ping(&mut client, b"and on");
    }
    relay.expect_log(&format!(
        "connect to [127.0.0.1]:{} (TCP) failed: TLS: error:0A000086:SSL routines::certificate \
         verify failed (self-signed certificate)",
        stranger.port
    ));
    relay.expect_log(&format!("connect to [127.0.0.1]:{} (TCP) failed: TLS: ", plain.port));
    // Every session after the first has resumed it.
    trusted.relay.wait_for_log("two resumed sessions", |log| {
        (log.matches(" resumed").count() >= 2).then_some(())
    });
}

#[test]
fn a_remote_that_does_not_shake_hands_is_given_up() {
    let live = Peer::named("live");
    let (silent, _arrived) = Peer::manual();
    let section = format!(
        "remote = {{ address = 127.0.0.1 port = {} tls = yes tls verify = no }}\n{}\
         tls handshake timeout = 1\n",
        silent.port,
        live.remote()
    );
    let port = free_port();
    let relay = Launch::simple(port, &section).start();
    let mut name = [0; 4];
    connect(port).read_exact(&mut name).expect("the name");
    assert_eq!(&name, b"live");
    relay.expect_log("failed: TLS: handshake timeout");
}

#[test]
fn idle_sessions_with_tls_are_cheap() {
    let (peer, arrived) = Peer::manual();
    let service = Service::simple(&peer.remote());
    let worker = service.relay.workers()[0];
    let client = service.client();
    let open = |count: usize| -> Vec<(SslStream<TcpStream>, TcpStream)> {
        (0..count)
            .map(|_| (handshake(&client, service.port).expect("a handshake"), next(&arrived)))
            .collect()
    };
    let warm = open(50);
    let before = private_memory(worker);
    let count = 400;
    let sessions = open(count);
    let each = (private_memory(worker).saturating_sub(before)) / count as u64;
    eprintln!("{each} bytes of private memory a session");
    assert!(each < 6000, "{each} bytes a session");
    drop((warm, sessions));
}

#[test]
fn nothing_of_a_handshake_waits_for_a_timer_of_the_system() {
    let peer = Peer::echo();
    let service = Service::simple(&peer.remote());
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let mut builder = connector(&service.identity.certificate);
        builder.set_max_proto_version(Some(version)).expect("a version");
        let client = builder.build();
        let fastest = (0..40).map(|_| {
            let start = Instant::now();
            exchange(&mut handshake(&client, service.port).expect("a handshake"), b"word");
            start.elapsed()
        });
        // If the last flight of each handshake were delayed by 200 ms, none would be faster than
        // that, however slow the machine is.
        let fastest = fastest.min().expect("handshakes");
        assert!(fastest < Duration::from_millis(200), "{fastest:?}");
    }
}

/// Passes connections on to `remote`, and changes one byte of the answer after `good` bytes.
fn tampering(remote: u16, good: usize) -> Peer {
    Peer::start(move |mut client| {
        let mut server = TcpStream::connect(("127.0.0.1", remote)).expect("the remote");
        let (mut from, mut to) =
            (client.try_clone().expect("a copy"), server.try_clone().expect("a copy"));
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
        });
        let (mut buffer, mut passed) = (vec![0; 16384], 0);
        while let Ok(count @ 1..) = server.read(&mut buffer) {
            if passed < good && passed + count >= good {
                buffer[count - 1] ^= 1;
            }
            passed += count;
            if client.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    })
}

#[test]
fn an_end_that_was_forged_is_not_passed_on_as_a_proper_one() {
    let answer = Peer::start(|mut stream| {
        let _ = stream.read(&mut [0; 100]);
        let _ = stream.write_all(&pattern(4, 200_000));
    });
    let behind = Service::simple(&answer.remote());
    let middle = tampering(behind.port, 100_000);
    let front = Service::simple(&format!(
        "remote = {{ address = 127.0.0.1 port = {} tls = yes tls ca-file = {} }}\n",
        middle.port,
        behind.files.file("own.pem").display()
    ));
    let mut stream = handshake(&front.client(), front.port).expect("a handshake");
    stream.write_all(b"please").expect("to send");
    let mut got = Vec::new();
    let _ = stream.read_to_end(&mut got);
    let told = stream.get_shutdown().contains(ShutdownState::RECEIVED);
    assert!(!told, "a proper end after {} bytes", got.len());
    assert!(got.len() < 200_000 && got == pattern(4, 200_000)[..got.len()]);
    front.relay.expect_log("TLS remote");
}
