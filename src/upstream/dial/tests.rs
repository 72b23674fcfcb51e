//! Connect attempts with real sockets, and with a clock of the test's own.

use super::super::remote::remote;
use super::*;
use crate::config::relay::ProxyVersion;
use crate::config::tls::{RecordLayer, RemoteTls};
use crate::os::address::Address;
use crate::os::descriptor;
use crate::snapshot::material::Material;
use crate::tls::client::Connector;
use crate::tls::Buffer;
use proptest::prelude::*;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Remotes, and what is needed to dial them.
struct World {
    registry: Registry,
    settings: Relay,
    now: u64,
    input: Vec<u8>,
    output: Buffer,
}

impl World {
    fn new(remote: Remote) -> (World, Dial) {
        let mut settings = Relay { connect_timeout: 5, ..Relay::default() };
        settings.tls.handshake_timeout = 3;
        let mut registry = Registry::new(&settings, Vec::new());
        let dial = Dial::new(registry.add(remote).expect("room"));
        (
            World {
                registry,
                settings,
                now: 1000,
                input: vec![0; 4096],
                output: Buffer::default(),
            },
            dial,
        )
    }

    fn step(&mut self, dial: &mut Dial, cause: Cause) -> Progress {
        let scratch = Scratch { input: &mut self.input, output: &mut self.output };
        let (registry, settings, now) = (&self.registry, &self.settings, self.now);
        let (announce, client) = (&Header::local, &|| None);
        let mut dialer = Dialer { registry, settings, now, scratch, announce, client };
        let progress = dial.step(cause, &mut dialer);
        check(dial, &progress, cause, now);
        progress
    }

    /// Steps whenever the socket is ready, until the attempt has ended.
    fn follow(&mut self, dial: &mut Dial, cause: Cause) -> Progress {
        let until = Instant::now() + Duration::from_secs(30);
        let mut progress = self.step(dial, cause);
        while matches!(progress, Progress::Waiting) {
            assert!(Instant::now() < until, "nothing comes of {dial:?}");
            std::thread::sleep(Duration::from_millis(1));
            if is_ready(dial) {
                progress = self.step(dial, Cause::Ready);
            }
        }
        progress
    }

    /// Steps whenever it is time, until the attempt has failed; returns when, and why.
    fn expire(&mut self, dial: &mut Dial) -> (u64, String) {
        loop {
            self.now = dial.due().expect("a deadline");
            if let Progress::Failed(Failure::Remote(_, text)) = self.step(dial, Cause::Time) {
                return (self.now, text);
            }
        }
    }
}

/// Checks what must hold after each step.
fn check(dial: &Dial, progress: &Progress, cause: Cause, now: u64) {
    let watched = !dial.interest().is_empty();
    assert_eq!(dial.socket().is_some(), watched, "{dial:?}");
    match progress {
        // Something will happen, but not at once if a timer has just expired.
        Progress::Waiting => {
            assert!(watched || dial.due().is_some(), "{dial:?}");
            let later = dial.due().is_none_or(|due| due > now);
            assert!(cause != Cause::Time || later, "{dial:?} at {now}");
        }
        Progress::Ready(_) => assert!(!watched && dial.due().is_none()),
        Progress::Signing(_) | Progress::Failed(_) => {}
    }
}

fn is_ready(dial: &Dial) -> bool {
    let Some(socket) = dial.socket() else {
        return false;
    };
    let (state, interest) = (descriptor::poll_state(socket.as_raw_fd()), dial.interest());
    state.readable && interest.contains(Interest::READ)
        || state.writable && interest.contains(Interest::WRITE)
        || state.error
        || state.hangup
}

fn reason(progress: Progress) -> String {
    match progress {
        Progress::Failed(Failure::Remote(_, text)) => text,
        other => panic!("{other:?}"),
    }
}

/// The path of a UNIX socket.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("tcprelay-dial-{}-{}", std::process::id(), NUMBER.fetch_add(1, SeqCst));
        Place(std::env::temp_dir().join(name))
    }

    fn remote(&self) -> Remote {
        remote(&self.0.display().to_string(), None)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn connector() -> Rc<Connector> {
    let settings = RemoteTls::unverified();
    Rc::new(
        Connector::new(&settings, RecordLayer::Auto, &Material::default()).expect("a connector"),
    )
}

fn listener() -> (TcpListener, Remote) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("its address").to_string();
    (listener, remote(&address, None))
}

