//! One session: its two ends, its two directions, and where it stands.

use super::direction::{Direction, Side, State};
use super::pump::{Ending, Flow, REPLY_LIMIT};
use crate::event::{Interest, TimerId};
use crate::os::address::Address;
use crate::tls::stream::Stream;
use crate::tls::summary::Summary;
use crate::upstream::balance::Attempts;
use std::os::fd::OwnedFd;

/// A session in which nothing has moved for so many milliseconds begins with short records again.
const PAUSE: u64 = 1000;

/// The ends of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Client,
    Peer,
}

impl End {
    pub(super) fn other(self) -> End {
        match self {
            End::Client => End::Peer,
            End::Peer => End::Client,
        }
    }
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Whether the client speaks TLS is not clear yet.
    Detecting,
    /// Modules are asked whether the client may connect.
    Authorizing,
    /// This end is in its TLS handshake. That of the peer comes last.
    Handshaking(End),
    /// The peer is being connected; the client is not read.
    Connecting,
    /// Both ends are there.
    Relaying,
    /// This end broke. What it had sent is still delivered to the other one, which is then
    /// reset.
    Breaking(End),
}

/// What the access log needs to know; only there if it is on.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) client: String,
    pub(super) listener: String,
    pub(super) started: u64,
}

/// TLS at the ends of a session; only there if it is needed.
#[derive(Debug, Default)]
pub(super) struct Tls {
    pub(super) client: Option<Stream>,
    pub(super) peer: Option<Stream>,
    /// The versions that the listener allows.
    pub(super) versions: u32,
    /// Of the client.
    pub(super) address: Option<Address>,
    /// What the client has sent before the peer was there.
    pub(super) early: Vec<u8>,
    /// What went wrong, for the access log.
    pub(super) trouble: Option<String>,
}

/// A session. Small, as there may be tens of thousands that do nothing.
pub(super) struct Session {
    pub(super) client: OwnedFd,
    pub(super) peer: Option<OwnedFd>,
    pub(super) phase: Phase,
    /// The end was seen hung up without an error: polling it for that again would spin.
    /// A bit for each end.
    quiet: u8,
    /// The remote in use.
    pub(super) remote: Option<u32>,
    /// Client to peer.
    pub(super) up: Direction,
    /// Peer to client.
    pub(super) down: Direction,
    /// When the last byte moved, in milliseconds of the loop.
    pub(super) active: u64,
    /// Bytes that a breaking session's receiver had not acknowledged at the last look.
    pub(super) unsent: u32,
    pub(super) idle_timer: Option<TimerId>,
    /// Of the phase: connect timeout, until when the remote's end would count as a failure, or the next
    /// look at a breaking session.
    pub(super) phase_timer: Option<TimerId>,
    pub(super) attempts: Option<Box<Attempts>>,
    pub(super) access: Option<Box<Access>>,
    pub(super) tls: Option<Box<Tls>>,
    /// `realm` of the listener, as a number of the engine's.
    pub(super) realm: u8,
}

impl Session {
    pub(super) fn new(client: OwnedFd, now: u64) -> Session {
        Session {
            client,
            peer: None,
            phase: Phase::Connecting,
            quiet: 0,
            remote: None,
            up: Direction::default(),
            down: Direction::default(),
            active: now,
            unsent: 0,
            idle_timer: None,
            phase_timer: None,
            attempts: None,
            access: None,
            tls: None,
            realm: 0,
        }
    }

    /// The remote may still be found to cut the session short.
    pub(super) fn is_on_probation(&self) -> bool {
        self.phase == Phase::Relaying && self.phase_timer.is_some()
    }

    pub(super) fn end(&self, end: End) -> Option<&OwnedFd> {
        match end {
            End::Client => Some(&self.client),
            End::Peer => self.peer.as_ref(),
        }
    }

    /// The direction that reads from `end`.
    pub(super) fn direction(&self, end: End) -> &Direction {
        match end {
            End::Client => &self.up,
            End::Peer => &self.down,
        }
    }

