//! What a worker gives up after its start, and that it still does its work. The sandbox is the
//! default, so all other tests run with it as well.

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

mod common;

use common::launch::{monitor, section, serving as serving_workers};
use common::modules::modules;
use common::pki;
use common::*;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// Seccomp and NoNewPrivs of a process (proc(5)); Seccomp 2 is a filter.
fn confinement(pid: i32) -> (u32, u32) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a living process");
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|value| value.trim().parse().ok()).expect("a line of /proc/PID/status")
    };
    (value("Seccomp"), value("NoNewPrivs"))
}

const FREE: (u32, u32) = (0, 0);
const CONFINED: (u32, u32) = (2, 1);

/// A relay with one worker that has served a session, so that its start is over. `top` goes to the
/// top level, `section` into the worker's section.
fn serving(top: &str, section: &str) -> Relay {
    let (peer, port) = (Peer::echo(), free_port());
    let text = format!(
        "id = spawnd {{\n listen = {{ address = 127.0.0.1 port = {port} }}\n \
         spawn {{ instances min = 1 instances max = 1 }}\n}}\n{top}\n\
         id = tcprelay {{\nmavis path = {}\n{section}\n{}\n}}\n",
        modules().display(),
        peer.remote()
    );
    let relay = Launch::new(text).start();
    ping(&mut connect(port), b"ping");
    relay
}

#[test]
fn workers_are_confined_and_brokers_are_not() {
    for (setting, expected) in [("", CONFINED), ("sandbox = yes", CONFINED), ("sandbox = no", FREE)]
    {
        let relay = serving("", setting);
        assert_eq!(confinement(relay.workers()[0]), expected, "{setting:?}");
        assert_eq!(confinement(relay.pid()), FREE, "{setting:?}");
        assert!(!relay.log().contains("sandbox"), "{}", relay.log());
    }
}

#[test]
fn a_single_process_is_not_confined() {
    let (peer, port) = (Peer::echo(), free_port());
    let section = format!("sandbox = yes\n{}", peer.remote());
    let relay = Launch::simple(port, &section).argument("-1").start();
    ping(&mut connect(port), b"ping");
    assert_eq!(confinement(relay.pid()), FREE);
}

#[test]
fn what_may_need_more_is_named_and_gets_it() {
    let module = "mavis module = tell { }";
    let crash = "debug-cmd = \"true\"";
    let gcore = "coredump directory = /tmp\ngcore = \"true\"";
    for (top, section, reason) in [
        ("", module, Some("the module 'tell' may start programs or write files")),
        (crash, "", Some("debug-cmd starts a program")),
        (gcore, "", Some("gcore starts a program")),
        ("gcore = \"true\"", "", None),
    ] {
        for setting in ["", "sandbox = yes", "sandbox = no"] {
            let relay = serving(top, &format!("{section}\n{setting}"));
            let said = reason.filter(|_| setting.is_empty());
            let is_confined = said.is_none() && setting != "sandbox = no";
            let expected = if is_confined { CONFINED } else { FREE };
            assert_eq!(confinement(relay.workers()[0]), expected, "{top} {section} {setting}");
            let log = relay.log();
            assert_eq!(log.matches("sandbox").count(), usize::from(said.is_some()), "{log}");
            let line = |said| format!("no sandbox: {said}\n");
            assert!(said.is_none_or(|said| log.contains(&line(said))), "{log}");
        }
    }
}

#[test]
fn modules_that_are_known_to_need_nothing_are_confined() {
    let files = Directory::new();
    let plain = modules().join("libmavis_bare.so");
    for (name, expected) in [("null", CONFINED), ("external", FREE), ("external-mt", FREE)] {
        let module = files.file(&format!("libmavis_{name}.so"));
        std::fs::copy(&plain, module).expect("a copy");
        let relay = serving(
            "",
            &format!(
                "mavis path = {}\nmavis module = {name} {{ script in = {{ \
                 if (USER =~ /^127/) set RESULT = ACK return }} }}\nauthorization = mavis",
                files.path().display()
            ),
        );
        assert_eq!(confinement(relay.workers()[0]), expected, "{name}");
        let reason = format!("no sandbox: the module '{name}' may start programs or write files");
        assert_eq!(relay.log().contains(&reason), expected == FREE, "{}", relay.log());
    }
}

/// What the `escape` module tries, and the errno in a sandbox. Without this sandbox it ends with
/// another errno, or works.
const REFUSED: &[(&str, i32)] = &[
    ("execve", libc::EPERM),
    ("execveat", libc::EPERM),
    ("fork", libc::EPERM),
    ("to write", libc::EACCES),
    ("to read and write", libc::EACCES),
    ("to create", libc::EACCES),
    ("to truncate", libc::EACCES),
    ("openat2", libc::ENOSYS),
    ("unlink", libc::EPERM),
    ("rename", libc::EPERM),
    ("truncate", libc::EPERM),
    ("ptrace", libc::EPERM),
    ("process_vm_readv", libc::EPERM),
    ("kill broker", libc::EPERM),
    ("to signal broker", libc::EPERM),
    ("listen", libc::EPERM),
    ("packets", libc::EPERM),
    ("raw packets", libc::EPERM),
    ("ping", libc::EPERM),
    ("memory of broker", libc::EACCES),
    ("to type", libc::EPERM),
    ("io_uring", libc::EPERM),
    ("beyond", libc::ENOSYS),
    #[cfg(target_arch = "x86_64")]
    ("open", libc::EACCES),
];
const ALLOWED: [&str; 3] = ["to read", "kill self", "socket"];

