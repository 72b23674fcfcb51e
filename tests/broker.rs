//! The broker under load: reload, killed, retired and stuck workers, overload.

mod common;

use common::*;
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Runs short sessions through an echo from several threads until stopped. Every session must be
/// served: refusals, resets and wrong answers are recorded.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<String>>>,
    started: Instant,
}

impl Load {
    fn start(port: u16) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicUsize::new(0));
        let threads = (0..4)
            .map(|_| {
                let (stop, served) = (stop.clone(), served.clone());
                thread::spawn(move || {
                    let mut failures = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        match one_session(port) {
                            Ok(()) => drop(served.fetch_add(1, Ordering::Relaxed)),
                            Err(error) => failures.push(error.to_string()),
                        }
                    }
                    failures
                })
            })
            .collect();
        Load { stop, served, threads, started: Instant::now() }
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }

    /// Waits for this many further sessions.
    fn wait_for_sessions(&self, count: usize) {
        let target = self.served() + count;
        wait_for("sessions to be served", || (self.served() >= target).then_some(()));
    }

    /// Ends the load; returns the failures, and the sessions per second.
    fn stop(self) -> (Vec<String>, f64) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.threads.into_iter().flat_map(|t| t.join().expect("a client")).collect();
        let rate =
            self.served.load(Ordering::Relaxed) as f64 / self.started.elapsed().as_secs_f64();
        (failures, rate)
    }
}

fn one_session(port: u16) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"request")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer != b"request" {
        return Err(std::io::Error::other(format!("answered {answer:?}")));
    }
    Ok(())
}

fn config(port: u16, remote: &str, broker: &str, spawn: &str, worker: &str) -> String {
    format!(
        "id = spawnd {{\n listen = {{ address = 127.0.0.1 port = {port} backlog = 4096 }}\n \
         {broker}\n spawn {{ {spawn} }}\n}}\nid = tcprelay {{\n{remote}{worker}\n}}\n"
    )
}

/// Long-lived sessions, which must survive whatever the test does.
struct Lasting(Vec<TcpStream>);

impl Lasting {
    fn open(port: u16, count: usize) -> Lasting {
        let mut streams: Vec<TcpStream> = (0..count).map(|_| connect(port)).collect();
        for stream in &mut streams {
            ping(stream, b"hello");
        }
        Lasting(streams)
    }

    fn check(&mut self) {
        for stream in &mut self.0 {
            ping(stream, b"still");
        }
    }
}

#[test]
fn twenty_reloads_under_load_lose_nothing() {
    let peer = Peer::echo();
    let port = free_port();
    let text = config(port, &peer.remote(), "", "instances min = 2 users max = 4000", "");
    let relay = Launch::new(text).ready(2).start();
    let mut lasting = Lasting::open(port, 10);
    let load = Load::start(port);
    load.wait_for_sessions(100);
    for reload in 1..=20 {
        relay.signal(Signal::SIGHUP);
        relay.wait_for_log("the restart", |log| {
            (log.matches("SIGHUP: restarting").count() >= reload).then_some(())
        });
        relay.wait_for_log("the inherited listener", |log| {
            (log.matches("succeeded (inherited)").count() >= reload).then_some(())
        });
        load.wait_for_sessions(20);
        lasting.check();
    }
    let (failures, rate) = load.stop();
    assert!(failures.is_empty(), "{} failures: {:?}", failures.len(), &failures[..1]);
    eprintln!("{rate:.0} sessions a second");
    assert!(rate >= 200.0, "only {rate:.0} sessions a second");
    lasting.check();
    drop(lasting);
    wait_for("the old workers to leave", || (relay.workers().len() == 2).then_some(()));
}

