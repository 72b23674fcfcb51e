//! Feeds a client's first bytes to the TLS detector and to a server: arbitrary bytes, or a valid
//! ClientHello with some changes, split at any place.

#![no_main]

#[allow(dead_code)]
#[path = "../../tests/common/pki.rs"]
mod pki;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use mavis::config::tls::{Certificate, Tls, Verify};
use mavis::os::tls::set_ticket_keys;
use mavis::tls::server::Acceptor;
use mavis::tls::stream::Step;
use mavis::tls::detect::{first, First, NEEDED};
use mavis::snapshot::material::Material;
use mavis::tls::tickets::Ratchet;
use mavis::tls::Buffer;
use pki::Identity;
use std::path::{Path, PathBuf};

#[derive(Arbitrary, Debug)]
enum Extension {
    ServerName(Vec<u8>),
    Groups(Vec<u16>),
    Signatures(Vec<u16>),
    Versions(Vec<u16>),
    Shares(Vec<(u16, Vec<u8>)>),
    Protocols(Vec<Vec<u8>>),
    Ticket(Vec<u8>),
    Status(Vec<u8>),
    Fragments(u8),
    Modes(Vec<u8>),
    Early,
    Cookie(Vec<u8>),
    Renegotiation(Vec<u8>),
    Other(u16, Vec<u8>),
    /// TLS 1.3 tickets and their binders; this extension must be last.
    Tickets(Vec<(Vec<u8>, u32)>, Vec<Vec<u8>>),
}

#[derive(Arbitrary, Debug)]
struct Hello {
    /// A bit for each of the usual parts that is left out.
    without: u16,
    name: Vec<u8>,
    session: Vec<u8>,
    suites: Vec<u16>,
    more: Vec<Extension>,
    /// Offsets of bytes to change, and the new values.
    changes: Vec<(u16, u8)>,
    /// Where to insert bytes or, if there are none, to remove one.
    edits: Vec<(u16, Vec<u8>)>,
    /// If not 0, the message is split into records of this length.
    fragments: u16,
    behind: Vec<u8>,
}

#[derive(Arbitrary, Debug)]
struct Input {
    versions: u8,
    /// The bytes themselves, or a ClientHello.
    hello: Result<Vec<u8>, Hello>,
    pieces: Vec<u8>,
}

fn short(data: &[u8]) -> Vec<u8> {
    let data = &data[..data.len().min(255)];
    [&[data.len() as u8], data].concat()
}

fn long(data: &[u8]) -> Vec<u8> {
    let data = &data[..data.len().min(16_000)];
    [&(data.len() as u16).to_be_bytes()[..], data].concat()
}

fn numbers(list: &[u16]) -> Vec<u8> {
    list.iter().flat_map(|number| number.to_be_bytes()).collect()
}

fn extension(one: &Extension) -> Vec<u8> {
    let (number, body) = match one {
        Extension::ServerName(name) => (0, long(&[&[0], &long(name)[..]].concat())),
        Extension::Fragments(size) => (1, vec![*size]),
        Extension::Status(responders) => (5, [&[1], &long(responders)[..], &long(&[])].concat()),
        Extension::Groups(list) => (10, long(&numbers(list))),
        Extension::Signatures(list) => (13, long(&numbers(list))),
        Extension::Protocols(list) => {
            (16, long(&list.iter().flat_map(|name| short(name)).collect::<Vec<u8>>()))
        }
        Extension::Ticket(ticket) => (35, ticket.clone()),
        Extension::Tickets(identities, binders) => {
            let identity =
                |(ticket, age): &(Vec<u8>, u32)| [&long(ticket)[..], &age.to_be_bytes()].concat();
            let identities: Vec<u8> = identities.iter().flat_map(identity).collect();
            let binders: Vec<u8> = binders.iter().flat_map(|binder| short(binder)).collect();
            (41, [long(&identities), long(&binders)].concat())
        }
        Extension::Early => (42, Vec::new()),
        Extension::Versions(list) => (43, short(&numbers(list))),
        Extension::Cookie(cookie) => (44, long(cookie)),
        Extension::Modes(modes) => (45, short(modes)),
        Extension::Shares(shares) => {
            let share = |(group, key): &(u16, Vec<u8>)| [numbers(&[*group]), long(key)].concat();
            (51, long(&shares.iter().flat_map(share).collect::<Vec<u8>>()))
        }
        Extension::Renegotiation(data) => (0xff01, short(data)),
        Extension::Other(number, data) => (*number, data.clone()),
    };
    [numbers(&[number]), long(&body)].concat()
}

