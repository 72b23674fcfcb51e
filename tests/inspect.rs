//! `tls = inspect`: connections that are passed on unopened, with clients of several TLS libraries.

mod common;

use common::pki::Identity;
use common::tls::client;
use common::ways::SPLICE;
use common::*;
use openssl::ssl::{
    AlpnError, SslAcceptor, SslConnector, SslMethod, SslStream, SslVerifyMode, SslVersion,
};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{mpsc, Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A TLS server that sends its name, then echoes. Its last words may reach a client that has left,
/// and is reset for it, so nobody can expect how its sessions end.
fn tls_server(name: &'static str) -> Peer {
    let identity = Identity::own(&["localhost"]);
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).expect("a server");
    builder.set_certificate(&identity.certificate).expect("a certificate");
    builder.set_private_key(&identity.key).expect("its key");
    builder.set_alpn_select_callback(|_, offered| {
        openssl::ssl::select_next_proto(b"\x02h2\x08http/1.1", offered).ok_or(AlpnError::NOACK)
    });
    let acceptor = Arc::new(builder.build());
    Peer::start(move |stream| {
        let Ok(mut stream) = acceptor.accept(stream) else {
            return;
        };
        let _ = stream.write_all(name.as_bytes());
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
        let _ = stream.shutdown();
    })
}

/// Listeners with `tls = inspect`, and a section with an access log.
fn config(port: u16, broker: &str, section: &str) -> Launch {
    let layout = relay(format!("access log = yes\n{section}")).port(port);
    layout.broker(broker).listen("tls = inspect").launch().0
}

/// By name to the first server, by protocol to the second, and the rest to the third.
fn three(servers: &[Peer; 3]) -> String {
    let [one, two, three] = servers;
    format!(
        "route = {{ sni = *.one.example to = one }}\nroute = {{ alpn = h2 to = two }}\n\
         route default = three\n{}{}{}",
        one.tagged("one"),
        two.tagged("two"),
        three.tagged("three")
    )
}

/// The name of the server that a handshake reaches; `None` if the session was refused.
fn server<S: Read + Write>(client: &SslConnector, name: &str, stream: S) -> Option<char> {
    let mut configuration = client.configure().expect("a client");
    configuration.set_use_server_name_indication(!name.is_empty());
    let name = if name.is_empty() { "localhost" } else { name };
    let mut stream: SslStream<S> = configuration.connect(name, stream).ok()?;
    let mut name = [0];
    stream.read_exact(&mut name).expect("a name");
    stream.write_all(b"ping").expect("to send");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"ping");
    Some(name[0].into())
}

/// Sends each byte in a segment of its own, as far as that is in our hands.
#[derive(Debug)]
struct Drip(TcpStream);

