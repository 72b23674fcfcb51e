//! Remotes that are names, with a real name server: answers that change under load, answers that are
//! none, services, and a monitor that dies.

mod common;

use common::dns::{ask, ip, open, Backends, Dns};
use common::launch::monitor;
use common::load::Load;
use common::*;
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// Who serves so many new connections.
fn served_by(port: u16, count: usize) -> BTreeSet<u8> {
    (0..count).map(|_| open(port).expect("a connection").1).collect()
}

/// Waits until new connections come to these servers and no others.
fn expect(port: u16, numbers: impl IntoIterator<Item = u8>) {
    let wanted: BTreeSet<u8> = numbers.into_iter().collect();
    wait_for(&format!("{wanted:?} alone"), || {
        (served_by(port, 4 * wanted.len().max(2)) == wanted).then_some(())
    });
}

/// The same while others connect as well, so that round-robin gives this client any of the servers.
fn expect_under_load(port: u16, wanted: &BTreeSet<u8>) {
    let (mut seen, mut in_a_row, mut all) = (BTreeSet::new(), 0, 0);
    // A machine with other work to do takes long for so many.
    let found = within(3 * PATIENCE, || {
        for number in (0..30).map(|_| open(port).expect("a connection").1) {
            all += 1;
            if wanted.contains(&number) {
                seen.insert(number);
                in_a_row += 1;
            } else {
                seen.clear();
                in_a_row = 0;
            }
        }
        (in_a_row >= 90 && seen == *wanted).then_some(())
    });
    assert!(found.is_some(), "{in_a_row} of {all} connections came to {seen:?}, not to {wanted:?}");
}

#[test]
fn addresses_come_and_go() {
    let Some(dns) = Dns::start() else {
        return;
    };
    let mut backends = Backends::new();
    backends.set(&(1..=4).collect());
    for single in [false, true] {
        let port = 8000 + u16::from(single);
        dns.set([("a.test", ip(1)), ("a.test", ip(2))]);
        let relay = relay("remote = { address = a.test port = 7000 }")
            .port(port)
            .workers(2)
            .single(single)
            .start()
            .0;
        expect(port, [1, 2]);
        let mut long = open(port).expect("a session");
        dns.set([("a.test", ip(3)), ("a.test", ip(4))]);
        expect(port, [3, 4]);
        relay.expect_log("remote a.test: [127.0.1.3]:7000 [127.0.1.4]:7000 joined, ");
        // What runs goes on until it ends by itself.
        assert_eq!(ask(&mut long.0), Ok(long.1));
        drop(long);
        // An address that returns is the same remote again.
        dns.set([("a.test", ip(1)), ("a.test", ip(4))]);
        expect(port, [1, 4]);
    }
}

/// Ten names, whose addresses change ten times each while clients connect and the monitor dies every
/// second. What has vanished is shut down as soon as nobody should come any more.
fn changes_under_load(single: bool) {
    let Some(dns) = Dns::start() else {
        return;
    };
    const NAMES: [&str; 10] = [
        "a.test", "b.test", "c.test", "d.test", "e.test", "f.test", "g.test", "h.test", "i.test",
        "j.test",
    ];
    /// Of three addresses in each turn, one leaves and one joins in the next.
    fn numbers(name: usize, turn: usize) -> [u8; 3] {
        [0, 1, 2].map(|step| (name * 20 + turn + step + 1) as u8)
    }
    let tell = |turn| {
        let names = NAMES.iter().enumerate();
        dns.set(names.flat_map(|(index, name)| numbers(index, turn).map(|n| (*name, ip(n)))));
    };
    let all = |turn| -> BTreeSet<u8> { (0..10).flat_map(|name| numbers(name, turn)).collect() };
    let mut backends = Backends::new();
    backends.set(&all(0));
    tell(0);
    let remotes: String =
        NAMES.iter().map(|name| format!("remote = {{ address = {name} port = 7000 }}\n")).collect();
    let relay = relay(format!("balance = round-robin {remotes}"))
        .port(8000)
        .workers(2)
        .single(single)
        .start()
        .0;
    let load = Load::start(200, || open(8000).map(|(_, number)| number.into()));
    let mut long: Vec<(TcpStream, u8)> = Vec::new();
    let mut killed = Vec::new();
    for turn in 0..10 {
        long.extend((0..5).map(|_| open(8000).expect("a session")));
        backends.set(&all(turn).union(&all(turn + 1)).copied().collect());
        tell(turn + 1);
        let wanted = all(turn + 1);
        expect_under_load(8000, &wanted);
        backends.set(&wanted);
        if let Some(pid) = monitor(&relay) {
            kill(pid, Signal::SIGKILL);
            killed.push(pid);
        }
        for (stream, number) in &mut long {
            assert_eq!(ask(stream), Ok(*number));
        }
    }
    assert!(single || killed.len() >= 9, "{killed:?}");
    let served = load.end().without_errors();
    assert!(served > 300, "{served}");
    // Sessions end by themselves, and nothing is left.
    let vanished = |open: &BTreeMap<u8, usize>| -> usize {
        open.iter().filter(|(number, _)| !all(10).contains(number)).map(|(_, count)| count).sum()
    };
    assert!(vanished(&backends.open.lock().expect("the counts")) > 0);
    drop(long);
    wait_for("sessions to end", || {
        (vanished(&backends.open.lock().expect("the counts")) == 0).then_some(())
    });
    let log = relay.log();
    assert!(!log.contains("connect to"), "{log}");
    assert_eq!(log.matches("terminated abnormally").count(), killed.len(), "{log}");
}

