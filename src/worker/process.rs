//! The worker process: the engine, and its link to the broker.

use super::direction::OTHER_DESCRIPTORS;
use super::engine::{Engine, WORKER_KINDS};
use crate::channel::link::Link;
use crate::channel::local::{LocalWorker, Prepared, MONITOR_KINDS};
use crate::channel::protocol::Accept;
use crate::channel::tether::{Pull, Tether};
use crate::channel::worker_side::{Exit, Order};
use crate::event::{Event, Loop, TimerId, Token};
use crate::os::title::{State, Title};
use crate::os::{self, channel, log, process, Socket};
use std::io;
use std::os::fd::OwnedFd;

/// The kind of the tokens of [`Tether`].
const TETHER: u8 = WORKER_KINDS;
const _: () = assert!(TETHER < MONITOR_KINDS);

/// How often a leaving worker checks whether the broker has read that it leaves, in milliseconds.
const FAREWELL_STEP: u64 = 20;
/// Messages taken per turn.
const BATCH: usize = 16;

/// The worker process.
pub struct Worker {
    title: Title,
    engine: Engine,
    link: Link,
    tether: Tether,
    retire_limit: usize,
    accepted: usize,
    descriptor_trouble: bool,
    datagram_trouble: bool,
    title_of: Option<(usize, bool)>,
}

impl Worker {
    /// Gets ready to serve.
    pub fn start(
        name: &str,
        engine: Engine,
        retire_limit: u32,
        link: Link,
        events: &mut Loop,
    ) -> io::Result<Worker> {
        let tether = Tether::new(TETHER, &link, events)?;
        Ok(Worker {
            title: Title::new(name),
            engine,
            link,
            tether,
            retire_limit: retire_limit as usize,
            accepted: 0,
            descriptor_trouble: false,
            datagram_trouble: false,
            title_of: None,
        })
    }

    /// Tells the broker to send connections, as many as fit into `descriptors`, and serves those
    /// that came before.
    pub fn begin(&mut self, descriptors: u64, events: &mut Loop) {
        let max = descriptors.saturating_sub(OTHER_DESCRIPTORS) / 2;
        let early = self.link.ready(i32::try_from(max).unwrap_or(i32::MAX));
        self.flush(events);
        self.refresh_title();
        for (message, sockets) in early {
            let order = self.link.recall(message, sockets);
            self.obey(order, events);
        }
    }

    /// There is a process with the private keys at the other end of this stream.
    pub fn set_signer(&mut self, stream: Socket, events: &mut Loop) {
        self.engine.set_signer(events, stream);
    }

    /// Serves until the process is no longer needed; returns its exit status.
    pub fn run(&mut self, events: &mut Loop) -> i32 {
        loop {
            if let Some(status) = self.turn(events) {
                return status;
            }
        }
    }

    /// Waits for events, and handles them. Returns the exit status once the process is no longer
    /// needed.
    #[inline]
    pub fn turn(&mut self, events: &mut Loop) -> Option<i32> {
        let looks = self.link.awaits_farewell() && self.engine.open() == 0;
        if let Err(error) = events.wait(looks.then_some(FAREWELL_STEP)) {
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
        if self.link.is_leaving() && self.engine.open() == 0 && self.may_exit(events) {
            self.report(events);
            self.engine.end_modules(events);
            log::message("Terminating, no longer needed.");
            return Some(0);
        }
        None
    }

    /// The engine, which has the sessions.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    fn event(&mut self, event: Event, events: &mut Loop) {
        match event.token.kind() {
            TETHER => match self.tether.event(event, &mut self.link, events) {
                Pull::Messages => {
                    self.read_channel(BATCH, events);
                }
                Pull::Leave if !self.link.is_leaving() => {
                    log::message("SIGHUP: No longer accepting new connections.");
                    self.leave(events);
                }
                Pull::Leave | Pull::None => {}
            },
            _ => self.engine.event(events, event),
        }
    }

    fn timer(&mut self, timer: TimerId, token: Token, events: &mut Loop) {
        match token.kind() {
            TETHER => self.tether.expired(&mut self.link, events),
            _ => self.engine.timer(events, timer, token),
        }
    }

    /// Tells the broker that this worker takes no more connections.
    fn leave(&mut self, events: &mut Loop) {
        if self.link.leave(events.now()) {
            self.engine.drain(events);
            self.report(events);
        }
    }

