//! The broker's section: listeners, limits, and how workers are started.

use super::token::*;
use super::values::{parse_port, Ids, Value};
use super::{common, ConfigError, Parser};
use crate::os::address::Address;
use crate::os::socket::{Keepalive, Kind, Protocol};
use crate::os::{names, process};
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

const INT: std::ops::RangeInclusive<i64> = i32::MIN as i64..=i32::MAX as i64;
const COUNT: std::ops::RangeInclusive<i64> = 0..=i32::MAX as i64;

/// What the broker does with connections beyond its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overload {
    /// They wait in the kernel's backlog.
    #[default]
    Queue,
    /// They are accepted and closed.
    Close,
    /// The listening sockets are closed, so that they are refused.
    Reset,
}

/// A stickiness cache's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// Seconds an entry is good for; 0 is off.
    pub period: u32,
    /// Most entries.
    pub size: usize,
}

impl Default for Sticky {
    fn default() -> Sticky {
        Sticky { period: 0, size: 1024 }
    }
}

/// One `permit` or `deny`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AclEntry {
    /// `permit`, not `deny`.
    pub permit: bool,
    /// `not`: matches what is outside the network.
    pub negated: bool,
    /// The network, IPv4 as IPv4-mapped IPv6, host bits cleared.
    pub network: u128,
    /// Its length, 0 to 128 (IPv4: 96 more than written).
    pub length: u8,
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
}

/// One `listen { }`.
#[derive(Clone, Debug)]
pub struct Listener {
    /// `address` or `path`, with its place; the wildcard address if it is not set.
    pub address: Option<Value>,
    /// `port`, 0 if the kernel is to choose.
    pub port: u16,
    /// Neither port nor address was given (inetd operation ignores such a block).
    pub empty: bool,
    /// `type`.
    pub kind: Kind,
    /// `protocol`.
    pub protocol: Protocol,
    /// `backlog`.
    pub backlog: i32,
    /// `overload backlog`, at most `backlog`.
    pub overload_backlog: i32,
    /// `realm`, at most 15 bytes.
    pub realm: Vec<u8>,
    /// The TLS versions, encoded as in the ACCEPT message; 0 is off.
    pub tls_versions: u32,
    /// The DTLS versions, encoded the same way, for UDP listeners.
    pub dtls_versions: u32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// `aaa.protocol`, the number of its word; 0 if unset.
    pub aaa_protocol: u32,
    /// `dscp`, not shifted; 0 leaves the system's.
    pub dscp: u8,
    /// `vrf`.
    pub vrf: Option<String>,
    /// `mode` of a UNIX socket.
    pub mode: Option<u32>,
    /// `userid` and `groupid` of a UNIX socket.
    pub owner: Ids,
    /// `bind retry delay` in seconds; 0 is off.
    pub retry_delay: u32,
    /// `tcp keepalive …`; the section's where unset.
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
            backlog: 128,
            overload_backlog: 128,
            realm: Vec::new(),
            tls_versions: 0,
            dtls_versions: 0,
            flags: 0,
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

    /// The address to bind: a literal, a path, or the first address of a name.
    pub fn resolve(&self) -> Result<Address, String> {
        let Some(value) = &self.address else {
            let wildcard = if names::has_ipv6() { "::" } else { "0.0.0.0" };
            let address = Address::parse(wildcard).ok_or("no wildcard address")?;
            return Ok(address.with_port(self.port));
        };
        let text = value.text.as_str();
        if let Some(address) = Address::parse(text) {
            return Ok(address.with_port(self.port));
        }
        if !is_host_name(text) {
            return Err("not an address".into());
        }
        let found = names::resolve(text).map_err(|error| crate::os::reason(&error))?;
        let first = found.first().ok_or("the name has no address")?;
        Ok(Address::Ip((*first, self.port).into()))
    }
}

/// A name that can stand for a host: letters, digits, dots, dashes and underscores, the last
/// label not a number (RFC 1123 section 2.1, and what looks like a mistyped address is none).
pub fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let last = name.rsplit('.').next().unwrap_or("");
    name.len() <= 253 && name.split('.').all(label) && !last.bytes().all(|b| b.is_ascii_digit())
}

