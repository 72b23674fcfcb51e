//! Derives record keys from the secrets of a handshake (RFC 8446 section 7.3, RFC 5246 section
//! 6.3), with OpenSSL's key derivation.

use crate::os::secret::SecretBytes;
use crate::os::tls::kdf::{self, Hash};
use openssl::error::ErrorStack;

/// HKDF-Expand-Label with an empty context (RFC 8446 section 7.1).
pub(super) fn expand_label(
    hash: Hash,
    secret: &[u8],
    label: &str,
    length: usize,
) -> Result<SecretBytes, ErrorStack> {
    const PREFIX: &[u8] = b"tls13 ";
    let mut info = [0; 32];
    let end = 3 + PREFIX.len() + label.len();
    info[..2].copy_from_slice(&(length as u16).to_be_bytes());
    info[2] = (PREFIX.len() + label.len()) as u8;
    info[3..3 + PREFIX.len()].copy_from_slice(PREFIX);
    info[3 + PREFIX.len()..end].copy_from_slice(label.as_bytes());
    let mut key = SecretBytes::zeroed(length);
    // An empty context follows.
    kdf::expand(hash, secret, &info[..=end], &mut key)?;
    Ok(key)
}

/// The key block of TLS 1.2: keys of client and server, then their IVs.
pub(super) fn key_block(
    hash: Hash,
    master: &[u8],
    [client, server]: [&[u8]; 2],
    length: usize,
) -> Result<SecretBytes, ErrorStack> {
    let mut block = SecretBytes::zeroed(length);
    kdf::prf(hash, master, "key expansion", [server, client], &mut block)?;
    Ok(block)
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

    /// RFC 8448 section 3: the server's application traffic keys of the simple handshake.
    #[test]
    fn labels_expand_as_in_the_example_of_tls_1_3() {
        let secret = hex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643");
        // Earlier derivations leave nothing behind in the thread's contexts.
        for _ in 0..3 {
            let key = expand_label(Hash::Sha256, &secret, "key", 16).unwrap();
            assert_eq!(key[..], hex("9f02283b6c9c07efc26bb9f2ac92e356"));
            let iv = expand_label(Hash::Sha256, &secret, "iv", 12).unwrap();
            assert_eq!(iv[..], hex("cf782b88dd83549aadf1e984"));
            expand_label(Hash::Sha384, &[7; 48], "traffic upd", 48).unwrap();
        }
    }

    /// The widely used test vector of the PRF with SHA-256, with the label in the seed.
    #[test]
    fn the_prf_gives_the_result_of_its_test_vector() {
        let secret = hex("9bbe436ba940f017b17652849a71db35");
        let seed = hex("a0ba9f936cda311827a6f796ffd5198c");
        for _ in 0..3 {
            let mut out = [0; 100];
            let (first, second) = seed.split_at(5);
            kdf::prf(Hash::Sha256, &secret, "test label", [first, second], &mut out).unwrap();
            assert_eq!(
                &out[..],
                hex("e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a
                     6b301791e90d35c9c9a46b4e14baf9af0fa022f7077def17abfd3797c0564bab
                     4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff701
                     87347b66")
            );
        }
    }

    /// RFC 5869 appendix A.1.
    #[test]
    fn extraction_gives_the_result_of_its_test_case() {
        for _ in 0..2 {
            let mut out = [0; 32];
            let salt = hex("000102030405060708090a0b0c");
            kdf::extract(Hash::Sha256, &salt, &[0x0b; 22], &mut out).unwrap();
            assert_eq!(
                out[..],
                hex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5")
            );
            // Appendix A.3: without a salt.
            kdf::extract(Hash::Sha256, &[0; 32], &[0x0b; 22], &mut out).unwrap();
            assert_eq!(
                out[..],
                hex("19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04")
            );
        }
    }
}
