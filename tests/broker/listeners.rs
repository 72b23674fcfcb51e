//! Listeners: shared ports, socket files, overload, sockets of the service manager.

use super::*;

#[test]
fn overload_recovers_when_the_worker_dies() {
    for mode in ["queue", "reset", "close"] {
        let peer = Peer::echo();
        let port = free_port();
        let broker = format!("overload = {mode}");
        let spawn = "instances min = 1 instances max = 1 users min = 1 users max = 2";
        let relay = Launch::new(config(port, &peer.remote(), &broker, spawn, "")).start();
        let lasting = Lasting::open(port, 2);
        relay.expect_log("limit of 2 concurrent users reached");
        kill(relay.workers()[0], Signal::SIGKILL);
        relay.expect_log("resuming normal operation");
        wait_for("service", || one_session(port).is_ok().then_some(()));
        drop(lasting);
    }
}

#[test]
fn a_port_that_was_taken_during_overload_is_bound_again() {
    let peer = Peer::echo();
    let port = free_port();
    let spawn = "instances min = 1 instances max = 1 users max = 1";
    let text = config(port, &peer.remote(), "overload = reset", spawn, "");
    let relay = Launch::new(text).start();
    let lasting = Lasting::open(port, 1);
    relay.expect_log("resetting new connections");
    let taken = wait_for("the port", || std::net::TcpListener::bind(("127.0.0.1", port)).ok());
    drop(lasting);
    relay.expect_log("failed.");
    drop(taken);
    wait_for("service", || one_session(port).is_ok().then_some(()));
}

#[test]
fn sockets_of_the_service_manager_are_used() {
    let peer = Peer::echo();
    let port = free_port();
    let with_block = config(port, &peer.remote(), "", "instances max = 1", "");
    let without_block = format!(
        "id = spawnd {{ spawn {{ instances max = 1 }} }} id = tcprelay {{ {} }}",
        peer.remote()
    );
    activated(port, with_block);
    activated(port, without_block);
}

fn activated(port: u16, text: String) {
    let directory = Directory::new();
    let config = directory.write("relay.cfg", text);
    let ready = std::os::unix::net::UnixDatagram::bind(directory.file("notify")).expect("a socket");
    ready.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("a listener");
    let log = std::fs::File::create(directory.file("log")).expect("the log");
    // The shell sets LISTEN_PID to its own id and then executes the relay, with the socket as
    // descriptor 3.
    use std::os::fd::AsRawFd;
    use std::os::unix::process::CommandExt;
    let fd = listener.as_raw_fd();
    let mut command = ours("/bin/sh");
    command
        .args(["-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" -f \"$1\"", TCPRELAY])
        .arg(&config)
        .env("NOTIFY_SOCKET", directory.file("notify"))
        .env("TCPRELAY_LOG_STDERR", "1")
        .stdin(std::process::Stdio::null())
        .stderr(log);
    // SAFETY: dup2(2) takes plain numbers, and is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            libc::dup2(fd, 3);
            libc::fcntl(3, libc::F_SETFD, 0);
            Ok(())
        });
    }
    let mut child = command.spawn().expect("the relay");
    let mut message = [0; 64];
    let length = ready.recv(&mut message).expect("readiness");
    assert_eq!(&message[..length], b"READY=1");
    one_session(port).expect("to be served");
    let log = std::fs::read_to_string(directory.file("log")).expect("the log");
    let taken = ["succeeded (inherited)", "succeeded (socket activation)"];
    assert!(taken.iter().any(|text| log.contains(text)), "{log}");
    // A reload keeps the socket, and notifies the service manager.
    kill(child.id() as i32, Signal::SIGHUP);
    let length = ready.recv(&mut message).expect("a notice");
    let told = String::from_utf8_lossy(&message[..length]);
    assert!(told.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{told}");
    let length = ready.recv(&mut message).expect("readiness");
    assert_eq!(&message[..length], b"READY=1");
    one_session(port).expect("to be served");
    kill(child.id() as i32, Signal::SIGTERM);
    let length = ready.recv(&mut message).expect("a notice");
    assert_eq!(&message[..length], b"STOPPING=1");
    assert_eq!(child.wait().expect("waitpid").code(), Some(0));
}

/// A configuration with this value of `reuse port`.
fn sharing(port: u16, peer: &Peer, reuse: &str) -> String {
    config(port, &peer.remote(), "", "instances max = 1", "").replacen(
        "backlog",
        &format!("reuse port = {reuse} backlog"),
        1,
    )
}

/// The name of the server that a new connection reaches.
fn greeting(port: u16) -> String {
    let mut name = [0; 5];
    connect(port).read_exact(&mut name).expect("a name");
    String::from_utf8_lossy(&name).into_owned()
}

