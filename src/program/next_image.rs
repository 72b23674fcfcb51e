//! The next image of a broker: its environment, and what happens if it cannot start.

use super::{own, Process};
use crate::broker::{not_started, text, FormerSecrets, Handover, Image, REPORT_VARIABLE, VARIABLE};
use crate::channel::protocol::BROKER_VARIABLE;
use crate::os::signals::{self, Signal};
use crate::os::{self, log};
use std::ffi::OsString;
use std::time::{Duration, Instant};

/// The first pause before an image that could not start is executed again, and how often the pause
/// is doubled.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MOST_DOUBLINGS: u32 = 4;

/// Pauses, then executes this image again with what the former one left. Returns an exit status if
/// it is to exit instead.
pub(super) fn start_again(process: &Process, mut handover: Handover, status: i32) -> i32 {
    signals::block_all();
    not_started(&mut handover.callers, status);
    let mut pause = FIRST_PAUSE * (1 << handover.attempt.min(MOST_DOUBLINGS));
    let text = format!("the service cannot be started (status {status})");
    loop {
        log::message_at(
            log::Severity::ERROR,
            &format!("{text}, it will be tried again in {} ms", pause.as_millis()),
        );
        let deadline = Instant::now() + pause;
        while Instant::now() < deadline {
            if signals::is_pending(Signal::SIGTERM) || signals::is_pending(Signal::SIGINT) {
                log::message(text::EXITING);
                return 0;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        handover.attempt = handover.attempt.saturating_add(1);
        if signals::is_pending(Signal::SIGHUP) {
            // SIGHUP: the files may be better now than what was checked.
            handover.snapshot = None;
            handover.secrets = handover.secrets.take().and_then(|secrets| {
                let (tickets, _) = secrets.decode()?;
                FormerSecrets::new(&tickets, None).ok()
            });
        }
        let environment = environment(process);
        let image = Image {
            executable: &process.executable(),
            arguments: &process.arguments,
            environment: &environment,
        };
        let error = handover.give(&image);
        log::message(&format!("execve ({}): {}", image.executable.display(), os::reason(&error)));
        signals::block_all();
        pause = FIRST_PAUSE * (1 << MOST_DOUBLINGS);
    }
}

/// The environment without the variables meant for this image alone.
pub(super) fn environment(process: &Process) -> Vec<(OsString, OsString)> {
    const PRIVATE: [&str; 7] = [
        "LISTEN_PID",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        BROKER_VARIABLE,
        REPORT_VARIABLE,
        own::VARIABLE,
        own::LISTENERS,
    ];
    let mut environment = process.environment.clone();
    environment.retain(|(name, _)| {
        let name = name.to_string_lossy();
        !PRIVATE.contains(&&*name) && !name.starts_with(VARIABLE)
    });
    environment
}
