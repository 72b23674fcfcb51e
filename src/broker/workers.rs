//! The workers of a broker, and the monitor: starts them, hears them, lets them go, and chooses the
//! worker that gets a connection.

mod counting;
mod flow;
mod giving;
mod hearing;
mod inbox;
mod leaving;
mod monitor;
mod restart;
mod signer;
mod watch;
mod worker;

use super::clients::{ClientTable, Held};
use super::handover::{publish_snapshot, LeftWorker};
use super::kind;
use super::policy::{Limits, Policy, WorkerId};
use super::sticky::Stickiness;
use super::text;
use super::worker_process::{self, Started};
use crate::channel::broker_side::{BrokerSide, Stage};
use crate::channel::local::LocalWorker;
use crate::channel::protocol::Errand;
use crate::channel::Peer;
use crate::config::broker::Spawn;
use crate::event::{Loop, TimerId, Token};
use crate::os::anonymous::Bytes;
use crate::os::process::{self, exit, Ended, Pid, Program};
use crate::os::socket::Blocking;
use crate::os::{self, log, Channel};
use crate::snapshot::material::Material;
use crate::tls::tickets::Ratchet;
use crate::upstream::leases::Leases;
use crate::upstream::zone::counters::General;
use inbox::Orphans;
use monitor::Monitor;
use restart::{Restart, SETTLED};
use signer::Signer;
pub use signer::{SIGNER_ARGUMENT, SIGNER_VARIABLE};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::rc::Rc;
use watch::{Patience, Watch};
use worker::Worker;

/// In single-process mode the relay in this process counts as the only worker.
const LOCAL_WORKER: WorkerId = WorkerId(0);

/// Who serves the connections. Fixed when the broker starts.
pub enum Servers {
    /// Processes of this program. They say when they are ready, and are told the secrets that they
    /// may not read themselves.
    Own(Program),
    /// Processes of another program, which may never say that they are ready.
    Foreign(Program),
    /// This process (single-process mode).
    Local {
        /// The relay.
        worker: Box<dyn LocalWorker>,
        /// The most connections it can handle.
        users_max: usize,
    },
}

impl Servers {
    fn limits(&self, spawn: &Spawn) -> Limits {
        match *self {
            Servers::Local { users_max, .. } => {
                Limits { instances_min: 1, instances_max: 1, users_min: users_max, users_max }
            }
            _ => Limits {
                instances_min: spawn.instances_min,
                instances_max: spawn.instances_max,
                users_min: spawn.users_min,
                users_max: spawn.users_max,
            },
        }
    }
}

/// Told only to our own workers, never to other programs.
#[derive(Debug)]
pub struct Secrets {
    /// Contents of the files that TLS needs.
    pub material: Rc<Material>,
    /// Keys of session tickets.
    pub tickets: Ratchet,
    /// The configuration has something for a monitor to do.
    pub monitored: bool,
}

/// News that concern the whole broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// A worker is ready.
    Ready,
    /// There can be no service: the broker is to exit with this status.
    End(i32),
    /// The monitor says what becomes of a client of the control socket.
    Errand(Errand),
}

/// The workers, and everything that is known about them.
pub(super) struct Workers {
    servers: Servers,
    all: BTreeMap<WorkerId, Worker>,
    next: u32,
    policy: Policy,
    sticky: Stickiness,
    restart: Restart,
    watch: Watch,
    orphans: Orphans,
    trim: Option<TimerId>,
    channel_buffer: i32,
    /// The texts that workers parse; without them they read the files.
    snapshot: Option<Bytes>,
    secrets: Secrets,
    leases: Leases,
    monitor: Monitor,
    /// The process with the private keys, if it is needed.
    signer: Option<Signer>,
    /// Those of former configurations that have not got the streams of all their workers yet.
    former_signers: Vec<Signer>,
    /// It is not started again before a pause is over.
    signer_paused: bool,
    /// The sessions of clients; those of each worker are there.
    clients: ClientTable,
    /// Those of the relay in this process.
    local_clients: Held,
    /// It was logged that sessions of clients cannot be counted.
    uncounted: bool,
    /// No more workers are started.
    closing: bool,
    news: VecDeque<News>,
}

