//! Remotes that are host names: `resolve …` and `srv` in `remote`.
//!
//! A name is looked up when a process starts, as the C program does it, and by default again by the
//! monitor whenever its time to live is over.

use super::super::system::Possible;
use super::super::token::*;
use super::super::values::Value;
use super::super::{ConfigError, Parser};
use super::Remote;
use crate::os::address::Address;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

/// Sensible times between two lookups, in seconds: a week at most.
const SECONDS: RangeInclusive<i64> = 1..=604_800;
/// A name is looked up again after this many seconds at the latest, if nothing is configured.
const USUAL: u32 = 3600;

/// What is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The addresses of a host.
    Host,
    /// A service (SRV records), and then the addresses of the hosts that offer it.
    Service,
}

/// How long the time to live of an answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Nothing is configured.
    Usual,
    /// `resolve = SECONDS`.
    Seconds(u32),
}

impl Bound {
    /// In seconds.
    pub fn seconds(self) -> u32 {
        match self {
            Bound::Usual => USUAL,
            Bound::Seconds(seconds) => seconds,
        }
    }
}

/// `resolve start`: what a name means that cannot be looked up when the relay starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// An error.
    #[default]
    Now,
    /// A warning: its addresses join when it can be.
    Later,
}

/// A remote that is looked up again while the relay runs.
#[derive(Clone, Debug)]
pub struct Name {
    /// What its addresses have in common. Of its own address only the port means something, and
    /// that only for a host.
    pub template: Remote,
    /// What is looked up.
    pub kind: Kind,
    /// `resolve = SECONDS`.
    pub bound: Bound,
    /// `resolve start`.
    pub start: Start,
}

impl Name {
    /// The name as configured.
    pub fn text(&self) -> &str {
        self.template.host.as_deref().unwrap_or_default()
    }

    /// True if the configuration asks for what needs a monitor, and not just does not forbid it.
    pub fn is_asked_for(&self) -> bool {
        self.bound != Bound::Usual || self.start != Start::Now
    }
}

/// Which name an address was found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The index in [`Relay::names`](super::Relay::names).
    pub index: u32,
    /// How many remotes before it are for the same host.
    pub earlier: u32,
}

/// An address, as a lookup has found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The address, with its port.
    pub address: SocketAddr,
    /// From the SRV record; 0: the configured weight.
    pub weight: u32,
    /// Remotes of a tier get sessions when none of a smaller tier can be used.
    pub tier: u8,
}

impl Place {
    /// An address of a host.
    pub fn new(address: SocketAddr) -> Place {
        Place { address, weight: 0, tier: 0 }
    }

    /// The remote of a name that has this address.
    pub fn remote(&self, template: &Remote) -> Remote {
        let weight = if self.weight == 0 { template.weight } else { self.weight };
        Remote { address: Address::Ip(self.address), weight, tier: self.tier, ..template.clone() }
    }
}

/// What has to be looked up at the start.
#[derive(Debug)]
pub struct Question<'a> {
    /// The host or service.
    pub text: &'a str,
    /// The port, for a host.
    pub port: u16,
    /// What is looked up.
    pub kind: Kind,
    /// The name, if it is looked up again later.
    pub name: Option<&'a Name>,
}

/// Looks up a name at the start. `None`: it may be looked up later, which is no error.
pub type Lookup<'a> = &'a mut dyn FnMut(&Question<'_>) -> io::Result<Option<Vec<Place>>>;

/// The directives as written.
#[derive(Debug, Default)]
pub(super) struct Directives {
    resolve: Option<(Again, Value)>,
    start: Option<(Start, Value)>,
    srv: Option<Value>,
}

/// `resolve = SECONDS | no`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    Never,
    Within(u32),
}

/// How a host name is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct How {
    pub(super) kind: Kind,
    /// `None`: once.
    pub(super) again: Option<(Bound, Start)>,
}

impl How {
    /// True if the configuration asks for lookups again.
    pub(super) fn is_asked_for(self) -> bool {
        self.again.is_some_and(|again| again != (Bound::Usual, Start::Now))
    }
}

/// `resolve = SECONDS | no` or `resolve start = now | later`, with the word `resolve` current.
pub(super) fn parse(
    parser: &mut Parser<'_>,
    directives: &mut Directives,
) -> Result<(), ConfigError> {
    let place = Value { text: String::new(), position: parser.position() };
    parser.advance()?;
    if parser.code() == S_equal {
        parser.advance()?;
        let again = match parser.code() {
            S_no => {
                parser.advance()?;
                Again::Never
            }
            _ => Again::Within(parser.integer(SECONDS)? as u32),
        };
        directives.resolve = Some((again, place));
        return Ok(());
    }
    if !parser.is_word("start") {
        return Err(parser.expected_words(&["=", "start"]));
    }
    parser.advance()?;
    parser.expect(S_equal)?;
    let start = match () {
        () if parser.is_word("now") => Start::Now,
        () if parser.is_word("later") => Start::Later,
        () => return Err(parser.expected_words(&["later", "now"])),
    };
    directives.start = Some((start, place));
    parser.advance()
}

/// `srv = yes | no`, with the word `srv` current.
pub(super) fn srv(parser: &mut Parser<'_>, directives: &mut Directives) -> Result<(), ConfigError> {
    let place = Value { text: String::new(), position: parser.position() };
    directives.srv = parser.assigned_boolean()?.then_some(place);
    Ok(())
}

impl Directives {
    /// True with `srv = yes`.
    pub(super) fn is_service(&self) -> bool {
        self.srv.is_some()
    }

    /// For a remote that is no host name: nothing of this makes sense.
    pub(super) fn refuse(&self) -> Result<(), ConfigError> {
        let places = [
            self.srv.as_ref().map(|place| ("srv", place)),
            self.resolve.as_ref().map(|(_, place)| ("resolve", place)),
            self.start.as_ref().map(|(_, place)| ("resolve start", place)),
        ];
        match places.into_iter().flatten().next() {
            Some((what, place)) => Err(place.error(format!("{what}: the address is no host name"))),
            None => Ok(()),
        }
    }

    /// How a host name is looked up. `possible`: this build can look up names again, and services.
    pub(super) fn finish(self, possible: Possible) -> Result<How, ConfigError> {
        let start = self.start.as_ref().map_or(Start::Now, |(start, _)| *start);
        let impossible = |what: &str, place: &Value| {
            let text = format!("{what}: this program was built without DNS (c-ares)");
            Err(place.error(text))
        };
        if possible == Possible::No {
            match (&self.srv, &self.resolve, &self.start) {
                (Some(place), ..) => return impossible("srv", place),
                (_, Some((Again::Within(_), place)), _) => return impossible("resolve", place),
                (.., Some((Start::Later, place))) => return impossible("resolve start", place),
                _ => return Ok(How { kind: Kind::Host, again: None }),
            }
        }
        let kind = if self.srv.is_some() { Kind::Service } else { Kind::Host };
        let again = match (self.resolve.map(|(again, _)| again), &self.start) {
            (Some(Again::Never), Some((Start::Later, place))) => {
                return Err(place.error("resolve start = later: not with resolve = no"));
            }
            (Some(Again::Never), _) => None,
            (Some(Again::Within(seconds)), _) => Some((Bound::Seconds(seconds), start)),
            (None, _) => Some((Bound::Usual, start)),
        };
        Ok(How { kind, again })
    }
}
