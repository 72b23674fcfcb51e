//! The system calls of the product, answered by the simulated kernel. Functions of this executable
//! come before those of the C library when it is linked, so `os` and the event loop run as they are,
//! down to each flag and control message. What is about a real descriptor, or comes while no kernel
//! is [entered](enter), goes to the C library.

use crate::kernel::{Errno, Event, Kernel, Kind, Passed, Process, Request, Waiting, FIRST};
use libc::{c_char, c_int, c_long, c_uint, c_ulong, c_void, size_t, sockaddr, socklen_t, ssize_t};
use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::{mem, ptr, slice};

macro_rules! real {
    ($name:literal, fn($($argument:ty),*) -> $result:ty) => {{
        // SAFETY: the C library has a function of this name and these arguments.
        unsafe {
            let name = concat!($name, "\0").as_ptr().cast::<c_char>();
            let found = libc::dlsym(libc::RTLD_NEXT, name);
            assert!(!found.is_null(), $name);
            mem::transmute::<*mut c_void, extern "C" fn($($argument),*) -> $result>(found)
        }
    }};
}

pub fn close_real(fd: i32) {
    let close = real!("close", fn(c_int) -> c_int);
    close(fd);
}

thread_local! {
    static KERNEL: RefCell<Option<Kernel>> = const { RefCell::new(None) };
}

/// Makes a kernel that of this thread.
pub fn enter(kernel: Kernel) {
    KERNEL.with(|cell| *cell.borrow_mut() = Some(kernel));
}

/// Takes it away again.
pub fn leave() -> Option<Kernel> {
    KERNEL.with(|cell| cell.borrow_mut().take())
}

/// The kernel of this thread, for the simulation itself.
pub fn kernel<R>(work: impl FnOnce(&mut Kernel) -> R) -> R {
    with(work).expect("a kernel was entered")
}

/// None if there is no kernel, or if it is the one that calls.
fn with<R>(work: impl FnOnce(&mut Kernel) -> R) -> Option<R> {
    KERNEL.with(|cell| cell.try_borrow_mut().ok()?.as_mut().map(work))
}

/// Delivers a signal as the kernel would, between two instructions.
pub fn deliver_signal(process: Process, number: i32) {
    let handler = kernel(|kernel| {
        kernel.note(|| format!("signal {number} to {process}"));
        let running = kernel.processes.get(&process);
        running.and_then(|running| running.handlers.get(&number)).copied()
    });
    if let Some(handler) = handler.filter(|&handler| handler > 1) {
        kernel(|kernel| kernel.signalled = Some(process));
        // SAFETY: sigaction() was given this function for a handler without SA_SIGINFO.
        let handler: extern "C" fn(c_int) = unsafe { mem::transmute(handler) };
        handler(number);
        kernel(|kernel| kernel.signalled = None);
    }
}

fn fail(errno: Errno) -> c_int {
    // SAFETY: the place of this thread's errno.
    unsafe { *libc::__errno_location() = errno };
    -1
}

fn answer(result: Result<c_int, Errno>) -> c_int {
    result.unwrap_or_else(fail)
}

fn answer_size(result: Result<usize, Errno>) -> ssize_t {
    match result {
        Ok(size) => size as ssize_t,
        Err(errno) => fail(errno) as ssize_t,
    }
}

fn is_ours(fd: c_int) -> bool {
    fd >= FIRST && KERNEL.with(|cell| cell.try_borrow().is_ok_and(|kernel| kernel.is_some()))
}

fn is_simulated() -> bool {
    is_ours(FIRST)
}

/// A call is interrupted before it has done anything, at times.
fn interrupted(kernel: &mut Kernel) -> Result<(), Errno> {
    if kernel.random.once_in(kernel.faults.interrupted) {
        return Err(libc::EINTR);
    }
    Ok(())
}

/// # Safety
/// `address` is a socket address of `length` bytes.
unsafe fn read_address(address: *const sockaddr, length: socklen_t) -> Option<SocketAddrV4> {
    // SAFETY: as the caller promises.
    unsafe {
        if (length as usize) < size_of::<libc::sockaddr_in>()
            || c_int::from((*address).sa_family) != libc::AF_INET
        {
            return None;
        }
        let address = ptr::read_unaligned(address.cast::<libc::sockaddr_in>());
        let ip = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
        Some(SocketAddrV4::new(ip, u16::from_be(address.sin_port)))
    }
}

