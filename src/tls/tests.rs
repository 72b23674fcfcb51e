//! Whole sessions in memory: our side against OpenSSL's, and against one that has the keys and
//! no manners.

#[allow(dead_code, missing_docs)]
#[path = "../../tests/common/pki.rs"]
mod pki;
#[allow(missing_docs)]
#[path = "../../tests/common/sealing.rs"]
mod sealing;

use super::context::{Acceptor, Connector, Contexts, Error};
use super::material::Material;
use super::record::{Failure, Records, Secrets, Suite, Version};
use super::stream::Stream;
use super::tickets::Ratchet;
use super::Buffer;
use crate::config::tls::{Authorities, Certificate, Passphrase, RemoteTls, Tls, Verify};
use crate::os::tls::{self as library, testing};
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::ssl::{
    ErrorCode, NameType, ShutdownState, Ssl, SslContext, SslContextBuilder, SslMethod, SslOptions,
    SslRef, SslSession, SslSessionCacheMode, SslStream, SslVerifyMode, SslVersion, StatusType,
};
use openssl::symm::Cipher;
use openssl::x509::extension::AuthorityKeyIdentifier;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{CrlNumber, X509CrlBuilder, X509RevokedBuilder, X509};
use pki::Identity;
use proptest::prelude::*;
use sealing::Direction;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

/// Versions in an ACCEPT message.
const TLS12: u32 = 3;
const TLS13: u32 = 4;
const BOTH: u32 = TLS12 | TLS13 << 8;

/// Alerts, as numbers of the protocol.
mod alert {
    pub(super) const UNEXPECTED_MESSAGE: u8 = 10;
    pub(super) const BAD_RECORD_MAC: u8 = 20;
    pub(super) const RECORD_OVERFLOW: u8 = 22;
    pub(super) const HANDSHAKE_FAILURE: u8 = 40;
    pub(super) const CERTIFICATE_REVOKED: u8 = 44;
    pub(super) const CERTIFICATE_EXPIRED: u8 = 45;
    pub(super) const ILLEGAL_PARAMETER: u8 = 47;
    pub(super) const UNKNOWN_CA: u8 = 48;
    pub(super) const DECODE_ERROR: u8 = 50;
    pub(super) const PROTOCOL_VERSION: u8 = 70;
    pub(super) const UNRECOGNIZED_NAME: u8 = 112;
    pub(super) const CERTIFICATE_REQUIRED: u8 = 116;
    pub(super) const NO_APPLICATION_PROTOCOL: u8 = 120;
}

/// A suite, and who handles its records on our side.
#[derive(Clone, Copy, Debug)]
struct Choice {
    tls13: bool,
    name: &'static str,
    number: [u8; 2],
    rsa: bool,
    /// The library, whatever the side.
    library: bool,
}

const fn choice(name: &'static str, number: u16, rsa: bool, library: bool) -> Choice {
    let number = number.to_be_bytes();
    Choice { tls13: number[0] == 0x13, name, number, rsa, library }
}

const CHOICES: [Choice; 15] = [
    choice("TLS_AES_128_GCM_SHA256", 0x1301, false, false),
    choice("TLS_AES_256_GCM_SHA384", 0x1302, true, false),
    choice("TLS_CHACHA20_POLY1305_SHA256", 0x1303, false, false),
    choice("ECDHE-ECDSA-AES128-GCM-SHA256", 0xc02b, false, false),
    choice("ECDHE-ECDSA-AES256-GCM-SHA384", 0xc02c, false, false),
    choice("ECDHE-ECDSA-CHACHA20-POLY1305", 0xcca9, false, false),
    choice("ECDHE-RSA-AES128-GCM-SHA256", 0xc02f, true, false),
    choice("ECDHE-RSA-AES256-GCM-SHA384", 0xc030, true, false),
    choice("ECDHE-RSA-CHACHA20-POLY1305", 0xcca8, true, false),
    choice("AES128-GCM-SHA256", 0x009c, true, false),
    choice("AES256-GCM-SHA384", 0x009d, true, false),
    choice("TLS_AES_128_CCM_SHA256", 0x1304, false, true),
    choice("ECDHE-ECDSA-AES128-CCM", 0xc0ac, false, true),
    choice("ECDHE-RSA-AES128-SHA256", 0xc027, true, true),
    choice("ECDHE-RSA-AES256-SHA384", 0xc028, true, true),
];

/// Those whose other side [`sealing`] can be.
fn sealable() -> impl Iterator<Item = Choice> {
    CHOICES.into_iter().filter(|choice| !choice.library && choice.number[0] != 0)
}

/// An authority and certificates for `a.example`.
struct Pki {
    authority: Identity,
    ec: Identity,
    rsa: Identity,
    client: Identity,
}

/// Made once: keys of RSA take their time.
fn pki() -> &'static Pki {
    static PKI: OnceLock<Pki> = OnceLock::new();
    PKI.get_or_init(|| {
        let authority = Identity::authority("authority");
        let ec = authority.sign(&["a.example"], pki::ec_key());
        let rsa = authority.sign(&["a.example"], pki::rsa_key());
        let client = authority.sign(&["client"], pki::ec_key());
        Pki { authority, ec, rsa, client }
    })
}

/// Settings, and the files that they name.
struct Setup {
    files: Vec<(String, Vec<u8>)>,
    settings: Tls,
}

impl Setup {
    fn new(identities: &[&Identity]) -> Setup {
        let mut setup = Setup { files: Vec::new(), settings: Tls::default() };
        for (index, identity) in identities.iter().enumerate() {
            let key = identity.key.private_key_to_pem_pkcs8().unwrap();
            let chain = setup.file(&format!("{index}.pem"), pem(&[&identity.certificate]));
            let key = setup.file(&format!("{index}.key"), key);
            let certificate = Certificate { chain: Some(chain), key: Some(key), ..<_>::default() };
            setup.settings.certificates.push(certificate);
        }
        setup
    }

    fn file(&mut self, name: &str, content: Vec<u8>) -> PathBuf {
        self.files.push((name.to_owned(), content));
        name.into()
    }

    /// Clients are asked for certificates of this authority.
    fn verifying(mut self, verify: Verify, authority: &Identity) -> Setup {
        self.settings.verify = verify;
        let path = self.file("ca.pem", pem(&[&authority.certificate]));
        self.settings.authorities.file = Some(path);
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Tls)) -> Setup {
        change(&mut self.settings);
        self
    }

    /// Only this suite.
    fn only(self, choice: Choice) -> Setup {
        self.with(|tls| match choice.tls13 {
            true => tls.cipher_suites = Some(choice.name.into()),
            false => tls.ciphers = Some(choice.name.into()),
        })
    }

    fn try_acceptor(&self, strict: bool) -> Result<Acceptor, Error> {
        Acceptor::new(&self.settings, &material(&self.files), strict)
    }

    /// With keys for tickets.
    fn acceptor(&self) -> Acceptor {
        library::set_ticket_keys(Ratchet::new([7; 32], 0, 1000).keys());
        self.try_acceptor(true).unwrap()
    }
}

fn pem(certificates: &[&X509]) -> Vec<u8> {
    certificates.iter().flat_map(|one| one.to_pem().unwrap()).collect()
}

/// Files by name, without any on the disk.
fn material(files: &[(String, Vec<u8>)]) -> Material {
    let mut data = Ratchet::new([0; 32], 0, 1).encode().to_vec();
    for field in files.iter().flat_map(|(name, content)| [name.as_bytes(), content]) {
        data.extend((field.len() as u32).to_be_bytes());
        data.extend_from_slice(field);
    }
    Material::decode(&data).unwrap().0
}

/// The other side's wire.
#[derive(Debug, Default)]
struct Pipe {
    input: VecDeque<u8>,
    output: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input.read(buffer)
    }
}

impl Write for Pipe {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Our side and OpenSSL's.
struct Pair {
    ours: Stream,
    peer: SslStream<Pipe>,
    /// Lengths of the pieces in which the wire reaches us, over and over; none: as it comes.
    pieces: Vec<usize>,
    next: usize,
    /// What OpenSSL's side says as soon as it may.
    eager: Vec<u8>,
    plain: Buffer,
    /// The other side has said to us that nothing follows.
    closed: bool,
    /// Why our side has failed.
    error: Option<String>,
    done: bool,
    /// The alert that OpenSSL's side has got, or another reason for its failure.
    alert: Option<u32>,
    /// Our side has said that nothing follows.
    peer_closed: bool,
    /// Records that we have sent, and all of our bytes.
    flights: Vec<Vec<u8>>,
}

/// The alert in an error of OpenSSL, or its reason.
fn reason(error: &openssl::ssl::Error) -> u32 {
    let codes = error.ssl_error().into_iter().flat_map(|errors| errors.errors());
    let mut reasons = codes.map(|error| error.code() as u32 & 0x7f_ffff);
    let first = reasons.next().unwrap_or(0);
    std::iter::once(first).chain(reasons).find(|one| (1000..1256).contains(one)).unwrap_or(first)
}

fn got(alert: u8) -> Option<u32> {
    Some(1000 + u32::from(alert))
}

impl Pair {
    fn new(ours: Stream, peer: Ssl) -> Pair {
        let peer = SslStream::new(peer, Pipe::default()).unwrap();
        Pair {
            ours,
            peer,
            pieces: Vec::new(),
            next: 0,
            eager: Vec::new(),
            plain: Buffer::default(),
            closed: false,
            error: None,
            done: false,
            alert: None,
            peer_closed: false,
            flights: Vec::new(),
        }
    }

    /// A client of OpenSSL.
    fn server(acceptor: &Acceptor, versions: u32, client: &SslContext, name: &str) -> Pair {
        Pair::server_with(acceptor, versions, client, name, |_| ())
    }

    /// One that resumes a session.
    fn resuming(
        acceptor: &Acceptor,
        client: &SslContext,
        name: &str,
        session: &SslSession,
    ) -> Pair {
        Pair::server_with(acceptor, BOTH, client, name, |ssl| {
            library::resume(ssl, session).unwrap()
        })
    }

    fn server_with(
        acceptor: &Acceptor,
        versions: u32,
        client: &SslContext,
        name: &str,
        change: impl FnOnce(&mut SslRef),
    ) -> Pair {
        let mut ours = acceptor.accept(versions).unwrap();
        ours.want_summary();
        let mut ssl = Ssl::new(client).unwrap();
        if !name.is_empty() {
            ssl.set_hostname(name).unwrap();
        }
        change(&mut ssl);
        ssl.set_connect_state();
        Pair::new(ours, ssl)
    }

