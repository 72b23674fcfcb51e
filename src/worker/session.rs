//! One session: its client, its state, and what follows from each event.
//!
//! ```text
//! Introducing → one of these:
//! Arrived ─────────────────────┐
//! Detecting → Accepting → (Authorizing) → Choosing → Dialing → Relaying → Breaking → Lingering
//!                                           ↑ ↓  ↑_______|
//!                                      Short, Queued
//! ```
//!
//! Every event is a [`Cause`] for a step, and a step returns what is [`Next`]. `Engine::run` does
//! that, in a loop, until the session has to wait or is over.

use super::access::{Access, Outcome};
use super::allotment::{Allotment, Limit};
use super::client::{Accepting, Detecting, Introducing, KnownClient};
use super::direction::{Buffers, Direction, Side};
use super::pair::{End, Link, Pair};
use super::pump::say_goodbye;
use super::shared::Shared;
use crate::event::{Event, Interest, Loop, TimerId};
use crate::mavis::queries::Decision;
use crate::os::{self, Socket};
use crate::tls::summary::Summary;
use crate::upstream::balance::Tried;
use crate::upstream::dial::{self, Dial};
use crate::upstream::registry::Tag;
use crate::upstream::zone::counters::Refusal;

/// A client that needs a remote, and what was tried for it.
#[derive(Debug, Default)]
pub(super) struct Seeking {
    /// Present if more is known of the client than its socket.
    pub(super) client: Option<Box<KnownClient>>,
    /// Only remotes with this tag will do.
    pub(super) tag: Option<Tag>,
    /// `None` for most sessions, which have failed nowhere.
    pub(super) tried: Option<Box<Tried>>,
}

/// Whether a client that waits for admission has sent anything. Its data stays unread until there
/// is a remote to take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Nothing,
    Something,
}

/// The state of a session.
pub(super) enum State {
    /// The client is there, without TLS. The number is the engine's for the listener's `realm`.
    Arrived(u8),
    /// A PROXY header is to come before the client's first byte, or may come.
    Introducing(Box<Introducing>),
    /// It is not clear yet whether the client speaks TLS, or what it asks for there.
    Detecting(Box<Detecting>),
    /// The client is in its TLS handshake.
    Accepting(Box<Accepting>),
    /// Modules are being asked whether the client may connect.
    Authorizing {
        client: Option<Box<KnownClient>>,
        /// What its route leads to.
        tag: Option<Tag>,
        heard: Heard,
        timer: TimerId,
    },
    /// A remote has to be selected.
    Choosing(Seeking),
    /// This host was short of what the last connect attempts needed. `timer` expires when they are
    /// to be made again.
    Short { seeking: Seeking, timer: TimerId },
    /// All remotes that would do have as many sessions as they may. `timer` expires when the session
    /// gives up.
    Queued { seeking: Seeking, timer: Option<TimerId> },
    /// A remote is being connected to; meanwhile the client is not read.
    Dialing { seeking: Seeking, dial: Dial, timer: Option<TimerId> },
    /// Both ends are connected. While `probation` is armed, the remote may turn out to cut sessions
    /// short.
    Relaying { pair: Pair, probation: Option<TimerId> },
    /// The connection of the end `broken` failed. What it had sent is still delivered to the other
    /// end, which is then reset.
    Breaking { pair: Pair, broken: End },
    /// All of that was handed to the system, which has not sent `unsent` bytes of it yet.
    Lingering { pair: Pair, broken: End, unsent: u32, timer: TimerId },
    /// Moving from one state to the next, or over.
    Over,
}

/// A session. Kept small, as tens of thousands of them may be idle.
pub(super) struct Session {
    pub(super) client: Socket,
    pub(super) client_link: Link,
    /// When the last byte moved or the session last got further, in milliseconds of the loop's
    /// clock.
    pub(super) active: u64,
    /// The timer of its limits.
    pub(super) limit_timer: Option<TimerId>,
    /// Only if there are limits that need it.
    pub(super) allotment: Option<Box<Allotment>>,
    pub(super) access: Option<Box<Access>>,
    pub(super) state: State,
}

