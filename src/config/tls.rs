//! `tls …` in a worker's section; `tls::remote` has what a remote may have of its own.

mod remote;

use super::token::*;
use super::values::{Value, COUNT};
use super::{ConfigError, Parser};
pub use remote::RemoteTls;
pub(super) use remote::{remote, RemoteDirectives};
use std::fmt;
use std::path::PathBuf;

/// A passphrase: hidden in debug output, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(pub String);

impl Drop for Passphrase {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0).into_bytes();
        crate::os::secret::wipe(&mut bytes);
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("…")
    }
}

/// What a path may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file, not a directory: a directory of certificates is not a certificate.
    File,
    /// Either.
    FileOrDirectory,
}

/// A certificate, with its key and settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// `tls cert-file`: the certificate and its chain, PEM.
    pub chain: Option<PathBuf>,
    /// `tls key-file`; the certificate file if unset.
    pub key: Option<PathBuf>,
    /// `tls passphrase` of the key.
    pub passphrase: Option<Passphrase>,
    /// `tls ocsp-file`: the OCSP response to staple, DER.
    pub ocsp: Option<PathBuf>,
    /// `tls sni`: names in addition to those in the certificate.
    pub names: Vec<String>,
}

impl Certificate {
    /// The file of the key.
    pub fn key_file(&self) -> Option<&PathBuf> {
        self.key.as_ref().or(self.chain.as_ref())
    }

    fn files(&self) -> impl Iterator<Item = (&PathBuf, Kind)> {
        let files = [self.chain.as_ref(), self.key_file(), self.ocsp.as_ref()];
        files.into_iter().flatten().map(|path| (path, Kind::File))
    }
}

/// What the other side's certificates are checked against.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authorities {
    /// `tls ca-file`: PEM certificates.
    pub file: Option<PathBuf>,
    /// `tls ca-path`: a directory of PEM certificates.
    pub directory: Option<PathBuf>,
    /// `tls crl-file` and `tls crl-dir`: revocation lists, PEM.
    pub revoked: Vec<PathBuf>,
    /// `tls verify-depth`.
    pub depth: Option<u32>,
}

impl Authorities {
    /// True if any are configured.
    pub fn is_set(&self) -> bool {
        self.file.is_some() || self.directory.is_some()
    }

    /// Every file and directory that the settings name.
    pub fn files(&self) -> impl Iterator<Item = (&PathBuf, Kind)> {
        let directories = self.directory.iter().chain(&self.revoked);
        let directories = directories.map(|path| (path, Kind::FileOrDirectory));
        self.file.iter().map(|path| (path, Kind::File)).chain(directories)
    }
}

/// `tls verify subject`, `san` or `spki`: a further condition on a valid certificate. If there are
/// several, one must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// An attribute of its subject, such as `OU`, with its value.
    Subject(String, String),
    /// One of its subject alternative names: a host, an IP address, a mail address or a URI.
    San(String),
    /// Its public key, by the SHA-256 of SubjectPublicKeyInfo.
    Spki([u8; 32]),
}

impl Check {
    /// Reads a check, with its word current; `None` if that word begins none.
    fn read(parser: &mut Parser<'_>) -> Result<Option<Check>, ConfigError> {
        let read: fn(&Value) -> Result<Check, &'static str> = match () {
            () if parser.is_word("subject") => |value| match value.text.split_once('=') {
                Some((name, text)) if !name.trim().is_empty() && !text.is_empty() => {
                    Ok(Check::Subject(name.trim().to_owned(), text.to_owned()))
                }
                _ => Err("'tls verify subject' wants an attribute and its value, as \"CN=joe\""),
            },
            () if parser.is_word("san") => |value| match value.text.as_str() {
                "" => Err("'tls verify san' wants a name"),
                text => Ok(Check::San(text.to_owned())),
            },
            () if parser.is_word("spki") => |value| {
                let digits: Vec<u8> = value.text.bytes().filter(|&byte| byte != b':').collect();
                let mut digest = [0; 32];
                let digit = |byte: u8| char::from(byte).to_digit(16);
                if digits.len() != 64 || !digits.iter().all(|&byte| digit(byte).is_some()) {
                    return Err("'tls verify spki' wants the SHA-256 of a key, in 64 digits");
                }
                for (byte, pair) in digest.iter_mut().zip(digits.chunks(2)) {
                    let value = digit(pair[0]).unwrap_or(0) << 4 | digit(pair[1]).unwrap_or(0);
                    *byte = value as u8;
                }
                Ok(Check::Spki(digest))
            },
            () => return Ok(None),
        };
        let value = parser.assigned()?;
        match read(&value) {
            Ok(check) => Ok(Some(check)),
            Err(text) => Err(value.error(text)),
        }
    }
}

