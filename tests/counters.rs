//! Counters: what the metrics say is what clients have done, exactly, over reloads and dead workers.

mod common;

use common::launch::serving;
use common::metrics::{check_growth, figures, sum, Figures};
use common::pki::Identity;
use common::*;
use nix::sys::signal::Signal;
use openssl::ssl::{SslConnector, SslMethod, SslSession, SslStream, SslVerifyMode, SslVersion};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// A relay with a status page.
struct Counted {
    relay: Relay,
    port: u16,
    status: u16,
}

impl Counted {
    fn start(broker: &str, spawn: &str, section: &str) -> Counted {
        let (status, single) = (free_port(), broker.contains("single"));
        let page = format!("status = {{ port = {status} }}");
        let layout = relay(section).workers(2).broker(&page).broker(broker).spawn(spawn);
        // A broker of one process has no workers to wait for.
        let (launch, port) = layout.launch();
        let relay = if single { launch.ready(None) } else { launch }.start();
        relay.expect_log("succeeded");
        let counted = Counted { relay, port, status };
        wait_for("a worker and the monitor", || {
            let figures = counted.try_figures()?;
            let serving = figures.get("tcprelay_workers{state=\"serving\"}").copied();
            (serving >= Some(if single { 1.0 } else { 2.0 })).then_some(())
        });
        counted
    }

    fn try_figures(&self) -> Option<Figures> {
        figures(self.status)
    }

    fn figures(&self) -> Figures {
        self.try_figures().expect("an answer")
    }

    /// Waits until a sum of samples, by the beginnings of their names, is this.
    fn expect(&self, name: &str, expected: u64) {
        let mut seen = 0.0;
        let found = wait_up_to(|| {
            seen = sum(&self.figures(), name);
            seen == expected as f64
        });
        assert!(found, "{name}: {seen}, not {expected}; log:\n{}", self.relay.log());
    }

    fn listener(&self) -> String {
        format!("listener=\"TCP [127.0.0.1]:{}\"", self.port)
    }
}

fn wait_up_to(mut condition: impl FnMut() -> bool) -> bool {
    for _ in 0..200 {
        if condition() {
            return true;
        }
        pace(Duration::from_millis(50));
    }
    false
}

/// A session that sends bytes and gets them back; 0 if it is cut.
fn session(port: u16, length: usize) -> usize {
    let mut stream = connect(port);
    let data = pattern(7, length);
    if stream.write_all(&data).is_err() || stream.shutdown(Shutdown::Write).is_err() {
        return 0;
    }
    let mut back = Vec::new();
    let _ = stream.read_to_end(&mut back);
    assert!(back.is_empty() || back == data);
    back.len()
}

#[test]
fn counters_are_what_clients_have_done() {
    for single in [false, true] {
        let remotes = [Peer::echo(), Peer::echo()];
        let broker = if single { "single process = yes" } else { "" };
        let section = remotes.each_ref().map(Peer::remote).concat();
        let counted = Counted::start(broker, "", &section);
        let mut bytes = 0;
        for number in 0..20 {
            bytes += session(counted.port, 1000 * number) as u64;
        }
        let listener = counted.listener();
        counted.expect("tcprelay_remote_sessions_total", 20);
        counted.expect("tcprelay_remote_selections_total", 20);
        counted.expect(&format!("tcprelay_connections_accepted_total{{{listener}"), 20);
        counted.expect("tcprelay_open_sessions", 0);
        counted.expect(&format!("tcprelay_listener_open_sessions{{{listener}"), 0);
        for direction in ["to_remote", "to_client"] {
            let label = format!("direction=\"{direction}\"");
            counted.expect(&format!("tcprelay_bytes_total{{{label}"), bytes);
            counted.expect(&format!("tcprelay_listener_bytes_total{{{listener},{label}"), bytes);
        }
        counted.expect("tcprelay_remote_bytes_total", 2 * bytes);
        counted.expect("tcprelay_session_duration_seconds_count", 20);
        counted.expect("tcprelay_remote_connect_duration_seconds_count", 20);
        counted.expect("tcprelay_connections_refused_total", 0);
        counted.expect(&format!("tcprelay_listener_bound{{{listener}"), 1);
        let held: Vec<TcpStream> = (0..3)
            .map(|_| {
                let mut stream = connect(counted.port);
                ping(&mut stream, b"x");
                stream
            })
            .collect();
        counted.expect("tcprelay_open_sessions", 3);
        counted.expect("tcprelay_remote_open_sessions", 3);
        counted.expect(&format!("tcprelay_listener_open_sessions{{{listener}"), 3);
        // Those that go on are counted too.
        counted.expect("tcprelay_remote_bytes_total", 2 * bytes + 6);
        drop(held);
        counted.expect("tcprelay_open_sessions", 0);
    }
}

