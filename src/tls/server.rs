//! The accepting side: certificates by name, tickets, client certificates.

use super::error::{own, Error, CA_CALL, CHAIN_CALL};
use super::identity::{self, identity, names_of};
use super::ocsp::{inquiries, ocsp_response, staple, Staples};
use super::policy::{self, ciphers, groups, Handler};
use super::stream::Stream;
use super::trust::{self, set_verify, trust};
use crate::config::tls::{Certificate, Tls, Verify};
use crate::os::tls as library;
use crate::snapshot::material::Material;
use openssl::error::ErrorStack;
use openssl::hash::{Hasher, MessageDigest};
use openssl::pkey::Id;
use openssl::ssl::{
    AlpnError, NameType, SniError, Ssl, SslAlert, SslContext, SslContextBuilder, SslOptions,
    SslRef, SslSessionCacheMode, SslVerifyMode, SslVersion,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

/// The accepting side.
pub struct Acceptor {
    /// The context for clients that ask for no name, or for an unknown one.
    context: SslContext,
    handler: Handler,
    /// The oldest and the newest version that the system's policy allows, where it sets one.
    bounds: [Option<SslVersion>; 2],
    staples: Staples,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Acceptor")
    }
}

impl Acceptor {
    /// Loads certificates and settings. Does not check whether they are valid today
    /// ([`examine`](super::validity::examine) does).
    pub fn new(settings: &Tls, material: &Material) -> Result<Acceptor, Error> {
        let handler = policy::handler(settings.records);
        let staples = Staples::new(inquiries(settings, material));
        let mut groups = group(settings, material)?;
        if groups.is_empty() {
            return Err(Error::wrong("TLS listener without tls cert-file"));
        }
        // The first group is for everybody else. If a name is in two certificates, the earlier one
        // has it.
        let first = groups.remove(0);
        let context = |group: &Group<'_>| {
            server_context(settings, handler, &group.certificates, &staples, material)
        };
        let mut builder = context(&first)?;
        let bounds = [builder.min_proto_version(), builder.max_proto_version()];
        let first = first.names;
        let mut names = BTreeMap::new();
        for group in groups {
            let context = context(&group)?.build();
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
        Ok(Acceptor { context: builder.build(), handler, bounds, staples })
    }

    /// The OCSP responses that are fetched for its certificates.
    pub fn staples(&self) -> &Staples {
        &self.staples
    }

    /// Starts a connection. `versions` is as in the ACCEPT message: a byte for each version, which
    /// is the low byte of its number.
    pub fn accept(&self, versions: u32) -> Result<Stream, ErrorStack> {
        let known = [(3, SslVersion::TLS1_2), (4, SslVersion::TLS1_3)];
        let listed = |&&(byte, _): &&(u8, SslVersion)| versions.to_ne_bytes().contains(&byte);
        let first = known.iter().find(listed).map(|&(_, version)| version);
        let last = known.iter().rfind(listed).map(|&(_, version)| version);
        let [least, most] = self.bounds;
        let mut ssl = Ssl::new(&self.context)?;
        // The system's policy may allow less. If nothing is left, handshakes fail and say so.
        let is = |bound: Option<SslVersion>, version| bound == Some(version);
        ssl.set_min_proto_version(if is(least, SslVersion::TLS1_3) { least } else { first })?;
        ssl.set_max_proto_version(if is(most, SslVersion::TLS1_2) { most } else { last })?;
        ssl.set_accept_state();
        trust::watch(&mut ssl)?;
        Stream::new(ssl, self.handler)
    }
}

