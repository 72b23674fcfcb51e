//! The broker process: its parts, and its life from the first bind to its end.

mod desk;
mod renewal;

use super::admission::{Admission, Verdict};
use super::callers::Callers;
use super::clients::ClientTable;
use super::connection::Connection;
use super::dispatch::Dispatch;
use super::endpoints::Endpoints;
use super::file_watch::FileWatch;
use super::handover::Handover;
use super::keepers::Keepers;
use super::listeners::Listeners;
use super::options::Options;
use super::policy::WorkerId;
use super::reload::{Purpose, Reload, Subject};
use super::sticky::Stickiness;
use super::workers::{News, Secrets, Servers, Setup, Workers};
use super::{kind, text};
use crate::channel::briefing::Briefing;
use crate::channel::local::LocalWorker;
use crate::config::acl::Acl;
use crate::config::broker::{self as config, Stop};
use crate::event::{Event, Interest, Loop, TimerId, Token};
use crate::os::anonymous::Bytes;
use crate::os::pidfile::PidFile;
use crate::os::process::{self, exit, Ended, Pid};
use crate::os::shm::Segment;
use crate::os::signals::{Arrived, Signal, Signals};
use crate::os::title::{State, Title};
use crate::os::{self, channel, log, supervisor, Listener};
use crate::upstream::zone::counters::{General, OfListener, Place, Refusal};
use std::io::{PipeWriter, Write};

/// Connections taken from one listener per turn, so that none starves the others.
const BATCH: usize = channel::DESCRIPTORS;

/// The stage of the broker's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Connections are accepted.
    Serving,
    /// No connections are accepted; the broker exits when all sessions have ended.
    Draining,
    /// The process is about to exit with this status.
    Ended(i32),
}

/// What the process title says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Serving { total: usize, more: usize, full: bool },
    Draining { left: usize },
}

/// The broker.
pub struct Broker {
    options: Options,
    listeners: Listeners,
    /// The sockets at which the monitor answers.
    endpoints: Endpoints,
    admission: Admission,
    dispatch: Dispatch,
    workers: Workers,
    reload: Reload,
    /// Files for TLS that may change without a signal.
    files: FileWatch,
    /// Clients of the control socket.
    callers: Callers,
    /// Children that keep the sessions of single-process mode after a reload.
    keepers: Keepers,
    signals: Signals,
    pid_file: Option<PidFile>,
    /// The copy of the configuration in shared memory, for workers that may not read the file; kept
    /// as long as the broker runs.
    shared: Option<Segment>,
    launcher: Option<PipeWriter>,
    announced: bool,
    life: Life,
    /// What SIGTERM does.
    stop: Stop,
    title: Title,
    shown: Option<Shown>,
    /// The limit, and how many connections wait for a worker, as figures say it.
    noted: Option<(usize, usize)>,
    /// Something has happened after which there may be work for the desk.
    desk_is_due: bool,
}

/// What [`Broker::start`] needs besides the configuration.
pub struct Start {
    /// Command line and environment.
    pub options: Options,
    /// This is the next image of a broker.
    pub reloaded: bool,
    /// The texts of the configuration, for workers.
    pub snapshot: Option<Bytes>,
    /// The copy of the configuration in shared memory.
    pub shared: Option<Segment>,
    /// What only this process may read, and its own workers are told.
    pub secrets: Secrets,
    /// Sockets of the service manager.
    pub activated: Vec<Listener>,
    /// The pipe to the process that launched us into the background.
    pub launcher: Option<PipeWriter>,
    /// Who serves the connections.
    pub servers: Servers,
}

