//! The processes: the product's own broker, workers and monitor, each with an event loop that is run
//! one turn at a time. What a real process does before its loop, reading the configuration and taking
//! over descriptors, is done by hand here.

use crate::kernel::{Id, Process, EPOCH};
use crate::system::kernel;
use crate::system::HANDOVER;
use mavis::broker::life::{Broker, Start};
use mavis::broker::{Checked, Findings, Former, Handover, Options, Secrets, Servers};
use mavis::channel::briefing::Briefing;
use mavis::channel::link::{Link, Start as Told};
use mavis::channel::Peer;
use mavis::config;
use mavis::config::balance::Scope;
use mavis::config::listen::Listener;
use mavis::config::relay::names::Place;
use mavis::config::relay::{Relay, Remote};
use mavis::event::{Choice, Loop};
use mavis::monitor::parts::Monitor as Parts;
use mavis::monitor::process::Process as Monitor;
use mavis::os::address::Address;
use mavis::os::process::{Identity, Program};
use mavis::os::shared::Object;
use mavis::os::Channel;
use mavis::tls::context::Contexts;
use mavis::tls::tickets::Ratchet;
use mavis::upstream::names::identity;
use mavis::upstream::registry::Registry;
use mavis::upstream::zone::counters::Counters;
use mavis::upstream::zone::Zone;
use mavis::worker::engine::Engine;
use mavis::worker::process::Worker;
use std::cell::RefCell;
use std::io::PipeWriter;
use std::net::SocketAddrV4;
use std::os::fd::{FromRawFd, OwnedFd};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};

pub struct BrokerProcess {
    pub process: Process,
    pub broker: Broker,
    pub events: Loop,
}

/// What a child of the broker is.
pub enum Role {
    Worker(Box<Worker>),
    Monitor(Box<Monitor>),
}

/// A child of the broker.
pub struct Child {
    pub process: Process,
    pub role: Role,
    pub events: Loop,
    /// Stopped until this time: it gets no turns.
    pub stalled: u64,
    /// The zone it shares with others.
    pub zone: Option<Zone>,
    /// When it is killed.
    pub doomed: Option<u64>,
    /// Signals that have come while it is stopped.
    pub pending: Vec<i32>,
    /// The remotes as the zone has them, for the simulation to look at beside a monitor.
    pub remotes: Option<Registry>,
}

impl Child {
    fn new(process: Process, role: Role, events: Loop, zone: Option<Zone>) -> Child {
        let (stalled, doomed, pending, remotes) = (0, None, Vec::new(), None);
        Child { process, role, events, stalled, zone, doomed, pending, remotes }
    }

    /// Runs one turn of its loop; its exit status, if it ends.
    pub fn turn(&mut self) -> Option<i32> {
        match &mut self.role {
            Role::Worker(worker) => worker.turn(&mut self.events),
            Role::Monitor(monitor) => monitor.turn(&mut self.events),
        }
    }

    /// The engine of a worker.
    pub fn engine(&self) -> Option<&Engine> {
        match &self.role {
            Role::Worker(worker) => Some(worker.engine()),
            Role::Monitor(_) => None,
        }
    }

    /// How many sessions it has.
    pub fn open(&self) -> usize {
        self.engine().map_or(0, Engine::open)
    }
}

thread_local! {
    /// Separate from the workers: while a worker starts, it waits for the broker, which must run.
    static BROKER: RefCell<Option<BrokerProcess>> = const { RefCell::new(None) };
}

/// Runs `work` on the broker, as the broker's process. `None` if there is none, or it is running
/// already.
pub fn broker<R>(work: impl FnOnce(&mut BrokerProcess) -> R) -> Option<R> {
    BROKER.with(|cell| {
        let mut cell = cell.try_borrow_mut().ok()?;
        let broker = cell.as_mut()?;
        let process = broker.process;
        Some(as_process(process, || work(broker)))
    })
}

/// Destroys the broker and ends its process.
pub fn end_broker() {
    let ended = BROKER.with(|cell| cell.borrow_mut().take());
    if let Some(broker) = ended {
        let process = broker.process;
        as_process(process, || drop(broker));
        kernel(|kernel| kernel.end_process(process));
    }
}

/// One turn of the broker; its exit status if it has ended.
pub fn turn_of_broker() -> Option<i32> {
    let turn = |own: &mut BrokerProcess| survive(own.process, || own.broker.turn(&mut own.events));
    broker(turn).flatten()
}

/// Lets the broker run while a process waits in a blocking call. False once `until` has passed, or
/// when the broker has died: nobody answers then, and the others would stand still for long.
pub fn run_others(until: u64) -> bool {
    let now = kernel(|kernel| {
        kernel.now += 200;
        kernel.now
    });
    turn_of_broker();
    now < until && broker(|own| is_dead(own.process)) != Some(true)
}

