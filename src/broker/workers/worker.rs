//! One worker process, and the broker's end of its channel.

use super::flow::Flow;
use crate::broker::clients::Held;
use crate::broker::connection::Connection;
use crate::channel::broker_side::BrokerSide;
use crate::channel::protocol::{secrets_length, secrets_message, Accept, FromBroker};
use crate::event::{Interest, Loop, Token};
use crate::os::channel::{self, Unread};
use crate::os::process::Pid;
use crate::os::secret::{wipe, Secret};
use crate::os::socket::Options;
use crate::os::{log, Channel, Socket};
use crate::snapshot::material::Material;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

/// A worker process, as the broker knows it.
pub(super) struct Worker {
    pub(super) pid: Pid,
    pub(super) started: u64,
    /// The state of the protocol with it.
    pub(super) side: BrokerSide,
    /// How well it reads its channel.
    pub(super) flow: Flow,
    /// It was sent a connection.
    pub(super) served: bool,
    /// Connections it still has. Counted here once it leaves; until then by the policy.
    pub(super) users: usize,
    /// The clients of its sessions, if they are counted.
    pub(super) held: Held,
    channel: Channel,
    /// A copy of the worker's end, from which the broker takes back what the worker does not read.
    inbox: Option<Channel>,
    /// An invalid message from it was logged.
    remarked: bool,
    /// MAY_DIE is to be sent as soon as the channel has room.
    farewell_due: bool,
    /// The files for TLS that belong to the texts it was started with.
    material: Rc<Material>,
    /// A stream to the process with the private keys, to be sent first.
    signer: Option<Socket>,
    /// The reopened log file, to be sent.
    log_file: Option<OwnedFd>,
    /// Such a stream, or such a file, was taken out of its channel, which it does not read.
    pub(super) without_signer: bool,
    pub(super) without_log: bool,
    /// The answer to HELLO, and how much of it was sent.
    secrets: Option<(Secret, usize)>,
}

impl Worker {
    /// A worker at the other end of `channel`. `inbox` is a copy of its own end, if there is one.
    pub(super) fn new(
        pid: Pid,
        channel: Channel,
        inbox: Option<Channel>,
        side: BrokerSide,
        material: Rc<Material>,
        now: u64,
    ) -> Worker {
        channel.refuse_descriptors();
        let unread = inbox.as_ref().map_or(Unread::Nothing, |inbox| channel.unread(inbox));
        Worker {
            pid,
            started: now,
            side,
            flow: Flow::with(unread, now),
            served: false,
            users: 0,
            held: Held::default(),
            channel,
            inbox,
            remarked: false,
            farewell_due: false,
            material,
            signer: None,
            log_file: None,
            without_signer: false,
            without_log: false,
            secrets: None,
        }
    }

    /// The files for TLS that belong to the texts it was started with.
    pub(super) fn material(&self) -> &Material {
        &self.material
    }

    /// Starts to watch its channel.
    pub(super) fn register(&self, token: Token, events: &mut Loop) {
        events.register(&self.channel, token, Interest::READ);
    }

    /// Stops watching its channel, without forgetting it.
    pub(super) fn ignore(&self, events: &mut Loop) {
        events.set_interest(&self.channel, Interest::empty());
    }

    /// Forgets its channel, which is about to be closed.
    pub(super) fn unregister(&self, events: &mut Loop) {
        events.remove(&self.channel);
    }

    /// Our end of its channel.
    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The copy of the worker's end.
    pub(super) fn inbox(&self) -> Option<&Channel> {
        self.inbox.as_ref()
    }

    /// Gives away the copy of the worker's end.
    pub(super) fn take_inbox(&mut self) -> Option<Channel> {
        self.inbox.take()
    }

    /// What it has not read yet; `None` without a copy of its end.
    pub(super) fn unread(&self) -> Option<Unread> {
        Some(self.channel.unread(self.inbox.as_ref()?))
    }

    /// True the first time: only the first invalid message of a worker is logged.
    pub(super) fn remark(&mut self) -> bool {
        !std::mem::replace(&mut self.remarked, true)
    }

    /// The channel is full: waits until it has room.
    pub(super) fn await_room(&self, why: &io::Error, events: &mut Loop) {
        events.set_interest(&self.channel, Interest::READ | Interest::in_room(why));
    }

    /// The channel has room: sends what is due.
    pub(super) fn has_room(&mut self, events: &mut Loop) {
        events.set_interest(&self.channel, Interest::READ);
        self.send_due(events);
        if self.farewell_due {
            self.farewell(events);
        }
    }

