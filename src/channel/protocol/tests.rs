//! Messages as bytes.

use super::*;
use proptest::prelude::*;

#[test]
fn a_plain_accept_has_the_bytes_of_the_contract() {
    let data = Accept { protocol: 6, ..Accept::default() }.encode();
    let mut expected = [0u8; 40];
    expected[..4].copy_from_slice(&6u32.to_ne_bytes());
    expected[32..36].copy_from_slice(&1u32.to_ne_bytes());
    expected[36..].copy_from_slice(&6u32.to_ne_bytes());
    assert_eq!(data, expected);
    let words = |words: [u32; 2]| words.map(u32::to_ne_bytes).concat();
    assert_eq!(FromWorker::Done(1).encode().to_vec(), words([0, 1]));
    assert_eq!(FromWorker::Max(9995).encode().to_vec(), words([5, 9995]));
}

#[test]
fn short_and_empty_datagrams_are_refused() {
    assert!(FromWorker::decode(&[]).is_err());
    assert!(FromWorker::decode(&[0, 0]).is_err());
    assert!(FromBroker::decode(&6u32.to_ne_bytes()).is_err());
    assert_eq!(FromBroker::decode(&2u32.to_ne_bytes()), Ok(FromBroker::MayDie));
    let endpoint = FromBroker::endpoint(Purpose::Status);
    assert!(FromBroker::decode(&endpoint[..4]).is_err());
    assert_eq!(FromBroker::decode(&endpoint), Ok(FromBroker::Endpoint(Some(Purpose::Status))));
    assert_eq!(FromBroker::decode(&short(72, 9)), Ok(FromBroker::Endpoint(None)));
    assert_eq!(FromBroker::decode(&FromBroker::briefing()), Ok(FromBroker::Briefing));
    assert!(FromBroker::decode(&FromBroker::zone(7)[..4]).is_err());
    assert_eq!(FromBroker::decode(&FromBroker::zone(7)), Ok(FromBroker::Zone(7)));
    let unknown = [42u32, 0].map(u32::to_ne_bytes).concat();
    assert_eq!(FromWorker::decode(&unknown), Ok(FromWorker::Unknown(42)));
    let negative = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(FromWorker::decode(&negative), Ok(FromWorker::Done(0)));
}

proptest! {
    #[test]
    fn decoding_never_panics(data in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = FromWorker::decode(&data);
        let _ = FromBroker::decode(&data);
    }

    #[test]
    fn secrets_arrive_whole(data in prop::collection::vec(any::<u8>(), 1..5000)) {
        let (mut received, mut offset, mut whole) = (Vec::new(), 0, false);
        while !whole {
            let message = secrets_message(&data, offset);
            offset += secrets_length(&message);
            whole = add_secrets(&message, &mut received).expect("one of ours");
            prop_assert_eq!(whole, offset == data.len());
        }
        prop_assert_eq!(received, data);
    }

    #[test]
    fn adding_secrets_never_panics(
        mut received in prop::collection::vec(any::<u8>(), 0..50),
        message in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let _ = add_secrets(&message, &mut received);
    }

    #[test]
    fn accept_round_trips(
        tls_versions: u32, aaa_protocol: u32, flags: u32, realm: [u8; 15], protocol: u32,
    ) {
        let mut padded = [0; 16];
        padded[..15].copy_from_slice(&realm);
        let accept = Accept { tls_versions, aaa_protocol, flags, realm: padded, protocol, ..Accept::default() };
        prop_assert_eq!(FromBroker::decode(&accept.encode()), Ok(FromBroker::Accept(accept)));
        let accept = Accept { client: flags, listener: protocol, ..accept };
        let message = accept.encode_connections(3);
        let expected = FromBroker::Connections(accept, 3);
        prop_assert_eq!(FromBroker::decode(&message), Ok(expected));
        // As older brokers send it.
        let expected = FromBroker::Connections(Accept { client: 0, listener: 0, ..accept }, 3);
        prop_assert_eq!(FromBroker::decode(&message[..CONNECTIONS]), Ok(expected));
    }

    #[test]
    fn numbers_of_clients_round_trip(numbers in prop::collection::vec(1u32.., 0..300)) {
        let message = left_message(&numbers);
        let some = &numbers[..numbers.len().min(LEFT_MOST)];
        prop_assert!(message.len() <= FROM_WORKER);
        prop_assert_eq!(left(&message).collect::<Vec<_>>(), some);
        prop_assert_eq!(FromWorker::decode(&message), Ok(FromWorker::Left(some.len() as u32)));
        // A message that is cut off names fewer clients.
        prop_assert!(left(&message[..message.len() / 2]).count() <= some.len());
    }
}
