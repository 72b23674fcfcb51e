//! mavis/scm.h: messages between broker and worker.

use super::guard;
use crate::channel::protocol::{
    FromWorker, ACCEPT, TYPE_ACCEPT, TYPE_UDP_DATA, UDP_HEADER, UDP_LENGTH,
};
use crate::os::process::exit;
use crate::os::{channel, common_data, log, socket};
use std::ffi::{c_int, c_void};
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd};

/// `struct scm_data`: a type, and a count.
#[repr(C)]
pub struct Data {
    kind: u32,
    count: c_int,
}

/// The type of scm_send_msg.
pub(super) type Send = unsafe extern "C" fn(c_int, *const Data, c_int) -> c_int;
/// The type of scm_recv_msg.
pub(super) type Receive = unsafe extern "C" fn(c_int, *mut c_void, usize, *mut c_int) -> c_int;

/// The bytes of a message.
///
/// # Safety
/// `message` points at a message whose type says how long it is.
unsafe fn contents<'a>(message: *const Data) -> &'a [u8] {
    // SAFETY: as the caller promises.
    unsafe {
        let start = message.cast::<u8>();
        let length = match (*message).kind {
            TYPE_ACCEPT => ACCEPT,
            TYPE_UDP_DATA => {
                let data = start.add(UDP_LENGTH).cast::<i16>().read_unaligned();
                UDP_HEADER + usize::try_from(data).unwrap_or(0)
            }
            _ => size_of::<Data>(),
        };
        std::slice::from_raw_parts(start, length)
    }
}

/// `int scm_send_msg(int sock, struct scm_data *, int fd)`: sends a message, with a descriptor if
/// `fd` is one. 0 if it was sent.
///
/// # Safety
/// `message` is null or a message; the descriptors are open ones.
#[no_mangle]
pub unsafe extern "C" fn scm_send_msg(sock: c_int, message: *const Data, fd: c_int) -> c_int {
    guard(-1, || {
        let failed = |error: &std::io::Error| {
            log::braked(log::Kind::Channel, || {
                format!("scm_send_msg: sendmsg: {}", crate::os::reason(error))
            });
            -1
        };
        if message.is_null() || sock < 0 {
            return failed(&std::io::Error::from_raw_os_error(libc::EBADF));
        }
        // SAFETY: as the caller promises; neither is closed here.
        let (data, sock, fd) = unsafe {
            let fd = (fd > -1).then(|| BorrowedFd::borrow_raw(fd));
            (contents(message), BorrowedFd::borrow_raw(sock), fd)
        };
        match channel::send(sock, data, fd) {
            Ok(()) => 0,
            Err(error) => failed(&error),
        }
    })
}

/// `int scm_recv_msg(int sock, struct scm_data_accept *, size_t size, int *fd)`: receives one. 0,
/// or -1 at the end, for an error, or if the message is longer than `size`.
///
/// # Safety
/// The buffer has room for `size`; `fd` is null or writable; `sock` is an open descriptor.
#[no_mangle]
pub unsafe extern "C" fn scm_recv_msg(
    sock: c_int,
    buffer: *mut c_void,
    size: usize,
    fd: *mut c_int,
) -> c_int {
    guard(-1, || {
        if buffer.is_null() || sock < 0 {
            return -1;
        }
        // SAFETY: as the caller promises; the socket is not closed here.
        let (sock, buffer) = unsafe {
            let buffer = std::slice::from_raw_parts_mut(buffer.cast::<u8>(), size);
            (BorrowedFd::borrow_raw(sock), buffer)
        };
        let received = loop {
            // Without a place for it, a descriptor is closed.
            let received = match fd.is_null() {
                true => channel::receive_data(sock, buffer)
                    .map(|length| channel::Received { length, fd: None }),
                false => channel::receive(sock, buffer),
            };
            match received {
                // C code that has not made the socket non-blocking wants to wait.
                Err(error) if crate::os::would_block(&error) && socket::is_blocking(&sock) => {
                    channel::wait(sock, -1);
                }
                other => break other,
            }
        };
        let complain = |what: &str| {
            log::braked(log::Kind::Channel, || format!("scm_recv_msg: recvmsg: {what}"));
            -1
        };
        match received {
            Ok(received) if received.length == 0 => complain("EoF"),
            Ok(received) if received.length > size || received.length < size_of::<Data>() => {
                complain("message of a wrong length")
            }
            Ok(received) => {
                // SAFETY: as the caller promises.
                if let Some(place) = unsafe { fd.as_mut() } {
                    *place = received.fd.map_or(-1, IntoRawFd::into_raw_fd);
                }
                0
            }
            Err(error) => complain(&crate::os::reason(&error)),
        }
    })
}

/// `int fakescm_send_msg(int sock, struct scm_data *, int fd)`: as scm_send_msg, where broker and
/// worker are one process.
///
/// # Safety
/// As for [`scm_send_msg`].
#[no_mangle]
pub unsafe extern "C" fn fakescm_send_msg(_sock: c_int, message: *const Data, fd: c_int) -> c_int {
    guard((), || {
        if message.is_null() {
            return;
        }
        // SAFETY: as the caller promises.
        match FromWorker::decode(unsafe { contents(message) }) {
            Ok(FromWorker::Max(count)) => {
                common_data::set_users_max(count);
                common_data::set_users_max_total(count);
            }
            // SAFETY: the message is of the type that the function takes.
            Ok(FromWorker::Unknown(TYPE_ACCEPT)) => unsafe {
                common_data::call_accept(fd, message.cast());
            },
            // SAFETY: as before.
            Ok(FromWorker::Unknown(TYPE_UDP_DATA)) => unsafe {
                common_data::call_datagram(fd, message.cast());
            },
            _ => {}
        }
    });
    0
}

/// `int fakescm_recv_msg(...)`: nothing ever comes where broker and worker are one process. 0
#[no_mangle]
pub extern "C" fn fakescm_recv_msg(
    _sock: c_int,
    _buffer: *mut c_void,
    _size: usize,
    _fd: *mut c_int,
) -> c_int {
    0
}

/// Tells the broker that starting this program again will not help.
pub(super) fn tell_bad_configuration() {
    let message = FromWorker::BadConfiguration.encode();
    // A broker that does not hear it sees the process end.
    let _ = channel::send(std::io::stdin().as_fd(), &message, None);
}

/// `void scm_fatal(void)`: tells the broker, and ends the process.
#[no_mangle]
pub extern "C" fn scm_fatal() -> ! {
    guard((), tell_bad_configuration);
    std::process::exit(exit::CONFIGURATION);
}
