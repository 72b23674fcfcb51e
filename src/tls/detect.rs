//! `tls = auto`: TLS or not, from the first bytes of a client.

/// What the first bytes show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// Too few to tell.
    Undecided,
    /// A TLS handshake.
    Tls,
    /// Something else.
    Plain,
}

/// The most bytes that are needed to tell.
pub const NEEDED: usize = 6;

/// Looks at the first bytes: a ClientHello begins with a record header of type handshake,
/// version 3.x and a length that is not 0 and not beyond a record's, and the message type 1
/// (RFC 8446 sections 5.1 and 4).
pub fn first(bytes: &[u8]) -> First {
    const CHECKS: [fn(&[u8]) -> bool; NEEDED] = [
        |bytes| bytes[0] == 22,
        |bytes| bytes[1] == 3,
        |bytes| bytes[2] <= 4,
        |bytes| bytes[3] <= 0x48,
        |bytes| (1..=0x4800).contains(&u16::from_be_bytes([bytes[3], bytes[4]])),
        |bytes| bytes[5] == 1,
    ];
    let known = bytes.len().min(NEEDED);
    if !CHECKS[..known].iter().all(|check| check(bytes)) {
        First::Plain
    } else if known < NEEDED {
        First::Undecided
    } else {
        First::Tls
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_client_hello_is_told_from_other_protocols() {
        let hello = [22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
        assert_eq!(first(&hello), First::Tls);
        for length in 0..NEEDED {
            assert_eq!(first(&hello[..length]), First::Undecided);
        }
        // The first record may hold as little as one byte of the ClientHello (RFC 8446 section
        // 5.1).
        for length in 1..5 {
            assert_eq!(first(&[22, 3, 1, 0, length, 1]), First::Tls);
        }
        for plain in [&b"GET / HTTP/1.1\r\n"[..], b"S", b"\x16\x03\x01\x00\x00\x00", b"\x16\x16"] {
            assert_eq!(first(plain), First::Plain);
        }
        // Neither an alert nor application data begins a connection.
        assert_eq!(first(&[21, 3, 3, 0, 2, 1]), First::Plain);
        assert_eq!(first(&[23, 3, 3, 0, 20, 1]), First::Plain);
    }

    proptest! {
        #[test]
        fn more_bytes_never_take_a_decision_back(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let mut decided = First::Undecided;
            for length in 0..=bytes.len() {
                let now = first(&bytes[..length]);
                if decided != First::Undecided {
                    prop_assert_eq!(now, decided);
                }
                decided = now;
            }
            prop_assert!(bytes.len() < NEEDED || decided != First::Undecided);
        }
    }
}
