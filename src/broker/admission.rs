//! Who is let in: the access list, and the limit of connections.

use super::acl::Acl;
use super::text;
use crate::config::broker::Overload;
use crate::os::address::ScopedIp;
use crate::os::log;

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is served.
    Admitted,
    /// It is closed.
    Closed,
    /// It is reset.
    Reset,
}

/// Who is let in.
#[derive(Debug)]
pub struct Admission {
    acl: Acl,
    overload: Overload,
    overloaded: bool,
}

impl Admission {
    /// As configured.
    pub fn new(acl: Acl, overload: Overload) -> Admission {
        Admission { acl, overload, overloaded: false }
    }

    /// What the limit does to those who are too many.
    pub fn overload(&self) -> Overload {
        self.overload
    }

    /// The limit is reached.
    pub fn is_overloaded(&self) -> bool {
        self.overloaded
    }

    /// Those who are too many wait in the backlog.
    pub fn is_queueing(&self) -> bool {
        self.overloaded && self.overload == Overload::Queue
    }

    /// Decides about a connection; `full` if there are as many as there may be. A `client` without an
    /// IP address is local, and permitted.
    pub fn judge(&self, full: bool, client: impl FnOnce() -> Option<ScopedIp>) -> Verdict {
        if full {
            // Resetting closes the listeners, but for those that we could not open again.
            return match self.overload {
                Overload::Reset => Verdict::Reset,
                Overload::Queue | Overload::Close => Verdict::Closed,
            };
        }
        if !self.acl.is_empty() {
            if let Some(address) = client().filter(|&address| !self.acl.permits(address)) {
                log::braked(log::Kind::Denied, || {
                    format!("{}: denied by ACL", text::rejected(address))
                });
                return Verdict::Closed;
            }
        }
        Verdict::Admitted
    }

    /// Follows the total across the limit. True if that was reached or left.
    pub fn follow(&mut self, full: bool, limit: usize) -> bool {
        if full == self.overloaded {
            return false;
        }
        self.overloaded = full;
        if full {
            log::braked(log::Kind::Limit, || text::full(limit, text::doing(self.overload)));
        } else {
            log::braked(log::Kind::Limit, || text::RESUMING.to_owned());
        }
        true
    }
}
