//! The balancer by itself, without other workers.

use super::remote::STEP;
use super::select::HALF;
use super::*;
use proptest::prelude::*;

fn select(balancer: &mut Balancer, now: u64) -> usize {
    balancer.select(None, &mut Tried::default(), now).expect("a live remote")
}

#[test]
fn the_worked_example() {
    let mut balancer = Balancer::new(&[1, 2, 3], 0, 0);
    let chosen: Vec<usize> = (0..12).map(|_| select(&mut balancer, 0)).collect();
    assert_eq!(chosen, [0, 1, 2, 2, 1, 2, 0, 1, 2, 2, 1, 2]);
}

/// A balancer that resolves ties as the C program does.
fn first(weights: &[u32]) -> Balancer {
    let mut balancer = Balancer::new(weights, 0, 0);
    balancer.set_ties(Ties::First);
    balancer
}

/// This many sessions, one after the other.
fn one_by_one(balancer: &mut Balancer, count: usize) -> Vec<usize> {
    let one = |_| {
        let index = select(balancer, 0);
        balancer.released(index);
        index
    };
    (0..count).map(one).collect()
}

fn shares(chosen: &[usize], remotes: usize) -> Vec<usize> {
    (0..remotes).map(|index| chosen.iter().filter(|&&other| other == index).count()).collect()
}

#[test]
fn the_first_of_equals() {
    let mut balancer = first(&[1, 2, 3]);
    let chosen: Vec<usize> = (0..12).map(|_| select(&mut balancer, 0)).collect();
    assert_eq!(chosen, [0, 1, 2, 2, 1, 2, 0, 1, 2, 2, 1, 2]);
    assert_eq!(one_by_one(&mut first(&[1, 1]), 5), [0; 5]);
    // Large weights tie at zero.
    let mut balancer = first(&[1000, 1]);
    let chosen: Vec<usize> = (0..6).map(|_| select(&mut balancer, 0)).collect();
    assert_eq!(chosen, [0, 0, 0, 0, 1, 0]);
}

#[test]
fn equals_take_turns_by_weight() {
    assert_eq!(one_by_one(&mut Balancer::new(&[1, 1, 1], 0, 0), 6), [0, 1, 2, 0, 1, 2]);
    let chosen = one_by_one(&mut Balancer::new(&[1, 2, 3], 0, 0), 600);
    assert_eq!(shares(&chosen, 3), [100, 200, 300]);
    // Spread out, not one after the other.
    assert_eq!(shares(&chosen[..6], 3), [1, 2, 3]);
    let chosen = one_by_one(&mut Balancer::new(&[1000, 1], 0, 0), 1001);
    assert_eq!(shares(&chosen, 2), [1000, 1]);
    // The priorities of these round to the same for four sessions at a time.
    let mut balancer = Balancer::new(&[1000, 1], 0, 0);
    let chosen: Vec<usize> = (0..6).map(|_| select(&mut balancer, 0)).collect();
    assert_eq!(chosen, [0, 0, 0, 0, 1, 0]);
    let chosen = one_by_one(&mut Balancer::new(&[1000, 1000], 0, 0), 4000);
    assert!(shares(&chosen, 2).iter().all(|share| (1996..=2004).contains(share)));
}

#[test]
fn turns_go_on_for_ever() {
    let mut balancer = Balancer::new(&[1, 1, 1], 0, 0);
    // The turns in ranks, half a word, are full after this many sessions, and then again.
    for count in [HALF / 512, HALF / 256, HALF / 256 * 9] {
        balancer.zone.set_turns(count * STEP);
        for row in 0..3 {
            balancer.zone.set_turn(row, count * STEP + row as u64);
            balancer.refresh(row);
        }
        assert_eq!(shares(&one_by_one(&mut balancer, 30_000), 3), [10_000; 3]);
    }
}

#[test]
fn what_was_missed_is_not_made_up_for() {
    // By a remote that was dead,
    let mut balancer = Balancer::new(&[1, 1, 1], 0, 1000);
    let mut tried = Tried::default();
    assert_eq!(balancer.select(None, &mut tried, 0), Some(0));
    balancer.failed(0, &mut tried, 0);
    assert_eq!(shares(&one_by_one(&mut balancer, 1000), 3), [0, 500, 500]);
    assert_eq!(balancer.select(None, &mut Tried::default(), 1000), Some(0));
    balancer.connected(0);
    balancer.released(0);
    let after = one_by_one(&mut balancer, 9);
    assert_eq!(shares(&after, 3), [3, 3, 3]);
    assert_eq!(shares(&after[..3], 3), [1, 1, 1]);
    // or by one with a session that took long.
    let long = select(&mut balancer, 1000);
    let others = one_by_one(&mut balancer, 1000);
    assert_eq!(shares(&others, 3)[long], 0);
    balancer.released(long);
    let share = shares(&one_by_one(&mut balancer, 9), 3)[long];
    assert!((3..=4).contains(&share), "{share} of 9");
}

