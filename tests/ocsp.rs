//! OCSP responses that the monitor fetches and workers staple (`tls ocsp = fetch`), from the
//! responder of openssl(1) and from others that misbehave.

mod common;

use common::launch::{monitor, serving};
use common::metrics::figures;
use common::pki::{ec_key, Identity};
use common::*;
use nix::sys::signal::Signal;
use openssl::ocsp::OcspResponse;
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode, StatusType};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// What a responder says of a certificate.
#[derive(Clone, Copy, PartialEq)]
enum Says {
    Good,
    Revoked,
    Unknown,
}

/// An authority, and where its responder listens.
struct House {
    files: Directory,
    authority: Identity,
    responder: u16,
}

impl House {
    fn new() -> House {
        let (files, authority) = (Directory::new(), Identity::authority("authority"));
        authority.write(files.path(), "authority");
        House { files, authority, responder: free_port() }
    }

    /// Directives for a certificate with its chain that names the responder, with this path there.
    fn certificate(&self, name: &str, path: &str, more: &[(&str, &str)]) -> (Identity, String) {
        let access = format!("OCSP;URI:http://127.0.0.1:{}{path}", self.responder);
        let extensions = [&[("authorityInfoAccess", &*access)], more].concat();
        let own = self.authority.sign_with(&[name], &extensions);
        let directives = own.directives(self.files.path(), name);
        let chain = [&own.certificate, &self.authority.certificate];
        let chain = chain.map(|one| one.to_pem().expect("PEM")).concat();
        self.files.write(&format!("{name}.pem"), chain);
        (own, directives)
    }

    /// The database of openssl-ca(1).
    fn index(&self, about: &[(&Identity, Says)]) {
        let known = about.iter().filter(|(_, says)| *says != Says::Unknown);
        let lines = known.map(|(own, says)| {
            let serial = own.certificate.serial_number().to_bn().expect("a number");
            let serial = serial.to_hex_str().expect("digits").to_string();
            let state = if *says == Says::Good { "V" } else { "R" };
            let since = if *says == Says::Good { "" } else { "250101000000Z,keyCompromise" };
            // Subjects must differ.
            format!("{state}\t491231235959Z\t{since}\t{serial}\tunknown\t/CN={serial}\n")
        });
        self.files.write("index.txt", lines.collect::<String>());
    }

    /// `openssl ocsp`, with this signer.
    fn openssl(&self, signer: &str) -> Command {
        let file = |name: &str| self.files.file(name).display().to_string();
        let mut command = Command::new(program("openssl"));
        command.args(["ocsp", "-index", &file("index.txt"), "-CA", &file("authority.pem")]);
        command.args(["-rsigner", &file(&format!("{signer}.pem"))]);
        command.args(["-rkey", &file(&format!("{signer}.key")), "-nmin", "60"]);
        command
    }

    /// It says when it listens. A connection that only tries whether it does would stop it: it waits
    /// for the request for ever.
    fn respond(&self, signer: &str) -> Responder {
        let (port, said) = (self.responder.to_string(), self.files.file("responder.log"));
        let log = fs::File::create(&said).expect("a file");
        let mut command = self.openssl(signer);
        command.args(["-port", &port]).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a file")).stderr(log);
        let responder = Responder(command.spawn().expect("a responder"));
        let listens = || fs::read_to_string(&said).is_ok_and(|said| said.contains("waiting for"));
        wait_for("the responder", || listens().then_some(()));
        responder
    }

    /// What that responder would answer about a certificate.
    fn answer(&self, signer: &str, name: &str) -> Vec<u8> {
        let (issuer, out) = (self.files.file("authority.pem"), self.files.file("answer.der"));
        let request = self.files.file("question.der");
        let mut ask = Command::new(program("openssl"));
        ask.args(["ocsp", "-no_nonce", "-issuer"]).arg(issuer).arg("-cert");
        ask.arg(self.files.file(&format!("{name}.pem"))).arg("-reqout").arg(&request);
        run(&mut ask);
        run(self.openssl(signer).arg("-reqin").arg(&request).arg("-respout").arg(&out));
        fs::read(out).expect("an answer")
    }
}

