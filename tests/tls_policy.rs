//! What decides about TLS besides the configuration: the system's policy, whether the relay or
//! OpenSSL handles records, and broken files.

mod common;

use common::pki::Identity;
use common::*;
use openssl::ssl::{SslConnector, SslMethod, SslStream, SslVerifyMode, SslVersion};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

struct Service {
    relay: Relay,
    port: u16,
    _files: Directory,
    _peer: Peer,
}

/// A relay with a TLS listener, under this system-wide OpenSSL policy.
fn service(section: &str, system: &str) -> Service {
    let (peer, files) = (Peer::echo(), Directory::new());
    let directives = Identity::own(&["localhost"]).directives(files.path(), "own");
    let system = files.write(
        "openssl.cnf",
        format!(
            "openssl_conf = init\n[init]\nssl_conf = ssl\n[ssl]\nsystem_default = all\n\
             [all]\n{system}\n"
        ),
    );
    let section = format!("{}\n{directives}{section}\naccess log = yes", peer.remote());
    let (launch, port) = relay(section).listen("tls = yes").launch();
    let setup = launch.environment("OPENSSL_CONF", &system.display().to_string());
    Service { relay: setup.start(), port, _files: files, _peer: peer }
}

/// Sends a word in one version and cipher suite, and requires its echo; returns the cipher.
fn talk(port: u16, version: SslVersion, ciphers: &str) -> io::Result<String> {
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_min_proto_version(Some(version))?;
    builder.set_max_proto_version(Some(version))?;
    if !ciphers.is_empty() {
        builder.set_cipher_list(ciphers)?;
    }
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let client = builder.build();
    let mut stream: SslStream<_> =
        client.connect("localhost", stream).map_err(|error| io::Error::other(error.to_string()))?;
    stream.write_all(b"word")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    assert_eq!(&answer, b"word");
    let cipher = stream.ssl().current_cipher().map_or("", |cipher| cipher.name()).to_owned();
    let _ = stream.shutdown();
    Ok(cipher)
}

#[test]
fn the_log_tells_who_has_the_records() {
    for (section, version, ciphers, who) in [
        ("", SslVersion::TLS1_3, "", "own"),
        ("", SslVersion::TLS1_2, "", "own"),
        ("tls records = auto", SslVersion::TLS1_3, "", "own"),
        ("tls records = openssl", SslVersion::TLS1_3, "", "openssl"),
        ("tls records = openssl", SslVersion::TLS1_2, "", "openssl"),
        // A suite that the relay's own records do not support.
        (
            "tls ciphers = ECDHE-ECDSA-AES128-SHA256",
            SslVersion::TLS1_2,
            "ECDHE-ECDSA-AES128-SHA256",
            "openssl",
        ),
    ] {
        let service = service(section, "");
        let cipher = talk(service.port, version, ciphers).expect("a session");
        let line = service.relay.wait_for_log("its line", |log| {
            log.lines().find(|line| line.contains("access: client")).map(str::to_owned)
        });
        assert!(line.contains(&format!("{cipher} records {who}")), "{section}: {line}");
    }
}

#[test]
fn the_policy_of_the_system_is_followed() {
    // The system's version bounds always apply.
    let service13 = service("", "MinProtocol = TLSv1.3");
    assert!(talk(service13.port, SslVersion::TLS1_2, "").is_err());
    talk(service13.port, SslVersion::TLS1_3, "").expect("TLS 1.3");
    let service12 = service("", "MaxProtocol = TLSv1.2");
    assert!(talk(service12.port, SslVersion::TLS1_3, "").is_err());
    talk(service12.port, SslVersion::TLS1_2, "").expect("TLS 1.2");
    // The system's suites apply unless suites are configured.
    let suites = "Ciphersuites = TLS_AES_256_GCM_SHA384\n\
                  CipherString = ECDHE-ECDSA-AES256-GCM-SHA384";
    let service_suites = service("", suites);
    let cipher = talk(service_suites.port, SslVersion::TLS1_3, "").expect("a session");
    assert_eq!(cipher, "TLS_AES_256_GCM_SHA384");
    let cipher = talk(service_suites.port, SslVersion::TLS1_2, "").expect("a session");
    assert_eq!(cipher, "ECDHE-ECDSA-AES256-GCM-SHA384");
    let own = "tls cipher-suites = TLS_AES_128_GCM_SHA256";
    let cipher = talk(service(own, suites).port, SslVersion::TLS1_3, "").expect("a session");
    assert_eq!(cipher, "TLS_AES_128_GCM_SHA256");
    // A security level names no suites: the relay's own stay, which all have forward secrecy.
    let level = service("", "CipherString = DEFAULT@SECLEVEL=2");
    assert!(talk(level.port, SslVersion::TLS1_2, "ECDHE-ECDSA-AES128-SHA256").is_err());
    // Only OpenSSL's records can pad.
    let padded = service("", "RecordPadding = 512");
    talk(padded.port, SslVersion::TLS1_3, "").expect("a session");
    padded.relay.expect_log("records openssl");
}

