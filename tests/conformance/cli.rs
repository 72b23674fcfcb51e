//! The command line: options, their order, and what the name of the program decides.

use crate::common::{connect, free_port, next, remote, Peer, Relay, TCPRELAY};
use crate::config::version;
use crate::fake::FakeBroker;
use crate::runner::Entry;
use crate::support::{
    ask, client, content, expect_title, parent, section, stdout, worker_section, Daemon, Launch,
};
use crate::syslog;
use std::path::{Path, PathBuf};

pub(crate) const CASES: &[Entry] = &[
    ("C337", c337),
    ("C338", c338),
    ("V001", v001),
    ("V002", v002),
    ("V003", v003),
    ("V004", v004),
    ("V005", v005),
    ("V006", v006),
    ("V007", v007),
    ("V008", v008),
    ("V009", v009),
    ("V010", v010),
    ("V011", v011),
    ("V012", v012),
    ("V013", v013),
    ("V014", v014),
    ("V015", v015),
    ("V016", v016),
    ("V017", v017),
];

const BAD: &str = "id = spawnd { foo }\n";

/// Without `-P`, a parse error must go to the real system log.
fn error_in_syslog(arguments: &[&str], stderr: impl Fn(&str) -> bool) {
    syslog::require();
    let finished = Launch::new(BAD).arguments(arguments).without("TCPRELAY_LOG_STDERR").finish();
    finished.exits(78);
    assert!(stderr(&finished.stderr), "stderr:\n{}", finished.stderr);
    let line = syslog::expect(finished.relay.pid(), "but got 'foo'");
    assert!(line.starts_with("<67>"), "{line}");
    assert!(line.contains("]: Error "), "{line}");
}

fn c337() {
    error_in_syslog(&["@CFG@"], str::is_empty);
}

fn c338() {
    error_in_syslog(&["-D", "@CFG@"], |text| {
        text.is_empty() || text.starts_with("id = spawnd { foo") && !text.contains("Detected")
    });
}

fn good(port: u16) -> String {
    section(port, "", "", &remote(1))
}

fn v001() {
    let finished = Launch::new("").arguments(&["-v"]).without("TCPRELAY_LOG_STDERR").finish();
    finished.exits(0);
    assert!(finished.stdout.is_empty());
    assert_eq!(version(&finished.stderr, "tcprelay"), Ok(()));
    assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    let named = Launch::new("").arguments(&["-v"]).name("/some/where/other").finish();
    assert_eq!(version(&named.exits(0).stderr, "other"), Ok(()));
}

fn v002() {
    let finished = Launch::new(good(2222)).arguments(&["-v", "@CFG@"]).finish();
    assert_eq!(version(&finished.exits(0).stderr, "tcprelay"), Ok(()));
}

fn v003() {
    let launch = Launch::new(BAD).arguments(&["-v", "@CFG@"]).without("TCPRELAY_LOG_STDERR");
    launch.finish().exits(78).says("but got 'foo'");
}

fn v004() {
    Launch::new(good(2222)).arguments(&["@CFG@", "-P"]).finish().exits(0);
    Launch::new(BAD).arguments(&["@CFG@", "-P"]).finish().exits(78).says("but got 'foo'");
}

/// The daemon whose process id a relay in the background has written.
fn daemon(finished: &Relay, name: &str) -> Daemon {
    Daemon::of(&finished.directory.file(name))
}

fn v005() {
    let (peer, port) = (Peer::echo(), free_port());
    let launch = Launch::new(section(port, "", "", &peer.remote()));
    let finished = launch.arguments(&["-bp", "@DIR@/pid", "@CFG@"]).finish();
    let daemon = daemon(&finished.exits(0).relay, "pid");
    assert_ne!(daemon.0, finished.relay.pid());
    client(port);
}

/// Starts with `arguments`, and requires that the process stays in the foreground.
fn stays(arguments: &[&str], broker: &str) {
    let (peer, port) = (Peer::echo(), free_port());
    let launch = Launch::new(section(port, broker, "", &peer.remote()));
    let relay = launch.arguments(arguments).start();
    client(port);
    assert_eq!(parent(relay.pid()), std::process::id() as i32);
    expect_title(relay.pid(), "connection");
}

/// Starts with `arguments`, and requires that the launcher ends and a daemon serves.
fn goes(arguments: &[&str], broker: &str) {
    let (peer, port) = (Peer::echo(), free_port());
    let broker = format!("pidfile = @DIR@/pid\n{broker}");
    let launch = Launch::new(section(port, &broker, "", &peer.remote()));
    let finished = launch.arguments(arguments).finish();
    let _daemon = daemon(&finished.exits(0).relay, "pid");
    client(port);
}

fn v006() {
    stays(&["-b", "-f", "@CFG@"], "");
    goes(&["-f", "-b", "@CFG@"], "");
}

fn v007() {
    stays(&["-f", "@CFG@"], "background = yes");
}

