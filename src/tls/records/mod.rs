//! Records after the handshake: TLS 1.3 (RFC 8446 section 5) and the AEAD cipher suites of
//! TLS 1.2 (RFC 5246 section 6.2, RFC 5288, RFC 7905).

mod keys;

pub(super) use keys::{derive, Key};

use self::keys::Hash;
use super::Buffer;
use crate::os::ktls::{self, Way};
use openssl::cipher::Cipher;
use openssl::cipher_ctx::CipherCtx;
use openssl::error::ErrorStack;
use std::fmt;
use std::sync::OnceLock;

/// Length of a record's header.
const HEADER: usize = 5;
/// Length of the tag of all AEADs here.
const TAG: usize = 16;
/// Most plain bytes of a record.
pub const MOST_PLAIN: usize = 16384;
/// Most bytes of a record of TLS 1.3 behind its header; TLS 1.2 allows 1792 more.
const MOST_SEALED: usize = MOST_PLAIN + 256;
/// Records in a row that carry no data, before the session is given up.
const MOST_EMPTY: u32 = 32;
/// Records after which new keys are taken for sending (RFC 8446 section 5.5 asks for it before
/// 2^24.5 records of AES-GCM).
const REKEY_AFTER: u64 = 1 << 23;

/// Content types (RFC 8446 section 5.1).
mod content {
    pub(super) const ALERT: u8 = 21;
    pub(super) const HANDSHAKE: u8 = 22;
    pub(super) const DATA: u8 = 23;
}

/// KeyUpdate that asks for none (RFC 8446 section 4.6.3).
const KEY_UPDATE_MESSAGE: [u8; 5] = [24, 0, 0, 1, 0];

/// Alerts (RFC 8446 section 6).
mod alert {
    pub(super) const WARNING: u8 = 1;
    pub(super) const FATAL: u8 = 2;
    pub(super) const CLOSE_NOTIFY: u8 = 0;
    pub(super) const UNEXPECTED_MESSAGE: u8 = 10;
    pub(super) const BAD_RECORD_MAC: u8 = 20;
    pub(super) const RECORD_OVERFLOW: u8 = 22;
    pub(super) const ILLEGAL_PARAMETER: u8 = 47;
    pub(super) const DECODE_ERROR: u8 = 50;
    pub(super) const INTERNAL_ERROR: u8 = 80;
    pub(super) const USER_CANCELED: u8 = 90;
    pub(super) const NO_RENEGOTIATION: u8 = 100;
}

/// Why a session cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The other side has sent this fatal alert.
    Alert(u8),
    /// The other side has broken the protocol, or its data was changed on the way.
    Protocol(&'static str),
    /// A cipher failed.
    Library(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Alert(number) => write!(out, "alert {number} received"),
            Failure::Protocol(what) => out.write_str(what),
            Failure::Library(text) => out.write_str(text),
        }
    }
}

impl From<ErrorStack> for Failure {
    fn from(errors: ErrorStack) -> Failure {
        Failure::Library(errors.to_string())
    }
}

/// A failure with the alert that tells the other side.
struct Refusal(u8, Failure);

fn refuse<T>(alert: u8, what: &'static str) -> Result<T, Refusal> {
    Err(Refusal(alert, Failure::Protocol(what)))
}

impl From<ErrorStack> for Refusal {
    fn from(errors: ErrorStack) -> Refusal {
        Refusal(alert::INTERNAL_ERROR, errors.into())
    }
}

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
    fn key_length(self) -> usize {
        match self {
            Aead::Aes128 => 16,
            _ => 32,
        }
    }

    /// The cipher, looked up once.
    fn cipher(self) -> Result<&'static Cipher, ErrorStack> {
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
}

/// What was negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suite {
    pub(super) version: Version,
    pub(super) aead: Aead,
    hash: Hash,
}

impl Suite {
    /// By its number; `None` if its records are not handled here.
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

    /// TLS 1.2 with AES-GCM sends eight bytes of each nonce (RFC 5288 section 3).
    fn explicit_nonce(self) -> usize {
        match (self.version, self.aead) {
            (Version::Tls12, Aead::Aes128 | Aead::Aes256) => 8,
            _ => 0,
        }
    }
}

/// One direction's keys.
struct Half {
    context: CipherCtx,
    iv: [u8; 12],
    sequence: u64,
    /// TLS 1.3: the traffic secret, from which the next keys are made. TLS 1.2: the key.
    secret: Key,
}

