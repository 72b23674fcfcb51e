//! Clients and remotes. Every byte that they send is known in advance, so that what they receive is
//! checked as it arrives. A stream begins with its sender's number, by which a remote identifies
//! the client.

use crate::kernel::{Id, Kernel, Waiting};
use crate::random::Random;
use std::net::{Ipv4Addr, SocketAddrV4};

/// How an end behaves once it has sent everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Half-closes, reads to end of file, closes.
    Polite,
    /// Reads to end of file, then half-closes.
    Patient,
    /// Resets the connection at some point.
    Rude,
}

/// One end of a relayed connection: the client's or the remote's.
pub struct End {
    pub number: u64,
    pub stream: Option<Id>,
    pub manner: Manner,
    /// How much it will send; `sent` is how much it has.
    pub total: usize,
    pub sent: usize,
    pub received: usize,
    header: [u8; 8],
    /// The number of the other end, once known.
    pub partner: Option<u64>,
    pub shut: bool,
    pub ended: bool,
    pub error: Option<i32>,
    /// A rude end resets after this many bytes.
    fuse: usize,
    /// When a rude client resets if it has received nothing.
    pub gives_up: Option<u64>,
    /// Sends urgent data now and then.
    urgent: bool,
    /// Reads and writes only once in so many turns.
    slowness: usize,
    /// Sends nothing until it has received something.
    second: bool,
    /// Sends nothing more, not even the end, until what it has sent has arrived.
    pub cautious: bool,
    pub connected: bool,
    /// When it had closed its end.
    pub left: Option<u64>,
    /// Its end of the connection.
    pub first: Id,
    /// Where a client is.
    pub ip: Ipv4Addr,
    /// Which remote a remote's end is of.
    pub remote: usize,
}

/// The byte at an offset of a sender's stream.
pub fn byte(number: u64, offset: usize) -> u8 {
    if offset < 8 {
        return number.to_le_bytes()[offset];
    }
    let mixed = (number << 24 ^ offset as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 40) as u8
}

impl End {
    pub fn new(number: u64, stream: Id, random: &mut Random, resets: bool) -> End {
        let sizes = [0, 8, 9, 100, 1000, 5000, 20_000, 60_000];
        let most = *random.pick(&sizes);
        let total = if most <= 9 { most } else { random.between(8, most) };
        let manner = match random.below(8) {
            0 if resets => Manner::Rude,
            1..=3 => Manner::Patient,
            _ => Manner::Polite,
        };
        End {
            number,
            stream: Some(stream),
            manner,
            total,
            sent: 0,
            received: 0,
            header: [0; 8],
            partner: None,
            shut: false,
            ended: false,
            error: None,
            fuse: random.below(total + 50),
            gives_up: None,
            urgent: random.once_in(3),
            slowness: *random.pick(&[0, 0, 0, 2, 5]),
            second: false,
            cautious: random.once_in(4),
            connected: false,
            left: None,
            first: stream,
            ip: Ipv4Addr::UNSPECIFIED,
            remote: 0,
        }
    }

    /// Makes a remote wait for the client to speak first. Never for both: they would wait for ever.
    pub fn speak_second(&mut self) {
        self.second = true;
        self.manner = if self.manner == Manner::Patient { Manner::Polite } else { self.manner };
    }

    pub fn is_done(&self) -> bool {
        self.stream.is_none()
    }

    /// Whether what it has of the other end's number may be this one's.
    pub fn may_know(&self, other: &End) -> bool {
        let known = self.received.min(8);
        known <= other.sent && self.header[..known] == other.number.to_le_bytes()[..known]
    }

    fn leave(&mut self, now: u64) {
        (self.stream, self.left) = (None, Some(now));
    }

    /// Takes one step; true if it achieved something. `arrived`: how much of what it has sent has
    /// arrived, for a cautious end.
    pub fn act(&mut self, kernel: &mut Kernel, random: &mut Random, arrived: usize) -> bool {
        let Some(id) = self.stream else {
            return false;
        };
        if self.slowness > 0 && !random.once_in(self.slowness) {
            return false;
        }
        let Some(stream) = kernel.stream(id) else {
            self.leave(kernel.now);
            return true;
        };
        if stream.state != Waiting::Done {
            return false;
        }
        self.connected |= !stream.broken;
        let gives_up = self.received == 0 && self.gives_up.is_some_and(|at| kernel.now >= at);
        let burnt = self.sent + self.received >= self.fuse;
        if self.manner == Manner::Rude && (burnt || gives_up) {
            kernel.note(|| format!("{} resets #{id}", self.number));
            kernel.reset(id);
            kernel.objects.remove(&id);
            self.leave(kernel.now);
            return true;
        }
        let reads_first = random.once_in(2);
        let moved = reads_first && self.read(id, kernel, random)
            || self.may_write(arrived) && self.write(id, kernel, random)
            || !reads_first && self.read(id, kernel, random);
        let over = self.error.is_some() || self.ended && self.shut;
        if over {
            kernel.note(|| format!("{} closes #{id}", self.number));
            kernel.end_stream(id);
            self.leave(kernel.now);
        }
        moved || over
    }

