//! What broker and worker say to each other: the messages ([`protocol`]), a state machine for each
//! side that says which message is allowed when and what to say next ([`broker_side`],
//! [`worker_side`]), the function calls that replace the channel in single-process mode
//! ([`local`]), and the table of clients that both sides keep ([`clients`]).

#![forbid(unsafe_code)]

pub mod briefing;
pub mod broker_side;
pub mod clients;
pub mod link;
pub mod local;
pub mod protocol;
pub mod signing;
#[cfg(test)]
mod tests;
pub mod tether;
pub mod worker_side;

/// Whose program is at the other end of the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// This program: it knows all messages.
    Ours,
    /// Another program, or not known yet.
    Foreign,
}
