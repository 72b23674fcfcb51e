//! Remotes that are probed: real servers that die, hang and come back under load, and a monitor that
//! dies.

mod common;

use common::launch::{monitor, serving};
use common::load::Load;
use common::*;
use mavis::upstream::zone::counters::{General, OfRemote, Place};
use mavis::upstream::zone::{Object, Zone};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// A real server, in one process.
struct Real {
    directory: Directory,
    port: u16,
    kind: Kind,
    server: Option<Server>,
}

#[derive(Clone, Copy)]
enum Kind {
    /// With a page of 1 KB, and its port in each answer.
    Nginx,
    Redis,
}

impl Kind {
    /// How it is probed.
    fn check(self) -> &'static str {
        match self {
            Kind::Nginx => "check http = /page check status = 200-299",
            Kind::Redis => r#"check = send check send = "PING\r\n" check expect = "^\\+PONG""#,
        }
    }

    /// A session with the relay on this port; the port of the server that has answered.
    fn ask(self, port: u16) -> Result<u16, String> {
        let question = match self {
            Kind::Nginx => "GET /page HTTP/1.0\r\nHost: x\r\n\r\n",
            Kind::Redis => "CONFIG GET port\r\nQUIT\r\n",
        };
        let text = |error: std::io::Error| error.to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(text)?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).map_err(text)?;
        stream.write_all(question.as_bytes()).map_err(text)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(text)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (whole, before) = match self {
            Kind::Nginx => (
                answer.starts_with("HTTP/1.1 200") && answer.ends_with(&"x".repeat(1024)),
                "X-Server: ",
            ),
            Kind::Redis => (answer.ends_with("\r\n+OK\r\n"), "$4\r\nport\r\n$5\r\n"),
        };
        let port = answer.split_once(before).and_then(|(_, after)| after.lines().next());
        let port = port.filter(|_| whole).and_then(|port| port.parse().ok());
        port.ok_or_else(|| format!("{} bytes: {answer:.40}", answer.len()))
    }
}

impl Real {
    fn start(kind: Kind) -> Real {
        let directory = Directory::new();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))
            .expect("chmod");
        directory.write("page", [b'x'; 1024]);
        let mut real = Real { directory, port: free_port(), kind, server: None };
        real.again();
        real
    }

    fn again(&mut self) {
        let (root, port) = (self.directory.path(), self.port);
        let mut command = match self.kind {
            Kind::Nginx => {
                let mut command = Command::new(program("nginx"));
                command.arg("-c").arg(self.configuration()).arg("-p").arg(root);
                command
            }
            Kind::Redis => {
                let mut command = Command::new(program("redis-server"));
                command
                    .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
                    .args(["--appendonly", "no", "--daemonize", "no", "--dir"])
                    .arg(root);
                command
            }
        };
        self.server = Some(Server::start(&mut command, port));
    }

    fn configuration(&self) -> PathBuf {
        let (root, port) = (self.directory.path().display(), self.port);
        let user = if is_root() { "user root;" } else { "" };
        self.directory.write(
            "nginx.conf",
            format!(
                "daemon off; master_process off; {user} pid {root}/pid; error_log {root}/log crit;\n\
                 events {{ worker_connections 4096; }}\n\
                 http {{ access_log off; client_body_temp_path {root}/body;\n\
                 proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;\n\
                 uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;\n\
                 server {{ listen 127.0.0.1:{port} backlog=1024; root {root};\n\
                 add_header X-Server {port}; }} }}\n"
            ),
        )
    }

    fn signal(&self, signal: Signal) {
        kill(self.server.as_ref().expect("a server").pid(), signal);
    }

    /// Ends it as a crash would.
    fn die(&mut self) {
        self.signal(Signal::SIGKILL);
        drop(self.server.take());
    }

    fn remote(&self) -> String {
        let (port, check) = (self.port, self.kind.check());
        format!(
            "remote = {{ address = 127.0.0.1 port = {port} {check} check interval = 1 \
             check timeout = 1 check fall = 2 }}\n"
        )
    }
}

/// How many clients come in a second.
const RATE: u32 = 300;

