//! Workers that break the protocol, hang, are stopped or leave: what happens to their connections.

mod common;

use common::*;
use mavis::os::channel::{self, Channel};
use nix::sys::signal::Signal;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const DONE: u32 = 0;
const KEEPALIVE: u32 = 1;
const DYING: u32 = 3;
const BAD_CONFIGURATION: u32 = 4;
const MAX: u32 = 5;
const ACCEPT: u32 = 6;
const HELLO: u32 = 64;

fn short(kind: u32, count: i32) -> [u8; 8] {
    let mut message = [0; 8];
    message[..4].copy_from_slice(&kind.to_ne_bytes());
    message[4..].copy_from_slice(&count.to_ne_bytes());
    message
}

/// The environment variable with the path of a test's socket; it makes this program a worker.
const ROLE: &str = "TCPRELAY_TEST_ROLE";

/// Not a test, but a worker: passes its channel to the test, and stays until the test lets it go.
#[test]
fn worker_role() {
    let Some(path) = std::env::var_os(ROLE) else {
        return;
    };
    let control = UnixStream::connect(path).expect("the test");
    // SAFETY: descriptor 0 is the channel, and open as long as this process.
    let inherited = unsafe { BorrowedFd::borrow_raw(0) };
    let pid = std::process::id().to_ne_bytes();
    Channel::from(control.as_fd()).send(&pid, Some(inherited)).expect("to send");
    let _ = (&control).read(&mut [0]);
    std::process::exit(0);
}

/// The socket to which workers report that a test plays.
struct Workshop {
    directory: Directory,
    listener: UnixListener,
}

struct FakeWorker {
    pid: i32,
    channel: Channel,
    _control: UnixStream,
}

impl Workshop {
    fn new() -> Workshop {
        let directory = Directory::new();
        let listener = UnixListener::bind(directory.file("control")).expect("a socket");
        listener.set_nonblocking(true).expect("nonblocking");
        let script = format!(
            "#!/bin/sh\n{ROLE}={} exec {} --exact worker_role --nocapture >/dev/null\n",
            directory.file("control").display(),
            std::env::current_exe().expect("this program").display()
        );
        directory.program("worker", script);
        Workshop { directory, listener }
    }

    /// A broker whose workers report to this socket.
    fn broker(&self, port: u16, listen: &str, spawn: &str) -> Relay {
        let text = format!(
            "id = spawnd {{ listen = {{ address = 127.0.0.1 port = {port} {listen} }}\n\
             spawn {{ exec = {} {spawn} }} }}\n",
            self.directory.file("worker").display()
        );
        Launch::new(text).program(SPAWND).ready(0).start()
    }

    fn next(&self) -> FakeWorker {
        let control = wait_for("a worker", || self.listener.accept().ok()).0;
        let mut pid = [0; 4];
        let received =
            wait_for("its channel", || Channel::from(control.as_fd()).receive(&mut pid).ok());
        let channel = Channel::from(received.fd.expect("the channel"));
        FakeWorker { pid: i32::from_ne_bytes(pid), channel, _control: control }
    }
}

impl FakeWorker {
    fn say(&self, kind: u32, count: i32) {
        self.send(&short(kind, count));
    }

    fn send(&self, data: &[u8]) {
        wait_for("room in the channel", || match self.channel.send(data, None) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
            _ => Some(()),
        });
    }

    /// The next message: its type and its descriptors.
    fn receive(&self) -> (u32, Vec<OwnedFd>) {
        let mut data = [0; 5000];
        let mut fds = Vec::new();
        wait_for("a message of the broker", || {
            self.channel.receive_with(&mut data, |fd| fds.push(fd)).ok()
        });
        (u32::from_ne_bytes(data[..4].try_into().expect("four bytes")), fds)
    }

    /// The connections of the next message that carries any.
    fn accept(&self) -> Vec<OwnedFd> {
        loop {
            let (kind, fds) = self.receive();
            if matches!(kind, ACCEPT | 67) {
                return fds;
            }
        }
    }
}

fn config(port: u16, remote: &str, spawn: &str, worker: &str) -> String {
    common::launch::sections(port, remote, "", spawn, worker)
}