/// `tls records`: who handles the records after a handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecordLayer {
    /// Our own record layer where possible; the kernel if `tls kernel` is set.
    #[default]
    Auto,
    /// OpenSSL.
    Openssl,
}

/// `tls keys`: where private keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// In a process of their own, which signs for workers.
    Separate,
    /// In each worker.
    Worker,
}

impl Keys {
    /// If the configuration does not say.
    pub const DEFAULT: Keys = Keys::Worker;
}

/// `tls ocsp`: where the OCSP responses to staple come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ocsp {
    /// From `tls ocsp-file` alone.
    #[default]
    File,
    /// The monitor fetches them; those of `tls ocsp-file` are for the time until then.
    Fetch,
}

/// Whether clients must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Not asked for one.
    No,
    /// Not required, but must be valid if shown.
    Optional,
    /// A valid one is required.
    Required,
}

/// What happens to expired certificates, apart from a warning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expired {
    /// They are used, except for the first certificate at the first start.
    #[default]
    Warn,
    /// A start or reload fails.
    Refuse,
}

/// TLS settings for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The first one is also used for clients that ask for no name, or an unknown one.
    pub certificates: Vec<Certificate>,
    /// `tls sni required`: clients must ask for a known name.
    pub sni_required: bool,
    /// For client certificates.
    pub authorities: Authorities,
    /// `tls verify`; required if authorities are configured.
    pub verify: Verify,
    /// `tls ciphers`, of TLS 1.2, in OpenSSL's notation.
    pub ciphers: Option<String>,
    /// `tls cipher-suites`, of TLS 1.3.
    pub cipher_suites: Option<String>,
    /// `tls groups`, separated by colons.
    pub groups: Option<String>,
    /// `tls server preference`: our order of ciphers decides, not the client's.
    pub server_preference: bool,
    /// `tls alpn`, in the order of preference.
    pub alpn: Vec<String>,
    /// `tls session timeout`: seconds for which a session can be resumed; 0 is off.
    pub session_timeout: u32,
    /// `tls handshake timeout` in seconds, for clients and remotes.
    pub handshake_timeout: u32,
    /// `tls kernel`: let the kernel handle the records where it can.
    pub kernel: bool,
    /// `tls expired`.
    pub expired: Expired,
    /// `tls records`, for clients and remotes.
    pub records: RecordLayer,
    /// `tls verify subject`, `san`, `spki`, for client certificates.
    pub checks: Vec<Check>,
    /// `tls keys`, for clients and remotes.
    pub keys: Option<Keys>,
    /// `tls ocsp`.
    pub ocsp: Ocsp,
}

impl Default for Tls {
    fn default() -> Tls {
        Tls {
            certificates: Vec::new(),
            sni_required: false,
            authorities: Authorities::default(),
            verify: Verify::No,
            ciphers: None,
            cipher_suites: None,
            groups: None,
            server_preference: true,
            alpn: Vec::new(),
            session_timeout: 7200,
            handshake_timeout: 10,
            kernel: false,
            expired: Expired::Warn,
            records: RecordLayer::Auto,
            checks: Vec::new(),
            keys: None,
            ocsp: Ocsp::File,
        }
    }
}

impl Tls {
    /// True if OCSP responses are to be fetched for our certificates.
    pub fn fetches_ocsp(&self) -> bool {
        self.ocsp == Ocsp::Fetch && !self.certificates.is_empty()
    }

    /// Every file and directory that the settings name.
    pub fn files(&self) -> impl Iterator<Item = (&PathBuf, Kind)> {
        self.certificates.iter().flat_map(Certificate::files).chain(self.authorities.files())
    }
}

