//! `listen { }`: one listener of the broker.

mod tls;

use super::network::{network, Network};
use super::token::*;
use super::values::{parse_ports, Ids, Value, BOOLEANS, COUNT, INT};
use super::{ConfigError, Parser};
use crate::os::address::{Address, NotAnAddress};
use crate::os::log::Severity;
use crate::os::socket::{Keepalive, Kind, Protocol, MOST_BACKLOG, MOST_USER_TIMEOUT};
use std::ops::RangeInclusive;
use tls::tls;
pub use tls::TLS_DEFAULT;

/// Settings of a stickiness cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// Seconds for which an entry is valid; 0 is off.
    pub period: u32,
    /// Maximum number of entries.
    pub size: usize,
}

impl Default for Sticky {
    fn default() -> Sticky {
        Sticky { period: 0, size: 1024 }
    }
}

/// Whether an IPv6 listener leaves IPv4 alone: `ipv6 only`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ipv6Only {
    /// Yes if it is to serve all addresses and there is an IPv4 listener on its port. Otherwise the
    /// system's default.
    #[default]
    Auto,
    /// Always.
    Yes,
    /// Never.
    No,
}

/// Flags that travel to the worker with a connection (`flags` of the ACCEPT message).
pub mod flag {
    /// `haproxy = yes`
    pub const HAPROXY: u32 = 1;
    /// `flag = accounting`
    pub const ACCOUNTING: u32 = 2;
    /// `tls psk = yes`
    pub const TLS_PSK: u32 = 4;
    /// `tls = auto`
    pub const TLS_AUTO: u32 = 8;
    /// `haproxy = optional`; set together with [`HAPROXY`]. Unknown to C programs.
    pub const HAPROXY_OPTIONAL: u32 = 16;
    /// This sender is not to be believed: a connection that begins with a header is refused. Set
    /// together with [`HAPROXY_OPTIONAL`].
    pub const HAPROXY_DISTRUSTED: u32 = 32;
    /// `tls = inspect`, without TLS versions: a C program passes the connection on as well.
    pub const TLS_INSPECT: u32 = 64;
}

/// One `listen { }`.
#[derive(Clone, Debug)]
pub struct Listener {
    /// `address` or `path`, with its place; the wildcard address if unset.
    pub address: Option<Value>,
    /// `port`; 0 lets the kernel choose.
    pub port: u16,
    /// Neither a port nor an address was given. In inetd mode, such a block is ignored.
    pub empty: bool,
    /// `type`.
    pub kind: Kind,
    /// `protocol`.
    pub protocol: Protocol,
    /// `backlog`.
    pub backlog: i32,
    /// `overload backlog`, at most `backlog`.
    pub overload_backlog: i32,
    /// `reuse port`.
    pub reuse_port: bool,
    /// `ipv6 only`.
    pub ipv6_only: Ipv6Only,
    /// `realm`, at most 15 bytes.
    pub realm: Vec<u8>,
    /// The TLS versions, encoded as in the ACCEPT message; 0 is off.
    pub tls_versions: u32,
    /// The DTLS versions, encoded the same way, for UDP listeners.
    pub dtls_versions: u32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// `haproxy from`: who may send PROXY headers. Anybody if it is empty.
    pub haproxy_from: Vec<Network>,
    /// `aaa.protocol`, the number of its word; 0 if unset.
    pub aaa_protocol: u32,
    /// `dscp`, not shifted; 0 keeps the system's default.
    pub dscp: u8,
    /// `vrf`.
    pub vrf: Option<String>,
    /// `mode` of a UNIX socket.
    pub mode: Option<u32>,
    /// `userid` and `groupid` of a UNIX socket.
    pub owner: Ids,
    /// `bind retry delay` in seconds; 0 is off.
    pub retry_delay: u32,
    /// `tcp keepalive …` and `tcp user timeout`; the section's if unset.
    pub keepalive: Keepalive,
    /// `sticky cache …`; the section's if the period is 0.
    pub sticky: Sticky,
}

