//! mavis/mavis.h: chains of modules.

use super::{bytes, guard, reading, text};
use crate::config::Sym;
use crate::mavis::{chain, search};
use crate::os::common_data;
use crate::os::log;
use crate::os::malloc::Text;
use crate::os::module::{Context, Head};
use crate::os::process::exit;
use std::ffi::{c_char, c_int, c_void};
use std::path::Path;
use std::ptr;
use std::sync::{Mutex, PoisonError};

/// `int mavis_check_version(char *api, char *token)`: 0 if a caller was compiled for this library,
/// otherwise -1 after a warning.
///
/// # Safety
/// Both are null or NUL-terminated.
#[no_mangle]
pub unsafe extern "C" fn mavis_check_version(api: *const c_char, token: *const c_char) -> c_int {
    guard(-1, || {
        // SAFETY: as the caller promises.
        let (api, token) = unsafe { (text(api), text(token)) };
        let good = chain::check_version(&api.unwrap_or_default(), &token.unwrap_or_default());
        if good {
            0
        } else {
            -1
        }
    })
}

/// `int mavis_method_add(mavis_ctx **head, struct io_context *, char *path, char *id)`: loads a
/// module and appends it to the chain. 0, or -1 if it cannot be loaded.
///
/// # Safety
/// `head` is null or points at a chain, which may be null; the texts are null or NUL-terminated.
#[no_mangle]
pub unsafe extern "C" fn mavis_method_add(
    head: *mut *mut Context,
    io: *mut c_void,
    path: *const c_char,
    id: *const c_char,
) -> c_int {
    guard(-1, || {
        // SAFETY: as the caller promises.
        unsafe {
            let (Some(head), Some(path)) = (head.as_mut(), text(path)) else {
                return -1;
            };
            let id = text(id);
            match Head::load(Head::from_raw(*head), io, Path::new(&path), id.as_deref()) {
                Ok(loaded) => {
                    *head = loaded.as_ptr();
                    0
                }
                Err(_) => -1,
            }
        }
    })
}

/// The first half of parse_mavismodule: 0 after the opening brace with the module's identifier in
/// `id`, 1 with an error kept, -1 if there is no such module.
pub(super) unsafe extern "C" fn load_module(
    head: *mut *mut Context,
    io: *mut c_void,
    sym: *mut Sym,
    id: *mut c_char,
    size: usize,
) -> c_int {
    let mut found = true;
    // SAFETY: the C side passes on what its caller gave, and a buffer of that size.
    unsafe {
        let Some(head) = head.as_mut() else {
            return -1;
        };
        let failed = reading::read(sym, |parser| {
            let mut chain = Head::from_raw(*head);
            match search::load(parser, &mut chain, io)? {
                Ok(search::Loaded { id: identifier, .. }) => {
                    *head = chain.map_or(ptr::null_mut(), Head::as_ptr);
                    let length = identifier.len().min(size - 1);
                    ptr::copy_nonoverlapping(identifier.as_ptr(), id.cast(), length);
                    *id.add(length) = 0;
                }
                Err(missing) => {
                    let position = parser.position();
                    let text = format!("{position}: {missing}");
                    parser.report().message(log::Severity::ERROR, &text);
                    found = false;
                }
            }
            Ok(())
        });
        if found {
            failed
        } else {
            -1
        }
    }
}

pub(super) unsafe extern "C" fn parse_mavispath(sym: *mut Sym) -> c_int {
    // SAFETY: the C side passes on what its caller gave.
    unsafe { reading::read(sym, search::parse_path) }
}

/// `int mavis_init(mavis_ctx *head, char *api, char *token)`: starts the modules. 0 is good.
///
/// # Safety
/// `head` is null or a chain; the texts are null or NUL-terminated.
#[no_mangle]
pub unsafe extern "C" fn mavis_init(
    head: *mut Context,
    api: *const c_char,
    token: *const c_char,
) -> c_int {
    // SAFETY: as the caller promises.
    unsafe {
        mavis_check_version(api, token);
        guard(1, || match Head::from_raw(head) {
            Some(head) => head.init(),
            None => {
                log::message("Fatal: No modules configured");
                std::process::exit(exit::USAGE);
            }
        })
    }
}

