//! Probes as servers see them: over TLS, to other places, how often, and what follows.

mod common;

use common::metrics::{figures, sum};
use common::pki::{ec_key, Identity};
use common::*;
use openssl::ssl::{SslAcceptor, SslMethod, SslStream};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::mpsc::{channel, Receiver};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A server with a certificate, which answers requests with 200 and anything else with PONG.
fn tls_server(directory: &Path, identity: &Identity) -> Peer {
    let (certificate, key) = identity.write(directory, "server");
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).expect("a server");
    builder.set_certificate_chain_file(certificate).expect("a certificate");
    builder.set_private_key_file(key, openssl::ssl::SslFiletype::PEM).expect("a key");
    let acceptor = builder.build();
    Peer::start(move |stream| {
        let Ok(mut stream) = acceptor.accept(stream) else {
            return;
        };
        let mut asked = [0; 1000];
        let count = stream.read(&mut asked).unwrap_or(0);
        let answer: &[u8] = match &asked[..count] {
            [] => return,
            [b'G', b'E', b'T', ..] => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            _ => b"+PONG\r\n",
        };
        let _ = stream.write_all(answer);
        let _ = SslStream::shutdown(&mut stream);
    })
}

#[test]
fn probes_speak_tls_if_the_remote_has_it() {
    let directory = Directory::new();
    let (authority, other) = (Identity::authority("one"), Identity::authority("other"));
    let [ca, other_ca] = [("one", &authority), ("other", &other)]
        .map(|(name, identity)| identity.write(directory.path(), name).0.display().to_string());
    let server = tls_server(directory.path(), &authority.sign(&["localhost"], ec_key()));
    let plain = Peer::echo();
    let checks = [
        "check = tls",
        "check http = /health",
        r#"check = send check send = "PING\r\n" check expect = "^\\+PONG""#,
    ];
    let remote = |port: u16, ca: &str, check: &str| {
        format!(
            "remote = {{ address = 127.0.0.1 port = {port} tls = yes tls server-name = localhost \
             tls ca-file = {ca} {check} check start = down check interval = 1 check rise = 1 }}\n"
        )
    };
    for check in checks {
        let remotes = remote(server.port, &ca, check);
        let relay = relay(&remotes).workers(2).start().0;
        relay.expect_log(&format!("remote [127.0.0.1]:{} is up: its probes succeed", server.port));
    }
    // Who is not trusted, or speaks no TLS, is down, and that is said.
    for (port, ca) in [(server.port, &other_ca), (plain.port, &ca)] {
        let remotes = remote(port, ca, "check = tls").replace("start = down", "fall = 1");
        let relay = relay(&remotes).workers(2).start().0;
        let down = format!("remote [127.0.0.1]:{port} is down: ");
        relay.wait_for_log(&down, |log| {
            let why = |line: &str| line.contains("TLS") || line.contains("certificate");
            log.lines().find(|line| line.contains(&down) && why(line)).map(drop)
        });
    }
}

/// A server that tells what it is asked, and answers 301.
fn listening_server() -> (Peer, Receiver<String>) {
    let (sender, asked) = channel();
    let sender = Mutex::new(sender);
    let peer = Peer::start(move |mut stream| {
        let mut request = [0; 1000];
        let count = stream.read(&mut request).unwrap_or(0);
        let text = String::from_utf8_lossy(&request[..count]).into_owned();
        let _ = stream.write_all(b"HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n");
        let _ = sender.lock().expect("the sender").send(text);
    });
    (peer, asked)
}

