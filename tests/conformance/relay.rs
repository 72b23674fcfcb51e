//! What happens to the bytes of a session, when it ends, and how its remote is addressed.

use crate::common::{
    connect, descriptors, echo, expect_eof, expect_reset, free_port, kill, next, pace, pattern,
    ping, relay, remote, reset, wait_for, Peer, Relay, PATIENCE,
};
use crate::failover::first_peer_down;
use crate::runner::{exclude, Entry};
use crate::support::{
    client, count, eventually_served, expect_title, has_been_closed, load, name_of_peer, read_all,
    section, serving_worker, wait_loads, Launch, MassEcho,
};
use crate::timeouts::silence;
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

pub(crate) const CASES: &[Entry] = &[
    ("E001", e001),
    ("E002", e002),
    ("E003", e003),
    ("E004", e004),
    ("E005", e005),
    ("E006", e006),
    ("E007", e007),
    ("E008", || large_answer("")),
    ("E009", e009),
    ("E010", e010),
    ("E029", e029),
    ("E030", e030),
    ("E031", e031),
    ("E032", e032),
    ("E033", e033),
    ("E034", e034),
    ("E035", e035),
    ("E036", e036),
    ("E037", e037),
    ("E038", e038),
    ("E040", e040),
    ("E041", e041),
    ("E042", e042),
];

/// A relay with the test as its remote: one client, and the remote's end of its session.
fn pair() -> (Relay, Peer, TcpStream, TcpStream) {
    let (peer, streams) = Peer::manual();
    let (relay, port) = relay(peer.remote()).start();
    let client = connect(port);
    let end = next(&streams);
    (relay, peer, client, end)
}

/// Reads everything up to a clean end of file.
pub(crate) fn read_clean(stream: &mut TcpStream) -> Vec<u8> {
    let (data, error) = read_all(stream);
    assert!(error.is_none(), "{error:?} after {} bytes", data.len());
    data
}

/// Waits until the worker has no connection left, and the broker knows.
pub(crate) fn all_freed(relay: &Relay) {
    wait_loads(relay, 0);
    expect_title(relay.pid(), ": 0 connections, ");
}

fn e001() {
    let (relay, _peer, mut client, mut end) = pair();
    let (question, answer) = (pattern(1, 1000), pattern(2, 200_000));
    client.write_all(&question).expect("to send");
    client.shutdown(Shutdown::Write).expect("to shut down");
    assert_eq!(read_clean(&mut end), question);
    end.write_all(&answer).expect("to send");
    drop(end);
    let received = read_clean(&mut client);
    assert!(received == answer, "{} bytes", received.len());
    all_freed(&relay);
}

fn e002() {
    let (relay, _peer, mut client, mut end) = pair();
    let data = pattern(3, 100_000);
    end.write_all(&data[..50_000]).expect("to send");
    client.shutdown(Shutdown::Write).expect("to shut down");
    expect_eof(&mut end);
    end.write_all(&data[50_000..]).expect("to send");
    drop(end);
    let received = read_clean(&mut client);
    assert!(received == data, "{} bytes", received.len());
    all_freed(&relay);
}

fn e003() {
    let (relay, _peer, mut client, mut end) = pair();
    end.write_all(b"hello").expect("to send");
    end.shutdown(Shutdown::Write).expect("to shut down");
    assert_eq!(read_clean(&mut client), b"hello");
    let data = pattern(4, 10_000);
    client.write_all(&data[..5000]).expect("to send");
    client.write_all(&data[5000..]).expect("to send");
    drop(client);
    let received = read_clean(&mut end);
    assert!(received == data, "{} bytes", received.len());
    all_freed(&relay);
}

fn e004() {
    let (_relay, _peer, mut client, mut end) = pair();
    let data = pattern(5, 300_000);
    let expected = data.clone();
    let slow = thread::spawn(move || {
        let (mut received, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match end.read(&mut buffer).expect("to receive") {
                0 => break,
                count => received.extend_from_slice(&buffer[..count]),
            }
            pace(Duration::from_millis(1));
        }
        end.write_all(b"OK").expect("to send");
        received
    });
    client.write_all(&data).expect("to send");
    client.shutdown(Shutdown::Write).expect("to shut down");
    assert_eq!(read_clean(&mut client), b"OK");
    assert!(slow.join().expect("the peer") == expected);
}

