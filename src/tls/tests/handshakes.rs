//! From the handshake to the records, and what may be negotiated.

use super::*;

/// The random of a ServerHello that is a HelloRetryRequest (RFC 8446 section 4.1.3).
const RETRY: [u8; 4] = [0xcf, 0x21, 0xad, 0x74];

fn has_retry(pair: &Pair) -> bool {
    pair.flights[0].windows(4).any(|window| window == RETRY)
}

#[test]
fn a_client_may_have_to_try_again_with_another_group() {
    for choice in CHOICES.into_iter().filter(|choice| choice.tls13) {
        for (ours, theirs, retry) in [
            (Some("X25519"), "P-384:X25519", true),
            (Some("P-384"), "P-256:P-384", true),
            (None, "P-521:P-256", true),
            (Some("P-384:X25519"), "P-384:X25519", false),
        ] {
            let identity = if choice.rsa { &pki().rsa } else { &pki().ec };
            let setup = Setup::new(&[identity]).only(choice);
            let acceptor = setup.with(|tls| tls.groups = ours.map(str::to_owned)).acceptor();
            let client = client(|builder| {
                only(builder, choice);
                builder.set_groups_list(theirs).unwrap();
            });
            for pieces in [vec![], vec![1]] {
                let mut pair = Pair::server(&acceptor, BOTH, &client, "a.example");
                pair.eager = b"soon".to_vec();
                pair.pieces = pieces;
                let mut pair = pair.established();
                assert_eq!(has_retry(&pair), retry);
                assert_eq!(pair.reads(), b"soon");
                pair.talk(&[1, 50_000]);
            }
        }
    }
    let acceptor = Setup::new(&[&pki().ec]).with(|tls| tls.groups = Some("X25519".into()));
    let client = client(|builder| builder.set_groups_list("P-384").unwrap());
    let pair = Pair::server(&acceptor.acceptor(), BOTH, &client, "");
    assert_eq!(pair.refused().1, got(alert::HANDSHAKE_FAILURE));
}

