//! Socket addresses: IPv4, IPv6 and UNIX paths in one type, and their textual forms.

use super::scope;
use std::ffi::OsStr;
use std::fmt;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// An address that a stream socket can be bound to or connected to.
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

/// An IP address with its zone: several links may use the same link-local address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScopedIp {
    /// The address.
    pub ip: IpAddr,
    /// The interface number of its zone, 0 for none.
    pub zone: u32,
}

impl From<IpAddr> for ScopedIp {
    fn from(ip: IpAddr) -> ScopedIp {
        ScopedIp { ip, zone: 0 }
    }
}

impl From<SocketAddr> for ScopedIp {
    fn from(address: SocketAddr) -> ScopedIp {
        let zone = match address {
            SocketAddr::V6(v6) => v6.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        ScopedIp { ip: address.ip(), zone }
    }
}

impl fmt::Display for ScopedIp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{}", unmapped(self.ip), scope::Suffix(self.zone))
    }
}

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAnAddress {
    /// It does not look like an address; it may be a name.
    Malformed,
    /// The zone names an interface that does not exist.
    NoInterface(String),
    /// It has a zone, but is not link-local.
    NotLinkLocal,
}

impl fmt::Display for NotAnAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotAnAddress::Malformed => out.write_str("not an address"),
            NotAnAddress::NoInterface(name) => write!(out, "there is no interface '{name}'"),
            NotAnAddress::NotLinkLocal => {
                out.write_str("only link-local addresses (fe80::/10) have a zone")
            }
        }
    }
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

    /// The IP address and its zone; `None` for a UNIX path.
    pub fn scoped_ip(&self) -> Option<ScopedIp> {
        match self {
            Address::Ip(address) => Some((*address).into()),
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

    /// The host alone, without a port: an IPv4 address if it is IPv4-mapped, otherwise with its
    /// zone. `None` for UNIX addresses.
    pub fn host(&self) -> Option<Address> {
        match self {
            Address::Ip(address) => match (unmapped(address.ip()), address) {
                (IpAddr::V6(_), SocketAddr::V6(_)) => Some(self.clone().with_port(0)),
                (ip, _) => Some(Address::Ip(SocketAddr::new(ip, 0))),
            },
            Address::Unix(_) => None,
        }
    }

    /// The same address with another port; UNIX paths are unchanged.
    pub fn with_port(mut self, port: u16) -> Address {
        if let Address::Ip(address) = &mut self {
            address.set_port(port);
        }
        self
    }

    /// Parses an address literal like su_pton(3C) of the C program: IPv4 (short forms included),
    /// IPv6, `inet:` or `inet6:` before either, `unix:` before a path, or a path that starts with a
    /// slash. The port of the result is 0. Unlike in that program, a link-local IPv6 address may
    /// have a zone: `fe80::1%eth0`, `fe80::1%2`.
    ///
    /// `255.255.255.255` is refused, as it cannot name a host.
    pub fn parse(text: &str) -> Result<Address, NotAnAddress> {
        if let Some(path) = strip_prefix_ignore_case(text, "unix:") {
            return unix(path);
        }
        if text.starts_with('/') {
            return unix(text);
        }
        if let Some(rest) = strip_prefix_ignore_case(text, "inet6:") {
            return parse_ipv6(rest);
        }
        let ipv4 = match strip_prefix_ignore_case(text, "inet:") {
            Some(rest) => rest,
            None if text.contains(':') => return parse_ipv6(text),
            None => text,
        };
        let ip = parse_ipv4(ipv4).ok_or(NotAnAddress::Malformed)?;
        Ok(Address::Ip(SocketAddrV4::new(ip, 0).into()))
    }

    /// Parses an address that may carry a port: `1.2.3.4:81`, `[::1]:81`, `[::1]`, or anything
    /// [`Address::parse`] accepts. Returns the address and the attached port.
    pub fn parse_with_port(text: &str) -> Result<(Address, Option<u16>), NotAnAddress> {
        const MALFORMED: NotAnAddress = NotAnAddress::Malformed;
        if let Some(rest) = text.strip_prefix('[') {
            let (inner, tail) = rest.split_once(']').ok_or(MALFORMED)?;
            let address = parse_ipv6(inner)?;
            return match tail.strip_prefix(':') {
                Some(port) => Ok((address, Some(port.parse().map_err(|_| MALFORMED)?))),
                None if tail.is_empty() => Ok((address, None)),
                None => Err(MALFORMED),
            };
        }
        match Address::parse(text) {
            Err(MALFORMED) => {}
            result => return result.map(|address| (address, None)),
        }
        let (host, port) = text.rsplit_once(':').ok_or(MALFORMED)?;
        let address = Address::parse(host)?;
        if address.family() != Family::Ipv4 {
            return Err(MALFORMED);
        }
        Ok((address, Some(port.parse().map_err(|_| MALFORMED)?)))
    }
}

fn unix(path: &str) -> Result<Address, NotAnAddress> {
    // sun_path must hold the path and a NUL; a longer path can never be bound.
    // SAFETY: sockaddr_un is plain data, for which all zeroes is a valid value.
    let limit = unsafe { mem::zeroed::<libc::sockaddr_un>() }.sun_path.len();
    if path.is_empty() || path.len() >= limit {
        return Err(NotAnAddress::Malformed);
    }
    Ok(Address::Unix(PathBuf::from(path)))
}

fn strip_prefix_ignore_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    match text.get(..prefix.len()) {
        Some(head) if head.eq_ignore_ascii_case(prefix) => text.get(prefix.len()..),
        _ => None,
    }
}

