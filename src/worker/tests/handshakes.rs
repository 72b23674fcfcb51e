//! Handshakes have a share of each turn of the loop, and no more, however many there are.

use super::super::turns::MOST;
use super::{Side, World};
use crate::channel::local::Prepared;
use crate::channel::protocol::Accept;
use crate::config::relay::Relay;
use crate::config::tls::{Certificate, RemoteTls, Tls};
use crate::os::Socket;
use crate::tls::context::{Contexts, Ends};
use crate::tls::tickets::Ratchet;
use crate::worker::engine::Engine;
use openssl::ssl::{SslConnector, SslMethod};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

// The tests of TLS have it as well.
#[allow(clippy::duplicate_mod, dead_code, missing_docs)]
#[path = "../../../tests/common/pki.rs"]
mod pki;

/// More than one turn takes.
const CROWD: usize = 50;
/// A fatal alert: handshake_failure.
const ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 40];

/// Collects what is written to it.
struct Collector(Vec<u8>);

impl Read for Collector {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Write for Collector {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn client_hello() -> Vec<u8> {
    let client = SslConnector::builder(SslMethod::tls_client()).expect("a client").build();
    match client.connect("localhost", Collector(Vec::new())) {
        Err(openssl::ssl::HandshakeError::WouldBlock(stream)) => stream.get_ref().0.clone(),
        _ => panic!("a handshake without the other side"),
    }
}

/// A world whose listeners and remotes may have TLS.
fn world(change: impl Fn(&mut Relay)) -> World {
    let mut world = World::new(1, 0, 0);
    world.toggle(0);
    let own = pki::Identity::own(&["localhost"]);
    let files = [
        ("own.pem", own.certificate.to_pem().expect("PEM")),
        ("own.key", own.key.private_key_to_pem_pkcs8().expect("PEM")),
    ];
    let mut data = Ratchet::new([0; 32], 0, 1).encode().to_vec();
    for field in files.iter().flat_map(|(name, content)| [name.as_bytes(), content]) {
        data.extend((field.len() as u32).to_be_bytes());
        data.extend_from_slice(field);
    }
    let (material, _) = Ratchet::decode_with(&data).expect("files");
    let certificate = Certificate {
        chain: Some("own.pem".into()),
        key: Some("own.key".into()),
        ..Certificate::default()
    };
    let remotes = vec![super::remote(&world.folder, 0)];
    let tls = Tls { certificates: vec![certificate], ..Tls::default() };
    let mut settings = Relay { remotes, tls, ..Relay::default() };
    // Nothing here is about timeouts, and a crowd takes long on a slow machine.
    (settings.tls.handshake_timeout, settings.connect_timeout) = (3600, 3600);
    change(&mut settings);
    let tickets = Ratchet::new([0; 32], 0, 3600);
    let contexts = Contexts::load(&settings, &material, tickets, Ends::Both).expect("contexts");
    world.engine = Engine::new(settings, contexts, None);
    world
}

/// A client of a TLS listener, that has sent this.
fn come(world: &mut World, sent: &[u8]) {
    let (mut ours, theirs) = UnixStream::pair().expect("a pair");
    theirs.set_nonblocking(true).expect("not to block");
    ours.write_all(sent).expect("to send");
    world.begun += 1;
    world.clients.push(Side::new(ours));
    let accept = Accept { tls_versions: 3 | 4 << 8, ..Accept::default() };
    world.engine.accept(&mut world.events, Socket::from(theirs), &accept, Prepared::Yes);
}

/// Reads what has arrived; returns at how many of the sides something has, so far.
fn answered(sides: &mut [Side]) -> usize {
    for side in sides.iter_mut() {
        let mut data = [0; 16384];
        let socket = side.socket.as_mut().expect("a socket");
        side.received += socket.read(&mut data).unwrap_or(0);
    }
    sides.iter().filter(|side| side.received > 0).count()
}

#[test]
fn a_crowd_of_clients_delays_nothing_by_more_than_a_few_steps() {
    let mut world = world(|_| ());
    // A session without TLS.
    world.connect();
    world.turn();
    assert_eq!(world.remotes.len(), 1);
    let hello = client_hello();
    (0..CROWD).for_each(|_| come(&mut world, &hello));
    let mut seen = 0;
    for turn in 1.. {
        world.clients[0].send(1, 1);
        world.turn_once();
        // What the session has sent before this turn has arrived with it.
        answered(&mut world.remotes);
        assert_eq!(world.remotes[0].received, turn);
        let now = answered(&mut world.clients);
        assert!((1..=MOST).contains(&(now - seen)), "turn {turn}: {seen} {now}");
        seen = now;
        if seen == CROWD {
            break;
        }
        assert!(world.events.armed() > 0, "the next wait ends at once");
    }
    // All have gone on as soon as they could, and wait for their clients now.
    world.turn_once();
    assert_eq!(world.events.armed(), CROWD, "handshake timers");
    // They leave; half of them with something to say.
    for client in world.clients.iter_mut().skip(1) {
        if client.sent == 0 {
            client.socket.as_mut().expect("a socket").write_all(&ALERT).expect("to send");
        }
        client.close();
    }
    for _ in 0..CROWD {
        world.turn_once();
    }
    assert_eq!((world.engine.open(), world.ended), (1, CROWD));
}

#[test]
fn who_leaves_while_waiting_takes_no_turn() {
    let mut world = world(|settings| settings.tls.handshake_timeout = 0);
    let hello = client_hello();
    (0..CROWD).for_each(|_| come(&mut world, &hello));
    world.turn_once();
    let before = answered(&mut world.clients);
    assert!((1..=MOST).contains(&before));
    // Timers and events of other kinds may end sessions that wait.
    world.engine.drain(&mut world.events);
    assert_eq!(world.engine.open(), CROWD);
    for client in world.clients.drain(..) {
        drop(client);
    }
    for _ in 0..CROWD {
        world.turn_once();
    }
    assert_eq!((world.engine.open(), world.ended), (0, CROWD));
    assert_eq!(world.events.armed(), 0);
}

#[test]
fn handshakes_with_remotes_share_the_turns() {
    let mut world = world(|settings| {
        settings.remotes[0].tls = Some(Rc::new(RemoteTls::unverified()));
    });
    (0..CROWD).for_each(|_| world.connect());
    while world.remotes.len() < CROWD || answered(&mut world.remotes) < CROWD {
        world.turn_once();
    }
    for remote in &mut world.remotes {
        remote.socket.as_mut().expect("a socket").write_all(&ALERT).expect("to send");
    }
    while world.engine.open() > 0 {
        let before = world.ended;
        world.turn_once();
        assert!((0..=MOST).contains(&(world.ended - before)));
    }
    assert_eq!(world.ended, CROWD);
}
