//! TLS with clients: handshakes, records, the ends of sessions, and starts that must fail. The
//! client is OpenSSL; certificates are made here.

use crate::common::{
    connect, expect_eof, free_port, next, pattern, ping, remote, reset, wait_for, Peer, Relay,
    PATIENCE, SPAWND,
};
use crate::fake::{accept_message, FakeBroker, BAD_CONFIGURATION};
use crate::relay::{about_two_seconds, all_freed, read_clean};
use crate::runner::Entry;
use crate::support::{
    client as plain_client, connections_at, descriptor_names, has_been_closed, read_all,
    serving_worker, stays_idle, stdout, tcp_pair, worker_section, Finished, Launch,
};
use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::ssl::{
    self, ErrorCode, Ssl, SslContext, SslContextBuilder, SslMethod, SslMode, SslSession,
    SslSessionCacheMode, SslStream, SslVerifyMode, SslVersion,
};
use openssl::symm::Cipher;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509NameBuilder, X509};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Entry] = &[
    ("X001", x001),
    ("X002", || one_version("TLSv1.3", SslVersion::TLS1_3, SslVersion::TLS1_2)),
    ("X003", || one_version("TLSv1.2", SslVersion::TLS1_2, SslVersion::TLS1_3)),
    ("X004", x004),
    ("X005", x005),
    ("X006", x006),
    ("X007", x007),
    ("X008", x008),
    ("X009", x009),
    ("X010", x010),
    ("X011", x011),
    ("X012", x012),
    ("X013", x013),
    ("X014", x014),
    ("X015", x015),
    ("X016", x016),
    ("X017", x017),
    ("X018", x018),
    ("X019", x019),
    ("X020", x020),
    ("X021", x021),
    ("X022", x022),
    ("X023", x023),
    ("X024", x024),
    ("X025", x025),
    ("X026", x026),
    ("X027", x027),
];

/// The name in the relay's certificate.
const HOST: &str = "relay.test";

const VERSIONS: [SslVersion; 2] = [SslVersion::TLS1_2, SslVersion::TLS1_3];

/// The limit for whatever the relay must do at once.
const SOON: Duration = Duration::from_secs(5);

/// Alerts (RFC 8446 section 6).
const BAD_RECORD_MAC: i32 = 20;
const PROTOCOL_VERSION: i32 = 70;

/// Directives that name the usual certificate and key files.
const FILES: &str = "tls cert-file = @DIR@/cert.pem\ntls key-file = @DIR@/key.pem\n";

/// A certificate with its key.
struct Identity {
    certificate: X509,
    key: PKey<Private>,
}

impl Identity {
    /// Signed by `issuer`; without one, self-signed.
    fn new(name: &str, key: PKey<Private>, issuer: Option<&Identity>, authority: bool) -> Identity {
        let mut subject = X509NameBuilder::new().expect("a name");
        subject.append_entry_by_nid(Nid::COMMONNAME, name).expect("a name");
        let subject = subject.build();
        let mut serial = BigNum::new().expect("a number");
        serial.rand(64, MsbOption::ONE, false).expect("a number");
        let mut builder = X509::builder().expect("a certificate");
        let day_before = Asn1Time::from_unix(now() - 86400).expect("a time");
        let day_after = Asn1Time::from_unix(now() + 86400).expect("a time");
        let issuer_name = issuer.map_or(&*subject, |issuer| issuer.certificate.subject_name());
        let result = builder
            .set_version(2)
            .and_then(|()| builder.set_serial_number(&*serial.to_asn1_integer()?))
            .and_then(|()| builder.set_subject_name(&subject))
            .and_then(|()| builder.set_issuer_name(issuer_name))
            .and_then(|()| builder.set_not_before(&day_before))
            .and_then(|()| builder.set_not_after(&day_after))
            .and_then(|()| builder.set_pubkey(&key));
        result.expect("a certificate");
        let extension = if authority {
            BasicConstraints::new().critical().ca().build()
        } else {
            let context = builder.x509v3_context(None, None);
            SubjectAlternativeName::new().dns(name).build(&context)
        };
        builder.append_extension(extension.expect("an extension")).expect("an extension");
        let signer = issuer.map_or(&key, |issuer| &issuer.key);
        builder.sign(signer, MessageDigest::sha256()).expect("a signature");
        Identity { certificate: builder.build(), key }
    }

    fn pem(&self) -> Vec<u8> {
        self.certificate.to_pem().expect("PEM")
    }
}

/// What all relays and clients share.
struct Pki {
    root: X509,
    intermediate: Identity,
    ec: Identity,
    rsa: Identity,
}

impl Pki {
    /// The contents of a certificate file, with the intermediate certificate: clients know only the
    /// root.
    fn chain(&self, identity: &Identity) -> Vec<u8> {
        [identity.pem(), self.intermediate.pem()].concat()
    }
}

fn pki() -> &'static Pki {
    static PKI: OnceLock<Pki> = OnceLock::new();
    PKI.get_or_init(|| {
        let rsa = PKey::from_rsa(Rsa::generate(2048).expect("a key")).expect("a key");
        let root = Identity::new("root", ec_key(), None, true);
        let intermediate = Identity::new("intermediate", ec_key(), Some(&root), true);
        let ec = Identity::new(HOST, ec_key(), Some(&intermediate), false);
        let rsa = Identity::new(HOST, rsa, Some(&intermediate), false);
        Pki { root: root.certificate, intermediate, ec, rsa }
    })
}

