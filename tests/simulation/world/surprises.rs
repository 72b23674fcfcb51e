//! What happens to a run besides clients and remotes: processes are killed or stopped, remotes go
//! and come back, resources run out, somebody sets the clock.

use super::{World, SECOND};
use crate::kernel::{Kind, Names, Process, Reply};
use crate::processes::broker;
use crate::system::kernel;
use crate::weather::names;
use mavis::os::address::Address;
use mavis::upstream::wish::{Service, Wish};

impl World {
    /// Something unusual.
    pub(super) fn surprise(&mut self) -> bool {
        let now = kernel(|kernel| kernel.now);
        if self.ending {
            return false;
        }
        if self.outage.is_some_and(|due| due <= now) {
            self.all_flap(now);
            return true;
        }
        for index in 0..self.remotes.len() {
            if self.remotes[index].flaps.is_some_and(|flaps| flaps <= now) {
                self.flap(index, now);
                return true;
            }
        }
        // Only once sessions exist: a broker whose first workers are killed gives up, as it should.
        if self.ends.is_empty() {
            return false;
        }
        let chance = self.random.below(if self.weather.is_deadly() { 2000 } else { 3000 });
        match chance {
            0..=1 => return self.set_clock(),
            2..=9 if self.weather.is_rough() => return self.exhaust_descriptors(now),
            43..=50 | 53..=70 => return self.reload(),
            51..=52 if self.stops_early => return self.stop(),
            _ => {}
        }
        let workers: Vec<Process> = self.workers.keys().copied().collect();
        if !self.weather.is_deadly() || workers.is_empty() {
            return false;
        }
        let process = *self.random.pick(&workers);
        match chance {
            10..=13 => self.kill(process),
            14..=17 => self.signal(process, libc::SIGTERM),
            18..=27 | 71..=80 => {
                self.stop_process(process, now);
                // What it does not read meanwhile is the next image's to take back.
                if self.random.once_in(2) {
                    self.reload();
                }
            }
            28..=39 => self.doom(process),
            40..=42 if !self.stopped => match broker(|broker| broker.process) {
                Some(process) => self.doom(process),
                None => return false,
            },
            _ => return false,
        }
        true
    }

    /// When it is time, something changes about remotes: they go away or come back, fall ill, get
    /// other addresses, are taken out by hand; or the monitor suffers something. The first remote
    /// stays as it is.
    pub(super) fn change(&mut self) {
        let now = kernel(|kernel| kernel.now);
        if self.ending || self.next_change.is_none_or(|due| due > now) {
            return;
        }
        let pause = self.random.between(1, 3 * SECOND as usize) as u64;
        self.next_change = Some(now + pause);
        let monitor = self.views.keys().next().copied();
        let index = self.random.below(self.remotes.len());
        match (self.random.below(15), monitor) {
            (0..=2, _) if index > 0 && !self.has_callers(index) => self.go_or_come(index),
            (3..=7, _) if index > 0 => {
                let sick = &mut self.remotes[index].sick;
                *sick = !*sick;
                let sick = *sick;
                kernel(|kernel| kernel.note(|| format!("remote {index} is sick: {sick}")));
            }
            (8..=9, _) => self.rename(),
            (10..=11, Some(monitor)) if index > 0 => self.wish(index, monitor),
            (12, Some(monitor)) => self.kill(monitor),
            (13, Some(monitor)) => self.stop_process(monitor, now),
            (14, _) => drop(self.reload()),
            _ => {}
        }
    }

    /// True if connections wait at a remote, which it should not forget when it goes away.
    fn has_callers(&self, index: usize) -> bool {
        let listener = self.remotes[index].listener;
        kernel(|kernel| {
            let object = listener.and_then(|listener| kernel.objects.get(&listener));
            matches!(object.map(|object| &object.kind), Some(Kind::Listener(one)) if !one.queue.is_empty())
        })
    }

    /// The names of remotes get other addresses, or name servers fail.
    fn rename(&mut self) {
        let named = self.remotes.iter().map(|remote| *remote.address.ip());
        let named: Vec<_> = named.skip(self.settings.relay.remotes.len()).collect();
        let names = names(&mut self.random, &named);
        let reply =
            *self.random.pick(&[Reply::Answer, Reply::Answer, Reply::Failure, Reply::Silence]);
        kernel(|kernel| {
            let names = Names { reply, ..names };
            kernel.note(|| format!("{names:?}"));
            kernel.names = names;
        });
    }