/// Two servers under load, of which one is killed and comes back, and the other one hangs for a
/// while. Returns how many sessions there were in a second.
fn dies_hangs_and_comes_back(kind: Kind, single: bool) -> f64 {
    let (mut one, two) = (Real::start(kind), Real::start(kind));
    let (relay, port) = relay(one.remote() + &two.remote()).workers(2).single(single).start();
    let begun = Instant::now();
    let load = Load::start(RATE, move || kind.ask(port));
    load.wait_for(one.port, 50);
    load.wait_for(two.port, 50);
    load.check_since(begun);
    // Killed: connections are refused, and the other one is there at any time.
    one.die();
    let killed = Instant::now();
    relay.expect_log(&format!("remote [127.0.0.1]:{} is down: ", one.port));
    load.wait_for(two.port, 100);
    load.check_since(killed);
    one.again();
    relay.expect_log(&format!("remote [127.0.0.1]:{} is up: its probes succeed", one.port));
    load.wait_for(one.port, 50);
    load.check_since(killed);
    // Stopped: it accepts, and says nothing. Once that is noticed no client gets it.
    let stopped = Instant::now();
    two.signal(Signal::SIGSTOP);
    relay.expect_log(&format!("remote [127.0.0.1]:{} is down: no answer within 1 s", two.port));
    let noticed = Instant::now();
    load.wait_for(one.port, 100);
    load.check_since(noticed);
    two.signal(Signal::SIGCONT);
    relay.expect_log(&format!("remote [127.0.0.1]:{} is up: its probes succeed", two.port));
    load.wait_for(two.port, 50);
    load.check_since(noticed);
    let log = relay.log();
    assert_eq!(log.matches(" is down: ").count(), 2, "{log}");
    assert_eq!(log.matches(" is up: ").count(), 2, "{log}");
    // Those that it had were kept until it went on.
    let seen = load.end();
    assert!(seen.errors.iter().all(|(begun, _)| *begun < stopped), "{:?}", seen.errors);
    seen.sessions() as f64 / begun.elapsed().as_secs_f64()
}

#[test]
fn nginx_dies_hangs_and_comes_back_under_load() {
    dies_hangs_and_comes_back(Kind::Nginx, false);
}

#[test]
fn nginx_dies_hangs_and_comes_back_with_one_process() {
    dies_hangs_and_comes_back(Kind::Nginx, true);
}

#[test]
fn redis_dies_hangs_and_comes_back_under_load() {
    dies_hangs_and_comes_back(Kind::Redis, false);
}

#[test]
#[ignore = "needs a machine that can serve so many clients"]
fn that_many_clients_come_while_servers_die() {
    for kind in [Kind::Nginx, Kind::Redis] {
        let rate = dies_hangs_and_comes_back(kind, false);
        eprintln!("{rate:.0} sessions a second");
        assert!(rate > 0.9 * f64::from(RATE), "{rate}");
    }
}

/// redis with a backup: sessions of a remote that is down are reset, if that is wanted.
#[test]
fn redis_hangs_and_the_backup_takes_over() {
    let redis = Real::start(Kind::Redis);
    let backup = Peer::start(|mut stream| {
        let _ = stream.read(&mut [0; 100]);
        let _ = stream.write_all(b"+BACKUP\r\n");
    });
    let remotes = format!(
        "{} remote = {{ address = 127.0.0.1 port = {} backup = yes }}\n",
        redis.remote().replace('}', "on down = reset }"),
        backup.port
    );
    let (relay, port) = relay(&remotes).workers(2).start();
    let ask = || {
        let mut stream = connect(port);
        stream.write_all(b"PING\r\n").expect("to send");
        let mut answer = [0; 100];
        let count = stream.read(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer[..count]).into_owned()
    };
    for _ in 0..20 {
        assert_eq!(ask(), "+PONG\r\n");
    }
    let mut long = connect(port);
    long.write_all(b"PING\r\n").expect("to send");
    let mut answer = [0; 7];
    long.read_exact(&mut answer).expect("an answer");
    redis.signal(Signal::SIGSTOP);
    relay.expect_log("is down: no answer within 1 s");
    expect_reset(&mut long);
    for _ in 0..20 {
        assert_eq!(ask(), "+BACKUP\r\n");
    }
    redis.signal(Signal::SIGCONT);
    relay.expect_log("is up: its probes succeed");
    wait_for("redis", || (ask() == "+PONG\r\n").then_some(()));
    for _ in 0..20 {
        assert_eq!(ask(), "+PONG\r\n");
    }
}

