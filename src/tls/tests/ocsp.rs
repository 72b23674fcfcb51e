//! OCSP: whom to ask, which answers are believed, and until when they are stapled.

use super::pair::Pair;
use super::*;
use crate::config::tls::Ocsp;
use crate::os::{self, calendar};
use crate::tls::ocsp::{inquiries, Answer, Inquiry, Standing};
use openssl::sign::Signer;

/// A value in DER.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = (content.len() as u32).to_be_bytes();
    let mut data = vec![tag];
    match content.len() {
        0..=127 => data.push(length[3]),
        128..=255 => data.extend([0x81, length[3]]),
        _ => data.extend([0x82, length[2], length[3]]),
    }
    data.extend(content);
    data
}

/// The content of a value in DER.
fn inside(data: &[u8]) -> &[u8] {
    match data[1] {
        0x81 => &data[3..],
        0x82 => &data[4..],
        _ => &data[2..],
    }
}

fn time(seconds: u64) -> Vec<u8> {
    let time = calendar::universal_time(seconds as i64);
    let text = format!("{}{}Z", time.day_text(), time.clock_text());
    der(0x18, &[text.replace(['-', ':'], "").as_bytes()])
}

const GOOD: &[u8] = &[0x80, 0];
const UNKNOWN: &[u8] = &[0x82, 0];