/// `openssl ocsp`, killed with the test.
struct Responder(Child);

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn service(broker: &str, relay: &str, peer: &Peer) -> (Relay, u16) {
    let port = free_port();
    let text = format!(
        "id = spawnd {{ {broker} listen = {{ address = 127.0.0.1 port = {port} tls = yes }}\n \
         spawn {{ instances min = 1 instances max = 1 users max = 100 }} }}\n\
         id = tcprelay {{ {}\n{relay} }}\n",
        peer.remote()
    );
    let launch = Launch::new(text);
    let single = broker.contains("single process");
    let relay = if single { launch.ready(None) } else { launch.ready(1) }.start();
    (relay, port)
}

/// The response that a client gets with the certificate for a name.
fn stapled(port: u16, name: &str) -> Option<Vec<u8>> {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("a client");
    builder.set_verify(SslVerifyMode::NONE);
    let mut settings = builder.build().configure().expect("a client");
    settings.set_status_type(StatusType::OCSP).expect("a question");
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut stream = settings.connect(name, stream).expect("a handshake");
    stream.write_all(b"word").expect("to send");
    let mut echo = [0; 4];
    stream.read_exact(&mut echo).expect("an echo");
    stream.ssl().ocsp_status().map(<[u8]>::to_vec)
}

fn wait_for_staple(port: u16, name: &str) -> Vec<u8> {
    wait_for("a response", || {
        pace(Duration::from_millis(50));
        stapled(port, name)
    })
}

/// What s_client(1) says about the response.
fn status(house: &House, port: u16, name: &str) -> String {
    let mut command = Command::new(program("openssl"));
    command.args(["s_client", "-status", "-servername", name, "-connect"]);
    command.arg(format!("127.0.0.1:{port}")).arg("-CAfile").arg(house.files.file("authority.pem"));
    text(&run(&mut command))
}

#[test]
fn responses_are_fetched_and_stapled() {
    let peer = Peer::echo();
    for (mode, keys) in
        [("", "tls keys = worker"), ("", "tls keys = separate"), ("single process = yes", "")]
    {
        let house = House::new();
        // The first is answered by the authority itself, the second by whom it has told to.
        let mandate = [("extendedKeyUsage", "OCSPSigning")];
        house.authority.sign_with(&["responder"], &mandate).write(house.files.path(), "responder");
        let signer = if keys.contains("separate") { "responder" } else { "authority" };
        let (own, directives) =
            house.certificate("localhost", "", &[("tlsfeature", "status_request")]);
        house.index(&[(&own, Says::Good)]);
        let responder = house.respond(signer);
        let page = free_port();
        let broker = format!("{mode} status = {{ address = 127.0.0.1 port = {page} }}");
        let relay = format!("{directives}{keys}\ntls ocsp = fetch\n");
        let (relay, port) = service(&broker, &relay, &peer);
        let first = wait_for_staple(port, "localhost");
        let said = status(&house, port, "localhost");
        assert!(said.contains("Cert Status: good"), "{said}");
        let good = "tcprelay_ocsp_fetches_total{result=\"good\"}";
        wait_for("the count", || (figures(page)?.get(good) == Some(&1.0)).then_some(()));
        // It outlives a reload, without the responder.
        drop(responder);
        relay.signal(Signal::SIGHUP);
        relay.wait_for_log("the reload", |log| {
            (log.matches("startup (version").count() >= 2 || !mode.is_empty()).then_some(())
        });
        for _ in 0..5 {
            assert_eq!(stapled(port, "localhost"), Some(first.clone()), "{mode} {keys}");
            pace(Duration::from_millis(100));
        }
    }
}

#[test]
fn a_revoked_certificate_is_stapled_and_logged() {
    let (peer, house) = (Peer::echo(), House::new());
    let (own, directives) = house.certificate("localhost", "", &[]);
    house.index(&[(&own, Says::Revoked)]);
    let _responder = house.respond("authority");
    let (relay, port) = service("", &format!("{directives}tls ocsp = fetch\n"), &peer);
    wait_for_staple(port, "localhost");
    let said = status(&house, port, "localhost");
    assert!(said.contains("Cert Status: revoked"), "{said}");
    relay.expect_log("THE CERTIFICATE IS REVOKED, says http://127.0.0.1:");
}

