//! The start of a broker process.

use super::options::{self, Options};
use super::own::{self, Listeners, OwnRemote};
use super::report::Report;
use super::section;
use super::security::{self, Purpose, Refusal};
use super::single::{self, HostedWorker};
use super::system::Live;
use super::{Kind, Process};
use crate::broker::addresses::Resolver;
use crate::broker::life::{Broker, Start};
use crate::broker::text;
use crate::broker::worker_process::arguments;
use crate::broker::{
    publish_snapshot, Checked, Findings, Former, FormerSecrets, Handover, Image,
    Options as BrokerOptions, Secrets, Servers, REPORT_VARIABLE,
};
use crate::channel::local::LocalWorker;
use crate::channel::protocol::{BROKER_VARIABLE, WITHOUT_TLS, WITH_TLS};
use crate::config::broker::Broker as Config;
use crate::config::common::Common;
use crate::config::source::Source;
use crate::config::{self, ConfigError, ReadError};
use crate::event::Loop;
use crate::os::pidfile::{PidFile, PidFileError};
use crate::os::process::{self, exit, Descriptors, Ended, Fork, Identity, Program};
use crate::os::shm::Segment;
use crate::os::signals::{self, Signal};
use crate::os::socket::Kind as SocketKind;
use crate::os::{self, anonymous, channel, log, supervisor};
use crate::snapshot::material::Material;
use crate::snapshot::reader::Reader;
use crate::snapshot::texts::Texts;
use crate::tls::tickets::Ratchet;
use crate::worker::engine::Engine;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The main function of a process that is not a worker.
pub(super) fn main(process: &Process, inetd: bool) -> i32 {
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
        Former::Image(handover) => (handover, Origin::Former),
        Former::Check { activated, report } => {
            (Handover::default(), Origin::Check { activated, report })
        }
    };
    if !options.parse_only && !options.version {
        signals::hold_until_caught();
    }
    let reloaded = matches!(origin, Origin::Former);
    match run(process, &options, inetd, &mut handover, origin) {
        // A running service is not given up because its next image cannot start at the moment.
        Err(status) if reloaded => start_again(process, handover, status),
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
        report: Option<OwnedFd>,
    },
}

/// The first pause before an image that could not start is executed again, and how often the pause
/// is doubled.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MOST_DOUBLINGS: u32 = 4;