/// # Safety
/// There is room for `length` bytes at `to`.
unsafe fn write_address(address: SocketAddrV4, to: *mut sockaddr, length: *mut socklen_t) {
    // SAFETY: as the caller promises.
    unsafe {
        let mut raw: libc::sockaddr_in = mem::zeroed();
        raw.sin_family = libc::AF_INET as libc::sa_family_t;
        raw.sin_port = address.port().to_be();
        raw.sin_addr.s_addr = u32::from(*address.ip()).to_be();
        let size = size_of::<libc::sockaddr_in>();
        ptr::copy_nonoverlapping(
            (&raw const raw).cast::<u8>(),
            to.cast(),
            size.min(*length as usize),
        );
        *length = size as socklen_t;
    }
}

#[no_mangle]
extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    if !is_simulated() {
        return real!("socket", fn(c_int, c_int, c_int) -> c_int)(domain, kind, protocol);
    }
    answer(kernel(|kernel| {
        let sort = kind & 0xf;
        if domain == libc::AF_UNIX {
            let id = kernel.add(Kind::Log);
            return Ok(kernel.install(id));
        }
        if domain != libc::AF_INET || sort != libc::SOCK_STREAM {
            return Err(libc::EAFNOSUPPORT);
        }
        if kernel.out_of_descriptors() {
            return Err(libc::EMFILE);
        }
        if kernel.random.once_in(kernel.faults.no_memory) {
            return Err(*kernel.random.pick(&[libc::ENOBUFS, libc::ENOMEM, libc::ENFILE]));
        }
        let id = kernel.new_stream();
        let fd = kernel.install(id);
        kernel.note(|| format!("socket {fd} (#{id})"));
        set_nonblocking(kernel, fd, kind & libc::SOCK_NONBLOCK != 0);
        Ok(fd)
    }))
}

fn set_nonblocking(kernel: &mut Kernel, fd: c_int, on: bool) {
    if let Some(object) = kernel.object(fd).ok().and_then(|id| kernel.objects.get_mut(&id)) {
        object.nonblocking = on;
    }
}

/// Nothing may wait: the simulation has one thread.
fn must_not_block(kernel: &mut Kernel, fd: c_int, flags: c_int, call: &str) {
    let id = kernel.object(fd).unwrap_or(0);
    let blocks = kernel.objects.get(&id).is_some_and(|object| !object.nonblocking);
    if blocks && flags & libc::MSG_DONTWAIT == 0 {
        kernel.violated(format!("{call} of {fd} (#{id}) would block the process"));
    }
}

#[no_mangle]
unsafe extern "C" fn bind(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
    if !is_ours(fd) {
        let bind = real!("bind", fn(c_int, *const sockaddr, socklen_t) -> c_int);
        return bind(fd, address, length);
    }
    // SAFETY: bind(2) is given an address.
    let address = unsafe { read_address(address, length) };
    answer(kernel(|kernel| {
        let address = address.ok_or(libc::EAFNOSUPPORT)?;
        let id = kernel.stream_of(fd)?;
        if address.port() != 0 && kernel.listening.contains_key(&address) {
            return Err(libc::EADDRINUSE);
        }
        if let Some(stream) = kernel.stream(id) {
            stream.local = address;
        }
        Ok(0)
    }))
}

#[no_mangle]
extern "C" fn listen(fd: c_int, backlog: c_int) -> c_int {
    if !is_ours(fd) {
        return real!("listen", fn(c_int, c_int) -> c_int)(fd, backlog);
    }
    answer(kernel(|kernel| {
        let backlog = backlog.clamp(0, 128) as usize;
        if let Kind::Listener(listener) = kernel.kind(fd)? {
            listener.backlog = backlog;
            return Ok(0);
        }
        let id = kernel.stream_of(fd)?;
        let stream = kernel.stream(id).ok_or(libc::EINVAL)?;
        let (address, inline) = (stream.local, stream.urgent_inline);
        let listener = kernel.listen(address, backlog, false)?;
        if let Some(Kind::Listener(new)) = kernel.objects.get_mut(&listener).map(|o| &mut o.kind) {
            new.urgent_inline = inline;
        }
        // The descriptor refers to the listener from now on.
        kernel.release(id);
        kernel.descriptors.get_mut(&fd).ok_or(libc::EBADF)?.object = listener;
        if let Some(object) = kernel.objects.get_mut(&listener) {
            (object.references, object.nonblocking) = (1, true);
        }
        Ok(0)
    }))
}

