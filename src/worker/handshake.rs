//! Clients of TLS listeners until their handshake is done: detection, the handshake, and failures.

use super::client::{Accepting, Detecting, KnownClient, Origin, Purpose, Speech};
use super::introduction::introducing;
use super::pair::End;
use super::session::{read_early, Context, Next, Session, State};
use super::shared::{kind, Shared};
use super::turns;
use crate::channel::protocol::Accept;
use crate::config::listen::flag;
use crate::event::{Interest, Loop, Token};
use crate::os::address::Address;
use crate::os::tls::signing;
use crate::os::{self, log, Socket};
use crate::tls::detect::{first, First};
use crate::tls::hello::{Hello, Inspector};
use crate::upstream::dial;
use crate::upstream::handshake::{Handshake, Progress, Unsent};
use crate::upstream::zone::counters::{Refusal, Side};

impl Shared {
    /// The first state of a session, whether or not its listener has TLS. `None` if memory has run
    /// out; call [`can_serve`](Self::can_serve) first.
    pub(super) fn first_state(
        &mut self,
        accept: &Accept,
        client: &Socket,
        realm: u8,
    ) -> Option<State> {
        if accept.tls_versions == 0 && accept.flags & (flag::HAPROXY | flag::TLS_INSPECT) == 0 {
            return Some(State::Arrived(realm));
        }
        let address = client.peer_address();
        let origin = Origin { address, realm, introduction: None };
        match accept.flags & flag::HAPROXY {
            0 => self.first_tls_state(origin, accept),
            _ => Some(introducing(origin, accept)),
        }
    }

    /// The first state with TLS, ended here or passed on. `None` if memory has run out.
    pub(super) fn first_tls_state(&self, origin: Origin, accept: &Accept) -> Option<State> {
        let versions = accept.tls_versions;
        let purpose = match accept.flags {
            _ if versions == 0 => Some(Purpose::Inspect(Inspector::default())),
            flags if flags & flag::TLS_AUTO != 0 => Some(Purpose::Accept(versions)),
            _ => None,
        };
        if let Some(purpose) = purpose {
            let early = Vec::new();
            let detecting = Detecting { origin, purpose, early, timer: None };
            return Some(State::Detecting(Box::new(detecting)));
        }
        let Some(handshake) = self.accept_tls(versions) else {
            log::braked(log::Kind::Session, || "connection dropped: out of memory".to_owned());
            return None;
        };
        Some(State::Accepting(Box::new(Accepting {
            origin,
            early: Vec::new(),
            handshake,
            timer: None,
        })))
    }

    /// True if connections of this listener can be served. If not, that is logged once.
    pub(super) fn can_serve(&mut self, accept: &Accept) -> bool {
        let versions = accept.tls_versions;
        if versions == 0 {
            return true;
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
            return false;
        }
        self.tls.renew_tickets(os::wall_clock());
        if self.registry.zone().staple_editions() != self.staples_seen.0 {
            self.renew_staples(os::wall_clock());
        }
        true
    }

    /// Takes over the OCSP responses that the monitor has fetched; not more than once a second, as
    /// each one costs a signature to verify.
    #[cold]
    fn renew_staples(&mut self, now: u64) {
        let Some(acceptor) = self.tls.acceptor.as_ref().filter(|_| now != self.staples_seen.1)
        else {
            return;
        };
        let (zone, mut complete) = (self.registry.zone(), true);
        let editions = zone.staple_editions();
        acceptor.staples().renew(|certificate, known| {
            let edition = zone.staple_edition(certificate);
            if edition == 0 || edition == known {
                return None;
            }
            let staple = zone.staple(certificate);
            complete &= staple.is_some();
            staple.map(|staple| (staple.edition, staple.response))
        });
        self.staples_seen.1 = now;
        if complete {
            self.staples_seen.0 = editions;
        }
    }

    /// `None` only if memory has run out.
    fn accept_tls(&self, versions: u32) -> Option<Handshake> {
        let mut stream = self.tls.acceptor.as_ref()?.accept(versions).ok()?;
        if self.wants_summaries {
            stream.want_summary();
        }
        if self.settings.tls.kernel {
            stream.want_kernel();
        }
        Some(Handshake::new(stream))
    }
}

impl Session {
    /// Starts the time limit of the session's first state: that of the client's handshake, or for
    /// its PROXY header.
    pub(super) fn limit_beginning(&mut self, context: &mut Context<'_>) {
        let settings = &context.shared.settings;
        let (timer, timeout) = match &mut self.state {
            State::Introducing(introducing) => (&mut introducing.timer, settings.haproxy_timeout),
            State::Detecting(detecting) => (&mut detecting.timer, settings.tls.handshake_timeout),
            State::Accepting(accepting) => (&mut accepting.timer, settings.tls.handshake_timeout),
            _ => return,
        };
        let due = context.events.now() + u64::from(timeout) * 1000;
        let token = Token::new(kind::STATE, context.index);
        *timer = (timeout > 0).then(|| context.events.arm(token, due));
    }

