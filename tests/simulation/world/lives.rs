//! The lives of processes: they start, run, get signals, and end, some before their time.

use super::health::View;
use super::{World, IDLE_TURNS, SECOND};
use crate::kernel::{Id, Process, Request};
use crate::processes::{
    self, as_process, broker, end_broker, is_dead, replace_broker, start_broker, start_monitor,
    start_worker, survive, turn_of_broker, Zones,
};
use crate::system::{deliver_signal, kernel};
use crate::weather::Weather;
use mavis::os::process::exit;
use mavis::os::signals::{Signal, Signals};
use std::collections::BTreeSet;

/// A child that checks the configuration.
pub struct Checking {
    /// When it ends.
    due: u64,
    /// The pipe into which it writes what it has read.
    report: Option<Id>,
}

/// A process that was forked and has not come up yet.
pub struct Starting {
    due: u64,
    stdin: Id,
}

impl World {
    /// Runs one turn of a random process that is ready to run.
    pub(super) fn run_process(&mut self) -> bool {
        let now = kernel(|kernel| kernel.now);
        let own = broker(|broker| broker.process);
        let awake = self.workers.values().filter(|worker| worker.stalled <= now);
        let mut all: Vec<Process> = awake.map(|worker| worker.process).chain(own).collect();
        all.retain(|&process| is_runnable(process));
        if all.is_empty() {
            return false;
        }
        let process = *self.random.pick(&all);
        self.turn(process);
        true
    }

    fn turn(&mut self, process: Process) {
        for number in self.untaken.remove(&process).unwrap_or_default() {
            deliver_signal(process, number);
        }
        let (before, now) = kernel(|kernel| (kernel.progress, kernel.now));
        let status = match self.workers.get_mut(&process) {
            Some(worker) => as_process(process, || survive(process, || worker.turn())),
            None => turn_of_broker(),
        };
        self.check_attempts();
        if has_executed(process) {
            return self.next_image(process);
        }
        if is_dead(process) {
            return self.was_killed(process);
        }
        if kernel(|kernel| kernel.has_signal(process)) {
            self.untaken.insert(process, take_signals());
        }
        self.check_monitor(process);
        let after = kernel(|kernel| kernel.progress);
        let (turns, last) = self.idle_turns.entry(process).or_default();
        let waited = now - std::mem::replace(last, now) >= SECOND / 1000;
        *turns = if after > before || waited { 0 } else { *turns + 1 };
        if *turns > IDLE_TURNS {
            kernel(|kernel| {
                kernel.violated(format!("{process} spins: nothing done in so many turns"))
            });
        }
        match status {
            Some(status) if self.workers.contains_key(&process) => {
                self.worker_ends(process, status << 8);
            }
            Some(0) if self.stopped => self.broker_ends(process),
            // None of its workers could start, for want of something.
            Some(exit::TEMPORARY) if self.weather.is_rough() => self.was_killed(process),
            Some(status) => {
                kernel(|kernel| kernel.violated(format!("the broker ends with {status}")));
            }
            None => {}
        }
    }

    /// A worker has returned its exit status.
    fn worker_ends(&mut self, process: Process, status: i32) {
        let Some(worker) = self.workers.remove(&process) else {
            return;
        };
        self.views.remove(&process);
        kernel(|kernel| kernel.note(|| format!("{process} ends: {status}")));
        if worker.open() > 0 {
            kernel(|kernel| kernel.violated("a worker ends with sessions"));
        }
        as_process(process, || drop(worker));
        kernel(|kernel| {
            let left = kernel.count_descriptors(process);
            if left > 0 {
                kernel.violated(format!("{process} has left {left} descriptors open"));
            }
            kernel.end_process(process);
        });
        self.tell_parent(process, status);
    }

    /// The broker has ended by itself.
    fn broker_ends(&mut self, process: Process) {
        let left = as_process(process, || {
            end_broker();
            kernel(|kernel| kernel.count_descriptors(process))
        });
        if left > 0 {
            kernel(|kernel| kernel.violated(format!("the broker has left {left} descriptors")));
        }
        self.orphan_children(process);
    }

    /// The zone of a broker is not its successor's. Nobody clears the words of a worker that dies in
    /// there, which does no harm: those who share it get no new connections.
    fn leave_zones(&mut self) {
        self.zones_replaced = true;
        self.workers.values_mut().for_each(|worker| worker.zone = None);
    }

