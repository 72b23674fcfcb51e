//! mavis/internal.h: functions that are exported although no other program is known to use them.

use super::entry::entry;
use super::interface::{Interface, INTERFACE};
use super::layout::alias::{self, AliasName};
use super::layout::common_data;
use super::mavis::reading::Reader;
use super::scm;
use crate::config::Environment;
use crate::os::crash;
use crate::program::{self, Hosted};
use std::ffi::{c_char, c_int, c_void};
use std::ptr;

/// Runs the broker of a C program. Returns only in single-process mode, where `common_data.io` is
/// then the loop.
pub(super) fn broker(argc: c_int, argv: *const *const c_char, id: Option<String>) {
    // SAFETY: the arguments are those of main().
    let arguments = unsafe { scm::arguments(argc, argv) };
    match program::hosted_broker(arguments, id, Box::<scm::OwnWorker>::default()) {
        Hosted::Ended(status) => std::process::exit(status),
        Hosted::Recursive => scm::fatal(),
        Hosted::Single { context, worker, limit } => {
            common_data::set_io(context);
            common_data::set_single_process(1);
            let limit = c_int::try_from(limit).unwrap_or(c_int::MAX);
            common_data::set_users_max(limit);
            common_data::set_users_max_total(limit);
            scm::set_functions_in_one_process();
            scm::enter_worker(&worker);
        }
    }
}

entry! {
    /// `int spawnd_main(int argc, char **argv, char **envp, char *id)`: runs the broker. Returns
    /// only in single-process mode, where `common_data.io` is then the loop.
    #[otherwise(1)]
    pub fn spawnd_main(
        argc: c_int,
        argv: *mut *mut c_char,
        _envp: *mut *mut c_char,
        id: Option<String>,
    ) -> c_int {
        broker(argc, argv.cast_const().cast(), id);
        0
    }

    /// `struct token_list **add_alias(char *name)`: starts the definition of an alias.
    #[otherwise(ptr::null_mut())]
    pub fn add_alias(name: &[u8]) -> *mut AliasName {
        Environment::current().borrow_mut().add_alias(name);
        alias::keep(name)
    }

    /// `void add_token_to_alias(struct token_list **p, struct sym *)`: adds the current token to
    /// the alias, without taking it.
    #[otherwise(0)]
    pub(in crate::ffi) fn add_token_to_alias(list: *mut AliasName, sym: Reader) -> c_int {
        sym.read(|parser| {
            if let Some(name) = alias::name(list) {
                parser.add_token_to_alias(&name);
            }
            Ok(())
        })
    }

    /// `void catchsegv(int sig, siginfo_t *, void *)`: the handler of SIGSEGV and SIGBUS; it does
    /// not return.
    pub fn catchsegv(number: c_int, _info: *mut libc::siginfo_t, _context: *mut c_void) {
        crash::caught(number);
    }

    /// For the library's own C half and our own programs only. It changes from release to release,
    /// so other programs must not use it.
    #[otherwise(ptr::null())]
    pub fn tcprelay_interface() -> *const Interface {
        &raw const INTERFACE
    }
}
