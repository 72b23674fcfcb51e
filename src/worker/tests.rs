//! Runs sessions of an engine over real sockets: clients and remotes connect, send, end and break
//! in any order. After each turn the engine's counts must match its sessions; at the end nothing
//! may be left, and every byte must have arrived once and in order.

mod handshakes;

use super::engine::Engine;
use super::session::State;
use crate::channel::local::Prepared;
use crate::channel::protocol::Accept;
use crate::config::relay::{Limits, Relay, Remote, Sessions};
use crate::event::{Choice, Interest, Loop};
use crate::os::address::Address;
use crate::os::Socket;
use crate::tls::context::Contexts;
use crate::tls::tickets::Ratchet;
use proptest::prelude::*;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Instant;

/// A client or a remote, seen from outside the engine.
struct Side {
    socket: Option<UnixStream>,
    /// Bytes it has sent, and bytes of the other side it has received.
    sent: usize,
    received: usize,
    /// It has shut down its sending side.
    ended: bool,
    /// It has seen the end of the other side.
    saw_end: bool,
    /// It was closed, or has met an error.
    broken: bool,
}

/// The byte at a position of what side `number` sends.
fn byte(number: usize, position: usize) -> u8 {
    (position.wrapping_mul(31) + position / 251 + number * 7) as u8
}

impl Side {
    fn new(socket: UnixStream) -> Side {
        socket.set_nonblocking(true).expect("not to block");
        let (sent, received) = (0, 0);
        let (ended, saw_end, broken) = (false, false, false);
        Side { socket: Some(socket), sent, received, ended, saw_end, broken }
    }

    fn send(&mut self, number: usize, length: usize) {
        let data: Vec<u8> = (self.sent..self.sent + length).map(|at| byte(number, at)).collect();
        match &mut self.socket {
            Some(socket) if !self.ended => match socket.write(&data) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => self.broken = true,
            },
            _ => {}
        }
    }

    /// Reads what is there, and compares it with what the other side sends.
    fn receive(&mut self, number: usize) {
        let mut data = [0; 65536];
        while let Some(socket) = &mut self.socket {
            match socket.read(&mut data) {
                Ok(0) => {
                    self.saw_end = true;
                    return;
                }
                Ok(count) => {
                    for (&found, at) in data[..count].iter().zip(self.received..) {
                        assert_eq!(found, byte(number, at), "byte {at}");
                    }
                    self.received += count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.broken = true;
                    return;
                }
            }
        }
    }

    fn end(&mut self) {
        if let Some(socket) = &self.socket {
            self.ended = true;
            let _ = socket.shutdown(Shutdown::Write);
        }
    }

    fn close(&mut self) {
        self.broken = true;
        self.socket = None;
    }
}

/// The engine, its remotes, and the outer sides of its sessions. All clients send as number 1, all
/// remotes as number 2.
struct World {
    events: Loop,
    engine: Engine,
    folder: PathBuf,
    listeners: Vec<Option<UnixListener>>,
    clients: Vec<Side>,
    remotes: Vec<Side>,
    begun: usize,
    ended: usize,
    /// Remotes have queues.
    queues: bool,
}

/// A remote that listens in this folder.
fn remote(folder: &Path, number: usize) -> Remote {
    Remote::new(Address::Unix(folder.join(number.to_string())))
}

impl World {
    fn new(remotes: usize, idle_timeout: u32, fail_count: u32) -> World {
        let settings = Relay { idle_timeout, fail_count, ..Relay::default() };
        World::with(remotes, Sessions::default(), settings)
    }

