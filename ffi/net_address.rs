//! misc/net.h: socket addresses.
//!
//! # Safety
//! A `sockaddr_union` is null, or as large as the address of its family; where one is written it is
//! a whole one. Texts are null or NUL-terminated, buffers null or of the length that is said.
#![allow(clippy::missing_safety_doc, reason = "said at the head of the file")]

use super::memory::{put_text, slice_mut};
use super::net::{inet_wildcard, service_to_port, sign, utf8};
use super::{bytes, guard};
use crate::library::network::{self, Address as Words};
use crate::os::address::Address;
use crate::os::sockaddr::{self, Host, SockaddrUnion};
use std::cmp::Ordering;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::net::IpAddr;
use std::ptr;

/// A copy of an address, as far as its family says that there is one.
unsafe fn load(su: *const SockaddrUnion) -> Option<SockaddrUnion> {
    if su.is_null() {
        return None;
    }
    // SAFETY: every address has a family, and the size that its family says.
    unsafe {
        let mut copy = SockaddrUnion::of_family(i32::from((*su).sa.sa_family));
        let length = copy.length() as usize;
        (&raw mut copy).cast::<u8>().copy_from_nonoverlapping(su.cast(), length);
        Some(copy)
    }
}

/// Both addresses, or none.
unsafe fn load_two(
    a: *const SockaddrUnion,
    b: *const SockaddrUnion,
) -> Option<(SockaddrUnion, SockaddrUnion)> {
    // SAFETY: as the caller promises.
    unsafe { Some((load(a)?, load(b)?)) }
}

/// `uint16_t su_get_port(sockaddr_union *sa)`: in host byte order; 0 for families without.
#[no_mangle]
pub unsafe extern "C" fn su_get_port(su: *const SockaddrUnion) -> u16 {
    // SAFETY: as the caller promises.
    guard(0, || unsafe { load(su) }.map_or(0, |su| su.port()))
}

/// Changes an address in place; -1 if that is not possible, and nothing changes.
unsafe fn change(out: *mut SockaddrUnion, work: impl FnOnce(&mut SockaddrUnion) -> bool) -> c_int {
    guard(-1, || {
        // SAFETY: as the caller promises.
        let Some(mut su) = (unsafe { load(out) }) else {
            return -1;
        };
        let before = su.length();
        if !work(&mut su) {
            return -1;
        }
        // SAFETY: as above. An address that has become shorter leaves nothing behind it.
        unsafe {
            let length = su.length().max(before) as usize;
            out.cast::<u8>().copy_from_nonoverlapping((&raw const su).cast(), length);
        }
        0
    })
}

/// `int su_set_port(sockaddr_union *sa, uint16_t port)`: -1 for families without.
#[no_mangle]
pub unsafe extern "C" fn su_set_port(su: *mut SockaddrUnion, port: u16) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { change(su, |su| su.set_port(port)) }
}

/// `int su_convert(sockaddr_union *sa, u_int af)`: IPv4 to IPv4-mapped IPv6, or back. -1 for
/// others.
#[no_mangle]
pub unsafe extern "C" fn su_convert(su: *mut SockaddrUnion, family: c_uint) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { change(su, |su| i32::try_from(family).is_ok_and(|family| su.convert(family))) }
}

/// `int su_copy_addr(sockaddr_union *dst, sockaddr_union *src)`: the address without the port, IPv4
/// and IPv4-mapped as the destination's family says. -1 if it has no such address.
#[no_mangle]
pub unsafe extern "C" fn su_copy_addr(to: *mut SockaddrUnion, from: *const SockaddrUnion) -> c_int {
    // SAFETY: as the caller promises.
    let from = unsafe { load(from) };
    // SAFETY: as above.
    unsafe {
        change(to, |to| from.as_ref().and_then(|from| from.host()).is_some_and(|h| to.set_host(h)))
    }
}

/// `int su_equal_addr(sockaddr_union *dst, sockaddr_union *src)`: not 0 if the addresses are equal,
/// whatever their ports are.
#[no_mangle]
pub unsafe extern "C" fn su_equal_addr(a: *const SockaddrUnion, b: *const SockaddrUnion) -> c_int {
    // SAFETY: as the caller promises.
    let order = guard(None, || unsafe { load_two(a, b) }.and_then(|(a, b)| a.compare_hosts(&b)));
    c_int::from(order == Some(Ordering::Equal))
}

/// `int su_equal(sockaddr_union *dst, sockaddr_union *src)`: not 0 if addresses and ports are
/// equal.
#[no_mangle]
pub unsafe extern "C" fn su_equal(a: *const SockaddrUnion, b: *const SockaddrUnion) -> c_int {
    // SAFETY: as the caller promises.
    c_int::from(unsafe { su_equal_addr(a, b) != 0 && su_get_port(a) == su_get_port(b) })
}