impl Read for Drip {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Drip {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        bytes.iter().try_for_each(|byte| self.0.write_all(&[*byte]))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

const NAMES: &str = "route = { sni = one.example, *.one.example to = one }\n\
                     route = { alpn = h2 to = two }\n\
                     route = { sni = no.example to = reject }\n\
                     route default = three\n";

#[test]
fn names_and_protocols_of_connections_that_are_passed_on_unopened() {
    let servers = ["1", "2", "3"].map(tls_server);
    let remotes: String =
        servers.iter().zip(["one", "two", "three"]).map(|(peer, tag)| peer.tagged(tag)).collect();
    let port = free_port();
    let relay = config(port, "", &format!("{NAMES}{remotes}")).start();
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let (plain, h2) = (client(b"", version), client(b"\x08http/1.1\x02h2", version));
        for (client, name, expected) in [
            (&plain, "one.example", Some('1')),
            (&plain, "ONE.example", Some('1')),
            (&h2, "deep.www.one.example", Some('1')),
            (&h2, "other.example", Some('2')),
            (&h2, "", Some('2')),
            (&plain, "other.example", Some('3')),
            (&plain, "", Some('3')),
            (&plain, "no.example", None),
        ] {
            assert_eq!(server(client, name, connect(port)), expected, "{name}");
            assert_eq!(server(client, name, Drip(connect(port))), expected, "{name}, dripping");
        }
    }
    relay.expect_log("rejected by route 3 route 3");
    for number in ["1", "2", "default"] {
        relay.expect_log(&format!(" route {number}"));
    }
}

#[test]
fn what_is_no_client_hello_takes_the_default_route() {
    let (named, other) = (Peer::named("n"), Peer::echo());
    let port = free_port();
    let section = format!(
        "tls handshake timeout = 2\nroute = {{ sni = a.example to = named }}\n\
         route default = other\n{}{}",
        named.tagged("named"),
        other.tagged("other")
    );
    let relay = config(port, "", &section).start();
    for data in [
        &b"GET / HTTP/1.0\r\n\r\n"[..],
        b"\x80\x2e\x01\x03\x01 of SSL 2",
        b"\x16\x03\x01\x00\x04\x02 no hello",
        b"\x16\x03\x01\x00\x00 an empty record",
    ] {
        let mut stream = connect(port);
        stream.write_all(data).expect("to send");
        let mut answer = vec![0; data.len()];
        stream.read_exact(&mut answer).expect("an echo");
        assert_eq!(answer, data);
    }
    // Too little to tell: for some time it may yet come.
    let mut silent = connect(port);
    silent.write_all(b"\x16\x03\x01\x02").expect("to send");
    assert_eq!(silent.read(&mut [0]).unwrap_or(0), 0);
    relay.expect_log("handshake timeout");
    // The end of what a client sends ends the waiting as well.
    let mut short = connect(port);
    short.write_all(b"\x16\x03").expect("to send");
    short.shutdown(std::net::Shutdown::Write).expect("to end");
    let mut answer = Vec::new();
    short.read_to_end(&mut answer).expect("an echo");
    assert_eq!(answer, b"\x16\x03");
}

/// What a client says that gets this input and then ends.
fn said(command: &mut Command, input: &[u8]) -> String {
    let mut client = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a client");
    let mut pipe = client.stdin.take().expect("a pipe");
    pipe.write_all(input).expect("to send");
    // Some clients leave at the end of their input, before they have read the answer.
    let mut output = client.stdout.take().expect("a pipe");
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    let is_there = |seen: &[u8]| seen.windows(input.len()).any(|window| window == input);
    while let Ok(count @ 1..) = output.read(&mut buffer) {
        seen.extend_from_slice(&buffer[..count]);
        if is_there(&seen) {
            break;
        }
    }
    drop(pipe);
    let _ = client.kill();
    let rest = client.wait_with_output().expect("to end");
    format!("{}{}", String::from_utf8_lossy(&seen), String::from_utf8_lossy(&rest.stderr))
}

#[test]
fn openssl_gnutls_and_nss() {
    let servers = ["<one>", "<two>", "<three>"].map(tls_server);
    let port = free_port();
    let relay = config(port, "", &three(&servers)).start();
    let number = port.to_string();
    for (name, protocol, expected) in [
        ("www.one.example", Some("h2"), "<one>"),
        ("other.example", Some("h2"), "<two>"),
        ("other.example", Some("http/1.1"), "<three>"),
        ("other.example", None, "<three>"),
    ] {
        for version in ["-tls1_2", "-tls1_3"] {
            let mut client = Command::new(program("openssl"));
            client.args(["s_client", "-quiet", version, "-servername", name]);
            client.args(["-connect", &format!("127.0.0.1:{port}")]);
            client.args(protocol.iter().flat_map(|one| ["-alpn", one]));
            let said = said(&mut client, b"ping\n");
            assert!(said.contains(expected), "{name} {version}: {said}");
        }
        for priority in ["NORMAL", "NORMAL:-VERS-TLS1.3"] {
            let mut client = Command::new(program("gnutls-cli"));
            client.args(["--insecure", "--priority", priority, "--port", &number]);
            client.args(["--sni-hostname", name]);
            client.args(protocol.iter().flat_map(|one| ["--alpn", one]));
            let said = said(client.arg("127.0.0.1"), b"ping\n");
            assert!(said.contains(expected), "{name} {priority}: {said}");
        }
        if protocol.is_none() || name == "www.one.example" {
            for versions in ["tls1.2:tls1.2", "tls1.3:tls1.3"] {
                let mut client = Command::new(program("tstclnt"));
                client.args(["-D", "-o", "-h", "127.0.0.1", "-p", &number, "-a", name]);
                let said = said(client.args(["-V", versions]), b"ping\n");
                assert!(said.contains(expected), "{name} {versions}: {said}");
            }
        }
    }
    relay.expect_log(" route 1 (sni \"www.one.example\")");
    relay.expect_log(" route 2 (alpn \"h2\") sni \"other.example\" alpn \"h2\"");
    relay.expect_log(" route default sni \"other.example\"");
}

/// Go's own TLS, and rustls in uv. Both offer hybrid key exchange.
#[test]
fn go_and_rustls() {
    let files = Directory::new();
    let servers = ["<one>", "<two>", "<three>"].map(tls_server);
    let port = free_port();
    let relay = config(port, "", &three(&servers)).start();
    if let Some(go) = optional("go") {
        let client = files.file("client");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/inspect/client.go");
        // Its library takes a minute to compile.
        let cache = concat!(env!("CARGO_MANIFEST_DIR"), "/target/go-cache");
        let mut build = Command::new(go);
        build.args(["build", "-o"]).arg(&client).arg(source);
        build.envs([("GOTOOLCHAIN", "local"), ("GOPROXY", "off"), ("GOFLAGS", "-mod=mod")]);
        run(build.env("GOCACHE", cache).env("GOPATH", files.file("path")));
        for (name, protocols, expected) in [
            ("www.one.example", &["h2"][..], "<one>ping h2"),
            ("other.example", &["h2", "http/1.1"], "<two>ping h2"),
            ("other.example", &["http/1.1"], "<three>ping http/1.1"),
            ("other.example", &[], "<three>ping"),
        ] {
            let mut client = Command::new(&client);
            client.args([&format!("127.0.0.1:{port}"), name, "ping"]).args(protocols);
            assert_eq!(text(&run(&mut client)).trim(), expected, "{name} {protocols:?}");
        }
        relay.expect_log(" route 2 (alpn \"h2\") sni \"other.example\" alpn \"h2\"");
    }
    if let Some(uv) = optional("uv") {
        let (web, asked) = web_server();
        let other = Peer::named("other");
        let port = free_port();
        let section = format!(
            "route = {{ sni = localhost alpn = h2 to = web }}\nroute default = other\n{}{}",
            web.tagged("web"),
            other.tagged("other")
        );
        let relay = config(port, "", &section).start();
        let mut client = Command::new(uv);
        client.args(["pip", "install", "--dry-run", "--no-cache", "--no-config", "--target"]);
        client.arg(files.file("target")).args(["--allow-insecure-host", "localhost"]);
        client.args(["--index-url", &format!("https://localhost:{port}/simple/"), "nothing"]);
        // There is no such package: it is the question that counts.
        let output = client.env("UV_HTTP_RETRIES", "0").output().expect("uv");
        let request = asked.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{output:?}"));
        assert!(request.starts_with("GET /simple/nothing/ HTTP/1.1\r\n"), "{request}");
        relay.expect_log(" route 1 (sni \"localhost\", alpn \"h2\")");
    }
}

/// Tells what it is asked for, and says that it has nothing. It knows no ALPN.
fn web_server() -> (Peer, mpsc::Receiver<String>) {
    let identity = Identity::own(&["localhost"]);
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).expect("a server");
    builder.set_certificate(&identity.certificate).expect("a certificate");
    builder.set_private_key(&identity.key).expect("its key");
    let acceptor = builder.build();
    let (sender, asked) = mpsc::channel();
    let sender = Mutex::new(sender);
    let peer = Peer::start(move |stream| {
        let Ok(mut stream) = acceptor.accept(stream) else { return };
        let (mut request, mut byte) = (Vec::new(), [0]);
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
            request.push(byte[0]);
        }
        let answer = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let _ = stream.write_all(answer.as_bytes());
        let _ = stream.shutdown();
        let request = String::from_utf8_lossy(&request).into_owned();
        let _ = sender.lock().expect("a sender").send(request);
    });
    (peer, asked)
}

