//! Logging never blocks, and nobody outside can flood the log.

#![cfg(target_os = "linux")]

mod common;

use common::modules::{cc, library};
use common::*;
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

const LOG: &str = "/dev/log";
const NOBODY: u32 = 65534;
/// More lines of the access log than a process can buffer.
const MANY: usize = 2000;

/// A program that is killed when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let workers = children(self.0.id() as i32);
        let _ = self.0.kill();
        let _ = self.0.wait();
        for pid in workers {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

impl Running {
    fn expect_end(&mut self) -> ExitStatus {
        wait_for("the program to end", || self.0.try_wait().expect("waitpid"))
    }
}

fn start(command: &mut Command) -> Running {
    Running(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("the program"))
}

fn configuration(port: u16, peer: &Peer, spawn: &str) -> String {
    format!(
        "id = spawnd {{ listen = {{ address = 127.0.0.1 port = {port} }}\n\
         spawn {{ instances min = 1 instances max = 1 {spawn} }} }}\n\
         id = tcprelay {{ access log = yes\n{} }}\n",
        peer.remote()
    )
}

fn one_session(port: u16) -> io::Result<()> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"ping")?;
    stream.read_exact(&mut [0; 4])?;
    stream.shutdown(std::net::Shutdown::Write)?;
    // The relay closes this end when the session is over and its line is written.
    stream.read_to_end(&mut Vec::new()).map(drop)
}

fn sessions(port: u16, count: usize) {
    wait_for("a session", || one_session(port).ok());
    for _ in 1..count {
        one_session(port).expect("a session");
    }
}

fn flags(file: &impl AsRawFd) -> i32 {
    // SAFETY: fcntl(F_GETFL) takes plain numbers.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) }
}

fn set_flags(file: &impl AsRawFd, flags: i32) {
    // SAFETY: fcntl(F_SETFL) takes plain numbers.
    assert!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) } >= 0);
}

/// A full pipe, whose write end blocks.
fn full_pipe() -> (File, File) {
    let mut ends = [0; 2];
    // SAFETY: pipe2(2) fills in two descriptors, which nobody else owns.
    let (read, mut write) = unsafe {
        assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
        (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1]))
    };
    let before = flags(&write);
    set_flags(&write, before | libc::O_NONBLOCK);
    while write.write(&[b'\n'; 4096]).is_ok() {}
    set_flags(&write, before);
    (read, write)
}

/// Starts a thread that reads; returns the text that it has read so far.
fn collect(mut read: impl FnMut(&mut [u8]) -> io::Result<usize> + Send + 'static) -> Text {
    let text = Text::default();
    let collected = text.0.clone();
    thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok(count @ 1..) = read(&mut buffer) {
            let mut collected = collected.lock().expect("the text");
            collected.extend_from_slice(&buffer[..count]);
            collected.push(b'\n');
        }
    });
    text
}

#[derive(Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Text {
    fn get(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("the text")).into_owned()
    }

    fn expect(&self, text: &str) {
        self.find(text, |line| line.contains(text));
    }

    /// Waits for a line that satisfies `like`.
    fn find(&self, what: &str, like: impl Fn(&str) -> bool) {
        let there = || self.get().split_inclusive('\n').any(&like).then_some(());
        within(PATIENCE, there).unwrap_or_else(|| panic!("no {what:?} in\n{}", self.get()));
    }
}

/// A relay starts and serves while its standard error is a full pipe that belongs to root.
fn serve_with_full_stderr(user: Option<u32>, spawn: &str) {
    let (peer, port, directory) = (Peer::echo(), free_port(), Directory::new());
    let config = directory.write("relay.cfg", configuration(port, &peer, spawn));
    let (mut read, write) = full_pipe();
    let before = flags(&write);
    let mut command = ours(TCPRELAY);
    command.arg("-f").arg(&config).env("TCPRELAY_LOG_STDERR", "1");
    command.stderr(write.try_clone().expect("a descriptor"));
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let _relay = start(&mut command);
    sessions(port, MANY);
    assert_eq!(flags(&write), before, "the pipe is others' as well");
    let text = collect(move |buffer| read.read(buffer));
    text.expect("]: startup (version ");
    text.expect(" messages dropped\n");
    one_session(port).expect("a session");
    text.expect("access: client [127.0.0.1]");
}

