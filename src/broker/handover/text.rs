//! The text that tells the next image which descriptor is which: a line for each thing, its kind
//! first. Lines and words that an image does not know are skipped, so that older and newer ones
//! understand each other.

use super::environment::adopt;
use super::secrets::FormerSecrets;
use super::{
    Handover, Hold, LeftCaller, LeftClient, LeftListener, LeftMonitor, LeftWorker, LeftZone,
};
use crate::os::entry::FileId;
use crate::os::pidfile::PidFile;
use crate::os::process::{self, Pid};
use crate::os::shm::Segment;
use crate::snapshot::material::Looks;
use crate::tls::tickets::Ratchet;
use std::borrow::Borrow;
use std::fmt::Write;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

/// Marks a worker that has sent a message. Older images ignore it.
const HEARD: &str = "heard";

/// Marks a client of the control socket that waits for the next reload.
const AGAIN: &str = "again";

impl Handover {
    /// From the lines of a text. A malformed line is skipped, and what it names is lost.
    pub(super) fn from_lines<'a>(lines: impl Iterator<Item = &'a str>) -> Handover {
        let mut handover = Handover::default();
        for line in lines {
            handover.take_line(line);
        }
        handover
    }

    fn take_line(&mut self, line: &str) -> Option<()> {
        let mut words = line.split(' ');
        let kind = words.next()?;
        match kind {
            "background" => {
                self.background = true;
                return Some(());
            }
            // Not a number: an older image would take one for a descriptor.
            "clients" => {
                let pid: Pid = words.next()?.strip_prefix("pid=")?.parse().ok()?;
                let mut workers = self.workers.iter_mut();
                let worker = workers.find(|worker| worker.pid == pid)?;
                worker.clients = words.filter_map(LeftClient::decode).collect();
                return Some(());
            }
            // Not numbers: an older image would take the first one for a descriptor.
            "files" => {
                let mut number = || u64::from_str_radix(words.next()?.strip_prefix('#')?, 16).ok();
                self.files = Some(Looks { names: number()?, stamps: number()? });
                return Some(());
            }
            "keeper" => {
                self.keepers.push(words.next()?.parse().ok()?);
                return Some(());
            }
            "segment" => {
                self.segment = Some(Segment::adopt(words.next()?.parse().ok()?));
                return Some(());
            }
            "attempt" => {
                self.attempt = words.next()?.parse().ok()?;
                return Some(());
            }
            _ => {}
        }
        let fd = adopt(words.next()?.parse().ok()?)?;
        match kind {
            "listener" => {
                let key = decode(words.next()?);
                // Older versions did not send the file, and ignore fields they do not know.
                let mut number = || words.next()?.parse().ok();
                let file = number().zip(number());
                let file = file.map(|(device, inode)| FileId { device, inode });
                self.listeners.push(LeftListener { key, socket: fd.into(), file });
            }
            "parked" => self.parked.push((decode(words.next()?), fd.into())),
            "caller" => {
                let again = words.next() == Some(AGAIN);
                self.callers.push(LeftCaller { socket: fd.into(), again });
            }
            "snapshot" => self.snapshot = Some(fd.into()),
            "secrets" => {
                let feeder: Pid = words.next()?.parse().ok()?;
                let data = process::eat(fd.into()).ok()?;
                if feeder > 0 {
                    let _ = process::wait_for(feeder);
                }
                self.secrets = FormerSecrets::from_encoded(data);
            }
            // Sent by older images instead of `secrets`.
            "tickets" => {
                let data = process::eat(fd.into()).ok()?;
                let tickets = Ratchet::decode(data.first_chunk()?);
                self.secrets = FormerSecrets::new(&tickets, None).ok();
            }
            "pidfile" => {
                self.pid_file = Some(PidFile::adopt(Path::new(&decode(words.next()?)), fd));
            }
            "worker" => {
                let pid = words.next()?.parse().ok()?;
                let users = words.next()?.parse().ok()?;
                let heard = words.next() == Some(HEARD);
                self.workers.push(LeftWorker {
                    pid,
                    channel: fd.into(),
                    inbox: None,
                    users,
                    heard,
                    clients: Vec::new(),
                });
            }
            "monitor" => {
                let pid = words.next()?.parse().ok()?;
                self.monitor = Some(LeftMonitor { pid, channel: fd.into() });
            }
            "zone" => {
                let slot = |word: &str| {
                    let (pid, slot) = word.split_once(':')?;
                    Some((pid.parse().ok()?, slot.parse().ok()?))
                };
                let slots = words.filter_map(slot).collect();
                self.zone = Some(LeftZone { memory: fd.into(), slots });
            }
            "inbox" => {
                let pid: Pid = words.next()?.parse().ok()?;
                let mut workers = self.workers.iter_mut();
                workers.find(|worker| worker.pid == pid)?.inbox = Some(fd.into());
            }
            _ => {}
        }
        Some(())
    }
}

