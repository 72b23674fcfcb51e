//! The broker process: its life from the first bind to its end.

use super::acl::Acl;
use super::handover::{Handover, LeftListener, ACTIVATED};
use super::listener::{cache, remove_file, separate_families, Listener};
use super::policy::{Limits, Policy, WorkerId};
use super::reload::{Check, Due, Purpose};
use super::sticky::Cache;
use super::watch::{Patience, Watch};
use super::worker::{Restart, Worker};
use crate::channel::local::{LocalWorker, LOCAL_KINDS};
use crate::channel::protocol::Accept;
use crate::config::broker::{self as config, Overload, Stop};
use crate::config::listen::Resolver;
use crate::event::{Event, Interest, Loop, TimerId, Token};
use crate::os::address::Address;
use crate::os::pidfile::PidFile;
use crate::os::process::{self, exit, Pid, Program};
use crate::os::shm::Segment;
use crate::os::signals::{Arrived, Signal, Signals};
use crate::os::socket::{self, Inherited, MOST_BACKLOG};
use crate::os::title::{Title, LEFT};
use crate::os::{self, log, supervisor};
use crate::snapshot::material::Material;
use crate::tls::tickets::Ratchet;
use crate::upstream::leases::Leases;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

/// Who owns a descriptor or timer of the broker. Kinds from [`LOCAL_KINDS`] on belong to the
/// relay of single-process mode.
pub(super) mod kind {
    pub(crate) const SIGNALS: u8 = 0;
    pub(crate) const LISTENER: u8 = 1;
    pub(crate) const WORKER: u8 = 2;
    pub(crate) const CHECK: u8 = 3;
    pub(crate) const BIND_RETRY: u8 = 4;
    pub(crate) const RESTART: u8 = 5;
    pub(crate) const TRIM: u8 = 6;
    pub(crate) const RESUME: u8 = 7;
    pub(crate) const CHECK_TIMEOUT: u8 = 8;
    pub(crate) const WATCH: u8 = 9;
    pub(crate) const CHECK_DUE: u8 = 10;
}

/// All kinds of the broker are below those of a worker in the same loop.
const _: () = assert!(kind::CHECK_DUE < LOCAL_KINDS);

/// How often binding is tried again if nothing could be bound after a reload, in seconds.
const RELOAD_RETRY: u32 = 2;

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

