//! Socket addresses: IPv4, IPv6 and UNIX paths in one type, and their textual forms.

use std::ffi::OsStr;
use std::fmt;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where a stream socket can be bound or connected.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IPv4 or IPv6 address with a port (host order).
    Ip(SocketAddr),
    /// A UNIX-domain socket, by path.
    Unix(PathBuf),
}

/// The address family of an [`Address`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// AF_INET
    Ipv4,
    /// AF_INET6
    Ipv6,
    /// AF_UNIX
    Unix,
}

impl Address {
    /// The family of this address.
    pub fn family(&self) -> Family {
        match self {
            Address::Ip(SocketAddr::V4(_)) => Family::Ipv4,
            Address::Ip(SocketAddr::V6(_)) => Family::Ipv6,
            Address::Unix(_) => Family::Unix,
        }
    }

    /// The IP address, if there is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Address::Ip(address) => Some(address.ip()),
            Address::Unix(_) => None,
        }
    }

    /// The port, 0 for a UNIX path.
    pub fn port(&self) -> u16 {
        match self {
            Address::Ip(address) => address.port(),
            Address::Unix(_) => 0,
        }
    }

    /// The same address with another port; UNIX paths are unchanged.
    pub fn with_port(mut self, port: u16) -> Address {
        if let Address::Ip(address) = &mut self {
            address.set_port(port);
        }
        self
    }

    /// Parses an address literal as su_pton(3C) of the C program does: IPv4 (short forms
    /// included), IPv6, `inet:` or `inet6:` before either, `unix:` before a path, or a path that
    /// starts with a slash. The port of the result is 0.
    ///
    /// `255.255.255.255` is refused, as it cannot name a host.
    pub fn parse(text: &str) -> Option<Address> {
        if let Some(path) = strip_prefix_ignore_case(text, "unix:") {
            return unix(path);
        }
        if text.starts_with('/') {
            return unix(text);
        }
        if let Some(rest) = strip_prefix_ignore_case(text, "inet6:") {
            return parse_ipv6(rest).map(|ip| ip_address(IpAddr::V6(ip)));
        }
        if let Some(rest) = strip_prefix_ignore_case(text, "inet:") {
            return parse_ipv4(rest).map(|ip| ip_address(IpAddr::V4(ip)));
        }
        if text.contains(':') {
            return parse_ipv6(text).map(|ip| ip_address(IpAddr::V6(ip)));
        }
        parse_ipv4(text).map(|ip| ip_address(IpAddr::V4(ip)))
    }

    /// Parses an address that may carry a port: `1.2.3.4:81`, `[::1]:81`, `[::1]`, or anything
    /// [`Address::parse`] accepts. Returns the address and the attached port.
    pub fn parse_with_port(text: &str) -> Option<(Address, Option<u16>)> {
        if let Some(rest) = text.strip_prefix('[') {
            let (inner, tail) = rest.split_once(']')?;
            let address = ip_address(IpAddr::V6(parse_ipv6(inner)?));
            return match tail.strip_prefix(':') {
                Some(port) => Some((address, Some(port.parse().ok()?))),
                None if tail.is_empty() => Some((address, None)),
                None => None,
            };
        }
        if let Some(address) = Address::parse(text) {
            return Some((address, None));
        }
        let (host, port) = text.rsplit_once(':')?;
        let address = Address::parse(host).filter(|a| a.family() == Family::Ipv4)?;
        Some((address, Some(port.parse().ok()?)))
    }
}

fn ip_address(ip: IpAddr) -> Address {
    Address::Ip(SocketAddr::new(ip, 0))
}

fn unix(path: &str) -> Option<Address> {
    // sun_path holds the name and its NUL; a longer one can never be bound.
    // SAFETY: sockaddr_un is plain data, for which all zeroes is a valid value.
    let limit = unsafe { mem::zeroed::<libc::sockaddr_un>() }.sun_path.len();
    (!path.is_empty() && path.len() < limit).then(|| Address::Unix(PathBuf::from(path)))
}

fn strip_prefix_ignore_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    match text.get(..prefix.len()) {
        Some(head) if head.eq_ignore_ascii_case(prefix) => text.get(prefix.len()..),
        _ => None,
    }
}

