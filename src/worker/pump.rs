//! One direction of a session: bytes from a source to a sink, each with TLS or without.
//!
//! Data is read into one buffer that all sessions of the worker share, and written at once. Only
//! what the sink does not take is copied to a buffer of its own, from a pool. While a direction has
//! such a buffer its source is not read, so a direction never holds more than one read. The buffer
//! holds bytes as they go on the wire: with TLS at the sink they are encrypted already.
//!
//! A direction that carries a lot is spliced: its bytes stay in the kernel. A kernel that can
//! splice sockets does all of the work, until the source ends or somebody has to know how far it
//! has come. Other kernels move the bytes from socket to pipe to socket. The pipe comes from a
//! pool, and is held only as long as there is something in it.

use super::direction::{
    write, Buffers, Direction, Left, Next, Pool, Side, State, Stop, Unspliced, READ_SIZE,
};
use super::kernel::{self, Received};
use crate::os::splicing::{self, Broken};
use crate::os::{self};
use crate::tls::Buffer;
use std::io;
use std::net::Shutdown;

/// Reads of one direction per turn, limited so that one bulk transfer does not starve the others.
const READS_PER_TURN: usize = 4;
/// A TLS end is not read while more than this waits to be sent to it. Every read may produce a
/// protocol reply, and an end that takes no replies must not make us hold more and more.
pub(super) const REPLY_LIMIT: usize = 2 * READ_SIZE;

/// No limit of the bandwidth.
pub(super) const UNLIMITED: usize = usize::MAX;
/// The kernel hands out records of TLS whole or in parts; what is not data has to be read whole.
const RECORD: usize = 16 * 1024;

/// A direction with its ends.
pub(super) struct Flow<'a> {
    pub(super) direction: &'a mut Direction,
    /// The other direction of the session.
    pub(super) back: &'a mut Direction,
    pub(super) source: Side<'a>,
    pub(super) sink: Side<'a>,
    /// How many bytes may be read: [`UNLIMITED`], or what is left of the bandwidth.
    pub(super) most: usize,
}

/// What follows after the last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The sink's sending side is shut down.
    Shutdown,
    /// The connections will be closed anyway; only a TLS sink needs close_notify before.
    Close,
    /// Nothing: this is not an orderly end.
    Nothing,
}

/// What a call of [`pump`] has done.
#[derive(Debug)]
pub(super) struct Pumped {
    /// Bytes have moved.
    pub(super) moved: bool,
    /// The source's connection has ended without close_notify.
    pub(super) truncated: bool,
    /// What is left to read from the source.
    pub(super) left: Left,
    pub(super) stop: Stop,
}

/// Moves what can be moved without blocking. `reads_on`: the end may be waiting behind a short
/// read.
pub(super) fn pump(
    mut flow: Flow<'_>,
    buffers: &mut Buffers,
    ending: Ending,
    reads_on: bool,
) -> Pumped {
    let before = (flow.direction.bytes, flow.direction.unwritten());
    let was_open = flow.direction.state == State::Open;
    // Look for the end after a short read, so that it leaves together with the last data.
    let last = reads_on && ending != Ending::Nothing;
    let (left, stop) = match flow.step(buffers, last) {
        Ok(left) => (left, None),
        Err(stop) => (Left::Perhaps, Some(stop)),
    };
    let truncated = was_open && flow.direction.state == State::CutOff;
    let stop = stop.or_else(|| flow.end(buffers, ending).err()).unwrap_or(Stop::Waiting);
    let moved = before != (flow.direction.bytes, flow.direction.unwritten());
    Pumped { moved, truncated, left, stop }
}