/// How workers are started: `spawn { }`.
#[derive(Clone, Debug)]
pub struct Spawn {
    /// `exec`; this executable if unset.
    pub program: Option<PathBuf>,
    /// `id`.
    pub id: Option<String>,
    /// `config`.
    pub config: Option<String>,
    /// `instances min`.
    pub instances_min: usize,
    /// `instances max`.
    pub instances_max: usize,
    /// `users min`, per worker.
    pub users_min: usize,
    /// `users max`, per worker.
    pub users_max: usize,
    /// `ipc key`; 0 is off.
    pub ipc_key: i32,
    /// `userid` and `groupid`.
    pub ids: Ids,
    /// `working directory`.
    pub directory: Option<PathBuf>,
}

impl Default for Spawn {
    fn default() -> Spawn {
        Spawn {
            program: None,
            id: None,
            config: None,
            instances_min: 2,
            instances_max: 8,
            users_min: 20,
            users_max: 60,
            ipc_key: 0,
            ids: Ids::default(),
            directory: None,
        }
    }
}

/// The broker's section.
#[derive(Clone, Debug, Default)]
pub struct Broker {
    /// `listen { }`, in order.
    pub listeners: Vec<Listener>,
    /// `permit` and `deny`, in order.
    pub acl: Vec<AclEntry>,
    /// `background`.
    pub background: bool,
    /// `single process`.
    pub single_process: Option<bool>,
    /// `pidfile`.
    pub pid_file: Option<PathBuf>,
    /// `overload`.
    pub overload: Overload,
    /// `sticky cache …`.
    pub sticky: Sticky,
    /// `tcp keepalive …`.
    pub keepalive: Keepalive,
    /// `tcp bufsize`; 0 is the system's.
    pub channel_buffer: i32,
    /// `spawn { }`.
    pub spawn: Spawn,
}

/// Parses the section; the token after its opening brace is current, and ends on the closing
/// one.
pub fn parse(parser: &mut Parser<'_>) -> Result<Broker, ConfigError> {
    let mut broker = Broker::default();
    let mut retry_delay = 0;
    loop {
        match parser.code() {
            S_closebra => break,
            S_eof => return Err(parser.expected(&[S_closebra])),
            S_permit | S_deny => acl_entry(parser, &mut broker.acl)?,
            S_acl => {
                parser.advance()?;
                match parser.code() {
                    S_accept | S_permit | S_deny => acl_entry(parser, &mut broker.acl)?,
                    _ => return Err(parser.expected(&[S_accept, S_deny, S_permit])),
                }
            }
            S_background => broker.background = parser.assigned_boolean()?,
            S_listen => {
                let listener = listen(parser, retry_delay)?;
                broker.listeners.push(listener);
            }
            S_bind => {
                parser.advance()?;
                parser.expect(S_retry)?;
                retry_delay = delay(parser)?;
            }
            S_tcp => {
                parser.advance()?;
                match parser.code() {
                    S_keepalive => keepalive(parser, &mut broker.keepalive)?,
                    S_bufsize => {
                        parser.advance()?;
                        parser.accept(S_equal)?;
                        broker.channel_buffer = parser.integer(COUNT)? as i32;
                    }
                    _ => return Err(parser.expected(&[S_bufsize, S_keepalive])),
                }
            }
            S_pidfile | S_pid_file => broker.pid_file = Some(parser.assigned()?.text.into()),
            S_overload => {
                parser.advance()?;
                parser.expect(S_equal)?;
                broker.overload = match parser.code() {
                    S_queue => Overload::Queue,
                    S_close => Overload::Close,
                    S_reset => Overload::Reset,
                    _ => return Err(parser.expected(&[S_close, S_queue, S_reset])),
                };
                parser.advance()?;
            }
            S_single => {
                parser.advance()?;
                parser.expect(S_process)?;
                parser.expect(S_equal)?;
                broker.single_process = Some(parser.boolean()?);
            }
            S_spawn => {
                parser.advance()?;
                parser.accept(S_equal)?;
                parser.expect(S_openbra)?;
                while parser.code() != S_closebra {
                    if !spawn_directive(parser, &mut broker.spawn)? {
                        if parser.code() == S_sticky {
                            sticky(parser, &mut broker.sticky)?;
                            continue;
                        }
                        if parser.code() == S_eof {
                            return Err(parser.expected(&[S_closebra]));
                        }
                        return Err(parser.expected(&[
                            S_config,
                            S_exec,
                            S_groupid,
                            S_id,
                            S_instances,
                            S_ipc,
                            S_servers,
                            S_sticky,
                            S_userid,
                            S_users,
                            S_working,
                            S_closebra,
                        ]));
                    }
                }
                parser.advance()?;
            }
            S_sticky => sticky(parser, &mut broker.sticky)?,
            // The document of the stand-alone broker has these outside of spawn { } as well.
            S_exec => drop(spawn_directive(parser, &mut broker.spawn)?),
            S_id => section_id(parser, &mut broker.spawn)?,
            _ if common::parse_shared(parser)? => {}
            _ => return Err(unknown_directive(parser)),
        }
    }
    check(parser, &mut broker)?;
    Ok(broker)
}

