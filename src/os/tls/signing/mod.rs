//! Private keys that this process does not have. A handshake that needs a signature is suspended
//! until another process has made it.
//!
//! Such a key is an object of a provider of ours (provider(7)) that has the public key, and can do
//! nothing but ask for signatures. OpenSSL runs the handshakes of these contexts as jobs with
//! stacks of their own (ASYNC_start_job(3)), as it has no other way to wait in the middle of one.
//!
//! The provider is in a library context of its own, so that other code in the process that asks for
//! RSA or EC never gets it.

mod elsewhere;
mod keys;
mod signature;

pub use elsewhere::key_elsewhere;
pub use keys::name_of;

use foreign_types::ForeignTypeRef;
use openssl::error::ErrorStack;
use openssl::ssl::{SslContextBuilder, SslRef};
use openssl_sys as ffi;
use signature::Signing;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{c_int, CStr};
use std::ptr::null_mut;

/// How a message is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// As the key has it, without a hash before it (Ed25519, Ed448).
    Whole,
    /// ECDSA.
    Ecdsa,
    /// RSA with the padding of PKCS #1 1.5.
    RsaPkcs1,
    /// RSA with PSS, and a salt as long as the hash.
    RsaPss,
}

/// The hash of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// None.
    None,
    /// SHA-224
    Sha224,
    /// SHA-256
    Sha256,
    /// SHA-384
    Sha384,
    /// SHA-512
    Sha512,
}

/// Names a key: the SHA-256 of its SubjectPublicKeyInfo.
pub type KeyName = [u8; 32];

/// A signature that a handshake waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Numbers ascend.
    pub number: u64,
    /// The key.
    pub key: KeyName,
    /// How to sign.
    pub scheme: Scheme,
    /// The hash.
    pub digest: Digest,
    /// What to sign.
    pub message: Vec<u8>,
}

/// The most signatures that the handshakes of a process wait for at the same time: each of them
/// holds a stack of 32 KiB.
pub const MOST_WAITING: usize = 1024;
/// How often a job may be resumed without an answer.
const MOST_RESUMED: u32 = 1000;

/// A signature that was asked for.
#[derive(Default)]
struct Waiting {
    /// Who is to be told, as the asking process numbers them.
    owner: Option<u32>,
    answer: Option<Result<Vec<u8>, &'static str>>,
}

/// The signatures that this process waits for.
#[derive(Default)]
struct Desk {
    last: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// What was not sent yet.
    new: Vec<Request>,
    /// Of the step of a handshake that is running.
    noted: Noted,
}

/// What has happened in a step of a handshake.
#[derive(Clone, Copy, Debug, Default)]
pub struct Noted {
    /// It has asked for this signature.
    pub asked: Option<u64>,
    /// It has got none, for this reason.
    pub refused: Option<&'static str>,
}

// It is const already; the lint does not see that on systems without thread-local variables.
#[allow(clippy::missing_const_for_thread_local)]
mod present {
    use super::{BTreeMap, Desk, Noted, RefCell};
    thread_local! {
        pub(super) static DESK: RefCell<Desk> = const {
            RefCell::new(Desk {
                last: 0,
                waiting: BTreeMap::new(),
                new: Vec::new(),
                noted: Noted { asked: None, refused: None },
            })
        };
    }
}
use present::DESK;

/// Runs a step of a handshake, and returns what it asked for.
pub fn noting<T>(step: impl FnOnce() -> T) -> (T, Noted) {
    DESK.with_borrow_mut(|desk| desk.noted = Noted::default());
    let result = step();
    (result, DESK.with_borrow_mut(|desk| std::mem::take(&mut desk.noted)))
}

/// Notes who is to be told when a signature is there.
pub fn own(number: u64, owner: u32) {
    DESK.with_borrow_mut(|desk| {
        if let Some(waiting) = desk.waiting.get_mut(&number) {
            waiting.owner = Some(owner);
        }
    });
}

/// True if there are requests to be sent.
pub fn has_new() -> bool {
    DESK.with_borrow(|desk| !desk.new.is_empty())
}

/// Takes the requests that are to be sent.
pub fn take_new() -> Vec<Request> {
    DESK.with_borrow_mut(|desk| std::mem::take(&mut desk.new))
}

/// A signature is there, or there will be none. Returns who waits for it, if anybody does.
pub fn answer(number: u64, answer: Result<Vec<u8>, &'static str>) -> Option<u32> {
    DESK.with_borrow_mut(|desk| {
        let waiting = desk.waiting.get_mut(&number)?;
        waiting.answer = Some(answer);
        waiting.owner
    })
}

