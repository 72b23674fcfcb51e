//! Reaching a remote: from nothing to a connection that can carry data.
//!
//! A [`Dial`] is a value. It makes and owns the socket. Its owner watches the socket for
//! [`interest`](Dial::interest), calls [`step`](Dial::step) when it is ready or the time of
//! [`due`](Dial::due) has come, and finally gets a [`Connection`] or a [`Failure`]. A dial knows
//! neither loop nor session: sessions and health checks both use it.
//!
//! ```text
//! busy ⇄ connecting → announcing → handshaking (with TLS) → ready
//! ```
//!
//! A remote may want to be told about the client first (`proxy protocol`). Announcing waits for
//! nothing, so it is a step and not a state: the header is put before the bytes that are sent first,
//! and leaves in one segment with them. With TLS these are the ClientHello's. Without, they are the
//! owner's, who finds the header in [`Connection::unsent`].

use super::handshake::{Handshake, Progress as Handshaken, Scratch, Unsent};
use super::options;
use super::proxy::{write, Header};
use super::registry::Registry;
use super::remote::{Remote, RemoteId};
use super::zone::counters::Failure as Fault;
use crate::config::relay::{LocalAddress, Relay};
use crate::event::Interest;
use crate::os::address::{Address, Family};
use crate::os::socket::{Addressed, Attempt, Kind, Options};
use crate::os::{self, Socket};
use crate::tls::stream::Stream;
use std::fmt::Display;
use std::io;

/// How often a UNIX socket whose backlog is full is tried again, in milliseconds: unlike with TCP,
/// the system does not wait for us.
const BUSY_STEP: u64 = 20;
/// No deadline.
const NEVER: u64 = u64::MAX;

/// How far a connect attempt has come.
#[derive(Debug)]
enum State {
    /// Nothing has been done yet.
    Fresh,
    /// The backlog of a UNIX socket is full; `again` is when it is tried again.
    Busy {
        again: u64,
    },
    Connecting(Socket),
    Handshaking(Socket, Box<Handshake>),
    /// The connection was handed over.
    Over,
}

/// A connect attempt, which is to reach one remote.
#[derive(Debug)]
pub struct Dial {
    remote: RemoteId,
    /// When to check whether the socket has connected to itself.
    doubt: Doubt,
    /// When it began.
    begun: u64,
    /// The deadline of connecting, then of the handshake.
    deadline: u64,
    state: State,
}

/// When a connection of the socket with itself is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// Only if the last attempt on the remote has failed.
    IfDown,
    /// Every time.
    Always,
}

/// Why a step is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The attempt begins, or is made again.
    Start,
    /// The socket is ready.
    Ready,
    /// The socket is ready, and not because of an error.
    Sound,
    /// The time of [`Dial::due`] has come.
    Time,
    /// This signature is there, or there will be none.
    Signed(u64),
}

/// What a step works with.
pub struct Dialer<'a> {
    /// The remotes.
    pub registry: &'a Registry,
    /// Local addresses, timeouts, and TLS.
    pub settings: &'a Relay,
    /// In milliseconds, of any clock.
    pub now: u64,
    /// Memory that steps use and do not keep.
    pub scratch: Scratch<'a>,
    /// What to tell remotes that want to know on whose behalf the connection is made. Called at most
    /// once, when the remote was reached. [`Header::local`] if there is no client.
    pub announce: &'a dyn Fn() -> Header,
    /// The address of the client, for `local address = client`. `None` if there is no client, or
    /// none with an address.
    pub client: &'a dyn Fn() -> Option<Address>,
}

/// A remote that was reached.
#[derive(Debug)]
pub struct Connection {
    /// The socket.
    pub socket: Socket,
    /// Its TLS stream, if it has TLS; the handshake is done.
    pub stream: Option<Stream>,
    /// What has to be sent before anything else: soon, even if nothing else is sent, as the remote
    /// may be the one that speaks first.
    pub unsent: Unsent,
}

/// Why a remote could not be reached.
#[derive(Debug)]
pub enum Failure {
    /// This process has no descriptor left, so no remote can be reached. The attempt can be made
    /// again.
    Descriptors(io::Error),
    /// This host is short of something, or lacks the local address. Includes the call that said so.
    Host(&'static str, io::Error),
    /// Anything else. Also EACCES and EPERM: a firewall that forbids this remote may let others
    /// through. Which sort of failure it is, and the text.
    Remote(Fault, String),
}

/// The result of a step.
#[derive(Debug)]
pub enum Progress {
    /// The attempt continues when the socket is ready, or at the time of [`Dial::due`].
    Waiting,
    /// The attempt continues with this signature, or at the time of [`Dial::due`].
    Signing(u64),
    /// The remote was reached.
    Ready(Connection),
    /// The remote was not reached. The socket, if there is one, is closed with the dial.
    Failed(Failure),
}

impl Dial {
    /// A connect attempt, to be begun with [`Cause::Start`].
    pub fn new(remote: RemoteId) -> Dial {
        Dial { remote, doubt: Doubt::IfDown, begun: 0, deadline: NEVER, state: State::Fresh }
    }

