//! Several workers that share a zone select as a single one would that knows everything.

use super::linear::{Attempts, Linear};
use super::{Balancer, Entry, Tried};
use crate::config::relay::Ties;
use crate::upstream::zone::Object;
use crate::upstream::zone::{Zone, REMOTES, SETS};
use proptest::prelude::*;

/// A configuration.
#[derive(Clone, Debug)]
struct Setting {
    weights: Vec<u32>,
    tags: Vec<Option<u32>>,
    rebalance: i32,
    retry_delay: u64,
    ties: Ties,
}

impl Setting {
    fn worker(&self, fd: &Object, slot: usize) -> Balancer {
        let mut balancer = Balancer::empty(self.rebalance, self.retry_delay);
        let entries: Vec<Entry> = self
            .weights
            .iter()
            .zip(&self.tags)
            .zip(1..)
            .map(|((&weight, &tag), identity)| Entry {
                weight,
                tags: tag.into_iter().collect(),
                identity,
                ..Entry::default()
            })
            .collect();
        balancer.add(&entries).expect("room");
        balancer.set_ties(self.ties);
        assert!(balancer.join(Zone::join(fd, slot).expect("a place")));
        balancer
    }

    fn model(&self) -> Linear {
        let mut model = Linear::new(&self.weights, self.rebalance, self.retry_delay);
        model.set_tags(self.tags.iter().copied());
        model.set_ties(self.ties);
        model
    }
}

/// A session, as the workers and the model see it.
struct Session {
    worker: usize,
    tag: Option<u32>,
    attempts: (Tried, Attempts),
    remote: Option<usize>,
}