/// `int su_cmp_addr(sockaddr_union *dst, sockaddr_union *src)`: the order of addresses, -1, 0 or 1;
/// -1 if one is of a foreign family.
#[no_mangle]
pub unsafe extern "C" fn su_cmp_addr(a: *const SockaddrUnion, b: *const SockaddrUnion) -> c_int {
    // SAFETY: as the caller promises.
    let order = guard(None, || unsafe { load_two(a, b) }.and_then(|(a, b)| a.compare_hosts(&b)));
    order.map_or(-1, sign)
}

/// `int su_cmp(sockaddr_union *dst, sockaddr_union *src)`: as `su_cmp_addr`, and then by port.
#[no_mangle]
pub unsafe extern "C" fn su_cmp(a: *const SockaddrUnion, b: *const SockaddrUnion) -> c_int {
    // SAFETY: as the caller promises.
    match unsafe { su_cmp_addr(a, b) } {
        // SAFETY: as above.
        0 => sign(unsafe { su_get_port(a).cmp(&su_get_port(b)) }),
        order => order,
    }
}

/// `socklen_t su_len(sockaddr_union *sa)`: the size of an address of its family.
#[no_mangle]
pub unsafe extern "C" fn su_len(su: *const SockaddrUnion) -> libc::socklen_t {
    // SAFETY: as the caller promises.
    guard(0, || unsafe { load(su) }.map_or(0, |su| su.length()))
}

/// `int su_socket(int domain, int type, int protocol)`: a non-blocking socket; -1 and errno.
#[no_mangle]
pub extern "C" fn su_socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    guard(-1, || sockaddr::open(domain, kind, protocol).unwrap_or(-1))
}

/// `int su_bind(int s, sockaddr_union *sa)`: bind(2) with SO_REUSEADDR and SO_KEEPALIVE; -1 and
/// errno.
#[no_mangle]
pub unsafe extern "C" fn su_bind(fd: c_int, su: *const SockaddrUnion) -> c_int {
    // SAFETY: as the caller promises.
    guard(-1, || match unsafe { load(su) }.map(|su| sockaddr::bind(fd, &su)) {
        Some(Ok(())) => 0,
        _ => -1,
    })
}

/// `char *su_ntoa(sockaddr_union *sa, char *dst, size_t cnt)`: the text of an address without its
/// port. Null if it does not fit.
#[no_mangle]
pub unsafe extern "C" fn su_ntoa(
    su: *const SockaddrUnion,
    out: *mut c_char,
    room: usize,
) -> *mut c_char {
    guard(ptr::null_mut(), || {
        // SAFETY: as the caller promises.
        let su = unsafe { load(su) };
        let text = match su.as_ref().and_then(|su| su.host()) {
            Some(Host::Unix(path)) => path.to_vec(),
            Some(Host::Ip(IpAddr::V4(v4))) => v4.to_string().into_bytes(),
            Some(Host::Ip(IpAddr::V6(v6))) => network::ipv6_text(&v6).into_bytes(),
            None => return ptr::null_mut(),
        };
        // SAFETY: as above.
        match unsafe { put_text(out, room, &text) } {
            true => out,
            false => ptr::null_mut(),
        }
    })
}

/// Reads an address, with `port` if that is given, as `parse` says. A path may be any bytes.
unsafe fn read(
    out: *mut SockaddrUnion,
    text: *const c_char,
    port: Option<u16>,
    parse: impl FnOnce(&str) -> Option<(Address, Option<u16>)>,
) -> c_int {
    guard(-1, || {
        // SAFETY: as the caller promises.
        let Some(path) = (unsafe { bytes(text) }).filter(|_| !out.is_null()) else {
            return -1;
        };
        let mut su = SockaddrUnion::of_family(libc::AF_UNIX);
        // SAFETY: as above.
        let found = match unsafe { utf8(text) }.map(parse) {
            Some(Some((address, own))) => {
                su = SockaddrUnion::from(&address);
                su.set_port(own.or(port).unwrap_or(0));
                true
            }
            Some(None) => false,
            None => path.starts_with(b"/") && su.set_host(Host::Unix(path)),
        };
        // SAFETY: as above; there is room for a whole one.
        unsafe { out.write(if found { su } else { SockaddrUnion::EMPTY }) };
        if found {
            0
        } else {
            -1
        }
    })
}

/// `int su_pton(sockaddr_union *su, char *src)`: reads an address: IPv4, IPv6, a path, or one of
/// them after `inet:`, `inet6:` or `unix:`. -1 if it is none.
#[no_mangle]
pub unsafe extern "C" fn su_pton(su: *mut SockaddrUnion, text: *const c_char) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { read(su, text, None, |text| without_zone(Address::parse(text).ok()?, None)) }
}

/// `int su_pton_p(sockaddr_union *su, char *src, uint16_t port)`: as `su_pton`, with a port, which
/// the text may have as well: `1.2.3.4:80`, `[::1]:80`.
#[no_mangle]
pub unsafe extern "C" fn su_pton_p(
    su: *mut SockaddrUnion,
    text: *const c_char,
    port: u16,
) -> c_int {
    // SAFETY: as the caller promises.
    unsafe {
        read(su, text, Some(port), |text| {
            let (address, port) = Address::parse_with_port(text).ok()?;
            without_zone(address, port)
        })
    }
}

