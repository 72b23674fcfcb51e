//! Whole sessions in memory: our side against OpenSSL's, and against a side that has the keys and
//! breaks the rules.

mod certificates;
mod differential;
mod handshakes;
mod kernel;
mod keys;
mod records;
mod resumption;

#[allow(dead_code, missing_docs)]
#[path = "../../../tests/common/pki.rs"]
mod pki;
#[allow(missing_docs)]
#[path = "../../../tests/common/sealing.rs"]
mod sealing;

use super::client::Connector;
use super::context::Contexts;
use super::error::Error;
use super::records::{Failure, Numbers, Records, Secrets, Suite, Version};
use super::server::Acceptor;
use super::stream::{Shaken, Stream};
use super::tickets::Ratchet;
use super::Buffer;
use crate::config::tls::{
    Authorities, Certificate, Check, Passphrase, RecordLayer, RemoteTls, Tls, Verify,
};
use crate::os::tls::{self as library, testing};
use crate::snapshot::material::Material;
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

/// Versions as in an ACCEPT message.
const TLS12: u32 = 3;
const TLS13: u32 = 4;
const BOTH: u32 = TLS12 | TLS13 << 8;

/// Alerts, by their numbers in the protocol.
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

/// A cipher suite, and who handles its records on our side.
#[derive(Clone, Copy, Debug)]
struct Choice {
    tls13: bool,
    name: &'static str,
    number: [u8; 2],
    rsa: bool,
    /// The library handles them, whichever side is ours.
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

/// Suites for which [`sealing`] can play the other side.
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

/// Made once, as RSA keys take their time.
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

    /// Asks clients for certificates of this authority.
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

    /// Allows only this suite.
    fn only(self, choice: Choice) -> Setup {
        self.with(|tls| match choice.tls13 {
            true => tls.cipher_suites = Some(choice.name.into()),
            false => tls.ciphers = Some(choice.name.into()),
        })
    }

    fn try_acceptor(&self) -> Result<Acceptor, Error> {
        Acceptor::new(&self.settings, &material(&self.files))
    }

    /// An acceptor, with keys for tickets.
    fn acceptor(&self) -> Acceptor {
        library::set_ticket_keys(Ratchet::new([7; 32], 0, 1000).keys());
        self.try_acceptor().unwrap()
    }
}

fn pem(certificates: &[&X509]) -> Vec<u8> {
    certificates.iter().flat_map(|one| one.to_pem().unwrap()).collect()
}

/// Files by name, none of which is on disk.
fn material(files: &[(String, Vec<u8>)]) -> Material {
    let mut data = Ratchet::new([0; 32], 0, 1).encode().to_vec();
    for field in files.iter().flat_map(|(name, content)| [name.as_bytes(), content]) {
        data.extend((field.len() as u32).to_be_bytes());
        data.extend_from_slice(field);
    }
    Ratchet::decode_with(&data).unwrap().0
}

/// The other side's end of the wire.
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
    /// Lengths of the pieces in which bytes reach us, used in turn; if empty, they arrive as they
    /// come.
    pieces: Vec<usize>,
    next: usize,
    /// What OpenSSL's side sends as soon as it may.
    eager: Vec<u8>,
    plain: Buffer,
    /// The other side has sent us close_notify.
    closed: bool,
    /// Why our side has failed.
    error: Option<String>,
    done: bool,
    /// The alert that OpenSSL's side has received, or another reason for its failure.
    alert: Option<u32>,
    /// Our side has sent close_notify.
    peer_closed: bool,
    /// The bytes that we have sent, piece by piece.
    flights: Vec<Vec<u8>>,
    /// How many signatures another process has made.
    signatures: usize,
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
            signatures: 0,
        }
    }

    /// A client of OpenSSL, with our side as the server.
    fn server(acceptor: &Acceptor, versions: u32, client: &SslContext, name: &str) -> Pair {
        Pair::server_with(acceptor, versions, client, name, |_| ())
    }

    /// A client that resumes a session.
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

    /// A server of OpenSSL, with our side as the client.
    fn client(connector: &Connector, server: &SslContext) -> Pair {
        let mut ours = connector.connect().unwrap();
        ours.want_summary();
        let mut ssl = Ssl::new(server).unwrap();
        ssl.set_accept_state();
        let mut pair = Pair::new(ours, ssl);
        pair.feed(&[]);
        pair
    }

    /// Hands bytes from the wire to our side, as the relay does.
    fn feed(&mut self, piece: &[u8]) {
        if self.error.is_some() {
            return;
        }
        let mut out = Buffer::default();
        let result = if self.ours.is_handshaking() {
            let mut result = self.ours.handshake(piece, &mut out);
            while let Ok(Shaken::Signing(_)) = result {
                self.signatures += keys::sign_all();
                result = self.ours.handshake(&[], &mut out);
            }
            result.map(|_| ())
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

    /// Takes what the other side has written from the wire.
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

    /// Hands what the other side has written to our side. True if there was anything.
    fn pass(&mut self) -> bool {
        let wire = self.wire();
        self.feed_all(&wire);
        !wire.is_empty()
    }

    /// Shakes hands, as far as that goes.
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

    /// Does the whole handshake, which must succeed.
    fn established(self) -> Pair {
        let pair = self.shake();
        assert_eq!((&pair.error, pair.alert), (&None, None));
        assert!(pair.done && !pair.ours.is_handshaking());
        pair
    }

    /// Does a handshake that must fail. Returns the reason on our side, and the alert on the other.
    fn refused(self) -> (String, Option<u32>) {
        let mut pair = self.shake();
        // A TLS 1.3 client learns of it later.
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

    /// Sends data in both directions.
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

    /// Our side must have failed, have sent this alert, and have delivered nothing.
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

    /// Plays the other side from here on, with its keys. The secrets come from `lines`.
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

/// The secrets that OpenSSL reports, as lines of a key log.
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

/// Allows only this suite.
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

/// The same, together with the other side's keys.
fn seized(choice: Choice) -> (Pair, Direction) {
    let lines = Lines::default();
    let (acceptor, client) = server_and_client(choice, &lines);
    let pair = Pair::server(&acceptor, BOTH, &client, "a.example").established();
    let direction = pair.seized(choice, &lines);
    (pair, direction)
}

/// A connector to a server that our authority has named `a.example`.
fn remote(change: impl FnOnce(&mut RemoteTls)) -> Connector {
    let mut settings = RemoteTls {
        authorities: Authorities { file: Some("ca.pem".into()), ..<_>::default() },
        verify: true,
        server_name: Some("a.example".into()),
        ..RemoteTls::unverified()
    };
    change(&mut settings);
    let client = &pki().client;
    let files = [
        ("ca.pem".to_owned(), pem(&[&pki().authority.certificate])),
        ("client.pem".to_owned(), pem(&[&client.certificate])),
        ("client.key".to_owned(), client.key.private_key_to_pem_pkcs8().unwrap()),
    ];
    Connector::new(&settings, RecordLayer::Auto, &material(&files)).unwrap()
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