#[test]
fn a_remote_that_answers_is_reached() {
    let (listener, remote) = listener();
    let (mut world, mut dial) = World::new(remote);
    let Progress::Ready(connection) = world.follow(&mut dial, Cause::Start) else {
        panic!("{dial:?}");
    };
    assert!(connection.stream.is_none() && connection.unsent.is_empty());
    let mut theirs = listener.accept().expect("a connection").0;
    theirs.write_all(b"hello").expect("to write");
    let mut ours = TcpStream::from(OwnedFd::from(connection.socket));
    ours.set_nonblocking(false).expect("to block");
    let mut received = [0; 5];
    ours.read_exact(&mut received).expect("what was sent");
    assert_eq!(&received, b"hello");
}

#[test]
fn a_remote_that_refuses_has_failed() {
    let (listener, remote) = listener();
    drop(listener);
    let (mut world, mut dial) = World::new(remote);
    assert_eq!(reason(world.follow(&mut dial, Cause::Start)), "Connection refused");
}

// On other systems a full backlog refuses.
#[cfg(target_os = "linux")]
#[test]
fn a_busy_one_is_tried_until_the_deadline() {
    let place = Place::new();
    let listener = UnixListener::bind(&place.0).expect("a listener");
    os::Listener::from(listener.try_clone().expect("a copy")).listen(0).expect("a short backlog");
    let _first = UnixStream::connect(&place.0).expect("a connection");
    let (mut world, mut dial) = World::new(place.remote());
    assert!(matches!(world.step(&mut dial, Cause::Start), Progress::Waiting));
    assert!(dial.socket().is_none() && dial.due() == Some(1000 + BUSY_STEP));
    let (when, _) = world.expire(&mut dial);
    assert!((6000..6000 + BUSY_STEP).contains(&when), "{when}");

    // It is reached as soon as there is room.
    let mut dial = Dial::new(dial.remote());
    assert!(matches!(world.step(&mut dial, Cause::Start), Progress::Waiting));
    listener.accept().expect("the first one");
    world.now += BUSY_STEP;
    assert!(matches!(world.step(&mut dial, Cause::Time), Progress::Ready(_)));
}

// On other systems a full backlog refuses.
#[cfg(target_os = "linux")]
#[test]
fn connecting_has_a_deadline() {
    // Nobody accepts, and the system drops connections that do not fit.
    let (listener, remote) = listener();
    let fd = os::Listener::from(listener.try_clone().expect("a copy"));
    fd.listen(0).expect("a short backlog");
    let (mut world, first) = World::new(remote);
    let mut dials: Vec<Dial> = (0..8).map(|_| Dial::new(first.remote())).collect();
    for dial in &mut dials {
        let _ = world.step(dial, Cause::Start);
    }
    std::thread::sleep(Duration::from_millis(50));
    let mut waiting =
        dials.into_iter().find(|dial| dial.socket().is_some() && !is_ready(dial)).expect("one");
    assert_eq!(waiting.due(), Some(6000));
    assert_eq!(world.expire(&mut waiting), (6000, "Connection timed out".to_owned()));
    // Without a timeout the system decides.
    world.settings.connect_timeout = 0;
    let mut dial = Dial::new(first.remote());
    let _ = world.step(&mut dial, Cause::Start);
    assert_eq!(dial.due(), None);
}

#[test]
fn a_connection_that_was_made_in_time_is_used_though_nobody_said_so() {
    let (listener, remote) = listener();
    let (mut world, mut dial) = World::new(remote);
    let mut progress = world.step(&mut dial, Cause::Start);
    listener.accept().expect("a connection");
    if matches!(progress, Progress::Waiting) {
        world.now = 60_000;
        progress = world.step(&mut dial, Cause::Time);
    }
    assert!(matches!(progress, Progress::Ready(_)), "{progress:?}");
}

#[test]
fn a_handshake_has_a_deadline_of_its_own() {
    let (listener, mut remote) = listener();
    remote.connector = Some(connector());
    let (mut world, mut dial) = World::new(remote);
    if let Progress::Ready(_) = world.step(&mut dial, Cause::Start) {
        panic!("without a handshake");
    }
    let mut theirs = listener.accept().expect("a connection").0;
    world.now = 5000;
    while !matches!(dial.state, State::Handshaking(..)) {
        if is_ready(&dial) {
            assert!(matches!(world.step(&mut dial, Cause::Ready), Progress::Waiting));
        }
    }
    let mut hello = [0; 3];
    theirs.read_exact(&mut hello).expect("its first words");
    assert_eq!(hello, [22, 3, 1]);
    assert_eq!(dial.due(), Some(8000));
    assert_eq!(world.expire(&mut dial), (8000, "TLS: handshake timeout".to_owned()));
}

