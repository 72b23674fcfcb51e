//! The status page: what it answers over HTTP, and to whom.

mod common;

use common::launch::monitor;
use common::layout::Layout;
use common::*;
use nix::sys::signal::Signal;
use openssl::base64;
use openssl::hash::{hash, MessageDigest};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Two workers with a status page.
fn with_status(page: &str, remote: &Peer) -> Layout {
    relay(remote.remote()).workers(2).broker(&format!("status = {{ {page} }}"))
}

/// Sends bytes, and returns all that is answered until the connection ends.
fn exchange(port: u16, request: &str) -> String {
    let mut stream = connect(port);
    // The other side may refuse the request before it has read all of it.
    let _ = stream.write_all(request.as_bytes());
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// A request that ends the connection; head and body of the answer.
fn get(port: u16, path: &str, fields: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n");
    let answer = exchange(port, &request);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    (head.to_owned(), body.to_owned())
}

/// The body of an answer to curl.
fn curl(arguments: &[&str]) -> String {
    let mut command = std::process::Command::new(program("curl"));
    text(&run(command.args(["-sS", "--max-time", "20"]).args(arguments)))
}

/// Waits until the page answers: the monitor starts after the workers.
fn wait_for_page(port: u16) {
    wait_for("the status page", || get(port, "/healthz", "").0.contains("200").then_some(()));
}

#[test]
fn page_metrics_and_json_are_served() {
    for single in [false, true] {
        let (remote, status) = (Peer::echo(), free_port());
        let (_relay, port) =
            with_status(&format!("port = {status}"), &remote).single(single).start();
        wait_for_page(status);
        ping(&mut connect(port), b"hello");
        let url = |path: &str| format!("http://127.0.0.1:{status}{path}");
        assert_eq!(curl(&[&url("/healthz")]), "ok\n");
        wait_for("a worker", || (curl(&[&url("/readyz")]) == "ok\n").then_some(()));
        let page = curl(&[&url("/")]);
        assert!(page.starts_with("<!DOCTYPE html>") && page.contains("The remote is up"), "{page}");
        let json = curl(&[&url("/status.json")]);
        assert!(json.starts_with('{') && json.contains("\"remotes\":["), "{json}");
        let (head, plain) = get(status, "/metrics", "");
        assert!(head.contains("Content-Type: text/plain; version=0.0.4"), "{head}");
        assert!(plain.contains("\ntcprelay_remote_up{") && !plain.contains("# EOF"), "{plain}");
        let accept = "Accept: application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1\r\n";
        let (head, open) = get(status, "/metrics", accept);
        assert!(head.contains("Content-Type: application/openmetrics-text"), "{head}");
        assert!(open.ends_with("# EOF\n"), "{open}");
        assert!(get(status, "/other", "").0.starts_with("HTTP/1.1 404 "));
    }
}

#[test]
fn only_looking_is_possible() {
    let status = free_port();
    let remote = Peer::echo();
    let (_relay, _) = with_status(&format!("address = 127.0.0.1 port = {status}"), &remote).start();
    wait_for_page(status);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT"] {
        let answer = exchange(status, &format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 405 "), "{method}: {answer}");
        assert!(answer.contains("Allow: GET, HEAD\r\n"), "{answer}");
    }
    let head = exchange(status, "HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let (fields, body) = head.split_once("\r\n\r\n").expect("a head");
    assert!(fields.starts_with("HTTP/1.1 200 ") && body.is_empty(), "{head}");
    let length = fields.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    assert!(length
        .and_then(|length| length.parse().ok())
        .is_some_and(|length: usize| length > 1000));
}

#[test]
fn requests_may_follow_each_other() {
    let status = free_port();
    let remote = Peer::echo();
    let (_relay, _) = with_status(&format!("port = {status}"), &remote).start();
    wait_for_page(status);
    let one = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let last = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = exchange(status, &(one.repeat(100) + last));
    assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count(), 101, "{answer}");
    assert_eq!(answer.matches("\r\n\r\nok\n").count(), 101);
    // Byte by byte, twice on one connection.
    let mut stream = connect(status);
    for _ in 0..2 {
        for byte in one.as_bytes() {
            stream.write_all(&[*byte]).expect("a byte");
        }
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 "));
    }
    // What comes after the last request is not answered, nor does it spoil the answer.
    let answer = exchange(status, &format!("{last}{one}{}", "x".repeat(100_000)));
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(answer.ends_with("ok\n"), "{answer}");
}

#[test]
fn nonsense_is_refused() {
    let status = free_port();
    let remote = Peer::echo();
    let (relay, _) = with_status(&format!("port = {status}"), &remote).start();
    wait_for_page(status);
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(200));
    let cases = [
        ("\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", "400"),
        ("nonsense\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", "400"),
        ("GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost : x\r\n\r\n", "400"),
        ("GET / HTTP/3.0\r\nHost: x\r\n\r\n", "505"),
        (&long, "431"),
        (&many, "431"),
    ];
    for (request, expected) in cases {
        let answer = exchange(status, request);
        let start = format!("HTTP/1.1 {expected} ");
        assert!(answer.starts_with(&start), "{request:.60?}: {answer:.200}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{request:.60?}: {answer}");
    }
    // Some are gone before they are answered.
    for _ in 0..50 {
        reset(connect(status));
        let mut stream = connect(status);
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("a request");
        reset(stream);
    }
    assert!(get(status, "/healthz", "").0.starts_with("HTTP/1.1 200 "));
    assert!(!relay.log().contains("panic"), "{}", relay.log());
}

