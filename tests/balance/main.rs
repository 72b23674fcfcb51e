//! Balancing across several workers: together, or each on its own.

#[path = "../common/mod.rs"]
mod common;
mod kinds;

use common::layout::Layout;
use common::*;
use nix::sys::signal::Signal;
use std::io::Read;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// Three workers, to which the broker gives connections in turn.
const SPAWN: &str = "users min = 1000 users max = 1000";

fn three(section: impl Into<String>) -> Layout {
    relay(section).workers(3).spawn(SPAWN)
}

/// Two servers that send their names, and `remote` blocks with these weights.
fn peers(weights: [u32; 2]) -> ([Peer; 2], String) {
    let peers = ["a", "b"].map(Peer::named);
    let remote = |(peer, weight): (&Peer, u32)| {
        format!("remote = {{ address = 127.0.0.1 port = {} weight = {weight} }}\n", peer.port)
    };
    let remotes = peers.iter().zip(weights).map(remote).collect();
    (peers, remotes)
}

/// Sessions that stay open, each with the name of the server it reached.
#[derive(Default)]
struct Open(Vec<(TcpStream, u8)>);

impl Open {
    fn open(&mut self, port: u16, count: usize) {
        for _ in 0..count {
            let mut stream = connect(port);
            let mut name = [0];
            stream.read_exact(&mut name).expect("a name");
            self.0.push((stream, name[0]));
        }
    }

    /// How many sessions each server has.
    fn counts(&self) -> [usize; 2] {
        [b'a', b'b'].map(|name| self.0.iter().filter(|(_, other)| *other == name).count())
    }
}

#[test]
fn workers_balance_as_one() {
    let (_peers, remotes) = peers([1, 3]);
    let port = free_port();
    let relay = three(&remotes).port(port).start().0;
    let mut open = Open::default();
    open.open(port, 4);
    assert_eq!(open.counts(), [1, 3]);
    open.open(port, 76);
    assert_eq!(open.counts(), [20, 60]);
    // The sessions of a killed worker are no longer counted, and new ones even out the rest.
    let victim = relay.workers()[1];
    kill(victim, Signal::SIGKILL);
    relay.expect_log(&format!("child (pid {victim}) terminated abnormally (signal 9)"));
    let mut left = open.0.len();
    wait_for("the sessions to end", || {
        open.0.retain_mut(|(stream, _)| !has_ended(stream));
        let before = std::mem::replace(&mut left, open.0.len());
        (left <= 54 && left == before).then_some(())
    });
    wait_for("the new worker", || {
        let log = relay.log();
        (log.matches("is being used").count() >= 5).then_some(())
    });
    open.open(port, 80 - open.0.len());
    assert_eq!(open.counts(), [20, 60]);
    // When all sessions have ended, no count is left over.
    open.0.clear();
    wait_for("them to end", || relay.title().contains(": 0 connections,").then_some(()));
    open.open(port, 8);
    assert_eq!(open.counts(), [2, 6]);
    assert!(!relay.log().contains("balances by itself"), "{}", relay.log());
}

#[test]
fn a_worker_may_balance_by_itself() {
    let (_peers, remotes) = peers([1, 3]);
    let port = free_port();
    let relay = three(format!("{remotes}balance scope = worker")).port(port).start().0;
    let mut open = Open::default();
    open.open(port, 3);
    assert_eq!(open.counts(), [3, 0]);
    open.open(port, 77);
    // The workers have 27, 27 and 26 sessions: 7 and 20 on the two servers, twice, and 7 and 19.
    assert_eq!(open.counts(), [21, 59]);
    assert!(!relay.log().contains("balances by itself"), "{}", relay.log());
}

#[test]
fn the_counts_go_on_after_a_reload_and_a_replacement() {
    let (_peers, remotes) = peers([1, 3]);
    let port = free_port();
    let relay = three(&remotes).port(port).start().0;
    let mut open = Open::default();
    open.open(port, 2);
    assert_eq!(open.counts(), [1, 1]);
    // Workers that are draining still count after SIGUSR1 ...
    relay.signal(Signal::SIGUSR1);
    relay.wait_for_log("new workers", |log| {
        (log.matches("is being used").count() >= 7).then_some(())
    });
    open.open(port, 2);
    assert_eq!(open.counts(), [1, 3]);
    // ... but not after a reload, which may have changed the remotes.
    relay.signal(Signal::SIGHUP);
    relay.wait_for_log("new workers", |log| {
        (log.matches("is being used").count() >= 11).then_some(())
    });
    let mut open = Open::default();
    open.open(port, 4);
    assert_eq!(open.counts(), [1, 3]);
}

