//! The monitor process: the monitor, and its link to the broker.

use super::kind;
use super::parts::Monitor;
use crate::channel::briefing::Briefing;
use crate::channel::link::Link;
use crate::channel::protocol::{Errand, Purpose, Wants};
use crate::channel::tether::{Pull, Tether};
use crate::channel::worker_side::Order;
use crate::event::{Event, Loop, TimerId, Token};
use crate::os::process;
use crate::os::title::Title;
use crate::os::{self, log};
use std::io;
use std::os::fd::OwnedFd;

/// Messages taken per turn.
const BATCH: usize = 16;

/// Whether the process goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Running,
    /// The broker wants it to end, or is gone.
    Over,
}

/// The monitor process.
pub struct Process {
    monitor: Monitor,
    link: Link,
    tether: Tether,
    life: Life,
}

impl Process {
    /// Gets ready to work.
    pub fn start(monitor: Monitor, link: Link, events: &mut Loop) -> io::Result<Process> {
        let tether = Tether::new(kind::TETHER, &link, events)?;
        Ok(Process { monitor, link, tether, life: Life::Running })
    }

    /// Tells the broker that the monitor works, and starts to.
    pub fn begin(
        &mut self,
        name: &str,
        briefing: Briefing,
        endpoints: Vec<(Purpose, OwnedFd)>,
        events: &mut Loop,
    ) {
        // It takes no connections but those of the control socket, which come later.
        let _ = self.link.ready(0);
        self.flush(events);
        Title::new(name).text("monitor").show();
        self.monitor.begin(events);
        self.monitor.brief(briefing, endpoints, events);
    }

    /// Works until the process is no longer needed; returns its exit status.
    pub fn run(&mut self, events: &mut Loop) -> i32 {
        loop {
            if let Some(status) = self.turn(events) {
                return status;
            }
        }
    }

    /// Waits for events and handles them. Returns the exit status if the process is to exit.
    pub fn turn(&mut self, events: &mut Loop) -> Option<i32> {
        if let Err(error) = events.wait(None) {
            log::message(&format!("event loop: {}", os::reason(&error)));
            return Some(process::exit::SOFTWARE);
        }
        while let Some(event) = events.next_event() {
            self.event(event, events);
        }
        while let Some((timer, token)) = events.next_expired() {
            self.timer(timer, token, events);
        }
        self.flush(events);
        if self.life == Life::Running {
            self.link.watch(events);
            return None;
        }
        self.monitor.end(events);
        Some(0)
    }

    fn event(&mut self, event: Event, events: &mut Loop) {
        match event.token.kind() {
            kind::TETHER => match self.tether.event(event, &mut self.link, events) {
                Pull::Messages => self.read_channel(events),
                Pull::Leave => self.life = Life::Over,
                Pull::None => {}
            },
            _ => self.monitor.event(event, events),
        }
    }

    fn timer(&mut self, timer: TimerId, token: Token, events: &mut Loop) {
        match token.kind() {
            kind::TETHER => self.tether.expired(&mut self.link, events),
            _ => self.monitor.timer(timer, token, events),
        }
    }

    /// Handles messages of the broker.
    fn read_channel(&mut self, events: &mut Loop) {
        for _ in 0..BATCH {
            let order = match self.link.receive(events.now()) {
                Ok(order) => order,
                Err(error) if os::would_block(&error) => return,
                Err(error) => {
                    let order = self.link.failed("scm_recv_msg", &error);
                    return self.obey(&order, events);
                }
            };
            self.obey(&order, events);
        }
    }

    /// Carries out an order of the broker. Connections are not for a monitor.
    fn obey(&mut self, order: &Order<OwnedFd>, events: &mut Loop) {
        match order {
            Order::Drain | Order::Unneeded => self.life = Life::Over,
            Order::Caller(caller) => match self.link.next_socket() {
                Some(socket) => self.monitor.call(socket.into(), *caller, events),
                // It was lost on the way, as this process has too many descriptors.
                None => self.link.send_on(Errand { caller: caller.number, wants: Wants::Nothing }),
            },
            _ => {}
        }
    }

    /// Says what is due.
    fn flush(&mut self, events: &mut Loop) {
        while let Some(errand) = self.monitor.errand() {
            self.link.send_on(errand);
        }
        if self.link.is_due() {
            let order = self.link.flush();
            self.obey(&order, events);
        }
    }
}
