//! One run: a broker, its workers, clients and remotes, moved at random step by step, with the
//! invariants checked after each step.

mod checks;
mod counts;
mod health;
mod lives;
mod surprises;

use crate::clients::{End, Manner, Remote, Visit};
use crate::kernel::{Faults, Process, Reply, Waiting};
use crate::processes::{as_process, broker, end_broker, start_broker, Child, Settings};
use crate::random::Random;
use crate::system::kernel;
use crate::weather::{address, faults, names, settings, Weather, PORT};
use health::View;
use lives::{Checking, Starting};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

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
    /// The workers, and the monitor.
    workers: BTreeMap<Process, Child>,
    starting: BTreeMap<Process, Starting>,
    /// Signals that have reached processes which have not looked yet.
    untaken: BTreeMap<Process, Vec<i32>>,
    /// Children that check the configuration.
    checks: BTreeMap<Process, Checking>,
    /// When a broker that was killed is started again.
    respawn: Option<u64>,
    /// A broker was killed: clients may have found nobody there.
    broker_died: bool,
    /// When brokers were killed.
    died: BTreeMap<Process, u64>,
    /// The broker was told to stop; `stops_early`: it will be while clients are served.
    stopped: bool,
    stops_early: bool,
    /// When all remotes go away, or come back, together.
    outage: Option<u64>,
    clients: Vec<End>,
    /// The remotes' ends of connections, by their own numbers.
    ends: BTreeMap<u64, End>,
    remotes: Vec<Remote>,
    /// A broker has made another zone than its predecessor.
    zones_replaced: bool,
    /// All that were monitors, and what is known beside those that are.
    monitors: BTreeSet<Process>,
    views: BTreeMap<Process, View>,
    /// Their probes, as remotes see them.
    visits: Vec<Visit>,
    to_come: usize,
    /// When the next client may come, and when something changes about remotes.
    next_arrival: u64,
    next_change: Option<u64>,
    /// Clients and ends whose connection was lost when a worker was killed.
    lost: BTreeSet<u64>,
    idle_turns: BTreeMap<Process, (u32, u64)>,
    ending: bool,
    patient_clients: bool,
    /// Processes get few turns, so that much happens between two of them.
    busy: bool,
    /// All clients come at once, so that many wait for a remote.
    crowded: bool,
    /// Since when all remotes with a limit have room for a session.
    room_since: Option<u64>,
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
            Weather::Restless,
            Weather::Restless,
            Weather::Restless,
        ]);
        let count = random.between(1, 3);
        let (settings, named) = settings(&mut random, weather, count);
        let count = count + named.len();
        let faults = faults(&mut random, weather);
        let rough = weather.is_rough();
        let mut remotes = Vec::new();
        kernel(|kernel| {
            kernel.names = names(&mut random, &named);
            kernel.note(|| format!("{weather:?} {:?} {faults:?}", settings.relay));
            for index in 0..count {
                let address = address(index as u8);
                let listener = kernel.listen(address, 100, true).ok();
                let flaps = (rough && random.once_in(2)).then_some(kernel.now + SECOND);
                remotes.push(Remote { address, listener, flaps, sick: false });
            }
        });
        let outage = (rough && random.once_in(3))
            .then(|| kernel(|kernel| kernel.now) + random.between(1, 3_000_000) as u64);
        let next_change = (weather == Weather::Restless).then(|| kernel(|kernel| kernel.now));
        if let Err(status) = start_broker(&settings) {
            kernel(|kernel| kernel.violated(format!("the broker ends with {status}")));
        }
        kernel(|kernel| kernel.faults = faults);
        World {
            weather,
            settings,
            workers: BTreeMap::new(),
            starting: BTreeMap::new(),
            untaken: BTreeMap::new(),
            checks: BTreeMap::new(),
            respawn: None,
            broker_died: false,
            died: BTreeMap::new(),
            stopped: false,
            stops_early: random.once_in(8),
            outage,
            clients: Vec::new(),
            ends: BTreeMap::new(),
            remotes,
            zones_replaced: false,
            monitors: BTreeSet::new(),
            views: BTreeMap::new(),
            visits: Vec::new(),
            to_come: random.between(1, 25),
            next_arrival: 0,
            next_change,
            lost: BTreeSet::new(),
            idle_turns: BTreeMap::new(),
            ending: false,
            patient_clients: random.once_in(2),
            busy: random.once_in(3),
            crowded: random.once_in(2) && matches!(weather, Weather::Calm | Weather::Rude),
            room_since: None,
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
        self.check_counters();
        if !self.stopped {
            self.recover();
            self.try_again();
            self.check_quiet();
            self.shut_down();
        }
        self.check_end();
        if !self.failed() {
            self.check_clients();
            self.check_order();
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
        self.check_rest();
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
        let sessions = self.workers.values().any(|worker| worker.open() > 0);
        let told = broker(|broker| broker.broker.connections()).unwrap_or(0) == 0;
        let asked = kernel(|kernel| !kernel.requests.is_empty());
        let starting = asked || self.starts().next().is_some();
        let stopping = self.stopped && self.lives();
        self.clients_done() && ends && !sessions && told && !starting && !stopping && self.waits()
    }

    /// True if all workers wait for what has not happened yet, and everybody has heard of signals:
    /// what they last changed about interests is done before they wait.
    fn waits(&self) -> bool {
        let workers = self.workers.values().filter(|worker| worker.engine().is_some());
        let mut running = workers.map(|worker| worker.process);
        let waits = running.all(|process| {
            kernel(|kernel| {
                let own = kernel.processes.get(&process);
                own.is_none_or(|own| !own.again) && !kernel.has_events(process)
            })
        });
        let deaf = |&process: &Process| kernel(|kernel| !kernel.processes[&process].dead);
        waits && !self.untaken.keys().any(deaf)
    }

    /// True while there is a broker or a worker.
    fn lives(&self) -> bool {
        broker(|_| ()).is_some() || !self.workers.is_empty()
    }

    /// Ends all faults: remotes come back, and stopped workers go on.
    fn calm_down(&mut self) {
        kernel(|kernel| {
            kernel.note(|| "calm".to_owned());
            kernel.faults = Faults::default();
            kernel.doomed = None;
            kernel.processes.values_mut().for_each(|process| process.descriptors = None);
        });
        self.to_come = 0;
        self.ending = true;
        let now = kernel(|kernel| kernel.now);
        for worker in self.workers.values_mut() {
            (worker.stalled, worker.doomed) = (worker.stalled.min(now), None);
        }
        kernel(|kernel| kernel.names.reply = Reply::Answer);
        for remote in &mut self.remotes {
            (remote.flaps, remote.sick) = (None, false);
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
                0..=2 => (!self.busy || self.random.once_in(10)) && self.run_process(),
                3..=5 => self.deliver(),
                6..=8 => self.act(),
                _ => self.surprise(),
            };
            self.answer_requests();
            if done {
                break;
            }
        }
        self.change();
        self.end_doomed();
        self.deliver_pending();
        self.start_processes();
        if !done && !self.run_process() {
            self.pass_time();
        }
        self.check_invariants();
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
        let now = kernel(|kernel| kernel.now);
        let comes = self.crowded || self.random.once_in(8);
        if self.to_come > 0 && self.next_arrival <= now && comes {
            if self.weather == Weather::Restless {
                self.next_arrival = now + self.random.between(0, 2 * SECOND as usize) as u64;
            }
            self.new_client();
            return true;
        }
        if self.accept() || self.visit() {
            return true;
        }
        let random = &mut self.random;
        let open = self.clients.iter().chain(self.ends.values());
        let open: Vec<&End> = open.filter(|end| !end.is_done()).collect();
        if open.is_empty() {
            return false;
        }
        let index = random.below(open.len());
        let number = open[index].number;
        let arrived = if open[index].cautious { self.arrived(number) } else { 0 };
        let random = &mut self.random;
        let end = match number {
            FIRST_END.. => self.ends.get_mut(&number),
            _ => self.clients.get_mut(number as usize - 1),
        };
        end.is_some_and(|end| kernel(|kernel| end.act(kernel, random, arrived)))
    }

    /// How much of what an end has sent has arrived at the other end.
    fn arrived(&self, number: u64) -> usize {
        let own = self.clients.iter().chain(self.ends.values());
        let partner = own.filter(|end| end.number == number).find_map(|end| end.partner);
        let mut all = self.clients.iter().chain(self.ends.values());
        let other = all.find(|end| Some(end.number) == partner || end.partner == Some(number));
        other.map_or(0, |end| end.received)
    }

    fn rude(&self) -> bool {
        !self.ending && !matches!(self.weather, Weather::Calm | Weather::Deadly | Weather::Restless)
    }

    fn new_client(&mut self) {
        self.to_come -= 1;
        let number = self.clients.len() as u64 + 1;
        let ip = Ipv4Addr::new(10, 0, 0, self.random.between(1, 3) as u8);
        let stream = kernel(|kernel| {
            let id = kernel.new_stream();
            if let Some(stream) = kernel.stream(id) {
                stream.local = SocketAddrV4::new(ip, 0);
                stream.urgent_inline = true;
                stream.actor = true;
            }
            let _ = kernel.connect(id, SocketAddrV4::new([0, 0, 0, 0].into(), PORT));
            kernel.note(|| format!("client {number} connects: #{id}"));
            id
        });
        let rude = self.rude();
        let mut client = End::new(number, stream, &mut self.random, rude);
        client.ip = ip;
        if client.manner == Manner::Rude && self.random.once_in(2) {
            let patience = self.random.below(20_000) as u64;
            client.gives_up = Some(kernel(|kernel| kernel.now) + patience);
        }
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
        let maker = kernel(|kernel| kernel.stream(stream).map(|stream| stream.maker));
        if maker.is_some_and(|maker| self.monitors.contains(&maker)) {
            self.visits.push(Visit::new(stream, index));
            return true;
        }
        let number = self.next_end;
        self.next_end += 1;
        kernel(|kernel| kernel.note(|| format!("remote {index} accepts #{stream} as {number}")));
        let rude = self.rude();
        let mut end = End::new(number, stream, &mut self.random, rude);
        end.remote = index;
        if self.patient_clients {
            end.manner = if end.manner == Manner::Patient { Manner::Polite } else { end.manner };
        } else if self.random.once_in(3) {
            end.speak_second();
        }
        self.ends.insert(number, end);
        true
    }

    /// Lets a remote go on with a probe.
    fn visit(&mut self) -> bool {
        if self.visits.is_empty() {
            return false;
        }
        let index = self.random.below(self.visits.len());
        let visit = &mut self.visits[index];
        // Some who are ill feel well at times.
        let moody = visit.remote % 2 == 1 && self.random.once_in(3);
        let sick = self.remotes[visit.remote].sick && !moody;
        let moved = kernel(|kernel| visit.act(kernel, sick));
        self.visits.retain(|visit| !visit.over);
        moved
    }

    /// Nobody is ready to run: moves the clock to the next time at which somebody is.
    fn pass_time(&mut self) {
        let stalled = self.workers.values().map(|worker| (worker.process, worker.stalled));
        let stalled: BTreeMap<Process, u64> = stalled.collect();
        let starts: Vec<u64> = self.starts().collect();
        let doomed: Vec<u64> = self.workers.values().filter_map(|worker| worker.doomed).collect();
        kernel(|kernel| {
            let is_up = |process: &Process| {
                !self.starting.contains_key(process) && !self.checks.contains_key(process)
            };
            let wakes = kernel.processes.iter();
            let wakes = wakes.filter(|(process, running)| !running.dead && is_up(process));
            let wakes = wakes.filter_map(|(process, running)| {
                let free = stalled.get(process).copied().unwrap_or(0);
                Some(running.wakes?.max(free))
            });
            let arrival = (self.to_come > 0).then_some(self.next_arrival);
            let changes = arrival.into_iter().chain(self.next_change.filter(|_| !self.ending));
            let stalled = stalled.values().copied().chain(starts).chain(doomed).chain(changes);
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
        self.stopped = true;
        if let Some(process) = broker(|broker| broker.process) {
            self.signal(process, libc::SIGTERM);
        }
        let mut steps = 0;
        while !self.failed() && self.lives() {
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
