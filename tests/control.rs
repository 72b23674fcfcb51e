//! The control socket and tcprelayctl.

mod common;

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

#[test]
fn only_root_and_the_owner_may_change_anything() {
    if !is_root() {
        return left_out("other users need root");
    }
    let peer = Peer::echo();
    let port = free_port();
    let directory = Directory::new();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("a folder");
    let socket = directory.file("control");
    let config = format!(
        "id = spawnd {{ control = {{ path = {} mode = 0660 owner = 4711 group = 4712 }}\n\
         listen = {{ address = 127.0.0.1 port = {port} }} }}\nid = tcprelay {{ {} }}\n",
        socket.display(),
        peer.remote()
    );
    let mut relay = Launch::new(config).start();
    let program = env!("CARGO_BIN_EXE_tcprelayctl");
    let as_user = |user: u32, group: u32, arguments: &[&str]| {
        let ids = [format!("--reuid={user}"), format!("--regid={group}")];
        let mut command = ours("setpriv");
        command.args(ids).arg("--clear-groups").arg(program).arg("-s").arg(&socket);
        command.args(arguments).output().expect("setpriv")
    };
    let code = |output: Output| output.status.code();
    assert_eq!(code(as_user(4713, 4713, &["wait"])), Some(77));
    assert_eq!(code(as_user(4713, 4712, &["wait"])), Some(0));
    let output = as_user(4713, 4712, &["stop"]);
    assert!(said(&output).contains("only root and the owner"), "{}", said(&output));
    assert_eq!(code(output), Some(1));
    assert_eq!(code(as_user(4713, 4712, &["reload"])), Some(1));
    assert_eq!(code(as_user(4711, 4711, &["reload"])), Some(0));
    ping(&mut connect(port), b"served");
    assert_eq!(code(as_user(4711, 4711, &["stop"])), Some(0));
    assert_eq!(relay.wait().code(), Some(0));
}

#[test]
fn whatever_clients_send_the_others_are_answered() {
    let peer = Peer::echo();
    for mode in MODES {
        let port = free_port();
        let (launch, socket, _directory) = launch(port, mode, &peer.remote());
        let relay = launch.start();
        wait_for("the socket", || socket.exists().then_some(()));
        let cases: [(&[u8], &str); 9] = [
            (b"", ""),
            (b"{\"do\":\"former\"}", ""),
            (b"\n", "this is no JSON"),
            (b"[1]\n", "a request is a JSON object"),
            (b"{}\n", "\\\"do\\\" is missing"),
            (b"{\"do\":7}\n", "must be a text"),
            (b"{\"do\":\"fly\"}\n", "unknown request 'fly', known are: "),
            (b"{\"do\":\"reload\",\"now\":1}\n", "unknown field \\\"now\\\""),
            (b"\xff\xfe\x00\n{\"do\":\"former\"}\n", "{\"ok\":true"),
        ];
        for (request, expected) in cases {
            let got = answers(&socket, request);
            assert!(got.contains(expected), "{:?}: {got}", String::from_utf8_lossy(request));
        }
        // Long lines, deep ones, and many at once.
        for long in [vec![b'x'; 1 << 20], vec![b'['; 4000], vec![b'\n'; 1 << 16]] {
            let mut stream = UnixStream::connect(&socket).expect("the control socket");
            let _ = stream.write_all(&long);
            drop(stream);
        }
        // Clients that say nothing keep nobody out for long: there are fewer than the most.
        let idle: Vec<UnixStream> =
            (0..12).map(|_| UnixStream::connect(&socket).expect("a client")).collect();
        assert!(done(&socket, &["wait"]).contains("no former"));
        drop(idle);
        // One more than are taken at a time.
        let idle: Vec<UnixStream> =
            (0..17).map(|_| UnixStream::connect(&socket).expect("a client")).collect();
        ping(&mut connect(port), b"served");
        drop(idle);
        assert!(done(&socket, &["wait"]).contains("no former"));
        assert!(!relay.log().contains("it is killed"), "{}", relay.log());
        let before = cpu_ticks(relay.pid());
        nothing_happens_for(Duration::from_millis(500));
        assert!(cpu_ticks(relay.pid()) < before + 10);
    }
}

#[test]
fn the_socket_outlives_the_monitor() {
    let peer = Peer::echo();
    let port = free_port();
    let (launch, socket, _directory) = launch(port, "", &peer.remote());
    let relay = launch.start();
    for _ in 0..3 {
        let before = wait_for("the monitor", || monitor(&relay));
        kill(before, Signal::SIGKILL);
        assert!(done(&socket, &["wait"]).contains("no former"));
        wait_for("another monitor", || monitor(&relay).filter(|&pid| pid != before));
    }
    relay.signal(Signal::SIGUSR1);
    relay.expect_log("replacing all workers");
    assert!(done(&socket, &["wait"]).contains("no former"));
    // A monitor that hangs is not waited for by anybody else.
    let hanging = wait_for("the monitor", || monitor(&relay));
    kill(hanging, Signal::SIGSTOP);
    ping(&mut connect(port), b"served");
    kill(hanging, Signal::SIGKILL);
    assert!(done(&socket, &["reload"]).contains("in service"));
}