impl Half {
    fn new(
        suite: Suite,
        key: &[u8],
        iv: &[u8],
        secret: Key,
        encrypt: bool,
    ) -> Result<Half, ErrorStack> {
        let mut context = CipherCtx::new()?;
        let cipher = suite.aead.cipher()?;
        if encrypt {
            context.encrypt_init(Some(cipher), Some(key), None)?;
        } else {
            context.decrypt_init(Some(cipher), Some(key), None)?;
        }
        let mut full = [0; 12];
        full[..iv.len()].copy_from_slice(iv);
        Ok(Half { context, iv: full, sequence: 0, secret })
    }

    /// RFC 8446 section 7.3.
    fn from_secret(suite: Suite, secret: Key, encrypt: bool) -> Result<Half, ErrorStack> {
        let key = suite.hash.expand_label(&secret, "key", suite.aead.key_length());
        let iv = suite.hash.expand_label(&secret, "iv", 12);
        Half::new(suite, key.as_slice(), iv.as_slice(), secret, encrypt)
    }

    /// The keys after a KeyUpdate (RFC 8446 section 7.2).
    fn update(&mut self, suite: Suite, encrypt: bool) -> Result<(), ErrorStack> {
        let next = suite.hash.expand_label(&self.secret, "traffic upd", suite.hash.length());
        *self = Half::from_secret(suite, next, encrypt)?;
        Ok(())
    }

    /// The nonce of the next record: its number, exclusive-or the IV, or behind the salt.
    fn nonce(&self, suite: Suite) -> [u8; 12] {
        let mut nonce = self.iv;
        let explicit = suite.explicit_nonce() > 0;
        for (place, byte) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *place = if explicit { byte } else { *place ^ byte };
        }
        nonce
    }
}

/// What is authenticated besides the data; returns its length.
fn additional(
    suite: Suite,
    sequence: u64,
    kind: u8,
    plain: usize,
    sealed: usize,
) -> ([u8; 13], usize) {
    let mut data = [0; 13];
    match suite.version {
        Version::Tls13 => {
            data[..3].copy_from_slice(&[content::DATA, 3, 3]);
            data[3..5].copy_from_slice(&(sealed as u16).to_be_bytes());
            (data, 5)
        }
        Version::Tls12 => {
            data[..8].copy_from_slice(&sequence.to_be_bytes());
            data[8..11].copy_from_slice(&[kind, 3, 3]);
            data[11..].copy_from_slice(&(plain as u16).to_be_bytes());
            (data, 13)
        }
    }
}

/// What [`Records::read`] has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Bytes of whole records; the rest is the beginning of one.
    pub consumed: usize,
    /// The other side has said that nothing follows.
    pub closed: bool,
}

/// What is to be said to a message of the handshake protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    None,
    NoRenegotiation,
}

/// What follows from a record that the kernel has opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// The other side has said that nothing follows.
    pub closed: bool,
    /// There are new keys for what is received.
    pub new_receive_keys: bool,
    /// A record to be sent, by type and content.
    pub answer: Option<(u8, Vec<u8>)>,
    /// After that there are new keys for what is sent.
    pub new_send_keys: bool,
}

/// The records of a session.
pub struct Records {
    suite: Suite,
    read: Half,
    write: Half,
    empty: u32,
    closed: bool,
    /// The other side wants us to take new keys.
    update_due: bool,
    /// How often the other side has taken new ones.
    updates: u64,
    failed: bool,
}

/// Keys for [`ktls::set_keys`].
pub struct KernelKeys {
    tls13: bool,
    cipher: ktls::Cipher,
    key: Key,
    iv: [u8; 12],
    sequence: u64,
}

impl KernelKeys {
    /// As the system takes them.
    pub fn get(&self) -> ktls::Keys<'_> {
        ktls::Keys {
            tls13: self.tls13,
            cipher: self.cipher,
            key: self.key.as_slice(),
            iv: self.iv,
            sequence: self.sequence,
        }
    }
}

