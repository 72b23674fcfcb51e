//! Stream sockets: creation, options, and the calls of the data path.

use super::address::{Address, Family, RawAddress};
use super::{check, check_size};
use std::io;
use std::mem;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// The transport of a stream socket, as the configuration names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP, or the default stream protocol of a UNIX socket.
    #[default]
    Tcp,
    /// SCTP in its one-to-one style (RFC 6458 section 4).
    Sctp,
    /// Multipath TCP (RFC 8684).
    Mptcp,
    /// UDP; only for listeners of other programs' workers.
    Udp,
}

/// IPPROTO_SCTP, which not every libc header defines (RFC 9260: protocol number 132).
pub const IPPROTO_SCTP: i32 = 132;
/// IPPROTO_MPTCP of Linux (linux/in.h); other systems do not offer MPTCP this way.
pub const IPPROTO_MPTCP: i32 = 262;

impl Protocol {
    /// The IPPROTO number, as socket(2) takes it.
    pub fn number(self) -> i32 {
        match self {
            Protocol::Tcp => libc::IPPROTO_TCP,
            Protocol::Sctp => IPPROTO_SCTP,
            Protocol::Mptcp => IPPROTO_MPTCP,
            Protocol::Udp => libc::IPPROTO_UDP,
        }
    }

    /// The name used in configurations and messages.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Sctp => "SCTP",
            Protocol::Mptcp => "MPTCP",
            Protocol::Udp => "UDP",
        }
    }
}

/// The type of a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// SOCK_STREAM
    #[default]
    Stream,
    /// SOCK_DGRAM
    Datagram,
    /// SOCK_SEQPACKET
    SequencedPacket,
}

impl Kind {
    /// The SOCK_ number, as socket(2) takes it.
    pub fn number(self) -> i32 {
        match self {
            Kind::Stream => libc::SOCK_STREAM,
            Kind::Datagram => libc::SOCK_DGRAM,
            Kind::SequencedPacket => libc::SOCK_SEQPACKET,
        }
    }
}

/// When to give up a TCP connection whose other end is silent: keepalive (tcp(7): TCP_KEEPCNT,
/// TCP_KEEPIDLE, TCP_KEEPINTVL) and TCP_USER_TIMEOUT. `None` keeps the system's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keepalive {
    /// Probes before the connection is given up.
    pub count: Option<u32>,
    /// Seconds of silence before the first probe.
    pub idle: Option<u32>,
    /// Seconds between probes.
    pub interval: Option<u32>,
    /// Seconds that sent data, or a probe, may go unacknowledged; 0 is the system's default.
    pub user_timeout: Option<u32>,
}

impl Keepalive {
    /// These settings, with `defaults` for those that are not set.
    #[must_use]
    pub fn or(self, defaults: Keepalive) -> Keepalive {
        Keepalive {
            count: self.count.or(defaults.count),
            idle: self.idle.or(defaults.idle),
            interval: self.interval.or(defaults.interval),
            user_timeout: self.user_timeout.or(defaults.user_timeout),
        }
    }
}

fn domain(family: Family) -> libc::c_int {
    match family {
        Family::Ipv4 => libc::AF_INET,
        Family::Ipv6 => libc::AF_INET6,
        Family::Unix => libc::AF_UNIX,
    }
}

/// Takes ownership of a descriptor that a system call has just returned.
pub(super) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the callers pass a descriptor that the kernel has just created for this process
    // and that nothing else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Creates a non-blocking, close-on-exec socket. `protocol` is ignored for UNIX sockets. socket(2)
/// takes SOCK_CLOEXEC and SOCK_NONBLOCK everywhere but on macOS, which needs fcntl(2) instead.
pub fn create(family: Family, kind: Kind, protocol: Protocol) -> io::Result<OwnedFd> {
    let number = if family == Family::Unix { 0 } else { protocol.number() };
    #[cfg(not(target_vendor = "apple"))]
    {
        let flags = kind.number() | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: socket(2) takes plain numbers.
        let fd = check(unsafe { libc::socket(domain(family), flags, number) })?;
        Ok(own(fd))
    }
    #[cfg(target_vendor = "apple")]
    {
        // SAFETY: socket(2) takes plain numbers.
        let fd = own(check(unsafe { libc::socket(domain(family), kind.number(), number) })?);
        set_close_on_exec(&fd, true)?;
        set_nonblocking(&fd, true)?;
        Ok(fd)
    }
}

