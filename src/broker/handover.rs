//! What one image of the broker leaves to the next when it executes itself again: listening
//! sockets, workers that still have connections, the lock of the pid file, what was checked.
//!
//! The descriptors stay open. A text tells the next image which is which; it is in an unnamed file,
//! whose descriptor number is in an environment variable. An older image that does not know the
//! file gets the text itself, in as many variables as it takes.

use super::clients::LeftClient;
use crate::os::anonymous::{self, Bytes};
use crate::os::entry::FileId;
use crate::os::pidfile::PidFile;
use crate::os::process::{self, Pid};
use crate::os::secret::Secret;
use crate::os::shared::Object;
use crate::os::shm::Segment;
use crate::os::{descriptor, signals, Channel, Listener, Socket};
use crate::snapshot::material::Material;
use crate::snapshot::texts::Texts;
use crate::tls::tickets::Ratchet;
use std::borrow::Borrow;
use std::ffi::OsString;
use std::fmt::Write;
use std::io::{self, PipeWriter};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::rc::Rc;

/// Keys of sockets without a `listen` block begin with this.
pub(super) const ACTIVATED: &str = "activated ";

/// The environment variable that says where the text is.
pub const VARIABLE: &str = "TCPRELAY_HANDOVER";

/// The environment variable with a descriptor: a child that checks the configuration writes there
/// what it has read.
pub const REPORT_VARIABLE: &str = "TCPRELAY_CHECK_REPORT";

/// Whose what is left is.
pub trait Hold {
    /// A listening socket.
    type Listener: AsFd;
    /// A connection.
    type Socket: AsFd;
    /// An end of a worker's channel.
    type Channel: AsFd;
    /// The texts that were checked.
    type Snapshot: AsFd;
    /// What workers share.
    type Zone: AsFd;
    /// A pid file.
    type PidFile: Borrow<PidFile>;
    /// A copy of a configuration in shared memory.
    type Segment: Borrow<Segment>;
    /// Secrets.
    type Secrets: Borrow<FormerSecrets>;
}

/// It is the next image's.
#[derive(Debug)]
pub enum Taken {}

impl Hold for Taken {
    type Listener = Listener;
    type Socket = Socket;
    type Channel = Channel;
    type Snapshot = Bytes;
    type Zone = Object;
    type PidFile = PidFile;
    type Segment = Segment;
    type Secrets = FormerSecrets;
}

/// It still belongs to this image, which goes on if the next one cannot be executed.
#[derive(Debug)]
pub struct Lent<'a>(PhantomData<&'a ()>);

impl<'a> Hold for Lent<'a> {
    type Listener = BorrowedFd<'a>;
    type Socket = BorrowedFd<'a>;
    type Channel = BorrowedFd<'a>;
    type Snapshot = BorrowedFd<'a>;
    type Zone = BorrowedFd<'a>;
    type PidFile = &'a PidFile;
    type Segment = &'a Segment;
    type Secrets = &'a FormerSecrets;
}

/// A worker.
#[derive(Clone, Debug)]
pub struct LeftWorker<Channel> {
    /// Its process.
    pub pid: Pid,
    /// The broker's end of its channel.
    pub channel: Channel,
    /// A copy of the worker's end.
    pub inbox: Option<Channel>,
    /// Connections it still has.
    pub users: usize,
    /// It has sent a message, so it has its keys already, or is to get none.
    pub heard: bool,
    /// The clients of its sessions, if they are counted.
    pub clients: Vec<LeftClient>,
}

/// The monitor of the former image.
#[derive(Clone, Copy, Debug)]
pub struct LeftMonitor<F> {
    /// Its process.
    pub pid: Pid,
    /// Our end of its channel.
    pub channel: F,
}

/// A client of the control socket that waits for a reload.
#[derive(Clone, Copy, Debug)]
pub struct LeftCaller<F> {
    /// Its connection.
    pub socket: F,
    /// It waits for one that was asked for later.
    pub again: bool,
}

/// The zone of the former image, and who has which slot.
#[derive(Clone, Debug)]
pub struct LeftZone<F> {
    /// The memory.
    pub memory: F,
    /// The processes with a slot.
    pub slots: Vec<(Pid, usize)>,
}

