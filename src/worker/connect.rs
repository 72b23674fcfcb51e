//! Connecting a client to a remote: one connect attempt after the other.

use super::access::Outcome;
use super::announcement::announcement;
use super::client::{KnownClient, Speech};
use super::direction::Direction;
use super::pair::{End, Link, Pair, Tls};
use super::pump::UNLIMITED;
use super::queue::Wait;
use super::session::{Context, Next, Parting, Seeking, Session, State};
use super::shared::{kind, register, Shared};
use super::turns::Origin;
use crate::config::balance::Kind;
use crate::event::{Interest, Loop, TimerId, Token};
use crate::os::address::Address;
use crate::os::hash;
use crate::os::tls::signing;
use crate::os::{self, log, Socket};
use crate::upstream::balance::Tried;
use crate::upstream::dial::{Cause, Connection, Dial, Dialer, Failure, Progress};
use crate::upstream::remote::RemoteId;
use crate::upstream::zone::counters::Failure as Fault;
use std::io;

/// How long a session waits before it retries what this host was short of, in milliseconds.
const HOST_STEP: u64 = 200;

impl Session {
    /// Selects a remote and starts to connect, or starts again with the remote already selected.
    /// Fails only if this process has no descriptor left, so that no other remote could be reached
    /// either.
    pub(super) fn dial(&mut self, context: &mut Context<'_>) -> io::Result<Next> {
        match &mut self.state {
            State::Choosing(seeking) => {
                // Others wait already: not before their turn.
                let queue = &context.shared.queue;
                if !queue.is_empty() && queue.has(seeking.tag) {
                    return Ok(self.queue(context));
                }
                let Some(remote) = context.shared.select(seeking, &self.client) else {
                    return Ok(self.none_is_left(context));
                };
                let seeking = std::mem::take(seeking);
                self.state = State::Dialing { seeking, dial: Dial::new(remote), timer: None };
            }
            State::Queued { seeking, timer } => {
                let selected = context.shared.select(seeking, &self.client);
                if selected.is_none() && context.shared.waits_for_room(seeking) {
                    return Ok(Next::Wait);
                }
                context.shared.queue.leave(context.index);
                timer.take().into_iter().for_each(|timer| context.events.cancel(timer));
                self.active = context.events.now();
                let seeking = std::mem::take(seeking);
                let Some(remote) = selected else {
                    self.state = State::Choosing(seeking);
                    return Ok(self.none_is_left(context));
                };
                self.state = State::Dialing { seeking, dial: Dial::new(remote), timer: None };
            }
            _ => {}
        }
        self.advance(Cause::Start, context)
    }

    /// All remotes that would do have as many sessions as they may: waits for one of them, if there
    /// is a place in a queue.
    fn queue(&mut self, context: &mut Context<'_>) -> Next {
        let Context { index, shared, events } = context;
        let State::Choosing(seeking) = &mut self.state else {
            return Next::Wait;
        };
        let Some((remote, timeout)) = shared.place_in_queue(seeking) else {
            log::braked(log::Kind::Limit, || {
                "remotes have as many sessions as they may, and no place in a queue is left"
                    .to_owned()
            });
            return Next::Close(Outcome::Full, Parting::Orderly);
        };
        let seeking = std::mem::take(seeking);
        let known = seeking.client.as_ref().and_then(|client| client.address.clone());
        let address = known.or_else(|| self.client.peer_address());
        let origin = Origin::of(address.as_ref());
        shared.queue.join(*index, Wait { tag: seeking.tag, origin, remote });
        let due = events.now() + u64::from(timeout) * 1000;
        let timer = (timeout > 0).then(|| events.arm(Token::new(kind::STATE, *index), due));
        self.state = State::Queued { seeking, timer };
        Next::Wait
    }

