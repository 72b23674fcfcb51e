//! The list of all mechanisms, and the choice of one.

use super::{Interest, Ready};
use std::io;
use std::os::fd::RawFd;

macro_rules! mechanisms {
    ($($(#[$cfg:meta])* $variant:ident, $module:ident, $name:literal, $bit:literal;)*) => {
        /// An event notification mechanism that this build has.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mechanism {
            $($(#[$cfg])* #[doc = $name] $variant,)*
        }

        impl Mechanism {
            /// All mechanisms of this build, best first.
            pub const ALL: &[Mechanism] = &[$($(#[$cfg])* Mechanism::$variant,)*];

            /// The name in log lines.
            pub fn name(self) -> &'static str {
                match self { $($(#[$cfg])* Mechanism::$variant => $name,)* }
            }

            /// The bit in `IO_POLL_MECHANISM`.
            pub fn bit(self) -> i64 {
                match self { $($(#[$cfg])* Mechanism::$variant => $bit,)* }
            }
        }

        /// The poller of a loop. An enum, not a trait object: the match is predicted, and each
        /// backend is compiled into its caller.
        pub(super) enum Backend {
            $($(#[$cfg])* $variant(super::$module::Poller),)*
        }

        impl Backend {
            pub(super) fn new(mechanism: Mechanism) -> io::Result<Backend> {
                Ok(match mechanism {
                    $($(#[$cfg])*
                    Mechanism::$variant => Backend::$variant(super::$module::Poller::new()?),)*
                })
            }

            pub(super) fn mechanism(&self) -> Mechanism {
                match self { $($(#[$cfg])* Backend::$variant(_) => Mechanism::$variant,)* }
            }

            /// Replaces the interest `old` in a descriptor, as last given, by `new`, which is not
            /// empty. If `new` has `PAUSED`, its other bits are those of `old`.
            pub(super) fn update(
                &mut self, fd: RawFd, old: Interest, new: Interest,
            ) -> io::Result<()> {
                match self {
                    $($(#[$cfg])* Backend::$variant(poller) => poller.update(fd, old, new),)*
                }
            }

            /// Ends the interest `old` in a descriptor, as last given. At once, because the
            /// descriptor may be closed next. If it has been closed already, there is nothing to
            /// undo.
            pub(super) fn remove(&mut self, fd: RawFd, old: Interest) {
                match self {
                    $($(#[$cfg])* Backend::$variant(poller) => poller.remove(fd, old),)*
                }
            }

            /// True if streams can be watched edge-triggered.
            pub(super) fn has_edges(&self) -> bool {
                #[cfg(any(target_os = "linux", target_os = "android"))]
                if let Backend::Epoll(_) = self {
                    return true;
                }
                false
            }

            /// Starts to watch a stream edge-triggered, for everything. Each edge carries
            /// `generation`. Only if [`Self::has_edges`].
            pub(super) fn add_stream(&mut self, fd: RawFd, generation: u8) -> io::Result<()> {
                #[cfg(any(target_os = "linux", target_os = "android"))]
                if let Backend::Epoll(poller) = self {
                    return poller.add_stream(fd, generation);
                }
                let _ = (fd, generation);
                Err(io::ErrorKind::Unsupported.into())
            }

            /// Waits at most `timeout` milliseconds (`None`: no limit) and appends the descriptors
            /// that are ready, one entry for each.
            pub(super) fn wait(
                &mut self, timeout: Option<u64>, ready: &mut Vec<Ready>,
            ) -> io::Result<()> {
                match self {
                    $($(#[$cfg])* Backend::$variant(poller) => poller.wait(timeout, ready),)*
                }
            }
        }
    };
}

// In order of preference. A system has at most one of the first three, except in test builds with
// shims, where the native mechanism still comes first.
mechanisms! {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    Epoll, epoll, "epoll", 4;
    #[cfg(any(
        event_shims,
        target_os = "freebsd",
        target_os = "netbsd",
        target_os = "openbsd",
        target_os = "dragonfly",
        target_vendor = "apple"
    ))]
    Kqueue, kqueue, "kqueue", 1;
    #[cfg(any(event_shims, target_os = "solaris", target_os = "illumos"))]
    Port, port, "port", 32;
    #[cfg(any(event_shims, target_os = "solaris", target_os = "illumos"))]
    DevPoll, devpoll, "/dev/poll", 2;
    Poll, poll, "poll", 8;
    Select, select, "select", 16;
}

/// The mechanism for this process, and a warning if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The mechanism.
    pub mechanism: Mechanism,
    /// Set if `IO_POLL_MECHANISM` could not be followed.
    pub warning: Option<String>,
}

impl Choice {
    /// Chooses by the value of `IO_POLL_MECHANISM`: a decimal mask of the bits of
    /// [`Mechanism::bit`]. Takes the best mechanism that the mask allows. If it allows none, or is
    /// not a number, takes the best there is, with a warning.
    pub fn from_setting(setting: Option<&str>) -> Choice {
        let best = Mechanism::ALL[0];
        let Some(setting) = setting else {
            return Choice { mechanism: best, warning: None };
        };
        let mask: i64 = setting.trim().parse().unwrap_or(0);
        match Mechanism::ALL.iter().find(|mechanism| mask & mechanism.bit() != 0) {
            Some(&mechanism) => Choice { mechanism, warning: None },
            None => Choice {
                mechanism: best,
                warning: Some(format!(
                    "IO_POLL_MECHANISM = '{setting}' names no event notification mechanism of \
                     this system, using {}",
                    best.name()
                )),
            },
        }
    }

    /// [`Self::from_setting`] with the variable of this process's environment.
    pub fn from_environment() -> Choice {
        Choice::from_setting(std::env::var("IO_POLL_MECHANISM").ok().as_deref())
    }

    /// How many descriptors this mechanism can watch, if that is less than the system allows.
    pub fn descriptor_cap(&self) -> Option<u64> {
        match self.mechanism {
            Mechanism::Select => Some(libc::FD_SETSIZE as u64),
            _ => None,
        }
    }
}

/// A timeout of `Loop::wait` as the int that poll(2) and its kin take, capped at its maximum.
pub(super) fn milliseconds(timeout: Option<u64>) -> libc::c_int {
    timeout.map_or(-1, |ms| libc::c_int::try_from(ms).unwrap_or(libc::c_int::MAX))
}

/// A timeout of `Loop::wait` as a timespec.
#[cfg_attr(all(target_os = "linux", not(event_shims)), allow(dead_code))]
pub(super) fn timespec(timeout: Option<u64>) -> Option<libc::timespec> {
    timeout.map(|ms| {
        // SAFETY: timespec is plain data, for which all zeroes is a valid value; some systems
        // have padding fields that cannot be named.
        let mut time: libc::timespec = unsafe { std::mem::zeroed() };
        // Not `as libc::time_t`: the libc crate deprecates that name for musl.
        time.tv_sec = (ms / 1000).min(i32::MAX as u64) as _;
        time.tv_nsec = (ms % 1000 * 1_000_000) as libc::c_long;
        time
    })
}
