//! Certificates and settings: what all sessions of a listener's side, or of a remote, share.

use super::stream::{self, Stream};
use super::tickets::Ratchet;
use crate::config::relay::{Relay, Remote};
use crate::config::tls::{Authorities, Certificate, RemoteTls, Tls, Verify};
use crate::os::tls as library;
use crate::snapshot::material::Material;
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::ocsp::OcspResponse;
use openssl::pkey::{Id, PKey, Private};
use openssl::sha::Sha256;
use openssl::ssl::{
    AlpnError, NameType, SniError, Ssl, SslAlert, SslContext, SslContextBuilder, SslMethod,
    SslMode, SslOptions, SslRef, SslSession, SslSessionCacheMode, SslVerifyMode, SslVersion,
};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::X509VerifyFlags;
use openssl::x509::{X509Crl, X509StoreContextRef, X509VerifyResult, X509};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

/// Cipher suites of TLS 1.2 and 1.3, if none are configured: those with forward secrecy and an
/// AEAD, as Mozilla's intermediate recommendation has them. The shortest keys of AES come first, with
/// the hash that goes with them: none of them can be broken, and they cost least.
const WITH_AES: [&str; 2] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
     ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
     ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256",
];
/// On processors without instructions for AES.
const WITHOUT_AES: [&str; 2] = [
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:\
     ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
     ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384",
];

/// True if the processor has instructions for AES, or if that is not known.
fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    let has = std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    let has = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    let has = true;
    has
}

/// Groups, if none are configured. The first is refused by an OpenSSL before 3.5.
const GROUPS: [&str; 2] =
    ["X25519MLKEM768:X25519:prime256v1:secp384r1", "X25519:prime256v1:secp384r1"];

/// Why TLS cannot be set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The file and what was done with it, and the reason.
    pub text: String,
    /// The configuration is wrong by itself, whatever the files hold.
    pub configuration: bool,
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

/// The calls that the messages name, as the C program has them.
pub(super) const CHAIN_CALL: &str = "SSL_CTX_use_certificate_chain_file";
const KEY_CALL: &str = "SSL_CTX_use_PrivateKey_file";
const CA_CALL: &str = "SSL_CTX_load_verify_locations";
const OCSP_CALL: &str = "d2i_OCSP_RESPONSE";
pub(super) const CRL_CALL: &str = "X509_load_crl_file";

impl Error {
    fn wrong(text: impl Into<String>) -> Error {
        Error { text: text.into(), configuration: true }
    }

    fn at(call: &str, path: &Path, reason: impl fmt::Display) -> Error {
        Error { text: format!("{call}: {}: {reason}", path.display()), configuration: false }
    }

    pub(super) fn library(call: &str, path: &Path, errors: &ErrorStack) -> Error {
        Error::at(call, path, library::first_error(errors))
    }

    /// A file that cannot be read, as OpenSSL says it.
    pub fn unreadable(path: &Path, settings: &Relay, error: &io::Error) -> Error {
        let remotes = || settings.remotes.iter().filter_map(|remote| remote.tls.as_deref());
        let certificates = || {
            let own = remotes().map(|tls| &tls.certificate);
            settings.tls.certificates.iter().chain(own)
        };
        let is = |other: &Option<PathBuf>| other.as_deref() == Some(path);
        let authorities = remotes().map(|tls| &tls.authorities);
        let mut authorities = std::iter::once(&settings.tls.authorities).chain(authorities);
        let call = if certificates().any(|one| is(&one.chain)) {
            CHAIN_CALL
        } else if certificates().any(|one| is(&one.key)) {
            KEY_CALL
        } else if certificates().any(|one| is(&one.ocsp)) {
            OCSP_CALL
        } else if authorities.any(|one| one.revoked.iter().any(|list| list == path)) {
            CRL_CALL
        } else {
            CA_CALL
        };
        // ERR_SYSTEM_FLAG of OpenSSL 3.
        let code = 0x8000_0000u32 | error.raw_os_error().unwrap_or(libc::EIO) as u32;
        Error::at(
            call,
            path,
            format_args!("error:{code:08X}:system library::{}", crate::os::reason(error)),
        )
    }
}

