//! Ends of connections: by either side, in the middle of something, or by time.

use super::*;

pub(super) fn x013() {
    let (port, relay, _peer, streams) = serve_manually();
    let answer = pattern(13, 200_000);
    for version in VERSIONS {
        let (mut client, mut end) = session(port, version, &streams);
        let sent = answer.clone();
        let sender = thread::spawn(move || end.write_all(&sent).expect("to send"));
        let received = read_to_end(&mut client);
        sender.join().expect("the peer");
        assert!(received == answer, "{} bytes", received.len());
    }
    all_freed(&relay);
}

pub(super) fn x014() {
    let (port, relay, _peer, streams) = serve_manually();
    let answer = pattern(14, 200_000);
    for version in VERSIONS {
        for fin in [false, true] {
            let (mut client, mut end) = session(port, version, &streams);
            client.write_all(b"question").expect("to send");
            client.shutdown().expect("to say goodbye");
            if fin {
                client.get_ref().tcp.shutdown(Shutdown::Write).expect("to shut down");
            }
            assert_eq!(read_clean(&mut end), b"question");
            let sent = answer.clone();
            let sender = thread::spawn(move || end.write_all(&sent).expect("to send"));
            let received = read_to_end(&mut client);
            sender.join().expect("the peer");
            assert!(received == answer, "{} bytes", received.len());
            // Both sides have ended, so the relay must not wait for the client to close.
            all_freed(&relay);
        }
    }
    assert!(!relay.log().contains("close_notify"), "{}", relay.log());
}

pub(super) fn x015() {
    let (port, relay, _peer, streams) = serve_manually();
    for version in VERSIONS {
        let (mut client, mut end) = session(port, version, &streams);
        client.write_all(b"question").expect("to send");
        client.get_ref().tcp.shutdown(Shutdown::Write).expect("to shut down");
        assert_eq!(read_clean(&mut end), b"question");
        end.write_all(b"answer").expect("to send");
        drop(end);
        assert_eq!(read_to_end(&mut client), b"answer");
        all_freed(&relay);
        // An end without close_notify may be a truncation attack.
        let address = logged(&client.get_ref().tcp);
        relay.wait_for_log("a line about the truncation", |log| {
            let mut lines = log.lines().filter(|line| line.contains(&address));
            lines.any(|line| line.contains("without close_notify")).then_some(())
        });
    }
}

/// Aborts a client's connection with RST.
pub(super) fn abort(stream: Tls) {
    // `reset` closes another handle of the same socket, whose SO_LINGER setting is shared; the
    // reset is sent when the last handle is closed.
    reset(stream.get_ref().tcp.try_clone().expect("another handle"));
    drop(stream);
}

pub(super) fn x016() {
    let (port, relay, _peer, streams) = serve_manually();
    drop(session(port, SslVersion::TLS1_3, &streams));
    let baseline = Baseline::of(&relay);
    for version in VERSIONS {
        let sessions: Vec<_> = (0..5).map(|_| session(port, version, &streams)).collect();
        let begin = Instant::now();
        let (clients, mut ends): (Vec<_>, Vec<_>) = sessions.into_iter().unzip();
        clients.into_iter().for_each(abort);
        // The remote's end must not stay open either, as it did with the C program.
        for end in &mut ends {
            assert!(has_been_closed(end));
        }
        baseline.expect(&relay, begin);
    }
}

pub(super) fn x017() {
    let peer = Peer::echo();
    for listen in ["tls = yes", "tls = auto"] {
        let (port, relay) = serve(listen, &peer.remote());
        served(port, SslVersion::TLS1_3);
        let baseline = Baseline::of(&relay);
        let begin = Instant::now();
        for _ in 0..10 {
            drop(connect(port));
            reset(connect(port));
        }
        // Clients stay open, so that the relay is the one that closes.
        let mut half_closed: Vec<TcpStream> = (0..10).map(|_| connect(port)).collect();
        for stream in &mut half_closed {
            stream.shutdown(Shutdown::Write).expect("to shut down");
        }
        for stream in &mut half_closed {
            assert!(has_been_closed(stream), "bytes for nobody");
        }
        baseline.expect(&relay, begin);
        served(port, SslVersion::TLS1_3);
    }
}