/// A connection that no worker can take at the moment.
pub(super) struct Parked {
    pub(super) socket: OwnedFd,
    /// Where it came from, if that listener is still there.
    pub(super) listener: Option<usize>,
    /// What a worker is told about it.
    pub(super) accept: Accept,
    pub(super) datagram: Option<Vec<u8>>,
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
    pub(super) listeners: Vec<Listener>,
    pub(super) acl: Acl,
    pub(super) sticky: Option<Cache>,
    pub(super) policy: Policy,
    pub(super) workers: BTreeMap<WorkerId, Worker>,
    pub(super) next_worker: u32,
    pub(super) local: Option<Box<dyn LocalWorker>>,
    pub(super) restart: Restart,
    pub(super) watch: Watch,
    pub(super) parked: VecDeque<Parked>,
    /// Connections that have found a worker in this turn, and are about to be sent.
    pub(super) outbox: Vec<(WorkerId, Parked)>,
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
        let mut listeners = resolve_listeners(&mut config, start.options.inetd);
        separate_families(&mut listeners);
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
        let mut broker = Broker {
            overload: config.overload,
            channel_buffer: config.channel_buffer,
            listeners,
            acl: Acl::new(config.acl),
            sticky: cache(config.sticky),
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
        super::handover::publish_snapshot(broker.snapshot.as_ref());
        broker.bind(handover.listeners, start.activated, start.reloaded, events)?;
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

    /// Opens the listeners: sockets of a former image or of the service manager are used where
    /// they fit. Fails only if nothing could be bound and nothing will be retried; after a reload
    /// it is, as the former sessions still go on here.
    fn bind(
        &mut self,
        mut former: Vec<LeftListener>,
        activated: Vec<OwnedFd>,
        reloaded: bool,
        events: &mut Loop,
    ) -> Result<(), i32> {
        if self.options.inetd {
            self.adopt_standard_input()?;
        }
        let mut activated: Vec<Option<OwnedFd>> = activated
            .into_iter()
            .filter(|fd| socket::inspect(fd.as_raw_fd()) == Inherited::Listener)
            .map(Some)
            .collect();
        for listener in self.listeners.iter_mut().filter(|listener| listener.socket.is_none()) {
            let key = listener.key();
            let fits = |other: &str| other.strip_prefix(ACTIVATED).unwrap_or(other) == key;
            let taken = match former.iter().position(|other| fits(&other.key)) {
                Some(index) => {
                    let LeftListener { key, socket, file } = former.swap_remove(index);
                    listener.foreign = key.starts_with(ACTIVATED);
                    Some((socket, file))
                }
                None => {
                    let address = Some(&listener.address);
                    let same = |fd: &&mut Option<OwnedFd>| {
                        fd.as_ref().and_then(socket::local_address).as_ref() == address
                    };
                    let fd = activated.iter_mut().find(same).and_then(Option::take);
                    listener.foreign = fd.is_some();
                    fd.map(|fd| (fd, None))
                }
            };
            if let Some(Ok(())) = taken.map(|(fd, file)| listener.adopt(fd, file)) {
                log::message(&format!("bind to {} succeeded (inherited)", listener.address));
            }
        }
        // Sockets that nothing in the new configuration fits are closed before others are
        // opened: a listener may have got another address on the same port.
        former.retain(|left| {
            let keep = left.key.starts_with(ACTIVATED);
            if !keep {
                self.remove_abandoned_path(left);
            }
            keep
        });
        for listener in self.listeners.iter_mut().filter(|listener| listener.socket.is_none()) {
            listener.await_rival();
            listener.open();
        }
        let backlog = self.listeners.first();
        let backlog = backlog.map_or(MOST_BACKLOG, |listener| listener.config.backlog);
        for (fd, known) in former
            .into_iter()
            .map(|left| (left.socket, true))
            .chain(activated.into_iter().flatten().map(|fd| (fd, false)))
        {
            if let Ok(listener) = Listener::inherited(fd, backlog) {
                let how = if known { "inherited" } else { "socket activation" };
                log::message(&format!("bind to {} succeeded ({how})", listener.address));
                self.listeners.push(listener);
            }
        }
        if self.listeners.is_empty() {
            log::message("FATAL: No listeners defined.");
            return Err(exit::OS_ERROR);
        }
        let retry = self.listeners.iter().any(|listener| listener.config.retry_delay > 0);
        if self.listeners.iter().all(|listener| listener.socket.is_none()) && !retry {
            if !reloaded {
                log::message("Failed to bind to any address or port. Exiting.");
                return Err(exit::TEMPORARY);
            }
            log::message(&format!(
                "Failed to bind to any address or port. Will retry every {RELOAD_RETRY} seconds."
            ));
            for listener in &mut self.listeners {
                listener.config.retry_delay = RELOAD_RETRY;
            }
        }
        for index in 0..self.listeners.len() {
            self.watch_listener(index, events);
        }
        Ok(())
    }

    /// Removes the file of a UNIX socket that the new configuration does not have any more.
    fn remove_abandoned_path(&self, left: &LeftListener) {
        if let Some(address @ Address::Unix(_)) = socket::local_address(&left.socket) {
            let known = self.listeners.iter().any(|listener| listener.address == address);
            if let (Address::Unix(path), false) = (&address, known) {
                remove_file(path, &left.socket, left.file);
            }
        }
    }

    /// Descriptor 0 as the first listener (inetd wait mode).
    fn adopt_standard_input(&mut self) -> Result<(), i32> {
        match process::take_standard_input().and_then(|fd| Listener::inherited(fd, MOST_BACKLOG)) {
            Ok(listener) => {
                log::message(&format!("bind to {} succeeded (via inetd)", listener.address));
                self.listeners.insert(0, listener);
                Ok(())
            }
            Err(error) => {
                log::message(&format!("standard input: {}", os::reason(&error)));
                Err(exit::OS_ERROR)
            }
        }
    }

    /// Watches a listener, or arms the timer of its next attempt to bind.
    pub(super) fn watch_listener(&mut self, index: usize, events: &mut Loop) {
        let paused = self.is_paused();
        let listener = &mut self.listeners[index];
        match &listener.socket {
            Some(fd) => {
                let interest = if paused { Interest::empty() } else { Interest::READ };
                events.register(fd, Token::new(kind::LISTENER, index as u32), interest);
            }
            None if listener.config.retry_delay > 0 => {
                let deadline = events.now() + u64::from(listener.config.retry_delay) * 1000;
                let token = Token::new(kind::BIND_RETRY, index as u32);
                listener.retry = Some(events.arm(token, deadline));
            }
            None => {}
        }
    }

    /// How many connections all workers may have.
    pub fn limit(&self) -> usize {
        self.policy.limit()
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
                self.listeners[index].retry = None;
                self.listeners[index].open();
                self.watch_listener(index, events);
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
        log::message("SIGTERM: exiting");
        self.end(0);
        self.end_check();
        self.dismiss_all(events);
        for listener in &self.listeners {
            listener.remove_path();
        }
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
        for listener in &mut self.listeners {
            listener.remove_path();
            listener.close(events);
            if let Some(timer) = listener.retry.take() {
                events.cancel(timer);
            }
        }
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
            log::message("SIGTERM: exiting");
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
                self.title.connections(left).text(LEFT).show();
            }
            return;
        }
        let (total, limit) = (self.policy.total(), self.policy.limit());
        if self.title_of == Some((total, limit, self.overloaded)) {
            return;
        }
        self.title_of = Some((total, limit, self.overloaded));
        let title = self.title.connections(total);
        match (self.overloaded, self.overload) {
            (false, _) => {
                let room = limit.saturating_sub(total);
                title.text(", accepting up to ").number(room).text(" more")
            }
            (true, Overload::Queue) => title.text(", queueing new ones"),
            (true, Overload::Reset) => title.text(", resetting new ones"),
            (true, Overload::Close) => title.text(", immediately closing new ones"),
        };
        title.show();
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

/// Resolves the addresses. One that cannot be resolved is reported, and its listener dropped.
fn resolve_listeners(config: &mut config::Broker, inetd: bool) -> Vec<Listener> {
    let keepalive = config.keepalive;
    let mut resolver = Resolver::default();
    std::mem::take(&mut config.listeners)
        .into_iter()
        .filter(|listener| !(inetd && listener.empty))
        .filter_map(|listener| match resolver.resolve(&listener) {
            Ok(address) => Some(Listener::new(listener, address, keepalive)),
            Err(reason) => {
                let name = listener.address.as_ref().map_or("", |value| value.text.as_str());
                log::message(&format!(
                    "FATAL: \"bind to {name}:{}\" failed: {reason}",
                    listener.port
                ));
                None
            }
        })
        .collect()
}
