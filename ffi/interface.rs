//! The table of functions through which the library's C half calls Rust (`compat/shims.h`), and
//! through which our own programs enter the library.

use super::entry::entry;
use super::layout::alias::AliasName;
use super::layout::condition::{Action, Cond};
use super::layout::rbtree::RbTree;
use super::mavis::{attributes, chain, condition, configuration, reading, script, timespec};
use super::memops::Pool;
use super::{debug, internal, log, scm, setproctitle, spawnd_headers};
use crate::config::Sym;
use crate::mavis::attributes::Attributes;
use crate::os::module::Context;
use crate::os::process::exit;
use crate::program::{self, Kind};
use std::ffi::{c_char, c_int, c_uint, c_ulong, c_void};

/// `struct tcprelay_interface`, in the order of `compat/shims.h`. Functions that read configuration
/// return 0, or 1 after keeping an error for `failure`.
#[repr(C)]
#[allow(missing_docs, reason = "the names are those of what they implement")]
pub struct Interface {
    pub main: unsafe extern "C" fn(c_int, c_int, *const *const c_char) -> c_int,

    pub log_message: unsafe extern "C" fn(*const c_char),
    pub debug_message: unsafe extern "C" fn(c_ulong, *const c_char),
    pub configuration_message: unsafe extern "C" fn(c_int, c_int, *const c_char),
    pub set_title: unsafe extern "C" fn(*const c_char),
    pub av_add: unsafe extern "C" fn(*mut Attributes, c_int, *const c_char, *const c_char),

    pub describe_expected: unsafe extern "C" fn(*mut Sym, *const c_int, usize) -> c_int,
    pub keep_error: unsafe extern "C" fn(*mut Sym, *const c_char),
    pub failure: unsafe extern "C" fn(*mut Sym) -> *mut c_void,

    pub sym_get: unsafe extern "C" fn(*mut Sym) -> c_int,
    pub sym_init: unsafe extern "C" fn(*mut Sym) -> c_int,
    pub sym_peek: unsafe extern "C" fn(*mut Sym, *mut c_int) -> c_int,
    pub parse: unsafe extern "C" fn(*mut Sym, c_int) -> c_int,
    pub parse_bool: unsafe extern "C" fn(*mut Sym, *mut c_uint) -> c_int,
    pub parse_comma: unsafe extern "C" fn(*mut Sym, *mut c_int) -> c_int,
    pub parse_int: unsafe extern "C" fn(*mut Sym, *mut c_int) -> c_int,
    pub parse_uint: unsafe extern "C" fn(*mut Sym, *mut c_uint) -> c_int,
    pub parse_seconds: unsafe extern "C" fn(*mut Sym, *mut c_int) -> c_int,
    pub parse_permission: unsafe extern "C" fn(*mut Sym, *mut c_int) -> c_int,
    pub parse_userid: unsafe extern "C" fn(*mut Sym, *mut libc::uid_t, *mut libc::gid_t) -> c_int,
    pub parse_groupid: unsafe extern "C" fn(*mut Sym, *mut libc::gid_t) -> c_int,
    pub parse_umask: unsafe extern "C" fn(*mut Sym, *mut libc::mode_t) -> c_int,
    pub parse_debug: unsafe extern "C" fn(*mut Sym, *mut c_uint) -> c_int,
    pub parse_common: unsafe extern "C" fn(*mut Sym) -> c_int,
    pub parse_mavispath: unsafe extern "C" fn(*mut Sym) -> c_int,
    pub load_module:
        unsafe extern "C" fn(*mut *mut Context, *mut c_void, *mut Sym, *mut c_char, usize) -> c_int,
    pub mavis_script_parse: unsafe extern "C" fn(*mut Context, *mut c_void, *mut Sym) -> c_int,
    pub parse_action: unsafe extern "C" fn(*mut Context, *mut Sym) -> c_int,
    pub mavis_cond_new: unsafe extern "C" fn(*mut Sym, *mut Pool, c_int, *mut *mut Cond) -> c_int,
    pub mavis_cond_parse: unsafe extern "C" fn(*mut Sym, *mut Pool, *mut *mut Cond) -> c_int,
    pub mavis_action_new: unsafe extern "C" fn(*mut Sym, *mut Pool, *mut *mut Action) -> c_int,
    pub normalize_cond:
        unsafe extern "C" fn(*mut Sym, *mut c_void, *mut *mut Sym, *mut c_int) -> c_int,
    pub parse_timespec: unsafe extern "C" fn(*mut RbTree, *mut Sym) -> c_int,
    pub add_token_to_alias: unsafe extern "C" fn(*mut AliasName, *mut Sym) -> c_int,
    pub spawnd_parse_decls: unsafe extern "C" fn(*mut Sym) -> c_int,
    pub open_configuration: unsafe extern "C" fn(*const c_char, *const c_char) -> *mut Sym,
    pub close_configuration: unsafe extern "C" fn(*mut Sym),
}

pub(super) static INTERFACE: Interface = Interface {
    main,
    log_message: log::log_message,
    debug_message: debug::debug_message,
    configuration_message: reading::configuration_message,
    set_title: setproctitle::set_title,
    av_add: attributes::av_add,
    describe_expected: reading::describe_expected,
    keep_error: reading::keep_error,
    failure: reading::failure,
    sym_get: reading::sym_get,
    sym_init: reading::sym_init,
    sym_peek: reading::sym_peek,
    parse: reading::parse,
    parse_bool: reading::parse_bool,
    parse_comma: reading::parse_comma,
    parse_int: reading::parse_int,
    parse_uint: reading::parse_uint,
    parse_seconds: reading::parse_seconds,
    parse_permission: reading::parse_permission,
    parse_userid: reading::parse_userid,
    parse_groupid: reading::parse_groupid,
    parse_umask: reading::parse_umask,
    parse_debug: reading::parse_debug,
    parse_common: reading::parse_common,
    parse_mavispath: chain::parse_mavispath,
    load_module: chain::load_module,
    mavis_script_parse: script::mavis_script_parse,
    parse_action: script::parse_action,
    mavis_cond_new: condition::mavis_cond_new,
    mavis_cond_parse: condition::mavis_cond_parse,
    mavis_action_new: condition::mavis_action_new,
    normalize_cond: condition::normalize_cond,
    parse_timespec: timespec::parse_timespec,
    add_token_to_alias: internal::add_token_to_alias,
    spawnd_parse_decls: spawnd_headers::spawnd_parse_decls,
    open_configuration: configuration::open_configuration,
    close_configuration: configuration::close_configuration,
};

entry! {
    /// Runs one of our own programs (`program.rs`).
    #[otherwise(exit::OS_ERROR)]
    fn main(kind: c_int, argc: c_int, argv: *const *const c_char) -> c_int {
        let kind = match kind {
            0 => Kind::Tcprelay,
            1 => Kind::Spawnd,
            3 => Kind::Tcprelayctl,
            _ => Kind::Mavistest,
        };
        scm::set_functions();
        // SAFETY: the array has that many pointers to NUL-terminated strings.
        program::main(kind, unsafe { scm::arguments(argc, argv) })
    }
}
