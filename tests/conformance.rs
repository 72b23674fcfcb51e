//! Runs the table of expectations (`conformance.tsv`) against the programs that were built.
//!
//! Every case has a runner: those of the configuration and the command line are data, the
//! others are functions that do what the table says with real processes and sockets. A case
//! without a runner and without a reason to be left out fails the test.
//!
//! `TCPRELAY_CONFORMANCE=E0,P003` runs the cases whose ids begin with one of the words.

#[path = "common/mod.rs"]
mod common;

#[path = "conformance/cli.rs"]
mod cli;
#[path = "conformance/config.rs"]
mod config;
#[path = "conformance/crash.rs"]
mod crash;
#[path = "conformance/distribution.rs"]
mod distribution;
#[path = "conformance/fake.rs"]
mod fake;
#[path = "conformance/logging.rs"]
mod logging;
#[path = "conformance/overload.rs"]
mod overload;
#[path = "conformance/protocol.rs"]
mod protocol;
#[path = "conformance/relay.rs"]
mod relay;
#[path = "conformance/runner.rs"]
mod runner;
#[path = "conformance/signals.rs"]
mod signals;
#[path = "conformance/source.rs"]
mod source;
#[path = "conformance/start.rs"]
mod start;
#[path = "conformance/support.rs"]
mod support;
#[path = "conformance/syslog.rs"]
mod syslog;
#[path = "conformance/titles.rs"]
mod titles;
#[path = "conformance/tls.rs"]
mod tls;

fn main() -> std::process::ExitCode {
    // Brokers execute this program as their worker when a test wants to play that part.
    if let Some(status) = fake::main() {
        return status;
    }
    runner::main()
}
