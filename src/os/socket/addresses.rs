//! The addresses of a socket's ends.

use super::protocol::{Kind, Protocol};
use super::{Listener, Socket};
use crate::os::address::{Address, RawAddress};
use crate::os::check;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

/// What has an address of its own.
pub trait Addressed: AsRawFd {
    /// bind(2).
    fn bind(&self, address: &Address) -> io::Result<()> {
        bind(self.as_raw_fd(), address)
    }

    /// The address this socket is bound to.
    fn local_address(&self) -> Option<Address> {
        let mut raw = RawAddress::empty();
        let (pointer, length) = (raw.as_mut_ptr(), raw.length_mut() as *mut _);
        // SAFETY: both pointers are into `raw`, whose length field tells the room there is.
        check(unsafe { libc::getsockname(self.as_raw_fd(), pointer, length) }).ok()?;
        raw.to_address()
    }
}

impl Addressed for Socket {}
impl Addressed for Listener {}

impl Socket {
    /// The address of the other end; `None` if the socket is not connected, or if the other end has
    /// no name.
    pub fn peer_address(&self) -> Option<Address> {
        let mut raw = RawAddress::empty();
        let (pointer, length) = (raw.as_mut_ptr(), raw.length_mut() as *mut _);
        // SAFETY: both pointers are into `raw`, whose length field tells the room there is.
        check(unsafe { libc::getpeername(self.as_raw_fd(), pointer, length) }).ok()?;
        raw.to_address()
    }
}

pub(in crate::os) fn bind(fd: RawFd, address: &Address) -> io::Result<()> {
    let raw = RawAddress::from(address);
    // SAFETY: the pointer and the length describe `raw`, which outlives the call.
    check(unsafe { libc::bind(fd, raw.as_ptr(), raw.length()) }).map(drop)
}

/// True if packets to `address` stay on this host. Sends nothing: for one of the host's own
/// addresses the kernel picks the same address as the source.
pub fn is_local(address: SocketAddr) -> bool {
    if address.ip().to_canonical().is_loopback() || address.ip().is_unspecified() {
        return true;
    }
    let address = Address::Ip(address);
    let Ok(socket) = Socket::new(address.family(), Kind::Datagram, Protocol::Udp) else {
        return false;
    };
    socket.connect(&address).is_ok()
        && socket.local_address().and_then(|local| local.scoped_ip()) == address.scoped_ip()
}
