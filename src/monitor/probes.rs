//! Probes remotes, and writes into the zone which of them are up.

use super::kind;
use super::probe::{Probe, Scratch, Script, Verdict};
use super::shared::{name, Shared};
use crate::config::check::{self, Check};
use crate::config::relay::{Relay, Remote};
use crate::event::{Event, Loop, TimerId, Token};
use crate::os::address::Address;
use crate::os::{self, log, process};
use crate::upstream::dial::{Cause, Dialer};
use crate::upstream::health::{pause, Health, Judge, Reason, Standing, WHOLE};
use crate::upstream::proxy::Header;
use crate::upstream::registry::Registry;
use crate::upstream::remote::RemoteId;
use crate::upstream::{handshake, hash};
use std::net::IpAddr;
use std::rc::Rc;

/// The token index of the timer for slow starts, which is no target's.
const CLIMB: u32 = Token::INDICES - 1;
/// How often the shares of slow starts are renewed, in milliseconds.
const CLIMB_STEP: u64 = 250;
/// First probes are spread over this many milliseconds for each remote, and over no more than an
/// interval.
const SPREAD: u64 = 10;

/// A remote that is probed.
struct Target {
    /// Its place in the settings.
    place: usize,
    /// Its id among what is dialled.
    id: RemoteId,
    check: Rc<Check>,
    script: Script,
    judge: Judge,
    /// What the zone says of it.
    health: Health,
    activity: Activity,
    /// That this host could not probe it was logged.
    unable: bool,
}

/// What is done about a target.
enum Activity {
    Idle,
    /// The next probe begins when the timer expires.
    Waiting(TimerId),
    /// A probe, its deadline, and the timer for its next step.
    Probing {
        probe: Probe,
        deadline: u64,
        timer: TimerId,
    },
}

/// All targets.
pub(super) struct Probes {
    targets: Vec<Target>,
    /// The remotes as they are dialled for probes.
    registry: Registry,
    settings: Relay,
    scratch: Scratch,
    climbing: bool,
    /// For the spread of intervals.
    random: u64,
}

impl Probes {
    pub(super) fn new(shared: &Shared, now: u64) -> Probes {
        let mut settings = shared.settings.clone();
        // A probe has a deadline of its own, and the monitor handles TLS itself.
        (settings.connect_timeout, settings.tls.handshake_timeout) = (0, 0);
        settings.tls.kernel = false;
        let mut connectors = shared.connectors.clone();
        connectors.resize(settings.remotes.len(), None);
        for (remote, connector) in settings.remotes.iter_mut().zip(&mut connectors) {
            if let Some(check) = &remote.check {
                let port = check.port.unwrap_or(remote.address.port());
                if let Some(address) = &check.address {
                    remote.address = address.clone().with_port(port);
                } else if let Address::Ip(_) = remote.address {
                    remote.address = remote.address.clone().with_port(port);
                }
                if check.probe == check::Probe::Tcp {
                    *connector = None;
                }
            }
        }
        let registry = Registry::new(&settings, connectors);
        let ids = registry.identities().into_iter().map(|(id, _)| id);
        let targets = ids.enumerate().zip(&shared.rows);
        let targets = targets.filter_map(|((place, id), &row)| {
            let remote = &shared.settings.remotes[place];
            let check = remote.check.clone()?;
            let script = Script::new(&check.probe, &host(remote));
            let before = shared.zone.health(row);
            let judge = Judge::new(&check, before, now);
            let (health, activity) = (before, Activity::Idle);
            Some(Target { place, id, check, script, judge, health, activity, unable: false })
        });
        Probes {
            targets: targets.collect(),
            registry,
            settings,
            scratch: Scratch::new(),
            climbing: false,
            random: os::wall_clock() ^ (process::id() as u64) << 32,
        }
    }

