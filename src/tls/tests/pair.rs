//! Our side and OpenSSL's, joined in memory.

use super::*;

/// The other side's end of the wire.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    pub(super) input: VecDeque<u8>,
    pub(super) output: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input.read(buffer)
    }
}

impl Write for Pipe {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Our side and OpenSSL's.
pub(super) struct Pair {
    pub(super) ours: Stream,
    pub(super) peer: SslStream<Pipe>,
    /// Lengths of the pieces in which bytes reach us, used in turn; if empty, they arrive as they
    /// come.
    pub(super) pieces: Vec<usize>,
    pub(super) next: usize,
    /// What OpenSSL's side sends as soon as it may.
    pub(super) eager: Vec<u8>,
    pub(super) plain: Buffer,
    /// The other side has sent us close_notify.
    pub(super) closed: bool,
    /// Why our side has failed.
    pub(super) error: Option<String>,
    pub(super) done: bool,
    /// The alert that OpenSSL's side has received, or another reason for its failure.
    pub(super) alert: Option<u32>,
    /// Our side has sent close_notify.
    pub(super) peer_closed: bool,
    /// The bytes that we have sent, piece by piece.
    pub(super) flights: Vec<Vec<u8>>,
    /// How many signatures another process has made.
    pub(super) signatures: usize,
}

impl Pair {
    pub(super) fn new(ours: Stream, peer: Ssl) -> Pair {
        let peer = SslStream::new(peer, Pipe::default()).unwrap();
        Pair {
            ours,
            peer,
            pieces: Vec::new(),
            next: 0,
            eager: Vec::new(),
            plain: Buffer::default(),
            closed: false,
            error: None,
            done: false,
            alert: None,
            peer_closed: false,
            flights: Vec::new(),
            signatures: 0,
        }
    }

    /// A client of OpenSSL, with our side as the server.
    pub(super) fn server(
        acceptor: &Acceptor,
        versions: u32,
        client: &SslContext,
        name: &str,
    ) -> Pair {
        Pair::server_with(acceptor, versions, client, name, |_| ())
    }

    /// A client that resumes a session.
    pub(super) fn resuming(
        acceptor: &Acceptor,
        client: &SslContext,
        name: &str,
        session: &SslSession,
    ) -> Pair {
        Pair::server_with(acceptor, BOTH, client, name, |ssl| {
            library::resume(ssl, session).unwrap()
        })
    }

    pub(super) fn server_with(
        acceptor: &Acceptor,
        versions: u32,
        client: &SslContext,
        name: &str,
        change: impl FnOnce(&mut SslRef),
    ) -> Pair {
        let mut ours = acceptor.accept(versions).unwrap();
        ours.want_summary();
        let mut ssl = Ssl::new(client).unwrap();
        if !name.is_empty() {
            ssl.set_hostname(name).unwrap();
        }
        change(&mut ssl);
        ssl.set_connect_state();
        Pair::new(ours, ssl)
    }

    /// A server of OpenSSL, with our side as the client.
    pub(super) fn client(connector: &Connector, server: &SslContext) -> Pair {
        let mut ours = connector.connect().unwrap();
        ours.want_summary();
        let mut ssl = Ssl::new(server).unwrap();
        ssl.set_accept_state();
        let mut pair = Pair::new(ours, ssl);
        pair.feed(&[]);
        pair
    }

    /// Hands bytes from the wire to our side, as the relay does.
    pub(super) fn feed(&mut self, piece: &[u8]) {
        if self.error.is_some() {
            return;
        }
        let mut out = Buffer::default();
        let result = if self.ours.is_handshaking() {
            let mut result = self.ours.handshake(piece, &mut out);
            while let Ok(Step::Signing(_)) = result {
                self.signatures += keys::sign_all();
                result = self.ours.handshake(&[], &mut out);
            }
            result.map(|_| ())
        } else {
            let held = self.ours.held();
            let mut wire = vec![0; held + piece.len()];
            self.ours.take_held(&mut wire);
            wire[held..].copy_from_slice(piece);
            let result = self.ours.read(&wire, &mut self.plain, &mut out);
            result.map(|closed| self.closed = closed)
        };
        self.sent(&out);
        self.error = result.err();
        if !self.ours.is_handshaking() && self.ours.has_unread() {
            self.feed(&[]);
        }
    }

    pub(super) fn sent(&mut self, out: &Buffer) {
        if !out.is_empty() {
            self.flights.push(out.filled().to_vec());
            self.peer.get_mut().input.extend(out.filled());
        }
    }

    /// Takes what the other side has written from the wire.
    pub(super) fn wire(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.peer.get_mut().output)
    }

    pub(super) fn feed_all(&mut self, mut wire: &[u8]) {
        while !wire.is_empty() {
            let length = match self.pieces.len() {
                0 => wire.len(),
                count => {
                    self.next += 1;
                    self.pieces[self.next % count].clamp(1, wire.len())
                }
            };
            let (piece, rest) = wire.split_at(length);
            self.feed(piece);
            wire = rest;
        }
    }

