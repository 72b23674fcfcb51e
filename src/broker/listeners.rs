//! The listeners of a broker.

mod listener;

use super::addresses::Resolver;
use super::connection::Connection;
use super::handover::{LeftListener, ACTIVATED};
use super::{kind, text};
use crate::channel::protocol::{Accept, Rights, UDP_LIMIT};
use crate::config::broker::{Broker, Overload};
use crate::config::listen::{flag, Sticky};
use crate::event::{Interest, Loop, Token};
use crate::os::address::{Address, Family};
use crate::os::process::{self, exit};
use crate::os::socket::{
    self, Addressed, Blocking, Inherited, Keepalive, Kind, Options, Protocol, Socket, MOST_BACKLOG,
};
use crate::os::{self, log};
use listener::{remove_file, separate_families};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

pub use listener::open;
pub(super) use listener::Listener;

/// How often binding is tried again if nothing could be bound after a reload, in seconds.
const RELOAD_RETRY: u32 = 2;

/// All listeners, addressed by their index.
pub(super) struct Listeners {
    all: Vec<Listener>,
    /// The control socket. Its clients are the monitor's.
    desk: Option<Listener>,
    /// Clients of the control socket can be served at the moment.
    desk_is_open: bool,
    /// Nothing is accepted at the moment.
    paused: bool,
}

impl Listeners {
    /// The listeners of a configuration, none of them bound. With `inetd`, standard input comes
    /// first.
    pub(super) fn new(config: &mut Broker, inetd: bool) -> Listeners {
        let mut all = resolve(config, inetd);
        separate_families(&mut all);
        let desk = config.control.take().and_then(|control| {
            let path = control.address.as_ref().map(|path| path.text.clone())?;
            Some(Listener::new(control, Address::Unix(path.into()), Keepalive::default()))
        });
        Listeners { all, desk, desk_is_open: false, paused: false }
    }

    /// Does without a control socket, as there is nobody to serve its clients.
    pub(super) fn close_desk(&mut self) {
        if self.desk.take().is_some() {
            log::message("control: only workers of this program can be controlled");
        }
    }

    /// True if there is a control socket.
    pub(super) fn has_desk(&self) -> bool {
        self.desk.is_some()
    }