/// A response about the certificate of an inquiry, by this signer.
fn response(
    about: &Inquiry,
    says: &[u8],
    since: u64,
    until: Option<u64>,
    by: &Identity,
) -> Vec<u8> {
    let question = about.question().unwrap();
    // The request, what is to be signed of it, the list, its first entry.
    let id = inside(inside(inside(inside(&question))));
    let until = until.map_or(Vec::new(), |until| der(0xa0, &[&time(until)]));
    let single = der(0x30, &[id, says, &time(since), &until]);
    let name = by.certificate.subject_name().to_der().unwrap();
    let data = der(0x30, &[&der(0xa1, &[&name]), &time(since), &der(0x30, &[&single])]);
    let mut signer = Signer::new(MessageDigest::sha256(), &by.key).unwrap();
    let signature = signer.sign_oneshot_to_vec(&data).unwrap();
    let ecdsa = der(0x30, &[&[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]]);
    let basic = der(0x30, &[&data, &ecdsa, &der(3, &[&[0], &signature])]);
    let kind = [6, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
    let bytes = der(0x30, &[&kind, &der(4, &[&basic])]);
    der(0x30, &[&[0x0a, 1, 0], &der(0xa0, &[&bytes])])
}

/// Settings with a certificate that names this responder.
fn fetching(url: &str) -> Setup {
    let url = format!("OCSP;URI:{url}");
    let own = pki().authority.sign_with(&["a.example"], &[("authorityInfoAccess", &url)]);
    let mut setup = Setup::new(&[&own]).with(|tls| tls.ocsp = Ocsp::Fetch);
    setup.files[0].1.extend(pem(&[&pki().authority.certificate]));
    setup
}

fn inquiry(url: &str) -> Option<Inquiry> {
    let setup = fetching(url);
    inquiries(&setup.settings, &material(&setup.files)).pop()
}

#[test]
fn a_certificate_says_whom_to_ask() {
    for (url, expected) in [
        ("http://a.example", Some("http://a.example/")),
        ("HTTP://a.example:80/x", Some("http://a.example/x")),
        ("http://a.example:8080/x?y#z", Some("http://a.example:8080/x?y")),
        ("http://[::1]:81/", Some("http://[::1]:81/")),
        ("http://192.0.2.1?x", Some("http://192.0.2.1/?x")),
        ("https://a.example/", None),
        ("http://", None),
        ("http://a.example:0/", None),
        ("http://a.example:x/", None),
        ("http://user@a.example/", None),
        ("http://a.example/x y", None),
        ("http://a.example/\r\nX: y", None),
        ("http://[a.example]/", None),
        ("ldap://a.example/", None),
    ] {
        let found = inquiry(url).map(|inquiry| inquiry.responder.to_string());
        assert_eq!(found.as_deref(), expected, "{url:?}");
    }
    // Nobody knows what to ask without the issuer.
    let mut setup = fetching("http://a.example/");
    setup.files[0].1 = pem(&[&pki().ec.certificate]);
    assert!(inquiries(&setup.settings, &material(&setup.files)).is_empty());
}

#[test]
fn answers_are_judged() {
    let inquiry = inquiry("http://a.example/").expect("an inquiry");
    let authority = &pki().authority;
    let (since, until) = (1_767_225_600, 1_767_312_000);
    let revoked = der(0xa1, &[&time(since)]);
    let make = |says: &[u8]| response(&inquiry, says, since, Some(until), authority);
    let good = make(GOOD);
    let answer = |standing| Ok(Answer { standing, since, until });
    assert_eq!(inquiry.judge(&good, since), answer(Standing::Good));
    assert_eq!(inquiry.judge(&good, until - 1), answer(Standing::Good));
    assert_eq!(inquiry.judge(&make(&revoked), since), answer(Standing::Revoked));
    let stranger = Identity::authority("authority");
    let endless = response(&inquiry, GOOD, since, None, authority);
    let senseless = response(&inquiry, GOOD, until, Some(since), authority);
    let other = self::inquiry("http://a.example/").expect("another inquiry");
    let about_another = response(&other, GOOD, since, Some(until), authority);
    // A certificate of the authority has no mandate of its own.
    let by_server = response(&inquiry, GOOD, since, Some(until), &pki().ec);
    let by_stranger = response(&inquiry, GOOD, since, Some(until), &stranger);
    for (data, now, expected) in [
        (good.clone(), until, "it has expired"),
        (good.clone(), since - 301, "it is of the future"),
        (make(UNKNOWN), since, "the responder does not know the certificate"),
        (endless, since, "it does not say until when it counts"),
        (senseless, since, "its times make no sense"),
        (about_another, since, "it is about other certificates"),
        (by_server, since, "it cannot be verified"),
        (by_stranger, since, "it cannot be verified"),
        (vec![0x30, 3, 0x0a, 1, 3], since, "the responder says: try later"),
        ([&good[..], b"x"].concat(), since, "it is no OCSP response alone"),
        (b"garbage".to_vec(), since, "it is no OCSP response"),
        (Vec::new(), since, "it is no OCSP response"),
    ] {
        let judged = inquiry.judge(&data, now);
        let matches = judged.as_ref().is_err_and(|text| text.starts_with(expected));
        assert!(matches, "{judged:?} is not: {expected}");
    }
    // Whatever is changed, it is refused.
    for at in 0..good.len() {
        let mut changed = good.clone();
        changed[at] ^= 1;
        assert!(inquiry.judge(&changed, since).is_err(), "at {at}");
    }
}

#[test]
fn a_response_is_stapled_until_shortly_before_its_end() {
    let until = |since, until| Answer { standing: Standing::Good, since, until }.stapled_until();
    assert_eq!((until(0, 86_400), until(0, 480), until(0, 80)), (86_340, 420, 70));
    let (setup, now) = (fetching("http://a.example/"), os::wall_clock());
    let acceptor = setup.acceptor();
    let inquiry = acceptor.staples().inquiries().pop().expect("an inquiry");
    let client = client(|_| ());
    let stapled = || {
        let pair = Pair::server_with(&acceptor, BOTH, &client, "a.example", |ssl| {
            ssl.set_status_type(StatusType::OCSP).unwrap();
        });
        pair.established().ssl().ocsp_status().map(<[u8]>::to_vec)
    };
    assert_eq!(stapled(), None);
    let fresh = response(&inquiry, GOOD, now - 100, Some(now + 10_000), &pki().authority);
    let renew = |edition: u64, response: &[u8]| {
        acceptor.staples().renew(|certificate, known| {
            assert_eq!(*certificate, inquiry.certificate);
            (edition != known).then(|| (edition, response.to_vec()))
        });
    };
    renew(2, &fresh);
    assert_eq!(stapled().as_ref(), Some(&fresh));
    // The monitor is not believed, and what was there stays.
    renew(4, b"nonsense");
    assert_eq!(stapled().as_ref(), Some(&fresh));
    // This one is still valid, but in its last minute.
    let old = response(&inquiry, GOOD, now - 10_000, Some(now + 30), &pki().authority);
    renew(6, &old);
    assert_eq!(stapled(), None);
}