/// Pauses, then executes this image again with what the former one left. Returns an exit status if
/// it is to exit instead.
fn start_again(process: &Process, mut handover: Handover, status: i32) -> i32 {
    signals::block_all();
    let mut pause = FIRST_PAUSE * (1 << handover.attempt.min(MOST_DOUBLINGS));
    let text = format!("the service cannot be started (status {status})");
    loop {
        log::message_at(
            log::Severity::ERROR,
            &format!("{text}, it will be tried again in {} ms", pause.as_millis()),
        );
        let deadline = Instant::now() + pause;
        while Instant::now() < deadline {
            if signals::is_pending(Signal::SIGTERM) || signals::is_pending(Signal::SIGINT) {
                log::message(text::EXITING);
                return 0;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        handover.attempt = handover.attempt.saturating_add(1);
        if signals::is_pending(Signal::SIGHUP) {
            // SIGHUP: the files may be better now than what was checked.
            handover.snapshot = None;
            handover.secrets = handover.secrets.take().and_then(|secrets| {
                let (tickets, _) = secrets.decode()?;
                FormerSecrets::new(&tickets, None).ok()
            });
        }
        let environment = original_environment(process);
        let image = Image {
            executable: &process.executable(),
            arguments: &process.arguments,
            environment: &environment,
        };
        let error = handover.give(&image);
        log::message(&format!("execve ({}): {}", image.executable.display(), os::reason(&error)));
        signals::block_all();
        pause = FIRST_PAUSE * (1 << MOST_DOUBLINGS);
    }
}

fn run(
    process: &Process,
    options: &Options,
    inetd: bool,
    handover: &mut Handover,
    origin: Origin,
) -> Result<i32, i32> {
    let (reloaded, checks_reload, check_report) = match origin {
        Origin::User => (false, None, None),
        Origin::Former => (true, None, None),
        Origin::Check { activated, report } => (false, Some(activated), report),
    };
    let texts = handover.snapshot.as_ref().and_then(|fd| anonymous::read(fd).ok());
    let texts = texts.and_then(|texts| Texts::decode(&texts));
    // Before any fork: the variables name this process by its id.
    let activated = supervisor::activated_sockets();
    let how = if inetd { "startup via inetd" } else { "startup" };
    log::message(&format!("{how} (version {})", super::version()));
    process::set_umask(0o077);
    let report = process.report(options);
    let reader = texts.map_or_else(Reader::recording, Reader::of_image);
    let system = Rc::new(Live::new(report, reader));
    let source = &options.arguments[0];
    let mut wrong = None;
    let fetches = reloaded && handover.snapshot.is_none();
    let read = read(process, options, &system, fetches, &mut wrong);
    let (text, config, common) = read.map_err(|error| {
        report.failure(&error);
        if let Some(config) = wrong.filter(|_| options.parse_only) {
            check_relay_section(process, options, &config);
        }
        error.exit_status()
    })?;
    if process.kind == Kind::Spawnd && config.spawn.program.is_none() {
        let text = format!(
            "{source}: spawn {{ exec = PROGRAM }} is missing: {} has no worker of its own",
            process.name
        );
        report.message(log::Severity::ERROR, &text);
        return Err(exit::CONFIGURATION);
    }
    if checks_reload == Some(false) && config.listeners.is_empty() && !inetd {
        report.message(log::Severity::ERROR, "FATAL: No listeners defined.");
        return Err(exit::OS_ERROR);
    }
    // The file overrides the command line, as in the C program.
    let single = config.single_process.unwrap_or(options.single_process);
    if single && process.kind == Kind::Spawnd {
        let text = format!("{source}: {} has no relay to run in a single process", process.name);
        report.message(log::Severity::ERROR, &text);
        return Err(exit::CONFIGURATION);
    }
    let worker_source = worker_source(options, &config);
    let listeners = if has_tls_listeners(&config) { WITH_TLS } else { WITHOUT_TLS };
    std::env::set_var(BROKER_VARIABLE, listeners);
    if checks_reload.is_some() || !options.parse_only && !options.version {
        refuse_datagram_tls(&config).map_err(|text| {
            report.message(log::Severity::ERROR, &text);
            exit::CONFIGURATION
        })?;
    }
    let opened: Vec<&OwnedFd> = activated.iter().chain(handover.activated()).collect();
    let purpose = match reloaded || checks_reload.is_some() {
        true => Purpose::Reload,
        false => Purpose::Start,
    };
    let check = SecretsCheck { single, listeners: &Listeners::of(&config, &opened), purpose };
    let former = handover.secrets.as_ref().and_then(FormerSecrets::decode);
    let (secrets, session_timeout) = read_secrets(
        process, options, &config, check, former, &text, &system,
    )
    .map_err(|refusal| {
        report.message(log::Severity::ERROR, &refusal.text);
        refusal.status
    })?;
    // Other programs' workers read the files themselves.
    let own_workers = has_own_workers(process, &config, single);
    let snapshot = match own_workers && !options.version {
        true => share_texts(handover, &system.reader),
        false => None,
    };
    if options.parse_only || options.version {
        if own_workers {
            // The files for TLS were checked here, so the worker need not do it again.
            std::env::remove_var(BROKER_VARIABLE);
        }
        if options.version && config.spawn.program.is_none() && !process.is_foreign() {
            process.print_version();
            return Ok(0);
        }
        let program = worker_program(process, options, &config, single, worker_source);
        // Run the check as the worker's user, which must be able to read the files: other programs'
        // workers read the configuration, unless there is a copy in shared memory, and our own what
        // their modules want.
        let (uid, _) = process::identity();
        let checks = checks_reload.is_some() || options.parse_only && uid == 0;
        let as_worker = checks && !single && (own_workers || config.spawn.ipc_key == 0);
        publish_snapshot(snapshot.as_ref());
        let status = run_once(options, program, as_worker, snapshot.as_ref())?;
        if own_workers && status == 0 && !system.reader.is_complete() && !options.version {
            let section = relay_section(process, options, &config, single);
            let text = format!(
                "WARNING: id = {section}: only a worker can read this section, so that each of them \
                 reads its files when it starts"
            );
            report.message(log::Severity::WARNING, &text);
        }
        if let (0, Some(pipe)) = (status, check_report) {
            let checked = Checked { material: secrets.material, session_timeout };
            let snapshot = system.reader.texts().encode();
            // If nobody reads the pipe, nobody waits for the findings.
            let _ = Findings { snapshot, checked }.write(pipe);
        }
        return Ok(status);
    }
    process::set_umask(0o022);
    // A reload keeps foreground or background, and the pid.
    let background = if reloaded {
        handover.background
    } else {
        !inetd && options.background.unwrap_or(config.background)
    };
    let launched = if background && !reloaded {
        match go_to_background(system.keeps_stderr())? {
            Side::Launcher(status) => return Ok(status),
            Side::Daemon(launched) => Some(launched),
        }
    } else {
        None
    };
    let shared = match share_configuration(&config, &text, source) {
        Err(error) => {
            let key = config.spawn.ipc_key;
            log::message(&format!("ipc key {key}: {}", os::reason(&error)));
            if !reloaded {
                return Err(exit::OS_ERROR);
            }
            // Workers can do without the copy if they may read the file or are our own.
            None
        }
        Ok(shared) => shared,
    };
    let (shared, worker_source) = match shared {
        // Our own workers get what was checked, under the name of the file.
        Some((segment, _)) if own_workers => (Some(segment), worker_source),
        Some((segment, name)) => (Some(segment), name),
        None => (None, worker_source),
    };
    let broker_options = BrokerOptions {
        name: process.name.clone(),
        executable: process.executable(),
        arguments: process.arguments.clone(),
        environment: original_environment(process),
        inetd,
        background,
    };
    let program = worker_program(process, options, &config, single, worker_source);
    let servers = match has_own_workers(process, &config, false) {
        true => Servers::Own(program),
        false => Servers::Foreign(program),
    };
    if !single && has_own_workers(process, &config, single) {
        let user = config.spawn.ids.uid.unwrap_or(process::identity().0);
        if user == 0 {
            log::message("Warning: workers are root's. Name another user with userid in spawn.");
        }
    }
    let worker = HostedWorker {
        name: process.name.clone(),
        configuration: options.arguments[0].clone(),
        section: relay_id(options, &config, single).cloned(),
    };
    let launcher = launched.map(std::fs::File::from);
    let start = Start {
        launcher: launcher.as_ref().and_then(|pipe| pipe.try_clone().ok()),
        options: broker_options,
        reloaded,
        activated,
        snapshot: snapshot.filter(|_| !single),
        shared,
        secrets,
        servers,
    };
    super::install_crash_handler(&common);
    let result = prepare(process, options, config, single, start, handover, &system);
    let status = match result {
        // The program that uses the library has more to do before it serves.
        Ok((broker, events)) if single && process.is_foreign() => {
            single::keep(broker, events, worker);
            0
        }
        Ok((mut broker, mut events)) => broker.run(&mut events),
        Err(status) if reloaded => return Err(status),
        Err(status) => status,
    };
    // If the service was up, the launcher was told so, and has stopped reading.
    if let Some(mut launcher) = launcher {
        let _ = launcher.write_all(&[status as u8]);
    }
    Ok(status)
}

/// Reads the source, and the broker's section in it. `wrong` gets what could be read of a section
/// with mistakes.
fn read(
    process: &Process,
    options: &Options,
    system: &Rc<Live>,
    fetches: bool,
    wrong: &mut Option<Config>,
) -> Result<(Vec<u8>, Config, Common), ReadError> {
    let name = &options.arguments[0];
    if fetches && name.contains("://") {
        // A slow server must not keep the user from ending the program.
        signals::unblock_end();
    }
    let source = section::open(name, system)?;
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
        let config = config::broker::parse(parser, process.is_foreign())?;
        *wrong = only_here.then(|| config.clone());
        Ok(config)
    });
    let (config, common) = system.settle(reading)?;
    if system.report.parse_only {
        check_addresses(&config).inspect_err(|_| *wrong = None)?;
    }
    Ok((text, config, common))
}

