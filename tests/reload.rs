//! Reload: the configuration that was checked is the one that runs, no signal is lost, and a
//! program that cannot be executed does no harm.

mod common;

use common::*;
use nix::sys::signal::Signal;
use std::fs;
use std::io::Read;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

fn config(port: u16, remote: &str, broker: &str, worker: &str) -> String {
    format!(
        "id = spawnd {{\n listen = {{ address = 127.0.0.1 port = {port} }}\n {broker}\n}}\n\
         id = tcprelay {{\n{remote}{worker}\n}}\n"
    )
}

const ONE_WORKER: &str = "spawn { instances min = 1 instances max = 1 }";

fn greeting(port: u16) -> String {
    let mut stream = connect(port);
    let mut text = [0; 3];
    stream.read_exact(&mut text).expect("a greeting");
    String::from_utf8_lossy(&text).into_owned()
}

/// Sends SIGHUP and waits until the program has executed itself again.
fn reload(relay: &Relay) {
    let before = relay.log().matches("succeeded (inherited)").count();
    relay.signal(Signal::SIGHUP);
    relay.wait_for_log("the next image", |log| {
        (log.matches("succeeded (inherited)").count() > before).then_some(())
    });
}

#[test]
fn a_file_that_is_saved_while_it_is_reloaded_ends_nothing() {
    let peer = Peer::echo();
    let port = free_port();
    let text = config(port, &peer.remote(), ONE_WORKER, "");
    let relay = Launch::new(text.clone()).start();
    let mut lasting = connect(port);
    ping(&mut lasting, b"hello");
    // Saves the way some editors do: for a moment the file is empty.
    let stop = Arc::new(AtomicBool::new(false));
    let editor = thread::spawn({
        let (stop, path) = (stop.clone(), relay.config.clone());
        move || {
            while !stop.load(Ordering::Relaxed) {
                fs::write(&path, "").expect("to write");
                pace(Duration::from_millis(3));
                fs::write(&path, &text).expect("to write");
                pace(Duration::from_millis(10));
            }
        }
    });
    for _ in 0..25 {
        let decided = |log: &str| {
            log.matches("SIGHUP: restarting").count() + log.matches("is refused, the").count()
        };
        let before = decided(&relay.log());
        relay.signal(Signal::SIGHUP);
        relay.wait_for_log("a decision", |log| (decided(log) > before).then_some(()));
        ping(&mut connect(port), b"served");
    }
    stop.store(true, Ordering::Relaxed);
    editor.join().expect("the editor");
    ping(&mut lasting, b"still");
    let log = relay.log();
    assert!(log.contains("SIGHUP: restarting"), "{log}");
    assert!(!log.contains("exit status"), "{log}");
}

#[test]
fn workers_that_start_later_parse_what_was_checked() {
    let peer = Peer::named("one");
    let port = free_port();
    let directory = Directory::new();
    let included = directory.write("remote.cfg", peer.remote());
    let section = format!("include = {}/*.cfg\n", directory.path().display());
    let relay = Launch::new(config(port, &section, ONE_WORKER, "")).start();
    for round in 0..2 {
        // First a mistake in the file, without a signal; then no file at all.
        fs::write(&relay.config, "id = spawnd {").expect("to write");
        let _ = fs::remove_file(&included);
        let workers = relay.workers();
        assert_eq!(workers.len(), 1);
        kill(workers[0], Signal::SIGKILL);
        wait_for("another worker", || {
            relay.workers().iter().find(|pid| !workers.contains(pid)).copied()
        });
        assert_eq!(greeting(port), "one");
        // After a reload, workers likewise get what the reload checked.
        fs::write(&relay.config, config(port, &section, ONE_WORKER, "")).expect("to write");
        fs::write(&included, peer.remote()).expect("to write");
        if round == 0 {
            let former = relay.workers();
            reload(&relay);
            wait_for("the former worker to leave", || {
                let now = relay.workers();
                (now.len() == 1 && now != former).then_some(())
            });
            assert_eq!(greeting(port), "one");
        }
    }
    assert!(!relay.log().contains("exit status"), "{}", relay.log());
}

#[test]
fn sigusr1_gives_workers_what_it_has_checked() {
    let (one, two) = (Peer::named("one"), Peer::named("two"));
    let port = free_port();
    let relay = Launch::new(config(port, &one.remote(), ONE_WORKER, "")).start();
    fs::write(&relay.config, config(port, &two.remote(), ONE_WORKER, "")).expect("to write");
    let workers = relay.workers();
    kill(workers[0], Signal::SIGKILL);
    wait_for("another worker", || relay.workers().iter().find(|pid| **pid != workers[0]).copied());
    assert_eq!(greeting(port), "one");
    relay.signal(Signal::SIGUSR1);
    relay.expect_log("SIGUSR1: replacing all workers");
    wait_for("the other remote", || (greeting(port) == "two").then_some(()));
}

