//! The control socket and tcprelayctl.

#[path = "control/attacks.rs"]
mod attacks;
mod common;
#[path = "control/remotes.rs"]
mod remotes;

use common::launch::monitor;
use common::*;
use nix::sys::signal::Signal;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const MODES: [&str; 2] = ["", "single process = yes\n"];

/// A relay with a control socket in its folder.
fn launch(port: u16, broker: &str, section: &str) -> (Launch, PathBuf, Directory) {
    let directory = Directory::new();
    let socket = directory.file("control");
    let control = format!("control = {{ path = {} }}", socket.display());
    let layout = relay(section).port(port).workers(2).broker(&control).broker(broker);
    (layout.launch().0.ready(1), socket, directory)
}

/// Runs tcprelayctl.
fn ctl(socket: &Path, arguments: &[&str]) -> Output {
    let mut command = ours(env!("CARGO_BIN_EXE_tcprelayctl"));
    command.arg("-s").arg(socket).args(arguments).output().expect("tcprelayctl")
}

/// All that a program has said.
fn said(output: &Output) -> String {
    text(output) + &String::from_utf8_lossy(&output.stderr)
}

/// Runs tcprelayctl, which must succeed; what it shows.
fn done(socket: &Path, arguments: &[&str]) -> String {
    let output = ctl(socket, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    String::from_utf8(output.stdout).expect("text")
}

/// What a client of the socket gets for this.
fn answers(socket: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).expect("the control socket");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream.write_all(request).expect("a relay that reads");
    stream.shutdown(Shutdown::Write).expect("a socket");
    let mut text = String::new();
    // A client that sends too much is cut off.
    let _ = stream.read_to_string(&mut text);
    text
}

/// What a remote that says its name says to a new client.
fn name(port: u16) -> String {
    let mut text = [0; 3];
    connect(port).read_exact(&mut text).expect("its name");
    String::from_utf8_lossy(&text).into_owned()
}

/// The field of a remote in the answer to `remotes --json`, by its port.
fn of_remote(socket: &Path, port: u16, field: &str) -> String {
    let program = "import json,sys\n\
         for remote in json.load(sys.stdin)['remotes']:\n\
         \x20 if remote['address'].endswith(':' + sys.argv[1]): print(json.dumps(remote[sys.argv[2]]))";
    let json = done(socket, &["remotes", "--json"]);
    let mut python = Command::new("python3");
    python.args(["-c", program, &port.to_string(), field]);
    let mut python = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
    python.stdin.take().expect("a pipe").write_all(json.as_bytes()).expect("python3 reads");
    let output = python.wait_with_output().expect("python3");
    assert!(output.status.success(), "{json}");
    text(&output).trim().to_owned()
}

