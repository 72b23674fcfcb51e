//! Key derivation with OpenSSL's current interface (EVP_KDF(3)): HKDF (RFC 5869), and the PRF of
//! TLS 1.2 (RFC 5246 section 5).
//!
//! Algorithms are fetched once, and each thread keeps HKDF contexts with their hash set: looking up
//! a hash by name takes longer than deriving with it. A context forgets its secrets before a call
//! returns.

use super::checked;
use openssl::error::ErrorStack;
use openssl_sys as ffi;
use std::cell::OnceCell;
use std::ffi::{c_char, c_int, c_void, CStr};
use std::ptr::{null_mut, NonNull};
use std::sync::OnceLock;

/// The hash of a cipher suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SHA-256
    Sha256,
    /// SHA-384
    Sha384,
}

impl Hash {
    /// The length of its output, in bytes.
    pub fn length(self) -> usize {
        match self {
            Hash::Sha256 => 32,
            Hash::Sha384 => 48,
        }
    }

    /// The hash that OpenSSL calls by this name.
    pub(super) fn by_name(name: &[u8]) -> Option<Hash> {
        match name.to_ascii_uppercase().as_slice() {
            b"SHA2-256" | b"SHA-256" | b"SHA256" => Some(Hash::Sha256),
            b"SHA2-384" | b"SHA-384" | b"SHA384" => Some(Hash::Sha384),
            _ => None,
        }
    }

    /// The hash of no bytes.
    pub(super) fn of_nothing(self) -> &'static [u8] {
        match self {
            Hash::Sha256 => &[
                0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f,
                0xb9, 0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b,
                0x78, 0x52, 0xb8, 0x55,
            ],
            Hash::Sha384 => &[
                0x38, 0xb0, 0x60, 0xa7, 0x51, 0xac, 0x96, 0x38, 0x4c, 0xd9, 0x32, 0x7e, 0xb1, 0xb1,
                0xe3, 0x6a, 0x21, 0xfd, 0xb7, 0x11, 0x14, 0xbe, 0x07, 0x43, 0x4c, 0x0c, 0xc7, 0xbf,
                0x63, 0xf6, 0xe1, 0xda, 0x27, 0x4e, 0xde, 0xbf, 0xe7, 0x6f, 0x65, 0xfb, 0xd5, 0x1a,
                0xd2, 0xf1, 0x48, 0x98, 0xb9, 0x5b,
            ],
        }
    }

    fn name(self) -> &'static CStr {
        match self {
            Hash::Sha256 => c"SHA256",
            Hash::Sha384 => c"SHA384",
        }
    }
}

/// What a context derives.
#[derive(Clone, Copy)]
enum Use {
    Extract,
    Expand,
    Prf,
}

extern "C" {
    // EVP_KDF(3)
    fn EVP_KDF_fetch(
        library: *mut ffi::OSSL_LIB_CTX,
        name: *const c_char,
        properties: *const c_char,
    ) -> *mut c_void;
    fn EVP_KDF_CTX_new(kdf: *mut c_void) -> *mut c_void;
    fn EVP_KDF_CTX_free(context: *mut c_void);
    fn EVP_KDF_CTX_set_params(context: *mut c_void, parameters: *const ffi::OSSL_PARAM) -> c_int;
    fn EVP_KDF_derive(
        context: *mut c_void,
        out: *mut u8,
        length: usize,
        parameters: *const ffi::OSSL_PARAM,
    ) -> c_int;
    // OSSL_PARAM_int(3)
    fn OSSL_PARAM_construct_utf8_string(
        key: *const c_char,
        text: *mut c_char,
        size: usize,
    ) -> ffi::OSSL_PARAM;
}

/// A parameter of bytes. OpenSSL only reads them.
fn octets(key: &'static CStr, value: &[u8]) -> ffi::OSSL_PARAM {
    let data = value.as_ptr().cast_mut().cast();
    // SAFETY: the function only stores the pointers and the length.
    unsafe { ffi::OSSL_PARAM_construct_octet_string(key.as_ptr(), data, value.len()) }
}

/// A text parameter. OpenSSL only reads it.
fn text(key: &'static CStr, value: &'static CStr) -> ffi::OSSL_PARAM {
    let data = value.as_ptr().cast_mut();
    // SAFETY: as above; a size of 0 asks for the length of the text.
    unsafe { OSSL_PARAM_construct_utf8_string(key.as_ptr(), data, 0) }
}

fn end() -> ffi::OSSL_PARAM {
    // SAFETY: the function takes no arguments.
    unsafe { ffi::OSSL_PARAM_construct_end() }
}

struct Context(NonNull<c_void>);

