//! The start of a worker process.

use super::options::{self, Options};
use super::sandbox::Sandbox;
use super::section::{self, read, start_modules};
use super::system::Live;
use super::{logs, own, security, single, Kind, Process};
use crate::broker::inherited_texts;
use crate::channel::link::{Link, Start};
use crate::channel::protocol::{FromWorker, BROKER_VARIABLE, WITHOUT_TLS, WITH_TLS};
use crate::channel::worker_side::Answer;
use crate::channel::Peer;
use crate::config::acl::Acl;
use crate::config::balance::Scope;
use crate::config::clients::ClientLimits;
use crate::config::relay::names::Name;
use crate::config::relay::Relay;
use crate::config::tls::Keys;
use crate::config::{self, ReadError};
use crate::os::process::{self, exit};
use crate::os::shared::Object;
use crate::os::{self, log, Channel, Socket};
use crate::snapshot::material::Material;
use crate::snapshot::reader::Reader;
use crate::tls::context::Ends;
use crate::tls::tickets::Ratchet;
use crate::upstream;
use crate::upstream::zone::counters::Counters;
use crate::upstream::zone::notes::Notes;
use crate::upstream::zone::Zone;
use crate::worker::engine::Engine;
use crate::worker::process::Worker;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// The main function of a process whose descriptor 0 is a channel.
pub(super) fn main(process: &Process) -> i32 {
    log::set_process("worker");
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
    if !options.parse_only {
        config::on_abandon(bad_configuration);
    }
    // A broker of ours has left the texts that it checked.
    let reader = inherited_texts().map_or_else(Reader::direct, Reader::of_worker);
    let system = Rc::new(Live::new(report, reader));
    // Modules may use the loop as soon as they are loaded.
    let mut events = super::early_loop()?;
    let read = read(&options.arguments[0], section, &system, &mut events);
    let refused = |error: ReadError| {
        report.failure(&error);
        if !options.parse_only && !matches!(error, ReadError::Open { .. }) {
            bad_configuration();
        }
        error.exit_status()
    };
    let (section, common, modules) = read.map_err(refused)?;
    let led = if options.parse_only { logs::check(&common) } else { logs::lead_alone(&common) };
    led.map_err(|refusal| {
        report.message(log::Severity::ERROR, &refusal.text);
        if !options.parse_only {
            bad_configuration();
        }
        refusal.status
    })?;
    let peer = std::env::var_os(BROKER_VARIABLE).map_or(Peer::Foreign, |_| Peer::Ours);
    // A monitor of ours may know names better than a resolver that does not answer at the moment.
    let asks_first = peer == Peer::Ours && !options.parse_only && section.has_names();
    let (mut settings, section) = match asks_first {
        true => (None, Some(section)),
        false => {
            let settings = section.resolve(&mut section::look_up);
            (Some(settings.map_err(|error| refused(error.into()))?), None)
        }
    };
    if let (true, Some(settings)) = (options.parse_only, &settings) {
        for error in &settings.unresolved {
            report.message(log::Severity::WARNING, &format!("WARNING: {error}"));
        }
        // For a broker of ours that has not made these checks itself; the variable says whether it
        // has listeners with TLS.
        if std::env::var_os(BROKER_VARIABLE).is_some() {
            let ends = tls_ends(settings);
            let mut material = Material::default();
            let checked = security::contexts(settings, &mut material, None, ends).and_then(|_| {
                security::examine(settings, &material, ends, security::Purpose::Start)
            });
            let warnings = checked.map_err(|refusal| {
                report.message(log::Severity::ERROR, &refusal.text);
                refusal.status
            })?;
            for text in warnings {
                report.message(log::Severity::WARNING, &text);
            }
        }
        return Ok(0);
    }
    process::set_umask(0o022);
    if !settings.as_mut().is_none_or(own::leave_out) {
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
    let channel = Channel::from(process::take_standard_input().map_err(os_error)?);
    let mut link = Link::new(channel, peer);
    super::install_crash_handler(&common);
    let told = match link.ask() {
        Start::Told(answer) => decode(answer),
        Start::Unneeded => return Ok(0),
        Start::Alone => None,
    };
    let own_broker = told.is_some();
    let Told { mut material, tickets, zone, signer } = told.unwrap_or_default();
    let known = zone.as_ref().and_then(|(fd, slot)| Zone::join(fd, *slot as usize).ok());
    let monitored = known.as_ref().is_some_and(Zone::is_monitored);
    let mut settings = match (settings, section) {
        (Some(settings), _) => settings,
        (None, Some(section)) => {
            let resolved = section.resolve(&mut |question| match section::published(
                question,
                known.as_ref(),
            ) {
                Some(places) => Ok(Some(places)),
                None if monitored => section::look_up_needed(question),
                None => section::look_up(question),
            });
            let mut settings = resolved.map_err(|error| {
                let error = ReadError::from(error);
                report.failure(&error);
                link.cannot_start();
                error.exit_status()
            })?;
            own::leave_out(&mut settings);
            settings
        }
        (None, None) => return Err(exit::SOFTWARE),
    };
    drop(known);
    let ends = tls_ends(&settings);
    if !material.is_public() && settings.tls.keys == Some(Keys::Separate) {
        log::message(NOT_SEPARATE);
    }
    let tls = match tickets {
        Some(tickets) if system.reader.is_complete() => {
            security::contexts_of_broker(&settings, &material, tickets, ends)
        }
        tickets => security::contexts(&settings, &mut material, tickets, ends),
    };
    // The keys are in OpenSSL's protected memory now.
    drop(material);
    let tls = tls.map_err(|error| {
        log::message(&error.text);
        link.cannot_start();
        error.status
    })?;
    upstream::try_transparent(&settings).map_err(|text| {
        log::message(&text);
        link.cannot_start();
        exit::NO_PERMISSION
    })?;
    // Modules may start programs.
    process::keep_rights_from_programs();
    let limit = super::settle_loop(&mut events)?;
    let retire_limit = settings.retire_limit;
    let sandbox = Sandbox::of(&settings, &common, &modules);
    let queries =
        start_modules(&settings, modules, &mut events).inspect_err(|_| link.cannot_start())?;
    // Another program's broker has no zone to share.
    let alone = settings.balance.scope == Scope::Worker || !own_broker;
    let zone = zone.filter(|_| !alone);
    let joined = zone.and_then(|(fd, slot)| {
        let zone = Zone::join(&fd, slot as usize).ok()?;
        if !monitored {
            return Some((zone, Counters::default()));
        }
        if let Ok(mut notes) = Notes::of_worker(&fd, slot as usize, process::id()) {
            log::keep_errors(move |text| notes.add(os::wall_clock(), text));
        }
        Some((zone, Counters::of_worker(&fd, slot as usize, process::id()).unwrap_or_default()))
    });
    if settings.is_monitored() && !(monitored && joined.is_some()) {
        // Another program's broker starts no monitor, nor does ours for a program named by exec.
        let asked = settings.names.iter().any(Name::is_asked_for);
        if asked || settings.has_checks() {
            let text = match asked {
                true => single::without_monitor(&settings),
                false => "remotes are not checked",
            };
            log::message(&format!("{text}: the broker has no monitor"));
        }
        if settings.tls.fetches_ocsp() {
            log::message(single::NO_STAPLES);
        }
        if let Some(error) = settings.unresolved.pop() {
            // Nobody would ever find its addresses.
            let error = ReadError::from(error);
            report.failure(&error);
            link.cannot_start();
            return Err(error.exit_status());
        }
        settings.without_monitor();
    }
    let mut engine = Engine::new(settings, tls, queries);
    // What a broker of ours has encoded can be decoded. If not, nobody is let in by a header.
    let list = Acl::decode(&system.reader.access()).ok_or(exit::SOFTWARE)?;
    engine.set_access_list(list);
    engine.set_client_limits(match system.reader.client_limits() {
        encoded if encoded.is_empty() => ClientLimits::default(),
        encoded => ClientLimits::decode(&encoded).ok_or(exit::SOFTWARE)?,
    });
    let shared = joined.is_some_and(|(zone, counters)| engine.join(zone, counters));
    if !shared && !alone {
        log::message("balance scope: no place in shared memory, this worker balances by itself");
    }
    let mut worker =
        Worker::start(&process.name, engine, retire_limit, link, &mut events).map_err(os_error)?;
    if let Some(signer) = signer {
        worker.set_signer(signer, &mut events);
    }
    sandbox.enter();
    worker.begin(limit, &mut events);
    Ok(worker.run(&mut events))
}

/// Where there is TLS. If the broker does not say, certificates mean that there may be listeners
/// with it.
pub(super) fn tls_ends(settings: &Relay) -> Ends {
    match std::env::var(BROKER_VARIABLE).as_deref() {
        Ok(WITH_TLS) => Ends::Both,
        Ok(WITHOUT_TLS) => Ends::Remotes,
        _ if settings.tls.certificates.is_empty() => Ends::Remotes,
        _ => Ends::Both,
    }
}

/// Logged if the broker is another program, or only workers can read the section.
const NOT_SEPARATE: &str =
    "tls keys = separate: nobody else has read the private keys, so that they are in this worker";

/// What the broker has sent: contents of the files for TLS, keys of session tickets, our slot in
/// the zone, and a stream to the process with the private keys.
#[derive(Default)]
struct Told {
    material: Material,
    tickets: Option<Ratchet>,
    zone: Option<(Object, u32)>,
    signer: Option<Socket>,
}

/// `None` if the broker's answer cannot be decoded: it is another version, and the worker does
/// without.
fn decode(answer: Answer<OwnedFd>) -> Option<Told> {
    let (material, tickets) = Ratchet::decode_with(&answer.secrets)?;
    let zone = answer.zone.map(|(fd, slot)| (Object::from(fd), slot));
    let signer = answer.signer.map(Socket::from);
    Some(Told { material, tickets: Some(tickets), zone, signer })
}

/// Tells the broker that starting this worker again would not help. This is the first message.
fn bad_configuration() {
    let message = FromWorker::BadConfiguration.encode();
    // If the broker does not get it, it sees the process exit.
    let _ = Channel::from(std::io::stdin()).send(&message, None);
}