#[test]
fn nothing_is_lost_or_runs_backwards_over_reloads_and_dead_workers() {
    let remote = Peer::echo();
    let counted = Counted::start("", "", &remote.remote());
    let (mut sessions, mut bytes) = (0, 0);
    let mut before: Figures = counted.figures();
    let mut check = |counted: &Counted, sessions: u64, bytes: u64| {
        counted.expect("tcprelay_remote_sessions_total", sessions);
        counted.expect("tcprelay_connections_accepted_total", sessions);
        counted.expect("tcprelay_bytes_total{direction=\"to_client\"", bytes);
        counted.expect("tcprelay_remote_bytes_total", 2 * bytes);
        let now = counted.figures();
        check_growth(&before, &now);
        before = now;
    };
    for (round, signal) in
        [None, Some(Signal::SIGHUP), Some(Signal::SIGUSR1), Some(Signal::SIGHUP)].iter().enumerate()
    {
        if let Some(signal) = signal {
            let workers = counted.relay.workers();
            counted.relay.signal(*signal);
            wait_for("other workers", || {
                let left = counted.relay.workers();
                workers.iter().all(|pid| !left.contains(pid)).then_some(())
            });
            counted.expect("tcprelay_config_reloads_total{result=\"success\"", round as u64);
        }
        for _ in 0..10 {
            bytes += session(counted.port, 5000) as u64;
            sessions += 1;
        }
        check(&counted, sessions, bytes);
        // A worker dies with open sessions, whose bytes are counted by then.
        let mut held: Vec<TcpStream> = (0..4).map(|_| connect(counted.port)).collect();
        for stream in &mut held {
            ping(stream, b"hello");
        }
        (sessions, bytes) = (sessions + 4, bytes + 20);
        check(&counted, sessions, bytes);
        let victim = serving(&counted.relay)[0];
        kill(victim, Signal::SIGKILL);
        counted.expect("tcprelay_workers_died_total", round as u64 + 1);
        drop(held);
        counted.expect("tcprelay_open_sessions", 0);
        check(&counted, sessions, bytes);
    }
    // A mistake.
    let text = std::fs::read_to_string(&counted.relay.config).expect("the configuration");
    std::fs::write(&counted.relay.config, text.replace("id = tcprelay", "id = tcprelay x"))
        .expect("written");
    counted.relay.signal(Signal::SIGHUP);
    counted.expect("tcprelay_config_reloads_total{result=\"failure\"", 1);
    counted.expect("tcprelay_config_reloads_total{result=\"success\"", 3);
    let monitors = counted.figures()["tcprelay_monitors_started_total"];
    assert!(monitors >= 4.0, "{monitors}");
}

#[test]
fn counters_of_one_process_survive_a_reload() {
    let remote = Peer::echo();
    let counted = Counted::start("single process = yes", "", &remote.remote());
    let bytes: usize = (0..5).map(|_| session(counted.port, 3000)).sum();
    counted.expect("tcprelay_remote_bytes_total", 2 * bytes as u64);
    counted.relay.signal(Signal::SIGHUP);
    wait_for("the reload", || {
        let figures = counted.try_figures()?;
        (sum(&figures, "tcprelay_config_reloads_total{result=\"success\"") == 1.0).then_some(())
    });
    counted.expect("tcprelay_remote_bytes_total", 2 * bytes as u64);
    counted.expect("tcprelay_remote_sessions_total", 5);
    session(counted.port, 10);
    counted.expect("tcprelay_connections_accepted_total", 6);
}