fn v008() {
    goes(&["-b", "@CFG@"], "background = no");
}

fn v009() {
    let port = free_port();
    let launch = Launch::new(section(port, "pidfile = @DIR@/b", "", &remote(1)));
    let relay = launch.arguments(&["-p", "@DIR@/a", "@CFG@"]).start();
    let text = content(&relay.directory.file("a"));
    assert_eq!(text, relay.pid().to_string());
    assert!(!relay.directory.file("b").exists());
}

fn v010() {
    let launch = Launch::new(worker_section(&remote(1))).arguments(&["-i", "x", "@CFG@"]);
    let mut broker = FakeBroker::start(launch);
    assert_eq!(broker.relay.wait().code(), Some(64));
    assert!(broker.relay.log().contains("Usage: "), "{}", broker.relay.log());
}

/// Two servers A and B, and a section for each.
fn two_sections(first: &str, second: &str) -> (Peer, Peer, String) {
    let (a, b) = (Peer::named("A"), Peer::named("B"));
    let text = format!("id = {first} {{ {} }}\nid = {second} {{ {} }}\n", a.remote(), b.remote());
    (a, b, text)
}

fn broker_section(port: u16, more: &str) -> String {
    format!(
        "id = spawnd {{ {more}\nlisten = {{ address = 127.0.0.1 port = {port} }}\n\
         spawn = {{ instances min = 1 instances max = 1 }} }}\n"
    )
}

fn v011() {
    let port = free_port();
    let (_a, _b, sections) = two_sections("foo", "bar");
    let config = broker_section(port, "spawn = { id = bar }") + &sections;
    let _relay = Launch::new(config).arguments(&["-i", "foo", "@CFG@"]).start();
    assert_eq!(ask(port).1, "A");
}

fn v012() {
    let port = free_port();
    let (_a, _b, sections) = two_sections("foo", "tcprelay");
    let config = broker_section(port, "") + &sections;
    let _relay = Launch::new(config).arguments(&["-1", "-i", "foo", "@CFG@"]).start();
    assert_eq!(ask(port).1, "A");
}

fn v013() {
    let port = free_port();
    let (_a, _b, sections) = two_sections("foo", "tcprelay");
    let config = broker_section(port, "") + &sections;
    let _relay = Launch::new(config).arguments(&["-1", "@CFG@", "foo"]).start();
    assert_eq!(ask(port).1, "A");
}

fn v014() {
    let (peer, port) = (Peer::echo(), free_port());
    let config = section(port, "single process = no", "", &peer.remote());
    let relay = Launch::new(config).arguments(&["-1", "@CFG@"]).start();
    client(port);
    assert_eq!(relay.workers().len(), 1);
}

fn v015() {
    let (peer, port) = (Peer::echo(), free_port());
    let config = broker_section(port, "") + &format!("id = myrelay {{ {} }}\n", peer.remote());
    let launch = Launch::new(config);
    let link = launch.directory.file("myrelay");
    std::os::unix::fs::symlink(TCPRELAY, &link).expect("a link");
    let relay = launch.program(&link).start();
    client(port);
    assert!(relay.title().starts_with("myrelay: "), "{}", relay.title());
    let worker = relay.workers()[0];
    expect_title(worker, "myrelay: ");
    let log = relay.log();
    for pid in [relay.pid(), worker] {
        assert!(log.contains(&format!("<6>myrelay[{pid}]: startup ")), "{log}");
    }
}

fn v016() {
    let (peer, port) = (Peer::echo(), free_port());
    let program = Path::new(TCPRELAY);
    let folder = program.parent().expect("a directory").display().to_string();
    let launch = Launch::new(section(port, "", "", &peer.remote()));
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    let relay = launch.program("tcprelay").environment("PATH", &path).start();
    client(port);
    let executable: PathBuf =
        std::fs::read_link(format!("/proc/{}/exe", relay.workers()[0])).expect("the executable");
    assert_eq!(executable, program.canonicalize().expect("the program"));
}

fn v017() {
    let (peer, requests) = Peer::manual();
    for arguments in [
        &["-P", "@CFG@"][..],
        &["-v"],
        &["-v", "@CFG@"],
        &["-Z"],
        &[],
        &["-P", "@DIR@/missing"],
        &["-d", "1", "-D", "-P", "@CFG@"],
    ] {
        let finished = Launch::new(good(2222)).arguments(arguments).finish();
        assert!(finished.stdout.is_empty(), "{arguments:?}");
    }
    for option in ["-f", "-1", "-d17"] {
        let port = free_port();
        let launch = Launch::new(section(port, "", "", &peer.remote()));
        let mut relay = launch.arguments(&[option, "@CFG@"]).start();
        let stream = connect(port);
        drop(next(&requests));
        drop(stream);
        relay.signal(nix::sys::signal::Signal::SIGTERM);
        relay.wait();
        assert!(stdout(&relay).is_empty(), "{option}");
    }
}
