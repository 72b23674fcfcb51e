//! A session whose other side has the keys and breaks every rule: records of any type, length and
//! padding, modified in transit, cut anywhere. The output must be a prefix of what was sent, and
//! modified records are never accepted. Then arbitrary bytes as messages from a broker to a worker.

#![no_main]

#[allow(dead_code)]
#[path = "../../tests/common/sealing.rs"]
mod sealing;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use mavis::channel::protocol::add_secrets;
use mavis::snapshot::material::Material;
use mavis::tls::records::{Numbers, Records, Secrets, Suite, Version};
use mavis::tls::tickets::{Ratchet, ENCODED};
use mavis::tls::Buffer;
use sealing::Direction;

/// Each kind of record protection, in both versions.
const SUITES: [(Version, [u8; 2]); 6] = [
    (Version::Tls13, [0x13, 1]),
    (Version::Tls13, [0x13, 2]),
    (Version::Tls13, [0x13, 3]),
    (Version::Tls12, [0xc0, 0x2f]),
    (Version::Tls12, [0xc0, 0x30]),
    (Version::Tls12, [0xcc, 0xa8]),
];

/// The length field of a record has no room for much more.
const MOST: usize = 65_000;

#[derive(Arbitrary, Debug)]
enum Step {
    /// Data that must arrive.
    Data(Vec<u8>, u8),
    /// A lot of data.
    Long(u8, u16),
    /// A KeyUpdate, with or without a request for another.
    Update(bool),
    /// A correctly sealed record of any type and content.
    Record(u8, Vec<u8>, u16),
    /// A correctly sealed record of any length.
    Huge(u8, u16),
    /// A correctly sealed record whose plaintext lacks the inner type.
    Inner(Vec<u8>),
    /// Raw bytes on the wire.
    Raw(Vec<u8>),
    /// Flips a bit of what the next step sends.
    Flip(u16, u8),
    /// Omits a record.
    Skip,
    /// Sends a record twice.
    Twice(Vec<u8>),
    /// The side under test sends.
    Write(u16),
    /// Splits the wire here.
    Cut(u16),
}

#[derive(Arbitrary, Debug)]
struct Input {
    suite: u8,
    server: bool,
    steps: Vec<Step>,
    /// Where to split the wire in addition.
    pieces: Vec<u16>,
}

/// The side under test, and what the test knows about it.
struct Side {
    records: Records,
    /// Opens the records that it sends.
    opener: Direction,
    held: Vec<u8>,
    plain: Buffer,
    ended: bool,
}

impl Side {
    fn feed(&mut self, piece: &[u8]) {
        self.held.extend_from_slice(piece);
        let before = self.plain.filled().len();
        let mut reply = Buffer::default();
        match self.records.open(&self.held, &mut self.plain, &mut reply) {
            Ok(taken) => {
                assert!(!self.ended || self.plain.filled().len() == before);
                assert!(taken.consumed <= self.held.len());
                self.held.drain(..taken.consumed);
                // A whole record must never be left unprocessed.
                if let Some(&[_, _, _, high, low]) = self.held.first_chunk::<5>() {
                    assert!(self.held.len() < 5 + usize::from(u16::from_be_bytes([high, low])));
                }
                self.ended |= taken.closed;
                self.check(reply.filled().to_vec(), None);
            }
            Err(failure) => {
                let told = matches!(failure, mavis::tls::records::Failure::Alert(_))
                    || failure.to_string() == "the session has failed before";
                self.check(reply.filled().to_vec(), Some(!told));
                self.ended = true;
                let after = self.plain.filled().len();
                let mut more = Buffer::default();
                assert!(self.records.open(&[], &mut self.plain, &mut more).is_err());
                assert!(more.is_empty() && self.plain.filled().len() == after);
            }
        }
    }

