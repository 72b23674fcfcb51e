//! Sessions that resume earlier ones.

use super::*;

/// A client that remembers its sessions.
fn remembering(choice: Choice) -> (SslContext, Arc<Mutex<Vec<SslSession>>>) {
    remembering_with(choice, |_| ())
}

fn remembering_with(
    choice: Choice,
    change: impl FnOnce(&mut SslContextBuilder),
) -> (SslContext, Arc<Mutex<Vec<SslSession>>>) {
    let sessions = Arc::new(Mutex::new(Vec::new()));
    let store = sessions.clone();
    let client = client(|builder| {
        only(builder, choice);
        change(builder);
        builder.set_session_cache_mode(SslSessionCacheMode::CLIENT);
        builder.set_new_session_callback(move |_, session| store.lock().unwrap().push(session));
    });
    (client, sessions)
}

#[test]
fn sessions_are_resumed_for_one_more_period() {
    let other = pki().authority.sign(&["b.example"], pki::rsa_key());
    for choice in CHOICES {
        let identity = if choice.rsa { &pki().rsa } else { &pki().ec };
        // The records and tickets of the second name are those of another context.
        let name = if choice.tls13 { "b.example" } else { "a.example" };
        let setup = Setup::new(&[identity, &other]).only(choice);
        for (later, resumed) in [(0, true), (99, true), (100, true), (199, true), (200, false)] {
            let acceptor = setup.acceptor();
            let tickets = Ratchet::new([7; 32], 1000, 100);
            library::set_ticket_keys(tickets.keys());
            let mut contexts =
                Contexts { acceptor: Some(acceptor), connectors: Vec::new(), tickets };
            let (client, sessions) = remembering(choice);
            let first = Pair::server(contexts.acceptor.as_ref().unwrap(), BOTH, &client, name);
            let mut first = first.established();
            first.talk(&[1, 20_000]);
            assert!(!first.ssl().session_reused());
            contexts.renew_tickets(1000 + later);
            let session = sessions.lock().unwrap().pop().expect("a ticket");
            let acceptor = contexts.acceptor.as_ref().unwrap();
            let mut second = Pair::resuming(acceptor, &client, name, &session);
            second.eager = pattern(20_000);
            let mut second = second.established();
            assert_eq!(second.ssl().session_reused(), resumed, "{choice:?} after {later} s");
            assert_eq!(second.ours.summary().unwrap().resumed, resumed);
            let handler = if choice.library { "Stream(library)" } else { "Stream(records)" };
            assert_eq!(second.handler(), handler);
            assert!(second.reads() == pattern(20_000));
            second.talk(&[1, 20_000]);
            // A ticket of the former period is replaced; in TLS 1.3 each ticket is used once
            // anyway.
            let renewed = match choice.tls13 || !resumed {
                true => sessions.lock().unwrap().pop(),
                // OpenSSL does not report this ticket.
                false => second.ssl().session().map(|session| session.to_owned()),
            };
            let renewed = renewed.filter(|one| one.to_der().unwrap() != session.to_der().unwrap());
            assert_eq!(renewed.is_some(), choice.tls13 || later >= 100, "{choice:?} {later}");
            if let Some(session) = renewed {
                // It can be opened for one more period.
                contexts.renew_tickets(1000 + later + 100);
                let acceptor = contexts.acceptor.as_ref().unwrap();
                let third = Pair::resuming(acceptor, &client, name, &session);
                let mut third = third.established();
                assert!(third.ssl().session_reused());
                third.talk(&[1, 20_000]);
            }
        }
    }
}

#[test]
fn another_process_opens_our_tickets() {
    for choice in sealable() {
        let identity = if choice.rsa { &pki().rsa } else { &pki().ec };
        let setup = Setup::new(&[identity]).only(choice);
        let (client, sessions) = remembering(choice);
        let mut first = Pair::server(&setup.acceptor(), BOTH, &client, "").established();
        first.talk(&[1]);
        let session = sessions.lock().unwrap().pop().unwrap();
        // A thread has its own ticket keys, as a process does.
        let resumed = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let second = Pair::resuming(&setup.acceptor(), &client, "", &session);
                    let mut second = second.established();
                    second.talk(&[1, 20_000]);
                    second.ssl().session_reused()
                })
                .join()
                .unwrap()
        });
        assert!(resumed);
    }
}

