//! The PROXY protocol with other software before and behind the relay: HAProxy, nginx, Envoy, curl,
//! another relay, and a parser in Python.

#[path = "../common/mod.rs"]
mod common;
mod software;

use common::pki::Identity;
use common::*;
use mavis::os::address::{Address, Family};
use mavis::os::socket::{Addressed, Kind, Options, Protocol, Socket};
use openssl::ssl::{SslConnector, SslFiletype, SslMethod};
use software::Software::{self, *};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;

/// What a server at the end says of a client, and the client's own address.
fn ask(address: SocketAddr) -> (SocketAddr, String) {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let own = stream.local_addr().expect("an address");
    (own, answer(stream))
}

/// The body that a server answers with.
fn answer(mut stream: impl Read + Write) -> String {
    let request = b"GET / HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n";
    stream.write_all(request).expect("to send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains("200 OK"), "{answer:?}");
    answer.rsplit("\r\n\r\n").next().unwrap_or_default().trim().to_owned()
}

const VERSIONS: [&str; 2] = ["v1", "v2"];
/// The addresses that the proxies in front listen on.
const HOSTS: [&str; 2] = ["127.0.0.1", "[::1]"];

/// Each of them in front of the relay and each behind it, with both versions on both sides, over
/// IPv4 and IPv6.
#[test]
fn addresses_survive_whoever_is_before_and_behind() {
    let directory = Directory::new();
    let all = Software::present();
    let behind: Vec<(Software, u16)> = {
        let ends: Vec<_> = all.iter().filter(|one| **one != Relay).collect();
        let ports: Vec<_> = ends.iter().map(|_| free_port()).collect();
        ends.into_iter().copied().zip(ports).collect()
    };
    let _ends: Vec<_> = behind.iter().map(|(one, port)| one.answer(&directory, *port)).collect();
    // The relay answers nothing itself: HAProxy does behind it.
    let haproxy = behind[0].1;
    let second = free_port();
    let _second = Launch::new(format!(
        "id = spawnd {{\n listen = {{ address = 127.0.0.1 port = {second} haproxy = yes }}\n \
         spawn {{ instances min = 1 instances max = 1 }}\n}}\n\
         id = tcprelay {{ remote = {{ address = 127.0.0.1 port = {haproxy} proxy protocol = v2 }} }}\n"
    ))
    .start();
    let behind = [&behind[..], &[(Relay, second)]].concat();
    // A listener of the relay for each of them and for each version.
    let (mut listeners, mut section, mut targets) = (String::new(), String::new(), Vec::new());
    for (software, port) in &behind {
        for version in VERSIONS {
            let (own, name) = (free_port(), format!("{software:?}-{version}"));
            listeners += &format!(
                "listen = {{ address = 127.0.0.1 port = {own} realm = {name} haproxy = yes \
                 haproxy from = 127.0.0.0/8 }}\n"
            );
            section += &format!(
                "route = {{ listener = {name} to = {name} }}\nremote = {{ address = 127.0.0.1 \
                 port = {port} proxy protocol = {version} tag = {name} }}\n"
            );
            targets.push((*software, version, own));
        }
    }
    let relay = Launch::new(format!(
        "id = spawnd {{\n{listeners}spawn {{ instances min = 1 instances max = 1 }}\n}}\n\
         id = tcprelay {{\naccess log = yes\n{section}\n}}\n"
    ))
    .start();
    let mut asked = 0;
    for front in all {
        for said in front.sends() {
            let mut ways = Vec::new();
            for (software, version, port) in &targets {
                for host in HOSTS {
                    let address: SocketAddr =
                        format!("{host}:{}", free_port()).parse().expect("an address");
                    ways.push((
                        address,
                        *port,
                        format!("{front:?} {said}, {version} {software:?}"),
                    ));
                }
            }
            let _front = front.send(&directory, said, &ways);
            for (address, _, name) in ways {
                let (client, answer) = ask(address);
                let expected = format!(
                    "{} {} {} {}",
                    client.ip(),
                    client.port(),
                    address.ip(),
                    address.port()
                );
                assert_eq!(answer, expected, "{name}");
                let line = format!("access: client [{}]:{} ", client.ip(), client.port());
                relay.expect_log(&line);
                asked += 1;
            }
        }
    }
    eprintln!("{asked} chains");
    assert!(asked >= 5 * targets.len());
}

/// A relay that listens on a UNIX socket.
fn on_path(path: &str, end: u16, version: &str) -> common::Relay {
    Launch::new(format!(
        "id = spawnd {{ listen = {{ path = {path} }} spawn {{ instances min = 1 }} }}\n\
         id = tcprelay {{ remote = {{ address = 127.0.0.1 port = {end} \
         proxy protocol = {version} }} }}\n"
    ))
    .start()
}

/// What HAProxy makes of clients on UNIX sockets, and what it and others hear of ours.
#[test]
fn unix_sockets_before_and_behind() {
    let directory = Directory::new();
    let path = |name: &str| directory.file(name).display().to_string();
    let (end, nginx) = (free_port(), free_port());
    let _end = Haproxy.answer(&directory, end);
    let _nginx = Nginx.answer(&directory, nginx);
    let connect = |path: &str| UnixStream::connect(path).expect("a connection");
    // A client without a name is UNKNOWN in version 1, LOCAL in version 2: HAProxy keeps the address
    // of its own connection.
    for version in VERSIONS {
        let own = path(version);
        let _relay = on_path(&own, end, version);
        let told = answer(connect(&own));
        assert!(told.starts_with("127.0.0.1 "), "{version}: {told}");
        assert!(told.ends_with(&format!(" 127.0.0.1 {end}")), "{version}: {told}");
    }
    // One with a name has its path in version 2. HAProxy refuses that, nginx passes over it.
    let named = |to: &str, name: &str| {
        let client = Socket::new(Family::Unix, Kind::Stream, Protocol::Tcp).expect("a socket");
        client.bind(&Address::Unix(path(name).into())).expect("a path");
        client.set_blocking().expect("a blocking socket");
        client.connect(&Address::Unix(to.into())).expect("to connect");
        UnixStream::from(OwnedFd::from(client))
    };
    let own = path("nginx");
    let _relay = on_path(&own, nginx, "v2");
    answer(named(&own, "first"));
    if let Some(python) = software::parser() {
        let end = free_port();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/parser.py");
        let _end = Server::start(Command::new(python).arg(script).arg(end.to_string()), end);
        let own = path("three");
        let _relay = on_path(&own, end, "v2");
        let mut told = String::new();
        named(&own, "second").read_to_string(&mut told).expect("an answer");
        let expected = format!("source {}\ndestination {own}\n", path("second"));
        assert!(told.starts_with(&expected), "{told}");
        assert!(told.contains("checksum right"), "{told}");
    }
    // HAProxy listens on a UNIX socket, and says that it does not know the client.
    for send in ["send-proxy", "send-proxy-v2"] {
        let (ours, front, ready) = (free_port(), path(send), free_port());
        let relay = Launch::new(format!(
            "id = spawnd {{\n listen = {{ address = 127.0.0.1 port = {ours} haproxy = yes }}\n \
             spawn {{ instances min = 1 instances max = 1 }}\n}}\n\
             id = tcprelay {{\n access log = yes\n remote = {{ address = 127.0.0.1 port = {end} \
             proxy protocol = v2 }}\n}}\n"
        ))
        .start();
        let file = directory.write(
            &format!("{send}.cfg"),
            format!(
                "defaults\n mode tcp\n timeout connect 30s\n timeout client 30s\n \
                 timeout server 30s\nlisten f\n bind {front}\n bind 127.0.0.1:{ready}\n \
                 server s 127.0.0.1:{ours} {send}\n"
            ),
        );
        let mut haproxy = Command::new(program("haproxy"));
        let _haproxy = Server::start(haproxy.arg("-db").arg("-f").arg(file), ready);
        let told = answer(UnixStream::connect(&front).expect("a connection"));
        // An unknown client has the address of the connection that HAProxy has made.
        assert!(told.starts_with("127.0.0.1 "), "{send}: {told}");
        relay.expect_log("access: client ");
    }
}

/// What curl says with its own header, and nginx hears.
#[test]
fn curl_in_front_and_nginx_behind() {
    let directory = Directory::new();
    let end = free_port();
    let _nginx = Nginx.answer(&directory, end);
    for version in VERSIONS {
        let [plain, proxied]: [u16; 2] = std::array::from_fn(|_| free_port());
        let _relay = Launch::new(format!(
            "id = spawnd {{\n listen = {{ address = 127.0.0.1 port = {plain} }}\n \
             listen = {{ address = 127.0.0.1 port = {proxied} haproxy = yes }}\n \
             spawn {{ instances min = 1 instances max = 1 }}\n}}\n\
             id = tcprelay {{ remote = {{ address = 127.0.0.1 port = {end} \
             proxy protocol = {version} }} }}\n"
        ))
        .start();
        for (port, option) in [(plain, None), (proxied, Some("--haproxy-protocol"))] {
            let mut curl = Command::new(program("curl"));
            curl.args(["-sS", "--fail", "--max-time", "60", "-w", " %{local_port}"]);
            curl.args(option).arg(format!("http://127.0.0.1:{port}/"));
            let answer = text(&run(&mut curl));
            let (told, own) = answer.rsplit_once(' ').expect("the client's port");
            assert_eq!(told, format!("127.0.0.1 {own} 127.0.0.1 {port}"), "{version}");
        }
    }
}

/// A client with a certificate, a name and a protocol, and a unique id from HAProxy: all of it is
/// read back by a parser that is not ours, checksum included.
#[test]
fn all_fields_are_read_by_an_independent_parser() {
    let Some(python) = software::parser() else { return };
    let files = Directory::new();
    let authority = Identity::authority("Authority");
    let own = authority.sign(&["www.example"], common::pki::ec_key());
    let of_client = authority.sign(&["client.example"], common::pki::ec_key());
    authority.write(files.path(), "authority");
    let (certificate, key) = of_client.write(files.path(), "client");
    let directives = own.directives(files.path(), "own");
    let [front, ours, end]: [u16; 3] = std::array::from_fn(|_| free_port());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/parser.py");
    let _end = Server::start(Command::new(python).arg(script).arg(end.to_string()), end);
    let _relay = Launch::new(format!(
        "id = spawnd {{\n listen = {{ address = 127.0.0.1 port = {ours} haproxy = yes tls = yes }}\n \
         spawn {{ instances min = 1 instances max = 1 }}\n}}\n\
         id = tcprelay {{\n{directives} tls ca-file = {} tls verify = required tls alpn = h2\n\
         remote = {{ address = 127.0.0.1 port = {end} proxy protocol = v2 }}\n}}\n",
        files.file("authority.pem").display()
    ))
    .start();
    let file = files.write(
        "haproxy.cfg",
        format!(
            "defaults\n mode tcp\n timeout connect 30s\n timeout client 30s\n timeout server 30s\n\
             frontend f\n bind 127.0.0.1:{front}\n unique-id-format number-seven\n \
             default_backend b\nbackend b\n \
             server s 127.0.0.1:{ours} send-proxy-v2 proxy-v2-options unique-id,crc32c\n"
        ),
    );
    let mut haproxy = Command::new(program("haproxy"));
    let _haproxy = Server::start(haproxy.arg("-db").arg("-f").arg(file), front);
    let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("a client");
    builder.set_ca_file(files.file("authority.pem")).expect("an authority");
    builder.set_certificate_file(certificate, SslFiletype::PEM).expect("a certificate");
    builder.set_private_key_file(key, SslFiletype::PEM).expect("its key");
    builder.set_alpn_protos(b"\x02h2").expect("a protocol");
    let stream = connect(front);
    let client = stream.local_addr().expect("an address");
    let mut stream = builder.build().connect("www.example", stream).expect("a handshake");
    stream.write_all(b"x").expect("to send");
    let mut told = String::new();
    // Who gets the byte after it has answered resets.
    let _ = stream.read_to_string(&mut told);
    let cipher = stream.ssl().current_cipher().expect("a cipher").name().to_owned();
    let expected = format!(
        "source 127.0.0.1:{}\ndestination 127.0.0.1:{front}\nalpn h2\nauthority www.example\n\
         unique id number-seven\nchecksum right\ntls version TLSv1.3\ntls cipher {cipher}\n\
         tls name client.example\ntls certificate shown and verified\n",
        client.port()
    );
    assert_eq!(told, expected);
}
