//! What the broker counts, in its row of the zone.

use super::{Servers, Workers};
use crate::os;
use crate::upstream::zone::counters::{Counters, General, OfListener, Place, Refusal};

impl Workers {
    /// Begins to count, once it is known whether the former image has left a zone. `reloaded`: this
    /// image is one with a new configuration.
    pub(in crate::broker) fn begin_counting(&mut self, reloaded: bool) {
        match &self.servers {
            Servers::Own(_) => self.leases.count(),
            Servers::Local { worker, .. } => {
                if let Some(zone) = worker.zone() {
                    self.leases.count_in(zone);
                }
            }
            // They report nothing.
            Servers::Foreign(_) => {}
        }
        if reloaded {
            self.count_reload();
        }
    }

    /// The broker's counters.
    #[inline]
    pub(in crate::broker) fn counters(&self) -> &Counters {
        self.leases.counters()
    }

    /// Counts something.
    pub(in crate::broker) fn count(&self, what: General) {
        self.counters().add(Place::General(what), 1);
    }

    /// The configuration was read again.
    pub(in crate::broker) fn count_reload(&self) {
        self.count(General::Reloads);
        self.counters().set(Place::General(General::ReloadAt), os::wall_clock());
    }

    /// A connection was taken from a listener.
    #[inline]
    pub(in crate::broker) fn count_arrival(&self, listener: usize) {
        let Some(row) = self.counters().row() else {
            return;
        };
        row.add(Place::General(General::Arrived), 1);
        if let Some(listener) = row.listener(u16::try_from(listener).ok()) {
            listener.add(OfListener::Arrived, 1);
        }
    }

    /// A connection of a listener is not served.
    pub(in crate::broker) fn count_refusal(&self, listener: usize, why: Refusal) {
        self.counters().add(Place::Refused(why), 1);
        self.counters().add(Place::ListenerRefused(listener, why), 1);
    }
}
