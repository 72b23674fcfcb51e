//! Data, changed data, and everything else that a record may hold.

use super::*;

const SIZES: [usize; 14] =
    [0, 1, 2, 15, 16, 17, 100, 1000, 16383, 16384, 16385, 32768, 32769, 100_000];

#[test]
fn data_goes_both_ways_with_every_suite_as_the_server() {
    for choice in CHOICES {
        let mut pair = session(choice);
        let handler = if choice.library { "Stream(library)" } else { "Stream(records)" };
        assert_eq!(pair.handler(), handler, "{choice:?}");
        let summary = pair.ours.summary().unwrap().clone();
        assert_eq!(summary.version, if choice.tls13 { "TLSv1.3" } else { "TLSv1.2" });
        assert_eq!(summary.cipher, choice.name);
        assert_eq!(summary.server_name.as_deref(), Some("a.example"));
        assert!(!summary.resumed);
        pair.talk(&SIZES);
    }
}

#[test]
fn data_goes_both_ways_with_every_suite_as_the_client() {
    for choice in CHOICES {
        let mut pair = client_session(choice);
        // Tickets of TLS 1.3 come after the handshake, and the library handles them.
        let ours = !choice.library && !choice.tls13;
        let handler = if ours { "Stream(records)" } else { "Stream(library)" };
        assert_eq!(pair.handler(), handler, "{choice:?}");
        assert_eq!(pair.ours.summary().unwrap().cipher, choice.name);
        assert!(pair.ours.summary().unwrap().subject.as_ref().unwrap().contains("CN=a.example"));
        pair.talk(&SIZES);
    }
}

/// The lengths of the records for some data, with their headers.
fn lengths(pair: &mut Pair, data: &[u8]) -> Vec<usize> {
    let mut out = Buffer::default();
    pair.ours.write(data, &mut out).unwrap();
    pair.sent(&out);
    assert!(pair.peer_reads() == data);
    let (mut rest, mut lengths) = (out.filled(), Vec::new());
    while let Some(&[_, _, _, high, low]) = rest.first_chunk::<5>() {
        lengths.push(5 + usize::from(u16::from_be_bytes([high, low])));
        rest = &rest[lengths[lengths.len() - 1]..];
    }
    lengths
}

#[test]
fn the_first_records_are_short_and_so_are_those_after_a_pause() {
    const SEGMENT: usize = 1460;
    for choice in CHOICES {
        let mut pair = session(choice);
        let first = lengths(&mut pair, &pattern(300_000));
        assert!(first[0] <= SEGMENT && first[0] > SEGMENT - 100, "{choice:?}: {}", first[0]);
        assert!(first[..first.len() - 1].is_sorted(), "{choice:?}: {first:?}");
        assert!(first[20] > 16384, "{choice:?}: {first:?}");
        assert!(lengths(&mut pair, &pattern(20_000))[0] > 16384, "{choice:?}");
        pair.ours.paused();
        assert_eq!(lengths(&mut pair, &pattern(20_000))[0], first[0], "{choice:?}");
    }
}

#[test]
fn every_byte_may_come_alone() {
    for choice in CHOICES {
        let (acceptor, client) = server_and_client(choice, &Lines::default());
        let mut pair = Pair::server(&acceptor, BOTH, &client, "");
        pair.pieces = vec![1];
        pair.eager = b"at once".to_vec();
        let mut pair = pair.established();
        assert_eq!(pair.reads(), b"at once");
        pair.talk(&[1, 100, 20_000]);
        let connector = connector(choice);
        let mut pair = Pair::client(&connector, &server(choice, |_| ()));
        pair.pieces = vec![1];
        let mut pair = pair.established();
        pair.talk(&[1, 100, 20_000]);
    }
}

/// What the two sides do in turn.
#[derive(Clone, Debug)]
enum Turn {
    /// OpenSSL's side writes; `Pass` hands that to our side later.
    Theirs(usize),
    Ours(usize),
    /// OpenSSL's side takes new keys, and requests that we do so, or not.
    Update(bool),
    Pass,
}

fn turn() -> impl Strategy<Value = Turn> {
    let size = || prop_oneof![0usize..40, 0usize..3000, 0usize..100_000, Just(16384usize)];
    prop_oneof![
        4 => size().prop_map(Turn::Theirs),
        4 => size().prop_map(Turn::Ours),
        1 => any::<bool>().prop_map(Turn::Update),
        2 => Just(Turn::Pass),
    ]
}