    /// Looks at the first bytes of a client.
    pub(super) fn detect(&mut self, context: &mut Context<'_>) -> Next {
        let State::Detecting(detecting) = &mut self.state else {
            return Next::Wait;
        };
        let scratch = &mut context.shared.buffers.scratch;
        let count = match read_early(&self.client, &mut detecting.early, scratch) {
            Ok(count) => count,
            Err(next) => return next,
        };
        self.detected(count == 0, context)
    }

    /// Decides what to do with the client, from what it has sent so far. `ended`: it sends nothing
    /// more.
    fn detected(&mut self, ended: bool, context: &mut Context<'_>) -> Next {
        match &self.state {
            State::Detecting(detecting) => match detecting.purpose {
                Purpose::Accept(versions) => self.speaks_tls(versions, ended, context),
                Purpose::Inspect(_) => self.inspected(ended, context),
            },
            _ => Next::Wait,
        }
    }

    /// Reads what the client asks for in its ClientHello, and passes the connection on unopened. What
    /// is no ClientHello is passed on as well: the remote may know what to make of it.
    fn inspected(&mut self, ended: bool, context: &mut Context<'_>) -> Next {
        let State::Detecting(detecting) = &mut self.state else {
            return Next::Wait;
        };
        let Purpose::Inspect(inspector) = &mut detecting.purpose else {
            return Next::Wait;
        };
        let hello = inspector.look(&detecting.early);
        if hello == Hello::Partial && !ended {
            return Next::Wait;
        }
        let State::Detecting(detecting) = std::mem::replace(&mut self.state, State::Over) else {
            return Next::Wait;
        };
        let Detecting { origin, early, timer, .. } = *detecting;
        timer.into_iter().for_each(|timer| context.events.cancel(timer));
        self.active = context.events.now();
        if let Some(access) = &mut self.access {
            access.inspected(&hello);
        }
        let speech = match hello {
            Hello::Tls(offer) => Speech::Sealed(early, offer),
            _ => Speech::Plain(early),
        };
        self.admit_speaking(origin, speech, context)
    }

    /// Decides whether the client speaks TLS.
    fn speaks_tls(&mut self, versions: u32, ended: bool, context: &mut Context<'_>) -> Next {
        let shared = &mut *context.shared;
        let State::Detecting(detecting) = &mut self.state else {
            return Next::Wait;
        };
        // No TLS client shuts down its side before it has sent anything.
        let plain = match first(&detecting.early) {
            First::Undecided if !ended => return Next::Wait,
            First::Undecided | First::Plain => true,
            First::Tls => false,
        };
        let State::Detecting(detecting) = std::mem::replace(&mut self.state, State::Over) else {
            return Next::Wait;
        };
        let Detecting { origin, early, timer, .. } = *detecting;
        if plain {
            timer.into_iter().for_each(|timer| context.events.cancel(timer));
            return self.admit_plain(origin, early, context);
        }
        let Some(handshake) = shared.accept_tls(versions) else {
            timer.into_iter().for_each(|timer| context.events.cancel(timer));
            self.accept_trouble("out of memory", origin.address.as_ref());
            return Next::refuse(Refusal::Resources, "TLS handshake failed");
        };
        self.state = State::Accepting(Box::new(Accepting { origin, early, handshake, timer }));
        Next::Turn
    }

    /// Continues the handshake with the client or with the remote, with what can be read.
    pub(super) fn go_on_shaking(&mut self, context: &mut Context<'_>) -> Next {
        let accepting = match &mut self.state {
            State::Accepting(accepting) => accepting,
            State::Dialing { dial, .. } if dial.is_handshaking() => {
                return self.advance(dial::Cause::Ready, context).unwrap_or(Next::Dial);
            }
            _ => return Next::Wait,
        };
        let mut scratch = context.shared.buffers.scratch();
        let early = std::mem::take(&mut accepting.early);
        let progress = if early.is_empty() {
            accepting.handshake.go_on(&self.client, &mut scratch)
        } else {
            accepting.handshake.feed(&self.client, &early, &mut scratch)
        };
        self.accepted(progress, context)
    }

    /// The line in which the session waits to go on with its handshake.
    pub(super) fn origin(&self) -> turns::Origin {
        match &self.state {
            State::Accepting(accepting) => turns::Origin::of(accepting.origin.address.as_ref()),
            _ => turns::Origin::of(self.client.peer_address().as_ref()),
        }
    }

