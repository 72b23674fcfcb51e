//! A relay with one listener, on 127.0.0.1 if nothing else is said, as most tests need one.

use super::{free_port, Launch, Relay};

/// A worker may take long to start on a busy machine, or in an emulator.
const PATIENT: &str = "start timeout = 60";

/// What its configuration says. Made by [`relay`].
pub struct Layout {
    address: &'static str,
    port: u16,
    workers: usize,
    single: bool,
    broker: String,
    listen: String,
    users: String,
    spawn: String,
    section: String,
}

/// A relay whose worker's section is `section`, with one worker on a port of its own.
pub fn relay(section: impl Into<String>) -> Layout {
    Layout {
        address: "address = 127.0.0.1",
        port: 0,
        workers: 1,
        single: false,
        broker: String::new(),
        listen: String::new(),
        users: format!("{PATIENT} users max = 5000"),
        spawn: String::new(),
        section: section.into(),
    }
}

impl Layout {
    /// Listens on all addresses of this host.
    pub fn on_all_addresses(mut self) -> Layout {
        self.address = "";
        self
    }

    /// The port; without this, a free one.
    pub fn port(mut self, port: u16) -> Layout {
        self.port = port;
        self
    }

    /// How many workers there are, no more and no fewer.
    pub fn workers(mut self, count: usize) -> Layout {
        self.workers = count;
        self
    }

    /// Whether it is one process.
    pub fn single(mut self, single: bool) -> Layout {
        self.single = single;
        self
    }

    /// Adds directives to the broker's section.
    pub fn broker(mut self, directives: &str) -> Layout {
        self.broker.push_str(directives);
        self.broker.push('\n');
        self
    }

    /// Adds directives to the listener.
    pub fn listen(mut self, directives: &str) -> Layout {
        self.listen.push_str(directives);
        self
    }

    /// Adds directives to `spawn`. Later ones count.
    pub fn spawn(mut self, directives: &str) -> Layout {
        self.spawn.push_str(directives);
        self
    }

    /// Leaves it to the relay how many sessions a worker may have.
    pub fn users_by_default(mut self) -> Layout {
        self.users = PATIENT.into();
        self
    }

    /// The configuration.
    pub fn text(&self) -> String {
        let Layout { address, port, workers, single, broker, listen, users, spawn, section } = self;
        let single = if *single { "single process = yes\n" } else { "" };
        format!(
            "id = spawnd {{\n{single}{broker}\
             listen = {{ {address} port = {port} backlog = 4096 {listen} }}\n\
             spawn = {{ instances min = {workers} instances max = {workers} {users} {spawn} }}\n}}\n\
             id = tcprelay {{\n{section}\n}}\n"
        )
    }

    /// The relay, not started, and its port.
    pub fn launch(mut self) -> (Launch, u16) {
        if self.port == 0 {
            self.port = free_port();
        }
        let ready = if self.single { None } else { Some(self.workers) };
        (Launch::new(self.text()).ready(ready), self.port)
    }

    /// Starts it; returns it with its port.
    pub fn start(self) -> (Relay, u16) {
        let (launch, port) = self.launch();
        let relay = launch.start();
        relay.expect_log("succeeded");
        (relay, port)
    }
}
