//! The worker of a program of others that is one process with its broker.

use crate::broker::life::Broker;
use crate::channel::local::LocalWorker;
use crate::channel::protocol::Accept;
use crate::config::broker::Spawn;
use crate::event::{Event, Loop, TimerId, Token};
use crate::os::common_data;
use std::cell::RefCell;
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
}

/// Keeps a broker until its program serves.
pub(super) fn keep(broker: Broker, events: Loop, worker: HostedWorker) {
    KEPT.set(Some((broker, events, worker)));
}

/// Fetches it, if there is one.
pub(super) fn take() -> Option<(Broker, Loop, HostedWorker)> {
    KEPT.take()
}

/// The worker of a program that is one process with its broker. The program counts its sessions
/// itself, in `common_data.users_cur`; `common_data.users_max_total` is how many it can have. SCM_DONE
/// says nothing here: some programs send it in this mode and some do not.
struct Hoster {
    /// Connections given to the program, less those reported as ended.
    given: usize,
}

/// That worker, and how many connections it can have until it says itself: what is configured, as far
/// as descriptors allow.
pub(super) fn local_worker(descriptors: u64, spawn: &Spawn) -> (Box<dyn LocalWorker>, usize) {
    let possible = usize::try_from(descriptors.saturating_sub(10) / 2).unwrap_or(usize::MAX);
    let configured = spawn.users_max.saturating_mul(spawn.instances_max);
    (Box::new(Hoster { given: 0 }), possible.min(configured).max(1))
}

impl LocalWorker for Hoster {
    fn accept(&mut self, events: &mut Loop, socket: OwnedFd, accept: &Accept) {
        self.given += 1;
        let message = accept.encode();
        events.lend(|| common_data::give_accept(socket, &message));
    }

    fn event(&mut self, _: &mut Loop, _: Event) {}

    fn timer(&mut self, _: &mut Loop, _: TimerId, _: Token) {}

    fn turn(&mut self, _: &mut Loop) -> usize {
        let ended = self.given.saturating_sub(self.sessions());
        self.given -= ended;
        ended
    }

    fn sessions(&self) -> usize {
        usize::try_from(common_data::users_cur()).unwrap_or(0)
    }

    fn limit(&self) -> Option<usize> {
        usize::try_from(common_data::users_max_total()).ok()
    }

    fn drain(&mut self, _: &mut Loop) {}

    fn end(&mut self, _: &mut Loop) {}
}
