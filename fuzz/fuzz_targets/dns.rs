//! Arbitrary bytes as an answer of a name server, and as /etc/hosts. What is taken from them can be used
//! and logged as it is, and is no more than the bytes have room for.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mavis::os::dns::{hosts, message};

fuzz_target!(|data: &[u8]| {
    let is_plain = |text: &str| {
        !text.is_empty()
            && text.len() <= 256
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./*".contains(c))
    };
    if let Some(services) = message::services(data) {
        assert!(services.list.len() <= data.len() / 7);
        for service in services.list {
            assert!(is_plain(&service.target) && service.port != 0);
        }
    }
    if let Some(name) = message::answer(data) {
        assert!(is_plain(&name.text));
    }
    assert!(hosts::find(data, "db").len() <= data.len() / 5 + 1);
});
