//! What one image of the broker leaves to the next when it executes itself again: listening
//! sockets, workers that still have connections, the lock of the pid file.
//!
//! The text travels in one environment variable, the descriptors simply stay open.

use crate::os::entry::FileId;
use crate::os::process::{self, Pid};
use crate::os::socket;
use std::fmt::Write;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Keys of sockets without a `listen` block begin with this.
pub(super) const ACTIVATED: &str = "activated ";

/// The environment variable.
pub const VARIABLE: &str = "TCPRELAY_HANDOVER";

/// A worker of the former generation.
#[derive(Debug)]
pub struct Leaving {
    /// Its process.
    pub pid: Pid,
    /// Our end of its channel.
    pub channel: OwnedFd,
    /// A copy of its own end.
    pub inbox: Option<OwnedFd>,
    /// Connections it still has.
    pub users: usize,
}

/// A listening socket.
#[derive(Debug)]
pub struct LeftListener {
    /// What its listener is recognised by.
    pub key: String,
    /// The socket.
    pub socket: OwnedFd,
    /// The file of a UNIX socket that we have bound.
    pub file: Option<FileId>,
}

/// Everything that is handed over.
#[derive(Debug, Default)]
pub struct Handover {
    /// Listening sockets.
    pub listeners: Vec<LeftListener>,
    /// Accepted connections that no worker could take yet, with the key of their listener.
    pub parked: Vec<(String, OwnedFd)>,
    /// Workers that have been asked to leave.
    pub workers: Vec<Leaving>,
    /// The descriptor of the pid file and its path.
    pub pid_file: Option<(String, OwnedFd)>,
    /// The process is in the background already.
    pub background: bool,
    /// A pipe with the keys of session tickets, which are too secret for the environment.
    pub tickets: Option<OwnedFd>,
}

/// What a process finds in the variable.
#[derive(Debug)]
pub enum Former {
    /// Nothing: the user started it.
    None,
    /// It is the next image of a broker.
    Image(Handover),
    /// It checks a configuration before that; whether sockets without a `listen` block are
    /// served, so that none is needed.
    Check {
        /// There are such sockets.
        activated: bool,
    },
}

const CHECK: &str = "check";
const CHECK_ACTIVATED: &str = "check activated";

/// The value of the variable for a child that checks the configuration.
pub(super) fn check_value(activated: bool) -> &'static str {
    if activated {
        CHECK_ACTIVATED
    } else {
        CHECK
    }
}

impl Handover {
    /// Takes what the former image left, if there was one. The variable is removed, and what
    /// it says is believed only if it was meant for this process.
    pub fn take() -> Former {
        let mut text = String::new();
        for number in 0.. {
            let name = variable(number);
            let Ok(part) = std::env::var(&name) else {
                break;
            };
            std::env::remove_var(name);
            text += &part;
        }
        match text.as_str() {
            CHECK => Former::Check { activated: false },
            CHECK_ACTIVATED => Former::Check { activated: true },
            text => Handover::decode(text).map_or(Former::None, Former::Image),
        }
    }

    fn decode(text: &str) -> Option<Handover> {
        let mut lines = text.split('\n');
        let pid: Pid = lines.next()?.strip_prefix("pid ")?.parse().ok()?;
        if pid != process::id() {
            return None;
        }
        let mut handover = Handover::default();
        for line in lines {
            handover.take_line(line);
        }
        Some(handover)
    }

    fn take_line(&mut self, line: &str) -> Option<()> {
        let mut words = line.split(' ');
        let kind = words.next()?;
        if kind == "background" {
            self.background = true;
            return Some(());
        }
        let number: RawFd = words.next()?.parse().ok()?;
        if number <= 2 {
            return None;
        }
        let fd = socket::adopt(number).ok()?;
        socket::set_close_on_exec(&fd, true).ok()?;
        match kind {
            "listener" => {
                let key = decode(words.next()?);
                // Former versions did not tell, and ignore what they do not know.
                let mut number = || words.next()?.parse().ok();
                let file = number().zip(number());
                let file = file.map(|(device, inode)| FileId { device, inode });
                self.listeners.push(LeftListener { key, socket: fd, file });
            }
            "parked" => self.parked.push((decode(words.next()?), fd)),
            "tickets" => self.tickets = Some(fd),
            "pidfile" => self.pid_file = Some((decode(words.next()?), fd)),
            "worker" => {
                let pid = words.next()?.parse().ok()?;
                let users = words.next()?.parse().ok()?;
                self.workers.push(Leaving { pid, channel: fd, inbox: None, users });
            }
            "inbox" => {
                let pid: Pid = words.next()?.parse().ok()?;
                let mut workers = self.workers.iter_mut();
                workers.find(|worker| worker.pid == pid)?.inbox = Some(fd);
            }
            _ => {}
        }
        Some(())
    }

