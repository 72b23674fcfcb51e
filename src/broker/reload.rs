//! SIGHUP and SIGUSR1: a child checks the new configuration. If it is good the broker executes
//! itself again, with its listening sockets and the channels of its workers, or replaces the
//! workers.

use super::findings::{Findings, Receiver};
use super::handover::{check_value, REPORT_VARIABLE, VARIABLE};
use super::kind;
use super::options::Options;
use crate::event::{Event, Interest, Loop, TimerId, Token};
use crate::os::anonymous::{self, Bytes};
use crate::os::process::{self, Descriptors, Ended, Pid, Program};
use crate::os::signals::{Signal, LOG_SIGNAL};
use crate::os::{self, descriptor, files, log, supervisor};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeReader};
use std::os::fd::AsRawFd;

/// How long a check may take, in milliseconds: the source may be a slow URL, and another program's
/// worker may not know `-P`.
const CHECK_TIMEOUT: u64 = 120_000;
/// How often, in milliseconds, and how many times to look whether a check has ended whose exit
/// status may be lost.
const LOOK_PERIOD: u64 = 50;
const MOST_LOOKS: u32 = 100;
/// How long a signal waits for the workers of this image to be ready, in milliseconds. Without a
/// wait, images could follow each other so fast that nothing is ever served.
const START_PATIENCE: u64 = 2000;

/// What to do if the configuration is good. If both are asked for, the greater one is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// SIGUSR1: new workers with the new configuration replace the running ones.
    ReplaceWorkers,
    /// SIGHUP: the program is executed again.
    Reload,
}

impl Purpose {
    /// The signal that asks for it.
    pub(super) fn signal(self) -> Signal {
        match self {
            Purpose::ReplaceWorkers => Signal::SIGUSR1,
            Purpose::Reload => Signal::SIGHUP,
        }
    }
}

/// A child that checks the configuration, and what it has reported so far.
pub(super) struct Check {
    pid: Pid,
    /// The pipe with its complaints.
    output: PipeReader,
    text: Vec<u8>,
    /// The pipe with what it has read.
    findings: Receiver,
    purpose: Purpose,
    /// A signal that came meanwhile: the change it announces may have been made after this check
    /// read the files.
    again: Option<Purpose>,
    /// How often we have looked whether it has ended.
    looks: u32,
    timer: TimerId,
}

/// Whether checks may begin.
#[derive(Default)]
pub(super) enum Due {
    /// The workers of this image are not ready yet. `Waiting` holds what was asked for meanwhile,
    /// and the timer that ends the wait.
    #[default]
    Starting,
    Waiting(Purpose, TimerId),
    /// Checks begin at once.
    Serving,
}

/// The result of a check.
pub(super) struct Outcome {
    ended: Ended,
    text: Vec<u8>,
    findings: Receiver,
    purpose: Purpose,
    again: Option<Purpose>,
}

/// What to do after a check.
pub(super) enum Next {
    /// The configuration is good, with these warnings. Without findings, the executable is an older
    /// one that does not report any.
    Go(Purpose, Option<Findings>, Vec<String>),
    /// The configuration is refused for these reasons, which were logged.
    Stay(Vec<String>),
}

impl Outcome {
    /// Logs what the check has said. Returns what to do, and the signal that came meanwhile, if
    /// any.
    pub(super) fn report(self) -> (Next, Option<Purpose>) {
        let Outcome { ended, text, findings, purpose, again } = self;
        if ended != Ended::Status(0) {
            return (Next::Stay(refused(purpose, &text)), again);
        }
        let warnings: Vec<String> =
            lines(&text).filter(|line| line.contains("WARNING: ")).collect();
        for line in &warnings {
            log::message_at(log::Severity::WARNING, line);
        }
        (Next::Go(purpose, findings.finish(), warnings), again)
    }
}

/// Checks of the configuration.
pub(super) struct Reload {
    check: Option<Check>,
    due: Due,
    /// Modules run in this process and may ignore SIGCHLD, so we look ourselves whether a check has
    /// ended.
    beside_modules: bool,
    /// Why a check could not begin.
    trouble: Option<String>,
}

/// What is checked.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    /// The program to be executed, and its command line.
    pub(super) options: &'a Options,
    /// The broker serves sockets without a `listen` block.
    pub(super) activated: bool,
}

