//! Where the log goes, and what its lines look like: `log`, `log format`, SIGUSR2.

#![cfg(target_os = "linux")]

mod common;

use common::launch::serving;
use common::pki::Identity;
use common::*;
use nix::sys::signal::Signal;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A relay with `top` before its sections.
fn configuration(port: u16, peer: &Peer, top: &str, spawn: &str) -> String {
    format!(
        "{top}\nid = spawnd {{ listen = {{ address = 127.0.0.1 port = {port} }}\n\
         spawn {{ instances min = 2 instances max = 2 {spawn} }} }}\n\
         id = tcprelay {{ access log = yes\n{} }}\n",
        peer.remote()
    )
}

/// What makes workers another user's, if that is possible here.
fn other_user() -> &'static str {
    if is_root() {
        "userid = 65534 groupid = 65534"
    } else {
        ""
    }
}

fn one_session(port: u16) {
    let mut stream = connect(port);
    ping(&mut stream, b"ping");
    stream.shutdown(std::net::Shutdown::Write).expect("to end");
    let _ = stream.read_to_end(&mut Vec::new());
}

/// The lines of all files whose names begin with `lines`.
fn lines(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).expect("the directory").flatten().map(|entry| entry.path());
    let logs = names.filter(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("lines"))
    });
    let text: String = logs.map(|path| fs::read_to_string(path).expect("a log")).collect();
    assert!(text.is_empty() || text.ends_with('\n'), "a torn line");
    text.lines().map(str::to_owned).collect()
}

fn expect_line(path: &Path, text: &str) {
    wait_for(text, || fs::read_to_string(path).ok()?.contains(text).then_some(()));
}

fn rotate(relay: &Relay, signal: Signal, round: usize) {
    let log = relay.directory.file("lines");
    fs::rename(&log, relay.directory.file(&format!("lines.{round}"))).expect("to rename");
    relay.signal(signal);
    wait_for("the new file", || log.exists().then_some(()));
}

/// Renames the log again and again while sessions end. Each is logged once, in a whole line of the
/// form `is_whole`.
fn rotation_under_load(more: &str, arguments: &[&str], is_whole: impl Fn(&str) -> bool) {
    let (peer, port) = (Peer::echo(), free_port());
    let top = format!("log = file @DIR@/lines {more}");
    let mut launch = Launch::new(configuration(port, &peer, &top, other_user()));
    for argument in arguments {
        launch = launch.argument(argument).ready(0);
    }
    let relay = launch.start();
    wait_for("a listener", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let done = Arc::clone(&done);
            thread::spawn(move || {
                let mut count = 0;
                while !done.load(Ordering::Relaxed) {
                    one_session(port);
                    count += 1;
                }
                count
            })
        })
        .collect();
    for round in 0..12 {
        let signal = if round % 4 == 3 { Signal::SIGHUP } else { Signal::SIGUSR2 };
        rotate(&relay, signal, round);
        pace(Duration::from_millis(50));
    }
    done.store(true, Ordering::Relaxed);
    let sessions: usize = clients.into_iter().map(|client| client.join().expect("a client")).sum();
    let directory = relay.directory.path();
    let accessed = || {
        let lines = lines(directory);
        lines
            .iter()
            .filter(|line| {
                line.contains("access") && line.contains("sent 4 ") || line.contains("\"sent\":4,")
            })
            .count()
    };
    wait_for("the lines of all sessions", || (accessed() >= sessions).then_some(()));
    assert_eq!(accessed(), sessions);
    for line in lines(directory) {
        assert!(is_whole(&line), "{line}");
    }
    // All processes write to the new file, those of former images too.
    rotate(&relay, Signal::SIGUSR2, 99);
    one_session(port);
    expect_line(&relay.directory.file("lines"), "closed");
}

/// How many descriptors of a process lead to this file.
fn leads_to(pid: i32, file: &Path) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let files = descriptors.flat_map(|entry| fs::read_link(entry.path()));
    files.filter(|target| target == file).count()
}

