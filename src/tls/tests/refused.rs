//! Records and messages that break the rules, alerts, and attempts to negotiate again.

use super::*;

#[test]
fn a_changed_bit_is_answered_with_bad_record_mac() {
    for choice in sealable() {
        let length = {
            let mut pair = session(choice);
            pair.peer.write_all(b"payload").unwrap();
            pair.wire().len()
        };
        for at in 5..length {
            let mut pair = session(choice);
            pair.peer.write_all(b"payload").unwrap();
            let mut wire = pair.wire();
            wire[at] ^= 1 << (at % 8);
            pair.feed_all(&wire);
            pair.broken_with(alert::BAD_RECORD_MAC);
        }
    }
}

/// RFC 8446 section 5.2 and RFC 5246 section 6.2.1 say 3.3, and it is authenticated.
#[test]
fn a_changed_minor_version_in_a_header_is_refused() {
    for choice in sealable() {
        let mut pair = session(choice);
        pair.peer.write_all(b"payload").unwrap();
        let mut wire = pair.wire();
        wire[2] ^= 1;
        pair.feed_all(&wire);
        assert!(pair.error.is_some(), "{choice:?}: version 3.{} was taken", wire[2]);
    }
}

#[test]
fn records_out_of_order_are_refused() {
    for choice in sealable() {
        for order in [&[1usize][..], &[0, 0], &[0, 2], &[1, 0]] {
            let (mut pair, mut sealer) = seized(choice);
            let records: Vec<_> = (0..3).map(|at| sealer.seal(23, &[at], 0)).collect();
            let (last, first) = order.split_last().unwrap();
            // Record 0 in its own place is data.
            if *order != [1, 0] {
                first.iter().for_each(|&at| pair.feed_all(&records[at]));
                assert_eq!(pair.reads(), [&[0u8][..], &[]][usize::from(first.is_empty())]);
                pair.feed_all(&records[*last]);
            } else {
                pair.feed_all(&records[1]);
            }
            pair.broken_with(alert::BAD_RECORD_MAC);
        }
    }
}

/// RFC 8446 section 5.1: a message before a key change ends its record. 2 is not a valid request.
#[test]
fn messages_that_are_no_key_update_end_a_session() {
    let wrong: [&[u8]; 9] = [
        &[],
        &[24, 0, 0, 1, 2],
        &[25],
        &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0],
        &[1, 0, 0, 0],
        &[4, 0, 0, 0],
        &[20, 0, 0, 1, 0],
        &[13; 300],
        &[0, 0, 0, 0],
    ];
    for choice in sealable() {
        // TLS 1.2 replies to a HelloRequest and to a ClientHello.
        let answered = |message: &&[u8]| matches!(message.first(), Some(0 | 1)) && !choice.tls13;
        for message in wrong.into_iter().filter(|message| !answered(message)) {
            let (mut pair, mut sealer) = seized(choice);
            pair.feed_all(&sealer.seal(22, message, 0));
            let key_update = choice.tls13 && message == [24, 0, 0, 1, 2];
            pair.broken_with(if key_update {
                alert::ILLEGAL_PARAMETER
            } else {
                alert::UNEXPECTED_MESSAGE
            });
        }
        for kind in [0, 20, 24, 255] {
            let (mut pair, mut sealer) = seized(choice);
            pair.feed_all(&sealer.seal(kind, &[1], 0));
            pair.broken_with(alert::UNEXPECTED_MESSAGE);
        }
    }
}

#[test]
fn empty_records_are_taken_but_not_forever() {
    for choice in sealable() {
        for padding in [0, 1, 1000] {
            let (mut pair, mut sealer) = seized(choice);
            let empty: Vec<u8> = (0..32).flat_map(|_| sealer.seal(23, b"", padding)).collect();
            pair.feed_all(&empty);
            pair.feed_all(&sealer.seal(23, b"data", 0));
            assert_eq!((pair.reads(), &pair.error), (b"data".to_vec(), &None));
            let empty: Vec<u8> = (0..32).flat_map(|_| sealer.seal(23, b"", padding)).collect();
            pair.feed_all(&empty);
            assert_eq!(pair.error, None);
            let empty: Vec<u8> = (0..300).flat_map(|_| sealer.seal(23, b"", padding)).collect();
            pair.feed_all(&empty);
            pair.broken_with(alert::UNEXPECTED_MESSAGE);
        }
    }
}

#[test]
fn records_have_a_largest_length() {
    for choice in sealable() {
        let (mut pair, mut sealer) = seized(choice);
        pair.feed_all(&sealer.seal(23, &pattern(16384), 0));
        assert!(pair.reads() == pattern(16384));
        pair.feed_all(&sealer.seal(23, &pattern(16385), 0));
        pair.broken_with(alert::RECORD_OVERFLOW);
        // The header alone is enough: nobody should have to buffer that much.
        let most: u16 = if choice.tls13 { 16384 + 256 } else { 16384 + 2048 };
        let (mut pair, _) = seized(choice);
        pair.feed_all(&[&[23, 3, 3][..], &(most + 1).to_be_bytes()].concat());
        pair.broken_with(alert::RECORD_OVERFLOW);
        let (mut pair, _) = seized(choice);
        pair.feed_all(&[&[23, 3, 3][..], &most.to_be_bytes()].concat());
        assert_eq!(pair.error, None);
        pair.feed_all(&vec![0; usize::from(most)]);
        pair.broken_with(alert::BAD_RECORD_MAC);
        // Too short for a tag.
        let (mut pair, sealer) = seized(choice);
        let explicit = if choice.tls13 || choice.number[0] == 0xcc { 0 } else { 8 };
        pair.feed_all(&[23, 3, 3, 0, explicit + 15]);
        pair.broken_with(alert::BAD_RECORD_MAC);
        drop(sealer);
    }
}

