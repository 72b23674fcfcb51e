//! Key derivation with OpenSSL's current interfaces: HKDF (RFC 5869) over EVP_MAC(3), and the PRF of
//! TLS 1.2 (RFC 5246 section 5) with EVP_KDF(3).
//!
//! HKDF is one HMAC for each block of its result, and TLS wants one block. EVP_KDF's own HKDF
//! allocates, looks up parameters and wipes for longer than that HMAC takes.
//!
//! Algorithms are fetched once, and each thread keeps HMAC contexts with their hash set: looking up
//! a hash by name takes longer than deriving with it. A context forgets its key before a call
//! returns, or at the end of a handshake step (`together`).

use super::checked;
use crate::os::secret::wipe;
use openssl::error::ErrorStack;
use openssl_sys as ffi;
use present::{CONTEXTS, TOGETHER};
use std::cell::{Cell, OnceCell};
use std::ffi::{c_char, c_int, c_void, CStr};
use std::ptr::{null, null_mut, NonNull};
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
    /// The length of the longest output, in bytes.
    const LONGEST: usize = 48;

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

extern "C" {
    // EVP_MAC(3)
    fn EVP_MAC_fetch(
        library: *mut ffi::OSSL_LIB_CTX,
        name: *const c_char,
        properties: *const c_char,
    ) -> *mut c_void;
    fn EVP_MAC_CTX_new(mac: *mut c_void) -> *mut c_void;
    fn EVP_MAC_CTX_free(context: *mut c_void);
    fn EVP_MAC_CTX_set_params(context: *mut c_void, parameters: *const ffi::OSSL_PARAM) -> c_int;
    fn EVP_MAC_init(
        context: *mut c_void,
        key: *const u8,
        length: usize,
        parameters: *const ffi::OSSL_PARAM,
    ) -> c_int;
    fn EVP_MAC_update(context: *mut c_void, data: *const u8, length: usize) -> c_int;
    fn EVP_MAC_final(context: *mut c_void, out: *mut u8, length: *mut usize, size: usize) -> c_int;
    // EVP_KDF(3)
    fn EVP_KDF_fetch(
        library: *mut ffi::OSSL_LIB_CTX,
        name: *const c_char,
        properties: *const c_char,
    ) -> *mut c_void;
    fn EVP_KDF_CTX_new(kdf: *mut c_void) -> *mut c_void;
    fn EVP_KDF_CTX_free(context: *mut c_void);
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

/// An algorithm that was fetched, and is never freed.
struct Fetched(*mut c_void);
// SAFETY: an EVP_MAC or EVP_KDF is reference-counted and does not change.
unsafe impl Send for Fetched {}
// SAFETY: as above.
unsafe impl Sync for Fetched {}

/// HMAC with one hash.
struct Hmac(NonNull<c_void>);

impl Hmac {
    fn new(hash: Hash) -> Option<Hmac> {
        static HMAC: OnceLock<Fetched> = OnceLock::new();
        let mac = HMAC.get_or_init(|| {
            // SAFETY: constant strings.
            Fetched(unsafe { EVP_MAC_fetch(null_mut(), c"HMAC".as_ptr(), null()) })
        });
        if mac.0.is_null() {
            return None;
        }
        let parameters = [text(c"digest", hash.name()), end()];
        // SAFETY: the algorithm is alive; the parameters live as long as the call.
        unsafe {
            let context = Hmac(NonNull::new(EVP_MAC_CTX_new(mac.0))?);
            let set = EVP_MAC_CTX_set_params(context.0.as_ptr(), parameters.as_ptr());
            (set == 1).then_some(context)
        }
    }

    fn key(&self, key: &[u8]) -> bool {
        // SAFETY: the context is alive and used only by its thread; the key has the length that is
        // passed. No parameters: the hash stays.
        unsafe { EVP_MAC_init(self.0.as_ptr(), key.as_ptr(), key.len(), null()) == 1 }
    }

    fn update(&self, data: &[u8]) -> bool {
        // SAFETY: as above.
        unsafe { EVP_MAC_update(self.0.as_ptr(), data.as_ptr(), data.len()) == 1 }
    }

    /// `out` is at least as long as the hash.
    fn finish(&self, out: &mut [u8]) -> bool {
        let mut length = 0;
        // SAFETY: as above; `out` has room for as many bytes as are passed.
        unsafe { EVP_MAC_final(self.0.as_ptr(), out.as_mut_ptr(), &raw mut length, out.len()) == 1 }
    }
}

impl Drop for Hmac {
    fn drop(&mut self) {
        // SAFETY: the context belongs to this value alone. OpenSSL wipes what it holds.
        unsafe { EVP_MAC_CTX_free(self.0.as_ptr()) };
    }
}

/// A context that a thread keeps for a hash.
struct Kept {
    hmac: OnceCell<Option<Hmac>>,
    /// It has the key of its last use.
    keyed: Cell<bool>,
}

impl Kept {
    fn forget(&self) {
        // OpenSSL wipes the key when another takes its place, and what was made of it is replaced.
        if let (true, Some(Some(hmac))) = (self.keyed.take(), self.hmac.get()) {
            hmac.key(&[0; Hash::LONGEST]);
        }
    }
}

// It is const already; the lint does not see that on systems without thread-local variables.
#[allow(clippy::missing_const_for_thread_local)]
mod present {
    use super::{Cell, Kept, OnceCell};
    thread_local! {
        pub(super) static CONTEXTS: [Kept; 2] =
            const { [const { Kept { hmac: OnceCell::new(), keyed: Cell::new(false) } }; 2] };
        /// How many calls of `together` are running.
        pub(super) static TOGETHER: Cell<usize> = const { Cell::new(0) };
    }
}

/// Runs what derives several secrets. The thread's contexts forget their keys at its end instead of
/// after each derivation, which costs half as much as the derivation.
pub(super) fn together<T>(derivations: impl FnOnce() -> T) -> T {
    struct Running;
    impl Drop for Running {
        fn drop(&mut self) {
            let outer = TOGETHER.get() - 1;
            TOGETHER.set(outer);
            if outer == 0 {
                let _ = CONTEXTS.try_with(|contexts| contexts.iter().for_each(Kept::forget));
            }
        }
    }
    TOGETHER.set(TOGETHER.get() + 1);
    let _running = Running;
    derivations()
}

/// Makes OpenSSL fetch its own TLS13-KDF, so that it knows that one first.
pub(super) fn know_default() {
    extern "C" {
        fn EVP_KDF_free(kdf: *mut c_void);
    }
    // SAFETY: constant strings; the result is freed once, and may be null.
    unsafe {
        EVP_KDF_free(EVP_KDF_fetch(null_mut(), c"TLS13-KDF".as_ptr(), null()));
    }
}

/// Runs a use of the HMAC context that this thread keeps for a hash. Fails with what OpenSSL says.
fn with_hmac(hash: Hash, run: impl FnOnce(&Hmac) -> bool) -> Result<(), ErrorStack> {
    let done = CONTEXTS.try_with(|contexts| {
        let kept = &contexts[hash as usize];
        let Some(hmac) = kept.hmac.get_or_init(|| Hmac::new(hash)) else { return false };
        kept.keyed.set(true);
        let done = run(hmac);
        if TOGETHER.get() == 0 {
            kept.forget();
        }
        done
    });
    checked(done == Ok(true))
}

/// HKDF-Extract (RFC 5869 section 2.2); `out` is as long as the hash.
pub fn extract(hash: Hash, salt: &[u8], key: &[u8], out: &mut [u8]) -> Result<(), ErrorStack> {
    let long = out.len() == hash.length();
    with_hmac(hash, |hmac| long && hmac.key(salt) && hmac.update(key) && hmac.finish(out))
}

/// HKDF-Expand (RFC 5869 section 2.3). Fails if `out` is longer than 255 hashes.
pub fn expand(hash: Hash, secret: &[u8], info: &[u8], out: &mut [u8]) -> Result<(), ErrorStack> {
    with_hmac(hash, |hmac| {
        let mut block = [0; Hash::LONGEST];
        let block = &mut block[..hash.length()];
        let mut done = out.len() <= 255 * block.len();
        for (index, part) in out.chunks_mut(block.len()).enumerate() {
            done = done
                && hmac.key(secret)
                && (index == 0 || hmac.update(block))
                && hmac.update(info)
                && hmac.update(&[index as u8 + 1])
                && hmac.finish(block);
            if !done {
                break;
            }
            part.copy_from_slice(&block[..part.len()]);
        }
        wipe(block);
        done
    })
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
        text(c"digest", hash.name()),
        octets(c"secret", secret),
        octets(c"seed", label.as_bytes()),
        octets(c"seed", first),
        octets(c"seed", second),
        end(),
    ];
    static PRF: OnceLock<Fetched> = OnceLock::new();
    let kdf = PRF.get_or_init(|| {
        // SAFETY: constant strings.
        Fetched(unsafe { EVP_KDF_fetch(null_mut(), c"TLS1-PRF".as_ptr(), null()) })
    });
    checked(!kdf.0.is_null())?;
    // A new context each time: a used one would append the seed to its previous one.
    // SAFETY: the algorithm is alive. The context is freed once, which wipes it. The parameters end
    // with an end marker and live, with what they point at, as long as the call; `out` has the
    // length that is passed.
    unsafe {
        let context = EVP_KDF_CTX_new(kdf.0);
        let (out, length) = (out.as_mut_ptr(), out.len());
        let done = !context.is_null() && EVP_KDF_derive(context, out, length, given.as_ptr()) == 1;
        EVP_KDF_CTX_free(context);
        checked(done)
    }
}
