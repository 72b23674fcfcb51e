//! The monitor, which our own broker starts beside its workers if the configuration has something
//! for it to do. It serves nobody, so nothing waits for it: if it dies it is started again, with
//! the pauses that workers have.

use super::restart::{Restart, SETTLED};
use super::worker::Worker;
use super::{News, Servers, Workers};
use crate::broker::handover::LeftMonitor;
use crate::broker::{kind, text, worker_process};
use crate::channel::briefing::Briefing;
use crate::channel::broker_side::{Act, BrokerSide, Stage};
use crate::channel::protocol::{
    Caller, FromBroker, FromWorker, Purpose, MONITOR_ROLE, RECEIVE, ROLE_VARIABLE,
};
use crate::channel::Peer;
use crate::event::{Event, Loop, TimerId, Token};
use crate::os::anonymous::{self, Bytes};
use crate::os::process::{self, Ended, Identity, Pid, Program, Rights};
use crate::os::{self, log, Channel, Socket};
use crate::tls::tickets::Ratchet;
use crate::upstream::zone::counters::General;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

/// Messages read per turn.
const BATCH: usize = 16;
/// What a timer of [`kind::MONITOR`] is for.
const RESTART: u32 = 0;
const OVERDUE: u32 = 1;
/// How long a monitor that is to leave may take, in milliseconds. It has nothing to finish.
const PATIENCE: u64 = 1000;

/// Whether there is to be a monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    No,
    Yes,
}

/// The monitor, as the broker knows it.
pub(super) struct Monitor {
    wanted: Wanted,
    child: Option<Worker>,
    restart: Restart,
    /// Kills a monitor that does not leave.
    overdue: Option<TimerId>,
    /// What it is told of the broker.
    briefing: Option<Bytes>,
    /// The sockets at which it answers.
    endpoints: Vec<(Purpose, OwnedFd)>,
}

impl Monitor {
    pub(super) fn new(is_wanted: bool) -> Monitor {
        let wanted = if is_wanted { Wanted::Yes } else { Wanted::No };
        Monitor {
            wanted,
            child: None,
            restart: Restart::of("the monitor does not", Token::new(kind::MONITOR, RESTART)),
            overdue: None,
            briefing: None,
            endpoints: Vec::new(),
        }
    }
}

impl Monitor {
    /// The process, if it is running.
    pub(super) fn child_mut(&mut self) -> Option<&mut Worker> {
        self.child.as_mut()
    }
}

impl Workers {
    /// The monitor's process, if it is running.
    pub(in crate::broker) fn monitor(&self) -> Option<Pid> {
        self.monitor.child.as_ref().map(|child| child.pid)
    }

    /// Starts the monitor, if there is to be one and it is not running.
    pub(in crate::broker) fn start_monitor(&mut self, events: &mut Loop) {
        let monitor = &self.monitor;
        let idle = monitor.child.is_none() && !monitor.restart.is_paused();
        if monitor.wanted == Wanted::No || !idle || self.closing {
            return;
        }
        let Servers::Own(program) = &self.servers else {
            return;
        };
        let environment = std::env::vars_os().chain([(ROLE_VARIABLE.into(), MONITOR_ROLE.into())]);
        let program = Program {
            environment: Some(environment.collect()),
            identity: Identity { rights: Rights::None, ..program.identity },
            ..program.clone()
        };
        let kept = self.snapshot.as_ref().map(AsRawFd::as_raw_fd);
        match worker_process::start(&program, self.channel_buffer, kept) {
            Ok(started) => {
                let side = BrokerSide::new(Peer::Ours);
                let material = Rc::clone(&self.secrets.material);
                // Nobody takes back what it does not read.
                let child =
                    Worker::new(started.pid, started.channel, None, side, material, events.now());
                child.register(Token::new(kind::MONITOR, 0), events);
                self.monitor.child = Some(child);
                self.count(General::MonitorsStarted);
            }
            Err((call, error)) => {
                log::braked(log::Kind::Worker, || format!("{call}: {}", os::reason(&error)));
                self.monitor.restart.failed_to_start(events);
            }
        }
    }

