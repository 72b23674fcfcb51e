//! Versions, plain text beside TLS, resumption.

use super::*;

pub(super) fn x001() {
    let peer = Peer::echo();
    let pki = pki();
    for identity in [&pki.ec, &pki.rsa] {
        let port = free_port();
        let launch = launch(port, "tls = yes", &format!("{FILES}{}", peer.remote()))
            .file("cert.pem", pki.chain(identity))
            .file("key.pem", key_pem(&identity.key));
        let relay = launch.start();
        for version in VERSIONS {
            let mut stream = served(port, version);
            assert_eq!(stream.ssl().version2(), Some(version));
            let shown = stream.ssl().peer_certificate().expect("a certificate");
            assert!(shown == identity.certificate);
            for length in [1, 16384, 16385, 50_000] {
                talk(&mut stream, &pattern(length as u64, length));
            }
            stream.shutdown().expect("to say goodbye");
            assert!(read_to_end(&mut stream).is_empty());
        }
        all_freed(&relay);
    }
}

/// X002 and X003: a listener that speaks one version.
pub(super) fn one_version(listed: &str, good: SslVersion, other: SslVersion) {
    let peer = Peer::echo();
    let (port, relay) = serve(&format!("tls = {listed}"), &peer.remote());
    let refused = shake(&settings(other).build(), Wire::new(connect(port)));
    let error = refused.err().expect("refused");
    assert_eq!(alert(&error), Some(PROTOCOL_VERSION), "{error}");
    expect_handshake_log(&relay, "unsupported protocol");
    served(port, good);
    all_freed(&relay);
}

/// Waits for the log line of a failed handshake.
pub(super) fn expect_handshake_log(relay: &Relay, reason: &str) {
    relay.wait_for_log(&format!("SSL_accept and {reason:?}"), |log| {
        let mut lines = log.lines().filter(|line| line.contains("SSL_accept"));
        lines.find(|line| line.contains(":SSL routines::") && line.contains(reason)).map(drop)
    });
}

pub(super) fn x004() {
    let peer = Peer::echo();
    let (port, relay) = serve("tls = auto", &peer.remote());
    plain_client(port);
    // The first of these look like TLS records at their beginning.
    for word in [&b"\x16\x16"[..], b"\x16\x03\x01\x00\x00\x00 no TLS", &pattern(1, 300_000)] {
        let mut stream = connect(port);
        let sent = word.to_vec();
        let mut sender = stream.try_clone().expect("another handle");
        let thread = thread::spawn(move || {
            sender.write_all(&sent).expect("to send");
            sender.shutdown(Shutdown::Write).expect("to shut down");
        });
        let received = read_clean(&mut stream);
        thread.join().expect("the sender");
        assert!(received == word, "{} bytes", received.len());
    }
    // The same byte by byte.
    let mut stream = connect(port);
    for byte in b"\x16\x03plain" {
        stream.write_all(&[*byte]).expect("to send");
    }
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"\x16\x03plain");
    drop(stream);
    all_freed(&relay);
}

pub(super) fn x005() {
    let peer = Peer::echo();
    let (port, relay) = serve("tls = auto", &peer.remote());
    for version in VERSIONS {
        for dribble in [false, true] {
            let wire = Wire { dribble, ..Wire::new(connect(port)) };
            let mut stream = shake(&settings(version).build(), wire).expect("a handshake");
            assert_eq!(stream.ssl().version2(), Some(version));
            talk(&mut stream, b"hello");
        }
    }
    all_freed(&relay);
}

pub(super) fn x006() {
    let peer = Peer::echo();
    for list in ["DTLSv1.2", "DTLSv1.0,DTLSv1.2"] {
        let port = free_port();
        let listen = format!("tls = {list}");
        let make = || launch(port, &listen, &format!("{FILES}{}", peer.remote()));
        let finished = make().finish();
        finished.exits(78).says("DTLS").says(&port.to_string());
        make().arguments(&["-P", "@CFG@"]).finish().exits(0);
    }
}

pub(super) fn x023() {
    let down = [free_port(), free_port()];
    let text: String = down.iter().map(|&port| remote(port)).collect();
    let (port, relay) = serve("tls = yes", &text);
    let baseline = Baseline::of(&relay);
    for version in VERSIONS {
        let begin = Instant::now();
        let mut stream = client(port, version);
        assert!(read_to_end(&mut stream).is_empty());
        baseline.expect(&relay, begin);
    }
}

pub(super) fn x024() {
    let peer = Peer::echo();
    let (port, _relay) = serve("tls = yes", &peer.remote());
    for version in VERSIONS {
        let tickets: Arc<Mutex<Vec<SslSession>>> = Arc::default();
        let store = tickets.clone();
        let mut builder = settings(version);
        builder
            .set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
        builder.set_new_session_callback(move |_, session| {
            store.lock().expect("the tickets").push(session);
        });
        let context = builder.build();
        let mut used: Option<SslSession> = None;
        // Resumed sessions get new tickets as well.
        for round in 0..3 {
            let mut ssl = new_ssl(&context);
            if let Some(session) = &used {
                // SAFETY: the session was made with the same context.
                unsafe { ssl.set_session(session) }.expect("a session to resume");
            }
            let mut stream = SslStream::new(ssl, Wire::new(connect(port))).expect("a session");
            stream.connect().expect("a handshake");
            assert_eq!(stream.ssl().session_reused(), used.is_some(), "{version:?}, {round}");
            assert_eq!(stream.ssl().version2(), Some(version));
            talk(&mut stream, b"hello");
            stream.shutdown().expect("to say goodbye");
            assert!(read_to_end(&mut stream).is_empty());
            // With TLS 1.2 the server may leave the client with the ticket it has.
            let latest = tickets.lock().expect("the tickets").pop();
            used = latest.or(used);
            assert!(used.is_some(), "no ticket for {version:?}");
        }
    }
}

pub(super) fn x027() {
    let peer = Peer::echo();
    for listen in ["tls = yes", "tls = auto"] {
        let (port, relay) = serve(listen, &peer.remote());
        for version in [SslVersion::TLS1, SslVersion::TLS1_1] {
            let mut builder = settings(version);
            // The client's own library would refuse as well, at its default level.
            builder.set_security_level(0);
            builder.set_cipher_list("ALL:@SECLEVEL=0").expect("ciphers");
            let refused = shake(&builder.build(), Wire::new(connect(port)));
            let error = refused.err().expect("refused");
            assert_eq!(alert(&error), Some(PROTOCOL_VERSION), "{listen}, {version:?}: {error}");
        }
        expect_handshake_log(&relay, "unsupported protocol");
        served(port, SslVersion::TLS1_2);
        all_freed(&relay);
    }
}
