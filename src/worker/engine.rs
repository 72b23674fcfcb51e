//! The life of all sessions of a worker, over the event loop.

use super::access::{self, Outcome};
use super::direction::{Buffers, Direction, Left, State, Stop};
use super::pump::{pump, say_goodbye, Ending, Pumped};
use super::session::{Access, End, Phase, Session};
use super::table::Table;
use crate::channel::local::LOCAL_KINDS;
use crate::channel::protocol::Accept;
use crate::config::relay::{Relay, Remote};
use crate::event::{Event, Interest, Loop, TimerId, Token};
use crate::mavis::queries::Queries;
use crate::os::address::Family;
use crate::os::pipe::Pipe;
use crate::os::{self, log, process, socket};
use crate::tls::context::Contexts;
use crate::upstream::balance::{Attempts, Balancer};
use crate::upstream::options;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;

/// Kinds of tokens; they follow the broker's, as both share a loop in single-process mode.
pub(super) mod kind {
    use super::LOCAL_KINDS;
    pub(in crate::worker) const CLIENT: u8 = LOCAL_KINDS;
    pub(in crate::worker) const PEER: u8 = LOCAL_KINDS + 1;
    pub(in crate::worker) const IDLE: u8 = LOCAL_KINDS + 2;
    pub(in crate::worker) const PHASE: u8 = LOCAL_KINDS + 3;
    pub(in crate::worker) const DRAIN: u8 = LOCAL_KINDS + 4;
}

/// The first kind that is not the engine's.
pub(super) const WORKER_KINDS: u8 = LOCAL_KINDS + 5;

/// A breaking session is looked at this often, in milliseconds: the system does not tell when
/// its send queue is empty. Rarer the longer nothing has happened.
const LINGER_STEP: u64 = 20;
const LINGER_LONGEST_STEP: u64 = 1000;
/// A breaking session whose receiver takes nothing for this long is reset at once.
const LINGER_LIMIT: u64 = 30_000;

/// A UNIX socket whose backlog is full is tried again this often, in milliseconds: unlike TCP the
/// system does not wait for us.
const BUSY_STEP: u64 = 20;
/// How long a session waits before it tries again what this host was short of, in milliseconds.
const HOST_STEP: u64 = 200;

/// All sessions, and what they share.
pub struct Engine {
    pub(super) settings: Relay,
    pub(super) balancer: Balancer,
    pub(super) sessions: Table<Session>,
    ended: usize,
    pub(super) buffers: Buffers,
    /// Running out of descriptors, and what else this host is short of, is reported once, until
    /// connections can be made again.
    descriptor_trouble: bool,
    host_trouble: BTreeSet<u32>,
    /// Before that, no session tries again what this host was short of.
    host_due: u64,
    pub(super) tls: Contexts,
    /// Connections of TLS listeners cannot be served: said once.
    pub(super) tls_unusable: bool,
    /// Modules that decide who may connect.
    pub(super) queries: Option<Queries>,
    /// The tags of remotes; their numbers are the indices.
    pub(super) tags: Vec<String>,
    /// The realms of listeners that were seen, NUL-padded; their numbers are the indices. The first
    /// is that of listeners without one.
    pub(super) realms: Vec<[u8; 16]>,
}

impl Engine {
    /// An engine without sessions. `queries`: whom to ask, if the settings want that.
    pub fn new(settings: Relay, tls: Contexts, queries: Option<Queries>) -> Engine {
        options::try_all(&settings.remotes);
        let weights: Vec<u32> = settings.remotes.iter().map(|remote| remote.weight).collect();
        let retry_delay = u64::from(settings.retry_delay) * 1000;
        let mut balancer = Balancer::new(&weights, settings.rebalance, retry_delay);
        balancer.set_ties(settings.ties);
        balancer.set_fail_count(settings.fail_count);
        let mut tags: Vec<String> = Vec::new();
        balancer.set_tags(settings.remotes.iter().map(|remote| {
            let tag = remote.tag.as_ref()?;
            let known = tags.iter().position(|known| known == tag);
            Some(known.unwrap_or_else(|| {
                tags.push(tag.clone());
                tags.len() - 1
            }) as u32)
        }));
        Engine {
            balancer,
            buffers: Buffers::new(settings.splice, process::descriptor_limit()),
            settings,
            sessions: Table::new(),
            ended: 0,
            descriptor_trouble: false,
            host_trouble: BTreeSet::new(),
            host_due: 0,
            tls,
            tls_unusable: false,
            queries,
            tags,
            realms: vec![[0; 16]],
        }
    }