fn own(errors: &ErrorStack) -> Error {
    Error { text: format!("SSL_CTX_new: {}", library::first_error(errors)), configuration: false }
}

/// The side that accepts.
pub struct Acceptor {
    /// The one for clients that name nothing known.
    context: SslContext,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Acceptor")
    }
}

impl Acceptor {
    /// Loads certificates and settings. Whether they are valid today is not looked at
    /// ([`examine`](super::validity::examine)).
    pub fn new(settings: &Tls, material: &Material) -> Result<Acceptor, Error> {
        let mut groups = group(settings, material)?;
        if groups.is_empty() {
            return Err(Error::wrong("TLS listener without tls cert-file"));
        }
        // The first one is for everybody else. A name in two certificates is the earlier's.
        let first = groups.remove(0);
        let mut builder = server_context(settings, &first.certificates, material)?;
        let first = first.names;
        let mut names = BTreeMap::new();
        for group in groups {
            let context = server_context(settings, &group.certificates, material)?.build();
            for name in group.names.into_iter().filter(|name| !first.contains(name)) {
                names.entry(name).or_insert_with(|| context.clone());
            }
        }
        let required = settings.sni_required;
        if required || !names.is_empty() {
            builder.set_servername_callback(move |ssl, alert| {
                select(ssl, alert, &first, &names, required)
            });
        }
        Ok(Acceptor { context: builder.build() })
    }

    /// A new connection. `versions` as in the ACCEPT message: a byte for each version, the low
    /// byte of its number.
    pub fn accept(&self, versions: u32) -> Result<Stream, ErrorStack> {
        let known = [(3, SslVersion::TLS1_2), (4, SslVersion::TLS1_3)];
        let listed = |&&(byte, _): &&(u8, SslVersion)| versions.to_ne_bytes().contains(&byte);
        let mut ssl = Ssl::new(&self.context)?;
        ssl.set_min_proto_version(known.iter().find(listed).map(|&(_, version)| version))?;
        ssl.set_max_proto_version(known.iter().rfind(listed).map(|&(_, version)| version))?;
        ssl.set_accept_state();
        Stream::new(ssl, true)
    }
}

/// Chooses the certificate by the name that a client asks for.
fn select(
    ssl: &mut SslRef,
    alert: &mut SslAlert,
    first: &[String],
    others: &BTreeMap<String, SslContext>,
    required: bool,
) -> Result<(), SniError> {
    let name = ssl.servername(NameType::HOST_NAME).map(str::to_ascii_lowercase);
    if let Some(name) = name {
        // The whole name, or with its first label as the wildcard of a certificate.
        let wildcard = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        for candidate in std::iter::once(&name).chain(&wildcard) {
            if first.contains(candidate) {
                return Ok(());
            }
            if let Some(context) = others.get(candidate) {
                return ssl.set_ssl_context(context).map_err(|_| SniError::ALERT_FATAL);
            }
        }
    }
    if required {
        *alert = SslAlert::UNRECOGNIZED_NAME;
        return Err(SniError::ALERT_FATAL);
    }
    Err(SniError::NOACK)
}

/// What every context has.
fn common_context(method: SslMethod) -> Result<SslContextBuilder, ErrorStack> {
    let mut builder = library::deriving_context(method, stream::derive)?;
    builder.set_options(
        SslOptions::NO_SSLV2
            | SslOptions::NO_SSLV3
            | SslOptions::NO_TLSV1
            | SslOptions::NO_TLSV1_1
            | SslOptions::NO_COMPRESSION
            | SslOptions::NO_RENEGOTIATION,
    );
    builder.set_mode(SslMode::RELEASE_BUFFERS);
    Ok(builder)
}

