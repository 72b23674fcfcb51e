//! TLS from a user's point of view: real clients, certificates that are replaced, sessions that are
//! resumed.

mod common;

use common::memory::memory_contains;
use common::pki::{self, Identity};
use common::*;
use nix::sys::signal::Signal;
use openssl::ssl::{
    ShutdownState, SslConnector, SslConnectorBuilder, SslMethod, SslSession, SslSessionCacheMode,
    SslStream, SslVerifyMode, SslVersion,
};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::X509;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A client that trusts this certificate or authority.
fn connector(trusted: &X509) -> SslConnectorBuilder {
    let mut store = X509StoreBuilder::new().expect("a store");
    store.add_cert(trusted.clone()).expect("a certificate");
    let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("a client");
    builder.set_cert_store(store.build());
    builder
}

fn handshake(client: &SslConnector, port: u16) -> io::Result<SslStream<TcpStream>> {
    let address = ([127, 0, 0, 1], port).into();
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    client.connect("localhost", stream).map_err(|error| io::Error::other(error.to_string()))
}

fn exchange(stream: &mut SslStream<TcpStream>, word: &[u8]) {
    stream.write_all(word).expect("to send");
    let mut answer = vec![0; word.len()];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer, word);
}

/// A relay with a TLS listener; `section` is added to the directives for its certificate.
struct Service {
    relay: Relay,
    port: u16,
    identity: Identity,
    files: Directory,
}

impl Service {
    fn start(listener: &str, spawn: &str, section: &str) -> Service {
        let identity = Identity::own(&["localhost", "127.0.0.1"]);
        let files = Directory::new();
        let directives = identity.directives(files.path(), "own");
        let workers = if spawn.contains("instances min = 2") { 2 } else { 1 };
        let section = format!("{section}\n{directives}access log = yes");
        let (relay, port) = relay(section).workers(workers).listen(listener).spawn(spawn).start();
        Service { relay, port, identity, files }
    }

    fn simple(section: &str) -> Service {
        Service::start("tls = yes", "instances min = 1 instances max = 1 users max = 5000", section)
    }

    fn client(&self) -> SslConnector {
        connector(&self.identity.certificate).build()
    }

    fn reload(&self) {
        let before = self.relay.log().matches("SIGHUP: restarting").count();
        self.relay.signal(Signal::SIGHUP);
        self.relay.wait_for_log("the restart", |log| {
            (log.matches("SIGHUP: restarting").count() > before).then_some(())
        });
    }
}

/// Sends and receives 16 MiB at the same time, and compares. In one thread: Python before 3.14 lets
/// two threads into one OpenSSL session at a time, which corrupts it (with any relay).
const BOTH_WAYS: &str = r#"
import hashlib, os, select, socket, ssl, sys
port, ca, version = int(sys.argv[1]), sys.argv[2], sys.argv[3]
context = ssl.create_default_context(cafile=ca)
context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
stream = context.wrap_socket(socket.create_connection(("127.0.0.1", port), 20),
                             server_hostname="localhost")
stream.setblocking(False)
data = memoryview(os.urandom(1 << 20) * 16)
got, left, sent = hashlib.sha256(), len(data), 0
while left:
    try:
        while sent < len(data):
            sent += stream.send(data[sent:sent + 65536])
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        pass
    try:
        while left:
            part = stream.recv(65536)
            assert part, "ended early"
            got.update(part)
            left -= len(part)
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        pass
    wanted = [stream] if sent < len(data) else []
    assert not left or any(select.select([stream], wanted, [], 20)), "nothing in 20 s"
assert got.digest() == hashlib.sha256(data).digest(), "changed on the way"
stream.settimeout(20)
stream.unwrap()
print(stream.version() or version)
"#;

