//! Private keys that this process does not have. A handshake that needs a signature is suspended
//! until another process has made it.
//!
//! Such a key is an object of a provider of ours (provider(7)) that has the public key, and can do
//! nothing but ask for signatures. OpenSSL runs the handshakes of these contexts as jobs with
//! stacks of their own (ASYNC_start_job(3)), as it has no other way to wait in the middle of one.
//!
//! The provider is in a library context of its own, so that nobody else in the process who asks
//! for RSA or EC can meet it.

use super::checked;
use super::provider::{kind, Algorithm, Dispatch, OSSL_PROVIDER_add_builtin, Parameter, END};
use foreign_types::{ForeignType, ForeignTypeRef};
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, PKeyRef, Private, Public};
use openssl::sha::sha256;
use openssl::ssl::{SslContextBuilder, SslRef};
use openssl_sys as ffi;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{c_char, c_int, c_void, CStr};
use std::ptr::{null, null_mut};
use std::slice;
use std::sync::OnceLock;

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

/// Runs a step of a handshake, and tells what it has asked for.
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
    fn ASYNC_get_current_job() -> *mut c_void;
    fn ASYNC_pause_job() -> c_int;
    fn EVP_PKEY_get_params(key: *const ffi::EVP_PKEY, parameters: *mut Parameter) -> c_int;
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

/// Takes suites with the key exchange of RSA from a context, as that would need a private key to
/// decrypt. False if no others are left.
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

/// The name of a key.
pub fn name_of(key: &PKeyRef<impl openssl::pkey::HasPublic>) -> Result<KeyName, ErrorStack> {
    Ok(sha256(&key.public_key_to_der()?))
}

/// The private key that belongs to a public one, and that another process has.
pub fn key_elsewhere(public: &PKeyRef<Public>) -> Result<PKey<Private>, ErrorStack> {
    let kind = Kind::of(public).ok_or_else(ErrorStack::get)?;
    let library = library()?;
    let reference: *mut ffi::EVP_PKEY = public.as_ptr();
    let mut parameters = [
        Parameter {
            key: REFERENCE.as_ptr(),
            kind: kind::OCTETS,
            data: (&raw const reference).cast(),
            size: size_of_val(&reference),
            returned: 0,
        },
        Parameter::END,
    ];
    const KEY_PAIR: c_int = 0x87;
    // SAFETY: the library context lives for ever, names are constants, and the list of parameters
    // outlives the call, which passes it to `import`. What is made is freed here or owned once.
    unsafe {
        let context = ffi::EVP_PKEY_CTX_new_from_name(library.0, kind.name().as_ptr(), null());
        checked(!context.is_null())?;
        let mut made = null_mut();
        let done = ffi::EVP_PKEY_fromdata_init(context) == 1
            && ffi::EVP_PKEY_fromdata(context, &mut made, KEY_PAIR, parameters.as_mut_ptr().cast())
                == 1;
        ffi::EVP_PKEY_CTX_free(context);
        checked(done && !made.is_null())?;
        Ok(PKey::from_ptr(made))
    }
}

/// The library context that has only our provider.
struct Library(*mut ffi::OSSL_LIB_CTX);

// SAFETY: library contexts may be used by several threads at the same time.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

fn library() -> Result<&'static Library, ErrorStack> {
    static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();
    let made = LIBRARY.get_or_init(|| {
        openssl::init();
        let name = c"tcprelay-keys".as_ptr();
        // SAFETY: constant strings, and a function as OSSL_provider_init is documented. The context
        // is never freed.
        unsafe {
            let library = ffi::OSSL_LIB_CTX_new();
            let loaded = !library.is_null()
                && OSSL_PROVIDER_add_builtin(library, name, initialize) == 1
                && !ffi::OSSL_PROVIDER_load(library, name).is_null();
            loaded.then_some(Library(library))
        }
    });
    made.as_ref().ok_or_else(ErrorStack::get)
}

/// The parameter with which [`key_elsewhere`] passes a public key to `import`: a pointer to it.
const REFERENCE: &CStr = c"tcprelay-reference";

