//! Which worker gets a connection, when one is started, and when the broker is full.
//!
//! Pure bookkeeping: no processes, no sockets. The counters follow what was given to workers and
//! what they report as ended. A false report cannot make them negative, and all connections of a
//! worker are subtracted when it goes.

/// Identifies a worker. The broker does not reuse an id while it may still be known somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u32);

/// The configured bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Workers that are kept running.
    pub instances_min: usize,
    /// The most workers.
    pub instances_max: usize,
    /// Connections of a worker before another worker is preferred.
    pub users_min: usize,
    /// The most connections of a worker that does not say how many it can handle.
    pub users_max: usize,
}

/// What to do with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Give it to this worker.
    Worker(WorkerId),
    /// Start a worker and ask again.
    Start,
    /// A worker is starting: ask again when it is ready.
    Wait,
    /// No worker can take it now.
    Nobody,
}

#[derive(Clone, Copy, Debug)]
struct Worker {
    id: WorkerId,
    users: usize,
    /// The most connections it can handle, once it has said so.
    most: Option<usize>,
    /// Its channel is full.
    blocked: bool,
    /// It does not read its channel.
    stalled: bool,
    /// It has not reported yet that it is ready: if it failed to start, a connection would be lost.
    starting: bool,
}

impl Worker {
    fn is_open(&self, below: usize) -> bool {
        !self.blocked && !self.stalled && self.users < below
    }
}

/// The workers that take connections, in the order of their start; when one is removed, the last
/// takes its place.
#[derive(Clone, Debug)]
pub struct Policy {
    limits: Limits,
    /// The maximum assumed for a worker that has not announced its own.
    expected: usize,
    workers: Vec<Worker>,
    total: usize,
    /// How many more connections may be taken. Asked for in every turn, so it is kept.
    room: usize,
}

impl Policy {
    /// Without workers.
    pub fn new(limits: Limits) -> Policy {
        let expected = limits.users_max;
        let mut policy = Policy { limits, expected, workers: Vec::new(), total: 0, room: 0 };
        policy.measure();
        policy
    }

    /// With these workers, all of them ready, and how many connections each has.
    pub fn with(limits: Limits, workers: impl IntoIterator<Item = (WorkerId, usize)>) -> Policy {
        let mut policy = Policy::new(limits);
        for (id, users) in workers {
            policy.add_ready(id);
            policy.total += users;
            if let Some(worker) = policy.workers.last_mut() {
                worker.users = users;
            }
        }
        policy.measure();
        policy
    }

    /// The configured bounds.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// How many workers take connections.
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// True if no worker takes connections.
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// Connections of all workers.
    #[inline]
    pub fn total(&self) -> usize {
        self.total
    }

    /// The most connections of all workers together, workers included that may yet be started.
    pub fn limit(&self) -> usize {
        self.total.saturating_add(self.room)
    }

    /// How many more connections may be taken, by workers that may yet be started as well.
    #[inline]
    pub fn room(&self) -> usize {
        self.room
    }

