//! Runs all sessions of a worker on the event loop.

use super::access::{Access, Outcome};
use super::direction::Buffers;
use super::listing;
use super::pair::End;
use super::session::{Cause, Context, Next, Parting, Session, State};
use super::shared::{kind, register, Shared};
use super::table::Table;
use super::turns::{self, Turns};
use crate::channel::clients::Clients;
use crate::channel::local::{Prepared, LOCAL_KINDS};
use crate::channel::protocol::Accept;
use crate::config::acl::Acl;
use crate::config::clients::ClientLimits;
use crate::config::relay::Relay;
use crate::event::{Event, Loop, TimerId, Token};
use crate::mavis::queries::{Decision, Queries};
use crate::os::pipe::Pipe;
use crate::os::socket::{Options, IPPROTO_SCTP};
use crate::os::{self, log, Socket};
use crate::tls::context::Contexts;
use crate::upstream;
use crate::upstream::balance::Tried;
use crate::upstream::registry::{Fall, Registry};
use crate::upstream::remote::RemoteId;
use crate::upstream::zone::counters::{Counters, General, Place, Refusal, Standing};
use crate::upstream::zone::mail::{self, Letter};
use crate::upstream::zone::Zone;
use std::io;

/// The first token kind after the engine's own.
pub(super) const WORKER_KINDS: u8 = LOCAL_KINDS + 7;
/// How often all sessions are looked at, in milliseconds: their bytes are counted, and those of
/// remotes that are down reset, where that is wanted. Shared buffers are wiped after one or two of
/// these steps.
const LOOK_STEP: u64 = 1000;
/// How often to look into the box for letters after there was one, and for how long: an operator who
/// has asked once asks again.
const MAIL_STEP: u64 = 50;
const MAIL_SPAN: u64 = 5000;

/// How often sessions that wait for a remote are looked at, in milliseconds, if none of this worker
/// ends.
const QUEUE_STEP: u64 = 50;

/// All sessions of a worker, and what they share.
pub struct Engine {
    sessions: Table<Session>,
    shared: Shared,
    turns: Turns,
    ended: usize,
    /// The broker's numbers of the clients of sessions that have ended.
    left: Vec<u32>,
    /// When sessions that wait for a remote are looked at again.
    queue_timer: Option<TimerId>,
    /// The timer for the next look at all sessions is running.
    looks: bool,
    /// When all sessions were looked at last, and until when letters are expected.
    looked: u64,
    mail_until: u64,
}

impl Engine {
    /// Creates an engine without sessions. `queries` asks the MAVIS modules, if the settings want
    /// authorization.
    pub fn new(settings: Relay, tls: Contexts, queries: Option<Queries>) -> Engine {
        upstream::try_options(&settings.remotes);
        let shared = Shared::new(settings, tls, queries);
        Engine {
            sessions: Table::new(),
            shared,
            turns: Turns::default(),
            ended: 0,
            left: Vec::new(),
            queue_timer: None,
            looks: false,
            looked: 0,
            mail_until: 0,
        }
    }

    /// Joins a zone shared with other workers, and counts in its own row there; call it before the
    /// first session. False if the zone has no room for the remotes.
    pub fn join(&mut self, zone: Zone, counters: Counters) -> bool {
        let shared = self.shared.registry.join(zone);
        if shared {
            counters.stand(Standing::Serving, os::wall_clock());
            self.shared.counters = counters;
        }
        shared
    }

    /// Sets the access list for the addresses in PROXY headers. Call it before the first session.
    pub fn set_access_list(&mut self, list: Acl) {
        self.shared.access_list = list;
    }

    /// Sets the limits of clients for the same addresses. Call it before the first session.
    pub fn set_client_limits(&mut self, limits: ClientLimits) {
        self.shared.clients = Clients::new(limits);
    }

    /// The number of open sessions.
    pub fn open(&self) -> usize {
        self.sessions.len()
    }

