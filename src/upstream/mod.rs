//! Remotes: which one is next ([`balance`]), and what workers know of them in common ([`ledger`]).

#![forbid(unsafe_code)]

pub mod balance;
pub mod ledger;
pub mod sharing;