#[test]
fn a_hundred_changes_under_load() {
    changes_under_load(false);
}

#[test]
fn a_hundred_changes_under_load_with_one_process() {
    changes_under_load(true);
}

/// A name server that fails (SERVFAIL), whatever it is asked.
fn failing_server(place: &str) {
    let socket = UdpSocket::bind(place).expect("a socket");
    thread::spawn(move || {
        let mut message = [0; 512];
        while let Ok((count, client)) = socket.recv_from(&mut message) {
            (message[2], message[3]) = (message[2] | 0x80, 0x82);
            let _ = socket.send_to(&message[..count], client);
        }
    });
}

/// A server that answers nothing, one that fails, names that are gone, no server at all: what is known
/// stays, and that is said once.
#[test]
fn without_an_answer_what_is_known_stays() {
    let Some(mut dns) = Dns::start() else {
        return;
    };
    failing_server("127.0.0.9:53");
    dns.run(&["--server=/s.test/127.0.0.9"]);
    let mut backends = Backends::new();
    backends.set(&(1..=4).collect());
    let all = || [("a.test", ip(1)), ("a.test", ip(2)), ("s.test", ip(3))];
    dns.set(all());
    let remotes = ["a.test", "s.test"];
    let remotes = remotes.map(|name| format!("remote = {{ address = {name} port = 7000 }}\n"));
    let relay = relay(remotes.concat()).port(8000).workers(2).start().0;
    expect(8000, [1, 2, 3]);
    let expect_trouble = |line: &str, number: usize| {
        relay.wait_for_log("trouble", |log| (log.matches(line).count() == number).then_some(()));
        expect(8000, [1, 2, 3]);
    };
    let expect_recovery = |name: &str, number: usize| {
        let line = format!("remote {name} can be looked up again");
        relay.wait_for_log("recovery", |log| (log.matches(&line).count() == number).then_some(()));
    };
    // No such name, and a server that passes on that another one has failed (SERVFAIL).
    dns.set([]);
    expect_trouble("a.test cannot be looked up: there is no such name, or it has no address; its 2 addresses stay", 1);
    expect_trouble("s.test cannot be looked up: ", 1);
    dns.set(all());
    expect_recovery("a.test", 1);
    expect_recovery("s.test", 1);
    // A name server that is stopped.
    dns.signal(Signal::SIGSTOP);
    expect_trouble("a.test cannot be looked up: Timeout while contacting DNS servers", 1);
    dns.signal(Signal::SIGCONT);
    expect_recovery("a.test", 2);
    // None at all.
    drop(dns.server.take());
    expect_trouble("a.test cannot be looked up: Could not contact DNS servers", 1);
    assert_eq!(relay.log().matches("a.test cannot be looked up").count(), 3, "{}", relay.log());
    // Workers and a monitor that start meanwhile have what is known, though they could not look it
    // up.
    let children = relay.workers();
    for &child in &children {
        kill(child, Signal::SIGKILL);
    }
    wait_for("others", || {
        let now = relay.workers();
        (now.len() == 3 && now.iter().all(|pid| !children.contains(pid))).then_some(())
    });
    expect(8000, [1, 2, 3]);
    dns.directory.write("names", format!("{} a.test\n{} a.test\n", ip(2), ip(4)));
    dns.run(&[]);
    expect(8000, [2, 3, 4]);
}

