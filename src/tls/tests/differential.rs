//! Gives the same records, with the same keys, to our record layer and to OpenSSL's: both must take
//! the same data, and refuse the same records with the same alert.

use super::*;

/// One record, or what happens to it.
#[derive(Clone, Debug)]
enum Step {
    Data(usize, usize),
    /// A KeyUpdate, cut into pieces of this many bytes.
    Update(bool, usize),
    /// Any content of any type.
    Record(u8, Vec<u8>, usize),
    /// In TLS 1.3, content without a type.
    Inner(Vec<u8>),
    /// A changed bit.
    Changed(usize, u8),
    /// A record that arrives twice.
    Twice,
    Warning(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let content = prop::collection::vec(prop_oneof![Just(0u8), 1u8..30, any::<u8>()], 0..12);
    prop_oneof![
        6 => (prop_oneof![0usize..20, 16_380usize..16_386], prop_oneof![Just(0usize), 0usize..300])
            .prop_map(|(size, padding)| Step::Data(size, padding)),
        4 => (any::<bool>(), 1usize..6).prop_map(|(request, piece)| Step::Update(request, piece)),
        1 => (prop_oneof![Just(21u8), Just(22), any::<u8>()], content.clone(), 0usize..50)
            .prop_map(|(kind, content, padding)| Step::Record(kind, content, padding)),
        1 => content.prop_map(Step::Inner),
        1 => (5usize..40, 0u8..8).prop_map(|(at, bit)| Step::Changed(at, bit)),
        1 => Just(Step::Twice),
        1 => prop_oneof![Just(0u8), Just(90), any::<u8>()].prop_map(Step::Warning),
    ]
}

/// What a record layer has made of the wire's bytes.
#[derive(Debug, PartialEq)]
struct Outcome {
    plain: Vec<u8>,
    closed: bool,
    failed: bool,
    /// The alert that it has sent, if it has failed.
    alert: Option<u8>,
}

/// The last fatal alert among the records sent.
fn alert_of(mut wire: Vec<u8>, opener: &mut Direction) -> Option<u8> {
    let mut alert = None;
    while let Some((kind, content)) = opener.open(&mut wire) {
        match (kind, &content[..]) {
            (22, [24, ..]) => opener.update(),
            (21, &[2, number]) => alert = Some(number),
            _ => {}
        }
    }
    alert
}

/// OpenSSL judges a handshake message by its header of four bytes, we by its first byte.
fn is_shorter_than_a_header(message: &[u8]) -> bool {
    (1..4).contains(&message.len())
}

/// The handshake message in an inner plaintext, whose type is the last byte that is not 0.
fn inner_message(content: &[u8]) -> Option<&[u8]> {
    let end = content.iter().rposition(|&byte| byte != 0)?;
    (content[end] == 22).then_some(&content[..end])
}

fn compare(choice: Choice, steps: &[Step]) -> Result<(), TestCaseError> {
    // A session with OpenSSL on both ends.
    let lines = Lines::default();
    let server = server(choice, |builder| {
        builder.set_num_tickets(0).unwrap();
        lines.collect(builder);
    });
    let client = client(|builder| only(builder, choice));
    let start = |context: &SslContext, server: bool| {
        let mut ssl = Ssl::new(context).unwrap();
        if server {
            ssl.set_accept_state();
        } else {
            ssl.set_connect_state();
        }
        SslStream::new(ssl, Pipe::default()).unwrap()
    };
    let (mut theirs, mut peer) = (start(&server, true), start(&client, false));
    for _ in 0..4 {
        let _ = peer.do_handshake();
        theirs.get_mut().input.extend(std::mem::take(&mut peer.get_mut().output));
        let _ = theirs.do_handshake();
        peer.get_mut().input.extend(std::mem::take(&mut theirs.get_mut().output));
    }
    prop_assert!(theirs.ssl().is_init_finished());
    // And our record layer, with the same keys.
    let suite = |version| Suite::of(version, choice.number).unwrap();
    let (mut records, mut sealer, openers) = if choice.tls13 {
        let [ours, other] =
            ["SERVER", "CLIENT"].map(|side| lines.secret(&format!("{side}_TRAFFIC_SECRET_0")));
        let secrets = Secrets::Traffic { ours: ours[..].into(), theirs: other[..].into() };
        let numbers = Numbers { sent: 0, received: 0 };
        let records = Records::new(suite(Version::Tls13), &secrets, numbers).unwrap();
        let openers = [0, 1].map(|_| Direction::tls13(choice.number, &ours));
        (records, Direction::tls13(choice.number, &other), openers)
    } else {
        let (mut first, mut second) = ([0; 32], [0; 32]);
        theirs.ssl().client_random(&mut first);
        theirs.ssl().server_random(&mut second);
        let master = lines.secret("CLIENT_RANDOM");
        let secrets = Secrets::Master { secret: &master, randoms: [&first, &second], server: true };
        let numbers = Numbers { sent: 1, received: 1 };
        let records = Records::new(suite(Version::Tls12), &secrets, numbers).unwrap();
        let both = || Direction::tls12(choice.number, &master, &first, &second);
        let [sealer, _] = both();
        let openers = [0, 1].map(|_| {
            let [_, server] = both();
            server
        });
        (records, sealer, openers)
    };
    let [mut ours_opener, mut theirs_opener] = openers;

    let mut wire = Vec::new();
    for step in steps {
        match step {
            Step::Data(size, padding) => {
                // OpenSSL takes more padding than RFC 8446 section 5.4 allows; we do not.
                let padding = (*padding).min(16_384usize.saturating_sub(*size));
                wire.extend(sealer.seal(23, &pattern(*size), padding));
            }
            Step::Update(request, piece) if choice.tls13 => {
                for part in [24, 0, 0, 1, u8::from(*request)].chunks(*piece) {
                    wire.extend(sealer.seal(22, part, 0));
                }
                sealer.update();
            }
            // In TLS 1.2 OpenSSL renegotiates or gives up, and we go on.
            Step::Update(..) => {}
            Step::Record(22, ..) if !choice.tls13 => {}
            Step::Record(22, content, _) if is_shorter_than_a_header(content) => {}
            Step::Record(kind, content, padding) => {
                wire.extend(sealer.seal(*kind, content, *padding));
            }
            Step::Inner(content)
                if inner_message(content).is_some_and(is_shorter_than_a_header) => {}
            Step::Inner(content) if choice.tls13 => wire.extend(sealer.seal_inner(23, content)),
            Step::Inner(_) => {}
            Step::Changed(at, bit) => {
                let mut record = sealer.seal(23, b"changed", 0);
                let at = at % (record.len() - 5) + 5;
                record[at] ^= 1 << bit;
                wire.extend(record);
            }
            Step::Twice => {
                let record = sealer.seal(23, b"twice", 0);
                wire.extend([&record[..], &record].concat());
            }
            // OpenSSL gives up, though it has not asked to renegotiate.
            Step::Warning(100) if !choice.tls13 => {}
            Step::Warning(number) => wire.extend(sealer.seal(21, &[1, *number], 0)),
        }
    }

    let (mut plain, mut reply) = (Buffer::default(), Buffer::default());
    let result = records.open(&wire, &mut plain, &mut reply);
    let ours = Outcome {
        plain: plain.filled().to_vec(),
        closed: result.as_ref().is_ok_and(|taken| taken.closed),
        failed: result.is_err(),
        alert: alert_of(reply.filled().to_vec(), &mut ours_opener),
    };
    theirs.get_mut().input.extend(&wire);
    let mut expected = Outcome { plain: Vec::new(), closed: false, failed: false, alert: None };
    let mut buffer = vec![0; 20_000];
    loop {
        match theirs.ssl_read(&mut buffer) {
            Ok(count) => expected.plain.extend_from_slice(&buffer[..count]),
            Err(error) => {
                match error.code() {
                    ErrorCode::WANT_READ => {}
                    ErrorCode::ZERO_RETURN => expected.closed = true,
                    _ => expected.failed = true,
                }
                break;
            }
        }
    }
    expected.alert = alert_of(theirs.get_ref().output.clone(), &mut theirs_opener);
    prop_assert!(ours.plain == expected.plain, "{} and {}", ours.plain.len(), expected.plain.len());
    prop_assert_eq!((ours.closed, ours.failed), (expected.closed, expected.failed));
    // OpenSSL has other alerts for some records that no implementation sends.
    let differs = steps.iter().any(|step| matches!(step, Step::Record(..) | Step::Inner(..)));
    prop_assert!(differs || ours.alert == expected.alert, "{ours:?} and {expected:?}");
    Ok(())
}

proptest! {
    #[test]
    fn our_records_are_those_of_the_library(
        which in 0..9usize,
        steps in prop::collection::vec(step(), 1..10),
    ) {
        let choice = sealable().nth(which % sealable().count()).unwrap();
        compare(choice, &steps)?;
    }
}
