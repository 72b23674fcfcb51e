//! What a session must do, with every event mechanism of the build.

mod common;

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

#[test]
fn the_mechanism_is_the_one_asked_for() {
    for (mechanism, name) in mechanisms() {
        let (relay, _) = through(mechanism, &remote(1));
        relay.expect_log(&format!("{name} event notification mechanism is being used"));
    }
}

#[test]
fn half_close_of_the_client_keeps_the_answer() {
    each(|way| {
        let peer = Peer::start(|mut stream| {
            let mut request = Vec::new();
            stream.read_to_end(&mut request).expect("the request");
            assert_eq!(request.len(), 1000);
            stream.write_all(&pattern(1, 200_000)).expect("to answer");
        });
        let (_relay, port) = through(way, &peer.remote());
        let mut client = connect(port);
        client.write_all(&[7; 1000]).expect("to send");
        client.shutdown(Shutdown::Write).expect("to shut down");
        assert!(read_all(client) == pattern(1, 200_000));
    });
}

#[test]
fn half_close_of_the_remote_keeps_the_request() {
    each(|way| {
        let (peer, arrived) = Peer::manual();
        let (_relay, port) = through(way, &peer.remote());
        let mut client = connect(port);
        let mut remote = next(&arrived);
        remote.write_all(b"hello").expect("to greet");
        remote.shutdown(Shutdown::Write).expect("to shut down");
        let mut greeting = Vec::new();
        client.read_to_end(&mut greeting).expect("the greeting and end of file");
        assert_eq!(greeting, b"hello");
        client.write_all(&pattern(2, 10_000)).expect("to send");
        client.shutdown(Shutdown::Write).expect("to shut down");
        assert!(read_all(remote) == pattern(2, 10_000));
    });
}

#[test]
fn sixty_four_mebibytes_both_ways_at_once_slow_readers_included() {
    const SIZE: usize = 64 << 20;
    each(|way| {
        let peer = Peer::start(|stream| {
            // Sends its own data while it receives, and checks what it gets.
            let mut reader = stream.try_clone().expect("a clone");
            let sender = thread::spawn(move || {
                let mut stream = stream;
                stream.write_all(&pattern(3, SIZE)).expect("to send");
                stream.shutdown(Shutdown::Write).expect("to shut down");
            });
            let mut data = Vec::with_capacity(SIZE);
            let mut buffer = vec![0; 300_000];
            let mut turns = 0;
            loop {
                match reader.read(&mut buffer).expect("to receive") {
                    0 => break,
                    count => data.extend_from_slice(&buffer[..count]),
                }
                turns += 1;
                // Pauses now and then, so that the sender feels back-pressure.
                if turns % 16 == 0 && data.len() < SIZE / 8 {
                    pace(Duration::from_millis(2));
                }
            }
            assert!(data == pattern(4, SIZE), "the request arrived unchanged");
            sender.join().expect("the sender");
        });
        let (relay, port) = through(way, &peer.remote());
        let client = connect(port);
        let mut writer = client.try_clone().expect("a clone");
        let sender = thread::spawn(move || {
            writer.write_all(&pattern(4, SIZE)).expect("to send");
            writer.shutdown(Shutdown::Write).expect("to shut down");
        });
        let mut data = Vec::with_capacity(SIZE);
        let mut buffer = vec![0; 8192];
        let mut client = client;
        loop {
            match client.read(&mut buffer).expect("to receive") {
                0 => break,
                count => data.extend_from_slice(&buffer[..count]),
            }
            if buffer.len() == 8192 && data.len() > SIZE / 16 {
                // Slow at first, then at full speed.
                buffer = vec![0; 1 << 20];
            }
        }
        sender.join().expect("the sender");
        assert!(data == pattern(3, SIZE), "the answer arrived unchanged");
        // The worker was not replaced.
        assert_eq!(relay.workers().len(), 1);
    });
}