/// Waits until a session was served and the broker knows that it has ended.
fn idle_after_one(relay: &Relay, port: u16) {
    one_session(port).expect("to be served");
    wait_for("its end", || relay.title().contains(": 0 connections, ").then_some(()));
}

/// Requires that all of these connections are served.
fn all_served(streams: &mut [TcpStream]) {
    for stream in streams.iter_mut() {
        stream.write_all(b"word").expect("to send");
    }
    for stream in streams {
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"word");
    }
}

#[test]
fn a_worker_that_breaks_the_rules_is_replaced_and_the_broker_lives() {
    let flood: Vec<Vec<u8>> = vec![short(KEEPALIVE, 0).to_vec(); 5000];
    let one = |kind, count| vec![short(kind, count).to_vec()];
    let offences: [(&str, Vec<Vec<u8>>); 9] = [
        ("BAD_CFG while it serves", one(BAD_CONFIGURATION, 0)),
        ("a second MAX", one(MAX, 1)),
        ("a second HELLO", one(HELLO, 1)),
        ("DONE for 9 connections, but has 0", one(DONE, 9)),
        ("DONE for 0 connections, but has 0", one(DONE, -5)),
        ("a message of unknown type 42", one(42, 0)),
        ("what is no message: EoF", vec![Vec::new()]),
        ("a second DYING", [one(DYING, 0), one(DYING, 0)].concat()),
        ("idle messages within a minute", flood),
    ];
    let workshop = Workshop::new();
    let port = free_port();
    let relay = workshop.broker(port, "", "instances min = 1 instances max = 2 users min = 1");
    let honest = workshop.next();
    honest.say(MAX, 1000);
    let client = connect(port);
    let held = honest.accept();
    for (text, messages) in offences {
        // The first worker has its minimum, so the next client starts a second worker.
        let second = connect(port);
        let worker = workshop.next();
        worker.say(HELLO, 1);
        worker.say(MAX, 1000);
        drop((worker.accept(), second));
        worker.say(DONE, 1);
        for message in messages {
            worker.send(&message);
        }
        relay.expect_log(&format!("child (pid {}) has sent ", worker.pid));
        relay.expect_log(text);
        wait_for("its end", || is_gone(worker.pid).then_some(()));
    }
    assert!(!is_gone(relay.pid()) && !is_gone(honest.pid));
    // Only the honest worker's connections are counted.
    wait_for("the count", || relay.title().contains(": 1 connection, ").then_some(()));
    assert!(!has_ended(&mut client.try_clone().expect("a copy")));
    drop(held);
}

#[test]
fn a_worker_does_not_limit_the_others() {
    let workshop = Workshop::new();
    let port = free_port();
    let relay = workshop.broker(port, "", "instances min = 2 instances max = 2 users max = 50");
    let workers = [workshop.next(), workshop.next()];
    workers[0].say(MAX, 1000);
    workers[1].say(MAX, 1000);
    workers[1].say(MAX, 1);
    wait_for("its own limit", || relay.title().contains("up to 51 more").then_some(()));
    assert!(!relay.log().contains("child limits"), "{}", relay.log());
    // The worker that replaces it announces a limit of its own.
    kill(workers[1].pid, Signal::SIGKILL);
    workshop.next().say(MAX, 1000);
    wait_for("the whole limit", || relay.title().contains("up to 100 more").then_some(()));
}

#[test]
fn a_worker_of_another_program_that_serves_cannot_end_the_broker() {
    let workshop = Workshop::new();
    let port = free_port();
    let relay = workshop.broker(port, "", "instances min = 1 instances max = 1");
    let worker = workshop.next();
    worker.say(MAX, 1000);
    worker.say(BAD_CONFIGURATION, 0);
    wait_for("its end", || is_gone(worker.pid).then_some(()));
    let next = workshop.next();
    next.say(MAX, 1000);
    let _client = connect(port);
    assert_eq!(next.accept().len(), 1);
    assert!(!is_gone(relay.pid()));
}

