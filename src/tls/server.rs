//! The side that accepts: certificates by name, tickets, certificates of clients.

use super::error::{own, refused, Error, CHAIN_CALL};
use super::identity::{identity, leaf, names_of};
use super::ocsp::{ocsp_response, staple};
use super::policy::{ciphers, common_context, GROUPS};
use super::stream::Stream;
use super::trust::{set_verify, trust};
use crate::config::tls::{Certificate, Tls, Verify};
use crate::os::tls as library;
use crate::snapshot::material::Material;
use openssl::error::ErrorStack;
use openssl::pkey::Id;
use openssl::sha::Sha256;
use openssl::ssl::{
    AlpnError, NameType, SniError, Ssl, SslAlert, SslContext, SslContextBuilder, SslMethod,
    SslOptions, SslRef, SslSessionCacheMode, SslVerifyMode, SslVersion,
};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

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