#[test]
fn a_remote_that_cuts_sessions_short_is_taken_for_dead() {
    let mut balancer = Balancer::new(&[1, 1], 0, 1000);
    balancer.set_fail_count(3);
    let session = |balancer: &mut Balancer, now| {
        let index = select(balancer, now);
        let up_again = balancer.connected(index);
        balancer.released(index);
        (index, up_again)
    };
    // A session that is answered restarts the count.
    for _ in 0..2 {
        assert!(!balancer.cut_short(0, 0) && !balancer.cut_short(0, 0));
        assert!(!balancer.proved(0));
    }
    assert!(!balancer.cut_short(0, 0) && !balancer.cut_short(0, 0));
    assert!(balancer.cut_short(0, 0));
    assert!((0..5).all(|_| session(&mut balancer, 999) == (1, false)));
    // Then one session tries it. Being connected proves nothing,
    assert_eq!(session(&mut balancer, 1000), (0, false));
    assert_eq!(session(&mut balancer, 1000), (1, false));
    // and one more session cut short is enough.
    assert!(!balancer.cut_short(0, 1100));
    assert_eq!(session(&mut balancer, 2099), (1, false));
    assert_eq!(session(&mut balancer, 2100), (0, false));
    assert!(balancer.proved(0));
    let chosen: Vec<usize> = (0..4).map(|_| session(&mut balancer, 2100).0).collect();
    assert_eq!(shares(&chosen, 2), [2, 2]);
}

#[test]
fn when_all_cut_sessions_short_all_are_tried() {
    let mut balancer = Balancer::new(&[1, 1], 0, 0);
    balancer.set_fail_count(1);
    for _ in 0..10 {
        let index = select(&mut balancer, 0);
        balancer.connected(index);
        balancer.cut_short(index, 0);
        balancer.released(index);
    }
    let off = Balancer::new(&[1, 1], 0, 0);
    let mut off = off;
    assert!((0..100).all(|_| !off.cut_short(0, 0)));
    assert_eq!(shares(&one_by_one(&mut off, 10), 2), [5, 5]);
}

/// Selects for one session until a connect attempt succeeds; `up` says which remotes answer.
fn connect(balancer: &mut Balancer, up: &[bool], now: u64) -> (Option<usize>, usize) {
    let mut tried = Tried::default();
    let mut count = 0;
    while let Some(index) = balancer.select(None, &mut tried, now) {
        count += 1;
        if up[index] {
            balancer.connected(index);
            return (Some(index), count);
        }
        balancer.failed(index, &mut tried, now);
    }
    (None, count)
}

/// A remote that ends every session at once is always as idle as any other.
#[test]
fn a_remote_that_ends_all_sessions_at_once_draws_no_more_than_its_share() {
    let mut balancer = Balancer::new(&[1, 1, 1], 0, 0);
    let mut open: Vec<usize> = Vec::new();
    let mut chosen = Vec::new();
    for step in 0..3000 {
        let index = select(&mut balancer, 0);
        chosen.push(index);
        match index {
            0 => balancer.released(0),
            _ => open.push(index),
        }
        // Other remotes' sessions end before the next one begins, except that now and then they end
        // a step later.
        if step % 10 != 0 {
            open.drain(..).for_each(|index| balancer.released(index));
        }
    }
    let share = shares(&chosen, 3)[0];
    assert!(share < 1500, "{share} of 3000");
}

#[test]
fn rebalance_retries_the_dead_on_every_fourth_selection() {
    let mut balancer = Balancer::new(&[1, 1], 4, 0);
    let up = [false, true];
    let tries: Vec<_> = (0..7).map(|_| connect(&mut balancer, &up, 0)).collect();
    let one = (Some(1), 1);
    let two = (Some(1), 2);
    assert_eq!(tries, [two, one, one, two, one, one, two]);
}

