//! What the broker does about SIGHUP and SIGUSR1 once the configuration has been checked.

use super::Broker;
use crate::broker::handover::{FormerSecrets, Handover, Image, LeftZone, Lent};
use crate::broker::reload::{share_texts, Next, Outcome, Purpose};
use crate::broker::{text, Findings};
use crate::event::Loop;
use crate::os::signals::{self, Signal, Signals};
use crate::os::title::State;
use crate::os::{self, log, process, supervisor};
use crate::upstream::zone::counters::General;
use std::os::fd::AsFd;

impl Broker {
    /// A check of the configuration has ended.
    pub(super) fn checked(&mut self, outcome: Option<Outcome>, events: &mut Loop) {
        let Some(outcome) = outcome.filter(|_| self.is_serving()) else {
            return;
        };
        let (next, again) = outcome.report();
        match next {
            Next::Go(Purpose::Reload, findings, warnings) => {
                self.callers.accepted(&warnings);
                return self.restart_image(findings, again, events);
            }
            Next::Go(Purpose::ReplaceWorkers, findings, _) => {
                self.replace_workers(findings, events);
                self.callers.check_ended();
            }
            Next::Stay(reasons) => {
                self.workers.count(General::ReloadsFailed);
                self.callers.refused(&reasons);
            }
        }
        if let Some(purpose) = again {
            self.check_and(purpose, events);
        }
    }

    /// SIGUSR1: starts workers with what was checked. An older executable does not report that, and
    /// its workers read the files themselves.
    fn replace_workers(&mut self, findings: Option<Findings>, events: &mut Loop) {
        log::message("SIGUSR1: replacing all workers");
        self.workers.count_reload();
        let monitored = findings.as_ref().is_some_and(|findings| findings.checked.monitored);
        // The broker's section stays as it is, and so does its control socket.
        let monitored = monitored || self.listeners.has_desk();
        let checked = findings.map(|Findings { snapshot, checked }| {
            (checked.material, checked.session_timeout, share_texts(&snapshot))
        });
        self.workers.renew(checked, events);
        self.workers.dismiss_all(events);
        self.workers.replace_monitor(monitored, events);
        self.workers.start_missing(events);
        self.settle(events);
    }

    /// SIGHUP: executes the program again, in this process.
    fn restart_image(
        &mut self,
        findings: Option<Findings>,
        again: Option<Purpose>,
        events: &mut Loop,
    ) {
        // Signals that arrive from here on wait for the next image, or for the end of this attempt.
        signals::block_all();
        let arrived = self.signals.take();
        if arrived.has(Signal::SIGTERM) || arrived.has(Signal::SIGINT) {
            signals::unblock_all();
            self.signal(arrived, events);
            return;
        }
        log::message(text::RESTARTING);
        let noted = [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGCHLD];
        for signal in noted.into_iter().filter(|&signal| arrived.has(signal)) {
            signals::raise(signal);
        }
        if let Some(purpose) = again {
            signals::raise(purpose.signal());
        }
        if findings.is_none() {
            // An older image knows nothing of a monitor. If it cannot be executed, ours starts again.
            self.workers.dismiss_monitor(events);
        }
        self.collect_orphans();
        let mut keepers = std::mem::take(&mut self.keepers);
        let gate = match self.workers.local() {
            Some(local) if local.sessions() > 0 => {
                keepers.leave_behind_gate(|| self.drain_sessions(events))
            }
            _ => None,
        };
        self.keepers = keepers;
        let checked = findings.as_ref().map(|findings| &findings.checked);
        let secrets = FormerSecrets::new(&self.workers.secrets().tickets, checked).ok();
        let snapshot = findings.as_ref().and_then(|findings| share_texts(&findings.snapshot));
        let handover = Handover::<Lent<'_>> {
            listeners: self.listeners.left().chain(self.endpoints.left()).collect(),
            parked: self.dispatch.left(&self.listeners),
            callers: self.callers.left(),
            workers: self.workers.left(),
            monitor: findings.as_ref().and_then(|_| self.workers.left_monitor()),
            zone: findings.as_ref().and_then(|_| {
                let (memory, slots) = self.workers.left_zone()?;
                Some(LeftZone { memory, slots })
            }),
            pid_file: self.pid_file.as_ref(),
            background: self.options.background,
            keepers: self.keepers.pids(),
            segment: self.shared.as_ref(),
            snapshot: snapshot.as_ref().map(AsFd::as_fd),
            files: self.files.known(),
            secrets: secrets.as_ref(),
            attempt: 0,
        };
        let image = Image {
            executable: &self.options.executable,
            arguments: &self.options.arguments,
            environment: &self.options.environment,
        };
        // An executable that did not report what it has read is an older version, and would not
        // understand the new handover either.
        let error = match findings {
            Some(_) => handover.give(&image),
            None => handover.give_to_older(&image),
        };
        let path = self.options.executable.display();
        log::message(&format!("execve ({path}): {}", os::reason(&error)));
        log::message_at(
            log::Severity::ERROR,
            "SIGHUP: the program cannot be executed, the running one stays in service",
        );
        self.workers.count(General::ReloadsFailed);
        self.callers.refused(&[format!("execve ({path}): {}", os::reason(&error))]);
        if let Some(gate) = gate {
            self.keepers.take_back(gate);
        }
        supervisor::notify("READY=1");
        self.settle(events);
    }

    /// In a child: serves the open sessions, and nothing else.
    pub(super) fn drain_sessions(&mut self, events: &mut Loop) -> i32 {
        let Ok(signals) = Signals::install(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])
        else {
            return process::exit::OS_ERROR;
        };
        process::new_session();
        // The pipe is shared with the parent, which must not miss a signal because we read it.
        events.remove(self.signals.descriptor());
        self.reload.forget(events);
        self.callers.forget();
        self.dispatch.forget();
        self.listeners.close(events);
        if let Err(error) = events.renew_after_fork() {
            log::message(&format!("event loop: {}", os::reason(&error)));
            return process::exit::OS_ERROR;
        }
        // Bound to a name, so that the pipe of the signal handlers stays open.
        let _signals = signals;
        let Some(local) = self.workers.local_mut() else {
            return 0;
        };
        local.drain(events);
        while local.sessions() > 0 {
            self.title.connections(local.sessions()).state(State::Leaving).show();
            if events.wait(None).is_err() {
                return process::exit::SOFTWARE;
            }
            while let Some(event) = events.next_event() {
                local.event(events, event);
            }
            while let Some((timer, token)) = events.next_expired() {
                local.timer(events, timer, token);
            }
            local.turn(events);
        }
        local.end(events);
        log::message("Terminating, no longer needed.");
        0
    }
}
