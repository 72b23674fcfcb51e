//! The worker's side of a channel: what the broker may send, when, and what it is told in which
//! order.
//!
//! | message | Starting | Asking | Told | Ready, Leaving |
//! | --- | --- | --- | --- | --- |
//! | ACCEPT, CONNECTIONS, UDPDATA | not read | wait | not read | served |
//! | MAY_DIE | not read | unneeded, or waits behind connections | not read | leaves |
//! | ZONE, SECRETS | not read | the answer | not read | ignored |
//! | KEEPALIVE, unknown | not read | ignored | not read | ignored |
//!
//! What is not read stays in the channel. A connection that comes early waits for the worker to be
//! ready; none is dropped, as the broker has counted it. Said are HELLO, then MAX or BAD_CFG, then
//! DONE and KEEPALIVE, and DYING once, behind the DONEs of its time.
//!
//! No input or output; the clock is the caller's. Descriptors are of type `F`.

use super::protocol::{add_secrets, Accept, BadMessage, FromBroker, FromWorker};
use super::Peer;
use crate::os::secret::wipe;
use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;

/// How long a broker may take for each part of its answer to HELLO, in milliseconds.
pub const ANSWER_PATIENCE: u64 = 10_000;
/// How long a broker is waited for that does not read DYING; and one of ours, which answers it, where
/// the channel cannot be closed before it is read to the end.
const FAREWELL_PATIENCE: u64 = 1000;
const MAY_DIE_PATIENCE: u64 = 10_000;

/// What the broker has sent only us: wiped when it is not needed any more.
#[derive(Default)]
pub struct Secrets(Vec<u8>);

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
    /// As encoded by the broker.
    pub secrets: Secrets,
    /// The zone that workers share, and our slot there, if we may take part.
    pub zone: Option<(F, u32)>,
}

/// What the broker wants.
#[derive(Debug)]
pub enum Order<F> {
    /// Nothing now. Descriptors that are left are not for us.
    Nothing,
    /// Serve so many connections, whose descriptors came along.
    Serve {
        /// What they have in common.
        accept: Accept,
        /// How many the broker has counted, whether all descriptors have arrived or not.
        count: usize,
        /// The sockets have the options that a worker sets.
        prepared: bool,
    },
    /// A datagram, counted as a connection.
    Datagram,
    /// Let sessions come to their end.
    Drain,
    /// This is the answer to HELLO.
    Told(Answer<F>),
    /// End at once: we are not needed.
    Unneeded,
    /// To be logged: it is no message.
    Remark(BadMessage),
}

/// Messages with their descriptors, in their order.
pub type Early<F> = VecDeque<(FromBroker, VecDeque<F>)>;

#[derive(Debug)]
enum State<F> {
    /// Nothing was said yet.
    Starting,
    /// HELLO was sent.
    Asking { secrets: Secrets, zone: Option<(F, u32)>, deadline: u64, early: Early<F> },
    /// It has what it needs, and is coming up.
    Told { early: Early<F> },
    /// Connections are served.
    Ready,
    /// DYING was sent, or is due, since this time. What the broker sends before it reads that is ours.
    Announced { since: u64 },
    /// The broker sends no connection any more, but some may be in the channel.
    Dismissed,
    /// The channel takes no more, and what was there has been read.
    Closed,
}

/// Whether the process may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Connections may come.
    Stay,
    /// The channel is to be closed for the broker, and read to its end; then it may, if that works.
    Close,
    /// None can come any more.
    Now,
}

/// What the broker is to be told.
#[derive(Debug, Default)]
struct Due {
    max: Option<i32>,
    /// Sessions that have ended.
    ended: usize,
    keep_alive: bool,
    dying: bool,
}

/// The worker's side of the channel.
#[derive(Debug)]
pub struct WorkerSide<F> {
    peer: Peer,
    state: State<F>,
    due: Due,
    /// The broker is gone: nothing is said any more.
    cut: bool,
    /// The channel can be closed for the broker, and what it has sent be read to the end.
    can_close: bool,
}

impl<F> WorkerSide<F> {
    /// Of a worker that starts. `peer` is what its environment says of the broker.
    pub fn new(peer: Peer, can_close: bool) -> WorkerSide<F> {
        let (state, due) = (State::Starting, Due::default());
        WorkerSide { peer, state, due, cut: false, can_close }
    }

