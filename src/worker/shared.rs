//! What all sessions of a worker share.

use super::direction::Buffers;
use super::queue::Queue;
use super::signing::Signatures;
use super::tally::Tallies;
use crate::channel::clients::Clients;
use crate::channel::local::LOCAL_KINDS;
use crate::config::acl::Acl;
use crate::config::clients::ClientLimits;
use crate::config::relay::{ProxyVersion, Relay};
use crate::event::{Interest, Loop, Token};
use crate::mavis::queries::Queries;
use crate::os::{process, Socket};
use crate::tls::context::Contexts;
use crate::upstream::registry::Registry;
use crate::upstream::remote::RemoteId;
use crate::upstream::zone::counters::Counters;
use std::collections::BTreeSet;

/// Token kinds. They start after the broker's, as both share a loop in single-process mode.
pub(super) mod kind {
    use super::LOCAL_KINDS;
    pub(in crate::worker) const CLIENT: u8 = LOCAL_KINDS;
    pub(in crate::worker) const UPSTREAM: u8 = LOCAL_KINDS + 1;
    pub(in crate::worker) const LIMIT: u8 = LOCAL_KINDS + 2;
    pub(in crate::worker) const STATE: u8 = LOCAL_KINDS + 3;
    pub(in crate::worker) const DRAIN: u8 = LOCAL_KINDS + 4;
    pub(in crate::worker) const TURN: u8 = LOCAL_KINDS + 5;
    pub(in crate::worker) const LOOK: u8 = LOCAL_KINDS + 6;
    /// A descriptor, where the other is a timer.
    pub(in crate::worker) const SIGNER: u8 = TURN;
}

/// What all sessions of a worker share.
pub(super) struct Shared {
    pub(super) settings: Relay,
    pub(super) registry: Registry,
    pub(super) buffers: Buffers,
    pub(super) tls: Contexts,
    /// Whether it was logged that TLS connections cannot be served; it is logged only once.
    pub(super) tls_unusable: bool,
    /// Whether anybody wants to know what was negotiated with clients in TLS: the access log, the
    /// modules, balancing, or a remote.
    pub(super) wants_summaries: bool,
    /// Whether anybody goes by the realms of listeners: the modules, or routes.
    pub(super) wants_realms: bool,
    /// Applied to the addresses in PROXY headers; the broker applies it to connections.
    pub(super) access_list: Acl,
    /// The same for limits of clients: each worker counts for itself.
    pub(super) clients: Clients,
    /// Asks the MAVIS modules that decide who may connect.
    pub(super) queries: Option<Queries>,
    /// Realms of listeners seen so far, NUL-padded. A realm's number is its index; the first is for
    /// listeners without a realm.
    pub(super) realms: Vec<[u8; 16]>,
    /// Set when it was logged that descriptors have run out, and `host_trouble` when it was logged
    /// what else this host is short of. Each is logged once, until connections can be made again.
    pub(super) descriptor_trouble: bool,
    pub(super) host_trouble: BTreeSet<RemoteId>,
    /// Until this time no session retries what this host was short of.
    pub(super) host_due: u64,
    /// Sessions that wait for a remote.
    pub(super) queue: Queue,
    /// What this worker has done, for all to read.
    pub(super) counters: Counters,
    pub(super) tallies: Tallies,
    /// How many OCSP responses were published when they were last read, and when that was, in seconds.
    pub(super) staples_seen: (u64, u64),
    /// Gets signatures from the process with the private keys.
    pub(super) signatures: Signatures,
}

impl Shared {
    /// `queries` asks the MAVIS modules, if the settings want authorization.
    pub(super) fn new(settings: Relay, mut tls: Contexts, queries: Option<Queries>) -> Shared {
        let connectors = std::mem::take(&mut tls.connectors);
        Shared {
            wants_summaries: settings.access_log
                || queries.is_some()
                || settings.balance.needs_names()
                || settings.routes.needs_hello()
                || settings.templates().any(|remote| remote.proxy == Some(ProxyVersion::V2)),
            wants_realms: queries.is_some() || settings.routes.needs_realms(),
            registry: Registry::new(&settings, connectors),
            buffers: Buffers::new(settings.splice, process::descriptor_limit()),
            settings,
            tls,
            tls_unusable: false,
            access_list: Acl::default(),
            clients: Clients::new(ClientLimits::default()),
            queries,
            realms: vec![[0; 16]],
            descriptor_trouble: false,
            host_trouble: BTreeSet::new(),
            host_due: 0,
            queue: Queue::default(),
            counters: Counters::default(),
            tallies: Tallies::default(),
            staples_seen: (0, 0),
            signatures: Signatures::default(),
        }
    }

    /// The address of a remote, for messages.
    pub(super) fn address(&self, id: RemoteId) -> String {
        self.registry.get(id).map_or_else(String::new, |remote| remote.address().to_string())
    }
}

/// Registers an end with the loop. `stream`: a short read means that nothing is left to read. Not
/// so with TLS, nor with SCTP, where a read ends with a message.
pub(super) fn register(
    events: &mut Loop,
    end: &Socket,
    token: Token,
    interest: Interest,
    stream: bool,
) {
    if stream {
        events.register_stream(end, token, interest);
    } else {
        events.register(end, token, interest);
    }
}
