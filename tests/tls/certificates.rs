//! Certificates and keys: replaced, broken, chosen by name, shown by clients.

use super::*;

#[test]
fn certificates_are_replaced_under_load_without_a_failure() {
    let peer = Peer::echo();
    let authority = Identity::authority("authority of the tests");
    let files = Directory::new();
    let first = authority.sign(&["localhost"], pki::ec_key());
    let directives = first.directives(files.path(), "own");
    let port = free_port();
    let config = format!(
        "id = spawnd {{ listen = {{ address = 127.0.0.1 port = {port} tls = yes backlog = 4096 }} \
         spawn {{ instances min = 2 users max = 4000 }} }}\n\
         id = tcprelay {{ {}\n{directives} }}\n",
        peer.remote(),
    );
    let relay = Launch::new(config).ready(2).start();
    let client = Arc::new(connector(&authority.certificate).build());
    let mut lasting = handshake(&client, port).expect("a handshake");
    exchange(&mut lasting, b"hello");

    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let failures = Arc::new(Mutex::new(Vec::new()));
    let start = Instant::now();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (client, stop, done) = (client.clone(), stop.clone(), done.clone());
            let failures = failures.clone();
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let result = handshake(&client, port).and_then(|mut stream| {
                        stream.write_all(b"ping")?;
                        let mut answer = [0; 4];
                        stream.read_exact(&mut answer)
                    });
                    match result {
                        Ok(()) => drop(done.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => failures.lock().unwrap().push(error.to_string()),
                    }
                }
            })
        })
        .collect();
    let mut expected = Vec::new();
    for reload in 1..=5 {
        let next = authority.sign(&["localhost"], pki::ec_key());
        expected = next.certificate.to_der().expect("DER");
        next.write(files.path(), "own");
        relay.signal(Signal::SIGHUP);
        relay.wait_for_log("the restart", |log| {
            (log.matches("SIGHUP: restarting").count() >= reload).then_some(())
        });
        let before = done.load(Ordering::Relaxed);
        wait_for("handshakes", || (done.load(Ordering::Relaxed) >= before + 60).then_some(()));
    }
    wait_for("the new certificate", || {
        let stream = handshake(&client, port).expect("a handshake");
        let shown = stream.ssl().peer_certificate()?.to_der().ok()?;
        (shown == expected).then_some(())
    });
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("a client");
    }
    let rate = done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
    eprintln!("{rate:.0} handshakes a second");
    let failures = failures.lock().unwrap();
    assert!(failures.is_empty(), "{} failures, as {}", failures.len(), failures[0]);
    exchange(&mut lasting, b"still there");
}

#[test]
fn a_broken_new_file_keeps_the_old_one_in_service() {
    let peer = Peer::echo();
    let service = Service::simple(&peer.remote());
    let client = service.client();
    let mut lasting = handshake(&client, service.port).expect("a handshake");
    let key = service.files.file("own.key");
    let good = fs::read(&key).expect("the key");
    fs::write(&key, pki::ec_key().private_key_to_pem_pkcs8().expect("PEM")).expect("to write");
    service.relay.signal(Signal::SIGHUP);
    service.relay.expect_log("SIGHUP: the configuration is refused, the running one stays");
    let log = service.relay.log();
    let line = log.lines().find(|line| line.contains("SIGHUP: SSL_CTX_use_PrivateKey_file"));
    assert!(
        line.is_some_and(|line| line.contains("own.key") && line.contains("mismatch")),
        "{log}"
    );
    // Neither new sessions nor new workers need the files any more.
    exchange(&mut lasting, b"old");
    exchange(&mut handshake(&client, service.port).expect("a handshake"), b"new");
    let worker = service.relay.workers()[0];
    kill(worker, Signal::SIGKILL);
    wait_for("another worker", || {
        let mut stream = handshake(&client, service.port).ok()?;
        stream.write_all(b"x").ok()?;
        stream.read_exact(&mut [0]).ok()
    });
    fs::write(&key, good).expect("to write");
    service.reload();
    wait_for("the next image", || handshake(&client, service.port).ok());
}

