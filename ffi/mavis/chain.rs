//! mavis/mavis.h: chains of modules.

use super::reading::Reader;
use crate::ffi::entry::{entry, Argument};
use crate::ffi::memory::put_text;
use crate::mavis::chain::{self, Query, Verdict};
use crate::mavis::search;
use crate::os::malloc::Text;
use crate::os::module::{Context, Head};
use crate::os::process::{self, exit};
use crate::os::{common_data, log};
use std::ffi::{c_char, c_int, c_void, CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::{Mutex, PoisonError};

/// The first module of a chain.
impl Argument for Head {
    type Raw = *mut Context;
    unsafe fn take(raw: *mut Context) -> Option<Head> {
        // SAFETY: as the caller promises.
        unsafe { Head::from_raw(raw) }
    }
}

fn check_version(api: Option<String>, token: Option<String>) -> c_int {
    match chain::check_version(&api.unwrap_or_default(), &token.unwrap_or_default()) {
        true => 0,
        false => -1,
    }
}

type Decrypt = unsafe extern "C" fn(*const c_char, *const c_char) -> *mut c_char;

/// The function that decrypts secrets of type 6, and its key.
static DECRYPT: Mutex<Option<(Decrypt, Vec<u8>)>> = Mutex::new(None);

entry! {
    /// `int mavis_check_version(char *api, char *token)`: 0 if the caller was compiled for this
    /// library, otherwise -1 after a warning.
    #[otherwise(-1)]
    pub fn mavis_check_version(api: Option<String>, token: Option<String>) -> c_int {
        check_version(api, token)
    }

    /// `int mavis_method_add(mavis_ctx **head, struct io_context *, char *path, char *id)`: loads a
    /// module and appends it to the chain. 0, or -1 if it cannot be loaded.
    #[otherwise(-1)]
    pub fn mavis_method_add(
        head: &mut *mut Context,
        io: *mut c_void,
        path: &[u8],
        id: Option<String>,
    ) -> c_int {
        let path = Path::new(OsStr::from_bytes(path));
        // SAFETY: the head is null or a chain.
        match Head::load(unsafe { Head::from_raw(*head) }, io, path, id.as_deref()) {
            Ok(loaded) => {
                *head = loaded.as_ptr();
                0
            }
            Err(_) => -1,
        }
    }

    /// The first half of parse_mavismodule: loads a module and reads up to its opening brace. 0,
    /// with the module's identifier in `id`; 1 with an error kept; -1 if there is no such module.
    #[otherwise(-1)]
    pub(in crate::ffi) fn load_module(
        head: &mut *mut Context,
        io: *mut c_void,
        sym: Reader,
        id: *mut c_char,
        size: usize,
    ) -> c_int {
        let mut missing = false;
        let failed = sym.read(|parser| {
            // SAFETY: the head is null or a chain.
            let mut chain = unsafe { Head::from_raw(*head) };
            match search::load(parser, &mut chain, io)? {
                Ok(search::Loaded { id: identifier, .. }) => {
                    *head = chain.map_or(ptr::null_mut(), Head::as_ptr);
                    let length = identifier.len().min(size.saturating_sub(1));
                    // SAFETY: the C half passes a buffer of that size.
                    unsafe { put_text(id, size, &identifier.as_bytes()[..length]) };
                }
                Err(text) => {
                    let text = format!("{}: {text}", parser.position());
                    parser.message(log::Severity::ERROR, text);
                    missing = true;
                }
            }
            Ok(())
        });
        if missing {
            -1
        } else {
            failed
        }
    }

    /// `void parse_mavispath(struct sym *)`
    #[otherwise(0)]
    pub(in crate::ffi) fn parse_mavispath(sym: Reader) -> c_int {
        sym.read(search::parse_path)
    }

    /// `int mavis_init(mavis_ctx *head, char *api, char *token)`: initialises the modules. 0 if all
    /// succeed.
    #[otherwise(1)]
    pub fn mavis_init(head: Option<Head>, api: Option<String>, token: Option<String>) -> c_int {
        check_version(api, token);
        let Some(head) = head else {
            log::message("Fatal: No modules configured");
            std::process::exit(exit::USAGE);
        };
        head.init()
    }

    /// `int mavis_send(mavis_ctx *head, av_ctx **query)`: submits a query.
    #[otherwise(Verdict::IGNORE.0)]
    pub fn mavis_send(head: Option<Head>, query: &mut Query) -> c_int {
        chain::send(head, query).0
    }

    /// `int mavis_recv(mavis_ctx *head, av_ctx **answer, void *context)`: fetches a deferred
    /// answer.
    #[otherwise(Verdict::IGNORE.0)]
    pub fn mavis_recv(head: Option<Head>, answer: &mut Query, context: *mut c_void) -> c_int {
        chain::receive(head, answer, context).0
    }

    /// `int mavis_cancel(mavis_ctx *head, void *context)`: drops a deferred query.
    #[otherwise(0)]
    pub fn mavis_cancel(head: Head, context: *mut c_void) -> c_int {
        chain::cancel(head, context)
    }

    /// `int mavis_drop(mavis_ctx *head)`: frees a chain. Returns 0.
    #[otherwise(0)]
    pub fn mavis_drop(head: Head) -> c_int {
        // SAFETY: nobody uses the chain afterwards.
        unsafe { head.end() };
        0
    }

    /// `void mavis_set_type6(char *(*function)(const char *, const char *), char *key)`: sets the
    /// function that decrypts secrets of type 6, and its key, which is copied. Ignored if either is
    /// null.
    pub fn mavis_set_type6(function: Decrypt, key: &[u8]) {
        let decrypt = Some((function, key.to_vec()));
        *DECRYPT.lock().unwrap_or_else(PoisonError::into_inner) = decrypt;
    }

    /// `char *mavis_decrypt_type6(char *)`: the decrypted secret, to be freed by the caller; NULL
    /// if no function is set.
    #[otherwise(ptr::null_mut())]
    pub fn mavis_decrypt_type6(encoded: &CStr) -> *mut c_char {
        let decrypt = DECRYPT.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((function, key)) = decrypt else {
            return ptr::null_mut();
        };
        let key = Text::new(&key);
        // SAFETY: the program set the function for this; both texts end with NUL.
        unsafe { function(encoded.as_ptr(), key.as_ptr()) }
    }

    /// `void mavis_detach(void)`: moves the process into a new session, sends standard output to
    /// /dev/null, and keeps child processes from inheriting descriptors 0 and 1.
    pub fn mavis_detach() {
        process::detach();
        common_data::set_process_id(process::id());
    }
}
