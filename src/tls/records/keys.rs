//! From the secrets of a handshake to the keys of records: HKDF (RFC 5869) as TLS 1.3 uses it
//! (RFC 8446 section 7.1), and the PRF of TLS 1.2 (RFC 5246 section 5).

use crate::os::secret::wipe;
use crate::os::tls::Derivation;
use openssl::sha::{Sha256, Sha384};

/// The hash of a cipher suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha384,
}

/// A secret of up to 48 bytes, wiped when it goes.
#[derive(Clone)]
pub(in crate::tls) struct Key {
    bytes: [u8; 48],
    length: usize,
}

impl Key {
    /// `None` if it is too long.
    pub(in crate::tls) fn new(bytes: &[u8]) -> Option<Key> {
        let mut key = Key { bytes: [0; 48], length: bytes.len() };
        key.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(key)
    }

    pub(in crate::tls) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
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
        let mut key = Key { bytes: [0; 48], length };
        let out = &mut key.bytes[..length];
        self.expand(secret.as_slice(), [b"tls13 ", label.as_bytes(), &[]], out);
        key
    }

    /// HKDF-Expand-Label: a label in two parts, and the context. False if more is wanted than there
    /// is.
    fn expand(self, secret: &[u8], [prefix, label, context]: [&[u8]; 3], out: &mut [u8]) -> bool {
        let lengths = (
            u16::try_from(out.len()),
            u8::try_from(prefix.len() + label.len()),
            u8::try_from(context.len()),
        );
        let (Ok(total), Ok(label_length), Ok(context_length)) = lengths else {
            return false;
        };
        let mut info = Vec::with_capacity(4 + prefix.len() + label.len() + context.len());
        info.extend_from_slice(&total.to_be_bytes());
        info.push(label_length);
        info.extend_from_slice(prefix);
        info.extend_from_slice(label);
        info.push(context_length);
        info.extend_from_slice(context);
        let mut before: Option<Key> = None;
        for (index, chunk) in out.chunks_mut(self.length()).enumerate() {
            let Ok(counter) = u8::try_from(index + 1) else {
                return false;
            };
            let last = before.as_ref().map_or(&[][..], Key::as_slice);
            let block = self.hmac(secret, &[last, &info, &[counter]]);
            chunk.copy_from_slice(&block.as_slice()[..chunk.len()]);
            before = Some(block);
        }
        true
    }

    /// By the names that OpenSSL has for it.
    fn by_name(name: &[u8]) -> Option<Hash> {
        match name.to_ascii_uppercase().as_slice() {
            b"SHA2-256" | b"SHA-256" | b"SHA256" => Some(Hash::Sha256),
            b"SHA2-384" | b"SHA-384" | b"SHA384" => Some(Hash::Sha384),
            _ => None,
        }
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

/// Derives a secret of TLS 1.3 as OpenSSL wants it (EVP_KDF-TLS13_KDF(7)). False if it cannot be
/// done: its hash is none of a cipher suite (RFC 8446 appendix B.4), say.
pub(in crate::tls) fn derive(wanted: &Derivation<'_>, out: &mut [u8]) -> bool {
    let Some(hash) = wanted.digest.and_then(Hash::by_name) else {
        return false;
    };
    let (prefix, label) = (wanted.prefix.unwrap_or_default(), wanted.label.unwrap_or_default());
    let length = hash.length();
    if !wanted.extract {
        let labels = [prefix, label, wanted.data.unwrap_or_default()];
        let secret = wanted.key.filter(|secret| secret.len() == length);
        return secret.is_some_and(|secret| hash.expand(secret, labels, out));
    }
    if out.len() != length {
        return false;
    }
    let (mut salt, mut salt_length) = ([0; 48], 0);
    if let Some(before) = wanted.salt {
        if before.len() != length {
            return false;
        }
        // What is extracted from is derived from the secret before, and from no messages.
        let nothing = hash.of(&[]);
        salt_length = length;
        if !hash.expand(before, [prefix, label, nothing.as_slice()], &mut salt[..length]) {
            return false;
        }
    }
    let extracted = hash.hmac(&salt[..salt_length], &[wanted.key.unwrap_or(&[0; 48][..length])]);
    wipe(&mut salt);
    out.copy_from_slice(extracted.as_slice());
    true
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

    /// Whatever OpenSSL may ask for, its own derivation gives the same.
    #[test]
    fn secrets_are_those_that_the_library_would_derive() {
        use crate::os::tls::testing::derive_with;
        let bytes: Vec<u8> = (0..=255).collect();
        // Without a context there is no provider.
        let method = openssl::ssl::SslMethod::tls();
        crate::os::tls::deriving_context(method, crate::tls::stream::derive).unwrap();
        for (name, length) in [("SHA256", 32), ("SHA384", 48), ("SHA2-256", 32)] {
            let base = Derivation {
                digest: Some(name.as_bytes()),
                prefix: Some(b"tls13 "),
                label: Some(b"c ap traffic"),
                ..Derivation::default()
            };
            let (secret, salt) = (Some(&bytes[..length]), Some(&bytes[100..100 + length]));
            let extract = Derivation { extract: true, label: Some(b"derived"), ..base };
            let mut cases = vec![
                (Derivation { key: secret, ..extract }, length),
                (Derivation { key: Some(&bytes[..66]), salt, ..extract }, length),
            ];
            for size in [1, 12, 16, length, length + 1, 2 * length, 500] {
                cases.push((Derivation { key: secret, ..base }, size));
                cases.push((Derivation { key: secret, data: salt, ..base }, size));
            }
            for (wanted, size) in cases {
                let theirs = derive_with(c"provider=default", &wanted, size, true);
                assert!(theirs.is_some(), "{wanted:?}");
                for together in [true, false] {
                    let ours = derive_with(c"provider=tcprelay", &wanted, size, together);
                    assert_eq!(ours, theirs, "{wanted:?}, {size}");
                }
            }
            for (wanted, size) in [
                (Derivation { digest: Some(b"SHA1"), key: secret, ..base }, 20),
                (Derivation { digest: None, key: secret, ..base }, length),
                (base, length),
                (extract, length + 1),
                (Derivation { key: secret, label: Some(&bytes[..250]), ..base }, length),
                (Derivation { key: secret, ..base }, 256 * length),
            ] {
                assert_eq!(derive_with(c"provider=tcprelay", &wanted, size, true), None);
            }
        }
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
