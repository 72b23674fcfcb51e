//! What all contexts have in common: versions, cipher suites, groups.

use super::error::{refused, Error};
use crate::config::tls::RecordLayer;
use crate::os::tls::{self as library, system};
use openssl::error::ErrorStack;
use openssl::ssl::{SslContextBuilder, SslMethod, SslMode, SslOptions};
use std::fmt;

/// Who handles the records of a session after its handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Handler {
    /// [`records`](super::records).
    Own,
    /// OpenSSL, as during the handshake.
    #[default]
    Openssl,
    /// The kernel.
    Kernel,
}

impl fmt::Display for Handler {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Handler::Own => "own",
            Handler::Openssl => "openssl",
            Handler::Kernel => "kernel",
        })
    }
}

/// Who is to handle the records. It must be OpenSSL if only a FIPS module may see keys, or if the
/// system wants records to be padded, which our record layer does not do.
pub(super) fn handler(setting: RecordLayer) -> Handler {
    match setting {
        RecordLayer::Auto if !library::is_fips_required() && !system::policy().padding => {
            Handler::Own
        }
        RecordLayer::Auto | RecordLayer::Openssl => Handler::Openssl,
    }
}

/// Cipher suites of TLS 1.2 and 1.3, if none are configured: those with forward secrecy and an
/// AEAD, as in Mozilla's intermediate recommendation. The shortest AES keys come first, with the
/// hash that goes with them: none of the key lengths can be broken, and the shortest costs least.
const WITH_AES: [&str; 2] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
     ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
     ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256",
];

/// The same for processors without AES instructions.
const WITHOUT_AES: [&str; 2] = [
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:\
     ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
     ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384",
];

/// True if the processor has AES instructions, or if that is not known.
fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    let has = std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    let has = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    let has = true;
    has
}

/// Groups, if none are configured. OpenSSL before 3.5 refuses the first list. As a client it sends
/// key shares of the groups with a star, so that remotes of either age need no second ClientHello.
const GROUPS: [&str; 2] = [
    "*X25519MLKEM768:SecP256r1MLKEM768:*X25519:prime256v1:secp384r1",
    "X25519:prime256v1:secp384r1",
];

/// A context for the accepting side. If our record layer is to have the records, their secrets can
/// be captured.
pub(super) fn server_context(handler: Handler) -> Result<SslContextBuilder, ErrorStack> {
    match handler {
        Handler::Own => common(library::deriving_context(SslMethod::tls_server())?),
        _ => common(SslContextBuilder::new(SslMethod::tls_server())?),
    }
}

/// A context for the connecting side. Its TLS 1.3 records stay with OpenSSL, as tickets come among
/// them.
pub(super) fn client_context() -> Result<SslContextBuilder, ErrorStack> {
    common(SslContextBuilder::new(SslMethod::tls_client())?)
}

/// Sets up what every context has.
fn common(mut builder: SslContextBuilder) -> Result<SslContextBuilder, ErrorStack> {
    builder.set_options(
        SslOptions::NO_SSLV2
            | SslOptions::NO_SSLV3
            | SslOptions::NO_TLSV1
            | SslOptions::NO_TLSV1_1
            | SslOptions::NO_COMPRESSION
            | SslOptions::NO_RENEGOTIATION,
    );
    builder.set_mode(SslMode::RELEASE_BUFFERS);
    Ok(builder)
}

pub(super) fn ciphers(
    builder: &mut SslContextBuilder,
    list: Option<&str>,
    suites: Option<&str>,
) -> Result<(), Error> {
    let [default_list, default_suites] = if has_aes() { WITH_AES } else { WITHOUT_AES };
    let system = system::policy();
    match list {
        Some(list) => {
            builder.set_cipher_list(list).map_err(|errors| refused("ciphers", list, &errors))?;
        }
        None if system.ciphers => {}
        None => builder
            .set_cipher_list(default_list)
            .map_err(|errors| refused("ciphers", default_list, &errors))?,
    }
    match suites {
        Some(suites) => builder
            .set_ciphersuites(suites)
            .map_err(|errors| refused("cipher-suites", suites, &errors)),
        None if system.cipher_suites => Ok(()),
        None => {
            // A library that lacks one of them keeps its own list.
            let _ = builder.set_ciphersuites(default_suites);
            Ok(())
        }
    }
}

/// Sets the groups for key exchange: those configured, the system's, or ours.
pub(super) fn groups(builder: &mut SslContextBuilder, list: Option<&str>) -> Result<(), Error> {
    match list {
        Some(list) => {
            builder.set_groups_list(list).map_err(|errors| refused("groups", list, &errors))
        }
        None if system::policy().groups => Ok(()),
        None => {
            // A library that knows neither list keeps its own.
            let _ = GROUPS.iter().any(|groups| builder.set_groups_list(groups).is_ok());
            Ok(())
        }
    }
}
