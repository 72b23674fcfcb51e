//! Options that any socket has.

use super::addresses::Addressed;
use super::create;
use super::protocol::{Keepalive, Kind, Protocol};
use crate::os::address::{Address, Family};
use crate::os::{check, descriptor};
use std::os::fd::{AsRawFd, RawFd};
use std::{io, mem};

/// What can be set on a socket, whether it listens or is connected. Accepted connections inherit
/// most of it from their listener.
pub trait Options: Addressed {
    /// Calls that would have to wait fail instead (EAGAIN).
    fn set_nonblocking(&self) -> io::Result<()> {
        descriptor::set_nonblocking(self)
    }

    /// Calls wait for what they need.
    fn set_blocking(&self) -> io::Result<()> {
        descriptor::set_blocking(self)
    }

    /// SO_REUSEADDR (setsockopt(2)): a port can be bound again while sessions on it continue.
    ///
    /// SO_EXCLBIND of Solaris and illumos (setsockopt(3C)) is not set as well: it counts
    /// established connections too, so a new broker could not listen until the last sessions of the
    /// old one end.
    fn set_reuse_address(&self) -> io::Result<()> {
        set_option(self.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1i32)
    }

    /// SO_REUSEPORT: lets a connected UDP socket share its listener's port.
    fn set_reuse_port(&self) -> io::Result<()> {
        #[cfg(not(any(target_os = "solaris", target_os = "illumos")))]
        return set_option(self.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1i32);
        #[cfg(any(target_os = "solaris", target_os = "illumos"))]
        {
            Err(io::Error::from_raw_os_error(libc::ENOPROTOOPT))
        }
    }

    /// SO_OOBINLINE: urgent data is read in place, like any other. Without it, one byte would be
    /// missing from the stream, or the earlier of two marks would move. Sockets without urgent data
    /// refuse the option, which is fine.
    fn set_urgent_inline(&self) {
        let _ = set_option(self.as_raw_fd(), libc::SOL_SOCKET, libc::SO_OOBINLINE, 1i32);
    }

    /// SO_KEEPALIVE.
    fn set_keepalive(&self) -> io::Result<()> {
        set_option(self.as_raw_fd(), libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1i32)
    }

    /// Sets the TCP keepalive parameters that this system has. If one is refused, the others are
    /// still set.
    fn set_keepalive_parameters(&self, keepalive: Keepalive) -> io::Result<()> {
        let values = [keepalive.count, keepalive.idle, keepalive.interval];
        let mut result = Ok(());
        for (name, value) in KEEPALIVE_OPTIONS.into_iter().zip(values) {
            if let Some(value) = value {
                let value = value as libc::c_int;
                result = result.and(set_option(self.as_raw_fd(), libc::IPPROTO_TCP, name, value));
            }
        }
        result
    }

    /// Sets the user timeout, if there is one and the system supports it.
    fn set_user_timeout(&self, keepalive: Keepalive) -> io::Result<()> {
        match (USER_TIMEOUT, keepalive.user_timeout) {
            // Solaris and illumos would take 0 as no time at all, not as the default.
            (_, Some(0)) if cfg!(any(target_os = "solaris", target_os = "illumos")) => Ok(()),
            (Some((option, parts)), Some(seconds)) => {
                let value = (seconds.min(MOST_USER_TIMEOUT) * parts) as libc::c_int;
                set_option(self.as_raw_fd(), libc::IPPROTO_TCP, option, value)
            }
            _ => Ok(()),
        }
    }

    /// TCP_NODELAY, which a lock-step protocol needs when it is relayed. Ignored on other sockets.
    fn set_no_delay(&self) {
        // Fails on UNIX and SCTP sockets, which have no such delay to switch off.
        let _ = set_option(self.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1i32);
    }

    /// Turns pacing off for connections within this host (tcp(7), TCP_CONGESTION). Their path
    /// cannot be congested, so an algorithm that paces, such as bbr, costs more than it is worth.
    /// Call it before a socket connects to `address` or listens there; addresses of other hosts are
    /// left alone.
    fn unpace(&self, address: &Address) {
        if address.ip().is_some_and(|ip| ip.to_canonical().is_loopback()) {
            set_reno(self.as_raw_fd());
        }
    }

    /// Sets the type-of-service byte of outgoing packets. IPv6 sockets that carry IPv4 traffic need
    /// both options.
    fn set_traffic_class(&self, class: u8) -> io::Result<()> {
        let class = i32::from(class);
        match self.local_address().map(|address| address.family()) {
            Some(Family::Ipv4) => {
                set_option(self.as_raw_fd(), libc::IPPROTO_IP, libc::IP_TOS, class)
            }
            Some(Family::Ipv6) => {
                let _ = set_option(self.as_raw_fd(), libc::IPPROTO_IP, libc::IP_TOS, class);
                set_option(self.as_raw_fd(), libc::IPPROTO_IPV6, libc::IPV6_TCLASS, class)
            }
            _ => Ok(()),
        }
    }

