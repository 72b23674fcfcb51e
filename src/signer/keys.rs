//! The private keys, and what they may sign.

use crate::os::secret::Secret;
use crate::os::tls::signing::{Digest, KeyName, Request, Scheme};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Padding;
use openssl::sign::{RsaPssSaltlen, Signer};
use std::collections::BTreeMap;
use std::fmt;

/// Private keys by name.
#[derive(Default)]
pub struct Keys(BTreeMap<KeyName, PKey<Private>>);

impl fmt::Debug for Keys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} private keys", self.0.len())
    }
}

/// Why nothing is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such key.
    Unknown,
    /// Nothing that a handshake of TLS signs.
    NotTls,
    /// The key cannot sign like this.
    Unfit,
}

impl Keys {
    /// Loads keys in PKCS #8.
    pub fn load(encoded: &BTreeMap<KeyName, Secret>) -> Result<Keys, ErrorStack> {
        let load = |(name, key): (&KeyName, &Secret)| {
            Ok::<_, ErrorStack>((*name, PKey::private_key_from_pkcs8(key)?))
        };
        Ok(Keys(encoded.iter().map(load).collect::<Result<_, _>>()?))
    }

    /// Signs.
    pub fn sign(&self, request: &Request) -> Result<Vec<u8>, Refusal> {
        let key = self.0.get(&request.key).ok_or(Refusal::Unknown)?;
        if !is_of_tls(&request.message) {
            return Err(Refusal::NotTls);
        }
        sign(key, request).map_err(|_| Refusal::Unfit)
    }
}

fn sign(key: &PKey<Private>, request: &Request) -> Result<Vec<u8>, ErrorStack> {
    let digest = match request.digest {
        Digest::None => None,
        Digest::Sha224 => Some(MessageDigest::sha224()),
        Digest::Sha256 => Some(MessageDigest::sha256()),
        Digest::Sha384 => Some(MessageDigest::sha384()),
        Digest::Sha512 => Some(MessageDigest::sha512()),
    };
    let mut signer = match digest {
        Some(digest) => Signer::new(digest, key)?,
        None => Signer::new_without_digest(key)?,
    };
    match request.scheme {
        Scheme::Whole | Scheme::Ecdsa => {}
        Scheme::RsaPkcs1 => signer.set_rsa_padding(Padding::PKCS1)?,
        Scheme::RsaPss => {
            signer.set_rsa_padding(Padding::PKCS1_PSS)?;
            signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
        }
    }
    signer.sign_oneshot_to_vec(&request.message)
}

/// True for what a handshake signs. A key may be good for other things, such as mail or tokens, and
/// a worker that was taken over must not get signatures for those.
fn is_of_tls(message: &[u8]) -> bool {
    is_verify(message) || is_key_exchange(message) || is_transcript(message)
}

/// CertificateVerify of TLS 1.3 (RFC 8446 section 4.4.3).
fn is_verify(message: &[u8]) -> bool {
    let Some((spaces, rest)) = message.split_at_checked(64) else {
        return false;
    };
    let contexts: [&[u8]; 2] =
        [b"TLS 1.3, server CertificateVerify\0", b"TLS 1.3, client CertificateVerify\0"];
    let hash = contexts.iter().find_map(|context| rest.strip_prefix(*context));
    spaces.iter().all(|&byte| byte == b' ')
        && hash.is_some_and(|hash| matches!(hash.len(), 32 | 48))
}

/// ServerKeyExchange of TLS 1.2: two random numbers, and a point on a named curve (RFC 8422 section
/// 5.4) or the three numbers of Diffie-Hellman (RFC 5246 section 7.4.3).
fn is_key_exchange(message: &[u8]) -> bool {
    const NAMED_CURVE: u8 = 3;
    let Some((_, parameters)) = message.split_at_checked(64) else {
        return false;
    };
    if let [NAMED_CURVE, _, _, length, point @ ..] = parameters {
        if point.len() == usize::from(*length) {
            return true;
        }
    }
    let mut rest = parameters;
    for _ in 0..3 {
        let Some((length, tail)) = rest.split_first_chunk() else {
            return false;
        };
        let Some((_, tail)) = tail.split_at_checked(u16::from_be_bytes(*length).into()) else {
            return false;
        };
        rest = tail;
    }
    rest.is_empty()
}

/// CertificateVerify of TLS 1.2: all messages of a handshake, from ClientHello to ClientKeyExchange
/// (RFC 5246 section 7.4.8).
fn is_transcript(message: &[u8]) -> bool {
    const CLIENT_HELLO: u8 = 1;
    const CLIENT_KEY_EXCHANGE: u8 = 16;
    let (mut rest, mut last) = (message, None);
    while let [kind, high, middle, low, tail @ ..] = rest {
        let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
        let Some((content, tail)) = tail.split_at_checked(length) else {
            return false;
        };
        if last.is_none() && (*kind != CLIENT_HELLO || !content.starts_with(&[3, 3])) {
            return false;
        }
        (last, rest) = (Some(*kind), tail);
    }
    rest.is_empty() && last == Some(CLIENT_KEY_EXCHANGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn verify(side: &str, hash: usize) -> Vec<u8> {
        let text = format!("{}TLS 1.3, {side} CertificateVerify\0", " ".repeat(64));
        [text.as_bytes(), &vec![7; hash]].concat()
    }

    #[test]
    fn only_what_tls_signs_is_signed() {
        let curve = [&[9; 64][..], &[3, 0, 29, 32], &[1; 32]].concat();
        let numbers = [&[9; 64][..], &[0, 2, 1, 1, 0, 1, 2, 0, 2, 5, 5]].concat();
        let transcript = [1, 0, 0, 2, 3, 3, 2, 0, 0, 0, 16, 0, 0, 1, 9].to_vec();
        for good in [verify("server", 32), verify("client", 48), curve, numbers, transcript] {
            assert!(is_of_tls(&good), "{good:?}");
            assert!(!is_of_tls(&good[..good.len() - 1]), "a part of {good:?}");
            assert!(!is_of_tls(&[&good[..], &[0]].concat()), "more than {good:?}");
        }
        for bad in [vec![], b"{\"alg\":\"RS256\"}".to_vec(), vec![0x30; 200], verify("other", 32)] {
            assert!(!is_of_tls(&bad), "{bad:?}");
        }
    }

    #[test]
    fn keys_sign_as_their_kind_can() {
        let key = PKey::generate_ed25519().unwrap();
        let encoded = Secret::copy(&key.private_key_to_pkcs8().unwrap()).unwrap();
        let keys = Keys::load(&BTreeMap::from([([1; 32], encoded)])).unwrap();
        let message = verify("server", 32);
        let request = |name, scheme, digest| {
            keys.sign(&Request { number: 1, key: name, scheme, digest, message: message.clone() })
        };
        assert!(request([1; 32], Scheme::Whole, Digest::None).is_ok());
        assert_eq!(request([2; 32], Scheme::Whole, Digest::None), Err(Refusal::Unknown));
        assert_eq!(request([1; 32], Scheme::RsaPss, Digest::Sha256), Err(Refusal::Unfit));
        let other = b"something else".to_vec();
        let (scheme, digest) = (Scheme::Whole, Digest::None);
        let request = Request { number: 1, key: [1; 32], scheme, digest, message: other };
        assert_eq!(keys.sign(&request), Err(Refusal::NotTls));
    }

    proptest! {
        #[test]
        fn looking_at_messages_never_panics(message in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = is_of_tls(&message);
        }
    }
}
