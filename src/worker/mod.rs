//! The worker: relays sessions between clients and remotes.
//!
//! A [`session`](self) is in exactly one state: its client arrives (`introduction`, with a PROXY
//! header, and `handshake`, on a TLS listener), is admitted (`authorize`), is connected to a remote (`connect`), and is relayed
//! (`relaying`). `pump` moves bytes in one `direction` between the two ends, the `pair`; TLS
//! records are handled by [`crate::tls`] or by the operating system (`kernel`). [`engine`] runs all
//! sessions on the event loop. [`process`] is the worker process around it.

#![forbid(unsafe_code)]

mod access;
mod allotment;
mod announcement;
mod authorize;
mod client;
mod connect;
mod counting;
mod direction;
pub mod engine;
mod handshake;
mod introduction;
mod kernel;
mod limits;
mod listing;
mod pair;
mod probation;
pub mod process;
mod pump;
mod queue;
mod relaying;
mod routes;
mod session;
mod shared;
mod signing;
mod table;
mod tally;
#[cfg(test)]
mod tests;
mod turns;
