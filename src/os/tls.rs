//! The few calls of OpenSSL that its Rust binding does not have, and the kernel's TLS.

use foreign_types::{ForeignType, ForeignTypeRef};
use openssl::error::ErrorStack;
use openssl::ssl::{SslContextBuilder, SslRef, SslSessionRef};
use openssl::x509::store::X509StoreBuilderRef;
use openssl::x509::{X509Crl, X509NameRef, X509};
use openssl_sys as ffi;
use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_long, c_uchar, c_ulong, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use super::secret::wipe;

/// Name and keys of session tickets: AES-256-CBC and HMAC-SHA-256 (RFC 5077 section 4).
#[derive(Clone, PartialEq, Eq)]
pub struct TicketKey {
    /// By which a ticket tells its key.
    pub name: [u8; 16],
    /// Of AES.
    pub cipher: [u8; 32],
    /// Of the HMAC.
    pub mac: [u8; 32],
}

type TicketCallback = unsafe extern "C" fn(
    *mut ffi::SSL,
    *mut c_uchar,
    *mut c_uchar,
    *mut ffi::EVP_CIPHER_CTX,
    *mut ffi::EVP_MAC_CTX,
    c_int,
) -> c_int;

extern "C" {
    /// SSL_CTX_set_tlsext_ticket_key_cb(3), OpenSSL 3.0.
    fn SSL_CTX_set_tlsext_ticket_key_evp_cb(
        context: *mut ffi::SSL_CTX,
        callback: Option<TicketCallback>,
    ) -> c_int;
    /// SSL_CTX_set_timeout(3).
    fn SSL_CTX_set_timeout(context: *mut ffi::SSL_CTX, seconds: c_long) -> c_long;
    /// SSL_CTX_set_tlsext_max_fragment_length(3).
    fn SSL_SESSION_get_max_fragment_length(session: *const ffi::SSL_SESSION) -> u8;
    /// X509_STORE_add_cert(3).
    fn X509_STORE_add_crl(store: *mut ffi::X509_STORE, crl: *mut ffi::X509_CRL) -> c_int;
    /// OPENSSL_malloc(3).
    fn CRYPTO_set_mem_functions(
        allocate: unsafe extern "C" fn(usize, *const c_char, c_int) -> *mut c_void,
        reallocate: unsafe extern "C" fn(*mut c_void, usize, *const c_char, c_int) -> *mut c_void,
        release: unsafe extern "C" fn(*mut c_void, *const c_char, c_int),
    ) -> c_int;
    /// OPENSSL_secure_malloc(3).
    fn CRYPTO_secure_malloc_init(size: usize, minimum: usize) -> c_int;
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

thread_local! {
    /// The keys of tickets: the first one for new ones.
    static TICKET_KEYS: RefCell<Vec<TicketKey>> = const { RefCell::new(Vec::new()) };
}

/// Memory that OpenSSL gives back is wiped at the moment.
static WIPING: AtomicBool = AtomicBool::new(false);

/// Where the usable length of an allocation can be asked for, which wiping it needs.
#[cfg(any(
    all(target_os = "linux", any(target_env = "gnu", target_env = "musl")),
    target_os = "freebsd"
))]
mod allocator {
    use super::*;

    unsafe extern "C" fn allocate(size: usize, _: *const c_char, _: c_int) -> *mut c_void {
        // SAFETY: malloc(3) takes any size.
        unsafe { libc::malloc(size) }
    }

    unsafe extern "C" fn reallocate(
        old: *mut c_void,
        size: usize,
        _: *const c_char,
        _: c_int,
    ) -> *mut c_void {
        if !WIPING.load(Ordering::Relaxed) || old.is_null() {
            // SAFETY: OpenSSL passes a pointer that `allocate` or this function has returned.
            return unsafe { libc::realloc(old, size) };
        }
        // SAFETY: as above; the copy is not longer than either allocation.
        unsafe {
            let new = libc::malloc(size);
            if !new.is_null() {
                let length = libc::malloc_usable_size(old).min(size);
                ptr::copy_nonoverlapping(old.cast::<u8>(), new.cast::<u8>(), length);
                release(old, ptr::null(), 0);
            }
            new
        }
    }

