//! `authorization = mavis`: modules decide who may connect, and a misbehaving module harms only its
//! own answer, or at worst its own worker.

mod common;

use common::modules::modules;
use common::pki::Identity;
use common::sockets::connect_from;
use common::*;
use nix::sys::signal::Signal;
use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslVerifyMode};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Everything that a client receives after sending a word; empty if it is turned away.
fn answer(last: u8, port: u16) -> String {
    let mut stream = connect_from(last, port);
    // This fails if the client was turned away already.
    let _ = stream.write_all(b" ping");
    let _ = stream.shutdown(Shutdown::Write);
    let mut text = Vec::new();
    if let Err(error) = stream.read_to_end(&mut text) {
        let timed_out = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        assert!(!timed_out, "neither served nor closed");
    }
    String::from_utf8(text).expect("text")
}

fn is_served(last: u8, port: u16) -> bool {
    let text = answer(last, port);
    assert!(text.is_empty() || text.ends_with(" ping"), "{text:?}");
    !text.is_empty()
}

/// A relay that asks `chain`, with `section` as further directives. The test modules work in the
/// sandbox, but the relay cannot know that, so the configuration says so.
fn setup(port: u16, chain: &str, section: &str) -> Launch {
    let modules = modules().display();
    let ask = "authorization = mavis\naccess log = yes\nsandbox = yes\n";
    Launch::simple(port, &format!("mavis path = {modules}\n{chain}\n{ask}{section}"))
}

#[test]
fn answers_decide_and_tags_restrict() {
    let chain = r#"mavis module = bare { script in = {
        if (USER =~ /^127\.0\.0\.(\d+)$/) set COMMENT = "last $1"
        if (TYPE == TACPLUS && TACTYPE == HOST && IPADDR == $USER && SERVERIP == "127.0.0.1") {
            if (USER == "127.0.0.1") { set RESULT = ACK return }
            if (USER == "127.0.0.2") { set RESULT = ACK set CUSTOM_0 = blue return }
            if (USER == "127.0.0.3") { set RESULT = ACK set CUSTOM_0 = green return }
            if (USER == "127.0.0.4") { set RESULT = NAK return }
            if (USER == "127.0.0.5") { set RESULT = ERR return }
        }
    } }"#;
    for (mechanism, name) in mechanisms() {
        let (white, blue) = (Peer::named("white"), Peer::named("blue"));
        let tagged = blue.remote().replace('}', "tag = blue }");
        let port = free_port();
        let section = format!("{}{tagged}", white.remote());
        let relay = setup(port, chain, &section).mechanism(mechanism).start();
        // Not restricted, so the least used remote is chosen: the first.
        assert_eq!(answer(1, port), "white ping", "{name}");
        for _ in 0..3 {
            assert_eq!(answer(2, port), "blue ping", "{name}");
        }
        for last in [3, 4, 5, 6] {
            assert_eq!(answer(last, port), "", "{name}: 127.0.0.{last}");
        }
        relay.expect_log("no remote has the tag \"green\"");
        relay.expect_log("denied (last 4)");
        relay.expect_log("authorization failed: error (last 5)");
    }
}

