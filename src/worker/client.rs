//! Clients of TLS listeners, from the first byte until they are relayed.

use crate::event::TimerId;
use crate::os::address::Address;
use crate::os::Socket;
use crate::tls::stream::Stream;
use crate::upstream::handshake::{Handshake, Unsent};
use std::io;

/// What is known from the start about a client of a TLS listener.
#[derive(Debug)]
pub(super) struct Origin {
    /// Kept here, as the system forgets it when the connection breaks.
    pub(super) address: Option<Address>,
    /// The engine's number for the listener's `realm`.
    pub(super) realm: u8,
}

/// A client that may or may not speak TLS.
#[derive(Debug)]
pub(super) struct Detecting {
    pub(super) origin: Origin,
    /// The TLS versions that the listener allows.
    pub(super) versions: u32,
    /// What the client has sent so far.
    pub(super) early: Vec<u8>,
    pub(super) timer: Option<TimerId>,
}

/// A client in its TLS handshake.
#[derive(Debug)]
pub(super) struct Accepting {
    pub(super) origin: Origin,
    /// What the client sent before it was clear that it speaks TLS, and the handshake has not seen.
    pub(super) early: Vec<u8>,
    pub(super) handshake: Handshake,
    pub(super) timer: Option<TimerId>,
}

/// What a client speaks.
#[derive(Debug)]
pub(super) enum Speech {
    Tls(Stream),
    /// Holds the bytes that the client has sent already.
    Plain(Vec<u8>),
}

/// A client of a TLS listener that has finished its handshake, or speaks no TLS.
#[derive(Debug)]
pub(super) struct TlsClient {
    pub(super) speech: Speech,
    pub(super) address: Option<Address>,
    /// The last bytes of the handshake, still to be sent.
    pub(super) unsent: Unsent,
}

impl TlsClient {
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    pub(super) fn flush(&mut self, client: &Socket) -> io::Result<()> {
        self.unsent.flush(client)
    }

    /// True if the client has sent something that nobody has read yet.
    pub(super) fn has_spoken(&self) -> bool {
        match &self.speech {
            Speech::Tls(stream) => stream.has_unread(),
            Speech::Plain(early) => !early.is_empty(),
        }
    }

    pub(super) fn stream_mut(&mut self) -> Option<&mut Stream> {
        match &mut self.speech {
            Speech::Tls(stream) => Some(stream),
            Speech::Plain(_) => None,
        }
    }

    /// The client's TLS stream.
    pub(super) fn stream(&self) -> Option<&Stream> {
        match &self.speech {
            Speech::Tls(stream) => Some(stream),
            Speech::Plain(_) => None,
        }
    }
}
