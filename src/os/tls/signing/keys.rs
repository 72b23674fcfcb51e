//! The keys of the provider: a public half, and nothing more.

use super::{KeyName, Scheme};
use crate::os::tls::provider::{find, kind, Algorithm, Dispatch, Parameter, END};
use crate::os::tls::sha256;
use foreign_types::{ForeignType, ForeignTypeRef};
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, PKeyRef, Public};
use openssl_sys as ffi;
use std::ffi::{c_char, c_int, c_void, CStr};
use std::ptr::{null, null_mut};

extern "C" {
    fn EVP_PKEY_get_params(key: *const ffi::EVP_PKEY, parameters: *mut Parameter) -> c_int;
}

/// The name of a key.
pub fn name_of(key: &PKeyRef<impl openssl::pkey::HasPublic>) -> Result<KeyName, ErrorStack> {
    sha256(&key.public_key_to_der()?)
}

/// The parameter with which [`key_elsewhere`](super::key_elsewhere) passes a public key to `import`: a pointer to it.
pub(super) const REFERENCE: &CStr = c"tcprelay-reference";

/// The kinds of keys that can be elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rsa,
    RsaPss,
    Ec,
    Ed25519,
    Ed448,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Rsa, Kind::RsaPss, Kind::Ec, Kind::Ed25519, Kind::Ed448];

    pub(super) fn name(self) -> &'static CStr {
        match self {
            Kind::Rsa => c"RSA",
            Kind::RsaPss => c"RSA-PSS",
            Kind::Ec => c"EC",
            Kind::Ed25519 => c"ED25519",
            Kind::Ed448 => c"ED448",
        }
    }

    pub(super) fn of(key: &PKeyRef<Public>) -> Option<Kind> {
        let is = |kind: &Kind| {
            // SAFETY: the key is alive, and the name a constant.
            unsafe { ffi::EVP_PKEY_is_a(key.as_ptr(), kind.name().as_ptr()) == 1 }
        };
        Kind::ALL.into_iter().find(is)
    }

    pub(super) fn scheme(self) -> Scheme {
        match self {
            Kind::Rsa => Scheme::RsaPkcs1,
            Kind::RsaPss => Scheme::RsaPss,
            Kind::Ec => Scheme::Ecdsa,
            Kind::Ed25519 | Kind::Ed448 => Scheme::Whole,
        }
    }
}

/// A key: its public half, once it is imported.
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) public: Option<PKey<Public>>,
    pub(super) name: KeyName,
}

/// OSSL_OP_SIGNATURE.
pub(super) const SIGNATURE: c_int = 12;

const PROPERTIES: &CStr = c"provider=tcprelay-keys";
/// The only algorithm for signatures.
pub(super) const NAME: &CStr = c"tcprelay-signature";

pub(super) const fn algorithm(names: &'static CStr, implementation: *const Dispatch) -> Algorithm {
    let (names, properties) = (names.as_ptr(), PROPERTIES.as_ptr());
    Algorithm { names, properties, implementation, description: null() }
}

/// The names by which libssl knows kinds of keys.
pub(super) static KEYS: [Algorithm; 6] = [
    algorithm(c"RSA:rsaEncryption:1.2.840.113549.1.1.1", (&raw const RSA).cast()),
    algorithm(c"RSA-PSS:RSASSA-PSS:1.2.840.113549.1.1.10", (&raw const RSA_PSS).cast()),
    algorithm(c"EC:id-ecPublicKey:1.2.840.10045.2.1", (&raw const EC).cast()),
    algorithm(c"ED25519:1.3.101.112", (&raw const ED25519).cast()),
    algorithm(c"ED448:1.3.101.113", (&raw const ED448).cast()),
    Algorithm::END,
];

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

/// Imports a key of [`key_elsewhere`](super::key_elsewhere), or the public half of any key, with which OpenSSL compares
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
