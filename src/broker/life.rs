//! The broker process: its life from the first bind to its end.

use super::acl::Acl;
use super::connection::Connection;
use super::handover::Handover;
use super::kind;
use super::listeners::Listeners;
use super::policy::{Limits, Policy, WorkerId};
use super::reload::{Check, Due, Purpose};
use super::sticky::Stickiness;
use super::text;
use super::watch::{Patience, Watch};
use super::worker::{Restart, Worker};
use crate::channel::local::LocalWorker;
use crate::config::broker::{self as config, Overload, Stop};
use crate::event::{Event, Interest, Loop, TimerId, Token};
use crate::os::pidfile::PidFile;
use crate::os::process::{self, exit, Pid, Program};
use crate::os::shm::Segment;
use crate::os::signals::{Arrived, Signal, Signals};
use crate::os::title::{State, Title};
use crate::os::{self, log, supervisor};
use crate::snapshot::material::Material;
use crate::tls::tickets::Ratchet;
use crate::upstream::leases::Leases;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// How often workers beyond the minimum are looked at, in milliseconds.
const TRIM_PERIOD: u64 = 4000;

/// What the command line and the start of the process decide.
#[derive(Clone, Debug)]
pub struct Options {
    /// Base name of argv\[0], for titles.
    pub name: String,
    /// What is executed on reload.
    pub executable: PathBuf,
    /// The original arguments, argv\[0] included.
    pub arguments: Vec<OsString>,
    /// The original environment.
    pub environment: Vec<(OsString, OsString)>,
    /// How workers are started.
    pub worker: Program,
    /// Workers are this program, which reports that it is ready.
    pub workers_report: bool,
    /// Descriptor 0 is a listening socket.
    pub inetd: bool,
    /// The process went to the background.
    pub background: bool,
}

/// What is for our own workers only.
#[derive(Debug)]
pub struct Secrets {
    /// Contents of the files that TLS needs.
    pub material: Material,
    /// Keys of session tickets.
    pub tickets: Ratchet,
}

/// How far the broker is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// Connections are taken.
    Serving,
    /// No connections are taken; it ends when all sessions have.
    Draining,
    /// The process is to end, with this status.
    Ended(i32),
}

/// The broker.
pub struct Broker {
    pub(super) options: Options,
    pub(super) overload: Overload,
    pub(super) channel_buffer: i32,
    pub(super) listeners: Listeners,
    pub(super) acl: Acl,
    pub(super) sticky: Stickiness,
    pub(super) policy: Policy,
    pub(super) workers: BTreeMap<WorkerId, Worker>,
    pub(super) next_worker: u32,
    pub(super) local: Option<Box<dyn LocalWorker>>,
    pub(super) restart: Restart,
    pub(super) watch: Watch,
    pub(super) parked: VecDeque<Connection>,
    /// Connections that have found a worker in this turn, and are about to be sent.
    pub(super) outbox: Vec<(WorkerId, Connection)>,
    pub(super) overloaded: bool,
    pub(super) resume: Option<TimerId>,
    pub(super) accept_trouble: bool,
    pub(super) check: Option<Check>,
    pub(super) due: Due,
    pub(super) trim: Option<TimerId>,
    pub(super) signals: Signals,
    pub(super) pid_file: Option<PidFile>,
    /// The texts that workers parse; without them they read the files.
    pub(super) snapshot: Option<OwnedFd>,
    /// The configuration for workers that may not read the file; kept as long as we run.
    pub(super) shared: Option<Segment>,
    /// What workers are told that only we may read.
    pub(super) secrets: Secrets,
    /// What workers know in common about remotes.
    pub(super) leases: Leases,
    launcher: Option<File>,
    pub(super) announced: bool,
    pub(super) life: Life,
    /// What SIGTERM does.
    stop: Stop,
    /// Children that keep the sessions of a single process that was reloaded.
    pub(super) keepers: BTreeSet<Pid>,
    pub(super) title: Title,
    title_of: Option<(usize, usize, bool)>,
}