fn now() -> i64 {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    time.expect("a time").as_secs() as i64
}

fn ec_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
    PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key")
}

fn key_pem(key: &PKey<Private>) -> Vec<u8> {
    key.private_key_to_pem_pkcs8().expect("PEM")
}

/// A relay with certificate and key in files, and `listen` as further directives of its only
/// listener.
fn launch(port: u16, listen: &str, relay: &str) -> Launch {
    let config = format!(
        "id = spawnd {{\nlisten = {{ address = 127.0.0.1 port = {port} backlog = 1024 {listen} }}\n\
         spawn = {{ instances min = 1 instances max = 1 users max = 5000 }}\n}}\n{}",
        worker_section(relay)
    );
    let identity = &pki().ec;
    Launch::new(config)
        .file("cert.pem", pki().chain(identity))
        .file("key.pem", key_pem(&identity.key))
}

/// Starts such a relay with the usual directives.
fn serve(listen: &str, relay: &str) -> (u16, Relay) {
    let port = free_port();
    (port, launch(port, listen, &format!("{FILES}{relay}")).start())
}

/// A relay with the test as its remote.
fn serve_manually() -> (u16, Relay, Peer, Receiver<TcpStream>) {
    let (peer, streams) = Peer::manual();
    let (port, relay) = serve("tls = yes", &peer.remote());
    (port, relay, peer, streams)
}

/// A client's TCP connection, below TLS.
struct Wire {
    tcp: TcpStream,
    /// If set, collects what would be sent.
    hold: Option<Vec<u8>>,
    /// Sends every byte on its own.
    dribble: bool,
}

impl Wire {
    fn new(tcp: TcpStream) -> Wire {
        Wire { tcp, hold: None, dribble: false }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tcp.read(buffer)
    }
}

impl Write for Wire {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match &mut self.hold {
            Some(hold) => {
                hold.extend_from_slice(data);
                Ok(data.len())
            }
            None if self.dribble => self.tcp.write(&data[..data.len().min(1)]),
            None => self.tcp.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Tls = SslStream<Wire>;

/// Settings of a client that speaks one version and trusts the root; the rest is the library's
/// default.
fn settings(version: SslVersion) -> SslContextBuilder {
    let mut builder = SslContextBuilder::new(SslMethod::tls_client()).expect("a context");
    let mut store = X509StoreBuilder::new().expect("a store");
    store.add_cert(pki().root.clone()).expect("a certificate");
    builder.set_cert_store(store.build());
    builder.set_verify(SslVerifyMode::PEER);
    builder.set_min_proto_version(Some(version)).expect("a version");
    builder.set_max_proto_version(Some(version)).expect("a version");
    builder.set_mode(SslMode::ENABLE_PARTIAL_WRITE | SslMode::ACCEPT_MOVING_WRITE_BUFFER);
    builder
}

/// A TLS session before its handshake.
fn new_ssl(context: &SslContext) -> Ssl {
    let mut ssl = Ssl::new(context).expect("a session");
    ssl.param_mut().set_host(HOST).expect("a name");
    ssl
}

/// Performs a handshake.
fn shake(context: &SslContext, wire: Wire) -> Result<Tls, ssl::Error> {
    let mut stream = SslStream::new(new_ssl(context), wire).expect("a session");
    stream.connect().map(|()| stream)
}

/// A client after its handshake.
fn client(port: u16, version: SslVersion) -> Tls {
    let stream = shake(&settings(version).build(), Wire::new(connect(port)));
    stream.unwrap_or_else(|error| panic!("no handshake with {version:?}: {error}"))
}

/// A client and the remote's end of its session, through which a word has passed.
fn session(port: u16, version: SslVersion, streams: &Receiver<TcpStream>) -> (Tls, TcpStream) {
    let mut client = client(port, version);
    let mut end = next(streams);
    client.write_all(b"hello").expect("to send");
    let mut word = [0; 5];
    end.read_exact(&mut word).expect("to receive");
    assert_eq!(&word, b"hello");
    (client, end)
}

/// Sends and receives one word, through an echo.
fn talk(stream: &mut Tls, word: &[u8]) {
    stream.write_all(word).expect("to send");
    let mut answer = vec![0; word.len()];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer, word);
}

/// A client that an echo has answered.
fn served(port: u16, version: SslVersion) -> Tls {
    let mut stream = client(port, version);
    talk(&mut stream, b"hello");
    stream
}

/// The alert that the relay has sent.
fn alert(error: &ssl::Error) -> Option<i32> {
    // OpenSSL adds SSL_AD_REASON_OFFSET to the number of the alert.
    let mut codes = error.ssl_error()?.errors().iter().map(openssl::error::Error::reason_code);
    codes.find(|code| (1000..1256).contains(code)).map(|code| code - 1000)
}

/// Reads up to close_notify, which the end of the connection must follow.
fn read_to_end(stream: &mut Tls) -> Vec<u8> {
    let (mut data, mut buffer) = (Vec::new(), [0; 16384]);
    loop {
        match stream.ssl_read(&mut buffer) {
            Ok(count) => data.extend_from_slice(&buffer[..count]),
            Err(error) if error.code() == ErrorCode::ZERO_RETURN => break,
            Err(error) => panic!("no close_notify, but {error} after {} bytes", data.len()),
        }
    }
    expect_eof(&mut stream.get_mut().tcp);
    data
}

/// The first flight of a client.
fn hello(version: SslVersion) -> Vec<u8> {
    let (tcp, _other) = tcp_pair();
    tcp.set_nonblocking(true).expect("nonblocking");
    let ssl = new_ssl(&settings(version).build());
    let wire = Wire { hold: Some(Vec::new()), ..Wire::new(tcp) };
    let mut stream = SslStream::new(ssl, wire).expect("a session");
    let error = stream.connect().expect_err("nobody answers");
    assert_eq!(error.code(), ErrorCode::WANT_READ, "{error}");
    stream.get_mut().hold.take().expect("the hello")
}

/// The records in which a client would send these bytes.
fn sealed(stream: &mut Tls, data: &[u8]) -> Vec<u8> {
    stream.get_mut().hold = Some(Vec::new());
    stream.write_all(data).expect("to encrypt");
    stream.get_mut().hold.take().expect("the records")
}

/// A client's address, as the log has it.
fn logged(stream: &TcpStream) -> String {
    let address = stream.local_addr().expect("its address");
    format!("[{}]:{}", address.ip(), address.port())
}

/// Waits until the worker has read everything that the clients of `port` have sent.
fn all_read(worker: i32, port: u16) {
    wait_for("the worker to read", || {
        connections_at(worker, port).iter().all(|stream| unread(stream) == 0).then_some(())
    });
}

/// How many bytes have arrived and were not read.
fn unread(stream: &TcpStream) -> libc::c_int {
    let mut count: libc::c_int = 0;
    // SAFETY: the pointer describes `count`.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    assert_eq!(result, 0, "FIONREAD");
    count
}

/// The state of a relay's only worker when it has no connections.
struct Baseline {
    worker: i32,
    descriptors: Vec<(RawFd, PathBuf)>,
}

impl Baseline {
    fn of(relay: &Relay) -> Baseline {
        all_freed(relay);
        let worker = serving_worker(relay);
        Baseline { worker, descriptors: descriptor_names(worker) }
    }

