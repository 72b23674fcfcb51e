//! The broker's process: reads what it is asked to be, and serves until it is told to end. With `-P` or
//! `-v` it only looks (`check`). A reload starts it again in the same process (`next_image`).

use super::check::{self, Client};
use super::next_image;
use super::options::{self, Options};
use super::own::{self, Listeners};
use super::security::{self, ForWorkers, Purpose, Refusal};
use super::service::Service;
use super::single::{self, HostedWorker};
use super::system::Live;
use super::{logs, section, Kind, Process};
use crate::broker::life::{Broker, Start};
use crate::broker::{
    ipc, share_texts, Checked, Former, FormerSecrets, Handover, Options as BrokerOptions, Secrets,
    Servers,
};
use crate::channel::protocol::{BROKER_VARIABLE, WITHOUT_TLS, WITH_TLS};
use crate::config::common::Common;

use crate::os::anonymous::Bytes;
use crate::os::background::{self, Side};
use crate::os::pidfile::{PidFile, PidFileError};
use crate::os::process::{self, exit};
use crate::os::shm::Segment;
use crate::os::socket::Inherited;
use crate::os::{self, log, signals, supervisor, Listener};
use crate::snapshot::reader::Reader;
use crate::snapshot::texts::Texts;
use std::ffi::OsString;
use std::io::{PipeWriter, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The main function of a process that is not a worker.
pub(super) fn main(process: &Process, input: Inherited) -> i32 {
    log::set_process("broker");
    let options = match process.options(options::BROKER) {
        Ok(options) => options,
        Err(status) => return status,
    };
    if options.version && options.arguments.is_empty() {
        process.print_version();
        return 0;
    }
    let (mut handover, origin) = match Handover::take() {
        Former::None => (Handover::default(), Origin::User),
        Former::Image(handover) => (*handover, Origin::Former),
        Former::Check { activated, report } => {
            (Handover::default(), Origin::Check { activated, report })
        }
    };
    if !options.parse_only && !options.version {
        signals::hold_until_caught();
    }
    let reloaded = matches!(origin, Origin::Former);
    match run(process, &options, input == Inherited::Listener, &mut handover, origin) {
        // A running service is not given up because its next image cannot start at the moment.
        Err(status) if reloaded => next_image::start_again(process, handover, status),
        Ok(status) | Err(status) => status,
    }
}

/// Who has started this process.
enum Origin {
    /// The user, or a service manager.
    User,
    /// The former image of this process.
    Former,
    /// A broker that wants its configuration checked.
    Check {
        /// The broker serves sockets without a `listen` block.
        activated: bool,
        /// The pipe for what was read.
        report: Option<PipeWriter>,
    },
}

/// Reads and checks what the process needs, then serves or, if it only checks, ends.
fn run(
    process: &Process,
    options: &Options,
    inetd: bool,
    handover: &mut Handover,
    origin: Origin,
) -> Result<i32, i32> {
    let texts = handover.snapshot.as_ref().and_then(|fd| fd.read().ok());
    let texts = texts.and_then(|texts| Texts::decode(&texts));
    // Before any fork: the variables name this process by its id.
    let activated = supervisor::activated_sockets();
    let at_terminal = !inetd && !process.is_foreign() && process::stderr_is_terminal();
    let looks_only = options.parse_only || options.version;
    if at_terminal && !looks_only && options.background != Some(true) {
        log::show_on_terminal();
    }
    let how = if inetd { "startup via inetd" } else { "startup" };
    log::message(&format!("{how} (version {})", super::version()));
    process::set_umask(0o077);
    let report = process.report(options);
    let reader = texts.map_or_else(Reader::recording, Reader::of_image);
    let system = Rc::new(Live::new(report, reader));
    let refused = |refusal: Refusal| {
        report.message(log::Severity::ERROR, &refusal.text);
        refusal.status
    };
    let fetches = matches!(origin, Origin::Former) && handover.snapshot.is_none();
    let (text, service, common) = read(process, options, &system, fetches)?;
    refuse(&service, inetd, &origin).map_err(refused)?;
    let reloaded = matches!(origin, Origin::Former);
    // A reload keeps foreground or background, and the pid.
    let background = match reloaded {
        true => handover.background,
        false => !inetd && options.background.unwrap_or(service.config.background),
    };
    if looks_only {
        logs::check(&common).map_err(refused)?;
    } else {
        let usual = match at_terminal && !background {
            true => logs::Usual::Terminal,
            false => logs::Usual::Daemon,
        };
        match logs::lead(&common, usual) {
            // It could be opened a moment ago: the former file stays in use.
            Err(refusal) if reloaded => log::message(&refusal.text),
            result => result.map_err(refused)?,
        }
    }
    if !service.single {
        log::publish();
    }
    let with_tls = if service.config.has_tls_listeners() { WITH_TLS } else { WITHOUT_TLS };
    std::env::set_var(BROKER_VARIABLE, with_tls);
    let opened: Vec<&Listener> = activated.iter().chain(handover.activated()).collect();
    let listeners = Listeners::of(&service.config, &opened);
    if service.has_own_workers() {
        own::tell_listeners(&listeners);
    }
    let purpose = match origin {
        Origin::User => Purpose::Start,
        Origin::Former | Origin::Check { .. } => Purpose::Reload,
    };
    let former = handover.secrets.as_ref().and_then(FormerSecrets::decode);
    let known = security::for_workers(&service, &listeners, purpose, former, &text, &system);
    let ForWorkers { mut secrets, session_timeout, rights } = known.map_err(refused)?;
    // The status page and the control socket are the monitor's.
    secrets.monitored |= service.config.is_monitored() && service.has_own_workers();
    // Other programs' workers read the files themselves.
    let limits = service.config.client_limits_for_workers();
    system.reader.set_access(service.config.access_list_for_workers().encode(), limits.encode());
    let snapshot = match service.has_own_workers() && !options.version {
        true => texts_for_workers(handover, &system.reader),
        false => None,
    };
    if options.parse_only || options.version {
        let client = match origin {
            Origin::Check { report, .. } => Client::Broker(report),
            Origin::User | Origin::Former => Client::User,
        };
        let Secrets { material, monitored, .. } = secrets;
        let checked = Checked { material, session_timeout, monitored, rights };
        return check::finish(&service, client, checked, snapshot.as_ref(), &system);
    }
    process::set_umask(0o022);
    let launcher = match background && !reloaded {
        true => match background::go(system.keeps_stderr()).map_err(|error| {
            log::message(&format!("fork: {}", os::reason(&error)));
            exit::OS_ERROR
        })? {
            Side::Launcher(status) => return Ok(status),
            Side::Daemon(pipe) => Some(pipe),
        },
        false => None,
    };
    let (shared, worker_source) = share_configuration(&service, &text, reloaded)?;
    if !service.single && service.has_own_workers() {
        let user = service.config.spawn.ids.uid.unwrap_or(process::identity().0);
        if user == 0 {
            log::message("Warning: workers are root's. Name another user with userid in spawn.");
        }
    }
    let start = Start {
        options: BrokerOptions {
            name: process.name.clone(),
            executable: process.executable(),
            arguments: process.arguments.clone(),
            environment: next_image::environment(process),
            inetd,
            background,
        },
        reloaded,
        snapshot: snapshot.filter(|_| !service.single),
        shared,
        secrets,
        activated,
        launcher: launcher.as_ref().and_then(|pipe| pipe.try_clone().ok()),
        servers: service.servers(worker_source, rights),
    };
    super::install_crash_handler(&common);
    let status = match serve(service, start, handover, &system) {
        Err(status) if reloaded => return Err(status),
        Ok(status) | Err(status) => status,
    };
    // If the service was up, the launcher was told so, and has stopped reading.
    if let Some(mut launcher) = launcher {
        let _ = launcher.write_all(&[status as u8]);
    }
    Ok(status)
}

/// Reads the source, and the broker's section in it; reports mistakes. `fetches`: a source that is
/// a URL is fetched while a service is running.
fn read<'a>(
    process: &'a Process,
    options: &'a Options,
    system: &Rc<Live>,
    fetches: bool,
) -> Result<(Vec<u8>, Service<'a>, Common), i32> {
    let mut wrong = None;
    let (text, config, common) =
        section::read_broker(process, options, system, fetches, &mut wrong).map_err(|error| {
            system.report.failure(&error);
            if let Some(config) = wrong.filter(|_| options.parse_only) {
                check::report_relay_section(&Service::new(process, options, config));
            }
            error.exit_status()
        })?;
    Ok((text, Service::new(process, options, config), common))
}

