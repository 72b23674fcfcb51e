//! Workers that do not read their channels: what lies there goes to others, and they are replaced.
//!
//! The broker keeps a copy of the worker's end of each channel. A datagram is received by one of
//! the two, so a connection that the broker takes back is its own again, whatever the worker does
//! at that moment, and what a worker has left unread when it ends is not lost with it.

use super::connection::Connection;
use super::kind;
use super::life::{Broker, Life};
use super::policy::{Choice, WorkerId};
use super::worker::Worker;
use crate::channel::broker_side::Stage;
use crate::channel::protocol::{datagram, FromBroker, UDP_HEADER, UDP_LIMIT};
use crate::channel::Peer;
use crate::event::{Loop, TimerId, Token};
use crate::os::channel::{self, Unread};
use crate::os::{self, log, socket};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// How often channels with something unread are looked at, in milliseconds.
const LOOK: u64 = 250;
/// After so long without being read, what is in a channel goes to others.
const OVERDUE: u64 = 1000;
/// One that has just been started may take so long for its first read, while nobody else serves: another
/// one would not be faster.
const OVERDUE_AT_START: u64 = 5000;
/// A worker is not complained of more often than this.
const QUIET: u64 = 60_000;
/// By how much the patience with a start may grow, as a power of two, when starts take too long one
/// after the other: a machine may be slow.
const MOST_PATIENCE: u32 = 3;

/// How long workers may be silent, in milliseconds; 0 is for ever.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// `start timeout`.
    pub(super) start: u64,
    /// `stall timeout`.
    pub(super) stall: u64,
}

/// Watching workers.
pub(super) struct Watch {
    pub(super) patience: Patience,
    /// Starts in a row that took too long.
    slow_starts: u32,
    timer: Option<(TimerId, u64)>,
    /// Channels of workers that are gone, with connections that others are to get, and how many of
    /// them have been taken out.
    orphans: VecDeque<(OwnedFd, usize)>,
}

impl Watch {
    pub(super) fn new(patience: Patience) -> Watch {
        Watch { patience, slow_starts: 0, timer: None, orphans: VecDeque::new() }
    }

    /// A worker has come up.
    pub(super) fn started(&mut self) {
        self.slow_starts = 0;
    }

    /// How long the present starts may take.
    fn start_patience(&self) -> Option<u64> {
        let patience = self.patience.start << self.slow_starts.min(MOST_PATIENCE);
        (patience > 0).then_some(patience)
    }
}

/// How a worker reads its channel.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Messages sent, and how many of them it is known to have read.
    sent: u64,
    read: u64,
    /// Since when something is unread, and nothing has been read.
    unread_since: Option<u64>,
    /// Since when it has been given up on.
    stalled_since: Option<u64>,
    /// All but the probe was taken back.
    emptied: bool,
    /// When that was last logged, and whether it was this time.
    complained: Option<u64>,
    told: bool,
}

/// What a look at a channel has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// There is nothing to wait for.
    Idle,
    /// The worker reads, or has not had the time to.
    Fair,
    /// It has not read anything for too long.
    Overdue,
}

impl Flow {
    /// That of a channel which is new here, with so much unread.
    pub(super) fn with(unread: Unread, now: u64) -> Flow {
        let mut flow = Flow::default();
        match unread {
            Unread::Nothing => return flow,
            Unread::Something => flow.sent = 1,
            Unread::Messages(count) => flow.sent = count as u64,
        }
        flow.unread_since = Some(now);
        flow
    }

    fn look(&mut self, unread: Unread, now: u64) -> Pace {
        let left = match unread {
            Unread::Nothing => {
                self.read = self.sent;
                self.unread_since = None;
                return Pace::Idle;
            }
            Unread::Messages(count) => count as u64,
            // How many is not known: any of them may be the last.
            Unread::Something => self.sent.saturating_sub(self.read),
        };
        let read = self.sent.saturating_sub(left);
        if read > self.read {
            self.read = read;
            self.unread_since = Some(now);
        }
        let since = *self.unread_since.get_or_insert(now);
        if now.saturating_sub(since) >= OVERDUE {
            Pace::Overdue
        } else {
            Pace::Fair
        }
    }

    /// The worker has said something: it is alive.
    pub(super) fn heard(&mut self, now: u64) {
        if self.unread_since.is_some() && !channel::COUNTS_UNREAD {
            self.unread_since = Some(now);
        }
    }
}

