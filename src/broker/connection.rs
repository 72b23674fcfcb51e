//! A client on its way from a listener to a worker.

use super::clients::{ClientTable, Seat};
use crate::channel::protocol::Accept;
use crate::os::address::{unmapped, ScopedIp};
use crate::os::{Channel, Socket};
use std::io;
use std::os::fd::AsFd;

/// An accepted connection, or a datagram with a socket that is connected to its sender.
#[derive(Debug)]
pub struct Connection {
    /// The socket.
    pub socket: Socket,
    /// The listener it came from, if that still exists.
    pub listener: Option<usize>,
    /// What the worker is told about it.
    pub accept: Accept,
    /// The data of a datagram.
    pub datagram: Option<Vec<u8>>,
    /// Its place among the sessions of its client, if these are counted.
    pub(super) seat: Option<Seat>,
}

impl Connection {
    /// The client's address; `None` for a local client.
    pub fn client(&self) -> Option<ScopedIp> {
        let client = self.socket.peer_address()?.scoped_ip()?;
        Some(ScopedIp { ip: unmapped(client.ip), ..client })
    }

    /// Tells the worker from which listener it comes, by the number among those there are now.
    pub(super) fn name_listener(&mut self) {
        self.accept.listener = self.listener.map_or(0, |listener| listener as u32 + 1);
    }

    /// It was admitted before: it has a place again, if places are counted.
    pub(super) fn enter(&mut self, clients: &ClientTable) {
        self.accept.client = 0;
        if clients.counts_sessions() {
            self.set_seat(self.client().and_then(|client| clients.enter(client)));
        }
    }

    /// Its place among the sessions of its client.
    pub(super) fn set_seat(&mut self, seat: Option<Seat>) {
        self.accept.client = seat.as_ref().map_or(0, Seat::number);
        self.seat = seat;
    }

    /// The message to the worker, as C code sends it.
    pub fn message(&self) -> Vec<u8> {
        match &self.datagram {
            Some(data) => self.accept.encode_datagram(data),
            None => self.accept.encode().to_vec(),
        }
    }

    /// Sends the connection to the worker at the other end of `channel`. The socket stays open
    /// here.
    pub fn send(&self, channel: &Channel) -> io::Result<()> {
        let socket = Some(self.socket.as_fd());
        match &self.datagram {
            Some(data) => channel.send(&self.accept.encode_datagram(data), socket),
            None => channel.send(&self.accept.encode(), socket),
        }
    }
}
