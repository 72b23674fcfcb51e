//! SIGHUP: the new configuration is checked by a child; if it is good the broker executes
//! itself again, with its listening sockets and the channels of its old workers.

use super::findings::{Findings, Receiver};
use super::handover::{check_value, REPORT_VARIABLE, VARIABLE};
use super::kind;
use super::options::Options;
use crate::event::{Event, Interest, Loop, TimerId, Token};
use crate::os::process::{self, Descriptors, Ended, Pid, Program};
use crate::os::signals::Signal;
use crate::os::{self, anonymous, files, log, socket, supervisor};
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

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
    /// The signal that asks for it.
    pub(super) fn signal(self) -> Signal {
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

/// What a check has come to.
pub(super) struct Outcome {
    ended: Ended,
    text: Vec<u8>,
    findings: Receiver,
    purpose: Purpose,
    again: Option<Purpose>,
}

/// What is to be done about that.
pub(super) enum Next {
    /// The configuration is good. `None`: the executable is an older one, and tells nothing.
    Go(Purpose, Option<Findings>),
    /// It is refused, and that was logged.
    Stay,
}

impl Outcome {
    /// Logs what the check has said. Besides what is to be done, there may be a signal that came
    /// meanwhile.
    pub(super) fn report(self) -> (Next, Option<Purpose>) {
        let Outcome { ended, text, findings, purpose, again } = self;
        if ended != Ended::Status(0) {
            refused(purpose, &text);
            return (Next::Stay, again);
        }
        for line in lines(&text).filter(|line| line.contains("WARNING: ")) {
            log::message_at(log::Severity::WARNING, &line);
        }
        (Next::Go(purpose, findings.finish()), again)
    }
}

/// Checks of the configuration.
pub(super) struct Reload {
    check: Option<Check>,
    due: Due,
    /// Modules run in this process, and may ignore SIGCHLD: the end of a check is looked for.
    beside_modules: bool,
}

/// What is checked.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    /// The program that reads it, and how.
    pub(super) options: &'a Options,
    /// Sockets without a `listen` block are served.
    pub(super) activated: bool,
}

impl Reload {
    /// Nothing was asked for yet.
    pub(super) fn new(beside_modules: bool) -> Reload {
        Reload { check: None, due: Due::default(), beside_modules }
    }

    /// SIGHUP or SIGUSR1: the configuration is checked first.
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

    /// Workers are ready, or were waited for long enough: signals have their effect at once.
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
                log::message(&format!(
                    "the configuration cannot be checked: {}",
                    os::reason(&error)
                ));
                supervisor::notify("READY=1");
            }
        }
    }

    /// The checking child has said something.
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
        // What writes without an end is heard again in the next turn, until its time is over.
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

    /// The checking child may say no more. A module in this process may have had its exit status thrown
    /// away (SIGCHLD ignored); then what it has said tells how it ended.
    fn silent(&mut self, events: &mut Loop) -> Option<Outcome> {
        let check = self.check.as_ref().filter(|_| self.beside_modules)?;
        if process::exists(check.pid) {
            return None;
        }
        let (pid, refused) = (check.pid, !check.text.is_empty());
        self.ended(pid, Ended::Status(refused.into()), events)
    }

    /// The end of a turn: as long as a check is running SIGCHLD must come.
    pub(super) fn watch(&mut self, events: &mut Loop) -> Option<Outcome> {
        if self.check.is_none() || !self.beside_modules {
            return None;
        }
        let _ = os::signals::catch(Signal::SIGCHLD);
        self.silent(events)
    }

    /// The check takes too long: it is ended, and counts as failed.
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

    /// The result of a check is not of interest any more.
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

    /// In a child of this process: the check is the parent's.
    pub(super) fn forget(&mut self, events: &mut Loop) {
        if let Some(check) = self.check.take() {
            events.remove(&check.output);
            events.remove(&check.findings.pipe);
        }
    }
}

fn start(purpose: Purpose, subject: Subject<'_>, events: &mut Loop) -> std::io::Result<Check> {
    let Subject { options, activated } = subject;
    let (output, write) = process::pipe()?;
    socket::set_nonblocking(&output, true)?;
    let (findings, report) = process::pipe()?;
    socket::set_nonblocking(&findings, true)?;
    // What the next image will have, not what `setenv` made of it; its complaints are
    // logged by us.
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
pub(super) fn share_texts(texts: &[u8]) -> Option<OwnedFd> {
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
