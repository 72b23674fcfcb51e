//! What a session must do, with every event mechanism of the build.

mod common;
#[path = "relay/ends.rs"]
mod ends;
#[path = "relay/remotes.rs"]
mod remotes;
#[path = "relay/timeouts.rs"]
mod timeouts;

use common::ways::*;
use common::*;
use mavis::os::socket::{Options, Socket};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

fn read_all(mut stream: TcpStream) -> Vec<u8> {
    let mut data = Vec::new();
    stream.read_to_end(&mut data).expect("everything, then end of file");
    data
}

/// A port whose backlog is full: connect attempts are neither accepted nor refused.
fn black_hole() -> (u16, Vec<std::os::fd::OwnedFd>) {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    let port = free_port();
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("a listener");
    // SAFETY: listen(2) takes plain numbers.
    unsafe { libc::listen(listener.as_raw_fd(), 0) };
    let mut kept: Vec<OwnedFd> = vec![listener.into()];
    for _ in 0..4 {
        // SAFETY: socket(2) takes plain numbers; the new descriptor is owned by nobody else.
        let fd = unsafe {
            OwnedFd::from_raw_fd(libc::socket(
                libc::AF_INET,
                libc::SOCK_STREAM | libc::SOCK_NONBLOCK,
                0,
            ))
        };
        // SAFETY: sockaddr_in is plain data, for which all zeroes is valid.
        let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
        address.sin_family = libc::AF_INET as libc::sa_family_t;
        address.sin_port = port.to_be();
        address.sin_addr.s_addr = u32::from_be_bytes([127, 0, 0, 1]).to_be();
        // SAFETY: the pointer and the length describe `address`.
        unsafe {
            libc::connect(
                fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_in>() as libc::socklen_t,
            );
        }
        kept.push(fd);
    }
    (port, kept)
}

#[test]
fn the_mechanism_is_the_one_asked_for() {
    for (mechanism, name) in mechanisms() {
        let (relay, _) = through(mechanism, &remote(1));
        relay.expect_log(&format!("{name} event notification mechanism is being used"));
    }
}

#[test]
fn a_listener_may_be_a_unix_socket() {
    let peer = Peer::echo();
    let directory = Directory::new();
    let path = directory.file("listener");
    let config = format!(
        "id = spawnd {{ listen = {{ path = {} mode = 0600 }} spawn {{ instances max = 1 }} }}\n\
         id = tcprelay {{ {} access log = yes }}\n",
        path.display(),
        peer.remote()
    );
    // Leaves a stale socket file in the way.
    drop(UnixListener::bind(&path).expect("a listener"));
    let mut relay = Launch::new(config).start();
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&path).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut client = std::os::unix::net::UnixStream::connect(&path).expect("to connect");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    client.write_all(b"word").expect("to send");
    let mut answer = [0; 4];
    client.read_exact(&mut answer).expect("an answer");
    drop(client);
    relay.expect_log("access: client local");
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.wait().code(), Some(0));
    assert!(!path.exists(), "the socket goes with the broker");
}

#[test]
fn a_client_that_leaves_while_the_remote_is_connected_leaks_nothing() {
    each(|way| {
        let (hole, _queued) = black_hole();
        let section = format!("{}connect timeout = 1\n", remote(hole));
        let (relay, port) = through(way, &section);
        let worker = relay.workers()[0];
        let before = descriptors(worker);
        for leave_by_reset in [true, false] {
            let client = connect(port);
            wait_for("the session", || (descriptors(worker) > before).then_some(()));
            if leave_by_reset {
                reset(client);
            } else {
                drop(client);
            }
            wait_for("its end", || (descriptors(worker) == before).then_some(()));
        }
    });
}

#[test]
fn half_dead_sessions_cost_no_cpu() {
    each(|way| {
        let (peer, arrived) = Peer::manual();
        let (relay, port) = through(way, &peer.remote());
        let worker = relay.workers()[0];
        // Half-closed clients, half-closed remotes, and clients with all buffers full of unread
        // data.
        let mut kept = Vec::new();
        for kind in 0..3 {
            for _ in 0..10 {
                let client = connect(port);
                let remote = next(&arrived);
                match kind {
                    0 => client.shutdown(Shutdown::Write).expect("to shut down"),
                    1 => remote.shutdown(Shutdown::Write).expect("to shut down"),
                    _ => {
                        client.set_nonblocking(true).expect("nonblocking");
                        while (&client).write(&[0; 65536]).is_ok() {}
                    }
                }
                kept.push((client, remote));
            }
        }
        // Clients that have ended both directions while their remotes do not read.
        for (client, _) in &kept[20..] {
            let _ = client.shutdown(Shutdown::Both);
        }
        // Data in flight may take a while on a slow machine; after that there must be nothing to
        // do.
        wait_for("rest", || {
            let before = (cpu_ticks(worker), cpu_ticks(relay.pid()));
            nothing_happens_for(Duration::from_millis(500));
            let after = (cpu_ticks(worker), cpu_ticks(relay.pid()));
            (after.0 - before.0 <= 2 && after.1 - before.1 <= 2).then_some(())
        });
    });
}

#[test]
fn the_access_log_has_a_line_per_session() {
    let peer = Peer::echo();
    let (relay, port) = through("4", &format!("{}access log = yes\n", peer.remote()));
    let mut client = connect(port);
    let from = client.local_addr().expect("an address").port();
    ping(&mut client, b"twelve bytes");
    drop(client);
    let line = format!(
        "access: client [127.0.0.1]:{from} listener [127.0.0.1]:{port} remote [127.0.0.1]:{} \
         sent 12 received 12 seconds ",
        peer.port
    );
    let seconds: f64 =
        relay.wait_for_log(&line, |log| log.split_once(&line)?.1.split(' ').next()?.parse().ok());
    assert!((0.0..PATIENCE.as_secs_f64()).contains(&seconds), "{seconds}");
    reset(connect(port));
    relay.expect_log("broken by client");
}

#[test]
fn many_sessions_leave_nothing_behind() {
    each(|way| {
        // Ten thousand sessions on the way that most users take, fewer on the others: a handshake
        // takes a hundred times as long.
        let sessions = match (way.mechanism == mechanisms()[0].0, way.tls) {
            (true, None) => 1000,
            (false, None) => 200,
            (_, Some(_)) => 100,
        };
        let peer = Peer::echo();
        let (relay, port) = through(way, &peer.remote());
        let worker = relay.workers()[0];
        let round = |count: usize| {
            let threads: Vec<_> = (0..10)
                .map(|_| {
                    thread::spawn(move || {
                        for _ in 0..count {
                            let mut client = connect(port);
                            ping(&mut client, b"x");
                        }
                    })
                })
                .collect();
            for thread in threads {
                thread.join().expect("a client");
            }
        };
        round(20);
        wait_for("the sessions to end", || {
            title(worker).ends_with(": 0 connections").then_some(())
        });
        let before = (descriptors(worker), private_memory(worker), descriptors(relay.pid()));
        round(sessions);
        wait_for("the sessions to end", || {
            title(worker).ends_with(": 0 connections").then_some(())
        });
        let after = (descriptors(worker), private_memory(worker), descriptors(relay.pid()));
        assert_eq!((after.0, after.2), (before.0, before.2), "descriptors");
        // How many sessions overlap varies, and so does the heap's peak: with OpenSSL's records
        // each takes 15 KiB.
        let most = if way.tls.is_some() { 800_000 } else { 200_000 };
        assert!(after.1 <= before.1 + most, "memory: {before:?} {after:?}");
    });
}
