//! TLS 1.3 key derivation with our own implementation: an OpenSSL provider (provider(7),
//! provider-kdf(7)) that has only TLS13-KDF (EVP_KDF-TLS13_KDF(7)). It derives with OpenSSL's own
//! HMAC.
//!
//! One reason is that we learn the secrets of a session's records this way; otherwise OpenSSL only
//! prints them, with one sprintf(3) per byte. The other is that OpenSSL's implementation looks up
//! its parts by name for each of the fifteen secrets of a handshake. With OpenSSL 3.0 the two cost
//! 335,000 instructions, 15 % of a connection.
//!
//! Only contexts that ask for its property use the provider, and it passes secrets only to
//! [`capturing`], so other users of OpenSSL in this process never meet it.

use super::checked;
use super::kdf::{self, Hash};
use super::provider::{self, kind, Algorithm, Dispatch, Parameter, Provider, END};
use crate::os::secret::SecretBytes;
use openssl::error::ErrorStack;
use openssl::ssl::{SslContextBuilder, SslMethod};
use openssl_sys as ffi;
use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_void, CStr};
use std::ptr::{null, null_mut};
use std::slice;
use std::sync::Once;

/// The parameters of a derivation; `None` for those that are not given.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Derivation<'a> {
    /// True: HKDF-Extract, with a salt that `label` derives from the previous secret. False:
    /// HKDF-Expand-Label (RFC 8446 section 7.1).
    pub(super) extract: bool,
    /// The name of the hash, as OpenSSL spells it.
    pub(super) digest: Option<&'a [u8]>,
    /// To extract: the input keying material. To expand: the secret.
    pub(super) key: Option<&'a [u8]>,
    /// To extract: the previous secret.
    pub(super) salt: Option<&'a [u8]>,
    /// The prefix of all labels.
    pub(super) prefix: Option<&'a [u8]>,
    /// The label, without the prefix.
    pub(super) label: Option<&'a [u8]>,
    /// The context: a hash of messages.
    pub(super) data: Option<&'a [u8]>,
}

/// What a handshake derived for the session's records.
#[derive(Default)]
pub struct Captured {
    /// For what the client sends.
    pub client: Option<Traffic>,
    /// For what the server sends.
    pub server: Option<Traffic>,
}

/// A traffic secret, and the key and IV that OpenSSL derived from it for itself (RFC 8446 section
/// 7.3). Deriving those again would cost 2 % of a connection.
pub struct Traffic {
    /// The secret.
    pub secret: SecretBytes,
    /// The key of the cipher, once it was derived.
    pub key: Option<SecretBytes>,
    /// The IV, likewise.
    pub iv: Option<SecretBytes>,
}

// It is const already; the lint does not see that on systems without thread-local variables.
#[allow(clippy::missing_const_for_thread_local)]
mod present {
    use super::{Captured, RefCell};
    thread_local! {
        /// The secrets of the handshake step that is running, if any.
        pub(super) static CAPTURED: RefCell<Option<Captured>> = const { RefCell::new(None) };
    }
}
use present::CAPTURED;

/// Runs a step of a handshake, and adds the secrets that it derives to `captured`.
pub fn capturing<T>(captured: &mut Captured, step: impl FnOnce() -> T) -> T {
    CAPTURED.with_borrow_mut(|place| *place = Some(std::mem::take(captured)));
    let result = kdf::together(step);
    *captured = CAPTURED.with_borrow_mut(Option::take).unwrap_or_default();
    result
}

/// A context whose sessions derive their secrets here, or in OpenSSL as usual if OpenSSL does not
/// accept the provider.
pub fn deriving_context(method: SslMethod) -> Result<SslContextBuilder, ErrorStack> {
    extern "C" {
        /// SSL_CTX_new_ex(3).
        fn SSL_CTX_new_ex(
            library: *mut ffi::OSSL_LIB_CTX,
            properties: *const c_char,
            method: *const ffi::SSL_METHOD,
        ) -> *mut ffi::SSL_CTX;
    }
    static ADDED: Once = Once::new();
    ADDED.call_once(|| {
        openssl::init();
        add_provider();
    });
    // Asks for a property of our own, so that the properties that an administrator has set keep
    // their meaning.
    // SAFETY: the method is alive; the strings are constants. The new context is the builder's
    // alone.
    unsafe {
        let context = SSL_CTX_new_ex(null_mut(), c"?tcprelay.kdf=yes".as_ptr(), method.as_ptr());
        checked(!context.is_null())?;
        Ok(SslContextBuilder::from_ptr(context))
    }
}

