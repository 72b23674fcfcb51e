//! The keys of session tickets, which OpenSSL requests through a callback.

use crate::os::secret::SecretBytes;
use foreign_types::ForeignTypeRef;
use openssl::cipher::Cipher;
use openssl::ssl::SslContextBuilder;
use openssl_sys as ffi;
use std::cell::RefCell;
use std::ffi::{c_int, c_uchar, c_void};
use std::ptr;
use std::sync::OnceLock;

/// The name and keys of session tickets: AES-256-CBC and HMAC-SHA-256 (RFC 5077 section 4).
#[derive(Clone, PartialEq, Eq)]
pub struct TicketKey {
    /// Identifies the key in a ticket.
    pub name: [u8; 16],
    /// The AES key.
    pub cipher: SecretBytes,
    /// The HMAC key.
    pub mac: SecretBytes,
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
}

// It is const already; the lint does not see that on systems without thread-local variables.
#[allow(clippy::missing_const_for_thread_local)]
mod present {
    use super::{RefCell, TicketKey};
    thread_local! {
        /// The ticket keys; the first one encrypts new tickets.
        pub(super) static TICKET_KEYS: RefCell<Vec<TicketKey>> = const { RefCell::new(Vec::new()) };
    }
}
use present::TICKET_KEYS;

/// Sets this process's ticket keys; the first one encrypts new tickets.
pub fn set_ticket_keys(keys: Vec<TicketKey>) {
    TICKET_KEYS.with_borrow_mut(|current| *current = keys);
}

/// Makes a context use the keys of [`set_ticket_keys`].
pub fn use_ticket_keys(context: &mut SslContextBuilder) {
    // SAFETY: the context is alive, and the callback has the signature that OpenSSL documents.
    unsafe { SSL_CTX_set_tlsext_ticket_key_evp_cb(context.as_ptr(), Some(ticket_key)) };
}

