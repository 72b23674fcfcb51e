//! Certificates, keys and names, of servers and clients.

use super::*;
use crate::config::relay::Relay;
use crate::tls::context::Ends;
use crate::tls::validity::{self, Subject};

/// A revocation list of an authority.
fn revocations(authority: &Identity, revoked: &[&Identity]) -> Vec<u8> {
    let mut list = X509CrlBuilder::new().unwrap();
    list.set_issuer_name(authority.certificate.subject_name()).unwrap();
    let day = |days: i64| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Asn1Time::from_unix(now.as_secs() as i64 + days * 86_400).unwrap()
    };
    list.set_last_update(&day(-1)).unwrap();
    list.set_next_update(&day(30)).unwrap();
    let builder = X509::builder().unwrap();
    let context = builder.x509v3_context(Some(&authority.certificate), None);
    let issuer = AuthorityKeyIdentifier::new().issuer(true).build(&context).unwrap();
    list.append_extension(issuer).unwrap();
    let number = CrlNumber::new(BigNum::from_u32(1).unwrap()).unwrap().build().unwrap();
    list.append_extension(number).unwrap();
    for one in revoked {
        let mut entry = X509RevokedBuilder::new().unwrap();
        entry.set_serial_number(one.certificate.serial_number()).unwrap();
        entry.set_revocation_date(&day(-1)).unwrap();
        list.add_revoked(entry.build()).unwrap();
    }
    list.sign(&authority.key, MessageDigest::sha256()).unwrap();
    list.build().unwrap().to_pem().unwrap()
}

#[test]
fn clients_show_certificates_if_they_must() {
    let (foreign, authority) = (Identity::authority("foreign"), &pki().authority);
    let unknown = foreign.sign(&["client"], pki::ec_key());
    let expired = authority.sign_expired(&["client"]);
    let own = Identity::own(&["client"]);
    let revoked = authority.sign(&["client"], pki::ec_key());
    let good = &pki().client;
    let list = revocations(authority, &[&revoked]);
    for verify in [Verify::No, Verify::Optional, Verify::Required] {
        let mut setup = Setup::new(&[&pki().ec]).verifying(verify, authority);
        let path = setup.file("crl.pem", list.clone());
        setup.settings.authorities.revoked.push(path);
        if verify == Verify::No {
            // A revocation list is a mistake if nobody is checked against it.
            assert!(setup.try_acceptor().unwrap_err().configuration);
            setup.settings.authorities.revoked.clear();
        }
        let acceptor = setup.acceptor();
        for (shown, reason, expected) in [
            (None, "peer did not return a certificate", None),
            (Some(good), "", None),
            (Some(&unknown), "unable to get local issuer", Some(alert::UNKNOWN_CA)),
            (Some(&own), "self-signed certificate", Some(alert::UNKNOWN_CA)),
            (Some(&expired), "certificate has expired", Some(alert::CERTIFICATE_EXPIRED)),
            (Some(&revoked), "certificate revoked", Some(alert::CERTIFICATE_REVOKED)),
        ] {
            for tls in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
                let client = client(|builder| {
                    version(builder, tls);
                    if let Some(identity) = shown {
                        show(builder, identity);
                    }
                });
                let pair = Pair::server(&acceptor, BOTH, &client, "a.example");
                let passes = match (verify, shown) {
                    (Verify::No, _) | (Verify::Optional, None) => true,
                    (_, Some(_)) => expected.is_none(),
                    (Verify::Required, None) => false,
                };
                if passes {
                    let mut pair = pair.established();
                    let summary = pair.ours.summary().unwrap();
                    if verify == Verify::No || shown.is_none() {
                        assert_eq!(summary.subject, None);
                    } else {
                        let name = "CN=client,O=tcprelay tests";
                        assert_eq!(summary.subject.as_deref(), Some(name));
                        let name = "CN=authority,O=tcprelay tests";
                        assert_eq!(summary.issuer.as_deref(), Some(name));
                    }
                    pair.talk(&[1, 20_000]);
                } else {
                    let (error, alert) = pair.refused();
                    assert!(error.contains(reason), "{error} instead of {reason}");
                    let absent = match tls {
                        SslVersion::TLS1_3 => alert::CERTIFICATE_REQUIRED,
                        _ => alert::HANDSHAKE_FAILURE,
                    };
                    assert_eq!(alert, got(expected.unwrap_or(absent)), "{error}");
                }
            }
        }
    }
}

