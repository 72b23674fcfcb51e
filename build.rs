//! Build script: turns the token table into code, and compiles the test-only emulations of
//! foreign event mechanisms when asked to.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::Path;

fn main() {
    require_openssl();
    generate_tokens();
    event_shims();
}

/// TLS needs OpenSSL 3.0 or later. What the libraries of the same interface lack is said here, and
/// not by a compiler or linker somewhere later.
fn require_openssl() {
    let has = |name: &str| env::var_os(format!("DEP_OPENSSL_{name}")).is_some();
    let lacking = if has("LIBRESSL_VERSION_NUMBER") {
        "LibreSSL has neither the callbacks for ticket keys (SSL_CTX_set_tlsext_ticket_key_evp_cb) \
         and secrets (SSL_CTX_set_keylog_callback) nor EVP_CIPHER_fetch"
    } else if has("BORINGSSL") || has("AWSLC") {
        "BoringSSL and AWS-LC have neither SSL_CTX_set_tlsext_ticket_key_evp_cb nor \
         EVP_CIPHER_fetch"
    } else {
        let number = env::var("DEP_OPENSSL_VERSION_NUMBER").unwrap_or_default();
        match u64::from_str_radix(&number, 16) {
            Ok(number) if number < 0x3000_0000 => "this OpenSSL is older than 3.0",
            _ => return,
        }
    };
    panic!(
        "{lacking}. tcprelay needs OpenSSL 3.0 or later: set OPENSSL_DIR to one, or build with \
         --features vendored-openssl"
    );
}

/// `ffi/tokens.tsv` (number, enum name, text, length) becomes constants and the text table.
fn generate_tokens() {
    let table = "ffi/tokens.tsv";
    println!("cargo::rerun-if-changed={table}");
    let text = fs::read_to_string(table).expect("the token table is part of the source");
    let mut constants = String::new();
    let mut texts =
        String::from("/// Text of each reserved word, by number.\npub const TEXT: &[&str] = &[\n");
    for (index, line) in text.lines().skip(1).enumerate() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [number, name, text, ..] = fields[..] else {
            panic!("{table}:{}: expected number, name and text", index + 2);
        };
        let number: usize = number.parse().expect("a token number");
        assert_eq!(number, index, "{table}: numbers are consecutive");
        writeln!(constants, "#[doc = \"`{text}`\"]\npub const {name}: Code = Code({number});")
            .unwrap();
        writeln!(texts, "    {text:?},").unwrap();
    }
    texts.push_str("];\n");
    let out = env::var("OUT_DIR").expect("set by cargo");
    fs::write(Path::new(&out).join("tokens.rs"), constants + &texts).expect("OUT_DIR is writable");
}

/// With TCPRELAY_EVENT_SHIMS set, kqueue, event ports and /dev/poll are built on Linux over
/// emulations of the documented system calls, so that the test suite runs all six mechanisms.
fn event_shims() {
    println!("cargo::rerun-if-env-changed=TCPRELAY_EVENT_SHIMS");
    if env::var_os("TCPRELAY_EVENT_SHIMS").is_none() {
        return;
    }
    assert_eq!(
        env::var("CARGO_CFG_TARGET_OS").as_deref(),
        Ok("linux"),
        "TCPRELAY_EVENT_SHIMS is for tests on Linux"
    );
    println!("cargo::rustc-cfg=event_shims");
    let mut build = cc::Build::new();
    build.define("_GNU_SOURCE", None).flag("-std=c11").warnings(true);
    for name in ["kqueue", "port", "devpoll"] {
        let file = format!("tests/shims/{name}.c");
        println!("cargo::rerun-if-changed={file}");
        build.file(file);
    }
    println!("cargo::rerun-if-changed=tests/shims/shims.h");
    build.compile("event_shims");
}
