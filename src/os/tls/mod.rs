//! OpenSSL calls that its Rust binding lacks.

mod derivation;
pub mod foreign;
pub mod kdf;
mod memory;
mod provider;
pub mod signing;
pub mod system;
mod tickets;

pub use derivation::{capturing, deriving_context, Captured, Traffic};
pub use memory::{protect_keys, wiping};
pub use tickets::{limit_resumption, set_ticket_keys, use_ticket_keys, TicketKey};

use foreign_types::{ForeignType, ForeignTypeRef};
use openssl::asn1::{Asn1GeneralizedTimeRef, Asn1Time};
use openssl::error::ErrorStack;
use openssl::hash::{hash, MessageDigest};
use openssl::ssl::{SslContextBuilder, SslRef, SslSessionRef};
use openssl::x509::store::X509StoreBuilderRef;
use openssl::x509::{X509Crl, X509NameRef, X509VerifyResult, X509};
use openssl_sys as ffi;
use std::ffi::{c_char, c_int, c_long, c_ulong, c_void};

extern "C" {
    /// SSL_CTX_set_timeout(3).
    fn SSL_CTX_set_timeout(context: *mut ffi::SSL_CTX, seconds: c_long) -> c_long;
    /// SSL_CTX_set_tlsext_max_fragment_length(3).
    fn SSL_SESSION_get_max_fragment_length(session: *const ffi::SSL_SESSION) -> u8;
    /// X509_STORE_add_cert(3).
    fn X509_STORE_add_crl(store: *mut ffi::X509_STORE, crl: *mut ffi::X509_CRL) -> c_int;
    /// X509_NAME_print_ex(3).
    fn X509_NAME_print_ex(
        out: *mut ffi::BIO,
        name: *const ffi::X509_NAME,
        indent: c_int,
        flags: c_ulong,
    ) -> c_int;
    /// ERR_error_string(3).
    fn ERR_error_string_n(code: c_ulong, text: *mut c_char, length: usize);
}

/// Adds a certificate to the chain of the certificate that was set last.
pub fn add_chain_certificate(
    context: &mut SslContextBuilder,
    certificate: &X509,
) -> Result<(), ErrorStack> {
    const SSL_CTRL_CHAIN_CERT: c_int = 89;
    // SAFETY: both are alive; with the argument 1 OpenSSL takes a reference of its own.
    let result = unsafe {
        ffi::SSL_CTX_ctrl(context.as_ptr(), SSL_CTRL_CHAIN_CERT, 1, certificate.as_ptr().cast())
    };
    checked(result == 1)
}

/// Sets for how many seconds a session can be resumed.
pub fn set_session_timeout(context: &mut SslContextBuilder, seconds: u32) {
    // SAFETY: the context is alive.
    unsafe { SSL_CTX_set_timeout(context.as_ptr(), seconds as c_long) };
}

/// Adds a revocation list to a store.
pub fn add_revocation_list(
    store: &mut X509StoreBuilderRef,
    list: &X509Crl,
) -> Result<(), ErrorStack> {
    // SAFETY: both are alive; the store takes a reference of its own.
    checked(unsafe { X509_STORE_add_crl(store.as_ptr(), list.as_ptr()) } == 1)
}

fn checked(result: bool) -> Result<(), ErrorStack> {
    if result {
        Ok(())
    } else {
        Err(ErrorStack::get())
    }
}

/// True if the client negotiated smaller records than usual (RFC 6066 section 4).
pub fn has_fragment_limit(ssl: &SslRef) -> bool {
    let limit = |session: &SslSessionRef| {
        // SAFETY: the session is alive.
        unsafe { SSL_SESSION_get_max_fragment_length(session.as_ptr()) }
    };
    ssl.session().is_some_and(|session| limit(session) != 0)
}

/// True if OpenSSL holds received bytes that nobody has read yet (SSL_has_pending(3)).
pub fn has_pending(ssl: &SslRef) -> bool {
    extern "C" {
        fn SSL_has_pending(ssl: *const ffi::SSL) -> c_int;
    }
    // SAFETY: the session is alive.
    unsafe { SSL_has_pending(ssl.as_ptr()) != 0 }
}

/// True if only algorithms of a FIPS module may be used (fips_module(7)).
pub fn is_fips_required() -> bool {
    // SAFETY: null is the default library context.
    unsafe { ffi::EVP_default_properties_is_fips_enabled(std::ptr::null_mut()) == 1 }
}

/// A certificate verification result, from its number (X509_STORE_CTX_set_error(3)).
pub fn verify_result(number: c_int) -> X509VerifyResult {
    // SAFETY: the type only holds the number.
    unsafe { X509VerifyResult::from_raw(number) }
}

/// True if these errors mean that a certificate was refused.
pub fn is_about_a_certificate(errors: &ErrorStack) -> bool {
    const ERR_LIB_SSL: c_int = 20;
    const SSL_R_CERTIFICATE_VERIFY_FAILED: c_int = 134;
    errors.errors().iter().any(|error| {
        error.library_code() == ERR_LIB_SSL
            && error.reason_code() == SSL_R_CERTIFICATE_VERIFY_FAILED
    })
}

