//! Handshake protocol messages after the handshake. Records may cut them anywhere (RFC 8446 section
//! 5.1, RFC 5246 section 6.2.1).

use super::suite::Version;
use super::{alert, refuse, Refusal};

/// Length of a message's header: type and length.
const HEADER: usize = 4;
/// The longest TLS 1.2 message that is accepted: nobody's ClientHello is longer.
const MOST: usize = 1 << 17;

mod kind {
    pub(super) const HELLO_REQUEST: u8 = 0;
    pub(super) const CLIENT_HELLO: u8 = 1;
    pub(super) const KEY_UPDATE: u8 = 24;
}

/// What the other side wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// It has taken new keys; `requested` if it wants us to do the same (RFC 8446 section 4.6.3).
    KeyUpdate { requested: bool },
    /// TLS 1.2: to renegotiate.
    Renegotiate,
}

/// The message being received: its beginning, and in TLS 1.2 how much of it is left.
#[derive(Debug, Default)]
pub(super) struct Messages {
    start: [u8; HEADER],
    have: usize,
    left: usize,
}

impl Messages {
    /// True if a message has begun, and has not ended.
    pub(super) fn is_within_one(&self) -> bool {
        self.have > 0
    }

    /// Takes the content of a handshake protocol record; returns the message that ends in it. If
    /// several end in TLS 1.2, one is returned, as they all ask for the same.
    pub(super) fn take(
        &mut self,
        version: Version,
        content: &[u8],
    ) -> Result<Option<Message>, Refusal> {
        if content.is_empty() {
            return refuse(alert::UNEXPECTED_MESSAGE, "empty handshake record");
        }
        let (mut rest, mut message) = (content, None);
        while let Some((&byte, tail)) = rest.split_first() {
            if self.have < HEADER {
                self.start[self.have] = byte;
                self.have += 1;
                rest = tail;
                self.check(version)?;
            } else {
                let body = &rest[..self.left.min(rest.len())];
                rest = &rest[body.len()..];
                self.left -= body.len();
                if version == Version::Tls13 {
                    message = Some(key_update(body, rest)?);
                }
            }
            if self.have == HEADER && self.left == 0 {
                message = message.or(Some(Message::Renegotiate));
                *self = Messages::default();
            }
        }
        Ok(message)
    }

    /// Checks as much of the header as there is.
    fn check(&mut self, version: Version) -> Result<(), Refusal> {
        let expected = match version {
            Version::Tls13 => self.start[0] == kind::KEY_UPDATE,
            Version::Tls12 => matches!(self.start[0], kind::HELLO_REQUEST | kind::CLIENT_HELLO),
        };
        if !expected {
            return refuse(alert::UNEXPECTED_MESSAGE, "unexpected handshake message");
        }
        if self.have < HEADER {
            return Ok(());
        }
        let [_, high, middle, low] = self.start;
        self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        match version {
            Version::Tls13 if self.left != 1 => {
                refuse(alert::DECODE_ERROR, "a KeyUpdate of the wrong length")
            }
            Version::Tls12 if self.left > MOST => {
                refuse(alert::ILLEGAL_PARAMETER, "handshake message too long")
            }
            _ => Ok(()),
        }
    }
}

/// RFC 8446 section 5.1: a message before a key change must end its record.
fn key_update(body: &[u8], rest: &[u8]) -> Result<Message, Refusal> {
    match (body, rest) {
        (&[request @ (0 | 1)], []) => Ok(Message::KeyUpdate { requested: request == 1 }),
        (&[0 | 1], _) => refuse(alert::UNEXPECTED_MESSAGE, "data behind a KeyUpdate"),
        _ => refuse(alert::ILLEGAL_PARAMETER, "bad request in a KeyUpdate"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However records cut them, the same messages come out.
        #[test]
        fn messages_may_be_cut_anywhere(
            lengths in prop::collection::vec(prop_oneof![Just(0usize), 1usize..600], 1..5),
            cuts in prop::collection::vec(1usize..200, 1..20),
        ) {
            let mut messages = Messages::default();
            for length in lengths {
                let mut all = vec![1, 0, (length >> 8) as u8, length as u8];
                all.resize(4 + length, 9);
                let (mut rest, mut found) = (&all[..], 0);
                for cut in cuts.iter().cycle() {
                    let (part, tail) = rest.split_at((*cut).min(rest.len()));
                    let message = messages.take(Version::Tls12, part);
                    prop_assert!(message.is_ok());
                    found += usize::from(matches!(message, Ok(Some(Message::Renegotiate))));
                    rest = tail;
                    if rest.is_empty() {
                        break;
                    }
                    prop_assert!(messages.is_within_one());
                }
                prop_assert_eq!((found, messages.is_within_one()), (1, false));
            }
        }

        #[test]
        fn nothing_panics_or_is_kept(content in prop::collection::vec(any::<u8>(), 0..300)) {
            for version in [Version::Tls12, Version::Tls13] {
                let mut messages = Messages::default();
                for part in content.chunks(7) {
                    if messages.take(version, part).is_err() {
                        break;
                    }
                }
            }
        }
    }
}