#[test]
fn single_process_mode_reloads_and_ends_like_the_other() {
    let peer = Peer::echo();
    let port = free_port();
    let text = config(port, &peer.remote(), "single process = yes", "", "");
    let mut relay = Launch::new(text).start();
    let mut lasting = Lasting::open(port, 3);
    let load = Load::start(port);
    load.wait_for_sessions(50);
    for reload in 1..=5 {
        relay.signal(Signal::SIGHUP);
        relay.wait_for_log("the restart", |log| {
            (log.matches("succeeded (inherited)").count() >= reload).then_some(())
        });
        load.wait_for_sessions(20);
        lasting.check();
    }
    let (failures, _) = load.stop();
    assert!(failures.is_empty(), "{failures:?}");
    // The older sessions live in a child; these end up in a second one when the broker is told to
    // end.
    let mut now = Lasting::open(port, 2);
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.wait().code(), Some(0));
    lasting.check();
    now.check();
}

#[test]
fn a_broken_configuration_is_refused_and_the_service_goes_on() {
    let peer = Peer::echo();
    let port = free_port();
    let text = config(port, &peer.remote(), "", "instances max = 1", "");
    let relay = Launch::new(&text).start();
    let mut lasting = Lasting::open(port, 1);
    let worker = relay.workers();
    for broken in [text.replace("remote", "remoote"), text.replace("listen", "lisssten")] {
        let before = relay.log().matches("is refused").count();
        std::fs::write(&relay.config, broken).expect("to write");
        relay.signal(Signal::SIGHUP);
        relay.wait_for_log("the refusal", |log| {
            (log.matches("is refused").count() > before).then_some(())
        });
    }
    relay.expect_log("relay.cfg:2: Expected");
    relay.expect_log("'remoote' unexpected");
    assert_eq!(relay.workers(), worker);
    lasting.check();
    one_session(port).expect("to be served");
    // A corrected configuration is accepted, and still no session is lost.
    std::fs::write(&relay.config, text).expect("to write");
    relay.signal(Signal::SIGHUP);
    relay.expect_log("SIGHUP: restarting");
    one_session(port).expect("to be served");
    lasting.check();
}

#[test]
fn a_killed_worker_takes_only_its_own_sessions() {
    let peer = Peer::echo();
    let port = free_port();
    let spawn = "instances min = 2 instances max = 2 users min = 1 users max = 1000";
    let relay = Launch::new(config(port, &peer.remote(), "", spawn, "")).ready(2).start();
    let mut lasting = Lasting::open(port, 6);
    let workers = relay.workers();
    kill(workers[0], Signal::SIGKILL);
    relay.expect_log(&format!("child (pid {}) terminated abnormally (signal 9)", workers[0]));
    wait_for("a new worker", || (relay.workers().len() == 2).then_some(()));
    let survivors = lasting.0.iter_mut().filter_map(|stream| (!has_ended(stream)).then_some(()));
    assert_eq!(survivors.count(), 3);
    assert!(relay.title().contains(": 3 connections,"), "{}", relay.title());
    for _ in 0..10 {
        one_session(port).expect("to be served");
    }
}

#[test]
fn retirement_loses_no_connection() {
    let peer = Peer::echo();
    let port = free_port();
    let spawn = "instances min = 2 instances max = 4 users max = 1000";
    let text = config(port, &peer.remote(), "", spawn, "retire limit = 50");
    let relay = Launch::new(text).ready(2).start();
    let load = Load::start(port);
    load.wait_for_sessions(2000);
    let (failures, rate) = load.stop();
    assert!(failures.is_empty(), "{failures:?}");
    eprintln!("{rate:.0} sessions a second");
    let log = relay.log();
    assert!(log.matches("Retire limit reached. Told parent about this.").count() >= 30);
    assert!(!log.contains("do not stay up"), "{log}");
}

#[test]
fn signals_to_a_worker_lose_no_connection() {
    let peer = Peer::echo();
    let port = free_port();
    let spawn = "instances min = 2 instances max = 2 users max = 1000";
    let relay = Launch::new(config(port, &peer.remote(), "", spawn, "")).ready(2).start();
    let mut lasting = Lasting::open(port, 2);
    let load = Load::start(port);
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGTERM, Signal::SIGHUP] {
        load.wait_for_sessions(50);
        let leaving = relay.log().matches("No longer accepting").count();
        // Picks a worker that serves: not a draining one, and not one that is still starting.
        let serving = || {
            let serves = |pid: &i32| {
                let title = title(*pid);
                title.starts_with("tcprelay: ") && !title.contains("left")
            };
            relay.workers().into_iter().find(serves)
        };
        kill(wait_for("a serving worker", serving), signal);
        relay.wait_for_log("the worker to notice", |log| {
            (log.matches("No longer accepting").count() > leaving).then_some(())
        });
    }
    relay.signal(Signal::SIGUSR1);
    load.wait_for_sessions(100);
    let (failures, _) = load.stop();
    assert!(failures.is_empty(), "{failures:?}");
    lasting.check();
}

