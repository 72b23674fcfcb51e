//! Stapled OCSP responses (RFC 6066 section 8): from files, and those that the monitor fetches.
//!
//! The monitor asks a certificate's responder, and a worker staples what it is given. Both judge an
//! answer by the same rules ([`Inquiry::judge`]), because a worker does not trust the monitor: the
//! answer must be for this certificate, signed by its issuer or a responder with the issuer's
//! mandate, and of today.

use super::error::{own, Error, OCSP_CALL};
use super::identity::bundle;
use crate::config::tls::{Certificate, Tls};
use crate::os::tls as library;
use crate::os::{self, log};
use crate::snapshot::material::Material;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::ocsp::{
    OcspCertId, OcspCertStatus, OcspFlag, OcspRequest, OcspResponse, OcspResponseStatus,
};
use openssl::ssl::SslRef;
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::X509VerifyFlags;
use openssl::x509::{X509VerifyResult, X509};
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How far the clocks of a responder and of this host may differ, in seconds.
const SKEW: u64 = 300;
/// A response is stapled until this many seconds before its end, but for an eighth of its time at
/// most: it has to reach the client, whose clock may differ.
const MARGIN: u64 = 60;

/// Reads a file, which must be an OCSP response (RFC 6960).
pub(super) fn ocsp_response(path: &Path, material: &Material) -> Result<Vec<u8>, Error> {
    let response = material.get(path).unwrap_or_default().to_vec();
    match OcspResponse::from_der(&response) {
        Ok(_) => Ok(response),
        Err(errors) => Err(Error::library(OCSP_CALL, path, &errors)),
    }
}

/// Where a responder is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Responder {
    /// A name, or an address.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// What is requested there.
    pub path: String,
}

impl Responder {
    /// Reads a URL. It comes from a certificate, so no byte of it may be more than text.
    fn parse(url: &str) -> Option<Responder> {
        let scheme = url.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://"))?;
        let rest = &url[scheme.len()..];
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (place, path) = rest.split_at(end);
        let path = path.split('#').next().unwrap_or("");
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let (host, port) = match place.strip_prefix('[') {
            Some(place) => {
                let (host, port) = place.split_once(']')?;
                host.parse::<std::net::Ipv6Addr>().ok()?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
            }
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        let port = port.map_or(Some(80), |port| port.parse().ok()).filter(|&port| port != 0)?;
        let named = !host.is_empty() && !host.contains(['@', '[', ']', '%', '\\']);
        named.then(|| Responder { host: host.to_owned(), port, path })
    }

    /// As a request names it.
    pub fn authority(&self) -> String {
        let host = match self.host.parse() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
            _ => self.host.clone(),
        };
        match self.port {
            80 => host,
            port => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Responder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "http://{}{}", self.authority(), self.path)
    }
}

/// What a responder says about a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is not revoked.
    Good,
    /// It is revoked.
    Revoked,
}

/// What is known from a response that was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it says.
    pub standing: Standing,
    /// When that was known to be so, in seconds since 1970.
    pub since: u64,
    /// Until when it counts.
    pub until: u64,
}

impl Answer {
    /// Until when it is stapled.
    pub fn stapled_until(&self) -> u64 {
        self.until - MARGIN.min((self.until - self.since) / 8)
    }
}

/// One of our certificates, as a responder is asked about it.
#[derive(Clone)]
pub struct Inquiry {
    /// The file of the certificate, for messages.
    pub name: String,
    /// The SHA-256 of the certificate.
    pub certificate: [u8; 32],
    /// Who is asked.
    pub responder: Responder,
    subject: X509,
    /// The same in DER.
    encoded: Vec<u8>,
    issuer: X509,
}

impl fmt::Debug for Inquiry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Inquiry({} at {})", self.name, self.responder)
    }
}