    /// True if there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Opens the listeners, using sockets of the former image or the service manager where they
    /// fit. Fails if there are no listeners, and then leaves `former` as it is; or if none could be
    /// bound and none will be retried. After a reload binding is always retried, as the sessions of
    /// the former image still go on here.
    pub(super) fn bind(
        &mut self,
        former: &mut Vec<LeftListener<os::Listener>>,
        activated: Vec<os::Listener>,
        reloaded: bool,
        events: &mut Loop,
    ) -> Result<(), i32> {
        let mut activated: Vec<Option<os::Listener>> = activated
            .into_iter()
            .filter(|fd| socket::inspect(fd.as_raw_fd()) == Inherited::Listener)
            .map(Some)
            .collect();
        let known = former.iter().filter(|left| left.is_activated()).map(|left| &left.socket);
        if self.all.is_empty() && !known.chain(activated.iter().flatten()).any(is_usable) {
            log::message("FATAL: No listeners defined.");
            return Err(exit::OS_ERROR);
        }
        let all = self.all.iter_mut().chain(&mut self.desk);
        for listener in all.filter(|listener| listener.socket.is_none()) {
            let key = listener.key();
            let fits = |other: &str| other.strip_prefix(ACTIVATED).unwrap_or(other) == key;
            let taken = match former.iter().position(|other| fits(&other.key)) {
                Some(index) => {
                    let left = former.swap_remove(index);
                    listener.activated = left.is_activated();
                    Some((left.socket, left.file))
                }
                None => {
                    let address = Some(&listener.address);
                    let same = |fd: &&mut Option<os::Listener>| {
                        fd.as_ref().and_then(os::Listener::local_address).as_ref() == address
                    };
                    let fd = activated.iter_mut().find(same).and_then(Option::take);
                    listener.activated = fd.is_some();
                    fd.map(|fd| (fd, None))
                }
            };
            if let Some(Ok(())) = taken.map(|(fd, file)| listener.adopt(fd, file)) {
                log::message(&format!("{} (inherited)", text::bound(&listener.address)));
            }
        }
        // Close the sockets that fit nothing in the new configuration before opening others: a
        // listener may have moved to another address with the same port.
        former.retain(|left| {
            let keep = left.is_activated();
            if !keep {
                self.remove_abandoned_path(left);
            }
            keep
        });
        let all = self.all.iter_mut().chain(&mut self.desk);
        for listener in all.filter(|listener| listener.socket.is_none()) {
            listener.await_rival();
            listener.open();
        }
        let backlog = self.all.first();
        let backlog = backlog.map_or(MOST_BACKLOG, |listener| listener.config.backlog);
        let known = former.drain(..).map(|left| (left.socket, "inherited"));
        let new = activated.into_iter().flatten().map(|fd| (fd, "socket activation"));
        for (fd, how) in known.chain(new) {
            if let Ok(listener) = Listener::inherited(fd, backlog) {
                log::message(&format!("{} ({how})", text::bound(&listener.address)));
                self.all.push(listener);
            }
        }
        let retry = self.all.iter().any(|listener| listener.config.retry_delay > 0);
        if self.all.iter().all(|listener| listener.socket.is_none()) && !retry {
            if !reloaded {
                log::message(&format!("{} Exiting.", text::NOTHING_BOUND));
                return Err(exit::TEMPORARY);
            }
            log::message(&format!(
                "{} Will retry every {RELOAD_RETRY} seconds.",
                text::NOTHING_BOUND
            ));
            for listener in &mut self.all {
                listener.config.retry_delay = RELOAD_RETRY;
            }
        }
        for index in 0..self.all.len() {
            self.watch(index, events);
        }
        self.watch_desk(events);
        Ok(())
    }

    /// Registers the control socket, or arms the timer of its next attempt to bind.
    fn watch_desk(&mut self, events: &mut Loop) {
        let interest = self.desk_interest();
        let Some(desk) = &mut self.desk else {
            return;
        };
        match &desk.socket {
            Some(fd) => events.register(fd, Token::new(kind::DESK, 0), interest),
            None => {
                let deadline = events.now() + u64::from(desk.config.retry_delay) * 1000;
                desk.retry = Some(events.arm(Token::new(kind::DESK_RETRY, 0), deadline));
            }
        }
    }

    fn desk_interest(&self) -> Interest {
        match self.desk_is_open {
            true => Interest::READ,
            false => Interest::empty(),
        }
    }

    /// Stops or resumes accepting clients of the control socket.
    pub(super) fn set_desk_open(&mut self, is_open: bool, events: &mut Loop) {
        if std::mem::replace(&mut self.desk_is_open, is_open) != is_open {
            let interest = self.desk_interest();
            if let Some(fd) = self.desk.as_ref().and_then(|desk| desk.socket.as_ref()) {
                events.set_interest(fd, interest);
            }
        }
    }

    /// The timer of the next attempt to bind the control socket has expired.
    pub(super) fn bind_desk_again(&mut self, events: &mut Loop) {
        if let Some(desk) = &mut self.desk {
            desk.retry = None;
            desk.open();
            self.watch_desk(events);
        }
    }

    /// Accepts a client of the control socket. Root and the owner of the socket may change things.
    pub(super) fn accept_caller(&self) -> io::Result<(Socket, Rights)> {
        let Some(desk) = self.desk.as_ref().filter(|_| self.desk_is_open) else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let Some(fd) = &desk.socket else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let socket = fd.accept(Blocking::No)?;
        let user = socket.peer_user()?;
        let owner = desk.config.owner.uid.unwrap_or_else(|| process::identity().0);
        let rights = if user == 0 || user == owner { Rights::Change } else { Rights::Look };
        Ok((socket, rights))
    }

