//! Private keys in another process, which is played by this one.

use super::*;
use crate::config::relay::Relay;
use crate::os::tls::signing::{self, Digest, Request, Scheme};
use crate::tls::context::Ends;
use crate::tls::keys::set_apart;
use crate::tls::stream::Step;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Padding;
use openssl::sign::{RsaPssSaltlen, Signer};
use std::cell::RefCell;

thread_local! {
    /// The keys of the other process.
    static KEYS: RefCell<Vec<PKey<Private>>> = const { RefCell::new(Vec::new()) };
}

/// Takes the keys out of a material, and leaves what a worker gets of it.
fn public_material(settings: &Relay, mut material: Material) -> Material {
    set_apart(settings, &mut material, Ends::Both).unwrap();
    let keys = material.keys().unwrap().values();
    let keys = keys.map(|key| PKey::private_key_from_pkcs8(key).unwrap()).collect();
    KEYS.set(keys);
    Material::decode(&material.encode_public(&[]).unwrap()).unwrap()
}

fn sign(request: &Request) -> Vec<u8> {
    KEYS.with_borrow(|keys| {
        let is = |key: &&PKey<Private>| signing::name_of(key).unwrap() == request.key;
        let key = keys.iter().find(is).expect("one of the keys");
        let mut signer = match request.digest {
            Digest::None => Signer::new_without_digest(key).unwrap(),
            Digest::Sha224 => Signer::new(MessageDigest::sha224(), key).unwrap(),
            Digest::Sha256 => Signer::new(MessageDigest::sha256(), key).unwrap(),
            Digest::Sha384 => Signer::new(MessageDigest::sha384(), key).unwrap(),
            Digest::Sha512 => Signer::new(MessageDigest::sha512(), key).unwrap(),
        };
        match request.scheme {
            Scheme::Whole | Scheme::Ecdsa => {}
            Scheme::RsaPkcs1 => signer.set_rsa_padding(Padding::PKCS1).unwrap(),
            Scheme::RsaPss => {
                signer.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
                signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).unwrap();
            }
        }
        signer.sign_oneshot_to_vec(&request.message).unwrap()
    })
}

/// Signs all that handshakes wait for. Returns how many signatures that were.
pub(super) fn sign_all() -> usize {
    let requests = signing::take_new();
    for request in &requests {
        signing::answer(request.number, Ok(sign(request)));
    }
    requests.len()
}

fn acceptor(setup: &Setup) -> Acceptor {
    library::set_ticket_keys(Ratchet::new([7; 32], 0, 1000).keys());
    let settings = Relay { tls: setup.settings.clone(), ..Relay::default() };
    let material = public_material(&settings, material(&setup.files));
    Acceptor::new(&setup.settings, &material).unwrap()
}

fn kinds() -> Vec<(&'static str, PKey<Private>)> {
    let curve = |nid| {
        let group = openssl::ec::EcGroup::from_curve_name(nid).unwrap();
        PKey::from_ec_key(openssl::ec::EcKey::generate(&group).unwrap()).unwrap()
    };
    vec![
        ("rsa", pki().rsa.key.clone()),
        ("P-256", pki::ec_key()),
        ("P-384", curve(openssl::nid::Nid::SECP384R1)),
        ("P-521", curve(openssl::nid::Nid::SECP521R1)),
        ("ed25519", PKey::generate_ed25519().unwrap()),
        ("ed448", PKey::generate_ed448().unwrap()),
    ]
}

#[test]
fn keys_of_all_kinds_may_be_elsewhere() {
    for (name, key) in kinds() {
        let identity = pki().authority.sign(&["a.example"], key);
        for handled in [RecordLayer::Auto, RecordLayer::Openssl] {
            let setup = Setup::new(&[&identity]).with(|tls| tls.records = handled);
            let acceptor = acceptor(&setup);
            for wanted in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
                let client = client(|builder| version(builder, wanted));
                for pieces in [vec![], vec![3]] {
                    let mut pair = Pair::server(&acceptor, BOTH, &client, "a.example");
                    pair.pieces = pieces;
                    let mut pair = pair.established();
                    assert_eq!(pair.signatures, 1, "{name} {wanted:?}");
                    pair.talk(&[1, 50_000]);
                }
            }
        }
    }
}

