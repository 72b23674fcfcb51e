//! The PROXY protocol: what remotes are told about clients, and what is believed of senders.

mod common;

use common::modules::modules;
use common::pki::Identity;
use common::ways::*;
use common::*;
use mavis::upstream::proxy::{read, Certificate, Header, Origin, Reading, Tls as Told};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

/// A remote that is told about clients.
fn told(peer: &Peer, version: &str) -> String {
    peer.remote().replace('}', &format!("proxy protocol = {version} }}"))
}

/// Both sections; the listener has further directives.
fn config(port: u16, listen: &str, section: &str) -> Launch {
    relay(format!("{section}\naccess log = yes")).port(port).listen(listen).launch().0
}

/// Reads a header, and no more than that.
fn header(stream: &mut TcpStream) -> Header {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    loop {
        stream.read_exact(&mut byte).expect("a header");
        bytes.push(byte[0]);
        match read(&bytes) {
            Reading::Incomplete => {}
            Reading::Complete(header, length) if length == bytes.len() => return *header,
            other => panic!("{other:?}: {bytes:?}"),
        }
    }
}

fn ends(header: &Header) -> (SocketAddr, SocketAddr) {
    use mavis::os::address::Address::Ip;
    match &header.origin {
        Origin::Client { source: Ip(source), destination: Ip(destination) } => {
            (*source, *destination)
        }
        other => panic!("{other:?}"),
    }
}

fn read_all(stream: &mut TcpStream) -> String {
    let mut data = Vec::new();
    // A refusal may be a reset, if something was sent that nobody has read.
    let _ = stream.read_to_end(&mut data);
    String::from_utf8(data).expect("text")
}

#[test]
fn a_remote_that_speaks_first_is_told_at_once_who_the_client_is() {
    each(|way| {
        for version in ["v1", "v2"] {
            let (peer, arrived) = Peer::manual();
            let (_relay, port) = through(way, &told(&peer, version));
            let mut client = connect(port);
            let own = client.local_addr().expect("an address");
            let mut remote = next(&arrived);
            let header = header(&mut remote);
            // With TLS there is another relay between them.
            if way.tls.is_none() {
                assert_eq!(ends(&header), (own, SocketAddr::from(([127, 0, 0, 1], port))));
            }
            remote.write_all(b"hello").expect("to greet");
            let mut greeting = [0; 5];
            client.read_exact(&mut greeting).expect("the greeting");
            client.write_all(b"well").expect("to send");
            client.shutdown(Shutdown::Write).expect("to shut down");
            assert_eq!(read_all(&mut remote), "well");
        }
    });
}

#[test]
fn the_header_and_the_first_data_leave_together() {
    for version in ["v1", "v2"] {
        let (peer, arrived) = Peer::manual();
        let (relay, port) = through("4", &told(&peer, version));
        let worker = relay.workers()[0];
        for _ in 0..10 {
            // The client's data is there before its session begins.
            stop(worker);
            let mut client = connect(port);
            client.write_all(b"first").expect("to send");
            kill(worker, nix::sys::signal::Signal::SIGCONT);
            let mut remote = next(&arrived);
            let mut bytes = [0; 1000];
            let count = remote.read(&mut bytes).expect("a segment");
            let Reading::Complete(_, length) = read(&bytes[..count]) else {
                panic!("{:?}", &bytes[..count]);
            };
            assert_eq!(&bytes[length..count], b"first");
        }
    }
}

