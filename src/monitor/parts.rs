//! The monitor: its parts, each with what it does about events.

use super::control::Control;
use super::kind;
use super::names::Names;
use super::probes::Probes;
pub use super::shared::IsOwn;
use super::shared::{Changes, Shared};
use super::staples::Staples;
use super::status::Status;
use crate::channel::briefing::Briefing;
use crate::channel::protocol::{Caller, Errand, Purpose};
use crate::config::relay::Relay;
use crate::event::{Event, Loop, TimerId, Token};
use crate::os::{self, Socket};
use crate::tls::client::Connector;
use crate::tls::ocsp::Inquiry;
use crate::upstream::zone::counters::{Counters, Standing};
use crate::upstream::zone::Zone;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// The monitor.
pub struct Monitor {
    shared: Shared,
    probes: Probes,
    control: Control,
    status: Status,
    names: Names,
    staples: Staples,
}

impl Monitor {
    /// A monitor of the remotes of a section, with the TLS connectors of these and then of the names
    /// in the same order; it asks for OCSP responses about certificates. It counts in `counters`.
    /// `is_own`: whether a remote is a listener of this relay. `None` if the zone has no room for the
    /// remotes.
    pub fn new(
        settings: Relay,
        connectors: Vec<Option<Rc<Connector>>>,
        inquiries: Vec<Inquiry>,
        zone: Zone,
        counters: Counters,
        is_own: IsOwn,
    ) -> Option<Monitor> {
        counters.stand(Standing::Serving, os::wall_clock());
        let shared = Shared::new(settings, connectors, zone, counters, is_own)?;
        let (probes, names) = (Probes::new(&shared), Names::new(&shared));
        let (control, status) = (Control::default(), Status::default());
        let staples = Staples::new(inquiries);
        Some(Monitor { shared, probes, names, staples, control, status })
    }

    /// Starts to work.
    pub fn begin(&mut self, events: &mut Loop) {
        self.probes.begin(&self.shared, events);
        self.names.begin(&self.shared, events);
        self.staples.begin(&self.shared, events);
    }

    /// Is told what it has to know of the broker, and answers at these sockets from now on.
    pub fn brief(
        &mut self,
        briefing: Briefing,
        endpoints: Vec<(Purpose, OwnedFd)>,
        events: &mut Loop,
    ) {
        self.shared.briefing = briefing;
        for (purpose, socket) in endpoints {
            match purpose {
                Purpose::Status => self.status.serve(socket.into(), &self.shared, events),
            }
        }
    }

    /// A descriptor of the monitor is ready.
    pub fn event(&mut self, event: Event, events: &mut Loop) {
        match event.token.kind() {
            kind::PROBES => self.probes.event(event, &self.shared, events),
            kind::CONTROL => self.control.event(event, &self.shared, events),
            kind::STATUS => self.status.event(event, &self.shared, events),
            kind::STAPLES => self.staples.event(event, &self.shared, events),
            kind::NAMES => {
                let changes = self.names.event(event, &mut self.shared, events);
                self.changed(&changes, events);
            }
            _ => {}
        }
    }

    /// A timer of the monitor has expired.
    pub fn timer(&mut self, timer: TimerId, token: Token, events: &mut Loop) {
        match token.kind() {
            kind::PROBES => self.probes.timer(timer, token, &self.shared, events),
            kind::CONTROL => self.control.timer(timer, token, &self.shared, events),
            kind::STATUS => self.status.timer(timer, token, &self.shared, events),
            kind::STAPLES => self.staples.timer(timer, token, &self.shared, events),
            kind::NAMES => {
                let changes = self.names.timer(timer, token, &mut self.shared, events);
                self.changed(&changes, events);
            }
            _ => {}
        }
    }

    /// Addresses of names have come and gone, which all parts have to know.
    fn changed(&mut self, changes: &Changes, events: &mut Loop) {
        self.probes.left(&changes.left, events);
        self.probes.joined(&changes.joined, &self.shared, events);
    }

    /// Stops, and takes its descriptors and timers off the loop.
    pub fn end(&mut self, events: &mut Loop) {
        self.probes.end(events);
        self.status.end(events);
        self.names.end(events);
        self.staples.end(events);
        self.control.end(events);
    }

    /// Takes a client of the control socket.
    pub fn call(&mut self, socket: Socket, caller: Caller, events: &mut Loop) {
        self.control.take(socket, caller, events);
    }

    /// What the broker has to do for such a client.
    pub fn errand(&mut self) -> Option<Errand> {
        self.control.errand()
    }
}
