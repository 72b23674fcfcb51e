//! Start of a worker process.

use super::options::{self, Options};
use super::{Kind, Process};
use crate::config::report::Report;
use crate::config::source::Source;
use crate::config::{self, ReadError};
use crate::os::process::{self, exit};
use crate::os::{self, channel, log};
use crate::relay::engine::Engine;
use crate::relay::worker::Worker;
use crate::spawnd::protocol::FromWorker;
use std::os::fd::{AsFd, OwnedFd};

/// The main function of a process whose descriptor 0 is a channel.
pub(super) fn main(process: &Process) -> i32 {
    let options = match process.options(options::WORKER) {
        Ok(options) => options,
        Err(status) => return status,
    };
    if options.version {
        process.print_version();
        return 0;
    }
    if process.kind == Kind::Spawnd {
        log::message("FATAL: Recursive execution prohibited.");
        bad_configuration();
        return exit::CONFIGURATION;
    }
    match run(process, &options) {
        Ok(status) | Err(status) => status,
    }
}

fn run(process: &Process, options: &Options) -> Result<i32, i32> {
    let report = process.report(options);
    let section = options.arguments.get(1).unwrap_or(&process.name);
    let (settings, common) = read(&options.arguments[0], section, &report).map_err(|error| {
        report.failure(&error);
        if !options.parse_only && !matches!(error, ReadError::Open { .. }) {
            bad_configuration();
        }
        error.exit_status()
    })?;
    if options.parse_only {
        return Ok(0);
    }
    process::set_umask(0o022);
    if settings.remotes.is_empty() {
        log::message("No remote services defined! Exiting.");
        bad_configuration();
        return Err(exit::USAGE);
    }
    log::message(&format!("startup (version {})", super::version()));
    process::new_session();
    let os_error = |error: std::io::Error| {
        log::message(&os::reason(&error));
        exit::OS_ERROR
    };
    let _ = process::redirect_to_null(1);
    let channel: OwnedFd = process::take_standard_input().map_err(os_error)?;
    super::install_crash_handler(&common);
    let (mut events, limit) = super::make_loop()?;
    let retire_limit = settings.retire_limit;
    let engine = Engine::new(settings);
    let mut worker =
        Worker::start(&process.name, engine, retire_limit, channel, limit, &mut events)
            .map_err(os_error)?;
    Ok(worker.run(&mut events))
}

/// Reads a worker's section.
pub(super) fn read(
    source: &str,
    section: &str,
    report: &Report,
) -> Result<(config::relay::Relay, config::common::Common), ReadError> {
    let source =
        Source::open(source).map_err(|error| ReadError::Open { name: source.to_owned(), error })?;
    config::read(source, section, report, config::relay::parse)
}

/// Tells the broker that starting again will not help.
fn bad_configuration() {
    let message = FromWorker::BadConfiguration.encode();
    // A broker that does not hear it sees the process end.
    let _ = channel::send(std::io::stdin().as_fd(), &message, None);
}
