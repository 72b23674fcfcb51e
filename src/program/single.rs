//! The worker of a program of others that is one process with its broker.

use crate::event::{Event, Loop, TimerId, Token};
use crate::os::common_data;
use crate::spawnd::broker::{Broker, LocalWorker};
use crate::spawnd::protocol::Accept;
use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;

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
    /// Sessions of the worker that have ended, and that are open.
    static ENDED: Cell<usize> = const { Cell::new(0) };
    static OPEN: Cell<usize> = const { Cell::new(0) };
}

/// Keeps a broker until its program serves.
pub(super) fn keep(broker: Broker, events: Loop, worker: HostedWorker) {
    KEPT.set(Some((broker, events, worker)));
}

/// Fetches it, if there is one.
pub(super) fn take() -> Option<(Broker, Loop, HostedWorker)> {
    KEPT.take()
}

/// Sessions of the worker in this process have ended.
pub fn sessions_ended(count: usize) {
    ENDED.set(ENDED.get() + count);
    OPEN.set(OPEN.get().saturating_sub(count));
}

/// The worker of a program that is one process with its broker.
struct Hoster;

/// That worker, and how many connections it can have before it says itself.
pub(super) fn local_worker(descriptors: u64) -> (Box<dyn LocalWorker>, usize) {
    let users = usize::try_from(descriptors.saturating_sub(10) / 2).unwrap_or(usize::MAX);
    (Box::new(Hoster), users.max(1))
}

impl LocalWorker for Hoster {
    fn accept(&mut self, events: &mut Loop, socket: OwnedFd, accept: &Accept) {
        OPEN.set(OPEN.get() + 1);
        let message = accept.encode();
        events.lend(|| common_data::give_accept(socket, &message));
    }

    fn event(&mut self, _: &mut Loop, _: Event) {}

    fn timer(&mut self, _: &mut Loop, _: TimerId, _: Token) {}

    fn turn(&mut self, _: &mut Loop) -> usize {
        ENDED.take()
    }

    fn sessions(&self) -> usize {
        OPEN.get()
    }

    fn drain(&mut self, _: &mut Loop) {}

    fn end(&mut self, _: &mut Loop) {}
}
