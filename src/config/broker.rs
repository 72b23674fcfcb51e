//! The broker's section: listeners, limits, and how workers are started.

use super::acl::Acl;
use super::acl::AclEntry;
use super::clients::ClientLimits;
use super::endpoint::{self, Endpoint};
use super::listen::{
    buffer_size, connection_option, delay, flag, listen, sticky, Listener, Sticky,
};
use super::network::network;
use super::token::*;
use super::values::{Ids, INT};
use super::{common, control, ConfigError, Parser};
use crate::os::socket::{Keepalive, Kind, Protocol};
use std::path::{Path, PathBuf};

/// What the broker does with connections above its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overload {
    /// They wait in the kernel's backlog.
    #[default]
    Queue,
    /// They are accepted and closed.
    Close,
    /// They are refused, because the listening sockets are closed.
    Reset,
}

/// What SIGTERM does to open sessions: `stop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The broker exits at once. Sessions go on in the workers.
    Now,
    /// The broker exits when all sessions have ended.
    Drain,
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
    /// `start timeout` in seconds; 0 is off.
    pub start_timeout: u32,
    /// `stall timeout` in seconds; 0 is off.
    pub stall_timeout: u32,
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
            start_timeout: 5,
            stall_timeout: 60,
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
    /// `tcp keepalive …` and `tcp user timeout`.
    pub keepalive: Keepalive,
    /// `tcp bufsize`; 0 is the system's.
    pub channel_buffer: i32,
    /// `bind retry delay` for the listeners after it, in seconds.
    pub retry_delay: u32,
    /// `stop`; depends on the process if unset.
    pub stop: Option<Stop>,
    /// `control { }`: where tcprelayctl connects.
    pub control: Option<Listener>,
    /// `status = { }`.
    pub status: Option<Endpoint>,
    /// `tls watch`: every how many seconds to look whether the files for TLS have changed; 0 is
    /// never.
    pub tls_watch: u32,
    /// `spawn { }`.
    pub spawn: Spawn,
    /// `client …`.
    pub clients: ClientLimits,
}

impl Broker {
    /// True if this section has something for the monitor to do.
    pub fn is_monitored(&self) -> bool {
        self.status.is_some() || self.control.is_some()
    }

    /// True if there are listeners with TLS.
    pub fn has_tls_listeners(&self) -> bool {
        self.listeners.iter().any(|listener| listener.tls_versions != 0)
    }

    /// The access list that workers apply to the addresses in PROXY headers. Empty if no listener
    /// expects them.
    pub fn access_list_for_workers(&self) -> Acl {
        match self.listeners.iter().any(|listener| listener.flags & flag::HAPROXY != 0) {
            true => Acl::new(self.acl.clone()),
            false => Acl::default(),
        }
    }

    /// The limits of clients that workers apply to the addresses in PROXY headers. None if no
    /// listener expects them.
    pub fn client_limits_for_workers(&self) -> ClientLimits {
        match self.listeners.iter().any(|listener| listener.flags & flag::HAPROXY != 0) {
            true => self.clients.clone(),
            false => ClientLimits::default(),
        }
    }

    /// Refuses stream listeners with DTLS versions only: where TLS was asked for, there must be TLS.
    pub fn refuse_datagram_tls(&self) -> Result<(), String> {
        let wrong = self.listeners.iter().find(|listener| {
            let datagrams_only = listener.dtls_versions != 0 && listener.tls_versions == 0;
            datagrams_only && listener.kind == Kind::Stream
        });
        match wrong {
            Some(listener) => Err(format!(
                "listen {{ port = {} }}: DTLS is for datagrams, this is a stream listener",
                listener.port
            )),
            None => Ok(()),
        }
    }
}

/// Parses the section. The token after its opening brace is current; ends on the closing one.
///
/// `datagrams`: this program's own workers accept datagrams.
pub fn parse(parser: &mut Parser<'_>, datagrams: bool) -> Result<Broker, ConfigError> {
    let mut broker = Broker::default();
    parse_into(parser, &mut broker)?;
    parser.check(S_closebra)?;
    check(parser, &mut broker, datagrams)?;
    Ok(broker)
}

/// Parses the directives of a section, up to its closing brace or the end of the text. Settings
/// that it does not mention stay as they are.
pub fn parse_into(parser: &mut Parser<'_>, broker: &mut Broker) -> Result<(), ConfigError> {
    parser.directives(|parser| parser.attempt(|parser| directive(parser, broker)))
}