#[test]
fn a_remote_that_leaves_its_handshake_has_failed() {
    for answer in [&b""[..], b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
        let (listener, mut remote) = listener();
        remote.connector = Some(connector());
        let (mut world, mut dial) = World::new(remote);
        let mut progress = world.step(&mut dial, Cause::Start);
        let (mut theirs, _) = listener.accept().expect("a connection");
        theirs.write_all(answer).expect("to write");
        theirs.shutdown(std::net::Shutdown::Write).expect("to end");
        if matches!(progress, Progress::Waiting) {
            progress = world.follow(&mut dial, Cause::Ready);
        }
        let text = reason(progress);
        assert!(text.starts_with("TLS: "), "{text}");
        assert_eq!(answer.is_empty(), text == "TLS: the connection has ended", "{text}");
    }
}

#[test]
fn a_local_address_that_is_not_there_is_this_hosts_fault() {
    let (_listener, remote) = listener();
    let (mut world, mut dial) = World::new(remote);
    let address = Address::parse("192.0.2.1").expect("an address");
    world.settings.local = LocalAddress::Own(vec![address]);
    let progress = world.step(&mut dial, Cause::Start);
    assert!(matches!(progress, Progress::Failed(Failure::Host("bind", _))), "{progress:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever its owner tells it and when, and whatever the remote does, an attempt says what it
    /// waits for, and ends in time.
    #[test]
    fn every_attempt_ends(
        listens in any::<bool>(),
        with_tls in any::<bool>(),
        backlog in any::<bool>(),
        steps in prop::collection::vec((0u8..5, 0u64..400), 0..60),
    ) {
        let place = Place::new();
        let listener = listens.then(|| UnixListener::bind(&place.0).expect("a listener"));
        let mut full = Vec::new();
        if let Some(listener) = listener.as_ref().filter(|_| backlog) {
            os::Listener::from(listener.try_clone().expect("a copy")).listen(0).expect("to listen");
            full.push(UnixStream::connect(&place.0).expect("a connection"));
        }
        let mut remote = place.remote();
        remote.connector = with_tls.then(connector);
        let (mut world, mut dial) = World::new(remote);
        let mut accepted = Vec::new();
        let mut progress = world.step(&mut dial, Cause::Start);
        for (step, value) in steps {
            if !matches!(progress, Progress::Waiting) {
                break;
            }
            match step {
                0 => world.now += value,
                1 => progress = world.step(&mut dial, Cause::Ready),
                2 if dial.due().is_some_and(|due| due <= world.now) => {
                    progress = world.step(&mut dial, Cause::Time);
                }
                3 => accepted.extend(listener.as_ref().filter(|_| !full.is_empty()).map(|one| {
                    full.pop();
                    one.accept().expect("the one that fills it").0
                })),
                // A start where there is nothing to start.
                4 if dial.socket().is_some() => progress = world.step(&mut dial, Cause::Start),
                _ => {}
            }
        }
        let end = world.now + 5000 + 3000 + BUSY_STEP;
        while matches!(progress, Progress::Waiting) {
            world.now = world.now.max(dial.due().expect("a deadline"));
            prop_assert!(world.now <= end);
            progress = world.step(&mut dial, Cause::Time);
        }
        prop_assert!(listens || !matches!(progress, Progress::Ready(_)));
        // None of these remotes sends anything, so no handshake is done.
        prop_assert!(!with_tls || !matches!(progress, Progress::Ready(_)));
    }
}

#[test]
fn a_remote_is_told_before_all_else_that_nobody_is_behind_a_probe() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address").to_string();
    let mut remote = remote(&address, None);
    remote.settings.proxy = Some(ProxyVersion::V2);
    let (mut world, mut dial) = World::new(remote);
    let Progress::Ready(mut connection) = world.follow(&mut dial, Cause::Start) else {
        panic!("not reached");
    };
    assert!(!connection.unsent.is_empty());
    connection.unsent.flush(&connection.socket).expect("room");
    assert!(connection.unsent.is_empty());
    let expected = write(ProxyVersion::V2, &Header::local());
    let mut found = vec![0; expected.len()];
    listener.accept().expect("a connection").0.read_exact(&mut found).expect("the header");
    assert_eq!(found, expected);
}
