//! How data, half-closes and resets of one side reach the other.

use super::*;

#[test]
fn half_close_of_the_client_keeps_the_answer() {
    each(|way| {
        let peer = Peer::start(|mut stream| {
            let mut request = Vec::new();
            stream.read_to_end(&mut request).expect("the request");
            assert_eq!(request.len(), 1000);
            stream.write_all(&pattern(1, 200_000)).expect("to answer");
        });
        let (_relay, port) = through(way, &peer.remote());
        let mut client = connect(port);
        client.write_all(&[7; 1000]).expect("to send");
        client.shutdown(Shutdown::Write).expect("to shut down");
        assert!(read_all(client) == pattern(1, 200_000));
    });
}

#[test]
fn half_close_of_the_remote_keeps_the_request() {
    each(|way| {
        let (peer, arrived) = Peer::manual();
        let (_relay, port) = through(way, &peer.remote());
        let mut client = connect(port);
        let mut remote = next(&arrived);
        remote.write_all(b"hello").expect("to greet");
        remote.shutdown(Shutdown::Write).expect("to shut down");
        let mut greeting = Vec::new();
        client.read_to_end(&mut greeting).expect("the greeting and end of file");
        assert_eq!(greeting, b"hello");
        client.write_all(&pattern(2, 10_000)).expect("to send");
        client.shutdown(Shutdown::Write).expect("to shut down");
        assert!(read_all(remote) == pattern(2, 10_000));
    });
}

#[test]
fn sixty_four_mebibytes_both_ways_at_once_slow_readers_included() {
    const SIZE: usize = 64 << 20;
    each(|way| {
        let peer = Peer::start(|stream| {
            // Sends its own data while it receives, and checks what it gets.
            let mut reader = stream.try_clone().expect("a clone");
            let sender = thread::spawn(move || {
                let mut stream = stream;
                stream.write_all(&pattern(3, SIZE)).expect("to send");
                stream.shutdown(Shutdown::Write).expect("to shut down");
            });
            let mut data = Vec::with_capacity(SIZE);
            let mut buffer = vec![0; 300_000];
            let mut turns = 0;
            loop {
                match reader.read(&mut buffer).expect("to receive") {
                    0 => break,
                    count => data.extend_from_slice(&buffer[..count]),
                }
                turns += 1;
                // Pauses now and then, so that the sender feels back-pressure.
                if turns % 16 == 0 && data.len() < SIZE / 8 {
                    pace(Duration::from_millis(2));
                }
            }
            assert!(data == pattern(4, SIZE), "the request arrived unchanged");
            sender.join().expect("the sender");
        });
        let (relay, port) = through(way, &peer.remote());
        let client = connect(port);
        let mut writer = client.try_clone().expect("a clone");
        let sender = thread::spawn(move || {
            writer.write_all(&pattern(4, SIZE)).expect("to send");
            writer.shutdown(Shutdown::Write).expect("to shut down");
        });
        let mut data = Vec::with_capacity(SIZE);
        let mut buffer = vec![0; 8192];
        let mut client = client;
        loop {
            match client.read(&mut buffer).expect("to receive") {
                0 => break,
                count => data.extend_from_slice(&buffer[..count]),
            }
            if buffer.len() == 8192 && data.len() > SIZE / 16 {
                // Slow at first, then at full speed.
                buffer = vec![0; 1 << 20];
            }
        }
        sender.join().expect("the sender");
        assert!(data == pattern(3, SIZE), "the answer arrived unchanged");
        // The worker was not replaced.
        assert_eq!(relay.workers().len(), 1);
    });
}

#[test]
fn reset_of_the_client_reaches_the_remote() {
    each(|way| {
        let (peer, arrived) = Peer::manual();
        let (_relay, port) = through(way, &peer.remote());
        let mut client = connect(port);
        let mut remote = next(&arrived);
        client.write_all(b"x").expect("to send");
        remote.read_exact(&mut [0]).expect("to receive");
        reset(client);
        expect_reset(&mut remote);
    });
}

#[test]
fn reset_of_the_remote_reaches_the_client_behind_its_data() {
    each(|way| {
        let (peer, arrived) = Peer::manual();
        let (_relay, port) = through(way, &peer.remote());
        let mut client = connect(port);
        let mut remote = next(&arrived);
        client.write_all(b"x").expect("to send");
        remote.read_exact(&mut [0]).expect("to receive");
        remote.write_all(&pattern(5, 3000)).expect("to send");
        let mut data = vec![0; 3000];
        // Reset only after the data has arrived: a reset overtakes what the remote's kernel still
        // holds.
        client.read_exact(&mut data).expect("the data");
        assert!(data == pattern(5, 3000));
        reset(remote);
        expect_reset(&mut client);
    });
}

