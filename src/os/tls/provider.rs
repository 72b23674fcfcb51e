//! What OpenSSL's providers are made of (provider(7)).

use openssl_sys as ffi;
use std::ffi::{c_char, c_int, c_uint, c_void, CStr};
use std::ptr::null;

/// OSSL_DISPATCH (openssl-core_dispatch.h(7)).
#[repr(C)]
pub(super) struct Dispatch {
    pub(super) number: c_int,
    pub(super) function: *const (),
}

// SAFETY: the functions are constants.
unsafe impl Sync for Dispatch {}

/// The end of a table of functions.
pub(super) const END: Dispatch = Dispatch { number: 0, function: null() };

/// OSSL_ALGORITHM (openssl-core.h(7)).
#[repr(C)]
pub(super) struct Algorithm {
    pub(super) names: *const c_char,
    pub(super) properties: *const c_char,
    pub(super) implementation: *const Dispatch,
    pub(super) description: *const c_char,
}

// SAFETY: the strings and tables are constants.
unsafe impl Sync for Algorithm {}

impl Algorithm {
    /// The end of a table of algorithms.
    pub(super) const END: Algorithm = Algorithm {
        names: null(),
        properties: null(),
        implementation: null(),
        description: null(),
    };
}

/// OSSL_PARAM(3).
#[repr(C)]
pub(super) struct Parameter {
    pub(super) key: *const c_char,
    pub(super) kind: c_uint,
    pub(super) data: *const c_void,
    pub(super) size: usize,
    pub(super) returned: usize,
}

// SAFETY: those that are shared are constants, which describe parameters and hold no data.
unsafe impl Sync for Parameter {}

/// The kinds of parameters.
pub(super) mod kind {
    use std::ffi::c_uint;
    pub(in crate::os::tls) const INTEGER: c_uint = 1;
    pub(in crate::os::tls) const UNSIGNED: c_uint = 2;
    pub(in crate::os::tls) const TEXT: c_uint = 4;
    pub(in crate::os::tls) const OCTETS: c_uint = 5;
}

impl Parameter {
    /// The end of a list.
    pub(super) const END: Parameter =
        Parameter { key: null(), kind: 0, data: null(), size: 0, returned: 0 };
}

/// Finds a parameter that has a value.
///
/// # Safety
/// `parameters` is null, or a list of parameters that outlives the result.
pub(super) unsafe fn find<'a>(
    mut parameters: *const Parameter,
    name: &CStr,
) -> Option<&'a Parameter> {
    // SAFETY: as promised: a list ends with a parameter without a name.
    unsafe {
        while !parameters.is_null() && !(*parameters).key.is_null() {
            if CStr::from_ptr((*parameters).key) == name && !(*parameters).data.is_null() {
                return Some(&*parameters);
            }
            parameters = parameters.add(1);
        }
    }
    None
}

/// A provider that is part of this program. It needs no context of its own.
pub(super) trait Provider {
    /// The name by which it is loaded.
    const NAME: &CStr;

    /// Its algorithms for an operation, as a table; null if it has none.
    fn algorithms(operation: c_int) -> *const Algorithm;
}

/// Makes a provider known to a library context, or to the default one if that is null. True if it
/// can be loaded now.
///
/// # Safety
/// The context is null or alive.
pub(super) unsafe fn add<P: Provider>(library: *mut ffi::OSSL_LIB_CTX) -> bool {
    // SAFETY: a constant name, and a function as OSSL_provider_init is documented.
    unsafe { OSSL_PROVIDER_add_builtin(library, P::NAME.as_ptr(), initialize::<P>) == 1 }
}

/// Starts a provider: OSSL_provider_init of provider-base(7).
unsafe extern "C" fn initialize<P: Provider>(
    handle: *const c_void,
    _core: *const Dispatch,
    functions: *mut *const Dispatch,
    context: *mut *mut c_void,
) -> c_int {
    /// OSSL_FUNC_PROVIDER_QUERY_OPERATION.
    const QUERY: c_int = 1027;
    let table = const { &[Dispatch { number: QUERY, function: query::<P> as *const () }, END] };
    // SAFETY: OpenSSL passes valid pointers for both results.
    unsafe {
        *functions = table.as_ptr();
        *context = handle.cast_mut();
    }
    1
}

unsafe extern "C" fn query<P: Provider>(
    _provider: *mut c_void,
    operation: c_int,
    may_change: *mut c_int,
) -> *const Algorithm {
    // SAFETY: OpenSSL passes a valid pointer for the result.
    unsafe { *may_change = 0 };
    P::algorithms(operation)
}

type Initialize = unsafe extern "C" fn(
    *const c_void,
    *const Dispatch,
    *mut *const Dispatch,
    *mut *mut c_void,
) -> c_int;

extern "C" {
    /// OSSL_PROVIDER_add_builtin(3).
    fn OSSL_PROVIDER_add_builtin(
        library: *mut ffi::OSSL_LIB_CTX,
        name: *const c_char,
        init: Initialize,
    ) -> c_int;
}
