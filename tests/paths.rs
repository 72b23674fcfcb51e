//! What a relay does to files: it creates and removes its own, and touches no others, whatever may
//! have taken their names.

mod common;

use common::*;
use nix::sys::signal::Signal;
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A relay's configuration with a UNIX listener; `options` are the listener's, `top` goes to the
/// top level.
fn configuration(path: &Path, options: &str, top: &str) -> String {
    format!(
        "{top}\nid = spawnd {{ listen = {{ path = {} {options} }}\n \
         spawn {{ instances min = 1 instances max = 1 }} }}\n\
         id = tcprelay {{ remote = {{ address = 127.0.0.1 port = 9 }} }}\n",
        path.display()
    )
}

fn reload(relay: &Relay) {
    let count = |log: &str| log.matches("is being used").count();
    let before = count(&relay.log());
    relay.signal(Signal::SIGHUP);
    // Logged by the broker and by its new worker.
    relay.wait_for_log("the reload", |log| (count(log) >= before + 2).then_some(()));
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("a file").permissions().mode() & 0o7777
}

fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|metadata| metadata.ino())
}

fn private_file(directory: &Directory, name: &str) -> std::path::PathBuf {
    let path = directory.write(name, "precious");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
    path
}

/// A socket that is bound but does not listen.
fn bound(path: &Path) -> OwnedFd {
    // SAFETY: socket(2) takes plain numbers, and the descriptor is nobody else's; sockaddr_un is plain
    // data, and bind(2) reads it.
    unsafe {
        let fd = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        let fd = OwnedFd::from_raw_fd(fd);
        let mut address: libc::sockaddr_un = std::mem::zeroed();
        address.sun_family = libc::AF_UNIX as _;
        for (to, from) in address.sun_path.iter_mut().zip(path.to_str().unwrap().bytes()) {
            *to = from as _;
        }
        let length = size_of::<libc::sockaddr_un>() as _;
        assert_eq!(libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length), 0);
        fd
    }
}

#[test]
fn a_reload_follows_no_link_in_the_place_of_a_socket() {
    for options in ["mode = 0666", ""] {
        let directory = Directory::new();
        let (path, secret) = (directory.file("socket"), private_file(&directory, "secret"));
        let relay = Launch::new(configuration(&path, options, "")).start();
        fs::remove_file(&path).expect("to remove");
        symlink(&secret, &path).expect("a link");
        reload(&relay);
        assert_eq!(mode(&secret), 0o600);
        fs::remove_file(&path).expect("to remove");
        fs::hard_link(&secret, &path).expect("a link");
        reload(&relay);
        assert_eq!(mode(&secret), 0o600);
    }
}

