//! Makes and opens TLS records with OpenSSL's primitives alone. Given a session's secrets it plays
//! the other side, and can send records that no TLS library would.

use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use openssl::symm::{decrypt_aead, encrypt_aead, Cipher};

/// A cipher suite of TLS 1.2 or 1.3.
#[derive(Clone, Copy)]
pub struct Suite {
    pub tls13: bool,
    pub number: [u8; 2],
}

/// How the suites differ.
impl Suite {
    fn cipher(self) -> Cipher {
        match self.number {
            [0x13, 1] | [0xc0, 0x2b | 0x2f] => Cipher::aes_128_gcm(),
            [0x13, 2] | [0xc0, 0x2c | 0x30] => Cipher::aes_256_gcm(),
            _ => Cipher::chacha20_poly1305(),
        }
    }

    /// The hash and the length of its output.
    pub fn hash(self) -> (MessageDigest, usize) {
        match self.number {
            [0x13, 2] | [0xc0, 0x2c | 0x30] => (MessageDigest::sha384(), 48),
            _ => (MessageDigest::sha256(), 32),
        }
    }

    /// How many bytes of the nonce travel with the record.
    fn explicit(self) -> usize {
        if !self.tls13 && self.number[0] == 0xc0 {
            8
        } else {
            0
        }
    }
}

/// The keys of one direction.
pub struct Direction {
    pub suite: Suite,
    secret: Vec<u8>,
    key: Vec<u8>,
    iv: Vec<u8>,
    pub sequence: u64,
}

fn hmac(suite: Suite, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let key = PKey::hmac(key).expect("a key");
    let mut signer = Signer::new(suite.hash().0, &key).expect("a MAC");
    parts.iter().for_each(|part| signer.update(part).expect("a MAC"));
    signer.sign_to_vec().expect("a MAC")
}

fn expand(suite: Suite, secret: &[u8], label: &str, length: usize) -> Vec<u8> {
    let label = format!("tls13 {label}");
    let head = [&(length as u16).to_be_bytes()[..], &[label.len() as u8]].concat();
    let mut out = hmac(suite, secret, &[&head, label.as_bytes(), &[0, 1]]);
    out.truncate(length);
    out
}

impl Direction {
    /// TLS 1.3, from a traffic secret.
    pub fn tls13(number: [u8; 2], secret: &[u8]) -> Direction {
        let suite = Suite { tls13: true, number };
        let key = expand(suite, secret, "key", suite.cipher().key_len());
        let iv = expand(suite, secret, "iv", 12);
        Direction { suite, secret: secret.to_vec(), key, iv, sequence: 0 }
    }

    /// TLS 1.2, from the master secret and both randoms. Returns the client's direction, then the
    /// server's.
    pub fn tls12(number: [u8; 2], master: &[u8], client: &[u8], server: &[u8]) -> [Direction; 2] {
        let suite = Suite { tls13: false, number };
        let (key, iv) = (suite.cipher().key_len(), 12 - suite.explicit());
        let seed = [b"key expansion", server, client].concat();
        let (mut a, mut block) = (hmac(suite, master, &[&seed]), Vec::new());
        while block.len() < 2 * (key + iv) {
            block.extend(hmac(suite, master, &[&a, &seed]));
            a = hmac(suite, master, &[&a]);
        }
        [0, 1].map(|index| Direction {
            suite,
            secret: Vec::new(),
            key: block[index * key..][..key].to_vec(),
            iv: block[2 * key + index * iv..][..iv].to_vec(),
            sequence: 1,
        })
    }

    /// The keys after a KeyUpdate.
    pub fn update(&mut self) {
        let secret = expand(self.suite, &self.secret, "traffic upd", self.suite.hash().1);
        *self = Direction::tls13(self.suite.number, &secret);
    }

    /// The nonce, for an explicit part if the suite sends one.
    fn nonce(&self, explicit: &[u8]) -> Vec<u8> {
        if self.suite.explicit() > 0 {
            return [&self.iv[..], explicit].concat();
        }
        let mut nonce = self.iv.clone();
        for (place, byte) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *place ^= byte;
        }
        nonce
    }

    fn additional(&self, kind: u8, plain: usize, sealed: usize) -> Vec<u8> {
        if self.suite.tls13 {
            return [&[23, 3, 3][..], &(sealed as u16).to_be_bytes()].concat();
        }
        let number = self.sequence.to_be_bytes();
        [&number[..], &[kind, 3, 3], &(plain as u16).to_be_bytes()].concat()
    }

    /// Makes one record of any length. Padding exists in TLS 1.3 only.
    pub fn seal(&mut self, kind: u8, data: &[u8], padding: usize) -> Vec<u8> {
        let mut inner = data.to_vec();
        if self.suite.tls13 {
            inner.push(kind);
            inner.resize(inner.len() + padding, 0);
        }
        self.seal_inner(kind, &inner)
    }

    /// Makes one record with this inner plaintext.
    pub fn seal_inner(&mut self, kind: u8, inner: &[u8]) -> Vec<u8> {
        // Deliberately not the record's sequence number: the sender may choose any value.
        let explicit = (!self.sequence).to_be_bytes();
        let explicit = &explicit[..self.suite.explicit()];
        let length = explicit.len() + inner.len() + 16;
        let additional = self.additional(kind, inner.len(), length);
        let (cipher, nonce) = (self.suite.cipher(), self.nonce(explicit));
        let mut tag = [0; 16];
        let sealed = encrypt_aead(cipher, &self.key, Some(&nonce), &additional, inner, &mut tag)
            .expect("to encrypt");
        self.sequence += 1;
        let kind = if self.suite.tls13 { 23 } else { kind };
        let header = [&[kind, 3, 3][..], &(length as u16).to_be_bytes()].concat();
        [&header[..], explicit, &sealed, &tag].concat()
    }

    /// Opens the record at the beginning of `wire`, and returns its type and content. `None` if the
    /// record is incomplete.
    pub fn open(&mut self, wire: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
        let &[kind, _, _, high, low] = wire.first_chunk::<5>()?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let body = wire.get(5..5 + length)?.to_vec();
        wire.drain(..5 + length);
        let (explicit, sealed) = body.split_at(self.suite.explicit());
        let (data, tag) = sealed.split_at(sealed.len() - 16);
        let additional = self.additional(kind, data.len(), length);
        let (cipher, nonce) = (self.suite.cipher(), self.nonce(explicit));
        let mut plain = decrypt_aead(cipher, &self.key, Some(&nonce), &additional, data, tag)
            .expect("a record with the right number and key");
        self.sequence += 1;
        if !self.suite.tls13 {
            return Some((kind, plain));
        }
        let at = plain.iter().rposition(|&byte| byte != 0).expect("a type");
        let kind = plain[at];
        plain.truncate(at);
        Some((kind, plain))
    }
}
