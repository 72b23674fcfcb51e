//! A client on its way from a listener to a worker.

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
}

impl Connection {
    /// The client's address; `None` for a local client.
    pub fn client(&self) -> Option<ScopedIp> {
        let client = self.socket.peer_address()?.scoped_ip()?;
        Some(ScopedIp { ip: unmapped(client.ip), ..client })
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