/// bind(2).
pub fn bind(fd: &OwnedFd, address: &Address) -> io::Result<()> {
    let raw = RawAddress::from(address);
    // SAFETY: the pointer and the length describe `raw`, which outlives the call.
    check(unsafe { libc::bind(fd.as_raw_fd(), raw.as_ptr(), raw.length()) }).map(drop)
}

/// The largest backlog that the system allows: listen(2) lowers this number to the limit
/// (SOMAXCONN; on Linux net.core.somaxconn).
pub const MOST_BACKLOG: i32 = i32::MAX;

/// listen(2); may be called again to change the backlog.
pub fn listen(fd: &OwnedFd, backlog: i32) -> io::Result<()> {
    // SAFETY: listen(2) takes plain numbers.
    check(unsafe { libc::listen(fd.as_raw_fd(), backlog) }).map(drop)
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
fn accept_once(fd: &OwnedFd, nonblocking: bool) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_CLOEXEC | if nonblocking { libc::SOCK_NONBLOCK } else { 0 };
    // SAFETY: null pointers ask accept4(2) not to return an address.
    check(unsafe { accept4(fd.as_raw_fd(), ptr::null_mut(), ptr::null_mut(), flags) }).map(own)
}

/// One accept(2): macOS has no accept4, and on Solaris the standard library does not use it either.
#[cfg(any(target_vendor = "apple", target_os = "solaris"))]
fn accept_once(fd: &OwnedFd, nonblocking: bool) -> io::Result<OwnedFd> {
    // SAFETY: null pointers ask accept(2) not to return an address.
    let result = unsafe { libc::accept(fd.as_raw_fd(), ptr::null_mut(), ptr::null_mut()) };
    let new = own(check(result)?);
    set_close_on_exec(&new, true)?;
    set_nonblocking(&new, nonblocking)?;
    Ok(new)
}

