//! Options of client and remote sockets, and of listeners, inspected from outside.

mod common;

use common::*;
use nix::sys::signal::Signal;
use std::os::fd::OwnedFd;

const TCP_KEEPIDLE: i32 = libc::TCP_KEEPIDLE;

fn tcp(fd: &OwnedFd, name: i32) -> Option<i32> {
    sockets::option(fd, libc::IPPROTO_TCP, name)
}

/// The keepalive count, idle time and interval, and TCP_USER_TIMEOUT.
fn patience(fd: &OwnedFd) -> [i32; 4] {
    [libc::TCP_KEEPCNT, TCP_KEEPIDLE, libc::TCP_KEEPINTVL, libc::TCP_USER_TIMEOUT]
        .map(|name| tcp(fd, name).expect("an option of TCP"))
}

fn config(listen: &str, broker: &str, section: &str) -> String {
    format!(
        "id = spawnd {{ listen = {{ address = 127.0.0.1 {listen} }}\n{broker}\n \
         spawn {{ instances min = 1 instances max = 1 users max = 5000 }} }}\n\
         id = tcprelay {{\n{section}\n}}\n"
    )
}

/// The system's maximum for backlogs.
fn most() -> u32 {
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("somaxconn");
    most.trim().parse().expect("a number")
}

#[test]
fn keepalive_and_user_timeout_are_set_at_both_ends() {
    let (first, second) = (Peer::echo(), Peer::echo());
    let port = free_port();
    let listen = format!("port = {port} tcp keepalive idle = 71 tcp user timeout = 21");
    let broker = "tcp keepalive count = 3 tcp user timeout = 99";
    // Defaults apply wherever in the section they stand.
    let section = |first: u16, second: u16| {
        format!(
            "remote = {{ address = 127.0.0.1 port = {first} tcp keepalive interval = 7 \
             tcp user timeout = 30 }}\n\
             remote = {{ address = 127.0.0.1 port = {second} tcp keepalive count = 4 }}\n\
             tcp keepalive idle = 61\n tcp keepalive count = 9\n tcp user timeout = 40\n"
        )
    };
    let text = config(&listen, broker, &section(first.port, second.port));
    let relay = Launch::new(text).start();
    if !sockets::can_look(relay.pid()) {
        return;
    }
    let mut streams = [connect(port), connect(port)];
    for stream in &mut streams {
        ping(stream, b"hello");
    }
    let worker = relay.workers()[0];
    let interval = {
        let plain = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_keepalive_intvl");
        plain.expect("a file").trim().parse::<i32>().expect("a number")
    };
    let client = sockets::connection_on(worker, port).expect("a client");
    assert_eq!(patience(&client), [3, 71, interval, 21_000]);
    let remote = |port| sockets::connection_to(worker, port).expect("a remote");
    assert_eq!(patience(&remote(first.port)), [9, 61, 7, 30_000]);
    assert_eq!(patience(&remote(second.port)), [4, 61, interval, 40_000]);
    // Options that the new configuration does not set return to the system's defaults.
    drop(streams);
    let plain = config(&format!("port = {port}"), "", &first.remote());
    std::fs::write(&relay.config, plain).expect("the configuration");
    relay.signal(Signal::SIGHUP);
    relay.expect_log("succeeded (inherited)");
    let listener = wait_for("the listener", || sockets::listener(relay.pid(), port));
    let [count, idle, _, user] = patience(&listener);
    assert!(count != 3 && idle != 71, "{count} {idle}");
    assert_eq!(user, 0);
}

#[test]
fn the_backlog_is_what_the_system_allows_unless_it_is_set() {
    let peer = Peer::echo();
    let port = free_port();
    // First the C program's default, then no value, then a configured one.
    let relay =
        Launch::new(config(&format!("port = {port} backlog = 128"), "", &peer.remote())).start();
    if !sockets::can_look(relay.pid()) {
        return;
    }
    let backlog = || sockets::listener(relay.pid(), port).map(|fd| sockets::backlog(&fd));
    assert_eq!(backlog(), Some(128));
    for (listen, expected) in [("", most()), (" backlog = 77", 77), ("", most())] {
        let text = config(&format!("port = {port}{listen}"), "", &peer.remote());
        std::fs::write(&relay.config, text).expect("the configuration");
        relay.signal(Signal::SIGHUP);
        wait_for("the other backlog", || (backlog() == Some(expected)).then_some(()));
    }
}