fn parse_ipv6(text: &str) -> Option<Ipv6Addr> {
    text.parse().ok()
}

/// inet_addr(3): one to four parts, each decimal, octal (leading 0) or hexadecimal (leading 0x);
/// the last part fills the bytes that are left.
pub(crate) fn parse_ipv4(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u32> = text.split('.').map(parse_ipv4_part).collect::<Option<_>>()?;
    let (last, leading) = parts.split_last()?;
    if leading.len() > 3 || leading.iter().any(|&part| part > 255) {
        return None;
    }
    let room = 8 * (4 - leading.len() as u32);
    if u64::from(*last) >= 1u64 << room {
        return None;
    }
    let head = leading.iter().fold(0u32, |sum, &part| sum << 8 | part);
    let value = (u64::from(head) << room) as u32 | last;
    (value != u32::MAX).then(|| Ipv4Addr::from(value))
}

fn parse_ipv4_part(part: &str) -> Option<u32> {
    let (digits, radix) = match part.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&part[2..], 16),
        [b'0', _, ..] => (&part[1..], 8),
        _ => (part, 10),
    };
    // from_str_radix takes a sign, inet_addr does not.
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

impl fmt::Display for Address {
    /// `[ADDRESS]:PORT` for IP, the bare path for UNIX: the form of the log lines.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => write!(out, "[{}]:{}", unmapped(address.ip()), address.port()),
            Address::Unix(path) => write!(out, "{}", path.display()),
        }
    }
}

/// An IPv4-mapped IPv6 address as the IPv4 address it stands for.
pub fn unmapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

/// A `sockaddr` as the kernel takes and gives it.
#[derive(Clone, Copy)]
pub(crate) struct RawAddress {
    storage: libc::sockaddr_storage,
    length: libc::socklen_t,
}

impl RawAddress {
    /// Room for the kernel to write an address into.
    pub(crate) fn empty() -> RawAddress {
        RawAddress {
            // SAFETY: sockaddr_storage is plain data, for which all zeroes is a valid value.
            storage: unsafe { mem::zeroed() },
            length: mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t,
        }
    }

    pub(crate) fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut libc::sockaddr {
        (&raw mut self.storage).cast()
    }

    pub(crate) fn length(&self) -> libc::socklen_t {
        self.length
    }

    pub(crate) fn length_mut(&mut self) -> &mut libc::socklen_t {
        &mut self.length
    }

    /// The address that the kernel wrote; `None` for other families and unnamed UNIX sockets.
    pub(crate) fn to_address(self) -> Option<Address> {
        let length = self.length as usize;
        match i32::from(self.storage.ss_family) {
            libc::AF_INET if length >= mem::size_of::<libc::sockaddr_in>() => {
                // SAFETY: the family and the length say that the storage, which is large and
                // aligned enough for every address type, holds a sockaddr_in.
                let v4 = unsafe { *self.as_ptr().cast::<libc::sockaddr_in>() };
                let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                Some(Address::Ip(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into()))
            }
            libc::AF_INET6 if length >= mem::size_of::<libc::sockaddr_in6>() => {
                // SAFETY: as above, for sockaddr_in6.
                let v6 = unsafe { *self.as_ptr().cast::<libc::sockaddr_in6>() };
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                let port = u16::from_be(v6.sin6_port);
                Some(Address::Ip(
                    SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into(),
                ))
            }
            libc::AF_UNIX => {
                // SAFETY: as above, for sockaddr_un.
                let un = unsafe { *self.as_ptr().cast::<libc::sockaddr_un>() };
                let offset = mem::offset_of!(libc::sockaddr_un, sun_path);
                let used = length.saturating_sub(offset).min(un.sun_path.len());
                // c_char is signed on some machines and not on others.
                let bytes: Vec<u8> = un.sun_path[..used]
                    .iter()
                    .flat_map(|c| c.to_ne_bytes())
                    .take_while(|&b| b != 0)
                    .collect();
                (!bytes.is_empty())
                    .then(|| Address::Unix(Path::new(OsStr::from_bytes(&bytes)).into()))
            }
            _ => None,
        }
    }
}