/// An event in the life of a session.
pub(super) enum Cause {
    /// It begins.
    Arrival,
    /// There may be descriptors again for the upstream socket.
    Room,
    /// An end is ready.
    Event(End, Event),
    /// The timer of its state has expired.
    Time(TimerId),
    /// The timer of its limits has expired.
    Limit(TimerId),
    /// Modules have decided about its client.
    Decision(Decision),
    /// There may be a remote for it.
    Place,
    /// It may go on with its handshake.
    Turn,
    /// This signature is there, or there will be none.
    Signed(u64),
}

/// How a session is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parting {
    Orderly,
    /// Both connections are reset.
    Reset,
}

/// What to do next.
pub(super) enum Next {
    /// Wait for the next event.
    Wait,
    /// Go on with the handshake, but not before it is this session's turn.
    Turn,
    /// Call [`Session::dial`].
    Dial,
    /// Call [`Session::pump`], for one end or for both.
    Pump(End, Option<End>),
    /// Close the session, which is over.
    Close(Outcome, Parting),
}

impl Next {
    /// The client has broken its connection.
    pub(super) fn client_broke() -> Next {
        Next::Close(Outcome::Broken(End::Client), Parting::Reset)
    }

    /// The session cannot be served.
    pub(super) fn refuse(why: Refusal, text: impl Into<String>) -> Next {
        Next::Close(Outcome::Refused(why, text.into()), Parting::Orderly)
    }
}

/// Reads what a client sends before it has a remote, and appends it to `early`. Returns how much
/// that was, 0 at its end; or what to do if there is nothing.
pub(super) fn read_early(
    client: &Socket,
    early: &mut Vec<u8>,
    scratch: &mut [u8],
) -> Result<usize, Next> {
    match client.read(scratch) {
        Ok(count) => {
            early.extend_from_slice(&scratch[..count]);
            Ok(count)
        }
        Err(error) if os::would_block(&error) => Err(Next::Wait),
        Err(_) => Err(Next::client_broke()),
    }
}

/// What a step works with.
pub(super) struct Context<'a> {
    /// The session's number.
    pub(super) index: u32,
    pub(super) shared: &'a mut Shared,
    pub(super) events: &'a mut Loop,
}

impl Session {
    pub(super) fn new(client: Socket, state: State, now: u64) -> Session {
        Session {
            client,
            client_link: Link::Up,
            active: now,
            limit_timer: None,
            allotment: None,
            access: None,
            state,
        }
    }

    /// Handles `cause`; returns what to do next.
    pub(super) fn step(&mut self, cause: Cause, context: &mut Context<'_>) -> Next {
        match cause {
            Cause::Event(end, event) => self.ready(end, event, context),
            Cause::Time(timer) => self.expired(timer, context),
            Cause::Limit(timer) => self.limit_expired(timer, context),
            Cause::Decision(decision) => self.decided(decision, context),
            Cause::Room | Cause::Place => Next::Dial,
            Cause::Signed(number) => self.signed(number, context),
            Cause::Arrival => match self.state {
                State::Arrived(realm) => self.admit(None, realm, context),
                State::Introducing(_) => self.introduce(context),
                State::Detecting(_) => self.detect(context),
                State::Accepting(_) => Next::Turn,
                _ => Next::Wait,
            },
            Cause::Turn => self.go_on_shaking(context),
        }
    }

