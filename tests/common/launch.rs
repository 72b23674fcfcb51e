//! Starts a program under test in a directory of its own, with whatever arguments, environment,
//! user and limits a test needs.

use super::{children, is_root, ours, title, wait_for, within, Directory, Relay, TCPRELAY};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

/// What the program gets as descriptor 0.
enum Input {
    Null,
    Closed,
    Descriptor(OwnedFd),
}

/// The emulated mechanism for a test that does not choose one. It is the same for all programs of the
/// test, and tests are spread evenly over the mechanisms, and so over the sandboxes of other systems.
fn emulated() -> &'static str {
    let sum: usize = thread::current().name().unwrap_or("").bytes().map(usize::from).sum();
    let all = super::mechanisms();
    all[sum % all.len()].0
}

/// How a program is started. In texts and arguments `@DIR@` stands for the test's directory,
/// `@CFG@` for the configuration file and `@BIN@` for the program.
pub struct Launch {
    pub directory: Directory,
    program: PathBuf,
    name: Option<String>,
    arguments: Vec<String>,
    config: String,
    environment: Vec<(String, String)>,
    no_environment: Vec<String>,
    input: Input,
    descriptors: Option<(u64, u64)>,
    user: Option<u32>,
    ready: Option<usize>,
}

impl Launch {
    /// `tcprelay` with this configuration; [`start`](Self::start) waits for one worker.
    pub fn new(config: impl Into<String>) -> Launch {
        let mut environment = vec![("TCPRELAY_LOG_STDERR".into(), "1".into())];
        if !is_root() {
            // Tests read /proc of the processes, which only root may do otherwise.
            environment.push(("TCPRELAY_TRACEABLE".into(), "1".into()));
        }
        let launch = Launch {
            directory: Directory::new(),
            program: TCPRELAY.into(),
            name: None,
            arguments: vec!["@CFG@".into()],
            config: config.into(),
            environment,
            no_environment: vec!["IO_POLL_MECHANISM".into()],
            input: Input::Null,
            descriptors: None,
            user: None,
            ready: Some(1),
        };
        if cfg!(event_shims) {
            launch.mechanism(emulated())
        } else {
            launch
        }
    }

    /// One listener on a port of 127.0.0.1, one worker for up to 5000 connections, and `relay` as
    /// the text of the worker's section.
    pub fn simple(port: u16, relay: &str) -> Launch {
        super::relay(relay).port(port).launch().0
    }

    pub fn program(mut self, program: impl Into<PathBuf>) -> Launch {
        self.program = program.into();
        self
    }

    /// Adds an argument before the configuration file.
    pub fn argument(mut self, argument: &str) -> Launch {
        let last = self.arguments.len().saturating_sub(1);
        self.arguments.insert(last, argument.into());
        self
    }

    /// Sets argv\[0].
    pub fn name(mut self, name: &str) -> Launch {
        self.name = Some(name.into());
        self
    }

