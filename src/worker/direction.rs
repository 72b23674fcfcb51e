//! One direction of a session: its state and what waits in it. Also the buffers that all directions
//! share.

use crate::config::relay::Splice;
use crate::os::pipe::Pipe;
use crate::os::secret::wipe;
use crate::os::{self, channel, Socket};
use crate::tls::stream::Stream;
use crate::tls::Buffer;
use crate::upstream::handshake::Scratch;
use std::io;

/// The most bytes that one read takes.
pub(super) const READ_SIZE: usize = 128 * 1024;
/// Buffers, and pipes, kept for the next direction that needs one; any more are freed.
const POOL_LIMIT: usize = 16;
/// The most pipes of a worker, kept or in use. Each takes two descriptors.
const PIPES: usize = 64;
/// Descriptors that a worker needs for itself. A session needs two, so the worker tells the broker
/// that it can take half as many sessions as it has other descriptors.
pub(super) const OTHER_DESCRIPTORS: u64 = 10;
/// When no pipe could be made, this many reads are copied before another pipe is tried.
const PIPELESS_READS: u16 = 1000;
/// A read of this many bytes is a sign of a bulk transfer, which is worth splicing. A direction is
/// taken for one after `BULK_READS` more large reads than small ones. Large reads count up to
/// `BULK_READS_LIMIT`, so that the end of a bulk transfer is noticed.
const BULK_READ: u64 = 16 * 1024;
const BULK_READS: u8 = 4;
const BULK_READS_LIMIT: u8 = 16;
/// Marks a direction that is not spliced, because its ends cannot be.
const COPIED: u8 = u8::MAX;
/// After this many bytes it is worth checking how the sink sends them (see
/// [`socket::unpace_within_host`]).
const LONG: u64 = 1 << 20;

/// The state of a direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// More bytes may come.
    #[default]
    Open,
    /// The direction has used up its bandwidth: the source is not read for a moment.
    Paused,
    /// The kernel carries the bytes by itself. The source becomes ready when that is over.
    Spliced,
    /// The source has ended. What is buffered is still to be written, then the sink is told.
    Ended,
    /// The source has ended improperly: by a TLS error or without close_notify. What is buffered is
    /// still to be written; a TLS sink gets no close_notify either.
    CutOff,
    /// The last bytes in the buffer are close_notify for a TLS sink.
    Told,
    /// Everything is written and the sink was told of the end, or the direction was given up.
    Shut,
}

/// Data that the sink has not taken yet.
#[derive(Debug)]
pub(super) enum Pending {
    Bytes { data: Vec<u8>, written: usize },
    Piped(Pipe),
}

impl Default for Pending {
    fn default() -> Pending {
        Pending::Bytes { data: Vec::new(), written: 0 }
    }
}

impl Pending {
    fn length(&self) -> usize {
        match self {
            Pending::Bytes { data, written } => data.len() - written,
            Pending::Piped(pipe) => pipe.len(),
        }
    }

    /// Writes as much as the sink takes. What cannot be spliced into this sink is moved out of its
    /// pipe; `Some` says why.
    fn write(&mut self, sink: &Socket) -> Result<Option<Unspliced>, Stop> {
        let mut unspliced = None;
        if let Pending::Piped(pipe) = self {
            while !pipe.is_empty() && unspliced.is_none() {
                match pipe.drain(sink) {
                    Ok(_) => {}
                    Err(error) if os::would_block(&error) => return Ok(None),
                    Err(error) => {
                        unspliced = Some(Unspliced::because(&error).ok_or(Stop::Sink)?);
                    }
                }
            }
            if pipe.is_empty() {
                return Ok(None);
            }
            self.unpipe()?;
        }
        if let Pending::Bytes { data, written } = self {
            *written += write(sink, &data[*written..], Next::Unknown)?;
        }
        Ok(unspliced)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.unpipe()?;
        if let Pending::Bytes { data, .. } = self {
            data.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn unpipe(&mut self) -> Result<(), Stop> {
        if let Pending::Piped(pipe) = self {
            let data = pipe.take().map_err(|_| Stop::Sink)?;
            *self = Pending::Bytes { data, written: 0 };
        }
        Ok(())
    }
}

/// Why bytes that were to be spliced were copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unspliced {
    /// These sockets cannot be spliced, or this process may not do it.
    Never,
    /// Descriptors or memory have run out. Copying needs none.
    Now,
}

impl Unspliced {
    /// `None` if the error is about a connection rather than about splicing.
    pub(super) fn because(error: &io::Error) -> Option<Unspliced> {
        match error.raw_os_error() {
            Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP | libc::EPERM) => {
                Some(Unspliced::Never)
            }
            _ if os::out_of_descriptors(error) => Some(Unspliced::Now),
            _ => None,
        }
    }
}