    /// Opens everything that was sent, in order; a failure must be reported last, by an alert.
    fn check(&mut self, mut wire: Vec<u8>, alert: Option<bool>) -> usize {
        let (mut last, mut data) = (None, 0);
        while let Some((kind, content)) = self.opener.open(&mut wire) {
            match kind {
                22 => {
                    assert_eq!(content, [24, 0, 0, 1, 0]);
                    self.opener.update();
                }
                21 => assert_eq!(content.len(), 2),
                23 => data += content.len(),
                _ => panic!("a record of type {kind}"),
            }
            last = Some((kind, content));
        }
        assert!(wire.is_empty());
        if alert == Some(true) {
            let (kind, content) = last.expect("an alert");
            assert_eq!((kind, content[0]), (21, 2));
        }
        data
    }
}

fn session(input: &Input) {
    let (version, number) = SUITES[usize::from(input.suite) % SUITES.len()];
    let suite = Suite::of(version, number).expect("a suite of ours");
    let (a, b) = ([7u8; 48], [9u8; 48]);
    let (mut theirs, opener, secrets, number_of_next);
    let tls13 = version == Version::Tls13;
    let randoms = [&b[..32], &a[..32]];
    if tls13 {
        let length = suite.secret_length();
        theirs = Direction::tls13(number, &b[..length]);
        opener = Direction::tls13(number, &a[..length]);
        secrets = Secrets::Traffic { ours: a[..length].into(), theirs: b[..length].into() };
        number_of_next = 0;
    } else {
        let [client, server] = Direction::tls12(number, &a, &b[..32], &a[..32]);
        (theirs, opener) = if input.server { (client, server) } else { (server, client) };
        secrets = Secrets::Master { secret: &a, randoms, server: input.server };
        number_of_next = 1;
    }
    let numbers = Numbers { sent: number_of_next, received: number_of_next };
    let records = Records::new(suite, &secrets, numbers).expect("keys");
    let plain = Buffer::default();
    let mut side = Side { records, opener, held: Vec::new(), plain, ended: false };
    // All data that was sealed, and how much of it must have arrived.
    let (mut sent, mut wire, mut flip) = (Vec::new(), Vec::new(), None);
    let (mut honest, mut certain, mut quiet) = (true, 0, 0u32);
    for step in input.steps.iter().take(64) {
        let from = wire.len();
        match step {
            Step::Data(data, padding) => {
                // Cut to what fits into a record with its padding.
                let data = &data[..data.len().min(16_000)];
                wire.extend(theirs.seal(23, data, usize::from(*padding)));
                sent.extend_from_slice(data);
                quiet = if data.is_empty() { quiet + 1 } else { 0 };
                honest &= quiet <= 32;
            }
            Step::Long(byte, length) => {
                let data = vec![*byte; usize::from(*length) % 16385];
                wire.extend(theirs.seal(23, &data, 0));
                quiet = if data.is_empty() { quiet + 1 } else { 0 };
                honest &= quiet <= 32;
                sent.extend_from_slice(&data);
            }
            Step::Update(request) => {
                wire.extend(theirs.seal(22, &[24, 0, 0, 1, u8::from(*request)], 0));
                quiet += 1;
                honest &= tls13 && quiet <= 32;
                if tls13 {
                    theirs.update();
                }
            }
            Step::Record(kind, content, padding) => {
                let content = &content[..content.len().min(MOST)];
                wire.extend(theirs.seal(*kind, content, usize::from(*padding) % 512));
                if *kind == 23 && content.len() <= 16_384 {
                    sent.extend_from_slice(content);
                }
                honest = false;
            }
            Step::Huge(kind, length) => {
                let content = vec![1; usize::from(*length).min(MOST)];
                wire.extend(theirs.seal(*kind, &content, 0));
                if *kind == 23 && content.len() <= 16_384 {
                    sent.extend_from_slice(&content);
                }
                honest = false;
            }
            Step::Inner(content) => {
                let content = &content[..content.len().min(16_384)];
                wire.extend(theirs.seal_inner(23, content));
                let at = content.iter().rposition(|&byte| byte != 0);
                match at {
                    _ if !tls13 => sent.extend_from_slice(content),
                    Some(at) if content[at] == 23 => sent.extend_from_slice(&content[..at]),
                    _ => {}
                }
                honest = false;
            }
            Step::Raw(bytes) => {
                wire.extend_from_slice(bytes);
                honest = false;
            }
            Step::Flip(at, bit) => flip = Some((usize::from(*at), bit % 8)),
            Step::Skip => {
                theirs.seal(23, b"lost", 0);
                honest = false;
            }
            Step::Twice(data) => {
                let data = &data[..data.len().min(16_384)];
                let record = theirs.seal(23, data, 0);
                wire.extend_from_slice(&record);
                wire.extend_from_slice(&record);
                sent.extend_from_slice(data);
                honest = false;
            }
            Step::Write(length) => {
                let mut out = Buffer::default();
                let data = vec![3; usize::from(*length)];
                side.records.seal(&data, &mut out).expect("to encrypt");
                assert_eq!(side.check(out.filled().to_vec(), None), data.len());
            }
            Step::Cut(at) => {
                let at = usize::from(*at).min(wire.len());
                let piece: Vec<u8> = wire.drain(..at).collect();
                side.feed(&piece);
            }
        }
        if wire.len() > from {
            if let Some((at, bit)) = flip.take() {
                let length = wire.len() - from;
                wire[from + at % length] ^= 1 << bit;
                // Of the version in a header only the first byte is significant.
                honest = false;
            }
        }
        if honest {
            certain = sent.len();
        }
    }
    let mut rest = &wire[..];
    for piece in &input.pieces {
        let (first, more) = rest.split_at(rest.len().min(usize::from(*piece)));
        side.feed(first);
        rest = more;
    }
    side.feed(rest);
    let arrived = side.plain.filled();
    assert!(sent.starts_with(arrived), "{} of {} bytes", arrived.len(), sent.len());
    assert!(arrived.len() >= certain, "{} of {certain} bytes", arrived.len());
    let mut out = Buffer::default();
    side.records.close(&mut out);
    side.check(out.filled().to_vec(), None);
}

