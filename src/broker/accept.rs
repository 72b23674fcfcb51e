//! From the listening socket to a worker.

use super::connection::Connection;
use super::life::Broker;
use super::listeners::Blocking;
use super::policy::{Choice, WorkerId};
use super::sticky::Key;
use super::{kind, text};
use crate::channel::protocol::Accept;
use crate::config::broker::Overload;
use crate::event::{Loop, Token};
use crate::os::{self, channel, log, socket};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Connections taken from one listener per turn, so that none starves the others.
const BATCH: usize = channel::DESCRIPTORS;

/// How long a connection waits for a worker that is being started, in milliseconds.
const START_PATIENCE: u64 = 1000;

/// How long accepting rests when the process has run out of descriptors, in milliseconds.
const REST: u64 = 200;

impl Broker {
    /// A listener is readable.
    pub(super) fn accept(&mut self, index: usize, events: &mut Loop) {
        self.accept_some(index, events);
        self.deliver(events);
    }

    /// Takes what waits in the backlog of a listener that is about to be closed.
    pub(super) fn accept_backlog(&mut self, index: usize, events: &mut Loop) {
        let Some(most) = self.listeners.backlog(index) else {
            return;
        };
        for _ in 0..=most / BATCH {
            self.accept(index, events);
        }
    }

    /// Connections that no worker can take any more are closed, and that is said.
    pub(super) fn refuse_parked(&mut self) {
        let parked = std::mem::take(&mut self.parked);
        let count = parked.len();
        for parked in parked {
            socket::reset_on_close(&parked.socket);
        }
        if count > 0 {
            log::message(&format!("{count} connections that no worker could take were closed"));
        }
    }

    /// Another program's workers get blocking sockets, as from the C program.
    fn blocking(&self) -> Blocking {
        match self.local.is_some() || self.options.workers_report {
            true => Blocking::No,
            false => Blocking::Yes,
        }
    }

    fn accept_some(&mut self, index: usize, events: &mut Loop) {
        let blocking = self.blocking();
        for _ in 0..BATCH {
            if self.is_paused() {
                return;
            }
            match self.listeners.accept(index, blocking) {
                Ok(Some(connection)) => {
                    let before = std::mem::take(&mut self.accept_trouble);
                    self.admit(connection, events);
                    // Accepting is no progress if the connection could not be passed on.
                    self.accept_trouble |= before && !self.parked.is_empty();
                }
                Ok(None) => {}
                Err(error) if os::would_block(&error) => return,
                Err(error) => {
                    self.rest("accept", &error, events);
                    return;
                }
            }
        }
    }

    /// Rests for a moment, as the system is out of something.
    pub(super) fn rest(&mut self, call: &str, error: &io::Error, events: &mut Loop) {
        // Said once, until accepting works again.
        if !std::mem::replace(&mut self.accept_trouble, true) {
            log::braked(log::Kind::Accept, || format!("{call}: {}", os::reason(error)));
        }
        if self.resume.is_none() {
            self.resume = Some(events.arm(Token::new(kind::RESUME, 0), events.now() + REST));
            self.update_listeners(events);
        }
    }

    /// True while no connections are taken from the listeners.
    pub(super) fn is_paused(&self) -> bool {
        let queueing = self.overloaded && self.overload == Overload::Queue;
        queueing || self.resume.is_some() || !self.parked.is_empty()
    }

    /// Polls the listeners, or not.
    pub(super) fn update_listeners(&mut self, events: &mut Loop) {
        let paused = self.is_paused();
        self.listeners.set_paused(paused, events);
    }

    /// Decides about one connection.
    fn admit(&mut self, connection: Connection, events: &mut Loop) {
        if self.policy.is_full() {
            // Resetting closes the listeners, but for those that we could not open again.
            if self.overload == Overload::Reset {
                socket::reset_on_close(&connection.socket);
            }
            return;
        }
        if !self.acl.is_empty() {
            // A peer without an IP address is local, and permitted.
            if let Some(address) = connection.client() {
                if !self.acl.permits(address) {
                    log::braked(log::Kind::Denied, || {
                        format!("{}: denied by ACL", text::rejected(address))
                    });
                    return;
                }
            }
        }
        if let Some(parked) = self.hand_over(connection, events) {
            self.parked.push_back(parked);
            self.update_listeners(events);
        }
        self.check_overload(events);
    }