/// The kinds of keys that can be elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rsa,
    RsaPss,
    Ec,
    Ed25519,
    Ed448,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Rsa, Kind::RsaPss, Kind::Ec, Kind::Ed25519, Kind::Ed448];

    fn name(self) -> &'static CStr {
        match self {
            Kind::Rsa => c"RSA",
            Kind::RsaPss => c"RSA-PSS",
            Kind::Ec => c"EC",
            Kind::Ed25519 => c"ED25519",
            Kind::Ed448 => c"ED448",
        }
    }

    fn of(key: &PKeyRef<Public>) -> Option<Kind> {
        let is = |kind: &Kind| {
            // SAFETY: the key is alive, and the name a constant.
            unsafe { ffi::EVP_PKEY_is_a(key.as_ptr(), kind.name().as_ptr()) == 1 }
        };
        Kind::ALL.into_iter().find(is)
    }

    fn scheme(self) -> Scheme {
        match self {
            Kind::Rsa => Scheme::RsaPkcs1,
            Kind::RsaPss => Scheme::RsaPss,
            Kind::Ec => Scheme::Ecdsa,
            Kind::Ed25519 | Kind::Ed448 => Scheme::Whole,
        }
    }
}

/// A key: its public half, once it is imported.
struct Key {
    kind: Kind,
    public: Option<PKey<Public>>,
    name: KeyName,
}

/// OSSL_FUNC_PROVIDER_QUERY_OPERATION.
static PROVIDER: [Dispatch; 2] = [Dispatch { number: 1027, function: query as *const () }, END];

unsafe extern "C" fn initialize(
    handle: *const c_void,
    _core: *const Dispatch,
    functions: *mut *const Dispatch,
    context: *mut *mut c_void,
) -> c_int {
    // SAFETY: OpenSSL passes valid pointers for both results.
    unsafe {
        *functions = (&raw const PROVIDER).cast();
        *context = handle.cast_mut();
    }
    1
}

const KEY_MANAGEMENT: c_int = 10;
const SIGNATURE: c_int = 12;

unsafe extern "C" fn query(
    _provider: *mut c_void,
    operation: c_int,
    may_change: *mut c_int,
) -> *const Algorithm {
    // SAFETY: OpenSSL passes a valid pointer for the result.
    unsafe { *may_change = 0 };
    match operation {
        KEY_MANAGEMENT => (&raw const KEYS).cast(),
        SIGNATURE => (&raw const SIGNATURES).cast(),
        _ => null(),
    }
}

const PROPERTIES: &CStr = c"provider=tcprelay-keys";
/// The only algorithm for signatures.
const NAME: &CStr = c"tcprelay-signature";

const fn algorithm(names: &'static CStr, implementation: *const Dispatch) -> Algorithm {
    let (names, properties) = (names.as_ptr(), PROPERTIES.as_ptr());
    Algorithm { names, properties, implementation, description: null() }
}

/// The names by which libssl knows kinds of keys.
static KEYS: [Algorithm; 6] = [
    algorithm(c"RSA:rsaEncryption:1.2.840.113549.1.1.1", (&raw const RSA).cast()),
    algorithm(c"RSA-PSS:RSASSA-PSS:1.2.840.113549.1.1.10", (&raw const RSA_PSS).cast()),
    algorithm(c"EC:id-ecPublicKey:1.2.840.10045.2.1", (&raw const EC).cast()),
    algorithm(c"ED25519:1.3.101.112", (&raw const ED25519).cast()),
    algorithm(c"ED448:1.3.101.113", (&raw const ED448).cast()),
    Algorithm::END,
];

static SIGNATURES: [Algorithm; 2] = [algorithm(NAME, (&raw const SIGNING).cast()), Algorithm::END];

type New = unsafe extern "C" fn(*mut c_void) -> *mut Key;

/// OSSL_FUNC_KEYMGMT_NEW, FREE, GET_PARAMS, GETTABLE_PARAMS, QUERY_OPERATION_NAME, HAS, MATCH,
/// IMPORT and IMPORT_TYPES.
const fn keys(new: New) -> [Dispatch; 10] {
    [
        Dispatch { number: 1, function: new as *const () },
        Dispatch { number: 10, function: free_key as *const () },
        Dispatch { number: 11, function: key_parameters as *const () },
        Dispatch { number: 12, function: known_key_parameters as *const () },
        Dispatch { number: 20, function: operation_name as *const () },
        Dispatch { number: 21, function: has as *const () },
        Dispatch { number: 23, function: are_same as *const () },
        Dispatch { number: 40, function: import as *const () },
        Dispatch { number: 41, function: import_types as *const () },
        END,
    ]
}

