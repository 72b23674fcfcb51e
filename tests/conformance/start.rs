//! The start of brokers and workers: listeners, files, identity, mechanisms.

use crate::common::{
    descriptors, free_port, install, is_gone, is_root, remote, wait_for, Peer, Relay, SPAWND,
    TCPRELAY,
};
use crate::fake::{Workshop, MAX};
use crate::listeners::{occupied, with_listeners};
use crate::runner::{exclude, Entry};
use crate::support::{
    at_once, client, content, count, expect_title, listeners, section, status_line, tcp_pair,
    worker_section, Launch,
};
use crate::syslog;
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

pub(crate) const CASES: &[Entry] = &[
    ("B022", b022),
    ("B023", b023),
    ("B024", b024),
    ("B025", b025),
    ("B026", b026),
    ("B027", b027),
    ("B028", b028),
    ("B029", b029),
    ("B030", b030),
    ("B031", b031),
    ("B032", b032),
    ("B033", b033),
    ("B034", b034),
    ("B035", b035),
    ("B036", b036),
    ("B037", b037),
    ("B038", b038),
    ("B039", b039),
    ("B040", b040),
    ("B041", b041),
    ("B042", b042),
    ("B043", b043),
    ("B044", b044),
    ("B045", b045),
    ("B046", b046),
    ("B047", b047),
    ("B048", b048),
    ("B049", b049),
    ("B050", b050),
    ("B051", b051),
];

fn with_pid_file(peer: &Peer) -> Launch {
    Launch::new(section(free_port(), "pidfile = @DIR@/pid", "", &peer.remote()))
}

fn b022() {
    let peer = Peer::echo();
    let mut relay = with_pid_file(&peer).start();
    let path = relay.directory.file("pid");
    assert_eq!(content(&path), relay.pid().to_string());
    assert_eq!(fs::metadata(&path).expect("the file").mode() & 0o7777, 0o644);
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.wait().code(), Some(0));
    assert!(!path.exists());
}

fn b023() {
    let peer = Peer::echo();
    let relay = with_pid_file(&peer).file("pid", "1234567890123\n").start();
    let path = relay.directory.file("pid");
    wait_for("the process id", || {
        (fs::read_to_string(&path).ok()? == relay.pid().to_string()).then_some(())
    });
}

fn b024() {
    let peer = Peer::echo();
    let first = with_pid_file(&peer).start();
    let path = first.directory.file("pid");
    let before = content(&path);
    let text = format!("pidfile = {}", path.display());
    let mut second =
        Launch::new(section(free_port(), &text, "", &peer.remote())).ready(None).start();
    second.expect_log("pid");
    wait_for("a refusal or a message", || {
        (is_gone(second.pid()) || second.log().contains("pid_write")).then_some(())
    });
    if is_gone(second.pid()) {
        assert_ne!(second.wait().code(), Some(0));
    }
    drop(second);
    assert_eq!(content(&path), before);
    assert_eq!(before, first.pid().to_string());
}

fn b025() {
    let (peer, port) = (Peer::echo(), free_port());
    let config = section(port, "pidfile = @DIR@/link", "", &peer.remote());
    let launch = Launch::new(config).file("target", "precious");
    let (link, target) = (launch.directory.file("link"), launch.directory.file("target"));
    std::os::unix::fs::symlink(&target, &link).expect("a link");
    let relay = launch.start();
    relay.expect_log("pid_write(");
    assert_eq!(content(&target), "precious");
    assert!(fs::symlink_metadata(&link).expect("the link").is_symlink());
}

fn b026() {
    let (peer, port) = (Peer::echo(), free_port());
    let config = section(port, "pidfile = @DIR@/missing/pid", "", &peer.remote());
    let relay = Launch::new(config).start();
    relay.expect_log("pid_write(");
    client(port);
}