    /// The broker has executed itself again.
    fn next_image(&mut self, process: Process) {
        let faults = kernel(|kernel| std::mem::take(&mut kernel.faults));
        let limit = kernel(|kernel| kernel.doomed.take());
        take_signals();
        match replace_broker(process, &self.settings) {
            Ok(Zones::Same) => {}
            Ok(Zones::Another) => self.leave_zones(),
            Err(status) => {
                kernel(|kernel| kernel.violated(format!("the next image ends with {status}")));
            }
        }
        kernel(|kernel| (kernel.faults, kernel.doomed) = (faults, limit));
    }

    /// Kills a process.
    pub(super) fn kill(&mut self, process: Process) {
        if !is_dead(process) {
            kernel(|kernel| kernel.end_process(process));
            self.was_killed(process);
        }
    }

    /// A process was killed, perhaps in the middle of a turn: drops what is left of it.
    fn was_killed(&mut self, process: Process) {
        kernel(|kernel| kernel.note(|| format!("{process} was killed")));
        self.note_losses();
        take_signals();
        if broker(|broker| broker.process) == Some(process) {
            end_broker();
            self.orphan_children(process);
            if !self.stopped {
                // Started again by whoever looks after it.
                let pause = self.random.between(1, 1_000_000) as u64;
                self.respawn = Some(kernel(|kernel| kernel.now) + pause);
            }
            self.broker_died = true;
            self.died.insert(process, kernel(|kernel| kernel.now));
            self.leave_zones();
            return;
        }
        self.views.remove(&process);
        if let Some(worker) = self.workers.remove(&process) {
            as_process(process, || drop(worker));
        }
        self.tell_parent(process, libc::SIGKILL);
    }

    /// Signals those that have asked for that when their parent dies.
    fn orphan_children(&mut self, parent: Process) {
        let asked: Vec<(Process, i32)> = kernel(|kernel| {
            let all = kernel.processes.iter();
            let own = all.filter(|(_, child)| child.parent == parent && !child.dead);
            own.filter_map(|(&child, running)| Some((child, running.parent_signal?))).collect()
        });
        for (child, number) in asked {
            self.signal(child, number);
        }
    }

    /// Notes which connections ended with a killed process: nobody is to blame for those.
    fn note_losses(&mut self) {
        let severed: BTreeSet<Id> = kernel(|kernel| kernel.severed.drain(..).collect());
        for end in self.clients.iter().chain(self.ends.values()) {
            // Even if it has closed: what it has sent may not have arrived.
            if severed.contains(&end.first) {
                self.lost.insert(end.number);
            }
        }
    }

    /// Delivers a signal, and runs the turn in which the process notices it.
    pub(super) fn signal(&mut self, process: Process, number: i32) {
        let now = kernel(|kernel| kernel.now);
        let worker = self.workers.get_mut(&process);
        if let Some(worker) = worker.filter(|worker| worker.stalled > now) {
            worker.pending.push(number);
            return;
        }
        deliver_signal(process, number);
        if kernel(|kernel| kernel.has_signal(process)) {
            self.turn(process);
        }
    }

    /// Delivers what was sent to workers while they were stopped.
    pub(super) fn deliver_pending(&mut self) {
        let now = kernel(|kernel| kernel.now);
        let mut all = self.workers.values_mut();
        let found = all.find(|worker| worker.stalled <= now && !worker.pending.is_empty());
        if let Some((process, number)) =
            found.and_then(|worker| Some((worker.process, worker.pending.pop()?)))
        {
            self.signal(process, number);
        }
    }

    pub(super) fn answer_requests(&mut self) {
        while let Some(request) = kernel(|kernel| kernel.requests.pop()) {
            match request {
                Request::Spawned { child, stdin, .. } => {
                    let takes = *self.random.pick(&[0, SECOND / 100, SECOND / 5]);
                    let due = kernel(|kernel| kernel.now) + takes;
                    self.starting.insert(child, Starting { due, stdin });
                }
                Request::Check { child, report } => {
                    let takes = *self.random.pick(&[0, SECOND / 100, SECOND]);
                    let due = kernel(|kernel| kernel.now) + takes;
                    self.checks.insert(child, Checking { due, report });
                }
                Request::Signal { process, number: libc::SIGKILL } => {
                    let check = self.checks.remove(&process);
                    if let Some(report) = check.and_then(|check| check.report) {
                        kernel(|kernel| kernel.release(report));
                    }
                    if let Some(Starting { stdin, .. }) = self.starting.remove(&process) {
                        kernel(|kernel| kernel.release(stdin));
                    }
                    self.kill(process);
                }
                Request::Signal { process, number } => self.signal(process, number),
            }
        }
    }

