//! Addresses as four words in host byte order, and the text forms of networks.
//!
//! IPv4 addresses are mapped, `::ffff:a.b.c.d`, so their prefix lengths are those of IPv4 plus 96.

use crate::os::address::parse_ipv4;
use std::net::{Ipv4Addr, Ipv6Addr};

/// An IPv6 address or mask, the highest word first.
pub type Address = [u32; 4];

/// Length of the prefix in front of a mapped IPv4 address.
const MAPPED: i32 = 96;
const ALL: Address = [u32::MAX; 4];

/// The mask of a prefix; `length` is limited to 0 to 128.
pub fn mask(length: i32) -> Address {
    let length = length.clamp(0, 128) as u32;
    let value = u128::MAX.checked_shl(128 - length).unwrap_or(0);
    words(value)
}

/// The words of an address, the highest first.
pub fn words(value: u128) -> Address {
    [(value >> 96) as u32, (value >> 64) as u32, (value >> 32) as u32, value as u32]
}

/// An address as one number.
pub fn number(address: &Address) -> u128 {
    address.iter().fold(0, |value, &word| value << 32 | u128::from(word))
}

/// The address with its host bits clear.
pub fn network(address: &Address, length: i32) -> Address {
    let mask = mask(length);
    std::array::from_fn(|word| address[word] & mask[word])
}

/// The address with its host bits set.
pub fn broadcast(address: &Address, length: i32) -> Address {
    let mask = mask(length);
    std::array::from_fn(|word| address[word] | !mask[word])
}

/// The length of the common prefix of two addresses, at most `most` of 128 bits.
pub fn common_length(a: &Address, b: &Address, most: i32) -> i32 {
    ((number(a) ^ number(b)).leading_zeros() as i32).min(most.clamp(0, 128))
}

/// True if `address` is in the network. The host bits of `net` do not matter.
pub fn contains(net: &Address, length: i32, address: &Address) -> bool {
    network(address, length) == network(net, length)
}

/// The bit after a prefix of `length` bits, which is less than 128.
pub fn bit(address: &Address, length: u8) -> usize {
    let word = address[usize::from(length / 32)];
    (word >> (31 - length % 32) & 1) as usize
}

/// `::ffff:a.b.c.d`
pub fn mapped(address: Ipv4Addr) -> Address {
    [0, 0, 0xffff, address.into()]
}

/// The reverse of [`mapped`]: the IPv4 address; `None` for other addresses.
pub fn unmapped(address: &Address) -> Option<Ipv4Addr> {
    match *address {
        [0, 0, 0xffff, v4] => Some(v4.into()),
        _ => None,
    }
}

/// An IPv6 address as words.
pub fn from_ipv6(address: Ipv6Addr) -> Address {
    words(address.into())
}

/// Words as an IPv6 address.
pub fn to_ipv6(address: &Address) -> Ipv6Addr {
    number(address).into()
}

/// Reads what inet_pton(3) takes, and the other forms of inet_addr(3), such as `10.1`.
fn ipv4(text: &str) -> Option<u32> {
    text.parse().ok().or_else(|| parse_ipv4(text)).map(u32::from)
}

fn ipv6(text: &str) -> Option<Address> {
    text.parse().ok().map(from_ipv6)
}

fn address(text: &str) -> Option<Address> {
    match text.contains(':') {
        true => ipv6(text),
        false => ipv4(text).map(|v4| mapped(v4.into())),
    }
}

/// The number at the start of a text as atoi(3) reads it, 0 if there is none.
pub fn leading_number(text: &str) -> i64 {
    let text = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let (negative, digits) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    let value = digits.bytes().take_while(u8::is_ascii_digit).fold(0i64, |value, digit| {
        value.saturating_mul(10).saturating_add(i64::from(digit - b'0'))
    });
    if negative {
        -value
    } else {
        value
    }
}

/// Reads a network, `ADDRESS`, `ADDRESS/LENGTH` or `ADDRESS/MASK`, IPv4 or IPv6: its address, and
/// its prefix length of 128 bits. Host bits are kept. A length that is not a number is 0.
///
/// `None` if an address cannot be read, the length is too large, or the mask has a hole.
pub fn parse_network(text: &str) -> Option<(Address, i32)> {
    let Some((host, mask)) = text.split_once('/') else {
        return Some((address(text)?, 128));
    };
    let v6 = host.contains(':');
    let length = if mask.contains(if v6 { ':' } else { '.' }) {
        let mask = match v6 {
            true => ipv6(mask)?,
            false => [u32::MAX, u32::MAX, u32::MAX, ipv4(mask)?],
        };
        mask_length(&mask)?
    } else {
        let offset = if v6 { 0 } else { MAPPED };
        let length = leading_number(mask);
        (0..=i64::from(128 - offset)).contains(&length).then(|| length as i32 + offset)?
    };
    Some((address(host)?, length))
}

fn mask_length(bits: &Address) -> Option<i32> {
    let length = number(bits).leading_ones() as i32;
    (*bits == mask(length)).then_some(length)
}

