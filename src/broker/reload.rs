//! SIGHUP: the new configuration is checked by a child; if it is good the broker executes
//! itself again, with its listening sockets and the channels of its old workers.

use super::findings::{Findings, Receiver};
use super::handover::{
    check_value, FormerSecrets, Image, LeftWorker, Outgoing, REPORT_VARIABLE, VARIABLE,
};
use super::life::Broker;
use super::{kind, text};
use crate::event::{Event, Interest, Loop, TimerId, Token};
use crate::os::process::{self, Descriptors, Ended, Fork, Gate, Pid, Program};
use crate::os::signals::{self, Signal, Signals};
use crate::os::title::State;
use crate::os::{self, anonymous, files, log, socket, supervisor};
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// How long a check may take, in milliseconds: a source may be a slow URL, and a foreign worker
/// program may not know `-P`.
const CHECK_TIMEOUT: u64 = 120_000;
/// How often the end of a check is looked for that cannot be waited for, in milliseconds, and how many
/// times.
const LOOK_PERIOD: u64 = 50;
const MOST_LOOKS: u32 = 100;
/// How long a signal waits for the workers of this image to be ready, in milliseconds. Otherwise images
/// could follow each other so fast that nothing is ever served.
const START_PATIENCE: u64 = 2000;

/// What is to be done if the configuration is good. The greater one comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// SIGUSR1: workers that know it take the place of those there are.
    ReplaceWorkers,
    /// SIGHUP: the program is executed again.
    Reload,
}

impl Purpose {
    fn signal(self) -> Signal {
        match self {
            Purpose::ReplaceWorkers => Signal::SIGUSR1,
            Purpose::Reload => Signal::SIGHUP,
        }
    }
}

/// A child that checks the configuration.
pub(super) struct Check {
    pid: Pid,
    /// What it complains about.
    output: OwnedFd,
    text: Vec<u8>,
    /// What it has read.
    findings: Receiver,
    purpose: Purpose,
    /// A signal that came meanwhile: what it is about may have been written after this check has
    /// read it.
    again: Option<Purpose>,
    /// How often its end was looked for since it has said all.
    looks: u32,
    timer: TimerId,
}

/// Checks that are still to come.
#[derive(Default)]
pub(super) enum Due {
    /// The workers of this image are not ready yet; what has come meanwhile, and when not to wait any
    /// more.
    #[default]
    Starting,
    Waiting(Purpose, TimerId),
    /// Checks are made at once.
    Serving,
}

impl Broker {
    /// SIGHUP or SIGUSR1: the configuration is checked first.
    pub(super) fn check_and(&mut self, purpose: Purpose, events: &mut Loop) {
        if let Some(check) = &mut self.check {
            check.again = check.again.max(Some(purpose));
            return;
        }
        match &mut self.due {
            Due::Serving => self.begin_check(purpose, events),
            Due::Waiting(before, _) => *before = purpose.max(*before),
            Due::Starting => {
                let deadline = events.now() + START_PATIENCE;
                let timer = events.arm(Token::new(kind::CHECK_DUE, 0), deadline);
                self.due = Due::Waiting(purpose, timer);
            }
        }
    }

    /// Workers are ready, or were waited for long enough: signals have their effect at once.
    pub(super) fn check_what_is_due(&mut self, events: &mut Loop) {
        if let Due::Waiting(purpose, timer) = std::mem::replace(&mut self.due, Due::Serving) {
            events.cancel(timer);
            self.check_and(purpose, events);
        }
    }

    fn begin_check(&mut self, purpose: Purpose, events: &mut Loop) {
        if purpose == Purpose::Reload {
            supervisor::notify_reloading();
        }
        match self.start_check(purpose, events) {
            Ok(check) => {
                events.register(&check.output, Token::new(kind::CHECK, OUTPUT), Interest::READ);
                let findings = Token::new(kind::CHECK, FINDINGS);
                events.register(&check.findings.pipe, findings, Interest::READ);
                self.check = Some(check);
            }
            Err(error) => {
                log::message(&format!(
                    "the configuration cannot be checked: {}",
                    os::reason(&error)
                ));
                supervisor::notify("READY=1");
            }
        }
    }

