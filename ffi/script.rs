//! mavis/mavis.h: scripts of modules. What modules hold of one is a pointer they do not follow.

use super::{guard, reading, text};
use crate::config::token::{Code, S_unknown};
use crate::config::Sym;
use crate::mavis::attributes::Attributes;
use crate::mavis::evaluate::evaluate;
use crate::mavis::script::{self, Outcome, Script, When};
use crate::os::module::Context;
use std::ffi::{c_int, c_uint, c_void};

/// `void mavis_script_parse(mavis_ctx *, mem_t *, struct sym *)`: adds to a script of a module.
/// The pool is not used.
pub(super) unsafe extern "C" fn mavis_script_parse(
    module: *mut Context,
    _pool: *mut c_void,
    sym: *mut Sym,
) -> c_int {
    // SAFETY: the C side passes on what its caller gave: null or a module, whose scripts are null
    // or of this function.
    unsafe {
        reading::read(sym, |parser| {
            let (when, statements) = script::parse(parser)?;
            if !module.is_null() {
                let slot = match when {
                    When::In => &raw mut (*module).script_in,
                    When::Out => &raw mut (*module).script_out,
                    When::Interim => &raw mut (*module).script_interim,
                };
                if (*slot).is_null() {
                    *slot = Box::into_raw(Box::<Script>::default()).cast();
                }
                (*(*slot).cast::<Script>()).statements.extend(statements);
            }
            Ok(())
        })
    }
}

/// `enum token mavis_script_eval(mavis_ctx *, av_ctx *, struct mavis_action *)`: runs a script;
/// `return`, `continue`, `skip`, or 0 at its end.
///
/// # Safety
/// All are null, or a module, pairs, and a script of a module.
#[no_mangle]
pub unsafe extern "C" fn mavis_script_eval(
    module: *mut Context,
    ac: *mut Attributes,
    script: *const Script,
) -> c_uint {
    guard(S_unknown.0, || {
        // SAFETY: as the caller promises; the name is null or NUL-terminated.
        unsafe {
            let (Some(pairs), Some(script)) = (ac.as_mut(), script.as_ref()) else {
                return S_unknown.0;
            };
            let name = if module.is_null() { None } else { text((*module).identity_source_name) };
            evaluate(script, pairs, &name.unwrap_or_default()).0
        }
    })
}

/// `void mavis_script_drop(struct mavis_action **)`: frees a script and forgets it.
///
/// # Safety
/// The argument is null or points at null or a script of a module.
#[no_mangle]
pub unsafe extern "C" fn mavis_script_drop(script: *mut *mut Script) {
    guard((), || {
        // SAFETY: as the caller promises: scripts are boxes of mavis_script_parse.
        unsafe {
            if let Some(slot) = script.as_mut() {
                let script = std::mem::take(slot);
                if !script.is_null() {
                    drop(Box::from_raw(script));
                }
            }
        }
    });
}

/// `void mavis_module_parse_action(mavis_ctx *, struct sym *)`: what a module does with errors and
/// with users it does not know.
pub(super) unsafe extern "C" fn parse_action(module: *mut Context, sym: *mut Sym) -> c_int {
    // SAFETY: the C side passes on what its caller gave.
    unsafe {
        reading::read(sym, |parser| {
            let (outcome, Code(code)) = script::parse_action(parser)?;
            if let Some(module) = module.as_mut() {
                match outcome {
                    Outcome::Error => module.action_error = code,
                    Outcome::NotFound => module.action_notfound = code,
                }
            }
            Ok(())
        })
    }
}