#[test]
fn nobody_reads_standard_error() {
    serve_with_full_stderr(None, "");
}

#[test]
fn nobody_reads_standard_error_of_another_user() {
    if !is_root() {
        return left_out("other users need root");
    }
    // Workers inherit what root's broker has opened.
    serve_with_full_stderr(None, "userid = 65534 groupid = 65534");
    // This user may not open the pipe again.
    serve_with_full_stderr(Some(NOBODY), "");
}

#[test]
fn nobody_reads_the_terminal() {
    // SAFETY: openpty(3) fills in two descriptors, which nobody else owns.
    let (master, slave) = unsafe {
        let (mut master, mut slave, none) = (0, 0, std::ptr::null_mut());
        assert_eq!(libc::openpty(&mut master, &mut slave, none, none.cast(), none.cast()), 0);
        (File::from_raw_fd(master), File::from_raw_fd(slave))
    };
    let before = flags(&slave);
    // Another user than root may not open it again.
    let users = if is_root() { vec![None, Some(NOBODY)] } else { vec![None] };
    for user in users {
        let (peer, port, directory) = (Peer::echo(), free_port(), Directory::new());
        let config = directory.write("relay.cfg", configuration(port, &peer, ""));
        let mut command = ours(TCPRELAY);
        command.arg("-f").arg(&config).env("TCPRELAY_LOG_STDERR", "1");
        command.stderr(slave.try_clone().expect("a descriptor"));
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        let _relay = start(&mut command);
        sessions(port, MANY / 2);
        assert_eq!(flags(&slave), before, "the terminal is others' as well");
    }
    drop(master);
}

#[test]
fn a_check_of_the_configuration_says_everything() {
    let directory = Directory::new();
    let config = directory.write("relay.cfg", "id = spawnd { foo }\n");
    let (mut read, write) = full_pipe();
    let mut check = start(ours(TCPRELAY).arg("-P").arg(&config).stderr(write));
    // Whoever ran `-P` will read the messages: none may be missing, so these writes do wait.
    let text = collect(move |buffer| read.read(buffer));
    assert_eq!(check.expect_end().code(), Some(78));
    text.expect("but got 'foo'");
}

/// A log daemon's socket in this thread's /dev.
fn daemon() -> UnixDatagram {
    let _ = fs::remove_file(LOG);
    let socket = UnixDatagram::bind(LOG).expect("the log socket");
    fs::set_permissions(LOG, fs::Permissions::from_mode(0o666)).expect("chmod");
    socket
}

/// A log daemon that has stopped reading, with its queue full.
fn full_daemon() -> UnixDatagram {
    let daemon = daemon();
    let other = UnixDatagram::unbound().expect("a socket");
    other.set_nonblocking(true).expect("nonblocking");
    while other.send_to(b"full", LOG).is_ok() {}
    daemon
}

/// Runs a program with its standard error thrown away; it must end in time.
fn run_to_end(command: &mut Command) -> Option<i32> {
    let begin = Instant::now();
    let status = start(command.stderr(Stdio::null())).expect_end();
    assert!(begin.elapsed() < PATIENCE / 2, "{command:?} has waited");
    status.code()
}