#[test]
fn the_drain_timeout_ends_what_lasts_too_long() {
    let peer = Peer::echo();
    let port = free_port();
    let text = config(port, &peer.remote(), "", "instances max = 1", "drain timeout = 1");
    let relay = Launch::new(text).start();
    let mut lasting = Lasting::open(port, 2);
    relay.signal(Signal::SIGHUP);
    relay.expect_log("succeeded (inherited)");
    lasting.check();
    let mut new = Lasting::open(port, 1);
    wait_for("the old sessions to end", || has_ended(&mut lasting.0[0]).then_some(()));
    new.check();
}

#[test]
fn a_stopped_worker_holds_up_nobody_else() {
    let peer = Peer::echo();
    let port = free_port();
    let spawn = "instances min = 2 instances max = 2 users min = 1 users max = 5000";
    let mut relay = Launch::new(config(port, &peer.remote(), "", spawn, "")).ready(2).start();
    let workers = relay.workers();
    kill(workers[0], Signal::SIGSTOP);
    // Sessions given to the stopped worker wait; the other worker serves its share meanwhile.
    let waiting: Vec<TcpStream> = (0..900).map(|_| connect(port)).collect();
    let served = |streams: &[TcpStream]| {
        let mut served = 0;
        for mut stream in streams {
            stream.set_read_timeout(Some(Duration::from_millis(1))).expect("a timeout");
            if stream.write_all(b"x").is_ok() && stream.read_exact(&mut [0]).is_ok() {
                served += 1;
            }
        }
        served
    };
    wait_for("half of them to be served", || (served(&waiting) >= 300).then_some(()));
    kill(workers[0], Signal::SIGCONT);
    wait_for("all of them to be served", || (served(&waiting) == 900).then_some(()));
    kill(workers[0], Signal::SIGSTOP);
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.wait().code(), Some(0));
    kill(workers[0], Signal::SIGCONT);
}

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
fn workers_that_die_at_start_are_not_started_in_a_loop() {
    let port = free_port();
    let text = config(port, &remote(1), "", "instances max = 1 exec = /bin/false", "");
    let mut relay = Launch::new(text).ready(None).start();
    assert_eq!(relay.wait().code(), Some(75));
    relay.expect_log("Giving up. Spawned server processes are probably broken.");
    assert!(relay.log().matches("terminated").count() <= 5);
}