    /// A server of OpenSSL.
    fn client(connector: &Connector, server: &SslContext) -> Pair {
        let mut ours = connector.connect().unwrap();
        ours.want_summary();
        let mut ssl = Ssl::new(server).unwrap();
        ssl.set_accept_state();
        let mut pair = Pair::new(ours, ssl);
        pair.feed(&[]);
        pair
    }

    /// Hands bytes of the wire to our side, as the relay does.
    fn feed(&mut self, piece: &[u8]) {
        if self.error.is_some() {
            return;
        }
        let mut out = Buffer::default();
        let result = if self.ours.is_handshaking() {
            self.ours.handshake(piece, &mut out).map(|_| ())
        } else {
            let held = self.ours.held();
            let mut wire = vec![0; held + piece.len()];
            self.ours.take_held(&mut wire);
            wire[held..].copy_from_slice(piece);
            let result = self.ours.read(&wire, &mut self.plain, &mut out);
            result.map(|closed| self.closed = closed)
        };
        self.sent(&out);
        self.error = result.err();
        if !self.ours.is_handshaking() && self.ours.has_unread() {
            self.feed(&[]);
        }
    }

    fn sent(&mut self, out: &Buffer) {
        if !out.is_empty() {
            self.flights.push(out.filled().to_vec());
            self.peer.get_mut().input.extend(out.filled());
        }
    }

    /// What the other side has written, taken from the wire.
    fn wire(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.peer.get_mut().output)
    }

    fn feed_all(&mut self, mut wire: &[u8]) {
        while !wire.is_empty() {
            let length = match self.pieces.len() {
                0 => wire.len(),
                count => {
                    self.next += 1;
                    self.pieces[self.next % count].clamp(1, wire.len())
                }
            };
            let (piece, rest) = wire.split_at(length);
            self.feed(piece);
            wire = rest;
        }
    }

    /// Brings what the other side has written to ours; true if there was anything.
    fn pass(&mut self) -> bool {
        let wire = self.wire();
        self.feed_all(&wire);
        !wire.is_empty()
    }

    /// As far as the handshake goes.
    fn shake(mut self) -> Pair {
        loop {
            if !self.done && self.alert.is_none() {
                match self.peer.do_handshake() {
                    Ok(()) => {
                        self.done = true;
                        let eager = std::mem::take(&mut self.eager);
                        if !eager.is_empty() {
                            self.peer.write_all(&eager).unwrap();
                        }
                    }
                    Err(error) if error.code() == ErrorCode::WANT_READ => {}
                    Err(error) => self.alert = Some(reason(&error)),
                }
            }
            if !self.pass() {
                return self;
            }
        }
    }

    /// The whole handshake, which must succeed.
    fn established(self) -> Pair {
        let pair = self.shake();
        assert_eq!((&pair.error, pair.alert), (&None, None));
        assert!(pair.done && !pair.ours.is_handshaking());
        pair
    }

    /// The handshake fails: why on our side, and the alert on the other.
    fn refused(self) -> (String, Option<u32>) {
        let mut pair = self.shake();
        // A client of TLS 1.3 learns it later.
        pair.peer_reads();
        (pair.error.expect("a failure"), pair.alert)
    }

    fn write(&mut self, data: &[u8]) {
        let mut out = Buffer::default();
        self.ours.write(data, &mut out).unwrap();
        assert_eq!(out.is_empty(), data.is_empty());
        self.sent(&out);
    }

    fn peer_writes(&mut self, data: &[u8]) {
        if !data.is_empty() {
            self.peer.write_all(data).unwrap();
        }
        self.pass();
    }

    /// All that the other side can read now.
    fn peer_reads(&mut self) -> Vec<u8> {
        let (mut all, mut buffer) = (Vec::new(), [0; 20_000]);
        loop {
            match self.peer.ssl_read(&mut buffer) {
                Ok(count) => all.extend_from_slice(&buffer[..count]),
                Err(error) => {
                    match error.code() {
                        ErrorCode::WANT_READ => {}
                        ErrorCode::ZERO_RETURN => self.peer_closed = true,
                        _ => self.alert = self.alert.or(Some(reason(&error))),
                    }
                    return all;
                }
            }
        }
    }

    /// All that our side has read.
    fn reads(&mut self) -> Vec<u8> {
        let all = self.plain.filled().to_vec();
        self.plain.clear();
        all
    }

    /// Data in both directions.
    fn talk(&mut self, sizes: &[usize]) {
        for &size in sizes {
            let data = pattern(size);
            self.peer_writes(&data);
            assert_eq!(self.error, None);
            assert!(self.reads() == data, "{size} bytes from OpenSSL");
            self.write(&data);
            assert!(self.peer_reads() == data, "{size} bytes to OpenSSL");
            assert_eq!(self.alert, None);
            self.pass();
        }
        assert_eq!((self.closed, self.peer_closed), (false, false));
    }

    fn ssl(&self) -> &SslRef {
        self.peer.ssl()
    }

    /// Who handles our records.
    fn handler(&self) -> String {
        format!("{:?}", self.ours)
    }

    /// Our side has failed, and has told the other side with this alert; nothing was delivered.
    fn broken_with(mut self, alert: u8) {
        assert!(self.error.is_some(), "expected alert {alert}, and no failure");
        assert_eq!(self.reads(), b"");
        self.peer_reads();
        assert_eq!(self.alert, got(alert), "{:?}", self.error);
        let mut out = Buffer::default();
        assert!(self.ours.write(b"x", &mut out).is_err());
        assert!(self.ours.read(b"", &mut self.plain, &mut out).is_err());
        self.ours.close(&mut out);
        assert!(out.is_empty());
    }

    /// Becomes the other side, from here on: with its keys. The secrets come from `lines`.
    fn seized(&self, choice: Choice, lines: &Lines) -> Direction {
        if choice.tls13 {
            return Direction::tls13(choice.number, &lines.secret("CLIENT_TRAFFIC_SECRET_0"));
        }
        let (mut client, mut server) = ([0; 32], [0; 32]);
        self.ssl().client_random(&mut client);
        self.ssl().server_random(&mut server);
        let master = lines.secret("CLIENT_RANDOM");
        let [client, _] = Direction::tls12(choice.number, &master, &client, &server);
        client
    }
}

/// Data that shows if a part of it is missing.
fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at ^ at >> 8 ^ size) as u8).collect()
}

/// What OpenSSL says about its secrets.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn secret(&self, label: &str) -> Vec<u8> {
        let lines = self.0.lock().unwrap();
        let line = lines.iter().rfind(|line| line.starts_with(label)).expect("the secret");
        let text = line.split(' ').nth(2).unwrap();
        (0..text.len() / 2)
            .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
            .collect()
    }

    fn collect(&self, builder: &mut SslContextBuilder) {
        let lines = self.0.clone();
        builder.set_keylog_callback(move |_, line| lines.lock().unwrap().push(line.to_owned()));
    }
}

/// A client of OpenSSL that trusts our authority.
fn client(configure: impl FnOnce(&mut SslContextBuilder)) -> SslContext {
    let mut builder = SslContextBuilder::new(SslMethod::tls_client()).unwrap();
    let mut store = X509StoreBuilder::new().unwrap();
    store.add_cert(pki().authority.certificate.clone()).unwrap();
    builder.set_cert_store(store.build());
    builder.set_verify(SslVerifyMode::PEER);
    configure(&mut builder);
    builder.build()
}

fn version(builder: &mut SslContextBuilder, version: SslVersion) {
    builder.set_min_proto_version(Some(version)).unwrap();
    builder.set_max_proto_version(Some(version)).unwrap();
}

/// Only this suite.
fn only(builder: &mut SslContextBuilder, choice: Choice) {
    if choice.tls13 {
        version(builder, SslVersion::TLS1_3);
        builder.set_ciphersuites(choice.name).unwrap();
    } else {
        version(builder, SslVersion::TLS1_2);
        builder.set_cipher_list(choice.name).unwrap();
    }
}

fn show(builder: &mut SslContextBuilder, identity: &Identity) {
    builder.set_certificate(&identity.certificate).unwrap();
    builder.set_private_key(&identity.key).unwrap();
}

/// A server of OpenSSL with this suite.
fn server(choice: Choice, configure: impl FnOnce(&mut SslContextBuilder)) -> SslContext {
    let mut builder = SslContextBuilder::new(SslMethod::tls_server()).unwrap();
    show(&mut builder, if choice.rsa { &pki().rsa } else { &pki().ec });
    only(&mut builder, choice);
    builder.set_session_id_context(b"test").unwrap();
    configure(&mut builder);
    builder.build()
}

/// An acceptor and a client for a suite.
fn server_and_client(choice: Choice, lines: &Lines) -> (Acceptor, SslContext) {
    let identity = if choice.rsa { &pki().rsa } else { &pki().ec };
    let acceptor = Setup::new(&[identity]).only(choice).acceptor();
    let client = client(|builder| {
        only(builder, choice);
        lines.collect(builder);
    });
    (acceptor, client)
}

/// A session with our side as the server.
fn session(choice: Choice) -> Pair {
    let (acceptor, client) = server_and_client(choice, &Lines::default());
    Pair::server(&acceptor, BOTH, &client, "a.example").established()
}

/// The same, with the other side's keys.
fn seized(choice: Choice) -> (Pair, Direction) {
    let lines = Lines::default();
    let (acceptor, client) = server_and_client(choice, &lines);
    let pair = Pair::server(&acceptor, BOTH, &client, "a.example").established();
    let direction = pair.seized(choice, &lines);
    (pair, direction)
}

/// Settings of a remote, for a server named `a.example` of our authority.
fn remote(change: impl FnOnce(&mut RemoteTls)) -> Connector {
    let mut settings = RemoteTls {
        authorities: Authorities { file: Some("ca.pem".into()), ..<_>::default() },
        verify: true,
        server_name: Some("a.example".into()),
        certificate: Certificate::default(),
        ciphers: None,
        cipher_suites: None,
    };
    change(&mut settings);
    let client = &pki().client;
    let files = [
        ("ca.pem".to_owned(), pem(&[&pki().authority.certificate])),
        ("client.pem".to_owned(), pem(&[&client.certificate])),
        ("client.key".to_owned(), client.key.private_key_to_pem_pkcs8().unwrap()),
    ];
    Connector::new(&settings, &material(&files)).unwrap()
}

