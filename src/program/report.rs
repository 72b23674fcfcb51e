//! What a configuration says and does: where messages about it go, and its effects on this process.

use crate::config::effect::{Effect, Target};
use crate::config::rules::{Rules, UnknownNames};
use crate::config::{ConfigError, ReadError};
use crate::os::regex::{posix_ignore_case, PCRE_CASELESS_UTF};
use crate::os::{common_data, log, process};
use std::path::Path;

/// The last message about a configuration with mistakes.
const FATAL: &str = "Detected fatal configuration error. Exiting.";

/// The command-line options that decide where messages go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// `-P`: messages go to standard error, with the process id.
    pub parse_only: bool,
    /// `-D`: errors and debug output go to standard error even if it is no terminal.
    pub debug_to_stderr: bool,
    /// Standard error is a terminal.
    pub terminal: bool,
    /// Whether unknown names are mistakes.
    pub unknown_names: UnknownNames,
}

impl Report {
    /// The rules for reading a configuration in this process, as it is now.
    pub fn rules(&self) -> Rules {
        let Report { parse_only, unknown_names, .. } = *self;
        Rules { parse_only, unknown_names, debug: common_data::debug() }
    }

    /// Reports something that does not end the parsing.
    pub fn message(&self, severity: log::Severity, text: &str) {
        if self.parse_only {
            log::stderr(&format!("{}: {text}\n", process::id()));
        } else {
            let prefix = if severity == log::Severity::ERROR { "Error " } else { "" };
            log::message_at(severity, &format!("{prefix}{text}"));
        }
    }

    /// A message of another program that uses the library. `level` is a mask of debug bits; if one
    /// of them is set for this process, the message is debug output.
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

    /// Reports the error that ended the parsing.
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

    /// Reports a mistake in the text.
    pub fn syntax(&self, error: &ConfigError) {
        if self.debug_to_stderr {
            log::stderr(&format!("{}\n{error}\n", error.consumed()));
        } else if self.terminal {
            log::stderr(&format!("{}\n{error}\n", error.excerpt()));
        }
        self.message(log::Severity::ERROR, &error.to_string());
    }

    /// Applies the effects of a text in their order. True if the text directs debug output to
    /// standard error or a file: standard error must then stay as it is in the background.
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
                common_data::debug_to_log();
                return false;
            }
            Target::StandardError => {}
            Target::File(path, place) => {
                // Not fatal: workers may not be allowed to write where the broker may.
                if let Err(error) = process::redirect_stderr(Path::new(&path)) {
                    let reason = crate::os::reason(&error);
                    let text = format!("{place}: Couldn't open {path}: {reason}");
                    self.message(log::Severity::ERROR, &text);
                    return false;
                }
            }
        }
        common_data::debug_to_stderr();
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

/// Tells modules the name of the configuration and its directory.
pub fn publish_name(name: &str, directory: &str) {
    common_data::set_configuration_file(name);
    // C code forms the paths below it with a slash.
    common_data::set_configuration_directory(match directory.trim_end_matches('/') {
        "" => "/",
        "." => "./",
        trimmed => trimmed,
    });
}