#[test]
fn settings_for_verification_are_checked() {
    let setup = Setup::new(&[&pki().ec]).with(|tls| tls.verify = Verify::Required);
    assert!(setup.try_acceptor().unwrap_err().configuration);
    for (ca, crl) in [(&b"no certificate"[..], None), (b"", None), (b"good", Some(&b"no list"[..]))]
    {
        let mut setup = Setup::new(&[&pki().ec]).verifying(Verify::Required, &pki().authority);
        if ca != b"good" {
            setup.files.pop();
            setup.file("ca.pem", ca.to_vec());
        }
        if let Some(crl) = crl {
            let path = setup.file("crl.pem", crl.to_vec());
            setup.settings.authorities.revoked.push(path);
        }
        let error = setup.try_acceptor().unwrap_err();
        assert!(!error.configuration, "{error}");
        assert!(error.text.contains(if crl.is_some() { "crl.pem" } else { "ca.pem" }), "{error}");
    }
}

#[test]
fn a_list_may_have_authorities_and_revocations_of_several() {
    let (first, second) = (&pki().authority, Identity::authority("second"));
    let revoked = second.sign(&["client"], pki::ec_key());
    let good = second.sign(&["client"], pki::ec_key());
    let mut setup = Setup::new(&[&pki().ec]).verifying(Verify::Required, first);
    setup.files.pop();
    setup.file("ca.pem", pem(&[&first.certificate, &second.certificate]));
    let lists = [revocations(first, &[]), revocations(&second, &[&revoked])].concat();
    let path = setup.file("crl.pem", lists);
    setup.settings.authorities.revoked.push(path);
    let acceptor = setup.acceptor();
    for (identity, passes) in [(&good, true), (&revoked, false), (&pki().client, true)] {
        let client = client(|builder| show(builder, identity));
        let pair = Pair::server(&acceptor, BOTH, &client, "");
        match passes {
            true => pair.established().talk(&[1]),
            false => assert_eq!(pair.refused().1, got(alert::CERTIFICATE_REVOKED)),
        }
    }
}

/// The common name of the certificate that a client has received.
fn shown(pair: &Pair) -> String {
    let certificate = pair.ssl().peer_certificate().unwrap();
    library::name_text(certificate.subject_name()).split([',', '=']).nth(1).unwrap().to_owned()
}