fn connector(choice: Choice) -> Connector {
    remote(|settings| match choice.tls13 {
        true => settings.cipher_suites = Some(choice.name.into()),
        false => settings.ciphers = Some(choice.name.into()),
    })
}

/// A session with our side as the client.
fn client_session(choice: Choice) -> Pair {
    Pair::client(&connector(choice), &server(choice, |_| ())).established()
}

const SIZES: [usize; 14] =
    [0, 1, 2, 15, 16, 17, 100, 1000, 16383, 16384, 16385, 32768, 32769, 100_000];

#[test]
fn data_goes_both_ways_with_every_suite_as_the_server() {
    for choice in CHOICES {
        let mut pair = session(choice);
        let handler = if choice.library { "Stream(library)" } else { "Stream(records)" };
        assert_eq!(pair.handler(), handler, "{choice:?}");
        let summary = pair.ours.summary().unwrap().clone();
        assert_eq!(summary.version, if choice.tls13 { "TLSv1.3" } else { "TLSv1.2" });
        assert_eq!(summary.cipher, choice.name);
        assert_eq!(summary.server_name.as_deref(), Some("a.example"));
        assert!(!summary.resumed);
        pair.talk(&SIZES);
    }
}

#[test]
fn data_goes_both_ways_with_every_suite_as_the_client() {
    for choice in CHOICES {
        let mut pair = client_session(choice);
        // Tickets of TLS 1.3 come later, and are the library's matter.
        let ours = !choice.library && !choice.tls13;
        let handler = if ours { "Stream(records)" } else { "Stream(library)" };
        assert_eq!(pair.handler(), handler, "{choice:?}");
        assert_eq!(pair.ours.summary().unwrap().cipher, choice.name);
        assert!(pair.ours.summary().unwrap().subject.as_ref().unwrap().contains("CN=a.example"));
        pair.talk(&SIZES);
    }
}

#[test]
fn every_byte_may_come_alone() {
    for choice in CHOICES {
        let (acceptor, client) = server_and_client(choice, &Lines::default());
        let mut pair = Pair::server(&acceptor, BOTH, &client, "");
        pair.pieces = vec![1];
        pair.eager = b"at once".to_vec();
        let mut pair = pair.established();
        assert_eq!(pair.reads(), b"at once");
        pair.talk(&[1, 100, 20_000]);
        let connector = connector(choice);
        let mut pair = Pair::client(&connector, &server(choice, |_| ()));
        pair.pieces = vec![1];
        let mut pair = pair.established();
        pair.talk(&[1, 100, 20_000]);
    }
}

/// What the two sides do in turn.
#[derive(Clone, Debug)]
enum Turn {
    /// OpenSSL's side writes; what it has written is passed on only later.
    Theirs(usize),
    Ours(usize),
    /// OpenSSL's side takes new keys, and wants that of us or not.
    Update(bool),
    Pass,
}

fn turn() -> impl Strategy<Value = Turn> {
    let size = || prop_oneof![0usize..40, 0usize..3000, 0usize..100_000, Just(16384usize)];
    prop_oneof![
        4 => size().prop_map(Turn::Theirs),
        4 => size().prop_map(Turn::Ours),
        1 => any::<bool>().prop_map(Turn::Update),
        2 => Just(Turn::Pass),
    ]
}

fn take_turns(pair: &mut Pair, turns: &[Turn], eager: usize) -> Result<(), TestCaseError> {
    let (mut theirs, mut ours) = (pattern(eager), Vec::new());
    let (mut we_got, mut they_got) = (Vec::new(), Vec::new());
    let tls13 = pair.ssl().version2() == Some(SslVersion::TLS1_3);
    for turn in turns {
        match turn {
            Turn::Theirs(0) | Turn::Ours(0) => {}
            Turn::Theirs(size) => {
                let data = pattern(*size);
                pair.peer.write_all(&data).unwrap();
                theirs.extend(data);
            }
            Turn::Ours(size) => {
                let data = pattern(*size);
                pair.write(&data);
                ours.extend(data);
            }
            Turn::Update(request) if tls13 => {
                // One that was announced before has not been sent yet.
                if testing::key_update(pair.ssl(), *request) {
                    pair.peer.write_all(b"u").unwrap();
                    theirs.push(b'u');
                }
            }
            Turn::Update(_) => {}
            Turn::Pass => {
                pair.pass();
                they_got.extend(pair.peer_reads());
            }
        }
    }
    // What the other side reads may make it answer.
    for _ in 0..3 {
        pair.pass();
        they_got.extend(pair.peer_reads());
    }
    we_got.extend(pair.reads());
    prop_assert_eq!((&pair.error, pair.alert), (&None, None));
    prop_assert!(we_got == theirs, "{} of {} bytes came", we_got.len(), theirs.len());
    prop_assert!(they_got == ours, "{} of {} bytes arrived", they_got.len(), ours.len());
    Ok(())
}

proptest! {
    #[test]
    fn the_wire_may_be_cut_anywhere(
        which in 0..CHOICES.len(),
        turns in prop::collection::vec(turn(), 0..10),
        pieces in prop::collection::vec(prop_oneof![1usize..10, 1usize..2000, 1usize..60_000], 0..6),
        eager in prop_oneof![Just(0usize), 1usize..40_000],
        ours_connects: bool,
    ) {
        let choice = CHOICES[which];
        let mut pair = if ours_connects {
            Pair::client(&connector(choice), &server(choice, |_| ()))
        } else {
            let (acceptor, client) = server_and_client(choice, &Lines::default());
            Pair::server(&acceptor, BOTH, &client, "a.example")
        };
        pair.pieces = pieces;
        pair.eager = pattern(eager);
        let mut pair = pair.established();
        take_turns(&mut pair, &turns, eager)?;
    }

    #[test]
    fn a_change_on_the_wire_is_never_taken_for_data(
        which in 0..CHOICES.len(),
        at: prop::sample::Index,
        bit in 0u8..8,
        size in 0usize..50,
        ours_connects: bool,
    ) {
        let choice = CHOICES[which];
        let mut pair =
            if ours_connects { client_session(choice) } else { session(choice) };
        pair.peer_writes(b"good");
        pair.peer.write_all(&pattern(size + 1)).unwrap();
        let mut wire = pair.wire();
        let at = at.index(wire.len());
        // The minor version has a test of its own.
        prop_assume!(at != 2);
        wire[at] ^= 1 << bit;
        pair.feed_all(&wire);
        prop_assert_eq!(pair.reads(), b"good");
        // A length may now be longer than what has come.
        prop_assert!(pair.error.is_some() || [3, 4].contains(&at));
    }
}

#[test]
fn a_changed_bit_is_answered_with_bad_record_mac() {
    for choice in sealable() {
        let length = {
            let mut pair = session(choice);
            pair.peer.write_all(b"payload").unwrap();
            pair.wire().len()
        };
        for at in 5..length {
            let mut pair = session(choice);
            pair.peer.write_all(b"payload").unwrap();
            let mut wire = pair.wire();
            wire[at] ^= 1 << (at % 8);
            pair.feed_all(&wire);
            pair.broken_with(alert::BAD_RECORD_MAC);
        }
    }
}

/// RFC 8446 section 5.2 and RFC 5246 section 6.2.1 say 3.3, and it is authenticated.
#[test]
fn a_changed_minor_version_in_a_header_is_refused() {
    for choice in sealable() {
        let mut pair = session(choice);
        pair.peer.write_all(b"payload").unwrap();
        let mut wire = pair.wire();
        wire[2] ^= 1;
        pair.feed_all(&wire);
        assert!(pair.error.is_some(), "{choice:?}: version 3.{} was taken", wire[2]);
    }
}

#[test]
fn records_out_of_order_are_refused() {
    for choice in sealable() {
        for order in [&[1usize][..], &[0, 0], &[0, 2], &[1, 0]] {
            let (mut pair, mut sealer) = seized(choice);
            let records: Vec<_> = (0..3).map(|at| sealer.seal(23, &[at], 0)).collect();
            let (last, first) = order.split_last().unwrap();
            // A first one that is in its place is data.
            if *order != [1, 0] {
                first.iter().for_each(|&at| pair.feed_all(&records[at]));
                assert_eq!(pair.reads(), [&[0u8][..], &[]][usize::from(first.is_empty())]);
                pair.feed_all(&records[*last]);
            } else {
                pair.feed_all(&records[1]);
            }
            pair.broken_with(alert::BAD_RECORD_MAC);
        }
    }
}

#[test]
fn a_record_that_is_cut_off_waits_for_its_rest() {
    for choice in CHOICES {
        let mut pair = session(choice);
        pair.peer.write_all(b"first").unwrap();
        pair.peer.write_all(b"second").unwrap();
        let wire = pair.wire();
        let (most, rest) = wire.split_at(wire.len() - 1);
        pair.feed_all(most);
        assert_eq!((pair.reads(), &pair.error), (b"first".to_vec(), &None));
        pair.feed_all(rest);
        assert_eq!(pair.reads(), b"second");
    }
}

#[test]
fn keys_are_updated_as_the_client_wishes() {
    for choice in CHOICES.into_iter().filter(|choice| choice.tls13) {
        for request in [false, true] {
            let mut pair = session(choice);
            for round in 0..5 {
                let before = pair.flights.len();
                assert!(testing::key_update(pair.ssl(), request));
                pair.peer_writes(&pattern(round * 20_000 + 1));
                assert!(pair.reads() == pattern(round * 20_000 + 1));
                // The library answers with the next data.
                if !choice.library {
                    assert_eq!(pair.flights.len() - before, usize::from(request));
                }
                pair.talk(&[1, 50_000]);
            }
        }
    }
}

#[test]
fn our_client_follows_the_updates_of_a_server() {
    for choice in CHOICES.into_iter().filter(|choice| choice.tls13) {
        let mut pair = client_session(choice);
        for request in [false, true, true, false] {
            assert!(testing::key_update(pair.ssl(), request));
            pair.talk(&[1, 20_000]);
        }
    }
}

const UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const UPDATE_REQUESTED: [u8; 5] = [24, 0, 0, 1, 1];

