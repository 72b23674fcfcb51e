//! Connections on their way to workers: those assigned to one in this turn, and those that wait.

use super::clients::ClientTable;
use super::connection::Connection;
use super::kind;
use super::listeners::Listeners;
use super::policy::{Choice, WorkerId};
use super::sticky::Key;
use super::workers::Workers;
use crate::channel::protocol::Accept;
use crate::event::{Loop, TimerId, Token};
use crate::os::socket::{Blocking, Options, Socket};
use crate::os::{self, channel, log};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// How long a connection waits for a worker that is starting, in milliseconds.
const START_PATIENCE: u64 = 1000;

/// How long accepting pauses when the process has run out of descriptors or memory, in
/// milliseconds.
const REST: u64 = 200;

/// Connections that no worker has yet.
#[derive(Default)]
pub(super) struct Dispatch {
    /// No worker can take these at the moment; they wait in the order of their arrival.
    parked: VecDeque<Connection>,
    /// Assigned this turn; sent in batches when it ends.
    outbox: Vec<(WorkerId, Connection)>,
    /// Armed while accepting pauses, or while a connection waits for a worker to start.
    resume: Option<TimerId>,
    /// Trouble was logged; it is not logged again until accepting works.
    trouble: bool,
}

impl Dispatch {
    /// True while nothing more may be taken from the listeners.
    pub(super) fn is_busy(&self) -> bool {
        self.resume.is_some() || !self.parked.is_empty()
    }

    /// Assigns a connection to a worker, or lets it wait. Connections for workers that take several
    /// at once are not sent before the next [`deliver`](Self::deliver).
    pub(super) fn take(
        &mut self,
        connection: Connection,
        workers: &mut Workers,
        listeners: &Listeners,
        events: &mut Loop,
    ) {
        let before = std::mem::take(&mut self.trouble);
        if let Some(connection) = self.hand_over(connection, workers, listeners, events) {
            self.parked.push_back(connection);
        }
        // An accepted connection that no worker takes does not show that the trouble is over.
        self.trouble |= before && !self.parked.is_empty();
    }

    /// Pauses accepting for a moment: the system is out of some resource.
    pub(super) fn rest(&mut self, call: &str, error: &io::Error, events: &mut Loop) {
        if !std::mem::replace(&mut self.trouble, true) {
            log::braked(log::Kind::Accept, || format!("{call}: {}", os::reason(error)));
        }
        if self.resume.is_none() {
            self.resume = Some(events.arm(Token::new(kind::RESUME, 0), events.now() + REST));
        }
    }

    /// True while nothing is accepted, as that has failed.
    pub(super) fn is_resting(&self) -> bool {
        self.resume.is_some()
    }

    /// How many connections wait for a worker.
    pub(super) fn waiting(&self) -> usize {
        self.parked.len()
    }

    /// A connection was accepted, though not admitted: accepting works.
    pub(super) fn accepting_works(&mut self) {
        self.trouble = false;
    }

    /// The pause is over.
    pub(super) fn rested(&mut self) {
        self.resume = None;
    }

    /// Finds a worker and sends it the connection; returns the connection if no worker can take it
    /// now.
    fn hand_over(
        &mut self,
        connection: Connection,
        workers: &mut Workers,
        listeners: &Listeners,
        events: &mut Loop,
    ) -> Option<Connection> {
        if workers.local().is_some() {
            workers.give_local(connection, events);
            return None;
        }
        let client = client(&connection, workers, listeners);
        // Every turn returns, or starts, blocks or loses a worker; bound the loop all the same.
        for _ in 0..2 * (workers.policy().limits().instances_max + 1) {
            let chosen = match workers.choose(client.as_ref(), events.now()) {
                Choice::Worker(id) => id,
                // A worker that cannot be started must not keep the others from serving.
                Choice::Start if workers.start(events) => continue,
                Choice::Start => match workers.policy().fallback() {
                    Choice::Worker(id) => id,
                    _ => return Some(connection),
                },
                Choice::Wait => match self.wait_for_start(workers, events) {
                    Choice::Worker(id) => id,
                    _ => return Some(connection),
                },
                Choice::Nobody => return Some(connection),
            };
            let together = connection.datagram.is_none() && workers.takes_connections(chosen);
            let sent = if together { Ok(()) } else { workers.send(chosen, &connection, events) };
            match sent {
                Ok(()) => {
                    workers.given(chosen, client, events.now());
                    if together {
                        self.outbox.push((chosen, connection));
                    }
                    return None;
                }
                Err(error) if channel::is_full(&error) => {
                    workers.set_blocked(chosen, &error, events);
                }
                Err(error) if is_gone(&error) => workers.lost(chosen, &error),
                Err(error) if is_too_long(&error) && connection.datagram.is_some() => {
                    log::braked(log::Kind::Datagram, || {
                        let length = connection.datagram.as_ref().map_or(0, Vec::len);
                        format!(
                            "a datagram of {length} bytes is too long for the channel to a worker"
                        )
                    });
                    return None;
                }
                // Too many descriptors in flight, or no memory: temporary, and not the worker's
                // fault.
                Err(error) => {
                    self.rest("scm_send_msg: sendmsg", &error, events);
                    break;
                }
            }
        }
        Some(connection)
    }

