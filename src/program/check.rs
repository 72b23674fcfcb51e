//! `-P` and `-v`: a process that only looks at the configuration, for the user or for a broker that
//! wants to reload.

use super::service::Service;
use super::system::Live;
use super::Kind;
use crate::broker::{publish_snapshot, Checked, Findings};
use crate::channel::protocol::BROKER_VARIABLE;
use crate::os::anonymous::Bytes;
use crate::os::process::{self, exit, Descriptors, Ended, Identity, Program};
use crate::os::{self, channel, log};
use std::io::PipeWriter;
use std::os::fd::AsRawFd;

/// For whom a configuration is checked.
pub(super) enum Client {
    /// The user.
    User,
    /// A broker that wants to reload, with the pipe for what was read.
    Broker(Option<PipeWriter>),
}

/// Has a worker check its section too, the files for TLS being checked already, and returns the exit
/// status. `snapshot` has the texts for a worker of ours.
pub(super) fn finish(
    service: &Service<'_>,
    client: Client,
    checked: Checked,
    snapshot: Option<&Bytes>,
    system: &Live,
) -> Result<i32, i32> {
    let Service { process, options, config, single } = service;
    let own_workers = service.has_own_workers();
    if own_workers {
        // The files for TLS were checked here, so the worker need not do it again.
        std::env::remove_var(BROKER_VARIABLE);
    }
    if options.version && config.spawn.program.is_none() && !process.is_foreign() {
        process.print_version();
        return Ok(0);
    }
    // Run the check as the worker's user, which must be able to read the files: other programs'
    // workers read the configuration, unless there is a copy in shared memory, and our own what
    // their modules want.
    let (uid, _) = process::identity();
    let checks = matches!(client, Client::Broker(_)) || options.parse_only && uid == 0;
    let mut program = service.worker_program(service.worker_source());
    if !checks || *single || !own_workers && config.spawn.ipc_key != 0 {
        as_this_process(&mut program);
    }
    publish_snapshot(snapshot);
    let status = run_once(service, program, snapshot)?;
    if own_workers && status == 0 && !system.reader.is_complete() && !options.version {
        let text = format!(
            "WARNING: id = {}: only a worker can read this section, so that each of them reads its \
             files when it starts",
            service.relay_section()
        );
        system.report.message(log::Severity::WARNING, &text);
    }
    if let (0, Client::Broker(Some(pipe))) = (status, client) {
        let snapshot = system.reader.texts().encode();
        // If nobody reads the pipe, nobody waits for the findings.
        let _ = Findings { snapshot, checked }.write(pipe);
    }
    Ok(status)
}

/// Has a worker report the mistakes in its section, after those in the broker's.
pub(super) fn report_relay_section(service: &Service<'_>) {
    if service.process.kind != Kind::Spawnd && service.has_own_workers() {
        let mut program = service.worker_program(service.worker_source());
        as_this_process(&mut program);
        // The exit status is that of the mistakes reported before.
        let _ = run_once(service, program, None);
    }
}

/// With our own identity, in our own directory.
fn as_this_process(program: &mut Program) {
    program.identity = Identity::default();
    program.directory = None;
}

/// Runs one worker with `-P` or `-v`, and returns its exit status.
fn run_once(
    service: &Service<'_>,
    mut program: Program,
    snapshot: Option<&Bytes>,
) -> Result<i32, i32> {
    let flag = if service.options.version { "-v" } else { "-P" };
    program.arguments.insert(0, flag.into());
    let complain = |text: &str| log::stderr(&format!("{}: {text}\n", process::id()));
    let ended = channel::pair().and_then(|(_ours, theirs)| {
        let kept = snapshot.map(AsRawFd::as_raw_fd).into_iter().collect();
        let descriptors = Descriptors { stdin: theirs.into(), stderr: None, kept };
        process::wait_for(process::spawn(&program, descriptors, complain)?)
    });
    match ended {
        Ok(Ended::Status(status)) => Ok(status),
        Ok(Ended::Signal(signal)) => {
            complain(&format!("{}: killed by signal {signal}", program.path.display()));
            Err(exit::SOFTWARE)
        }
        Err(error) => {
            complain(&os::reason(&error));
            Err(exit::OS_ERROR)
        }
    }
}