/// One direction of a session.
#[derive(Debug, Default)]
pub(super) struct Direction {
    pub(super) state: State,
    pub(super) pending: Option<Box<Pending>>,
    /// Bytes relayed, counted without TLS.
    pub(super) bytes: u64,
    /// How many more of the recent reads were large than small, or [`COPIED`].
    bulk: u8,
}

impl Direction {
    /// A direction that starts with bytes to write before anything else.
    pub(super) fn holding(data: Vec<u8>) -> Direction {
        let pending = Pending::Bytes { data, written: 0 };
        Direction {
            pending: (pending.length() > 0).then(|| Box::new(pending)),
            ..Direction::default()
        }
    }

    /// True if the source is to be read.
    pub(super) fn reads(&self) -> bool {
        self.state == State::Open && self.pending.is_none()
    }

    /// True if the loop has to report when the source is ready.
    pub(super) fn wants_read(&self) -> bool {
        self.reads() || self.state == State::Spliced
    }

    /// True if something waits for the sink, or the sink could not be told of the end yet.
    pub(super) fn wants_write(&self) -> bool {
        self.pending.is_some() || self.state == State::Ended
    }

    /// True if the source sends nothing more.
    pub(super) fn has_ended(&self) -> bool {
        !matches!(self.state, State::Open | State::Paused | State::Spliced)
    }

    /// True if a TLS sink gets no more messages of ours.
    pub(super) fn is_silent(&self) -> bool {
        matches!(self.state, State::CutOff | State::Told | State::Shut)
    }

    /// Gives the direction up, and drops what is buffered.
    pub(super) fn abandon(&mut self, buffers: &mut Buffers) {
        self.state = State::Shut;
        if let Some(pending) = self.pending.take() {
            buffers.put(pending);
        }
    }

    /// Keeps what is in a pipe until the sink takes it.
    pub(super) fn hold_pipe(&mut self, pipe: Pipe, pool: &mut Pool) {
        let mut pending = pool.pop().unwrap_or_default();
        *pending = Pending::Piped(pipe);
        self.pending = Some(pending);
    }

    /// The source has ended improperly: a TLS sink gets no close_notify either.
    pub(super) fn cut_off(&mut self) {
        self.state = State::CutOff;
    }

