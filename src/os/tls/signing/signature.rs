//! The provider's only algorithm: a signature that another process makes while the handshake is
//! suspended.

use super::keys::Key;
use super::{ask, forget, take_answer, Digest, KeyName, Scheme, MOST_RESUMED};
use crate::os::tls::provider::{find, kind, Dispatch, Parameter, END};
use std::ffi::{c_char, c_int, c_void, CStr};
use std::slice;

extern "C" {
    fn ASYNC_get_current_job() -> *mut c_void;
    fn ASYNC_pause_job() -> c_int;
}

/// A signature in the making.
pub(super) struct Signing {
    pub(super) key: Option<SignedWith>,
    pub(super) scheme: Scheme,
    pub(super) digest: Digest,
}

/// The key of a signature.
pub(super) struct SignedWith {
    pub(super) name: KeyName,
    /// The most bytes of its signatures.
    size: usize,
}

/// OSSL_FUNC_SIGNATURE_NEWCTX, DIGEST_SIGN_INIT, DIGEST_SIGN, FREECTX, SET_CTX_PARAMS and
/// SETTABLE_CTX_PARAMS.
pub(super) static SIGNING: [Dispatch; 7] = [
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