    /// Removes the file of a UNIX socket that is no longer in the configuration.
    fn remove_abandoned_path(&self, left: &LeftListener<os::Listener>) {
        if let Some(address @ Address::Unix(_)) = left.socket.local_address() {
            let mut all = self.all.iter().chain(&self.desk);
            let known = all.any(|listener| listener.address == address);
            if let (Address::Unix(path), false) = (&address, known) {
                remove_file(path, &left.socket, left.file);
            }
        }
    }

    /// Takes descriptor 0 as the first listener (inetd wait mode).
    pub(super) fn adopt_standard_input(&mut self) -> Result<(), i32> {
        match process::take_standard_input()
            .and_then(|fd| Listener::inherited(fd.into(), MOST_BACKLOG))
        {
            Ok(listener) => {
                log::message(&format!("{} (via inetd)", text::bound(&listener.address)));
                self.all.insert(0, listener);
                Ok(())
            }
            Err(error) => {
                log::message(&format!("standard input: {}", os::reason(&error)));
                Err(exit::OS_ERROR)
            }
        }
    }

    /// Registers a listener, or arms the timer of its next attempt to bind.
    fn watch(&mut self, index: usize, events: &mut Loop) {
        let interest = self.interest();
        let listener = &mut self.all[index];
        match &listener.socket {
            Some(fd) => {
                events.register(fd, Token::new(kind::LISTENER, index as u32), interest);
            }
            None if listener.config.retry_delay > 0 => {
                let deadline = events.now() + u64::from(listener.config.retry_delay) * 1000;
                let token = Token::new(kind::BIND_RETRY, index as u32);
                listener.retry = Some(events.arm(token, deadline));
            }
            None => {}
        }
    }

    fn interest(&self) -> Interest {
        if self.paused {
            Interest::empty()
        } else {
            Interest::READ
        }
    }

    /// The timer of the next attempt to bind has expired.
    pub(super) fn bind_again(&mut self, index: usize, events: &mut Loop) {
        self.all[index].retry = None;
        self.all[index].open();
        self.watch(index, events);
    }

    /// Stops or resumes accepting.
    #[inline]
    pub(super) fn set_paused(&mut self, paused: bool, events: &mut Loop) {
        if self.paused != paused {
            self.paused = paused;
            self.follow_interest(events);
        }
    }

    #[cold]
    fn follow_interest(&self, events: &mut Loop) {
        for fd in self.all.iter().filter_map(|listener| listener.socket.as_ref()) {
            events.set_interest(fd, self.interest());
        }
    }

    /// Accepts one connection, or receives one datagram; `None` if the datagram had to be dropped.
    pub(super) fn accept(
        &mut self,
        index: usize,
        blocking: Blocking,
    ) -> io::Result<Option<Connection>> {
        let listener = &mut self.all[index];
        let Some(fd) = &listener.socket else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let taken =
            if listener.is_datagram() { receive(fd)? } else { Some((fd.accept(blocking)?, None)) };
        let Some((socket, datagram)) = taken else {
            return Ok(None);
        };
        let Some(accept) = listener.accept_of(&socket) else {
            return Ok(None);
        };
        if listener.address.family() == Family::Unix {
            // This option is not inherited from the listening socket.
            socket.set_urgent_inline();
        }
        if listener.class != 0 {
            if let Err(error) = socket.set_traffic_class(listener.class) {
                log::braked(log::Kind::Accept, || format!("dscp: {}", os::reason(&error)));
                listener.class = 0;
            }
        }
        Ok(Some(Connection { socket, listener: Some(index), accept, datagram, seat: None }))
    }

