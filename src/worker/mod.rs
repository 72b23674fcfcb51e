//! The worker: relays sessions between clients and remotes.
//!
//! `pump` moves the bytes of one `direction`, with TLS by [`crate::tls`] or by the `kernel`,
//! [`engine`] is the life of all sessions over the event loop, `handshake` its part with TLS handshakes,
//! and [`process`] the process around it with its [`link`] to the broker.

#![forbid(unsafe_code)]

mod access;
mod authorize;
mod direction;
pub mod engine;
mod handshake;
mod kernel;
pub mod link;
mod probation;
pub mod process;
mod pump;
mod session;

mod share;
mod table;
