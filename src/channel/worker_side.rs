//! The worker's side of a channel: what the broker may send, when, and what it is told in which
//! order.
//!
//! | message | Starting | Asking | Told | Ready, Leaving |
//! | --- | --- | --- | --- | --- |
//! | ACCEPT, CONNECTIONS, UDPDATA | not read | wait | not read | served |
//! | MAY_DIE | not read | unneeded, or waits behind connections | not read | leaves |
//! | ZONE, BRIEFING, ENDPOINT, SECRETS | not read | the answer | not read | ignored |
//! | SIGNER | not read | the answer | not read | taken |
//! | CALLER | not read | waits | not read | taken |
//! | LOG | not read | taken | not read | taken |
//! | KEEPALIVE, unknown | not read | ignored | not read | ignored |
//!
//! Unread messages stay in the channel. A connection that comes early waits until the worker is
//! ready; none is dropped, as the broker has counted it. The worker says HELLO, then MAX or
//! BAD_CFG, then DONE and KEEPALIVE, and DYING once, after the DONEs that were due before it.
//!
//! No I/O; the caller has the clock. Descriptors are of type `F`.

use super::protocol::{
    add_secrets, left_message, Abilities, Accept, BadMessage, Caller, Errand, FromBroker,
    FromWorker, Purpose, LEFT_MOST,
};
use super::Peer;
use crate::channel::local::Prepared;
use crate::os::secret::wipe;
use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;

/// How long the broker may take for each part of its answer to HELLO, in milliseconds.
pub const ANSWER_PATIENCE: u64 = 10_000;
/// How long to wait for the broker to read DYING, in milliseconds; and how long for our own broker
/// to answer it with MAY_DIE, where a channel cannot be closed before it is read to the end.
const FAREWELL_PATIENCE: u64 = 1000;
const MAY_DIE_PATIENCE: u64 = 10_000;

/// What the broker has sent for us alone: wiped when dropped.
#[derive(Default)]
pub struct Secrets(Vec<u8>);

impl<F> Default for Answer<F> {
    fn default() -> Answer<F> {
        Answer {
            secrets: Secrets::default(),
            zone: None,
            signer: None,
            briefing: None,
            endpoints: Vec::new(),
        }
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} secret bytes", self.0.len())
    }
}

impl Deref for Secrets {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// The answer to HELLO.
#[derive(Debug)]
pub struct Answer<F> {
    /// As the broker has encoded them.
    pub secrets: Secrets,
    /// The shared zone and our slot in it, if we may take part.
    pub zone: Option<(F, u32)>,
    /// A stream to the process with the private keys, if there is one.
    pub signer: Option<F>,
    /// For the monitor: what it has to know of the broker.
    pub briefing: Option<F>,
    /// For the monitor: the sockets on which it answers.
    pub endpoints: Vec<(Purpose, F)>,
}

/// What the broker wants.
#[derive(Debug)]
pub enum Order<F> {
    /// Nothing to do; descriptors that came along are to be closed.
    Nothing,
    /// Serve connections, whose descriptors came along.
    Serve {
        /// What they have in common.
        accept: Accept,
        /// How many the broker has counted, whether or not all descriptors have arrived.
        count: usize,
        /// What the sockets are like.
        prepared: Prepared,
    },
    /// A datagram, which counts as a connection.
    Datagram,
    /// There is a process with the private keys, and its stream came along.
    Signer,
    /// The reopened log file came along.
    Log,
    /// A client of the control socket came along.
    Caller(Caller),
    /// Let the sessions end.
    Drain,
    /// The answer to HELLO.
    Told(Answer<F>),
    /// Exit at once: the worker is not needed.
    Unneeded,
    /// Log that this is not a message.
    Remark(BadMessage),
}

/// Early messages with their descriptors, in their order.
pub type Early<F> = VecDeque<(FromBroker, VecDeque<F>)>;

#[derive(Debug)]
enum State<F> {
    /// Nothing was said yet.
    Starting,
    /// HELLO was sent.
    Asking { answer: Answer<F>, deadline: u64, early: Early<F> },
    /// The worker has what it needs, and is starting.
    Told { early: Early<F> },
    /// Connections are served.
    Ready,
    /// DYING has been due since this time. The broker sends connections until it reads it, and
    /// those are served.
    Announced { since: u64 },
    /// The broker sends no more connections, but some may still be in the channel.
    Dismissed,
    /// The channel takes no more messages, and has been read to the end.
    Closed,
}

/// Whether the process may exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Not yet: connections may come.
    Stay,
    /// Close the channel for the broker, where the system can do that, and read it to the end. If
    /// that brings no session, the process may exit.
    Close,
    /// Yes: no more connections can come.
    Now,
}

/// What the broker has to be told.
#[derive(Debug, Default)]
struct Due {
    max: Option<i32>,
    /// Sessions that have ended.
    ended: usize,
    /// The broker's numbers of clients whose sessions have ended, one for each session.
    left: Vec<u32>,
    keep_alive: bool,
    dying: bool,
    /// In their order.
    errands: VecDeque<Errand>,
}