    /// Requires that the worker returns to that state soon after `since`, and then uses no CPU
    /// time. "Soon" is shorter than the handshake timeout, which would end a busy loop as well.
    fn expect(&self, relay: &Relay, since: Instant) {
        all_freed(relay);
        let same = || descriptor_names(self.worker) == self.descriptors;
        while !same() && since.elapsed() < SOON {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(descriptor_names(self.worker), self.descriptors);
        assert!(since.elapsed() < SOON, "freed after {:?}", since.elapsed());
        stays_idle(self.worker);
        assert_eq!(relay.workers(), [self.worker], "{}", relay.log());
    }
}

fn x001() {
    let peer = Peer::echo();
    let pki = pki();
    for identity in [&pki.ec, &pki.rsa] {
        let port = free_port();
        let launch = launch(port, "tls = yes", &format!("{FILES}{}", peer.remote()))
            .file("cert.pem", pki.chain(identity))
            .file("key.pem", key_pem(&identity.key));
        let relay = launch.start();
        for version in VERSIONS {
            let mut stream = served(port, version);
            assert_eq!(stream.ssl().version2(), Some(version));
            let shown = stream.ssl().peer_certificate().expect("a certificate");
            assert!(shown == identity.certificate);
            for length in [1, 16384, 16385, 50_000] {
                talk(&mut stream, &pattern(length as u64, length));
            }
            stream.shutdown().expect("to say goodbye");
            assert!(read_to_end(&mut stream).is_empty());
        }
        all_freed(&relay);
    }
}

/// X002 and X003: a listener that speaks one version.
fn one_version(listed: &str, good: SslVersion, other: SslVersion) {
    let peer = Peer::echo();
    let (port, relay) = serve(&format!("tls = {listed}"), &peer.remote());
    let refused = shake(&settings(other).build(), Wire::new(connect(port)));
    let error = refused.err().expect("refused");
    assert_eq!(alert(&error), Some(PROTOCOL_VERSION), "{error}");
    expect_handshake_log(&relay, "unsupported protocol");
    served(port, good);
    all_freed(&relay);
}

/// Waits for the log line of a failed handshake.
fn expect_handshake_log(relay: &Relay, reason: &str) {
    relay.wait_for_log(&format!("SSL_accept and {reason:?}"), |log| {
        let mut lines = log.lines().filter(|line| line.contains("SSL_accept"));
        lines.find(|line| line.contains(":SSL routines::") && line.contains(reason)).map(drop)
    });
}

fn x004() {
    let peer = Peer::echo();
    let (port, relay) = serve("tls = auto", &peer.remote());
    plain_client(port);
    // The first of these look like TLS records at their beginning.
    for word in [&b"\x16\x16"[..], b"\x16\x03\x01\x00\x00\x00 no TLS", &pattern(1, 300_000)] {
        let mut stream = connect(port);
        let sent = word.to_vec();
        let mut sender = stream.try_clone().expect("another handle");
        let thread = thread::spawn(move || {
            sender.write_all(&sent).expect("to send");
            sender.shutdown(Shutdown::Write).expect("to shut down");
        });
        let received = read_clean(&mut stream);
        thread.join().expect("the sender");
        assert!(received == word, "{} bytes", received.len());
    }
    // The same byte by byte.
    let mut stream = connect(port);
    for byte in b"\x16\x03plain" {
        stream.write_all(&[*byte]).expect("to send");
    }
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"\x16\x03plain");
    drop(stream);
    all_freed(&relay);
}

fn x005() {
    let peer = Peer::echo();
    let (port, relay) = serve("tls = auto", &peer.remote());
    for version in VERSIONS {
        for dribble in [false, true] {
            let wire = Wire { dribble, ..Wire::new(connect(port)) };
            let mut stream = shake(&settings(version).build(), wire).expect("a handshake");
            assert_eq!(stream.ssl().version2(), Some(version));
            talk(&mut stream, b"hello");
        }
    }
    all_freed(&relay);
}

fn x006() {
    let peer = Peer::echo();
    for list in ["DTLSv1.2", "DTLSv1.0,DTLSv1.2"] {
        let port = free_port();
        let listen = format!("tls = {list}");
        let make = || launch(port, &listen, &format!("{FILES}{}", peer.remote()));
        let finished = make().finish();
        finished.exits(78).says("DTLS").says(&port.to_string());
        make().arguments(&["-P", "@CFG@"]).finish().exits(0);
    }
}

fn x007() {
    let peer = Peer::echo();
    let identity = &pki().ec;
    let (chain, key) = (pki().chain(identity), key_pem(&identity.key));
    for content in [[&chain[..], &key].concat(), [&key[..], &chain].concat()] {
        let port = free_port();
        let text = format!("tls cert-file = @DIR@/both.pem\n{}", peer.remote());
        let _relay = launch(port, "tls = yes", &text).file("both.pem", content).start();
        for version in VERSIONS {
            served(port, version);
        }
    }
}

/// The key of the usual certificate, encrypted.
fn encrypted(passphrase: &str) -> Vec<u8> {
    let key = &pki().ec.key;
    let cipher = Cipher::aes_256_cbc();
    key.private_key_to_pem_pkcs8_passphrase(cipher, passphrase.as_bytes()).expect("PEM")
}

fn x008() {
    let peer = Peer::echo();
    let passphrase = "correct horse";
    let (ec, rsa) = (&pki().ec, &pki().rsa);
    let (cipher, bytes) = (Cipher::aes_128_cbc(), passphrase.as_bytes());
    // Also the older form of PEM, with `Proc-Type` and `DEK-Info`.
    let old_ec = ec.key.ec_key().and_then(|key| key.private_key_to_pem_passphrase(cipher, bytes));
    let old_rsa = rsa.key.rsa().and_then(|key| key.private_key_to_pem_passphrase(cipher, bytes));
    for (identity, key) in
        [(ec, encrypted(passphrase)), (ec, old_ec.expect("PEM")), (rsa, old_rsa.expect("PEM"))]
    {
        assert!(String::from_utf8_lossy(&key).contains("ENCRYPTED"));
        let port = free_port();
        let text = format!("{FILES}tls passphrase = \"{passphrase}\"\n{}", peer.remote());
        let launch = launch(port, "tls = yes", &text);
        let launch = launch.file("cert.pem", pki().chain(identity)).file("key.pem", key);
        let _relay = launch.start();
        for version in VERSIONS {
            served(port, version);
        }
    }
}

/// Requires exactly one line that names the file, with these words.
fn named_once(log: &str, file: &Path, words: &[&str]) {
    let name = file.display().to_string();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(&name)).collect();
    assert_eq!(lines.len(), 1, "lines with {name}:\n{log}");
    for word in words {
        assert!(lines[0].contains(word), "no {word:?} in {:?}", lines[0]);
    }
}

