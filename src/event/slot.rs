//! What the loop knows about one descriptor: what is wanted of it, what the system was told, and
//! what edges have reported.

use super::interest::{Interest, PAUSED};
use super::token::Token;
use std::os::fd::RawFd;

/// A descriptor that a backend reports.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ready {
    pub(super) fd: RawFd,
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) hangup: bool,
    /// The other side will send nothing more. Set only by edge-triggered watching.
    pub(super) ended: bool,
    /// There is urgent data, and a read may stop at its mark. Set only by edge-triggered watching.
    pub(super) urgent: bool,
    /// The system refused to go on watching it.
    pub(super) lost: bool,
    /// For an edge: the generation of the slot that was being watched.
    pub(super) edge: Option<u8>,
}

/// One registered descriptor: eight bytes, so idle sessions stay cheap.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) token: Token,
    pub(super) generation: u8,
    pub(super) wanted: Interest,
    pub(super) installed: Interest,
    pub(super) flags: u8,
}

pub(super) const REGISTERED: u8 = 1;
/// The slot is in `changed`: the backend has not been told of it yet.
pub(super) const CHANGED: u8 = 2;
/// The backend cannot watch it (a regular file): always ready.
pub(super) const ALWAYS_READY: u8 = 4;
/// Watched edge-triggered; the bits below remember what the edges reported.
pub(super) const EDGE: u8 = 8;
pub(super) const READABLE: u8 = 16;
pub(super) const WRITABLE: u8 = 32;
pub(super) const HUNG_UP: u8 = 64;
/// A short read does not mean that the socket is empty, because the other side has ended or there
/// is urgent data: keep reading until it would block.
pub(super) const READ_ON: u8 = 128;

impl Slot {
    /// Records what an edge reported.
    pub(super) fn remember(&mut self, ready: &Ready) {
        if self.flags & EDGE == 0 {
            return;
        }
        // Without branches, as every event of a session comes by here.
        let bit = |set: bool, bit: u8| u8::from(set) * bit;
        self.flags |= bit(ready.readable, READABLE)
            | bit(ready.writable, WRITABLE)
            | bit(ready.hangup, HUNG_UP)
            | bit(ready.ended | ready.urgent, READ_ON);
    }

    /// The wanted interest for which a stream is ready.
    pub(super) fn ready(&self) -> Interest {
        let mut ready = Interest::empty();
        let any = |bits| self.flags & bits != 0;
        ready.set(Interest::READ, any(READABLE | READ_ON | HUNG_UP));
        ready.set(Interest::WRITE, any(WRITABLE | HUNG_UP));
        ready &= self.wanted;
        // An error counts with any interest.
        ready.set(Interest::HANGUP, any(HUNG_UP) && !self.wanted.is_empty());
        ready
    }

    /// The part of the wanted interest that the system can watch.
    pub(super) fn watched(&self) -> Interest {
        self.wanted - Interest::ROOM
    }

    /// The interest to give to the backend. None at all becomes a pause, not a removal.
    pub(super) fn target(&self) -> Interest {
        let wanted = self.watched();
        if wanted.is_empty() && !self.installed.is_empty() {
            self.installed | PAUSED
        } else {
            wanted
        }
    }
}

pub(super) const VACANT: Slot = Slot {
    token: Token(0),
    generation: 0,
    wanted: Interest::empty(),
    installed: Interest::empty(),
    flags: 0,
};