#[test]
fn a_module_is_told_who_asks_for_what() {
    let authority = Identity::authority("Authority");
    let client = authority.sign(&["client.example", "192.0.2.1"], common::pki::ec_key());
    let own = Identity::own(&["localhost"]);
    let (peer, port, files) = (Peer::echo(), free_port(), Directory::new());
    let (certificate, key) = client.write(files.path(), "client");
    let (trusted, _) = authority.write(files.path(), "authority");
    let text = format!(
        "id = spawnd {{\n listen = {{ address = 127.0.0.1 port = {port} realm = office tls = yes }}\n \
         spawn {{ instances min = 1 instances max = 1 }}\n}}\nid = tcprelay {{\n\
         mavis path = {}\nmavis module = tell {{ }}\n\
         mavis module = bare {{ script in = {{ set RESULT = ACK return }} }}\n\
         authorization = mavis\n{}{}tls ca-file = {}\ntls verify = required\n}}\n",
        modules().display(),
        peer.remote(),
        own.directives(files.path(), "own"),
        trusted.display(),
    );
    let relay = Launch::new(text).start();
    let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("a client");
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_certificate_file(certificate, SslFiletype::PEM).expect("a certificate");
    builder.set_private_key_file(key, SslFiletype::PEM).expect("a key");
    let connector = builder.build();
    let mut stamps = Vec::new();
    for round in 1..=2 {
        let stream = connect_from(7, port);
        let mut stream = connector.connect("localhost", stream).expect("a handshake");
        stream.write_all(b"hello").expect("to send");
        let mut echo = [0; 5];
        stream.read_exact(&mut echo).expect("an answer");
        for text in [
            "TYPE=TACPLUS.",
            "TACTYPE=HOST.",
            "USER=127.0.0.7.",
            "IPADDR=127.0.0.7.",
            "SERVERIP=127.0.0.1.",
            "REALM=office.",
            "CERTSUBJ=/O=tcprelay tests/CN=client.example.",
            "TLS_PEER_DATA=san=\"client.example\",san=\"192.0.2.1\",\
             issuer=\"/O=tcprelay tests/CN=Authority\",issueraki=\"",
            "sha256=\"",
        ] {
            relay.wait_for_log(text, |log| {
                (log.matches(&format!("asked: {text}")).count() >= round
                    || text.starts_with("sha") && log.contains(text))
                .then_some(())
            });
        }
        let log = relay.log();
        let stamp = log.lines().rev().find_map(|line| line.split("asked: TIMESTAMP=").nth(1));
        stamps.push(stamp.expect("a time stamp").to_owned());
    }
    assert_ne!(stamps[0], stamps[1], "questions must differ");
    // Some modules look at errno to see whether they parsed a number: it must be clean.
    assert!(!relay.log().contains("with errno"), "{}", relay.log());
}

#[test]
fn answers_may_come_later() {
    for (mechanism, name) in mechanisms() {
        for by_pipe in ["no", "yes"] {
            let (peer, port) = (Peer::echo(), free_port());
            let chain = format!(
                "mavis module = later {{ delay = 30 buffer = {by_pipe} \
                 user 127.0.0.2 = NAK user 127.0.0.3 = down user 127.0.0.4 = timeout default = ACK }}"
            );
            let relay = setup(port, &chain, &peer.remote()).mechanism(mechanism).start();
            let clients: Vec<_> = (1..=60u8)
                .map(|number| {
                    // Several clients from each address, so that equal questions are pending at the
                    // same time.
                    let last = 1 + number % 4;
                    thread::spawn(move || (last, is_served(last, port)))
                })
                .collect();
            for client in clients {
                let (last, served) = client.join().expect("a client");
                assert_eq!(served, last == 1, "{name}, pipe {by_pipe}: 127.0.0.{last}");
            }
            relay.expect_log("the module gave up waiting");
        }
    }
}

#[test]
fn a_slow_backend_delays_its_own_clients_only() {
    let (peer, port) = (Peer::echo(), free_port());
    let chain = "mavis module = misbehave { mode = silent user 127.0.0.9 }
        mavis module = bare { script in = { set RESULT = ACK return } }";
    let relay = setup(port, chain, &format!("mavis timeout = 6\n{}", peer.remote())).start();
    let mut waiting = connect_from(9, port);
    waiting.write_all(b"let me in").expect("to send");
    let start = Instant::now();
    for _ in 0..20 {
        assert!(is_served(1, port));
    }
    assert!(start.elapsed() < Duration::from_secs(6), "served after the other one's time-out");
    // Nobody answers for this client. That is an error, and errors deny.
    let mut nothing = Vec::new();
    let _ = waiting.read_to_end(&mut nothing);
    assert!(nothing.is_empty());
    relay.expect_log("authorization failed: no answer in time");
}

