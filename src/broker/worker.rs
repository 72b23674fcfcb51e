//! Worker processes: starting, listening to, and replacing them.

use super::handover::Leaving;
use super::kind;
use super::life::Broker;
use super::policy::WorkerId;
use super::watch::Flow;
use crate::channel::broker_side::{Act, BrokerSide, Stage};
use crate::channel::protocol::{secrets_length, secrets_message, FromBroker, FromWorker, RECEIVE};
use crate::channel::Peer;
use crate::event::{Event, Interest, Loop, TimerId, Token};
use crate::os::channel::{self, Unread};
use crate::os::process::{self, exit, Descriptors, Ended, Pid};
use crate::os::secret::{wipe, Secret};
use crate::os::{self, log};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// A worker that has lived this long was no failed start, in milliseconds.
const SETTLED: u64 = 10_000;
/// The first pause before a failed start is repeated, and the longest, in milliseconds.
const FIRST_PAUSE: u64 = 100;
const LONGEST_PAUSE: u64 = 60_000;
const LONGEST_PAUSE_IF_READY: u64 = 1000;
/// Failed starts in a row, before any worker was ever ready, that end the broker.
const GIVE_UP: u32 = 4;
/// Messages read from one worker per turn.
const BATCH: usize = 64;

/// One worker process.
pub(super) struct Worker {
    pub(super) pid: Pid,
    pub(super) channel: OwnedFd,
    /// A copy of the worker's end, by which the broker takes back what is not read.
    pub(super) inbox: Option<OwnedFd>,
    pub(super) flow: Flow,
    pub(super) started: u64,
    pub(super) side: BrokerSide,
    /// It was given a connection.
    served: bool,
    /// Something strange that it said was logged.
    remarked: bool,
    /// MAY_DIE could not be sent yet.
    farewell_due: bool,
    /// What is being sent in answer to HELLO, and how far that has come.
    secrets: Option<(Secret, usize)>,
    /// Connections of a leaving worker.
    pub(super) users: usize,
}

/// The brake on starting workers that die at once.
#[derive(Default)]
pub(super) struct Restart {
    /// Workers that died young.
    failures: u32,
    /// Those of them that were never ready, since one last was.
    failed_starts: u32,
    ever_ready: bool,
    last: u64,
    pause: Option<TimerId>,
}

impl Restart {
    /// `settled`: workers have been running, so that a failed start is no reason to end.
    pub(super) fn new(settled: bool) -> Restart {
        Restart { ever_ready: settled, ..Restart::default() }
    }

    pub(super) fn expired(&mut self) {
        self.pause = None;
    }

    /// Starting is not to be tried at the moment.
    fn paused(&self) -> bool {
        self.pause.is_some()
    }

    /// A worker has come up: starting is possible.
    fn ready(&mut self) {
        self.failed_starts = 0;
        self.ever_ready = true;
    }

    /// Counts a failed start and arms the pause before the next one. Workers that die together
    /// are one failure.
    fn failed(&mut self, ready: bool, events: &mut Loop) {
        if self.pause.is_some() {
            return;
        }
        let pause = self.next_pause(ready, events.now());
        if pause > FIRST_PAUSE {
            log::braked(log::Kind::Worker, || {
                format!("workers do not stay up, next start in {pause} ms")
            });
        }
        self.pause = Some(events.arm(Token::new(kind::RESTART, 0), events.now() + pause));
    }

    /// How long to wait after a failed start, in milliseconds: a worker that was `ready` is missed
    /// more than one that never was.
    fn next_pause(&mut self, ready: bool, now: u64) -> u64 {
        if now.saturating_sub(self.last) > LONGEST_PAUSE + SETTLED {
            (self.failures, self.failed_starts) = (0, 0);
        }
        self.last = now;
        self.failures += 1;
        self.failed_starts += u32::from(!ready);
        // One that was killed while it started says nothing about the next.
        let (failures, longest) = if ready {
            (self.failures, LONGEST_PAUSE_IF_READY)
        } else {
            (self.failed_starts, LONGEST_PAUSE)
        };
        (FIRST_PAUSE << (failures - 1).min(16)).min(longest)
    }
}