static RSA: [Dispatch; 10] = keys(new_rsa);
static RSA_PSS: [Dispatch; 10] = keys(new_rsa_pss);
static EC: [Dispatch; 10] = keys(new_ec);
static ED25519: [Dispatch; 10] = keys(new_ed25519);
static ED448: [Dispatch; 10] = keys(new_ed448);

fn new_key(kind: Kind) -> *mut Key {
    Box::into_raw(Box::new(Key { kind, public: None, name: [0; 32] }))
}

unsafe extern "C" fn new_rsa(_: *mut c_void) -> *mut Key {
    new_key(Kind::Rsa)
}

unsafe extern "C" fn new_rsa_pss(_: *mut c_void) -> *mut Key {
    new_key(Kind::RsaPss)
}

unsafe extern "C" fn new_ec(_: *mut c_void) -> *mut Key {
    new_key(Kind::Ec)
}

unsafe extern "C" fn new_ed25519(_: *mut c_void) -> *mut Key {
    new_key(Kind::Ed25519)
}

unsafe extern "C" fn new_ed448(_: *mut c_void) -> *mut Key {
    new_key(Kind::Ed448)
}

unsafe extern "C" fn free_key(key: *mut Key) {
    if !key.is_null() {
        // SAFETY: it came from `new_key`, is freed once, and OpenSSL no longer uses it.
        drop(unsafe { Box::from_raw(key) });
    }
}

/// Size, strength and group are those of the public key.
unsafe extern "C" fn key_parameters(key: *const Key, parameters: *mut Parameter) -> c_int {
    // SAFETY: a key of `new_key`, and a list of parameters with room for their values, which
    // OpenSSL's own function fills in.
    unsafe {
        match &(*key).public {
            Some(public) => EVP_PKEY_get_params(public.as_ptr(), parameters),
            None => 0,
        }
    }
}

static KEY_PARAMETERS: [Parameter; 5] = [
    Parameter { key: c"bits".as_ptr(), kind: kind::INTEGER, ..Parameter::END },
    Parameter { key: c"security-bits".as_ptr(), kind: kind::INTEGER, ..Parameter::END },
    Parameter { key: c"max-size".as_ptr(), kind: kind::INTEGER, ..Parameter::END },
    Parameter { key: c"group".as_ptr(), kind: kind::TEXT, ..Parameter::END },
    Parameter::END,
];

unsafe extern "C" fn known_key_parameters(_provider: *mut c_void) -> *const Parameter {
    (&raw const KEY_PARAMETERS).cast()
}

unsafe extern "C" fn operation_name(operation: c_int) -> *const c_char {
    if operation == SIGNATURE {
        NAME.as_ptr()
    } else {
        null()
    }
}

/// Both halves are there, as far as OpenSSL has to know.
unsafe extern "C" fn has(_key: *const Key, _selection: c_int) -> c_int {
    1
}

unsafe extern "C" fn are_same(one: *const Key, other: *const Key, _selection: c_int) -> c_int {
    // SAFETY: two keys of `new_key`.
    let (one, other) = unsafe { (&*one, &*other) };
    let same = one.public.as_ref().zip(other.public.as_ref());
    c_int::from(same.is_some_and(|(one, other)| one.public_eq(other)))
}

static IMPORTED: [Parameter; 2] =
    [Parameter { key: REFERENCE.as_ptr(), kind: kind::OCTETS, ..Parameter::END }, Parameter::END];

unsafe extern "C" fn import_types(_selection: c_int) -> *const Parameter {
    (&raw const IMPORTED).cast()
}

/// Imports a key of [`key_elsewhere`], or the public half of any key, with which OpenSSL compares
/// one of ours to a certificate's.
unsafe extern "C" fn import(
    key: *mut Key,
    _selection: c_int,
    parameters: *const Parameter,
) -> c_int {
    // SAFETY: a key of `new_key`, and a list of parameters.
    let (key, reference) = unsafe { (&mut *key, find(parameters, REFERENCE)) };
    let public = match reference {
        // SAFETY: only `key_elsewhere` passes this parameter: a pointer to a live key, of which a
        // reference of our own is taken.
        Some(reference) => unsafe {
            let public: *mut ffi::EVP_PKEY = reference.data.cast::<*mut ffi::EVP_PKEY>().read();
            ffi::EVP_PKEY_up_ref(public);
            Some(PKey::<Public>::from_ptr(public))
        },
        // SAFETY: the list is passed on as it came.
        None => unsafe { public_key(key.kind, parameters) },
    };
    let Some(public) = public else {
        return 0;
    };
    let Ok(name) = name_of(&public) else {
        return 0;
    };
    (key.public, key.name) = (Some(public), name);
    1
}

