//! Name services: users, groups, services and hosts.

use nix::unistd::{Group, User};
use std::ffi::{CStr, CString};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

/// The user of that name: (uid, primary gid).
pub fn user(name: &str) -> Option<(u32, u32)> {
    User::from_name(name).ok().flatten().map(|user| (user.uid.as_raw(), user.gid.as_raw()))
}

/// The group of that name.
pub fn group(name: &str) -> Option<u32> {
    Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
}

/// The port of a service by name, for any protocol (services(5)).
pub fn service(name: &str) -> Option<u16> {
    let name = CString::new(name).ok()?;
    // SAFETY: `name` is NUL-terminated; the answer points into static storage of the C library,
    // read before anything else can ask; the process has one thread.
    unsafe {
        let entry = libc::getservbyname(name.as_ptr(), std::ptr::null());
        (!entry.is_null()).then(|| u16::from_be((*entry).s_port as u16))
    }
}

/// Like [`service`], for UDP or TCP only. Takes the name as a C string.
pub fn service_over(name: &CStr, datagram: bool) -> Option<u16> {
    let protocol = if datagram { c"udp" } else { c"tcp" };
    // SAFETY: both strings are NUL-terminated; the answer is in static storage of the C library,
    // read before anything else can ask, as for `service`.
    unsafe {
        let entry = libc::getservbyname(name.as_ptr(), protocol.as_ptr());
        (!entry.is_null()).then(|| u16::from_be((*entry).s_port as u16))
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
