//! The keys of session tickets: OpenSSL asks for them by a callback.

use foreign_types::ForeignTypeRef;
use openssl::cipher::Cipher;
use openssl::ssl::SslContextBuilder;
use openssl_sys as ffi;
use std::cell::RefCell;
use std::ffi::{c_int, c_uchar, c_void};
use std::ptr;
use std::sync::OnceLock;

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
}

// It is constant; the lint does not see that where the system lacks thread-local variables.
#[allow(clippy::missing_const_for_thread_local)]
mod present {
    use super::{RefCell, TicketKey};
    thread_local! {
        /// The keys of tickets: the first one for new ones.
        pub(super) static TICKET_KEYS: RefCell<Vec<TicketKey>> = const { RefCell::new(Vec::new()) };
    }
}
use present::TICKET_KEYS;

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
    // A ticket of TLS 1.3 is used once, so that there must be another one (RFC 8446 appendix C.4).
    // But a client that has shown a certificate must show it again when the first ticket is too
    // old: it may have been revoked, or have expired.
    // SAFETY: OpenSSL passes its connection.
    let (single_use, verified) = unsafe {
        (ffi::SSL_version(ssl) == ffi::TLS1_3_VERSION, ffi::SSL_get_verify_mode(ssl) != 0)
    };
    if encrypt == 0 && !verified && (index > 0 || single_use) {
        2
    } else {
        1
    }
}

/// The cipher of tickets, looked up once.
fn ticket_cipher() -> Option<&'static Cipher> {
    static CIPHER: OnceLock<Option<Cipher>> = OnceLock::new();
    CIPHER.get_or_init(|| Cipher::fetch(None, "AES-256-CBC", None).ok()).as_ref()
}

/// OSSL_PARAM(3).
const OSSL_PARAM_UTF8_STRING: std::ffi::c_uint = 4;