#[test]
fn what_a_client_says_meanwhile_is_kept() {
    let (peer, port) = (Peer::echo(), free_port());
    let chain = "mavis module = later { delay = 200 }";
    let relay = setup(port, chain, &peer.remote()).start();
    let data = pattern(1, 100_000);
    let mut stream = connect_from(1, port);
    let mut writer = stream.try_clone().expect("a second handle");
    let sent = data.clone();
    let sender = thread::spawn(move || {
        writer.write_all(&sent).expect("to send");
        writer.shutdown(Shutdown::Write).expect("to end");
    });
    let mut got = Vec::new();
    stream.read_to_end(&mut got).expect("an echo");
    sender.join().expect("the sender");
    assert!(got == data, "changed on the way");
    relay.expect_log("closed");
}

#[test]
fn a_client_that_leaves_takes_its_question_back() {
    let (peer, connections) = Peer::manual();
    let port = free_port();
    let chain = "mavis module = tell { } mavis module = later { delay = 3000 }";
    let relay = setup(port, chain, &peer.remote()).start();
    // One client ends without a word, the other resets.
    let (ends, breaks) = (connect_from(1, port), connect_from(2, port));
    relay.wait_for_log("the questions", |log| {
        (log.matches("asked: TIMESTAMP").count() == 2).then_some(())
    });
    drop(ends);
    reset(breaks);
    relay.wait_for_log("the cancellations", |log| {
        (log.matches("asked: cancelled").count() == 2).then_some(())
    });
    // Their places are freed before any answer could have come.
    relay
        .wait_for_log("the ends", |log| (log.matches("access: client").count() == 2).then_some(()));
    assert!(relay.log().matches("remote none").count() == 2);
    assert!(connections.try_recv().is_err(), "connected for nobody");
    let _client = connect_from(3, port);
    drop(next(&connections));
}

/// The modes of misbehaviour, and whether the client is admitted with `mavis error = deny` and with
/// `permit`.
const MISBEHAVIOUR: [(&str, bool, bool); 12] = [
    ("silent", false, true),
    ("twice", true, true),
    ("early", true, true),
    ("torn", false, true),
    ("unknown", false, true),
    ("negative", false, true),
    ("garbage", false, true),
    ("huge", true, true),
    ("clear", false, false),
    ("steal", false, true),
    ("print", true, true),
    ("nonsense", false, false),
];

#[test]
fn a_broken_client_is_not_taken_for_a_local_one() {
    // With a UNIX socket as remote the connection is established at once, and data is delivered
    // even if its sender has reset.
    let files = Directory::new();
    let path = files.file("remote");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a listener");
    let port = free_port();
    let chain = "mavis module = bare { script in = {
        if (USER == \"local\") set RESULT = ACK else set RESULT = NAK
        return } }";
    let section = format!("remote = {{ address = {} }}\n", path.display());
    let relay = setup(port, chain, &section).start();
    // While the worker is stopped, the clients connect, send and reset.
    let worker = relay.workers()[0];
    kill(worker, Signal::SIGSTOP);
    for _ in 0..20 {
        let mut client = connect_from(1, port);
        client.write_all(b"forbidden").expect("to send");
        reset(client);
    }
    kill(worker, Signal::SIGCONT);
    relay.wait_for_log("the ends", |log| (log.matches("access: ").count() == 20).then_some(()));
    assert_eq!(relay.log().matches("remote none").count(), 20, "{}", relay.log());
    listener.set_nonblocking(true).expect("a listener");
    assert!(listener.accept().is_err(), "connected for nobody");
}

