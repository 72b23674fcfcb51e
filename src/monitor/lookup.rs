//! One lookup of a name: /etc/hosts, then the name servers. A value; the owner watches its
//! descriptors and has the clock.
//!
//! Each lookup has a channel of its own. So each reads resolv.conf as it is now, and giving one up
//! disturbs no other.

use crate::config::relay::names::{Kind, Place};
use crate::event::{Choice, Interest, Loop, Token};
use crate::os::dns::{self, Addresses, Channel, Failure, Family, Service, Services};
use crate::upstream::names::{tiers, Answer, Silent};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::rc::Rc;

/// The most hosts of a service that are looked up, and how many of them at a time.
const MOST_HOSTS: usize = 256;
const AT_A_TIME: usize = 16;

/// What is looked up.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The host or service.
    pub text: String,
    /// The port, for a host.
    pub port: u16,
    /// What it is.
    pub kind: Kind,
    /// Whether IPv4 and IPv6 addresses were known before.
    pub known: [bool; 2],
}

/// A descriptor, and whether to watch it for input and output; for neither: it is closed.
pub(super) type Watched = (RawFd, Interest);

/// What callbacks note.
#[derive(Default)]
struct Notes {
    watched: RefCell<Vec<Watched>>,
    heard: RefCell<VecDeque<Heard>>,
}

enum Heard {
    /// Addresses, and which host's: by its place among the services.
    Addresses(usize, Result<Addresses, Failure>),
    Services(Result<Services, Failure>),
}

enum State {
    /// The addresses of the host are on their way.
    Host,
    /// A family of addresses that was known is not in the answer: is there none any more?
    Doubting { found: Addresses, family: Family },
    /// The services are on their way.
    Service,
    /// The addresses of hosts are on their way.
    Hosts(Hosts),
}

struct Hosts {
    services: Vec<Service>,
    tiers: Vec<u8>,
    lifetime: u32,
    next: usize,
    under_way: usize,
    found: Vec<Vec<IpAddr>>,
}

/// A lookup that is under way.
pub(super) struct Lookup {
    wanted: Wanted,
    channel: Channel,
    notes: Rc<Notes>,
    state: State,
}

impl Lookup {
    /// Begins a lookup; [`step`](Self::step) is next. The answer, if it is known at once.
    pub(super) fn begin(wanted: Wanted) -> Result<Lookup, Answer> {
        if wanted.kind == Kind::Host {
            let list = dns::hosts::addresses(&wanted.text);
            if !list.is_empty() {
                let places = list.into_iter().map(|ip| place(ip, wanted.port)).collect();
                return Err(Answer::Found { places, lifetime: None, silent: Silent::None });
            }
        }
        let notes = Rc::new(Notes::default());
        let watch = Rc::clone(&notes);
        let watch = move |fd, read, write| {
            let mut interest = Interest::empty();
            interest.set(Interest::READ, read);
            interest.set(Interest::WRITE, write);
            watch.watched.borrow_mut().push((fd, interest));
        };
        let Some(channel) = Channel::for_hosts(Box::new(watch)) else {
            return Err(Answer::Failed("the resolver cannot be started".to_owned()));
        };
        let state = match wanted.kind {
            Kind::Host => State::Host,
            Kind::Service => State::Service,
        };
        let lookup = Lookup { wanted, channel, notes, state };
        match lookup.wanted.kind {
            Kind::Host => lookup.ask(0, &lookup.wanted.text, Family::Any),
            Kind::Service => {
                let notes = Rc::clone(&lookup.notes);
                lookup.channel.services(&lookup.wanted.text, move |services| {
                    notes.heard.borrow_mut().push_back(Heard::Services(services));
                });
            }
        }
        Ok(lookup)
    }

    fn ask(&self, number: usize, host: &str, family: Family) {
        let notes = Rc::clone(&self.notes);
        self.channel.addresses(host, family, move |addresses| {
            notes.heard.borrow_mut().push_back(Heard::Addresses(number, addresses));
        });
    }

    /// A descriptor is ready.
    pub(super) fn ready(&self, fd: RawFd, readable: bool, writable: bool) {
        self.channel.process(readable.then_some(fd), writable.then_some(fd));
    }

    /// Time has passed.
    pub(super) fn tick(&self) {
        self.channel.process(None, None);
    }

    /// Watches its descriptors by tokens of this kind, and notes that they are those of `index`.
    pub(super) fn watch(
        &self,
        kind: u8,
        index: usize,
        owners: &mut BTreeMap<RawFd, usize>,
        events: &mut Loop,
    ) {
        for (fd, interest) in self.take_watched() {
            if interest.is_empty() {
                owners.remove(&fd);
                events.remove(&fd);
            } else if owners.insert(fd, index) == Some(index) {
                events.set_interest(&fd, interest);
            } else {
                events.register(&fd, Token::new(kind, fd as u32), interest);
            }
        }
    }

    /// What has changed about the descriptors, in this order. A number may be closed and used again.
    fn take_watched(&self) -> Vec<Watched> {
        self.notes.watched.take()
    }

    /// How long to wait for descriptors at most, in milliseconds.
    pub(super) fn patience(&self) -> Option<u64> {
        self.channel.timeout().map(|time| time.as_millis() as u64 + 1)
    }

    /// Goes on with what was heard. The answer, once it is there.
    pub(super) fn step(&mut self) -> Option<Answer> {
        loop {
            let heard = self.notes.heard.borrow_mut().pop_front()?;
            let answer = match heard {
                Heard::Addresses(number, addresses) => self.hear_addresses(number, addresses),
                Heard::Services(services) => self.hear_services(services),
            };
            if answer.is_some() {
                return answer;
            }
        }
    }