/// Operations that some users are refused anyway, with the same errno.
const REFUSED_ANYWAY: [&str; 6] =
    ["packets", "raw packets", "memory of broker", "to type", "io_uring", "beyond"];

#[test]
fn a_worker_cannot_do_more_than_relay() {
    let ask = "mavis module = escape { }\nauthorization = mavis\n";
    let confined = serving("", &format!("{ask}sandbox = yes"));
    let free = serving("", &format!("{ask}sandbox = no"));
    let (confined, free) = (confined.log(), free.log());
    for &(what, errno) in REFUSED {
        let line = format!("tried {what}: {errno}\n");
        assert!(confined.contains(&line), "{what}:\n{confined}");
        assert!(REFUSED_ANYWAY.contains(&what) || !free.contains(&line), "{what}:\n{free}");
    }
    for what in ALLOWED {
        let line = format!("tried {what}: 0\n");
        assert!(confined.contains(&line) && free.contains(&line), "{what}:\n{confined}{free}");
    }
}

/// A line of /proc/PID/status.
fn status(pid: i32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a living process");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.expect("a line of /proc/PID/status").trim().to_owned()
}

#[test]
fn workers_have_no_capabilities() {
    let (confined, free) = (serving("", ""), serving("", "sandbox = no"));
    for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status(confined.workers()[0], name), "0000000000000000", "{name}");
    }
    // Without a sandbox, the worker has what its broker has.
    let (worker, broker) = (free.workers()[0], free.pid());
    assert_eq!(status(worker, "CapPrm"), status(broker, "CapPrm"));
}

#[test]
fn the_monitor_is_the_workers_user_and_confined_as_they_are() {
    let (peer, port) = (Peer::echo(), free_port());
    let user = if is_root() { "userid = 65534 groupid = 65534" } else { "" };
    let checked = peer.remote().replace('}', "check = tcp }");
    let relay = Launch::new(section(port, "", user, &checked)).start();
    let pid = wait_for("the monitor", || monitor(&relay));
    wait_for("its sandbox", || (confinement(pid) == CONFINED).then_some(()));
    for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status(pid, name), "0000000000000000", "{name}");
    }
    let worker = serving_workers(&relay)[0];
    assert_eq!(status(pid, "Uid"), status(worker, "Uid"));
    assert_eq!(status(pid, "Gid"), status(worker, "Gid"));
}

#[test]
fn workers_of_root_are_worth_a_warning() {
    let warned = serving("", "").log().contains("Warning: workers are root's.");
    assert_eq!(warned, is_root());
}

/// The /proc files of a process belong to root unless it may be traced.
#[test]
fn one_user_cannot_look_into_broker_and_workers() {
    use std::os::unix::fs::MetadataExt;
    let (peer, port) = (Peer::echo(), free_port());
    let setup = Launch::simple(port, &format!("sandbox = no\n{}", peer.remote()));
    let mut setup = setup.environment("TCPRELAY_TRACEABLE", "");
    if is_root() {
        setup = setup.program("setpriv");
        for argument in ["--reuid=65534", "--regid=65534", "--clear-groups", TCPRELAY] {
            setup = setup.argument(argument);
        }
    }
    let relay = setup.start();
    for pid in [relay.pid(), relay.workers()[0]] {
        let owner = |path: String| std::fs::metadata(path).expect("a living process").uid();
        assert_ne!(status(pid, "Uid").split('\t').next(), Some("0"));
        assert_eq!(owner(format!("/proc/{pid}/mem")), 0);
    }
}

/// OpenSSL looks up an authority in its directory only when it needs one.
#[test]
fn authorities_of_the_system_are_found_by_a_confined_worker() {
    let files = Directory::new();
    let authority = pki::Identity::authority("authority");
    let server = authority.sign(&["localhost"], pki::ec_key());
    let (certificate, key) = server.write(files.path(), "server");
    let (trusted, _) = authority.write(files.path(), "authority");
    let hash = run(Command::new(program("openssl"))
        .args(["x509", "-noout", "-hash", "-in"])
        .arg(&trusted));
    let store = Directory::new();
    for (file, mode) in [(files.path(), 0o755), (store.path(), 0o755), (&trusted, 0o644)] {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(file, mode).expect("a mode");
    }
    std::fs::copy(&trusted, store.file(&format!("{}.0", text(&hash).trim()))).expect("a copy");
    let (remote, port) = (free_port(), free_port());
    let mut command = Command::new(program("openssl"));
    command.args(["s_server", "-quiet", "-rev", "-accept", &format!("127.0.0.1:{remote}")]);
    let _server = Server::start(command.arg("-cert").arg(certificate).arg("-key").arg(key), remote);
    let section = format!(
        "remote = {{ address = 127.0.0.1 port = {remote} tls = yes tls server-name = localhost }}"
    );
    let relay = Launch::simple(port, &section)
        .environment("SSL_CERT_DIR", store.path().to_str().expect("a path"))
        .environment("SSL_CERT_FILE", "/nowhere")
        .start();
    let mut client = connect(port);
    client.write_all(b"abc\n").expect("to send");
    let mut answer = [0; 4];
    client.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"cba\n");
    assert_eq!(confinement(relay.workers()[0]), CONFINED);
}
