//! Which certificates of the other side are accepted, and what is said of those that are not.

use super::certificates::shown;
use super::*;
use crate::config::relay::Relay;
use crate::tls::context::Ends;
use crate::tls::validity;

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
                let error = pair.handshake().error.unwrap();
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
        let mut pair = Pair::client(&self::connector(choice), &server).handshake();
        // In TLS 1.3 we learn of it with the first data.
        pair.pass();
        assert!(pair.error.is_some() && pair.alert.is_some(), "{choice:?}");
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
        let pair = Pair::server(&setup.acceptor(), BOTH, &client, "a.example").handshake();
        pair.error.is_none()
    };
    assert!(admitted(&[], &good) && admitted(&[], &revoked) && !admitted(&[], &unknown));
    let lists = [list];
    assert!(admitted(&lists, &good) && !admitted(&lists, &revoked) && !admitted(&lists, &unknown));
    // Another authority's list does not replace the one that is needed.
    let lists = [revocations(&other, &[])];
    assert!(!admitted(&lists, &good));
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
            false => assert!(pair.handshake().error.unwrap().contains("CN=a.example")),
        }
    }
    // Without verification nobody would check.
    let setup = Setup::new(&[&pki().ec]).with(|tls| tls.checks = vec![cn("client")]);
    assert!(setup.try_acceptor().unwrap_err().configuration);
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
