//! The channel of single-process mode: function calls, as the worker runs in the broker's own
//! process and loop.

use super::briefing::Briefing;
use super::protocol::{Accept, Caller, Errand, Purpose};
use crate::event::{Event, Loop, TimerId, Token};
use crate::os::Socket;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Token kinds from this one on belong to the worker, those below to the process it runs in: the
/// broker in single-process mode.
pub const LOCAL_KINDS: u8 = 12;

/// Token kinds from this one on belong to the monitor, those below to the worker, which may run in
/// the same loop.
pub const MONITOR_KINDS: u8 = LOCAL_KINDS + 11;

/// Whether a connection's socket is ready for a session: non-blocking, with the options that our
/// own broker's listeners pass on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// It is.
    Yes,
    /// The worker has to see to that.
    No,
}

/// A worker that runs in the broker's loop.
pub trait LocalWorker {
    /// Takes a connection.
    fn accept(&mut self, events: &mut Loop, socket: Socket, accept: &Accept);
    /// A descriptor of a kind from [`LOCAL_KINDS`] on is ready.
    fn event(&mut self, events: &mut Loop, event: Event);
    /// A timer of a kind from [`LOCAL_KINDS`] on has expired.
    fn timer(&mut self, events: &mut Loop, timer: TimerId, token: Token);
    /// The end of a turn of the loop. Returns how many sessions have ended since the last turn.
    fn turn(&mut self, events: &mut Loop) -> usize;
    /// The numbers of clients whose sessions have ended since the last call, one for each session;
    /// `None` from a worker that does not tell.
    fn left(&mut self) -> Option<Vec<u32>>;
    /// How many sessions are open.
    fn sessions(&self) -> usize;
    /// The most connections it can handle now, if that changes while it runs.
    fn limit(&self) -> Option<usize> {
        None
    }
    /// The memory that it shares with its monitor, for the next image.
    fn zone(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// True if it takes clients of the control socket.
    fn takes_callers(&self) -> bool {
        false
    }
    /// Takes a client of the control socket.
    fn call(&mut self, _events: &mut Loop, _socket: Socket, _caller: Caller) {}
    /// What the broker has to do for a caller.
    fn errand(&mut self) -> Option<Errand> {
        None
    }
    /// The monitor beside it, if there is one, is told what it has to know of the broker, and gets
    /// the sockets at which it answers.
    fn brief(
        &mut self,
        _events: &mut Loop,
        _briefing: Briefing,
        _endpoints: Vec<(Purpose, OwnedFd)>,
    ) {
    }
    /// The broker drains: sessions may go on until the drain timeout, if there is one.
    fn drain(&mut self, events: &mut Loop);
    /// The process is about to exit.
    fn end(&mut self, events: &mut Loop);
}
