//! Messages about mistakes in configurations, and about files that have changed since they were
//! checked.

mod common;

use common::pki::{self, Identity};
use common::*;
use nix::sys::signal::Signal;
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};

/// Runs `tcprelay -P` on a configuration.
fn check(text: impl AsRef<[u8]>) -> Output {
    let directory = Directory::new();
    let path = directory.write("relay.cfg", text);
    check_file(&path)
}

fn check_file(path: &Path) -> Output {
    let mut command = ours(env!("CARGO_BIN_EXE_tcprelay"));
    command.arg("-P").arg(path).stdin(Stdio::null()).output().expect("tcprelay")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The lines about the file, without process id and path.
fn mistakes(output: &Output) -> Vec<String> {
    let lines = said(output);
    let lines = lines.lines().filter_map(|line| line.split_once("relay.cfg:"));
    lines.map(|(_, rest)| rest.to_owned()).collect()
}

#[test]
fn checking_goes_on_behind_a_mistake() {
    let sections = "\nid = spawnd {\n listen = { port = 0 }\n listen = { prt = 1 backlog = 2\n }\n \
         spawn { instances min = x\n users max = 5\n users mox = 3 }\n overload = maybe\n background = no\n}\n\
         id = tcprelay {\n remote = { address = 127.0.0.1 prt = 5\n weight = 2 }\n \
         remote = { address = 127.0.0.1 port = 5 }\n idle timeout = soon\n splice = never\n}\n";
    let broker = [("4", "prt"), ("6", "x"), ("8", "mox"), ("9", "maybe")];
    let relay = [("13", "prt"), ("16", "soon")];
    // The worker reads the relay's section, and would repeat the mistakes before both sections.
    for (before, expected) in [
        ("", [&broker[..], &relay[..]].concat()),
        ("colour = red", [&[("1", "colour")], &broker[..]].concat()),
    ] {
        let output = check(format!("{before}{sections}"));
        assert_eq!(output.status.code(), Some(78), "{}", said(&output));
        let found = mistakes(&output);
        let split = |line: &String| {
            let (number, rest) = line.split_once(':').expect("a line");
            let (_, word) = rest.rsplit_once("but got '").expect("a word");
            (number.to_owned(), word.trim_end_matches('\'').to_owned())
        };
        let found: Vec<_> = found.iter().map(split).collect();
        let expected: Vec<_> =
            expected.iter().map(|(number, word)| ((*number).into(), (*word).into())).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn ten_mistakes_are_enough() {
    let wrong = "idle timeout = x\n".repeat(30);
    let output = check(format!(
        "id = spawnd {{ listen = {{ port = 0 }} }}\nid = tcprelay {{\n{wrong}\nremote = {{ address = 127.0.0.1 port = 1 }}\n}}\n"
    ));
    assert_eq!((output.status.code(), mistakes(&output).len()), (Some(78), 10));
}

#[test]
fn what_cannot_be_read_ends_the_check() {
    let sections = "id = spawnd { listen = { port = 0 } }\nid = tcprelay {\n idle timeout = x\n";
    for (end, count) in [("access log = \"yes\n }\n", 2), ("", 1), ("remote = { address = ", 2)] {
        let output = check(format!("{sections}{end}"));
        assert_eq!(output.status.code(), Some(78), "{}", said(&output));
        assert_eq!(mistakes(&output).len(), count, "{}", said(&output));
    }
}

#[test]
fn a_byte_order_mark_is_skipped() {
    let sections = "id = spawnd { listen = { port = 0 } }\nid = tcprelay { remote = { address = 127.0.0.1 port = 1 } }\n";
    let output = check(format!("\u{feff}{sections}"));
    assert!(output.status.success() && said(&output).is_empty(), "{}", said(&output));
    // The same in an included file; but nowhere else.
    let directory = Directory::new();
    let part = directory.write("part.cfg", format!("\u{feff}{sections}"));
    let path = directory.write("relay.cfg", format!("\u{feff}include = {}\n", part.display()));
    let output = check_file(&path);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(check(format!("{sections}\u{feff}id = x {{ }}")).status.code(), Some(0));
    assert_eq!(check(format!("\n\u{feff}{sections}")).status.code(), Some(78));
}

#[test]
fn a_list_of_revocations_is_called_by_its_name() {
    let directory = Directory::new();
    let own = Identity::own(&["localhost"]).directives(directory.path(), "own");
    let (authority, _) = Identity::authority("authority").write(directory.path(), "authority");
    let list = directory.file("absent.crl");
    for (listener, section) in [
        (
            "tls = yes",
            format!(
                "{own} tls ca-file = {} tls crl-file = {}",
                authority.display(),
                list.display()
            ),
        ),
        ("", String::new()),
    ] {
        let remote = match listener {
            "" => format!("tls = yes tls verify = no tls crl-file = {}", list.display()),
            _ => String::new(),
        };
        let output = check(format!(
            "id = spawnd {{ listen = {{ port = 0 {listener} }} }}\nid = tcprelay {{ {section}\n\
             remote = {{ address = 127.0.0.1 port = 1 {remote} }}\n}}\n"
        ));
        assert_eq!(output.status.code(), Some(69), "{}", said(&output));
        assert!(said(&output).contains("X509_load_crl_file: "), "{}", said(&output));
        assert!(said(&output).contains("absent.crl"), "{}", said(&output));
    }
}

/// A TLS handshake that accepts any certificate, for a server name.
fn served(port: u16, name: &str) -> bool {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("a client");
    builder.set_verify(SslVerifyMode::NONE);
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    builder.build().connect(name, stream).is_ok()
}

/// A configuration with these certificates, and a plain listener beside the TLS one.
fn with_certificates(ports: [u16; 2], certificates: &str) -> String {
    let [tls, plain] = ports;
    format!(
        "id = spawnd {{\n listen = {{ address = 127.0.0.1 port = {tls} tls = yes }}\n \
         listen = {{ address = 127.0.0.1 port = {plain} }}\n spawn {{ instances min = 1 instances max = 1 }}\n}}\n\
         id = tcprelay {{\n{certificates}remote = {{ address = 127.0.0.1 port = 1 }}\n}}\n"
    )
}

#[test]
fn one_expired_certificate_of_several_is_a_warning() {
    let files = Directory::new();
    let authority = Identity::authority("authority");
    let good = authority.sign(&["good.example"], pki::ec_key()).directives(files.path(), "good");
    let bad = authority.sign_expired(&["bad.example"]).directives(files.path(), "bad");
    let ports = [free_port(), free_port()];
    let relay = Launch::new(with_certificates(ports, &format!("{good}{bad}"))).ready(1).start();
    relay.expect_log("WARNING: SSL_CTX_use_certificate_chain_file: ");
    relay.expect_log("bad.pem: the certificate has expired (");
    assert!(served(ports[0], "good.example") && served(ports[0], "bad.example"));
    connect(ports[1]);
    // Without the first certificate, the default, the start fails. With `tls expired = refuse` it
    // fails for any certificate that has expired.
    for (certificates, status) in [
        (format!("{good}{bad}"), 0),
        (format!("{bad}{good}"), 69),
        (format!("{good}{bad}tls expired = refuse\n"), 69),
        (format!("{good}{bad}tls expired = warn\n"), 0),
        (format!("{good}tls expired = refuse\n"), 0),
        (format!("{good}tls expired = maybe\n"), 78),
    ] {
        let output = check(with_certificates(ports, &certificates));
        assert_eq!(output.status.code(), Some(status), "{certificates}: {}", said(&output));
        assert_eq!(said(&output).contains("has expired"), certificates.contains("bad"));
    }
}

#[test]
fn a_certificate_that_has_expired_meanwhile_does_not_prevent_a_reload() {
    let files = Directory::new();
    let authority = Identity::authority("authority");
    let good = authority.sign(&["good.example"], pki::ec_key());
    let directives = good.directives(files.path(), "own");
    let ports = [free_port(), free_port()];
    let relay = Launch::new(with_certificates(ports, &directives)).ready(1).start();
    authority.sign_expired(&["bad.example"]).directives(files.path(), "own");
    for (signal, done) in [
        (Signal::SIGHUP, "SIGHUP: restarting"),
        (Signal::SIGUSR1, "SIGUSR1: replacing all workers"),
    ] {
        let before = relay.log().matches("own.pem: the certificate has expired").count();
        relay.signal(signal);
        relay.expect_log(done);
        relay.wait_for_log("the warning", |log| {
            (log.matches("own.pem: the certificate has expired").count() > before).then_some(())
        });
        assert!(served(ports[0], "bad.example"));
    }
    // A file that cannot be parsed is refused, as before.
    fs::write(files.file("own.pem"), "nothing").expect("a file");
    relay.signal(Signal::SIGHUP);
    relay.expect_log("the configuration is refused, the running one stays in service");
    assert!(served(ports[0], "bad.example"));
}

/// Another program's worker reads the configuration itself.
#[test]
fn what_the_user_of_the_workers_may_not_read_is_found() {
    if !is_root() {
        return left_out("only root can give workers another user");
    }
    let directory = Directory::new();
    let path = directory.write(
        "relay.cfg",
        format!(
            "id = spawnd {{ listen = {{ port = 0 }} spawn {{ exec = {} userid = nobody }} }}\n\
             id = tcprelay {{ remote = {{ address = 127.0.0.1 port = 1 }} }}\n",
            env!("CARGO_BIN_EXE_tcprelay")
        ),
    );
    for (mode, status) in [(0o644, 0), (0o600, 66)] {
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        let output = check_file(&path);
        assert_eq!(output.status.code(), Some(status), "{}", said(&output));
        assert_eq!(said(&output).contains("relay.cfg: Permission denied"), status != 0);
    }
}

#[test]
fn balancing_that_does_not_exist_is_refused_with_what_does() {
    let relay = |directive: &str| {
        check(format!(
            "id = spawnd {{\n listen = {{ address = 127.0.0.1 port = 0 }}\n}}\nid = tcprelay {{\n\
             remote = {{ address = 127.0.0.1 port = 5 tag = web }}\n{directive}\n}}\n"
        ))
    };
    for (directive, expected) in [
        (
            "balance = fastest",
            "6: Expected 'hash', 'least-use', 'random', 'round-robin' or 'source', but got 'fastest'",
        ),
        ("balance tag = web", "7: Expected 'hash', 'least-use', 'random', 'round-robin' or 'source'"),
        ("balance tag = mail source", "6: balance tag: no remote has the tag 'mail'"),
        ("balance range = all", "6: Expected '=', 'scope' or 'tag', but got 'range'"),
    ] {
        let output = relay(directive);
        assert_eq!(output.status.code(), Some(78), "{directive}");
        let found = mistakes(&output);
        assert!(found.iter().any(|line| line.starts_with(expected)), "{directive}: {found:?}");
    }
    assert!(relay("balance = source\nbalance tag = web random").status.success());
}

#[test]
fn routes_that_lead_nowhere_are_refused() {
    let relay = |listen: &str, directive: &str| {
        check(format!(
            "id = spawnd {{\n listen = {{ address = 127.0.0.1 port = 0 {listen} }}\n}}\n\
             id = tcprelay {{\nremote = {{ address = 127.0.0.1 port = 5 tag = web, any }}\n\
             {directive}\n}}\n"
        ))
    };
    for (listen, directive, expected) in [
        ("", "route = { sni = a.example }", "6: route: 'to' is missing"),
        ("", "route = { to = mail }", "6: route: no remote has the tag 'mail'"),
        ("", "route default = mail", "6: route: no remote has the tag 'mail'"),
        ("", "route = { name = a to = web }", "6: Expected 'alpn', 'from', 'listener', 'port', 'sni'"),
        ("", "route = { sni = *.*.a to = web }", "6: Expected a host name or '*.' and one, but got"),
        ("", "route = { sni = 10.0.0.1 to = web }", "6: Expected a host name or '*.' and one"),
        ("", "route = { from = mars to = web }", "6: Expected an IP address or network in CIDR"),
        ("", "route = { port = 99999 to = web }", "6: "),
        ("", "route { to = web }", "6: Expected '=' or 'default', but got '{'"),
        ("tls = look", "", "2: Expected 'DTLSv1.0', 'DTLSv1.2', 'DTLSv1.3', 'TLSv1.2', 'TLSv1.3', 'auto', 'deny', 'false', 'inspect'"),
    ] {
        let output = relay(listen, directive);
        assert_eq!(output.status.code(), Some(78), "{directive}");
        let found = mistakes(&output);
        assert!(found.iter().any(|line| line.starts_with(expected)), "{directive}: {found:?}");
    }
    let good = "route = { listener = a, b sni = x.example, *.y.example. alpn = h2 \
                from = 10.0.0.0/8, ::1 port = 443, 8000-8100 to = web }\n\
                route = { to = \"any\" }\nroute default = reject";
    assert!(relay("tls = inspect", good).status.success());
}

#[test]
fn routes_that_no_connection_can_match_are_pointed_out() {
    let relay = |listen: &str, route: &str| {
        let output = check(format!(
            "id = spawnd {{\n listen = {{ address = 127.0.0.1 port = 0 realm = web {listen} }}\n}}\n\
             id = tcprelay {{\nremote = {{ address = 127.0.0.1 port = 5 tag = a }}\n{route}\n}}\n"
        ));
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    };
    let realm = "6: WARNING: route: no listener has the realm 'mail'";
    let hello = "6: WARNING: route: 'sni' and 'alpn' need a listener with 'tls' or 'tls = inspect'";
    assert!(relay("", "route = { listener = web, mail to = a }").contains(realm));
    assert!(relay("", "route = { sni = a.example to = a }").contains(hello));
    assert!(relay("tls = inspect", "route = { listener = mail alpn = h2 to = a }").contains(hello));
    for (listen, route) in [
        ("tls = inspect", "route = { listener = web sni = a.example to = a }"),
        ("haproxy = yes", "route = { alpn = h2 to = a }"),
        ("", "route = { listener = web port = 5 to = a }"),
    ] {
        assert!(!relay(listen, route).contains("WARNING"), "{route}");
    }
}

#[test]
fn questions_are_answered_on_standard_output() {
    let mavistest = Path::new(env!("CARGO_BIN_EXE_mavistest"));
    for program in [Path::new(TCPRELAY), Path::new(SPAWND), mavistest] {
        for (question, answer) in
            [("-h", "Usage:"), ("--help", "Usage:"), ("--version", " version ")]
        {
            let output = run(ours(program).arg(question));
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{program:?} {question}: {output:?}");
            assert!(said.contains(answer), "{program:?} {question}: {said}");
            assert!(!said.contains('\x1b') && output.stderr.is_empty(), "{output:?}");
        }
        let refused = ours(program).arg("--nothing").stdin(Stdio::null()).output().expect("an end");
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
    }
}