    /// Finds a worker and sends it the connection; gives it back if nobody can take it now.
    fn hand_over(&mut self, parked: Connection, events: &mut Loop) -> Option<Connection> {
        if let Some(local) = &mut self.local {
            local.accept(events, parked.socket, &parked.accept);
            self.policy.given(LOCAL_WORKER);
            return None;
        }
        let key = parked.listener.and_then(|index| Some((index, self.sticky_key(index, &parked)?)));
        // Each turn ends, blocks a worker or loses one; a bound all the same.
        for _ in 0..2 * (self.policy.limits().instances_max + 1) {
            let sticky = key.and_then(|(index, key)| self.sticky.get(index, &key, events.now()));
            let chosen = match self.policy.choose(sticky) {
                Choice::Worker(id) => id,
                // A worker that cannot be started must not keep the others from serving.
                Choice::Start if self.start_worker(events) => continue,
                Choice::Start => match self.policy.fallback() {
                    Choice::Worker(id) => id,
                    _ => return Some(parked),
                },
                Choice::Wait => match self.wait_for_start(events) {
                    Choice::Worker(id) => id,
                    _ => return Some(parked),
                },
                Choice::Nobody => return Some(parked),
            };
            let together = parked.datagram.is_none()
                && self.workers.get(&chosen).is_some_and(|worker| worker.side.takes_connections());
            let sent = if together { Ok(()) } else { self.send(chosen, &parked) };
            match sent {
                Ok(()) => {
                    self.policy.given(chosen);
                    self.mark_served(chosen);
                    if let Some((index, key)) = key {
                        self.sticky.put(index, key, chosen, events.now());
                    }
                    if together {
                        self.outbox.push((chosen, parked));
                    } else {
                        self.note_sent(chosen, events);
                    }
                    return None;
                }
                Err(error) if channel::is_full(&error) => self.set_blocked(chosen, &error, events),
                Err(error) if is_gone(&error) => self.worker_lost(chosen, &error),
                Err(error) if is_too_long(&error) && parked.datagram.is_some() => {
                    log::braked(log::Kind::Datagram, || {
                        let length = parked.datagram.as_ref().map_or(0, Vec::len);
                        format!(
                            "a datagram of {length} bytes is too long for the channel to a worker"
                        )
                    });
                    return None;
                }
                // Too many descriptors in flight, no memory: not the worker's fault, and passing.
                Err(error) => {
                    self.rest("scm_send_msg: sendmsg", &error, events);
                    break;
                }
            }
        }
        Some(parked)
    }

    /// Sends the connections that have found their workers, those for one worker together.
    fn deliver(&mut self, events: &mut Loop) {
        let place = |(id, parked): &(WorkerId, Connection)| (*id, parked.accept);
        while !self.outbox.is_empty() {
            let mut outbox = std::mem::take(&mut self.outbox);
            outbox.sort_by_key(place);
            while let Some((id, accept)) = outbox.last().map(place) {
                let same = outbox.iter().rev().take_while(|next| place(next) == (id, accept));
                let rest = outbox.len() - same.take(channel::DESCRIPTORS).count();
                match self.send_together(id, &accept, &outbox[rest..]) {
                    Ok(()) => {
                        outbox.truncate(rest);
                        self.note_sent(id, events);
                    }
                    Err(error) => self.not_delivered(id, outbox.split_off(rest), &error, events),
                }
            }
            if self.outbox.is_empty() {
                // Its memory is needed again.
                self.outbox = outbox;
                break;
            }
        }
        self.check_overload(events);
    }

    /// A worker has not got these connections.
    fn not_delivered(
        &mut self,
        id: WorkerId,
        batch: Vec<(WorkerId, Connection)>,
        error: &io::Error,
        events: &mut Loop,
    ) {
        // They were counted as this worker's.
        self.policy.done(id, batch.len());
        if channel::is_full(error) {
            self.set_blocked(id, error, events);
        } else if is_gone(error) {
            self.worker_lost(id, error);
        } else {
            self.rest("scm_send_msg: sendmsg", error, events);
            self.parked.extend(batch.into_iter().map(|(_, parked)| parked));
            return self.update_listeners(events);
        }
        for (_, parked) in batch {
            if let Some(parked) = self.hand_over(parked, events) {
                self.parked.push_back(parked);
                self.update_listeners(events);
            }
        }
    }

    fn send_together(
        &self,
        id: WorkerId,
        accept: &Accept,
        batch: &[(WorkerId, Connection)],
    ) -> io::Result<()> {
        let Some(worker) = self.workers.get(&id) else {
            return Err(io::Error::from_raw_os_error(libc::ENOTCONN));
        };
        if self.blocking() == Blocking::Yes {
            // A worker of ours that is configured as another program.
            for (_, parked) in batch {
                socket::set_nonblocking(&parked.socket, true)?;
            }
        }
        let sockets: Vec<_> = batch.iter().map(|(_, parked)| parked.socket.as_fd()).collect();
        let message = accept.encode_connections(sockets.len());
        channel::send_with(worker.channel.as_fd(), &message, &sockets)
    }

