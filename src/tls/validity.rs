//! Checks by their dates whether the certificates and revocation lists configured for TLS are valid
//! today.

use super::context::Ends;
use super::error::{Error, CHAIN_CALL, CRL_CALL};
use super::identity::bundle;
use super::ocsp::Inquiry;
use super::trust::pem_blocks;
use crate::config::relay::Relay;
use crate::config::tls::{Authorities, Certificate};
use crate::os::tls as library;
use crate::snapshot::material::Material;
use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::x509::{X509Crl, X509VerifyResult, X509};
use std::path::Path;

/// Something that is not valid today.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, and what is wrong with it.
    pub text: String,
    /// What it is about.
    pub subject: Subject,
}

/// What a [`Finding`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The certificate for clients that ask for no name, or for an unknown one, has expired.
    DefaultCertificate,
    /// Another certificate has expired.
    OtherCertificate,
    /// One of our own certificates is not valid yet.
    Early,
    /// A revocation list has expired.
    Revocations,
    /// Something else, which may become valid, or keeps out only some clients.
    Other,
}

/// Examines everything that [`Contexts::load`](super::context::Contexts::load) would load.
pub fn examine(settings: &Relay, material: &Material, ends: Ends) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    if ends == Ends::Both {
        for (index, certificate) in settings.tls.certificates.iter().enumerate() {
            let subject = match index {
                0 => Subject::DefaultCertificate,
                _ => Subject::OtherCertificate,
            };
            self::certificate(certificate, subject, material, &mut findings)?;
            if settings.tls.fetches_ocsp() {
                responder(certificate, material, &mut findings)?;
            }
        }
        revocations(&settings.tls.authorities, material, &mut findings)?;
    }
    for tls in settings.tls_of_remotes() {
        certificate(&tls.certificate, Subject::OtherCertificate, material, &mut findings)?;
        revocations(&tls.authorities, material, &mut findings)?;
    }
    // The addresses of one host share their settings, and so have the same findings.
    findings.dedup();
    Ok(findings)
}

fn certificate(
    certificate: &Certificate,
    subject: Subject,
    material: &Material,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let Some(path) = &certificate.chain else {
        return Ok(());
    };
    let failed = |errors: ErrorStack| Error::library(CHAIN_CALL, path, &errors);
    // The chain too: what an expired certificate has signed is refused like that certificate.
    let chain = bundle(certificate, material)?.certificates;
    let now = Asn1Time::days_from_now(0).map_err(failed)?;
    for (index, one) in chain.iter().enumerate() {
        let name = match index {
            0 => "the certificate".to_owned(),
            _ => format!("the certificate of {}", library::name_text(one.subject_name())),
        };
        if *one.not_after() < *now {
            let text = format!(
                "{CHAIN_CALL}: {}: {name} has expired ({})",
                path.display(),
                one.not_after()
            );
            let subject = if index == 0 { subject } else { Subject::Other };
            findings.push(Finding { text, subject });
        } else if *one.not_before() > *now {
            let since = one.not_before();
            let text =
                format!("{CHAIN_CALL}: {}: {name} is not valid before {since}", path.display());
            let subject = match (index, subject) {
                (0, Subject::DefaultCertificate | Subject::OtherCertificate) => Subject::Early,
                _ => Subject::Other,
            };
            findings.push(Finding { text, subject });
        }
    }
    if let Some(last) = chain.last().filter(|last| lacks_issuer(last)) {
        let text = format!(
            "{CHAIN_CALL}: {}: the certificate of {} is missing behind that of {}: clients that do not \
             have it will refuse this one",
            path.display(),
            library::name_text(last.issuer_name()),
            library::name_text(last.subject_name())
        );
        findings.push(Finding { text, subject: Subject::Other });
    }
    Ok(())
}

/// `tls ocsp = fetch` needs somebody to ask.
fn responder(
    certificate: &Certificate,
    material: &Material,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    if let Err(text) = Inquiry::new(certificate, material)? {
        let path = certificate.chain.as_deref().unwrap_or(Path::new("")).display();
        let text = format!("{CHAIN_CALL}: {path}: tls ocsp = fetch is without effect: {text}");
        findings.push(Finding { text, subject: Subject::Other });
    }
    Ok(())
}

/// True if clients need the issuer's certificate to be sent: this certificate says where to get it
/// (RFC 5280 section 4.2.2.1), as those of public authorities do, and the system does not trust the
/// issuer.
fn lacks_issuer(certificate: &X509) -> bool {
    let own = certificate.issued(certificate) == X509VerifyResult::OK;
    let named = certificate.authority_info().is_some_and(|access| {
        access
            .iter()
            .any(|one| one.method().nid() == Nid::AD_CA_ISSUERS && one.location().uri().is_some())
    });
    named && !own && !library::is_trusted_by_the_system(certificate.issuer_name())
}

fn revocations(
    authorities: &Authorities,
    material: &Material,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    for path in &authorities.revoked {
        let failed = |errors: ErrorStack| Error::library(CRL_CALL, path, &errors);
        let now = Asn1Time::days_from_now(0).map_err(failed)?;
        for pem in pem_blocks(material.get(path).unwrap_or_default(), b"X509 CRL") {
            let list = X509Crl::from_pem(pem).map_err(failed)?;
            if let Some(end) = list.next_update().filter(|end| **end < *now) {
                findings.push(expired_list(path, &list, end));
            }
        }
    }
    Ok(())
}

fn expired_list(path: &Path, list: &X509Crl, end: &Asn1TimeRef) -> Finding {
    let issuer = library::name_text(list.issuer_name());
    let text = format!(
        "{}: {}: the revocation list of {issuer} has expired ({end}): certificates of that issuer are refused",
        CRL_CALL,
        path.display()
    );
    Finding { text, subject: Subject::Revocations }
}
