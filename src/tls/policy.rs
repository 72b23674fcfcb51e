//! What all contexts have in common: versions, cipher suites, groups.

use super::error::{refused, Error};
use super::stream;
use crate::os::tls as library;
use openssl::error::ErrorStack;
use openssl::ssl::{SslContextBuilder, SslMethod, SslMode, SslOptions};

/// Cipher suites of TLS 1.2 and 1.3, if none are configured: those with forward secrecy and an
/// AEAD, as Mozilla's intermediate recommendation has them. The shortest keys of AES come first, with
/// the hash that goes with them: none of them can be broken, and they cost least.
const WITH_AES: [&str; 2] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
     ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
     ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256",
];

/// On processors without instructions for AES.
const WITHOUT_AES: [&str; 2] = [
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:\
     ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
     ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384",
];

/// True if the processor has instructions for AES, or if that is not known.
fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    let has = std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    let has = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    let has = true;
    has
}

/// Groups, if none are configured. The first is refused by an OpenSSL before 3.5.
pub(super) const GROUPS: [&str; 2] =
    ["X25519MLKEM768:X25519:prime256v1:secp384r1", "X25519:prime256v1:secp384r1"];

/// What every context has.
pub(super) fn common_context(method: SslMethod) -> Result<SslContextBuilder, ErrorStack> {
    let mut builder = library::deriving_context(method, stream::derive)?;
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
    let list = list.unwrap_or(default_list);
    builder.set_cipher_list(list).map_err(|errors| refused("ciphers", list, &errors))?;
    match suites {
        Some(suites) => builder
            .set_ciphersuites(suites)
            .map_err(|errors| refused("cipher-suites", suites, &errors)),
        None => {
            // A library without one of them keeps its own.
            let _ = builder.set_ciphersuites(default_suites);
            Ok(())
        }
    }
}
