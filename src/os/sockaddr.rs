//! System calls that C code makes through this library, on its own sockets and addresses.

use super::address::{Address, RawAddress};
use super::check;
use super::names::{self, Transport};
use std::ffi::CStr;
use std::io;
use std::net::ToSocketAddrs;
use std::os::fd::RawFd;
use std::ptr;

/// Opens a non-blocking socket. It is not close-on-exec: executed programs inherit it.
pub fn open(domain: i32, kind: i32, protocol: i32) -> io::Result<RawFd> {
    // SAFETY: socket(2) and fcntl(2) take plain numbers.
    unsafe {
        let fd = check(libc::socket(domain, kind, protocol))?;
        libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK);
        Ok(fd)
    }
}

/// bind(2), after setting SO_REUSEADDR and SO_KEEPALIVE on sockets that have them.
pub(crate) fn bind(fd: RawFd, address: &RawAddress) -> io::Result<()> {
    let one: libc::c_int = 1;
    // SAFETY: the pointers are to an int and to an address of that length, which outlive the calls.
    unsafe {
        for option in [libc::SO_REUSEADDR, libc::SO_KEEPALIVE] {
            let size = size_of::<libc::c_int>() as libc::socklen_t;
            libc::setsockopt(fd, libc::SOL_SOCKET, option, (&raw const one).cast(), size);
        }
        check(libc::bind(fd, address.as_ptr(), address.length())).map(drop)
    }
}

/// getnameinfo(3); the texts end with a NUL. Pass an empty buffer for a text that is not wanted.
/// Returns 0 or an EAI_ number.
pub(crate) fn name_info(
    address: &RawAddress,
    host: &mut [u8],
    service: &mut [u8],
    flags: i32,
) -> i32 {
    let start = |buffer: &mut [u8]| match buffer {
        [] => ptr::null_mut(),
        _ => buffer.as_mut_ptr().cast(),
    };
    // SAFETY: the address has that length; a buffer without room is null.
    unsafe {
        libc::getnameinfo(
            address.as_ptr(),
            address.length(),
            start(host),
            host.len() as _,
            start(service),
            service.len() as _,
            flags,
        )
    }
}

/// The addresses of a host, in the order of the resolver, with port 0.
pub fn resolve(host: &str) -> io::Result<Vec<Address>> {
    Ok((host, 0).to_socket_addrs()?.map(Address::Ip).collect())
}

/// The port of a service, by name.
pub fn service_port(name: &CStr, kind: i32) -> Option<u16> {
    let transport = match kind {
        libc::SOCK_STREAM => Transport::Stream,
        _ => Transport::Datagram,
    };
    names::service_over(name, transport)
}