#[derive(Clone, Debug)]
enum Step {
    /// A session of this worker begins, with this tag.
    Begin(usize, Option<u32>),
    /// A session without a remote selects one.
    Select(usize),
    Connected(usize),
    Failed(usize),
    End(usize),
    /// A worker is killed and restarted.
    Die(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let tag = prop::option::weighted(0.3, 0u32..4);
    prop_oneof![
        4 => (any::<usize>(), tag).prop_map(|(worker, tag)| Step::Begin(worker, tag)),
        6 => any::<usize>().prop_map(Step::Select),
        2 => any::<usize>().prop_map(Step::Connected),
        3 => any::<usize>().prop_map(Step::Failed),
        2 => any::<usize>().prop_map(Step::End),
        1 => any::<usize>().prop_map(Step::Die),
        2 => (0u64..60).prop_map(Step::Wait),
    ]
}

fn setting() -> impl Strategy<Value = Setting> {
    let remote = (1u32..6, prop::option::weighted(0.5, 0u32..3));
    let remotes = prop::collection::vec(remote, 1..12);
    let ties = prop_oneof![Just(Ties::First), Just(Ties::Least)];
    (remotes, -2i32..6, 0u64..50, ties).prop_map(|(remotes, rebalance, retry_delay, ties)| {
        let (weights, tags) = remotes.into_iter().unzip();
        Setting { weights, tags, rebalance, retry_delay, ties }
    })
}

proptest! {
    #[test]
    fn workers_choose_as_one(
        setting in setting(),
        workers in 1usize..5,
        steps in prop::collection::vec(step(), 0..300),
    ) {
        let (broker, fd) = Zone::create().expect("memory");
        let mut model = setting.model();
        let mut all: Vec<Balancer> = (0..workers).map(|slot| setting.worker(&fd, slot)).collect();
        let mut sessions: Vec<Session> = Vec::new();
        let mut now = 0;
        for step in steps {
            let count = sessions.len();
            match step {
                Step::Begin(worker, tag) => {
                    let attempts = (Tried::default(), Attempts::of(tag));
                    let worker = worker % workers;
                    sessions.push(Session { worker, tag, attempts, remote: None });
                }
                Step::Select(which) if count > 0 => {
                    let session = &mut sessions[which % count];
                    if session.remote.is_none() {
                        let (ours, its) = &mut session.attempts;
                        session.remote = all[session.worker].select(session.tag, ours, now);
                        prop_assert_eq!(session.remote, model.select(its, now));
                    }
                }
                Step::Connected(which) if count > 0 => {
                    let session = &sessions[which % count];
                    if let Some(remote) = session.remote {
                        let news = all[session.worker].connected(remote);
                        prop_assert_eq!(news, model.connected(remote));
                    }
                }
                Step::Failed(which) if count > 0 => {
                    let session = &mut sessions[which % count];
                    if let Some(remote) = session.remote.take() {
                        let (ours, its) = &mut session.attempts;
                        let news = all[session.worker].failed(remote, ours, now);
                        prop_assert_eq!(news, model.failed(remote, its, now));
                    }
                }
                Step::End(which) if count > 0 => {
                    let session = sessions.swap_remove(which % count);
                    if let Some(remote) = session.remote {
                        all[session.worker].released(remote);
                        model.released(remote);
                    }
                }
                Step::Die(which) => {
                    let slot = which % workers;
                    let gone = |session: &mut Session| session.worker == slot;
                    for session in sessions.extract_if(.., gone) {
                        session.remote.into_iter().for_each(|remote| model.released(remote));
                    }
                    broker.clear(slot);
                    all[slot] = setting.worker(&fd, slot);
                }
                Step::Wait(time) => now += time,
                _ => {}
            }
        }
        // Sessions end; a worker that has just begun must see none left.
        for session in sessions {
            session.remote.into_iter().for_each(|remote| all[session.worker].released(remote));
        }
        let last = setting.worker(&fd, workers);
        for remote in 0..setting.weights.len() {
            prop_assert_eq!(last.used(remote), 0);
        }
    }
}

proptest! {
    /// Whatever is in the memory, selecting ends, and returns a remote that exists.
    #[test]
    fn nonsense_is_survived(
        setting in setting(),
        steps in prop::collection::vec(
            (0usize..1000, prop_oneof![0u64..100, any::<u64>()], any::<bool>()), 0..200,
        ),
    ) {
        let (broker, fd) = Zone::create().expect("memory");
        let mut balancer = setting.worker(&fd, 0);
        for (now, (place, value, fails)) in steps.into_iter().enumerate() {
            // Into the header and the first rows, and into the first worker's set.
            broker.scribble(place, value);
            broker.scribble(SETS + place % 100, value);
            let mut tried = Tried::default();
            if let Some(remote) = balancer.select(None, &mut tried, now as u64) {
                prop_assert!(remote < setting.weights.len());
                if fails {
                    balancer.failed(remote, &mut tried, now as u64);
                } else {
                    balancer.connected(remote);
                }
            }
        }
        broker.clear(0);
    }
}

/// One session after the other, over four workers, one of which starts late: each remote gets its
/// share.
#[test]
fn equals_take_turns_over_all_workers() {
    let (weights, tags) = (vec![1, 2, 3], vec![None; 3]);
    let setting = Setting { weights, tags, rebalance: 0, retry_delay: 0, ties: Ties::Least };
    let (_broker, fd) = Zone::create().expect("memory");
    let mut workers: Vec<Balancer> = (0..3).map(|slot| setting.worker(&fd, slot)).collect();
    let mut count = [0; 3];
    for turn in 0..6000 {
        if turn == 3000 {
            assert_eq!(count, [500, 1000, 1500]);
            workers.push(setting.worker(&fd, 3));
        }
        let which = turn % workers.len();
        let remote = workers[which].select(None, &mut Tried::default(), 0).expect("a live remote");
        count[remote] += 1;
        workers[which].released(remote);
    }
    assert_eq!(count, [1000, 2000, 3000]);
}

/// What one worker has seen counts for the other one, which need not see it again.
#[test]
fn sessions_that_are_cut_short_are_counted_over_all_workers() {
    let (_broker, fd) = Zone::create().expect("memory");
    let tags = vec![None; 2];
    let setting =
        Setting { weights: vec![1; 2], tags, rebalance: 0, retry_delay: 9, ties: Ties::Least };
    let [mut a, mut b] = [0, 1].map(|slot| {
        let mut balancer = setting.worker(&fd, slot);
        balancer.set_fail_count(3);
        balancer
    });
    assert!(!a.cut_short(0, 0) && !b.cut_short(0, 0) && a.cut_short(0, 0));
    for worker in [&mut a, &mut b] {
        for _ in 0..3 {
            assert_eq!(worker.select(None, &mut Tried::default(), 8), Some(1));
        }
    }
    assert_eq!(b.select(None, &mut Tried::default(), 9), Some(0));
    assert_eq!(a.select(None, &mut Tried::default(), 9), Some(1));
    assert!(b.proved(0));
    assert_eq!(a.select(None, &mut Tried::default(), 9), Some(0));
}

#[test]
fn without_room_each_balances_by_itself() {
    let (_broker, fd) = Zone::create().expect("memory");
    let mut balancer = Balancer::new(&[1; REMOTES + 1], 0, 0);
    assert!(!balancer.join(Zone::join(&fd, 0).expect("a place")));
    for expected in 0..3 {
        assert_eq!(balancer.select(None, &mut Tried::default(), 0), Some(expected));
    }
}

#[test]
fn no_count_is_lost_among_threads() {
    let setting = Setting {
        weights: vec![1, 2, 3, 1],
        tags: vec![None; 4],
        rebalance: 5,
        retry_delay: 1,
        ties: Ties::Least,
    };
    let (_broker, fd) = Zone::create().expect("memory");
    std::thread::scope(|scope| {
        for slot in 0..4u64 {
            let (setting, fd) = (&setting, &fd);
            scope.spawn(move || {
                let mut balancer = setting.worker(fd, slot as usize);
                let mut open = Vec::new();
                let mut chance = 0x9e37_79b9 * (slot + 1);
                for turn in 0..50_000 {
                    chance ^= chance << 13;
                    chance ^= chance >> 7;
                    chance ^= chance << 17;
                    let mut tried = Tried::default();
                    if let Some(remote) = balancer.select(None, &mut tried, turn / 100) {
                        match chance % 8 {
                            0 => drop(balancer.failed(remote, &mut tried, turn / 100)),
                            _ => {
                                balancer.connected(remote);
                                open.push(remote);
                            }
                        }
                    }
                    while open.len() > 20 || (chance % 3 == 0 && !open.is_empty()) {
                        balancer.released(open.swap_remove(chance as usize % open.len()));
                        chance /= 3;
                    }
                }
                // Each worker gives everything back, so a late worker must see no use.
                open.into_iter().for_each(|remote| balancer.released(remote));
            });
        }
    });
    let last = setting.worker(&fd, 9);
    assert_eq!((0..4).map(|remote| last.used(remote)).collect::<Vec<u64>>(), [0; 4]);
}

#[test]
fn whoever_has_heard_of_everything_agrees() {
    let setting = Setting {
        weights: vec![1; 3],
        tags: vec![None; 3],
        rebalance: 0,
        retry_delay: 0,
        ties: Ties::Least,
    };
    let (_broker, fd) = Zone::create().expect("memory");
    // Each thread stops with sessions open; afterwards every worker must count those of all.
    let work = &|slot| {
        let mut balancer = setting.worker(&fd, slot);
        for _ in 0..2_000 {
            let remote = balancer.select(None, &mut Tried::default(), 0).expect("a live remote");
            balancer.released(remote);
            balancer.select(None, &mut Tried::default(), 0).expect("a live remote");
        }
        balancer
    };
    let workers: Vec<Balancer> = std::thread::scope(|scope| {
        let threads = [0, 1, 2].map(|slot| scope.spawn(move || work(slot)));
        threads.into_iter().map(|thread| thread.join().expect("a worker")).collect()
    });
    for mut balancer in workers {
        balancer.catch_up(0);
        let used: Vec<u64> = (0..3).map(|remote| balancer.used(remote)).collect();
        assert_eq!(used.iter().sum::<u64>(), 6_000, "{used:?}");
        assert!(used.iter().max() <= used.iter().min().map(|min| min + 10).as_ref(), "{used:?}");
    }
}

#[test]
fn the_order_of_remotes_does_not_matter() {
    let (_broker, fd) = Zone::create().expect("memory");
    let worker = |slot, identities: &[u64]| {
        let mut balancer = Balancer::empty(0, 0);
        let entry = |&identity: &u64| Entry { weight: 1, identity, ..Entry::default() };
        balancer.add(&identities.iter().map(entry).collect::<Vec<_>>()).expect("room");
        assert!(balancer.join(Zone::join(&fd, slot).expect("a place")));
        balancer
    };
    let mut a = worker(0, &[10, 20]);
    let mut b = worker(1, &[30, 20, 10]);
    assert_eq!(a.select(None, &mut Tried::default(), 0), Some(0));
    assert_eq!(b.select(None, &mut Tried::default(), 0), Some(0));
    assert_eq!(b.select(None, &mut Tried::default(), 0), Some(1));
    assert_eq!((b.used(2), a.select(None, &mut Tried::default(), 0)), (1, Some(0)));
    // A remote that no other worker knows does no harm.
    b.failed(0, &mut Tried::default(), 0);
    assert_eq!(a.select(None, &mut Tried::default(), 0), Some(1));
}
