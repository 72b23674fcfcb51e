//! The key derivation of TLS 1.3 as an algorithm of OpenSSL's that is ours: a provider (provider(7),
//! provider-kdf(7)) with TLS13-KDF (EVP_KDF-TLS13_KDF(7)) alone.
//!
//! For one thing the secrets of a session's records are known so; the library tells them otherwise
//! only in print. For another its own looks for its parts by name for each of the fifteen secrets of
//! a handshake, which takes longer than to derive them.

use super::checked;
use openssl::error::ErrorStack;
use openssl::ssl::{SslContextBuilder, SslMethod};
use openssl_sys as ffi;
use std::ffi::{c_char, c_int, c_uint, c_void, CStr};
use std::ptr::{null, null_mut};
use std::slice;
use std::sync::OnceLock;

/// What is to be derived. What is not given is `None`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Derivation<'a> {
    /// HKDF-Extract with what `label` makes of the salt; else HKDF-Expand-Label (RFC 8446 section
    /// 7.1).
    pub extract: bool,
    /// The name of the hash, as OpenSSL spells it.
    pub digest: Option<&'a [u8]>,
    /// To extract: the new secret. To expand: the secret.
    pub key: Option<&'a [u8]>,
    /// To extract: the secret before.
    pub salt: Option<&'a [u8]>,
    /// What labels begin with.
    pub prefix: Option<&'a [u8]>,
    /// The label, without the prefix.
    pub label: Option<&'a [u8]>,
    /// The context: a hash of messages.
    pub data: Option<&'a [u8]>,
}

