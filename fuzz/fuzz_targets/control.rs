//! Feeds arbitrary bytes as a line of a client of the control socket.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = mavis::monitor::is_request(data);
});