    /// How many connections may wait in the backlog of a listener that is about to be closed.
    /// `None` for a socket of the service manager: it stays open there, and its backlog is served
    /// later.
    pub(super) fn backlog(&self, index: usize) -> Option<usize> {
        let listener = &self.all[index];
        let ours = !listener.activated && !listener.is_datagram();
        ours.then(|| usize::try_from(listener.config.backlog).unwrap_or(0).min(4096))
    }

    /// The limit of connections was reached, or is no longer reached.
    pub(super) fn follow_limit(&mut self, full: bool, overload: Overload, events: &mut Loop) {
        let reset = overload == Overload::Reset;
        for index in 0..self.all.len() {
            let listener = &mut self.all[index];
            if reset && full && !listener.activated {
                listener.reopen = listener.socket.is_some();
                listener.close(events);
            } else if reset && std::mem::take(&mut listener.reopen) {
                if !listener.open_again() {
                    // It was bound before, so retry even if no retry is configured.
                    let delay = &mut listener.config.retry_delay;
                    *delay = (*delay).max(1);
                }
                self.watch(index, events);
            } else {
                listener.set_backlog(full);
            }
        }
    }

    /// Closes all of them for good.
    pub(super) fn close(&mut self, events: &mut Loop) {
        for listener in self.all.iter_mut().chain(&mut self.desk) {
            listener.close(events);
            if let Some(timer) = listener.retry.take() {
                events.cancel(timer);
            }
        }
    }

    /// Removes the files of UNIX sockets that this process has bound.
    pub(super) fn remove_paths(&self) {
        self.all.iter().chain(&self.desk).for_each(Listener::remove_path);
    }

    /// True if there are sockets without a `listen` block.
    pub(super) fn has_inherited(&self) -> bool {
        self.all.iter().any(Listener::is_inherited)
    }

    /// The key of a listener, for the next image.
    pub(super) fn key(&self, index: usize) -> String {
        self.all[index].key()
    }

    /// The listener with this key.
    pub(super) fn find(&self, key: &str) -> Option<usize> {
        self.all.iter().position(|listener| listener.key() == key)
    }

    /// What the worker is told about a connection of a listener; `None` if its sender is refused.
    pub(super) fn accept_of(&self, index: usize, socket: &Socket) -> Option<Accept> {
        self.all[index].accept_of(socket)
    }

    /// A listener whose connections have this [`Accept`].
    pub(super) fn that_tells(&self, accept: &Accept) -> Option<usize> {
        let flags = accept.flags & !flag::HAPROXY_DISTRUSTED;
        let accept = Accept { flags, listener: 0, ..*accept };
        self.all.iter().position(|listener| listener.accept == accept)
    }

    /// True if it takes datagrams.
    pub(super) fn is_datagram(&self, index: usize) -> bool {
        self.all[index].is_datagram()
    }

    /// Which listeners are bound, by their numbers.
    pub(super) fn bound(&self) -> impl Iterator<Item = bool> + '_ {
        self.all.iter().map(|listener| listener.socket.is_some())
    }

    /// The port of a listener.
    pub(super) fn port(&self, index: usize) -> u16 {
        self.all[index].address.port()
    }

    /// What messages call each listener, by its number.
    pub(super) fn names(&self) -> Vec<String> {
        let name = |listener: &Listener| {
            let address = match listener.socket.as_ref().and_then(os::Listener::local_address) {
                // The port may be the system's choice.
                Some(bound @ Address::Ip(_)) => bound,
                _ => listener.address.clone(),
            };
            match &listener.address {
                Address::Unix(_) => format!("UNIX {address}"),
                Address::Ip(_) => format!("{} {address}", listener.config.protocol.name()),
            }
        };
        self.all.iter().map(name).collect()
    }

    /// How each listener is configured to remember clients.
    pub(super) fn stickiness(&self) -> impl Iterator<Item = Sticky> + '_ {
        self.all.iter().map(|listener| listener.config.sticky)
    }

    /// The bound listeners, for the next image.
    pub(super) fn left(&self) -> impl Iterator<Item = LeftListener<BorrowedFd<'_>>> + '_ {
        self.all.iter().chain(&self.desk).filter_map(|listener| {
            // Mark the sockets that the service manager opened.
            let prefix = if listener.activated { ACTIVATED } else { "" };
            let key = format!("{prefix}{}", listener.key());
            let socket = listener.socket.as_ref()?.as_fd();
            Some(LeftListener { key, socket, file: listener.file() })
        })
    }
}

