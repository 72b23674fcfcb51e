//! Which clients are admitted: the access list, the limit of connections, and those of each client.

use super::clients::{ClientTable, Seat};
use super::text;
use crate::config::acl::Acl;
use crate::config::broker::Overload;
use crate::config::clients::Refuse;
use crate::os::address::ScopedIp;
use crate::os::log;
use crate::upstream::zone::counters::Refusal;

/// What happens to a connection.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is served.
    Admitted(Option<Seat>),
    /// It is closed.
    Closed(Refusal),
    /// It is reset.
    Reset(Refusal),
}

/// Decides which connections are admitted.
#[derive(Debug)]
pub struct Admission {
    acl: Acl,
    clients: ClientTable,
    overload: Overload,
    overloaded: bool,
}

impl Admission {
    /// As configured.
    pub(super) fn new(acl: Acl, clients: ClientTable, overload: Overload) -> Admission {
        Admission { acl, clients, overload, overloaded: false }
    }

    /// What happens to connections beyond the limit.
    pub fn overload(&self) -> Overload {
        self.overload
    }

    /// True while the limit is reached.
    pub fn is_overloaded(&self) -> bool {
        self.overloaded
    }

    /// True while connections beyond the limit wait in the backlog.
    pub fn is_queueing(&self) -> bool {
        self.overloaded && self.overload == Overload::Queue
    }

    /// Decides about a connection; `full` if the limit is reached. A `client` without an IP address
    /// is local, and permitted.
    pub(super) fn judge(
        &self,
        full: bool,
        now: u64,
        client: impl FnOnce() -> Option<ScopedIp>,
    ) -> Verdict {
        if full {
            // Resetting closes the listeners, except those that we could not open again.
            return match self.overload {
                Overload::Reset => Verdict::Reset(Refusal::Overload),
                Overload::Queue | Overload::Close => Verdict::Closed(Refusal::Overload),
            };
        }
        if self.acl.is_empty() && !self.clients.is_limited() {
            return Verdict::Admitted(None);
        }
        let Some(address) = client() else {
            return Verdict::Admitted(None);
        };
        if !self.acl.permits(address) {
            log::braked(log::Kind::Denied, || {
                format!("{}: denied by ACL", text::rejected(address))
            });
            return Verdict::Closed(Refusal::Acl);
        }
        match self.clients.admit(address, now) {
            Ok(seat) => Verdict::Admitted(seat),
            Err(refusal) => {
                log::braked(log::Kind::Client, || text::beyond(address, refusal));
                match self.clients.refuse() {
                    Refuse::Close => Verdict::Closed(refusal.into()),
                    Refuse::Reset => Verdict::Reset(refusal.into()),
                }
            }
        }
    }

    /// The sessions of clients.
    pub(super) fn clients(&self) -> &ClientTable {
        &self.clients
    }

    /// The `limit` is reached, or no longer reached.
    pub fn follow(&mut self, full: bool, limit: usize) {
        self.overloaded = full;
        if full {
            log::braked(log::Kind::Limit, || text::full(limit, text::doing(self.overload)));
        } else {
            log::braked(log::Kind::Limit, || text::RESUMING.to_owned());
        }
    }
}