    /// How many sessions wait until a remote may have one more.
    pub fn queued(&self) -> usize {
        self.shared.queue.len()
    }

    /// How many timers it has armed, besides those of sessions.
    pub fn timers(&self) -> usize {
        usize::from(self.looks) + usize::from(self.queue_timer.is_some())
    }

    /// All sessions, with their numbers.
    #[cfg(test)]
    pub(super) fn sessions_for_tests(&mut self) -> Vec<(u32, &Session)> {
        self.sessions.all()
    }

    /// The remotes.
    pub fn remotes(&self) -> &Registry {
        &self.shared.registry
    }

    /// How many sessions use a remote, as balancing counts them: this worker's sessions that have
    /// one, and in a shared zone those of the other workers too.
    pub fn remotes_in_use(&self) -> u64 {
        self.shared.registry.all_used()
    }

    /// Ends a turn of the loop: goes on with handshakes, and acts on what modules have answered.
    /// Returns how many sessions have ended since the last call.
    pub fn turn(&mut self, events: &mut Loop) -> usize {
        if !self.turns.is_empty() {
            self.continue_handshakes(events);
        }
        self.take_answers(events);
        if self.shared.buffers.have_traces() {
            self.look_later(events);
        }
        if !self.shared.queue.is_empty() {
            self.serve_queue(events);
        }
        if self.shared.signatures.has_new() {
            let failed = self.shared.signatures.send(events);
            self.signed(events, failed);
        }
        std::mem::take(&mut self.ended)
    }

    /// Lets sessions go on that wait for a remote, as long as there is room. Sessions of other
    /// workers end without our being told, so look from time to time.
    fn serve_queue(&mut self, events: &mut Loop) {
        let now = os::monotonic_clock();
        for tag in self.shared.queue.tags() {
            // Each at most once, as what is free may not be what a session needs.
            for _ in 0..self.shared.queue.len() {
                let Shared { queue, registry, .. } = &mut self.shared;
                // If those that they wait for are gone, they find out as others do.
                let waits =
                    !registry.has_room(tag, now) && registry.is_full(tag, &Tried::default());
                let Some(index) = (!waits).then(|| queue.next(tag)).flatten() else {
                    break;
                };
                self.run(events, index, Cause::Place);
            }
        }
        if self.queue_timer.is_none() && !self.shared.queue.is_empty() {
            let token = Token::new(kind::TURN, 1);
            self.queue_timer = Some(events.arm(token, events.now() + QUEUE_STEP));
        }
    }

    /// Goes on with as many handshakes as a turn of the loop has time for.
    fn continue_handshakes(&mut self, events: &mut Loop) {
        for index in self.turns.crowd() {
            if let Some(session) = self.sessions.get_mut(index) {
                self.turns.wait(index, session.origin());
                session.ignore_handshake(events);
            }
        }
        let start = os::monotonic_clock();
        for _ in 0..turns::MOST {
            let Some(index) = self.turns.next() else {
                return;
            };
            self.run(events, index, Cause::Turn);
            if os::monotonic_clock() > start + turns::LONGEST {
                break;
            }
        }
        if !self.turns.is_empty() {
            // Ends the next wait at once.
            events.arm(Token::new(kind::TURN, 0), events.now());
        }
    }

    /// The process with the private keys is at the other end of this socket; there may have been
    /// one before.
    pub fn set_signer(&mut self, events: &mut Loop, socket: Socket) {
        let token = Token::new(kind::SIGNER, 0);
        let failed = self.shared.signatures.connect(socket, token, events);
        self.signed(events, failed);
        let failed = self.shared.signatures.send(events);
        self.signed(events, failed);
    }

    /// Continues the handshakes whose signatures are there.
    fn signed(&mut self, events: &mut Loop, signed: Vec<(u64, u32)>) {
        for (number, index) in signed {
            self.run(events, index, Cause::Signed(number));
        }
    }

    /// Stops the modules.
    pub fn end_modules(&mut self, events: &mut Loop) {
        if let Some(queries) = self.shared.queries.take() {
            queries.end(events);
        }
    }