#[test]
fn a_worker_that_hangs_at_its_start_is_replaced() {
    let workshop = Workshop::new();
    let port = free_port();
    let spawn = "instances min = 1 instances max = 1 start timeout = 1";
    let relay = workshop.broker(port, "", spawn);
    let hangs = workshop.next();
    hangs.say(HELLO, 1);
    let client = connect(port);
    relay.expect_log(&format!("child (pid {}) has not started within 1 s", hangs.pid));
    wait_for("its end", || is_gone(hangs.pid).then_some(()));
    // The connection given to the first worker goes to the next one.
    let next = workshop.next();
    next.say(MAX, 1000);
    let held = next.accept();
    assert_eq!(held.len(), 1);
    assert!(!has_ended(&mut client.try_clone().expect("a copy")));
}

#[test]
fn what_a_worker_has_not_read_goes_to_another() {
    let peer = Peer::echo();
    let port = free_port();
    let spawn = "instances min = 2 instances max = 2 users min = 1 users max = 5000";
    let relay = Launch::new(config(port, &peer.remote(), spawn, "")).ready(2).start();
    all_served(&mut (0..20).map(|_| connect(port)).collect::<Vec<_>>());
    wait_for("their end", || relay.title().contains(": 0 connections, ").then_some(()));
    let workers = relay.workers();
    kill(workers[0], Signal::SIGSTOP);
    let mut streams: Vec<TcpStream> = (0..200).map(|_| connect(port)).collect();
    all_served(&mut streams);
    relay.expect_log(&format!("child (pid {}) does not read its channel", workers[0]));
    wait_for("the count", || relay.title().contains(": 200 connections, ").then_some(()));
    wait_for("the other one's count", || {
        title(workers[1]).contains(": 200 connections").then_some(())
    });
    kill(workers[0], Signal::SIGCONT);
    relay.expect_log(&format!("child (pid {}) reads its channel again", workers[0]));
    // The worker takes part again, and has the fewest connections, so it gets these.
    let mut more: Vec<TcpStream> = (0..20).map(|_| connect(port)).collect();
    all_served(&mut more);
    wait_for("its share", || title(workers[0]).contains(": 20 connections").then_some(()));
    drop((streams, more));
    wait_for("the end of all", || relay.title().contains(": 0 connections, ").then_some(()));
}

/// Each connection is served by exactly one worker, whenever the stopped worker wakes up.
#[test]
fn workers_that_stop_and_go_on_lose_nothing() {
    let peer = Peer::echo();
    let port = free_port();
    let spawn = "instances min = 3 instances max = 3 users max = 5000";
    let relay = Launch::new(config(port, &peer.remote(), spawn, "")).ready(3).start();
    let workers = relay.workers();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let stop = stop.clone();
            thread::spawn(move || {
                let mut served = 0;
                while !stop.load(Ordering::Relaxed) {
                    one_session(port).expect("to be served");
                    served += 1;
                }
                served
            })
        })
        .collect();
    for round in 0..8u64 {
        let worker = workers[round as usize % 2];
        kill(worker, Signal::SIGSTOP);
        // Times around the moment at which its connections are taken back.
        stagger(Duration::from_millis(980 + round * 45));
        kill(worker, Signal::SIGCONT);
    }
    stop.store(true, Ordering::Relaxed);
    let served: usize = clients.into_iter().map(|client| client.join().expect("a client")).sum();
    eprintln!("{served} sessions");
    wait_for("the end of all", || relay.title().contains(": 0 connections, ").then_some(()));
    assert_eq!(relay.workers(), workers);
}

#[test]
fn a_worker_that_stays_stopped_is_replaced_and_keeps_its_sessions() {
    let peer = Peer::echo();
    let port = free_port();
    let spawn = "instances min = 1 instances max = 1 users max = 100 stall timeout = 1";
    let relay = Launch::new(config(port, &peer.remote(), spawn, "")).start();
    let worker = relay.workers()[0];
    let mut session = connect(port);
    ping(&mut session, b"before");
    kill(worker, Signal::SIGSTOP);
    let mut waiting = vec![connect(port)];
    all_served(&mut waiting);
    relay.expect_log(&format!("child (pid {worker}) has not read its channel for 1 s"));
    kill(worker, Signal::SIGCONT);
    ping(&mut session, b"after");
    drop(session);
    wait_for("it to leave", || is_gone(worker).then_some(()));
    all_served(&mut waiting);
}