    /// Open sessions.
    pub fn open(&self) -> usize {
        self.sessions.len()
    }

    /// Sessions that remotes are in use for, in this worker's own balancing. As many as there are
    /// open ones with a remote.
    pub fn remotes_in_use(&self) -> u64 {
        (0..self.settings.remotes.len()).map(|remote| self.balancer.used(remote)).sum()
    }

    /// The end of a turn of the loop: what modules have answered is dealt with. Returns how many
    /// sessions have ended since the last call.
    pub fn turn(&mut self, events: &mut Loop) -> usize {
        self.take_answers(events);
        std::mem::take(&mut self.ended)
    }

    /// Ends the modules that were asked.
    pub fn end_modules(&mut self, events: &mut Loop) {
        if let Some(queries) = self.queries.take() {
            queries.end(events);
        }
    }

    /// A connection that cannot be served counts as one that has ended.
    fn refuse(&mut self) {
        self.ended += 1;
    }

    /// Takes a connection: a session begins. `prepared`: it does not block, and has the options
    /// that our own broker's listeners hand down.
    pub fn accept(&mut self, events: &mut Loop, client: OwnedFd, accept: &Accept, prepared: bool) {
        let Ok(tls) = self.client_tls(accept) else {
            return self.refuse();
        };
        if !prepared {
            if let Err(error) = socket::set_nonblocking(&client, true) {
                log::braked(log::Kind::Session, || {
                    format!("connection dropped: {}", os::reason(&error))
                });
                return self.refuse();
            }
            socket::set_no_delay(&client);
            socket::set_urgent_inline(&client);
        }
        let mut session = Session::new(client, events.now());
        if self.settings.access_log {
            let name = |address: Option<os::address::Address>| {
                address.map_or_else(|| "local".to_owned(), |address| address.to_string())
            };
            session.access = Some(Box::new(Access {
                client: name(socket::peer_address(&session.client)),
                listener: name(socket::local_address(&session.client)),
                started: events.now(),
            }));
        }
        let Some(realm) = self.realm_number(accept.realm) else {
            log::braked(log::Kind::Session, || {
                "mavis: too many realms; connection dropped".to_owned()
            });
            return self.refuse();
        };
        session.realm = realm;
        let phase = tls.as_ref().map_or(Phase::Connecting, |(_, phase)| *phase);
        session.phase = phase;
        session.tls = tls.map(|(mut tls, _)| {
            tls.address = socket::peer_address(&session.client);
            Box::new(tls)
        });
        let interest = session.interest(End::Client);
        let index = self.sessions.insert(session);
        self.leave_places();
        let idle_timeout = self.idle_timeout();
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        if idle_timeout > 0 {
            let token = Token::new(kind::IDLE, index);
            session.idle_timer = Some(events.arm(token, events.now() + idle_timeout));
        }
        let plain = session.tls.is_none() && self.settings.authorization.is_none();
        let stream = plain && accept.protocol != socket::IPPROTO_SCTP as u32;
        let token = Token::new(kind::CLIENT, index);
        watch(events, &session.client, token, interest, stream);
        if phase != Phase::Connecting {
            self.arm_handshake(events, index);
        }
        match phase {
            Phase::Detecting => self.detect(events, index),
            Phase::Handshaking(end) => self.shake(events, index, end),
            _ => self.begin(events, index),
        }
    }

