//! What the configuration says about a socket: plain data.

use crate::os::address::Family;

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

impl Family {
    /// The AF_ number, as socket(2) takes it.
    pub(super) fn domain(self) -> libc::c_int {
        match self {
            Family::Ipv4 => libc::AF_INET,
            Family::Ipv6 => libc::AF_INET6,
            Family::Unix => libc::AF_UNIX,
        }
    }
}