/// The serial number of the certificate that a listener shows.
fn shown(port: u16) -> io::Result<Vec<u8>> {
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    builder.set_verify(SslVerifyMode::NONE);
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let stream = builder
        .build()
        .connect("localhost", stream)
        .map_err(|error| io::Error::other(error.to_string()))?;
    let certificate = stream.ssl().peer_certificate().expect("a certificate");
    Ok(certificate.serial_number().to_bn()?.to_vec())
}

#[test]
fn files_that_change_are_read_without_a_signal() {
    for keys in ["worker", "separate"] {
        let (peer, files, port) = (Peer::echo(), Directory::new(), free_port());
        let directives = Identity::own(&["localhost"]).directives(files.path(), "own");
        let text = format!(
            "id = spawnd {{ tls watch = 1 \
             listen = {{ address = 127.0.0.1 port = {port} tls = yes }}\n \
             spawn {{ instances min = 1 instances max = 1 users max = 100 }} }}\n\
             id = tcprelay {{ {}\n{directives} tls keys = {keys} }}\n",
            peer.remote()
        );
        let relay = Launch::new(text).start();
        shown(port).expect("a session");
        let next = |name: &str| {
            let identity = Identity::own(&["localhost"]);
            let number = identity.certificate.serial_number().to_bn().expect("a number").to_vec();
            let (certificate, key) = identity.write(files.path(), name);
            (number, certificate, key)
        };
        // Replaced one after the other, so that they may not fit together in between.
        for _ in 0..2 {
            let (expected, ..) = next("own");
            wait_for("the new certificate", || (shown(port).ok()? == expected).then_some(()));
        }
        // A key that does not fit is refused, and what was read before stays.
        let before = shown(port).expect("a session");
        let (expected, certificate, key) = next("other");
        std::fs::rename(key, files.path().join("own.key")).expect("renamed");
        relay.wait_for_log("a refusal", |log| log.contains("stays in service").then_some(()));
        assert_eq!(shown(port).expect("a session"), before);
        std::fs::rename(certificate, files.path().join("own.pem")).expect("renamed");
        wait_for("the other certificate", || (shown(port).ok()? == expected).then_some(()));
        // No more is done than that.
        let reloads = relay.log().matches("SIGHUP: restarting").count();
        nothing_happens_for(std::time::Duration::from_millis(3000));
        assert_eq!(relay.log().matches("SIGHUP: restarting").count(), reloads, "{}", relay.log());
    }
}

/// Uses hybrid groups, where OpenSSL has them.
#[test]
fn hybrid_groups_are_the_default() {
    let service = service("", "");
    for group in ["X25519MLKEM768", "SecP256r1MLKEM768"] {
        let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("a client");
        builder.set_verify(SslVerifyMode::NONE);
        if builder.set_groups_list(group).is_err() {
            left_out(&format!("{} has no {group}", openssl::version::version()));
            continue;
        }
        // A client that offers nothing else.
        let stream = TcpStream::connect(("127.0.0.1", service.port)).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let stream = builder.build().connect("localhost", stream).expect("a handshake");
        assert_eq!(stream.ssl().version_str(), "TLSv1.3");
    }
}

/// Uses a FIPS module, where the system has one.
#[test]
fn under_fips_openssl_has_the_records() {
    let folder = Command::new(program("openssl")).args(["version", "-m"]).output();
    let folder = folder.map_or_else(|_| String::new(), |output| text(&output));
    let folder = folder.split('"').nth(1).unwrap_or("/nonexistent").to_owned();
    let module = Path::new(&folder).join("fips.so");
    if !module.exists() {
        return left_out(&format!("there is no {}", module.display()));
    }
    let files = Directory::new();
    let installed = files.file("fipsmodule.cnf");
    run(Command::new(program("openssl"))
        .args(["fipsinstall", "-out"])
        .arg(&installed)
        .arg("-module")
        .arg(&module));
    let system = files.write(
        "openssl.cnf",
        format!(
            "openssl_conf = init\n.include = {}\n[init]\nproviders = providers\n\
             alg_section = algorithms\n[providers]\nfips = fips_sect\nbase = base\n\
             [base]\nactivate = 1\n[algorithms]\ndefault_properties = fips=yes\n",
            installed.display()
        ),
    );
    let (peer, port) = (Peer::echo(), free_port());
    let directives = Identity::own(&["localhost"]).directives(files.path(), "own");
    let text = format!(
        "id = spawnd {{ listen = {{ address = 127.0.0.1 port = {port} tls = yes }} }}\n\
         id = tcprelay {{ {}\n{directives}access log = yes }}\n",
        peer.remote()
    );
    let system = system.display().to_string();
    let relay = Launch::new(text).environment("OPENSSL_CONF", &system).start();
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        talk(port, version, "").expect("a session");
    }
    relay.wait_for_log("two lines", |log| {
        assert!(!log.contains("records own"));
        (log.matches("records openssl").count() == 2).then_some(())
    });
}

