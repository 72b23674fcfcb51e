//! misc/io_dns_revmap.h: names of addresses, without waiting.
//!
//! # Safety
//! A resolver is null or one of `io_dns_init` that has not been destroyed; its loop exists; C code
//! calls this library from one thread. Functions that are given to be called are null or
//! `void (*)(void *, char *, int)`.
#![allow(clippy::missing_safety_doc, reason = "said at the head of the file")]

use super::guard;
use crate::event::{Context, Resolver, Told};
use crate::library::network::{self, Address};
use crate::os::sockaddr::{Host, SockaddrUnion};
use std::ffi::{c_char, c_int, c_void, CStr};
use std::net::IpAddr;
use std::ptr;

/// `struct io_dns_ctx *io_dns_init(struct io_context *io)`: a resolver in a loop; null if there
/// can be none.
#[no_mangle]
pub unsafe extern "C" fn io_dns_init(io: *const Context) -> *const Resolver {
    if io.is_null() {
        return ptr::null();
    }
    // SAFETY: as the caller promises.
    guard(ptr::null(), || unsafe { Resolver::new(io) }.unwrap_or(ptr::null()))
}

/// `void io_dns_destroy(struct io_dns_ctx *)`: ends a resolver; nobody is called any more.
#[no_mangle]
pub unsafe extern "C" fn io_dns_destroy(resolver: *const Resolver) {
    guard((), || {
        if !resolver.is_null() {
            // SAFETY: as the caller promises.
            unsafe { Resolver::end(resolver) };
        }
    });
}

unsafe fn ask(
    resolver: *const Resolver,
    address: Option<IpAddr>,
    told: Option<Told>,
    context: *mut c_void,
) {
    // SAFETY: as the caller promises.
    if let Some(resolver) = unsafe { resolver.as_ref() } {
        resolver.ask(address, told, context);
    }
}

/// `void io_dns_add(struct io_dns_ctx *, sockaddr_union *, void *app_cb, void *app_ctx)`: asks for
/// the name of an address. `app_cb(app_ctx, name, lifetime)` is called later, with null and -1 if
/// there is none.
#[no_mangle]
pub unsafe extern "C" fn io_dns_add(
    resolver: *const Resolver,
    address: *const SockaddrUnion,
    told: Option<Told>,
    context: *mut c_void,
) {
    guard((), || {
        // SAFETY: as the caller promises; the address is null or one.
        unsafe {
            let address = match address.as_ref().and_then(SockaddrUnion::host) {
                Some(Host::Ip(address)) => Some(address),
                _ => None,
            };
            ask(resolver, address, told, context);
        }
    });
}

/// `void io_dns_add_addr(struct io_dns_ctx *, struct in6_addr *, void *app_cb, void *app_ctx)`: as
/// [`io_dns_add`], for an address in host byte order.
#[no_mangle]
pub unsafe extern "C" fn io_dns_add_addr(
    resolver: *const Resolver,
    address: *const Address,
    told: Option<Told>,
    context: *mut c_void,
) {
    guard((), || {
        // SAFETY: as the caller promises; the address is null or four words.
        unsafe {
            let address = address.as_ref().map(|address| IpAddr::V6(network::to_ipv6(address)));
            ask(resolver, address, told, context);
        }
    });
}

/// `void io_dns_cancel(struct io_dns_ctx *, void *app_ctx)`: forgets the questions of `app_ctx`.
#[no_mangle]
pub unsafe extern "C" fn io_dns_cancel(resolver: *const Resolver, context: *mut c_void) {
    guard((), || {
        // SAFETY: as the caller promises.
        if let Some(resolver) = unsafe { resolver.as_ref() } {
            resolver.cancel(context);
        }
    });
}

/// `int io_dns_set_servers(struct io_dns_ctx *, char *servers)`: asks others than those of the
/// system, a list of `address[:port]` with commas. 0, or a status of ares.h.
#[no_mangle]
pub unsafe extern "C" fn io_dns_set_servers(
    resolver: *const Resolver,
    servers: *const c_char,
) -> c_int {
    const ARES_ENODATA: c_int = 1;
    guard(ARES_ENODATA, || {
        // SAFETY: as the caller promises; the text is null or NUL-terminated.
        let resolver = unsafe { resolver.as_ref() };
        match resolver {
            Some(resolver) if !servers.is_null() => {
                // SAFETY: as above.
                resolver.set_servers(unsafe { CStr::from_ptr(servers) })
            }
            _ => ARES_ENODATA,
        }
    })
}

/// `void io_dns_set_vrf(struct io_dns_ctx *, char *vrf)`: asks in a VRF; null ends that. The text
/// is copied.
#[no_mangle]
pub unsafe extern "C" fn io_dns_set_vrf(resolver: *const Resolver, name: *const c_char) {
    guard((), || {
        // SAFETY: as the caller promises; the text is null or NUL-terminated.
        let (resolver, name) = unsafe { (resolver.as_ref(), super::text(name)) };
        if let Some(resolver) = resolver {
            resolver.set_vrf(name.filter(|name| !name.is_empty()));
        }
    });
}
