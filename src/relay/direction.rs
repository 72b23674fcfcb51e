//! One direction: how far it has come, and what waits in it; and the buffers that all share.

use crate::os::{self, socket};
use crate::tls::stream::Stream;
use crate::tls::Buffer;
use std::os::fd::OwnedFd;

/// Most bytes of one read.
pub(super) const READ_SIZE: usize = 128 * 1024;
/// Buffers kept for the next direction that needs one; more are given back to the system.
const POOL_LIMIT: usize = 16;

/// How far a direction has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// Bytes may still come.
    #[default]
    Open,
    /// The source has ended; what is buffered is still to be written.
    Ended,
    /// Everything is written and the sink has been told the end, or the direction was given up.
    Shut,
}

/// What the sink has not taken yet.
#[derive(Debug, Default)]
pub(super) struct Pending {
    data: Vec<u8>,
    written: usize,
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Direction {
    pub(super) state: State,
    /// A sink with TLS has been told that nothing follows, or is not to be told: the source did
    /// not say so either.
    pub(super) notified: bool,
    pub(super) pending: Option<Box<Pending>>,
    /// Bytes relayed, as they are without TLS.
    pub(super) bytes: u64,
}

impl Direction {
    pub(super) fn wants_read(&self) -> bool {
        self.state == State::Open && self.pending.is_none()
    }

    pub(super) fn wants_write(&self) -> bool {
        self.pending.is_some()
    }

    /// Gives the direction up: what is buffered is dropped.
    pub(super) fn abandon(&mut self, buffers: &mut Buffers) {
        self.state = State::Shut;
        if let Some(pending) = self.pending.take() {
            buffers.put(pending);
        }
    }

    /// Bytes that wait, for tests.
    #[cfg(test)]
    pub(super) fn hold(&mut self, data: Vec<u8>) {
        self.pending = Some(Box::new(Pending { data, written: 0 }));
    }

    /// The source has ended without a proper word: a sink with TLS gets none either.
    pub(super) fn cut_off(&mut self) {
        self.state = State::Ended;
        self.notified = true;
    }

    /// What the sink has not taken yet.
    pub(super) fn unwritten(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| pending.data.len() - pending.written)
    }

    /// Writes what waits. True if nothing does any more.
    pub(super) fn flush(&mut self, sink: &OwnedFd, buffers: &mut Buffers) -> Result<bool, Stop> {
        if let Some(pending) = &mut self.pending {
            pending.written += write(sink, &pending.data[pending.written..], Next::Unknown)?;
            if pending.written < pending.data.len() {
                return Ok(false);
            }
        }
        if let Some(pending) = self.pending.take() {
            buffers.put(pending);
        }
        Ok(true)
    }

    /// Writes bytes of the wire, behind what waits already.
    pub(super) fn send(
        &mut self,
        sink: &OwnedFd,
        wire: &[u8],
        next: Next,
        pool: &mut Pool,
    ) -> Result<(), Stop> {
        let written = if self.pending.is_none() { write(sink, wire, next)? } else { 0 };
        if written < wire.len() {
            let pending = self.pending.get_or_insert_with(|| pool.pop().unwrap_or_default());
            pending.data.extend_from_slice(&wire[written..]);
        }
        Ok(())
    }

    /// As [`send`](Self::send), for an end that is shaking hands.
    pub(super) fn send_output(
        &mut self,
        sink: &OwnedFd,
        next: Next,
        buffers: &mut Buffers,
    ) -> Result<(), Stop> {
        self.send(sink, buffers.wire.filled(), next, &mut buffers.pool)
    }
}

/// What follows some bytes of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Perhaps nothing: they leave at once.
    Unknown,
    /// More bytes, or the end: they may wait for it a little.
    Soon,
}

/// Writes what is taken at once; returns how much that is.
pub(super) fn write(sink: &OwnedFd, data: &[u8], next: Next) -> Result<usize, Stop> {
    let send = match next {
        Next::Unknown => socket::write,
        Next::Soon => socket::write_more_follows,
    };
    let mut written = 0;
    while written < data.len() {
        match send(sink, &data[written..]) {
            Ok(count) => written += count,
            Err(error) if os::would_block(&error) => break,
            Err(_) => return Err(Stop::Sink),
        }
    }
    Ok(written)
}

/// Boxed, as a direction holds them in eight bytes.
pub(super) type Pool = Vec<Box<Pending>>;

/// The shared buffers, and the pool.
pub(super) struct Buffers {
    /// Where reading goes.
    pub(super) scratch: Box<[u8]>,
    /// Decrypted.
    pub(super) plain: Buffer,
    /// Encrypted, or of a handshake.
    pub(super) wire: Buffer,
    /// Answers of the TLS protocol to what was read.
    pub(super) reply: Buffer,
    pub(super) pool: Pool,
}

impl Buffers {
    pub(super) fn new() -> Buffers {
        Buffers {
            scratch: vec![0; READ_SIZE].into_boxed_slice(),
            plain: Buffer::default(),
            wire: Buffer::default(),
            reply: Buffer::default(),
            pool: Vec::new(),
        }
    }

    fn put(&mut self, mut pending: Box<Pending>) {
        if self.pool.len() < POOL_LIMIT {
            pending.data.clear();
            pending.written = 0;
            self.pool.push(pending);
        }
    }
}

/// An end, as a direction sees it.
pub(super) struct Side<'a> {
    pub(super) fd: &'a OwnedFd,
    pub(super) tls: Option<&'a mut Stream>,
}

/// Why a call of [`pump`](super::pump::pump) stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// Nothing more can be done until the source or the sink is ready again.
    Waiting,
    /// Reading failed: the source's connection is broken.
    Source,
    /// Writing failed: the sink's connection is broken.
    Sink,
    /// The source has broken the TLS protocol, or has said that it cannot go on.
    Failed(String),
}