#[test]
fn our_certificate_for_a_remote_may_have_its_key_elsewhere() {
    for (name, key) in kinds() {
        let identity = pki().authority.sign(&["client"], key);
        let mut setup = Setup::new(&[&identity]);
        let authority = setup.file("ca.pem", pem(&[&pki().authority.certificate]));
        let certificate = setup.settings.certificates[0].clone();
        let tls = RemoteTls {
            authorities: Authorities { file: Some(authority), ..Authorities::default() },
            verify: true,
            server_name: Some("a.example".into()),
            certificate,
            ciphers: None,
            cipher_suites: None,
            groups: Some("X25519:P-256:P-384:P-521".into()),
            versions: None,
            alpn: Vec::new(),
            checks: Vec::new(),
            records: None,
        };
        let settings = Relay { tls: setup.settings.clone(), ..Relay::default() };
        let material = public_material(&settings, material(&setup.files));
        let connector = Connector::new(&tls, RecordLayer::Auto, &material).unwrap();
        for wanted in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
            let mut server = SslContextBuilder::new(SslMethod::tls_server()).unwrap();
            server.set_certificate(&pki().ec.certificate).unwrap();
            server.set_private_key(&pki().ec.key).unwrap();
            let mut store = X509StoreBuilder::new().unwrap();
            store.add_cert(pki().authority.certificate.clone()).unwrap();
            server.set_cert_store(store.build());
            server.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
            version(&mut server, wanted);
            let mut pair = Pair::client(&connector, &server.build()).established();
            assert_eq!(pair.signatures, 1, "{name} {wanted:?}");
            assert!(pair.ssl().peer_certificate().is_some());
            pair.talk(&[1, 50_000]);
        }
    }
}

/// A ClientHello.
fn hello() -> Vec<u8> {
    let mut ssl = Ssl::new(&client(|_| ())).unwrap();
    ssl.set_connect_state();
    let mut peer = SslStream::new(ssl, Pipe::default()).unwrap();
    peer.do_handshake().unwrap_err();
    std::mem::take(&mut peer.get_mut().output)
}

fn suspended(acceptor: &Acceptor) -> (Stream, u64) {
    let mut stream = acceptor.accept(BOTH).unwrap();
    let result = stream.handshake(&hello(), &mut Buffer::default());
    match result {
        Ok(Step::Signing(number)) => (stream, number),
        other => panic!("{other:?}"),
    }
}

#[test]
fn handshakes_wait_for_their_own_signatures() {
    let acceptor = acceptor(&Setup::new(&[&pki().ec]));
    let mut waiting: Vec<_> = (0..20).map(|_| suspended(&acceptor)).collect();
    let requests = signing::take_new();
    assert_eq!(requests.len(), 20);
    // Another one goes on meanwhile.
    Pair::server(&acceptor, BOTH, &client(|_| ()), "a.example").established();
    for (index, (stream, number)) in waiting.iter_mut().enumerate() {
        signing::own(*number, index as u32);
        // Not answered yet.
        let result = stream.handshake(&[], &mut Buffer::default());
        assert_eq!(result, Ok(Step::Signing(*number)));
    }
    // In another order; every third one gets none.
    for (index, request) in requests.iter().enumerate().rev() {
        let refused = index % 3 == 0;
        let answer = if refused { Err("no more keys") } else { Ok(sign(request)) };
        assert_eq!(signing::answer(request.number, answer), Some(index as u32));
        let mut out = Buffer::default();
        let result = waiting[index].0.handshake(&[], &mut out);
        match refused {
            true => assert_eq!(result, Err("no more keys".to_owned())),
            false => assert_eq!((result, out.is_empty()), (Ok(Step::Waiting), false)),
        }
    }
    // None is answered twice.
    assert_eq!(signing::answer(requests[1].number, Ok(Vec::new())), None);
}

