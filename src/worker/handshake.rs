//! TLS in the life of a session: detection, handshakes, and what goes wrong with it.

use super::access::Outcome;
use super::direction::{Next, State, Stop};
use super::engine::{kind, pump_end, Engine};
use super::pump::Ending;
use super::session::{End, Phase, Tls};
use crate::channel::protocol::Accept;
use crate::config::listen::flag;
use crate::event::{Loop, Token};
use crate::os::{self, log, socket};
use crate::tls::detect::{first, First};
use std::net::Shutdown;

/// How far a handshake has come.
enum Step {
    /// The other side is waited for.
    Waiting,
    Done,
    Failed(String),
}

const GONE: &str = "the connection has ended";

impl Engine {
    /// What a connection of its listener begins with; `None` without TLS. Fails if there is no way
    /// to serve it, which is said once.
    pub(super) fn client_tls(&mut self, accept: &Accept) -> Result<Option<(Tls, Phase)>, ()> {
        let versions = accept.tls_versions;
        if versions == 0 {
            return Ok(None);
        }
        let usable = versions.to_ne_bytes().iter().any(|byte| matches!(byte, 3 | 4));
        if self.tls.acceptor.is_none() || !usable {
            let why = if usable {
                "no tls cert-file is configured"
            } else {
                "the listener has no version of TLS that is known here"
            };
            if !std::mem::replace(&mut self.tls_unusable, true) {
                log::braked(log::Kind::Session, || {
                    format!("connection on a TLS listener closed: {why}")
                });
            }
            return Err(());
        }
        self.tls.renew_tickets(os::wall_clock());
        let mut tls = Tls { versions, ..Tls::default() };
        if accept.flags & flag::TLS_AUTO != 0 {
            return Ok(Some((tls, Phase::Detecting)));
        }
        self.accept_tls(&mut tls)?;
        Ok(Some((tls, Phase::Handshaking(End::Client))))
    }

    fn accept_tls(&self, tls: &mut Tls) -> Result<(), ()> {
        let acceptor = self.tls.acceptor.as_ref().ok_or(())?;
        // Fails only if memory has run out.
        let mut stream = acceptor.accept(tls.versions).map_err(|_| ())?;
        if self.settings.access_log || self.queries.is_some() {
            stream.want_summary();
        }
        if self.settings.tls.kernel {
            stream.want_kernel();
        }
        tls.client = Some(stream);
        Ok(())
    }

    /// Limits the time until the session's handshake, or its detection, is done.
    pub(super) fn arm_handshake(&mut self, events: &mut Loop, index: u32) {
        let timeout = u64::from(self.settings.tls.handshake_timeout) * 1000;
        if let (Some(session), true) = (self.sessions.get_mut(index), timeout > 0) {
            let token = Token::new(kind::PHASE, index);
            session.phase_timer = Some(events.arm(token, events.now() + timeout));
        }
    }

    pub(super) fn handshake_expired(&mut self, events: &mut Loop, index: u32) {
        match self.sessions.get_mut(index).map(|session| session.phase) {
            Some(Phase::Handshaking(end)) => {
                self.shaken(events, index, end, Step::Failed("handshake timeout".into()));
            }
            _ => self.finish(events, index, Outcome::Failed("handshake timeout".into()), false),
        }
    }

