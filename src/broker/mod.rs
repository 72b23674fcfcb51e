//! The broker: accepts connections and hands them to workers.
//!
//! [`life`] is the process: it owns the parts and routes events to them. `listeners` bind and
//! accept, [`admission`] admits or refuses, `dispatch` passes connections to `workers` or lets them
//! wait. `workers` starts, hears, watches and dismisses worker processes, and chooses among them.
//! `reload` checks a configuration, and `handover` leaves everything to the next image.
//!
//! Which worker gets a connection ([`policy`]), which clients are refused ([`crate::config::acl`])
//! and which come back to the same worker ([`sticky`]) are plain data structures without I/O.

#![forbid(unsafe_code)]

pub mod addresses;
pub mod admission;
mod callers;
mod clients;
mod connection;
mod dispatch;
mod endpoints;
mod file_watch;
mod findings;
mod handover;
pub mod hosted;
pub mod ipc;
mod keepers;
mod kind;
pub mod life;
mod listeners;
mod options;
pub mod policy;
mod reload;
pub mod sticky;
pub mod text;
pub mod worker_process;
mod workers;

pub use callers::not_started;
pub use connection::Connection;
pub use findings::Findings;
pub use handover::{
    inherited_texts, publish_snapshot, Checked, Former, FormerSecrets, Handover, Image,
    REPORT_VARIABLE, VARIABLE,
};
pub use listeners::{open as open_listener, receive as receive_datagram};
pub use options::Options;
pub use reload::share_texts;
pub use workers::{Secrets, Servers, SIGNER_ARGUMENT, SIGNER_VARIABLE};
