//! The messages between broker and worker: each side against the test.

use crate::common::{
    connect, ends_within, expect_eof, free_port, is_gone, kill, ping, remote, wait_for, Peer, Relay,
};
use crate::fake::{
    accept_message, short, FakeBroker, FakeWorker, Workshop, ACCEPT, BAD_CONFIGURATION, DONE,
    KEEPALIVE, MAX, MAY_DIE,
};
use crate::runner::Entry;
use crate::support::{
    at_once, client, count, expect_title, loads, option, section, tcp_pair, wait_loads,
    worker_section, Launch, MassEcho,
};
use nix::sys::signal::Signal;
use std::net::{TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Entry] = &[
    ("P001", p001),
    ("P002", p002),
    ("P003", p003),
    ("P004", p004),
    ("P005", p005),
    ("P006", p006),
    ("P007", p007),
    ("P008", p008),
    ("P009", p009),
    ("P010", p010),
    ("P011", p011),
    ("P012", p012),
    ("P013", p013),
    ("P014", p014),
    ("P015", p015),
    ("P016", p016),
    ("P017", p017),
    ("P018", p018),
    ("P019", p019),
    ("P020", p020),
    ("P021", p021),
    ("P022", p022),
    ("P023", p023),
    ("P024", p024),
    ("P025", p025),
];

/// The worker's keep-alive timer, plus what a busy machine may add.
const MINUTE: Duration = Duration::from_secs(75);

/// A real worker with an echo as remote, and the test as its broker.
fn worker() -> (Peer, FakeBroker) {
    let peer = Peer::echo();
    let broker = FakeBroker::ready(Launch::new(worker_section(&peer.remote())));
    (peer, broker)
}

fn p001() {
    let launch = Launch::new(worker_section(&remote(1))).descriptors(500, 1000);
    let broker = FakeBroker::start(launch);
    let message = broker.receive();
    assert_eq!(message.data, short(MAX, (1000 - 10) / 2));
    assert_eq!(message.data[..4], [5, 0, 0, 0]);
}

fn p002() {
    let (_peer, broker) = worker();
    let mut stream = broker.connect();
    ping(&mut stream, b"through the worker");
    drop(stream);
    assert_eq!(broker.receive().data, [0, 0, 0, 0, 1, 0, 0, 0]);
}

/// Requires that the worker ends normally.
fn ends(broker: &mut FakeBroker) {
    assert_eq!(broker.relay.wait().code(), Some(0), "{}", broker.relay.log());
    broker.relay.expect_log("Terminating, no longer needed.");
}

fn p003() {
    let (_peer, mut broker) = worker();
    broker.say(MAY_DIE);
    ends(&mut broker);
}

fn p004() {
    let (_peer, mut broker) = worker();
    let mut first = broker.connect();
    ping(&mut first, b"first");
    broker.say(MAY_DIE);
    let mut second = broker.connect();
    ping(&mut second, b"second");
    drop(first);
    broker.expect_done(1);
    ping(&mut second, b"still there");
    drop(second);
    broker.expect_done(1);
    ends(&mut broker);
}

fn p005() {
    let (_peer, mut broker) = worker();
    broker.relay.signal(Signal::SIGSTOP);
    broker.say(MAY_DIE);
    let mut stream = broker.connect();
    broker.relay.signal(Signal::SIGCONT);
    ping(&mut stream, b"served after all");
    drop(stream);
    ends(&mut broker);
}

fn p006() {
    let (_peer, broker) = worker();
    broker.say(99);
    // A descriptor that comes with such a message is closed.
    let (mut ours, theirs) = tcp_pair();
    broker.send(&short(99, 0), Some(theirs.as_fd()));
    drop(theirs);
    expect_eof(&mut ours);
    ping(&mut broker.connect(), b"served");
}