fn e005() {
    let (relay, _peer, mut client, mut end) = pair();
    client.write_all(b"x").expect("to send");
    end.read_exact(&mut [0]).expect("to receive");
    reset(client);
    expect_reset(&mut end);
    all_freed(&relay);
}

/// Sends this through a session that is up for certain, and resets when it is at the relay.
fn answer_and_reset(client: &mut TcpStream, mut end: TcpStream, data: &[u8]) {
    client.write_all(b"?").expect("to send");
    end.read_exact(&mut [0]).expect("to receive");
    end.write_all(data).expect("to send");
    wait_for("the data at the relay", || (unacknowledged(&end) == 0).then_some(()));
    reset(end);
}

fn e006() {
    let (relay, _peer, mut client, end) = pair();
    answer_and_reset(&mut client, end, b"xy");
    let (received, error) = read_all(&mut client);
    assert_eq!(received, b"xy");
    assert!(error.is_some(), "a clean end of file");
    all_freed(&relay);
}

fn e007() {
    let (relay, _peer, mut client, end) = pair();
    let data = pattern(6, 3000);
    answer_and_reset(&mut client, end, &data);
    all_freed(&relay);
    // A client that reads late.
    pace(Duration::from_millis(300));
    let (received, error) = read_all(&mut client);
    assert!(received == data, "{} bytes", received.len());
    assert!(error.is_some(), "a clean end of file");
}

/// A relay to a manual server, with this event mechanism.
pub(crate) fn with_mechanism(mechanism: &str, text: &str) -> (u16, Relay) {
    let port = free_port();
    let launch = Launch::simple(port, text);
    let launch = match mechanism {
        "" => launch,
        value => launch.environment("IO_POLL_MECHANISM", value),
    };
    (port, launch.start())
}

/// E008: a large answer to a slow client.
fn large_answer(mechanism: &str) {
    let (peer, streams) = Peer::manual();
    let (port, _relay) = with_mechanism(mechanism, &peer.remote());
    let mut client = connect(port);
    let mut end = next(&streams);
    let data = pattern(7, 5_000_000);
    let sent = data.clone();
    let sender = thread::spawn(move || end.write_all(&sent).expect("to send"));
    let (mut received, mut buffer) = (Vec::new(), [0; 8192]);
    loop {
        let count = client.read(&mut buffer).expect("to receive");
        if count == 0 {
            break;
        }
        received.extend_from_slice(&buffer[..count]);
        if received.len() % 10 == 0 {
            pace(Duration::from_millis(1));
        }
    }
    sender.join().expect("the peer");
    assert!(received == data, "{} bytes", received.len());
}

/// Bytes sent and not yet acknowledged.
fn unacknowledged(stream: &TcpStream) -> usize {
    let mut queued: libc::c_int = 0;
    let fd = std::os::fd::AsRawFd::as_raw_fd(stream);
    // SAFETY: the pointer describes `queued`.
    let result = unsafe { libc::ioctl(fd, libc::TIOCOUTQ as _, &raw mut queued) };
    assert_eq!(result, 0, "TIOCOUTQ");
    queued as usize
}

fn e009() {
    let (relay, _peer, mut client, mut end) = pair();
    client.write_all(&pattern(8, 21_000)).expect("to send");
    // All of it arrives at the remote, which never reads it.
    wait_for("the client's data at the peer", || {
        (end.peek(&mut [0; 21_000]).ok()? == 21_000).then_some(())
    });
    let data = pattern(9, 500_000);
    let sent = data.clone();
    let sender = thread::spawn(move || {
        end.write_all(&sent).expect("to send");
        end
    });
    let (mut received, mut buffer) = (Vec::new(), [0; 16384]);
    client.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
    while !sender.is_finished() {
        if let Ok(count) = client.read(&mut buffer) {
            received.extend_from_slice(&buffer[..count]);
        }
    }
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let end = sender.join().expect("the peer");
    let reached = data.len() - unacknowledged(&end);
    // Closing with unread input resets the connection.
    drop(end);
    let (rest, error) = read_all(&mut client);
    received.extend_from_slice(&rest);
    assert!(data.starts_with(&received), "{} bytes differ", received.len());
    assert!(error.is_some(), "a clean end of file after {} bytes", received.len());
    assert!(received.len() >= reached, "{} of {reached} bytes", received.len());
    assert!(received.len() > 12288, "{} bytes", received.len());
    all_freed(&relay);
}

