//! The program that BoringSSL's test runner (BoGo) starts for each of its tests, with the relay's TLS
//! as the server or the client. `tools/test-tls` runs it; the runner's PORTING.md says what it has to
//! do: connect to the runner, say which test it is, send back all data with each byte inverted, and
//! exit with 0, with 1 after a failure, or with 89 if the test asks for something that it cannot do.
//!
//! With TCPRELAY_BOGO_RECORDS=openssl OpenSSL has the records, for comparison. Who has had them is
//! appended to the file TCPRELAY_BOGO_LOG.

use mavis::config::tls::{Authorities, Certificate, RecordLayer, RemoteTls, Tls, Verify};
use mavis::os::tls::set_ticket_keys;
use mavis::snapshot::material::Material;
use mavis::tls::client::Connector;
use mavis::tls::server::Acceptor;
use mavis::tls::stream::{Step, Stream};
use mavis::tls::tickets::Ratchet;
use mavis::tls::Buffer;
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpStream};
use std::path::PathBuf;
use std::process::exit;
use std::time::Duration;

/// Tells the runner that the test asks for something that there is not.
const UNIMPLEMENTED: i32 = 89;

/// Flags about what is always so, or is of no consequence here.
const NO_MATTER: [&str; 15] = [
    "async",
    "implicit-handshake",
    "partial-write",
    "peek-then-read",
    "use-old-client-cert-callback",
    "forbid-renegotiation-after-handshake",
    "server-preference",
    "no-tls1",
    "no-tls11",
    "expect-secure-renegotiation",
    "expect-extended-master-secret",
    "no-op-extra-handshake",
    "no-legacy-server-connect",
    "expect-session-id",
    "use-custom-verify-callback",
];

/// What the runner wants of one connection.
#[derive(Clone, Default)]
struct Wanted {
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    trust: Option<PathBuf>,
    least: u32,
    most: u32,
    excluded: BTreeSet<u32>,
    ciphers: Option<String>,
    groups: Vec<String>,
    protocols: Vec<String>,
    host: Option<String>,
    verify: bool,
    required: bool,
    tickets: bool,
    writes_first: bool,
    shuts_down: bool,
    check_close: bool,
    first_words: String,
    expected_version: Option<u32>,
    expected_protocol: Option<String>,
    expected_name: Option<String>,
    expected_miss: bool,
}

impl Wanted {
    fn new() -> Wanted {
        Wanted {
            least: 0x0303,
            most: 0x0304,
            tickets: true,
            first_words: "hello".to_owned(),
            ..Wanted::default()
        }
    }

    /// Notes a flag. `value` takes the next argument.
    fn note(&mut self, flag: &str, value: &mut dyn FnMut() -> String) {
        match flag {
            "cert-file" => self.cert_file = Some(value().into()),
            "key-file" => self.key_file = Some(value().into()),
            "trust-cert" => self.trust = Some(value().into()),
            "min-version" => self.least = number(&value()).max(0x0303),
            "max-version" => self.most = number(&value()),
            "no-tls12" => drop(self.excluded.insert(0x0303)),
            "no-tls13" => drop(self.excluded.insert(0x0304)),
            "cipher" => self.ciphers = Some(value()),
            "curves" => self.groups.push(group(number(&value()))),
            "host-name" => self.host = Some(value()),
            "advertise-alpn" => self.protocols = protocols(value().as_bytes()),
            "select-alpn" => self.protocols = vec![value()],
            "expect-alpn" => self.expected_protocol = Some(value()),
            "expect-server-name" => self.expected_name = Some(value()),
            "expect-version" => self.expected_version = Some(number(&value())),
            "expect-session-miss" => self.expected_miss = true,
            "verify-peer" => self.verify = true,
            "require-any-client-certificate" => (self.verify, self.required) = (true, true),
            "no-ticket" => self.tickets = false,
            "shim-writes-first" => self.writes_first = true,
            "shim-initial-write" => self.first_words = value(),
            "shim-shuts-down" => self.shuts_down = true,
            "check-close-notify" => self.check_close = true,
            "read-size" => drop(value()),
            "expect-total-renegotiations" if value() == "0" => {}
            _ if NO_MATTER.contains(&flag) => {}
            _ => unimplemented(flag),
        }
    }

    /// The oldest and the newest version.
    fn versions(&self) -> [u32; 2] {
        let allowed = |&version: &u32| {
            (self.least..=self.most).contains(&version) && !self.excluded.contains(&version)
        };
        let mut versions = [0x0303, 0x0304].into_iter().filter(allowed);
        match (versions.next(), versions.next()) {
            (Some(least), Some(most)) => [least, most],
            (Some(only), None) => [only, only],
            _ => unimplemented("versions before TLS 1.2"),
        }
    }

    fn certificate(&self) -> Certificate {
        Certificate {
            chain: self.cert_file.clone(),
            key: self.key_file.clone(),
            ..Certificate::default()
        }
    }