fn p007() {
    let (_peer, broker) = worker();
    broker.send(&accept_message(), None);
    let message = broker.receive_within(Duration::from_secs(5));
    let done = message.is_some_and(|message| message.kind() == DONE && message.count() == 1);
    assert!(done || broker.relay.log().contains("without"), "{}", broker.relay.log());
    ping(&mut broker.connect(), b"served");
}

fn p008() {
    let (_peer, mut broker) = worker();
    broker.channel = None;
    let pid = broker.relay.pid();
    assert!(ends_within(MINUTE, pid), "the worker stays:\n{}", broker.relay.log());
    assert_eq!(broker.relay.wait().code(), Some(0));
}

fn p009() {
    let (_peer, mut broker) = worker();
    let mut stream = broker.connect();
    ping(&mut stream, b"before");
    broker.channel = None;
    ping(&mut stream, b"after");
    let pid = broker.relay.pid();
    for _ in 0..5 {
        ping(&mut stream, b"and on");
    }
    assert!(!is_gone(pid));
    drop(stream);
    assert!(ends_within(MINUTE, pid), "the worker stays:\n{}", broker.relay.log());
    assert_eq!(broker.relay.wait().code(), Some(0));
}

fn p010() {
    let begin = Instant::now();
    let (_peer, broker) = worker();
    let message = broker.receive_within(MINUTE).expect("a sign of life");
    assert_eq!(message.data, short(KEEPALIVE, 0));
    assert!(begin.elapsed() > Duration::from_secs(55), "{:?}", begin.elapsed());
}

/// A real broker with these `listen` blocks, and a worker that the test plays.
fn broker(listen: &str, spawn: &str) -> (Relay, Workshop, FakeWorker) {
    let (relay, workshop, worker) = starting(listen, spawn);
    worker.say(MAX, 1000);
    (relay, workshop, worker)
}

/// The same, with a worker that has sent nothing yet.
fn starting(listen: &str, spawn: &str) -> (Relay, Workshop, FakeWorker) {
    let workshop = Workshop::new();
    let config = format!(
        "id = spawnd {{ {listen}\nspawn = {{ exec = {} instances min = 1 instances max = 1 \
         {spawn} }} }}\n",
        Workshop::program()
    );
    let relay = workshop.equip(Launch::new(config)).ready(None).start();
    let worker = workshop.next();
    (relay, workshop, worker)
}

fn on(port: u16, more: &str) -> String {
    format!("listen = {{ address = 127.0.0.1 port = {port} {more} }}\n")
}

fn p011() {
    let port = free_port();
    let (_relay, _workshop, worker) = broker(&on(port, ""), "");
    let mut stream = connect(port);
    let message = worker.receive();
    let mut expected = [0u8; 40];
    expected[..4].copy_from_slice(&ACCEPT.to_ne_bytes());
    expected[36..].copy_from_slice(&6u32.to_ne_bytes());
    assert_eq!(message.data[..32], expected[..32]);
    assert_eq!(message.data[36..], expected[36..]);
    assert_eq!(message.data.len(), 40);
    assert_eq!(message.descriptors.len(), 1);
    drop(message);
    expect_eof(&mut stream);
}

fn p012() {
    let port = free_port();
    let (_relay, _workshop, worker) = broker(&on(port, ""), "");
    let _stream = connect(port);
    assert_eq!(worker.receive().word(32), libc::SOCK_STREAM as u32);
}

/// What the worker is told about a connection to a listener with each of these directives: the
/// words at 4 and 12, and the bytes from 16 to 32, of ACCEPT: TLS versions and flags.
fn told(directives: &[&str]) -> Vec<(u32, u32, Vec<u8>)> {
    let ports: Vec<u16> = directives.iter().map(|_| free_port()).collect();
    let listen: String = ports.iter().zip(directives).map(|(&port, more)| on(port, more)).collect();
    let (_relay, _workshop, worker) = broker(&listen, "");
    let ask = |&port: &u16| {
        let _stream = connect(port);
        let message = worker.receive();
        assert_eq!((message.kind(), message.data.len()), (ACCEPT, 40));
        (message.word(4), message.word(12), message.data[16..32].to_vec())
    };
    ports.iter().map(ask).collect()
}