    /// Pipes take no descriptors that the broker was promised for connections.
    fn leave_places(&mut self) {
        if !self.buffers.leave_places(self.sessions.len()) {
            self.empty_pipes(Buffers::places_are_left);
        }
    }

    /// Moves what is in pipes to memory, until that is enough.
    fn empty_pipes(&mut self, enough: impl Fn(&Buffers) -> bool) {
        for index in self.sessions.indices() {
            if enough(&self.buffers) {
                return;
            }
            if let Some(session) = self.sessions.get_mut(index) {
                session.up.unpipe();
                session.down.unpipe();
            }
        }
    }

    /// Gives the descriptors of all pipes back to the system; true if there were any.
    fn release_pipes(&mut self) -> bool {
        let before = Pipe::count();
        self.buffers.release_pipes();
        self.empty_pipes(|_| Pipe::count() == 0);
        Pipe::count() < before
    }

    fn idle_timeout(&self) -> u64 {
        u64::from(self.settings.idle_timeout) * 1000
    }

    /// Connects the session to the best remote; goes through them until one answers or is at
    /// least reachable.
    pub(super) fn connect(&mut self, events: &mut Loop, index: u32) {
        loop {
            let Some(session) = self.sessions.get_mut(index) else {
                return;
            };
            // Most sessions have failed nowhere and own no list.
            let mut attempts = session.attempts.take().map(|boxed| *boxed).unwrap_or_default();
            let selected = self.balancer.select(&mut attempts, os::monotonic_clock());
            if attempts != Attempts::default() {
                session.attempts = Some(Box::new(attempts));
            }
            let Some(selected) = selected else {
                if !self.await_host(events, index) {
                    self.finish(events, index, Outcome::NoRemote, false);
                }
                return;
            };
            session.remote = Some(selected as u32);
            if self.attempt(events, index) {
                return;
            }
        }
    }

    /// If it is this host that was short of something, ports say, that may pass while the connect timeout
    /// has not: lets the session try again in a moment. False if there is nothing to wait for.
    fn await_host(&mut self, events: &mut Loop, index: u32) -> bool {
        let timeout = u64::from(self.settings.connect_timeout) * 1000;
        let Some(session) = self.sessions.get_mut(index) else {
            return false;
        };
        let waits = events.now().saturating_sub(session.active) < timeout
            && session.attempts.as_mut().is_some_and(|attempts| attempts.take_back());
        if waits {
            let token = Token::new(kind::PHASE, index);
            session.phase_timer = Some(events.arm(token, events.now() + HOST_STEP));
        }
        waits
    }

    /// Tries the session's remote; false if another one is to be tried.
    fn attempt(&mut self, events: &mut Loop, index: u32) -> bool {
        let Some(session) = self.sessions.get_mut(index) else {
            return true;
        };
        let Some(selected) = session.remote else {
            return false;
        };
        let remote = &self.settings.remotes[selected as usize];
        let timeout = u64::from(self.settings.connect_timeout) * 1000;
        let error = match open_peer(remote, &self.settings) {
            Ok((peer, connected)) => {
                (self.descriptor_trouble, self.host_due) = (false, 0);
                self.host_trouble.remove(&selected);
                let plain = self.tls.connectors[selected as usize].is_none();
                let stream = plain && remote.protocol != socket::Protocol::Sctp;
                let token = Token::new(kind::PEER, index);
                watch(events, &peer, token, Interest::WRITE, stream);
                session.peer = Some(peer);
                if connected {
                    self.reached(events, index);
                } else if timeout > 0 {
                    let token = Token::new(kind::PHASE, index);
                    session.phase_timer = Some(events.arm(token, events.now() + timeout));
                }
                return true;
            }
            Err(OpenError::Busy(error)) => {
                if timeout == 0 || events.now().saturating_sub(session.active) < timeout {
                    let token = Token::new(kind::PHASE, index);
                    session.phase_timer = Some(events.arm(token, events.now() + BUSY_STEP));
                    return true;
                }
                error
            }
            Err(OpenError::Descriptors(_)) if self.release_pipes() => {
                return self.attempt(events, index);
            }
            Err(OpenError::Descriptors(error)) => {
                // Not the remote's fault.
                let why = os::reason(&error);
                if !std::mem::replace(&mut self.descriptor_trouble, true) {
                    log::braked(log::Kind::Session, || format!("socket: {why}"));
                }
                self.finish(events, index, Outcome::Failed(why), false);
                return true;
            }
            Err(OpenError::Host(call, error)) => {
                self.host_failed(events, index, call, &error);
                return false;
            }
            Err(OpenError::Remote(error)) => error,
        };
        self.attempt_failed(events, index, &os::reason(&error));
        false
    }