/// Accepts one connection. The new descriptor is close-on-exec, and non-blocking if `nonblocking`
/// is set.
pub fn accept(fd: &OwnedFd, nonblocking: bool) -> io::Result<OwnedFd> {
    loop {
        match accept_once(fd, nonblocking) {
            Ok(new) => {
                // accept(2) on the BSDs passes on the listener's O_NONBLOCK. accept4(2) does not on
                // the systems excluded here, according to their manuals; we do not know about the
                // others.
                #[cfg(any(
                    event_shims,
                    not(any(target_os = "linux", target_os = "android", target_os = "freebsd"))
                ))]
                set_nonblocking(&new, nonblocking)?;
                return Ok(new);
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

/// Starts a connect attempt. `true`: connected. `false`: in progress; wait until the socket is
/// writable, then ask [`take_error`].
pub fn connect(fd: &OwnedFd, address: &Address) -> io::Result<bool> {
    let raw = RawAddress::from(address);
    // SAFETY: the pointer and the length describe `raw`, which outlives the call.
    match check(unsafe { libc::connect(fd.as_raw_fd(), raw.as_ptr(), raw.length()) }) {
        Ok(_) => Ok(true),
        // EINTR: the attempt continues in the kernel (POSIX connect()).
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// The pending error of a socket (SO_ERROR), which this call clears.
pub fn take_error(fd: &OwnedFd) -> io::Result<()> {
    match get_option::<libc::c_int>(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ERROR)? {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// recv(2). 0 is end of file. Interrupted calls are retried.
pub fn read(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the pointer and the length describe `buffer`, which outlives the call.
        let result = check_size(unsafe {
            libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0)
        });
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Whether there is a byte to read, without consuming it: 1, or 0 at end of file.
pub fn peek(fd: &OwnedFd) -> io::Result<usize> {
    let mut byte = [0u8; 1];
    loop {
        // SAFETY: the buffer has room for one byte, and outlives the call.
        let result = check_size(unsafe {
            libc::recv(fd.as_raw_fd(), byte.as_mut_ptr().cast(), 1, libc::MSG_PEEK)
        });
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// send(2) without SIGPIPE: the signal is ignored (`signals`), and suppressed with MSG_NOSIGNAL
/// where send(2) has that. Interrupted calls are retried.
pub fn write(fd: &OwnedFd, data: &[u8]) -> io::Result<usize> {
    send(fd, data, 0)
}

/// Like [`write()`], for data that is followed by more, at once or soon: the system may hold it
/// back, and send one packet less.
pub fn write_more_follows(fd: &OwnedFd, data: &[u8]) -> io::Result<usize> {
    #[cfg(target_os = "linux")]
    const FLAGS: libc::c_int = libc::MSG_MORE;
    #[cfg(not(target_os = "linux"))]
    const FLAGS: libc::c_int = 0;
    send(fd, data, FLAGS)
}

fn send(fd: &OwnedFd, data: &[u8], flags: libc::c_int) -> io::Result<usize> {
    #[cfg(target_vendor = "apple")]
    const FLAGS: libc::c_int = 0; // not in every version's send(2)
    #[cfg(not(target_vendor = "apple"))]
    const FLAGS: libc::c_int = libc::MSG_NOSIGNAL;
    loop {
        // SAFETY: the pointer and the length describe `data`, which outlives the call.
        let result = check_size(unsafe {
            libc::send(fd.as_raw_fd(), data.as_ptr().cast(), data.len(), FLAGS | flags)
        });
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// shutdown(2).
pub fn shutdown(fd: &OwnedFd, how: Shutdown) -> io::Result<()> {
    let how = match how {
        Shutdown::Read => libc::SHUT_RD,
        Shutdown::Write => libc::SHUT_WR,
        Shutdown::Both => libc::SHUT_RDWR,
    };
    // SAFETY: shutdown(2) takes plain numbers.
    check(unsafe { libc::shutdown(fd.as_raw_fd(), how) }).map(drop)
}

/// The address this socket is bound to.
pub fn local_address(fd: &OwnedFd) -> Option<Address> {
    let mut raw = RawAddress::empty();
    let (pointer, length) = (raw.as_mut_ptr(), raw.length_mut() as *mut _);
    // SAFETY: both pointers are into `raw`, whose length field tells the room there is.
    check(unsafe { libc::getsockname(fd.as_raw_fd(), pointer, length) }).ok()?;
    raw.to_address()
}

/// The address of the other end; `None` if the socket is not connected, or if the other end has no
/// name.
pub fn peer_address(fd: &OwnedFd) -> Option<Address> {
    let mut raw = RawAddress::empty();
    let (pointer, length) = (raw.as_mut_ptr(), raw.length_mut() as *mut _);
    // SAFETY: both pointers are into `raw`, whose length field tells the room there is.
    check(unsafe { libc::getpeername(fd.as_raw_fd(), pointer, length) }).ok()?;
    raw.to_address()
}

fn get_option<T: Default>(fd: RawFd, level: i32, name: i32) -> io::Result<T> {
    let mut value = T::default();
    let mut length = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer and the length describe `value`; only integers are asked for, for
    // which every bit pattern is valid.
    check(unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &mut length) })?;
    Ok(value)
}

fn set_option<T>(fd: RawFd, level: i32, name: i32, value: T) -> io::Result<()> {
    let length = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer and the length describe `value`, which outlives the call.
    check(unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), length) }).map(drop)
}

/// SO_REUSEADDR (setsockopt(2)): a port can be bound again while sessions on it continue.
///
/// SO_EXCLBIND of Solaris and illumos (setsockopt(3C)) is not set as well: it counts established
/// connections too, so a new broker could not listen until the last sessions of the old one end.
pub fn set_reuse_address(fd: &OwnedFd) -> io::Result<()> {
    set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1i32)
}

/// SO_OOBINLINE: urgent data is read in place, like any other. Without it, one byte would be
/// missing from the stream, or the earlier of two marks would move. Sockets without urgent data
/// refuse the option, which is fine.
pub fn set_urgent_inline(fd: &OwnedFd) {
    let _ = set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_OOBINLINE, 1i32);
}

/// IP_BIND_ADDRESS_NO_PORT (ip(7)), set before binding an address without a port: connect(2) then
/// chooses the port. As it knows the other end, it can use each port once per remote instead of
/// once overall. Linux only; elsewhere, and with SCTP, bind(2) chooses.
pub fn leave_port_to_connect(fd: &OwnedFd) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = set_option(fd.as_raw_fd(), libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1i32);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = fd;
}

/// SO_KEEPALIVE.
pub fn set_keepalive(fd: &OwnedFd) -> io::Result<()> {
    set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1i32)
}

