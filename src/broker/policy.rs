//! Which worker gets a connection, when one is started, and when the broker is full.
//!
//! Pure bookkeeping: no processes, no sockets. The counters follow what was given to workers and
//! what they report as ended. A false report cannot make them negative, and all connections of a
//! worker are subtracted when it goes.

#[cfg(test)]
mod tests;

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