#[test]
fn python_curl_and_s_client_are_served() {
    let peer = Peer::echo();
    let service = Service::simple(&peer.remote());
    let ca = service.files.file("own.pem");
    let port = service.port.to_string();
    for version in ["TLSv1_2", "TLSv1_3"] {
        let script = service.files.write("both_ways.py", BOTH_WAYS);
        run(Command::new(program("python3")).arg(script).arg(&port).arg(&ca).arg(version));
    }
    // A server that answers and closes, for clients that read to end of file.
    let data = pattern(3, 3_000_000);
    let answer = data.clone();
    let server = Peer::start(move |mut stream| {
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).expect("a request");
        let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len());
        stream.write_all(head.as_bytes()).expect("to answer");
        stream.write_all(&answer).expect("to answer");
    });
    let service = Service::simple(&server.remote());
    let ca = service.files.file("own.pem");
    for version in ["--tlsv1.3", "--tls-max=1.2"] {
        let url = format!("https://localhost:{}/", service.port);
        let (option, value) = version.split_once('=').unwrap_or((version, ""));
        let mut curl = Command::new(program("curl"));
        curl.args(["-sS", "--http1.0", "--max-time", "30", "--cacert"]).arg(&ca).arg(option);
        if !value.is_empty() {
            curl.arg(value);
        }
        assert!(run(curl.arg(url)).stdout == data, "{version}");
    }
    for version in ["-tls1_2", "-tls1_3"] {
        let mut client = Command::new(program("openssl"))
            .args(["s_client", "-quiet", "-verify_return_error", version, "-CAfile"])
            .arg(&ca)
            .args(["-connect", &format!("127.0.0.1:{}", service.port)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl");
        // Keeps the client's input open until the server has ended the session.
        let mut input = client.stdin.take().expect("a pipe");
        input.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("to send");
        let output = client.wait_with_output().expect("openssl");
        assert!(output.stdout.ends_with(&data), "{version}: {} bytes", output.stdout.len());
        drop(input);
    }
}

#[test]
fn five_hundred_clients_at_once_by_wrk_beside_a_plain_listener() {
    let server = Peer::start(|mut stream| {
        let mut buffer = [0; 4096];
        let mut seen = Vec::new();
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            seen.extend_from_slice(&buffer[..count]);
            while let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
                seen.drain(..end + 4);
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
                if stream.write_all(answer).is_err() {
                    return;
                }
            }
        }
    });
    let plain = free_port();
    let listener = format!("tls = yes }}\n listen = {{ address = 127.0.0.1 port = {plain}");
    let spawn = "instances min = 2 instances max = 2 users max = 5000";
    let service = Service::start(&listener, spawn, &server.remote());
    for url in
        [format!("https://127.0.0.1:{}/", service.port), format!("http://127.0.0.1:{plain}/")]
    {
        let output = run(Command::new(program("wrk")).args([
            "-t2",
            "-c500",
            "-d3s",
            "--timeout",
            "15s",
            &url,
        ]));
        let report = text(&output);
        assert!(!report.contains("Socket errors"), "{report}");
        assert!(!report.contains("Non-2xx"), "{report}");
    }
}

#[test]
fn sslyze_finds_nothing_and_mozilla_would_be_content() {
    let sslyze = std::env::var_os("SSLYZE").map_or_else(|| program("sslyze"), Into::into);
    let authority = Identity::authority("authority of the tests");
    let identity = authority.sign(&["localhost"], pki::ec_key());
    let files = Directory::new();
    let ca = files.write("ca.pem", authority.certificate.to_pem().expect("PEM"));
    let port = free_port();
    let peer = Peer::echo();
    let text_of_relay = format!(
        "id = spawnd {{ listen = {{ address = 127.0.0.1 port = {port} tls = yes }} \
         spawn {{ instances min = 1 instances max = 1 }} }}\n\
         id = tcprelay {{ {} {} }}\n",
        peer.remote(),
        identity.directives(files.path(), "own")
    );
    let _relay = Launch::new(text_of_relay).start();
    let output = Command::new(sslyze)
        .arg("--mozilla_config=intermediate")
        .arg("--certinfo_ca_file")
        .arg(&ca)
        .arg(format!("localhost:{port}{{127.0.0.1}}"))
        .output()
        .expect("sslyze");
    let report = text(&output);
    assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
    for finding in [
        "OK - Compliant",
        "OK - Not vulnerable to OpenSSL CCS injection",
        "OK - Not vulnerable to Heartbleed",
        "OK - Not vulnerable, RSA cipher suites not supported",
        "Client Renegotiation DoS Attack:   OK - Not vulnerable",
        "OK - Compression disabled",
        "TLS_FALLBACK_SCSV:                 OK - Supported",
    ] {
        assert!(report.contains(finding), "{finding} is missing:\n{report}");
    }
    for protocol in ["SSL 2.0", "SSL 3.0", "TLS 1.0", "TLS 1.1"] {
        let part = report.split(&format!("* {protocol} Cipher Suites:")).nth(1).expect("a part");
        let part = part.split("\n *").next().unwrap_or("");
        assert!(part.contains("the server rejected all cipher suites"), "{protocol}: {part}");
    }
}