    unsafe extern "C" fn release(memory: *mut c_void, _: *const c_char, _: c_int) {
        if memory.is_null() {
            return;
        }
        if WIPING.load(Ordering::Relaxed) {
            // SAFETY: the allocation is that long, and about to be given back.
            wipe(unsafe {
                let length = libc::malloc_usable_size(memory);
                std::slice::from_raw_parts_mut(memory.cast::<u8>(), length)
            });
        }
        // SAFETY: OpenSSL passes a pointer that `allocate` or `reallocate` has returned.
        unsafe { libc::free(memory) };
    }

    /// Runs before all other constructors: memory functions can be set only before OpenSSL has
    /// allocated anything, and libcurl's does.
    #[used]
    #[link_section = ".init_array.00101"]
    static FIRST: extern "C" fn() = set_memory_functions;

    extern "C" fn set_memory_functions() {
        // SAFETY: the three functions behave like malloc(3), realloc(3) and free(3).
        unsafe { CRYPTO_set_mem_functions(allocate, reallocate, release) };
    }
}

/// Makes OpenSSL keep private keys in memory that is neither swapped nor dumped. To be called
/// before there are any.
pub fn protect_keys() {
    // A process that may not lock so much memory still keeps it out of core dumps.
    // SAFETY: the call takes plain numbers: an arena of 128 KiB in pieces of at least 32 bytes.
    unsafe { CRYPTO_secure_malloc_init(128 * 1024, 32) };
}

/// Does something with private keys: copies that OpenSSL has made on the way do not stay.
pub fn wiping<T>(action: impl FnOnce() -> T) -> T {
    WIPING.store(true, Ordering::Relaxed);
    let result = action();
    WIPING.store(false, Ordering::Relaxed);
    result
}

/// Sets the keys of tickets of this process; the first is for new tickets.
pub fn set_ticket_keys(keys: Vec<TicketKey>) {
    TICKET_KEYS.with_borrow_mut(|current| *current = keys);
}

/// Makes a context use the keys of [`set_ticket_keys`].
pub fn use_ticket_keys(context: &mut SslContextBuilder) {
    // SAFETY: the context is alive, and the callback has the signature that OpenSSL documents.
    unsafe { SSL_CTX_set_tlsext_ticket_key_evp_cb(context.as_ptr(), Some(ticket_key)) };
}

/// Sets up encryption of a new ticket (`encrypt` is 1), or decryption of one that a client sent.
/// Returns 1, 2 for a ticket that should be renewed, 0 for one of unknown key, −1 on errors.
unsafe extern "C" fn ticket_key(
    ssl: *mut ffi::SSL,
    name: *mut c_uchar,
    iv: *mut c_uchar,
    cipher: *mut ffi::EVP_CIPHER_CTX,
    mac: *mut ffi::EVP_MAC_CTX,
    encrypt: c_int,
) -> c_int {
    let found = TICKET_KEYS.try_with(|keys| {
        let keys = keys.try_borrow().ok()?;
        let index = if encrypt == 1 {
            0
        } else {
            // SAFETY: OpenSSL passes the 16 bytes of a ticket's key name.
            let name = unsafe { std::slice::from_raw_parts(name, 16) };
            keys.iter().position(|key| key.name == name)?
        };
        keys.get(index).cloned().map(|key| (index, key))
    });
    let Ok(Some((index, mut key))) = found else {
        return 0;
    };
    // SAFETY: OpenSSL passes room for 16 bytes of name and EVP_MAX_IV_LENGTH of IV, and two
    // contexts to be set up; keys and parameters outlive the calls, which copy them.
    unsafe {
        let aes = ticket_cipher();
        if aes.is_null() {
            return -1;
        }
        if encrypt == 1 {
            ptr::copy_nonoverlapping(key.name.as_ptr(), name, 16);
            if ffi::RAND_bytes(iv, 16) != 1 {
                return -1;
            }
        }
        let none = ptr::null_mut();
        if ffi::EVP_CipherInit_ex(cipher, aes, none, key.cipher.as_ptr(), iv, encrypt) != 1 {
            return -1;
        }
        let mut digest = *b"SHA256\0";
        let mut name_of_digest = ffi::OSSL_PARAM_construct_octet_string(
            c"digest".as_ptr(),
            digest.as_mut_ptr().cast(),
            6,
        );
        name_of_digest.data_type = OSSL_PARAM_UTF8_STRING;
        let parameters = [
            ffi::OSSL_PARAM_construct_octet_string(
                c"key".as_ptr(),
                key.mac.as_mut_ptr().cast::<c_void>(),
                key.mac.len(),
            ),
            name_of_digest,
            ffi::OSSL_PARAM_construct_end(),
        ];
        if ffi::EVP_MAC_CTX_set_params(mac, parameters.as_ptr()) != 1 {
            return -1;
        }
    }
    // A ticket of TLS 1.3 is used once, so that there must be another one (RFC 8446 appendix C.4).
    // SAFETY: OpenSSL passes its connection.
    let single_use = unsafe { ffi::SSL_version(ssl) } == ffi::TLS1_3_VERSION;
    if encrypt == 0 && (index > 0 || single_use) {
        2
    } else {
        1
    }
}

