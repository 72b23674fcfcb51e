//! The secrets of a session's records: OpenSSL tells them to a callback.

use openssl::ssl::SslContextBuilder;
use openssl_sys as ffi;
use std::ffi::{c_char, c_int, CStr};
use std::sync::OnceLock;

extern "C" {
    /// SSL_CTX_set_info_callback(3).
    fn SSL_CTX_set_info_callback(
        context: *mut ffi::SSL_CTX,
        callback: Option<unsafe extern "C" fn(*const ffi::SSL, c_int, c_int)>,
    );
    /// SSL_CTX_set_keylog_callback(3).
    fn SSL_CTX_set_keylog_callback(
        context: *mut ffi::SSL_CTX,
        callback: Option<unsafe extern "C" fn(*const ffi::SSL, *const c_char)>,
    );
    /// SSL_get_state(3).
    fn SSL_get_state(ssl: *const ffi::SSL) -> c_int;
}

/// Takes a traffic secret of TLS 1.3 in hexadecimal: that of the client, or of the server.
pub type TakeSecret = fn(of_client: bool, secret: &[u8]);

static TAKE_SECRET: OnceLock<TakeSecret> = OnceLock::new();

/// Gives the secrets of the records of each session of TLS 1.3 to `take`, as soon as they are
/// known.
pub fn capture_traffic_secrets(context: &mut SslContextBuilder, take: TakeSecret) {
    TAKE_SECRET.get_or_init(|| take);
    // SAFETY: the context is alive, and the callback has the signature that OpenSSL documents.
    unsafe { SSL_CTX_set_info_callback(context.as_ptr(), Some(state_changes)) };
}

/// OpenSSL tells its five secrets to a callback of the context, printed digit by digit, which in
/// version 3.0 takes longer than sealing the handshake. So there is none while those come that
/// nobody wants, right after the ServerHello.
unsafe extern "C" fn state_changes(ssl: *const ffi::SSL, _kind: c_int, _value: c_int) {
    // OSSL_HANDSHAKE_STATE of openssl/ssl.h. Were they others, it would only take longer.
    const BEFORE: c_int = 0;
    const SR_CLIENT_HELLO: c_int = 20;
    const SW_SERVER_HELLO: c_int = 22;
    // SAFETY: OpenSSL passes its connection.
    let wanted = match unsafe { SSL_get_state(ssl) } {
        BEFORE | SR_CLIENT_HELLO | SW_SERVER_HELLO => None,
        _ => Some(secret_line as unsafe extern "C" fn(_, _)),
    };
    // SAFETY: the connection's context is alive, and the callback has the signature that OpenSSL
    // documents.
    unsafe { SSL_CTX_set_keylog_callback(ffi::SSL_get_SSL_CTX(ssl), wanted) };
}

/// LABEL CLIENT_RANDOM SECRET, the latter two in hexadecimal.
unsafe extern "C" fn secret_line(_ssl: *const ffi::SSL, line: *const c_char) {
    // SAFETY: OpenSSL passes a NUL-terminated line.
    let line = unsafe { CStr::from_ptr(line) }.to_bytes();
    let of_client = match line {
        [b'C', b'L', b'I', b'E', b'N', b'T', b'_', b'T', ..] => true,
        [b'S', b'E', b'R', b'V', b'E', b'R', b'_', b'T', ..] => false,
        _ => return,
    };
    if let (Some(take), Some(secret)) = (TAKE_SECRET.get(), line.rsplit(|&b| b == b' ').next()) {
        take(of_client, secret);
    }
}
