//! The worker's section: remotes, and how sessions are relayed.

mod limits;
mod local;
mod mavis;
pub mod names;
mod remote;

use super::balance::{Balance, Scope};
use super::check::Check;
use super::listen::connection_option;
use super::route::Routes;
use super::tls::{self, Ocsp, RemoteTls, Tls};
use super::token::*;
use super::values::{Value, COUNT, INT};
use super::{common, ConfigError, Parser, Position};
use crate::os::address::{Address, NotAnAddress};
use crate::os::socket::{Keepalive, Protocol};
pub use limits::Limits;
use local::local_address;
pub use local::LocalAddress;
pub use mavis::Authorization;
use mavis::Mavis;
use names::{Lookup, Name, Origin, Question};
use remote::{unresolved, Described, RemoteBlock, Target};
use std::net::Ipv4Addr;
use std::rc::Rc;

/// One address that sessions may be connected to. A `remote` with a host name becomes one for each
/// address of the host.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Where to connect.
    pub address: Address,
    /// The transport.
    pub protocol: Protocol,
    /// The host name that was resolved to the address; `None` if the address was configured.
    pub host: Option<Rc<str>>,
    /// At least 1.
    pub weight: u32,
    /// `tls …`, if the remote speaks TLS. Shared by the addresses of a host.
    pub tls: Option<Rc<RemoteTls>>,
    /// `tag`, sorted: routes and MAVIS answers restrict sessions to the remotes with a tag.
    pub tags: Vec<String>,
    /// `tcp keepalive …` and `tcp user timeout`; the section's if unset.
    pub keepalive: Keepalive,
    /// `check …`: how it is probed, if it is.
    pub check: Option<Rc<Check>>,
    /// `backup = yes`: used when no other remote can be.
    pub backup: bool,
    /// `proxy protocol`: the remote is told who the client is.
    pub proxy: Option<ProxyVersion>,
    /// `sessions max`, `queue` and `queue timeout`.
    pub sessions: Sessions,
    /// The name that it is an address of, if that is looked up again.
    pub origin: Option<Origin>,
    /// By the priority of its SRV record: it is used when no remote of a smaller tier can be.
    pub tier: u8,
}

/// How many sessions a remote may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sessions {
    /// `sessions max`; 0 is no limit.
    pub max: u32,
    /// `queue`: how many may wait, in each worker, when it has that many.
    pub queue: u32,
    /// `queue timeout`: for how many seconds; 0 is no limit.
    pub queue_timeout: u32,
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions { max: 0, queue: 0, queue_timeout: 5 }
    }
}

impl Remote {
    /// A remote with every setting but its address at its default.
    pub fn new(address: Address) -> Remote {
        Remote {
            address,
            protocol: Protocol::Tcp,
            host: None,
            weight: 1,
            tls: None,
            tags: Vec::new(),
            keepalive: Keepalive::default(),
            check: None,
            backup: false,
            proxy: None,
            sessions: Sessions::default(),
            origin: None,
            tier: 0,
        }
    }
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text with the addresses.
    V1,
    /// Binary, with more than the addresses.
    V2,
}

/// `splice`: which directions of sessions the kernel splices, where it supports that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Splice {
    /// Those that carry much data.
    #[default]
    Auto,
    /// All of them.
    Always,
    /// None: bytes are copied.
    Never,
}

/// `ties`: which remote is selected among those with the same use for their weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ties {
    /// The one that has had the fewest sessions for its weight.
    #[default]
    Least,
    /// The first one, as in the C program.
    First,
}

/// The worker's section.
#[derive(Clone, Debug)]
pub struct Relay {
    /// `remote = { }`, in order, as far as their addresses are known at the start.
    pub remotes: Vec<Remote>,
    /// Remotes that are looked up again.
    pub names: Vec<Name>,
    /// Why some of these have no address yet (`resolve start = later`).
    pub unresolved: Vec<ConfigError>,
    /// The place of each remote in the configuration.
    pub places: Vec<Position>,
    /// `local address`.
    pub local: LocalAddress,
    /// `balance …`.
    pub balance: Balance,
    /// `route …`.
    pub routes: Routes,
    /// `ties`.
    pub ties: Ties,
    /// `fail time`: a session was cut short if its remote ends it within this many seconds without
    /// having sent anything.
    pub fail_time: u32,
    /// `fail count`: a remote is marked dead after this many sessions in a row were cut short; 0 is
    /// off.
    pub fail_count: u32,
    /// `rebalance`: dead marks are lifted every so many selections; 0 is off.
    pub rebalance: i32,
    /// `retry delay`: seconds after which a dead remote is tried again; 0 is off.
    pub retry_delay: u32,
    /// `connect timeout` in seconds; 0 leaves it to the kernel.
    pub connect_timeout: u32,
    /// `idle timeout` in seconds; 0 is off.
    pub idle_timeout: u32,
    /// What one session may take besides.
    pub limits: Limits,
    /// `retire limit`: sessions until the worker is replaced; 0 is off.
    pub retire_limit: u32,
    /// `drain timeout`: seconds for which the sessions of a leaving worker may go on; 0 is no
    /// limit.
    pub drain_timeout: u32,
    /// `access log`: a line per session.
    pub access_log: bool,
    /// `sandbox`: whether workers are confined. If unset, they are, unless something may need more
    /// rights.
    pub sandbox: Option<bool>,
    /// `tls …`.
    pub tls: Tls,
    /// `authorization`.
    pub authorization: Option<Authorization>,
    /// `splice`.
    pub splice: Splice,
    /// `haproxy timeout`: seconds to wait for a PROXY header; 0 is no limit.
    pub haproxy_timeout: u32,
}

