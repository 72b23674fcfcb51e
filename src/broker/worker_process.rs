//! The command line of a worker process, and its start, for our own broker and those that C code
//! has built.

use crate::os::process::{self, Descriptors, Pid, Program};
use crate::os::{self, channel, log, Channel};
use std::ffi::OsString;
use std::io;
use std::os::fd::RawFd;

/// The arguments of a worker: \[-d LEVEL] \[-D] \[SOURCE \[ID]].
pub fn arguments(
    debug: u32,
    debug_to_stderr: bool,
    source: Option<OsString>,
    id: Option<OsString>,
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    if debug != 0 {
        arguments.extend(["-d".into(), debug.to_string().into()]);
    }
    if debug_to_stderr {
        arguments.push("-D".into());
    }
    if let Some(source) = source {
        // The id is positional too, so it needs a source before it.
        arguments.push(source);
        arguments.extend(id);
    }
    arguments
}

/// A worker process that was started.
pub struct Started {
    /// Its process.
    pub pid: Pid,
    /// The broker's end of its channel.
    pub channel: Channel,
    /// A copy of the worker's end of the channel, which is also its standard input.
    pub inbox: Channel,
}

/// Starts a worker with a channel. `buffer` is the size of its buffers, or 0 for the system's;
/// `kept` stays open in the worker, and so does the log file. The error names the call that failed.
pub fn start(
    program: &Program,
    buffer: i32,
    kept: Option<RawFd>,
) -> Result<Started, (&'static str, io::Error)> {
    let (ours, theirs) = channel::pair().map_err(|error| ("socketpair", error))?;
    ours.refuse_descriptors();
    if buffer > 0 {
        for end in [&ours, &theirs] {
            if let Err(error) = end.set_buffer_sizes(buffer) {
                log::braked(log::Kind::Worker, || format!("tcp bufsize: {}", os::reason(&error)));
            }
        }
    }
    let inbox = theirs.try_clone().map_err(|error| ("dup", error))?;
    let kept = kept.into_iter().chain(log::descriptor()).collect();
    let descriptors = Descriptors { stdin: theirs.into(), stderr: None, kept };
    let pid =
        process::spawn(program, descriptors, log::message).map_err(|error| ("fork", error))?;
    Ok(Started { pid, channel: ours, inbox })
}