impl Flow<'_> {
    fn step(&mut self, buffers: &mut Buffers, last: bool) -> Result<Left, Stop> {
        let returned = self.take_back()?;
        if !self.direction.flush(self.sink.fd, buffers)? {
            return Ok(Left::Perhaps);
        }
        for turn in 0..READS_PER_TURN {
            if !self.direction.reads() || self.back.unwritten() > REPLY_LIMIT || self.most == 0 {
                break;
            }
            let before = self.direction.bytes;
            if self.back.pending.is_none() {
                kernel::offer(&mut self.source)?;
            }
            let left = match &self.source.tls {
                Some(tls) if tls.in_kernel() => self.step_kernel(buffers)?,
                Some(_) => self.step_tls(buffers)?,
                // If a splice has just ended, reading tells why.
                None if self.splices(buffers) && !(returned && turn == 0) => {
                    self.step_splice(buffers, last)?
                }
                None => self.step_plain(buffers, last)?,
            };
            if self.most != UNLIMITED {
                let count = usize::try_from(self.direction.bytes - before).unwrap_or(UNLIMITED);
                self.most = self.most.saturating_sub(count);
            }
            if left != Left::Perhaps {
                return Ok(left);
            }
        }
        Ok(Left::Perhaps)
    }

    /// One read of a source without TLS.
    fn step_plain(&mut self, buffers: &mut Buffers, last: bool) -> Result<Left, Stop> {
        let room = self.most.min(buffers.scratch.len());
        let mut count = match self.source.fd.read(&mut buffers.scratch[..room]) {
            Ok(count) => count,
            Err(error) if os::would_block(&error) => return Ok(Left::Nothing),
            Err(_) => return Err(Stop::Source),
        };
        if count == 0 {
            self.direction.state = State::Ended;
            return Ok(Left::Perhaps);
        }
        if self.sink.tls.is_some() {
            // Perhaps more is read below, up to the whole buffer.
            let used = if last { buffers.scratch.len() } else { count };
            buffers.note_plain(used);
        }
        let Buffers { scratch, wire, pool, .. } = buffers;
        let (mut next, mut broken) = (Next::Unknown, false);
        // A short read took all there was; anything newer shows in the next turn.
        let mut left = if count < room { Left::NothingYet } else { Left::Perhaps };
        if last && left == Left::NothingYet {
            match self.source.fd.read(&mut scratch[count..room]) {
                Ok(0) => {
                    self.direction.state = State::Ended;
                    next = Next::Soon;
                    left = Left::Perhaps;
                }
                Ok(more) => count += more,
                Err(error) if os::would_block(&error) => left = Left::Nothing,
                Err(_) => broken = true,
            }
        }
        deliver(self.direction, &mut self.sink, &scratch[..count], next, wire, pool)?;
        if broken {
            return Err(Stop::Source);
        }
        Ok(left)
    }

    fn splices(&self, buffers: &Buffers) -> bool {
        self.direction.splices(buffers.splice())
            && self.sink.tls.as_ref().is_none_or(|tls| tls.in_kernel())
    }

    /// Like [`step_plain`](Self::step_plain), but within the kernel.
    fn step_splice(&mut self, buffers: &mut Buffers, last: bool) -> Result<Left, Stop> {
        if self.most != UNLIMITED {
            // A kernel that splices by itself keeps to no limit.
            return self.step_pipe(buffers, last);
        }
        match splicing::start(self.source.fd, self.sink.fd) {
            Ok(()) => {
                self.direction.state = State::Spliced;
                Ok(Left::Perhaps)
            }
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                self.step_pipe(buffers, last)
            }
            Err(_) => {
                self.direction.copy_only();
                self.step_plain(buffers, last)
            }
        }
    }

    /// Takes a spliced direction back from the kernel, and counts what the kernel has carried. True
    /// if it was spliced.
    pub(super) fn take_back(&mut self) -> Result<bool, Stop> {
        if self.direction.state != State::Spliced {
            return Ok(false);
        }
        self.direction.state = State::Open;
        let (count, result) = splicing::stop(self.source.fd, self.sink.fd);
        self.direction.carried(count, self.sink.fd);
        match result {
            Ok(()) => Ok(true),
            Err(Broken::Source) => Err(Stop::Source),
            Err(Broken::Sink) => Err(Stop::Sink),
        }
    }

    /// Like [`step_plain`](Self::step_plain), but through a pipe.
    fn step_pipe(&mut self, buffers: &mut Buffers, last: bool) -> Result<Left, Stop> {
        let Some(mut pipe) = buffers.take_pipe() else {
            return self.step_plain(buffers, last);
        };
        let count = match pipe.fill(self.source.fd, self.most) {
            Ok(count) if count > 0 => count,
            result => {
                buffers.put_pipe(pipe);
                match result {
                    // Linux splices up to the urgent-data mark and no further: it reports that
                    // there is nothing, or that the source has ended, though there is more to read.
                    Ok(_) => {}
                    Err(error) if os::would_block(&error) => {}
                    Err(error) => {
                        let why = Unspliced::because(&error).ok_or(Stop::Source)?;
                        self.direction.note_unspliced(why);
                    }
                }
                return self.step_plain(buffers, last);
            }
        };
        self.direction.carried(count as u64, self.sink.fd);
        kernel::before_sending(&mut self.sink, count)?;
        self.direction.hold_pipe(pipe, &mut buffers.pool);
        self.direction.flush(self.sink.fd, buffers)?;
        // A pipe's room is not known in bytes, so only the next fill shows whether this was all.
        Ok(Left::Perhaps)
    }

    /// One read of a source whose TLS records the kernel handles.
    fn step_kernel(&mut self, buffers: &mut Buffers) -> Result<Left, Stop> {
        let scratch = &mut buffers.scratch;
        let Some(tls) = &mut self.source.tls else {
            return Ok(Left::Nothing);
        };
        let room = self.most.max(RECORD).min(scratch.len());
        match kernel::receive(self.source.fd, tls, &mut scratch[..room])? {
            Received::Data(count) => {
                buffers.note_plain(count);
                let Buffers { scratch, wire, pool, .. } = buffers;
                let data = &scratch[..count];
                deliver(self.direction, &mut self.sink, data, Next::Unknown, wire, pool)?;
            }
            Received::Control => {}
            Received::Nothing => return Ok(Left::Nothing),
            Received::Closed => self.direction.state = State::Ended,
            Received::End => self.direction.cut_off(),
        }
        Ok(Left::Perhaps)
    }

    /// One read of a source with TLS.
    fn step_tls(&mut self, buffers: &mut Buffers) -> Result<Left, Stop> {
        // What is read is sealed; it is opened elsewhere.
        buffers.note_plain(0);
        let Buffers { scratch, plain, wire, reply, pool, .. } = buffers;
        let Some(tls) = &mut self.source.tls else {
            return Ok(Left::Nothing);
        };
        let held = tls.held();
        let room = self.most.saturating_add(held).min(scratch.len());
        // Bytes that came with the end of the handshake go first.
        let count = if tls.has_unread() {
            0
        } else {
            match self.source.fd.read(&mut scratch[held..room]) {
                Ok(0) => {
                    self.direction.cut_off();
                    return Ok(Left::Perhaps);
                }
                Ok(count) => count,
                Err(error) if os::would_block(&error) => return Ok(Left::Nothing),
                Err(_) => return Err(Stop::Source),
            }
        };
        let full = held + count == room || count == 0;
        tls.take_held(scratch);
        plain.clear();
        reply.clear();
        let result = tls.read(&scratch[..held + count], plain, reply);
        if !reply.is_empty() && !self.back.is_silent() {
            // If the reply cannot be sent, the next read tells why.
            let _ = self.back.send(self.source.fd, reply.filled(), Next::Unknown, pool);
        }
        if !plain.is_empty() {
            let data = plain.filled();
            deliver(self.direction, &mut self.sink, data, Next::Unknown, wire, pool)?;
        }
        match result {
            Ok(false) if full => Ok(Left::Perhaps),
            Ok(false) => Ok(Left::NothingYet),
            Ok(true) => {
                self.direction.state = State::Ended;
                Ok(Left::Perhaps)
            }
            Err(text) => Err(Stop::Failed(text)),
        }
    }

    /// Ends the direction and tells the sink, if the end has come.
    fn end(&mut self, buffers: &mut Buffers, ending: Ending) -> Result<(), Stop> {
        let direction = &mut *self.direction;
        if matches!(direction.state, State::Open | State::Paused | State::Spliced | State::Shut)
            || direction.pending.is_some()
        {
            return Ok(());
        }
        let tells = direction.state == State::Ended && ending != Ending::Nothing;
        if let (Some(tls), true) = (&mut self.sink.tls, tells) {
            if tls.in_kernel() {
                if !kernel::close(self.sink.fd) {
                    // Try again when the sink takes something.
                    return Ok(());
                }
            } else {
                buffers.wire.clear();
                tls.close(&mut buffers.wire);
                direction.state = State::Told;
                let Buffers { wire, pool, .. } = buffers;
                direction.send(self.sink.fd, wire.filled(), Next::Soon, pool)?;
                if direction.pending.is_some() {
                    return Ok(());
                }
            }
        }
        direction.state = State::Shut;
        if ending == Ending::Shutdown {
            // Fails only if the connection is gone, which the other direction finds out.
            let _ = self.sink.fd.shutdown(Shutdown::Write);
        }
        Ok(())
    }

    /// Sends what a direction starts with: what it holds already (a PROXY header, or the end of a
    /// handshake) and, in the same segment, what its source has sent by now. `early` was read before
    /// it was clear what it is.
    pub(super) fn start(&mut self, early: &[u8], buffers: &mut Buffers) -> Result<(), Stop> {
        if early.is_empty() {
            match self.source.tls {
                Some(_) => self.step_tls(buffers)?,
                None => self.step_plain(buffers, false)?,
            };
        } else {
            let Buffers { wire, pool, .. } = &mut *buffers;
            deliver(self.direction, &mut self.sink, early, Next::Unknown, wire, pool)?;
        }
        self.direction.flush(self.sink.fd, buffers)?;
        Ok(())
    }
}