#[test]
fn log_daemon_does_not_read() {
    if !namespace::own_devices() {
        return;
    }
    let daemon = full_daemon();
    let (peer, port, directory) = (Peer::echo(), free_port(), Directory::new());
    let config = directory.write("relay.cfg", configuration(port, &peer, ""));
    let wrong = directory.write("wrong.cfg", "id = spawnd { foo }\n");
    assert_eq!(run_to_end(ours(TCPRELAY).arg("-P").arg(&config)), Some(0));
    assert_eq!(run_to_end(ours(TCPRELAY).arg("-P").arg(&wrong)), Some(78));
    assert_eq!(run_to_end(ours(TCPRELAY).arg("-f").arg(&wrong)), Some(78));
    let mut relay = start(ours(TCPRELAY).arg("-f").arg(&config).stderr(Stdio::null()));
    sessions(port, MANY);
    // Messages that the broker still holds are lost when it executes its next image; that image
    // counts them.
    let (broker, worker) = (relay.0.id() as i32, children(relay.0.id() as i32));
    kill(broker, Signal::SIGHUP);
    wait_for("another worker", || {
        let now = children(broker);
        (!now.is_empty() && now.iter().all(|pid| !worker.contains(pid))).then_some(())
    });
    sessions(port, 1);
    let text = collect(move |buffer| daemon.recv(buffer));
    let broker = format!(" tcprelay[{broker}]: ");
    text.find("what the broker has lost", |line| {
        line.contains(&broker) && line.ends_with(" messages dropped\n")
    });
    text.expect(" messages dropped\n");
    one_session(port).expect("a session");
    text.expect("access: client [127.0.0.1]");
    kill(relay.0.id() as i32, Signal::SIGTERM);
    assert_eq!(relay.expect_end().code(), Some(0));
    text.expect("SIGTERM: exiting");
}

#[test]
fn log_daemon_is_restarted() {
    if !namespace::own_devices() {
        return;
    }
    let first = daemon();
    let (peer, port, directory) = (Peer::echo(), free_port(), Directory::new());
    let config = directory.write("relay.cfg", configuration(port, &peer, ""));
    let _relay = start(ours(TCPRELAY).arg("-f").arg(&config).stderr(Stdio::null()));
    let mut buffer = [0; 4096];
    let length = first.recv(&mut buffer).expect("a line");
    let line = String::from_utf8_lossy(&buffer[..length]).into_owned();
    // <70>Mmm dd hh:mm:ss tcprelay[123]: text, with nothing after it.
    assert!(line.starts_with("<70>") && line[20..].starts_with("tcprelay["), "{line:?}");
    assert!(line.contains("]: startup (version ") && line.ends_with(')'), "{line:?}");
    sessions(port, 1);
    drop(first);
    sessions(port, 3);
    // The worker is confined by now.
    let second = daemon();
    let text = collect(move |buffer| second.recv(buffer));
    sessions(port, 1);
    // Nothing is lost in between.
    wait_for("the lines of all sessions", || {
        (text.get().matches("access: client [127.0.0.1]").count() == 4).then_some(())
    });
    assert!(!text.get().contains("messages dropped"), "{}", text.get());
}

#[test]
fn log_daemon_of_the_old_kind() {
    if !namespace::own_devices() {
        return;
    }
    let listener = UnixListener::bind(LOG).expect("the log socket");
    listener.set_nonblocking(true).expect("not to block");
    let (peer, port, directory) = (Peer::echo(), free_port(), Directory::new());
    let config = directory.write("relay.cfg", configuration(port, &peer, ""));
    let _relay = start(ours(TCPRELAY).arg("-f").arg(&config).stderr(Stdio::null()));
    sessions(port, 1);
    let texts: Vec<Text> = (0..2)
        .map(|_| {
            let (mut stream, _) = wait_for("a connection", || listener.accept().ok());
            collect(move |buffer| stream.read(buffer))
        })
        .collect();
    wait_for("the lines of the worker", || {
        texts.iter().any(|text| text.get().contains(" closed\0")).then_some(())
    });
}