/// OpenSSL's own public key with these parameters.
///
/// # Safety
/// `parameters` is a list of parameters.
unsafe fn public_key(kind: Kind, parameters: *const Parameter) -> Option<PKey<Public>> {
    const PUBLIC_KEY: c_int = 0x86;
    // SAFETY: as promised; the function only reads the parameters. The context is freed once.
    unsafe {
        let context = ffi::EVP_PKEY_CTX_new_from_name(null_mut(), kind.name().as_ptr(), null());
        if context.is_null() {
            return None;
        }
        let mut made = null_mut();
        let done = ffi::EVP_PKEY_fromdata_init(context) == 1
            && ffi::EVP_PKEY_fromdata(context, &mut made, PUBLIC_KEY, parameters.cast_mut().cast())
                == 1;
        ffi::EVP_PKEY_CTX_free(context);
        (done && !made.is_null()).then(|| PKey::from_ptr(made))
    }
}

/// Finds a parameter that has a value.
///
/// # Safety
/// `parameters` is null, or a list of parameters that outlives the result.
unsafe fn find<'a>(mut parameters: *const Parameter, name: &CStr) -> Option<&'a Parameter> {
    // SAFETY: as promised: a list ends with a parameter without a name.
    unsafe {
        while !parameters.is_null() && !(*parameters).key.is_null() {
            if CStr::from_ptr((*parameters).key) == name && !(*parameters).data.is_null() {
                return Some(&*parameters);
            }
            parameters = parameters.add(1);
        }
    }
    None
}

/// A signature in the making.
struct Signing {
    key: Option<SignedWith>,
    scheme: Scheme,
    digest: Digest,
}

/// The key of a signature.
struct SignedWith {
    name: KeyName,
    /// The most bytes of its signatures.
    size: usize,
}

/// OSSL_FUNC_SIGNATURE_NEWCTX, DIGEST_SIGN_INIT, DIGEST_SIGN, FREECTX, SET_CTX_PARAMS and
/// SETTABLE_CTX_PARAMS.
static SIGNING: [Dispatch; 7] = [
    Dispatch { number: 1, function: new_signature as *const () },
    Dispatch { number: 8, function: begin as *const () },
    Dispatch { number: 11, function: sign as *const () },
    Dispatch { number: 16, function: free_signature as *const () },
    Dispatch { number: 20, function: set_parameters as *const () },
    Dispatch { number: 21, function: known_parameters as *const () },
    END,
];

unsafe extern "C" fn new_signature(
    _provider: *mut c_void,
    _properties: *const c_char,
) -> *mut Signing {
    Box::into_raw(Box::new(Signing { key: None, scheme: Scheme::Whole, digest: Digest::None }))
}

unsafe extern "C" fn free_signature(context: *mut Signing) {
    if !context.is_null() {
        // SAFETY: it came from `new_signature`, is freed once, and OpenSSL no longer uses it.
        drop(unsafe { Box::from_raw(context) });
    }
}

unsafe extern "C" fn begin(
    context: *mut Signing,
    digest: *const c_char,
    key: *const Key,
    parameters: *const Parameter,
) -> c_int {
    // SAFETY: a context of `new_signature` and a key of `new_key`, which nobody else uses
    // meanwhile; the digest is null or a NUL-terminated name.
    let (signing, key, digest) = unsafe {
        if key.is_null() {
            return 0;
        }
        let digest = (!digest.is_null()).then(|| CStr::from_ptr(digest).to_bytes());
        (&mut *context, &*key, digest)
    };
    let digest = match digest {
        None | Some(b"") => Some(Digest::None),
        Some(name) => Digest::by_name(name),
    };
    let (Some(public), Some(digest)) = (&key.public, digest) else {
        return 0;
    };
    signing.scheme = key.kind.scheme();
    if (signing.scheme == Scheme::Whole) != (digest == Digest::None) {
        return 0;
    }
    signing.digest = digest;
    signing.key = Some(SignedWith { name: key.name, size: public.size() });
    // SAFETY: a list of parameters, or null.
    unsafe { set_parameters(context, parameters) }
}