/// The first flight of a rustls client with hybrid key exchange, which needs two segments.
const HYBRID: &[u8] = include_bytes!("inspect/rustls-hybrid.bin");

#[test]
fn a_hello_of_two_segments_may_be_cut_at_every_byte() {
    assert!(HYBRID.len() > 1500);
    let (named, other) = (Peer::echo(), Peer::named("not by name"));
    let port = free_port();
    let section = format!(
        "route = {{ sni = *.one.example alpn = h2 to = named }}\nroute default = other\n{}{}",
        named.tagged("named"),
        other.tagged("other")
    );
    let relay = config(port, "", &section).start();
    thread::scope(|scope| {
        const CLIENTS: usize = 8;
        for client in 0..CLIENTS {
            scope.spawn(move || {
                for cut in (1..HYBRID.len()).skip(client).step_by(CLIENTS) {
                    let mut stream = connect(port);
                    stream.set_nodelay(true).expect("an option");
                    stream.write_all(&HYBRID[..cut]).expect("to send");
                    pace(Duration::from_millis(2));
                    stream.write_all(&HYBRID[cut..]).expect("to send");
                    let mut answer = vec![0; HYBRID.len()];
                    stream.read_exact(&mut answer).expect("an echo");
                    assert!(answer == HYBRID, "cut at {cut}");
                }
            });
        }
    });
    assert!(!relay.log().contains("route default"));
    // A server makes something of it, so nothing was changed.
    let server = tls_server("one");
    let port = free_port();
    let _relay = config(port, "", &server.tagged("any")).start();
    let mut stream = connect(port);
    stream.write_all(HYBRID).expect("to send");
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!((answer[0], answer[1], answer[5]), (22, 3, 2), "no ServerHello");
}

