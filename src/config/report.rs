//! Where messages about the configuration go.

use super::{ConfigError, ReadError};
use crate::os::{common_data, log, process};

/// The debug bit of the token trace.
pub const DEBUG_PARSE: u32 = 1;

/// The last word about a configuration with mistakes.
const FATAL: &str = "Detected fatal configuration error. Exiting.";

/// What becomes of names that syslog does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownNames {
    /// A mistake.
    #[default]
    Refused,
    /// Reported and left aside: programs of others did not mind them so far.
    Ignored,
}

/// The options of the command line that decide where messages go.
#[derive(Debug, Default)]
pub struct Report {
    /// Says nothing: another process reads the same source and will.
    pub quiet: bool,
    /// `-P`: to standard error, with the process id.
    pub parse_only: bool,
    /// `-D`: errors and debug output to standard error even if it is no terminal.
    pub debug_to_stderr: bool,
    /// Standard error is a terminal.
    pub terminal: bool,
    /// Whether names that are not known are mistakes.
    pub unknown_names: UnknownNames,
}

impl Report {
    /// A message that does not end the parsing.
    pub fn message(&self, severity: log::Severity, text: &str) {
        if self.quiet {
            return;
        }
        if self.parse_only {
            log::stderr(&format!("{}: {text}\n", process::id()));
        } else {
            let prefix = if severity == log::Severity::ERROR { "Error " } else { "" };
            log::message_at(severity, &format!("{prefix}{text}"));
        }
    }

    /// The token trace (`-d 1`, `debug = PARSE`).
    pub fn trace(&self, text: impl FnOnce() -> String) {
        if self.quiet || common_data::debug() & DEBUG_PARSE == 0 {
            return;
        }
        if self.debug_to_stderr || self.terminal {
            log::stderr(&format!("{}: {}\n", process::id(), text()));
        } else {
            log::message_at(log::Severity::DEBUG, &text());
        }
    }

    /// A message of a program of others. `level` is a mask of debug bits, which may make it one of
    /// the trace.
    pub fn program_message(&self, priority: i32, level: u32, text: &str) {
        let traced = common_data::debug() & level != 0;
        let severity = log::Severity::of(priority);
        match traced {
            true if self.debug_to_stderr || self.terminal => {
                log::stderr(&format!("{}: {text}\n", process::id()));
            }
            true => {
                let prefix = if severity == log::Severity::ERROR { "Error " } else { "" };
                log::message_at(log::Severity::DEBUG, &format!("{prefix}{text}"));
            }
            false if severity == log::Severity::DEBUG => {}
            false => self.message(severity, text),
        }
    }

    /// The error that ended the parsing, and what follows it.
    pub fn failure(&self, error: &ReadError) {
        match error {
            ReadError::Open { name, error } => {
                let reason = crate::os::reason(error);
                self.message(log::Severity::ERROR, &format!("Couldn't open {name}: {reason}"));
                self.message(log::Severity::ERROR, "Exiting.");
            }
            ReadError::NoSection { position, section } => {
                let text = format!("{position}: FATAL: No configuration for id '{section}' found.");
                self.message(log::Severity::ERROR, &text);
            }
            ReadError::Syntax(error) => {
                self.syntax(error);
                self.message(log::Severity::ERROR, FATAL);
            }
            ReadError::Reported => self.message(log::Severity::ERROR, FATAL),
        }
    }

    /// A mistake in the text.
    pub fn syntax(&self, error: &ConfigError) {
        if self.debug_to_stderr {
            log::stderr(&format!("{}\n{error}\n", error.consumed()));
        } else if self.terminal {
            log::stderr(&format!("{}\n{error}\n", error.excerpt()));
        }
        self.message(log::Severity::ERROR, &error.to_string());
    }
}