/// The cipher of tickets, looked up once.
fn ticket_cipher() -> *const ffi::EVP_CIPHER {
    thread_local! {
        static CIPHER: *const ffi::EVP_CIPHER = {
            // SAFETY: both arguments are NUL-terminated or null; the cipher is never freed.
            unsafe { ffi::EVP_CIPHER_fetch(ptr::null_mut(), c"AES-256-CBC".as_ptr(), ptr::null()) }
        };
    }
    CIPHER.try_with(|cipher| *cipher).unwrap_or(ptr::null())
}

/// OSSL_PARAM(3).
const OSSL_PARAM_UTF8_STRING: std::ffi::c_uint = 4;

/// Adds a certificate to the chain of the one that was set last.
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

/// How long a session can be resumed.
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

/// True if the client has negotiated records that are smaller than usual (RFC 6066 section 4).
pub fn has_fragment_limit(ssl: &SslRef) -> bool {
    let limit = |session: &SslSessionRef| {
        // SAFETY: the session is alive.
        unsafe { SSL_SESSION_get_max_fragment_length(session.as_ptr()) }
    };
    ssl.session().is_some_and(|session| limit(session) != 0)
}

/// An error as the C program prints it: `error:0A0000C1:SSL routines::no shared cipher`.
pub fn error_text(code: c_ulong) -> String {
    let mut text = [0u8; 256];
    // SAFETY: the pointer and the length describe `text`; the result is NUL-terminated.
    unsafe { ERR_error_string_n(code, text.as_mut_ptr().cast(), text.len()) };
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&text[..end]).into_owned()
}

/// Offers to resume a session.
pub fn resume(ssl: &mut SslRef, session: &SslSessionRef) -> Result<(), ErrorStack> {
    // SAFETY: both are alive, and of the same context: a connector keeps its own sessions only.
    checked(unsafe { ffi::SSL_set_session(ssl.as_ptr(), session.as_ptr()) } == 1)
}

/// A name as in `openssl x509 -subject -nameopt RFC2253`.
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

/// What only tests ask of the library: things that its users should not do.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    extern "C" {
        /// SSL_key_update(3).
        fn SSL_key_update(ssl: *mut ffi::SSL, kind: c_int) -> c_int;
        /// SSL_renegotiate(3).
        fn SSL_renegotiate(ssl: *mut ffi::SSL) -> c_int;
        /// SSL_CTX_set_tlsext_max_fragment_length(3).
        fn SSL_CTX_set_tlsext_max_fragment_length(context: *mut ffi::SSL_CTX, mode: u8) -> c_int;
    }

    /// New keys with the next write; with `request` for the other side too.
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

    /// Asks for records of 256 << `mode` bytes.
    pub(crate) fn limit_fragments(context: &mut SslContextBuilder, mode: u8) -> bool {
        // SAFETY: the context is alive, and a builder has it for itself.
        unsafe { SSL_CTX_set_tlsext_max_fragment_length(context.as_ptr(), mode) == 1 }
    }
}