    /// Hands what the other side has written to our side. True if there was anything.
    pub(super) fn pass(&mut self) -> bool {
        let wire = self.wire();
        self.feed_all(&wire);
        !wire.is_empty()
    }

    /// Does the handshake, as far as that goes.
    pub(super) fn handshake(mut self) -> Pair {
        loop {
            if !self.done && self.alert.is_none() {
                match self.peer.do_handshake() {
                    Ok(()) => {
                        self.done = true;
                        let eager = std::mem::take(&mut self.eager);
                        if !eager.is_empty() {
                            self.peer.write_all(&eager).unwrap();
                        }
                    }
                    Err(error) if error.code() == ErrorCode::WANT_READ => {}
                    Err(error) => self.alert = Some(reason(&error)),
                }
            }
            if !self.pass() {
                return self;
            }
        }
    }

    /// Does the whole handshake, which must succeed.
    pub(super) fn established(self) -> Pair {
        let pair = self.handshake();
        assert_eq!((&pair.error, pair.alert), (&None, None));
        assert!(pair.done && !pair.ours.is_handshaking());
        pair
    }

    /// Does a handshake that must fail. Returns the reason on our side, and the alert on the other.
    pub(super) fn refused(self) -> (String, Option<u32>) {
        let mut pair = self.handshake();
        // A TLS 1.3 client learns of it later.
        pair.peer_reads();
        (pair.error.expect("a failure"), pair.alert)
    }

    pub(super) fn write(&mut self, data: &[u8]) {
        let mut out = Buffer::default();
        self.ours.write(data, &mut out).unwrap();
        assert_eq!(out.is_empty(), data.is_empty());
        self.sent(&out);
    }

    pub(super) fn peer_writes(&mut self, data: &[u8]) {
        if !data.is_empty() {
            self.peer.write_all(data).unwrap();
        }
        self.pass();
    }

    /// All that the other side can read now.
    pub(super) fn peer_reads(&mut self) -> Vec<u8> {
        let (mut all, mut buffer) = (Vec::new(), [0; 20_000]);
        loop {
            match self.peer.ssl_read(&mut buffer) {
                Ok(count) => all.extend_from_slice(&buffer[..count]),
                Err(error) => {
                    match error.code() {
                        ErrorCode::WANT_READ => {}
                        ErrorCode::ZERO_RETURN => self.peer_closed = true,
                        _ => self.alert = self.alert.or(Some(reason(&error))),
                    }
                    return all;
                }
            }
        }
    }

    /// All that our side has read.
    pub(super) fn reads(&mut self) -> Vec<u8> {
        let all = self.plain.filled().to_vec();
        self.plain.clear();
        all
    }

    /// Sends data in both directions.
    pub(super) fn talk(&mut self, sizes: &[usize]) {
        for &size in sizes {
            let data = pattern(size);
            self.peer_writes(&data);
            assert_eq!(self.error, None);
            assert!(self.reads() == data, "{size} bytes from OpenSSL");
            self.write(&data);
            assert!(self.peer_reads() == data, "{size} bytes to OpenSSL");
            assert_eq!(self.alert, None);
            self.pass();
        }
        assert_eq!((self.closed, self.peer_closed), (false, false));
    }

    pub(super) fn ssl(&self) -> &SslRef {
        self.peer.ssl()
    }

    /// Who handles our records.
    pub(super) fn handler(&self) -> String {
        format!("{:?}", self.ours)
    }

    /// Our side must have failed, have sent this alert, and have delivered nothing.
    pub(super) fn broken_with(mut self, alert: u8) {
        assert!(self.error.is_some(), "expected alert {alert}, and no failure");
        assert_eq!(self.reads(), b"");
        self.peer_reads();
        assert_eq!(self.alert, got(alert), "{:?}", self.error);
        let mut out = Buffer::default();
        assert!(self.ours.write(b"x", &mut out).is_err());
        assert!(self.ours.read(b"", &mut self.plain, &mut out).is_err());
        self.ours.close(&mut out);
        assert!(out.is_empty());
    }

    /// Plays the other side from here on, with its keys. The secrets come from `lines`.
    pub(super) fn seized(&self, choice: Choice, lines: &Lines) -> Direction {
        if choice.tls13 {
            return Direction::tls13(choice.number, &lines.secret("CLIENT_TRAFFIC_SECRET_0"));
        }
        let (mut client, mut server) = ([0; 32], [0; 32]);
        self.ssl().client_random(&mut client);
        self.ssl().server_random(&mut server);
        let master = lines.secret("CLIENT_RANDOM");
        let [client, _] = Direction::tls12(choice.number, &master, &client, &server);
        client
    }
}