#[test]
fn padding_is_not_data_and_a_record_has_a_type() {
    for choice in sealable().filter(|choice| choice.tls13) {
        let (mut pair, mut sealer) = seized(choice);
        for padding in [1, 15, 16, 255, 4000] {
            pair.feed_all(&sealer.seal(23, b"data\0\0", padding));
            assert_eq!(pair.reads(), b"data\0\0");
        }
        pair.feed_all(&sealer.seal_inner(23, &[0; 100]));
        pair.broken_with(alert::UNEXPECTED_MESSAGE);
        let (mut pair, mut sealer) = seized(choice);
        pair.feed_all(&sealer.seal_inner(23, &[]));
        pair.broken_with(alert::UNEXPECTED_MESSAGE);
    }
}

#[test]
fn what_is_no_record_ends_a_session() {
    let rubbish: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n",
        &[23, 2, 3, 0, 20, 0],
        &[24, 3, 3, 0, 20, 0],
        &[20, 3, 3, 0, 1, 1],
        &[0; 5],
        &[0xff; 5],
    ];
    for choice in sealable() {
        for bytes in rubbish {
            let mut pair = session(choice);
            pair.feed_all(bytes);
            pair.broken_with(alert::UNEXPECTED_MESSAGE);
        }
    }
    for choice in CHOICES.into_iter().filter(|choice| choice.library) {
        for bytes in rubbish {
            let mut pair = session(choice);
            pair.feed_all(bytes);
            // The library waits for as much as the header seems to announce, but not in TLS 1.3.
            assert_eq!(pair.reads(), b"");
            assert!(pair.error.is_some() || bytes.len() == 6, "{choice:?} {bytes:?}");
        }
    }
}

#[test]
fn an_alert_that_nobody_has_sealed_is_no_goodbye() {
    for choice in sealable() {
        for record in [&[21, 3, 3, 0, 2, 1, 0][..], &[21, 3, 3, 0, 2, 2, 40], &[21, 3, 3, 0, 0]] {
            let mut pair = session(choice);
            pair.feed_all(record);
            assert!(!pair.closed);
            let expected =
                if choice.tls13 { alert::UNEXPECTED_MESSAGE } else { alert::BAD_RECORD_MAC };
            pair.broken_with(expected);
        }
        let mut pair = session(choice);
        pair.feed_all(&[&[21, 3, 3, 0, 26][..], &[0; 26]].concat());
        assert!(!pair.closed && pair.error.is_some());
    }
}

#[test]
fn alerts_are_understood() {
    for choice in sealable() {
        // After user_canceled, and in TLS 1.2 after any warning, the session goes on.
        let harmless = if choice.tls13 { [[1, 90], [2, 90]] } else { [[1, 90], [1, 41]] };
        let (mut pair, mut sealer) = seized(choice);
        for alert in harmless {
            pair.feed_all(&sealer.seal(21, &alert, 0));
        }
        pair.feed_all(&sealer.seal(23, b"data", 0));
        assert_eq!((pair.reads(), &pair.error), (b"data".to_vec(), &None));
        // The level of a close_notify has no meaning in TLS 1.3; in TLS 1.2 it is a warning.
        pair.feed_all(&sealer.seal(21, &[if choice.tls13 { 2 } else { 1 }, 0], 0));
        assert!(pair.closed);
        for alert in [[2, 40], if choice.tls13 { [1, 40] } else { [2, 10] }] {
            let (mut pair, mut sealer) = seized(choice);
            let before = pair.flights.len();
            pair.feed_all(&sealer.seal(21, &alert, 0));
            assert_eq!(pair.error, Some(Failure::Alert(alert[1]).to_string()));
            assert_eq!(pair.flights.len(), before, "an answer to an alert");
        }
        for alert in [&[1][..], &[1, 0, 0], &[1, 0, 1, 0]] {
            let (mut pair, mut sealer) = seized(choice);
            pair.feed_all(&sealer.seal(21, alert, 0));
            assert!(!pair.closed);
            pair.broken_with(alert::DECODE_ERROR);
        }
        if !choice.tls13 {
            let (mut pair, mut sealer) = seized(choice);
            pair.feed_all(&sealer.seal(21, &[0, 0], 0));
            assert!(!pair.closed);
            pair.broken_with(alert::ILLEGAL_PARAMETER);
        }
    }
}