#[test]
fn key_updates_in_a_row_have_a_limit() {
    for choice in sealable().filter(|choice| choice.tls13) {
        for message in [UPDATE, UPDATE_REQUESTED] {
            let (mut pair, mut sealer) = seized(choice);
            let update = |sealer: &mut Direction| {
                let record = sealer.seal(22, &message, 0);
                sealer.update();
                record
            };
            // With data in between there may be any number.
            for _ in 0..100 {
                let record = update(&mut sealer);
                pair.feed_all(&record);
                pair.feed_all(&sealer.seal(23, b"x", 0));
            }
            assert_eq!(pair.reads(), [b'x'; 100]);
            let many: Vec<u8> = (0..32).flat_map(|_| update(&mut sealer)).collect();
            let before = pair.flights.len();
            pair.feed_all(&many);
            assert_eq!(pair.error, None);
            // Requests that come together have one answer.
            let answers = pair.flights.len() - before;
            assert_eq!(answers, usize::from(message == UPDATE_REQUESTED));
            pair.write(b"still here");
            assert_eq!(pair.peer_reads(), b"still here");
            let last = update(&mut sealer);
            pair.feed_all(&last);
            pair.broken_with(alert::UNEXPECTED_MESSAGE);
        }
    }
}

/// RFC 8446 section 5.1: a message before new keys ends its record. 2 is no request.
#[test]
fn messages_that_are_no_key_update_end_a_session() {
    let wrong: [&[u8]; 10] = [
        &[],
        &[24, 0, 0, 1, 2],
        &[24, 0, 0, 0],
        &[24, 0, 0, 1],
        &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0],
        &[1, 0, 0, 0],
        &[4, 0, 0, 0],
        &[20, 0, 0, 1, 0],
        &[13; 300],
        &[0, 0, 0, 0],
    ];
    for choice in sealable() {
        // A HelloRequest is answered by TLS 1.2, and a ClientHello.
        let answered = |message: &&[u8]| matches!(message.first(), Some(0 | 1)) && !choice.tls13;
        for message in wrong.into_iter().filter(|message| !answered(message)) {
            let (mut pair, mut sealer) = seized(choice);
            pair.feed_all(&sealer.seal(22, message, 0));
            let key_update = choice.tls13 && message == [24, 0, 0, 1, 2];
            pair.broken_with(if key_update {
                alert::ILLEGAL_PARAMETER
            } else {
                alert::UNEXPECTED_MESSAGE
            });
        }
        for kind in [0, 20, 24, 255] {
            let (mut pair, mut sealer) = seized(choice);
            pair.feed_all(&sealer.seal(kind, &[1], 0));
            pair.broken_with(alert::UNEXPECTED_MESSAGE);
        }
    }
}

#[test]
fn a_client_that_has_said_goodbye_can_still_be_told_something() {
    for choice in CHOICES {
        for mut pair in [session(choice), client_session(choice)] {
            pair.peer.write_all(b"last words").unwrap();
            let _ = pair.peer.shutdown();
            // Nothing that follows counts, together with it or later.
            let wire = [&pair.wire()[..], b"rubbish"].concat();
            pair.feed_all(&wire);
            pair.feed_all(b"rubbish");
            assert_eq!((pair.reads(), pair.closed), (b"last words".to_vec(), true));
            assert_eq!(pair.error, None);
            pair.write(&pattern(50_000));
            assert!(pair.peer_reads() == pattern(50_000), "{choice:?}");
            let mut out = Buffer::default();
            pair.ours.close(&mut out);
            pair.sent(&out);
            assert!(pair.peer_reads().is_empty());
            assert_eq!((pair.peer_closed, pair.alert), (true, None));
        }
    }
}

#[test]
fn after_our_goodbye_the_other_side_can_still_tell_something() {
    for choice in CHOICES {
        for mut pair in [session(choice), client_session(choice)] {
            pair.write(b"last words");
            let mut out = Buffer::default();
            pair.ours.close(&mut out);
            pair.sent(&out);
            assert_eq!(pair.peer_reads(), b"last words");
            assert_eq!((pair.peer_closed, pair.alert), (true, None));
            pair.peer_writes(&pattern(50_000));
            assert!(pair.reads() == pattern(50_000));
            assert!(!pair.closed);
            assert_eq!(pair.peer.shutdown().map_err(|error| reason(&error)).ok(), {
                Some(openssl::ssl::ShutdownResult::Received)
            });
            pair.pass();
            assert_eq!((pair.closed, pair.error), (true, None), "{choice:?}");
        }
    }
}

#[test]
fn empty_records_are_taken_but_not_forever() {
    for choice in sealable() {
        for padding in [0, 1, 1000] {
            let (mut pair, mut sealer) = seized(choice);
            let empty: Vec<u8> = (0..32).flat_map(|_| sealer.seal(23, b"", padding)).collect();
            pair.feed_all(&empty);
            pair.feed_all(&sealer.seal(23, b"data", 0));
            assert_eq!((pair.reads(), &pair.error), (b"data".to_vec(), &None));
            let empty: Vec<u8> = (0..32).flat_map(|_| sealer.seal(23, b"", padding)).collect();
            pair.feed_all(&empty);
            assert_eq!(pair.error, None);
            pair.feed_all(&sealer.seal(23, b"", padding));
            pair.broken_with(alert::UNEXPECTED_MESSAGE);
        }
    }
}

#[test]
fn records_have_a_largest_length() {
    for choice in sealable() {
        let (mut pair, mut sealer) = seized(choice);
        pair.feed_all(&sealer.seal(23, &pattern(16384), 0));
        assert!(pair.reads() == pattern(16384));
        pair.feed_all(&sealer.seal(23, &pattern(16385), 0));
        pair.broken_with(alert::RECORD_OVERFLOW);
        // The header alone is enough, as nobody should have to keep so much.
        let most: u16 = if choice.tls13 { 16384 + 256 } else { 16384 + 2048 };
        let (mut pair, _) = seized(choice);
        pair.feed_all(&[&[23, 3, 3][..], &(most + 1).to_be_bytes()].concat());
        pair.broken_with(alert::RECORD_OVERFLOW);
        let (mut pair, _) = seized(choice);
        pair.feed_all(&[&[23, 3, 3][..], &most.to_be_bytes()].concat());
        assert_eq!(pair.error, None);
        pair.feed_all(&vec![0; usize::from(most)]);
        pair.broken_with(alert::BAD_RECORD_MAC);
        // Too short for a tag.
        let (mut pair, sealer) = seized(choice);
        let explicit = if choice.tls13 || choice.number[0] == 0xcc { 0 } else { 8 };
        pair.feed_all(&[23, 3, 3, 0, explicit + 15]);
        pair.broken_with(alert::BAD_RECORD_MAC);
        drop(sealer);
    }
}

#[test]
fn padding_is_not_data_and_a_record_has_a_type() {
    for choice in sealable().filter(|choice| choice.tls13) {
        let (mut pair, mut sealer) = seized(choice);
        for padding in [1, 15, 16, 255, 4000] {
            pair.feed_all(&sealer.seal(23, b"data\0\0", padding));
            assert_eq!(pair.reads(), b"data\0\0");
        }
        pair.feed_all(&sealer.seal_inner(23, &[0; 100]));
        pair.broken_with(alert::UNEXPECTED_MESSAGE);
        let (mut pair, mut sealer) = seized(choice);
        pair.feed_all(&sealer.seal_inner(23, &[]));
        pair.broken_with(alert::UNEXPECTED_MESSAGE);
    }
}

#[test]
fn what_is_no_record_ends_a_session() {
    let rubbish: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n",
        &[23, 2, 3, 0, 20, 0],
        &[24, 3, 3, 0, 20, 0],
        &[20, 3, 3, 0, 1, 1],
        &[0; 5],
        &[0xff; 5],
    ];
    for choice in sealable() {
        for bytes in rubbish {
            let mut pair = session(choice);
            pair.feed_all(bytes);
            pair.broken_with(alert::UNEXPECTED_MESSAGE);
        }
    }
    for choice in CHOICES.into_iter().filter(|choice| choice.library) {
        for bytes in rubbish {
            let mut pair = session(choice);
            pair.feed_all(bytes);
            // The library waits for as much as a header seems to announce, but not in TLS 1.3.
            assert_eq!(pair.reads(), b"");
            assert!(pair.error.is_some() || bytes.len() == 6, "{choice:?} {bytes:?}");
        }
    }
}

#[test]
fn an_alert_that_nobody_has_sealed_is_no_goodbye() {
    for choice in sealable() {
        for record in [&[21, 3, 3, 0, 2, 1, 0][..], &[21, 3, 3, 0, 2, 2, 40], &[21, 3, 3, 0, 0]] {
            let mut pair = session(choice);
            pair.feed_all(record);
            assert!(!pair.closed);
            let expected =
                if choice.tls13 { alert::UNEXPECTED_MESSAGE } else { alert::BAD_RECORD_MAC };
            pair.broken_with(expected);
        }
        let mut pair = session(choice);
        pair.feed_all(&[&[21, 3, 3, 0, 26][..], &[0; 26]].concat());
        assert!(!pair.closed && pair.error.is_some());
    }
}

#[test]
fn alerts_are_understood() {
    for choice in sealable() {
        // user_canceled, and in TLS 1.2 any warning, is followed by something.
        let harmless = if choice.tls13 { [[1, 90], [2, 90]] } else { [[1, 90], [1, 41]] };
        let (mut pair, mut sealer) = seized(choice);
        for alert in harmless {
            pair.feed_all(&sealer.seal(21, &alert, 0));
        }
        pair.feed_all(&sealer.seal(23, b"data", 0));
        assert_eq!((pair.reads(), &pair.error), (b"data".to_vec(), &None));
        // The level of a close_notify means nothing.
        pair.feed_all(&sealer.seal(21, &[2, 0], 0));
        assert!(pair.closed);
        for alert in [[2, 40], if choice.tls13 { [1, 40] } else { [2, 10] }] {
            let (mut pair, mut sealer) = seized(choice);
            let before = pair.flights.len();
            pair.feed_all(&sealer.seal(21, &alert, 0));
            assert_eq!(pair.error, Some(Failure::Alert(alert[1]).to_string()));
            assert_eq!(pair.flights.len(), before, "an answer to an alert");
        }
        for alert in [&[][..], &[1], &[1, 0, 0], &[1, 0, 1, 0]] {
            let (mut pair, mut sealer) = seized(choice);
            pair.feed_all(&sealer.seal(21, alert, 0));
            assert!(!pair.closed);
            pair.broken_with(alert::DECODE_ERROR);
        }
    }
}

