//! mavis/mavis.h: scripts of modules. To a module, a script is an opaque pointer.

use super::reading::Reader;
use crate::config::token::{Code, S_unknown};
use crate::ffi::entry::{entry, Argument};
use crate::mavis::attributes::Attributes;
use crate::mavis::evaluate::evaluate;
use crate::mavis::script::{self, Outcome, Script, When};
use crate::os::module::Context;
use std::ffi::{c_int, c_uint, c_void};
use std::ptr::NonNull;

entry! {
    /// `void mavis_script_parse(mavis_ctx *, mem_t *, struct sym *)`: reads a script, and adds it
    /// to the module's script of that kind. The pool is not used.
    #[otherwise(0)]
    pub(in crate::ffi) fn mavis_script_parse(
        module: Option<NonNull<Context>>,
        _pool: *mut c_void,
        sym: Reader,
    ) -> c_int {
        sym.read(|parser| {
            let (when, statements) = script::parse(parser)?;
            let Some(module) = module.map(NonNull::as_ptr) else {
                return Ok(());
            };
            // SAFETY: the module is valid; its scripts are null or came from this function.
            unsafe {
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

    /// `enum token mavis_script_eval(mavis_ctx *, av_ctx *, struct mavis_action *)`: runs a script.
    /// Returns the token of `return`, `continue` or `skip`, or 0 if the script ends without one.
    #[otherwise(S_unknown.0)]
    pub fn mavis_script_eval(
        module: Option<NonNull<Context>>,
        pairs: &mut Attributes,
        script: &Script,
    ) -> c_uint {
        // SAFETY: the module is valid; its name is null or ends with NUL.
        let name = module
            .and_then(|module| unsafe { String::take((*module.as_ptr()).identity_source_name) });
        evaluate(script, pairs, &name.unwrap_or_default()).0
    }

    /// `void mavis_script_drop(struct mavis_action **)`: frees a script, and sets the pointer to
    /// null.
    pub fn mavis_script_drop(script: &mut *mut Script) {
        let script = std::mem::take(script);
        if !script.is_null() {
            // SAFETY: scripts are boxes of `mavis_script_parse`.
            drop(unsafe { Box::from_raw(script) });
        }
    }

    /// `void mavis_module_parse_action(mavis_ctx *, struct sym *)`: reads what the module does
    /// about errors and unknown users.
    #[otherwise(0)]
    pub(in crate::ffi) fn parse_action(module: Option<NonNull<Context>>, sym: Reader) -> c_int {
        sym.read(|parser| {
            let (outcome, Code(code)) = script::parse_action(parser)?;
            if let Some(module) = module.map(NonNull::as_ptr) {
                // SAFETY: the module is valid.
                unsafe {
                    match outcome {
                        Outcome::Error => (*module).action_error = code,
                        Outcome::NotFound => (*module).action_notfound = code,
                    }
                }
            }
            Ok(())
        })
    }
}