/// What is asked about the certificates of a section; those that nobody can be asked about are left
/// out.
pub fn inquiries(settings: &Tls, material: &Material) -> Vec<Inquiry> {
    let mut inquiries: Vec<Inquiry> = Vec::new();
    for certificate in settings.certificates.iter().filter(|_| settings.fetches_ocsp()) {
        let Ok(Ok(inquiry)) = Inquiry::new(certificate, material) else {
            continue;
        };
        if inquiries.iter().all(|other| other.certificate != inquiry.certificate) {
            inquiries.push(inquiry);
        }
    }
    inquiries
}

impl Inquiry {
    /// What is asked about a certificate, or why nobody can be asked.
    pub(super) fn new(
        certificate: &Certificate,
        material: &Material,
    ) -> Result<Result<Inquiry, &'static str>, Error> {
        let mut chain = bundle(certificate, material)?.certificates;
        let subject = chain.remove(0);
        let Some(issuer) =
            chain.into_iter().find(|one| one.issued(&subject) == X509VerifyResult::OK)
        else {
            return Ok(Err("the certificate of its issuer is missing behind it"));
        };
        let urls = subject.ocsp_responders();
        let mut urls = urls.iter().flatten();
        let Some(responder) = urls.find_map(|url| Responder::parse(url)) else {
            drop(ErrorStack::get());
            return Ok(Err("it names no OCSP responder with http://"));
        };
        let own = |errors: ErrorStack| own(&errors);
        let encoded = subject.to_der().map_err(own)?;
        let path = certificate.chain.as_deref().unwrap_or(Path::new(""));
        let (name, certificate) = (path.display().to_string(), library::sha256(&encoded));
        let certificate = certificate.map_err(own)?;
        Ok(Ok(Inquiry { name, certificate, responder, subject, encoded, issuer }))
    }

    /// The id of RFC 6960. SHA-1 is no signature here, and is what every responder knows.
    fn id(&self) -> Result<OcspCertId, ErrorStack> {
        OcspCertId::from_cert(MessageDigest::sha1(), &self.subject, &self.issuer)
    }

    /// The question, in DER. It has no nonce, so that responders may have signed the answer before.
    pub fn question(&self) -> Result<Vec<u8>, ErrorStack> {
        let mut request = OcspRequest::new()?;
        request.add_id(self.id()?)?;
        request.to_der()
    }

    /// Judges what somebody says is an answer. `now` is in seconds since 1970.
    pub fn judge(&self, data: &[u8], now: u64) -> Result<Answer, String> {
        let judged = self.examine(data, now);
        drop(ErrorStack::get());
        judged
    }

    fn examine(&self, data: &[u8], now: u64) -> Result<Answer, String> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |errors: ErrorStack| format!("{what}: {}", library::first_error(&errors))
        };
        let response = OcspResponse::from_der(data).map_err(|_| "it is no OCSP response")?;
        if response.to_der().map_err(failed("response"))? != data {
            return Err("it is no OCSP response alone".to_owned());
        }
        if let Some(text) = refusal(response.status()) {
            return Err(text.to_owned());
        }
        let basic = response.basic().map_err(failed("response"))?;
        // The issuer alone is trusted, wherever its own certificate comes from.
        let mut store = X509StoreBuilder::new().map_err(failed("store"))?;
        store.add_cert(self.issuer.clone()).map_err(failed("store"))?;
        store.set_flags(X509VerifyFlags::PARTIAL_CHAIN).map_err(failed("store"))?;
        let mut signers = Stack::new().map_err(failed("stack"))?;
        signers.push(self.issuer.clone()).map_err(failed("stack"))?;
        basic
            .verify(&signers, &store.build(), OcspFlag::NO_EXPLICIT)
            .map_err(failed("it cannot be verified"))?;
        let id = self.id().map_err(failed("id"))?;
        let status = basic.find_status(&id).ok_or("it is about other certificates")?;
        let standing = match status.status {
            OcspCertStatus::GOOD => Standing::Good,
            OcspCertStatus::REVOKED => Standing::Revoked,
            _ => return Err("the responder does not know the certificate".to_owned()),
        };
        // RFC 5019 section 2.2.4: a response that is to be kept says until when.
        let until = status.next_update().ok_or("it does not say until when it counts")?;
        let times = library::seconds_of(status.this_update).zip(library::seconds_of(until));
        match times {
            Some((since, until)) if since >= until => Err("its times make no sense".to_owned()),
            Some((since, _)) if since > now + SKEW => Err("it is of the future".to_owned()),
            Some((_, until)) if until <= now => Err("it has expired".to_owned()),
            Some((since, until)) => Ok(Answer { standing, since, until }),
            None => Err("its times make no sense".to_owned()),
        }
    }
}

