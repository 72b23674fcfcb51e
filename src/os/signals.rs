//! Signals as a readable descriptor: the handler notes the signal and writes one byte into a pipe
//! that the event loop watches. This self-pipe works with every mechanism; signalfd and
//! EVFILT_SIGNAL would not.

use super::process;
use crate::os::descriptor;
use nix::sys::signal::{self, SaFlags, SigAction, SigHandler, SigSet};
use std::io;
use std::io::{PipeReader, PipeWriter, Read};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

pub use nix::sys::signal::Signal;

/// Tells the broker to open the log file again. Whoever rotates logs may send it to all processes, at
/// any time.
pub const LOG_SIGNAL: Signal = Signal::SIGUSR2;

static WAKE: AtomicI32 = AtomicI32::new(-1);
static PENDING: AtomicU32 = AtomicU32::new(0);

extern "C" fn note(number: libc::c_int) {
    // Only async-signal-safe calls are allowed here: atomics and write(2). errno is preserved.
    PENDING.fetch_or(1 << (number as u32 & 31), Ordering::SeqCst);
    let errno = io::Error::last_os_error().raw_os_error();
    // SAFETY: write(2) of one byte from a live local; a full pipe or a closed one is harmless.
    unsafe { libc::write(WAKE.load(Ordering::SeqCst), [0u8].as_ptr().cast(), 1) };
    if let Some(errno) = errno {
        nix::errno::Errno::from_raw(errno).set();
    }
}

/// The signals that arrived since the last [`Signals::take`].
#[derive(Clone, Copy, Debug)]
pub struct Arrived(u32);

impl Arrived {
    /// True if `signal` is among them.
    pub fn has(self, signal: Signal) -> bool {
        self.0 & 1 << (signal as u32 & 31) != 0
    }
}

/// The receiving end; one per process.
#[derive(Debug)]
pub struct Signals {
    read: PipeReader,
    _write: PipeWriter,
}

impl Signals {
    /// Ignores SIGPIPE, catches `signals`, and unblocks all signals that the parent may have
    /// blocked.
    pub fn install(signals: &[Signal]) -> io::Result<Signals> {
        let (read, write) = io::pipe()?;
        descriptor::set_nonblocking(&read)?;
        descriptor::set_nonblocking(&write)?;
        WAKE.store(write.as_raw_fd(), Ordering::SeqCst);
        let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
        // SAFETY: ignoring a signal installs no handler.
        unsafe { signal::sigaction(Signal::SIGPIPE, &ignore) }?;
        for &signal in signals {
            catch(signal)?;
        }
        SigSet::all().thread_unblock()?;
        Ok(Signals { read, _write: write })
    }

    /// The descriptor to watch for readability.
    pub fn descriptor(&self) -> &PipeReader {
        &self.read
    }

    /// Empties the pipe and returns the signals that arrived.
    pub fn take(&self) -> Arrived {
        let mut sink = [0u8; 64];
        while matches!((&self.read).read(&mut sink), Ok(1..)) {}
        Arrived(PENDING.swap(0, Ordering::SeqCst))
    }
}

/// Catches one more signal, after [`Signals::install`].
pub fn catch(signal: Signal) -> io::Result<()> {
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler only does what is async-signal-safe.
    unsafe { signal::sigaction(signal, &action) }?;
    Ok(())
}

/// In a process that was started with `signal` [held](super::process::Program::held): it arrives and
/// does nothing until [`Signals::install`]. Not ignored, as what modules execute would inherit that.
pub fn catch_held(signal: Signal) {
    let _ = catch(signal);
    let _ = SigSet::from(signal).thread_unblock();
}

/// Ignores a signal for the rest of the process.
pub fn ignore(signal: Signal) -> io::Result<()> {
    let action = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: ignoring a signal installs no handler.
    unsafe { signal::sigaction(signal, &action) }?;
    Ok(())
}

/// Blocks every signal. Those that arrive stay pending, also across exec.
pub fn block_all() {
    let _ = SigSet::all().thread_block();
}

/// Blocks every signal and returns the previous mask, for [`restore`].
pub(crate) fn block_for_fork() -> SigSet {
    SigSet::all()
        .thread_swap_mask(signal::SigmaskHow::SIG_BLOCK)
        .unwrap_or_else(|_| SigSet::empty())
}

/// Restores the mask that [`block_for_fork`] returned.
pub(crate) fn restore(mask: &SigSet) {
    let _ = mask.thread_set_mask();
}

/// Keeps a broker's signals pending until it [catches](Signals::install) them. The signals that end
/// a process are not held, except for process 1 of a container: it never gets them while it has no
/// handler.
pub fn hold_until_caught() {
    let mut held = SigSet::empty();
    held.add(Signal::SIGHUP);
    held.add(Signal::SIGUSR1);
    held.add(LOG_SIGNAL);
    if process::id() == 1 {
        held.add(Signal::SIGTERM);
        held.add(Signal::SIGINT);
    }
    let _ = held.thread_block();
}

/// Sends a signal to this process. While it is blocked it stays pending, even for the next image.
pub fn raise(signal: Signal) {
    let _ = signal::kill(nix::unistd::getpid(), signal);
}

/// Unblocks the signals that end a process which does not catch them yet.
pub fn unblock_end() {
    let mut end = SigSet::empty();
    end.add(Signal::SIGTERM);
    end.add(Signal::SIGINT);
    let _ = end.thread_unblock();
}

/// True if a signal is blocked and pending.
pub fn is_pending(signal: Signal) -> bool {
    // SAFETY: sigpending(2) fills the set, which is plain data; sigismember(3) reads it.
    unsafe {
        let mut pending: libc::sigset_t = std::mem::zeroed();
        libc::sigpending(&mut pending) == 0 && libc::sigismember(&pending, signal as i32) == 1
    }
}

/// Unblocks every signal.
pub fn unblock_all() {
    let _ = SigSet::all().thread_unblock();
}

/// Resets every signal to its default and unblocks all but `held`, as a program that we execute
/// expects.
pub(crate) fn reset_for_exec(held: Option<Signal>) {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGCHLD,
        Signal::SIGPIPE,
    ] {
        // SAFETY: the default action installs no handler.
        let _ = unsafe { signal::sigaction(signal, &default) };
    }
    let _ = held.into_iter().collect::<SigSet>().thread_set_mask();
}