#[test]
fn a_signal_that_arrives_while_the_next_image_starts_is_not_lost() {
    let peer = Peer::echo();
    for round in 0..12 {
        let port = free_port();
        let text = config(port, &peer.remote(), ONE_WORKER, "");
        let mut relay = Launch::new(text).start();
        relay.signal(Signal::SIGHUP);
        relay.expect_log("SIGHUP: restarting");
        // Hits any point between the decision to reload and the next image's signal handlers.
        stagger(Duration::from_micros(400 * round));
        relay.signal(if round % 2 == 0 { Signal::SIGTERM } else { Signal::SIGINT });
        assert_eq!(relay.wait().code(), Some(0), "round {round}");
        assert!(relay.log().contains("SIGTERM: exiting"));
    }
}

#[test]
fn signals_in_quick_succession_do_not_put_off_the_reload() {
    let (one, two) = (Peer::named("one"), Peer::named("two"));
    let port = free_port();
    let relay = Launch::new(config(port, &one.remote(), ONE_WORKER, "")).start();
    fs::write(&relay.config, config(port, &two.remote(), ONE_WORKER, "")).expect("to write");
    let end = Instant::now() + PATIENCE;
    let mut seen = String::new();
    while Instant::now() < end && seen != "two" {
        for _ in 0..10 {
            relay.signal(Signal::SIGHUP);
            pace(Duration::from_millis(30));
        }
        // The service must go on meanwhile.
        seen = greeting(port);
    }
    assert_eq!(seen, "two", "there was no reload as long as signals came");
}

/// A relay whose executable can be replaced by a script.
fn replaceable(text: String) -> (Directory, Relay) {
    let directory = Directory::new();
    let program = directory.file("tcprelay");
    install(TCPRELAY, &program);
    let relay = Launch::new(text).program(program).start();
    (directory, relay)
}

/// Replaces the executable atomically.
fn replace(directory: &Directory, script: &str) {
    let new = directory
        .program("new", format!("#!/bin/bash\n{script}\nexec -a \"$0\" {TCPRELAY} \"$@\"\n"));
    fs::rename(new, directory.file("tcprelay")).expect("rename");
}

#[test]
fn a_program_that_cannot_be_executed_ends_nothing() {
    let peer = Peer::echo();
    for mode in [ONE_WORKER, "single process = yes"] {
        let port = free_port();
        let path = Directory::new();
        let pid_file = path.file("pid");
        let broker = format!("{mode}\n pidfile = {}", pid_file.display());
        let (directory, relay) = replaceable(config(port, &peer.remote(), &broker, ""));
        let mut lasting = connect(port);
        ping(&mut lasting, b"hello");
        let workers = relay.workers();
        // The check succeeds, but the program cannot be executed afterwards: the script removes its
        // permission on the second start, which is the check's worker.
        let seen = directory.file("seen");
        let script = format!("[ -e {0} ] && chmod a-x \"$0\"; : >{0}", seen.display());
        replace(&directory, &script);
        relay.signal(Signal::SIGHUP);
        relay.expect_log("the program cannot be executed, the running one stays in service");
        ping(&mut lasting, b"still");
        ping(&mut connect(port), b"new");
        wait_for("the children", || (relay.workers() == workers).then_some(()));
        assert_eq!(fs::read_to_string(&pid_file).expect("the pid file"), relay.pid().to_string());
        replace(&directory, "");
        reload(&relay);
        ping(&mut lasting, b"still");
        ping(&mut connect(port), b"new");
    }
}

#[test]
fn an_older_program_is_left_what_it_understands() {
    let peer = Peer::echo();
    let port = free_port();
    let folder = Directory::new();
    let control = folder.file("control");
    let broker = format!("control = {{ path = {} }}\n{ONE_WORKER}", control.display());
    let (directory, relay) = replaceable(config(port, &peer.remote(), &broker, ""));
    let mut lasting = connect(port);
    ping(&mut lasting, b"hello");
    // Behaves like an older version, which does not report what it has read. It records what was
    // handed over to it, and what is open.
    let seen = directory.file("seen");
    replace(
        &directory,
        &format!(
            "unset TCPRELAY_CHECK_REPORT\n\
             case \"$TCPRELAY_HANDOVER\" in pid*) (echo \"$TCPRELAY_HANDOVER\"\n\
             for fd in /proc/$$/fd/*; do echo open ${{fd##*/}} $(readlink $fd); done) >{}; esac",
            seen.display()
        ),
    );
    // It is told nothing of a caller that waits for the reload, and must not keep its socket.
    let mut caller = ours(env!("CARGO_BIN_EXE_tcprelayctl"));
    let mut caller = caller.arg("-s").arg(&control).arg("reload").spawn().expect("tcprelayctl");
    relay.expect_log("succeeded (inherited)");
    caller.kill().expect("to kill");
    caller.wait().expect("its end");
    ping(&mut lasting, b"still");
    ping(&mut connect(port), b"new");
    let seen = fs::read_to_string(&seen).expect("what it was given");
    for kind in ["listener", "worker", "tickets"] {
        assert!(seen.lines().any(|line| line.starts_with(kind)), "{kind}: {seen}");
    }
    let (open, told): (Vec<&str>, Vec<&str>) =
        seen.lines().partition(|line| line.starts_with("open "));
    let told: Vec<&str> = told.iter().filter_map(|line| line.split(' ').nth(1)).collect();
    for line in open.iter().filter(|line| line.contains("socket:")) {
        let number = line.split(' ').nth(1).expect("a number");
        assert!(told.contains(&number), "{line}, of which nothing was said: {seen}");
    }
    // And back to the current version.
    replace(&directory, "");
    reload(&relay);
    ping(&mut lasting, b"still");
    ping(&mut connect(port), b"new");
}