    /// Begins to probe.
    pub(super) fn begin(&mut self, shared: &Shared, events: &mut Loop) {
        for (place, &row) in shared.rows.iter().enumerate() {
            // What a former configuration had probed.
            if shared.settings.remotes[place].check.is_none() {
                shared.zone.set_health(row, Health::default());
            }
        }
        let count = self.targets.len() as u64;
        for index in 0..self.targets.len() {
            let target = &mut self.targets[index];
            if target.health.standing == Standing::Unknown {
                target.health.since = seconds();
            }
            target.publish(shared, events.now());
            let interval = u64::from(target.check.interval) * 1000;
            let delay = self.random() % (SPREAD * count).clamp(1, interval);
            self.wait(index, delay, events);
        }
        self.follow_climbs(events);
    }

    /// Gives up what is under way.
    pub(super) fn end(&mut self, events: &mut Loop) {
        for target in &mut self.targets {
            match std::mem::replace(&mut target.activity, Activity::Idle) {
                Activity::Idle => {}
                Activity::Waiting(timer) => events.cancel(timer),
                Activity::Probing { probe, timer, .. } => {
                    events.cancel(timer);
                    if let Some(socket) = probe.socket() {
                        events.remove(socket);
                    }
                }
            }
        }
    }

    /// A socket is ready.
    pub(super) fn event(&mut self, event: Event, shared: &Shared, events: &mut Loop) {
        self.step(event.token.index(), Cause::Ready, shared, events);
    }

    /// A timer has expired.
    pub(super) fn timer(
        &mut self,
        timer: TimerId,
        token: Token,
        shared: &Shared,
        events: &mut Loop,
    ) {
        let index = token.index();
        if index == CLIMB {
            self.climbing = false;
            for target in self.targets.iter_mut().filter(|target| target.judge.is_climbing()) {
                target.publish(shared, events.now());
            }
            return self.follow_climbs(events);
        }
        let Some(target) = self.targets.get_mut(index as usize) else {
            return;
        };
        match &mut target.activity {
            Activity::Waiting(armed) if *armed == timer => {
                let deadline = events.now() + u64::from(target.check.timeout) * 1000;
                let timer = events.arm(Token::new(kind::PROBES, index), deadline);
                let probe = Probe::new(target.id);
                target.activity = Activity::Probing { probe, deadline, timer };
                self.step(index, Cause::Start, shared, events);
            }
            Activity::Probing { deadline, timer: armed, .. }
                if *armed == timer && events.now() >= *deadline =>
            {
                let text = format!("no answer within {} s", target.check.timeout);
                self.finish(index, Verdict::Failed(Reason::Timeout, text), shared, events);
            }
            Activity::Probing { deadline, timer: armed, .. } if *armed == timer => {
                // It has expired, so the next step gets another.
                *armed = events.arm(token, *deadline);
                self.step(index, Cause::Time, shared, events);
            }
            // The timer expired before it could be cancelled.
            _ => {}
        }
    }

    fn step(&mut self, index: u32, cause: Cause, shared: &Shared, events: &mut Loop) {
        let Probes { targets, registry, settings, scratch, .. } = self;
        let Some(target) = targets.get_mut(index as usize) else {
            return;
        };
        let Activity::Probing { probe, deadline, timer } = &mut target.activity else {
            return;
        };
        let before = probe.socket().is_some();
        let Scratch { input, output, plain } = scratch;
        let scratch = handshake::Scratch { input, output };
        let announce = &Header::local;
        let mut dialer = Dialer { registry, settings, now: events.now(), scratch, announce };
        let verdict = probe.step(cause, &target.script, &mut dialer, plain);
        if let Some(verdict) = verdict {
            return self.finish(index, verdict, shared, events);
        }
        events.renew(*timer, probe.due().unwrap_or(*deadline).min(*deadline));
        if let Some(socket) = probe.socket() {
            match before {
                true => events.set_interest(socket, probe.interest()),
                false => {
                    let token = Token::new(kind::PROBES, index);
                    events.register(socket, token, probe.interest());
                }
            }
        }
    }