/// Refuses what can be read, but not served.
fn refuse(service: &Service<'_>, inetd: bool, origin: &Origin) -> Result<(), Refusal> {
    let Service { process, options, config, single } = service;
    let wrong = |text| Err(Refusal { text, status: exit::CONFIGURATION });
    let (name, source) = (&process.name, service.source());
    if process.kind == Kind::Spawnd && config.spawn.program.is_none() {
        return wrong(format!(
            "{source}: spawn {{ exec = PROGRAM }} is missing: {name} has no worker of its own"
        ));
    }
    if matches!(origin, Origin::Check { activated: false, .. })
        && config.listeners.is_empty()
        && !inetd
    {
        let text = "FATAL: No listeners defined.".to_owned();
        return Err(Refusal { text, status: exit::OS_ERROR });
    }
    if *single && process.kind == Kind::Spawnd {
        return wrong(format!("{source}: {name} has no relay to run in a single process"));
    }
    if matches!(origin, Origin::Check { .. }) || !options.parse_only && !options.version {
        return config.refuse_datagram_tls().or_else(wrong);
    }
    Ok(())
}

/// The texts of the configuration for workers to inherit: as the former image left them, or as they
/// were read here.
fn texts_for_workers(handover: &Handover, reader: &Reader) -> Option<Bytes> {
    let former = handover.snapshot.as_ref().filter(|_| reader.is_sealed());
    let former = former.and_then(|former| former.try_clone().ok());
    former.or_else(|| share_texts(&reader.texts().encode()))
}