/// A client that stores its sessions, in encoded form: otherwise OpenSSL would not resume the
/// sessions that follow a resumed one.
fn remembering(trusted: &X509, version: SslVersion) -> (SslConnector, Arc<Mutex<Vec<Vec<u8>>>>) {
    let mut builder = connector(trusted);
    builder.set_min_proto_version(Some(version)).expect("a version");
    builder.set_max_proto_version(Some(version)).expect("a version");
    builder.set_session_cache_mode(SslSessionCacheMode::CLIENT);
    let sessions = Arc::new(Mutex::new(Vec::new()));
    let store = sessions.clone();
    builder.set_new_session_callback(move |_, session| {
        store.lock().unwrap().push(session.to_der().expect("DER"));
    });
    (builder.build(), sessions)
}

/// Connects with the latest session; true if it was resumed.
fn resume(client: &SslConnector, sessions: &Mutex<Vec<Vec<u8>>>, port: u16) -> bool {
    let session = sessions.lock().unwrap().last().expect("a ticket").clone();
    let session = SslSession::from_der(&session).expect("a session");
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut ssl = client.configure().expect("a client").into_ssl("localhost").expect("a client");
    // SAFETY: the session is of the same context.
    unsafe { ssl.set_session(&session) }.expect("a session");
    let mut stream = ssl.connect(stream).expect("a handshake");
    exchange(&mut stream, b"again");
    stream.shutdown().expect("to say that nothing follows");
    stream.ssl().session_reused()
}

#[test]
fn sessions_are_resumed_by_every_worker_and_after_a_reload() {
    let peer = Peer::echo();
    let spawn = "instances min = 2 instances max = 2 users min = 1 users max = 1000";
    let service = Service::start("tls = yes", spawn, &peer.remote());
    let worker = |line: &str| line.split(['[', ']']).nth(1).map(str::to_owned);
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let (client, sessions) = remembering(&service.identity.certificate, version);
        let mut first = handshake(&client, service.port).expect("a handshake");
        exchange(&mut first, b"first");
        // Without a shutdown OpenSSL treats the session as failed, and does not resume it.
        first.shutdown().expect("to say that nothing follows");
        let name = if version == SslVersion::TLS1_2 { "TLSv1.2" } else { "TLSv1.3" };
        let resumed = || -> BTreeSet<String> {
            let log = service.relay.log();
            let these = |line: &&str| line.contains(name) && line.contains(" resumed");
            log.lines().filter(these).filter_map(worker).collect()
        };
        // Each round keeps one more connection open, so that both workers get some.
        let mut held = Vec::new();
        wait_for("both workers", || {
            assert!(resume(&client, &sessions, service.port));
            held.push(connect(service.port));
            (resumed().len() >= 2).then_some(())
        });
        drop(held);
        let old = service.relay.workers();
        service.reload();
        wait_for("new workers", || {
            let now = service.relay.workers();
            (now.len() == 2 && now.iter().all(|pid| !old.contains(pid))).then_some(())
        });
        assert!(resume(&client, &sessions, service.port), "after a reload");
        assert!(!service.relay.log().contains("without close_notify"));
    }
}

