//! What was checked is what runs: every file that a configuration names is read once, and later
//! changes to the files have no effect.

mod common;

use common::pki::{ec_key, Identity};
use common::*;
use nix::sys::signal::Signal;
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::ssl::{SslAcceptor, SslConnector, SslMethod, SslVerifyMode, StatusType};
use openssl::x509::extension::AuthorityKeyIdentifier;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{CrlNumber, X509CrlBuilder, X509RevokedBuilder, X509};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Everything that a configuration can name, generated together. No file works with those of
/// another generation.
struct Generation {
    name: &'static str,
    server: Identity,
    client: Identity,
    revoked: Identity,
    ocsp: Vec<u8>,
    folder: Directory,
    _remote: Peer,
}

/// A revocation list, empty or with one certificate.
fn revocations(authority: &Identity, revoked: Option<&Identity>) -> Vec<u8> {
    let mut list = X509CrlBuilder::new().expect("a list");
    list.set_issuer_name(authority.certificate.subject_name()).expect("issuer");
    let day = |days| openssl::asn1::Asn1Time::days_from_now(days).expect("a time");
    list.set_last_update(&day(0)).expect("a time");
    list.set_next_update(&day(30)).expect("a time");
    let builder = X509::builder().expect("a certificate");
    let context = builder.x509v3_context(Some(&authority.certificate), None);
    let issuer = AuthorityKeyIdentifier::new().issuer(true).build(&context).expect("extension");
    list.append_extension(issuer).expect("extension");
    let number = CrlNumber::new(BigNum::from_u32(1).expect("a number")).expect("a number");
    list.append_extension(number.build().expect("extension")).expect("extension");
    if let Some(one) = revoked {
        let mut entry = X509RevokedBuilder::new().expect("an entry");
        entry.set_serial_number(one.certificate.serial_number()).expect("a number");
        entry.set_revocation_date(&day(0)).expect("a time");
        list.add_revoked(entry.build()).expect("an entry");
    }
    list.sign(&authority.key, MessageDigest::sha256()).expect("a signature");
    list.build().expect("a list").to_pem().expect("PEM")
}

/// A TLS server that accepts clients with certificates of `authority`, and sends them its name.
fn greeter(name: &'static str, own: &Identity, authority: &X509) -> Peer {
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).expect("a server");
    acceptor.set_certificate(&own.certificate).expect("a certificate");
    acceptor.set_private_key(&own.key).expect("a key");
    let mut store = X509StoreBuilder::new().expect("a store");
    store.add_cert(authority.clone()).expect("a certificate");
    acceptor.set_verify_cert_store(store.build()).expect("a store");
    acceptor.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    let acceptor = acceptor.build();
    Peer::start(move |stream| {
        if let Ok(mut stream) = acceptor.accept(stream) {
            let _ = stream.write_all(name.as_bytes());
            let _ = stream.read(&mut [0]);
        }
    })
}