/// With `-P`, a listener whose address cannot be resolved is a mistake.
fn check_addresses(config: &Config) -> Result<(), ConfigError> {
    let mut resolver = Resolver::default();
    for listener in &config.listeners {
        if let (Err(reason), Some(address)) = (resolver.resolve(listener), &listener.address) {
            return Err(address.error(format!(
                "Expected an address to listen on, but got '{}': {reason}",
                address.text
            )));
        }
    }
    Ok(())
}

/// Runs a worker that reports the mistakes in its section, after those in the broker's.
fn check_relay_section(process: &Process, options: &Options, config: &Config) {
    let single = config.single_process.unwrap_or(options.single_process);
    if process.kind != Kind::Spawnd && has_own_workers(process, config, single) {
        let source = worker_source(options, config);
        // The exit status is that of the mistakes reported before.
        let program = worker_program(process, options, config, single, source);
        let _ = run_once(options, program, false, None);
    }
}

/// Refuses stream listeners with DTLS versions only: where TLS was asked for, there must be TLS.
fn refuse_datagram_tls(config: &Config) -> Result<(), String> {
    let wrong = config.listeners.iter().find(|listener| {
        let datagrams_only = listener.dtls_versions != 0 && listener.tls_versions == 0;
        datagrams_only && listener.kind == SocketKind::Stream
    });
    match wrong {
        Some(listener) => Err(format!(
            "listen {{ port = {} }}: DTLS is for datagrams, this is a stream listener",
            listener.port
        )),
        None => Ok(()),
    }
}