#[test]
fn refusals_have_reasons() {
    let refused = |counted: &Counted, reason: &str, count: u64| {
        let name = format!(
            "tcprelay_connections_refused_total{{{},reason=\"{reason}\"",
            counted.listener()
        );
        counted.expect(&name, count);
        counted.expect("tcprelay_connections_refused_total", count);
        counted.expect("tcprelay_connections_accepted_total", count);
    };
    let remote = Peer::echo();
    // By the access list.
    let counted = Counted::start("deny 127.0.0.0/8", "", &remote.remote());
    (0..3).for_each(|_| assert_eq!(session(counted.port, 10), 0));
    refused(&counted, "acl", 3);
    // Nobody is there.
    let gone = free_port();
    let counted = Counted::start("", "", &common::remote(gone));
    (0..2).for_each(|_| assert_eq!(session(counted.port, 10), 0));
    refused(&counted, "no_remote", 2);
    counted.expect("tcprelay_remote_sessions_total", 0);
    let failures = counted.figures();
    let refusals = sum(&failures, &format!("tcprelay_remote_connect_failures_total{{remote=\"[127.0.0.1]:{gone}\",reason=\"refused\""));
    assert!(refusals >= 1.0, "{failures:?}");
    // A route leads nowhere.
    let section = format!("{} route = {{ from = 127.0.0.0/8 to = reject }}", remote.remote());
    let counted = Counted::start("", "", &section);
    (0..2).for_each(|_| assert_eq!(session(counted.port, 10), 0));
    refused(&counted, "route", 2);
    // There are too many.
    let counted = Counted::start("overload = close", "users max = 1", &remote.remote());
    let held: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut stream = connect(counted.port);
            ping(&mut stream, b"x");
            stream
        })
        .collect();
    assert_eq!(session(counted.port, 10), 0);
    counted.expect("tcprelay_connections_refused_total", 1);
    let overload =
        format!("tcprelay_connections_refused_total{{{},reason=\"overload\"", counted.listener());
    counted.expect(&overload, 1);
    counted.expect("tcprelay_connections_accepted_total", 3);
    drop(held);
    // A client has too many sessions, and is idle for too long.
    let section = format!("{} idle timeout = 3", remote.remote());
    let counted = Counted::start("client sessions max = 1", "", &section);
    let mut held = connect(counted.port);
    ping(&mut held, b"x");
    assert_eq!(session(counted.port, 10), 0);
    counted.expect(
        &format!(
            "tcprelay_connections_refused_total{{{},reason=\"client_sessions\"",
            counted.listener()
        ),
        1,
    );
    counted.expect("tcprelay_sessions_expired_total{limit=\"idle\"", 1);
    drop(held);
    // A PROXY header is missing.
    let (port, status) = (free_port(), free_port());
    let config = format!(
        "id = spawnd {{ status = {{ port = {status} }} \
         listen = {{ address = 127.0.0.1 port = {port} haproxy = yes }} \
         spawn {{ instances min = 1 instances max = 1 }} }}\n\
         id = tcprelay {{ {} }}\n",
        remote.remote()
    );
    let relay = Launch::new(config).ready(1).start();
    let counted = Counted { relay, port, status };
    assert_eq!(session(counted.port, 100), 0);
    wait_for("the monitor", || counted.try_figures().map(drop));
    refused(&counted, "proxy", 1);
}