/// Fills the output; false if that cannot be derived.
pub type Derive = fn(&Derivation<'_>, &mut [u8]) -> bool;

static DERIVE: OnceLock<Derive> = OnceLock::new();

/// A context whose sessions have their secrets from `derive`. If the library does not want that,
/// they have them from itself.
pub fn deriving_context(
    method: SslMethod,
    derive: Derive,
) -> Result<SslContextBuilder, ErrorStack> {
    extern "C" {
        /// SSL_CTX_new_ex(3).
        fn SSL_CTX_new_ex(
            library: *mut ffi::OSSL_LIB_CTX,
            properties: *const c_char,
            method: *const ffi::SSL_METHOD,
        ) -> *mut ffi::SSL_CTX;
    }
    DERIVE.get_or_init(|| {
        openssl::init();
        add_provider();
        derive
    });
    // SAFETY: the method is alive; the strings are constants. The new context is the builder's alone.
    unsafe {
        let context = SSL_CTX_new_ex(null_mut(), c"?provider=tcprelay".as_ptr(), method.as_ptr());
        checked(!context.is_null())?;
        Ok(SslContextBuilder::from_ptr(context))
    }
}

/// Adds the provider to those of the configuration, or to the default one.
fn add_provider() {
    extern "C" {
        /// OSSL_PROVIDER_add_builtin(3).
        fn OSSL_PROVIDER_add_builtin(
            library: *mut ffi::OSSL_LIB_CTX,
            name: *const c_char,
            init: unsafe extern "C" fn(
                *const c_void,
                *const Dispatch,
                *mut *const Dispatch,
                *mut *mut c_void,
            ) -> c_int,
        ) -> c_int;
    }
    let name = c"tcprelay".as_ptr();
    // SAFETY: constant strings, and a function as OSSL_provider_init is documented.
    unsafe {
        if OSSL_PROVIDER_add_builtin(null_mut(), name, initialize) == 1 {
            ffi::OSSL_PROVIDER_try_load(null_mut(), name, 1);
        }
    }
    // Without it everything works, but with more memory.
    drop(ErrorStack::get());
}

/// OSSL_DISPATCH (openssl-core_dispatch.h(7)).
#[repr(C)]
struct Dispatch {
    number: c_int,
    function: *const (),
}

// SAFETY: the functions are constants.
unsafe impl Sync for Dispatch {}

/// OSSL_ALGORITHM (openssl-core.h(7)).
#[repr(C)]
struct Algorithm {
    names: *const c_char,
    properties: *const c_char,
    implementation: *const Dispatch,
    description: *const c_char,
}

// SAFETY: the strings and tables are constants.
unsafe impl Sync for Algorithm {}

/// OSSL_PARAM(3).
#[repr(C)]
struct Parameter {
    key: *const c_char,
    kind: c_uint,
    data: *const c_void,
    size: usize,
    returned: usize,
}

const END: Dispatch = Dispatch { number: 0, function: null() };

/// The operation of key derivation, OSSL_OP_KDF.
const KEY_DERIVATION: c_int = 4;

/// OSSL_FUNC_PROVIDER_QUERY_OPERATION.
static PROVIDER: [Dispatch; 2] = [Dispatch { number: 1027, function: query as *const () }, END];

static ALGORITHMS: [Algorithm; 2] = [
    Algorithm {
        names: c"TLS13-KDF".as_ptr(),
        properties: c"provider=tcprelay".as_ptr(),
        implementation: (&raw const FUNCTIONS).cast(),
        description: null(),
    },
    Algorithm { names: null(), properties: null(), implementation: null(), description: null() },
];

/// OSSL_FUNC_KDF_NEWCTX, FREECTX, RESET, DERIVE and SET_CTX_PARAMS.
static FUNCTIONS: [Dispatch; 6] = [
    Dispatch { number: 1, function: new_context as *const () },
    Dispatch { number: 3, function: free_context as *const () },
    Dispatch { number: 4, function: reset_context as *const () },
    Dispatch { number: 5, function: derive as *const () },
    Dispatch { number: 11, function: set_parameters as *const () },
    END,
];

unsafe extern "C" fn initialize(
    handle: *const c_void,
    _core: *const Dispatch,
    functions: *mut *const Dispatch,
    context: *mut *mut c_void,
) -> c_int {
    // SAFETY: OpenSSL passes places for both.
    unsafe {
        *functions = (&raw const PROVIDER).cast();
        *context = handle.cast_mut();
    }
    1
}

unsafe extern "C" fn query(
    _provider: *mut c_void,
    operation: c_int,
    may_change: *mut c_int,
) -> *const Algorithm {
    // SAFETY: OpenSSL passes a place.
    unsafe { *may_change = 0 };
    if operation == KEY_DERIVATION {
        (&raw const ALGORITHMS).cast()
    } else {
        null()
    }
}

/// Parameters by name, in the order of [`Context::values`].
const NAMES: [&[u8]; 6] = [b"digest", b"key", b"salt", b"prefix", b"label", b"data"];

/// What was set before the call that derives. TLS sets everything with that.
#[derive(Default)]
struct Context {
    extract: bool,
    values: [Option<Vec<u8>>; 6],
}

unsafe extern "C" fn new_context(_provider: *mut c_void) -> *mut Context {
    Box::into_raw(Box::default())
}

unsafe extern "C" fn free_context(context: *mut Context) {
    if !context.is_null() {
        // SAFETY: one of `new_context`'s, which OpenSSL uses no more.
        let context = unsafe { &mut *context };
        context.clear();
        // SAFETY: as above, and freed once.
        drop(unsafe { Box::from_raw(context) });
    }
}

unsafe extern "C" fn reset_context(context: *mut Context) {
    // SAFETY: one of `new_context`'s, which nobody else uses meanwhile.
    unsafe { (*context).clear() };
}

unsafe extern "C" fn set_parameters(context: *mut Context, parameters: *const Parameter) -> c_int {
    // SAFETY: a context as in `reset_context`, and an array as in `derive`.
    let (context, given) = unsafe { (&mut *context, Given::of(parameters)) };
    context.extract = given.extract.unwrap_or(context.extract);
    for (stored, value) in context.values.iter_mut().zip(given.values) {
        if let Some(value) = value {
            *stored = Some(value.to_vec());
        }
    }
    1
}

unsafe extern "C" fn derive(
    context: *mut Context,
    out: *mut u8,
    length: usize,
    parameters: *const Parameter,
) -> c_int {
    // SAFETY: a context as in `reset_context`; OpenSSL passes an array of parameters that live as
    // long as this call, and room for `length` bytes, which are initialised first.
    let (context, given, out) = unsafe {
        out.write_bytes(0, length);
        (&*context, Given::of(parameters), slice::from_raw_parts_mut(out, length))
    };
    let value = |index: usize| given.values[index].or(context.values[index].as_deref());
    let derivation = Derivation {
        extract: given.extract.unwrap_or(context.extract),
        digest: value(0),
        key: value(1),
        salt: value(2),
        prefix: value(3),
        label: value(4),
        data: value(5),
    };
    c_int::from(DERIVE.get().is_some_and(|derive| derive(&derivation, out)))
}

impl Context {
    fn clear(&mut self) {
        self.values.iter_mut().flatten().for_each(|value| crate::os::secret::wipe(value));
        *self = Context::default();
    }
}

/// The parameters of a call.
#[derive(Default)]
struct Given<'a> {
    extract: Option<bool>,
    values: [Option<&'a [u8]>; 6],
}

impl<'a> Given<'a> {
    /// # Safety
    ///
    /// `parameters` is null or an array of parameters up to one without a name, all of which, and
    /// what they name, live for `'a`.
    unsafe fn of(mut parameters: *const Parameter) -> Given<'a> {
        const INTEGER: c_uint = 1;
        const TEXT: c_uint = 4;
        const OCTETS: c_uint = 5;
        const EXTRACT_ONLY: c_int = 1;
        let mut given = Given::default();
        // SAFETY: as promised; a parameter's data are `size` bytes, and integers are aligned.
        unsafe {
            while !parameters.is_null() && !(*parameters).key.is_null() {
                let Parameter { key, kind, data, size, .. } = *parameters;
                parameters = parameters.add(1);
                if data.is_null() || !matches!(kind, INTEGER | TEXT | OCTETS) {
                    continue;
                }
                let value = slice::from_raw_parts(data.cast::<u8>(), size);
                let name = CStr::from_ptr(key).to_bytes();
                if name == b"mode" {
                    given.extract = Some(match (kind, size) {
                        (INTEGER, 4) => data.cast::<c_int>().read() == EXTRACT_ONLY,
                        _ => value.starts_with(b"EXTRACT_ONLY"),
                    });
                } else if let Some(index) = NAMES.iter().position(|known| *known == name) {
                    given.values[index] = Some(value);
                }
            }
        }
        given
    }
}