/// True if a socket that was opened before we started can be a listener. A copy is tried, so that it
/// is still there for another attempt.
fn is_usable(fd: &os::Listener) -> bool {
    let copy = fd.as_fd().try_clone_to_owned().map(os::Listener::from);
    copy.and_then(|copy| Listener::inherited(copy, MOST_BACKLOG)).is_ok()
}

/// Resolves the addresses. A listener whose address cannot be resolved is reported and dropped.
fn resolve(config: &mut Broker, inetd: bool) -> Vec<Listener> {
    let keepalive = config.keepalive;
    let mut resolver = Resolver::default();
    std::mem::take(&mut config.listeners)
        .into_iter()
        .filter(|listener| !(inetd && listener.empty))
        .filter_map(|listener| match resolver.resolve(&listener) {
            Ok(address) => Some(Listener::new(listener, address, keepalive)),
            Err(reason) => {
                let name = listener.address.as_ref().map_or("", |value| value.text.as_str());
                log::message(&format!(
                    "FATAL: \"bind to {name}:{}\" failed: {reason}",
                    listener.port
                ));
                None
            }
        })
        .collect()
}

/// Receives one datagram and makes a socket that is connected to its sender.
pub fn receive(fd: &os::Listener) -> io::Result<Option<(Socket, Option<Vec<u8>>)>> {
    let mut data = vec![0; UDP_LIMIT];
    let (length, sender) = fd.receive_from(&mut data)?;
    data.truncate(length);
    let (Some(sender @ Address::Ip(_)), Some(local)) = (sender, fd.local_address()) else {
        return Ok(None);
    };
    let connect = || -> io::Result<Socket> {
        let new = Socket::new(local.family(), Kind::Datagram, Protocol::Udp)?;
        new.set_reuse_address()?;
        let _ = new.set_reuse_port();
        new.bind(&local)?;
        new.connect(&sender)?;
        new.set_blocking()?;
        Ok(new)
    };
    match connect() {
        Ok(new) => Ok(Some((new, Some(data)))),
        Err(error) if os::out_of_descriptors(&error) => Err(error),
        Err(error) => {
            log::braked(log::Kind::Datagram, || {
                format!("datagram from {sender}: {}", os::reason(&error))
            });
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Choice;

    fn left(key: &str) -> LeftListener<os::Listener> {
        let socket =
            os::Listener::new(Family::Unix, Kind::Stream, Protocol::Tcp).expect("a socket");
        LeftListener { key: key.to_owned(), socket, file: None }
    }

    fn bind(former: &mut Vec<LeftListener<os::Listener>>) -> Result<usize, i32> {
        let mut events = Loop::new(&Choice::from_setting(None)).expect("a loop");
        let mut listeners = Listeners::new(&mut Broker::default(), false);
        listeners.bind(former, Vec::new(), true, &mut events).map(|()| listeners.len())
    }

    #[test]
    fn without_listeners_the_former_sockets_stay_for_another_attempt() {
        let mut former = vec![left("TCP Stream 127.0.0.1:80 "), left("UNIX Stream /run/x ")];
        assert_eq!(bind(&mut former), Err(exit::OS_ERROR));
        assert_eq!(former.len(), 2);
        former.push(left("activated UNIX Stream /run/y "));
        assert_eq!(bind(&mut former), Ok(1));
        assert!(former.is_empty());
    }
}
