//! Real servers and clients.

use super::{kill, left_out, wait_for};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// Finds a program on PATH or in the directories for servers.
pub fn program(name: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = path
        .split(':')
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin"])
        .map(|directory| Path::new(directory).join(name))
        .find(|candidate| candidate.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed: run `make deps`"))
}

/// A program that few machines have: on PATH, or installed by `make test-peers`. Reports the test as
/// left out if it is missing.
pub fn optional(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let installed = concat!(env!("CARGO_MANIFEST_DIR"), "/target/peers/bin");
    let found = path
        .split(':')
        .chain([installed])
        .map(|directory| Path::new(directory).join(name))
        .find(|candidate| candidate.is_file());
    if found.is_none() {
        left_out(&format!("{name} is not there, which `make test-peers` installs"));
    }
    found
}

/// A server process, killed with the test.
pub struct Server(Child);

impl Server {
    pub fn start(command: &mut Command, port: u16) -> Server {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Server(command.spawn().expect("a server"));
        wait_for("the server to listen", || TcpStream::connect(("127.0.0.1", port)).ok());
        server
    }

    pub fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // nginx and sshd have children, which end only if their parent ends in an orderly way; and
        // one that is stopped would not end.
        kill(self.0.id() as i32, nix::sys::signal::Signal::SIGTERM);
        kill(self.0.id() as i32, nix::sys::signal::Signal::SIGCONT);
        let _ = self.0.wait();
    }
}

pub fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().expect("a client");
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