/// What workers are started with.
pub(super) struct Setup<'a> {
    pub(super) spawn: &'a Spawn,
    pub(super) channel_buffer: i32,
    pub(super) sticky: Stickiness,
    pub(super) snapshot: Option<Bytes>,
    pub(super) secrets: Secrets,
    /// A service is running, which must not be given up because workers do not start at once.
    pub(super) settled: bool,
    pub(super) clients: ClientTable,
}

impl Workers {
    /// Without worker processes; the relay of single-process mode is there at once.
    pub(super) fn new(servers: Servers, setup: Setup<'_>) -> Workers {
        let Setup { spawn, channel_buffer, sticky, snapshot, secrets, settled, clients } = setup;
        publish_snapshot(snapshot.as_ref());
        let mut policy = Policy::new(servers.limits(spawn));
        if let Servers::Local { .. } = servers {
            policy.add_ready(LOCAL_WORKER);
        }
        let mut leases = Leases::default();
        leases.set_monitored(secrets.monitored && matches!(servers, Servers::Own(_)));
        Workers {
            servers,
            all: BTreeMap::new(),
            next: 0,
            policy,
            sticky,
            restart: Restart::new(settled),
            watch: Watch::new(Patience::of(spawn)),
            orphans: Orphans::default(),
            trim: None,
            channel_buffer,
            snapshot,
            monitor: Monitor::new(secrets.monitored),
            secrets,
            leases,
            signer: None,
            former_signers: Vec::new(),
            signer_paused: false,
            clients,
            local_clients: Held::default(),
            uncounted: false,
            closing: false,
            news: VecDeque::new(),
        }
    }

    /// True if there are news.
    #[inline]
    pub(super) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// The next of the news.
    pub(super) fn take_news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// How many connections each worker has, and may have.
    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The relay in this process, in single-process mode.
    pub(super) fn local(&self) -> Option<&dyn LocalWorker> {
        match &self.servers {
            Servers::Local { worker, .. } => Some(&**worker),
            _ => None,
        }
    }

    /// As [`local`](Self::local).
    pub(super) fn local_mut(&mut self) -> Option<&mut Box<dyn LocalWorker>> {
        match &mut self.servers {
            Servers::Local { worker, .. } => Some(worker),
            _ => None,
        }
    }

    /// True if connections can be served before any worker has said that it is ready.
    pub(super) fn serve_at_once(&self) -> bool {
        // Without a minimum, the first worker is started when a client comes.
        !matches!(self.servers, Servers::Own(_)) || self.policy.limits().instances_min == 0
    }

    /// Whether sockets block when workers get them: other programs expect them as from the C
    /// broker.
    pub(super) fn blocking(&self) -> Blocking {
        match self.servers {
            Servers::Foreign(_) => Blocking::Yes,
            Servers::Own(_) | Servers::Local { .. } => Blocking::No,
        }
    }

    /// The sessions of clients.
    pub(super) fn clients(&self) -> &ClientTable {
        &self.clients
    }

    /// True if there is no worker process.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Sessions of leaving workers, and of the relay in this process.
    pub(super) fn sessions(&self) -> usize {
        let local = self.local().map_or(0, LocalWorker::sessions);
        local + self.all.values().map(|worker| worker.users).sum::<usize>()
    }

    /// Connections that workers were given and have not reported as ended.
    pub(super) fn connections(&self) -> usize {
        let left: usize = self.all.values().map(|worker| worker.users).sum();
        self.policy.total() + left
    }

    /// Starts workers up to the minimum.
    pub(super) fn start_missing(&mut self, events: &mut Loop) {
        while self.policy.missing() > 0 && self.start(events) {}
    }

    /// Starts one worker; false if none may be started now, or the start fails.
    pub(super) fn start(&mut self, events: &mut Loop) -> bool {
        if self.restart.is_paused() || self.closing {
            return false;
        }
        match self.try_start(events) {
            Ok(started) => {
                if started {
                    self.count(General::WorkersStarted);
                }
                self.schedule_trim(events);
                self.schedule_watch(events);
                started
            }
            Err((call, error)) => {
                log::braked(log::Kind::Worker, || format!("{call}: {}", os::reason(&error)));
                self.restart.failed_to_start(events);
                false
            }
        }
    }