#[test]
fn reset_of_the_client_reaches_the_remote() {
    each(|way| {
        let (peer, arrived) = Peer::manual();
        let (_relay, port) = through(way, &peer.remote());
        let mut client = connect(port);
        let mut remote = next(&arrived);
        client.write_all(b"x").expect("to send");
        remote.read_exact(&mut [0]).expect("to receive");
        reset(client);
        expect_reset(&mut remote);
    });
}

#[test]
fn reset_of_the_remote_reaches_the_client_behind_its_data() {
    each(|way| {
        let (peer, arrived) = Peer::manual();
        let (_relay, port) = through(way, &peer.remote());
        let mut client = connect(port);
        let mut remote = next(&arrived);
        client.write_all(b"x").expect("to send");
        remote.read_exact(&mut [0]).expect("to receive");
        remote.write_all(&pattern(5, 3000)).expect("to send");
        let mut data = vec![0; 3000];
        // Reset only after the data has arrived: a reset overtakes what the remote's kernel still
        // holds.
        client.read_exact(&mut data).expect("the data");
        assert!(data == pattern(5, 3000));
        reset(remote);
        expect_reset(&mut client);
    });
}

#[test]
fn an_answer_is_delivered_although_the_remote_resets() {
    each(|way| {
        // The remote does not read the request, answers and closes: its kernel sends a reset.
        let (peer, arrived) = Peer::manual();
        let (_relay, port) = through(way, &peer.remote());
        let mut client = connect(port);
        let remote = next(&arrived);
        client.write_all(&[1; 21_000]).expect("to send");
        let mut writer = &remote;
        writer.write_all(&pattern(6, 500_000)).expect("to answer");
        // Unread data must have arrived, or closing sends no reset.
        remote.peek(&mut [0]).expect("the request");
        drop(remote);
        let mut data = Vec::new();
        let result = client.read_to_end(&mut data);
        assert!(result.is_err(), "not a clean end: {result:?}");
        assert!(data == pattern(6, data.len()));
        assert!(data.len() > 100_000, "only {} bytes", data.len());
    });
}

#[test]
fn a_client_that_breaks_after_its_remote_is_noticed() {
    each(|way| {
        let (peer, arrived) = Peer::manual();
        let (relay, port) = through(way, &peer.remote());
        let worker = relay.workers()[0];
        let before = descriptors(worker);
        let client = connect(port);
        let mut remote = next(&arrived);
        remote.set_nonblocking(true).expect("nonblocking");
        // Sends more than the client's side accepts, then resets: the relay still holds data for
        // the client.
        while remote.write(&[0; 65536]).is_ok() {}
        reset(remote);
        // Nothing shows that the relay has seen it.
        outlast(Duration::from_millis(50));
        reset(client);
        wait_for("the end of the session", || (descriptors(worker) == before).then_some(()));
    });
}

/// Writes until nothing more is accepted for a while; returns how much was.
fn fill(stream: &Socket, data: &[u8]) -> usize {
    stream.set_nonblocking().expect("nonblocking");
    let (mut sent, mut last) = (0, Instant::now());
    while sent < data.len() && last.elapsed() < Duration::from_millis(300) {
        match stream.write(&data[sent..]) {
            Ok(count) => (sent, last) = (sent + count, Instant::now()),
            Err(_) => pace(Duration::from_millis(5)),
        }
    }
    sent
}

#[test]
fn the_answer_of_a_unix_remote_that_leaves_a_request_unread_is_delivered() {
    each(|way| {
        let directory = Directory::new();
        let path = directory.file("peer");
        let listener = UnixListener::bind(&path).expect("a listener");
        let (_relay, port) = through(way, &format!("remote = {{ address = {} }}", path.display()));
        let client = Socket::from(connect(port));
        let (remote, _) = listener.accept().expect("a connection from the relay");
        let remote = Socket::from(remote);
        let data = pattern(8, 64 << 20);
        // Fills both directions: the remote reads nothing, nor does the client yet.
        fill(&client, &data);
        let answered = fill(&remote, &data);
        // Closing with unread input breaks the connection. The client must still get what was sent
        // before.
        drop(remote);
        let mut client = TcpStream::from(OwnedFd::from(client));
        client.set_nonblocking(false).expect("blocking");
        let mut got = Vec::new();
        let _ = client.read_to_end(&mut got);
        assert!(got.len() == answered && got == data[..answered], "{} of {answered}", got.len());
    });
}