/// The secrets of a session, and how many records have been sent and received with them.
pub struct Secrets<'a> {
    /// TLS 1.3: traffic secrets of this side and the other.
    pub traffic: Option<[&'a [u8]; 2]>,
    /// TLS 1.2: master secret, randoms of client and server.
    pub master: Option<[&'a [u8]; 3]>,
    /// This side is the server.
    pub server: bool,
    /// Records sent.
    pub sent: u64,
    /// Records received.
    pub received: u64,
}

impl Records {
    /// Goes on from the end of a handshake.
    pub fn new(suite: Suite, secrets: &Secrets<'_>) -> Result<Records, ErrorStack> {
        let (mut write, mut read) = match (secrets.traffic, secrets.master) {
            (Some([ours, theirs]), _) => {
                let half = |secret: &[u8], encrypt| {
                    let secret = Key::new(secret).ok_or_else(ErrorStack::get)?;
                    Half::from_secret(suite, secret, encrypt)
                };
                (half(ours, true)?, half(theirs, false)?)
            }
            (None, Some([master, client, server])) => {
                // RFC 5246 section 6.3: keys of client and server, then their IVs.
                let (key, iv) = (suite.aead.key_length(), 12 - suite.explicit_nonce());
                let mut block = [0; 2 * (32 + 12)];
                let block = &mut block[..2 * (key + iv)];
                suite.hash.prf(master, "key expansion", &[server, client], block);
                let (keys, ivs) = block.split_at(2 * key);
                let (first, second) = (usize::from(secrets.server), usize::from(!secrets.server));
                let half = |index: usize, encrypt| {
                    let key = &keys[index * key..][..key];
                    let secret = Key::new(key).ok_or_else(ErrorStack::get)?;
                    Half::new(suite, key, &ivs[index * iv..][..iv], secret, encrypt)
                };
                let halves = (half(first, true)?, half(second, false)?);
                crate::os::secret::wipe(block);
                halves
            }
            (None, None) => return Err(ErrorStack::get()),
        };
        (write.sequence, read.sequence) = (secrets.sent, secrets.received);
        Ok(Records {
            suite,
            read,
            write,
            empty: 0,
            closed: false,
            update_due: false,
            updates: 0,
            failed: false,
        })
    }

    /// Opens the whole records at the beginning of `wire`. Plain bytes are appended to `plain`,
    /// answers of the protocol to `reply`; so is the alert, if it fails.
    pub fn read(
        &mut self,
        wire: &[u8],
        plain: &mut Buffer,
        reply: &mut Buffer,
    ) -> Result<Taken, Failure> {
        if self.failed {
            return Err(Failure::Protocol("the session has failed before"));
        }
        let mut consumed = 0;
        while !self.closed {
            match self.next_record(&wire[consumed..], plain, reply) {
                Ok(0) => break,
                Ok(length) => consumed += length,
                Err(Refusal(alert, failure)) => {
                    self.failed = true;
                    if !matches!(failure, Failure::Alert(_)) {
                        let _ = self.seal(content::ALERT, &[alert::FATAL, alert], reply);
                    }
                    return Err(failure);
                }
            }
        }
        if self.update_due {
            self.update_due = false;
            self.update_write_keys(reply)?;
        }
        // Nothing that follows a close_notify is looked at.
        Ok(Taken { consumed: if self.closed { wire.len() } else { consumed }, closed: self.closed })
    }

    /// Opens one record; returns its length, 0 if it is not complete.
    fn next_record(
        &mut self,
        wire: &[u8],
        plain: &mut Buffer,
        reply: &mut Buffer,
    ) -> Result<usize, Refusal> {
        let Some(&[kind, major, minor, high, low]) = wire.first_chunk::<HEADER>() else {
            return Ok(0);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let most = match self.suite.version {
            Version::Tls13 => MOST_SEALED,
            Version::Tls12 => MOST_SEALED + 1792,
        };
        // Both versions say 3.3 here (RFC 8446 section 5.2), and authenticate it.
        if (major, minor) != (3, 3) || !(content::ALERT..=content::DATA).contains(&kind) {
            return refuse(alert::UNEXPECTED_MESSAGE, "not a TLS record");
        }
        if self.suite.version == Version::Tls13 && kind != content::DATA {
            return refuse(alert::UNEXPECTED_MESSAGE, "unprotected record");
        }
        if length > most {
            return refuse(alert::RECORD_OVERFLOW, "record too long");
        }
        let overhead = self.suite.explicit_nonce() + TAG;
        if length < overhead {
            return refuse(alert::BAD_RECORD_MAC, "record too short");
        }
        let Some(body) = wire.get(HEADER..HEADER + length) else {
            return Ok(0);
        };
        let opened = self.open(kind, body, plain)?;
        let (kind, opened) = match self.suite.version {
            Version::Tls12 => (kind, opened),
            Version::Tls13 => {
                // Padding of zeroes, before it the type.
                let inner = &plain.spare(opened)[..opened];
                match inner.iter().rposition(|&byte| byte != 0) {
                    Some(at) => (inner[at], at),
                    None => return refuse(alert::UNEXPECTED_MESSAGE, "record without a type"),
                }
            }
        };
        if opened > MOST_PLAIN {
            return refuse(alert::RECORD_OVERFLOW, "record too long");
        }
        let data = kind == content::DATA && opened > 0;
        self.empty = if data { 0 } else { self.empty + 1 };
        if self.empty > MOST_EMPTY {
            return refuse(alert::UNEXPECTED_MESSAGE, "too many records without data");
        }
        match kind {
            content::DATA => plain.advance(opened),
            _ => {
                // Of longer ones the beginning tells what is to be said.
                let mut message = [0; 16];
                let message = &mut message[..opened.min(16)];
                message.copy_from_slice(&plain.spare(opened)[..opened.min(16)]);
                match kind {
                    content::ALERT => self.alert(message)?,
                    content::HANDSHAKE => {
                        if self.handshake(message)? == Answer::NoRenegotiation {
                            let alert = [alert::WARNING, alert::NO_RENEGOTIATION];
                            self.seal(content::ALERT, &alert, reply)?;
                        }
                    }
                    _ => return refuse(alert::UNEXPECTED_MESSAGE, "unexpected record"),
                }
            }
        }
        Ok(HEADER + length)
    }

    /// Decrypts into the spare room of `plain`; returns the length there.
    fn open(&mut self, kind: u8, body: &[u8], plain: &mut Buffer) -> Result<usize, Refusal> {
        let (suite, half) = (self.suite, &mut self.read);
        let (explicit, sealed) = body.split_at(suite.explicit_nonce());
        let (data, tag) = sealed.split_at(sealed.len() - TAG);
        let mut nonce = half.nonce(suite);
        // What the sender chose, which need not be the number of the record.
        nonce[12 - explicit.len()..].copy_from_slice(explicit);
        let (additional, length) = additional(suite, half.sequence, kind, data.len(), body.len());
        half.context.decrypt_init(None, None, Some(&nonce))?;
        half.context.set_tag(tag)?;
        half.context.cipher_update(&additional[..length], None)?;
        let room = plain.spare(data.len().max(1));
        let opened =
            if data.is_empty() { 0 } else { half.context.cipher_update(data, Some(room))? };
        if half.context.cipher_final(&mut [0; TAG]).is_err() {
            return refuse(alert::BAD_RECORD_MAC, "bad record");
        }
        half.sequence += 1;
        Ok(opened)
    }

    fn alert(&mut self, message: &[u8]) -> Result<(), Refusal> {
        let &[level, number] = message else {
            return refuse(alert::DECODE_ERROR, "bad alert");
        };
        // The level means nothing in TLS 1.3.
        let warning = match self.suite.version {
            Version::Tls13 => number == alert::USER_CANCELED,
            Version::Tls12 => level == alert::WARNING,
        };
        match number {
            alert::CLOSE_NOTIFY => self.closed = true,
            _ if warning => {}
            _ => return Err(Refusal(0, Failure::Alert(number))),
        }
        Ok(())
    }

    /// Messages of the handshake protocol after the handshake.
    fn handshake(&mut self, message: &[u8]) -> Result<Answer, Refusal> {
        const HELLO_REQUEST: u8 = 0;
        const CLIENT_HELLO: u8 = 1;
        const KEY_UPDATE: u8 = 24;
        match (self.suite.version, message) {
            (Version::Tls13, &[KEY_UPDATE, 0, 0, 1, request]) if request > 1 => {
                refuse(alert::ILLEGAL_PARAMETER, "bad request in a KeyUpdate")
            }
            (Version::Tls13, &[KEY_UPDATE, 0, 0, 1, request]) => {
                self.read.update(self.suite, false)?;
                self.updates += 1;
                self.update_due |= request == 1;
                Ok(Answer::None)
            }
            (Version::Tls12, &[HELLO_REQUEST | CLIENT_HELLO, ..]) => {
                // RFC 5246 section 7.2.2: we do not negotiate again, and go on as before.
                Ok(Answer::NoRenegotiation)
            }
            _ => refuse(alert::UNEXPECTED_MESSAGE, "unexpected handshake message"),
        }
    }

    /// A record that the kernel has opened and that is no data. Keys that follow from it are taken
    /// at once. A failure comes with the alert that tells the other side.
    pub fn control(&mut self, kind: u8, message: &[u8]) -> Result<Control, (u8, Failure)> {
        let mut control = Control::default();
        self.empty += 1;
        if self.empty > MOST_EMPTY {
            let failure = Failure::Protocol("too many records without data");
            return Err((alert::UNEXPECTED_MESSAGE, failure));
        }
        let updates = self.updates;
        let result = match kind {
            content::ALERT => self.alert(message),
            content::HANDSHAKE => self.handshake(message).map(|answer| {
                if answer == Answer::NoRenegotiation {
                    let alert = vec![alert::WARNING, alert::NO_RENEGOTIATION];
                    control.answer = Some((content::ALERT, alert));
                }
            }),
            _ => refuse(alert::UNEXPECTED_MESSAGE, "unexpected record"),
        };
        result.map_err(|Refusal(alert, failure)| (alert, failure))?;
        control.closed = self.closed;
        control.new_receive_keys = self.updates != updates;
        if std::mem::take(&mut self.update_due) {
            control.answer = Some((content::HANDSHAKE, KEY_UPDATE_MESSAGE.to_vec()));
            control.new_send_keys = true;
            let failed = |errors: ErrorStack| (alert::INTERNAL_ERROR, errors.into());
            self.write.update(self.suite, true).map_err(failed)?;
        }
        Ok(control)
    }

    /// The kernel has opened a record of data.
    pub fn note_data(&mut self) {
        self.empty = 0;
    }

    /// What the kernel needs for one direction.
    pub fn kernel_keys(&self, way: Way) -> KernelKeys {
        let half = match way {
            Way::Send => &self.write,
            Way::Receive => &self.read,
        };
        let tls13 = self.suite.version == Version::Tls13;
        let key = if tls13 {
            self.suite.hash.expand_label(&half.secret, "key", self.suite.aead.key_length())
        } else {
            half.secret.clone()
        };
        let cipher = match self.suite.aead {
            Aead::Aes128 => ktls::Cipher::Aes128,
            Aead::Aes256 => ktls::Cipher::Aes256,
            Aead::ChaCha20 => ktls::Cipher::ChaCha20,
        };
        KernelKeys { tls13, cipher, key, iv: half.iv, sequence: half.sequence }
    }

    /// Sends KeyUpdate and takes new keys.
    fn update_write_keys(&mut self, out: &mut Buffer) -> Result<(), ErrorStack> {
        self.seal(content::HANDSHAKE, &KEY_UPDATE_MESSAGE, out)?;
        self.write.update(self.suite, true)
    }

    /// Seals `plain` into as many records as it takes.
    pub fn write(&mut self, plain: &[u8], out: &mut Buffer) -> Result<(), Failure> {
        for chunk in plain.chunks(MOST_PLAIN) {
            if self.suite.version == Version::Tls13 && self.write.sequence >= REKEY_AFTER {
                self.update_write_keys(out)?;
            }
            self.seal(content::DATA, chunk, out)?;
        }
        Ok(())
    }

    /// Tells the other side that nothing follows.
    pub fn close(&mut self, out: &mut Buffer) {
        // Without a cipher there is no proper end either.
        let _ = self.seal(content::ALERT, &[alert::WARNING, alert::CLOSE_NOTIFY], out);
    }

    fn seal(&mut self, kind: u8, data: &[u8], out: &mut Buffer) -> Result<(), ErrorStack> {
        let (suite, half) = (self.suite, &mut self.write);
        let tls13 = suite.version == Version::Tls13;
        let explicit = suite.explicit_nonce();
        let sealed = explicit + data.len() + usize::from(tls13) + TAG;
        let nonce = half.nonce(suite);
        let (additional, length) = additional(suite, half.sequence, kind, data.len(), sealed);
        // One byte more than a record, as the binding wants room for a block.
        let room = out.spare(HEADER + sealed + 1);
        room[0] = if tls13 { content::DATA } else { kind };
        room[1..3].copy_from_slice(&[3, 3]);
        room[3..5].copy_from_slice(&(sealed as u16).to_be_bytes());
        room[HEADER..HEADER + explicit].copy_from_slice(&nonce[12 - explicit..]);
        let mut at = HEADER + explicit;
        half.context.encrypt_init(None, None, Some(&nonce))?;
        half.context.cipher_update(&additional[..length], None)?;
        if !data.is_empty() {
            at += half.context.cipher_update(data, Some(&mut room[at..]))?;
        }
        if tls13 {
            at += half.context.cipher_update(&[kind], Some(&mut room[at..]))?;
        }
        half.context.cipher_final(&mut [0; TAG])?;
        half.context.tag(&mut room[at..at + TAG])?;
        half.sequence += 1;
        out.advance(HEADER + sealed);
        Ok(())
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Records {:?}", self.suite)
    }
}
