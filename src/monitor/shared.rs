//! What the parts of the monitor share.

use crate::config::relay::{Relay, Remote};
use crate::tls::client::Connector;
use crate::upstream::registry::Registry;
use crate::upstream::zone::Zone;
use std::rc::Rc;

/// What the parts of the monitor share.
pub(super) struct Shared {
    /// The relay's section.
    pub(super) settings: Relay,
    /// How to speak TLS with each remote, in the order of the settings.
    pub(super) connectors: Vec<Option<Rc<Connector>>>,
    /// The zone. Nobody is trusted in what it says.
    pub(super) zone: Zone,
    /// The row of each remote, in the order of the settings.
    pub(super) rows: Vec<usize>,
}

impl Shared {
    /// `None` if the zone has no room for the remotes.
    pub(super) fn new(
        settings: Relay,
        connectors: Vec<Option<Rc<Connector>>>,
        zone: Zone,
    ) -> Option<Shared> {
        // Remotes have the names that a worker gives them.
        let registry = Registry::new(&settings, Vec::new());
        let identities: Vec<u64> =
            registry.identities().into_iter().map(|(_, identity)| identity).collect();
        let rows = zone.take_rows(&identities)?;
        Some(Shared { settings, connectors, zone, rows })
    }
}

/// What messages call a remote.
pub(super) fn name(remote: &Remote) -> String {
    match &remote.host {
        Some(host) => format!("{} ({host})", remote.address),
        None => remote.address.to_string(),
    }
}