/// Sets up the encryption of a new ticket (`encrypt` is 1), or the decryption of a client's ticket.
/// Returns 1, or 2 for a ticket that should be renewed, 0 for one with an unknown key, −1 on
/// errors.
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
    let Some(aes) = ticket_cipher() else {
        return -1;
    };
    // SAFETY: OpenSSL passes room for 16 bytes of name and EVP_MAX_IV_LENGTH of IV, and two
    // contexts to be set up; keys and parameters outlive the calls, which copy them.
    unsafe {
        if encrypt == 1 {
            ptr::copy_nonoverlapping(key.name.as_ptr(), name, 16);
            if ffi::RAND_bytes(iv, 16) != 1 {
                return -1;
            }
        }
        let none = ptr::null_mut();
        if ffi::EVP_CipherInit_ex(cipher, aes.as_ptr(), none, key.cipher.as_ptr(), iv, encrypt) != 1
        {
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
    // A TLS 1.3 ticket is used only once, so the client needs a new one (RFC 8446 appendix C.4).
    // SAFETY: OpenSSL passes its connection.
    let single_use = unsafe { ffi::SSL_version(ssl) == ffi::TLS1_3_VERSION };
    if encrypt == 0 && (index > 0 || single_use) {
        2
    } else {
        1
    }
}

/// Ends a session for good when its first ticket gets too old, however often it was renewed: a
/// client that has shown a certificate must show it again, because it may have expired or been
/// revoked. The end of the session is written into its tickets.
pub fn limit_resumption(context: &mut SslContextBuilder) {
    type Generate = unsafe extern "C" fn(*mut ffi::SSL, *mut c_void) -> c_int;
    type Decrypt = unsafe extern "C" fn(
        *mut ffi::SSL,
        *mut ffi::SSL_SESSION,
        *const c_uchar,
        usize,
        c_int,
        *mut c_void,
    ) -> c_int;
    extern "C" {
        /// SSL_CTX_set_session_ticket_cb(3)
        fn SSL_CTX_set_session_ticket_cb(
            context: *mut ffi::SSL_CTX,
            generate: Option<Generate>,
            decrypt: Option<Decrypt>,
            argument: *mut c_void,
        ) -> c_int;
    }
    // SAFETY: the context is alive, and the callbacks have the signatures that OpenSSL documents.
    unsafe {
        SSL_CTX_set_session_ticket_cb(
            context.as_ptr(),
            Some(add_end),
            Some(check_end),
            ptr::null_mut(),
        );
    }
}

extern "C" {
    // SSL_CTX_set_session_ticket_cb(3)
    fn SSL_SESSION_set1_ticket_appdata(
        session: *mut ffi::SSL_SESSION,
        data: *const c_void,
        length: usize,
    ) -> c_int;
    fn SSL_SESSION_get0_ticket_appdata(
        session: *mut ffi::SSL_SESSION,
        data: *mut *mut c_void,
        length: *mut usize,
    ) -> c_int;
    fn SSL_CTX_get_timeout(context: *const ffi::SSL_CTX) -> std::ffi::c_long;
}

/// When a session ends, in seconds since 1970, if its ticket says so.
///
/// # Safety
/// `session` is one of OpenSSL's, which nobody changes meanwhile.
unsafe fn end_of(session: *mut ffi::SSL_SESSION) -> Option<u64> {
    let (mut data, mut length) = (ptr::null_mut(), 0);
    // SAFETY: as the caller promises; the data has that length, and is copied.
    unsafe {
        let known = SSL_SESSION_get0_ticket_appdata(session, &mut data, &mut length) == 1;
        let bytes = (known && length == 8 && !data.is_null())
            .then(|| ptr::read_unaligned(data.cast::<[u8; 8]>()))?;
        Some(u64::from_be_bytes(bytes))
    }
}

/// Writes the end of the session into its first ticket; later tickets copy it from the one before.
unsafe extern "C" fn add_end(ssl: *mut ffi::SSL, _: *mut c_void) -> c_int {
    // SAFETY: OpenSSL passes its connection, which has a session and a context.
    unsafe {
        let session = ffi::SSL_get_session(ssl);
        if ffi::SSL_session_reused(ssl) == 1 && end_of(session).is_some() {
            return 1;
        }
        let timeout = SSL_CTX_get_timeout(ffi::SSL_get_SSL_CTX(ssl));
        let end = crate::os::wall_clock() + u64::try_from(timeout).unwrap_or(0);
        let data = end.to_be_bytes();
        SSL_SESSION_set1_ticket_appdata(session, data.as_ptr().cast(), data.len())
    }
}

/// Decides whether to use a ticket that OpenSSL has decrypted, or failed to.
unsafe extern "C" fn check_end(
    _: *mut ffi::SSL,
    session: *mut ffi::SSL_SESSION,
    _: *const c_uchar,
    _: usize,
    status: c_int,
    _: *mut c_void,
) -> c_int {
    // SSL_TICKET_STATUS and SSL_TICKET_RETURN.
    const SUCCESS: c_int = 5;
    const SUCCESS_RENEW: c_int = 6;
    const IGNORE_RENEW: c_int = 2;
    const USE: c_int = 3;
    const USE_RENEW: c_int = 4;
    let used = match status {
        SUCCESS => USE,
        SUCCESS_RENEW => USE_RENEW,
        _ => return IGNORE_RENEW,
    };
    // SAFETY: when a ticket was decrypted, OpenSSL passes its session.
    match unsafe { end_of(session) } {
        Some(end) if crate::os::wall_clock() < end => used,
        _ => IGNORE_RENEW,
    }
}

/// The cipher of tickets, fetched once.
fn ticket_cipher() -> Option<&'static Cipher> {
    static CIPHER: OnceLock<Option<Cipher>> = OnceLock::new();
    CIPHER.get_or_init(|| Cipher::fetch(None, "AES-256-CBC", None).ok()).as_ref()
}

/// OSSL_PARAM(3).
const OSSL_PARAM_UTF8_STRING: std::ffi::c_uint = 4;
