//! System calls on any kind of descriptor.

use super::*;

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
        // Debug builds of the standard library check that a descriptor is open before closing it.
        libc::F_GETFD if kernel.is_dead() => Ok(0),
        libc::F_SETFD => {
            kernel.object(fd)?;
            let entry = kernel.descriptors.get_mut(&fd).ok_or(libc::EBADF)?;
            entry.stays = argument as c_int & libc::FD_CLOEXEC == 0;
            Ok(0)
        }
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
pub(super) extern "C" fn close(fd: c_int) -> c_int {
    if !is_ours(fd) {
        // What an image has handed over is the next one's.
        if !with(|kernel| kernel.has_executed()).unwrap_or(false) {
            close_real(fd);
        }
        return 0;
    }
    answer(kernel(|kernel| kernel.close(fd).map(|()| 0)))
}