    fn start_check(&self, purpose: Purpose, events: &mut Loop) -> std::io::Result<Check> {
        let (output, write) = process::pipe()?;
        socket::set_nonblocking(&output, true)?;
        let (findings, report) = process::pipe()?;
        socket::set_nonblocking(&findings, true)?;
        // What the next image will have, not what `setenv` made of it; its complaints are
        // logged by us.
        let mut environment = self.options.environment.clone();
        environment.retain(|(name, _)| name != "TCPRELAY_LOG_STDERR");
        let activated = self.listeners.has_inherited();
        environment.push((VARIABLE.into(), check_value(activated).into()));
        environment.push((REPORT_VARIABLE.into(), report.as_raw_fd().to_string().into()));
        let mut arguments = vec![OsString::from("-P")];
        arguments.extend(self.options.arguments.iter().skip(1).cloned());
        let program = Program {
            path: self.options.executable.clone(),
            arguments,
            identity: process::Identity::default(),
            directory: None,
            environment: Some(environment),
            group: true,
        };
        let stdin = File::open("/dev/null")?.into();
        let kept = Some(report.as_raw_fd());
        let descriptors = Descriptors { stdin, stderr: Some(write), kept };
        let pid = process::spawn(&program, descriptors, log::message)?;
        let timer = events.arm(Token::new(kind::CHECK_TIMEOUT, 0), events.now() + CHECK_TIMEOUT);
        let findings = Receiver::new(findings);
        let (text, again, looks) = (Vec::new(), None, 0);
        Ok(Check { pid, output, text, findings, purpose, again, looks, timer })
    }

    /// The checking child has said something.
    pub(super) fn check_event(&mut self, event: Event, events: &mut Loop) {
        match event.token.index() {
            FINDINGS => {
                if let Some(check) = &mut self.check {
                    if !check.findings.read() {
                        events.set_interest(&check.findings.pipe, Interest::empty());
                    }
                }
            }
            _ => self.check_output(events),
        }
    }

    fn check_output(&mut self, events: &mut Loop) {
        let Some(check) = &mut self.check else {
            return;
        };
        // What writes without an end is heard again in the next turn, until its time is over.
        for _ in 0..16 {
            let Ok(Some(data)) = files::read_available(&check.output) else {
                return;
            };
            if data.is_empty() {
                events.set_interest(&check.output, Interest::empty());
                if self.local.is_some() {
                    events.renew(check.timer, events.now() + LOOK_PERIOD);
                }
                return;
            }
            check.text.extend(data);
            check.text.truncate(16 * 1024);
        }
    }

    /// The checking child says no more. A module in this process may have had its exit status thrown
    /// away (SIGCHLD ignored); then what it has said tells how it ended.
    fn check_silent(&mut self, events: &mut Loop) {
        let Some(check) = self.check.as_ref().filter(|_| self.local.is_some()) else {
            return;
        };
        if !process::exists(check.pid) {
            let (pid, refused) = (check.pid, !check.text.is_empty());
            self.check_ended(pid, Ended::Status(refused.into()), events);
        }
    }

    /// Modules in this process may ignore SIGCHLD; as long as a check is running it must come.
    pub(super) fn watch_check(&mut self, events: &mut Loop) {
        if self.check.is_some() && self.local.is_some() {
            let _ = os::signals::catch(Signal::SIGCHLD);
            self.check_silent(events);
        }
    }

    /// The check takes too long: it is ended, and counts as failed.
    pub(super) fn check_timed_out(&mut self, events: &mut Loop) {
        if self.local.is_some() {
            self.check_silent(events);
            if let Some(check) = self.check.as_mut().filter(|check| check.looks < MOST_LOOKS) {
                check.looks += 1;
                let deadline = events.now() + LOOK_PERIOD;
                check.timer = events.arm(Token::new(kind::CHECK_TIMEOUT, 0), deadline);
                return;
            }
        }
        if self.check.is_some() {
            log::message("checking the configuration takes too long");
            self.end_check();
        }
    }

    /// The result of a check is not of interest any more.
    pub(super) fn end_check(&self) {
        if let Some(check) = &self.check {
            process::kill_group(check.pid);
        }
    }

