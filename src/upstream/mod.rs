//! Remotes: which one is next ([`balance`]), and what workers know of them in common ([`zone`]).

#![forbid(unsafe_code)]

pub mod balance;
pub mod leases;
pub mod options;
pub mod zone;
