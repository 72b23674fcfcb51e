//! The channel of single-process mode: function calls, as the worker is in the broker's own process
//! and loop.

use super::protocol::Accept;
use crate::event::{Event, Loop, TimerId, Token};
use std::os::fd::OwnedFd;

/// Kinds of tokens from this one on belong to the worker; those below to its process: the broker in
/// single-process mode.
pub const LOCAL_KINDS: u8 = 11;

/// A worker that runs in the loop of its broker.
pub trait LocalWorker {
    /// Takes a connection.
    fn accept(&mut self, events: &mut Loop, socket: OwnedFd, accept: &Accept);
    /// A descriptor of a kind from [`LOCAL_KINDS`] on is ready.
    fn event(&mut self, events: &mut Loop, event: Event);
    /// A timer of a kind from [`LOCAL_KINDS`] on has expired.
    fn timer(&mut self, events: &mut Loop, timer: TimerId, token: Token);
    /// The end of a turn of the loop. Returns how many sessions have ended since the last one.
    fn turn(&mut self, events: &mut Loop) -> usize;
    /// Open sessions.
    fn sessions(&self) -> usize;
    /// The most connections it can handle now, if that changes while it runs.
    fn limit(&self) -> Option<usize> {
        None
    }
    /// Sessions may go on for the drain timeout, if there is one.
    fn drain(&mut self, events: &mut Loop);
    /// The end: the process is about to exit.
    fn end(&mut self, events: &mut Loop);
}
