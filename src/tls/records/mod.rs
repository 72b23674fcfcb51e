//! Records after the handshake: TLS 1.3 (RFC 8446 section 5) and the AEAD cipher suites of
//! TLS 1.2 (RFC 5246 section 6.2, RFC 5288, RFC 7905).
//!
//! [`Records`] is the only way in: `open` for bytes received, `seal` for data to send, `update` for
//! new keys, `close` for the end. It works on bytes: nothing here knows of a socket, of a handshake
//! or of OpenSSL's connections. It does use OpenSSL's ciphers and key derivation.

mod budget;
mod half;
mod keys;
mod messages;
mod suite;

pub use suite::{Aead, Suite, Version};

use self::budget::Budget;
use self::half::{Forged, Half, Purpose};
use self::messages::{Message, Messages};
use super::Buffer;
use crate::os;
use crate::os::ktls::{self, Way};
use crate::os::secret::SecretBytes;
use openssl::error::ErrorStack;
use std::fmt;

/// Length of a record's header.
const HEADER: usize = 5;
/// Length of the tag of all AEADs here.
const TAG: usize = 16;
/// The most plain bytes in a record.
pub const MOST_PLAIN: usize = 16384;
/// The most bytes in a TLS 1.3 record after its header; TLS 1.2 allows 1792 more.
const MOST_SEALED: usize = MOST_PLAIN + 256;
/// After this many records new keys are used for sending (RFC 8446 section 5.5 asks for that before
/// 2^24.5 records of AES-GCM).
pub const REKEY_AFTER: u64 = 1 << 23;

/// Content types (RFC 8446 section 5.1).
mod content {
    pub(super) const ALERT: u8 = 21;
    pub(super) const HANDSHAKE: u8 = 22;
    pub(super) const DATA: u8 = 23;
}

/// A KeyUpdate that requests none in return (RFC 8446 section 4.6.3).
const KEY_UPDATE_MESSAGE: [u8; 5] = [24, 0, 0, 1, 0];
/// The same for the kernel: its content type and its content.
pub const KEY_UPDATE: (u8, [u8; 5]) = (content::HANDSHAKE, KEY_UPDATE_MESSAGE);

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
    /// The other side has violated the protocol, or its data was changed on the way.
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

/// A failure, with the alert to send to the other side.
#[derive(Debug)]
struct Refusal(u8, Failure);

fn refuse<T>(alert: u8, what: &'static str) -> Result<T, Refusal> {
    Err(Refusal(alert, Failure::Protocol(what)))
}

impl From<ErrorStack> for Refusal {
    fn from(errors: ErrorStack) -> Refusal {
        Refusal(alert::INTERNAL_ERROR, errors.into())
    }
}

/// The result of [`Records::open`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Bytes of complete records; the rest is the beginning of one.
    pub consumed: usize,
    /// The other side has sent close_notify.
    pub closed: bool,
}

/// What follows from a record that the kernel has opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// The other side has sent close_notify.
    pub closed: bool,
    /// The keys for receiving are new.
    pub new_receive_keys: bool,
    /// A record to send: its type and content.
    pub answer: Option<(u8, Vec<u8>)>,
}

/// How many records the kernel has sealed with its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Few enough.
    Young,
    /// It is time for new keys.
    Due,
    /// No more may be sealed with these keys.
    Spent,
}

/// The records of a session.
pub struct Records {
    version: Version,
    suite: Suite,
    read: Half,
    write: Half,
    /// Messages of the handshake protocol.
    messages: Messages,
    budget: Budget,
    closed: bool,
    /// The other side has requested that we take new keys.
    update_due: bool,
    /// How often the other side has taken new keys.
    updates: u64,
    failed: bool,
}

/// Keys for [`ktls::set_keys`].
pub struct KernelKeys {
    tls13: bool,
    cipher: ktls::Cipher,
    key: SecretBytes,
    iv: [u8; 12],
    sequence: u64,
}

impl KernelKeys {
    /// The keys as the system takes them.
    pub fn get(&self) -> ktls::Keys<'_> {
        ktls::Keys {
            tls13: self.tls13,
            cipher: self.cipher,
            key: &self.key,
            iv: self.iv,
            sequence: self.sequence,
        }
    }
}