fn b027() {
    let (peer, port) = (Peer::echo(), free_port());
    let relay = Launch::simple(port, &peer.remote()).input_closed().start();
    client(port);
    assert!(!relay.log().contains("inetd"), "{}", relay.log());
}

fn b028() {
    let (peer, port) = (Peer::echo(), free_port());
    let (_client, server) = tcp_pair();
    let relay = Launch::simple(port, &peer.remote()).input(server).start();
    client(port);
    assert!(!relay.log().contains("inetd"), "{}", relay.log());
}

/// A relay started as by inetd, with these `listen` blocks.
fn inetd(listen: &str, peer: &Peer) -> (u16, Relay) {
    let (port, listener) = occupied();
    let launch = Launch::new(with_listeners(listen, peer));
    // inetd passes the full path as argv[0].
    (port, launch.name(TCPRELAY).input(listener).start())
}

fn b029() {
    let peer = Peer::echo();
    let (port, relay) = inetd("", &peer);
    client(port);
    relay.expect_log(&format!("bind to [127.0.0.1]:{port} succeeded (via inetd)"));
    relay.expect_log("startup via inetd (version ");
}

fn b030() {
    let peer = Peer::echo();
    let (port, relay) = inetd("listen { }", &peer);
    client(port);
    assert_eq!(listeners(relay.pid()).len(), 1);
}

fn b031() {
    let peer = Peer::echo();
    let (port, mut relay) = inetd("", &peer);
    client(port);
    relay.signal(Signal::SIGHUP);
    let begin = Instant::now();
    assert_eq!(relay.wait().code(), Some(0));
    at_once(begin);
}

fn b032() {
    if syslog::exists() {
        exclude("the system has a syslog socket");
    }
    let (peer, port) = (Peer::echo(), free_port());
    let launch = Launch::simple(port, &peer.remote()).without("TCPRELAY_LOG_STDERR");
    let mut relay = launch.ready(None).start();
    crate::support::eventually_served(port);
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.wait().code(), Some(0));
    assert_eq!(relay.log(), "");
}

fn b033() {
    let (peer, port) = (Peer::echo(), free_port());
    let relay = Launch::simple(port, &peer.remote()).start();
    client(port);
    for pid in [relay.pid(), relay.workers()[0]] {
        assert_eq!(status_line(pid, "Umask"), "0022");
    }
}

fn require_root() {
    if !is_root() {
        exclude("needs root");
    }
}

/// Starts a relay with these directives in `spawn`. Returns the worker's Uid, Gid and Groups, and
/// requires that the broker's own are unchanged.
fn identity(spawn: &str) -> (String, String, String) {
    require_root();
    let (peer, port) = (Peer::echo(), free_port());
    let relay = Launch::new(section(port, "", spawn, &peer.remote())).start();
    client(port);
    let (broker, worker) = (relay.pid(), relay.workers()[0]);
    assert_eq!(status_line(broker, "Uid"), "0 0 0 0");
    assert_eq!(status_line(broker, "Gid"), status_line(std::process::id() as i32, "Gid"));
    let line = |name| status_line(worker, name);
    (line("Uid"), line("Gid"), line("Groups"))
}

fn four(id: u32) -> String {
    format!("{id} {id} {id} {id}")
}

fn nobody() -> nix::unistd::User {
    nix::unistd::User::from_name("nobody").ok().flatten().expect("the user nobody")
}

fn b034() {
    let (uid, gid, groups) = identity("userid = nobody groupid = nogroup");
    let group = nix::unistd::Group::from_name("nogroup").ok().flatten().expect("nogroup");
    assert_eq!((uid, gid), (four(nobody().uid.as_raw()), four(group.gid.as_raw())));
    assert!(groups.is_empty(), "{groups}");
}

fn b035() {
    let (uid, gid, _) = identity("userid = nobody");
    let user = nobody();
    assert_eq!((uid, gid), (four(user.uid.as_raw()), four(user.gid.as_raw())));
}

