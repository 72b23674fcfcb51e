//! What is done when the program crashes: a panic, or SIGSEGV and SIGBUS.
//!
//! The version, the place and a backtrace are logged, the configured commands are run with
//! `CRASHPID` in their environment and their output is logged, and the process ends with
//! status 69.

use super::log;
use super::process::{self, exit};
use nix::sys::signal::{self, SaFlags, SigAction, SigHandler, SigSet, Signal};
use std::backtrace::Backtrace;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::OnceLock;

/// What the configuration wants to be done.
#[derive(Debug, Default)]
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

static ACTIONS: OnceLock<Actions> = OnceLock::new();
static CRASHING: AtomicBool = AtomicBool::new(false);

/// Installs the handlers of the process.
pub fn install(actions: Actions) {
    if ACTIONS.set(actions).is_err() {
        return;
    }
    std::panic::set_hook(Box::new(|info| {
        log::message(&format!("panic: {info}"));
        act();
    }));
    let action = SigAction::new(SigHandler::Handler(caught), SaFlags::SA_NODEFER, SigSet::empty());
    for signal in [Signal::SIGSEGV, Signal::SIGBUS] {
        // SAFETY: the handler never returns to the code that crashed. It does more than is
        // async-signal-safe, which at worst makes it hang: an alarm ends it then.
        let _ = unsafe { signal::sigaction(signal, &action) };
    }
}

extern "C" fn caught(number: libc::c_int) {
    if CRASHING.swap(true, Ordering::SeqCst) {
        // A crash of the crash handler.
        // SAFETY: _exit(2) takes a plain number.
        unsafe { libc::_exit(exit::UNAVAILABLE) };
    }
    // Whatever hangs from here on, as this is no place for what follows, is ended.
    // SAFETY: alarm(2) takes a plain number; its signal ends the process.
    unsafe { libc::alarm(60) };
    let name = if number == libc::SIGSEGV { "SIGSEGV" } else { "SIGBUS" };
    log::message(&format!("Caught {name}"));
    act();
}

/// Logs, runs the commands, and ends the process.
fn act() -> ! {
    // SAFETY: alarm(2) takes a plain number; its signal ends the process.
    unsafe { libc::alarm(60) };
    let nothing = Actions::default();
    let actions = ACTIONS.get().unwrap_or(&nothing);
    // A worker ignores SIGCHLD; the commands below are to be waited for.
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
    if let Some(command) = &actions.debug_command {
        run("GDB", command);
    }
    if let (Some(directory), Some(command)) = (&actions.core_directory, &actions.core_command) {
        log::message(&format!("Trying to dump core in {}", directory.display()));
        if std::env::set_current_dir(directory).is_ok() {
            run("GCORE", command);
        }
    }
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