fn e010() {
    let peer = Peer::echo();
    let (_relay, port) = relay(peer.remote()).start();
    let data = pattern(10, 20_000_000);
    let mut client = connect(port);
    let mut sender = client.try_clone().expect("another handle");
    let sent = data.clone();
    let thread = thread::spawn(move || {
        sender.write_all(&sent).expect("to send");
        sender.shutdown(Shutdown::Write).expect("to shut down");
    });
    let received = read_clean(&mut client);
    thread.join().expect("the sender");
    assert!(received == data, "{} bytes", received.len());
}

fn e029() {
    let (peer, port) = (Peer::echo(), free_port());
    let text = format!("{}retire limit = 3\n", peer.remote());
    let spawn = "instances max = 3 users min = 10 users max = 10";
    let relay = Launch::new(section(port, "", spawn, &text)).start();
    let first = relay.workers()[0];
    let mut streams: Vec<TcpStream> = (0..3).map(|_| client(port)).collect();
    relay.expect_log(&format!("[{first}]: Retire limit reached. Told parent about this."));
    expect_title(first, "3 connections left, dying when idle");
    let others: Vec<TcpStream> = (0..2).map(|_| client(port)).collect();
    assert_eq!(load(first), Some(3));
    let second = relay.workers().into_iter().find(|&pid| pid != first).expect("another worker");
    wait_for("the others in the new worker", || (load(second)? == 2).then_some(()));
    for stream in &mut streams {
        ping(stream, b"still there");
    }
    drop(streams);
    relay.expect_log(&format!("[{first}]: Terminating, no longer needed."));
    relay.expect_log(&format!("child (pid {first}) terminated normally"));
    drop(others);
}

fn e030() {
    let peer = Peer::echo();
    let (relay, port) = relay(format!("{}retire limit = 1\n", peer.remote())).start();
    for _ in 0..100 {
        client(port);
    }
    assert!(count(&relay, "Retire limit reached") > 1, "{}", relay.log());
    assert_eq!(count(&relay, "abnormally"), 0);
}