    fn may_write(&self, arrived: usize) -> bool {
        let speaks = !self.second || self.received > 0 || self.ended;
        let arrives = !self.cautious || arrived >= self.sent || self.ended;
        !self.shut && speaks && arrives
    }

    fn write(&mut self, id: Id, kernel: &mut Kernel, random: &mut Random) -> bool {
        if self.sent < self.total {
            let most = *random.pick(&[10, 1000, 6000, 60_000]);
            let count = random.between(1, (self.total - self.sent).min(most));
            // The number is sent in one piece, so that the receiver never sees a part of it.
            let count = if self.sent == 0 { count.max(8) } else { count };
            let data: Vec<u8> =
                (self.sent..self.sent + count).map(|at| byte(self.number, at)).collect();
            let urgent = self.urgent && self.sent > 0 && random.once_in(3);
            match kernel.send(id, &data, urgent) {
                Ok(count) => {
                    self.sent += count;
                    return true;
                }
                Err(libc::EAGAIN) => return false,
                Err(error) => {
                    // Data that arrived before the error is still to be read.
                    self.error.get_or_insert(error);
                    return true;
                }
            }
        }
        let waits = self.manner == Manner::Patient && !self.ended;
        if waits {
            return false;
        }
        if kernel.shut_writing(id).is_err() {
            let error = kernel.stream(id).and_then(|stream| stream.error.take());
            self.error.get_or_insert(error.unwrap_or(libc::ENOTCONN));
        } else {
            self.shut = true;
        }
        true
    }

    fn read(&mut self, id: Id, kernel: &mut Kernel, random: &mut Random) -> bool {
        if self.ended {
            return false;
        }
        let mut buffer = vec![0; *random.pick(&[100, 5000, 50_000])];
        match kernel.receive(id, &mut buffer, false) {
            Ok(0) => {
                self.ended = true;
                true
            }
            Ok(count) => {
                self.check(&buffer[..count], kernel);
                true
            }
            Err(libc::EAGAIN) => false,
            Err(error) => {
                self.error.get_or_insert(error);
                true
            }
        }
    }

    /// Requires every byte exactly once, in order.
    fn check(&mut self, data: &[u8], kernel: &mut Kernel) {
        for &got in data {
            if self.received < 8 {
                self.header[self.received] = got;
            } else {
                let number = u64::from_le_bytes(self.header);
                let expected = byte(number, self.received);
                if got != expected {
                    let (own, at) = (self.number, self.received);
                    kernel.violated(format!(
                        "{own} got {got:#x} as byte {at} of {number}, and not {expected:#x}"
                    ));
                    return;
                }
            }
            self.received += 1;
            if self.received == 8 {
                self.partner = Some(u64::from_le_bytes(self.header));
            }
        }
    }
}

/// A server that connections are relayed to.
pub struct Remote {
    pub address: SocketAddrV4,
    pub listener: Option<Id>,
    /// When it next goes away or comes back; `None` if it stays.
    pub flaps: Option<u64>,
    /// It says to probes that it is not well, though it serves clients.
    pub sick: bool,
}

/// What probes say, and the answer of a remote that is well.
pub const QUESTION: &[u8] = b"how are you?\n";
pub const WELL: &[u8] = b"well\n";
const ILL: &[u8] = b"ill\n";

/// A probe, as a remote sees it.
pub struct Visit {
    stream: Id,
    pub remote: usize,
    pub over: bool,
}

impl Visit {
    pub fn new(stream: Id, remote: usize) -> Visit {
        Visit { stream, remote, over: false }
    }

    /// Takes one step; true if it achieved something.
    pub fn act(&mut self, kernel: &mut Kernel, sick: bool) -> bool {
        match kernel.receive(self.stream, &mut [0; 100], false) {
            Err(libc::EAGAIN) => return false,
            Ok(1..) => {
                let answer = if sick { ILL } else { WELL };
                let _ = kernel.send(self.stream, answer, false);
            }
            _ => {
                kernel.end_stream(self.stream);
                self.over = true;
            }
        }
        true
    }
}