impl Generation {
    /// Generates the files, with paths below `live`.
    fn new(name: &'static str, live: &Path, port: u16, broker: &str) -> Generation {
        let folder = Directory::new();
        let pem = |identity: &Identity| identity.certificate.to_pem().expect("PEM");
        let key = |identity: &Identity| identity.key.private_key_to_pem_pkcs8().expect("PEM");
        let write = |name: &str, content: &[u8]| {
            let path = folder.file(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, content).expect("a file");
        };
        let server = Identity::own(&["localhost"]);
        let [clients, more, remotes] = ["clients", "more", "remotes"]
            .map(|role| Identity::authority(&format!("{name} {role}")));
        let client = clients.sign(&["client"], ec_key());
        let revoked = clients.sign(&["revoked"], ec_key());
        let (behind, ours) =
            (remotes.sign(&["127.0.0.1"], ec_key()), remotes.sign(&["ours"], ec_key()));
        let remote = greeter(name, &behind, &remotes.certificate);
        let ocsp = vec![0x30, 3, 0x0a, 1, if name == "one" { 3 } else { 6 }];
        write("tls/own.pem", &pem(&server));
        write("tls/own.key", &key(&server));
        write("tls/own.ocsp", &ocsp);
        write("tls/clients.pem", &pem(&clients));
        write("tls/authorities/more.pem", &pem(&more));
        write("tls/clients.crl", &revocations(&clients, Some(&revoked)));
        write("tls/lists/more.crl", &revocations(&more, None));
        write("tls/remotes.pem", &pem(&remotes));
        write("tls/remotes.crl", &revocations(&remotes, None));
        write("tls/ours.pem", &pem(&ours));
        write("tls/ours.key", &key(&ours));
        let here = live.display();
        write(
            "relay.cfg",
            format!(
                "include = $CONFDIR/top.cfg\nid = spawnd {{\n include = {here}/broker.part\n}}\n\
                 include = {here}/sections/*.cfg\n"
            )
            .as_bytes(),
        );
        write("top.cfg", format!("setenv REMOTE = {}\n", remote.port).as_bytes());
        let listen =
            format!("listen = {{ address = 127.0.0.1 port = {port} tls = yes }}\n{broker}");
        write("broker.part", listen.as_bytes());
        write(
            "sections/worker.cfg",
            format!(
                "id = tcprelay {{\n include = {here}/tls.part\n include = {here}/remote.part\n}}\n"
            )
            .as_bytes(),
        );
        let tls = format!("{here}/tls");
        write(
            "tls.part",
            format!(
                "tls cert-file = {tls}/own.pem tls key-file = {tls}/own.key\n\
                 tls ocsp-file = {tls}/own.ocsp\n\
                 tls ca-file = {tls}/clients.pem tls ca-path = {tls}/authorities\n\
                 tls crl-file = {tls}/clients.crl tls crl-dir = {tls}/lists\n"
            )
            .as_bytes(),
        );
        write(
            "remote.part",
            format!(
                "remote = {{ address = 127.0.0.1 port = \"${{REMOTE}}\" tls = yes\n\
                 tls ca-file = {tls}/remotes.pem tls crl-file = {tls}/remotes.crl\n\
                 tls cert-file = {tls}/ours.pem tls key-file = {tls}/ours.key }}\n"
            )
            .as_bytes(),
        );
        Generation { name, server, client, revoked, ocsp, folder, _remote: remote }
    }

    /// Writes the files to `live`.
    fn install(&self, live: &Path) {
        copy(self.folder.path(), live);
    }

    fn connect(&self, port: u16, identity: &Identity) -> std::io::Result<String> {
        let mut builder = SslConnector::builder(SslMethod::tls_client())?;
        let mut store = X509StoreBuilder::new()?;
        store.add_cert(self.server.certificate.clone())?;
        builder.set_cert_store(store.build());
        builder.set_certificate(&identity.certificate)?;
        builder.set_private_key(&identity.key)?;
        let mut settings = builder.build().configure()?;
        settings.set_status_type(StatusType::OCSP)?;
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut stream = settings
            .connect("localhost", stream)
            .map_err(|error| std::io::Error::other(error.to_string()))?;
        let mut greeting = [0; 3];
        stream.read_exact(&mut greeting)?;
        if stream.ssl().ocsp_status() != Some(&self.ocsp) {
            return Err(std::io::Error::other("another OCSP response"));
        }
        Ok(String::from_utf8_lossy(&greeting).into_owned())
    }

    /// True if this generation, and nothing else, is in use.
    fn serves(&self, port: u16) -> bool {
        let refused = self.connect(port, &self.revoked).is_err();
        refused && self.connect(port, &self.client).is_ok_and(|greeting| greeting == self.name)
    }

    fn expect(&self, port: u16, when: &str) {
        wait_for(&format!("generation {} {when}", self.name), || self.serves(port).then_some(()));
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("a copy")),
        }
    }
}

/// Every file below a directory.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A wrapper around the program. On the first start for which `trigger` is true, it overwrites
/// every file of `live` with nonsense before the program begins.
struct Trap {
    programs: Directory,
}

/// Shell condition: this is a worker, or the worker of a check.
const WORKER: &str = "-S /dev/stdin";
/// Shell condition: this is the next image of the broker.
const IMAGE: &str = "\"${TCPRELAY_HANDOVER#pid}\" != \"$TCPRELAY_HANDOVER\"";

impl Trap {
    fn new(live: &Path) -> Trap {
        let programs = Directory::new();
        let here = programs.path().display();
        let script = format!(
            "#!/bin/bash\nif [ -e {here}/armed ] && eval \"[ $(cat {here}/armed) ]\"; then\n\
             rm {here}/armed\n\
             find {} -type f | while read -r file; do echo '}} nonsense' >\"$file\"; done\nfi\n\
             exec -a \"$0\" {TCPRELAY} \"$@\"\n",
            live.display()
        );
        programs.program("tcprelay", script);
        Trap { programs }
    }

    fn arm(&self, trigger: &str) {
        self.programs.write("armed", trigger);
    }

