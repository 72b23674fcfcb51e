//! Headers as the specification has them, there and back, cut anywhere, and from anybody.

use super::checksum::crc32c;
use super::*;
use crate::config::relay::ProxyVersion::{V1, V2};
use proptest::prelude::*;
use std::net::SocketAddr;

fn client(source: &str, destination: &str) -> Origin {
    let address = |text: &str| Address::Ip(text.parse::<SocketAddr>().expect("an address"));
    Origin::Client { source: address(source), destination: address(destination) }
}

/// A header of version 2 with these fields.
fn second(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = PREFIX_2.to_vec();
    bytes.extend([command, family]);
    bytes.extend((body.len() as u16).to_be_bytes());
    bytes.extend(body);
    bytes
}

#[test]
fn the_checksum_is_crc32c() {
    assert_eq!(crc32c(*b"123456789"), 0xe306_9283);
    assert_eq!(crc32c([0; 32]), 0x8a91_36aa);
}

#[test]
fn version_1_is_read_as_specified() {
    for (line, origin) in [
        (
            "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n",
            client("192.0.2.1:56324", "192.0.2.2:443"),
        ),
        ("PROXY TCP6 2001:db8::1 ::1 1 65535\r\n", client("[2001:db8::1]:1", "[::1]:65535")),
        ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", {
            client("255.255.255.255:65535", "255.255.255.255:65535")
        }),
        ("PROXY UNKNOWN\r\n", Origin::Unknown),
        ("PROXY UNKNOWN ffff::ffff ffff::ffff 65535 65535\r\n", Origin::Unknown),
    ] {
        let whole = format!("{line}GET /");
        assert_eq!(
            read(whole.as_bytes()),
            Reading::Complete(Box::new(Header::of(origin)), line.len()),
            "{line}"
        );
    }
    for line in [
        "PROXY \r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 56324\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443 \r\n",
        "PROXY TCP4  192.0.2.1 192.0.2.2 56324 443\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 056324 443\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 65536 443\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 +1 443\r\n",
        "PROXY TCP4 ::1 ::1 1 443\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.2 1 443\r\n",
        "PROXY TCP6 fe80::1%1 ::1 1 443\r\n",
        "PROXY UDP4 192.0.2.1 192.0.2.2 1 443\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 443\n\r\n",
        "PROXY UNKNOWNS\r\n",
    ] {
        assert!(matches!(read(line.as_bytes()), Reading::Malformed(_)), "{line}");
    }
    let endless = [PREFIX_1, &[b' '; LONGEST_1]].concat();
    assert_eq!(read(&endless[..LONGEST_1 - 1]), Reading::Incomplete);
    assert!(matches!(read(&endless[..LONGEST_1]), Reading::Malformed(_)));
}

#[test]
fn a_connection_of_the_senders_own_is_local_whatever_else_the_header_says() {
    for (family, body) in [(0, vec![]), (0x11, vec![1; 12]), (0xff, vec![7; 5])] {
        let bytes = second(number::LOCAL, family, &body);
        assert_eq!(read(&bytes), Reading::Complete(Box::new(Header::local()), bytes.len()));
    }
    assert_eq!(write(V2, &Header::local())[12..14], [number::LOCAL, 0]);
    assert_eq!(write(V1, &Header::local()), b"PROXY UNKNOWN\r\n");
}

#[test]
fn families_and_fields_that_nobody_knows_are_passed_over() {
    let known = |body: &[u8]| match read(&second(number::PROXY, number::UNSPECIFIED, body)) {
        Reading::Complete(header, _) => *header,
        other => panic!("{other:?}"),
    };
    assert_eq!(known(&[]), Header::of(Origin::Unknown));
    let fields = [0xee, 0, 2, 1, 2, number::AUTHORITY, 0, 1, b'a', 4, 0, 0];
    let expected = Header { authority: Some(b"a".to_vec()), ..Header::of(Origin::Unknown) };
    assert_eq!(known(&fields), expected);
    let bytes = second(number::PROXY, 0x41, &[1; 9]);
    assert_eq!(read(&bytes), Reading::Complete(Box::new(Header::of(Origin::Unknown)), bytes.len()));
    let bytes = second(number::PROXY, number::UDP4, &[1; 12]);
    assert_eq!(read(&bytes), Reading::Complete(Box::new(Header::of(Origin::Unknown)), bytes.len()));
}

