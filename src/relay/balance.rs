//! Which remote a session is connected to: pure bookkeeping with an injected clock.
//!
//! The arithmetic is that of the C program: the priority of a remote is
//! `(use × 256) / weight`, the smallest wins, ties go to the first. Dead remotes take no part.
//! A dead mark is lifted by `rebalance` (with every so many selections), when all remotes are
//! dead, and for one attempt at a time after `retry delay`.

/// What one session has tried already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Only remotes with this tag will do.
    tag: Option<u32>,
    failed: Vec<u32>,
    /// All were dead, and their marks were lifted once for this session.
    revived: bool,
}

impl Attempts {
    /// Those of a session that is only to go to remotes with a tag.
    pub fn with_tag(tag: u32) -> Attempts {
        Attempts { tag: Some(tag), ..Attempts::default() }
    }
}

#[derive(Clone, Debug)]
struct Remote {
    tag: Option<u32>,
    weight: u64,
    used: u64,
    dead: bool,
    /// When a dead remote may be tried again; `u64::MAX`: not by time.
    retry_at: u64,
    /// It was reported as down and not yet as up again.
    reported: bool,
}

/// The remotes of a worker.
#[derive(Clone, Debug)]
pub struct Balancer {
    remotes: Vec<Remote>,
    rebalance: i64,
    retry_delay: u64,
    selections: i64,
}

impl Balancer {
    /// Remotes by their weights (at least 1); `rebalance` as configured; `retry_delay` in
    /// milliseconds, 0 for never.
    pub fn new(weights: &[u32], rebalance: i32, retry_delay: u64) -> Balancer {
        let remote = |&weight: &u32| Remote {
            tag: None,
            weight: u64::from(weight.max(1)),
            used: 0,
            dead: false,
            retry_at: u64::MAX,
            reported: false,
        };
        Balancer {
            remotes: weights.iter().map(remote).collect(),
            rebalance: rebalance.into(),
            retry_delay,
            selections: 0,
        }
    }

    /// Gives each remote its tag, by a number.
    pub fn set_tags(&mut self, tags: impl Iterator<Item = Option<u32>>) {
        for (remote, tag) in self.remotes.iter_mut().zip(tags) {
            remote.tag = tag;
        }
    }

    /// Picks a remote for a session, and counts it as used by it. `None`: there is none left
    /// that this session has not tried.
    pub fn select(&mut self, attempts: &mut Attempts, now: u64) -> Option<usize> {
        if self.rebalance != 0 && self.selections == self.rebalance {
            self.revive();
        }
        self.selections += 1;
        let mut best = self.best(attempts, now);
        if best.is_none() && !attempts.revived {
            attempts.revived = true;
            match attempts.tag {
                None => {
                    self.revive();
                    self.selections += 1;
                }
                // The others' remotes are none of its business.
                tag => {
                    let tagged = self.remotes.iter_mut().filter(|remote| remote.tag == tag);
                    tagged.for_each(|remote| remote.dead = false);
                }
            }
            best = self.best(attempts, now);
        }
        let index = best?;
        let remote = &mut self.remotes[index];
        remote.used += 1;
        if remote.dead {
            // One session at a time finds out whether it is back.
            remote.retry_at = self.retry_delay.saturating_add(now);
        }
        Some(index)
    }

    fn best(&self, attempts: &Attempts, now: u64) -> Option<usize> {
        self.remotes
            .iter()
            .enumerate()
            .filter(|(index, remote)| {
                (attempts.tag.is_none() || attempts.tag == remote.tag)
                    && (!remote.dead || remote.retry_at <= now)
                    && !attempts.failed.contains(&(*index as u32))
            })
            .min_by_key(|(_, remote)| remote.used * 256 / remote.weight)
            .map(|(index, _)| index)
    }

    fn revive(&mut self) {
        self.selections = 0;
        for remote in &mut self.remotes {
            remote.dead = false;
        }
    }

    /// A session could not be connected to this remote. True if that is news.
    pub fn failed(&mut self, index: usize, attempts: &mut Attempts, now: u64) -> bool {
        self.released(index);
        attempts.failed.push(index as u32);
        let delay = self.retry_delay;
        let remote = &mut self.remotes[index];
        remote.dead = true;
        remote.retry_at = if delay == 0 { u64::MAX } else { now.saturating_add(delay) };
        !std::mem::replace(&mut remote.reported, true)
    }

