//! Names of remotes: what a new answer means for the addresses in use, and when to look up again.
//! Plain data, and a clock that the caller has.
//!
//! [`Tracker`] follows one name in the monitor. What it has found is published in the zone, where
//! each address has [`WORDS`] words; workers check those as if a client had sent them, and
//! [`compare`] says which of their remotes to add and which to let drain.

use crate::config::relay::names::{Kind, Name, Place};
use crate::os::hash::Fnv;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// The most addresses of a name that are used.
pub const MOST: usize = 1000;
/// The last tier of SRV records. Records with so many priorities before theirs share it.
pub const LAST_TIER: u8 = 6;
/// The shortest time between two lookups, in milliseconds, whatever the time to live.
const SHORTEST: u64 = 1000;
/// The longest time between two lookups after one has failed, in milliseconds.
const LONGEST_AFTER_FAILURE: u64 = 30_000;

/// The name of a name among processes that share a zone; at least 1. Like a remote's identity it is
/// FNV-1a (64 bits): over a byte for the kind, the text in lower case and a NUL, the port in network
/// order, the name of the protocol and a NUL, each tag, in order, after a byte of 1, and how many
/// earlier remotes are for the same host, as four bytes.
pub fn identity(name: &Name) -> u64 {
    let template = &name.template;
    let mut hash = Fnv::default();
    hash.add(match name.kind {
        Kind::Host => &[1],
        Kind::Service => &[2],
    });
    name.text().bytes().for_each(|byte| hash.add(&[byte.to_ascii_lowercase()]));
    hash.add(&[0]);
    hash.add(&template.address.port().to_be_bytes());
    hash.add(template.protocol.name().as_bytes());
    hash.add(&[0]);
    for tag in &template.tags {
        hash.add(&[1]);
        hash.add(tag.as_bytes());
    }
    hash.add(&template.origin.map_or(0, |origin| origin.earlier).to_be_bytes());
    hash.finish().max(1)
}

/// Words of an address in the zone.
pub const WORDS: usize = 4;

/// An address as words.
pub fn encode(place: &Place) -> [u64; WORDS] {
    let (family, octets, scope) = match place.address {
        SocketAddr::V4(v4) => (4, v4.ip().to_ipv6_mapped().octets(), 0),
        SocketAddr::V6(v6) => (6, v6.ip().octets(), v6.scope_id()),
    };
    let bits = u128::from_be_bytes(octets);
    let port = u64::from(place.address.port());
    let about = u64::from(scope) << 32 | u64::from(place.tier) << 24 | family << 16 | port;
    [(bits >> 64) as u64, bits as u64, about, place.weight.into()]
}

/// An address from words, whatever is in them; `None` if they are none that [`encode`] makes of a
/// usable address.
pub fn decode(words: [u64; WORDS]) -> Option<Place> {
    let [high, low, about, weight] = words;
    let ip = Ipv6Addr::from(u128::from(high) << 64 | u128::from(low));
    let (port, scope) = (about as u16, (about >> 32) as u32);
    let address = match about >> 16 & 0xff {
        4 if scope == 0 => SocketAddr::from((ip.to_ipv4_mapped()?, port)),
        6 => SocketAddrV6::new(ip, port, 0, scope).into(),
        _ => return None,
    };
    let place = Place {
        address,
        weight: u32::try_from(weight).ok().filter(|&weight| weight <= u32::from(u16::MAX))?,
        tier: Some((about >> 24) as u8).filter(|&tier| tier <= LAST_TIER)?,
    };
    is_usable(address).then_some(place)
}

/// False for what nobody can be connected to, though it may stand in an answer: no port, a group,
/// all hosts of a network, or "any address", which would reach this host.
pub fn is_usable(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

/// A set of addresses: usable ones, each once, at most [`MOST`], in the order of the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    places: Vec<Place>,
    /// How many addresses were left out, as there are too many.
    surplus: usize,
}

impl Set {
    /// The set of these addresses. Of two places with one address the first counts.
    pub fn new(found: impl IntoIterator<Item = Place>) -> Set {
        let (mut seen, mut set) = (std::collections::HashSet::new(), Set::default());
        for place in found {
            if !is_usable(place.address) || !seen.insert(place.address) {
                continue;
            }
            match set.places.len() < MOST {
                true => set.places.push(place),
                false => set.surplus += 1,
            }
        }
        set
    }

    /// The addresses.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// How many addresses were left out.
    pub fn surplus(&self) -> usize {
        self.surplus
    }
}

/// What has to be done so that `old` becomes `new`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Addresses that are new.
    pub joined: Vec<Place>,
    /// Addresses that are there with another weight or tier.
    pub changed: Vec<Place>,
    /// Addresses that have vanished.
    pub left: Vec<SocketAddr>,
}

