//! mavis/mavis.h: conditions in the C layout, for programs that have their own scripting language.

use super::reading::{self, Reader};
use crate::config::token::{Code, S_leftbra};
use crate::config::Sym;
use crate::ffi::entry::{entry, Argument, Out};
use crate::ffi::layout::condition::{Action, Cond, FromPool};
use crate::os::malloc::{Owned, Text};
use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

entry! {
    /// `struct mavis_cond *mavis_cond_new(struct sym *, mem_t *, enum token type)`
    #[otherwise(0)]
    pub(in crate::ffi) fn mavis_cond_new(
        sym: Reader,
        pool: FromPool,
        code: c_int,
        result: Out<*mut Cond>,
    ) -> c_int {
        sym.read(|parser| {
            // SAFETY: the pool is null or came from `mem_create`.
            result.put(unsafe { Cond::allocate(pool, Code(code as u32), parser.line()) });
            Ok(())
        })
    }

    /// `struct mavis_cond *mavis_cond_add(struct mavis_cond *a, mem_t *, struct mavis_cond *b)`:
    /// appends `b` to `a`. Returns `a`, which may have moved.
    #[otherwise(a)]
    pub fn mavis_cond_add(a: *mut Cond, pool: FromPool, b: *mut Cond) -> *mut Cond {
        // SAFETY: `a` is null or a condition with entries, from the pool.
        NonNull::new(a).map_or(a, |all| unsafe { Cond::add(all, pool, b) })
    }

    /// `void mavis_cond_optimize(struct mavis_cond **, mem_t *)`: replaces every and-or condition
    /// that has one entry by this entry.
    pub fn mavis_cond_optimize(condition: &mut *mut Cond, pool: FromPool) {
        // SAFETY: the place holds null or a condition from the pool.
        unsafe { Cond::optimize(condition, pool) };
    }

    /// `struct mavis_cond *mavis_cond_parse(struct sym *, mem_t *)`
    #[otherwise(0)]
    pub(in crate::ffi) fn mavis_cond_parse(
        sym: Reader,
        pool: FromPool,
        result: Out<*mut Cond>,
    ) -> c_int {
        sym.read(|parser| {
            let condition = crate::mavis::script::condition(parser)?;
            // SAFETY: the pool is null or came from `mem_create`.
            result.put(unsafe { Cond::export(condition, pool) });
            Ok(())
        })
    }

    /// `struct mavis_action *mavis_action_new(struct sym *, mem_t *)`: a new action with the
    /// current token's code; takes the token.
    #[otherwise(0)]
    pub(in crate::ffi) fn mavis_action_new(
        sym: Reader,
        pool: FromPool,
        result: Out<*mut Action>,
    ) -> c_int {
        sym.read(|parser| {
            // SAFETY: the pool is null or came from `mem_create`.
            result.put(unsafe { Action::allocate(pool, parser.code(), parser.line()) });
            parser.advance()
        })
    }

    /// `int sym_normalize_cond_start(struct sym *, mem_t *, struct sym **)`: if the current token
    /// opens a condition in parentheses, makes a reader of the same condition with every implied
    /// pair of parentheses written out. -1 if it did, 0 if there is no such condition here.
    #[otherwise(0)]
    pub(in crate::ffi) fn normalize_cond(
        sym: *mut Sym,
        _pool: *mut c_void,
        normalized: Out<*mut Sym>,
        result: Out<c_int>,
    ) -> c_int {
        // SAFETY: the C side passes a reader.
        let Some(reader) = (unsafe { Reader::take(sym) }) else {
            return 0;
        };
        let mut text = None;
        let failed = reader.read(|parser| {
            if parser.code() == S_leftbra && normalized.is_wanted() {
                let line = parser.line() as usize;
                let head = vec![b'\n'; line.saturating_sub(1)];
                text = Some([head, parser.parenthesised()?].concat());
            }
            Ok(())
        });
        let Some(text) = text.filter(|_| failed == 0) else {
            return failed;
        };
        // SAFETY: as above. The text belongs to the new reader until `sym_normalize_cond_end`.
        unsafe {
            let mut inner = Owned::new((*sym).clone());
            inner.read_text(Text::new(&text).into_raw().cast(), text.len());
            let inner = inner.into_raw();
            normalized.put(inner);
            result.put(-1);
            reading::sym_init(inner)
        }
    }

    /// `void sym_normalize_cond_end(struct sym **, mem_t *)`: frees such a reader.
    pub fn sym_normalize_cond_end(reader: &mut *mut Sym, _pool: *mut c_void) {
        // SAFETY: the reader is null or came from `sym_normalize_cond_start`; reader and text were
        // allocated with malloc(3).
        unsafe {
            if let Some(reader) = Owned::from_raw(std::mem::take(reader)) {
                libc::free(reader.input().0.cast_mut().cast());
            }
        }
    }
}
