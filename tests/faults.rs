//! Shortages on this host (descriptors, memory, ports) end no service and no session, and are never
//! blamed on a remote.

mod common;

use common::*;
use nix::sys::signal::Signal;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Calls that can be made to fail, with their numbers in faults.c.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    EpollAdd,
    SpliceIn,
    SpliceOut,
    Socket,
    Bind,
    Connect,
    Pipe,
    Channel,
}

/// The page that a relay shares with its test.
struct Faults {
    page: fs::File,
    directory: Directory,
}

impl Faults {
    fn new() -> Faults {
        let directory = Directory::new();
        let path = directory.write("faults", vec![0; 4096]);
        // Workers may run as another user.
        let mode = |path: &std::path::Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
        };
        mode(directory.path(), 0o755);
        mode(&path, 0o666);
        let page = fs::File::options().read(true).write(true).open(path).expect("the page");
        Faults { page, directory }
    }

    fn start(&self, setup: Launch) -> Relay {
        let page = self.directory.file("faults");
        setup
            .environment("LD_PRELOAD", library().to_str().expect("a path"))
            .environment("TCPRELAY_TEST_FAULTS", page.to_str().expect("a path"))
            .start()
    }

    /// Makes a call fail with this errno from now on; 0: it works again.
    fn set(&self, call: Call, error: i32) {
        self.page.write_all_at(&error.to_ne_bytes(), call as u64 * 8).expect("to write");
    }

    /// How often a call was made to fail.
    fn count(&self, call: Call) -> i32 {
        let mut count = [0; 4];
        self.page.read_exact_at(&mut count, call as u64 * 8 + 4).expect("to read");
        i32::from_ne_bytes(count)
    }
}

fn library() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let staged = directory.join(format!("faults.{}", std::process::id()));
        let mut command = modules::cc();
        command.args(["-shared", "-fPIC", "-o"]).arg(&staged);
        run(command.arg(modules::source("tests/faults/faults.c")).arg("-ldl"));
        let library = directory.join("faults.so");
        fs::rename(staged, &library).expect("to take its place");
        library
    };
    BUILT.get_or_init(build).clone()
}

fn cpu(relay: &Relay) -> u64 {
    relay.workers().into_iter().chain([relay.pid()]).map(cpu_ticks).sum()
}

#[test]
fn a_listener_that_was_paused_goes_on_without_memory() {
    let (peer, faults, port) = (Peer::echo(), Faults::new(), free_port());
    let relay = faults.start(Launch::new(format!(
        "id = spawnd {{ listen = {{ address = 127.0.0.1 port = {port} }} overload = queue\n\
         spawn {{ instances min = 1 instances max = 1 users max = 2 }} }}\n\
         id = tcprelay {{ {} }}\n",
        peer.remote()
    )));
    let mut sessions = [connect(port), connect(port)];
    sessions.iter_mut().for_each(|session| ping(session, b"one"));
    let mut waiting = connect(port);
    relay.wait_for_log("the limit", |log| log.contains("limit").then_some(()));
    faults.set(Call::EpollAdd, libc::ENOMEM);
    drop(sessions);
    // Without epoll, the worker checks its new session by timer; the broker's listener is not
    // affected.
    ping(&mut waiting, b"two");
    drop(waiting);
    for _ in 0..5 {
        ping(&mut connect(port), b"three");
    }
    assert_ne!(faults.count(Call::EpollAdd), 0);
    faults.set(Call::EpollAdd, 0);
    ping(&mut connect(port), b"four");
}

#[test]
fn sessions_go_on_while_the_system_refuses_to_watch_them() {
    let (peer, faults, port) = (Peer::echo(), Faults::new(), free_port());
    let relay = faults.start(Launch::simple(port, &peer.remote()));
    for error in [libc::ENOMEM, libc::ENOSPC] {
        faults.set(Call::EpollAdd, error);
        let mut client = connect(port);
        ping(&mut client, b"refused");
        let (before, start) = (cpu(&relay), Instant::now());
        while start.elapsed() < Duration::from_secs(1) {
            pace(Duration::from_millis(100));
            ping(&mut client, b"and again");
        }
        // A hundred ticks are one second of a processor.
        assert!(cpu(&relay) - before < 30, "{} ticks", cpu(&relay) - before);
        client.write_all(&pattern(1, 3_000_000)).expect("to send");
        let mut echo = vec![0; 3_000_000];
        client.read_exact(&mut echo).expect("all of it");
        assert!(echo == pattern(1, 3_000_000));
        client.shutdown(Shutdown::Write).expect("to shut down");
        expect_eof(&mut client);
        faults.set(Call::EpollAdd, 0);
        ping(&mut connect(port), b"well");
    }
}

