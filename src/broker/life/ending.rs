//! The end: at once, or when the sessions have ended.

use super::{Broker, Life};
use crate::broker::text;
use crate::channel::local::LocalWorker;
use crate::config::broker::Stop;
use crate::event::Loop;
use crate::os::{log, supervisor};

impl Broker {
    /// Ends as the configuration wants it.
    pub(super) fn stop(&mut self, events: &mut Loop) {
        match (self.life, self.stop) {
            (Life::Serving, Stop::Drain) => self.drain(events),
            _ => self.terminate(events),
        }
    }

    /// Ends the broker. Workers keep their sessions until these end.
    pub(super) fn terminate(&mut self, events: &mut Loop) {
        supervisor::notify("STOPPING=1");
        log::message(text::EXITING);
        self.life = Life::Ended(0);
        self.reload.stop();
        self.callers.end();
        self.workers.close(events);
        self.listeners.remove_paths();
        self.endpoints.remove_paths();
        self.remove_pid_file();
        match self.workers.local_mut() {
            Some(local) if local.sessions() == 0 => local.end(events),
            Some(_) => {
                let mut keepers = std::mem::take(&mut self.keepers);
                keepers.leave(|| self.drain_sessions(events));
                self.keepers = keepers;
            }
            None => {}
        }
    }

    /// SIGTERM with `stop = drain`: nothing new is accepted, and the broker stays until the
    /// sessions have ended, or the drain timeout has ended them.
    pub(super) fn drain(&mut self, events: &mut Loop) {
        supervisor::notify("STOPPING=1");
        // Clients in the backlogs are connected already, so they are served as well.
        self.accept_backlogs(events);
        self.life = Life::Draining;
        self.reload.stop();
        self.callers.end();
        self.listeners.remove_paths();
        self.endpoints.remove_paths();
        self.listeners.close(events);
        self.dispatch.refuse_all();
        self.workers.close(events);
        if let Some(local) = self.workers.local_mut() {
            local.drain(events);
        }
        let count = self.workers.sessions();
        log::message(&format!("SIGTERM: no longer accepting, waiting for {count} sessions to end"));
    }

    /// Ends a draining broker that has nothing left to wait for.
    pub(super) fn finish_draining(&mut self, events: &mut Loop) {
        let sessions = self.workers.local().map_or(0, LocalWorker::sessions);
        if sessions == 0 && self.workers.is_empty() && self.keepers.is_empty() {
            self.collect_orphans();
            self.dispatch.refuse_all();
            log::message(text::EXITING);
            self.life = Life::Ended(0);
            self.remove_pid_file();
            if let Some(local) = self.workers.local_mut() {
                local.end(events);
            }
        }
    }

    /// Queues the connections left unread by workers that are gone, for others or the next image.
    pub(super) fn collect_orphans(&mut self) {
        let found = self.workers.collect_orphans();
        self.dispatch.adopt(found, &self.listeners, &self.workers);
    }

    pub(super) fn remove_pid_file(&mut self) {
        drop(self.pid_file.take());
    }
}