    /// Sends the connections assigned in this turn, those for the same worker together.
    pub(super) fn deliver(
        &mut self,
        workers: &mut Workers,
        listeners: &Listeners,
        events: &mut Loop,
    ) {
        let place = |(id, connection): &(WorkerId, Connection)| (*id, connection.accept);
        while !self.outbox.is_empty() {
            let mut outbox = std::mem::take(&mut self.outbox);
            outbox.sort_by_key(place);
            while let Some((id, accept)) = outbox.last().map(place) {
                let same = outbox.iter().rev().take_while(|next| place(next) == (id, accept));
                let rest = outbox.len() - same.take(channel::DESCRIPTORS).count();
                let sockets = outbox[rest..].iter().map(|(_, connection)| &connection.socket);
                match workers.send_together(id, &accept, sockets, events) {
                    Ok(()) if workers.clients().counts_sessions() => {
                        let sent = outbox.drain(rest..).map(|(_, connection)| connection);
                        workers.seat(id, sent);
                    }
                    Ok(()) => outbox.truncate(rest),
                    Err(error) => {
                        let batch = outbox.split_off(rest);
                        self.not_delivered(id, batch, &error, workers, listeners, events);
                    }
                }
            }
            if self.outbox.is_empty() {
                // Keep the allocation for the next turn.
                self.outbox = outbox;
                break;
            }
        }
    }

    /// These connections could not be sent to their worker.
    fn not_delivered(
        &mut self,
        id: WorkerId,
        batch: Vec<(WorkerId, Connection)>,
        error: &io::Error,
        workers: &mut Workers,
        listeners: &Listeners,
        events: &mut Loop,
    ) {
        workers.not_given(id, batch.len());
        let batch = batch.into_iter().map(|(_, connection)| connection);
        if channel::is_full(error) {
            workers.set_blocked(id, error, events);
        } else if is_gone(error) {
            workers.lost(id, error);
        } else {
            self.rest("scm_send_msg: sendmsg", error, events);
            self.parked.extend(batch);
            return;
        }
        for connection in batch {
            if let Some(connection) = self.hand_over(connection, workers, listeners, events) {
                self.parked.push_back(connection);
            }
        }
    }

    /// Lets a connection wait for a worker that is starting, but not for long if another worker can
    /// take it.
    fn wait_for_start(&mut self, workers: &Workers, events: &mut Loop) -> Choice {
        let now = events.now();
        let waited = workers.oldest_start().map_or(0, |started| now.saturating_sub(started));
        if waited >= START_PATIENCE {
            return workers.policy().fallback();
        }
        if self.resume.is_none() {
            let deadline = now + START_PATIENCE - waited;
            self.resume = Some(events.arm(Token::new(kind::RESUME, 0), deadline));
        }
        Choice::Wait
    }

    /// Tries again to find workers for the connections that wait.
    pub(super) fn unpark(
        &mut self,
        workers: &mut Workers,
        listeners: &Listeners,
        events: &mut Loop,
    ) {
        if self.parked.is_empty() {
            return;
        }
        // The caller knows better than the timer that it is time.
        if let Some(timer) = self.resume.take() {
            events.cancel(timer);
        }
        while let Some(connection) = self.parked.pop_front() {
            if let Some(connection) = self.hand_over(connection, workers, listeners, events) {
                self.parked.push_front(connection);
                break;
            }
        }
        self.deliver(workers, listeners, events);
    }

