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
mod severity;
mod standard_error;
mod state;

use super::{common_data, descriptor, entry, monotonic_clock};
pub use brake::Kind;
use file::LogFile;
pub use format::{string as json_string, Field, Format, Value};
pub use severity::{Facility, Severity};
use state::{name, with_state, Destination, DUE, JSON, MUTE};
use std::ffi::OsString;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a process that ends, or executes another image, waits for the queue to empty.
const FAREWELL: Duration = Duration::from_millis(100);

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