    /// True if the former image served sockets that have no `listen` block.
    pub fn has_activated(&self) -> bool {
        self.listeners.iter().any(|listener| listener.key.starts_with(ACTIVATED))
    }

    /// The sockets that the service manager has opened.
    pub fn activated(&self) -> impl Iterator<Item = &OwnedFd> {
        let activated = |listener: &&LeftListener| listener.key.starts_with(ACTIVATED);
        self.listeners.iter().filter(activated).map(|listener| &listener.socket)
    }

    /// The variables, as many as it takes: a system limits the length of each.
    pub fn variables(&self) -> Vec<(String, String)> {
        let text = self.encode();
        let parts = text.as_bytes().chunks(PART).enumerate();
        parts
            .map(|(number, part)| (variable(number), String::from_utf8_lossy(part).into_owned()))
            .collect()
    }

    fn encode(&self) -> String {
        let mut text = format!("pid {}", process::id());
        for LeftListener { key, socket, file } in &self.listeners {
            let _ = write!(text, "\nlistener {} {}", socket.as_raw_fd(), encode(key));
            if let Some(FileId { device, inode }) = file {
                let _ = write!(text, " {device} {inode}");
            }
        }
        for (key, fd) in &self.parked {
            let _ = write!(text, "\nparked {} {}", fd.as_raw_fd(), encode(key));
        }
        for worker in &self.workers {
            let fd = worker.channel.as_raw_fd();
            let _ = write!(text, "\nworker {fd} {} {}", worker.pid, worker.users);
            if let Some(inbox) = &worker.inbox {
                let _ = write!(text, "\ninbox {} {}", inbox.as_raw_fd(), worker.pid);
            }
        }
        if let Some((path, fd)) = &self.pid_file {
            let _ = write!(text, "\npidfile {} {}", fd.as_raw_fd(), encode(path));
        }
        if let Some(fd) = &self.tickets {
            let _ = write!(text, "\ntickets {}", fd.as_raw_fd());
        }
        if self.background {
            text.push_str("\nbackground");
        }
        text
    }

    /// The descriptors that must stay open.
    pub fn descriptors<'a>(&'a self) -> Vec<&'a OwnedFd> {
        let listeners = self.listeners.iter().map(|listener| &listener.socket);
        let parked = self.parked.iter().map(|(_, fd)| fd);
        let ends = |worker: &'a Leaving| std::iter::once(&worker.channel).chain(&worker.inbox);
        let workers = self.workers.iter().flat_map(ends);
        let pid_file = self.pid_file.iter().map(|(_, fd)| fd);
        listeners.chain(parked).chain(workers).chain(pid_file).chain(&self.tickets).collect()
    }
}

/// Most bytes of one variable (Linux takes 128 KiB).
const PART: usize = 100_000;

/// The name of a part.
fn variable(number: usize) -> String {
    if number == 0 {
        VARIABLE.to_owned()
    } else {
        format!("{VARIABLE}_{number}")
    }
}

/// Percent-encodes what would be taken for a separator.
fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'%' | b' ' | b'\n' | 0x7f.. => {
                let _ = write!(out, "%{byte:02x}");
            }
            _ => out.push(byte as char),
        }
    }
    out
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first == b'%' && tail.len() >= 2 {
            let hex = std::str::from_utf8(&tail[..2]).ok();
            if let Some(byte) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                bytes.push(byte);
                rest = &tail[2..];
                continue;
            }
        }
        bytes.push(first);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_round_trips(text in "\\PC*") {
            prop_assert_eq!(decode(&encode(&text)), text);
        }
    }
}
