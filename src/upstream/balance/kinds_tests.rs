//! Each kind of balancing: whom it selects, and how sessions are shared out.

use super::*;
use crate::os::hash::mix;
use proptest::prelude::*;

fn balancer(weights: &[u32], kind: Kind) -> Balancer {
    let mut balancer = Balancer::new(weights, 0, 1000);
    balancer.set_kinds(kind, &[]);
    balancer
}

fn select(balancer: &mut Balancer, key: u64) -> usize {
    balancer.select_by(None, Some(key), &mut Tried::default(), 0).expect("a live remote")
}

fn fail(balancer: &mut Balancer, index: usize) {
    let mut tried = Tried::default();
    balancer.add_own(index, 1);
    balancer.failed(index, &mut tried, 0);
}

#[test]
fn round_robin_is_smooth_and_weighted() {
    let mut balancer = balancer(&[4, 2, 1], Kind::RoundRobin);
    // No session ends: the use of a remote does not matter.
    let chosen: Vec<usize> = (0..14).map(|_| select(&mut balancer, 0)).collect();
    for window in chosen.windows(7) {
        let count = |index| window.iter().filter(|&&one| one == index).count();
        assert_eq!((count(0), count(1), count(2)), (4, 2, 1), "{chosen:?}");
        assert!(window.windows(3).all(|three| three != [0; 3]), "{chosen:?}");
    }
}

#[test]
fn round_robin_takes_turns_even_if_the_first_of_equals_would_win() {
    let mut balancer = balancer(&[1, 1], Kind::RoundRobin);
    balancer.set_ties(Ties::First);
    let chosen: Vec<usize> = (0..4).map(|_| select(&mut balancer, 0)).collect();
    assert_eq!(chosen, [0, 1, 0, 1]);
}

#[test]
fn random_avoids_the_busiest() {
    let mut balancer = balancer(&[1; 10], Kind::Random);
    for _ in 0..10_000 {
        select(&mut balancer, 0);
    }
    // Drawing one instead of two would differ by some 100 at this number.
    for index in 0..10 {
        let used = balancer.used(index);
        assert!((995..=1005).contains(&used), "remote {index} has {used} of 10,000");
    }
}

#[test]
fn random_finds_the_only_one_that_is_up() {
    let mut balancer = balancer(&[1; 200], Kind::Random);
    (0..200).filter(|&index| index != 77).for_each(|index| fail(&mut balancer, index));
    assert!((0..20).all(|_| select(&mut balancer, 0) == 77));
}

#[test]
fn a_tag_has_a_kind_of_its_own() {
    let mut balancer = Balancer::empty(0, 0);
    let entry = |(identity, tag): (u64, Option<u32>)| Entry {
        weight: 1,
        tags: tag.into_iter().collect(),
        identity,
        ..Entry::default()
    };
    balancer.add(&[(1, Some(0)), (2, Some(0)), (3, Some(1)), (4, Some(1))].map(entry));
    balancer.set_kinds(Kind::LeastUse, &[(1, Kind::Source)]);
    let mut select = |tag, key| {
        let index = balancer.select_by(Some(tag), Some(key), &mut Tried::default(), 0);
        index.expect("a live remote")
    };
    assert_eq!([0; 4].map(|key| select(0, key)), [0, 1, 0, 1]);
    let own = select(1, 5);
    assert!((0..9).all(|_| select(1, 5) == own));
    assert_eq!(balancer.kind(Some(9)), Kind::LeastUse);
}

#[test]
fn a_session_without_a_key_is_selected_by_use() {
    let mut balancer = balancer(&[1; 3], Kind::Hash);
    let chosen = [(); 3].map(|()| balancer.select(None, &mut Tried::default(), 0));
    assert_eq!(chosen, [Some(0), Some(1), Some(2)]);
}

proptest! {
    // A table takes a while without optimization.
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn only_the_keys_of_a_remote_that_is_down_move(
        count in 2usize..12,
        down in any::<prop::sample::Index>(),
        keys in prop::collection::vec(any::<u64>(), 1..200),
    ) {
        let mut balancer = balancer(&vec![1; count], Kind::Source);
        let before: Vec<usize> = keys.iter().map(|&key| select(&mut balancer, key)).collect();
        let down = down.index(count);
        fail(&mut balancer, down);
        for (&key, &was) in keys.iter().zip(&before) {
            let is = select(&mut balancer, key);
            prop_assert_eq!(is == was, was != down);
        }
        balancer.connected(down);
        for (&key, &was) in keys.iter().zip(&before) {
            prop_assert_eq!(select(&mut balancer, key), was);
        }
    }

    #[test]
    fn every_kind_tries_each_remote_once(
        kind in prop::sample::select(vec![
            Kind::LeastUse, Kind::RoundRobin, Kind::Random, Kind::Source, Kind::Hash,
        ]),
        count in 1usize..12,
        key in any::<u64>(),
    ) {
        let mut balancer = balancer(&vec![1; count], kind);
        let mut tried = Tried::default();
        let mut met = Vec::new();
        while let Some(index) = balancer.select_by(None, Some(key), &mut tried, 0) {
            balancer.failed(index, &mut tried, 0);
            met.push(index);
        }
        met.sort_unstable();
        prop_assert_eq!(met, (0..count).collect::<Vec<_>>());
        prop_assert!((0..count).all(|index| balancer.used(index) == 0));
    }
}

/// The sessions of each remote after 10,000 from 2,000 clients: long ones, which all stay, or short
/// ones, of which 50 are there at a time. `make bench-balance` prints the table.
#[test]
fn shares_of_ten_thousand_sessions() {
    let weights = [1, 2, 3, 4];
    println!("| kind | sessions | weight 1 | 2 | 3 | 4 |\n| --- | --- | --- | --- | --- | --- |");
    for (name, kind, tolerance) in [
        ("least-use", Kind::LeastUse, 20),
        ("round-robin", Kind::RoundRobin, 2),
        ("random", Kind::Random, 400),
        ("source", Kind::Source, 500),
        ("hash", Kind::Hash, 500),
    ] {
        for (length, most) in [("long", usize::MAX), ("short", 50)] {
            let mut balancer = balancer(&weights, kind);
            let mut open = std::collections::VecDeque::new();
            let mut shares = [0i64; 4];
            for session in 0..10_000u64 {
                let index = select(&mut balancer, mix(session % 2000));
                shares[index] += 1;
                open.push_back(index);
                if open.len() > most {
                    open.pop_front().into_iter().for_each(|index| balancer.released(index));
                }
            }
            let [a, b, c, d] = shares;
            println!("| `{name}` | {length} | {a} | {b} | {c} | {d} |");
            for (share, weight) in shares.iter().zip(1..) {
                assert!((share - 1000 * weight).abs() <= tolerance, "{name} {length}: {shares:?}");
            }
        }
    }
}
