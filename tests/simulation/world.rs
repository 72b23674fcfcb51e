//! One run: a broker, its workers, clients and remotes, moved at random step by step, with the
//! invariants checked after each step.

mod checks;

use crate::clients::{End, Manner, Remote};
use crate::kernel::{Faults, Id, Process, Request, Waiting};
use crate::processes::{
    as_process, broker, end_broker, start_broker, start_worker, Settings, WorkerProcess,
};
use crate::random::Random;
use crate::system::{deliver_signal, kernel};
use crate::weather::{address, faults, settings, Weather, PORT};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;

/// Steps in the random part of a run, and in each part after it that waits until all is quiet.
const STEPS: usize = 30_000;
const MORE_STEPS: usize = 20_000;
/// A process that achieves nothing in more turns than this, without waiting, is spinning.
const IDLE_TURNS: u32 = 300;
const SECOND: u64 = 1_000_000;
/// Shorter than a `retry delay`: a remote that was dead and is back is no excuse for refusing
/// clients.
const REST: u64 = 2 * SECOND;

pub struct World {
    random: Random,
    weather: Weather,
    settings: Settings,
    workers: BTreeMap<Process, WorkerProcess>,
    clients: Vec<End>,
    /// The remotes' ends of connections, by their own numbers.
    ends: BTreeMap<u64, End>,
    remotes: Vec<Remote>,
    to_come: usize,
    /// Clients and ends whose connection was lost when a worker was killed.
    lost: BTreeSet<u64>,
    idle_turns: BTreeMap<Process, (u32, u64)>,
    ending: bool,
    patient_clients: bool,
    next_end: u64,
    /// Clients with higher numbers than this must all be served.
    must_be_served: u64,
}

const FIRST_END: u64 = 1 << 32;

impl World {
    pub fn new(seed: u64) -> World {
        let mut random = Random::new(seed ^ 0x5eed);
        let weather = *random.pick(&[
            Weather::Calm,
            Weather::Calm,
            Weather::Rude,
            Weather::Rude,
            Weather::Rough,
            Weather::Deadly,
            Weather::Deadly,
            Weather::Stormy,
        ]);
        let count = random.between(1, 3);
        let settings = settings(&mut random, weather, count);
        let faults = faults(&mut random, weather);
        let rough = matches!(weather, Weather::Rough | Weather::Stormy);
        let mut remotes = Vec::new();
        kernel(|kernel| {
            kernel.note(|| format!("{weather:?} {:?} {faults:?}", settings.relay));
            for index in 0..count {
                let address = address(index as u8);
                let listener = kernel.listen(address, 100, true).ok();
                let flaps = (rough && random.once_in(2)).then_some(kernel.now + SECOND);
                remotes.push(Remote { address, listener, flaps });
            }
        });
        start_broker(&settings);
        kernel(|kernel| kernel.faults = faults);
        World {
            weather,
            settings,
            workers: BTreeMap::new(),
            clients: Vec::new(),
            ends: BTreeMap::new(),
            remotes,
            to_come: random.between(1, 25),
            lost: BTreeSet::new(),
            idle_turns: BTreeMap::new(),
            ending: false,
            patient_clients: random.once_in(2),
            next_end: FIRST_END,
            must_be_served: u64::MAX,
            random,
        }
    }

    /// Runs to the end. The kernel records the first violation.
    pub fn run(mut self) {
        let mut steps = 0;
        while steps < STEPS && !self.failed() && !(self.to_come == 0 && self.clients_done()) {
            self.step();
            steps += 1;
        }
        self.calm_down();
        self.settle();
        self.check_quiet();
        self.try_again();
        self.check_quiet();
        self.shut_down();
        if !self.failed() {
            self.check_clients();
        }
        self.forget();
    }

    /// Runs until nobody has anything left to do.
    fn settle(&mut self) {
        let mut steps = 0;
        while !self.failed() && !self.is_quiet() {
            self.step();
            steps += 1;
            if steps > MORE_STEPS {
                self.describe_unrest();
            }
        }
    }

    /// After the faults have ended and remotes have had time to recover, new clients must be
    /// served.
    fn try_again(&mut self) {
        let until = kernel(|kernel| kernel.now) + REST;
        while !self.failed() && kernel(|kernel| kernel.now) < until {
            self.step();
        }
        self.must_be_served = self.clients.len() as u64;
        for _ in 0..2 {
            self.to_come += 1;
            self.new_client();
        }
        self.settle();
    }

    fn failed(&self) -> bool {
        kernel(|kernel| kernel.violation.is_some())
    }

    fn clients_done(&self) -> bool {
        self.clients.iter().all(End::is_done)
    }

    fn is_quiet(&self) -> bool {
        let ends = self.ends.values().all(End::is_done);
        let sessions = self.workers.values().any(|worker| worker.worker.engine().open() > 0);
        let told = broker(|broker| broker.broker.connections()).unwrap_or(0) == 0;
        let starting = kernel(|kernel| !kernel.requests.is_empty());
        self.clients_done() && ends && !sessions && told && !starting
    }