fn p013() {
    let told = told(&[
        "tls = yes",
        "tls = auto",
        "tls = TLSv1.2",
        "tls = TLSv1.3",
        "tls = TLSv1.2,TLSv1.3",
        "tls = TLSv1.3,TLSv1.2",
    ]);
    let told: Vec<(u32, u32)> = told.into_iter().map(|(tls, flags, _)| (tls, flags)).collect();
    assert_eq!(told, [(0x0403, 0), (0x0403, 8), (3, 0), (4, 0), (0x0304, 0), (0x0403, 0)]);
}

fn p014() {
    let told = told(&["tls psk = yes", "haproxy = yes", "flag = accounting", "realm = myrealm"]);
    let flags: Vec<u32> = told.iter().map(|(_, flags, _)| *flags).collect();
    assert_eq!(flags, [4, 1, 2, 0]);
    assert_eq!(told[3].2, *b"myrealm\0\0\0\0\0\0\0\0\0");
    assert_eq!(told[0].2, [0; 16]);
}

fn p015() {
    let port = free_port();
    let (relay, _workshop, worker) = broker(&on(port, ""), "");
    worker.say(42, 0);
    relay.expect_log("Child used unknown message type 42");
    let _stream = connect(port);
    assert_eq!(worker.receive().kind(), ACCEPT);
}

fn p016() {
    let port = free_port();
    let (relay, _workshop, worker) = broker(&on(port, ""), "users max = 60");
    worker.say(MAX, 3);
    relay.expect_log("child limits maximum number of users to 3");
    expect_title(relay.pid(), "0 connections, accepting up to 3 more");
}

fn p017() {
    let port = free_port();
    let (mut relay, _workshop, worker) = starting(&on(port, ""), "");
    worker.say(BAD_CONFIGURATION, 0);
    assert_eq!(relay.wait().code(), Some(78));
    relay.expect_log("Child reported fatal configuration problem. Exiting.");
}

/// Sends strange data from a worker, and requires that the broker still serves afterwards.
fn survives(data: &[u8]) -> Relay {
    let port = free_port();
    let (relay, _workshop, worker) = broker(&on(port, ""), "users max = 60");
    worker.send(data);
    let stream = connect(port);
    assert_eq!(worker.receive().kind(), ACCEPT);
    expect_title(relay.pid(), "1 connection, accepting up to 59 more");
    drop(stream);
    worker.say(DONE, 1);
    expect_title(relay.pid(), "0 connections, accepting up to 60 more");
    relay
}

fn p018() {
    let mut data = [0x55; 100];
    data[..4].copy_from_slice(&KEEPALIVE.to_ne_bytes());
    let relay = survives(&data);
    assert_eq!(count(&relay, "unknown message"), 0);
}

fn p019() {
    let relay = survives(&[1, 2]);
    relay.expect_log("scm_recv_msg");
    assert_eq!(count(&relay, "unknown message"), 0);
}

fn p020() {
    let port = free_port();
    let (relay, _workshop, worker) = broker(&on(port, ""), "users max = 60");
    let _stream = connect(port);
    assert_eq!(worker.receive().kind(), ACCEPT);
    expect_title(relay.pid(), "1 connection, ");
    worker.say(DONE, 5);
    expect_title(relay.pid(), "0 connections, accepting up to 60 more");
    worker.say(DONE, 5);
    let _second = connect(port);
    assert_eq!(worker.receive().kind(), ACCEPT);
    expect_title(relay.pid(), "1 connection, accepting up to 59 more");
}