impl Difference {
    /// True if there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.joined.is_empty() && self.changed.is_empty() && self.left.is_empty()
    }
}

/// Compares two sets, each of which has an address once. The results are in the order of the sets.
pub fn compare(old: &[Place], new: &[Place]) -> Difference {
    let known: BTreeMap<SocketAddr, &Place> =
        old.iter().map(|place| (place.address, place)).collect();
    let wanted: BTreeMap<SocketAddr, &Place> =
        new.iter().map(|place| (place.address, place)).collect();
    let mut difference = Difference::default();
    for place in new {
        match known.get(&place.address) {
            None => difference.joined.push(*place),
            Some(&before) if before != place => difference.changed.push(*place),
            Some(_) => {}
        }
    }
    let left = old.iter().map(|place| place.address);
    difference.left = left.filter(|address| !wanted.contains_key(address)).collect();
    difference
}

/// The tiers of SRV records by their priorities: the smallest priority comes first.
pub fn tiers(priorities: &[u16]) -> BTreeMap<u16, u8> {
    let mut distinct = priorities.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let tier = |place: usize| u8::try_from(place).unwrap_or(LAST_TIER).min(LAST_TIER);
    distinct.into_iter().enumerate().map(|(place, priority)| (priority, tier(place))).collect()
}

/// A family of addresses that an answer says nothing about, as the servers did not answer for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silent {
    /// Both were answered.
    None,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Silent {
    fn concerns(self, address: SocketAddr) -> bool {
        match self {
            Silent::None => false,
            Silent::V4 => address.is_ipv4(),
            Silent::V6 => address.is_ipv6(),
        }
    }
}

/// What a lookup has brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Addresses.
    Found {
        /// All that were found.
        places: Vec<Place>,
        /// For how long they are valid, in seconds; `None`: until a file changes.
        lifetime: Option<u32>,
        /// A family that was not answered for.
        silent: Silent,
    },
    /// There is no address, or no such name.
    Nothing,
    /// It is not known, for this reason.
    Failed(String),
}

/// What an answer has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// The addresses have changed.
    pub set: Option<Difference>,
    /// The first lookup that has failed after one that has not: why.
    pub trouble: Option<String>,
    /// The first lookup that has not failed after one that has.
    pub recovered: bool,
    /// The first answer with more addresses than are used: how many more.
    pub surplus: Option<usize>,
}

/// Follows one name.
#[derive(Clone, Debug)]
pub struct Tracker {
    /// In milliseconds.
    bound: u64,
    /// The last good set.
    set: Set,
    /// Lookups in a row that have failed.
    failures: u32,
}

impl Tracker {
    /// For a name whose answers are valid for `bound` seconds at most, and whose addresses are
    /// these at the start.
    pub fn new(bound: u32, places: &[Place]) -> Tracker {
        let set = Set::new(places.iter().copied());
        Tracker { bound: u64::from(bound) * 1000, set, failures: 0 }
    }

    /// The addresses in use.
    pub fn set(&self) -> &Set {
        &self.set
    }

    /// Takes an answer. Returns what it has changed, and after how many milliseconds to look up
    /// again. The addresses stay as they are if the answer has none, or is no answer.
    pub fn hear(&mut self, answer: Answer) -> (News, u64) {
        let mut news = News::default();
        let trouble = match answer {
            Answer::Found { places, lifetime, silent } => {
                let kept = self.set.places.iter().filter(|place| silent.concerns(place.address));
                let set = Set::new(places.into_iter().chain(kept.copied()));
                if set.places.is_empty() {
                    "there is no usable address".to_owned()
                } else {
                    news.recovered = std::mem::take(&mut self.failures) > 0;
                    let many = set.surplus > 0 && self.set.surplus == 0;
                    news.surplus = many.then_some(set.surplus);
                    let difference = compare(&self.set.places, &set.places);
                    if difference.is_empty() {
                        self.set.surplus = set.surplus;
                    } else {
                        self.set = set;
                        news.set = Some(difference);
                    }
                    let lifetime = lifetime.map_or(self.bound, |seconds| u64::from(seconds) * 1000);
                    let lifetime = if silent == Silent::None { lifetime } else { SHORTEST };
                    return (news, lifetime.max(SHORTEST).min(self.bound.max(SHORTEST)));
                }
            }
            Answer::Nothing => "there is no such name, or it has no address".to_owned(),
            Answer::Failed(reason) => reason,
        };
        news.trouble = (self.failures == 0).then_some(trouble);
        let pause = SHORTEST << self.failures.min(10);
        self.failures = self.failures.saturating_add(1);
        (news, pause.min(LONGEST_AFTER_FAILURE).min(self.bound.max(SHORTEST)))
    }
}

#[cfg(test)]
mod tests;
