//! Which clients have how many sessions, and connect how often: `client sessions max` and `client
//! rate`. The broker keeps such a table for connections; each worker one for the addresses in PROXY
//! headers.
//!
//! Every step is O(1). A client is in the table while it has sessions; besides, as many are
//! remembered as `client table` says, the one that was seen least recently is forgotten first. So
//! the table is bounded by that and by the number of sessions.
//!
//! Plain data; the caller has the clock.

use crate::config::clients::{ClientKey, ClientLimits};
use crate::os::address::ScopedIp;
use crate::upstream::zone::counters;
use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;

/// A client in the table. Valid while it has sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(NonZeroU32);

impl ClientId {
    fn of(index: u32) -> ClientId {
        ClientId(NonZeroU32::MIN.saturating_add(index))
    }

    fn index(self) -> u32 {
        self.0.get() - 1
    }

    /// As a number other than 0.
    pub fn number(self) -> u32 {
        self.0.get()
    }
}

/// Why a client is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has `client sessions max` sessions.
    Sessions,
    /// It connects more often than `client rate` allows.
    Rate,
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Refusal::Sessions => "client sessions max",
            Refusal::Rate => "client rate",
        })
    }
}

impl From<Refusal> for counters::Refusal {
    fn from(refusal: Refusal) -> counters::Refusal {
        match refusal {
            Refusal::Sessions => counters::Refusal::ClientSessions,
            Refusal::Rate => counters::Refusal::ClientRate,
        }
    }
}

/// No entry.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Entry {
    key: ClientKey,
    sessions: u32,
    /// When the client could have made its last connection at a steady rate, in units of a
    /// millisecond divided by the rate's count: so all is exact in integers.
    due: u64,
    /// Neighbours among the clients without sessions: those seen before and after this one.
    before: u32,
    after: u32,
}

/// The table.
#[derive(Debug)]
pub struct Clients {
    limits: ClientLimits,
    places: HashMap<ClientKey, u32>,
    entries: Vec<Entry>,
    /// Entries not in use.
    vacant: Vec<u32>,
    /// The clients without sessions that were seen least and most recently.
    oldest: u32,
    newest: u32,
}

impl Clients {
    /// An empty table.
    pub fn new(limits: ClientLimits) -> Clients {
        Clients {
            limits,
            places: HashMap::new(),
            entries: Vec::new(),
            vacant: Vec::new(),
            oldest: NONE,
            newest: NONE,
        }
    }

    /// True if there are limits.
    #[inline]
    pub fn are_limited(&self) -> bool {
        self.limits.are_set()
    }

    /// The limits.
    pub fn limits(&self) -> &ClientLimits {
        &self.limits
    }

    /// A client connects. If it is admitted and its sessions are counted, it has one more, until
    /// [`leave`](Self::leave).
    pub fn admit(&mut self, client: ScopedIp, now: u64) -> Result<Option<ClientId>, Refusal> {
        if !self.are_limited() {
            return Ok(None);
        }
        let Some(key) = self.limits.key(client) else {
            return Ok(None);
        };
        let index = self.find(key);
        let most = self.limits.sessions_max;
        let entry = &mut self.entries[index as usize];
        if most > 0 && entry.sessions >= most {
            return Err(Refusal::Sessions);
        }
        let idle = entry.sessions == 0;
        if let Some(rate) = self.limits.rate {
            let cost = u64::from(rate.seconds) * 1000;
            let now = now.saturating_mul(rate.count.into());
            let due = entry.due.max(now);
            if due > now + cost * u64::from(rate.count - 1) {
                if idle {
                    self.touch(index);
                }
                return Err(Refusal::Rate);
            }
            entry.due = due + cost;
        }
        if most == 0 {
            self.touch(index);
            self.trim();
            return Ok(None);
        }
        Ok(Some(self.seat(index)))
    }

    /// A session of this client goes on, or was admitted by others. Its end is not counted if the
    /// result is `None`.
    pub fn enter(&mut self, client: ScopedIp) -> Option<ClientId> {
        let key = self.limits.key(client)?;
        self.resume(key)
    }

    /// As [`enter`](Self::enter), for a client that a former table had under this key.
    pub fn resume(&mut self, key: ClientKey) -> Option<ClientId> {
        if self.limits.sessions_max == 0 {
            return None;
        }
        let index = self.find(key);
        Some(self.seat(index))
    }

