//! Remotes: which there are ([`registry`]), which one is next ([`balance`]), what workers know of them in
//! common ([`zone`], with [`leases`] of places there), and how one is reached ([`dial`]).

#![forbid(unsafe_code)]

pub mod balance;
pub mod dial;
pub mod handshake;
pub mod leases;
mod options;
pub mod registry;
pub mod remote;
pub mod zone;

pub use options::try_all as try_options;