#[test]
fn a_responder_may_come_back() {
    let (peer, house) = (Peer::echo(), House::new());
    let (own, directives) = house.certificate("localhost", "", &[]);
    house.index(&[(&own, Says::Good)]);
    // Until then there is the one from the file.
    let file = house.answer("authority", "localhost");
    let path = house.files.write("localhost.der", &file);
    let file_directive = format!("tls ocsp-file = {}", path.display());
    let relay = format!("{directives}{file_directive}\ntls ocsp = fetch\n");
    let (relay, port) = service("", &relay, &peer);
    relay.expect_log("no OCSP response from http://127.0.0.1:");
    assert_eq!(stapled(port, "localhost"), Some(file.clone()));
    let responder = house.respond("authority");
    let fetched = wait_for("another response", || {
        pace(Duration::from_millis(100));
        stapled(port, "localhost").filter(|response| *response != file)
    });
    relay.expect_log("gives OCSP responses again");
    assert_eq!(relay.log().matches("no OCSP response from").count(), 1);
    drop(responder);
    // Monitor and worker may die.
    for pid in [wait_for("the monitor", || monitor(&relay)), serving(&relay)[0]] {
        kill(pid, Signal::SIGKILL);
        wait_for("its end", || is_gone(pid).then_some(()));
    }
    wait_for("a worker", || (!serving(&relay).is_empty()).then_some(()));
    assert_eq!(stapled(port, "localhost"), Some(fetched));
}

/// A server that gives each path its own answer, and closes the connection after it, or not.
fn serve(port: u16, answers: Arc<Vec<(String, Vec<u8>)>>) {
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("a port");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answers) = (stream.expect("a connection"), Arc::clone(&answers));
            thread::spawn(move || {
                let mut asked = [0; 4096];
                let count = stream.read(&mut asked).unwrap_or(0);
                let asked = String::from_utf8_lossy(&asked[..count]).into_owned();
                let path = asked.split(' ').nth(1).unwrap_or("").to_owned();
                match answers.iter().find(|(known, _)| *known == path) {
                    Some((_, answer)) => drop(stream.write_all(answer)),
                    // Too slow: it never gets further than its head.
                    None => {
                        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n");
                        let _ = stream.read(&mut [0; 64]);
                    }
                }
            });
        }
    });
}