/// TCP_NODELAY, which a lock-step protocol needs when it is relayed. Ignored on other sockets.
pub fn set_no_delay(fd: &OwnedFd) {
    // Fails on UNIX and SCTP sockets, which have no such delay to switch off.
    let _ = set_option(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1i32);
}

/// Turns pacing off for connections within this host (tcp(7), TCP_CONGESTION). Their path cannot be
/// congested, so an algorithm that paces, such as bbr, costs more than it is worth. Call it before
/// a socket connects to `address` or listens there; addresses of other hosts are left alone.
pub fn unpace(fd: &OwnedFd, address: &Address) {
    if address.ip().is_some_and(|ip| ip.to_canonical().is_loopback()) {
        set_reno(fd);
    }
}

/// Like [`unpace`], for an established connection, whatever listener accepted it. Linux still paces
/// such a connection, though less.
pub fn unpace_within_host(fd: &OwnedFd) {
    let (Some(peer), Some(local)) = (peer_address(fd), local_address(fd)) else {
        return;
    };
    if peer.ip().is_some() && peer.ip() == local.ip() {
        set_reno(fd);
    } else {
        unpace(fd, &peer);
    }
}

fn set_reno(fd: &OwnedFd) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use std::sync::OnceLock;
        /// True if the default algorithm may pace connections (tcp(7), tcp_congestion_control).
        static PACING: OnceLock<bool> = OnceLock::new();
        let pacing = || {
            let name = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control");
            name.is_ok_and(|name| !["reno", "cubic"].contains(&name.trim()))
        };
        if *PACING.get_or_init(pacing) {
            // reno is always there, and everybody may choose it. If this fails all the same, only
            // speed is lost; sockets other than TCP have nothing to set.
            let _ = set_option(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_CONGESTION, *b"reno");
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = fd;
}

/// SO_SNDBUF and SO_RCVBUF in bytes.
pub fn set_buffer_sizes(fd: &OwnedFd, bytes: i32) -> io::Result<()> {
    set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, bytes)?;
    set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, bytes)
}

/// Raises SO_SNDBUF and SO_RCVBUF to `bytes`, as far as the system allows.
pub(super) fn set_least_buffer_sizes(fd: &OwnedFd, bytes: libc::c_int) {
    for name in [libc::SO_SNDBUF, libc::SO_RCVBUF] {
        if get_option(fd.as_raw_fd(), libc::SOL_SOCKET, name).is_ok_and(|size: i32| size < bytes) {
            let _ = set_option(fd.as_raw_fd(), libc::SOL_SOCKET, name, bytes);
        }
    }
}

/// The three keepalive options: count, idle, interval. OpenBSD only has a sysctl.
#[cfg(not(target_os = "openbsd"))]
const KEEPALIVE_OPTIONS: [libc::c_int; 3] = [
    libc::TCP_KEEPCNT,
    #[cfg(target_vendor = "apple")]
    libc::TCP_KEEPALIVE,
    #[cfg(not(target_vendor = "apple"))]
    libc::TCP_KEEPIDLE,
    libc::TCP_KEEPINTVL,
];
#[cfg(target_os = "openbsd")]
const KEEPALIVE_OPTIONS: [libc::c_int; 0] = [];

