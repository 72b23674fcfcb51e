//! What the log of this process is at the moment: where lines go, and what waits to get there.

use super::brake::{self, Brake};
use super::daemon;
use super::file::LogFile;
use super::format::{self, Author, Field};
use super::queue::Queue;
use super::severity::Severity;
use super::{end, printable, standard_error};
use crate::os::{common_data, process};
use std::borrow::Cow;
use std::ffi::CString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Once, TryLockError};

/// Where lines go.
#[derive(Debug)]
pub(super) enum Destination {
    Daemon,
    /// The configuration is not read yet, and somebody sits at the terminal.
    DaemonAndTerminal,
    StandardError,
    File(LogFile),
}

pub(super) struct State {
    pub(super) destination: Destination,
    /// The file, for opening it again. Only the process that has opened it knows.
    pub(super) path: Option<PathBuf>,
    /// What this process is: see [`set_process`](super::set_process).
    pub(super) process: &'static str,
    /// The broker has said where lines go.
    pub(super) is_told: bool,
    // openlog(3) keeps the pointer, so the string must live until the next openlog.
    pub(super) ident: Option<CString>,
    /// Lines are copied to standard error.
    pub(super) copy: bool,
    /// The process that queued these lines. After a fork they are the parent's, and are discarded.
    pub(super) pid: process::Pid,
    pub(super) socket: daemon::Socket,
    pub(super) daemon: Queue,
    pub(super) stderr: Queue,
    pub(super) file: Queue,
    pub(super) brake: Brake,
    /// Told of errors.
    pub(super) keeper: Option<Keeper>,
}

pub(super) type Keeper = Box<dyn FnMut(&str) + Send>;

static STATE: Mutex<State> = Mutex::new(State {
    destination: Destination::Daemon,
    path: None,
    process: "",
    is_told: false,
    ident: None,
    copy: false,
    pid: 0,
    socket: daemon::Socket::new(),
    daemon: Queue::new(),
    stderr: Queue::new(),
    file: Queue::new(),
    brake: Brake::new(),
    keeper: None,
});

/// Lines are JSON.
pub(super) static JSON: AtomicBool = AtomicBool::new(false);

pub(super) static MUTE: AtomicBool = AtomicBool::new(false);

/// When [`tend`](super::tend) has work to do next, on the monotonic clock.
pub(super) static DUE: AtomicU64 = AtomicU64::new(u64::MAX);

/// Runs `action` on the state. The lock is only ever held for a moment, also by modules' threads.
/// If it stays taken, this is a crash handler that interrupted `action`: give up and do nothing.
pub(super) fn with_state<R>(action: impl FnOnce(&mut State) -> R) -> Option<R> {
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
            (guard.daemon, guard.stderr, guard.file) = (Queue::new(), Queue::new(), Queue::new());
            (guard.brake, guard.pid) = (Brake::new(), pid);
        }
        let result = action(&mut guard);
        DUE.store(guard.deadline(), Ordering::Relaxed);
        return Some(result);
    }
    None
}

impl State {
    pub(super) fn reopen(&mut self, ident: &str) {
        let ident = CString::new(ident).unwrap_or_default();
        daemon::open_c_library(&ident, common_data::syslog_facility());
        // The previous string is no longer in use.
        self.ident = Some(ident);
        if daemon::is_ours() {
            self.socket.open();
        }
        static AT_EXIT: Once = Once::new();
        // SAFETY: the function takes nothing. It is still loaded when it is called: dlclose(3)
        // calls it before unloading the library, or never unloads it.
        AT_EXIT.call_once(|| unsafe {
            libc::atexit(end);
        });
    }

    pub(super) fn author(&self) -> (Cow<'_, str>, process::Pid, &'static str) {
        (name(&self.ident), self.pid, self.process)
    }

    /// Writes one line to where lines go, and to standard error if copies go there.
    pub(super) fn write(&mut self, severity: Severity, text: &str, fields: &[Field], now: u64) {
        if self.copy {
            let line = copied(severity, &name(&self.ident), self.pid, &printable(text));
            self.write_stderr(line, now);
        }
        match self.destination {
            Destination::Daemon => self.write_daemon(severity, text, fields, now),
            Destination::DaemonAndTerminal => {
                self.write_daemon(severity, text, fields, now);
                if !self.copy {
                    self.write_stderr(line(self.author(), severity, text, fields), now);
                }
            }
            // The copy is the line.
            Destination::StandardError if self.copy => {}
            Destination::StandardError => {
                self.write_stderr(line(self.author(), severity, text, fields), now);
            }
            Destination::File(_) => {
                self.feed_file(Some(line(self.author(), severity, text, fields)), now);
            }
        }
    }

