//! Both ends of a session and its two directions.

use super::direction::{Buffers, Direction, Left, Side, State};
use super::pump::{pump, say_goodbye, Ending, Flow, Pumped, REPLY_LIMIT, UNLIMITED};
use crate::event::{Interest, Loop};
use crate::os::address::Address;
use crate::os::Socket;
use crate::tls::stream::Stream;
use crate::upstream::remote::RemoteId;

/// After this many milliseconds without traffic a session starts with short TLS records again.
const PAUSE: u64 = 1000;

/// The ends of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Client,
    Upstream,
}

impl End {
    pub(super) fn other(self) -> End {
        match self {
            End::Client => End::Upstream,
            End::Upstream => End::Client,
        }
    }
}

/// Whether to poll an end for a reset while it is neither read nor written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Up,
    /// The end hung up, without an error: polling it for hangups again would spin.
    HungUp,
}

impl Link {
    /// What to watch an end for: `wanted` or, if that is empty, resets.
    pub(super) fn interest(self, wanted: Interest) -> Interest {
        match self {
            Link::Up if wanted.is_empty() => Interest::HANGUP,
            _ => wanted,
        }
    }
}

/// TLS state of the ends of a session; allocated only if an end has TLS.
#[derive(Debug, Default)]
pub(super) struct Tls {
    pub(super) client: Option<Stream>,
    pub(super) upstream: Option<Stream>,
    /// The client's address.
    pub(super) address: Option<Address>,
}

/// The upstream end of a session, and both directions. The client's socket belongs to the session.
pub(super) struct Pair {
    pub(super) upstream: Socket,
    pub(super) upstream_link: Link,
    /// The remote lent to the session.
    pub(super) remote: RemoteId,
    /// Client to remote.
    pub(super) up: Direction,
    /// Remote to client.
    pub(super) down: Direction,
    pub(super) tls: Option<Box<Tls>>,
}

impl Pair {
    pub(super) fn end<'a>(&'a self, end: End, client: &'a Socket) -> &'a Socket {
        match end {
            End::Client => client,
            End::Upstream => &self.upstream,
        }
    }

    /// The direction that reads from `end`.
    pub(super) fn direction(&self, end: End) -> &Direction {
        match end {
            End::Client => &self.up,
            End::Upstream => &self.down,
        }
    }

    pub(super) fn direction_mut(&mut self, end: End) -> &mut Direction {
        match end {
            End::Client => &mut self.up,
            End::Upstream => &mut self.down,
        }
    }

    /// The direction that reads from `end`, with both ends, to read no more than `most` bytes.
    #[inline]
    pub(super) fn flow<'a>(&'a mut self, end: End, client: &'a Socket, most: usize) -> Flow<'a> {
        let (client_tls, upstream_tls) = match &mut self.tls {
            Some(tls) => (tls.client.as_mut(), tls.upstream.as_mut()),
            None => (None, None),
        };
        let client = Side { fd: client, tls: client_tls };
        let upstream = Side { fd: &self.upstream, tls: upstream_tls };
        let (up, down) = (&mut self.up, &mut self.down);
        match end {
            End::Client => Flow { direction: up, back: down, source: client, sink: upstream, most },
            End::Upstream => {
                Flow { direction: down, back: up, source: upstream, sink: client, most }
            }
        }
    }

    /// Pumps the direction that reads from `end`, and tells the loop what that showed about
    /// readiness.
    pub(super) fn pump(
        &mut self,
        end: End,
        client: &Socket,
        ending: Ending,
        buffers: &mut Buffers,
        events: &mut Loop,
    ) -> Pumped {
        self.pump_some(end, client, ending, UNLIMITED, buffers, events)
    }