/// A relay with two remotes: one accepts connections and closes them before the TLS handshake, the
/// other works. Returns the port too, and how often the broken one was tried.
fn attempts(worker: &str) -> (Relay, u16, Arc<AtomicUsize>, Vec<Peer>) {
    let tried = Arc::new(AtomicUsize::new(0));
    let counter = tried.clone();
    let dead = Peer::start(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let alive = Peer::named("b");
    let port = free_port();
    let remotes = format!(
        "remote = {{ address = 127.0.0.1 port = {} tls = yes tls verify = no weight = 1000 }}\n{}",
        dead.port,
        alive.remote()
    );
    (three(format!("{remotes}{worker}")).port(port).start().0, port, tried, vec![dead, alive])
}

#[test]
fn one_worker_tries_a_dead_remote() {
    let (relay, port, tried, _peers) = attempts("retry delay = 3");
    let mut open = Open::default();
    open.open(port, 9);
    assert_eq!(open.counts(), [0, 9]);
    assert_eq!(tried.load(Ordering::SeqCst), 1);
    // After the retry delay a single session tries it again, whichever worker that is in.
    for round in 2..4 {
        outlast(Duration::from_millis(3100));
        open.open(port, 6);
        assert_eq!(tried.load(Ordering::SeqCst), round);
    }
    assert_eq!(relay.log().matches("failed: TLS").count(), 1, "{}", relay.log());
}

#[test]
fn each_worker_by_itself_tries_a_dead_remote() {
    let (relay, port, tried, _peers) = attempts("retry delay = 60 balance scope = worker");
    Open::default().open(port, 9);
    assert_eq!(tried.load(Ordering::SeqCst), 3);
    assert_eq!(relay.log().matches("failed: TLS").count(), 3, "{}", relay.log());
}

/// Sessions one after the other, each with the name it received; `None`: no name. Some are reset so
/// soon that connecting fails.
fn one_by_one(port: u16, count: usize) -> Vec<Option<u8>> {
    let ask = |_| {
        let mut name = [0];
        try_connect(port).ok()?.read_exact(&mut name).ok().map(|()| name[0])
    };
    (0..count).map(ask).collect()
}

#[test]
fn equals_take_turns_over_all_workers() {
    let (_peers, remotes) = peers([1, 2]);
    let port = free_port();
    let _relay = three(&remotes).port(port).start().0;
    // The next session may begin before the end of the previous one is known, so the shares are not
    // exact.
    let found = one_by_one(port, 150);
    let first = found.iter().filter(|&&name| name == Some(b'a')).count();
    assert!((40..=80).contains(&first), "{first} of 150");
}

#[test]
fn a_remote_that_accepts_and_closes_draws_its_share_and_no_more() {
    for resets in [true, false] {
        let hole = Peer::start(move |stream| if resets { reset(stream) } else { drop(stream) });
        let ([first, second], remotes) = peers([1, 1]);
        let port = free_port();
        let _relay = three(format!("{}\n{remotes}", hole.remote())).port(port).start().0;
        let found = one_by_one(port, 90);
        let lost = found.iter().filter(|name| name.is_none()).count();
        assert!(lost < 50, "{lost} of 90, resets: {resets}");
        drop((first, second));
    }
}

/// With `fail count`, no worker uses such a remote for the retry delay; then one session tries it.
#[test]
fn a_remote_that_accepts_and_closes_is_taken_for_dead() {
    let broken = Arc::new(AtomicUsize::new(1));
    for resets in [true, false] {
        broken.store(1, Ordering::SeqCst);
        let state = broken.clone();
        let hole = Peer::start(move |mut stream| {
            use std::io::Write;
            if state.load(Ordering::SeqCst) == 0 {
                stream.write_all(b"h").expect("to answer");
            } else if resets {
                reset(stream);
            }
        });
        let (_peers, remotes) = peers([1, 1]);
        let port = free_port();
        let section = format!("fail count = 4 retry delay = 1 {}\n{remotes}", hole.remote());
        let relay = three(&section).port(port).start().0;
        let address = format!("[127.0.0.1]:{}", hole.port);
        let mut lost = 0;
        wait_for("the remote to be found out", || {
            lost += one_by_one(port, 1).iter().filter(|name| name.is_none()).count();
            relay.log().contains("4 sessions in a row").then_some(())
        });
        relay.expect_log(&format!("{address} has ended 4 sessions in a row at once"));
        let from = std::time::Instant::now();
        let found = one_by_one(port, 30);
        let more = found.iter().filter(|name| name.is_none()).count();
        // At most one for each retry delay.
        assert!(more as u64 <= 2 + from.elapsed().as_secs(), "{lost} and {more} lost");
        broken.store(0, Ordering::SeqCst);
        wait_for("the remote to be back", || {
            one_by_one(port, 3);
            relay.log().contains(&format!("{address} is in use again")).then_some(())
        });
        let found = one_by_one(port, 60);
        let back = found.iter().filter(|&&name| name == Some(b'h')).count();
        assert!((10..=30).contains(&back), "{back} of 60: {found:?}");
    }
}

#[test]
fn clients_that_leave_first_make_no_remote_a_dead_one() {
    let (peer, held) = Peer::manual();
    let port = free_port();
    let relay =
        three(format!("fail count = 2\nretry delay = 0\n{}", peer.remote())).port(port).start().0;
    for turn in 0..12 {
        let client = connect(port);
        let remote = next(&held);
        match turn % 3 {
            0 => drop(client),
            1 => reset(client),
            _ => client.shutdown(std::net::Shutdown::Write).expect("to shut down"),
        }
        // The remote sees the client leave, and closes as well.
        let mut rest = Vec::new();
        let _ = (&remote).read_to_end(&mut rest);
        if turn % 2 == 0 {
            reset(remote);
        }
    }
    // A session that lasted over a second before it ended does not count as failed either.
    for _ in 0..3 {
        let mut client = connect(port);
        let remote = next(&held);
        outlast(Duration::from_millis(1200));
        drop(remote);
        expect_eof(&mut client);
    }
    let client = connect(port);
    next(&held);
    drop(client);
    assert!(!relay.log().contains("in a row"), "{}", relay.log());
}