/// Why a responder gives no answer.
fn refusal(status: OcspResponseStatus) -> Option<&'static str> {
    Some(match status {
        OcspResponseStatus::SUCCESSFUL => return None,
        OcspResponseStatus::MALFORMED_REQUEST => "the responder cannot read the question",
        OcspResponseStatus::INTERNAL_ERROR => "the responder has an internal error",
        OcspResponseStatus::TRY_LATER => "the responder says: try later",
        OcspResponseStatus::SIG_REQUIRED => "the responder wants signed questions",
        OcspResponseStatus::UNAUTHORIZED => "the responder has no answer for us",
        _ => "the responder has an error without a name",
    })
}

/// A response that is stapled.
#[derive(Debug)]
struct Stapled {
    response: Vec<u8>,
    until: u64,
}

/// A certificate whose responses are fetched.
#[derive(Debug)]
struct Fetched {
    inquiry: Inquiry,
    /// Which edition was last looked at.
    edition: u64,
    stapled: Option<Stapled>,
}

/// What was fetched for the certificates of an acceptor. Handshakes read it, and the worker brings
/// what is new.
#[derive(Clone, Debug)]
pub struct Staples(Arc<Mutex<Vec<Fetched>>>);

impl Staples {
    pub(super) fn new(inquiries: Vec<Inquiry>) -> Staples {
        let new = |inquiry| Fetched { inquiry, edition: 0, stapled: None };
        Staples(Arc::new(Mutex::new(inquiries.into_iter().map(new).collect())))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Fetched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is asked about these certificates.
    pub fn inquiries(&self) -> Vec<Inquiry> {
        self.lock().iter().map(|fetched| fetched.inquiry.clone()).collect()
    }

    /// Takes what is new. `read` gives the edition and the response for a certificate, unless its
    /// edition is the known one. What is refused is logged, and what was stapled before stays.
    pub fn renew(&self, mut read: impl FnMut(&[u8; 32], u64) -> Option<(u64, Vec<u8>)>) {
        for fetched in self.lock().iter_mut() {
            let Some((edition, response)) = read(&fetched.inquiry.certificate, fetched.edition)
            else {
                continue;
            };
            fetched.edition = edition;
            match fetched.inquiry.judge(&response, os::wall_clock()) {
                Ok(answer) => {
                    let until = answer.stapled_until();
                    fetched.stapled = Some(Stapled { response, until });
                }
                Err(text) => log::braked(log::Kind::Tls, || {
                    let name = &fetched.inquiry.name;
                    format!("{name}: the OCSP response of the monitor is refused: {text}")
                }),
            }
        }
    }
}

/// Staples the response for the certificate that is being sent: the one that was fetched, or the
/// one from its file.
pub(super) fn staple(
    ssl: &mut SslRef,
    fetched: &Staples,
    files: &[(Vec<u8>, Vec<u8>)],
) -> Result<bool, ErrorStack> {
    let Some(sent) = ssl.certificate().map(|certificate| certificate.to_der()).transpose()? else {
        return Ok(false);
    };
    let (all, now) = (fetched.lock(), os::wall_clock());
    let fetched = all.iter().find(|one| one.inquiry.encoded == sent);
    let stapled = fetched.and_then(|one| one.stapled.as_ref()).filter(|one| now < one.until);
    let file = || files.iter().find(|(certificate, _)| *certificate == sent);
    let response =
        stapled.map(|one| &one.response).or_else(|| file().map(|(_, response)| response));
    match response {
        Some(response) => ssl.set_ocsp_status(response).map(|()| true),
        None => Ok(false),
    }
}