#[test]
fn programs_in_c_do_not_wait_either() {
    if !namespace::own_devices() {
        return;
    }
    let daemon = full_daemon();
    let directory = Directory::new();
    let source = directory.write(
        "program.c",
        "#include <mavis/log.h>\n#include <mavis/mavis.h>\n#include <stdlib.h>\n\
         int main(int argc, char **argv) { init_common_data(); int lines = atoi(argv[argc - 1]); \
         for (int i = 0; i < lines; i++) logmsg(\"line %d\", i); logmsg(\"last\"); return 0; }\n",
    );
    let program = directory.file("program");
    let built =
        run(cc().arg("-o").arg(&program).arg(source).arg("-L").arg(library()).arg("-lmavis"));
    assert!(built.status.success());
    let log_lines = |lines: &str| {
        let mut command = Command::new(&program);
        run_to_end(command.env("LD_LIBRARY_PATH", library()).arg(lines))
    };
    assert_eq!(log_lines("20000"), Some(0));
    let text = collect(move |buffer| daemon.recv(buffer));
    assert_eq!(log_lines("5"), Some(0));
    text.expect("]: last\n");
}

/// How many lines contain `text`.
fn count(relay: &Relay, text: &str) -> usize {
    relay.log().lines().filter(|line| line.contains(text)).count()
}

#[test]
fn denials_do_not_fill_the_log() {
    let (peer, port) = (Peer::echo(), free_port());
    let relay = Launch::new(format!(
        "id = spawnd {{ listen = {{ address = 127.0.0.1 port = {port} }}\n deny 127.0.0.0/8\n\
         spawn {{ instances min = 1 instances max = 1 }} }}\nid = tcprelay {{\n{} }}\n",
        peer.remote()
    ))
    .start();
    let attempts = 300;
    for _ in 0..attempts {
        let mut stream = connect(port);
        let _ = stream.read(&mut [0]);
    }
    let logged = count(&relay, "denied by ACL");
    // One burst, plus what a slow machine may add.
    assert!((20..60).contains(&logged), "{logged}");
    // The summary comes without waiting for another message.
    let summary = relay.wait_for_log("the summary", |log| {
        let line = log.lines().find(|line| line.contains("more lines left out in "))?;
        Some(line.split_once("connections denied by ACL: ")?.1.to_owned())
    });
    let left_out: usize = summary.split(' ').next().expect("a number").parse().expect("a number");
    if logged == 20 {
        assert_eq!(logged + left_out, attempts, "{summary}");
    }
}

/// Reaches the limit and leaves it again, as often as a client could.
fn reach_limits(overload: &str) -> Relay {
    let (peer, port) = (Peer::echo(), free_port());
    let mut relay = Launch::new(format!(
        "id = spawnd {{ listen = {{ address = 127.0.0.1 port = {port} }}\n overload = {overload}\n\
         spawn {{ instances min = 1 instances max = 1 users max = 1 }} }}\n\
         id = tcprelay {{\n{} }}\n",
        peer.remote()
    ))
    .start();
    let times = 60;
    for _ in 0..times {
        wait_for("a session", || one_session(port).ok());
    }
    let lines = |relay: &Relay| {
        count(relay, "limit of 1 concurrent users reached") + count(relay, "resuming normal")
    };
    assert!((20..times).contains(&lines(&relay)), "{}", relay.log());
    // Lines held back until the end are summed up then.
    relay.signal(Signal::SIGTERM);
    relay.wait();
    relay.expect_log("limits reached and left: ");
    relay
}

#[test]
fn limits_do_not_fill_the_log() {
    reach_limits("queue");
    // Each time, the listener is opened again.
    let relay = reach_limits("reset");
    assert!((20..60).contains(&count(&relay, "bind to ")), "{}", relay.log());
    relay.expect_log("listeners that fail and recover: ");
}

#[test]
fn tls_failures_do_not_fill_the_log() {
    let (peer, port) = (Peer::echo(), free_port());
    let files = Directory::new();
    let identity = common::pki::Identity::own(&["localhost"]);
    let relay = Launch::new(format!(
        "id = spawnd {{ listen = {{ address = 127.0.0.1 port = {port} tls = yes }}\n\
         spawn {{ instances min = 1 instances max = 1 }} }}\nid = tcprelay {{\n{}{} }}\n",
        identity.directives(files.path(), "own"),
        peer.remote()
    ))
    .start();
    let attempts = 200;
    for _ in 0..attempts {
        let mut stream = connect(port);
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("to send");
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert!((20..100).contains(&count(&relay, "SSL_accept")), "{}", relay.log());
}