#[test]
fn handshakes_that_are_given_up_leave_nothing() {
    let acceptor = acceptor(&Setup::new(&[&pki().ec]));
    for _ in 0..300 {
        drop(suspended(&acceptor));
    }
    assert!(signing::take_new().is_empty() && signing::waiting(u64::MAX).is_empty());
}

#[test]
fn not_too_many_handshakes_wait() {
    let acceptor = acceptor(&Setup::new(&[&pki().ec]));
    let waiting: Vec<_> = (0..signing::MOST_WAITING).map(|_| suspended(&acceptor)).collect();
    let mut stream = acceptor.accept(BOTH).unwrap();
    let refused = stream.handshake(&hello(), &mut Buffer::default());
    assert_eq!(refused, Err("too many handshakes wait for signatures".to_owned()));
    drop(waiting);
    Pair::server(&acceptor, BOTH, &client(|_| ()), "a.example").established();
}

#[test]
fn suites_that_decrypt_are_left_out() {
    let rsa = |ciphers: &str| {
        Setup::new(&[&pki().rsa]).with(|tls| tls.ciphers = Some(ciphers.to_owned()))
    };
    let only_rsa = rsa("AES128-GCM-SHA256:AES256-GCM-SHA384");
    let settings = Relay { tls: only_rsa.settings.clone(), ..Relay::default() };
    let refused = set_apart(&settings, &mut material(&only_rsa.files), Ends::Both).unwrap_err();
    assert!(refused.configuration && refused.text.contains("tls ciphers"), "{refused}");
    let acceptor = acceptor(&rsa("AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"));
    let client = client(|builder| {
        version(builder, SslVersion::TLS1_2);
        builder.set_cipher_list("AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256").unwrap();
    });
    let pair = Pair::server(&acceptor, BOTH, &client, "a.example").established();
    let suite = pair.ssl().current_cipher().unwrap().name();
    assert_eq!(suite, "ECDHE-RSA-AES128-GCM-SHA256");
}

#[test]
fn workers_get_no_key() {
    let passphrase = "secret";
    let identity = &pki().ec;
    let mut setup = Setup::new(&[&pki().rsa]);
    // The key in the file of the certificate, and PKCS #12.
    let both = [
        pem(&[&identity.certificate]),
        identity.key.private_key_to_pem_pkcs8().unwrap(),
        pem(&[&pki().authority.certificate]),
    ];
    let both = setup.file("both.pem", both.concat());
    let mut builder = openssl::pkcs12::Pkcs12::builder();
    builder.pkey(&identity.key).cert(&identity.certificate);
    let packed = builder.build2(passphrase).unwrap().to_der().unwrap();
    let packed = setup.file("packed.p12", packed);
    for (chain, passphrase) in [(both, None), (packed, Some(Passphrase(passphrase.into())))] {
        let chain = Some(chain);
        setup.settings.certificates.push(Certificate { chain, passphrase, ..<_>::default() });
    }
    let settings = Relay { tls: setup.settings.clone(), ..Relay::default() };
    let public = public_material(&settings, material(&setup.files));
    assert!(public.is_public());
    let data = public.encode_public(&[]).unwrap();
    assert!(memchr::memmem::find(&data, b"PRIVATE").is_none());
    for key in [&identity.key, &pki().rsa.key] {
        let encoded = key.private_key_to_pkcs8().unwrap();
        let part = &encoded[encoded.len() - 30..];
        assert!(memchr::memmem::find(&data, part).is_none());
    }
    KEYS.with_borrow(|keys| assert_eq!(keys.len(), 2));
    Acceptor::new(&setup.settings, &public).unwrap();
}