/// Sets the TCP keepalive parameters that this system has. If one is refused, the others are still
/// set.
pub fn set_keepalive_parameters(fd: &OwnedFd, keepalive: Keepalive) -> io::Result<()> {
    let values = [keepalive.count, keepalive.idle, keepalive.interval];
    let mut result = Ok(());
    for (name, value) in KEEPALIVE_OPTIONS.into_iter().zip(values) {
        if let Some(value) = value {
            let value = value as libc::c_int;
            result = result.and(set_option(fd.as_raw_fd(), libc::IPPROTO_TCP, name, value));
        }
    }
    result
}

/// The option that limits how long sent data may go unacknowledged, and its units per second:
/// TCP_USER_TIMEOUT on Linux (tcp(7)), TCP_MAXUNACKTIME on FreeBSD (tcp(4)), TCP_ABORT_THRESHOLD on
/// Solaris and illumos (tcp(4P)), TCP_RXT_CONNDROPTIME on macOS (netinet/tcp.h).
const USER_TIMEOUT: Option<(libc::c_int, u32)> = {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const FOUND: Option<(libc::c_int, u32)> = Some((libc::TCP_USER_TIMEOUT, 1000));
    #[cfg(target_os = "freebsd")]
    const FOUND: Option<(libc::c_int, u32)> = Some((libc::TCP_MAXUNACKTIME, 1));
    #[cfg(any(target_os = "solaris", target_os = "illumos"))]
    const FOUND: Option<(libc::c_int, u32)> = Some((libc::TCP_ABORT_THRESHOLD, 1000));
    #[cfg(target_vendor = "apple")]
    const FOUND: Option<(libc::c_int, u32)> = Some((0x80, 1));
    #[cfg(not(any(
        target_os = "linux",
        target_os = "android",
        target_os = "freebsd",
        target_os = "solaris",
        target_os = "illumos",
        target_vendor = "apple"
    )))]
    const FOUND: Option<(libc::c_int, u32)> = None;
    FOUND
};

/// The longest user timeout, in seconds: the kernel keeps milliseconds in an int.
pub const MOST_USER_TIMEOUT: u32 = (i32::MAX / 1000) as u32;

/// True if [`set_user_timeout`] has an effect on this system.
pub fn has_user_timeout() -> bool {
    USER_TIMEOUT.is_some()
}

/// Sets the user timeout, if there is one and the system supports it.
pub fn set_user_timeout(fd: &OwnedFd, keepalive: Keepalive) -> io::Result<()> {
    match (USER_TIMEOUT, keepalive.user_timeout) {
        // Solaris and illumos would take 0 as no time at all, not as the default.
        (_, Some(0)) if cfg!(any(target_os = "solaris", target_os = "illumos")) => Ok(()),
        (Some((option, parts)), Some(seconds)) => {
            let value = (seconds.min(MOST_USER_TIMEOUT) * parts) as libc::c_int;
            set_option(fd.as_raw_fd(), libc::IPPROTO_TCP, option, value)
        }
        _ => Ok(()),
    }
}

/// True if an IPv6 socket takes no IPv4 connections (IPV6_V6ONLY).
pub fn is_ipv6_only(fd: &OwnedFd) -> io::Result<bool> {
    let value: libc::c_int = get_option(fd.as_raw_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)?;
    Ok(value != 0)
}

/// Sets whether an IPv6 socket refuses IPv4 connections; call it before bind(2).
pub fn set_ipv6_only(fd: &OwnedFd, only: bool) -> io::Result<()> {
    set_option(fd.as_raw_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, libc::c_int::from(only))
}

/// True if packets to `address` stay on this host. Sends nothing: for one of the host's own
/// addresses the kernel picks the same address as the source.
pub fn is_local(address: SocketAddr) -> bool {
    if address.ip().to_canonical().is_loopback() || address.ip().is_unspecified() {
        return true;
    }
    let address = Address::Ip(address);
    let Ok(fd) = create(address.family(), Kind::Datagram, Protocol::Udp) else {
        return false;
    };
    connect(&fd, &address).is_ok()
        && local_address(&fd).and_then(|local| local.scoped_ip()) == address.scoped_ip()
}