fn b036() {
    let (uid, gid, _) = identity("userid = 12345");
    assert_eq!(uid, four(12345));
    assert_eq!(gid, status_line(std::process::id() as i32, "Gid"));
}

fn b037() {
    require_root();
    let (peer, port) = (Peer::echo(), free_port());
    let config = section(port, "", "userid = 12345", &peer.remote());
    let launch = Launch::new(config).ready(None);
    // The worker's user may not be able to reach the build directory, so use a copy.
    let program = launch.directory.file("tcprelay");
    install(TCPRELAY, &program);
    let mut relay = launch.program(program).user(nobody().uid.as_raw()).start();
    relay.expect_log("Can't set user id to 12345");
    assert_ne!(relay.wait().code(), Some(0));
    assert!(!relay.log().contains("]: startup (version") || count(&relay, "startup (") == 1);
}

/// Requires that broker and worker use the mechanism this value of IO_POLL_MECHANISM stands for.
fn mechanism(value: &str, name: &str) {
    let (peer, port) = (Peer::echo(), free_port());
    let launch = Launch::simple(port, &peer.remote());
    let relay = launch.environment("IO_POLL_MECHANISM", value).start();
    client(port);
    let line = format!("]: {name} event notification mechanism is being used");
    assert_eq!(count(&relay, &line), 2, "{value}:\n{}", relay.log());
}

fn b038() {
    for (value, name) in [("4", "epoll"), ("8", "poll"), ("16", "select")] {
        mechanism(value, name);
    }
}

fn b039() {
    // A build with the emulations has these mechanisms, otherwise they are another system's.
    let foreign: &[&str] = if cfg!(event_shims) { &[] } else { &["1", "2", "32"] };
    for value in foreign.iter().chain(&["0", "abc", ""]) {
        let (peer, port) = (Peer::echo(), free_port());
        let launch = Launch::simple(port, &peer.remote()).ready(None);
        let mut relay = launch.environment("IO_POLL_MECHANISM", value).start();
        let ended = wait_for("a service or an end", || {
            let served = relay.log().matches("is being used").count() > 1;
            (served || is_gone(relay.pid())).then(|| is_gone(relay.pid()))
        });
        if ended {
            assert_eq!(relay.wait().code(), Some(78), "{value:?}");
        } else {
            client(port);
        }
        let log = relay.log().to_lowercase();
        let told = log.contains("io_poll_mechanism") || log.contains("no working event");
        assert!(told, "{value:?}:\n{log}");
    }
}

fn b040() {
    for (value, name) in [("12", "epoll"), ("24", "poll"), ("63", "epoll"), ("-1", "epoll")] {
        mechanism(value, name);
    }
}

fn b041() {
    let (peer, port) = (Peer::echo(), free_port());
    let text = section(port, "", "", &peer.remote());
    let launch = Launch::new(format!("setenv IO_POLL_MECHANISM = 8\n{text}"));
    let relay = launch.environment("IO_POLL_MECHANISM", "4").start();
    client(port);
    assert_eq!(count(&relay, "]: poll event notification"), 2, "{}", relay.log());
}

fn b042() {
    let (peer, port) = (Peer::echo(), free_port());
    let relay = Launch::simple(port, &peer.remote()).descriptors(50, 100).start();
    relay.expect_log("child limits maximum number of users to 45");
    for pid in [relay.pid(), relay.workers()[0]] {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
        let line = limits.lines().find(|line| line.starts_with("Max open files"));
        let words: Vec<&str> = line.expect("the limit").split_whitespace().collect();
        assert_eq!(words[3..5], ["100", "100"]);
    }
}

/// A broker whose workers are played by the test.
fn with_fake_worker(top: &str, broker: &str, spawn: &str) -> (Workshop, Launch) {
    let workshop = Workshop::new();
    let spawn = format!("exec = {} {spawn}", Workshop::program());
    let text = section(free_port(), broker, &spawn, &remote(1));
    let launch = Launch::new(format!("{top}\n{text}")).ready(None);
    let launch = workshop.equip(launch);
    (workshop, launch)
}