/// `ipc key`: the copy of the configuration, and where workers read it.
fn share_configuration(
    service: &Service<'_>,
    text: &[u8],
    reloaded: bool,
) -> Result<(Option<Segment>, OsString), i32> {
    let spawn = &service.config.spawn;
    match ipc::share(spawn, text, service.source()) {
        Ok(Some((segment, name))) => {
            // Our own workers get what was checked, under the name of the file.
            let own = service.has_own_workers();
            Ok((Some(segment), if own { service.worker_source() } else { name }))
        }
        Ok(None) => Ok((None, service.worker_source())),
        Err(error) => {
            log::message(&format!("ipc key {}: {}", spawn.ipc_key, os::reason(&error)));
            match reloaded {
                // Workers can do without the copy if they may read the file or are our own.
                true => Ok((None, service.worker_source())),
                false => Err(exit::OS_ERROR),
            }
        }
    }
}

/// Takes the pid file, makes the loop, and serves. Returns the exit status.
fn serve(
    service: Service<'_>,
    mut start: Start,
    handover: &mut Handover,
    system: &Rc<Live>,
) -> Result<i32, i32> {
    let Service { process, options, ref config, single } = service;
    let inherited = start.options.inetd || !start.activated.is_empty() || handover.has_activated();
    if config.listeners.is_empty() && !inherited {
        log::message("FATAL: No listeners defined.");
        return Err(exit::OS_ERROR);
    }
    let path = options.pid_file.as_ref().map(PathBuf::from).or(config.pid_file.clone());
    let former = handover.pid_file.take();
    handover.pid_file = take_pid_file(path.as_deref(), former, start.reloaded)?;
    let (mut events, limit) = super::make_loop()?;
    if single {
        process::new_session();
        let _ = process::redirect_to_null(1);
        let (worker, users_max) = match process.is_foreign() {
            true => single::foreign_worker(limit, &config.spawn).ok_or(exit::SOFTWARE)?,
            false => {
                let former = handover.zone.as_ref().map(|zone| &zone.memory);
                single::own_worker(&service, limit, &start.secrets, former, &mut events, system)?
            }
        };
        start.servers = Servers::Local { worker, users_max };
    }
    let monitored = service.has_own_workers();
    if let (Some(status), false) = (&service.config.status, monitored) {
        let position = &status.position;
        log::message(&format!(
            "{position}: 'status' has no effect: workers of another program report nothing"
        ));
    }
    let worker = HostedWorker {
        name: process.name.clone(),
        configuration: service.source().clone(),
        section: service.relay_id().cloned(),
    };
    let mut config = service.config;
    if !monitored {
        config.status = None;
    }
    let mut broker = Broker::start(config, start, handover, &mut events)?;
    if single && process.is_foreign() {
        // The program that uses the library has more to do before it serves.
        single::keep(broker, events, worker);
        return Ok(0);
    }
    Ok(broker.run(&mut events))
}

/// Takes the pid file, or keeps that of the former image.
fn take_pid_file(
    path: Option<&Path>,
    former: Option<PidFile>,
    reloaded: bool,
) -> Result<Option<PidFile>, i32> {
    let Some(path) = path else {
        return Ok(None);
    };
    match PidFile::keep_or_acquire(path, former) {
        Ok(file) => return Ok(Some(file)),
        Err(error @ PidFileError::Locked(_)) if !reloaded => {
            let path = path.display();
            log::message(&format!("pid_write({path}): {error}. Is it running already? Exiting."));
            return Err(exit::TEMPORARY);
        }
        // A service is not given up because of its pid file.
        Err(error) => log::message(&format!("pid_write({}): {error}", path.display())),
    }
    Ok(None)
}
