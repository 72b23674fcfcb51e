//! syslog(3), and its copy on standard error.
//!
//! One process has one log: its identity, facility and severity are set by the `syslog`
//! directives as they are read, and shared with modules (`common_data`). The C library's syslog(3) is used, as each system has its own
//! way to its daemon.

use super::common_data;
use std::ffi::CString;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, TryLockError};

/// syslog severities (RFC 5424 section 6.2.1, the numbers of syslog.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Severity(i32);

impl Severity {
    /// LOG_ERR
    pub const ERROR: Severity = Severity(libc::LOG_ERR);
    /// LOG_WARNING
    pub const WARNING: Severity = Severity(libc::LOG_WARNING);
    /// LOG_INFO
    pub const INFO: Severity = Severity(libc::LOG_INFO);
    /// LOG_DEBUG
    pub const DEBUG: Severity = Severity(libc::LOG_DEBUG);

    /// The number of syslog.h.
    pub fn number(self) -> i32 {
        self.0
    }

    /// By the number of syslog.h.
    pub fn of(number: i32) -> Severity {
        Severity(number & 7)
    }

    /// By name, in any case.
    pub fn parse(name: &str) -> Option<Severity> {
        const NAMES: [(&str, i32); 8] = [
            ("EMERG", libc::LOG_EMERG),
            ("ALERT", libc::LOG_ALERT),
            ("CRIT", libc::LOG_CRIT),
            ("ERR", libc::LOG_ERR),
            ("WARNING", libc::LOG_WARNING),
            ("NOTICE", libc::LOG_NOTICE),
            ("INFO", libc::LOG_INFO),
            ("DEBUG", libc::LOG_DEBUG),
        ];
        lookup(&NAMES, name).map(Severity)
    }
}

/// syslog facilities, shifted as in syslog.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facility(i32);

impl Facility {
    /// The number of syslog.h.
    pub fn number(self) -> i32 {
        self.0
    }

    /// By name, in any case.
    pub fn parse(name: &str) -> Option<Facility> {
        // Solaris has no LOG_AUTHPRIV and LOG_FTP of its own; these are the usual numbers.
        const AUTHPRIV: i32 = 10 << 3;
        const FTP: i32 = 11 << 3;
        const NAMES: [(&str, i32); 20] = [
            ("AUTH", libc::LOG_AUTH),
            ("AUTHPRIV", AUTHPRIV),
            ("CRON", libc::LOG_CRON),
            ("DAEMON", libc::LOG_DAEMON),
            ("FTP", FTP),
            ("KERN", libc::LOG_KERN),
            ("LOCAL0", libc::LOG_LOCAL0),
            ("LOCAL1", libc::LOG_LOCAL1),
            ("LOCAL2", libc::LOG_LOCAL2),
            ("LOCAL3", libc::LOG_LOCAL3),
            ("LOCAL4", libc::LOG_LOCAL4),
            ("LOCAL5", libc::LOG_LOCAL5),
            ("LOCAL6", libc::LOG_LOCAL6),
            ("LOCAL7", libc::LOG_LOCAL7),
            ("LPR", libc::LOG_LPR),
            ("MAIL", libc::LOG_MAIL),
            ("NEWS", libc::LOG_NEWS),
            ("SYSLOG", libc::LOG_SYSLOG),
            ("USER", libc::LOG_USER),
            ("UUCP", libc::LOG_UUCP),
        ];
        lookup(&NAMES, name).map(Facility)
    }
}

fn lookup(names: &[(&str, i32)], name: &str) -> Option<i32> {
    names.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|&(_, number)| number)
}

struct State {
    // openlog(3) keeps the pointer, so the string must live until the next openlog.
    ident: CString,
    stderr: bool,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);
static STDERR_COPY: AtomicBool = AtomicBool::new(false);
static MUTE: AtomicBool = AtomicBool::new(false);

/// Runs `action` on the state. The processes have one thread, so a lock that is taken means that
/// this is the handler of a crash inside of `action`: nothing is done then.
fn with_state<R>(action: impl FnOnce(&mut State) -> R) -> Option<R> {
    let mut guard = match STATE.try_lock() {
        Ok(guard) => guard,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return None,
    };
    Some(action(guard.get_or_insert_with(|| State {
        ident: CString::default(),
        stderr: STDERR_COPY.load(Ordering::Relaxed),
    })))
}

fn reopen(state: &mut State, ident: CString) {
    // SAFETY: openlog(3) keeps the pointer. The string behind it is kept in STATE; the former
    // one is dropped only after the new one is in place.
    unsafe {
        let facility = common_data::syslog_facility();
        libc::openlog(ident.as_ptr(), libc::LOG_PID | libc::LOG_NDELAY, facility);
    }
    state.ident = ident;
}

/// Opens the log as `ident`. With `copy` every message goes to standard error as well, in the
/// form of sd-daemon(3): `<SEVERITY>IDENT[PID]: TEXT`.
pub fn open(ident: &str, copy: bool) {
    STDERR_COPY.store(copy, Ordering::Relaxed);
    with_state(|state| {
        state.stderr = copy;
        reopen(state, CString::new(ident).unwrap_or_default());
    });
}

/// Opens the log again, after its identity or facility have changed.
pub fn reopen_as(ident: &str) {
    with_state(|state| reopen(state, CString::new(ident).unwrap_or_default()));
}

/// `syslog ident`.
pub fn set_ident(ident: &str) {
    common_data::set_syslog_ident(ident);
    reopen_as(ident);
}

/// `syslog facility`.
pub fn set_facility(facility: Facility) {
    common_data::set_syslog_facility(facility.0);
    with_state(|state| {
        let ident = state.ident.clone();
        reopen(state, ident);
    });
}

/// `syslog severity`: that of ordinary messages.
pub fn set_severity(severity: Severity) {
    common_data::set_syslog_level(severity.0);
}

/// Writes one message at the configured severity. Control characters are made visible.
pub fn message(text: &str) {
    message_at(Severity::of(common_data::syslog_level()), text);
}

/// Says nothing any more: this process does what another one will do again, and say.
pub fn mute() {
    MUTE.store(true, Ordering::Relaxed);
}

/// Writes one message at a severity of its own.
pub fn message_at(severity: Severity, text: &str) {
    if MUTE.load(Ordering::Relaxed) {
        return;
    }
    let printable = printable(text);
    with_state(|state| {
        if state.stderr {
            let ident = state.ident.to_string_lossy();
            let pid = std::process::id();
            stderr(&format!("<{}>{ident}[{pid}]: {printable}\n", severity.0));
        }
        let Ok(line) = CString::new(printable.as_bytes()) else {
            return;
        };
        // SAFETY: the format is a constant with one string argument, which is NUL-terminated.
        unsafe {
            let priority = severity.0 | common_data::syslog_facility();
            libc::syslog(priority, c"%s".as_ptr(), line.as_ptr());
        }
    });
}

/// Writes to standard error. A terminal or pipe that is gone must not end the program, as it
/// would with `eprintln!`.
pub fn stderr(text: &str) {
    stderr_bytes(text.as_bytes());
}

/// As [`stderr`], for what need not be text.
pub fn stderr_bytes(bytes: &[u8]) {
    if !MUTE.load(Ordering::Relaxed) {
        let _ = std::io::stderr().write_all(bytes);
    }
}

/// A client or a file may put anything into a message; the log gets one printable line.
fn printable(text: &str) -> String {
    if text.chars().any(char::is_control) {
        text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
    } else {
        text.to_owned()
    }
}
