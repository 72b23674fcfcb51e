//! Finds remotes that are listeners of this relay: a session with such a remote becomes a client of
//! the relay again, and so on until no connections are left.

use crate::broker::addresses::Resolver;
use crate::config::broker::Broker as Config;
use crate::config::listen::Ipv6Only;
use crate::config::relay::{Relay, Remote};
use crate::os;
use crate::os::address::{Address, Family, ScopedIp};
use crate::os::socket::{self, Addressed, Families, Kind, Protocol};
use crate::os::{files, log};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The environment variable that tells workers which remotes to leave out, one a line.
pub(super) const VARIABLE: &str = "TCPRELAY_OWN_REMOTES";
/// The environment variable that tells the monitor where this relay listens, one a line.
pub(super) const LISTENERS: &str = "TCPRELAY_LISTENERS";

/// On Linux a listener for all addresses keeps every other socket from its port, at any single
/// address. Elsewhere another program's server may listen at one of them.
const ALL_MEANS_EACH: bool = cfg!(any(target_os = "linux", target_os = "android"));

#[derive(Debug)]
struct Listener {
    protocol: Protocol,
    address: Address,
    /// Serves IPv4 as well as IPv6.
    both: bool,
}

/// Where this relay listens.
#[derive(Debug, Default)]
pub(super) struct Listeners(Vec<Listener>);

/// The transport of a protocol: Multipath TCP and TCP reach each other.
fn transport(protocol: Protocol) -> Protocol {
    match protocol {
        Protocol::Mptcp => Protocol::Tcp,
        protocol => protocol,
    }
}

fn is_ipv4(address: &Address) -> bool {
    address.ip().is_some_and(|ip| ip.to_canonical().is_ipv4())
}

impl Listeners {
    /// The listeners of a configuration, and the sockets that the service manager has opened.
    pub(super) fn of(config: &Config, activated: &[&os::Listener]) -> Listeners {
        let mut resolver = Resolver::default();
        let known: Vec<_> = config
            .listeners
            .iter()
            // In another routing domain the same address may belong to another host.
            .filter(|listener| listener.kind != Kind::Datagram && listener.vrf.is_none())
            .filter_map(|listener| Some((listener, resolver.resolve(listener).ok()?)))
            .collect();
        let place = |protocol, address: &Address| (transport(protocol), address.port());
        let ipv4: HashSet<_> = known
            .iter()
            .filter(|(_, address)| is_ipv4(address))
            .map(|(listener, address)| place(listener.protocol, address))
            .collect();
        let fresh = os::Listener::new(Family::Ipv6, Kind::Stream, Protocol::Tcp);
        let usual =
            fresh.and_then(|fd| fd.families()).is_ok_and(|families| families == Families::Both);
        let mut listeners = Vec::new();
        for (listener, address) in known {
            let all = address.ip().is_some_and(|ip| ip.is_unspecified());
            if all && (listener.reuse_port || !ALL_MEANS_EACH) {
                continue;
            }
            let both = match listener.ipv6_only {
                Ipv6Only::Yes => false,
                Ipv6Only::No => true,
                Ipv6Only::Auto => usual && !ipv4.contains(&place(listener.protocol, &address)),
            };
            listeners.push(Listener { protocol: listener.protocol, address, both });
        }
        let opened = activated.iter().filter_map(|fd| fd.local_address());
        listeners.extend(opened.map(|address| Listener {
            protocol: Protocol::Tcp,
            address,
            both: usual,
        }));
        Listeners(listeners)
    }

    fn has(&self, remote: &Remote) -> bool {
        let address = reached(&remote.address);
        // Looked up at most once for each remote.
        let mut local = None;
        self.0.iter().any(|listener| match (&listener.address, &address) {
            (Address::Unix(own), Address::Unix(path)) => files::is_same(own, path),
            (Address::Ip(own), Address::Ip(address)) => {
                own.port() == address.port()
                    && own.port() != 0
                    && transport(listener.protocol) == transport(remote.protocol)
                    && listener.serves(*own, *address, &mut || {
                        *local.get_or_insert_with(|| socket::is_local(*address))
                    })
            }
            _ => false,
        })
    }

