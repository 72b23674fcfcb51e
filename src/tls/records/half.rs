//! One direction of a session: its keys and the number of its next record. Seals or opens one
//! record at a time.

use super::keys::expand_label;
use super::suite::{Suite, Version};
use super::{content, HEADER, TAG};
use crate::os::secret::{wipe, SecretBytes};
use crate::tls::Buffer;
use openssl::cipher_ctx::CipherCtx;
use openssl::error::ErrorStack;

/// What a half is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Seal,
    Open,
}

/// The keys of one direction.
pub(super) struct Half {
    suite: Suite,
    purpose: Purpose,
    context: CipherCtx,
    pub(super) iv: [u8; 12],
    pub(super) sequence: u64,
    /// TLS 1.3: the traffic secret, from which the next keys are made. TLS 1.2: the key.
    secret: SecretBytes,
}

impl Drop for Half {
    fn drop(&mut self) {
        wipe(&mut self.iv);
    }
}

/// The record is not what its sender has sealed.
pub(super) struct Forged;

impl Half {
    pub(super) fn new(
        suite: Suite,
        key: &[u8],
        iv: &[u8],
        secret: SecretBytes,
        purpose: Purpose,
    ) -> Result<Half, ErrorStack> {
        let mut context = CipherCtx::new()?;
        let cipher = suite.aead.cipher()?;
        match purpose {
            Purpose::Seal => context.encrypt_init(Some(cipher), Some(key), None)?,
            Purpose::Open => context.decrypt_init(Some(cipher), Some(key), None)?,
        }
        let mut half = Half { suite, purpose, context, iv: [0; 12], sequence: 0, secret };
        half.iv[..iv.len()].copy_from_slice(iv);
        Ok(half)
    }

    /// Derives key and IV from a traffic secret (RFC 8446 section 7.3).
    pub(super) fn from_secret(
        suite: Suite,
        secret: SecretBytes,
        purpose: Purpose,
    ) -> Result<Half, ErrorStack> {
        let key = expand_label(suite.hash, &secret, "key", suite.aead.key_length())?;
        let iv = expand_label(suite.hash, &secret, "iv", 12)?;
        Half::new(suite, &key, &iv, secret, purpose)
    }

    /// Switches to the keys after a KeyUpdate (RFC 8446 section 7.2).
    pub(super) fn update(&mut self) -> Result<(), ErrorStack> {
        let length = self.suite.hash.length();
        let next = expand_label(self.suite.hash, &self.secret, "traffic upd", length)?;
        *self = Half::from_secret(self.suite, next, self.purpose)?;
        Ok(())
    }

    /// The key of the cipher.
    pub(super) fn key(&self) -> Result<SecretBytes, ErrorStack> {
        match self.suite.version {
            Version::Tls13 => {
                expand_label(self.suite.hash, &self.secret, "key", self.suite.aead.key_length())
            }
            Version::Tls12 => Ok(self.secret.clone()),
        }
    }