/// OpenSSL gives up when it may not negotiate again; what matters is that it is told so.
#[test]
fn a_client_that_negotiates_again_is_told_that_we_do_not() {
    const NO_RENEGOTIATION: u32 = 339;
    for choice in CHOICES.into_iter().filter(|choice| !choice.tls13) {
        // Two ciphers make a short ClientHello.
        let mut pair = session(choice);
        assert!(testing::renegotiate(pair.ssl()));
        assert!(pair.peer.do_handshake().is_err());
        pair.pass();
        assert_eq!(pair.error, None, "{choice:?}");
        let error = pair.peer.do_handshake().unwrap_err();
        assert_eq!(reason(&error), NO_RENEGOTIATION, "{choice:?}");
        pair.pass();
        assert_eq!(pair.reads(), b"");
        let alert = pair.error.expect("an end");
        assert!(alert.contains("40") || alert.contains("handshake failure"), "{alert}");
    }
}

#[test]
fn a_client_hello_in_a_session_does_not_break_it() {
    for choice in sealable().filter(|choice| !choice.tls13) {
        let (mut pair, mut sealer) = seized(choice);
        for length in [0, 1, 50, 255] {
            let hello = [&[1, 0, 0, length][..], &vec![3; usize::from(length)]].concat();
            let before = pair.flights.len();
            pair.feed_all(&sealer.seal(22, &hello, 0));
            assert_eq!((&pair.error, pair.flights.len() - before), (&None, 1));
        }
        pair.feed_all(&sealer.seal(23, b"as before", 0));
        assert_eq!((pair.reads(), pair.error), (b"as before".to_vec(), None));
    }
}

/// A ClientHello with OpenSSL's usual ciphers, and one with TLS 1.3 besides.
#[test]
fn a_client_that_offers_everything_again_is_told_that_we_do_not() {
    const NO_RENEGOTIATION: u32 = 339;
    let acceptor = Setup::new(&[&pki().ec]).acceptor();
    let short = client(|builder| version(builder, SslVersion::TLS1_2));
    for client in [short, client(|_| ())] {
        let mut pair = Pair::server(&acceptor, TLS12, &client, "a.example").established();
        assert!(testing::renegotiate(pair.ssl()));
        assert!(pair.peer.do_handshake().is_err());
        pair.pass();
        assert_eq!(pair.error, None);
        assert_eq!(reason(&pair.peer.do_handshake().unwrap_err()), NO_RENEGOTIATION);
    }
}

/// One with a ticket has more than 256 bytes.
#[test]
fn a_long_client_hello_in_a_session_does_not_break_it() {
    for choice in sealable().filter(|choice| !choice.tls13) {
        let (mut pair, mut sealer) = seized(choice);
        let hello = [&[1, 0, 1, 200][..], &[3; 456]].concat();
        pair.feed_all(&sealer.seal(22, &hello, 0));
        pair.feed_all(&sealer.seal(23, b"as before", 0));
        assert_eq!((pair.reads(), pair.error), (b"as before".to_vec(), None), "{choice:?}");
    }
}

#[test]
fn a_server_that_negotiates_again_is_told_that_we_do_not() {
    for choice in CHOICES.into_iter().filter(|choice| !choice.tls13) {
        let mut pair = client_session(choice);
        assert!(testing::renegotiate(pair.ssl()));
        let _ = pair.peer.do_handshake();
        pair.pass();
        assert_eq!(pair.error, None, "{choice:?}");
        // The answer is there, and OpenSSL's server goes on or gives up as it likes.
        pair.peer_reads();
        pair.pass();
        assert_eq!(pair.reads(), b"");
    }
}

#[test]
fn new_keys_are_taken_before_the_old_ones_are_worn_out() {
    for choice in sealable() {
        let (version, before) = match choice.tls13 {
            true => (Version::Tls13, (1 << 23) - 2),
            false => (Version::Tls12, (1 << 23) - 2),
        };
        let suite = Suite::of(version, choice.number).unwrap();
        let length = sealing::Suite { tls13: choice.tls13, number: choice.number }.hash().1;
        let (secret, random) = ([3; 48], [4; 32]);
        let traffic = choice.tls13.then_some([&secret[..length], &secret[..length]]);
        let secrets = Secrets {
            traffic,
            master: Some([&secret, &random, &random]),
            server: true,
            sent: before,
            received: 0,
        };
        let mut records = Records::new(suite, &secrets).unwrap();
        let [_, server] = Direction::tls12(choice.number, &secret, &random, &random);
        let mut opener = match choice.tls13 {
            true => Direction::tls13(choice.number, &secret[..length]),
            false => server,
        };
        opener.sequence = before;
        let mut out = Buffer::default();
        records.write(&pattern(5 * 16384), &mut out).unwrap();
        records.close(&mut out);
        let (mut wire, mut data, mut updates) = (out.filled().to_vec(), Vec::new(), Vec::new());
        while let Some((kind, content)) = opener.open(&mut wire) {
            match kind {
                23 => data.extend(content),
                22 => {
                    assert_eq!(content, UPDATE);
                    updates.push(data.len());
                    opener.update();
                }
                _ => assert_eq!((kind, &content[..]), (21, &[1, 0][..])),
            }
        }
        assert!(data == pattern(5 * 16384));
        // After two records, and no more.
        assert_eq!(updates, if choice.tls13 { vec![2 * 16384] } else { vec![] });
    }
}

/// The random of a ServerHello that is a HelloRetryRequest (RFC 8446 section 4.1.3).
const RETRY: [u8; 4] = [0xcf, 0x21, 0xad, 0x74];

fn has_retry(pair: &Pair) -> bool {
    pair.flights[0].windows(4).any(|window| window == RETRY)
}

#[test]
fn a_client_may_have_to_try_again_with_another_group() {
    for choice in CHOICES.into_iter().filter(|choice| choice.tls13) {
        for (ours, theirs, retry) in [
            (Some("X25519"), "P-384:X25519", true),
            (Some("P-384"), "P-256:P-384", true),
            (None, "P-521:P-256", true),
            (Some("P-384:X25519"), "P-384:X25519", false),
        ] {
            let identity = if choice.rsa { &pki().rsa } else { &pki().ec };
            let setup = Setup::new(&[identity]).only(choice);
            let acceptor = setup.with(|tls| tls.groups = ours.map(str::to_owned)).acceptor();
            let client = client(|builder| {
                only(builder, choice);
                builder.set_groups_list(theirs).unwrap();
            });
            for pieces in [vec![], vec![1]] {
                let mut pair = Pair::server(&acceptor, BOTH, &client, "a.example");
                pair.eager = b"soon".to_vec();
                pair.pieces = pieces;
                let mut pair = pair.established();
                assert_eq!(has_retry(&pair), retry);
                assert_eq!(pair.reads(), b"soon");
                pair.talk(&[1, 50_000]);
            }
        }
    }
    let acceptor = Setup::new(&[&pki().ec]).with(|tls| tls.groups = Some("X25519".into()));
    let client = client(|builder| builder.set_groups_list("P-384").unwrap());
    let pair = Pair::server(&acceptor.acceptor(), BOTH, &client, "");
    assert_eq!(pair.refused().1, got(alert::HANDSHAKE_FAILURE));
}

