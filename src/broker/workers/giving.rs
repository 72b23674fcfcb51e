//! Choosing a worker for a connection, and giving the connection to it.

use super::worker::{unblock, Worker};
use super::{Workers, LOCAL_WORKER};
use crate::broker::clients::Held;
use crate::broker::connection::Connection;
use crate::broker::policy::{Choice, WorkerId};
use crate::broker::sticky::Key;
use crate::channel::local::LocalWorker;
use crate::channel::protocol::Accept;
use crate::event::Loop;
use crate::os::socket::Blocking;
use crate::os::Socket;
use std::io;

impl Workers {
    /// When the oldest worker that is still starting was started.
    pub(in crate::broker) fn oldest_start(&self) -> Option<u64> {
        let starting = self.all.values().filter(|worker| worker.side.is_starting());
        starting.map(|worker| worker.started).min()
    }

    /// Chooses a worker for a connection of `client`, which is given if its listener remembers
    /// clients.
    pub(in crate::broker) fn choose(&self, client: Option<&(usize, Key)>, now: u64) -> Choice {
        let sticky = client.and_then(|(listener, key)| self.sticky.get(*listener, key, now));
        self.policy.choose(sticky)
    }

    /// True if clients of this listener are remembered.
    pub(in crate::broker) fn remembers(&self, listener: usize) -> bool {
        self.sticky.holds_for(listener)
    }

    /// Counts a connection that was given to a worker, and remembers the client.
    pub(in crate::broker) fn given(
        &mut self,
        id: WorkerId,
        client: Option<(usize, Key)>,
        now: u64,
    ) {
        self.policy.given(id);
        if let Some((listener, key)) = client {
            self.sticky.put(listener, key, id, now);
        }
    }

    /// Takes back connections that were counted, but could not be sent to the worker.
    pub(in crate::broker) fn not_given(&mut self, id: WorkerId, count: usize) {
        self.policy.done(id, count);
    }

    /// True if a worker takes several connections at once.
    pub(in crate::broker) fn takes_connections(&self, id: WorkerId) -> bool {
        self.all.get(&id).is_some_and(|worker| worker.side.takes_connections())
    }

    /// Sends a connection to a worker.
    pub(in crate::broker) fn send(
        &mut self,
        id: WorkerId,
        connection: &Connection,
        events: &mut Loop,
    ) -> io::Result<()> {
        let worker = self.reach(id)?;
        worker.send(connection)?;
        worker.note_sent(events.now());
        if connection.seat.is_some() {
            self.tell_of_uncounted();
        }
        self.watch_soon(events);
        Ok(())
    }

    /// Sends connections with the same [`Accept`] to a worker that takes several at once.
    pub(in crate::broker) fn send_together<'a>(
        &mut self,
        id: WorkerId,
        accept: &Accept,
        sockets: impl Iterator<Item = &'a Socket> + Clone,
        events: &mut Loop,
    ) -> io::Result<()> {
        if self.blocking() == Blocking::Yes {
            // A worker of ours that `exec` names, so its sockets were accepted for another program.
            unblock(sockets.clone())?;
        }
        let worker = self.reach(id)?;
        worker.send_together(accept, sockets)?;
        worker.note_sent(events.now());
        self.watch_soon(events);
        Ok(())
    }

    /// A worker has got these connections, whose clients' sessions are counted.
    pub(in crate::broker) fn seat(
        &mut self,
        id: WorkerId,
        connections: impl Iterator<Item = Connection>,
    ) {
        let worker = self.all.get_mut(&id).filter(|worker| worker.side.tells_clients());
        let Some(worker) = worker else {
            self.tell_of_uncounted();
            return drop(connections);
        };
        for connection in connections {
            if let Some(seat) = connection.seat {
                worker.held.add(seat.number(), seat);
            }
        }
    }

    fn reach(&mut self, id: WorkerId) -> io::Result<&mut Worker> {
        self.all.get_mut(&id).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOTCONN))
    }

    /// Gives a connection to the relay in this process.
    pub(in crate::broker) fn give_local(&mut self, connection: Connection, events: &mut Loop) {
        if let Some(local) = self.local_mut() {
            local.accept(events, connection.socket, &connection.accept);
            self.policy.given(LOCAL_WORKER);
            if let Some(seat) = connection.seat {
                self.local_clients.add(seat.number(), seat);
            }
        }
    }

    /// Single-process mode: subtracts the sessions that have ended.
    pub(in crate::broker) fn collect_local(&mut self, events: &mut Loop) {
        if let Some(local) = self.local_mut() {
            let ended = local.turn(events);
            match local.left() {
                Some(numbers) => {
                    for number in numbers {
                        self.local_clients.give_back(number);
                    }
                }
                None if self.clients.counts_sessions() => {
                    self.local_clients = Held::default();
                    self.tell_of_uncounted();
                }
                None => {}
            }
            self.policy.done(LOCAL_WORKER, ended);
        }
    }

    /// Single-process mode: the worker may change its limit of sessions at any time. True if it
    /// has.
    pub(in crate::broker) fn follow_local_limit(&mut self) -> bool {
        let limit = self.local().and_then(LocalWorker::limit);
        limit.is_some_and(|limit| self.policy.set_users_max(limit))
    }
}