    /// The remotes that are among the listeners, with their places in the configuration.
    pub(super) fn among(&self, settings: &Relay) -> Vec<OwnRemote> {
        let remotes = settings.remotes.iter().zip(&settings.places);
        remotes
            .filter(|(remote, _)| self.has(remote))
            .map(|(remote, place)| OwnRemote {
                name: name(remote),
                text: format!(
                    "{place}: remote {} is a listener of this relay, which would relay to itself",
                    remote.address
                ),
            })
            .collect()
    }
}

impl Listener {
    fn serves(
        &self,
        own: SocketAddr,
        address: SocketAddr,
        is_local: &mut dyn FnMut() -> bool,
    ) -> bool {
        let (mine, theirs) = (ScopedIp::from(own), ScopedIp::from(address));
        if mine.ip.is_unspecified() {
            let suits = match mine.ip {
                IpAddr::V4(_) => theirs.ip.is_ipv4(),
                IpAddr::V6(_) => theirs.ip.is_ipv6() || self.both,
            };
            return suits && is_local();
        }
        let zones = mine.zone == theirs.zone || mine.zone == 0 || theirs.zone == 0;
        mine.ip.to_canonical() == theirs.ip && zones
    }
}

/// The address that a connection really reaches: the unspecified address means this host.
fn reached(address: &Address) -> Address {
    let Address::Ip(address) = address else {
        return address.clone();
    };
    let mut address = *address;
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(v4) => {
            let ip = if v4.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { ip };
            address = SocketAddr::new(ip, address.port());
        }
        IpAddr::V6(v6) if v6.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V6(_) => {}
    }
    Address::Ip(address)
}

/// A remote that is a listener of this relay.
#[derive(Clone, Debug)]
pub(super) struct OwnRemote {
    /// The name by which workers recognise it.
    pub(super) name: String,
    /// The message for the user.
    pub(super) text: String,
}

fn name(remote: &Remote) -> String {
    format!("{} {}", remote.protocol.name(), remote.address)
}

/// Tells workers which remotes to leave out.
pub(super) fn tell(own: &[OwnRemote]) {
    if own.is_empty() {
        return std::env::remove_var(VARIABLE);
    }
    let names: Vec<&str> = own.iter().map(|remote| remote.name.as_str()).collect();
    std::env::set_var(VARIABLE, names.join("\n"));
}

/// Leaves out the remotes that the broker has found to be itself. False if there were no remotes to
/// begin with.
pub(super) fn leave_out(settings: &mut Relay) -> bool {
    let own = std::env::var(VARIABLE).unwrap_or_default();
    // Names may have addresses later.
    let named = !settings.names.is_empty();
    let some = !settings.remotes.is_empty();
    settings.remotes.retain(|remote| !own.lines().any(|line| line == name(remote)));
    if some && settings.remotes.is_empty() && !named {
        log::message("all remotes are listeners of this relay: clients are disconnected");
    }
    some || named
}

/// Tells the monitor where this relay listens: addresses of names may turn out to be there.
pub(super) fn tell_listeners(listeners: &Listeners) {
    let lines = listeners.0.iter().filter_map(|listener| match &listener.address {
        Address::Ip(address) => {
            let both = if listener.both { "both" } else { "one" };
            Some(format!("{} {both} {address}", listener.protocol.name()))
        }
        Address::Unix(_) => None,
    });
    std::env::set_var(LISTENERS, lines.collect::<Vec<_>>().join("\n"));
}

/// Whether a remote is a listener of this relay, by what the broker has told.
pub(super) fn is_own() -> Box<dyn Fn(&Remote) -> bool> {
    let told = std::env::var(LISTENERS).unwrap_or_default();
    let listener = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let (protocol, both, address) = (words.next()?, words.next()?, words.next()?);
        let protocols = [Protocol::Tcp, Protocol::Mptcp, Protocol::Sctp];
        let protocol = protocols.into_iter().find(|known| known.name() == protocol)?;
        let address = Address::Ip(address.parse().ok()?);
        Some(Listener { protocol, address, both: both == "both" })
    };
    let listeners = Listeners(told.lines().filter_map(listener).collect());
    Box::new(move |remote| listeners.has(remote))
}