/// Requires that starting `make`'s relay fails in every way, each with a message: a worker on its
/// own, the whole service, and `-P`. `heard` is a message already in the worker's channel.
fn refused(make: impl Fn() -> Launch, heard: Option<&[u8]>, file: &str, words: &[&str]) {
    // As under the C program's broker.
    let launch = make().without("TCPRELAY_BROKER");
    let mut broker = FakeBroker::start_after(launch, heard);
    let message = broker.receive();
    assert_eq!(message.kind(), BAD_CONFIGURATION, "{message:?}\n{}", broker.relay.log());
    assert_eq!(broker.relay.wait().code(), Some(69), "{}", broker.relay.log());
    named_once(&broker.relay.log(), &broker.relay.directory.file(file), words);
    assert!(!broker.relay.log().contains("Enter"), "{}", broker.relay.log());
    assert!(stdout(&broker.relay).is_empty());
    for arguments in [&["@CFG@"][..], &["-P", "@CFG@"]] {
        let finished = make().arguments(arguments).finish();
        named_once(&finished.exits(69).stderr, &finished.relay.directory.file(file), words);
        silent_refusal(&finished);
    }
}

/// Requires that it asked nobody for a passphrase, and started no worker.
fn silent_refusal(finished: &Finished) {
    let log = &finished.stderr;
    assert!(!log.contains("Enter") && !log.contains("is being used"), "{log}");
    assert!(finished.stdout.is_empty());
}

