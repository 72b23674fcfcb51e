//! The channel between broker and worker: a datagram socketpair that carries descriptors as
//! SCM_RIGHTS (unix(7), cmsg(3)).

use super::descriptor::{self, own};
use super::socket::{self, Socket};
use super::{check, check_size};
use crate::os;
use std::mem::{self, ManuallyDrop};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::OnceLock;
use std::{io, ptr};

#[cfg(not(event_shims))]
use libc as sys;

/// The tests' emulation on Linux of how the BSDs behave.
#[cfg(event_shims)]
mod sys {
    use libc::{c_int, c_void, msghdr, ssize_t};

    extern "C" {
        #[link_name = "shim_send"]
        pub(super) fn send(fd: c_int, data: *const c_void, bytes: usize, flags: c_int) -> ssize_t;
        #[link_name = "shim_sendmsg"]
        pub(super) fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t;
        #[link_name = "shim_recvmsg"]
        pub(super) fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t;
    }
}

/// One end of a channel: its own, or one that is borrowed from C code.
#[derive(Debug)]
pub struct Channel<F = OwnedFd>(F);

impl<F> From<F> for Channel<F> {
    fn from(fd: F) -> Channel<F> {
        Channel(fd)
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> OwnedFd {
        channel.0
    }
}

impl IntoRawFd for Channel {
    fn into_raw_fd(self) -> RawFd {
        self.0.into_raw_fd()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<F: AsRawFd> AsRawFd for Channel<F> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Creates the two ends of a channel, both close-on-exec. They stay in blocking mode, which another
/// program's worker expects of its end; [`Channel::send`] and [`Channel::receive`] still never
/// block.
pub fn pair() -> io::Result<(Channel, Channel)> {
    // macOS has no such flag; on Solaris the standard library does not use it here either.
    #[cfg(not(any(target_vendor = "apple", target_os = "solaris")))]
    const CLOSE_ON_EXEC: libc::c_int = libc::SOCK_CLOEXEC;
    #[cfg(any(target_vendor = "apple", target_os = "solaris"))]
    const CLOSE_ON_EXEC: libc::c_int = 0;
    let mut fds = [0; 2];
    let kind = libc::SOCK_DGRAM | CLOSE_ON_EXEC;
    // SAFETY: `fds` has room for the two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) })?;
    let ends = (Channel(own(fds[0])), Channel(own(fds[1])));
    if CLOSE_ON_EXEC == 0 {
        for end in [&ends.0, &ends.1] {
            descriptor::close_on_exec(end)?;
        }
    }
    for end in [&ends.0, &ends.1] {
        socket::set_least_buffer_sizes(end.as_raw_fd(), BUFFER);
    }
    Ok(ends)
}

/// The two ends of a stream, both close-on-exec and nonblocking.
pub fn stream_pair() -> io::Result<(Socket, Socket)> {
    let (one, other) = UnixStream::pair()?;
    one.set_nonblocking(true)?;
    other.set_nonblocking(true)?;
    Ok((OwnedFd::from(one).into(), OwnedFd::from(other).into()))
}

/// The least buffer size of a channel, in bytes. NetBSD and FreeBSD default to 2 to 4 KiB, too
/// little for a UDP client's datagram or for more than eight connections.
const BUFFER: libc::c_int = 64 * 1024;

/// The most descriptors that one datagram carries.
pub const DESCRIPTORS: usize = 16;
/// The most that any system passes at once (SCM_MAX_FD of Linux; others allow fewer).
const MOST_DESCRIPTORS: usize = 253;

/// A buffer for control messages, aligned for cmsghdr.
#[repr(C)]
union Control<const BYTES: usize> {
    header: libc::cmsghdr,
    bytes: [u8; BYTES],
    /// To be filled by the system: clearing a large one takes longer than the rest of a call.
    unset: (),
}

/// The bytes that this many descriptors need in a [`Control`].
const fn room(descriptors: usize) -> usize {
    48 + descriptors * mem::size_of::<libc::c_int>()
}

fn message(iov: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: msghdr is plain data, for which all zeroes is a valid value.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = iov;
    header.msg_iovlen = 1;
    header
}

/// True if the channel was full, or the system had no memory for another datagram. After EAGAIN the
/// channel becomes writable; after ENOBUFS or ENOMEM nothing reports when there is room again (the
/// BSDs).
pub fn is_full(error: &io::Error) -> bool {
    os::would_block(error) || os::out_of_memory(error)
}

/// One received datagram.
#[derive(Debug)]
pub struct Received {
    /// Length of the datagram; more than the buffer's length if it was truncated.
    pub length: usize,
    /// The first descriptor that came with it; any others are closed at once.
    pub fd: Option<OwnedFd>,
}

impl Channel {
    /// A copy of this end.
    pub fn try_clone(&self) -> io::Result<Channel> {
        self.0.try_clone().map(Channel)
    }

    /// What was sent from here and not yet received by the other end, of which `receiver` is a
    /// copy.
    pub fn unread(&self, receiver: &Channel) -> Unread {
        if !receiver.wait(0) {
            return Unread::Nothing;
        }
        if !COUNTS_UNREAD {
            return Unread::Something;
        }
        match (self.unsent_bytes(), message_size()) {
            (_, 0) => Unread::Something,
            // `receiver` was shut down for reading: it is always readable, but empty.
            (0, _) => Unread::Nothing,
            (bytes, each) => Unread::Messages((bytes / each).max(1)),
        }
    }

    /// Stops the other end from sending (EPIPE); what it has already sent can still be received.
    /// Returns false if this is not possible.
    pub fn end_receiving(&self) -> bool {
        CAN_END_RECEIVING && {
            // SAFETY: shutdown(2) takes plain numbers.
            unsafe { libc::shutdown(self.0.as_raw_fd(), libc::SHUT_RD) == 0 }
        }
    }

    /// Refuses descriptors sent to this end, where the system can (Linux 6.16). This process would
    /// have to close them, which can take as long as their sender likes.
    pub fn refuse_descriptors(&self) {
        #[cfg(all(target_os = "linux", not(any(target_arch = "sparc", target_arch = "sparc64"))))]
        {
            /// asm-generic/socket.h
            const SO_PASSRIGHTS: libc::c_int = 83;
            let off: libc::c_int = 0;
            // SAFETY: setsockopt(2) reads one int, which `off` is.
            unsafe {
                libc::setsockopt(
                    self.0.as_raw_fd(),
                    libc::SOL_SOCKET,
                    SO_PASSRIGHTS,
                    (&raw const off).cast(),
                    mem::size_of_val(&off) as libc::socklen_t,
                );
            }
        }
    }
}

impl<F: AsRawFd> Channel<F> {
    /// True if sending would not block: the channel takes a datagram now, or fails at once.
    #[cfg(any(target_os = "solaris", target_os = "illumos"))]
    fn has_room(&self) -> bool {
        let mut entry = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: one entry is given, and it outlives the call.
        unsafe { libc::poll(&mut entry, 1, 0) != 0 }
    }

    /// Waits up to `timeout` milliseconds, or for ever if that is negative, until there is something
    /// to receive; false if nothing came. Signals do not end the wait.
    pub fn wait(&self, timeout: i32) -> bool {
        let due = os::monotonic_clock() + u64::try_from(timeout).unwrap_or_default();
        let mut left = timeout;
        loop {
            let mut entry =
                libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one entry is given, and it outlives the call.
            match check(unsafe { libc::poll(&mut entry, 1, left) }) {
                Err(error) if os::interrupted(&error) => {}
                other => return other.is_ok_and(|count| count > 0),
            }
            if timeout >= 0 {
                left = due.saturating_sub(os::monotonic_clock()) as i32;
            }
        }
    }

    /// Sends one datagram, with a descriptor if given. Never blocks; [`is_full`] recognises the
    /// error.
    pub fn send(&self, data: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.send_with(data, fd.as_slice())
    }

    /// Like [`send`](Self::send), with up to [`DESCRIPTORS`] descriptors.
    pub fn send_with(&self, data: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if fds.len() > DESCRIPTORS {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // Solaris and illumos honour MSG_DONTWAIT on UNIX sockets only when receiving. Nobody else
        // writes to this end, so room that is there now is still there for the call.
        #[cfg(any(target_os = "solaris", target_os = "illumos"))]
        if !self.has_room() {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        #[cfg(target_vendor = "apple")]
        const FLAGS: libc::c_int = libc::MSG_DONTWAIT;
        #[cfg(not(target_vendor = "apple"))]
        const FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        loop {
            let result = match fds {
                // send(2) cannot carry descriptors, so a confined worker may use no other call.
                // SAFETY: the pointer and the length describe `data`, which outlives the call.
                [] => unsafe {
                    sys::send(self.0.as_raw_fd(), data.as_ptr().cast(), data.len(), FLAGS)
                },
                _ => self.send_descriptors(data, fds, FLAGS),
            };
            match check_size(result) {
                Ok(_) => return Ok(()),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    _ => return Err(error),
                },
            }
        }
    }

    /// sendmsg(2) with at most [`DESCRIPTORS`] descriptors.
    fn send_descriptors(
        &self,
        data: &[u8],
        fds: &[BorrowedFd<'_>],
        flags: libc::c_int,
    ) -> libc::ssize_t {
        let mut iov =
            libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
        let mut header = message(&mut iov);
        let mut control = Control { bytes: [0; room(DESCRIPTORS)] };
        let size = mem::size_of_val(fds) as libc::c_uint;
        header.msg_control = (&raw mut control).cast();
        // At most DESCRIPTORS descriptors take less than room(DESCRIPTORS) bytes on every system, and
        // a borrowed one is a c_int (`repr(transparent)`).
        // SAFETY: so CMSG_FIRSTHDR is inside `control`, which is aligned for it, and their slice can
        // be copied there. `header` points at `iov`, `data` and `control`, which outlive the call.
        unsafe {
            header.msg_controllen = libc::CMSG_SPACE(size) as _;
            let first = libc::CMSG_FIRSTHDR(&header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(size) as _;
            let bytes = mem::size_of_val(fds);
            ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), libc::CMSG_DATA(first), bytes);
            sys::sendmsg(self.0.as_raw_fd(), &header, flags)
        }
    }

    /// Receives one datagram without blocking. Received descriptors are close-on-exec.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut fd = None;
        let keep = |received| {
            fd.get_or_insert(received);
        };
        let length = self.receive_with(buffer, keep)?;
        Ok(Received { length, fd })
    }

    /// Like [`receive`](Self::receive), but accepts no descriptors; returns the length. Any that
    /// arrive anyway are closed without lingering over their unsent data (SO_LINGER). A sender that
    /// kept a copy could set SO_LINGER again, so it is better to receive none
    /// ([`refuse_descriptors`](Self::refuse_descriptors)).
    pub fn receive_data(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // Room for all of them: the system closes those that do not fit without our SO_LINGER.
        self.receive_some::<{ room(MOST_DESCRIPTORS) }>(buffer, MOST_DESCRIPTORS, |fd| {
            Socket::from(fd).do_not_linger();
        })
    }

    /// Like [`receive`](Self::receive), but waits for a message unless this end was made
    /// non-blocking.
    pub fn receive_waiting(&self, buffer: &mut [u8]) -> io::Result<Received> {
        self.waiting(|| self.receive(buffer))
    }

    /// Like [`receive_data`](Self::receive_data), but waits for a message unless this end was made
    /// non-blocking.
    pub fn receive_data_waiting(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.waiting(|| self.receive_data(buffer))
    }

    fn waiting<R>(&self, mut attempt: impl FnMut() -> io::Result<R>) -> io::Result<R> {
        loop {
            match attempt() {
                Err(error) if os::would_block(&error) && descriptor::is_blocking(&self.0) => {
                    self.wait(-1);
                }
                other => return other,
            }
        }
    }

    /// Like [`receive`](Self::receive), but passes every descriptor to `keep`; returns the length.
    pub fn receive_with(&self, buffer: &mut [u8], keep: impl FnMut(OwnedFd)) -> io::Result<usize> {
        self.receive_some::<{ room(DESCRIPTORS) }>(buffer, DESCRIPTORS, keep)
    }

    /// Receives one datagram with up to `descriptors` descriptors; `ROOM` is the size of the
    /// control buffer.
    fn receive_some<const ROOM: usize>(
        &self,
        buffer: &mut [u8],
        descriptors: usize,
        mut keep: impl FnMut(OwnedFd),
    ) -> io::Result<usize> {
        let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut header = message(&mut iov);
        let mut control = Control::<ROOM> { unset: () };
        header.msg_control = (&raw mut control).cast();
        // SAFETY: CMSG_SPACE only computes.
        let space = unsafe { libc::CMSG_SPACE((descriptors * mem::size_of::<libc::c_int>()) as _) };
        header.msg_controllen = (space as usize).min(ROOM) as _;
        // Other systems mark descriptors after receiving them: macOS and Solaris have no such flag,
        // and illumos has had it only recently.
        #[cfg(any(
            target_os = "linux",
            target_os = "android",
            target_os = "freebsd",
            target_os = "netbsd",
            target_os = "openbsd"
        ))]
        const CLOSE_ON_EXEC: libc::c_int = libc::MSG_CMSG_CLOEXEC;
        #[cfg(not(any(
            target_os = "linux",
            target_os = "android",
            target_os = "freebsd",
            target_os = "netbsd",
            target_os = "openbsd"
        )))]
        const CLOSE_ON_EXEC: libc::c_int = 0;
        // Linux can report the full length of a truncated datagram.
        const TELL_LENGTH: libc::c_int =
            if cfg!(any(target_os = "linux", target_os = "android")) { libc::MSG_TRUNC } else { 0 };
        const FLAGS: libc::c_int = libc::MSG_DONTWAIT | CLOSE_ON_EXEC | TELL_LENGTH;
        let mut length = loop {
            // SAFETY: `header` points at `iov`, `buffer` and `control`, which outlive the call.
            match check_size(unsafe { sys::recvmsg(self.0.as_raw_fd(), &mut header, FLAGS) }) {
                Err(error) if os::interrupted(&error) => {}
                other => break other?,
            }
        };
        if header.msg_flags & libc::MSG_TRUNC != 0 {
            // Elsewhere `length` is what was received; one byte more is enough to show the
            // truncation.
            length = length.max(buffer.len() + 1);
        }
        // SAFETY: the kernel filled `control` and set msg_controllen; the CMSG macros walk what is
        // there, and each SCM_RIGHTS message holds as many descriptors as its length says. Every
        // one of them is ours now and owned by nobody else.
        unsafe {
            let mut current = libc::CMSG_FIRSTHDR(&header);
            while !current.is_null() {
                if (*current).cmsg_level == libc::SOL_SOCKET
                    && (*current).cmsg_type == libc::SCM_RIGHTS
                {
                    let bytes =
                        ((*current).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
                    let data = libc::CMSG_DATA(current).cast::<libc::c_int>();
                    for index in 0..bytes / mem::size_of::<libc::c_int>() {
                        let received = OwnedFd::from_raw_fd(ptr::read_unaligned(data.add(index)));
                        if CLOSE_ON_EXEC == 0 {
                            let _ = descriptor::close_on_exec(&received);
                        }
                        keep(received);
                    }
                }
                current = libc::CMSG_NXTHDR(&header, current);
            }
        }
        Ok(length)
    }

    /// True if only the other end of the pair can send to this end. A socket without a name cannot
    /// be reached by others, and one that was ever bound keeps its name for good.
    pub fn is_private(&self) -> io::Result<bool> {
        // No copy: there may be no room for another descriptor.
        // SAFETY: the descriptor is open as long as this end, and is not closed by this.
        let socket = ManuallyDrop::new(unsafe { UnixDatagram::from_raw_fd(self.0.as_raw_fd()) });
        Ok(socket.local_addr()?.is_unnamed())
    }

    /// Sets SO_SNDBUF and SO_RCVBUF (`tcp bufsize`).
    pub fn set_buffer_sizes(&self, bytes: i32) -> io::Result<()> {
        socket::set_buffer_sizes(self.0.as_raw_fd(), bytes)
    }

    /// Bytes that were sent and not yet received, with what the system adds. 0 where it cannot
    /// tell.
    pub fn unsent_bytes(&self) -> usize {
        socket::unsent_bytes(self.0.as_raw_fd())
    }
}

/// What one end has sent and the other end has not yet received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// Nothing.
    Nothing,
    /// Something; the system cannot tell how much.
    Something,
    /// This many short messages, or fewer long ones that take as much memory.
    Messages(usize),
}

/// True if [`Channel::unread`] can count the messages.
pub const COUNTS_UNREAD: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// The memory that a short message takes in a channel; 0 if that cannot be found out.
fn message_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(|| {
        let measure = || -> io::Result<usize> {
            let (ours, _theirs) = pair()?;
            ours.send(&[0; 40], None)?;
            Ok(ours.unsent_bytes())
        };
        measure().unwrap_or(0)
    })
}

/// True if [`Channel::end_receiving`] works. On other systems it discards what is in the channel,
/// or may.
pub const CAN_END_RECEIVING: bool = cfg!(any(target_os = "linux", target_os = "android"));

#[cfg(test)]
mod tests;