#[test]
fn keys_of_root_serve_workers_of_nobody_and_do_not_show() {
    if !is_root() {
        return left_out("only root can start workers as somebody else");
    }
    let peer = Peer::echo();
    let spawn = "instances min = 1 instances max = 1 users max = 100 userid = nobody";
    let files = Directory::new();
    fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let identity = Identity::own(&["localhost"]);
    let directives = identity.directives(files.path(), "own");
    let key = files.file("own.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("chmod");
    let port = free_port();
    let text = format!(
        "id = spawnd {{ listen = {{ address = 127.0.0.1 port = {port} tls = yes }} \
         spawn {{ {spawn} }} }}\nid = tcprelay {{ {}\n{directives} }}\n",
        peer.remote()
    );
    let relay = Launch::new(text).start();
    fs::set_permissions(relay.directory.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let client = connector(&identity.certificate).build();
    exchange(&mut handshake(&client, port).expect("a handshake"), b"hello");
    let secret = identity.key.ec_key().expect("an EC key").private_key().to_vec();
    let mut little_endian = secret.clone();
    little_endian.reverse();
    let pem = fs::read_to_string(&key).expect("the key");
    let line = pem.lines().nth(1).expect("a line of base64");
    for pid in [relay.pid(), relay.workers()[0]] {
        assert!(memory_contains(pid, b"127.0.0.1"), "the search finds what is there");
        assert!(!memory_contains(pid, line.as_bytes()), "the file, in {}", title(pid));
        assert!(!memory_contains(pid, &secret), "the key, in {}", title(pid));
        assert!(!memory_contains(pid, &little_endian), "the key as a number, in {}", title(pid));
        let environment = fs::read(format!("/proc/{pid}/environ")).expect("environ");
        assert!(memchr::memmem::find(&environment, b"PRIVATE").is_none());
    }
}

#[test]
fn client_certificates_are_asked_for_and_logged() {
    let peer = Peer::echo();
    let authority = Identity::authority("authority of clients");
    let files = Directory::new();
    let ca = files.write("ca.pem", authority.certificate.to_pem().expect("PEM"));
    let service = Service::simple(&format!("{}tls ca-file = {}\n", peer.remote(), ca.display()));
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let mut with = connector(&service.identity.certificate);
        with.set_max_proto_version(Some(version)).expect("a version");
        let own = authority.sign(&["client.example"], pki::ec_key());
        with.set_certificate(&own.certificate).expect("a certificate");
        with.set_private_key(&own.key).expect("a key");
        exchange(&mut handshake(&with.build(), service.port).expect("a handshake"), b"known");
        service.relay.expect_log("subject \"CN=client.example,O=tcprelay tests\"");
        service.relay.expect_log("issuer \"CN=authority of clients,O=tcprelay tests\"");

        let stranger = Identity::own(&["client.example"]);
        for own in [Some(&stranger), None] {
            let mut without = connector(&service.identity.certificate);
            without.set_max_proto_version(Some(version)).expect("a version");
            if let Some(own) = own {
                without.set_certificate(&own.certificate).expect("a certificate");
                without.set_private_key(&own.key).expect("a key");
            }
            // With TLS 1.3 a client learns of the refusal when it first reads.
            let refused = match handshake(&without.build(), service.port) {
                Err(_) => true,
                Ok(mut stream) => {
                    let _ = stream.write_all(b"hello");
                    !matches!(stream.read(&mut [0; 5]), Ok(1..))
                }
            };
            assert!(refused);
        }
    }
    service.relay.expect_log("peer did not return a certificate");
    service.relay.expect_log("certificate verify failed");
}

#[test]
fn the_certificate_is_chosen_by_name() {
    let peer = Peer::echo();
    let files = Directory::new();
    let authority = Identity::authority("authority of the tests");
    let other = authority.sign(&["*.example.org", "example.net"], pki::rsa_key());
    let section = format!("{}tls alpn = h2,http/1.1\n", peer.remote());
    let more = other.directives(files.path(), "other");
    // The service's own certificate is configured after this one, so it is the second.
    let service = Service::simple(&format!("{section}{more}"));
    let shown = |name: &str| {
        let mut builder = connector(&authority.certificate);
        builder.set_verify(SslVerifyMode::NONE);
        builder.set_alpn_protos(b"\x08http/1.1").expect("a protocol");
        let stream = connect(service.port);
        let client = builder.build().configure().expect("a client").verify_hostname(false);
        let stream = client.connect(name, stream).expect("a handshake");
        assert_eq!(stream.ssl().selected_alpn_protocol(), Some(&b"http/1.1"[..]));
        stream.ssl().peer_certificate().expect("a certificate").to_der().expect("DER")
    };
    let (own, other) = (
        service.identity.certificate.to_der().expect("DER"),
        other.certificate.to_der().expect("DER"),
    );
    assert!(shown("localhost") == own);
    for name in ["www.example.org", "EXAMPLE.net", "a.b.example.org", "unknown.example"] {
        assert!(shown(name) == other, "{name}");
    }
    service.relay.expect_log("sni \"www.example.org\" alpn \"http/1.1\"");
}

#[test]
fn mistakes_are_found_by_the_check() {
    let files = Directory::new();
    let identity = Identity::own(&["localhost"]);
    let own = identity.directives(files.path(), "own");
    let fifo = files.file("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).expect("a FIFO");
    let pem = files.file("own.pem");
    let remote = |tls: &str| format!("{own}remote = {{ address = 127.0.0.1 port = 9 {tls} }}");
    let cases = [
        (remote("tls verify = yes"), "remote: 'tls = yes' is missing"),
        (remote("tls = yes tls server-name = \"\""), "is no name of a host"),
        (
            remote(&format!("tls = yes tls key-file = {}", pem.display())),
            "tls key-file without tls cert-file",
        ),
        (
            remote("tls = yes tls ca-file = /nonexistent"),
            "/nonexistent: error:80000002:system library::No such file",
        ),
        (format!("tls cert-file = {} {}", fifo.display(), remote("")), "fifo: error"),
        (format!("{} tls ciphers = RUBBISH", remote("")), "tls ciphers = RUBBISH: error"),
        (
            format!("{} tls crl-file = {}", remote(""), pem.display()),
            "tls crl-file needs tls ca-file",
        ),
        (format!("{} tls verify = required", remote("")), "tls verify needs tls ca-file"),
        (remote("").replace(&own, ""), "TLS listener without tls cert-file"),
    ];
    for (section, expected) in cases {
        let text = format!(
            "id = spawnd {{ listen = {{ port = 1 tls = yes }} }}\nid = tcprelay {{ {section} }}\n"
        );
        let config = files.write("relay.cfg", text);
        let output = ours(TCPRELAY).arg("-P").arg(config).output().expect("tcprelay");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains(expected), "{section}: {told}");
        assert!(matches!(output.status.code(), Some(69 | 78)), "{section}: {}", output.status);
    }
}

#[test]
fn new_workers_by_sigusr1_get_the_files_that_are_configured_now() {
    if !is_root() {
        return left_out("only root can start workers as somebody else");
    }
    let peer = Peer::echo();
    let spawn = "instances min = 1 instances max = 1 users max = 100 userid = nobody";
    let service = Service::start("tls = yes", spawn, &peer.remote());
    fs::set_permissions(service.relay.directory.path(), fs::Permissions::from_mode(0o755))
        .expect("chmod");
    let next = Identity::own(&["localhost"]);
    let (_, key) = next.write(service.files.path(), "next");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("chmod");
    let text = fs::read_to_string(&service.relay.config).expect("the configuration");
    fs::write(&service.relay.config, text.replace("own.", "next.")).expect("to write");
    service.relay.signal(Signal::SIGUSR1);
    let client = connector(&next.certificate).build();
    wait_for("the new certificate", || {
        let mut stream = handshake(&client, service.port).ok()?;
        stream.write_all(b"x").ok()?;
        stream.read_exact(&mut [0]).ok()
    });
}