    /// A connection waits for a worker that is being started, but not for long if there is
    /// another one that can take it.
    fn wait_for_start(&mut self, events: &mut Loop) -> Choice {
        let now = events.now();
        let waited = self.oldest_start().map_or(0, |started| now.saturating_sub(started));
        if waited >= START_PATIENCE {
            return self.policy.fallback();
        }
        if self.resume.is_none() {
            let deadline = now + START_PATIENCE - waited;
            self.resume = Some(events.arm(Token::new(kind::RESUME, 0), deadline));
        }
        Choice::Wait
    }

    fn send(&self, id: WorkerId, parked: &Connection) -> io::Result<()> {
        match self.workers.get(&id) {
            Some(worker) => parked.send(worker.channel.as_fd()),
            None => Err(io::Error::from_raw_os_error(libc::ENOTCONN)),
        }
    }

    /// The key of a client, if stickiness is on for its listener.
    fn sticky_key(&self, index: usize, connection: &Connection) -> Option<Key> {
        if !self.sticky.holds_for(index) {
            return None;
        }
        let address = connection.client()?;
        let protocol = connection.accept.protocol as i32;
        let port = if protocol == 0 { 0 } else { self.listeners.port(index) };
        Some(Key { address, port, protocol })
    }

    /// Connections that the former image had accepted and no worker could take.
    pub(super) fn adopt_parked(&mut self, former: Vec<(String, OwnedFd)>, events: &mut Loop) {
        let mut refused = BTreeMap::new();
        for (key, socket) in former {
            let Some((listener, accept)) = self.listeners.find(&key) else {
                // What its listener has settled, TLS for one, is not known here.
                socket::reset_on_close(&socket);
                *refused.entry(key).or_insert(0) += 1;
                continue;
            };
            if self.blocking() == Blocking::No {
                // As those that are accepted here.
                let _ = socket::set_nonblocking(&socket, true);
            }
            let parked = Connection { socket, listener: Some(listener), accept, datagram: None };
            self.parked.push_back(parked);
        }
        for (key, count) in refused {
            log::message(&format!(
                "{count} connections that waited for a worker were closed: there is no listener \
                 {key} any more"
            ));
        }
        self.unpark(events);
    }

    /// Tries again to find workers for the connections that wait.
    pub(super) fn unpark(&mut self, events: &mut Loop) {
        if self.parked.is_empty() {
            return;
        }
        // Whoever calls knows better than the timer that it is time.
        if let Some(timer) = self.resume.take() {
            events.cancel(timer);
        }
        while let Some(parked) = self.parked.pop_front() {
            if let Some(parked) = self.hand_over(parked, events) {
                self.parked.push_front(parked);
                break;
            }
        }
        self.deliver(events);
        self.update_listeners(events);
    }

    /// Follows the total across the limit, in both directions.
    pub(super) fn check_overload(&mut self, events: &mut Loop) {
        let full = self.policy.is_full();
        if full == self.overloaded || !self.is_serving() {
            return;
        }
        self.overloaded = full;
        if full {
            let doing = text::doing(self.overload);
            let limit = self.policy.limit();
            log::braked(log::Kind::Limit, || text::full(limit, doing));
        } else {
            log::braked(log::Kind::Limit, || text::RESUMING.to_owned());
        }
        self.listeners.follow_limit(full, self.overload, events);
        self.update_listeners(events);
    }

    /// Single-process mode: sessions that have ended give their places back.
    pub(super) fn collect_local(&mut self, events: &mut Loop) {
        if let Some(local) = &mut self.local {
            let ended = local.turn(events);
            if ended > 0 {
                self.policy.done(LOCAL_WORKER, ended);
                self.check_overload(events);
            }
        }
    }

    /// Single-process mode: how many sessions the worker can have is up to it.
    pub(super) fn follow_local_limit(&mut self, events: &mut Loop) {
        let limit = self.local.as_ref().and_then(|local| local.limit());
        if limit.is_some_and(|limit| self.policy.set_users_max(limit)) {
            self.check_overload(events);
        }
    }

    /// Single-process mode: the one worker is this process.
    pub(super) fn start_local(&mut self) {
        self.policy.add(LOCAL_WORKER, true);
    }
}

/// True if a datagram is longer than the system lets it be.
fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMSGSIZE)
}

/// True if a send failed because nobody is at the other end.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::ECONNRESET
                | libc::ENOTCONN
                | libc::EPIPE
                | libc::EDESTADDRREQ
                | libc::EBADF
        )
    )
}

/// The relay inside the broker counts as the only worker.
const LOCAL_WORKER: WorkerId = WorkerId(0);
