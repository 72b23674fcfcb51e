//! misc/net.h: addresses as four words in host byte order, names, and socket addresses.

use super::entry::{entry, Copied, Out};
use super::layout::sockaddr::{Host, InPlace, SockaddrUnion};
use super::memory::{put_text, slice_mut};
use crate::library::network::{self, Address};
use crate::os::{names, sockaddr};
use std::cmp::Ordering;
use std::ffi::{c_char, c_int, c_uint, c_void, CStr};
use std::net::IpAddr;
use std::ptr;
use std::sync::OnceLock;

/// An order as -1, 0 or 1.
fn sign(order: Ordering) -> c_int {
    match order {
        Ordering::Less => -1,
        Ordering::Equal => 0,
        Ordering::Greater => 1,
    }
}

/// 0 if it was done, otherwise -1.
fn done(done: bool) -> c_int {
    if done {
        0
    } else {
        -1
    }
}

/// Asked once, so that the answer never changes: C code may keep it.
fn has_ipv6() -> bool {
    static HAVE: OnceLock<bool> = OnceLock::new();
    *HAVE.get_or_init(names::has_ipv6)
}

fn any_host() -> &'static CStr {
    if has_ipv6() {
        c"::"
    } else {
        c"0.0.0.0"
    }
}

fn utf8(text: &[u8]) -> Option<&str> {
    std::str::from_utf8(text).ok()
}

entry! {
    /// `int v6_common_cidr(struct in6_addr *a, struct in6_addr *b, int min)`: the length of the
    /// common prefix of two addresses, at most `min` bits.
    #[otherwise(0)]
    pub fn v6_common_cidr(a: &Address, b: &Address, most: c_int) -> c_int {
        network::common_length(a, b, most)
    }

    /// `void v6_network(struct in6_addr *n, struct in6_addr *a, int m)`: sets `*n` to `*a` with its
    /// host bits clear. `n` may be `a`.
    pub fn v6_network(result: Out<Address>, address: Copied<Address>, length: c_int) {
        result.put(network::network(&address.0, length));
    }

    /// `void v6_broadcast(struct in6_addr *b, struct in6_addr *a, int m)`: sets `*b` to `*a` with
    /// its host bits set. `b` may be `a`.
    pub fn v6_broadcast(result: Out<Address>, address: Copied<Address>, length: c_int) {
        result.put(network::broadcast(&address.0, length));
    }

    /// `int v6_cmp(struct in6_addr *a, struct in6_addr *b)`: -1, 0 or 1. Null is smaller than any
    /// address.
    #[otherwise(0)]
    pub fn v6_cmp(a: Option<&Address>, b: Option<&Address>) -> c_int {
        sign(a.cmp(&b))
    }

    /// `int v6_contains(struct in6_addr *n, int m, struct in6_addr *a)`: -1 if the address is in
    /// the network, 0 otherwise.
    #[otherwise(0)]
    pub fn v6_contains(net: &Address, length: c_int, address: &Address) -> c_int {
        -c_int::from(network::contains(net, length, address))
    }

    /// `void v6_ntoh(struct in6_addr *a, struct in6_addr *b)`: sets `*a` to `*b` in the other byte
    /// order. `a` may be `b`.
    pub fn v6_ntoh(result: Out<Address>, address: Copied<Address>) {
        result.put(address.0.map(u32::from_be));
    }

    /// `int v6_ptoh(struct in6_addr *a, int *cm, char *s)`: reads an address or a network, and its
    /// prefix length, of 128 bits. -1 if the text is neither; nothing is written then.
    #[otherwise(-1)]
    pub fn v6_ptoh(address: Out<Address>, length: Out<c_int>, text: &[u8]) -> c_int {
        let Some((result, bits)) = utf8(text).and_then(network::parse_network) else {
            return -1;
        };
        address.put(result);
        length.put(bits);
        0
    }

    /// `int v6_ptoh_ext(struct in6_addr *addr, struct in6_addr *mask, char *s)`: as `v6_ptoh`, but
    /// gives the mask. An IPv6 address without a mask leaves `*mask` unchanged.
    #[otherwise(-1)]
    pub fn v6_ptoh_ext(address: Out<Address>, mask: Out<Address>, text: &[u8]) -> c_int {
        let Some((result, bits)) = utf8(text).and_then(network::parse_masked) else {
            return -1;
        };
        address.put(result);
        if let Some(bits) = bits {
            mask.put(bits);
        }
        0
    }

    /// `int have_inet6(void)`: -1 if IPv6 sockets can be made here, 0 otherwise.
    #[otherwise(0)]
    pub fn have_inet6() -> c_int {
        -c_int::from(has_ipv6())
    }

    /// `char *inet_wildcard(void)`: the wildcard address, in a static string.
    #[otherwise(ptr::null_mut())]
    pub fn inet_wildcard() -> *mut c_char {
        any_host().as_ptr().cast_mut()
    }

    /// `char *inet_any(void)`: the network of all addresses, in a static string.
    #[otherwise(ptr::null_mut())]
    pub fn inet_any() -> *mut c_char {
        if has_ipv6() { c"::/0" } else { c"0.0.0.0/0" }.as_ptr().cast_mut()
    }

    /// `int service_to_port(uint16_t *p, char *service, int proto)`: the port: the number that the
    /// text begins with, or that of a service in services(5), for the socket type `proto`. -1 if
    /// the number is not a port; an unknown name leaves `*p` unchanged.
    #[otherwise(-1)]
    pub fn service_to_port(port: Out<u16>, service: &CStr, kind: c_int) -> c_int {
        match port_of(service, kind) {
            Some(found) => {
                if let Some(found) = found {
                    port.put(found);
                }
                0
            }
            None => -1,
        }
    }
}