    /// The direction that reads from `end`, with its ends; `None` without a peer.
    pub(super) fn flow(&mut self, end: End) -> Option<Flow<'_>> {
        let (client_tls, peer_tls) = match &mut self.tls {
            Some(tls) => (tls.client.as_mut(), tls.peer.as_mut()),
            None => (None, None),
        };
        let client = Side { fd: &self.client, tls: client_tls };
        let peer = Side { fd: self.peer.as_ref()?, tls: peer_tls };
        Some(match end {
            End::Client => {
                Flow { direction: &mut self.up, back: &mut self.down, source: client, sink: peer }
            }
            End::Peer => {
                Flow { direction: &mut self.down, back: &mut self.up, source: peer, sink: client }
            }
        })
    }

    /// Ends the splices of both directions, if there are any.
    pub(super) fn take_back(&mut self) {
        for end in [End::Client, End::Peer] {
            if let Some(mut flow) = self.flow(end) {
                // That an end is broken is known, or matters no more.
                let _ = flow.take_back();
            }
        }
    }

    /// What follows when the direction that reads from `end` has come to its end.
    pub(super) fn ending(&self, end: End) -> Ending {
        match self.phase {
            // Closing tells the other end as well.
            Phase::Relaying if self.direction(end.other()).state == State::Shut => Ending::Close,
            Phase::Relaying => Ending::Shutdown,
            _ => Ending::Nothing,
        }
    }

    /// An end, with the direction that writes to it.
    pub(super) fn outgoing(&mut self, end: End) -> Option<(Side<'_>, &mut Direction)> {
        let tls = self.tls.as_mut();
        Some(match end {
            End::Client => {
                let tls = tls.and_then(|tls| tls.client.as_mut());
                (Side { fd: &self.client, tls }, &mut self.down)
            }
            End::Peer => {
                let tls = tls.and_then(|tls| tls.peer.as_mut());
                (Side { fd: self.peer.as_ref()?, tls }, &mut self.up)
            }
        })
    }

    /// The TLS of an end.
    pub(super) fn stream(&mut self, end: End) -> Option<&mut Stream> {
        let tls = self.tls.as_mut()?;
        match end {
            End::Client => tls.client.as_mut(),
            End::Peer => tls.peer.as_mut(),
        }
    }

    /// Bytes are going to move.
    pub(super) fn stir(&mut self, now: u64) {
        if let Some(tls) = self.tls.as_mut().filter(|_| now >= self.active + PAUSE) {
            for stream in [&mut tls.client, &mut tls.peer].into_iter().flatten() {
                stream.paused();
            }
        }
    }

    /// What was negotiated with the client.
    pub(super) fn client_summary(&self) -> Option<&Summary> {
        self.tls.as_ref()?.client.as_ref()?.summary()
    }

    pub(super) fn direction_mut(&mut self, end: End) -> &mut Direction {
        match end {
            End::Client => &mut self.up,
            End::Peer => &mut self.down,
        }
    }

    pub(super) fn set_quiet(&mut self, end: End, quiet: bool) {
        let bit = 1 << end as u8;
        self.quiet = if quiet { self.quiet | bit } else { self.quiet & !bit };
    }

    fn is_quiet(&self, end: End) -> bool {
        self.quiet & 1 << end as u8 != 0
    }

    /// What an end is to be watched for.
    pub(super) fn interest(&self, end: End) -> Interest {
        let quiet = self.is_quiet(end);
        // A client that waits to be admitted is quiet when it has said something.
        // The peer's bit tells that it has hung up after that; there is no peer yet.
        let ignored = quiet && (self.phase != Phase::Authorizing || self.is_quiet(End::Peer));
        let idle = if ignored { Interest::empty() } else { Interest::HANGUP };
        match (self.phase, end) {
            (Phase::Connecting, End::Peer) => Interest::WRITE,
            (phase, _) => {
                let reads = match phase {
                    Phase::Detecting => end == End::Client,
                    Phase::Handshaking(which) => end == which,
                    Phase::Authorizing => end == End::Client && !quiet,
                    Phase::Connecting => false,
                    Phase::Relaying | Phase::Breaking(_) => {
                        let waiting = self.direction(end.other()).unwritten();
                        self.direction(end).wants_read() && waiting <= REPLY_LIMIT
                    }
                };
                let mut interest = Interest::empty();
                interest.set(Interest::READ, reads);
                interest.set(Interest::WRITE, self.direction(end.other()).wants_write());
                if interest.is_empty() {
                    idle
                } else {
                    interest
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_takes_no_answers_is_not_polled_for_reading() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let mut session = Session::new(ours.into(), 0);
        session.peer = Some(theirs.into());
        session.phase = Phase::Relaying;
        assert!(session.interest(End::Client).contains(Interest::READ));
        session.down.hold(vec![0; REPLY_LIMIT]);
        assert!(session.interest(End::Client).contains(Interest::READ));
        session.down.hold(vec![0; REPLY_LIMIT + 1]);
        assert_eq!(session.interest(End::Client), Interest::WRITE);
    }

    #[test]
    fn a_session_stays_small() {
        assert!(size_of::<Option<Session>>() <= 128);
    }
}