/// Parses an IPv6 address, optionally followed by a percent sign and a zone as in RFC 4007 section
/// 11. Addresses that are not link-local may not have a zone: the kernel would ignore it.
fn parse_ipv6(text: &str) -> Result<Address, NotAnAddress> {
    let (ip, zone) = match text.split_once('%') {
        Some((ip, zone)) if !zone.is_empty() => (ip, Some(zone)),
        _ => (text, None),
    };
    let ip: Ipv6Addr = ip.parse().map_err(|_| NotAnAddress::Malformed)?;
    let scope = match zone {
        None => 0,
        Some(_) if !is_link_local(ip) => return Err(NotAnAddress::NotLinkLocal),
        Some(zone) => {
            scope::index(zone).ok_or_else(|| NotAnAddress::NoInterface(zone.to_owned()))?
        }
    };
    Ok(Address::Ip(SocketAddrV6::new(ip, 0, 0, scope).into()))
}

/// True for unicast and multicast addresses of link-local or interface-local scope, which are not
/// unique within a host.
fn is_link_local(ip: Ipv6Addr) -> bool {
    let [first, ..] = ip.segments();
    first & 0xffc0 == 0xfe80 || matches!(first & 0xff0f, 0xff01 | 0xff02)
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
    // from_str_radix accepts a sign, inet_addr does not.
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

impl fmt::Display for Address {
    /// `[ADDRESS]:PORT` for IP, with the zone if there is one; the bare path for UNIX. Log lines
    /// use this form.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => {
                write!(out, "[{}]:{}", ScopedIp::from(*address), address.port())
            }
            Address::Unix(path) => write!(out, "{}", path.display()),
        }
    }
}

/// Turns an IPv4-mapped IPv6 address into the IPv4 address it stands for.
pub fn unmapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

/// A `sockaddr` as system calls take and return it.
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
                // c_char is signed on some machines and unsigned on others.
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
                // The last byte stays NUL; the parser refuses longer paths.
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
        let v4 = |text: &str| Address::parse(text).ok().map(|a| a.to_string());
        assert_eq!(v4("inet:127.0.0.1").as_deref(), Some("[127.0.0.1]:0"));
        assert_eq!(v4("inet6:::1").as_deref(), Some("[::1]:0"));
        assert_eq!(v4("unix:/tmp/x").as_deref(), Some("/tmp/x"));
        assert_eq!(v4("localhost"), None);
        let with = |text: &str| {
            Address::parse_with_port(text).ok().map(|(address, port)| (address.to_string(), port))
        };
        assert_eq!(with("127.0.0.1:81"), Some(("[127.0.0.1]:0".into(), Some(81))));
        assert_eq!(with("[::1]:81"), Some(("[::1]:0".into(), Some(81))));
        assert_eq!(with("[::1]"), Some(("[::1]:0".into(), None)));
        assert_eq!(with("[::1]x"), None);
        assert_eq!(with("127.0.0.1:99999"), None);
    }

    #[test]
    fn zones_are_part_of_link_local_addresses() {
        let loopback = scope::index("lo").expect("a loopback interface");
        for (text, expected) in [
            ("fe80::1%lo", Ok(("[fe80::1%lo]:0", loopback))),
            ("inet6:fe80::1%lo", Ok(("[fe80::1%lo]:0", loopback))),
            ("fe80::1%4294967295", Ok(("[fe80::1%4294967295]:0", u32::MAX))),
            ("ff02::1%lo", Ok(("[ff02::1%lo]:0", loopback))),
            ("fe80::1", Ok(("[fe80::1]:0", 0))),
            ("fe80::1%nosuch0", Err(NotAnAddress::NoInterface("nosuch0".into()))),
            ("fe80::1%0", Err(NotAnAddress::NoInterface("0".into()))),
            ("fe80::1%4294967296", Err(NotAnAddress::NoInterface("4294967296".into()))),
            ("fe80::1%", Err(NotAnAddress::Malformed)),
            ("::%lo", Err(NotAnAddress::NotLinkLocal)),
            ("2001:db8::1%lo", Err(NotAnAddress::NotLinkLocal)),
            ("127.0.0.1%lo", Err(NotAnAddress::Malformed)),
        ] {
            let found = Address::parse(text);
            let zone = |address: &Address| address.scoped_ip().map_or(0, |scoped| scoped.zone);
            let found = found.as_ref().map(|address| (address.to_string(), zone(address)));
            let expected = expected.as_ref().map(|(text, zone)| ((*text).to_owned(), *zone));
            assert_eq!(found, expected, "{text}");
        }
        let (address, port) = Address::parse_with_port("[fe80::1%lo]:81").expect("an address");
        assert_eq!((address.to_string().as_str(), port), ("[fe80::1%lo]:0", Some(81)));
        // Link-local addresses that differ only in their zone are different addresses.
        assert_ne!(Address::parse("fe80::1%1"), Address::parse("fe80::1%2"));
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