/// Runs what a process does. Once it was killed, what it still does in here has no effect, and it
/// may panic.
pub fn survive<R>(process: Process, work: impl FnOnce() -> Option<R>) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result,
        Err(_) if is_dead(process) => None,
        Err(panic) => resume_unwind(panic),
    }
}

pub fn is_dead(process: Process) -> bool {
    kernel(|kernel| kernel.processes.get(&process).is_none_or(|process| process.dead))
}

/// Runs `work`, with its system calls made by `process`.
pub fn as_process<R>(process: Process, work: impl FnOnce() -> R) -> R {
    let before = kernel(|kernel| std::mem::replace(&mut kernel.current, process));
    let result = work();
    kernel(|kernel| kernel.current = before);
    result
}

fn new_loop() -> Loop {
    Loop::new(&Choice::from_setting(None)).expect("a loop")
}

/// The configuration of broker and workers.
#[derive(Clone)]
pub struct Settings {
    pub relay: Relay,
    pub broker: config::broker::Broker,
    /// The workers know that the broker is this program; `known`: the broker knows it of them.
    pub ours: bool,
    pub known: bool,
    /// Clients may be refused, as remotes have queues that are short or do not wait for ever.
    pub refuses: bool,
}

pub fn remote(address: SocketAddrV4, weight: u32) -> Remote {
    Remote { weight, ..Remote::new(Address::Ip(address.into())) }
}

pub fn listener(port: u16) -> Listener {
    Listener { port, empty: false, ..Listener::new(0) }
}

/// Starts a broker, which then asks for its workers. The error is its exit status.
pub fn start_broker(settings: &Settings) -> Result<(), i32> {
    let process = kernel(|kernel| kernel.new_process());
    start_image(process, settings, None)
}

/// Whether the next image of a broker goes on with the zone of the former one.
pub enum Zones {
    Same,
    Another,
}

/// Replaces the image of the broker, which has executed itself again.
pub fn replace_broker(process: Process, settings: &Settings) -> Result<Zones, i32> {
    let former = BROKER.with(|cell| cell.borrow_mut().take());
    as_process(process, || drop(former));
    let text = kernel(|kernel| kernel.begin_image(process)).unwrap_or_default();
    std::env::set_var(HANDOVER, text);
    let former = as_process(process, Handover::take);
    let Former::Image(handover) = former else {
        kernel(|kernel| kernel.violated("what was handed over is lost"));
        return Err(0);
    };
    let zones = if handover.zone.is_some() { Zones::Same } else { Zones::Another };
    start_image(process, settings, Some(*handover)).map(|()| zones)
}

fn start_image(
    process: Process,
    settings: &Settings,
    handover: Option<Handover>,
) -> Result<(), i32> {
    let reloaded = handover.is_some();
    let started = as_process(process, || {
        let mut events = new_loop();
        let options = Options {
            name: "broker".into(),
            executable: "/simulated/tcprelay".into(),
            arguments: vec!["tcprelay".into()],
            environment: Vec::new(),
            inetd: false,
            background: false,
        };
        let program = Program {
            path: "/simulated/tcprelay".into(),
            arguments: Vec::new(),
            identity: Identity::default(),
            directory: None,
            environment: None,
            group: false,
            held: None,
        };
        let servers = match settings.ours && settings.known {
            true => Servers::Own(program),
            false => Servers::Foreign(program),
        };
        let secrets = Secrets {
            material: Default::default(),
            tickets: Ratchet::new([7; 32], EPOCH as u64, 3600),
            monitored: settings.relay.is_monitored(),
        };
        let start = Start {
            options,
            reloaded,
            snapshot: None,
            shared: None,
            secrets,
            activated: Vec::new(),
            launcher: None,
            servers,
        };
        let mut handover = handover.unwrap_or_default();
        let broker = Broker::start(settings.broker.clone(), start, &mut handover, &mut events);
        broker.map(|broker| BrokerProcess { process, broker, events })
    });
    match started {
        Ok(started) => BROKER.with(|cell| *cell.borrow_mut() = Some(started)),
        Err(status) => {
            kernel(|kernel| kernel.end_process(process));
            return Err(status);
        }
    }
    Ok(())
}

/// The slots by which the simulation itself looks into zones, this one and the next; no broker has so
/// many workers here.
const OBSERVER: usize = 20;

