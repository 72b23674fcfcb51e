//! Parses arbitrary bytes as a configuration: no panic, no endless loop, and every error has a
//! place in the file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mavis::config::rules::Rules;
use mavis::config::source::Source;
use mavis::config::system::Nowhere;
use mavis::config::{read, token, ReadError};
use std::rc::Rc;

fuzz_target!(|data: &[u8]| {
    let rules = Rules { parse_only: true, ..Rules::default() };
    let source = Source::new("fuzz.cfg", data.to_vec());
    let reading = read(source, "x", rules, Rc::new(Nowhere), |parser| {
        let mut depth = 0;
        loop {
            match parser.code() {
                token::S_eof => return Err(parser.expected(&[token::S_closebra])),
                token::S_openbra => depth += 1,
                token::S_closebra if depth == 0 => return Ok(()),
                token::S_closebra => depth -= 1,
                _ => {}
            }
            parser.advance()?;
        }
    });
    if let Err(ReadError::Syntax(error)) = reading.result {
        let lines = 1 + data.iter().filter(|&&byte| byte == b'\n').count();
        assert!((1..=lines).contains(&error.position.line()));
        let _ = (error.excerpt(), error.consumed());
    }
});
