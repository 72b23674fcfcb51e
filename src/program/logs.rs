//! Where the log goes: what the configuration says, or what suits how the program was started.

use super::security::Refusal;
use crate::config::common::Common;
use crate::config::effect::Target;
use crate::os::process::exit;
use crate::os::{self, log};
use std::io;
use std::path::Path;

/// Where an ordinary start leads the log without a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usual {
    Daemon,
    /// In the foreground of a terminal, where nobody sees the log daemon's files.
    Terminal,
}

/// Leads the log to where the configuration wants it. The error names the place of the directive.
pub(super) fn lead(common: &Common, usual: Usual) -> Result<(), Refusal> {
    log::set_format(common.log_format);
    match (&common.log, usual) {
        (Some(Target::Syslog), _) | (None, Usual::Daemon) => log::use_daemon(),
        (Some(Target::StandardError), _) | (None, Usual::Terminal) => log::use_standard_error(),
        (Some(target @ Target::File(path, _)), _) => {
            log::use_file(Path::new(path)).map_err(|error| refusal(target, &error))?;
        }
    }
    Ok(())
}

/// As [`lead`], for a process that is not told where lines go by a broker of ours.
pub(super) fn lead_alone(common: &Common) -> Result<(), Refusal> {
    match log::is_told() {
        true => Ok(()),
        false => lead(common, Usual::Daemon),
    }
}

/// Finds out whether [`lead`] would succeed.
pub(super) fn check(common: &Common) -> Result<(), Refusal> {
    match &common.log {
        Some(target @ Target::File(path, _)) => {
            log::check_file(Path::new(path)).map_err(|error| refusal(target, &error))
        }
        _ => Ok(()),
    }
}

fn refusal(target: &Target, error: &io::Error) -> Refusal {
    let text = match target {
        Target::File(path, place) => format!("{place}: log file {path}: {}", os::reason(error)),
        Target::Syslog | Target::StandardError => os::reason(error),
    };
    Refusal { text, status: exit::CONFIGURATION }
}