fn refused(directive: &str, value: &str, errors: &ErrorStack) -> Error {
    Error::wrong(format!("tls {directive} = {value}: {}", library::first_error(errors)))
}

fn ciphers(
    builder: &mut SslContextBuilder,
    list: Option<&str>,
    suites: Option<&str>,
) -> Result<(), Error> {
    let [default_list, default_suites] = if has_aes() { WITH_AES } else { WITHOUT_AES };
    let list = list.unwrap_or(default_list);
    builder.set_cipher_list(list).map_err(|errors| refused("ciphers", list, &errors))?;
    match suites {
        Some(suites) => builder
            .set_ciphersuites(suites)
            .map_err(|errors| refused("cipher-suites", suites, &errors)),
        None => {
            // A library without one of them keeps its own.
            let _ = builder.set_ciphersuites(default_suites);
            Ok(())
        }
    }
}

/// Certificates that share a context: for the same names, with keys of different kinds.
struct Group<'a> {
    names: Vec<String>,
    kinds: Vec<Id>,
    certificates: Vec<&'a Certificate>,
}

fn group<'a>(settings: &'a Tls, material: &Material) -> Result<Vec<Group<'a>>, Error> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for certificate in &settings.certificates {
        let (path, leaf) = (certificate.chain.as_deref(), leaf(certificate, material)?);
        let path = path.unwrap_or(Path::new(""));
        let failed = |errors: ErrorStack| Error::library(CHAIN_CALL, path, &errors);
        let kind = leaf.public_key().map_err(failed)?.id();
        let mut names = certificate.names.clone();
        names.extend(names_of(&leaf));
        names.sort();
        names.dedup();
        let fitting = |group: &&mut Group<'_>| group.names == names && !group.kinds.contains(&kind);
        match groups.iter_mut().find(fitting) {
            Some(group) => {
                group.kinds.push(kind);
                group.certificates.push(certificate);
            }
            None => {
                groups.push(Group { names, kinds: vec![kind], certificates: vec![certificate] })
            }
        }
    }
    Ok(groups)
}

/// A context with certificates for the same names.
fn server_context(
    settings: &Tls,
    certificates: &[&Certificate],
    material: &Material,
) -> Result<SslContextBuilder, Error> {
    let own = |errors: ErrorStack| own(&errors);
    let mut builder = common_context(SslMethod::tls_server()).map_err(own)?;
    if settings.server_preference {
        let chacha = SslOptions::from_bits_retain(1 << 21); // SSL_OP_PRIORITIZE_CHACHA
        builder.set_options(SslOptions::CIPHER_SERVER_PREFERENCE | chacha);
    }
    ciphers(&mut builder, settings.ciphers.as_deref(), settings.cipher_suites.as_deref())?;
    match &settings.groups {
        Some(groups) => {
            builder.set_groups_list(groups).map_err(|errors| refused("groups", groups, &errors))?
        }
        None => {
            // A library that knows neither list keeps its own.
            let _ = GROUPS.iter().any(|groups| builder.set_groups_list(groups).is_ok());
        }
    }
    // Tickets only: what is cached in one worker would be of no use in another.
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    if settings.session_timeout == 0 {
        builder.set_options(SslOptions::NO_TICKET);
        builder.set_num_tickets(0).map_err(own)?;
    } else {
        library::set_session_timeout(&mut builder, settings.session_timeout);
        library::use_ticket_keys(&mut builder);
        builder.set_num_tickets(1).map_err(own)?;
    }
    // A session that was begun under other rules for certificates of clients is not resumed.
    builder.set_session_id_context(&rules(settings, material)).map_err(own)?;
    if !settings.alpn.is_empty() {
        let protocols = settings.alpn.clone();
        builder.set_alpn_select_callback(move |_, offered| select_protocol(&protocols, offered));
    }
    verification(&mut builder, settings, material)?;
    let mut responses = Vec::new();
    for certificate in certificates {
        let leaf = identity(&mut builder, certificate, material)?;
        if let Some(path) = &certificate.ocsp {
            responses.push((leaf.to_der().map_err(own)?, ocsp_response(path, material)?));
        }
    }
    if !responses.is_empty() {
        builder.set_status_callback(move |ssl| staple(ssl, &responses)).map_err(own)?;
    }
    Ok(builder)
}

