//! Routes: by listener, server name, application protocol, client address and port, with TLS ended
//! here or passed on unopened.

mod common;

use common::modules::modules;
use common::pki::Identity;
use common::sockets::connect_from;
use common::*;
use openssl::ssl::{
    AlpnError, SslAcceptor, SslConnector, SslMethod, SslStream, SslVerifyMode, SslVersion,
};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// A TLS server that sends its name, then echoes.
fn tls_server(name: &'static str) -> Peer {
    let identity = Identity::own(&["localhost"]);
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).expect("a server");
    builder.set_certificate(&identity.certificate).expect("a certificate");
    builder.set_private_key(&identity.key).expect("its key");
    builder.set_alpn_select_callback(|_, offered| {
        openssl::ssl::select_next_proto(b"\x02h2\x08http/1.1", offered).ok_or(AlpnError::NOACK)
    });
    let acceptor = Arc::new(builder.build());
    Peer::start(move |stream| {
        let Ok(mut stream) = acceptor.accept(stream) else {
            return;
        };
        let _ = stream.write_all(name.as_bytes());
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            let _ = stream.write_all(&buffer[..count]);
        }
    })
}

fn tagged(peer: &Peer, tags: &str) -> String {
    format!("{}\n", peer.remote().replace('}', &format!("tag = {tags} }}")))
}

/// A relay whose listeners have the realms `outer` and `inner`.
fn relay(ports: [u16; 2], listener: &str, section: &str) -> Relay {
    let listen = |(port, realm): (u16, &str)| {
        format!("listen = {{ address = 127.0.0.1 port = {port} realm = {realm} {listener} }}\n")
    };
    let listeners: String = ports.into_iter().zip(["outer", "inner"]).map(listen).collect();
    Launch::new(format!(
        "id = spawnd {{\n{listeners}spawn {{ instances min = 1 instances max = 1 }}\n}}\n\
         id = tcprelay {{\naccess log = yes\n{section}\n}}\n"
    ))
    .start()
}

fn client(protocols: &[u8], version: SslVersion) -> SslConnector {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("a client");
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_min_proto_version(Some(version)).expect("a version");
    builder.set_max_proto_version(Some(version)).expect("a version");
    if !protocols.is_empty() {
        builder.set_alpn_protos(protocols).expect("protocols");
    }
    builder.build()
}

/// The name of the server that a handshake reaches; `None` if the session was refused.
fn server<S: Read + Write>(client: &SslConnector, name: &str, stream: S) -> Option<char> {
    let mut configuration = client.configure().expect("a client");
    configuration.set_use_server_name_indication(!name.is_empty());
    let name = if name.is_empty() { "localhost" } else { name };
    let mut stream: SslStream<S> = configuration.connect(name, stream).ok()?;
    let mut name = [0];
    stream.read_exact(&mut name).expect("a name");
    stream.write_all(b"ping").expect("to send");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"ping");
    Some(name[0].into())
}

/// The first letter that a plain client gets; `None` if the session was refused.
fn first(mut stream: TcpStream) -> Option<char> {
    let mut name = [0];
    stream.read_exact(&mut name).ok().map(|()| name[0].into())
}

/// Sends each byte in a segment of its own, as far as that is in our hands.
#[derive(Debug)]
struct Drip(TcpStream);