fn take_turns(pair: &mut Pair, turns: &[Turn], eager: usize) -> Result<(), TestCaseError> {
    let (mut theirs, mut ours) = (pattern(eager), Vec::new());
    let (mut we_got, mut they_got) = (Vec::new(), Vec::new());
    let tls13 = pair.ssl().version2() == Some(SslVersion::TLS1_3);
    for turn in turns {
        match turn {
            Turn::Theirs(0) | Turn::Ours(0) => {}
            Turn::Theirs(size) => {
                let data = pattern(*size);
                pair.peer.write_all(&data).unwrap();
                theirs.extend(data);
            }
            Turn::Ours(size) => {
                let data = pattern(*size);
                pair.write(&data);
                ours.extend(data);
            }
            Turn::Update(request) if tls13 => {
                // Does nothing if an earlier KeyUpdate has not been sent yet.
                if testing::key_update(pair.ssl(), *request) {
                    pair.peer.write_all(b"u").unwrap();
                    theirs.push(b'u');
                }
            }
            Turn::Update(_) => {}
            Turn::Pass => {
                pair.pass();
                they_got.extend(pair.peer_reads());
            }
        }
    }
    // Reading may make the other side reply.
    for _ in 0..3 {
        pair.pass();
        they_got.extend(pair.peer_reads());
    }
    we_got.extend(pair.reads());
    prop_assert_eq!((&pair.error, pair.alert), (&None, None));
    prop_assert!(we_got == theirs, "{} of {} bytes came", we_got.len(), theirs.len());
    prop_assert!(they_got == ours, "{} of {} bytes arrived", they_got.len(), ours.len());
    Ok(())
}

proptest! {
    #[test]
    fn the_wire_may_be_cut_anywhere(
        which in 0..CHOICES.len(),
        turns in prop::collection::vec(turn(), 0..10),
        pieces in prop::collection::vec(prop_oneof![1usize..10, 1usize..2000, 1usize..60_000], 0..6),
        eager in prop_oneof![Just(0usize), 1usize..40_000],
        ours_connects: bool,
    ) {
        let choice = CHOICES[which];
        let mut pair = if ours_connects {
            Pair::client(&connector(choice), &server(choice, |_| ()))
        } else {
            let (acceptor, client) = server_and_client(choice, &Lines::default());
            Pair::server(&acceptor, BOTH, &client, "a.example")
        };
        pair.pieces = pieces;
        pair.eager = pattern(eager);
        let mut pair = pair.established();
        take_turns(&mut pair, &turns, eager)?;
    }

    #[test]
    fn a_change_on_the_wire_is_never_taken_for_data(
        which in 0..CHOICES.len(),
        at: prop::sample::Index,
        bit in 0u8..8,
        size in 0usize..50,
        ours_connects: bool,
    ) {
        let choice = CHOICES[which];
        let mut pair =
            if ours_connects { client_session(choice) } else { session(choice) };
        pair.peer_writes(b"good");
        pair.peer.write_all(&pattern(size + 1)).unwrap();
        let mut wire = pair.wire();
        let at = at.index(wire.len());
        // The minor version has its own test.
        prop_assume!(at != 2);
        wire[at] ^= 1 << bit;
        pair.feed_all(&wire);
        prop_assert_eq!(pair.reads(), b"good");
        // After a change the length may exceed what has arrived.
        prop_assert!(pair.error.is_some() || [3, 4].contains(&at));
    }
}

#[test]
fn a_record_that_is_cut_off_waits_for_its_rest() {
    for choice in CHOICES {
        let mut pair = session(choice);
        pair.peer.write_all(b"first").unwrap();
        pair.peer.write_all(b"second").unwrap();
        let wire = pair.wire();
        let (most, rest) = wire.split_at(wire.len() - 1);
        pair.feed_all(most);
        assert_eq!((pair.reads(), &pair.error), (b"first".to_vec(), &None));
        pair.feed_all(rest);
        assert_eq!(pair.reads(), b"second");
    }
}

#[test]
fn keys_are_updated_as_the_client_wishes() {
    for choice in CHOICES.into_iter().filter(|choice| choice.tls13) {
        for request in [false, true] {
            let mut pair = session(choice);
            for round in 0..5 {
                let before = pair.flights.len();
                assert!(testing::key_update(pair.ssl(), request));
                pair.peer_writes(&pattern(round * 20_000 + 1));
                assert!(pair.reads() == pattern(round * 20_000 + 1));
                // The library replies with the next data.
                if !choice.library {
                    assert_eq!(pair.flights.len() - before, usize::from(request));
                }
                pair.talk(&[1, 50_000]);
            }
        }
    }
}

