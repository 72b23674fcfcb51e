//! One listening socket.

use crate::broker::text;
use crate::channel::protocol::Accept;
use crate::config::listen::{self as config, flag, Ipv6Only, TLS_DEFAULT};
use crate::event::{Loop, TimerId};
use crate::os::address::{unmapped, Address, Family};
use crate::os::entry::{Entry, FileId, NotChanged, Permissions};
use crate::os::socket::{
    default_keepalive_parameters, Addressed, Families, Keepalive, Kind, Options, Protocol,
    MOST_BACKLOG,
};
use crate::os::{self, log, process, Socket};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

/// One `listen { }`, or a socket that the process was started with.
pub(in crate::broker) struct Listener {
    pub(super) config: config::Listener,
    pub(in crate::broker) address: Address,
    /// `None` while it is not bound.
    pub(in crate::broker) socket: Option<os::Listener>,
    /// The file of a UNIX socket that we have bound. Any other file at its path is not ours.
    file: Option<FileId>,
    /// What workers are told about its connections.
    pub(super) accept: Accept,
    /// The traffic class to set on each connection, as not all inherit it from the socket; 0 for
    /// none.
    pub(super) class: u8,
    pub(super) retry: Option<TimerId>,
    /// The socket was opened by the service manager or inetd: it cannot be opened again here, and
    /// its path is not ours.
    pub(super) activated: bool,
    /// It was closed because of overload, and is to be opened again.
    pub(super) reopen: bool,
    /// Whose connections an IPv6 socket takes; `None` for the system's default.
    families: Option<Families>,
    logged_failure: bool,
    backlog: i32,
}

impl Listener {
    /// What the worker is told about a connection; `None` if its sender is refused (`haproxy from`).
    #[inline]
    pub(super) fn accept_of(&self, socket: &Socket) -> Option<Accept> {
        match self.config.haproxy_from.is_empty() {
            true => Some(self.accept),
            false => self.judge(socket),
        }
    }

    /// A local sender is believed, as it has no address.
    fn judge(&self, socket: &Socket) -> Option<Accept> {
        let sender = socket.peer_address().and_then(|address| address.scoped_ip());
        let believed = |sender| self.config.haproxy_from.iter().any(|from| from.contains(sender));
        match sender {
            None => Some(self.accept),
            Some(sender) if believed(sender) => Some(self.accept),
            Some(_) if self.accept.flags & flag::HAPROXY_OPTIONAL != 0 => {
                let flags = self.accept.flags | flag::HAPROXY_DISTRUSTED;
                Some(Accept { flags, ..self.accept })
            }
            Some(sender) => {
                log::braked(log::Kind::Denied, || {
                    format!("{}: not in 'haproxy from'", text::rejected(sender))
                });
                None
            }
        }
    }

    pub(in crate::broker) fn new(
        mut config: config::Listener,
        address: Address,
        section: Keepalive,
    ) -> Self {
        config.keepalive = config.keepalive.or(section);
        let mut realm = [0; 16];
        let length = config.realm.len().min(15);
        realm[..length].copy_from_slice(&config.realm[..length]);
        let datagrams = config.protocol == Protocol::Udp;
        let tls_versions = match (datagrams, config.tls_versions, config.dtls_versions) {
            (true, _, dtls) => dtls,
            // DTLS versions alone make no sense here, but must not turn into plain text either.
            (false, 0, 1..) => TLS_DEFAULT,
            (false, tls, _) => tls,
        };
        let accept = Accept {
            tls_versions,
            aaa_protocol: config.aaa_protocol,
            flags: config.flags,
            realm,
            protocol: config.protocol.number() as u32,
            listener: 0,
            client: 0,
        };
        let class = config.dscp << 2;
        let backlog = config.backlog;
        let families = match config.ipv6_only {
            Ipv6Only::Auto => None,
            Ipv6Only::Yes => Some(Families::Ipv6),
            Ipv6Only::No => Some(Families::Both),
        };
        Listener {
            config,
            address,
            socket: None,
            file: None,
            accept,
            class,
            retry: None,
            activated: false,
            reopen: false,
            families,
            logged_failure: false,
            backlog,
        }
    }