    fn authorities(&self) -> Authorities {
        Authorities { file: self.trust.clone(), ..Authorities::default() }
    }

    /// The runner expects all suites, and uses short keys.
    fn ciphers(&self) -> Option<String> {
        let list = self.ciphers.as_deref().unwrap_or("DEFAULT");
        Some(format!("{list}:@SECLEVEL=0"))
    }

    fn groups(&self) -> Option<String> {
        (!self.groups.is_empty()).then(|| self.groups.join(":"))
    }

    fn acceptor(&self, records: RecordLayer, material: &Material) -> Acceptor {
        let settings = Tls {
            certificates: vec![self.certificate()],
            authorities: if self.verify { self.authorities() } else { Authorities::default() },
            verify: match (self.verify, self.required) {
                (false, _) => Verify::No,
                (true, false) => Verify::Optional,
                (true, true) => Verify::Required,
            },
            ciphers: self.ciphers(),
            groups: self.groups(),
            alpn: self.protocols.clone(),
            session_timeout: if self.tickets { 7200 } else { 0 },
            records,
            ..Tls::default()
        };
        Acceptor::new(&settings, material).unwrap_or_else(|error| unimplemented(&error.to_string()))
    }

    fn connector(&self, records: RecordLayer, material: &Material) -> Connector {
        let [least, most] = self.versions().map(|version| version as u8);
        let settings = RemoteTls {
            authorities: self.authorities(),
            verify: self.verify,
            server_name: self.host.clone(),
            certificate: self.certificate(),
            ciphers: self.ciphers(),
            cipher_suites: None,
            groups: self.groups(),
            versions: Some((least, most)),
            alpn: self.protocols.clone(),
            checks: Vec::new(),
            records: Some(records),
        };
        let connector = Connector::new(&settings, records, material);
        connector.unwrap_or_else(|error| unimplemented(&error.to_string()))
    }

    fn files(&self, material: &mut Material) {
        for path in self.cert_file.iter().chain(&self.key_file).chain(&self.trust) {
            if let Err(error) = material.read_file(path) {
                unimplemented(&format!("{}: {error}", path.display()));
            }
        }
    }

    /// Checks what was negotiated.
    fn check(&self, tls: &Stream, again: bool) {
        let (Some(negotiated), Some(summary)) = (tls.negotiated(), tls.summary()) else {
            fail("nothing was negotiated")
        };
        let version = match negotiated.version {
            "TLSv1.2" => 0x0303,
            _ => 0x0304,
        };
        if self.expected_version.is_some_and(|expected| expected != version) {
            fail(&format!("version {}", negotiated.version));
        }
        if self.expected_protocol.is_some() && self.expected_protocol != summary.protocol {
            fail(&format!("protocol {:?}", summary.protocol));
        }
        if self.expected_name.is_some() && self.expected_name != summary.server_name {
            fail(&format!("name {:?}", summary.server_name));
        }
        if again && negotiated.resumed == self.expected_miss {
            fail(&format!("resumed: {}", negotiated.resumed));
        }
    }
}

fn number(text: &str) -> u32 {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.unwrap_or_else(|_| unimplemented(text))
}

/// OpenSSL's name of a group.
fn group(number: u32) -> String {
    let name = match number {
        21 => "secp224r1",
        23 => "prime256v1",
        24 => "secp384r1",
        25 => "secp521r1",
        29 => "X25519",
        4588 => "X25519MLKEM768",
        _ => unimplemented("a group"),
    };
    name.to_owned()
}

/// Protocols as in the extension, each after its length.
fn protocols(mut list: &[u8]) -> Vec<String> {
    let mut protocols = Vec::new();
    while let [length, rest @ ..] = list {
        let length = usize::from(*length).min(rest.len());
        protocols.push(String::from_utf8_lossy(&rest[..length]).into_owned());
        list = &rest[length..];
    }
    protocols
}

fn unimplemented(what: &str) -> ! {
    eprintln!("unimplemented: {what}");
    exit(UNIMPLEMENTED)
}

fn fail(reason: &str) -> ! {
    eprintln!("{reason}");
    exit(1)
}

/// The runner's end of the wire.
struct Wire(TcpStream);

impl Wire {
    fn send(&mut self, output: &mut Buffer) {
        // The runner may have gone; what it had to say is read next.
        let _ = self.0.write_all(output.filled());
        output.clear();
    }

    /// The next bytes; empty at the end.
    fn receive(&mut self) -> Vec<u8> {
        let mut data = vec![0; 20000];
        let length = self.0.read(&mut data).unwrap_or(0);
        data.truncate(length);
        data
    }

    /// Ends the connection so that everything that was sent is read.
    fn end(&mut self) {
        let _ = self.0.shutdown(Shutdown::Write);
        let _ = self.0.set_read_timeout(Some(Duration::from_secs(5)));
        while !self.receive().is_empty() {}
    }