fn unknown_directive(parser: &Parser<'_>) -> ConfigError {
    parser.expected(&[
        S_eof,
        S_background,
        S_bind,
        S_coredump,
        S_debug,
        S_deny,
        S_exec,
        S_listen,
        S_overload,
        S_permit,
        S_pid_file,
        S_pidfile,
        S_proctitle,
        S_single,
        S_spawn,
        S_sticky,
        S_syslog,
        S_tcp,
        S_trace,
        S_closebra,
    ])
}

/// `id = NAME` outside of spawn { }. A block behind it is a section inside a section, which is
/// a mistake at the word `id`.
fn section_id(parser: &mut Parser<'_>, spawn: &mut Spawn) -> Result<(), ConfigError> {
    let nested = unknown_directive(parser);
    spawn.id = Some(parser.assigned()?.text);
    if parser.code() == S_openbra {
        return Err(nested);
    }
    Ok(())
}

/// What can only be said when the section is complete.
fn check(parser: &Parser<'_>, broker: &mut Broker) -> Result<(), ConfigError> {
    let spawn = &mut broker.spawn;
    spawn.instances_min = spawn.instances_min.min(spawn.instances_max);
    let ours = spawn.program.is_none();
    for listener in &broker.listeners {
        if ours && (listener.protocol == Protocol::Udp || listener.kind == Kind::Datagram) {
            let place = listener.address.as_ref().map_or(parser.position(), |a| a.position.clone());
            let message = "UDP listeners need a worker program that takes datagrams \
                           (spawn { exec = … }), tcprelay relays streams only"
                .to_owned();
            return Err(ConfigError { position: place, message });
        }
        if parser.report.parse_only {
            if let (Err(reason), Some(address)) = (listener.resolve(), &listener.address) {
                return Err(address.error(format!(
                    "Expected an address to listen on, but got '{}': {reason}",
                    address.text
                )));
            }
        }
    }
    Ok(())
}

/// `delay = SECONDS`, with the token `delay` current.
fn delay(parser: &mut Parser<'_>) -> Result<u32, ConfigError> {
    parser.expect(S_delay)?;
    parser.expect(S_equal)?;
    Ok(parser.integer(COUNT)? as u32)
}

/// `keepalive count|idle|interval = N`, with the token `keepalive` current. Negative: unset.
fn keepalive(parser: &mut Parser<'_>, keepalive: &mut Keepalive) -> Result<(), ConfigError> {
    parser.advance()?;
    let which = parser.code();
    if !matches!(which, S_count | S_idle | S_interval) {
        return Err(parser.expected(&[S_count, S_idle, S_interval]));
    }
    let value = u32::try_from(parser.assigned_integer(INT)?).ok();
    match which {
        S_count => keepalive.count = value,
        S_idle => keepalive.idle = value,
        _ => keepalive.interval = value,
    }
    Ok(())
}

/// `sticky cache period|size = N`, with the token `sticky` current.
fn sticky(parser: &mut Parser<'_>, sticky: &mut Sticky) -> Result<(), ConfigError> {
    parser.advance()?;
    parser.expect(S_cache)?;
    match parser.code() {
        S_period => sticky.period = parser.assigned_integer(INT)?.max(0) as u32,
        S_size => sticky.size = parser.assigned_integer(1..=i64::from(i32::MAX))? as usize,
        _ => return Err(parser.expected(&[S_period, S_size])),
    }
    Ok(())
}