fn p021() {
    let port = free_port();
    let (relay, workshop, worker) = broker(&on(port, ""), "");
    worker.send(&[]);
    let _stream = connect(port);
    // The broker keeps the worker or replaces it.
    let served = wait_for("the connection in a worker", || {
        let old = crate::fake::receive(&worker.channel, Duration::from_millis(50));
        old.is_some_and(|message| message.kind() == ACCEPT)
            .then_some(true)
            .or_else(|| is_gone(worker.pid).then_some(false))
    });
    if !served {
        assert_eq!(workshop.next().receive().kind(), ACCEPT);
    }
    assert!(!is_gone(relay.pid()));
}

fn p022() {
    let (echo, port) = (MassEcho::new(), free_port());
    let spawn = "instances max = 2 instances min = 2 users min = 5000 users max = 5000";
    let mut relay = Launch::new(section(port, "", spawn, &remote(echo.port))).ready(2).start();
    let workers = relay.workers();
    wait_loads(&relay, 0);
    kill(workers[0], Signal::SIGSTOP);
    let mut streams: Vec<TcpStream> = (0..900).map(|_| connect(port)).collect();
    for stream in &mut streams {
        std::io::Write::write_all(stream, b"x").expect("to send");
    }
    // Everything the second worker was given is served, and so are new connections.
    let load = wait_for("the second worker's share", || {
        let loads = loads(&relay);
        (loads.len() == 2 && loads[1] >= 450).then(|| loads[1])
    });
    let served = || {
        streams.iter().filter(|stream| {
            stream.set_nonblocking(true).expect("nonblocking");
            stream.peek(&mut [0]).is_ok()
        })
    };
    wait_for("the answers", || (served().count() >= load).then_some(()));
    let begin = Instant::now();
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.wait().code(), Some(0));
    at_once(begin);
    for &pid in &workers {
        kill(pid, Signal::SIGKILL);
    }
}

fn p023() {
    let (echo, port) = (MassEcho::new(), free_port());
    let relay = Launch::simple(port, &remote(echo.port)).start();
    let worker = relay.workers()[0];
    let old: Vec<TcpStream> = (0..2500).map(|_| connect(port)).collect();
    wait_loads(&relay, 2500);
    kill(worker, Signal::SIGSTOP);
    let closing = thread::spawn(move || drop(old));
    let mut new: Vec<TcpStream> = (0..600).map(|_| connect(port)).collect();
    kill(worker, Signal::SIGCONT);
    closing.join().expect("the closing thread");
    for stream in &mut new {
        ping(stream, b"served");
    }
    wait_loads(&relay, 600);
    expect_title(relay.pid(), "600 connections, accepting up to 4400 more");
}

fn p024() {
    let (peer, port, udp) = (Peer::echo(), free_port(), free_port());
    let text = section(port, &on(udp, "protocol = udp"), "", &peer.remote());
    let mut relay = Launch::new(text).ready(None).start();
    let refused = wait_for("a service or an end", || {
        let served = relay.log().matches("is being used").count() > 1;
        (served || is_gone(relay.pid())).then(|| is_gone(relay.pid()))
    });
    if refused {
        assert_eq!(relay.wait().code(), Some(78), "{}", relay.log());
        return;
    }
    let _before = client(port);
    let worker = relay.workers()[0];
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.send_to(b"datagram", ("127.0.0.1", udp)).expect("to send");
    wait_for("the datagram to be dropped", || {
        client(port);
        Some(())
    });
    assert_eq!(relay.workers(), [worker]);
    wait_loads(&relay, 1);
    expect_title(relay.pid(), "1 connection, ");
}

fn p025() {
    let port = free_port();
    let (_relay, _workshop, worker) = broker(&on(port, ""), "");
    let _stream = connect(port);
    let message = worker.receive();
    let socket = &message.descriptors[0];
    assert_eq!(option(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE), Some(1));
    // SAFETY: fcntl(2) with plain numbers.
    let flags = unsafe { libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(socket), libc::F_GETFL) };
    assert_eq!(flags & libc::O_NONBLOCK, 0);
}
