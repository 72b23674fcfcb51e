//! The processes: the product's own broker and workers, each with an event loop that is run one
//! turn at a time. What a real process does before its loop, reading the configuration and taking
//! over descriptors, is done by hand here.

use crate::kernel::{Id, Process, EPOCH};
use crate::system::kernel;
use crate::system::HANDOVER;
use mavis::broker::life::{Broker, Start};
use mavis::broker::{Former, Handover, Options, Secrets, Servers};
use mavis::channel::link::{Link, Start as Told};
use mavis::channel::Peer;
use mavis::config;
use mavis::config::balance::Scope;
use mavis::config::listen::Listener;
use mavis::config::relay::{Relay, Remote};
use mavis::event::{Choice, Loop};
use mavis::os::address::Address;
use mavis::os::process::{Identity, Program};
use mavis::os::shared::Object;
use mavis::os::Channel;
use mavis::tls::context::Contexts;
use mavis::tls::tickets::Ratchet;
use mavis::upstream::zone::counters::Counters;
use mavis::upstream::zone::Zone;
use mavis::worker::engine::Engine;
use mavis::worker::process::Worker;
use std::cell::RefCell;
use std::net::SocketAddrV4;
use std::os::fd::{FromRawFd, OwnedFd};

pub struct BrokerProcess {
    pub process: Process,
    pub broker: Broker,
    pub events: Loop,
}

pub struct WorkerProcess {
    pub process: Process,
    pub worker: Worker,
    pub events: Loop,
    /// Stopped until this time: it gets no turns.
    pub stalled: u64,
    /// The zone it shares with others.
    pub zone: Option<Zone>,
    /// When it is killed.
    pub doomed: Option<u64>,
    /// Signals that have come while it is stopped.
    pub pending: Vec<i32>,
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

/// Lets the broker run while a process waits in a blocking call. False once `until` has passed.
pub fn run_others(until: u64) -> bool {
    let now = kernel(|kernel| {
        kernel.now += 200;
        kernel.now
    });
    broker(|broker| broker.broker.turn(&mut broker.events));
    now < until
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

/// Replaces the image of the broker, which has executed itself again.
pub fn replace_broker(process: Process, settings: &Settings) -> Result<(), i32> {
    let former = BROKER.with(|cell| cell.borrow_mut().take());
    as_process(process, || drop(former));
    let text = kernel(|kernel| kernel.begin_image(process)).unwrap_or_default();
    std::env::set_var(HANDOVER, text);
    let former = as_process(process, Handover::take);
    let Former::Image(handover) = former else {
        kernel(|kernel| kernel.violated("what was handed over is lost"));
        return Err(0);
    };
    start_image(process, settings, Some(*handover))
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
        };
        let servers = match settings.ours && settings.known {
            true => Servers::Own(program),
            false => Servers::Foreign(program),
        };
        let secrets = Secrets {
            material: Default::default(),
            tickets: Ratchet::new([7; 32], EPOCH as u64, 3600),
            monitored: false,
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

/// The slot by which the simulation itself looks into zones; no broker has so many workers here.
const OBSERVER: usize = 20;

/// Starts a worker with this standard input. `None` if it ends before it serves.
pub fn start_worker(process: Process, stdin: Id, settings: &Settings) -> Option<WorkerProcess> {
    as_process(process, || {
        let fd = kernel(|kernel| {
            let fd = kernel.install(stdin);
            // fork() took this reference on behalf of the child.
            kernel.release(stdin);
            fd
        });
        // SAFETY: the descriptor has just been made, and nothing else owns it.
        let channel = Channel::from(unsafe { OwnedFd::from_raw_fd(fd) });
        let mut events = new_loop();
        let peer = if settings.ours { Peer::Ours } else { Peer::Foreign };
        let mut link = Link::new(channel, peer);
        let zone = match link.ask() {
            Told::Told(answer) => answer.zone,
            Told::Unneeded => return None,
            Told::Alone => None,
        };
        let relay = settings.relay.clone();
        let contexts = Contexts {
            acceptor: None,
            connectors: vec![None; relay.remotes.len()],
            tickets: Ratchet::new([7; 32], EPOCH as u64, 3600),
        };
        let retire_limit = relay.retire_limit;
        let mut engine = Engine::new(relay, contexts, None);
        let mut observed = None;
        if let Some((fd, slot)) = zone.filter(|_| settings.relay.balance.scope == Scope::All) {
            let fd = Object::from(fd);
            let joined = Zone::join(&fd, slot as usize);
            if joined.is_ok_and(|zone| engine.share(zone, Counters::default())) {
                observed = Zone::join(&fd, OBSERVER).ok();
            }
        }
        let mut worker = Worker::start("worker", engine, retire_limit, link, &mut events).ok()?;
        worker.begin(1000, &mut events);
        Some(WorkerProcess {
            process,
            worker,
            events,
            stalled: 0,
            zone: observed,
            doomed: None,
            pending: Vec::new(),
        })
    })
}
