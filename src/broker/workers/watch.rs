//! Watches for workers that do not read their channels: their unread connections go to others, and
//! they are replaced.

use super::flow::Pace;
use super::inbox::{find, Found};
use super::worker::Worker;
use super::Workers;
use crate::broker::connection::Connection;
use crate::broker::kind;
use crate::broker::policy::{Choice, WorkerId};
use crate::channel::broker_side::Stage;
use crate::channel::Peer;
use crate::config::broker::Spawn;
use crate::event::{Loop, TimerId, Token};
use crate::os::log;
use std::io;

/// How often to look at channels with something unread, in milliseconds.
const LOOK: u64 = 250;
/// How long a starting worker may take for its first read while no other worker serves, in
/// milliseconds: another one would not be faster.
const OVERDUE_AT_START: u64 = 5000;
/// How many times the patience with starts may double. Each start that takes too long doubles it,
/// as the machine may be slow.
const MOST_PATIENCE: u32 = 3;

/// How long workers may be silent, in milliseconds; 0 means for ever.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// `start timeout`.
    start: u64,
    /// `stall timeout`.
    stall: u64,
}

impl Patience {
    /// As configured.
    pub(super) fn of(spawn: &Spawn) -> Patience {
        Patience {
            start: u64::from(spawn.start_timeout) * 1000,
            stall: u64::from(spawn.stall_timeout) * 1000,
        }
    }
}

/// The state of the watch.
pub(super) struct Watch {
    patience: Patience,
    /// How many starts in a row took too long.
    slow_starts: u32,
    timer: Option<(TimerId, u64)>,
}

impl Watch {
    pub(super) fn new(patience: Patience) -> Watch {
        Watch { patience, slow_starts: 0, timer: None }
    }

    /// A worker is ready.
    pub(super) fn started(&mut self) {
        self.slow_starts = 0;
    }

    /// How long a start may take now; `None` means for ever.
    fn start_patience(&self) -> Option<u64> {
        let patience = self.patience.start << self.slow_starts.min(MOST_PATIENCE);
        (patience > 0).then_some(patience)
    }
}

impl Workers {
    /// A worker was sent something, which it should read before long.
    pub(super) fn watch_soon(&mut self, events: &mut Loop) {
        self.watch_until(events.now() + LOOK, events);
    }

    /// Arms the timer for the next time at which a look is worthwhile.
    pub(in crate::broker) fn schedule_watch(&mut self, events: &mut Loop) {
        let patience = self.watch.start_patience();
        let deadline = |worker: &Worker| {
            let starts = worker.side.is_starting() && worker.side.peer() == Peer::Ours;
            let start = patience.filter(|_| starts).map(|patience| worker.started + patience);
            let waits = worker.flow.is_waited_for() && worker.inbox().is_some();
            let look = waits.then(|| events.now() + LOOK);
            start.into_iter().chain(look).min()
        };
        if let Some(deadline) = self.all.values().filter_map(deadline).min() {
            self.watch_until(deadline, events);
        }
    }

    fn watch_until(&mut self, deadline: u64, events: &mut Loop) {
        match &mut self.watch.timer {
            Some((_, armed)) if *armed <= deadline => {}
            Some((timer, armed)) => {
                events.renew(*timer, deadline);
                *armed = deadline;
            }
            None => {
                let timer = events.arm(Token::new(kind::WATCH, 0), deadline);
                self.watch.timer = Some((timer, deadline));
            }
        }
    }

    /// The timer has expired: looks at all channels. Returns the workers that do not read theirs.
    /// All are looked at before anything is taken back, so that connections do not go to another
    /// stalled worker.
    pub(in crate::broker) fn look_at_all(&mut self, events: &mut Loop) -> Vec<WorkerId> {
        self.watch.timer = None;
        self.end_hung_starts(events);
        let mut ids: Vec<WorkerId> = self.all.keys().copied().collect();
        ids.retain(|&id| match self.look(id, events.now()) {
            Pace::Overdue => true,
            Pace::Emptied => {
                self.refill(id, events);
                false
            }
            Pace::Idle | Pace::Fair => false,
        });
        ids
    }

    /// Kills workers that are not ready in time.
    fn end_hung_starts(&mut self, events: &mut Loop) {
        let Some(patience) = self.watch.start_patience() else {
            return;
        };
        let now = events.now();
        let hangs = |worker: &Worker| {
            let since = match worker.side.peer() {
                Peer::Ours => Some(worker.started),
                // Other programs' workers need not say that they are ready, but have to read.
                Peer::Foreign => worker.flow.stalled_since(),
            };
            worker.side.is_starting()
                && since.is_some_and(|since| now.saturating_sub(since) >= patience)
        };
        let hung: Vec<WorkerId> =
            self.all.iter().filter(|(_, worker)| hangs(worker)).map(|(&id, _)| id).collect();
        if hung.is_empty() {
            return;
        }
        self.watch.slow_starts += 1;
        for id in hung {
            let why = format!("has not started within {} s", patience / 1000);
            self.expel(id, &why, events);
        }
    }