/// What the broker has found in a channel.
enum Found {
    /// Connections, and how many the worker was given with them: descriptors may get lost when the
    /// system is out of memory.
    Connections(Vec<Connection>, usize),
    /// A message without any.
    Other,
    /// The worker has opened its end to others: what is there need not be the broker's.
    Foreign,
    Nothing,
}

impl Broker {
    /// A worker was sent a connection.
    pub(super) fn note_sent(&mut self, id: WorkerId, events: &mut Loop) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.flow.sent += 1;
            worker.flow.unread_since.get_or_insert(events.now());
            self.watch_until(events.now() + LOOK, events);
        }
    }

    /// Arms the timer for the time at which there will be something to look at.
    pub(super) fn schedule_watch(&mut self, events: &mut Loop) {
        let patience = self.watch.start_patience();
        let deadline = |worker: &Worker| {
            let starts = worker.side.is_starting() && worker.side.peer() == Peer::Ours;
            let start = patience.filter(|_| starts).map(|patience| worker.started + patience);
            let waits = worker.flow.unread_since.is_some() || worker.flow.stalled_since.is_some();
            let look = (waits && worker.inbox.is_some()).then(|| events.now() + LOOK);
            start.into_iter().chain(look).min()
        };
        if let Some(deadline) = self.workers.values().filter_map(deadline).min() {
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

    /// The timer has expired.
    pub(super) fn watch_workers(&mut self, events: &mut Loop) {
        self.watch.timer = None;
        if matches!(self.life, Life::Ended(_)) {
            return;
        }
        self.end_hung_starts(events);
        // All are looked at before anything is taken from one, so that it does not go to another
        // one that does not read either.
        let mut overdue = Vec::new();
        let ids: Vec<WorkerId> = self.workers.keys().copied().collect();
        for &id in &ids {
            if self.look(id, events.now()) == Pace::Overdue {
                overdue.push(id);
            }
        }
        for id in overdue {
            self.take_back(id, events);
            self.give_up_on(id, events);
        }
        self.start_missing_workers(events);
        self.unpark(events);
        self.schedule_watch(events);
    }

    /// Workers that have not come up in time.
    fn end_hung_starts(&mut self, events: &mut Loop) {
        let Some(patience) = self.watch.start_patience() else {
            return;
        };
        let now = events.now();
        let hangs = |worker: &Worker| {
            let since = match worker.side.peer() {
                Peer::Ours => Some(worker.started),
                // Another program need not say that it is up. One that reads nothing is not.
                Peer::Foreign => worker.flow.stalled_since,
            };
            worker.side.is_starting()
                && since.is_some_and(|since| now.saturating_sub(since) >= patience)
        };
        let hung: Vec<WorkerId> =
            self.workers.iter().filter(|(_, worker)| hangs(worker)).map(|(&id, _)| id).collect();
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
            worker.side.stage() == Stage::Ready && worker.flow.stalled_since.is_none()
        };
        let first = !self.workers.values().any(serves);
        let Some(worker) = self.workers.get_mut(&id) else {
            return Pace::Idle;
        };
        let Some(inbox) = &worker.inbox else {
            return Pace::Idle;
        };
        // Whoever has said HELLO is waiting for the answer, and reads nothing else before it.
        if worker.side.stage() == Stage::Told {
            return Pace::Fair;
        }
        let pace = worker.flow.look(channel::unread(&worker.channel, inbox), now);
        if worker.flow.read > 0 && worker.side.peer() == Peer::Foreign {
            worker.side.serves();
        }
        let starts =
            worker.side.is_starting() && now.saturating_sub(worker.started) < OVERDUE_AT_START;
        let pace = if first && starts && pace == Pace::Overdue { Pace::Fair } else { pace };
        let complains = worker.flow.complained.is_none_or(|last| now - last >= QUIET);
        match pace {
            Pace::Overdue if worker.flow.stalled_since.is_none() => {
                worker.flow.stalled_since = Some(now);
                worker.flow.told = complains;
                if complains {
                    worker.flow.complained = Some(now);
                    let pid = worker.pid;
                    log::braked(log::Kind::Worker, || {
                        format!(
                            "child (pid {pid}) does not read its channel, connections go to others"
                        )
                    });
                }
                self.policy.set_stalled(id, true);
            }
            Pace::Idle | Pace::Fair if worker.flow.stalled_since.is_some() => {
                worker.flow.stalled_since = None;
                worker.flow.emptied = false;
                if worker.flow.told {
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

    /// Takes connections out of the channel of a worker that does not read it, as long as others
    /// can have them.
    fn take_back(&mut self, id: WorkerId, events: &mut Loop) {
        if self.policy.choose(None) == Choice::Start {
            self.start_worker(events);
        }
        while self.parked.is_empty() && self.policy.fallback() != Choice::Nobody {
            let Some(worker) = self.workers.get_mut(&id).filter(|worker| !worker.flow.emptied)
            else {
                return;
            };
            let Some(inbox) = &worker.inbox else {
                return;
            };
            match find(inbox) {
                Ok(Found::Connections(found, given)) => {
                    if self.policy.users(id).is_some() {
                        self.policy.done(id, given);
                    } else {
                        worker.users = worker.users.saturating_sub(given);
                    }
                    self.adopt(found);
                    self.unpark(events);
                }
                Ok(Found::Other) => {}
                Ok(Found::Foreign) => {
                    // Whatever is there ends with the worker, not with us.
                    worker.inbox = None;
                    return self.expel(id, "has given its channel a name", events);
                }
                Ok(Found::Nothing) => {
                    // When it reads this it is with us again.
                    (worker.flow.sent, worker.flow.read, worker.flow.emptied) = (1, 0, true);
                    worker.probe(events);
                    return;
                }
                Err(error) => return self.rest("scm_recv_msg: recvmsg", &error, events),
            }
        }
    }

    /// A worker that has not read anything for very long is replaced. It keeps its sessions, and
    /// leaves when it wakes up and they have ended.
    fn give_up_on(&mut self, id: WorkerId, events: &mut Loop) {
        let limit = self.watch.patience.stall;
        let Some(worker) = self.workers.get(&id) else {
            return;
        };
        let since = worker.flow.stalled_since.unwrap_or(events.now());
        let waited = events.now().saturating_sub(since);
        if limit == 0 || waited < limit || worker.side.is_leaving() {
            return;
        }
        // No more processes of this kind than there may be workers.
        let given_up =
            |worker: &&Worker| worker.side.is_leaving() && worker.flow.stalled_since.is_some();
        if self.workers.values().filter(given_up).count() >= self.policy.limits().instances_max {
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

    /// What the channel of a worker that is gone still holds goes to others.
    pub(super) fn inherit(&mut self, inbox: Option<OwnedFd>) {
        self.watch.orphans.extend(inbox.map(|inbox| (inbox, 0)));
    }

    /// Gives connections of workers that are gone to others.
    pub(super) fn place_orphans(&mut self, events: &mut Loop) {
        while self.is_serving() && self.parked.is_empty() && self.resume.is_none() {
            let Some((inbox, taken)) = self.watch.orphans.front_mut() else {
                return;
            };
            match find(inbox) {
                Ok(Found::Connections(found, _)) => {
                    *taken += found.len();
                    self.adopt(found);
                    self.unpark(events);
                }
                Ok(Found::Other) => {}
                Ok(Found::Nothing | Found::Foreign) => {
                    if *taken > 0 {
                        let taken = *taken;
                        log::braked(log::Kind::Worker, || {
                            format!(
                                "connections that a child had left unread went to others: {taken}"
                            )
                        });
                    }
                    self.watch.orphans.pop_front();
                }
                Err(error) => return self.rest("scm_recv_msg: recvmsg", &error, events),
            }
        }
    }

    /// Everything that is left of workers that are gone, for the next image of the broker.
    pub(super) fn collect_orphans(&mut self) {
        while let Some((inbox, _)) = self.watch.orphans.pop_front() {
            while let Ok(found) = find(&inbox) {
                match found {
                    Found::Connections(found, _) => self.adopt(found),
                    Found::Other => {}
                    Found::Nothing | Found::Foreign => break,
                }
            }
        }
    }

    fn adopt(&mut self, found: Vec<Connection>) {
        for mut parked in found {
            parked.listener = self.listeners.that_tells(&parked.accept);
            self.parked.push_back(parked);
        }
    }
}

/// Takes one message out of a channel.
fn find(inbox: &OwnedFd) -> io::Result<Found> {
    if !channel::is_private(inbox)? {
        return Ok(Found::Foreign);
    }
    // Descriptors for which there is no room are lost, so there has to be.
    let room = (0..channel::DESCRIPTORS)
        .map(|_| inbox.try_clone())
        .collect::<io::Result<Vec<OwnedFd>>>()?;
    drop(room);
    let mut data = [0; UDP_HEADER + UDP_LIMIT];
    let mut sockets = Vec::new();
    let keep = |fd| sockets.push(fd);
    let length = match channel::receive_with(inbox.as_fd(), &mut data, keep) {
        Ok(length) => length.min(data.len()),
        Err(error) if os::would_block(&error) => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    // It may have got its name, and been sent this, a moment ago; a name stays.
    if !channel::is_private(inbox)? {
        sockets.iter().for_each(socket::do_not_linger);
        return Ok(Found::Foreign);
    }
    let (accept, given, payload) = match FromBroker::decode(&data[..length]) {
        Ok(FromBroker::Accept(accept)) => (accept, 1, None),
        Ok(FromBroker::Connections(accept, count)) => (accept, count as usize, None),
        Ok(FromBroker::Datagram) => match datagram(&data[..length]) {
            Some((accept, payload)) => (accept, 1, Some(payload.to_vec())),
            None => return Ok(Found::Other),
        },
        _ => return Ok(Found::Other),
    };
    let parked = |socket| Connection { socket, listener: None, accept, datagram: payload.clone() };
    let found: Vec<Connection> = sockets.into_iter().map(parked).collect();
    if found.len() < given {
        log::braked(log::Kind::Channel, || {
            "scm_recv_msg: a connection came back without its descriptor".to_owned()
        });
    }
    Ok(Found::Connections(found, given))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_overdue_when_nothing_is_read() {
        let mut flow = Flow { sent: 5, unread_since: Some(0), ..Flow::default() };
        assert_eq!(flow.look(Unread::Messages(5), 900), Pace::Fair);
        assert_eq!(flow.look(Unread::Messages(5), 1000), Pace::Overdue);
        // One was read; as many come as are read.
        assert_eq!(flow.look(Unread::Messages(4), 1250), Pace::Fair);
        flow.sent += 3;
        assert_eq!(flow.look(Unread::Messages(4), 2200), Pace::Fair);
        assert_eq!(flow.look(Unread::Messages(4), 3100), Pace::Fair);
        assert_eq!(flow.look(Unread::Messages(4), 3200), Pace::Overdue);
        assert_eq!(flow.look(Unread::Nothing, 3300), Pace::Idle);
        assert_eq!(flow.unread_since, None);
    }

    #[test]
    fn where_messages_are_not_counted_time_alone_tells() {
        let mut flow = Flow { sent: 5, unread_since: Some(0), ..Flow::default() };
        flow.sent += 2;
        assert_eq!(flow.look(Unread::Something, 900), Pace::Fair);
        flow.sent += 2;
        assert_eq!(flow.look(Unread::Something, 1000), Pace::Overdue);
    }

    #[test]
    fn a_channel_that_others_may_write_to_is_not_read() {
        use crate::os::address::Address;
        let (ours, theirs) = channel::pair().expect("a channel");
        let path = std::env::temp_dir().join(format!("tcprelay-watch-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        os::socket::bind(&theirs, &Address::Unix(path.clone())).expect("to bind");
        std::fs::remove_file(&path).expect("to remove the name");
        channel::send(ours.as_fd(), &FromBroker::may_die(), None).expect("to send");
        assert!(matches!(find(&theirs), Ok(Found::Foreign)));
    }

    #[test]
    fn what_is_found_in_a_channel_is_what_was_sent() {
        use crate::channel::protocol::Accept;
        let (ours, theirs) = channel::pair().expect("a channel");
        let accept = Accept { protocol: 6, flags: 1, ..Accept::default() };
        let fds: Vec<_> = (0..3).map(|_| channel::pair().expect("descriptors").0).collect();
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let batch = accept.encode_connections(3);
        channel::send_with(ours.as_fd(), &batch, &borrowed).expect("to send");
        channel::send(ours.as_fd(), &FromBroker::may_die(), None).expect("to send");
        let udp = Accept { protocol: 0, ..accept };
        let message = udp.encode_datagram(b"data");
        channel::send(ours.as_fd(), &message, Some(borrowed[0])).expect("to send");
        let Ok(Found::Connections(found, 3)) = find(&theirs) else { panic!("connections") };
        assert!(found.len() == 3 && found.iter().all(|parked| parked.accept == accept));
        assert!(matches!(find(&theirs), Ok(Found::Other)));
        let Ok(Found::Connections(found, 1)) = find(&theirs) else { panic!("a datagram") };
        assert_eq!(found[0].datagram.as_deref(), Some(b"data".as_slice()));
        assert_eq!(found[0].accept, udp);
        assert!(matches!(find(&theirs), Ok(Found::Nothing)));
    }
}
