//! The remotes of a process: which ones there are, their state, and which one is next.
//!
//! Remotes are added, changed and removed while sessions run, be it by the caller or because the
//! zone says that a name has other addresses. Selecting a remote lends it to a
//! session. A removed remote is lent to nobody any more, and drains: it stays until the last
//! session has given it back.

mod names;

use super::balance::{Balancer, Entry, Tried};
use super::remote::{Remote, RemoteId};
use super::zone::Zone;
use crate::config::balance::Kind;
use crate::config::check::OnDown;
use crate::config::relay::Relay;
use crate::tls::client::Connector;
use names::Names;
use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;

/// A tag of remotes, or several that they all have, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(u32);

/// The shared zone has no room for a remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// Why the sessions of a remote are to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fall {
    /// Its probes have found it down.
    Down,
    /// An operator has disabled it.
    Disabled,
}

struct Place {
    /// The name of the remote in the zone. Of two remotes with the same address each has its own.
    identity: u64,
    remote: Remote,
}

impl Place {
    fn resets_on_down(&self) -> bool {
        let check = self.remote.settings.check.as_ref();
        check.is_some_and(|check| check.on_down == OnDown::Reset)
    }
}

/// True if a remote has all of these tags.
fn has_all(remote: &Remote, tags: &[String]) -> bool {
    tags.iter().all(|tag| remote.settings.tags.contains(tag))
}

/// All remotes of a process.
pub struct Registry {
    balancer: Balancer,
    /// By the index of the id.
    places: Vec<Option<Place>>,
    /// The identities in use.
    identities: HashSet<u64>,
    /// Tags, and sets of them that sessions have asked for; the number of each is its index.
    tags: Vec<Vec<String>>,
    resets_on_down: bool,
    /// The names whose addresses come and go.
    names: Names,
}

impl Registry {
    /// The remotes of a section, and the names that are looked up again; with the TLS connectors of
    /// both, in the same order.
    pub fn new(settings: &Relay, connectors: Vec<Option<Rc<Connector>>>) -> Registry {
        let retry_delay = u64::from(settings.retry_delay) * 1000;
        let mut balancer = Balancer::empty(settings.rebalance, retry_delay);
        balancer.set_ties(settings.ties);
        balancer.set_fail_count(settings.fail_count);
        let mut registry = Registry {
            balancer,
            places: Vec::new(),
            identities: HashSet::new(),
            tags: Vec::new(),
            resets_on_down: false,
            names: Names::default(),
        };
        let connectors = connectors.into_iter().chain(std::iter::repeat(None));
        let remotes = settings.templates().cloned().zip(connectors);
        let remotes = remotes.map(|(settings, connector)| Remote { settings, connector });
        let mut remotes: Vec<Remote> = remotes.collect();
        let templates = remotes.split_off(settings.remotes.len());
        // Never fails: a zone that is not shared has room for all.
        let ids = registry.add_all(remotes).unwrap_or_default();
        registry.names = Names::new(settings, templates, &ids);
        let kinds = settings.balance.tags.iter();
        let kinds = kinds.filter_map(|(tag, kind)| Some((registry.tag(&tag.text)?.0, *kind)));
        let kinds: Vec<(u32, Kind)> = kinds.collect();
        registry.balancer.set_kinds(settings.balance.kind, &kinds);
        registry.balancer.set_seed(RandomState::new().build_hasher().finish());
        registry
    }

    /// The zone.
    #[inline]
    pub fn zone(&self) -> &Zone {
        self.balancer.zone()
    }

    /// Shares a zone with other workers. False if the zone has no room for the remotes.
    pub fn join(&mut self, zone: Zone) -> bool {
        self.balancer.join(zone)
    }

    /// Adds a remote. A draining remote may have the same address; it is another remote.
    pub fn add(&mut self, remote: Remote) -> Result<RemoteId, NoRoom> {
        self.add_all(vec![remote])?.pop().ok_or(NoRoom)
    }

    fn add_all(&mut self, remotes: Vec<Remote>) -> Result<Vec<RemoteId>, NoRoom> {
        let places: Vec<Place> = remotes.into_iter().map(|remote| self.place(remote)).collect();
        let entries: Vec<Entry> = places.iter().map(|place| self.entry(place)).collect();
        let Some(ids) = self.balancer.add(&entries) else {
            for entry in &entries {
                self.identities.remove(&entry.identity);
            }
            return Err(NoRoom);
        };
        for (id, place) in ids.iter().zip(places) {
            self.put(*id, place);
        }
        Ok(ids)
    }

    fn put(&mut self, id: RemoteId, place: Place) {
        if id.index() >= self.places.len() {
            self.places.resize_with(id.index() + 1, || None);
        }
        self.places[id.index()] = Some(place);
    }

