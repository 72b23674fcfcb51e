//! What a text does besides giving settings.

use super::{ConfigError, Position};
use crate::os::log::{Facility, Severity};

/// One thing that a text wants done or said. Parsing notes them in their order; whoever has parsed does
/// them in that order, so that a message comes under the name that `syslog ident` has given before it.
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
    /// Whether case matters to regular expressions: a bit for each open brace, the innermost lowest.
    /// Noted before C code reads on, which has flags that follow from it.
    Case(u64),
    /// Something to say that does not end the reading.
    Message(Severity, String),
    /// A mistake behind which reading went on.
    Mistake(ConfigError),
    /// A token (`-d 1`, `debug = PARSE`).
    Trace(String),
}

/// Where debug output goes.
#[derive(Clone, Debug)]
pub enum Target {
    /// To where all messages go.
    Syslog,
    /// To standard error.
    StandardError,
    /// To a file, which becomes standard error; with the place where it is named.
    File(String, Position),
}