    /// A session was connected to this remote. True if it was reported as down before.
    pub fn connected(&mut self, index: usize) -> bool {
        let remote = &mut self.remotes[index];
        remote.dead = false;
        std::mem::replace(&mut remote.reported, false)
    }

    /// The last attempt on this remote failed.
    pub fn is_down(&self, index: usize) -> bool {
        self.remotes[index].reported
    }

    /// A session does not use this remote any more.
    pub fn released(&mut self, index: usize) {
        let remote = &mut self.remotes[index];
        remote.used = remote.used.saturating_sub(1);
    }

    /// Sessions that use a remote.
    pub fn used(&self, index: usize) -> u64 {
        self.remotes[index].used
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn select(balancer: &mut Balancer, now: u64) -> usize {
        balancer.select(&mut Attempts::default(), now).expect("a live remote")
    }

    #[test]
    fn the_worked_example() {
        let mut balancer = Balancer::new(&[1, 2, 3], 0, 0);
        let chosen: Vec<usize> = (0..12).map(|_| select(&mut balancer, 0)).collect();
        assert_eq!(chosen, [0, 1, 2, 2, 1, 2, 0, 1, 2, 2, 1, 2]);
    }

    #[test]
    fn sequential_sessions_go_to_the_first() {
        let mut balancer = Balancer::new(&[1, 1], 0, 0);
        for _ in 0..5 {
            assert_eq!(select(&mut balancer, 0), 0);
            balancer.released(0);
        }
    }

    #[test]
    fn large_weights_tie_at_zero() {
        let mut balancer = Balancer::new(&[1000, 1], 0, 0);
        let chosen: Vec<usize> = (0..6).map(|_| select(&mut balancer, 0)).collect();
        assert_eq!(chosen[..4], [0, 0, 0, 0]);
        assert_eq!(chosen[4], 1);
        assert_eq!(chosen[5], 0);
    }

    /// A session's selections until one succeeds; `up` tells which remotes answer.
    fn connect(balancer: &mut Balancer, up: &[bool], now: u64) -> (Option<usize>, usize) {
        let mut attempts = Attempts::default();
        let mut count = 0;
        while let Some(index) = balancer.select(&mut attempts, now) {
            count += 1;
            if up[index] {
                balancer.connected(index);
                return (Some(index), count);
            }
            balancer.failed(index, &mut attempts, now);
        }
        (None, count)
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
        // Due: the first session is given it, the next one meanwhile is not.
        assert_eq!(select(&mut balancer, 1000), 0);
        assert_eq!(select(&mut balancer, 1000), 1);
        assert!(balancer.connected(0));
        assert_eq!(select(&mut balancer, 1000), 0);
    }

    #[test]
    fn a_tag_restricts_the_choice() {
        let mut balancer = Balancer::new(&[1, 1, 1], 0, 0);
        balancer.set_tags([None, Some(7), Some(7)].into_iter());
        let tagged = |balancer: &mut Balancer| {
            let mut attempts = Attempts::with_tag(7);
            let found = balancer.select(&mut attempts, 0);
            (found, attempts)
        };
        assert_eq!(tagged(&mut balancer).0, Some(1));
        assert_eq!(tagged(&mut balancer).0, Some(2));
        let (first, mut attempts) = tagged(&mut balancer);
        assert_eq!(first, Some(1));
        balancer.failed(1, &mut attempts, 0);
        assert_eq!(balancer.select(&mut attempts, 0), Some(2));
        balancer.failed(2, &mut attempts, 0);
        // Nobody else will do, however idle, and what is down for others stays so.
        assert_eq!(balancer.select(&mut attempts, 0), None);
        assert_eq!(balancer.select(&mut Attempts::with_tag(8), 0), None);
        assert_eq!(select(&mut balancer, 0), 0);
    }

    #[test]
    fn a_change_of_state_is_news_once() {
        let mut balancer = Balancer::new(&[1], 1, 0);
        let mut news = Vec::new();
        for _ in 0..3 {
            let mut attempts = Attempts::default();
            let index = balancer.select(&mut attempts, 0).expect("revived");
            news.push(balancer.failed(index, &mut attempts, 0));
        }
        assert_eq!(news, [true, false, false]);
        assert!(balancer.connected(0));
        assert!(!balancer.connected(0));
    }

    proptest! {
        /// A seeded simulation: remotes go up and down, sessions come and go. No session fails
        /// while a remote is up, none tries a remote twice, and the counts stay right.
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
}
