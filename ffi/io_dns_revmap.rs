//! misc/io_dns_revmap.h: reverse DNS look-ups that do not block.

use super::entry::entry;
use super::layout::sockaddr::{Host, SockaddrUnion};
use crate::event::{Context, Resolver, Told};
use crate::library::network::{self, Address};
use std::ffi::{c_int, c_void, CStr};
use std::net::IpAddr;
use std::ptr::{self, NonNull};

/// As in ares.h.
const ARES_ENODATA: c_int = 1;

entry! {
    /// `struct io_dns_ctx *io_dns_init(struct io_context *io)`: a resolver in a loop; null if none
    /// can be made.
    #[otherwise(ptr::null())]
    pub fn io_dns_init(io: NonNull<Context>) -> *const Resolver {
        // SAFETY: the loop exists as long as the resolver, and C code uses both from one thread.
        unsafe { Resolver::new(io.as_ptr()) }.unwrap_or(ptr::null())
    }

    /// `void io_dns_destroy(struct io_dns_ctx *)`: ends a resolver; no callback is called any more.
    pub fn io_dns_destroy(resolver: NonNull<Resolver>) {
        // SAFETY: it came from `io_dns_init`, and is ended once.
        unsafe { Resolver::end(resolver.as_ptr()) };
    }

    /// `void io_dns_add(struct io_dns_ctx *, sockaddr_union *, void *app_cb, void *app_ctx)`: asks
    /// for the name of an address. Calls `app_cb(app_ctx, name, lifetime)` later, with null and -1
    /// if there is no name.
    pub fn io_dns_add(
        resolver: &Resolver,
        address: Option<SockaddrUnion>,
        told: Option<Told>,
        context: *mut c_void,
    ) {
        let address = match address.as_ref().and_then(SockaddrUnion::host) {
            Some(Host::Ip(address)) => Some(address),
            _ => None,
        };
        resolver.ask(address, told, context);
    }

    /// `void io_dns_add_addr(struct io_dns_ctx *, struct in6_addr *, void *app_cb, void *app_ctx)`:
    /// as [`io_dns_add`], for an address in host byte order.
    pub fn io_dns_add_addr(
        resolver: &Resolver,
        address: Option<&Address>,
        told: Option<Told>,
        context: *mut c_void,
    ) {
        let address = address.map(|address| IpAddr::V6(network::to_ipv6(address)));
        resolver.ask(address, told, context);
    }

    /// `void io_dns_cancel(struct io_dns_ctx *, void *app_ctx)`: drops the questions of `app_ctx`.
    pub fn io_dns_cancel(resolver: &Resolver, context: *mut c_void) {
        resolver.cancel(context);
    }

    /// `int io_dns_set_servers(struct io_dns_ctx *, char *servers)`: asks these servers instead of
    /// the system's; `servers` is a list of `address[:port]` with commas. Returns 0, or a status of
    /// ares.h.
    #[otherwise(ARES_ENODATA)]
    pub fn io_dns_set_servers(resolver: &Resolver, servers: &CStr) -> c_int {
        resolver.set_servers(servers)
    }

    /// `void io_dns_set_vrf(struct io_dns_ctx *, char *vrf)`: sends questions through this VRF, or
    /// through none for null. The text is copied.
    pub fn io_dns_set_vrf(resolver: &Resolver, name: Option<String>) {
        resolver.set_vrf(name.filter(|name| !name.is_empty()));
    }
}