/// A listening socket.
#[derive(Clone, Debug)]
pub struct LeftListener<Listener> {
    /// The key of its listener.
    pub key: String,
    /// The socket.
    pub socket: Listener,
    /// The file of a UNIX socket that the broker has bound.
    pub file: Option<FileId>,
}

impl<Listener> LeftListener<Listener> {
    /// True if the service manager has opened it.
    pub(super) fn is_activated(&self) -> bool {
        self.key.starts_with(ACTIVATED)
    }
}

/// What one image leaves to the next.
pub struct Handover<H: Hold = Taken> {
    /// Listening sockets.
    pub listeners: Vec<LeftListener<H::Listener>>,
    /// Accepted connections that no worker could take yet, with the key of their listener.
    pub parked: Vec<(String, H::Socket)>,
    /// Clients of the control socket that wait for this reload, or the next one.
    pub callers: Vec<LeftCaller<H::Socket>>,
    /// Workers, which are to be asked to leave.
    pub workers: Vec<LeftWorker<H::Channel>>,
    /// The monitor, which is to be asked to leave.
    pub monitor: Option<LeftMonitor<H::Channel>>,
    /// What the workers share.
    pub zone: Option<LeftZone<H::Zone>>,
    /// The pid file.
    pub pid_file: Option<H::PidFile>,
    /// The process is already in the background.
    pub background: bool,
    /// Children that keep the sessions of single-process mode.
    pub keepers: Vec<Pid>,
    /// The copy of the configuration in shared memory.
    pub segment: Option<H::Segment>,
    /// The texts that were checked.
    pub snapshot: Option<H::Snapshot>,
    /// What must not be in the environment or in a file.
    pub secrets: Option<H::Secrets>,
    /// How often images of this process have failed to start with this.
    pub attempt: u32,
}

impl<H: Hold> Default for Handover<H> {
    fn default() -> Self {
        Handover {
            listeners: Vec::new(),
            parked: Vec::new(),
            callers: Vec::new(),
            workers: Vec::new(),
            monitor: None,
            zone: None,
            pid_file: None,
            background: false,
            keepers: Vec::new(),
            segment: None,
            snapshot: None,
            secrets: None,
            attempt: 0,
        }
    }
}

/// Secrets of the former image, encoded.
#[derive(Debug)]
pub struct FormerSecrets(Secret);

/// What a check has read, as passed on in [`FormerSecrets`].
#[derive(Debug)]
pub struct Checked {
    /// Contents of the files for TLS.
    pub material: Rc<Material>,
    /// `tls session timeout` of the same configuration.
    pub session_timeout: u32,
    /// The configuration has something for a monitor to do.
    pub monitored: bool,
}

/// Bits of the first byte. Older images only look whether it is 0.
const CHECKED: u8 = 1;
const MONITORED: u8 = 2;

impl FormerSecrets {
    /// Keys of session tickets, and what a check has read, if its version reports that.
    pub fn new(tickets: &Ratchet, checked: Option<&Checked>) -> io::Result<FormerSecrets> {
        let none = Material::default();
        let material = checked.map_or(&none, |checked| &*checked.material);
        let encoded = tickets.encode_with(material)?;
        let mut data = Secret::zeroed(5 + encoded.len())?;
        data[0] =
            checked.map_or(0, |checked| CHECKED | if checked.monitored { MONITORED } else { 0 });
        let timeout = checked.map_or(0, |checked| checked.session_timeout);
        data[1..5].copy_from_slice(&timeout.to_be_bytes());
        data[5..].copy_from_slice(&encoded);
        Ok(FormerSecrets(data))
    }

    /// From encoded data; `None` if it is malformed.
    pub(super) fn from_encoded(data: Secret) -> Option<FormerSecrets> {
        let secrets = FormerSecrets(data);
        secrets.decode().map(|_| secrets)
    }

    /// The encoded data.
    pub(super) fn encoded(&self) -> &Secret {
        &self.0
    }

    /// Keys of session tickets, and what a check has read.
    pub fn decode(&self) -> Option<(Ratchet, Option<Checked>)> {
        let (head, encoded) = self.0.split_at_checked(5)?;
        let (material, tickets) = Ratchet::decode_with(encoded)?;
        let session_timeout = u32::from_be_bytes(head[1..].try_into().ok()?);
        let material = Rc::new(material);
        let monitored = head[0] & MONITORED != 0;
        let checked = (head[0] != 0).then_some(Checked { material, session_timeout, monitored });
        Some((tickets, checked))
    }
}

