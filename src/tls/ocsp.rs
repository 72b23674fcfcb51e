//! Stapled OCSP responses (RFC 6066 section 8).

use super::error::{Error, OCSP_CALL};
use crate::snapshot::material::Material;
use openssl::error::ErrorStack;
use openssl::ocsp::OcspResponse;
use openssl::ssl::SslRef;
use std::path::Path;

/// Reads a file, which must be an OCSP response (RFC 6960).
pub(super) fn ocsp_response(path: &Path, material: &Material) -> Result<Vec<u8>, Error> {
    let response = material.get(path).unwrap_or_default().to_vec();
    match OcspResponse::from_der(&response) {
        Ok(_) => Ok(response),
        Err(errors) => Err(Error::library(OCSP_CALL, path, &errors)),
    }
}

/// Staples the response for the certificate that is being sent.
pub(super) fn staple(
    ssl: &mut SslRef,
    responses: &[(Vec<u8>, Vec<u8>)],
) -> Result<bool, ErrorStack> {
    let sent = ssl.certificate().map(|certificate| certificate.to_der()).transpose()?;
    match responses.iter().find(|(certificate, _)| Some(certificate) == sent.as_ref()) {
        Some((_, response)) => ssl.set_ocsp_status(response).map(|()| true),
        None => Ok(false),
    }
}