/// Runs `-P` on a relay with TLS.
fn check(section: &str) -> (Option<i32>, String) {
    let files = Directory::new();
    let path = files.write(
        "relay.cfg",
        format!(
            "id = spawnd {{ listen = {{ port = 0 tls = yes }} }}\n\
             id = tcprelay {{ remote = {{ address = 127.0.0.1 port = 1 }}\n{section} }}\n"
        ),
    );
    let output = ours(TCPRELAY).arg("-P").arg(path).output().expect("the program");
    let said = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_directory_is_no_certificate() {
    let files = Directory::new();
    let directives = Identity::own(&["localhost"]).directives(files.path(), "own");
    assert_eq!(check(&directives).0, Some(0));
    let folder = files.path().display();
    let key = files.file("own.key");
    let (status, said) =
        check(&format!("tls cert-file = {folder}\ntls key-file = {}\n", key.display()));
    assert_eq!(status, Some(69), "{said}");
    assert!(said.contains("Is a directory") && said.contains("certificate_chain_file"), "{said}");
    for directive in ["tls key-file", "tls ca-file", "tls ocsp-file"] {
        let certificate = files.file("own.pem");
        let (status, said) =
            check(&format!("tls cert-file = {}\n{directive} = {folder}\n", certificate.display()));
        assert_eq!(status, Some(69), "{directive}: {said}");
        assert!(said.contains("Is a directory"), "{directive}: {said}");
    }
    let (status, said) = check(&format!("{directives}tls ca-path = {folder}\n"));
    assert_eq!(status, Some(0), "{said}");
}

#[test]
fn a_certificate_of_tomorrow_is_warned_about_or_refused() {
    let files = Directory::new();
    let early = Identity::authority("authority").sign_early(&["localhost"]);
    let directives = early.directives(files.path(), "own");
    for (line, expected) in [("", 0), ("tls expired = warn\n", 0), ("tls expired = refuse\n", 69)] {
        let (status, said) = check(&format!("{directives}{line}"));
        assert_eq!(status, Some(expected), "{line}: {said}");
        assert!(said.contains("own.pem: the certificate is not valid before"), "{line}: {said}");
    }
}

#[test]
fn mistakes_in_new_directives_name_what_is_possible() {
    let files = Directory::new();
    let directives = Identity::own(&["localhost"]).directives(files.path(), "own");
    for (line, words) in [
        ("tls records = kernel", "'auto' or 'openssl'"),
        ("tls watch = 5", "belongs into the section of spawnd"),
        ("tls verify subject = joe", "as \"CN=joe\""),
        ("tls verify spki = 0123", "in 64 digits"),
        ("tls verify san = a", "need tls ca-file or tls ca-path"),
        (
            "remote = { address = 127.0.0.1 port = 2 tls = yes tls versions = TLSv1.1 }",
            "'TLSv1.2' or 'TLSv1.3'",
        ),
        (
            "remote = { address = 127.0.0.1 port = 2 tls = yes tls verify = no tls verify san = a }",
            "need tls verify = yes",
        ),
    ] {
        let (status, said) = check(&format!("{directives}{line}\n"));
        assert_eq!(status, Some(78), "{line}: {said}");
        assert!(said.contains(words), "{line}: {said}");
    }
    let good = "remote = { address = 127.0.0.1 port = 2 tls = yes tls alpn = h2,http/1.1 \
                tls groups = P-256 tls versions = TLSv1.2,TLSv1.3 tls verify san = a.example \
                tls verify subject = \"CN=a\" }\ntls records = openssl\n";
    let (status, said) = check(&format!("{directives}{good}"));
    assert_eq!(status, Some(0), "{said}");
}

/// A relay that cannot get random numbers, which it needs only for TLS.
#[test]
fn a_relay_without_tls_asks_nothing_of_openssl() {
    let (peer, port, files) = (Peer::echo(), free_port(), Directory::new());
    let broken = files.write(
        "openssl.cnf",
        "openssl_conf = init\n[init]\nrandom = random\n[random]\nrandom = NO-SUCH-DRBG\n",
    );
    let broken = broken.display().to_string();
    let relay = Launch::simple(port, &peer.remote()).environment("OPENSSL_CONF", &broken).start();
    ping(&mut connect(port), b"plain");
    // If it could get them, the test would prove nothing.
    drop(relay);
    let directives = Identity::own(&["localhost"]).directives(files.path(), "own");
    let text = format!(
        "id = spawnd {{ listen = {{ address = 127.0.0.1 port = {} tls = yes }} }}\n\
         id = tcprelay {{ {}\n{directives} }}\n",
        free_port(),
        peer.remote()
    );
    let setup = Launch::new(text).environment("OPENSSL_CONF", &broken).ready(None);
    let mut relay = setup.start();
    assert!(!relay.wait().success());
}
