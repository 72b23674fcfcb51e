//! Remotes are added, changed and removed while sessions use them.

use super::super::remote::remote;
use super::*;
use proptest::prelude::*;

fn settings(addresses: &[&str]) -> Relay {
    let remotes = addresses.iter().map(|address| remote(address, None).settings).collect();
    Relay { remotes, retry_delay: 1, ..Relay::default() }
}

fn registry(addresses: &[&str]) -> Registry {
    Registry::new(&settings(addresses), Vec::new())
}

fn select(registry: &mut Registry) -> Option<RemoteId> {
    registry.select(None, None, &mut Tried::default(), 0)
}

fn address(registry: &Registry, id: Option<RemoteId>) -> Option<String> {
    registry.get(id?).map(|remote| remote.address().to_string())
}

#[test]
fn a_remote_that_is_taken_out_drains() {
    let mut registry = registry(&["192.0.2.1:80", "192.0.2.2:80"]);
    let first = select(&mut registry).expect("a remote");
    let second = select(&mut registry).expect("a remote");
    registry.remove(first);
    assert!((0..4).all(|_| select(&mut registry) == Some(second)));
    // The remote is there for the session that has it, and then no more.
    assert_eq!(address(&registry, Some(first)).as_deref(), Some("[192.0.2.1]:80"));
    registry.connected(first);
    registry.release(first);
    assert!(registry.get(first).is_none());
    // Its place goes to another remote, which has another id.
    let third = registry.add(remote("192.0.2.3:80", None)).expect("room");
    assert_eq!(third.index(), first.index());
    assert!(third != first && registry.get(first).is_none());
    registry.release(first);
    assert_eq!((registry.used(third), select(&mut registry)), (0, Some(third)));
}

#[test]
fn a_remote_that_comes_back_while_it_drains_is_another_one() {
    let mut registry = registry(&["192.0.2.1:80"]);
    let old = select(&mut registry).expect("a remote");
    registry.remove(old);
    assert_eq!(select(&mut registry), None);
    let new = registry.add(remote("192.0.2.1:80", None)).expect("room");
    assert_eq!(select(&mut registry), Some(new));
    let mut tried = Tried::default();
    assert!(registry.failed(old, &mut tried, 0));
    // The failure of the old remote says nothing about the new one.
    assert_eq!(registry.select(None, None, &mut tried, 0), Some(new));
}

#[test]
fn what_a_session_has_tried_is_no_name_of_what_comes_later() {
    let mut registry = registry(&["192.0.2.1:80"]);
    let mut tried = Tried::default();
    let first = registry.select(None, None, &mut tried, 0).expect("a remote");
    registry.failed(first, &mut tried, 0);
    registry.remove(first);
    let second = registry.add(remote("192.0.2.2:80", None)).expect("room");
    assert_eq!(second.index(), first.index());
    assert_eq!(registry.select(None, None, &mut tried, 0), Some(second));
}

#[test]
fn a_change_takes_effect_with_the_next_selection() {
    let mut registry = registry(&["192.0.2.1:80", "192.0.2.2:80"]);
    let id = select(&mut registry).expect("a remote");
    let mut heavier = remote("192.0.2.1:80", None);
    heavier.settings.weight = 3;
    registry.change(id, heavier).expect("room");
    let mut count = 0;
    for _ in 0..7 {
        count += u32::from(select(&mut registry) == Some(id));
    }
    assert_eq!(count, 5, "six of eight, with the one it had");
    // The tag and the address change as well; sessions that use the remote stay.
    registry.change(id, remote("192.0.2.9:80", Some("blue"))).expect("room");
    assert_eq!(registry.used(id), 6);
    assert_eq!(address(&registry, Some(id)).as_deref(), Some("[192.0.2.9]:80"));
    let blue = registry.tag("blue");
    assert!(blue.is_some() && registry.tag("red").is_none());
    assert_eq!(registry.select(blue, None, &mut Tried::default(), 0), Some(id));
}

