//! Limits, routes and counters: how many sessions remotes have, who waits for how long and in which
//! order, who goes where, and what was counted.

use super::{World, SECOND};
use crate::clients::End;
use crate::kernel::{Id, Process};
use crate::system::kernel;
use crate::weather::Weather;
use mavis::config::relay::Remote;
use mavis::config::route::Target;
use mavis::os::address::Address;
use mavis::upstream::zone::counters::{General, OfRemote, Place, Refusal};
use mavis::upstream::zone::Zone;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

/// How much longer than `queue timeout` a client may be there without a remote, in microseconds.
const LATE: u64 = 3 * SECOND;

/// How long a client may wait while all remotes have room.
const IDLE: u64 = SECOND;

impl World {
    /// No remote has more sessions than it may, and nobody waits for one longer than configured, or
    /// while there is room.
    pub(super) fn check_limits(&mut self) {
        let limits = self.settings.relay.remotes.first().map(|remote| remote.sessions);
        let Some(limits) = limits.filter(|limits| limits.max > 0) else {
            return;
        };
        let mut have_room = true;
        for remote in &self.settings.relay.remotes {
            let Some(address) = address(remote) else {
                continue;
            };
            let mut uses = kernel(|kernel| kernel.uses(address));
            // Probes do not count.
            uses.retain(|process| !self.monitors.contains(process));
            let of = |process: Process| uses.iter().filter(|&&maker| maker == process).count();
            let shares = |process: &Process| {
                self.workers.get(process).is_some_and(|child| child.zone.is_some())
            };
            let shared = uses.iter().filter(|process| shares(process)).count();
            let most = self.workers.keys().map(|&process| of(process)).max().unwrap_or(0);
            have_room &= uses.len() < limits.max as usize;
            if most.max(shared) > limits.max as usize {
                kernel(|kernel| {
                    kernel.violated(format!("{address} has {shared} sessions, {most} of a worker"));
                });
            }
        }
        let restful = matches!(self.weather, Weather::Calm | Weather::Rude | Weather::Restless);
        if restful && limits.queue_timeout > 0 {
            self.check_patience(u64::from(limits.queue_timeout) * SECOND + LATE);
        }
        let now = kernel(|kernel| kernel.now);
        self.room_since = have_room.then(|| self.room_since.unwrap_or(now));
        let waste = self.room_since.is_some_and(|since| since + IDLE < now);
        if waste && matches!(self.weather, Weather::Calm | Weather::Rude) {
            self.check_patience(IDLE);
        }
    }

    /// No worker has clients for longer than this without a remote.
    fn check_patience(&self, longest: u64) {
        for &process in self.workers.keys() {
            let (waiting, connected) = kernel(|kernel| {
                let (clients, own) = kernel.held(process);
                let long = |&&since: &&u64| since + longest < kernel.now;
                (clients.iter().filter(long).count(), own)
            });
            if waiting > connected {
                kernel(|kernel| {
                    kernel.violated(format!(
                        "{process} has {waiting} clients for long, and {connected} connections"
                    ));
                });
            }
        }
    }

    fn target(&self, client: &End) -> &Target {
        let routes = &self.settings.relay.routes;
        let bits = u128::from(client.ip.to_ipv6_mapped());
        let found = routes
            .list
            .iter()
            .find(|route| route.networks.iter().any(|network| network.bits == bits));
        found.map_or(&routes.default, |route| &route.target)
    }

    /// True if no remote is for a client.
    pub(super) fn is_rejected(&self, client: &End) -> bool {
        *self.target(client) == Target::Reject
    }

    /// A client must be connected to a remote that its route leads to.
    pub(super) fn check_route(&self, client: &End, end: &End) {
        let remote = self.settings.relay.remotes.get(end.remote);
        let right = match self.target(client) {
            Target::Any => true,
            Target::Tag(tag) => remote.is_some_and(|remote| remote.tags.contains(tag)),
            Target::Reject => false,
        };
        if !right {
            let (ip, remote) = (client.ip, end.remote);
            kernel(|kernel| kernel.violated(format!("a client at {ip} is at remote {remote}")));
        }
    }

    /// Clients of one address get a remote in the order in which they came, where every attempt
    /// succeeds.
    pub(super) fn check_order(&self) {
        if self.weather != Weather::Calm || self.broker_died {
            return;
        }
        let (made, passed) = kernel(|kernel| (kernel.made.clone(), kernel.passed.clone()));
        let mut last: BTreeMap<(Process, Ipv4Addr), Id> = BTreeMap::new();
        for (process, accepted) in passed {
            let of = |client: &&End| made.get(&accepted) == Some(&client.first);
            let Some(client) = self.clients.iter().find(of) else {
                continue;
            };
            let end = client.partner.and_then(|number| self.ends.get(&number));
            let end =
                end.or_else(|| self.ends.values().find(|end| end.partner == Some(client.number)));
            let Some(&upstream) = end.and_then(|end| made.get(&end.first)) else {
                continue;
            };
            let before = last.insert((process, client.ip), upstream).unwrap_or(0);
            if before > upstream {
                let number = client.number;
                kernel(|kernel| kernel.violated(format!("client {number} was served too late")));
            }
        }
    }

    /// What was counted is what has happened, where no process died before its time.
    pub(super) fn check_counters(&self) {
        if self.weather != Weather::Restless || self.zones_replaced || self.stopped {
            return;
        }
        let mut zones = self.workers.values().filter_map(|child| child.zone.as_ref());
        if let (Some(zone), true) = (zones.next(), self.is_monitored()) {
            self.compare_counters(zone);
        }
    }

    fn compare_counters(&self, zone: &Zone) {
        let refused = Refusal::ALL.iter().map(|&why| Place::Refused(why));
        // Addresses of names come and go, and their rows with them.
        let rows = 0..self.remotes.len();
        let sessions = rows.map(|row| Place::Remote(row, OfRemote::Sessions));
        let general = [General::Arrived, General::Accepted, General::BytesUp, General::BytesDown];
        let sum = |places: Vec<Place>| zone.figures(&places).iter().sum::<u64>();
        let figures = zone.figures(&general.map(Place::General));
        let (refused, sessions) = (sum(refused.collect()), sum(sessions.collect()));
        let [arrived, accepted, up, down] = figures[..] else {
            return;
        };
        let ends = self.ends.values();
        let right = [
            self.clients.iter().filter(|client| client.connected).count() as u64,
            self.clients
                .iter()
                .filter(|client| !self.is_rejected(client))
                .map(|client| client.sent as u64)
                .sum(),
            ends.map(|end| end.sent as u64).sum(),
        ];
        let named = !self.settings.relay.names.is_empty();
        let all = named || arrived == sessions + refused;
        if [arrived, up, down] != right || arrived != accepted || !all {
            kernel(|kernel| {
                kernel.violated(format!(
                    "counted: arrived {arrived}, accepted {accepted}, sessions {sessions}, refused \
                     {refused}, bytes {up} and {down}; right: {right:?}"
                ));
            });
        }
    }
}

fn address(remote: &Remote) -> Option<SocketAddrV4> {
    match remote.address {
        Address::Ip(std::net::SocketAddr::V4(address)) => Some(address),
        _ => None,
    }
}