/// How many records were sent at the end of the handshake, and how many have come: every way in
/// which a handshake of TLS 1.3 can end.
#[test]
fn the_numbers_of_the_first_records_are_right_however_the_handshake_went() {
    // A certificate whose ticket takes more than one record.
    let names: Vec<String> = (0..700).map(|number| format!("{number:030}.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let large = pki().authority.sign(&names, pki::ec_key());
    let other = pki().authority.sign(&["b.example"], pki::rsa_key());
    for choice in sealable().filter(|choice| !choice.rsa) {
        for case in 0..128u32 {
            let [tickets, keys, retry, asked, shown, eager, named] =
                [0, 1, 2, 3, 4, 5, 6].map(|bit| case >> bit & 1 == 1);
            // Without being asked nothing is shown, and without tickets keys mean nothing.
            if shown && !asked || keys && !tickets || (retry && !choice.tls13) {
                continue;
            }
            if named && !choice.tls13 {
                // The other name's key is of the other kind.
                continue;
            }
            let verify = if asked { Verify::Optional } else { Verify::No };
            let setup = Setup::new(&[&pki().ec, &other]).only(choice);
            let setup = setup.verifying(verify, &pki().authority).with(|tls| {
                tls.session_timeout = if tickets { 7200 } else { 0 };
                // In TLS 1.2 the group of a certificate's key counts too.
                let groups = if choice.tls13 { "X25519" } else { "X25519:P-256" };
                tls.groups = Some(groups.into());
            });
            let acceptor = setup.acceptor();
            if !keys {
                library::set_ticket_keys(Vec::new());
            }
            let client = client(|builder| {
                only(builder, choice);
                let groups = if retry { "P-256:X25519" } else { "X25519:P-256" };
                builder.set_groups_list(groups).unwrap();
                if shown {
                    show(builder, &large);
                }
                if eager {
                    builder.clear_options(SslOptions::ENABLE_MIDDLEBOX_COMPAT);
                }
            });
            let name = if named { "b.example" } else { "a.example" };
            let mut pair = Pair::server(&acceptor, BOTH, &client, name);
            if eager {
                pair.eager = pattern(40_000);
            }
            let mut pair = pair.established();
            assert_eq!(pair.handler(), "Stream(records)");
            assert!(pair.reads() == pattern(if eager { 40_000 } else { 0 }));
            assert_eq!(pair.ours.summary().unwrap().subject.is_some(), shown);
            if choice.tls13 {
                assert_eq!(has_retry(&pair), retry);
                // The last flight are tickets, if there are any.
                let length = if keys { pair.flights.last().unwrap().len() } else { 0 };
                assert_eq!(length > 16384, keys && shown, "a ticket of {length} bytes");
                assert_eq!(pair.flights.len(), 1 + usize::from(retry) + usize::from(keys));
            }
            pair.talk(&[1, 20_000]);
        }
    }
}

/// Two handshakes whose steps alternate do not get each other's secrets.
#[test]
fn handshakes_may_overlap() {
    for choice in sealable() {
        let (acceptor, client) = server_and_client(choice, &Lines::default());
        let mut pairs: Vec<Pair> =
            (0..4).map(|_| Pair::server(&acceptor, BOTH, &client, "a.example")).collect();
        for _ in 0..6 {
            for pair in &mut pairs {
                pair.done |= pair.peer.do_handshake().is_ok();
                pair.pass();
            }
        }
        for pair in pairs {
            pair.established().talk(&[1, 20_000]);
        }
    }
}

#[test]
fn the_versions_of_the_listener_count() {
    let acceptor = Setup::new(&[&pki().ec]).acceptor();
    let any = client(|_| ());
    for (versions, expected) in [(TLS12, "TLSv1.2"), (TLS13, "TLSv1.3"), (BOTH, "TLSv1.3")] {
        let mut pair = Pair::server(&acceptor, versions, &any, "").established();
        assert_eq!(pair.ours.summary().unwrap().version, expected);
        assert_eq!(pair.ours.summary().unwrap().server_name, None);
        pair.talk(&[100]);
    }
    for (versions, other) in [(TLS12, SslVersion::TLS1_3), (TLS13, SslVersion::TLS1_2)] {
        let client = client(|builder| version(builder, other));
        let (error, alert) = Pair::server(&acceptor, versions, &client, "").refused();
        assert!(error.contains("unsupported protocol"), "{error}");
        assert_eq!(alert, got(alert::PROTOCOL_VERSION));
    }
    let client = client(|builder| {
        version(builder, SslVersion::TLS1_2);
        builder.set_cipher_list("ECDHE-RSA-AES128-GCM-SHA256").unwrap();
    });
    let (error, alert) = Pair::server(&acceptor, BOTH, &client, "").refused();
    assert!(error.contains("no shared cipher"), "{error}");
    assert_eq!(alert, got(alert::HANDSHAKE_FAILURE));
}

/// A revocation list of an authority.
fn revocations(authority: &Identity, revoked: &[&Identity]) -> Vec<u8> {
    let mut list = X509CrlBuilder::new().unwrap();
    list.set_issuer_name(authority.certificate.subject_name()).unwrap();
    let day = |days: i64| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Asn1Time::from_unix(now.as_secs() as i64 + days * 86_400).unwrap()
    };
    list.set_last_update(&day(-1)).unwrap();
    list.set_next_update(&day(30)).unwrap();
    let builder = X509::builder().unwrap();
    let context = builder.x509v3_context(Some(&authority.certificate), None);
    let issuer = AuthorityKeyIdentifier::new().issuer(true).build(&context).unwrap();
    list.append_extension(issuer).unwrap();
    let number = CrlNumber::new(BigNum::from_u32(1).unwrap()).unwrap().build().unwrap();
    list.append_extension(number).unwrap();
    for one in revoked {
        let mut entry = X509RevokedBuilder::new().unwrap();
        entry.set_serial_number(one.certificate.serial_number()).unwrap();
        entry.set_revocation_date(&day(-1)).unwrap();
        list.add_revoked(entry.build()).unwrap();
    }
    list.sign(&authority.key, MessageDigest::sha256()).unwrap();
    list.build().unwrap().to_pem().unwrap()
}

#[test]
fn clients_show_certificates_if_they_must() {
    let (foreign, authority) = (Identity::authority("foreign"), &pki().authority);
    let unknown = foreign.sign(&["client"], pki::ec_key());
    let expired = authority.sign_expired(&["client"]);
    let own = Identity::own(&["client"]);
    let revoked = authority.sign(&["client"], pki::ec_key());
    let good = &pki().client;
    let list = revocations(authority, &[&revoked]);
    for verify in [Verify::No, Verify::Optional, Verify::Required] {
        let mut setup = Setup::new(&[&pki().ec]).verifying(verify, authority);
        let path = setup.file("crl.pem", list.clone());
        setup.settings.authorities.revoked.push(path);
        if verify == Verify::No {
            // A list that nobody is checked against is a mistake.
            assert!(setup.try_acceptor(true).unwrap_err().configuration);
            setup.settings.authorities.revoked.clear();
        }
        let acceptor = setup.acceptor();
        for (shown, reason, expected) in [
            (None, "peer did not return a certificate", None),
            (Some(good), "", None),
            (Some(&unknown), "unable to get local issuer", Some(alert::UNKNOWN_CA)),
            (Some(&own), "self-signed certificate", Some(alert::UNKNOWN_CA)),
            (Some(&expired), "certificate has expired", Some(alert::CERTIFICATE_EXPIRED)),
            (Some(&revoked), "certificate revoked", Some(alert::CERTIFICATE_REVOKED)),
        ] {
            for tls in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
                let client = client(|builder| {
                    version(builder, tls);
                    if let Some(identity) = shown {
                        show(builder, identity);
                    }
                });
                let pair = Pair::server(&acceptor, BOTH, &client, "a.example");
                let passes = match (verify, shown) {
                    (Verify::No, _) | (Verify::Optional, None) => true,
                    (_, Some(_)) => expected.is_none(),
                    (Verify::Required, None) => false,
                };
                if passes {
                    let mut pair = pair.established();
                    let summary = pair.ours.summary().unwrap();
                    if verify == Verify::No || shown.is_none() {
                        assert_eq!(summary.subject, None);
                    } else {
                        let name = "CN=client,O=tcprelay tests";
                        assert_eq!(summary.subject.as_deref(), Some(name));
                        let name = "CN=authority,O=tcprelay tests";
                        assert_eq!(summary.issuer.as_deref(), Some(name));
                    }
                    pair.talk(&[1, 20_000]);
                } else {
                    let (error, alert) = pair.refused();
                    assert!(error.contains(reason), "{error} instead of {reason}");
                    let absent = match tls {
                        SslVersion::TLS1_3 => alert::CERTIFICATE_REQUIRED,
                        _ => alert::HANDSHAKE_FAILURE,
                    };
                    assert_eq!(alert, got(expected.unwrap_or(absent)), "{error}");
                }
            }
        }
    }
}

#[test]
fn settings_for_verification_are_checked() {
    let setup = Setup::new(&[&pki().ec]).with(|tls| tls.verify = Verify::Required);
    assert!(setup.try_acceptor(true).unwrap_err().configuration);
    for (ca, crl) in [(&b"no certificate"[..], None), (b"", None), (b"good", Some(&b"no list"[..]))]
    {
        let mut setup = Setup::new(&[&pki().ec]).verifying(Verify::Required, &pki().authority);
        if ca != b"good" {
            setup.files.pop();
            setup.file("ca.pem", ca.to_vec());
        }
        if let Some(crl) = crl {
            let path = setup.file("crl.pem", crl.to_vec());
            setup.settings.authorities.revoked.push(path);
        }
        let error = setup.try_acceptor(true).unwrap_err();
        assert!(!error.configuration, "{error}");
        assert!(error.text.contains(if crl.is_some() { "crl.pem" } else { "ca.pem" }), "{error}");
    }
}

#[test]
fn a_list_may_have_authorities_and_revocations_of_several() {
    let (first, second) = (&pki().authority, Identity::authority("second"));
    let revoked = second.sign(&["client"], pki::ec_key());
    let good = second.sign(&["client"], pki::ec_key());
    let mut setup = Setup::new(&[&pki().ec]).verifying(Verify::Required, first);
    setup.files.pop();
    setup.file("ca.pem", pem(&[&first.certificate, &second.certificate]));
    let lists = [revocations(first, &[]), revocations(&second, &[&revoked])].concat();
    let path = setup.file("crl.pem", lists);
    setup.settings.authorities.revoked.push(path);
    let acceptor = setup.acceptor();
    for (identity, passes) in [(&good, true), (&revoked, false), (&pki().client, true)] {
        let client = client(|builder| show(builder, identity));
        let pair = Pair::server(&acceptor, BOTH, &client, "");
        match passes {
            true => pair.established().talk(&[1]),
            false => assert_eq!(pair.refused().1, got(alert::CERTIFICATE_REVOKED)),
        }
    }
}

/// The common name of the certificate that a client has got.
fn shown(pair: &Pair) -> String {
    let certificate = pair.ssl().peer_certificate().unwrap();
    library::name_text(certificate.subject_name()).split([',', '=']).nth(1).unwrap().to_owned()
}

