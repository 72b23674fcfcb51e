//! Questions for the names of addresses, asked without waiting.
//!
//! With the feature `dns`, the system's c-ares asks; without it no address has a name.

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

/// The name of an address, and for how many seconds it may be remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Letters, digits, `-`, `_`, `.`, `/` and `*`; not empty.
    pub text: String,
    /// Seconds.
    pub lifetime: u32,
}

/// Told when a channel's descriptor is to be watched for input and output; for neither when it
/// is about to be closed.
pub type Watch = Box<dyn Fn(RawFd, bool, bool)>;
