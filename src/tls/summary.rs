//! What was negotiated at an end, and with whom.

use super::policy::Handler;
use super::trust::ip_address;
use crate::os::tls as library;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::ssl::{NameType, SslRef};
use openssl::x509::{X509Ref, X509VerifyResult};

/// What was negotiated, for the access log and for modules that decide about a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Such as `TLSv1.3`.
    pub version: String,
    /// OpenSSL's name of the cipher suite.
    pub cipher: String,
    /// The name that the client asked for.
    pub server_name: Option<String>,
    /// The protocol that ALPN has settled on.
    pub protocol: Option<String>,
    /// The subject of the other side's certificate.
    pub subject: Option<String>,
    /// Its issuer.
    pub issuer: Option<String>,
    /// The common name in it.
    pub common_name: Option<String>,
    /// True if there is a certificate, and it was verified.
    pub verified: bool,
    /// What modules are told about that certificate.
    pub certificate: Option<Certificate>,
    /// Who handles the records.
    pub handler: Handler,
    /// True if an earlier session was resumed.
    pub resumed: bool,
}

/// A certificate as MAVIS modules know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// The subject, such as `/C=DE/CN=joe`.
    pub subject: String,
    /// Other names, issuer, serial number and fingerprints, such as `san="…",issuer="…",…`.
    pub data: String,
}

pub(super) fn summarize(ssl: &SslRef, handler: Handler) -> Summary {
    let certificate = ssl.peer_certificate();
    Summary {
        version: ssl.version_str().to_owned(),
        cipher: ssl.current_cipher().map_or("", |cipher| cipher.name()).to_owned(),
        server_name: ssl.servername(NameType::HOST_NAME).map(str::to_owned),
        protocol: ssl
            .selected_alpn_protocol()
            .map(|protocol| String::from_utf8_lossy(protocol).into_owned()),
        subject: certificate.as_ref().map(|one| library::name_text(one.subject_name())),
        issuer: certificate.as_ref().map(|one| library::name_text(one.issuer_name())),
        common_name: certificate.as_ref().and_then(|one| {
            let name = one.subject_name().entries_by_nid(Nid::COMMONNAME).next()?;
            name.data().to_string().ok()
        }),
        verified: certificate.is_some() && ssl.verify_result() == X509VerifyResult::OK,
        certificate: certificate.as_deref().map(self::certificate),
        handler,
        resumed: ssl.session_reused(),
    }
}

fn certificate(certificate: &X509Ref) -> Certificate {
    let hexadecimal =
        |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
    let mut data = Vec::new();
    let mut add = |name: &str, value: String| {
        // A certificate may contain anything; its value must stay a single value.
        let value: String = value.chars().filter(|&c| c != '"' && !c.is_control()).collect();
        data.push(format!("{name}=\"{value}\""));
    };
    for name in certificate.subject_alt_names().into_iter().flatten() {
        let address = |bytes: &[u8]| Some(ip_address(bytes)?.to_string());
        let text = [name.dnsname(), name.email(), name.uri()].into_iter().flatten().next();
        let text = text.map(str::to_owned).or_else(|| address(name.ipaddress()?));
        text.into_iter().for_each(|text| add("san", text));
    }
    add("issuer", library::name_line(certificate.issuer_name()));
    if let Some(key) = certificate.authority_key_id() {
        add("issueraki", hexadecimal(key.as_slice()));
    }
    if let Ok(number) = certificate.serial_number().to_bn() {
        add("serial", hexadecimal(&number.to_vec()));
    }
    for (name, digest) in [("sha1", MessageDigest::sha1()), ("sha256", MessageDigest::sha256())] {
        if let Ok(digest) = certificate.digest(digest) {
            add(name, hexadecimal(&digest));
        }
    }
    Certificate { subject: library::name_line(certificate.subject_name()), data: data.join(",") }
}