/// What [`read_secrets`] needs to know for its checks.
#[derive(Clone, Copy, Debug)]
struct SecretsCheck<'a> {
    single: bool,
    /// Remotes must not be among these.
    listeners: &'a Listeners,
    purpose: Purpose,
}

/// Reads and checks what the relay's section needs for TLS: this process may read files that
/// workers may not, and a broken file is found before anything is started. Other programs' workers
/// are left alone, and mistakes in the section are left to the worker to report.
fn read_secrets(
    process: &Process,
    options: &Options,
    config: &Config,
    check: SecretsCheck<'_>,
    former: Option<(Ratchet, Option<Checked>)>,
    text: &[u8],
    system: &Rc<Live>,
) -> Result<(Secrets, u32), Refusal> {
    let SecretsCheck { single, listeners, purpose } = check;
    let report = &system.report;
    let (tickets, checked) = former.unzip();
    let mut secrets = security::secrets(tickets, has_tls_listeners(config))?;
    if !has_own_workers(process, config, single) || options.version {
        return Ok((secrets, 0));
    }
    if let Some(checked) = checked.flatten() {
        secrets.material = checked.material;
        secrets.tickets.set_period(checked.session_timeout.into());
        return Ok((secrets, checked.session_timeout));
    }
    let source = match config.spawn.config.as_ref().filter(|_| !single) {
        Some(other) => match section::open(other, system) {
            Ok(source) => source,
            Err(_) => return Ok((secrets, 0)),
        },
        None => Source::new(&options.arguments[0], text.to_vec()),
    };
    let section = relay_section(process, options, config, single);
    let tls = has_tls_listeners(config);
    let mut session_timeout = 0;
    // Relative names in the section start in the workers' directory, written as the system will
    // report it there.
    let directory = config.spawn.directory.as_ref().filter(|_| !single);
    system.reader.set_directory(directory.and_then(|directory| directory.canonicalize().ok()));
    if let Some(checked) = security::check(&source, &section, system, listeners, tls, purpose)? {
        system.reader.complete();
        for text in &checked.warnings {
            report.message(log::Severity::WARNING, text);
        }
        own_remotes(&checked.own, options.parse_only, report)?;
        secrets.material = checked.material;
        session_timeout = checked.session_timeout;
        secrets.tickets.set_period(session_timeout.into());
    }
    Ok((secrets, session_timeout))
}

