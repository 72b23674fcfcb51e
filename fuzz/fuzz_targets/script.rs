//! Any bytes as a script of a module: refused with its place, or run.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mavis::config::report::Report;
use mavis::config::source::Source;
use mavis::config::Parser;
use mavis::mavis::attributes::{self, Attributes};
use mavis::mavis::evaluate::evaluate;
use mavis::mavis::script::{self, Script};

fuzz_target!(|data: &[u8]| {
    // Includes would read whatever file the fuzzer dreams up.
    if data.windows(7).any(|window| window == b"include") {
        return;
    }
    let text = [b"script in = {".as_slice(), data, b"} end"].concat();
    let report = Report { quiet: true, ..Report::default() };
    let Ok(mut parser) = Parser::new(Source::new("fuzz.cfg", text), &report) else {
        return;
    };
    if let Ok((_, statements)) = script::parse(&mut parser) {
        let mut pairs = Attributes::default();
        pairs.set(attributes::TYPE, b"TACPLUS");
        pairs.set(attributes::USER, b"joe@example.com");
        evaluate(&Script { statements }, &mut pairs, "fuzz");
    }
});