impl From<&Address> for RawAddress {
    fn from(address: &Address) -> RawAddress {
        let mut raw = RawAddress::empty();
        raw.length = match address {
            Address::Ip(SocketAddr::V4(v4)) => {
                // SAFETY: the storage is zeroed, and large and aligned enough for sockaddr_in.
                let out = unsafe { &mut *raw.as_mut_ptr().cast::<libc::sockaddr_in>() };
                out.sin_family = libc::AF_INET as libc::sa_family_t;
                out.sin_port = v4.port().to_be();
                out.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
                mem::size_of::<libc::sockaddr_in>()
            }
            Address::Ip(SocketAddr::V6(v6)) => {
                // SAFETY: as above, for sockaddr_in6.
                let out = unsafe { &mut *raw.as_mut_ptr().cast::<libc::sockaddr_in6>() };
                out.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                out.sin6_port = v6.port().to_be();
                out.sin6_addr.s6_addr = v6.ip().octets();
                out.sin6_flowinfo = v6.flowinfo();
                out.sin6_scope_id = v6.scope_id();
                mem::size_of::<libc::sockaddr_in6>()
            }
            Address::Unix(path) => {
                // SAFETY: as above, for sockaddr_un.
                let out = unsafe { &mut *raw.as_mut_ptr().cast::<libc::sockaddr_un>() };
                out.sun_family = libc::AF_UNIX as libc::sa_family_t;
                let bytes = path.as_os_str().as_bytes();
                // The last byte stays NUL; longer paths are refused when they are parsed.
                let room = out.sun_path.len() - 1;
                for (to, &from) in out.sun_path[..room].iter_mut().zip(bytes) {
                    *to = from as libc::c_char;
                }
                mem::offset_of!(libc::sockaddr_un, sun_path) + bytes.len().min(room) + 1
            }
        } as libc::socklen_t;
        raw
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_ipv4_forms_are_those_of_inet_addr() {
        for (text, expected) in [
            ("127.0.0.1", Some([127, 0, 0, 1])),
            ("127.1", Some([127, 0, 0, 1])),
            ("10.1.2", Some([10, 1, 0, 2])),
            ("0x7f.1", Some([127, 0, 0, 1])),
            ("017.1", Some([15, 0, 0, 1])),
            ("2130706433", Some([127, 0, 0, 1])),
            ("300.0.0.1", None),
            ("1.2.3.256", None),
            ("1.2.3.4.5", None),
            ("255.255.255.255", None),
            ("", None),
            ("1..2", None),
            ("+1.2", None),
            ("08.1", None),
            ("127.0.0.1#x", None),
        ] {
            assert_eq!(parse_ipv4(text), expected.map(Ipv4Addr::from), "{text}");
        }
    }

    #[test]
    fn prefixes_and_ports() {
        let v4 = |text: &str| Address::parse(text).map(|a| a.to_string());
        assert_eq!(v4("inet:127.0.0.1").as_deref(), Some("[127.0.0.1]:0"));
        assert_eq!(v4("inet6:::1").as_deref(), Some("[::1]:0"));
        assert_eq!(v4("unix:/tmp/x").as_deref(), Some("/tmp/x"));
        assert_eq!(v4("localhost"), None);
        let with = |text: &str| Address::parse_with_port(text).map(|(a, p)| (a.to_string(), p));
        assert_eq!(with("127.0.0.1:81"), Some(("[127.0.0.1]:0".into(), Some(81))));
        assert_eq!(with("[::1]:81"), Some(("[::1]:0".into(), Some(81))));
        assert_eq!(with("[::1]"), Some(("[::1]:0".into(), None)));
        assert_eq!(with("[::1]x"), None);
        assert_eq!(with("127.0.0.1:99999"), None);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC*") {
            let _ = Address::parse(&text);
            let _ = Address::parse_with_port(&text);
        }

        #[test]
        fn raw_form_round_trips(ip in any::<IpAddr>(), port in any::<u16>()) {
            let address = Address::Ip(SocketAddr::new(ip, port));
            prop_assert_eq!(RawAddress::from(&address).to_address(), Some(address));
        }
    }
}