impl Broker {
    /// Binds everything and starts the first workers. Fails with the exit status; `handover` then
    /// still has what the former image left.
    pub fn start(
        mut config: config::Broker,
        start: Start,
        handover: &mut Handover,
        events: &mut Loop,
    ) -> Result<Broker, i32> {
        let Start { options, reloaded, snapshot, shared, secrets, activated, launcher, servers } =
            start;
        let mut listeners = Listeners::new(&mut config, options.inetd);
        let none = listeners.is_empty() && activated.is_empty() && !handover.has_activated();
        if none && reloaded {
            log::message("FATAL: No listeners defined.");
            return Err(exit::OS_ERROR);
        }
        let signals = Signals::install(&[
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
            Signal::SIGCHLD,
        ])
        .map_err(|error| {
            log::message(&format!("sigaction: {}", os::reason(&error)));
            exit::OS_ERROR
        })?;
        events.register(signals.descriptor(), Token::new(kind::SIGNALS, 0), Interest::READ);
        let single = matches!(servers, Servers::Local { .. });
        if options.inetd {
            listeners.adopt_standard_input()?;
        }
        let clients = ClientTable::new(std::mem::take(&mut config.clients));
        let setup = Setup {
            spawn: &config.spawn,
            channel_buffer: config.channel_buffer,
            sticky: Stickiness::new(config.sticky, listeners.stickiness()),
            snapshot,
            secrets,
            // A service that was running is not given up because its workers do not start at once.
            settled: reloaded,
            clients: clients.clone(),
        };
        if matches!(servers, Servers::Foreign(_)) {
            listeners.close_desk();
        }
        let mut workers = Workers::new(servers, setup);
        let endpoints = Endpoints::open(&mut config, &mut handover.listeners, reloaded)?;
        listeners.bind(&mut handover.listeners, activated, reloaded, events)?;
        // From here on nothing fails.
        let mut handover = std::mem::take(handover);
        let briefing = Briefing { listeners: listeners.names() };
        workers.brief_monitor(briefing, endpoints.copies(), events);
        let mut broker = Broker {
            listeners,
            endpoints,
            admission: Admission::new(Acl::new(config.acl), clients.clone(), config.overload),
            dispatch: Dispatch::default(),
            workers,
            reload: Reload::new(single),
            files: FileWatch::new(if options.inetd { 0 } else { config.tls_watch }),
            callers: Callers::new(std::mem::take(&mut handover.callers)),
            keepers: Keepers::new(std::mem::take(&mut handover.keepers)),
            signals,
            pid_file: handover.pid_file.take(),
            shared,
            launcher,
            announced: false,
            life: Life::Serving,
            stop: config.stop.unwrap_or_else(default_stop),
            title: Title::new(&options.name),
            shown: None,
            noted: None,
            desk_is_due: true,
            options,
        };
        if let Some(zone) = handover.zone.take() {
            broker.workers.adopt_zone(zone.memory, &zone.slots);
        }
        broker.workers.begin_counting(reloaded);
        broker.note_bound();
        broker.workers.adopt(handover.workers, events);
        if let Some(monitor) = handover.monitor.take() {
            broker.workers.adopt_monitor(monitor, events);
        }
        if reloaded {
            // The former image's file may have been renamed.
            broker.workers.give_log(events);
        }
        if reloaded {
            // Reap children that ended between the two images.
            broker.reap(events);
        }
        if single {
            log::message(
                "Warning: Running in degraded mode. This is unsuitable for real-life usage.",
            );
        }
        broker.workers.start_missing(events);
        broker.workers.start_monitor(events);
        if broker.workers.serve_at_once() {
            broker.announce(events);
        }
        let blocking = broker.workers.blocking();
        let clients = broker.admission.clients();
        broker.dispatch.adopt_former(handover.parked, blocking, &broker.listeners, clients);
        broker.files.begin(handover.files, broker.workers.material(), events);
        broker.settle(events);
        broker.settle_load(events);
        broker.tend_desk(events);
        broker.refresh_title();
        Ok(broker)
    }

    /// The most connections of all workers together.
    pub fn limit(&self) -> usize {
        self.workers.policy().limit()
    }

    /// Connections of all workers, leaving ones included, and those that wait for a worker.
    pub fn connections(&self) -> usize {
        self.workers.connections() + self.dispatch.waiting()
    }

    /// The monitor's process, if it is running.
    pub fn monitor(&self) -> Option<Pid> {
        self.workers.monitor()
    }