impl Reload {
    /// Nothing has been asked for.
    pub(super) fn new(beside_modules: bool) -> Reload {
        Reload { check: None, due: Due::default(), beside_modules, trouble: None }
    }

    /// True while a configuration is checked.
    pub(super) fn is_checking(&self) -> bool {
        self.check.is_some()
    }

    /// Why the last check could not begin; told once.
    pub(super) fn take_trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }

    /// SIGHUP or SIGUSR1: checks the configuration first.
    pub(super) fn request(&mut self, purpose: Purpose, subject: Subject<'_>, events: &mut Loop) {
        if let Some(check) = &mut self.check {
            check.again = check.again.max(Some(purpose));
            return;
        }
        match &mut self.due {
            Due::Serving => self.begin(purpose, subject, events),
            Due::Waiting(before, _) => *before = purpose.max(*before),
            Due::Starting => {
                let deadline = events.now() + START_PATIENCE;
                let timer = events.arm(Token::new(kind::CHECK_DUE, 0), deadline);
                self.due = Due::Waiting(purpose, timer);
            }
        }
    }

    /// Workers are ready, or were waited for long enough: from now on signals take effect at once.
    pub(super) fn serving(&mut self, subject: Subject<'_>, events: &mut Loop) {
        if let Due::Waiting(purpose, timer) = std::mem::replace(&mut self.due, Due::Serving) {
            events.cancel(timer);
            self.request(purpose, subject, events);
        }
    }

    fn begin(&mut self, purpose: Purpose, subject: Subject<'_>, events: &mut Loop) {
        if purpose == Purpose::Reload {
            supervisor::notify_reloading();
        }
        match start(purpose, subject, events) {
            Ok(check) => {
                events.register(&check.output, Token::new(kind::CHECK, OUTPUT), Interest::READ);
                let findings = Token::new(kind::CHECK, FINDINGS);
                events.register(&check.findings.pipe, findings, Interest::READ);
                self.check = Some(check);
            }
            Err(error) => {
                let text = format!("the configuration cannot be checked: {}", os::reason(&error));
                log::message(&text);
                self.trouble = Some(text);
                supervisor::notify("READY=1");
            }
        }
    }

    /// The checking child has written something.
    pub(super) fn event(&mut self, event: Event, events: &mut Loop) {
        match event.token.index() {
            FINDINGS => {
                if let Some(check) = &mut self.check {
                    if !check.findings.read() {
                        events.set_interest(&check.findings.pipe, Interest::empty());
                    }
                }
            }
            _ => self.output(events),
        }
    }

    fn output(&mut self, events: &mut Loop) {
        let Some(check) = &mut self.check else {
            return;
        };
        // A child that writes without end is read again in the next turn, until its time is over.
        for _ in 0..16 {
            let Ok(Some(data)) = files::read_available(&check.output) else {
                return;
            };
            if data.is_empty() {
                events.set_interest(&check.output, Interest::empty());
                if self.beside_modules {
                    events.renew(check.timer, events.now() + LOOK_PERIOD);
                }
                return;
            }
            check.text.extend(data);
            check.text.truncate(16 * 1024);
        }
    }

    /// Looks whether the checking child has ended without SIGCHLD. A module in this process may
    /// have discarded its exit status by ignoring SIGCHLD; then an empty output counts as success.
    fn silent(&mut self, events: &mut Loop) -> Option<Outcome> {
        let check = self.check.as_ref().filter(|_| self.beside_modules)?;
        if process::exists(check.pid) {
            return None;
        }
        let (pid, refused) = (check.pid, !check.text.is_empty());
        self.ended(pid, Ended::Status(refused.into()), events)
    }

    /// The end of a turn: makes sure that SIGCHLD arrives while a check is running.
    pub(super) fn watch(&mut self, events: &mut Loop) -> Option<Outcome> {
        if self.check.is_none() || !self.beside_modules {
            return None;
        }
        let _ = os::signals::catch(Signal::SIGCHLD);
        self.silent(events)
    }

    /// The check takes too long: kills it, which counts as failure.
    pub(super) fn timed_out(&mut self, events: &mut Loop) -> Option<Outcome> {
        if self.beside_modules {
            let outcome = self.silent(events);
            if outcome.is_some() {
                return outcome;
            }
            if let Some(check) = self.check.as_mut().filter(|check| check.looks < MOST_LOOKS) {
                check.looks += 1;
                let deadline = events.now() + LOOK_PERIOD;
                check.timer = events.arm(Token::new(kind::CHECK_TIMEOUT, 0), deadline);
                return None;
            }
        }
        if self.check.is_some() {
            log::message("checking the configuration takes too long");
            self.stop();
        }
        None
    }

    /// Kills the check: its result no longer matters.
    pub(super) fn stop(&self) {
        if let Some(check) = &self.check {
            process::kill_group(check.pid);
        }
    }

    /// True if this is the checking child.
    pub(super) fn is_check(&self, pid: Pid) -> bool {
        self.check.as_ref().is_some_and(|check| check.pid == pid)
    }

    /// The checking child has ended.
    pub(super) fn ended(&mut self, pid: Pid, ended: Ended, events: &mut Loop) -> Option<Outcome> {
        if !self.is_check(pid) {
            return None;
        }
        self.output(events);
        let check = self.check.take()?;
        events.remove(&check.output);
        events.remove(&check.findings.pipe);
        events.cancel(check.timer);
        let Check { text, findings, purpose, again, .. } = check;
        Some(Outcome { ended, text, findings, purpose, again })
    }

    /// In a child of this process: the check stays the parent's.
    pub(super) fn forget(&mut self, events: &mut Loop) {
        if let Some(check) = self.check.take() {
            events.remove(&check.output);
            events.remove(&check.findings.pipe);
        }
    }
}