    /// This host could not begin a connection to the remote in use, which is no fault of the remote's:
    /// it is not marked as dead. The session has none now.
    fn host_failed(&mut self, events: &mut Loop, index: u32, call: &str, error: &io::Error) {
        let Some(remote) = self.abandon_attempt(events, index) else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(index) {
            let attempts = session.attempts.get_or_insert_default();
            if os::host_is_short(error) {
                self.balancer.set_aside(remote, attempts);
                self.host_due = events.now() + HOST_STEP;
            } else {
                self.balancer.rule_out(remote, attempts);
            }
        }
        if self.host_trouble.insert(remote as u32) {
            let address = &self.settings.remotes[remote].address;
            let reason = os::reason(error);
            log::braked(log::Kind::Session, || {
                format!("{call}: {reason}; this host has no way to {address}")
            });
        }
    }

    /// The remote in use could not be reached; the session has none now. The error is reported, if
    /// it is news.
    pub(super) fn attempt_failed(&mut self, events: &mut Loop, index: u32, error: &str) {
        let Some(remote) = self.abandon_attempt(events, index) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        let attempts = session.attempts.get_or_insert_default();
        let now = os::monotonic_clock();
        if self.balancer.failed(remote, attempts, now) {
            let remote = &self.settings.remotes[remote];
            log::braked(log::Kind::Remote, || {
                format!(
                    "connect to {} ({}) failed: {error}",
                    remote.address,
                    remote.protocol.name(),
                )
            });
        }
    }

    /// Ends an attempt; returns the remote that it was made with.
    fn abandon_attempt(&mut self, events: &mut Loop, index: u32) -> Option<usize> {
        let session = self.sessions.get_mut(index)?;
        session.phase = Phase::Connecting;
        session.up.abandon(&mut self.buffers);
        session.up = Direction::default();
        if let Some(tls) = &mut session.tls {
            tls.peer = None;
        }
        if let Some(timer) = session.phase_timer.take() {
            events.cancel(timer);
        }
        if let Some(peer) = session.peer.take() {
            events.remove(&peer);
        }
        session.remote.take().map(|remote| remote as usize)
    }

