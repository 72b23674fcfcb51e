//! The process: it gets the keys from the broker, then a stream to each worker, and signs until
//! both the broker and the last worker are gone. The broker of the next image starts another
//! process, and this one stays for the workers of the former.

use super::keys::{Keys, Refusal};
use crate::channel::signing::{decode_request, encode_answer, Frames, LOG_FILE, MOST_REQUEST};
use crate::event::{Event, Interest, Loop, Token};
use crate::os::secret::Secret;
use crate::os::{self, log, Channel, Socket};
use crate::snapshot::material::Material;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;

const CONTROL: u8 = 0;
const WORKER: u8 = 1;
const REFILL: u8 = 2;

/// The most signatures for one worker per second.
const MOST_PER_SECOND: u32 = 5000;
/// Signatures for one worker before it is another one's turn.
const BATCH: usize = 8;
/// A worker that does not read its answers is not read either.
const MOST_UNREAD: usize = 64 * 1024;

/// More bytes than the keys can have.
const MOST: usize = 64 << 20;

/// A stream to a worker.
struct Worker {
    socket: Socket,
    frames: Frames,
    output: Vec<u8>,
    /// How many signatures it may still have in the second that began then.
    budget: u32,
    since: u64,
    /// It was logged that it was refused something.
    remarked: bool,
}

/// Tells the broker that this process is confined, and gets the keys: their length in eight bytes,
/// then [`Material`]. `None` if the broker is gone or sends something else.
pub fn ask(control: &Socket) -> Option<Keys> {
    control.write(&[1]).ok()?;
    let mut length = [0; 8];
    read_exactly(control, &mut length)?;
    let length =
        usize::try_from(u64::from_ne_bytes(length)).ok().filter(|&length| length <= MOST)?;
    let mut secrets = Secret::zeroed(length).ok()?;
    read_exactly(control, &mut secrets)?;
    let material = Material::decode(&secrets);
    drop(secrets);
    match Keys::load(material?.keys()?) {
        Ok(keys) => Some(keys),
        Err(errors) => {
            log::message(&format!("private keys: {}", os::tls::first_error(&errors)));
            None
        }
    }
}

fn read_exactly(control: &Socket, buffer: &mut [u8]) -> Option<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match control.read(&mut buffer[filled..]) {
            Ok(0) => return None,
            Ok(count) => filled += count,
            Err(error) if os::would_block(&error) => drop(Channel::from(control.as_fd()).wait(-1)),
            Err(_) => return None,
        }
    }
    Some(())
}

/// Signs until nobody is left.
pub fn serve(control: Socket, keys: &Keys, events: &mut Loop) -> i32 {
    events.register(&control, Token::new(CONTROL, 0), Interest::READ);
    let (mut control, mut workers, mut last) = (Some(control), BTreeMap::<u32, Worker>::new(), 0);
    while control.is_some() || !workers.is_empty() {
        let busy = workers.values().any(|worker| worker.may_sign(events.now()));
        if let Err(error) = events.wait(busy.then_some(0)) {
            log::message(&format!("event loop: {}", os::reason(&error)));
            return os::process::exit::SOFTWARE;
        }
        while let Some(event) = events.next_event() {
            let index = event.token.index();
            match event.token.kind() {
                CONTROL => {
                    let Some(channel) = control.take() else { continue };
                    match hear(&channel, &mut workers, &mut last, events) {
                        Ok(()) => control = Some(channel),
                        Err(_) => events.remove(&channel),
                    }
                }
                _ => {
                    let heard = workers.get_mut(&index).map(|worker| worker.event(event));
                    if let Some(Err(_)) = heard {
                        end(&mut workers, index, events);
                    }
                }
            }
        }
        // When it expires, budgets are looked at again.
        while events.next_expired().is_some() {}
        let indices: Vec<u32> = workers.keys().copied().collect();
        for index in indices {
            let served = workers.get_mut(&index).map(|worker| worker.serve(index, keys, events));
            if let Some(Err(_)) = served {
                end(&mut workers, index, events);
            }
        }
    }
    0
}

