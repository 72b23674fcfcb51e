//! What all cases of TLS share: certificates, relays, a client.

use super::*;

/// The name in the relay's certificate.
pub(super) const HOST: &str = "relay.test";

pub(super) const VERSIONS: [SslVersion; 2] = [SslVersion::TLS1_2, SslVersion::TLS1_3];

/// The limit for whatever the relay must do at once.
pub(super) const SOON: Duration = Duration::from_secs(5);

/// Alerts (RFC 8446 section 6).
pub(super) const BAD_RECORD_MAC: i32 = 20;
pub(super) const PROTOCOL_VERSION: i32 = 70;

/// Directives that name the usual certificate and key files.
pub(super) const FILES: &str = "tls cert-file = @DIR@/cert.pem\ntls key-file = @DIR@/key.pem\n";

/// A certificate with its key.
pub(super) struct Identity {
    pub(super) certificate: X509,
    pub(super) key: PKey<Private>,
}

impl Identity {
    /// Signed by `issuer`; without one, self-signed.
    pub(super) fn new(
        name: &str,
        key: PKey<Private>,
        issuer: Option<&Identity>,
        authority: bool,
    ) -> Identity {
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

    pub(super) fn pem(&self) -> Vec<u8> {
        self.certificate.to_pem().expect("PEM")
    }
}

/// What all relays and clients share.
pub(super) struct Pki {
    pub(super) root: X509,
    pub(super) intermediate: Identity,
    pub(super) ec: Identity,
    pub(super) rsa: Identity,
}

impl Pki {
    /// The contents of a certificate file, with the intermediate certificate: clients know only the
    /// root.
    pub(super) fn chain(&self, identity: &Identity) -> Vec<u8> {
        [identity.pem(), self.intermediate.pem()].concat()
    }
}

pub(super) fn pki() -> &'static Pki {
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

pub(super) fn now() -> i64 {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    time.expect("a time").as_secs() as i64
}

pub(super) fn ec_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
    PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key")
}

pub(super) fn key_pem(key: &PKey<Private>) -> Vec<u8> {
    key.private_key_to_pem_pkcs8().expect("PEM")
}

