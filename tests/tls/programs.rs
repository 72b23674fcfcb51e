//! Real clients, and what sslyze thinks of the relay.

use super::*;

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
