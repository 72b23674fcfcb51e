//! Networks and host names, as text.

use super::values::Value;
use super::ConfigError;
use crate::os::address::{Address, NotAnAddress, ScopedIp};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// True for a possible host name: letters, digits, dots, dashes and underscores, the last label not
/// a number (RFC 1123 section 2.1), so that a mistyped address is not taken for a name.
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

/// A network in IPv6 terms, host bits cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The address; IPv4 as IPv4-mapped IPv6.
    pub bits: u128,
    /// The prefix length, 0 to 128 (IPv4: 96 more than written).
    pub length: u8,
    /// The zone of a link-local network; 0 for all zones.
    pub zone: u32,
}

impl Network {
    /// True if the address is in the network. A network with an IPv6 zone contains no address of
    /// another zone.
    pub fn contains(&self, address: ScopedIp) -> bool {
        let bits = match address.ip {
            IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
            IpAddr::V6(v6) => u128::from(v6),
        };
        mask_bits(bits, self.length) == self.bits && (self.zone == 0 || self.zone == address.zone)
    }
}

/// An address or network of the configuration.
pub(super) fn network(value: &Value) -> Result<Network, ConfigError> {
    parse_network(&value.text).map_err(|reason| {
        let text = &value.text;
        let expected = "Expected an IP address or network in CIDR notation, but got";
        value.error(match reason {
            NotAnAddress::Malformed => format!("{expected} '{text}'."),
            reason => format!("{expected} '{text}': {reason}"),
        })
    })
}

/// Parses an address, or a network with `/length` or `/mask` after the address.
pub fn parse_network(text: &str) -> Result<Network, NotAnAddress> {
    let (address, suffix) = match text.split_once('/') {
        Some((address, suffix)) => (address, Some(suffix)),
        None => (text, None),
    };
    let scoped = Address::parse(address)?.scoped_ip().ok_or(NotAnAddress::Malformed)?;
    let (bits, offset) = match scoped.ip {
        IpAddr::V4(v4) => (u128::from(v4.to_ipv6_mapped()), 96u8),
        IpAddr::V6(v6) => (u128::from(v6), 0),
    };
    let length = suffix.map_or(Some(128), |suffix| network_length(suffix, offset));
    let length = length.ok_or(NotAnAddress::Malformed)?;
    Ok(Network { bits: mask_bits(bits, length), length, zone: scoped.zone })
}

/// The prefix length from the text after the slash, a number or a mask.
fn network_length(suffix: &str, offset: u8) -> Option<u8> {
    if suffix.bytes().all(|b| b.is_ascii_digit()) {
        let length: u8 = suffix.parse().ok()?;
        return offset.checked_add(length).filter(|&length| length <= 128);
    }
    let mask = match offset {
        0 => u128::from(suffix.parse::<Ipv6Addr>().ok()?),
        _ => u128::MAX << 32 | u128::from(u32::from(suffix.parse::<Ipv4Addr>().ok()?)),
    };
    let length = mask.leading_ones();
    // Only a contiguous mask is a network.
    (mask.count_ones() == length).then_some(length as u8)
}

/// Clears all bits after the first `length`.
pub fn mask_bits(bits: u128, length: u8) -> u128 {
    bits & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
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
            let found = parse_network(text).ok().map(|found| (found.bits, found.length));
            assert_eq!(found, expected, "{text}");
        }
        let zone = |text: &str| parse_network(text).ok().map(|found| (found.length, found.zone));
        assert_eq!(zone("fe80::%7/10"), Some((10, 7)));
        assert_eq!(zone("fe80::1%7"), Some((128, 7)));
        assert_eq!(zone("fe80::/10%7"), None);
        assert_eq!(zone("::%7/0"), None);
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