    fn try_start(&mut self, events: &mut Loop) -> Result<bool, (&'static str, io::Error)> {
        let (program, peer) = match &self.servers {
            Servers::Own(program) => (program, Peer::Ours),
            Servers::Foreign(program) => (program, Peer::Foreign),
            Servers::Local { .. } => return Ok(false),
        };
        let kept = self.snapshot.as_ref().map(AsRawFd::as_raw_fd);
        let Started { pid, channel, inbox } =
            worker_process::start(program, self.channel_buffer, kept)?;
        let worker = Worker::new(
            pid,
            channel,
            Some(inbox),
            BrokerSide::new(peer),
            Rc::clone(&self.secrets.material),
            events.now(),
        );
        let id = self.add(worker, events);
        match peer {
            Peer::Foreign => self.policy.add_ready(id),
            Peer::Ours => self.policy.add_starting(id),
        }
        Ok(true)
    }

    fn add(&mut self, worker: Worker, events: &mut Loop) -> WorkerId {
        // Ids wrap around at the largest that a token can hold, and skip those still in use.
        let id = loop {
            let id = WorkerId(self.next);
            self.next = (self.next + 1) % Token::INDICES;
            if !self.all.contains_key(&id) {
                break id;
            }
        };
        worker.register(Token::new(kind::WORKER, id.0), events);
        self.all.insert(id, worker);
        id
    }

    /// Takes over the workers of the former image, and asks them to leave.
    pub(super) fn adopt(&mut self, former: Vec<LeftWorker<Channel>>, events: &mut Loop) {
        for LeftWorker { pid, channel, inbox, users, heard, clients } in former {
            let side = if heard { BrokerSide::adopted_heard() } else { BrokerSide::adopted() };
            let mut worker = Worker::new(
                pid,
                channel,
                inbox,
                side,
                Rc::clone(&self.secrets.material),
                events.now(),
            );
            worker.users = users;
            worker.held = self.clients.resume(&clients);
            let id = self.add(worker, events);
            if let Some(worker) = self.all.get_mut(&id) {
                // The former image may have asked already; asking twice does no harm.
                worker.farewell(events);
            }
        }
        self.schedule_watch(events);
    }

    /// The log file was opened again: whoever has the former descriptor gets this one.
    pub(super) fn give_log(&mut self, events: &mut Loop) {
        let own = matches!(self.servers, Servers::Own(_));
        let monitor = self.monitor.child_mut();
        for worker in self.all.values_mut().chain(monitor) {
            // C programs know no such message.
            if own || worker.side.peer() == Peer::Ours {
                worker.give_log(events);
            }
        }
        self.give_log_to_signer(events);
    }

    /// The workers, for the next image.
    pub(super) fn left(&self) -> Vec<LeftWorker<BorrowedFd<'_>>> {
        let left =
            |(&id, worker): (&WorkerId, &'_ Worker)| self.policy.users(id).unwrap_or(worker.users);
        let users = self.all.iter().map(left);
        let workers = self.all.values().zip(users);
        workers
            .map(|(worker, users)| LeftWorker {
                channel: worker.channel().as_fd(),
                inbox: worker.inbox().map(AsFd::as_fd),
                pid: worker.pid,
                users,
                heard: worker.side.has_been_heard(),
                clients: worker.held.left(),
            })
            .collect()
    }

    /// The files for TLS.
    pub(super) fn material(&self) -> &Material {
        &self.secrets.material
    }

    /// The secrets as workers are told them now.
    pub(super) fn secrets(&mut self) -> &Secrets {
        self.secrets.tickets.advance(os::wall_clock());
        &self.secrets
    }

    /// Gives workers that are started from now on what was checked; with `None` they read the files
    /// themselves.
    pub(super) fn renew(
        &mut self,
        checked: Option<(Rc<Material>, u32, Option<Bytes>)>,
        events: &mut Loop,
    ) {
        self.leave_signer(events);
        let snapshot = checked.and_then(|(material, session_timeout, snapshot)| {
            self.secrets.material = material;
            self.secrets.tickets.set_period(session_timeout.into());
            snapshot.filter(|_| matches!(self.servers, Servers::Own(_)))
        });
        publish_snapshot(snapshot.as_ref());
        self.snapshot = snapshot;
    }

    /// Kills a worker that cannot be trusted, or that hangs. It is replaced after a pause.
    fn expel(&mut self, id: WorkerId, why: &str, events: &mut Loop) {
        let Some(worker) = self.all.get_mut(&id) else {
            return;
        };
        let pid = worker.pid;
        let served = !worker.side.is_starting();
        let missed = !worker.side.is_leaving();
        worker.side.expelled();
        worker.abandon();
        worker.ignore(events);
        let inbox = worker.take_inbox();
        log::braked(log::Kind::Worker, || text::killed(pid as u32, why));
        process::kill(pid);
        self.policy.remove(id);
        self.sticky.forget(id);
        self.orphans.add(inbox);
        self.count(General::WorkersDied);
        if missed && !self.closing {
            self.start_failed(served, events);
            self.start_missing(events);
        }
    }