    /// True if no more connections may be taken.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.room == 0
    }

    /// Workers, or what they can handle, have changed.
    fn measure(&mut self) {
        let left = |worker: &Worker| self.most(worker).saturating_sub(worker.users);
        let missing = self.limits.instances_max.saturating_sub(self.workers.len());
        let more = self.expected.saturating_mul(missing);
        self.room = self.workers.iter().map(left).fold(more, usize::saturating_add);
    }

    /// The most connections of this worker.
    fn most(&self, worker: &Worker) -> usize {
        worker.most.unwrap_or(self.expected)
    }

    /// A worker has been started, which says when it is ready.
    pub fn add_starting(&mut self, id: WorkerId) {
        self.insert(id, true);
    }

    /// A worker has been started that may be given connections at once.
    pub fn add_ready(&mut self, id: WorkerId) {
        self.insert(id, false);
    }

    fn insert(&mut self, id: WorkerId, starting: bool) {
        self.workers.push(Worker {
            id,
            users: 0,
            most: None,
            blocked: false,
            stalled: false,
            starting,
        });
        self.measure();
    }

    /// A worker is ready.
    pub fn set_ready(&mut self, id: WorkerId) {
        if let Some(index) = self.index(id) {
            self.workers[index].starting = false;
        }
    }

    /// A worker is gone, or takes no more connections. Returns how many it had.
    pub fn remove(&mut self, id: WorkerId) -> Option<usize> {
        let index = self.index(id)?;
        let users = self.workers.swap_remove(index).users;
        self.total -= users;
        self.measure();
        Some(users)
    }

    /// A worker has announced the most connections it can handle. Workers that have not announced a
    /// number, or are not started yet, are expected to handle as many as the best of the others.
    /// Returns the expected number if it is lower than before.
    pub fn cap(&mut self, id: WorkerId, max: usize) -> Option<usize> {
        let index = self.index(id)?;
        self.workers[index].most = Some(max.clamp(1, self.limits.users_max));
        let best = self.workers.iter().filter_map(|worker| worker.most).max();
        let before = self.expected;
        self.expected = best.unwrap_or(before);
        self.measure();
        (self.expected < before).then_some(self.expected)
    }

    /// Replaces the most connections of each worker, whatever was configured or announced. True if
    /// that is a change.
    pub fn set_users_max(&mut self, max: usize) -> bool {
        let max = max.max(1);
        self.expected = max;
        for worker in &mut self.workers {
            worker.most = None;
        }
        self.measure();
        std::mem::replace(&mut self.limits.users_max, max) != max
    }

    /// A worker's channel is full, or takes messages again.
    pub fn set_blocked(&mut self, id: WorkerId, blocked: bool) {
        if let Some(index) = self.index(id) {
            self.workers[index].blocked = blocked;
        }
    }

    /// A worker does not read its channel, or reads it again.
    pub fn set_stalled(&mut self, id: WorkerId, stalled: bool) {
        if let Some(index) = self.index(id) {
            self.workers[index].stalled = stalled;
        }
    }

    /// Connections of this worker; `None` if it takes no more.
    pub fn users(&self, id: WorkerId) -> Option<usize> {
        Some(self.workers[self.index(id)?].users)
    }

    /// A connection was handed to this worker.
    pub fn given(&mut self, id: WorkerId) {
        if let Some(index) = self.index(id) {
            let worker = &mut self.workers[index];
            // A worker that is chosen has room; one that was given more than it can handle has not.
            if worker.users < worker.most.unwrap_or(self.expected) {
                self.room = self.room.saturating_sub(1);
            }
            worker.users += 1;
            self.total += 1;
        }
    }

    /// A worker reports that connections have ended; more than it was given are not believed.
    pub fn done(&mut self, id: WorkerId, count: usize) {
        if let Some(index) = self.index(id) {
            let worker = &mut self.workers[index];
            let most = worker.most.unwrap_or(self.expected);
            let before = most.saturating_sub(worker.users);
            let ended = count.min(worker.users);
            worker.users -= ended;
            self.total -= ended;
            self.room = self.room.saturating_add(most.saturating_sub(worker.users) - before);
        }
    }

    /// How many workers are needed to reach `instances min`.
    pub fn missing(&self) -> usize {
        self.limits.instances_min.saturating_sub(self.workers.len())
    }

    /// Chooses, in this order:
    /// 1. the worker that this client had before, below its maximum;
    /// 2. the least used of the first `instances min` workers, below `users min`;
    /// 3. the least used of the others, below `users min`;
    /// 4. a worker that is starting, or a new one if another may be started;
    /// 5. the least used of all, below its maximum.
    pub fn choose(&self, sticky: Option<WorkerId>) -> Choice {
        if self.missing() > 0 {
            return Choice::Start;
        }
        let max = |worker: &Worker| self.most(worker);
        let min = |worker: &Worker| self.most(worker).min(self.limits.users_min);
        if let Some(worker) = sticky.and_then(|id| self.workers.iter().find(|w| w.id == id)) {
            if worker.is_open(max(worker)) && !worker.starting {
                return Choice::Worker(worker.id);
            }
        }
        // If it is the turn of a worker that is still starting, wait for it. Otherwise the
        // distribution would depend on which worker is up first.
        let least = |workers: &[Worker], below: &dyn Fn(&Worker) -> usize| {
            let open = workers.iter().filter(|worker| worker.is_open(below(worker)));
            let worker = open.min_by_key(|worker| worker.users)?;
            Some(if worker.starting { Choice::Wait } else { Choice::Worker(worker.id) })
        };
        let split = self.limits.instances_min.min(self.workers.len());
        let (first, others) = self.workers.split_at(split);
        if let Some(choice) = least(first, &min).or_else(|| least(others, &min)) {
            return choice;
        }
        if self.workers.iter().any(|worker| worker.starting) {
            return Choice::Wait;
        }
        if self.workers.len() < self.limits.instances_max {
            return Choice::Start;
        }
        least(&self.workers, &max).unwrap_or(Choice::Nobody)
    }

    /// The least used worker that can take a connection at all, for when no other can be started.
    pub fn fallback(&self) -> Choice {
        self.workers
            .iter()
            .filter(|worker| worker.is_open(self.most(worker)) && !worker.starting)
            .min_by_key(|worker| worker.users)
            .map_or(Choice::Nobody, |worker| Choice::Worker(worker.id))
    }

    /// Idle workers beyond the minimum, if the load is low enough without them.
    pub fn superfluous(&self) -> Vec<WorkerId> {
        let low = self.total < self.limits.users_min.saturating_mul(self.workers.len() + 1);
        if !low && self.total > 0 {
            return Vec::new();
        }
        self.workers
            .iter()
            .skip(self.limits.instances_min)
            .filter(|worker| worker.users == 0 && !worker.starting)
            .map(|worker| worker.id)
            .collect()
    }

    fn index(&self, id: WorkerId) -> Option<usize> {
        self.workers.iter().position(|worker| worker.id == id)
    }
}

#[cfg(test)]
mod tests {
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
}
