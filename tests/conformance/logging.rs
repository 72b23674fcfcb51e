//! What is logged, where, and how often.

use crate::common::{expect_eof, free_port, remote, wait_for, Peer};
use crate::runner::Entry;
use crate::support::{client, count, section, worker_section, Launch};
use crate::syslog;
use std::time::Duration;

pub(crate) const CASES: &[Entry] = &[
    ("L001", l001),
    ("L002", l002),
    ("L003", l003),
    ("L004", l004),
    ("L005", l005),
    ("L006", l006),
    ("L007", l007),
    ("L008", l008),
];

fn l001() {
    syslog::require();
    let (peer, port) = (Peer::echo(), free_port());
    let relay = Launch::simple(port, &peer.remote()).start();
    for pid in [relay.pid(), relay.workers()[0]] {
        let line = syslog::expect(pid, "startup (version ");
        assert!(line.starts_with("<70>"), "{line}");
        assert!(line.contains(&format!(" tcprelay[{pid}]: startup")), "{line}");
    }
    syslog::expect(relay.pid(), "succeeded");
}

fn l002() {
    syslog::require();
    let (peer, port) = (Peer::echo(), free_port());
    let text = section(port, "", "", &peer.remote());
    let text = format!("syslog facility = LOCAL3\nsyslog severity = NOTICE\n{text}");
    let relay = Launch::new(text).start();
    // This line is written before the configuration is read, and so to syslog.
    let first = syslog::expect(relay.pid(), "startup (version ");
    assert!(first.starts_with("<70>"), "{first}");
    for (pid, text) in [(relay.pid(), "succeeded"), (relay.workers()[0], "startup")] {
        let line = syslog::expect(pid, text);
        assert!(line.starts_with("<157>"), "{line}");
    }
}

fn l003() {
    let (peer, port) = (Peer::echo(), free_port());
    let worker = format!(
        "syslog ident = workerident\nsyslog severity = WARNING\nsyslog facility = LOCAL2\n{}",
        peer.remote()
    );
    let broker = "syslog ident = brokerident syslog severity = NOTICE syslog facility = DAEMON";
    let relay = Launch::new(section(port, broker, "", &worker)).start();
    let (broker, worker) = (relay.pid(), relay.workers()[0]);
    relay.expect_log(&format!("<5>brokerident[{broker}]: bind to "));
    relay.expect_log(&format!("<4>workerident[{worker}]: startup "));
    assert_eq!(count(&relay, &format!("workerident[{broker}]")), 0);
    assert_eq!(count(&relay, &format!("brokerident[{worker}]")), 0);
}

fn l004() {
    syslog::require();
    let launch = Launch::new("id = spawnd { foo }\n").without("TCPRELAY_LOG_STDERR");
    let finished = launch.finish();
    finished.exits(78);
    assert_eq!(finished.stderr, "");
    let pid = finished.relay.pid();
    let path = finished.relay.config.display().to_string();
    let line = syslog::expect(pid, "but got 'foo'");
    assert!(line.starts_with("<67>"), "{line}");
    assert!(line.contains(&format!("]: Error {path}:1: Expected ")), "{line}");
    let last = syslog::expect(pid, "Detected fatal configuration error. Exiting.");
    assert!(last.starts_with("<67>") && last.contains("]: Error Detected"), "{last}");
}

fn l005() {
    let (port, down) = (free_port(), free_port());
    let text = format!("{}rebalance = 1\n", remote(down));
    let relay = Launch::simple(port, &text).start();
    let line = format!("connect to [127.0.0.1]:{down}");
    for _ in 0..5 {
        expect_eof(&mut crate::common::connect(port));
    }
    let failed = || relay.log().lines().filter(|l| l.contains("refused")).count();
    wait_for("the line", || (failed() > 0).then_some(()));
    assert_eq!(failed(), 1, "{}", relay.log());
    assert_eq!(count(&relay, &line), 1, "{}", relay.log());
    let mut peer = Peer::named_on(down, "A");
    for _ in 0..3 {
        crate::support::ask(port);
    }
    wait_for("the other state", || (count(&relay, &line) == 2).then_some(()));
    peer.stop();
    for _ in 0..3 {
        expect_eof(&mut crate::common::connect(port));
    }
    wait_for("the third line", || (failed() == 2).then_some(()));
    assert_eq!(count(&relay, &line), 3, "{}", relay.log());
}

/// An address at which the system refuses TCP connections at once.
const UNREACHABLE: &str = "remote = { address = 127.255.255.255 port = 9 }\n";

fn l006() {
    let (peer, port) = (Peer::echo(), free_port());
    for text in
        [format!("{UNREACHABLE}{}", peer.remote()), format!("{}{UNREACHABLE}", peer.remote())]
    {
        let port = if text.starts_with(UNREACHABLE) { port } else { free_port() };
        let relay = Launch::simple(port, &text).start();
        let _streams: Vec<_> = (0..5).map(|_| client(port)).collect();
        relay.expect_log("127.255.255.255");
        crate::common::nothing_happens_for(Duration::from_millis(200));
        assert_eq!(count(&relay, "127.255.255.255"), 1, "{}", relay.log());
    }
}

fn l007() {
    let (peer, port) = (Peer::echo(), free_port());
    let text = format!("syslog default = no\nsyslog filter = 1\n{}", peer.remote());
    let config = section(port, "syslog default = no syslog filter = 0", "", &text);
    let relay = Launch::new(format!("syslog default = no\nsyslog filter = 0\n{config}")).start();
    client(port);
    for pid in [relay.pid(), relay.workers()[0]] {
        relay.expect_log(&format!("<6>tcprelay[{pid}]: startup (version "));
    }
    relay.expect_log("succeeded");
}

fn l008() {
    let text =
        format!("id = spawnd {{ listen {{ port = 2222 }} }}\n{}", worker_section(&remote(1)));
    let launch = Launch::new(text).without("TCPRELAY_LOG_STDERR");
    let launch = launch.arguments(&["-P", "-d", "1", "-D", "@CFG@"]);
    let finished = launch.finish();
    let path = finished.exits(0).relay.config.display().to_string();
    let fits = |line: &str, text: &str| {
        let Some((head, tail)) = line.split_once(": ") else {
            return false;
        };
        let tail = tail.strip_prefix(&format!("file={path} line="));
        let tail = tail.map(|tail| tail.trim_start_matches(|c: char| c.is_ascii_digit()));
        head.parse::<u32>().is_ok()
            && tail.is_some_and(|tail| {
                tail.starts_with(" sym=[") && tail.ends_with(&format!("] buf='{text}'"))
            })
    };
    for word in ["id", "=", "spawnd", "{", "2222", "remote", "127.0.0.1", "}"] {
        let found = finished.stderr.lines().any(|line| fits(line, word));
        assert!(found, "no token {word:?} in\n{}", finished.stderr);
    }
}