/// What [`Broker::start`] needs besides the configuration.
pub struct Start {
    /// Command line and environment.
    pub options: Options,
    /// This is the next image of a broker.
    pub reloaded: bool,
    /// The texts of the configuration, for workers.
    pub snapshot: Option<OwnedFd>,
    /// The copy of the configuration in shared memory.
    pub shared: Option<Segment>,
    /// What workers are told that only this process may read.
    pub secrets: Secrets,
    /// Sockets of the service manager.
    pub activated: Vec<OwnedFd>,
    /// The pipe to the process that launched us into the background.
    pub launcher: Option<File>,
    /// The relay of single-process mode, with the most connections it can handle.
    pub local: Option<(Box<dyn LocalWorker>, usize)>,
}

impl Broker {
    /// Binds everything and starts the first workers. On failure: the exit status, and what a
    /// former image has left is still there.
    pub fn start(
        mut config: config::Broker,
        mut start: Start,
        handover: &mut Handover,
        events: &mut Loop,
    ) -> Result<Broker, i32> {
        let mut listeners = Listeners::new(&mut config, start.options.inetd);
        let none = listeners.is_empty() && start.activated.is_empty() && !handover.has_activated();
        if none && start.reloaded {
            log::message("FATAL: No listeners defined.");
            return Err(exit::OS_ERROR);
        }
        let signals = Signals::install(&[
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGUSR1,
            Signal::SIGCHLD,
        ])
        .map_err(|error| {
            log::message(&format!("sigaction: {}", os::reason(&error)));
            exit::OS_ERROR
        })?;
        events.register(signals.descriptor(), Token::new(kind::SIGNALS, 0), Interest::READ);
        let mut limits = Limits {
            instances_min: config.spawn.instances_min,
            instances_max: config.spawn.instances_max,
            users_min: config.spawn.users_min,
            users_max: config.spawn.users_max,
        };
        let local = start.local.take().map(|(local, users_max)| {
            limits = Limits { instances_min: 1, instances_max: 1, users_min: users_max, users_max };
            local
        });
        let mut handover = std::mem::take(handover);
        super::handover::publish_snapshot(start.snapshot.as_ref());
        if start.options.inetd {
            listeners.adopt_standard_input()?;
        }
        listeners.bind(handover.listeners, start.activated, start.reloaded, events)?;
        let mut broker = Broker {
            overload: config.overload,
            channel_buffer: config.channel_buffer,
            sticky: Stickiness::new(config.sticky, listeners.stickiness()),
            listeners,
            acl: Acl::new(config.acl),
            policy: Policy::new(limits),
            workers: BTreeMap::new(),
            next_worker: 0,
            local,
            // What was in service is not given up because workers do not start at once.
            restart: Restart::new(start.reloaded),
            watch: Watch::new(Patience {
                start: u64::from(config.spawn.start_timeout) * 1000,
                stall: u64::from(config.spawn.stall_timeout) * 1000,
            }),
            parked: VecDeque::new(),
            outbox: Vec::new(),
            overloaded: false,
            resume: None,
            accept_trouble: false,
            check: None,
            due: Due::default(),
            trim: None,
            signals,
            pid_file: handover.pid_file.take(),
            snapshot: start.snapshot.take(),
            shared: start.shared.take(),
            secrets: start.secrets,
            leases: Leases::default(),
            launcher: start.launcher.take(),
            announced: false,
            life: Life::Serving,
            stop: config.stop.unwrap_or_else(default_stop),
            keepers: std::mem::take(&mut handover.keepers).into_iter().collect(),
            title: Title::new(&start.options.name),
            title_of: None,
            options: start.options,
        };
        broker.adopt_workers(handover.workers, events);
        if start.reloaded {
            // Whoever has ended while there was nobody to be told.
            broker.reap(events);
        }
        if broker.local.is_some() {
            log::message(
                "Warning: Running in degraded mode. This is unsuitable for real-life usage.",
            );
            broker.start_local();
        } else {
            broker.start_missing_workers(events);
        }
        // Without workers to wait for, the first client's is started when it comes.
        let none = broker.policy.limits().instances_min == 0;
        if broker.local.is_some() || !broker.options.workers_report || none {
            broker.announce(events);
        }
        broker.adopt_parked(handover.parked, events);
        broker.refresh_title();
        Ok(broker)
    }