#[test]
fn certificates_are_replaced_under_load_without_a_failure() {
    let peer = Peer::echo();
    let authority = Identity::authority("authority of the tests");
    let files = Directory::new();
    let first = authority.sign(&["localhost"], pki::ec_key());
    let directives = first.directives(files.path(), "own");
    let port = free_port();
    let config = format!(
        "id = spawnd {{ listen = {{ address = 127.0.0.1 port = {port} tls = yes backlog = 4096 }} \
         spawn {{ instances min = 2 users max = 4000 }} }}\n\
         id = tcprelay {{ {}\n{directives} }}\n",
        peer.remote(),
    );
    let relay = Launch::new(config).ready(2).start();
    let client = Arc::new(connector(&authority.certificate).build());
    let mut lasting = handshake(&client, port).expect("a handshake");
    exchange(&mut lasting, b"hello");

    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let failures = Arc::new(Mutex::new(Vec::new()));
    let start = Instant::now();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (client, stop, done) = (client.clone(), stop.clone(), done.clone());
            let failures = failures.clone();
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let result = handshake(&client, port).and_then(|mut stream| {
                        stream.write_all(b"ping")?;
                        let mut answer = [0; 4];
                        stream.read_exact(&mut answer)
                    });
                    match result {
                        Ok(()) => drop(done.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => failures.lock().unwrap().push(error.to_string()),
                    }
                }
            })
        })
        .collect();
    let mut expected = Vec::new();
    for reload in 1..=5 {
        let next = authority.sign(&["localhost"], pki::ec_key());
        expected = next.certificate.to_der().expect("DER");
        next.write(files.path(), "own");
        relay.signal(Signal::SIGHUP);
        relay.wait_for_log("the restart", |log| {
            (log.matches("SIGHUP: restarting").count() >= reload).then_some(())
        });
        let before = done.load(Ordering::Relaxed);
        wait_for("handshakes", || (done.load(Ordering::Relaxed) >= before + 60).then_some(()));
    }
    wait_for("the new certificate", || {
        let stream = handshake(&client, port).expect("a handshake");
        let shown = stream.ssl().peer_certificate()?.to_der().ok()?;
        (shown == expected).then_some(())
    });
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("a client");
    }
    let rate = done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
    eprintln!("{rate:.0} handshakes a second");
    let failures = failures.lock().unwrap();
    assert!(failures.is_empty(), "{} failures, as {}", failures.len(), failures[0]);
    exchange(&mut lasting, b"still there");
}

#[test]
fn a_broken_new_file_keeps_the_old_one_in_service() {
    let peer = Peer::echo();
    let service = Service::simple(&peer.remote());
    let client = service.client();
    let mut lasting = handshake(&client, service.port).expect("a handshake");
    let key = service.files.file("own.key");
    let good = fs::read(&key).expect("the key");
    fs::write(&key, pki::ec_key().private_key_to_pem_pkcs8().expect("PEM")).expect("to write");
    service.relay.signal(Signal::SIGHUP);
    service.relay.expect_log("SIGHUP: the configuration is refused, the running one stays");
    let log = service.relay.log();
    let line = log.lines().find(|line| line.contains("SIGHUP: SSL_CTX_use_PrivateKey_file"));
    assert!(
        line.is_some_and(|line| line.contains("own.key") && line.contains("mismatch")),
        "{log}"
    );
    // Neither new sessions nor new workers need the files any more.
    exchange(&mut lasting, b"old");
    exchange(&mut handshake(&client, service.port).expect("a handshake"), b"new");
    let worker = service.relay.workers()[0];
    kill(worker, Signal::SIGKILL);
    wait_for("another worker", || {
        let mut stream = handshake(&client, service.port).ok()?;
        stream.write_all(b"x").ok()?;
        stream.read_exact(&mut [0]).ok()
    });
    fs::write(&key, good).expect("to write");
    service.reload();
    wait_for("the next image", || handshake(&client, service.port).ok());
}