#[test]
fn a_reload_tells_how_it_went() {
    let peer = Peer::echo();
    for mode in MODES {
        let port = free_port();
        let (launch, socket, _directory) = launch(port, mode, &peer.remote());
        let mut relay = launch.start();
        let mut session = connect(port);
        ping(&mut session, b"before");
        assert_eq!(done(&socket, &["reload"]), "the new configuration is in service\n");
        assert!(relay.log().contains("SIGHUP: restarting"));
        ping(&mut session, b"after");
        let output = ctl(&socket, &["wait", "--timeout", "1"]);
        assert_eq!(output.status.code(), Some(75), "{}", said(&output));
        assert!(said(&output).contains("1 former worker with "), "{}", said(&output));
        drop(session);
        assert!(done(&socket, &["wait"]).contains("no former workers are left\n"));
        // Mistakes in the new file come with their place, and nothing happens.
        let good = fs::read_to_string(&relay.config).expect("the configuration");
        fs::write(&relay.config, good.replace("remote =", "rem0te =")).expect("a file");
        let output = ctl(&socket, &["reload"]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        let line =
            1 + good.lines().position(|line| line.starts_with("remote =")).expect("a remote");
        let mistake = format!("relay.cfg:{line}: 'rem0te' unexpected");
        assert!(said(&output).contains(&mistake), "{}", said(&output));
        assert!(!said(&output).contains("Exiting"), "{}", said(&output));
        fs::write(&relay.config, good).expect("a file");
        assert_eq!(done(&socket, &["reload", "--json"]).trim(), {
            format!("{{\"ok\":true,\"pid\":{}}}", relay.pid())
        });
        ping(&mut connect(port), b"served");
        assert_eq!(done(&socket, &["stop"]), "the service ends\nthe service has ended\n");
        assert_eq!(relay.wait().code(), Some(0));
        assert!(!socket.exists());
        assert_eq!(ctl(&socket, &["wait"]).status.code(), Some(69));
    }
}

#[test]
fn stop_waits_and_shows_progress() {
    let peer = Peer::echo();
    for mode in MODES {
        let port = free_port();
        let broker = format!("{mode}stop = drain");
        let (launch, socket, _directory) = launch(port, &broker, &peer.remote());
        let mut relay = launch.start();
        let mut sessions = [connect(port), connect(port)];
        sessions.iter_mut().for_each(|session| ping(session, b"hello"));
        let first = "the service ends with its last session; 2 sessions left";
        let mut command = ours(env!("CARGO_BIN_EXE_tcprelayctl"));
        command.arg("-s").arg(&socket).arg("stop").stdout(Stdio::piped());
        let mut child = command.spawn().expect("tcprelayctl");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut line = || lines.next().map(|line| line.expect("text"));
        assert_eq!(line().as_deref(), Some(first));
        let [mut one, two] = sessions;
        ping(&mut one, b"still");
        drop(two);
        assert_eq!(line().as_deref(), Some("1 session left"));
        ping(&mut one, b"still");
        drop(one);
        let mut rest: Vec<String> = std::iter::from_fn(line).collect();
        assert_eq!(rest.pop().as_deref(), Some("the service has ended"));
        assert!(rest.iter().all(|line| line == "0 sessions left"), "{rest:?}");
        assert!(child.wait().expect("its end").success());
        assert_eq!(relay.wait().code(), Some(0));
    }
}

#[test]
fn stop_need_not_wait() {
    let peer = Peer::echo();
    let port = free_port();
    let (launch, socket, _directory) = launch(port, "stop = drain", &peer.remote());
    let mut relay = launch.start();
    let mut session = connect(port);
    ping(&mut session, b"hello");
    assert_eq!(
        done(&socket, &["stop", "--no-wait"]),
        "the service ends with its last session; 1 session left\n"
    );
    ping(&mut session, b"still");
    drop(session);
    assert_eq!(relay.wait().code(), Some(0));
}

/// The values of a field of all sessions that are shown with these options.
fn of_sessions(socket: &Path, options: &[&str], field: &str) -> Vec<String> {
    let arguments = [&["sessions", "--json"], options].concat();
    let program = "import json,sys\n\
         for session in json.loads(sys.argv[1])['sessions']: print(session[sys.argv[2]])";
    let json = done(socket, &arguments);
    let output = run(Command::new("python3").args(["-c", program, &json, field]));
    text(&output).lines().map(str::to_owned).collect()
}

#[test]
fn sessions_are_shown_and_ended() {
    for mode in MODES {
        let [one, two] = [Peer::echo(), Peer::echo()];
        let port = free_port();
        let remotes = format!("{}\n{}\naccess log = yes", one.remote(), two.remote());
        let (launch, socket, _directory) = launch(port, mode, &remotes);
        let relay = launch.start();
        assert!(of_sessions(&socket, &[], "id").is_empty());
        let mut held: Vec<TcpStream> = (0..10).map(|_| connect(port)).collect();
        for (session, number) in held.iter_mut().zip(1..) {
            ping(session, &vec![b'x'; 1000 * number]);
        }
        let clients = of_sessions(&socket, &["--sort", "bytes"], "client");
        let expected: Vec<String> = held
            .iter()
            .rev()
            .map(|session| {
                let address = session.local_addr().expect("an address");
                format!("[{}]:{}", address.ip(), address.port())
            })
            .collect();
        assert_eq!(clients, expected);
        assert_eq!(
            of_sessions(&socket, &["--sort", "bytes", "--top", "3"], "client"),
            expected[..3]
        );
        let bytes = of_sessions(&socket, &["--sort", "bytes", "--top", "1"], "bytes_to_client");
        assert_eq!(bytes, ["10000"]);
        assert_eq!(of_sessions(&socket, &["--client", &expected[4]], "client"), expected[4..5]);
        let address = format!("127.0.0.1:{}", one.port);
        let of_one = of_sessions(&socket, &["--remote", &address], "remote");
        assert!(!of_one.is_empty() && of_one.iter().all(|remote| *remote == of_one[0]));
        assert_eq!(of_sessions(&socket, &[], "state"), vec!["relaying"; 10]);
        // Those of a former configuration as well; and a session goes on until it is ended.
        if mode.is_empty() {
            done(&socket, &["reload"]);
            assert_eq!(of_sessions(&socket, &[], "id").len(), 10);
        }
        let first = of_sessions(&socket, &["--sort", "bytes", "--top", "1"], "id");
        assert!(done(&socket, &["kill", &first[0]]).contains("has ended"));
        expect_reset(held.last_mut().expect("a session"));
        relay.expect_log("ended by hand");
        let output = ctl(&socket, &["kill", &first[0]]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        held.pop();
        held.iter_mut().for_each(|session| ping(session, b"still"));
        assert_eq!(of_sessions(&socket, &[], "id").len(), 9);
        // All at once, by several clients.
        let threads: Vec<_> = (0..6)
            .map(|_| {
                let socket = socket.clone();
                thread::spawn(move || of_sessions(&socket, &[], "id").len())
            })
            .collect();
        threads.into_iter().for_each(|thread| assert_eq!(thread.join().expect("a list"), 9));
        assert!(
            done(&socket, &["top", "--rounds", "2", "--delay", "1"]).contains("0 accepted a sec")
        );
    }
}

#[test]
fn a_worker_that_hangs_is_told() {
    let peer = Peer::echo();
    let port = free_port();
    let (launch, socket, _directory) = launch(port, "", &peer.remote());
    let relay = launch.start();
    let mut held: Vec<TcpStream> = (0..6).map(|_| connect(port)).collect();
    held.iter_mut().for_each(|session| ping(session, b"hello"));
    let ids = wait_for("all sessions", || {
        Some(of_sessions(&socket, &[], "id")).filter(|ids| ids.len() == 6)
    });
    let pid: i32 = ids[0].split('.').next().and_then(|pid| pid.parse().ok()).expect("a pid");
    stop(pid);
    let output = done(&socket, &["sessions"]);
    assert!(output.contains(&format!("worker {pid} does not answer")), "{output}");
    let output = ctl(&socket, &["kill", &ids[0]]);
    assert!(said(&output).contains("does not answer"), "{}", said(&output));
    // Others are served meanwhile.
    assert!(done(&socket, &["remotes"]).contains("up"));
    kill(pid, Signal::SIGCONT);
    wait_for("its sessions", || (of_sessions(&socket, &[], "id").len() >= 5).then_some(()));
    drop(relay);
}

#[test]
fn what_is_shown_is_json_if_that_is_wanted() {
    let peer = Peer::echo();
    let port = free_port();
    let (launch, socket, _directory) = launch(port, "", &peer.remote());
    let _relay = launch.start();
    ping(&mut connect(port), b"hello");
    for command in ["show", "remotes", "listeners", "workers", "errors"] {
        let json = done(&socket, &[command, "--json"]);
        let program = "import json,sys; print(json.loads(sys.argv[1])['ok'])";
        let output = run(Command::new("python3").args(["-c", program, &json]));
        assert_eq!(text(&output), "True\n");
        // As text it has titles.
        let text = done(&socket, &[command]);
        assert!(text.contains("STATE") || command == "errors", "{text}");
    }
}

#[test]
fn mistakes_are_told() {
    for (control, message) in [
        ("control = { path = run/x }", "The path of the control socket must be absolute"),
        ("control = { mode = 0600 }", "control { path = … } is missing"),
        ("control = { path = /x colour = red }", "Expected 'group', 'mode', 'owner' or 'path'"),
        ("control = { path = /x mode = 9 }", "Unrecognized file node creation mask '9'"),
    ] {
        let config = format!(
            "id = spawnd {{ listen = {{ port = {} }}\n{control}\n}}\nid = tcprelay {{ {} }}\n",
            free_port(),
            remote(free_port())
        );
        let finished = Launch::new(config).argument("-P").finish();
        finished.says(":2: ").says(message);
    }
    for arguments in [&["fly"][..], &[], &["wait", "--timeout", "x"], &["reload", "now"], &["-x"]] {
        let output = ctl(Path::new("/nowhere"), arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {}", said(&output));
    }
    assert!(done(Path::new("/nowhere"), &["--help"]).contains("Usage: tcprelayctl"));
    assert!(done(Path::new("/nowhere"), &["--version"]).starts_with("tcprelayctl version "));
    assert_eq!(ctl(Path::new("/nowhere"), &["wait"]).status.code(), Some(69));
}

#[test]
fn the_document_names_commands_that_exist() {
    let text = fs::read_to_string("docs/operations.md").expect("the document");
    let commands = text.lines().filter_map(|line| line.trim().strip_prefix("$ tcprelayctl "));
    let mut count = 0;
    for command in commands {
        let arguments: Vec<&str> = command.split(' ').collect();
        let output = ctl(Path::new("/nowhere"), &arguments);
        assert_eq!(output.status.code(), Some(69), "{command}: {}", said(&output));
        count += 1;
    }
    assert!(count >= 12, "{count}");
}

#[test]
fn workers_of_another_program_cannot_be_controlled() {
    let port = free_port();
    let directory = Directory::new();
    let socket = directory.file("control");
    let config = format!(
        "id = spawnd {{ listen = {{ address = 127.0.0.1 port = {port} }}\n control = {{ path = {} }}\n\
         spawn {{ exec = /bin/cat }} }}\n",
        socket.display()
    );
    let relay = Launch::new(config).ready(None).start();
    relay.expect_log("control: only workers of this program can be controlled");
    assert!(!socket.exists());
}
