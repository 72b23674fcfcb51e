//! The process of the broker: going to the background, descriptors, memory.

use super::*;

#[test]
fn running_out_of_descriptors_is_survived() {
    let peer = Peer::echo();
    let port = free_port();
    // The broker itself runs out of descriptors: each accepted connection that it cannot pass on
    // keeps one.
    let text = config(port, &peer.remote(), "", "instances max = 1 users max = 4000", "");
    let directory = Directory::new();
    let script =
        directory.program("limited", format!("#!/bin/sh\nulimit -n 40\nexec {TCPRELAY} \"$@\"\n"));
    let relay = Launch::new(text).program(script).start();
    relay.expect_log("child limits maximum number of users to 15");
    let streams: Vec<TcpStream> = (0..100).map(|_| connect(port)).collect();
    relay.expect_log("limit of");
    nothing_happens_for(Duration::from_millis(100));
    let before = (cpu_ticks(relay.pid()), cpu_ticks(relay.workers()[0]));
    nothing_happens_for(Duration::from_millis(400));
    let after = (cpu_ticks(relay.pid()), cpu_ticks(relay.workers()[0]));
    assert!(after.0 - before.0 <= 2 && after.1 - before.1 <= 2, "{before:?} {after:?}");
    drop(streams);
    wait_for("service", || one_session(port).is_ok().then_some(()));
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