impl Broker {
    fn worker_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.workers.get_mut(&id)
    }

    /// Starts workers up to the minimum.
    pub(super) fn start_missing_workers(&mut self, events: &mut Loop) {
        if self.local.is_some() {
            return;
        }
        while self.policy.missing() > 0 && self.start_worker(events) {}
    }

    /// Starts one worker; false if that is not to be done now, or fails.
    pub(super) fn start_worker(&mut self, events: &mut Loop) -> bool {
        if self.restart.paused() || !self.is_serving() {
            return false;
        }
        match self.try_start_worker(events) {
            Ok(()) => {
                self.schedule_trim(events);
                self.schedule_watch(events);
                true
            }
            Err((call, error)) => {
                log::braked(log::Kind::Worker, || format!("{call}: {}", os::reason(&error)));
                self.restart.failed(false, events);
                false
            }
        }
    }

    fn try_start_worker(&mut self, events: &mut Loop) -> Result<(), (&'static str, io::Error)> {
        let (ours, theirs) = channel::pair().map_err(|error| ("socketpair", error))?;
        if self.channel_buffer > 0 {
            for end in [&ours, &theirs] {
                if let Err(error) = channel::set_buffer_sizes(end, self.channel_buffer) {
                    log::braked(log::Kind::Worker, || {
                        format!("tcp bufsize: {}", os::reason(&error))
                    });
                }
            }
        }
        let inbox = theirs.try_clone().map_err(|error| ("dup", error))?;
        let kept = self.snapshot.as_ref().map(AsRawFd::as_raw_fd);
        let descriptors = Descriptors { stdin: theirs, stderr: None, kept };
        let pid = process::spawn(&self.options.worker, descriptors, log::message)
            .map_err(|error| ("fork", error))?;
        let ours_too = self.options.workers_report;
        let peer = if ours_too { Peer::Ours } else { Peer::Foreign };
        let id = self.add_worker(pid, ours, Some(inbox), BrokerSide::new(peer), events);
        // Another program may not say that it is ready.
        self.policy.add(id, !self.options.workers_report);
        Ok(())
    }

    /// Ids go round at the end of what a token can hold, and skip those still in use.
    fn next_id(&mut self) -> WorkerId {
        loop {
            let id = WorkerId(self.next_worker);
            self.next_worker = (self.next_worker + 1) % Token::INDICES;
            if !self.workers.contains_key(&id) {
                return id;
            }
        }
    }

    fn add_worker(
        &mut self,
        pid: Pid,
        channel: OwnedFd,
        inbox: Option<OwnedFd>,
        side: BrokerSide,
        events: &mut Loop,
    ) -> WorkerId {
        channel::refuse_descriptors(&channel);
        let id = self.next_id();
        events.register(&channel, Token::new(kind::WORKER, id.0), Interest::READ);
        let unread =
            inbox.as_ref().map_or(Unread::Nothing, |inbox| channel::unread(&channel, inbox));
        let worker = Worker {
            pid,
            channel,
            inbox,
            flow: Flow::with(unread, events.now()),
            started: events.now(),
            side,
            served: false,
            remarked: false,
            farewell_due: false,
            secrets: None,
            users: 0,
        };
        self.workers.insert(id, worker);
        id
    }

    /// Takes care of the workers of a former image, which have been asked to leave.
    pub(super) fn adopt_workers(&mut self, former: Vec<Leaving>, events: &mut Loop) {
        for Leaving { pid, channel, inbox, users, heard } in former {
            let id = self.add_worker(pid, channel, inbox, BrokerSide::adopted(heard), events);
            if let Some(worker) = self.worker_mut(id) {
                worker.users = users;
                // It may not have reached the worker yet; twice is as good as once.
                worker.farewell(events);
            }
        }
        self.schedule_watch(events);
    }

    /// Something happened on a worker's channel.
    pub(super) fn worker_event(&mut self, id: WorkerId, event: Event, events: &mut Loop) {
        if event.writable {
            self.channel_writable(id, events);
        }
        if event.readable || event.hangup {
            self.read_channel(id, BATCH, events);
            self.check_overload(events);
            self.unpark(events);
        }
    }

    /// Reads messages; all there are with a large `limit`.
    fn read_channel(&mut self, id: WorkerId, limit: usize, events: &mut Loop) {
        for _ in 0..limit {
            let given = self.policy.users(id);
            let Some(worker) = self.worker_mut(id) else {
                return;
            };
            let mut data = [0; RECEIVE];
            let length = match channel::receive_data(worker.channel.as_fd(), &mut data) {
                Ok(length) => length,
                Err(error) if os::would_block(&error) => return,
                Err(error) => {
                    events.set_interest(&worker.channel, Interest::empty());
                    self.worker_lost(id, &error);
                    return;
                }
            };
            worker.flow.heard(events.now());
            let message = FromWorker::decode(&data[..length.min(data.len())]);
            let has = given.unwrap_or(worker.users);
            let act = worker.side.hear(message, has, events.now());
            self.act(id, act, events);
            let expelled = |worker: &Worker| worker.side.stage() == Stage::Expelled;
            if self.workers.get(&id).is_some_and(expelled) {
                return;
            }
        }
    }

    /// Does what a message of a worker is about.
    fn act(&mut self, id: WorkerId, act: Act, events: &mut Loop) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        match act {
            Act::Nothing => {}
            Act::Ended(count) if worker.side.is_leaving() => {
                worker.users = worker.users.saturating_sub(count);
            }
            Act::Ended(count) => {
                self.policy.done(id, count);
                self.schedule_trim(events);
            }
            Act::Limit(most) => {
                self.restart.ready();
                self.watch.started();
                self.policy.set_ready(id);
                if let Some(most) = self.policy.cap(id, most) {
                    log::braked(log::Kind::Channel, || {
                        format!("child limits maximum number of users to {most}")
                    });
                }
                self.announce(events);
            }
            Act::Leaves => {
                if !worker.served && events.now() - worker.started < SETTLED {
                    self.restart.failed(true, events);
                }
                self.let_go(id, events);
                self.start_missing_workers(events);
            }
            Act::CannotStart => self.bad_configuration(events),
            Act::Answer => {
                self.admit_to_zone(id);
                self.tell_secrets(id, events);
            }
            Act::Remark(text) => {
                if !std::mem::replace(&mut worker.remarked, true) {
                    log::braked(log::Kind::Channel, || text);
                }
            }
            Act::Offence(offence) => self.expel(id, &format!("has sent {offence}"), events),
        }
    }

    /// Kills a worker that cannot be trusted, or that hangs; it is replaced, with a pause.
    pub(super) fn expel(&mut self, id: WorkerId, why: &str, events: &mut Loop) {
        let Some(worker) = self.worker_mut(id) else {
            return;
        };
        let pid = worker.pid;
        let served = !worker.side.is_starting();
        let missed = !worker.side.is_leaving();
        worker.side.expelled();
        worker.secrets = None;
        worker.farewell_due = false;
        events.set_interest(&worker.channel, Interest::empty());
        let inbox = worker.inbox.take();
        log::braked(log::Kind::Worker, || format!("child (pid {pid}) {why}: it is killed"));
        process::kill(pid);
        self.policy.remove(id);
        self.forget_stickiness(id);
        self.inherit(inbox);
        if missed && self.is_serving() {
            self.start_failed(served, events);
            self.start_missing_workers(events);
        }
        self.check_overload(events);
    }

    /// There is a service, or has been, which a worker that cannot start does not end. Workers of other
    /// programs may never say that they are ready.
    fn has_served(&self, now: u64) -> bool {
        let foreign = !self.options.workers_report;
        let serves = |worker: &Worker| {
            let settled = now.saturating_sub(worker.started) >= SETTLED;
            worker.side.stage() == Stage::Ready || foreign && settled
        };
        self.restart.ever_ready || self.workers.values().any(serves)
    }

    /// A worker cannot use its configuration. That ends the broker, unless workers have been
    /// running: then the file was changed under a service that goes on, and the start is tried
    /// again with pauses.
    fn bad_configuration(&mut self, events: &mut Loop) {
        if !self.is_serving() {
            return;
        }
        if self.has_served(events.now()) {
            log::braked(log::Kind::Worker, || {
                "Child reported fatal configuration problem. It will be tried again.".to_owned()
            });
            return;
        }
        log::message("Child reported fatal configuration problem. Exiting.");
        self.dismiss_all(events);
        self.remove_pid_file();
        self.end(exit::CONFIGURATION);
    }

    /// Lets a worker take part in the zone, if that is possible; otherwise it does without.
    fn admit_to_zone(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else {
            return;
        };
        if let Some((fd, slot)) = self.leases.admit(worker.pid) {
            // A channel that is full already has no room for the keys either; they are sent later.
            let _ = channel::send(worker.channel.as_fd(), &FromBroker::zone(slot), Some(fd));
        }
    }

    /// Sends the worker what it has asked for, as far as the channel takes it.
    fn tell_secrets(&mut self, id: WorkerId, events: &mut Loop) {
        self.secrets.tickets.advance(os::wall_clock());
        let encoded = self.secrets.tickets.encode_with(&self.secrets.material);
        match (encoded, self.worker_mut(id)) {
            (Ok(data), Some(worker)) => {
                worker.secrets = Some((data, 0));
                worker.send_secrets(events);
            }
            (Err(error), _) => {
                log::braked(log::Kind::Channel, || format!("mmap: {}", os::reason(&error)))
            }
            (Ok(_), None) => {}
        }
    }

    /// The channel takes nothing: the worker gets no connections until it does.
    pub(super) fn set_blocked(&mut self, id: WorkerId, why: &io::Error, events: &mut Loop) {
        self.policy.set_blocked(id, true);
        if let Some(worker) = self.worker_mut(id) {
            events.set_interest(&worker.channel, Interest::READ | Interest::in_room(why));
        }
    }

    fn channel_writable(&mut self, id: WorkerId, events: &mut Loop) {
        self.policy.set_blocked(id, false);
        if let Some(worker) = self.worker_mut(id) {
            events.set_interest(&worker.channel, Interest::READ);
            worker.send_secrets(events);
            if worker.farewell_due {
                worker.farewell(events);
            }
        }
        self.unpark(events);
    }

    /// Asks a worker to leave when idle. It gets nothing after this message, so it can take
    /// what is queued before it and then go.
    pub(super) fn dismiss(&mut self, id: WorkerId, events: &mut Loop) {
        if self.workers.get(&id).is_some_and(|worker| !worker.side.is_leaving()) {
            self.let_go(id, events);
        }
    }

    /// As [`Broker::dismiss`], of one that may have said that it leaves.
    fn let_go(&mut self, id: WorkerId, events: &mut Loop) {
        let users = self.policy.remove(id);
        self.forget_stickiness(id);
        if let Some(worker) = self.worker_mut(id) {
            worker.side.dismissed();
            worker.users = users.unwrap_or(worker.users);
            worker.farewell(events);
        }
        self.check_overload(events);
    }

    pub(super) fn dismiss_all(&mut self, events: &mut Loop) {
        let ids: Vec<WorkerId> = self.workers.keys().copied().collect();
        for id in ids {
            self.dismiss(id, events);
        }
    }

    /// Workers beyond the minimum that have nothing to do.
    pub(super) fn dismiss_superfluous(&mut self, events: &mut Loop) {
        for id in self.policy.superfluous() {
            self.dismiss(id, events);
        }
        self.schedule_trim(events);
    }

    fn forget_stickiness(&mut self, id: WorkerId) {
        self.sticky.forget(id);
    }

    /// A worker takes nothing any more. It may still have sessions, and say that they end.
    pub(super) fn worker_lost(&mut self, id: WorkerId, error: &io::Error) {
        let Some(worker) = self.worker_mut(id) else {
            return;
        };
        if worker.side.is_leaving() {
            return;
        }
        let pid = worker.pid;
        log::braked(log::Kind::Worker, || {
            format!("scm_send_msg, pid: {pid}: {}", os::reason(error))
        });
        worker.side.dismissed();
        let inbox = worker.inbox.take();
        let users = self.policy.remove(id);
        if let Some(worker) = self.worker_mut(id) {
            worker.users = users.unwrap_or(0);
        }
        self.forget_stickiness(id);
        self.inherit(inbox);
    }

    fn forget(&mut self, id: WorkerId, events: &mut Loop) -> Option<Worker> {
        self.policy.remove(id);
        self.forget_stickiness(id);
        let worker = self.workers.remove(&id)?;
        events.remove(&worker.channel);
        Some(worker)
    }

    /// Children have ended.
    pub(super) fn reap(&mut self, events: &mut Loop) {
        while let Some((pid, ended)) = process::reap() {
            self.leases.ended(pid);
            if self.check_ended(pid, ended, events) {
                continue;
            }
            self.keepers.remove(&pid);
            let how = match ended {
                // Whatever the status, as the C program says it.
                Ended::Status(_) => "terminated normally".to_owned(),
                Ended::Signal(signal) => format!("terminated abnormally (signal {signal})"),
            };
            log::braked(log::Kind::Worker, || format!("child (pid {pid}) {how}"));
            if let Ended::Status(status @ 1..) = ended {
                log::braked(log::Kind::Worker, || {
                    format!("child (pid {pid}) exit status {status}")
                });
            }
            let id = self.workers.iter().find(|(_, worker)| worker.pid == pid).map(|(&id, _)| id);
            if let Some(id) = id {
                self.worker_ended(id, ended, events);
            }
        }
        self.start_missing_workers(events);
        self.check_overload(events);
        self.unpark(events);
    }

    fn worker_ended(&mut self, id: WorkerId, ended: Ended, events: &mut Loop) {
        // What it said last may say why.
        self.read_channel(id, usize::MAX, events);
        let Some(mut worker) = self.forget(id, events) else {
            return;
        };
        self.inherit(worker.inbox.take());
        if worker.side.is_leaving() || !self.is_serving() {
            return;
        }
        let ready = worker.side.stage() == Stage::Ready;
        if events.now() - worker.started >= SETTLED {
            self.restart.failures = 0;
            self.restart.ready();
            return;
        }
        if ended == Ended::Status(0) && ready && worker.served {
            return;
        }
        self.start_failed(ready, events);
    }

    /// A worker has not lived for long; `ready` if it served.
    fn start_failed(&mut self, ready: bool, events: &mut Loop) {
        let first = !ready && !self.has_served(events.now());
        if first && self.restart.failed_starts + 1 >= GIVE_UP {
            log::message("Giving up. Spawned server processes are probably broken.");
            self.dismiss_all(events);
            self.remove_pid_file();
            self.end(exit::TEMPORARY);
            return;
        }
        self.restart.failed(ready, events);
    }

    /// When the worker was started that has been starting for longest.
    pub(super) fn oldest_start(&self) -> Option<u64> {
        let starts = |worker: &&Worker| worker.side.is_starting();
        let starting = self.workers.values().filter(starts);
        starting.map(|worker| worker.started).min()
    }

    /// A worker was given a connection.
    pub(super) fn mark_served(&mut self, id: WorkerId) {
        if let Some(worker) = self.worker_mut(id) {
            worker.served = true;
        }
    }
}

