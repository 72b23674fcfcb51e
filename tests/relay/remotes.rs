//! Which remote a session gets: dead ones, weights, addresses, UNIX sockets.

use super::*;

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