#[no_mangle]
unsafe extern "C" fn accept4(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
    flags: c_int,
) -> c_int {
    if !is_ours(fd) {
        let accept = real!("accept4", fn(c_int, *mut sockaddr, *mut socklen_t, c_int) -> c_int);
        return accept(fd, address, length, flags);
    }
    answer(kernel(|kernel| {
        interrupted(kernel)?;
        let listener = kernel.object(fd)?;
        if kernel.out_of_descriptors() {
            return Err(libc::EMFILE);
        }
        if kernel.random.once_in(kernel.faults.no_memory) {
            return Err(libc::ENOBUFS);
        }
        let id = kernel.accept(listener).ok_or(libc::EAGAIN)?;
        let new = kernel.install(id);
        set_nonblocking(kernel, new, flags & libc::SOCK_NONBLOCK != 0);
        kernel.progress += 1;
        kernel.note(|| format!("accept {new} (#{id})"));
        Ok(new)
    }))
}

#[no_mangle]
unsafe extern "C" fn connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
    if !is_ours(fd) {
        let connect = real!("connect", fn(c_int, *const sockaddr, socklen_t) -> c_int);
        return connect(fd, address, length);
    }
    // SAFETY: connect(2) is given an address.
    let address = unsafe { read_address(address, length) };
    answer(kernel(|kernel| {
        if let Kind::Log = kernel.kind(fd)? {
            return Ok(0);
        }
        if kernel.random.once_in(kernel.faults.no_ports) {
            return Err(*kernel.random.pick(&[libc::EADDRNOTAVAIL, libc::EAGAIN, libc::ENOBUFS]));
        }
        let id = kernel.stream_of(fd)?;
        kernel.progress += 1;
        let to = address.ok_or(libc::EAFNOSUPPORT)?;
        kernel.note(|| format!("connect {fd} (#{id}) to {to}"));
        kernel.connect(id, to)?;
        Ok(0)
    }))
}

#[no_mangle]
unsafe extern "C" fn recv(fd: c_int, data: *mut c_void, size: size_t, flags: c_int) -> ssize_t {
    if !is_ours(fd) {
        let recv = real!("recv", fn(c_int, *mut c_void, size_t, c_int) -> ssize_t);
        return recv(fd, data, size, flags);
    }
    // SAFETY: recv(2) is given a buffer.
    let buffer = unsafe { slice::from_raw_parts_mut(data.cast::<u8>(), size) };
    answer_size(kernel(|kernel| {
        interrupted(kernel)?;
        must_not_block(kernel, fd, flags, "recv");
        let id = kernel.stream_of(fd)?;
        let result = kernel.receive(id, buffer, flags & libc::MSG_PEEK != 0);
        kernel.note(|| format!("recv {fd} (#{id}) {size}: {result:?}"));
        result
    }))
}

#[no_mangle]
unsafe extern "C" fn send(fd: c_int, data: *const c_void, size: size_t, flags: c_int) -> ssize_t {
    if !is_ours(fd) {
        let send = real!("send", fn(c_int, *const c_void, size_t, c_int) -> ssize_t);
        return send(fd, data, size, flags);
    }
    // SAFETY: send(2) is given data.
    let data = unsafe { slice::from_raw_parts(data.cast::<u8>(), size) };
    answer_size(kernel(|kernel| {
        interrupted(kernel)?;
        match kernel.kind(fd)? {
            Kind::Log => {
                let text = String::from_utf8_lossy(data).into_owned();
                kernel.note(|| format!("LOG {text}"));
                return Ok(size);
            }
            Kind::Datagram(_) => {
                must_not_block(kernel, fd, flags, "send");
                return kernel.send_message(fd, data, Vec::new());
            }
            _ => {}
        }
        must_not_block(kernel, fd, flags, "send");
        let id = kernel.stream_of(fd)?;
        let result = kernel.send(id, data, flags & libc::MSG_OOB != 0);
        kernel.note(|| format!("send {fd} (#{id}) {size}: {result:?}"));
        result
    }))
}