fn wire(hello: &Hello) -> Vec<u8> {
    let usual = [
        Extension::ServerName(if hello.name.is_empty() {
            b"a.example".to_vec()
        } else {
            hello.name.clone()
        }),
        Extension::Groups(vec![29, 23, 24]),
        Extension::Signatures(vec![0x0403, 0x0804, 0x0401]),
        Extension::Versions(vec![0x0304, 0x0303]),
        // Nearly any 32 bytes are a valid X25519 share.
        Extension::Shares(vec![(29, vec![9; 32])]),
        Extension::Protocols(vec![b"h2".to_vec(), b"http/1.1".to_vec()]),
        Extension::Status(Vec::new()),
        Extension::Modes(vec![1]),
        Extension::Ticket(Vec::new()),
        Extension::Renegotiation(Vec::new()),
        // Point formats; the extended master secret follows.
        Extension::Other(11, vec![1, 0]),
        Extension::Other(23, Vec::new()),
    ];
    let kept = usual.iter().enumerate().filter(|(at, _)| hello.without >> at & 1 == 0);
    let mut extensions: Vec<u8> = kept.flat_map(|(_, one)| extension(one)).collect();
    hello.more.iter().for_each(|one| extensions.extend(extension(one)));
    let mut suites = hello.suites.clone();
    if hello.without >> 12 & 1 == 0 {
        suites.extend([0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc030, 0xcca8, 0x00ff]);
    }
    let session = &hello.session[..hello.session.len().min(32)];
    let mut body = [&[3, 3][..], &[5; 32], &short(session), &long(&numbers(&suites))].concat();
    body.extend([1, 0]);
    body.extend(long(&extensions));
    let mut message = vec![1];
    message.extend(&(body.len() as u32).to_be_bytes()[1..]);
    message.extend(body);
    for (at, value) in &hello.changes {
        let at = usize::from(*at) % message.len();
        message[at] ^= value;
    }
    for (at, bytes) in hello.edits.iter().take(4) {
        let at = usize::from(*at) % message.len();
        match bytes.is_empty() {
            true if message.len() > 1 => drop(message.remove(at)),
            true => {}
            false => drop(message.splice(at..at, bytes.iter().copied())),
        }
    }
    let size = if hello.fragments == 0 { 16_384 } else { usize::from(hello.fragments) };
    let records = message.chunks(size.min(16_384));
    let mut wire: Vec<u8> =
        records.flat_map(|part| [&[22, 3, 1], &long(part)[..]].concat()).collect();
    wire.extend_from_slice(&hello.behind);
    wire
}

/// Files by name, held in memory only.
fn material(files: &[(&str, Vec<u8>)], tickets: &Ratchet) -> Material {
    let mut data = tickets.encode().to_vec();
    for field in files.iter().flat_map(|(name, content)| [name.as_bytes(), content]) {
        data.extend((field.len() as u32).to_be_bytes());
        data.extend_from_slice(field);
    }
    Ratchet::decode_with(&data).expect("what it takes").0
}

