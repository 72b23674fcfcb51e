//! Remotes that are probed: real servers that die, hang and come back under load, and a monitor that
//! dies.

mod common;

use common::launch::{monitor, two_workers};
use common::*;
use mavis::upstream::zone::counters::{General, OfRemote, Place};
use mavis::upstream::zone::{Object, Zone};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Two workers, and these remotes; `single`: one process.
fn relay(remotes: &str, single: bool) -> (Relay, u16) {
    let port = free_port();
    (two_workers(port, single, "", remotes), port)
}

/// The workers of a relay, which its monitor is not.
fn workers(relay: &Relay) -> Vec<i32> {
    let serves = |pid: &i32| title(*pid).contains("connection");
    children(relay.pid()).into_iter().filter(serves).collect()
}

/// nginx on a port, with a page of 1 KB.
struct Nginx {
    directory: Directory,
    name: &'static str,
    port: u16,
    server: Option<Server>,
}

impl Nginx {
    fn start(name: &'static str) -> Nginx {
        let directory = Directory::new();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))
            .expect("chmod");
        directory.write("page", [b'x'; 1024]);
        let mut nginx = Nginx { directory, name, port: free_port(), server: None };
        nginx.again();
        nginx
    }

    fn again(&mut self) {
        let (root, name, port) = (self.directory.path().display(), self.name, self.port);
        let user = if is_root() { "user root;" } else { "" };
        let config = self.directory.write(
            "nginx.conf",
            format!(
                "daemon off; master_process off; {user} pid {root}/pid; error_log {root}/log crit;\n\
                 events {{ worker_connections 4096; }}\n\
                 http {{ access_log off; client_body_temp_path {root}/body;\n\
                 proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;\n\
                 uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;\n\
                 server {{ listen 127.0.0.1:{port} backlog=1024; root {root};\n\
                 add_header X-Server {name}; }} }}\n"
            ),
        );
        let mut command = Command::new(program("nginx"));
        command.arg("-c").arg(config).arg("-p").arg(self.directory.path());
        self.server = Some(Server::start(&mut command, port));
    }

    /// nginx runs as one process, so its child is all there is.
    fn pid(&self) -> i32 {
        let pid = std::fs::read_to_string(self.directory.file("pid")).expect("its pid");
        pid.trim().parse().expect("a number")
    }

    fn remote(&self, check: &str) -> String {
        format!("remote = {{ address = 127.0.0.1 port = {} {check} }}\n", self.port)
    }
}

/// One request; the name of the server that has answered.
fn request(port: u16) -> Result<String, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(text)?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).map_err(text)?;
    stream.write_all(b"GET /page HTTP/1.0\r\nHost: x\r\n\r\n").map_err(text)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(text)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    if !answer.starts_with("HTTP/1.1 200") || !answer.ends_with(&"x".repeat(1024)) {
        return Err(format!("{} bytes: {:.40}", answer.len(), answer));
    }
    let (_, after) = answer.split_once("X-Server: ").ok_or("no name")?;
    Ok(after.lines().next().unwrap_or_default().to_owned())
}

/// Clients that ask all the time, some 300 times a second.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    answers: Arc<[AtomicUsize; 2]>,
    /// When requests that failed had begun, and why they failed.
    errors: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Load {
    fn start(port: u16, first: &'static str) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let answers = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let errors = Arc::new(Mutex::new(Vec::new()));
        let threads = (0..6)
            .map(|_| {
                let (stop, answers, errors) = (stop.clone(), answers.clone(), errors.clone());
                thread::spawn(move || {
                    while !stop.load(SeqCst) {
                        let begun = Instant::now();
                        match request(port) {
                            Ok(name) => {
                                let server = usize::from(name != first);
                                let _ = answers[server].fetch_add(1, SeqCst);
                            }
                            Err(error) => errors.lock().expect("the list").push((begun, error)),
                        }
                        thread::sleep(Duration::from_millis(20).saturating_sub(begun.elapsed()));
                    }
                })
            })
            .collect();
        Load { stop, threads, answers, errors }
    }

    /// Waits for so many more answers of a server.
    fn wait_for(&self, server: usize, more: usize) {
        let goal = self.answers[server].load(SeqCst) + more;
        wait_for("answers", || (self.answers[server].load(SeqCst) >= goal).then_some(()));
    }

    /// Fails if a request has failed that began after this moment.
    fn check_since(&self, since: Instant) {
        let errors = self.errors.lock().expect("the list");
        let late: Vec<_> = errors.iter().filter(|(begun, _)| *begun > since).collect();
        assert!(late.is_empty(), "{} requests: {:?}", late.len(), late[0]);
    }

    fn end(self) -> Arc<Mutex<Vec<(Instant, String)>>> {
        self.stop.store(true, SeqCst);
        self.threads.into_iter().for_each(|thread| thread.join().expect("a client"));
        self.errors
    }
}

const HTTP: &str =
    "check http = /page check status = 200-299 check interval = 1 check timeout = 1 \
                    check fall = 2";

