//! Routes: by listener, server name, application protocol, client address and port. tests/inspect.rs
//! has those where TLS is passed on unopened.

mod common;

use common::modules::modules;
use common::pki::Identity;
use common::sockets::connect_from;
use common::tls::client;
use common::*;
use openssl::ssl::{SslConnector, SslVersion};
use std::io::Read;
use std::net::TcpStream;

/// A relay whose listeners have the realms `outer` and `inner`.
fn realms(ports: [u16; 2], listener: &str, section: &str) -> Relay {
    let [outer, inner] = ports;
    let second =
        format!("listen = {{ address = 127.0.0.1 port = {inner} realm = inner {listener} }}");
    let first = format!("realm = outer {listener}");
    let layout = relay(format!("access log = yes\n{section}")).port(outer);
    layout.listen(&first).broker(&second).start().0
}

/// The first letter that a plain client gets; `None` if the session was refused.
fn first(mut stream: TcpStream) -> Option<char> {
    let mut name = [0];
    stream.read_exact(&mut name).ok().map(|()| name[0].into())
}

const NAMES: &str = "route = { sni = one.example, *.one.example to = one }\n\
                     route = { alpn = h2 to = two }\n\
                     route = { sni = no.example to = reject }\n\
                     route default = three\n";

#[test]
fn the_same_conditions_hold_where_tls_is_ended() {
    let peers = [Peer::named("1"), Peer::named("2"), Peer::named("3")];
    let remotes: String =
        peers.iter().zip(["one", "two", "three"]).map(|(peer, tag)| peer.tagged(tag)).collect();
    let files = Directory::new();
    let identity = Identity::own(&["localhost"]);
    let ports = [free_port(), free_port()];
    let section = format!(
        "{}tls alpn = h2, http/1.1\n{NAMES}{remotes}",
        identity.directives(files.path(), "own")
    );
    let _relay = realms(ports, "tls = yes", &section);
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
    let remotes: String = peers.iter().zip(tags).map(|(peer, tag)| peer.tagged(tag)).collect();
    let ports = [free_port(), free_port()];
    let section = format!(
        "route = {{ from = 127.0.0.8, 127.0.0.16/28 listener = inner to = one }}\n\
         route = {{ from = 127.0.0.9 to = reject }}\n\
         route = {{ port = {} from = 127.0.0.0/29 to = two }}\n\
         route = {{ listener = outer to = three }}\n\
         route default = four\n{remotes}",
        ports[0]
    );
    let relay = realms(ports, "", &section);
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
        peers[0].tagged("web, blue"),
        peers[1].tagged("web, green"),
        peers[2].tagged("mail, blue"),
        peers[3].tagged("other"),
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
    let relay = realms(ports, "", &section);
    for _ in 0..4 {
        assert_eq!(first(connect_from(3, ports[0])), Some('1'));
        assert_eq!(first(connect_from(3, ports[1])), Some('3'));
    }
    let both = [(); 4].map(|()| first(connect_from(2, ports[0])));
    assert!(both.contains(&Some('1')) && both.contains(&Some('2')), "{both:?}");
    assert_eq!(first(connect_from(4, ports[0])), None);
    relay.expect_log("no remote has the tag \"other\"");
}
