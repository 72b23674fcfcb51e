//! The broker: accepts connections and hands them to worker processes.
//!
//! Who gets a connection ([`policy`]), whom to refuse ([`acl`]) and who comes back to the same
//! worker ([`sticky`]) are plain data structures without input or output; [`life`] moves the
//! sockets and processes accordingly.

#![forbid(unsafe_code)]

mod accept;
pub mod acl;
mod connection;
mod findings;
mod handover;
pub mod hosted;
mod kind;
pub mod life;
mod listeners;
pub mod policy;
mod reload;
pub mod sticky;
pub mod text;
mod watch;
mod worker;
pub mod worker_process;

pub use connection::Connection;
pub use findings::Findings;
pub use handover::{
    inherited_snapshot, publish_snapshot, Checked, Former, FormerSecrets, Handover, Image,
    REPORT_VARIABLE, VARIABLE,
};
pub use listeners::{open as open_listener, receive as receive_datagram};
