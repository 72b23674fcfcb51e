//! Event ports, port_create(3C): Solaris and illumos.
//!
//! An association is one-shot: retrieving its event removes it. It is made again before the next
//! wait if there is still interest, which gives level-triggered semantics.

// The types of the fields and constants differ from system to system.
#![allow(clippy::unnecessary_cast)]

use super::poll::{from_poll_bits, poll_bits};
use super::{backend::timespec, Interest, Ready, PAUSED};
use crate::os::{check, descriptor};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::{io, ptr};

#[cfg(not(event_shims))]
mod sys {
    pub(super) use libc::PORT_SOURCE_FD;
    pub(super) use libc::{port_associate, port_create, port_dissociate, port_event, port_getn};
}

/// The test-only emulation on Linux, with the layout of illumos' port.h.
#[cfg(event_shims)]
#[allow(non_camel_case_types)]
mod sys {
    #[repr(C)]
    #[derive(Clone, Copy)]
    pub(super) struct port_event {
        pub(super) portev_events: libc::c_int,
        pub(super) portev_source: libc::c_ushort,
        portev_pad: libc::c_ushort,
        pub(super) portev_object: libc::uintptr_t,
        portev_user: *mut libc::c_void,
    }
    pub(super) const PORT_SOURCE_FD: libc::c_int = 4;
    extern "C" {
        #[link_name = "shim_port_create"]
        pub(super) fn port_create() -> libc::c_int;
        #[link_name = "shim_port_associate"]
        pub(super) fn port_associate(
            port: libc::c_int,
            source: libc::c_int,
            object: libc::uintptr_t,
            events: libc::c_int,
            user: *mut libc::c_void,
        ) -> libc::c_int;
        #[link_name = "shim_port_dissociate"]
        pub(super) fn port_dissociate(
            port: libc::c_int,
            source: libc::c_int,
            object: libc::uintptr_t,
        ) -> libc::c_int;
        #[link_name = "shim_port_getn"]
        pub(super) fn port_getn(
            port: libc::c_int,
            list: *mut port_event,
            max: libc::c_uint,
            count: *mut libc::c_uint,
            timeout: *mut libc::timespec,
        ) -> libc::c_int;
    }
}

/// Most events that one wait takes. The rest stay in the kernel for the next turn.
const BATCH: usize = 256;

pub(super) struct Poller {
    port: OwnedFd,
    events: Vec<sys::port_event>,
    /// Current interest by descriptor.
    interest: Vec<Interest>,
    /// Descriptors whose association was used up by an event.
    spent: Vec<RawFd>,
}

impl Poller {
    pub(super) fn new() -> io::Result<Poller> {
        // SAFETY: port_create(3C) takes no arguments.
        let fd = check(unsafe { sys::port_create() })?;
        // SAFETY: the descriptor has just been created and nothing else owns it.
        let port = unsafe { OwnedFd::from_raw_fd(fd) };
        descriptor::close_on_exec(&port)?;
        Ok(Poller {
            port,
            events: Vec::with_capacity(BATCH),
            interest: Vec::new(),
            spent: Vec::new(),
        })
    }

    fn associate(&self, fd: RawFd, interest: Interest) -> io::Result<()> {
        // SAFETY: the call takes plain numbers; the user pointer is never followed.
        check(unsafe {
            sys::port_associate(
                self.port.as_raw_fd(),
                sys::PORT_SOURCE_FD as _,
                fd as _,
                libc::c_int::from(poll_bits(interest)),
                ptr::null_mut(),
            )
        })
        .map(drop)
    }

    pub(super) fn update(&mut self, fd: RawFd, _old: Interest, new: Interest) -> io::Result<()> {
        let index = fd as usize;
        if index >= self.interest.len() {
            self.interest.resize(index + 1, Interest::empty());
        }
        self.interest[index] = new.reported();
        if new.contains(PAUSED) {
            // The association that exists may raise one more event, which is dropped.
            return Ok(());
        }
        self.associate(fd, new)
    }

    pub(super) fn remove(&mut self, fd: RawFd, _old: Interest) {
        if let Some(interest) = self.interest.get_mut(fd as usize) {
            *interest = Interest::empty();
        }
        // ENOENT: the association was used up already.
        // SAFETY: the call takes plain numbers.
        unsafe { sys::port_dissociate(self.port.as_raw_fd(), sys::PORT_SOURCE_FD as _, fd as _) };
    }

