//! Parses arbitrary bytes as attribute-value pairs in wire format: what is parsed survives
//! encoding.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mavis::mavis::attributes::{Attributes, COUNT};

fuzz_target!(|data: &[u8]| {
    // The first bytes select the attributes that are wanted.
    let Some((mask, text)) = data.split_first_chunk::<8>() else {
        return;
    };
    let mask = u64::from_ne_bytes(*mask);
    let wanted = |attribute: usize| mask >> attribute & 1 != 0;
    let mut pairs = Attributes::default();
    pairs.decode(text, wanted);
    assert!(pairs.iter().all(|(attribute, _)| attribute < COUNT && wanted(attribute)));
    let mut again = Attributes::default();
    again.decode(&pairs.encode(|_| true), |_| true);
    assert!(pairs.iter().eq(again.iter()));
    pairs.add_serial();
    let _ = pairs.dump();
    pairs.clear_private();
});