/// `None` for a number that is not a port, `Some(None)` for an unknown name.
fn port_of(service: &CStr, kind: c_int) -> Option<Option<u16>> {
    match network::leading_port(&service.to_string_lossy()) {
        Some(number) => number.map(Some),
        None => Some(sockaddr::service_port(service, kind)),
    }
}

entry! {
    /// `uint16_t su_get_port(sockaddr_union *sa)`: the port, in host byte order; 0 for families
    /// without ports.
    #[otherwise(0)]
    pub fn su_get_port(su: SockaddrUnion) -> u16 {
        su.port()
    }

    /// `int su_set_port(sockaddr_union *sa, uint16_t port)`: sets the port; -1 for families without
    /// ports.
    #[otherwise(-1)]
    pub fn su_set_port(su: InPlace, port: u16) -> c_int {
        done(su.change(|su| su.set_port(port)))
    }

    /// `int su_convert(sockaddr_union *sa, u_int af)`: converts IPv4 to IPv4-mapped IPv6, or back.
    /// -1 for other addresses.
    #[otherwise(-1)]
    pub fn su_convert(su: InPlace, family: c_uint) -> c_int {
        done(su.change(|su| i32::try_from(family).is_ok_and(|family| su.convert(family))))
    }

    /// `int su_copy_addr(sockaddr_union *dst, sockaddr_union *src)`: copies the address and not the
    /// port, converting between IPv4 and IPv4-mapped to the destination's family. -1 if that family
    /// has no such address.
    #[otherwise(-1)]
    pub fn su_copy_addr(to: InPlace, from: SockaddrUnion) -> c_int {
        done(to.change(|to| from.host().is_some_and(|host| to.set_host(host))))
    }

    /// `int su_equal_addr(sockaddr_union *dst, sockaddr_union *src)`: not 0 if the addresses are
    /// equal, whatever their ports are.
    #[otherwise(0)]
    pub fn su_equal_addr(a: SockaddrUnion, b: SockaddrUnion) -> c_int {
        (a.compare_hosts(&b) == Some(Ordering::Equal)).into()
    }

    /// `int su_equal(sockaddr_union *dst, sockaddr_union *src)`: not 0 if addresses and ports are
    /// equal.
    #[otherwise(0)]
    pub fn su_equal(a: SockaddrUnion, b: SockaddrUnion) -> c_int {
        (a.compare_hosts(&b) == Some(Ordering::Equal) && a.port() == b.port()).into()
    }

    /// `int su_cmp_addr(sockaddr_union *dst, sockaddr_union *src)`: the order of addresses, -1, 0
    /// or 1; -1 if the family of one is unknown.
    #[otherwise(-1)]
    pub fn su_cmp_addr(a: SockaddrUnion, b: SockaddrUnion) -> c_int {
        a.compare_hosts(&b).map_or(-1, sign)
    }

    /// `int su_cmp(sockaddr_union *dst, sockaddr_union *src)`: as `su_cmp_addr`; equal addresses
    /// are ordered by port.
    #[otherwise(-1)]
    pub fn su_cmp(a: SockaddrUnion, b: SockaddrUnion) -> c_int {
        a.compare_hosts(&b).map_or(-1, |order| sign(order.then(a.port().cmp(&b.port()))))
    }

    /// `socklen_t su_len(sockaddr_union *sa)`: the size of an address of its family.
    #[otherwise(0)]
    pub fn su_len(su: SockaddrUnion) -> libc::socklen_t {
        su.length()
    }

    /// `int su_socket(int domain, int type, int protocol)`: a non-blocking socket; -1 with errno
    /// set on failure.
    #[otherwise(-1)]
    pub fn su_socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
        sockaddr::open(domain, kind, protocol).unwrap_or(-1)
    }

    /// `int su_bind(int s, sockaddr_union *sa)`: bind(2) with SO_REUSEADDR and SO_KEEPALIVE; -1
    /// with errno set on failure.
    #[otherwise(-1)]
    pub fn su_bind(fd: c_int, su: SockaddrUnion) -> c_int {
        done(sockaddr::bind(fd, &su.raw()).is_ok())
    }

    /// `char *su_ntoa(sockaddr_union *sa, char *dst, size_t cnt)`: the text of an address without
    /// its port. Null if it does not fit.
    #[otherwise(ptr::null_mut())]
    pub fn su_ntoa(su: SockaddrUnion, out: *mut c_char, room: usize) -> *mut c_char {
        let text = match su.host() {
            Some(Host::Unix(path)) => path.to_vec(),
            Some(Host::Ip(IpAddr::V4(v4))) => v4.to_string().into_bytes(),
            Some(Host::Ip(IpAddr::V6(v6))) => network::ipv6_text(&v6).into_bytes(),
            None => return ptr::null_mut(),
        };
        // SAFETY: there is that room.
        match unsafe { put_text(out, room, &text) } {
            true => out,
            false => ptr::null_mut(),
        }
    }

    /// `int su_pton(sockaddr_union *su, char *src)`: reads an address: IPv4, IPv6, a path, or one
    /// of them after `inet:`, `inet6:` or `unix:`. If the text is none of these, returns -1, and
    /// `*su` has no family.
    #[otherwise(-1)]
    pub fn su_pton(su: &mut SockaddrUnion, text: &[u8]) -> c_int {
        let found = SockaddrUnion::parse(text);
        *su = found.unwrap_or(SockaddrUnion::EMPTY);
        done(found.is_some())
    }

    /// `int su_pton_p(sockaddr_union *su, char *src, uint16_t port)`: as `su_pton`, with the port
    /// `port`, unless the text has its own: `1.2.3.4:80`, `[::1]:80`.
    #[otherwise(-1)]
    pub fn su_pton_p(su: &mut SockaddrUnion, text: &[u8], port: u16) -> c_int {
        let found = SockaddrUnion::parse_with_port(text, port);
        *su = found.unwrap_or(SockaddrUnion::EMPTY);
        done(found.is_some())
    }

    /// `int su_addrinfo(char *address, char *port, int protocol, int family, int count, void *data,
    /// int (*func)(sockaddr_union *, void *))`: calls `func` with the address, or with each address
    /// of a host name, up to `count` of them unless that is 0, until `func` returns 0. A null
    /// `address` is the wildcard address. `protocol` is a socket type. -1 if port or host are
    /// unknown.
    #[otherwise(-1)]
    pub fn su_addrinfo(
        address: Option<&CStr>,
        port: Option<&CStr>,
        kind: c_int,
        family: c_int,
        count: c_int,
        data: *mut c_void,
        function: unsafe extern "C" fn(*mut SockaddrUnion, *mut c_void) -> c_int,
    ) -> c_int {
        let Some(port) = port.map_or(Some(None), |port| port_of(port, kind)) else {
            return -1;
        };
        let addresses = addresses(address.unwrap_or(any_host()).to_bytes(), family);
        let most = if count > 0 { count as usize } else { usize::MAX };
        for mut su in addresses.iter().copied().take(most) {
            su.set_port(port.unwrap_or(0));
            // SAFETY: the caller passed the function for this; the address lives as long as the
            // call.
            if unsafe { function(&mut su, data) } == 0 {
                break;
            }
        }
        done(!addresses.is_empty())
    }

    /// `int su_nameinfo(sockaddr_union *su, char *host, size_t hostlen, char *serv, size_t servlen,
    /// int flags)`: getnameinfo(3), extended to paths, which have no service. 0, or an error of
    /// getnameinfo(3) or this library.
    #[otherwise(-1)]
    pub fn su_nameinfo(
        su: SockaddrUnion,
        host: *mut c_char,
        host_room: usize,
        service: *mut c_char,
        service_room: usize,
        flags: c_int,
    ) -> c_int {
        match su.host() {
            Some(Host::Ip(_)) => {
                // SAFETY: the sizes are those of the buffers, which do not overlap.
                let (host, service) = unsafe {
                    (slice_mut(host.cast(), host_room), slice_mut(service.cast(), service_room))
                };
                sockaddr::name_info(&su.raw(), host, service, flags)
            }
            Some(Host::Unix(path)) => {
                // SAFETY: as above.
                let (served, named) = unsafe {
                    (put_text(service, service_room, b""), put_text(host, host_room, path))
                };
                c_int::from(!named && (!host.is_null() || !served))
            }
            None => -1,
        }
    }

    /// `int su_ptoh(sockaddr_union *su, struct in6_addr *a)`: the address as four words in host
    /// byte order; -1 for paths.
    #[otherwise(-1)]
    pub fn su_ptoh(su: SockaddrUnion, out: Out<Address>) -> c_int {
        out.put(match su.host() {
            Some(Host::Ip(IpAddr::V4(v4))) => network::mapped(v4),
            Some(Host::Ip(IpAddr::V6(v6))) => network::from_ipv6(v6),
            _ => return -1,
        });
        0
    }

    /// `int su_htop(sockaddr_union *su, struct in6_addr *a, int sa_family)`: the reverse of
    /// `su_ptoh`, without a port. -1 if the address cannot be of that family.
    #[otherwise(-1)]
    pub fn su_htop(out: Out<SockaddrUnion>, address: &Address, family: c_int) -> c_int {
        let host = Host::Ip(IpAddr::V6(network::to_ipv6(address)));
        let mut su = SockaddrUnion::of_family(family);
        let found = matches!(family, libc::AF_INET | libc::AF_INET6) && su.set_host(host);
        out.put(su);
        done(found)
    }
}

/// The address in the text, or the addresses of the host that it names.
fn addresses(text: &[u8], family: c_int) -> Vec<SockaddrUnion> {
    if let Some(literal) = SockaddrUnion::parse(text) {
        return vec![literal];
    }
    let found = utf8(text).and_then(|host| sockaddr::resolve(host).ok()).unwrap_or_default();
    let found = found.iter().map(SockaddrUnion::from);
    found.filter(|su| family == libc::AF_UNSPEC || su.family() == family).collect()
}