#[test]
fn two_brokers_share_a_port() {
    let peers = ["first", "other"].map(Peer::named);
    let port = free_port();
    let mut relays = peers.each_ref().map(|peer| Launch::new(sharing(port, peer, "yes")).start());
    let mut lasting: Vec<_> = (0..64).map(|_| connect(port)).collect();
    let mut served = std::collections::HashMap::<[u8; 5], usize>::new();
    for stream in &mut lasting {
        let mut name = [0; 5];
        stream.read_exact(&mut name).expect("a name");
        *served.entry(name).or_default() += 1;
    }
    assert_eq!(served.len(), 2, "{served:?}");
    // One broker leaves while its accept queue is empty: its sessions and the shared port live on.
    relays[0].signal(Signal::SIGTERM);
    relays[0].wait();
    for _ in 0..20 {
        assert_eq!(greeting(port), "other");
    }
    for stream in &mut lasting {
        ping(stream, b"still");
    }
    // And it comes back.
    relays[0] = Launch::new(sharing(port, &peers[0], "yes")).start();
    wait_for("both", || (greeting(port) == "first").then_some(()));
    wait_for("both", || (greeting(port) == "other").then_some(()));
}

#[test]
fn a_port_is_shared_only_if_both_want_it() {
    let peers = ["first", "other"].map(Peer::named);
    for (first, second) in [("no", "no"), ("no", "yes"), ("yes", "no")] {
        let port = free_port();
        let _relay = Launch::new(sharing(port, &peers[0], first)).start();
        let mut refused = Launch::new(sharing(port, &peers[1], second)).ready(None).start();
        assert_eq!(refused.wait().code(), Some(75), "{first}, {second}");
        refused.expect_log("bind: Address already in use");
        assert_eq!(greeting(port), "first");
    }
}

#[test]
fn a_reload_changes_whether_a_port_is_shared() {
    let peers = ["first", "other"].map(Peer::named);
    let port = free_port();
    let relay = Launch::new(sharing(port, &peers[0], "no")).start();
    reload(&relay, &sharing(port, &peers[0], "yes"));
    // A reload that changes nothing keeps the socket.
    reload(&relay, &sharing(port, &peers[0], "yes"));
    relay.expect_log("succeeded (inherited)");
    let other = Launch::new(sharing(port, &peers[1], "yes")).start();
    wait_for("both", || (greeting(port) == "first").then_some(()));
    wait_for("both", || (greeting(port) == "other").then_some(()));
    drop(other);
    reload(&relay, &sharing(port, &peers[0], "no"));
    assert_eq!(greeting(port), "first");
    let mut refused = Launch::new(sharing(port, &peers[1], "yes")).ready(None).start();
    assert_eq!(refused.wait().code(), Some(75));
}

#[test]
fn a_reload_removes_the_socket_file_of_a_listener_that_is_gone() {
    let peer = Peer::echo();
    let port = free_port();
    let directory = Directory::new();
    let path = directory.file("socket");
    let plain = config(port, &peer.remote(), "", "instances max = 1", "");
    let both =
        plain.replacen("listen", &format!("listen = {{ path = {} }} listen", path.display()), 1);
    let relay = Launch::new(&both).start();
    assert!(path.exists());
    reload(&relay, &both);
    assert!(path.exists());
    std::os::unix::net::UnixStream::connect(&path).expect("still served");
    reload(&relay, &plain);
    assert!(!path.exists());
}

#[test]
fn a_reload_changes_the_mode_of_a_socket() {
    let peer = Peer::echo();
    let directory = Directory::new();
    let path = directory.file("socket");
    let text = |mode: &str| {
        format!(
            "id = spawnd {{ listen = {{ path = {} mode = {mode} }} spawn {{ instances max = 1 }} }}\n\
             id = tcprelay {{ {} }}\n",
            path.display(),
            peer.remote()
        )
    };
    use std::os::unix::fs::PermissionsExt;
    let mode = || std::fs::metadata(&path).expect("the socket").permissions().mode() & 0o777;
    let relay = Launch::new(text("0666")).start();
    assert_eq!(mode(), 0o666);
    reload(&relay, &text("0600"));
    assert_eq!(mode(), 0o600);
    // With the directive gone the mode is that of a new socket.
    reload(&relay, &text("0600").replace("mode = 0600", ""));
    assert_eq!(mode(), 0o755);
}

#[test]
fn a_reload_to_a_port_that_is_taken_is_tried_again() {
    let peer = Peer::echo();
    let (first, second) = (free_port(), free_port());
    let text = |port| config(port, &peer.remote(), "", "instances max = 1", "");
    let relay = Launch::new(text(first)).start();
    let mut lasting = Lasting::open(first, 1);
    let taken = std::net::TcpListener::bind(("127.0.0.1", second)).expect("the port");
    std::fs::write(&relay.config, text(second)).expect("to write");
    relay.signal(Signal::SIGHUP);
    relay.expect_log("Failed to bind to any address or port. Will retry every");
    lasting.check();
    drop(taken);
    wait_for("service", || one_session(second).is_ok().then_some(()));
    lasting.check();
}