    fn ready(&mut self, end: End, event: Event, context: &mut Context<'_>) -> Next {
        match (&self.state, end) {
            (State::Relaying { .. } | State::Breaking { .. } | State::Lingering { .. }, _) => {
                // Writable: the direction that ends here continues. Readable: the one that starts
                // here.
                match (event.writable, event.readable) {
                    (true, true) => Next::Pump(end.other(), Some(end)),
                    (true, false) => Next::Pump(end.other(), None),
                    (false, true) => Next::Pump(end, None),
                    (false, false) => self.hung_up(end, context),
                }
            }
            (State::Dialing { dial, .. }, End::Upstream) if dial.is_handshaking() => Next::Turn,
            (State::Dialing { .. }, End::Upstream) => {
                // With edge-triggered events, a ready socket without a hangup has no error.
                let sound = !event.hangup && context.events.has_edges();
                let cause = if sound { dial::Cause::Sound } else { dial::Cause::Ready };
                self.advance(cause, context).unwrap_or(Next::Dial)
            }
            (_, End::Upstream) | (State::Over, _) => Next::Wait,
            (State::Introducing(_), _) => self.introduce(context),
            (State::Detecting(_), _) => self.detect(context),
            (State::Accepting(_), _) => Next::Turn,
            (State::Authorizing { .. }, _) => self.heard(event),
            (
                State::Arrived(_)
                | State::Choosing(_)
                | State::Short { .. }
                | State::Queued { .. }
                | State::Dialing { .. },
                _,
            ) => self.client_waits(event),
        }
    }

    /// Without a remote the client is not read. It may take the rest of its handshake, or hang up.
    fn client_waits(&mut self, event: Event) -> Next {
        let Session { client, client_link, state, .. } = self;
        let tls = match state {
            State::Choosing(seeking)
            | State::Short { seeking, .. }
            | State::Queued { seeking, .. }
            | State::Dialing { seeking, .. } => &mut seeking.client,
            _ => &mut None,
        };
        let flushed = match tls {
            Some(tls) if event.writable => tls.flush(client),
            _ => Ok(()),
        };
        if flushed.is_err() || client.take_error().is_err() {
            return Next::client_broke();
        }
        if event.hangup {
            *client_link = Link::HungUp;
        }
        Next::Wait
    }

    fn expired(&mut self, expired: TimerId, context: &mut Context<'_>) -> Next {
        match &mut self.state {
            State::Introducing(introducing) if introducing.timer == Some(expired) => {
                introducing.timer = None;
                self.not_introduced(context)
            }
            State::Detecting(detecting) if detecting.timer == Some(expired) => {
                detecting.timer = None;
                Next::refuse(Refusal::Timeout, "handshake timeout")
            }
            State::Accepting(accepting) if accepting.timer == Some(expired) => {
                accepting.timer = None;
                self.not_accepted("handshake timeout", context)
            }
            State::Authorizing { timer, .. } if *timer == expired => self.unanswered(context),
            State::Short { timer, .. } if *timer == expired => self.try_again(context),
            State::Queued { timer, .. } if *timer == Some(expired) => {
                *timer = None;
                Next::Close(Outcome::Limited(Limit::Queue), Parting::Orderly)
            }
            State::Dialing { dial, timer, .. } if *timer == Some(expired) => {
                *timer = None;
                match dial.socket() {
                    Some(_) => self.advance(dial::Cause::Time, context).unwrap_or(Next::Dial),
                    None => Next::Dial,
                }
            }
            State::Relaying { pair, probation } if *probation == Some(expired) => {
                *probation = None;
                let remote = pair.remote;
                context.shared.proved(remote);
                Next::Wait
            }
            State::Lingering { timer, .. } if *timer == expired => self.linger(None, context),
            // The timer expired before it could be cancelled.
            _ => Next::Wait,
        }
    }

    /// True if something is known to be still on its way.
    pub(super) fn is_unfinished(&self) -> bool {
        let unsent = |client: &Option<Box<KnownClient>>| {
            client.as_ref().is_some_and(|client| client.has_unsent())
        };
        match &self.state {
            State::Breaking { .. } | State::Lingering { .. } => true,
            State::Relaying { pair, .. } => pair.up.wants_write() || pair.down.wants_write(),
            State::Accepting(accepting) => accepting.handshake.has_unsent(),
            State::Authorizing { client, .. } => unsent(client),
            State::Choosing(seeking)
            | State::Short { seeking, .. }
            | State::Queued { seeking, .. } => unsent(&seeking.client),
            State::Dialing { seeking, dial, .. } => unsent(&seeking.client) || dial.has_unsent(),
            State::Arrived(_) | State::Introducing(_) | State::Detecting(_) | State::Over => false,
        }
    }