    /// Serves until the process is to exit; returns the exit status.
    pub fn run(&mut self, events: &mut Loop) -> i32 {
        loop {
            if let Some(status) = self.turn(events) {
                return status;
            }
        }
    }

    /// Waits for events and handles them. Returns the exit status if the process is to exit.
    pub fn turn(&mut self, events: &mut Loop) -> Option<i32> {
        if self.workers.follow_local_limit() {
            self.settle_load(events);
        }
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
        self.workers.collect_local(events);
        if self.is_serving() && self.workers.has_orphans() {
            self.dispatch.place_orphans(&mut self.workers, &self.listeners, events);
        }
        let outcome = self.reload.watch(events);
        if outcome.is_some() {
            self.desk_is_due = true;
            self.checked(outcome, events);
        }
        if self.desk_is_due {
            self.tend_desk(events);
        }
        self.settle_load(events);
        if self.life == Life::Draining {
            self.finish_draining(events);
        }
        match self.life {
            Life::Ended(status) => Some(status),
            _ => {
                self.refresh_title();
                None
            }
        }
    }

    /// True while connections are accepted and workers started.
    fn is_serving(&self) -> bool {
        self.life == Life::Serving
    }

    fn event(&mut self, event: Event, events: &mut Loop) {
        let index = event.token.index() as usize;
        let kind = event.token.kind();
        // Connections that come and go are no reason: there are many.
        self.desk_is_due |= !matches!(kind, kind::LISTENER | kind::WORKER);
        match kind {
            kind::SIGNALS => {
                let arrived = self.signals.take();
                self.signal(arrived, events);
            }
            kind::LISTENER => self.accept(index, events),
            kind::WORKER => {
                self.workers.event(WorkerId(event.token.index()), event, events);
                self.settle(events);
            }
            kind::CHECK => self.reload.event(event, events),
            kind::DESK => self.answer_desk(events),
            kind::MONITOR => self.workers.monitor_event(event, events),
            kind::SIGNER => self.workers.signer_event(event, events),
            _ => {
                if let Some(local) = self.workers.local_mut() {
                    local.event(events, event);
                }
            }
        }
    }

    fn timer(&mut self, timer: TimerId, token: Token, events: &mut Loop) {
        self.desk_is_due = true;
        match token.kind() {
            kind::DESK_RETRY => self.listeners.bind_desk_again(events),
            kind::FILES => self.look_at_files(events),
            kind::BIND_RETRY => {
                self.listeners.bind_again(token.index() as usize, events);
                self.note_bound();
            }
            kind::RESTART => {
                self.workers.pause_is_over(events);
                self.settle(events);
            }
            kind::TRIM => {
                self.workers.dismiss_superfluous(events);
                self.settle(events);
            }
            kind::WATCH => self.watch_workers(events),
            kind::MONITOR => self.workers.monitor_timer(token, events),
            kind::SIGNER_PAUSE => self.workers.signer_may_start(events),
            kind::CHECK_TIMEOUT => {
                let outcome = self.reload.timed_out(events);
                self.checked(outcome, events);
            }
            kind::CHECK_DUE => self.reload.serving(subject(&self.options, &self.listeners), events),
            kind::RESUME => {
                self.dispatch.rested();
                self.settle(events);
            }
            _ => {
                if let Some(local) = self.workers.local_mut() {
                    local.timer(events, timer, token);
                }
            }
        }
    }

    fn signal(&mut self, arrived: Arrived, events: &mut Loop) {
        if arrived.has(Signal::SIGTERM) || arrived.has(Signal::SIGINT) {
            // Before anything else: a check that has ended in the meantime must not execute an
            // image that knows nothing of this signal.
            self.stop(events);
        }
        if arrived.has(Signal::SIGCHLD) {
            self.reap(events);
        }
        if arrived.has(Signal::SIGUSR2) {
            self.reopen_log(events);
        }
        if !self.is_serving() {
            return;
        }
        if arrived.has(Signal::SIGHUP) {
            if self.options.inetd {
                // inetd starts a new broker with the next connection.
                self.terminate(events);
            } else {
                self.check_and(Purpose::Reload, events);
            }
        }
        if arrived.has(Signal::SIGUSR1) && self.workers.local().is_none() {
            self.check_and(Purpose::ReplaceWorkers, events);
        }
    }