fn acceptor() -> Acceptor {
    let authority = Identity::authority("fuzz");
    let tickets = Ratchet::new([7; 32], 0, 1 << 40);
    set_ticket_keys(tickets.keys());
    let ocsp = b"\x30\x03\x0a\x01\x03".to_vec();
    let mut files = vec![("ca", authority.certificate.to_pem().expect("PEM")), ("ocsp", ocsp)];
    let keys = [pki::ec_key(), pki::rsa_key(), pki::ec_key()];
    let names = [&["a.example"][..], &["a.example"], &["b.example", "*.c.example"]];
    let mut certificates = Vec::new();
    for ((name, key), names) in ["1", "2", "3"].into_iter().zip(keys).zip(names) {
        let one = authority.sign(names, key);
        let key = one.key.private_key_to_pem_pkcs8().expect("PEM");
        files.push((name, [one.certificate.to_pem().expect("PEM"), key].concat()));
        certificates.push(Certificate {
            chain: Some(PathBuf::from(name)),
            ocsp: Some(PathBuf::from("ocsp")),
            ..Certificate::default()
        });
    }
    let mut settings = Tls { certificates, ..Tls::default() };
    settings.alpn = vec!["http/1.1".into(), "h2".into()];
    settings.verify = Verify::Optional;
    settings.authorities.file = Some(Path::new("ca").to_owned());
    Acceptor::new(&settings, &material(&files, &tickets)).expect("settings")
}

thread_local! {
    static ACCEPTOR: Acceptor = acceptor();
}

/// Requires whole records; returns the type of the first. An alert about a client's version carries
/// that version.
fn records(mut wire: &[u8]) -> Option<u8> {
    let kind = wire.first().copied();
    while let Some(&[kind, major, _, high, low]) = wire.first_chunk::<5>() {
        assert!((20..=23).contains(&kind) && (major == 3 || kind == 21));
        wire = wire.get(5 + usize::from(u16::from_be_bytes([high, low]))..).expect("whole records");
    }
    assert!(wire.is_empty(), "not records: {wire:x?}");
    kind
}

fuzz_target!(|input: Input| {
    let bytes = match &input.hello {
        Ok(bytes) => bytes.clone(),
        Err(hello) => wire(hello),
    };
    // The detector never changes its mind, and has decided once it has seen enough.
    let mut decided = First::Undecided;
    for length in 0..=bytes.len().min(NEEDED + 2) {
        let now = first(&bytes[..length]);
        assert!(decided == First::Undecided || decided == now);
        decided = now;
        assert!(length < NEEDED || decided != First::Undecided);
    }
    let versions = match input.versions % 4 {
        0 => 3,
        1 => 4,
        2 => 3 | 4 << 8,
        _ => u32::from(input.versions),
    };
    let Ok(mut stream) = ACCEPTOR.with(|acceptor| acceptor.accept(versions)) else {
        return;
    };
    stream.want_summary();
    let mut rest = &bytes[..];
    let mut pieces = input.pieces.iter().chain(std::iter::repeat(&255));
    let (mut out, mut answered) = (Buffer::default(), None);
    let failed = loop {
        let size = usize::from(*pieces.next().unwrap_or(&255));
        let (piece, more) =
            rest.split_at(rest.len().min(if size == 255 { usize::MAX } else { size }));
        rest = more;
        out.clear();
        let result = stream.handshake(piece, &mut out);
        answered = answered.or(records(out.filled()));
        match result {
            // The input computes no keys, so it cannot complete a handshake.
            Ok(step) => assert_eq!(step, Step::Waiting),
            Err(text) => {
                assert!(!text.is_empty());
                break true;
            }
        }
        if rest.is_empty() {
            break false;
        }
    };
    // If the library answers the input as a client, the detector must see TLS too; except for
    // records that no client sends: shorter than a message header, or of an unknown version.
    let strange =
        bytes.len() < NEEDED || bytes[0] != 22 || bytes[2] > 4 || bytes[3..5] < [0, 4][..];
    assert!(answered != Some(22) || strange || decided == First::Tls);
    let (mut plain, mut reply) = (Buffer::default(), Buffer::default());
    out.clear();
    assert_eq!(stream.is_handshaking(), !failed);
    assert!(stream.read(&[], &mut plain, &mut reply).is_err());
    assert!(stream.write(b"x", &mut out).is_err());
    stream.close(&mut out);
    assert!(plain.is_empty() && reply.is_empty() && out.is_empty());
    assert!(stream.summary().is_some_and(|summary| summary.version.is_empty()));
});
