//! Looks up names again, and publishes their addresses in the zone.

use super::kind;
use super::lookup::{too_long, Lookup, Wanted};
use super::shared::{Changes, Shared};
use crate::config::relay::names::{Kind, Place};
use crate::event::{Event, Loop, TimerId, Token};
use crate::os::address::Address;
use crate::os::dns::hosts::Files;
use crate::os::log;
use crate::upstream::names::{identity, Answer, News, Tracker};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::RawFd;

/// The token index of the timer for looking at files, which is no name's.
const FILES: u32 = Token::INDICES - 1;
/// How often it is looked whether /etc/hosts and resolv.conf have changed, in milliseconds.
const FILES_STEP: u64 = 2000;
/// How long a lookup may take, in milliseconds.
const PATIENCE: u64 = 15_000;
/// First lookups are this many milliseconds apart.
const SPREAD: u64 = 10;
/// The most addresses that a message names.
const SHOWN: usize = 4;

/// A name.
struct Followed {
    identity: u64,
    tracker: Tracker,
    activity: Activity,
    published: bool,
    /// It was logged that there is no room for its addresses.
    cramped: bool,
    /// Addresses that were found and are listeners of this relay.
    own: Vec<SocketAddr>,
}

enum Activity {
    Idle,
    /// The next lookup begins when the timer expires.
    Waiting(TimerId),
    /// A lookup, its deadline, and the timer for its next step.
    Looking {
        lookup: Lookup,
        deadline: u64,
        timer: TimerId,
    },
}

/// All names.
pub(super) struct Names {
    names: Vec<Followed>,
    /// Whose the descriptors are.
    owners: BTreeMap<RawFd, usize>,
    files: Files,
    watching: Option<TimerId>,
}

impl Names {
    pub(super) fn new(shared: &Shared) -> Names {
        let names = shared.settings.names.iter().enumerate().map(|(index, name)| {
            let remotes = shared.settings.remotes.iter();
            let places = remotes.filter_map(|remote| match (&remote.address, remote.origin) {
                (Address::Ip(address), Some(origin)) if origin.index as usize == index => {
                    let weight = if name.kind == Kind::Host { 0 } else { remote.weight };
                    Some(Place { address: *address, weight, tier: remote.tier })
                }
                _ => None,
            });
            let places: Vec<Place> = places.collect();
            Followed {
                identity: identity(name),
                tracker: Tracker::new(name.bound.seconds(), &places),
                activity: Activity::Idle,
                published: false,
                cramped: false,
                own: Vec::new(),
            }
        });
        let names = names.collect();
        Names { names, owners: BTreeMap::new(), files: Files::look(), watching: None }
    }

    /// Begins to look up names.
    pub(super) fn begin(&mut self, shared: &Shared, events: &mut Loop) {
        let identities: Vec<u64> = self.names.iter().map(|name| name.identity).collect();
        shared.zone.keep_names(&identities);
        if self.names.is_empty() {
            return;
        }
        for index in 0..self.names.len() {
            self.wait(index, SPREAD * index as u64, events);
        }
        self.watch_files(events);
    }

    /// Gives up what is under way.
    pub(super) fn end(&mut self, events: &mut Loop) {
        for index in 0..self.names.len() {
            self.stop(index, events);
        }
        self.watching.take().into_iter().for_each(|timer| events.cancel(timer));
    }

    /// A descriptor is ready.
    pub(super) fn event(
        &mut self,
        event: Event,
        shared: &mut Shared,
        events: &mut Loop,
    ) -> Changes {
        let fd = event.token.index() as RawFd;
        let Some(&index) = self.owners.get(&fd) else {
            return Changes::default();
        };
        if let Activity::Looking { lookup, .. } = &self.names[index].activity {
            lookup.ready(fd, event.readable, event.writable);
        }
        self.go_on(index, shared, events)
    }

