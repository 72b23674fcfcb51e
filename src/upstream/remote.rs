//! What a remote is: its id within this process, its settings, and its identity among processes.

use crate::config;
use crate::os::address::Address;
use crate::os::hash::Fnv;
use crate::os::socket::Protocol;
use crate::tls::client::Connector;
use std::num::NonZeroU32;
use std::rc::Rc;

/// Names a remote of a [`Registry`](super::registry::Registry) for good: when its place goes to
/// another remote, that one gets another id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteId {
    index: u32,
    generation: NonZeroU32,
}

impl RemoteId {
    /// The first remote of a place.
    pub(crate) fn first(index: usize) -> RemoteId {
        RemoteId { index: index as u32, generation: NonZeroU32::MIN }
    }

    /// The next remote of the same place.
    pub(super) fn next(self) -> RemoteId {
        let generation = self.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        RemoteId { generation, ..self }
    }

    /// Its place.
    pub(super) fn index(self) -> usize {
        self.index as usize
    }
}

/// A remote: what is configured, and how to speak TLS with it.
#[derive(Clone)]
pub struct Remote {
    /// As configured: where it is, its weight, its tag.
    pub settings: config::relay::Remote,
    /// Present if it speaks TLS.
    pub connector: Option<Rc<Connector>>,
}

impl Remote {
    /// Where to connect.
    pub fn address(&self) -> &Address {
        &self.settings.address
    }

    /// True if the socket carries the session's bytes as they are, in one stream, so that a short
    /// read means that nothing is left. Not so with TLS, nor with SCTP, whose reads end with a
    /// message.
    pub fn is_stream(&self) -> bool {
        self.connector.is_none() && self.settings.protocol != Protocol::Sctp
    }

    /// The name of the remote among processes that share a zone; at least 1. It is FNV-1a (64 bits)
    /// over address, protocol and tag, so all releases agree: a byte for the family (4, 6, or 1 for
    /// UNIX), the address (with port and scope in network order, or the path and a NUL), the name
    /// of the protocol and a NUL, and each tag, in order, after a byte of 1. For an address of a name
    /// that is looked up again, then follow a byte of 2, the name in lower case, a NUL, and how
    /// many earlier remotes are for the same host, as four bytes: addresses of several names may
    /// be the same, and come and go in any order.
    pub fn identity(&self) -> u64 {
        let mut hash = Fnv::default();
        match &self.settings.address {
            Address::Ip(std::net::SocketAddr::V4(v4)) => {
                hash.add(&[4]);
                hash.add(&v4.ip().octets());
                hash.add(&v4.port().to_be_bytes());
            }
            Address::Ip(std::net::SocketAddr::V6(v6)) => {
                hash.add(&[6]);
                hash.add(&v6.ip().octets());
                hash.add(&v6.port().to_be_bytes());
                hash.add(&v6.scope_id().to_be_bytes());
            }
            Address::Unix(path) => {
                hash.add(&[1]);
                hash.add(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()));
                hash.add(&[0]);
            }
        }
        hash.add(self.settings.protocol.name().as_bytes());
        hash.add(&[0]);
        for tag in &self.settings.tags {
            hash.add(&[1]);
            hash.add(tag.as_bytes());
        }
        if let (Some(host), Some(origin)) = (&self.settings.host, self.settings.origin) {
            hash.add(&[2]);
            host.bytes().for_each(|byte| hash.add(&[byte.to_ascii_lowercase()]));
            hash.add(&[0]);
            hash.add(&origin.earlier.to_be_bytes());
        }
        hash.finish().max(1)
    }
}

/// A remote for tests, without TLS.
#[cfg(test)]
pub(super) fn remote(address: &str, tag: Option<&str>) -> Remote {
    let (address, port) = Address::parse_with_port(address).expect("an address");
    let settings = config::relay::Remote {
        tags: tag.map(str::to_owned).into_iter().collect(),
        ..config::relay::Remote::new(address.with_port(port.unwrap_or(0)))
    };
    Remote { settings, connector: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other releases use these numbers, so they must not change.
    #[test]
    fn identities_stay() {
        let mut bytes = vec![4, 192, 0, 2, 1, 0, 80];
        bytes.extend(b"TCP\0\x01blue");
        let mut hash = Fnv::default();
        hash.add(&bytes);
        assert_eq!(remote("192.0.2.1:80", Some("blue")).identity(), hash.finish());
        let all = [
            remote("192.0.2.1:80", None),
            remote("192.0.2.1:80", Some("")),
            remote("192.0.2.1:80", Some("blue")),
            remote("192.0.2.1:81", None),
            remote("[2001:db8::1]:80", None),
            remote("/run/a", None),
            remote("/run/b", None),
        ];
        let mut identities: Vec<u64> = all.iter().map(Remote::identity).collect();
        assert_eq!(identities[0], 0x80d6_4c69_1976_586f);
        identities.sort_unstable();
        identities.dedup();
        assert_eq!(identities.len(), all.len());
    }

    #[test]
    fn the_next_one_of_a_place_has_another_id() {
        let id = RemoteId::first(3);
        assert!(id.next() != id && id.next().index() == 3);
        assert_eq!(size_of::<Option<RemoteId>>(), 8);
    }
}
