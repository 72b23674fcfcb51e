//! Our own certificates, with their chains and keys.

use super::error::{Error, CHAIN_CALL, KEY_CALL};
use crate::config::tls::Certificate;
use crate::os::tls::{self as library, signing};
use crate::snapshot::material::Material;
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkcs12::Pkcs12;
use openssl::pkey::{Id, PKey, Private, Public};
use openssl::ssl::SslContextBuilder;
use openssl::x509::X509;
use std::path::Path;

/// Why `tls keys = separate` is refused if `tls ciphers` leaves no choice.
pub(super) const RSA_ONLY: &str = "tls ciphers has no suite that works with tls keys = separate: \
     key exchange with RSA is not possible";

/// The content of a certificate file: the certificate, its chain, and in PKCS#12 its key.
pub(super) struct Bundle {
    pub(super) certificates: Vec<X509>,
    pub(super) key: Option<PKey<Private>>,
}

/// Reads the file of a certificate: PEM, or PKCS#12 with `tls passphrase`.
pub(super) fn bundle(certificate: &Certificate, material: &Material) -> Result<Bundle, Error> {
    let path = certificate.chain.as_deref().unwrap_or(Path::new(""));
    let content = material.get(path).unwrap_or_default();
    let failed = |errors: ErrorStack| Error::library(CHAIN_CALL, path, &errors);
    if is_der(content) {
        if let Ok(pkcs12) = Pkcs12::from_der(content) {
            let passphrase = certificate.passphrase.as_ref().map_or("", |one| one.0.as_str());
            let parsed = pkcs12.parse2(passphrase).map_err(failed)?;
            let leaf = parsed.cert.ok_or_else(|| {
                Error::at(CHAIN_CALL, path, "no certificate for the key in this PKCS#12 file")
            })?;
            let chain = parsed.ca.into_iter().flatten();
            let certificates = std::iter::once(leaf).chain(chain).collect();
            return Ok(Bundle { certificates, key: parsed.pkey });
        }
        if X509::from_der(content).is_ok() {
            let text = "it is DER: PEM is needed (openssl x509 -inform DER), or PKCS#12";
            return Err(Error::at(CHAIN_CALL, path, text));
        }
    }
    // An empty file has no first certificate, which must be an error.
    X509::from_pem(content).map_err(failed)?;
    Ok(Bundle { certificates: X509::stack_from_pem(content).map_err(failed)?, key: None })
}

/// True for a file without PEM that begins as DER does: with a sequence.
fn is_der(content: &[u8]) -> bool {
    content.first() == Some(&0x30) && memchr::memmem::find(content, b"-----BEGIN ").is_none()
}

/// The certificate itself, without its chain.
pub(super) fn leaf(certificate: &Certificate, material: &Material) -> Result<X509, Error> {
    Ok(bundle(certificate, material)?.certificates.swap_remove(0))
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
    let failed = |errors: ErrorStack| Error::library(CHAIN_CALL, path, &errors);
    let Bundle { mut certificates, key } = bundle(certificate, material)?;
    let leaf = certificates.remove(0);
    if let Some(text) = unusable(&leaf.public_key().map_err(failed)?) {
        return Err(Error::at(CHAIN_CALL, path, text));
    }
    builder.set_certificate(&leaf).map_err(failed)?;
    for issuer in &certificates {
        library::add_chain_certificate(builder, issuer).map_err(failed)?;
    }
    if material.is_public() {
        let failed = |errors: ErrorStack| Error::library(KEY_CALL, key_path, &errors);
        let public = leaf.public_key().map_err(failed)?;
        let key = signing::key_elsewhere(&public).map_err(failed)?;
        builder.set_private_key(&key).map_err(failed)?;
        signing::suspend_handshakes(builder);
        return match signing::decrypt_nothing(builder).map_err(failed)? {
            true => Ok(leaf),
            false => Err(Error::wrong(RSA_ONLY)),
        };
    }
    let apart = material.keys().and_then(|keys| {
        let public = leaf.public_key().ok()?;
        PKey::private_key_from_pkcs8(keys.get(&signing::name_of(&public).ok()?)?).ok()
    });
    let key = match (apart, key) {
        // The monitor has the keys, though not in the files.
        (Some(key), _) => key,
        (None, Some(key)) if key_path == path => key,
        _ => private_key(certificate, key_path, material.get(key_path).unwrap_or_default())?,
    };
    let failed = |errors: ErrorStack| Error::library(KEY_CALL, key_path, &errors);
    let fits = |one: &X509| one.public_key().is_ok_and(|public| public.public_eq(&key));
    if !fits(&leaf) {
        // OpenSSL reports something else for keys that are not even of the same kind.
        let mut text = "error:05800074:x509 certificate routines::key values mismatch".to_owned();
        if let Some(other) = certificates.iter().find(|one| fits(one)) {
            text += &format!(
                " (it is the key of {}, which must be the first certificate in {})",
                library::name_text(other.subject_name()),
                path.display()
            );
        }
        return Err(Error::at(KEY_CALL, key_path, text));
    }
    builder.set_private_key(&key).map_err(failed)?;
    builder.check_private_key().map_err(failed)?;
    Ok(leaf)
}

/// Why no handshake can use a key, if that is so (RFC 8446 section 4.2.3, RFC 8422 section 5.1.1).
fn unusable(key: &PKey<Public>) -> Option<String> {
    const CURVES: [Nid; 3] = [Nid::X9_62_PRIME256V1, Nid::SECP384R1, Nid::SECP521R1];
    match key.id() {
        Id::EC => {
            let curve = key.ec_key().ok()?.group().curve_name();
            let name = curve.and_then(|curve| curve.short_name().ok()).unwrap_or("unknown");
            let known = curve.is_some_and(|curve| CURVES.contains(&curve));
            let usable = known || name.starts_with("brainpool");
            (!usable).then(|| format!("no handshake can use a key on the curve {name}"))
        }
        Id::DSA | Id::DH | Id::X25519 | Id::X448 => {
            Some("no handshake can use a key of this kind".to_owned())
        }
        _ => None,
    }
}

/// Reads a key. Without a passphrase an encrypted key is refused; nobody is asked for one.
pub(super) fn private_key(
    certificate: &Certificate,
    path: &Path,
    pem: &[u8],
) -> Result<PKey<Private>, Error> {
    if is_der(pem) && PKey::private_key_from_der(pem).is_ok() {
        let text = "it is DER, and PEM is needed (openssl pkey -inform DER)";
        return Err(Error::at(KEY_CALL, path, text));
    }
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