#[test]
fn what_cannot_be_spliced_for_want_of_memory_is_copied() {
    let (peer, faults) = (Peer::echo(), Faults::new());
    let relays = ["always", "auto"].map(|splice| {
        let port = free_port();
        let section = format!("splice = {splice} {}", peer.remote());
        (faults.start(Launch::simple(port, &section)), port)
    });
    for (call, error) in [
        (Call::SpliceIn, libc::ENOMEM),
        (Call::SpliceOut, libc::ENOMEM),
        (Call::SpliceOut, libc::ENOBUFS),
        (Call::SpliceIn, libc::EPERM),
        (Call::SpliceOut, libc::EINVAL),
        (Call::Pipe, libc::EMFILE),
        (Call::Pipe, libc::ENFILE),
    ] {
        for (_relay, port) in &relays {
            // The call fails in the middle of a transfer, and then works again.
            let mut client = connect(*port);
            let (writer, data) = (client.try_clone().expect("the same"), pattern(2, 6_000_000));
            let sending = std::thread::spawn(move || {
                let mut writer = writer;
                writer.write_all(&data).expect("to send");
                writer.shutdown(Shutdown::Write).expect("to shut down");
            });
            let mut echo = vec![0; 2_000_000];
            client.read_exact(&mut echo).expect("the first part");
            faults.set(call, error);
            let mut more = vec![0; 2_000_000];
            client.read_exact(&mut more).unwrap_or_else(|error| panic!("{call:?}: {error}"));
            faults.set(call, 0);
            echo.append(&mut more);
            client.read_to_end(&mut echo).unwrap_or_else(|error| panic!("{call:?}: {error}"));
            assert!(echo == pattern(2, 6_000_000), "{call:?} {error}: {}", echo.len());
            sending.join().expect("sent");
        }
    }
    assert_ne!(faults.count(Call::SpliceIn), 0);
    assert_ne!(faults.count(Call::SpliceOut), 0);
}

#[test]
fn what_this_host_is_short_of_marks_no_remote_as_dead() {
    let (first, second) = (Peer::named("A"), Peer::named("B"));
    let (faults, port) = (Faults::new(), free_port());
    let relay = faults.start(Launch::simple(
        port,
        &format!(
            "local address = 127.0.0.1 retry delay = 0 connect timeout = 1 {} {}",
            first.remote(),
            second.remote()
        ),
    ));
    let greets = || {
        let mut name = [0];
        let mut client = connect(port);
        client.read_exact(&mut name).map(|()| name[0]).ok()
    };
    for (call, error) in [
        (Call::Connect, libc::EADDRNOTAVAIL),
        (Call::Connect, libc::EADDRINUSE),
        (Call::Connect, libc::EAGAIN),
        (Call::Connect, libc::ENOBUFS),
        (Call::Connect, libc::ENOMEM),
        (Call::Bind, libc::EADDRNOTAVAIL),
        (Call::Bind, libc::EADDRINUSE),
        (Call::Socket, libc::ENOBUFS),
        (Call::Socket, libc::ENOMEM),
        (Call::Socket, libc::EMFILE),
        (Call::Socket, libc::ENFILE),
    ] {
        faults.set(call, error);
        assert_eq!(greets(), None, "{call:?} {error}: nobody can be reached");
        let reason = std::io::Error::from_raw_os_error(error).to_string();
        let (reason, _) = reason.split_once(" (os").expect("a reason");
        let name = format!("{call:?}: {reason}").to_lowercase();
        relay.wait_for_log("the reason", |log| log.to_lowercase().contains(&name).then_some(()));
        faults.set(call, 0);
        // With a retry delay of 0, a remote marked dead would not be tried again.
        let found: Vec<Option<u8>> = (0..4).map(|_| greets()).collect();
        assert!(found.contains(&Some(b'A')), "{call:?} {error}: {found:?}\n{}", relay.log());
        assert!(!found.contains(&None), "{call:?} {error}: {found:?}\n{}", relay.log());
    }
    assert!(!relay.log().contains(" failed"), "{}", relay.log());
}