    /// A world of remotes with these limits.
    fn with(remotes: usize, sessions: Sessions, settings: Relay) -> World {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("tcprelay-engine-{}-{}", std::process::id(), NUMBER.fetch_add(1, SeqCst));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).expect("a folder");
        let limited = |number| Remote { sessions, ..remote(&folder, number) };
        let remotes: Vec<Remote> = (0..remotes).map(limited).collect();
        let listeners = remotes.iter().map(|_| None).collect();
        let settings = Relay { remotes, ..settings };
        let tickets = Ratchet::random(0, 3600).expect("random bytes");
        let tls = Contexts { acceptor: None, connectors: Vec::new(), tickets };
        World {
            events: Loop::new(&Choice::from_setting(None)).expect("a loop"),
            engine: Engine::new(settings, tls, None),
            folder,
            listeners,
            clients: Vec::new(),
            remotes: Vec::new(),
            begun: 0,
            ended: 0,
            queues: sessions.queue > 0,
        }
    }

    fn toggle(&mut self, number: usize) {
        let path = self.folder.join(number.to_string());
        match self.listeners[number].take() {
            Some(_) => std::fs::remove_file(path).expect("to remove"),
            None => {
                let listener = UnixListener::bind(path).expect("a listener");
                listener.set_nonblocking(true).expect("not to block");
                self.listeners[number] = Some(listener);
            }
        }
    }

    fn connect(&mut self) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        theirs.set_nonblocking(true).expect("not to block");
        let accept = Accept::default();
        self.begun += 1;
        self.clients.push(Side::new(ours));
        self.engine.accept(&mut self.events, Socket::from(theirs), &accept, Prepared::Yes);
    }

    /// Runs some turns of the loop, as the worker does.
    fn turn(&mut self) {
        (0..4).for_each(|_| self.turn_once());
        assert_eq!(self.engine.open() + self.ended, self.begun, "every session is counted once");
    }

    fn turn_once(&mut self) {
        {
            self.events.wait(Some(0)).expect("to wait");
            while let Some(event) = self.events.next_event() {
                self.engine.event(&mut self.events, event);
                self.check();
            }
            while let Some((timer, token)) = self.events.next_expired() {
                self.engine.timer(&mut self.events, timer, token);
                self.check();
            }
            self.ended += self.engine.turn(&mut self.events);
            for listener in self.listeners.iter().flatten() {
                while let Ok((socket, _)) = listener.accept() {
                    self.remotes.push(Side::new(socket));
                }
            }
        }
    }

    /// Checks what must hold between any two events.
    fn check(&mut self) {
        let (mut timers, mut lent, mut shaking, mut queued) = (0, 0, false, false);
        for (_, session) in self.engine.sessions_for_tests() {
            timers += usize::from(session.limit_timer.is_some());
            let wake = session.allotment.as_ref().and_then(|allotment| allotment.wake);
            timers += usize::from(wake.is_some());
            timers += usize::from(session.state_timer().is_some());
            match &session.state {
                State::Dialing { dial, timer, .. } => {
                    lent += 1;
                    shaking |= dial.is_handshaking();
                    assert_eq!(timer.is_some(), dial.due().is_some());
                    assert!(dial.socket().is_some() || timer.is_some(), "it waits for something");
                }
                State::Relaying { pair, .. } | State::Breaking { pair, .. } => {
                    lent += 1;
                    assert!(!pair.is_shut(), "what is done is closed, or lingers");
                }
                State::Lingering { pair, .. } => {
                    lent += 1;
                    assert!(pair.is_shut() && session.state_timer().is_some());
                }
                State::Short { .. } => {}
                State::Queued { .. } => queued = true,
                State::Accepting(_) => shaking = true,
                State::Arrived(_)
                | State::Introducing(_)
                | State::Detecting(_)
                | State::Authorizing { .. }
                | State::Choosing(_)
                | State::Over => panic!("no session is left like this"),
            }
            // An end is watched for writing exactly if there is something to write.
            if let Some(pair) = session.pair() {
                for end in [super::pair::End::Client, super::pair::End::Upstream] {
                    let interest = pair.interest(end, super::pair::Link::Up);
                    let into = pair.direction(end.other());
                    assert_eq!(interest.contains(Interest::WRITE), into.wants_write());
                }
            }
        }
        // Handshakes that wait for their turns may have one more, and so may those that wait for a
        // remote, or have done so a moment ago.
        let waits = queued || self.queues;
        let most = timers + usize::from(shaking) + usize::from(waits);
        assert!((timers..=most).contains(&self.events.armed()), "each timer has an owner");
        assert_eq!(self.engine.remotes_in_use(), lent, "each remote that was lent is in use");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Connect,
    Toggle(usize),
    /// A client, or a remote, does something.
    Client(usize, Act),
    Remote(usize, Act),
}

#[derive(Clone, Debug)]
enum Act {
    Send(usize),
    Receive,
    End,
    Close,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => prop_oneof![1usize..2000, 1usize..300_000].prop_map(Act::Send),
        4 => Just(Act::Receive),
        2 => Just(Act::End),
        1 => Just(Act::Close),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Connect),
        1 => any::<usize>().prop_map(Step::Toggle),
        5 => (any::<usize>(), act()).prop_map(|(which, act)| Step::Client(which, act)),
        5 => (any::<usize>(), act()).prop_map(|(which, act)| Step::Remote(which, act)),
    ]
}