    /// `tls watch`: what SIGHUP does, if a file has changed.
    fn look_at_files(&mut self, events: &mut Loop) {
        if self.is_serving() && self.files.look(self.workers.material(), events) {
            log::message("tls watch: files have changed");
            self.check_and(Purpose::Reload, events);
        }
    }

    /// SIGUSR2: the log file may have been renamed. What this process opens here, the others get.
    fn reopen_log(&mut self, events: &mut Loop) {
        match log::open_file_again() {
            Ok(true) => self.workers.give_log(events),
            Ok(false) => {}
            Err(error) => {
                let reason = os::reason(&error);
                log::message(&format!("SIGUSR2: the log file stays the former one: {reason}"));
            }
        }
    }

    /// Ends as the configuration wants it.
    fn stop(&mut self, events: &mut Loop) {
        match (self.life, self.stop) {
            (Life::Serving, Stop::Drain) => self.drain(events),
            _ => self.terminate(events),
        }
    }

    /// Children have ended.
    fn reap(&mut self, events: &mut Loop) {
        while let Some((pid, ended)) = process::reap() {
            self.workers.release(pid);
            if self.reload.is_check(pid) {
                let outcome = self.reload.ended(pid, ended, events);
                self.checked(outcome, events);
                continue;
            }
            self.keepers.ended(pid);
            let how = match ended {
                // Whatever the status: the C program logs it like this.
                Ended::Status(_) => "terminated normally".to_owned(),
                Ended::Signal(signal) => format!("terminated abnormally (signal {signal})"),
            };
            log::braked(log::Kind::Worker, || format!("child (pid {pid}) {how}"));
            if let Ended::Status(status @ 1..) = ended {
                log::braked(log::Kind::Worker, || {
                    format!("child (pid {pid}) exit status {status}")
                });
            }
            if !self.workers.monitor_ended(pid, ended, events) {
                self.workers.ended(pid, ended, events);
            }
            self.follow_news(events);
        }
        self.workers.start_missing(events);
        self.settle(events);
    }

    /// The timer for watching the channels of workers has expired.
    fn watch_workers(&mut self, events: &mut Loop) {
        if matches!(self.life, Life::Ended(_)) {
            return;
        }
        for id in self.workers.look_at_all(events) {
            self.dispatch.take_back(id, &mut self.workers, &self.listeners, events);
            self.workers.give_up_on(id, events);
        }
        self.workers.start_missing(events);
        self.settle(events);
        self.workers.schedule_watch(events);
    }

    /// Acts on what workers have said, or on their end.
    fn settle(&mut self, events: &mut Loop) {
        self.follow_news(events);
        self.dispatch.unpark(&mut self.workers, &self.listeners, events);
    }

    /// Once a turn, after its events: whatever they have changed, accepting goes on or pauses
    /// accordingly.
    #[inline]
    fn settle_load(&mut self, events: &mut Loop) {
        self.follow_news(events);
        self.notice_limit(events);
        self.listeners.set_paused(self.is_paused(), events);
    }

    #[inline]
    fn follow_news(&mut self, events: &mut Loop) {
        if self.workers.has_news() {
            self.act_on_news(events);
        }
    }

    #[cold]
    fn act_on_news(&mut self, events: &mut Loop) {
        self.desk_is_due = true;
        while let Some(news) = self.workers.take_news() {
            match news {
                News::Ready => self.announce(events),
                News::Errand(errand) => self.callers.note(errand),
                News::End(status) => {
                    self.remove_pid_file();
                    self.life = Life::Ended(status);
                }
            }
        }
    }

