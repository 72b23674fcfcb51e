//! Linux: a filter of system calls (seccomp(2)), installed after every thread has given up its
//! capabilities and files.
//!
//! The filter is an allow list, for x86_64 and aarch64. Linux 5.11 and later work out in advance
//! which calls are allowed whatever their arguments, and run the filter only for the others. So the
//! calls whose arguments are checked come first.

use super::{landlock, threads, Confinement, Needs, Network};
use crate::os::socket;
use libc::{c_long, c_ulong, seccomp_data, sock_filter};
use std::io;
use std::mem::offset_of;

/// The calling convention that the numbers below belong to (linux/audit.h). A 64-bit process can
/// also make 32-bit calls, which have other numbers.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// set_mempolicy_home_node of Linux 5.17. When a C library tries a call that is newer than this
/// file, it must get ENOSYS to fall back to the older one. The numbers of x32 calls are higher,
/// too.
const NEWEST: u32 = 450;

/// Opening with any of these flags is more than reading. O_TMPFILE requires one of them as well.
const MORE_THAN_READING: libc::c_int =
    libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;
/// The domain, type and protocol of a socket.
type Socket = (libc::c_int, libc::c_int, libc::c_int);
/// Stream and datagram sockets for remotes and name servers: no raw packets, no ICMP.
const IP_SOCKETS: [(libc::c_int, libc::c_int); 6] = [
    (libc::SOCK_STREAM, libc::IPPROTO_TCP),
    (libc::SOCK_STREAM, 0),
    (libc::SOCK_STREAM, socket::IPPROTO_MPTCP),
    (libc::SOCK_STREAM, socket::IPPROTO_SCTP),
    (libc::SOCK_DGRAM, 0),
    (libc::SOCK_DGRAM, libc::IPPROTO_UDP),
];
/// What every worker may open: the log, and queries for addresses and interfaces (NETLINK_ROUTE).
const LOCAL_SOCKETS: [Socket; 3] = [
    (libc::AF_UNIX, libc::SOCK_DGRAM, 0),
    (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE),
    (libc::AF_NETLINK, libc::SOCK_DGRAM, libc::NETLINK_ROUTE),
];
/// Local services, root's among them: remotes, and servers that modules query.
const UNIX_STREAM: Socket = (libc::AF_UNIX, libc::SOCK_STREAM, 0);
const UNIX_PACKETS: Socket = (libc::AF_UNIX, libc::SOCK_SEQPACKET, 0);
/// The bits of a type that are not flags.
const SOCKET_TYPE: u32 = 0xf;
/// Requests of ioctl(2) for sockets, isatty(3) and interface names. Not TIOCSTI: a worker must not
/// type into a terminal.
const REQUESTS: [u32; 9] = [
    libc::FIONBIO as u32,
    libc::TIOCOUTQ as u32,
    libc::FIONREAD as u32,
    libc::FIOCLEX as u32,
    libc::FIONCLEX as u32,
    libc::TCGETS as u32,
    libc::TIOCGWINSZ as u32,
    libc::SIOCGIFINDEX as u32,
    libc::SIOCGIFNAME as u32,
];
/// Commands of fcntl(2) for descriptors and pipes. Not F_SETOWN: a worker must not have others
/// signalled.
const COMMANDS: &[u32] = &[
    libc::F_GETFD as u32,
    libc::F_SETFD as u32,
    libc::F_GETFL as u32,
    libc::F_SETFL as u32,
    libc::F_DUPFD as u32,
    libc::F_DUPFD_CLOEXEC as u32,
    libc::F_GETPIPE_SZ as u32,
    libc::F_SETPIPE_SZ as u32,
    // F_SETSIG and F_GETSIG, with which the tests' emulations mark their descriptors.
    #[cfg(event_shims)]
    10,
    #[cfg(event_shims)]
    11,
];
/// Operations of prctl(2): naming the process and its memory (malloc(3) does the latter), and
/// permitting a core file. The last gives an attacker nothing: whoever has taken over the process
/// has its memory anyway.
const OPERATIONS: [u32; 4] = [
    libc::PR_SET_NAME as u32,
    libc::PR_GET_NAME as u32,
    libc::PR_SET_VMA as u32,
    libc::PR_SET_DUMPABLE as u32,
];

