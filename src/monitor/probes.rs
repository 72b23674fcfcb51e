//! Probes remotes, and writes into the zone which of them are up.

use super::kind;
use super::probe::{Probe, Scratch, Script, Verdict};
use super::shared::{Known, Shared};
use crate::config::check::{self, Check};
use crate::config::relay::{Relay, Remote};
use crate::event::{Event, Loop, TimerId, Token};
use crate::os::address::Address;
use crate::os::hash::Random;
use crate::os::{self, log, process};
use crate::upstream::dial::{Cause, Dialer};
use crate::upstream::handshake;
use crate::upstream::health::{pause, Health, Judge, Reason, Standing, WHOLE};
use crate::upstream::proxy::Header;
use crate::upstream::registry::Registry;
use crate::upstream::remote::{self as upstream, RemoteId};
use crate::upstream::zone::counters::{OfRemote, Place};
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
    /// Its place among the remotes, which is also its place among the targets.
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
    /// By the places of their remotes.
    targets: Vec<Option<Target>>,
    /// The remotes as they are dialled for probes.
    registry: Registry,
    settings: Relay,
    scratch: Scratch,
    climbing: bool,
    /// For the spread of intervals.
    random: Random,
}

impl Probes {
    pub(super) fn new(shared: &Shared) -> Probes {
        let mut settings = shared.settings.clone();
        // A probe has a deadline of its own, and the monitor handles TLS itself.
        (settings.connect_timeout, settings.tls.handshake_timeout) = (0, 0);
        settings.tls.kernel = false;
        settings.remotes.clear();
        settings.names.clear();
        Probes {
            targets: Vec::new(),
            registry: Registry::new(&settings, Vec::new()),
            settings,
            scratch: Scratch::new(),
            climbing: false,
            random: Random::new(os::wall_clock() ^ (process::id() as u64) << 32),
        }
    }

    /// Begins to probe.
    pub(super) fn begin(&mut self, shared: &Shared, events: &mut Loop) {
        let places: Vec<usize> = shared.remotes().map(|(place, _)| place).collect();
        self.joined(&places, shared, events);
    }

    /// Begins to probe the remotes in these places.
    pub(super) fn joined(&mut self, places: &[usize], shared: &Shared, events: &mut Loop) {
        for &place in places {
            let Some(known) = shared.remote(place) else {
                continue;
            };
            let Some(target) = self.target(place, known, shared, events.now()) else {
                // What a former configuration had probed.
                shared.zone.set_health(known.row, Health::default());
                continue;
            };
            let interval = u64::from(target.check.interval) * 1000;
            if place >= self.targets.len() {
                self.targets.resize_with(place + 1, || None);
            }
            self.targets[place] = Some(target);
            let delay = self.random.draw() % (SPREAD * places.len() as u64).clamp(1, interval);
            self.wait(place, delay, events);
        }
        self.follow_climbs(events);
    }

    /// The remotes in these places are gone.
    pub(super) fn left(&mut self, places: &[usize], events: &mut Loop) {
        for &place in places {
            if let Some(mut target) = self.targets.get_mut(place).and_then(Option::take) {
                target.stop(events);
                self.registry.remove(target.id);
            }
        }
    }

    /// What is probed of a remote; `None` if it has no check.
    fn target(&mut self, place: usize, known: &Known, shared: &Shared, now: u64) -> Option<Target> {
        let check = known.remote.check.clone()?;
        let (mut settings, mut connector) = (known.remote.clone(), known.connector.clone());
        let port = check.port.unwrap_or(settings.address.port());
        if let Some(address) = &check.address {
            settings.address = address.clone().with_port(port);
        } else if let Address::Ip(_) = settings.address {
            settings.address = settings.address.with_port(port);
        }
        if check.probe == check::Probe::Tcp {
            connector = None;
        }
        // Never fails: its zone is not shared.
        let id = self.registry.add(upstream::Remote { settings, connector }).ok()?;
        let script = Script::new(&check.probe, &host(&known.remote));
        let mut health = shared.zone.health(known.row);
        let judge = Judge::new(&check, health, now);
        if health.standing == Standing::Unknown {
            health.since = seconds();
        }
        let activity = Activity::Idle;
        let mut target =
            Target { place, id, check, script, judge, health, activity, unable: false };
        target.publish(shared, now);
        Some(target)
    }