/// A remote that is down stays so while there is no monitor, and across reloads.
#[test]
fn what_is_known_outlives_the_monitor_and_a_reload() {
    let (good, bad) = (Peer::named("good"), Peer::named("bad"));
    let check = r#"check expect = "^good" check interval = 1 check start = down"#;
    let remotes: String = [&good, &bad]
        .map(|peer| format!("remote = {{ address = 127.0.0.1 port = {} {check} }}\n", peer.port))
        .concat();
    let (relay, port) = relay(&remotes).workers(2).start();
    relay.expect_log(&format!("[127.0.0.1]:{} is up: its probes succeed", good.port));
    let only_good = || {
        for _ in 0..30 {
            let mut answer = [0; 4];
            connect(port).read_exact(&mut answer).expect("an answer");
            assert_eq!(&answer, b"good");
        }
    };
    only_good();
    let before = serving(&relay);
    let first = wait_for("the monitor", || monitor(&relay));
    kill(first, Signal::SIGKILL);
    only_good();
    let second = wait_for("another monitor", || monitor(&relay).filter(|&pid| pid != first));
    only_good();
    assert_eq!(serving(&relay), before);
    // A monitor that hangs is replaced as well.
    kill(second, Signal::SIGSTOP);
    for signal in [Signal::SIGUSR1, Signal::SIGHUP] {
        let (old, before) = (monitor(&relay), serving(&relay));
        relay.signal(signal);
        wait_for("other workers", || {
            only_good();
            let now = serving(&relay);
            (now.len() == 2 && !now.iter().any(|pid| before.contains(pid))).then_some(())
        });
        wait_for("another monitor", || monitor(&relay).filter(|&pid| Some(pid) != old));
        only_good();
    }
    // No more checks: no monitor, and the other remote is used again.
    let plain: String = [&good, &bad].map(Peer::remote).concat();
    let config = std::fs::read_to_string(&relay.config).expect("the configuration");
    std::fs::write(&relay.config, config.replace(&remotes, &plain)).expect("the configuration");
    relay.signal(Signal::SIGHUP);
    wait_for("the other remote", || {
        let mut answer = [0; 3];
        connect(port).read_exact(&mut answer).ok()?;
        (&answer == b"bad").then_some(())
    });
    wait_for("no monitor", || monitor(&relay).is_none().then_some(()));
}

/// The memory that a broker shares with its workers.
#[cfg(target_os = "linux")]
fn zone(relay: &Relay) -> Option<Zone> {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", relay.pid())).ok()?;
    descriptors.flatten().find_map(|entry| {
        let target = std::fs::read_link(entry.path()).ok()?;
        let shared = target.to_string_lossy().starts_with("/memfd:tcprelay");
        let open = || std::fs::File::options().read(true).write(true).open(entry.path());
        let file = shared.then(|| open().ok()).flatten()?;
        Zone::adopt(&Object::from(std::os::fd::OwnedFd::from(file))).ok()
    })
}