#[no_mangle]
unsafe extern "C" fn sendto(
    fd: c_int,
    data: *const c_void,
    size: size_t,
    flags: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> ssize_t {
    if is_ours(fd) {
        // SAFETY: as for send(2).
        return unsafe { send(fd, data, size, flags) };
    }
    let sendto = real!(
        "sendto",
        fn(c_int, *const c_void, size_t, c_int, *const sockaddr, socklen_t) -> ssize_t
    );
    sendto(fd, data, size, flags, address, length)
}

#[no_mangle]
unsafe extern "C" fn sendmsg(fd: c_int, message: *const libc::msghdr, flags: c_int) -> ssize_t {
    if !is_ours(fd) {
        let sendmsg = real!("sendmsg", fn(c_int, *const libc::msghdr, c_int) -> ssize_t);
        return sendmsg(fd, message, flags);
    }
    // SAFETY: sendmsg(2) is given a message with one part, and descriptors.
    let (data, fds) = unsafe {
        let part = &*(*message).msg_iov;
        let data = slice::from_raw_parts(part.iov_base.cast::<u8>(), part.iov_len);
        (data, control_descriptors(&*message))
    };
    answer_size(kernel(|kernel| {
        interrupted(kernel)?;
        must_not_block(kernel, fd, flags, "sendmsg");
        let mut passed = Vec::new();
        for fd in fds {
            if fd < FIRST {
                let duplicate = real!("fcntl", fn(c_int, c_int, c_int) -> c_int);
                passed.push(Passed::Real(duplicate(fd, libc::F_DUPFD_CLOEXEC, 3)));
            } else {
                let object = kernel.object(fd)?;
                if let Some(object) = kernel.objects.get_mut(&object) {
                    object.references += 1;
                }
                passed.push(Passed::Simulated(object));
            }
        }
        kernel.send_message(fd, data, passed)
    }))
}

/// # Safety
/// `message` has valid control messages, or none.
unsafe fn control_descriptors(message: &libc::msghdr) -> Vec<c_int> {
    let mut found = Vec::new();
    // SAFETY: as the caller promises.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(message);
        while !control.is_null() {
            if (*control).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*control).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let first = libc::CMSG_DATA(control).cast::<c_int>();
                for index in 0..bytes / size_of::<c_int>() {
                    found.push(ptr::read_unaligned(first.add(index)));
                }
            }
            control = libc::CMSG_NXTHDR(message, control);
        }
    }
    found
}

#[no_mangle]
unsafe extern "C" fn recvmsg(fd: c_int, message: *mut libc::msghdr, flags: c_int) -> ssize_t {
    if !is_ours(fd) {
        let recvmsg = real!("recvmsg", fn(c_int, *mut libc::msghdr, c_int) -> ssize_t);
        return recvmsg(fd, message, flags);
    }
    let received = kernel(|kernel| {
        interrupted(kernel)?;
        must_not_block(kernel, fd, flags, "recvmsg");
        if let Ok(id) = kernel.stream_of(fd) {
            let mut data = vec![0; 1 << 18];
            let count = kernel.receive(id, &mut data, false)?;
            data.truncate(count);
            return Ok((data, Vec::new()));
        }
        kernel.receive_message(fd)
    });
    let (data, fds) = match received {
        Ok(received) => received,
        Err(errno) => return fail(errno) as ssize_t,
    };
    // SAFETY: recvmsg(2) is given a buffer of one part, and room for control messages.
    unsafe {
        let message = &mut *message;
        let part = &*message.msg_iov;
        let count = data.len().min(part.iov_len);
        ptr::copy_nonoverlapping(data.as_ptr(), part.iov_base.cast(), count);
        message.msg_flags = if count < data.len() { libc::MSG_TRUNC } else { 0 };
        let bytes = size_of::<c_int>() * fds.len();
        if fds.is_empty() || libc::CMSG_SPACE(bytes as c_uint) as usize > message.msg_controllen {
            message.msg_controllen = 0;
            for fd in fds {
                close(fd);
            }
        } else {
            message.msg_controllen = libc::CMSG_SPACE(bytes as c_uint) as _;
            let control = libc::CMSG_FIRSTHDR(message);
            (*control).cmsg_level = libc::SOL_SOCKET;
            (*control).cmsg_type = libc::SCM_RIGHTS;
            (*control).cmsg_len = libc::CMSG_LEN(bytes as c_uint) as _;
            ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), libc::CMSG_DATA(control), bytes);
        }
        data.len() as ssize_t
    }
}

#[no_mangle]
extern "C" fn shutdown(fd: c_int, how: c_int) -> c_int {
    if !is_ours(fd) {
        return real!("shutdown", fn(c_int, c_int) -> c_int)(fd, how);
    }
    answer(kernel(|kernel| {
        let id = kernel.object(fd)?;
        kernel.note(|| format!("shutdown {fd} (#{id}) {how}"));
        if let Some(socket) = kernel.datagram(id) {
            socket.reads_shut |= how != libc::SHUT_WR;
            kernel.notify(id);
            return Ok(0);
        }
        if how != libc::SHUT_RD {
            kernel.shut_writing(id)?;
        }
        if how != libc::SHUT_WR {
            if let Some(stream) = kernel.stream(id) {
                stream.reads_shut = true;
            }
        }
        Ok(0)
    }))
}

