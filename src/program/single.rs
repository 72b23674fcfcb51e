//! Single-process mode: the relay, or another program's worker, in the process of its broker.

use super::service::Service;
use super::system::Live;
use super::{own, section, security};
use crate::broker::life::Broker;
use crate::broker::Secrets;
use crate::channel::briefing::Briefing;
use crate::channel::local::{LocalWorker, MONITOR_KINDS};
use crate::channel::protocol::{Accept, Caller, Errand, Purpose};
use crate::config::broker::Spawn;
use crate::config::relay::Relay;
use crate::event::{Event, Loop, TimerId, Token};
use crate::mavis::queries::Queries;
use crate::monitor::parts::Monitor;
use crate::os::process::{self, exit};
use crate::os::{self, log, Socket};
use crate::snapshot::material::Material;
use crate::tls::context::Contexts;
use crate::upstream;
use crate::upstream::zone::counters::Counters;
use crate::upstream::zone::{Object, Zone};
use crate::worker::engine::Engine;
use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

/// What the worker half of a program needs to know.
#[derive(Clone, Debug)]
pub struct HostedWorker {
    /// Base name of argv\[0].
    pub name: String,
    /// The configuration source.
    pub configuration: String,
    /// The name of its section, if there is one.
    pub section: Option<String>,
}

thread_local! {
    /// A broker that is about to serve in one process with its worker.
    static KEPT: RefCell<Option<(Broker, Loop, HostedWorker)>> = const { RefCell::new(None) };
    /// The program's worker, until the broker takes it.
    static WORKER: RefCell<Option<Box<dyn LocalWorker>>> = const { RefCell::new(None) };
}

/// Keeps the program's worker, in case the broker is to run in one process with it.
pub(super) fn set_worker(worker: Box<dyn LocalWorker>) {
    WORKER.set(Some(worker));
}

/// Keeps a broker until its program is ready to serve.
pub(super) fn keep(broker: Broker, events: Loop, worker: HostedWorker) {
    KEPT.set(Some((broker, events, worker)));
}

/// Takes the broker that was kept, if there is one.
pub(super) fn take() -> Option<(Broker, Loop, HostedWorker)> {
    KEPT.take()
}

/// The program's worker, and how many connections it may have until it sets a limit itself: as many
/// as configured, if there are descriptors for them.
pub(super) fn foreign_worker(
    descriptors: u64,
    spawn: &Spawn,
) -> Option<(Box<dyn LocalWorker>, usize)> {
    let possible = usize::try_from(descriptors.saturating_sub(10) / 2).unwrap_or(usize::MAX);
    let configured = spawn.users_max.saturating_mul(spawn.instances_max);
    Some((WORKER.take()?, possible.min(configured).max(1)))
}

/// The relay of single-process mode, and the most connections it can handle. `former` is the zone of
/// the former image.
pub(super) fn own_worker(
    service: &Service<'_>,
    descriptors: u64,
    secrets: &Secrets,
    former: Option<&Object>,
    events: &mut Loop,
    system: &Rc<Live>,
) -> Result<(Box<dyn LocalWorker>, usize), i32> {
    let read = section::read(service.source(), service.relay_section(), system, events);
    let read = read.and_then(|(section, _, modules)| {
        Ok((section.resolve(&mut section::look_up_needed)?, modules))
    });
    let (mut settings, modules) = read.map_err(|error| {
        system.report.failure(&error);
        error.exit_status()
    })?;
    if !own::leave_out(&mut settings) {
        log::message("No remote services defined! Exiting.");
        return Err(exit::USAGE);
    }
    upstream::try_transparent(&settings).map_err(|text| {
        log::message(&text);
        exit::NO_PERMISSION
    })?;
    // Ten descriptors for the first listener and the rest of the process, as in a worker, and one
    // for each further listener.
    let own = 9 + service.config.listeners.len().max(1) as u64;
    let users = usize::try_from(descriptors.saturating_sub(own) / 2).unwrap_or(usize::MAX).max(1);
    let ends = security::ends_of(&service.config);
    let tickets = secrets.tickets.clone();
    let tls = match system.reader.is_complete() {
        true => security::contexts_of_broker(&settings, &secrets.material, tickets, ends),
        false => security::contexts(&settings, &mut Material::default(), Some(tickets), ends),
    };
    let tls = tls.map_err(|refusal| {
        log::message(&refusal.text);
        refusal.status
    })?;
    let queries = section::start_modules(&settings, modules, events)?;
    let list = service.config.access_list_for_workers();
    let limits = service.config.client_limits_for_workers();
    if settings.is_monitored() || service.config.is_monitored() {
        let mut monitored = Monitored::new(settings, tls, queries, former, events);
        monitored.engine.set_access_list(list);
        monitored.engine.set_client_limits(limits);
        return Ok((Box::new(monitored), users));
    }
    let mut engine = Engine::new(settings, tls, queries);
    engine.set_access_list(list);
    engine.set_client_limits(limits);
    Ok((Box::new(engine), users))
}