    /// Continues a connect attempt. Fails as [`dial`](Self::dial) does.
    pub(super) fn advance(&mut self, cause: Cause, context: &mut Context<'_>) -> io::Result<Next> {
        let Context { index, shared, events } = context;
        let Session { client, access, state, .. } = self;
        let State::Dialing { seeking, dial, timer } = state else {
            return Ok(Next::Wait);
        };
        let had_socket = dial.socket().is_some();
        let mut dialer = Dialer {
            registry: &shared.registry,
            settings: &shared.settings,
            now: events.now(),
            scratch: shared.buffers.scratch(),
            announce: &|| announcement(client, seeking.client.as_deref(), access.as_deref()),
            client: &|| seeking.address(client),
        };
        let progress = dial.step(cause, &mut dialer);
        let remote = dial.remote();
        let socket = match &progress {
            Progress::Ready(connection) => Some(&connection.socket),
            _ => dial.socket(),
        };
        if let (false, Some(socket)) = (had_socket, socket) {
            let stream = shared.registry.get(remote).is_some_and(|remote| remote.is_stream());
            register(events, socket, Token::new(kind::UPSTREAM, *index), Interest::WRITE, stream);
            shared.host_has_all(remote);
        }
        match progress {
            Progress::Waiting | Progress::Signing(_) => {
                if let Progress::Signing(number) = progress {
                    signing::own(number, *index);
                }
                let token = Token::new(kind::STATE, *index);
                set_timer(timer, dial.due(), token, events);
                Ok(Next::Wait)
            }
            Progress::Ready(connection) => {
                timer.take().into_iter().for_each(|timer| events.cancel(timer));
                Ok(self.connected(connection, context))
            }
            Progress::Failed(Failure::Descriptors(error)) => Err(error),
            Progress::Failed(failure) => Ok(self.not_reached(&failure, context)),
        }
    }

    /// The remote could not be reached: notes why, and has the next one selected.
    fn not_reached(&mut self, failure: &Failure, context: &mut Context<'_>) -> Next {
        let Context { shared, events, .. } = context;
        let State::Dialing { mut seeking, dial, timer } =
            std::mem::replace(&mut self.state, State::Over)
        else {
            return Next::Wait;
        };
        timer.into_iter().for_each(|timer| events.cancel(timer));
        dial.socket().into_iter().for_each(|socket| events.remove(socket));
        let tried = seeking.tried.get_or_insert_default();
        let remote = dial.remote();
        match failure {
            Failure::Host(call, error) => {
                shared.count_failure(remote, Fault::Host, "");
                // Not the remote's fault, so it is not marked as dead.
                shared.tell_of_host(remote, call, error);
                if os::host_is_short(error) {
                    shared.registry.set_aside(remote, tried);
                    shared.host_due = events.now() + HOST_STEP;
                } else {
                    shared.registry.rule_out(remote, tried);
                }
            }
            Failure::Remote(fault, reason) => {
                shared.count_failure(remote, *fault, reason);
                shared.failed(remote, tried, reason);
            }
            Failure::Descriptors(error) => shared.failed(remote, tried, &os::reason(error)),
        }
        self.state = State::Choosing(seeking);
        Next::Dial
    }

    /// No remote is left. If this host was short of something, such as ports, that may pass: the
    /// session tries again in a moment, until the connect timeout is over.
    fn none_is_left(&mut self, context: &mut Context<'_>) -> Next {
        let (now, give_up_at) = (context.events.now(), self.give_up_at(context.shared));
        let State::Choosing(seeking) = &mut self.state else {
            return Next::Wait;
        };
        if context.shared.waits_for_room(seeking) {
            return self.queue(context);
        }
        let waits =
            now < give_up_at && seeking.tried.as_mut().is_some_and(|tried| tried.retry_aside());
        if !waits {
            return Next::Close(Outcome::NoRemote, Parting::Orderly);
        }
        let token = Token::new(kind::STATE, context.index);
        let timer = context.events.arm(token, now + HOST_STEP);
        self.state = State::Short { seeking: std::mem::take(seeking), timer };
        Next::Wait
    }

