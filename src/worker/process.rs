//! The worker process: the engine, and the channel to the broker.

use super::engine::{Engine, WORKER_KINDS};
use crate::channel::local::LocalWorker;
use crate::channel::protocol::{Accept, FromBroker, FromWorker, RECEIVE};
use crate::event::{Event, Interest, Loop, TimerId, Token};
use crate::os::process;
use crate::os::signals::{Arrived, Signal, Signals};
use crate::os::title::{Title, LEFT};
use crate::os::{self, channel, log, socket};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

const SIGNALS: u8 = WORKER_KINDS;
const CHANNEL: u8 = WORKER_KINDS + 1;
const KEEPALIVE: u8 = WORKER_KINDS + 2;
const _: () = assert!(KEEPALIVE < Token::KINDS);

/// How often the broker is told that we are there, which is how its end is noticed.
const KEEPALIVE_PERIOD: u64 = 60_000;
/// A broker that does not read DYING for this long is not waited for; nor one of ours, which
/// answers it, for that long where the channel cannot be closed before it is read to the end.
const FAREWELL_PATIENCE: u64 = 1000;
const ANSWER_PATIENCE: u64 = 10_000;
/// The channel can be closed for the broker, and what it has sent be read to the end.
const CAN_CLOSE: bool = channel::CAN_END_RECEIVING;
/// Messages taken per turn.
const BATCH: usize = 16;
/// Sent by the kernel when the broker dies, where it can.
const PARENT_DEATH: Signal = Signal::SIGUSR2;

/// How far the worker is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    No,
    /// DYING was sent at this time; what the broker sends before it reads that is still ours.
    Announced(u64),
    /// No connection should come any more, but for those in the channel already.
    Final,
    /// The channel takes no more, and what was there has been taken.
    Closed,
}

/// What came while the worker was starting, in its order, each with its descriptors: a broker that
/// does not know its worker gives it connections at once.
#[derive(Debug, Default)]
pub struct Early(VecDeque<(FromBroker, VecDeque<OwnedFd>)>);

impl Early {
    /// Keeps what is to be done when the worker has come up. Other messages are not for it.
    pub fn keep(&mut self, message: FromBroker, sockets: VecDeque<OwnedFd>) {
        match message {
            FromBroker::Accept(_)
            | FromBroker::Connections(..)
            | FromBroker::Datagram
            | FromBroker::MayDie => self.0.push_back((message, sockets)),
            FromBroker::Ledger(_) | FromBroker::Other(_) => {}
        }
    }

    /// True if there is a connection.
    pub fn has_connections(&self) -> bool {
        self.0.iter().any(|(message, _)| *message != FromBroker::MayDie)
    }
}

impl Drop for Early {
    fn drop(&mut self) {
        let lost: usize = self.0.iter().map(|(_, sockets)| sockets.len()).sum();
        if lost > 0 {
            log::message(&format!("connections closed, as the worker does not start: {lost}"));
        }
    }
}

/// The worker process.
pub struct Worker {
    title: Title,
    engine: Engine,
    channel: OwnedFd,
    /// Descriptors of the message that is being read.
    sockets: VecDeque<OwnedFd>,
    signals: Signals,
    leaving: Leaving,
    /// How long the broker may take to hear that we leave, in milliseconds.
    patience: u64,
    /// Ended sessions that the broker has not been told of.
    unreported: usize,
    /// How it is found out that the channel, which was full, takes more.
    room: Interest,
    announcement_due: bool,
    broker_gone: bool,
    retire_limit: usize,
    accepted: usize,
    descriptor_trouble: bool,
    datagram_trouble: bool,
    title_of: Option<(usize, bool)>,
}

