//! Name services: users, groups, services and hosts.

use nix::unistd::{Group, User};
use std::ffi::{CStr, CString};
use std::net::{SocketAddr, ToSocketAddrs};
use std::{io, mem, ptr};

/// The user of that name: (uid, primary gid).
pub fn user(name: &str) -> Option<(u32, u32)> {
    User::from_name(name).ok().flatten().map(|user| (user.uid.as_raw(), user.gid.as_raw()))
}

/// The group of that name.
pub fn group(name: &str) -> Option<u32> {
    Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
}

/// The port of a service by name (services(5)): that of TCP, or else of UDP.
pub fn service(name: &str) -> Option<u16> {
    let name = CString::new(name).ok()?;
    service_over(&name, Transport::Stream).or_else(|| service_over(&name, Transport::Datagram))
}

/// Over what a service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Stream,
    /// UDP.
    Datagram,
}

/// The port of a service over one transport; `None` for a number, which is no name. By
/// getaddrinfo(3): the answer of getservbyname(3) is in memory that a module's thread may
/// overwrite.
pub fn service_over(name: &CStr, transport: Transport) -> Option<u16> {
    if name.to_bytes().iter().all(u8::is_ascii_digit) {
        return None;
    }
    // SAFETY: addrinfo is plain data, for which all zeroes is a valid value.
    let mut hints: libc::addrinfo = unsafe { mem::zeroed() };
    (hints.ai_socktype, hints.ai_protocol) = match transport {
        Transport::Stream => (libc::SOCK_STREAM, libc::IPPROTO_TCP),
        Transport::Datagram => (libc::SOCK_DGRAM, libc::IPPROTO_UDP),
    };
    let mut found = ptr::null_mut();
    // SAFETY: the name is NUL-terminated, a null host stands for this one, and the list is
    // released once. Each entry has an address of its family, to which it points.
    unsafe {
        if libc::getaddrinfo(ptr::null(), name.as_ptr(), &hints, &mut found) != 0 {
            return None;
        }
        let mut port = None;
        let mut entry = found;
        while let (None, Some(info)) = (port, entry.as_ref()) {
            port = match info.ai_family {
                libc::AF_INET => Some((*info.ai_addr.cast::<libc::sockaddr_in>()).sin_port),
                libc::AF_INET6 => Some((*info.ai_addr.cast::<libc::sockaddr_in6>()).sin6_port),
                _ => None,
            };
            entry = info.ai_next;
        }
        libc::freeaddrinfo(found);
        port.map(u16::from_be)
    }
}

/// The groups of a user, `primary` first, from getgrouplist(3). An unknown user has only `primary`.
pub fn groups_of(user: &CStr, primary: u32) -> Vec<u32> {
    let mut room: libc::c_int = 64;
    loop {
        let mut groups = vec![0 as libc::gid_t; room as usize];
        let mut count = room;
        // SAFETY: the name is NUL-terminated, and `groups` has room for `count` numbers; group ids
        // have one size on all systems, though macOS calls them int here.
        let result = unsafe {
            libc::getgrouplist(user.as_ptr(), primary as _, groups.as_mut_ptr().cast(), &mut count)
        };
        if result >= 0 {
            groups.truncate(usize::try_from(count).unwrap_or(0));
            return groups;
        }
        // Not every system reports how many there are. Linux allows at most 65536.
        if room >= 1 << 16 {
            return vec![primary];
        }
        room = count.max(room * 2).min(1 << 16);
    }
}

/// All addresses of a host, without duplicates, in the order of the resolver. Link-local addresses
/// carry their zone if the resolver knows it (multicast DNS does); the port is 0.
pub fn resolve(host: &str) -> io::Result<Vec<SocketAddr>> {
    let mut found: Vec<SocketAddr> = Vec::new();
    for address in (host, 0).to_socket_addrs()? {
        if !found.contains(&address) {
            found.push(address);
        }
    }
    Ok(found)
}

/// The run-time system type, `sysname-release-machine` in lower case (`%o` in `exec`).
pub fn system_type() -> String {
    // c_char is signed on some machines and unsigned on others.
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

/// Expands `%o` to the [system type](system_type), `%O` to the operating system and architecture of
/// this build, and `%%` to a percent sign; any other pair is removed.
pub fn expand_system_type(text: &str) -> String {
    let mut out = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        match characters.next() {
            Some('o') => out += &system_type(),
            Some('O') => {
                out += &format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
            }
            Some('%') => out.push('%'),
            _ => {}
        }
    }
    out
}

/// True if this host can create IPv6 sockets.
pub fn has_ipv6() -> bool {
    use super::address::Family;
    use super::socket::{Kind, Protocol, Socket};
    Socket::new(Family::Ipv6, Kind::Stream, Protocol::Tcp).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::scope;

    #[test]
    fn services_have_the_ports_of_their_transport() {
        assert_eq!(service("https"), Some(443));
        assert_eq!(service_over(c"domain", Transport::Datagram), Some(53));
        assert_eq!(service_over(c"domain", Transport::Stream), Some(53));
        // Of UDP alone.
        assert_eq!(service("tftp"), Some(69));
        assert_eq!(service_over(c"tftp", Transport::Stream), None);
        for name in ["", "80", "no-such-service"] {
            assert_eq!(service(name), None, "{name}");
        }
    }

    #[test]
    fn the_zone_that_the_resolver_tells_is_kept() {
        let loopback = scope::index("lo").expect("a loopback interface");
        let found = resolve("fe80::1%lo").expect("an address");
        let zones: Vec<u32> = found
            .iter()
            .map(|address| match address {
                SocketAddr::V6(v6) => v6.scope_id(),
                SocketAddr::V4(_) => 0,
            })
            .collect();
        assert_eq!(zones, [loopback]);
    }
}