unsafe fn name(fd: c_int, other: bool, to: *mut sockaddr, length: *mut socklen_t) -> c_int {
    let found = kernel(|kernel| match kernel.kind(fd)? {
        Kind::Listener(listener) if !other => Ok(Some(listener.address)),
        Kind::Stream(stream) if !other => Ok(Some(stream.local)),
        Kind::Stream(stream) if stream.broken || stream.state != Waiting::Done => {
            Err(libc::ENOTCONN)
        }
        Kind::Stream(stream) => Ok(stream.remote),
        Kind::Datagram(_) => Ok(None),
        _ => Err(libc::ENOTSOCK),
    });
    match found {
        // SAFETY: the caller gives room for an address.
        Ok(Some(address)) => unsafe { write_address(address, to, length) },
        // SAFETY: as above; an unnamed UNIX socket is its family alone.
        Ok(None) => unsafe {
            (*to).sa_family = libc::AF_UNIX as libc::sa_family_t;
            *length = size_of::<libc::sa_family_t>() as socklen_t;
        },
        Err(errno) => return fail(errno),
    }
    0
}

#[no_mangle]
unsafe extern "C" fn getsockname(fd: c_int, to: *mut sockaddr, length: *mut socklen_t) -> c_int {
    if !is_ours(fd) {
        let real = real!("getsockname", fn(c_int, *mut sockaddr, *mut socklen_t) -> c_int);
        return real(fd, to, length);
    }
    // SAFETY: getsockname(2) is given room for an address.
    unsafe { name(fd, false, to, length) }
}

#[no_mangle]
unsafe extern "C" fn getpeername(fd: c_int, to: *mut sockaddr, length: *mut socklen_t) -> c_int {
    if !is_ours(fd) {
        let real = real!("getpeername", fn(c_int, *mut sockaddr, *mut socklen_t) -> c_int);
        return real(fd, to, length);
    }
    // SAFETY: getpeername(2) is given room for an address.
    unsafe { name(fd, true, to, length) }
}

#[no_mangle]
unsafe extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    option: c_int,
    value: *mut c_void,
    length: *mut socklen_t,
) -> c_int {
    if !is_ours(fd) {
        let real =
            real!("getsockopt", fn(c_int, c_int, c_int, *mut c_void, *mut socklen_t) -> c_int);
        return real(fd, level, option, value, length);
    }
    let found = kernel(|kernel| {
        let kind = kernel.kind(fd)?;
        Ok(match (level, option, kind) {
            (libc::SOL_SOCKET, libc::SO_ERROR, Kind::Stream(stream)) => {
                stream.error.take().unwrap_or(0)
            }
            (libc::SOL_SOCKET, libc::SO_TYPE, Kind::Datagram(_)) => libc::SOCK_DGRAM,
            (libc::SOL_SOCKET, libc::SO_TYPE, _) => libc::SOCK_STREAM,
            (libc::SOL_SOCKET, libc::SO_ACCEPTCONN, Kind::Listener(_)) => 1,
            (libc::SOL_SOCKET, libc::SO_SNDBUF | libc::SO_RCVBUF, _) => 212_992,
            _ => 0,
        })
    });
    match found {
        Ok(number) => {
            // SAFETY: getsockopt(2) is given room for an int.
            unsafe {
                ptr::write_unaligned(value.cast::<c_int>(), number);
                *length = size_of::<c_int>() as socklen_t;
            }
            0
        }
        Err(errno) => fail(errno),
    }
}

#[no_mangle]
unsafe extern "C" fn setsockopt(
    fd: c_int,
    level: c_int,
    option: c_int,
    value: *const c_void,
    length: socklen_t,
) -> c_int {
    if !is_ours(fd) {
        let real = real!("setsockopt", fn(c_int, c_int, c_int, *const c_void, socklen_t) -> c_int);
        return real(fd, level, option, value, length);
    }
    // SAFETY: setsockopt(2) is given a value; an int is enough to know what is asked for.
    let number = unsafe { ptr::read_unaligned(value.cast::<c_int>()) };
    answer(kernel(|kernel| {
        match (level, option, kernel.kind(fd)?) {
            (libc::SOL_SOCKET, libc::SO_LINGER, Kind::Stream(stream)) => {
                stream.reset_on_close = number != 0;
            }
            (libc::SOL_SOCKET, libc::SO_OOBINLINE, Kind::Stream(stream)) => {
                stream.urgent_inline = number != 0;
            }
            (libc::SOL_SOCKET, libc::SO_OOBINLINE, Kind::Listener(listener)) => {
                listener.urgent_inline = number != 0;
            }
            _ => {}
        }
        Ok(0)
    }))
}

