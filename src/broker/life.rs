//! The broker process: its parts, and its life from the first bind to its end.

mod accepting;
mod desk;
mod ending;
mod renewal;
mod start;
mod title;

pub use start::Start;

use super::admission::Admission;
use super::callers::Callers;
use super::dispatch::Dispatch;
use super::endpoints::Endpoints;
use super::file_watch::FileWatch;
use super::keepers::Keepers;
use super::kind;
use super::listeners::Listeners;
use super::options::Options;
use super::policy::WorkerId;
use super::reload::{Purpose, Reload, Subject};
use super::workers::{News, Workers};
use crate::config::broker::Stop;
use crate::event::{Event, Loop, TimerId, Token};
use crate::os::pidfile::PidFile;
use crate::os::process::{self, exit, Ended, Pid};
use crate::os::shm::Segment;
use crate::os::signals::{Arrived, Signal, Signals, LOG_SIGNAL};
use crate::os::title::Title;
use crate::os::{self, log, supervisor};
use std::io::{PipeWriter, Write};
use title::Shown;

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
    /// How many connections wait for a worker, as figures say it.
    noted: Option<usize>,
    /// Something has happened after which there may be work for the desk.
    desk_is_due: bool,
}

impl Broker {
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
        if arrived.has(LOG_SIGNAL) {
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
}

fn subject<'a>(options: &'a Options, listeners: &Listeners) -> Subject<'a> {
    Subject { options, activated: listeners.has_inherited() }
}