    /// Ends all faults: remotes come back, and stopped workers go on.
    fn calm_down(&mut self) {
        kernel(|kernel| {
            kernel.note(|| "calm".to_owned());
            kernel.faults = Faults::default();
        });
        self.to_come = 0;
        self.ending = true;
        for worker in self.workers.values_mut() {
            worker.stalled = 0;
        }
        for remote in &mut self.remotes {
            remote.flaps = None;
            if remote.listener.is_none() {
                remote.listener = kernel(|kernel| kernel.listen(remote.address, 100, true).ok());
            }
        }
    }

    fn step(&mut self) {
        kernel(|kernel| kernel.now += 1 + kernel.random.below(20) as u64);
        let mut done = false;
        for _ in 0..12 {
            done = match self.random.below(10) {
                0..=2 => self.run_process(),
                3..=5 => self.deliver(),
                6..=8 => self.act(),
                _ => self.surprise(),
            };
            self.answer_requests();
            if done {
                break;
            }
        }
        if !done && !self.run_process() {
            self.pass_time();
        }
        self.check_invariants();
    }

    /// Runs one turn of a random process that is ready to run.
    fn run_process(&mut self) -> bool {
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
        let (before, now) = kernel(|kernel| (kernel.progress, kernel.now));
        let status = match self.workers.get_mut(&process) {
            Some(worker) => as_process(process, || worker.worker.turn(&mut worker.events)),
            None => broker(|broker| broker.broker.turn(&mut broker.events)).flatten(),
        };
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
                self.worker_ends(process, status << 8, false);
            }
            Some(0) if self.ending => end_broker(),
            Some(status) => {
                kernel(|kernel| kernel.violated(format!("the broker ends with {status}")));
            }
            None => {}
        }
    }

    /// Ends a worker that returned a status or was killed.
    fn worker_ends(&mut self, process: Process, status: i32, killed: bool) {
        let Some(worker) = self.workers.remove(&process) else {
            return;
        };
        kernel(|kernel| kernel.note(|| format!("{process} ends: {status}")));
        if killed {
            self.note_losses(process);
            kernel(|kernel| kernel.end_process(process));
            as_process(process, || drop(worker));
        } else {
            if worker.worker.engine().open() > 0 {
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
        }
        let parent = broker(|broker| broker.process);
        if let Some(parent) = parent {
            kernel(|kernel| kernel.ended.push((parent, process, status)));
            self.signal(parent, libc::SIGCHLD);
        }
    }

    /// Notes which connections end with a killed process: nobody is to blame for those.
    fn note_losses(&mut self, process: Process) {
        let lost: BTreeSet<Id> = kernel(|kernel| {
            let own = kernel.descriptors.values().filter(|entry| entry.process == process);
            let ids: Vec<Id> = own.map(|entry| entry.object).collect();
            ids.into_iter().filter_map(|id| kernel.stream(id)?.peer).collect()
        });
        for end in self.clients.iter().chain(self.ends.values()) {
            if end.stream.is_some_and(|stream| lost.contains(&stream)) {
                self.lost.insert(end.number);
            }
        }
    }

    /// Delivers a signal, and runs the turn in which the process notices it.
    fn signal(&mut self, process: Process, number: i32) {
        deliver_signal(process, number);
        if kernel(|kernel| kernel.has_signal(process)) {
            self.turn(process);
        }
    }

    fn answer_requests(&mut self) {
        while let Some(request) = kernel(|kernel| kernel.requests.pop()) {
            match request {
                Request::Spawned { child, stdin, .. } => {
                    match start_worker(child, stdin, &self.settings) {
                        Some(worker) => {
                            self.workers.insert(child, worker);
                        }
                        None => {
                            kernel(|kernel| kernel.end_process(child));
                            if let Some(parent) = broker(|broker| broker.process) {
                                kernel(|kernel| kernel.ended.push((parent, child, 1 << 8)));
                                self.signal(parent, libc::SIGCHLD);
                            }
                        }
                    }
                }
                Request::Signal { process, number: libc::SIGKILL } => {
                    self.worker_ends(process, libc::SIGKILL, true);
                }
                Request::Signal { process, number } => self.signal(process, number),
            }
        }
    }

    /// Lets the network carry some bytes, or answers a connect attempt.
    fn deliver(&mut self) -> bool {
        let random = &mut self.random;
        kernel(|kernel| {
            let waiting = kernel.in_transit();
            if waiting.is_empty() {
                return false;
            }
            let id = *random.pick(&waiting);
            match kernel.stream(id).map(|stream| stream.state) {
                Some(Waiting::Connecting) => kernel.answer(id),
                _ => {
                    let most = *random.pick(&[1, 100, 1448, 20_000, 1 << 20]);
                    kernel.deliver(id, random.between(1, most))
                }
            }
        })
    }

    /// Lets a client or a remote take a step.
    fn act(&mut self) -> bool {
        if self.to_come > 0 && self.random.once_in(8) {
            self.new_client();
            return true;
        }
        if self.accept() {
            return true;
        }
        let random = &mut self.random;
        let open = self.clients.iter_mut().chain(self.ends.values_mut());
        let mut open: Vec<&mut End> = open.filter(|end| !end.is_done()).collect();
        if open.is_empty() {
            return false;
        }
        let index = random.below(open.len());
        kernel(|kernel| open[index].act(kernel, random))
    }

    fn rude(&self) -> bool {
        !self.ending && !matches!(self.weather, Weather::Calm | Weather::Deadly)
    }

    fn new_client(&mut self) {
        self.to_come -= 1;
        let number = self.clients.len() as u64 + 1;
        let stream = kernel(|kernel| {
            let id = kernel.new_stream();
            if let Some(stream) = kernel.stream(id) {
                stream.urgent_inline = true;
                stream.actor = true;
            }
            let _ = kernel.connect(id, SocketAddrV4::new([0, 0, 0, 0].into(), PORT));
            kernel.note(|| format!("client {number} connects: #{id}"));
            id
        });
        let rude = self.rude();
        let mut client = End::new(number, stream, &mut self.random, rude);
        if client.manner == Manner::Patient && !self.patient_clients {
            client.manner = Manner::Polite;
        }
        self.clients.push(client);
    }

    /// Lets a remote accept a connection.
    fn accept(&mut self) -> bool {
        let index = self.random.below(self.remotes.len());
        let Some(listener) = self.remotes[index].listener else {
            return false;
        };
        let Some(stream) = kernel(|kernel| kernel.accept(listener)) else {
            return false;
        };
        let number = self.next_end;
        self.next_end += 1;
        kernel(|kernel| kernel.note(|| format!("remote {index} accepts #{stream} as {number}")));
        let rude = self.rude();
        let mut end = End::new(number, stream, &mut self.random, rude);
        if self.patient_clients {
            end.manner = if end.manner == Manner::Patient { Manner::Polite } else { end.manner };
        } else if self.random.once_in(3) {
            end.speak_second();
        }
        self.ends.insert(number, end);
        true
    }

    /// Something unusual: a remote goes or comes back, a worker is killed, told to end or stopped.
    fn surprise(&mut self) -> bool {
        let now = kernel(|kernel| kernel.now);
        if self.ending {
            return false;
        }
        for index in 0..self.remotes.len() {
            if self.remotes[index].flaps.is_some_and(|flaps| flaps <= now) {
                self.flap(index, now);
                return true;
            }
        }
        // Only once sessions exist: a broker whose first workers are killed gives up, as it should.
        let deadly = matches!(self.weather, Weather::Deadly | Weather::Stormy);
        if !deadly || self.workers.is_empty() || self.ends.is_empty() {
            return false;
        }
        let workers: Vec<Process> = self.workers.keys().copied().collect();
        let process = *self.random.pick(&workers);
        match self.random.below(3000) {
            0..=1 => self.worker_ends(process, libc::SIGKILL, true),
            2..=3 => self.signal(process, libc::SIGTERM),
            4..=8 => {
                let long = *self.random.pick(&[SECOND / 10, 2 * SECOND, 90 * SECOND]);
                kernel(|kernel| kernel.note(|| format!("{process} is stopped")));
                if let Some(worker) = self.workers.get_mut(&process) {
                    worker.stalled = now + long;
                }
            }
            _ => return false,
        }
        true
    }

    fn flap(&mut self, index: usize, now: u64) {
        let remote = &mut self.remotes[index];
        let pause = self.random.between(1, 5_000_000) as u64;
        remote.flaps = Some(now + pause);
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

    /// Nobody is ready to run: moves the clock to the next time at which somebody is.
    fn pass_time(&mut self) {
        let stalled = self.workers.values().map(|worker| (worker.process, worker.stalled));
        let stalled: BTreeMap<Process, u64> = stalled.collect();
        kernel(|kernel| {
            let wakes = kernel.processes.iter().filter(|(_, running)| !running.dead);
            let wakes = wakes.filter_map(|(process, running)| {
                let free = stalled.get(process).copied().unwrap_or(0);
                Some(running.wakes?.max(free))
            });
            let stalled = stalled.values().copied();
            let next = wakes.chain(stalled).filter(|&next| next > kernel.now).min();
            let next = next.unwrap_or(kernel.now).min(kernel.now + SECOND);
            kernel.now = next.max(kernel.now + 100);
        });
    }

    /// Tells the broker to drain and end; there are no sessions by now.
    fn shut_down(&mut self) {
        if self.failed() {
            return;
        }
        if let Some(process) = broker(|broker| broker.process) {
            self.signal(process, libc::SIGTERM);
        }
        let mut steps = 0;
        while !self.failed() && broker(|_| ()).is_some() {
            self.step();
            steps += 1;
            if steps > MORE_STEPS {
                kernel(|kernel| kernel.violated("the broker does not end"));
            }
        }
    }

    /// Tears everything down, with no checks.
    fn forget(mut self) {
        let workers: Vec<Process> = self.workers.keys().copied().collect();
        for process in workers {
            if let Some(worker) = self.workers.remove(&process) {
                kernel(|kernel| kernel.end_process(process));
                as_process(process, || drop(worker));
            }
        }
        if let Some(process) = broker(|broker| broker.process) {
            kernel(|kernel| kernel.end_process(process));
            end_broker();
        }
    }
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