#[test]
fn the_backlog_of_overload_follows_the_backlog() {
    let peer = Peer::echo();
    for (listen, calm, busy) in [
        ("", most(), most()),
        ("backlog = 200", 200, 128),
        ("backlog = 90", 90, 90),
        ("overload backlog = 30", most(), 30),
    ] {
        let port = free_port();
        let text = config(&format!("port = {port} {listen}"), "", &peer.remote());
        let text = text.replace("users max = 5000", "users max = 1");
        let relay = Launch::new(text).start();
        if !sockets::can_look(relay.pid()) {
            return;
        }
        let backlog = || {
            let listener = sockets::listener(relay.pid(), port).expect("the listener");
            sockets::backlog(&listener)
        };
        assert_eq!(backlog(), calm, "{listen}");
        let mut stream = connect(port);
        ping(&mut stream, b"full");
        relay.expect_log("limit of 1 concurrent users reached");
        wait_for("the backlog of overload", || (backlog() == busy).then_some(()));
        drop(stream);
        wait_for("the other backlog", || (backlog() == calm).then_some(()));
    }
}

/// A socket from the service manager keeps its backlog, unless the configuration sets one.
#[test]
fn the_backlog_of_an_activated_socket_stays() {
    use std::os::fd::AsRawFd;
    use std::os::unix::process::CommandExt;
    let peer = Peer::echo();
    for (more, expected) in [("", 128), ("backlog = 77", 77)] {
        let directory = Directory::new();
        let port = free_port();
        // Its backlog is the standard library's: 128.
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("a listener");
        assert_eq!(sockets::backlog(&listener), 128);
        let text = config(&format!("port = {port} {more}"), "", &peer.remote());
        let path = directory.write("relay.cfg", text);
        let log = directory.file("log");
        let mut command = ours("/bin/sh");
        command
            .args(["-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" -f \"$1\"", TCPRELAY])
            .arg(&path)
            .env("TCPRELAY_LOG_STDERR", "1")
            .stdin(std::process::Stdio::null())
            .stderr(std::fs::File::create(&log).expect("the log"));
        let fd = listener.as_raw_fd();
        // SAFETY: dup2(2) and fcntl(2) take plain numbers, and are async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                libc::dup2(fd, 3);
                libc::fcntl(3, libc::F_SETFD, 0);
                Ok(())
            });
        }
        let child = command.spawn().expect("the relay");
        let relay = Relay::assemble(directory, path, log, child);
        relay.expect_log("succeeded (inherited)");
        ping(&mut connect(port), b"hello");
        assert_eq!(sockets::backlog(&listener), expected);
    }
}

/// Many clients connect at a moment when nobody accepts.
#[test]
fn a_storm_of_connections_at_a_reload_finds_room() {
    const STORM: usize = 600;
    if most() < STORM as u32 {
        return left_out("net.core.somaxconn is too small");
    }
    let peer = Peer::echo();
    let port = free_port();
    let relay = Launch::new(config(&format!("port = {port}"), "", &peer.remote())).start();
    // A broker that executes itself again does not accept either; stopped, it takes as long as the
    // test needs.
    relay.signal(Signal::SIGSTOP);
    let begin = std::time::Instant::now();
    let mut streams: Vec<_> = (0..STORM).map(|_| connect(port)).collect();
    let connected = begin.elapsed();
    relay.signal(Signal::SIGCONT);
    relay.signal(Signal::SIGHUP);
    for stream in &mut streams {
        ping(stream, b"storm");
    }
    relay.expect_log("SIGHUP: restarting");
    // A connection that finds no room in the queue is not established while the broker is stopped.
    eprintln!("{STORM} connections in {connected:?}, served after {:?}", begin.elapsed());
}

#[test]
fn the_buffers_of_the_channels_may_be_set_in_listen() {
    let peer = Peer::echo();
    let port = free_port();
    for (listen, broker) in [
        ("tcp bufsize = 40000", ""),
        // The form in spawnd's documentation.
        ("tcp bufsize 40000", ""),
        ("", "tcp bufsize = 40000"),
        ("tcp bufsize = 40000", "tcp keepalive count = 3"),
    ] {
        let listen = format!("port = {port} {listen}");
        let relay = Launch::new(config(&listen, broker, &peer.remote())).start();
        if !sockets::can_look(relay.pid()) {
            return;
        }
        let worker = relay.workers()[0];
        // Linux doubles the value it is given.
        assert!(sockets::has_unix_buffer(worker, 80000), "{listen} {broker}");
        let mut stream = connect(port);
        ping(&mut stream, b"hello");
    }
}
