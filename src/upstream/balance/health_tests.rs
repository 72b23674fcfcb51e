//! Remotes that are down by their probes, backups, and slow starts.

use super::{Balancer, Entry, Tried};
use crate::config::balance::Kind;
use crate::config::check::Start;
use crate::upstream::health::{Health, Standing, WHOLE};
use crate::upstream::wish::{Service, Wish};
use crate::upstream::zone::Zone;
use proptest::prelude::*;

/// A worker's balancer with these remotes, and the monitor's end of its zone.
fn watched(entries: &[Entry]) -> (Balancer, Zone) {
    let (_, object) = Zone::create().expect("memory");
    let mut balancer = Balancer::empty(0, 1000);
    balancer.add(entries).expect("room");
    assert!(balancer.join(Zone::join(&object, 0).expect("a place")));
    let monitor = Zone::monitor(&object).expect("the monitor's place");
    let identities: Vec<u64> = entries.iter().map(|entry| entry.identity).collect();
    let rows: Vec<usize> = (0..entries.len()).collect();
    assert_eq!(monitor.take_rows(&identities), Some(rows));
    (balancer, monitor)
}

fn checked(identity: u64) -> Entry {
    Entry { weight: 1, identity, check: Some(Start::Up), ..Entry::default() }
}

fn health(standing: Standing) -> Health {
    Health { standing, ..Health::default() }
}

/// This many sessions, one after the other; how many each of the first two remotes got.
fn shares(balancer: &mut Balancer, count: usize) -> [usize; 2] {
    let mut shares = [0; 2];
    for _ in 0..count {
        let index = balancer.select(None, &mut Tried::default(), 0).expect("a remote");
        shares[index] += 1;
        balancer.released(index);
    }
    shares
}

#[test]
fn a_remote_that_is_down_gets_nothing_even_if_it_is_the_last() {
    let (mut balancer, monitor) = watched(&[checked(1), checked(2)]);
    monitor.set_health(0, health(Standing::Down));
    assert_eq!(shares(&mut balancer, 10), [0, 10]);
    monitor.set_health(1, health(Standing::Down));
    assert_eq!(balancer.select(None, &mut Tried::default(), 0), None);
    monitor.set_health(0, health(Standing::Up));
    assert_eq!(shares(&mut balancer, 10), [10, 0]);
    // Whoever has no check of its own does not ask.
    let (mut balancer, monitor) = watched(&[Entry { check: None, ..checked(1) }]);
    monitor.set_health(0, health(Standing::Down));
    assert_eq!(balancer.select(None, &mut Tried::default(), 0), Some(0));
}

#[test]
fn before_the_first_probe_a_remote_is_what_is_configured() {
    let cautious = Entry { check: Some(Start::Down), ..checked(2) };
    let (mut balancer, monitor) = watched(&[checked(1), cautious]);
    assert_eq!(shares(&mut balancer, 10), [10, 0]);
    monitor.set_health(1, health(Standing::Up));
    assert_eq!(balancer.select(None, &mut Tried::default(), 0), Some(1));
}

#[test]
fn a_slow_start_gives_a_part_of_the_share() {
    for (kind, slack) in [(Kind::LeastUse, 2), (Kind::RoundRobin, 2), (Kind::Random, 60)] {
        let (mut balancer, monitor) = watched(&[checked(1), checked(2)]);
        balancer.set_kinds(kind, &[]);
        balancer.set_seed(7);
        monitor.set_health(0, Health { share: WHOLE / 4, ..health(Standing::Up) });
        let [slow, whole] = shares(&mut balancer, 1000);
        // With two remotes the better of two that are drawn is one of these two, by turns.
        assert!(slow.abs_diff(200) <= slack || kind == Kind::Random, "{kind:?}: {slow} {whole}");
        assert!(slow > 0 && slow < 300, "{kind:?}: {slow} {whole}");
    }
    // A key stays where it was, or moves to the remote that starts.
    let (mut balancer, monitor) = watched(&[checked(1), checked(2)]);
    balancer.set_kinds(Kind::Source, &[]);
    let owner = |balancer: &mut Balancer, key: u64| {
        let key = crate::os::hash::mix(key);
        let index = balancer.select_by(None, Some(key), &mut Tried::default(), 0).expect("one");
        balancer.released(index);
        index
    };
    let before: Vec<usize> = (0..1000).map(|key| owner(&mut balancer, key)).collect();
    monitor.set_health(0, Health { share: WHOLE / 4, ..health(Standing::Up) });
    let during: Vec<usize> = (0..1000).map(|key| owner(&mut balancer, key)).collect();
    assert!(before.iter().zip(&during).all(|(before, during)| before == during || *during == 1));
    let of_first = |owners: &[usize]| owners.iter().filter(|&&owner| owner == 0).count();
    assert!(of_first(&during).abs_diff(of_first(&before) / 4) < 50, "{}", of_first(&during));
}

