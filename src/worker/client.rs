//! Clients that say something before they are relayed: by TLS, or through a PROXY header.

use crate::channel::protocol::Accept;
use crate::event::TimerId;
use crate::os::address::Address;
use crate::os::Socket;
use crate::tls::hello::{Inspector, Offer};
use crate::tls::stream::Stream;
use crate::upstream::handshake::{Handshake, Unsent};
use crate::upstream::proxy::{self, Header};
use std::io;

/// What is known about a client before it is admitted, if its listener has TLS or expects PROXY
/// headers.
#[derive(Debug)]
pub(super) struct Origin {
    /// The client's, or the one that the header has. Kept here, as the system forgets it when the
    /// connection breaks.
    pub(super) address: Option<Address>,
    /// The engine's number for the listener's `realm`.
    pub(super) realm: u8,
    /// The PROXY header.
    pub(super) introduction: Option<Box<Header>>,
}

/// Whether a client is introduced by a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Introduced {
    /// Always.
    Always,
    /// Perhaps: the first bytes tell.
    Perhaps,
    /// Its sender may not do that.
    Never,
}

/// A connection that begins, or may begin, with a PROXY header.
#[derive(Debug)]
pub(super) struct Introducing {
    pub(super) origin: Origin,
    pub(super) introduced: Introduced,
    /// The TLS versions and flags of the listener.
    pub(super) accept: Accept,
    /// What was sent so far.
    pub(super) early: Vec<u8>,
    pub(super) timer: Option<TimerId>,
}

/// Why the first bytes of a client are read.
#[derive(Debug)]
pub(super) enum Purpose {
    /// To see whether it speaks TLS, which is ended here with these versions (`tls = auto`).
    Accept(u32),
    /// To see what it asks for in TLS, which is passed on unopened (`tls = inspect`).
    Inspect(Inspector),
}

/// A client that may or may not speak TLS.
#[derive(Debug)]
pub(super) struct Detecting {
    pub(super) origin: Origin,
    pub(super) purpose: Purpose,
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
    /// TLS with the remote. Holds the bytes that the client has sent already, and what it asks for
    /// in them.
    Sealed(Vec<u8>, Offer),
}

/// A client of which more is known than its socket: it has finished its TLS handshake, or was
/// introduced by a proxy, or its first bytes were read to find out.
#[derive(Debug)]
pub(super) struct KnownClient {
    pub(super) speech: Speech,
    pub(super) address: Option<Address>,
    /// The last bytes of the handshake, still to be sent.
    pub(super) unsent: Unsent,
    /// What a proxy before us has said about the client.
    pub(super) introduction: Option<Box<Header>>,
}

impl KnownClient {
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    pub(super) fn flush(&mut self, client: &Socket) -> io::Result<()> {
        self.unsent.flush(client)
    }

    /// The addresses of the client, and that it has connected to, if a proxy has told them.
    pub(super) fn told(&self) -> Option<(&Address, &Address)> {
        match &self.introduction.as_deref()?.origin {
            proxy::Origin::Client { source, destination } => Some((source, destination)),
            _ => None,
        }
    }

    /// True if the client has sent something that nobody has read yet.
    pub(super) fn has_spoken(&self) -> bool {
        match &self.speech {
            Speech::Tls(stream) => stream.has_unread(),
            Speech::Plain(early) | Speech::Sealed(early, _) => !early.is_empty(),
        }
    }

    pub(super) fn stream_mut(&mut self) -> Option<&mut Stream> {
        match &mut self.speech {
            Speech::Tls(stream) => Some(stream),
            Speech::Plain(_) | Speech::Sealed(..) => None,
        }
    }

    /// The server name that the client asks for; what a proxy before us says of it, if that has
    /// ended TLS.
    pub(super) fn server_name(&self) -> Option<&str> {
        let own = match &self.speech {
            Speech::Tls(stream) => stream.summary()?.server_name.as_deref(),
            Speech::Sealed(_, offer) => offer.server_name.as_deref(),
            Speech::Plain(_) => None,
        };
        let told = || std::str::from_utf8(self.introduction.as_deref()?.authority.as_deref()?).ok();
        own.or_else(told)
    }

    /// The application protocols that the client offers, or the one that was negotiated with it,
    /// here or by a proxy before us.
    pub(super) fn protocols(&self) -> Vec<&[u8]> {
        let own: Vec<&[u8]> = match &self.speech {
            Speech::Tls(stream) => {
                let summary = stream.summary();
                let protocol = summary.and_then(|summary| summary.protocol.as_deref());
                protocol.map(str::as_bytes).into_iter().collect()
            }
            Speech::Sealed(_, offer) => offer.protocols.iter().map(Vec::as_slice).collect(),
            Speech::Plain(_) => Vec::new(),
        };
        if own.is_empty() {
            let told = self.introduction.as_deref().and_then(|header| header.alpn.as_deref());
            return told.into_iter().collect();
        }
        own
    }

    /// The client's TLS stream.
    pub(super) fn stream(&self) -> Option<&Stream> {
        match &self.speech {
            Speech::Tls(stream) => Some(stream),
            Speech::Plain(_) | Speech::Sealed(..) => None,
        }
    }
}