    fn place(&mut self, remote: Remote) -> Place {
        let mut identity = remote.identity();
        while !self.identities.insert(identity) {
            identity = identity.wrapping_add(1).max(1);
        }
        for tag in &remote.settings.tags {
            if self.tag(tag).is_none() {
                self.tags.push(vec![tag.clone()]);
            }
        }
        let place = Place { identity, remote };
        self.resets_on_down |= place.resets_on_down();
        place
    }

    fn entry(&self, place: &Place) -> Entry {
        let settings = &place.remote.settings;
        let tags = (0..).zip(&self.tags);
        let tags = tags.filter(|(_, wanted)| has_all(&place.remote, wanted));
        Entry {
            weight: settings.weight,
            tags: tags.map(|(number, _)| number).collect(),
            identity: place.identity,
            check: settings.check.as_ref().map(|check| check.start),
            backup: settings.backup,
            most: settings.sessions.max,
            tier: settings.tier,
        }
    }

    /// Changes a remote: its weight, tag, TLS, or where it is. Sessions that use it stay. A
    /// draining remote is not changed.
    pub fn change(&mut self, id: RemoteId, remote: Remote) -> Result<(), NoRoom> {
        let former = match self.get(id) {
            Some(former) if self.balancer.is_in_use(id.index()) => former.identity(),
            _ => return Ok(()),
        };
        let place = match self.places[id.index()].take() {
            Some(place) if former == remote.identity() => Place { remote, ..place },
            old => {
                let new = self.place(remote);
                let entry = self.entry(&new);
                if !self.balancer.change(id.index(), &entry) {
                    self.identities.remove(&new.identity);
                    self.places[id.index()] = old;
                    return Err(NoRoom);
                }
                if let Some(old) = old {
                    self.identities.remove(&old.identity);
                }
                new
            }
        };
        let entry = self.entry(&place);
        self.places[id.index()] = Some(place);
        self.balancer.change(id.index(), &entry);
        Ok(())
    }

    /// Removes a remote: no new session gets it.
    pub fn remove(&mut self, id: RemoteId) {
        if self.get(id).is_some() {
            self.balancer.remove(id.index());
            self.forget_if_gone(id);
        }
    }

    /// True if there are remotes whose sessions are to be reset when they are down.
    #[inline]
    pub fn resets_on_down(&self) -> bool {
        self.resets_on_down
    }

    /// Remotes with sessions of this worker that are to be ended, and why: they are down and this is
    /// wanted, or an operator has disabled them.
    pub fn fallen(&mut self, now: u64) -> Vec<(RemoteId, Fall)> {
        self.balancer.follow(now);
        let places = self.places.iter().enumerate();
        let fall = |(index, place): (usize, &Option<Place>)| {
            let resets = place.as_ref()?.resets_on_down();
            let fall = match () {
                () if self.balancer.is_disabled(index) => Fall::Disabled,
                () if resets && self.balancer.is_fallen(index) => Fall::Down,
                () => return None,
            };
            Some((self.balancer.id(index)?, fall))
        };
        places.filter_map(fall).collect()
    }

    /// The row of a remote in the zone.
    #[inline]
    pub fn row(&self, id: RemoteId) -> Option<usize> {
        Some(self.balancer.row(self.index(id)?))
    }

    /// The names in the zone of all remotes that were not removed.
    pub fn identities(&self) -> Vec<(RemoteId, u64)> {
        let places = self.places.iter().enumerate();
        let known = places.filter(|&(index, _)| self.balancer.is_in_use(index));
        known
            .filter_map(|(index, place)| Some((self.balancer.id(index)?, place.as_ref()?.identity)))
            .collect()
    }

    /// The place of a remote, if the remote is still there.
    fn index(&self, id: RemoteId) -> Option<usize> {
        let index = id.index();
        (self.balancer.id(index) == Some(id)).then_some(index)
    }

    /// The remote with this id, even while it drains.
    pub fn get(&self, id: RemoteId) -> Option<&Remote> {
        Some(&self.places.get(self.index(id)?)?.as_ref()?.remote)
    }

    /// A tag by its name.
    pub fn tag(&self, name: &str) -> Option<Tag> {
        let number = self.tags.iter().position(|known| known[..] == [name]);
        number.map(|number| Tag(number as u32))
    }

    /// The remotes that have two tags, as a tag of their own. They are selected like those with the
    /// first one. `None` if there are none.
    pub fn both(&mut self, first: Tag, second: Tag) -> Option<Tag> {
        let mut wanted = self.tags[first.0 as usize].clone();
        wanted.extend_from_slice(&self.tags[second.0 as usize]);
        wanted.sort_unstable();
        wanted.dedup();
        let matches = |place: &Option<Place>| {
            place.as_ref().is_some_and(|place| has_all(&place.remote, &wanted))
        };
        let matching = (0..self.places.len()).filter(|&index| matches(&self.places[index]));
        let members: Vec<usize> = matching.collect();
        if members.is_empty() {
            return None;
        }
        if let Some(known) = self.tags.iter().position(|known| *known == wanted) {
            return Some(Tag(known as u32));
        }
        let number = self.tags.len() as u32;
        self.tags.push(wanted);
        self.balancer.add_tag(number, self.balancer.kind(Some(first.0)), &members);
        Some(Tag(number))
    }

