//! The access list: which clients may connect (`permit` and `deny`). The broker applies it to
//! connections, workers apply it to the addresses in PROXY headers.

use super::network::Network;
use crate::os::address::ScopedIp;

/// One `permit` or `deny`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AclEntry {
    /// `permit`, not `deny`.
    pub permit: bool,
    /// `not`: matches what is outside the network.
    pub negated: bool,
    /// The network.
    pub network: Network,
}

/// An access list.
#[derive(Clone, Debug, Default)]
pub struct Acl {
    entries: Vec<AclEntry>,
}

impl Acl {
    /// A list of entries in the order of the configuration.
    pub fn new(entries: Vec<AclEntry>) -> Acl {
        Acl { entries }
    }

    /// Encodes the list for another process.
    pub fn encode(&self) -> Vec<u8> {
        let mut data = Vec::with_capacity(self.entries.len() * ENCODED);
        for AclEntry { permit, negated, network } in &self.entries {
            data.extend([u8::from(*permit), u8::from(*negated), network.length]);
            data.extend(network.bits.to_be_bytes());
            data.extend(network.zone.to_be_bytes());
        }
        data
    }

    /// Reads what [`encode`](Self::encode) has written; `None` if it is something else.
    pub fn decode(data: &[u8]) -> Option<Acl> {
        let entry = |data: &[u8]| {
            let (&[permit, negated, length], rest) = data.split_first_chunk()?;
            let (bits, rest) = rest.split_first_chunk()?;
            let (bits, zone) =
                (u128::from_be_bytes(*bits), u32::from_be_bytes(*rest.first_chunk()?));
            let network = Network { bits, length, zone };
            (length <= 128).then_some(AclEntry {
                permit: permit != 0,
                negated: negated != 0,
                network,
            })
        };
        let entries: Option<Vec<AclEntry>> = data.chunks(ENCODED).map(entry).collect();
        Some(Acl { entries: entries? })
    }

    /// True if the list is empty: everybody is permitted, and no address needs to be looked up.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// True if the client may connect. Consecutive entries of the same verb and negation form a
    /// group, whose networks are a set. The first group that matches decides; a negated one matches
    /// if none of its networks contains the address. If no group matches the client is denied,
    /// unless the list is empty. A network with an IPv6 zone contains no address of another zone.
    pub fn permits(&self, client: ScopedIp) -> bool {
        let contains = |entry: &AclEntry| entry.network.contains(client);
        self.entries
            .chunk_by(|a, b| (a.permit, a.negated) == (b.permit, b.negated))
            .find(|group| group.iter().any(contains) != group[0].negated)
            .map_or(self.entries.is_empty(), |group| group[0].permit)
    }
}

/// The length of an encoded entry: what it does, and its network.
const ENCODED: usize = 3 + size_of::<u128>() + size_of::<u32>();

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::network::{mask_bits, parse_network};
    use crate::os::address::Address;
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn acl(text: &[(bool, bool, &str)]) -> Acl {
        Acl::new(
            text.iter()
                .map(|&(permit, negated, network)| {
                    let network = parse_network(network).expect("a network");
                    AclEntry { permit, negated, network }
                })
                .collect(),
        )
    }

    fn permits(acl: &Acl, address: &str) -> bool {
        let address = Address::parse(address).ok().and_then(|address| address.scoped_ip());
        acl.permits(address.expect("an address"))
    }

    #[test]
    fn an_empty_list_permits_and_any_other_ends_in_deny() {
        assert!(permits(&acl(&[]), "192.0.2.1"));
        let only = acl(&[(true, false, "127.0.0.0/8")]);
        assert!(permits(&only, "127.0.0.1"));
        assert!(permits(&only, "::ffff:127.0.0.1"));
        assert!(!permits(&only, "::1"));
    }

    #[test]
    fn the_first_group_decides() {
        let list = acl(&[(false, false, "127.0.0.2"), (true, false, "127.0.0.0/8")]);
        assert!(!permits(&list, "127.0.0.2"));
        assert!(permits(&list, "127.0.0.3"));
        let reversed = acl(&[(true, false, "127.0.0.0/8"), (false, false, "127.0.0.2")]);
        assert!(permits(&reversed, "127.0.0.2"));
    }

    #[test]
    fn a_negated_group_is_one_set() {
        let list = acl(&[(true, true, "10.0.0.0/8")]);
        assert!(permits(&list, "192.0.2.1"));
        assert!(!permits(&list, "10.1.2.3"));
        let two = acl(&[(true, true, "10.0.0.0/8"), (true, true, "192.0.2.0/24")]);
        assert!(!permits(&two, "192.0.2.1"));
        assert!(!permits(&two, "10.0.0.1"));
        assert!(permits(&two, "198.51.100.1"));
    }

    #[test]
    fn a_zone_belongs_to_the_network() {
        let list = acl(&[(true, false, "fe80::1%7"), (true, false, "fe80::2")]);
        assert!(permits(&list, "fe80::1%7"));
        assert!(!permits(&list, "fe80::1%8"));
        assert!(!permits(&list, "fe80::1"));
        assert!(permits(&list, "fe80::2%8"));
        let link = acl(&[(false, false, "fe80::%7/10"), (true, false, "::/0")]);
        assert!(!permits(&link, "fe80::3%7"));
        assert!(permits(&link, "fe80::3%8"));
    }

    proptest! {
        /// Compares with a literal reading of the rule.
        #[test]
        fn agrees_with_the_plain_rule(
            entries in prop::collection::vec((any::<bool>(), any::<bool>(), 0u8..4, 120u8..=128), 0..8),
            host in 0u8..4,
        ) {
            let list: Vec<AclEntry> = entries
                .iter()
                .map(|&(permit, negated, host, length)| AclEntry {
                    permit,
                    negated,
                    network: Network { bits: mask_bits(host.into(), length), length, zone: 0 },
                })
                .collect();
            let mut expected = list.is_empty();
            let mut index = 0;
            while index < list.len() {
                let kind = (list[index].permit, list[index].negated);
                let mut inside = false;
                while index < list.len() && (list[index].permit, list[index].negated) == kind {
                    inside |= {
                        let network = list[index].network;
                        mask_bits(u128::from(host), network.length) == network.bits
                    };
                    index += 1;
                }
                if inside != kind.1 {
                    expected = kind.0;
                    break;
                }
            }
            let address = IpAddr::V6(u128::from(host).into());
            let data = Acl::new(list.clone()).encode();
            prop_assert!(data.is_empty() || Acl::decode(&data[1..]).is_none());
            prop_assert_eq!(&Acl::decode(&data).expect("a list").entries, &list);
            prop_assert_eq!(Acl::new(list).permits(address.into()), expected);
        }
    }
}