#[test]
fn the_certificate_is_chosen_by_name() {
    let authority = &pki().authority;
    let [a, b, c] = [&["a.example", "both.example"][..], &["b.example"], &["*.c.example"]]
        .map(|names| authority.sign(names, pki::ec_key()));
    let late = authority.sign(&["late.example", "both.example", "b.example"], pki::ec_key());
    let mut setup = Setup::new(&[&a, &b, &c, &late]);
    setup.settings.certificates[1].names = vec!["alias.test".into(), "*.alias.test".into()];
    let names = [
        ("a.example", Some("a.example")),
        ("A.EXAMPLE", Some("a.example")),
        ("b.example", Some("b.example")),
        ("B.Example", Some("b.example")),
        ("both.example", Some("a.example")),
        ("alias.test", Some("b.example")),
        ("any.alias.test", Some("b.example")),
        ("x.c.example", Some("*.c.example")),
        ("late.example", Some("late.example")),
        ("x.y.c.example", None),
        ("c.example", None),
        ("other.example", None),
        ("", None),
    ];
    for required in [false, true] {
        setup.settings.sni_required = required;
        let acceptor = setup.acceptor();
        for tls in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
            let client = client(|builder| version(builder, tls));
            for (name, expected) in names {
                let pair = Pair::server(&acceptor, BOTH, &client, name);
                match expected.or((!required).then_some("a.example")) {
                    Some(expected) => {
                        let mut pair = pair.established();
                        assert_eq!(shown(&pair), expected, "{name}");
                        let known = pair.ours.summary().unwrap().server_name.clone();
                        assert_eq!(known.as_deref(), Some(name).filter(|name| !name.is_empty()));
                        pair.talk(&[1, 20_000]);
                    }
                    None => {
                        assert_eq!(pair.refused().1, got(alert::UNRECOGNIZED_NAME), "{name}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_first_of_our_protocols_that_a_client_offers_is_taken() {
    let other = pki().authority.sign(&["b.example"], pki::ec_key());
    let setup = Setup::new(&[&pki().ec, &other]);
    let setup = setup.with(|tls| tls.alpn = vec!["h2".into(), "http/1.1".into()]);
    let acceptor = setup.acceptor();
    let without = Setup::new(&[&pki().ec]).acceptor();
    for tls in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        for name in ["a.example", "b.example"] {
            for (offered, expected) in [
                (&b"\x08http/1.1\x02h2"[..], Some(Some("h2"))),
                (b"\x08http/1.1", Some(Some("http/1.1"))),
                (b"\x01h\x03h22\x02h2", Some(Some("h2"))),
                (b"\x01h\x03h22", None),
                (b"", Some(None)),
            ] {
                let client = client(|builder| {
                    version(builder, tls);
                    if !offered.is_empty() {
                        builder.set_alpn_protos(offered).unwrap();
                    }
                });
                let pair = Pair::server(&acceptor, BOTH, &client, name);
                let Some(expected) = expected else {
                    assert_eq!(pair.refused().1, got(alert::NO_APPLICATION_PROTOCOL));
                    continue;
                };
                let mut pair = pair.established();
                let theirs = pair.ssl().selected_alpn_protocol().map(|name| name.to_vec());
                assert_eq!(theirs.as_deref(), expected.map(str::as_bytes));
                assert_eq!(pair.ours.summary().unwrap().protocol.as_deref(), expected);
                pair.talk(&[1]);
                // If none are configured, none is agreed on.
                let pair = Pair::server(&without, BOTH, &client, "a.example").established();
                assert_eq!(pair.ssl().selected_alpn_protocol(), None);
            }
        }
    }
}

#[test]
fn our_client_checks_the_server() {
    let choice = CHOICES[0];
    let server = server(choice, |_| ());
    for (name, passes) in
        [("a.example", true), ("A.example", true), ("b.example", false), ("192.0.2.1", false)]
    {
        for verify in [true, false] {
            let connector = remote(|settings| {
                settings.server_name = Some(name.into());
                settings.verify = verify;
            });
            let pair = Pair::client(&connector, &server);
            if passes || !verify {
                pair.established().talk(&[1]);
            } else {
                let error = pair.shake().error.unwrap();
                assert!(error.contains("mismatch"), "{error}");
            }
        }
    }
    // Another authority's certificate.
    let foreign = Identity::authority("foreign").sign(&["a.example", "192.0.2.1"], pki::ec_key());
    let server = self::server(choice, |builder| show(builder, &foreign));
    let (error, alert) = Pair::client(&remote(|_| ()), &server).refused();
    assert!(error.contains("unable to get local issuer"), "{error}");
    assert_eq!(alert, got(alert::UNKNOWN_CA));
    // An address as the name.
    let address = pki().authority.sign(&["192.0.2.1"], pki::ec_key());
    let server = self::server(choice, |builder| show(builder, &address));
    let connector = remote(|settings| settings.server_name = Some("192.0.2.1".into()));
    let mut pair = Pair::client(&connector, &server).established();
    assert_eq!(pair.ssl().servername(NameType::HOST_NAME), None);
    pair.talk(&[1]);
}

#[test]
fn our_client_shows_its_certificate() {
    for choice in CHOICES {
        let server = server(choice, |builder| {
            let mut store = X509StoreBuilder::new().unwrap();
            store.add_cert(pki().authority.certificate.clone()).unwrap();
            builder.set_cert_store(store.build());
            builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        });
        let connector = remote(|settings| {
            settings.certificate.chain = Some("client.pem".into());
            settings.certificate.key = Some("client.key".into());
        });
        let mut pair = Pair::client(&connector, &server);
        if !choice.library && choice.number[0] != 0 {
            pair = pair.established();
            assert_eq!(shown(&pair), "client");
            pair.talk(&[1, 20_000]);
        }
        let mut pair = Pair::client(&self::connector(choice), &server).shake();
        // In TLS 1.3 we learn of it with the first data.
        pair.pass();
        assert!(pair.error.is_some() && pair.alert.is_some(), "{choice:?}");
    }
}

#[test]
fn a_stapled_response_arrives() {
    // Responses without a body, which have only a status.
    let [first, second] = [3u8, 6].map(|status| vec![0x30, 3, 0x0a, 1, status]);
    let other = pki().authority.sign(&["b.example"], pki::ec_key());
    let mut setup = Setup::new(&[&pki().ec, &pki().rsa, &other]);
    let one = setup.file("1.ocsp", first.clone());
    let two = setup.file("2.ocsp", second.clone());
    setup.settings.certificates[0].ocsp = Some(one);
    setup.settings.certificates[1].ocsp = Some(two);
    let acceptor = setup.acceptor();
    for tls in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        for (signatures, name, expected) in [
            ("ECDSA+SHA256", "a.example", Some(&first)),
            ("RSA-PSS+SHA256:RSA+SHA256", "a.example", Some(&second)),
            ("ECDSA+SHA256", "b.example", None),
        ] {
            for asked in [true, false] {
                let client = client(|builder| {
                    version(builder, tls);
                    builder.set_sigalgs_list(signatures).unwrap();
                });
                let pair = Pair::server_with(&acceptor, BOTH, &client, name, |ssl| {
                    if asked {
                        ssl.set_status_type(StatusType::OCSP).unwrap();
                    }
                    // This test does not care that a chain is signed by another kind of key.
                    ssl.set_verify(SslVerifyMode::NONE);
                });
                let mut pair = pair.established();
                let status = pair.ssl().ocsp_status().map(<[u8]>::to_vec);
                assert_eq!(status.as_ref(), expected.filter(|_| asked), "{name} {signatures}");
                pair.talk(&[1]);
            }
        }
    }
    let path = setup.file("bad.ocsp", b"nothing".to_vec());
    setup.settings.certificates[0].ocsp = Some(path);
    assert!(setup.try_acceptor().unwrap_err().text.contains("bad.ocsp"));
}

#[test]
fn keys_of_both_kinds_serve_one_name() {
    let acceptor = Setup::new(&[&pki().ec, &pki().rsa]).acceptor();
    for (signatures, rsa) in [("RSA-PSS+SHA256:RSA+SHA256", true), ("ECDSA+SHA256", false)] {
        for tls in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
            let client = client(|builder| {
                version(builder, tls);
                builder.set_sigalgs_list(signatures).unwrap();
                builder.set_verify(SslVerifyMode::NONE);
            });
            let mut pair = Pair::server(&acceptor, BOTH, &client, "a.example").established();
            let certificate = pair.ssl().peer_certificate().unwrap();
            let expected = if rsa { &pki().rsa } else { &pki().ec };
            assert_eq!(certificate.to_der().unwrap(), expected.certificate.to_der().unwrap());
            pair.talk(&[1, 20_000]);
        }
    }
}

/// RFC 6066 section 4: such a client need not accept longer records.
#[test]
fn a_client_that_wants_short_records_gets_them() {
    for choice in CHOICES {
        for mode in 1..=4 {
            let identity = if choice.rsa { &pki().rsa } else { &pki().ec };
            let acceptor = Setup::new(&[identity]).only(choice).acceptor();
            let (sessions, lines) = (Arc::new(Mutex::new(Vec::new())), Lines::default());
            let store = sessions.clone();
            let client = client(|builder| {
                only(builder, choice);
                lines.collect(builder);
                assert!(testing::limit_fragments(builder, mode));
                builder.set_session_cache_mode(SslSessionCacheMode::CLIENT);
                builder.set_new_session_callback(move |_, session| {
                    store.lock().unwrap().push(session)
                });
            });
            let mut pair = Pair::server(&acceptor, BOTH, &client, "").established();
            pair.talk(&[1, 20_000]);
            let limit = 256usize << mode;
            let short = |pair: &Pair| {
                pair.flights.iter().all(|flight| {
                    let mut rest = &flight[..];
                    while let Some(&[_, _, _, high, low]) = rest.first_chunk::<5>() {
                        let length = usize::from(u16::from_be_bytes([high, low]));
                        // With what protection adds: a tag and a nonce, or a MAC and padding.
                        if length > limit + 96 {
                            return false;
                        }
                        rest = &rest[5 + length..];
                    }
                    rest.is_empty()
                })
            };
            assert!(short(&pair), "{choice:?} {limit}");
            let session = sessions.lock().unwrap().pop().expect("a ticket");
            let pair = Pair::resuming(&acceptor, &client, "", &session);
            let mut pair = pair.established();
            assert!(pair.ssl().session_reused());
            pair.talk(&[1, 20_000]);
            assert!(short(&pair), "resumed: {choice:?} {limit}");
        }
    }
}

#[test]
fn encrypted_keys_need_their_passphrase() {
    let passphrase = b"correct horse";
    let key = pki().ec.key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), passphrase);
    let key = key.unwrap();
    // In the traditional format too.
    let ec = pki().ec.key.ec_key().unwrap();
    let old = ec.private_key_to_pem_passphrase(Cipher::aes_128_cbc(), passphrase).unwrap();
    for key in [key, old] {
        let mut setup = Setup::new(&[&pki().ec]);
        setup.files.pop();
        setup.file("0.key", key);
        let error = setup.try_acceptor().unwrap_err();
        assert!(error.text.contains("0.key: the key is encrypted"), "{error}");
        setup.settings.certificates[0].passphrase = Some(Passphrase("wrong".into()));
        let error = setup.try_acceptor().unwrap_err();
        assert!(error.text.contains("0.key: error:"), "{error}");
        assert!(!error.text.contains("wrong horse"));
        setup.settings.certificates[0].passphrase = Some(Passphrase(String::new()));
        assert!(setup.try_acceptor().is_err());
        setup.settings.certificates[0].passphrase = Some(Passphrase("correct horse".into()));
        let acceptor = setup.acceptor();
        Pair::server(&acceptor, BOTH, &client(|_| ()), "").established().talk(&[1]);
    }
    // A passphrase that is not needed does no harm.
    let mut setup = Setup::new(&[&pki().ec]);
    setup.settings.certificates[0].passphrase = Some(Passphrase("unused".into()));
    setup.acceptor();
}