    /// Both ends are there.
    pub(super) fn connected(&mut self, events: &mut Loop, index: u32) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        if let Some(timer) = session.phase_timer.take() {
            events.cancel(timer);
        }
        session.phase = Phase::Relaying;
        session.attempts = None;
        session.active = events.now();
        if let Some(remote) = session.remote {
            if self.balancer.connected(remote as usize) {
                let address = &self.settings.remotes[remote as usize].address;
                log::braked(log::Kind::Remote, || {
                    format!("connect to {address} succeeded, it is in use again")
                });
            }
        }
        self.begin_probation(events, index);
        if !self.send_early(index) {
            return self.finish(events, index, Outcome::Broken(End::Peer), true);
        }
        // The client's first bytes are there more often than not; the remote's are not yet,
        // unless they have come with the end of its handshake.
        match self.sessions.get_mut(index).and_then(|session| session.stream(End::Peer)) {
            Some(peer) if peer.has_unread() => {
                self.relay(events, index, &[End::Client, End::Peer]);
            }
            _ => self.relay(events, index, &[End::Client]),
        }
    }

    /// Moves what can be moved from the given ends, and watches for what cannot.
    fn relay(&mut self, events: &mut Loop, index: u32, from: &[End]) {
        for &end in from {
            let Some(session) = self.sessions.get_mut(index) else {
                return;
            };
            session.stir(events.now());
            let ending = session.ending(end);
            let Some(pumped) = pump_end(events, session, end, &mut self.buffers, ending) else {
                return;
            };
            if pumped.moved {
                session.active = events.now();
            }
            if session.is_on_probation() {
                self.judge(events, index, end);
            }
            if pumped.truncated {
                self.tls_trouble(index, end, "connection ended without close_notify");
            }
            match pumped.stop {
                Stop::Waiting => {}
                Stop::Source => self.broken(events, index, end),
                Stop::Sink => self.broken(events, index, end.other()),
                Stop::Failed(text) => self.tls_failed(events, index, end, &text),
            }
        }
        self.settle(events, index);
    }

    /// An end's connection is broken. What it had sent is still delivered; nothing goes to it
    /// any more.
    fn broken(&mut self, events: &mut Loop, index: u32, end: End) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        if let Phase::Breaking(first) = session.phase {
            if first == end {
                session.direction_mut(end).abandon(&mut self.buffers);
            } else {
                // Nobody is left to deliver to.
                self.finish(events, index, Outcome::Broken(first), true);
            }
            return;
        }
        session.take_back();
        if session.is_on_probation() {
            self.end_probation(events, index, end);
        }
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        session.phase = Phase::Breaking(end);
        session.direction_mut(end.other()).abandon(&mut self.buffers);
        session.active = events.now();
        // What is left in its receive queue can still be read.
        session.direction_mut(end).copy_only();
        let ending = Ending::Nothing;
        let Some(pumped) = pump_end(events, session, end, &mut self.buffers, ending) else {
            return;
        };
        match pumped.stop {
            Stop::Waiting => {}
            Stop::Source | Stop::Failed(_) => session.direction_mut(end).state = State::Shut,
            Stop::Sink => session.direction_mut(end).abandon(&mut self.buffers),
        }
    }

    /// Ends a session that has nothing left to do, or watches its ends for what is next.
    fn settle(&mut self, events: &mut Loop, index: u32) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        if session.up.state == State::Shut && session.down.state == State::Shut {
            match session.phase {
                Phase::Breaking(_) => self.linger(events, index),
                _ => self.finish(events, index, Outcome::Closed, false),
            }
            return;
        }
        let (client, peer) = (session.interest(End::Client), session.interest(End::Peer));
        events.set_interest(&session.client, client);
        if let Some(fd) = &session.peer {
            events.set_interest(fd, peer);
        }
    }

    /// A broken session has delivered all it could: the other end is reset as soon as its
    /// system has sent everything, as a reset overtakes what is still queued.
    fn linger(&mut self, events: &mut Loop, index: u32) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        let Phase::Breaking(end) = session.phase else {
            return;
        };
        let receiver = session.end(end.other());
        let unsent = receiver.map_or(0, socket::unsent_bytes) as u32;
        // Not every mechanism tells when the receiver breaks as well.
        let gone = receiver.is_none_or(|receiver| socket::take_error(receiver).is_err());
        let now = events.now();
        if unsent != session.unsent {
            session.unsent = unsent;
            session.active = now;
        }
        if gone || unsent == 0 || now.saturating_sub(session.active) >= LINGER_LIMIT {
            return self.finish(events, index, Outcome::Broken(end), true);
        }
        // The receiver may break as well; the other one has nothing more to say.
        for which in [End::Client, End::Peer] {
            let interest = if which == end { Interest::empty() } else { session.interest(which) };
            if let Some(fd) = session.end(which) {
                events.set_interest(fd, interest);
            }
        }
        if session.phase_timer.is_none() {
            let quiet = now.saturating_sub(session.active);
            let step = (quiet / 2).clamp(LINGER_STEP, LINGER_LONGEST_STEP);
            session.phase_timer = Some(events.arm(Token::new(kind::PHASE, index), now + step));
        }
    }

    /// A session is over: both ends are closed, and its place is free.
    pub(super) fn finish(&mut self, events: &mut Loop, index: u32, outcome: Outcome, reset: bool) {
        let Some(mut session) = self.sessions.remove(index) else {
            return;
        };
        for timer in [session.idle_timer, session.phase_timer].into_iter().flatten() {
            events.cancel(timer);
        }
        if let Some(remote) = session.remote {
            self.balancer.released(remote as usize);
        }
        if session.phase == Phase::Authorizing {
            self.forget(events, index);
        }
        if session.tls.is_some() && !reset {
            for end in [End::Client, End::Peer] {
                if let Some((mut sink, direction)) = session.outgoing(end) {
                    say_goodbye(&mut sink, direction, &mut self.buffers);
                }
            }
        }
        session.take_back();
        if session.access.is_some() {
            let line = access::line(&session, &self.settings.remotes, &outcome, events.now());
            log::message(&line);
        }
        for fd in std::iter::once(&session.client).chain(&session.peer) {
            events.remove(fd);
            if reset {
                socket::reset_on_close(fd);
            }
        }
        session.up.abandon(&mut self.buffers);
        session.down.abandon(&mut self.buffers);
        self.ended += 1;
        self.buffers.leave_places(self.sessions.len());
        if self.sessions.len() == 0 {
            events.shrink();
            self.buffers.shrink();
        }
    }

    /// A descriptor of a session is ready.
    pub fn event(&mut self, events: &mut Loop, event: Event) {
        let index = event.token.index();
        let end = match event.token.kind() {
            kind::CLIENT => End::Client,
            kind::PEER => End::Peer,
            _ => return,
        };
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        match session.phase {
            Phase::Detecting => self.detect(events, index),
            Phase::Authorizing => self.waiting_client(events, index, event),
            Phase::Handshaking(which) if which == end => self.shake(events, index, end),
            Phase::Connecting if end == End::Peer => {
                self.connect_event(events, index, event.hangup);
            }
            Phase::Connecting | Phase::Handshaking(_) => {
                // The client is not read here. It may take the rest of its handshake, or hang up.
                if event.writable && session.down.flush(&session.client, &mut self.buffers).is_err()
                {
                    return self.finish(events, index, Outcome::Broken(End::Client), true);
                }
                match socket::take_error(&session.client) {
                    Err(_) => self.finish(events, index, Outcome::Broken(End::Client), true),
                    Ok(()) => {
                        if event.hangup {
                            session.set_quiet(End::Client, true);
                        }
                        self.settle_interest(events, index);
                    }
                }
            }
            Phase::Relaying | Phase::Breaking(_) => {
                if event.readable || event.writable {
                    // Writable: the direction that ends here goes on. Readable: the one that
                    // begins here.
                    let (writable, readable) = (end.other(), end);
                    match (event.writable, event.readable) {
                        (true, true) => self.relay(events, index, &[writable, readable]),
                        (true, false) => self.relay(events, index, &[writable]),
                        _ => self.relay(events, index, &[readable]),
                    }
                } else {
                    self.hangup(events, index, end);
                }
            }
        }
    }

    /// An end that is neither read nor written at the moment was hung up.
    fn hangup(&mut self, events: &mut Loop, index: u32, end: End) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        let error = session.end(end).map_or(Ok(()), socket::take_error);
        session.set_quiet(end, true);
        // If it is known to be broken, what it had sent is still on its way: reading tells the end.
        if error.is_err() && session.phase != Phase::Breaking(end) {
            self.broken(events, index, end);
        }
        self.settle(events, index);
    }

    pub(super) fn settle_interest(&mut self, events: &mut Loop, index: u32) {
        if let Some(session) = self.sessions.get_mut(index) {
            for end in [End::Client, End::Peer] {
                let interest = session.interest(end);
                if let Some(fd) = session.end(end) {
                    events.set_interest(fd, interest);
                }
            }
        }
    }

    /// A connection attempt has come to its end.
    fn connect_event(&mut self, events: &mut Loop, index: u32, hangup: bool) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        let result = match &session.peer {
            // Edges tell of errors reliably.
            Some(peer) if hangup || !events.has_edges() => socket::take_error(peer),
            _ => Ok(()),
        };
        match result {
            Ok(()) if self.is_self_connected(index) => {
                let error = io::Error::from_raw_os_error(libc::ECONNREFUSED);
                self.attempt_failed(events, index, &os::reason(&error));
                self.connect(events, index);
            }
            Ok(()) => self.reached(events, index),
            Err(error) => {
                if os::host_is_short(&error) {
                    self.host_failed(events, index, "connect", &error);
                } else {
                    self.attempt_failed(events, index, &os::reason(&error));
                }
                self.connect(events, index);
            }
        }
    }

    /// On a port where nobody listens the system may connect a socket to itself, if it happens to
    /// choose that port for it (TCP's simultaneous open). Only looked for when the remote was
    /// down, as it is then.
    fn is_self_connected(&mut self, index: u32) -> bool {
        let Some(session) = self.sessions.get_mut(index) else {
            return false;
        };
        let (Some(peer), Some(remote)) = (&session.peer, session.remote) else {
            return false;
        };
        let address = &self.settings.remotes[remote as usize].address;
        self.balancer.is_down(remote as usize)
            && socket::local_address(peer).as_ref() == Some(address)
    }

    /// A timer has expired.
    pub fn timer(&mut self, events: &mut Loop, timer: TimerId, token: Token) {
        let index = token.index();
        match token.kind() {
            kind::IDLE => self.idle_expired(events, index, timer),
            kind::PHASE => self.phase_expired(events, index),
            kind::DRAIN => {
                for index in self.sessions.indices() {
                    self.finish(events, index, Outcome::Drained, true);
                }
            }
            _ => {}
        }
    }

    /// The idle timer is renewed lazily: it looks when the session was last active.
    fn idle_expired(&mut self, events: &mut Loop, index: u32, timer: TimerId) {
        let timeout = self.idle_timeout();
        // What the kernel carries by itself shows when it is taken back.
        for end in [End::Client, End::Peer] {
            let session = self.sessions.get_mut(index);
            if session.is_some_and(|session| session.direction(end).state == State::Spliced) {
                self.relay(events, index, &[end]);
            }
        }
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        debug_assert_eq!(session.idle_timer, Some(timer));
        let due = session.active + timeout;
        if due > events.now() {
            session.idle_timer = Some(events.arm(Token::new(kind::IDLE, index), due));
            return;
        }
        session.idle_timer = None;
        let unfinished = session.up.pending.is_some()
            || session.down.pending.is_some()
            || matches!(session.phase, Phase::Breaking(_));
        self.finish(events, index, Outcome::Idle, unfinished);
    }

    fn phase_expired(&mut self, events: &mut Loop, index: u32) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        session.phase_timer = None;
        match session.phase {
            // The remote was busy, or this host was short of something.
            Phase::Connecting if session.peer.is_none() => {
                // One attempt tells for all that wait: looking for a port that is not there is dear.
                let timeout = u64::from(self.settings.connect_timeout) * 1000;
                let waits = events.now().saturating_sub(session.active) < timeout;
                if session.remote.is_none() && waits && events.now() < self.host_due {
                    let token = Token::new(kind::PHASE, index);
                    session.phase_timer = Some(events.arm(token, self.host_due));
                    return;
                }
                if !self.attempt(events, index) {
                    self.connect(events, index);
                }
            }
            Phase::Connecting => {
                let error = io::Error::from_raw_os_error(libc::ETIMEDOUT);
                self.attempt_failed(events, index, &os::reason(&error));
                self.connect(events, index);
            }
            Phase::Breaking(_) => self.settle(events, index),
            Phase::Authorizing => self.unanswered(events, index),
            Phase::Detecting | Phase::Handshaking(_) => self.handshake_expired(events, index),
            // The remote has kept the session long enough.
            Phase::Relaying => self.proved(index),
        }
    }

    /// Open sessions may go on for the drain timeout, if one is configured.
    pub fn drain(&mut self, events: &mut Loop) {
        if self.settings.drain_timeout > 0 {
            let deadline = events.now() + u64::from(self.settings.drain_timeout) * 1000;
            events.arm(Token::new(kind::DRAIN, 0), deadline);
        }
    }
}

