//! `route = { }`: which remotes a session may go to.

use super::listen::{flag, Listener};
use super::network::{is_host_name, network, Network};
use super::token::*;
use super::values::{parse_ports, Value};
use super::{ConfigError, Parser};
use std::ops::RangeInclusive;

/// A pattern for server names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// This name, in lower case.
    Exact(String),
    /// `*.example.org`: every name below it, in lower case and with the dot (`.example.org`).
    Below(String),
}

/// Where a route leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// To all remotes.
    #[default]
    Any,
    /// To the remotes with this tag.
    Tag(String),
    /// Nowhere: the session is refused.
    Reject,
}

/// One `route = { }`. An empty list is no condition; of the others each must hold, and does if one
/// of its entries does.
#[derive(Clone, Debug, Default)]
pub struct Route {
    /// `listener`: the `realm` of the listener.
    pub listeners: Vec<String>,
    /// `sni`: the server name that the client asks for.
    pub names: Vec<Name>,
    /// `alpn`: the application protocols.
    pub protocols: Vec<String>,
    /// `from`: where the client is.
    pub networks: Vec<Network>,
    /// `port`: the port that the client has connected to.
    pub ports: Vec<RangeInclusive<u16>>,
    /// `to`.
    pub target: Target,
}

impl Route {
    /// True if it goes by what only TLS tells.
    pub fn needs_hello(&self) -> bool {
        !self.names.is_empty() || !self.protocols.is_empty()
    }
}

/// The directives of a section.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// `route = { }`, in order.
    pub list: Vec<Route>,
    /// `route default`.
    pub default: Target,
    /// The tags that routes lead to, with their places.
    tags: Vec<Value>,
    /// The places of the routes.
    places: Vec<Value>,
}

impl Routes {
    /// True if every session may go to any remote.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty() && self.default == Target::Any
    }

    /// True if a route goes by what only TLS tells.
    pub fn needs_hello(&self) -> bool {
        self.list.iter().any(Route::needs_hello)
    }

    /// True if a route goes by the realms of listeners.
    pub fn needs_realms(&self) -> bool {
        self.list.iter().any(|route| !route.listeners.is_empty())
    }

    /// Warnings about routes that no connection of these listeners can match.
    pub fn unmatched(&self, listeners: &[Listener]) -> Vec<String> {
        let tells = |listener: &Listener| {
            listener.tls_versions != 0 || listener.flags & (flag::TLS_INSPECT | flag::HAPROXY) != 0
        };
        let mut warnings = Vec::new();
        for (route, place) in self.list.iter().zip(&self.places) {
            let named = |listener: &&Listener, realm: &String| listener.realm == realm.as_bytes();
            let mut warn = |text: String| {
                warnings.push(format!("{}: WARNING: route: {text}", place.position));
            };
            for realm in &route.listeners {
                if !listeners.iter().any(|listener| named(&listener, realm)) {
                    warn(format!("no listener has the realm '{realm}'"));
                }
            }
            let mut concerned = listeners.iter().filter(|listener| {
                route.listeners.is_empty()
                    || route.listeners.iter().any(|realm| named(listener, realm))
            });
            if route.needs_hello() && !concerned.any(tells) {
                warn("'sni' and 'alpn' need a listener with 'tls' or 'tls = inspect'".to_owned());
            }
        }
        warnings
    }

    /// `route = { … }` or `route default = …`, with the word `route` current.
    pub(super) fn parse(&mut self, parser: &mut Parser<'_>) -> Result<(), ConfigError> {
        let place = Value { text: String::new(), position: parser.position() };
        parser.advance()?;
        if parser.is_word("default") {
            parser.advance()?;
            parser.expect(S_equal)?;
            self.default = self.target(parser)?;
            return Ok(());
        }
        if parser.code() != S_equal {
            return Err(parser.expected_words(&["=", "default"]));
        }
        parser.advance()?;
        parser.expect(S_openbra)?;
        let (mut route, mut target) = (Route::default(), None);
        parser.block(|parser| {
            match parser.code() {
                _ if parser.is_word("listener") => {
                    list(parser, &mut route.listeners, |value, _| Ok(value.text.clone()))?;
                }
                _ if parser.is_word("sni") => {
                    list(parser, &mut route.names, |value, _| name(value))?
                }
                S_alpn => {
                    list(parser, &mut route.protocols, |value, _| match value.text.len() {
                        1..=255 => Ok(value.text.clone()),
                        _ => Err(value.error("TLS ALPN is malformed.")),
                    })?;
                }
                _ if parser.is_word("from") => {
                    list(parser, &mut route.networks, |value, _| network(value))?;
                }
                S_port => list(parser, &mut route.ports, |value, parser| {
                    parse_ports(value, &*parser.system())
                })?,
                _ if parser.is_word("to") => {
                    parser.advance()?;
                    parser.expect(S_equal)?;
                    target = Some(self.target(parser)?);
                }
                _ => {
                    let words = ["alpn", "from", "listener", "port", "sni", "to"];
                    return Err(parser.expected_words(&words));
                }
            }
            Ok(())
        })?;
        parser.advance()?;
        route.target = target.ok_or_else(|| place.error("route: 'to' is missing"))?;
        self.list.push(route);
        self.places.push(place);
        Ok(())
    }

    /// A tag, `any` or `reject`; a tag with one of these names is put in quotes.
    fn target(&mut self, parser: &mut Parser<'_>) -> Result<Target, ConfigError> {
        let target = match () {
            () if parser.is_word("any") => Target::Any,
            () if parser.is_word("reject") => Target::Reject,
            () => {
                let tag = parser.value()?;
                self.tags.push(tag.clone());
                return Ok(Target::Tag(tag.text));
            }
        };
        parser.advance()?;
        Ok(target)
    }

    /// Refuses a tag that no remote has.
    pub(super) fn check(&self, exists: impl Fn(&str) -> bool) -> Result<(), ConfigError> {
        match self.tags.iter().find(|tag| !exists(&tag.text)) {
            Some(tag) => Err(tag.error(format!("route: no remote has the tag '{}'", tag.text))),
            None => Ok(()),
        }
    }
}

/// `= VALUE, VALUE …`, with the keyword current; adds to what is there already.
fn list<T>(
    parser: &mut Parser<'_>,
    to: &mut Vec<T>,
    read: impl Fn(&Value, &Parser<'_>) -> Result<T, ConfigError>,
) -> Result<(), ConfigError> {
    let mut value = parser.assigned()?;
    loop {
        to.push(read(&value, parser)?);
        if !parser.accept(S_comma)? {
            return Ok(());
        }
        value = parser.value()?;
    }
}

fn name(value: &Value) -> Result<Name, ConfigError> {
    let text = value.text.to_ascii_lowercase();
    let text = text.strip_suffix('.').unwrap_or(&text);
    let (name, pattern) = match text.strip_prefix("*.") {
        Some(rest) => (rest, Name::Below(format!(".{rest}"))),
        None => (text, Name::Exact(text.to_owned())),
    };
    if !is_host_name(name) {
        let text = format!("Expected a host name or '*.' and one, but got '{}'", value.text);
        return Err(value.error(text));
    }
    Ok(pattern)
}