impl Worker {
    /// Takes over the channel.
    pub fn start(
        name: &str,
        engine: Engine,
        retire_limit: u32,
        channel: OwnedFd,
        own_broker: bool,
        events: &mut Loop,
    ) -> io::Result<Worker> {
        let signals = Signals::install(&[Signal::SIGTERM, Signal::SIGHUP, PARENT_DEATH])?;
        // Nobody waits for children here; they must not stay as zombies.
        os::signals::ignore(Signal::SIGCHLD)?;
        process::signal_on_parent_death(PARENT_DEATH);
        events.register(signals.descriptor(), Token::new(SIGNALS, 0), Interest::READ);
        events.register(&channel, Token::new(CHANNEL, 0), Interest::READ);
        events.arm(Token::new(KEEPALIVE, 0), events.now() + KEEPALIVE_PERIOD);
        Ok(Worker {
            title: Title::new(name),
            engine,
            channel,
            sockets: VecDeque::new(),
            signals,
            leaving: Leaving::No,
            patience: if own_broker && !CAN_CLOSE { ANSWER_PATIENCE } else { FAREWELL_PATIENCE },
            unreported: 0,
            room: Interest::WRITE,
            announcement_due: false,
            broker_gone: false,
            retire_limit: retire_limit as usize,
            accepted: 0,
            descriptor_trouble: false,
            datagram_trouble: false,
            title_of: None,
        })
    }

    /// Tells the broker that connections may come, and how many fit into `descriptors`.
    pub fn announce(&mut self, descriptors: u64) {
        let max = descriptors.saturating_sub(10) / 2;
        self.send(FromWorker::Max(i32::try_from(max).unwrap_or(i32::MAX)));
        self.refresh_title();
    }

    /// Takes what came before.
    pub fn begin(&mut self, mut early: Early, events: &mut Loop) {
        for (message, mut sockets) in std::mem::take(&mut early.0) {
            self.message(message, &mut sockets, events);
        }
    }

    /// Serves until the process is not needed any more; returns its exit status.
    pub fn run(&mut self, events: &mut Loop) -> i32 {
        loop {
            if let Some(status) = self.turn(events) {
                return status;
            }
        }
    }

    /// Waits for something to happen, and deals with it. The exit status, if the process is not
    /// needed any more.
    pub fn turn(&mut self, events: &mut Loop) -> Option<i32> {
        let limit = match self.leaving {
            Leaving::Announced(_) if self.engine.open() == 0 => Some(20),
            _ => None,
        };
        if let Err(error) = events.wait(limit) {
            log::message(&format!("event loop: {}", os::reason(&error)));
            return Some(process::exit::SOFTWARE);
        }
        while let Some(event) = events.next_event() {
            self.event(event, events);
        }
        while let Some((timer, token)) = events.next_expired() {
            self.timer(timer, token, events);
        }
        self.report(events);
        self.refresh_title();
        if self.leaving != Leaving::No && self.engine.open() == 0 && self.may_exit(events) {
            self.report(events);
            self.engine.end_modules(events);
            log::message("Terminating, no longer needed.");
            return Some(0);
        }
        None
    }