#[test]
fn what_follows_the_hello_arrives_whole_however_it_is_carried() {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("a client");
    builder.set_verify(SslVerifyMode::NONE);
    let client = builder.build();
    for (mechanism, name) in mechanisms() {
        for directives in ["", SPLICE[0], SPLICE[1]] {
            let servers = ["1", "2", "3"].map(tls_server);
            let port = free_port();
            let section = format!("{directives}{}", three(&servers));
            let _relay = config(port, "", &section).mechanism(mechanism).start();
            let connection = client.connect("a.one.example", connect(port));
            let mut stream = connection.expect("a handshake");
            let data = pattern(7, 700_000);
            for part in data.chunks(50_000) {
                stream.write_all(part).expect("to send");
                let mut name = [0; 1];
                if part == &data[..50_000] {
                    stream.read_exact(&mut name).expect("a name");
                    assert_eq!(&name, b"1");
                }
                let mut answer = vec![0; part.len()];
                stream.read_exact(&mut answer).expect("an echo");
                assert!(answer == part, "{name:?} {directives}");
            }
            eprintln!("--- {name} {directives}");
        }
    }
    // With the hello in the same segments, and the end of what the client has to say.
    let peer = Peer::echo();
    let port = free_port();
    let _relay = config(port, "", &peer.remote()).start();
    let mut stream = connect(port);
    let data = [HYBRID, &pattern(8, 300_000)].concat();
    let mut writer = stream.try_clone().expect("a handle");
    let expected = data.clone();
    let sending = thread::spawn(move || {
        writer.write_all(&data).expect("to send");
        writer.shutdown(Shutdown::Write).expect("to end");
    });
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an echo");
    sending.join().expect("to send");
    assert!(answer == expected);
}