    /// Handles messages of the broker, at most `limit`. True if there were no more.
    fn read_channel(&mut self, limit: usize, events: &mut Loop) -> bool {
        for _ in 0..limit {
            let order = match self.link.receive(events.now()) {
                Ok(order) => order,
                Err(error) if os::would_block(&error) => return true,
                Err(error) => {
                    let order = self.link.failed("scm_recv_msg", &error);
                    self.obey(order, events);
                    self.link.watch(events);
                    return true;
                }
            };
            self.obey(order, events);
        }
        false
    }

    /// Carries out an order of the broker.
    fn obey(&mut self, order: Order<OwnedFd>, events: &mut Loop) {
        match order {
            Order::Serve { accept, count, prepared } => {
                for _ in 0..count.min(channel::DESCRIPTORS) {
                    let client = self.link.next_socket().map(Socket::from);
                    self.accept(accept, client, prepared, events);
                }
            }
            Order::Datagram => {
                if !std::mem::replace(&mut self.datagram_trouble, true) {
                    log::braked(log::Kind::Datagram, || {
                        "datagrams are not relayed; use a TCP listener".to_owned()
                    });
                }
                self.link.ended(1);
            }
            Order::Signer => {
                if let Some(socket) = self.link.next_socket() {
                    self.engine.set_signer(events, socket.into());
                }
            }
            Order::Drain => self.engine.drain(events),
            // Nothing to do: most of these are meant for a worker that is not ready yet.
            Order::Caller(_)
            | Order::Log
            | Order::Nothing
            | Order::Remark(_)
            | Order::Told(_)
            | Order::Unneeded => {}
        }
    }

    fn accept(
        &mut self,
        accept: Accept,
        client: Option<Socket>,
        prepared: Prepared,
        events: &mut Loop,
    ) {
        let Some(client) = client else {
            // Descriptors have run out, or the broker has sent none. Logged once, until it works
            // again.
            if !std::mem::replace(&mut self.descriptor_trouble, true) {
                log::braked(log::Kind::Session, || {
                    "scm_recv_msg: a connection came without its descriptor".to_owned()
                });
            }
            self.link.ended(1);
            self.link.left(accept.client);
            return;
        };
        self.descriptor_trouble = false;
        self.engine.accept(events, client, &accept, prepared);
        self.accepted += 1;
        if self.accepted == self.retire_limit && !self.link.is_leaving() {
            log::message("Retire limit reached. Told parent about this.");
            self.leave(events);
        }
    }

    /// True if the channel holds no connection, and none can come. Connections found there are
    /// served.
    fn may_exit(&mut self, events: &mut Loop) -> bool {
        if !self.is_idle(events) {
            return false;
        }
        match self.link.exit(events.now()) {
            Exit::Stay => false,
            Exit::Now => true,
            Exit::Close => {
                self.link.close(events);
                self.is_idle(events)
            }
        }
    }

    /// Reads the channel empty, and serves what was in it. True if no session is open after that.
    fn is_idle(&mut self, events: &mut Loop) -> bool {
        self.read_channel(usize::MAX, events) && self.engine.open() == 0
    }

    /// Tells the broker what it has not been told yet.
    #[inline]
    fn report(&mut self, events: &mut Loop) {
        let ended = self.engine.turn(events);
        if ended > 0 || self.link.is_due() {
            self.tell(ended, events);
        }
    }

    /// Says that so many sessions have ended, and whatever else is due.
    #[inline(never)]
    fn tell(&mut self, ended: usize, events: &mut Loop) {
        self.link.ended(ended);
        if self.engine.has_left() {
            self.engine.take_left().into_iter().for_each(|client| self.link.left(client));
        }
        self.flush(events);
    }

    /// Says what is due. Most turns have nothing to say.
    #[inline]
    fn flush(&mut self, events: &mut Loop) {
        if self.link.is_due() {
            self.send_due(events);
        }
    }

    #[inline(never)]
    fn send_due(&mut self, events: &mut Loop) {
        let order = self.link.flush();
        self.obey(order, events);
        self.link.watch(events);
    }

    #[inline]
    fn refresh_title(&mut self) {
        let now = (self.engine.open(), self.link.is_leaving());
        if self.title_of != Some(now) {
            self.show_title(now);
        }
    }

    #[inline(never)]
    fn show_title(&mut self, now: (usize, bool)) {
        self.title_of = Some(now);
        self.title.connections(now.0);
        if now.1 {
            self.title.state(State::Leaving);
        }
        self.title.show();
    }
}

/// The engine inside a broker (single-process mode).
impl LocalWorker for Engine {
    fn accept(&mut self, events: &mut Loop, socket: Socket, accept: &Accept) {
        Engine::accept(self, events, socket, accept, Prepared::Yes);
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

    fn left(&mut self) -> Option<Vec<u32>> {
        Some(self.take_left())
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