    /// Retries what this host was short of. Searching for a free port is expensive when there is
    /// none, so one attempt stands for all waiting sessions: when it fails, the others wait until
    /// `host_due`.
    pub(super) fn try_again(&mut self, context: &mut Context<'_>) -> Next {
        let (now, give_up_at) = (context.events.now(), self.give_up_at(context.shared));
        let State::Short { seeking, timer } = &mut self.state else {
            return Next::Wait;
        };
        if now < give_up_at.min(context.shared.host_due) {
            let token = Token::new(kind::STATE, context.index);
            *timer = context.events.arm(token, context.shared.host_due);
            return Next::Wait;
        }
        self.state = State::Choosing(std::mem::take(seeking));
        Next::Dial
    }

    /// When the session gives up waiting for what this host is short of. `active` is when it
    /// started to look for a remote.
    fn give_up_at(&self, shared: &Shared) -> u64 {
        self.active + u64::from(shared.settings.connect_timeout) * 1000
    }

    /// Both ends are there.
    fn connected(&mut self, connection: Connection, context: &mut Context<'_>) -> Next {
        let Context { index, shared, events } = context;
        let State::Dialing { seeking, dial, .. } = std::mem::replace(&mut self.state, State::Over)
        else {
            return Next::Wait;
        };
        let remote = dial.remote();
        self.active = events.now();
        shared.connected(remote);
        let stream = connection.stream.as_ref();
        shared.count_connection(*index, remote, stream, self.active.saturating_sub(dial.begun()));
        let probation = shared.begin_probation(events, *index);
        let Connection { socket, stream, unsent } = connection;
        // Usually the client's first bytes are there already. The remote's are not, unless they
        // came with the end of its handshake.
        let second = stream.as_ref().filter(|stream| stream.has_unread()).map(|_| End::Upstream);
        let mut tls =
            stream.map(|stream| Box::new(Tls { upstream: Some(stream), ..Tls::default() }));
        let (mut down, mut early) = (Direction::default(), Vec::new());
        let starts = !unsent.is_empty();
        if let Some(client) = seeking.client {
            let KnownClient { speech, address, unsent, .. } = *client;
            down = Direction::holding(unsent.into_bytes());
            match speech {
                Speech::Plain(bytes) | Speech::Sealed(bytes, _) => early = bytes,
                Speech::Tls(stream) => {
                    let tls = tls.get_or_insert_default();
                    (tls.client, tls.address) = (Some(stream), address);
                }
            }
        }
        let mut pair = Pair {
            upstream: socket,
            upstream_link: Link::Up,
            remote,
            up: Direction::holding(unsent.into_bytes()),
            down,
            tls,
        };
        let started = if starts || !early.is_empty() {
            let most =
                self.allotment.as_mut().map(|allotment| allotment.most(End::Client, self.active));
            let most = most.unwrap_or(UNLIMITED);
            let mut flow = pair.flow(End::Client, &self.client, most);
            flow.start(&early, &mut shared.buffers)
        } else {
            Ok(())
        };
        self.state = State::Relaying { pair, probation };
        self.limit_relaying(context);
        if let Err(stop) = started {
            if let Some(next) = self.stopped(End::Client, stop, context) {
                return next;
            }
        }
        Next::Pump(End::Client, second)
    }
}

impl Seeking {
    /// The client's address: that in its PROXY header, if there is one.
    fn address(&self, client: &Socket) -> Option<Address> {
        let known = self.client.as_ref().and_then(|client| client.address.clone());
        known.or_else(|| client.peer_address())
    }

    /// What remotes are selected by with `balance = source`. `None` for a client without an IP
    /// address.
    fn address_key(&self, client: &Socket) -> Option<u64> {
        match self.address(client)? {
            Address::Ip(address) => Some(hash::address_key(address.ip())),
            Address::Unix(_) => None,
        }
    }

    /// What remotes are selected by with `balance = hash`. `None` if the client has sent no name.
    fn name_key(&self) -> Option<u64> {
        self.client.as_ref()?.server_name().map(hash::name_key)
    }
}

