//! mavis/spawnd_headers.h: parts of the broker.

use super::reading;
use crate::config::Sym;
use std::ffi::c_int;

pub(super) unsafe extern "C" fn spawnd_parse_decls(sym: *mut Sym) -> c_int {
    // SAFETY: the C side passes on what its caller gave.
    unsafe { reading::read(sym, |parser| parser.advance()) }
}
