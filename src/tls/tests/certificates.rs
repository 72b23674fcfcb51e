//! Certificates, keys and names, of servers and clients.

use super::*;
use crate::config::relay::Relay;
use crate::tls::context::Ends;
use crate::tls::validity::{self, Subject};

/// The common name of the certificate that a client has received.
pub(super) fn shown(pair: &Pair) -> String {
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
    let careful = Pair::server(&acceptor, BOTH, &client(|_| ()), "").handshake();
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
        assert!(Pair::client(&settings, &server).handshake().error.is_some());
    }
}
