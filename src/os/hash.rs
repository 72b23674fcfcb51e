//! Hashes that every release and every node computes alike: what is stored in the zone, handed to
//! the next image, or agreed on by nodes that never talk to each other, must not depend on a
//! library's version.

use std::net::IpAddr;

/// FNV-1a, 64 bits.
pub struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// Adds bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    /// The hash of all that was added.
    pub fn finish(&self) -> u64 {
        self.0
    }
}

/// Spreads the bits of a number, as similar inputs have similar FNV hashes. The finalizer of
/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators").
pub fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Random numbers that need not be secret (SplitMix64).
pub struct Random(u64);

impl Random {
    /// The row of numbers that begins here.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Draws the next one.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
}

/// The key of a client address. An IPv4 client has one key, whichever kind of listener it came to.
pub fn address_key(address: IpAddr) -> u64 {
    let mut hash = Fnv::default();
    match address.to_canonical() {
        IpAddr::V4(v4) => hash.add(&v4.octets()),
        IpAddr::V6(v6) => hash.add(&v6.octets()),
    }
    mix(hash.finish())
}

/// The key of a host name, in which case does not matter (RFC 4343).
pub fn name_key(name: &str) -> u64 {
    let mut hash = Fnv::default();
    name.bytes().for_each(|byte| hash.add(&[byte.to_ascii_lowercase()]));
    mix(hash.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        for (text, expected) in [
            ("", 0xcbf2_9ce4_8422_2325),
            ("a", 0xaf63_dc4c_8601_ec8c),
            ("foobar", 0x8594_4171_f739_67e8),
        ] {
            let mut hash = Fnv::default();
            hash.add(text.as_bytes());
            assert_eq!(hash.finish(), expected);
        }
    }

    /// Nodes with other releases use these numbers, so they must not change.
    #[test]
    fn keys_stay() {
        let key = |text: &str| address_key(text.parse().expect("an address"));
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(name_key("WWW.example.org"), name_key("www.EXAMPLE.org"));
        assert_eq!(key("192.0.2.1"), 0x1e00_e9a1_2f82_49cb);
        assert_eq!(name_key("a.example"), 0x99f2_03a1_e01a_855f);
    }
}