#[test]
fn without_a_timeout_there_are_no_tickets() {
    for choice in CHOICES {
        let identity = if choice.rsa { &pki().rsa } else { &pki().ec };
        let setup = Setup::new(&[identity]).only(choice).with(|tls| tls.session_timeout = 0);
        let acceptor = setup.acceptor();
        let (client, sessions) = remembering(choice);
        let mut pair = Pair::server(&acceptor, BOTH, &client, "").established();
        pair.talk(&[1, 20_000]);
        let sessions = sessions.lock().unwrap();
        assert!(sessions.iter().all(|session| !choice.tls13 && session.id().is_empty()));
    }
}

#[test]
fn a_resumed_client_is_still_the_one_of_its_certificate() {
    for choice in sealable() {
        let identity = if choice.rsa { &pki().rsa } else { &pki().ec };
        let setup = Setup::new(&[identity]).only(choice);
        let acceptor = setup.verifying(Verify::Required, &pki().authority).acceptor();
        let sessions = Arc::new(Mutex::new(Vec::new()));
        let store = sessions.clone();
        let client = client(|builder| {
            only(builder, choice);
            show(builder, &pki().client);
            builder.set_session_cache_mode(SslSessionCacheMode::CLIENT);
            builder.set_new_session_callback(move |_, session| store.lock().unwrap().push(session));
        });
        let mut first = Pair::server(&acceptor, BOTH, &client, "").established();
        first.talk(&[1]);
        let session = sessions.lock().unwrap().pop().unwrap();
        let second = Pair::resuming(&acceptor, &client, "", &session);
        let mut second = second.established();
        let summary = second.ours.summary().unwrap();
        assert!(summary.resumed && summary.subject == first.ours.summary().unwrap().subject);
        assert!(summary.subject.is_some());
        second.talk(&[1, 20_000]);
    }
}

#[test]
fn our_client_resumes_sessions() {
    for choice in CHOICES {
        let (connector, server) = (connector(choice), server(choice, |_| ()));
        for round in 0..4 {
            let mut pair = Pair::client(&connector, &server).established();
            assert_eq!(pair.ssl().session_reused(), round > 0, "{choice:?}");
            assert_eq!(pair.ours.summary().unwrap().resumed, round > 0);
            pair.talk(&[1, 20_000]);
        }
        // A session that the server has forgotten does no harm.
        let forgetful = self::server(choice, |_| ());
        let mut pair = Pair::client(&connector, &forgetful).established();
        assert!(!pair.ssl().session_reused());
        pair.talk(&[1, 20_000]);
    }
}

/// A copy that can be resumed: OpenSSL marks a session whose connection ended without close_notify.
fn again(session: &SslSession) -> SslSession {
    SslSession::from_der(&session.to_der().unwrap()).unwrap()
}

/// A TLS 1.3 ticket is used once: without a new one every second handshake would be a full one.
#[test]
fn a_client_with_a_certificate_gets_another_ticket_each_time() {
    for choice in CHOICES {
        let identity = if choice.rsa { &pki().rsa } else { &pki().ec };
        let setup = Setup::new(&[identity]).only(choice);
        let acceptor = setup.verifying(Verify::Required, &pki().authority).acceptor();
        let (client, sessions) = remembering_with(choice, |builder| show(builder, &pki().client));
        let mut pair = Pair::server(&acceptor, BOTH, &client, "").established();
        pair.talk(&[1]);
        for _ in 0..4 {
            let session = again(&sessions.lock().unwrap().pop().expect("a ticket"));
            let mut pair = Pair::resuming(&acceptor, &client, "", &session).established();
            pair.talk(&[1]);
            assert!(pair.ssl().session_reused(), "{choice:?}");
            if !choice.tls13 {
                sessions.lock().unwrap().push(session);
            }
        }
    }
}

/// A client must show its certificate again in the end, however often it has resumed.
#[test]
fn a_client_with_a_certificate_shows_it_again_when_the_session_is_too_old() {
    let choice = CHOICES[0];
    let setup = Setup::new(&[&pki().ec]).only(choice).with(|tls| tls.session_timeout = 2);
    let acceptor = setup.verifying(Verify::Required, &pki().authority).acceptor();
    let (client, sessions) = remembering_with(choice, |builder| show(builder, &pki().client));
    let start = std::time::Instant::now();
    Pair::server(&acceptor, BOTH, &client, "").established().talk(&[1]);
    let mut resumed = 0;
    loop {
        let session = again(&sessions.lock().unwrap().pop().expect("a ticket"));
        let mut pair = Pair::resuming(&acceptor, &client, "", &session).established();
        pair.talk(&[1]);
        if !pair.ssl().session_reused() {
            break;
        }
        resumed += 1;
        assert!(start.elapsed().as_secs() < 30, "resumed {resumed} times");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(start.elapsed().as_millis() >= 1000, "{resumed} times in {:?}", start.elapsed());
}