#[test]
fn sessions_wait_for_what_this_host_is_short_of() {
    let (peer, faults, port) = (Peer::echo(), Faults::new(), free_port());
    let relay = faults.start(Launch::simple(port, &peer.remote()));
    for (call, error) in [(Call::Connect, libc::EADDRNOTAVAIL), (Call::Socket, libc::ENOBUFS)] {
        faults.set(call, error);
        let before = faults.count(call);
        let mut client = connect(port);
        wait_for("three attempts", || (faults.count(call) >= before + 3).then_some(()));
        faults.set(call, 0);
        ping(&mut client, b"served");
    }
    assert!(!relay.log().contains(" failed"), "{}", relay.log());
}

/// Descriptors promised to the broker stay free: pipes of sessions with bytes in transit must not
/// use them.
#[test]
fn pipes_take_no_descriptors_that_were_promised() {
    let (peer, held) = Peer::manual();
    let directory = Directory::new();
    let program =
        directory.program("limited", format!("#!/bin/sh\nulimit -n 200\nexec {TCPRELAY} \"$@\"\n"));
    let port = free_port();
    let section = format!("splice = always {}", peer.remote());
    let relay = Launch::simple(port, &section).program(program).start();
    let worker = relay.workers()[0];
    // Clients send all they can, and no remote reads.
    let mut pairs: Vec<_> = (0..60)
        .map(|_| {
            let client = connect(port);
            let remote = next(&held);
            client.set_nonblocking(true).expect("nonblocking");
            // Buffers that grow would take over 1 GiB in the kernel. Where TCP may not have as
            // much, it drops what arrives, and sessions wait for ever longer retransmissions.
            keep_few_bytes(&client);
            keep_few_bytes(&remote);
            (client, remote, 0)
        })
        .collect();
    let data = pattern(9, 32 << 20);
    // Until nothing more is accepted for a while, or all of it was.
    let mut quiet = Instant::now();
    while quiet.elapsed() < Duration::from_millis(300) {
        for (client, _, sent) in &mut pairs {
            let end = data.len().min(*sent + (1 << 20));
            if let Ok(count @ 1..) = client.write(&data[*sent..end]) {
                *sent += count;
                quiet = Instant::now();
            }
        }
        pace(Duration::from_millis(10));
    }
    let piped = descriptors(worker);
    let mut others: Vec<_> = (0..35)
        .map(|_| {
            let mut client = connect(port);
            client.write_all(b"hello").expect("to send");
            let mut remote = next(&held);
            remote.read_exact(&mut [0; 5]).expect("what was sent");
            remote.write_all(b"world").expect("to answer");
            client.read_exact(&mut [0; 5]).expect("the answer");
            (client, remote)
        })
        .collect();
    assert!(piped > 60 * 2 + 10, "{piped} descriptors: there were pipes");
    assert!(!relay.log().contains("Too many"), "{}", relay.log());
    others.clear();
    for (client, mut remote, sent) in pairs {
        client.shutdown(Shutdown::Write).expect("to shut down");
        let mut received = Vec::new();
        remote.read_to_end(&mut received).expect("all of it");
        assert!(received == data[..sent], "{} of {sent} bytes", received.len());
    }
    relay.signal(Signal::SIGTERM);
}

/// A network namespace for this thread and everything it starts, with a loopback interface only.
fn own_network() -> bool {
    // SAFETY: unshare(2) takes a plain number; the request is a whole struct ifreq, which outlives the
    // call, and names its interface with a NUL behind.
    unsafe {
        if libc::unshare(libc::CLONE_NEWNET) == -1 {
            return false;
        }
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        let up = libc::ioctl(socket, libc::SIOCSIFFLAGS, &request) == 0;
        libc::close(socket);
        up
    }
}

