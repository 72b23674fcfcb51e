//! What a run is like: its configuration, and the faults injected into it.

use crate::clients::{QUESTION, WELL};
use crate::kernel::{Faults, Names, Reply};
use crate::processes::{listener, remote, Settings};
use crate::random::Random;
use mavis::config;
use mavis::config::balance::{Balance, Kind, Scope};
use mavis::config::broker::{Overload, Stop};
use mavis::config::check::{Check, OnDown, Probe, Start};
use mavis::config::network::parse_network;
use mavis::config::relay::names::{self as resolving, Bound, Name, Origin};
use mavis::config::relay::{Relay, Sessions, Splice, Ties};
use mavis::config::route::{Route, Target};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;

pub const PORT: u16 = 8000;

/// What may happen in a run besides well-behaved clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// No faults: everything must work.
    Calm,
    /// Clients and remotes reset their connections.
    Rude,
    /// System calls fail, remotes come and go: connections may be refused.
    Rough,
    /// Workers are killed, told to end, or stopped.
    Deadly,
    /// All of these.
    Stormy,
    /// Remotes but the first one come, go, fall ill, get other addresses, are taken out by hand, and
    /// the monitor dies or is stopped. Every client must be served.
    Restless,
}

impl Weather {
    /// Whether system calls fail for want of something.
    pub fn is_rough(self) -> bool {
        matches!(self, Weather::Rough | Weather::Stormy)
    }

    /// Whether processes are killed, told to end, or stopped.
    pub fn is_deadly(self) -> bool {
        matches!(self, Weather::Deadly | Weather::Stormy)
    }
}

/// The address of a remote.
pub fn address(last: u8) -> SocketAddrV4 {
    SocketAddrV4::new([10, 0, 1, last].into(), 80)
}

/// The tag of some remotes.
pub const BLUE: &str = "blue";
/// Clients from here go to blue remotes.
const FOR_BLUE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const FOR_OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);

/// The host that has several addresses.
const HOST: &str = "remotes.example";

/// What name servers know, if the host may have some of these addresses.
pub fn names(random: &mut Random, named: &[Ipv4Addr]) -> Names {
    let mut addresses = named.to_vec();
    random.shuffle(&mut addresses);
    if !addresses.is_empty() {
        addresses.truncate(random.between(1, named.len()));
    }
    let lifetime = *random.pick(&[1, 3]);
    Names { host: HOST.to_owned(), addresses, lifetime, reply: Reply::Answer }
}

/// How remotes are probed.
fn check(random: &mut Random, start: Start) -> Check {
    let expect = Some(WELL.to_vec());
    let send = Probe::Send { send: QUESTION.to_vec(), expect };
    Check {
        probe: random.pick(&[Probe::Tcp, send]).clone(),
        interval: *random.pick(&[1, 3]),
        fast_interval: 1,
        timeout: *random.pick(&[5, 8]),
        rise: random.between(1, 3) as u32,
        fall: random.between(2, 4) as u32,
        address: None,
        port: None,
        start,
        slow_start: *random.pick(&[0, 4]),
        on_down: OnDown::Keep,
    }
}

