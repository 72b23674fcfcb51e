//! One session: its two ends, its two directions, and where it stands.

use super::balance::Attempts;
use super::pump::Direction;
use crate::event::{Interest, TimerId};
use std::os::fd::OwnedFd;

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

/// A session. Small, as there may be tens of thousands that do nothing.
pub(super) struct Session {
    pub(super) client: OwnedFd,
    pub(super) peer: Option<OwnedFd>,
    pub(super) phase: Phase,
    /// The end was seen hung up without an error: polling it for that again would spin.
    pub(super) client_quiet: bool,
    pub(super) peer_quiet: bool,
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
    /// Of the phase: connect timeout, or the next look at a breaking session.
    pub(super) phase_timer: Option<TimerId>,
    pub(super) attempts: Option<Box<Attempts>>,
    pub(super) access: Option<Box<Access>>,
}

impl Session {
    pub(super) fn new(client: OwnedFd, now: u64) -> Session {
        Session {
            client,
            peer: None,
            phase: Phase::Connecting,
            client_quiet: false,
            peer_quiet: false,
            remote: None,
            up: Direction::default(),
            down: Direction::default(),
            active: now,
            unsent: 0,
            idle_timer: None,
            phase_timer: None,
            attempts: None,
            access: None,
        }
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

    /// The direction that reads from `end`, with its source and its sink; `None` without a peer.
    pub(super) fn flow(&mut self, end: End) -> Option<(&mut Direction, &OwnedFd, &OwnedFd)> {
        let peer = self.peer.as_ref()?;
        Some(match end {
            End::Client => (&mut self.up, &self.client, peer),
            End::Peer => (&mut self.down, peer, &self.client),
        })
    }

    pub(super) fn direction_mut(&mut self, end: End) -> &mut Direction {
        match end {
            End::Client => &mut self.up,
            End::Peer => &mut self.down,
        }
    }

    pub(super) fn set_quiet(&mut self, end: End) {
        match end {
            End::Client => self.client_quiet = true,
            End::Peer => self.peer_quiet = true,
        }
    }

    /// What an end is to be watched for.
    pub(super) fn interest(&self, end: End) -> Interest {
        let quiet = match end {
            End::Client => self.client_quiet,
            End::Peer => self.peer_quiet,
        };
        let idle = if quiet { Interest::empty() } else { Interest::HANGUP };
        match (self.phase, end) {
            (Phase::Connecting, End::Client) => idle,
            (Phase::Connecting, End::Peer) => Interest::WRITE,
            _ => {
                let mut interest = Interest::empty();
                interest.set(Interest::READ, self.direction(end).wants_read());
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
    fn a_session_stays_small() {
        assert!(size_of::<Option<Session>>() <= 128);
    }
}