#[test]
fn the_certificate_is_chosen_by_name() {
    let authority = &pki().authority;
    let [a, b, c] = [&["a.example", "both.example"][..], &["b.example"], &["*.c.example"]]
        .map(|names| authority.sign(names, pki::ec_key()));
    let late = authority.sign(&["late.example", "both.example", "b.example"], pki::ec_key());
    let mut setup = Setup::new(&[&a, &b, &c, &late]);
    setup.settings.certificates[1].names = vec!["alias.test".into(), "*.alias.test".into()];
    let names = [
        ("a.example", Some("a.example")),
        ("A.EXAMPLE", Some("a.example")),
        ("b.example", Some("b.example")),
        ("B.Example", Some("b.example")),
        ("both.example", Some("a.example")),
        ("alias.test", Some("b.example")),
        ("any.alias.test", Some("b.example")),
        ("x.c.example", Some("*.c.example")),
        ("late.example", Some("late.example")),
        ("x.y.c.example", None),
        ("c.example", None),
        ("other.example", None),
        ("", None),
    ];
    for required in [false, true] {
        setup.settings.sni_required = required;
        let acceptor = setup.acceptor();
        for tls in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
            let client = client(|builder| version(builder, tls));
            for (name, expected) in names {
                let pair = Pair::server(&acceptor, BOTH, &client, name);
                match expected.or((!required).then_some("a.example")) {
                    Some(expected) => {
                        let mut pair = pair.established();
                        assert_eq!(shown(&pair), expected, "{name}");
                        let known = pair.ours.summary().unwrap().server_name.clone();
                        assert_eq!(known.as_deref(), Some(name).filter(|name| !name.is_empty()));
                        pair.talk(&[1, 20_000]);
                    }
                    None => {
                        assert_eq!(pair.refused().1, got(alert::UNRECOGNIZED_NAME), "{name}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_first_of_our_protocols_that_a_client_offers_is_taken() {
    let other = pki().authority.sign(&["b.example"], pki::ec_key());
    let setup = Setup::new(&[&pki().ec, &other]);
    let setup = setup.with(|tls| tls.alpn = vec!["h2".into(), "http/1.1".into()]);
    let acceptor = setup.acceptor();
    let without = Setup::new(&[&pki().ec]).acceptor();
    for tls in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        for name in ["a.example", "b.example"] {
            for (offered, expected) in [
                (&b"\x08http/1.1\x02h2"[..], Some(Some("h2"))),
                (b"\x08http/1.1", Some(Some("http/1.1"))),
                (b"\x01h\x03h22\x02h2", Some(Some("h2"))),
                (b"\x01h\x03h22", None),
                (b"", Some(None)),
            ] {
                let client = client(|builder| {
                    version(builder, tls);
                    if !offered.is_empty() {
                        builder.set_alpn_protos(offered).unwrap();
                    }
                });
                let pair = Pair::server(&acceptor, BOTH, &client, name);
                let Some(expected) = expected else {
                    assert_eq!(pair.refused().1, got(alert::NO_APPLICATION_PROTOCOL));
                    continue;
                };
                let mut pair = pair.established();
                let theirs = pair.ssl().selected_alpn_protocol().map(|name| name.to_vec());
                assert_eq!(theirs.as_deref(), expected.map(str::as_bytes));
                assert_eq!(pair.ours.summary().unwrap().protocol.as_deref(), expected);
                pair.talk(&[1]);
                // Where none are configured, none are agreed upon.
                let pair = Pair::server(&without, BOTH, &client, "a.example").established();
                assert_eq!(pair.ssl().selected_alpn_protocol(), None);
            }
        }
    }
}

/// A client that remembers its sessions.
fn remembering(choice: Choice) -> (SslContext, Arc<Mutex<Vec<SslSession>>>) {
    let sessions = Arc::new(Mutex::new(Vec::new()));
    let store = sessions.clone();
    let client = client(|builder| {
        only(builder, choice);
        builder.set_session_cache_mode(SslSessionCacheMode::CLIENT);
        builder.set_new_session_callback(move |_, session| store.lock().unwrap().push(session));
    });
    (client, sessions)
}

#[test]
fn sessions_are_resumed_for_one_more_period() {
    let other = pki().authority.sign(&["b.example"], pki::rsa_key());
    for choice in CHOICES {
        let identity = if choice.rsa { &pki().rsa } else { &pki().ec };
        // The second one's records and tickets are those of another context.
        let name = if choice.tls13 { "b.example" } else { "a.example" };
        let setup = Setup::new(&[identity, &other]).only(choice);
        for (later, resumed) in [(0, true), (99, true), (100, true), (199, true), (200, false)] {
            let acceptor = setup.acceptor();
            let tickets = Ratchet::new([7; 32], 1000, 100);
            library::set_ticket_keys(tickets.keys());
            let mut contexts =
                Contexts { acceptor: Some(acceptor), connectors: Vec::new(), tickets };
            let (client, sessions) = remembering(choice);
            let first = Pair::server(contexts.acceptor.as_ref().unwrap(), BOTH, &client, name);
            let mut first = first.established();
            first.talk(&[1, 20_000]);
            assert!(!first.ssl().session_reused());
            contexts.renew_tickets(1000 + later);
            let session = sessions.lock().unwrap().pop().expect("a ticket");
            let acceptor = contexts.acceptor.as_ref().unwrap();
            let mut second = Pair::resuming(acceptor, &client, name, &session);
            second.eager = pattern(20_000);
            let mut second = second.established();
            assert_eq!(second.ssl().session_reused(), resumed, "{choice:?} after {later} s");
            assert_eq!(second.ours.summary().unwrap().resumed, resumed);
            let handler = if choice.library { "Stream(library)" } else { "Stream(records)" };
            assert_eq!(second.handler(), handler);
            assert!(second.reads() == pattern(20_000));
            second.talk(&[1, 20_000]);
            // A ticket of the former period is renewed; in TLS 1.3 each is used once anyway.
            let renewed = match choice.tls13 || !resumed {
                true => sessions.lock().unwrap().pop(),
                // OpenSSL does not tell about this one.
                false => second.ssl().session().map(|session| session.to_owned()),
            };
            let renewed = renewed.filter(|one| one.to_der().unwrap() != session.to_der().unwrap());
            assert_eq!(renewed.is_some(), choice.tls13 || later >= 100, "{choice:?} {later}");
            if let Some(session) = renewed {
                // Good for one period more.
                contexts.renew_tickets(1000 + later + 100);
                let acceptor = contexts.acceptor.as_ref().unwrap();
                let third = Pair::resuming(acceptor, &client, name, &session);
                let mut third = third.established();
                assert!(third.ssl().session_reused());
                third.talk(&[1, 20_000]);
            }
        }
    }
}

#[test]
fn another_process_opens_our_tickets() {
    for choice in sealable() {
        let identity = if choice.rsa { &pki().rsa } else { &pki().ec };
        let setup = Setup::new(&[identity]).only(choice);
        let (client, sessions) = remembering(choice);
        let mut first = Pair::server(&setup.acceptor(), BOTH, &client, "").established();
        first.talk(&[1]);
        let session = sessions.lock().unwrap().pop().unwrap();
        // A thread has keys of its own, as a process does.
        let resumed = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let second = Pair::resuming(&setup.acceptor(), &client, "", &session);
                    let mut second = second.established();
                    second.talk(&[1, 20_000]);
                    second.ssl().session_reused()
                })
                .join()
                .unwrap()
        });
        assert!(resumed);
    }
}

#[test]
fn without_a_timeout_there_are_no_tickets() {
    for choice in CHOICES {
        let identity = if choice.rsa { &pki().rsa } else { &pki().ec };
        let setup = Setup::new(&[identity]).only(choice).with(|tls| tls.session_timeout = 0);
        let acceptor = setup.acceptor();
        let (client, sessions) = remembering(choice);
        let mut pair = Pair::server(&acceptor, BOTH, &client, "").established();
        pair.talk(&[1, 20_000]);
        let sessions = sessions.lock().unwrap();
        assert!(sessions.iter().all(|session| !choice.tls13 && session.id().is_empty()));
    }
}

#[test]
fn a_resumed_client_is_still_the_one_of_its_certificate() {
    for choice in sealable() {
        let identity = if choice.rsa { &pki().rsa } else { &pki().ec };
        let setup = Setup::new(&[identity]).only(choice);
        let acceptor = setup.verifying(Verify::Required, &pki().authority).acceptor();
        let sessions = Arc::new(Mutex::new(Vec::new()));
        let store = sessions.clone();
        let client = client(|builder| {
            only(builder, choice);
            show(builder, &pki().client);
            builder.set_session_cache_mode(SslSessionCacheMode::CLIENT);
            builder.set_new_session_callback(move |_, session| store.lock().unwrap().push(session));
        });
        let mut first = Pair::server(&acceptor, BOTH, &client, "").established();
        first.talk(&[1]);
        let session = sessions.lock().unwrap().pop().unwrap();
        let second = Pair::resuming(&acceptor, &client, "", &session);
        let mut second = second.established();
        let summary = second.ours.summary().unwrap();
        assert!(summary.resumed && summary.subject == first.ours.summary().unwrap().subject);
        assert!(summary.subject.is_some());
        second.talk(&[1, 20_000]);
    }
}

#[test]
fn our_client_resumes_sessions() {
    for choice in CHOICES {
        let (connector, server) = (connector(choice), server(choice, |_| ()));
        for round in 0..4 {
            let mut pair = Pair::client(&connector, &server).established();
            assert_eq!(pair.ssl().session_reused(), round > 0, "{choice:?}");
            assert_eq!(pair.ours.summary().unwrap().resumed, round > 0);
            pair.talk(&[1, 20_000]);
        }
        // One that a server has forgotten is no obstacle.
        let forgetful = self::server(choice, |_| ());
        let mut pair = Pair::client(&connector, &forgetful).established();
        assert!(!pair.ssl().session_reused());
        pair.talk(&[1, 20_000]);
    }
}

#[test]
fn our_client_checks_the_server() {
    let choice = CHOICES[0];
    let server = server(choice, |_| ());
    for (name, passes) in
        [("a.example", true), ("A.example", true), ("b.example", false), ("192.0.2.1", false)]
    {
        for verify in [true, false] {
            let connector = remote(|settings| {
                settings.server_name = Some(name.into());
                settings.verify = verify;
            });
            let pair = Pair::client(&connector, &server);
            if passes || !verify {
                pair.established().talk(&[1]);
            } else {
                let error = pair.shake().error.unwrap();
                assert!(error.contains("mismatch"), "{error}");
            }
        }
    }
    // Another authority's.
    let foreign = Identity::authority("foreign").sign(&["a.example", "192.0.2.1"], pki::ec_key());
    let server = self::server(choice, |builder| show(builder, &foreign));
    let (error, alert) = Pair::client(&remote(|_| ()), &server).refused();
    assert!(error.contains("unable to get local issuer"), "{error}");
    assert_eq!(alert, got(alert::UNKNOWN_CA));
    // An address as the name.
    let address = pki().authority.sign(&["192.0.2.1"], pki::ec_key());
    let server = self::server(choice, |builder| show(builder, &address));
    let connector = remote(|settings| settings.server_name = Some("192.0.2.1".into()));
    let mut pair = Pair::client(&connector, &server).established();
    assert_eq!(pair.ssl().servername(NameType::HOST_NAME), None);
    pair.talk(&[1]);
}

#[test]
fn our_client_shows_its_certificate() {
    for choice in CHOICES {
        let server = server(choice, |builder| {
            let mut store = X509StoreBuilder::new().unwrap();
            store.add_cert(pki().authority.certificate.clone()).unwrap();
            builder.set_cert_store(store.build());
            builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        });
        let connector = remote(|settings| {
            settings.certificate.chain = Some("client.pem".into());
            settings.certificate.key = Some("client.key".into());
        });
        let mut pair = Pair::client(&connector, &server);
        if !choice.library && choice.number[0] != 0 {
            pair = pair.established();
            assert_eq!(shown(&pair), "client");
            pair.talk(&[1, 20_000]);
        }
        let mut pair = Pair::client(&self::connector(choice), &server).shake();
        // In TLS 1.3 we learn it with the first data.
        pair.pass();
        assert!(pair.error.is_some() && pair.alert.is_some(), "{choice:?}");
    }
}

