//! What is wrong with TLS files and settings, in the words of the C program.

use crate::config::relay::Relay;
use crate::os::tls as library;
use openssl::error::ErrorStack;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why TLS cannot be set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The file, what was done with it, and why that failed.
    pub text: String,
    /// The configuration itself is wrong, whatever the files contain.
    pub configuration: bool,
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

/// The calls that messages name, as in the C program.
pub(super) const CHAIN_CALL: &str = "SSL_CTX_use_certificate_chain_file";

pub(super) const KEY_CALL: &str = "SSL_CTX_use_PrivateKey_file";

pub(super) const CA_CALL: &str = "SSL_CTX_load_verify_locations";

pub(super) const OCSP_CALL: &str = "d2i_OCSP_RESPONSE";

pub(super) const CRL_CALL: &str = "X509_load_crl_file";

impl Error {
    pub(super) fn wrong(text: impl Into<String>) -> Error {
        Error { text: text.into(), configuration: true }
    }

    pub(super) fn at(call: &str, path: &Path, reason: impl fmt::Display) -> Error {
        Error { text: format!("{call}: {}: {reason}", path.display()), configuration: false }
    }

    pub(super) fn library(call: &str, path: &Path, errors: &ErrorStack) -> Error {
        Error::at(call, path, library::first_error(errors))
    }

    /// A file that cannot be read, reported as OpenSSL would.
    pub fn unreadable(path: &Path, settings: &Relay, error: &io::Error) -> Error {
        let remotes = || settings.tls_of_remotes();
        let certificates = || {
            let own = remotes().map(|tls| &tls.certificate);
            settings.tls.certificates.iter().chain(own)
        };
        let is = |other: &Option<PathBuf>| other.as_deref() == Some(path);
        let authorities = remotes().map(|tls| &tls.authorities);
        let mut authorities = std::iter::once(&settings.tls.authorities).chain(authorities);
        let call = if certificates().any(|one| is(&one.chain)) {
            CHAIN_CALL
        } else if certificates().any(|one| is(&one.key)) {
            KEY_CALL
        } else if certificates().any(|one| is(&one.ocsp)) {
            OCSP_CALL
        } else if authorities.any(|one| one.revoked.iter().any(|list| list == path)) {
            CRL_CALL
        } else {
            CA_CALL
        };
        // ERR_SYSTEM_FLAG of OpenSSL 3.
        let code = 0x8000_0000u32 | error.raw_os_error().unwrap_or(libc::EIO) as u32;
        Error::at(
            call,
            path,
            format_args!("error:{code:08X}:system library::{}", crate::os::reason(error)),
        )
    }
}

pub(super) fn own(errors: &ErrorStack) -> Error {
    Error { text: format!("SSL_CTX_new: {}", library::first_error(errors)), configuration: false }
}

pub(super) fn refused(directive: &str, value: &str, errors: &ErrorStack) -> Error {
    Error::wrong(format!("tls {directive} = {value}: {}", library::first_error(errors)))
}
