//! `sockaddr_union`: a socket address as C code passes it.

use crate::ffi::entry::Argument;
use crate::os::address::{Address, RawAddress, ScopedIp};
use std::cmp::Ordering;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

/// An address of any family that this library knows. `sa_family` tells which member is valid; port
/// and address are in network byte order.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(missing_docs, reason = "the names are those of the C union")]
pub union SockaddrUnion {
    pub sa: libc::sockaddr,
    pub sun: libc::sockaddr_un,
    pub sin: libc::sockaddr_in,
    pub sin6: libc::sockaddr_in6,
}

#[cfg(target_os = "linux")]
const _: () = assert!(size_of::<SockaddrUnion>() == 112 && align_of::<SockaddrUnion>() == 4);

/// The host of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host<'a> {
    /// A path.
    Unix(&'a [u8]),
    /// An IPv4 or IPv6 address.
    Ip(IpAddr),
}

impl Host<'_> {
    /// The host with IPv4 converted to IPv4-mapped IPv6.
    fn mapped(self) -> Self {
        match self {
            Host::Ip(IpAddr::V4(v4)) => Host::Ip(IpAddr::V6(v4.to_ipv6_mapped())),
            host => host,
        }
    }
}

impl From<&Address> for SockaddrUnion {
    fn from(address: &Address) -> SockaddrUnion {
        let raw = RawAddress::from(address);
        let length = (raw.length() as usize).min(size_of::<SockaddrUnion>());
        let mut result = SockaddrUnion::EMPTY;
        // SAFETY: `raw` has that many bytes of an address, and `result` has room for them.
        unsafe {
            ptr::copy_nonoverlapping(
                raw.as_ptr().cast::<u8>(),
                (&raw mut result).cast::<u8>(),
                length,
            );
        }
        result
    }
}

impl SockaddrUnion {
    /// All zeroes, without a family.
    // SAFETY: socket addresses are plain data, for which all zeroes is a valid value.
    pub const EMPTY: SockaddrUnion = unsafe { mem::zeroed() };

    /// A family, and otherwise zeroes.
    pub fn of_family(family: i32) -> SockaddrUnion {
        let mut result = SockaddrUnion::EMPTY;
        result.sa.sa_family = family as libc::sa_family_t;
        result
    }

    /// AF_INET, AF_INET6, AF_UNIX or something else.
    pub fn family(&self) -> i32 {
        // SAFETY: every member begins with the family, and any bytes are valid.
        i32::from(unsafe { self.sa.sa_family })
    }

    /// The size that system calls take for the family.
    pub fn length(&self) -> libc::socklen_t {
        let length = match self.family() {
            libc::AF_UNIX => size_of::<libc::sockaddr_un>(),
            libc::AF_INET => size_of::<libc::sockaddr_in>(),
            libc::AF_INET6 => size_of::<libc::sockaddr_in6>(),
            _ => size_of::<libc::sockaddr>(),
        };
        length as libc::socklen_t
    }

    /// The path, up to its NUL or the end of `sun_path`.
    fn path(&self) -> &[u8] {
        // SAFETY: any bytes are a valid sockaddr_un; c_char and u8 have the same layout.
        let path: &[u8] = unsafe {
            let path = &raw const self.sun.sun_path;
            &*ptr::slice_from_raw_parts(path.cast::<u8>(), (*path).len())
        };
        path.split(|&byte| byte == 0).next().unwrap_or_default()
    }

