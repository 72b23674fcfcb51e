//! mavis/scm.h: messages between broker and worker, and the start of a program that can be either.

use super::entry::{entry, guard, Out};
use super::layout::common_data;
use super::{internal, mavis};
use crate::channel::local::LocalWorker;
use crate::channel::protocol::{self, Accept, FromWorker, TYPE_ACCEPT, TYPE_UDP_DATA};
use crate::config::environment::directory;
use crate::event::{Event, Loop, TimerId, Token};
use crate::os::channel::Received;
use crate::os::process::exit;
use crate::os::{log, socket, Channel, Socket};
use crate::program::report::publish_name;
use crate::program::{self, HostedWorker};
use std::ffi::{c_char, c_int, c_void, CStr, OsString};
use std::os::fd::{BorrowedFd, IntoRawFd};
use std::os::unix::ffi::OsStringExt;
use std::ptr::NonNull;

/// `struct scm_data`: the type of a message, and a count.
#[repr(C)]
pub struct Data {
    kind: u32,
    count: c_int,
}

/// The signature of scm_send_msg.
pub(super) type Send = unsafe extern "C" fn(c_int, *mut Data, c_int) -> c_int;
/// The signature of scm_recv_msg.
pub(super) type Receive = unsafe extern "C" fn(c_int, *mut u8, usize, *mut c_int) -> c_int;

/// Sets the functions in `common_data` through which C code sends and receives.
pub(super) fn set_functions() {
    let (send, receive): (Send, Receive) = (scm_send_msg, scm_recv_msg);
    common_data::set_scm_send(send as *const c_void);
    common_data::set_scm_receive(receive as *const c_void);
}

/// The same for single-process mode.
pub(super) fn set_functions_in_one_process() {
    let (send, receive): (Send, Receive) = (fakescm_send_msg, fakescm_recv_msg);
    common_data::set_scm_send(send as *const c_void);
    common_data::set_scm_receive(receive as *const c_void);
}

/// The arguments of a C program's main().
///
/// # Safety
/// `argv` has `argc` NUL-terminated strings.
pub(super) unsafe fn arguments(argc: c_int, argv: *const *const c_char) -> Vec<OsString> {
    let count = usize::try_from(argc).unwrap_or(0);
    let argument = |index| {
        // SAFETY: as the caller promises.
        let text = unsafe { CStr::from_ptr(*argv.add(index)) };
        OsString::from_vec(text.to_bytes().to_vec())
    };
    (0..count).map(argument).collect()
}

/// Tells a C program through `common_data` what its broker wants it to do: its name, configuration
/// and section.
pub(super) fn enter_worker(worker: &HostedWorker) {
    common_data::set_program_name(&worker.name);
    let system = super::mavis::reading::system();
    let folder = directory(&worker.configuration, &*system);
    publish_name(&worker.configuration, &folder);
    if let Some(section) = &worker.section {
        common_data::set_section(section);
    }
}

/// The worker of a C program in single-process mode. The program counts its sessions itself, in
/// `common_data.users_cur`, up to `common_data.users_max_total`. SCM_DONE is ignored: only some
/// programs send it in this mode.
#[derive(Default)]
pub(super) struct OwnWorker {
    /// Connections given to the program, minus those reported as ended.
    given: usize,
}

impl LocalWorker for OwnWorker {
    fn accept(&mut self, events: &mut Loop, socket: Socket, accept: &Accept) {
        self.given += 1;
        events.lend(|| common_data::give_accept(socket, &accept.encode()));
    }

    fn event(&mut self, _: &mut Loop, _: Event) {}

    fn timer(&mut self, _: &mut Loop, _: TimerId, _: Token) {}

    fn turn(&mut self, _: &mut Loop) -> usize {
        let ended = self.given.saturating_sub(self.sessions());
        self.given -= ended;
        ended
    }

    /// The program says how many sessions have ended, and not whose.
    fn left(&mut self) -> Option<Vec<u32>> {
        None
    }

    fn sessions(&self) -> usize {
        usize::try_from(common_data::users_cur()).unwrap_or(0)
    }

    fn limit(&self) -> Option<usize> {
        usize::try_from(common_data::users_max_total()).ok()
    }

    fn drain(&mut self, _: &mut Loop) {}

    fn end(&mut self, _: &mut Loop) {}
}

/// The bytes of a message.
///
/// # Safety
/// It is a message as long as its type says.
unsafe fn contents<'a>(message: NonNull<Data>) -> &'a [u8] {
    // SAFETY: as the caller promises.
    unsafe {
        let start = message.cast::<u8>().as_ptr().cast_const();
        let datagram = || start.add(protocol::UDP_LENGTH).cast::<i16>().read_unaligned();
        let length = protocol::message_length((*message.as_ptr()).kind, datagram);
        std::slice::from_raw_parts(start, length)
    }
}