impl Drop for KernelKeys {
    fn drop(&mut self) {
        crate::os::secret::wipe(&mut self.iv);
    }
}

/// The secrets from which record keys are derived.
#[derive(Clone, Copy)]
pub enum Secrets<'a> {
    /// TLS 1.3.
    Traffic {
        /// For what this side sends.
        ours: Traffic<'a>,
        /// For what the other side sends.
        theirs: Traffic<'a>,
    },
    /// TLS 1.2.
    Master {
        /// The master secret.
        secret: &'a [u8],
        /// The randoms of client and server.
        randoms: [&'a [u8]; 2],
        /// True if this side is the server.
        server: bool,
    },
}

/// A traffic secret.
#[derive(Clone, Copy)]
pub struct Traffic<'a> {
    /// The secret.
    pub secret: &'a [u8],
    /// The key and the IV, if they were derived from it before.
    pub derived: Option<(&'a [u8], &'a [u8])>,
}

impl<'a> From<&'a [u8]> for Traffic<'a> {
    fn from(secret: &'a [u8]) -> Traffic<'a> {
        Traffic { secret, derived: None }
    }
}

/// How many records were sent and received with the keys of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Records sent.
    pub sent: u64,
    /// Records received.
    pub received: u64,
}

impl Records {
    /// Continues from the end of a handshake.
    pub fn new(
        suite: Suite,
        secrets: &Secrets<'_>,
        numbers: Numbers,
    ) -> Result<Records, ErrorStack> {
        let (mut write, mut read) = match *secrets {
            Secrets::Traffic { ours, theirs } => {
                let half = |traffic: Traffic<'_>, purpose| {
                    let secret = SecretBytes::copy(traffic.secret);
                    match traffic.derived {
                        Some((key, iv)) => Half::new(suite, key, iv, secret, purpose),
                        None => Half::from_secret(suite, secret, purpose),
                    }
                };
                (half(ours, Purpose::Seal)?, half(theirs, Purpose::Open)?)
            }
            Secrets::Master { secret, randoms, server } => {
                // RFC 5246 section 6.3: keys of client and server, then their IVs.
                let (key, iv) = (suite.aead.key_length(), 12 - suite.explicit_nonce());
                let block = keys::key_block(suite.hash, secret, randoms, 2 * (key + iv))?;
                let (keys, ivs) = block.split_at(2 * key);
                let half = |index: usize, purpose| {
                    let key = &keys[index * key..][..key];
                    let secret = SecretBytes::copy(key);
                    Half::new(suite, key, &ivs[index * iv..][..iv], secret, purpose)
                };
                let (first, second) = (usize::from(server), usize::from(!server));
                (half(first, Purpose::Seal)?, half(second, Purpose::Open)?)
            }
        };
        (write.sequence, read.sequence) = (numbers.sent, numbers.received);
        Ok(Records {
            version: suite.version,
            suite,
            read,
            write,
            messages: Messages::default(),
            budget: Budget::default(),
            closed: false,
            update_due: false,
            updates: 0,
            failed: false,
        })
    }

    /// Opens the complete records at the beginning of `wire`. Plain bytes are appended to `plain`,
    /// protocol replies to `reply`; so is the alert, if it fails.
    pub fn open(
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
                        let fatal = [alert::FATAL, alert];
                        let _ = self.write.seal(content::ALERT, &fatal, reply);
                    }
                    return Err(failure);
                }
            }
        }
        if std::mem::take(&mut self.update_due) {
            self.update(reply)?;
        }
        // Anything after a close_notify is ignored.
        Ok(Taken { consumed: if self.closed { wire.len() } else { consumed }, closed: self.closed })
    }

    /// Opens one record; returns its length, or 0 if it is not complete.
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
        let most = match self.version {
            Version::Tls13 => MOST_SEALED,
            Version::Tls12 => MOST_SEALED + 1792,
        };
        // Both versions say 3.3 here (RFC 8446 section 5.2), and authenticate it.
        if (major, minor) != (3, 3) || !(content::ALERT..=content::DATA).contains(&kind) {
            return refuse(alert::UNEXPECTED_MESSAGE, "not a TLS record");
        }
        if self.version == Version::Tls13 && kind != content::DATA {
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
        let opened = match self.read.open(kind, body, plain)? {
            Ok(opened) => opened,
            Err(Forged) => return refuse(alert::BAD_RECORD_MAC, "bad record"),
        };
        let (kind, opened) = match self.version {
            Version::Tls12 if opened > MOST_PLAIN => {
                return refuse(alert::RECORD_OVERFLOW, "record too long");
            }
            Version::Tls12 => (kind, opened),
            // RFC 8446 section 5.4: this limits content, type and padding together.
            Version::Tls13 if opened > MOST_PLAIN + 1 => {
                return refuse(alert::RECORD_OVERFLOW, "record too long");
            }
            Version::Tls13 => {
                // The type is the last byte before the padding, which is zeroes.
                let inner = &plain.spare(opened)[..opened];
                match inner.iter().rposition(|&byte| byte != 0) {
                    Some(at) => (inner[at], at),
                    None => return refuse(alert::UNEXPECTED_MESSAGE, "record without a type"),
                }
            }
        };
        if kind == content::DATA && opened > 0 && !self.within_message() {
            self.budget.received();
            plain.advance(opened);
        } else {
            let message = &plain.spare(opened)[..opened];
            // Anything but data is short, except for a ClientHello.
            let message = message.to_vec();
            if let Some((kind, answer)) = self.no_data(kind, &message)? {
                self.write.seal(kind, &answer, reply)?;
            }
        }
        Ok(HEADER + length)
    }

    /// Handles a record without data, or with data where there must be none. Returns a record to
    /// send.
    fn no_data(&mut self, kind: u8, content: &[u8]) -> Result<Option<(u8, [u8; 2])>, Refusal> {
        if !self.budget.spend(os::monotonic_clock) {
            return refuse(alert::UNEXPECTED_MESSAGE, "too many records without data");
        }
        match kind {
            content::HANDSHAKE => return self.handshake(content),
            _ if self.within_message() => {
                refuse(alert::UNEXPECTED_MESSAGE, "a record within a message")
            }
            content::ALERT => self.alert(content),
            content::DATA => Ok(()),
            _ => refuse(alert::UNEXPECTED_MESSAGE, "unexpected record"),
        }?;
        Ok(None)
    }

    /// True if TLS 1.3 allows no other record now, as a message has begun and not ended.
    fn within_message(&self) -> bool {
        self.version == Version::Tls13 && self.messages.is_within_one()
    }

    fn alert(&mut self, message: &[u8]) -> Result<(), Refusal> {
        let &[level, number] = message else {
            return match message {
                // RFC 8446 section 5.4.
                [] => refuse(alert::UNEXPECTED_MESSAGE, "empty alert record"),
                _ => refuse(alert::DECODE_ERROR, "bad alert"),
            };
        };
        // The level has no meaning in TLS 1.3. In TLS 1.2 a warning is one, close_notify as well
        // (RFC 5246 section 7.2.1).
        let (ends, warning) = match (self.version, level) {
            (Version::Tls13, _) => (true, number == alert::USER_CANCELED),
            (Version::Tls12, alert::WARNING) => (true, true),
            (Version::Tls12, alert::FATAL) => (false, false),
            (Version::Tls12, _) => return refuse(alert::ILLEGAL_PARAMETER, "bad alert"),
        };
        match number {
            alert::CLOSE_NOTIFY if ends => self.closed = true,
            _ if warning => {}
            _ => return Err(Refusal(0, Failure::Alert(number))),
        }
        Ok(())
    }

    fn handshake(&mut self, content: &[u8]) -> Result<Option<(u8, [u8; 2])>, Refusal> {
        match self.messages.take(self.version, content)? {
            None => Ok(None),
            Some(Message::KeyUpdate { requested }) => {
                self.read.update()?;
                self.updates += 1;
                self.update_due |= requested;
                Ok(None)
            }
            // RFC 5246 section 7.2.2: we refuse to renegotiate, and go on as before.
            Some(Message::Renegotiate) => {
                Ok(Some((content::ALERT, [alert::WARNING, alert::NO_RENEGOTIATION])))
            }
        }
    }

    /// Handles a record other than data that the kernel has opened. New keys for receiving that
    /// follow from it are taken at once, those for sending are [due](Self::is_update_due). A failure
    /// comes with the alert to send to the other side.
    pub fn control(&mut self, kind: u8, message: &[u8]) -> Result<Control, (u8, Failure)> {
        let updates = self.updates;
        let answer = self.no_data(kind, message).map_err(|Refusal(alert, why)| (alert, why))?;
        Ok(Control {
            closed: self.closed,
            new_receive_keys: self.updates != updates,
            answer: answer.map(|(kind, answer)| (kind, answer.to_vec())),
        })
    }

    /// True if the kernel has to send a KeyUpdate, and then needs new keys, before it sends more
    /// data.
    pub fn is_update_due(&self) -> bool {
        self.update_due
    }

    /// Makes a KeyUpdate [due](Self::is_update_due).
    pub fn request_update(&mut self) {
        self.update_due |= self.version == Version::Tls13;
    }

    /// A KeyUpdate was sent, and the kernel needs these keys for what it sends after that.
    pub fn kernel_update(&mut self) -> Result<KernelKeys, ErrorStack> {
        self.write.update()?;
        self.update_due = false;
        self.kernel_keys(Way::Send)
    }

    /// Judges the kernel's keys for sending by the number of its next record. TLS 1.2 cannot renew
    /// keys, and ChaCha20-Poly1305 has no limit (RFC 8446 section 5.5).
    pub fn kernel_age(&self, number: u64) -> Age {
        match self.version {
            Version::Tls12 => Age::Young,
            Version::Tls13 if number < REKEY_AFTER => Age::Young,
            Version::Tls13 if number < 2 * REKEY_AFTER => Age::Due,
            Version::Tls13 if self.suite.aead == Aead::ChaCha20 => Age::Due,
            Version::Tls13 => Age::Spent,
        }
    }

    /// Notes that the kernel seals data in at least so many records.
    pub fn note_sent(&mut self, count: u32) {
        self.budget.sent(count);
    }

    /// The cipher, as the kernel knows it.
    pub fn kernel_cipher(&self) -> ktls::Cipher {
        self.suite.aead.in_kernel()
    }

    /// Notes that the kernel has opened a data record.
    pub fn note_data(&mut self) {
        self.budget.received();
    }

    /// The keys that the kernel needs for one direction.
    pub fn kernel_keys(&self, way: Way) -> Result<KernelKeys, ErrorStack> {
        let half = match way {
            Way::Send => &self.write,
            Way::Receive => &self.read,
        };
        Ok(KernelKeys {
            tls13: self.version == Version::Tls13,
            cipher: self.suite.aead.in_kernel(),
            key: half.key()?,
            iv: half.iv,
            sequence: half.sequence,
        })
    }

    /// Sends a KeyUpdate and takes new keys. TLS 1.2 has no KeyUpdate, and keeps its keys.
    pub fn update(&mut self, out: &mut Buffer) -> Result<(), ErrorStack> {
        if self.version == Version::Tls12 {
            return Ok(());
        }
        self.write.seal(content::HANDSHAKE, &KEY_UPDATE_MESSAGE, out)?;
        self.write.update()
    }

    /// Seals data, in records as long as they may be.
    pub fn seal(&mut self, plain: &[u8], out: &mut Buffer) -> Result<(), Failure> {
        for chunk in plain.chunks(MOST_PLAIN) {
            if self.write.sequence >= REKEY_AFTER {
                self.update(out)?;
            }
            self.budget.sent(1);
            self.write.seal(content::DATA, chunk, out)?;
        }
        Ok(())
    }

    /// Sends close_notify.
    pub fn close(&mut self, out: &mut Buffer) {
        // If the cipher fails, there can be no orderly end either.
        let close = [alert::WARNING, alert::CLOSE_NOTIFY];
        let _ = self.write.seal(content::ALERT, &close, out);
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Records {:?}", self.suite)
    }
}