#[test]
fn a_reload_that_has_nothing_to_do_touches_nothing() {
    let directory = Directory::new();
    let path = directory.file("socket");
    let relay = Launch::new(configuration(&path, "mode = 0660", "")).start();
    assert_eq!(mode(&path), 0o660);
    let changed = || {
        let metadata = fs::symlink_metadata(&path).expect("the socket");
        (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
    };
    let before = changed();
    reload(&relay);
    reload(&relay);
    assert_eq!(changed(), before);
}

#[test]
fn another_ones_socket_is_neither_changed_nor_removed() {
    let directory = Directory::new();
    let path = directory.file("socket");
    let text = configuration(&path, "mode = 0666", "");
    let mut first = Launch::new(&text).start();
    fs::remove_file(&path).expect("to remove");
    let second = Launch::new(text.replace("0666", "0600")).start();
    let theirs = inode(&path);
    reload(&first);
    assert_eq!((inode(&path), mode(&path)), (theirs, 0o600));
    first.signal(Signal::SIGTERM);
    first.wait();
    assert_eq!(inode(&path), theirs);
    drop(UnixStream::connect(&path).expect("still served"));
    drop(second);
}

#[test]
fn the_next_image_knows_its_socket() {
    let directory = Directory::new();
    let path = directory.file("socket");
    let mut relay = Launch::new(configuration(&path, "", "")).start();
    reload(&relay);
    reload(&relay);
    relay.signal(Signal::SIGTERM);
    relay.wait();
    assert!(!path.exists());
}

#[test]
fn a_listener_that_is_given_up_leaves_another_ones_socket() {
    let directory = Directory::new();
    let (path, other) = (directory.file("socket"), directory.file("other"));
    let relay = Launch::new(configuration(&path, "", "")).start();
    fs::remove_file(&path).expect("to remove");
    let socket = bound(&path);
    let theirs = inode(&path);
    fs::write(&relay.config, configuration(&other, "", "")).expect("to write");
    reload(&relay);
    assert!(other.exists());
    assert_eq!(inode(&path), theirs);
    drop(socket);
}

#[test]
fn a_socket_that_is_about_to_listen_is_not_stale() {
    let directory = Directory::new();
    let path = directory.file("socket");
    let socket = bound(&path);
    let theirs = inode(&path);
    let mut relay = Launch::new(configuration(&path, "", "")).ready(None).start();
    relay.expect_log("startup");
    nothing_happens_for(Duration::from_millis(100));
    // SAFETY: listen(2) takes plain numbers.
    assert_eq!(unsafe { libc::listen(socket.as_raw_fd(), 5) }, 0);
    assert_eq!(relay.wait().code(), Some(75));
    assert_eq!(inode(&path), theirs);
}

#[test]
fn of_brokers_that_find_the_same_stale_socket_one_serves() {
    let directory = Directory::new();
    for round in 0..4 {
        let path = directory.file(&format!("socket{round}"));
        drop(bound(&path));
        let start = || Launch::new(configuration(&path, "", "")).ready(None).start();
        let relays = [start(), start(), start()];
        let served = |relay: &&Relay| relay.log().contains("succeeded");
        let failed = |relay: &&Relay| relay.log().contains("Failed to bind to any");
        wait_for("all of them to try", || {
            let done = relays.iter().filter(|relay| served(relay) || failed(relay)).count();
            (done == relays.len()).then_some(())
        });
        assert_eq!(relays.iter().filter(served).count(), 1);
        drop(UnixStream::connect(&path).expect("to be served"));
    }
}

#[test]
fn a_pid_file_is_no_other_file() {
    for link in ["symbolic", "hard", "dangling"] {
        let directory = Directory::new();
        let (socket, path) = (directory.file("socket"), directory.file("pid"));
        let secret = private_file(&directory, "secret");
        match link {
            "symbolic" => symlink(&secret, &path),
            "dangling" => symlink(directory.file("nowhere"), &path),
            _ => fs::hard_link(&secret, &path),
        }
        .expect("a link");
        let pidfile = format!("id = spawnd {{ pidfile = {} ", path.display());
        let text = configuration(&socket, "", "").replace("id = spawnd {", &pidfile);
        let mut relay = Launch::new(text).start();
        relay.expect_log("pid_write(");
        relay.signal(Signal::SIGTERM);
        relay.wait();
        assert_eq!(fs::read(&secret).expect("the file"), b"precious", "{link}");
        assert!(fs::symlink_metadata(&path).is_ok(), "{link}");
        assert!(!directory.file("nowhere").exists());
    }
}

#[test]
fn debug_output_goes_to_no_other_file() {
    for link in ["symbolic", "hard"] {
        let directory = Directory::new();
        let (socket, path) = (directory.file("socket"), directory.file("debug"));
        let secret = private_file(&directory, "secret");
        match link {
            "symbolic" => symlink(&secret, &path),
            _ => fs::hard_link(&secret, &path),
        }
        .expect("a link");
        let redirect = format!("debug redirect = {}", path.display());
        let relay = Launch::new(configuration(&socket, "", &redirect)).start();
        relay.expect_log("Couldn't open");
        assert_eq!(fs::read(&secret).expect("the file"), b"precious", "{link}");
    }
}
