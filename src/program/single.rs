//! The worker of a program of others that is one process with its broker.

use crate::broker::life::Broker;
use crate::channel::local::LocalWorker;
use crate::config::broker::Spawn;
use crate::event::Loop;
use std::cell::RefCell;

/// What the worker half of a program is to know.
#[derive(Clone, Debug)]
pub struct HostedWorker {
    /// Base name of argv\[0].
    pub name: String,
    /// The configuration source.
    pub configuration: String,
    /// Its section, if one is named.
    pub section: Option<String>,
}

thread_local! {
    /// A broker that is about to serve beside its worker.
    static KEPT: RefCell<Option<(Broker, Loop, HostedWorker)>> = const { RefCell::new(None) };
    /// The worker that the program has, until the broker takes it.
    static WORKER: RefCell<Option<Box<dyn LocalWorker>>> = const { RefCell::new(None) };
}

/// Keeps the worker of a program, in case that its broker is to be one process with it.
pub(super) fn set_worker(worker: Box<dyn LocalWorker>) {
    WORKER.set(Some(worker));
}

/// Keeps a broker until its program serves.
pub(super) fn keep(broker: Broker, events: Loop, worker: HostedWorker) {
    KEPT.set(Some((broker, events, worker)));
}

/// Fetches it, if there is one.
pub(super) fn take() -> Option<(Broker, Loop, HostedWorker)> {
    KEPT.take()
}

/// Its worker, and how many connections it can have until it says itself: what is configured, as far
/// as descriptors allow.
pub(super) fn local_worker(
    descriptors: u64,
    spawn: &Spawn,
) -> Option<(Box<dyn LocalWorker>, usize)> {
    let possible = usize::try_from(descriptors.saturating_sub(10) / 2).unwrap_or(usize::MAX);
    let configured = spawn.users_max.saturating_mul(spawn.instances_max);
    Some((WORKER.take()?, possible.min(configured).max(1)))
}
