//! The log: lines for the log daemon, standard error or a file (`log`).
//!
//! A process has one log. Its identity, facility and severity are set by the `syslog` directives as
//! they are read, and shared with modules (`common_data`).
//!
//! Logging never waits for the reader. Lines that are not taken at once go to a bounded queue,
//! which the event loop [tends](tend). Lines that do not fit are counted, and the count is logged
//! when there is room again. Lines that outsiders can trigger at will go through [`braked`].

mod brake;
mod daemon;
mod file;
mod format;
mod queue;
mod standard_error;

use super::{common_data, descriptor, entry, monotonic_clock, process};
use brake::Brake;
pub use brake::Kind;
use file::LogFile;
use format::Author;
pub use format::{string as json_string, Field, Format, Value};
use queue::Queue;
use std::borrow::Cow;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};
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

    /// The number in syslog.h.
    pub fn number(self) -> i32 {
        self.0
    }

    /// The severity with this number in syslog.h.
    pub fn of(number: i32) -> Severity {
        Severity(number & 7)
    }

    /// The name, as the log has it.
    pub fn name(self) -> &'static str {
        const NAMES: [&str; 8] =
            ["emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"];
        NAMES[(self.0 & 7) as usize]
    }

    /// By name, case-insensitive.
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
    /// The number in syslog.h.
    pub fn number(self) -> i32 {
        self.0
    }

    /// By name, case-insensitive.
    pub fn parse(name: &str) -> Option<Facility> {
        // Solaris does not define LOG_AUTHPRIV and LOG_FTP; these are the usual numbers.
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

/// How long a process that ends, or executes another image, waits for the queue to empty.
const FAREWELL: Duration = Duration::from_millis(100);

/// Where lines go.
#[derive(Debug)]
enum Destination {
    Daemon,
    /// The configuration is not read yet, and somebody sits at the terminal.
    DaemonAndTerminal,
    StandardError,
    File(LogFile),
}

struct State {
    destination: Destination,
    /// The file, for opening it again. Only the process that has opened it knows.
    path: Option<PathBuf>,
    /// What this process is: see [`set_process`].
    process: &'static str,
    /// The broker has said where lines go.
    is_told: bool,
    // openlog(3) keeps the pointer, so the string must live until the next openlog.
    ident: Option<CString>,
    /// Lines are copied to standard error.
    copy: bool,
    /// The process that queued these lines. After a fork they are the parent's, and are discarded.
    pid: process::Pid,
    socket: daemon::Socket,
    daemon: Queue,
    stderr: Queue,
    file: Queue,
    brake: Brake,
    /// Told of errors.
    keeper: Option<Keeper>,
}

type Keeper = Box<dyn FnMut(&str) + Send>;

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
static JSON: AtomicBool = AtomicBool::new(false);
static MUTE: AtomicBool = AtomicBool::new(false);
/// When [`tend`] has work to do next, on the monotonic clock.
static DUE: AtomicU64 = AtomicU64::new(u64::MAX);

/// Runs `action` on the state. The lock is only ever held for a moment, also by modules' threads.
/// If it stays taken, this is a crash handler that interrupted `action`: give up and do nothing.
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
    fn reopen(&mut self, ident: &str) {
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

    fn author(&self) -> (Cow<'_, str>, process::Pid, &'static str) {
        (name(&self.ident), self.pid, self.process)
    }

    /// Writes one line to where lines go, and to standard error if copies go there.
    fn write(&mut self, severity: Severity, text: &str, fields: &[Field], now: u64) {
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

    fn write_daemon(&mut self, severity: Severity, text: &str, fields: &[Field], now: u64) {
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

    /// Like [`feed_daemon`](Self::feed_daemon), for the file.
    fn feed_file(&mut self, bytes: Option<Vec<u8>>, now: u64) {
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
    fn lead_to(&mut self, destination: Destination) {
        if !matches!(destination, Destination::File(_)) {
            self.file = Queue::new();
        }
        self.destination = destination;
    }

    fn write_stderr(&mut self, bytes: Vec<u8>, now: u64) {
        if standard_error::never_waits() {
            self.feed_stderr(Some(bytes), now);
        } else {
            standard_error::write_all(&bytes);
        }
    }

    /// Like [`feed_daemon`](Self::feed_daemon), for standard error.
    fn feed_stderr(&mut self, bytes: Option<Vec<u8>>, now: u64) {
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
        if due(&self.file) {
            self.feed_file(None, now);
        }
    }

    fn summarize(&mut self, summary: &brake::Summary, now: u64) {
        if !MUTE.load(Ordering::Relaxed) {
            let severity = Severity::of(common_data::syslog_level());
            self.write(severity, &summary.to_string(), &[], now);
        }
    }

    fn deadline(&self) -> u64 {
        let queues = [&self.daemon, &self.stderr, &self.file].map(Queue::deadline);
        queues.into_iter().chain([self.brake.deadline()]).flatten().min().unwrap_or(u64::MAX)
    }
}

fn name(ident: &Option<CString>) -> Cow<'_, str> {
    ident.as_ref().map_or(Cow::Borrowed(""), |ident| ident.to_string_lossy())
}

/// A line for a file or standard error.
fn line(
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
fn copied(severity: Severity, ident: &str, pid: process::Pid, text: &str) -> Vec<u8> {
    format!("<{}>{ident}[{pid}]: {text}\n", severity.0).into_bytes()
}

fn dropped(count: u64) -> String {
    format!("{count} messages dropped")
}

/// Opens the log as `ident`. Takes TCPRELAY_LOG_DROPPED out of the environment, so call it before
/// anything else reads that. With `copy` every message also goes to standard error, in the form of
/// sd-daemon(3): `<SEVERITY>IDENT[PID]: TEXT`.
pub fn open(ident: &str, copy: bool) {
    let lost = std::env::var(LOST).ok().and_then(|lost| lost.parse().ok());
    std::env::remove_var(LOST);
    let told = std::env::var(TOLD).ok();
    std::env::remove_var(TOLD);
    let told = told.and_then(|told| {
        let (format, place) = told.split_once(' ')?;
        let destination = match place.split_once(' ') {
            Some(("file", number)) => {
                let fd = descriptor::adopt(number.parse().ok().filter(|&number| number > 2)?);
                let fd = fd.ok()?;
                descriptor::close_on_exec(&fd).ok()?;
                Destination::File(LogFile::new(fd))
            }
            _ if place == "stderr" => Destination::StandardError,
            _ => Destination::Daemon,
        };
        JSON.store(format == "json", Ordering::Relaxed);
        Some(destination)
    });
    with_state(|state| {
        state.copy = copy;
        if let Some(destination) = told {
            (state.destination, state.is_told) = (destination, true);
        }
        state.reopen(ident);
        if let Some(lost) = lost {
            match state.destination {
                Destination::File(_) => state.file.begin_with(lost),
                _ => state.daemon.begin_with(lost),
            }
        }
    });
}

/// The environment variable that tells other processes of this relay, and the next image, where
/// lines go: the format, then `syslog`, `stderr`, or `file` and a descriptor.
const TOLD: &str = "TCPRELAY_LOG";

/// What this process is, for the lines: `broker`, `worker` and so on.
pub fn set_process(process: &'static str) {
    with_state(|state| state.process = process);
}

/// Until [`use_daemon`] and its like say more, somebody at a terminal reads every line as well.
pub fn show_on_terminal() {
    with_state(|state| {
        if matches!(state.destination, Destination::Daemon) && !state.is_told {
            state.destination = Destination::DaemonAndTerminal;
        }
    });
}

/// True if the broker, or the former image, has said where lines go.
pub fn is_told() -> bool {
    with_state(|state| state.is_told).unwrap_or(false)
}

/// `log format`.
pub fn set_format(format: Format) {
    JSON.store(format == Format::Json, Ordering::Relaxed);
}

/// `log = syslog`.
pub fn use_daemon() {
    with_state(|state| state.lead_to(Destination::Daemon));
}

/// `log = stderr`.
pub fn use_standard_error() {
    with_state(|state| state.lead_to(Destination::StandardError));
}

/// `log = file`: appends to it, and creates it if it does not exist.
pub fn use_file(path: &Path) -> io::Result<()> {
    let file = entry::open_to_append(path)?;
    with_state(|state| {
        state.lead_to(Destination::File(LogFile::new(file.into())));
        state.path = Some(path.to_owned());
    });
    Ok(())
}

/// True if [`use_file`] would find the file, or could create it; it does not.
pub fn check_file(path: &Path) -> io::Result<()> {
    match entry::open_existing_to_append(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            std::fs::metadata(directory.unwrap_or(Path::new("."))).map(drop)
        }
        result => result.map(drop),
    }
}

/// Opens the log file by its name again, after it was renamed. If that is impossible, lines go on
/// to the former file. False if lines do not go to a file that this process has opened.
pub fn open_file_again() -> io::Result<bool> {
    let path = with_state(|state| match state.destination {
        Destination::File(_) => state.path.clone(),
        _ => None,
    });
    let Some(path) = path.flatten() else {
        return Ok(false);
    };
    use_file(&path).map(|()| true)
}

/// The broker has opened the log file again: lines go to this descriptor of it from now on.
pub fn replace_file(fd: OwnedFd) {
    with_state(|state| {
        if matches!(state.destination, Destination::File(_)) {
            state.lead_to(Destination::File(LogFile::new(fd)));
        }
    });
}

/// The descriptor of the log file, for other processes of this relay.
pub fn descriptor() -> Option<RawFd> {
    with_state(|state| match &state.destination {
        Destination::File(file) => Some(file.number()),
        _ => None,
    })
    .flatten()
}

/// A copy of the descriptor of the log file.
pub fn copy_of_file() -> Option<OwnedFd> {
    with_state(|state| match &state.destination {
        Destination::File(file) => file.descriptor().try_clone_to_owned().ok(),
        _ => None,
    })
    .flatten()
}

/// Tells programs that are started from now on where lines go. They need the [`descriptor()`].
pub fn publish() {
    let (name, value) = told();
    std::env::set_var(name, value);
}

fn told() -> (OsString, OsString) {
    let format = if JSON.load(Ordering::Relaxed) { "json" } else { "text" };
    let place = with_state(|state| match &state.destination {
        Destination::Daemon | Destination::DaemonAndTerminal => "syslog".to_owned(),
        Destination::StandardError => "stderr".to_owned(),
        Destination::File(file) => format!("file {}", file.number()),
    });
    (TOLD.into(), format!("{format} {}", place.unwrap_or_default()).into())
}

/// From now on the process serves, so writing to standard error must not block either.
pub fn serve() {
    standard_error::never_wait();
}

/// True if the log daemon's socket is a stream; reconnecting to it takes another stream socket.
pub fn takes_streams() -> bool {
    with_state(|state| state.socket.is_stream()).unwrap_or(false)
}

/// Call when descriptor 2 has been replaced by another file.
pub fn stderr_changed() {
    if standard_error::never_waits() {
        standard_error::open_again();
    }
}

/// Reopens the log after its identity or facility has changed.
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

/// `syslog severity`: the severity of ordinary messages.
pub fn set_severity(severity: Severity) {
    common_data::set_syslog_level(severity.0);
}

/// Writes one message at the configured severity. Control characters are replaced by `?`.
pub fn message(text: &str) {
    message_at(Severity::of(common_data::syslog_level()), text);
}

/// Writes a message that an outsider can trigger: a client, a remote, a worker, a module. If there
/// are too many of a kind, they are only counted, and the count is logged.
pub fn braked(kind: Kind, text: impl FnOnce() -> String) {
    let now = monotonic_clock();
    let passes = with_state(|state| {
        state.tend(now);
        state.brake.pass(kind, now)
    });
    if passes == Some(true) {
        let text = text();
        write(Severity::of(common_data::syslog_level()), &text);
        error(&text);
    }
}

/// From now on `keep` is told of all errors that are logged: of messages that an outsider can
/// trigger, and of those at the severity of errors. It must not log.
pub fn keep_errors(keep: impl FnMut(&str) + Send + 'static) {
    with_state(|state| state.keeper = Some(Box::new(keep)));
}

fn error(text: &str) {
    if !MUTE.load(Ordering::Relaxed) {
        with_state(|state| state.keeper.as_mut().map(|keep| keep(text)));
    }
}

/// Silences the log. For a process whose work another process repeats, and logs.
pub fn mute() {
    MUTE.store(true, Ordering::Relaxed);
}

fn write(severity: Severity, text: &str) {
    if !MUTE.load(Ordering::Relaxed) {
        with_state(|state| state.write(severity, text, &[], monotonic_clock()));
    }
}

/// Writes one message that consists of parts: `fields`, if lines are objects, otherwise `text`.
pub fn record(message: &str, text: impl FnOnce() -> String, fields: impl FnOnce() -> Vec<Field>) {
    if !JSON.load(Ordering::Relaxed) {
        return self::message(&text());
    }
    let fields = fields();
    if !MUTE.load(Ordering::Relaxed) {
        let severity = Severity::of(common_data::syslog_level());
        with_state(|state| state.write(severity, message, &fields, monotonic_clock()));
    }
}

/// Writes one message at the given severity.
pub fn message_at(severity: Severity, text: &str) {
    write(severity, text);
    if severity <= Severity::ERROR {
        error(text);
    }
}

/// Writes what is queued, and logs the counts of what was left out, if that is due. Returns in how
/// many milliseconds there is more to do, if there is. Costs next to nothing otherwise.
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

/// Waits until all lines are taken, but at most for `limit`. For a process that has nothing else
/// left to do.
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
            if state.file.waits() {
                state.feed_file(None, now);
            }
            state.daemon.waits() || state.stderr.waits() || state.file.waits()
        });
        if waits != Some(true) || Duration::from_millis(now.saturating_sub(start)) >= limit {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Environment variable for the next image: how many messages never reached the daemon.
const LOST: &str = "TCPRELAY_LOG_DROPPED";

/// Call before execve(2) of the next image. Returns environment variables for it: where lines go,
/// and, if messages are lost on the way, how many. It needs the [`descriptor`].
pub(super) fn hand_over() -> Vec<(OsString, OsString)> {
    end();
    let lost = with_state(|state| state.daemon.lost() + state.file.lost()).unwrap_or(0);
    let lost = (lost > 0).then(|| (LOST.into(), lost.to_string().into()));
    lost.into_iter().chain([told()]).collect()
}

/// Like [`drain`], before this process executes another program or ends without exit(3).
pub fn farewell() {
    drain(FAREWELL);
}

/// Runs when this process or image ends: logs the counts of what was left out.
extern "C" fn end() {
    let now = monotonic_clock();
    with_state(|state| {
        while let Some(summary) = state.brake.end(now) {
            state.summarize(&summary, now);
        }
    });
    farewell();
}

/// Writes to standard error. Unlike `eprintln!`, it does not end the program when the terminal or
/// pipe is gone.
pub fn stderr(text: &str) {
    stderr_bytes(text.as_bytes());
}

/// Like [`stderr`], for bytes that need not be text.
pub fn stderr_bytes(bytes: &[u8]) {
    if !MUTE.load(Ordering::Relaxed) {
        with_state(|state| state.write_stderr(bytes.to_vec(), monotonic_clock()));
    }
}

/// Clients and files can put anything into a message; the log must get one printable line.
fn printable(text: &str) -> String {
    if text.chars().any(char::is_control) {
        text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
    } else {
        text.to_owned()
    }
}