/// A section's TLS directives as read so far; [`Directives::finish`] turns them into settings.
#[derive(Debug, Default)]
pub(super) struct Directives {
    tls: Tls,
    /// The first `ca-file` or `ca-path`, with its keyword.
    authority: Option<(Value, Code)>,
    verify: Option<Verify>,
}

impl Directives {
    /// The certificate that a directive belongs to: the last one, or a new one if `complete` is
    /// true of the last.
    fn certificate(&mut self, complete: fn(&Certificate) -> bool) -> &mut Certificate {
        let list = &mut self.tls.certificates;
        if list.last().is_none_or(complete) {
            list.push(Certificate::default());
        }
        let last = list.len() - 1;
        &mut list[last]
    }

    pub(super) fn finish(mut self) -> Result<Tls, ConfigError> {
        // A key or passphrase alone is not a certificate.
        self.tls.certificates.retain(|certificate| certificate.chain.is_some());
        if let (Some((place, code)), true) = (&self.authority, self.tls.certificates.is_empty()) {
            // Without a certificate of our own, client certificates cannot be asked for. The C
            // program has no authorities at all; this is its message.
            let words = "'cert-file', 'key-file' or 'passphrase'";
            return Err(place.error(format!("Expected {words}, but got '{}'", code.text())));
        }
        let by_authority = if self.authority.is_some() { Verify::Required } else { Verify::No };
        self.tls.verify = self.verify.unwrap_or(by_authority);
        Ok(self.tls)
    }
}

/// A directive about authorities, in a section or a remote; false if the current token begins none.
fn authorities(
    parser: &mut Parser<'_>,
    authorities: &mut Authorities,
) -> Result<bool, ConfigError> {
    match parser.code() {
        S_cafile => authorities.file = Some(parser.assigned()?.text.into()),
        S_capath => authorities.directory = Some(parser.assigned()?.text.into()),
        S_crldir => authorities.revoked.push(parser.assigned()?.text.into()),
        S_verify_depth | S_depth => {
            authorities.depth = Some(parser.assigned_integer(0..=100)? as u32);
        }
        _ if parser.is_word("crl-file") => authorities.revoked.push(parser.assigned()?.text.into()),
        _ => return Ok(false),
    }
    Ok(true)
}