/// The C library takes no zones, and its callers have no way to write one.
fn without_zone(address: Address, port: Option<u16>) -> Option<(Address, Option<u16>)> {
    let zone = address.scoped_ip().map_or(0, |scoped| scoped.zone);
    (zone == 0).then_some((address, port))
}

/// `int su_addrinfo(char *address, char *port, int protocol, int family, int count, void *data, int
/// (*func)(sockaddr_union *, void *))`: calls `func` with the address, or with those of a host, up
/// to `count` of them unless that is 0, until it returns 0. Without an address it is that of any
/// host. `protocol` is a socket type. -1 if port or host are not known.
#[no_mangle]
pub unsafe extern "C" fn su_addrinfo(
    address: *const c_char,
    port: *const c_char,
    kind: c_int,
    family: c_int,
    count: c_int,
    data: *mut c_void,
    function: Option<unsafe extern "C" fn(*mut SockaddrUnion, *mut c_void) -> c_int>,
) -> c_int {
    guard(-1, || {
        let Some(function) = function else {
            return -1;
        };
        let mut number = 0;
        // SAFETY: as the caller promises.
        if !port.is_null() && unsafe { service_to_port(&mut number, port, kind) } < 0 {
            return -1;
        }
        let address = if address.is_null() { inet_wildcard() } else { address.cast_mut() };
        let mut literal = SockaddrUnion::EMPTY;
        // SAFETY: as above.
        let addresses = if unsafe { su_pton(&mut literal, address) } == 0 {
            vec![literal]
        } else {
            // SAFETY: as above.
            let host = unsafe { utf8(address) }.unwrap_or_default();
            sockaddr::resolve(host, family).unwrap_or_default()
        };
        let most = if count > 0 { count as usize } else { usize::MAX };
        for mut su in addresses.iter().copied().take(most) {
            su.set_port(number);
            // SAFETY: the function is the caller's; the address lives as long as the call.
            if unsafe { function(&mut su, data) } == 0 {
                break;
            }
        }
        if addresses.is_empty() {
            -1
        } else {
            0
        }
    })
}

/// `int su_nameinfo(sockaddr_union *su, char *host, size_t hostlen, char *serv, size_t servlen, int
/// flags)`: getnameinfo(3), also for paths, which have no service. 0 or an error.
#[no_mangle]
pub unsafe extern "C" fn su_nameinfo(
    su: *const SockaddrUnion,
    host: *mut c_char,
    host_room: usize,
    service: *mut c_char,
    service_room: usize,
    flags: c_int,
) -> c_int {
    guard(-1, || {
        // SAFETY: as the caller promises.
        let Some(su) = (unsafe { load(su) }) else {
            return -1;
        };
        match su.host() {
            Some(Host::Ip(_)) => {
                // SAFETY: as above.
                let host = unsafe { slice_mut(host.cast(), host_room) };
                // SAFETY: as above.
                let service = unsafe { slice_mut(service.cast(), service_room) };
                su.name_info(host, service, flags)
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
    })
}

/// `int su_ptoh(sockaddr_union *su, struct in6_addr *a)`: the address as four words in host byte
/// order; -1 for paths.
#[no_mangle]
pub unsafe extern "C" fn su_ptoh(su: *const SockaddrUnion, out: *mut Words) -> c_int {
    guard(-1, || {
        // SAFETY: as the caller promises.
        let su = unsafe { load(su) };
        let words = match su.as_ref().and_then(|su| su.host()) {
            Some(Host::Ip(IpAddr::V4(v4))) => network::mapped(v4),
            Some(Host::Ip(IpAddr::V6(v6))) => network::from_ipv6(v6),
            _ => return -1,
        };
        // SAFETY: as above.
        unsafe { super::memory::put(out, words) };
        0
    })
}

/// `int su_htop(sockaddr_union *su, struct in6_addr *a, int sa_family)`: the other way round,
/// without a port. -1 if the address is none of that family.
#[no_mangle]
pub unsafe extern "C" fn su_htop(
    out: *mut SockaddrUnion,
    address: *const Words,
    family: c_int,
) -> c_int {
    guard(-1, || {
        // SAFETY: as the caller promises.
        let Some(address) = (unsafe { address.as_ref() }) else {
            return -1;
        };
        let host = Host::Ip(IpAddr::V6(network::to_ipv6(address)));
        let mut su = SockaddrUnion::of_family(family);
        let found = matches!(family, libc::AF_INET | libc::AF_INET6) && su.set_host(host);
        if !out.is_null() {
            // SAFETY: as above; there is room for a whole one.
            unsafe { out.write(su) };
        }
        if found {
            0
        } else {
            -1
        }
    })
}
