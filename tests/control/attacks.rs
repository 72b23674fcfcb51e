//! Clients that misbehave, monitors that die, sockets of others.

use super::*;

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
            // The short one ends when its remote has seen its end.
            _ => wait_for("one session", || {
                (of_sessions(&socket, &[], "id").len() == 1).then_some(())
            }),
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