    /// A listener for a socket that was opened before we started (inetd wait mode, socket
    /// activation).
    pub(super) fn inherited(fd: os::Listener, backlog: i32) -> io::Result<Listener> {
        let config = config::Listener { backlog, ..config::Listener::new(0) };
        let address = fd.local_address().unwrap_or_else(|| Address::Unix(Path::new("").into()));
        let mut listener = Listener::new(config, address, Keepalive::default());
        listener.accept.protocol = 0;
        listener.activated = true;
        listener.adopt(fd, None)?;
        Ok(listener)
    }

    /// True without a `listen` block.
    pub(super) fn is_inherited(&self) -> bool {
        self.accept.protocol == 0
    }

    /// The key by which the next image recognises the listener. An IPv6 zone is written as a
    /// number: by then another interface may have its name, while the socket stays bound to the
    /// former one.
    pub(in crate::broker) fn key(&self) -> String {
        let vrf = self.config.vrf.as_deref().unwrap_or("");
        let address = match &self.address {
            Address::Ip(SocketAddr::V6(v6)) if v6.scope_id() != 0 => v6.to_string(),
            address => address.to_string(),
        };
        format!("{} {:?} {address} {vrf}", self.config.protocol.name(), self.config.kind)
    }

    pub(super) fn is_datagram(&self) -> bool {
        self.config.kind == Kind::Datagram
    }

    /// True if other processes may listen on the same port.
    fn shares_port(&self) -> bool {
        self.config.reuse_port && self.address.family() != Family::Unix && !self.is_datagram()
    }

    /// True if this listener is for all IPv6 addresses, and perhaps for IPv4 as well.
    fn is_ipv6_wildcard(&self) -> bool {
        self.address.ip() == Some(Ipv6Addr::UNSPECIFIED.into())
    }

    /// True if the socket takes IPv4 connections or not as this listener wants. A socket bound to a
    /// single address takes none anyway, and Linux reports it as IPv6-only whatever was set.
    fn suits_families(&self, fd: &os::Listener) -> bool {
        if !self.is_ipv6_wildcard() {
            return true;
        }
        let fresh = || {
            let fd =
                os::Listener::new(Family::Ipv6, self.config.kind, self.config.protocol).ok()?;
            fd.families().ok()
        };
        let wanted = self.families.or_else(fresh);
        wanted.is_none_or(|wanted| fd.families().is_ok_and(|found| found == wanted))
    }

    /// Takes over a bound socket, and its file if that is known. Options that the former owner set
    /// and this configuration does not go back to the defaults of a new socket.
    pub(in crate::broker) fn adopt(
        &mut self,
        fd: os::Listener,
        file: Option<FileId>,
    ) -> io::Result<()> {
        // Port sharing is fixed when a socket is bound, so a socket that differs makes room for a
        // new one. Sockets of the service manager cannot be opened again, and datagram sockets
        // always share.
        let settled = self.activated || self.is_datagram();
        if !settled && fd.shares_port() != self.shares_port() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if !self.activated && !self.suits_families(&fd) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        fd.set_nonblocking()?;
        let family = self.address.family();
        if family != Family::Unix && !self.is_datagram() {
            let system = default_keepalive_parameters(family);
            // SCTP sockets have none of these options.
            let _ = fd.set_keepalive_parameters(system);
            let _ = fd.set_user_timeout(system);
        }
        self.prepare(&fd)?;
        // The service manager has chosen a backlog; keep it unless another one is configured.
        let settled = self.activated && self.backlog == MOST_BACKLOG;
        if !self.is_datagram() && !settled {
            fd.listen(self.backlog)?;
        }
        if let (Address::Unix(path), false) = (&self.address, self.activated) {
            let (uid, gid) = process::identity();
            let new = Permissions { mode: Some(0o755), uid: Some(uid), gid: Some(gid) };
            let found = Entry::of(path).and_then(|entry| {
                let bound = entry.bound_file(&fd, file)?;
                let result = bound.set_permissions(self.permissions(new));
                Ok((bound.id(), result))
            });
            match found {
                Ok((id, result)) => {
                    self.file = Some(id);
                    report_permissions(path, result);
                }
                Err(error) => {
                    let path = path.display();
                    let reason = os::reason(&error);
                    log::message(&format!("{path}: mode and owner stay as they are: {reason}"));
                }
            }
        }
        self.socket = Some(fd);
        Ok(())
    }