#[test]
fn who_says_nothing_or_too_little_is_disconnected_in_time() {
    for single in ["", "single process = yes "] {
        let (peer, connections) = Peer::manual();
        let port = free_port();
        let relay =
            config(port, single, &format!("tls handshake timeout = 1\n{}", peer.remote())).start();
        let (start, mut sent) = (Instant::now(), 0);
        let mut clients: Vec<_> = (0..50).map(|_| connect(port)).collect();
        // Half of them send a byte from time to time, which does not prolong it.
        while start.elapsed() < Duration::from_millis(900) {
            for client in clients.iter_mut().step_by(2) {
                let _ = client.write_all(&HYBRID[sent..=sent]);
            }
            sent += 1;
            pace(Duration::from_millis(100));
        }
        for mut client in clients {
            assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
        }
        assert!(start.elapsed() > Duration::from_millis(900));
        relay.expect_log("handshake timeout");
        assert!(connections.try_recv().is_err(), "a remote was asked for nothing");
    }
}

#[test]
fn a_single_process_passes_tls_on_as_well() {
    let servers = ["1", "2", "3"].map(tls_server);
    let port = free_port();
    let relay = config(port, "single process = yes ", &three(&servers)).start();
    let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("a client");
    builder.set_verify(SslVerifyMode::NONE);
    let client = builder.build();
    for (name, expected) in [("a.one.example", b"1"), ("b.example", b"3")] {
        let mut stream = client.connect(name, connect(port)).expect("a handshake");
        let mut letter = [0];
        stream.read_exact(&mut letter).expect("a name");
        assert_eq!(&letter, expected, "{name}");
    }
    relay.expect_log("route 1 (sni \"a.one.example\")");
}

#[test]
fn a_proxy_header_before_the_hello_has_the_address_and_the_remote_gets_the_name() {
    let (peer, connections) = Peer::manual();
    let other = Peer::named("other");
    let port = free_port();
    let section = format!(
        "route = {{ sni = *.one.example from = 192.0.2.0/24 port = 8443 to = named }}\n\
         route default = other\nremote = {{ address = 127.0.0.1 port = {} proxy protocol = v2 \
         tag = named }}\n{}",
        peer.port,
        other.tagged("other")
    );
    let launch = Launch::new(format!(
        "id = spawnd {{\nlisten = {{ address = 127.0.0.1 port = {port} haproxy = yes \
         tls = inspect }}\nspawn {{ instances min = 1 instances max = 1 }}\n}}\n\
         id = tcprelay {{\naccess log = yes\n{section}\n}}\n"
    ));
    let relay = launch.start();
    let mut client = connect(port);
    client.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 8443\r\n").expect("to send");
    client.write_all(HYBRID).expect("to send");
    let mut remote = next(&connections);
    let mut header = [0; 16];
    remote.read_exact(&mut header).expect("a header");
    let mut rest = vec![0; u16::from_be_bytes([header[14], header[15]]).into()];
    remote.read_exact(&mut rest).expect("its rest");
    assert_eq!(rest[..4], [192, 0, 2, 7]);
    let name = b"www.a-host-with-a-rather-long-name-for-a-test.one.example";
    assert!(rest.windows(name.len()).any(|window| window == name), "no authority");
    let mut hello = vec![0; HYBRID.len()];
    remote.read_exact(&mut hello).expect("the hello");
    assert!(hello == HYBRID);
    drop((remote, client));
    relay.expect_log("(sni \"www.a-host-with-a-rather-long-name-for-a-test.one.example\", from 192.0.2.7, port 8443)");
}

#[test]
fn hash_goes_by_the_name_that_was_read() {
    let servers = ["1", "2", "3", "4"].map(tls_server);
    let port = free_port();
    let remotes: String = servers.iter().map(Peer::remote).collect();
    let _relay = config(port, "", &format!("balance = hash\n{remotes}")).start();
    let client = client(b"", SslVersion::TLS1_3);
    let reached = |name: &str| server(&client, name, connect(port)).expect("a server");
    let names: Vec<String> = (0..20).map(|number| format!("host-{number}.example")).collect();
    let first: Vec<char> = names.iter().map(|name| reached(name)).collect();
    let second: Vec<char> = names.iter().map(|name| reached(name)).collect();
    assert_eq!(first, second);
    assert!(first.iter().any(|letter| *letter != first[0]), "{first:?}");
}