#[no_mangle]
unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_int) -> c_int {
    if !is_ours(fd) {
        return real!("ioctl", fn(c_int, c_ulong, *mut c_int) -> c_int)(fd, request, argument);
    }
    let found = kernel(|kernel| {
        let id = kernel.object(fd)?;
        match request {
            // SAFETY: FIONBIO is given an int.
            libc::FIONBIO => set_nonblocking(kernel, fd, unsafe { *argument } != 0),
            libc::TIOCOUTQ => {
                let bytes = match kernel.stream(id) {
                    Some(stream) => stream.outgoing.len(),
                    None => kernel.unread(id),
                };
                // SAFETY: TIOCOUTQ is given room for an int.
                unsafe { *argument = bytes as c_int };
            }
            _ => return Err(libc::ENOTTY),
        }
        Ok(0)
    });
    answer(found)
}

#[no_mangle]
extern "C" fn fcntl(fd: c_int, command: c_int, argument: c_long) -> c_int {
    if !is_ours(fd) {
        return real!("fcntl", fn(c_int, c_int, c_long) -> c_int)(fd, command, argument);
    }
    answer(kernel(|kernel| match command {
        // The standard library looks whether what it closes is open.
        libc::F_GETFD if kernel.is_dead() => Ok(0),
        libc::F_DUPFD_CLOEXEC | libc::F_DUPFD => {
            if kernel.out_of_descriptors() {
                return Err(libc::EMFILE);
            }
            kernel.duplicate(fd)
        }
        libc::F_GETPIPE_SZ => Ok(262_144),
        libc::F_GETFL => {
            let id = kernel.object(fd)?;
            let nonblocking = kernel.objects.get(&id).is_some_and(|object| object.nonblocking);
            Ok(libc::O_RDWR | if nonblocking { libc::O_NONBLOCK } else { 0 })
        }
        libc::F_SETFL => {
            set_nonblocking(kernel, fd, argument as c_int & libc::O_NONBLOCK != 0);
            Ok(0)
        }
        _ => kernel.object(fd).map(|_| 0),
    }))
}

#[no_mangle]
unsafe extern "C" fn poll(
    entries: *mut libc::pollfd,
    count: libc::nfds_t,
    timeout: c_int,
) -> c_int {
    // SAFETY: poll(2) is given so many entries.
    let list = unsafe { slice::from_raw_parts_mut(entries, count as usize) };
    if !list.iter().any(|entry| is_ours(entry.fd)) {
        return real!("poll", fn(*mut libc::pollfd, libc::nfds_t, c_int) -> c_int)(
            entries, count, timeout,
        );
    }
    let until = kernel(|kernel| kernel.waits_until(timeout));
    loop {
        let mut ready = 0;
        for entry in &mut *list {
            let bits = kernel(|kernel| {
                let id = kernel.object(entry.fd);
                id.map_or(libc::POLLNVAL as u32, |id| kernel.readiness(id))
            });
            // The bits of poll(2) and of epoll(7) are the same.
            let always = libc::POLLERR | libc::POLLHUP | libc::POLLNVAL;
            entry.revents = bits as i16 & (entry.events | always);
            ready += c_int::from(entry.revents != 0);
        }
        if ready > 0 || !until.is_some_and(crate::processes::run_others) {
            return ready;
        }
    }
}

#[no_mangle]
unsafe extern "C" fn socketpair(
    domain: c_int,
    kind: c_int,
    protocol: c_int,
    fds: *mut c_int,
) -> c_int {
    if !is_simulated() {
        let real = real!("socketpair", fn(c_int, c_int, c_int, *mut c_int) -> c_int);
        return real(domain, kind, protocol, fds);
    }
    match kernel(Kernel::new_pair) {
        Ok(pair) => {
            // SAFETY: socketpair(2) is given room for two descriptors.
            unsafe { ptr::copy_nonoverlapping(pair.as_ptr(), fds, 2) };
            0
        }
        Err(errno) => fail(errno),
    }
}