/// `int mavis_send(mavis_ctx *head, av_ctx **query)`: submits a query.
///
/// # Safety
/// `head` is null or a chain; `query` is null or points at an av_ctx on the heap of malloc(3).
#[no_mangle]
pub unsafe extern "C" fn mavis_send(head: *mut Context, query: *mut chain::Query) -> c_int {
    guard(chain::Verdict::IGNORE.0, || {
        // SAFETY: as the caller promises: an optional owned value is a pointer that may be null.
        unsafe {
            query
                .as_mut()
                .map_or(chain::Verdict::IGNORE, |query| chain::send(Head::from_raw(head), query))
        }
        .0
    })
}

/// `int mavis_recv(mavis_ctx *head, av_ctx **answer, void *context)`: fetches a deferred answer.
///
/// # Safety
/// As for [`mavis_send`].
#[no_mangle]
pub unsafe extern "C" fn mavis_recv(
    head: *mut Context,
    answer: *mut chain::Query,
    context: *mut c_void,
) -> c_int {
    guard(chain::Verdict::IGNORE.0, || {
        // SAFETY: as the caller promises.
        unsafe {
            answer.as_mut().map_or(chain::Verdict::IGNORE, |answer| {
                chain::receive(Head::from_raw(head), answer, context)
            })
        }
        .0
    })
}

/// `int mavis_cancel(mavis_ctx *head, void *context)`: forgets a query.
///
/// # Safety
/// `head` is null or a chain.
#[no_mangle]
pub unsafe extern "C" fn mavis_cancel(head: *mut Context, context: *mut c_void) -> c_int {
    // SAFETY: as the caller promises.
    guard(0, || unsafe { Head::from_raw(head) }.map_or(0, |head| chain::cancel(head, context)))
}

/// `int mavis_drop(mavis_ctx *head)`: ends a chain. 0
///
/// # Safety
/// `head` is null or a chain that nobody uses afterwards.
#[no_mangle]
pub unsafe extern "C" fn mavis_drop(head: *mut Context) -> c_int {
    // SAFETY: as the caller promises.
    guard((), || unsafe { Head::from_raw(head).map_or((), |head| head.end()) });
    0
}

type Decrypt = unsafe extern "C" fn(*const c_char, *const c_char) -> *mut c_char;

/// Decrypts secrets of type 6, with its key.
static DECRYPT: Mutex<Option<(Decrypt, Vec<u8>)>> = Mutex::new(None);

/// `void mavis_set_type6(char *(*function)(const char *, const char *), char *key)`: who decrypts
/// secrets of type 6. Ignored unless both are there.
///
/// # Safety
/// `key` is null or NUL-terminated; the function stays callable.
#[no_mangle]
pub unsafe extern "C" fn mavis_set_type6(function: Option<Decrypt>, key: *const c_char) {
    guard((), || {
        // SAFETY: as the caller promises.
        if let (Some(function), Some(key)) = (function, unsafe { bytes(key) }) {
            *DECRYPT.lock().unwrap_or_else(PoisonError::into_inner) =
                Some((function, key.to_vec()));
        }
    });
}

/// `char *mavis_decrypt_type6(char *)`: the secret, to be freed by the caller; NULL if nobody
/// decrypts.
///
/// # Safety
/// `encoded` is null or NUL-terminated.
#[no_mangle]
pub unsafe extern "C" fn mavis_decrypt_type6(encoded: *const c_char) -> *mut c_char {
    guard(ptr::null_mut(), || {
        let decrypt = DECRYPT.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match decrypt {
            Some((function, key)) if !encoded.is_null() => {
                let key = Text::new(&key);
                // SAFETY: the program has given the function for this; both texts are
                // NUL-terminated.
                unsafe { function(encoded, key.as_ptr()) }
            }
            _ => ptr::null_mut(),
        }
    })
}

/// `void mavis_detach(void)`: a session of its own, and no descriptor that programs it starts
/// could use by mistake.
#[no_mangle]
pub extern "C" fn mavis_detach() {
    guard((), || {
        crate::os::process::new_session();
        let _ = crate::os::process::redirect_to_null(1);
        crate::os::process::close_on_exec(0);
        crate::os::process::close_on_exec(1);
        common_data::set_process_id(crate::os::process::id());
    });
}
