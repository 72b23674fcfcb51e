//! The desk: clients of the control socket, and what only the broker can do for them.

use super::{Broker, Life};
use crate::broker::callers::{failure, say, Until};
use crate::broker::reload::Purpose;
use crate::channel::protocol::{Errand, Rights, Wants};
use crate::event::Loop;
use crate::os::{self, Socket};
use serde_json::json;

/// Clients accepted in one turn.
const BATCH: usize = 4;

impl Broker {
    /// Accepts clients of the control socket, and passes them to the monitor.
    pub(super) fn answer_desk(&mut self, events: &mut Loop) {
        for _ in 0..BATCH {
            if !self.callers.has_room() {
                return;
            }
            match self.listeners.accept_caller() {
                Ok((socket, rights)) => {
                    let caller = self.callers.number(rights);
                    if self.workers.call(caller, &socket, events) {
                        self.callers.passed(caller, socket);
                    }
                }
                Err(error) if os::would_block(&error) => return,
                Err(error) => return self.dispatch.rest("accept", &error, events),
            }
        }
    }

    /// At the end of a turn in which more than connections has come or gone.
    #[cold]
    pub(super) fn tend_desk(&mut self, events: &mut Loop) {
        self.desk_is_due = false;
        if self.listeners.has_desk() {
            self.run_errands(events);
            self.open_or_close_desk(events);
        }
    }

    /// Clients are accepted while there is a monitor that takes them.
    fn open_or_close_desk(&mut self, events: &mut Loop) {
        let takes_callers = self.is_serving() && self.workers.takes_callers();
        if !takes_callers {
            self.callers.monitor_is_gone();
        }
        let is_open = takes_callers && self.callers.has_room() && !self.dispatch.is_resting();
        self.listeners.set_desk_open(is_open, events);
    }

    /// Does what clients want of the broker.
    fn run_errands(&mut self, events: &mut Loop) {
        self.workers.hear_local_monitor();
        self.follow_news(events);
        while let Some((Errand { wants, .. }, socket, rights)) = self.callers.next_errand() {
            let change = match wants {
                Wants::Nothing => continue,
                Wants::Former => {
                    say(&socket, &self.former());
                    continue;
                }
                Wants::Reload => Broker::reload,
                Wants::Stop => Broker::stop_for,
            };
            if rights == Rights::Change {
                change(self, socket, events);
            } else {
                say(&socket, &failure("only root and the owner of the socket may do that"));
            }
        }
        if let Some(trouble) = self.reload.take_trouble() {
            self.callers.refused(&[trouble]);
        }
    }

    /// What is left of former configurations.
    fn former(&self) -> serde_json::Value {
        let (workers, sessions) = self.workers.former();
        let workers = workers + self.keepers.pids().len();
        json!({ "ok": true, "pid": std::process::id(), "workers": workers, "sessions": sessions })
    }

    fn reload(&mut self, socket: Socket, events: &mut Loop) {
        if !self.is_serving() {
            return say(&socket, &failure("the service is ending"));
        }
        if self.options.inetd {
            let text = "inetd starts a new broker for each connection: there is nothing to reload";
            return say(&socket, &failure(text));
        }
        let until = match self.reload.is_checking() {
            true => Until::NextCheck,
            false => Until::Check,
        };
        self.callers.wait(socket, until);
        self.check_and(Purpose::Reload, events);
    }

    fn stop_for(&mut self, socket: Socket, events: &mut Loop) {
        self.stop(events);
        let drains = self.life == Life::Draining;
        let sessions = self.workers.sessions();
        say(&socket, &json!({ "ok": true, "drains": drains, "sessions": sessions }));
        self.callers.stop(socket, sessions);
    }
}
