//! Clients of listeners with TLS, from the first byte until they are relayed.

use crate::event::TimerId;
use crate::os::address::Address;
use crate::tls::stream::Stream;
use crate::upstream::handshake::{Handshake, Unsent};
use std::io;
use std::os::fd::OwnedFd;

/// What is known of a client of a listener with TLS from the start.
#[derive(Debug)]
pub(super) struct Origin {
    /// The system forgets it when the connection breaks.
    pub(super) address: Option<Address>,
    /// `realm` of the listener, as a number of the engine's.
    pub(super) realm: u8,
}

/// A client that may speak TLS or not.
#[derive(Debug)]
pub(super) struct Detecting {
    pub(super) origin: Origin,
    /// That the listener allows.
    pub(super) versions: u32,
    /// What it has said so far.
    pub(super) early: Vec<u8>,
    pub(super) timer: Option<TimerId>,
}

/// A client that is in its handshake.
#[derive(Debug)]
pub(super) struct Accepting {
    pub(super) origin: Origin,
    pub(super) handshake: Handshake,
    pub(super) timer: Option<TimerId>,
}

/// What a client speaks.
#[derive(Debug)]
pub(super) enum Speech {
    Tls(Stream),
    /// This is what it has said already.
    Plain(Vec<u8>),
}

/// A client of a listener with TLS that is there.
#[derive(Debug)]
pub(super) struct TlsClient {
    pub(super) speech: Speech,
    pub(super) address: Option<Address>,
    /// The rest of its handshake.
    pub(super) unsent: Unsent,
}

impl TlsClient {
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    pub(super) fn flush(&mut self, client: &OwnedFd) -> io::Result<()> {
        self.unsent.flush(client)
    }

    /// It has said something that nobody has taken yet.
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

    /// Its TLS.
    pub(super) fn stream(&self) -> Option<&Stream> {
        match &self.speech {
            Speech::Tls(stream) => Some(stream),
            Speech::Plain(_) => None,
        }
    }
}
