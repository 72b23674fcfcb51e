//! Simulations of the choice of workers.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

fn policy(instances: (usize, usize), users: (usize, usize)) -> Policy {
    Policy::new(Limits {
        instances_min: instances.0,
        instances_max: instances.1,
        users_min: users.0,
        users_max: users.1,
    })
}

/// Gives one connection, starting workers as asked; returns the number of the worker, from one.
fn give(policy: &mut Policy, next: &mut u32) -> Option<u32> {
    loop {
        match policy.choose(None) {
            Choice::Worker(id) => {
                policy.given(id);
                return Some(id.0);
            }
            Choice::Start => {
                *next += 1;
                policy.add_ready(WorkerId(*next));
            }
            Choice::Wait | Choice::Nobody => return None,
        }
    }
}

#[test]
fn the_documented_sequence() {
    let mut policy = policy((1, 3), (2, 3));
    let mut next = 0;
    let given: Vec<_> = (0..10).map(|_| give(&mut policy, &mut next)).collect();
    let expected = [1, 1, 2, 2, 3, 3, 1, 2, 3].map(Some);
    assert_eq!(given[..9], expected);
    assert_eq!(given[9], None);
    assert!(policy.is_full());
}

#[test]
fn the_minimum_of_workers_comes_first() {
    let mut policy = policy((4, 4), (2, 10));
    let mut next = 0;
    let given: Vec<_> = (0..4).filter_map(|_| give(&mut policy, &mut next)).collect();
    assert_eq!(given, [1, 2, 3, 4]);
}

#[test]
fn who_is_up_first_does_not_matter() {
    let mut policy = policy((2, 2), (5, 5));
    policy.add_starting(WorkerId(1));
    policy.add_starting(WorkerId(2));
    policy.set_ready(WorkerId(2));
    assert_eq!(policy.choose(None), Choice::Wait);
    assert_eq!(policy.fallback(), Choice::Worker(WorkerId(2)));
    policy.set_ready(WorkerId(1));
    assert_eq!(policy.choose(None), Choice::Worker(WorkerId(1)));
}

#[test]
fn a_lower_maximum_lowers_the_total() {
    let mut policy = policy((2, 2), (5, 15));
    let mut next = 0;
    policy.add_ready(WorkerId(1));
    policy.add_ready(WorkerId(2));
    next += 2;
    assert_eq!(policy.cap(WorkerId(1), 12), Some(12));
    assert_eq!(policy.limit(), 24);
    assert_eq!(policy.cap(WorkerId(2), 12), None);
    let given = std::iter::from_fn(|| give(&mut policy, &mut next)).count();
    assert_eq!(given, 24);
    assert!(policy.is_full());
}

#[test]
fn what_one_worker_can_handle_is_not_what_all_can() {
    let mut policy = policy((3, 3), (5, 15));
    (1..=3).for_each(|id| policy.add_ready(WorkerId(id)));
    assert_eq!(policy.cap(WorkerId(1), 15), None);
    assert_eq!(policy.cap(WorkerId(2), 1), None);
    assert_eq!(policy.limit(), 31);
    // The only number announced holds for all, until another worker announces its own.
    policy.remove(WorkerId(1));
    policy.remove(WorkerId(3));
    assert_eq!(policy.cap(WorkerId(2), 2), Some(2));
    assert_eq!(policy.limit(), 6);
    policy.remove(WorkerId(2));
    policy.add_starting(WorkerId(4));
    assert_eq!(policy.cap(WorkerId(4), 100), None);
    assert_eq!(policy.limit(), 45);
    assert_eq!(policy.cap(WorkerId(9), 1), None);
}

#[test]
fn a_stalled_worker_is_passed_over() {
    let mut policy = policy((2, 3), (5, 5));
    policy.add_ready(WorkerId(1));
    policy.add_ready(WorkerId(2));
    policy.set_stalled(WorkerId(1), true);
    assert_eq!(policy.choose(Some(WorkerId(1))), Choice::Worker(WorkerId(2)));
    policy.set_stalled(WorkerId(2), true);
    assert_eq!(policy.choose(None), Choice::Start);
    policy.add_starting(WorkerId(3));
    assert_eq!(policy.choose(None), Choice::Wait);
    assert_eq!(policy.fallback(), Choice::Nobody);
    assert!(!policy.is_full());
    policy.set_stalled(WorkerId(1), false);
    assert_eq!(policy.choose(None), Choice::Worker(WorkerId(1)));
}

#[test]
fn lies_of_a_worker_do_not_make_counters_negative() {
    let mut policy = policy((1, 1), (5, 5));
    let mut next = 0;
    give(&mut policy, &mut next);
    policy.done(WorkerId(1), 5);
    assert_eq!(policy.total(), 0);
    policy.done(WorkerId(1), 5);
    policy.done(WorkerId(99), 5);
    assert_eq!(policy.total(), 0);
}

/// The model of a worker in the simulation.
#[derive(Default)]
struct Model {
    users: usize,
    most: Option<usize>,
    blocked: bool,
    stalled: bool,
    starting: bool,
}

