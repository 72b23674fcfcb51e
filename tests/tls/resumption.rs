//! Sessions of TLS that are resumed, and those that may not be.

use super::*;

/// A client that stores its sessions, in encoded form: otherwise OpenSSL would not resume the
/// sessions that follow a resumed one.
fn remembering(trusted: &X509, version: SslVersion) -> (SslConnector, Arc<Mutex<Vec<Vec<u8>>>>) {
    let mut builder = connector(trusted);
    builder.set_min_proto_version(Some(version)).expect("a version");
    builder.set_max_proto_version(Some(version)).expect("a version");
    builder.set_session_cache_mode(SslSessionCacheMode::CLIENT);
    let sessions = Arc::new(Mutex::new(Vec::new()));
    let store = sessions.clone();
    builder.set_new_session_callback(move |_, session| {
        store.lock().unwrap().push(session.to_der().expect("DER"));
    });
    (builder.build(), sessions)
}

/// Connects with the latest session; true if it was resumed.
fn resume(client: &SslConnector, sessions: &Mutex<Vec<Vec<u8>>>, port: u16) -> bool {
    let session = sessions.lock().unwrap().last().expect("a ticket").clone();
    let session = SslSession::from_der(&session).expect("a session");
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut ssl = client.configure().expect("a client").into_ssl("localhost").expect("a client");
    // SAFETY: the session is of the same context.
    unsafe { ssl.set_session(&session) }.expect("a session");
    let mut stream = ssl.connect(stream).expect("a handshake");
    exchange(&mut stream, b"again");
    stream.shutdown().expect("to say that nothing follows");
    stream.ssl().session_reused()
}

#[test]
fn sessions_are_resumed_by_every_worker_and_after_a_reload() {
    let peer = Peer::echo();
    let spawn = "instances min = 2 instances max = 2 users min = 1 users max = 1000";
    let service = Service::start("tls = yes", spawn, &peer.remote());
    let worker = |line: &str| line.split(['[', ']']).nth(1).map(str::to_owned);
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let (client, sessions) = remembering(&service.identity.certificate, version);
        let mut first = handshake(&client, service.port).expect("a handshake");
        exchange(&mut first, b"first");
        // Without a shutdown OpenSSL treats the session as failed, and does not resume it.
        first.shutdown().expect("to say that nothing follows");
        let name = if version == SslVersion::TLS1_2 { "TLSv1.2" } else { "TLSv1.3" };
        let resumed = || -> BTreeSet<String> {
            let log = service.relay.log();
            let these = |line: &&str| line.contains(name) && line.contains(" resumed");
            log.lines().filter(these).filter_map(worker).collect()
        };
        // Each round keeps one more connection open, so that both workers get some.
        let mut held = Vec::new();
        wait_for("both workers", || {
            assert!(resume(&client, &sessions, service.port));
            held.push(connect(service.port));
            (resumed().len() >= 2).then_some(())
        });
        drop(held);
        let old = service.relay.workers();
        service.reload();
        wait_for("new workers", || {
            let now = service.relay.workers();
            (now.len() == 2 && now.iter().all(|pid| !old.contains(pid))).then_some(())
        });
        assert!(resume(&client, &sessions, service.port), "after a reload");
        assert!(!service.relay.log().contains("without close_notify"));
    }
}

#[test]
fn a_session_is_not_resumed_under_other_rules_for_clients() {
    let peer = Peer::echo();
    let authority = Identity::authority("authority of clients");
    let files = Directory::new();
    let ca = files.write("ca.pem", authority.certificate.to_pem().expect("PEM"));
    let service = Service::simple(&peer.remote());
    let text = fs::read_to_string(&service.relay.config).expect("the configuration");
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        fs::write(&service.relay.config, &text).expect("to write");
        service.reload();
        let (client, sessions) = remembering(&service.identity.certificate, version);
        let mut first = handshake(&client, service.port).expect("a handshake");
        exchange(&mut first, b"first");
        first.shutdown().expect("to say that nothing follows");
        assert!(resume(&client, &sessions, service.port));
        // From now on clients need a certificate; this client has never shown one.
        let old = service.relay.workers();
        let stricter =
            text.replace("access log", &format!("tls ca-file = {}\naccess log", ca.display()));
        fs::write(&service.relay.config, stricter).expect("to write");
        service.reload();
        wait_for("new workers", || {
            let now = service.relay.workers();
            (!now.is_empty() && now.iter().all(|pid| !old.contains(pid))).then_some(())
        });
        let session = sessions.lock().unwrap().last().expect("a ticket").clone();
        let session = SslSession::from_der(&session).expect("a session");
        let mut ssl =
            client.configure().expect("a client").into_ssl("localhost").expect("a client");
        // SAFETY: the session is of the same context.
        unsafe { ssl.set_session(&session) }.expect("a session");
        let served = ssl.connect(connect(service.port)).is_ok_and(|mut stream| {
            let _ = stream.write_all(b"hello");
            matches!(stream.read(&mut [0; 5]), Ok(1..))
        });
        assert!(!served, "served without a certificate");
    }
}