/// Sends close_notify to an end with TLS, if that can be done at once.
pub(super) fn say_goodbye(sink: &mut Side<'_>, direction: &Direction, buffers: &mut Buffers) {
    if direction.is_silent() || direction.pending.is_some() {
        return;
    }
    if let Some(tls) = &mut sink.tls {
        if tls.in_kernel() {
            kernel::close(sink.fd);
            return;
        }
        buffers.wire.clear();
        tls.close(&mut buffers.wire);
        let _ = write(sink.fd, buffers.wire.filled(), Next::Soon);
    }
}

/// Hands bytes to the sink, encrypted if it has TLS.
fn deliver(
    direction: &mut Direction,
    sink: &mut Side<'_>,
    data: &[u8],
    next: Next,
    wire: &mut Buffer,
    pool: &mut Pool,
) -> Result<(), Stop> {
    direction.carried(data.len() as u64, sink.fd);
    match &mut sink.tls {
        Some(tls) if !tls.in_kernel() => {
            wire.clear();
            if tls.write(data, wire).is_err() {
                return Err(Stop::Sink);
            }
            direction.send(sink.fd, wire.filled(), next, pool)
        }
        Some(_) => {
            kernel::before_sending(sink, data.len())?;
            direction.send(sink.fd, data, next, pool)
        }
        None => direction.send(sink.fd, data, next, pool),
    }
}