#[no_mangle]
unsafe extern "C" fn pipe2(fds: *mut c_int, flags: c_int) -> c_int {
    if !is_simulated() {
        return real!("pipe2", fn(*mut c_int, c_int) -> c_int)(fds, flags);
    }
    match kernel(Kernel::new_pipe) {
        Ok(pair) => {
            // SAFETY: pipe2(2) is given room for two descriptors.
            unsafe { ptr::copy_nonoverlapping(pair.as_ptr(), fds, 2) };
            0
        }
        Err(errno) => fail(errno),
    }
}

#[no_mangle]
unsafe extern "C" fn read(fd: c_int, data: *mut c_void, size: size_t) -> ssize_t {
    if !is_ours(fd) {
        return real!("read", fn(c_int, *mut c_void, size_t) -> ssize_t)(fd, data, size);
    }
    // SAFETY: read(2) is given a buffer.
    let buffer = unsafe { slice::from_raw_parts_mut(data.cast::<u8>(), size) };
    answer_size(kernel(|kernel| kernel.read_pipe(fd, buffer)))
}

#[no_mangle]
unsafe extern "C" fn write(fd: c_int, data: *const c_void, size: size_t) -> ssize_t {
    let signal = is_simulated() && kernel(|kernel| kernel.signalled.is_some());
    if !is_ours(fd) && !signal {
        return real!("write", fn(c_int, *const c_void, size_t) -> ssize_t)(fd, data, size);
    }
    // SAFETY: write(2) is given data.
    let data = unsafe { slice::from_raw_parts(data.cast::<u8>(), size) };
    answer_size(kernel(|kernel| kernel.write_pipe(fd, data)))
}

#[no_mangle]
extern "C" fn close(fd: c_int) -> c_int {
    if !is_ours(fd) {
        close_real(fd);
        return 0;
    }
    answer(kernel(|kernel| kernel.close(fd).map(|()| 0)))
}

#[no_mangle]
unsafe extern "C" fn splice(
    from: c_int,
    from_offset: *mut i64,
    to: c_int,
    to_offset: *mut i64,
    length: size_t,
    flags: c_uint,
) -> ssize_t {
    if !is_ours(from) {
        let real = real!("splice", fn(c_int, *mut i64, c_int, *mut i64, size_t, c_uint) -> ssize_t);
        return real(from, from_offset, to, to_offset, length, flags);
    }
    answer_size(kernel(|kernel| {
        interrupted(kernel)?;
        if kernel.random.once_in(kernel.faults.splice_no_memory) {
            return Err(libc::ENOMEM);
        }
        let source = kernel.object(from)?;
        let result = match kernel.stream(source) {
            Some(stream) => {
                let mark = match stream.mark_in {
                    Some(0) => return Err(libc::EAGAIN),
                    mark => mark.unwrap_or(usize::MAX),
                };
                let mut data = vec![0; length.min(mark).min(1 << 18)];
                let pipe = kernel.pipe_of(to)?;
                let count = kernel.receive(source, &mut data, false)?;
                if let Some(pipe) = kernel.pipe(pipe) {
                    pipe.data.extend(&data[..count]);
                }
                Ok(count)
            }
            None => {
                let pipe = kernel.pipe_of(from)?;
                let sink = kernel.stream_of(to)?;
                let data: Vec<u8> = match kernel.pipe(pipe) {
                    Some(pipe) => pipe.data.iter().take(length).copied().collect(),
                    None => return Err(libc::EBADF),
                };
                let count = kernel.send(sink, &data, false)?;
                if let Some(pipe) = kernel.pipe(pipe) {
                    pipe.data.drain(..count);
                }
                Ok(count)
            }
        };
        kernel.note(|| format!("splice {from} to {to}: {result:?}"));
        result
    }))
}

#[no_mangle]
extern "C" fn epoll_create1(flags: c_int) -> c_int {
    if !is_simulated() {
        return real!("epoll_create1", fn(c_int) -> c_int)(flags);
    }
    kernel(Kernel::new_epoll)
}

#[no_mangle]
unsafe extern "C" fn epoll_ctl(
    epoll: c_int,
    operation: c_int,
    fd: c_int,
    event: *mut libc::epoll_event,
) -> c_int {
    if !is_ours(epoll) {
        let real = real!("epoll_ctl", fn(c_int, c_int, c_int, *mut libc::epoll_event) -> c_int);
        return real(epoll, operation, fd, event);
    }
    // SAFETY: epoll_ctl(2) is given an event, or null to remove one.
    let event = unsafe { event.as_ref() }.map_or(Event { events: 0, data: 0 }, |event| Event {
        events: event.events,
        data: event.u64,
    });
    answer(kernel(|kernel| kernel.epoll_control(epoll, operation, fd, event).map(|()| 0)))
}

