//! What a run is like: its configuration, and the faults injected into it.

use crate::kernel::Faults;
use crate::processes::{listener, remote, Settings};
use crate::random::Random;
use mavis::config;
use mavis::config::balance::{Balance, Kind, Scope};
use mavis::config::broker::{Overload, Stop};
use mavis::config::relay::{Relay, Splice, Ties};
use std::net::SocketAddrV4;

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
}

/// The address of a remote.
pub fn address(last: u8) -> SocketAddrV4 {
    SocketAddrV4::new([10, 0, 1, last].into(), 80)
}

pub fn settings(random: &mut Random, weather: Weather, remotes: usize) -> Settings {
    let weights: Vec<u32> = (0..remotes).map(|_| random.between(1, 3) as u32).collect();
    let relay = Relay {
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
            Weather::Calm | Weather::Rude | Weather::Deadly => Overload::Queue,
            _ => *random.pick(&[Overload::Queue, Overload::Close, Overload::Reset]),
        },
        stop: Some(Stop::Drain),
        ..config::broker::Broker::default()
    };
    settings.spawn.instances_min = random.between(1, 2);
    settings.spawn.instances_max = random.between(2, 3);
    settings.spawn.users_min = random.between(1, 4);
    settings.spawn.users_max = random.between(4, 30);
    Settings { relay, broker: settings, ours: random.once_in(2), known: !random.once_in(3) }
}

pub fn faults(random: &mut Random, weather: Weather) -> Faults {
    let mut rate = |rates: &[usize]| *random.pick(rates);
    let mut faults = Faults {
        interrupted: rate(&[0, 10, 50]),
        spurious: rate(&[0, 2, 10]),
        ..Faults::default()
    };
    faults.epoll_no_memory = rate(&[0, 0, 5]);
    faults.splice_no_memory = rate(&[0, 0, 3, 20]);
    if matches!(weather, Weather::Rough | Weather::Stormy) {
        faults.no_memory = rate(&[0, 20, 100]);
        faults.no_descriptors = rate(&[0, 10, 50]);
        faults.no_ports = rate(&[0, 5, 30]);
        faults.lost_descriptor = rate(&[0, 0, 20]);
    }
    faults
}
