//! Private keys out of workers (`tls keys = separate`): who has them, who signs, and what happens
//! when the process with the keys dies, or the configuration is read again.

mod common;

use common::launch::monitor;
use common::memory::all_memory_contains;
use common::pki::{ec_key, rsa_key, Identity};
use common::*;
use nix::sys::signal::Signal;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslConnector, SslMethod, SslStream, SslVerifyMode, SslVersion};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

const SEPARATE: &str = "tls keys = separate\n";

/// One listener with TLS and a number of workers.
fn text(port: u16, workers: usize, section: &str) -> String {
    let layout = relay(format!("{section}\naccess log = yes")).port(port);
    layout.workers(workers).listen("tls = yes").text()
}

fn try_connect(port: u16, version: SslVersion) -> Result<SslStream<TcpStream>, String> {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("a client");
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_max_proto_version(Some(version)).expect("a version");
    let stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    builder.build().connect("localhost", stream).map_err(|error| error.to_string())
}

fn talk(stream: &mut SslStream<TcpStream>) {
    stream.write_all(b"word").expect("to send");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"word");
}

fn serves(port: u16) {
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        talk(&mut try_connect(port, version).expect("a handshake"));
    }
}

/// What must not be found: the secret numbers of a key, in either byte order, and its file.
fn traces(key: &PKey<Private>) -> Vec<Vec<u8>> {
    let mut numbers = Vec::new();
    if let Ok(rsa) = key.rsa() {
        numbers.push(rsa.d().to_vec());
        numbers.extend([rsa.p(), rsa.q()].into_iter().flatten().map(|number| number.to_vec()));
    }
    if let Ok(ec) = key.ec_key() {
        numbers.push(ec.private_key().to_vec());
    }
    let reversed: Vec<_> = numbers.iter().map(|one| one.iter().rev().copied().collect()).collect();
    let pem = key.private_key_to_pem_pkcs8().expect("PEM");
    let body = pem.split(|&byte| byte == b'\n').nth(1).expect("a line").to_vec();
    let der = key.private_key_to_pkcs8().expect("DER");
    let der = der[der.len() - 100..].to_vec();
    numbers.into_iter().chain(reversed).chain([body, der]).collect()
}

fn has_one_of(pid: i32, keys: &[&PKey<Private>]) -> bool {
    let traces: Vec<_> = keys.iter().flat_map(|key| traces(key)).collect();
    all_memory_contains(pid, &traces)
}

#[test]
fn no_worker_ever_has_a_key() {
    if !is_root() {
        return left_out("only root may read the memory of a worker");
    }
    let (peer, files, port) = (Peer::echo(), Directory::new(), free_port());
    let authority = Identity::authority("authority");
    let first = authority.sign(&["localhost"], rsa_key());
    let second = authority.sign(&["other"], ec_key());
    // One key in its own file, the other in the file of the certificate.
    let mut relay = format!("{SEPARATE}{}{}\n", first.directives(files.path(), "a"), peer.remote());
    let both = files.path().join("both.pem");
    let pem = [
        second.certificate.to_pem().expect("PEM"),
        second.key.private_key_to_pem_pkcs8().expect("PEM"),
    ];
    fs::write(&both, pem.concat()).expect("a file");
    relay += &format!("tls cert-file = {}\n", both.display());
    let relay = Launch::new(text(port, 2, &relay)).ready(2).start();
    let keys = [&first.key, &second.key];
    let check = |relay: &Relay| {
        let workers = relay.workers();
        assert!(!workers.is_empty());
        for worker in workers {
            assert!(!has_one_of(worker, &keys), "worker {worker}:\n{}", relay.log());
        }
    };
    check(&relay);
    // Otherwise the search itself would be broken.
    let signer = relay.signer().expect("the process with the keys");
    assert!(keys.iter().all(|key| has_one_of(signer, &[key])));
    for _ in 0..10 {
        serves(port);
    }
    check(&relay);
    for signal in [Signal::SIGHUP, Signal::SIGUSR1] {
        let mut stays = try_connect(port, SslVersion::TLS1_3).expect("a handshake");
        let (former, workers) = (relay.signer(), relay.workers());
        relay.signal(signal);
        wait_for("other workers", || {
            let new = relay.workers().into_iter().filter(|pid| !workers.contains(pid)).count();
            (new >= 2).then_some(())
        });
        serves(port);
        talk(&mut stays);
        check(&relay);
        drop(stays);
        wait_for("the former process with the keys to end", || {
            former.is_some_and(is_gone).then_some(())
        });
    }
    serves(port);
    check(&relay);
}

