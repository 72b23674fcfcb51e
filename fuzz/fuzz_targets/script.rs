//! Parses arbitrary bytes as a module's script: refused with a place in the text, or run.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mavis::config::rules::Rules;
use mavis::config::source::Source;
use mavis::config::system::Nowhere;
use mavis::config::Parser;
use mavis::mavis::attributes::{self, Attributes};
use mavis::mavis::evaluate::evaluate;
use mavis::mavis::script::{self, Script};
use std::rc::Rc;

fuzz_target!(|data: &[u8]| {
    let text = [b"script in = {".as_slice(), data, b"} end"].concat();
    let source = Source::new("fuzz.cfg", text);
    let mut parser = Parser::new(source, Rules::default(), Rc::new(Nowhere));
    if parser.start().is_err() {
        return;
    }
    if let Ok((_, statements)) = script::parse(&mut parser) {
        let mut pairs = Attributes::default();
        pairs.set(attributes::TYPE, b"TACPLUS");
        pairs.set(attributes::USER, b"joe@example.com");
        evaluate(&Script { statements }, &mut pairs, "fuzz");
    }
});