fn directive(parser: &mut Parser<'_>, broker: &mut Broker) -> Result<(), ConfigError> {
    match parser.code() {
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
            let listeners = listen(parser, broker.retry_delay, &mut broker.channel_buffer)?;
            broker.listeners.extend(listeners);
        }
        S_bind => {
            parser.advance()?;
            parser.expect(S_retry)?;
            broker.retry_delay = delay(parser)?;
        }
        S_tcp => {
            parser.advance()?;
            match parser.code() {
                S_bufsize => broker.channel_buffer = buffer_size(parser)?,
                _ if connection_option(parser, &mut broker.keepalive)? => {}
                _ => return Err(parser.expected_words(&["bufsize", "keepalive", "user"])),
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
            parser.block(|parser| parser.attempt(|parser| in_spawn(parser, broker)))?;
            parser.advance()?;
        }
        S_client => broker.clients.parse(parser)?,
        S_tls => {
            parser.advance()?;
            if !parser.is_word("watch") {
                return Err(parser.expected_words(&["watch"]));
            }
            broker.tls_watch = parser.assigned_integer(0..=86400)? as u32;
        }
        S_sticky => sticky(parser, &mut broker.sticky)?,
        // spawnd's documentation has these outside of spawn { } as well.
        S_exec => drop(spawn_directive(parser, &mut broker.spawn)?),
        S_id => section_id(parser, &mut broker.spawn)?,
        _ if parser.is_word("control") => broker.control = Some(control::control(parser)?),
        _ if parser.is_word("log") => common::log(parser)?,
        _ if parser.is_word("status") => broker.status = Some(endpoint::status(parser)?),
        _ if parser.is_word("stop") => broker.stop = Some(stop(parser)?),
        _ if common::parse_shared(parser)? => {}
        _ => return Err(unknown_directive(parser)),
    }
    Ok(())
}

/// One directive of `spawn { }`.
fn in_spawn(parser: &mut Parser<'_>, broker: &mut Broker) -> Result<(), ConfigError> {
    match parser.code() {
        S_sticky => sticky(parser, &mut broker.sticky),
        _ if spawn_directive(parser, &mut broker.spawn)? => Ok(()),
        _ => Err(parser.expected(&[
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
        ])),
    }
}

fn unknown_directive(parser: &Parser<'_>) -> ConfigError {
    parser.expected(&[
        S_eof,
        S_background,
        S_bind,
        S_client,
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

/// `id = NAME` outside of spawn { }. If a block follows, it is a section inside a section: a
/// mistake at the word `id`.
fn section_id(parser: &mut Parser<'_>, spawn: &mut Spawn) -> Result<(), ConfigError> {
    let nested = unknown_directive(parser);
    spawn.id = Some(parser.assigned()?.text);
    if parser.code() == S_openbra {
        return Err(nested);
    }
    Ok(())
}

/// `stop = drain|now`, with the keyword current.
fn stop(parser: &mut Parser<'_>) -> Result<Stop, ConfigError> {
    parser.advance()?;
    parser.expect(S_equal)?;
    let stop = match () {
        () if parser.is_word("drain") => Stop::Drain,
        () if parser.is_word("now") => Stop::Now,
        () => return Err(parser.expected_words(&["drain", "now"])),
    };
    parser.advance()?;
    Ok(stop)
}

/// Checks that need the complete section.
fn check(parser: &Parser<'_>, broker: &mut Broker, datagrams: bool) -> Result<(), ConfigError> {
    let spawn = &mut broker.spawn;
    spawn.instances_min = spawn.instances_min.min(spawn.instances_max);
    let ours = spawn.program.is_none() && !datagrams;
    for listener in &broker.listeners {
        if ours && (listener.protocol == Protocol::Udp || listener.kind == Kind::Datagram) {
            let place = listener.address.as_ref().map_or(parser.position(), |a| a.position.clone());
            let message = "UDP listeners need a worker program that takes datagrams \
                           (spawn { exec = … }), tcprelay relays streams only"
                .to_owned();
            return Err(ConfigError { position: place, message });
        }
    }
    Ok(())
}

/// `permit|deny [not] NETWORK`, with the verb current.
fn acl_entry(parser: &mut Parser<'_>, acl: &mut Vec<AclEntry>) -> Result<(), ConfigError> {
    let permit = parser.code() != S_deny;
    parser.advance()?;
    let negated = parser.accept(S_not)?;
    let network = network(&parser.value()?)?;
    acl.push(AclEntry { permit, negated, network });
    Ok(())
}

/// A directive of `spawn { }`; false if the current token begins none.
fn spawn_directive(parser: &mut Parser<'_>, spawn: &mut Spawn) -> Result<bool, ConfigError> {
    match parser.code() {
        S_exec => {
            parser.advance()?;
            parser.accept(S_equal)?;
            let path = parser.value()?;
            let expanded = parser.system().expand_system_type(&path.text);
            if !parser.system().is_executable(Path::new(&expanded)) {
                let text = format!("File {expanded} doesn't appear to be executable");
                return Err(path.error(text));
            }
            spawn.program = Some(expanded.into());
        }
        S_id => spawn.id = Some(parser.assigned()?.text),
        S_config => spawn.config = Some(parser.assigned()?.text),
        S_instances | S_servers => {
            // At least one worker: with none, no connection could ever be served.
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
        _ if parser.is_word("start") => spawn.start_timeout = common::timeout(parser)?,
        _ if parser.is_word("stall") => spawn.stall_timeout = common::timeout(parser)?,
        S_userid => parser.user_id(&mut spawn.ids)?,
        S_groupid => parser.group_id(&mut spawn.ids)?,
        S_working => {
            parser.advance()?;
            parser.expect(S_directory)?;
            // The C program expects one more token here, whatever it is.
            if parser.code() != S_equal {
                parser.advance()?;
            }
            parser.expect(S_equal)?;
            parser.accept(S_equal)?;
            let directory = parser.value()?;
            if !parser.system().is_directory(Path::new(&directory.text)) {
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
