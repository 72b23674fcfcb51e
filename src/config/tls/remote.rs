//! `tls …` in a remote.

use super::{
    authorities, protocols, records, Authorities, Certificate, Check, Kind, Passphrase, RecordLayer,
};
use crate::config::token::*;
use crate::config::{ConfigError, Parser};
use std::path::PathBuf;

/// TLS settings for a remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteTls {
    /// What the remote's certificate is checked against; the system's authorities if unset.
    pub authorities: Authorities,
    /// `tls verify`.
    pub verify: bool,
    /// `tls server-name`; the remote's host name or address if unset.
    pub server_name: Option<String>,
    /// Our certificate, if the remote wants one.
    pub certificate: Certificate,
    /// `tls ciphers`, as in [`Tls`](super::Tls).
    pub ciphers: Option<String>,
    /// `tls cipher-suites`, of TLS 1.3.
    pub cipher_suites: Option<String>,
    /// `tls groups`, separated by colons.
    pub groups: Option<String>,
    /// `tls versions`: the lowest and the highest, by the low bytes of their numbers.
    pub versions: Option<(u8, u8)>,
    /// `tls alpn`: the protocols to offer, in the order of preference.
    pub alpn: Vec<String>,
    /// `tls verify subject`, `san`, `spki`.
    pub checks: Vec<Check>,
    /// `tls records`; that of the section if unset.
    pub records: Option<RecordLayer>,
}

impl RemoteTls {
    /// Settings for tests: the remote is not verified, and all else is at its default.
    #[cfg(test)]
    pub(crate) fn unverified() -> RemoteTls {
        RemoteTls {
            authorities: Authorities::default(),
            verify: false,
            server_name: None,
            certificate: Certificate::default(),
            ciphers: None,
            cipher_suites: None,
            groups: None,
            versions: None,
            alpn: Vec::new(),
            checks: Vec::new(),
            records: None,
        }
    }

    /// Every file and directory that the settings name.
    pub fn files(&self) -> impl Iterator<Item = (&PathBuf, Kind)> {
        self.certificate.files().chain(self.authorities.files())
    }
}

/// A remote's TLS directives as read so far.
#[derive(Clone, Debug, Default)]
pub(in crate::config) struct RemoteDirectives {
    /// `tls = yes`, or `no`.
    on: Option<bool>,
    authorities: Authorities,
    no_verify: bool,
    server_name: Option<String>,
    certificate: Certificate,
    ciphers: Option<String>,
    cipher_suites: Option<String>,
    groups: Option<String>,
    versions: Option<(u8, u8)>,
    alpn: Vec<String>,
    checks: Vec<Check>,
    records: Option<RecordLayer>,
    /// There is a TLS directive other than `tls = …`.
    described: bool,
}

impl RemoteDirectives {
    /// The settings, if TLS is on. `name` is the host or IP address of the remote. Fails if there
    /// are TLS settings without `tls = yes` or `no`.
    pub(in crate::config) fn finish(
        self,
        name: Option<String>,
    ) -> Result<Option<RemoteTls>, &'static str> {
        let on = match (self.on, self.described) {
            (Some(on), _) => on,
            (None, false) => false,
            (None, true) => return Err("remote: 'tls = yes' is missing"),
        };
        Ok(on.then(|| RemoteTls {
            authorities: self.authorities,
            verify: !self.no_verify,
            server_name: self.server_name.or(name),
            certificate: self.certificate,
            ciphers: self.ciphers,
            cipher_suites: self.cipher_suites,
            groups: self.groups,
            versions: self.versions,
            alpn: self.alpn,
            checks: self.checks,
            records: self.records,
        }))
    }
}

/// `tls …` in a remote, with the keyword current.
pub(in crate::config) fn remote(
    parser: &mut Parser<'_>,
    directives: &mut RemoteDirectives,
) -> Result<(), ConfigError> {
    parser.advance()?;
    match parser.code() {
        S_equal => {
            parser.advance()?;
            directives.on = Some(parser.boolean()?);
            return Ok(());
        }
        S_cert | S_cert_file | S_certfile => {
            directives.certificate.chain = Some(parser.assigned()?.text.into());
        }
        S_key | S_key_file | S_keyfile => {
            directives.certificate.key = Some(parser.assigned()?.text.into());
        }
        S_passphrase => {
            directives.certificate.passphrase = Some(Passphrase(parser.assigned()?.text));
        }
        S_ciphers => directives.ciphers = Some(parser.assigned()?.text),
        S_cipher_suites => directives.cipher_suites = Some(parser.assigned()?.text),
        S_groups => directives.groups = Some(parser.assigned()?.text),
        S_alpn => directives.alpn = protocols(parser)?,
        _ if parser.is_word("records") => directives.records = Some(records(parser)?),
        _ if parser.is_word("versions") => {
            parser.advance()?;
            parser.expect(S_equal)?;
            directives.versions = Some(versions(parser)?);
        }
        _ if parser.is_word("verify") => {
            parser.advance()?;
            if let Some(check) = Check::read(parser)? {
                directives.checks.push(check);
            } else {
                parser.expect(S_equal)?;
                directives.no_verify = !parser.boolean()?;
            }
        }
        _ if parser.is_word("server-name") => {
            let name = parser.assigned()?;
            if name.text.is_empty() || name.text.len() > 253 {
                return Err(name.error("'tls server-name' is no name of a host"));
            }
            directives.server_name = Some(name.text);
        }
        _ if authorities(parser, &mut directives.authorities)? => {}
        _ => {
            return Err(parser.expected_words(&[
                "=",
                "alpn",
                "ca-file",
                "ca-path",
                "cert-file",
                "cipher-suites",
                "ciphers",
                "crl-file",
                "groups",
                "key-file",
                "passphrase",
                "records",
                "server-name",
                "verify",
                "verify-depth",
                "versions",
            ]))
        }
    }
    directives.described = true;
    Ok(())
}

/// A version, or the lowest and highest in any order, separated by a comma.
fn versions(parser: &mut Parser<'_>) -> Result<(u8, u8), ConfigError> {
    fn version(parser: &mut Parser<'_>) -> Result<u8, ConfigError> {
        let version = match parser.code() {
            S_TLS1_2 => 3,
            S_TLS1_3 => 4,
            _ => return Err(parser.expected(&[S_TLS1_2, S_TLS1_3])),
        };
        parser.advance()?;
        Ok(version)
    }
    let first = version(parser)?;
    let second = if parser.accept(S_comma)? { version(parser)? } else { first };
    Ok((first.min(second), first.max(second)))
}