/// What certificates of clients must be like.
fn verification(
    builder: &mut SslContextBuilder,
    settings: &Tls,
    material: &Material,
) -> Result<(), Error> {
    let authorities = &settings.authorities;
    if settings.verify == Verify::No && !authorities.revoked.is_empty() {
        return Err(Error::wrong("tls crl-file needs tls ca-file or tls ca-path"));
    }
    let verify = match settings.verify {
        Verify::No => SslVerifyMode::NONE,
        Verify::Optional => SslVerifyMode::PEER,
        Verify::Required => SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT,
    };
    set_verify(builder, verify, authorities);
    if settings.verify != Verify::No {
        if !authorities.is_set() {
            return Err(Error::wrong("tls verify needs tls ca-file or tls ca-path"));
        }
        let trusted = trust(builder, authorities, material)?;
        for authority in trusted {
            builder.add_client_ca(&authority).map_err(|errors| own(&errors))?;
        }
    }
    Ok(())
}

/// What decides about certificates of clients, as a digest.
fn rules(settings: &Tls, material: &Material) -> [u8; 32] {
    let mut hash = Sha256::new();
    let authorities = &settings.authorities;
    hash.update(format!("tcprelay {:?} {:?}", settings.verify, authorities.depth).as_bytes());
    for path in authorities.files() {
        let content = material.get(path).unwrap_or_default();
        hash.update(&content.len().to_be_bytes());
        hash.update(content);
    }
    hash.finish()
}

/// The first of our protocols that the client offers (RFC 7301 section 3.2); a client that
/// offers none of them is refused.
fn select_protocol<'a>(protocols: &[String], offered: &'a [u8]) -> Result<&'a [u8], AlpnError> {
    for protocol in protocols {
        let mut rest = offered;
        while let Some((&length, tail)) = rest.split_first() {
            let Some(name) = tail.get(..usize::from(length)) else {
                break;
            };
            if name == protocol.as_bytes() {
                return Ok(name);
            }
            rest = &tail[usize::from(length)..];
        }
    }
    Err(AlpnError::ALERT_FATAL)
}

/// The certificate itself, without its chain.
fn leaf(certificate: &Certificate, material: &Material) -> Result<X509, Error> {
    let path = certificate.chain.as_deref().unwrap_or(Path::new(""));
    let failed = |errors: ErrorStack| Error::library(CHAIN_CALL, path, &errors);
    X509::from_pem(material.get(path).unwrap_or_default()).map_err(failed)
}

/// Loads a certificate, its chain and its key; returns the certificate.
fn identity(
    builder: &mut SslContextBuilder,
    certificate: &Certificate,
    material: &Material,
) -> Result<X509, Error> {
    let (Some(path), Some(key_path)) = (&certificate.chain, certificate.key_file()) else {
        return Err(Error::wrong("tls key-file without tls cert-file"));
    };
    let content = material.get(path).unwrap_or_default();
    let failed = |errors: ErrorStack| Error::library(CHAIN_CALL, path, &errors);
    let leaf = leaf(certificate, material)?;
    let chain = X509::stack_from_pem(content).map_err(failed)?.into_iter().skip(1);
    builder.set_certificate(&leaf).map_err(failed)?;
    for issuer in chain {
        library::add_chain_certificate(builder, &issuer).map_err(failed)?;
    }
    let key = private_key(certificate, key_path, material.get(key_path).unwrap_or_default())?;
    let failed = |errors: ErrorStack| Error::library(KEY_CALL, key_path, &errors);
    if !leaf.public_key().map_err(failed)?.public_eq(&key) {
        // OpenSSL says something else of keys that are not even of the same kind.
        let text = "error:05800074:x509 certificate routines::key values mismatch";
        return Err(Error::at(KEY_CALL, key_path, text));
    }
    builder.set_private_key(&key).map_err(failed)?;
    builder.check_private_key().map_err(failed)?;
    Ok(leaf)
}