/// The texts of the configuration for workers to inherit: as the former image left them, or as they
/// were read here.
fn share_texts(handover: &Handover, reader: &Reader) -> Option<OwnedFd> {
    let texts = match &handover.snapshot {
        Some(former) if reader.is_sealed() => former.try_clone(),
        _ => anonymous::file(&reader.texts().encode()),
    };
    if let Err(error) = &texts {
        log::message(&format!("a copy of the configuration cannot be kept: {}", os::reason(error)));
    }
    texts.ok()
}

/// A remote that is a listener of this relay is a mistake, and a check refuses it. But a service
/// that works in part is better than none, so it starts without that remote.
fn own_remotes(own: &[OwnRemote], check: bool, report: &Report) -> Result<(), Refusal> {
    if let (true, Some((last, others))) = (check, own.split_last()) {
        for remote in others {
            report.message(log::Severity::ERROR, &remote.text);
        }
        return Err(Refusal { text: last.text.clone(), status: exit::CONFIGURATION });
    }
    for remote in own {
        report.message(log::Severity::ERROR, &format!("{}; it is not used", remote.text));
    }
    own::tell(own);
    Ok(())
}

/// True if the workers run this program, or are this very process.
fn has_own_workers(process: &Process, config: &Config, single: bool) -> bool {
    !process.is_foreign() && (config.spawn.program.is_none() || single)
}

fn has_tls_listeners(config: &Config) -> bool {
    config.listeners.iter().any(|listener| listener.tls_versions != 0)
}

/// The configured name of the relay's section; `None` if workers use their own name.
fn relay_id<'a>(options: &'a Options, config: &'a Config, single: bool) -> Option<&'a String> {
    let positional = options.arguments.get(1).filter(|_| single && options.single_process);
    options.worker_id.as_ref().or(positional).or(config.spawn.id.as_ref())
}

fn relay_section(process: &Process, options: &Options, config: &Config, single: bool) -> String {
    relay_id(options, config, single).unwrap_or(&process.name).clone()
}

/// Where workers read their configuration from.
fn worker_source(options: &Options, config: &Config) -> OsString {
    let source = config.spawn.config.as_ref().unwrap_or(&options.arguments[0]);
    match &config.spawn.directory {
        // Workers start in another directory.
        Some(_) if !source.contains("://") => {
            std::path::absolute(source).unwrap_or_else(|_| PathBuf::from(source)).into()
        }
        _ => source.into(),
    }
}

/// The program that workers execute; always this one in single-process mode. A relative path is
/// made absolute if workers start in another directory.
fn worker_path(process: &Process, config: &Config, single: bool) -> PathBuf {
    let configured = config.spawn.program.clone().filter(|_| !single);
    let path = configured.unwrap_or_else(|| process.executable());
    match &config.spawn.directory {
        Some(_) => std::path::absolute(&path).unwrap_or(path),
        None => path,
    }
}

