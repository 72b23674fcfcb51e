//! Remotes that are addresses of names. The monitor looks names up, and publishes in the zone what it
//! finds; when a remote is selected, addresses that have appeared join, and those that have vanished
//! drain.

use super::{Registry, Remote, RemoteId};
use crate::config::relay::names::Place;
use crate::config::relay::Relay;
use crate::os::address::Address;
use crate::upstream::names::{compare, identity, Difference};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

/// How long to wait before what was unreadable, or did not fit, is tried again, in milliseconds.
const PAUSE: u64 = 100;

/// One name.
struct Name {
    identity: u64,
    /// What its addresses have in common.
    template: Remote,
    members: Vec<(Place, RemoteId)>,
    /// The edition that its addresses are of; 0: they were looked up at the start.
    edition: u64,
}

/// The names whose addresses come and go.
#[derive(Default)]
pub(super) struct Names {
    names: Vec<Name>,
    /// What had been published when all names were last read.
    seen: u64,
    /// Not before this time.
    again: u64,
}

impl Names {
    /// The names of a section. `ids` are those of its remotes.
    pub(super) fn new(settings: &Relay, templates: Vec<Remote>, ids: &[RemoteId]) -> Names {
        let members = |index: usize| {
            let remotes = settings.remotes.iter().zip(ids);
            let of_name = remotes.filter(move |(remote, _)| {
                remote.origin.is_some_and(|origin| origin.index as usize == index)
            });
            of_name.filter_map(|(remote, &id)| match remote.address {
                Address::Ip(address) => {
                    let (weight, tier) = (remote.weight, remote.tier);
                    Some((Place { address, weight, tier }, id))
                }
                Address::Unix(_) => None,
            })
        };
        let names = settings.names.iter().zip(templates).enumerate();
        let names = names.map(|(index, (name, template))| Name {
            identity: identity(name),
            members: members(index).collect(),
            template,
            edition: 0,
        });
        Names { names: names.collect(), seen: 0, again: 0 }
    }

    /// True if there are names.
    #[inline]
    pub(super) fn are_any(&self) -> bool {
        !self.names.is_empty()
    }

    /// True if something was published since all names were read.
    #[inline]
    pub(super) fn may_have_news(&self, editions: u64, now: u64) -> bool {
        editions != self.seen && now >= self.again
    }
}

impl Registry {
    /// Takes over the addresses of names from the zone, if there is news.
    #[inline]
    pub(super) fn look_at_names(&mut self, now: u64) {
        if self.names.are_any() && self.names.may_have_news(self.balancer.editions(), now) {
            self.follow_names(now);
        }
    }

    #[cold]
    #[inline(never)]
    fn follow_names(&mut self, now: u64) {
        let mut names = std::mem::take(&mut self.names);
        let editions = self.balancer.editions();
        let mut all = true;
        for name in &mut names.names {
            all &= self.follow(name);
        }
        match all {
            true => names.seen = editions,
            false => names.again = now + PAUSE,
        }
        self.names = names;
    }

    /// Takes over the addresses of one name. False if that has to be tried again.
    fn follow(&mut self, name: &mut Name) -> bool {
        let edition = self.balancer.zone().edition(name.identity);
        // Never published, or known.
        if edition == 0 || edition == name.edition {
            return true;
        }
        let Some(published) = self.balancer.zone().published(name.identity) else {
            return false;
        };
        let template = name.template.settings.weight;
        // A weight that is not in the DNS is the configured one.
        let weighed = published.places.iter().map(|place| match place.weight {
            0 => Place { weight: template, ..*place },
            _ => *place,
        });
        let new: Vec<Place> = weighed.collect();
        let old: Vec<Place> = name.members.iter().map(|(place, _)| *place).collect();
        let done = self.apply(name, &compare(&old, &new));
        if done {
            name.edition = published.edition;
        }
        done
    }

    /// Lets addresses join, and others drain. False if the zone has no room for them.
    fn apply(&mut self, name: &mut Name, difference: &Difference) -> bool {
        if difference.is_empty() {
            return true;
        }
        let members: HashMap<SocketAddr, RemoteId> =
            name.members.iter().map(|(place, id)| (place.address, *id)).collect();
        let leaving = difference.left.iter().filter_map(|address| members.get(address));
        let leaving: Vec<RemoteId> = leaving.copied().collect();
        let remote = |place: &Place| Remote {
            settings: place.remote(&name.template.settings),
            connector: name.template.connector.clone(),
        };
        let mut draining: HashMap<u64, RemoteId> = HashMap::new();
        for (index, place) in self.places.iter().enumerate() {
            if let (Some(place), false) = (place, self.balancer.is_in_use(index)) {
                if let Some(id) = self.balancer.id(index) {
                    draining.insert(place.identity, id);
                }
            }
        }
        let (mut changing, mut joining) = (Vec::new(), Vec::new());
        for place in &difference.changed {
            if let Some(id) = members.get(&place.address) {
                changing.push((*id, *place, remote(place)));
            }
        }
        for place in &difference.joined {
            let remote = remote(place);
            match draining.get(&remote.identity()) {
                // It was away only for a while: it is the same remote, with its sessions.
                Some(id) => changing.push((*id, *place, remote)),
                None => joining.push((*place, self.place(remote))),
            }
        }
        let entries: Vec<_> = joining.iter().map(|(_, place)| self.entry(place)).collect();
        let changed: Vec<_> = changing
            .iter()
            .filter_map(|(id, _, remote)| {
                let place = self.places[id.index()].as_ref()?;
                let place = super::Place { identity: place.identity, remote: remote.clone() };
                Some((id.index(), self.entry(&place)))
            })
            .collect();
        let places: Vec<usize> = leaving.iter().map(|id| id.index()).collect();
        let Some(ids) = self.balancer.exchange(&places, &changed, &entries) else {
            for entry in &entries {
                self.identities.remove(&entry.identity);
            }
            return false;
        };
        let moved: HashSet<RemoteId> =
            leaving.iter().copied().chain(changing.iter().map(|(id, ..)| *id)).collect();
        name.members.retain(|(_, id)| !moved.contains(id));
        for (id, place, remote) in changing {
            if let Some(known) = &mut self.places[id.index()] {
                known.remote = remote;
            }
            name.members.push((place, id));
        }
        // Those that nobody uses are gone, and the places of some may be those of others already.
        for id in leaving.into_iter().filter(|&id| self.balancer.id(id.index()) != Some(id)) {
            if let Some(place) = self.places[id.index()].take() {
                self.identities.remove(&place.identity);
            }
        }
        for (id, (place, joined)) in ids.into_iter().zip(joining) {
            self.put(id, joined);
            name.members.push((place, id));
        }
        true
    }
}