    /// Options that accepted connections inherit.
    fn prepare(&self, fd: &os::Listener) -> io::Result<()> {
        if self.address.family() == Family::Unix {
            return Ok(());
        }
        fd.set_keepalive()?;
        if !self.is_datagram() {
            fd.set_urgent_inline();
            if let Err(error) = fd.set_keepalive_parameters(self.config.keepalive) {
                log::braked(log::Kind::Listener, || {
                    format!("{}: tcp keepalive: {}", self.address, os::reason(&error))
                });
            }
            if let Err(error) = fd.set_user_timeout(self.config.keepalive) {
                let reason = os::reason(&error);
                log::braked(log::Kind::Listener, || {
                    format!("{}: tcp user timeout: {reason}", self.address)
                });
            }
            if self.config.protocol != Protocol::Sctp {
                fd.set_no_delay();
                fd.unpace(&self.address);
            }
        }
        Ok(())
    }

    /// Creates, binds and listens. Success is logged, and a failure the first time.
    pub(super) fn open(&mut self) -> bool {
        self.open_saying(log::message)
    }

    /// As [`open`](Self::open), when the limit that closed it is no longer reached. Clients can
    /// cause that, so logging is limited.
    pub(super) fn open_again(&mut self) -> bool {
        self.open_saying(|text| log::braked(log::Kind::Listener, || text.to_owned()))
    }

    /// As [`open`](Self::open), for a caller that says itself how it went. The error names the call.
    pub(in crate::broker) fn try_to_open(&mut self) -> Result<(), (String, io::Error)> {
        let (fd, file) = self.try_open()?;
        (self.socket, self.file) = (Some(fd), file);
        Ok(())
    }

    fn open_saying(&mut self, say: impl Fn(&str)) -> bool {
        match self.try_to_open() {
            Ok(()) => {
                say(&text::bound(&self.address));
                self.logged_failure = false;
                true
            }
            Err((call, error)) => {
                if !self.logged_failure {
                    self.logged_failure = true;
                    say(&format!("{call}: {}", os::reason(&error)));
                    say(&text::not_bound(&self.address, self.config.retry_delay));
                }
                false
            }
        }
    }

    fn try_open(&self) -> Result<(os::Listener, Option<FileId>), (String, io::Error)> {
        let config = &self.config;
        let family = self.address.family();
        let fd = os::Listener::new(family, config.kind, config.protocol).map_err(|error| {
            (format!("socket({family:?}, {:?}, {})", config.kind, config.protocol.name()), error)
        })?;
        let call = |name: &str| {
            let name = name.to_owned();
            move |error| (name, error)
        };
        if family != Family::Unix {
            fd.set_reuse_address().map_err(call("setsockopt SO_REUSEADDR"))?;
        }
        if let (Family::Ipv6, Some(families)) = (family, self.families) {
            fd.set_families(families).map_err(call("setsockopt IPV6_V6ONLY"))?;
        }
        if self.is_datagram() {
            let _ = fd.set_reuse_port();
        }
        if self.shares_port() {
            fd.share_port().map_err(call("setsockopt SO_REUSEPORT"))?;
        }
        self.prepare(&fd).map_err(call("setsockopt"))?;
        if let Some(vrf) = &config.vrf {
            // As the C program does: log it, and go on in the default routing domain.
            if let Err(error) = fd.set_vrf(vrf) {
                let reason = os::reason(&error);
                log::braked(log::Kind::Listener, || {
                    format!("setsockopt failed to set the VRF to \"{vrf}\": {reason}")
                });
            }
        }
        if let Address::Unix(path) = &self.address {
            let file = self.bind_file(&fd, path)?;
            return Ok((fd, file));
        }
        fd.bind(&self.address).map_err(call("bind"))?;
        self.listen(&fd)?;
        Ok((fd, None))
    }

