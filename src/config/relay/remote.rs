//! `remote = { … }`: where a remote is, and what is configured about it.

use super::super::check::{self, Check};
use super::super::common;
use super::super::network::is_host_name;
use super::super::system::System;
use super::super::tls::{self, RemoteDirectives, RemoteTls};
use super::super::token::*;
use super::super::values::{parse_port, Value, COUNT, INT};
use super::super::{ConfigError, Parser};
use super::names::{self, How, Kind};
use super::{connection_options, not_an_address, ProxyVersion, Sessions};
use crate::os::address::{Address, Family, NotAnAddress};
use crate::os::socket::{Keepalive, Protocol};
use std::io;
use std::rc::Rc;

/// A `remote` block as written.
pub(super) struct RemoteBlock {
    /// The place of the word `remote`.
    place: Value,
    address: Option<Value>,
    port: Option<Value>,
    protocol: Protocol,
    weight: u32,
    tls: RemoteDirectives,
    tags: Vec<String>,
    keepalive: Keepalive,
    check: check::Directives,
    backup: bool,
    proxy: Option<ProxyVersion>,
    sessions: Sessions,
    /// The place of `queue`.
    queue: Option<Value>,
    names: names::Directives,
}

/// What a `remote` block may contain.
const WORDS: [&str; 16] = [
    "address", "backup", "check", "on", "port", "protocol", "proxy", "queue", "resolve",
    "sessions", "slow", "srv", "tag", "tcp", "tls", "weight",
];

/// `remote = { … }`, with the token `remote` current.
pub(super) fn remote(parser: &mut Parser<'_>) -> Result<RemoteBlock, ConfigError> {
    let mut block = RemoteBlock {
        place: Value { text: String::new(), position: parser.position() },
        address: None,
        port: None,
        protocol: Protocol::Tcp,
        weight: 1,
        tls: RemoteDirectives::default(),
        tags: Vec::new(),
        keepalive: Keepalive::default(),
        check: check::Directives::default(),
        backup: false,
        proxy: None,
        sessions: Sessions::default(),
        queue: None,
        names: names::Directives::default(),
    };
    parser.advance()?;
    parser.expect(S_equal)?;
    parser.expect(S_openbra)?;
    parser.block(|parser| {
        match parser.code() {
            S_address => block.address = Some(parser.assigned()?),
            S_port => block.port = Some(parser.assigned()?),
            S_protocol => {
                parser.advance()?;
                parser.expect(S_equal)?;
                block.protocol = match parser.code() {
                    S_TCP | S_tcp => Protocol::Tcp,
                    S_SCTP => Protocol::Sctp,
                    _ if parser.is_word("sctp") => Protocol::Sctp,
                    _ if parser.is_word("MPTCP") || parser.is_word("mptcp") => Protocol::Mptcp,
                    _ => return Err(parser.expected_words(&["MPTCP", "SCTP", "TCP"])),
                };
                parser.advance()?;
            }
            S_weight => {
                parser.advance()?;
                parser.expect(S_equal)?;
                block.weight = parser.integer(INT)?.max(1) as u32;
            }
            S_tls | S_ssl => tls::remote(parser, &mut block.tls)?,
            S_tag => block.tags = tags(parser)?,
            S_tcp => connection_options(parser, &mut block.keepalive)?,
            S_queue => queue(parser, &mut block)?,
            _ if parser.is_word("sessions") => {
                parser.advance()?;
                parser.expect(S_max)?;
                parser.expect(S_equal)?;
                block.sessions.max = parser.integer(COUNT)? as u32;
            }
            _ if parser.is_word("proxy") => block.proxy = Some(proxy_protocol(parser)?),
            _ if parser.is_word("resolve") => names::parse(parser, &mut block.names)?,
            _ if parser.is_word("srv") => names::srv(parser, &mut block.names)?,
            _ if parser.is_word("check") => check::parse(parser, &mut block.check)?,
            _ if parser.is_word("slow") => check::slow_start(parser, &mut block.check)?,
            _ if parser.is_word("on") => check::on_down(parser, &mut block.check)?,
            _ if parser.is_word("backup") => block.backup = parser.assigned_boolean()?,
            _ => return Err(parser.expected_words(&WORDS)),
        }
        Ok(())
    })?;
    parser.advance()?;
    Ok(block)
}

/// `queue = SESSIONS` and `queue timeout = SECONDS`, with the token `queue` current.
fn queue(parser: &mut Parser<'_>, block: &mut RemoteBlock) -> Result<(), ConfigError> {
    block.queue = Some(Value { text: String::new(), position: parser.position() });
    if parser.peek()? == S_timeout {
        block.sessions.queue_timeout = common::timeout(parser)?;
    } else {
        block.sessions.queue = parser.assigned_integer(0..=1_000_000)? as u32;
    }
    Ok(())
}

