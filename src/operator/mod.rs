//! tcprelayctl: asks a running relay over its control socket, and shows what it answers.
//!
//! A command is a request and an answer, both a line of JSON (`relay`). `commands` says what each
//! command asks, `views` how answers look. Nothing here shares state with a relay.

#![forbid(unsafe_code)]

mod commands;
mod options;
mod relay;
mod tables;
mod views;

use crate::os::process::exit;
use options::{Options, Parsed};
use relay::Failure;
use std::ffi::OsString;
use std::io::Write;

/// The relay has refused what was asked for.
const REFUSED: i32 = 1;

/// The main function; `arguments` begin with argv\[0]. Returns the exit status.
pub fn main(arguments: &[OsString], version: &str) -> i32 {
    let options = match options::parse(arguments.get(1..).unwrap_or(&[])) {
        Parsed::Run(options) => options,
        Parsed::Help => {
            show(&options::help());
            return 0;
        }
        Parsed::Version => {
            show(&format!("tcprelayctl version {version}\n"));
            return 0;
        }
        Parsed::Wrong(complaint) => {
            complain(&complaint);
            complain("tcprelayctl --help lists commands and options");
            return exit::USAGE;
        }
    };
    match commands::run(&options) {
        Ok(()) => 0,
        Err(failure) => {
            let Options { socket, .. } = &options;
            complain(&failure.text(socket));
            match failure {
                Failure::Refused(_) => REFUSED,
                Failure::NotAllowed => exit::NO_PERMISSION,
                Failure::TimeIsOver(_) => exit::TEMPORARY,
                Failure::NoRelay(_) | Failure::Silent => exit::UNAVAILABLE,
            }
        }
    }
}

/// Writes to standard output. Whoever has closed it does not want the rest.
fn show(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes a line to standard error.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "tcprelayctl: {text}");
}
