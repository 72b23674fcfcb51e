//! Certificates of our own, with their chains and keys.

use super::error::{Error, CHAIN_CALL, KEY_CALL};
use crate::config::tls::Certificate;
use crate::os::tls as library;
use crate::snapshot::material::Material;
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::SslContextBuilder;
use openssl::x509::X509;
use std::path::Path;

/// The certificate itself, without its chain.
pub(super) fn leaf(certificate: &Certificate, material: &Material) -> Result<X509, Error> {
    let path = certificate.chain.as_deref().unwrap_or(Path::new(""));
    let failed = |errors: ErrorStack| Error::library(CHAIN_CALL, path, &errors);
    X509::from_pem(material.get(path).unwrap_or_default()).map_err(failed)
}

/// Loads a certificate, its chain and its key; returns the certificate.
pub(super) fn identity(
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
pub(super) fn names_of(certificate: &X509) -> Vec<String> {
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