    /// Accepts connections from a listener that is readable.
    fn accept(&mut self, index: usize, events: &mut Loop) {
        let blocking = self.workers.blocking();
        for _ in 0..BATCH {
            let full = self.notice_limit(events);
            if self.is_paused() {
                break;
            }
            match self.listeners.accept(index, blocking) {
                Ok(Some(mut connection)) => match self.judge(full, index, &connection, events) {
                    Verdict::Admitted(seat) => {
                        connection.set_seat(seat);
                        connection.name_listener();
                        let Broker { workers, listeners, .. } = self;
                        self.dispatch.take(connection, workers, listeners, events);
                    }
                    Verdict::Closed(why) => {
                        self.dispatch.accepting_works();
                        self.workers.count_refusal(index, why);
                    }
                    Verdict::Reset(why) => {
                        self.dispatch.accepting_works();
                        self.workers.count_refusal(index, why);
                        connection.socket.reset_on_close();
                    }
                },
                Ok(None) if self.listeners.is_datagram(index) => {}
                Ok(None) => {
                    self.workers.count_arrival(index);
                    self.workers.count_refusal(index, Refusal::Proxy);
                }
                Err(error) if os::would_block(&error) => break,
                Err(error) => {
                    self.dispatch.rest("accept", &error, events);
                    break;
                }
            }
        }
        self.dispatch.deliver(&mut self.workers, &self.listeners, events);
    }

    /// Decides whether a connection is admitted.
    #[inline]
    fn judge(
        &self,
        full: bool,
        listener: usize,
        connection: &Connection,
        events: &Loop,
    ) -> Verdict {
        self.workers.count_arrival(listener);
        self.admission.judge(full, events.now(), || connection.client())
    }

    /// Notes which listeners are bound, for the status page.
    fn note_bound(&self) {
        for (listener, bound) in self.listeners.bound().enumerate() {
            self.workers.counters().set(Place::Listener(listener, OfListener::Bound), bound.into());
        }
    }

    /// Accepts what waits in the backlogs of listeners that are about to be closed.
    fn accept_backlogs(&mut self, events: &mut Loop) {
        for index in 0..self.listeners.len() {
            if let Some(most) = self.listeners.backlog(index) {
                for _ in 0..=most / BATCH {
                    self.accept(index, events);
                }
            }
        }
    }

    /// True while no connections are accepted.
    fn is_paused(&self) -> bool {
        self.admission.is_queueing() || self.dispatch.is_busy()
    }

    /// Notices when the total reaches the limit, or falls below it. True if no more connections may
    /// be taken.
    #[inline]
    fn notice_limit(&mut self, events: &mut Loop) -> bool {
        let full = self.workers.policy().is_full();
        if full != self.admission.is_overloaded() {
            self.follow_limit(full, events);
        }
        full
    }

    #[cold]
    fn follow_limit(&mut self, full: bool, events: &mut Loop) {
        if self.is_serving() {
            self.admission.follow(full, self.workers.policy().limit());
            self.listeners.follow_limit(full, self.admission.overload(), events);
            self.note_bound();
        }
    }

    /// Ends the broker. Workers keep their sessions until these end.
    fn terminate(&mut self, events: &mut Loop) {
        supervisor::notify("STOPPING=1");
        log::message(text::EXITING);
        self.life = Life::Ended(0);
        self.reload.stop();
        self.callers.end();
        self.workers.close(events);
        self.listeners.remove_paths();
        self.endpoints.remove_paths();
        self.remove_pid_file();
        match self.workers.local_mut() {
            Some(local) if local.sessions() == 0 => local.end(events),
            Some(_) => {
                let mut keepers = std::mem::take(&mut self.keepers);
                keepers.leave(|| self.drain_sessions(events));
                self.keepers = keepers;
            }
            None => {}
        }
    }

