//! One direction of a session: bytes from a source to a sink.
//!
//! Data is read into one buffer that all sessions of the worker share, and written at once.
//! Only what the sink does not take is copied into a buffer of its own, from a pool; while
//! there is one the source is not read, so a direction never holds more than one read.

use crate::os::{self, socket};
use std::net::Shutdown;
use std::os::fd::OwnedFd;

/// Most bytes of one read.
pub(super) const READ_SIZE: usize = 128 * 1024;
/// Reads of one direction per turn, so that one bulk transfer does not starve the others.
const READS_PER_TURN: usize = 4;
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
    pub(super) pending: Option<Box<Pending>>,
    /// Bytes written to the sink.
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
}

/// The shared buffer, and the pool. Its entries are boxed as a direction holds them, in eight
/// bytes.
#[allow(clippy::vec_box)]
pub(super) struct Buffers {
    scratch: Box<[u8]>,
    pool: Vec<Box<Pending>>,
}

impl Buffers {
    pub(super) fn new() -> Buffers {
        Buffers { scratch: vec![0; READ_SIZE].into_boxed_slice(), pool: Vec::new() }
    }

    #[allow(clippy::vec_box)]
    fn keep(pool: &mut Vec<Box<Pending>>, rest: &[u8]) -> Box<Pending> {
        let mut pending = pool.pop().unwrap_or_default();
        pending.data.extend_from_slice(rest);
        pending
    }

    fn put(&mut self, mut pending: Box<Pending>) {
        if self.pool.len() < POOL_LIMIT {
            pending.data.clear();
            pending.written = 0;
            self.pool.push(pending);
        }
    }
}

/// Why a call of [`pump`] stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// Nothing more can be done until the source or the sink is ready again.
    Waiting,
    /// Reading failed: the source's connection is broken.
    Source,
    /// Writing failed: the sink's connection is broken.
    Sink,
}

/// Moves what can be moved without blocking. After the last byte the sink's sending side is
/// shut down, if `forward_end` says that the end of the source is a proper one. Returns the
/// bytes moved.
pub(super) fn pump(
    direction: &mut Direction,
    source: &OwnedFd,
    sink: &OwnedFd,
    buffers: &mut Buffers,
    forward_end: bool,
) -> (u64, Stop) {
    let before = direction.bytes;
    let stop = step(direction, source, sink, buffers).err().unwrap_or(Stop::Waiting);
    if direction.state == State::Ended && direction.pending.is_none() {
        direction.state = State::Shut;
        if forward_end {
            // Fails only if the connection is gone, which the other direction finds out.
            let _ = socket::shutdown(sink, Shutdown::Write);
        }
    }
    (direction.bytes - before, stop)
}

fn step(
    direction: &mut Direction,
    source: &OwnedFd,
    sink: &OwnedFd,
    buffers: &mut Buffers,
) -> Result<(), Stop> {
    if let Some(pending) = &mut direction.pending {
        while pending.written < pending.data.len() {
            match socket::write(sink, &pending.data[pending.written..]) {
                Ok(count) => {
                    pending.written += count;
                    direction.bytes += count as u64;
                }
                Err(error) if os::would_block(&error) => return Ok(()),
                Err(_) => return Err(Stop::Sink),
            }
        }
        if let Some(pending) = direction.pending.take() {
            buffers.put(pending);
        }
    }
    for _ in 0..READS_PER_TURN {
        if direction.state != State::Open {
            break;
        }
        let count = match socket::read(source, &mut buffers.scratch) {
            Ok(count) => count,
            Err(error) if os::would_block(&error) => return Ok(()),
            Err(_) => return Err(Stop::Source),
        };
        if count == 0 {
            direction.state = State::Ended;
            return Ok(());
        }
        let mut written = 0;
        while written < count {
            match socket::write(sink, &buffers.scratch[written..count]) {
                Ok(sent) => {
                    written += sent;
                    direction.bytes += sent as u64;
                }
                Err(error) if os::would_block(&error) => {
                    let rest = &buffers.scratch[written..count];
                    direction.pending = Some(Buffers::keep(&mut buffers.pool, rest));
                    return Ok(());
                }
                Err(_) => return Err(Stop::Sink),
            }
        }
        if count < buffers.scratch.len() {
            // That was all there is; if not, the next turn tells.
            return Ok(());
        }
    }
    Ok(())
}