    fn listen(&self, fd: &os::Listener) -> Result<(), (String, io::Error)> {
        match self.is_datagram() {
            true => Ok(()),
            false => fd.listen(self.backlog).map_err(|error| ("listen".to_owned(), error)),
        }
    }

    /// Binds a UNIX socket to its path, listens, and sets mode and owner of the file.
    fn bind_file(
        &self,
        fd: &os::Listener,
        path: &Path,
    ) -> Result<Option<FileId>, (String, io::Error)> {
        let entry = Entry::of(path);
        // Until it listens, another process of ours would take the socket for a stale one.
        let lock = entry.as_ref().ok().map(Entry::lock_directory);
        if let Ok(entry) = &entry {
            remove_stale_socket(entry, path, self.file);
        }
        let bind = || fd.bind(&self.address);
        match self.config.mode {
            // Bind with the final mode, so that there is nothing to change afterwards.
            Some(mode) => process::with_umask(!mode & 0o777, bind),
            None => bind(),
        }
        .map_err(|error| ("bind".to_owned(), error))?;
        let bound = entry.as_ref().ok().and_then(|entry| entry.bound_file(fd, None).ok());
        let id = bound.as_ref().map(|bound| bound.id());
        if let Err(error) = self.listen(fd) {
            if let (Ok(entry), Some(id)) = (&entry, id) {
                let _ = entry.remove(id);
            }
            return Err(error);
        }
        if let Some(lock) = lock {
            lock.release();
        }
        let wanted = self.permissions(Permissions::default());
        match bound {
            Some(bound) => report_permissions(path, bound.set_permissions(wanted)),
            None if wanted != Permissions::default() => {
                let error = io::Error::other("another file has taken the place of the socket");
                report_permissions(path, Err(("chown", error)));
            }
            None => {}
        }
        Ok(id)
    }

    /// Mode and owner as configured, or else as given.
    fn permissions(&self, otherwise: Permissions) -> Permissions {
        Permissions {
            mode: self.config.mode.or(otherwise.mode),
            uid: self.config.owner.uid.or(otherwise.uid),
            gid: self.config.owner.gid.or(otherwise.gid),
        }
    }

    /// Waits until it is certain whether a UNIX socket at the path is stale.
    pub(in crate::broker) fn await_rival(&self) {
        if let Address::Unix(path) = &self.address {
            let is_unsure =
                |entry: &Entry| entry.socket().is_some() && is_young(path) && is_refused(path);
            // The wait has an end, in case somebody keeps touching the file.
            let end = Instant::now() + 2 * YOUTH;
            while Instant::now() < end && Entry::of(path).is_ok_and(|entry| is_unsure(&entry)) {
                std::thread::sleep(LOOK_PAUSE);
            }
        }
    }

    /// The file of its UNIX socket, for the next image.
    pub(in crate::broker) fn file(&self) -> Option<FileId> {
        self.file
    }