    /// Gives up what is under way.
    pub(super) fn end(&mut self, events: &mut Loop) {
        for target in self.targets.iter_mut().flatten() {
            target.stop(events);
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
            let targets = self.targets.iter_mut().flatten();
            for target in targets.filter(|target| target.judge.is_climbing()) {
                target.publish(shared, events.now());
            }
            return self.follow_climbs(events);
        }
        let Some(Some(target)) = self.targets.get_mut(index as usize) else {
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
        let Some(Some(target)) = targets.get_mut(index as usize) else {
            return;
        };
        let Activity::Probing { probe, deadline, timer } = &mut target.activity else {
            return;
        };
        let before = probe.socket().is_some();
        let Scratch { input, output, plain } = scratch;
        let scratch = handshake::Scratch { input, output };
        let (now, announce, client) = (events.now(), &Header::local, &|| None);
        let mut dialer = Dialer { registry, settings, now, scratch, announce, client };
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
        let Some(Some(target)) = self.targets.get_mut(index as usize) else {
            return;
        };
        target.stop(events);
        target.hear(&verdict, shared, events.now());
        let turning = target.judge.is_turning() || matches!(verdict, Verdict::Unknown(_));
        let check = Rc::clone(&target.check);
        let delay = pause(&check, turning, self.random.draw());
        self.wait(index as usize, delay, events);
        self.follow_climbs(events);
    }

    /// The next probe of a target begins after this many milliseconds.
    fn wait(&mut self, index: usize, delay: u64, events: &mut Loop) {
        if let Some(Some(target)) = self.targets.get_mut(index) {
            let timer = events.arm(Token::new(kind::PROBES, index as u32), events.now() + delay);
            target.activity = Activity::Waiting(timer);
        }
    }

    /// Renews the shares of slow starts as long as there are any.
    fn follow_climbs(&mut self, events: &mut Loop) {
        let mut targets = self.targets.iter().flatten();
        if !self.climbing && targets.any(|target| target.judge.is_climbing()) {
            self.climbing = true;
            events.arm(Token::new(kind::PROBES, CLIMB), events.now() + CLIMB_STEP);
        }
    }
}

impl Target {
    /// Gives up what is under way.
    fn stop(&mut self, events: &mut Loop) {
        match std::mem::replace(&mut self.activity, Activity::Idle) {
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

    /// Takes the result of a probe.
    fn hear(&mut self, verdict: &Verdict, shared: &Shared, now: u64) {
        let Some(known) = shared.remote(self.place) else {
            return;
        };
        let (passed, reason, text) = match verdict {
            Verdict::Passed => (true, Reason::Passed, ""),
            Verdict::Failed(reason, text) => (false, *reason, &**text),
            Verdict::Unknown(text) => {
                if !std::mem::replace(&mut self.unable, true) {
                    let remote = known.name();
                    log::braked(log::Kind::Remote, || {
                        format!("remote {remote} cannot be probed: {text}")
                    });
                }
                return;
            }
        };
        self.unable = false;
        let counter = if passed { OfRemote::ProbesPassed } else { OfRemote::ProbesFailed };
        shared.counters.add(Place::Remote(known.row, counter), 1);
        if self.judge.hear(passed, now) {
            (self.health.since, self.health.reason) = (seconds(), reason);
            let remote = known.name();
            log::braked(log::Kind::Remote, || match passed {
                true => format!("remote {remote} is up: its probes succeed"),
                false => format!("remote {remote} is down: {text}"),
            });
            if passed {
                // It has proved that it works, whatever sessions have found before.
                shared.zone.set_retry_at(known.row, 0);
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
        if let Some(known) = shared.remote(self.place) {
            shared.zone.set_health(known.row, self.health);
        }
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
