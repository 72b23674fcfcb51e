//! What balancing knows about one remote, and about the remotes that a session has tried.

use super::TICK;
use crate::config::check::Start;
use crate::upstream::health::{Health, WHOLE};
use crate::upstream::maglev::Host;
use crate::upstream::remote::RemoteId;
use crate::upstream::wish::{Service, Wish};
use crate::upstream::zone::State;

/// What one session has tried already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// Sorted, for binary search.
    pub(super) failed: Vec<RemoteId>,
    /// Those of them that failed because this host was short of something.
    pub(super) aside: Vec<RemoteId>,
    /// All remotes were dead, and their marks were lifted for this session. Done once per session,
    /// and again after it has waited for room.
    pub(super) revived: bool,
}

impl Tried {
    /// Lets remotes be tried again that failed only because of this host. False if there are none.
    pub fn retry_aside(&mut self) -> bool {
        let aside = std::mem::take(&mut self.aside);
        self.failed.retain(|id| !aside.contains(id));
        !aside.is_empty()
    }

    pub(super) fn has_failed(&self, id: RemoteId) -> bool {
        self.failed.binary_search(&id).is_ok()
    }

    pub(super) fn add_failed(&mut self, id: RemoteId) {
        if let Err(place) = self.failed.binary_search(&id) {
            self.failed.insert(place, id);
        }
    }
}

/// What balancing has to know about a remote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// At least 1.
    pub weight: u32,
    /// Its tags; small numbers, as they are used as indices.
    pub tags: Vec<u32>,
    /// The name of the remote in the zone; at least 1, and different for each remote.
    pub identity: u64,
    /// It is probed, and counts as this until the first results are there.
    pub check: Option<Start>,
    /// It is used when no other remote can be.
    pub backup: bool,
    /// The most sessions of all workers; 0 for any number.
    pub most: u32,
    /// It is used when no remote of a smaller tier can be; below `BACKUP`.
    pub tier: u8,
}

/// The tier of backups, after all others.
pub(super) const BACKUP: u8 = 7;

/// The step of a remote with weight 1. It is divisible by all weights up to 10, and by most others
/// that are used.
pub(super) const STEP: u64 = 256 * TICK;

/// Whether a place has a remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    InUse,
    /// It was removed, and some sessions still use it.
    Draining,
    Vacant,
}

pub(super) struct Remote {
    pub(super) id: RemoteId,
    pub(super) standing: Standing,
    /// As configured.
    pub(super) configured: u64,
    /// As configured, or as an operator wishes.
    pub(super) weight: u64,
    /// How far a session puts off its turn.
    pub(super) step: u64,
    /// Its tags, with its place in the group of each.
    pub(super) tags: Vec<(u32, usize)>,
    pub(super) identity: u64,
    /// Its health counts, if it is probed.
    pub(super) check: Option<Start>,
    pub(super) tier: u8,
    /// The most sessions of all workers.
    pub(super) most: u64,
    /// Its row in the zone.
    pub(super) row: usize,
    /// Sessions of this worker that use it.
    pub(super) own: u64,
    /// What the zone said when it was last read.
    pub(super) state: State,
    /// What an operator has decided, which is part of that.
    pub(super) service: Service,
    /// Its share of the sessions in 256ths, by that and by its probes; 0 if it gets none.
    pub(super) share: u64,
}

impl Remote {
    pub(super) fn set(&mut self, entry: &Entry) {
        self.configured = entry.weight.max(1).into();
        self.obey();
        self.identity = entry.identity;
        self.tags = entry.tags.iter().map(|&tag| (tag, 0)).collect();
        self.check = entry.check;
        self.tier = if entry.backup { BACKUP } else { entry.tier.min(BACKUP - 1) };
        self.most = if entry.most == 0 { u64::MAX } else { entry.most.into() };
        self.follow_health();
    }

    /// Follows what an operator has decided. True if its weight has changed.
    pub(super) fn obey(&mut self) -> bool {
        let wish = Wish::decode(self.state.wish);
        self.service = wish.service;
        let weight = wish.weight.map_or(self.configured, u64::from);
        self.step = (STEP / weight).max(1);
        self.follow_health();
        std::mem::replace(&mut self.weight, weight) != weight
    }

    /// Finds out its share of the sessions. Call it when its health, or what an operator wants, has
    /// changed.
    pub(super) fn follow_health(&mut self) {
        self.share = match self.service {
            Service::Normal => self.share_by_health(),
            Service::Drained | Service::Disabled => 0,
        };
    }

    /// Its share of the sessions in 256ths, as far as its probes decide; 0 if it gets none.
    pub(super) fn share_by_health(&self) -> u64 {
        let Some(start) = self.check else {
            return WHOLE.into();
        };
        let health = Health::decode(self.state.health);
        if health.is_down(start) {
            0
        } else {
            health.share.into()
        }
    }

    /// True if it has as many sessions as it may.
    pub(super) fn is_full(&self) -> bool {
        self.state.used >= self.most
    }

    pub(super) fn has(&self, tag: u32) -> bool {
        self.tags.iter().any(|&(known, _)| known == tag)
    }

    pub(super) fn host(&self, index: usize) -> Host {
        Host { identity: self.identity, weight: self.weight, number: index as u16 }
    }
}
