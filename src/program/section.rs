//! The sections of the configuration: the broker's, and the relay's with the modules that it names.

use super::options::Options;
use super::report::publish_name;
use super::system::Live;
use super::{Kind, Process};
use crate::broker::addresses;
use crate::config::broker::{self, Broker};
use crate::config::common::Common;
use crate::config::environment::directory;
use crate::config::relay::names::{self as config_names, Place, Question, Start};
use crate::config::relay::{self, Relay, Section};
use crate::config::source::Source;
use crate::config::{self, ReadError};
use crate::event::Loop;
use crate::mavis::queries::Queries;
use crate::mavis::search::{self, Modules};
use crate::monitor::lookup::{look_up_now, Wanted};
use crate::os::address::Address;
use crate::os::process::exit;
use crate::os::{log, names, signals};
use crate::upstream::names::{identity, Answer, MOST};
use crate::upstream::zone::Zone;
use std::io;
use std::rc::Rc;

/// Opens a configuration source.
pub(super) fn open(name: &str, system: &Live) -> Result<Source, ReadError> {
    config::system::open(name, system)
        .map_err(|error| ReadError::Open { name: name.to_owned(), error })
}

/// Reads the source, and the broker's section in it. `fetches`: a source that is a URL is fetched
/// while a service is running. `wrong` gets what could be read of a section with mistakes.
pub(super) fn read_broker(
    process: &Process,
    options: &Options,
    system: &Rc<Live>,
    fetches: bool,
    wrong: &mut Option<Broker>,
) -> Result<(Vec<u8>, Broker, Common), ReadError> {
    let name = &options.arguments[0];
    if fetches && name.contains("://") {
        // A slow server must not keep the user from ending the program.
        signals::unblock_end();
    }
    let source = open(name, system)?;
    let text = source.text.clone();
    let positional = options.arguments.get(1).map(String::as_str);
    // In single-process mode the argument names the relay's section, as in the C program.
    let positional = positional.filter(|_| !options.single_process || options.worker_id.is_some());
    let section = match (&options.broker_id, positional, &process.kind) {
        (Some(id), ..) => id,
        (None, Some(id), _) => id,
        (None, None, Kind::Foreign { broker }) => broker,
        (None, None, Kind::Spawnd) => &process.name,
        (None, None, _) => "spawnd",
    };
    let rules = system.report.rules();
    let reading = config::read(source, section, rules, system.clone(), |parser| {
        // Mistakes before the section would be reported again by a worker that reads its own
        // section.
        let only_here = !parser.has_reported();
        let config = broker::parse(parser, process.is_foreign())?;
        *wrong = only_here.then(|| config.clone());
        Ok(config)
    });
    let (config, common) = system.settle(reading)?;
    if system.report.parse_only {
        addresses::check(&config).inspect_err(|_| *wrong = None)?;
    }
    Ok((text, config, common))
}

/// Reads a worker's section, and loads the modules that it names.
pub(super) fn read(
    source: &str,
    section: &str,
    system: &Rc<Live>,
    events: &mut Loop,
) -> Result<(Section, Common, Modules), ReadError> {
    let source = open(source, system)?;
    publish_name(&source.name, &directory(&source.name, &**system));
    let mut modules = Modules::new(events.context());
    let reading = events.lend(|| {
        config::read(source, section, system.report.rules(), system.clone(), |parser| {
            relay::parse(parser, &mut |parser| search::parse(parser, &mut modules))
        })
    });
    let (section, common) = system.settle(reading)?;
    Ok((section, common, modules))
}

/// Reads a worker's section for a process that asks no modules, and loads none.
pub(super) fn read_without_modules(
    source: &str,
    section: &str,
    system: &Rc<Live>,
) -> Result<(Section, Common), ReadError> {
    let source = open(source, system)?;
    let reading = config::read(source, section, system.report.rules(), system.clone(), |parser| {
        relay::parse(parser, &mut relay::skip_modules)
    });
    system.settle(reading)
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
    section.resolve(&mut look_up_needed).ok()
}

/// As [`look_up`], but leaves it to the monitor to look up what may come later: a process that starts
/// must not wait for a name server that does not answer.
pub(super) fn look_up_needed(question: &Question<'_>) -> io::Result<Option<Vec<Place>>> {
    match question.name.map(|name| name.start) {
        Some(Start::Later) => Ok(None),
        Some(Start::Now) | None => look_up(question),
    }
}

/// How long the lookup of a service may take at the start, in milliseconds.
const PATIENCE: u64 = 15_000;

/// Looks up a name at the start, and waits for the answer.
pub(super) fn look_up(question: &Question<'_>) -> io::Result<Option<Vec<Place>>> {
    let mut found: Vec<Place> = match question.kind {
        config_names::Kind::Host => names::resolve(question.text)?
            .into_iter()
            .filter_map(|ip| match Address::Ip(ip).with_port(question.port) {
                Address::Ip(address) => Some(Place::new(address)),
                Address::Unix(_) => None,
            })
            .collect(),
        kind @ config_names::Kind::Service => {
            let (text, port) = (question.text.to_owned(), question.port);
            match look_up_now(Wanted { text, port, kind, known: [false, false] }, PATIENCE) {
                Answer::Found { places, .. } => places,
                Answer::Nothing => Vec::new(),
                Answer::Failed(reason) => return Err(io::Error::other(reason)),
            }
        }
    };
    if question.name.is_some() {
        found.truncate(MOST);
    }
    Ok(Some(found))
}

/// The addresses that the monitor has published for a name.
pub(super) fn published(question: &Question<'_>, zone: Option<&Zone>) -> Option<Vec<Place>> {
    let published = zone?.published(identity(question.name?))?;
    Some(published.places)
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