/// The signatures still waited for that were asked for up to this one.
pub fn waiting(last: u64) -> Vec<u64> {
    DESK.with_borrow(|desk| {
        let silent = desk.waiting.range(..=last).filter(|(_, waiting)| waiting.answer.is_none());
        silent.map(|(&number, _)| number).collect()
    })
}

/// The handshake is given up: when it is resumed, it fails.
pub fn cancel(number: u64) {
    DESK.with_borrow_mut(|desk| {
        desk.new.retain(|request| request.number != number);
        if let Some(waiting) = desk.waiting.get_mut(&number) {
            waiting.answer = Some(Err("given up"));
        }
    });
}

/// Asks for a signature.
fn ask(context: &Signing, message: &[u8]) -> Option<u64> {
    DESK.with_borrow_mut(|desk| {
        if desk.waiting.len() >= MOST_WAITING {
            desk.noted.refused = Some("too many handshakes wait for signatures");
            return None;
        }
        desk.last += 1;
        let Signing { scheme, digest, .. } = *context;
        let (number, key) = (desk.last, context.key.as_ref()?.name);
        desk.waiting.insert(number, Waiting::default());
        desk.new.push(Request { number, key, scheme, digest, message: message.to_vec() });
        desk.noted.asked = Some(number);
        Some(number)
    })
}

/// Takes an answer; `None` if there is none yet.
fn take_answer(number: u64) -> Option<Result<Vec<u8>, ()>> {
    DESK.with_borrow_mut(|desk| {
        let answer = desk.waiting.get_mut(&number)?.answer.take()?;
        desk.waiting.remove(&number);
        Some(answer.map_err(|reason| desk.noted.refused = Some(reason)))
    })
}

/// Gives up an answer that will not be taken.
fn forget(number: u64) {
    DESK.with_borrow_mut(|desk| {
        desk.waiting.remove(&number);
        desk.new.retain(|request| request.number != number);
    });
}

extern "C" {
    fn ASYNC_is_capable() -> c_int;
}

/// True if handshakes can be suspended here: OpenSSL can do that on most systems, but not on
/// OpenBSD or with musl.
pub fn is_possible() -> bool {
    // SAFETY: takes nothing.
    unsafe { ASYNC_is_capable() == 1 }
}

/// SSL_get_error(3): the handshake is suspended.
pub const WANT_ASYNC: c_int = 9;

const SSL_MODE_ASYNC: std::ffi::c_long = 0x100;

/// Lets the handshakes of a context be suspended.
pub fn suspend_handshakes(context: &mut SslContextBuilder) {
    // SAFETY: the context is alive, and a builder has it for itself.
    unsafe { ffi::SSL_CTX_ctrl(context.as_ptr(), ffi::SSL_CTRL_MODE, SSL_MODE_ASYNC, null_mut()) };
}

/// The handshake is over: what follows is not suspended, which would cost time.
pub fn suspend_no_more(ssl: &SslRef) {
    const SSL_CTRL_CLEAR_MODE: c_int = 78;
    // SAFETY: the session is alive, and nobody else uses it.
    unsafe { ffi::SSL_ctrl(ssl.as_ptr(), SSL_CTRL_CLEAR_MODE, SSL_MODE_ASYNC, null_mut()) };
}

/// Removes suites with RSA key exchange, which would need the private key to decrypt. False if no
/// others are left.
pub fn decrypt_nothing(context: &mut SslContextBuilder) -> Result<bool, ErrorStack> {
    extern "C" {
        fn SSL_CTX_get_ciphers(context: *const ffi::SSL_CTX) -> *const ffi::OPENSSL_STACK;
        fn SSL_CIPHER_get_kx_nid(cipher: *const ffi::SSL_CIPHER) -> c_int;
    }
    // NID_kx_rsa and NID_kx_rsa_psk.
    const RSA: [c_int; 2] = [1037, 1042];
    let (mut kept, mut taken) = (Vec::new(), false);
    // SAFETY: the list is the context's, which is alive and does not change meanwhile; its entries
    // are constants of OpenSSL.
    unsafe {
        let list = SSL_CTX_get_ciphers(context.as_ptr());
        for index in 0..ffi::OPENSSL_sk_num(list) {
            let cipher: *const ffi::SSL_CIPHER = ffi::OPENSSL_sk_value(list, index).cast();
            let name = CStr::from_ptr(ffi::SSL_CIPHER_get_name(cipher)).to_string_lossy();
            match RSA.contains(&SSL_CIPHER_get_kx_nid(cipher)) {
                true => taken = true,
                // Suites of TLS 1.3 have a list of their own.
                false if name.starts_with("TLS_") => {}
                false => kept.push(name),
            }
        }
    }
    if taken && !kept.is_empty() {
        context.set_cipher_list(&kept.join(":"))?;
    }
    Ok(!taken || !kept.is_empty())
}