impl Digest {
    fn by_name(name: &[u8]) -> Option<Digest> {
        match name.to_ascii_uppercase().as_slice() {
            b"SHA2-224" | b"SHA-224" | b"SHA224" => Some(Digest::Sha224),
            b"SHA2-256" | b"SHA-256" | b"SHA256" => Some(Digest::Sha256),
            b"SHA2-384" | b"SHA-384" | b"SHA384" => Some(Digest::Sha384),
            b"SHA2-512" | b"SHA-512" | b"SHA512" => Some(Digest::Sha512),
            _ => None,
        }
    }
}

static PARAMETERS: [Parameter; 3] = [
    Parameter { key: c"pad-mode".as_ptr(), kind: kind::TEXT, ..Parameter::END },
    Parameter { key: c"saltlen".as_ptr(), kind: kind::TEXT, ..Parameter::END },
    Parameter::END,
];

unsafe extern "C" fn known_parameters(_: *mut Signing, _: *mut c_void) -> *const Parameter {
    (&raw const PARAMETERS).cast()
}

/// TLS sets a padding of RSA, and for PSS always a salt as long as the hash.
unsafe extern "C" fn set_parameters(context: *mut Signing, parameters: *const Parameter) -> c_int {
    // SAFETY: a context as in `begin`, and a list of parameters or null.
    let (signing, padding) = unsafe { (&mut *context, find(parameters, c"pad-mode")) };
    let Some(padding) = padding else {
        return 1;
    };
    // SAFETY: the data of a parameter are as many bytes as it says.
    let value = unsafe { slice::from_raw_parts(padding.data.cast::<u8>(), padding.size) };
    const PKCS1: c_int = 1;
    const PSS: c_int = 6;
    let number = value.first_chunk().map(|bytes| c_int::from_ne_bytes(*bytes));
    let is = |number_of: c_int, name: &[u8]| match padding.kind {
        kind::INTEGER | kind::UNSIGNED => number == Some(number_of),
        _ => value == name,
    };
    signing.scheme = match signing.scheme {
        Scheme::RsaPkcs1 | Scheme::RsaPss if is(PSS, b"pss") => Scheme::RsaPss,
        Scheme::RsaPkcs1 if is(PKCS1, b"pkcs1") => Scheme::RsaPkcs1,
        _ => return 0,
    };
    1
}

/// Asks for a signature, and suspends the handshake until it is there.
unsafe extern "C" fn sign(
    context: *mut Signing,
    signature: *mut u8,
    length: *mut usize,
    room: usize,
    message: *const u8,
    message_length: usize,
) -> c_int {
    // SAFETY: a context as in `begin`.
    let Some(size) = (unsafe { (*context).key.as_ref().map(|key| key.size) }) else {
        return 0;
    };
    if signature.is_null() {
        // SAFETY: OpenSSL passes a valid pointer for the length.
        unsafe { *length = size };
        return 1;
    }
    // SAFETY: takes nothing. Without a job, pausing would do nothing.
    if unsafe { ASYNC_get_current_job().is_null() } {
        return 0;
    }
    // SAFETY: OpenSSL passes this many bytes, and a context as above.
    let asked = unsafe {
        let message = match message_length {
            0 => &[],
            _ => slice::from_raw_parts(message, message_length),
        };
        ask(&*context, message)
    };
    let Some(number) = asked else {
        return 0;
    };
    for _ in 0..MOST_RESUMED {
        match take_answer(number) {
            None => {}
            Some(Ok(made)) if made.len() <= room => {
                // SAFETY: OpenSSL passes room for `room` bytes, and a valid pointer for the length.
                unsafe {
                    signature.copy_from_nonoverlapping(made.as_ptr(), made.len());
                    *length = made.len();
                }
                return 1;
            }
            Some(_) => return 0,
        }
        // SAFETY: there is a job. Nothing is borrowed here; what the caller has passed lives on the
        // stack of the job.
        if unsafe { ASYNC_pause_job() } != 1 {
            break;
        }
    }
    forget(number);
    0
}