#[test]
fn local_clients_that_leave_data_do_not_keep_the_worker_busy() {
    let (files, peer) = (Directory::new(), Peer::echo());
    let path = files.file("listener");
    let text = format!(
        "id = spawnd {{\n listen = {{ path = {} }}\n \
         spawn {{ instances min = 1 instances max = 1 }}\n}}\nid = tcprelay {{\nmavis path = {}\n\
         mavis module = later {{ delay = 1500 }}\nauthorization = mavis\n{}}}\n",
        path.display(),
        modules().display(),
        peer.remote(),
    );
    let relay = Launch::new(text).start();
    let mut client = std::os::unix::net::UnixStream::connect(&path).expect("to connect");
    client.write_all(b"and gone").expect("to send");
    drop(client);
    let worker = relay.workers()[0];
    let (before, start) = (cpu_ticks(worker), Instant::now());
    // Spans the time that the module takes to answer.
    let client = std::os::unix::net::UnixStream::connect(&path).expect("to connect");
    let mut client = client;
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    client.write_all(b"ping").expect("to send");
    client.read_exact(&mut [0; 4]).expect("an echo");
    let ticks = u128::from(cpu_ticks(worker) - before) * 10;
    assert!(ticks < start.elapsed().as_millis() / 3, "the worker spins: {ticks} ms");
}