    fn has_sprung(&self) -> bool {
        !self.programs.file("armed").exists()
    }

    fn start(&self, live: &Path) -> Relay {
        let directory = Directory::new();
        let log = directory.file("log");
        let config = live.join("relay.cfg");
        let child = ours(self.programs.file("tcprelay"))
            .arg("-f")
            .arg(&config)
            .env("TCPRELAY_LOG_STDERR", "1")
            .env("TCPRELAY_TRACEABLE", if is_root() { "" } else { "1" })
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log).expect("the log"))
            .spawn()
            .expect("the program");
        Relay::assemble(directory, config, log, child)
    }
}

const ONE_WORKER: &str = "spawn { instances min = 1 instances max = 1 }";

#[test]
fn what_replaces_the_files_after_the_check_has_no_effect() {
    let (place, port) = (Directory::new(), free_port());
    let live = place.file("live");
    let generation = |name| Generation::new(name, &live, port, ONE_WORKER);
    let (one, two, six) = (generation("one"), generation("two"), generation("six"));
    let trap = Trap::new(&live);
    // At the first start, just before the first worker begins.
    one.install(&live);
    trap.arm(WORKER);
    let relay = trap.start(&live);
    one.expect(port, "after the start");
    assert!(trap.has_sprung());
    // Workers that start later, first with nonsense in all files, then with another configuration
    // there.
    let replace_worker = || {
        // The one of a former image may not have left yet.
        let workers = wait_for("one worker", || Some(relay.workers()).filter(|all| all.len() == 1));
        kill(workers[0], Signal::SIGKILL);
        wait_for("another worker", || {
            relay.workers().into_iter().find(|pid| !workers.contains(pid))
        });
    };
    replace_worker();
    one.expect(port, "in a worker that was started later");
    two.install(&live);
    replace_worker();
    one.expect(port, "in a worker that was started later");
    // The check's worker is the first process to start after the files were read.
    trap.arm(WORKER);
    relay.signal(Signal::SIGHUP);
    two.expect(port, "after a reload");
    assert!(trap.has_sprung());
    replace_worker();
    two.expect(port, "in a worker that was started later");
    // And just before the next image.
    one.install(&live);
    trap.arm(IMAGE);
    relay.signal(Signal::SIGHUP);
    one.expect(port, "in the next image");
    assert!(trap.has_sprung());
    // SIGUSR1 checks as well.
    six.install(&live);
    trap.arm(WORKER);
    relay.signal(Signal::SIGUSR1);
    six.expect(port, "after SIGUSR1");
    assert!(trap.has_sprung());
    replace_worker();
    six.expect(port, "in a worker that was started later");
    let log = relay.log();
    assert!(!log.contains("nonsense") && !log.contains("exit status"), "{log}");
}

#[test]
fn a_single_process_goes_on_with_what_was_checked() {
    let (place, port) = (Directory::new(), free_port());
    let live = place.file("live");
    let generation = |name| Generation::new(name, &live, port, "single process = yes");
    let (one, two) = (generation("one"), generation("two"));
    let trap = Trap::new(&live);
    one.install(&live);
    let relay = trap.start(&live);
    one.expect(port, "after the start");
    two.install(&live);
    trap.arm(IMAGE);
    relay.signal(Signal::SIGHUP);
    two.expect(port, "after a reload");
    assert!(trap.has_sprung());
}

/// Counts how often files are opened (inotify(7)).
struct Openings {
    queue: OwnedFd,
    files: BTreeMap<i32, PathBuf>,
}

impl Openings {
    fn of(folder: &Path) -> Openings {
        // SAFETY: inotify_init1(2) takes a plain number, and returns a descriptor that is ours.
        let queue = unsafe {
            let queue = libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK);
            assert!(queue >= 0);
            OwnedFd::from_raw_fd(queue)
        };
        let mut watched = BTreeMap::new();
        for file in files(folder) {
            let path = std::ffi::CString::new(file.as_os_str().as_bytes()).expect("a path");
            // SAFETY: the path is NUL-terminated.
            let watch =
                unsafe { libc::inotify_add_watch(queue.as_raw_fd(), path.as_ptr(), libc::IN_OPEN) };
            assert!(watch >= 0, "{}", file.display());
            watched.insert(watch, file);
        }
        Openings { queue, files: watched }
    }

    /// How often each file was opened since the last call.
    fn count(&self) -> BTreeMap<PathBuf, usize> {
        let mut counts: BTreeMap<_, _> =
            self.files.values().map(|file| (file.clone(), 0)).collect();
        let mut buffer = [0u8; 65536];
        loop {
            let Ok(length) = nix::unistd::read(&self.queue, &mut buffer) else {
                return counts;
            };
            // Events of watched files, as opposed to directories, carry no name.
            for event in buffer[..length].chunks_exact(size_of::<libc::inotify_event>()) {
                let watch = i32::from_ne_bytes(event[..4].try_into().expect("four bytes"));
                *counts.get_mut(&self.files[&watch]).expect("a file") += 1;
            }
        }
    }

    fn expect_one_each(&self, when: &str) {
        let counts = self.count();
        let wrong: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).collect();
        assert!(wrong.is_empty(), "{when}: {wrong:?}");
    }
}

