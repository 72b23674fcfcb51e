//! `tls = inspect`: what anybody who can connect sends, in pieces of any size.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mavis::tls::hello::{Hello, Inspector, LIMIT};

fuzz_target!(|input: (u8, &[u8])| {
    let (step, bytes) = input;
    let at_once = Inspector::default().look(bytes);
    let (mut inspector, mut answer) = (Inspector::default(), Hello::Partial);
    let mut length = 0;
    while answer == Hello::Partial && length < bytes.len() {
        length = (length + 1 + usize::from(step)).min(bytes.len());
        answer = inspector.look(&bytes[..length]);
    }
    // However it is cut, and whatever follows.
    assert_eq!(answer, at_once);
    assert!(answer != Hello::Partial || bytes.len() < LIMIT);
    if let Hello::Tls(offer) = answer {
        let lower = |name: &String| !name.is_empty() && *name == name.to_ascii_lowercase();
        assert!(offer.server_name.as_ref().is_none_or(lower));
    }
});