/// How to execute workers: PATH \[-d LEVEL] \[-D] SOURCE \[ID].
fn worker_program(
    process: &Process,
    options: &Options,
    config: &Config,
    single: bool,
    source: OsString,
) -> Program {
    let spawn = &config.spawn;
    let debug = config::common::known_debug_bits(options.debug);
    let id = relay_id(options, config, single).map(OsString::from);
    let arguments = arguments(debug, options.debug_to_stderr, Some(source), id);
    Program {
        path: worker_path(process, config, single),
        arguments,
        identity: Identity { uid: spawn.ids.uid, gid: spawn.ids.gid },
        directory: spawn.directory.clone(),
        environment: None,
        group: false,
    }
}

/// `-P` and `-v`: runs one worker with the same option, and returns its exit status.
fn run_once(
    options: &Options,
    mut program: Program,
    as_worker: bool,
    snapshot: Option<&OwnedFd>,
) -> Result<i32, i32> {
    let flag = if options.version { "-v" } else { "-P" };
    program.arguments.insert(0, flag.into());
    if !as_worker {
        // Check with our own identity, in our own directory.
        program.identity = Identity::default();
        program.directory = None;
    }
    let complain = |text: &str| log::stderr(&format!("{}: {text}\n", process::id()));
    let ended = channel::pair().and_then(|(_ours, theirs)| {
        let kept = snapshot.map(AsRawFd::as_raw_fd);
        let descriptors = Descriptors { stdin: theirs, stderr: None, kept };
        process::wait_for(process::spawn(&program, descriptors, complain)?)
    });
    match ended {
        Ok(Ended::Status(status)) => Ok(status),
        Ok(Ended::Signal(signal)) => {
            complain(&format!("{}: killed by signal {signal}", program.path.display()));
            Err(exit::SOFTWARE)
        }
        Err(error) => {
            complain(&os::reason(&error));
            Err(exit::OS_ERROR)
        }
    }
}

/// The environment without the variables meant for this image alone.
fn original_environment(process: &Process) -> Vec<(OsString, OsString)> {
    const PRIVATE: [&str; 6] = [
        "LISTEN_PID",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        BROKER_VARIABLE,
        REPORT_VARIABLE,
        own::VARIABLE,
    ];
    let mut environment = process.environment.clone();
    environment.retain(|(name, _)| {
        let name = name.to_string_lossy();
        !PRIVATE.contains(&&*name) && !name.starts_with(crate::broker::VARIABLE)
    });
    environment
}

/// The two processes after going to the background.
enum Side {
    /// The process that the user started, with its exit status.
    Launcher(i32),
    /// The process that serves, with the pipe for telling the launcher how the start went.
    Daemon(OwnedFd),
}

/// Goes to the background. The launcher exits when the daemon serves or has failed, so that its
/// exit status tells whether there is a service.
fn go_to_background(keep_stderr: bool) -> Result<Side, i32> {
    let failed = |error: std::io::Error| {
        log::message(&format!("fork: {}", os::reason(&error)));
        exit::OS_ERROR
    };
    let (read, write) = process::pipe().map_err(failed)?;
    match process::fork().map_err(failed)? {
        Fork::Parent(_) => {
            drop(write);
            let mut status = [0];
            let told = std::fs::File::from(read).read(&mut status);
            Ok(Side::Launcher(match told {
                Ok(1) => i32::from(status[0]),
                _ => exit::SOFTWARE,
            }))
        }
        Fork::Child => {
            process::new_session();
            for fd in 0..if keep_stderr { 2 } else { 3 } {
                process::redirect_to_null(fd).map_err(failed)?;
            }
            Ok(Side::Daemon(write))
        }
    }
}

