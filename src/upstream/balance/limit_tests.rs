//! Remotes with a limit of sessions, in every kind of selection and with several workers.

use super::{Balancer, Entry, Tried};
use crate::config::balance::Kind;
use crate::os::hash;
use crate::upstream::zone::{Object, Zone};
use proptest::prelude::*;

const KINDS: [Kind; 5] = [Kind::LeastUse, Kind::RoundRobin, Kind::Random, Kind::Source, Kind::Hash];

fn worker(fd: &Object, slot: usize, entries: &[Entry], kind: Kind) -> Balancer {
    let mut balancer = Balancer::empty(0, 10_000);
    balancer.add(entries).expect("room");
    balancer.set_kinds(kind, &[]);
    balancer.set_seed(slot as u64);
    assert!(balancer.join(Zone::join(fd, slot).expect("a place")));
    balancer
}

#[test]
fn a_full_remote_is_left_out_and_lifts_no_marks() {
    let entry = |(identity, most)| Entry { weight: 1, identity, most, ..Entry::default() };
    let mut balancer = Balancer::empty(0, 10_000);
    balancer.add(&[(1, 2), (2, 1)].map(entry)).expect("room");
    let mut select = |tried: &mut Tried| balancer.select(None, tried, 0);
    let all: Vec<_> = (0..3).filter_map(|_| select(&mut Tried::default())).collect();
    assert_eq!(all, [0, 1, 0]);
    let mut tried = Tried::default();
    assert_eq!(select(&mut tried), None);
    // Nothing was lifted for a session that only has to wait.
    assert_eq!(tried, Tried::default());
    assert!(balancer.is_full(None, &tried));
    assert_eq!(balancer.limited(None, &tried), [0, 1]);
    assert!(!balancer.has_room(None, 0));
    balancer.failed(1, &mut tried, 0);
    // The second is dead, so it is not waited for; the first is.
    assert!(balancer.is_full(None, &tried));
    assert_eq!(balancer.limited(None, &tried), [0]);
    assert_eq!(balancer.select(None, &mut tried, 0), None);
    assert!(balancer.is_down(1));
    balancer.released(0);
    assert!(balancer.has_room(None, 0));
    assert_eq!(balancer.select(None, &mut tried, 0), Some(0));
}

#[test]
fn a_session_that_waits_for_room_finds_remotes_dead_as_often_as_need_be() {
    let entry = Entry { weight: 1, identity: 1, most: 1, ..Entry::default() };
    let mut balancer = Balancer::empty(0, 10_000);
    balancer.add(&[entry]).expect("room");
    balancer.set_fail_count(1);
    assert_eq!(balancer.select(None, &mut Tried::default(), 0), Some(0));
    let mut waits = Tried::default();
    for _ in 0..3 {
        balancer.cut_short(0, 0);
        assert_eq!(balancer.select(None, &mut waits, 0), None);
        assert!(balancer.is_full(None, &waits), "the session has tried no remote yet");
    }
    balancer.cut_short(0, 0);
    balancer.released(0);
    assert_eq!(balancer.select(None, &mut waits, 0), Some(0));
    // Then it counts as tried.
    balancer.failed(0, &mut waits, 0);
    assert_eq!(balancer.select(None, &mut waits, 0), None);
    assert!(!balancer.is_full(None, &waits));
}

#[test]
fn a_backup_serves_when_the_others_are_full() {
    let entry =
        |(identity, most, backup)| Entry { weight: 1, identity, most, backup, ..Entry::default() };
    for kind in KINDS {
        let mut balancer = Balancer::empty(0, 10_000);
        balancer.add(&[(1, 2, false), (2, 0, true)].map(entry)).expect("room");
        balancer.set_kinds(kind, &[]);
        let key = Some(hash::name_key("client"));
        let select = |_| balancer.select_by(None, key, &mut Tried::default(), 0);
        let selected: Vec<_> = (0..4).filter_map(select).collect();
        assert_eq!(selected, [0, 0, 1, 1], "{kind:?}");
    }
}

proptest! {
    /// No remote ever has more than it may, however workers take turns; and while one has room, a
    /// session gets one.
    #[test]
    fn limits_hold_over_all_workers(
        kind in prop::sample::select(&KINDS[..]),
        limits in prop::collection::vec(0u32..4, 1..5),
        steps in prop::collection::vec((0u8..3, any::<usize>(), any::<u64>()), 0..150),
    ) {
        let (_broker, fd) = Zone::create().expect("memory");
        let entries: Vec<Entry> = limits
            .iter()
            .zip(1..)
            .map(|(&most, identity)| Entry { weight: 1, identity, most, ..Entry::default() })
            .collect();
        let mut workers = [0, 1, 2].map(|slot| worker(&fd, slot, &entries, kind));
        let mut sessions: Vec<(usize, usize)> = Vec::new();
        for (what, which, key) in steps {
            let number = which % workers.len();
            if what < 2 {
                let mut tried = Tried::default();
                let used = |index| sessions.iter().filter(|(_, at)| *at == index).count();
                let room = (0..limits.len())
                    .any(|index| limits[index] == 0 || used(index) < limits[index] as usize);
                prop_assert_eq!(workers[number].has_room(None, 0), room);
                let selected = workers[number].select_by(None, Some(key), &mut tried, 0);
                prop_assert_eq!(selected.is_some(), room);
                prop_assert_eq!(workers[number].is_full(None, &tried) || room, true);
                sessions.extend(selected.map(|index| (number, index)));
            } else if !sessions.is_empty() {
                let (number, index) = sessions.swap_remove(which % sessions.len());
                workers[number].released(index);
            }
            for (index, &most) in limits.iter().enumerate() {
                let used = sessions.iter().filter(|(_, at)| *at == index).count();
                prop_assert!(most == 0 || used <= most as usize);
            }
        }
    }
}