#[test]
fn a_zone_that_is_full_says_so_and_nothing_changes() {
    let (_broker, fd) = Zone::create().expect("memory");
    let join = |slot| Zone::join(&fd, slot).expect("a place");
    let all: Vec<u64> = (1..super::super::zone::REMOTES as u64).collect();
    join(1).take_rows(&all).expect("room");
    let mut registry = registry(&["192.0.2.1:80"]);
    assert!(registry.join(join(0)));
    let id = select(&mut registry).expect("a remote");
    assert_eq!(registry.add(remote("192.0.2.2:80", None)), Err(NoRoom));
    assert_eq!(registry.change(id, remote("192.0.2.2:80", None)), Err(NoRoom));
    assert_eq!(address(&registry, Some(id)).as_deref(), Some("[192.0.2.1]:80"));
    registry.remove(id);
    registry.release(id);
    let next = registry.add(remote("192.0.2.2:80", None)).expect("the row that is free now");
    assert_eq!(select(&mut registry), Some(next));
}

#[test]
fn two_of_one_address_are_two() {
    let mut registry = registry(&["192.0.2.1:80", "192.0.2.1:80"]);
    let (a, b) = (select(&mut registry), select(&mut registry));
    assert!(a != b && address(&registry, a) == address(&registry, b));
}

#[derive(Clone, Debug)]
enum Step {
    Add(u8),
    Remove(usize),
    Change(usize, u8),
    Select,
    Failed(usize),
    Release(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0u8..8).prop_map(Step::Add),
        2 => any::<usize>().prop_map(Step::Remove),
        1 => (any::<usize>(), 0u8..8).prop_map(|(which, to)| Step::Change(which, to)),
        6 => Just(Step::Select),
        2 => any::<usize>().prop_map(Step::Failed),
        4 => any::<usize>().prop_map(Step::Release),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Two workers whose remotes come and go independently: a remote that was lent stays until it
    /// is given back, a removed remote is lent to nobody, and in the end no row is held or used.
    #[test]
    fn nothing_is_lost_while_remotes_come_and_go(
        steps in prop::collection::vec((0usize..2, step()), 0..150),
        shared in any::<bool>(),
    ) {
        let (broker, fd) = Zone::create().expect("memory");
        let named = |number: u8| remote(&format!("192.0.2.{number}:80"), None);
        let mut workers = [0, 1].map(|slot| {
            let mut registry = registry(&[]);
            if shared {
                assert!(registry.join(Zone::join(&fd, slot).expect("a place")));
            }
            registry
        });
        let mut present: [Vec<RemoteId>; 2] = Default::default();
        let mut lent: [Vec<RemoteId>; 2] = Default::default();
        for (which, step) in steps {
            let registry = &mut workers[which];
            let (present, lent) = (&mut present[which], &mut lent[which]);
            match step {
                Step::Add(number) => present.push(registry.add(named(number)).expect("room")),
                Step::Remove(place) if !present.is_empty() => {
                    let id = present.swap_remove(place % present.len());
                    registry.remove(id);
                    prop_assert_eq!(registry.get(id).is_some(), lent.contains(&id));
                }
                Step::Change(place, number) if !present.is_empty() => {
                    let id = present[place % present.len()];
                    registry.change(id, named(number)).expect("room");
                }
                Step::Select => {
                    let found = select(registry);
                    prop_assert_eq!(found.is_some(), !present.is_empty());
                    prop_assert!(found.is_none_or(|id| present.contains(&id)));
                    lent.extend(found);
                }
                Step::Failed(place) if !lent.is_empty() => {
                    let id = lent.swap_remove(place % lent.len());
                    registry.failed(id, &mut Tried::default(), 0);
                }
                Step::Release(place) if !lent.is_empty() => {
                    let id = lent.swap_remove(place % lent.len());
                    registry.release(id);
                }
                _ => {}
            }
            for &id in lent.iter() {
                prop_assert!(registry.get(id).is_some());
                let own = lent.iter().filter(|&&other| other == id).count() as u64;
                prop_assert!(registry.used(id) >= own);
            }
        }
        for which in 0..2 {
            for &id in &present[which] {
                workers[which].remove(id);
            }
            for &id in &lent[which] {
                workers[which].release(id);
            }
            prop_assert!(workers[which].places.iter().all(Option::is_none));
            prop_assert!(workers[which].identities.is_empty());
        }
        if shared {
            let last = Zone::join(&fd, 2).expect("a place");
            let all: Vec<u64> = (1..=super::super::zone::REMOTES as u64).collect();
            let rows = last.take_rows(&all).expect("all rows are free");
            prop_assert!(rows.into_iter().all(|row| last.state(row).used == 0));
            broker.clear(2);
        }
    }
}