    /// Takes connections back from the channel of a worker that does not read it, as long as other
    /// workers can take them.
    pub(super) fn take_back(
        &mut self,
        id: WorkerId,
        workers: &mut Workers,
        listeners: &Listeners,
        events: &mut Loop,
    ) {
        workers.start_for_others(events);
        while self.parked.is_empty() && workers.can_take_over() {
            match workers.take_back(id, events) {
                Ok(Some(found)) => {
                    self.adopt(found, listeners, workers);
                    self.unpark(workers, listeners, events);
                }
                Ok(None) => return,
                Err(error) => return self.rest("scm_recv_msg: recvmsg", &error, events),
            }
        }
    }

    /// Gives others the connections left unread by workers that are gone.
    pub(super) fn place_orphans(
        &mut self,
        workers: &mut Workers,
        listeners: &Listeners,
        events: &mut Loop,
    ) {
        while !self.is_busy() {
            match workers.next_orphans() {
                Ok(Some(found)) => {
                    self.adopt(found, listeners, workers);
                    self.unpark(workers, listeners, events);
                }
                Ok(None) => return,
                Err(error) => return self.rest("scm_recv_msg: recvmsg", &error, events),
            }
        }
    }

    /// Queues connections taken back from workers.
    pub(super) fn adopt(
        &mut self,
        found: Vec<Connection>,
        listeners: &Listeners,
        workers: &Workers,
    ) {
        for mut connection in found {
            connection.enter(workers.clients());
            connection.listener = listeners.that_tells(&connection.accept);
            connection.name_listener();
            self.parked.push_back(connection);
        }
    }

    /// Queues connections that the former image had accepted and no worker could take.
    pub(super) fn adopt_former(
        &mut self,
        former: Vec<(String, Socket)>,
        blocking: Blocking,
        listeners: &Listeners,
        clients: &ClientTable,
    ) {
        let mut refused = BTreeMap::new();
        for (key, socket) in former {
            let Some(listener) = listeners.find(&key) else {
                // Reset it: without its listener the settings, TLS for one, are unknown.
                socket.reset_on_close();
                *refused.entry(key).or_insert(0) += 1;
                continue;
            };
            let Some(accept) = listeners.accept_of(listener, &socket) else {
                continue;
            };
            if blocking == Blocking::No {
                // Nonblocking, like connections accepted here.
                let _ = socket.set_nonblocking();
            }
            let listener = Some(listener);
            let mut connection =
                Connection { socket, listener, accept, datagram: None, seat: None };
            connection.enter(clients);
            connection.name_listener();
            self.parked.push_back(connection);
        }
        for (key, count) in refused {
            log::message(&format!(
                "{count} connections that waited for a worker were closed: there is no listener \
                 {key} any more"
            ));
        }
    }

    /// Waiting connections with the keys of their listeners, for the next image. Datagrams are
    /// dropped, as a network may drop them too.
    pub(super) fn left<'a>(&'a self, listeners: &Listeners) -> Vec<(String, BorrowedFd<'a>)> {
        let waiting = self.parked.iter().filter(|connection| connection.datagram.is_none());
        waiting
            .map(|connection| {
                // A connection that was taken back may belong to a listener that is gone. The next
                // image refuses it, and logs that.
                let gone = || "of a former configuration".to_owned();
                let key = connection.listener.map_or_else(gone, |index| listeners.key(index));
                (key, connection.socket.as_fd())
            })
            .collect()
    }

    /// In a child that keeps the open sessions: the waiting connections stay the parent's.
    pub(super) fn forget(&mut self) {
        self.parked.clear();
    }

    /// Closes the waiting connections, as no worker can take them now, and logs that.
    pub(super) fn refuse_all(&mut self) {
        let parked = std::mem::take(&mut self.parked);
        let count = parked.len();
        for connection in parked {
            connection.socket.reset_on_close();
        }
        if count > 0 {
            log::message(&format!("{count} connections that no worker could take were closed"));
        }
    }
}

/// The key by which a client is remembered; `None` if its listener remembers no clients.
fn client(
    connection: &Connection,
    workers: &Workers,
    listeners: &Listeners,
) -> Option<(usize, Key)> {
    let listener = connection.listener.filter(|&listener| workers.remembers(listener))?;
    let Accept { protocol, .. } = connection.accept;
    let port = if protocol == 0 { 0 } else { listeners.port(listener) };
    Some((listener, Key { address: connection.client()?, port, protocol: protocol as i32 }))
}

/// True if the system refuses to send a datagram of that length.
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