    /// Looks at the first bytes of a client that may speak TLS or not.
    pub(super) fn detect(&mut self, events: &mut Loop, index: u32) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        let Some(tls) = &mut session.tls else {
            return;
        };
        let scratch = &mut self.buffers.scratch;
        let count = socket::read(&session.client, scratch);
        match &count {
            &Ok(count) => tls.early.extend_from_slice(&scratch[..count]),
            Err(error) if os::would_block(error) => return,
            Err(_) => return self.finish(events, index, Outcome::Broken(End::Client), true),
        }
        // No TLS client ends its side before it has said anything.
        let ended = matches!(count, Ok(0));
        match first(&tls.early) {
            First::Undecided if ended => self.detected_plain(events, index),
            First::Undecided => {}
            First::Plain => self.detected_plain(events, index),
            First::Tls => {
                let hello = std::mem::take(&mut tls.early);
                let mut ends = std::mem::take(&mut **tls);
                let accepted = self.accept_tls(&mut ends);
                if let Some(session) = self.sessions.get_mut(index) {
                    session.tls = Some(Box::new(ends));
                    session.phase = Phase::Handshaking(End::Client);
                }
                let step = match accepted {
                    Ok(()) => self.shake_with(index, End::Client, &hello),
                    Err(()) => Step::Failed("out of memory".into()),
                };
                self.shaken(events, index, End::Client, step);
            }
        }
    }

    fn detected_plain(&mut self, events: &mut Loop, index: u32) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        session.phase = Phase::Connecting;
        if let Some(timer) = session.phase_timer.take() {
            events.cancel(timer);
        }
        self.begin(events, index);
    }

    /// Goes on with the handshake of an end, with what can be read.
    pub(super) fn shake(&mut self, events: &mut Loop, index: u32, end: End) {
        let step = self.shake_with(index, end, &[]);
        self.shaken(events, index, end, step);
    }

    /// Feeds the handshake of an end with `input`, then with what can be read.
    fn shake_with(&mut self, index: u32, end: End, input: &[u8]) -> Step {
        let Some(session) = self.sessions.get_mut(index) else {
            return Step::Waiting;
        };
        let Some((side, direction)) = session.outgoing(end) else {
            return Step::Waiting;
        };
        let Some(stream) = side.tls else {
            return Step::Waiting;
        };
        let buffers = &mut self.buffers;
        if direction.flush(side.fd, buffers).is_err() {
            return Step::Failed(GONE.into());
        }
        // The side that connects begins without having read anything.
        let mut given = (end == End::Peer || !input.is_empty()).then_some(input);
        loop {
            // What the handshake says, and whether there may be more to read at once.
            let progress = match given.take() {
                Some(input) => {
                    buffers.wire.clear();
                    (stream.handshake(input, &mut buffers.wire), true)
                }
                None => match socket::read(side.fd, &mut buffers.scratch) {
                    Ok(0) => return Step::Failed(GONE.into()),
                    Ok(count) => {
                        buffers.wire.clear();
                        let input = &buffers.scratch[..count];
                        let more = count == buffers.scratch.len();
                        (stream.handshake(input, &mut buffers.wire), more)
                    }
                    Err(error) if os::would_block(&error) => return Step::Waiting,
                    Err(error) => return Step::Failed(os::reason(&error)),
                },
            };
            // At once, even a ticket: it acknowledges what the client has sent, which may wait for
            // that with its first data.
            let sent = direction.send_output(side.fd, Next::Unknown, buffers);
            match progress {
                (Err(text), _) => return Step::Failed(text),
                _ if sent.is_err() => return Step::Failed(GONE.into()),
                (Ok(true), _) => return Step::Done,
                (Ok(false), true) => {}
                (Ok(false), false) => return Step::Waiting,
            }
        }
    }

    /// A handshake has come further, or to its end.
    fn shaken(&mut self, events: &mut Loop, index: u32, end: End, step: Step) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        let text = match step {
            Step::Waiting => return self.settle_interest(events, index),
            Step::Done => {
                if let Some(timer) = session.phase_timer.take() {
                    events.cancel(timer);
                }
                session.active = events.now();
                return match end {
                    End::Client => {
                        session.phase = Phase::Connecting;
                        self.begin(events, index);
                    }
                    End::Peer => self.connected(events, index),
                };
            }
            Step::Failed(text) => text,
        };
        match end {
            End::Client => {
                // A client that leaves without a word was a port scan, or a health check.
                if !session.stream(End::Client).is_some_and(|stream| stream.is_untouched()) {
                    self.tls_trouble(index, End::Client, &text);
                }
                self.finish(events, index, Outcome::Failed("TLS handshake failed".into()), false);
            }
            End::Peer => {
                self.attempt_failed(events, index, &format!("TLS: {text}"));
                self.connect(events, index);
            }
        }
    }

    /// The remote has been reached; it may want a TLS handshake now.
    pub(super) fn reached(&mut self, events: &mut Loop, index: u32) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        let connector =
            session.remote.and_then(|remote| self.tls.connectors[remote as usize].clone());
        let Some(connector) = connector else {
            return self.connected(events, index);
        };
        if let Some(timer) = session.phase_timer.take() {
            events.cancel(timer);
        }
        match connector.connect() {
            Ok(mut stream) => {
                if self.settings.tls.kernel {
                    stream.want_kernel();
                }
                session.tls.get_or_insert_default().peer = Some(stream);
                session.phase = Phase::Handshaking(End::Peer);
                self.arm_handshake(events, index);
                self.shake(events, index, End::Peer);
            }
            Err(errors) => {
                self.attempt_failed(events, index, &format!("TLS: {errors}"));
                self.connect(events, index);
            }
        }
    }

    /// Sends what the client has sent before the peer was there; false if the peer is gone.
    pub(super) fn send_early(&mut self, index: u32) -> bool {
        let Some(session) = self.sessions.get_mut(index) else {
            return true;
        };
        let early = session.tls.as_mut().map(|tls| std::mem::take(&mut tls.early));
        match (early, session.flow(End::Client)) {
            (Some(early), Some(mut flow)) if !early.is_empty() => {
                flow.send_early(&early, &mut self.buffers).is_ok()
            }
            _ => true,
        }
    }

    /// An end has broken the TLS protocol, or given up. What it had sent before is delivered, and
    /// the session ends.
    pub(super) fn tls_failed(&mut self, events: &mut Loop, index: u32, end: End, text: &str) {
        self.tls_trouble(index, end, text);
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        // The alert is on its way; nothing else goes there any more.
        session.direction_mut(end.other()).abandon(&mut self.buffers);
        if let Some(fd) = session.end(end) {
            let _ = socket::shutdown(fd, Shutdown::Write);
        }
        let direction = session.direction_mut(end);
        if direction.state == State::Open {
            direction.cut_off();
        }
        let ending = session.ending(end);
        let Some(pumped) = pump_end(events, session, end, &mut self.buffers, ending) else {
            return;
        };
        if !matches!(pumped.stop, Stop::Waiting) {
            session.direction_mut(end).abandon(&mut self.buffers);
        }
        debug_assert_ne!(ending, Ending::Shutdown);
    }

    /// Logs what is wrong with the TLS of an end, unless there is too much of that.
    pub(super) fn tls_trouble(&mut self, index: u32, end: End, text: &str) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        // The system forgets it when the connection breaks.
        let kept = session.tls.as_ref().and_then(|tls| tls.address.clone());
        let address = match end {
            End::Client => kept,
            End::Peer => session.end(end).and_then(socket::peer_address),
        };
        let address = address.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
        let line = match (session.phase, end) {
            (Phase::Handshaking(_), End::Client) => format!("SSL_accept ({address}): {text}"),
            (_, End::Client) => format!("TLS client {address}: {text}"),
            (_, End::Peer) => format!("TLS remote {address}: {text}"),
        };
        if let Some(tls) = &mut session.tls {
            tls.trouble.get_or_insert_with(|| text.to_owned());
        }
        log::braked(log::Kind::Tls, || line);
    }
}
