//! The relay's section, with the modules that it names.

use crate::config::common::Common;
use crate::config::environment::publish_name;
use crate::config::relay::{self, Relay};
use crate::config::report::Report;
use crate::config::source::Source;
use crate::config::{self, ReadError};
use crate::event::Loop;
use crate::mavis::queries::Queries;
use crate::mavis::search::{self, Modules};
use crate::os::log;
use crate::os::process::exit;

/// Reads a worker's section, and loads the modules that it names.
pub(super) fn read(
    source: &str,
    section: &str,
    report: &Report,
    events: &mut Loop,
) -> Result<(Relay, Common, Modules), ReadError> {
    let source =
        Source::open(source).map_err(|error| ReadError::Open { name: source.to_owned(), error })?;
    read_source(source, section, report, events)
}

/// As [`read`], of a source that is there.
pub(super) fn read_source(
    source: Source,
    section: &str,
    report: &Report,
    events: &mut Loop,
) -> Result<(Relay, Common, Modules), ReadError> {
    publish_name(&source.name);
    let mut modules = Modules::new(events.context());
    let read = events.lend(|| {
        config::read(source, section, report, |parser| {
            relay::parse(parser, &mut |parser| search::parse(parser, &mut modules))
        })
    });
    read.map(|(settings, common)| (settings, common, modules))
}

/// Starts the modules, if the settings want them to be asked. Otherwise nobody needs them. Fails, and
/// says so, if one of them cannot be started: who may connect is not left to the others.
pub(super) fn start_modules(
    settings: &Relay,
    modules: Modules,
    events: &mut Loop,
) -> Result<Option<Queries>, i32> {
    if settings.authorization.is_none() {
        return Ok(None);
    }
    let queries = Queries::start(modules.chain, modules.cancel, events);
    queries.map(Some).ok_or_else(|| {
        log::message("mavis: a module cannot be started. Exiting.");
        exit::CONFIGURATION
    })
}
