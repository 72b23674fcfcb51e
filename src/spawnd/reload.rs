//! SIGHUP: the new configuration is checked by a child; if it is good the broker executes
//! itself again, with its listening sockets and the channels of its old workers.

use super::broker::{kind, Broker};
use super::handover::{check_value, Handover, LeftListener, ACTIVATED, VARIABLE};
use super::listener::Listener;
use crate::event::{Interest, Loop, TimerId, Token};
use crate::os::process::{self, Descriptors, Ended, Fork, Pid, Program};
use crate::os::signals::{Signal, Signals};
use crate::os::title::LEFT;
use crate::os::{self, files, log, socket, supervisor};
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;

/// How long a check may take, in milliseconds: a source may be a slow URL, and a foreign worker
/// program may not know `-P`.
const CHECK_TIMEOUT: u64 = 120_000;
/// How often the end of a check is looked for that cannot be waited for, in milliseconds, and how many
/// times.
const LOOK_PERIOD: u64 = 50;
const MOST_LOOKS: u32 = 100;

/// A child that checks the configuration.
pub(super) struct Check {
    pid: Pid,
    /// What it complains about.
    output: OwnedFd,
    text: Vec<u8>,
    /// SIGHUP, not SIGUSR1: the program is to be executed again if the configuration is good.
    reload: bool,
    /// A signal came again meanwhile.
    again: bool,
    /// How often its end was looked for since it has said all.
    looks: u32,
    timer: TimerId,
}

impl Broker {
    /// SIGHUP, or with `reload` false SIGUSR1: checks the configuration first.
    pub(super) fn check_and(&mut self, reload: bool, events: &mut Loop) {
        if let Some(check) = &mut self.check {
            check.again = true;
            check.reload |= reload;
            return;
        }
        if reload {
            supervisor::notify("RELOADING=1");
        }
        match self.start_check(reload, events) {
            Ok(check) => {
                events.register(&check.output, Token::new(kind::CHECK, 0), Interest::READ);
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

    fn start_check(&self, reload: bool, events: &mut Loop) -> std::io::Result<Check> {
        let (output, write) = process::pipe()?;
        socket::set_nonblocking(&output, true)?;
        // What the next image will have, not what `setenv` made of it; its complaints are
        // logged by us.
        let mut environment = self.options.environment.clone();
        environment.retain(|(name, _)| name != "TCPRELAY_LOG_STDERR");
        let activated = self.listeners.iter().any(Listener::is_inherited);
        environment.push((VARIABLE.into(), check_value(activated).into()));
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
        let descriptors = Descriptors { stdin, stderr: Some(write) };
        let pid = process::spawn(&program, descriptors, log::message)?;
        let timer = events.arm(Token::new(kind::CHECK_TIMEOUT, 0), events.now() + CHECK_TIMEOUT);
        Ok(Check { pid, output, text: Vec::new(), reload, again: false, looks: 0, timer })
    }

    /// The checking child has said something.
    pub(super) fn check_output(&mut self, events: &mut Loop) {
        let Some(check) = &mut self.check else {
            return;
        };
        while let Ok(Some(data)) = files::read_available(&check.output) {
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
        events.cancel(check.timer);
        if check.again {
            self.check_and(check.reload, events);
        } else if ended == Ended::Status(0) && check.reload {
            self.restart_image(events);
        } else if ended == Ended::Status(0) {
            log::message("SIGUSR1: replacing all workers");
            // They read the configuration as it is now, which may name other files.
            let material = self.secrets.reread.as_ref().and_then(|reread| (reread.0)());
            if let Some(material) = material {
                self.secrets.material = material;
            }
            self.dismiss_all(events);
            self.start_missing_workers(events);
        } else {
            let signal = if check.reload { "SIGHUP" } else { "SIGUSR1" };
            let text = String::from_utf8_lossy(&check.text);
            for line in text.lines() {
                // Without the process id in front, which is that of the child.
                let line = line.split_once(": ").map_or(line, |(head, tail)| {
                    if head.parse::<i32>().is_ok() {
                        tail
                    } else {
                        line
                    }
                });
                log::message_at(log::Severity::ERROR, &format!("{signal}: {line}"));
            }
            log::message_at(
                log::Severity::ERROR,
                &format!(
                    "{signal}: the configuration is refused, the running one stays in service"
                ),
            );
            supervisor::notify("READY=1");
        }
        true
    }

    /// Executes this program again, in this process.
    fn restart_image(&mut self, events: &mut Loop) {
        log::message("SIGHUP: restarting");
        self.dismiss_all(events);
        if self.local.as_ref().is_some_and(|local| local.sessions() > 0) {
            self.leave_sessions_to_child(events);
        }
        let mut handover = Handover {
            background: self.options.background,
            workers: self.take_leaving(),
            ..Handover::default()
        };
        self.collect_orphans();
        for parked in std::mem::take(&mut self.parked) {
            // A datagram is not worth more than the client's next one.
            if parked.datagram.is_none() {
                let key =
                    parked.listener.map_or(String::new(), |index| self.listeners[index].key());
                handover.parked.push((key, parked.socket));
            }
        }
        for listener in &mut self.listeners {
            // One that the service manager opened is known by that.
            let prefix = if listener.foreign { ACTIVATED } else { "" };
            let key = format!("{prefix}{}", listener.key());
            let file = listener.file();
            if let Some(socket) = listener.socket.take() {
                handover.listeners.push(LeftListener { key, socket, file });
            }
        }
        if let Some(file) = self.pid_file.take() {
            let path = file.path().to_string_lossy().into_owned();
            handover.pid_file = file.into_descriptor().map(|fd| (path, fd));
        }
        self.secrets.tickets.advance(os::wall_clock());
        // Without them sessions cannot be resumed, which is all.
        handover.tickets = process::pipe_with(&self.secrets.tickets.encode()).ok();
        // Workers have read it; the next image makes its own.
        drop(self.shared.take());
        let mut environment = self.options.environment.clone();
        let variables = handover.variables().into_iter();
        environment.extend(variables.map(|(name, value)| (name.into(), value.into())));
        let error = process::execute(
            &self.options.executable,
            &self.options.arguments,
            &environment,
            &handover.descriptors(),
        );
        // The file was there a moment ago, for the check. The old image cannot go on without
        // what it has prepared to give away, and ends as on a failed start.
        let path = self.options.executable.display();
        log::message(&format!("execve ({path}): {}", os::reason(&error)));
        self.exit_status = Some(process::exit::OS_ERROR);
    }

    /// Single-process mode: a child keeps the open sessions until they end, so that this
    /// process can go on without them.
    pub(super) fn leave_sessions_to_child(&mut self, events: &mut Loop) {
        match process::fork() {
            Ok(Fork::Child) => {
                let status = self.drain_sessions(events);
                std::process::exit(status);
            }
            Ok(Fork::Parent(_)) => {}
            Err(error) => {
                log::message(&format!("fork: {}: open sessions end", os::reason(&error)));
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
        }
        self.parked.clear();
        for listener in &mut self.listeners {
            listener.close(events);
        }
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
            self.title.connections(local.sessions()).text(LEFT).show();
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