#[test]
fn all_dead_is_one_pass_per_session_and_heals() {
    let mut balancer = Balancer::new(&[1, 1, 1], 0, 0);
    assert_eq!(connect(&mut balancer, &[false; 3], 0), (None, 3));
    assert_eq!(connect(&mut balancer, &[false; 3], 0), (None, 3));
    assert_eq!(connect(&mut balancer, &[false, true, false], 0), (Some(1), 2));
    assert_eq!(connect(&mut balancer, &[true; 3], 0).0, Some(2));
}

#[test]
fn a_second_dead_remote_takes_no_part() {
    let mut balancer = Balancer::new(&[1, 1], 0, 0);
    let up = [true, false];
    assert_eq!(connect(&mut balancer, &up, 0).0, Some(0));
    assert_eq!(connect(&mut balancer, &up, 0).0, Some(0));
    assert_eq!(connect(&mut balancer, &up, 0), (Some(0), 1));
}

#[test]
fn after_the_retry_delay_one_session_tries() {
    let mut balancer = Balancer::new(&[1, 1], 0, 1000);
    assert_eq!(connect(&mut balancer, &[false, true], 0), (Some(1), 2));
    assert_eq!(connect(&mut balancer, &[true, true], 999), (Some(1), 1));
    // The dead remote is due: the first session gets it, and meanwhile the next one does not.
    assert_eq!(select(&mut balancer, 1000), 0);
    assert_eq!(select(&mut balancer, 1000), 1);
    assert!(balancer.connected(0));
    assert_eq!(select(&mut balancer, 1000), 0);
}

#[test]
fn a_tag_restricts_the_choice() {
    let mut balancer = Balancer::empty(0, 0);
    let entry = |(tag, identity): (Option<u32>, u64)| Entry {
        weight: 1,
        tags: tag.into_iter().collect(),
        identity,
        ..Entry::default()
    };
    balancer.add(&[(None, 1), (Some(7), 2), (Some(7), 3)].map(entry)).expect("room");
    let tag = Some(7);
    let mut tried = Tried::default();
    assert_eq!(balancer.select(tag, &mut Tried::default(), 0), Some(1));
    assert_eq!(balancer.select(tag, &mut Tried::default(), 0), Some(2));
    assert_eq!(balancer.select(tag, &mut tried, 0), Some(1));
    balancer.failed(1, &mut tried, 0);
    assert_eq!(balancer.select(tag, &mut tried, 0), Some(2));
    balancer.failed(2, &mut tried, 0);
    // No remote without the tag will do, however idle it is; a session without a tag gets it.
    assert_eq!(balancer.select(tag, &mut tried, 0), None);
    assert_eq!(balancer.select(Some(8), &mut Tried::default(), 0), None);
    assert_eq!(select(&mut balancer, 0), 0);
}

#[test]
fn a_change_of_state_is_news_once() {
    let mut balancer = Balancer::new(&[1], 1, 0);
    let mut news = Vec::new();
    for _ in 0..3 {
        let mut tried = Tried::default();
        let index = balancer.select(None, &mut tried, 0).expect("revived");
        news.push(balancer.failed(index, &mut tried, 0));
    }
    assert_eq!(news, [true, false, false]);
    assert!(balancer.connected(0));
    assert!(!balancer.connected(0));
}

proptest! {
    /// A seeded simulation: remotes go up and down, sessions begin and end. No session fails while
    /// a remote is up, none tries a remote twice, and the counts stay right.
    #[test]
    fn simulation(
        weights in prop::collection::vec(1u32..300, 1..6),
        rebalance in -3i32..6,
        retry_delay in 0u64..50,
        steps in prop::collection::vec((0u8..4, any::<usize>(), 0u64..20), 0..200),
    ) {
        let mut balancer = Balancer::new(&weights, rebalance, retry_delay);
        let mut up = vec![true; weights.len()];
        let mut open: Vec<usize> = Vec::new();
        let mut now = 0;
        for (step, which, elapsed) in steps {
            now += elapsed;
            match step {
                0 | 1 => {
                    let (found, tries) = connect(&mut balancer, &up, now);
                    prop_assert!(tries <= weights.len());
                    prop_assert_eq!(found.is_some(), up.contains(&true));
                    open.extend(found);
                }
                2 if !open.is_empty() => {
                    let index = open.swap_remove(which % open.len());
                    balancer.released(index);
                }
                3 => {
                    let index = which % up.len();
                    up[index] = !up[index];
                }
                _ => {}
            }
            for index in 0..weights.len() {
                let expected = open.iter().filter(|&&other| other == index).count();
                prop_assert_eq!(balancer.used(index), expected as u64);
            }
        }
    }
}