impl Listener {
    /// A listener with every setting at its default.
    pub fn new(retry_delay: u32) -> Listener {
        Listener {
            address: None,
            port: 0,
            empty: true,
            kind: Kind::Stream,
            protocol: Protocol::Tcp,
            backlog: MOST_BACKLOG,
            overload_backlog: MOST_BACKLOG,
            reuse_port: false,
            ipv6_only: Ipv6Only::Auto,
            realm: Vec::new(),
            tls_versions: 0,
            dtls_versions: 0,
            flags: 0,
            haproxy_from: Vec::new(),
            aaa_protocol: 0,
            dscp: 0,
            vrf: None,
            mode: None,
            owner: Ids::default(),
            retry_delay,
            keepalive: Keepalive::default(),
            sticky: Sticky::default(),
        }
    }
}

/// A block as written: the listener, and settings that apply only once the whole block is known.
struct Block {
    listener: Listener,
    ports: RangeInclusive<u16>,
    /// `port`, with its place, if it is a range.
    range: Option<Value>,
    backlog: Option<i32>,
    overload_backlog: Option<i32>,
    channel_buffer: Option<i32>,
    /// The place of the first `haproxy from`.
    haproxy_from: Option<Value>,
}

/// The C program's default for `overload backlog`.
const OVERLOAD_BACKLOG: i32 = 128;

/// `listen [=] { … }`, with the token `listen` current: one listener for each of its ports.
/// `channel_buffer` is the broker's setting, which a block may change.
pub(super) fn listen(
    parser: &mut Parser<'_>,
    retry_delay: u32,
    channel_buffer: &mut i32,
) -> Result<Vec<Listener>, ConfigError> {
    let mut block = Block {
        listener: Listener::new(retry_delay),
        ports: 0..=0,
        range: None,
        backlog: None,
        overload_backlog: None,
        channel_buffer: None,
        haproxy_from: None,
    };
    parser.advance()?;
    parser.accept(S_equal)?;
    parser.expect(S_openbra)?;
    parser.block(|parser| listen_directive(parser, &mut block))?;
    parser.advance()?;
    *channel_buffer = block.channel_buffer.unwrap_or(*channel_buffer);
    block.listeners()
}

impl Block {
    fn listeners(self) -> Result<Vec<Listener>, ConfigError> {
        let mut listener = self.listener;
        let unix = |value: &Value| matches!(Address::parse(&value.text), Ok(Address::Unix(_)));
        if let (Some(range), true) = (&self.range, listener.address.as_ref().is_some_and(unix)) {
            return Err(range.error("A UNIX-domain socket has no ports"));
        }
        if let (Some(from), 0) = (&self.haproxy_from, listener.flags & flag::HAPROXY) {
            return Err(from.error("'haproxy from' needs 'haproxy = yes' or 'haproxy = optional'"));
        }
        // With an explicit backlog, `overload backlog` defaults to the C program's value. Without,
        // both are the maximum, as in the C program.
        let overload = self.backlog.map_or(MOST_BACKLOG, |_| OVERLOAD_BACKLOG);
        listener.backlog = self.backlog.unwrap_or(MOST_BACKLOG);
        listener.overload_backlog = self.overload_backlog.unwrap_or(overload).min(listener.backlog);
        Ok(self.ports.map(|port| Listener { port, ..listener.clone() }).collect())
    }
}

