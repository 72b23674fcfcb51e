//! libmavis: tcprelay, an event-driven TCP forwarder and load balancer, and the C ABI through which
//! MAVIS modules and C programs use its parts.
//!
//! Dependencies point one way:
//! `program → broker | worker | monitor | signer → channel → upstream → tls → mavis → config →
//! event → os`.
//! Only `os` talks to the system. `config` produces plain data; balancing and the broker's policy
//! are pure. `library` has what only C programs need. `ffi` may use all of them, and none of them
//! uses `ffi`.

pub mod broker;
pub mod channel;
pub mod config;
pub mod event;
#[path = "../ffi/mod.rs"]
pub mod ffi;
pub mod library;
pub mod mavis;
pub mod monitor;
pub mod operator;
pub mod os;
pub mod program;
pub mod signer;
pub mod snapshot;
pub mod tls;
pub mod upstream;
pub mod worker;
