//! Parses arbitrary bytes as messages of either side, in every state of the receiving side. Each is
//! read or refused, and what is understood survives encoding.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mavis::channel::broker_side::BrokerSide;
use mavis::channel::protocol::{FromBroker, FromWorker};
use mavis::channel::worker_side::WorkerSide;
use mavis::channel::Peer;
use std::collections::VecDeque;

fuzz_target!(|data: &[u8]| {
    match FromWorker::decode(data) {
        // Nobody sends these. An errand that wants something unknown is among them, and would come
        // back as one that wants nothing.
        Ok(FromWorker::Unknown(_)) | Err(_) => {}
        Ok(message) => assert_eq!(FromWorker::decode(&message.encode()), Ok(message)),
    }
    if let Ok(FromBroker::Accept(accept)) = FromBroker::decode(data) {
        assert_eq!(FromBroker::decode(&accept.encode()), Ok(FromBroker::Accept(accept)));
    }
    for peer in [Peer::Ours, Peer::Foreign] {
        let mut broker = BrokerSide::new(peer);
        let mut worker = WorkerSide::new(peer, true);
        worker.ask(0);
        // The first byte gives the length of each message.
        let length = usize::from(data.first().copied().unwrap_or(0)).max(4);
        for message in data.chunks(length) {
            broker.hear(FromWorker::decode(message), 3, 0);
            worker.hear(message, &mut VecDeque::from([()]), 0);
        }
        worker.ready(1);
        for message in data.chunks(length) {
            worker.hear(message, &mut VecDeque::from([()]), 0);
        }
    }
});