#[no_mangle]
unsafe extern "C" fn epoll_wait(
    epoll: c_int,
    events: *mut libc::epoll_event,
    most: c_int,
    timeout: c_int,
) -> c_int {
    if !is_ours(epoll) {
        let real = real!("epoll_wait", fn(c_int, *mut libc::epoll_event, c_int, c_int) -> c_int);
        return real(epoll, events, most, timeout);
    }
    match kernel(|kernel| kernel.epoll_wait(epoll, most as usize, timeout)) {
        Ok(ready) => {
            for (index, event) in ready.iter().enumerate() {
                // SAFETY: epoll_wait(2) is given room for `most` events.
                unsafe {
                    let event = libc::epoll_event { events: event.events, u64: event.data };
                    ptr::write_unaligned(events.add(index), event);
                }
            }
            ready.len() as c_int
        }
        Err(errno) => fail(errno),
    }
}

#[no_mangle]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    let Some(now) = with(|kernel| kernel.now) else {
        let real = real!("clock_gettime", fn(libc::clockid_t, *mut libc::timespec) -> c_int);
        return real(clock, time);
    };
    // SAFETY: clock_gettime(2) is given room for the time.
    unsafe {
        (*time).tv_sec = (now / 1_000_000) as _;
        (*time).tv_nsec = (now % 1_000_000 * 1000) as _;
    }
    0
}

#[no_mangle]
unsafe extern "C" fn clock_nanosleep(
    clock: libc::clockid_t,
    flags: c_int,
    time: *const libc::timespec,
    left: *mut libc::timespec,
) -> c_int {
    // SAFETY: clock_nanosleep(2) is given a time.
    let microseconds = unsafe { (*time).tv_sec as u64 * 1_000_000 + (*time).tv_nsec as u64 / 1000 };
    if with(|kernel| kernel.now += microseconds).is_some() {
        return 0;
    }
    let real = real!(
        "clock_nanosleep",
        fn(libc::clockid_t, c_int, *const libc::timespec, *mut libc::timespec) -> c_int
    );
    real(clock, flags, time, left)
}

#[no_mangle]
extern "C" fn fork() -> c_int {
    if !is_simulated() {
        return real!("fork", fn() -> c_int)();
    }
    answer(kernel(|kernel| kernel.fork().map(|child| child as c_int)))
}

#[no_mangle]
unsafe extern "C" fn waitpid(pid: c_int, status: *mut c_int, flags: c_int) -> c_int {
    if !is_simulated() {
        return real!("waitpid", fn(c_int, *mut c_int, c_int) -> c_int)(pid, status, flags);
    }
    match kernel(Kernel::wait_for_child) {
        Ok(Some((child, how))) => {
            // SAFETY: waitpid(2) is given room for the status.
            unsafe { *status = how };
            child as c_int
        }
        Ok(None) => 0,
        Err(errno) => fail(errno),
    }
}

#[no_mangle]
extern "C" fn kill(pid: c_int, number: c_int) -> c_int {
    if !is_simulated() {
        return real!("kill", fn(c_int, c_int) -> c_int)(pid, number);
    }
    kernel(|kernel| {
        kernel.note(|| format!("kill {pid} {number}"));
        kernel.requests.push(Request::Signal { process: pid as Process, number });
    });
    0
}

#[no_mangle]
unsafe extern "C" fn sigaction(
    number: c_int,
    new: *const libc::sigaction,
    old: *mut libc::sigaction,
) -> c_int {
    if !is_simulated() {
        let real =
            real!("sigaction", fn(c_int, *const libc::sigaction, *mut libc::sigaction) -> c_int);
        return real(number, new, old);
    }
    // SAFETY: sigaction(2) is given an action, and room for one, or null.
    unsafe {
        if let Some(new) = new.as_ref() {
            let handler = new.sa_sigaction;
            kernel(|kernel| kernel.running().handlers.insert(number, handler));
        }
        if !old.is_null() {
            *old = mem::zeroed();
        }
    }
    0
}

#[no_mangle]
extern "C" fn getpid() -> c_int {
    match with(|kernel| kernel.current) {
        Some(process) => process as c_int,
        None => real!("getpid", fn() -> c_int)(),
    }
}

#[no_mangle]
extern "C" fn prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int {
    if is_simulated() {
        return 0;
    }
    real!("prctl", fn(c_int, c_ulong, c_ulong, c_ulong, c_ulong) -> c_int)(option, a, b, c, d)
}
