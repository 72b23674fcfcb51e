//! Stickiness: a client address comes back to the worker it was given before.

use super::policy::WorkerId;
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

    /// The worker of a client, if it is remembered and not expired.
    pub fn get(&self, key: &Key, now: u64) -> Option<WorkerId> {
        self.entries.get(key).filter(|entry| entry.expires > now).map(|entry| entry.worker)
    }

    /// Remembers, or renews, the worker of a client.
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
