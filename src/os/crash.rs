//! What happens when the program crashes, by a panic or by SIGSEGV or SIGBUS.
//!
//! It logs the version, the place and a backtrace, runs the configured commands with `CRASHPID` in
//! their environment, logs their output, and ends with status 69.

use super::process::{self, exit};
use super::{entry, log};
use nix::sys::signal::{self, SaFlags, SigAction, SigHandler, SigSet, Signal};
use std::backtrace::Backtrace;
use std::ffi::c_void;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::time::Duration;

/// The actions that the configuration asks for.
#[derive(Clone, Debug, Default)]
pub struct Actions {
    /// Version of the program, for the log.
    pub version: String,
    /// `coredump directory`.
    pub core_directory: Option<PathBuf>,
    /// `gcore`.
    pub core_command: Option<String>,
    /// `debug-cmd`.
    pub debug_command: Option<String>,
}

/// How long to wait for the last lines to reach the log.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Actions are never freed, as the process may crash while they are replaced.
static ACTIONS: AtomicPtr<Actions> = AtomicPtr::new(std::ptr::null_mut());
static CRASHING: AtomicBool = AtomicBool::new(false);

extern "C" {
    fn compat_coredump_handler() -> *mut libc::sighandler_t;
}

/// The current actions, if any were set.
fn actions() -> Option<&'static Actions> {
    // SAFETY: null or a box that has been leaked, and is never changed.
    unsafe { ACTIONS.load(Ordering::SeqCst).as_ref() }
}

fn set_actions(actions: Actions) {
    ACTIONS.store(Box::leak(Box::new(actions)), Ordering::SeqCst);
}

/// Installs the crash handlers of our own programs. Only the first call has an effect.
pub fn install(actions: Actions) {
    if self::actions().is_some() {
        return;
    }
    set_actions(actions);
    std::panic::set_hook(Box::new(|info| {
        log::message(&format!("panic: {info}"));
        act();
    }));
    let action = SigAction::new(SigHandler::Handler(caught), SaFlags::SA_NODEFER, SigSet::empty());
    for signal in [Signal::SIGSEGV, Signal::SIGBUS] {
        // SAFETY: the handler never returns to the code that crashed. It does more than is
        // async-signal-safe; at worst it hangs, and then an alarm ends the process.
        let _ = unsafe { signal::sigaction(signal, &action) };
    }
}

/// A handler in the form that sigaction(2) takes with SA_SIGINFO.
pub type Handler = unsafe extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut c_void);

/// Installs `handler`, which calls [`caught`], for a C program that uses the library. Actions that
/// are not given stay as they were. The previous SIGSEGV handler is saved in the variable where
/// such programs look for it.
pub fn install_for_program(given: Actions, handler: Handler) {
    let before = actions().cloned().unwrap_or_default();
    set_actions(Actions {
        version: given.version,
        core_directory: given.core_directory.or(before.core_directory),
        core_command: given.core_command.or(before.core_command),
        debug_command: given.debug_command.or(before.debug_command),
    });
    // SAFETY: all fields are numbers, for which zero is a value; sigaction(2) fills it in. The
    // exported variable is as large as a pointer and lives as long as the process.
    unsafe {
        let mut former: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGSEGV, std::ptr::null(), &mut former) == 0 {
            compat_coredump_handler().write_volatile(former.sa_sigaction);
        }
    }
    let flags = SaFlags::SA_NODEFER;
    type Safe = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut c_void);
    // SAFETY: only the system calls it, with what such a handler takes.
    let handler = unsafe { std::mem::transmute::<Handler, Safe>(handler) };
    let action = SigAction::new(SigHandler::SigAction(handler), flags, SigSet::empty());
    for signal in [Signal::SIGSEGV, Signal::SIGBUS] {
        // SAFETY: as in `install`.
        let _ = unsafe { signal::sigaction(signal, &action) };
    }
}

/// The signal handler.
pub extern "C" fn caught(number: libc::c_int) {
    if CRASHING.swap(true, Ordering::SeqCst) {
        // The crash handler itself crashed.
        // SAFETY: _exit(2) takes a plain number.
        unsafe { libc::_exit(exit::UNAVAILABLE) };
    }
    // None of what follows is safe in a signal handler; if it hangs, the alarm ends the process.
    // SAFETY: alarm(2) takes a plain number; its signal ends the process.
    unsafe { libc::alarm(60) };
    let name = if number == libc::SIGBUS { "SIGBUS" } else { "SIGSEGV" };
    log::message(&format!("Caught {name}"));
    act();
}

/// Logs, runs the commands, and ends the process.
fn act() -> ! {
    // SAFETY: alarm(2) takes a plain number; its signal ends the process.
    unsafe { libc::alarm(60) };
    let nothing = Actions::default();
    let actions = actions().unwrap_or(&nothing);
    // A worker ignores SIGCHLD, but we must wait for the commands below.
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action installs no handler.
    let _ = unsafe { signal::sigaction(Signal::SIGCHLD, &default) };
    log::message("This is a bug. Please report it, with the lines that follow.");
    log::message(&format!("Version: {}", actions.version));
    log::message("EXECINFO: backtrace start");
    let backtrace = Backtrace::force_capture().to_string();
    for (number, line) in backtrace.lines().enumerate() {
        log::message(&format!("EXECINFO: {number} {}", line.trim()));
    }
    log::message("EXECINFO: backtrace end");
    if actions.debug_command.is_some() || actions.core_directory.is_some() {
        process::permit_inspection();
    }
    if let Some(command) = &actions.debug_command {
        run("GDB", command);
    }
    if let Some(directory) = &actions.core_directory {
        log::message(&format!("Trying to dump core in {}", directory.display()));
        match (entry::enter_directory(directory), &actions.core_command) {
            (Ok(()), Some(command)) => run("GCORE", command),
            (Ok(()), None) => leave_core(),
            (Err(error), _) => {
                log::message(&format!("{}: {}", directory.display(), super::reason(&error)));
            }
        }
    }
    log::drain(LAST_WORDS);
    // SAFETY: _exit(2) takes a plain number; destructors must not run in this state.
    unsafe { libc::_exit(exit::UNAVAILABLE) }
}

fn run(label: &str, command: &str) {
    log::message(&format!("{label}: running: \"{command}\""));
    log::message(&format!("{label}: backtrace start"));
    let output = Command::new("/bin/sh")
        .args(["-c", command])
        .env("CRASHPID", process::id().to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    if let Ok(output) = output {
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            log::message(&format!("{label}: {line}"));
        }
    }
    log::message(&format!("{label}: backtrace end"));
}

/// Lets the system write a core file into the working directory; an earlier one is renamed.
fn leave_core() -> ! {
    log::drain(LAST_WORDS);
    let _ = std::fs::rename("core", format!("core.{:08x}", super::wall_clock()));
    // SAFETY: getrlimit(2) and setrlimit(2) use `limit`, which outlives the calls; abort(3) ends
    // the process.
    unsafe {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        if libc::getrlimit(libc::RLIMIT_CORE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_CORE, &limit);
        }
        libc::abort()
    }
}