/// The first error of a stack, as the C program prints it:
/// `error:0A0000C1:SSL routines::no shared cipher`.
pub fn first_error(errors: &ErrorStack) -> String {
    let Some(code) = errors.errors().first().map(|error| error.code()) else {
        return "unknown error".to_owned();
    };
    let mut text = [0u8; 256];
    // SAFETY: the pointer and the length describe `text`; the result is NUL-terminated.
    unsafe { ERR_error_string_n(code, text.as_mut_ptr().cast(), text.len()) };
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&text[..end]).into_owned()
}

/// Offers the server this session for resumption.
pub fn resume(ssl: &mut SslRef, session: &SslSessionRef) -> Result<(), ErrorStack> {
    // SAFETY: both are alive, and of the same context: a connector keeps its own sessions only.
    checked(unsafe { ffi::SSL_set_session(ssl.as_ptr(), session.as_ptr()) } == 1)
}

/// True if the system trusts a certificate authority of this name.
pub fn is_trusted_by_the_system(name: &X509NameRef) -> bool {
    extern "C" {
        // X509_STORE_CTX_get_by_subject(3)
        fn X509_STORE_CTX_get_obj_by_subject(
            context: *mut ffi::X509_STORE_CTX,
            kind: c_int,
            name: *const ffi::X509_NAME,
        ) -> *mut c_void;
        fn X509_OBJECT_free(object: *mut c_void);
    }
    const X509_LU_X509: c_int = 1;
    // SAFETY: everything that is made here is freed here, once; the name is alive.
    let found = unsafe {
        let (store, context) = (ffi::X509_STORE_new(), ffi::X509_STORE_CTX_new());
        let mut found = false;
        if !store.is_null()
            && !context.is_null()
            && ffi::X509_STORE_set_default_paths(store) == 1
            && ffi::X509_STORE_CTX_init(context, store, std::ptr::null_mut(), std::ptr::null_mut())
                == 1
        {
            let object = X509_STORE_CTX_get_obj_by_subject(context, X509_LU_X509, name.as_ptr());
            found = !object.is_null();
            X509_OBJECT_free(object);
        }
        ffi::X509_STORE_CTX_free(context);
        ffi::X509_STORE_free(store);
        found
    };
    drop(ErrorStack::get());
    found
}

/// The SHA-256 of some bytes (EVP_Digest(3)).
pub fn sha256(data: &[u8]) -> Result<[u8; 32], ErrorStack> {
    let mut digest = [0; 32];
    digest.copy_from_slice(&hash(MessageDigest::sha256(), data)?);
    Ok(digest)
}

/// A time in seconds since 1970. `None` if it is none, or earlier.
pub fn seconds_of(time: &Asn1GeneralizedTimeRef) -> Option<u64> {
    let epoch = Asn1Time::from_unix(0).ok()?;
    let (mut days, mut seconds) = (0, 0);
    // SAFETY: both are alive. ASN1_GENERALIZEDTIME and ASN1_TIME are names of one structure, whose
    // type is inside, and ASN1_TIME_diff(3) takes either.
    let done = unsafe {
        ffi::ASN1_TIME_diff(&mut days, &mut seconds, epoch.as_ptr(), time.as_ptr().cast())
    };
    if done != 1 {
        drop(ErrorStack::get());
        return None;
    }
    u64::try_from(i64::from(days) * 86_400 + i64::from(seconds)).ok()
}

