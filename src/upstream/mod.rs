//! Remotes: which ones there are ([`registry`]), which one is next ([`balance`]), what workers
//! share about them ([`zone`], with [`leases`] of its slots), which of them are up ([`health`]),
//! where those are that have names ([`names`]), what operators have decided about them ([`wish`]), how
//! to reach one ([`dial`]), and what it is told about its client ([`proxy`]).

#![forbid(unsafe_code)]

pub mod balance;
pub mod dial;
pub mod handshake;
pub mod health;
pub mod leases;
pub mod maglev;
pub mod names;
mod options;
pub mod proxy;
pub mod registry;
pub mod remote;
pub mod wish;
pub mod zone;

pub use options::{try_all as try_options, try_transparent};
