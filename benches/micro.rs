//! Microbenchmarks of a relay's parts: balancing, timers, reading a configuration, moving bytes
//! through a session, and TLS records.

use criterion::{BenchmarkId, Criterion, Throughput};
use mavis::channel::local::Prepared;
use mavis::channel::protocol::Accept;
use mavis::config::relay::{self, Relay, Remote};
use mavis::config::rules::Rules;
use mavis::config::source::Source;
use mavis::config::system::Nowhere;
use mavis::config::{self, Parser};
use mavis::event::{Choice, Loop, TimerId, Token};
use mavis::os::address::Address;
use mavis::os::Socket;
use mavis::snapshot::material::Material;
use mavis::tls::context::{Contexts, Ends};
use mavis::tls::records::{self, Records, Secrets, Suite, Version};
use mavis::tls::tickets::Ratchet;
use mavis::tls::Buffer;
use mavis::upstream::balance::{Balancer, Tried};
use mavis::worker::engine::Engine;
use std::hint::black_box;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    balance(&mut criterion);
    timers(&mut criterion);
    configuration(&mut criterion);
    sessions(&mut criterion);
    records(&mut criterion);
    criterion.final_summary();
}

/// Selects a remote and releases it, while each remote has one other session.
fn balance(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("balance");
    for remotes in [1, 10, 100, 1000] {
        let mut balancer = Balancer::new(&vec![1; remotes], 0, 10_000);
        let select = |balancer: &mut Balancer| {
            balancer.select(None, &mut Tried::default(), 0).expect("a live remote")
        };
        for _ in 0..remotes {
            select(&mut balancer);
        }
        group.bench_function(BenchmarkId::new("select, release", remotes), |bencher| {
            bencher.iter(|| {
                let index = select(&mut balancer);
                balancer.released(black_box(index));
            });
        });
    }
    group.finish();
}

/// Pseudo-random numbers, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

/// Sets one timer among others that are due within an hour.
fn timers(criterion: &mut Criterion) {
    const HOUR: u64 = 3_600_000;
    let mut group = criterion.benchmark_group("timers");
    for armed in [100_u32, 1000, 10_000, 100_000] {
        let mut numbers = Numbers(1);
        let mut events = Loop::new(&Choice::from_setting(None)).expect("a loop");
        let others: Vec<TimerId> =
            (0..armed).map(|n| events.arm(Token::new(0, n), numbers.below(HOUR))).collect();
        group.bench_function(BenchmarkId::new("arm, cancel", armed), |bencher| {
            bencher.iter(|| {
                let timer = events.arm(Token::new(1, 0), numbers.below(HOUR));
                events.cancel(black_box(timer));
            });
        });
        // A byte in a session with an idle timeout moves its deadline to the end.
        let mut latest = HOUR;
        group.bench_function(BenchmarkId::new("renew", armed), |bencher| {
            bencher.iter(|| {
                latest += 1;
                let timer = others[numbers.below(armed.into()) as usize];
                events.renew(black_box(timer), latest);
            });
        });
    }
    group.finish();
}

/// A section with a thousand remotes: lexing alone, and parsing it completely.
fn configuration(criterion: &mut Criterion) {
    let mut text = String::from("id = tcprelay {\n");
    for n in 0..1000 {
        let (high, low) = (n / 250, n % 250);
        text += &format!(
            "    # The {n}th.\n    remote = {{ address = 192.0.{high}.{low} port = 80 weight = 2 }}\n"
        );
    }
    text += "    idle timeout = 3600\n}\n";
    let system = || Rc::new(Nowhere);
    let source = || Source::new("bench.cfg", text.clone().into_bytes());

    let mut group = criterion.benchmark_group("configuration");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("words", |bencher| {
        bencher.iter(|| {
            let mut parser = Parser::new(source(), Rules::default(), system());
            parser.start().expect("a word");
            let mut words = 0;
            while !parser.text().is_empty() {
                parser.advance().expect("a word");
                words += 1;
            }
            words
        });
    });
    group.bench_function("section", |bencher| {
        bencher.iter(|| {
            config::read(source(), "tcprelay", Rules::default(), system(), |parser| {
                relay::parse(parser, &mut |_| Ok(false))
            })
            .result
            .expect("a section")
        });
    });
    group.finish();
}

/// A worker's engine with its event loop, in this process, which also plays the remote. So whatever
/// is measured includes the system calls of both.
struct Worker {
    events: Loop,
    engine: Engine,
    remote: UnixListener,
    path: PathBuf,
}

