//! Socket splicing: the kernel moves what one TCP connection receives to another one by itself.
//! This is SO_SPLICE of OpenBSD and FreeBSD, see getsockopt(2) of both, and sosplice(9). Other
//! systems have none, and starting fails.
//!
//! What both have in common, and the relay relies upon:
//! * a splice is one-way; the same two sockets may be spliced the other way as well;
//! * it begins with what the source has already received;
//! * while it lasts, the source does not become readable; afterwards it does if there is data, an
//!   end of file or an error to read;
//! * it ends when the source has ended and all its data was moved. The sink is not told: whoever
//!   reads the end of file must shut down the sink's sending side, as without splicing;
//! * the byte count is kept after the end.
//!
//! They differ in the time limit, `sp_idle`, which only OpenBSD restarts with every byte, so we set
//! none. When the sink breaks, OpenBSD reports that as the error of the source ([`stop`]); FreeBSD
//! just ends the splice, and the next write fails. When the source breaks, OpenBSD leaves what it
//! had received to be read.

use super::Socket;

/// The end that broke a splice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The connection that was read from.
    Source,
    /// The connection that was written to.
    Sink,
}

#[cfg(any(event_shims, target_os = "freebsd", target_os = "openbsd"))]
mod system {
    use super::super::check;
    use super::{Broken, Socket};
    use std::io;
    use std::mem;
    use std::os::fd::{AsRawFd, RawFd};

    #[cfg(not(event_shims))]
    mod sys {
        pub(super) use libc::{getsockopt, setsockopt, splice, SO_SPLICE};
    }

    /// The tests' emulation on Linux; names and numbers are those of FreeBSD's sys/socket.h.
    #[cfg(event_shims)]
    mod sys {
        use libc::{c_int, c_void, socklen_t};

        #[allow(non_camel_case_types)]
        #[repr(C)]
        pub(super) struct splice {
            pub(super) sp_fd: c_int,
            pub(super) sp_max: libc::off_t,
            pub(super) sp_idle: libc::timeval,
        }
        pub(super) const SO_SPLICE: c_int = 0x1023;
        extern "C" {
            #[link_name = "shim_setsockopt"]
            pub(super) fn setsockopt(
                fd: c_int,
                level: c_int,
                name: c_int,
                value: *const c_void,
                length: socklen_t,
            ) -> c_int;
            #[link_name = "shim_getsockopt"]
            pub(super) fn getsockopt(
                fd: c_int,
                level: c_int,
                name: c_int,
                value: *mut c_void,
                length: *mut socklen_t,
            ) -> c_int;
        }
    }

    /// Splices `source` to `sink`. Fails, without any effect, if they are not two TCP connections,
    /// or if the kernel does not support it.
    pub fn start(source: &Socket, sink: &Socket) -> io::Result<()> {
        set(source, sink.as_raw_fd())
    }

    /// Ends the splice of `source` to `sink`, unless it has already ended. Returns how many bytes
    /// it moved, and which end's error ended it: the source's own, or the sink's, which OpenBSD
    /// sets on the source (EPIPE if the sink was shut down).
    pub fn stop(source: &Socket, sink: &Socket) -> (u64, Result<(), Broken>) {
        // FreeBSD returns ENOTCONN for a splice that has already ended.
        let _ = set(source, -1);
        let result = blame(source.take_error(), || sink.take_error());
        (carried(source), result)
    }

    fn blame(source: io::Result<()>, sink: impl FnOnce() -> io::Result<()>) -> Result<(), Broken> {
        let Err(error) = source else {
            return Ok(());
        };
        match error.raw_os_error() {
            // The bytes went round in circles, which is not a connection's error.
            Some(libc::ELOOP) => Ok(()),
            Some(libc::EPIPE) => Err(Broken::Sink),
            _ if sink().is_err() => Err(Broken::Sink),
            _ => Err(Broken::Source),
        }
    }

    fn set(source: &Socket, sink: RawFd) -> io::Result<()> {
        // SAFETY: struct splice is plain data, for which all zeroes is a valid value: no limit.
        let mut splice: sys::splice = unsafe { mem::zeroed() };
        splice.sp_fd = sink;
        // SAFETY: the pointer and the length describe `splice`, which outlives the call.
        check(unsafe {
            sys::setsockopt(
                source.as_raw_fd(),
                libc::SOL_SOCKET,
                sys::SO_SPLICE,
                (&raw const splice).cast(),
                mem::size_of_val(&splice) as libc::socklen_t,
            )
        })
        .map(drop)
    }

    /// How many bytes the latest splice moved.
    fn carried(source: &Socket) -> u64 {
        let mut count: libc::off_t = 0;
        let mut length = mem::size_of_val(&count) as libc::socklen_t;
        // SAFETY: `count` has room for `length` bytes, and both outlive the call.
        let result = unsafe {
            sys::getsockopt(
                source.as_raw_fd(),
                libc::SOL_SOCKET,
                sys::SO_SPLICE,
                (&raw mut count).cast(),
                &mut length,
            )
        };
        check(result).map_or(0, |_| u64::try_from(count).unwrap_or(0))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_error_of_a_sink_is_told_from_that_of_its_source() {
            let error = |errno| Err(io::Error::from_raw_os_error(errno));
            let blamed = |source, sink| blame(error(source), || sink);
            assert_eq!(blame(Ok(()), || error(libc::ECONNRESET)), Ok(()));
            assert_eq!(blamed(libc::ECONNRESET, Ok(())), Err(Broken::Source));
            assert_eq!(blamed(libc::ECONNRESET, error(libc::ECONNRESET)), Err(Broken::Sink));
            assert_eq!(blamed(libc::EPIPE, Ok(())), Err(Broken::Sink));
            assert_eq!(blamed(libc::ELOOP, Ok(())), Ok(()));
        }
    }
}

#[cfg(not(any(event_shims, target_os = "freebsd", target_os = "openbsd")))]
mod system {
    use super::{Broken, Socket};
    use std::io;

    /// This system has no socket splicing.
    pub fn start(_: &Socket, _: &Socket) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Never called: a splice cannot be started.
    pub fn stop(_: &Socket, _: &Socket) -> (u64, Result<(), Broken>) {
        (0, Ok(()))
    }
}

pub use system::{start, stop};