/// `permit|deny [not] NETWORK`, with the verb current.
fn acl_entry(parser: &mut Parser<'_>, acl: &mut Vec<AclEntry>) -> Result<(), ConfigError> {
    let permit = parser.code() != S_deny;
    parser.advance()?;
    let negated = parser.accept(S_not)?;
    let network = parser.value()?;
    let Some((network, length)) = parse_network(&network.text) else {
        return Err(network.error(format!(
            "Expected an IP address or network in CIDR notation, but got '{}'.",
            network.text
        )));
    };
    acl.push(AclEntry { permit, negated, network, length });
    Ok(())
}

/// An address, `/length` or `/mask` behind it if it is a network; in IPv6 terms.
pub fn parse_network(text: &str) -> Option<(u128, u8)> {
    let (address, suffix) = match text.split_once('/') {
        Some((address, suffix)) => (address, Some(suffix)),
        None => (text, None),
    };
    let (bits, offset) = match Address::parse(address)?.ip()? {
        IpAddr::V4(v4) => (u128::from(v4.to_ipv6_mapped()), 96u8),
        IpAddr::V6(v6) => (u128::from(v6), 0),
    };
    let length = match suffix {
        None => 128,
        Some(length) if length.bytes().all(|b| b.is_ascii_digit()) => {
            let length: u8 = length.parse().ok()?;
            offset.checked_add(length).filter(|&length| length <= 128)?
        }
        Some(mask) => {
            let mask = match offset {
                0 => u128::from(mask.parse::<Ipv6Addr>().ok()?),
                _ => {
                    u128::MAX << 32
                        | u128::from(u32::from(mask.parse::<std::net::Ipv4Addr>().ok()?))
                }
            };
            let length = mask.leading_ones();
            // Only a contiguous mask is a network.
            (mask.count_ones() == length).then_some(length as u8)?
        }
    };
    Some((mask_bits(bits, length), length))
}