/// The monitor reads what strangers send, too.
#[test]
fn the_monitor_gets_no_key_of_a_listener() {
    if !is_root() {
        return left_out("only root may read the memory of a monitor");
    }
    let (peer, files, port) = (Peer::echo(), Directory::new(), free_port());
    let own = Identity::own(&["localhost"]);
    let remotes = Identity::own(&["client"]);
    remotes.write(files.path(), "client");
    let file = |name: &str| files.file(name).display().to_string();
    let relay = Launch::new(format!(
        "id = spawnd {{ status = {{ address = 127.0.0.1 port = {} }}\n \
         listen = {{ address = 127.0.0.1 port = {port} tls = yes }}\n \
         spawn {{ instances min = 1 instances max = 1 users max = 100 }} }}\n\
         id = tcprelay {{ {SEPARATE}{}{}\n \
         remote = {{ address = 127.0.0.1 port = {} tls = yes tls verify = no weight = 0 \
         tls cert-file = {} tls key-file = {} }} }}\n",
        free_port(),
        own.directives(files.path(), "own"),
        peer.remote(),
        free_port(),
        file("client.pem"),
        file("client.key"),
    ))
    .start();
    serves(port);
    let monitor = wait_for("the monitor", || monitor(&relay));
    // A probe may have to show a certificate, so the key for remotes is there.
    wait_for("the key for remotes", || has_one_of(monitor, &[&remotes.key]).then_some(()));
    assert!(!has_one_of(monitor, &[&own.key]), "{}", relay.log());
}

#[test]
fn the_process_with_the_keys_is_confined() {
    let (peer, files, port) = (Peer::echo(), Directory::new(), free_port());
    let own = Identity::own(&["localhost"]).directives(files.path(), "own");
    let user = if is_root() { "userid = 65534 groupid = 65534" } else { "" };
    let section = format!("{SEPARATE}{own}{}", peer.remote());
    let relay = relay(section).port(port).listen("tls = yes").spawn(user).start().0;
    serves(port);
    let signer = relay.signer().expect("the process with the keys");
    let status = fs::read_to_string(format!("/proc/{signer}/status")).expect("its status");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("a field");
        line[name.len()..].trim().to_owned()
    };
    if is_root() {
        assert!(field("Uid:").split_whitespace().all(|id| id == "65534"), "{status}");
        assert_eq!(field("CapEff:"), "0000000000000000");
    }
    assert_eq!((&*field("Seccomp:"), &*field("NoNewPrivs:")), ("2", "1"));
    // Besides standard descriptors: the loop, the channel to the broker, a stream to the worker.
    if is_root() {
        let sockets = |path: &Path| {
            fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
        };
        let fds = fs::read_dir(format!("/proc/{signer}/fd")).expect("its descriptors");
        let count = fds.filter(|fd| sockets(&fd.as_ref().expect("one").path())).count();
        assert!(count <= 3, "{count} sockets");
    }
    assert_eq!(title(signer), "tcprelay: private-keys");
}

#[test]
fn when_the_process_with_the_keys_dies_there_is_another_one() {
    let (peer, files, port) = (Peer::echo(), Directory::new(), free_port());
    let own = Identity::own(&["localhost"]).directives(files.path(), "own");
    let relay = format!("{SEPARATE}{own}{}\n", peer.remote());
    let relay = Launch::new(text(port, 1, &relay)).start();
    serves(port);
    let workers = relay.workers();
    for round in 0..3 {
        let signer = wait_for("the process with the keys", || relay.signer());
        if !sockets::can_look(signer) {
            return;
        }
        // Handshakes in which it does not answer. Each asks for as much as the first.
        kill(signer, Signal::SIGSTOP);
        let handshake = || std::thread::spawn(move || try_connect(port, SslVersion::TLS1_3));
        let asked = || sockets::unread_unix(signer);
        let mut waiting = vec![handshake()];
        let one = wait_for("a question", || Some(asked()).filter(|&bytes| bytes > 0));
        waiting.extend((1..5).map(|_| handshake()));
        wait_for("five questions", || (asked() >= 5 * one).then_some(()));
        kill(signer, Signal::SIGKILL);
        // Those that it was asked for fail; none hangs.
        for one in waiting {
            let result = one.join().expect("a client");
            assert!(result.is_err(), "round {round}");
        }
        serves(port);
        assert_eq!(relay.workers(), workers, "no worker has ended");
    }
    let log = relay.log();
    assert!(log.contains("the process with the private keys has ended"), "{log}");
    assert!(log.contains("no more signatures"), "{log}");
}

