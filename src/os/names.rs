//! Name services: users, groups, services and hosts.

use nix::unistd::{Group, User};
use std::ffi::CString;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

/// The user of that name: (uid, primary gid).
pub fn user(name: &str) -> Option<(u32, u32)> {
    User::from_name(name).ok().flatten().map(|user| (user.uid.as_raw(), user.gid.as_raw()))
}

/// The group of that name.
pub fn group(name: &str) -> Option<u32> {
    Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
}

/// The port of a service by its name, for any protocol (services(5)).
pub fn service(name: &str) -> Option<u16> {
    let name = CString::new(name).ok()?;
    // SAFETY: `name` is NUL-terminated; the answer points into static storage of the C library,
    // read before anything else can ask; the process has one thread.
    unsafe {
        let entry = libc::getservbyname(name.as_ptr(), std::ptr::null());
        (!entry.is_null()).then(|| u16::from_be((*entry).s_port as u16))
    }
}

/// Every address of a host, without repetitions, in the order of the resolver.
pub fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    let mut found: Vec<IpAddr> = Vec::new();
    for address in (host, 0).to_socket_addrs()?.map(|address: SocketAddr| address.ip()) {
        if !found.contains(&address) {
            found.push(address);
        }
    }
    Ok(found)
}

/// The run-time system type, `sysname-release-machine` in lower case (`%o` in `exec`).
pub fn system_type() -> String {
    // c_char is signed on some machines and not on others.
    let part = |field: &[libc::c_char]| -> String {
        field.iter().flat_map(|c| c.to_ne_bytes()).take_while(|&b| b != 0).map(char::from).collect()
    };
    // SAFETY: utsname is plain data for which all zeroes is valid; uname(2) fills it.
    let name = unsafe {
        let mut name: libc::utsname = std::mem::zeroed();
        libc::uname(&mut name);
        name
    };
    format!("{}-{}-{}", part(&name.sysname), part(&name.release), part(&name.machine))
        .to_lowercase()
}

/// True if IPv6 sockets can be made here.
pub fn has_ipv6() -> bool {
    use super::address::Family;
    use super::socket::{create, Kind, Protocol};
    create(Family::Ipv6, Kind::Stream, Protocol::Tcp).is_ok()
}
