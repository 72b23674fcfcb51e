//! Linux: what each thread must give up for itself: capabilities, and, with Landlock, files.
//! Modules may have started threads of their own; a signal makes those give it up too.

use super::landlock::RESTRICT_SELF;
use super::Needs;
use crate::os::capabilities::Capabilities;
use crate::os::process;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The Landlock ruleset for the signalled threads, or -1.
static RULES: AtomicI32 = AtomicI32::new(-1);
/// Whether they keep the capability for [`Needs::transparent`].
static TRANSPARENT: AtomicBool = AtomicBool::new(false);
/// How many of them have given it up.
static DONE: AtomicUsize = AtomicUsize::new(0);

/// How long to wait for them.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(1);

/// Makes all threads of this process give up capabilities and files, except for what is needed.
/// Returns how many did not answer, because they block the signal.
pub(super) fn give_up(rules: Option<&OwnedFd>, needs: &Needs<'_>) -> io::Result<usize> {
    let number = rules.map_or(-1, AsRawFd::as_raw_fd);
    // List the threads now: afterwards /proc may not be readable.
    let own = current();
    let listed = std::fs::read_dir("/proc/self/task").into_iter().flatten();
    let others: Vec<libc::pid_t> = listed
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&thread| thread != own)
        .collect();
    give_up_here(number, needs.transparent)?;
    if others.is_empty() {
        return Ok(0);
    }
    RULES.store(number, Ordering::SeqCst);
    TRANSPARENT.store(needs.transparent, Ordering::SeqCst);
    DONE.store(0, Ordering::SeqCst);
    let signal = install_handler()?;
    let told = others.into_iter().filter(|&thread| tell(thread, signal)).count();
    let end = Instant::now() + PATIENCE;
    while DONE.load(Ordering::SeqCst) < told && Instant::now() < end {
        std::thread::sleep(PAUSE);
    }
    let silent = told - DONE.load(Ordering::SeqCst).min(told);
    // The handler stays installed: a signal that arrives later must not end the process.
    RULES.store(-1, Ordering::SeqCst);
    Ok(silent)
}

fn current() -> libc::pid_t {
    // SAFETY: gettid(2) takes nothing and cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) as libc::pid_t }
}

/// Sends a signal to a thread; false if it has ended.
fn tell(thread: libc::pid_t, signal: libc::c_int) -> bool {
    // SAFETY: tgkill(2) takes plain numbers.
    unsafe { libc::syscall(libc::SYS_tgkill, process::id(), thread, signal) == 0 }
}

/// Installs the handler for a real-time signal that is not in use.
fn install_handler() -> io::Result<libc::c_int> {
    for signal in (libc::SIGRTMIN()..=libc::SIGRTMAX()).rev() {
        // SAFETY: sigaction is plain data, which sigaction(2) fills and reads; the handler only
        // makes system calls and changes atomics, and keeps errno.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            let unused = libc::sigaction(signal, std::ptr::null(), &mut action) == 0
                && action.sa_sigaction == libc::SIG_DFL;
            if unused {
                action.sa_sigaction = told as extern "C" fn(libc::c_int) as libc::sighandler_t;
                action.sa_flags = libc::SA_RESTART;
                libc::sigfillset(&mut action.sa_mask);
                crate::os::check(libc::sigaction(signal, &action, std::ptr::null_mut()))?;
                return Ok(signal);
            }
        }
    }
    Err(io::Error::other("no signal is free to tell threads"))
}

extern "C" fn told(_signal: libc::c_int) {
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
    if give_up_here(RULES.load(Ordering::SeqCst), TRANSPARENT.load(Ordering::SeqCst)).is_ok() {
        DONE.fetch_add(1, Ordering::SeqCst);
    }
    process::set_errno(errno);
}

/// Makes the calling thread give them up. `rules` is the descriptor of a Landlock ruleset, or
/// negative for none. One capability stays if connections are `transparent`. Makes only system calls,
/// because it runs in a signal handler.
fn give_up_here(rules: libc::c_int, transparent: bool) -> io::Result<()> {
    let left = match transparent {
        true => Capabilities::for_transparent_sockets()?,
        false => Capabilities::NONE,
    };
    // Without NO_NEW_PRIVS only root may install a filter or apply a Landlock ruleset. It has no
    // other effect here, as workers execute nothing.
    let (yes, none): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: prctl(PR_SET_NO_NEW_PRIVS) takes plain numbers.
    crate::os::check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, yes, none, none, none) })?;
    if rules >= 0 {
        // SAFETY: landlock_restrict_self takes plain numbers.
        let result = unsafe { libc::syscall(RESTRICT_SELF, rules, 0u32) };
        crate::os::check(result as libc::c_int)?;
    }
    left.apply()
}