#[test]
fn what_is_cut_short_too_long_or_wrong_is_refused() {
    for bytes in [
        second(0x22, 0x11, &[0; 12]),
        second(0x11, 0x11, &[0; 12]),
        second(number::PROXY, number::TCP4, &[0; 11]),
        second(number::PROXY, number::TCP6, &[0; 35]),
        second(number::PROXY, number::UNIX_STREAM, &[0; 215]),
        second(number::PROXY, 0, &[number::ALPN]),
        second(number::PROXY, 0, &[number::ALPN, 0, 2, 1]),
        second(number::PROXY, 0, &[number::TLS, 0, 4, 1, 0, 0, 0]),
        second(number::PROXY, 0, &[number::TLS, 0, 8, 1, 0, 0, 0, 0, number::TLS_CIPHER, 0, 1]),
        second(number::PROXY, 0, &[number::CRC32C, 0, 3, 0, 0, 0]),
        second(number::PROXY, 0, &[number::CRC32C, 0, 4, 0, 0, 0, 0]),
        second(number::PROXY, 0, &[&[number::UNIQUE_ID, 0, 129][..], &[1; 129]].concat()),
        second(number::PROXY, 0, &[0; LONGEST]),
    ] {
        assert!(matches!(read(&bytes), Reading::Malformed(_)), "{bytes:?}");
    }
    // Refused at once, not when all of it has come.
    assert!(matches!(
        read(&second(number::PROXY, 0, &[0; LONGEST])[..FIXED_2]),
        Reading::Malformed(_)
    ));
}

#[test]
fn other_protocols_are_no_headers() {
    for bytes in
        [&b"GET / HTTP/1.1\r\n"[..], b"\r\n\r\n\0\r\nQUITT", b"PROXIED", b"\x16\x03\x01", b"\n"]
    {
        assert_eq!(read(bytes), Reading::Absent);
    }
    for bytes in [&b""[..], b"P", b"PROXY", b"\r", b"\r\n\r\n\0\r\nQUIT"] {
        assert_eq!(read(bytes), Reading::Incomplete);
    }
}

#[test]
fn addresses_of_two_families_are_both_written_as_ipv6() {
    let mixed = client("192.0.2.1:5", "[2001:db8::1]:6");
    let expected = "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 5 6\r\n";
    assert_eq!(write(V1, &Header::of(mixed)), expected.as_bytes());
    let mapped = client("[::ffff:192.0.2.1]:5", "[::ffff:192.0.2.2]:6");
    let expected = "PROXY TCP4 192.0.2.1 192.0.2.2 5 6\r\n";
    assert_eq!(write(V1, &Header::of(mapped)), expected.as_bytes());
    let path = Origin::Client {
        source: Address::Unix("".into()),
        destination: Address::Unix("/run/here".into()),
    };
    assert_eq!(write(V1, &Header::of(path.clone())), b"PROXY UNKNOWN\r\n");
    let Reading::Complete(header, _) = read(&write(V2, &Header::of(path.clone()))) else {
        panic!("a header");
    };
    assert_eq!(header.origin, path);
}

fn origins() -> impl Strategy<Value = Origin> {
    let four = (any::<[u8; 4]>(), any::<[u8; 4]>(), any::<(u16, u16)>());
    // Not mapped: these are written as IPv4.
    let six = (any::<[u8; 15]>(), any::<[u8; 15]>(), any::<(u16, u16)>());
    let path = "[a-z/]{0,108}";
    let pair = |source: SocketAddr, destination: SocketAddr| Origin::Client {
        source: Address::Ip(source),
        destination: Address::Ip(destination),
    };
    let long = |ip: [u8; 15]| {
        let mut all = [0x20; 16];
        all[1..].copy_from_slice(&ip);
        all
    };
    prop_oneof![
        Just(Origin::Local),
        Just(Origin::Unknown),
        four.prop_map(move |(a, b, (p, q))| pair((a, p).into(), (b, q).into())),
        six.prop_map(move |(a, b, (p, q))| pair((long(a), p).into(), (long(b), q).into())),
        (path, path).prop_map(|(source, destination)| Origin::Client {
            source: Address::Unix(source.into()),
            destination: Address::Unix(destination.into()),
        }),
    ]
}