#[test]
fn an_answer_is_delivered_although_the_remote_resets() {
    each(|way| {
        // The remote does not read the request, answers and closes: its kernel sends a reset.
        let (peer, arrived) = Peer::manual();
        let (_relay, port) = through(way, &peer.remote());
        let mut client = connect(port);
        let remote = next(&arrived);
        client.write_all(&[1; 21_000]).expect("to send");
        let mut writer = &remote;
        writer.write_all(&pattern(6, 500_000)).expect("to answer");
        // Unread data must have arrived, or closing sends no reset.
        remote.peek(&mut [0]).expect("the request");
        drop(remote);
        let mut data = Vec::new();
        let result = client.read_to_end(&mut data);
        assert!(result.is_err(), "not a clean end: {result:?}");
        assert!(data == pattern(6, data.len()));
        assert!(data.len() > 100_000, "only {} bytes", data.len());
    });
}

#[test]
fn a_client_that_breaks_after_its_remote_is_noticed() {
    each(|way| {
        let (peer, arrived) = Peer::manual();
        let (relay, port) = through(way, &peer.remote());
        let worker = relay.workers()[0];
        let before = descriptors(worker);
        let client = connect(port);
        let mut remote = next(&arrived);
        remote.set_nonblocking(true).expect("nonblocking");
        // Sends more than the client's side accepts, then resets: the relay still holds data for
        // the client.
        while remote.write(&[0; 65536]).is_ok() {}
        reset(remote);
        // Nothing shows that the relay has seen it.
        outlast(Duration::from_millis(50));
        reset(client);
        wait_for("the end of the session", || (descriptors(worker) == before).then_some(()));
    });
}

/// Writes until nothing more is accepted for a while; returns how much was.
fn fill(stream: &Socket, data: &[u8]) -> usize {
    stream.set_nonblocking().expect("nonblocking");
    let (mut sent, mut last) = (0, Instant::now());
    while sent < data.len() && last.elapsed() < Duration::from_millis(300) {
        match stream.write(&data[sent..]) {
            Ok(count) => (sent, last) = (sent + count, Instant::now()),
            Err(_) => pace(Duration::from_millis(5)),
        }
    }
    sent
}

#[test]
fn the_answer_of_a_unix_remote_that_leaves_a_request_unread_is_delivered() {
    each(|way| {
        let directory = Directory::new();
        let path = directory.file("peer");
        let listener = UnixListener::bind(&path).expect("a listener");
        listener.set_nonblocking(true).expect("not to block");
        let (_relay, port) = through(way, &format!("remote = {{ address = {} }}", path.display()));
        let client = Socket::from(connect(port));
        let (remote, _) = wait_for("the relay's connection", || listener.accept().ok());
        let remote = Socket::from(remote);
        let data = pattern(8, 64 << 20);
        // Fills both directions: the remote reads nothing, nor does the client yet.
        fill(&client, &data);
        let answered = fill(&remote, &data);
        // Closing with unread input breaks the connection. The client must still get what was sent
        // before.
        drop(remote);
        let mut client = TcpStream::from(OwnedFd::from(client));
        client.set_nonblocking(false).expect("blocking");
        let mut got = Vec::new();
        let _ = client.read_to_end(&mut got);
        assert!(got.len() == answered && got == data[..answered], "{} of {answered}", got.len());
    });
}

#[test]
fn a_slow_client_gets_everything_of_a_remote_that_closed_long_ago() {
    each(|way| {
        let peer =
            Peer::start(|mut stream| stream.write_all(&pattern(7, 5_000_000)).expect("sent"));
        let (_relay, port) = through(way, &peer.remote());
        let mut client = connect(port);
        let mut data = Vec::new();
        let mut buffer = vec![0; 8192];
        loop {
            match client.read(&mut buffer).expect("to receive") {
                0 => break,
                count => data.extend_from_slice(&buffer[..count]),
            }
            if data.len() < 400_000 {
                pace(Duration::from_millis(1));
            }
        }
        assert!(data == pattern(7, 5_000_000));
    });
}
