//! Authorities and revocation lists: what certificates of the other side are checked against.

use super::error::{own, Error, CA_CALL, CRL_CALL};
use crate::config::tls::Authorities;
use crate::os::tls as library;
use crate::snapshot::material::Material;
use openssl::error::ErrorStack;
use openssl::ssl::{SslContextBuilder, SslVerifyMode};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::X509VerifyFlags;
use openssl::x509::{X509Crl, X509StoreContextRef, X509VerifyResult, X509};

/// Loads authorities, the system's if none are configured, and revocation lists; returns what was
/// configured.
pub(super) fn trust(
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

pub(super) fn set_verify(
    builder: &mut SslContextBuilder,
    mode: SslVerifyMode,
    authorities: &Authorities,
) {
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
