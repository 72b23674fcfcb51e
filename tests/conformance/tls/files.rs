//! Certificates and keys in files.

use super::*;

pub(super) fn x007() {
    let peer = Peer::echo();
    let identity = &pki().ec;
    let (chain, key) = (pki().chain(identity), key_pem(&identity.key));
    for content in [[&chain[..], &key].concat(), [&key[..], &chain].concat()] {
        let port = free_port();
        let text = format!("tls cert-file = @DIR@/both.pem\n{}", peer.remote());
        let _relay = launch(port, "tls = yes", &text).file("both.pem", content).start();
        for version in VERSIONS {
            served(port, version);
        }
    }
}

/// The key of the usual certificate, encrypted.
pub(super) fn encrypted(passphrase: &str) -> Vec<u8> {
    let key = &pki().ec.key;
    let cipher = Cipher::aes_256_cbc();
    key.private_key_to_pem_pkcs8_passphrase(cipher, passphrase.as_bytes()).expect("PEM")
}

pub(super) fn x008() {
    let peer = Peer::echo();
    let passphrase = "correct horse";
    let (ec, rsa) = (&pki().ec, &pki().rsa);
    let (cipher, bytes) = (Cipher::aes_128_cbc(), passphrase.as_bytes());
    // Also the older form of PEM, with `Proc-Type` and `DEK-Info`.
    let old_ec = ec.key.ec_key().and_then(|key| key.private_key_to_pem_passphrase(cipher, bytes));
    let old_rsa = rsa.key.rsa().and_then(|key| key.private_key_to_pem_passphrase(cipher, bytes));
    for (identity, key) in
        [(ec, encrypted(passphrase)), (ec, old_ec.expect("PEM")), (rsa, old_rsa.expect("PEM"))]
    {
        assert!(String::from_utf8_lossy(&key).contains("ENCRYPTED"));
        let port = free_port();
        let text = format!("{FILES}tls passphrase = \"{passphrase}\"\n{}", peer.remote());
        let launch = launch(port, "tls = yes", &text);
        let launch = launch.file("cert.pem", pki().chain(identity)).file("key.pem", key);
        let _relay = launch.start();
        for version in VERSIONS {
            served(port, version);
        }
    }
}

/// Requires exactly one line that names the file, with these words.
pub(super) fn named_once(log: &str, file: &Path, words: &[&str]) {
    let name = file.display().to_string();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(&name)).collect();
    assert_eq!(lines.len(), 1, "lines with {name}:\n{log}");
    for word in words {
        assert!(lines[0].contains(word), "no {word:?} in {:?}", lines[0]);
    }
}

/// Requires that starting `make`'s relay fails in every way, each with a message: a worker on its
/// own, the whole service, and `-P`. `heard` is a message already in the worker's channel.
pub(super) fn refused(make: impl Fn() -> Launch, heard: Option<&[u8]>, file: &str, words: &[&str]) {
    // As under the C program's broker.
    let launch = make().without("TCPRELAY_BROKER");
    let mut broker = FakeBroker::start_after(launch, heard);
    let message = broker.receive();
    assert_eq!(message.kind(), BAD_CONFIGURATION, "{message:?}\n{}", broker.relay.log());
    assert_eq!(broker.relay.wait().code(), Some(69), "{}", broker.relay.log());
    named_once(&broker.relay.log(), &broker.relay.directory.file(file), words);
    assert!(!broker.relay.log().contains("Enter"), "{}", broker.relay.log());
    assert!(stdout(&broker.relay).is_empty());
    for arguments in [&["@CFG@"][..], &["-P", "@CFG@"]] {
        let finished = make().arguments(arguments).finish();
        named_once(&finished.exits(69).stderr, &finished.relay.directory.file(file), words);
        silent_refusal(&finished);
    }
}

/// Requires that it asked nobody for a passphrase, and started no worker.
pub(super) fn silent_refusal(finished: &Finished) {
    let log = &finished.stderr;
    assert!(!log.contains("Enter") && !log.contains("is being used"), "{log}");
    assert!(finished.stdout.is_empty());
}