    /// Processes that are due come up.
    pub(super) fn start_processes(&mut self) {
        let now = kernel(|kernel| kernel.now);
        if self.respawn.is_some_and(|due| due <= now) {
            // When it cannot start, whoever looks after it tries again.
            self.respawn = start_broker(&self.settings).err().map(|_| now + SECOND);
        }
        let check = self.checks.iter().find(|(_, check)| check.due <= now);
        if let Some((child, report)) = check.map(|(&child, check)| (child, check.report)) {
            self.checks.remove(&child);
            let status = if self.random.once_in(4) { 1 << 8 } else { 0 };
            // An older version reports nothing, and then there is no monitor any more.
            let older = self.weather != Weather::Restless && self.random.once_in(4);
            let tells = status == 0 && !older;
            if let (true, Some(report)) = (tells, report) {
                processes::report(child, report, &self.settings);
            }
            kernel(|kernel| {
                report.into_iter().for_each(|report| kernel.release(report));
                kernel.end_process(child);
            });
            self.tell_parent(child, status);
        }
        while let Some(child) = self.next_start(now) {
            let Some(Starting { stdin, .. }) = self.starting.remove(&child) else {
                return;
            };
            let monitors = broker(|broker| broker.broker.monitor()).flatten();
            let started = match monitors == Some(child as i32) {
                true => {
                    self.monitors.insert(child);
                    start_monitor(child, stdin, &self.settings)
                }
                false => start_worker(child, stdin, &self.settings),
            };
            let comes_up = started.is_some();
            if let Some(mut started) = started {
                if let Some(remotes) = started.remotes.take() {
                    self.views.insert(child, View::new(remotes));
                }
                self.workers.insert(child, started);
                self.check_monitor(child);
            }
            if is_dead(child) {
                self.was_killed(child);
            } else if !comes_up {
                kernel(|kernel| kernel.end_process(child));
                self.tell_parent(child, 0);
            }
            // The broker has run as well, while the process waited for its answers.
            if let Some(process) = broker(|broker| broker.process).filter(|&own| is_dead(own)) {
                self.was_killed(process);
            }
        }
    }

    fn next_start(&self, now: u64) -> Option<Process> {
        self.starting.iter().find(|(_, starting)| starting.due <= now).map(|(&child, _)| child)
    }

    /// When the next process comes up.
    pub(super) fn starts(&self) -> impl Iterator<Item = u64> + '_ {
        self.starting
            .values()
            .map(|starting| starting.due)
            .chain(self.respawn)
            .chain(self.checks.values().map(|check| check.due))
    }

    /// A child has ended, and its parent is told.
    fn tell_parent(&mut self, child: Process, status: i32) {
        let parent = kernel(|kernel| kernel.processes.get(&child).map(|child| child.parent));
        if let Some(parent) = parent.filter(|&parent| !is_dead(parent)) {
            kernel(|kernel| kernel.ended.push((parent, child, status)));
            self.signal(parent, libc::SIGCHLD);
        }
    }
}

/// What has arrived is in a variable that all simulated processes share, so what a process has not
/// taken must not reach another one.
fn take_signals() -> Vec<i32> {
    let scratch = kernel(|kernel| kernel.new_process());
    let arrived = as_process(scratch, || Signals::install(&[]).map(|signals| signals.take()));
    kernel(|kernel| kernel.end_process(scratch));
    let has = |&signal: &Signal| arrived.as_ref().is_ok_and(|arrived| arrived.has(signal));
    Signal::iterator().filter(has).map(|signal| signal as i32).collect()
}

fn has_executed(process: Process) -> bool {
    kernel(|kernel| {
        kernel.processes.get(&process).is_some_and(|process| process.next_image.is_some())
    })
}

fn is_runnable(process: Process) -> bool {
    kernel(|kernel| {
        let running = kernel.processes.get(&process);
        let due = running.is_some_and(|running| {
            running.again || running.wakes.is_some_and(|wakes| wakes <= kernel.now)
        });
        due || kernel.has_events(process)
    })
}