/// OpenSSL gives up when it may not renegotiate; what matters is that it is told so.
#[test]
fn a_client_that_negotiates_again_is_told_that_we_do_not() {
    const NO_RENEGOTIATION: u32 = 339;
    for choice in CHOICES.into_iter().filter(|choice| !choice.tls13) {
        // Two ciphers make a short ClientHello.
        let mut pair = session(choice);
        assert!(testing::renegotiate(pair.ssl()));
        assert!(pair.peer.do_handshake().is_err());
        pair.pass();
        assert_eq!(pair.error, None, "{choice:?}");
        let error = pair.peer.do_handshake().unwrap_err();
        assert_eq!(reason(&error), NO_RENEGOTIATION, "{choice:?}");
        pair.pass();
        assert_eq!(pair.reads(), b"");
        let alert = pair.error.expect("an end");
        assert!(alert.contains("40") || alert.contains("handshake failure"), "{alert}");
    }
}

#[test]
fn a_client_hello_in_a_session_does_not_break_it() {
    for choice in sealable().filter(|choice| !choice.tls13) {
        let (mut pair, mut sealer) = seized(choice);
        for length in [0, 1, 50, 255] {
            let hello = [&[1, 0, 0, length][..], &vec![3; usize::from(length)]].concat();
            let before = pair.flights.len();
            pair.feed_all(&sealer.seal(22, &hello, 0));
            assert_eq!((&pair.error, pair.flights.len() - before), (&None, 1));
        }
        pair.feed_all(&sealer.seal(23, b"as before", 0));
        assert_eq!((pair.reads(), pair.error), (b"as before".to_vec(), None));
    }
}

/// A ClientHello with OpenSSL's usual ciphers, and one that also offers TLS 1.3.
#[test]
fn a_client_that_offers_everything_again_is_told_that_we_do_not() {
    const NO_RENEGOTIATION: u32 = 339;
    let acceptor = Setup::new(&[&pki().ec]).acceptor();
    let short = client(|builder| version(builder, SslVersion::TLS1_2));
    for client in [short, client(|_| ())] {
        let mut pair = Pair::server(&acceptor, TLS12, &client, "a.example").established();
        assert!(testing::renegotiate(pair.ssl()));
        assert!(pair.peer.do_handshake().is_err());
        pair.pass();
        assert_eq!(pair.error, None);
        assert_eq!(reason(&pair.peer.do_handshake().unwrap_err()), NO_RENEGOTIATION);
    }
}

/// A ClientHello with a ticket has more than 256 bytes.
#[test]
fn a_long_client_hello_in_a_session_does_not_break_it() {
    for choice in sealable().filter(|choice| !choice.tls13) {
        let (mut pair, mut sealer) = seized(choice);
        let hello = [&[1, 0, 1, 200][..], &[3; 456]].concat();
        pair.feed_all(&sealer.seal(22, &hello, 0));
        pair.feed_all(&sealer.seal(23, b"as before", 0));
        assert_eq!((pair.reads(), pair.error), (b"as before".to_vec(), None), "{choice:?}");
    }
}

#[test]
fn a_server_that_negotiates_again_is_told_that_we_do_not() {
    for choice in CHOICES.into_iter().filter(|choice| !choice.tls13) {
        let mut pair = client_session(choice);
        assert!(testing::renegotiate(pair.ssl()));
        let _ = pair.peer.do_handshake();
        pair.pass();
        assert_eq!(pair.error, None, "{choice:?}");
        // The reply is there, and OpenSSL's server goes on or gives up as it likes.
        pair.peer_reads();
        pair.pass();
        assert_eq!(pair.reads(), b"");
    }
}

/// RFC 8446 sections 5.1 and 5.4.
#[test]
fn what_is_empty_or_too_long_has_its_own_alert() {
    for choice in sealable() {
        for kind in [21, 22] {
            let (mut pair, mut sealer) = seized(choice);
            pair.feed_all(&sealer.seal(kind, &[], 0));
            pair.broken_with(alert::UNEXPECTED_MESSAGE);
        }
        if !choice.tls13 {
            continue;
        }
        for (message, expected) in [
            (&[24, 0, 0, 0][..], alert::DECODE_ERROR),
            (&[24, 0, 0, 2], alert::DECODE_ERROR),
            (&[24, 0, 0, 2, 0, 0], alert::DECODE_ERROR),
            (&[24, 1, 0, 1], alert::DECODE_ERROR),
            (&[24, 0, 0, 1, 2], alert::ILLEGAL_PARAMETER),
            (&[24, 0, 0, 1, 0, 0], alert::UNEXPECTED_MESSAGE),
            (&[4], alert::UNEXPECTED_MESSAGE),
        ] {
            let (mut pair, mut sealer) = seized(choice);
            pair.feed_all(&sealer.seal(22, message, 0));
            pair.broken_with(expected);
        }
        // Content, type and padding together have at most 2^14 + 1 bytes.
        let (mut pair, mut sealer) = seized(choice);
        pair.feed_all(&sealer.seal(23, b"data", 16384 - 4));
        assert_eq!(pair.reads(), b"data");
        pair.feed_all(&sealer.seal(23, b"data", 16384 - 3));
        pair.broken_with(alert::RECORD_OVERFLOW);
    }
}