    /// As [`new`](Self::new), for an owner that must know for certain that the remote is there.
    pub fn probing(remote: RemoteId) -> Dial {
        Dial { doubt: Doubt::Always, ..Dial::new(remote) }
    }

    /// The remote.
    pub fn remote(&self) -> RemoteId {
        self.remote
    }

    /// When it began, on the clock of [`Dialer::now`].
    pub fn begun(&self) -> u64 {
        self.begun
    }

    /// The socket, if there is one.
    pub fn socket(&self) -> Option<&Socket> {
        match &self.state {
            State::Connecting(socket) | State::Handshaking(socket, _) => Some(socket),
            State::Fresh | State::Busy { .. } | State::Over => None,
        }
    }

    /// True if the next step is one of a TLS handshake, which takes time.
    pub fn is_handshaking(&self) -> bool {
        matches!(self.state, State::Handshaking(..))
    }

    /// What to watch the socket for.
    pub fn interest(&self) -> Interest {
        match &self.state {
            State::Connecting(_) => Interest::WRITE,
            State::Handshaking(_, handshake) => handshake.interest(),
            State::Fresh | State::Busy { .. } | State::Over => Interest::empty(),
        }
    }

    /// When to make the next step, if the socket is not ready before.
    pub fn due(&self) -> Option<u64> {
        let due = match &self.state {
            State::Busy { again } => *again,
            State::Connecting(_) | State::Handshaking(..) => self.deadline,
            State::Fresh | State::Over => NEVER,
        };
        (due != NEVER).then_some(due)
    }

    /// True if something waits to be sent.
    pub fn has_unsent(&self) -> bool {
        matches!(&self.state, State::Handshaking(_, handshake) if handshake.has_unsent())
    }

    /// Goes as far as possible without waiting.
    pub fn step(&mut self, cause: Cause, dialer: &mut Dialer<'_>) -> Progress {
        let registry = dialer.registry;
        let Some(remote) = registry.get(self.remote) else {
            return failed("the remote is gone");
        };
        match (&mut self.state, cause) {
            (State::Fresh, Cause::Start) => {
                self.begun = dialer.now;
                self.deadline = after(dialer.now, dialer.settings.connect_timeout);
                self.open(remote, dialer)
            }
            (State::Busy { .. }, Cause::Start | Cause::Time) => self.open(remote, dialer),
            // Connected in time, perhaps, which was not heard: a process may have to stand still, and
            // the system may have refused to watch the socket.
            (State::Connecting(socket), Cause::Time) if socket.peer_address().is_none() => {
                failed_with(&io::Error::from_raw_os_error(libc::ETIMEDOUT))
            }
            (State::Connecting(socket), Cause::Ready | Cause::Sound | Cause::Time) => {
                let result = if cause == Cause::Sound { Ok(()) } else { socket.take_error() };
                match result {
                    Ok(())
                        if (self.doubt == Doubt::Always || registry.is_down(self.remote))
                            && is_self_connected(socket, remote) =>
                    {
                        failed_with(&io::Error::from_raw_os_error(libc::ECONNREFUSED))
                    }
                    Ok(()) => self.connected(remote, dialer),
                    Err(error) if os::host_is_short(&error) => {
                        Progress::Failed(Failure::Host("connect", error))
                    }
                    Err(error) => failed_with(&error),
                }
            }
            (State::Handshaking(socket, handshake), Cause::Ready | Cause::Sound) => {
                let progress = handshake.go_on(socket, &mut dialer.scratch);
                self.after_handshake(progress)
            }
            (State::Handshaking(socket, handshake), Cause::Signed(number)) => {
                let progress = handshake.signed(number, socket, &mut dialer.scratch);
                self.after_handshake(progress)
            }
            (State::Handshaking(..), Cause::Time) => failed_tls("handshake timeout"),
            _ => Progress::Waiting,
        }
    }

    fn open(&mut self, remote: &Remote, dialer: &mut Dialer<'_>) -> Progress {
        match open(remote, dialer) {
            Ok((socket, attempt)) => {
                self.state = State::Connecting(socket);
                match attempt {
                    Attempt::Connected => self.connected(remote, dialer),
                    Attempt::InProgress => Progress::Waiting,
                }
            }
            Err(Unopened::Busy(_)) if dialer.now < self.deadline => {
                self.state = State::Busy { again: dialer.now + BUSY_STEP };
                Progress::Waiting
            }
            Err(Unopened::Busy(error)) => failed_with(&error),
            Err(Unopened::For(failure)) => Progress::Failed(failure),
        }
    }