    /// The host; `None` for unknown families.
    pub fn host(&self) -> Option<Host<'_>> {
        // SAFETY: the family says which member it is, and any bytes are valid.
        unsafe {
            match self.family() {
                libc::AF_UNIX => Some(Host::Unix(self.path())),
                libc::AF_INET => {
                    let address = Ipv4Addr::from(u32::from_be(self.sin.sin_addr.s_addr));
                    Some(Host::Ip(IpAddr::V4(address)))
                }
                libc::AF_INET6 => {
                    Some(Host::Ip(IpAddr::V6(Ipv6Addr::from(self.sin6.sin6_addr.s6_addr))))
                }
                _ => None,
            }
        }
    }

    /// The IP address with its zone; `None` for other families.
    pub fn scoped_ip(&self) -> Option<ScopedIp> {
        let Some(Host::Ip(ip)) = self.host() else {
            return None;
        };
        let zone = match self.family() {
            // SAFETY: the family says that it is this member, and any bytes are valid.
            libc::AF_INET6 => unsafe { self.sin6.sin6_scope_id },
            _ => 0,
        };
        Some(ScopedIp { ip, zone })
    }

    /// Sets the host and nothing else. False if this family cannot hold it.
    pub fn set_host(&mut self, host: Host<'_>) -> bool {
        match (self.family(), host) {
            (libc::AF_UNIX, Host::Unix(path)) => {
                // SAFETY: c_char and u8 have the same layout, and any bytes are valid.
                let room: &mut [u8] = unsafe {
                    let room = &raw mut self.sun.sun_path;
                    &mut *ptr::slice_from_raw_parts_mut(room.cast::<u8>(), (*room).len())
                };
                if path.len() >= room.len() {
                    return false;
                }
                room.fill(0);
                room[..path.len()].copy_from_slice(path);
            }
            (libc::AF_INET, Host::Ip(ip)) => {
                let address = match ip {
                    IpAddr::V4(v4) => Some(v4),
                    IpAddr::V6(v6) => v6.to_ipv4_mapped(),
                };
                let Some(address) = address else {
                    return false;
                };
                self.sin.sin_addr.s_addr = u32::from(address).to_be();
            }
            (libc::AF_INET6, Host::Ip(ip)) => {
                let address = match ip {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                    IpAddr::V6(v6) => v6,
                };
                self.sin6.sin6_addr.s6_addr = address.octets();
            }
            _ => return false,
        }
        true
    }

    /// The port, in host byte order; 0 for families without ports.
    pub fn port(&self) -> u16 {
        // SAFETY: the family says which member it is, and any bytes are valid.
        unsafe {
            match self.family() {
                libc::AF_INET => u16::from_be(self.sin.sin_port),
                libc::AF_INET6 => u16::from_be(self.sin6.sin6_port),
                _ => 0,
            }
        }
    }

    /// Sets the port. False for families without ports.
    pub fn set_port(&mut self, port: u16) -> bool {
        match self.family() {
            libc::AF_INET => self.sin.sin_port = port.to_be(),
            libc::AF_INET6 => self.sin6.sin6_port = port.to_be(),
            _ => return false,
        }
        true
    }

    /// Converts IPv4 to IPv4-mapped IPv6, or back. False, and no change, if the family cannot hold
    /// the address.
    pub fn convert(&mut self, family: i32) -> bool {
        if self.family() == family {
            return true;
        }
        let mut result = SockaddrUnion::of_family(family);
        let done = match self.host() {
            Some(host @ Host::Ip(_)) => result.set_host(host) && result.set_port(self.port()),
            _ => false,
        };
        if done {
            *self = result;
        }
        done
    }

    /// The order of hosts: paths before addresses, IPv4 as IPv4-mapped; `None` if a family is
    /// unknown.
    pub fn compare_hosts(&self, other: &SockaddrUnion) -> Option<Ordering> {
        Some(match (self.host()?.mapped(), other.host()?.mapped()) {
            (Host::Unix(a), Host::Unix(b)) => a.cmp(b),
            (Host::Ip(a), Host::Ip(b)) => a.cmp(&b),
            (Host::Unix(_), Host::Ip(_)) => Ordering::Less,
            (Host::Ip(_), Host::Unix(_)) => Ordering::Greater,
        })
    }

    /// The address as system calls take it.
    pub(crate) fn raw(&self) -> RawAddress {
        let mut raw = RawAddress::empty();
        let length = self.length();
        let room = (raw.length() as usize).min(size_of::<SockaddrUnion>());
        // SAFETY: both have that many bytes.
        unsafe {
            let count = (length as usize).min(room);
            let start = ptr::from_ref(self).cast::<u8>();
            raw.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(start, count);
        }
        *raw.length_mut() = length;
        raw
    }

    /// The address as the library itself uses it; `None` for unknown families.
    pub fn to_address(&self) -> Option<Address> {
        self.raw().to_address()
    }

    /// Reads the text of an address: IPv4, IPv6, a path of any bytes, or one of them after `inet:`,
    /// `inet6:` or `unix:`. An address with a zone is refused, as C code knows no zones.
    pub fn parse(text: &[u8]) -> Option<SockaddrUnion> {
        SockaddrUnion::read(text, 0, |text| Some((Address::parse(text).ok()?, None)))
    }

    /// As [`parse`](Self::parse), with the port `port`, unless the text has its own.
    pub fn parse_with_port(text: &[u8], port: u16) -> Option<SockaddrUnion> {
        SockaddrUnion::read(text, port, |text| Address::parse_with_port(text).ok())
    }

    fn read(
        text: &[u8],
        port: u16,
        parse: impl FnOnce(&str) -> Option<(Address, Option<u16>)>,
    ) -> Option<SockaddrUnion> {
        let Ok(text) = std::str::from_utf8(text) else {
            let mut su = SockaddrUnion::of_family(libc::AF_UNIX);
            return (text.starts_with(b"/") && su.set_host(Host::Unix(text))).then_some(su);
        };
        let (address, own) = parse(text)?;
        if address.scoped_ip().is_some_and(|scoped| scoped.zone != 0) {
            return None;
        }
        let mut su = SockaddrUnion::from(&address);
        su.set_port(own.unwrap_or(port));
        Some(su)
    }
}