/// Tells the broker that it need not start this program again: the configuration is bad.
pub(super) fn tell_bad_configuration() {
    let message = FromWorker::BadConfiguration.encode();
    // If the message does not arrive, the broker still sees the process end.
    let _ = Channel::from(std::io::stdin()).send(&message, None);
}

/// Tells the broker that the configuration is bad, and ends the process.
pub(super) fn fatal() -> ! {
    guard((), tell_bad_configuration);
    std::process::exit(exit::CONFIGURATION);
}

entry! {
    /// `int scm_send_msg(int sock, struct scm_data *, int fd)`: sends a message, with a descriptor
    /// unless `fd` is negative. 0 if it was sent.
    #[otherwise(-1)]
    pub fn scm_send_msg(sock: c_int, message: Option<NonNull<Data>>, fd: c_int) -> c_int {
        let sent = match message {
            // SAFETY: the message is valid; the descriptors are open, and not closed here.
            Some(message) if sock >= 0 => unsafe {
                let fd = (fd > -1).then(|| BorrowedFd::borrow_raw(fd));
                Channel::from(BorrowedFd::borrow_raw(sock)).send(contents(message), fd)
            },
            _ => Err(std::io::Error::from_raw_os_error(libc::EBADF)),
        };
        match sent {
            Ok(()) => 0,
            Err(error) => {
                log::braked(log::Kind::Channel, || {
                    format!("scm_send_msg: sendmsg: {}", crate::os::reason(&error))
                });
                -1
            }
        }
    }

    /// `int scm_recv_msg(int sock, struct scm_data_accept *, size_t size, int *fd)`: receives a
    /// message. 0, or -1 at the end, for an error, or if the message is longer than `size`.
    #[otherwise(-1)]
    pub fn scm_recv_msg(sock: c_int, buffer: NonNull<u8>, size: usize, fd: Out<c_int>) -> c_int {
        if sock < 0 {
            return -1;
        }
        // SAFETY: there is that room; the socket is open, and not closed here.
        let (sock, buffer) = unsafe {
            let buffer = std::slice::from_raw_parts_mut(buffer.as_ptr(), size);
            (Channel::from(BorrowedFd::borrow_raw(sock)), buffer)
        };
        let received = match fd.is_wanted() {
            true => sock.receive_waiting(buffer),
            false => sock.receive_data_waiting(buffer).map(|length| Received { length, fd: None }),
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
                fd.put(received.fd.map_or(-1, IntoRawFd::into_raw_fd));
                0
            }
            Err(error) => complain(&crate::os::reason(&error)),
        }
    }

    /// `int fakescm_send_msg(int sock, struct scm_data *, int fd)`: as scm_send_msg in
    /// single-process mode, where the message takes effect at once. Returns 0.
    #[otherwise(0)]
    pub fn fakescm_send_msg(_sock: c_int, message: NonNull<Data>, fd: c_int) -> c_int {
        // SAFETY: the message is valid, and of the type that the functions take.
        unsafe {
            match FromWorker::decode(contents(message)) {
                Ok(FromWorker::Max(count)) => {
                    common_data::set_users_max(count);
                    common_data::set_users_max_total(count);
                }
                Ok(FromWorker::Unknown(TYPE_ACCEPT)) => {
                    common_data::call_accept(fd, message.as_ptr().cast());
                }
                Ok(FromWorker::Unknown(TYPE_UDP_DATA)) => {
                    common_data::call_datagram(fd, message.as_ptr().cast());
                }
                _ => {}
            }
        }
        0
    }

    /// `int fakescm_recv_msg(...)`: receives nothing: there is no channel in single-process mode.
    /// Returns 0.
    #[otherwise(0)]
    pub fn fakescm_recv_msg(
        _sock: c_int,
        _buffer: *mut u8,
        _size: usize,
        _fd: *mut c_int,
    ) -> c_int {
        0
    }

    /// `void scm_fatal(void)`: tells the broker that the configuration is bad, and ends the
    /// process.
    pub fn scm_fatal() {
        fatal();
    }

    /// `void scm_main(int argc, char **argv, char **envp)`: starts a program that is its own broker
    /// and worker. Returns in the worker, with `common_data` filled in. A broker does not return,
    /// except in single-process mode.
    pub fn scm_main(argc: c_int, argv: *mut *mut c_char, envp: *mut *mut c_char) {
        mavis::start();
        common_data::set_argv(argv, envp);
        let argv = argv.cast_const().cast();
        if !matches!(socket::inspect(0), socket::Inherited::Channel) {
            return internal::broker(argc, argv, Some("spawnd".to_owned()));
        }
        // SAFETY: the arguments are those of main().
        match program::hosted_worker(unsafe { arguments(argc, argv) }) {
            Ok(worker) => enter_worker(&worker),
            Err(status) => std::process::exit(status),
        }
    }
}
