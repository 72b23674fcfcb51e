//! Requests for the status page.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mavis::monitor::http::{parse, preference, Parsed};

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    while let Parsed::Request(request, length) = parse(rest) {
        assert!(length > 0 && length <= rest.len());
        assert!(request.path.starts_with('/'));
        let _ = preference(&request.accept, "text/plain");
        rest = &rest[length..];
    }
});