#[test]
fn an_expired_certificate_is_found_and_left_to_the_clients() {
    let expired = pki().authority.sign_expired(&["a.example"]);
    let setup = Setup::new(&[&expired]);
    let settings = Relay { tls: setup.settings.clone(), ..Relay::default() };
    let findings =
        validity::examine(&settings, &super::material(&setup.files), Ends::Both).unwrap();
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    assert!(finding.text.contains("0.pem: the certificate has expired"), "{finding:?}");
    assert_eq!(finding.subject, Subject::DefaultCertificate);
    let acceptor = setup.acceptor();
    let trusting = client(|builder| builder.set_verify(SslVerifyMode::NONE));
    Pair::server(&acceptor, BOTH, &trusting, "").established().talk(&[1]);
    let careful = Pair::server(&acceptor, BOTH, &client(|_| ()), "").shake();
    assert!(careful.alert.is_some());
    let error = careful.error.unwrap();
    assert!(error.contains("expired"), "{error}");
}

#[test]
fn a_certificate_without_its_key_is_refused() {
    for (key, call) in [
        (pki().rsa.key.private_key_to_pem_pkcs8().unwrap(), "SSL_CTX_use_PrivateKey_file"),
        (pki().client.key.private_key_to_pem_pkcs8().unwrap(), "SSL_CTX_use_PrivateKey_file"),
        (b"rubbish".to_vec(), "SSL_CTX_use_PrivateKey_file"),
        (Vec::new(), "SSL_CTX_use_PrivateKey_file"),
    ] {
        let mut setup = Setup::new(&[&pki().ec]);
        setup.files.pop();
        setup.file("0.key", key);
        let error = setup.try_acceptor().unwrap_err();
        assert!(error.text.starts_with(call), "{error}");
    }
    let mut setup = Setup::new(&[&pki().ec]);
    setup.files.remove(0);
    let error = setup.try_acceptor().unwrap_err();
    assert!(error.text.starts_with("SSL_CTX_use_certificate_chain_file: 0.pem: "), "{error}");
    assert!(Setup::new(&[]).try_acceptor().unwrap_err().configuration);
    for change in [
        |tls: &mut Tls| tls.ciphers = Some("NONE-SUCH".into()),
        |tls: &mut Tls| tls.cipher_suites = Some("NONE-SUCH".into()),
        |tls: &mut Tls| tls.groups = Some("NONE-SUCH".into()),
    ] {
        let error = Setup::new(&[&pki().ec]).with(change).try_acceptor().unwrap_err();
        assert!(error.configuration && error.text.contains("NONE-SUCH"), "{error}");
    }
}

