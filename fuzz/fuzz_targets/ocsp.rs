//! Feeds arbitrary bytes as the HTTP answer of an OCSP responder, whole and as it comes in.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for ended in [false, true] {
        let _ = mavis::monitor::is_answer(data, ended);
    }
});