/// A copy of an address, as many bytes as its family has.
impl Argument for SockaddrUnion {
    type Raw = *const SockaddrUnion;
    unsafe fn take(raw: *const SockaddrUnion) -> Option<SockaddrUnion> {
        if raw.is_null() {
            return None;
        }
        // SAFETY: every address has a family, and the size that its family says.
        unsafe {
            let mut copy = SockaddrUnion::of_family(i32::from((*raw).sa.sa_family));
            let length = copy.length() as usize;
            (&raw mut copy).cast::<u8>().copy_from_nonoverlapping(raw.cast(), length);
            Some(copy)
        }
    }
}

/// An address to change in place, as large as its family says.
pub struct InPlace(*mut SockaddrUnion);

impl Argument for InPlace {
    type Raw = *mut SockaddrUnion;
    unsafe fn take(raw: *mut SockaddrUnion) -> Option<InPlace> {
        (!raw.is_null()).then_some(InPlace(raw))
    }
}

impl InPlace {
    /// Changes the address. If `work` returns false, nothing changes.
    pub(crate) fn change(&self, work: impl FnOnce(&mut SockaddrUnion) -> bool) -> bool {
        // SAFETY: `take` was promised an address, and the pointer is not null.
        let Some(mut su) = (unsafe { SockaddrUnion::take(self.0) }) else {
            return false;
        };
        let before = su.length();
        if !work(&mut su) {
            return false;
        }
        // If the address has become shorter, clear the rest of the old one.
        let length = su.length().max(before) as usize;
        // SAFETY: there is room for an address of either family.
        unsafe { self.0.cast::<u8>().copy_from_nonoverlapping((&raw const su).cast(), length) };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> SockaddrUnion {
        SockaddrUnion::from(&Address::parse_with_port(text).unwrap().0)
    }

    #[test]
    fn ipv4_is_its_mapped_form() {
        let (v4, v6) = (of("10.0.0.1"), of("::ffff:10.0.0.1"));
        assert_eq!(v4.compare_hosts(&v6), Some(Ordering::Equal));
        let mut converted = v4;
        assert!(converted.set_port(7) && converted.convert(libc::AF_INET6));
        assert_eq!((converted.host(), converted.port()), (v6.host(), 7));
        assert!(converted.convert(libc::AF_INET));
        assert_eq!((converted.host(), converted.port()), (v4.host(), 7));
        let mut other = of("::1");
        assert!(!other.convert(libc::AF_INET) && !other.convert(libc::AF_UNIX));
        assert_eq!(other.host(), of("::1").host());
    }

    #[test]
    fn order_is_total() {
        let list = ["/a", "/b", "::1", "10.0.0.1", "10.0.0.2", "::1:0:0:0"].map(of);
        for (at, a) in list.iter().enumerate() {
            for (other, b) in list.iter().enumerate() {
                assert_eq!(a.compare_hosts(b), Some(at.cmp(&other)));
            }
        }
        assert_eq!(list[0].compare_hosts(&SockaddrUnion::EMPTY), None);
    }

    #[test]
    fn paths_have_a_limit() {
        let mut unix = of("/run/x");
        assert_eq!(unix.host(), Some(Host::Unix(b"/run/x")));
        assert!(!unix.set_host(Host::Unix(&[b'x'; 200])));
        assert!(!unix.set_port(1) && !unix.set_host(of("::1").host().unwrap()));
        assert!(unix.set_host(Host::Unix(b"y")));
        assert_eq!(unix.host(), Some(Host::Unix(b"y")));
    }
}