/// Clears the bits behind the first `length`.
pub fn mask_bits(bits: u128, length: u8) -> u128 {
    bits & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

fn listen(parser: &mut Parser<'_>, retry_delay: u32) -> Result<Listener, ConfigError> {
    let mut listener = Listener::new(retry_delay);
    parser.advance()?;
    parser.accept(S_equal)?;
    parser.expect(S_openbra)?;
    while parser.code() != S_closebra {
        listen_directive(parser, &mut listener)?;
    }
    parser.advance()?;
    listener.overload_backlog = listener.overload_backlog.min(listener.backlog);
    Ok(listener)
}

fn listen_directive(parser: &mut Parser<'_>, listener: &mut Listener) -> Result<(), ConfigError> {
    match parser.code() {
        S_address | S_path => {
            listener.address = Some(parser.assigned()?);
            listener.empty = false;
        }
        S_port => {
            // The document of the stand-alone broker writes it without the equals sign.
            parser.advance()?;
            parser.accept(S_equal)?;
            listener.port = parse_port(&parser.value()?)?;
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
        S_backlog => listener.backlog = parser.assigned_integer(COUNT)? as i32,
        S_overload => {
            parser.advance()?;
            if parser.code() != S_backlog {
                return Err(parser.expected(&[S_backlog]));
            }
            listener.overload_backlog = parser.assigned_integer(COUNT)? as i32;
        }
        S_realm => {
            let realm = parser.assigned()?;
            if realm.text.len() > 15 {
                return Err(realm.error("Maximum tag length is limited to 15 characters."));
            }
            listener.realm = realm.text.into_bytes();
        }
        S_tls | S_ssl => tls(parser, listener)?,
        S_haproxy => {
            let on = parser.assigned_boolean()?;
            set_flag(&mut listener.flags, flag::HAPROXY, on);
        }
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
        S_mode => {
            let mode = parser.assigned()?;
            let digits: String =
                mode.text.chars().take_while(|c| ('0'..='7').contains(c)).collect();
            listener.mode = match u32::from_str_radix(&digits, 8) {
                Ok(bits) if bits <= 0o7777 => Some(bits),
                _ => {
                    let text = format!("Unrecognized file node creation mask '{}'", mode.text);
                    return Err(mode.error(text));
                }
            };
        }
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
            if parser.code() != S_keepalive {
                return Err(parser.expected(&[S_keepalive]));
            }
            keepalive(parser, &mut listener.keepalive)?;
        }
        S_sticky => sticky(parser, &mut listener.sticky)?,
        // The program's document gives the address without a keyword.
        S_string
            if listener.address.is_none() && Address::parse(&parser.text_lossy()).is_some() =>
        {
            listener.address = Some(parser.value()?);
            listener.empty = false;
        }
        S_eof => return Err(parser.expected(&[S_closebra])),
        _ => {
            return Err(parser.expected(&[
                S_aaa_protocol,
                S_address,
                S_backlog,
                S_bind,
                S_dscp,
                S_flag,
                S_groupid,
                S_haproxy,
                S_mode,
                S_overload,
                S_path,
                S_port,
                S_protocol,
                S_realm,
                S_retry,
                S_sticky,
                S_tcp,
                S_tls,
                S_type,
                S_userid,
                S_vrf,
            ]))
        }
    }
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

/// The low byte of the protocol number of a TLS version (RFC 8446 section 4.2.1).
fn tls_version(code: Code) -> Option<u32> {
    match code {
        S_TLS1_2 => Some(3),
        S_TLS1_3 => Some(4),
        _ => None,
    }
}

/// The low byte of the protocol number of a DTLS version. DTLS 1.3 is known as a word, and
/// refused as no TLS library here speaks it.
fn dtls_version(code: Code) -> Option<u32> {
    match code {
        S_DTLS1_0 => Some(0xff),
        S_DTLS1_2 => Some(0xfd),
        _ => None,
    }
}

/// TLS 1.2 and 1.3.
const TLS_DEFAULT: u32 = 0x0403;
/// DTLS 1.0 and 1.2.
const DTLS_DEFAULT: u32 = 0x00fd_00ff;

/// `tls [= VALUE]` and `tls psk = BOOL`, with the keyword current.
fn tls(parser: &mut Parser<'_>, listener: &mut Listener) -> Result<(), ConfigError> {
    parser.advance()?;
    match parser.code() {
        S_psk => {
            let on = parser.assigned_boolean()?;
            set_flag(&mut listener.flags, flag::TLS_PSK, on);
            return Ok(());
        }
        S_equal => parser.advance()?,
        S_eof => return Err(parser.expected(&[S_equal, S_psk])),
        // The document of the stand-alone broker writes the bare word for yes.
        _ => {
            (listener.tls_versions, listener.dtls_versions) = (TLS_DEFAULT, DTLS_DEFAULT);
            return Ok(());
        }
    }
    set_flag(&mut listener.flags, flag::TLS_AUTO, false);
    match parser.code() {
        S_yes | S_true | S_permit => {
            (listener.tls_versions, listener.dtls_versions) = (TLS_DEFAULT, DTLS_DEFAULT);
        }
        S_no | S_false | S_deny => (listener.tls_versions, listener.dtls_versions) = (0, 0),
        S_auto => {
            (listener.tls_versions, listener.dtls_versions) = (TLS_DEFAULT, DTLS_DEFAULT);
            set_flag(&mut listener.flags, flag::TLS_AUTO, true);
        }
        S_TLS1_2 | S_TLS1_3 => {
            listener.tls_versions = version_list(parser, tls_version, &[S_TLS1_2, S_TLS1_3], 8)?;
            return Ok(());
        }
        S_DTLS1_0 | S_DTLS1_2 | S_DTLS1_3 => {
            listener.dtls_versions =
                version_list(parser, dtls_version, &[S_DTLS1_0, S_DTLS1_2], 16)?;
            return Ok(());
        }
        _ => {
            return Err(parser.expected(&[
                S_DTLS1_0, S_DTLS1_2, S_DTLS1_3, S_TLS1_2, S_TLS1_3, S_auto, S_deny, S_false, S_no,
                S_permit, S_true, S_yes,
            ]))
        }
    }
    parser.advance()
}

/// Comma-separated versions, each shifting the former to the left.
fn version_list(
    parser: &mut Parser<'_>,
    number: fn(Code) -> Option<u32>,
    known: &[Code],
    shift: u32,
) -> Result<u32, ConfigError> {
    let mut list = 0u32;
    loop {
        let Some(version) = number(parser.code()) else {
            return Err(parser.expected(known));
        };
        list = list << shift | version;
        parser.advance()?;
        if !parser.accept(S_comma)? {
            return Ok(list);
        }
    }
}

/// A directive of `spawn { }`; false if the current token is none.
fn spawn_directive(parser: &mut Parser<'_>, spawn: &mut Spawn) -> Result<bool, ConfigError> {
    match parser.code() {
        S_exec => {
            parser.advance()?;
            parser.accept(S_equal)?;
            let path = parser.value()?;
            let expanded = expand_system_type(&path.text);
            if !process::is_executable(Path::new(&expanded)) {
                let text = format!("File {expanded} doesn't appear to be executable");
                return Err(path.error(text));
            }
            spawn.program = Some(expanded.into());
        }
        S_id => spawn.id = Some(parser.assigned()?.text),
        S_config => spawn.config = Some(parser.assigned()?.text),
        S_instances | S_servers => {
            // At least one worker: with none, nothing could ever be served.
            match bound(parser)? {
                Bound::Min => spawn.instances_min = parser.integer(0..=100_000)? as usize,
                Bound::Max => spawn.instances_max = parser.integer(1..=100_000)? as usize,
            }
        }
        S_users => match bound(parser)? {
            Bound::Min => spawn.users_min = parser.integer(0..=i64::from(i32::MAX))? as usize,
            Bound::Max => spawn.users_max = parser.integer(1..=i64::from(i32::MAX))? as usize,
        },
        S_ipc => {
            parser.advance()?;
            if parser.code() != S_key {
                return Err(parser.expected(&[S_key]));
            }
            spawn.ipc_key = parser.assigned_integer(INT)? as i32;
        }
        S_userid => parser.user_id(&mut spawn.ids)?,
        S_groupid => parser.group_id(&mut spawn.ids)?,
        S_working => {
            parser.advance()?;
            parser.expect(S_directory)?;
            // The C program wants one token more, whatever it is.
            if parser.code() != S_equal {
                parser.advance()?;
            }
            parser.expect(S_equal)?;
            parser.accept(S_equal)?;
            let directory = parser.value()?;
            if !Path::new(&directory.text).is_dir() {
                let text = format!("'{}' is not a directory", directory.text);
                return Err(directory.error(text));
            }
            spawn.directory = Some(directory.text.into());
        }
        _ => return Ok(false),
    }
    Ok(true)
}

enum Bound {
    Min,
    Max,
}

/// `min =` or `max =`, with the keyword before it current.
fn bound(parser: &mut Parser<'_>) -> Result<Bound, ConfigError> {
    parser.advance()?;
    let bound = match parser.code() {
        S_min => Bound::Min,
        S_max => Bound::Max,
        _ if parser.is_word("minimum") => Bound::Min,
        _ if parser.is_word("maximum") => Bound::Max,
        _ => return Err(parser.expected(&[S_max, S_min])),
    };
    parser.advance()?;
    parser.expect(S_equal)?;
    Ok(bound)
}

/// `%o` and `%O`: the system type; `%%`: a percent sign; any other pair vanishes.
fn expand_system_type(text: &str) -> String {
    let mut out = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        match characters.next() {
            Some('o') => out += &names::system_type(),
            Some('O') => {
                out += &format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
            }
            Some('%') => out.push('%'),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn networks() {
        let mapped = 0xffffu128 << 32;
        for (text, expected) in [
            ("10.0.0.0/8", Some((mapped | 10 << 24, 104))),
            ("10.1.2.3/8", Some((mapped | 10 << 24, 104))),
            ("10.1.2.3/255.0.0.0", Some((mapped | 10 << 24, 104))),
            ("10.1.2.3/255.0.255.0", None),
            ("10.1.2.3/33", None),
            ("127.1", Some((mapped | 0x7f00_0001, 128))),
            ("::1", Some((1, 128))),
            ("::/0", Some((0, 0))),
            ("fe80::/10", Some((0xfe80u128 << 112, 10))),
            ("fe80::/129", None),
            ("foo", None),
            ("10.0.0.0/", None),
            ("/tmp/x", None),
        ] {
            assert_eq!(parse_network(text), expected, "{text}");
        }
    }

    #[test]
    fn host_names_are_not_mistyped_addresses() {
        for name in ["localhost", "a.example.org", "a.example.org.", "x_1.local"] {
            assert!(is_host_name(name), "{name}");
        }
        for name in ["300.0.0.1", "127.0.0.1#x", "${FOO}", "", "a..b", "1.2.3", "inet:1.2.3.4"] {
            assert!(!is_host_name(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn network_parsing_never_panics(text in "\\PC*") {
            let _ = parse_network(&text);
        }
    }
}