fn x009() {
    const CALL: &str = "SSL_CTX_use_PrivateKey_file: ";
    // One wrong passphrase in 256 decrypts to valid padding, and is noticed only later.
    let wrong = "wrong";
    let noticed = |pem: &Vec<u8>| {
        let result = PKey::private_key_from_pem_passphrase(pem, wrong.as_bytes());
        result.is_err_and(|errors| errors.to_string().contains("bad decrypt"))
    };
    let key = std::iter::repeat_with(|| encrypted("right")).find(noticed).expect("a key");
    let text = format!("{FILES}tls passphrase = {wrong}\n{}", remote(1));
    let words = [CALL, "error:1C800064:Provider routines::bad decrypt"];
    let make = || launch(free_port(), "tls = yes", &text).file("key.pem", &key);
    refused(make, None, "key.pem", &words);
    // A broker that does not read its worker's section learns of it from the worker.
    let config = format!(
        "id = spawnd {{\nlisten = {{ address = 127.0.0.1 port = {} tls = yes }}\n\
         spawn = {{ exec = @BIN@ instances min = 1 instances max = 1 }}\n}}\n{}",
        free_port(),
        worker_section(&text)
    );
    let launch = Launch::new(config).program(SPAWND).file("key.pem", &key);
    let finished = launch.file("cert.pem", pki().chain(&pki().ec)).finish();
    finished.exits(78).says("Child reported fatal configuration problem. Exiting.");
    named_once(&finished.stderr, &finished.relay.directory.file("key.pem"), &words);
}

fn x010() {
    let text = format!("{FILES}{}", remote(1));
    let answer = b"secret\n";
    let make = || {
        let launch = launch(free_port(), "tls = yes", &text).file("key.pem", encrypted("secret"));
        // A program that asks on standard input would read the right answer here, and serve.
        let launch = launch.file("answer", answer);
        let input = File::open(launch.directory.file("answer")).expect("the answer");
        launch.input(input)
    };
    let words = ["SSL_CTX_use_PrivateKey_file: ", "encrypted", "passphrase"];
    refused(make, Some(answer), "key.pem", &words);
}

fn x011() {
    const CHAIN: &str = "SSL_CTX_use_certificate_chain_file: ";
    const KEY: &str = "SSL_CTX_use_PrivateKey_file: ";
    const MISSING: &str = "error:80000002:system library::No such file or directory";
    let make = |text: &str| launch(free_port(), "tls = yes", &format!("{text}{}", remote(1)));
    let no_chain = "tls cert-file = @DIR@/none.pem\ntls key-file = @DIR@/key.pem\n";
    refused(|| make(no_chain), None, "none.pem", &[CHAIN, MISSING]);
    let no_key = "tls cert-file = @DIR@/cert.pem\ntls key-file = @DIR@/none.pem\n";
    refused(|| make(no_key), None, "none.pem", &[KEY, MISSING]);
    let other = key_pem(&ec_key());
    let words = [KEY, "error:05800074:x509 certificate routines::key values mismatch"];
    refused(|| make(FILES).file("key.pem", &other), None, "key.pem", &words);
}

fn x012() {
    let peer = Peer::echo();
    for listen in ["tls", "tls = yes", "tls = auto", "tls = TLSv1.3"] {
        for more in ["", "tls key-file = @DIR@/key.pem\n"] {
            let text = format!("{more}{}", peer.remote());
            for arguments in [&["@CFG@"][..], &["-P", "@CFG@"]] {
                let launch = launch(free_port(), listen, &text).arguments(arguments);
                let finished = launch.finish();
                silent_refusal(finished.exits(78).says("cert-file"));
            }
        }
    }
    // A worker under a broker that does not check this refuses its connections, and does not crash.
    let launch = Launch::new(worker_section(&peer.remote())).without("TCPRELAY_BROKER");
    let broker = FakeBroker::ready(launch);
    let mut message = accept_message();
    message[4..8].copy_from_slice(&0x0403u32.to_ne_bytes());
    for _ in 0..3 {
        let (mut client, server) = tcp_pair();
        broker.send(&message, Some(server.as_fd()));
        drop(server);
        assert!(has_been_closed(&mut client));
        broker.expect_done(1);
    }
    let lines = broker.relay.log().matches("cert-file").count();
    assert_eq!(lines, 1, "{}", broker.relay.log());
    ping(&mut broker.connect(), b"hello");
}

fn x013() {
    let (port, relay, _peer, streams) = serve_manually();
    let answer = pattern(13, 200_000);
    for version in VERSIONS {
        let (mut client, mut end) = session(port, version, &streams);
        let sent = answer.clone();
        let sender = thread::spawn(move || end.write_all(&sent).expect("to send"));
        let received = read_to_end(&mut client);
        sender.join().expect("the peer");
        assert!(received == answer, "{} bytes", received.len());
    }
    all_freed(&relay);
}