fn e031() {
    let (echo, port) = (MassEcho::new(), free_port());
    let text = format!("{}retire limit = 10\n", remote(echo.port));
    let spawn = "instances max = 8 users max = 100";
    let relay = Launch::new(section(port, "", spawn, &text)).start();
    let threads: Vec<_> = (0..20)
        .map(|_| {
            thread::spawn(move || {
                let mut streams: Vec<TcpStream> = (0..10).map(|_| connect(port)).collect();
                for stream in &mut streams {
                    ping(stream, b"hello");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("all are served");
    }
    assert!(count(&relay, "Retire limit reached") > 1, "{}", relay.log());
    assert_eq!(count(&relay, "abnormally"), 0);
}

fn e032() {
    let (peer, streams) = Peer::manual();
    let text = format!("{}local address = 127.0.0.9\n", peer.remote());
    let (_relay, port) = relay(&text).start();
    let _client = connect(port);
    let source = next(&streams).peer_addr().expect("the source");
    assert_eq!(source.ip(), Ipv4Addr::new(127, 0, 0, 9));
}

fn e033() {
    let peer = Peer::named("A");
    let (relay, port) = relay(format!("{}local address = ::1\n", peer.remote())).start();
    for _ in 0..3 {
        assert!(has_been_closed(&mut connect(port)));
    }
    let worker = format!("[{}]: ", relay.workers()[0]);
    let lines = |text: &str| {
        let log = relay.log();
        log.lines().filter(|line| line.contains(&worker) && line.contains(text)).count()
    };
    assert_eq!(lines("family"), 1, "{}", relay.log());
    // A remote of the right family is used.
    let listener = TcpListener::bind("[::1]:0").expect("a listener");
    let other = listener.local_addr().expect("its address").port();
    let text = format!(
        "{}remote = {{ address = ::1 port = {other} }}\nlocal address = ::1\n",
        peer.remote()
    );
    let (_relay, port) = crate::common::relay(&text).start();
    let mut client = connect(port);
    let (mut end, _) = listener.accept().expect("a connection");
    end.write_all(b"B").expect("to send");
    assert_eq!(name_of_peer(&mut client), "B");
}

fn e034() {
    let port = free_port();
    let text = "remote = { address = @DIR@/peer port = 1 }\n";
    let launch = Launch::simple(port, text);
    let listener = UnixListener::bind(launch.directory.file("peer")).expect("a socket");
    let _relay = launch.start();
    let mut client = connect(port);
    client.write_all(b"question").expect("to send");
    client.shutdown(Shutdown::Write).expect("to shut down");
    let (mut end, _) = listener.accept().expect("a connection");
    let mut question = Vec::new();
    end.read_to_end(&mut question).expect("the question");
    assert_eq!(question, b"question");
    end.write_all(b"answer").expect("to send");
    drop(end);
    assert_eq!(read_clean(&mut client), b"answer");
}

fn e035() {
    let listener = TcpListener::bind("[::1]:0").expect("a listener");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        if let Ok((stream, _)) = listener.accept() {
            echo(stream);
        }
    });
    let text = format!("remote = {{ address = ::1 port = {port} }}\n");
    let (_relay, port) = relay(&text).start();
    client(port);
}

fn e036() {
    let peer = Peer::echo();
    let text = format!("remote = {{ address = 127.0.0.1:{} port = 1 }}\n", peer.port);
    let (_relay, port) = relay(&text).start();
    client(port);
}

fn e037() {
    // An address of our own, so that no real server on that port interferes.
    let address = SocketAddr::from(([127, 0, 0, 77], 22));
    let listener = match TcpListener::bind(address) {
        Ok(listener) => listener,
        Err(error) => exclude(&format!("cannot listen on {address}: {error}")),
    };
    thread::spawn(move || {
        if let Ok((stream, _)) = listener.accept() {
            echo(stream);
        }
    });
    let (_relay, port) = relay("remote = { address = 127.0.0.77 port = ssh }\n").start();
    client(port);
}

fn e038() {
    crate::listeners::require_no_sctp();
    let peer = Peer::echo();
    let text = format!("remote = {{ address = 127.0.0.1 port = {} protocol = SCTP }}\n", peer.port);
    let (relay, port) = relay(&text).start();
    for _ in 0..3 {
        assert!(has_been_closed(&mut connect(port)));
    }
    relay.expect_log("Protocol not supported");
    assert_eq!(count(&relay, "Protocol not supported"), 1, "{}", relay.log());
    assert_eq!(count(&relay, "Bad file descriptor"), 0);
}

fn e040() {
    large_answer("8");
    first_peer_down("8");
    silence("8");
}

fn e041() {
    let peer = Peer::echo();
    let (relay, port) = relay(peer.remote()).start();
    let mut streams: Vec<TcpStream> = (0..3).map(|_| client(port)).collect();
    wait_loads(&relay, 3);
    kill(relay.workers()[0], Signal::SIGKILL);
    for stream in &mut streams {
        assert!(has_been_closed(stream));
    }
    expect_title(relay.pid(), ": 0 connections, ");
    eventually_served(port);
}

fn e042() {
    let echo = MassEcho::new();
    let (relay, port) = relay(remote(echo.port)).start();
    let worker = serving_worker(&relay);
    let before = descriptors(worker);
    let mut streams: Vec<TcpStream> = (0..2500).map(|_| connect(port)).collect();
    for stream in &mut streams {
        stream.write_all(b"hello").expect("to send");
    }
    for stream in &mut streams {
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"hello");
    }
    assert_eq!(relay.workers(), [worker]);
    wait_loads(&relay, 2500);
    drop(streams);
    all_freed(&relay);
    wait_for("the descriptors to be closed", || (descriptors(worker) <= before).then_some(()));
    wait_for("the peer's ends", || {
        (echo.open.load(std::sync::atomic::Ordering::Relaxed) == 0).then_some(())
    });
}