    /// True if there is or was a service, which does not end because a worker cannot start. Workers
    /// of other programs may never say that they are ready, so their age counts.
    fn has_served(&self, now: u64) -> bool {
        let foreign = matches!(self.servers, Servers::Foreign(_));
        let serves = |worker: &Worker| {
            let settled = now.saturating_sub(worker.started) >= SETTLED;
            worker.side.stage() == Stage::Ready || foreign && settled
        };
        self.restart.was_ever_ready() || self.all.values().any(serves)
    }

    fn give_up(&mut self, status: i32, events: &mut Loop) {
        self.close(events);
        self.news.push_back(News::End(status));
    }

    /// The channel is full: the worker gets no connections until there is room.
    pub(super) fn set_blocked(&mut self, id: WorkerId, why: &io::Error, events: &mut Loop) {
        self.policy.set_blocked(id, true);
        if let Some(worker) = self.all.get(&id) {
            worker.await_room(why, events);
        }
    }

    /// The pause after failed starts is over.
    pub(super) fn pause_is_over(&mut self, events: &mut Loop) {
        self.restart.expired();
        self.start_missing(events);
    }

    /// A worker's channel no longer takes anything. The worker may still have sessions, and report
    /// their end.
    pub(super) fn lost(&mut self, id: WorkerId, error: &io::Error) {
        let Some(worker) = self.all.get_mut(&id).filter(|worker| !worker.side.is_leaving()) else {
            return;
        };
        let pid = worker.pid;
        log::braked(log::Kind::Worker, || {
            format!("scm_send_msg, pid: {pid}: {}", os::reason(error))
        });
        worker.side.dismissed();
        worker.users = self.policy.remove(id).unwrap_or(0);
        self.orphans.add(worker.take_inbox());
        self.sticky.forget(id);
    }

    /// A child has ended, which may be a worker.
    pub(super) fn ended(&mut self, pid: Pid, ended: Ended, events: &mut Loop) {
        if self.signer_ended(pid, events) {
            return;
        }
        let id = self.all.iter().find(|(_, worker)| worker.pid == pid).map(|(&id, _)| id);
        let Some(id) = id else {
            return;
        };
        // Its last messages may say why it ended.
        self.hear(id, usize::MAX, events);
        self.policy.remove(id);
        self.sticky.forget(id);
        let Some(mut worker) = self.all.remove(&id) else {
            return;
        };
        worker.unregister(events);
        self.orphans.add(worker.take_inbox());
        if worker.side.is_leaving() || self.closing {
            return;
        }
        self.count(General::WorkersDied);
        let ready = worker.side.stage() == Stage::Ready;
        if events.now() - worker.started >= SETTLED {
            return self.restart.settled();
        }
        if ended == Ended::Status(0) && ready && worker.served {
            return;
        }
        self.start_failed(ready, events);
    }

    /// Takes over the zone of the former image.
    pub(super) fn adopt_zone(&mut self, zone: crate::os::shared::Object, slots: &[(Pid, usize)]) {
        // The relay in this process has a zone of its own.
        if self.local().is_none() {
            self.leases.adopt(zone, slots);
        }
    }

    /// The zone, for the next image.
    pub(super) fn left_zone(&self) -> Option<(BorrowedFd<'_>, Vec<(Pid, usize)>)> {
        match self.local() {
            Some(local) => Some((local.zone()?, Vec::new())),
            None => self.leases.left(),
        }
    }

    /// A process has ended and writes no more into the zone, so its slot is cleared for another.
    pub(super) fn release(&mut self, pid: Pid) {
        self.leases.ended(pid);
    }

    /// A worker did not live long; `ready` if it served.
    fn start_failed(&mut self, ready: bool, events: &mut Loop) {
        if ready {
            return self.restart.died_young(events);
        }
        if !self.has_served(events.now()) && self.restart.is_hopeless() {
            log::message("Giving up. Spawned server processes are probably broken.");
            return self.give_up(exit::TEMPORARY, events);
        }
        self.restart.failed_to_start(events);
    }
}