/// Whoever rotates logs may send the signal to all processes: broker, workers, monitor, and the
/// one with the keys. All of them write to the new file then, and none has ended.
#[test]
fn all_processes_open_the_file_again_and_bear_the_signal() {
    let (peer, identity, files) = (Peer::echo(), Identity::own(&["localhost"]), Directory::new());
    for (mode, others) in [("", 4), ("single process = yes", 0)] {
        let port = free_port();
        let keys = if mode.is_empty() { "tls keys = separate" } else { "" };
        let launch = Launch::new(format!(
            "log = file @DIR@/lines\nid = spawnd {{ {mode} status = {{ path = @DIR@/status }}\n\
             listen = {{ address = 127.0.0.1 port = {port} tls = auto }}\n\
             spawn {{ instances min = 2 instances max = 2 }} }}\n\
             id = tcprelay {{ access log = yes {keys}\n{}{} }}\n",
            identity.directives(files.path(), "own"),
            peer.remote()
        ));
        let relay = launch.ready(None).start();
        wait_for("a listener", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        let log = relay.directory.file("lines");
        let processes = || [children(relay.pid()), vec![relay.pid()]].concat();
        wait_for("all processes", || {
            let all = processes();
            let write = all.iter().filter(|&&pid| leads_to(pid, &log) == 1).count();
            (all.len() == others + 1 && write == all.len()).then_some(())
        });
        wait_for("the workers", || (!mode.is_empty() || serving(&relay).len() == 2).then_some(()));
        let before = processes();
        for round in 0..3 {
            let former = relay.directory.file(&format!("lines.{round}"));
            fs::rename(&log, &former).expect("to rename");
            for &pid in &before {
                kill(pid, Signal::SIGUSR2);
            }
            wait_for("all of them to write to the new file", || {
                let moved = |&&pid: &&i32| leads_to(pid, &log) == 1 && leads_to(pid, &former) == 0;
                (before.iter().filter(moved).count() == before.len()).then_some(())
            });
            one_session(port);
            expect_line(&log, "closed");
        }
        assert_eq!(processes(), before);
    }
}

/// The same signal reaches processes that are just starting.
#[test]
fn a_process_that_starts_bears_the_signal() {
    let (peer, identity, files) = (Peer::echo(), Identity::own(&["localhost"]), Directory::new());
    let port = free_port();
    let launch = Launch::new(format!(
        "log = file @DIR@/lines\nid = spawnd {{ status = {{ path = @DIR@/status }}\n\
         listen = {{ address = 127.0.0.1 port = {port} tls = auto }}\n\
         spawn {{ instances min = 2 instances max = 2 }} }}\n\
         id = tcprelay {{ tls keys = separate\n{}{} }}\n",
        identity.directives(files.path(), "own"),
        peer.remote()
    ));
    let relay = launch.ready(None).start();
    wait_for("all processes", || (children(relay.pid()).len() == 4).then_some(()));
    wait_for("the workers", || (serving(&relay).len() == 2).then_some(()));
    let log = relay.directory.file("lines");
    let mut signals = HashMap::new();
    for _ in 0..3 {
        let former = children(relay.pid());
        former.iter().for_each(|&pid| kill(pid, Signal::SIGKILL));
        wait_for("others that serve", || {
            let mut started = children(relay.pid());
            started.retain(|pid| !former.contains(pid));
            let serve = serving(&relay);
            // Each time a worker sends a keep-alive, of which the broker takes 200 in a minute.
            for &pid in started.iter().filter(|pid| !serve.contains(pid)) {
                let sent = signals.entry(pid).or_insert(0);
                if *sent < 50 {
                    *sent += 1;
                    kill(pid, Signal::SIGUSR2);
                }
            }
            let serve = serve.iter().filter(|pid| started.contains(pid)).count();
            (started.len() == 4 && serve == 2).then_some(())
        });
    }
    let text = fs::read_to_string(&log).expect("the log");
    assert!(!text.contains("(signal 12)"), "{text}");
}

fn is_text(line: &str) -> bool {
    let rest = line.get(27..).unwrap_or("");
    line.as_bytes()[10] == b'T' && line.as_bytes()[26] == b'Z' && rest.contains("tcprelay[")
}

#[test]
fn a_file_is_renamed_under_load() {
    rotation_under_load("", &[], is_text);
}

#[test]
fn a_file_is_renamed_under_load_in_a_single_process() {
    rotation_under_load("", &["-1"], is_text);
}

#[test]
fn a_file_of_objects_is_renamed_under_load() {
    rotation_under_load("log format = json", &[], |line| {
        line.starts_with("{\"time\":\"") && line.ends_with('}')
    });
}

#[test]
fn objects_are_json_whatever_clients_send() {
    let (peer, port) = (Peer::echo(), free_port());
    let identity = Identity::own(&["localhost"]);
    let files = Directory::new();
    let relay = Launch::new(format!(
        "log = file @DIR@/lines log format = json\nid = spawnd {{ listen = {{ address = 127.0.0.1 \
         port = {port} tls = auto haproxy = optional haproxy from = 127.0.0.1 }}\n\
         spawn {{ instances min = 1 instances max = 1 }} }}\n\
         id = tcprelay {{ access log = yes\n{}{} }}\n",
        identity.directives(files.path(), "own"),
        peer.remote()
    ))
    .start();
    one_session(port);
    // A header with a unique id that would end a string and a line.
    let id = b"a\"\n\\b\x01\xff";
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    header.extend((12 + 3 + id.len() as u16).to_be_bytes());
    header.extend([1, 2, 3, 4, 127, 0, 0, 1, 0, 80, 0, 81, 5, 0, id.len() as u8]);
    header.extend(id);
    let mut stream = connect(port);
    stream.write_all(&header).expect("to send");
    ping(&mut stream, b"ping");
    drop(stream);
    let log = relay.directory.file("lines");
    expect_line(&log, "1.2.3.4");
    let script = "import json, sys, datetime\n\
        lines = [json.loads(line) for line in open(sys.argv[1])]\n\
        for line in lines:\n \
            datetime.datetime.strptime(line['time'], '%Y-%m-%dT%H:%M:%S.%fZ')\n \
            assert line['severity'] and line['pid'] > 1 and line['message'], line\n\
        assert {line['process'] for line in lines} == {'broker', 'worker'}, lines\n\
        one, two = [line for line in lines if 'client' in line]\n\
        assert one['client'].startswith('[127.0.0.1]') and one['sent'] == 4, one\n\
        assert one['received'] == 4 and one['reason'] == 'closed', one\n\
        assert one['remote'].startswith('[127.0.0.1]') and one['seconds'] >= 0, one\n\
        assert two['client'].startswith('[1.2.3.4]'), two\n\
        assert two['id'] == 'a\"\\n\\\\b\\x01\\ufffd' and two['via'].startswith('[127'), two\n";
    run(Command::new("python3").arg("-c").arg(script).arg(&log));
}

/// The new file is taken out of the channel of a worker that does not read it, with the connections
/// that go to another one. It gets the file when it goes on.
#[test]
fn a_worker_that_was_stopped_writes_to_the_new_file() {
    let (peer, port) = (Peer::echo(), free_port());
    let top = "log = file @DIR@/lines";
    let relay = Launch::new(configuration(port, &peer, top, other_user())).start();
    let log = relay.directory.file("lines");
    one_session(port);
    let workers = wait_for("workers", || Some(relay.workers()).filter(|all| all.len() == 2));
    let stopped = workers[0];
    kill(stopped, Signal::SIGSTOP);
    let mut streams: Vec<_> = (0..20).map(|_| connect(port)).collect();
    rotate(&relay, Signal::SIGUSR2, 0);
    streams.iter_mut().for_each(|stream| ping(stream, b"ping"));
    let line = format!("child (pid {stopped}) does not read its channel");
    wait_for(&line, || {
        lines(relay.directory.path()).iter().any(|one| one.contains(&line)).then_some(())
    });
    kill(stopped, Signal::SIGCONT);
    wait_for("the new file", || (leads_to(stopped, &log) > 0).then_some(()));
}

#[test]
fn a_full_disk_stops_nothing() {
    let (peer, port) = (Peer::echo(), free_port());
    let top = "log = file /dev/full";
    let relay = Launch::new(configuration(port, &peer, top, other_user())).start();
    for _ in 0..50 {
        one_session(port);
    }
    relay.signal(Signal::SIGUSR2);
    relay.signal(Signal::SIGHUP);
    relay.expect_log("SIGHUP: restarting");
    one_session(port);
}

#[test]
fn a_directory_that_vanishes_and_comes_back() {
    let (peer, port) = (Peer::echo(), free_port());
    let top = "log = file @DIR@/logs/log";
    let launch = Launch::new(configuration(port, &peer, top, other_user()));
    let logs = launch.directory.file("logs");
    let gone = launch.directory.file("gone");
    fs::create_dir(&logs).expect("a directory");
    let relay = launch.start();
    fs::rename(&logs, &gone).expect("to rename");
    relay.signal(Signal::SIGUSR2);
    expect_line(&gone.join("log"), "SIGUSR2: the log file stays the former one: ");
    one_session(port);
    expect_line(&gone.join("log"), "access: ");
    fs::create_dir(&logs).expect("a directory");
    relay.signal(Signal::SIGUSR2);
    wait_for("the new file", || logs.join("log").exists().then_some(()));
    one_session(port);
    expect_line(&logs.join("log"), "access: ");
}

#[test]
fn what_is_wrong_is_refused_with_its_place() {
    let (peer, port) = (Peer::echo(), free_port());
    for (directive, complaint) in [
        ("log = nowhere", "1: Expected 'file', 'stderr' or 'syslog', but got 'nowhere'"),
        ("log = file log", "1: Expected an absolute path, but got 'log'"),
        ("log format = xml", "1: Expected 'json' or 'text', but got 'xml'"),
        ("log = file /nowhere/log", "1: log file /nowhere/log: No such file or directory"),
    ] {
        let text = configuration(port, &peer, directive, "");
        let start = Launch::new(text.clone()).ready(None).finish();
        start.exits(78).says(complaint);
        let check = Launch::new(text).argument("-P").ready(None).finish();
        check.exits(78).says(complaint);
    }
}

#[test]
fn a_reload_with_a_file_that_cannot_be_opened_is_refused() {
    let (peer, port) = (Peer::echo(), free_port());
    let relay = Launch::new(configuration(port, &peer, "log = file @DIR@/lines", "")).start();
    let text = configuration(port, &peer, "log = file /nowhere/log", "");
    fs::write(&relay.config, text).expect("the configuration");
    relay.signal(Signal::SIGHUP);
    relay.expect_log("log file /nowhere/log: No such file or directory");
    one_session(port);
}

/// A terminal, and what is shown there.
fn terminal() -> (File, Arc<Mutex<Vec<u8>>>) {
    // SAFETY: openpty(3) fills in two descriptors, which nobody else owns.
    let (mut master, slave) = unsafe {
        let (mut master, mut slave, none) = (0, 0, std::ptr::null_mut());
        assert_eq!(libc::openpty(&mut master, &mut slave, none, none.cast(), none.cast()), 0);
        (File::from_raw_fd(master), File::from_raw_fd(slave))
    };
    let shown = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&shown);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = master.read(&mut buffer) {
            all.lock().expect("the text").extend_from_slice(&buffer[..count]);
        }
    });
    (slave, shown)
}