#[test]
fn a_tls_remote_gets_the_header_before_the_handshake_and_all_about_the_clients_tls() {
    let files = Directory::new();
    let authority = Identity::authority("Authority");
    let own = authority.sign(&["localhost", "127.0.0.1"], common::pki::ec_key());
    let of_client = authority.sign(&["client.example"], common::pki::ec_key());
    authority.write(files.path(), "authority");
    let (certificate, key) = of_client.write(files.path(), "client");
    let ca = files.file("authority.pem");
    let ca = ca.display();
    let (peer, arrived) = Peer::manual();
    let ports: [u16; 3] = std::array::from_fn(|_| free_port());
    let directives = own.directives(files.path(), "own");
    // The last one says what it was told, and what it knows itself.
    let _last = config(
        ports[2],
        "haproxy = yes tls = auto",
        &format!("{}\n{directives}", told(&peer, "v2")),
    )
    .start();
    let _middle = config(
        ports[1],
        "tls = yes",
        &format!(
            "{}\n{directives} tls ca-file = {ca} tls verify = required\n",
            remote(ports[2]).replace('}', "proxy protocol = v2 }")
        ),
    )
    .start();
    let _first = config(
        ports[0],
        "",
        &format!(
            "remote = {{ address = 127.0.0.1 port = {} tls = yes tls ca-file = {ca} \
             tls server-name = localhost tls cert-file = {} tls key-file = {} }}",
            ports[1],
            certificate.display(),
            key.display(),
        ),
    )
    .start();
    let mut client = connect(ports[0]);
    client.write_all(b"x").expect("to send");
    let mut remote = next(&arrived);
    let header = header(&mut remote);
    let (_, destination) = ends(&header);
    assert_eq!(destination.port(), ports[1]);
    assert_eq!(header.authority.as_deref(), Some(&b"localhost"[..]));
    let tls = header.tls.expect("it was told of TLS");
    assert_eq!(tls.version, b"TLSv1.3");
    assert_eq!(
        tls,
        Told {
            common_name: Some(b"client.example".to_vec()),
            certificate: Certificate::Presented,
            verified: true,
            ..tls.clone()
        }
    );
    assert!(tls.cipher.is_some_and(|cipher| cipher.starts_with(b"TLS_")));
    ping_back(&mut client, &mut remote);
    // The header is before TLS: this remote takes it off first.
    let port = free_port();
    let _secure = config(
        port,
        "",
        &format!(
            "remote = {{ address = 127.0.0.1 port = {} tls = yes tls ca-file = {ca} \
             tls server-name = localhost proxy protocol = v1 }}",
            ports[2]
        ),
    )
    .start();
    let mut client = connect(port);
    let from = client.local_addr().expect("an address");
    client.write_all(b"x").expect("to send");
    let mut remote = next(&arrived);
    let header = self::header(&mut remote);
    assert_eq!(ends(&header).0, from);
    assert!(header.tls.is_some());
    ping_back(&mut client, &mut remote);
}

/// The remote gets "x", and an answer gets back.
fn ping_back(client: &mut TcpStream, remote: &mut TcpStream) {
    let mut byte = [0];
    remote.read_exact(&mut byte).expect("the request");
    assert_eq!(&byte, b"x");
    remote.write_all(b"y").expect("to answer");
    client.read_exact(&mut byte).expect("the answer");
    assert_eq!(&byte, b"y");
}

const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.8 1234 443\r\n";

/// Version 2: the same addresses, a unique id, a field that nobody knows, and a checksum.
fn binary() -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x22".to_vec();
    bytes.extend([192, 0, 2, 7, 192, 0, 2, 8, 0x04, 0xd2, 0x01, 0xbb]);
    bytes.extend(b"\x05\x00\x06number\xee\x00\x03abc\x03\x00\x04");
    bytes.extend(checksum(&[&bytes[..], &[0; 4]].concat()).to_be_bytes());
    bytes
}

/// CRC-32C, bit by bit.
fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

#[test]
fn the_clients_address_is_the_headers_wherever_the_header_is_cut() {
    each(|way| {
        let (peer, arrived) = Peer::manual();
        let port = free_port();
        let section = format!("{}{}", way.directives, told(&peer, "v2"));
        let launch = config(port, "haproxy = yes", &section).mechanism(way.mechanism);
        let relay = launch.start();
        for header in [LINE.to_vec(), binary()] {
            // All cuts with the first way, some with the others.
            let step = if way.directives.is_empty() { 1 } else { 7 };
            for cut in (0..=header.len()).step_by(step) {
                let mut client = connect(port);
                let whole = [&header[..], b"x"].concat();
                client.write_all(&whole[..cut]).expect("to send");
                thread::yield_now();
                client.write_all(&whole[cut..]).expect("to send");
                let mut remote = next(&arrived);
                let found = self::header(&mut remote);
                assert_eq!(ends(&found).0.to_string(), "192.0.2.7:1234");
                assert_eq!(ends(&found).1.to_string(), "192.0.2.8:443");
                ping_back(&mut client, &mut remote);
            }
        }
        relay.expect_log("access: client [192.0.2.7]:1234 listener ");
        relay.expect_log(" via [127.0.0.1]:");
        relay.expect_log(" id \"number\"");
    });
}

