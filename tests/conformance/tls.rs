//! TLS with clients: handshakes, records, the ends of sessions, and starts that must fail. The
//! client is OpenSSL; certificates are made here.

#[path = "tls/client.rs"]
mod client;
#[path = "tls/data.rs"]
mod data;
#[path = "tls/ends.rs"]
mod ends;
#[path = "tls/files.rs"]
mod files;
#[path = "tls/handshakes.rs"]
mod handshakes;

use crate::common::{
    connect, expect_eof, free_port, next, pace, pattern, ping, remote, reset, wait_for, within,
    Peer, Relay, PATIENCE, SPAWND,
};
use crate::fake::{accept_message, FakeBroker, BAD_CONFIGURATION};
use crate::relay::{all_freed, read_clean};
use crate::runner::Entry;
use crate::support::{
    client as plain_client, connections_at, descriptor_names, has_been_closed, read_all,
    serving_worker, stays_idle, stdout, tcp_pair, worker_section, Finished, Launch,
};
use crate::timeouts::after_two_seconds;
use client::*;
use data::{x025, x026};
use ends::{x013, x014, x015, x016, x017, x018, x019, x020, x021, x022};
use files::{x007, x008, x009, x010, x011, x012};
use handshakes::{expect_handshake_log, one_version, x001, x004, x005, x006, x023, x024, x027};
use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::ssl::{
    self, ErrorCode, Ssl, SslContext, SslContextBuilder, SslMethod, SslMode, SslSession,
    SslSessionCacheMode, SslStream, SslVerifyMode, SslVersion,
};
use openssl::symm::Cipher;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509NameBuilder, X509};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Entry] = &[
    ("X001", x001),
    ("X002", || one_version("TLSv1.3", SslVersion::TLS1_3, SslVersion::TLS1_2)),
    ("X003", || one_version("TLSv1.2", SslVersion::TLS1_2, SslVersion::TLS1_3)),
    ("X004", x004),
    ("X005", x005),
    ("X006", x006),
    ("X007", x007),
    ("X008", x008),
    ("X009", x009),
    ("X010", x010),
    ("X011", x011),
    ("X012", x012),
    ("X013", x013),
    ("X014", x014),
    ("X015", x015),
    ("X016", x016),
    ("X017", x017),
    ("X018", x018),
    ("X019", x019),
    ("X020", x020),
    ("X021", x021),
    ("X022", x022),
    ("X023", x023),
    ("X024", x024),
    ("X025", x025),
    ("X026", x026),
    ("X027", x027),
];
