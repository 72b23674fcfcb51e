//! The worker: relays sessions between clients and remotes.
//!
//! A [`session`](self) is in one state at a time: its client arrives (`handshake`, if there is TLS), is
//! admitted (`authorize`), gets a remote (`connect`), and is relayed (`relaying`). `pump` moves the bytes
//! of one `direction` of the `pair` of ends, with TLS by [`crate::tls`] or by the `kernel`. [`engine`] has
//! all sessions over the event loop, and [`process`] is the process around it with its [`link`] to the
//! broker.

#![forbid(unsafe_code)]

mod access;
mod authorize;
mod client;
mod connect;
mod direction;
pub mod engine;
mod handshake;
mod kernel;
pub mod link;
mod pair;
mod probation;
pub mod process;
mod pump;
mod relaying;
mod session;
mod shared;
mod table;
#[cfg(test)]
mod tests;
