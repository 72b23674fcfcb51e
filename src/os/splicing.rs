//! Socket splicing: the kernel carries what one TCP connection receives to another one by itself.
//! SO_SPLICE of OpenBSD and FreeBSD, see getsockopt(2) of both, and sosplice(9). Elsewhere there is
//! none, and starting fails.
//!
//! What both have in common, and the relay relies upon:
//! * a splice is one-way; the same two sockets may be spliced the other way as well;
//! * it begins with what the source has received already;
//! * the source is not ready for reading while it is spliced, and is when the splice has ended with
//!   data, an end of file or an error left to be read;
//! * it ends when the source has ended and everything of it was carried. The sink is not told: its
//!   sending side is shut down by who finds the end of file, as ever;
//! * the count of bytes is kept after the end.
//!
//! They differ in the time limit, `sp_idle`, which starts anew with every byte on OpenBSD only; so
//! none is set. When the sink breaks, OpenBSD makes that the error of the source ([`stop`]); FreeBSD
//! just ends the splice, and the next write finds it. And when the source breaks, OpenBSD leaves what
//! it had received to be read.

use std::os::fd::OwnedFd;

/// An end that has broken a splice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The connection that was read from.
    Source,
    /// The connection that was written to.
    Sink,
}

#[cfg(any(event_shims, target_os = "freebsd", target_os = "openbsd"))]
mod system {
    use super::super::{check, socket};
    use super::{Broken, OwnedFd};
    use std::io;
    use std::mem;
    use std::os::fd::{AsRawFd, RawFd};

    #[cfg(not(event_shims))]
    mod sys {
        pub(super) use libc::{getsockopt, setsockopt, splice, SO_SPLICE};
    }

    /// The test-only emulation on Linux; names and numbers are those of FreeBSD's sys/socket.h.
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

    /// Splices `source` to `sink`. Fails if they are not two TCP connections, or the kernel has no
    /// such thing; nothing has happened then.
    pub fn start(source: &OwnedFd, sink: &OwnedFd) -> io::Result<()> {
        set(source, sink.as_raw_fd())
    }

    /// Ends the splice of `source` to `sink` if that has not happened yet. Returns how many bytes it
    /// has carried, and whose error has ended it: the source's own, or that of the sink, which
    /// OpenBSD sets on the source (EPIPE if it was shut down).
    pub fn stop(source: &OwnedFd, sink: &OwnedFd) -> (u64, Result<(), Broken>) {
        // FreeBSD has ENOTCONN for a splice that has ended.
        let _ = set(source, -1);
        let result = blame(socket::take_error(source), || socket::take_error(sink));
        (carried(source), result)
    }

    fn blame(source: io::Result<()>, sink: impl FnOnce() -> io::Result<()>) -> Result<(), Broken> {
        let Err(error) = source else {
            return Ok(());
        };
        match error.raw_os_error() {
            // The bytes have gone in circles, which is no error of a connection.
            Some(libc::ELOOP) => Ok(()),
            Some(libc::EPIPE) => Err(Broken::Sink),
            _ if sink().is_err() => Err(Broken::Sink),
            _ => Err(Broken::Source),
        }
    }

    fn set(source: &OwnedFd, sink: RawFd) -> io::Result<()> {
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

    /// The bytes of the latest splice.
    fn carried(source: &OwnedFd) -> u64 {
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
    use super::{Broken, OwnedFd};
    use std::io;

    /// There is no such thing on this system.
    pub fn start(_: &OwnedFd, _: &OwnedFd) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Never called, as nothing was started.
    pub fn stop(_: &OwnedFd, _: &OwnedFd) -> (u64, Result<(), Broken>) {
        (0, Ok(()))
    }
}

pub use system::{start, stop};
