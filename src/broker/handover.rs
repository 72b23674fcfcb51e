//! What one image of the broker leaves to the next when it executes itself again: listening
//! sockets, workers that still have connections, the lock of the pid file, what was checked.
//!
//! The descriptors stay open. A [`text`] tells the next image which is which; it is in an unnamed file,
//! whose descriptor number is in an [environment] variable. An older image that does not know the
//! file gets the text itself, in as many variables as it takes.

mod environment;
mod former;
mod next_image;
mod secrets;
mod text;

use super::clients::LeftClient;
use crate::os::anonymous::Bytes;
use crate::os::entry::FileId;
use crate::os::pidfile::PidFile;
use crate::os::process::Pid;
use crate::os::shared::Object;
use crate::os::shm::Segment;
use crate::os::{Channel, Listener, Socket};
use crate::snapshot::material::Looks;
pub use environment::{inherited_texts, publish_snapshot, REPORT_VARIABLE, VARIABLE};
pub(super) use former::check_value;
pub use former::Former;
pub use next_image::Image;
pub use secrets::{Checked, FormerSecrets};
use std::borrow::Borrow;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};

/// Keys of sockets without a `listen` block begin with this.
pub(super) const ACTIVATED: &str = "activated ";

/// Who owns what is left.
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
    /// How the files for TLS looked before they were last read.
    pub files: Option<Looks>,
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
            files: None,
            secrets: None,
            attempt: 0,
        }
    }
}

impl Handover {
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

impl<H: Hold> Handover<H> {
    fn pid_file(&self) -> Option<&PidFile> {
        self.pid_file.as_ref().map(Borrow::borrow)
    }
}