    /// How many connections all workers may have.
    pub fn limit(&self) -> usize {
        self.policy.limit()
    }

    /// Connections that workers have, those that wait for one, and those of workers that leave.
    pub fn connections(&self) -> usize {
        let left: usize = self.workers.values().map(|worker| worker.users).sum();
        self.policy.total() + self.parked.len() + left
    }

    /// Serves until the process is to end; returns its exit status.
    pub fn run(&mut self, events: &mut Loop) -> i32 {
        loop {
            if let Some(status) = self.turn(events) {
                return status;
            }
        }
    }

    /// Waits for something to happen, and does what is to be done about it. The exit status, if
    /// the process is to end.
    pub fn turn(&mut self, events: &mut Loop) -> Option<i32> {
        self.follow_local_limit(events);
        if let Err(error) = events.wait(None) {
            log::message(&format!("event loop: {}", os::reason(&error)));
            return Some(exit::SOFTWARE);
        }
        while let Some(event) = events.next_event() {
            self.event(event, events);
        }
        while let Some((timer, token)) = events.next_expired() {
            self.timer(timer, token, events);
        }
        self.collect_local(events);
        self.place_orphans(events);
        self.watch_check(events);
        self.finish_draining(events);
        match self.life {
            Life::Ended(status) => Some(status),
            _ => {
                self.refresh_title();
                None
            }
        }
    }

    /// True while connections are taken, and workers started.
    pub(super) fn is_serving(&self) -> bool {
        self.life == Life::Serving
    }

    /// The process is to end.
    pub(super) fn end(&mut self, status: i32) {
        self.life = Life::Ended(status);
    }

    fn event(&mut self, event: Event, events: &mut Loop) {
        let index = event.token.index() as usize;
        match event.token.kind() {
            kind::SIGNALS => {
                let arrived = self.signals.take();
                self.signal(arrived, events);
            }
            kind::LISTENER => self.accept(index, events),
            kind::WORKER => self.worker_event(WorkerId(event.token.index()), event, events),
            kind::CHECK => self.check_event(event, events),
            _ => {
                if let Some(local) = &mut self.local {
                    local.event(events, event);
                }
            }
        }
    }

    fn timer(&mut self, timer: TimerId, token: Token, events: &mut Loop) {
        let index = token.index() as usize;
        match token.kind() {
            kind::BIND_RETRY => {
                self.listeners.bind_again(index, events);
            }
            kind::RESTART => {
                self.restart.expired();
                self.start_missing_workers(events);
                self.unpark(events);
            }
            kind::TRIM => {
                self.trim = None;
                self.dismiss_superfluous(events);
            }
            kind::WATCH => self.watch_workers(events),
            kind::CHECK_TIMEOUT => self.check_timed_out(events),
            kind::CHECK_DUE => self.check_what_is_due(events),
            kind::RESUME => {
                self.resume = None;
                self.unpark(events);
                self.update_listeners(events);
            }
            _ => {
                if let Some(local) = &mut self.local {
                    local.timer(events, timer, token);
                }
            }
        }
    }

    pub(super) fn signal(&mut self, arrived: Arrived, events: &mut Loop) {
        if arrived.has(Signal::SIGTERM) || arrived.has(Signal::SIGINT) {
            // Before anything else: a check that has ended meanwhile must not start an image
            // that knows nothing of this signal.
            match (self.life, self.stop) {
                (Life::Serving, Stop::Drain) => self.drain(events),
                _ => self.terminate(events),
            }
        }
        if arrived.has(Signal::SIGCHLD) {
            self.reap(events);
        }
        if !self.is_serving() {
            return;
        }
        if arrived.has(Signal::SIGHUP) {
            if self.options.inetd {
                // inetd starts a new one with the next connection.
                self.terminate(events);
            } else {
                self.check_and(Purpose::Reload, events);
            }
        }
        if arrived.has(Signal::SIGUSR1) && self.local.is_none() {
            self.check_and(Purpose::ReplaceWorkers, events);
        }
    }