    /// The nonce of the next record: the IV XORed with the record's number, or the salt with the
    /// number after it.
    fn nonce(&self) -> [u8; 12] {
        let mut nonce = self.iv;
        let explicit = self.suite.explicit_nonce() > 0;
        for (place, byte) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *place = if explicit { byte } else { *place ^ byte };
        }
        nonce
    }

    /// What is authenticated besides the data, and its length.
    fn additional(&self, kind: u8, plain: usize, sealed: usize) -> ([u8; 13], usize) {
        let mut data = [0; 13];
        match self.suite.version {
            Version::Tls13 => {
                data[..3].copy_from_slice(&[content::DATA, 3, 3]);
                data[3..5].copy_from_slice(&(sealed as u16).to_be_bytes());
                (data, 5)
            }
            Version::Tls12 => {
                data[..8].copy_from_slice(&self.sequence.to_be_bytes());
                data[8..11].copy_from_slice(&[kind, 3, 3]);
                data[11..].copy_from_slice(&(plain as u16).to_be_bytes());
                (data, 13)
            }
        }
    }

    /// Seals one record, and appends it to `out`.
    pub(super) fn seal(
        &mut self,
        kind: u8,
        data: &[u8],
        out: &mut Buffer,
    ) -> Result<(), ErrorStack> {
        debug_assert_eq!(self.purpose, Purpose::Seal);
        let tls13 = self.suite.version == Version::Tls13;
        let explicit = self.suite.explicit_nonce();
        let sealed = explicit + data.len() + usize::from(tls13) + TAG;
        let nonce = self.nonce();
        let (additional, length) = self.additional(kind, data.len(), sealed);
        // A byte more than the record, for `encrypt`.
        let room = out.spare(HEADER + sealed + 1);
        room[0] = if tls13 { content::DATA } else { kind };
        room[1..3].copy_from_slice(&[3, 3]);
        room[3..5].copy_from_slice(&(sealed as u16).to_be_bytes());
        room[HEADER..HEADER + explicit].copy_from_slice(&nonce[12 - explicit..]);
        let inner = if tls13 { &[kind][..] } else { &[] };
        let room = &mut room[HEADER + explicit..];
        self.encrypt(&nonce, &additional[..length], [data, inner], room)?;
        self.sequence += 1;
        out.advance(HEADER + sealed);
        Ok(())
    }

    /// Opens a record's body into the spare room of `plain`; returns how many bytes are there. The
    /// body must be no shorter than a nonce and a tag.
    pub(super) fn open(
        &mut self,
        kind: u8,
        body: &[u8],
        plain: &mut Buffer,
    ) -> Result<Result<usize, Forged>, ErrorStack> {
        debug_assert_eq!(self.purpose, Purpose::Open);
        let (explicit, sealed) = body.split_at(self.suite.explicit_nonce());
        let (data, tag) = sealed.split_at(sealed.len() - TAG);
        let mut nonce = self.nonce();
        // The sender chose this nonce, which need not be the number of the record.
        nonce[12 - explicit.len()..].copy_from_slice(explicit);
        let (additional, length) = self.additional(kind, data.len(), body.len());
        let room = plain.spare(data.len().max(1));
        let opened = self.decrypt(&nonce, &additional[..length], data, tag, room)?;
        self.sequence += u64::from(opened.is_ok());
        Ok(opened)
    }

    /// The AEAD alone: both parts of the data, then the tag, go to `room`, which has a byte more
    /// than they need, as the binding wants room for a block.
    fn encrypt(
        &mut self,
        nonce: &[u8; 12],
        additional: &[u8],
        data: [&[u8]; 2],
        room: &mut [u8],
    ) -> Result<(), ErrorStack> {
        let mut at = 0;
        self.context.encrypt_init(None, None, Some(nonce))?;
        self.context.cipher_update(additional, None)?;
        for part in data {
            if !part.is_empty() {
                at += self.context.cipher_update(part, Some(&mut room[at..]))?;
            }
        }
        self.context.cipher_final(&mut [0; TAG])?;
        self.context.tag(&mut room[at..at + TAG])
    }

    /// The AEAD alone; returns how many bytes are in `room`.
    fn decrypt(
        &mut self,
        nonce: &[u8; 12],
        additional: &[u8],
        data: &[u8],
        tag: &[u8],
        room: &mut [u8],
    ) -> Result<Result<usize, Forged>, ErrorStack> {
        self.context.decrypt_init(None, None, Some(nonce))?;
        self.context.set_tag(tag)?;
        self.context.cipher_update(additional, None)?;
        let opened =
            if data.is_empty() { 0 } else { self.context.cipher_update(data, Some(room))? };
        let sound = self.context.cipher_final(&mut [0; TAG]).is_ok();
        Ok(if sound { Ok(opened) } else { Err(Forged) })
    }
}

#[cfg(test)]
mod tests;
