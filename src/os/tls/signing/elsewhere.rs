//! The provider: keys that another process has, and the signatures that it makes with them.

use super::keys::{algorithm, Kind, KEYS, NAME, REFERENCE, SIGNATURE};
use super::signature::SIGNING;
use crate::os::tls::checked;
use crate::os::tls::provider::{self, kind, Algorithm, Parameter, Provider};
use foreign_types::{ForeignType, ForeignTypeRef};
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, PKeyRef, Private, Public};
use openssl_sys as ffi;
use std::ffi::{c_int, CStr};
use std::ptr::{null, null_mut};
use std::sync::OnceLock;

/// OSSL_OP_KEYMGMT.
const KEY_MANAGEMENT: c_int = 10;

enum Elsewhere {}

impl Provider for Elsewhere {
    const NAME: &CStr = c"tcprelay-keys";

    fn algorithms(operation: c_int) -> *const Algorithm {
        match operation {
            KEY_MANAGEMENT => (&raw const KEYS).cast(),
            SIGNATURE => (&raw const SIGNATURES).cast(),
            _ => null(),
        }
    }
}

static SIGNATURES: [Algorithm; 2] = [algorithm(NAME, (&raw const SIGNING).cast()), Algorithm::END];

/// The library context that has only our provider.
struct Library(*mut ffi::OSSL_LIB_CTX);

// SAFETY: library contexts may be used by several threads at the same time.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

fn library() -> Result<&'static Library, ErrorStack> {
    static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();
    let made = LIBRARY.get_or_init(|| {
        openssl::init();
        let name = Elsewhere::NAME.as_ptr();
        // SAFETY: the context is alive, as it is never freed, and the name is a constant.
        unsafe {
            let library = ffi::OSSL_LIB_CTX_new();
            let loaded = !library.is_null()
                && provider::add::<Elsewhere>(library)
                && !ffi::OSSL_PROVIDER_load(library, name).is_null();
            loaded.then_some(Library(library))
        }
    });
    made.as_ref().ok_or_else(ErrorStack::get)
}

/// The private key that belongs to a public one, and that another process has.
pub fn key_elsewhere(public: &PKeyRef<Public>) -> Result<PKey<Private>, ErrorStack> {
    let kind = Kind::of(public).ok_or_else(ErrorStack::get)?;
    let library = library()?;
    let reference: *mut ffi::EVP_PKEY = public.as_ptr();
    let mut parameters = [
        Parameter {
            key: REFERENCE.as_ptr(),
            kind: kind::OCTETS,
            data: (&raw const reference).cast(),
            size: size_of_val(&reference),
            returned: 0,
        },
        Parameter::END,
    ];
    const KEY_PAIR: c_int = 0x87;
    // SAFETY: the library context lives for ever, names are constants, and the list of parameters
    // outlives the call, which passes it to `import`. What is made is freed here or owned once.
    unsafe {
        let context = ffi::EVP_PKEY_CTX_new_from_name(library.0, kind.name().as_ptr(), null());
        checked(!context.is_null())?;
        let mut made = null_mut();
        let done = ffi::EVP_PKEY_fromdata_init(context) == 1
            && ffi::EVP_PKEY_fromdata(context, &mut made, KEY_PAIR, parameters.as_mut_ptr().cast())
                == 1;
        ffi::EVP_PKEY_CTX_free(context);
        checked(done && !made.is_null())?;
        Ok(PKey::from_ptr(made))
    }
}
