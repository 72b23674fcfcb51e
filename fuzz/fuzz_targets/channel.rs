//! Any bytes as a message of either side: read or refused, and what is read survives encoding.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mavis::channel::protocol::{FromBroker, FromWorker};

fuzz_target!(|data: &[u8]| {
    if let Ok(message) = FromWorker::decode(data) {
        assert_eq!(FromWorker::decode(&message.encode()), Ok(message));
    }
    if let Ok(FromBroker::Accept(accept)) = FromBroker::decode(data) {
        assert_eq!(FromBroker::decode(&accept.encode()), Ok(FromBroker::Accept(accept)));
    }
});