#[test]
fn a_stapled_response_arrives() {
    // Responses without a body: the status alone is told.
    let [first, second] = [3u8, 6].map(|status| vec![0x30, 3, 0x0a, 1, status]);
    let other = pki().authority.sign(&["b.example"], pki::ec_key());
    let mut setup = Setup::new(&[&pki().ec, &pki().rsa, &other]);
    let one = setup.file("1.ocsp", first.clone());
    let two = setup.file("2.ocsp", second.clone());
    setup.settings.certificates[0].ocsp = Some(one);
    setup.settings.certificates[1].ocsp = Some(two);
    let acceptor = setup.acceptor();
    for tls in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        for (signatures, name, expected) in [
            ("ECDSA+SHA256", "a.example", Some(&first)),
            ("RSA-PSS+SHA256:RSA+SHA256", "a.example", Some(&second)),
            ("ECDSA+SHA256", "b.example", None),
        ] {
            for asked in [true, false] {
                let client = client(|builder| {
                    version(builder, tls);
                    builder.set_sigalgs_list(signatures).unwrap();
                });
                let pair = Pair::server_with(&acceptor, BOTH, &client, name, |ssl| {
                    if asked {
                        ssl.set_status_type(StatusType::OCSP).unwrap();
                    }
                    // A chain signed by another kind of key is not this test's matter.
                    ssl.set_verify(SslVerifyMode::NONE);
                });
                let mut pair = pair.established();
                let status = pair.ssl().ocsp_status().map(<[u8]>::to_vec);
                assert_eq!(status.as_ref(), expected.filter(|_| asked), "{name} {signatures}");
                pair.talk(&[1]);
            }
        }
    }
    let path = setup.file("bad.ocsp", b"nothing".to_vec());
    setup.settings.certificates[0].ocsp = Some(path);
    assert!(setup.try_acceptor(true).unwrap_err().text.contains("bad.ocsp"));
}

#[test]
fn keys_of_both_kinds_serve_one_name() {
    let acceptor = Setup::new(&[&pki().ec, &pki().rsa]).acceptor();
    for (signatures, rsa) in [("RSA-PSS+SHA256:RSA+SHA256", true), ("ECDSA+SHA256", false)] {
        for tls in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
            let client = client(|builder| {
                version(builder, tls);
                builder.set_sigalgs_list(signatures).unwrap();
                builder.set_verify(SslVerifyMode::NONE);
            });
            let mut pair = Pair::server(&acceptor, BOTH, &client, "a.example").established();
            let certificate = pair.ssl().peer_certificate().unwrap();
            let expected = if rsa { &pki().rsa } else { &pki().ec };
            assert_eq!(certificate.to_der().unwrap(), expected.certificate.to_der().unwrap());
            pair.talk(&[1, 20_000]);
        }
    }
}

/// RFC 6066 section 4: such a client need not take longer records.
#[test]
fn a_client_that_wants_short_records_gets_them() {
    for choice in CHOICES {
        for mode in 1..=4 {
            let identity = if choice.rsa { &pki().rsa } else { &pki().ec };
            let acceptor = Setup::new(&[identity]).only(choice).acceptor();
            let (sessions, lines) = (Arc::new(Mutex::new(Vec::new())), Lines::default());
            let store = sessions.clone();
            let client = client(|builder| {
                only(builder, choice);
                lines.collect(builder);
                assert!(testing::limit_fragments(builder, mode));
                builder.set_session_cache_mode(SslSessionCacheMode::CLIENT);
                builder.set_new_session_callback(move |_, session| {
                    store.lock().unwrap().push(session)
                });
            });
            let mut pair = Pair::server(&acceptor, BOTH, &client, "").established();
            pair.talk(&[1, 20_000]);
            let limit = 256usize << mode;
            let short = |pair: &Pair| {
                pair.flights.iter().all(|flight| {
                    let mut rest = &flight[..];
                    while let Some(&[_, _, _, high, low]) = rest.first_chunk::<5>() {
                        let length = usize::from(u16::from_be_bytes([high, low]));
                        // With what protection adds: a tag and a nonce, or a MAC and padding.
                        if length > limit + 96 {
                            return false;
                        }
                        rest = &rest[5 + length..];
                    }
                    rest.is_empty()
                })
            };
            assert!(short(&pair), "{choice:?} {limit}");
            let session = sessions.lock().unwrap().pop().expect("a ticket");
            let pair = Pair::resuming(&acceptor, &client, "", &session);
            let mut pair = pair.established();
            assert!(pair.ssl().session_reused());
            pair.talk(&[1, 20_000]);
            assert!(short(&pair), "resumed: {choice:?} {limit}");
        }
    }
}

#[test]
fn encrypted_keys_need_their_passphrase() {
    let passphrase = b"correct horse";
    let key = pki().ec.key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), passphrase);
    let key = key.unwrap();
    // In the traditional form too.
    let ec = pki().ec.key.ec_key().unwrap();
    let old = ec.private_key_to_pem_passphrase(Cipher::aes_128_cbc(), passphrase).unwrap();
    for key in [key, old] {
        let mut setup = Setup::new(&[&pki().ec]);
        setup.files.pop();
        setup.file("0.key", key);
        let error = setup.try_acceptor(true).unwrap_err();
        assert!(error.text.contains("0.key: the key is encrypted"), "{error}");
        setup.settings.certificates[0].passphrase = Some(Passphrase("wrong".into()));
        let error = setup.try_acceptor(true).unwrap_err();
        assert!(error.text.contains("0.key: error:"), "{error}");
        assert!(!error.text.contains("wrong horse"));
        setup.settings.certificates[0].passphrase = Some(Passphrase(String::new()));
        assert!(setup.try_acceptor(true).is_err());
        setup.settings.certificates[0].passphrase = Some(Passphrase("correct horse".into()));
        let acceptor = setup.acceptor();
        Pair::server(&acceptor, BOTH, &client(|_| ()), "").established().talk(&[1]);
    }
    // One that is not needed does no harm.
    let mut setup = Setup::new(&[&pki().ec]);
    setup.settings.certificates[0].passphrase = Some(Passphrase("unused".into()));
    setup.acceptor();
}

#[test]
fn an_expired_certificate_is_an_error_if_that_is_wanted() {
    let expired = pki().authority.sign_expired(&["a.example"]);
    let setup = Setup::new(&[&expired]);
    let error = setup.try_acceptor(true).unwrap_err();
    assert!(error.text.contains("0.pem: the certificate has expired"), "{error}");
    assert!(!error.configuration);
    let acceptor = setup.try_acceptor(false).unwrap();
    let trusting = client(|builder| builder.set_verify(SslVerifyMode::NONE));
    Pair::server(&acceptor, BOTH, &trusting, "").established().talk(&[1]);
    let careful = Pair::server(&acceptor, BOTH, &client(|_| ()), "").shake();
    assert!(careful.alert.is_some());
    let error = careful.error.unwrap();
    assert!(error.contains("expired"), "{error}");
}

#[test]
fn a_certificate_without_its_key_is_refused() {
    for (key, call) in [
        (pki().rsa.key.private_key_to_pem_pkcs8().unwrap(), "SSL_CTX_use_PrivateKey_file"),
        (pki().client.key.private_key_to_pem_pkcs8().unwrap(), "SSL_CTX_use_PrivateKey_file"),
        (b"rubbish".to_vec(), "SSL_CTX_use_PrivateKey_file"),
        (Vec::new(), "SSL_CTX_use_PrivateKey_file"),
    ] {
        let mut setup = Setup::new(&[&pki().ec]);
        setup.files.pop();
        setup.file("0.key", key);
        let error = setup.try_acceptor(true).unwrap_err();
        assert!(error.text.starts_with(call), "{error}");
    }
    let mut setup = Setup::new(&[&pki().ec]);
    setup.files.remove(0);
    let error = setup.try_acceptor(true).unwrap_err();
    assert!(error.text.starts_with("SSL_CTX_use_certificate_chain_file: 0.pem: "), "{error}");
    assert!(Setup::new(&[]).try_acceptor(true).unwrap_err().configuration);
    for change in [
        |tls: &mut Tls| tls.ciphers = Some("NONE-SUCH".into()),
        |tls: &mut Tls| tls.cipher_suites = Some("NONE-SUCH".into()),
        |tls: &mut Tls| tls.groups = Some("NONE-SUCH".into()),
    ] {
        let error = Setup::new(&[&pki().ec]).with(change).try_acceptor(true).unwrap_err();
        assert!(error.configuration && error.text.contains("NONE-SUCH"), "{error}");
    }
}

/// The chain of each kind of key is sent with it.
#[test]
fn chains_are_sent_with_their_certificates() {
    let [middle, other] = ["middle", "other"].map(Identity::authority);
    let ec = middle.sign(&["a.example"], pki::ec_key());
    let rsa = other.sign(&["a.example"], pki::rsa_key());
    let mut setup = Setup::new(&[&ec, &rsa]);
    for (index, chain) in [(0, [&ec, &middle]), (1, [&rsa, &other])] {
        let chain = chain.map(|identity| &identity.certificate);
        let path = setup.file(&format!("chain{index}.pem"), pem(&chain));
        setup.settings.certificates[index].chain = Some(path);
    }
    let acceptor = setup.acceptor();
    for (tls, suite, expected) in [
        (SslVersion::TLS1_2, "ECDHE-ECDSA-AES128-GCM-SHA256", "middle"),
        (SslVersion::TLS1_2, "ECDHE-RSA-AES128-GCM-SHA256", "other"),
    ] {
        let client = client(|builder| {
            version(builder, tls);
            builder.set_cipher_list(suite).unwrap();
            builder.set_verify(SslVerifyMode::NONE);
        });
        let mut pair = Pair::server(&acceptor, BOTH, &client, "a.example").established();
        let chain = pair.ssl().peer_cert_chain().unwrap();
        assert_eq!(chain.len(), 2);
        let issuer = library::name_text(chain[1].subject_name());
        assert!(issuer.contains(expected), "{issuer}");
        pair.talk(&[1]);
    }
}

/// Most is known of a client that has only begun.
#[test]
fn a_stream_says_how_far_it_is() {
    let acceptor = Setup::new(&[&pki().ec]).acceptor();
    let client = client(|_| ());
    let mut pair = Pair::server(&acceptor, BOTH, &client, "");
    assert!(pair.ours.is_untouched() && pair.ours.is_handshaking());
    pair.feed(&[]);
    assert!(pair.ours.is_untouched());
    pair.feed(&[22]);
    assert!(!pair.ours.is_untouched());
    let mut out = Buffer::default();
    pair.ours.close(&mut out);
    assert!(out.is_empty() && pair.ours.held() == 0 && !pair.ours.has_unread());
    let mut pair = Pair::server(&acceptor, BOTH, &client, "").established();
    assert_eq!(pair.peer.get_shutdown(), ShutdownState::empty());
    pair.write(b"");
    pair.talk(&[0, 1]);
}