fn perform(side: &mut Side, act: &Act, sends_as: usize, receives: usize) {
    match act {
        Act::Send(length) => side.send(sends_as, *length),
        Act::Receive => side.receive(receives),
        Act::End => side.end(),
        Act::Close => side.close(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn sessions_in_any_order(
        remotes in 1usize..4,
        idle_timeout in 0u32..2,
        fail_count in 0u32..3,
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let world = World::new(remotes, idle_timeout * 3600, fail_count);
        live(world, steps)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Directions pause and sessions wait, whatever ends meanwhile.
    #[test]
    fn sessions_with_limits_in_any_order(
        remotes in 1usize..4,
        most in 0u32..3,
        queue in 0u32..4,
        bandwidth in (0u64..2, 0u64..2),
        steps in prop::collection::vec(step(), 0..60),
    ) {
        const RATE: u64 = 3_000_000;
        let sessions = Sessions { max: most, queue: queue.min(most * 9), queue_timeout: 3600 };
        let limits = Limits {
            half_closed_timeout: 3600,
            session_timeout: 7200,
            bandwidth_up: bandwidth.0 * RATE,
            bandwidth_down: bandwidth.1 * RATE,
            ..Limits::default()
        };
        let world = World::with(remotes, sessions, Relay { limits, ..Relay::default() });
        live(world, steps)?;
    }
}

/// Lives through these steps, and then to the end of all sessions.
fn live(mut world: World, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let remotes = world.listeners.len();
    (0..remotes).for_each(|number| world.toggle(number));
    for step in steps {
        match step {
            Step::Connect => world.connect(),
            Step::Toggle(which) => world.toggle(which % remotes),
            // All clients send the same bytes, and so do all remotes.
            Step::Client(which, act) if !world.clients.is_empty() => {
                let which = which % world.clients.len();
                perform(&mut world.clients[which], &act, 1, 2);
            }
            Step::Remote(which, act) if !world.remotes.is_empty() => {
                let which = which % world.remotes.len();
                perform(&mut world.remotes[which], &act, 2, 1);
            }
            _ => {}
        }
        world.turn();
        world.check();
    }
    // Everybody shuts down, and reads what is left.
    for side in world.clients.iter_mut().chain(&mut world.remotes) {
        side.end();
    }
    let start = Instant::now();
    for turn in 0.. {
        // Pauses take time.
        if world.engine.open() == 0 || turn > 2000 && start.elapsed().as_secs() > 20 {
            break;
        }
        world.clients.iter_mut().for_each(|client| client.receive(2));
        world.remotes.iter_mut().for_each(|remote| remote.receive(1));
        world.turn();
        world.remotes.iter_mut().filter(|remote| !remote.ended).for_each(Side::end);
        std::thread::yield_now();
    }
    prop_assert_eq!(world.engine.open(), 0);
    // The queue is looked at once more.
    prop_assert!(world.events.armed() <= usize::from(world.queues));
    prop_assert_eq!(world.engine.remotes_in_use(), 0);
    // If nobody broke, everything has arrived.
    let sides = || world.clients.iter().chain(&world.remotes);
    if sides().all(|side| !side.broken) && world.remotes.len() == world.clients.len() {
        let sent = |sides: &[Side]| sides.iter().map(|side| side.sent).sum::<usize>();
        world.clients.iter_mut().for_each(|client| client.receive(2));
        world.remotes.iter_mut().for_each(|remote| remote.receive(1));
        let received = |sides: &[Side]| sides.iter().map(|side| side.received).sum::<usize>();
        prop_assert_eq!(sent(&world.clients), received(&world.remotes));
        prop_assert_eq!(sent(&world.remotes), received(&world.clients));
        prop_assert!(world.clients.iter().chain(&world.remotes).all(|side| side.saw_end));
    }
    Ok(())
}

/// With as many dead remotes as there may be, the stack does not grow, and the last one is found.
#[test]
fn the_last_of_many_remotes_is_found() {
    let mut world = World::new(4000, 0, 0);
    world.toggle(3999);
    world.connect();
    world.turn();
    assert_eq!((world.engine.open(), world.remotes.len()), (1, 1));
    world.clients[0].end();
    world.remotes[0].end();
    world.turn();
    assert_eq!(world.engine.open(), 0);
}
