//! What is known of remotes: what probes have found, what stands in the zone, and whom workers
//! connect to.

use super::{World, SECOND};
use crate::kernel::Process;
use crate::processes::Child;
use crate::system::kernel;
use mavis::config::check::Check;
use mavis::config::relay::names::Name;
use mavis::os::address::Address;
use mavis::upstream::health::{Standing, WHOLE};
use mavis::upstream::names::identity;
use mavis::upstream::registry::Registry;
use mavis::upstream::remote::RemoteId;
use mavis::upstream::wish::Service;
use mavis::upstream::zone::counters::{OfRemote, Place};
use mavis::upstream::zone::Zone;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// How much later than it is due something may stand in the zone, in microseconds.
const LATE: u64 = SECOND / 2;
/// After so long without trouble all remotes must be up: a monitor that was killed is started again,
/// its lookups and probes succeed, and slow starts end.
const RECOVERY: u64 = 150 * SECOND;

/// What a remote should count as, by its check and the results of its probes alone.
struct Judged {
    up: bool,
    against: u32,
    /// Probes so far.
    passed: u64,
    failed: u64,
    /// Its share is whole from this time on.
    whole_at: u64,
}

/// The remotes as the zone has them, and what their probes say.
pub(super) struct View {
    remotes: Registry,
    judged: BTreeMap<RemoteId, Judged>,
}

impl View {
    pub(super) fn new(remotes: Registry) -> View {
        View { remotes, judged: BTreeMap::new() }
    }

    /// The row of the remote with this address.
    pub(super) fn row(&self, address: &Address) -> Option<usize> {
        let ids = self.remotes.identities().into_iter().map(|(id, _)| id);
        let mut found = ids
            .filter(|&id| self.remotes.get(id).is_some_and(|remote| remote.address() == address));
        self.remotes.row(found.next()?)
    }

    /// Follows the results of probes that a turn of the monitor has brought. What is wrong in the
    /// zone, if anything.
    fn follow(&mut self, zone: &Zone, now: u64) -> Option<String> {
        self.remotes.has_room(None, now / 1000);
        let ids: Vec<RemoteId> = self.remotes.identities().into_iter().map(|(id, _)| id).collect();
        self.judged.retain(|id, _| ids.contains(id));
        for id in ids {
            let (Some(remote), Some(row)) = (self.remotes.get(id), self.remotes.row(id)) else {
                continue;
            };
            let Some(check) = &remote.settings.check else {
                continue;
            };
            let wrong = follow(&mut self.judged, id, check, zone, row, now);
            if let Some(wrong) = wrong {
                return Some(format!("{}: {wrong}", remote.address()));
            }
        }
        None
    }
}

fn follow(
    judged: &mut BTreeMap<RemoteId, Judged>,
    id: RemoteId,
    check: &Check,
    zone: &Zone,
    row: usize,
    now: u64,
) -> Option<String> {
    let health = zone.health(row);
    let probes = [OfRemote::ProbesPassed, OfRemote::ProbesFailed];
    let figures = zone.figures(&probes.map(|what| Place::Remote(row, what)));
    let (passed, failed) = (figures[0], figures[1]);
    let climb = u64::from(check.slow_start) * SECOND;
    let judged = judged.entry(id).or_insert_with(|| Judged {
        up: !health.is_down(check.start),
        against: 0,
        passed,
        failed,
        whole_at: now + climb + LATE,
    });
    let (ups, downs) = (passed.wrapping_sub(judged.passed), failed.wrapping_sub(judged.failed));
    (judged.passed, judged.failed) = (passed, failed);
    let succeeded = match (ups, downs) {
        (0, 0) => judged.up,
        (1, 0) => true,
        (0, 1) => false,
        _ => return Some(format!("{ups} probes have passed in one turn, {downs} failed")),
    };
    if succeeded == judged.up {
        judged.against = if ups + downs > 0 { 0 } else { judged.against };
    } else {
        judged.against += 1;
        if judged.against >= if judged.up { check.fall } else { check.rise } {
            (judged.up, judged.against) = (succeeded, 0);
            judged.whole_at = now + climb + LATE;
            if judged.up && climb > 0 && health.share == WHOLE {
                return Some("it came up, and has all of its share at once".to_owned());
            }
        }
    }
    let standing = if judged.up { Standing::Up } else { Standing::Down };
    if health.standing != standing {
        return Some(format!("by its probes it is {standing:?}, the zone says {health:?}"));
    }
    if judged.up && health.share < WHOLE && now > judged.whole_at {
        return Some(format!("its slow start does not end: {health:?}"));
    }
    None
}