impl Model {
    fn reads(&self) -> bool {
        !self.blocked && !self.stalled
    }
}

#[derive(Clone, Debug)]
enum Step {
    Connect(Option<u32>),
    Done(usize, usize),
    Die(usize),
    Block(usize, bool),
    Stall(usize, bool),
    Cap(usize, usize),
    Ready(usize),
    Trim,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::option::of(0u32..20).prop_map(Step::Connect),
        4 => (any::<usize>(), 0usize..4).prop_map(|(w, n)| Step::Done(w, n)),
        1 => any::<usize>().prop_map(Step::Die),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(w, b)| Step::Block(w, b)),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(w, s)| Step::Stall(w, s)),
        1 => (any::<usize>(), 0usize..20).prop_map(|(w, max)| Step::Cap(w, max)),
        3 => any::<usize>().prop_map(Step::Ready),
        1 => Just(Step::Trim),
    ]
}

proptest! {
    /// A simulated broker: whatever happens, the counters equal the sums of what workers have,
    /// bounds hold when a connection is given, and a free place is always found.
    #[test]
    fn simulation(
        instances_min in 0usize..4, more in 0usize..4, users_min in 0usize..6,
        users_max in 1usize..10, steps in prop::collection::vec(step(), 0..300),
    ) {
        let instances_max = (instances_min + more).max(1);
        let mut policy = policy((instances_min, instances_max), (users_min, users_max));
        let mut model: HashMap<u32, Model> = HashMap::new();
        let mut next = 0;
        for step in steps {
            let mut names: Vec<u32> = model.keys().copied().collect();
            names.sort_unstable();
            let pick = |which: usize| (!names.is_empty()).then(|| names[which % names.len()]);
            match step {
                Step::Connect(sticky) => loop {
                    match policy.choose(sticky.map(WorkerId)) {
                        Choice::Start => {
                            prop_assert!(model.len() < instances_max);
                            next += 1;
                            policy.add_starting(WorkerId(next));
                            model.insert(next, Model { starting: true, ..Model::default() });
                        }
                        Choice::Worker(id) => {
                            let worker = model.get_mut(&id.0).expect("a living worker");
                            prop_assert!(worker.users < worker.most.unwrap_or(users_max));
                            prop_assert!(worker.reads() && !worker.starting);
                            worker.users += 1;
                            policy.given(id);
                            break;
                        }
                        Choice::Wait => {
                            prop_assert!(model.values().any(|w| w.starting));
                            break;
                        }
                        Choice::Nobody => {
                            let full = |w: &Model| w.users >= w.most.unwrap_or(policy.expected);
                            prop_assert!(model.values().all(|w| !w.reads() || full(w)));
                            prop_assert_eq!(model.len(), instances_max);
                            break;
                        }
                    }
                },
                Step::Done(which, count) => {
                    if let Some(name) = pick(which) {
                        policy.done(WorkerId(name), count);
                        let users = &mut model.get_mut(&name).expect("picked").users;
                        *users = users.saturating_sub(count);
                    }
                }
                Step::Die(which) => {
                    if let Some(name) = pick(which) {
                        let held = model.remove(&name).map(|w| w.users);
                        prop_assert_eq!(policy.remove(WorkerId(name)), held);
                    }
                }
                Step::Block(which, blocked) => {
                    if let Some(name) = pick(which) {
                        policy.set_blocked(WorkerId(name), blocked);
                        model.get_mut(&name).expect("picked").blocked = blocked;
                    }
                }
                Step::Stall(which, stalled) => {
                    if let Some(name) = pick(which) {
                        policy.set_stalled(WorkerId(name), stalled);
                        model.get_mut(&name).expect("picked").stalled = stalled;
                    }
                }
                Step::Cap(which, max) => {
                    if let Some(name) = pick(which) {
                        policy.cap(WorkerId(name), max);
                        let most = &mut model.get_mut(&name).expect("picked").most;
                        *most = Some(max.clamp(1, users_max));
                        // No worker is held to a number that no living worker has announced.
                        let best = model.values().filter_map(|w| w.most).max();
                        prop_assert_eq!(Some(policy.expected), best);
                    }
                }
                Step::Ready(which) => {
                    if let Some(name) = pick(which) {
                        policy.set_ready(WorkerId(name));
                        model.get_mut(&name).expect("picked").starting = false;
                    }
                }
                Step::Trim => {
                    for id in policy.superfluous() {
                        prop_assert_eq!(model.remove(&id.0).map(|w| w.users), Some(0));
                        policy.remove(id);
                    }
                    prop_assert!(model.len() >= instances_min.min(names.len()));
                }
            }
            prop_assert_eq!(policy.total(), model.values().map(|w| w.users).sum::<usize>());
            let room = |w: &Model| w.most.unwrap_or(policy.expected) > w.users;
            let free = model.len() < instances_max || model.values().any(room);
            prop_assert_eq!(policy.is_full(), !free);
            let mut again = policy.clone();
            again.measure();
            prop_assert_eq!(policy.room(), again.room());
            prop_assert_eq!(policy.len(), model.len());
        }
    }
}