    /// The sessions.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    fn event(&mut self, event: Event, events: &mut Loop) {
        match event.token.kind() {
            SIGNALS => {
                let arrived = self.signals.take();
                self.signal(arrived, events);
            }
            CHANNEL => {
                if event.readable || event.hangup {
                    self.read_channel(BATCH, events);
                }
            }
            _ => self.engine.event(events, event),
        }
    }

    fn timer(&mut self, timer: TimerId, token: Token, events: &mut Loop) {
        match token.kind() {
            KEEPALIVE => {
                if self.leaving == Leaving::No {
                    self.send(FromWorker::KeepAlive);
                    events.arm(token, events.now() + KEEPALIVE_PERIOD);
                }
            }
            _ => self.engine.timer(events, timer, token),
        }
        self.notice_broker(events);
    }

    fn signal(&mut self, arrived: Arrived, events: &mut Loop) {
        let leave = arrived.has(Signal::SIGTERM) || arrived.has(Signal::SIGHUP);
        if leave && self.leaving == Leaving::No {
            log::message("SIGHUP: No longer accepting new connections.");
            self.announce_end(events);
        }
        if arrived.has(PARENT_DEATH) && self.leaving == Leaving::No {
            self.send(FromWorker::KeepAlive);
            self.notice_broker(events);
        }
    }

    /// Tells the broker that this worker takes no more connections.
    fn announce_end(&mut self, events: &mut Loop) {
        self.leaving = Leaving::Announced(events.now());
        self.announcement_due = true;
        self.engine.drain(events);
        self.report(events);
    }

    /// A broker that is gone sends nothing any more.
    fn notice_broker(&mut self, events: &mut Loop) {
        if self.broker_gone && !matches!(self.leaving, Leaving::Final | Leaving::Closed) {
            if self.leaving == Leaving::No {
                self.engine.drain(events);
            }
            self.leaving = Leaving::Final;
        }
    }

    /// Takes messages of the broker, at most `limit`. True if there were no more.
    fn read_channel(&mut self, limit: usize, events: &mut Loop) -> bool {
        for _ in 0..limit {
            let mut data = [0; RECEIVE];
            let mut sockets = std::mem::take(&mut self.sockets);
            let keep = |fd| sockets.push_back(fd);
            let length = match channel::receive_with(self.channel.as_fd(), &mut data, keep) {
                Ok(length) => length,
                Err(error) if os::would_block(&error) => return true,
                Err(error) => {
                    self.channel_failed("scm_recv_msg", &error);
                    self.notice_broker(events);
                    return true;
                }
            };
            match FromBroker::decode(&data[..length.min(data.len())]) {
                Ok(message) => self.message(message, &mut sockets, events),
                Err(bad) => {
                    log::braked(log::Kind::Channel, || format!("scm_recv_msg: recvmsg: {bad}"));
                }
            }
            sockets.clear();
            self.sockets = sockets;
        }
        false
    }

    fn message(&mut self, message: FromBroker, sockets: &mut VecDeque<OwnedFd>, events: &mut Loop) {
        match message {
            FromBroker::Accept(accept) => self.accept(accept, sockets.pop_front(), false, events),
            FromBroker::Connections(accept, count) => {
                // The broker has counted them, whether they have arrived or not.
                for _ in 0..(count as usize).min(channel::DESCRIPTORS) {
                    self.accept(accept, sockets.pop_front(), true, events);
                }
            }
            FromBroker::MayDie => {
                if self.leaving == Leaving::No {
                    self.engine.drain(events);
                }
                if self.leaving != Leaving::Closed {
                    self.leaving = Leaving::Final;
                }
            }
            FromBroker::Datagram => {
                if !std::mem::replace(&mut self.datagram_trouble, true) {
                    log::braked(log::Kind::Datagram, || {
                        "datagrams are not relayed; use a TCP listener".to_owned()
                    });
                }
                self.unreported += 1;
            }
            // Not for us; a descriptor that came along is closed.
            FromBroker::Other(_) | FromBroker::Ledger(_) => {}
        }
    }

    fn accept(
        &mut self,
        accept: Accept,
        client: Option<OwnedFd>,
        prepared: bool,
        events: &mut Loop,
    ) {
        let Some(client) = client else {
            // Descriptors have run out, or the broker is wrong. Said once, until it works again.
            if !std::mem::replace(&mut self.descriptor_trouble, true) {
                log::braked(log::Kind::Session, || {
                    "scm_recv_msg: a connection came without its descriptor".to_owned()
                });
            }
            self.unreported += 1;
            return;
        };
        self.descriptor_trouble = false;
        self.engine.accept(events, client, &accept, prepared);
        self.accepted += 1;
        if self.accepted == self.retire_limit && self.leaving == Leaving::No {
            log::message("Retire limit reached. Told parent about this.");
            self.announce_end(events);
        }
    }

    /// True if no connection is, or can come, in the channel. What is there is taken.
    fn may_exit(&mut self, events: &mut Loop) -> bool {
        let empty = self.read_channel(usize::MAX, events);
        if !empty || self.engine.open() > 0 {
            return false;
        }
        match self.leaving {
            Leaving::No => false,
            Leaving::Closed => true,
            Leaving::Final => self.close_channel(events),
            Leaving::Announced(since) => {
                // The broker has read our DYING, and sends nothing after that, when the
                // message is no longer in its queue.
                let read = !self.announcement_due && socket::unsent_bytes(&self.channel) == 0;
                (read && CAN_CLOSE || events.now() - since >= self.patience)
                    && self.close_channel(events)
            }
        }
    }

    /// Takes what is left in the channel, which gets no more where the system can see to that: the
    /// broker then finds another worker, whatever it has read of ours. True if nothing was there.
    fn close_channel(&mut self, events: &mut Loop) -> bool {
        if channel::end_receiving(&self.channel) {
            self.leaving = Leaving::Closed;
        }
        self.read_channel(usize::MAX, events) && self.engine.open() == 0
    }

    /// Tells the broker what it has not been told yet.
    fn report(&mut self, events: &mut Loop) {
        self.unreported += self.engine.turn(events);
        if self.unreported > 0 && !self.broker_gone {
            let count = u32::try_from(self.unreported).unwrap_or(u32::MAX);
            if self.send(FromWorker::Done(count)) {
                self.unreported -= count as usize;
            }
        }
        if self.announcement_due && self.unreported == 0 && self.send(FromWorker::Dying) {
            self.announcement_due = false;
        }
        self.notice_broker(events);
        let due = !self.broker_gone && (self.unreported > 0 || self.announcement_due);
        let write = if due { self.room } else { Interest::empty() };
        let read = match self.leaving {
            // It would be ready for ever.
            Leaving::Closed => Interest::empty(),
            _ => Interest::READ,
        };
        events.set_interest(&self.channel, read | write);
    }

    /// Sends a message; false if the channel is full.
    fn send(&mut self, message: FromWorker) -> bool {
        match channel::send(self.channel.as_fd(), &message.encode(), None) {
            Ok(()) => true,
            Err(error) if channel::is_full(&error) => {
                self.room = Interest::in_room(&error);
                false
            }
            Err(error) => {
                self.channel_failed("scm_send_msg: sendmsg", &error);
                true
            }
        }
    }

    fn channel_failed(&mut self, call: &str, error: &io::Error) {
        if self.leaving == Leaving::No && !self.broker_gone {
            log::message(&format!("{call}: {}", os::reason(error)));
        }
        self.broker_gone = true;
    }

    fn refresh_title(&mut self) {
        let now = (self.engine.open(), self.leaving != Leaving::No);
        if self.title_of == Some(now) {
            return;
        }
        self.title_of = Some(now);
        self.title.connections(now.0);
        if now.1 {
            self.title.text(LEFT);
        }
        self.title.show();
    }
}

/// The engine inside a broker (single-process mode).
impl LocalWorker for Engine {
    fn accept(&mut self, events: &mut Loop, socket: OwnedFd, accept: &Accept) {
        Engine::accept(self, events, socket, accept, true);
    }

    fn event(&mut self, events: &mut Loop, event: Event) {
        Engine::event(self, events, event);
    }

    fn timer(&mut self, events: &mut Loop, timer: TimerId, token: Token) {
        Engine::timer(self, events, timer, token);
    }

    fn turn(&mut self, events: &mut Loop) -> usize {
        Engine::turn(self, events)
    }

    fn sessions(&self) -> usize {
        self.open()
    }

    fn drain(&mut self, events: &mut Loop) {
        Engine::drain(self, events);
    }

    fn end(&mut self, events: &mut Loop) {
        self.end_modules(events);
    }
}