/// The worker's side of the channel.
#[derive(Debug)]
pub struct WorkerSide<F> {
    peer: Peer,
    state: State<F>,
    due: Due,
    /// The broker is gone: nothing more is sent.
    cut: bool,
    /// The channel can be closed for the broker and still be read to the end.
    can_close: bool,
}

impl<F> WorkerSide<F> {
    /// For a worker that starts. `peer` is what its environment says about the broker.
    pub fn new(peer: Peer, can_close: bool) -> WorkerSide<F> {
        let (state, due) = (State::Starting, Due::default());
        WorkerSide { peer, state, due, cut: false, can_close }
    }

    /// Whether the broker is our own program; certain once it has answered HELLO.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// What to ask at the start; `None` if the broker would not answer.
    pub fn ask(&mut self, now: u64) -> Option<FromWorker> {
        if !matches!(self.state, State::Starting) {
            return None;
        }
        let early = VecDeque::new();
        if self.peer == Peer::Foreign {
            self.state = State::Told { early };
            return None;
        }
        let deadline = now + ANSWER_PATIENCE;
        self.state = State::Asking { answer: Answer::default(), deadline, early };
        Some(FromWorker::Hello(Abilities::ALL))
    }

    /// When to stop waiting for the answer to HELLO.
    pub fn answer_due(&self) -> Option<u64> {
        match self.state {
            State::Asking { deadline, .. } => Some(deadline),
            _ => None,
        }
    }

    /// HELLO was not answered: the broker is another program after all.
    pub fn unanswered(&mut self) {
        if let State::Asking { early, .. } = &mut self.state {
            self.state = State::Told { early: std::mem::take(early) };
            self.peer = Peer::Foreign;
        }
    }

    /// How many connections wait until the worker is ready.
    pub fn waiting(&self) -> usize {
        match &self.state {
            State::Asking { early, .. } | State::Told { early } => {
                early.iter().map(|(_, sockets)| sockets.len()).sum()
            }
            _ => 0,
        }
    }

    /// The worker cannot start. Returns BAD_CFG if that may still be said.
    pub fn cannot_start(&self) -> Option<FromWorker> {
        let early =
            matches!(self.state, State::Starting | State::Asking { .. } | State::Told { .. });
        early.then_some(FromWorker::BadConfiguration)
    }

    /// The worker is ready for at most `max` connections. Returns the messages that came early;
    /// pass each to [`take`](Self::take).
    pub fn ready(&mut self, max: i32) -> Early<F> {
        self.unanswered();
        let State::Told { early } = &mut self.state else {
            return VecDeque::new();
        };
        let early = std::mem::take(early);
        self.state = State::Ready;
        self.due.max = Some(max);
        early
    }

    /// The broker has sent a message. Its descriptors are in `sockets`; those that are not taken
    /// stay there.
    pub fn hear(&mut self, data: &[u8], sockets: &mut VecDeque<F>, now: u64) -> Order<F> {
        let message = FromBroker::decode(data);
        let State::Asking { answer, deadline, early } = &mut self.state else {
            return match message {
                Ok(message) => self.take(message),
                Err(bad) => Order::Remark(bad),
            };
        };
        match (add_secrets(data, &mut answer.secrets.0), message) {
            (Some(false), _) => *deadline = now + ANSWER_PATIENCE,
            (Some(true), _) => {
                let answer = std::mem::take(answer);
                self.state = State::Told { early: std::mem::take(early) };
                return Order::Told(answer);
            }
            (None, Ok(FromBroker::Zone(slot))) => {
                answer.zone = sockets.pop_front().map(|fd| (fd, slot));
            }
            (None, Ok(FromBroker::Signer)) => answer.signer = sockets.pop_front(),
            (None, Ok(FromBroker::Briefing)) => answer.briefing = sockets.pop_front(),
            (None, Ok(FromBroker::Endpoint(purpose))) => {
                // There are few purposes, so few sockets.
                let known =
                    purpose.filter(|new| answer.endpoints.iter().all(|(old, _)| old != new));
                answer.endpoints.extend(known.zip(sockets.pop_front()));
            }
            (None, Ok(FromBroker::Log)) => return Order::Log,
            (None, Ok(FromBroker::MayDie)) if early.is_empty() => return Order::Unneeded,
            (None, Ok(FromBroker::Other(_))) => {}
            (None, Ok(message)) => early.push_back((message, std::mem::take(sockets))),
            (None, Err(bad)) => return Order::Remark(bad),
        }
        Order::Nothing
    }

    /// Acts on a message to a worker that is ready.
    pub fn take(&mut self, message: FromBroker) -> Order<F> {
        match message {
            FromBroker::Accept(accept) => Order::Serve { accept, count: 1, prepared: Prepared::No },
            FromBroker::Connections(accept, count) => {
                Order::Serve { accept, count: count as usize, prepared: Prepared::Yes }
            }
            FromBroker::Datagram => Order::Datagram,
            FromBroker::MayDie => self.dismissed(),
            FromBroker::Signer => Order::Signer,
            FromBroker::Log => Order::Log,
            FromBroker::Caller(caller) => Order::Caller(caller),
            FromBroker::Zone(_)
            | FromBroker::Briefing
            | FromBroker::Endpoint(_)
            | FromBroker::Other(_) => Order::Nothing,
        }
    }

