//! Which sessions the idle timeout ends.

use super::*;

#[test]
fn only_idle_sessions_meet_the_idle_timeout() {
    each(|way| {
        let peer = Peer::echo();
        let (_relay, port) = through(way, &format!("{}idle timeout = 2\n", peer.remote()));
        let mut busy = connect(port);
        let mut idle = connect(port);
        ping(&mut idle, b"once");
        let start = Instant::now();
        while !has_ended(&mut idle) {
            ping(&mut busy, b"still here");
            assert!(start.elapsed() < PATIENCE);
            pace(Duration::from_millis(50));
        }
        let elapsed = start.elapsed();
        assert!(elapsed >= Duration::from_millis(1950), "{elapsed:?}");
        ping(&mut busy, b"alive");
    });
}

#[test]
fn one_way_traffic_keeps_a_session_alive() {
    let (peer, arrived) = Peer::manual();
    let (_relay, port) = through("4", &format!("{}idle timeout = 2\n", peer.remote()));
    let mut client = connect(port);
    let mut remote = next(&arrived);
    for _ in 0..30 {
        remote.write_all(b"x").expect("to send");
        client.read_exact(&mut [0]).expect("to receive");
        pace(Duration::from_millis(100));
    }
}

/// Waits for the access log line of a session with this ending, and checks its byte counts.
fn wait_for_end(relay: &Relay, ending: &str, counts: &str) {
    relay.wait_for_log(ending, |log| {
        let line = log.lines().find(|line| line.ends_with(ending))?;
        assert!(line.contains(counts), "{line}");
        Some(())
    });
}

#[test]
fn bytes_within_the_kernel_are_counted_and_keep_a_session_alive() {
    for (mechanism, name) in mechanisms() {
        eprintln!("--- {name}");
        let way = Way { directives: SPLICE[0], ..mechanism.into() };
        let (peer, arrived) = Peer::manual();
        let section = format!("{}idle timeout = 2\naccess log = yes\n", peer.remote());
        let (relay, port) = through(way, &section);
        let session = || (connect(port), next(&arrived));
        let (mut broken, mut sender) = session();
        let (mut client, mut remote) = session();
        for _ in 0..25 {
            for (to, from) in [(&mut sender, &mut broken), (&mut remote, &mut client)] {
                to.write_all(b"xyz").expect("to send");
                from.read_exact(&mut [0; 3]).expect("to receive");
            }
            pace(Duration::from_millis(100));
        }
        client.write_all(b"the last word").expect("to send");
        remote.read_exact(&mut [0; 13]).expect("to receive");
        reset(broken);
        wait_for_end(&relay, "broken by client", " sent 0 received 75 ");
        assert_eq!(read_all(client), b"", "closed, not reset");
        wait_for_end(&relay, "idle timeout", " sent 13 received 75 ");
    }
}

#[test]
fn bytes_within_the_kernel_are_counted_although_the_session_is_cut_off() {
    for (mechanism, name) in mechanisms() {
        eprintln!("--- {name}");
        let way = Way { directives: SPLICE[0], ..mechanism.into() };
        let (peer, arrived) = Peer::manual();
        let section = format!("{}drain timeout = 1\naccess log = yes\n", peer.remote());
        let (relay, port) = through(way, &section);
        let mut client = connect(port);
        let mut remote = next(&arrived);
        remote.write_all(b"xyz").expect("to send");
        client.read_exact(&mut [0; 3]).expect("to receive");
        relay.signal(Signal::SIGHUP);
        wait_for_end(&relay, "drain timeout", " sent 0 received 3 ");
    }
}

#[test]
fn a_stalled_session_is_closed_after_the_idle_timeout() {
    each(|way| {
        let (peer, arrived) = Peer::manual();
        let (_relay, port) = through(way, &format!("{}idle timeout = 1\n", peer.remote()));
        let mut client = connect(port);
        let _remote = next(&arrived);
        let data = vec![0; 1 << 20];
        // The remote never reads: at some point the relay accepts no more, and later resets.
        let error = loop {
            if let Err(error) = client.write(&data) {
                break error;
            }
        };
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
        assert!(matches!(error.kind(), ConnectionReset | BrokenPipe), "{error}");
    });
}
