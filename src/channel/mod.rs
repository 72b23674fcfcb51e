//! What processes say to each other: the messages of broker and worker ([`protocol`]), a state machine
//! for each of them that says what may come when and what is said next ([`broker_side`],
//! [`worker_side`]), and the calls that take the channel's place in single-process mode ([`local`]).

#![forbid(unsafe_code)]

pub mod broker_side;
pub mod local;
pub mod protocol;
#[cfg(test)]
mod tests;
pub mod worker_side;

/// Whose program is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// This one: it knows all messages.
    Ours,
    /// Another one, or not known yet.
    Foreign,
}
