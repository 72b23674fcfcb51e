//! Everything about TLS that a relay's sessions share.

use super::client::Connector;
use super::error::Error;
use super::server::Acceptor;
use super::tickets::Ratchet;
use crate::config::relay::{Relay, Remote};
use crate::config::tls::{Kind, RemoteTls};
use crate::os::tls as library;
use crate::snapshot::material::Material;
use std::path::PathBuf;
use std::rc::Rc;

/// Everything about TLS that a relay's sessions share.
#[derive(Debug)]
pub struct Contexts {
    /// For listeners with TLS, if there are any.
    pub acceptor: Option<Acceptor>,
    /// For each remote, if it has TLS, and then for each name that is looked up again.
    pub connectors: Vec<Option<Rc<Connector>>>,
    /// Keys of session tickets.
    pub tickets: Ratchet,
}

/// At which ends of its sessions a process may have TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Only towards remotes: there are no listeners with TLS, or they are not this process's.
    Remotes,
    /// Towards clients as well.
    Both,
}

impl Contexts {
    /// Loads what a section asks for.
    pub fn load(
        settings: &Relay,
        material: &Material,
        tickets: Ratchet,
        ends: Ends,
    ) -> Result<Contexts, Error> {
        let mut connectors: Vec<Option<Rc<Connector>>> = Vec::new();
        for (index, remote) in settings.templates().enumerate() {
            let Some(tls) = &remote.tls else {
                connectors.push(None);
                continue;
            };
            // The addresses of one host share a connector.
            let same =
                |other: &Remote| other.tls.as_ref().is_some_and(|other| Rc::ptr_eq(other, tls));
            let connector = match settings.templates().take(index).position(same) {
                Some(earlier) => connectors[earlier].clone(),
                None => {
                    let connector =
                        Connector::new(tls, settings.tls.records, material).map_err(|error| {
                            let text = match (&remote.host, remote.origin) {
                                (Some(host), Some(_)) => format!("remote {host}: {error}"),
                                _ => format!("remote {}: {error}", remote.address),
                            };
                            Error { text, ..error }
                        })?;
                    Some(Rc::new(connector))
                }
            };
            connectors.push(connector);
        }
        let acceptor =
            (ends == Ends::Both).then(|| Acceptor::new(&settings.tls, material)).transpose()?;
        library::set_ticket_keys(tickets.keys());
        Ok(Contexts { acceptor, connectors, tickets })
    }

    /// Replaces the ticket keys, if it is time.
    pub fn renew_tickets(&mut self, now: u64) {
        if self.tickets.advance(now) {
            library::set_ticket_keys(self.tickets.keys());
        }
    }
}

/// Every file that a section's TLS settings name; those for listeners only if there are any.
pub fn files(settings: &Relay, ends: Ends) -> impl Iterator<Item = (&PathBuf, Kind)> {
    let remotes = settings.tls_of_remotes();
    let listener = (ends == Ends::Both).then(|| settings.tls.files());
    listener.into_iter().flatten().chain(remotes.flat_map(RemoteTls::files))
}
