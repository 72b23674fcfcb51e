//! Stickiness: a client address comes back to the worker that it was given before.

use super::policy::WorkerId;
use crate::config::listen::Sticky;
use crate::os::address::ScopedIp;
use std::collections::{BTreeMap, HashMap};

/// What a client is recognised by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The source address.
    pub address: ScopedIp,
    /// The listener's port.
    pub port: u16,
    /// The listener's protocol number.
    pub protocol: i32,
}

struct Entry {
    worker: WorkerId,
    expires: u64,
    used: u64,
}

/// At most `size` clients, the least recently used forgotten first.
pub struct Cache {
    period: u64,
    size: usize,
    entries: HashMap<Key, Entry>,
    order: BTreeMap<u64, Key>,
    counter: u64,
}

impl Cache {
    /// Remembers `size` clients for `period` milliseconds after their last connection.
    pub fn new(period: u64, size: usize) -> Cache {
        let (entries, order) = (HashMap::new(), BTreeMap::new());
        Cache { period, size: size.max(1), entries, order, counter: 0 }
    }

    /// The worker of a client, unless it has expired.
    pub fn get(&self, key: &Key, now: u64) -> Option<WorkerId> {
        self.entries.get(key).filter(|entry| entry.expires > now).map(|entry| entry.worker)
    }

    /// Remembers the worker of a client, or renews it.
    pub fn put(&mut self, key: Key, worker: WorkerId, now: u64) {
        self.counter += 1;
        let entry = Entry { worker, expires: now + self.period, used: self.counter };
        if let Some(old) = self.entries.insert(key, entry) {
            self.order.remove(&old.used);
        } else if self.entries.len() > self.size {
            if let Some((_, oldest)) = self.order.pop_first() {
                self.entries.remove(&oldest);
            }
        }
        self.order.insert(self.counter, key);
    }

    /// Forgets the clients of a worker that is gone.
    pub fn forget(&mut self, worker: WorkerId) {
        let order = &mut self.order;
        self.entries.retain(|_, entry| {
            let keep = entry.worker != worker;
            if !keep {
                order.remove(&entry.used);
            }
            keep
        });
    }
}

/// The caches of a broker: one for each listener with its own setting, and one for all the others.
#[derive(Default)]
pub struct Stickiness {
    section: Option<Cache>,
    own: Vec<Option<Cache>>,
}

impl Stickiness {
    /// As configured for the section, and for each listener.
    pub fn new(section: Sticky, listeners: impl Iterator<Item = Sticky>) -> Stickiness {
        let cache = |sticky: Sticky| {
            (sticky.period > 0).then(|| Cache::new(u64::from(sticky.period) * 1000, sticky.size))
        };
        Stickiness { section: cache(section), own: listeners.map(cache).collect() }
    }

    /// True if clients of this listener are remembered.
    pub fn holds_for(&self, listener: usize) -> bool {
        self.section.is_some() || self.own.get(listener).is_some_and(Option::is_some)
    }

    /// The worker that a client of this listener had before.
    pub fn get(&self, listener: usize, key: &Key, now: u64) -> Option<WorkerId> {
        let own = self.own.get(listener).and_then(Option::as_ref);
        own.or(self.section.as_ref())?.get(key, now)
    }

    /// A client of this listener was given to a worker.
    pub fn put(&mut self, listener: usize, key: Key, worker: WorkerId, now: u64) {
        let own = self.own.get_mut(listener).and_then(Option::as_mut);
        if let Some(cache) = own.or(self.section.as_mut()) {
            cache.put(key, worker, now);
        }
    }

    /// Forgets the clients of a worker that is gone.
    pub fn forget(&mut self, worker: WorkerId) {
        self.own
            .iter_mut()
            .flatten()
            .chain(&mut self.section)
            .for_each(|cache| cache.forget(worker));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn key(host: u8) -> Key {
        Key { address: IpAddr::from([127, 0, 0, host]).into(), port: 1, protocol: 6 }
    }

    #[test]
    fn entries_expire_and_are_renewed() {
        let mut cache = Cache::new(100, 4);
        cache.put(key(1), WorkerId(7), 0);
        assert_eq!(cache.get(&key(1), 99), Some(WorkerId(7)));
        assert_eq!(cache.get(&key(1), 100), None);
        cache.put(key(1), WorkerId(8), 100);
        assert_eq!(cache.get(&key(1), 150), Some(WorkerId(8)));
        cache.forget(WorkerId(8));
        assert_eq!(cache.get(&key(1), 150), None);
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut cache = Cache::new(1000, 2);
        cache.put(key(1), WorkerId(1), 0);
        cache.put(key(2), WorkerId(2), 0);
        cache.put(key(1), WorkerId(1), 0);
        cache.put(key(3), WorkerId(3), 0);
        assert_eq!(cache.get(&key(2), 0), None);
        assert_eq!(cache.get(&key(1), 0), Some(WorkerId(1)));
        assert_eq!(cache.get(&key(3), 0), Some(WorkerId(3)));
    }

    proptest! {
        #[test]
        fn never_holds_more_than_its_size(
            size in 1usize..5, puts in prop::collection::vec((0u8..10, 0u32..3), 0..60),
        ) {
            let mut cache = Cache::new(10, size);
            for (now, (host, worker)) in puts.into_iter().enumerate() {
                cache.put(key(host), WorkerId(worker), now as u64);
                prop_assert!(cache.entries.len() <= size);
                prop_assert_eq!(cache.entries.len(), cache.order.len());
                prop_assert_eq!(cache.get(&key(host), now as u64), Some(WorkerId(worker)));
            }
        }
    }
}
