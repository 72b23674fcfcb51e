//! Log lines of the broker, shared by our own broker and those that C code has built of its parts.

use crate::channel::clients::Refusal;
use crate::config::broker::Overload;
use crate::os::address::ScopedIp;
use std::ffi::CStr;
use std::fmt::Display;

/// On SIGTERM and SIGINT.
pub const EXITING: &str = "SIGTERM: exiting";
/// On SIGHUP.
pub const RESTARTING: &str = "SIGHUP: restarting";
/// The number of users fell below the limit.
pub const RESUMING: &str = "resuming normal operation";
/// A worker cannot use its configuration, and the broker exits.
pub const BAD_CONFIGURATION: &str = "Child reported fatal configuration problem. Exiting.";
/// Workers of another program do not say whose sessions have ended.
pub const UNCOUNTED: &str =
    "client sessions max is without effect: the workers are another program";
/// No listener could be opened.
pub const NOTHING_BOUND: &str = "Failed to bind to any address or port.";

/// A listener was opened.
pub fn bound(address: &dyn Display) -> String {
    format!("bind to {address} succeeded")
}

/// A listener could not be opened. A delay of 0 seconds means no retry.
pub fn not_bound(address: &dyn Display, retry_delay: u32) -> String {
    match retry_delay {
        0 => format!("bind to {address} failed."),
        seconds => format!("bind to {address} failed. Will retry every {seconds} seconds."),
    }
}

/// A client that the access list denies.
pub fn rejected(client: ScopedIp) -> String {
    format!("connection attempt from [{client}] rejected")
}

/// A client that is beyond its limits.
pub fn beyond(client: ScopedIp, refusal: Refusal) -> String {
    format!("{}: beyond its {refusal}", rejected(client))
}

/// A worker has said how many connections it can handle.
pub fn limited(most: usize) -> String {
    format!("child limits maximum number of users to {most}")
}

/// What happens to new connections while the limit is reached.
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

/// The limit of connections is reached.
pub fn full(limit: usize, doing: &str) -> String {
    format!("limit of {limit} concurrent users reached, {doing} new connections")
}

/// A worker was killed because it broke the rules, or hung.
pub fn killed(pid: u32, why: &str) -> String {
    format!("child (pid {pid}) {why}: it is killed")
}