impl<H: Hold> Handover<H> {
    /// What every image understands.
    pub(super) fn encode_basics(&self) -> String {
        let mut text = format!("pid {}", process::id());
        for LeftListener { key, socket, file } in &self.listeners {
            let _ = write!(text, "\nlistener {} {}", number(socket), encode(key));
            if let Some(FileId { device, inode }) = file {
                let _ = write!(text, " {device} {inode}");
            }
        }
        for (key, fd) in &self.parked {
            let _ = write!(text, "\nparked {} {}", number(fd), encode(key));
        }
        for worker in &self.workers {
            let LeftWorker { channel, inbox, pid, users, heard, .. } = worker;
            let _ = write!(text, "\nworker {} {pid} {users}", number(channel));
            if *heard {
                let _ = write!(text, " {HEARD}");
            }
            if let Some(inbox) = inbox {
                let _ = write!(text, "\ninbox {} {pid}", number(inbox));
            }
        }
        if let Some((file, fd)) = self.pid_file().and_then(|file| Some((file, file.descriptor()?)))
        {
            let path = file.path().to_string_lossy();
            let _ = write!(text, "\npidfile {} {}", fd.as_raw_fd(), encode(&path));
        }
        if self.background {
            text.push_str("\nbackground");
        }
        text
    }

    /// Everything but the secrets.
    pub(super) fn encode(&self) -> String {
        let mut text = self.encode_basics();
        for LeftWorker { pid, clients, .. } in &self.workers {
            if !clients.is_empty() {
                let _ = write!(text, "\nclients pid={pid}");
                clients.iter().for_each(|client| text.push_str(&format!(" {}", client.encode())));
            }
        }
        if let Some(Looks { names, stamps }) = &self.files {
            let _ = write!(text, "\nfiles #{names:x} #{stamps:x}");
        }
        for pid in &self.keepers {
            let _ = write!(text, "\nkeeper {pid}");
        }
        if let Some(LeftMonitor { pid, channel }) = &self.monitor {
            let _ = write!(text, "\nmonitor {} {pid}", number(channel));
        }
        for LeftCaller { socket, again } in &self.callers {
            let _ = write!(text, "\ncaller {}", number(socket));
            if *again {
                let _ = write!(text, " {AGAIN}");
            }
        }
        if let Some(LeftZone { memory, slots }) = &self.zone {
            let _ = write!(text, "\nzone {}", number(memory));
            for (pid, slot) in slots {
                let _ = write!(text, " {pid}:{slot}");
            }
        }
        if let Some(segment) = &self.segment {
            let _ = write!(text, "\nsegment {}", segment.borrow().id());
        }
        if let Some(fd) = &self.snapshot {
            let _ = write!(text, "\nsnapshot {}", number(fd));
        }
        if self.attempt > 0 {
            let _ = write!(text, "\nattempt {}", self.attempt);
        }
        text
    }
}

fn number(fd: &impl AsFd) -> RawFd {
    fd.as_fd().as_raw_fd()
}

/// Percent-encodes separators, `%` itself, and bytes from 0x7f up.
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