/// Each certificate is sent with its own chain, whatever its kind of key.
#[test]
fn chains_are_sent_with_their_certificates() {
    let [middle, other] = ["middle", "other"].map(Identity::authority);
    let ec = middle.sign(&["a.example"], pki::ec_key());
    let rsa = other.sign(&["a.example"], pki::rsa_key());
    let mut setup = Setup::new(&[&ec, &rsa]);
    for (index, chain) in [(0, [&ec, &middle]), (1, [&rsa, &other])] {
        let chain = chain.map(|identity| &identity.certificate);
        let path = setup.file(&format!("chain{index}.pem"), pem(&chain));
        setup.settings.certificates[index].chain = Some(path);
    }
    let acceptor = setup.acceptor();
    for (tls, suite, expected) in [
        (SslVersion::TLS1_2, "ECDHE-ECDSA-AES128-GCM-SHA256", "middle"),
        (SslVersion::TLS1_2, "ECDHE-RSA-AES128-GCM-SHA256", "other"),
    ] {
        let client = client(|builder| {
            version(builder, tls);
            builder.set_cipher_list(suite).unwrap();
            builder.set_verify(SslVerifyMode::NONE);
        });
        let mut pair = Pair::server(&acceptor, BOTH, &client, "a.example").established();
        let chain = pair.ssl().peer_cert_chain().unwrap();
        assert_eq!(chain.len(), 2);
        let issuer = library::name_text(chain[1].subject_name());
        assert!(issuer.contains(expected), "{issuer}");
        pair.talk(&[1]);
    }
}

