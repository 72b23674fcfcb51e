//! The part of the engine that makes its balancing one with that of other workers.

use super::engine::Engine;
use crate::config::relay::Remote;
use crate::upstream::zone::Zone;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

impl Engine {
    /// Shares a zone with other workers, before the first session. False if there is no room
    /// for the remotes.
    pub fn share(&mut self, zone: Zone) -> bool {
        self.balancer.share(zone, &identities(&self.settings.remotes))
    }
}

/// What remotes are known by among workers: numbers that each of them comes to. One that is
/// configured several times has several.
fn identities(remotes: &[Remote]) -> Vec<u64> {
    let mut seen = HashSet::new();
    let mut identity = |remote: &Remote| {
        let mut hasher = DefaultHasher::new();
        (&remote.address, remote.protocol, &remote.tag).hash(&mut hasher);
        let mut identity = hasher.finish().max(1);
        while !seen.insert(identity) {
            identity = identity.wrapping_add(1).max(1);
        }
        identity
    };
    remotes.iter().map(&mut identity).collect()
}
