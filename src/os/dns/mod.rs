//! DNS without blocking: the names of addresses, the addresses of hosts, and services.
//!
//! With the feature `dns` the system's c-ares does the lookups; without it nobody has a name, and
//! nothing is found.

#[cfg(feature = "dns")]
mod cares;
pub mod hosts;
pub mod message;
#[cfg(feature = "dns")]
pub use cares::Channel;
#[cfg(not(feature = "dns"))]
mod nobody;
#[cfg(not(feature = "dns"))]
pub use nobody::Channel;

use std::net::IpAddr;
use std::os::fd::RawFd;

/// The name of an address, and how long it may be cached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Letters, digits, `-`, `_`, `.`, `/` and `*`; not empty.
    pub text: String,
    /// How long the name may be cached, in seconds.
    pub lifetime: u32,
}

/// A host that offers a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The smallest comes first.
    pub priority: u16,
    /// Its share among those with the same priority.
    pub weight: u16,
    /// Not 0.
    pub port: u16,
    /// The host: letters, digits, `-`, `_` and `.`; not empty.
    pub target: String,
}

/// Who offers a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    /// In the order of the answer.
    pub list: Vec<Service>,
    /// How long this may be cached, in seconds.
    pub lifetime: u32,
}

/// The addresses of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// In the order of the answer.
    pub list: Vec<IpAddr>,
    /// How long they may be cached, in seconds.
    pub lifetime: u32,
}

/// Which addresses of a host are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// All.
    Any,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The servers say that there is none.
    Nothing,
    /// It is not known; the reason.
    Unknown(String),
}

/// Called when a channel's descriptor must be watched for input and output. Both flags are false
/// when the descriptor is about to be closed.
pub type Watch = Box<dyn Fn(RawFd, bool, bool)>;