#[test]
fn running_out_of_descriptors_is_survived() {
    let peer = Peer::echo();
    let port = free_port();
    // The broker itself runs out of descriptors: each accepted connection that it cannot pass on
    // keeps one.
    let text = config(port, &peer.remote(), "", "instances max = 1 users max = 4000", "");
    let directory = Directory::new();
    let script =
        directory.write("limited", format!("#!/bin/sh\nulimit -n 40\nexec {TCPRELAY} \"$@\"\n"));
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let relay = Launch::new(text).program(script).start();
    relay.expect_log("child limits maximum number of users to 15");
    let streams: Vec<TcpStream> = (0..100).map(|_| connect(port)).collect();
    relay.expect_log("limit of");
    thread::sleep(Duration::from_millis(100));
    let before = (cpu_ticks(relay.pid()), cpu_ticks(relay.workers()[0]));
    thread::sleep(Duration::from_millis(400));
    let after = (cpu_ticks(relay.pid()), cpu_ticks(relay.workers()[0]));
    assert!(after.0 - before.0 <= 2 && after.1 - before.1 <= 2, "{before:?} {after:?}");
    drop(streams);
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

#[test]
fn the_background_launcher_tells_how_it_went() {
    let peer = Peer::echo();
    let port = free_port();
    let text = config(port, &peer.remote(), "background = yes", "instances max = 1", "");
    let directory = Directory::new();
    let config = directory.write("relay.cfg", text);
    let pid_file = directory.file("pid");
    let launch = || {
        ours(TCPRELAY)
            .args(["-p", pid_file.to_str().expect("a path")])
            .arg(&config)
            .stdin(std::process::Stdio::null())
            .status()
            .expect("to launch")
            .code()
    };
    assert_eq!(launch(), Some(0));
    // The port is bound by the time the launcher exits.
    one_session(port).expect("to be served");
    let pid: i32 =
        std::fs::read_to_string(&pid_file).expect("the pid file").parse().expect("a pid");
    // A second instance finds the pid file locked, and leaves it alone.
    assert_eq!(launch(), Some(75));
    let again: i32 = std::fs::read_to_string(&pid_file).expect("the file").parse().expect("a pid");
    assert_eq!(again, pid);
    let old = children(pid);
    kill(pid, Signal::SIGHUP);
    wait_for("the new workers", || {
        let now = children(pid);
        (!now.is_empty() && now.iter().all(|child| !old.contains(child))).then_some(())
    });
    let after: i32 = std::fs::read_to_string(&pid_file).expect("the file").parse().expect("a pid");
    assert_eq!(after, pid, "the same process after the reload");
    one_session(port).expect("to be served");
    kill(pid, Signal::SIGTERM);
    wait_for("the end", || is_gone(pid).then_some(()));
    assert!(!pid_file.exists());
}

#[test]
fn the_background_launcher_tells_that_no_worker_starts() {
    let port = free_port();
    let directory = Directory::new();
    let text = config(port, "remoote = {}", "background = yes", "instances max = 1", "");
    let config = directory.write("relay.cfg", text);
    let status =
        ours(TCPRELAY).arg(&config).stdin(std::process::Stdio::null()).status().expect("to launch");
    assert_eq!(status.code(), Some(78));
}

#[test]
fn a_configuration_in_shared_memory_survives_reloads() {
    let peer = Peer::echo();
    let port = free_port();
    // IPC keys are shared by the whole machine, so make this one unique.
    let key = 0x7c00_0000 + std::process::id();
    let user = if is_root() { "userid = nobody" } else { "" };
    let spawn = format!("instances max = 1 ipc key = {key} {user}");
    let text = config(port, &peer.remote(), "", &spawn, "");
    let mut relay = Launch::new(&text).start();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&relay.config, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    for _ in 0..2 {
        one_session(port).expect("to be served");
        reload(&relay, &text);
    }
    one_session(port).expect("to be served");
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.wait().code(), Some(0));
    let left = std::fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    assert!(!left.contains(&format!(" {key} ")), "{left}");
}

#[test]
fn idle_sessions_are_cheap() {
    let (peer, arrived) = Peer::manual();
    let port = free_port();
    let spawn = "instances max = 1 users min = 5000 users max = 5000";
    // Emulations keep tables of their own in the worker.
    let setup = Launch::new(config(port, &peer.remote(), "", spawn, "")).mechanism(EPOLL);
    let relay = setup.start();
    let worker = relay.workers()[0];
    let open = |count: usize| -> Vec<(TcpStream, TcpStream)> {
        (0..count)
            .map(|_| {
                let client = connect(port);
                (&client).write_all(b"x").expect("to send");
                let remote = next(&arrived);
                (&remote).read_exact(&mut [0]).expect("to receive");
                (client, remote)
            })
            .collect()
    };
    // The first sessions also allocate what all share; leave that out of the measurement.
    drop(open(20));
    wait_for("their end", || title(worker).ends_with(": 0 connections").then_some(()));
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    let count = if limit.is_ok_and(|(soft, _)| soft >= 9000) { 4000 } else { 400 };
    let before = private_memory(worker);
    let sessions = open(count);
    let each = private_memory(worker).saturating_sub(before) / count as u64;
    eprintln!("{each} bytes for each of {count} idle sessions");
    assert!(each <= 200, "{each} bytes");
    drop(sessions);
}

