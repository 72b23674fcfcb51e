//! Much data, and forged data.

use super::*;

/// A download by a client that reads nothing at first, and slowly after that.
pub(super) fn slow_download(version: SslVersion) {
    const LENGTH: usize = 20_000_000;
    let (port, relay, _peer, streams) = serve_manually();
    let (mut client, mut end) = session(port, version, &streams);
    let data = pattern(25, LENGTH);
    let (progress, sent) = (Arc::new(AtomicUsize::new(0)), data.clone());
    let counter = progress.clone();
    let sender = thread::spawn(move || {
        for chunk in sent.chunks(65536) {
            end.write_all(chunk).expect("to send");
            counter.fetch_add(chunk.len(), Ordering::Relaxed);
        }
    });
    let (mut last, mut since) = (0, Instant::now());
    wait_for("the peer to be held up", || {
        let now = progress.load(Ordering::Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (now > 0 && since.elapsed() > Duration::from_millis(1000)).then_some(())
    });
    assert!(last < LENGTH, "all has been taken");
    stays_idle(relay.workers()[0]);
    let (mut received, mut buffer) = (Vec::with_capacity(LENGTH), [0; 16384]);
    loop {
        match client.ssl_read(&mut buffer) {
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) if error.code() == ErrorCode::ZERO_RETURN => break,
            Err(error) => panic!("{error} after {} bytes", received.len()),
        }
        pace(Duration::from_millis(1));
    }
    sender.join().expect("the peer");
    assert!(received == data, "{} bytes", received.len());
    drop(client);
    all_freed(&relay);
}

/// Sends and receives at the same time, through an echo.
pub(super) fn large_echo(version: SslVersion) {
    let peer = Peer::echo();
    let (port, relay) = serve("tls = yes", &peer.remote());
    let mut stream = client(port, version);
    let data = pattern(26, 10_000_000);
    let waits =
        |error: &ssl::Error| matches!(error.code(), ErrorCode::WANT_READ | ErrorCode::WANT_WRITE);
    stream.get_ref().tcp.set_nonblocking(true).expect("nonblocking");
    let (mut sent, mut received, mut buffer) = (0, Vec::with_capacity(data.len()), [0; 16384]);
    let mut last = Instant::now();
    while received.len() < data.len() {
        let before = (sent, received.len());
        let rest = &data[sent..];
        if !rest.is_empty() {
            match stream.ssl_write(&rest[..rest.len().min(16384)]) {
                Ok(count) => sent += count,
                Err(error) => assert!(waits(&error), "{error} after {sent} bytes"),
            }
        }
        match stream.ssl_read(&mut buffer) {
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) => assert!(waits(&error), "{error} after {} bytes", received.len()),
        }
        if before == (sent, received.len()) {
            assert!(last.elapsed() < PATIENCE, "stuck after {before:?} bytes");
            pace(Duration::from_millis(1));
        } else {
            last = Instant::now();
        }
    }
    assert!(received == data);
    stream.get_ref().tcp.set_nonblocking(false).expect("blocking");
    stream.shutdown().expect("to say goodbye");
    assert!(read_to_end(&mut stream).is_empty());
    all_freed(&relay);
}

pub(super) fn x025() {
    for version in VERSIONS {
        slow_download(version);
        large_echo(version);
    }
}

pub(super) fn x026() {
    let (port, relay, _peer, streams) = serve_manually();
    drop(session(port, SslVersion::TLS1_3, &streams));
    let baseline = Baseline::of(&relay);
    for version in VERSIONS {
        let (mut client, mut end) = session(port, version, &streams);
        let address = logged(&client.get_ref().tcp);
        let begin = Instant::now();
        let mut records = sealed(&mut client, b"last words");
        let mut forged = sealed(&mut client, b"not from the client");
        *forged.last_mut().expect("a record") ^= 1;
        records.extend_from_slice(&forged);
        client.get_mut().tcp.write_all(&records).expect("to send");
        // What came before the forged record is delivered, and the remote sees a clean end.
        assert_eq!(read_clean(&mut end), b"last words");
        let error = client.ssl_read(&mut [0; 100]).expect_err("an alert");
        assert_eq!(alert(&error), Some(BAD_RECORD_MAC), "{version:?}: {error}");
        expect_eof(&mut client.get_mut().tcp);
        relay.wait_for_log("a line about the record", |log| {
            let mut lines = log.lines().filter(|line| line.contains(&address));
            lines.any(|line| line.contains("TLS client")).then_some(())
        });
        // Neither end has closed.
        baseline.expect(&relay, begin);
    }
}
