//! tcprelay: an event-driven TCP forwarder and load balancer.
//!
//! Dependencies point one way: `program → relay → spawnd → config → event → os`. `os`
//! alone talks to the system; `config` gives plain data; balancing and the broker's policy are
//! pure.

pub mod config;
pub mod event;
pub mod os;
pub mod program;
pub mod relay;
pub mod spawnd;
pub mod tls;