/// Counters say exactly what clients have seen, over reloads and a worker that was killed.
#[test]
#[cfg(target_os = "linux")]
fn counters_agree_with_clients() {
    let peer = Peer::echo();
    // Without a monitor nothing is counted.
    let remote = peer.remote().replace('}', " check = tcp check interval = 3600 }");
    let (relay, port) = relay(&remote).workers(2).start();
    let mut sent = [0, 0];
    let mut talk = |sessions: usize, length: usize| {
        for session in 0..sessions {
            let data = pattern(session as u64, length);
            let mut stream = connect(port);
            stream.write_all(&data).expect("to send");
            stream.shutdown(std::net::Shutdown::Write).expect("to end");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).expect("the echo");
            assert!(answer == data);
            sent = [sent[0] + 1, sent[1] + length as u64];
        }
        sent
    };
    let places = [
        Place::General(General::Accepted),
        Place::Remote(0, OfRemote::Sessions),
        Place::General(General::BytesUp),
        Place::General(General::BytesDown),
        Place::Remote(0, OfRemote::BytesUp),
        Place::Remote(0, OfRemote::BytesDown),
        Place::General(General::Open),
    ];
    let agree = |[sessions, bytes]: [u64; 2]| {
        let expected = [sessions, sessions, bytes, bytes, bytes, bytes, 0];
        wait_for("figures that agree", || {
            (zone(&relay)?.figures(&places) == expected).then_some(())
        });
    };
    agree(talk(20, 1000));
    agree(talk(3, 3_000_000));
    let victim = serving(&relay)[0];
    kill(victim, Signal::SIGKILL);
    wait_for("another worker", || {
        let now = serving(&relay);
        (now.len() == 2 && !now.contains(&victim)).then_some(())
    });
    agree(talk(10, 100));
    for signal in [Signal::SIGHUP, Signal::SIGUSR1] {
        let before = serving(&relay);
        relay.signal(signal);
        wait_for("other workers", || {
            let now = serving(&relay);
            (now.len() == 2 && !now.iter().any(|pid| before.contains(pid))).then_some(())
        });
        agree(talk(10, 100));
    }
}

/// Without our own broker there is no monitor: the log says so, and all remotes count as up.
#[test]
fn without_a_monitor_remotes_are_not_checked() {
    let peer = Peer::named("good");
    let port = free_port();
    let text = format!(
        "id = spawnd {{ listen = {{ address = 127.0.0.1 port = {port} }} \
         spawn {{ exec = @BIN@ instances min = 1 instances max = 1 users max = 100 }} }}\n\
         id = tcprelay {{ remote = {{ address = 127.0.0.1 port = {} check = tcp \
         check start = down }} }}\n",
        peer.port
    );
    let relay = Launch::new(text).start();
    relay.expect_log("remotes are not checked: ");
    let mut answer = [0; 4];
    connect(port).read_exact(&mut answer).expect("an answer");
    assert_eq!(monitor(&relay), None);
}

/// The monitor ends with the broker, however that ends.
#[test]
fn the_monitor_ends_with_the_broker() {
    let peer = Peer::echo();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let remote = format!("remote = {{ address = 127.0.0.1 port = {} check = tcp }}", peer.port);
        let (mut relay, _) = relay(&remote).workers(2).start();
        let pid = wait_for("the monitor", || monitor(&relay));
        relay.signal(signal);
        relay.wait();
        wait_for("the end of the monitor", || is_gone(pid).then_some(()));
    }
}

#[test]
fn mistakes_are_told_with_their_place() {
    for (check, expected) in [
        ("check = udp", "'http', 'none', 'send', 'tcp' or 'tls'"),
        ("check = tls", "check = tls: the remote has no TLS"),
        ("check rise = 0", "from 1 to 1000"),
        ("check interval = 0", "from 1 to 86400"),
        ("check rise = 3", "check = … is missing"),
        ("slow start = 5", "check = … is missing"),
        ("check = tcp check send = x", "this needs check = send"),
        ("check = send check http = /", "this needs check = http"),
        ("check = http check expect = x", "this needs check = send"),
        ("check http = x", "Expected a path"),
        ("check http = / check status = 99", "Expected a status"),
        ("check expect = \"(\"", "In PCRE2 expression"),
        ("check = tcp check address = x", "Expected an IP address"),
        ("check = tcp on down = close", "'keep' or 'reset'"),
        ("check = tcp check start = maybe", "'down' or 'up'"),
        ("check = tcp } balance scope = worker tcp = {", "check needs balance scope = all"),
    ] {
        let text = format!(
            "id = spawnd {{ listen = {{ port = 1 }} }}\nid = tcprelay {{\n\
             remote = {{ address = 127.0.0.1 port = 1 {check} }} }}\n"
        );
        let finished = Launch::new(text).argument("-P").finish();
        assert!(!finished.status.success(), "{check}: {}", finished.stderr);
        assert!(finished.stderr.contains(":3: "), "{check}: {}", finished.stderr);
        assert!(finished.stderr.contains(expected), "{check}: {}", finished.stderr);
    }
}