#[test]
fn keys_of_root_serve_workers_of_nobody_and_do_not_show() {
    if !is_root() {
        return left_out("only root can start workers as somebody else");
    }
    let peer = Peer::echo();
    let spawn = "instances min = 1 instances max = 1 users max = 100 userid = nobody";
    let files = Directory::new();
    fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let identity = Identity::own(&["localhost"]);
    let directives = identity.directives(files.path(), "own");
    let key = files.file("own.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("chmod");
    let port = free_port();
    let text = format!(
        "id = spawnd {{ listen = {{ address = 127.0.0.1 port = {port} tls = yes }} \
         spawn {{ {spawn} }} }}\nid = tcprelay {{ {}\n{directives} }}\n",
        peer.remote()
    );
    let relay = Launch::new(text).start();
    fs::set_permissions(relay.directory.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let client = connector(&identity.certificate).build();
    exchange(&mut handshake(&client, port).expect("a handshake"), b"hello");
    let secret = identity.key.ec_key().expect("an EC key").private_key().to_vec();
    let mut little_endian = secret.clone();
    little_endian.reverse();
    let pem = fs::read_to_string(&key).expect("the key");
    let line = pem.lines().nth(1).expect("a line of base64");
    for pid in [relay.pid(), relay.workers()[0]] {
        assert!(memory_contains(pid, b"127.0.0.1"), "the search finds what is there");
        assert!(!memory_contains(pid, line.as_bytes()), "the file, in {}", title(pid));
        assert!(!memory_contains(pid, &secret), "the key, in {}", title(pid));
        assert!(!memory_contains(pid, &little_endian), "the key as a number, in {}", title(pid));
        let environment = fs::read(format!("/proc/{pid}/environ")).expect("environ");
        assert!(memchr::memmem::find(&environment, b"PRIVATE").is_none());
    }
}

#[test]
fn slow_handshakes_end_and_hold_up_nobody() {
    let peer = Peer::echo();
    let service = Service::simple(&format!("{}tls handshake timeout = 1\n", peer.remote()));
    let worker = service.relay.workers()[0];
    let before = descriptors(worker);
    let start = Instant::now();
    let silent: Vec<TcpStream> = (0..50).map(|_| connect(service.port)).collect();
    let mut half: Vec<TcpStream> = (0..50).map(|_| connect(service.port)).collect();
    for stream in &mut half {
        stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1]).expect("half a record");
    }
    let client = service.client();
    exchange(&mut handshake(&client, service.port).expect("a handshake"), b"quick");
    for mut stream in silent.into_iter().chain(half) {
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    wait_for("their descriptors", || (descriptors(worker) <= before).then_some(()));
    service.relay.expect_log("handshake timeout");
}

#[test]
fn an_automatic_listener_takes_both() {
    let peer = Peer::echo();
    let spawn = "instances min = 1 instances max = 1 users max = 100";
    let service = Service::start("tls = auto", spawn, &peer.remote());
    let client = service.client();
    exchange(&mut handshake(&client, service.port).expect("a handshake"), b"with TLS");
    ping(&mut connect(service.port), b"plain");
    // Bytes that look like TLS at first are passed on like any others.
    let mut stream = connect(service.port);
    for word in [&b"\x16"[..], b"\x03\x01", b"\xff\xff plain after all"] {
        stream.write_all(word).expect("to send");
        pace(Duration::from_millis(20));
    }
    stream.shutdown(Shutdown::Write).expect("to shut down");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the echo");
    assert_eq!(answer, b"\x16\x03\x01\xff\xff plain after all");
    let data = pattern(9, 1 << 20);
    let mut stream = connect(service.port);
    let copy = stream.try_clone().expect("a copy");
    let sent = data.clone();
    let sender = thread::spawn(move || {
        let mut copy = copy;
        copy.write_all(&sent).expect("to send");
        copy.shutdown(Shutdown::Write).expect("to shut down");
    });
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the echo");
    sender.join().expect("the sender");
    assert!(answer == data);
}

#[test]
fn client_certificates_are_asked_for_and_logged() {
    let peer = Peer::echo();
    let authority = Identity::authority("authority of clients");
    let files = Directory::new();
    let ca = files.write("ca.pem", authority.certificate.to_pem().expect("PEM"));
    let service = Service::simple(&format!("{}tls ca-file = {}\n", peer.remote(), ca.display()));
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let mut with = connector(&service.identity.certificate);
        with.set_max_proto_version(Some(version)).expect("a version");
        let own = authority.sign(&["client.example"], pki::ec_key());
        with.set_certificate(&own.certificate).expect("a certificate");
        with.set_private_key(&own.key).expect("a key");
        exchange(&mut handshake(&with.build(), service.port).expect("a handshake"), b"known");
        service.relay.expect_log("subject \"CN=client.example,O=tcprelay tests\"");
        service.relay.expect_log("issuer \"CN=authority of clients,O=tcprelay tests\"");

        let stranger = Identity::own(&["client.example"]);
        for own in [Some(&stranger), None] {
            let mut without = connector(&service.identity.certificate);
            without.set_max_proto_version(Some(version)).expect("a version");
            if let Some(own) = own {
                without.set_certificate(&own.certificate).expect("a certificate");
                without.set_private_key(&own.key).expect("a key");
            }
            // With TLS 1.3 a client learns of the refusal when it first reads.
            let refused = match handshake(&without.build(), service.port) {
                Err(_) => true,
                Ok(mut stream) => {
                    let _ = stream.write_all(b"hello");
                    !matches!(stream.read(&mut [0; 5]), Ok(1..))
                }
            };
            assert!(refused);
        }
    }
    service.relay.expect_log("peer did not return a certificate");
    service.relay.expect_log("certificate verify failed");
}

