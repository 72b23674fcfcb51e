//! Fetches OCSP responses for our certificates (`tls ocsp = fetch`), and puts them into the zone for
//! workers to staple.
//!
//! A response is asked for again when half of its time has passed. If that fails, what is there
//! stays, and it is tried again with growing pauses. A failure is logged once, until it is over.

use super::fetch::Fetch;
use super::kind;
use super::lookup::{Lookup, Wanted};
use super::shared::Shared;
use crate::config::relay::names::Kind;
use crate::event::{Event, Loop, TimerId, Token};
use crate::os::hash::Random;
use crate::os::{self, log, process};
use crate::tls::ocsp::{Answer, Inquiry, Standing};
use crate::upstream::names;
use crate::upstream::zone::counters::{General, Place};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};

/// How long an attempt may take, with the lookup of the responder's name, in milliseconds.
const PATIENCE: u64 = 15_000;
/// The most addresses of a responder that are tried in one attempt.
const MOST_ADDRESSES: usize = 4;
/// First questions are this many milliseconds apart.
const SPREAD: u64 = 50;
/// The pauses after failures, in seconds: the first, which is doubled each time, and the longest.
const FIRST_PAUSE: u64 = 5;
const LAST_PAUSE: u64 = 3600;
/// The least and the most seconds until a response is asked for again.
const LEAST_WAIT: u64 = 10;
const MOST_WAIT: u64 = 24 * 3600;

/// A certificate.
struct Asked {
    inquiry: Inquiry,
    activity: Activity,
    /// What the response in the zone says.
    answer: Option<Answer>,
    /// Attempts in a row that have failed.
    failures: u32,
}

enum Activity {
    Idle,
    /// The next attempt begins when the timer expires.
    Waiting(TimerId),
    /// The responder's name is looked up.
    Looking {
        lookup: Lookup,
        deadline: u64,
        timer: TimerId,
    },
    /// The responder is asked. If it fails, these addresses are left.
    Asking {
        fetch: Fetch,
        left: VecDeque<SocketAddr>,
        timer: TimerId,
    },
}

/// All certificates.
pub(super) struct Staples {
    all: Vec<Asked>,
    /// Whose the descriptors are.
    owners: BTreeMap<RawFd, usize>,
    /// For the spread of intervals.
    random: Random,
}

impl Staples {
    pub(super) fn new(inquiries: Vec<Inquiry>) -> Staples {
        let asked =
            |inquiry| Asked { inquiry, activity: Activity::Idle, answer: None, failures: 0 };
        Staples {
            all: inquiries.into_iter().map(asked).collect(),
            owners: BTreeMap::new(),
            random: Random::new(os::wall_clock() ^ (process::id() as u64) << 32),
        }
    }

    /// Begins to ask, unless a former monitor has left what is still good.
    pub(super) fn begin(&mut self, shared: &Shared, events: &mut Loop) {
        if self.all.is_empty() {
            return;
        }
        let certificates: Vec<_> = self.all.iter().map(|asked| asked.inquiry.certificate).collect();
        shared.zone.keep_staples(&certificates);
        let now = os::wall_clock();
        for index in 0..self.all.len() {
            let asked = &mut self.all[index];
            let left = shared.zone.staple(&asked.inquiry.certificate);
            asked.answer = left.and_then(|left| asked.inquiry.judge(&left.response, now).ok());
            let delay = match asked.answer {
                Some(answer) if half(&answer) > now => self.until_next(&answer, now),
                _ => SPREAD * index as u64,
            };
            self.wait(index, delay, events);
        }
    }

    /// Gives up what is under way.
    pub(super) fn end(&mut self, events: &mut Loop) {
        for index in 0..self.all.len() {
            self.stop(index, events);
        }
    }

    /// A descriptor is ready.
    pub(super) fn event(&mut self, event: Event, shared: &Shared, events: &mut Loop) {
        let fd = event.token.index() as RawFd;
        let Some(&index) = self.owners.get(&fd) else {
            return;
        };
        if let Activity::Looking { lookup, .. } = &self.all[index].activity {
            lookup.ready(fd, event.readable, event.writable);
        }
        self.go_on(index, shared, events);
    }