/// The system's default TCP keepalive parameters, read from a new socket.
pub fn default_keepalive_parameters(family: Family) -> Keepalive {
    let Ok(fresh) = create(family, Kind::Stream, Protocol::Tcp) else {
        return Keepalive::default();
    };
    let mut values = [None; 3];
    for (name, value) in KEEPALIVE_OPTIONS.into_iter().zip(&mut values) {
        let number = get_option::<libc::c_int>(fresh.as_raw_fd(), libc::IPPROTO_TCP, name);
        *value = number.ok().and_then(|number| u32::try_from(number).ok());
    }
    let user_timeout = USER_TIMEOUT.and_then(|(option, parts)| {
        let value = get_option::<libc::c_int>(fresh.as_raw_fd(), libc::IPPROTO_TCP, option).ok()?;
        u32::try_from(value).ok().map(|value| value / parts)
    });
    let [count, idle, interval] = values;
    Keepalive { count, idle, interval, user_timeout }
}

/// Sets the type-of-service byte of outgoing packets. IPv6 sockets that carry IPv4 traffic need
/// both options.
pub fn set_traffic_class(fd: &OwnedFd, class: u8) -> io::Result<()> {
    let class = i32::from(class);
    match local_address(fd).map(|address| address.family()) {
        Some(Family::Ipv4) => set_option(fd.as_raw_fd(), libc::IPPROTO_IP, libc::IP_TOS, class),
        Some(Family::Ipv6) => {
            let _ = set_option(fd.as_raw_fd(), libc::IPPROTO_IP, libc::IP_TOS, class);
            set_option(fd.as_raw_fd(), libc::IPPROTO_IPV6, libc::IPV6_TCLASS, class)
        }
        _ => Ok(()),
    }
}

/// Binds the socket to a routing domain: SO_BINDTODEVICE on Linux (socket(7); a VRF is a device
/// there), SO_SETFIB on FreeBSD (setfib(2)), SO_RTABLE on OpenBSD (setsockopt(2)). The last two
/// take a number. Fails elsewhere.
pub fn set_vrf(fd: &impl AsRawFd, name: &str) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let name =
            std::ffi::CString::new(name).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        let length = name.as_bytes_with_nul().len() as libc::socklen_t;
        // SAFETY: the pointer and the length describe `name`, which outlives the call.
        check(unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_BINDTODEVICE,
                name.as_ptr().cast(),
                length,
            )
        })
        .map(drop)
    }
    #[cfg(any(target_os = "freebsd", target_os = "openbsd"))]
    {
        #[cfg(target_os = "freebsd")]
        const OPTION: libc::c_int = libc::SO_SETFIB;
        #[cfg(target_os = "openbsd")]
        const OPTION: libc::c_int = libc::SO_RTABLE;
        let number: libc::c_int =
            name.parse().map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        set_option(fd.as_raw_fd(), libc::SOL_SOCKET, OPTION, number)
    }
    #[cfg(not(any(
        target_os = "linux",
        target_os = "android",
        target_os = "freebsd",
        target_os = "openbsd"
    )))]
    {
        let _ = (fd, name);
        Err(io::Error::from_raw_os_error(libc::ENOPROTOOPT))
    }
}

/// Makes the next close(2) reset the connection (RST) instead of ending it with FIN.
pub fn reset_on_close(fd: &OwnedFd) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // A UNIX socket has no reset; it can only be closed.
    let _ = set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, linger);
}

/// Makes the next close(2) return at once, even if data is still unsent.
pub fn do_not_linger(fd: &OwnedFd) {
    let linger = libc::linger { l_onoff: 0, l_linger: 0 };
    // Descriptors that are no sockets have no such option.
    let _ = set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, linger);
}

/// Bytes written to the socket that the other side has not acknowledged yet. 0 where the system
/// cannot tell.
pub fn unsent_bytes(fd: &OwnedFd) -> usize {
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
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, &mut bytes) };
        if result == 0 {
            return usize::try_from(bytes).unwrap_or(0);
        }
    }
    #[cfg(target_vendor = "apple")]
    if let Ok(bytes) = get_option::<libc::c_int>(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NWRITE)
    {
        return usize::try_from(bytes).unwrap_or(0);
    }
    let _ = fd;
    0
}