#[test]
fn a_reload_loses_no_stream_to_a_process_that_starts() {
    let (peer, files, port) = (Peer::echo(), Directory::new(), free_port());
    let own = Identity::own(&["localhost"]).directives(files.path(), "own");
    let relay = format!("{SEPARATE}{own}{}\ntls handshake timeout = 60\n", peer.remote());
    let relay = Launch::new(text(port, 1, &relay)).start();
    serves(port);
    let workers = relay.workers();
    let former = relay.signer().expect("the process with the keys");
    kill(former, Signal::SIGKILL);
    let other = wait_for("another one", || relay.signer().filter(|&pid| pid != former));
    // It has not said that it is confined, so the worker's stream waits in the broker.
    kill(other, Signal::SIGSTOP);
    let waiting = std::thread::spawn(move || try_connect(port, SslVersion::TLS1_3));
    wait_for("the worker to get the connection", || {
        title(workers[0]).contains("connection").then_some(())
    });
    relay.signal(Signal::SIGHUP);
    wait_for("another worker", || {
        relay.workers().into_iter().find(|pid| !workers.contains(pid)).map(drop)
    });
    kill(other, Signal::SIGCONT);
    talk(&mut waiting.join().expect("a client").expect("a handshake"));
    serves(port);
}

#[test]
fn a_handshake_does_not_wait_for_the_signature_of_another() {
    // Established sessions and plain listeners go on while no signature is made at all.
    let (peer, files, port, plain) = (Peer::echo(), Directory::new(), free_port(), free_port());
    let own = Identity::own(&["localhost"]).directives(files.path(), "own");
    let section = format!("{SEPARATE}{own}{}\ntls handshake timeout = 2", peer.remote());
    let second = format!("listen = {{ address = 127.0.0.1 port = {plain} }}");
    let relay = relay(section).port(port).listen("tls = yes").broker(&second).start().0;
    let mut before = try_connect(port, SslVersion::TLS1_3).expect("a handshake");
    talk(&mut before);
    let signer = relay.signer().expect("the process with the keys");
    kill(signer, Signal::SIGSTOP);
    let waiting = std::thread::spawn(move || try_connect(port, SslVersion::TLS1_3));
    for _ in 0..10 {
        talk(&mut before);
        let mut stream = TcpStream::connect(("127.0.0.1", plain)).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(b"word").expect("to send");
        stream.read_exact(&mut [0; 4]).expect("an answer");
    }
    assert!(waiting.join().expect("a client").is_err(), "it must time out");
    relay.wait_for_log("the timeout", |log| log.contains("handshake timeout").then_some(()));
    let worker = relay.workers()[0];
    let ticks = cpu_ticks(worker);
    nothing_happens_for(std::time::Duration::from_millis(500));
    assert!(cpu_ticks(worker) - ticks < 10, "the worker spins");
    kill(signer, Signal::SIGCONT);
    serves(port);
}

#[test]
fn where_keys_are_is_chosen() {
    let (peer, files, port) = (Peer::echo(), Directory::new(), free_port());
    let own = Identity::own(&["localhost"]).directives(files.path(), "own");
    let launch =
        |keys: &str| Launch::new(text(port, 1, &format!("{keys}\n{own}{}\n", peer.remote())));
    let relay = launch("tls keys = worker").start();
    serves(port);
    assert_eq!(relay.signer(), None);
    drop(relay);
    let wrong = launch("tls keys = nowhere").arguments(&["-P", "@CFG@"]).ready(None).finish();
    wrong.exits(78).says("'separate' or 'worker'");
    // A single process is broker and worker at the same time.
    let single = launch("tls keys = separate").argument("-1").start();
    serves(port);
    assert_eq!(single.signer(), None);
}
