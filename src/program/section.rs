//! The relay's section, with the modules that it names.

use super::report::publish_name;
use super::system::Live;
use crate::config::common::Common;
use crate::config::environment::directory;
use crate::config::relay::{self, Relay};
use crate::config::source::Source;
use crate::config::{self, ReadError};
use crate::event::Loop;
use crate::mavis::queries::Queries;
use crate::mavis::search::{self, Modules};
use crate::os::process::exit;
use crate::os::{log, names};
use std::rc::Rc;

/// Opens a configuration source.
pub(super) fn open(name: &str, system: &Live) -> Result<Source, ReadError> {
    config::system::open(name, system)
        .map_err(|error| ReadError::Open { name: name.to_owned(), error })
}

/// Reads a worker's section, and loads the modules that it names.
pub(super) fn read(
    source: &str,
    section: &str,
    system: &Rc<Live>,
    events: &mut Loop,
) -> Result<(Relay, Common, Modules), ReadError> {
    let source = open(source, system)?;
    publish_name(&source.name, &directory(&source.name, &**system));
    let mut modules = Modules::new(events.context());
    let reading = events.lend(|| {
        config::read(source, section, system.report.rules(), system.clone(), |parser| {
            relay::parse(parser, &mut |parser| search::parse(parser, &mut modules))
        })
    });
    let (section, common) = system.settle(reading)?;
    Ok((section.resolve(&mut names::resolve)?, common, modules))
}

/// Reads a worker's section only to learn which files and remotes it names: no effect is applied,
/// nothing is logged, and no module is loaded. `None` if there are mistakes, which the worker will
/// report.
pub(super) fn examine(source: Source, section: &str, system: &Rc<Live>) -> Option<Relay> {
    let rules = config::rules::Rules { parse_only: false, debug: 0, ..system.report.rules() };
    let reading = config::read(source, section, rules, system.clone(), |parser| {
        relay::parse(parser, &mut relay::skip_modules)
    });
    let (section, _) = reading.result.ok()?;
    section.resolve(&mut names::resolve).ok()
}

/// Starts the modules, if the settings have them asked; otherwise they are not needed. If a module
/// cannot be started that is logged, and the worker must not start: the other modules alone must
/// not decide who may connect.
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
