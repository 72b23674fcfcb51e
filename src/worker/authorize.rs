//! Asking modules whether a client may connect.

use super::access::Outcome;
use super::engine::{kind, Engine};
use super::session::{End, Phase};
use crate::event::{Event, Loop, Token};
use crate::mavis::queries::{Decision, Host};
use crate::os::address::Address;
use crate::os::{log, socket};
use crate::upstream::balance::Attempts;

impl Engine {
    /// The client is there, its TLS if it has any is up: it is admitted, or modules are asked.
    pub(super) fn begin(&mut self, events: &mut Loop, index: u32) {
        match self.settings.authorization {
            Some(_) => self.authorize(events, index),
            None => {
                self.settle_interest(events, index);
                self.connect(events, index);
            }
        }
    }

    fn authorize(&mut self, events: &mut Loop, index: u32) {
        let (Some(session), Some(queries), Some(settings)) =
            (self.sessions.get_mut(index), &mut self.queries, self.settings.authorization)
        else {
            return;
        };
        let (peer, local) =
            (socket::peer_address(&session.client), socket::local_address(&session.client));
        // A client that has broken its connection has no address any more, and must not be taken
        // for one on a UNIX socket.
        if !matches!((&peer, &local), (Some(Address::Ip(_)), _) | (_, Some(Address::Unix(_)))) {
            return self.finish(events, index, Outcome::Broken(End::Client), true);
        }
        let host = |address: Option<Address>| match address {
            Some(Address::Ip(address)) => address.ip().to_canonical().to_string(),
            _ => "local".to_owned(),
        };
        let realm = &self.realms[usize::from(session.realm)];
        let certificate = session.client_summary().and_then(|one| one.certificate.as_ref());
        let question = Host {
            client: host(peer),
            server: host(local),
            realm: realm.split(|&byte| byte == 0).next().unwrap_or(realm),
            certificate: certificate.map(|one| (&*one.subject, &*one.data)),
        }
        .question();
        session.phase = Phase::Authorizing;
        match queries.ask(events, question, index) {
            Some((verdict, answer)) => self.decide(events, index, Decision::of(verdict, &answer)),
            None => {
                // A module may have taken its time.
                events.refresh_clock();
                let deadline = events.now() + u64::from(settings.timeout) * 1000;
                session.phase_timer = Some(events.arm(Token::new(kind::PHASE, index), deadline));
                self.settle_interest(events, index);
                // It may have called back before it has returned.
                self.take_answers(events);
            }
        }
    }

    /// The number of a listener's realm; `None` if there are too many.
    pub(super) fn realm_number(&mut self, realm: [u8; 16]) -> Option<u8> {
        if self.queries.is_none() {
            return Some(0);
        }
        let known = self.realms.iter().position(|known| *known == realm);
        let number = known.unwrap_or_else(|| {
            self.realms.push(realm);
            self.realms.len() - 1
        });
        if number > usize::from(u8::MAX) {
            self.realms.truncate(number);
        }
        u8::try_from(number).ok()
    }

    /// Deals with the answers that modules have given; to be called once a turn.
    pub(super) fn take_answers(&mut self, events: &mut Loop) {
        while let Some(answer) = self.queries.as_mut().and_then(|queries| queries.next_answer()) {
            self.decide(events, answer.owner, Decision::of(answer.verdict, &answer.answer));
        }
    }

    /// No answer has come in time, unless it has just come.
    pub(super) fn unanswered(&mut self, events: &mut Loop, index: u32) {
        self.take_answers(events);
        if !self.sessions.get_mut(index).is_some_and(|it| it.phase == Phase::Authorizing) {
            return;
        }
        self.forget(events, index);
        self.decide(events, index, Decision::Unknown("no answer in time".into()));
    }

    /// The session does not wait for an answer any more.
    pub(super) fn forget(&mut self, events: &mut Loop, index: u32) {
        if let Some(queries) = &mut self.queries {
            queries.forget(events, index);
        }
    }

    fn decide(&mut self, events: &mut Loop, index: u32, decision: Decision) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        if session.phase != Phase::Authorizing {
            return;
        }
        if let Some(timer) = session.phase_timer.take() {
            events.cancel(timer);
        }
        session.phase = Phase::Connecting;
        session.set_quiet(End::Client, false);
        session.set_quiet(End::Peer, false);
        session.active = events.now();
        let permit = self.settings.authorization.is_some_and(|settings| settings.permit_on_error);
        match decision {
            Decision::Admit(None) => {}
            Decision::Admit(Some(tag)) => {
                let Some(number) = self.tags.iter().position(|known| *known == tag) else {
                    let text = format!("no remote has the tag {tag:?}");
                    return self.deny(events, index, text, true);
                };
                session.attempts = Some(Box::new(Attempts::with_tag(number as u32)));
            }
            Decision::Deny(comment) => {
                let text = comment.map_or_else(String::new, |comment| format!(" ({comment})"));
                return self.deny(events, index, format!("denied{text}"), false);
            }
            Decision::Unknown(why) if !permit => {
                return self.deny(events, index, format!("authorization failed: {why}"), true);
            }
            Decision::Unknown(why) => self.complain(index, &why),
        }
        self.settle_interest(events, index);
        self.connect(events, index);
    }

    /// Closes a session that is not admitted. What is somebody's fault is logged.
    fn deny(&mut self, events: &mut Loop, index: u32, text: String, fault: bool) {
        if fault {
            self.complain(index, &text);
        }
        self.finish(events, index, Outcome::Failed(text), false);
    }

    fn complain(&mut self, index: u32, text: &str) {
        let client = self.sessions.get_mut(index).map(|session| &session.client);
        let client = client.and_then(socket::peer_address);
        let client = client.map_or_else(|| "local".to_owned(), |address| address.to_string());
        let line = format!("mavis: client {client}: {text}");
        log::braked(log::Kind::Admission, || line);
    }

    /// A client that waits to be admitted has said something, or is gone.
    pub(super) fn waiting_client(&mut self, events: &mut Loop, index: u32, event: Event) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        // The rest of its handshake.
        if event.writable && session.down.flush(&session.client, &mut self.buffers).is_err() {
            return self.finish(events, index, Outcome::Broken(End::Client), true);
        }
        let failed = socket::take_error(&session.client).is_err();
        // Its data stays where it is until there is a remote to take it. The end without a word
        // before it is no half-close: nobody waits for answers to nothing.
        let has_spoken = session.tls.as_ref().is_some_and(|tls| {
            !tls.early.is_empty() || tls.client.as_ref().is_some_and(|client| client.has_unread())
        });
        match socket::peek(&session.client) {
            _ if failed => self.finish(events, index, Outcome::Broken(End::Client), true),
            Ok(0) if !has_spoken => self.finish(events, index, Outcome::Closed, false),
            Ok(_) => {
                session.set_quiet(End::Client, true);
                if event.hangup {
                    session.set_quiet(End::Peer, true);
                }
                self.settle_interest(events, index);
            }
            Err(error) if crate::os::would_block(&error) => self.settle_interest(events, index),
            Err(_) => self.finish(events, index, Outcome::Broken(End::Client), true),
        }
    }
}