/// Watches an end. `stream`: a short read says that there is nothing more, which is not so with TLS,
/// nor with SCTP, where a read ends with a message.
fn watch(events: &mut Loop, end: &OwnedFd, token: Token, interest: Interest, stream: bool) {
    if stream {
        events.register_stream(end, token, interest);
    } else {
        events.register(end, token, interest);
    }
}

/// Pumps the direction that reads from `end`, and tells the loop what that has found. `None`
/// without a peer.
pub(super) fn pump_end(
    events: &mut Loop,
    session: &mut Session,
    end: End,
    buffers: &mut Buffers,
    ending: Ending,
) -> Option<Pumped> {
    let reads_on = session.end(end).is_some_and(|source| events.reads_on(source));
    let pumped = pump(session.flow(end)?, buffers, ending, reads_on);
    if let Some(source) = session.end(end) {
        match pumped.left {
            Left::Perhaps => {}
            Left::NothingYet => events.read_in_part(source),
            Left::Nothing => events.blocked(source, Interest::READ),
        }
    }
    if session.direction(end).wants_write() {
        if let Some(sink) = session.end(end.other()) {
            events.blocked(sink, Interest::WRITE);
        }
    }
    Some(pumped)
}

/// Why a socket to a remote could not be made.
enum OpenError {
    /// None is left, for any remote.
    Descriptors(io::Error),
    /// Its backlog is full.
    Busy(io::Error),
    /// This host is short of something, or has not got the local address; with the call that said so.
    Host(&'static str, io::Error),
    /// What else is wrong. Also EACCES and EPERM: a firewall that forbids this remote may let others
    /// through.
    Remote(io::Error),
}

/// Makes a socket for a remote and starts connecting; true if that was done at once.
fn open_peer(remote: &Remote, settings: &Relay) -> Result<(OwnedFd, bool), OpenError> {
    let family = remote.address.family();
    let sort = |call| {
        move |error: io::Error| match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => OpenError::Descriptors(error),
            _ if family == Family::Unix && os::would_block(&error) => OpenError::Busy(error),
            _ if os::host_is_short(&error) => OpenError::Host(call, error),
            _ => OpenError::Remote(error),
        }
    };
    let kind = socket::Kind::Stream;
    let peer = socket::create(family, kind, remote.protocol).map_err(sort("socket"))?;
    socket::set_urgent_inline(&peer);
    if family != Family::Unix {
        let _ = socket::set_keepalive(&peer);
        let _ = options::apply(&peer, remote);
        socket::set_no_delay(&peer);
        socket::unpace(&peer, &remote.address);
    }
    let local = settings.local.iter().find(|address| address.family() == family);
    let ip = |family| family != Family::Unix;
    if let Some(local) = local {
        let bind = || {
            if ip(family) {
                socket::set_reuse_address(&peer)?;
                socket::leave_port_to_connect(&peer);
            }
            socket::bind(&peer, local)
        };
        bind().map_err(|error| OpenError::Host("bind", error))?;
    } else if ip(family) && settings.local.iter().any(|address| ip(address.family())) {
        let error = io::Error::from_raw_os_error(libc::EAFNOSUPPORT);
        return Err(OpenError::Host("bind", error));
    }
    let connected = socket::connect(&peer, &remote.address).map_err(sort("connect"))?;
    Ok((peer, connected))
}