    /// A timer has expired.
    pub(super) fn timer(
        &mut self,
        timer: TimerId,
        token: Token,
        shared: &Shared,
        events: &mut Loop,
    ) {
        let index = token.index() as usize;
        let Some(asked) = self.all.get_mut(index) else {
            return;
        };
        let too_long = || format!("no answer within {} s", PATIENCE / 1000);
        match &mut asked.activity {
            Activity::Waiting(armed) if *armed == timer => self.ask(index, shared, events),
            Activity::Looking { deadline, timer: armed, .. }
                if *armed == timer && events.now() >= *deadline =>
            {
                self.failed(index, &too_long(), shared, events);
            }
            Activity::Looking { deadline, timer: armed, lookup } if *armed == timer => {
                // It has expired, so the next step gets another.
                *armed = events.arm(token, *deadline);
                lookup.tick();
                self.go_on(index, shared, events);
            }
            Activity::Asking { timer: armed, .. } if *armed == timer => {
                self.failed(index, &too_long(), shared, events);
            }
            // The timer expired before it could be cancelled.
            _ => {}
        }
    }

    /// Begins an attempt.
    fn ask(&mut self, index: usize, shared: &Shared, events: &mut Loop) {
        let responder = &self.all[index].inquiry.responder;
        let deadline = events.now() + PATIENCE;
        let timer = events.arm(Token::new(kind::STAPLES, index as u32), deadline);
        let (text, port) = (responder.host.clone(), responder.port);
        self.all[index].activity = Activity::Waiting(timer);
        if let Ok(ip) = text.parse::<IpAddr>() {
            let left = VecDeque::from([SocketAddr::new(ip, port)]);
            return self.connect(index, left, timer, shared, events);
        }
        let wanted = Wanted { text, port, kind: Kind::Host, known: [false; 2] };
        match Lookup::begin(wanted) {
            Ok(lookup) => {
                self.all[index].activity = Activity::Looking { lookup, deadline, timer };
                self.go_on(index, shared, events);
            }
            Err(answer) => self.found(index, answer, timer, shared, events),
        }
    }

    /// The responder's name has been looked up.
    fn found(
        &mut self,
        index: usize,
        answer: names::Answer,
        timer: TimerId,
        shared: &Shared,
        events: &mut Loop,
    ) {
        match answer {
            names::Answer::Found { places, .. } => {
                let addresses = places.iter().map(|place| place.address);
                let left = addresses.take(MOST_ADDRESSES).collect();
                self.connect(index, left, timer, shared, events);
            }
            names::Answer::Nothing => {
                self.failed(index, "its name has no address", shared, events);
            }
            names::Answer::Failed(text) => self.failed(index, &text, shared, events),
        }
    }

    /// Asks at the first address that takes a connection.
    fn connect(
        &mut self,
        index: usize,
        mut left: VecDeque<SocketAddr>,
        timer: TimerId,
        shared: &Shared,
        events: &mut Loop,
    ) {
        let inquiry = &self.all[index].inquiry;
        let question = match inquiry.question() {
            Ok(question) => question,
            Err(errors) => return self.failed(index, &errors.to_string(), shared, events),
        };
        let mut reason = "its name has no address".to_owned();
        while let Some(address) = left.pop_front() {
            match Fetch::begin(address, &inquiry.responder, &question) {
                Ok(fetch) => {
                    let fd = fetch.socket().as_raw_fd();
                    let token = Token::new(kind::STAPLES, fd as u32);
                    events.register(fetch.socket(), token, fetch.interest());
                    self.owners.insert(fd, index);
                    self.all[index].activity = Activity::Asking { fetch, left, timer };
                    return;
                }
                Err(text) => reason = text,
            }
        }
        self.failed(index, &reason, shared, events);
    }

    /// Goes on as far as that is possible without waiting.
    fn go_on(&mut self, index: usize, shared: &Shared, events: &mut Loop) {
        match &mut self.all[index].activity {
            Activity::Idle | Activity::Waiting(_) => {}
            Activity::Looking { lookup, deadline, timer } => {
                let answer = lookup.step();
                lookup.watch(kind::STAPLES, index, &mut self.owners, events);
                let timer = *timer;
                if let Some(answer) = answer {
                    let deadline = *deadline;
                    self.forget_descriptors(index, events);
                    events.renew(timer, deadline);
                    self.all[index].activity = Activity::Waiting(timer);
                    return self.found(index, answer, timer, shared, events);
                }
                let due = lookup.patience().map_or(*deadline, |patience| events.now() + patience);
                events.renew(timer, due.min(*deadline));
            }
            Activity::Asking { fetch, left, timer } => match fetch.step() {
                None => events.set_interest(fetch.socket(), fetch.interest()),
                Some(Ok(response)) => self.heard(index, &response, shared, events),
                Some(Err(_)) if !left.is_empty() => {
                    let (left, timer) = (std::mem::take(left), *timer);
                    self.forget_descriptors(index, events);
                    self.all[index].activity = Activity::Waiting(timer);
                    self.connect(index, left, timer, shared, events);
                }
                Some(Err(text)) => self.failed(index, &text, shared, events),
            },
        }
    }