/// Calls that are allowed whatever their arguments.
const ALLOWED: &[c_long] = &[
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    // Moving data.
    libc::SYS_preadv,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_splice,
    libc::SYS_write,
    libc::SYS_writev,
    // Descriptors. No listen(2) or accept(2): listeners are the broker's.
    libc::SYS_bind,
    libc::SYS_close,
    libc::SYS_connect,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_pipe2,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    // Looking at files.
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_newfstatat,
    libc::SYS_readlinkat,
    libc::SYS_statfs,
    libc::SYS_statx,
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mincore,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munlock,
    libc::SYS_munmap,
    // Time.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getitimer,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    libc::SYS_setitimer,
    // The process itself, and threads that modules have already started.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getcpu,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getpgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getrusage,
    libc::SYS_getsid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_sysinfo,
    libc::SYS_times,
    libc::SYS_uname,
    libc::SYS_wait4,
];

/// For the monitor, which answers at sockets that the broker has opened.
const ACCEPTING: [c_long; 2] = [libc::SYS_accept, libc::SYS_accept4];

/// Older calls, which newer architectures lack and musl prefers.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLDER: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_alarm,
    libc::SYS_dup2,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_getdents,
    libc::SYS_getpgrp,
    libc::SYS_getrlimit,
    libc::SYS_lstat,
    libc::SYS_pause,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLDER: &[c_long] = &[];

/// As [`super::enter`].
pub(super) fn enter(needs: &Needs<'_>) -> io::Result<Confinement> {
    let given_up = landlock::rules(needs).and_then(|rules| threads::give_up(rules.as_ref(), needs));
    let filter = filter(std::process::id(), needs);
    // TSYNC applies the filter to modules' threads too. Before Linux 5.16, having a filter slowed
    // the processor down unless SPEC_ALLOW was set; kernels before 4.17 do not know that flag.
    install(&filter, libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW)
        .or_else(|_| install(&filter, libc::SECCOMP_FILTER_FLAG_TSYNC))?;
    match given_up {
        Ok(0) => Ok(Confinement::Whole),
        Ok(count) => Ok(Confinement::WithoutThreads(count)),
        Err(error) => {
            let reason = crate::os::reason(&error);
            Err(io::Error::other(format!("only system calls are filtered: {reason}")))
        }
    }
}

fn install(filter: &[sock_filter], flags: c_ulong) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: seccomp(2) reads the program and the instructions that it points at; all of them
    // outlive the call.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    };
    match result {
        0 => Ok(()),
        ..0 => Err(io::Error::last_os_error()),
        // The id of a thread that already has a filter of its own.
        1.. => Err(io::Error::from_raw_os_error(libc::EBUSY)),
    }
}

/// The filter for the process with the id `own`.
fn filter(own: u32, needs: &Needs<'_>) -> Vec<sock_filter> {
    let mut filter = vec![
        load(offset_of!(seccomp_data, arch)),
        jump(libc::BPF_JEQ, ARCHITECTURE, 1, 0),
        refuse(libc::EPERM),
        load(offset_of!(seccomp_data, nr)),
        jump(libc::BPF_JGT, NEWEST, 0, 1),
        refuse(libc::ENOSYS),
    ];
    rule(&mut filter, libc::SYS_ioctl, &one_of(1, &REQUESTS));
    rule(&mut filter, libc::SYS_fcntl, &one_of(1, COMMANDS));
    rule(&mut filter, libc::SYS_socket, &one_of_sockets(&sockets(needs)));
    rule(&mut filter, libc::SYS_openat, &for_reading(2));
    #[cfg(target_arch = "x86_64")]
    rule(&mut filter, libc::SYS_open, &for_reading(1));
    // Its flags are in memory, which a filter cannot read. Callers of openat2 fall back to openat.
    rule(&mut filter, libc::SYS_openat2, &[refuse(libc::ENOSYS)]);
    rule(&mut filter, libc::SYS_prctl, &one_of(0, &OPERATIONS));
    // Limits and signals, including abort(3)'s, only for the process itself.
    rule(&mut filter, libc::SYS_prlimit64, &one_of(0, &[0, own]));
    for number in [libc::SYS_kill, libc::SYS_tkill, libc::SYS_tgkill] {
        rule(&mut filter, number, &one_of(0, &[own]));
    }
    // These calls describe in memory what they send, which a filter cannot read: it could be
    // descriptors for the broker.
    let sending: &[c_long] = match (needs.modules, needs.kernel_tls) {
        (true, _) => &[libc::SYS_sendmsg, libc::SYS_sendmmsg],
        (false, true) => &[libc::SYS_sendmsg],
        (false, false) => &[],
    };
    let accepting: &[c_long] = if needs.accepts { &ACCEPTING } else { &[] };
    for &number in ALLOWED.iter().chain(accepting).chain(sending).chain(ALLOWED_OLDER) {
        rule(&mut filter, number, &[allow()]);
    }
    filter.push(refuse(libc::EPERM));
    filter
}