    /// A probe has ended.
    fn finish(&mut self, index: u32, verdict: Verdict, shared: &Shared, events: &mut Loop) {
        let Some(target) = self.targets.get_mut(index as usize) else {
            return;
        };
        if let Activity::Probing { probe, timer, .. } =
            std::mem::replace(&mut target.activity, Activity::Idle)
        {
            events.cancel(timer);
            if let Some(socket) = probe.socket() {
                events.remove(socket);
            }
        }
        target.hear(&verdict, shared, events.now());
        let turning = target.judge.is_turning() || matches!(verdict, Verdict::Unknown(_));
        let check = Rc::clone(&target.check);
        let delay = pause(&check, turning, self.random());
        self.wait(index as usize, delay, events);
        self.follow_climbs(events);
    }

    /// The next probe of a target begins after this many milliseconds.
    fn wait(&mut self, index: usize, delay: u64, events: &mut Loop) {
        let timer = events.arm(Token::new(kind::PROBES, index as u32), events.now() + delay);
        self.targets[index].activity = Activity::Waiting(timer);
    }

    /// Renews the shares of slow starts as long as there are any.
    fn follow_climbs(&mut self, events: &mut Loop) {
        if !self.climbing && self.targets.iter().any(|target| target.judge.is_climbing()) {
            self.climbing = true;
            events.arm(Token::new(kind::PROBES, CLIMB), events.now() + CLIMB_STEP);
        }
    }

    /// The next of a row of numbers without visible order.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        hash::mix(self.random)
    }
}

impl Target {
    /// Takes the result of a probe.
    fn hear(&mut self, verdict: &Verdict, shared: &Shared, now: u64) {
        let remote = || name(&shared.settings.remotes[self.place]);
        let (passed, reason, text) = match verdict {
            Verdict::Passed => (true, Reason::Passed, ""),
            Verdict::Failed(reason, text) => (false, *reason, &**text),
            Verdict::Unknown(text) => {
                if !std::mem::replace(&mut self.unable, true) {
                    let remote = remote();
                    log::braked(log::Kind::Remote, || {
                        format!("remote {remote} cannot be probed: {text}")
                    });
                }
                return;
            }
        };
        self.unable = false;
        if self.judge.hear(passed, now) {
            (self.health.since, self.health.reason) = (seconds(), reason);
            let remote = remote();
            log::braked(log::Kind::Remote, || match passed {
                true => format!("remote {remote} is up: its probes succeed"),
                false => format!("remote {remote} is down: {text}"),
            });
            if passed {
                // It has proved that it works, whatever sessions have found before.
                shared.zone.set_retry_at(shared.rows[self.place], 0);
            }
        } else if passed && self.judge.is_up() {
            self.health.reason = Reason::Passed;
        }
        self.publish(shared, now);
    }

    /// Writes what is known into the zone.
    fn publish(&mut self, shared: &Shared, now: u64) {
        self.health.standing = match self.judge.is_up() {
            true => Standing::Up,
            false => Standing::Down,
        };
        self.health.share = match self.judge.is_up() {
            true => self.judge.share(now),
            false => WHOLE,
        };
        shared.zone.set_health(shared.rows[self.place], self.health);
    }
}

/// What a request names as its host: the remote's name or address, with a port that is not the
/// usual one.
fn host(remote: &Remote) -> String {
    let host = match (&remote.host, remote.address.ip()) {
        (Some(host), _) => host.to_string(),
        (None, Some(IpAddr::V6(ip))) => format!("[{ip}]"),
        (None, Some(ip)) => ip.to_string(),
        (None, None) => return "localhost".to_owned(),
    };
    let usual = if remote.tls.is_some() { 443 } else { 80 };
    match remote.address.port() {
        port if port == usual => host,
        port => format!("{host}:{port}"),
    }
}

/// The wall clock in seconds, as it stands in the zone.
fn seconds() -> u32 {
    u32::try_from(os::wall_clock()).unwrap_or(u32::MAX)
}