#[test]
fn a_slow_client_gets_everything_of_a_remote_that_closed_long_ago() {
    each(|way| {
        let peer =
            Peer::start(|mut stream| stream.write_all(&pattern(7, 5_000_000)).expect("sent"));
        let (_relay, port) = through(way, &peer.remote());
        let mut client = connect(port);
        let mut data = Vec::new();
        let mut buffer = vec![0; 8192];
        loop {
            match client.read(&mut buffer).expect("to receive") {
                0 => break,
                count => data.extend_from_slice(&buffer[..count]),
            }
            if data.len() < 400_000 {
                pace(Duration::from_millis(1));
            }
        }
        assert!(data == pattern(7, 5_000_000));
    });
}

#[test]
fn failover_is_not_noticed_by_clients() {
    each(|way| {
        let live = Peer::named("live");
        let dead = free_port();
        let (relay, port) = through(way, &format!("{}{}", remote(dead), live.remote()));
        for _ in 0..5 {
            let mut client = connect(port);
            let mut name = [0; 4];
            client.read_exact(&mut name).expect("the name");
            assert_eq!(&name, b"live");
        }
        let down = format!("connect to [127.0.0.1]:{dead} (TCP) failed: Connection refused");
        relay.expect_log(&down);
        assert_eq!(relay.log().matches(&down).count(), 1, "said once");
    });
}

#[test]
fn a_second_dead_remote_is_not_retried_for_ever() {
    each(|way| {
        let live = Peer::named("live");
        let (relay, port) = through(way, &format!("{}{}", live.remote(), remote(free_port())));
        let mut clients: Vec<TcpStream> = (0..4).map(|_| connect(port)).collect();
        for client in &mut clients {
            client.read_exact(&mut [0; 4]).expect("the name");
        }
        let worker = relay.workers()[0];
        let before = cpu_ticks(worker);
        let end = Instant::now() + Duration::from_millis(300);
        while Instant::now() < end {
            assert!(!has_ended(&mut clients[0]));
            pace(Duration::from_millis(20));
        }
        assert!(cpu_ticks(worker) - before <= 2, "no busy loop");
    });
}

#[test]
fn dead_remotes_heal() {
    each(|way| {
        let port_of_peer = free_port();
        let (relay, port) = through(way, &remote(port_of_peer));
        for _ in 0..3 {
            expect_eof(&mut connect(port));
        }
        let _peer = Peer::named_on(port_of_peer, "back");
        let mut name = [0; 4];
        connect(port).read_exact(&mut name).expect("the name");
        assert_eq!(&name, b"back");
        relay.expect_log(&format!("connect to [127.0.0.1]:{port_of_peer} succeeded"));
    });
}

#[test]
fn a_dead_remote_is_tried_again_after_the_retry_delay() {
    let second = Peer::named("two");
    let first_port = free_port();
    let section = format!("{}{}retry delay = 1\n", remote(first_port), second.remote());
    let (_relay, port) = through("4", &section);
    let name = || {
        let mut name = [0; 3];
        connect(port).read_exact(&mut name).expect("the name");
        name
    };
    assert_eq!(&name(), b"two");
    let _first = Peer::named_on(first_port, "one");
    wait_for("the first remote", || (&name() == b"one").then_some(()));
}

