//! The start: from the first bind to the first workers.

use super::{Broker, Life};
use crate::broker::admission::Admission;
use crate::broker::callers::Callers;
use crate::broker::clients::ClientTable;
use crate::broker::dispatch::Dispatch;
use crate::broker::endpoints::Endpoints;
use crate::broker::file_watch::FileWatch;
use crate::broker::handover::Handover;
use crate::broker::keepers::Keepers;
use crate::broker::kind;
use crate::broker::listeners::Listeners;
use crate::broker::options::Options;
use crate::broker::reload::Reload;
use crate::broker::sticky::Stickiness;
use crate::broker::workers::{Secrets, Servers, Setup, Workers};
use crate::channel::briefing::Briefing;
use crate::config::acl::Acl;
use crate::config::broker::{self as config, Stop};
use crate::event::{Interest, Loop, Token};
use crate::os::anonymous::Bytes;
use crate::os::process::{self, exit};
use crate::os::shm::Segment;
use crate::os::signals::{Signal, Signals, LOG_SIGNAL};
use crate::os::title::Title;
use crate::os::{self, log, Listener};
use std::io::PipeWriter;

/// What [`Broker::start`] needs besides the configuration.
pub struct Start {
    /// Command line and environment.
    pub options: Options,
    /// This is the next image of a broker.
    pub reloaded: bool,
    /// The texts of the configuration, for workers.
    pub snapshot: Option<Bytes>,
    /// The copy of the configuration in shared memory.
    pub shared: Option<Segment>,
    /// What only this process may read, and its own workers are told.
    pub secrets: Secrets,
    /// Sockets of the service manager.
    pub activated: Vec<Listener>,
    /// The pipe to the process that launched us into the background.
    pub launcher: Option<PipeWriter>,
    /// Who serves the connections.
    pub servers: Servers,
}

impl Broker {
    /// Binds everything and starts the first workers. Fails with the exit status; `handover` then
    /// still has what the former image left.
    pub fn start(
        mut config: config::Broker,
        start: Start,
        handover: &mut Handover,
        events: &mut Loop,
    ) -> Result<Broker, i32> {
        let Start { options, reloaded, snapshot, shared, secrets, activated, launcher, servers } =
            start;
        let mut listeners = Listeners::new(&mut config, options.inetd);
        let none = listeners.is_empty() && activated.is_empty() && !handover.has_activated();
        if none && reloaded {
            log::message("FATAL: No listeners defined.");
            return Err(exit::OS_ERROR);
        }
        let signals = Signals::install(&[
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGUSR1,
            LOG_SIGNAL,
            Signal::SIGCHLD,
        ])
        .map_err(|error| {
            log::message(&format!("sigaction: {}", os::reason(&error)));
            exit::OS_ERROR
        })?;
        events.register(signals.descriptor(), Token::new(kind::SIGNALS, 0), Interest::READ);
        let single = matches!(servers, Servers::Local { .. });
        if options.inetd {
            listeners.adopt_standard_input()?;
        }
        let clients = ClientTable::new(std::mem::take(&mut config.clients));
        let setup = Setup {
            spawn: &config.spawn,
            channel_buffer: config.channel_buffer,
            sticky: Stickiness::new(config.sticky, listeners.stickiness()),
            snapshot,
            secrets,
            // A service that was running is not given up because its workers do not start at once.
            settled: reloaded,
            clients: clients.clone(),
        };
        if matches!(servers, Servers::Foreign(_)) {
            listeners.close_desk();
        }
        let mut workers = Workers::new(servers, setup);
        let endpoints = Endpoints::open(&mut config, &mut handover.listeners, reloaded)?;
        listeners.bind(&mut handover.listeners, activated, reloaded, events)?;
        // From here on nothing fails.
        let mut handover = std::mem::take(handover);
        let briefing = Briefing { listeners: listeners.names() };
        workers.brief_monitor(briefing, endpoints.copies(), events);
        let mut broker = Broker {
            listeners,
            endpoints,
            admission: Admission::new(Acl::new(config.acl), clients.clone(), config.overload),
            dispatch: Dispatch::default(),
            workers,
            reload: Reload::new(single),
            files: FileWatch::new(if options.inetd { 0 } else { config.tls_watch }),
            callers: Callers::new(std::mem::take(&mut handover.callers)),
            keepers: Keepers::new(std::mem::take(&mut handover.keepers)),
            signals,
            pid_file: handover.pid_file.take(),
            shared,
            launcher,
            announced: false,
            life: Life::Serving,
            stop: config.stop.unwrap_or_else(default_stop),
            title: Title::new(&options.name),
            shown: None,
            noted: None,
            desk_is_due: true,
            options,
        };
        if let Some(zone) = handover.zone.take() {
            broker.workers.adopt_zone(zone.memory, &zone.slots);
        }
        broker.workers.begin_counting(reloaded);
        broker.note_bound();
        broker.workers.adopt(handover.workers, events);
        if let Some(monitor) = handover.monitor.take() {
            broker.workers.adopt_monitor(monitor, events);
        }
        if reloaded {
            // The former image's file may have been renamed.
            broker.workers.give_log(events);
            // Reap children that ended between the two images.
            broker.reap(events);
        }
        if single {
            log::message(
                "Warning: Running in degraded mode. This is unsuitable for real-life usage.",
            );
        }
        broker.workers.start_missing(events);
        broker.workers.start_monitor(events);
        if broker.workers.serve_at_once() {
            broker.announce(events);
        }
        let blocking = broker.workers.blocking();
        let clients = broker.admission.clients();
        broker.dispatch.adopt_former(handover.parked, blocking, &broker.listeners, clients);
        broker.files.begin(handover.files, broker.workers.material(), events);
        broker.settle(events);
        broker.settle_load(events);
        broker.tend_desk(events);
        broker.refresh_title();
        Ok(broker)
    }
}

/// What SIGTERM does if the configuration does not say. When process 1 of a container exits, the
/// kernel kills all others, so there the broker stays while there are sessions.
fn default_stop() -> Stop {
    if process::id() == 1 {
        Stop::Drain
    } else {
        Stop::Now
    }
}