fn x014() {
    let (port, relay, _peer, streams) = serve_manually();
    let answer = pattern(14, 200_000);
    for version in VERSIONS {
        for fin in [false, true] {
            let (mut client, mut end) = session(port, version, &streams);
            client.write_all(b"question").expect("to send");
            client.shutdown().expect("to say goodbye");
            if fin {
                client.get_ref().tcp.shutdown(Shutdown::Write).expect("to shut down");
            }
            assert_eq!(read_clean(&mut end), b"question");
            let sent = answer.clone();
            let sender = thread::spawn(move || end.write_all(&sent).expect("to send"));
            let received = read_to_end(&mut client);
            sender.join().expect("the peer");
            assert!(received == answer, "{} bytes", received.len());
            // Both sides have ended, so the relay must not wait for the client to close.
            all_freed(&relay);
        }
    }
    assert!(!relay.log().contains("close_notify"), "{}", relay.log());
}

fn x015() {
    let (port, relay, _peer, streams) = serve_manually();
    for version in VERSIONS {
        let (mut client, mut end) = session(port, version, &streams);
        client.write_all(b"question").expect("to send");
        client.get_ref().tcp.shutdown(Shutdown::Write).expect("to shut down");
        assert_eq!(read_clean(&mut end), b"question");
        end.write_all(b"answer").expect("to send");
        drop(end);
        assert_eq!(read_to_end(&mut client), b"answer");
        all_freed(&relay);
        // An end without close_notify may be a truncation attack.
        let address = logged(&client.get_ref().tcp);
        relay.wait_for_log("a line about the truncation", |log| {
            let mut lines = log.lines().filter(|line| line.contains(&address));
            lines.any(|line| line.contains("without close_notify")).then_some(())
        });
    }
}

/// Aborts a client's connection with RST.
fn abort(stream: Tls) {
    // `reset` closes another handle of the same socket, whose SO_LINGER setting is shared; the
    // reset is sent when the last handle is closed.
    reset(stream.get_ref().tcp.try_clone().expect("another handle"));
    drop(stream);
}

fn x016() {
    let (port, relay, _peer, streams) = serve_manually();
    drop(session(port, SslVersion::TLS1_3, &streams));
    let baseline = Baseline::of(&relay);
    for version in VERSIONS {
        let sessions: Vec<_> = (0..5).map(|_| session(port, version, &streams)).collect();
        let begin = Instant::now();
        let (clients, mut ends): (Vec<_>, Vec<_>) = sessions.into_iter().unzip();
        clients.into_iter().for_each(abort);
        // The remote's end must not stay open either, as it did with the C program.
        for end in &mut ends {
            assert!(has_been_closed(end));
        }
        baseline.expect(&relay, begin);
    }
}

fn x017() {
    let peer = Peer::echo();
    for listen in ["tls = yes", "tls = auto"] {
        let (port, relay) = serve(listen, &peer.remote());
        served(port, SslVersion::TLS1_3);
        let baseline = Baseline::of(&relay);
        let begin = Instant::now();
        for _ in 0..10 {
            drop(connect(port));
            reset(connect(port));
        }
        // Clients stay open, so that the relay is the one that closes.
        let mut half_closed: Vec<TcpStream> = (0..10).map(|_| connect(port)).collect();
        for stream in &mut half_closed {
            stream.shutdown(Shutdown::Write).expect("to shut down");
        }
        for stream in &mut half_closed {
            assert!(has_been_closed(stream), "bytes for nobody");
        }
        baseline.expect(&relay, begin);
        served(port, SslVersion::TLS1_3);
    }
}

fn x018() {
    let peer = Peer::echo();
    for listen in ["tls = yes", "tls = auto"] {
        let (port, relay) = serve(listen, &peer.remote());
        served(port, SslVersion::TLS1_3);
        let baseline = Baseline::of(&relay);
        let mut streams = Vec::new();
        for version in VERSIONS {
            let hello = hello(version);
            // Cut in the record's header, after it, in the middle, and one byte short.
            for length in [1, 4, 5, 6, hello.len() / 2, hello.len() - 1] {
                let mut stream = connect(port);
                stream.write_all(&hello[..length]).expect("to send");
                streams.push(stream);
            }
            // The relay answers the hello; the client sends nothing more of the handshake.
            let mut stream = connect(port);
            stream.write_all(&hello).expect("to send");
            stream.read_exact(&mut [0; 5]).expect("a record");
            streams.push(stream);
        }
        let begin = Instant::now();
        for stream in &mut streams {
            stream.shutdown(Shutdown::Write).expect("to shut down");
        }
        for stream in &mut streams {
            // Bytes already in flight may arrive, and then the connection ends.
            let (_, error) = read_all(stream);
            let late = error.is_some_and(|error| error.kind() == ErrorKind::WouldBlock);
            assert!(!late, "a connection stays open");
        }
        baseline.expect(&relay, begin);
        served(port, SslVersion::TLS1_3);
    }
}

