//! Cipher suites whose records are handled here.

use crate::os::ktls;
use crate::os::tls::kdf::Hash;
use openssl::cipher::Cipher;
use openssl::error::ErrorStack;
use std::sync::OnceLock;

/// A protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2
    Tls12,
    /// TLS 1.3
    Tls13,
}

/// An AEAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aead {
    /// AES-128-GCM
    Aes128,
    /// AES-256-GCM
    Aes256,
    /// ChaCha20-Poly1305
    ChaCha20,
}

impl Aead {
    pub(super) fn key_length(self) -> usize {
        match self {
            Aead::Aes128 => 16,
            _ => 32,
        }
    }

    /// The cipher, looked up once.
    pub(super) fn cipher(self) -> Result<&'static Cipher, ErrorStack> {
        static CIPHERS: [OnceLock<Cipher>; 3] = [const { OnceLock::new() }; 3];
        let place = &CIPHERS[self as usize];
        if let Some(cipher) = place.get() {
            return Ok(cipher);
        }
        let name = match self {
            Aead::Aes128 => "AES-128-GCM",
            Aead::Aes256 => "AES-256-GCM",
            Aead::ChaCha20 => "ChaCha20-Poly1305",
        };
        let cipher = Cipher::fetch(None, name, None)?;
        Ok(place.get_or_init(|| cipher))
    }

    pub(super) fn in_kernel(self) -> ktls::Cipher {
        match self {
            Aead::Aes128 => ktls::Cipher::Aes128,
            Aead::Aes256 => ktls::Cipher::Aes256,
            Aead::ChaCha20 => ktls::Cipher::ChaCha20,
        }
    }
}

/// The version and cipher suite that were negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suite {
    pub(super) version: Version,
    pub(super) aead: Aead,
    pub(super) hash: Hash,
}

impl Suite {
    /// The suite with this number; `None` if its records are not handled here.
    pub fn of(version: Version, number: [u8; 2]) -> Option<Suite> {
        use {Aead::*, Hash::*};
        let (aead, hash) = match (version, u16::from_be_bytes(number)) {
            (Version::Tls13, 0x1301) => (Aes128, Sha256),
            (Version::Tls13, 0x1302) => (Aes256, Sha384),
            (Version::Tls13, 0x1303) => (ChaCha20, Sha256),
            // RSA, DHE-RSA, ECDHE-ECDSA, ECDHE-RSA.
            (Version::Tls12, 0x009c | 0x009e | 0xc02b | 0xc02f) => (Aes128, Sha256),
            (Version::Tls12, 0x009d | 0x009f | 0xc02c | 0xc030) => (Aes256, Sha384),
            // ECDHE-RSA, ECDHE-ECDSA, DHE-RSA.
            (Version::Tls12, 0xcca8..=0xccaa) => (ChaCha20, Sha256),
            _ => return None,
        };
        Some(Suite { version, aead, hash })
    }

    /// The length of a TLS 1.3 secret.
    pub fn secret_length(self) -> usize {
        self.hash.length()
    }

    /// True if a traffic secret, a key and an IV of TLS 1.3 are as long as this suite's.
    pub fn fits(self, secret: &[u8], key: &[u8], iv: &[u8]) -> bool {
        [secret.len(), key.len(), iv.len()] == [self.secret_length(), self.aead.key_length(), 12]
    }

    /// TLS 1.2 with AES-GCM sends eight bytes of each nonce (RFC 5288 section 3).
    pub(super) fn explicit_nonce(self) -> usize {
        match (self.version, self.aead) {
            (Version::Tls12, Aead::Aes128 | Aead::Aes256) => 8,
            _ => 0,
        }
    }
}
