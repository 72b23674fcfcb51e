//! Remotes that are addresses of names, by what is in the zone.

use super::super::names::identity;
use super::super::remote::remote;
use super::*;
use crate::config::relay::names::{Bound, Kind, Name, Origin, Place, Start};
use crate::os::shared::Object;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Two names, of which the first has addresses at the start, and a remote besides.
fn settings(start: &[u8]) -> Relay {
    let mut settings = Relay { retry_delay: 1, ..Relay::default() };
    settings.remotes.push(remote("198.51.100.1:80", None).settings);
    for (index, host) in ["a.example", "A.example"].into_iter().enumerate() {
        let mut template = remote("0.0.0.0:80", None).settings;
        template.host = Some(host.into());
        template.origin = Some(Origin { index: index as u32, earlier: index as u32 });
        template.weight = 3;
        if index == 0 {
            let remotes = start.iter().map(|&number| place(number).remote(&template));
            settings.remotes.extend(remotes.collect::<Vec<_>>());
        }
        let (kind, bound, start) = (Kind::Host, Bound::Usual, Start::Now);
        settings.names.push(Name { template, kind, bound, start });
    }
    settings
}

fn place(number: u8) -> Place {
    Place::new(([192, 0, 2, number], 80).into())
}

fn places(numbers: &[u8]) -> Vec<Place> {
    numbers.iter().map(|&number| place(number)).collect()
}

struct Test {
    _broker: Zone,
    object: Object,
    monitor: Zone,
    names: Vec<u64>,
    settings: Relay,
    registry: Registry,
}

impl Test {
    fn new(start: &[u8]) -> Test {
        let (broker, object) = Zone::create().expect("memory");
        let monitor = Zone::monitor(&object).expect("the monitor's place");
        let settings = settings(start);
        let names = settings.names.iter().map(identity).collect();
        let mut test = Test {
            _broker: broker,
            registry: Registry::new(&settings, Vec::new()),
            object,
            monitor,
            names,
            settings,
        };
        assert!(test.registry.join(Zone::join(&test.object, 0).expect("a place")));
        test
    }

    fn select(&mut self, now: u64) -> Option<RemoteId> {
        self.registry.select(None, None, &mut Tried::default(), now)
    }

    /// The addresses that are selected.
    fn known(&self, registry: &Registry) -> BTreeSet<String> {
        let remotes = registry.identities().into_iter();
        let remotes = remotes.filter_map(|(id, _)| registry.get(id));
        remotes.map(|remote| remote.address().to_string()).collect()
    }
}

fn texts(addresses: &[&str]) -> BTreeSet<String> {
    addresses.iter().map(|address| format!("[{address}]:80")).collect()
}

#[test]
fn what_is_published_joins_and_what_is_not_drains() {
    let mut test = Test::new(&[1, 2]);
    // Nothing was published: the addresses of the start stay.
    let all: Vec<RemoteId> = (0..7).filter_map(|_| test.select(0)).collect();
    assert_eq!(all.len(), 7);
    let start = texts(&["198.51.100.1", "192.0.2.1", "192.0.2.2"]);
    assert_eq!(test.known(&test.registry), start);
    test.monitor.publish(test.names[0], &places(&[2, 3]));
    test.monitor.publish(test.names[1], &places(&[3]));
    let selected = test.select(0).expect("a remote");
    test.registry.release(selected);
    // Both names have 192.0.2.3, which are two remotes.
    assert_eq!(test.registry.identities().len(), 4);
    let wanted = texts(&["198.51.100.1", "192.0.2.2", "192.0.2.3"]);
    assert_eq!(test.known(&test.registry), wanted);
    // The sessions of an address that has vanished still have it,
    let first = texts(&["192.0.2.1"]);
    let of = |registry: &Registry, id: RemoteId| registry.get(id).map(|r| r.address().to_string());
    let vanished: Vec<RemoteId> = all
        .iter()
        .copied()
        .filter(|&id| of(&test.registry, id).is_some_and(|text| first.contains(&text)))
        .collect();
    assert!(!vanished.is_empty() && test.registry.used(vanished[0]) > 0);
    // and are counted again if it returns.
    test.monitor.publish(test.names[0], &places(&[1, 2, 3]));
    let selected = test.select(0).expect("a remote");
    test.registry.release(selected);
    assert_eq!(test.registry.identities().len(), 5);
    assert!(test.registry.identities().iter().any(|(id, _)| *id == vanished[0]));
    // If it leaves again it is gone with its last session.
    test.monitor.publish(test.names[0], &places(&[2, 3]));
    let selected = test.select(0).expect("a remote");
    test.registry.release(selected);
    for id in all {
        test.registry.release(id);
    }
    assert!(test.registry.get(vanished[0]).is_none());
    assert_eq!(test.registry.all_used(), 0);
}

#[test]
fn workers_agree_whenever_they_start() {
    let mut test = Test::new(&[1]);
    test.monitor.publish(test.names[0], &places(&[5, 2, 3]));
    test.monitor.publish(test.names[1], &places(&[3, 1]));
    let selected = test.select(0).expect("a remote");
    test.registry.release(selected);
    let mut late = Registry::new(&test.settings, Vec::new());
    assert!(late.join(Zone::join(&test.object, 1).expect("a place")));
    let selected = late.select(None, None, &mut Tried::default(), 0).expect("a remote");
    late.release(selected);
    let rows = |registry: &Registry| -> BTreeMap<u64, Option<usize>> {
        let known = registry.identities().into_iter();
        known.map(|(id, identity)| (identity, registry.row(id))).collect()
    };
    assert_eq!(rows(&test.registry), rows(&late));
    assert_eq!(rows(&late).len(), 6);
}