    /// The responder has answered something.
    fn heard(&mut self, index: usize, response: &[u8], shared: &Shared, events: &mut Loop) {
        let now = os::wall_clock();
        let asked = &mut self.all[index];
        let answer = match asked.inquiry.judge(response, now) {
            Ok(answer) => answer,
            Err(text) => return self.failed(index, &text, shared, events),
        };
        if asked.answer.is_some_and(|known| known.since > answer.since && known.until > now) {
            // Whoever repeats an older answer may want to hide a newer one.
            let text = "its answer is older than the one that is known";
            return self.failed(index, text, shared, events);
        }
        if !shared.zone.publish_staple(&asked.inquiry.certificate, response) {
            return self.failed(index, "no place in shared memory for its answer", shared, events);
        }
        let counter = match answer.standing {
            Standing::Good => General::StaplesGood,
            Standing::Revoked => General::StaplesRevoked,
        };
        shared.counters.add(Place::General(counter), 1);
        asked.tell(&answer);
        (asked.answer, asked.failures) = (Some(answer), 0);
        self.stop(index, events);
        let delay = self.until_next(&answer, now);
        self.wait(index, delay, events);
    }

    /// An attempt has failed: it is tried again, later each time.
    fn failed(&mut self, index: usize, text: &str, shared: &Shared, events: &mut Loop) {
        self.stop(index, events);
        shared.counters.add(Place::General(General::StaplesFailed), 1);
        let asked = &mut self.all[index];
        let Inquiry { name, responder, .. } = &asked.inquiry;
        if asked.failures == 0 {
            let now = os::wall_clock();
            let stays = asked.answer.filter(|answer| answer.stapled_until() > now);
            let stays = if stays.is_some() { "; the last one stays until it expires" } else { "" };
            log::braked(log::Kind::Tls, || {
                format!("{name}: no OCSP response from {responder}: {text}{stays}")
            });
        }
        let pause = (FIRST_PAUSE << asked.failures.min(16)).min(LAST_PAUSE) * 1000;
        asked.failures = asked.failures.saturating_add(1);
        // Between three and five quarters, so that relays that failed together do not return so.
        let delay = pause * 3 / 4 + self.random.draw() % (pause / 2);
        self.wait(index, delay, events);
    }

    /// How many milliseconds to wait before a response is asked for again: until half of its time
    /// has passed, and up to an eighth of that less.
    fn until_next(&mut self, answer: &Answer, now: u64) -> u64 {
        let wait = half(answer).saturating_sub(now).clamp(LEAST_WAIT, MOST_WAIT) * 1000;
        wait - self.random.draw() % (wait / 8)
    }

    /// Ends what is under way for a certificate.
    fn stop(&mut self, index: usize, events: &mut Loop) {
        self.forget_descriptors(index, events);
        match std::mem::replace(&mut self.all[index].activity, Activity::Idle) {
            Activity::Idle => {}
            Activity::Waiting(timer)
            | Activity::Looking { timer, .. }
            | Activity::Asking { timer, .. } => events.cancel(timer),
        }
    }

    /// Its descriptors are about to be closed.
    fn forget_descriptors(&mut self, index: usize, events: &mut Loop) {
        self.owners.retain(|fd, owner| {
            if *owner == index {
                events.remove(fd);
            }
            *owner != index
        });
    }

    /// The next attempt for a certificate begins after this many milliseconds.
    fn wait(&mut self, index: usize, delay: u64, events: &mut Loop) {
        let timer = events.arm(Token::new(kind::STAPLES, index as u32), events.now() + delay);
        self.all[index].activity = Activity::Waiting(timer);
    }
}

impl Asked {
    /// Logs what is new.
    fn tell(&self, answer: &Answer) {
        let Inquiry { name, responder, .. } = &self.inquiry;
        let before = self.answer.map(|answer| answer.standing);
        let revoked = answer.standing == Standing::Revoked;
        if revoked && before != Some(Standing::Revoked) {
            let text = format!(
                "{name}: THE CERTIFICATE IS REVOKED, says {responder}; clients are told so"
            );
            return log::message_at(log::Severity::ERROR, &text);
        }
        if !revoked && before == Some(Standing::Revoked) {
            log::message(&format!(
                "{name}: the certificate is no longer revoked, says {responder}"
            ));
        } else if self.failures > 0 {
            log::braked(log::Kind::Tls, || {
                format!("{name}: {responder} gives OCSP responses again")
            });
        }
    }
}

/// When half of the time of a response has passed.
fn half(answer: &Answer) -> u64 {
    answer.since + (answer.until - answer.since) / 2
}