#[test]
fn another_brokers_socket_is_left_alone() {
    let peer = Peer::echo();
    let (first_port, second_port) = (free_port(), free_port());
    let (launch, socket, _directory) = launch(first_port, "", &peer.remote());
    let mut first = launch.start();
    let former = |relay: &Relay| format!("\"pid\":{}", relay.pid());
    assert!(done(&socket, &["wait", "--json"]).contains(&former(&first)));
    let text = fs::read_to_string(&first.config).expect("the configuration");
    let text = text.replace(&first_port.to_string(), &second_port.to_string());
    let mut second = Launch::new(text).start();
    second.expect_log("Will retry every 5 seconds");
    assert!(done(&socket, &["wait", "--json"]).contains(&former(&first)));
    // Once the first has gone, the path is free.
    assert_eq!(ctl(&socket, &["stop"]).status.code(), Some(0));
    assert_eq!(first.wait().code(), Some(0));
    wait_for("the second broker's socket", || {
        let output = ctl(&socket, &["wait", "--json"]);
        String::from_utf8_lossy(&output.stdout).contains(&former(&second)).then_some(())
    });
    // A stale socket is replaced.
    kill(second.pid(), Signal::SIGKILL);
    second.wait();
    assert!(fs::metadata(&socket).expect("a stale socket").file_type().is_socket());
    let config = fs::read_to_string(&second.config).expect("the configuration");
    let port = free_port();
    let third = Launch::new(config.replace(&second_port.to_string(), &port.to_string())).start();
    wait_for("the third broker's socket", || {
        let output = ctl(&socket, &["wait", "--json"]);
        String::from_utf8_lossy(&output.stdout).contains(&former(&third)).then_some(())
    });
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
fn a_remote_is_drained_under_load_and_no_client_notices() {
    for mode in MODES {
        let [one, two] = [Peer::echo(), Peer::echo()];
        let port = free_port();
        let remotes = format!("{}\n{}", one.remote(), two.remote());
        let (launch, socket, _directory) = launch(port, mode, &remotes);
        let relay = launch.start();
        let address = format!("127.0.0.1:{}", one.port);
        let over = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let over = Arc::clone(&over);
                thread::spawn(move || {
                    let mut count = 0;
                    while !over.load(Ordering::SeqCst) {
                        // Panics if the session fails.
                        ping(&mut connect(port), b"hello");
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        // Sessions that go on, some with each remote.
        let mut held: Vec<TcpStream> = (0..20).map(|_| connect(port)).collect();
        held.iter_mut().for_each(|session| ping(session, b"before"));
        assert!(done(&socket, &["drain", &address]).contains("drains"));
        assert_eq!(of_remote(&socket, one.port, "state"), "\"drained\"");
        wait_for("short sessions with the drained remote to end", || {
            let open: usize = of_remote(&socket, one.port, "sessions_open").parse().ok()?;
            (1..=20).contains(&open).then_some(())
        });
        let before = of_remote(&socket, one.port, "sessions");
        let other: usize = of_remote(&socket, two.port, "sessions").parse().expect("a number");
        wait_for("sessions with the other remote", || {
            let now: usize = of_remote(&socket, two.port, "sessions").parse().ok()?;
            (now > other + 100).then_some(())
        });
        assert_eq!(of_remote(&socket, one.port, "sessions"), before);
        held.iter_mut().for_each(|session| ping(session, b"after"));
        // A reload keeps that.
        done(&socket, &["reload"]);
        held.iter_mut().for_each(|session| ping(session, b"after"));
        assert_eq!(of_remote(&socket, one.port, "state"), "\"drained\"");
        assert!(done(&socket, &["enable", &address]).contains("is enabled"));
        let before: usize = of_remote(&socket, one.port, "sessions").parse().expect("a number");
        wait_for("sessions with the remote", || {
            let now: usize = of_remote(&socket, one.port, "sessions").parse().ok()?;
            (now > before + 10).then_some(())
        });
        over.store(true, Ordering::SeqCst);
        let counts: Vec<usize> =
            clients.into_iter().map(|client| client.join().expect("no failed session")).collect();
        assert!(counts.iter().all(|&count| count > 10), "{counts:?}");
        assert!(relay.log().contains("drained by hand"));
    }
}

#[test]
fn a_disabled_remote_has_no_sessions() {
    for mode in MODES {
        let [one, two] = [Peer::echo(), Peer::echo()];
        let port = free_port();
        let remotes = format!(
            "remote = {{ address = 127.0.0.1 port = {} tag = blue }}\n{}\naccess log = yes",
            one.port,
            two.remote()
        );
        let (launch, socket, _directory) = launch(port, mode, &remotes);
        let relay = launch.start();
        let mut held: Vec<TcpStream> = (0..10).map(|_| connect(port)).collect();
        held.iter_mut().for_each(|session| ping(session, b"before"));
        // By its tag.
        assert!(done(&socket, &["disable", "blue"]).contains("is disabled"));
        wait_for("its sessions to end", || {
            (of_remote(&socket, one.port, "sessions_open") == "0").then_some(())
        });
        relay.expect_log("remote is disabled");
        (0..10).for_each(|_| ping(&mut connect(port), b"after"));
        assert_eq!(of_remote(&socket, one.port, "sessions_open"), "0");
        // With none left, clients are refused, visibly.
        assert!(
            done(&socket, &["disable", &format!("127.0.0.1:{}", two.port)]).contains("disabled")
        );
        let mut refused = connect(port);
        wait_for("the session to be refused", || has_ended(&mut refused).then_some(()));
        done(&socket, &["enable", "127.0.0.1"]);
        ping(&mut connect(port), b"again");
    }
}

#[test]
fn weights_are_changed_until_the_next_reload() {
    for mode in MODES {
        let [one, two] = [Peer::named("one"), Peer::named("two")];
        let port = free_port();
        let remotes = format!("balance = round-robin\n{}\n{}", one.remote(), two.remote());
        let (launch, socket, _directory) = launch(port, mode, &remotes);
        let relay = launch.start();
        let address = format!("127.0.0.1:{}", one.port);
        let of_first = || (0..40).filter(|_| name(port).contains("one")).count();
        assert!(of_first().abs_diff(20) <= 2);
        assert!(
            done(&socket, &["weight", &address, "9", "--until-reload"]).contains("has weight 9")
        );
        let first = of_first();
        assert!(first.abs_diff(36) <= 3, "{first}");
        assert!(done(&socket, &["remotes"]).contains("9 (not 1)"));
        done(&socket, &["drain", &format!("127.0.0.1:{}", two.port), "--until-reload"]);
        assert_eq!(of_first(), 40);
        done(&socket, &["reload"]);
        done(&socket, &["wait"]);
        let first = of_first();
        assert!(first.abs_diff(20) <= 2, "{first}");
        assert_eq!(of_remote(&socket, one.port, "weight_by_hand"), "null");
        assert_eq!(of_remote(&socket, two.port, "state"), "\"up\"");
        // Without the option it stays,
        done(&socket, &["weight", &address, "9"]);
        done(&socket, &["reload"]);
        assert_eq!(of_remote(&socket, one.port, "weight_by_hand"), "9");
        // whatever becomes of the monitor.
        if let Some(pid) = monitor(&relay) {
            kill(pid, Signal::SIGKILL);
        }
        assert_eq!(of_remote(&socket, one.port, "weight_by_hand"), "9");
        done(&socket, &["weight", &address, "default"]);
        assert_eq!(of_remote(&socket, one.port, "weight_by_hand"), "null");
        let output = ctl(&socket, &["drain", "nobody"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("no remote or tag 'nobody', known are: "));
    }
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
fn the_monitor_is_killed_all_the_time_and_commands_are_answered() {
    let peer = Peer::echo();
    let port = free_port();
    let (launch, socket, _directory) = launch(port, "", &peer.remote());
    let relay = launch.start();
    let address = format!("127.0.0.1:{}", peer.port);
    let mut session = connect(port);
    for round in 0..6 {
        if let Some(pid) = monitor(&relay) {
            kill(pid, Signal::SIGKILL);
        }
        ping(&mut session, b"hello");
        ping(&mut connect(port), b"hello");
        match round % 3 {
            0 => drop(done(&socket, &["show"])),
            1 => drop(done(&socket, &["weight", &address, "2"])),
            _ => assert_eq!(of_sessions(&socket, &[], "id").len(), 1),
        }
    }
    assert_eq!(of_remote(&socket, peer.port, "weight_by_hand"), "2");
    done(&socket, &["reload"]);
    ping(&mut session, b"hello");
}

#[test]
fn clients_that_do_not_read_keep_nobody_waiting() {
    let peer = Peer::echo();
    for mode in MODES {
        let port = free_port();
        let (launch, socket, _directory) = launch(port, mode, &peer.remote());
        let relay = launch.start();
        let mut held: Vec<TcpStream> = (0..200).map(|_| connect(port)).collect();
        held.iter_mut().for_each(|session| ping(session, b"hello"));
        // They ask for more than their buffers take, again and again.
        let slow: Vec<UnixStream> = (0..4)
            .map(|_| {
                let mut stream = UnixStream::connect(&socket).expect("the control socket");
                stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout");
                for _ in 0..100 {
                    if stream.write_all(b"{\"do\":\"sessions\"}\n{\"do\":\"show\"}\n").is_err() {
                        break;
                    }
                }
                stream
            })
            .collect();
        assert_eq!(of_sessions(&socket, &[], "id").len(), 200);
        ping(&mut connect(port), b"hello");
        drop(slow);
        assert!(done(&socket, &["wait"]).contains("no former"));
        let pids = [relay.pid(), monitor(&relay).unwrap_or(relay.pid())];
        let ticks = || pids.map(cpu_ticks).iter().sum::<u64>();
        wait_for("rest", || {
            let before = ticks();
            nothing_happens_for(Duration::from_millis(300));
            (ticks() < before + 10).then_some(())
        });
    }
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