    pub fn arguments(mut self, arguments: &[&str]) -> Launch {
        self.arguments = arguments.iter().map(|&argument| argument.into()).collect();
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Launch {
        self.no_environment.retain(|other| other != name);
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Sets the event mechanism, by its value of `IO_POLL_MECHANISM`. With the emulations each
    /// mechanism also selects the sandbox of one system.
    pub fn mechanism(self, value: &str) -> Launch {
        let system = match value {
            "1" => "freebsd",
            "2" => "openbsd",
            "32" => "illumos",
            _ => "",
        };
        self.environment("IO_POLL_MECHANISM", value).environment("TCPRELAY_TEST_SYSTEM", system)
    }

    pub fn without(mut self, name: &str) -> Launch {
        self.environment.retain(|(other, _)| other != name);
        self.no_environment.push(name.into());
        self
    }

    pub fn file(self, name: &str, text: impl AsRef<[u8]>) -> Launch {
        self.directory.write(name, text);
        self
    }

    pub fn input(mut self, fd: impl Into<OwnedFd>) -> Launch {
        self.input = Input::Descriptor(fd.into());
        self
    }

    pub fn input_closed(mut self) -> Launch {
        self.input = Input::Closed;
        self
    }

    /// Sets the soft and hard limits on descriptors.
    pub fn descriptors(mut self, soft: u64, hard: u64) -> Launch {
        self.descriptors = Some((soft, hard));
        self
    }

    /// Sets the user that the program runs as; needs root.
    pub fn user(mut self, user: u32) -> Launch {
        self.user = Some(user);
        self
    }

    /// How many workers [`start`](Self::start) waits for; `None`: does not wait at all.
    pub fn ready(mut self, workers: impl Into<Option<usize>>) -> Launch {
        self.ready = workers.into();
        self
    }

    fn expand(&self, text: &str) -> String {
        let directory = self.directory.path().display().to_string();
        text.replace("@CFG@", &format!("{directory}/relay.cfg"))
            .replace("@DIR@", &directory)
            .replace("@BIN@", TCPRELAY)
    }

    fn spawn(self) -> Relay {
        let config = with_keys(self.expand(&self.config));
        let config = self.directory.write("relay.cfg", config);
        let log = self.directory.file("log");
        let create = |name: &str| File::create(self.directory.file(name)).expect("a file");
        let mut command = ours(self.expand(&self.program.display().to_string()));
        if let Some(name) = &self.name {
            command.arg0(self.expand(name));
        }
        for name in &self.no_environment {
            command.env_remove(name);
        }
        command
            .args(self.arguments.iter().map(|argument| self.expand(argument)))
            .envs(self.environment.iter().map(|(name, value)| (name, self.expand(value))))
            .current_dir(self.directory.path())
            .stdout(create("stdout"))
            .stderr(create("log"));
        let closed = matches!(self.input, Input::Closed);
        match self.input {
            Input::Descriptor(fd) => command.stdin(Stdio::from(fd)),
            _ => command.stdin(Stdio::null()),
        };
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        let limits = self.descriptors;
        // SAFETY: the code between fork and exec calls only close(2) and setrlimit(2).
        unsafe {
            command.pre_exec(move || {
                if closed {
                    libc::close(0);
                }
                if let Some((soft, hard)) = limits {
                    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
                    if libc::setrlimit(libc::RLIMIT_NOFILE, &limit) != 0 {
                        return Err(io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        let child = command.spawn().expect("the program under test");
        Relay::assemble(self.directory, config, log, child)
    }

    /// Starts a relay, and waits until its workers serve.
    pub fn start(self) -> Relay {
        let ready = self.ready;
        let program = fs::canonicalize(TCPRELAY).expect("the program under test");
        let relay = self.spawn();
        if let Some(workers) = ready {
            relay.wait_for_log("the workers", |log| {
                // Broker and workers each log their event mechanism just before they serve.
                let used = log.matches("notification mechanism is being used").count();
                (used > workers || log.contains("degraded mode")).then_some(())
            });
            // A worker running the program under test has opened everything once its title shows a
            // count, and a monitor once it has its title.
            let ours = |pid: i32| {
                fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program)
            };
            let counts = |&pid: &i32| {
                let title = title(pid);
                !ours(pid) || title.contains(" connection") || title.ends_with(": monitor")
            };
            within(Duration::from_secs(2), || relay.workers().iter().all(counts).then_some(()));
        }
        relay
    }

    /// Runs the program until it ends.
    pub fn finish(self) -> Finished {
        let mut relay = self.spawn();
        let status = relay.wait();
        Finished { status, stderr: relay.log(), stdout: stdout(&relay), relay }
    }
}

/// A configuration with `tls keys` as TCPRELAY_TEST_KEYS says, if it has certificates and does not
/// say itself.
fn with_keys(config: String) -> String {
    match std::env::var("TCPRELAY_TEST_KEYS") {
        Ok(keys) if config.contains("tls cert-file") && !config.contains("tls keys") => {
            let place = "id = tcprelay {";
            config.replacen(place, &format!("{place} tls keys = {keys} "), 1)
        }
        _ => config,
    }
}

/// A program that has ended, with its output.
pub struct Finished {
    pub status: ExitStatus,
    pub stderr: String,
    pub stdout: Vec<u8>,
    /// Holds the directory, so that its files stay readable.
    pub relay: Relay,
}

impl Finished {
    /// Requires an exit status.
    pub fn exits(&self, status: i32) -> &Finished {
        assert_eq!(self.status.code(), Some(status), "{:?}; stderr:\n{}", self.status, self.stderr);
        self
    }

    /// Requires a text on standard error.
    pub fn says(&self, text: &str) -> &Finished {
        assert!(self.stderr.contains(text), "no {text:?} in stderr:\n{}", self.stderr);
        self
    }
}

/// Returns what was written to standard output.
pub fn stdout(relay: &Relay) -> Vec<u8> {
    fs::read(relay.directory.file("stdout")).expect("the standard output")
}

/// Both sections: one listener on 127.0.0.1 and one worker, with further directives for each.
pub fn section(port: u16, broker: &str, spawn: &str, relay: &str) -> String {
    super::relay(relay).port(port).users_by_default().broker(broker).spawn(spawn).text()
}

/// Both sections, with `spawn` as it is given, for texts that a test changes and loads again.
pub fn sections(port: u16, remote: &str, broker: &str, spawn: &str, worker: &str) -> String {
    format!(
        "id = spawnd {{\n listen = {{ address = 127.0.0.1 port = {port} backlog = 4096 }}\n \
         {broker}\n spawn {{ {spawn} }}\n}}\nid = tcprelay {{\n{remote}{worker}\n}}\n"
    )
}

/// The monitor of a relay, among its children.
pub fn monitor(relay: &Relay) -> Option<i32> {
    children(relay.pid()).into_iter().find(|&pid| title(pid).ends_with(": monitor"))
}

/// The workers of a relay that serve, which its monitor is not.
pub fn serving(relay: &Relay) -> Vec<i32> {
    let serves = |pid: &i32| title(*pid).contains("connection");
    children(relay.pid()).into_iter().filter(serves).collect()
}