    /// How a remote is selected among those with a tag, or among all.
    pub fn kind(&self, tag: Option<Tag>) -> Kind {
        self.balancer.kind(tag.map(|tag| tag.0))
    }

    /// Selects the next remote and lends it to a session; with a tag, only remotes that have it.
    /// `key` is a hash of what the session is selected by ([`crate::os::hash`]), if [`Self::kind`] is a
    /// kind that needs it; without it remotes are selected by use.
    /// `None` if none is left that the session has not tried. The clock must be
    /// [`crate::os::monotonic_clock`], as all workers that share a zone need the same one.
    pub fn select(
        &mut self,
        tag: Option<Tag>,
        key: Option<u64>,
        tried: &mut Tried,
        now: u64,
    ) -> Option<RemoteId> {
        self.look_at_names(now);
        let index = self.balancer.select_by(tag.map(|tag| tag.0), key, tried, now)?;
        self.balancer.id(index)
    }

    /// True if there are remotes that could serve a session, but for having as many as they may. If
    /// not, a session that was given none has nothing to wait for.
    pub fn is_full(&self, tag: Option<Tag>, tried: &Tried) -> bool {
        self.balancer.is_full(tag.map(|tag| tag.0), tried)
    }

    /// The remotes that have a limit of sessions, whether or not they have reached it, and could
    /// serve a session otherwise.
    pub fn queues(&self, tag: Option<Tag>, tried: &Tried) -> Vec<RemoteId> {
        let limited = self.balancer.limited(tag.map(|tag| tag.0), tried);
        limited.into_iter().filter_map(|index| self.balancer.id(index)).collect()
    }

    /// True if a remote with this tag can serve a session now. The clock is that of
    /// [`select`](Self::select).
    pub fn has_room(&mut self, tag: Option<Tag>, now: u64) -> bool {
        self.look_at_names(now);
        self.balancer.has_room(tag.map(|tag| tag.0), now)
    }

    /// A session gives back a remote that could not be reached, which is marked dead. True if that
    /// is news.
    pub fn failed(&mut self, id: RemoteId, tried: &mut Tried, now: u64) -> bool {
        let news = self.index(id).is_some_and(|index| self.balancer.failed(index, tried, now));
        self.forget_if_gone(id);
        news
    }

    /// A session gives back a remote that this host cannot reach, which is not the remote's fault.
    pub fn rule_out(&mut self, id: RemoteId, tried: &mut Tried) {
        if let Some(index) = self.index(id) {
            self.balancer.rule_out(index, tried);
        }
        self.forget_if_gone(id);
    }

    /// Like [`rule_out`](Self::rule_out), for a reason that may pass ([`Tried::retry_aside`]).
    pub fn set_aside(&mut self, id: RemoteId, tried: &mut Tried) {
        if let Some(index) = self.index(id) {
            self.balancer.set_aside(index, tried);
        }
        self.forget_if_gone(id);
    }

    /// A session was connected to a remote. True if the remote was reported as down before.
    pub fn connected(&mut self, id: RemoteId) -> bool {
        self.index(id).is_some_and(|index| self.balancer.connected(index))
    }

    /// A remote has ended a session at once, without sending anything. True if it is now marked
    /// dead, and that is news.
    pub fn cut_short(&mut self, id: RemoteId, now: u64) -> bool {
        self.index(id).is_some_and(|index| self.balancer.cut_short(index, now))
    }

    /// A remote has answered a session, or has kept it long enough. True if the remote was reported
    /// as down before.
    pub fn proved(&mut self, id: RemoteId) -> bool {
        self.index(id).is_some_and(|index| self.balancer.proved(index))
    }

    /// True if the last attempt on this remote failed.
    pub fn is_down(&self, id: RemoteId) -> bool {
        self.index(id).is_some_and(|index| self.balancer.is_down(index))
    }

    /// A session gives back a remote.
    pub fn release(&mut self, id: RemoteId) {
        if let Some(index) = self.index(id) {
            self.balancer.released(index);
            self.forget_if_gone(id);
        }
    }

    /// How many sessions use a remote, of all workers as far as this one has read.
    pub fn used(&self, id: RemoteId) -> u64 {
        self.index(id).map_or(0, |index| self.balancer.used(index))
    }

    /// Like [`used`](Self::used), for all remotes together.
    pub fn all_used(&self) -> u64 {
        (0..self.places.len())
            .filter(|&index| self.places[index].is_some())
            .map(|index| self.balancer.used(index))
            .sum()
    }

    fn forget_if_gone(&mut self, id: RemoteId) {
        if self.balancer.id(id.index()).is_none() {
            if let Some(place) = self.places.get_mut(id.index()).and_then(Option::take) {
                self.identities.remove(&place.identity);
            }
        }
    }
}

#[cfg(test)]
mod names_tests;
#[cfg(test)]
mod tests;
