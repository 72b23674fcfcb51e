//! Start of a worker process.

use super::options::{self, Options};
use super::sandbox::Sandbox;
use super::section::{read, start_modules};
use super::{own, security, Kind, Process};
use crate::broker::inherited_snapshot;
use crate::channel::protocol::{
    add_secrets, FromBroker, FromWorker, BROKER_VARIABLE, SECRETS_RECEIVE, WITHOUT_TLS, WITH_TLS,
};
use crate::config::relay::Relay;
use crate::config::{self, ReadError};
use crate::os::process::{self, exit};
use crate::os::secret::wipe;
use crate::os::{self, channel, log};
use crate::snapshot::material::Material;
use crate::snapshot::texts as snapshot;
use crate::tls::tickets::Ratchet;
use crate::upstream::zone::Zone;
use crate::worker::engine::Engine;
use crate::worker::process::{Early, Worker};
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

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
    if !options.parse_only {
        config::on_abandon(bad_configuration);
    }
    if let Some(known) = inherited_snapshot() {
        snapshot::enter(known);
    }
    // Modules may use the loop as soon as they are there.
    let mut events = super::early_loop()?;
    let read = read(&options.arguments[0], section, &report, &mut events);
    let (mut settings, common, modules) = read.map_err(|error| {
        report.failure(&error);
        if !options.parse_only && !matches!(error, ReadError::Open { .. }) {
            bad_configuration();
        }
        error.exit_status()
    })?;
    snapshot::leave();
    if options.parse_only {
        // By themselves these checks are the broker's, which knows its listeners.
        if std::env::var_os(BROKER_VARIABLE).is_some() {
            let listener = has_tls_listeners(&settings);
            let mut material = Material::default();
            let checked =
                security::contexts(&settings, &mut material, None, listener).and_then(|_| {
                    security::examine(&settings, &material, listener, security::Purpose::Start)
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
    if !own::leave_out(&mut settings) {
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
    let listener = has_tls_listeners(&settings);
    let mut early = Early::default();
    let answer = match std::env::var_os(BROKER_VARIABLE) {
        Some(_) => ask_broker(&channel, &mut early),
        None => Answer::None,
    };
    let own_broker = matches!(answer, Answer::Secrets(..));
    let (mut material, tickets, zone) = match answer {
        Answer::Secrets(material, tickets, zone) => (material, Some(tickets), zone),
        Answer::MayDie => return Ok(0),
        Answer::None => (Material::default(), None, None),
    };
    let tls = security::contexts(&settings, &mut material, tickets, listener);
    // The keys are in OpenSSL's protected memory now.
    drop(material);
    let tls = tls.map_err(|error| {
        log::message(&error.text);
        bad_configuration_on(&channel);
        error.status
    })?;
    let limit = super::settle_loop(&mut events)?;
    let retire_limit = settings.retire_limit;
    let sandbox = Sandbox::of(&settings, &common, &modules);
    let queries = start_modules(&settings, modules, &mut events)
        .inspect_err(|_| bad_configuration_on(&channel))?;
    // Another program's broker has nothing to share.
    let alone = settings.balance_alone || !own_broker;
    let zone = zone.filter(|_| !alone);
    let mut engine = Engine::new(settings, tls, queries);
    let shares = |(fd, slot): (OwnedFd, u32)| {
        Zone::join(&fd, slot as usize).is_ok_and(|zone| engine.share(zone))
    };
    if !zone.is_some_and(shares) && !alone {
        log::message("balance scope: no place in shared memory, this worker balances by itself");
    }
    let mut worker =
        Worker::start(&process.name, engine, retire_limit, channel, own_broker, &mut events)
            .map_err(os_error)?;
    sandbox.enter();
    worker.announce(limit);
    worker.begin(early, &mut events);
    Ok(worker.run(&mut events))
}

/// True if there are listeners with TLS, or, with a broker that does not tell, may be.
fn has_tls_listeners(settings: &Relay) -> bool {
    match std::env::var(BROKER_VARIABLE).as_deref() {
        Ok(WITH_TLS) => true,
        Ok(WITHOUT_TLS) => false,
        _ => !settings.tls.certificates.is_empty(),
    }
}

/// How long a broker may take for each part of its answer to HELLO.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);

/// What a broker says to HELLO.
enum Answer {
    /// With the zone that workers share, and our slot there, if we may take part.
    Secrets(Material, Ratchet, Option<(OwnedFd, u32)>),
    /// We are not needed any more.
    MayDie,
    /// Nothing: it is another program's.
    None,
}

/// Asks the broker for what only it may read. Connections that come meanwhile are kept.
fn ask_broker(channel: &OwnedFd, early: &mut Early) -> Answer {
    if channel::send(channel.as_fd(), &FromWorker::Hello(true).encode(), None).is_err() {
        return Answer::None;
    }
    let mut received = Vec::new();
    let mut zone = None;
    let mut deadline = Instant::now() + HELLO_PATIENCE;
    let answer = loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        if !channel::wait(channel.as_fd(), left as i32) {
            break Answer::None;
        }
        let mut part = [0; SECRETS_RECEIVE];
        let mut fds = VecDeque::new();
        let keep = |fd| fds.push_back(fd);
        let length = match channel::receive_with(channel.as_fd(), &mut part, keep) {
            Ok(length) => length.min(part.len()),
            Err(error) if os::would_block(&error) => continue,
            Err(_) => break Answer::None,
        };
        let message = &part[..length];
        let whole = add_secrets(message, &mut received);
        let other = FromBroker::decode(message);
        wipe(&mut part);
        match (whole, other) {
            (Some(false), _) => deadline = Instant::now() + HELLO_PATIENCE,
            (Some(true), _) => {
                break match Ratchet::decode_with(&received) {
                    Some((material, tickets)) => Answer::Secrets(material, tickets, zone),
                    None => Answer::None,
                }
            }
            (None, Ok(FromBroker::Ledger(slot))) => zone = fds.pop_front().map(|fd| (fd, slot)),
            (None, Ok(FromBroker::MayDie)) if !early.has_connections() => break Answer::MayDie,
            (None, Ok(message)) => early.keep(message, fds),
            (None, Err(bad)) => {
                log::braked(log::Kind::Channel, || format!("scm_recv_msg: recvmsg: {bad}"))
            }
        }
    };
    wipe(&mut received);
    answer
}

/// Tells the broker that starting again will not help.
fn bad_configuration() {
    bad_configuration_on(&std::io::stdin());
}

fn bad_configuration_on(channel: &impl AsFd) {
    let message = FromWorker::BadConfiguration.encode();
    // A broker that does not hear it sees the process end.
    let _ = channel::send(channel.as_fd(), &message, None);
}
