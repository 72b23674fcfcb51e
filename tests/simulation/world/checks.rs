//! The invariants: after each step, when everything is quiet, and at the end.

use super::{World, SECOND};
use crate::clients::{End, Manner};
use crate::kernel::{Id, Kernel, Kind, Process};
use crate::processes::{broker, Child};
use crate::system::kernel;
use mavis::config::balance::Scope;
use mavis::upstream::zone::counters::Role;
use mavis::worker::engine::Engine;

/// How long a worker without sessions may take to end when its broker has died, in microseconds.
const ORPHANED: u64 = 5 * SECOND;

impl World {
    pub(super) fn check_invariants(&mut self) {
        for client in &self.clients {
            let Some(number) = client.partner else {
                continue;
            };
            let Some(end) = self.ends.get(&number) else {
                kernel(|kernel| {
                    kernel.violated(format!("{} talks to nobody: {number}", client.number))
                });
                return;
            };
            if end.partner.is_some_and(|partner| partner != client.number) {
                kernel(|kernel| {
                    kernel.violated(format!("{number} and {} are mixed up", client.number))
                });
            }
            for (one, other) in [(client, end), (end, client)] {
                self.check_pair(one, other);
            }
            self.check_route(client, end);
        }
        self.check_limits();
        self.check_counts();
        self.check_broker();
        self.check_orphans();
    }

    /// Compares what `one` has received with what `other` has sent.
    fn check_pair(&self, one: &End, other: &End) {
        let excused = self.is_excused(one) || self.is_excused(other);
        let complain = |what: String| kernel(|kernel| kernel.violated(what));
        if one.received > other.sent {
            complain(format!("{} got more than {} has sent", one.number, other.number));
        }
        let lost = [one, other].iter().any(|end| self.lost.contains(&end.number));
        if one.ended && !other.shut && !lost {
            complain(format!("{} got an end, and {} has sent none", one.number, other.number));
        }
        if one.ended && one.received < other.sent && !excused {
            let (got, sent) = (one.received, other.sent);
            complain(format!("{} got {got} bytes of {sent} from {}", one.number, other.number));
        }
        if let (Some(error), false) = (one.error, excused) {
            complain(format!(
                "{} got error {error}, though {} was polite",
                one.number, other.number
            ));
        }
    }

    /// Whether an end reset its own connection, or lost it with a worker.
    pub(super) fn is_excused(&self, end: &End) -> bool {
        end.manner == Manner::Rude || self.lost.contains(&end.number)
    }

    /// Whether workers balance alone, so that their counts cover their own sessions only.
    fn balances_alone(&self) -> bool {
        (self.settings.relay.balance.scope == Scope::Worker) || !self.settings.ours
    }

    /// A worker must not count more uses of remotes than it has sessions.
    fn check_counts(&self) {
        if !self.balances_alone() {
            return;
        }
        for engine in self.workers.values().filter_map(Child::engine) {
            if engine.remotes_in_use() > engine.open() as u64 {
                let (used, open) = (engine.remotes_in_use(), engine.open());
                kernel(|kernel| {
                    kernel.violated(format!("remotes are in use {used} times by {open} sessions"));
                });
            }
        }
    }

    /// The broker must not count fewer connections than its workers serve.
    fn check_broker(&self) {
        let state = broker(|broker| (broker.process, broker.broker.connections()));
        let Some((process, counted)) = state else {
            return;
        };
        let is_own = |child: Process| {
            kernel(|kernel| {
                kernel.processes.get(&child).is_some_and(|child| child.parent == process)
            })
        };
        let own = self.workers.values().filter(|worker| is_own(worker.process));
        let open: usize = own.map(|worker| worker.open()).sum();
        if counted < open {
            kernel(|kernel| {
                kernel.violated(format!("the broker counts {counted} of {open} sessions"));
            });
        }
    }

    /// A worker whose broker has died ends with its last session.
    fn check_orphans(&self) {
        let now = kernel(|kernel| kernel.now);
        for worker in self.workers.values().filter(|worker| worker.open() == 0) {
            let parent =
                kernel(|kernel| kernel.processes.get(&worker.process).map(|own| own.parent));
            let died = parent.and_then(|parent| self.died.get(&parent).copied());
            if died.is_some_and(|died| now > died.max(worker.stalled) + ORPHANED) {
                let process = worker.process;
                kernel(|kernel| kernel.violated(format!("{process} lives on without a broker")));
            }
        }
    }

    /// At the end, no process may have left anything open.
    pub(super) fn check_end(&self) {
        let complain = |what: String| kernel(|kernel| kernel.violated(what));
        if self.failed() {
            return;
        }
        let left = kernel(|kernel| kernel.descriptors.len());
        if left > 0 {
            complain(format!("{left} descriptors are left open"));
        }
    }