fn start(purpose: Purpose, subject: Subject<'_>, events: &mut Loop) -> std::io::Result<Check> {
    let Subject { options, activated } = subject;
    let (output, write) = io::pipe()?;
    descriptor::set_nonblocking(&output)?;
    let (findings, report) = io::pipe()?;
    descriptor::set_nonblocking(&findings)?;
    // The environment of the next image, without what `setenv` directives have changed here. Its
    // complaints are logged by us, not on standard error.
    let mut environment = options.environment.clone();
    environment.retain(|(name, _)| name != "TCPRELAY_LOG_STDERR");
    environment.push((VARIABLE.into(), check_value(activated).into()));
    environment.push((REPORT_VARIABLE.into(), report.as_raw_fd().to_string().into()));
    let mut arguments = vec![OsString::from("-P")];
    arguments.extend(options.arguments.iter().skip(1).cloned());
    let program = Program {
        path: options.executable.clone(),
        arguments,
        identity: process::Identity::default(),
        directory: None,
        environment: Some(environment),
        group: true,
        held: Some(LOG_SIGNAL),
    };
    let stdin = File::open("/dev/null")?.into();
    let kept = vec![report.as_raw_fd()];
    let descriptors = Descriptors { stdin, stderr: Some(write.into()), kept };
    let pid = process::spawn(&program, descriptors, log::message)?;
    let timer = events.arm(Token::new(kind::CHECK_TIMEOUT, 0), events.now() + CHECK_TIMEOUT);
    let findings = Receiver::new(findings);
    let (text, again, looks) = (Vec::new(), None, 0);
    Ok(Check { pid, output, text, findings, purpose, again, looks, timer })
}

/// Which pipe of a check a token is for.
const OUTPUT: u32 = 0;
const FINDINGS: u32 = 1;

/// Logs that a configuration is refused, and why; returns the reasons.
fn refused(purpose: Purpose, text: &[u8]) -> Vec<String> {
    let signal = purpose.signal().as_str();
    let mut reasons: Vec<String> = lines(text).collect();
    for line in &reasons {
        log::message_at(log::Severity::ERROR, &format!("{signal}: {line}"));
    }
    if reasons.is_empty() {
        reasons.push("the check of the configuration was killed, or took too long".to_owned());
    }
    log::message_at(
        log::Severity::ERROR,
        &format!("{signal}: the configuration is refused, the running one stays in service"),
    );
    supervisor::notify("READY=1");
    reasons
}

/// The texts of a configuration as a descriptor; `None` if they have to be read again.
pub fn share_texts(texts: &[u8]) -> Option<Bytes> {
    let made = anonymous::file(texts);
    if let Err(error) = &made {
        log::message(&format!("a copy of the configuration cannot be kept: {}", os::reason(error)));
    }
    made.ok()
}

/// The output of a checking child, without the process id before each line.
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