#[test]
fn the_certificate_is_chosen_by_name() {
    let peer = Peer::echo();
    let files = Directory::new();
    let authority = Identity::authority("authority of the tests");
    let other = authority.sign(&["*.example.org", "example.net"], pki::rsa_key());
    let section = format!("{}tls alpn = h2,http/1.1\n", peer.remote());
    let more = other.directives(files.path(), "other");
    // The service's own certificate is configured after this one, so it is the second.
    let service = Service::simple(&format!("{section}{more}"));
    let shown = |name: &str| {
        let mut builder = connector(&authority.certificate);
        builder.set_verify(SslVerifyMode::NONE);
        builder.set_alpn_protos(b"\x08http/1.1").expect("a protocol");
        let stream = connect(service.port);
        let client = builder.build().configure().expect("a client").verify_hostname(false);
        let stream = client.connect(name, stream).expect("a handshake");
        assert_eq!(stream.ssl().selected_alpn_protocol(), Some(&b"http/1.1"[..]));
        stream.ssl().peer_certificate().expect("a certificate").to_der().expect("DER")
    };
    let (own, other) = (
        service.identity.certificate.to_der().expect("DER"),
        other.certificate.to_der().expect("DER"),
    );
    assert!(shown("localhost") == own);
    for name in ["www.example.org", "EXAMPLE.net", "a.b.example.org", "unknown.example"] {
        assert!(shown(name) == other, "{name}");
    }
    service.relay.expect_log("sni \"www.example.org\" alpn \"http/1.1\"");
}

#[test]
fn a_remote_that_cannot_be_trusted_is_a_failed_remote() {
    let live = Peer::named("live");
    let trusted = Service::simple(&live.remote());
    let stranger = Service::simple(&live.remote());
    let plain = Peer::named("none");
    let ca = trusted.files.file("own.pem");
    let remote = |port: u16| {
        format!(
            "remote = {{ address = 127.0.0.1 port = {port} tls = yes tls ca-file = {} }}\n",
            ca.display()
        )
    };
    let section =
        format!("{}{}{}", remote(stranger.port), remote(plain.port), remote(trusted.port));
    let port = free_port();
    let relay = Launch::simple(port, &section).start();
    for _ in 0..3 {
        let mut client = connect(port);
        let mut name = [0; 4];
        client.read_exact(&mut name).expect("the name");
        assert_eq!(&name, b"live");
        ping(&mut client, b"and on");
    }
    relay.expect_log(&format!(
        "connect to [127.0.0.1]:{} (TCP) failed: TLS: error:0A000086:SSL routines::certificate \
         verify failed (self-signed certificate)",
        stranger.port
    ));
    relay.expect_log(&format!("connect to [127.0.0.1]:{} (TCP) failed: TLS: ", plain.port));
    // Every session after the first has resumed it.
    trusted.relay.wait_for_log("two resumed sessions", |log| {
        (log.matches(" resumed").count() >= 2).then_some(())
    });
}