#[test]
fn thousands_of_listeners_are_handed_over_with_a_small_stack() {
    let peer = Peer::echo();
    let port = free_port();
    let listen: String = (0..3000)
        .map(|n| {
            format!("listen = {{ address = 127.1.{}.{} port = {port} }}\n", n / 250, n % 250 + 1)
        })
        .collect();
    let text = config(port, &peer.remote(), &format!("{listen}{ONE_WORKER}"), "");
    let directory = Directory::new();
    let config = directory.write("relay.cfg", text);
    let log = directory.file("log");
    // execve(2) allows a quarter of the stack limit for arguments and environment.
    let child = ours("/bin/sh")
        .args(["-c", "ulimit -n 8192 && ulimit -s 512 && exec \"$@\"", "sh", TCPRELAY, "-f"])
        .arg(&config)
        .env("TCPRELAY_LOG_STDERR", "1")
        .stdin(Stdio::null())
        .stderr(fs::File::create(&log).expect("the log"))
        .spawn()
        .expect("a shell");
    let relay = Relay::assemble(directory, config, log, child);
    relay
        .wait_for_log("the worker", |log| (log.matches("is being used").count() > 1).then_some(()));
    let mut lasting = connect(port);
    ping(&mut lasting, b"hello");
    relay.signal(Signal::SIGHUP);
    relay.wait_for_log("all listeners", |log| {
        (log.matches("succeeded (inherited)").count() == 3001).then_some(())
    });
    ping(&mut lasting, b"still");
    ping(&mut connect(port), b"new");
}

#[test]
fn a_connection_whose_listener_is_gone_is_refused() {
    let peer = Peer::echo();
    let (port, other) = (free_port(), free_port());
    let both = format!("listen = {{ address = 127.0.0.1 port = {other} }}\n{ONE_WORKER}");
    let (directory, relay) = replaceable(config(port, &peer.remote(), &both, ""));
    // Connections stay in the queue while the broker waits before it starts the next worker.
    let fails = directory.write("fails", "");
    replace(&directory, &format!("[ -e {} ] && [ -S /dev/stdin ] && exit 1", fails.display()));
    kill(relay.workers()[0], Signal::SIGKILL);
    relay.expect_log("next start in 3200 ms");
    fs::remove_file(&fails).expect("to remove");
    let mut gone = connect(other);
    let mut stays = connect(port);
    fs::write(&relay.config, config(port, &peer.remote(), ONE_WORKER, "")).expect("to write");
    reload(&relay);
    relay.expect_log("were closed: there is no listener");
    expect_reset(&mut gone);
    ping(&mut stays, b"served");
}

#[test]
fn an_image_that_cannot_start_is_executed_again() {
    let peer = Peer::named("one");
    let port = free_port();
    let directory = Directory::new();
    let folder = directory.file("folder");
    fs::create_dir(&folder).expect("a folder");
    // The directory is checked when the file is parsed; it exists for the check, and is removed
    // before the next image starts.
    let spawn = format!(
        "spawn {{ instances min = 1 instances max = 1 working directory = {} }}",
        folder.display()
    );
    let text = config(port, &peer.remote(), &spawn, "");
    let (programs, mut relay) = replaceable(text);
    let once = directory.write("once", "");
    let script = format!(
        "case \"$TCPRELAY_HANDOVER\" in pid*) rm {} 2>/dev/null && rmdir {}; esac",
        once.display(),
        folder.display()
    );
    replace(&programs, &script);
    relay.signal(Signal::SIGHUP);
    relay.expect_log("the service cannot be started (status 78), it will be tried again");
    fs::create_dir(&folder).expect("a folder");
    assert_eq!(greeting(port), "one");
    // The same again, but SIGTERM arrives while the broker waits to try again.
    directory.write("once", "");
    relay.signal(Signal::SIGHUP);
    relay.wait_for_log("another failure", |log| {
        (log.matches("it will be tried again").count() >= 2).then_some(())
    });
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.wait().code(), Some(0));
}