#[test]
fn a_reload_with_a_stopped_worker_loses_nothing() {
    let peer = Peer::echo();
    let port = free_port();
    let text = config(port, &peer.remote(), "instances max = 1 users max = 4000", "");
    let relay = Launch::new(text).start();
    idle_after_one(&relay, port);
    let old = relay.workers()[0];
    kill(old, Signal::SIGSTOP);
    let mut streams: Vec<TcpStream> = (0..100).map(|_| connect(port)).collect();
    wait_for("them to be given to it", || {
        relay.title().contains(": 100 connections").then_some(())
    });
    relay.signal(Signal::SIGHUP);
    // All are served before the stopped worker goes on.
    all_served(&mut streams);
    kill(old, Signal::SIGCONT);
    wait_for("it to leave", || is_gone(old).then_some(()));
    all_served(&mut streams);
}

#[test]
fn replacing_all_workers_leaves_nothing_to_a_stopped_one() {
    let peer = Peer::echo();
    let port = free_port();
    let text = config(port, &peer.remote(), "instances max = 1 users max = 4000", "");
    let relay = Launch::new(text).start();
    idle_after_one(&relay, port);
    let old = relay.workers()[0];
    kill(old, Signal::SIGSTOP);
    // More than its channel holds, so that MAY_DIE has to wait as well.
    let mut streams: Vec<TcpStream> = (0..600).map(|_| connect(port)).collect();
    relay.signal(Signal::SIGUSR1);
    all_served(&mut streams);
    kill(old, Signal::SIGCONT);
    wait_for("it to leave", || is_gone(old).then_some(()));
    all_served(&mut streams);
}

#[test]
fn what_a_killed_worker_has_not_read_is_served() {
    let peer = Peer::echo();
    let port = free_port();
    let text = config(port, &peer.remote(), "instances max = 1 users max = 4000", "");
    let relay = Launch::new(text).start();
    idle_after_one(&relay, port);
    let worker = relay.workers()[0];
    kill(worker, Signal::SIGSTOP);
    let mut streams: Vec<TcpStream> = (0..100).map(|_| connect(port)).collect();
    wait_for("them to be given to it", || {
        relay.title().contains(": 100 connections").then_some(())
    });
    kill(worker, Signal::SIGKILL);
    all_served(&mut streams);
    wait_for("the count", || relay.title().contains(": 100 connections").then_some(()));
}

#[test]
fn datagrams_that_are_not_read_go_to_another_worker() {
    let workshop = Workshop::new();
    let port = free_port();
    let spawn = "instances min = 2 instances max = 2 users max = 50";
    let relay = workshop.broker(port, "protocol = UDP", spawn);
    let (silent, other) = (workshop.next(), workshop.next());
    // Workers with equal load are chosen by their pid, so the silent one must have the lower.
    let (silent, other) = if silent.pid < other.pid { (silent, other) } else { (other, silent) };
    silent.say(MAX, 50);
    other.say(MAX, 50);
    let clients: Vec<_> = (0..4u8)
        .map(|number| {
            let client = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
            client.connect(("127.0.0.1", port)).expect("to connect");
            client.send(&[number; 1000]).expect("to send");
            client
        })
        .collect();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let mut data = [0; 5000];
        let received = wait_for("a datagram", || other.channel.receive(&mut data).ok());
        if data[0] == 7 {
            assert_eq!(received.length, 1040);
            assert!(received.fd.is_some() && data[41..1040].iter().all(|&byte| byte == data[40]));
            seen.push(data[40]);
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3]);
    other.say(DONE, 4);
    wait_for("the count", || relay.title().contains(": 0 connections, ").then_some(()));
    drop(clients);
}

#[test]
fn the_first_connection_of_a_worker_that_exec_names_is_served() {
    let peer = Peer::echo();
    for _ in 0..5 {
        let port = free_port();
        let spawn = format!("exec = {TCPRELAY} instances min = 2 instances max = 2");
        let relay = Launch::new(config(port, &peer.remote(), &spawn, "")).ready(None).start();
        let mut streams: Vec<TcpStream> = Vec::new();
        while streams.len() < 10 {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                    streams.push(stream);
                }
                Err(_) => pace(Duration::from_millis(1)),
            }
        }
        all_served(&mut streams);
        drop(streams);
        wait_for("the count", || relay.title().contains(": 0 connections, ").then_some(()));
        assert_eq!(relay.log().matches("terminated").count(), 0);
    }
}

