//! Clients that are introduced by a proxy: the PROXY header before their first byte (`haproxy`).

use super::client::{Introduced, Introducing, Origin};
use super::session::{read_early, Context, Next, Session, State};
use crate::channel::protocol::Accept;
use crate::config::listen::flag;
use crate::os::log;
use crate::upstream::proxy::{self, read, Header, Reading};
use crate::upstream::zone::counters::Refusal;

/// The first state of a session whose listener expects headers.
pub(super) fn introducing(origin: Origin, accept: &Accept) -> State {
    let introduced = match accept.flags {
        flags if flags & flag::HAPROXY_DISTRUSTED != 0 => Introduced::Never,
        flags if flags & flag::HAPROXY_OPTIONAL != 0 => Introduced::Perhaps,
        _ => Introduced::Always,
    };
    let (accept, early) = (*accept, Vec::new());
    State::Introducing(Box::new(Introducing { origin, introduced, accept, early, timer: None }))
}

impl Session {
    /// Looks for the header in what the connection begins with.
    pub(super) fn introduce(&mut self, context: &mut Context<'_>) -> Next {
        let State::Introducing(introducing) = &mut self.state else {
            return Next::Wait;
        };
        let scratch = &mut context.shared.buffers.scratch;
        let count = match read_early(&self.client, &mut introducing.early, scratch) {
            Ok(count) => count,
            Err(next) => return next,
        };
        match (read(&introducing.early), introducing.introduced) {
            (Reading::Incomplete, _) if count > 0 => Next::Wait,
            (Reading::Incomplete | Reading::Absent, Introduced::Always) => {
                // A connection that ends without a byte was a port scan, or a health check.
                if !introducing.early.is_empty() {
                    self.complain_of_introduction("there is none");
                }
                Next::refuse(Refusal::Proxy, "no PROXY header")
            }
            (Reading::Incomplete | Reading::Absent, _) => self.introduced(None, context),
            (Reading::Malformed(reason), _) => {
                self.complain_of_introduction(reason);
                Next::refuse(Refusal::Proxy, "malformed PROXY header")
            }
            (Reading::Complete(..), Introduced::Never) => {
                self.complain_of_introduction("the sender is not in 'haproxy from'");
                Next::refuse(Refusal::Proxy, "PROXY header not believed")
            }
            (Reading::Complete(header, length), _) => {
                introducing.early.drain(..length);
                self.introduced(Some(header), context)
            }
        }
    }

    /// No header has come in time. Where it may be missing, that is so: the client may be waiting
    /// for the remote to speak first.
    pub(super) fn not_introduced(&mut self, context: &mut Context<'_>) -> Next {
        match &self.state {
            State::Introducing(introducing) if introducing.introduced == Introduced::Always => {
                self.complain_of_introduction("it did not come in time");
                Next::refuse(Refusal::Proxy, "PROXY header timeout")
            }
            _ => self.introduced(None, context),
        }
    }

    /// The header was read, or there is none. The session goes on with the client's own bytes.
    fn introduced(&mut self, header: Option<Box<Header>>, context: &mut Context<'_>) -> Next {
        let State::Introducing(introducing) = std::mem::replace(&mut self.state, State::Over)
        else {
            return Next::Wait;
        };
        let Introducing { mut origin, accept, early, timer, .. } = *introducing;
        timer.into_iter().for_each(|timer| context.events.cancel(timer));
        self.active = context.events.now();
        if let Some(header) = header {
            if let Some(access) = &mut self.access {
                access.introduced(&header);
            }
            if let proxy::Origin::Client { source, .. } = &header.origin {
                let denied = |address| !context.shared.access_list.permits(address);
                if source.scoped_ip().is_some_and(denied) {
                    log::braked(log::Kind::Denied, || {
                        format!("PROXY header: client {source}: denied by ACL")
                    });
                    return Next::refuse(Refusal::Acl, "denied by ACL");
                }
                if let Some(address) = source.scoped_ip() {
                    match context.shared.clients.admit(address, context.events.now()) {
                        Ok(None) => {}
                        Ok(client) => self.allotment.get_or_insert_default().client = client,
                        Err(refusal) => {
                            log::braked(log::Kind::Client, || {
                                format!("PROXY header: client {source}: beyond its {refusal}")
                            });
                            return Next::refuse(refusal.into(), format!("beyond {refusal}"));
                        }
                    }
                }
                origin.address = Some(source.clone());
            }
            origin.introduction = Some(header);
        }
        if accept.tls_versions == 0 && accept.flags & flag::TLS_INSPECT == 0 {
            return self.admit_plain(origin, early, context);
        }
        match context.shared.first_tls_state(origin, &accept) {
            Some(state) => {
                self.state = state;
                self.begin_tls(early, context)
            }
            None => Next::refuse(Refusal::Resources, "TLS handshake failed"),
        }
    }

    fn complain_of_introduction(&self, reason: &str) {
        let sender = self.client.peer_address();
        let sender =
            sender.map_or_else(|| "a local client".to_owned(), |sender| sender.to_string());
        log::braked(log::Kind::Session, || format!("PROXY header from {sender}: {reason}"));
    }
}