/// A trusted authority need not be a root: clients of its root's other authorities are not
/// admitted, and only its own list is needed.
#[test]
fn an_intermediate_authority_is_trusted_by_itself() {
    let root = Identity::authority("root");
    let (middle, other) = (root.sign_authority("middle"), root.sign_authority("other"));
    let good = middle.sign(&["client"], pki::ec_key());
    let revoked = middle.sign(&["client"], pki::ec_key());
    let unknown = other.sign(&["client"], pki::ec_key());
    let list = revocations(&middle, &[&revoked]);
    let admitted = |lists: &[Vec<u8>], shown: &Identity| {
        let mut setup = Setup::new(&[&pki().ec]).verifying(Verify::Required, &middle);
        for (index, list) in lists.iter().enumerate() {
            let path = setup.file(&format!("{index}.crl"), list.clone());
            setup.settings.authorities.revoked.push(path);
        }
        let client = client(|builder| show(builder, shown));
        let pair = Pair::server(&setup.acceptor(), BOTH, &client, "a.example").shake();
        pair.error.is_none()
    };
    assert!(admitted(&[], &good) && admitted(&[], &revoked) && !admitted(&[], &unknown));
    let lists = [list];
    assert!(admitted(&lists, &good) && !admitted(&lists, &revoked) && !admitted(&lists, &unknown));
    // Another authority's list does not replace the one that is needed.
    let lists = [revocations(&other, &[])];
    assert!(!admitted(&lists, &good));
}

/// Asks a stream all that it can answer, before and after its handshake.
#[test]
fn a_stream_says_how_far_it_is() {
    let acceptor = Setup::new(&[&pki().ec]).acceptor();
    let client = client(|_| ());
    let mut pair = Pair::server(&acceptor, BOTH, &client, "");
    assert!(pair.ours.is_untouched() && pair.ours.is_handshaking());
    pair.feed(&[]);
    assert!(pair.ours.is_untouched());
    pair.feed(&[22]);
    assert!(!pair.ours.is_untouched());
    let mut out = Buffer::default();
    pair.ours.close(&mut out);
    assert!(out.is_empty() && pair.ours.held() == 0 && !pair.ours.has_unread());
    let mut pair = Pair::server(&acceptor, BOTH, &client, "").established();
    assert_eq!(pair.peer.get_shutdown(), ShutdownState::empty());
    pair.write(b"");
    pair.talk(&[0, 1]);
}

/// What an unverified certificate lacks is not reported as the reason for a later failure.
#[test]
fn later_errors_of_a_remote_that_is_not_verified_are_told_as_they_are() {
    for choice in [CHOICES[0], CHOICES[3]] {
        let own = Identity::own(&["a.example"]);
        let server = server(choice, |builder| show(builder, &own));
        let connector = remote(|settings| {
            settings.verify = false;
            settings.authorities.file = None;
        });
        let mut pair = Pair::client(&connector, &server).established();
        pair.talk(&[1]);
        pair.peer.write_all(b"data").unwrap();
        let mut wire = pair.wire();
        let last = wire.len() - 1;
        wire[last] ^= 1;
        pair.feed_all(&wire);
        let error = pair.error.expect("an error");
        assert!(error.contains("bad record"), "{error}");
        assert!(!error.contains("self-signed"), "{error}");
    }
}

/// A directory with links by hash has every certificate twice.
#[test]
fn names_of_client_authorities_are_sent_once() {
    let (first, second) = (&pki().authority, Identity::authority("second"));
    let own = Identity::own(&["a.example"]);
    let mut setup = Setup::new(&[&own]).verifying(Verify::Optional, first);
    setup.files.pop();
    let all = [&first.certificate, &second.certificate, &first.certificate, &second.certificate];
    setup.file("ca.pem", pem(&all));
    let acceptor = setup.acceptor();
    let client = client(|builder| {
        version(builder, SslVersion::TLS1_2);
        builder.set_verify(SslVerifyMode::NONE);
    });
    let pair = Pair::server(&acceptor, BOTH, &client, "").established();
    for authority in [first, &second] {
        let name = authority.certificate.subject_name().to_der().unwrap();
        let flight = pair.flights.concat();
        let count = flight.windows(name.len()).filter(|part| *part == name).count();
        assert_eq!(count, 1);
    }
}

#[test]
fn names_of_client_authorities_fit_into_a_handshake() {
    let long = "x".repeat(50);
    let many: Vec<Identity> =
        (0..750).map(|number| Identity::authority(&format!("{long} {number}"))).collect();
    let mut setup = Setup::new(&[&pki().ec]).verifying(Verify::Optional, &pki().authority);
    setup.files.pop();
    let all: Vec<&X509> = many.iter().map(|one| &one.certificate).collect();
    setup.file("ca.pem", pem(&all));
    let error = setup.try_acceptor().unwrap_err();
    assert!(error.text.contains("ca.pem"), "{error}");
    assert!(error.text.contains("750 authorities") && error.text.contains("65"), "{error}");
    // As many as fit are sent, in both versions.
    setup.files.pop();
    setup.file("ca.pem", pem(&all[..600]));
    let acceptor = setup.acceptor();
    for tls in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let client = client(|builder| version(builder, tls));
        Pair::server(&acceptor, BOTH, &client, "").established().talk(&[1]);
    }
}