    /// How many bytes the sink has not taken yet.
    pub(super) fn unwritten(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| pending.length())
    }

    /// Counts bytes of one read, or those that the kernel has carried.
    pub(super) fn carried(&mut self, count: u64, sink: &Socket) {
        let before = self.bytes;
        self.bytes += count;
        if before < LONG && self.bytes >= LONG {
            sink.unpace_within_host();
        }
        if self.bulk != COPIED {
            self.bulk = if count >= BULK_READ {
                (self.bulk + 1).min(BULK_READS_LIMIT)
            } else {
                self.bulk.saturating_sub(1)
            };
        }
    }

    /// True if bytes are to be spliced, not copied.
    pub(super) fn splices(&self, splice: Splice) -> bool {
        match splice {
            Splice::Auto => self.bulk >= BULK_READS && self.bulk != COPIED,
            Splice::Always => self.bulk != COPIED,
            Splice::Never => false,
        }
    }

    /// Turns splicing off for good: it does not work here, or is no longer of use.
    pub(super) fn copy_only(&mut self) {
        self.bulk = COPIED;
    }

    /// Notes why bytes had to be copied.
    pub(super) fn note_unspliced(&mut self, why: Unspliced) {
        self.bulk = match why {
            Unspliced::Never => COPIED,
            Unspliced::Now => 0,
        };
    }

    /// Moves what waits from its pipe to memory, as the pipe's descriptors are needed elsewhere. If
    /// that fails, so will the next write, which ends the session.
    pub(super) fn unpipe(&mut self) {
        if let Some(pending) = &mut self.pending {
            let _ = pending.unpipe();
        }
    }

    /// Writes what waits. True if nothing is left.
    pub(super) fn flush(&mut self, sink: &Socket, buffers: &mut Buffers) -> Result<bool, Stop> {
        if let Some(pending) = &mut self.pending {
            let unspliced = pending.write(sink)?;
            let left = pending.length();
            if let Some(why) = unspliced {
                self.note_unspliced(why);
            }
            if left > 0 {
                return Ok(false);
            }
        }
        if let Some(pending) = self.pending.take() {
            buffers.put(pending);
        }
        Ok(true)
    }

    /// Writes bytes as they go on the wire, after those that wait already.
    pub(super) fn send(
        &mut self,
        sink: &Socket,
        wire: &[u8],
        next: Next,
        pool: &mut Pool,
    ) -> Result<(), Stop> {
        let written = if self.pending.is_none() { write(sink, wire, next)? } else { 0 };
        if written < wire.len() {
            let pending = self.pending.get_or_insert_with(|| pool.pop().unwrap_or_default());
            pending.append(&wire[written..])?;
        }
        Ok(())
    }
}

/// What follows the bytes being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Perhaps nothing: send them at once.
    Unknown,
    /// More bytes, or the end: they may wait for that a little.
    Soon,
}