/// Checks how many records were sent at the end of the handshake, and how many were received, for
/// every way in which a TLS 1.3 handshake can end.
#[test]
fn the_numbers_of_the_first_records_are_right_however_the_handshake_went() {
    // A certificate whose ticket takes more than one record.
    let names: Vec<String> = (0..700).map(|number| format!("{number:030}.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let large = pki().authority.sign(&names, pki::ec_key());
    let other = pki().authority.sign(&["b.example"], pki::rsa_key());
    for choice in sealable().filter(|choice| !choice.rsa) {
        for case in 0..128u32 {
            let [tickets, keys, retry, asked, shown, eager, named] =
                [0, 1, 2, 3, 4, 5, 6].map(|bit| case >> bit & 1 == 1);
            // A client that is not asked shows no certificate, and without tickets their keys do
            // not matter.
            if shown && !asked || keys && !tickets || (retry && !choice.tls13) {
                continue;
            }
            if named && !choice.tls13 {
                // The key of the other name is of the other kind.
                continue;
            }
            let verify = if asked { Verify::Optional } else { Verify::No };
            let setup = Setup::new(&[&pki().ec, &other]).only(choice);
            let setup = setup.verifying(verify, &pki().authority).with(|tls| {
                tls.session_timeout = if tickets { 7200 } else { 0 };
                // In TLS 1.2 the group of a certificate's key counts too.
                let groups = if choice.tls13 { "X25519" } else { "X25519:P-256" };
                tls.groups = Some(groups.into());
            });
            let acceptor = setup.acceptor();
            if !keys {
                library::set_ticket_keys(Vec::new());
            }
            let client = client(|builder| {
                only(builder, choice);
                let groups = if retry { "P-256:X25519" } else { "X25519:P-256" };
                builder.set_groups_list(groups).unwrap();
                if shown {
                    show(builder, &large);
                }
                if eager {
                    builder.clear_options(SslOptions::ENABLE_MIDDLEBOX_COMPAT);
                }
            });
            let name = if named { "b.example" } else { "a.example" };
            let mut pair = Pair::server(&acceptor, BOTH, &client, name);
            if eager {
                pair.eager = pattern(40_000);
            }
            let mut pair = pair.established();
            assert_eq!(pair.handler(), "Stream(records)");
            assert!(pair.reads() == pattern(if eager { 40_000 } else { 0 }));
            assert_eq!(pair.ours.summary().unwrap().subject.is_some(), shown);
            if choice.tls13 {
                assert_eq!(has_retry(&pair), retry);
                // The last flight consists of tickets, if there are any.
                let length = if keys { pair.flights.last().unwrap().len() } else { 0 };
                assert_eq!(length > 16384, keys && shown, "a ticket of {length} bytes");
                assert_eq!(pair.flights.len(), 1 + usize::from(retry) + usize::from(keys));
            }
            pair.talk(&[1, 20_000]);
        }
    }
}

/// Two handshakes whose steps alternate do not get each other's secrets.
#[test]
fn handshakes_may_overlap() {
    for choice in sealable() {
        let (acceptor, client) = server_and_client(choice, &Lines::default());
        let mut pairs: Vec<Pair> =
            (0..4).map(|_| Pair::server(&acceptor, BOTH, &client, "a.example")).collect();
        for _ in 0..6 {
            for pair in &mut pairs {
                pair.done |= pair.peer.do_handshake().is_ok();
                pair.pass();
            }
        }
        for pair in pairs {
            pair.established().talk(&[1, 20_000]);
        }
    }
}

#[test]
fn the_versions_of_the_listener_count() {
    let acceptor = Setup::new(&[&pki().ec]).acceptor();
    let any = client(|_| ());
    for (versions, expected) in [(TLS12, "TLSv1.2"), (TLS13, "TLSv1.3"), (BOTH, "TLSv1.3")] {
        let mut pair = Pair::server(&acceptor, versions, &any, "").established();
        assert_eq!(pair.ours.summary().unwrap().version, expected);
        assert_eq!(pair.ours.summary().unwrap().server_name, None);
        pair.talk(&[100]);
    }
    for (versions, other) in [(TLS12, SslVersion::TLS1_3), (TLS13, SslVersion::TLS1_2)] {
        let client = client(|builder| version(builder, other));
        let (error, alert) = Pair::server(&acceptor, versions, &client, "").refused();
        assert!(error.contains("unsupported protocol"), "{error}");
        assert_eq!(alert, got(alert::PROTOCOL_VERSION));
    }
    let client = client(|builder| {
        version(builder, SslVersion::TLS1_2);
        builder.set_cipher_list("ECDHE-RSA-AES128-GCM-SHA256").unwrap();
    });
    let (error, alert) = Pair::server(&acceptor, BOTH, &client, "").refused();
    assert!(error.contains("no shared cipher"), "{error}");
    assert_eq!(alert, got(alert::HANDSHAKE_FAILURE));
}

/// `tls records = openssl`: our record layer takes no part in anything after the handshake.
#[test]
fn the_library_has_the_records_if_it_is_to() {
    for choice in CHOICES {
        let identity = if choice.rsa { &pki().rsa } else { &pki().ec };
        let setup = Setup::new(&[identity]).only(choice);
        let acceptor = setup.with(|tls| tls.records = RecordLayer::Openssl).acceptor();
        let client = client(|builder| only(builder, choice));
        for pieces in [vec![], vec![1, 700]] {
            let mut pair = Pair::server(&acceptor, BOTH, &client, "a.example");
            pair.pieces = pieces;
            pair.eager = pattern(20_000);
            let mut pair = pair.established();
            assert!(pair.reads() == pattern(20_000));
            assert_eq!(pair.handler(), "Stream(library)");
            assert_eq!(pair.ours.summary().unwrap().handler.to_string(), "openssl");
            pair.talk(&[1, 16_384, 50_000]);
            let mut out = Buffer::default();
            pair.ours.close(&mut out);
            pair.sent(&out);
            assert!(pair.peer_reads().is_empty() && pair.peer_closed);
        }
    }
}