    /// A timer has expired.
    pub(super) fn timer(
        &mut self,
        timer: TimerId,
        token: Token,
        shared: &mut Shared,
        events: &mut Loop,
    ) -> Changes {
        let index = token.index() as usize;
        if token.index() == FILES {
            if self.watching == Some(timer) {
                self.look_at_files(events);
            }
            return Changes::default();
        }
        let Some(name) = self.names.get_mut(index) else {
            return Changes::default();
        };
        match &mut name.activity {
            Activity::Waiting(armed) if *armed == timer => self.begin_lookup(index, shared, events),
            Activity::Looking { deadline, timer: armed, .. }
                if *armed == timer && events.now() >= *deadline =>
            {
                self.finish(index, Answer::Failed(too_long(PATIENCE)), shared, events)
            }
            Activity::Looking { deadline, timer: armed, lookup } if *armed == timer => {
                // It has expired, so the next step gets another.
                *armed = events.arm(token, *deadline);
                lookup.tick();
                self.go_on(index, shared, events)
            }
            // The timer expired before it could be cancelled.
            _ => Changes::default(),
        }
    }

    /// If a file has changed that decides about lookups, all names are looked up again.
    fn look_at_files(&mut self, events: &mut Loop) {
        let files = Files::look();
        if files != self.files {
            self.files = files;
            for index in 0..self.names.len() {
                self.stop(index, events);
                self.wait(index, SPREAD * index as u64, events);
            }
        }
        self.watch_files(events);
    }

    fn watch_files(&mut self, events: &mut Loop) {
        let due = events.now() + FILES_STEP;
        self.watching = Some(events.arm(Token::new(kind::NAMES, FILES), due));
    }

    fn begin_lookup(&mut self, index: usize, shared: &mut Shared, events: &mut Loop) -> Changes {
        let name = &shared.settings.names[index];
        let places = self.names[index].tracker.set().places();
        let known =
            [true, false].map(|four| places.iter().any(|place| place.address.is_ipv4() == four));
        let (text, port) = (name.text().to_owned(), name.template.address.port());
        match Lookup::begin(Wanted { text, port, kind: name.kind, known }) {
            Ok(lookup) => {
                let deadline = events.now() + PATIENCE;
                let timer = events.arm(Token::new(kind::NAMES, index as u32), deadline);
                self.names[index].activity = Activity::Looking { lookup, deadline, timer };
                self.go_on(index, shared, events)
            }
            Err(answer) => self.finish(index, answer, shared, events),
        }
    }

    /// Goes on with a lookup as far as that is possible without waiting.
    fn go_on(&mut self, index: usize, shared: &mut Shared, events: &mut Loop) -> Changes {
        let Activity::Looking { lookup, deadline, timer } = &mut self.names[index].activity else {
            return Changes::default();
        };
        let answer = lookup.step();
        lookup.watch(kind::NAMES, index, &mut self.owners, events);
        if let Some(answer) = answer {
            return self.finish(index, answer, shared, events);
        }
        let due = lookup.patience().map_or(*deadline, |patience| events.now() + patience);
        events.renew(*timer, due.min(*deadline));
        Changes::default()
    }

    /// Ends what is under way for a name.
    fn stop(&mut self, index: usize, events: &mut Loop) {
        match std::mem::replace(&mut self.names[index].activity, Activity::Idle) {
            Activity::Idle => {}
            Activity::Waiting(timer) => events.cancel(timer),
            Activity::Looking { timer, lookup, .. } => {
                events.cancel(timer);
                self.owners.retain(|fd, owner| {
                    if *owner == index {
                        events.remove(fd);
                    }
                    *owner != index
                });
                drop(lookup);
            }
        }
    }

    /// The next lookup of a name begins after this many milliseconds.
    fn wait(&mut self, index: usize, delay: u64, events: &mut Loop) {
        let timer = events.arm(Token::new(kind::NAMES, index as u32), events.now() + delay);
        self.names[index].activity = Activity::Waiting(timer);
    }

    /// A lookup has ended.
    fn finish(
        &mut self,
        index: usize,
        answer: Answer,
        shared: &mut Shared,
        events: &mut Loop,
    ) -> Changes {
        self.stop(index, events);
        let (changes, delay) = self.names[index].hear(index, answer, shared);
        self.wait(index, delay, events);
        changes
    }
}