fn x019() {
    let peer = Peer::echo();
    let (port, relay) = serve("tls = yes", &peer.remote());
    served(port, SslVersion::TLS1_3);
    let baseline = Baseline::of(&relay);
    let mut streams = Vec::new();
    let begin = Instant::now();
    for text in [&b"GET / HTTP/1.0\r\n\r\n"[..], b"SSH-2.0-client\r\n", &[0; 100]] {
        let mut stream = connect(port);
        let address = logged(&stream);
        stream.write_all(text).expect("to send");
        let (answer, error) = read_all(&mut stream);
        let late = error.is_some_and(|error| error.kind() == ErrorKind::WouldBlock);
        assert!(!late, "the connection stays open after {answer:?}");
        // The answer is nothing, or one record with a fatal alert.
        let alert = answer.len() == 7 && answer.starts_with(&[21, 3]) && answer[5] == 2;
        assert!(answer.is_empty() || alert, "{answer:?}");
        relay.wait_for_log("a line about the handshake", |log| {
            let mut lines = log.lines().filter(|line| line.contains(&address));
            lines.any(|line| line.contains("SSL_accept")).then_some(())
        });
        streams.push(stream);
    }
    expect_handshake_log(&relay, "http request");
    // The clients have not closed.
    baseline.expect(&relay, begin);
    drop(streams);
    served(port, SslVersion::TLS1_3);
}

fn x020() {
    let (port, relay, _peer, streams) = serve_manually();
    drop(session(port, SslVersion::TLS1_3, &streams));
    let baseline = Baseline::of(&relay);
    for version in VERSIONS {
        for part in [1, 5, 12] {
            let (mut client, end) = session(port, version, &streams);
            let record = sealed(&mut client, b"never complete");
            client.get_mut().tcp.write_all(&record[..part]).expect("to send");
            all_read(baseline.worker, port);
            let begin = Instant::now();
            drop(end);
            assert!(read_to_end(&mut client).is_empty());
            assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
            // As long as the client may still send, the worker must rest.
            stays_idle(baseline.worker);
            drop(client);
            all_freed(&relay);
        }
    }
    baseline.expect(&relay, Instant::now());
}

fn x021() {
    let peer = Peer::echo();
    let begin_of_hello = hello(SslVersion::TLS1_3)[..50].to_vec();
    let idle = format!("{}idle timeout = 2\n", peer.remote());
    for (listen, sent) in
        [("tls = yes", &[][..]), ("tls = auto", &[]), ("tls = yes", &begin_of_hello)]
    {
        let (port, relay) = serve(listen, &idle);
        let baseline = Baseline::of(&relay);
        let begin = Instant::now();
        let mut stream = connect(port);
        stream.write_all(sent).expect("to send");
        let (_, error) = read_all(&mut stream);
        assert!(error.is_none_or(|error| error.kind() != ErrorKind::WouldBlock), "stays open");
        about_two_seconds(begin.elapsed());
        baseline.expect(&relay, Instant::now());
    }
}

fn x022() {
    let (peer, streams) = Peer::manual();
    let (port, relay) = serve("tls = yes", &format!("{}idle timeout = 2\n", peer.remote()));
    let baseline = Baseline::of(&relay);
    for version in VERSIONS {
        let (mut client, mut end) = session(port, version, &streams);
        let begin = Instant::now();
        assert!(read_to_end(&mut client).is_empty());
        about_two_seconds(begin.elapsed());
        assert!(has_been_closed(&mut end));
        // Neither end has closed.
        baseline.expect(&relay, Instant::now());
    }
}

fn x023() {
    let down = [free_port(), free_port()];
    let text: String = down.iter().map(|&port| remote(port)).collect();
    let (port, relay) = serve("tls = yes", &text);
    let baseline = Baseline::of(&relay);
    for version in VERSIONS {
        let begin = Instant::now();
        let mut stream = client(port, version);
        assert!(read_to_end(&mut stream).is_empty());
        baseline.expect(&relay, begin);
    }
}

fn x024() {
    let peer = Peer::echo();
    let (port, _relay) = serve("tls = yes", &peer.remote());
    for version in VERSIONS {
        let tickets: Arc<Mutex<Vec<SslSession>>> = Arc::default();
        let store = tickets.clone();
        let mut builder = settings(version);
        builder
            .set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
        builder.set_new_session_callback(move |_, session| {
            store.lock().expect("the tickets").push(session);
        });
        let context = builder.build();
        let mut used: Option<SslSession> = None;
        // Resumed sessions get new tickets as well.
        for round in 0..3 {
            let mut ssl = new_ssl(&context);
            if let Some(session) = &used {
                // SAFETY: the session was made with the same context.
                unsafe { ssl.set_session(session) }.expect("a session to resume");
            }
            let mut stream = SslStream::new(ssl, Wire::new(connect(port))).expect("a session");
            stream.connect().expect("a handshake");
            assert_eq!(stream.ssl().session_reused(), used.is_some(), "{version:?}, {round}");
            assert_eq!(stream.ssl().version2(), Some(version));
            talk(&mut stream, b"hello");
            stream.shutdown().expect("to say goodbye");
            assert!(read_to_end(&mut stream).is_empty());
            // With TLS 1.2 the server may leave the client with the ticket it has.
            let latest = tickets.lock().expect("the tickets").pop();
            used = latest.or(used);
            assert!(used.is_some(), "no ticket for {version:?}");
        }
    }
}