    /// What monitors are told, and at which sockets they answer. That of single-process mode is told
    /// at once.
    pub(in crate::broker) fn brief_monitor(
        &mut self,
        briefing: Briefing,
        endpoints: Vec<(Purpose, OwnedFd)>,
        events: &mut Loop,
    ) {
        if let Some(local) = self.local_mut() {
            return local.brief(events, briefing, endpoints);
        }
        self.monitor.briefing = anonymous::file(&briefing.encode()).ok();
        self.monitor.endpoints = endpoints;
    }

    /// Takes over the monitor of the former image, and asks it to leave. The next one starts when
    /// it has ended, so that there is one at a time.
    pub(in crate::broker) fn adopt_monitor(
        &mut self,
        former: LeftMonitor<Channel>,
        events: &mut Loop,
    ) {
        let LeftMonitor { pid, channel } = former;
        let side = BrokerSide::adopted_heard();
        let material = Rc::clone(&self.secrets.material);
        let child = Worker::new(pid, channel, None, side, material, events.now());
        child.register(Token::new(kind::MONITOR, 0), events);
        self.monitor.child = Some(child);
        self.dismiss_monitor(events);
    }

    /// The monitor, for the next image.
    pub(in crate::broker) fn left_monitor(&self) -> Option<LeftMonitor<BorrowedFd<'_>>> {
        let child = self.monitor.child.as_ref()?;
        Some(LeftMonitor { pid: child.pid, channel: child.channel().as_fd() })
    }

    /// The configuration was replaced: so is the monitor, if there is to be one.
    pub(in crate::broker) fn replace_monitor(&mut self, is_wanted: bool, events: &mut Loop) {
        // Beside workers of a program named by `exec` there is none, whatever the configuration says:
        // they must not wait for what it would find.
        let is_wanted = is_wanted && matches!(self.servers, Servers::Own(_));
        self.monitor.wanted = if is_wanted { Wanted::Yes } else { Wanted::No };
        self.leases.set_monitored(is_wanted);
        self.monitor.restart =
            Restart::of("the monitor does not", Token::new(kind::MONITOR, RESTART));
        self.dismiss_monitor(events);
        self.start_monitor(events);
    }

    /// Asks the monitor to leave.
    pub(in crate::broker) fn dismiss_monitor(&mut self, events: &mut Loop) {
        if let Some(child) = &mut self.monitor.child {
            child.side.dismissed();
            child.farewell(events);
            let token = Token::new(kind::MONITOR, OVERDUE);
            let due = events.now() + PATIENCE;
            self.monitor.overdue.get_or_insert_with(|| events.arm(token, due));
        }
    }

    /// A timer of the monitor has expired.
    pub(in crate::broker) fn monitor_timer(&mut self, token: Token, events: &mut Loop) {
        match (token.index(), &self.monitor.child) {
            (OVERDUE, child) => {
                self.monitor.overdue = None;
                if let Some(child) = child.as_ref().filter(|child| child.side.is_leaving()) {
                    process::kill(child.pid);
                }
            }
            _ => {
                self.monitor.restart.expired();
                self.start_monitor(events);
            }
        }
    }

    /// The monitor's channel is readable or writable.
    pub(in crate::broker) fn monitor_event(&mut self, event: Event, events: &mut Loop) {
        if let (true, Some(child)) = (event.writable, &mut self.monitor.child) {
            child.has_room(events);
        }
        if event.readable || event.hangup {
            self.hear_monitor(BATCH, events);
        }
    }

    fn hear_monitor(&mut self, limit: usize, events: &mut Loop) {
        for _ in 0..limit {
            let Some(child) = &mut self.monitor.child else {
                return;
            };
            let mut data = [0; RECEIVE];
            let length = match child.channel().receive_data(&mut data) {
                Ok(length) => length,
                Err(error) if os::would_block(&error) => return,
                Err(_) => return child.ignore(events),
            };
            let message = FromWorker::decode(&data[..length.min(data.len())]);
            match child.side.hear(message, 0, events.now()) {
                Act::Answer => self.answer_monitor(events),
                Act::Limit(_) => self.monitor.restart.ready(),
                Act::Errand(errand) => self.news.push_back(News::Errand(errand)),
                Act::Offence(offence) => {
                    let pid = child.pid;
                    child.side.expelled();
                    child.abandon();
                    child.ignore(events);
                    log::braked(log::Kind::Worker, || {
                        text::killed(pid as u32, &format!("has sent {offence}"))
                    });
                    process::kill(pid);
                    return;
                }
                Act::Remark(text) if child.remark() => {
                    log::braked(log::Kind::Channel, || text);
                }
                // It has no connections, and says itself why it cannot start.
                _ => {}
            }
        }
    }

    /// True if there is a monitor, and it takes clients of the control socket.
    pub(in crate::broker) fn takes_callers(&self) -> bool {
        match &self.servers {
            Servers::Local { worker, .. } => worker.takes_callers(),
            _ => {
                let child = self.monitor.child.as_ref();
                child.is_some_and(|child| child.side.stage() == Stage::Ready)
            }
        }
    }

    /// Passes a client of the control socket to the monitor; true if that was possible. The caller
    /// keeps a copy.
    pub(in crate::broker) fn call(
        &mut self,
        caller: Caller,
        socket: &Socket,
        events: &mut Loop,
    ) -> bool {
        if let Servers::Local { worker, .. } = &mut self.servers {
            let copy = socket.as_fd().try_clone_to_owned();
            return copy.is_ok_and(|copy| {
                worker.call(events, copy.into(), caller);
                true
            });
        }
        let Some(child) = &mut self.monitor.child else {
            return false;
        };
        let message = FromBroker::caller(caller);
        let sent = child.channel().send(&message, Some(socket.as_fd())).is_ok();
        if sent {
            child.side.sent_caller();
        }
        sent
    }

    /// Hears what the monitor in this process wants.
    pub(in crate::broker) fn hear_local_monitor(&mut self) {
        if let Servers::Local { worker, .. } = &mut self.servers {
            let errands = std::iter::from_fn(|| worker.errand());
            self.news.extend(errands.map(News::Errand));
        }
    }

    /// Answers HELLO, as a worker's, but without the keys of session tickets. Of private keys in a
    /// process of their own it gets those for remotes, as probes may have to show a certificate.
    fn answer_monitor(&mut self, events: &mut Loop) {
        let Some(child) = &mut self.monitor.child else {
            return;
        };
        if let Some(zone) = self.leases.admit_monitor() {
            child.tell(&FromBroker::zone(0), zone);
        }
        if let Some(briefing) = &self.monitor.briefing {
            child.tell(&FromBroker::briefing(), briefing.as_fd());
        }
        for (purpose, endpoint) in &self.monitor.endpoints {
            child.tell(&FromBroker::endpoint(*purpose), endpoint.as_fd());
        }
        match Ratchet::unset().encode_for_monitor(child.material()) {
            Ok(data) => child.answer(data, events),
            Err(error) => {
                log::braked(log::Kind::Channel, || format!("mmap: {}", os::reason(&error)));
            }
        }
    }

    /// A child has ended, which may be the monitor; true if it was.
    pub(in crate::broker) fn monitor_ended(
        &mut self,
        pid: Pid,
        ended: Ended,
        events: &mut Loop,
    ) -> bool {
        if self.monitor.child.as_ref().is_none_or(|child| child.pid != pid) {
            return false;
        }
        self.hear_monitor(usize::MAX, events);
        let Some(child) = self.monitor.child.take() else {
            return true;
        };
        child.unregister(events);
        self.leases.monitor_ended();
        if let Some(timer) = self.monitor.overdue.take() {
            events.cancel(timer);
        }
        let ready = child.side.stage() == Stage::Ready;
        match child.side.stage() {
            // It was asked to.
            Stage::Leaving => {}
            // It has nothing to do after all.
            _ if ended == Ended::Status(0) && !ready => return true,
            _ if events.now() - child.started >= SETTLED => self.monitor.restart.settled(),
            _ if ready => self.monitor.restart.died_young(events),
            _ => self.monitor.restart.failed_to_start(events),
        }
        self.start_monitor(events);
        true
    }
}
