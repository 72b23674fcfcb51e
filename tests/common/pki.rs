//! Certificates for tests: made on demand, valid for a few days.

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
    SubjectKeyIdentifier,
};
use openssl::x509::{X509Extension, X509Name, X509NameRef, X509};
use std::fs;
use std::path::{Path, PathBuf};

/// A certificate and its key.
pub struct Identity {
    pub certificate: X509,
    pub key: PKey<Private>,
}

/// A key on the curve P-256.
pub fn ec_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("the curve");
    PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key")
}

pub fn rsa_key() -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(2048).expect("a key")).expect("a key")
}

fn name(common: &str) -> X509Name {
    let mut name = X509Name::builder().expect("a name");
    name.append_entry_by_nid(Nid::ORGANIZATIONNAME, "tcprelay tests").expect("a name");
    name.append_entry_by_nid(Nid::COMMONNAME, common).expect("a name");
    name.build()
}

impl Identity {
    /// A self-signed certificate authority.
    pub fn authority(common: &str) -> Identity {
        Identity::make(common, &[], ec_key(), None, (-1, 30), true)
    }

    /// A certificate authority signed by this one.
    pub fn sign_authority(&self, common: &str) -> Identity {
        Identity::make(common, &[], ec_key(), Some(self), (-1, 30), true)
    }

    /// A self-signed certificate for these DNS names; the first is also its common name.
    pub fn own(names: &[&str]) -> Identity {
        Identity::make(names[0], names, ec_key(), None, (-1, 30), false)
    }

    /// A certificate for these DNS names, signed by this authority.
    pub fn sign(&self, names: &[&str], key: PKey<Private>) -> Identity {
        Identity::make(names[0], names, key, Some(self), (-1, 30), false)
    }

    /// As [`sign`](Self::sign), expired yesterday.
    pub fn sign_expired(&self, names: &[&str]) -> Identity {
        Identity::make(names[0], names, ec_key(), Some(self), (-9, -1), false)
    }

    /// As [`sign`](Self::sign), valid from tomorrow on.
    pub fn sign_early(&self, names: &[&str]) -> Identity {
        Identity::make(names[0], names, ec_key(), Some(self), (1, 30), false)
    }

    /// As [`sign`](Self::sign), with further extensions as in openssl.cnf, such as
    /// `authorityInfoAccess` and `OCSP;URI:http://localhost/`.
    pub fn sign_with(&self, names: &[&str], extensions: &[(&str, &str)]) -> Identity {
        Identity::make_with(names[0], names, ec_key(), Some(self), (-1, 30), false, extensions)
    }

    fn make(
        common: &str,
        names: &[&str],
        key: PKey<Private>,
        issuer: Option<&Identity>,
        days: (i64, i64),
        authority: bool,
    ) -> Identity {
        Identity::make_with(common, names, key, issuer, days, authority, &[])
    }

    fn make_with(
        common: &str,
        names: &[&str],
        key: PKey<Private>,
        issuer: Option<&Identity>,
        days: (i64, i64),
        authority: bool,
        extensions: &[(&str, &str)],
    ) -> Identity {
        let subject = name(common);
        let mut builder = X509::builder().expect("a certificate");
        builder.set_version(2).expect("version 3");
        let mut serial = BigNum::new().expect("a number");
        serial.rand(100, openssl::bn::MsbOption::MAYBE_ZERO, false).expect("a number");
        builder.set_serial_number(&serial.to_asn1_integer().expect("a number")).expect("serial");
        builder.set_subject_name(&subject).expect("subject");
        let signer: &X509NameRef =
            issuer.map_or(&subject, |issuer| issuer.certificate.subject_name());
        builder.set_issuer_name(signer).expect("issuer");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.expect("a clock").as_secs() as i64;
        let time = |days: i64| Asn1Time::from_unix(now + days * 86_400).expect("a time");
        builder.set_not_before(&time(days.0)).expect("not before");
        builder.set_not_after(&time(days.1)).expect("not after");
        builder.set_pubkey(&key).expect("the key");
        if authority {
            let extension = BasicConstraints::new().critical().ca().build().expect("extension");
            builder.append_extension(extension).expect("extension");
            let usage = KeyUsage::new().critical().key_cert_sign().crl_sign().build();
            builder.append_extension(usage.expect("extension")).expect("extension");
        } else if extensions.iter().all(|(name, _)| *name != "extendedKeyUsage") {
            let usage = ExtendedKeyUsage::new().server_auth().client_auth().build();
            builder.append_extension(usage.expect("extension")).expect("extension");
        }
        let context = builder.x509v3_context(issuer.map(|one| &*one.certificate), None);
        let subject_key = SubjectKeyIdentifier::new().build(&context).expect("extension");
        builder.append_extension(subject_key).expect("extension");
        if issuer.is_some() {
            let context = builder.x509v3_context(issuer.map(|one| &*one.certificate), None);
            let issuer_key = AuthorityKeyIdentifier::new().keyid(true).build(&context);
            builder.append_extension(issuer_key.expect("extension")).expect("extension");
        }
        if !names.is_empty() {
            let mut alternatives = SubjectAlternativeName::new();
            for name in names {
                match name.parse::<std::net::IpAddr>() {
                    Ok(_) => alternatives.ip(name),
                    Err(_) => alternatives.dns(name),
                };
            }
            let context = builder.x509v3_context(None, None);
            let extension = alternatives.build(&context).expect("names");
            builder.append_extension(extension).expect("names");
        }
        for (name, value) in extensions {
            // The binding has no other way to these.
            #[allow(deprecated)]
            let extension = X509Extension::new(None, None, name, value);
            builder.append_extension(extension.expect("an extension")).expect("an extension");
        }
        let signing_key = issuer.map_or(&key, |issuer| &issuer.key);
        builder.sign(signing_key, MessageDigest::sha256()).expect("a signature");
        Identity { certificate: builder.build(), key }
    }

    /// Writes NAME.pem and NAME.key into a directory; returns their paths.
    pub fn write(&self, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let certificate = directory.join(format!("{name}.pem"));
        let key = directory.join(format!("{name}.key"));
        fs::write(&certificate, self.certificate.to_pem().expect("PEM")).expect("a file");
        fs::write(&key, self.key.private_key_to_pem_pkcs8().expect("PEM")).expect("a file");
        (certificate, key)
    }

    /// The directives for a relay's section that name the files made by [`write`](Self::write).
    pub fn directives(&self, directory: &Path, name: &str) -> String {
        let (certificate, key) = self.write(directory, name);
        format!("tls cert-file = {}\ntls key-file = {}\n", certificate.display(), key.display())
    }
}