/// Reads a key. Without a passphrase an encrypted one is refused: nobody is asked.
fn private_key(certificate: &Certificate, path: &Path, pem: &[u8]) -> Result<PKey<Private>, Error> {
    let mut asked = false;
    let result = PKey::private_key_from_pem_callback(pem, |room| {
        asked = true;
        let passphrase = certificate.passphrase.as_ref().map_or("", |passphrase| &passphrase.0);
        let length = passphrase.len().min(room.len());
        room[..length].copy_from_slice(&passphrase.as_bytes()[..length]);
        Ok(length)
    });
    result.map_err(|errors| {
        if asked && certificate.passphrase.is_none() {
            Error::at(KEY_CALL, path, "the key is encrypted, and there is no tls passphrase")
        } else {
            Error::library(KEY_CALL, path, &errors)
        }
    })
}

/// The DNS names of a certificate, or its common name if it has none.
fn names_of(certificate: &X509) -> Vec<String> {
    let mut names: Vec<String> = certificate
        .subject_alt_names()
        .iter()
        .flatten()
        .filter_map(|name| name.dnsname().map(str::to_ascii_lowercase))
        .collect();
    if names.is_empty() {
        let common = certificate.subject_name().entries_by_nid(Nid::COMMONNAME);
        names.extend(
            common.filter_map(|entry| Some(entry.data().to_string().ok()?.to_ascii_lowercase())),
        );
    }
    names
}

/// Loads authorities, the system's if none are configured, and revocation lists; returns what was
/// configured.
fn trust(
    builder: &mut SslContextBuilder,
    authorities: &Authorities,
    material: &Material,
) -> Result<Vec<X509>, Error> {
    let mut store = X509StoreBuilder::new().map_err(|errors| own(&errors))?;
    let mut trusted = Vec::new();
    if !authorities.is_set() {
        store.set_default_paths().map_err(|errors| own(&errors))?;
    }
    for path in authorities.file.iter().chain(&authorities.directory) {
        let failed = |errors: ErrorStack| Error::library(CA_CALL, path, &errors);
        let content = material.get(path).unwrap_or_default();
        for certificate in X509::stack_from_pem(content).map_err(failed)? {
            store.add_cert(certificate.clone()).map_err(failed)?;
            trusted.push(certificate);
        }
        if trusted.is_empty() {
            return Err(Error::at(CA_CALL, path, "no certificate in it"));
        }
    }
    if !trusted.is_empty() {
        // Who names an intermediate authority, or the very certificate, trusts that one, and not all
        // that its root has signed.
        store.set_flags(X509VerifyFlags::PARTIAL_CHAIN).map_err(|errors| own(&errors))?;
    }
    for path in &authorities.revoked {
        let failed = |errors: ErrorStack| Error::library(CRL_CALL, path, &errors);
        let content = material.get(path).unwrap_or_default();
        let lists = pem_blocks(content, b"X509 CRL");
        if lists.is_empty() {
            return Err(Error::at(CRL_CALL, path, "no revocation list in it"));
        }
        for pem in lists {
            let list = X509Crl::from_pem(pem).map_err(failed)?;
            library::add_revocation_list(&mut store, &list).map_err(failed)?;
        }
        store
            .set_flags(X509VerifyFlags::CRL_CHECK | X509VerifyFlags::CRL_CHECK_ALL)
            .map_err(failed)?;
    }
    if let Some(depth) = authorities.depth {
        builder.set_verify_depth(depth);
    }
    builder.set_cert_store(store.build());
    Ok(trusted)
}

