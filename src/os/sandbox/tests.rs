//! What the sandbox refuses, tested from within. What modules may still do is in
//! `tests/sandbox.rs`.

use super::*;
use crate::os::process::{self, Fork};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;

/// What `work` returns in a child that did `before` and was then confined by `needs`.
fn confined<B: 'static>(
    needs: Needs<'_>,
    before: impl FnOnce() -> B,
    work: impl FnOnce(B) -> Vec<i32>,
) -> Vec<i32> {
    let (mut read, mut write) = io::pipe().unwrap();
    match process::fork().unwrap() {
        Fork::Child => {
            let before = before();
            let result = match enter(&needs) {
                Ok(Confinement::Whole) => work(before),
                other => panic!("{other:?}"),
            };
            let bytes: Vec<u8> = result.iter().flat_map(|number| number.to_ne_bytes()).collect();
            write.write_all(&bytes).unwrap();
            // SAFETY: _exit(2) runs no destructors of the parent's copies.
            unsafe { libc::_exit(0) }
        }
        Fork::Parent(pid) => {
            drop(write);
            let mut bytes = Vec::new();
            read.read_to_end(&mut bytes).unwrap();
            process::wait_for(pid).unwrap();
            let numbers = bytes.chunks_exact(4).map(|part| part.try_into().unwrap());
            numbers.map(i32::from_ne_bytes).collect()
        }
    }
}

fn errno(result: libc::c_int) -> i32 {
    if result < 0 {
        io::Error::last_os_error().raw_os_error().unwrap()
    } else {
        0
    }
}

fn socket(domain: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> i32 {
    // SAFETY: socket(2) takes plain numbers.
    errno(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) })
}

fn to_read(path: &str) -> i32 {
    File::open(path).map_or_else(|error| error.raw_os_error().unwrap(), |_| 0)
}

/// 0 if this process has capabilities, 1 if it has none.
fn has_none() -> i32 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let lines =
        status.lines().filter(|line| line.starts_with("CapEff") || line.starts_with("CapPrm"));
    let none = lines.clone().count() == 2
        && lines.into_iter().all(|line| line.ends_with("\t0000000000000000"));
    none.into()
}

const STREAM: libc::c_int = libc::SOCK_STREAM;
const DATAGRAM: libc::c_int = libc::SOCK_DGRAM;

#[test]
fn sockets_are_those_of_a_relay() {
    let made = |needs| {
        confined(
            needs,
            || (),
            |()| {
                let uncommon = libc::SOCK_SEQPACKET;
                vec![
                    socket(libc::AF_INET, STREAM, 0),
                    socket(libc::AF_INET6, STREAM, libc::IPPROTO_TCP),
                    socket(libc::AF_INET, DATAGRAM, 0),
                    socket(libc::AF_UNIX, DATAGRAM, 0),
                    socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE),
                    socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
                    socket(libc::AF_INET, DATAGRAM, libc::IPPROTO_ICMP),
                    socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_KOBJECT_UEVENT),
                    socket(libc::AF_PACKET, libc::SOCK_RAW, 0),
                    socket(libc::AF_VSOCK, STREAM, 0),
                    socket(libc::AF_UNIX, STREAM, 0),
                    socket(libc::AF_UNIX, uncommon, 0),
                ]
            },
        )
    };
    const NO: i32 = libc::EPERM;
    let remote = Path::new("/nowhere");
    for (needs, streams, packets) in [
        (Needs::default(), NO, NO),
        (Needs { sockets: &[remote], ..Needs::default() }, 0, NO),
        (Needs { log_streams: true, ..Needs::default() }, 0, NO),
        (Needs { modules: true, ..Needs::default() }, 0, 0),
    ] {
        let expected = vec![0, 0, 0, 0, 0, NO, NO, NO, NO, NO, streams, packets];
        assert_eq!(made(needs), expected, "{needs:?}");
    }
}

#[test]
fn only_who_needs_them_sends_control_messages() {
    let sent = |needs| {
        confined(
            needs,
            || crate::os::channel::pair().unwrap(),
            |(a, b)| {
                let fd = b.as_raw_fd();
                // SAFETY: msghdr is plain data; one without any data is valid.
                let control = unsafe {
                    let message: libc::msghdr = std::mem::zeroed();
                    errno(libc::sendmsg(a.as_raw_fd(), &message, 0) as libc::c_int)
                };
                let plain = a.send(b"x", None);
                vec![control, i32::from(plain.is_err()), i32::from(fd < 0)]
            },
        )
    };
    assert_eq!(sent(Needs::default()), [libc::EPERM, 0, 0]);
    assert_eq!(sent(Needs { kernel_tls: true, ..Needs::default() }), [0, 0, 0]);
    assert_eq!(sent(Needs { modules: true, ..Needs::default() }), [0, 0, 0]);
}

#[test]
fn threads_give_up_as_much() {
    use std::sync::mpsc;
    let given_up = confined(
        Needs::default(),
        || {
            let (go, wait) = mpsc::channel::<()>();
            let thread = std::thread::spawn(move || {
                wait.recv().unwrap();
                vec![has_none(), to_read("/etc/passwd"), socket(libc::AF_UNIX, STREAM, 0)]
            });
            (go, thread)
        },
        |(go, thread)| {
            go.send(()).unwrap();
            let mut results = vec![has_none(), to_read("/etc/passwd")];
            results.extend(thread.join().unwrap());
            results
        },
    );
    // Without Landlock every file can be read.
    let read = given_up[1];
    assert!([0, libc::EACCES].contains(&read));
    assert_eq!(given_up, [1, read, 1, read, libc::EPERM]);
}

#[test]
fn files_are_read_by_who_may_need_them() {
    let parent = format!("/proc/{}/mem", std::process::id());
    let read = |needs| {
        confined(
            needs,
            || (),
            |()| {
                vec![
                    to_read("/etc/passwd"),
                    to_read("/proc/self/status"),
                    to_read("/dev/null"),
                    to_read(&parent),
                ]
            },
        )
    };
    let (plain, modules) =
        (read(Needs::default()), read(Needs { modules: true, ..Needs::default() }));
    if plain[0] == 0 {
        return eprintln!("LEFT OUT: this kernel has no Landlock");
    }
    assert_eq!(plain, [libc::EACCES, 0, 0, libc::EACCES]);
    assert_eq!(modules, [0, 0, 0, libc::EACCES]);
}