/// `ipc key`: copies the configuration into shared memory for workers. Returns the segment, and the
/// name by which workers find it.
fn share_configuration(
    config: &Config,
    text: &[u8],
    source: &str,
) -> std::io::Result<Option<(Segment, OsString)>> {
    let spawn = &config.spawn;
    if spawn.ipc_key == 0 || spawn.config.is_some() {
        return Ok(None);
    }
    let segment = Segment::create(spawn.ipc_key, text, spawn.ids.uid, spawn.ids.gid)?;
    let directory = match source.rfind('/') {
        Some(slash) => &source[..=slash],
        None => "./",
    };
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.into());
    let directory = format!("{}/", directory.display().to_string().trim_end_matches('/'));
    std::env::set_var(config::DIRECTORY_VARIABLE, directory);
    Ok(Some((segment, format!("ipc://{}/{}", spawn.ipc_key, text.len()).into())))
}

/// Everything between reading the configuration and the first event: pid file, loop, broker.
fn prepare(
    process: &Process,
    options: &Options,
    config: Config,
    single: bool,
    mut start: Start,
    handover: &mut Handover,
    system: &Rc<Live>,
) -> Result<(Broker, Loop), i32> {
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
        let local = match process.is_foreign() {
            true => single::local_worker(limit, &config.spawn).ok_or(exit::SOFTWARE),
            false => {
                local_worker(process, options, &config, limit, &start.secrets, &mut events, system)
            }
        };
        let (worker, users_max) = local?;
        start.servers = Servers::Local { worker, users_max };
    }
    let broker = Broker::start(config, start, handover, &mut events)?;
    Ok((broker, events))
}

/// Takes the pid file, or keeps that of the former image.
fn take_pid_file(
    path: Option<&Path>,
    mut former: Option<PidFile>,
    reloaded: bool,
) -> Result<Option<PidFile>, i32> {
    let Some(path) = path else {
        return Ok(None);
    };
    if former.as_ref().is_some_and(|former| former.path() == path) {
        return Ok(former);
    }
    drop(former.take());
    match PidFile::acquire(path) {
        Ok(file) => Ok(Some(file)),
        Err(PidFileError::Locked(holder)) => {
            let holder =
                holder.map_or_else(|| "another process".into(), |pid| format!("process {pid}"));
            let path = path.display();
            if reloaded {
                // A service is not given up because of its pid file.
                log::message(&format!("pid_write({path}): locked by {holder}"));
                return Ok(None);
            }
            log::message(&format!(
                "pid_write({path}): locked by {holder}. Is it running already? Exiting."
            ));
            Err(exit::TEMPORARY)
        }
        Err(PidFileError::Io(error)) => {
            log::message(&format!("pid_write({}): {}", path.display(), os::reason(&error)));
            Ok(None)
        }
    }
}

/// The relay of single-process mode, and the most connections it can handle.
fn local_worker(
    process: &Process,
    options: &Options,
    config: &Config,
    descriptors: u64,
    secrets: &Secrets,
    events: &mut Loop,
    system: &Rc<Live>,
) -> Result<(Box<dyn LocalWorker>, usize), i32> {
    let section = relay_section(process, options, config, true);
    let (mut settings, _, modules) =
        super::section::read(&options.arguments[0], &section, system, events).map_err(|error| {
            system.report.failure(&error);
            error.exit_status()
        })?;
    if !own::leave_out(&mut settings) {
        log::message("No remote services defined! Exiting.");
        return Err(exit::USAGE);
    }
    // Ten descriptors for the first listener and the rest of the process, as in a worker, and one
    // for each further listener.
    let own = 9 + config.listeners.len().max(1) as u64;
    let users = usize::try_from(descriptors.saturating_sub(own) / 2).unwrap_or(usize::MAX).max(1);
    let listener = has_tls_listeners(config);
    let tickets = secrets.tickets.clone();
    let tls = match system.reader.is_complete() {
        true => security::contexts_of_broker(&settings, &secrets.material, tickets, listener),
        false => security::contexts(&settings, &mut Material::default(), Some(tickets), listener),
    };
    let tls = tls.map_err(|refusal| {
        log::message(&refusal.text);
        refusal.status
    })?;
    let queries = super::section::start_modules(&settings, modules, events)?;
    Ok((Box::new(Engine::new(settings, tls, queries)), users))
}