    /// Starts a session for an accepted connection.
    pub fn accept(
        &mut self,
        events: &mut Loop,
        client: Socket,
        accept: &Accept,
        prepared: Prepared,
    ) {
        self.shared.counters.add(Place::General(General::Accepted), 1);
        match self.new_session(events, client, accept, prepared) {
            Some(session) => {
                self.begin(events, session, accept);
                // A module may have answered before the call returned.
                self.take_answers(events);
            }
            // Counted as ended, so that the broker gets the slot back.
            None => {
                self.shared.count_refusal(accept.listener_number(), Refusal::Resources);
                self.note_end(accept.client);
            }
        }
    }

    /// `None` if the connection cannot be served. The reason is logged, unless memory has run out.
    fn new_session(
        &mut self,
        events: &Loop,
        client: Socket,
        accept: &Accept,
        prepared: Prepared,
    ) -> Option<Session> {
        if !self.shared.can_serve(accept) {
            return None;
        }
        if prepared == Prepared::No {
            if let Err(error) = client.set_nonblocking() {
                log::braked(log::Kind::Session, || {
                    format!("connection dropped: {}", os::reason(&error))
                });
                return None;
            }
            client.set_no_delay();
            client.set_urgent_inline();
        }
        let access = self.shared.settings.access_log;
        let access = access.then(|| Box::new(Access::new(&client, events.now())));
        let Some(realm) = self.shared.realm_number(accept.realm) else {
            log::braked(log::Kind::Session, || "too many realms; connection dropped".to_owned());
            return None;
        };
        let state = self.shared.first_state(accept, &client, realm)?;
        let mut session = Session::new(client, state, events.now());
        session.access = access;
        if accept.client != 0 {
            session.allotment.get_or_insert_default().number = accept.client;
        }
        Some(session)
    }

    fn begin(&mut self, events: &mut Loop, session: Session, accept: &Accept) {
        let index = self.sessions.insert(session);
        self.shared.count_begin(index, accept.listener_number(), events.now());
        self.leave_places();
        self.look_later(events);
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        let mut context = Context { index, shared: &mut self.shared, events };
        session.limit(&mut context);
        session.limit_beginning(&mut context);
        let plain = matches!(session.state, State::Arrived(_))
            && context.shared.settings.authorization.is_none();
        let stream = plain && accept.protocol != IPPROTO_SCTP as u32;
        let token = Token::new(kind::CLIENT, index);
        register(events, &session.client, token, session.client_interest(), stream);
        self.run(events, index, Cause::Arrival);
    }