#[test]
fn modules_that_misbehave() {
    let cases: Vec<_> = MISBEHAVIOUR
        .iter()
        .flat_map(|&(mode, deny, permit)| [(mode, "deny", deny), (mode, "permit", permit)])
        .map(|(mode, policy, admitted)| {
            thread::spawn(move || {
                let (peer, port) = (Peer::echo(), free_port());
                let chain = format!(
                    "mavis module = misbehave {{ mode = {mode} user 127.0.0.9 }}
                     mavis module = bare {{ script in = {{
                         if (USER == \"127.0.0.1\") {{ set RESULT = ACK return }} }} }}"
                );
                let section =
                    format!("mavis timeout = 1\nmavis error = {policy}\n{}", peer.remote());
                let relay = setup(port, &chain, &section).start();
                for _ in 0..2 {
                    let served = is_served(9, port);
                    assert_eq!(served, admitted, "{mode}, {policy}:\n{}", relay.log());
                    // The worker still serves others.
                    assert!(is_served(1, port), "{mode}, {policy}:\n{}", relay.log());
                }
                assert_eq!(relay.log().matches(": startup (").count(), 2, "{mode}");
            })
        })
        .collect();
    for case in cases {
        case.join().expect("as expected");
    }
}

#[test]
fn a_module_that_ends_the_worker_costs_its_sessions_only() {
    for mode in ["crash", "abort", "exit"] {
        let (peer, port) = (Peer::echo(), free_port());
        let text = format!(
            "id = spawnd {{\n listen = {{ address = 127.0.0.1 port = {port} }}\n \
             spawn {{ instances min = 2 instances max = 2 users min = 1 users max = 50 }}\n}}\n\
             id = tcprelay {{\nmavis path = {}\nmavis module = misbehave {{ mode = {mode} user 127.0.0.9 }}\n\
             mavis module = bare {{ script in = {{ set RESULT = ACK return }} }}\n\
             authorization = mavis\n{}}}\n",
            modules().display(),
            peer.remote(),
        );
        let relay = Launch::new(text).ready(2).start();
        let mut streams: Vec<_> = (0..2).map(|_| connect_from(1, port)).collect();
        streams.iter_mut().for_each(|stream| ping(stream, b"before"));
        let mut sentenced = connect_from(9, port);
        let _ = sentenced.read(&mut [0]);
        let alive = streams
            .iter_mut()
            .filter_map(|stream| {
                let mut echo = [0; 5];
                stream.write_all(b"after").and_then(|()| stream.read_exact(&mut echo)).ok()
            })
            .count();
        assert_eq!(alive, 1, "{mode}: one worker had one of the sessions");
        relay.wait_for_log("another worker", |log| {
            (log.matches("is being used").count() > 3).then_some(())
        });
        for _ in 0..4 {
            assert!(is_served(1, port), "{mode}");
        }
    }
}

#[test]
fn a_single_process_asks_as_well() {
    let (peer, port) = (Peer::echo(), free_port());
    let chain = "mavis module = later { delay = 20 user 127.0.0.2 = NAK default = ACK }";
    let mut relay = setup(port, chain, &peer.remote()).argument("-1").start();
    assert!(is_served(1, port));
    assert!(!is_served(2, port));
    assert!(is_served(1, port));
    relay.signal(Signal::SIGHUP);
    relay.expect_log("SIGHUP: restarting");
    assert!(is_served(1, port));
    assert!(!is_served(2, port));
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.wait().code(), Some(0), "{}", relay.log());
}

/// The exit status of `-P` with this section, and its messages.
fn refused(section: &str) -> (i32, String) {
    let mut relay = Launch::simple(free_port(), section).ready(None).argument("-P").start();
    let status = relay.wait().code().expect("a status");
    (status, relay.log())
}

#[test]
fn mistakes_are_found_at_start() {
    let path = format!("mavis path = {}\n", modules().display());
    let remote = remote(9);
    let cases = [
        ("authorization = mavis\n", "no mavis module is configured"),
        ("mavis module = nosuch { }\n", "FATAL: module 'nosuch' not found."),
        ("mavis module = hollow { }\n", "FATAL: module 'hollow' not found."),
        ("mavis module = bare { bogus }\n", "Expected "),
        (
            "mavis module = bare { script in = { set NOSUCH = 1 } }\n",
            "'NOSUCH' is not a recognized",
        ),
        (
            "mavis module = bare { script in = { if (USER =~ /(/) skip } }\n",
            "In PCRE2 expression /(/",
        ),
        (
            "mavis module = bare { script in = { if (USER =~ \"(\") skip } }\n",
            "In regular expression",
        ),
        ("mavis module = misbehave { mode = bad-block }\n", "the module refuses"),
        ("mavis error = maybe\n", "Expected 'deny' or 'permit', but got 'maybe'"),
        ("mavis timeout = 0\n", "expected an integer from 1"),
        ("mavis nonsense = 1\n", "Expected 'error', 'module', 'path' or 'timeout'"),
        ("authorization = maybe\n", "Expected 'mavis' or 'none'"),
    ];
    for (text, expected) in cases {
        let (status, log) = refused(&format!("{path}{text}{remote}"));
        assert_eq!(status, 78, "{text}: {log}");
        assert!(log.contains(expected), "{text}: {log}");
        assert!(log.contains("relay.cfg:7: ") || !log.contains("Expected"), "{text}: {log}");
    }
    // A module that cannot be started is fatal: the others must not decide without it.
    let broken = "mavis module = echo { timeout = -1 default = ACK }\nauthorization = mavis\n";
    let section = format!("{path}{broken}{remote}");
    let mut relay = Launch::simple(free_port(), &section).ready(None).start();
    relay.wait();
    relay.expect_log("mavis: a module cannot be started. Exiting.");
    let good = "mavis module named = bare { action error = continue action not-found = reject }\n\
                authorization = none\n";
    let (status, log) = refused(&format!("{path}{good}{remote}"));
    assert_eq!(status, 0, "{log}");
    assert!(!log.contains("Expected"), "{log}");
}

#[test]
fn mavistest_asks_what_the_relay_asks() {
    let files = Directory::new();
    let config = files.write(
        "relay.cfg",
        format!(
            "id = tcprelay {{\nmavis path = {}\nmavis module = bare {{ script in = {{
                 if (TACTYPE == HOST && USER == \"192.0.2.1\") set RESULT = ACK\n return }} }}
             authorization = mavis\nmavis timeout = 3\nmavis error = deny\n{}}}\n",
            modules().display(),
            remote(9),
        ),
    );
    let ask = |user: &str| {
        let output = run(ours(env!("CARGO_BIN_EXE_mavistest"))
            .args(["-a", "TACTYPE", "-v", "HOST"])
            .arg(&config)
            .args(["tcprelay", "TACPLUS", user]));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(ask("192.0.2.1").contains("\nRESULT              ACK\n"));
    assert!(ask("192.0.2.2").contains("\nRESULT              NFD\n"));
    assert!(ask("").contains("Output "));
}

#[test]
fn a_module_may_forgive_a_mistake() {
    let files = Directory::new();
    let modules = modules().display();
    let check = |words: &str| {
        let text = format!(
            "id = tcprelay {{\nmavis path = {modules}\nmavis module = echo {{ {words} }}\n}}\n"
        );
        let config = files.write("relay.cfg", text);
        let mut command = ours(env!("CARGO_BIN_EXE_mavistest"));
        command.env("TCPRELAY_LOG_STDERR", "1").arg(&config).args(["tcprelay", "TACPLUS", "joe"]);
        let output = command.output().expect("mavistest is there");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let log = check("warning warning");
    assert_eq!(log.matches("relay.cfg:3: a mistake that is forgiven").count(), 2, "{log}");
    assert!(log.contains("Output "), "{log}");
    let log = check("warning bogus");
    assert!(log.contains("but got 'bogus'") && log.contains("Detected fatal"), "{log}");
    assert!(!log.contains("Output "), "{log}");
}

#[test]
fn mavistest_times_queries() {
    let files = Directory::new();
    let config = files.write(
        "timed.cfg",
        format!(
            "id = test {{\nmavis path = {}\nmavis module = bare {{ script in = {{
                 set RESULT = ACK return }} }} }}\n",
            modules().display()
        ),
    );
    let output = run(ours(env!("CARGO_BIN_EXE_mavistest"))
        .args(["-t", "-l", "100"])
        .arg(&config)
        .args(["test", "TACPLUS", "joe"]));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let seconds = said.strip_suffix(" seconds\n").map(str::parse::<u64>);
    assert!(matches!(seconds, Some(Ok(_))), "{said}");
}