impl World {
    /// The monitor has had a turn.
    pub(super) fn check_monitor(&mut self, process: Process) {
        let now = kernel(|kernel| kernel.now);
        let zone = self.workers.get(&process).and_then(|monitor| monitor.zone.as_ref());
        let (Some(zone), Some(view)) = (zone, self.views.get_mut(&process)) else {
            return;
        };
        if let Some(wrong) = view.follow(zone, now) {
            kernel(|kernel| kernel.violated(wrong));
        }
    }

    /// Whom workers have tried to connect to since the last look.
    pub(super) fn check_attempts(&mut self) {
        let attempts = kernel(|kernel| std::mem::take(&mut kernel.attempts));
        // A session that waits for a descriptor keeps the remote that it was given before.
        if self.weather.is_rough() {
            return;
        }
        for (process, to) in attempts {
            let names = &self.settings.relay.names;
            let child = self.workers.get(&process);
            let wrong = child.and_then(|child| wrong(child, to.into(), names));
            if let Some(wrong) = wrong {
                kernel(|kernel| kernel.violated(format!("{process} connects to {to}: {wrong}")));
            }
        }
    }

    /// True if remotes are probed, or looked up, by a monitor.
    pub(super) fn is_monitored(&self) -> bool {
        let own = self.settings.ours && self.settings.known;
        own && self.settings.relay.is_monitored()
    }

    /// After all trouble has ended, all remotes are up again before long.
    pub(super) fn recover(&mut self) {
        let until = kernel(|kernel| kernel.now) + RECOVERY;
        while !self.failed() && self.is_monitored() && kernel(|kernel| kernel.now) < until {
            self.step();
        }
        for (process, view) in &self.views {
            let Some(zone) = self.workers.get(process).and_then(|child| child.zone.as_ref()) else {
                continue;
            };
            for (id, _) in view.remotes.identities() {
                let (Some(remote), Some(row)) = (view.remotes.get(id), view.remotes.row(id)) else {
                    continue;
                };
                let health = zone.health(row);
                let well = health.standing == Standing::Up && health.share == WHOLE;
                if remote.settings.check.is_some() && !well {
                    let address = remote.address();
                    kernel(|kernel| {
                        kernel.violated(format!("{address} does not recover: {health:?}"));
                    });
                }
            }
            self.check_names(zone);
        }
    }

    /// What was published for names must be what name servers say.
    fn check_names(&self, zone: &Zone) {
        for name in &self.settings.relay.names {
            let published = zone.published(identity(name)).map(|published| published.places);
            let published = published.unwrap_or_default();
            let mut known: Vec<String> =
                published.iter().map(|place| place.address.ip().to_string()).collect();
            let mut right: Vec<String> = kernel(|kernel| {
                kernel.names.addresses.iter().map(|address| address.to_string()).collect()
            });
            known.sort();
            right.sort();
            if known != right {
                kernel(|kernel| {
                    kernel.violated(format!("{right:?} is known as {known:?}"));
                });
            }
        }
    }
}

/// Why a worker should not connect to this remote now, if so.
fn wrong(child: &Child, to: SocketAddr, names: &[Name]) -> Option<String> {
    let (remotes, zone) = (child.engine()?.remotes(), child.zone.as_ref()?);
    let found = remotes.identities().into_iter().filter_map(|(id, _)| {
        let remote = remotes.get(id).filter(|remote| *remote.address() == Address::Ip(to))?;
        Some((remote.settings.clone(), remotes.row(id)?))
    });
    let found: Vec<_> = found.collect();
    if found.is_empty() {
        return Some("it is no remote any more".to_owned());
    }
    for (remote, row) in found {
        let (health, wish) = (zone.health(row), zone.wish(row));
        let name = remote.origin.and_then(|origin| names.get(origin.index as usize));
        let published = name.and_then(|name| zone.published(identity(name)));
        let vanished =
            published.is_some_and(|set| set.places.iter().all(|place| place.address != to));
        if vanished {
            return Some("it has vanished".to_owned());
        }
        if remote.check.is_some_and(|check| health.is_down(check.start)) {
            return Some(format!("it is down: {health:?}"));
        }
        if wish.service != Service::Normal {
            return Some(format!("it is taken out: {wish:?}"));
        }
    }
    None
}