#[test]
fn our_client_follows_the_updates_of_a_server() {
    for choice in CHOICES.into_iter().filter(|choice| choice.tls13) {
        let mut pair = client_session(choice);
        for request in [false, true, true, false] {
            assert!(testing::key_update(pair.ssl(), request));
            pair.talk(&[1, 20_000]);
        }
    }
}

const UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const UPDATE_REQUESTED: [u8; 5] = [24, 0, 0, 1, 1];

#[test]
fn key_updates_in_a_row_have_a_limit() {
    for choice in sealable().filter(|choice| choice.tls13) {
        for message in [UPDATE, UPDATE_REQUESTED] {
            let (mut pair, mut sealer) = seized(choice);
            let update = |sealer: &mut Direction| {
                let record = sealer.seal(22, &message, 0);
                sealer.update();
                record
            };
            // With data in between any number is allowed.
            for _ in 0..100 {
                let record = update(&mut sealer);
                pair.feed_all(&record);
                pair.feed_all(&sealer.seal(23, b"x", 0));
            }
            assert_eq!(pair.reads(), [b'x'; 100]);
            let many: Vec<u8> = (0..32).flat_map(|_| update(&mut sealer)).collect();
            let before = pair.flights.len();
            pair.feed_all(&many);
            assert_eq!(pair.error, None);
            // Requests that arrive together get one reply.
            let answers = pair.flights.len() - before;
            assert_eq!(answers, usize::from(message == UPDATE_REQUESTED));
            pair.write(b"still here");
            assert_eq!(pair.peer_reads(), b"still here");
            // More than the passing time gives back.
            let many: Vec<u8> = (0..300).flat_map(|_| update(&mut sealer)).collect();
            pair.feed_all(&many);
            pair.broken_with(alert::UNEXPECTED_MESSAGE);
        }
    }
}

#[test]
fn a_client_that_has_said_goodbye_can_still_be_told_something() {
    for choice in CHOICES {
        for mut pair in [session(choice), client_session(choice)] {
            pair.peer.write_all(b"last words").unwrap();
            let _ = pair.peer.shutdown();
            // Nothing that follows counts, whether it arrives together with the close_notify or
            // later.
            let wire = [&pair.wire()[..], b"rubbish"].concat();
            pair.feed_all(&wire);
            pair.feed_all(b"rubbish");
            assert_eq!((pair.reads(), pair.closed), (b"last words".to_vec(), true));
            assert_eq!(pair.error, None);
            pair.write(&pattern(50_000));
            assert!(pair.peer_reads() == pattern(50_000), "{choice:?}");
            let mut out = Buffer::default();
            pair.ours.close(&mut out);
            pair.sent(&out);
            assert!(pair.peer_reads().is_empty());
            assert_eq!((pair.peer_closed, pair.alert), (true, None));
        }
    }
}

#[test]
fn after_our_goodbye_the_other_side_can_still_tell_something() {
    for choice in CHOICES {
        for mut pair in [session(choice), client_session(choice)] {
            pair.write(b"last words");
            let mut out = Buffer::default();
            pair.ours.close(&mut out);
            pair.sent(&out);
            assert_eq!(pair.peer_reads(), b"last words");
            assert_eq!((pair.peer_closed, pair.alert), (true, None));
            pair.peer_writes(&pattern(50_000));
            assert!(pair.reads() == pattern(50_000));
            assert!(!pair.closed);
            assert_eq!(pair.peer.shutdown().map_err(|error| reason(&error)).ok(), {
                Some(openssl::ssl::ShutdownResult::Received)
            });
            pair.pass();
            assert_eq!((pair.closed, pair.error), (true, None), "{choice:?}");
        }
    }
}