#[test]
fn without_a_proper_header_nobody_gets_through() {
    let peer = Peer::named("served");
    let port = free_port();
    let launch = config(port, "haproxy = yes", &format!("haproxy timeout = 2\n{}", peer.remote()));
    let relay = launch.start();
    let mut wrong = binary();
    let last = wrong.len() - 1;
    wrong[last] ^= 1;
    for (bytes, why) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "PROXY header from [127.0.0.1]:"),
        (b"PROXY TCP4 here there 1 2\r\n", "the line is not understood"),
        (&wrong, "the checksum is wrong"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", "it is too long"),
        (b"PROXY TCP4 ", "it did not come in time"),
        (b"", "PROXY header timeout"),
    ] {
        let mut client = connect(port);
        client.write_all(bytes).expect("to send");
        assert_eq!(read_all(&mut client), "", "{why}");
        relay.expect_log(why);
    }
    // A client on a UNIX socket, and the paths of both ends.
    let mut unix = b"\r\n\r\n\0\r\nQUIT\n\x21\x31\x00\xd8".to_vec();
    for path in [&b"/run/client"[..], b"/run/proxy"] {
        let mut field = [0; 108];
        field[..path.len()].copy_from_slice(path);
        unix.extend(field);
    }
    for bytes in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00", LINE, &unix] {
        let mut client = connect(port);
        client.write_all(bytes).expect("to send");
        client.shutdown(Shutdown::Write).expect("to shut down");
        assert_eq!(read_all(&mut client), "served");
    }
}

#[test]
fn an_optional_header_may_be_missing() {
    let peer = Peer::named("served ");
    let port = free_port();
    let section = format!("haproxy timeout = 2\n{}", peer.remote());
    let relay = config(port, "haproxy = optional", &section).start();
    for (bytes, answer) in [
        (&b"GET /"[..], "served GET /"),
        (b"P", "served P"),
        (b"", "served "),
        (&[LINE, b"more"].concat(), "served more"),
        (b"PROXY nonsense\r\n", ""),
    ] {
        let mut client = connect(port);
        client.write_all(bytes).expect("to send");
        client.shutdown(Shutdown::Write).expect("to shut down");
        assert_eq!(read_all(&mut client), answer);
    }
    // The client waits for the remote to speak first.
    let mut client = connect(port);
    let mut greeting = [0; 7];
    client.read_exact(&mut greeting).expect("the greeting");
    ping(&mut client, b"then");
    relay.expect_log("access: client [192.0.2.7]:1234 ");
}

#[test]
fn only_those_named_are_believed() {
    let peer = Peer::named("served ");
    let (strict, open, known) = (free_port(), free_port(), free_port());
    let listen =
        |port, more: &str| format!("listen = {{ address = 127.0.0.1 port = {port} {more} }}");
    let relay = Launch::new(format!(
        "id = spawnd {{ {} {} {} spawn {{ instances min = 1 instances max = 1 }} }}\n\
         id = tcprelay {{ {} }}\n",
        listen(strict, "haproxy = yes haproxy from = 192.0.2.0/24 haproxy from = ::1"),
        listen(open, "haproxy = optional haproxy from = 192.0.2.0/24"),
        listen(known, "haproxy = yes haproxy from = 192.0.2.0/24 haproxy from = 127.0.0.0/8"),
        peer.remote()
    ))
    .start();
    for (port, bytes, answer) in [
        (strict, LINE, ""),
        (open, LINE, ""),
        (open, b"hello", "served hello"),
        (known, LINE, "served "),
    ] {
        let mut client = connect(port);
        // This fails if the sender was refused already.
        let _ = client.write_all(bytes);
        let _ = client.shutdown(Shutdown::Write);
        assert_eq!(read_all(&mut client), answer);
    }
    relay.expect_log("rejected: not in 'haproxy from'");
    relay.expect_log("the sender is not in 'haproxy from'");
}