#[test]
fn an_unanswered_connect_times_out() {
    each(|way| {
        let live = Peer::named("live");
        let (hole, _queued) = black_hole();
        let section = format!("{}{}connect timeout = 1\n", remote(hole), live.remote());
        let (relay, port) = through(way, &section);
        let start = Instant::now();
        connect(port).read_exact(&mut [0; 4]).expect("the name");
        assert!(start.elapsed() >= Duration::from_millis(900));
        relay.expect_log("failed: Connection timed out");
    });
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
fn only_idle_sessions_meet_the_idle_timeout() {
    each(|way| {
        let peer = Peer::echo();
        let (_relay, port) = through(way, &format!("{}idle timeout = 1\n", peer.remote()));
        let mut busy = connect(port);
        let mut idle = connect(port);
        ping(&mut idle, b"once");
        let start = Instant::now();
        while !has_ended(&mut idle) {
            ping(&mut busy, b"still here");
            assert!(start.elapsed() < PATIENCE);
            pace(Duration::from_millis(50));
        }
        let elapsed = start.elapsed();
        assert!(elapsed >= Duration::from_millis(950), "{elapsed:?}");
        ping(&mut busy, b"alive");
    });
}

#[test]
fn one_way_traffic_keeps_a_session_alive() {
    let (peer, arrived) = Peer::manual();
    let (_relay, port) = through("4", &format!("{}idle timeout = 1\n", peer.remote()));
    let mut client = connect(port);
    let mut remote = next(&arrived);
    for _ in 0..15 {
        remote.write_all(b"x").expect("to send");
        client.read_exact(&mut [0]).expect("to receive");
        pace(Duration::from_millis(100));
    }
}

/// Waits for the access log line of a session with this ending, and checks its byte counts.
fn wait_for_end(relay: &Relay, ending: &str, counts: &str) {
    relay.wait_for_log(ending, |log| {
        let line = log.lines().find(|line| line.ends_with(ending))?;
        assert!(line.contains(counts), "{line}");
        Some(())
    });
}

#[test]
fn bytes_within_the_kernel_are_counted_and_keep_a_session_alive() {
    for (mechanism, name) in mechanisms() {
        eprintln!("--- {name}");
        let way = Way { directives: SPLICE[0], ..mechanism.into() };
        let (peer, arrived) = Peer::manual();
        let section = format!("{}idle timeout = 2\naccess log = yes\n", peer.remote());
        let (relay, port) = through(way, &section);
        let session = || (connect(port), next(&arrived));
        let (mut broken, mut sender) = session();
        let (mut client, mut remote) = session();
        for _ in 0..25 {
            for (to, from) in [(&mut sender, &mut broken), (&mut remote, &mut client)] {
                to.write_all(b"xyz").expect("to send");
                from.read_exact(&mut [0; 3]).expect("to receive");
            }
            pace(Duration::from_millis(100));
        }
        client.write_all(b"the last word").expect("to send");
        remote.read_exact(&mut [0; 13]).expect("to receive");
        reset(broken);
        wait_for_end(&relay, "broken by client", " sent 0 received 75 ");
        assert_eq!(read_all(client), b"", "closed, not reset");
        wait_for_end(&relay, "idle timeout", " sent 13 received 75 ");
    }
}

#[test]
fn bytes_within_the_kernel_are_counted_although_the_session_is_cut_off() {
    for (mechanism, name) in mechanisms() {
        eprintln!("--- {name}");
        let way = Way { directives: SPLICE[0], ..mechanism.into() };
        let (peer, arrived) = Peer::manual();
        let section = format!("{}drain timeout = 1\naccess log = yes\n", peer.remote());
        let (relay, port) = through(way, &section);
        let mut client = connect(port);
        let mut remote = next(&arrived);
        remote.write_all(b"xyz").expect("to send");
        client.read_exact(&mut [0; 3]).expect("to receive");
        relay.signal(Signal::SIGHUP);
        wait_for_end(&relay, "drain timeout", " sent 0 received 3 ");
    }
}

#[test]
fn a_stalled_session_is_closed_after_the_idle_timeout() {
    each(|way| {
        let (peer, arrived) = Peer::manual();
        let (_relay, port) = through(way, &format!("{}idle timeout = 1\n", peer.remote()));
        let mut client = connect(port);
        let _remote = next(&arrived);
        let data = vec![0; 1 << 20];
        // The remote never reads: at some point the relay accepts no more, and later resets.
        let error = loop {
            if let Err(error) = client.write(&data) {
                break error;
            }
        };
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
        assert!(matches!(error.kind(), ConnectionReset | BrokenPipe), "{error}");
    });
}

#[test]
fn weights_are_those_of_the_c_program() {
    let peers = [Peer::named("A"), Peer::named("B"), Peer::named("C")];
    let section: String = peers
        .iter()
        .zip(1..)
        .map(|(peer, weight)| {
            let port = peer.port;
            format!("remote = {{ address = 127.0.0.1 port = {port} weight = {weight} }}\n")
        })
        .collect();
    let (_relay, port) = through("4", &section);
    let mut clients = Vec::new();
    let mut order = String::new();
    for _ in 0..12 {
        let mut client = connect(port);
        let mut name = [0];
        client.read_exact(&mut name).expect("the name");
        order.push(name[0] as char);
        clients.push(client);
    }
    assert_eq!(order, "ABCCBCABCCBC");
}

#[test]
fn remotes_may_be_unix_sockets_and_host_names() {
    each(|way| {
        let directory = Directory::new();
        let path = directory.file("peer");
        let listener = UnixListener::bind(&path).expect("a listener");
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.write_all(b"unix");
            }
        });
        let section = format!("remote = {{ address = {} }}\n", path.display());
        let (_relay, port) = through(way, &section);
        assert_eq!(read_all(connect(port)), b"unix");
    });
    // The name resolves to ::1 as well, where nobody listens.
    let peer = Peer::named("name");
    let section = format!("remote = {{ address = localhost port = {} }}\n", peer.port);
    let (_relay, port) = through("4", &section);
    connect(port).read_exact(&mut [0; 4]).expect("the name");
}

