//! What a descriptor is that the process was started with.

use super::get_option;
use crate::os::address::RawAddress;
use std::os::fd::RawFd;

/// The kinds of descriptor that a process may have been started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inherited {
    /// Our end of a broker's channel: a connected, unnamed UNIX datagram socket.
    Channel,
    /// A listening stream socket (inetd wait mode, socket activation).
    Listener,
    /// Anything else: a terminal, a file, a connected socket, nothing at all.
    Other,
}

/// Finds out what an inherited descriptor is, without changing it.
pub fn inspect(fd: RawFd) -> Inherited {
    let option = |name| get_option::<libc::c_int>(fd, libc::SOL_SOCKET, name);
    let Ok(kind) = option(libc::SO_TYPE) else {
        return Inherited::Other;
    };
    if kind == libc::SOCK_DGRAM {
        // One end of a socketpair has family AF_UNIX and an unnamed peer. A library's syslog
        // socket, for example, has a named peer.
        let mut raw = RawAddress::empty();
        let (pointer, length) = (raw.as_mut_ptr(), raw.length_mut() as *mut _);
        // SAFETY: both pointers are into `raw`, whose length field tells the room there is.
        let own = unsafe { libc::getsockname(fd, pointer, length) };
        // SAFETY: a sockaddr begins with its family.
        let family = i32::from(unsafe { (*raw.as_ptr()).sa_family });
        // These systems may return nothing about an unnamed socket, not even its family.
        #[cfg(any(target_os = "solaris", target_os = "illumos"))]
        let family = option(libc::SO_DOMAIN).unwrap_or(family);
        let unix = family == libc::AF_UNIX;
        let mut peer = RawAddress::empty();
        let (pointer, length) = (peer.as_mut_ptr(), peer.length_mut() as *mut _);
        // SAFETY: both pointers are into `peer`, whose length field tells the room there is.
        let connected = unsafe { libc::getpeername(fd, pointer, length) } == 0;
        // A channel whose broker has already gone is no longer connected, but is still a channel.
        let named = peer.to_address().is_some() && connected;
        return if own == 0 && unix && raw.to_address().is_none() && !named {
            Inherited::Channel
        } else {
            Inherited::Other
        };
    }
    match option(libc::SO_ACCEPTCONN) {
        Ok(1..) if kind == libc::SOCK_STREAM => Inherited::Listener,
        _ => Inherited::Other,
    }
}
