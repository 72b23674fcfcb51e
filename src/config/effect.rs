//! What a configuration does apart from settings: logging, environment variables, messages.

use super::{ConfigError, Position};
use crate::os::log::{Facility, Severity};

/// One side effect or message of a configuration. The parser records them in order and its caller
/// applies them in that order, so that a message is logged under the name that an earlier `syslog
/// ident` has set.
#[derive(Clone, Debug)]
pub enum Effect {
    /// `setenv`
    SetVariable(String, String),
    /// `unsetenv`
    UnsetVariable(String),
    /// `debug = …`: the whole mask.
    Debug(u32),
    /// `debug redirect`
    DebugTo(Target),
    /// `syslog ident`
    Ident(String),
    /// `syslog severity`
    Severity(Severity),
    /// `syslog facility`
    Facility(Facility),
    /// `syslog default`
    SyslogDefault(bool),
    /// `syslog filter`
    SyslogFilter(u32),
    /// `cleanup interval`, in seconds.
    CleanupInterval(u64),
    /// Whether regular expressions ignore case: a bit for each open brace, the innermost lowest.
    /// Recorded before C code reads on, because its regex flags follow from it.
    Case(u64),
    /// A message to log; reading goes on.
    Message(Severity, String),
    /// A mistake that reading skipped, to find more of them.
    Mistake(ConfigError),
    /// A token, for the trace (`-d 1`, `debug = PARSE`).
    Trace(String),
}

/// Where debug output goes.
#[derive(Clone, Debug)]
pub enum Target {
    /// Where all messages go.
    Syslog,
    /// Standard error.
    StandardError,
    /// A file, which replaces standard error; with the place where the configuration names it.
    File(String, Position),
}