impl Worker {
    fn new() -> Worker {
        let path = std::env::temp_dir().join(format!("tcprelay-bench-{}", std::process::id()));
        let remote = UnixListener::bind(&path).expect("a listener");
        let settings =
            Relay { remotes: vec![Remote::new(Address::Unix(path.clone()))], ..Relay::default() };
        let tickets = Ratchet::random(0, 3600).expect("random bytes");
        let tls = Contexts::load(&settings, &Material::default(), tickets, Ends::Remotes)
            .expect("nothing to load");
        Worker {
            events: Loop::new(&Choice::from_setting(None)).expect("a loop"),
            engine: Engine::new(settings, tls, None),
            remote,
            path,
        }
    }

    /// Runs one turn of the loop.
    fn turn(&mut self) {
        self.events.wait(Some(0)).expect("a turn");
        while let Some(event) = self.events.next_event() {
            self.engine.event(&mut self.events, event);
        }
        while let Some((timer, token)) = self.events.next_expired() {
            self.engine.timer(&mut self.events, timer, token);
        }
        self.engine.turn(&mut self.events);
    }

    /// Opens a session; returns its two ends.
    fn open(&mut self) -> (UnixStream, UnixStream) {
        let (client, accepted) = UnixStream::pair().expect("a pair");
        self.engine.accept(
            &mut self.events,
            Socket::from(OwnedFd::from(accepted)),
            &Accept::default(),
            Prepared::No,
        );
        let (remote, _) = self.remote.accept().expect("a connection");
        remote.set_nonblocking(true).expect("a setting");
        client.set_nonblocking(true).expect("a setting");
        (client, remote)
    }

    /// Sends a buffer from one end to the other.
    fn relay(&mut self, mut from: &UnixStream, mut to: &UnixStream, buffer: &mut [u8]) {
        let (mut sent, mut received) = (0, 0);
        while received < buffer.len() {
            sent += progress(from.write(&buffer[sent..]));
            self.turn();
            received += progress(to.read(&mut buffer[received..]));
        }
    }
}

/// How many bytes were moved; 0 if the call would block.
fn progress(result: std::io::Result<usize>) -> usize {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        result => result.expect("a connection"),
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    std::fs::remove_file(path).expect("our socket");
}

/// A whole session from begin to end, and messages back and forth in an open one.
fn sessions(criterion: &mut Criterion) {
    let mut worker = Worker::new();
    let mut group = criterion.benchmark_group("session");
    group.bench_function("open, close", |bencher| {
        bencher.iter(|| {
            drop(worker.open());
            while worker.engine.open() > 0 {
                worker.turn();
            }
        });
    });
    let (client, remote) = worker.open();
    for size in [1024, 64 * 1024] {
        let mut buffer = vec![0; size];
        group.throughput(Throughput::Bytes(2 * size as u64));
        group.bench_function(BenchmarkId::new("there and back", size), |bencher| {
            bencher.iter(|| {
                worker.relay(&client, &remote, &mut buffer);
                worker.relay(&remote, &client, &mut buffer);
            });
        });
    }
    group.finish();
}

/// Seals and opens TLS 1.3 records.
fn records(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("records");
    for (name, number, length) in [
        ("AES-128-GCM", [0x13, 1], 32),
        ("AES-256-GCM", [0x13, 2], 48),
        ("ChaCha20", [0x13, 3], 32),
    ] {
        let suite = Suite::of(Version::Tls13, number).expect("a suite of ours");
        let (ours, theirs) = (vec![1; length], vec![2; length]);
        let side = |server: bool| {
            let (ours, theirs) = if server { (&ours, &theirs) } else { (&theirs, &ours) };
            let secrets = Secrets::Traffic { ours: ours[..].into(), theirs: theirs[..].into() };
            Records::new(suite, &secrets, records::Numbers { sent: 0, received: 0 }).expect("keys")
        };
        let (mut server, mut client) = (side(true), side(false));
        let (mut wire, mut plain, mut reply) =
            (Buffer::default(), Buffer::default(), Buffer::default());
        for size in [1024, 16 * 1024] {
            let data = vec![0; size];
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(
                BenchmarkId::new(format!("{name}, seal and open"), size),
                |bencher| {
                    bencher.iter(|| {
                        wire.clear();
                        plain.clear();
                        reply.clear();
                        server.seal(&data, &mut wire).expect("to seal");
                        client.open(wire.filled(), &mut plain, &mut reply).expect("to open");
                        black_box(plain.filled().len())
                    });
                },
            );
        }
    }
    group.finish();
}