#[test]
fn new_keys_are_taken_before_the_old_ones_are_worn_out() {
    for choice in sealable() {
        let (version, before) = match choice.tls13 {
            true => (Version::Tls13, (1 << 23) - 2),
            false => (Version::Tls12, (1 << 23) - 2),
        };
        let suite = Suite::of(version, choice.number).unwrap();
        let length = sealing::Suite { tls13: choice.tls13, number: choice.number }.hash().1;
        let (secret, random) = ([3; 48], [4; 32]);
        let secrets = match choice.tls13 {
            true => {
                Secrets::Traffic { ours: secret[..length].into(), theirs: secret[..length].into() }
            }
            false => Secrets::Master { secret: &secret, randoms: [&random, &random], server: true },
        };
        let numbers = Numbers { sent: before, received: 0 };
        let mut records = Records::new(suite, &secrets, numbers).unwrap();
        let [_, server] = Direction::tls12(choice.number, &secret, &random, &random);
        let mut opener = match choice.tls13 {
            true => Direction::tls13(choice.number, &secret[..length]),
            false => server,
        };
        opener.sequence = before;
        let mut out = Buffer::default();
        records.seal(&pattern(5 * 16384), &mut out).unwrap();
        records.close(&mut out);
        let (mut wire, mut data, mut updates) = (out.filled().to_vec(), Vec::new(), Vec::new());
        while let Some((kind, content)) = opener.open(&mut wire) {
            match kind {
                23 => data.extend(content),
                22 => {
                    assert_eq!(content, UPDATE);
                    updates.push(data.len());
                    opener.update();
                }
                _ => assert_eq!((kind, &content[..]), (21, &[1, 0][..])),
            }
        }
        assert!(data == pattern(5 * 16384));
        // After two records, and never again.
        assert_eq!(updates, if choice.tls13 { vec![2 * 16384] } else { vec![] });
    }
}

/// Splits the other side's first protected record in TLS 1.2, its Finished, into records of one
/// byte each, and does the handshake. Returns the other side's keys, at the number of its next record.
fn with_split_finished(mut pair: Pair, choice: Choice, lines: &Lines) -> (Pair, Direction) {
    let server = pair.ssl().is_server();
    let mut keys = None;
    for _ in 0..6 {
        let _ = pair.peer.do_handshake();
        let mut wire = pair.wire();
        let mut rest = &wire[..];
        let mut before = 0;
        while let Some(&[kind, _, _, high, low]) = rest.first_chunk::<5>() {
            let length = 5 + usize::from(u16::from_be_bytes([high, low]));
            (before, rest) = (before + length, &rest[length..]);
            if kind == 20 && keys.is_none() {
                let (mut client, mut other) = ([0; 32], [0; 32]);
                pair.ssl().client_random(&mut client);
                pair.ssl().server_random(&mut other);
                let master = lines.secret("CLIENT_RANDOM");
                let both = || Direction::tls12(choice.number, &master, &client, &other);
                let [mut opener, mut sealer] = [both(), both()].map(|[client, other]| {
                    let mut direction = if server { other } else { client };
                    direction.sequence = 0;
                    direction
                });
                let (kind, finished) = opener.open(&mut rest.to_vec()).expect("a Finished");
                assert_eq!((kind, finished.len()), (22, 16));
                wire.truncate(before);
                wire.extend(finished.chunks(1).flat_map(|byte| sealer.seal(22, byte, 0)));
                keys = Some(sealer);
                break;
            }
        }
        pair.feed_all(&wire);
    }
    assert_eq!((&pair.error, pair.alert), (&None, None), "{choice:?}");
    assert!(!pair.ours.is_handshaking());
    (pair, keys.expect("a Finished"))
}

/// RFC 5246 section 6.2.1: records may cut a message anywhere, even a Finished.
#[test]
fn a_finished_may_come_in_several_records() {
    for choice in sealable().filter(|choice| !choice.tls13) {
        for ours_connects in [false, true] {
            let lines = Lines::default();
            let pair = if ours_connects {
                let server = server(choice, |builder| lines.collect(builder));
                Pair::client(&connector(choice), &server)
            } else {
                let (acceptor, client) = server_and_client(choice, &lines);
                Pair::server(&acceptor, BOTH, &client, "a.example")
            };
            let (mut pair, mut sealer) = with_split_finished(pair, choice, &lines);
            assert_eq!(pair.handler(), "Stream(records)");
            for _ in 0..3 {
                pair.feed_all(&sealer.seal(23, b"data", 0));
                assert_eq!((pair.reads(), &pair.error), (b"data".to_vec(), &None), "{choice:?}");
                pair.write(b"answer");
                assert_eq!(pair.peer_reads(), b"answer");
            }
        }
    }
}

