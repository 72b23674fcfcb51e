//! The log: lines for the log daemon, and their copy on standard error.
//!
//! One process has one log: its identity, facility and severity are set by the `syslog`
//! directives as they are read, and shared with modules (`common_data`).
//!
//! Nothing here waits for who reads the lines. What is not taken at once waits in a bounded queue,
//! which the event loop [tends](tend); what finds no room there is counted, and its number is
//! logged when there is room again. What others can cause, as often as they like, goes through
//! [`braked`].

mod brake;
mod daemon;
mod queue;
mod standard_error;

use super::{common_data, monotonic_clock, process};
use brake::Brake;
pub use brake::Kind;
use queue::Queue;
use std::borrow::Cow;
use std::ffi::{CString, OsString};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Once, TryLockError};
use std::time::Duration;

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

/// How long a process that ends, or becomes another one, waits for lines to be taken.
const FAREWELL: Duration = Duration::from_millis(100);

struct State {
    // openlog(3) keeps the pointer, so the string must live until the next openlog.
    ident: Option<CString>,
    /// Copies go to standard error.
    copy: bool,
    /// Whose lines wait here: after a fork they are the parent's.
    pid: process::Pid,
    socket: daemon::Socket,
    daemon: Queue,
    stderr: Queue,
    brake: Brake,
}

static STATE: Mutex<State> = Mutex::new(State {
    ident: None,
    copy: false,
    pid: 0,
    socket: daemon::Socket::new(),
    daemon: Queue::new(),
    stderr: Queue::new(),
    brake: Brake::new(),
});
static MUTE: AtomicBool = AtomicBool::new(false);
/// When [`tend`] has something to do, on the monotonic clock.
static DUE: AtomicU64 = AtomicU64::new(u64::MAX);

/// Runs `action` on the state. It is held for a moment at most, also by threads of modules: a lock
/// that stays taken means that this is the handler of a crash inside of `action`, and nothing is
/// done.
fn with_state<R>(action: impl FnOnce(&mut State) -> R) -> Option<R> {
    for _ in 0..1000 {
        let mut guard = match STATE.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                std::thread::yield_now();
                continue;
            }
        };
        let pid = process::id();
        if guard.pid != pid {
            (guard.daemon, guard.stderr) = (Queue::new(), Queue::new());
            (guard.brake, guard.pid) = (Brake::new(), pid);
        }
        let result = action(&mut guard);
        DUE.store(guard.deadline(), Ordering::Relaxed);
        return Some(result);
    }
    None
}

impl State {
    fn reopen(&mut self, ident: &str) {
        let ident = CString::new(ident).unwrap_or_default();
        daemon::open_c_library(&ident, common_data::syslog_facility());
        // The former one is no longer used.
        self.ident = Some(ident);
        if daemon::is_ours() {
            self.socket.open();
        }
        static AT_EXIT: Once = Once::new();
        // SAFETY: the function takes nothing. The library that it is in is not unloaded before:
        // dlclose(3) calls it then, or never unloads.
        AT_EXIT.call_once(|| unsafe {
            libc::atexit(end);
        });
    }

    /// Writes one line to wherever lines go.
    fn write(&mut self, severity: Severity, text: &str, now: u64) {
        let text = printable(text);
        let priority = severity.0 | common_data::syslog_facility();
        if self.copy {
            self.write_stderr(copied(severity, &name(&self.ident), self.pid, &text), now);
        }
        if daemon::is_ours() {
            let line = daemon::line(priority, &name(&self.ident), self.pid, &text);
            self.feed_daemon(Some(line), now);
        } else {
            daemon::c_library(priority, &text);
        }
    }

    /// Gives the daemon a line, or what waits for it.
    fn feed_daemon(&mut self, line: Option<Vec<u8>>, now: u64) {
        let State { ident, pid, socket, daemon, .. } = self;
        let mut write = |bytes: &[u8]| socket.send(bytes);
        let note = |count| {
            let priority = common_data::syslog_level() & 7 | common_data::syslog_facility();
            daemon::line(priority, &name(ident), *pid, &dropped(count))
        };
        match line {
            Some(line) => daemon.push(line, now, &mut write, note),
            None => daemon.advance(now, &mut write, note),
        }
    }

    fn write_stderr(&mut self, bytes: Vec<u8>, now: u64) {
        if standard_error::never_waits() {
            self.feed_stderr(Some(bytes), now);
        } else {
            standard_error::write_all(&bytes);
        }
    }

    /// As [`feed_daemon`](Self::feed_daemon), for standard error.
    fn feed_stderr(&mut self, bytes: Option<Vec<u8>>, now: u64) {
        let State { ident, copy, pid, stderr, .. } = self;
        let mut write = standard_error::write;
        let note = |count| match copy {
            true => {
                let severity = Severity::of(common_data::syslog_level());
                copied(severity, &name(ident), *pid, &dropped(count))
            }
            false => format!("{pid}: {}\n", dropped(count)).into_bytes(),
        };
        match bytes {
            Some(bytes) => stderr.push(bytes, now, &mut write, note),
            None => stderr.advance(now, &mut write, note),
        }
    }

    /// Does what is due.
    fn tend(&mut self, now: u64) {
        while let Some(summary) = self.brake.release(now) {
            self.summarize(&summary, now);
        }
        let due = |queue: &Queue| queue.deadline().is_some_and(|deadline| deadline <= now);
        if due(&self.daemon) {
            self.feed_daemon(None, now);
        }
        if due(&self.stderr) {
            self.feed_stderr(None, now);
        }
    }

