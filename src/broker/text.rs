//! What the broker says in the log: its own lines, and those of brokers that C code has built of its
//! parts.

use crate::config::broker::Overload;
use crate::os::address::ScopedIp;
use std::ffi::CStr;
use std::fmt::Display;

/// SIGTERM, and SIGINT.
pub const EXITING: &str = "SIGTERM: exiting";
/// SIGHUP.
pub const RESTARTING: &str = "SIGHUP: restarting";
/// The limit of users was left.
pub const RESUMING: &str = "resuming normal operation";
/// A worker cannot use its configuration, and the broker ends.
pub const BAD_CONFIGURATION: &str = "Child reported fatal configuration problem. Exiting.";
/// No listener could be opened.
pub const NOTHING_BOUND: &str = "Failed to bind to any address or port.";

/// A listener was opened.
pub fn bound(address: &dyn Display) -> String {
    format!("bind to {address} succeeded")
}

/// It was not; a delay of 0 seconds is none.
pub fn not_bound(address: &dyn Display, retry_delay: u32) -> String {
    match retry_delay {
        0 => format!("bind to {address} failed."),
        seconds => format!("bind to {address} failed. Will retry every {seconds} seconds."),
    }
}

/// A client that may not connect.
pub fn rejected(client: ScopedIp) -> String {
    format!("connection attempt from [{client}] rejected")
}

/// A worker has said how many connections it can handle.
pub fn limited(most: usize) -> String {
    format!("child limits maximum number of users to {most}")
}

/// What is done with new connections when there are as many as there may be.
pub fn doing(overload: Overload) -> &'static str {
    doing_for_c(overload).to_str().unwrap_or_default()
}

/// As [`doing`], for C code to keep.
pub fn doing_for_c(overload: Overload) -> &'static CStr {
    match overload {
        Overload::Queue => c"queueing",
        Overload::Close => c"immediately closing",
        Overload::Reset => c"resetting",
    }
}

/// There are as many connections as there may be.
pub fn full(limit: usize, doing: &str) -> String {
    format!("limit of {limit} concurrent users reached, {doing} new connections")
}

/// A worker that has done something it may not do.
pub fn killed(pid: u32, why: &str) -> String {
    format!("child (pid {pid}) {why}: it is killed")
}