pub(super) fn x018() {
    let peer = Peer::echo();
    for listen in ["tls = yes", "tls = auto"] {
        let (port, relay) = serve(listen, &peer.remote());
        served(port, SslVersion::TLS1_3);
        let baseline = Baseline::of(&relay);
        let mut streams = Vec::new();
        for version in VERSIONS {
            let hello = hello(version);
            // Cut in the record's header, after it, in the middle, and one byte short.
            for length in [1, 4, 5, 6, hello.len() / 2, hello.len() - 1] {
                let mut stream = connect(port);
                stream.write_all(&hello[..length]).expect("to send");
                streams.push(stream);
            }
            // The relay answers the hello; the client sends nothing more of the handshake.
            let mut stream = connect(port);
            stream.write_all(&hello).expect("to send");
            stream.read_exact(&mut [0; 5]).expect("a record");
            streams.push(stream);
        }
        let begin = Instant::now();
        for stream in &mut streams {
            stream.shutdown(Shutdown::Write).expect("to shut down");
        }
        for stream in &mut streams {
            // Bytes already in flight may arrive, and then the connection ends.
            let (_, error) = read_all(stream);
            let late = error.is_some_and(|error| error.kind() == ErrorKind::WouldBlock);
            assert!(!late, "a connection stays open");
        }
        baseline.expect(&relay, begin);
        served(port, SslVersion::TLS1_3);
    }
}

pub(super) fn x019() {
    let peer = Peer::echo();
    let (port, relay) = serve("tls = yes", &peer.remote());
    served(port, SslVersion::TLS1_3);
    let baseline = Baseline::of(&relay);
    let mut streams = Vec::new();
    let begin = Instant::now();
    for text in [&b"GET / HTTP/1.0\r\n\r\n"[..], b"SSH-2.0-client\r\n", &[0; 100]] {
        let mut stream = connect(port);
        let address = logged(&stream);
        stream.write_all(text).expect("to send");
        let (answer, error) = read_all(&mut stream);
        let late = error.is_some_and(|error| error.kind() == ErrorKind::WouldBlock);
        assert!(!late, "the connection stays open after {answer:?}");
        // The answer is nothing, or one record with a fatal alert.
        let alert = answer.len() == 7 && answer.starts_with(&[21, 3]) && answer[5] == 2;
        assert!(answer.is_empty() || alert, "{answer:?}");
        relay.wait_for_log("a line about the handshake", |log| {
            let mut lines = log.lines().filter(|line| line.contains(&address));
            lines.any(|line| line.contains("SSL_accept")).then_some(())
        });
        streams.push(stream);
    }
    expect_handshake_log(&relay, "http request");
    // The clients have not closed.
    baseline.expect(&relay, begin);
    drop(streams);
    served(port, SslVersion::TLS1_3);
}

pub(super) fn x020() {
    let (port, relay, _peer, streams) = serve_manually();
    drop(session(port, SslVersion::TLS1_3, &streams));
    let baseline = Baseline::of(&relay);
    for version in VERSIONS {
        for part in [1, 5, 12] {
            let (mut client, end) = session(port, version, &streams);
            let record = sealed(&mut client, b"never complete");
            client.get_mut().tcp.write_all(&record[..part]).expect("to send");
            all_read(baseline.worker, port);
            let begin = Instant::now();
            drop(end);
            assert!(read_to_end(&mut client).is_empty());
            assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
            // As long as the client may still send, the worker must rest.
            stays_idle(baseline.worker);
            drop(client);
            all_freed(&relay);
        }
    }
    baseline.expect(&relay, Instant::now());
}

pub(super) fn x021() {
    let peer = Peer::echo();
    let begin_of_hello = hello(SslVersion::TLS1_3)[..50].to_vec();
    let idle = format!("{}idle timeout = 2\n", peer.remote());
    for (listen, sent) in
        [("tls = yes", &[][..]), ("tls = auto", &[]), ("tls = yes", &begin_of_hello)]
    {
        let (port, relay) = serve(listen, &idle);
        let baseline = Baseline::of(&relay);
        let begin = Instant::now();
        let mut stream = connect(port);
        stream.write_all(sent).expect("to send");
        let (_, error) = read_all(&mut stream);
        assert!(error.is_none_or(|error| error.kind() != ErrorKind::WouldBlock), "stays open");
        after_two_seconds(begin.elapsed());
        baseline.expect(&relay, Instant::now());
    }
}

pub(super) fn x022() {
    let (peer, streams) = Peer::manual();
    let (port, relay) = serve("tls = yes", &format!("{}idle timeout = 2\n", peer.remote()));
    let baseline = Baseline::of(&relay);
    for version in VERSIONS {
        let begin = Instant::now();
        let (mut client, mut end) = session(port, version, &streams);
        assert!(read_to_end(&mut client).is_empty());
        after_two_seconds(begin.elapsed());
        assert!(has_been_closed(&mut end));
        // Neither end has closed.
        baseline.expect(&relay, Instant::now());
    }
}
