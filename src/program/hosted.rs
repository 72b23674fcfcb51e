//! Other programs that use the library as a broker, or to start a worker.

use super::options::{self, Options};
use super::single::{self, HostedWorker};
use super::{broker, Kind, Process};
use crate::broker::life::Broker;
use crate::channel::local::LocalWorker;
use crate::config::common::known_debug_bits;
use crate::event::{Choice, Loop};
use crate::os::process::{self, exit};
use crate::os::socket::{self, Inherited};
use crate::os::{common_data, log};
use std::cell::RefCell;
use std::ffi::{c_void, OsString};
use std::path::Path;

/// How a call of the broker has ended.
pub enum Hosted {
    /// The broker has ended with this exit status.
    Ended(i32),
    /// It did not start: the program was executed as its own worker.
    Recursive,
    /// It goes on: it serves in the loop of this context, in one process with the worker.
    Single {
        /// What C code calls `struct io_context *`.
        context: *mut c_void,
        /// What the worker needs to know.
        worker: HostedWorker,
        /// How many connections the worker may have.
        limit: usize,
    },
}

thread_local! {
    /// A broker in one process with its worker, and the loop in which it serves.
    static BROKER: RefCell<Option<(Broker, *mut Loop)>> = const { RefCell::new(None) };
}

fn process(kind: Kind, arguments: Vec<OsString>) -> Process {
    let first = arguments.first().cloned().unwrap_or_default();
    let name = Path::new(&first).file_name().unwrap_or_default().to_string_lossy().into_owned();
    common_data::set_program_name(&name);
    log::open(&name, std::env::var_os("TCPRELAY_LOG_STDERR").is_some());
    Process { kind, name, arguments, environment: std::env::vars_os().collect() }
}

/// Reads the command line of a worker process. The error is the exit status.
pub fn hosted_worker(arguments: Vec<OsString>) -> Result<HostedWorker, i32> {
    let process = process(Kind::Foreign { broker: String::new() }, arguments);
    let options: Options = process.options(options::WORKER)?;
    if options.version {
        process.print_version();
        return Err(0);
    }
    common_data::set_debug(known_debug_bits(options.debug));
    common_data::set_parse_only(options.parse_only.into());
    common_data::set_debug_stderr(options.debug_to_stderr.into());
    let mut arguments = options.arguments.into_iter();
    let configuration = arguments.next().ok_or(exit::USAGE)?;
    Ok(HostedWorker { name: process.name, configuration, section: arguments.next() })
}

/// Runs the broker of another program, with the section `id`. `worker` is the program's worker, for
/// the case that both run in one process.
pub fn hosted_broker(
    arguments: Vec<OsString>,
    id: Option<String>,
    worker: Box<dyn LocalWorker>,
) -> Hosted {
    single::set_worker(worker);
    let mut process = process(Kind::Foreign { broker: String::new() }, arguments);
    let broker = id.unwrap_or_else(|| process.name.clone());
    process.kind = Kind::Foreign { broker };
    let inherited = socket::inspect(0);
    process::sanitize_descriptors();
    if inherited == Inherited::Channel {
        log::message("FATAL: Recursive execution prohibited.");
        return Hosted::Recursive;
    }
    let status = broker::main(&process, inherited);
    match single::take() {
        Some((broker, events, worker)) => {
            let limit = broker.limit();
            let (events, context) = events.into_foreign();
            BROKER.set(Some((broker, events)));
            Hosted::Single { context, worker, limit }
        }
        None => Hosted::Ended(status),
    }
}

/// Makes a loop for C code. `None` if that fails, or if the mechanism that the environment names is
/// not available, which is logged.
pub fn hosted_loop() -> Option<Loop> {
    if let Some(warning) = Choice::from_environment().warning {
        log::message(&warning);
        return None;
    }
    let (events, _) = super::make_loop().ok()?;
    common_data::refresh_clock();
    Some(events)
}

/// One turn of a loop that C code has made or was given: its own descriptors and timers, and the
/// broker's if the broker is in this process.
pub fn serve_foreign(events: &mut Loop) {
    let this = std::ptr::from_mut(events);
    let hosted = BROKER.with_borrow_mut(|slot| slot.take_if(|(_, of)| *of == this));
    match hosted {
        Some((mut broker, of)) => {
            let status = broker.turn(events);
            BROKER.set(Some((broker, of)));
            if let Some(status) = status {
                std::process::exit(status);
            }
        }
        None => {
            let next = events.foreign_run_due();
            events.foreign_poll(next);
        }
    }
}