/// Limits are seen in the counters, in the log, and by tcprelayctl.
#[test]
fn each_limit_is_counted_and_logged() {
    let echo = Peer::echo();
    let (silent, held) = Peer::manual();
    let full = |queue: &str| {
        let more = format!("sessions max = 1 {queue} }}");
        echo.remote().replace('}', &more)
    };
    for (broker, section, limit, text) in [
        ("", format!("{} idle timeout = 1", echo.remote()), "idle", "idle timeout"),
        ("", format!("{} session timeout = 1", echo.remote()), "session", "session timeout"),
        (
            "",
            format!("{} first byte timeout = 1", silent.remote()),
            "first_byte",
            "first byte timeout",
        ),
        (
            "",
            format!("{} half-closed timeout = 1", silent.remote()),
            "half_closed",
            "half-closed timeout",
        ),
        ("", full("queue = 1 queue timeout = 1"), "queue", "queue timeout"),
        ("", full(""), "remotes_full", "remotes are full"),
        (
            "",
            format!("{} bandwidth up = 1 idle timeout = 1", silent.remote()),
            "throttled",
            " throttled",
        ),
        ("client rate = 1/3600", echo.remote(), "client_rate", "beyond its client rate"),
        (
            "client sessions max = 1",
            echo.remote(),
            "client_sessions",
            "beyond its client sessions max",
        ),
    ] {
        let broker = format!("control = {{ path = @DIR@/control }} {broker}");
        let counted = Counted::start(&broker, "", &format!("{section} access log = yes"));
        let mut first = connect(counted.port);
        first.write_all(b"x").expect("to send");
        if section == format!("{} half-closed timeout = 1", silent.remote()) {
            first.shutdown(Shutdown::Write).expect("to end");
        }
        // The limit is that of the first session, or makes it the last.
        let refused = ["queue", "remotes_full", "client_rate", "client_sessions"].contains(&limit);
        let mut limited = if refused {
            first.read_exact(&mut [0]).expect("an echo");
            connect(counted.port)
        } else {
            first.try_clone().expect("a copy")
        };
        wait_for("the end", || has_ended(&mut limited).then_some(()));
        let (metric, label) = match limit {
            "throttled" => {
                let metric = "tcprelay_sessions_throttled_total";
                (metric, metric.to_owned())
            }
            "remotes_full" | "client_rate" | "client_sessions" => {
                let metric = "tcprelay_connections_refused_total";
                (metric, format!("{metric}{{{},reason=\"{limit}\"", counted.listener()))
            }
            _ => {
                let metric = "tcprelay_sessions_expired_total";
                (metric, format!("{metric}{{limit=\"{limit}\""))
            }
        };
        counted.expect(&label, 1);
        counted.expect(metric, 1);
        counted.relay.expect_log(text);
        let mut ctl = ours(env!("CARGO_BIN_EXE_tcprelayctl"));
        ctl.arg("-s").arg(counted.relay.directory.file("control")).arg("show");
        let shown = common::text(&run(&mut ctl));
        let told = [format!("{limit} 1"), format!("1 {limit}")];
        assert!(told.iter().any(|told| shown.contains(told)), "{shown}");
        drop(held.try_iter().collect::<Vec<_>>());
    }
}

/// A session with TLS, resumed if it can be; returns what is needed to resume it.
fn tls_session(port: u16, version: SslVersion, former: Option<&SslSession>) -> Option<SslSession> {
    let mut builder = SslConnector::builder(SslMethod::tls()).expect("a connector");
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_min_proto_version(Some(version)).expect("a version");
    builder.set_max_proto_version(Some(version)).expect("a version");
    let connector = builder.build();
    let mut configuration = connector.configure().expect("a client");
    configuration.set_verify_hostname(false);
    let mut ssl = configuration.into_ssl("localhost").expect("a client");
    if let Some(session) = former {
        // SAFETY: the session is one of a client with the same settings.
        unsafe { ssl.set_session(session) }.expect("a session");
    }
    let mut stream = SslStream::new(ssl, connect(port)).expect("a stream");
    stream.connect().expect("a handshake");
    stream.write_all(b"hello").expect("to send");
    let mut back = [0; 5];
    stream.read_exact(&mut back).expect("an answer");
    let session = stream.ssl().session().map(ToOwned::to_owned);
    // Otherwise the library takes the session for a failed one.
    let _ = stream.shutdown();
    session
}

