//! Conditions and actions in the C layout, for programs that have their own scripting language:
//! `struct mavis_cond` and `struct mavis_action`, allocated from a pool or with malloc(3).

// Token constants carry the names of the C enumeration.
#![allow(non_upper_case_globals)]

use crate::config::token::*;
use crate::ffi::memops::{free, resize, text, zeroed, Pool};
use crate::mavis::script::{self, Condition, Operand, Test};
use std::ffi::{c_char, c_int, c_void};
use std::ptr::{self, NonNull};

/// `struct mavis_cond` (80 bytes on LP64). The type tells which part of the union is valid.
#[repr(C)]
pub struct Cond {
    code: u32,
    line: u32,
    part: Part,
}

#[repr(C)]
union Part {
    single: Single,
    multi: Multi,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Single {
    token: u32,
    left: *mut c_void,
    left_text: *mut c_char,
    right_token: u32,
    right: *mut c_void,
    right_text: *mut c_char,
}

/// Grows by eight entries whenever it is full.
#[repr(C)]
#[derive(Clone, Copy)]
struct Multi {
    count: c_int,
    entries: [*mut Cond; STEP],
}

const STEP: usize = 8;

/// `struct mavis_action` (40 bytes on LP64).
#[repr(C)]
pub struct Action {
    code: u32,
    line: u32,
    parts: [*mut c_void; 3],
    next: *mut Action,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Cond>() == 80 && size_of::<Action>() == 40);

/// The pool that C code passes; `None` for memory outside of any pool.
pub type FromPool = Option<NonNull<Pool>>;

/// # Safety
/// The pool is valid, and nobody has a reference to it.
unsafe fn used<'a>(pool: FromPool) -> Option<&'a mut Pool> {
    // SAFETY: as the caller promises.
    pool.map(|pool| unsafe { &mut *pool.as_ptr() })
}

impl Action {
    /// An empty action with this token.
    ///
    /// # Safety
    /// As for [`Cond::allocate`].
    pub(crate) unsafe fn allocate(pool: FromPool, code: Code, line: u32) -> *mut Action {
        // SAFETY: as the caller promises; the memory is zeroed and has room for an action.
        unsafe {
            let action = zeroed(used(pool), size_of::<Action>()).cast::<Action>();
            (*action).code = code.0;
            (*action).line = line;
            action
        }
    }
}

impl Cond {
    /// An empty condition with this token.
    ///
    /// # Safety
    /// The pool is valid, and nobody else uses it during the call.
    pub(crate) unsafe fn allocate(pool: FromPool, code: Code, line: u32) -> *mut Cond {
        // SAFETY: as the caller promises; the memory is zeroed and has room for a condition.
        unsafe {
            let condition = zeroed(used(pool), size_of::<Cond>()).cast::<Cond>();
            (*condition).code = code.0;
            (*condition).line = line;
            condition
        }
    }

    /// Appends an entry, and returns the condition, which may have moved.
    ///
    /// # Safety
    /// `all` is a condition with entries from `pool`.
    pub(crate) unsafe fn add(all: NonNull<Cond>, pool: FromPool, entry: *mut Cond) -> *mut Cond {
        // SAFETY: as the caller promises; there is room for the entry when it is written: in the
        // declared array, or behind it in memory that was enlarged.
        unsafe {
            let mut all = all.as_ptr();
            let count = (*all).part.multi.count.max(0) as usize;
            if count > 0 && count.is_multiple_of(STEP) {
                let size = size_of::<Cond>() + count * size_of::<*mut Cond>();
                all = resize(used(pool), all.cast(), size).cast();
            }
            let entries = (&raw mut (*all).part.multi.entries).cast::<*mut Cond>();
            entries.add(count).write(entry);
            (*all).part.multi.count = (count + 1) as c_int;
            all
        }
    }

    /// Replaces every and-or condition that has one entry by this entry.
    ///
    /// # Safety
    /// The place holds null or a condition from `pool`, and its entries are from the same pool.
    pub(crate) unsafe fn optimize(place: *mut *mut Cond, pool: FromPool) {
        // SAFETY: as the caller promises.
        unsafe {
            let has_entries = |c: *mut Cond| Code((*c).code) == S_or || Code((*c).code) == S_and;
            while !(*place).is_null() && has_entries(*place) && (**place).part.multi.count == 1 {
                let single = *place;
                *place = (*single).part.multi.entries[0];
                free(used(pool), single.cast());
            }
            let condition = *place;
            if condition.is_null() {
                return;
            }
            if has_entries(condition) || Code((*condition).code) == S_exclmark {
                let entries = (&raw mut (*condition).part.multi.entries).cast::<*mut Cond>();
                for index in 0..(*condition).part.multi.count.max(0) as usize {
                    Cond::optimize(entries.add(index), pool);
                }
            }
        }
    }

    /// Converts a condition of a script to the C layout.
    ///
    /// # Safety
    /// As for [`allocate`](Self::allocate).
    pub(crate) unsafe fn export(condition: Condition, pool: FromPool) -> *mut Cond {
        let line = condition.line;
        let number = |index: usize| ptr::without_provenance_mut::<c_void>(index);
        // SAFETY: as the caller promises; each condition is new, and the part that belongs to its
        // type is written.
        unsafe {
            let copy = |bytes: &[u8]| text(used(pool), bytes);
            let several = |code: Code, row: Vec<Condition>| {
                row.into_iter().fold(Cond::allocate(pool, code, line), |all, entry| {
                    let entry = Cond::export(entry, pool);
                    NonNull::new(all).map_or(all, |all| Cond::add(all, pool, entry))
                })
            };
            let single = |code, token: Code, attribute: script::Attribute, right, text: &[u8]| {
                let condition = Cond::allocate(pool, code, line);
                (*condition).part.single = Single {
                    token: token.0,
                    left: number(attribute.index),
                    left_text: copy(attribute.name.as_bytes()),
                    right_token: 0,
                    right,
                    right_text: copy(text),
                };
                condition
            };
            match condition.test {
                Test::Not(inner) => several(S_exclmark, vec![*inner]),
                Test::And(row) => several(S_and, row),
                Test::Or(row) => several(S_or, row),
                Test::Defined(attribute) => single(S_defined, S_unknown, attribute, number(0), b""),
                Test::Undefined(attribute) => single(S_undef, S_unknown, attribute, number(0), b""),
                Test::Equal(attribute, Operand::Text(text)) => {
                    let right = copy(&text);
                    single(S_equal, S_unknown, attribute, right.cast(), &text)
                }
                Test::Equal(attribute, Operand::Attribute(other)) => {
                    let right = number(other.index);
                    single(S_equal, S_attr, attribute, right, other.name.as_bytes())
                }
                Test::Pcre(attribute, pcre, text) => {
                    single(S_slash, S_unknown, attribute, pcre.into_raw(), text.as_bytes())
                }
                Test::Posix(attribute, posix, text) => {
                    single(S_regex, S_unknown, attribute, posix.into_raw(), text.as_bytes())
                }
            }
        }
    }
}