    /// Runs a session's state machine: handles `cause` and whatever follows from it, until the
    /// session has to wait or is over.
    fn run(&mut self, events: &mut Loop, index: u32, cause: Cause) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        let mut context = Context { index, shared: &mut self.shared, events };
        let mut next = session.step(cause, &mut context);
        loop {
            next = match next {
                Next::Wait => return session.watch(context.events),
                Next::Turn => {
                    if !self.turns.ask(index) {
                        session.ignore_handshake(context.events);
                    }
                    return;
                }
                Next::Pump(first, second) => session.pump(first, second, &mut context),
                Next::Dial => match session.dial(&mut context) {
                    Ok(next) => next,
                    Err(error) => break self.make_room(events, index, &error),
                },
                Next::Close(outcome, parting) => {
                    break self.close(events, index, &outcome, parting)
                }
            };
        }
    }

    /// No descriptor is left for the upstream socket of a session. Frees the descriptors of pipes,
    /// if there are any, and tries again; otherwise closes the session.
    fn make_room(&mut self, events: &mut Loop, index: u32, error: &io::Error) {
        if self.release_pipes() {
            return self.run(events, index, Cause::Room);
        }
        let reason = self.shared.without_descriptors(error);
        self.close(events, index, &Outcome::Refused(Refusal::Resources, reason), Parting::Orderly);
    }

    /// Closes a session: both ends are closed, and its number is free again.
    fn close(&mut self, events: &mut Loop, index: u32, outcome: &Outcome, parting: Parting) {
        let Some(session) = self.sessions.remove(index) else {
            return;
        };
        let client = session.allotment.as_ref().map_or(0, |allotment| allotment.number);
        session.close(outcome, parting, &mut Context { index, shared: &mut self.shared, events });
        self.turns.forget(index);
        self.note_end(client);
        self.shared.buffers.leave_places(self.sessions.len());
        if self.sessions.len() == 0 {
            events.shrink();
            self.shared.buffers.shrink();
        }
    }

    /// A session has ended, or could not begin.
    #[inline]
    fn note_end(&mut self, client: u32) {
        self.ended += 1;
        if client != 0 {
            self.left.push(client);
        }
    }

    /// True if sessions have ended whose clients the broker has numbered.
    #[inline]
    pub fn has_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// The broker's numbers of the clients of sessions that have ended since the last call.
    pub fn take_left(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.left)
    }

    /// Acts on the answers that modules have given.
    #[inline]
    fn take_answers(&mut self, events: &mut Loop) {
        if self.shared.queries.is_some() {
            self.take_answers_of_modules(events);
        }
    }

    #[inline(never)]
    fn take_answers_of_modules(&mut self, events: &mut Loop) {
        while let Some(answer) =
            self.shared.queries.as_mut().and_then(|queries| queries.next_answer())
        {
            let decision = Decision::of(answer.verdict, &answer.answer);
            self.run(events, answer.owner, Cause::Decision(decision));
        }
    }

    /// Keeps pipes from taking descriptors that the broker was promised for connections.
    fn leave_places(&mut self) {
        if !self.shared.buffers.leave_places(self.sessions.len()) {
            self.empty_pipes(Buffers::places_are_left);
        }
    }

    /// Moves the contents of pipes to memory, until `enough` says so.
    fn empty_pipes(&mut self, enough: impl Fn(&Buffers) -> bool) {
        for index in self.sessions.indices() {
            if enough(&self.shared.buffers) {
                return;
            }
            if let Some(pair) = self.sessions.get_mut(index).and_then(Session::pair_mut) {
                pair.up.unpipe();
                pair.down.unpipe();
            }
        }
    }

    /// Gives the descriptors of all pipes back to the system; true if there were any.
    fn release_pipes(&mut self) -> bool {
        let before = Pipe::count();
        self.shared.buffers.release_pipes();
        self.empty_pipes(|_| Pipe::count() == 0);
        Pipe::count() < before
    }

    /// A descriptor of a session is ready.
    pub fn event(&mut self, events: &mut Loop, event: Event) {
        let end = match event.token.kind() {
            kind::CLIENT => End::Client,
            kind::UPSTREAM => End::Upstream,
            kind::SIGNER => {
                let signed = self.shared.signatures.event(event, events);
                return self.signed(events, signed);
            }
            _ => return,
        };
        self.run(events, event.token.index(), Cause::Event(end, event));
    }

    /// A timer has expired.
    pub fn timer(&mut self, events: &mut Loop, timer: TimerId, token: Token) {
        match token.kind() {
            kind::LIMIT => self.run(events, token.index(), Cause::Limit(timer)),
            kind::STATE => {
                // The answer may have arrived in this very turn.
                self.take_answers(events);
                self.run(events, token.index(), Cause::Time(timer));
            }
            kind::LOOK => {
                self.looks = false;
                if events.now() >= self.looked + LOOK_STEP {
                    self.looked = events.now();
                    self.reset_sessions_of_fallen(events);
                    self.count_bytes();
                    self.shared.buffers.rest();
                }
                self.read_mail(events);
                self.look_later(events);
            }
            kind::DRAIN => {
                for index in self.sessions.indices() {
                    self.close(events, index, &Outcome::Drained, Parting::Reset);
                }
            }
            kind::TURN if self.queue_timer == Some(timer) => self.queue_timer = None,
            // `kind::TURN` only ends the wait: the handshakes go on at the end of this turn.
            _ => {}
        }
    }

    /// Looks at all sessions from time to time while there are any, if there is a reason to, and at
    /// the buffers while there are plain bytes of sessions with TLS in them.
    fn look_later(&mut self, events: &mut Loop) {
        let Shared { counters, registry, buffers, .. } = &self.shared;
        let counts = self.sessions.len() > 0 && (counters.are_kept() || registry.resets_on_down());
        if !self.looks && (counts || buffers.have_traces()) {
            self.looks = true;
            let step = if events.now() < self.mail_until { MAIL_STEP } else { LOOK_STEP };
            events.arm(Token::new(kind::LOOK, 0), events.now() + step);
        }
    }

    /// Counts what sessions have carried so far.
    fn count_bytes(&mut self) {
        for index in self.sessions.indices() {
            if let Some(pair) = self.sessions.get_mut(index).and_then(|session| session.pair()) {
                self.shared.count_bytes(index, pair);
            }
        }
    }

    /// Resets the sessions of remotes that are down, where `on down` wants that, or disabled.
    fn reset_sessions_of_fallen(&mut self, events: &mut Loop) {
        let fallen = self.shared.registry.fallen(os::monotonic_clock());
        if fallen.is_empty() {
            return;
        }
        for index in self.sessions.indices() {
            let pair = self.sessions.get_mut(index).and_then(|session| session.pair());
            let of_its_remote =
                |&&(remote, _): &&(RemoteId, Fall)| pair.is_some_and(|pair| pair.remote == remote);
            if let Some(&(_, fall)) = fallen.iter().find(of_its_remote) {
                let outcome = match fall {
                    Fall::Down => Outcome::Down,
                    Fall::Disabled => Outcome::Disabled,
                };
                self.close(events, index, &outcome, Parting::Reset);
            }
        }
    }

    /// Does what the monitor wants: lists the sessions, or ends one.
    fn read_mail(&mut self, events: &mut Loop) {
        let letter = self.shared.counters.inbox().and_then(|inbox| inbox.letter());
        let Some((number, letter)) = letter else {
            return;
        };
        self.mail_until = events.now() + MAIL_SPAN;
        let mut ended = 0;
        let mut indices = Vec::new();
        match letter {
            Letter::List(order) => {
                indices = self.sessions.indices();
                if indices.len() > mail::MOST {
                    let (all, tallies) = (&mut self.sessions, &self.shared.tallies);
                    indices.sort_by_cached_key(|&index| {
                        let begun = tallies.begun(index);
                        let session = all.get_mut(index);
                        session.map_or(u64::MAX, |session| listing::rank(session, begun, order))
                    });
                }
            }
            Letter::End { index, begun } => {
                let is_there = self.sessions.get_mut(index).is_some();
                if is_there && self.shared.tallies.begun(index) == begun {
                    self.close(events, index, &Outcome::Ended, Parting::Reset);
                    ended = 1;
                }
            }
        }
        let now = events.now();
        let Engine { sessions, shared, .. } = self;
        let Some(inbox) = shared.counters.inbox() else {
            return;
        };
        let list = indices.iter().filter_map(|&index| {
            let begun = shared.tallies.begun(index);
            let session = sessions.get_mut(index)?;
            Some(listing::entry((index, begun), session, &shared.registry, now))
        });
        inbox.answer(number, indices.len() + ended, list);
    }

    /// Starts the drain timeout, if one is configured: sessions still open when it expires are
    /// reset.
    pub fn drain(&mut self, events: &mut Loop) {
        let leaving = Place::General(General::Standing);
        self.shared.counters.set(leaving, Standing::Leaving as u64);
        let timeout = u64::from(self.shared.settings.drain_timeout) * 1000;
        if timeout > 0 {
            events.arm(Token::new(kind::DRAIN, 0), events.now() + timeout);
        }
    }
}