    /// With no sessions, nothing of one may be left: no uses, timers or connections.
    pub(super) fn check_quiet(&mut self) {
        for worker in self.workers.values() {
            let process = worker.process;
            let complain = |what: String| {
                kernel(|kernel| kernel.violated(format!("{process} is idle: {what}")));
            };
            let used = worker.engine().map_or(0, Engine::remotes_in_use);
            if used > 0 && self.balances_alone() {
                complain(format!("remotes are in use {used} times"));
            }
            if let Some(zone) = &worker.zone {
                // Of addresses of names there are more than are used at a time.
                for row in 0..self.remotes.len() {
                    let used = zone.state(row).used;
                    if used > 0 {
                        complain(format!("the zone has {used} uses of remote {row}"));
                    }
                }
                let children = zone.members().into_iter().filter(|one| one.role != Role::Broker);
                let mut gone = children.filter(|one| !self.workers.contains_key(&(one.pid as u32)));
                if let Some(gone) = gone.next() {
                    complain(format!("the zone lists {gone:?}, which has ended"));
                }
            }
            // A monitor always has something to do.
            let Some(engine) = worker.engine() else {
                continue;
            };
            let waits = kernel(|kernel| kernel.watched_for_room(process));
            if waits > 0 {
                complain(format!("{waits} descriptors are watched for room"));
            }
            if engine.queued() > 0 {
                complain(format!("{} sessions wait for a remote", engine.queued()));
            }
            // The keep-alive, which shows that the broker is alive, has a timer as well.
            let (armed, known) = (worker.events.armed(), 1 + engine.timers());
            if armed > known {
                complain(format!("{armed} timers are armed, for {known} reasons"));
            }
            let streams = kernel(|kernel| streams_of(kernel, process));
            if streams > 0 {
                complain(format!("{streams} connections are open"));
            }
        }
        let state = broker(|broker| (broker.process, broker.broker.connections()));
        if let Some((process, connections)) = state {
            let streams = kernel(|kernel| streams_of(kernel, process));
            if connections > 0 || streams > 0 {
                kernel(|kernel| {
                    kernel.violated(format!("idle broker: {connections} counted, {streams} open"));
                });
            }
        }
    }

    fn may_be_refused(&self, client: &End) -> bool {
        self.settings.refuses || self.is_rejected(client)
    }

    /// After a while without sessions only the keep-alive is left: nobody is looked for in a queue.
    pub(super) fn check_rest(&self) {
        for worker in self.workers.values().filter(|worker| worker.engine().is_some()) {
            let (process, timers) = (worker.process, worker.events.armed());
            if timers > 1 && worker.open() == 0 {
                kernel(|kernel| kernel.violated(format!("{process} rests with {timers} timers")));
            }
        }
    }

    /// Every connection must have been served in full, or refused for a permitted reason.
    pub(super) fn check_clients(&self) {
        let may_refuse = self.weather.is_rough();
        // The broker was told to stop while clients were coming.
        let stopped_early = self.must_be_served == u64::MAX;
        for client in &self.clients {
            if self.is_excused(client) {
                continue;
            }
            let refused = client.received == 0 && client.partner.is_none();
            let found = client.partner.and_then(|number| self.ends.get(&number));
            let found =
                found.or_else(|| self.ends.values().find(|end| end.partner == Some(client.number)));
            match found {
                Some(end) => {
                    self.check_pair(client, end);
                    self.check_pair(end, client);
                }
                // Neither end sent anything, so they never learned who the other is.
                None if client.total == 0 && client.ended && client.error.is_none() => {}
                None if refused && self.is_rejected(client) => {}
                None if client.number > self.must_be_served && !self.waits_in_vain(client) => {
                    self.not_served(client);
                }
                None if may_refuse && client.received == 0 => {}
                None if refused && self.may_be_refused(client) => {}
                // Nobody listened any more, or not again yet.
                None if stopped_early && client.error.is_some() => {}
                None if self.broker_died && client.error == Some(libc::ECONNREFUSED) => {}
                None if self.was_cut_off(client) => {}
                None => self.not_served(client),
            }
        }
    }

    /// Whether another client may have had the only place there is, for too long.
    fn waits_in_vain(&self, client: &End) -> bool {
        let mut others = self
            .clients
            .iter()
            .filter(|other| other.number > self.must_be_served && other.partner.is_some());
        self.settings.refuses
            && others.any(|other| other.left.map(|left| left + SECOND) > client.left)
    }

    /// Whether its remote may have reset the connection before either knew the other's number.
    fn was_cut_off(&self, client: &End) -> bool {
        let mut ends = self.ends.values();
        ends.any(|end| self.is_excused(end) && end.partner.is_none() && client.may_know(end))
    }

    pub(super) fn not_served(&self, client: &End) {
        kernel(|kernel| kernel.violated(format!("client {} was not served", client.number)));
    }

    pub(super) fn describe_unrest(&self) {
        let mut waits = Vec::new();
        for end in self.clients.iter().chain(self.ends.values()).filter(|end| !end.is_done()) {
            waits.push(format!(
                "{} ({:?}, sent {} of {}, got {}, shut {}, ended {}, partner {:?}, #{:?})",
                end.number,
                end.manner,
                end.sent,
                end.total,
                end.received,
                end.shut,
                end.ended,
                end.partner,
                end.stream
            ));
        }
        kernel(|kernel| {
            for (id, object) in &kernel.objects {
                if let Kind::Stream(stream) = &object.kind {
                    waits.push(format!(
                        "#{id} to {:?}: {} out of {}, {} in of {}, ready {:?}",
                        stream.peer,
                        stream.outgoing.len(),
                        stream.room,
                        stream.incoming.len(),
                        stream.window,
                        (stream.is_readable(), stream.is_writable(), stream.mark_in)
                    ));
                }
            }
        });
        for worker in self.workers.values() {
            let open = worker.open();
            waits.push(format!("{} has {open} sessions", worker.process));
        }
        let counted = broker(|broker| broker.broker.connections());
        waits.push(format!("the broker counts {counted:?}"));
        kernel(|kernel| kernel.violated(format!("no end: {}", waits.join("; "))));
    }
}

fn streams_of(kernel: &mut Kernel, process: Process) -> usize {
    let own = kernel.descriptors.values().filter(|entry| entry.process == process);
    let is_stream = |id: &Id| {
        matches!(kernel.objects.get(id).map(|object| &object.kind), Some(Kind::Stream(_)))
    };
    own.map(|entry| entry.object).filter(is_stream).count()
}
