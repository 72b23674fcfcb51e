//! Runs the table of expectations (`conformance.tsv`) against the built programs.
//!
//! Every case has a runner. Cases about the configuration and the command line are data; the others
//! are functions that do what the table says with real processes and sockets. A case fails the test
//! if it has neither a runner nor a documented reason to be left out.
//!
//! `TCPRELAY_CONFORMANCE=E0,P003` runs only the cases whose ids begin with one of these prefixes.

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
#[path = "conformance/failover.rs"]
mod failover;
#[path = "conformance/fake.rs"]
mod fake;
#[path = "conformance/listeners.rs"]
mod listeners;
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
#[path = "conformance/timeouts.rs"]
mod timeouts;
#[path = "conformance/titles.rs"]
mod titles;
#[path = "conformance/tls.rs"]
mod tls;

fn main() -> std::process::ExitCode {
    // Brokers execute this program as their worker when a test plays the worker.
    if let Some(status) = fake::main() {
        return status;
    }
    runner::main()
}