/// Writes as much as the sink takes at once; returns how much that is.
pub(super) fn write(sink: &Socket, data: &[u8], next: Next) -> Result<usize, Stop> {
    let send = match next {
        Next::Unknown => Socket::write,
        Next::Soon => Socket::write_more_follows,
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

/// Boxed, so that a direction holds it in eight bytes.
pub(super) type Pool = Vec<Box<Pending>>;

/// Whether plain bytes of sessions with TLS are in the shared buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Traces {
    None,
    /// They have come since the last [`Buffers::rest`].
    Fresh,
    /// They are from before it.
    Old,
}

/// The shared buffers, and the pool.
pub(super) struct Buffers {
    /// Where reads go.
    pub(super) scratch: Box<[u8]>,
    /// Decrypted bytes.
    pub(super) plain: Buffer,
    /// Encrypted bytes, or those of a handshake.
    pub(super) wire: Buffer,
    /// Replies of the TLS protocol to what was read.
    pub(super) reply: Buffer,
    pub(super) pool: Pool,
    traces: Traces,
    /// How much of `scratch` has been in use, at most, since it was wiped.
    used: usize,
    splice: Splice,
    pipes: Vec<Pipe>,
    /// How many sessions there are descriptors for.
    places: usize,
    /// How many pipes there may be beside the sessions.
    pipe_limit: usize,
    /// How many reads are still to be copied because no pipe could be made.
    pipeless: u16,
}

impl Buffers {
    /// `descriptors`: the process's descriptor limit.
    pub(super) fn new(splice: Splice, descriptors: u64) -> Buffers {
        let places = descriptors.saturating_sub(OTHER_DESCRIPTORS) / 2;
        Buffers {
            scratch: vec![0; READ_SIZE].into_boxed_slice(),
            plain: Buffer::default(),
            wire: Buffer::default(),
            reply: Buffer::default(),
            pool: Vec::new(),
            traces: Traces::None,
            used: 0,
            splice,
            pipes: Vec::new(),
            places: usize::try_from(places).unwrap_or(usize::MAX),
            pipe_limit: PIPES,
            pipeless: 0,
        }
    }

    /// Limits pipes so that descriptors are left for this many sessions, and for as many more as
    /// one message may bring. False if too many pipes have something in them.
    pub(super) fn leave_places(&mut self, sessions: usize) -> bool {
        let taken = sessions + channel::DESCRIPTORS;
        self.pipe_limit = self.places.saturating_sub(taken).min(PIPES);
        while Pipe::count() > self.pipe_limit && self.pipes.pop().is_some() {}
        self.places_are_left()
    }

    /// True if there are no more pipes than the limit allows.
    pub(super) fn places_are_left(&self) -> bool {
        Pipe::count() <= self.pipe_limit
    }

    /// The memory that a handshake needs.
    pub(super) fn scratch(&mut self) -> Scratch<'_> {
        Scratch { input: &mut self.scratch, output: &mut self.wire }
    }

    fn put(&mut self, mut pending: Box<Pending>) {
        match std::mem::take(&mut *pending) {
            Pending::Piped(pipe) => self.put_pipe(pipe),
            Pending::Bytes { mut data, .. } => {
                if self.traces != Traces::None {
                    wipe(&mut data);
                }
                data.clear();
                *pending = Pending::Bytes { data, written: 0 };
            }
        }
        if self.pool.len() < POOL_LIMIT {
            self.pool.push(pending);
        }
    }

    /// Notes that plain bytes of a session with TLS are in the buffers, so many of them in `scratch`.
    pub(super) fn note_plain(&mut self, length: usize) {
        self.traces = Traces::Fresh;
        self.used = self.used.max(length);
    }

    /// True if plain bytes of sessions with TLS are in the buffers.
    pub(super) fn have_traces(&self) -> bool {
        self.traces != Traces::None
    }

    /// Wipes what has been there since the last call. The next session would overwrite it, but there
    /// may be none for long.
    pub(super) fn rest(&mut self) {
        match self.traces {
            Traces::None => {}
            Traces::Fresh => self.traces = Traces::Old,
            Traces::Old => {
                // No more than was in use, as the rest takes no memory yet.
                wipe(&mut self.scratch[..self.used]);
                for buffer in [&mut self.plain, &mut self.wire, &mut self.reply] {
                    buffer.wipe();
                }
                (self.traces, self.used) = (Traces::None, 0);
            }
        }
    }

    pub(super) fn splice(&self) -> Splice {
        self.splice
    }

    /// An empty pipe, or `None` if there is none to be had.
    pub(super) fn take_pipe(&mut self) -> Option<Pipe> {
        if let Some(pipe) = self.pipes.pop() {
            return Some(pipe);
        }
        if self.pipeless > 0 {
            self.pipeless -= 1;
            return None;
        }
        if Pipe::count() >= self.pipe_limit {
            return None;
        }
        // The user's share of pipes may be used up (pipe(7)); do not try again for every read.
        let pipe = Pipe::new();
        if pipe.is_err() {
            self.pipeless = PIPELESS_READS;
        }
        pipe.ok()
    }

    /// Gives a pipe back.
    pub(super) fn put_pipe(&mut self, pipe: Pipe) {
        if pipe.is_empty() && self.pipes.len() < POOL_LIMIT && self.places_are_left() {
            self.pipes.push(pipe);
        }
    }

    /// Frees what is kept for the next direction, when there is no session.
    pub(super) fn shrink(&mut self) {
        self.pool = Vec::new();
        self.release_pipes();
    }

    /// Gives the descriptors of unused pipes back to the system.
    pub(super) fn release_pipes(&mut self) {
        self.pipes.clear();
    }
}

/// What is left to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// There may be more to read at once.
    Perhaps,
    /// The read was short: nothing is left but, perhaps, the end.
    NothingYet,
    /// Reading would have blocked.
    Nothing,
}

/// An end, as a direction sees it.
pub(super) struct Side<'a> {
    pub(super) fd: &'a Socket,
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
    /// The source has violated the TLS protocol, or has said that it cannot go on.
    Failed(String),
}