#[test]
fn tls_handshakes_are_counted_by_version_and_failure() {
    let directory = Directory::new();
    let identity = Identity::own(&["localhost"]);
    let certificate = identity.directives(directory.path(), "own");
    let remote = Peer::echo();
    let (port, status) = (free_port(), free_port());
    let config = format!(
        "id = spawnd {{ status = {{ port = {status} }} \
         listen = {{ address = 127.0.0.1 port = {port} tls = yes }} \
         spawn {{ instances min = 1 instances max = 1 }} }}\n\
         id = tcprelay {{ {} {certificate} }}\n",
        remote.remote()
    );
    let relay = Launch::new(config).ready(1).start();
    let counted = Counted { relay, port, status };
    wait_for("the monitor", || counted.try_figures().map(drop));
    let mut resumable: Option<SslSession> = None;
    for (version, times) in [(SslVersion::TLS1_2, 3), (SslVersion::TLS1_3, 2)] {
        for _ in 0..times {
            let former = resumable.filter(|_| version == SslVersion::TLS1_2);
            resumable = tls_session(port, version, former.as_ref());
        }
    }
    let name = "tcprelay_tls_handshakes_total{side=\"client\",version=";
    counted.expect(&format!("{name}\"TLSv1.2\""), 3);
    counted.expect(&format!("{name}\"TLSv1.3\""), 2);
    counted.expect("tcprelay_tls_resumptions_total{side=\"client\"", 2);
    counted.expect("tcprelay_tls_handshake_failures_total", 0);
    let mut plain = connect(port);
    plain.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("to send");
    let _ = plain.read_to_end(&mut Vec::new());
    let failures = "tcprelay_tls_handshake_failures_total{side=\"client\",reason=";
    counted.expect(&format!("{failures}\"protocol\""), 1);
    let refused =
        format!("tcprelay_connections_refused_total{{{},reason=\"tls\"", counted.listener());
    counted.expect(&refused, 1);
    counted.expect("tcprelay_remote_sessions_total", 5);
    counted.expect("tcprelay_connections_accepted_total", 6);
}

#[test]
fn tls_sessions_are_counted_by_who_has_their_records() {
    let directory = Directory::new();
    let identity = Identity::own(&["localhost"]);
    let certificate = identity.directives(directory.path(), "own");
    // Two relays in a row: the first has TLS with clients and with the second as its remote. TLS 1.3
    // with a remote is always OpenSSL's.
    for (records, version, client, remote) in [
        ("auto", "TLSv1.2", "own", "own"),
        ("auto", "TLSv1.3", "own", "openssl"),
        ("openssl", "TLSv1.2", "openssl", "openssl"),
    ] {
        let echo = Peer::echo();
        let second = free_port();
        let config = format!(
            "id = spawnd {{ listen = {{ address = 127.0.0.1 port = {second} tls = yes }} \
             spawn {{ instances min = 1 instances max = 1 }} }}\n\
             id = tcprelay {{ {} {certificate} }}\n",
            echo.remote()
        );
        let _second = Launch::new(config).ready(1).start();
        let (port, status) = (free_port(), free_port());
        let config = format!(
            "id = spawnd {{ status = {{ port = {status} }} \
             listen = {{ address = 127.0.0.1 port = {port} tls = yes }} \
             spawn {{ instances min = 1 instances max = 1 }} }}\n\
             id = tcprelay {{ {certificate} tls records = {records} \
             remote = {{ address = 127.0.0.1 port = {second} tls = yes tls verify = no \
             tls records = {records} tls versions = {version} }} }}\n"
        );
        let relay = Launch::new(config).ready(1).start();
        let counted = Counted { relay, port, status };
        wait_for("the monitor", || counted.try_figures().map(drop));
        for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
            tls_session(port, version, None);
        }
        for (side, who) in [("client", client), ("remote", remote)] {
            let name = format!("tcprelay_tls_sessions_total{{side=\"{side}\"");
            counted.expect(&name, 2);
            counted.expect(&format!("{name},records=\"{who}\""), 2);
        }
    }
}