/// Messages about files that cannot be used say what to do about them.
#[test]
fn files_that_cannot_be_used_are_told_apart() {
    let setup_with = |chain: Vec<u8>, key: Vec<u8>| {
        let mut setup = Setup::new(&[&pki().ec]);
        setup.files.clear();
        setup.file("0.pem", chain);
        setup.file("0.key", key);
        setup
    };
    let error =
        |chain: Vec<u8>, key: Vec<u8>| setup_with(chain, key).try_acceptor().unwrap_err().text;
    let one = &pki().ec;
    let (leaf, issuer) = (&one.certificate, &pki().authority.certificate);
    let key = one.key.private_key_to_pem_pkcs8().unwrap();
    let text = error(leaf.to_der().unwrap(), key.clone());
    assert!(text.contains("0.pem") && text.contains("inform DER"), "{text}");
    let text = error(pem(&[leaf]), one.key.private_key_to_der().unwrap());
    assert!(text.contains("0.key") && text.contains("inform DER"), "{text}");
    let text = error(pem(&[issuer, leaf]), key.clone());
    assert!(text.contains("mismatch") && text.contains("must be the first"), "{text}");
    assert!(text.contains("CN=a.example"), "{text}");
    let text = error(pem(&[leaf]), pki().client.key.private_key_to_pem_pkcs8().unwrap());
    assert!(text.contains("mismatch") && !text.contains("first"), "{text}");
    assert!(error(Vec::new(), key).contains("no start line"));
    // A curve that only other protocols use.
    let group = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::SECP256K1).unwrap();
    let strange = openssl::ec::EcKey::generate(&group).unwrap();
    let strange = openssl::pkey::PKey::from_ec_key(strange).unwrap();
    let strange = pki().authority.sign(&["a.example"], strange);
    let key = strange.key.private_key_to_pem_pkcs8().unwrap();
    let text = error(pem(&[&strange.certificate]), key);
    assert!(text.contains("secp256k1"), "{text}");
}

#[test]
fn certificates_may_come_as_pkcs_12() {
    let (one, issuer) = (&pki().ec, &pki().authority.certificate);
    let mut builder = openssl::pkcs12::Pkcs12::builder();
    let mut chain = openssl::stack::Stack::new().unwrap();
    chain.push(issuer.clone()).unwrap();
    builder.name("a").pkey(&one.key).cert(&one.certificate).ca(chain);
    let file = builder.build2("secret").unwrap().to_der().unwrap();
    let mut setup = Setup::new(&[one]);
    setup.files.clear();
    setup.file("0.pem", file);
    setup.settings.certificates[0].key = None;
    let error = setup.try_acceptor().unwrap_err();
    assert!(error.text.contains("mac verify failure"), "{error}");
    setup.settings.certificates[0].passphrase = Some(Passphrase("secret".into()));
    let client = client(|_| ());
    let mut pair = Pair::server(&setup.acceptor(), BOTH, &client, "a.example").established();
    assert_eq!(pair.ssl().peer_cert_chain().unwrap().len(), 2);
    pair.talk(&[1]);
}

#[test]
fn a_refused_certificate_is_named_and_so_is_a_missing_list() {
    let (authority, other) = (&pki().authority, Identity::authority("other"));
    let foreign = other.sign(&["joe"], pki::ec_key());
    let mut setup = Setup::new(&[&pki().ec]).verifying(Verify::Required, authority);
    let client = client(|builder| show(builder, &foreign));
    let (error, _) = Pair::server(&setup.acceptor(), BOTH, &client, "").refused();
    assert!(error.contains("CN=joe") && error.contains("issued by CN=other"), "{error}");
    // Another authority's list does not count for this authority.
    let path = setup.file("crl.pem", revocations(&other, &[]));
    setup.settings.authorities.revoked.push(path);
    let client = self::client(|builder| show(builder, &pki().client));
    let (error, _) = Pair::server(&setup.acceptor(), BOTH, &client, "").refused();
    assert!(error.contains("CN=client"), "{error}");
    assert!(error.contains("there is no list of CN=authority"), "{error}");
}