    /// Sends it nothing more.
    pub(super) fn abandon(&mut self) {
        self.secrets = None;
        self.signer = None;
        self.log_file = None;
        self.farewell_due = false;
    }

    /// Sends one connection.
    pub(super) fn send(&self, connection: &Connection) -> io::Result<()> {
        connection.send(self.channel())
    }

    /// Sends up to [`channel::DESCRIPTORS`] connections with the same [`Accept`]; their sockets must
    /// not block.
    pub(super) fn send_together<'a>(
        &self,
        accept: &Accept,
        sockets: impl Iterator<Item = &'a Socket>,
    ) -> io::Result<()> {
        let mut all = [self.channel.as_fd(); channel::DESCRIPTORS];
        let mut count = 0;
        for (place, socket) in all.iter_mut().zip(sockets) {
            *place = socket.as_fd();
            count += 1;
        }
        self.channel.send_with(&accept.encode_connections(count), &all[..count])
    }

    /// It was sent connections.
    pub(super) fn note_sent(&mut self, now: u64) {
        self.served = true;
        self.flow.sent(now);
    }

    /// Sends it its slot in the zone.
    pub(super) fn tell_zone(&self, slot: usize, zone: BorrowedFd<'_>) {
        self.tell(&FromBroker::zone(slot), zone);
    }

    /// Sends it a part of the answer to HELLO. If the channel has no room for that, it does without;
    /// only the secrets are sent later.
    pub(super) fn tell(&self, message: &[u8], descriptor: BorrowedFd<'_>) {
        let _ = self.channel.send(message, Some(descriptor));
    }

    /// Begins the answer to HELLO.
    pub(super) fn answer(&mut self, secrets: Secret, events: &mut Loop) {
        self.secrets = Some((secrets, 0));
        self.send_due(events);
    }

    /// Sends it a stream to the process with the private keys.
    pub(super) fn give_signer(&mut self, stream: Socket, events: &mut Loop) {
        self.signer = Some(stream);
        self.send_due(events);
    }

    /// Sends it the log file.
    pub(super) fn give_log(&mut self, events: &mut Loop) {
        self.log_file = log::copy_of_file();
        self.send_due(events);
    }

    /// Sends what is due, as long as the channel has room.
    fn send_due(&mut self, events: &mut Loop) {
        if let Some(file) = self.log_file.take() {
            match self.channel.send(&FromBroker::log(), Some(file.as_fd())) {
                Err(error) if channel::is_full(&error) => {
                    self.log_file = Some(file);
                    return self.await_room(&error, events);
                }
                // If the worker is gone, SIGCHLD is on its way.
                _ => {}
            }
        }
        if let Some(stream) = self.signer.take() {
            let message = FromBroker::signer();
            match self.channel.send(&message, Some(stream.as_fd())) {
                Err(error) if channel::is_full(&error) => {
                    self.signer = Some(stream);
                    return self.await_room(&error, events);
                }
                // If the worker is gone, SIGCHLD is on its way.
                _ => {}
            }
        }
        while let Some((data, sent)) = &mut self.secrets {
            let mut message = secrets_message(data, *sent);
            let length = secrets_length(&message);
            let result = self.channel.send(&message, None);
            wipe(&mut message);
            match result {
                Ok(()) => *sent += length,
                Err(error) if channel::is_full(&error) => {
                    return self.await_room(&error, events);
                }
                // The worker is gone; SIGCHLD is on its way.
                Err(_) => *sent = data.len(),
            }
            if *sent == data.len() {
                self.secrets = None;
            }
        }
    }

    /// Sends MAY_DIE, now or as soon as the channel has room.
    pub(super) fn farewell(&mut self, events: &mut Loop) {
        match self.channel.send(&FromBroker::may_die(), None) {
            Err(error) if channel::is_full(&error) => {
                self.farewell_due = true;
                self.await_room(&error, events);
            }
            // If the worker is gone, SIGCHLD is on its way.
            _ => self.farewell_due = false,
        }
    }

    /// Puts a message into the emptied channel, which the worker has to read. If there is no room
    /// for that, the channel still counts as not emptied, and this is done again.
    pub(super) fn probe(&mut self, events: &mut Loop) {
        if self.side.is_leaving() {
            // MAY_DIE was taken out with the rest.
            self.farewell(events);
        } else if self.channel.send(&FromBroker::probe(), None).is_err() {
            return;
        }
        self.flow.emptied();
    }
}

/// Makes the sockets of connections nonblocking, as a worker that takes several at once expects
/// them.
pub(super) fn unblock<'a>(sockets: impl Iterator<Item = &'a Socket>) -> io::Result<()> {
    for socket in sockets {
        socket.set_nonblocking()?;
    }
    Ok(())
}
