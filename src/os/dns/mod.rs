//! Questions for the names of addresses, asked without waiting.
//!
//! With the feature `dns`, the system's c-ares asks; without it no address has a name.

mod message;

#[cfg(feature = "dns")]
mod cares;
#[cfg(feature = "dns")]
pub use cares::Channel;
#[cfg(not(feature = "dns"))]
mod nobody;
#[cfg(not(feature = "dns"))]
pub use nobody::Channel;

pub use message::Name;

use std::os::fd::RawFd;

/// Told when a channel's descriptor is to be watched for input and output; for neither when it
/// is about to be closed.
pub type Watch = Box<dyn Fn(RawFd, bool, bool)>;