/// There are fifty ports and more sessions than that, though not more with any one remote.
#[test]
fn with_a_local_address_there_are_all_ports_for_each_remote() {
    let in_own_network = || {
        if !own_network() {
            return left_out("a network of its own takes root");
        }
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "33000 33049").expect("to limit ports");
        for host in ["127.0.0.1", "::1"] {
            let Ok(listeners) = (2001..=2003)
                .map(|port| std::net::TcpListener::bind((host, port)))
                .collect::<Result<Vec<_>, _>>()
            else {
                left_out("there is no IPv6");
                continue;
            };
            let directory = Directory::new();
            let path = directory.file("socket");
            let remotes: String = (2001..=2003)
                .map(|port| format!("remote = {{ address = {host} port = {port} }} "))
                .collect();
            let relay = Launch::new(format!(
                "id = spawnd {{ listen = {{ address = {} backlog = 200 }}\n\
                 spawn {{ instances min = 1 instances max = 1 users max = 500 }} }}\n\
                 id = tcprelay {{ local address = {host} {remotes} }}\n",
                path.display()
            ))
            .start();
            let connect =
                || wait_for("the relay", || std::os::unix::net::UnixStream::connect(&path).ok());
            let _clients: Vec<_> = (0..120).map(|_| connect()).collect();
            let mut sessions = Vec::new();
            for listener in &listeners {
                listener.set_nonblocking(true).expect("nonblocking");
            }
            wait_for("all sessions", || {
                sessions.extend(listeners.iter().filter_map(|listener| listener.accept().ok()));
                (sessions.len() == 120).then_some(())
            });
            assert!(!relay.log().contains("failed"), "{}", relay.log());
            // With no port left at all, the log says so, and no remote is marked dead.
            let _more: Vec<_> = (0..60).map(|_| connect()).collect();
            relay.expect_log("connect: Cannot assign requested address");
            assert!(!relay.log().contains(" failed"), "{}", relay.log());
        }
    };
    std::thread::spawn(in_own_network).join().expect("the sessions");
}

#[test]
fn a_full_channel_that_is_called_writable_is_asked_by_time() {
    let (peer, faults, port) = (Peer::echo(), Faults::new(), free_port());
    let relay = faults.start(Launch::simple(port, &peer.remote()).ready(1));
    ping(&mut connect(port), b"one");
    faults.set(Call::Channel, libc::ENOBUFS);
    let mut waiting = connect(port);
    wait_for("the first refusal", || (faults.count(Call::Channel) > 0).then_some(()));
    let (start, before) = (Instant::now(), faults.count(Call::Channel));
    wait_for("further ones", || (faults.count(Call::Channel) >= before + 40).then_some(()));
    // Broker and worker each retry every 20 ms.
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    faults.set(Call::Channel, 0);
    ping(&mut waiting, b"two");
    // The worker reports ended sessions once it can.
    drop(waiting);
    wait_for("the count", || relay.title().contains("0 connections").then_some(()));
}

#[test]
fn a_datagram_that_is_too_long_for_the_channel_holds_nobody_up() {
    let (faults, udp, tcp) = (Faults::new(), free_port(), free_port());
    let worker = faults.directory.program(
        "worker",
        "#!/usr/bin/env python3\nimport array, os, socket, struct\n\
         channel = socket.socket(fileno=os.dup(0))\nchannel.send(struct.pack('=Ii', 5, 1000))\n\
         while True:\n    data, ancillary, _, _ = channel.recvmsg(8192, 256)\n    \
         kind = struct.unpack_from('=I', data)[0]\n    \
         if kind == 2:\n        break\n    \
         for _, _, numbers in ancillary:\n        \
         fds = array.array('i', numbers)\n        \
         if kind == 6:\n            os.write(fds[0], b'served')\n        \
         for fd in fds:\n            os.close(fd)\n        \
         channel.send(struct.pack('=Ii', 0, len(fds)))\n",
    );
    let relay = faults.start(
        Launch::new(format!(
            "id = spawnd {{ listen = {{ address = 127.0.0.1 port = {udp} protocol = UDP }}\n\
             listen = {{ address = 127.0.0.1 port = {tcp} }}\n\
             spawn {{ exec = {} instances min = 1 instances max = 1 }} }}\n",
            worker.display()
        ))
        .program(env!("CARGO_BIN_EXE_spawnd"))
        .ready(None),
    );
    let served = || {
        let mut answer = String::new();
        connect(tcp).read_to_string(&mut answer).expect("an answer");
        assert_eq!(answer, "served");
    };
    relay.expect_log(&format!("bind to [127.0.0.1]:{tcp} succeeded"));
    served();
    faults.set(Call::Channel, libc::EMSGSIZE);
    let client = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    client.send_to(&[0; 3000], ("127.0.0.1", udp)).expect("to send");
    relay.expect_log("a datagram of 3000 bytes is too long for the channel to a worker");
    (0..3).for_each(|_| served());
}