    /// Both ends, if the session has two.
    pub(super) fn pair(&self) -> Option<&Pair> {
        match &self.state {
            State::Relaying { pair, .. }
            | State::Breaking { pair, .. }
            | State::Lingering { pair, .. } => Some(pair),
            _ => None,
        }
    }

    /// As [`pair`](Self::pair).
    pub(super) fn pair_mut(&mut self) -> Option<&mut Pair> {
        match &mut self.state {
            State::Relaying { pair, .. }
            | State::Breaking { pair, .. }
            | State::Lingering { pair, .. } => Some(pair),
            _ => None,
        }
    }

    /// Closes both ends, and gives back the remote, timers and buffers of the session.
    pub(super) fn close(mut self, outcome: &Outcome, parting: Parting, context: &mut Context<'_>) {
        let Context { index, shared, events } = context;
        let wake = self.allotment.as_ref().and_then(|allotment| allotment.wake);
        // Iterators over the three, and over the two sockets below, cost every session more.
        let mut cancel = |timer: Option<TimerId>| {
            if let Some(timer) = timer {
                events.cancel(timer);
            }
        };
        cancel(self.limit_timer);
        cancel(self.state_timer());
        cancel(wake);
        if let (State::Authorizing { .. }, Some(queries)) = (&self.state, &mut shared.queries) {
            queries.forget(events, *index);
        }
        if let State::Queued { .. } = &self.state {
            shared.queue.leave(*index);
        }
        if parting == Parting::Orderly {
            self.say_goodbye(&mut shared.buffers);
        }
        if let Some(client) = self.allotment.as_ref().and_then(|allotment| allotment.client) {
            shared.clients.leave(client);
        }
        let Session { client, state, .. } = &mut self;
        if let State::Relaying { pair, .. }
        | State::Breaking { pair, .. }
        | State::Lingering { pair, .. } = state
        {
            pair.take_back(client);
        }
        shared.count_end(*index, self.pair(), outcome, events.now());
        if let State::Dialing { dial, .. } = &self.state {
            shared.count_abandoned(dial.remote());
        }
        if let Some(access) = &self.access {
            let (pair, client, now) = (self.pair(), self.client_summary(), events.now());
            access.log(pair, client, &shared.registry, outcome, now);
        }
        let (upstream, remote) = match &self.state {
            State::Dialing { dial, .. } => (dial.socket(), Some(dial.remote())),
            _ => match self.pair() {
                Some(pair) => (Some(&pair.upstream), Some(pair.remote)),
                None => (None, None),
            },
        };
        let mut leave = |socket: &Socket| {
            events.remove(socket);
            if parting == Parting::Reset {
                socket.reset_on_close();
            }
        };
        leave(&self.client);
        if let Some(upstream) = upstream {
            leave(upstream);
        }
        remote.into_iter().for_each(|remote| shared.registry.release(remote));
        if let Some(pair) = self.pair_mut() {
            pair.up.abandon(&mut shared.buffers);
            pair.down.abandon(&mut shared.buffers);
        }
    }

    /// What was negotiated with the client in TLS.
    fn client_summary(&self) -> Option<&Summary> {
        let client = match &self.state {
            State::Authorizing { client, .. } => client,
            State::Choosing(seeking)
            | State::Short { seeking, .. }
            | State::Queued { seeking, .. }
            | State::Dialing { seeking, .. } => &seeking.client,
            _ => return self.pair()?.tls.as_ref()?.client.as_ref()?.summary(),
        };
        client.as_ref()?.stream()?.summary()
    }

