//! The start of a monitor process. It reads the same texts as the workers, and loads no modules.

use super::options;
use super::sandbox::Sandbox;
use super::single::without_monitor;
use super::system::Live;
use super::{own, section, security, worker, Process};
use crate::broker::inherited_texts;
use crate::channel::briefing::Briefing;
use crate::channel::link::{Link, Start};
use crate::channel::Peer;
use crate::config::ReadError;
use crate::monitor::parts::Monitor;
use crate::monitor::process::Process as MonitorProcess;
use crate::os::anonymous::Bytes;
use crate::os::process::{self, exit};
use crate::os::{self, log};
use crate::snapshot::reader::Reader;
use crate::tls::context::Ends;
use crate::tls::ocsp;
use crate::tls::tickets::Ratchet;
use crate::upstream::zone::counters::Counters;
use crate::upstream::zone::notes::Notes;
use crate::upstream::zone::Zone;
use std::rc::Rc;

/// The main function of a process whose descriptor 0 is a channel to a broker that wants a monitor.
pub(super) fn main(process: &Process) -> i32 {
    log::set_process("monitor");
    match run(process) {
        Ok(status) | Err(status) => status,
    }
}

fn run(process: &Process) -> Result<i32, i32> {
    let options = process.options(options::WORKER)?;
    let report = process.report(&options);
    let name = options.arguments.get(1).unwrap_or(&process.name);
    let reader = inherited_texts().map_or_else(Reader::direct, Reader::of_worker);
    let system = Rc::new(Live::new(report, reader));
    let mut events = super::early_loop()?;
    let read = section::read_without_modules(&options.arguments[0], name, &system);
    let refused = |error: ReadError| {
        report.failure(&error);
        error.exit_status()
    };
    let (section, common) = read.map_err(refused)?;
    process::set_umask(0o022);
    process::new_session();
    let os_error = |error: std::io::Error| {
        log::message(&os::reason(&error));
        exit::OS_ERROR
    };
    let _ = process::redirect_to_null(1);
    let channel = process::take_standard_input().map_err(os_error)?;
    let mut link = Link::new(channel.into(), Peer::Ours);
    super::install_crash_handler(&common);
    let told = match link.ask() {
        Start::Told(answer) => answer,
        // Nobody needs it any more.
        Start::Unneeded | Start::Alone => return Ok(0),
    };
    let Some((material, _)) = Ratchet::decode_with(&told.secrets) else {
        return Ok(0);
    };
    let joined = told.zone.and_then(|(fd, _)| {
        let object = fd.into();
        let counters = Counters::of_monitor(&object, process::id()).unwrap_or_default();
        if let Ok(mut notes) = Notes::of_monitor(&object, process::id()) {
            log::keep_errors(move |text| notes.add(os::wall_clock(), text));
        }
        Some((Zone::monitor(&object).ok()?, counters))
    });
    let zone = joined.as_ref().map(|(zone, _)| zone);
    let settings = section.resolve(&mut |question| match section::published(question, zone) {
        Some(places) => Ok(Some(places)),
        // What cannot be looked up now can be later.
        None if question.name.is_some() => section::look_up_needed(question).or(Ok(None)),
        None => section::look_up(question),
    });
    let mut settings = settings.map_err(|error| refused(error.into()))?;
    own::leave_out(&mut settings);
    // It has no listeners, so the keys of session tickets are not for it.
    let contexts =
        security::contexts_of_broker(&settings, &material, Ratchet::unset(), Ends::Remotes);
    let inquiries = match worker::tls_ends(&settings) {
        Ends::Both => ocsp::inquiries(&settings.tls, &material),
        Ends::Remotes => Vec::new(),
    };
    drop(material);
    let contexts = contexts.map_err(|error| {
        log::message(&error.text);
        error.status
    })?;
    super::settle_loop(&mut events)?;
    let sandbox = Sandbox::of_monitor(&settings, &common);
    let without = without_monitor(&settings);
    let monitor = joined.and_then(|(zone, counters)| {
        Monitor::new(settings, contexts.connectors, inquiries, zone, counters, own::is_own())
    });
    let Some(monitor) = monitor else {
        log::message(&format!("monitor: no place in shared memory, {without}"));
        return Ok(0);
    };
    let mut monitor = MonitorProcess::start(monitor, link, &mut events).map_err(os_error)?;
    sandbox.enter();
    let briefing = told.briefing.and_then(|fd| Bytes::from(fd).read().ok());
    let briefing = briefing.map(|data| Briefing::decode(&data)).unwrap_or_default();
    monitor.begin(&process.name, briefing, told.endpoints, &mut events);
    Ok(monitor.run(&mut events))
}
