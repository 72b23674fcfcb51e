//! TCP urgent data (telnet, ABOR of FTP, rlogin) arrives at its place in the stream, with every
//! mechanism and on every path that data may take.

mod common;

use common::ways::*;
use common::*;
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

/// A session with the test as client and as remote.
fn session(way: Way) -> (Relay, Peer, TcpStream, TcpStream) {
    let (peer, sessions) = Peer::manual();
    let (relay, port) = through(way, &peer.remote());
    let mut client = connect(port);
    client.write_all(b"first").expect("to send");
    let mut remote = next(&sessions);
    remote.read_exact(&mut [0; 5]).expect("what was sent first");
    (relay, peer, client, remote)
}

fn workers(relay: &Relay) -> Vec<i32> {
    let mut all = relay.workers();
    all.extend(relay.companions.iter().flat_map(Relay::workers));
    all
}

/// Sends while the workers are stopped, so that everything has arrived when they look, with the
/// urgent mark in the middle.
fn urgent_data_in_its_place(relay: &Relay, from: &mut TcpStream, to: &mut TcpStream, bulk: usize) {
    let (sent, reader) = (pattern(3, bulk), to.try_clone().expect("the same connection"));
    let expected = sent.clone();
    let reading = std::thread::spawn(move || {
        let mut reader = reader;
        let mut received = vec![0; expected.len() + b"before!behind".len()];
        reader.read_exact(&mut received).expect("all of it, without more being sent");
        assert!(received[..expected.len()] == expected);
        assert_eq!(&received[expected.len()..], b"before!behind");
    });
    from.write_all(&sent).expect("to send");
    let workers = workers(relay);
    workers.iter().for_each(|&pid| stop(pid));
    from.write_all(b"before").expect("to send");
    send_urgent(from, b'!');
    from.write_all(b"behind").expect("to send");
    // On loopback the data has arrived by the time send(2) returns.
    workers.iter().for_each(|&pid| kill(pid, Signal::SIGCONT));
    reading.join().expect("everything in order");
    // Urgent data right before the end must not be taken for the end.
    send_urgent(from, b'?');
    from.write_all(b"last").expect("to send");
    from.shutdown(Shutdown::Write).expect("to shut down");
    let mut rest = Vec::new();
    to.read_to_end(&mut rest).expect("the rest, and the end");
    assert_eq!(rest, b"?last");
}

#[test]
fn urgent_data_of_clients_arrives_in_its_place() {
    each(|way| {
        let (relay, _peer, mut client, mut remote) = session(way);
        urgent_data_in_its_place(&relay, &mut client, &mut remote, 0);
    });
}

#[test]
fn urgent_data_of_remotes_arrives_in_its_place() {
    each(|way| {
        let (relay, _peer, mut client, mut remote) = session(way);
        urgent_data_in_its_place(&relay, &mut remote, &mut client, 0);
    });
}

/// A bulk transfer is spliced, and stays spliced after urgent data.
#[test]
fn urgent_data_within_a_bulk_transfer_arrives_in_its_place() {
    each(|way| {
        let (relay, _peer, mut client, mut remote) = session(way);
        urgent_data_in_its_place(&relay, &mut client, &mut remote, 4 << 20);
        urgent_data_in_its_place(&relay, &mut remote, &mut client, 4 << 20);
    });
}

#[test]
fn urgent_data_of_unix_clients_arrives_in_its_place() {
    use std::os::fd::AsRawFd;
    let (peer, sessions) = Peer::manual();
    let directory = Directory::new();
    let path = directory.file("socket");
    let relay = Launch::new(format!(
        "id = spawnd {{ listen = {{ address = {} }} spawn {{ instances min = 1 instances max = 1 }} }}\n\
         id = tcprelay {{ {} }}\n",
        path.display(),
        peer.remote()
    ))
    .start();
    let mut client =
        wait_for("the listener", || std::os::unix::net::UnixStream::connect(&path).ok());
    client.write_all(b"before").expect("to send");
    // SAFETY: the pointer and the length describe a constant.
    let sent = unsafe { libc::send(client.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) };
    if sent != 1 {
        return left_out("this kernel has no urgent data on UNIX sockets");
    }
    client.write_all(b"behind").expect("to send");
    client.shutdown(Shutdown::Write).expect("to shut down");
    let mut received = Vec::new();
    next(&sessions).read_to_end(&mut received).expect("everything");
    assert_eq!(received, b"before!behind");
    drop(relay);
}