fn b043() {
    let (workshop, launch) = with_fake_worker("setenv FROM_FILE = filed", "", "");
    let _relay = launch.environment("FROM_PARENT", "inherited").start();
    let worker = workshop.next();
    let environment = worker.reported("environment");
    assert!(environment.contains(&"FROM_FILE=filed"), "{environment:?}");
    assert!(environment.contains(&"FROM_PARENT=inherited"), "{environment:?}");
}

fn b044() {
    let (workshop, launch) = with_fake_worker("", "", "id = zz config = @DIR@/other.cfg");
    let relay = launch.arguments(&["-d", "16", "-D", "@CFG@"]).start();
    let worker = workshop.next();
    let config = relay.directory.file("other.cfg").display().to_string();
    let expected = [&Workshop::program(), "-d", "16", "-D", &config, "zz"];
    assert_eq!(worker.reported("argument"), expected);
}

fn b045() {
    let (workshop, launch) = with_fake_worker("", "pidfile = @DIR@/pid", "");
    let _relay = launch.start();
    let worker = workshop.next();
    worker.say(MAX, 100);
    let list = worker.reported("descriptor");
    for entry in &list {
        let (number, name) = entry.split_once(' ').expect("number and name");
        let number: i32 = number.parse().expect("a number");
        // The process that lists the descriptors has one for /proc itself.
        assert!(number < 3 || name.starts_with("/proc/"), "{list:?}");
    }
    let (peer, port) = (Peer::echo(), free_port());
    let relay = Launch::new(section(port, "pidfile = @DIR@/pid", "", &peer.remote())).start();
    client(port);
    let worker = relay.workers()[0];
    let pid_file = relay.directory.file("pid");
    assert!(descriptors(worker) > 0);
    for (_, name) in crate::support::descriptor_names(worker) {
        assert_ne!(name, pid_file);
    }
    assert!(listeners(worker).is_empty(), "the worker has listeners");
}

fn b046() {
    let port = free_port();
    let config = section(port, "pidfile = @DIR@/pid", "", "foo");
    let finished = Launch::new(config).finish();
    finished.exits(78).says("Child reported fatal configuration problem. Exiting.");
    assert!(!finished.relay.directory.file("pid").exists());
}

/// A worker that cannot serve must fail visibly, not crash once for each connection.
fn visible_failure(config: String) {
    let finished = Launch::new(config).finish();
    assert_ne!(finished.status.code(), Some(0));
    assert!(finished.status.code().is_some(), "{:?}", finished.status);
    assert!(finished.stderr.matches("child (pid").count() < 10, "{}", finished.stderr);
}

fn b047() {
    let config = section(free_port(), "", "id = missing", &remote(1));
    visible_failure(config);
}

fn b048() {
    visible_failure(section(free_port(), "", "", ""));
}

/// A stand-alone broker, with the relay as its worker program.
fn spawnd(section: &str, arguments: &[&str]) {
    let (peer, port) = (Peer::echo(), free_port());
    let config = format!(
        "id = {section} {{ listen = {{ address = 127.0.0.1 port = {port} }}\n\
         spawn = {{ exec = {TCPRELAY} instances min = 1 instances max = 1 }} }}\n{}",
        worker_section(&peer.remote())
    );
    let relay = Launch::new(config).program(SPAWND).arguments(arguments).start();
    client(port);
    expect_title(relay.pid(), "spawnd: ");
    expect_title(relay.workers()[0], "tcprelay: ");
}

fn b049() {
    spawnd("spawnd", &["@CFG@"]);
}

fn b050() {
    spawnd("mine", &["@CFG@", "mine"]);
}

fn b051() {
    let config = section(free_port(), "", "", &remote(1));
    let finished = Launch::new(config).program(SPAWND).finish();
    finished.exits(78).says("exec");
}