#[test]
fn what_is_no_good_response_is_not_stapled() {
    let (peer, house) = (Peer::echo(), House::new());
    let http = |head: &str, body: &[u8]| [head.as_bytes(), b"\r\n\r\n", body].concat();
    let fine =
        |body: &[u8]| http("HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response", body);
    let stranger = Identity::authority("authority");
    stranger.write(house.files.path(), "other-authority");
    // It has no mandate, for all that the authority has signed it.
    house.authority.sign_with(&["server"], &[]).write(house.files.path(), "no-responder");
    let expected = [
        ("garbage", "it is no OCSP response"),
        ("large", "its answer has more than 16384 bytes"),
        ("redirect", "it redirects (status 302)"),
        ("chunked", "Transfer-Encoding"),
        ("silent", "it has closed the connection without an answer"),
        ("unknown", "the responder does not know the certificate"),
        ("stranger", "it cannot be verified"),
        ("server", "it cannot be verified"),
        ("other", "it is about other certificates"),
        ("long", "it is no OCSP response alone"),
        ("slow", "no answer within 15 s"),
        ("good", ""),
    ];
    let mut directives = String::new();
    let mut certificates = Vec::new();
    for (name, _) in expected {
        let (own, text) = house.certificate(name, &format!("/{name}"), &[]);
        certificates.push(own);
        directives += &text;
    }
    let known: Vec<(&Identity, Says)> = certificates
        .iter()
        .zip(expected)
        .map(|(own, (name, _))| (own, if name == "unknown" { Says::Unknown } else { Says::Good }))
        .collect();
    house.index(&known);
    let answer = |name: &str| house.answer("authority", name);
    let with_more = [answer("long"), b"more".to_vec()].concat();
    let answers = [
        ("garbage", fine(b"\x30\x82\xff\xff garbage")),
        ("large", fine(&vec![0x30; 100_000])),
        ("redirect", http("HTTP/1.1 302 Found\r\nLocation: /good", b"")),
        ("chunked", http("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", b"0\r\n\r\n")),
        ("silent", Vec::new()),
        ("unknown", fine(&answer("unknown"))),
        ("stranger", fine(&house.answer("other-authority", "stranger"))),
        ("server", fine(&house.answer("no-responder", "server"))),
        ("other", fine(&answer("good"))),
        ("long", fine(&with_more)),
        ("good", fine(&answer("good"))),
    ];
    let answers = answers.map(|(name, answer)| (format!("/{name}"), answer)).to_vec();
    serve(house.responder, Arc::new(answers));
    let page = free_port();
    let broker = format!("status = {{ address = 127.0.0.1 port = {page} }}");
    let (relay, port) = service(&broker, &format!("{directives}tls ocsp = fetch\n"), &peer);
    assert!(OcspResponse::from_der(&wait_for_staple(port, "good")).is_ok());
    for (name, reason) in expected {
        if name != "good" {
            let line = relay.wait_for_log(name, |log| {
                let of = format!("/{name}.pem: no OCSP response from ");
                log.lines().find(|line| line.contains(&of)).map(str::to_owned)
            });
            assert!(line.contains(reason), "{name}: {line}");
            assert_eq!(stapled(port, name), None, "{name}");
        }
    }
    let failed = "tcprelay_ocsp_fetches_total{result=\"failed\"}";
    assert!(figures(page).expect("figures")[failed] >= 11.0);
}

/// Who cannot be asked about is told before anything is served.
#[test]
fn a_check_tells_what_cannot_be_fetched() {
    let (house, peer) = (House::new(), Peer::echo());
    let check = |directives: &str| {
        let text = format!(
            "id = spawnd {{ listen = {{ address = 127.0.0.1 port = 1 tls = yes }} }}\n\
             id = tcprelay {{ {}\n{directives} }}\n",
            peer.remote()
        );
        Launch::new(text).argument("-P").finish()
    };
    let plain = house.authority.sign(&["plain"], ec_key()).directives(house.files.path(), "plain");
    check(&format!("{plain}tls ocsp = fetch\n"))
        .exits(0)
        .says("tls ocsp = fetch is without effect: the certificate of its issuer is missing");
    let own = house.authority.sign(&["own"], ec_key());
    let directives = own.directives(house.files.path(), "own");
    let chain = [&own.certificate, &house.authority.certificate];
    let chain = chain.map(|one| one.to_pem().expect("PEM")).concat();
    house.files.write("own.pem", chain);
    let own = directives;
    check(&format!("{own}tls ocsp = fetch\n"))
        .exits(0)
        .says("tls ocsp = fetch is without effect: it names no OCSP responder with http://");
    check("tls ocsp = often\n").exits(78).says("'fetch' or 'file'");
    check(&format!("{own}tls ocsp = fetch\nbalance scope = worker\n"))
        .exits(78)
        .says("tls ocsp = fetch needs balance scope = all");
}

/// A program named by exec has no monitor.
#[test]
fn without_a_monitor_nothing_is_fetched() {
    let (house, peer, port) = (House::new(), Peer::echo(), free_port());
    let (_, directives) = house.certificate("localhost", "", &[]);
    let relay = Launch::new(format!(
        "id = spawnd {{ listen = {{ address = 127.0.0.1 port = {port} tls = yes }} \
         spawn {{ exec = @BIN@ instances min = 1 instances max = 1 users max = 100 }} }}\n\
         id = tcprelay {{ {}\n{directives}tls ocsp = fetch\n}}\n",
        peer.remote()
    ))
    .start();
    relay.expect_log("tls ocsp = fetch is without effect: the broker has no monitor");
    assert_eq!(stapled(port, "localhost"), None);
}