    fn summarize(&mut self, summary: &brake::Summary, now: u64) {
        if !MUTE.load(Ordering::Relaxed) {
            let severity = Severity::of(common_data::syslog_level());
            self.write(severity, &summary.to_string(), now);
        }
    }

    fn deadline(&self) -> u64 {
        let deadlines = [self.brake.deadline(), self.daemon.deadline(), self.stderr.deadline()];
        deadlines.into_iter().flatten().min().unwrap_or(u64::MAX)
    }
}

fn name(ident: &Option<CString>) -> Cow<'_, str> {
    ident.as_ref().map_or(Cow::Borrowed(""), |ident| ident.to_string_lossy())
}

/// A line for standard error.
fn copied(severity: Severity, ident: &str, pid: process::Pid, text: &str) -> Vec<u8> {
    format!("<{}>{ident}[{pid}]: {text}\n", severity.0).into_bytes()
}

fn dropped(count: u64) -> String {
    format!("{count} messages dropped")
}

/// Opens the log as `ident`, before the environment is looked at. With `copy` every message goes to standard error as well, in the
/// form of sd-daemon(3): `<SEVERITY>IDENT[PID]: TEXT`.
pub fn open(ident: &str, copy: bool) {
    let lost = std::env::var(LOST).ok().and_then(|lost| lost.parse().ok());
    std::env::remove_var(LOST);
    with_state(|state| {
        state.copy = copy;
        state.reopen(ident);
        if let Some(lost) = lost {
            state.daemon.begin_with(lost);
        }
    });
}

/// From now on standard error is not waited for either: the process serves, or is about to.
pub fn serve() {
    standard_error::never_wait();
}

/// True if the log daemon takes a stream, so that finding it again takes another socket of that kind.
pub fn takes_streams() -> bool {
    with_state(|state| state.socket.is_stream()).unwrap_or(false)
}

/// Standard error has become another file.
pub fn stderr_changed() {
    if standard_error::never_waits() {
        standard_error::open_again();
    }
}

/// Opens the log again, after its identity or facility have changed.
pub fn reopen_as(ident: &str) {
    with_state(|state| state.reopen(ident));
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
        let ident = name(&state.ident).into_owned();
        state.reopen(&ident);
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

/// Writes a message that somebody outside can cause: a client, a remote, a worker, a module. Too
/// many of one kind are counted instead, and their number is logged.
pub fn braked(kind: Kind, text: impl FnOnce() -> String) {
    let now = monotonic_clock();
    let passes = with_state(|state| {
        state.tend(now);
        state.brake.pass(kind, now)
    });
    if passes == Some(true) {
        message(&text());
    }
}

/// Says nothing any more: this process does what another one will do again, and say.
pub fn mute() {
    MUTE.store(true, Ordering::Relaxed);
}

/// Writes one message at a severity of its own.
pub fn message_at(severity: Severity, text: &str) {
    if !MUTE.load(Ordering::Relaxed) {
        with_state(|state| state.write(severity, text, monotonic_clock()));
    }
}

/// Writes what waits and says what was left out, if it is time. In how many milliseconds it will
/// be time again, if so. Costs next to nothing otherwise.
#[inline]
pub fn tend() -> Option<u64> {
    match DUE.load(Ordering::Relaxed) {
        u64::MAX => None,
        due => tend_until(due),
    }
}

#[cold]
fn tend_until(due: u64) -> Option<u64> {
    let now = monotonic_clock();
    if due <= now {
        with_state(|state| state.tend(now));
    }
    let due = DUE.load(Ordering::Relaxed);
    (due != u64::MAX).then(|| due.saturating_sub(now))
}

/// Waits until all lines are taken, but no longer than that. For a process that has nothing else to
/// do any more.
pub fn drain(limit: Duration) {
    let start = monotonic_clock();
    loop {
        let now = monotonic_clock();
        let waits = with_state(|state| {
            if state.daemon.waits() {
                state.feed_daemon(None, now);
            }
            if state.stderr.waits() {
                state.feed_stderr(None, now);
            }
            state.daemon.waits() || state.stderr.waits()
        });
        if waits != Some(true) || Duration::from_millis(now.saturating_sub(start)) >= limit {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// In the environment of the next image: how many messages for the daemon are missing.
const LOST: &str = "TCPRELAY_LOG_DROPPED";

/// The process becomes its next image by execve(2). What that is to have in its environment, if
/// messages are lost on the way.
pub(super) fn hand_over() -> Option<(OsString, OsString)> {
    end();
    let lost = with_state(|state| state.daemon.lost()).unwrap_or(0);
    (lost > 0).then(|| (LOST.into(), lost.to_string().into()))
}

/// As [`drain`], before this process becomes another program, or ends without exit(3).
pub fn farewell() {
    drain(FAREWELL);
}

/// The process ends, or this image of it: what was left out is said.
extern "C" fn end() {
    let now = monotonic_clock();
    with_state(|state| {
        while let Some(summary) = state.brake.end(now) {
            state.summarize(&summary, now);
        }
    });
    farewell();
}

/// Writes to standard error. A terminal or pipe that is gone must not end the program, as it
/// would with `eprintln!`.
pub fn stderr(text: &str) {
    stderr_bytes(text.as_bytes());
}

/// As [`stderr`], for what need not be text.
pub fn stderr_bytes(bytes: &[u8]) {
    if !MUTE.load(Ordering::Relaxed) {
        with_state(|state| state.write_stderr(bytes.to_vec(), monotonic_clock()));
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