/// Two hosts of a service, and one of a lower priority; then others.
#[test]
fn services_have_ports_weights_and_priorities() {
    let Some(mut dns) = Dns::start() else {
        return;
    };
    let mut backends = Backends::new();
    backends.set(&(1..=4).collect());
    dns.set([("a.test", ip(1)), ("b.test", ip(2)), ("c.test", ip(3)), ("d.test", ip(4))]);
    let service = |target: &str, priority: u16, weight: u16| {
        format!("--srv-host=_x._tcp.s.test,{target}.test,7000,{priority},{weight}")
    };
    let [a, b, c] = [service("a", 10, 3), service("b", 10, 1), service("c", 20, 1)];
    dns.run(&[&a, &b, &c]);
    let remotes = "balance = round-robin remote = { address = _x._tcp.s.test srv = yes check = tcp check interval = 1 check fall = 1 }";
    let relay = relay(remotes).port(8000).workers(2).start().0;
    let mut counts = BTreeMap::new();
    for _ in 0..40 {
        *counts.entry(open(8000).expect("a connection").1).or_insert(0) += 1;
    }
    assert!(counts.keys().eq(&[1, 2]), "{counts:?}");
    assert!((27..=33).contains(&counts[&1]), "{counts:?}");
    // Both of the first priority go.
    backends.set(&[3, 4].into());
    expect(8000, [3]);
    assert!(!relay.log().contains("cannot be looked up"), "{}", relay.log());
    // The service moves, and what joins is probed. While the server starts again, nobody answers.
    backends.set(&[1, 3].into());
    let d = service("d", 1, 1);
    dns.run(&[&d, &c]);
    relay.expect_log("remote [127.0.1.4]:7000 (_x._tcp.s.test) is down: ");
    expect(8000, [3]);
    backends.set(&[3, 4].into());
    expect(8000, [4]);
}

/// Answers that are cut off in a datagram come over TCP, and no more than 1,000 addresses are used.
#[test]
fn a_thousand_addresses() {
    let Some(dns) = Dns::start() else {
        return;
    };
    let mut backends = Backends::new();
    backends.set(&[1].into());
    let many = |count: u16| {
        (0..count).map(|n| ("a.test", format!("127.{}.{}.1", 2 + n / 200, 1 + n % 200)))
    };
    dns.set([("a.test", ip(1))]);
    let relay = relay("connect timeout = 1 remote = { address = a.test port = 7000 }")
        .port(8000)
        .workers(2)
        .start()
        .0;
    expect(8000, [1]);
    dns.set(many(900).chain([("a.test", ip(1))]));
    relay.expect_log("and 896 more joined; 901 in use");
    // Whichever is selected, a session finds the one that is there.
    let begun = Instant::now();
    assert_eq!(served_by(8000, 5), [1].into());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    dns.set(many(1200));
    relay.expect_log("remote a.test has 1200 addresses, of which 1000 are used");
    relay.expect_log("; 1000 in use");
    // Nobody is there but the one that is left out.
    dns.set([("a.test", ip(1))]);
    // Each worker finds out when it selects.
    wait_for("an address", || (0..8).all(|_| open(8000).is_ok()).then_some(()));
    expect(8000, [1]);
}

/// /etc/hosts comes first, and a change of it is noticed; resolv.conf likewise.
#[test]
fn files_are_noticed_when_they_change() {
    let Some(mut dns) = Dns::start() else {
        return;
    };
    let mut backends = Backends::new();
    backends.set(&(1..=3).collect());
    dns.set([("a.test", ip(1))]);
    dns.directory.write("hosts", format!("127.0.0.1 localhost\n{} other a.test # b\n", ip(2)));
    let relay = relay("remote = { address = a.test port = 7000 }").port(8000).workers(2).start().0;
    expect(8000, [2]);
    dns.directory.write("hosts", format!("127.0.0.1 localhost\n{} a.test\n", ip(3)));
    expect(8000, [3]);
    // Now the name server is asked,
    dns.directory.write("hosts", "127.0.0.1 localhost\n");
    expect(8000, [1]);
    // and then another one.
    drop(dns.server.take());
    dns.set_later([("a.test", ip(2))]);
    dns.directory.write("resolv.conf", "nameserver 127.0.0.53\n");
    dns.run(&["--listen-address=127.0.0.53"]);
    expect(8000, [2]);
    drop(relay);
}

/// A name that is not there yet, and addresses that are the relay itself.
#[test]
fn addresses_may_come_later() {
    let Some(dns) = Dns::start() else {
        return;
    };
    let mut backends = Backends::new();
    backends.set(&[1].into());
    // Nobody waits for a server that does not answer.
    dns.signal(Signal::SIGSTOP);
    let remotes = "remote = { address = a.test port = 8000 resolve start = later resolve = 60 }\n\
                   remote = { address = b.test port = 7000 resolve start = later }";
    let relay = relay(remotes).port(8000).workers(2).start().0;
    let mut stream = connect(8000);
    expect_eof(&mut stream);
    relay.expect_log("remote a.test cannot be looked up: ");
    relay.expect_log("; it has no address yet");
    dns.signal(Signal::SIGCONT);
    dns.set([("a.test", "127.0.0.1".to_owned()), ("b.test", ip(1))]);
    wait_for("an address", || open(8000).ok());
    expect(8000, [1]);
    relay.expect_log(
        "remote a.test: [127.0.0.1]:8000 is a listener of this relay, which would relay to itself; it is not used",
    );
    // A reload goes on with what is known.
    dns.signal(Signal::SIGSTOP);
    relay.signal(Signal::SIGHUP);
    relay.wait_for_log("a reload", |log| (log.matches("startup").count() > 3).then_some(()));
    expect(8000, [1]);
    dns.signal(Signal::SIGCONT);
}

