//! The start of the process with the private keys (`tls keys = separate`).

use super::Process;
use crate::broker::SIGNER_ARGUMENT;
use crate::os::process::{self, exit};
use crate::os::sandbox::{self, Confinement, Needs, Network};
use crate::os::signals::{self, Signal, LOG_SIGNAL};
use crate::os::title::Title;
use crate::os::{self, log, Socket};
use crate::signer::process::{ask, serve};

/// The main function of a process whose environment has the broker's variable.
pub(super) fn main(process: &Process) -> i32 {
    log::set_process("signer");
    log::serve();
    process::set_umask(0o077);
    process::new_session();
    let _ = process::redirect_to_null(1);
    let control = match process::take_standard_input() {
        Ok(control) => Socket::from(control),
        Err(error) => {
            log::message(&os::reason(&error));
            return exit::OS_ERROR;
        }
    };
    // It ends with those that it serves, whoever stops them.
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGUSR1, LOG_SIGNAL] {
        let _ = signals::ignore(signal);
    }
    signals::unblock_all();
    Title::new(&process.name).text(SIGNER_ARGUMENT).show();
    let mut events = match super::quiet_loop() {
        Ok(events) => events,
        Err(status) => return status,
    };
    let needs =
        Needs { network: Network::None, log_streams: log::takes_streams(), ..Needs::default() };
    match sandbox::enter(&needs) {
        Ok(Confinement::Whole | Confinement::None | Confinement::WithoutThreads(_)) => {}
        Err(error) => log::message(&format!("private keys: no sandbox: {}", os::reason(&error))),
    }
    match ask(&control) {
        Some(keys) => serve(control, &keys, &mut events),
        None => exit::UNAVAILABLE,
    }
}
