//! misc/net.h: addresses as four words in host byte order, and names.
//!
//! # Safety
//! Addresses are null or four words, aligned to 4; texts are null or NUL-terminated; other pointers
//! are null or writable.
#![allow(clippy::missing_safety_doc, reason = "said at the head of the file")]

use super::memory::put;
use super::{bytes, guard};
use crate::library::network::{self, Address};
use crate::os::{names, sockaddr};
use std::cmp::Ordering;
use std::ffi::{c_char, c_int, CStr};
use std::sync::OnceLock;

/// A text of the caller, if it is UTF-8, as everything is that can be read here.
pub(super) unsafe fn utf8<'a>(text: *const c_char) -> Option<&'a str> {
    // SAFETY: as the caller promises.
    std::str::from_utf8(unsafe { bytes(text) }?).ok()
}

/// The numbers of C for an order.
pub(super) fn sign(order: Ordering) -> c_int {
    match order {
        Ordering::Less => -1,
        Ordering::Equal => 0,
        Ordering::Greater => 1,
    }
}

/// `int v6_common_cidr(struct in6_addr *a, struct in6_addr *b, int min)`: how many bits two
/// addresses have in common at their beginning, `min` at most.
#[no_mangle]
pub unsafe extern "C" fn v6_common_cidr(
    a: *const Address,
    b: *const Address,
    most: c_int,
) -> c_int {
    // SAFETY: as the caller promises.
    guard(0, || match unsafe { (a.as_ref(), b.as_ref()) } {
        (Some(a), Some(b)) => network::common_length(a, b, most),
        _ => 0,
    })
}

/// `void v6_network(struct in6_addr *n, struct in6_addr *a, int m)`: `*n` is `*a` with its host
/// bits clear. Both may be the same.
#[no_mangle]
pub unsafe extern "C" fn v6_network(result: *mut Address, address: *const Address, length: c_int) {
    // SAFETY: as the caller promises.
    guard((), || unsafe {
        if !address.is_null() {
            put(result, network::network(&address.read(), length));
        }
    });
}

/// `void v6_broadcast(struct in6_addr *b, struct in6_addr *a, int m)`: `*b` is `*a` with its host
/// bits set. Both may be the same.
#[no_mangle]
pub unsafe extern "C" fn v6_broadcast(
    result: *mut Address,
    address: *const Address,
    length: c_int,
) {
    // SAFETY: as the caller promises.
    guard((), || unsafe {
        if !address.is_null() {
            put(result, network::broadcast(&address.read(), length));
        }
    });
}

/// `int v6_cmp(struct in6_addr *a, struct in6_addr *b)`: -1, 0 or 1. Null is smaller than any
/// address.
#[no_mangle]
pub unsafe extern "C" fn v6_cmp(a: *const Address, b: *const Address) -> c_int {
    // SAFETY: as the caller promises.
    guard(0, || sign(unsafe { a.as_ref().cmp(&b.as_ref()) }))
}

/// `int v6_contains(struct in6_addr *n, int m, struct in6_addr *a)`: -1 if the address is in the
/// network, 0 otherwise.
#[no_mangle]
pub unsafe extern "C" fn v6_contains(
    net: *const Address,
    length: c_int,
    address: *const Address,
) -> c_int {
    // SAFETY: as the caller promises.
    guard(0, || match unsafe { (net.as_ref(), address.as_ref()) } {
        (Some(net), Some(address)) => -c_int::from(network::contains(net, length, address)),
        _ => 0,
    })
}

/// `void v6_ntoh(struct in6_addr *a, struct in6_addr *b)`: `*a` is `*b` in the other byte order.
/// Both may be the same.
#[no_mangle]
pub unsafe extern "C" fn v6_ntoh(result: *mut Address, address: *const Address) {
    // SAFETY: as the caller promises.
    guard((), || unsafe {
        if !address.is_null() {
            put(result, address.read().map(u32::from_be));
        }
    });
}

/// `int v6_ptoh(struct in6_addr *a, int *cm, char *s)`: reads an address or a network, and the
/// length of its prefix out of 128. -1 if that fails; nothing is written then.
#[no_mangle]
pub unsafe extern "C" fn v6_ptoh(
    address: *mut Address,
    length: *mut c_int,
    text: *const c_char,
) -> c_int {
    // SAFETY: as the caller promises.
    guard(-1, || unsafe {
        match utf8(text).and_then(network::parse_network) {
            Some((result, bits)) => {
                put(address, result);
                put(length, bits);
                0
            }
            None => -1,
        }
    })
}

/// `int v6_ptoh_ext(struct in6_addr *addr, struct in6_addr *mask, char *s)`: as `v6_ptoh` with the
/// mask, which stays as it is for an IPv6 address without one.
#[no_mangle]
pub unsafe extern "C" fn v6_ptoh_ext(
    address: *mut Address,
    mask: *mut Address,
    text: *const c_char,
) -> c_int {
    // SAFETY: as the caller promises.
    guard(-1, || unsafe {
        match utf8(text).and_then(network::parse_masked) {
            Some((result, bits)) => {
                put(address, result);
                if let Some(bits) = bits {
                    put(mask, bits);
                }
                0
            }
            None => -1,
        }
    })
}

/// `int have_inet6(void)`: -1 if IPv6 sockets can be made here, 0 otherwise.
#[no_mangle]
pub extern "C" fn have_inet6() -> c_int {
    static HAVE: OnceLock<bool> = OnceLock::new();
    guard(0, || -c_int::from(*HAVE.get_or_init(names::has_ipv6)))
}

fn by_family(v6: &'static CStr, v4: &'static CStr) -> *mut c_char {
    if have_inet6() == 0 { v4 } else { v6 }.as_ptr().cast_mut()
}

/// `char *inet_wildcard(void)`: the address of any host, a constant.
#[no_mangle]
pub extern "C" fn inet_wildcard() -> *mut c_char {
    by_family(c"::", c"0.0.0.0")
}

/// `char *inet_any(void)`: the network of all addresses, a constant.
#[no_mangle]
pub extern "C" fn inet_any() -> *mut c_char {
    by_family(c"::/0", c"0.0.0.0/0")
}

/// `int service_to_port(uint16_t *p, char *service, int proto)`: the port, from the number the text
/// begins with, or from its name in services(5), for the socket type. -1 if the number is none of
/// a port; a name that is not known leaves `*p` as it is.
#[no_mangle]
pub unsafe extern "C" fn service_to_port(
    port: *mut u16,
    service: *const c_char,
    kind: c_int,
) -> c_int {
    guard(-1, || {
        if service.is_null() {
            return -1;
        }
        // SAFETY: as the caller promises.
        let service = unsafe { CStr::from_ptr(service) };
        let found = match network::leading_port(&service.to_string_lossy()) {
            Some(None) => return -1,
            Some(number) => number,
            None => sockaddr::service_port(service, kind),
        };
        if let Some(found) = found {
            // SAFETY: as above.
            unsafe { put(port, found) };
        }
        0
    })
}