/// O_NONBLOCK.
pub fn set_nonblocking(fd: &OwnedFd, on: bool) -> io::Result<()> {
    let mut value = libc::c_int::from(on);
    // SAFETY: FIONBIO reads one int, which `value` is.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONBIO, &mut value) }).map(drop)
}

/// FD_CLOEXEC.
pub fn set_close_on_exec(fd: &impl AsRawFd, on: bool) -> io::Result<()> {
    let flags = if on { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: fcntl(F_SETFD) takes plain numbers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, flags) }).map(drop)
}

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

/// Receives one datagram and the address of its sender (UDP listeners).
pub fn receive_from(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<(usize, Option<Address>)> {
    let mut raw = RawAddress::empty();
    let (pointer, length) = (raw.as_mut_ptr(), raw.length_mut() as *mut _);
    // SAFETY: the buffer's pointer and length describe `buffer`; the address pointers are into
    // `raw`, whose length field tells the room there is.
    let count = check_size(unsafe {
        libc::recvfrom(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0, pointer, length)
    })?;
    Ok((count, raw.to_address()))
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

/// True if [`share_port`] works on this system.
pub fn can_share_port() -> bool {
    SHARED_PORT.is_some()
}

/// Lets other listening sockets of this user share the address, with connections spread over them.
/// Every one of them must set this before it is bound.
pub fn share_port(fd: &OwnedFd) -> io::Result<()> {
    let option = SHARED_PORT.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOPROTOOPT))?;
    set_option(fd.as_raw_fd(), libc::SOL_SOCKET, option, 1i32)
}

/// True if [`share_port`] was applied to this socket.
pub fn shares_port(fd: &OwnedFd) -> bool {
    let value = |option| get_option::<libc::c_int>(fd.as_raw_fd(), libc::SOL_SOCKET, option);
    SHARED_PORT.is_some_and(|option| value(option).is_ok_and(|value| value != 0))
}

/// SO_REUSEPORT: lets a connected UDP socket share its listener's port.
pub fn set_reuse_port(fd: &OwnedFd) -> io::Result<()> {
    #[cfg(not(any(target_os = "solaris", target_os = "illumos")))]
    return set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1i32);
    #[cfg(any(target_os = "solaris", target_os = "illumos"))]
    {
        let _ = fd;
        Err(io::Error::from_raw_os_error(libc::ENOPROTOOPT))
    }
}

/// Takes ownership of an inherited descriptor, by number.
///
/// The caller must be the only code that owns this number: descriptor 0 of a worker, or a
/// descriptor that the parent named when it handed it over. Fails if the number is not open.
pub fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(F_GETFD) takes plain numbers and fails for a closed descriptor.
    check(unsafe { libc::fcntl(fd, libc::F_GETFD) })?;
    Ok(own(fd))
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

/// True if reading from the descriptor blocks until there is data.
pub fn is_blocking(fd: &impl AsRawFd) -> bool {
    // SAFETY: fcntl(F_GETFL) takes plain numbers.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) & libc::O_NONBLOCK == 0 }
}

/// What poll(2) reports for a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollState {
    /// Reading will not block.
    pub readable: bool,
    /// Writing will not block.
    pub writable: bool,
    /// The descriptor has failed.
    pub error: bool,
    /// The other end has hung up.
    pub hangup: bool,
}

/// Polls a descriptor without blocking. A number that is not open reports an error.
pub fn poll_state(fd: RawFd) -> PollState {
    let events = libc::POLLIN | libc::POLLOUT;
    let mut entry = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one entry is given, and it outlives the call.
    unsafe { libc::poll(&mut entry, 1, 0) };
    let has = |bits| entry.revents & bits != 0;
    PollState {
        readable: has(libc::POLLIN),
        writable: has(libc::POLLOUT),
        error: has(libc::POLLERR | libc::POLLNVAL),
        hangup: has(libc::POLLHUP),
    }
}