fn headers() -> impl Strategy<Value = Header> {
    let value = || prop::option::of(prop::collection::vec(any::<u8>(), 0..100));
    let certificate = prop_oneof![
        Just(Certificate::None),
        Just(Certificate::OfSession),
        Just(Certificate::Presented)
    ];
    let tls = ("[A-Za-z0-9.]{0,9}", value(), value(), certificate, any::<bool>()).prop_map(
        |(version, cipher, common_name, certificate, verified)| Tls {
            version: version.into_bytes(),
            cipher,
            common_name,
            certificate,
            verified: verified && certificate != Certificate::None,
        },
    );
    (origins(), value(), value(), value(), prop::option::of(tls)).prop_map(
        |(origin, alpn, authority, unique_id, tls)| match origin {
            Origin::Local => Header::local(),
            origin => Header { origin, alpn, authority, unique_id, tls },
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read(header in headers(), rest in prop::collection::vec(any::<u8>(), 0..9)) {
        let bytes = write(V2, &header);
        for cut in 0..bytes.len() {
            prop_assert_eq!(read(&bytes[..cut]), Reading::Incomplete);
        }
        let whole = [&bytes[..], &rest].concat();
        let expected = match &header.origin {
            // It is LOCAL, whose fields nobody looks at.
            Origin::Unknown => Header::local(),
            _ => header.clone(),
        };
        prop_assert_eq!(read(&whole), Reading::Complete(Box::new(expected), bytes.len()));
        let bytes = write(V1, &header);
        prop_assert!(bytes.len() <= LONGEST_1);
        for cut in 0..bytes.len() {
            prop_assert_eq!(read(&bytes[..cut]), Reading::Incomplete);
        }
        let whole = [&bytes[..], &rest].concat();
        let Reading::Complete(found, length) = read(&whole) else {
            return Err(TestCaseError::fail("no header"));
        };
        prop_assert_eq!(length, bytes.len());
        let expected = match &header.origin {
            origin @ Origin::Client { source: Address::Ip(_), .. } => origin.clone(),
            _ => Origin::Unknown,
        };
        prop_assert_eq!(*found, Header::of(expected));
    }

    #[test]
    fn a_flipped_bit_is_noticed(header in headers(), at: prop::sample::Index, bit in 0u8..8) {
        prop_assume!(matches!(header.origin, Origin::Client { .. }));
        let mut bytes = write(V2, &header);
        // Not in the field of the checksum: without one there is nothing to notice it by.
        let before = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, |value| 3 + value.len());
        let addresses = match &header.origin {
            Origin::Client { source: Address::Ip(ip), .. } if ip.is_ipv4() => ADDRESSES_4,
            Origin::Client { source: Address::Ip(_), .. } => ADDRESSES_6,
            _ => 2 * PATH,
        };
        let checksum = FIXED_2 + addresses + before(&header.alpn) + before(&header.authority);
        let at = match at.index(bytes.len() - 7) {
            at if at < checksum => at,
            at => at + 7,
        };
        bytes[at] ^= 1 << bit;
        prop_assert_ne!(read(&bytes), Reading::Complete(Box::new(header), bytes.len()));
    }

    #[test]
    fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), version in 0..3) {
        let bytes = match version {
            0 => bytes,
            1 => [PREFIX_1, &bytes].concat(),
            _ => [PREFIX_2, &bytes].concat(),
        };
        if let Reading::Complete(_, length) = read(&bytes) {
            prop_assert!(length <= bytes.len());
        }
    }
}