    /// An operator takes a remote out, or lets it come back.
    fn wish(&mut self, index: usize, monitor: Process) {
        let address = Address::Ip(self.remotes[index].address.into());
        let service = *self.random.pick(&[Service::Normal, Service::Normal, Service::Drained]);
        let weight = *self.random.pick(&[None, Some(1), Some(3)]);
        let wish = Wish { service, weight, ..Wish::default() };
        let row = self.views.get(&monitor).and_then(|view| view.row(&address));
        let zone = self.workers.get(&monitor).and_then(|child| child.zone.as_ref());
        if let (Some(row), Some(zone)) = (row, zone) {
            kernel(|kernel| kernel.note(|| format!("remote {index}: {wish:?}")));
            zone.set_wish(row, wish);
        }
    }

    /// Tells the broker to execute itself again, or to replace its workers.
    fn reload(&mut self) -> bool {
        let Some(process) = broker(|broker| broker.process).filter(|_| !self.stopped) else {
            return false;
        };
        let number = *self.random.pick(&[libc::SIGHUP, libc::SIGUSR1]);
        self.signal(process, number);
        true
    }

    /// Kills a process in one of its next system calls.
    fn doom(&mut self, process: Process) {
        let calls = *self.random.pick(&[3, 30, 200]);
        let calls = self.random.below(calls);
        kernel(|kernel| kernel.doomed = Some((process, calls)));
    }

    /// Stops a worker, which goes on later, or is killed before it does.
    fn stop_process(&mut self, process: Process, now: u64) {
        let long = *self.random.pick(&[SECOND / 10, 2 * SECOND, 90 * SECOND]);
        kernel(|kernel| kernel.note(|| format!("{process} is stopped for {} ms", long / 1000)));
        if let Some(worker) = self.workers.get_mut(&process) {
            worker.stalled = now + long;
            worker.doomed = self.random.once_in(2).then(|| now + self.random.next() % long);
        }
    }

    /// Kills those whose time has come.
    pub(super) fn end_doomed(&mut self) {
        let now = kernel(|kernel| kernel.now);
        let due = |doomed: Option<u64>| doomed.is_some_and(|doomed| doomed <= now);
        let found = self.workers.values().find(|worker| due(worker.doomed));
        if let Some(process) = found.map(|worker| worker.process) {
            self.kill(process);
        }
    }

    /// Tells the broker to stop while clients are being served.
    fn stop(&mut self) -> bool {
        let Some(process) = broker(|broker| broker.process) else {
            return false;
        };
        self.stops_early = false;
        self.stopped = true;
        self.signal(process, libc::SIGTERM);
        true
    }

    /// Somebody sets the time of day, by up to a day in either direction.
    fn set_clock(&mut self) -> bool {
        let seconds = self.random.between(0, 2 * 86_400) as i64 - 86_400;
        kernel(|kernel| {
            kernel.note(|| format!("the clock is set by {seconds} s"));
            kernel.wall_offset += seconds;
        });
        true
    }

    /// A process has no more descriptors for a while.
    fn exhaust_descriptors(&mut self, now: u64) -> bool {
        let mut all: Vec<Process> = self.workers.keys().copied().collect();
        all.extend(broker(|broker| broker.process));
        if all.is_empty() {
            return false;
        }
        let process = *self.random.pick(&all);
        let (spare, long) = (self.random.below(4), self.random.between(1, 3_000_000) as u64);
        kernel(|kernel| {
            let limit = kernel.count_descriptors(process) + spare;
            kernel.note(|| format!("{process} has {spare} descriptors left"));
            if let Some(running) = kernel.processes.get_mut(&process) {
                running.descriptors = Some((limit, now + long));
            }
        });
        true
    }

    /// All remotes go away or come back together.
    fn all_flap(&mut self, now: u64) {
        let down = self.remotes.iter().any(|remote| remote.listener.is_some());
        for index in 0..self.remotes.len() {
            if self.remotes[index].listener.is_some() == down {
                self.flap(index, now);
            }
            self.remotes[index].flaps = None;
        }
        let pause = self.random.between(1, 3_000_000) as u64;
        self.outage = down.then_some(now + pause);
    }

    fn flap(&mut self, index: usize, now: u64) {
        let pause = self.random.between(1, 5_000_000) as u64;
        self.remotes[index].flaps = Some(now + pause);
        self.go_or_come(index);
    }

    fn go_or_come(&mut self, index: usize) {
        let remote = &mut self.remotes[index];
        match remote.listener.take() {
            Some(listener) => kernel(|kernel| {
                kernel.note(|| format!("remote {index} goes away"));
                kernel.end_listener(listener);
            }),
            None => {
                kernel(|kernel| kernel.note(|| format!("remote {index} comes back")));
                remote.listener = kernel(|kernel| kernel.listen(remote.address, 100, true).ok());
            }
        }
    }
}