impl Relay {
    /// True if the monitor has work to do.
    pub fn is_monitored(&self) -> bool {
        !self.names.is_empty() || self.has_checks() || self.tls.fetches_ocsp()
    }

    /// True if remotes are probed.
    pub fn has_checks(&self) -> bool {
        self.templates().any(|remote| remote.check.is_some())
    }

    /// Without a monitor no remote is checked, all count as up, addresses stay as they are, and no
    /// OCSP response is fetched.
    pub fn without_monitor(&mut self) {
        self.names.clear();
        self.tls.ocsp = Ocsp::File;
        for remote in &mut self.remotes {
            (remote.check, remote.origin) = (None, None);
        }
    }

    /// All that remotes are or may become: the remotes, and what addresses of names have in common.
    pub fn templates(&self) -> impl Iterator<Item = &Remote> {
        self.remotes.iter().chain(self.names.iter().map(|name| &name.template))
    }

    /// How remotes speak TLS, each once for its addresses as long as these are in one place.
    pub fn tls_of_remotes(&self) -> impl Iterator<Item = &RemoteTls> {
        let known = |tls: &Rc<RemoteTls>| {
            let tls_of =
                |remote: &Remote| remote.tls.as_ref().is_some_and(|own| Rc::ptr_eq(own, tls));
            self.remotes.iter().any(tls_of)
        };
        let names = self.names.iter().filter_map(|name| name.template.tls.as_ref());
        let names = names.filter(move |tls| !known(tls));
        let remotes = self.remotes.iter().filter_map(|remote| remote.tls.as_ref());
        remotes.chain(names).map(|tls| &**tls)
    }
}

impl Default for Relay {
    fn default() -> Relay {
        Relay {
            remotes: Vec::new(),
            names: Vec::new(),
            unresolved: Vec::new(),
            places: Vec::new(),
            local: LocalAddress::default(),
            balance: Balance::default(),
            routes: Routes::default(),
            ties: Ties::default(),
            fail_time: 1,
            fail_count: 0,
            rebalance: 0,
            retry_delay: 10,
            connect_timeout: 5,
            idle_timeout: 0,
            limits: Limits::default(),
            retire_limit: 0,
            drain_timeout: 0,
            access_log: false,
            sandbox: None,
            tls: Tls::default(),
            authorization: None,
            splice: Splice::default(),
            haproxy_timeout: 5,
        }
    }
}