/// A relay with certificate and key in files, and `listen` as further directives of its only
/// listener.
pub(super) fn launch(port: u16, listen: &str, relay: &str) -> Launch {
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
pub(super) fn serve(listen: &str, relay: &str) -> (u16, Relay) {
    let port = free_port();
    (port, launch(port, listen, &format!("{FILES}{relay}")).start())
}

/// A relay with the test as its remote.
pub(super) fn serve_manually() -> (u16, Relay, Peer, Receiver<TcpStream>) {
    let (peer, streams) = Peer::manual();
    let (port, relay) = serve("tls = yes", &peer.remote());
    (port, relay, peer, streams)
}

/// A client's TCP connection, below TLS.
pub(super) struct Wire {
    pub(super) tcp: TcpStream,
    /// If set, collects what would be sent.
    pub(super) hold: Option<Vec<u8>>,
    /// Sends every byte on its own.
    pub(super) dribble: bool,
}

impl Wire {
    pub(super) fn new(tcp: TcpStream) -> Wire {
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

pub(super) type Tls = SslStream<Wire>;

/// Settings of a client that speaks one version and trusts the root; the rest is the library's
/// default.
pub(super) fn settings(version: SslVersion) -> SslContextBuilder {
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
pub(super) fn new_ssl(context: &SslContext) -> Ssl {
    let mut ssl = Ssl::new(context).expect("a session");
    ssl.param_mut().set_host(HOST).expect("a name");
    ssl
}

/// Performs a handshake.
pub(super) fn shake(context: &SslContext, wire: Wire) -> Result<Tls, ssl::Error> {
    let mut stream = SslStream::new(new_ssl(context), wire).expect("a session");
    stream.connect().map(|()| stream)
}

/// A client after its handshake.
pub(super) fn client(port: u16, version: SslVersion) -> Tls {
    let stream = shake(&settings(version).build(), Wire::new(connect(port)));
    stream.unwrap_or_else(|error| panic!("no handshake with {version:?}: {error}"))
}

/// A client and the remote's end of its session, through which a word has passed.
pub(super) fn session(
    port: u16,
    version: SslVersion,
    streams: &Receiver<TcpStream>,
) -> (Tls, TcpStream) {
    let mut client = client(port, version);
    let mut end = next(streams);
    client.write_all(b"hello").expect("to send");
    let mut word = [0; 5];
    end.read_exact(&mut word).expect("to receive");
    assert_eq!(&word, b"hello");
    (client, end)
}

/// Sends and receives one word, through an echo.
pub(super) fn talk(stream: &mut Tls, word: &[u8]) {
    stream.write_all(word).expect("to send");
    let mut answer = vec![0; word.len()];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer, word);
}

/// A client that an echo has answered.
pub(super) fn served(port: u16, version: SslVersion) -> Tls {
    let mut stream = client(port, version);
    talk(&mut stream, b"hello");
    stream
}

/// The alert that the relay has sent.
pub(super) fn alert(error: &ssl::Error) -> Option<i32> {
    // OpenSSL adds SSL_AD_REASON_OFFSET to the number of the alert.
    let mut codes = error.ssl_error()?.errors().iter().map(openssl::error::Error::reason_code);
    codes.find(|code| (1000..1256).contains(code)).map(|code| code - 1000)
}

/// Reads up to close_notify, which the end of the connection must follow.
pub(super) fn read_to_end(stream: &mut Tls) -> Vec<u8> {
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
pub(super) fn hello(version: SslVersion) -> Vec<u8> {
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
pub(super) fn sealed(stream: &mut Tls, data: &[u8]) -> Vec<u8> {
    stream.get_mut().hold = Some(Vec::new());
    stream.write_all(data).expect("to encrypt");
    stream.get_mut().hold.take().expect("the records")
}

/// A client's address, as the log has it.
pub(super) fn logged(stream: &TcpStream) -> String {
    let address = stream.local_addr().expect("its address");
    format!("[{}]:{}", address.ip(), address.port())
}

/// Waits until the worker has read everything that the clients of `port` have sent.
pub(super) fn all_read(worker: i32, port: u16) {
    wait_for("the worker to read", || {
        connections_at(worker, port).iter().all(|stream| unread(stream) == 0).then_some(())
    });
}

/// How many bytes have arrived and were not read.
pub(super) fn unread(stream: &TcpStream) -> libc::c_int {
    let mut count: libc::c_int = 0;
    // SAFETY: the pointer describes `count`.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    assert_eq!(result, 0, "FIONREAD");
    count
}

/// The state of a relay's only worker when it has no connections.
pub(super) struct Baseline {
    pub(super) worker: i32,
    pub(super) descriptors: Vec<(RawFd, PathBuf)>,
}

impl Baseline {
    pub(super) fn of(relay: &Relay) -> Baseline {
        all_freed(relay);
        let worker = serving_worker(relay);
        Baseline { worker, descriptors: descriptor_names(worker) }
    }

    /// Requires that the worker returns to that state soon after `since`, and then uses no CPU
    /// time. "Soon" is shorter than the handshake timeout, which would end a busy loop as well.
    pub(super) fn expect(&self, relay: &Relay, since: Instant) {
        all_freed(relay);
        let same = || descriptor_names(self.worker) == self.descriptors;
        within(SOON.saturating_sub(since.elapsed()), || same().then_some(()));
        assert_eq!(descriptor_names(self.worker), self.descriptors);
        assert!(since.elapsed() < SOON, "freed after {:?}", since.elapsed());
        stays_idle(self.worker);
        assert_eq!(relay.workers(), [self.worker], "{}", relay.log());
    }
}