/// `proxy protocol = v1 | v2`, with the word `proxy` current.
fn proxy_protocol(parser: &mut Parser<'_>) -> Result<ProxyVersion, ConfigError> {
    parser.advance()?;
    parser.expect(S_protocol)?;
    parser.expect(S_equal)?;
    let version = match () {
        () if parser.is_word("v1") => ProxyVersion::V1,
        () if parser.is_word("v2") => ProxyVersion::V2,
        () => return Err(parser.expected_words(&["v1", "v2"])),
    };
    parser.advance()?;
    Ok(version)
}

/// `= TAG, TAG …`, with the token `tag` current. Sorted, as the order does not matter.
fn tags(parser: &mut Parser<'_>) -> Result<Vec<String>, ConfigError> {
    let mut tags = vec![parser.assigned()?.text];
    // A comma outside of quotes is a token of its own.
    while parser.accept(S_comma)? {
        tags.push(parser.value()?.text);
    }
    tags.sort_unstable();
    tags.dedup();
    Ok(tags)
}

impl RemoteBlock {
    /// The remote that the block describes, checked as far as possible without resolving names.
    pub(super) fn finish(
        self,
        defaults: Keepalive,
        system: &dyn System,
    ) -> Result<Described, ConfigError> {
        let missing = |what| self.place.error(format!("remote: the {what} is missing"));
        let address = self.address.ok_or_else(|| missing("address"))?;
        let port = || parse_port(self.port.as_ref().ok_or_else(|| missing("port"))?, system);
        let parsed = Address::parse_with_port(&address.text);
        // The certificate must name the host, or the address if that is configured instead.
        let name = match &parsed {
            Ok((Address::Ip(literal), _)) => Some(literal.ip().to_string()),
            Ok((Address::Unix(_), _)) => None,
            // Whoever answers for a service says which hosts offer it: no name to rely on.
            Err(_) if self.names.is_service() => None,
            Err(_) => Some(address.text.clone()),
        };
        let target = match parsed {
            Ok((literal, attached)) => {
                let port = match (literal.family(), attached) {
                    (Family::Unix, _) => 0,
                    (_, Some(port)) => port,
                    (_, None) => port()?,
                };
                self.names.refuse()?;
                Target::Literal(literal.with_port(port))
            }
            Err(NotAnAddress::Malformed) => {
                let port = match (self.names.is_service(), &self.port) {
                    (true, None) => 0,
                    (true, Some(port)) => {
                        return Err(port.error("srv = yes: the port comes with the SRV record"));
                    }
                    (false, _) => port()?,
                };
                if !is_host_name(&address.text) {
                    return Err(not_an_address(
                        &address,
                        "an IP address",
                        &NotAnAddress::Malformed,
                    ));
                }
                Target::Host(address, port, self.names.finish(system.can_look_up())?)
            }
            Err(reason) => return Err(not_an_address(&address, "an IP address", &reason)),
        };
        let tls = self.tls.finish(name).map_err(|text| self.place.error(text))?;
        if tls.as_ref().is_some_and(|tls| tls.verify && tls.server_name.is_none()) {
            return Err(self.place.error("remote: tls server-name is missing"));
        }
        let ip = !matches!(&target, Target::Literal(literal) if literal.family() == Family::Unix);
        let port = |value: &Value| parse_port(value, system);
        let check = self.check.finish(tls.is_some(), ip, port)?;
        let (protocol, weight, tags) = (self.protocol, self.weight, self.tags);
        let (tls, keepalive) = (tls.map(Rc::new), self.keepalive.or(defaults));
        let (place, backup, proxy) = (self.place, self.backup, self.proxy);
        let sessions = self.sessions;
        if let Some(queue) = self.queue.filter(|_| sessions.max == 0) {
            return Err(queue.error("remote: queue needs sessions max"));
        }
        Ok(Described {
            place,
            target,
            protocol,
            weight,
            tls,
            tags,
            keepalive,
            check,
            backup,
            proxy,
            sessions,
        })
    }
}

/// A remote as the section describes it.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) place: Value,
    pub(super) target: Target,
    pub(super) protocol: Protocol,
    pub(super) weight: u32,
    pub(super) tls: Option<Rc<RemoteTls>>,
    pub(super) tags: Vec<String>,
    pub(super) keepalive: Keepalive,
    pub(super) check: Option<Rc<Check>>,
    pub(super) backup: bool,
    pub(super) proxy: Option<ProxyVersion>,
    pub(super) sessions: Sessions,
}

/// Where a remote is.
#[derive(Debug)]
pub(super) enum Target {
    Literal(Address),
    /// A host name, the port, and how the name is looked up.
    Host(Value, u16, How),
}

/// The error for a name without addresses. `error`: why it could not be looked up.
pub(super) fn unresolved(name: &Value, kind: Kind, error: Option<&io::Error>) -> ConfigError {
    let what = match kind {
        Kind::Host => "host",
        Kind::Service => "service",
    };
    name.error(match error {
        None => format!("The {what} '{}' has no address", name.text),
        Some(error) => {
            let reason = crate::os::reason(error);
            format!("The {what} '{}' cannot be resolved: {reason}", name.text)
        }
    })
}