/// `tls …` in a section, with the keyword current.
pub(super) fn section(
    parser: &mut Parser<'_>,
    directives: &mut Directives,
) -> Result<(), ConfigError> {
    parser.advance()?;
    match parser.code() {
        S_cert | S_cert_file | S_certfile => {
            let path = parser.assigned()?.text.into();
            directives.certificate(|last| last.chain.is_some()).chain = Some(path);
        }
        S_key | S_key_file | S_keyfile => {
            let path = parser.assigned()?.text.into();
            let complete = |last: &Certificate| last.chain.is_some() && last.key.is_some();
            directives.certificate(complete).key = Some(path);
        }
        S_passphrase => {
            let passphrase = Passphrase(parser.assigned()?.text);
            directives.certificate(|_| false).passphrase = Some(passphrase);
        }
        S_sni => {
            parser.advance()?;
            if parser.code() == S_required {
                directives.tls.sni_required = parser.assigned_boolean()?;
                return Ok(());
            }
            parser.expect(S_equal)?;
            let name = parser.value()?.text.to_ascii_lowercase();
            directives.certificate(|_| false).names.push(name);
        }
        S_cafile | S_capath => {
            let code = parser.code();
            let place = Value { text: parser.text_lossy(), position: parser.position() };
            authorities(parser, &mut directives.tls.authorities)?;
            directives.authority.get_or_insert((place, code));
        }
        S_ciphers => directives.tls.ciphers = Some(parser.assigned()?.text),
        S_cipher_suites => directives.tls.cipher_suites = Some(parser.assigned()?.text),
        S_groups => directives.tls.groups = Some(parser.assigned()?.text),
        S_server => {
            parser.advance()?;
            if !parser.is_word("preference") {
                return Err(parser.expected_words(&["preference"]));
            }
            directives.tls.server_preference = parser.assigned_boolean()?;
        }
        S_alpn => {
            directives.tls.alpn = protocols(parser)?;
        }
        S_session => {
            parser.advance()?;
            if parser.code() != S_timeout {
                return Err(parser.expected(&[S_timeout]));
            }
            directives.tls.session_timeout = parser.assigned_integer(COUNT)? as u32;
        }
        _ if parser.is_word("handshake") => {
            parser.advance()?;
            if parser.code() != S_timeout {
                return Err(parser.expected(&[S_timeout]));
            }
            directives.tls.handshake_timeout = parser.assigned_integer(COUNT)? as u32;
        }
        _ if parser.is_word("verify") => {
            parser.advance()?;
            if let Some(check) = Check::read(parser)? {
                directives.tls.checks.push(check);
                return Ok(());
            }
            parser.expect(S_equal)?;
            directives.verify = Some(match parser.code() {
                S_required | S_yes | S_true => Verify::Required,
                S_optional => Verify::Optional,
                S_no | S_false => Verify::No,
                _ => return Err(parser.expected(&[S_no, S_optional, S_required, S_yes])),
            });
            parser.advance()?;
        }
        _ if parser.is_word("ocsp-file") => {
            let path = parser.assigned()?.text.into();
            directives.certificate(|_| false).ocsp = Some(path);
        }
        _ if parser.is_word("ocsp") => {
            parser.advance()?;
            parser.expect(S_equal)?;
            directives.tls.ocsp = match () {
                () if parser.is_word("fetch") => Ocsp::Fetch,
                () if parser.is_word("file") => Ocsp::File,
                () => return Err(parser.expected_words(&["fetch", "file"])),
            };
            parser.advance()?;
        }
        _ if parser.is_word("expired") => {
            parser.advance()?;
            parser.expect(S_equal)?;
            directives.tls.expired = match () {
                () if parser.is_word("refuse") => Expired::Refuse,
                () if parser.is_word("warn") => Expired::Warn,
                () => return Err(parser.expected_words(&["refuse", "warn"])),
            };
            parser.advance()?;
        }
        _ if parser.is_word("keys") => {
            parser.advance()?;
            parser.expect(S_equal)?;
            directives.tls.keys = Some(match () {
                () if parser.is_word("separate") => Keys::Separate,
                () if parser.is_word("worker") => Keys::Worker,
                () => return Err(parser.expected_words(&["separate", "worker"])),
            });
            parser.advance()?;
        }
        _ if parser.is_word("watch") => {
            let text = "'tls watch' belongs into the section of spawnd, as the broker watches";
            return Err(parser.error(text));
        }
        _ if parser.is_word("records") => directives.tls.records = records(parser)?,
        _ if parser.is_word("kernel") => directives.tls.kernel = parser.assigned_boolean()?,
        _ if authorities(parser, &mut directives.tls.authorities)? => {}
        _ => return Err(parser.expected(&[S_cert_file, S_key_file, S_passphrase])),
    }
    Ok(())
}

/// A list of protocols for ALPN, with its keyword current.
fn protocols(parser: &mut Parser<'_>) -> Result<Vec<String>, ConfigError> {
    let value = parser.assigned()?;
    let mut list = value.text.clone();
    // A comma outside of quotes is a token of its own.
    while parser.accept(S_comma)? {
        list += ",";
        list += &parser.value()?.text;
    }
    let protocols: Vec<String> = list.split(',').map(str::to_owned).collect();
    if protocols.iter().any(|name| name.is_empty() || name.len() > 255) {
        return Err(value.error("TLS ALPN is malformed."));
    }
    Ok(protocols)
}

/// `records = auto|openssl`, with the keyword current.
fn records(parser: &mut Parser<'_>) -> Result<RecordLayer, ConfigError> {
    parser.advance()?;
    parser.expect(S_equal)?;
    let records = match () {
        () if parser.is_word("auto") => RecordLayer::Auto,
        () if parser.is_word("openssl") => RecordLayer::Openssl,
        () => return Err(parser.expected_words(&["auto", "openssl"])),
    };
    parser.advance()?;
    Ok(records)
}