    /// As [`pump`](Self::pump), but reads no more than `most` bytes.
    #[inline]
    pub(super) fn pump_some(
        &mut self,
        end: End,
        client: &Socket,
        ending: Ending,
        most: usize,
        buffers: &mut Buffers,
        events: &mut Loop,
    ) -> Pumped {
        let reads_on = events.reads_on(self.end(end, client));
        let pumped = pump(self.flow(end, client, most), buffers, ending, reads_on);
        let source = self.end(end, client);
        match pumped.left {
            Left::Perhaps => {}
            Left::NothingYet => events.read_in_part(source),
            Left::Nothing => events.blocked(source, Interest::READ),
        }
        if self.direction(end).wants_write() {
            events.blocked(self.end(end.other(), client), Interest::WRITE);
        }
        pumped
    }

    /// What to do when the direction that reads from `end` ends, while both ends are still
    /// connected.
    pub(super) fn ending(&self, end: End) -> Ending {
        // The other direction has ended too, and closing the socket tells the sink as well.
        if self.direction(end.other()).state == State::Shut {
            Ending::Close
        } else {
            Ending::Shutdown
        }
    }

    /// Takes spliced directions back from the kernel.
    pub(super) fn take_back(&mut self, client: &Socket) {
        for end in [End::Client, End::Upstream] {
            // Ignored: a broken end is known already, or no longer matters.
            let _ = self.flow(end, client, UNLIMITED).take_back();
        }
    }

    pub(super) fn is_spliced(&self, end: End) -> bool {
        self.direction(end).state == State::Spliced
    }

    /// True if nothing moves any more in either direction.
    pub(super) fn is_shut(&self) -> bool {
        self.up.state == State::Shut && self.down.state == State::Shut
    }

    /// Sends close_notify to the ends with TLS, if that can be done at once.
    pub(super) fn say_goodbye(&mut self, client: &Socket, buffers: &mut Buffers) {
        let Some(tls) = &mut self.tls else {
            return;
        };
        let mut side = Side { fd: client, tls: tls.client.as_mut() };
        say_goodbye(&mut side, &self.down, buffers);
        let mut side = Side { fd: &self.upstream, tls: tls.upstream.as_mut() };
        say_goodbye(&mut side, &self.up, buffers);
    }

    /// Lets TLS start with short records again after a pause. Call it before bytes move; `active`
    /// is when they last did.
    pub(super) fn stir(&mut self, active: u64, now: u64) {
        if let Some(tls) = self.tls.as_mut().filter(|_| now >= active + PAUSE) {
            for stream in [&mut tls.client, &mut tls.upstream].into_iter().flatten() {
                stream.paused();
            }
        }
    }

    /// What to watch an end for.
    pub(super) fn interest(&self, end: End, link: Link) -> Interest {
        let (from, to) = (self.direction(end), self.direction(end.other()));
        let mut wanted = Interest::empty();
        wanted.set(Interest::READ, from.wants_read() && to.unwritten() <= REPLY_LIMIT);
        wanted.set(Interest::WRITE, to.wants_write());
        link.interest(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::relay::{Relay, Remote};
    use crate::upstream::balance::Tried;
    use crate::upstream::registry::Registry;

    #[test]
    fn an_end_that_takes_no_answers_is_not_polled_for_reading() {
        let (upstream, _theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let remote = Remote::new(Address::parse("/nowhere").expect("a path"));
        let settings = Relay { remotes: vec![remote], ..Relay::default() };
        let mut registry = Registry::new(&settings, Vec::new());
        let mut pair = Pair {
            upstream: upstream.into(),
            upstream_link: Link::Up,
            remote: registry.select(None, None, &mut Tried::default(), 0).expect("a remote"),
            up: Direction::default(),
            down: Direction::default(),
            tls: None,
        };
        assert!(pair.interest(End::Client, Link::Up).contains(Interest::READ));
        pair.down = Direction::holding(vec![0; REPLY_LIMIT]);
        assert!(pair.interest(End::Client, Link::Up).contains(Interest::READ));
        pair.down = Direction::holding(vec![0; REPLY_LIMIT + 1]);
        assert_eq!(pair.interest(End::Client, Link::Up), Interest::WRITE);
    }
}
