//! The secrets of a TLS session do not stay in a worker's memory after the session.

mod common;

use common::memory::memory_contains;
use common::pki::Identity;
use common::*;
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode, SslVersion};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

/// The secrets that a client prints (its key log), as bytes.
fn secrets(lines: &Mutex<Vec<String>>) -> Vec<(String, Vec<u8>)> {
    let lines = lines.lock().unwrap();
    let known = |line: &&String| {
        ["CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0", "CLIENT_RANDOM"]
            .iter()
            .any(|label| line.starts_with(label))
    };
    let bytes = |text: &str| {
        let digits: Vec<u32> = text.chars().filter_map(|one| one.to_digit(16)).collect();
        digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
    };
    let field = |line: &String, index| line.split(' ').nth(index).unwrap_or("").to_owned();
    lines.iter().filter(known).map(|line| (field(line, 0), bytes(&field(line, 2)))).collect()
}

const WORD: usize = 40;

/// Bytes that are nowhere else.
fn plain_word() -> [u8; WORD] {
    let mut word = [0; WORD];
    openssl::rand::rand_bytes(&mut word).expect("random bytes");
    word
}

#[test]
fn nothing_of_a_session_stays_when_it_has_gone() {
    if !is_root() {
        return left_out("only root may read the memory of a worker");
    }
    for records in ["auto", "openssl"] {
        let (peer, files) = (Peer::echo(), Directory::new());
        let directives = Identity::own(&["localhost"]).directives(files.path(), "own");
        let section = format!(
            "{}\n{directives}tls records = {records}\ntls session timeout = 0\naccess log = yes",
            peer.remote()
        );
        let (relay, port) = relay(section).listen("tls = yes").start();
        let worker = relay.workers()[0];
        let lines = Arc::new(Mutex::new(Vec::new()));
        let connect = |version: SslVersion| {
            let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("a client");
            builder.set_verify(SslVerifyMode::NONE);
            builder.set_max_proto_version(Some(version)).expect("a version");
            let store = lines.clone();
            builder.set_keylog_callback(move |_, line| store.lock().unwrap().push(line.to_owned()));
            let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            let mut stream = builder.build().connect("localhost", stream).expect("a handshake");
            let word = plain_word();
            stream.write_all(&word).expect("to send");
            stream.read_exact(&mut [0; WORD]).expect("an answer");
            // Plain bytes are wiped although nothing else comes.
            wait_for("wiped buffers", || (!memory_contains(worker, &word)).then_some(()));
            stream
        };
        for version in [SslVersion::TLS1_3, SslVersion::TLS1_2] {
            let mut stream = connect(version);
            let known = secrets(&lines);
            // During the session the TLS 1.3 secrets are there; otherwise the search itself would
            // be broken.
            if version == SslVersion::TLS1_3 {
                assert!(known.iter().any(|(_, secret)| memory_contains(worker, secret)));
            }
            let _ = stream.shutdown();
            drop(stream);
            let ended = relay.log().matches("access: client").count();
            relay.wait_for_log("its end", |log| {
                (log.matches("access: client").count() > ended.saturating_sub(1)).then_some(())
            });
        }
        relay.wait_for_log("both ends", |log| {
            (log.matches("access: client").count() == 2).then_some(())
        });
        let known = secrets(&lines);
        assert_eq!(known.len(), 3);
        for (name, secret) in known {
            // The line is written before the session's memory is freed.
            wait_for(&format!("{name} to be wiped, tls records = {records}"), || {
                (!memory_contains(worker, &secret)).then_some(())
            });
        }
    }
}
