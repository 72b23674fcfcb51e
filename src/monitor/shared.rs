//! What the parts of the monitor share.

use crate::channel::briefing::Briefing;
use crate::config::relay::{Relay, Remote};
use crate::tls::client::Connector;
use crate::upstream::registry::Registry;
use crate::upstream::zone::counters::Counters;
use crate::upstream::zone::Zone;
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
    /// By their places, which remotes keep as long as they are there.
    remotes: Vec<Option<Known>>,
}

impl Shared {
    /// With the TLS connectors of the remotes in the order of the settings. `None` if the zone has
    /// no room for the remotes.
    pub(super) fn new(
        settings: Relay,
        connectors: Vec<Option<Rc<Connector>>>,
        zone: Zone,
        counters: Counters,
    ) -> Option<Shared> {
        // Remotes have the names that a worker gives them.
        let registry = Registry::new(&settings, Vec::new());
        let identities: Vec<u64> =
            registry.identities().into_iter().map(|(_, identity)| identity).collect();
        let rows = zone.take_rows(&identities)?;
        let connectors = connectors.into_iter().chain(std::iter::repeat(None));
        let remotes = settings.remotes.iter().cloned().zip(connectors).zip(rows);
        let remotes =
            remotes.map(|((remote, connector), row)| Some(Known { remote, connector, row }));
        let remotes = remotes.collect();
        let briefing = Briefing::default();
        Some(Shared { settings, zone, counters, briefing, remotes })
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
    /// What messages call the remote.
    pub(super) fn name(&self) -> String {
        match &self.remote.host {
            Some(host) => format!("{} ({host})", self.remote.address),
            None => self.remote.address.to_string(),
        }
    }
}