    fn dismissed(&mut self) -> Order<F> {
        match self.state {
            State::Closed => Order::Nothing,
            State::Announced { .. } | State::Dismissed => {
                self.state = State::Dismissed;
                Order::Nothing
            }
            _ => {
                self.state = State::Dismissed;
                Order::Drain
            }
        }
    }

    /// The worker wants no more connections: DYING is due. False if it is leaving already.
    pub fn leave(&mut self, now: u64) -> bool {
        let stays = !self.is_leaving();
        if stays {
            self.state = State::Announced { since: now };
            self.due.dying = true;
        }
        stays
    }

    /// Sending or receiving has failed: the broker is gone. Returns what to do about that.
    pub fn lost(&mut self) -> Order<F> {
        self.cut = true;
        self.dismissed()
    }

    /// True if the broker is gone.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// True if no more connections should come.
    pub fn is_leaving(&self) -> bool {
        matches!(self.state, State::Announced { .. } | State::Dismissed | State::Closed)
    }

    /// True if DYING is due or sent, and the broker has not answered.
    pub fn awaits_farewell(&self) -> bool {
        matches!(self.state, State::Announced { .. })
    }

    /// True if the channel need not be read again.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Sessions have ended, or connections could not be served.
    pub fn ended(&mut self, count: usize) {
        self.due.ended += count;
    }

    /// A session has ended whose client the broker has numbered.
    #[inline]
    pub fn left(&mut self, client: u32) {
        if client != 0 {
            self.due.left.push(client);
        }
    }

    /// True if LEFT is due.
    #[inline]
    pub fn has_left(&self) -> bool {
        !self.due.left.is_empty() && !self.cut
    }

    /// The next LEFT message, which goes before others.
    pub fn left_due(&self) -> Option<Vec<u8>> {
        (!self.cut && !self.due.left.is_empty()).then(|| left_message(&self.due.left))
    }

    /// The LEFT message was sent.
    pub fn said_left(&mut self) {
        let count = self.due.left.len().min(LEFT_MOST);
        self.due.left.drain(..count);
        if self.due.left.is_empty() {
            self.due.left = Vec::new();
        }
    }

    /// Show the broker that we are there; if sending fails, the broker is gone.
    pub fn keep_alive(&mut self) {
        self.due.keep_alive |= !self.is_leaving();
    }

    /// The broker has to do something for a caller.
    pub fn send_on(&mut self, errand: Errand) {
        self.due.errands.push_back(errand);
    }

    /// True if there is something to send.
    #[inline]
    pub fn is_due(&self) -> bool {
        let Due { max, ended, left, keep_alive, dying, errands } = &self.due;
        // Asked each turn: without branches.
        let counts = *ended | left.len() | errands.len();
        ((counts != 0) | *keep_alive | *dying | max.is_some()) & !self.cut
    }

    /// What to send next.
    pub fn due(&self) -> Option<FromWorker> {
        if self.cut {
            return None;
        }
        let Due { max, ended, keep_alive, dying, ref errands, .. } = self.due;
        if let Some(max) = max {
            Some(FromWorker::Max(max))
        } else if let Some(&errand) = errands.front() {
            Some(FromWorker::Errand(errand))
        } else if ended > 0 {
            Some(FromWorker::Done(u32::try_from(ended).unwrap_or(u32::MAX)))
        } else if dying {
            Some(FromWorker::Dying)
        } else {
            keep_alive.then_some(FromWorker::KeepAlive)
        }
    }

    /// The message was sent.
    pub fn said(&mut self, message: FromWorker) {
        // Any message shows that we are there.
        self.due.keep_alive = false;
        match message {
            FromWorker::Max(_) => self.due.max = None,
            FromWorker::Done(count) => self.due.ended -= (count as usize).min(self.due.ended),
            FromWorker::Dying => self.due.dying = false,
            FromWorker::Errand(_) => drop(self.due.errands.pop_front()),
            _ => {}
        }
    }

    /// Whether the process may exit, if it has no sessions and has read its channel to the end.
    /// `unread` tells how much of what we sent the broker has not read.
    pub fn exit(&self, unread: impl FnOnce() -> usize, now: u64) -> Exit {
        match self.state {
            State::Closed => Exit::Now,
            State::Dismissed => Exit::Close,
            State::Announced { since } => {
                // A broker that has read our DYING sends nothing more, whatever program it is.
                let heard = self.can_close && !self.due.dying && unread() == 0;
                if heard || now.saturating_sub(since) >= self.patience() {
                    Exit::Close
                } else {
                    Exit::Stay
                }
            }
            _ => Exit::Stay,
        }
    }

    fn patience(&self) -> u64 {
        match self.peer {
            Peer::Ours if !self.can_close => MAY_DIE_PATIENCE,
            _ => FAREWELL_PATIENCE,
        }
    }

    /// The channel takes nothing more.
    pub fn closed(&mut self) {
        if self.is_leaving() {
            self.state = State::Closed;
        }
    }
}