    fn fail(&mut self, reason: &str) -> ! {
        self.end();
        fail(reason)
    }
}

/// One connection.
fn talk(wanted: &Wanted, again: bool, tls: &mut Stream, wire: &mut Wire) {
    let (mut output, mut plain) = (Buffer::default(), Buffer::default());
    let mut input = Vec::new();
    loop {
        let shaken = tls.handshake(&input, &mut output);
        wire.send(&mut output);
        match shaken {
            Ok(Step::Done) => break,
            Ok(Step::Waiting) => input = wire.receive(),
            Ok(Step::Signing(_)) => unimplemented("keys in another process"),
            Err(reason) => wire.fail(&reason),
        }
        if input.is_empty() {
            wire.fail("the connection has ended");
        }
    }
    wanted.check(tls, again);
    if let Ok(path) = std::env::var("TCPRELAY_BOGO_LOG") {
        let log = OpenOptions::new().create(true).append(true).open(path);
        let _ = log.and_then(|mut log| log.write_all(format!("{}\n", tls.handler()).as_bytes()));
    }
    if wanted.writes_first {
        send(wanted.first_words.as_bytes(), tls, &mut output, wire);
    }
    if wanted.shuts_down {
        tls.close(&mut output);
        wire.send(&mut output);
    }
    let mut received = Vec::new();
    loop {
        if tls.has_unread() || !received.is_empty() {
            let mut data = vec![0; tls.held()];
            tls.take_held(&mut data);
            data.append(&mut received);
            let result = tls.read(&data, &mut plain, &mut output);
            wire.send(&mut output);
            let answer: Vec<u8> = plain.filled().iter().map(|byte| !byte).collect();
            plain.clear();
            if !wanted.shuts_down {
                send(&answer, tls, &mut output, wire);
            }
            match result {
                Ok(true) => break,
                Ok(false) => {}
                Err(reason) => wire.fail(&reason),
            }
        }
        received = wire.receive();
        if received.is_empty() {
            if wanted.check_close {
                wire.fail("no close_notify");
            }
            break;
        }
    }
    tls.close(&mut output);
    wire.send(&mut output);
    wire.end();
}

fn send(data: &[u8], tls: &mut Stream, output: &mut Buffer, wire: &mut Wire) {
    if let Err(reason) = tls.write(data, output) {
        wire.fail(&reason);
    }
    wire.send(output);
}

fn main() {
    let (mut port, mut id, mut ipv6, mut server, mut resumptions) = (0, 0u64, false, false, 0);
    let [mut first, mut later] = [Wanted::new(), Wanted::new()];
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let flag = argument.strip_prefix('-').unwrap_or_else(|| unimplemented(&argument));
        let mut value = || arguments.next().unwrap_or_default();
        match flag {
            "port" => port = number(&value()),
            "shim-id" => id = value().parse().unwrap_or(0),
            "is-handshaker-supported" => {
                println!("No");
                exit(0);
            }
            "ipv6" => ipv6 = true,
            "server" => server = true,
            "resume-count" => resumptions = number(&value()),
            _ => match (flag.strip_prefix("on-initial-"), flag.strip_prefix("on-resume-")) {
                (Some(flag), _) => first.note(flag, &mut value),
                (_, Some(flag)) => later.note(flag, &mut value),
                _ => {
                    let text = std::cell::OnceCell::new();
                    first.note(flag, &mut || text.get_or_init(&mut value).clone());
                    later.note(flag, &mut || text.get().cloned().unwrap_or_default());
                }
            },
        }
    }
    if !(server || first.tickets && later.tickets) {
        unimplemented("a client that wants no tickets");
    }
    let records = match std::env::var("TCPRELAY_BOGO_RECORDS").as_deref() {
        Ok("openssl") => RecordLayer::Openssl,
        _ => RecordLayer::Auto,
    };
    let mut material = Material::default();
    [&first, &later].iter().for_each(|wanted| wanted.files(&mut material));
    set_ticket_keys(Ratchet::new([7; 32], 0, 1000).keys());
    let connector = (!server).then(|| first.connector(records, &material));
    for number in 0..=resumptions {
        let wanted = if number == 0 { &first } else { &later };
        let stream = if ipv6 {
            TcpStream::connect((Ipv6Addr::LOCALHOST, port as u16))
        } else {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port as u16))
        };
        let stream = stream.unwrap_or_else(|error| fail(&error.to_string()));
        let _ = stream.set_nodelay(true);
        let mut wire = Wire(stream);
        let _ = wire.0.write_all(&id.to_le_bytes());
        let tls = match &connector {
            Some(connector) => connector.connect(),
            None => {
                let [least, most] = wanted.versions().map(|version| version & 0xff);
                wanted.acceptor(records, &material).accept(least | most << 8)
            }
        };
        let mut tls = tls.unwrap_or_else(|error| fail(&error.to_string()));
        tls.want_summary();
        talk(wanted, number > 0, &mut tls, &mut wire);
    }
}