    /// True if `pid` was the checking child.
    pub(super) fn check_ended(&mut self, pid: Pid, ended: Ended, events: &mut Loop) -> bool {
        if self.check.as_ref().is_none_or(|check| check.pid != pid) {
            return false;
        }
        self.check_output(events);
        let Some(check) = self.check.take() else {
            return false;
        };
        events.remove(&check.output);
        events.remove(&check.findings.pipe);
        events.cancel(check.timer);
        if !self.is_serving() {
            return true;
        }
        let Check { text, findings, purpose, again, .. } = check;
        if ended == Ended::Status(0) {
            for line in lines(&text).filter(|line| line.contains("WARNING: ")) {
                log::message_at(log::Severity::WARNING, &line);
            }
        }
        match (ended, purpose) {
            (Ended::Status(0), Purpose::Reload) => {
                self.restart_image(findings.finish(), again, events);
                return true;
            }
            (Ended::Status(0), Purpose::ReplaceWorkers) => {
                self.replace_workers(findings.finish(), events);
            }
            _ => refused(purpose, &text),
        }
        if let Some(purpose) = again {
            self.check_and(purpose, events);
        }
        true
    }

    /// SIGUSR1: workers that know what was checked.
    fn replace_workers(&mut self, findings: Option<Findings>, events: &mut Loop) {
        log::message("SIGUSR1: replacing all workers");
        match findings {
            Some(Findings { snapshot, checked }) => {
                self.secrets.material = checked.material;
                self.secrets.tickets.set_period(checked.session_timeout.into());
                if self.options.workers_report {
                    self.set_snapshot(share_texts(&snapshot));
                }
            }
            // The executable is an older one, whose workers read for themselves.
            None => self.set_snapshot(None),
        }
        self.dismiss_all(events);
        self.start_missing_workers(events);
    }

    /// Executes this program again, in this process.
    fn restart_image(
        &mut self,
        findings: Option<Findings>,
        again: Option<Purpose>,
        events: &mut Loop,
    ) {
        // What arrives from here on waits for the next image, or for the end of this attempt.
        signals::block_all();
        let arrived = self.signals.take();
        if arrived.has(Signal::SIGTERM) || arrived.has(Signal::SIGINT) {
            signals::unblock_all();
            self.signal(arrived, events);
            return;
        }
        log::message(text::RESTARTING);
        let noted = [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGCHLD];
        for signal in noted.into_iter().filter(|&signal| arrived.has(signal)) {
            signals::raise(signal);
        }
        if let Some(purpose) = again {
            signals::raise(purpose.signal());
        }
        self.collect_orphans();
        let gate = self.leave_sessions_behind_gate(events);
        self.secrets.tickets.advance(os::wall_clock());
        let checked = findings.as_ref().map(|findings| &findings.checked);
        let secrets = FormerSecrets::new(&self.secrets.tickets, checked).ok();
        let snapshot = findings.as_ref().and_then(|findings| share_texts(&findings.snapshot));
        let parked = self.parked.iter();
        let outgoing = Outgoing {
            listeners: self.listeners.sockets().collect(),
            // A datagram is not worth more than the client's next one.
            parked: parked
                .filter(|parked| parked.datagram.is_none())
                .map(|parked| {
                    // One that was taken back may be of a listener that is gone already. The next
                    // image refuses it, and says so.
                    let gone = || "of a former configuration".to_owned();
                    let key = parked.listener.map_or_else(gone, |index| self.listeners.key(index));
                    (key, parked.socket.as_fd())
                })
                .collect(),
            workers: self
                .workers
                .iter()
                .map(|(&id, worker)| {
                    let users = self.policy.users(id).unwrap_or(worker.users);
                    LeftWorker {
                        channel: worker.channel.as_fd(),
                        inbox: worker.inbox.as_ref().map(OwnedFd::as_fd),
                        pid: worker.pid,
                        users,
                        heard: worker.side.has_been_heard(),
                    }
                })
                .collect(),
            pid_file: self.pid_file.as_ref(),
            background: self.options.background,
            keepers: self.keepers.iter().copied().collect(),
            segment: self.shared.as_ref(),
            snapshot: snapshot.as_ref().map(OwnedFd::as_fd),
            secrets: secrets.as_ref(),
            attempt: 0,
        };
        let image = Image {
            executable: &self.options.executable,
            arguments: &self.options.arguments,
            environment: &self.options.environment,
        };
        // An older version does not tell what it has read, nor does it know what we would leave.
        let error = match findings {
            Some(_) => outgoing.give(&image),
            None => outgoing.give_to_older(&image),
        };
        let path = self.options.executable.display();
        log::message(&format!("execve ({path}): {}", os::reason(&error)));
        log::message_at(
            log::Severity::ERROR,
            "SIGHUP: the program cannot be executed, the running one stays in service",
        );
        if let Some((gate, pid)) = gate {
            gate.cancel();
            let _ = process::wait_for(pid);
            self.keepers.remove(&pid);
        }
        supervisor::notify("READY=1");
        self.unpark(events);
    }

