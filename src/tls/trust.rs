//! Authorities and revocation lists, against which the other side's certificates are checked.

use super::error::{own, Error, CA_CALL, CRL_CALL};
use crate::config::tls::{Authorities, Check};
use crate::os::tls as library;
use crate::snapshot::material::Material;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::hash::{hash, MessageDigest};
use openssl::ssl::{Ssl, SslContextBuilder, SslRef, SslVerifyMode};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::X509VerifyFlags;
use openssl::x509::{
    X509Crl, X509Ref, X509StoreContext, X509StoreContextRef, X509VerifyResult, X509,
};
use std::net::IpAddr;
use std::sync::{Mutex, OnceLock};

/// Loads authorities (the system's if none are configured) and revocation lists. Returns the
/// configured authorities.
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
        // A configuration that names an intermediate authority, or the very certificate, trusts
        // that one, and not all that its root has signed.
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

/// Describes a certificate that was refused, for the message.
type Refused = Mutex<String>;

fn refused_index() -> Option<Index<Ssl, Refused>> {
    static INDEX: OnceLock<Option<Index<Ssl, Refused>>> = OnceLock::new();
    *INDEX.get_or_init(|| Ssl::new_ex_index().ok())
}

/// Makes a session remember which certificate was refused.
pub(super) fn watch(ssl: &mut Ssl) -> Result<(), ErrorStack> {
    if let (Some(index), false) = (refused_index(), ssl.verify_mode() == SslVerifyMode::NONE) {
        ssl.set_ex_data(index, Refused::default());
    }
    Ok(())
}

/// Why a certificate was refused, and which one.
pub(super) fn reason(ssl: &SslRef) -> String {
    let mut text = format!("({})", ssl.verify_result().error_string());
    let refused = refused_index().and_then(|index| ssl.ex_data(index));
    if let Some(refused) = refused.and_then(|refused| refused.lock().ok()) {
        if !refused.is_empty() {
            text += ": ";
            text += &refused;
        }
    }
    text
}

/// Keeps what [`reason`] will report.
fn remember(chain: &X509StoreContextRef) {
    let ssl = X509StoreContext::ssl_idx().ok().and_then(|index| chain.ex_data(index));
    let refused = ssl.zip(refused_index()).and_then(|(ssl, index)| ssl.ex_data(index));
    let (Some(refused), Some(certificate)) = (refused, chain.current_cert()) else {
        return;
    };
    let subject = library::name_text(certificate.subject_name());
    let issuer = library::name_text(certificate.issuer_name());
    if let Ok(mut refused) = refused.lock() {
        *refused = match chain.error().as_raw() {
            UNABLE_TO_GET_CRL => format!("{subject}, and there is no list of {issuer}"),
            _ => format!("{subject}, issued by {issuer}"),
        };
    }
}

pub(super) fn set_verify(
    builder: &mut SslContextBuilder,
    mode: SslVerifyMode,
    authorities: &Authorities,
    checks: &[Check],
) {
    if mode == SslVerifyMode::NONE {
        builder.set_verify(mode);
        return;
    }
    let (lists, checks) = (!authorities.revoked.is_empty(), checks.to_vec());
    builder.set_verify_callback(mode, move |passed, chain| {
        let mut passed = passed || lists && forgive(chain);
        if passed && chain.error_depth() == 0 && !checks.is_empty() {
            let suits =
                |one: &X509Ref| checks.iter().any(|check| is_met(check, one).unwrap_or(false));
            if !chain.current_cert().is_some_and(suits) {
                const APPLICATION_VERIFICATION: i32 = 50; // X509_V_ERR_APPLICATION_VERIFICATION
                chain.set_error(library::verify_result(APPLICATION_VERIFICATION));
                passed = false;
            }
        }
        if !passed {
            remember(chain);
        }
        passed
    });
}

/// True if a certificate meets a check.
fn is_met(check: &Check, certificate: &X509Ref) -> Result<bool, ErrorStack> {
    Ok(match check {
        Check::Subject(name, text) => certificate.subject_name().entries().any(|entry| {
            let known = entry.object().nid().short_name();
            known.is_ok_and(|known| known.eq_ignore_ascii_case(name))
                && entry.data().to_string().is_ok_and(|data| data == *text)
        }),
        Check::San(wanted) => {
            let names = certificate.subject_alt_names();
            let address = wanted.parse().ok();
            names.into_iter().flatten().any(|name| {
                name.dnsname().is_some_and(|name| name.eq_ignore_ascii_case(wanted))
                    || name.email().is_some_and(|name| name == wanted)
                    || name.uri().is_some_and(|name| name == wanted)
                    || address.is_some() && name.ipaddress().and_then(ip_address) == address
            })
        }
        Check::Spki(wanted) => {
            let key = certificate.public_key()?.public_key_to_der()?;
            hash(MessageDigest::sha256(), &key)?[..] == wanted[..]
        }
    })
}

/// Decodes an IP address in a certificate.
pub(super) fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    match *bytes {
        [a, b, c, d] => Some(IpAddr::from([a, b, c, d])),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

const UNABLE_TO_GET_CRL: i32 = 3; // X509_V_ERR_UNABLE_TO_GET_CRL

/// Forgives a missing list for the last certificate of a chain, which is trusted by itself. OpenSSL
/// wants a list for every certificate, but a configuration that trusts an intermediate authority is
/// not concerned with that authority's issuer.
fn forgive(chain: &mut X509StoreContextRef) -> bool {
    let last = chain.chain().map_or(0, |chain| chain.len()).saturating_sub(1);
    let trusted = chain.error_depth() as usize == last && last > 0;
    let forgiven = trusted && chain.error().as_raw() == UNABLE_TO_GET_CRL;
    if forgiven {
        chain.set_error(X509VerifyResult::OK);
    }
    forgiven
}

/// The PEM blocks of one kind, with their first and last lines.
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