/// As [`parse_network`], but gives the mask, which may have holes. The mask is `None` for an IPv6
/// address without one. A length that is too large or negative gives the mask of a single host.
pub fn parse_masked(text: &str) -> Option<(Address, Option<Address>)> {
    let (host, rest) = match text.split_once('/') {
        Some((host, rest)) => (host, Some(rest)),
        None => (text, None),
    };
    let v6 = host.contains(':');
    let offset = if v6 { 0 } else { MAPPED };
    let bits = match rest {
        None => (!v6).then_some(ALL),
        Some(rest) if v6 && rest.contains(':') => Some(ipv6(rest)?),
        Some(rest) if !v6 && rest.contains('.') => {
            Some([u32::MAX, u32::MAX, u32::MAX, ipv4(rest)?])
        }
        Some(rest) => {
            let length = leading_number(rest);
            let valid = (0..=i64::from(128 - offset)).contains(&length);
            Some(if valid { mask(length as i32 + offset) } else { ALL })
        }
    };
    Some((address(host)?, bits))
}

/// The text of an IPv6 address as inet_ntop(3) writes it: RFC 5952, with the last 32 bits of
/// IPv4-mapped and IPv4-compatible addresses in dotted form.
pub fn ipv6_text(address: &Ipv6Addr) -> String {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => {
            format!("::{}", Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
        }
        _ => address.to_string(),
    }
}

/// The port number at the start of a text as sscanf(3) reads it; `None` if the text does not start
/// with a number, `Some(None)` if the number is not a port.
pub fn leading_port(text: &str) -> Option<Option<u16>> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    digits
        .starts_with(|c: char| c.is_ascii_digit())
        .then(|| u16::try_from(leading_number(text)).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v4(text: &str) -> Address {
        mapped(text.parse().unwrap())
    }

    #[test]
    fn networks_are_read() {
        for (text, expected) in [
            ("10.0.0.0/8", Some((v4("10.0.0.0"), 104))),
            ("10.1", Some((v4("10.0.0.1"), 128))),
            ("10.0.0.1/255.255.0.0", Some((v4("10.0.0.1"), 112))),
            ("255.255.255.255", Some((v4("255.255.255.255"), 128))),
            ("10.0.0.1/x", Some((v4("10.0.0.1"), 96))),
            ("fe80::1/10", Some(([0xfe80_0000, 0, 0, 1], 10))),
            ("fe80::1/ffff::", Some(([0xfe80_0000, 0, 0, 1], 16))),
            ("::1", Some(([0, 0, 0, 1], 128))),
            ("10.0.0.1/33", None),
            ("10.0.0.1/-1", None),
            ("10.0.0.1/255.0.255.0", None),
            ("::1/129", None),
            ("::1/ffff:0:ffff::", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(parse_network(text), expected, "{text}");
        }
    }

    #[test]
    fn masks_are_read() {
        let host = Some(ALL);
        assert_eq!(parse_masked("10.0.0.1"), Some((v4("10.0.0.1"), host)));
        assert_eq!(parse_masked("10.0.0.1/8"), Some((v4("10.0.0.1"), Some(mask(104)))));
        assert_eq!(parse_masked("10.0.0.1/0"), Some((v4("10.0.0.1"), Some(mask(96)))));
        assert_eq!(parse_masked("10.0.0.1/99"), Some((v4("10.0.0.1"), host)));
        assert_eq!(parse_masked("::1"), Some(([0, 0, 0, 1], None)));
        assert_eq!(parse_masked("::1/64"), Some(([0, 0, 0, 1], Some(mask(64)))));
        assert_eq!(parse_masked("::1/f0f0::"), Some(([0, 0, 0, 1], Some([0xf0f0_0000, 0, 0, 0]))));
        assert_eq!(parse_masked("1.2.3.4.5/8"), None);
    }

    #[test]
    fn text_is_that_of_inet_ntop() {
        for (address, text) in [
            ("::1", "::1"),
            ("::1:2", "::0.1.0.2"),
            ("::ffff:1.2.3.4", "::ffff:1.2.3.4"),
            ("1:0:0:2::3", "1:0:0:2::3"),
            ("::", "::"),
        ] {
            assert_eq!(ipv6_text(&address.parse().unwrap()), text);
        }
    }

    #[test]
    fn numbers_at_the_beginning() {
        assert_eq!([" 12x", "-3", "+4", "x", ""].map(leading_number), [12, -3, 4, 0, 0]);
        assert_eq!(leading_port("80/tcp"), Some(Some(80)));
        assert_eq!([leading_port("65536"), leading_port("-1")], [Some(None); 2]);
        assert_eq!([leading_port("http"), leading_port("-x"), leading_port("")], [None; 3]);
    }

    proptest! {
        #[test]
        fn bounds_of_a_network(
            value in any::<u128>(),
            other in any::<u128>(),
            length in -5i32..140,
        ) {
            let (address, other) = (words(value), words(other));
            let (first, last) = (network(&address, length), broadcast(&address, length));
            prop_assert!(first <= address && address <= last);
            prop_assert!(contains(&first, length, &last));
            prop_assert_eq!(contains(&first, length, &other), (first..=last).contains(&other));
            prop_assert!(common_length(&first, &last, 128) >= length.clamp(0, 128));
            prop_assert_eq!(from_ipv6(to_ipv6(&address)), address);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a-fx:./ -]{0,30}") {
            let _ = (parse_network(&text), parse_masked(&text), leading_port(&text));
        }
    }
}
