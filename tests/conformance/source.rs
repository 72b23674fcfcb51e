//! Where configurations come from.

use crate::common::{free_port, is_root, kill, remote, wait_for, Peer, TCPRELAY};
use crate::runner::{exclude, Entry};
use crate::support::{ask, client, eventually_served, section, Launch, Web};
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;

pub(crate) const CASES: &[Entry] = &[
    ("K001", k001),
    ("K002", k002),
    ("K003", k003),
    ("K004", k004),
    ("K005", k005),
    ("K006", k006),
    ("K007", k007),
    ("K008", k008),
    ("K009", k009),
    ("K010", k010),
    ("K011", k011),
    ("K012", k012),
    ("K013", k013),
];

fn require_curl() {
    if !cfg!(feature = "curl") {
        exclude("built without the feature curl");
    }
}

fn k001() {
    require_curl();
    let web = Web::new("200 OK", section(2222, "", "", &remote(1)));
    Launch::new("").arguments(&["-P", &web.url()]).finish().exits(0);
    assert_eq!(web.requests(), 1);
}

fn k002() {
    require_curl();
    let web = Web::new("404 Not Found", section(2222, "", "", &remote(1)));
    let finished = Launch::new("").arguments(&["-P", &web.url()]).finish();
    finished.exits(66).says(&format!("Couldn't open {}", web.url()));
}

fn k003() {
    require_curl();
    let web = Web::new("302 Found", "");
    let finished = Launch::new("").arguments(&["-P", &web.url()]).finish();
    assert!(matches!(finished.status.code(), Some(66 | 78)), "{:?}", finished.status);
    finished.says(&web.url());
}

fn k004() {
    require_curl();
    let (peer, port) = (Peer::echo(), free_port());
    let spawn = "instances max = 2 instances min = 2";
    let web = Web::new("200 OK", section(port, "", spawn, &peer.remote()));
    let _relay = Launch::new("").arguments(&[&web.url()]).ready(2).start();
    client(port);
    assert_eq!(web.requests(), 1);
}

fn k005() {
    require_curl();
    let mut text = section(2222, "", "", &remote(1));
    let long = "# a comment that makes the configuration long\n".repeat(100 * 1024 / 46 + 1);
    text.insert_str(0, &long);
    assert!(text.len() > 100 * 1024);
    let web = Web::new("200 OK", text);
    Launch::new("").arguments(&["-P", &web.url()]).finish().exits(0);
}

fn k006() {
    Launch::new("").arguments(&["-P", "@DIR@"]).finish().exits(66).says("Couldn't open");
    Launch::new("").arguments(&["@DIR@"]).finish().exits(66);
}

fn k007() {
    for arguments in [&["-P", "@DIR@/fifo"][..], &["@DIR@/fifo"]] {
        let launch = Launch::new("").arguments(arguments);
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o644);
        nix::unistd::mkfifo(&launch.directory.file("fifo"), mode).expect("a fifo");
        launch.finish().exits(66).says("Couldn't open");
    }
}

fn k008() {
    if !is_root() {
        exclude("needs root to start workers as another user");
    }
    let (peer, port) = (Peer::echo(), free_port());
    let config = section(port, "", "userid = nobody", &peer.remote());
    let launch = Launch::new("").file("secret.cfg", config);
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(launch.directory.file("secret.cfg"), mode).expect("chmod");
    let _relay = launch.arguments(&["@DIR@/secret.cfg"]).start();
    client(port);
}

fn k009() {
    let (peer, port) = (Peer::echo(), free_port());
    let config = section(port, "", "working directory = /", &peer.remote());
    let relay = Launch::new(config).arguments(&["relay.cfg"]).start();
    client(port);
    let directory = fs::read_link(format!("/proc/{}/cwd", relay.workers()[0])).expect("cwd");
    assert_eq!(directory.to_str(), Some("/"));
}

fn k010() {
    let (peer, port) = (Peer::echo(), free_port());
    let key = 0x7c00_0000 + std::process::id();
    let config = section(port, "", &format!("ipc key = {key}"), &peer.remote());
    let mut relay = Launch::new(config).start();
    client(port);
    // The file is not needed any more: a new worker reads the copy in shared memory.
    fs::remove_file(&relay.config).expect("to remove the configuration");
    let worker = relay.workers()[0];
    kill(worker, Signal::SIGKILL);
    wait_for("another worker", || relay.workers().into_iter().find(|&pid| pid != worker));
    eventually_served(port);
    // An orderly end removes the segment.
    relay.signal(Signal::SIGTERM);
    relay.wait();
}

fn k011() {
    let (peer, port) = (Peer::echo(), free_port());
    let text = section(port, "", "", &peer.remote());
    let text = text.replace("id = tcprelay", "setenv IO_POLL_MECHANISM = 8\nid = tcprelay");
    let relay = Launch::new(text).start();
    let log = relay.log();
    let (broker, worker) = (relay.pid(), relay.workers()[0]);
    assert!(log.contains(&format!("[{broker}]: epoll event notification")), "{log}");
    assert!(log.contains(&format!("[{worker}]: poll event notification")), "{log}");
}

fn k012() {
    let (a, b, port, other) = (Peer::named("A"), Peer::named("B"), free_port(), free_port());
    let config = section(port, "", "", &a.remote()) + &section(other, "", "", &b.remote());
    let _relay = Launch::new(config).start();
    assert_eq!(ask(port).1, "A");
    assert!(std::net::TcpStream::connect(("127.0.0.1", other)).is_err());
}

fn k013() {
    let (peer, port) = (Peer::echo(), free_port());
    let text = section(port, "", "", &peer.remote());
    let launch = Launch::new("");
    let file = launch.directory.program("service", format!("#!{TCPRELAY}\n{text}"));
    let _relay = launch.program(file).arguments(&[]).start();
    client(port);
}