/// Adds the provider beside those of the configuration, or beside the default one.
fn add_provider() {
    // Callers that ask for no property get the implementation that OpenSSL learned first.
    kdf::know_default();
    // SAFETY: null is the default library context, and the name is a constant.
    unsafe {
        if provider::add::<OwnKdf>(null_mut()) {
            ffi::OSSL_PROVIDER_try_load(null_mut(), OwnKdf::NAME.as_ptr(), 1);
        }
    }
    // Without the provider everything works, but OpenSSL keeps handling the records.
    drop(ErrorStack::get());
}

/// The operation number of key derivation, OSSL_OP_KDF.
const KEY_DERIVATION: c_int = 4;

/// The provider.
enum OwnKdf {}

impl Provider for OwnKdf {
    const NAME: &CStr = c"tcprelay";

    fn algorithms(operation: c_int) -> *const Algorithm {
        match operation {
            KEY_DERIVATION => (&raw const ALGORITHMS).cast(),
            _ => null(),
        }
    }
}

static ALGORITHMS: [Algorithm; 2] = [
    Algorithm {
        names: c"TLS13-KDF".as_ptr(),
        properties: c"tcprelay.kdf=yes".as_ptr(),
        implementation: (&raw const FUNCTIONS).cast(),
        description: null(),
    },
    Algorithm::END,
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

/// The names of the parameters, in the order of [`Context::values`].
const NAMES: [&[u8]; 6] = [b"digest", b"key", b"salt", b"prefix", b"label", b"data"];

/// Parameters that were set before the call that derives. TLS passes all of them with that call.
#[derive(Default)]
struct Context {
    extract: bool,
    values: [Option<SecretBytes>; 6],
}

unsafe extern "C" fn new_context(_provider: *mut c_void) -> *mut Context {
    Box::into_raw(Box::default())
}

unsafe extern "C" fn free_context(context: *mut Context) {
    if !context.is_null() {
        // SAFETY: it came from `new_context`, OpenSSL no longer uses it, and it is freed once.
        drop(unsafe { Box::from_raw(context) });
    }
}

unsafe extern "C" fn reset_context(context: *mut Context) {
    // SAFETY: it came from `new_context`, and nobody else uses it meanwhile.
    unsafe { *context = Context::default() };
}

unsafe extern "C" fn set_parameters(context: *mut Context, parameters: *const Parameter) -> c_int {
    // SAFETY: a context as in `reset_context`, and an array as in `derive`.
    let (context, given) = unsafe { (&mut *context, Given::of(parameters)) };
    context.extract = given.extract.unwrap_or(context.extract);
    for (stored, value) in context.values.iter_mut().zip(given.values) {
        if let Some(value) = value {
            *stored = Some(SecretBytes::copy(value));
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
    c_int::from(derive_secret(&derivation, out).is_some())
}

/// The parameters that a call passes.
#[derive(Default)]
struct Given<'a> {
    extract: Option<bool>,
    values: [Option<&'a [u8]>; 6],
}

impl<'a> Given<'a> {
    /// # Safety
    ///
    /// `parameters` is null, or an array of parameters that ends with one without a name; all of
    /// them, and what they point at, live for `'a`.
    unsafe fn of(mut parameters: *const Parameter) -> Given<'a> {
        use kind::{INTEGER, OCTETS, TEXT};
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

/// HKDF-Expand-Label (RFC 8446 section 7.1) with the two parts of a label, and the context.
fn expand_label(
    hash: Hash,
    secret: &[u8],
    [prefix, label, context]: [&[u8]; 3],
    out: &mut [u8],
) -> Option<()> {
    let mut info = Vec::with_capacity(4 + prefix.len() + label.len() + context.len());
    info.extend_from_slice(&u16::try_from(out.len()).ok()?.to_be_bytes());
    info.push(u8::try_from(prefix.len() + label.len()).ok()?);
    info.extend_from_slice(prefix);
    info.extend_from_slice(label);
    info.push(u8::try_from(context.len()).ok()?);
    info.extend_from_slice(context);
    kdf::expand(hash, secret, &info, out).ok()
}

/// Derives a TLS 1.3 secret as OpenSSL specifies it (EVP_KDF-TLS13_KDF(7)). `None` if that is
/// impossible, for example because no cipher suite uses this hash (RFC 8446 appendix B.4).
fn derive_secret(wanted: &Derivation<'_>, out: &mut [u8]) -> Option<()> {
    let hash = Hash::by_name(wanted.digest?)?;
    let (prefix, label) = (wanted.prefix.unwrap_or_default(), wanted.label.unwrap_or_default());
    let length = hash.length();
    if !wanted.extract {
        let labels = [prefix, label, wanted.data.unwrap_or_default()];
        let secret = wanted.key.filter(|secret| secret.len() == length)?;
        expand_label(hash, secret, labels, out)?;
        capture(secret, label, out);
        return Some(());
    }
    if out.len() != length {
        return None;
    }
    let mut salt = SecretBytes::zeroed(length);
    if let Some(before) = wanted.salt {
        if before.len() != length {
            return None;
        }
        // The salt is derived from the previous secret, and from no messages.
        let labels = [prefix, label, hash.of_nothing()];
        expand_label(hash, before, labels, &mut salt)?;
    }
    let key = wanted.key.unwrap_or(&[0; 48][..length]);
    kdf::extract(hash, &salt, key, out).ok()
}

/// Keeps a traffic secret, or what was derived from one, if one of our handshakes is running.
fn capture(from: &[u8], label: &[u8], derived: &[u8]) {
    if !matches!(label, b"c ap traffic" | b"s ap traffic" | b"key" | b"iv") {
        return;
    }
    let _ = CAPTURED.try_with(|place| {
        let Ok(mut place) = place.try_borrow_mut() else { return };
        let Some(Captured { client, server }) = place.as_mut() else { return };
        let derived = SecretBytes::copy(derived);
        match label {
            b"c ap traffic" => *client = Some(Traffic { secret: derived, key: None, iv: None }),
            b"s ap traffic" => *server = Some(Traffic { secret: derived, key: None, iv: None }),
            _ => {
                // Keys for the handshake's own records come from other secrets.
                let of = |traffic: &&mut Traffic| traffic.secret[..] == *from;
                if let Some(traffic) = [client, server].into_iter().flatten().find(of) {
                    let place = if label == b"key" { &mut traffic.key } else { &mut traffic.iv };
                    *place = Some(derived);
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::testing::derive_with;
    use super::*;

    /// For all parameters that OpenSSL may pass, its own implementation gives the same result.
    #[test]
    fn secrets_are_those_that_the_library_would_derive() {
        let bytes: Vec<u8> = (0..=255).collect();
        // The first context adds the provider.
        deriving_context(SslMethod::tls()).unwrap();
        for (name, length) in [("SHA256", 32), ("SHA384", 48), ("SHA2-256", 32)] {
            let base = Derivation {
                digest: Some(name.as_bytes()),
                prefix: Some(b"tls13 "),
                label: Some(b"c ap traffic"),
                ..Derivation::default()
            };
            let (secret, salt) = (Some(&bytes[..length]), Some(&bytes[100..100 + length]));
            let extract = Derivation { extract: true, label: Some(b"derived"), ..base };
            let mut cases = vec![
                (Derivation { key: secret, ..extract }, length),
                (Derivation { key: Some(&bytes[..66]), salt, ..extract }, length),
            ];
            for size in [1, 12, 16, length, length + 1, 2 * length, 500] {
                cases.push((Derivation { key: secret, ..base }, size));
                cases.push((Derivation { key: secret, data: salt, ..base }, size));
            }
            for (wanted, size) in cases {
                let theirs = derive_with(c"provider=default", &wanted, size, true);
                assert!(theirs.is_some(), "{wanted:?}");
                for together in [true, false] {
                    let ours = derive_with(c"tcprelay.kdf=yes", &wanted, size, together);
                    assert_eq!(ours, theirs, "{wanted:?}, {size}");
                }
            }
            for (wanted, size) in [
                (Derivation { digest: Some(b"SHA1"), key: secret, ..base }, 20),
                (Derivation { digest: None, key: secret, ..base }, length),
                (base, length),
                (extract, length + 1),
                (Derivation { key: secret, label: Some(&bytes[..250]), ..base }, length),
                (Derivation { key: secret, ..base }, 256 * length),
            ] {
                assert_eq!(derive_with(c"tcprelay.kdf=yes", &wanted, size, true), None);
            }
        }
    }

    /// libcurl, or a module in this process, asks for no property.
    #[test]
    fn others_do_not_meet_it() {
        extern "C" {
            fn EVP_KDF_fetch(
                library: *mut ffi::OSSL_LIB_CTX,
                name: *const c_char,
                properties: *const c_char,
            ) -> *mut c_void;
            fn EVP_KDF_get0_provider(kdf: *const c_void) -> *const c_void;
            fn OSSL_PROVIDER_get0_name(provider: *const c_void) -> *const c_char;
            fn EVP_KDF_free(kdf: *mut c_void);
        }
        deriving_context(SslMethod::tls()).unwrap();
        for (properties, expected) in [(None, "default"), (Some(c"tcprelay.kdf=yes"), "tcprelay")] {
            for _ in 0..3 {
                // SAFETY: constant strings; the algorithm is alive until it is freed.
                let name = unsafe {
                    let properties = properties.map_or(null(), CStr::as_ptr);
                    let kdf = EVP_KDF_fetch(null_mut(), c"TLS13-KDF".as_ptr(), properties);
                    assert!(!kdf.is_null());
                    let name = CStr::from_ptr(OSSL_PROVIDER_get0_name(EVP_KDF_get0_provider(kdf)));
                    let name = name.to_str().unwrap().to_owned();
                    EVP_KDF_free(kdf);
                    name
                };
                assert_eq!(name, expected);
            }
        }
        // Even if they used it, nothing would be captured.
        let bytes = [7; 32];
        let wanted = Derivation {
            digest: Some(b"SHA256"),
            prefix: Some(b"tls13 "),
            label: Some(b"c ap traffic"),
            key: Some(&bytes),
            ..Derivation::default()
        };
        let mut captured = Captured::default();
        assert!(derive_with(c"tcprelay.kdf=yes", &wanted, 32, true).is_some());
        capturing(&mut captured, || ());
        assert!(captured.client.is_none() && captured.server.is_none());
        capturing(&mut captured, || derive_with(c"tcprelay.kdf=yes", &wanted, 32, true));
        assert!(captured.client.is_some() && captured.server.is_none());
    }

    /// What OpenSSL derives from a secret for the session's records is kept with it, and nothing else.
    #[test]
    fn keys_stay_with_the_secret_that_they_come_from() {
        deriving_context(SslMethod::tls()).unwrap();
        let base = Derivation {
            digest: Some(b"SHA256"),
            prefix: Some(b"tls13 "),
            label: Some(b"s ap traffic"),
            key: Some(&[7; 32]),
            ..Derivation::default()
        };
        let derive = |wanted: &Derivation<'_>, length| {
            derive_with(c"tcprelay.kdf=yes", wanted, length, true).expect("a secret")
        };
        let mut captured = Captured::default();
        let (key, iv) = capturing(&mut captured, || {
            let secret = derive(&base, 32);
            let from = |secret, label, length| {
                derive(&Derivation { label: Some(label), key: Some(secret), ..base }, length)
            };
            let keys = (from(&secret, b"key", 16), from(&secret, b"iv", 12));
            // Those of the handshake's own records.
            from(&[8; 32], b"key", 16);
            from(&[8; 32], b"iv", 12);
            keys
        });
        let traffic = captured.server.expect("a secret");
        assert_eq!(traffic.key.as_deref(), Some(&key[..]));
        assert_eq!(traffic.iv.as_deref(), Some(&iv[..]));
        assert!(captured.client.is_none());
    }
}
