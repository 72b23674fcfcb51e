//! Reverse DNS: looks up the names of addresses without blocking.
//!
//! With the feature `dns` the system's c-ares does the lookups; without it no address has a name.

#[cfg(feature = "dns")]
mod cares;
#[cfg(any(feature = "dns", test))]
mod message;
#[cfg(feature = "dns")]
pub use cares::Channel;
#[cfg(not(feature = "dns"))]
mod nobody;
#[cfg(not(feature = "dns"))]
pub use nobody::Channel;

use std::os::fd::RawFd;

/// The name of an address, and how long it may be cached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Letters, digits, `-`, `_`, `.`, `/` and `*`; not empty.
    pub text: String,
    /// How long the name may be cached, in seconds.
    pub lifetime: u32,
}

/// Called when a channel's descriptor must be watched for input and output. Both flags are false
/// when the descriptor is about to be closed.
pub type Watch = Box<dyn Fn(RawFd, bool, bool)>;