    /// Stops watching the end whose handshake waits for its turn.
    pub(super) fn ignore_handshake(&self, events: &mut Loop) {
        match &self.state {
            State::Accepting(_) => events.set_interest(&self.client, Interest::empty()),
            State::Dialing { dial, .. } if dial.is_handshaking() => {
                if let Some(socket) = dial.socket() {
                    events.set_interest(socket, Interest::empty());
                }
            }
            _ => {}
        }
    }

    /// A signature that a handshake has asked for is there, or there will be none.
    pub(super) fn signed(&mut self, number: u64, context: &mut Context<'_>) -> Next {
        match &mut self.state {
            State::Accepting(accepting) => {
                let mut scratch = context.shared.buffers.scratch();
                let progress = accepting.handshake.signed(number, &self.client, &mut scratch);
                self.accepted(progress, context)
            }
            State::Dialing { .. } => {
                self.advance(dial::Cause::Signed(number), context).unwrap_or(Next::Dial)
            }
            _ => Next::Wait,
        }
    }

    fn accepted(&mut self, progress: Progress, context: &mut Context<'_>) -> Next {
        match progress {
            Progress::Waiting => return Next::Wait,
            Progress::Signing(number) => {
                signing::own(number, context.index);
                return Next::Wait;
            }
            Progress::Failed(text) => return self.not_accepted(&text, context),
            Progress::Done => {}
        }
        let State::Accepting(accepting) = std::mem::replace(&mut self.state, State::Over) else {
            return Next::Wait;
        };
        let Accepting { origin, handshake, timer, .. } = *accepting;
        timer.into_iter().for_each(|timer| context.events.cancel(timer));
        self.active = context.events.now();
        let (stream, unsent) = handshake.into_parts();
        context.shared.count_handshake(Side::Client, &stream);
        let Origin { address, realm, introduction } = origin;
        let client = KnownClient { speech: Speech::Tls(stream), address, unsent, introduction };
        self.admit(Some(Box::new(client)), realm, context)
    }

    /// The client speaks no TLS. `early` is what it has sent so far.
    pub(super) fn admit_plain(
        &mut self,
        origin: Origin,
        early: Vec<u8>,
        context: &mut Context<'_>,
    ) -> Next {
        self.admit_speaking(origin, Speech::Plain(early), context)
    }

    fn admit_speaking(
        &mut self,
        origin: Origin,
        speech: Speech,
        context: &mut Context<'_>,
    ) -> Next {
        let Origin { address, realm, introduction } = origin;
        let client = KnownClient { speech, address, unsent: Unsent::default(), introduction };
        self.admit(Some(Box::new(client)), realm, context)
    }

    /// Begins detection or the handshake, with bytes that the client has sent already.
    pub(super) fn begin_tls(&mut self, bytes: Vec<u8>, context: &mut Context<'_>) -> Next {
        self.limit_beginning(context);
        match &mut self.state {
            State::Detecting(detecting) => {
                detecting.early = bytes;
                self.detected(false, context)
            }
            State::Accepting(accepting) => {
                accepting.early = bytes;
                Next::Turn
            }
            _ => Next::Wait,
        }
    }

    /// The client's handshake has failed.
    pub(super) fn not_accepted(&mut self, text: &str, context: &mut Context<'_>) -> Next {
        context.shared.count_failed_handshake(Side::Client, text);
        if let State::Accepting(accepting) = &self.state {
            // A client that leaves without sending anything was a port scan, or a health check.
            if !accepting.handshake.is_untouched() {
                let address = accepting.origin.address.clone();
                self.accept_trouble(text, address.as_ref());
            }
        }
        Next::refuse(Refusal::Tls, "TLS handshake failed")
    }

    fn accept_trouble(&mut self, text: &str, address: Option<&Address>) {
        self.tls_trouble(text, format!("SSL_accept ({}): {text}", name(address)));
    }

    /// Logs that an end has violated the TLS protocol, or has given up.
    pub(super) fn tls_end_trouble(&mut self, end: End, text: &str) {
        let Some(pair) = self.pair() else {
            return;
        };
        let line = match end {
            End::Client => {
                let address = pair.tls.as_ref().and_then(|tls| tls.address.as_ref());
                format!("TLS client {}: {text}", name(address))
            }
            End::Upstream => {
                let address = pair.upstream.peer_address();
                format!("TLS remote {}: {text}", name(address.as_ref()))
            }
        };
        self.tls_trouble(text, line);
    }

    /// Logs what is wrong with the TLS of an end, at a limited rate. The access log gets the
    /// session's first such trouble.
    fn tls_trouble(&mut self, text: &str, line: String) {
        if let Some(access) = &mut self.access {
            access.trouble.get_or_insert_with(|| text.to_owned());
        }
        log::braked(log::Kind::Tls, || line);
    }
}

fn name(address: Option<&Address>) -> String {
    address.map_or_else(|| "unknown".to_owned(), ToString::to_string)
}