#[test]
fn a_unix_remote_with_a_full_backlog_is_waited_for() {
    let directory = Directory::new();
    let path = directory.file("peer");
    let listener = UnixListener::bind(&path).expect("a listener");
    // SAFETY: listen(2) takes plain numbers.
    unsafe { libc::listen(std::os::fd::AsRawFd::as_raw_fd(&listener), 1) };
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(b"unix");
            pace(Duration::from_millis(5));
        }
    });
    let (relay, port) = through("4", &format!("remote = {{ address = {} }}\n", path.display()));
    let clients: Vec<TcpStream> = (0..30).map(|_| connect(port)).collect();
    for client in clients {
        assert_eq!(read_all(client), b"unix");
    }
    assert!(!relay.log().contains("failed"), "{}", relay.log());
}

#[test]
fn the_local_address_is_used_for_its_family() {
    let peer = Peer::start(|mut stream| {
        let from = stream.peer_addr().expect("an address").ip().to_string();
        stream.write_all(from.as_bytes()).expect("to send");
    });
    let (_relay, port) =
        through("4", &format!("local address = 127.0.0.9 local address = ::1 {}", peer.remote()));
    assert_eq!(read_all(connect(port)), b"127.0.0.9");
    let (relay, port) = through("4", &format!("local address = ::1 {}", peer.remote()));
    expect_eof(&mut connect(port));
    relay.expect_log("bind: Address family not supported by protocol");
}

#[test]
fn protocols_that_the_kernel_lacks_are_said_and_others_work() {
    let peer = Peer::named("tcp");
    let port_of_peer = peer.port;
    let section = format!(
        "remote = {{ address = 127.0.0.1 port = {port_of_peer} protocol = SCTP }}\n\
         remote = {{ address = 127.0.0.1 port = {port_of_peer} protocol = mptcp }}\n"
    );
    let (relay, port) = through("4", &section);
    let mut client = connect(port);
    let mut name = [0; 3];
    // Towards a server without MPTCP it falls back to TCP; this needs a kernel with MPTCP.
    let mptcp = std::path::Path::new("/proc/sys/net/mptcp/enabled").exists();
    if mptcp {
        client.read_exact(&mut name).expect("the name");
    }
    if !std::path::Path::new("/proc/net/sctp").exists() {
        relay.expect_log("(SCTP) failed: Protocol not supported");
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
         sent 12 received 12 seconds 0.",
        peer.port
    );
    relay.expect_log(&line);
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