/// Why a process was started, by its environment.
pub enum Former {
    /// The user started it.
    None,
    /// It is the next image of a broker.
    Image(Box<Handover>),
    /// It checks the configuration for a broker that wants to reload.
    Check {
        /// The broker serves sockets without a `listen` block, so the configuration needs none.
        activated: bool,
        /// Where it writes what it has read.
        report: Option<PipeWriter>,
    },
}

const CHECK: &str = "check";
const CHECK_ACTIVATED: &str = "check activated";

/// The value of [`VARIABLE`] for a child that checks the configuration.
pub(super) fn check_value(activated: bool) -> &'static str {
    if activated {
        CHECK_ACTIVATED
    } else {
        CHECK
    }
}

/// Takes the descriptor whose number a variable holds. The variable is removed.
pub fn inherited<T: From<OwnedFd>>(variable: &str) -> Option<T> {
    let number = std::env::var(variable).ok()?.parse().ok();
    std::env::remove_var(variable);
    adopt(number?).map(T::from)
}

fn adopt(number: RawFd) -> Option<OwnedFd> {
    if number <= 2 {
        return None;
    }
    let fd = descriptor::adopt(number).ok()?;
    descriptor::close_on_exec(&fd).ok()?;
    Some(fd)
}

/// The environment variable with a descriptor of the texts, for our own workers. It stays open.
const SNAPSHOT_VARIABLE: &str = "TCPRELAY_SNAPSHOT";

/// Tells programs that are started from now on where the texts are.
pub fn publish_snapshot(snapshot: Option<&Bytes>) {
    match snapshot {
        Some(fd) => std::env::set_var(SNAPSHOT_VARIABLE, fd.as_raw_fd().to_string()),
        None => std::env::remove_var(SNAPSHOT_VARIABLE),
    }
}

/// The texts that this worker's broker has checked, if it has left any.
pub fn inherited_texts() -> Option<Texts> {
    Texts::decode(&inherited::<Bytes>(SNAPSHOT_VARIABLE)?.read().ok()?)
}

impl Handover {
    /// Takes what the former image left, if there was one. The variables are removed, and believed
    /// only if they were meant for this process.
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
        let report = inherited(REPORT_VARIABLE);
        match text.as_str() {
            CHECK => Former::Check { activated: false, report },
            CHECK_ACTIVATED => Former::Check { activated: true, report },
            text => Handover::decode(text)
                .map_or(Former::None, |former| Former::Image(Box::new(former))),
        }
    }

    fn decode(text: &str) -> Option<Handover> {
        let lines = lines_for_us(text)?;
        if let Some(number) = lines.clone().next().and_then(|line| line.strip_prefix("file ")) {
            let file = Bytes::from(adopt(number.parse().ok()?)?);
            let text = String::from_utf8(file.read().ok()?).ok()?;
            let mut handover = Handover::default();
            for line in lines_for_us(&text)? {
                handover.take_line(line);
            }
            return Some(handover);
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

    /// True if the former image served sockets that have no `listen` block.
    pub fn has_activated(&self) -> bool {
        self.listeners.iter().any(LeftListener::is_activated)
    }

    /// The sockets opened by the service manager.
    pub fn activated(&self) -> impl Iterator<Item = &Listener> {
        let activated = self.listeners.iter().filter(|listener| listener.is_activated());
        activated.map(|listener| &listener.socket)
    }
}

/// The lines after the first, which names the process they are for; `None` if that is another
/// process.
fn lines_for_us(text: &str) -> Option<std::str::Split<'_, char>> {
    let mut lines = text.split('\n');
    let pid: Pid = lines.next()?.strip_prefix("pid ")?.parse().ok()?;
    (pid == process::id()).then_some(lines)
}

/// Marks a worker that has sent a message. Older images ignore it.
const HEARD: &str = "heard";

/// Marks a client of the control socket that waits for the next reload.
const AGAIN: &str = "again";

/// The program that takes the place of this one.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// The executable.
    pub executable: &'a Path,
    /// Arguments, argv\[0] included.
    pub arguments: &'a [OsString],
    /// The environment, without the variables of this module.
    pub environment: &'a [(OsString, OsString)],
}