    fn hear_addresses(
        &mut self,
        number: usize,
        addresses: Result<Addresses, Failure>,
    ) -> Option<Answer> {
        match (&mut self.state, addresses) {
            (State::Host, Ok(found)) => {
                let has = |four: bool| found.list.iter().any(|ip| ip.is_ipv4() == four);
                let family = match self.wanted.known {
                    [true, _] if !has(true) => Family::V4,
                    [_, true] if !has(false) => Family::V6,
                    _ => return Some(self.found(found, Silent::None)),
                };
                // The library is content with the answer for one family, and does not say that the
                // other one has failed.
                self.state = State::Doubting { found, family };
                let text = self.wanted.text.clone();
                self.ask(0, &text, family);
                None
            }
            (State::Doubting { found, family }, addresses) => {
                let silent = match (addresses, family) {
                    (Err(Failure::Nothing), _) => Silent::None,
                    (_, Family::V4) => Silent::V4,
                    _ => Silent::V6,
                };
                let found = Addresses { list: std::mem::take(&mut found.list), ..*found };
                Some(self.found(found, silent))
            }
            (State::Hosts(hosts), addresses) => {
                hosts.under_way -= 1;
                match addresses {
                    Ok(addresses) => {
                        hosts.lifetime = hosts.lifetime.min(addresses.lifetime);
                        hosts.found[number] = addresses.list;
                    }
                    Err(Failure::Nothing) => {}
                    Err(Failure::Unknown(reason)) => {
                        let host = &hosts.services[number].target;
                        return Some(Answer::Failed(format!("{host}: {reason}")));
                    }
                }
                self.ask_for_hosts()
            }
            (_, Err(Failure::Unknown(reason))) => Some(Answer::Failed(reason)),
            (_, _) => Some(Answer::Nothing),
        }
    }

    fn found(&self, found: Addresses, silent: Silent) -> Answer {
        let places = found.list.into_iter().map(|ip| place(ip, self.wanted.port)).collect();
        Answer::Found { places, lifetime: Some(found.lifetime), silent }
    }

    fn hear_services(&mut self, services: Result<Services, Failure>) -> Option<Answer> {
        let Services { mut list, lifetime } = match services {
            Ok(services) => services,
            Err(Failure::Nothing) => return Some(Answer::Nothing),
            Err(Failure::Unknown(reason)) => return Some(Answer::Failed(reason)),
        };
        list.sort_by_key(|service| service.priority);
        list.truncate(MOST_HOSTS);
        let priorities: Vec<u16> = list.iter().map(|service| service.priority).collect();
        let map = tiers(&priorities);
        let tiers = priorities.iter().map(|priority| map.get(priority).copied().unwrap_or(0));
        self.state = State::Hosts(Hosts {
            tiers: tiers.collect(),
            lifetime,
            next: 0,
            under_way: 0,
            found: vec![Vec::new(); list.len()],
            services: list,
        });
        self.ask_for_hosts()
    }

    /// Asks for the next hosts of a service; the answer, if nothing is left to ask.
    fn ask_for_hosts(&mut self) -> Option<Answer> {
        loop {
            let State::Hosts(hosts) = &mut self.state else {
                return None;
            };
            if hosts.next == hosts.services.len() && hosts.under_way == 0 {
                return Some(hosts.answer());
            }
            if hosts.next == hosts.services.len() || hosts.under_way >= AT_A_TIME {
                return None;
            }
            let number = hosts.next;
            hosts.next += 1;
            let target = hosts.services[number].target.clone();
            hosts.found[number] = dns::hosts::addresses(&target);
            if hosts.found[number].is_empty() {
                hosts.under_way += 1;
                self.ask(number, &target, Family::Any);
            }
        }
    }
}

impl Hosts {
    fn answer(&mut self) -> Answer {
        let mut places = Vec::new();
        for ((service, &tier), found) in self.services.iter().zip(&self.tiers).zip(&self.found) {
            let weight = service.weight.into();
            let address = |&ip| SocketAddr::new(ip, service.port);
            places.extend(found.iter().map(|ip| Place { address: address(ip), weight, tier }));
        }
        match places.is_empty() {
            true => Answer::Nothing,
            false => {
                let lifetime = Some(self.lifetime);
                Answer::Found { places, lifetime, silent: Silent::None }
            }
        }
    }
}

fn place(ip: IpAddr, port: u16) -> Place {
    Place::new(SocketAddr::new(ip, port))
}

/// Looks up a name and waits for the answer, at most this many milliseconds: for the start of a
/// process, before it serves anybody.
pub fn look_up_now(wanted: Wanted, patience: u64) -> Answer {
    let mut lookup = match Lookup::begin(wanted) {
        Ok(lookup) => lookup,
        Err(answer) => return answer,
    };
    let Ok(mut events) = Loop::new(&Choice::from_environment()) else {
        return Answer::Failed("the resolver cannot be started".to_owned());
    };
    loop {
        if let Some(answer) = lookup.step() {
            return answer;
        }
        for (fd, interest) in lookup.take_watched() {
            match interest.is_empty() {
                true => events.remove(&fd),
                false => events.register(&fd, Token::new(0, fd as u32), interest),
            }
        }
        if events.now() >= patience {
            return Answer::Failed(too_long(patience));
        }
        let left = patience - events.now();
        if events.wait(Some(lookup.patience().unwrap_or(left).min(left))).is_err() {
            return Answer::Failed("the resolver cannot wait".to_owned());
        }
        while let Some(event) = events.next_event() {
            lookup.ready(event.token.index() as RawFd, event.readable, event.writable);
        }
        lookup.tick();
    }
}

/// The reason for giving up.
pub(super) fn too_long(milliseconds: u64) -> String {
    format!("no answer within {} s", milliseconds / 1000)
}
