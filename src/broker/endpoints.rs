//! The sockets at which the monitor answers. The broker opens them, as it may, and keeps them: they
//! outlive the monitor, and go on to the next image.

use super::addresses::Resolver;
use super::handover::LeftListener;
use super::listeners::Listener;
use crate::channel::protocol::Purpose;
use crate::config::broker as config;
use crate::config::endpoint;
use crate::os::process::exit;
use crate::os::socket::Keepalive;
use crate::os::{self, log};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The sockets, each with its purpose.
#[derive(Default)]
pub(super) struct Endpoints {
    all: Vec<(Purpose, Listener)>,
}

/// What messages and keys call the purpose.
fn word(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Status => "status",
    }
}

impl Endpoints {
    /// Opens those of a configuration, or takes them over from the former image; those that nobody
    /// wants any more are closed. Fails with the exit status if one cannot be opened. After a reload
    /// that is only logged: the service goes on without it.
    pub(super) fn open(
        config: &mut config::Broker,
        former: &mut Vec<LeftListener<os::Listener>>,
        reloaded: bool,
    ) -> Result<Endpoints, i32> {
        let wanted = [(Purpose::Status, config.status.take())];
        let prefixes = wanted.each_ref().map(|(purpose, _)| prefix(*purpose));
        let ours = |left: &LeftListener<_>| prefixes.iter().any(|each| left.key.starts_with(each));
        let mut left: Vec<_> = Vec::new();
        for listener in std::mem::take(former) {
            if ours(&listener) { &mut left } else { &mut *former }.push(listener);
        }
        let mut endpoints = Endpoints::default();
        for (purpose, endpoint) in wanted {
            let Some(endpoint) = endpoint else { continue };
            let position = endpoint.position.clone();
            match open(purpose, endpoint, &mut left) {
                Ok(listener) => endpoints.all.push((purpose, listener)),
                Err(reason) => {
                    log::message_at(
                        log::Severity::ERROR,
                        &format!("{position}: {}: {reason}", word(purpose)),
                    );
                    if !reloaded {
                        return Err(exit::TEMPORARY);
                    }
                }
            }
        }
        Ok(endpoints)
    }

    /// Copies of the sockets, for the monitor.
    pub(super) fn copies(&self) -> Vec<(Purpose, OwnedFd)> {
        let bound = self.all.iter().filter_map(|(purpose, listener)| {
            let socket = listener.socket.as_ref()?;
            Some((*purpose, socket.as_fd().try_clone_to_owned().ok()?))
        });
        bound.collect()
    }

    /// The sockets, for the next image.
    pub(super) fn left(&self) -> impl Iterator<Item = LeftListener<BorrowedFd<'_>>> + '_ {
        self.all.iter().filter_map(|(purpose, listener)| {
            let key = format!("{}{}", prefix(*purpose), listener.key());
            let socket = listener.socket.as_ref()?.as_fd();
            Some(LeftListener { key, socket, file: listener.file() })
        })
    }

    /// Removes the files of UNIX sockets.
    pub(super) fn remove_paths(&self) {
        self.all.iter().for_each(|(_, listener)| listener.remove_path());
    }
}

/// Keys of these sockets begin with this, so that no listener takes one for its own.
fn prefix(purpose: Purpose) -> String {
    format!("{} ", word(purpose))
}

fn open(
    purpose: Purpose,
    endpoint: endpoint::Endpoint,
    left: &mut Vec<LeftListener<os::Listener>>,
) -> Result<Listener, String> {
    let address = Resolver::default().resolve(&endpoint.listener)?;
    let mut listener = Listener::new(endpoint.listener, address, Keepalive::default());
    let key = format!("{}{}", prefix(purpose), listener.key());
    if let Some(index) = left.iter().position(|left| left.key == key) {
        let former = left.swap_remove(index);
        if listener.adopt(former.socket, former.file).is_ok() {
            return Ok(listener);
        }
    }
    listener.await_rival();
    listener
        .try_to_open()
        .map_err(|(call, error)| format!("{call} {}: {}", listener.address, os::reason(&error)))?;
    let address = listener.socket.as_ref().and_then(os::socket::Addressed::local_address);
    let address = address.unwrap_or_else(|| listener.address.clone());
    log::message(&format!("{} at {address}", word(purpose)));
    Ok(listener)
}