pub(super) fn x009() {
    const CALL: &str = "SSL_CTX_use_PrivateKey_file: ";
    // One wrong passphrase in 256 decrypts to valid padding, and is noticed only later.
    let wrong = "wrong";
    let noticed = |pem: &Vec<u8>| {
        let result = PKey::private_key_from_pem_passphrase(pem, wrong.as_bytes());
        result.is_err_and(|errors| errors.to_string().contains("bad decrypt"))
    };
    let key = std::iter::repeat_with(|| encrypted("right")).find(noticed).expect("a key");
    let text = format!("{FILES}tls passphrase = {wrong}\n{}", remote(1));
    let words = [CALL, "error:1C800064:Provider routines::bad decrypt"];
    let make = || launch(free_port(), "tls = yes", &text).file("key.pem", &key);
    refused(make, None, "key.pem", &words);
    // A broker that does not read its worker's section learns of it from the worker.
    let config = format!(
        "id = spawnd {{\nlisten = {{ address = 127.0.0.1 port = {} tls = yes }}\n\
         spawn = {{ exec = @BIN@ instances min = 1 instances max = 1 }}\n}}\n{}",
        free_port(),
        worker_section(&text)
    );
    let launch = Launch::new(config).program(SPAWND).file("key.pem", &key);
    let finished = launch.file("cert.pem", pki().chain(&pki().ec)).finish();
    finished.exits(78).says("Child reported fatal configuration problem. Exiting.");
    named_once(&finished.stderr, &finished.relay.directory.file("key.pem"), &words);
}

pub(super) fn x010() {
    let text = format!("{FILES}{}", remote(1));
    let answer = b"secret\n";
    let make = || {
        let launch = launch(free_port(), "tls = yes", &text).file("key.pem", encrypted("secret"));
        // A program that asks on standard input would read the right answer here, and serve.
        let launch = launch.file("answer", answer);
        let input = File::open(launch.directory.file("answer")).expect("the answer");
        launch.input(input)
    };
    let words = ["SSL_CTX_use_PrivateKey_file: ", "encrypted", "passphrase"];
    refused(make, Some(answer), "key.pem", &words);
}

pub(super) fn x011() {
    const CHAIN: &str = "SSL_CTX_use_certificate_chain_file: ";
    const KEY: &str = "SSL_CTX_use_PrivateKey_file: ";
    const MISSING: &str = "error:80000002:system library::No such file or directory";
    let make = |text: &str| launch(free_port(), "tls = yes", &format!("{text}{}", remote(1)));
    let no_chain = "tls cert-file = @DIR@/none.pem\ntls key-file = @DIR@/key.pem\n";
    refused(|| make(no_chain), None, "none.pem", &[CHAIN, MISSING]);
    let no_key = "tls cert-file = @DIR@/cert.pem\ntls key-file = @DIR@/none.pem\n";
    refused(|| make(no_key), None, "none.pem", &[KEY, MISSING]);
    let other = key_pem(&ec_key());
    let words = [KEY, "error:05800074:x509 certificate routines::key values mismatch"];
    refused(|| make(FILES).file("key.pem", &other), None, "key.pem", &words);
}

pub(super) fn x012() {
    let peer = Peer::echo();
    for listen in ["tls", "tls = yes", "tls = auto", "tls = TLSv1.3"] {
        for more in ["", "tls key-file = @DIR@/key.pem\n"] {
            let text = format!("{more}{}", peer.remote());
            for arguments in [&["@CFG@"][..], &["-P", "@CFG@"]] {
                let launch = launch(free_port(), listen, &text).arguments(arguments);
                let finished = launch.finish();
                silent_refusal(finished.exits(78).says("cert-file"));
            }
        }
    }
    // A worker under a broker that does not check this refuses its connections, and does not crash.
    let launch = Launch::new(worker_section(&peer.remote())).without("TCPRELAY_BROKER");
    let broker = FakeBroker::ready(launch);
    let mut message = accept_message();
    message[4..8].copy_from_slice(&0x0403u32.to_ne_bytes());
    for _ in 0..3 {
        let (mut client, server) = tcp_pair();
        broker.send(&message, Some(server.as_fd()));
        drop(server);
        assert!(has_been_closed(&mut client));
        broker.expect_done(1);
    }
    let lines = broker.relay.log().matches("cert-file").count();
    assert_eq!(lines, 1, "{}", broker.relay.log());
    ping(&mut broker.connect(), b"hello");
}