impl Followed {
    /// Takes an answer: publishes the addresses, if there is news. Returns what has changed for the
    /// other parts, and after how many milliseconds to look up again.
    fn hear(&mut self, index: usize, answer: Answer, shared: &mut Shared) -> (Changes, u64) {
        let answer = self.settle(index, answer, shared);
        let is_good = matches!(answer, Answer::Found { .. });
        let mut tracker = self.tracker.clone();
        let (news, delay) = tracker.hear(answer);
        let name = &shared.settings.names[index];
        let text = name.text().to_owned();
        self.tell(&text, &news, tracker.set().places().len());
        let difference = news.set.clone().unwrap_or_default();
        let Some(changes) = shared.exchange(index, &difference) else {
            if !std::mem::replace(&mut self.cramped, true) {
                log::message(&format!(
                    "remote {text}: no place in shared memory for its addresses"
                ));
            }
            return (Changes::default(), delay);
        };
        let is_news = !difference.is_empty() || is_good && !self.published;
        self.tracker = tracker;
        if is_news && !self.tracker.set().places().is_empty() {
            self.published = shared.zone.publish(self.identity, self.tracker.set().places());
            if !self.published && !std::mem::replace(&mut self.cramped, true) {
                log::message(&format!(
                    "remote {text}: no place in shared memory for its addresses"
                ));
            }
        }
        (changes, delay)
    }

    /// Leaves out addresses that are listeners of this relay, which would relay to itself. A service
    /// without a weight has the configured one.
    fn settle(&mut self, index: usize, answer: Answer, shared: &Shared) -> Answer {
        let Answer::Found { mut places, lifetime, silent } = answer else {
            return answer;
        };
        let name = &shared.settings.names[index];
        let usual = name.template.weight.min(u16::MAX.into());
        for place in &mut places {
            if name.kind == Kind::Service && place.weight == 0 {
                place.weight = usual;
            }
        }
        let mut own = Vec::new();
        places.retain(|place| {
            let is_own = (shared.is_own)(&place.remote(&name.template));
            if is_own {
                own.push(place.address);
            }
            !is_own
        });
        own.sort_unstable();
        if own != self.own {
            for address in own.iter().filter(|address| !self.own.contains(address)) {
                let text = name.text();
                log::braked(log::Kind::Remote, || {
                    let address = Address::Ip(*address);
                    format!(
                        "remote {text}: {address} is a listener of this relay, which would relay \
                         to itself; it is not used"
                    )
                });
            }
            self.own = own;
        }
        Answer::Found { places, lifetime, silent }
    }

    /// Logs what is new. `count`: how many addresses are in use now.
    fn tell(&self, text: &str, news: &News, count: usize) {
        let say = |line: String| log::braked(log::Kind::Remote, || line);
        if let Some(reason) = &news.trouble {
            say(match count {
                0 => format!("remote {text} cannot be looked up: {reason}; it has no address yet"),
                1 => format!("remote {text} cannot be looked up: {reason}; its address stays"),
                _ => {
                    format!(
                        "remote {text} cannot be looked up: {reason}; its {count} addresses stay"
                    )
                }
            });
        }
        if news.recovered {
            say(format!("remote {text} can be looked up again"));
        }
        if let Some(surplus) = news.surplus {
            say(format!(
                "remote {text} has {} addresses, of which {count} are used",
                count + surplus
            ));
        }
        if let Some(difference) = &news.set {
            let joined = difference.joined.iter().map(|place| place.address);
            let joined = list("joined", joined.collect());
            let left = list("left", difference.left.clone());
            let changed = difference.changed.iter().map(|place| place.address);
            let changed = list("changed", changed.collect());
            let parts: Vec<String> = [joined, left, changed].into_iter().flatten().collect();
            say(format!("remote {text}: {}; {count} in use", parts.join(", ")));
        }
    }
}

/// `[192.0.2.1]:80 [192.0.2.2]:80 joined`; `None` for no address.
fn list(what: &str, addresses: Vec<SocketAddr>) -> Option<String> {
    let shown = addresses.iter().take(SHOWN).map(|&address| Address::Ip(address).to_string());
    let shown: Vec<String> = shown.collect();
    let more = addresses.len() - shown.len();
    match (shown.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(format!("{} {what}", shown.join(" "))),
        (false, more) => Some(format!("{} and {more} more {what}", shown.join(" "))),
    }
}
