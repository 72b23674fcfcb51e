//! What a session with limits has to know, and which limit has ended it.

use crate::channel::clients::ClientId;
use std::fmt;

/// A limit that has ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    Idle,
    Session,
    FirstByte,
    HalfClosed,
}

impl fmt::Display for Limit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Limit::Idle => "idle timeout",
            Limit::Session => "session timeout",
            Limit::FirstByte => "first byte timeout",
            Limit::HalfClosed => "half-closed timeout",
        })
    }
}

/// What a session with limits has to know.
#[derive(Debug, Default)]
pub(super) struct Allotment {
    /// When it began.
    pub(super) begun: u64,
    /// When both ends were there.
    pub(super) connected: u64,
    /// The broker's number for the client; 0 if it does not count sessions of clients.
    pub(super) number: u32,
    /// Whom a PROXY header has introduced, if this worker counts sessions of clients.
    pub(super) client: Option<ClientId>,
}
