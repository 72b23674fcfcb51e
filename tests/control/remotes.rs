//! Remotes are drained, disabled and weighted.

use super::*;

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
