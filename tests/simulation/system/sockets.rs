//! System calls that make, name and configure sockets.

use super::*;

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
        // From now on the descriptor refers to the listener, no longer to the fresh stream.
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
        let maker = kernel.current;
        kernel.attempts.push((maker, to));
        if let Some(stream) = kernel.stream(id) {
            stream.maker = maker;
        }
        kernel.connect(id, to)?;
        Ok(0)
    }))
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
    // SAFETY: setsockopt(2) is given a value; its first int tells what is asked for.
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