#[test]
fn a_remote_that_does_not_shake_hands_is_given_up() {
    let live = Peer::named("live");
    let (silent, _arrived) = Peer::manual();
    let section = format!(
        "remote = {{ address = 127.0.0.1 port = {} tls = yes tls verify = no }}\n{}\
         tls handshake timeout = 1\n",
        silent.port,
        live.remote()
    );
    let port = free_port();
    let relay = Launch::simple(port, &section).start();
    let mut name = [0; 4];
    connect(port).read_exact(&mut name).expect("the name");
    assert_eq!(&name, b"live");
    relay.expect_log("failed: TLS: handshake timeout");
}

#[test]
fn idle_sessions_with_tls_are_cheap() {
    let (peer, arrived) = Peer::manual();
    let service = Service::simple(&peer.remote());
    let worker = service.relay.workers()[0];
    let client = service.client();
    let open = |count: usize| -> Vec<(SslStream<TcpStream>, TcpStream)> {
        (0..count)
            .map(|_| (handshake(&client, service.port).expect("a handshake"), next(&arrived)))
            .collect()
    };
    let warm = open(50);
    let before = private_memory(worker);
    let count = 400;
    let sessions = open(count);
    let each = (private_memory(worker).saturating_sub(before)) / count as u64;
    eprintln!("{each} bytes of private memory a session");
    assert!(each < 6000, "{each} bytes a session");
    drop((warm, sessions));
}

#[test]
fn a_session_is_not_resumed_under_other_rules_for_clients() {
    let peer = Peer::echo();
    let authority = Identity::authority("authority of clients");
    let files = Directory::new();
    let ca = files.write("ca.pem", authority.certificate.to_pem().expect("PEM"));
    let service = Service::simple(&peer.remote());
    let text = fs::read_to_string(&service.relay.config).expect("the configuration");
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        fs::write(&service.relay.config, &text).expect("to write");
        service.reload();
        let (client, sessions) = remembering(&service.identity.certificate, version);
        let mut first = handshake(&client, service.port).expect("a handshake");
        exchange(&mut first, b"first");
        first.shutdown().expect("to say that nothing follows");
        assert!(resume(&client, &sessions, service.port));
        // From now on clients need a certificate; this client has never shown one.
        let old = service.relay.workers();
        let stricter =
            text.replace("access log", &format!("tls ca-file = {}\naccess log", ca.display()));
        fs::write(&service.relay.config, stricter).expect("to write");
        service.reload();
        wait_for("new workers", || {
            let now = service.relay.workers();
            (!now.is_empty() && now.iter().all(|pid| !old.contains(pid))).then_some(())
        });
        let session = sessions.lock().unwrap().last().expect("a ticket").clone();
        let session = SslSession::from_der(&session).expect("a session");
        let mut ssl =
            client.configure().expect("a client").into_ssl("localhost").expect("a client");
        // SAFETY: the session is of the same context.
        unsafe { ssl.set_session(&session) }.expect("a session");
        let served = ssl.connect(connect(service.port)).is_ok_and(|mut stream| {
            let _ = stream.write_all(b"hello");
            matches!(stream.read(&mut [0; 5]), Ok(1..))
        });
        assert!(!served, "served without a certificate");
    }
}

#[test]
fn nothing_of_a_handshake_waits_for_a_timer_of_the_system() {
    let peer = Peer::echo();
    let service = Service::simple(&peer.remote());
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let mut builder = connector(&service.identity.certificate);
        builder.set_max_proto_version(Some(version)).expect("a version");
        let client = builder.build();
        let start = Instant::now();
        for _ in 0..40 {
            exchange(&mut handshake(&client, service.port).expect("a handshake"), b"word");
        }
        // If the last flight of each handshake were delayed by 200 ms, it would take eight seconds.
        assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    }
}

/// Passes connections on to `remote`, and changes one byte of the answer after `good` bytes.
fn tampering(remote: u16, good: usize) -> Peer {
    Peer::start(move |mut client| {
        let mut server = TcpStream::connect(("127.0.0.1", remote)).expect("the remote");
        let (mut from, mut to) =
            (client.try_clone().expect("a copy"), server.try_clone().expect("a copy"));
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
        });
        let (mut buffer, mut passed) = (vec![0; 16384], 0);
        while let Ok(count @ 1..) = server.read(&mut buffer) {
            if passed < good && passed + count >= good {
                buffer[count - 1] ^= 1;
            }
            passed += count;
            if client.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    })
}