impl<H: Hold> Handover<H> {
    /// Executes the next image. Returns only if that fails; signals are unblocked then.
    pub fn give(&self, image: &Image<'_>) -> io::Error {
        let mut feeder = None;
        let mut prepare = || -> io::Result<_> {
            let mut text = self.encode();
            if let Some(secrets) = &self.secrets {
                let (pipe, pid) = process::feed(secrets.borrow().encoded())?;
                let _ = write!(text, "\nsecrets {} {pid}", pipe.as_raw_fd());
                feeder = Some((pipe, pid));
            }
            anonymous::file(text.as_bytes())
        };
        let error = match prepare() {
            Ok(file) => {
                let value = format!("pid {}\nfile {}", process::id(), file.as_raw_fd());
                let pipe = feeder.iter().map(|(pipe, _)| pipe.as_fd());
                let more = pipe.chain([file.as_fd()]).collect();
                self.execute(image, vec![(VARIABLE.to_owned(), value)], more)
            }
            // Some systems make the unnamed file in a directory, where that may fail.
            Err(_) => self.give_to_older(image),
        };
        if let Some((pipe, pid)) = feeder {
            drop(pipe);
            let _ = process::wait_for(pid);
        }
        signals::unblock_all();
        error
    }

    /// As [`give`](Self::give), for an older image, which knows less and reads the files itself.
    pub fn give_to_older(&self, image: &Image<'_>) -> io::Error {
        let mut text = self.encode_basics();
        // Without the keys sessions cannot be resumed; nothing else is lost.
        let tickets = self
            .secrets
            .as_ref()
            .and_then(|secrets| secrets.borrow().decode())
            .and_then(|(tickets, _)| process::pipe_with(&tickets.encode()).ok());
        if let Some(fd) = &tickets {
            let _ = write!(text, "\ntickets {}", fd.as_raw_fd());
        }
        let parts = text.as_bytes().chunks(PART).enumerate();
        let variables =
            parts.map(|(number, part)| (variable(number), String::from_utf8_lossy(part).into()));
        let more = tickets.iter().map(AsFd::as_fd).collect();
        self.execute(image, variables.collect(), more)
    }

    fn execute(
        &self,
        image: &Image<'_>,
        variables: Vec<(String, String)>,
        more: Vec<BorrowedFd<'_>>,
    ) -> io::Error {
        let mut environment = image.environment.to_vec();
        environment.extend(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        let listeners = self.listeners.iter().map(|listener| listener.socket.as_fd());
        let channels = self.workers.iter().flat_map(|worker| {
            let inbox = worker.inbox.as_ref().map(AsFd::as_fd);
            [worker.channel.as_fd()].into_iter().chain(inbox)
        });
        let monitor = self.monitor.as_ref().map(|monitor| monitor.channel.as_fd());
        let zone = self.zone.as_ref().map(|zone| zone.memory.as_fd());
        let parked = self.parked.iter().map(|(_, socket)| socket.as_fd());
        let snapshot = self.snapshot.as_ref().map(AsFd::as_fd);
        let pid_file = self.pid_file().and_then(PidFile::descriptor);
        let all = listeners.chain(parked).chain(channels).chain(snapshot).chain(pid_file);
        let callers = self.callers.iter().map(|caller| caller.socket.as_fd());
        let all = all.chain(monitor).chain(zone).chain(callers);
        let keep: Vec<BorrowedFd<'_>> = all.chain(more).collect();
        process::execute(image.executable, image.arguments, &environment, &keep)
    }

    fn pid_file(&self) -> Option<&PidFile> {
        self.pid_file.as_ref().map(Borrow::borrow)
    }

    /// What every image understands.
    fn encode_basics(&self) -> String {
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

    fn encode(&self) -> String {
        let mut text = self.encode_basics();
        for LeftWorker { pid, clients, .. } in &self.workers {
            if !clients.is_empty() {
                let _ = write!(text, "\nclients pid={pid}");
                clients.iter().for_each(|client| text.push_str(&format!(" {}", client.encode())));
            }
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

/// Most bytes in one variable (Linux takes 128 KiB).
const PART: usize = 100_000;

/// The name of the variable for one part of the text.
fn variable(number: usize) -> String {
    if number == 0 {
        VARIABLE.to_owned()
    } else {
        format!("{VARIABLE}_{number}")
    }
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
