//! Signatures of handshakes, from the process with the private keys (`tls keys = separate`).
//! Requests of one turn go out together; the answers continue the handshakes.

use crate::channel::signing::{decode_answer, encode_request, Frames, MOST_ANSWER};
use crate::event::{Event, Interest, Loop, Token};
use crate::os::tls::signing;
use crate::os::{self, log, Socket};
use std::io;

/// Handshakes that can go on: the number of the signature, and the session.
type Signed = Vec<(u64, u32)>;

/// The worker's end of the stream.
#[derive(Default)]
pub(super) struct Signatures {
    /// Without it requests wait: the broker will give us another one.
    link: Option<Link>,
    /// The last request that was sent.
    sent: u64,
}

struct Link {
    socket: Socket,
    frames: Frames,
    /// Requests that the other end has not taken yet.
    output: Vec<u8>,
}

impl Signatures {
    /// True if requests can be sent.
    pub(super) fn has_new(&self) -> bool {
        self.link.is_some() && signing::has_new()
    }

    /// There is a process with the keys at the other end of this socket. What another one was asked
    /// for fails.
    pub(super) fn connect(&mut self, socket: Socket, token: Token, events: &mut Loop) -> Signed {
        let failed = self.lost(events);
        events.register(&socket, token, Interest::READ);
        self.link = Some(Link { socket, frames: Frames::default(), output: Vec::new() });
        failed
    }

    /// Sends the requests of this turn. Returns those that have failed.
    pub(super) fn send(&mut self, events: &mut Loop) -> Signed {
        let Some(link) = &mut self.link else {
            return Signed::new();
        };
        let mut failed = Signed::new();
        for request in signing::take_new() {
            self.sent = request.number;
            if !encode_request(&request, &mut link.output) {
                let reason = Err("too much to sign");
                let owner = signing::answer(request.number, reason);
                failed.extend(owner.map(|owner| (request.number, owner)));
            }
        }
        if link.flush(events).is_err() {
            failed.extend(self.lost(events));
        }
        failed
    }

    /// The socket is ready. Returns the handshakes that can go on.
    pub(super) fn event(&mut self, event: Event, events: &mut Loop) -> Signed {
        let Some(link) = &mut self.link else {
            return Signed::new();
        };
        let mut signed = Signed::new();
        let mut result = if event.writable { link.flush(events) } else { Ok(()) };
        if event.readable || event.hangup {
            result = result.and(link.receive(&mut signed));
        }
        if let Err(error) = result {
            let failed = self.lost(events);
            let count = failed.len();
            log::braked(log::Kind::Tls, || {
                let reason = os::reason(&error);
                format!("no more signatures ({reason}), handshakes that fail: {count}")
            });
            signed.extend(failed);
        }
        signed
    }

    /// The process with the keys is gone: what it was asked for fails.
    fn lost(&mut self, events: &mut Loop) -> Signed {
        let Some(link) = self.link.take() else {
            return Signed::new();
        };
        events.remove(&link.socket);
        let fail = |number: u64| {
            let reason = Err("the process with the private keys has ended");
            Some((number, signing::answer(number, reason)?))
        };
        signing::waiting(self.sent).into_iter().filter_map(fail).collect()
    }
}

impl Link {
    fn flush(&mut self, events: &mut Loop) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.socket.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if os::would_block(&error) => {
                    events.set_interest(&self.socket, Interest::READ | Interest::in_room(&error));
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        events.set_interest(&self.socket, Interest::READ);
        Ok(())
    }

    fn receive(&mut self, signed: &mut Signed) -> io::Result<()> {
        let mut data = [0; 8192];
        loop {
            match self.socket.read(&mut data) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.frames.push(&data[..count]),
                Err(error) if os::would_block(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
            loop {
                let malformed = || io::Error::from(io::ErrorKind::InvalidData);
                let Some(frame) = self.frames.next(MOST_ANSWER).map_err(|_| malformed())? else {
                    break;
                };
                let (number, signature) = decode_answer(frame).ok_or_else(malformed)?;
                let answer = match signature {
                    [] => Err("the signature was refused"),
                    made => Ok(made.to_vec()),
                };
                // If the handshake was given up, nobody waits for it.
                signed.extend(signing::answer(number, answer).map(|owner| (number, owner)));
            }
        }
    }
}