    pub(super) fn wait(&mut self, timeout: Option<u64>, ready: &mut Vec<Ready>) -> io::Result<()> {
        for fd in std::mem::take(&mut self.spent) {
            let interest = self.interest[fd as usize];
            if !interest.is_empty() && self.associate(fd, interest).is_err() {
                // EAGAIN: process.max-port-events.
                ready.push(Ready { fd, lost: true, ..Ready::default() });
            }
        }
        let mut time = timespec(if ready.is_empty() { timeout } else { Some(0) });
        let time = time.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
        let mut count: libc::c_uint = 1;
        // An interrupted call may leave `count` at 1 without an event. The entry read then is this
        // one, whose source is none.
        self.events.clear();
        // SAFETY: port_event is plain data, for which all zeroes is a valid value.
        self.events.push(unsafe { std::mem::zeroed() });
        // SAFETY: `events` has room for BATCH entries, and the kernel writes no more; `count`
        // and `time` outlive the call.
        let result = check(unsafe {
            sys::port_getn(
                self.port.as_raw_fd(),
                self.events.as_mut_ptr(),
                BATCH as libc::c_uint,
                &mut count,
                time,
            )
        });
        match result {
            Ok(_) => {}
            // ETIME may still come with events: `count` says how many.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR)) => {}
            Err(error) => return Err(error),
        }
        // SAFETY: the kernel has initialised `count` entries, at most BATCH, or none, and then
        // `count` is still one and the first entry is the zeroed one above.
        unsafe { self.events.set_len((count as usize).min(BATCH)) };
        for event in &self.events {
            if event.portev_source as libc::c_int == sys::PORT_SOURCE_FD as libc::c_int {
                let fd = event.portev_object as RawFd;
                self.spent.push(fd);
                ready.push(from_poll_bits(fd, event.portev_events as libc::c_short));
            }
        }
        Ok(())
    }
}

#[cfg(all(test, event_shims))]
mod tests {
    use super::super::tests::{next_turn, token, turn};
    use super::super::{Choice, Interest, Loop, Mechanism};
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    extern "C" {
        /// Sets process.max-port-events for the emulated ports of this thread.
        fn shim_port_limit(most: libc::c_int);
    }

    /// Event ports return EAGAIN at process.max-port-events, also when an association is made again
    /// after its event. Such descriptors must not appear to be ready.
    #[test]
    fn what_a_port_at_its_limit_refuses_is_not_told_as_ready() {
        // SAFETY: it takes a number.
        let limit = |most| unsafe { shim_port_limit(most) };
        let mut events =
            Loop::new(&Choice { mechanism: Mechanism::Port, warning: None }).expect("a loop");
        let (mut a, mut b) = UnixStream::pair().expect("a pair");
        let (mut c, mut d) = UnixStream::pair().expect("a pair");
        let quiet = |events: &mut Loop| {
            let (start, mut turns) = (Instant::now(), 0);
            while start.elapsed().as_millis() < 200 {
                assert_eq!(turn(events, 1000), [], "nothing is there");
                turns += 1;
            }
            assert!(turns < 30, "{turns} turns in 200 ms");
        };
        // A new association is refused.
        limit(1);
        events.register(&b, token(1), Interest::READ);
        events.register(&d, token(2), Interest::READ);
        quiet(&mut events);
        c.write_all(b"x").expect("to write");
        assert_eq!(next_turn(&mut events), [(2, true, false, false)]);
        d.read_exact(&mut [0]).expect("to read");
        // An association is used up by its event, and refused when it is to be made again.
        limit(0);
        a.write_all(b"x").expect("to write");
        assert_eq!(next_turn(&mut events), [(1, true, false, false)]);
        b.read_exact(&mut [0]).expect("to read");
        quiet(&mut events);
        for _ in 0..3 {
            a.write_all(b"y").expect("to write");
            assert_eq!(next_turn(&mut events), [(1, true, false, false)]);
            b.read_exact(&mut [0]).expect("to read");
        }
        // With room, both are watched again: a long wait is not cut short.
        limit(libc::c_int::MAX);
        turn(&mut events, 50);
        let start = Instant::now();
        assert_eq!(turn(&mut events, 200), []);
        assert!(start.elapsed().as_millis() >= 199, "{:?}", start.elapsed());
        events.remove(&b);
        events.remove(&d);
    }
}