#[test]
fn weights_and_tiers_of_services_count() {
    let mut test = Test::new(&[]);
    test.registry.remove(test.registry.identities()[0].0);
    let service = |number, weight, tier| Place { weight, tier, ..place(number) };
    test.monitor.publish(test.names[0], &[service(1, 10, 0), service(2, 30, 0), service(3, 5, 1)]);
    let mut counts = BTreeMap::new();
    for _ in 0..40 {
        let id = test.select(0).expect("a remote");
        *counts
            .entry(test.registry.get(id).expect("a remote").address().to_string())
            .or_insert(0) += 1;
    }
    let wanted = [("[192.0.2.1]:80".to_owned(), 10), ("[192.0.2.2]:80".to_owned(), 30)];
    assert_eq!(counts, BTreeMap::from(wanted));
    // Only when the first tier has failed is the next one tried.
    let mut tried = Tried::default();
    for _ in 0..2 {
        let id = test.registry.select(None, None, &mut tried, 0).expect("a remote");
        test.registry.failed(id, &mut tried, 0);
    }
    let id = test.registry.select(None, None, &mut tried, 0).expect("a remote");
    assert_eq!(test.registry.get(id).expect("a remote").address().to_string(), "[192.0.2.3]:80");
    // A tier that changes is no new remote.
    test.monitor.publish(test.names[0], &[service(1, 10, 2), service(2, 30, 2), service(3, 5, 0)]);
    let next = test.select(0).expect("a remote");
    assert_eq!(next, id);
}

/// Whoever waits for a remote gets one that joins.
#[test]
fn an_address_that_joins_has_room() {
    let mut test = Test::new(&[]);
    test.registry.remove(test.registry.identities()[0].0);
    assert!(!test.registry.has_room(None, 0));
    test.monitor.publish(test.names[1], &places(&[7]));
    assert!(test.registry.has_room(None, 0) && test.select(0).is_some());
}

/// 1,000 addresses at once, and none of them left.
#[test]
fn all_addresses_of_a_large_name_change() {
    let mut test = Test::new(&[1]);
    let many = |first: u8| -> Vec<Place> {
        (0..1000u16)
            .map(|n| Place::new(([10, first, (n >> 8) as u8, n as u8], 80).into()))
            .collect()
    };
    for first in 0..8 {
        test.monitor.publish(test.names[0], &many(first));
        let id = test.select(0).expect("a remote");
        test.registry.release(id);
        assert_eq!(test.registry.identities().len(), 1001);
    }
    // There is no room for all of the other name, too, if the first is as large again.
    assert!(test.registry.places.len() < 2100, "{}", test.registry.places.len());
}

proptest! {
    /// Whatever is published, and whatever sessions do: after a selection the remotes in use are
    /// those that were published last, every session's remote is still there, and in the end no use
    /// is left.
    #[test]
    fn what_was_published_last_is_what_is_selected(
        steps in prop::collection::vec((0u8..6, any::<u8>(), prop::collection::btree_set(0u8..12, 1..8)), 0..60)
    ) {
        let mut test = Test::new(&[1, 2]);
        let mut published: [Option<BTreeSet<u8>>; 2] = [Some([1, 2].into()), None];
        let mut lent: Vec<RemoteId> = Vec::new();
        for (kind, which, set) in steps {
            match kind {
                0..2 => {
                    let name = usize::from(kind);
                    let set: BTreeSet<u8> = set.into_iter().map(|number| number + 1).collect();
                    let numbers: Vec<u8> = set.iter().copied().collect();
                    prop_assert!(test.monitor.publish(test.names[name], &places(&numbers)));
                    published[name] = Some(set);
                }
                2 if !lent.is_empty() => {
                    let id = lent.swap_remove(usize::from(which) % lent.len());
                    test.registry.release(id);
                }
                3 if !lent.is_empty() => {
                    let id = lent.swap_remove(usize::from(which) % lent.len());
                    test.registry.failed(id, &mut Tried::default(), 0);
                }
                _ => {
                    let id = test.select(0).expect("a remote");
                    lent.push(id);
                    let mut wanted: Vec<String> = published
                        .iter()
                        .flatten()
                        .flatten()
                        .map(|number| format!("[192.0.2.{number}]:80"))
                        .collect();
                    wanted.push("[198.51.100.1]:80".to_owned());
                    wanted.sort_unstable();
                    let mut known: Vec<String> = test
                        .registry
                        .identities()
                        .into_iter()
                        .filter_map(|(id, _)| test.registry.get(id))
                        .map(|remote| remote.address().to_string())
                        .collect();
                    known.sort_unstable();
                    prop_assert_eq!(known, wanted);
                    prop_assert!(lent.iter().all(|&id| test.registry.get(id).is_some()));
                }
            }
        }
        for id in lent {
            test.registry.release(id);
        }
        prop_assert_eq!(test.registry.all_used(), 0);
        let kept = test.registry.places.iter().flatten().count();
        prop_assert_eq!(kept, test.registry.identities.len());
    }
}
