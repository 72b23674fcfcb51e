//! Reloads: nothing is lost, and what cannot be served is refused.

use super::*;

#[test]
fn twenty_reloads_under_load_lose_nothing() {
    let peer = Peer::echo();
    let port = free_port();
    let text = config(port, &peer.remote(), "", "instances min = 2 users max = 4000", "");
    // Emulations would take long.
    let relay = Launch::new(text).mechanism(EPOLL).ready(2).start();
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
    nothing_happens_for(Duration::from_millis(50));
    let before = cpu_ticks(left);
    nothing_happens_for(Duration::from_millis(300));
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