    fn look(&mut self, id: WorkerId, now: u64) -> Pace {
        let serves = |worker: &Worker| {
            worker.side.stage() == Stage::Ready && worker.flow.stalled_since().is_none()
        };
        let first = !self.all.values().any(serves);
        let Some(worker) = self.all.get_mut(&id) else {
            return Pace::Idle;
        };
        let Some(unread) = worker.unread() else {
            return Pace::Idle;
        };
        // After HELLO a worker of ours is starting, and need not read connections before it is
        // ready.
        if worker.side.stage() == Stage::Told {
            return Pace::Fair;
        }
        let pace = worker.flow.look(unread, now);
        if worker.flow.has_read() && worker.side.peer() == Peer::Foreign {
            worker.side.serves();
        }
        let starts =
            worker.side.is_starting() && now.saturating_sub(worker.started) < OVERDUE_AT_START;
        let pace = if first && starts && pace == Pace::Overdue { Pace::Fair } else { pace };
        match pace {
            Pace::Overdue if worker.flow.stalled_since().is_none() => {
                if worker.flow.stall(now) {
                    let pid = worker.pid;
                    log::braked(log::Kind::Worker, || {
                        format!(
                            "child (pid {pid}) does not read its channel, connections go to others"
                        )
                    });
                }
                self.policy.set_stalled(id, true);
            }
            Pace::Idle | Pace::Fair if worker.flow.stalled_since().is_some() => {
                if worker.flow.revive() {
                    let pid = worker.pid;
                    log::braked(log::Kind::Worker, || {
                        format!("child (pid {pid}) reads its channel again")
                    });
                }
                self.policy.set_stalled(id, false);
            }
            _ => {}
        }
        pace
    }

    /// True if another worker can take what a worker has not read.
    pub(in crate::broker) fn can_take_over(&self) -> bool {
        self.policy.fallback() != Choice::Nobody
    }

    /// Starts another worker for unread connections, if the policy wants a new one.
    pub(in crate::broker) fn start_for_others(&mut self, events: &mut Loop) {
        if self.policy.choose(None) == Choice::Start {
            self.start(events);
        }
    }

    /// Takes back the next connections from the channel of a worker that does not read it.
    pub(in crate::broker) fn take_back(
        &mut self,
        id: WorkerId,
        events: &mut Loop,
    ) -> io::Result<Option<Vec<Connection>>> {
        while let Some(worker) = self.all.get_mut(&id).filter(|worker| !worker.flow.is_emptied()) {
            let Some(inbox) = worker.inbox() else {
                break;
            };
            match find(inbox)? {
                Found::Connections(found, given) => {
                    worker.flow.took_back();
                    let client = found.first().map_or(0, |connection| connection.accept.client);
                    for _ in 0..given {
                        worker.held.give_back(client);
                    }
                    self.subtract(id, given);
                    return Ok(Some(found));
                }
                Found::Other => worker.flow.took(),
                Found::Signer => {
                    worker.flow.took();
                    worker.without_signer = true;
                }
                Found::Log => {
                    worker.flow.took();
                    worker.without_log = true;
                }
                Found::Public => {
                    // What is in the channel ends with the worker; it need not be ours, so it is
                    // not taken.
                    drop(worker.take_inbox());
                    self.expel(id, "has given its channel a name", events);
                    break;
                }
                Found::Nothing => {
                    self.refill(id, events);
                    break;
                }
            }
        }
        Ok(None)
    }

    /// Everything was taken out of a worker's channel: puts back what it needs, and a probe. When it
    /// reads that, it gets connections again.
    fn refill(&mut self, id: WorkerId, events: &mut Loop) {
        let Some(worker) = self.all.get_mut(&id) else {
            return;
        };
        if std::mem::take(&mut worker.without_log) {
            worker.give_log(events);
        }
        if std::mem::take(&mut worker.without_signer) {
            self.give_signer(id, events);
        }
        // Last, as nothing comes after MAY_DIE.
        if let Some(worker) = self.all.get_mut(&id) {
            worker.probe(events);
        }
    }

    /// True if workers that are gone may have left connections unread.
    pub(in crate::broker) fn has_orphans(&self) -> bool {
        self.orphans.are_there()
    }

    /// The next connections left unread by a worker that is gone.
    pub(in crate::broker) fn next_orphans(&mut self) -> io::Result<Option<Vec<Connection>>> {
        self.orphans.next()
    }

    /// All connections left unread by workers that are gone.
    pub(in crate::broker) fn collect_orphans(&mut self) -> Vec<Connection> {
        self.orphans.drain()
    }

    /// Replaces a worker that has read nothing for very long. It keeps its sessions, and exits when
    /// it wakes up and they have ended.
    pub(in crate::broker) fn give_up_on(&mut self, id: WorkerId, events: &mut Loop) {
        let limit = self.watch.patience.stall;
        let Some(worker) = self.all.get(&id) else {
            return;
        };
        let since = worker.flow.stalled_since().unwrap_or(events.now());
        let waited = events.now().saturating_sub(since);
        if limit == 0 || waited < limit || worker.side.is_leaving() {
            return;
        }
        // Workers that were given up on still run: never more of them than `instances max`.
        let given_up =
            |worker: &&Worker| worker.side.is_leaving() && worker.flow.stalled_since().is_some();
        if self.all.values().filter(given_up).count() >= self.policy.limits().instances_max {
            return;
        }
        let (pid, seconds) = (worker.pid, waited / 1000);
        log::braked(log::Kind::Worker, || {
            format!(
                "child (pid {pid}) has not read its channel for {seconds} s and is replaced; \
                 its sessions stay"
            )
        });
        self.dismiss(id, events);
    }
}
