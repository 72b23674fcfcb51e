//! From the secrets of a handshake to the keys of records: HKDF (RFC 5869) as TLS 1.3 uses it
//! (RFC 8446 section 7.1), and the PRF of TLS 1.2 (RFC 5246 section 5).

use crate::os::secret::wipe;
use openssl::sha::{Sha256, Sha384};

/// The hash of a cipher suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha384,
}

/// A secret of up to 48 bytes, wiped when it goes.
#[derive(Clone)]
pub(super) struct Key {
    bytes: [u8; 48],
    length: usize,
}

impl Key {
    /// `None` if it is too long.
    pub(super) fn new(bytes: &[u8]) -> Option<Key> {
        let mut key = Key { bytes: [0; 48], length: bytes.len() };
        key.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(key)
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn truncated(mut self, length: usize) -> Key {
        self.length = self.length.min(length);
        self
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        wipe(&mut self.bytes);
    }
}

impl Hash {
    /// Of its output, in bytes.
    pub(super) fn length(self) -> usize {
        match self {
            Hash::Sha256 => 32,
            Hash::Sha384 => 48,
        }
    }

    fn of(self, parts: &[&[u8]]) -> Key {
        let result = match self {
            Hash::Sha256 => {
                let mut hash = Sha256::new();
                parts.iter().for_each(|part| hash.update(part));
                Key::new(&hash.finish())
            }
            Hash::Sha384 => {
                let mut hash = Sha384::new();
                parts.iter().for_each(|part| hash.update(part));
                Key::new(&hash.finish())
            }
        };
        result.expect("no hash is longer than a key")
    }

    /// HMAC (RFC 2104) of the concatenation of `parts`. The key must not be longer than a block.
    pub(super) fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Key {
        let block = match self {
            Hash::Sha256 => 64,
            Hash::Sha384 => 128,
        };
        let mut inner = [0x36u8; 128];
        let mut outer = [0x5cu8; 128];
        for (index, byte) in key.iter().enumerate().take(block) {
            inner[index] ^= byte;
            outer[index] ^= byte;
        }
        let all: Vec<&[u8]> =
            std::iter::once(&inner[..block]).chain(parts.iter().copied()).collect();
        let digest = self.of(&all);
        let result = self.of(&[&outer[..block], digest.as_slice()]);
        wipe(&mut inner);
        wipe(&mut outer);
        result
    }

    /// HKDF-Expand-Label with an empty context; at most the hash's length.
    pub(super) fn expand_label(self, secret: &Key, label: &str, length: usize) -> Key {
        debug_assert!(length <= self.length());
        let label_length = [label.len() as u8 + 6];
        let info: [&[u8]; 6] = [
            &(length as u16).to_be_bytes(),
            &label_length,
            b"tls13 ",
            label.as_bytes(),
            // No context, and the counter of the one block that is needed.
            &[0],
            &[1],
        ];
        self.hmac(secret.as_slice(), &info).truncated(length)
    }

    /// The PRF of TLS 1.2: `out` is filled.
    pub(super) fn prf(self, secret: &[u8], label: &str, seed: &[&[u8]], out: &mut [u8]) {
        let with_label = |first: &[&[u8]]| {
            let mut parts = first.to_vec();
            parts.push(label.as_bytes());
            parts.extend_from_slice(seed);
            self.hmac(secret, &parts)
        };
        let mut a = with_label(&[]);
        for chunk in out.chunks_mut(self.length()) {
            let block = with_label(&[a.as_slice()]);
            chunk.copy_from_slice(&block.as_slice()[..chunk.len()]);
            a = self.hmac(secret, &[a.as_slice()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pair =
            |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(pair).collect()
    }

    /// RFC 4231 section 4.3.
    #[test]
    fn hmac_gives_the_results_of_its_test_cases() {
        let parts: [&[u8]; 2] = [b"what do ya want ", b"for nothing?"];
        assert_eq!(
            Hash::Sha256.hmac(b"Jefe", &parts).as_slice(),
            hex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
        );
        assert_eq!(
            Hash::Sha384.hmac(b"Jefe", &parts).as_slice(),
            hex("af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e
                 8e2240ca5e69e2c78b3239ecfab21649")
        );
    }

    /// RFC 8448 section 3: the server's application traffic keys of the simple handshake.
    #[test]
    fn labels_expand_as_in_the_example_of_tls_1_3() {
        let secret =
            Key::new(&hex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643"))
                .unwrap();
        assert_eq!(
            Hash::Sha256.expand_label(&secret, "key", 16).as_slice(),
            hex("9f02283b6c9c07efc26bb9f2ac92e356")
        );
        assert_eq!(
            Hash::Sha256.expand_label(&secret, "iv", 12).as_slice(),
            hex("cf782b88dd83549aadf1e984")
        );
    }

    /// The widely used test vector of the PRF with SHA-256.
    #[test]
    fn the_prf_gives_the_result_of_its_test_vector() {
        let mut out = [0; 100];
        Hash::Sha256.prf(
            &hex("9bbe436ba940f017b17652849a71db35"),
            "test label",
            &[&hex("a0ba9f936cda311827a6f796ffd5198c")],
            &mut out,
        );
        assert_eq!(
            &out[..],
            hex("e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a
                 6b301791e90d35c9c9a46b4e14baf9af0fa022f7077def17abfd3797c0564bab
                 4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff701
                 87347b66")
        );
    }
}