#[test]
fn certificates_are_checked_by_subject_name_and_key() {
    let good = &pki().client;
    let other = pki().authority.sign(&["other", "other.example", "127.0.0.9"], pki::ec_key());
    let spki = |one: &Identity| {
        let key = one.key.public_key_to_der().unwrap();
        openssl::sha::sha256(&key)
    };
    let cn = |name: &str| Check::Subject("CN".into(), name.into());
    for (checks, pass) in [
        (vec![cn("client")], true),
        (vec![cn("clien")], false),
        (vec![cn("other")], false),
        (vec![cn("other"), cn("client")], true),
        (vec![Check::Subject("o".into(), "tcprelay tests".into())], true),
        (vec![Check::Subject("OU".into(), "tcprelay tests".into())], false),
        (vec![Check::San("CLIENT".into())], true),
        (vec![Check::San("127.0.0.9".into())], false),
        (vec![Check::Spki(spki(good))], true),
        (vec![Check::Spki(spki(&other))], false),
    ] {
        let setup = Setup::new(&[&pki().ec]).verifying(Verify::Required, &pki().authority);
        let acceptor = setup.with(|tls| tls.checks = checks.clone()).acceptor();
        let client = client(|builder| show(builder, good));
        let pair = Pair::server(&acceptor, BOTH, &client, "");
        if pass {
            pair.established().talk(&[1]);
        } else {
            let (error, alert) = pair.refused();
            assert!(error.contains("CN=client"), "{error}");
            assert_eq!(alert, got(alert::HANDSHAKE_FAILURE));
        }
    }
    // For servers as well; one matching check is enough.
    let server = server(CHOICES[0], |builder| show(builder, &pki().ec));
    for (checks, pass) in [
        (vec![Check::Spki(spki(&pki().ec))], true),
        (vec![Check::San("a.example".into()), cn("x")], true),
        (vec![Check::San("b.example".into())], false),
    ] {
        let connector = remote(|settings| settings.checks = checks.clone());
        let pair = Pair::client(&connector, &server);
        match pass {
            true => pair.established().talk(&[1]),
            false => assert!(pair.shake().error.unwrap().contains("CN=a.example")),
        }
    }
    // Without verification nobody would check.
    let setup = Setup::new(&[&pki().ec]).with(|tls| tls.checks = vec![cn("client")]);
    assert!(setup.try_acceptor().unwrap_err().configuration);
}

#[test]
fn remotes_are_offered_what_is_configured() {
    let names = |builder: &mut SslContextBuilder| {
        builder.set_alpn_select_callback(|_, offered| {
            openssl::ssl::select_next_proto(b"\x08http/1.1", offered)
                .ok_or(openssl::ssl::AlpnError::ALERT_FATAL)
        });
    };
    let server = server(CHOICES[0], |builder| {
        names(builder);
        builder.set_groups_list("P-384").unwrap();
    });
    let connector = remote(|settings| {
        settings.alpn = vec!["h2".into(), "http/1.1".into()];
        settings.groups = Some("P-384".into());
        settings.versions = Some((3, 4));
    });
    let mut pair = Pair::client(&connector, &server).established();
    assert_eq!(pair.ours.summary().unwrap().protocol.as_deref(), Some("http/1.1"));
    pair.talk(&[1]);
    for settings in [
        remote(|settings| settings.groups = Some("P-256".into())),
        remote(|settings| settings.versions = Some((3, 3))),
    ] {
        assert!(Pair::client(&settings, &server).shake().error.is_some());
    }
}

/// A certificate that says where to find its issuer's, as those of public authorities do.
#[test]
fn a_missing_intermediate_is_warned_about() {
    let identity = &pki().ec;
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_subject_name(identity.certificate.subject_name()).unwrap();
    builder.set_issuer_name(pki().authority.certificate.subject_name()).unwrap();
    builder.set_pubkey(&identity.key).unwrap();
    builder.set_not_before(identity.certificate.not_before()).unwrap();
    builder.set_not_after(identity.certificate.not_after()).unwrap();
    // caIssuers;URI:http://a/ (RFC 5280 section 4.2.2.1).
    let mut access = vec![0x30, 0x17, 0x30, 0x15, 6, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, 2, 0x86, 9];
    access.extend(b"http://a/");
    let content = openssl::asn1::Asn1OctetString::new_from_bytes(&access).unwrap();
    let object = openssl::asn1::Asn1Object::from_str("1.3.6.1.5.5.7.1.1").unwrap();
    let extension = openssl::x509::X509Extension::new_from_der(&object, false, &content).unwrap();
    builder.append_extension(extension).unwrap();
    builder.sign(&pki().authority.key, MessageDigest::sha256()).unwrap();
    let certificate = builder.build();
    for (chain, warned) in [
        (pem(&[&certificate]), true),
        (pem(&[&certificate, &pki().authority.certificate]), false),
        (pem(&[&identity.certificate]), false),
    ] {
        let mut setup = Setup::new(&[identity]);
        setup.files[0].1 = chain;
        let settings = Relay { tls: setup.settings.clone(), ..<_>::default() };
        let findings = validity::examine(&settings, &material(&setup.files), Ends::Both).unwrap();
        let missing = |text: &str| text.contains("is missing behind that of CN=a.example");
        assert_eq!(findings.iter().any(|one| missing(&one.text)), warned, "{findings:?}");
    }
}