fn dies_hangs_and_comes_back(single: bool) {
    let (mut one, two) = (Nginx::start("one"), Nginx::start("two"));
    let (relay, port) = relay(&(one.remote(HTTP) + &two.remote(HTTP)), single);
    let load = Load::start(port, "one");
    load.wait_for(0, 50);
    load.wait_for(1, 50);
    load.check_since(Instant::now() - Duration::from_secs(3600));
    // Killed: connections are refused, and the other one is there at any time.
    kill(one.pid(), Signal::SIGKILL);
    drop(one.server.take());
    let killed = Instant::now();
    relay.expect_log(&format!("remote [127.0.0.1]:{} is down: ", one.port));
    load.wait_for(1, 100);
    load.check_since(killed);
    one.again();
    relay.expect_log(&format!("remote [127.0.0.1]:{} is up: its probes succeed", one.port));
    load.wait_for(0, 50);
    load.check_since(killed);
    // Stopped: it accepts, and says nothing. Once that is noticed no client gets it.
    kill(two.pid(), Signal::SIGSTOP);
    relay.expect_log(&format!("remote [127.0.0.1]:{} is down: no answer within 1 s", two.port));
    let noticed = Instant::now();
    load.wait_for(0, 100);
    load.check_since(noticed);
    kill(two.pid(), Signal::SIGCONT);
    relay.expect_log(&format!("remote [127.0.0.1]:{} is up: its probes succeed", two.port));
    load.wait_for(1, 50);
    load.check_since(noticed);
    let log = relay.log();
    assert_eq!(log.matches(" is down: ").count(), 2, "{log}");
    assert_eq!(log.matches(" is up: ").count(), 2, "{log}");
    load.end();
}

#[test]
fn nginx_dies_hangs_and_comes_back_under_load() {
    dies_hangs_and_comes_back(false);
}

#[test]
fn nginx_dies_hangs_and_comes_back_with_one_process() {
    dies_hangs_and_comes_back(true);
}

/// redis with a backup: a probe that asks something, and waits for the answer.
#[test]
fn redis_hangs_and_the_backup_takes_over() {
    let directory = Directory::new();
    let server_port = free_port();
    let mut command = Command::new(program("redis-server"));
    command
        .args(["--port", &server_port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--appendonly", "no", "--pidfile", "pid", "--daemonize", "no", "--dir"])
        .arg(directory.path());
    let _server = Server::start(&mut command, server_port);
    let pid: i32 = wait_for("its pid", || {
        let answer = Command::new(program("redis-cli"))
            .args(["-p", &server_port.to_string(), "INFO", "server"])
            .output()
            .ok()?;
        let answer = text(&answer);
        let (_, after) = answer.split_once("process_id:")?;
        after.lines().next()?.trim().parse().ok()
    });
    let backup = Peer::start(|mut stream| {
        let _ = stream.read(&mut [0; 100]);
        let _ = stream.write_all(b"+BACKUP\r\n");
    });
    let check = r#"check = send check send = "PING\r\n" check expect = "^\\+PONG" check interval = 1 check timeout = 1 on down = reset"#;
    let remotes = format!(
        "remote = {{ address = 127.0.0.1 port = {server_port} {check} }}\n\
         remote = {{ address = 127.0.0.1 port = {} backup = yes }}\n",
        backup.port
    );
    let (relay, port) = relay(&remotes, false);
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
    kill(pid, Signal::SIGSTOP);
    relay.expect_log("is down: no answer within 1 s");
    // Sessions of a remote that is down are reset, if that is wanted.
    expect_reset(&mut long);
    for _ in 0..20 {
        assert_eq!(ask(), "+BACKUP\r\n");
    }
    kill(pid, Signal::SIGCONT);
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
    let (relay, port) = relay(&remotes, false);
    relay.expect_log(&format!("[127.0.0.1]:{} is up: its probes succeed", good.port));
    let only_good = || {
        for _ in 0..30 {
            let mut answer = [0; 4];
            connect(port).read_exact(&mut answer).expect("an answer");
            assert_eq!(&answer, b"good");
        }
    };
    only_good();
    let before = workers(&relay);
    let first = wait_for("the monitor", || monitor(&relay));
    kill(first, Signal::SIGKILL);
    only_good();
    let second = wait_for("another monitor", || monitor(&relay).filter(|&pid| pid != first));
    only_good();
    assert_eq!(workers(&relay), before);
    // A monitor that hangs is replaced as well.
    kill(second, Signal::SIGSTOP);
    for signal in [Signal::SIGUSR1, Signal::SIGHUP] {
        let (old, before) = (monitor(&relay), workers(&relay));
        relay.signal(signal);
        wait_for("other workers", || {
            only_good();
            let now = workers(&relay);
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

/// The monitor is killed again and again under load: nothing else is disturbed.
#[test]
fn a_monitor_that_dies_all_the_time_disturbs_nothing() {
    let (one, two) = (Nginx::start("one"), Nginx::start("two"));
    let (relay, port) = relay(&(one.remote(HTTP) + &two.remote(HTTP)), false);
    let before = workers(&relay);
    let load = Load::start(port, "one");
    for _ in 0..6 {
        let pid = wait_for("the monitor", || monitor(&relay));
        load.wait_for(0, 10);
        kill(pid, Signal::SIGKILL);
        wait_for("its end", || is_gone(pid).then_some(()));
        load.wait_for(1, 10);
    }
    let errors = load.end();
    assert_eq!(*errors.lock().expect("the list"), []);
    assert_eq!(workers(&relay), before);
    assert!(!relay.log().contains(" is down"), "{}", relay.log());
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
    let (relay, port) = relay(&remote, false);
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
    let victim = workers(&relay)[0];
    kill(victim, Signal::SIGKILL);
    wait_for("another worker", || {
        let now = workers(&relay);
        (now.len() == 2 && !now.contains(&victim)).then_some(())
    });
    agree(talk(10, 100));
    for signal in [Signal::SIGHUP, Signal::SIGUSR1] {
        let before = workers(&relay);
        relay.signal(signal);
        wait_for("other workers", || {
            let now = workers(&relay);
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
        let (mut relay, _) = relay(&remote, false);
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