/// `mode`, `owner` or `userid`, `group` or `groupid`: who may use the file of a UNIX socket. False if
/// the current word is none of these.
pub(super) fn socket_file(
    parser: &mut Parser<'_>,
    listener: &mut Listener,
) -> Result<bool, ConfigError> {
    match parser.code() {
        S_mode => listener.mode = Some(mode(parser)?),
        code if code == S_userid || parser.is_word("owner") => {
            parser.user_id(&mut listener.owner)?;
        }
        code if code == S_groupid || parser.is_word("group") => {
            parser.group_id(&mut listener.owner)?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// `mode = OCTAL` of a UNIX socket, with the keyword current.
fn mode(parser: &mut Parser<'_>) -> Result<u32, ConfigError> {
    let mode = parser.assigned()?;
    let digits: String = mode.text.chars().take_while(|c| ('0'..='7').contains(c)).collect();
    match u32::from_str_radix(&digits, 8) {
        Ok(bits) if bits <= 0o7777 => Ok(bits),
        _ => {
            let text = format!("Unrecognized file node creation mask '{}'", mode.text);
            Err(mode.error(text))
        }
    }
}

fn listen_directive(parser: &mut Parser<'_>, block: &mut Block) -> Result<(), ConfigError> {
    let listener = &mut block.listener;
    match parser.code() {
        S_address | S_path => {
            listener.address = Some(parser.assigned()?);
            listener.empty = false;
        }
        S_port => {
            // spawnd's documentation writes it without the equals sign.
            parser.advance()?;
            parser.accept(S_equal)?;
            let ports = parser.value()?;
            block.ports = parse_ports(&ports, &*parser.system())?;
            block.range = (block.ports.start() != block.ports.end()).then_some(ports);
            listener.empty = false;
        }
        S_protocol => protocol(parser, listener)?,
        S_type => {
            parser.advance()?;
            parser.expect(S_equal)?;
            listener.kind = match parser.code() {
                S_STREAM => Kind::Stream,
                S_DGRAM => Kind::Datagram,
                S_SEQPACKET => Kind::SequencedPacket,
                _ => return Err(parser.expected(&[S_DGRAM, S_SEQPACKET, S_STREAM])),
            };
            parser.advance()?;
        }
        S_backlog => block.backlog = Some(parser.assigned_integer(COUNT)? as i32),
        S_overload => {
            parser.advance()?;
            if parser.code() != S_backlog {
                return Err(parser.expected(&[S_backlog]));
            }
            block.overload_backlog = Some(parser.assigned_integer(COUNT)? as i32);
        }
        S_realm => {
            let realm = parser.assigned()?;
            if realm.text.len() > 15 {
                return Err(realm.error("Maximum tag length is limited to 15 characters."));
            }
            listener.realm = realm.text.into_bytes();
        }
        S_tls | S_ssl => tls(parser, listener)?,
        S_haproxy => haproxy(parser, block)?,
        S_flag => {
            parser.advance()?;
            parser.expect(S_equal)?;
            match parser.code() {
                S_access => set_flag(&mut listener.flags, flag::ACCOUNTING, false),
                S_accounting => set_flag(&mut listener.flags, flag::ACCOUNTING, true),
                _ => return Err(parser.expected(&[S_access, S_accounting])),
            }
            parser.advance()?;
        }
        S_aaa_protocol => {
            const KNOWN: [Code; 6] = [
                S_radius_dtls,
                S_radius_tcp,
                S_radius_tls,
                S_radius_udp,
                S_tacacs_tcp,
                S_tacacs_tls,
            ];
            parser.advance()?;
            parser.expect(S_equal)?;
            if !KNOWN.contains(&parser.code()) {
                return Err(parser.expected(&KNOWN));
            }
            listener.aaa_protocol = parser.code().0;
            parser.advance()?;
        }
        S_dscp => {
            parser.advance()?;
            parser.expect(S_equal)?;
            listener.dscp = parser.unsigned(0..=63)? as u8;
        }
        S_vrf => listener.vrf = Some(parser.assigned()?.text),
        S_mode => listener.mode = Some(mode(parser)?),
        S_userid => parser.user_id(&mut listener.owner)?,
        S_groupid => parser.group_id(&mut listener.owner)?,
        S_bind => {
            parser.advance()?;
            parser.expect(S_retry)?;
            listener.retry_delay = delay(parser)?;
        }
        S_retry => {
            parser.advance()?;
            listener.retry_delay = delay(parser)?;
        }
        S_tcp => {
            parser.advance()?;
            match parser.code() {
                // The buffers of the workers' channels do not depend on a listener, but spawnd's
                // documentation has the directive here.
                S_bufsize => block.channel_buffer = Some(buffer_size(parser)?),
                _ if connection_option(parser, &mut listener.keepalive)? => {}
                _ => return Err(parser.expected_words(&["bufsize", "keepalive", "user"])),
            }
        }
        S_sticky => sticky(parser, &mut listener.sticky)?,
        _ if parser.is_word("ipv6") => listener.ipv6_only = ipv6_only(parser)?,
        _ if parser.is_word("reuse") => listener.reuse_port = reuse_port(parser)?,
        // The C program's documentation gives the address without a keyword.
        S_string if listener.address.is_none() && looks_like_address(&parser.text_lossy()) => {
            listener.address = Some(parser.value()?);
            listener.empty = false;
        }
        _ => {
            return Err(parser.expected_words(&[
                "aaa.protocol",
                "address",
                "backlog",
                "bind",
                "dscp",
                "flag",
                "groupid",
                "haproxy",
                "ipv6",
                "mode",
                "overload",
                "path",
                "port",
                "protocol",
                "realm",
                "retry",
                "reuse",
                "sticky",
                "tcp",
                "tls",
                "type",
                "userid",
                "vrf",
            ]))
        }
    }
    Ok(())
}

/// True for an address, also if its zone does not exist.
fn looks_like_address(text: &str) -> bool {
    Address::parse(text) != Err(NotAnAddress::Malformed)
}

/// `reuse port = BOOL`, with the word `reuse` current.
fn reuse_port(parser: &mut Parser<'_>) -> Result<bool, ConfigError> {
    let position = parser.position();
    parser.advance()?;
    parser.check(S_port)?;
    let on = parser.assigned_boolean()?;
    if on && !parser.system().can_share_port() {
        let message = "'reuse port': this system does not spread connections over several sockets";
        return Err(ConfigError { position, message: message.into() });
    }
    Ok(on)
}

/// `ipv6 only = yes | no | auto`, with the word `ipv6` current.
fn ipv6_only(parser: &mut Parser<'_>) -> Result<Ipv6Only, ConfigError> {
    parser.advance()?;
    if !parser.is_word("only") {
        return Err(parser.expected_words(&["only"]));
    }
    parser.advance()?;
    parser.expect(S_equal)?;
    let only = match parser.code() {
        S_auto => Ipv6Only::Auto,
        code => match code.boolean() {
            Some(true) => Ipv6Only::Yes,
            Some(false) => Ipv6Only::No,
            None => {
                let words = [S_auto, S_deny, S_false, S_no, S_permit, S_true, S_yes];
                return Err(parser.expected(&words));
            }
        },
    };
    parser.advance()?;
    Ok(only)
}

/// `haproxy = BOOL | optional` or `haproxy from = NETWORK`, with the keyword current.
fn haproxy(parser: &mut Parser<'_>, block: &mut Block) -> Result<(), ConfigError> {
    parser.advance()?;
    if parser.code() == S_from {
        let from = parser.assigned()?;
        block.listener.haproxy_from.push(network(&from)?);
        block.haproxy_from.get_or_insert(from);
        return Ok(());
    }
    parser.expect(S_equal)?;
    let (expected, optional) = match parser.code().boolean() {
        Some(yes) => (yes, false),
        None if parser.code() == S_optional => (true, true),
        None => {
            let codes: Vec<Code> = BOOLEANS.into_iter().chain([S_optional]).collect();
            return Err(parser.expected(&codes));
        }
    };
    parser.advance()?;
    set_flag(&mut block.listener.flags, flag::HAPROXY, expected);
    set_flag(&mut block.listener.flags, flag::HAPROXY_OPTIONAL, optional);
    Ok(())
}

fn set_flag(flags: &mut u32, bit: u32, on: bool) {
    *flags = if on { *flags | bit } else { *flags & !bit };
}

fn protocol(parser: &mut Parser<'_>, listener: &mut Listener) -> Result<(), ConfigError> {
    parser.advance()?;
    parser.expect(S_equal)?;
    match parser.code() {
        S_tcp | S_TCP => (listener.protocol, listener.kind) = (Protocol::Tcp, Kind::Stream),
        S_udp | S_UDP => (listener.protocol, listener.kind) = (Protocol::Udp, Kind::Datagram),
        S_SCTP => listener.protocol = Protocol::Sctp,
        _ if parser.is_word("sctp") => listener.protocol = Protocol::Sctp,
        _ if parser.is_word("MPTCP") || parser.is_word("mptcp") => {
            (listener.protocol, listener.kind) = (Protocol::Mptcp, Kind::Stream);
        }
        _ => return Err(parser.expected_words(&["MPTCP", "SCTP", "TCP", "UDP", "tcp", "udp"])),
    }
    parser.advance()
}

/// `delay = SECONDS`, with the token `delay` current.
pub(super) fn delay(parser: &mut Parser<'_>) -> Result<u32, ConfigError> {
    parser.expect(S_delay)?;
    parser.expect(S_equal)?;
    Ok(parser.integer(COUNT)? as u32)
}

/// `bufsize [=] N`, with the token `bufsize` current.
pub(super) fn buffer_size(parser: &mut Parser<'_>) -> Result<i32, ConfigError> {
    parser.advance()?;
    parser.accept(S_equal)?;
    Ok(parser.integer(COUNT)? as i32)
}

/// `keepalive …` or `user timeout = SECONDS`, with the word after `tcp` current; false if it is
/// neither.
pub(super) fn connection_option(
    parser: &mut Parser<'_>,
    settings: &mut Keepalive,
) -> Result<bool, ConfigError> {
    match () {
        () if parser.code() == S_keepalive => keepalive(parser, settings)?,
        () if parser.is_word("user") => settings.user_timeout = Some(user_timeout(parser)?),
        () => return Ok(false),
    }
    Ok(true)
}

/// `user timeout = SECONDS`, with the word `user` current.
fn user_timeout(parser: &mut Parser<'_>) -> Result<u32, ConfigError> {
    let position = parser.position();
    parser.advance()?;
    if parser.code() != S_timeout {
        return Err(parser.expected(&[S_timeout]));
    }
    let seconds = parser.assigned_integer(0..=i64::from(MOST_USER_TIMEOUT))? as u32;
    if !parser.system().has_user_timeout() {
        parser.message_once(Severity::WARNING, &position, "tcp user timeout: this system has none");
    }
    Ok(seconds)
}

/// `keepalive count|idle|interval = N`, with the token `keepalive` current. Zero or less: unset.
fn keepalive(parser: &mut Parser<'_>, keepalive: &mut Keepalive) -> Result<(), ConfigError> {
    parser.advance()?;
    let which = parser.code();
    if !matches!(which, S_count | S_idle | S_interval) {
        return Err(parser.expected(&[S_count, S_idle, S_interval]));
    }
    // The maxima that Linux accepts (tcp(7)); zero and less mean "unset".
    let most = if which == S_count { 127 } else { 32767 };
    let value = parser.assigned_integer(i64::from(i32::MIN)..=most)?;
    let value = u32::try_from(value).ok().filter(|&value| value > 0);
    match which {
        S_count => keepalive.count = value,
        S_idle => keepalive.idle = value,
        _ => keepalive.interval = value,
    }
    Ok(())
}

/// `sticky cache period|size = N`, with the token `sticky` current.
pub(super) fn sticky(parser: &mut Parser<'_>, sticky: &mut Sticky) -> Result<(), ConfigError> {
    parser.advance()?;
    parser.expect(S_cache)?;
    match parser.code() {
        S_period => sticky.period = parser.assigned_integer(INT)?.max(0) as u32,
        S_size => sticky.size = parser.assigned_integer(1..=i64::from(i32::MAX))? as usize,
        _ => return Err(parser.expected(&[S_period, S_size])),
    }
    Ok(())
}