    /// SIGTERM with `stop = drain`: nothing new is accepted, and the broker stays until the
    /// sessions have ended, or the drain timeout has ended them.
    fn drain(&mut self, events: &mut Loop) {
        supervisor::notify("STOPPING=1");
        // Clients in the backlogs are connected already, so they are served as well.
        self.accept_backlogs(events);
        self.life = Life::Draining;
        self.reload.stop();
        self.callers.end();
        self.listeners.remove_paths();
        self.endpoints.remove_paths();
        self.listeners.close(events);
        self.dispatch.refuse_all();
        self.workers.close(events);
        if let Some(local) = self.workers.local_mut() {
            local.drain(events);
        }
        let count = self.workers.sessions();
        log::message(&format!("SIGTERM: no longer accepting, waiting for {count} sessions to end"));
    }

    /// Ends a draining broker that has nothing left to wait for.
    fn finish_draining(&mut self, events: &mut Loop) {
        let sessions = self.workers.local().map_or(0, LocalWorker::sessions);
        if sessions == 0 && self.workers.is_empty() && self.keepers.is_empty() {
            self.collect_orphans();
            self.dispatch.refuse_all();
            log::message(text::EXITING);
            self.life = Life::Ended(0);
            self.remove_pid_file();
            if let Some(local) = self.workers.local_mut() {
                local.end(events);
            }
        }
    }

    /// Queues the connections left unread by workers that are gone, for others or the next image.
    fn collect_orphans(&mut self) {
        let found = self.workers.collect_orphans();
        self.dispatch.adopt(found, &self.listeners, &self.workers);
    }

    fn remove_pid_file(&mut self) {
        drop(self.pid_file.take());
    }

    /// Tells the service manager and the launcher that connections are served.
    fn announce(&mut self, events: &mut Loop) {
        if !self.announced {
            self.announced = true;
            if let Some(mut launcher) = self.launcher.take() {
                let _ = launcher.write_all(&[0]);
            }
            supervisor::notify("READY=1");
            self.callers.started();
            self.reload.serving(subject(&self.options, &self.listeners), events);
        }
    }

    /// SIGHUP or SIGUSR1: checks the configuration first.
    fn check_and(&mut self, purpose: Purpose, events: &mut Loop) {
        self.files.are_read(self.workers.material());
        self.reload.request(purpose, subject(&self.options, &self.listeners), events);
    }

    /// Sets the process title and what figures say of it, if they have changed.
    #[inline]
    fn refresh_title(&mut self) {
        let now = match self.life {
            Life::Draining => Shown::Draining { left: self.workers.sessions() },
            _ => {
                let policy = self.workers.policy();
                let (total, more) = (policy.total(), policy.room());
                if self.workers.counters().are_kept() {
                    self.note_load(total.saturating_add(more));
                }
                Shown::Serving { total, more, full: self.admission.is_overloaded() }
            }
        };
        if self.shown != Some(now) {
            self.show(now);
        }
    }

    #[inline(never)]
    fn show(&mut self, now: Shown) {
        self.shown = Some(now);
        let (count, state) = match now {
            Shown::Draining { left } => {
                self.callers.left_over(left);
                (left, State::Leaving)
            }
            Shown::Serving { total, full: true, .. } => {
                (total, State::Full { doing: text::doing(self.admission.overload()) })
            }
            Shown::Serving { total, more, full: false } => (total, State::Accepting { more }),
        };
        self.title.connections(count).state(state).show();
    }

    #[inline]
    fn note_load(&mut self, limit: usize) {
        let waiting = self.dispatch.waiting();
        if self.noted != Some((limit, waiting)) {
            self.noted = Some((limit, waiting));
            let counters = self.workers.counters();
            counters.set(Place::General(General::Limit), limit as u64);
            counters.set(Place::General(General::Waiting), waiting as u64);
        }
    }
}

fn subject<'a>(options: &'a Options, listeners: &Listeners) -> Subject<'a> {
    Subject { options, activated: listeners.has_inherited() }
}

/// What SIGTERM does if the configuration does not say. When process 1 of a container exits, the
/// kernel kills all others, so there the broker stays while there are sessions.
fn default_stop() -> Stop {
    if process::id() == 1 {
        Stop::Drain
    } else {
        Stop::Now
    }
}