/// Bytes that nobody has sealed must never come out as data.
fn rubbish(data: &[u8]) {
    for (version, number) in SUITES {
        let suite = Suite::of(version, number).expect("a suite of ours");
        let tls13 = version == Version::Tls13;
        let secrets = match tls13 {
            true => Secrets::Traffic {
                ours: [1; 48][..suite.secret_length()].into(),
                theirs: [2; 48][..suite.secret_length()].into(),
            },
            false => {
                Secrets::Master { secret: &[3; 48], randoms: [&[4; 32], &[5; 32]], server: true }
            }
        };
        let numbers = Numbers { sent: 0, received: 0 };
        let mut records = Records::new(suite, &secrets, numbers).expect("keys");
        let (mut plain, mut reply) = (Buffer::default(), Buffer::default());
        let result = records.open(data, &mut plain, &mut reply);
        assert!(plain.is_empty());
        assert!(result.is_err() || reply.is_empty());
    }
    if let Some((material, tickets)) = Ratchet::decode_with(data) {
        let again = tickets.encode_with(&material).expect("memory");
        let (_, same) = Ratchet::decode_with(&again).expect("what was encoded");
        assert!(same == tickets && again.len() <= data.len() && again.len() >= ENCODED);
    }
    // Messages of any length, one after the other.
    let (mut received, mut rest) = (Vec::new(), data);
    while let Some((&length, tail)) = rest.split_first() {
        let (message, more) = tail.split_at(tail.len().min(usize::from(length)));
        let before = received.len();
        match add_secrets(message, &mut received) {
            Some(_) => assert_eq!(received.len(), before + message.len() - 8),
            None => assert_eq!(received.len(), before),
        }
        rest = more;
    }
}

fuzz_target!(|data: &[u8]| {
    match data.split_first() {
        Some((0, rest)) => rubbish(rest),
        Some((_, rest)) => {
            if let Ok(input) = Input::arbitrary_take_rest(arbitrary::Unstructured::new(rest)) {
                session(&input);
            }
        }
        None => {}
    }
});