fn set_verify(builder: &mut SslContextBuilder, mode: SslVerifyMode, authorities: &Authorities) {
    match authorities.revoked.is_empty() {
        true => builder.set_verify(mode),
        false => builder.set_verify_callback(mode, |passed, chain| passed || forgive(chain)),
    }
}

/// OpenSSL wants a list for every certificate of a chain, for the last one as well, which is trusted
/// by itself: the issuer of an intermediate authority is of no concern to who trusts that one.
fn forgive(chain: &mut X509StoreContextRef) -> bool {
    const UNABLE_TO_GET_CRL: i32 = 3; // X509_V_ERR_UNABLE_TO_GET_CRL
    let last = chain.chain().map_or(0, |chain| chain.len()).saturating_sub(1);
    let trusted = chain.error_depth() as usize == last && last > 0;
    let forgiven = trusted && chain.error().as_raw() == UNABLE_TO_GET_CRL;
    if forgiven {
        chain.set_error(X509VerifyResult::OK);
    }
    forgiven
}

/// The PEM blocks of a kind, with their first and last lines.
pub(super) fn pem_blocks<'a>(content: &'a [u8], kind: &[u8]) -> Vec<&'a [u8]> {
    let begin = [b"-----BEGIN ", kind, b"-----"].concat();
    let end = [b"-----END ", kind, b"-----"].concat();
    let mut blocks = Vec::new();
    let mut rest = content;
    while let Some(start) = memchr::memmem::find(rest, &begin) {
        let Some(length) = memchr::memmem::find(&rest[start..], &end) else {
            break;
        };
        let block = start + length + end.len();
        blocks.push(&rest[start..block]);
        rest = &rest[block..];
    }
    blocks
}

/// Reads an OCSP response (RFC 6960), which must be one.
fn ocsp_response(path: &Path, material: &Material) -> Result<Vec<u8>, Error> {
    let response = material.get(path).unwrap_or_default().to_vec();
    match OcspResponse::from_der(&response) {
        Ok(_) => Ok(response),
        Err(errors) => Err(Error::library(OCSP_CALL, path, &errors)),
    }
}

/// Staples the response for the certificate that is sent.
fn staple(ssl: &mut SslRef, responses: &[(Vec<u8>, Vec<u8>)]) -> Result<bool, ErrorStack> {
    let sent = ssl.certificate().map(|certificate| certificate.to_der()).transpose()?;
    match responses.iter().find(|(certificate, _)| Some(certificate) == sent.as_ref()) {
        Some((_, response)) => ssl.set_ocsp_status(response).map(|()| true),
        None => Ok(false),
    }
}

/// The side that connects, for one remote.
pub struct Connector {
    context: SslContext,
    name: Option<String>,
    /// Sessions to resume, the latest last, encoded: OpenSSL marks the session that follows a
    /// resumed one as not to be resumed, and that mark does not survive.
    sessions: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Connector {:?}", self.name)
    }
}

/// Sessions kept for one remote: a ticket of TLS 1.3 is used once.
const MOST_SESSIONS: usize = 16;

impl Connector {
    /// Loads certificates and settings.
    pub fn new(settings: &RemoteTls, material: &Material) -> Result<Connector, Error> {
        let own = |errors: ErrorStack| own(&errors);
        let mut builder = common_context(SslMethod::tls_client()).map_err(own)?;
        ciphers(&mut builder, settings.ciphers.as_deref(), settings.cipher_suites.as_deref())?;
        if settings.verify {
            trust(&mut builder, &settings.authorities, material)?;
        }
        if settings.certificate.chain.is_some() || settings.certificate.key.is_some() {
            identity(&mut builder, &settings.certificate, material)?;
        }
        let verify = if settings.verify { SslVerifyMode::PEER } else { SslVerifyMode::NONE };
        set_verify(&mut builder, verify, &settings.authorities);
        builder
            .set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
        let sessions = Arc::new(Mutex::new(Vec::new()));
        let store = sessions.clone();
        builder.set_new_session_callback(move |_, session| {
            if let (Ok(mut sessions), Ok(session)) = (store.lock(), session.to_der()) {
                if sessions.len() == MOST_SESSIONS {
                    sessions.remove(0);
                }
                sessions.push(session);
            }
        });
        Ok(Connector { context: builder.build(), name: settings.server_name.clone(), sessions })
    }