impl Context {
    fn new(purpose: Use, hash: Hash) -> Option<Context> {
        /// A fetched EVP_KDF, which is never freed.
        struct Fetched(*mut c_void);
        // SAFETY: an EVP_KDF is reference-counted and does not change.
        unsafe impl Send for Fetched {}
        // SAFETY: as above.
        unsafe impl Sync for Fetched {}
        static HKDF: OnceLock<Fetched> = OnceLock::new();
        static PRF: OnceLock<Fetched> = OnceLock::new();
        let (place, name) = match purpose {
            Use::Extract | Use::Expand => (&HKDF, c"HKDF"),
            Use::Prf => (&PRF, c"TLS1-PRF"),
        };
        let kdf = place.get_or_init(|| {
            // SAFETY: constant strings.
            Fetched(unsafe { EVP_KDF_fetch(null_mut(), name.as_ptr(), std::ptr::null()) })
        });
        if kdf.0.is_null() {
            return None;
        }
        let mut parameters = vec![text(c"digest", hash.name())];
        match purpose {
            Use::Extract => parameters.push(text(c"mode", c"EXTRACT_ONLY")),
            Use::Expand => parameters.push(text(c"mode", c"EXPAND_ONLY")),
            Use::Prf => {}
        }
        parameters.push(end());
        // SAFETY: the algorithm is alive; the parameters live as long as the call.
        unsafe {
            let context = Context(NonNull::new(EVP_KDF_CTX_new(kdf.0))?);
            let set = EVP_KDF_CTX_set_params(context.0.as_ptr(), parameters.as_ptr());
            (set == 1).then_some(context)
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context belongs to this value alone. OpenSSL wipes what it holds.
        unsafe { EVP_KDF_CTX_free(self.0.as_ptr()) };
    }
}

// It is const already; the lint does not see that on systems without thread-local variables.
#[allow(clippy::missing_const_for_thread_local)]
mod present {
    use super::{Context, OnceCell};
    thread_local! {
        pub(super) static CONTEXTS: [OnceCell<Option<Context>>; 4] =
            const { [const { OnceCell::new() }; 4] };
    }
}

impl Context {
    fn derive(&self, given: &[ffi::OSSL_PARAM], out: &mut [u8]) -> bool {
        // SAFETY: the context is alive and used only by its thread; the parameters end with an end
        // marker and live, with what they point at, as long as the call; `out` has the length that
        // is passed.
        unsafe { EVP_KDF_derive(self.0.as_ptr(), out.as_mut_ptr(), out.len(), given.as_ptr()) == 1 }
    }

    fn forget(&self, places: &[ffi::OSSL_PARAM]) {
        // SAFETY: as above.
        unsafe { EVP_KDF_CTX_set_params(self.0.as_ptr(), places.as_ptr()) };
    }
}

/// Makes OpenSSL fetch its own TLS13-KDF, so that it knows that one first.
pub(super) fn know_default() {
    extern "C" {
        fn EVP_KDF_free(kdf: *mut c_void);
    }
    // SAFETY: constant strings; the result is freed once, and may be null.
    unsafe {
        EVP_KDF_free(EVP_KDF_fetch(null_mut(), c"TLS13-KDF".as_ptr(), std::ptr::null()));
    }
}

/// Derives with the HKDF context that this thread keeps; the context forgets the secrets at once.
fn hkdf(purpose: Use, hash: Hash, given: &[ffi::OSSL_PARAM], out: &mut [u8]) -> bool {
    let done = present::CONTEXTS.try_with(|contexts| {
        let place = &contexts[2 * purpose as usize + hash as usize];
        let context = place.get_or_init(|| Context::new(purpose, hash)).as_ref()?;
        let done = context.derive(given, out);
        match purpose {
            // A salt is a secret too.
            Use::Extract => {
                context.forget(&[octets(c"key", &[0]), octets(c"salt", &[0; 48]), end()]);
            }
            Use::Expand | Use::Prf => context.forget(&[octets(c"key", &[0]), end()]),
        }
        Some(done)
    });
    matches!(done, Ok(Some(true)))
}

/// HKDF-Extract. For no salt, pass as many zeroes as the hash is long: OpenSSL would ignore an
/// empty one.
pub fn extract(hash: Hash, salt: &[u8], key: &[u8], out: &mut [u8]) -> Result<(), ErrorStack> {
    let given = [octets(c"salt", salt), octets(c"key", key), end()];
    checked(hkdf(Use::Extract, hash, &given, out))
}

/// HKDF-Expand.
pub fn expand(hash: Hash, secret: &[u8], info: &[u8], out: &mut [u8]) -> Result<(), ErrorStack> {
    let given = [octets(c"key", secret), octets(c"info", info), end()];
    checked(hkdf(Use::Expand, hash, &given, out))
}

/// Fills `out` with the PRF of TLS 1.2.
pub fn prf(
    hash: Hash,
    secret: &[u8],
    label: &str,
    [first, second]: [&[u8]; 2],
    out: &mut [u8],
) -> Result<(), ErrorStack> {
    let given = [
        octets(c"secret", secret),
        octets(c"seed", label.as_bytes()),
        octets(c"seed", first),
        octets(c"seed", second),
        end(),
    ];
    // A new context each time: a used one would append the seed to its previous one.
    let context = Context::new(Use::Prf, hash);
    checked(context.is_some_and(|context| context.derive(&given, out)))
}