/// A relay run as a worker of this test: the process, and the test's end of the channel.
fn worker(peer: &Peer, environment: Option<&str>) -> (Relay, Channel) {
    let directory = Directory::new();
    let config = directory.write("relay.cfg", format!("id = tcprelay {{\n{}\n}}\n", peer.remote()));
    let log = directory.file("log");
    let (ours, theirs) = channel::pair().expect("a channel");
    let mut command = common::ours(TCPRELAY);
    command.arg(&config).stdin(OwnedFd::from(theirs)).stdout(std::process::Stdio::null());
    command.stderr(std::fs::File::create(&log).expect("the log")).arg0("tcprelay");
    command.env("TCPRELAY_LOG_STDERR", "1");
    if let Some(value) = environment {
        command.env("TCPRELAY_BROKER", value);
    }
    let child = command.spawn().expect("the worker");
    (Relay::assemble(directory, config, log, child), ours)
}

/// Sends a message with a connection; returns the client's end.
fn give(broker: &Channel) -> std::io::Result<TcpStream> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    let mut message = [0; 40];
    message[..4].copy_from_slice(&ACCEPT.to_ne_bytes());
    broker.send(&message, Some(server.as_fd()))?;
    client.set_read_timeout(Some(PATIENCE))?;
    Ok(client)
}

fn hear(broker: &Channel) -> (u32, i32) {
    let mut data = [0; 64];
    wait_for("a message of the worker", || broker.receive(&mut data).ok());
    let word = |at: usize| data[at..at + 4].try_into().expect("four bytes");
    (u32::from_ne_bytes(word(0)), i32::from_ne_bytes(word(4)))
}

/// The broker does not read that the worker is leaving, and sends it connections until sending
/// fails. Every connection that it could send is served.
#[test]
fn a_leaving_worker_reads_its_channel_to_the_end() {
    let peer = Peer::echo();
    for _ in 0..3 {
        let (mut relay, broker) = worker(&peer, None);
        assert_eq!(hear(&broker).0, MAX);
        relay.signal(Signal::SIGTERM);
        let begin = Instant::now();
        let mut sent = VecDeque::new();
        while begin.elapsed() < PATIENCE {
            if begin.elapsed() < Duration::from_millis(900) {
                pace(Duration::from_millis(5));
                continue;
            }
            match give(&broker) {
                Ok(mut client) => {
                    client.write_all(b"word").expect("to send");
                    sent.push_back(client);
                    // One at a time, so that there is a last one.
                    let mut client = sent.pop_front().expect("the one");
                    let mut answer = [0; 4];
                    client.read_exact(&mut answer).expect("to be served");
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    // The worker's messages fill the channel, so read them.
                    while broker.receive(&mut [0; 64]).is_ok() {}
                }
                Err(_) => break,
            }
        }
        assert_eq!(relay.wait().code(), Some(0));
    }
}

/// The answer to HELLO comes late. Everything that arrives before it, in whatever order, is served
/// once the worker is up.
#[test]
fn connections_wait_for_a_worker_that_waits_for_its_keys() {
    let peer = Peer::echo();
    let (mut relay, broker) = worker(&peer, Some("plain"));
    let mut clients = vec![give(&broker).expect("to send")];
    // It takes several connections at once, and tells whose sessions have ended.
    assert_eq!(hear(&broker), (HELLO, 3));
    // An idle message, an unknown one, another connection, and the end.
    for message in [short(KEEPALIVE, 0), short(99, 0)] {
        broker.send(&message, None).expect("to send");
    }
    clients.push(give(&broker).expect("to send"));
    broker.send(&short(2, 0), None).expect("to send");
    // Unusable ticket keys: the worker does without, as with another program's broker.
    let mut secrets = short(65, 1).to_vec();
    secrets.push(0);
    broker.send(&secrets, None).expect("to send");
    assert_eq!(hear(&broker).0, MAX);
    all_served(&mut clients);
    drop(clients);
    let mut ended = 0;
    while ended < 2 {
        let (kind, count) = hear(&broker);
        ended += if kind == DONE { count } else { 0 };
    }
    assert_eq!(relay.wait().code(), Some(0));
}
