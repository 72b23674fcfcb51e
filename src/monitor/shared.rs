//! What the parts of the monitor share.

use crate::channel::briefing::Briefing;
use crate::config::relay::{Relay, Remote};
use crate::os::address::Address;
use crate::tls::client::Connector;
use crate::upstream::names::Difference;
use crate::upstream::registry::Registry;
use crate::upstream::remote;
use crate::upstream::zone::counters::Counters;
use crate::upstream::zone::Zone;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;

/// A remote, as the monitor knows it.
pub(super) struct Known {
    /// As configured.
    pub(super) remote: Remote,
    /// How to speak TLS with it.
    pub(super) connector: Option<Rc<Connector>>,
    /// Its row in the zone.
    pub(super) row: usize,
}

/// Which places of remotes have changed. Places that remotes have left may have others already.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) left: Vec<usize>,
    pub(super) joined: Vec<usize>,
}

/// True for a remote that is a listener of this relay.
pub type IsOwn = Box<dyn Fn(&Remote) -> bool>;

/// What the parts of the monitor share.
pub(super) struct Shared {
    /// The relay's section. Its remotes are those of the start; see [`remotes`](Self::remotes).
    pub(super) settings: Relay,
    /// The zone. Nobody is trusted in what it says.
    pub(super) zone: Zone,
    /// What this process has done.
    pub(super) counters: Counters,
    /// What the broker has told.
    pub(super) briefing: Briefing,
    pub(super) is_own: IsOwn,
    /// By their places, which remotes keep as long as they are there.
    remotes: Vec<Option<Known>>,
    /// How to speak TLS with the addresses of each name.
    of_names: Vec<Option<Rc<Connector>>>,
}

impl Shared {
    /// With the TLS connectors of the remotes, and then of the names, in the order of the settings.
    /// `None` if the zone has no room for the remotes.
    pub(super) fn new(
        settings: Relay,
        connectors: Vec<Option<Rc<Connector>>>,
        zone: Zone,
        counters: Counters,
        is_own: IsOwn,
    ) -> Option<Shared> {
        // Remotes have the names that a worker gives them.
        let registry = Registry::new(&settings, Vec::new());
        let identities: Vec<u64> =
            registry.identities().into_iter().map(|(_, identity)| identity).collect();
        let rows = zone.take_rows(&identities)?;
        let mut connectors = connectors;
        connectors.resize(settings.remotes.len() + settings.names.len(), None);
        let of_names = connectors.split_off(settings.remotes.len());
        let remotes = settings.remotes.iter().cloned().zip(connectors).zip(rows);
        let remotes =
            remotes.map(|((remote, connector), row)| Some(Known { remote, connector, row }));
        let remotes = remotes.collect();
        let briefing = Briefing::default();
        Some(Shared { settings, zone, counters, briefing, is_own, remotes, of_names })
    }

    /// Addresses of a name come and go. `None` if the zone has no room for those that come; nothing
    /// is changed then.
    pub(super) fn exchange(&mut self, name: usize, difference: &Difference) -> Option<Changes> {
        let mut changes = Changes::default();
        if difference.is_empty() {
            return Some(changes);
        }
        let template = &self.settings.names[name].template;
        let joined = difference.joined.iter().map(|place| remote::Remote {
            settings: place.remote(template),
            connector: self.of_names[name].clone(),
        });
        let joined: Vec<remote::Remote> = joined.collect();
        let identities: Vec<u64> = joined.iter().map(remote::Remote::identity).collect();
        let rows = match identities.is_empty() {
            true => Vec::new(),
            false => self.zone.take_rows(&identities)?,
        };
        let changed: HashMap<SocketAddr, Remote> = difference
            .changed
            .iter()
            .map(|place| (place.address, place.remote(template)))
            .collect();
        let left: HashSet<SocketAddr> = difference.left.iter().copied().collect();
        for (place, slot) in self.remotes.iter_mut().enumerate() {
            let Some(known) = slot.as_mut().filter(|known| known.is_of(name)) else {
                continue;
            };
            let Address::Ip(address) = known.remote.address else {
                continue;
            };
            if left.contains(&address) {
                self.zone.leave_row(known.row);
                *slot = None;
                changes.left.push(place);
            } else if let Some(remote) = changed.get(&address) {
                known.remote = remote.clone();
            }
        }
        let mut vacant = 0;
        for (remote, row) in joined.into_iter().zip(rows) {
            let known = Known { remote: remote.settings, connector: remote.connector, row };
            while self.remotes.get(vacant).is_some_and(Option::is_some) {
                vacant += 1;
            }
            match self.remotes.get_mut(vacant) {
                Some(slot) => *slot = Some(known),
                None => self.remotes.push(Some(known)),
            }
            changes.joined.push(vacant);
        }
        Some(changes)
    }

    /// The remotes that are there now, with their places.
    pub(super) fn remotes(&self) -> impl Iterator<Item = (usize, &Known)> {
        self.remotes.iter().enumerate().filter_map(|(place, known)| Some((place, known.as_ref()?)))
    }

    /// The remote in a place.
    pub(super) fn remote(&self, place: usize) -> Option<&Known> {
        self.remotes.get(place)?.as_ref()
    }
}

impl Known {
    /// True for an address of a name.
    fn is_of(&self, name: usize) -> bool {
        self.remote.origin.is_some_and(|origin| origin.index as usize == name)
    }

    /// What messages call the remote.
    pub(super) fn name(&self) -> String {
        match &self.remote.host {
            Some(host) => format!("{} ({host})", self.remote.address),
            None => self.remote.address.to_string(),
        }
    }
}