    pub(super) fn write_daemon(
        &mut self,
        severity: Severity,
        text: &str,
        fields: &[Field],
        now: u64,
    ) {
        let (ident, pid, process) = self.author();
        let text = match JSON.load(Ordering::Relaxed) {
            true => format::json(severity, Author { ident: &ident, pid, process }, text, fields),
            false => printable(text),
        };
        let priority = severity.0 | common_data::syslog_facility();
        if daemon::is_ours() {
            let line = daemon::line(priority, &ident, pid, &text);
            self.feed_daemon(Some(line), now);
        } else {
            daemon::c_library(priority, &text);
        }
    }

    /// Sends the daemon a line, or without one whatever is queued.
    pub(super) fn feed_daemon(&mut self, line: Option<Vec<u8>>, now: u64) {
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

    /// Like [`feed_daemon`](Self::feed_daemon), for the file.
    pub(super) fn feed_file(&mut self, bytes: Option<Vec<u8>>, now: u64) {
        let State { destination, ident, pid, process, file, .. } = self;
        let Destination::File(log) = destination else {
            return;
        };
        let mut write = |bytes: &[u8]| log.write(bytes);
        let note = |count| {
            let severity = Severity::of(common_data::syslog_level());
            line((name(ident), *pid, process), severity, &dropped(count), &[])
        };
        match bytes {
            Some(bytes) => file.push(bytes, now, &mut write, note),
            None => file.advance(now, &mut write, note),
        }
    }

    /// From now on, lines go there.
    pub(super) fn lead_to(&mut self, destination: Destination) {
        if !matches!(destination, Destination::File(_)) {
            self.file = Queue::new();
        }
        self.destination = destination;
    }

    pub(super) fn write_stderr(&mut self, bytes: Vec<u8>, now: u64) {
        if standard_error::never_waits() {
            self.feed_stderr(Some(bytes), now);
        } else {
            standard_error::write_all(&bytes);
        }
    }

    /// Like [`feed_daemon`](Self::feed_daemon), for standard error.
    pub(super) fn feed_stderr(&mut self, bytes: Option<Vec<u8>>, now: u64) {
        let State { destination, ident, copy, pid, process, stderr, .. } = self;
        let mut write = standard_error::write;
        let severity = Severity::of(common_data::syslog_level());
        let note = |count| match (copy, destination) {
            (true, _) => copied(severity, &name(ident), *pid, &dropped(count)),
            (_, Destination::StandardError) => {
                line((name(ident), *pid, process), severity, &dropped(count), &[])
            }
            _ => format!("{pid}: {}\n", dropped(count)).into_bytes(),
        };
        match bytes {
            Some(bytes) => stderr.push(bytes, now, &mut write, note),
            None => stderr.advance(now, &mut write, note),
        }
    }

    /// Does whatever is due.
    pub(super) fn tend(&mut self, now: u64) {
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
        if due(&self.file) {
            self.feed_file(None, now);
        }
    }

    pub(super) fn summarize(&mut self, summary: &brake::Summary, now: u64) {
        if !MUTE.load(Ordering::Relaxed) {
            let severity = Severity::of(common_data::syslog_level());
            self.write(severity, &summary.to_string(), &[], now);
        }
    }

    pub(super) fn deadline(&self) -> u64 {
        let queues = [&self.daemon, &self.stderr, &self.file].map(Queue::deadline);
        queues.into_iter().chain([self.brake.deadline()]).flatten().min().unwrap_or(u64::MAX)
    }
}

pub(super) fn name(ident: &Option<CString>) -> Cow<'_, str> {
    ident.as_ref().map_or(Cow::Borrowed(""), |ident| ident.to_string_lossy())
}

/// A line for a file or standard error.
pub(super) fn line(
    (ident, pid, process): (Cow<'_, str>, process::Pid, &str),
    severity: Severity,
    text: &str,
    fields: &[Field],
) -> Vec<u8> {
    let author = Author { ident: &ident, pid, process };
    let mut line = match JSON.load(Ordering::Relaxed) {
        true => format::json(severity, author, text, fields),
        false => format::text(severity, author, &printable(text)),
    };
    line.push('\n');
    line.into_bytes()
}

/// Formats a copy for standard error.
pub(super) fn copied(severity: Severity, ident: &str, pid: process::Pid, text: &str) -> Vec<u8> {
    format!("<{}>{ident}[{pid}]: {text}\n", severity.0).into_bytes()
}

pub(super) fn dropped(count: u64) -> String {
    format!("{count} messages dropped")
}
