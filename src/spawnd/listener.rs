//! Listening sockets.

use super::protocol::Accept;
use super::sticky::Cache;
use crate::config::listen::{self as config, Sticky, TLS_DEFAULT};
use crate::event::{Loop, TimerId};
use crate::os::address::{Address, Family};
use crate::os::socket::{self, Keepalive, Kind, Protocol};
use crate::os::{self, files, log, process};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// One `listen { }`, or a socket that the process was started with.
pub(super) struct Listener {
    pub(super) config: config::Listener,
    pub(super) address: Address,
    /// `None` while it is not bound.
    pub(super) socket: Option<OwnedFd>,
    /// What workers are told about its connections.
    pub(super) accept: Accept,
    /// Its own stickiness, if it has one.
    pub(super) sticky: Option<Cache>,
    /// Some connections need options that they do not inherit from the socket.
    pub(super) class: u8,
    pub(super) retry: Option<TimerId>,
    /// The socket was opened by the service manager or inetd: it cannot be opened again here,
    /// and its path is not ours.
    pub(super) foreign: bool,
    /// It was closed because of overload, and is to be opened again.
    pub(super) reopen: bool,
    logged_failure: bool,
    backlog: i32,
}

impl Listener {
    pub(super) fn new(mut config: config::Listener, address: Address, section: Keepalive) -> Self {
        let own = &mut config.keepalive;
        own.count = own.count.or(section.count);
        own.idle = own.idle.or(section.idle);
        own.interval = own.interval.or(section.interval);
        let mut realm = [0; 16];
        let length = config.realm.len().min(15);
        realm[..length].copy_from_slice(&config.realm[..length]);
        let datagrams = config.protocol == Protocol::Udp;
        let tls_versions = match (datagrams, config.tls_versions, config.dtls_versions) {
            (true, _, dtls) => dtls,
            // Versions of DTLS alone make no sense here, and least of all plain text.
            (false, 0, 1..) => TLS_DEFAULT,
            (false, tls, _) => tls,
        };
        let accept = Accept {
            tls_versions,
            aaa_protocol: config.aaa_protocol,
            flags: config.flags,
            realm,
            protocol: config.protocol.number() as u32,
        };
        let sticky = cache(config.sticky);
        let class = config.dscp << 2;
        let backlog = config.backlog;
        Listener {
            config,
            address,
            socket: None,
            accept,
            sticky,
            class,
            retry: None,
            foreign: false,
            reopen: false,
            logged_failure: false,
            backlog,
        }
    }

    /// A listener for a socket that was opened before us (inetd wait mode, socket activation).
    pub(super) fn inherited(fd: OwnedFd, backlog: i32) -> io::Result<Listener> {
        let config = config::Listener { backlog, ..config::Listener::new(0) };
        let address =
            socket::local_address(&fd).unwrap_or_else(|| Address::Unix(Path::new("").into()));
        let mut listener = Listener::new(config, address, Keepalive::default());
        listener.accept.protocol = 0;
        listener.foreign = true;
        listener.adopt(fd)?;
        Ok(listener)
    }

    /// True without a `listen` block.
    pub(super) fn is_inherited(&self) -> bool {
        self.accept.protocol == 0
    }

    /// What the listener is recognised by in the next image of the broker.
    pub(super) fn key(&self) -> String {
        let vrf = self.config.vrf.as_deref().unwrap_or("");
        format!("{} {:?} {} {vrf}", self.config.protocol.name(), self.config.kind, self.address)
    }

    pub(super) fn is_datagram(&self) -> bool {
        self.config.kind == Kind::Datagram
    }

    /// True if other processes may listen here as well.
    fn shares_port(&self) -> bool {
        self.config.reuse_port && self.address.family() != Family::Unix && !self.is_datagram()
    }

    /// Takes over a socket that is bound already. What its former owner has set and this
    /// configuration does not goes back to what a new socket has.
    pub(super) fn adopt(&mut self, fd: OwnedFd) -> io::Result<()> {
        // That is settled when a socket is bound, so this one makes room for one that is bound
        // anew. We cannot do that for one of the service manager's, nor need datagrams of ours.
        let settled = self.foreign || self.is_datagram();
        if !settled && socket::shares_port(&fd) != self.shares_port() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        socket::set_nonblocking(&fd, true)?;
        let family = self.address.family();
        if family != Family::Unix && !self.is_datagram() {
            let system = socket::default_keepalive_parameters(family);
            // SCTP sockets have none of them.
            let _ = socket::set_keepalive_parameters(&fd, system);
        }
        self.prepare(&fd)?;
        if !self.is_datagram() {
            socket::listen(&fd, self.backlog)?;
        }
        if let (Address::Unix(path), false) = (&self.address, self.foreign) {
            let (uid, gid) = process::identity();
            self.set_permissions(path, Some(0o755), Some(uid), Some(gid));
        }
        self.socket = Some(fd);
        Ok(())
    }

    /// Options that accepted connections inherit.
    fn prepare(&self, fd: &OwnedFd) -> io::Result<()> {
        if self.address.family() == Family::Unix {
            return Ok(());
        }
        socket::set_keepalive(fd)?;
        if !self.is_datagram() {
            socket::set_urgent_inline(fd);
            if let Err(error) = socket::set_keepalive_parameters(fd, self.config.keepalive) {
                log::message(&format!("{}: tcp keepalive: {}", self.address, os::reason(&error)));
            }
            if self.config.protocol != Protocol::Sctp {
                socket::set_no_delay(fd);
                socket::unpace(fd, &self.address);
            }
        }
        Ok(())
    }