/// A download by a client that reads nothing at first, and slowly after that.
fn slow_download(version: SslVersion) {
    const LENGTH: usize = 20_000_000;
    let (port, relay, _peer, streams) = serve_manually();
    let (mut client, mut end) = session(port, version, &streams);
    let data = pattern(25, LENGTH);
    let (progress, sent) = (Arc::new(AtomicUsize::new(0)), data.clone());
    let counter = progress.clone();
    let sender = thread::spawn(move || {
        for chunk in sent.chunks(65536) {
            end.write_all(chunk).expect("to send");
            counter.fetch_add(chunk.len(), Ordering::Relaxed);
        }
    });
    let (mut last, mut since) = (0, Instant::now());
    wait_for("the peer to be held up", || {
        let now = progress.load(Ordering::Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (now > 0 && since.elapsed() > Duration::from_millis(300)).then_some(())
    });
    assert!(last < LENGTH, "all has been taken");
    stays_idle(relay.workers()[0]);
    let (mut received, mut buffer) = (Vec::with_capacity(LENGTH), [0; 16384]);
    loop {
        match client.ssl_read(&mut buffer) {
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) if error.code() == ErrorCode::ZERO_RETURN => break,
            Err(error) => panic!("{error} after {} bytes", received.len()),
        }
        thread::sleep(Duration::from_millis(1));
    }
    sender.join().expect("the peer");
    assert!(received == data, "{} bytes", received.len());
    drop(client);
    all_freed(&relay);
}

/// Sends and receives at the same time, through an echo.
fn large_echo(version: SslVersion) {
    let peer = Peer::echo();
    let (port, relay) = serve("tls = yes", &peer.remote());
    let mut stream = client(port, version);
    let data = pattern(26, 10_000_000);
    let waits =
        |error: &ssl::Error| matches!(error.code(), ErrorCode::WANT_READ | ErrorCode::WANT_WRITE);
    stream.get_ref().tcp.set_nonblocking(true).expect("nonblocking");
    let (mut sent, mut received, mut buffer) = (0, Vec::with_capacity(data.len()), [0; 16384]);
    let mut last = Instant::now();
    while received.len() < data.len() {
        let before = (sent, received.len());
        let rest = &data[sent..];
        if !rest.is_empty() {
            match stream.ssl_write(&rest[..rest.len().min(16384)]) {
                Ok(count) => sent += count,
                Err(error) => assert!(waits(&error), "{error} after {sent} bytes"),
            }
        }
        match stream.ssl_read(&mut buffer) {
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) => assert!(waits(&error), "{error} after {} bytes", received.len()),
        }
        if before == (sent, received.len()) {
            assert!(last.elapsed() < PATIENCE, "stuck after {before:?} bytes");
            thread::sleep(Duration::from_millis(1));
        } else {
            last = Instant::now();
        }
    }
    assert!(received == data);
    stream.get_ref().tcp.set_nonblocking(false).expect("blocking");
    stream.shutdown().expect("to say goodbye");
    assert!(read_to_end(&mut stream).is_empty());
    all_freed(&relay);
}

fn x025() {
    for version in VERSIONS {
        slow_download(version);
        large_echo(version);
    }
}

fn x026() {
    let (port, relay, _peer, streams) = serve_manually();
    drop(session(port, SslVersion::TLS1_3, &streams));
    let baseline = Baseline::of(&relay);
    for version in VERSIONS {
        let (mut client, mut end) = session(port, version, &streams);
        let address = logged(&client.get_ref().tcp);
        let begin = Instant::now();
        let mut records = sealed(&mut client, b"last words");
        let mut forged = sealed(&mut client, b"not from the client");
        *forged.last_mut().expect("a record") ^= 1;
        records.extend_from_slice(&forged);
        client.get_mut().tcp.write_all(&records).expect("to send");
        // What came before the forged record is delivered, and the remote sees a clean end.
        assert_eq!(read_clean(&mut end), b"last words");
        let error = client.ssl_read(&mut [0; 100]).expect_err("an alert");
        assert_eq!(alert(&error), Some(BAD_RECORD_MAC), "{version:?}: {error}");
        expect_eof(&mut client.get_mut().tcp);
        relay.wait_for_log("a line about the record", |log| {
            let mut lines = log.lines().filter(|line| line.contains(&address));
            lines.any(|line| line.contains("TLS client")).then_some(())
        });
        // Neither end has closed.
        baseline.expect(&relay, begin);
    }
}

fn x027() {
    let peer = Peer::echo();
    for listen in ["tls = yes", "tls = auto"] {
        let (port, relay) = serve(listen, &peer.remote());
        for version in [SslVersion::TLS1, SslVersion::TLS1_1] {
            let mut builder = settings(version);
            // The client's own library would refuse as well, at its default level.
            builder.set_security_level(0);
            builder.set_cipher_list("ALL:@SECLEVEL=0").expect("ciphers");
            let refused = shake(&builder.build(), Wire::new(connect(port)));
            let error = refused.err().expect("refused");
            assert_eq!(alert(&error), Some(PROTOCOL_VERSION), "{listen}, {version:?}: {error}");
        }
        expect_handshake_log(&relay, "unsupported protocol");
        served(port, SslVersion::TLS1_2);
        all_freed(&relay);
    }
}