fn end(workers: &mut BTreeMap<u32, Worker>, index: u32, events: &mut Loop) {
    if let Some(worker) = workers.remove(&index) {
        events.remove(&worker.socket);
    }
}

/// Takes what the broker sends: streams to workers, and the log file when it was opened again. Fails when the broker is gone.
fn hear(
    control: &Socket,
    workers: &mut BTreeMap<u32, Worker>,
    last: &mut u32,
    events: &mut Loop,
) -> io::Result<()> {
    loop {
        // One byte comes with each descriptor, and says what it is.
        let mut what = [0];
        let received = match Channel::from(control.as_fd()).receive(&mut what) {
            Ok(received) if received.length == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(received) => received,
            Err(error) if os::would_block(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let Some(fd) = received.fd else {
            continue;
        };
        if what == [LOG_FILE] {
            log::replace_file(fd);
            continue;
        }
        let socket = Socket::from(fd);
        while workers.contains_key(last) {
            *last = (*last + 1) % Token::INDICES;
        }
        events.register(&socket, Token::new(WORKER, *last), Interest::READ);
        let (frames, output, budget) = (Frames::default(), Vec::new(), MOST_PER_SECOND);
        let (since, remarked) = (events.now(), false);
        let worker = Worker { socket, frames, output, budget, since, remarked };
        workers.insert(*last, worker);
    }
}

impl Worker {
    fn event(&mut self, event: Event) -> io::Result<()> {
        if !event.readable && !event.hangup {
            return Ok(());
        }
        let mut data = [0; 16 * 1024];
        while self.wants_more() {
            match self.socket.read(&mut data) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.frames.push(&data[..count]),
                Err(error) if os::would_block(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn wants_more(&self) -> bool {
        self.frames.len() < MOST_REQUEST + 4 && self.output.len() < MOST_UNREAD
    }

    /// True if there is something to sign at once.
    fn may_sign(&self, now: u64) -> bool {
        let fresh = now.saturating_sub(self.since) >= 1000;
        self.frames.has_next() && self.output.len() < MOST_UNREAD && (self.budget > 0 || fresh)
    }

    /// Signs a few requests, and sends the answers.
    fn serve(&mut self, index: u32, keys: &Keys, events: &mut Loop) -> io::Result<()> {
        let malformed = || io::Error::from(io::ErrorKind::InvalidData);
        if events.now().saturating_sub(self.since) >= 1000 {
            (self.budget, self.since) = (MOST_PER_SECOND, events.now());
        }
        for _ in 0..BATCH {
            if !self.may_sign(events.now()) {
                break;
            }
            let frame = self.frames.next(MOST_REQUEST).map_err(|_| malformed())?;
            let request = decode_request(frame.ok_or_else(malformed)?).ok_or_else(malformed)?;
            self.budget -= 1;
            let made = keys.sign(&request);
            if let Err(refusal) = &made {
                if !std::mem::replace(&mut self.remarked, true) {
                    log::braked(log::Kind::Tls, || text(*refusal).to_owned());
                }
            }
            encode_answer(request.number, &made.unwrap_or_default(), &mut self.output);
        }
        if self.budget == 0 && self.frames.has_next() {
            events.arm(Token::new(REFILL, index), self.since + 1000);
        }
        self.flush(events)
    }

    fn flush(&mut self, events: &mut Loop) -> io::Result<()> {
        let mut room = Interest::empty();
        while !self.output.is_empty() {
            match self.socket.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if os::would_block(&error) => {
                    room = Interest::in_room(&error);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let read = if self.wants_more() { Interest::READ } else { Interest::empty() };
        events.set_interest(&self.socket, read | room);
        Ok(())
    }
}

fn text(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Unknown => "a worker has asked for a signature with an unknown key",
        Refusal::NotTls => "a worker has asked for a signature that no TLS handshake needs",
        Refusal::Unfit => "a worker has asked for a signature that its key cannot make",
    }
}
