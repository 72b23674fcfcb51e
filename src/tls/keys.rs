//! Takes private keys out of the files for TLS, so that they can go to a process of their own, and
//! the rest to workers.

use super::context::Ends;
use super::error::{Error, CHAIN_CALL, KEY_CALL};
use super::identity::{bundle, private_key, Bundle, RSA_ONLY};
use crate::config::relay::Relay;
use crate::config::tls::{Certificate, Keys};
use crate::os::secret::{wipe, Secret};
use crate::os::tls::signing::{self, KeyName};
use crate::snapshot::material::Material;
use openssl::error::ErrorStack;
use openssl::ssl::{SslContextBuilder, SslMethod};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// True if private keys are to be in a process of their own. An error if that was asked for and
/// cannot be.
pub fn are_separate(settings: &Relay) -> Result<bool, Error> {
    match settings.tls.keys {
        Some(Keys::Separate) if !signing::is_possible() => Err(Error::wrong(
            "tls keys = separate is not possible here: OpenSSL cannot suspend handshakes \
             (ASYNC_is_capable)",
        )),
        Some(keys) => Ok(keys == Keys::Separate),
        None => Ok(Keys::DEFAULT == Keys::Separate && signing::is_possible()),
    }
}

/// Takes the private keys out of the files that the settings name; those for listeners only if
/// there are any.
pub fn set_apart(settings: &Relay, material: &mut Material, ends: Ends) -> Result<(), Error> {
    let remotes = settings.tls_of_remotes();
    let own = (ends == Ends::Both).then_some(&settings.tls.certificates).into_iter().flatten();
    let certificates: Vec<(&Certificate, bool)> = own
        .map(|certificate| (certificate, false))
        .chain(remotes.map(|tls| (&tls.certificate, true)))
        .filter(|(certificate, _)| certificate.chain.is_some())
        .collect();
    if certificates.is_empty() {
        return Ok(());
    }
    check_ciphers(settings)?;
    let (mut keys, mut chains, mut others) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    let mut for_remotes = BTreeSet::new();
    for (certificate, shown_to_remotes) in certificates {
        let (Some(path), Some(key_path)) = (&certificate.chain, certificate.key_file()) else {
            continue;
        };
        let (name, key) = key(certificate, path, key_path, material)?;
        keys.insert(name, key);
        if shown_to_remotes {
            for_remotes.insert(name);
        }
        let pem = public_pem(certificate, material)
            .map_err(|errors| Error::library(CHAIN_CALL, path, &errors))??;
        chains.insert(path.clone(), pem);
        others.insert(key_path.clone());
    }
    let public = |path: &Path, content: &[u8]| public_part(path, content, &chains, &others);
    material.set_apart(keys, for_remotes, public).map_err(|error| no_memory(&error))
}

fn no_memory(error: &io::Error) -> Error {
    Error { text: format!("mmap: {}", crate::os::reason(error)), configuration: false }
}

/// Refuses a list of nothing but suites that need a private key to decrypt.
fn check_ciphers(settings: &Relay) -> Result<(), Error> {
    let Some(list) = &settings.tls.ciphers else {
        return Ok(());
    };
    let failed = |errors: ErrorStack| super::error::refused("ciphers", list, &errors);
    let mut builder = SslContextBuilder::new(SslMethod::tls()).map_err(failed)?;
    builder.set_cipher_list(list).map_err(failed)?;
    match signing::decrypt_nothing(&mut builder).map_err(failed)? {
        true => Ok(()),
        false => Err(Error::wrong(RSA_ONLY)),
    }
}

/// The private key of a certificate, PKCS #8, and its name.
fn key(
    certificate: &Certificate,
    path: &Path,
    key_path: &Path,
    material: &Material,
) -> Result<(KeyName, Secret), Error> {
    let failed = |errors: ErrorStack| Error::library(KEY_CALL, key_path, &errors);
    let Bundle { key, .. } = bundle(certificate, material)?;
    let key = match key {
        Some(key) if key_path == path => key,
        _ => private_key(certificate, key_path, material.get(key_path).unwrap_or_default())?,
    };
    let name = signing::name_of(&key).map_err(failed)?;
    let mut encoded = key.private_key_to_pkcs8().map_err(failed)?;
    let secret = Secret::copy(&encoded);
    wipe(&mut encoded);
    Ok((name, secret.map_err(|error| no_memory(&error))?))
}

/// The certificates of a file.
fn public_pem(
    certificate: &Certificate,
    material: &Material,
) -> Result<Result<Vec<u8>, Error>, ErrorStack> {
    let bundle = match bundle(certificate, material) {
        Ok(bundle) => bundle,
        Err(error) => return Ok(Err(error)),
    };
    let mut pem = Vec::new();
    for one in &bundle.certificates {
        pem.extend(one.to_pem()?);
    }
    Ok(Ok(pem))
}

/// What workers get of a file; `None` for a file in which there is no key. A file may also be used
/// for something else, such as authorities, so all public parts of it stay.
fn public_part(
    path: &Path,
    content: &[u8],
    chains: &BTreeMap<PathBuf, Vec<u8>>,
    others: &BTreeSet<PathBuf>,
) -> Option<Vec<u8>> {
    const KEY: &[u8] = b"PRIVATE KEY-----";
    let is_pem = memchr::memmem::find(content, b"-----BEGIN ").is_some();
    if is_pem {
        let known = chains.contains_key(path) || others.contains(path);
        return (known || memchr::memmem::find(content, KEY).is_some())
            .then(|| public_blocks(content));
    }
    // PKCS #12.
    chains.get(path).cloned().or_else(|| others.contains(path).then(Vec::new))
}

/// The blocks of PEM that are no secrets. What is between blocks is left out: it may be the key as
/// text.
fn public_blocks(content: &[u8]) -> Vec<u8> {
    const LABELS: [&[u8]; 4] =
        [b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE", b"X509 CRL"];
    let mut public = Vec::new();
    let mut inside = None;
    for line in content.split_inclusive(|&byte| byte == b'\n') {
        let text = line.trim_ascii_end();
        let label = |prefix: &[u8]| text.strip_prefix(prefix)?.strip_suffix(b"-----");
        if let Some(label) = label(b"-----BEGIN ") {
            inside = LABELS.contains(&label).then_some(public.len());
        }
        if let Some(start) = inside {
            // A block that another one interrupts is none.
            if text.starts_with(b"-----BEGIN ") {
                public.truncate(start);
            }
            public.extend_from_slice(text);
            public.push(b'\n');
        }
        if label(b"-----END ").is_some() {
            inside = None;
        }
    }
    if let Some(start) = inside {
        public.truncate(start);
    }
    public
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_blocks_stay() {
        let block = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        let (first, second) = (block("CERTIFICATE"), block("X509 CRL"));
        let secrets = ["PRIVATE KEY", "RSA PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "OPENSSH X"];
        let mut text = "Private-Key: (256 bit)\npriv: 00\n".to_owned();
        for label in secrets {
            text += &block(label);
            text += &first.replace('\n', "\r\n");
            text += "priv: 00\n";
        }
        text += &second;
        text += "-----BEGIN CERTIFICATE-----\nprivate";
        let left = String::from_utf8(public_blocks(text.as_bytes())).unwrap();
        assert_eq!(left, first.repeat(4) + &second);
    }
}
