//! A client on its way from a listener to a worker.

use crate::channel::protocol::Accept;
use crate::os::address::{unmapped, ScopedIp};
use crate::os::{channel, socket};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// An accepted connection, or a datagram with a socket that is connected to its sender.
#[derive(Debug)]
pub struct Connection {
    /// The socket.
    pub socket: OwnedFd,
    /// Where it came from, if that listener is still there.
    pub listener: Option<usize>,
    /// What a worker is told about it.
    pub accept: Accept,
    /// What the client has sent, of a datagram.
    pub datagram: Option<Vec<u8>>,
}

impl Connection {
    /// The client's address; `None` if it is a local one.
    pub fn client(&self) -> Option<ScopedIp> {
        let client = socket::peer_address(&self.socket)?.scoped_ip()?;
        Some(ScopedIp { ip: unmapped(client.ip), ..client })
    }

    /// What a worker is told, as C code sends it.
    pub fn message(&self) -> Vec<u8> {
        match &self.datagram {
            Some(data) => self.accept.encode_datagram(data),
            None => self.accept.encode().to_vec(),
        }
    }

    /// Sends it to the worker at the other end of a channel. It stays open here.
    pub fn send(&self, channel: BorrowedFd<'_>) -> io::Result<()> {
        let socket = Some(self.socket.as_fd());
        match &self.datagram {
            Some(data) => channel::send(channel, &self.accept.encode_datagram(data), socket),
            None => channel::send(channel, &self.accept.encode(), socket),
        }
    }
}