#[test]
fn slow_clients_have_an_end_and_idle_ones_make_way() {
    let status = free_port();
    let remote = Peer::echo();
    let (_relay, _) = with_status(&format!("port = {status}"), &remote).start();
    wait_for_page(status);
    // More than there is room for: those with nothing to say make way.
    let idle: Vec<TcpStream> = (0..100).map(|_| connect(status)).collect();
    assert!(get(status, "/healthz", "").0.starts_with("HTTP/1.1 200 "));
    drop(idle);
    // All places are taken by those who have begun, and never end: the next one waits.
    let mut slow: Vec<TcpStream> = (0..32).map(|_| connect(status)).collect();
    for stream in &mut slow {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: ").expect("a beginning");
    }
    let mut answer = String::new();
    slow[0].read_to_string(&mut answer).expect("an answer in time");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    drop(slow);
    assert!(get(status, "/healthz", "").0.starts_with("HTTP/1.1 200 "));
    // One that does not read its answers is no trouble for others.
    let mut deaf = connect(status);
    deaf.set_nonblocking(true).expect("set");
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(40);
    for _ in 0..1000 {
        if deaf.write(&request).is_err() {
            break;
        }
    }
    assert!(get(status, "/healthz", "").0.starts_with("HTTP/1.1 200 "));
}

#[test]
fn an_address_in_use_is_an_error_at_its_place() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let status = taken.local_addr().expect("its address").port();
    let config = format!(
        "id = spawnd {{\n listen = {{ address = 127.0.0.1 port = {} }}\n \
         status = {{ port = {status} }}\n}}\nid = tcprelay {{ {} }}\n",
        free_port(),
        Peer::echo().remote()
    );
    let place = "relay.cfg:3: status: bind";
    Launch::new(config).finish().exits(75).says(place).says("Address already in use");
}

#[test]
fn what_makes_no_sense_is_refused_with_its_place() {
    for (status, text) in [
        ("", "'status' needs a port"),
        ("address = 127.0.0.1", "'status' needs a port"),
        ("path = /tmp/x port = 1", "has no ports"),
        ("port = 1 mode = 600", "are for a UNIX-domain socket"),
        ("address = 1.2.3.4.5/6 port = 1", "Expected an address"),
        ("colour = red", "Expected 'address', 'group', 'mode', 'owner', 'path' or 'port'"),
    ] {
        let config = format!(
            "id = spawnd {{\n listen = {{ port = 1 }}\n status = {{ {status} }}\n}}\n\
             id = tcprelay {{ remote = 127.0.0.1:1 }}\n"
        );
        let launch = Launch::new(config).argument("-P");
        let finished = launch.finish();
        assert_ne!(finished.status.code(), Some(0), "{status}");
        finished.says(text).says(":3:");
    }
}

#[test]
fn the_socket_outlives_monitors_and_reloads() {
    let status = free_port();
    let remote = Peer::echo();
    let (relay, port) = with_status(&format!("port = {status}"), &remote).start();
    wait_for_page(status);
    let first = wait_for("the monitor", || monitor(&relay));
    kill(first, Signal::SIGKILL);
    // Its clients wait in the backlog meanwhile: none is refused.
    for _ in 0..20 {
        assert!(get(status, "/healthz", "").0.starts_with("HTTP/1.1 200 "));
    }
    wait_for("another monitor", || monitor(&relay).filter(|&pid| pid != first));
    for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGHUP] {
        let before = monitor(&relay);
        relay.signal(signal);
        wait_for("another monitor", || monitor(&relay).filter(|pid| Some(*pid) != before));
        for _ in 0..5 {
            assert!(get(status, "/healthz", "").0.starts_with("HTTP/1.1 200 "));
        }
    }
    ping(&mut connect(port), b"hello");
    // Without the directive nobody answers.
    let text = std::fs::read_to_string(&relay.config).expect("the configuration");
    let text = text.replace(&format!("status = {{ port = {status} }}"), "");
    std::fs::write(&relay.config, text).expect("written");
    relay.signal(Signal::SIGHUP);
    wait_for("nobody", || TcpStream::connect(("127.0.0.1", status)).is_err().then_some(()));
}

#[test]
fn a_path_has_mode_and_owner() {
    let directory = Directory::new();
    let path = directory.file("status");
    let status = format!("path = {} mode = 640", path.display());
    let remote = Peer::echo();
    let (mut relay, _) = with_status(&status, &remote).start();
    let mode = std::fs::metadata(&path).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let mut stream = UnixStream::connect(&path).expect("the socket");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"), "{answer}");
    relay.signal(Signal::SIGTERM);
    relay.wait();
    assert!(!path.exists());
}

/// A browser runs the script and applies the style only if their hashes are right.
#[test]
fn the_page_permits_its_own_style_and_script_only() {
    let status = free_port();
    let remote = Peer::echo();
    let (_relay, _) = with_status(&format!("port = {status}"), &remote).start();
    wait_for_page(status);
    let (head, page) = get(status, "/", "");
    let policy = head.lines().find(|line| line.starts_with("Content-Security-Policy: "));
    let policy = policy.expect("a policy");
    for (element, directive) in [("style", "style-src"), ("script", "script-src")] {
        let (_, rest) = page.split_once(&format!("<{element}>")).expect("an element");
        let (inside, _) = rest.split_once(&format!("</{element}>")).expect("its end");
        let digest = hash(MessageDigest::sha256(), inside.as_bytes()).expect("a digest");
        let expected = format!("{directive} 'sha256-{}'", base64::encode_block(&digest));
        assert!(policy.contains(&expected), "{expected} is not in {policy}");
    }
    for outside in ["http://", "https://", "src=\"", "@import"] {
        let used = page.replace("http://www.w3.org/2000/svg", "").contains(outside);
        assert!(!used, "the page uses something else: {outside}");
    }
}