impl Read for Drip {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Drip {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        bytes.iter().try_for_each(|byte| self.0.write_all(&[*byte]))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

const NAMES: &str = "route = { sni = one.example, *.one.example to = one }\n\
                     route = { alpn = h2 to = two }\n\
                     route = { sni = no.example to = reject }\n\
                     route default = three\n";

#[test]
fn names_and_protocols_of_connections_that_are_passed_on_unopened() {
    let servers = ["1", "2", "3"].map(tls_server);
    let remotes: String =
        servers.iter().zip(["one", "two", "three"]).map(|(peer, tag)| tagged(peer, tag)).collect();
    let ports = [free_port(), free_port()];
    let relay = relay(ports, "tls = inspect", &format!("{NAMES}{remotes}"));
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let (plain, h2) = (client(b"", version), client(b"\x08http/1.1\x02h2", version));
        for (client, name, expected) in [
            (&plain, "one.example", Some('1')),
            (&plain, "ONE.example", Some('1')),
            (&h2, "deep.www.one.example", Some('1')),
            (&h2, "other.example", Some('2')),
            (&h2, "", Some('2')),
            (&plain, "other.example", Some('3')),
            (&plain, "", Some('3')),
            (&plain, "no.example", None),
        ] {
            assert_eq!(server(client, name, connect(ports[0])), expected, "{name}");
            assert_eq!(server(client, name, Drip(connect(ports[0]))), expected, "{name}, dripping");
        }
    }
    relay.expect_log("rejected by route 3 route 3");
    for number in ["1", "2", "default"] {
        relay.expect_log(&format!("closed route {number}"));
    }
}

#[test]
fn what_is_no_client_hello_takes_the_default_route() {
    let (named, other) = (Peer::named("n"), Peer::echo());
    let ports = [free_port(), free_port()];
    let section = format!(
        "tls handshake timeout = 1\nroute = {{ sni = a.example to = named }}\n\
         route default = other\n{}{}",
        tagged(&named, "named"),
        tagged(&other, "other")
    );
    let relay = relay(ports, "tls = inspect", &section);
    for data in [
        &b"GET / HTTP/1.0\r\n\r\n"[..],
        b"\x80\x2e\x01\x03\x01 of SSL 2",
        b"\x16\x03\x01\x00\x04\x02 no hello",
        b"\x16\x03\x01\x00\x00 an empty record",
    ] {
        let mut stream = connect(ports[0]);
        stream.write_all(data).expect("to send");
        let mut answer = vec![0; data.len()];
        stream.read_exact(&mut answer).expect("an echo");
        assert_eq!(answer, data);
    }
    // Too little to tell: for some time it may yet come.
    let mut silent = connect(ports[0]);
    silent.write_all(b"\x16\x03\x01\x02").expect("to send");
    assert_eq!(silent.read(&mut [0]).unwrap_or(0), 0);
    relay.expect_log("handshake timeout");
    // The end of what a client sends ends the waiting as well.
    let mut short = connect(ports[0]);
    short.write_all(b"\x16\x03").expect("to send");
    short.shutdown(std::net::Shutdown::Write).expect("to end");
    let mut answer = Vec::new();
    short.read_to_end(&mut answer).expect("an echo");
    assert_eq!(answer, b"\x16\x03");
}

#[test]
fn the_same_conditions_hold_where_tls_is_ended() {
    let peers = [Peer::named("1"), Peer::named("2"), Peer::named("3")];
    let remotes: String =
        peers.iter().zip(["one", "two", "three"]).map(|(peer, tag)| tagged(peer, tag)).collect();
    let files = Directory::new();
    let identity = Identity::own(&["localhost"]);
    let ports = [free_port(), free_port()];
    let section = format!(
        "{}tls alpn = h2, http/1.1\n{NAMES}{remotes}",
        identity.directives(files.path(), "own")
    );
    let _relay = relay(ports, "tls = yes", &section);
    let name = |client: &SslConnector, name: &str| {
        let mut stream = client.connect(name, connect(ports[0])).ok()?;
        let mut name = [0];
        stream.read_exact(&mut name).ok().map(|()| char::from(name[0]))
    };
    let (plain, h2) = (client(b"", SslVersion::TLS1_3), client(b"\x02h2", SslVersion::TLS1_3));
    assert_eq!(name(&plain, "a.one.example"), Some('1'));
    assert_eq!(name(&h2, "other.example"), Some('2'));
    assert_eq!(name(&plain, "other.example"), Some('3'));
    assert_eq!(name(&plain, "no.example"), None);
}

#[test]
fn listeners_addresses_and_ports() {
    let peers = [Peer::named("1"), Peer::named("2"), Peer::named("3"), Peer::named("4")];
    let tags = ["one", "two", "three", "four"];
    let remotes: String = peers.iter().zip(tags).map(|(peer, tag)| tagged(peer, tag)).collect();
    let ports = [free_port(), free_port()];
    let section = format!(
        "route = {{ from = 127.0.0.8, 127.0.0.16/28 listener = inner to = one }}\n\
         route = {{ from = 127.0.0.9 to = reject }}\n\
         route = {{ port = {} from = 127.0.0.0/29 to = two }}\n\
         route = {{ listener = outer to = three }}\n\
         route default = four\n{remotes}",
        ports[0]
    );
    let relay = relay(ports, "", &section);
    for (last, port, expected) in [
        (8, 1, Some('1')),
        (17, 1, Some('1')),
        (8, 0, Some('3')),
        (9, 0, None),
        (9, 1, None),
        (3, 0, Some('2')),
        (3, 1, Some('4')),
        (99, 0, Some('3')),
        (99, 1, Some('4')),
    ] {
        assert_eq!(first(connect_from(last, ports[port])), expected, "127.0.0.{last} {port}");
    }
    relay.expect_log("closed route 1");
    relay.expect_log("closed route default");
}

#[test]
fn modules_narrow_what_routes_have_left() {
    let peers = ["1", "2", "3", "4"].map(Peer::named);
    let remotes = [
        tagged(&peers[0], "web, blue"),
        tagged(&peers[1], "web, green"),
        tagged(&peers[2], "mail, blue"),
        tagged(&peers[3], "other"),
    ];
    let ports = [free_port(), free_port()];
    let section = format!(
        "mavis path = {}\nmavis module = bare {{ script in = {{\n\
         if (USER == \"127.0.0.3\") set CUSTOM_0 = blue\n\
         if (USER == \"127.0.0.4\") set CUSTOM_0 = other\n\
         set RESULT = ACK return }} }}\n\
         authorization = mavis\nsandbox = yes\n\
         route = {{ listener = outer to = web }}\nroute = {{ listener = inner to = mail }}\n{}",
        modules().display(),
        remotes.concat()
    );
    let relay = relay(ports, "", &section);
    for _ in 0..4 {
        assert_eq!(first(connect_from(3, ports[0])), Some('1'));
        assert_eq!(first(connect_from(3, ports[1])), Some('3'));
    }
    let both = [(); 4].map(|()| first(connect_from(2, ports[0])));
    assert!(both.contains(&Some('1')) && both.contains(&Some('2')), "{both:?}");
    assert_eq!(first(connect_from(4, ports[0])), None);
    relay.expect_log("no remote has the tag \"other\"");
}
