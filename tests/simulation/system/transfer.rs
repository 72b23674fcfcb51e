//! System calls that move bytes and descriptors.

use super::*;

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
                super::descriptors::close(fd);
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