    /// Gives the texts that were checked to workers that start from now on. Without them they read
    /// the files.
    pub(super) fn set_snapshot(&mut self, snapshot: Option<OwnedFd>) {
        super::handover::publish_snapshot(snapshot.as_ref());
        self.snapshot = snapshot;
    }

    /// Single-process mode: a child keeps the open sessions until they end, so that this
    /// process can go on without them.
    pub(super) fn leave_sessions_to_child(&mut self, events: &mut Loop) {
        match process::fork() {
            Ok(Fork::Child) => {
                let status = self.drain_sessions(events);
                std::process::exit(status);
            }
            Ok(Fork::Parent(pid)) => drop(self.keepers.insert(pid)),
            Err(error) => {
                log::message(&format!("fork: {}: open sessions end", os::reason(&error)));
            }
        }
    }

    /// The same for the time when another image has taken the place of this one: the child does
    /// nothing as long as that is not certain.
    fn leave_sessions_behind_gate(&mut self, events: &mut Loop) -> Option<(Gate, Pid)> {
        if self.local.as_ref().is_none_or(|local| local.sessions() == 0) {
            return None;
        }
        match process::fork_at_gate() {
            Ok((Fork::Child, gate)) => {
                if !gate.passed() {
                    process::exit_now(0);
                }
                let status = self.drain_sessions(events);
                std::process::exit(status);
            }
            Ok((Fork::Parent(pid), gate)) => {
                self.keepers.insert(pid);
                Some((gate, pid))
            }
            Err(error) => {
                log::message(&format!("fork: {}: open sessions end", os::reason(&error)));
                None
            }
        }
    }

    /// In the child: nothing but the sessions.
    fn drain_sessions(&mut self, events: &mut Loop) -> i32 {
        let Ok(signals) = Signals::install(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])
        else {
            return process::exit::OS_ERROR;
        };
        process::new_session();
        // The parent's pipe: it must not miss its signals because we read them.
        events.remove(self.signals.descriptor());
        if let Some(check) = self.check.take() {
            events.remove(&check.output);
            events.remove(&check.findings.pipe);
        }
        self.parked.clear();
        self.listeners.close(events);
        if let Err(error) = events.renew_after_fork() {
            log::message(&format!("event loop: {}", os::reason(&error)));
            return process::exit::OS_ERROR;
        }
        // Bound to the variable: the pipe of the handlers must stay open.
        let _signals = signals;
        let Some(local) = &mut self.local else {
            return 0;
        };
        local.drain(events);
        while local.sessions() > 0 {
            self.title.connections(local.sessions()).state(State::Leaving).show();
            if events.wait(None).is_err() {
                return process::exit::SOFTWARE;
            }
            while let Some(event) = events.next_event() {
                local.event(events, event);
            }
            while let Some((timer, token)) = events.next_expired() {
                local.timer(events, timer, token);
            }
            local.turn(events);
        }
        local.end(events);
        log::message("Terminating, no longer needed.");
        0
    }
}

/// Which of a check's pipes a token is for.
const OUTPUT: u32 = 0;
const FINDINGS: u32 = 1;

/// A configuration was refused; what is wrong with it is logged.
fn refused(purpose: Purpose, text: &[u8]) {
    let signal = purpose.signal().as_str();
    for line in lines(text) {
        log::message_at(log::Severity::ERROR, &format!("{signal}: {line}"));
    }
    log::message_at(
        log::Severity::ERROR,
        &format!("{signal}: the configuration is refused, the running one stays in service"),
    );
    supervisor::notify("READY=1");
}

/// The texts of a configuration as a descriptor; without one they are read again.
fn share_texts(texts: &[u8]) -> Option<OwnedFd> {
    let made = anonymous::file(texts);
    if let Err(error) = &made {
        log::message(&format!("a copy of the configuration cannot be kept: {}", os::reason(error)));
    }
    made.ok()
}

/// What a checking child has said, without its process id in front.
fn lines(text: &[u8]) -> impl Iterator<Item = String> {
    let text = String::from_utf8_lossy(text).into_owned();
    let lines: Vec<String> = text
        .lines()
        .map(|line| match line.split_once(": ") {
            Some((head, tail)) if head.parse::<i32>().is_ok() => tail.to_owned(),
            _ => line.to_owned(),
        })
        .collect();
    lines.into_iter()
}