/// Once is once.
#[test]
fn without_resolve_nothing_is_looked_up_again() {
    let Some(dns) = Dns::start() else {
        return;
    };
    let mut backends = Backends::new();
    backends.set(&[1, 2].into());
    dns.set([("a.test", ip(1))]);
    let relay = relay("remote = { address = a.test port = 7000 resolve = no }")
        .port(8000)
        .workers(2)
        .start()
        .0;
    assert_eq!(monitor(&relay), None);
    dns.set([("a.test", ip(2))]);
    nothing_happens_for(Duration::from_secs(2));
    assert_eq!(served_by(8000, 5), [1].into());
}

#[test]
fn mistakes_are_told_with_their_place() {
    let Some(dns) = Dns::start() else {
        return;
    };
    dns.set([("a.test", ip(1))]);
    let check = |relay: &str| {
        let config = format!(
            "id = spawnd {{ listen = {{ port = 8000 }} }}\nid = tcprelay {{\n{relay}\n}}\n"
        );
        Launch::new(config).argument("-P").finish()
    };
    for (remote, expected) in [
        ("address = 192.0.2.1 port = 1 resolve = 5", ":3: resolve: the address is no host name"),
        ("address = 192.0.2.1 port = 1 srv = yes", ":3: srv: the address is no host name"),
        ("address = a.test port = 1 resolve = 0", ":3: "),
        ("address = a.test port = 1 resolve begin", ":3: Expected '=' or 'start', but got 'begin'"),
        (
            "address = a.test port = 1 resolve start = soon",
            ":3: Expected 'later' or 'now', but got 'soon'",
        ),
        (
            "address = a.test port = 1 resolve = no resolve start = later",
            ":3: resolve start = later: not with resolve = no",
        ),
        (
            "address = _x._tcp.a.test port = 1 srv = yes",
            ":3: srv = yes: the port comes with the SRV record",
        ),
        ("address = _x._tcp.a.test srv = yes tls = yes", ":3: remote: tls server-name is missing"),
        ("address = none.test port = 1", ":3: The host 'none.test' cannot be resolved: "),
        ("address = _x._tcp.a.test srv = yes", ":3: The service '_x._tcp.a.test' has no address"),
    ] {
        check(&format!("remote = {{ {remote} }}")).exits(78).says(expected);
    }
    let scope = "balance scope = worker remote = { address = a.test port = 1";
    check(&format!("{scope} resolve = 5 }}"))
        .exits(78)
        .says(":3: remote: resolve needs balance scope = all, as workers share the addresses");
    check(&format!("{scope} }}")).exits(0);
    check("remote = { address = none.test port = 1 resolve start = later }")
        .exits(0)
        .says(":3: The host 'none.test' cannot be resolved: ");
    dns.set([("web.example.org", ip(1))]);
    let sample = include_str!("../samples/names.cfg");
    Launch::new(sample)
        .argument("-P")
        .finish()
        .exits(0)
        .says("The service '_ldap._tcp.example.org'");
}

/// A program named by exec has no monitor: names are looked up once.
#[test]
fn without_a_monitor_names_are_looked_up_once() {
    let Some(dns) = Dns::start() else {
        return;
    };
    let mut backends = Backends::new();
    backends.set(&[1].into());
    dns.set([("a.test", ip(1))]);
    for (resolve, said) in [("", false), ("resolve = 5", true)] {
        let port = if said { 8001 } else { 8000 };
        let relay = Launch::new(format!(
            "id = spawnd {{ listen = {{ address = 127.0.0.1 port = {port} }} \
             spawn {{ exec = @BIN@ instances min = 1 instances max = 1 users max = 100 }} }}\n\
             id = tcprelay {{ remote = {{ address = a.test port = 7000 {resolve} }} }}\n"
        ))
        .start();
        relay.expect_log("succeeded");
        assert_eq!(served_by(port, 3), [1].into());
        let line = "names are not looked up again: the broker has no monitor";
        assert_eq!(relay.log().contains(line), said, "{}", relay.log());
        assert_eq!(monitor(&relay), None);
    }
}