#[test]
fn each_file_is_read_once() {
    for mode in ["spawn { instances min = 3 instances max = 3 }", "single process = yes"] {
        let (place, port) = (Directory::new(), free_port());
        let live = place.file("live");
        let one = Generation::new("one", &live, port, mode);
        one.install(&live);
        let openings = Openings::of(&live);
        let checked = ours(TCPRELAY).arg("-P").arg(live.join("relay.cfg")).output().expect("-P");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        openings.expect_one_each("-P");
        let trap = Trap::new(&live);
        let relay = trap.start(&live);
        one.expect(port, "after the start");
        let ready = |log: &str| log.matches("is being used").count();
        let wanted = if mode.starts_with("spawn") { 4 } else { 1 };
        relay.wait_for_log("the workers", |log| (ready(log) >= wanted).then_some(()));
        openings.expect_one_each("start");
        relay.signal(Signal::SIGHUP);
        relay.wait_for_log("the workers", |log| (ready(log) >= 2 * wanted).then_some(()));
        one.expect(port, "after a reload");
        openings.expect_one_each("reload");
        if wanted > 1 {
            relay.signal(Signal::SIGUSR1);
            relay.wait_for_log("workers", |log| (ready(log) >= 3 * wanted - 1).then_some(()));
            one.expect(port, "after SIGUSR1");
            openings.expect_one_each("SIGUSR1");
        }
    }
}

#[test]
fn relative_patterns_start_where_workers_are() {
    let peer = Peer::named("one");
    let port = free_port();
    let (place, there) = (Directory::new(), Directory::new());
    there.write("remote.part", peer.remote());
    // A second name for that directory.
    let link = place.file("link");
    std::os::unix::fs::symlink(there.path(), &link).expect("a link");
    let relay = Launch::new(format!(
        "id = spawnd {{ listen = {{ address = 127.0.0.1 port = {port} }}\n\
         spawn {{ instances min = 1 instances max = 1 working directory = {} }} }}\n\
         id = tcprelay {{ include = \"*.part\" }}\n",
        link.display()
    ))
    .start();
    let greeting = || {
        let mut greeting = [0; 3];
        connect(port).read_exact(&mut greeting).map(|()| greeting)
    };
    assert_eq!(&greeting().expect("a greeting"), b"one");
    there.write("remote.part", "nonsense");
    let worker = relay.workers()[0];
    kill(worker, Signal::SIGKILL);
    wait_for("another worker", || relay.workers().into_iter().find(|&pid| pid != worker));
    assert_eq!(&greeting().expect("a greeting"), b"one");
}

/// Our own workers run what was checked, whatever somebody puts into shared memory.
#[test]
fn sigusr1_counts_with_a_key_of_shared_memory() {
    let (one, two) = (Peer::named("one"), Peer::named("two"));
    let port = free_port();
    let key = 0x7d00_0000 + std::process::id();
    let text = |peer: &Peer| {
        format!(
            "id = spawnd {{ listen = {{ address = 127.0.0.1 port = {port} }}\n\
             spawn {{ instances min = 1 instances max = 1 ipc key = {key} }} }}\n\
             id = tcprelay {{ {} }}\n",
            peer.remote()
        )
    };
    let mut relay = Launch::new(text(&one)).start();
    let greeting = || {
        let mut greeting = [0; 3];
        connect(port).read_exact(&mut greeting).map(|()| greeting)
    };
    assert_eq!(&greeting().expect("a greeting"), b"one");
    fs::write(&relay.config, text(&two)).expect("to write");
    relay.signal(Signal::SIGUSR1);
    wait_for("the other remote", || (&greeting().ok()? == b"two").then_some(()));
    relay.signal(Signal::SIGTERM);
    relay.wait();
}