#[test]
fn an_end_that_was_forged_is_not_passed_on_as_a_proper_one() {
    let answer = Peer::start(|mut stream| {
        let _ = stream.read(&mut [0; 100]);
        let _ = stream.write_all(&pattern(4, 200_000));
    });
    let behind = Service::simple(&answer.remote());
    let middle = tampering(behind.port, 100_000);
    let front = Service::simple(&format!(
        "remote = {{ address = 127.0.0.1 port = {} tls = yes tls ca-file = {} }}\n",
        middle.port,
        behind.files.file("own.pem").display()
    ));
    let mut stream = handshake(&front.client(), front.port).expect("a handshake");
    stream.write_all(b"please").expect("to send");
    let mut got = Vec::new();
    let _ = stream.read_to_end(&mut got);
    let told = stream.get_shutdown().contains(ShutdownState::RECEIVED);
    assert!(!told, "a proper end after {} bytes", got.len());
    assert!(got.len() < 200_000 && got == pattern(4, 200_000)[..got.len()]);
    front.relay.expect_log("TLS remote");
}

#[test]
fn mistakes_are_found_by_the_check() {
    let files = Directory::new();
    let identity = Identity::own(&["localhost"]);
    let own = identity.directives(files.path(), "own");
    let fifo = files.file("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).expect("a FIFO");
    let pem = files.file("own.pem");
    let remote = |tls: &str| format!("{own}remote = {{ address = 127.0.0.1 port = 9 {tls} }}");
    let cases = [
        (remote("tls verify = yes"), "remote: 'tls = yes' is missing"),
        (remote("tls = yes tls server-name = \"\""), "is no name of a host"),
        (
            remote(&format!("tls = yes tls key-file = {}", pem.display())),
            "tls key-file without tls cert-file",
        ),
        (
            remote("tls = yes tls ca-file = /nonexistent"),
            "/nonexistent: error:80000002:system library::No such file",
        ),
        (format!("tls cert-file = {} {}", fifo.display(), remote("")), "fifo: error"),
        (format!("{} tls ciphers = RUBBISH", remote("")), "tls ciphers = RUBBISH: error"),
        (
            format!("{} tls crl-file = {}", remote(""), pem.display()),
            "tls crl-file needs tls ca-file",
        ),
        (format!("{} tls verify = required", remote("")), "tls verify needs tls ca-file"),
        (remote("").replace(&own, ""), "TLS listener without tls cert-file"),
    ];
    for (section, expected) in cases {
        let text = format!(
            "id = spawnd {{ listen = {{ port = 1 tls = yes }} }}\nid = tcprelay {{ {section} }}\n"
        );
        let config = files.write("relay.cfg", text);
        let output = ours(TCPRELAY).arg("-P").arg(config).output().expect("tcprelay");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains(expected), "{section}: {told}");
        assert!(matches!(output.status.code(), Some(69 | 78)), "{section}: {}", output.status);
    }
}

#[test]
fn new_workers_by_sigusr1_get_the_files_that_are_configured_now() {
    if !is_root() {
        return left_out("only root can start workers as somebody else");
    }
    let peer = Peer::echo();
    let spawn = "instances min = 1 instances max = 1 users max = 100 userid = nobody";
    let service = Service::start("tls = yes", spawn, &peer.remote());
    fs::set_permissions(service.relay.directory.path(), fs::Permissions::from_mode(0o755))
        .expect("chmod");
    let next = Identity::own(&["localhost"]);
    let (_, key) = next.write(service.files.path(), "next");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("chmod");
    let text = fs::read_to_string(&service.relay.config).expect("the configuration");
    fs::write(&service.relay.config, text.replace("own.", "next.")).expect("to write");
    service.relay.signal(Signal::SIGUSR1);
    let client = connector(&next.certificate).build();
    wait_for("the new certificate", || {
        let mut stream = handshake(&client, service.port).ok()?;
        stream.write_all(b"x").ok()?;
        stream.read_exact(&mut [0]).ok()
    });
}