    /// Whose broker it is; certain once the worker has been told.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// What is to be asked at the start. `None`: there is nobody who would answer.
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
        self.state = State::Asking { secrets: Secrets::default(), zone: None, deadline, early };
        Some(FromWorker::Hello(true))
    }

    /// Until when the answer to HELLO is waited for.
    pub fn answer_due(&self) -> Option<u64> {
        match self.state {
            State::Asking { deadline, .. } => Some(deadline),
            _ => None,
        }
    }

    /// There is no answer to HELLO: the broker is another program after all.
    pub fn unanswered(&mut self) {
        if let State::Asking { early, .. } = &mut self.state {
            self.state = State::Told { early: std::mem::take(early) };
            self.peer = Peer::Foreign;
        }
    }

    /// Connections that wait for the worker to come up.
    pub fn waiting(&self) -> usize {
        match &self.state {
            State::Asking { early, .. } | State::Told { early } => {
                early.iter().map(|(_, sockets)| sockets.len()).sum()
            }
            _ => 0,
        }
    }

    /// It cannot come up: BAD_CFG is still to be said, if it may be.
    pub fn cannot_start(&self) -> Option<FromWorker> {
        let early =
            matches!(self.state, State::Starting | State::Asking { .. } | State::Told { .. });
        early.then_some(FromWorker::BadConfiguration)
    }

    /// It has come up, for at most `max` connections. What came before that is to be gone through
    /// with [`take`](Self::take).
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

    /// A message of the broker, whose descriptors are in `sockets`; those it does not take are left.
    pub fn hear(&mut self, data: &[u8], sockets: &mut VecDeque<F>, now: u64) -> Order<F> {
        let message = FromBroker::decode(data);
        let State::Asking { secrets, zone, deadline, early } = &mut self.state else {
            return match message {
                Ok(message) => self.take(message),
                Err(bad) => Order::Remark(bad),
            };
        };
        match (add_secrets(data, &mut secrets.0), message) {
            (Some(false), _) => *deadline = now + ANSWER_PATIENCE,
            (Some(true), _) => {
                let answer = Answer { secrets: std::mem::take(secrets), zone: zone.take() };
                self.state = State::Told { early: std::mem::take(early) };
                return Order::Told(answer);
            }
            (None, Ok(FromBroker::Zone(slot))) => {
                *zone = sockets.pop_front().map(|fd| (fd, slot));
            }
            (None, Ok(FromBroker::MayDie)) if early.is_empty() => return Order::Unneeded,
            (None, Ok(FromBroker::Other(_))) => {}
            (None, Ok(message)) => early.push_back((message, std::mem::take(sockets))),
            (None, Err(bad)) => return Order::Remark(bad),
        }
        Order::Nothing
    }

    /// A message to a worker that is ready.
    pub fn take(&mut self, message: FromBroker) -> Order<F> {
        match message {
            FromBroker::Accept(accept) => Order::Serve { accept, count: 1, prepared: false },
            FromBroker::Connections(accept, count) => {
                Order::Serve { accept, count: count as usize, prepared: true }
            }
            FromBroker::Datagram => Order::Datagram,
            FromBroker::MayDie => self.dismissed(),
            FromBroker::Zone(_) | FromBroker::Other(_) => Order::Nothing,
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

    /// It wants no more connections: DYING is due. False if it is leaving already.
    pub fn leave(&mut self, now: u64) -> bool {
        let stays = !self.is_leaving();
        if stays {
            self.state = State::Announced { since: now };
            self.due.dying = true;
        }
        stays
    }

    /// Sending or receiving has failed: the broker is gone. The order is what follows from that.
    pub fn lost(&mut self) -> Order<F> {
        self.cut = true;
        self.dismissed()
    }

    /// The broker is gone.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// No connection should come any more.
    pub fn is_leaving(&self) -> bool {
        matches!(self.state, State::Announced { .. } | State::Dismissed | State::Closed)
    }

    /// DYING was said, and nothing was heard of it yet.
    pub fn awaits_farewell(&self) -> bool {
        matches!(self.state, State::Announced { .. })
    }

    /// The channel is not to be read any more.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Sessions have ended, or connections could not be served.
    pub fn ended(&mut self, count: usize) {
        self.due.ended += count;
    }

    /// The broker is to be shown that we are there, which is how its end is noticed.
    pub fn keep_alive(&mut self) {
        self.due.keep_alive |= !self.is_leaving();
    }

    /// True if there is something to be said.
    #[inline]
    pub fn is_due(&self) -> bool {
        let Due { max, ended, keep_alive, dying } = &self.due;
        (*ended > 0 || *keep_alive || *dying || max.is_some()) && !self.cut
    }

    /// What is to be said next.
    pub fn due(&self) -> Option<FromWorker> {
        if self.cut {
            return None;
        }
        let Due { max, ended, keep_alive, dying } = self.due;
        if let Some(max) = max {
            Some(FromWorker::Max(max))
        } else if ended > 0 {
            Some(FromWorker::Done(u32::try_from(ended).unwrap_or(u32::MAX)))
        } else if dying {
            Some(FromWorker::Dying)
        } else {
            keep_alive.then_some(FromWorker::KeepAlive)
        }
    }

    /// That was said.
    pub fn said(&mut self, message: FromWorker) {
        // Any message shows that we are there.
        self.due.keep_alive = false;
        match message {
            FromWorker::Max(_) => self.due.max = None,
            FromWorker::Done(count) => self.due.ended -= (count as usize).min(self.due.ended),
            FromWorker::Dying => self.due.dying = false,
            _ => {}
        }
    }

    /// Whether the process may end, of a worker without sessions that has read its channel to the end.
    /// `unread` is what the broker has not read of what was said.
    pub fn exit(&self, unread: impl FnOnce() -> usize, now: u64) -> Exit {
        match self.state {
            State::Closed => Exit::Now,
            State::Dismissed => Exit::Close,
            State::Announced { since } => {
                // Whoever has read our DYING sends nothing after that.
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
