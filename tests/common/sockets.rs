//! Sockets: with an address of their own, and those of other processes, inspected from outside
//! (Linux: pidfd_getfd(2)).

use super::PATIENCE;
use mavis::os::address::{Address, Family};
use mavis::os::socket::{Addressed, Kind, Options, Protocol, Socket};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::{fs, io};

/// A process, to look into (pidfd_open(2)).
fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes plain numbers, and its result is a new descriptor of this process.
    unsafe {
        let process = libc::syscall(libc::SYS_pidfd_open, pid, 0) as i32;
        match process {
            0.. => Ok(OwnedFd::from_raw_fd(process)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn duplicate(process: &OwnedFd, fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: as above.
    unsafe {
        let copy = libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) as i32;
        match copy {
            0.. => Ok(OwnedFd::from_raw_fd(copy)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// True if this process may inspect the sockets of `pid`; reports it if not.
pub fn can_look(pid: i32) -> bool {
    let can = open(pid).is_ok_and(|process| duplicate(&process, 0).is_ok());
    if !can {
        super::left_out("pidfd_getfd(2) is not permitted");
    }
    can
}

/// The port in a socket's own address, or in that of its peer.
fn port(fd: &OwnedFd, peer: bool) -> Option<u16> {
    let mut storage = [0u8; 128];
    let mut length = storage.len() as libc::socklen_t;
    let call = if peer { libc::getpeername } else { libc::getsockname };
    // SAFETY: the pointers are to the storage and to its length.
    let result = unsafe { call(fd.as_raw_fd(), storage.as_mut_ptr().cast(), &mut length) };
    let family = i32::from(u16::from_ne_bytes([storage[0], storage[1]]));
    let ip = family == libc::AF_INET || family == libc::AF_INET6;
    (result == 0 && ip).then(|| u16::from_be_bytes([storage[2], storage[3]]))
}

/// Copies of the descriptors of a process. Fails if there is no such process.
pub fn duplicates(pid: i32) -> io::Result<impl Iterator<Item = OwnedFd>> {
    let process = open(pid)?;
    let list = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    Ok(list
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(move |fd| duplicate(&process, fd).ok()))
}

fn find(pid: i32, wanted: impl Fn(&OwnedFd) -> bool) -> Option<OwnedFd> {
    duplicates(pid).ok()?.find(wanted)
}

/// The listening socket of a process on a port.
pub fn listener(pid: i32, on: u16) -> Option<OwnedFd> {
    let listens = |fd: &OwnedFd| option(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN) == Some(1);
    find(pid, |fd| port(fd, false) == Some(on) && listens(fd))
}

/// The connection of a process to a port.
pub fn connection_to(pid: i32, to: u16) -> Option<OwnedFd> {
    find(pid, |fd| port(fd, true) == Some(to))
}

/// The connection of a process, accepted by it or its broker on a port.
pub fn connection_on(pid: i32, on: u16) -> Option<OwnedFd> {
    find(pid, |fd| port(fd, false) == Some(on) && port(fd, true).is_some())
}

/// A socket option whose value is an int; `None` if getsockopt(2) fails.
pub fn option(fd: &impl AsRawFd, level: i32, name: i32) -> Option<i32> {
    let mut value = 0i32;
    let mut length = size_of::<i32>() as libc::socklen_t;
    let pointer = (&raw mut value).cast();
    // SAFETY: the pointers are to an int and to its size.
    let result = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, pointer, &mut length) };
    (result == 0).then_some(value)
}

/// The backlog of a listening socket, as the kernel reports it.
pub fn backlog(fd: &impl AsRawFd) -> u32 {
    let mut info = [0u8; 256];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: the pointers are to the room and to its size.
    let result = unsafe {
        let room = info.as_mut_ptr().cast();
        libc::getsockopt(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, room, &mut length)
    };
    assert_eq!(result, 0);
    // The field tcpi_sacked of struct tcp_info, in which listening sockets report their backlog.
    u32::from_ne_bytes(info[28..32].try_into().expect("four bytes"))
}

/// True if a process has a UNIX socket whose send buffer is this many bytes.
pub fn has_unix_buffer(pid: i32, bytes: i32) -> bool {
    let is = |fd: &OwnedFd, name, value| option(fd, libc::SOL_SOCKET, name) == Some(value);
    find(pid, |fd| is(fd, libc::SO_DOMAIN, libc::AF_UNIX) && is(fd, libc::SO_SNDBUF, bytes))
        .is_some()
}

/// How many bytes wait to be read in the UNIX sockets of a process.
pub fn unread_unix(pid: i32) -> usize {
    let unix = |fd: &OwnedFd| option(fd, libc::SOL_SOCKET, libc::SO_DOMAIN) == Some(libc::AF_UNIX);
    let unread = |fd: OwnedFd| {
        let mut bytes: libc::c_int = 0;
        // SAFETY: FIONREAD writes an int.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
        assert_eq!(result, 0, "FIONREAD");
        bytes as usize
    };
    duplicates(pid).into_iter().flatten().filter(unix).map(unread).sum()
}

/// A client with an address of its own in 127.0.0.0/8.
pub fn connect_from(last: u8, port: u16) -> TcpStream {
    connect_to(&format!("127.0.0.{last}"), &format!("127.0.0.1:{port}"))
}

/// As [`connect_from`], for where that may fail.
pub fn try_connect_from(last: u8, port: u16) -> io::Result<TcpStream> {
    try_connect_to(&format!("127.0.0.{last}"), &format!("127.0.0.1:{port}"))
}

/// A client with this address, connected to an address with a port.
pub fn connect_to(own: &str, to: &str) -> TcpStream {
    try_connect_to(own, to).expect("to connect")
}

fn try_connect_to(own: &str, to: &str) -> io::Result<TcpStream> {
    let own = SocketAddr::new(own.parse().expect("an address"), 0);
    let family = if own.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
    let fd = Socket::new(family, Kind::Stream, Protocol::Tcp).expect("a socket");
    fd.bind(&Address::Ip(own)).expect("an address of this host");
    fd.set_blocking().expect("a blocking socket");
    fd.connect(&Address::Ip(to.parse().expect("an address")))?;
    let stream = TcpStream::from(OwnedFd::from(fd));
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    Ok(stream)
}
