//! Networks and host names, as text.

use crate::os::address::Address;
use std::net::{IpAddr, Ipv6Addr};

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