#[test]
fn the_sample_script_decides_by_address() {
    let files = Directory::new();
    let list = files.write(
        "list",
        "# comment\npermit 192.0.2.0/25\npermit 2001:db8::/32 branch\ndeny 192.0.2.0/24\npermit local\n",
    );
    let cases = [
        ("192.0.2.5", "6 ACK\n=0\n"),
        ("192.0.2.200", "6 NAK\n17 line 4 of the list\n=0\n"),
        ("2001:db8::1", "6 ACK\n38 branch\n=0\n"),
        ("2001:db9::1", "6 NAK\n17 not in the list\n=0\n"),
        ("198.51.100.1", "6 NAK\n17 not in the list\n=0\n"),
        ("local", "6 ACK\n=0\n"),
    ];
    let mut child = Command::new("sh")
        .arg(common::modules::source("samples/mavis-hosts.sh"))
        .arg(&list)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut input = child.stdin.take().expect("a pipe");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut ask = |question: &str| {
        input.write_all(question.as_bytes()).expect("to ask");
        let mut answer = String::new();
        while !answer.lines().last().is_some_and(|line| line.starts_with('=')) {
            assert!(output.read_line(&mut answer).expect("an answer") > 0, "{answer}");
        }
        answer
    };
    for (user, expected) in cases {
        let question = format!("0 TACPLUS\n4 {user}\n21 serial\n49 HOST\n");
        assert_eq!(ask(&format!("{question}=\n")), format!("{question}{expected}"));
    }
    let other = "0 TACPLUS\n4 joe\n49 AUTH\n";
    assert_eq!(ask(&format!("{other}=\n")), format!("{other}=16\n"));
    drop(input);
    assert!(child.wait().expect("the script").success());
}
