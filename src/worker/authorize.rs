//! Asks MAVIS modules whether a client may connect.

use super::access::Outcome;
use super::client::KnownClient;
use super::pair::Link;
use super::session::{Context, Heard, Next, Parting, Seeking, Session, State};
use super::shared::{kind, Shared};
use crate::event::{Event, Token};
use crate::mavis::attributes::Attributes;
use crate::mavis::queries::{Decision, Host};
use crate::os::address::Address;
use crate::os::socket::Addressed;
use crate::os::{self, log, Socket};
use crate::upstream::zone::counters::Refusal;

impl Shared {
    /// The number of a listener's realm; `None` if there are too many.
    pub(super) fn realm_number(&mut self, realm: [u8; 16]) -> Option<u8> {
        if !self.wants_realms {
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
}

impl Session {
    /// The client is there, and its TLS handshake, if any, is done: it is admitted, or modules are
    /// asked. Routes come first.
    pub(super) fn admit(
        &mut self,
        client: Option<Box<KnownClient>>,
        realm: u8,
        context: &mut Context<'_>,
    ) -> Next {
        let shared = &mut *context.shared;
        let mut tag = None;
        if !shared.settings.routes.is_empty() {
            match self.route(client.as_deref(), realm, shared) {
                Ok(required) => tag = required,
                Err(next) => {
                    self.state = State::Choosing(Seeking { client, ..Seeking::default() });
                    return next;
                }
            }
        }
        let (Some(settings), true) = (shared.settings.authorization, shared.queries.is_some())
        else {
            self.state = State::Choosing(Seeking { client, tag, ..Seeking::default() });
            return Next::Dial;
        };
        let question = self.question(client.as_deref(), &shared.realms[usize::from(realm)]);
        let (Some(question), Some(queries)) = (question, &mut shared.queries) else {
            self.state = State::Choosing(Seeking { client, ..Seeking::default() });
            return Next::client_broke();
        };
        let answer = queries.ask(context.events, question, context.index);
        if answer.is_none() {
            // The call into the modules may have taken a while.
            context.events.refresh_clock();
        }
        let deadline = context.events.now() + u64::from(settings.timeout) * 1000;
        let timer = context.events.arm(Token::new(kind::STATE, context.index), deadline);
        self.state = State::Authorizing { client, tag, heard: Heard::Nothing, timer };
        match answer {
            Some((verdict, answer)) => self.decided(Decision::of(verdict, &answer), context),
            None => Next::Wait,
        }
    }

    /// What modules are asked. `None` if the client has broken its connection: it then has no
    /// address any more, and must not be taken for a client on a UNIX socket.
    fn question(&self, client: Option<&KnownClient>, realm: &[u8]) -> Option<Attributes> {
        let (source, destination) = match client.and_then(KnownClient::told) {
            Some((source, destination)) => (Some(source.clone()), Some(destination.clone())),
            None => (self.client.peer_address(), self.client.local_address()),
        };
        let ends = (&source, &destination);
        if !matches!(ends, (Some(Address::Ip(_)), _) | (_, Some(Address::Unix(_)))) {
            return None;
        }
        let host = |address: Option<Address>| match address {
            Some(Address::Ip(address)) => address.ip().to_canonical().to_string(),
            _ => "local".to_owned(),
        };
        let summary = client.and_then(|client| client.stream()?.summary());
        let certificate = summary.and_then(|summary| summary.certificate.as_ref());
        let host = Host {
            client: host(source),
            server: host(destination),
            realm: realm.split(|&byte| byte == 0).next().unwrap_or(realm),
            certificate: certificate.map(|one| (&*one.subject, &*one.data)),
        };
        Some(host.question())
    }

    /// No answer came in time.
    pub(super) fn unanswered(&mut self, context: &mut Context<'_>) -> Next {
        if let Some(queries) = &mut context.shared.queries {
            queries.forget(context.events, context.index);
        }
        self.decided(Decision::Unknown("no answer in time".into()), context)
    }

    /// Acts on the decision of the modules.
    pub(super) fn decided(&mut self, decision: Decision, context: &mut Context<'_>) -> Next {
        let (client, tag, timer) = match std::mem::replace(&mut self.state, State::Over) {
            State::Authorizing { client, tag, timer, .. } => (client, tag, timer),
            other => {
                self.state = other;
                return Next::Wait;
            }
        };
        context.events.cancel(timer);
        self.client_link = Link::Up;
        self.active = context.events.now();
        let settings = context.shared.settings.authorization;
        let permit = settings.is_some_and(|settings| settings.permit_on_error);
        let mut seeking = Seeking { client, tag, ..Seeking::default() };
        let mut refusal = None;
        match decision {
            Decision::Admit(None) => {}
            Decision::Admit(Some(name)) => {
                let registry = &mut context.shared.registry;
                let wanted = registry.tag(&name).and_then(|wanted| match tag {
                    Some(of_route) => registry.both(of_route, wanted),
                    None => Some(wanted),
                });
                seeking.tag = wanted;
                if wanted.is_none() {
                    let text = format!("no remote has the tag {name:?}");
                    complain(&self.client, seeking.client.as_deref(), &text);
                    refusal = Some(text);
                }
            }
            Decision::Deny(comment) => {
                let text = comment.map_or_else(String::new, |comment| format!(" ({comment})"));
                refusal = Some(format!("denied{text}"));
            }
            Decision::Unknown(why) if permit => {
                complain(&self.client, seeking.client.as_deref(), &why);
            }
            Decision::Unknown(why) => {
                let text = format!("authorization failed: {why}");
                complain(&self.client, seeking.client.as_deref(), &text);
                refusal = Some(text);
            }
        }
        self.state = State::Choosing(seeking);
        match refusal {
            Some(text) => Next::refuse(Refusal::Authorization, text),
            None => Next::Dial,
        }
    }

    /// A client that waits to be admitted has sent something, or is gone.
    pub(super) fn heard(&mut self, event: Event) -> Next {
        let Session { client: socket, client_link, state, .. } = self;
        let State::Authorizing { client, heard, .. } = state else {
            return Next::Wait;
        };
        // Send the rest of the handshake.
        let flushed = match client {
            Some(client) if event.writable => client.flush(socket),
            _ => Ok(()),
        };
        if flushed.is_err() || socket.take_error().is_err() {
            return Next::client_broke();
        }
        // The client's data stays unread until there is a remote to take it. An end without data
        // before it is not a half-close: nobody waits for an answer to nothing.
        let has_spoken = client.as_ref().is_some_and(|client| client.has_spoken());
        match socket.peek() {
            Ok(0) if !has_spoken => Next::Close(Outcome::Closed, Parting::Orderly),
            Ok(_) => {
                *heard = Heard::Something;
                if event.hangup {
                    *client_link = Link::HungUp;
                }
                Next::Wait
            }
            Err(error) if os::would_block(&error) => Next::Wait,
            Err(_) => Next::client_broke(),
        }
    }
}

fn complain(socket: &Socket, client: Option<&KnownClient>, text: &str) {
    let address = match client.and_then(KnownClient::told) {
        Some((source, _)) => Some(source.clone()),
        None => socket.peer_address(),
    };
    let address = address.map_or_else(|| "local".to_owned(), |address| address.to_string());
    log::braked(log::Kind::Admission, || format!("mavis: client {address}: {text}"));
}