    /// A new connection.
    pub fn connect(&self) -> Result<Stream, ErrorStack> {
        let mut ssl = Ssl::new(&self.context)?;
        if let Some(name) = &self.name {
            match name.parse::<IpAddr>() {
                Ok(address) => ssl.param_mut().set_ip(address)?,
                Err(_) => {
                    ssl.set_hostname(name)?;
                    ssl.param_mut().set_host(name)?;
                }
            }
        }
        if let Some(session) = self.resumable() {
            library::resume(&mut ssl, &session)?;
        }
        ssl.set_connect_state();
        Stream::new(ssl, false)
    }

    /// A session to resume. One of TLS 1.3 is taken out, as its ticket should not be seen twice
    /// (RFC 8446 appendix C.4).
    fn resumable(&self) -> Option<SslSession> {
        let mut sessions = self.sessions.lock().ok()?;
        let last = SslSession::from_der(sessions.last()?).ok()?;
        if last.protocol_version() == SslVersion::TLS1_3 {
            sessions.pop();
        }
        Some(last)
    }
}

/// Everything about TLS that a relay's sessions share.
#[derive(Debug)]
pub struct Contexts {
    /// For listeners with TLS, if there are any.
    pub acceptor: Option<Acceptor>,
    /// For each remote, if it has TLS.
    pub connectors: Vec<Option<Rc<Connector>>>,
    /// Keys of session tickets.
    pub tickets: Ratchet,
}

impl Contexts {
    /// Loads what a section asks for. `listener`: there are, or may be, listeners with TLS.
    pub fn load(
        settings: &Relay,
        material: &Material,
        tickets: Ratchet,
        listener: bool,
    ) -> Result<Contexts, Error> {
        let mut connectors: Vec<Option<Rc<Connector>>> = Vec::new();
        for (index, remote) in settings.remotes.iter().enumerate() {
            let Some(tls) = &remote.tls else {
                connectors.push(None);
                continue;
            };
            // The addresses of one host share theirs.
            let same =
                |other: &Remote| other.tls.as_ref().is_some_and(|other| Rc::ptr_eq(other, tls));
            let connector = match settings.remotes[..index].iter().position(same) {
                Some(earlier) => connectors[earlier].clone(),
                None => {
                    let connector = Connector::new(tls, material).map_err(|error| Error {
                        text: format!("remote {}: {error}", remote.address),
                        ..error
                    })?;
                    Some(Rc::new(connector))
                }
            };
            connectors.push(connector);
        }
        let acceptor = listener.then(|| Acceptor::new(&settings.tls, material)).transpose()?;
        library::set_ticket_keys(tickets.keys());
        Ok(Contexts { acceptor, connectors, tickets })
    }

    /// Follows the clock with the keys of tickets.
    pub fn renew_tickets(&mut self, now: u64) {
        if self.tickets.advance(now) {
            library::set_ticket_keys(self.tickets.keys());
        }
    }
}

/// Every file that a section's TLS settings name; those for listeners only if there are any.
pub fn files(settings: &Relay, listener: bool) -> impl Iterator<Item = &PathBuf> {
    let remotes = settings.remotes.iter().filter_map(|remote| remote.tls.as_deref());
    let listener = listener.then(|| settings.tls.files());
    listener.into_iter().flatten().chain(remotes.flat_map(RemoteTls::files))
}
