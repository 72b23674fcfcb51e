//! Sockets that clients come to.

use super::options::{get_option, set_option, Options};
use super::protocol::{Kind, Protocol};
use super::{create, Socket};
use crate::os::address::{Address, Family, RawAddress};
use crate::os::descriptor::{self, own};
use crate::os::{check, check_size};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::{io, ptr};

/// A stream socket that listens, or will, or a datagram socket that is bound.
#[derive(Debug)]
pub struct Listener(OwnedFd);

descriptor::owner!(Listener, from TcpListener, from UnixListener);

impl Options for Listener {}

/// Whether calls wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// They fail with EAGAIN instead.
    No,
    /// They wait.
    Yes,
}

impl Blocking {
    #[cfg(any(
        event_shims,
        not(any(target_os = "linux", target_os = "android", target_os = "freebsd"))
    ))]
    fn apply(self, fd: &OwnedFd) -> io::Result<()> {
        match self {
            Blocking::No => descriptor::set_nonblocking(fd),
            Blocking::Yes => descriptor::set_blocking(fd),
        }
    }
}

/// Whose connections an IPv6 socket takes (IPV6_V6ONLY).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// IPv6 only.
    Ipv6,
    /// IPv4 as well.
    Both,
}

/// The largest backlog that the system allows: listen(2) lowers this number to the limit
/// (SOMAXCONN; on Linux net.core.somaxconn).
pub const MOST_BACKLOG: i32 = i32::MAX;

impl Listener {
    /// A socket that does not block, and that programs started later do not get. `protocol` is
    /// ignored for UNIX sockets.
    pub fn new(family: Family, kind: Kind, protocol: Protocol) -> io::Result<Listener> {
        create(family, kind, protocol).map(Listener)
    }

    /// listen(2); may be called again to change the backlog.
    pub fn listen(&self, backlog: i32) -> io::Result<()> {
        // SAFETY: listen(2) takes plain numbers.
        check(unsafe { libc::listen(self.as_raw_fd(), backlog) }).map(drop)
    }

    /// Accepts one connection; programs started later do not get it. `blocking` is for the new
    /// socket.
    pub fn accept(&self, blocking: Blocking) -> io::Result<Socket> {
        loop {
            match accept_once(self, blocking) {
                Ok(new) => {
                    // accept(2) on the BSDs passes on the listener's O_NONBLOCK. accept4(2) does
                    // not on the systems excluded here, according to their manuals; we do not know
                    // about the others.
                    #[cfg(any(
                        event_shims,
                        not(any(
                            target_os = "linux",
                            target_os = "android",
                            target_os = "freebsd"
                        ))
                    ))]
                    blocking.apply(&new)?;
                    return Ok(Socket::from(new));
                }
                // The client gave up between its SYN and our accept(2): take the next one.
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::EINTR | libc::ECONNABORTED | libc::EPROTO)
                    ) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Receives one datagram and the address of its sender (UDP listeners).
    pub fn receive_from(&self, buffer: &mut [u8]) -> io::Result<(usize, Option<Address>)> {
        let mut raw = RawAddress::empty();
        let (pointer, length) = (raw.as_mut_ptr(), raw.length_mut() as *mut _);
        // SAFETY: the buffer's pointer and length describe `buffer`; the address pointers are into
        // `raw`, whose length field tells the room there is.
        let count = check_size(unsafe {
            libc::recvfrom(
                self.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                0,
                pointer,
                length,
            )
        })?;
        Ok((count, raw.to_address()))
    }

    /// Whose connections an IPv6 socket takes.
    pub fn families(&self) -> io::Result<Families> {
        let value: libc::c_int =
            get_option(self.as_raw_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)?;
        Ok(if value == 0 { Families::Both } else { Families::Ipv6 })
    }

    /// Sets whose connections an IPv6 socket takes; call it before bind(2).
    pub fn set_families(&self, families: Families) -> io::Result<()> {
        let only = libc::c_int::from(families == Families::Ipv6);
        set_option(self.as_raw_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, only)
    }

    /// Lets other listening sockets of this user share the address, with connections spread over
    /// them. Every one of them must set this before it is bound.
    pub fn share_port(&self) -> io::Result<()> {
        let option = SHARED_PORT.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOPROTOOPT))?;
        set_option(self.as_raw_fd(), libc::SOL_SOCKET, option, 1i32)
    }

    /// True if [`share_port`](Self::share_port) was applied to this socket.
    pub fn shares_port(&self) -> bool {
        let value = |option| get_option::<libc::c_int>(self.as_raw_fd(), libc::SOL_SOCKET, option);
        SHARED_PORT.is_some_and(|option| value(option).is_ok_and(|value| value != 0))
    }
}

#[cfg(event_shims)]
extern "C" {
    /// The tests' emulation on Linux: O_NONBLOCK is inherited.
    #[link_name = "shim_accept4"]
    fn accept4(
        fd: libc::c_int,
        address: *mut libc::sockaddr,
        length: *mut libc::socklen_t,
        flags: libc::c_int,
    ) -> libc::c_int;
}
#[cfg(not(any(event_shims, target_vendor = "apple", target_os = "solaris")))]
use libc::accept4;

/// One accept4(2), which makes the new descriptor close-on-exec.
#[cfg(not(any(target_vendor = "apple", target_os = "solaris")))]
fn accept_once(listener: &Listener, blocking: Blocking) -> io::Result<OwnedFd> {
    let flags = match blocking {
        Blocking::No => libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
        Blocking::Yes => libc::SOCK_CLOEXEC,
    };
    let fd = listener.as_raw_fd();
    // SAFETY: null pointers ask accept4(2) not to return an address.
    check(unsafe { accept4(fd, ptr::null_mut(), ptr::null_mut(), flags) }).map(own)
}

/// One accept(2): macOS has no accept4, and on Solaris the standard library does not use it either.
#[cfg(any(target_vendor = "apple", target_os = "solaris"))]
fn accept_once(listener: &Listener, blocking: Blocking) -> io::Result<OwnedFd> {
    // SAFETY: null pointers ask accept(2) not to return an address.
    let result = unsafe { libc::accept(listener.as_raw_fd(), ptr::null_mut(), ptr::null_mut()) };
    let new = own(check(result)?);
    descriptor::close_on_exec(&new)?;
    blocking.apply(&new)?;
    Ok(new)
}

/// The option that lets several listening sockets share an address while the system spreads
/// connections over them: SO_REUSEPORT on Linux (socket(7)), SO_REUSEPORT_LB on FreeBSD
/// (setsockopt(2)). Other systems' SO_REUSEPORT gives all connections to one of the sockets.
const SHARED_PORT: Option<libc::c_int> = {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let option = Some(libc::SO_REUSEPORT);
    #[cfg(target_os = "freebsd")]
    let option = Some(libc::SO_REUSEPORT_LB);
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    let option = None;
    option
};

/// True if [`Listener::share_port`] works on this system.
pub fn can_share_port() -> bool {
    SHARED_PORT.is_some()
}