#[test]
fn probes_go_where_they_are_told_and_name_the_host() {
    let (admin, asked) = listening_server();
    let service = Peer::named("served");
    let remotes = format!(
        "remote = {{ address = 127.0.0.1 port = {} check http = /health check host = www.example.org \
         check address = 127.0.0.1 check port = {} check status = 301 check start = down \
         check interval = 1 check rise = 2 }}\n",
        service.port, admin.port
    );
    let port = free_port();
    let relay = relay(&remotes).port(port).workers(2).start().0;
    relay.expect_log(&format!("remote [127.0.0.1]:{} is up: its probes succeed", service.port));
    let request = asked.recv_timeout(PATIENCE).expect("a request");
    assert!(request.starts_with("GET /health HTTP/1.1\r\nHost: www.example.org\r\n"), "{request}");
    // Sessions go to the service.
    let mut answer = [0; 6];
    connect(port).read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"served");
    // A redirection is no success if only 200 is one.
    let strict = remotes.replace("check status = 301", "check status = 200");
    let relay = common::relay(strict.replace("start = down", "fall = 1")).workers(2).start().0;
    relay.expect_log(" is down: status 301");
}

/// Between two probes there is an hour, but for those that may change something.
#[test]
fn probes_come_faster_while_a_state_is_about_to_change() {
    let gone = free_port();
    let remotes = format!(
        "remote = {{ address = 127.0.0.1 port = {gone} check = tcp check interval = 3600 \
         check fast interval = 1 check fall = 3 }}\n"
    );
    let relay = relay(&remotes).workers(2).start().0;
    relay.expect_log(&format!("remote [127.0.0.1]:{gone} is down: "));
}

#[test]
fn a_remote_that_comes_up_starts_slowly() {
    let [old, new] = [Peer::named("old"), Peer::named("new")];
    let (port, status) = (free_port(), free_port());
    let remotes = format!(
        "balance = round-robin {} remote = {{ address = 127.0.0.1 port = {} check = tcp \
         check start = down check interval = 1 check rise = 1 slow start = 1000 }}\n",
        old.remote(),
        new.port
    );
    let relay = relay(&remotes)
        .port(port)
        .workers(2)
        .broker(&format!("status = {{ port = {status} }}"))
        .start()
        .0;
    relay.expect_log(&format!("remote [127.0.0.1]:{} is up: its probes succeed", new.port));
    for _ in 0..200 {
        let mut answer = [0; 3];
        connect(port).read_exact(&mut answer).expect("an answer");
    }
    let of = |peer: &Peer| {
        let name = format!("tcprelay_remote_sessions_total{{remote=\"[127.0.0.1]:{}\"", peer.port);
        let now = figures(status)?;
        Some(sum(&now, &name))
    };
    wait_for("all sessions", || (of(&old)? + of(&new)? == 200.0).then_some(()));
    let probes = format!("tcprelay_remote_probes_total{{remote=\"[127.0.0.1]:{}\"", new.port);
    let probes = |figures: &_, result: &str| sum(figures, &format!("{probes},result=\"{result}\""));
    let now = wait_for("the figures", || figures(status));
    assert!(probes(&now, "success") >= 1.0 && probes(&now, "failure") == 0.0);
    let new = wait_for("the figures", || of(&new));
    // Half of them in the end.
    assert!(new < 20.0, "{new} of 200");
}

/// The load does not matter here: a connection that only shows that somebody listens.
#[test]
fn probes_come_at_different_times() {
    let (sender, times) = channel();
    let sender = Mutex::new(sender);
    let peer = Peer::start(move |stream: TcpStream| {
        drop(stream);
        let _ = sender.lock().expect("the sender").send(Instant::now());
    });
    let remote = format!(
        "remote = {{ address = 127.0.0.1 port = {} check = tcp check interval = 2 }}\n",
        peer.port
    );
    let _relay = relay(&remote).workers(2).start().0;
    let times: Vec<Instant> =
        (0..4).map(|_| times.recv_timeout(PATIENCE).expect("a probe")).collect();
    for pair in times.windows(2) {
        let pause = pair[1] - pair[0];
        // 2 s, 10 % more or less, and what it takes here to notice. Two that probe come twice as
        // often.
        assert!(pause > Duration::from_millis(1300), "{pause:?}");
    }
}