/// RFC 8446 section 5.1: records may also cut a KeyUpdate, but nothing may come between its parts.
#[test]
fn a_key_update_may_come_in_several_records() {
    for choice in sealable().filter(|choice| choice.tls13) {
        for message in [UPDATE, UPDATE_REQUESTED] {
            for length in 1..=5 {
                let (mut pair, mut sealer) = seized(choice);
                for _ in 0..3 {
                    for part in message.chunks(length) {
                        pair.feed_all(&sealer.seal(22, part, 7));
                    }
                    sealer.update();
                    pair.feed_all(&sealer.seal(23, b"data", 0));
                    assert_eq!((pair.reads(), &pair.error), (b"data".to_vec(), &None));
                    pair.write(b"answer");
                    assert_eq!(pair.peer_reads(), b"answer");
                }
            }
            for kind in [23, 21] {
                let (mut pair, mut sealer) = seized(choice);
                pair.feed_all(&sealer.seal(22, &message[..3], 0));
                assert_eq!(pair.error, None);
                pair.feed_all(&sealer.seal(kind, &[1, 0], 0));
                assert!(!pair.closed);
                pair.broken_with(alert::UNEXPECTED_MESSAGE);
            }
        }
    }
}

/// In TLS 1.2 a ClientHello is as long as it says, however many records it takes.
#[test]
fn a_client_hello_in_a_session_may_come_in_several_records() {
    for choice in sealable().filter(|choice| !choice.tls13) {
        let (mut pair, mut sealer) = seized(choice);
        let hello = [&[1, 0, 0, 30][..], &[22; 30]].concat();
        let before = pair.flights.len();
        for part in hello.chunks(3) {
            pair.feed_all(&sealer.seal(22, part, 0));
        }
        assert_eq!((&pair.error, pair.flights.len() - before), (&None, 1), "{choice:?}");
        pair.feed_all(&sealer.seal(23, b"as before", 0));
        assert_eq!((pair.reads(), pair.error), (b"as before".to_vec(), None));
    }
}

/// A client that limits the bytes of a key (keyLimits of Java) and only reads.
#[test]
fn key_updates_during_a_download_have_no_limit() {
    for choice in sealable().filter(|choice| choice.tls13) {
        let (mut pair, mut sealer) = seized(choice);
        for _ in 0..300 {
            pair.feed_all(&sealer.seal(22, &UPDATE_REQUESTED, 0));
            sealer.update();
            assert_eq!(pair.error, None);
            pair.write(&pattern(3000));
            assert!(pair.peer_reads() == pattern(3000));
        }
    }
}

/// RFC 8448 section 3: what client and server send after the handshake, byte for byte.
#[test]
fn records_are_those_of_the_trace_in_the_standard() {
    let hex = |text: &str| -> Vec<u8> {
        let digits: Vec<u32> = text.chars().filter_map(|one| one.to_digit(16)).collect();
        digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
    };
    let client = hex("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5");
    let server = hex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643");
    let data: Vec<u8> = (0..50).collect();
    let sent_by_client = hex("1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b
        9819a8a5b46b395bd54a9a20441e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4");
    let sent_by_server = hex("17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e3
        0efaf97d90e6dffc602dcb501a59a8fcc49c4bf2e5f0a21c0047c2abf332540dd032e167c2955d");
    let goodbyes = [
        hex("1703030013c9872760655666b74d7ff1153efd6db6d0b0e3"),
        hex("1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9"),
    ];
    let suite = Suite::of(Version::Tls13, [0x13, 1]).unwrap();
    // The server has sent a ticket before.
    for (ours, theirs, numbers, sent, received, goodbye, answer) in [
        (
            &server,
            &client,
            Numbers { sent: 1, received: 0 },
            &sent_by_server,
            &sent_by_client,
            &goodbyes[1],
            &goodbyes[0],
        ),
        (
            &client,
            &server,
            Numbers { sent: 0, received: 1 },
            &sent_by_client,
            &sent_by_server,
            &goodbyes[0],
            &goodbyes[1],
        ),
    ] {
        let secrets = Secrets::Traffic { ours: ours[..].into(), theirs: theirs[..].into() };
        let mut records = Records::new(suite, &secrets, numbers).unwrap();
        let (mut plain, mut reply) = (Buffer::default(), Buffer::default());
        let taken = records.open(received, &mut plain, &mut reply).unwrap();
        assert_eq!((plain.filled(), taken.closed), (&data[..], false));
        let mut out = Buffer::default();
        records.seal(&data, &mut out).unwrap();
        assert_eq!(out.filled(), &sent[..]);
        out.clear();
        records.close(&mut out);
        assert_eq!(out.filled(), &goodbye[..]);
        assert!(records.open(answer, &mut plain, &mut reply).unwrap().closed);
        assert!(reply.is_empty());
    }
}