/// Said of `tls ocsp = fetch` if there is no monitor.
pub(super) const NO_STAPLES: &str =
    "tls ocsp = fetch is without effect: the broker has no monitor for this worker";

/// What is said of what is without effect if there is no monitor.
pub(super) fn without_monitor(settings: &Relay) -> &'static str {
    match (settings.has_checks(), settings.names.is_empty()) {
        (true, true) => "remotes are not checked",
        (false, _) => "names are not looked up again",
        (true, false) => "remotes are not checked, and names not looked up again",
    }
}

/// The relay and the monitor, in one process with the broker.
struct Monitored {
    /// The relay.
    engine: Engine,
    /// The monitor; it ends when no more connections are accepted.
    monitor: Option<Monitor>,
    /// The zone, for the next image.
    memory: Option<Object>,
}

impl Monitored {
    fn new(
        mut settings: Relay,
        tls: Contexts,
        queries: Option<Queries>,
        former: Option<&Object>,
        events: &mut Loop,
    ) -> Monitored {
        let (shared, connectors) = (settings.clone(), tls.connectors.clone());
        let inquiries = tls.acceptor.as_ref().map(|acceptor| acceptor.staples().inquiries());
        let without = without_monitor(&settings);
        let made = Zone::create().and_then(|(_, object)| {
            let counters = Counters::of_worker(&object, 0, process::id())?;
            let of_monitor = Counters::of_monitor(&object, process::id())?;
            let monitors = (Zone::monitor(&object)?, of_monitor);
            Ok((Zone::join(&object, 0)?, counters, monitors, object))
        });
        let (zone, counters, monitors, memory) = match made {
            Ok(made) => made,
            Err(error) => {
                let reason = os::reason(&error);
                let text = without_monitor(&settings);
                log::message(&format!("{text}: shared memory: {reason}"));
                settings.without_monitor();
                let engine = Engine::new(settings, tls, queries);
                return Monitored { engine, monitor: None, memory: None };
            }
        };
        let mut engine = Engine::new(settings, tls, queries);
        let mut monitor = None;
        if engine.join(zone, counters) {
            let (zone, counters) = monitors;
            if let Some(former) = former.and_then(|former| Zone::adopt(former).ok()) {
                zone.inherit_wishes(&former);
                zone.inherit_counters(&former);
                zone.inherit_staples(&former);
            }
            let inquiries = inquiries.unwrap_or_default();
            monitor = Monitor::new(shared, connectors, inquiries, zone, counters, own::is_own());
        }
        match &mut monitor {
            Some(monitor) => monitor.begin(events),
            None => log::message(&format!("{without}: there are too many remotes")),
        }
        Monitored { engine, monitor, memory: Some(memory) }
    }

    fn end_monitor(&mut self, events: &mut Loop) {
        if let Some(mut monitor) = self.monitor.take() {
            monitor.end(events);
        }
    }
}

impl LocalWorker for Monitored {
    fn accept(&mut self, events: &mut Loop, socket: Socket, accept: &Accept) {
        LocalWorker::accept(&mut self.engine, events, socket, accept);
    }

    fn event(&mut self, events: &mut Loop, event: Event) {
        match &mut self.monitor {
            Some(monitor) if event.token.kind() >= MONITOR_KINDS => monitor.event(event, events),
            _ => LocalWorker::event(&mut self.engine, events, event),
        }
    }

    fn timer(&mut self, events: &mut Loop, timer: TimerId, token: Token) {
        match &mut self.monitor {
            Some(monitor) if token.kind() >= MONITOR_KINDS => monitor.timer(timer, token, events),
            _ => LocalWorker::timer(&mut self.engine, events, timer, token),
        }
    }

    fn turn(&mut self, events: &mut Loop) -> usize {
        LocalWorker::turn(&mut self.engine, events)
    }

    fn left(&mut self) -> Option<Vec<u32>> {
        Some(self.engine.take_left())
    }

    fn sessions(&self) -> usize {
        self.engine.sessions()
    }

    fn limit(&self) -> Option<usize> {
        self.engine.limit()
    }

    fn zone(&self) -> Option<BorrowedFd<'_>> {
        self.memory.as_ref().map(AsFd::as_fd)
    }

    fn takes_callers(&self) -> bool {
        self.monitor.is_some()
    }

    fn call(&mut self, events: &mut Loop, socket: Socket, caller: Caller) {
        if let Some(monitor) = &mut self.monitor {
            monitor.call(socket, caller, events);
        }
    }

    fn errand(&mut self) -> Option<Errand> {
        self.monitor.as_mut()?.errand()
    }

    fn brief(&mut self, events: &mut Loop, briefing: Briefing, endpoints: Vec<(Purpose, OwnedFd)>) {
        if let Some(monitor) = &mut self.monitor {
            monitor.brief(briefing, endpoints, events);
        }
    }

    fn drain(&mut self, events: &mut Loop) {
        self.end_monitor(events);
        LocalWorker::drain(&mut self.engine, events);
    }

    fn end(&mut self, events: &mut Loop) {
        self.end_monitor(events);
        LocalWorker::end(&mut self.engine, events);
    }
}
