//! Another program's worker that runs in one process with its broker.

use crate::broker::life::Broker;
use crate::channel::local::LocalWorker;
use crate::config::broker::Spawn;
use crate::event::Loop;
use std::cell::RefCell;

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
pub(super) fn local_worker(
    descriptors: u64,
    spawn: &Spawn,
) -> Option<(Box<dyn LocalWorker>, usize)> {
    let possible = usize::try_from(descriptors.saturating_sub(10) / 2).unwrap_or(usize::MAX);
    let configured = spawn.users_max.saturating_mul(spawn.instances_max);
    Some((WORKER.take()?, possible.min(configured).max(1)))
}