impl Worker {
    /// Goes on with an answer to HELLO.
    fn send_secrets(&mut self, events: &mut Loop) {
        while let Some((data, sent)) = &mut self.secrets {
            let mut message = secrets_message(data, *sent);
            let length = secrets_length(&message);
            let result = channel::send(self.channel.as_fd(), &message, None);
            wipe(&mut message);
            match result {
                Ok(()) => *sent += length,
                Err(error) if channel::is_full(&error) => {
                    let room = Interest::in_room(&error);
                    events.set_interest(&self.channel, Interest::READ | room);
                    return;
                }
                // Gone already: SIGCHLD is on its way.
                Err(_) => *sent = data.len(),
            }
            if *sent == data.len() {
                self.secrets = None;
            }
        }
    }

    /// Sends MAY_DIE, now or when the channel takes it.
    fn farewell(&mut self, events: &mut Loop) {
        match channel::send(self.channel.as_fd(), &FromBroker::may_die(), None) {
            Err(error) if channel::is_full(&error) => {
                self.farewell_due = true;
                events.set_interest(&self.channel, Interest::READ | Interest::in_room(&error));
            }
            // Gone already: SIGCHLD is on its way.
            _ => self.farewell_due = false,
        }
    }

    /// Puts something into the channel that was emptied, and must be read.
    pub(super) fn probe(&mut self, events: &mut Loop) {
        if self.side.is_leaving() {
            // It was taken out with the rest.
            self.farewell(events);
        } else {
            let _ = channel::send(self.channel.as_fd(), &FromBroker::probe(), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_starts_that_fail_one_after_the_other_make_the_pause_long() {
        let mut restart = Restart::default();
        let killed = [true; 6].map(|ready| restart.next_pause(ready, 0));
        assert_eq!(killed, [100, 200, 400, 800, 1000, 1000]);
        let killed_at_start = [false; 3].map(|ready| restart.next_pause(ready, 0));
        assert_eq!(killed_at_start, [100, 200, 400]);
        restart.ready();
        assert_eq!(restart.next_pause(false, 0), 100);
        let broken = [false; 20].map(|ready| restart.next_pause(ready, 0));
        assert_eq!(broken.last(), Some(&60_000));
    }
}