/// Starts a worker with this standard input. `None` if it ends before it serves.
pub fn start_worker(process: Process, stdin: Id, settings: &Settings) -> Option<Child> {
    as_process(process, || {
        let mut events = new_loop();
        let peer = if settings.ours { Peer::Ours } else { Peer::Foreign };
        let mut link = Link::new(inherit(stdin), peer);
        let zone = match link.ask() {
            Told::Told(answer) => answer.zone,
            Told::Unneeded => return None,
            Told::Alone => None,
        };
        let zone = zone.filter(|_| settings.relay.balance.scope == Scope::All);
        let zone = zone.map(|(fd, slot)| (Object::from(fd), slot as usize));
        let joined = zone.as_ref().and_then(|(fd, slot)| Zone::join(fd, *slot).ok());
        let monitored = joined.as_ref().is_some_and(Zone::is_monitored);
        let mut relay = resolved(settings, joined.as_ref());
        if !monitored {
            relay.without_monitor();
        }
        let contexts = contexts(&relay);
        let retire_limit = relay.retire_limit;
        let mut engine = Engine::new(relay, contexts, None);
        let mut observed = None;
        if let (Some(joined), Some((fd, slot))) = (joined, zone) {
            let counters = match monitored {
                true => Counters::of_worker(&fd, slot, process as i32).unwrap_or_default(),
                false => Counters::default(),
            };
            if engine.join(joined, counters) {
                observed = Zone::join(&fd, OBSERVER).ok();
            }
        }
        let mut worker = Worker::start("worker", engine, retire_limit, link, &mut events).ok()?;
        worker.begin(1000, &mut events);
        Some(Child::new(process, Role::Worker(Box::new(worker)), events, observed))
    })
}

/// Starts a monitor with this standard input. `None` if it ends before it works.
pub fn start_monitor(process: Process, stdin: Id, settings: &Settings) -> Option<Child> {
    as_process(process, || {
        let mut events = new_loop();
        let mut link = Link::new(inherit(stdin), Peer::Ours);
        let Told::Told(answer) = link.ask() else {
            return None;
        };
        let fd = Object::from(answer.zone?.0);
        let zone = Zone::monitor(&fd).ok()?;
        let counters = Counters::of_monitor(&fd, process as i32).unwrap_or_default();
        let relay = resolved(settings, Some(&zone));
        let connectors = contexts(&relay).connectors;
        let mut remotes = Registry::new(&relay, connectors.clone());
        let seen = Zone::join(&fd, OBSERVER + 1).is_ok_and(|zone| remotes.join(zone));
        let parts = Parts::new(relay, connectors, Vec::new(), zone, counters, Box::new(|_| false))?;
        let mut monitor = Monitor::start(parts, link, &mut events).ok()?;
        monitor.begin("monitor", Briefing::default(), answer.endpoints, &mut events);
        let observed = Zone::join(&fd, OBSERVER).ok();
        let mut child = Child::new(process, Role::Monitor(Box::new(monitor)), events, observed);
        child.remotes = Some(remotes).filter(|_| seen);
        Some(child)
    })
}

/// The settings, with the addresses of names that were published last or are known now.
fn resolved(settings: &Settings, zone: Option<&Zone>) -> Relay {
    let mut relay = settings.relay.clone();
    for name in &settings.relay.names {
        let published = zone.and_then(|zone| zone.published(identity(name)));
        let places = published.map(|published| published.places).unwrap_or_else(|| {
            let known = kernel(|kernel| kernel.names.addresses.clone());
            let port = name.template.address.port();
            known.into_iter().map(|ip| Place::new((ip, port).into())).collect()
        });
        relay.remotes.extend(places.iter().map(|place| place.remote(&name.template)));
    }
    relay
}

/// The channel that a process has as standard input.
fn inherit(stdin: Id) -> Channel {
    let fd = kernel(|kernel| {
        let fd = kernel.install(stdin);
        // fork() took this reference on behalf of the child.
        kernel.release(stdin);
        fd
    });
    // SAFETY: the descriptor has just been made, and nothing else owns it.
    Channel::from(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn contexts(relay: &Relay) -> Contexts {
    Contexts {
        acceptor: None,
        connectors: relay.templates().map(|_| None).collect(),
        tickets: Ratchet::new([7; 32], EPOCH as u64, 3600),
    }
}

/// What the check of a configuration does when it has found nothing wrong: it tells the broker what
/// it has read.
pub fn report(process: Process, pipe: Id, settings: &Settings) {
    as_process(process, || {
        let fd = kernel(|kernel| kernel.install(pipe));
        // SAFETY: the descriptor has just been made, and nothing else owns it.
        let pipe = PipeWriter::from(unsafe { OwnedFd::from_raw_fd(fd) });
        let monitored = settings.relay.is_monitored();
        let (material, rights) = Default::default();
        let checked = Checked { material, session_timeout: 3600, monitored, rights };
        let _ = Findings { snapshot: Vec::new(), checked }.write(pipe);
    });
}