    fn connected(&mut self, remote: &Remote, dialer: &mut Dialer<'_>) -> Progress {
        let header = remote.settings.proxy.map(|version| write(version, &(dialer.announce)()));
        let unsent = header.map_or_else(Unsent::default, Unsent::from);
        let Some(connector) = &remote.connector else {
            return match std::mem::replace(&mut self.state, State::Over) {
                State::Connecting(socket) => {
                    Progress::Ready(Connection { socket, stream: None, unsent })
                }
                _ => failed("no connection"),
            };
        };
        let mut stream = match connector.connect() {
            Ok(stream) => stream,
            Err(errors) => return failed_tls(errors),
        };
        if dialer.settings.tls.kernel {
            stream.want_kernel();
        }
        if let State::Connecting(socket) = std::mem::replace(&mut self.state, State::Over) {
            self.state = State::Handshaking(socket, Box::new(Handshake::after(unsent, stream)));
        }
        self.deadline = after(dialer.now, dialer.settings.tls.handshake_timeout);
        match &mut self.state {
            State::Handshaking(socket, handshake) => {
                let progress = handshake.speak(socket, &mut dialer.scratch);
                self.after_handshake(progress)
            }
            _ => failed("no connection"),
        }
    }

    fn after_handshake(&mut self, progress: Handshaken) -> Progress {
        match progress {
            Handshaken::Waiting => Progress::Waiting,
            Handshaken::Signing(number) => Progress::Signing(number),
            Handshaken::Failed(text) => failed_tls(text),
            Handshaken::Done => match std::mem::replace(&mut self.state, State::Over) {
                State::Handshaking(socket, handshake) => {
                    let (stream, unsent) = handshake.into_parts();
                    Progress::Ready(Connection { socket, stream: Some(stream), unsent })
                }
                _ => failed("no connection"),
            },
        }
    }
}

fn failed(text: impl Into<String>) -> Progress {
    Progress::Failed(Failure::Remote(Fault::Other, text.into()))
}

fn failed_tls(text: impl Display) -> Progress {
    Progress::Failed(Failure::Remote(Fault::Tls, format!("TLS: {text}")))
}

fn failed_with(error: &io::Error) -> Progress {
    Progress::Failed(fault(error))
}

/// The failure that an error stands for.
fn fault(error: &io::Error) -> Failure {
    let fault = match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => Fault::Refused,
        Some(libc::ETIMEDOUT) => Fault::Timeout,
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EHOSTDOWN) => {
            Fault::Unreachable
        }
        _ => Fault::Other,
    };
    Failure::Remote(fault, os::reason(error))
}

/// This many seconds later; 0 means never.
fn after(now: u64, seconds: u32) -> u64 {
    if seconds == 0 {
        NEVER
    } else {
        now + u64::from(seconds) * 1000
    }
}

/// If nobody listens on a port, the system may choose that very port for the socket that connects,
/// and connect it to itself (TCP's simultaneous open).
fn is_self_connected(socket: &Socket, remote: &Remote) -> bool {
    socket.local_address().as_ref() == Some(remote.address())
}

/// Why a socket to a remote could not be made.
enum Unopened {
    /// The backlog of the remote's UNIX socket is full.
    Busy(io::Error),
    For(Failure),
}

/// Makes a socket for a remote and starts to connect.
fn open(remote: &Remote, dialer: &Dialer<'_>) -> Result<(Socket, Attempt), Unopened> {
    let family = remote.address().family();
    let sort = |call| {
        move |error: io::Error| match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => Unopened::For(Failure::Descriptors(error)),
            _ if family == Family::Unix && os::would_block(&error) => Unopened::Busy(error),
            _ if os::host_is_short(&error) => Unopened::For(Failure::Host(call, error)),
            _ => Unopened::For(fault(&error)),
        }
    };
    let bind_error = |error| Unopened::For(Failure::Host("bind", error));
    let protocol = remote.settings.protocol;
    let socket = Socket::new(family, Kind::Stream, protocol).map_err(sort("socket"))?;
    socket.set_urgent_inline();
    if family != Family::Unix {
        let _ = socket.set_keepalive();
        let _ = options::apply(&socket, &remote.settings);
        socket.set_no_delay();
        socket.unpace(remote.address());
    }
    choose_source(&socket, family, dialer).map_err(bind_error)?;
    let attempt = socket.connect(remote.address()).map_err(sort("connect"))?;
    Ok((socket, attempt))
}

/// Binds a socket to where the connection is to come from, if that is configured.
fn choose_source(socket: &Socket, family: Family, dialer: &Dialer<'_>) -> io::Result<()> {
    let ip = |family| family != Family::Unix;
    let bind = |address: &Address| {
        if ip(family) {
            socket.set_reuse_address()?;
            socket.leave_port_to_connect();
        }
        socket.bind(address)
    };
    let other_family = || Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
    match &dialer.settings.local {
        LocalAddress::System => Ok(()),
        LocalAddress::Own(own) => match own.iter().find(|address| address.family() == family) {
            Some(address) => bind(address),
            None if ip(family) && own.iter().any(|address| ip(address.family())) => other_family(),
            None => Ok(()),
        },
        LocalAddress::Client if !ip(family) => Ok(()),
        LocalAddress::Client => match (dialer.client)().and_then(|client| client.host()) {
            Some(client) if client.family() == family => {
                socket.set_foreign_address(family)?;
                bind(&client)
            }
            Some(_) => other_family(),
            None => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests;