    /// Calls listen(2) again if the backlog changes.
    pub(super) fn set_backlog(&mut self, overloaded: bool) {
        let config = &self.config;
        let wanted = if overloaded { config.overload_backlog } else { config.backlog };
        if let (true, Some(fd)) = (wanted != self.backlog && !self.is_datagram(), &self.socket) {
            if let Err(error) = fd.listen(wanted) {
                log::braked(log::Kind::Limit, || {
                    format!("listen {}: {}", self.address, os::reason(&error))
                });
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
    pub(in crate::broker) fn remove_path(&self) {
        let ours = self.socket.as_ref().filter(|_| !self.activated);
        if let (Address::Unix(path), Some(socket)) = (&self.address, ours) {
            remove_file(path, socket, self.file);
        }
    }
}

/// Removes the file of our UNIX socket while the socket is still open, so that no other file can
/// have got its device and inode numbers.
pub(super) fn remove_file(path: &Path, socket: &os::Listener, known: Option<FileId>) {
    let Ok(entry) = Entry::of(path) else {
        return;
    };
    let _lock = entry.lock_directory();
    let file = known.or_else(|| entry.bound_file(socket, None).ok().map(|file| file.id()));
    // If that fails, the file is gone, or belongs to another socket.
    let _ = file.map(|file| entry.remove(file));
}

fn report_permissions(path: &Path, result: Result<(), NotChanged>) {
    if let Err((call, error)) = result {
        log::braked(log::Kind::Listener, || {
            format!("{call}({}): {}", path.display(), os::reason(&error))
        });
    }
}

/// Opens a socket as a listener of this configuration does; the error names the call.
pub fn open(
    config: config::Listener,
    address: Address,
) -> Result<os::Listener, (String, io::Error)> {
    Listener::new(config, address, Keepalive::default()).try_open().map(|(fd, _)| fd)
}

/// Gives each family a socket of its own where IPv6 listeners for all addresses share a port with
/// IPv4 listeners: otherwise the first one would take both families, and the other would fail.
/// Listeners in different routing domains do not collide.
pub(super) fn separate_families(listeners: &mut [Listener]) {
    let place = |listener: &Listener| {
        // Multipath TCP shares the ports of TCP.
        let protocol = match listener.config.protocol {
            Protocol::Mptcp => Protocol::Tcp,
            protocol => protocol,
        };
        (protocol, listener.address.port())
    };
    let mut ipv4: HashMap<(Protocol, u16), Vec<Option<String>>> = HashMap::new();
    for listener in listeners.iter() {
        let ip = listener.address.ip().map(unmapped);
        if ip.is_some_and(|ip| ip.is_ipv4()) && listener.address.port() != 0 {
            ipv4.entry(place(listener)).or_default().push(listener.config.vrf.clone());
        }
    }
    for listener in listeners.iter_mut() {
        if !listener.is_ipv6_wildcard() || listener.config.ipv6_only != Ipv6Only::Auto {
            continue;
        }
        let own = &listener.config.vrf;
        let meets = |vrf: &Option<String>| vrf == own || vrf.is_none() || own.is_none();
        let beside = ipv4.get(&place(listener)).is_some_and(|domains| domains.iter().any(meets));
        listener.families = beside.then_some(Families::Ipv6);
    }
}

/// How long a process may take between bind(2) and listen(2) on a UNIX socket. In between it
/// refuses connections, just as a stale socket does.
const YOUTH: Duration = Duration::from_secs(1);
const LOOK_PAUSE: Duration = Duration::from_millis(20);

fn is_young(path: &Path) -> bool {
    let modified = std::fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < YOUTH))
}

fn is_refused(path: &Path) -> bool {
    let answer = os::Socket::new(Family::Unix, Kind::Stream, Protocol::Tcp)
        .and_then(|fd| fd.connect(&Address::Unix(path.to_owned())));
    answer.is_err_and(|error| error.raw_os_error() == Some(libc::ECONNREFUSED))
}

/// Removes a socket file that nobody listens on: our `own` at once, any other when it is not young.
fn remove_stale_socket(entry: &Entry, path: &Path, own: Option<FileId>) {
    if let Some(file) = entry.socket() {
        if is_refused(path) && (own == Some(file) || !is_young(path)) {
            let _ = entry.remove(file);
        }
    }
}