fn shown(text: &Arc<Mutex<Vec<u8>>>) -> String {
    String::from_utf8_lossy(&text.lock().expect("the text")).into_owned()
}

#[test]
fn somebody_at_a_terminal_sees_the_log() {
    let (peer, port, directory) = (Peer::echo(), free_port(), Directory::new());
    let config = directory.write("relay.cfg", configuration(port, &peer, "", ""));
    let (slave, text) = terminal();
    let mut command = ours(TCPRELAY);
    command.arg("-f").arg(&config).stdin(Stdio::null()).stderr(slave.try_clone().expect("a copy"));
    let mut relay = command.env_remove("TCPRELAY_LOG_STDERR").spawn().expect("tcprelay");
    let expect = |what: &str| wait_for(what, || shown(&text).contains(what).then_some(()));
    expect("]: startup (version ");
    wait_for("a listener", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    one_session(port);
    expect("access: client [127.0.0.1]");
    // So does a terminal with a directive, which leads elsewhere.
    kill(relay.id() as i32, Signal::SIGTERM);
    let _ = relay.wait();
    expect("SIGTERM: exiting");
    let quiet = format!("log = file {}", directory.file("log").display());
    let config = directory.write("quiet.cfg", configuration(port, &peer, &quiet, ""));
    let (slave, text) = terminal();
    let mut command = ours(TCPRELAY);
    command.arg("-f").arg(&config).stdin(Stdio::null()).stderr(slave);
    let mut relay = command.env_remove("TCPRELAY_LOG_STDERR").spawn().expect("tcprelay");
    expect_line(&directory.file("log"), " succeeded");
    kill(relay.id() as i32, Signal::SIGTERM);
    let _ = relay.wait();
    assert!(!shown(&text).contains(" succeeded"), "{}", shown(&text));
    let mode = fs::metadata(directory.file("log")).expect("the log").permissions().mode();
    assert_eq!(mode & 0o137, 0, "nobody else may read it");
}

#[test]
fn the_broker_alone_tells_its_workers() {
    let (peer, port) = (Peer::echo(), free_port());
    let spawn = format!("exec = {TCPRELAY} {}", other_user());
    let top = "log = file @DIR@/lines";
    let relay = Launch::new(configuration(port, &peer, top, &spawn)).program(SPAWND).start();
    one_session(port);
    let log = relay.directory.file("lines");
    expect_line(&log, "access: client [127.0.0.1]");
    rotate(&relay, Signal::SIGUSR2, 0);
    for _ in 0..10 {
        one_session(port);
    }
    expect_line(&log, "access: client [127.0.0.1]");
}
