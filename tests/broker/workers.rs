//! Workers that are killed, stopped, retired, or another program.

use super::*;

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
    // Emulations would take long.
    let relay = Launch::new(text).mechanism(EPOLL).ready(2).start();
    let load = Load::start(port);
    for _ in 0..20 {
        load.wait_for_sessions(100);
    }
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
    let text = config(port, &peer.remote(), "", "instances max = 1", "drain timeout = 3");
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
    let mut answered = vec![false; waiting.len()];
    let mut served = || {
        for (mut stream, answered) in waiting.iter().zip(&mut answered) {
            stream.set_read_timeout(Some(Duration::from_millis(1))).expect("a timeout");
            *answered =
                *answered || stream.write_all(b"x").is_ok() && stream.read_exact(&mut [0]).is_ok();
        }
        answered.iter().filter(|&&answered| answered).count()
    };
    wait_for("half of them to be served", || (served() >= 300).then_some(()));
    kill(workers[0], Signal::SIGCONT);
    wait_for("all of them to be served", || (served() == 900).then_some(()));
    kill(workers[0], Signal::SIGSTOP);
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.wait().code(), Some(0));
    kill(workers[0], Signal::SIGCONT);
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
fn workers_that_are_killed_again_and_again_come_back_soon() {
    let peer = Peer::echo();
    let port = free_port();
    let spawn = "instances min = 4 instances max = 4 users max = 1000";
    let relay = Launch::new(config(port, &peer.remote(), "", spawn, "")).ready(4).start();
    // The pauses between starts must not grow to the minute that broken workers get.
    let start = Instant::now();
    for _ in 0..3 {
        for worker in relay.workers() {
            kill(worker, Signal::SIGKILL);
        }
        // A connection given to a worker just before it is killed is lost with it; hence the
        // retries.
        wait_for("service", || one_session(port).is_ok().then_some(()));
    }
    assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
}

#[test]
fn a_worker_that_only_says_it_leaves_is_not_started_in_a_loop() {
    let directory = Directory::new();
    // Sends MAX and DYING, and nothing else.
    let worker = directory.program(
        "worker",
        "#!/bin/sh\nprintf '\\005\\000\\000\\000\\012\\000\\000\\000' >&0\n\
         printf '\\003\\000\\000\\000\\000\\000\\000\\000' >&0\nexec sleep 60\n",
    );
    let spawn = format!("exec = {} instances min = 1 instances max = 1", worker.display());
    let relay = Launch::new(config(free_port(), "", "", &spawn, "")).ready(0).start();
    relay.expect_log("workers do not stay up");
    nothing_happens_for(Duration::from_millis(500));
    assert!(relay.workers().len() <= 8, "{} workers", relay.workers().len());
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
                pace(Duration::from_millis(5));
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
    let worker = directory.program(
        "worker",
        format!(
            "#!/bin/sh\n{WORKER_ROLE}=1 exec {} --exact workers::datagram_worker --nocapture >/dev/null\n",
            std::env::current_exe().expect("this program").display()
        ),
    );
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