    /// A session of a client has ended.
    pub fn leave(&mut self, id: ClientId) {
        let Some(entry) = self.entries.get_mut(id.index() as usize) else {
            return;
        };
        debug_assert!(entry.sessions > 0, "each session leaves once");
        entry.sessions = entry.sessions.saturating_sub(1);
        if entry.sessions == 0 {
            self.append(id.index());
            self.trim();
        }
    }

    /// The key of a client with sessions.
    pub fn key(&self, id: ClientId) -> Option<ClientKey> {
        self.entries.get(id.index() as usize).map(|entry| entry.key)
    }

    /// How many clients are remembered.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// True if no client is remembered.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The entry of a client, which is made if there is none. A new one is among those without
    /// sessions.
    fn find(&mut self, key: ClientKey) -> u32 {
        if let Some(&index) = self.places.get(&key) {
            return index;
        }
        let entry = Entry { key, sessions: 0, due: 0, before: NONE, after: NONE };
        let index = match self.vacant.pop() {
            Some(index) => {
                self.entries[index as usize] = entry;
                index
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        self.places.insert(key, index);
        self.append(index);
        index
    }

    /// One more session.
    fn seat(&mut self, index: u32) -> ClientId {
        if self.entries[index as usize].sessions == 0 {
            self.take_out(index);
        }
        self.entries[index as usize].sessions += 1;
        self.trim();
        ClientId::of(index)
    }

    /// A client without sessions was seen.
    fn touch(&mut self, index: u32) {
        self.take_out(index);
        self.append(index);
    }

    /// Forgets clients without sessions, as long as there are too many clients.
    fn trim(&mut self) {
        while self.places.len() > self.limits.table && self.oldest != NONE {
            let index = self.oldest;
            self.take_out(index);
            self.places.remove(&self.entries[index as usize].key);
            self.vacant.push(index);
        }
    }

    fn take_out(&mut self, index: u32) {
        let Entry { before, after, .. } = self.entries[index as usize];
        match self.entries.get_mut(before as usize) {
            Some(entry) => entry.after = after,
            None => self.oldest = after,
        }
        match self.entries.get_mut(after as usize) {
            Some(entry) => entry.before = before,
            None => self.newest = before,
        }
    }

    fn append(&mut self, index: u32) {
        let before = std::mem::replace(&mut self.newest, index);
        match self.entries.get_mut(before as usize) {
            Some(entry) => entry.after = index,
            None => self.oldest = index,
        }
        let entry = &mut self.entries[index as usize];
        (entry.before, entry.after) = (before, NONE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::clients::Rate;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    fn client(number: u8) -> ScopedIp {
        std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, number)).into()
    }

    fn limits(sessions_max: u32, rate: Option<(u32, u32)>, table: usize) -> ClientLimits {
        let rate = rate.map(|(count, seconds)| Rate { count, seconds });
        ClientLimits { sessions_max, rate, table, ..ClientLimits::default() }
    }

    #[test]
    fn sessions_are_limited_and_given_back() {
        let mut clients = Clients::new(limits(2, None, 10));
        let first = clients.admit(client(1), 0).expect("room").expect("a place");
        clients.admit(client(1), 0).expect("room");
        assert_eq!(clients.admit(client(1), 0), Err(Refusal::Sessions));
        clients.admit(client(2), 0).expect("another client");
        clients.leave(first);
        clients.admit(client(1), 0).expect("room again");
        // What was admitted before the limit counts.
        assert!(clients.enter(client(1)).is_some());
        assert_eq!(clients.admit(client(1), 0), Err(Refusal::Sessions));
    }

    #[test]
    fn a_rate_allows_its_count_at_once_and_then_a_steady_flow() {
        let mut clients = Clients::new(limits(0, Some((3, 60)), 10));
        let mut admitted = |number, now| clients.admit(client(number), now).is_ok();
        assert_eq!([0; 4].map(|now| admitted(1, now)), [true, true, true, false]);
        assert!(admitted(2, 0));
        assert!(!admitted(1, 19_999));
        assert!(admitted(1, 20_000) && !admitted(1, 20_001));
        // Refused connections cost nothing.
        assert!(admitted(1, 40_000));
        assert_eq!([200_000; 4].map(|now| admitted(1, now)), [true, true, true, false]);
    }

    #[test]
    fn who_was_seen_least_recently_is_forgotten() {
        let mut clients = Clients::new(limits(0, Some((1, 100)), 2));
        for number in [1, 2, 1, 3] {
            let _ = clients.admit(client(number), 0);
        }
        assert_eq!(clients.len(), 2);
        assert_eq!(clients.admit(client(1), 0), Err(Refusal::Rate));
        assert_eq!(clients.admit(client(2), 0), Ok(None));
    }

    /// However many clients come, the table takes the memory of those it remembers.
    #[test]
    fn a_million_clients_take_no_more_memory_than_a_table_full() {
        for most in [0, 3] {
            let mut clients = Clients::new(limits(most, Some((1, 100)), 1000));
            for number in 0..1_000_000u32 {
                let client = std::net::IpAddr::V4(Ipv4Addr::from(number)).into();
                if let Ok(Some(id)) = clients.admit(client, 0) {
                    clients.leave(id);
                }
            }
            assert_eq!(clients.len(), 1000);
            let most = (clients.entries.capacity(), clients.places.capacity());
            assert!(most.0 <= 2048 && most.1 <= 4096, "{most:?}");
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Admit(u8),
        Enter(u8),
        Leave(usize),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u8..12).prop_map(Step::Admit),
            1 => (0u8..12).prop_map(Step::Enter),
            3 => any::<usize>().prop_map(Step::Leave),
            1 => (0u64..3000).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// Against a plain count of sessions, and a plain list of the times of admission.
        #[test]
        fn no_client_has_more_than_its_share(
            most in 0u32..4, rate in prop::option::of((1u32..5, 1u32..4)), table in 1usize..16,
            steps in prop::collection::vec(step(), 0..300),
        ) {
            let mut clients = Clients::new(limits(most, rate, table));
            let mut open: Vec<(u8, ClientId)> = Vec::new();
            let mut times: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
            let mut now = 0;
            for step in steps {
                let count = |open: &[(u8, ClientId)], number| {
                    open.iter().filter(|(other, _)| *other == number).count() as u32
                };
                match step {
                    Step::Admit(number) => {
                        let has = count(&open, number);
                        match clients.admit(client(number), now) {
                            Ok(id) => {
                                prop_assert!(most == 0 || has < most);
                                prop_assert_eq!(id.is_some(), most > 0);
                                open.extend(id.map(|id| (number, id)));
                                times.entry(number).or_default().push(now);
                            }
                            Err(Refusal::Sessions) => prop_assert!(most > 0 && has >= most),
                            Err(Refusal::Rate) => {
                                // It has had its count within the period, or twice that within two.
                                let (allowed, seconds) = rate.expect("a rate");
                                let since = now.saturating_sub(u64::from(seconds) * 1000);
                                let recent = times[&number].iter().filter(|&&at| at >= since);
                                prop_assert!(recent.count() as u32 >= allowed.div_ceil(2));
                            }
                        }
                        if let (Some((allowed, seconds)), Some(times)) = (rate, times.get(&number)) {
                            // As long as it is not forgotten, it never has more than twice its
                            // count in a period.
                            let since = now.saturating_sub(u64::from(seconds) * 1000 - 1);
                            let recent = times.iter().filter(|&&at| at > since).count() as u32;
                            prop_assert!(table < 12 || recent <= 2 * allowed);
                        }
                    }
                    Step::Enter(number) => {
                        let id = clients.enter(client(number));
                        prop_assert_eq!(id.is_some(), most > 0);
                        open.extend(id.map(|id| (number, id)));
                    }
                    Step::Leave(which) if !open.is_empty() => {
                        let (_, id) = open.swap_remove(which % open.len());
                        clients.leave(id);
                    }
                    Step::Leave(_) => {}
                    Step::Wait(time) => now += time,
                }
                // Bounded, and every client with sessions is there under its own key.
                let mut busy: Vec<ClientId> = open.iter().map(|&(_, id)| id).collect();
                busy.sort_unstable();
                busy.dedup();
                prop_assert!(clients.len() <= table.max(busy.len()));
                for &(number, id) in &open {
                    let key = clients.limits.key(client(number));
                    prop_assert_eq!(clients.key(id), key);
                    prop_assert_eq!(clients.entries[id.index() as usize].sessions, count(&open, number));
                }
            }
            for (_, id) in open.drain(..) {
                clients.leave(id);
            }
            prop_assert!(clients.len() <= table);
            prop_assert!(clients.entries.iter().all(|entry| entry.sessions == 0));
        }
    }
}