/// Reads `mavis module` and `mavis path`, with the token `mavis` current; true if a module was
/// added.
///
/// Modules parse their own blocks, in C, and have side effects as soon as they are loaded. So they
/// are loaded only where they will be queried, or where a check needs their verdict on their
/// blocks:
///
/// * in each worker, in the process of single-process mode, and in mavistest
///   (`mavis::search::parse`);
/// * in the worker that `-P` and the check before a reload start just to check the configuration.
///
/// The broker also reads the section, for its TLS files, and skips the modules' blocks
/// ([`skip_modules`]).
pub type Modules<'a> = &'a mut dyn FnMut(&mut Parser<'_>) -> Result<bool, ConfigError>;

/// For processes that load no modules: skips a module's block.
pub fn skip_modules(parser: &mut Parser<'_>) -> Result<bool, ConfigError> {
    parser.advance()?;
    match parser.code() {
        S_path => parser.assigned().map(|_| false),
        S_module => {
            parser.advance()?;
            if parser.code() != S_equal {
                parser.advance()?;
            }
            parser.expect(S_equal)?;
            parser.advance()?;
            parser.skip_block()?;
            Ok(true)
        }
        _ => Err(parser.expected(&[S_module, S_path])),
    }
}

/// The section as read so far.
#[derive(Default)]
struct Draft {
    relay: Relay,
    remotes: Vec<RemoteBlock>,
    tls: tls::Directives,
    mavis: Mavis,
    /// For remotes that have no settings of their own.
    keepalive: Keepalive,
}

/// Parses the section. The token after its opening brace is current; ends on the closing one.
/// `modules` reads the MAVIS modules.
pub fn parse(parser: &mut Parser<'_>, modules: Modules<'_>) -> Result<Section, ConfigError> {
    let mut draft = Draft::default();
    parser.block(|parser| parser.attempt(|parser| directive(parser, &mut draft, modules)))?;
    let Draft { mut relay, remotes, tls, mavis, keepalive } = draft;
    relay.tls = tls.finish()?;
    relay.authorization = mavis.finish()?;
    let system = parser.system();
    let remotes = remotes.into_iter().map(|remote| remote.finish(keepalive, &*system));
    let remotes: Vec<Described> = remotes.collect::<Result<_, _>>()?;
    let exists = |tag: &str| remotes.iter().any(|remote| remote.tags.iter().any(|one| one == tag));
    relay.balance.check(exists)?;
    relay.routes.check(exists)?;
    if let Some(remote) = remotes.iter().find(|remote| remote.check.is_some()) {
        if relay.balance.scope == Scope::Worker {
            let text = "remote: check needs balance scope = all, as workers share the results";
            return Err(remote.place.error(text));
        }
    }
    let mut remotes = remotes;
    if relay.balance.scope == Scope::Worker {
        // Workers on their own hear nothing from the monitor.
        for remote in &mut remotes {
            if let Target::Host(_, _, how) = &mut remote.target {
                if how.is_asked_for() {
                    return Err(remote.place.error(
                        "remote: resolve needs balance scope = all, as workers share the addresses",
                    ));
                }
                how.again = None;
            }
        }
    }
    if relay.balance.scope == Scope::Worker && relay.tls.fetches_ocsp() {
        let text = "tls ocsp = fetch needs balance scope = all, as workers share the responses";
        return Err(parser.error(text));
    }
    // An empty alias in place of remotes is there on purpose.
    if parser.rules.parse_only && remotes.is_empty() && !parser.used_empty_alias() {
        return Err(parser.error("No remote services defined!"));
    }
    Ok(Section { relay, remotes })
}

fn directive(
    parser: &mut Parser<'_>,
    draft: &mut Draft,
    modules: Modules<'_>,
) -> Result<(), ConfigError> {
    match parser.code() {
        S_remote => draft.remotes.push(remote::remote(parser)?),
        S_local => local_address(parser, &mut draft.relay.local)?,
        S_rebalance => {
            draft.relay.rebalance = parser.assigned_integer(INT)? as i32;
        }
        S_idle => draft.relay.idle_timeout = common::timeout(parser)?,
        S_retire => {
            parser.advance()?;
            // The C program's documentation has `retire = COUNT`; the program itself takes only the
            // long form.
            match parser.code() {
                S_limit => parser.advance()?,
                S_equal => {}
                _ => return Err(parser.expected(&[S_limit])),
            }
            parser.expect(S_equal)?;
            draft.relay.retire_limit = parser.integer(COUNT)? as u32;
        }
        S_retry => {
            parser.advance()?;
            if parser.code() != S_delay {
                return Err(parser.expected(&[S_delay]));
            }
            draft.relay.retry_delay = parser.assigned_integer(COUNT)? as u32;
        }
        S_access => {
            parser.advance()?;
            if parser.code() != S_log {
                return Err(parser.expected(&[S_log]));
            }
            draft.relay.access_log = parser.assigned_boolean()?;
        }
        S_tls | S_ssl => tls::section(parser, &mut draft.tls)?,
        S_tcp => connection_options(parser, &mut draft.keepalive)?,
        S_mavis => draft.mavis.parse(parser, modules)?,
        S_haproxy => draft.relay.haproxy_timeout = common::timeout(parser)?,
        S_authorization => draft.mavis.authorization(parser)?,
        _ if parser.is_word("balance") => draft.relay.balance.parse(parser)?,
        _ if parser.is_word("route") => draft.relay.routes.parse(parser)?,
        _ if parser.is_word("ties") => draft.relay.ties = ties(parser)?,
        _ if parser.is_word("fail") => fail(parser, &mut draft.relay)?,
        _ if parser.is_word("connect") => draft.relay.connect_timeout = common::timeout(parser)?,
        _ if parser.is_word("splice") => draft.relay.splice = splice(parser)?,
        _ if parser.is_word("sandbox") => {
            draft.relay.sandbox = Some(parser.assigned_boolean()?);
        }
        _ if parser.is_word("drain") => draft.relay.drain_timeout = common::timeout(parser)?,
        _ if draft.relay.limits.parse(parser)? => {}
        _ if common::parse_shared(parser)? => {}
        _ => return Err(parser.error(format!("'{}' unexpected", parser.text_lossy()))),
    }
    Ok(())
}

/// `tcp keepalive …` or `tcp user timeout = SECONDS`, with the token `tcp` current.
fn connection_options(
    parser: &mut Parser<'_>,
    settings: &mut Keepalive,
) -> Result<(), ConfigError> {
    parser.advance()?;
    if !connection_option(parser, settings)? {
        return Err(parser.expected_words(&["keepalive", "user"]));
    }
    Ok(())
}

/// `ties = first | least`, with the keyword current.
fn ties(parser: &mut Parser<'_>) -> Result<Ties, ConfigError> {
    parser.advance()?;
    parser.expect(S_equal)?;
    let ties = match () {
        () if parser.is_word("first") => Ties::First,
        () if parser.is_word("least") => Ties::Least,
        () => return Err(parser.expected_words(&["first", "least"])),
    };
    parser.advance()?;
    Ok(ties)
}

/// `fail count = NUMBER` and `fail time = SECONDS`, with the word `fail` current.
fn fail(parser: &mut Parser<'_>, relay: &mut Relay) -> Result<(), ConfigError> {
    parser.advance()?;
    match () {
        () if parser.is_word("count") => relay.fail_count = parser.assigned_integer(COUNT)? as u32,
        () if parser.is_word("time") => {
            relay.fail_time = parser.assigned_integer(1..=i64::from(i32::MAX))? as u32;
        }
        () => return Err(parser.expected_words(&["count", "time"])),
    }
    Ok(())
}

/// `splice = auto | always | never`, with the keyword current.
fn splice(parser: &mut Parser<'_>) -> Result<Splice, ConfigError> {
    parser.advance()?;
    parser.expect(S_equal)?;
    let splice = match () {
        () if parser.is_word("auto") => Splice::Auto,
        () if parser.is_word("always") => Splice::Always,
        () if parser.is_word("never") => Splice::Never,
        () => return Err(parser.expected_words(&["always", "auto", "never"])),
    };
    parser.advance()?;
    Ok(splice)
}

fn not_an_address(value: &Value, expected: &str, reason: &NotAnAddress) -> ConfigError {
    let text = format!("Expected {expected}, but got '{}'", value.text);
    value.error(match reason {
        NotAnAddress::Malformed => text,
        reason => format!("{text}: {reason}"),
    })
}

/// The worker's section as written, with unresolved host names.
#[derive(Debug)]
pub struct Section {
    relay: Relay,
    remotes: Vec<Described>,
}

impl Section {
    /// True if there are remotes that are looked up again.
    pub fn has_names(&self) -> bool {
        let again = |remote: &Described| matches!(&remote.target, Target::Host(.., how) if how.again.is_some());
        self.remotes.iter().any(again)
    }

    /// Resolves the host names to get the settings.
    pub fn resolve(self, lookup: Lookup<'_>) -> Result<Relay, ConfigError> {
        let mut relay = self.relay;
        for remote in self.remotes {
            let mut common = Remote {
                address: Address::Ip((Ipv4Addr::UNSPECIFIED, 0).into()),
                protocol: remote.protocol,
                host: None,
                weight: remote.weight,
                tls: remote.tls,
                tags: remote.tags,
                keepalive: remote.keepalive,
                check: remote.check,
                backup: remote.backup,
                proxy: remote.proxy,
                sessions: remote.sessions,
                origin: None,
                tier: 0,
            };
            let (host, port, how) = match remote.target {
                Target::Literal(address) => {
                    relay.remotes.push(Remote { address, ..common });
                    relay.places.push(remote.place.position);
                    continue;
                }
                Target::Host(host, port, how) => (host, port, how),
            };
            common.host = Some(Rc::from(&*host.text));
            if let Some((bound, start)) = how.again {
                let same = |other: &&Name| other.text().eq_ignore_ascii_case(&host.text);
                let earlier = relay.names.iter().filter(same).count() as u32;
                common.origin = Some(Origin { index: relay.names.len() as u32, earlier });
                common.address = common.address.with_port(port);
                let template = common.clone();
                relay.names.push(Name { template, kind: how.kind, bound, start });
            }
            let name = how.again.and_then(|_| relay.names.last());
            let question = Question { text: &host.text, port, kind: how.kind, name };
            match lookup(&question) {
                Ok(None) => {}
                Ok(Some(places)) if !places.is_empty() => {
                    let places = places.into_iter().map(|place| place.remote(&common));
                    relay.remotes.extend(places);
                }
                other => {
                    let error = unresolved(&host, how.kind, other.err().as_ref());
                    match how.again {
                        Some((_, names::Start::Later)) => relay.unresolved.push(error),
                        _ => return Err(error),
                    }
                }
            }
            relay.places.resize(relay.remotes.len(), remote.place.position);
        }
        Ok(relay)
    }
}