#[test]
fn modules_decide_by_the_address_in_the_header() {
    let peer = Peer::named("served ");
    let port = free_port();
    let chain = r#"mavis module = bare { script in = {
        if (USER == "192.0.2.7" && SERVERIP == "192.0.2.8") { set RESULT = ACK return }
        set RESULT = NAK return
    } }
    authorization = mavis"#;
    let modules = modules().display();
    let section = format!("mavis path = {modules}\n{chain}\nsandbox = yes\n{}", peer.remote());
    let _relay = config(port, "haproxy = yes", &section).start();
    let other = b"PROXY TCP4 192.0.2.9 192.0.2.8 1234 443\r\n";
    for (line, answer) in [(LINE, "served "), (other, "")] {
        let mut client = connect(port);
        client.write_all(line).expect("to send");
        client.shutdown(Shutdown::Write).expect("to shut down");
        assert_eq!(read_all(&mut client), answer);
    }
}

#[test]
fn the_access_list_applies_to_the_sender_and_to_the_address_in_the_header() {
    let peer = Peer::named("served ");
    for single in ["no", "yes"] {
        let port = free_port();
        let relay = Launch::new(format!(
            "id = spawnd {{\n single process = {single}\n permit 127.0.0.1 permit 192.0.2.7\n \
             listen = {{ address = 127.0.0.1 port = {port} haproxy = yes }}\n \
             spawn {{ instances min = 1 instances max = 1 }}\n}}\n\
             id = tcprelay {{ {} }}\n",
            peer.remote()
        ))
        .ready(usize::from(single == "no"))
        .start();
        wait_for("the listener", || TcpStream::connect(("127.0.0.1", port)).ok());
        let other = b"PROXY TCP4 192.0.2.9 192.0.2.8 1234 443\r\n";
        for (line, answer) in [(LINE, "served "), (other, "")] {
            let mut client = connect(port);
            client.write_all(line).expect("to send");
            client.shutdown(Shutdown::Write).expect("to shut down");
            assert_eq!(read_all(&mut client), answer, "{single}");
        }
        relay.expect_log("PROXY header: client [192.0.2.9]:1234: denied by ACL");
    }
}

#[test]
fn routes_and_stickiness_go_by_the_address_in_the_header() {
    let servers = ["a", "b", "c", "d"].map(Peer::named);
    let tags = ["own", "others", "others", "others"];
    let remotes: String = servers.iter().zip(tags).map(|(peer, tag)| peer.tagged(tag)).collect();
    let port = free_port();
    let section = format!(
        "balance = source\nroute = {{ from = 198.51.100.0/24 to = own }}\n\
         route default = others\n{remotes}"
    );
    let relay = config(port, "haproxy = yes", &section).start();
    let server = |host: String| -> char {
        let mut client = connect(port);
        let header = format!("PROXY TCP4 {host} 192.0.2.8 1234 443\r\n");
        client.write_all(header.as_bytes()).expect("to send");
        let mut name = [0];
        client.read_exact(&mut name).expect("a name");
        name[0].into()
    };
    assert_eq!(server("198.51.100.7".into()), 'a');
    relay.expect_log("route 1 (from 198.51.100.7)");
    let all = || (1..40).map(|last| server(format!("192.0.2.{last}"))).collect::<String>();
    let first = all();
    assert!("bcd".chars().all(|name| first.contains(name)) && !first.contains('a'), "{first}");
    assert_eq!(all(), first);
}

#[test]
fn directives_are_checked() {
    for (listen, remote, complaint) in [
        ("haproxy = maybe", "", "'no', 'optional', 'permit', 'true' or 'yes', but got 'maybe'"),
        ("haproxy from = ::1", "", "'haproxy from' needs 'haproxy = yes' or 'haproxy = optional'"),
        ("haproxy = yes haproxy from = here", "", "an IP address or network in CIDR notation"),
        ("", "proxy protocol = v3", "Expected 'v1' or 'v2', but got 'v3'"),
        ("", "proxy = v1", "Expected 'protocol', but got '='"),
    ] {
        let remote = format!("remote = {{ address = 127.0.0.1 port = 1 {remote} }}");
        let finished = config(free_port(), listen, &remote).argument("-P").finish();
        finished.exits(78).says(complaint);
    }
}