/// The settings of a run, and the addresses that a name among them may have.
pub fn settings(
    random: &mut Random,
    weather: Weather,
    remotes: usize,
) -> (Settings, Vec<Ipv4Addr>) {
    let restless = weather == Weather::Restless;
    let weights: Vec<u32> = (0..remotes).map(|_| random.between(1, 3) as u32).collect();
    let mut relay = Relay {
        remotes: weights
            .iter()
            .enumerate()
            .map(|(index, &weight)| remote(address(index as u8), weight))
            .collect(),
        balance: Balance {
            kind: *random.pick(&[
                Kind::LeastUse,
                Kind::LeastUse,
                Kind::RoundRobin,
                Kind::Random,
                Kind::Source,
                Kind::Hash,
            ]),
            scope: *random.pick(&[Scope::All, Scope::Worker]),
            ..Balance::default()
        },
        ties: *random.pick(&[Ties::Least, Ties::First]),
        fail_count: *random.pick(&[0, 0, 2]),
        rebalance: *random.pick(&[0, 0, 5]),
        retry_delay: *random.pick(&[1, 10]),
        connect_timeout: *random.pick(&[1, 5]),
        retire_limit: *random.pick(&[0, 0, 0, 7]),
        access_log: random.once_in(2),
        splice: *random.pick(&[Splice::Auto, Splice::Always, Splice::Never]),
        idle_timeout: *random.pick(&[0, 3600]),
        ..Relay::default()
    };
    let mut settings = config::broker::Broker {
        listeners: vec![listener(PORT)],
        overload: match weather {
            Weather::Calm | Weather::Rude | Weather::Deadly | Weather::Restless => Overload::Queue,
            _ => *random.pick(&[Overload::Queue, Overload::Close, Overload::Reset]),
        },
        stop: Some(Stop::Drain),
        ..config::broker::Broker::default()
    };
    settings.spawn.instances_min = random.between(1, 2);
    settings.spawn.instances_max = random.between(2, 3);
    settings.spawn.users_min = random.between(1, 4);
    settings.spawn.users_max = random.between(4, 30);
    let ours = restless || random.once_in(2);
    let known = ours && !random.once_in(if restless { 6 } else { 3 });
    if restless || random.once_in(4) {
        let mut check = check(random, Start::Up);
        for (index, remote) in relay.remotes.iter_mut().enumerate() {
            // Without a monitor checks do not count, and remotes are as good as any.
            if index > 0 && restless || !known {
                check.start = *random.pick(&[Start::Up, Start::Down]);
            }
            remote.check = Some(Rc::new(check.clone()));
        }
    }
    let rough = weather.is_rough();
    let mut refuses = false;
    if !rough && random.once_in(2) {
        let queues = [(1000, 0), (1000, 2), (3, 0)];
        let (queue, queue_timeout) = if restless { queues[0] } else { *random.pick(&queues) };
        let max = *random.pick(&[1, 1, 2, 4]);
        let sessions = Sessions { max, queue, queue_timeout };
        relay.remotes.iter_mut().for_each(|remote| remote.sessions = sessions);
        refuses = (queue, queue_timeout) != queues[0];
        relay.connect_timeout = 30;
    }
    if random.once_in(3) {
        route(random, &mut relay);
    }
    let mut named = Vec::new();
    if restless {
        (relay.balance.scope, relay.connect_timeout) = (Scope::All, 30);
        let count = random.between(0, 3);
        named = (0..count).map(|index| *address((remotes + index) as u8).ip()).collect();
    }
    if !named.is_empty() {
        let origin = Some(Origin { index: 0, earlier: 0 });
        let check = relay.remotes.first().and_then(|remote| remote.check.clone());
        let host = Some(HOST.into());
        let unknown = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, address(0).port());
        let template = config::relay::Remote { host, origin, check, ..remote(unknown, 1) };
        let (bound, start) = (Bound::Seconds(5), resolving::Start::Later);
        relay.names.push(Name { template, kind: resolving::Kind::Host, bound, start });
    }
    (Settings { relay, broker: settings, ours, known, refuses }, named)
}

/// Some remotes are blue; where clients of some addresses go to.
fn route(random: &mut Random, relay: &mut Relay) {
    for (index, remote) in relay.remotes.iter_mut().enumerate() {
        if index == 0 || random.once_in(2) {
            remote.tags = vec![BLUE.to_owned()];
        }
    }
    let blue = || Target::Tag(BLUE.to_owned());
    let route = |ip: Ipv4Addr, target: Target| {
        let network = parse_network(&format!("{ip}/32")).expect("a network");
        Route { networks: vec![network], target, ..Route::default() }
    };
    let other = random.pick(&[Target::Any, Target::Reject, blue()]).clone();
    relay.routes.list = vec![route(FOR_BLUE, blue()), route(FOR_OTHER, other)];
    relay.routes.default = random.pick(&[Target::Any, blue()]).clone();
}

pub fn faults(random: &mut Random, weather: Weather) -> Faults {
    let mut rate = |rates: &[usize]| *random.pick(rates);
    let mut faults = Faults {
        interrupted: rate(&[0, 10, 50]),
        spurious: rate(&[0, 2, 10]),
        ..Faults::default()
    };
    faults.epoll_no_memory = rate(&[0, 2, 5]);
    faults.splice_no_memory = rate(&[0, 0, 3, 20]);
    if weather.is_rough() {
        faults.no_memory = rate(&[0, 20, 100]);
        faults.no_descriptors = rate(&[0, 10, 50]);
        faults.no_ports = rate(&[0, 5, 30]);
        faults.lost_descriptor = rate(&[0, 4, 20]);
    }
    faults
}