    /// The end of the broker. Connections go on in the workers until they end.
    fn terminate(&mut self, events: &mut Loop) {
        supervisor::notify("STOPPING=1");
        log::message(text::EXITING);
        self.end(0);
        self.end_check();
        self.dismiss_all(events);
        self.listeners.remove_paths();
        self.remove_pid_file();
        match &mut self.local {
            Some(local) if local.sessions() == 0 => local.end(events),
            Some(_) => self.leave_sessions_to_child(events),
            None => {}
        }
    }

    /// SIGTERM with `stop = drain`: nothing new is taken, and the broker stays until the sessions
    /// have ended, or were ended by the drain timeout.
    fn drain(&mut self, events: &mut Loop) {
        supervisor::notify("STOPPING=1");
        // Whoever has been let in by the kernel is served as well.
        for index in 0..self.listeners.len() {
            self.accept_backlog(index, events);
        }
        self.life = Life::Draining;
        self.end_check();
        self.listeners.remove_paths();
        self.listeners.close(events);
        self.refuse_parked();
        self.dismiss_all(events);
        if let Some(local) = &mut self.local {
            local.drain(events);
        }
        let count = self.sessions();
        log::message(&format!("SIGTERM: no longer accepting, waiting for {count} sessions to end"));
    }

    /// Sessions that go on, in whatever process.
    fn sessions(&self) -> usize {
        let local = self.local.as_ref().map_or(0, |local| local.sessions());
        local + self.workers.values().map(|worker| worker.users).sum::<usize>()
    }

    /// Ends a broker that drains and has nothing to wait for any more.
    fn finish_draining(&mut self, events: &mut Loop) {
        let idle = self.local.as_ref().is_none_or(|local| local.sessions() == 0)
            && self.workers.is_empty()
            && self.keepers.is_empty();
        if self.life == Life::Draining && idle {
            self.collect_orphans();
            self.refuse_parked();
            log::message(text::EXITING);
            self.end(0);
            self.remove_pid_file();
            if let Some(local) = &mut self.local {
                local.end(events);
            }
        }
    }

    pub(super) fn remove_pid_file(&mut self) {
        drop(self.pid_file.take());
    }

    /// Tells the service manager and the launcher that connections are served.
    pub(super) fn announce(&mut self, events: &mut Loop) {
        if !self.announced {
            self.announced = true;
            if let Some(mut launcher) = self.launcher.take() {
                let _ = launcher.write_all(&[0]);
            }
            supervisor::notify("READY=1");
            self.check_what_is_due(events);
        }
    }

    /// Arms the timer that looks for superfluous workers, while there may be any.
    pub(super) fn schedule_trim(&mut self, events: &mut Loop) {
        if self.trim.is_none() && self.policy.len() > self.policy.limits().instances_min {
            self.trim = Some(events.arm(Token::new(kind::TRIM, 0), events.now() + TRIM_PERIOD));
        }
    }

    /// Sets the process title if it has changed.
    pub(super) fn refresh_title(&mut self) {
        if self.life == Life::Draining {
            let left = self.sessions();
            if self.title_of != Some((left, 0, false)) {
                self.title_of = Some((left, 0, false));
                self.title.connections(left).state(State::Leaving).show();
            }
            return;
        }
        let (total, limit) = (self.policy.total(), self.policy.limit());
        if self.title_of == Some((total, limit, self.overloaded)) {
            return;
        }
        self.title_of = Some((total, limit, self.overloaded));
        let state = match self.overloaded {
            false => State::Accepting { more: limit.saturating_sub(total) },
            true => State::Full { doing: text::doing(self.overload) },
        };
        self.title.connections(total).state(state).show();
    }
}

/// What SIGTERM does if the configuration does not say. With process 1 of a container all others
/// end at once, so it stays as long as there are sessions.
fn default_stop() -> Stop {
    if process::id() == 1 {
        Stop::Drain
    } else {
        Stop::Now
    }
}
