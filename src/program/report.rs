//! What a configuration says and does: where messages about it go, and its effects on this process.

use crate::config::effect::{Effect, Target};
use crate::config::rules::{Rules, UnknownNames};
use crate::config::{ConfigError, ReadError};
use crate::os::regex::{posix_ignore_case, PCRE_CASELESS_UTF};
use crate::os::{common_data, log, process};
use std::path::Path;

/// The last word about a configuration with mistakes.
const FATAL: &str = "Detected fatal configuration error. Exiting.";

/// The options of the command line that decide where messages go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
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
    /// How a configuration is read in this process, as it is now.
    pub fn rules(&self) -> Rules {
        let Report { parse_only, unknown_names, .. } = *self;
        Rules { parse_only, unknown_names, debug: common_data::debug() }
    }

    /// A message that does not end the parsing.
    pub fn message(&self, severity: log::Severity, text: &str) {
        if self.parse_only {
            log::stderr(&format!("{}: {text}\n", process::id()));
        } else {
            let prefix = if severity == log::Severity::ERROR { "Error " } else { "" };
            log::message_at(severity, &format!("{prefix}{text}"));
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

    fn trace(&self, text: &str) {
        if self.debug_to_stderr || self.terminal {
            log::stderr(&format!("{}: {text}\n", process::id()));
        } else {
            log::message_at(log::Severity::DEBUG, text);
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

    /// Does what a text wants done, in its order. True if it has said where standard error goes, so that
    /// it must stay there in the background.
    pub fn apply(&self, effects: Vec<Effect>) -> bool {
        let mut keeps_stderr = false;
        for effect in effects {
            match effect {
                Effect::SetVariable(name, value) => std::env::set_var(name, value),
                Effect::UnsetVariable(name) => std::env::remove_var(name),
                Effect::Debug(mask) => common_data::set_debug(mask),
                Effect::DebugTo(target) => keeps_stderr |= self.redirect(target),
                Effect::Ident(ident) => log::set_ident(&ident),
                Effect::Severity(severity) => log::set_severity(severity),
                Effect::Facility(facility) => log::set_facility(facility),
                Effect::SyslogDefault(on) => common_data::set_syslog_default(on.into()),
                Effect::SyslogFilter(mask) => common_data::set_syslog_filter(mask),
                Effect::CleanupInterval(seconds) => common_data::set_cleanup_interval(seconds),
                Effect::Case(stack) => publish_case(stack),
                Effect::Message(severity, text) => self.message(severity, &text),
                Effect::Mistake(error) => self.syntax(&error),
                Effect::Trace(text) => self.trace(&text),
            }
        }
        keeps_stderr
    }

    fn redirect(&self, target: Target) -> bool {
        match target {
            Target::Syslog => {
                common_data::redirect_debug(false);
                return false;
            }
            Target::StandardError => {}
            Target::File(path, place) => {
                // Workers may not be allowed to write where the broker may.
                if let Err(error) = process::redirect_stderr(Path::new(&path)) {
                    let reason = crate::os::reason(&error);
                    let text = format!("{place}: Couldn't open {path}: {reason}");
                    self.message(log::Severity::ERROR, &text);
                    return false;
                }
            }
        }
        common_data::redirect_debug(true);
        true
    }
}

/// Sets the flags for regular expressions that C code compiles.
pub fn publish_case(stack: u64) {
    common_data::set_case_stack(stack);
    let ignored = stack & 1 != 0;
    common_data::set_pcre_flags(if ignored { PCRE_CASELESS_UTF } else { 0 });
    common_data::set_posix_flags(if ignored { posix_ignore_case() } else { 0 });
}

/// Tells modules what configuration this is, and in which folder.
pub fn publish_name(name: &str, directory: &str) {
    common_data::set_configuration_file(name);
    // The paths below it are made with a slash.
    common_data::set_configuration_directory(match directory.trim_end_matches('/') {
        "" => "/",
        "." => "./",
        trimmed => trimmed,
    });
}