/// A name as `openssl x509 -subject -nameopt RFC2253` prints it.
pub fn name_text(name: &X509NameRef) -> String {
    const XN_FLAG_RFC2253: c_ulong = 0x0111_0317;
    // SAFETY: the memory BIO is freed once, after its contents have been copied; the name is
    // alive.
    unsafe {
        let bio = ffi::BIO_new(ffi::BIO_s_mem());
        if bio.is_null() {
            return String::new();
        }
        X509_NAME_print_ex(bio, name.as_ptr(), 0, XN_FLAG_RFC2253);
        let mut text = vec![0u8; 1024];
        let length = ffi::BIO_read(bio, text.as_mut_ptr().cast(), text.len() as c_int);
        ffi::BIO_free_all(bio);
        text.truncate(usize::try_from(length).unwrap_or(0));
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// A name as `/C=DE/CN=joe` (X509_NAME_oneline(3)), the form that MAVIS modules compare.
pub fn name_line(name: &X509NameRef) -> String {
    extern "C" {
        fn X509_NAME_oneline(
            name: *mut ffi::X509_NAME,
            buffer: *mut c_char,
            size: c_int,
        ) -> *mut c_char;
    }
    let mut buffer = [0; 1024];
    // SAFETY: the name is alive; the buffer is that long and gets a NUL, or stays zeroed.
    unsafe {
        X509_NAME_oneline(name.as_ptr(), buffer.as_mut_ptr(), buffer.len() as c_int);
        std::ffi::CStr::from_ptr(buffer.as_ptr()).to_string_lossy().into_owned()
    }
}

/// OpenSSL calls that only tests use; the program should not make them.
#[cfg(test)]
pub(crate) mod testing {
    use super::derivation::Derivation;
    use super::*;

    extern "C" {
        /// SSL_key_update(3).
        fn SSL_key_update(ssl: *mut ffi::SSL, kind: c_int) -> c_int;
        /// SSL_renegotiate(3).
        fn SSL_renegotiate(ssl: *mut ffi::SSL) -> c_int;
        /// SSL_CTX_set_tlsext_max_fragment_length(3).
        fn SSL_CTX_set_tlsext_max_fragment_length(context: *mut ffi::SSL_CTX, mode: u8) -> c_int;
    }

    /// Updates the keys with the next write; with `request`, asks the other side to update its keys
    /// too.
    pub(crate) fn key_update(ssl: &SslRef, request: bool) -> bool {
        // SAFETY: the session is alive, and nobody else uses it meanwhile: it is not `Sync`
        // in any way that the tests use.
        unsafe { SSL_key_update(ssl.as_ptr(), c_int::from(request)) == 1 }
    }

    /// Negotiates again with the next handshake call.
    pub(crate) fn renegotiate(ssl: &SslRef) -> bool {
        // SAFETY: as above.
        unsafe { SSL_renegotiate(ssl.as_ptr()) == 1 }
    }

    /// Derives with a provider's algorithm. With `together`, the parameters go into the derive
    /// call; otherwise they are set before it.
    pub(super) fn derive_with(
        properties: &std::ffi::CStr,
        wanted: &Derivation<'_>,
        length: usize,
        together: bool,
    ) -> Option<Vec<u8>> {
        type Kdf = *mut std::ffi::c_void;
        extern "C" {
            fn EVP_KDF_fetch(
                library: *mut ffi::OSSL_LIB_CTX,
                name: *const c_char,
                properties: *const c_char,
            ) -> Kdf;
            fn EVP_KDF_free(kdf: Kdf);
            fn EVP_KDF_CTX_new(kdf: Kdf) -> Kdf;
            fn EVP_KDF_CTX_free(context: Kdf);
            fn EVP_KDF_CTX_set_params(context: Kdf, parameters: *const ffi::OSSL_PARAM) -> c_int;
            fn EVP_KDF_derive(
                context: Kdf,
                out: *mut u8,
                length: usize,
                parameters: *const ffi::OSSL_PARAM,
            ) -> c_int;
            fn OSSL_PARAM_construct_utf8_string(
                key: *const c_char,
                text: *mut c_char,
                length: usize,
            ) -> ffi::OSSL_PARAM;
            fn OSSL_PARAM_construct_octet_string(
                key: *const c_char,
                data: *mut std::ffi::c_void,
                length: usize,
            ) -> ffi::OSSL_PARAM;
            fn OSSL_PARAM_construct_int(key: *const c_char, value: *mut c_int) -> ffi::OSSL_PARAM;
            fn OSSL_PARAM_construct_end() -> ffi::OSSL_PARAM;
        }
        let octets = [
            (c"key", wanted.key),
            (c"salt", wanted.salt),
            (c"prefix", wanted.prefix),
            (c"label", wanted.label),
            (c"data", wanted.data),
        ];
        let mut mode = if wanted.extract { 1 } else { 2 };
        let mut out = vec![0; length];
        // SAFETY: EVP_KDF(3), OSSL_PARAM_int(3); what the parameters name outlives the calls, and
        // is not written to.
        unsafe {
            let mut parameters = vec![OSSL_PARAM_construct_int(c"mode".as_ptr(), &mut mode)];
            let digest = wanted.digest.map(|name| std::ffi::CString::new(name).expect("a name"));
            if let Some(name) = &digest {
                let text = name.as_ptr().cast_mut();
                parameters.push(OSSL_PARAM_construct_utf8_string(c"digest".as_ptr(), text, 0));
            }
            for (key, value) in octets {
                if let Some(value) = value {
                    let data = value.as_ptr().cast_mut().cast();
                    parameters.push(OSSL_PARAM_construct_octet_string(
                        key.as_ptr(),
                        data,
                        value.len(),
                    ));
                }
            }
            parameters.push(OSSL_PARAM_construct_end());
            let kdf =
                EVP_KDF_fetch(std::ptr::null_mut(), c"TLS13-KDF".as_ptr(), properties.as_ptr());
            assert!(!kdf.is_null(), "no TLS13-KDF with {properties:?}");
            let context = EVP_KDF_CTX_new(kdf);
            let mut given = parameters.as_ptr();
            if !together {
                assert_eq!(EVP_KDF_CTX_set_params(context, given), 1);
                given = std::ptr::null();
            }
            let done = EVP_KDF_derive(context, out.as_mut_ptr(), length, given) == 1;
            EVP_KDF_CTX_free(context);
            EVP_KDF_free(kdf);
            drop(ErrorStack::get());
            done.then_some(out)
        }
    }

    /// Asks for records of 256 << `mode` bytes.
    pub(crate) fn limit_fragments(context: &mut SslContextBuilder, mode: u8) -> bool {
        // SAFETY: the context is alive, and a builder has it for itself.
        unsafe { SSL_CTX_set_tlsext_max_fragment_length(context.as_ptr(), mode) == 1 }
    }
}