/// Arms a timer, moves it or cancels it.
pub(super) fn set_timer(
    timer: &mut Option<TimerId>,
    due: Option<u64>,
    token: Token,
    events: &mut Loop,
) {
    match (*timer, due) {
        (Some(timer), Some(due)) => events.renew(timer, due),
        (None, Some(due)) => *timer = Some(events.arm(token, due)),
        (Some(armed), None) => {
            events.cancel(armed);
            *timer = None;
        }
        (None, None) => {}
    }
}

impl Shared {
    /// Selects a remote for a session.
    fn select(&mut self, seeking: &mut Seeking, client: &Socket) -> Option<RemoteId> {
        let mut tried = seeking.tried.take().map(|boxed| *boxed).unwrap_or_default();
        let key = match self.registry.kind(seeking.tag) {
            Kind::LeastUse | Kind::RoundRobin | Kind::Random => None,
            Kind::Source => seeking.address_key(client),
            Kind::Hash => seeking.name_key().or_else(|| seeking.address_key(client)),
        };
        let now = os::monotonic_clock();
        let selected = self.registry.select(seeking.tag, key, &mut tried, now);
        // Most sessions have failed nowhere, and need no list.
        if tried != Tried::default() {
            seeking.tried = Some(Box::new(tried));
        }
        selected
    }

    /// True if a session was given no remote because those that would do are full.
    fn waits_for_room(&self, seeking: &Seeking) -> bool {
        let none = Tried::default();
        let tried = seeking.tried.as_deref().unwrap_or(&none);
        self.registry.is_full(seeking.tag, tried)
    }

    /// The queue with the most places for a session, and for how many seconds it may wait there.
    fn place_in_queue(&self, seeking: &Seeking) -> Option<(RemoteId, u32)> {
        let none = Tried::default();
        let tried = seeking.tried.as_deref().unwrap_or(&none);
        let places = self.registry.queues(seeking.tag, tried).into_iter().filter_map(|remote| {
            let sessions = self.registry.get(remote)?.settings.sessions;
            let left = (sessions.queue as usize).checked_sub(self.queue.taken(remote))?;
            (left > 0).then_some((left, remote, sessions.queue_timeout))
        });
        let (_, remote, timeout) = places.max_by_key(|&(left, ..)| left)?;
        Some((remote, timeout))
    }

    /// Marks a remote that could not be reached, and logs that if it is news.
    fn failed(&mut self, id: RemoteId, tried: &mut Tried, error: &str) {
        let line = self.registry.get(id).map(|remote| {
            format!(
                "connect to {} ({}) failed: {error}",
                remote.address(),
                remote.settings.protocol.name(),
            )
        });
        if self.registry.failed(id, tried, os::monotonic_clock()) {
            line.into_iter().for_each(|line| log::braked(log::Kind::Remote, || line));
        }
    }

    /// A remote was reached; logs that if it was reported as down before.
    fn connected(&mut self, id: RemoteId) {
        if self.registry.connected(id) {
            let address = self.address(id);
            log::braked(log::Kind::Remote, || {
                format!("connect to {address} succeeded, it is in use again")
            });
        }
    }

    /// Logs once that no descriptor is left for an upstream socket, which is not the remote's
    /// fault. Returns the reason.
    pub(super) fn without_descriptors(&mut self, error: &io::Error) -> String {
        let why = os::reason(error);
        if !std::mem::replace(&mut self.descriptor_trouble, true) {
            log::braked(log::Kind::Session, || format!("socket: {why}"));
        }
        why
    }

    /// This host had all that a connection to this remote takes: the next shortage is logged again.
    fn host_has_all(&mut self, remote: RemoteId) {
        (self.descriptor_trouble, self.host_due) = (false, 0);
        if !self.host_trouble.is_empty() {
            self.host_trouble.remove(&remote);
        }
    }

    /// Logs once that this host could not start a connect attempt to a remote.
    fn tell_of_host(&mut self, remote: RemoteId, call: &str, error: &io::Error) {
        if self.host_trouble.insert(remote) {
            let (address, reason) = (self.address(remote), os::reason(error));
            log::braked(log::Kind::Session, || {
                format!("{call}: {reason}; this host has no way to {address}")
            });
        }
    }
}