    /// Creates, binds and listens. Failures and the success are logged, each failure once.
    pub(super) fn open(&mut self) -> bool {
        match self.try_open() {
            Ok(fd) => {
                log::message(&format!("bind to {} succeeded", self.address));
                self.logged_failure = false;
                self.socket = Some(fd);
                true
            }
            Err((call, error)) => {
                if !self.logged_failure {
                    self.logged_failure = true;
                    log::message(&format!("{call}: {}", os::reason(&error)));
                    let retry = match self.config.retry_delay {
                        0 => String::new(),
                        seconds => format!(" Will retry every {seconds} seconds."),
                    };
                    log::message(&format!("bind to {} failed.{retry}", self.address));
                }
                false
            }
        }
    }

    fn try_open(&self) -> Result<OwnedFd, (String, io::Error)> {
        let config = &self.config;
        let family = self.address.family();
        let fd = socket::create(family, config.kind, config.protocol).map_err(|error| {
            (format!("socket({family:?}, {:?}, {})", config.kind, config.protocol.name()), error)
        })?;
        let call = |name: &str| {
            let name = name.to_owned();
            move |error| (name, error)
        };
        if family != Family::Unix {
            socket::set_reuse_address(&fd).map_err(call("setsockopt SO_REUSEADDR"))?;
        }
        if self.is_datagram() {
            let _ = socket::set_reuse_port(&fd);
        }
        if self.shares_port() {
            socket::share_port(&fd).map_err(call("setsockopt SO_REUSEPORT"))?;
        }
        self.prepare(&fd).map_err(call("setsockopt"))?;
        if let Some(vrf) = &config.vrf {
            // As the C program: it goes on in the default domain, and says so.
            if let Err(error) = socket::set_vrf(&fd, vrf) {
                let reason = os::reason(&error);
                log::message(&format!("setsockopt failed to set the VRF to \"{vrf}\": {reason}"));
            }
        }
        if let Address::Unix(path) = &self.address {
            remove_stale_socket(path);
        }
        socket::bind(&fd, &self.address).map_err(call("bind"))?;
        if let Address::Unix(path) = &self.address {
            self.set_permissions(path, None, None, None);
        }
        if !self.is_datagram() {
            socket::listen(&fd, self.backlog).map_err(call("listen"))?;
        }
        Ok(fd)
    }

    /// Sets mode and owner as configured, and otherwise as given, if they are.
    fn set_permissions(&self, path: &Path, mode: Option<u32>, uid: Option<u32>, gid: Option<u32>) {
        let config = &self.config;
        // While it is ours: the new owner may replace it.
        if let Some(mode) = config.mode.or(mode) {
            if let Err(error) = files::change_mode(path, mode) {
                log::message(&format!("chmod({}): {}", path.display(), os::reason(&error)));
            }
        }
        let (uid, gid) = (config.owner.uid.or(uid), config.owner.gid.or(gid));
        if uid.is_some() || gid.is_some() {
            if let Err(error) = files::change_owner(path, uid, gid) {
                log::message(&format!("chown({}): {}", path.display(), os::reason(&error)));
            }
        }
    }

    /// Calls listen(2) again if the backlog changes.
    pub(super) fn set_backlog(&mut self, overloaded: bool) {
        let config = &self.config;
        let wanted = if overloaded { config.overload_backlog } else { config.backlog };
        if let (true, Some(fd)) = (wanted != self.backlog && !self.is_datagram(), &self.socket) {
            if let Err(error) = socket::listen(fd, wanted) {
                log::message(&format!("listen {}: {}", self.address, os::reason(&error)));
            }
        }
        self.backlog = wanted;
    }

    /// Closes the socket.
    pub(super) fn close(&mut self, events: &mut Loop) {
        if let Some(fd) = self.socket.take() {
            events.remove(&fd);
        }
    }

    /// Removes the file of a UNIX socket that this process has bound.
    pub(super) fn remove_path(&self) {
        let ours = self.socket.is_some() && !self.foreign;
        if let (Address::Unix(path), true) = (&self.address, ours) {
            if files::is_socket(path) {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

/// Opens a socket as a listener of this configuration does; the error names the call.
pub fn open(config: config::Listener, address: Address) -> Result<OwnedFd, (String, io::Error)> {
    Listener::new(config, address, Keepalive::default()).try_open()
}

pub(super) fn cache(sticky: Sticky) -> Option<Cache> {
    (sticky.period > 0).then(|| Cache::new(u64::from(sticky.period) * 1000, sticky.size))
}

/// Removes a socket file that nobody listens on any more.
fn remove_stale_socket(path: &Path) {
    if !files::is_socket(path) {
        return;
    }
    let Ok(fd) = socket::create(Family::Unix, Kind::Stream, Protocol::Tcp) else {
        return;
    };
    let answer = socket::connect(&fd, &Address::Unix(path.to_owned()));
    if answer.is_err_and(|error| error.raw_os_error() == Some(libc::ECONNREFUSED)) {
        let _ = std::fs::remove_file(path);
    }
}