#[test]
fn an_operator_decides_whether_a_remote_gets_sessions() {
    // Whether or not it is probed.
    for check in [None, Some(Start::Up)] {
        let entries = [Entry { check, ..checked(1) }, Entry { check, ..checked(2) }];
        let (mut balancer, monitor) = watched(&entries);
        let held = balancer.select(None, &mut Tried::default(), 0).expect("a remote");
        for service in [Service::Drained, Service::Disabled] {
            monitor.set_wish(0, Wish { service, ..Wish::default() });
            assert_eq!(shares(&mut balancer, 10), [0, 10]);
            assert_eq!((balancer.is_fallen(0), balancer.used(held)), (false, 1));
            assert_eq!(balancer.is_disabled(0), held == 0 && service == Service::Disabled);
            // Even if it is the last one.
            monitor.set_wish(1, Wish { service, ..Wish::default() });
            assert_eq!(balancer.select(None, &mut Tried::default(), 0), None);
            monitor.set_wish(1, Wish::default());
        }
        monitor.set_wish(0, Wish::default());
        balancer.released(held);
        let [first, second] = shares(&mut balancer, 10);
        assert!(first > 0 && second > 0, "{first} {second}");
    }
}

#[test]
fn an_operator_changes_weights() {
    for (kind, slack) in
        [(Kind::LeastUse, 10), (Kind::RoundRobin, 10), (Kind::Random, 250), (Kind::Source, 60)]
    {
        let plain = |identity| Entry { check: None, ..checked(identity) };
        let (mut balancer, monitor) = watched(&[plain(1), plain(2)]);
        balancer.set_kinds(kind, &[]);
        balancer.set_seed(7);
        let share_of_first = |balancer: &mut Balancer| {
            let mut open = Vec::new();
            for key in 0..1000 {
                let key = Some(crate::os::hash::mix(key));
                open.push(balancer.select_by(None, key, &mut Tried::default(), 0).expect("one"));
            }
            let first = open.iter().filter(|&&index| index == 0).count();
            open.into_iter().for_each(|index| balancer.released(index));
            first
        };
        assert!(share_of_first(&mut balancer).abs_diff(500) <= slack, "{kind:?}");
        monitor.set_wish(0, Wish { weight: Some(9), ..Wish::default() });
        let first = share_of_first(&mut balancer);
        assert!(first.abs_diff(900) <= slack, "{kind:?}: {first}");
        monitor.set_wish(0, Wish::default());
        assert!(share_of_first(&mut balancer).abs_diff(500) <= slack, "{kind:?}");
    }
}

proptest! {
    /// Whatever happens: no remote that is down is selected, no backup while another remote will
    /// do, and one is found if there is one.
    #[test]
    fn down_and_backup_are_kept_to(
        remotes in prop::collection::vec((1u32..5, any::<bool>(), any::<bool>()), 1..6),
        kind in prop::sample::select(vec![Kind::LeastUse, Kind::RoundRobin, Kind::Random, Kind::Source]),
        steps in prop::collection::vec((0u8..5, any::<usize>(), any::<u64>()), 0..100),
    ) {
        let entries: Vec<Entry> = remotes
            .iter()
            .zip(1..)
            .map(|(&(weight, backup, cautious), identity)| {
                let start = if cautious { Start::Down } else { Start::Up };
                Entry { weight, backup, check: Some(start), ..checked(identity) }
            })
            .collect();
        let (mut balancer, monitor) = watched(&entries);
        balancer.set_kinds(kind, &[]);
        let mut open = Vec::new();
        for (step, which, word) in steps {
            let index = which % entries.len();
            let is_up = |index: usize| {
                entries[index].check.is_some_and(|start| !monitor.health(index).is_down(start))
            };
            match step {
                0 => monitor.set_health(index, Health::decode(word)),
                1 if !open.is_empty() => {
                    balancer.released(open.swap_remove(which % open.len()));
                }
                2 if !open.is_empty() => {
                    let index = open.swap_remove(which % open.len());
                    balancer.failed(index, &mut Tried::default(), 0);
                }
                _ => {
                    let marked: Vec<bool> =
                        (0..entries.len()).map(|index| monitor.state(index).retry_at > 0).collect();
                    let found = balancer.select_by(None, Some(word), &mut Tried::default(), 0);
                    prop_assert_eq!(found.is_some(), (0..entries.len()).any(is_up));
                    if let Some(found) = found {
                        prop_assert!(is_up(found));
                        // If all that are up were marked, the marks were lifted.
                        let revived = (0..entries.len()).all(|index| marked[index] || !is_up(index));
                        let better = |index: usize| {
                            is_up(index) && !entries[index].backup && (revived || !marked[index])
                        };
                        prop_assert!(!entries[found].backup || !(0..entries.len()).any(better));
                        open.push(found);
                    }
                }
            }
        }
    }
}
