//! Whole sessions in memory: our side against OpenSSL's, and against a side that has the keys and
//! breaks the rules.

mod certificates;
mod differential;
mod handshakes;
mod kernel;
mod keys;
mod ocsp;
mod pair;
mod records;
mod refused;
mod resumption;
mod verification;

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
use super::stream::{Step, Stream};
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
use pair::{Pair, Pipe};
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