    /// Sends close_notify to the ends with TLS, if that can be done at once.
    fn say_goodbye(&mut self, buffers: &mut Buffers) {
        let client = match &mut self.state {
            State::Relaying { pair, .. }
            | State::Breaking { pair, .. }
            | State::Lingering { pair, .. } => return pair.say_goodbye(&self.client, buffers),
            State::Authorizing { client, .. } => client,
            State::Choosing(seeking)
            | State::Short { seeking, .. }
            | State::Queued { seeking, .. }
            | State::Dialing { seeking, .. } => &mut seeking.client,
            _ => return,
        };
        if let Some(client) = client.as_mut().filter(|client| !client.has_unsent()) {
            let mut side = Side { fd: &self.client, tls: client.stream_mut() };
            say_goodbye(&mut side, &Direction::default(), buffers);
        }
    }

    /// The timer of the current state.
    pub(super) fn state_timer(&self) -> Option<TimerId> {
        match &self.state {
            State::Introducing(introducing) => introducing.timer,
            State::Detecting(detecting) => detecting.timer,
            State::Accepting(accepting) => accepting.timer,
            State::Authorizing { timer, .. }
            | State::Short { timer, .. }
            | State::Lingering { timer, .. } => Some(*timer),
            State::Dialing { timer, .. } | State::Queued { timer, .. } => *timer,
            State::Relaying { probation, .. } => *probation,
            State::Arrived(_) | State::Choosing(_) | State::Breaking { .. } | State::Over => None,
        }
    }

    /// Watches both ends for what the state waits for.
    pub(super) fn watch(&self, events: &mut Loop) {
        if let State::Relaying { pair, .. } = &self.state {
            events.set_interest(&self.client, pair.interest(End::Client, self.client_link));
            events.set_interest(&pair.upstream, pair.interest(End::Upstream, pair.upstream_link));
            return;
        }
        events.set_interest(&self.client, self.client_interest());
        match &self.state {
            State::Dialing { dial, .. } => {
                if let Some(socket) = dial.socket() {
                    events.set_interest(socket, dial.interest());
                }
            }
            State::Breaking { pair, .. } | State::Lingering { pair, .. } => {
                let interest = self.broken_interest(pair, End::Upstream, pair.upstream_link);
                events.set_interest(&pair.upstream, interest);
            }
            _ => {}
        }
    }

    /// What to watch the client for.
    pub(super) fn client_interest(&self) -> Interest {
        let link = self.client_link;
        let unsent = |client: &Option<Box<KnownClient>>| match client {
            Some(client) if client.has_unsent() => Interest::WRITE,
            _ => Interest::empty(),
        };
        match &self.state {
            State::Relaying { pair, .. } => pair.interest(End::Client, link),
            State::Breaking { pair, .. } | State::Lingering { pair, .. } => {
                self.broken_interest(pair, End::Client, link)
            }
            State::Introducing(_) | State::Detecting(_) => Interest::READ,
            State::Accepting(accepting) => accepting.handshake.interest(),
            State::Authorizing { client, heard: Heard::Nothing, .. } => {
                Interest::READ | unsent(client)
            }
            State::Authorizing { client, .. } => link.interest(unsent(client)),
            State::Choosing(seeking)
            | State::Short { seeking, .. }
            | State::Queued { seeking, .. }
            | State::Dialing { seeking, .. } => link.interest(unsent(&seeking.client)),
            State::Arrived(_) | State::Over => link.interest(Interest::empty()),
        }
    }

    /// Once all that the broken end had sent is delivered, nothing more comes from it, so it is not
    /// watched. The other end may break as well.
    fn broken_interest(&self, pair: &Pair, end: End, link: Link) -> Interest {
        match &self.state {
            State::Lingering { broken, .. } if *broken == end => Interest::empty(),
            _ => pair.interest(end, link),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_stays_small() {
        assert!(size_of::<Option<Session>>() <= 128, "{}", size_of::<Option<Session>>());
    }
}
