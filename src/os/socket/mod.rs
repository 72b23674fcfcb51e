//! Sockets: what is connected, what listens, and what can be set on either.

mod addresses;
mod inherited;
mod listener;
mod options;
mod peer;
mod protocol;

use super::address::{Address, Family, RawAddress};
use super::descriptor::{self, own};
use super::{check, check_size, interrupted};
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

#[cfg(test)]
pub(in crate::os) use addresses::bind;
pub use addresses::{is_local, Addressed};
pub use inherited::{inspect, Inherited};
pub use listener::{can_share_port, Blocking, Families, Listener, MOST_BACKLOG};
#[cfg(feature = "dns")]
pub(in crate::os) use options::set_vrf;
pub use options::{default_keepalive_parameters, has_user_timeout, Options, MOST_USER_TIMEOUT};
pub(in crate::os) use options::{get_option, set_buffer_sizes, set_least_buffer_sizes, set_option};
pub use protocol::{Keepalive, Kind, Protocol, IPPROTO_MPTCP, IPPROTO_SCTP};

/// A socket with another end: a stream that is or will be connected, or a datagram socket for one
/// peer.
#[derive(Debug)]
pub struct Socket(OwnedFd);

descriptor::owner!(Socket, from TcpStream, from UnixStream);

impl Options for Socket {}

/// Creates a non-blocking, close-on-exec socket. `protocol` is ignored for UNIX sockets. socket(2)
/// takes SOCK_CLOEXEC and SOCK_NONBLOCK everywhere but on macOS, which needs fcntl(2) instead.
fn create(family: Family, kind: Kind, protocol: Protocol) -> io::Result<OwnedFd> {
    let number = if family == Family::Unix { 0 } else { protocol.number() };
    #[cfg(not(target_vendor = "apple"))]
    {
        let flags = kind.number() | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: socket(2) takes plain numbers.
        let fd = check(unsafe { libc::socket(family.domain(), flags, number) })?;
        Ok(own(fd))
    }
    #[cfg(target_vendor = "apple")]
    {
        // SAFETY: socket(2) takes plain numbers.
        let fd = own(check(unsafe { libc::socket(family.domain(), kind.number(), number) })?);
        descriptor::close_on_exec(&fd)?;
        descriptor::set_nonblocking(&fd)?;
        Ok(fd)
    }
}

/// How far connect(2) got at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It is connected.
    Connected,
    /// It goes on: wait until the socket is writable, then ask [`Socket::take_error`].
    InProgress,
}

impl Socket {
    /// A socket that does not block, and that programs started later do not get. `protocol` is
    /// ignored for UNIX sockets.
    pub fn new(family: Family, kind: Kind, protocol: Protocol) -> io::Result<Socket> {
        create(family, kind, protocol).map(Socket)
    }

    /// Starts a connect attempt.
    pub fn connect(&self, address: &Address) -> io::Result<Attempt> {
        let raw = RawAddress::from(address);
        // SAFETY: the pointer and the length describe `raw`, which outlives the call.
        match check(unsafe { libc::connect(self.as_raw_fd(), raw.as_ptr(), raw.length()) }) {
            Ok(_) => Ok(Attempt::Connected),
            // EINTR: the attempt continues in the kernel (POSIX connect()).
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => {
                Ok(Attempt::InProgress)
            }
            Err(error) => Err(error),
        }
    }

    /// The pending error of a socket (SO_ERROR), which this call clears.
    pub fn take_error(&self) -> io::Result<()> {
        match get_option::<libc::c_int>(self.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ERROR)? {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// recv(2). 0 is end of file. Interrupted calls are retried.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // SAFETY: the pointer and the length describe `buffer`, which outlives the call.
            let result = check_size(unsafe {
                libc::recv(self.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0)
            });
            match result {
                Err(error) if interrupted(&error) => {}
                other => return other,
            }
        }
    }

    /// Whether there is a byte to read, without consuming it: 1, or 0 at end of file.
    pub fn peek(&self) -> io::Result<usize> {
        let mut byte = [0u8; 1];
        loop {
            // SAFETY: the buffer has room for one byte, and outlives the call.
            let result = check_size(unsafe {
                libc::recv(self.as_raw_fd(), byte.as_mut_ptr().cast(), 1, libc::MSG_PEEK)
            });
            match result {
                Err(error) if interrupted(&error) => {}
                other => return other,
            }
        }
    }

    /// send(2) without SIGPIPE: the signal is ignored (`signals`), and suppressed with MSG_NOSIGNAL
    /// where send(2) has that. Interrupted calls are retried.
    pub fn write(&self, data: &[u8]) -> io::Result<usize> {
        self.send(data, 0)
    }

    /// Like [`write`](Self::write), for data that is followed by more, at once or soon: the system
    /// may hold it back, and send one packet less.
    pub fn write_more_follows(&self, data: &[u8]) -> io::Result<usize> {
        #[cfg(target_os = "linux")]
        const FLAGS: libc::c_int = libc::MSG_MORE;
        #[cfg(not(target_os = "linux"))]
        const FLAGS: libc::c_int = 0;
        self.send(data, FLAGS)
    }