/// Appends the decision about one call; the filter has loaded the call's number.
fn rule(filter: &mut Vec<sock_filter>, number: c_long, decision: &[sock_filter]) {
    filter.push(jump(libc::BPF_JEQ, number as u32, 0, decision.len() as u8));
    filter.extend_from_slice(decision);
}

/// Allows a call if this argument, counted from 0, is one of the numbers.
fn one_of(argument: usize, numbers: &[u32]) -> Vec<sock_filter> {
    let mut decision = vec![load_argument(argument)];
    for &number in numbers {
        decision.extend([jump(libc::BPF_JEQ, number, 0, 1), allow()]);
    }
    decision.push(refuse(libc::EPERM));
    decision
}

/// The sockets that a worker may make.
fn sockets(needs: &Needs<'_>) -> Vec<Socket> {
    let ip = [libc::AF_INET, libc::AF_INET6].into_iter();
    let ip = ip.flat_map(|domain| IP_SOCKETS.map(|(kind, protocol)| (domain, kind, protocol)));
    let unix: &[Socket] = match (needs.modules, needs.sockets.is_empty() && !needs.log_streams) {
        (true, _) => &[UNIX_STREAM, UNIX_PACKETS],
        (false, false) => &[UNIX_STREAM],
        (false, true) => &[],
    };
    match needs.network {
        Network::Any => ip.chain(unix.iter().copied()).chain(LOCAL_SOCKETS).collect(),
        // The log.
        Network::None => unix.iter().copied().chain(LOCAL_SOCKETS.into_iter().take(1)).collect(),
    }
}

/// Allows socket(2) for these sockets.
fn one_of_sockets(sockets: &[Socket]) -> Vec<sock_filter> {
    let mut decision = Vec::new();
    for &(domain, kind, protocol) in sockets {
        decision.extend([
            load_argument(0),
            jump(libc::BPF_JEQ, domain as u32, 0, 6),
            load_argument(1),
            instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, SOCKET_TYPE, 0, 0),
            jump(libc::BPF_JEQ, kind as u32, 0, 3),
            load_argument(2),
            jump(libc::BPF_JEQ, protocol as u32, 0, 1),
            allow(),
        ]);
    }
    decision.push(refuse(libc::EPERM));
    decision
}

/// Allows a call if this argument, counted from 0, has only flags for reading a file.
fn for_reading(argument: usize) -> [sock_filter; 4] {
    [
        load_argument(argument),
        jump(libc::BPF_JSET, MORE_THAN_READING as u32, 0, 1),
        refuse(libc::EACCES),
        allow(),
    ]
}

/// Loads the lower half of an argument. The arguments checked here are all int or unsigned int, so
/// the kernel ignores the upper half too.
fn load_argument(argument: usize) -> sock_filter {
    load(offset_of!(seccomp_data, args) + 8 * argument)
}

/// Loads the 32-bit number at an offset in seccomp_data.
fn load(offset: usize) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset as u32, 0, 0)
}

/// Tests the loaded number against `number`, and skips `if_true` or `if_false` instructions.
fn jump(test: u32, number: u32, if_true: u8, if_false: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_K | test, number, if_true, if_false)
}

fn allow() -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0)
}

/// Makes the call fail with this error.
fn refuse(errno: libc::c_int) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32, 0, 0)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}
