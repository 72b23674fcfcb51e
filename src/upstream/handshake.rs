//! A TLS handshake over a socket, for either side.

use crate::event::Interest;
use crate::os::descriptor::poll_state;
use crate::os::{self, Socket};
use crate::tls::stream::{Step, Stream};
use crate::tls::Buffer;
use std::io;
use std::os::fd::AsRawFd;

const GONE: &str = "the connection has ended";

/// Memory that every step needs and none keeps.
pub struct Scratch<'a> {
    /// Where reads go.
    pub input: &'a mut [u8],
    /// What is to be sent.
    pub output: &'a mut Buffer,
}

/// How far a handshake has come.
#[derive(Debug)]
pub enum Progress {
    /// Waiting for the other side.
    Waiting,
    /// Waiting for this signature. Meanwhile the socket is not read; go on with
    /// [`Handshake::signed`].
    Signing(u64),
    /// It is done.
    Done,
    /// It has failed, for this reason.
    Failed(String),
}

/// Bytes that the other side has not taken yet.
#[derive(Debug, Default)]
pub struct Unsent(Vec<u8>);

impl Unsent {
    /// True if there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sends as much as the socket takes.
    pub fn flush(&mut self, socket: &Socket) -> io::Result<()> {
        if !self.0.is_empty() {
            let count = send(socket, &self.0)?;
            self.0.drain(..count);
        }
        Ok(())
    }

    /// Sends bytes, after those that wait already, and in one segment with them if that can be.
    fn send(&mut self, socket: &Socket, bytes: &[u8]) -> io::Result<()> {
        if self.0.is_empty() {
            let count = send(socket, bytes)?;
            self.0.extend_from_slice(&bytes[count..]);
            return Ok(());
        }
        self.0.extend_from_slice(bytes);
        self.flush(socket)
    }

    /// The bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl From<Vec<u8>> for Unsent {
    fn from(bytes: Vec<u8>) -> Unsent {
        Unsent(bytes)
    }
}

/// Sends as much as the socket takes at once; returns how much that is.
fn send(socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match socket.write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) if os::would_block(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

/// A handshake, and what it still has to send.
#[derive(Debug)]
pub struct Handshake {
    stream: Stream,
    unsent: Unsent,
    /// The signature that it waits for.
    signing: Option<u64>,
}

impl Handshake {
    /// A handshake in which nothing has been sent yet.
    pub fn new(stream: Stream) -> Handshake {
        Handshake { stream, unsent: Unsent::default(), signing: None }
    }

    /// The same, on a connection whose first bytes, before those of TLS, wait to be sent.
    pub fn after(first: Unsent, stream: Stream) -> Handshake {
        Handshake { unsent: first, ..Handshake::new(stream) }
    }

    /// Begins on the side that connects, which sends first.
    pub fn speak(&mut self, socket: &Socket, scratch: &mut Scratch<'_>) -> Progress {
        self.step(socket, Some(&[]), scratch)
    }

    /// Begins with bytes that were read already.
    pub fn feed(&mut self, socket: &Socket, input: &[u8], scratch: &mut Scratch<'_>) -> Progress {
        self.step(socket, Some(input), scratch)
    }

    /// Continues with what can be read.
    pub fn go_on(&mut self, socket: &Socket, scratch: &mut Scratch<'_>) -> Progress {
        if self.unsent.flush(socket).is_err() {
            return Progress::Failed(GONE.to_owned());
        }
        if self.signing.is_some() {
            let state = poll_state(socket.as_raw_fd());
            return match state.hangup || state.error {
                true => Progress::Failed(GONE.to_owned()),
                false => Progress::Waiting,
            };
        }
        self.step(socket, None, scratch)
    }

    /// Continues with a signature that was waited for, or without it.
    pub fn signed(&mut self, number: u64, socket: &Socket, scratch: &mut Scratch<'_>) -> Progress {
        if self.signing != Some(number) {
            return Progress::Waiting;
        }
        self.signing = None;
        self.step(socket, Some(&[]), scratch)
    }

    fn step(
        &mut self,
        socket: &Socket,
        mut given: Option<&[u8]>,
        scratch: &mut Scratch<'_>,
    ) -> Progress {
        loop {
            scratch.output.clear();
            // How far the handshake has come, and whether there may be more to read at once.
            let (progress, more) = match given.take() {
                Some(input) => (self.stream.handshake(input, scratch.output), true),
                None => match socket.read(scratch.input) {
                    Ok(0) => return Progress::Failed(GONE.to_owned()),
                    Ok(count) => {
                        let input = &scratch.input[..count];
                        let more = count == scratch.input.len();
                        (self.stream.handshake(input, scratch.output), more)
                    }
                    Err(error) if os::would_block(&error) => return Progress::Waiting,
                    Err(error) => return Progress::Failed(os::reason(&error)),
                },
            };
            // Send at once, even a ticket: it acknowledges what the client has sent, and the client
            // may hold back its first data until then.
            let sent = self.unsent.send(socket, scratch.output.filled());
            match progress {
                Err(text) => return Progress::Failed(text),
                _ if sent.is_err() => return Progress::Failed(GONE.to_owned()),
                Ok(Step::Done) => return Progress::Done,
                Ok(Step::Signing(number)) => {
                    self.signing = Some(number);
                    return Progress::Signing(number);
                }
                Ok(Step::Waiting) if more => {}
                Ok(Step::Waiting) => return Progress::Waiting,
            }
        }
    }

    /// What to watch the socket for.
    pub fn interest(&self) -> Interest {
        let read = if self.signing.is_none() { Interest::READ } else { Interest::empty() };
        if self.unsent.is_empty() {
            read
        } else {
            read | Interest::WRITE
        }
    }

    /// True if something waits to be sent.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// True if the other side has not sent anything yet.
    pub fn is_untouched(&self) -> bool {
        self.stream.is_untouched()
    }

    /// The stream of a finished handshake, and what has to be sent before anything else.
    pub fn into_parts(self) -> (Stream, Unsent) {
        (self.stream, self.unsent)
    }
}