    /// Lets the socket be bound to an address that is not this host's: IP_TRANSPARENT (ip(7)) and
    /// IPV6_TRANSPARENT on Linux, which need CAP_NET_RAW or CAP_NET_ADMIN; IP_BINDANY and
    /// IPV6_BINDANY (ip(4)) on FreeBSD; SO_BINDANY (setsockopt(2)) on OpenBSD. The latter need root.
    fn set_foreign_address(&self, family: Family) -> io::Result<()> {
        let Some((level, name)) = transparent_option(family) else {
            return Err(io::Error::from_raw_os_error(libc::ENOPROTOOPT));
        };
        set_option(self.as_raw_fd(), level, name, 1i32)
    }

    /// Binds the socket to a routing domain, a VRF.
    fn set_vrf(&self, name: &str) -> io::Result<()> {
        set_vrf(self.as_raw_fd(), name)
    }
}

pub(in crate::os) fn get_option<T: Default>(fd: RawFd, level: i32, name: i32) -> io::Result<T> {
    let mut value = T::default();
    let mut length = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer and the length describe `value`; only integers are asked for, for
    // which every bit pattern is valid.
    check(unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &mut length) })?;
    Ok(value)
}

pub(in crate::os) fn set_option<T>(fd: RawFd, level: i32, name: i32, value: T) -> io::Result<()> {
    let length = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer and the length describe `value`, which outlives the call.
    check(unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), length) }).map(drop)
}

/// Chooses an algorithm that does not pace.
pub(super) fn set_reno(fd: RawFd) {
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
            let _ = set_option(fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION, *b"reno");
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = fd;
}

/// SO_SNDBUF and SO_RCVBUF in bytes.
pub(in crate::os) fn set_buffer_sizes(fd: RawFd, bytes: i32) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes)?;
    set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes)
}

/// Raises SO_SNDBUF and SO_RCVBUF to `bytes`, as far as the system allows.
pub(in crate::os) fn set_least_buffer_sizes(fd: RawFd, bytes: libc::c_int) {
    for name in [libc::SO_SNDBUF, libc::SO_RCVBUF] {
        if get_option(fd, libc::SOL_SOCKET, name).is_ok_and(|size: i32| size < bytes) {
            let _ = set_option(fd, libc::SOL_SOCKET, name, bytes);
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

/// Level and name of the option of [`Options::set_foreign_address`].
fn transparent_option(family: Family) -> Option<(i32, i32)> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const OPTIONS: [(i32, i32); 2] =
        [(libc::IPPROTO_IP, libc::IP_TRANSPARENT), (libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT)];
    #[cfg(target_os = "freebsd")]
    const OPTIONS: [(i32, i32); 2] =
        [(libc::IPPROTO_IP, libc::IP_BINDANY), (libc::IPPROTO_IPV6, libc::IPV6_BINDANY)];
    #[cfg(target_os = "openbsd")]
    const OPTIONS: [(i32, i32); 2] = [(libc::SOL_SOCKET, libc::SO_BINDANY); 2];
    #[cfg(not(any(
        target_os = "linux",
        target_os = "android",
        target_os = "freebsd",
        target_os = "openbsd"
    )))]
    const OPTIONS: [(i32, i32); 0] = [];
    let index = match family {
        Family::Ipv4 => 0,
        Family::Ipv6 => 1,
        Family::Unix => return None,
    };
    OPTIONS.get(index).copied()
}

/// True if [`Options::set_user_timeout`] has an effect on this system.
pub fn has_user_timeout() -> bool {
    USER_TIMEOUT.is_some()
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

/// Binds the socket to a routing domain: SO_BINDTODEVICE on Linux (socket(7); a VRF is a device
/// there), SO_SETFIB on FreeBSD (setfib(2)), SO_RTABLE on OpenBSD (setsockopt(2)). The last two
/// take a number. Fails elsewhere.
pub(in crate::os) fn set_vrf(fd: RawFd, name: &str) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let name =
            std::ffi::CString::new(name).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        let length = name.as_bytes_with_nul().len() as libc::socklen_t;
        // SAFETY: the pointer and the length describe `name`, which outlives the call.
        check(unsafe {
            libc::setsockopt(
                fd,
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
        set_option(fd, libc::SOL_SOCKET, OPTION, number)
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
