//! Single-process mode: the relay, or another program's worker, in the process of its broker.

use super::service::Service;
use super::system::Live;
use super::{own, section, security};
use crate::broker::life::Broker;
use crate::broker::Secrets;
use crate::channel::local::LocalWorker;
use crate::config::broker::Spawn;
use crate::event::Loop;
use crate::os::log;
use crate::os::process::exit;
use crate::snapshot::material::Material;
use crate::worker::engine::Engine;
use std::cell::RefCell;
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

/// The relay of single-process mode, and the most connections it can handle.
pub(super) fn own_worker(
    service: &Service<'_>,
    descriptors: u64,
    secrets: &Secrets,
    events: &mut Loop,
    system: &Rc<Live>,
) -> Result<(Box<dyn LocalWorker>, usize), i32> {
    let (mut settings, _, modules) =
        section::read(service.source(), service.relay_section(), system, events).map_err(
            |error| {
                system.report.failure(&error);
                error.exit_status()
            },
        )?;
    if !own::leave_out(&mut settings) {
        log::message("No remote services defined! Exiting.");
        return Err(exit::USAGE);
    }
    // Ten descriptors for the first listener and the rest of the process, as in a worker, and one
    // for each further listener.
    let own = 9 + service.config.listeners.len().max(1) as u64;
    let users = usize::try_from(descriptors.saturating_sub(own) / 2).unwrap_or(usize::MAX).max(1);
    let listener = service.config.has_tls_listeners();
    let tickets = secrets.tickets.clone();
    let tls = match system.reader.is_complete() {
        true => security::contexts_of_broker(&settings, &secrets.material, tickets, listener),
        false => security::contexts(&settings, &mut Material::default(), Some(tickets), listener),
    };
    let tls = tls.map_err(|refusal| {
        log::message(&refusal.text);
        refusal.status
    })?;
    let queries = section::start_modules(&settings, modules, events)?;
    Ok((Box::new(Engine::new(settings, tls, queries)), users))
}
