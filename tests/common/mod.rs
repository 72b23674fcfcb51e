//! Shared by the black-box tests: a relay in a directory of its own, real servers on free ports,
//! and waits with deadlines instead of sleeps.

// Each test program uses a part of this.
#![allow(dead_code, missing_docs, unreachable_pub, unused_imports)]

mod client;
pub mod dns;
pub mod launch;
pub mod layout;
pub mod load;
pub mod memory;
pub mod metrics;
pub mod modules;
pub mod namespace;
mod peer;
pub mod pki;
mod process;
mod programs;
pub mod sockets;
pub mod tls;
mod wait;
pub mod ways;

pub use client::*;
pub use launch::Launch;
pub use layout::relay;
pub use peer::*;
pub use process::*;
pub use programs::*;
pub use wait::*;

use std::fs;
use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// The programs under test.
pub const TCPRELAY: &str = match option_env!("TCPRELAY_TEST_PROGRAM") {
    // Built for another processor and run under an emulator (tools/test-kernels).
    Some(program) => program,
    None => env!("CARGO_BIN_EXE_tcprelay"),
};
pub const SPAWND: &str = env!("CARGO_BIN_EXE_spawnd");

/// True if the tests run as root. A test that needs root reports itself as left out otherwise.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Reports that a test is left out, and why.
pub fn left_out(why: &str) {
    eprintln!("LEFT OUT: {}: {why}", thread::current().name().unwrap_or("test"));
}

/// The value of `IO_POLL_MECHANISM` for epoll, which every build has.
pub const EPOLL: &str = "4";

/// The `IO_POLL_MECHANISM` values that this build can run, with their names.
/// TCPRELAY_TEST_MECHANISM limits them to the one of that name.
pub fn mechanisms() -> Vec<(&'static str, &'static str)> {
    let mut all = if cfg!(event_shims) {
        // The native mechanisms are tested with the build that users get.
        vec![("1", "kqueue"), ("32", "port"), ("2", "/dev/poll")]
    } else {
        vec![(EPOLL, "epoll"), ("8", "poll"), ("16", "select")]
    };
    if let Ok(only) = std::env::var("TCPRELAY_TEST_MECHANISM") {
        all.retain(|(_, name)| *name == only);
        assert!(!all.is_empty(), "TCPRELAY_TEST_MECHANISM: this build has no {only}");
    }
    all
}

/// Ports for a test that needs them all; [`free_port`] returns none of them.
pub const MANY_PORTS: Range<u16> = 20_000..23_000;

/// A TCP port on which nobody listens. It is below the ephemeral range, so that no outgoing
/// connection of another test can take it meanwhile.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        // A test may listen on this port and the nine that follow.
        let port = 10_000 + ((std::process::id() * 211 + step * 11) % 19_000) as u16;
        let port = if port < MANY_PORTS.start { port } else { port + MANY_PORTS.len() as u16 };
        let free = |address: &str| TcpListener::bind(format!("{address}:{port}")).is_ok();
        if free("127.0.0.1") && free("[::]") {
            return port;
        }
    }
}

/// A directory that is removed when the test ends.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Directory {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("tcprelay-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a temporary directory");
        Directory(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.file(name);
        fs::write(&path, text).expect("a file in the temporary directory");
        path
    }

    /// Writes a script that can be executed at once, as [`install`] says.
    pub fn program(&self, name: &str, script: impl AsRef<[u8]>) -> PathBuf {
        let text = self.write(&format!("{name}.text"), script);
        let path = self.file(name);
        install(&text, &path);
        fs::remove_file(text).expect("to remove the text");
        path
    }
}

/// Copies a program, by a process of its own. What this one writes itself, a child of another test
/// may have open until it executes its own program, and ours could not be executed (ETXTBSY).
pub fn install(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    run(Command::new("install").args(["-m", "755"]).args([from.as_ref(), to.as_ref()]));
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A command that runs one of the project's programs with the libmavis.so of this build, which is
/// beside the test. The library path that cargo sets may have an older one first.
pub fn ours(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let test = std::env::current_exe().expect("the path of the test");
    let mut command = Command::new(program);
    // What follows may be another OpenSSL (tools/test-openssl).
    let mut folders = vec![test.parent().expect("its folder").to_owned()];
    if let Some(more) = std::env::var_os("LD_LIBRARY_PATH") {
        folders.extend(std::env::split_paths(&more));
    }
    command.env("LD_LIBRARY_PATH", std::env::join_paths(folders).expect("folders"));
    command
}

/// A running relay. Killed, with its workers, when dropped.
pub struct Relay {
    pub directory: Directory,
    pub config: PathBuf,
    log: PathBuf,
    child: Child,
    /// Relays to drop with this one.
    pub companions: Vec<Relay>,
}

impl Relay {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// The log lines of all processes: `<SEVERITY>IDENT[PID]: TEXT`.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub fn wait_for_log<T>(&self, what: &str, mut check: impl FnMut(&str) -> Option<T>) -> T {
        let found = within(PATIENCE, || check(&self.log()));
        found.unwrap_or_else(|| panic!("timed out waiting for {what}; the log:\n{}", self.log()))
    }

    /// Waits for a line that contains `text`.
    pub fn expect_log(&self, text: &str) {
        self.wait_for_log(&format!("{text:?}"), |log| log.contains(text).then_some(()));
    }

    /// The living children of the broker.
    pub fn workers(&self) -> Vec<i32> {
        children(self.pid()).into_iter().filter(|&pid| !is_signer(pid)).collect()
    }

    /// The process with the private keys, if there is one.
    pub fn signer(&self) -> Option<i32> {
        children(self.pid()).into_iter().find(|&pid| is_signer(pid))
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        kill(self.pid(), signal);
    }

    /// Waits for the broker to end.
    pub fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        wait_for("the broker to end", || child.try_wait().expect("waitpid"))
    }

    /// The title of the broker.
    pub fn title(&self) -> String {
        title(self.pid())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the log of the relay:\n{}---", self.log());
        }
        let workers = self.workers();
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in workers {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
    }
}

impl Relay {
    /// Wraps a relay that was not started by [`Launch`].
    pub fn assemble(directory: Directory, config: PathBuf, log: PathBuf, child: Child) -> Relay {
        Relay { directory, config, log, child, companions: Vec::new() }
    }
}