/// Selects the certificate by the name that a client asks for.
fn select(
    ssl: &mut SslRef,
    alert: &mut SslAlert,
    first: &[String],
    others: &BTreeMap<String, SslContext>,
    required: bool,
) -> Result<(), SniError> {
    let name = ssl.servername(NameType::HOST_NAME).map(str::to_ascii_lowercase);
    if let Some(name) = name {
        // Look for the whole name, then with a wildcard in place of its first label.
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

/// Certificates that share a context: they have the same names, and keys of different kinds.
struct Group<'a> {
    names: Vec<String>,
    kinds: Vec<Id>,
    certificates: Vec<&'a Certificate>,
}

fn group<'a>(settings: &'a Tls, material: &Material) -> Result<Vec<Group<'a>>, Error> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for certificate in &settings.certificates {
        let path = certificate.chain.as_deref().unwrap_or(Path::new(""));
        let leaf = identity::leaf(certificate, material)?;
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
    handler: Handler,
    certificates: &[&Certificate],
    staples: &Staples,
    material: &Material,
) -> Result<SslContextBuilder, Error> {
    let own = |errors: ErrorStack| own(&errors);
    let mut builder = policy::server_context(handler).map_err(own)?;
    if settings.server_preference {
        let chacha = SslOptions::from_bits_retain(1 << 21); // SSL_OP_PRIORITIZE_CHACHA
        builder.set_options(SslOptions::CIPHER_SERVER_PREFERENCE | chacha);
    }
    ciphers(&mut builder, settings.ciphers.as_deref(), settings.cipher_suites.as_deref())?;
    groups(&mut builder, settings.groups.as_deref())?;
    // Tickets only: a session cached in one worker is of no use in another.
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    if settings.session_timeout == 0 {
        builder.set_options(SslOptions::NO_TICKET);
        builder.set_num_tickets(0).map_err(own)?;
    } else {
        library::set_session_timeout(&mut builder, settings.session_timeout);
        library::use_ticket_keys(&mut builder);
        if settings.verify != Verify::No {
            library::limit_resumption(&mut builder);
        }
        builder.set_num_tickets(1).map_err(own)?;
    }
    // A session that began under other rules for client certificates is not resumed.
    let rules = rules(settings, material).map_err(own)?;
    builder.set_session_id_context(&rules).map_err(own)?;
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
    if !responses.is_empty() || settings.fetches_ocsp() {
        let staples = staples.clone();
        builder.set_status_callback(move |ssl| staple(ssl, &staples, &responses)).map_err(own)?;
    }
    Ok(builder)
}

/// The most bytes of authorities' names: the message can have 2^16 - 1, and holds other things too.
const MOST_NAMES: usize = 65_000;

/// Sets what client certificates must be like.
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
    if settings.verify == Verify::No && !settings.checks.is_empty() {
        return Err(Error::wrong(
            "tls verify subject, san and spki need tls ca-file or tls ca-path",
        ));
    }
    set_verify(builder, verify, authorities, &settings.checks);
    if settings.verify != Verify::No {
        if !authorities.is_set() {
            return Err(Error::wrong("tls verify needs tls ca-file or tls ca-path"));
        }
        let trusted = trust(builder, authorities, material)?;
        let mut names = BTreeSet::new();
        for authority in trusted {
            let name = authority.subject_name().to_der().map_err(|errors| own(&errors))?;
            if names.insert(name) {
                builder.add_client_ca(&authority).map_err(|errors| own(&errors))?;
            }
        }
        let length: usize = names.iter().map(|name| 2 + name.len()).sum();
        if length > MOST_NAMES {
            let mut paths = authorities.file.iter().chain(&authorities.directory);
            let text = format!(
                "clients are told the names of all authorities: those of {} authorities have {length} \
                 bytes, and no handshake carries more than {MOST_NAMES}",
                names.len()
            );
            return Err(Error::at(CA_CALL, paths.next().map_or(Path::new(""), |path| path), text));
        }
    }
    Ok(())
}

/// A digest of everything that decides about client certificates.
fn rules(settings: &Tls, material: &Material) -> Result<[u8; 32], ErrorStack> {
    let mut hash = Hasher::new(MessageDigest::sha256())?;
    let authorities = &settings.authorities;
    let (verify, depth) = (settings.verify, authorities.depth);
    hash.update(format!("tcprelay {verify:?} {depth:?}").as_bytes())?;
    // If there are none, hash what releases without them did: sessions outlive a reload.
    if !settings.checks.is_empty() {
        hash.update(format!("{:?}", settings.checks).as_bytes())?;
    }
    for (path, _) in authorities.files() {
        let content = material.get(path).unwrap_or_default();
        hash.update(&content.len().to_be_bytes())?;
        hash.update(content)?;
    }
    let mut rules = [0; 32];
    rules.copy_from_slice(&hash.finish()?);
    Ok(rules)
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