    fn send(&self, data: &[u8], flags: libc::c_int) -> io::Result<usize> {
        #[cfg(target_vendor = "apple")]
        const FLAGS: libc::c_int = 0; // not in every version's send(2)
        #[cfg(not(target_vendor = "apple"))]
        const FLAGS: libc::c_int = libc::MSG_NOSIGNAL;
        loop {
            // SAFETY: the pointer and the length describe `data`, which outlives the call.
            let result = check_size(unsafe {
                libc::send(self.as_raw_fd(), data.as_ptr().cast(), data.len(), FLAGS | flags)
            });
            match result {
                Err(error) if interrupted(&error) => {}
                other => return other,
            }
        }
    }

    /// shutdown(2).
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let how = match how {
            Shutdown::Read => libc::SHUT_RD,
            Shutdown::Write => libc::SHUT_WR,
            Shutdown::Both => libc::SHUT_RDWR,
        };
        // SAFETY: shutdown(2) takes plain numbers.
        check(unsafe { libc::shutdown(self.as_raw_fd(), how) }).map(drop)
    }

    /// IP_BIND_ADDRESS_NO_PORT (ip(7)), set before binding an address without a port: connect(2)
    /// then chooses the port. As it knows the other end, it can use each port once per remote
    /// instead of once overall. Linux only; elsewhere, and with SCTP, bind(2) chooses.
    pub fn leave_port_to_connect(&self) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = set_option(self.as_raw_fd(), libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1i32);
    }

    /// Like [`unpace`](Options::unpace), for an established connection, whatever listener accepted
    /// it. Linux still paces such a connection, though less.
    pub fn unpace_within_host(&self) {
        let (Some(peer), Some(local)) = (self.peer_address(), self.local_address()) else {
            return;
        };
        if peer.ip().is_some() && peer.ip() == local.ip() {
            options::set_reno(self.as_raw_fd());
        } else {
            self.unpace(&peer);
        }
    }

    /// Makes the next close(2) reset the connection (RST) instead of ending it with FIN.
    pub fn reset_on_close(&self) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        // A UNIX socket has no reset; it can only be closed.
        let _ = set_option(self.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, linger);
    }

    /// Makes the next close(2) return at once, even if data is still unsent.
    pub fn do_not_linger(&self) {
        let linger = libc::linger { l_onoff: 0, l_linger: 0 };
        // Descriptors that are no sockets have no such option.
        let _ = set_option(self.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, linger);
    }

    /// Bytes written to the socket that the other side has not acknowledged yet. 0 where the system
    /// cannot tell.
    pub fn unsent_bytes(&self) -> usize {
        unsent_bytes(self.0.as_raw_fd())
    }
}

/// As [`Socket::unsent_bytes`], for any socket.
pub(in crate::os) fn unsent_bytes(fd: RawFd) -> usize {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let request = libc::TIOCOUTQ; // SIOCOUTQ, tcp(7)
    #[cfg(any(target_os = "freebsd", target_os = "netbsd"))]
    let request = libc::FIONWRITE;
    #[cfg(any(
        target_os = "linux",
        target_os = "android",
        target_os = "freebsd",
        target_os = "netbsd"
    ))]
    {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the request writes one int, which `bytes` is.
        let result = unsafe { libc::ioctl(fd, request, &mut bytes) };
        if result == 0 {
            return usize::try_from(bytes).unwrap_or(0);
        }
    }
    #[cfg(target_vendor = "apple")]
    if let Ok(bytes) = get_option::<libc::c_int>(fd, libc::SOL_SOCKET, libc::SO_NWRITE) {
        return usize::try_from(bytes).unwrap_or(0);
    }
    let _ = fd;
    0
}

/// Sends one datagram through a C module's descriptor: to `address`, or to the connected peer if
/// that is null. Returns the number of bytes sent.
///
/// # Safety
/// `address` is null or a socket address whose family tells its length.
pub unsafe fn send_datagram(
    fd: RawFd,
    data: &[u8],
    address: *const libc::sockaddr,
) -> io::Result<usize> {
    // SAFETY: as the caller promises; the data outlives the call.
    unsafe {
        let length = match address.as_ref().map_or(0, |address| i32::from(address.sa_family)) {
            libc::AF_INET => size_of::<libc::sockaddr_in>(),
            libc::AF_INET6 => size_of::<libc::sockaddr_in6>(),
            libc::AF_UNIX => size_of::<libc::sockaddr_un>(),
            _ => 0,
        };
        let address = if length == 0 { std::ptr::null() } else { address };
        let (start, size) = (data.as_ptr().cast(), data.len());
        check_size(libc::sendto(fd, start, size, 0, address, length as libc::socklen_t))
    }
}