/// Replaces the configuration and reloads; waits until the new image serves.
fn reload(relay: &Relay, text: &str) {
    std::fs::write(&relay.config, text).expect("to write");
    let count = |log: &str| log.matches("is being used").count();
    let before = count(&relay.log());
    relay.signal(Signal::SIGHUP);
    // The broker and one worker each log it once.
    relay.wait_for_log("the new image", |log| (count(log) >= before + 2).then_some(()));
}

#[test]
fn a_reload_may_change_the_address_on_the_same_port() {
    let peer = Peer::echo();
    let port = free_port();
    let listen = |listen: &str| {
        format!(
            "id = spawnd {{ listen = {{ {listen} }} spawn {{ instances max = 1 }} }}\n\
             id = tcprelay {{ {} }}\n",
            peer.remote()
        )
    };
    let wildcard = listen(&format!("port = {port}"));
    let relay = Launch::new(&wildcard).start();
    for text in [listen(&format!("address = 127.0.0.1 port = {port}")), wildcard] {
        reload(&relay, &text);
        one_session(port).expect("to be served");
    }
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
fn workers_that_are_killed_again_and_again_come_back_soon() {
    let peer = Peer::echo();
    let port = free_port();
    let spawn = "instances min = 4 instances max = 4 users max = 1000";
    let relay = Launch::new(config(port, &peer.remote(), "", spawn, "")).ready(4).start();
    let start = Instant::now();
    for _ in 0..3 {
        for worker in relay.workers() {
            kill(worker, Signal::SIGKILL);
        }
        // A connection given to a worker just before it is killed is lost with it; hence the
        // retries.
        wait_for("service", || one_session(port).is_ok().then_some(()));
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn a_worker_that_only_says_it_leaves_is_not_started_in_a_loop() {
    let directory = Directory::new();
    // Sends MAX and DYING, and nothing else.
    let worker = directory.write(
        "worker",
        "#!/bin/sh\nprintf '\\005\\000\\000\\000\\012\\000\\000\\000' >&0\n\
         printf '\\003\\000\\000\\000\\000\\000\\000\\000' >&0\nexec sleep 60\n",
    );
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&worker, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let spawn = format!("exec = {} instances min = 1 instances max = 1", worker.display());
    let relay = Launch::new(config(free_port(), "", "", &spawn, "")).ready(0).start();
    relay.expect_log("workers do not stay up");
    thread::sleep(Duration::from_millis(500));
    assert!(relay.workers().len() <= 8, "{} workers", relay.workers().len());
}

#[test]
fn a_reload_checks_with_the_environment_of_the_start() {
    let peer = Peer::echo();
    let port = free_port();
    let remote = "remote = { address = 127.0.0.1 port = \"${P}\" }";
    let text = config(port, remote, "", "instances max = 1", "");
    let relay = Launch::new(format!("setenv P = {}\n{text}", peer.port)).start();
    one_session(port).expect("to be served");
    // Without `setenv` the variable is unset for the check, although the running broker has it.
    std::fs::write(&relay.config, text).expect("to write");
    relay.signal(Signal::SIGHUP);
    relay.expect_log("is refused");
    relay.expect_log("Expected an service or port, but got '${P}'");
    one_session(port).expect("to be served");
}

#[test]
fn a_reload_refuses_a_configuration_without_listeners() {
    let peer = Peer::echo();
    let port = free_port();
    let text = config(port, &peer.remote(), "", "instances max = 1", "");
    let relay = Launch::new(&text).start();
    let without = text.replace(&format!("port = {port}"), "").replacen("listen", "#", 1);
    std::fs::write(&relay.config, without).expect("to write");
    relay.signal(Signal::SIGHUP);
    relay.expect_log("SIGHUP: FATAL: No listeners defined.");
    one_session(port).expect("to be served");
}

#[test]
fn a_reload_refuses_a_directory_that_is_not_there() {
    let peer = Peer::echo();
    let port = free_port();
    let text = |spawn: &str| config(port, &peer.remote(), "", spawn, "");
    let relay = Launch::new(text("instances max = 1")).start();
    let bad = text("instances max = 1 working directory = /nonexistent");
    std::fs::write(&relay.config, bad).expect("to write");
    relay.signal(Signal::SIGHUP);
    relay.expect_log("'/nonexistent' is not a directory");
    one_session(port).expect("to be served");
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

#[test]
fn a_file_that_is_broken_meanwhile_does_not_end_the_service() {
    let peer = Peer::echo();
    let port = free_port();
    let text = config(port, &peer.remote(), "", "instances min = 1 instances max = 1", "");
    let relay = Launch::new(&text).start();
    std::fs::write(&relay.config, text.replace("remote", "remoote")).expect("to write");
    // SIGUSR1 replaces all workers; the configuration is checked first.
    relay.signal(Signal::SIGUSR1);
    relay.expect_log("SIGUSR1: the configuration is refused");
    one_session(port).expect("to be served");
    // A worker that is restarted gets the snapshot that was checked, not the broken file.
    kill(relay.workers()[0], Signal::SIGKILL);
    relay.expect_log("terminated abnormally");
    one_session(port).expect("to be served");
    assert!(!relay.log().contains("It will be tried again."), "{}", relay.log());
}

#[test]
fn a_worker_with_a_full_channel_leaves_after_a_reload() {
    let peer = Peer::echo();
    let port = free_port();
    let text = config(port, &peer.remote(), "", "instances max = 1 users max = 4000", "");
    let relay = Launch::new(&text).start();
    let old = relay.workers()[0];
    kill(old, Signal::SIGSTOP);
    // More connections than the channel holds.
    let streams: Vec<TcpStream> = (0..600).map(|_| connect(port)).collect();
    relay.signal(Signal::SIGHUP);
    relay.expect_log("succeeded (inherited)");
    one_session(port).expect("to be served by the new worker");
    kill(old, Signal::SIGCONT);
    for mut stream in streams {
        ping(&mut stream, b"served");
    }
    wait_for("the old worker to leave", || is_gone(old).then_some(()));
}

#[test]
fn what_is_left_of_a_single_process_does_not_spin() {
    let peer = Peer::echo();
    let port = free_port();
    let text = config(port, &peer.remote(), "single process = yes", "", "");
    let mut relay = Launch::new(text).start();
    let mut lasting = Lasting::open(port, 1);
    // SIGTERM arrives while the configuration is being checked for the reload.
    relay.signal(Signal::SIGHUP);
    wait_for("the check", || (!relay.workers().is_empty()).then_some(()));
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.wait().code(), Some(0));
    // The child that keeps the session is found by its standard error, the log.
    let log = relay.directory.file("log");
    let left = wait_for("the child", || {
        let all = std::fs::read_dir("/proc").expect("proc").flatten();
        let mut pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.find(|&pid| {
            std::fs::read_link(format!("/proc/{pid}/fd/2")).is_ok_and(|file| file == log)
                && title(pid).ends_with("1 connection left, dying when idle")
        })
    });
    thread::sleep(Duration::from_millis(50));
    let before = cpu_ticks(left);
    thread::sleep(Duration::from_millis(300));
    assert!(cpu_ticks(left) - before <= 2, "it spins");
    lasting.check();
    drop(lasting);
    wait_for("its end", || is_gone(left).then_some(()));
}

#[test]
fn a_reload_does_not_go_to_the_background() {
    let peer = Peer::echo();
    let port = free_port();
    let text = config(port, &peer.remote(), "", "instances max = 1", "");
    let mut relay = Launch::new(&text).start();
    reload(&relay, &text.replacen("spawn ", "background = yes spawn ", 1));
    one_session(port).expect("to be served");
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.wait().code(), Some(0), "it was the same process all the time");
}

#[test]
fn a_standard_error_that_is_gone_ends_nothing() {
    let peer = Peer::echo();
    let port = free_port();
    let directory = Directory::new();
    let config =
        directory.write("relay.cfg", config(port, &peer.remote(), "", "instances max = 1", ""));
    let mut child = ours(TCPRELAY)
        .arg(&config)
        .env("TCPRELAY_LOG_STDERR", "1")
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the relay");
    drop(child.stderr.take());
    wait_for("service", || one_session(port).is_ok().then_some(()));
    kill(child.id() as i32, Signal::SIGUSR1);
    wait_for("service", || one_session(port).is_ok().then_some(()));
    kill(child.id() as i32, Signal::SIGTERM);
    let status = wait_for("the end", || child.try_wait().expect("waitpid"));
    assert_eq!(status.code(), Some(0));
}

/// Set in the environment of this test program when it runs as a worker.
const WORKER_ROLE: &str = "TCPRELAY_TEST_WORKER";

/// Not a test: this is the worker of the next test. It answers datagrams that arrive on descriptor
/// 0.
#[test]
fn datagram_worker() {
    if std::env::var_os(WORKER_ROLE).is_none() {
        return;
    }
    use mavis::channel::protocol::UDP_HEADER;
    use mavis::os::Channel;
    loop {
        let mut message = [0; 4200];
        let received = match Channel::from(std::io::stdin()).receive(&mut message) {
            Ok(received) => received,
            Err(_) => {
                thread::sleep(Duration::from_millis(5));
                continue;
            }
        };
        let kind = message[0];
        if kind != 7 {
            continue; // MAY_DIE ends with the test's SIGKILL
        }
        let length = usize::from(u16::from_ne_bytes([message[32], message[33]]));
        assert_eq!(received.length, UDP_HEADER + length);
        let socket = std::net::UdpSocket::from(received.fd.expect("a socket"));
        let answer = [b"got ".as_slice(), &message[UDP_HEADER..received.length]].concat();
        socket.send(&answer).expect("to answer");
        // DONE: one "connection" fewer.
        Channel::from(std::io::stdin()).send(&[0, 0, 0, 0, 1, 0, 0, 0], None).expect("DONE");
    }
}

#[test]
fn datagrams_go_to_foreign_workers() {
    let directory = Directory::new();
    let worker = directory.write(
        "worker",
        format!(
            "#!/bin/sh\n{WORKER_ROLE}=1 exec {} --exact datagram_worker --nocapture >/dev/null\n",
            std::env::current_exe().expect("this program").display()
        ),
    );
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&worker, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let port = free_port();
    let text = format!(
        "id = spawnd {{ listen = {{ address = 127.0.0.1 port = {port} protocol = UDP realm = r }}\n\
         spawn {{ exec = {} instances min = 1 instances max = 1 users max = 5 }} }}\n",
        worker.display()
    );
    let relay = Launch::new(&text).program(SPAWND).ready(0).start();
    relay.expect_log("succeeded");
    for word in ["one", "two", "three"] {
        // A new client each time: the worker's socket is connected to the client, so whatever this
        // client sent next would go there.
        let client = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        client.connect(("127.0.0.1", port)).expect("to connect");
        client.send(word.as_bytes()).expect("to send");
        let mut answer = [0; 64];
        let length = client.recv(&mut answer).expect("an answer");
        assert_eq!(&answer[..length], format!("got {word}").as_bytes());
    }
    wait_for("the counters", || relay.title().contains(": 0 connections,").then_some(()));
    drop(relay);
    // tcprelay's own worker takes no datagrams, and the parser says so.
    let refused = text.replace(&format!("exec = {}", worker.display()), "");
    let mut relay = Launch::new(refused).argument("-P").ready(None).start();
    assert_eq!(relay.wait().code(), Some(78));
    relay.expect_log("UDP listeners need a worker program that takes datagrams");
}

/// spawnd(8) takes a relay for another program's worker. The relay still receives connections in
/// batches, and none of them may block it.
#[test]
fn a_silent_client_holds_up_nobody_behind_spawnd() {
    let (peer, port) = (Peer::echo(), free_port());
    let text = format!(
        "id = spawnd {{\n listen = {{ address = 127.0.0.1 port = {port} }}\n \
         spawn {{ exec = {TCPRELAY} id = relay instances min = 1 instances max = 1 }}\n}}\n\
         id = relay {{\n{}\n}}\n",
        peer.remote()
    );
    let _relay = Launch::new(text).program(SPAWND).start();
    let silent: Vec<_> = (0..20).map(|_| connect(port)).collect();
    ping(&mut connect(port), b"word");
    drop(silent);
}
