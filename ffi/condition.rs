//! mavis/mavis.h: conditions in the layout of C, for programs with a scripting language of their
//! own (`struct mavis_cond`, `struct mavis_action`).

// Token constants carry the names of the C enumeration.
#![allow(non_upper_case_globals)]

use super::memops::{mem_alloc, mem_free, mem_realloc, mem_strdup};
use super::{guard, reading};
use crate::config::token::*;
use crate::config::{ConfigError, Parser, Sym};
use crate::mavis::script::{self, Condition, Operand, Test};
use crate::os::malloc::{Owned, Text};
use std::ffi::{c_char, c_int, c_void};
use std::ptr;

/// `struct mavis_cond` (80 bytes on LP64). The type says which part of the union it is.
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

/// Grows by eight after every eight entries.
#[repr(C)]
#[derive(Clone, Copy)]
struct Multi {
    count: c_int,
    entries: [*mut Cond; STEP],
}

const STEP: usize = 8;

/// `struct mavis_action` (40 bytes on LP64).
#[repr(C)]
struct Action {
    code: u32,
    line: u32,
    parts: [*mut c_void; 3],
    next: *mut Action,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Cond>() == 80 && size_of::<Action>() == 40);

/// A condition without content, from `pool`.
///
/// # Safety
/// `pool` is null or a pool.
unsafe fn allocate(pool: *mut c_void, code: Code, line: u32) -> *mut Cond {
    // SAFETY: as the caller promises; the memory is zeroed and has room for a condition.
    unsafe {
        let condition = mem_alloc(pool.cast(), size_of::<Cond>()).cast::<Cond>();
        (*condition).code = code.0;
        (*condition).line = line;
        condition
    }
}

/// `struct mavis_cond *mavis_cond_new(struct sym *, mem_t *, enum token type)`
pub(super) unsafe extern "C" fn mavis_cond_new(
    sym: *mut Sym,
    pool: *mut c_void,
    code: c_int,
    result: *mut *mut c_void,
) -> c_int {
    // SAFETY: the C side passes on what its caller gave, and room for the result.
    unsafe {
        reading::read(sym, |parser| {
            *result = allocate(pool, Code(code as u32), parser.line()).cast();
            Ok(())
        })
    }
}

/// `struct mavis_cond *mavis_cond_add(struct mavis_cond *a, mem_t *, struct mavis_cond *b)`:
/// appends `b` to `a`, which may move.
///
/// # Safety
/// `a` is null or a condition with entries, `pool` what it came from.
#[no_mangle]
pub unsafe extern "C" fn mavis_cond_add(
    a: *mut Cond,
    pool: *mut c_void,
    b: *mut Cond,
) -> *mut Cond {
    if a.is_null() {
        return a;
    }
    guard(a, || {
        // SAFETY: as the caller promises; there is room for the entry when it is written, behind
        // the declared array in memory that was made longer.
        unsafe {
            let mut a = a;
            let count = (*a).part.multi.count.max(0) as usize;
            if count > 0 && count.is_multiple_of(STEP) {
                let size = size_of::<Cond>() + count * size_of::<*mut Cond>();
                a = mem_realloc(pool.cast(), a.cast(), size).cast();
            }
            let entries = (&raw mut (*a).part.multi.entries).cast::<*mut Cond>();
            entries.add(count).write(b);
            (*a).part.multi.count = (count + 1) as c_int;
            a
        }
    })
}

/// `void mavis_cond_optimize(struct mavis_cond **, mem_t *)`: what has one entry becomes it.
///
/// # Safety
/// The argument is null or points at null or a condition from `pool`.
#[no_mangle]
pub unsafe extern "C" fn mavis_cond_optimize(condition: *mut *mut Cond, pool: *mut c_void) {
    guard((), || {
        // SAFETY: as the caller promises; entries are conditions from the same pool.
        unsafe {
            let Some(slot) = condition.as_mut() else {
                return;
            };
            let has_entries = |c: *mut Cond| Code((*c).code) == S_or || Code((*c).code) == S_and;
            while !slot.is_null() && has_entries(*slot) && (**slot).part.multi.count == 1 {
                let mut single = *slot;
                *slot = (*single).part.multi.entries[0];
                mem_free(pool.cast(), (&raw mut single).cast());
            }
            let condition = *slot;
            if condition.is_null() {
                return;
            }
            if has_entries(condition) || Code((*condition).code) == S_exclmark {
                let entries = (&raw mut (*condition).part.multi.entries).cast::<*mut Cond>();
                for index in 0..(*condition).part.multi.count.max(0) as usize {
                    mavis_cond_optimize(entries.add(index), pool);
                }
            }
        }
    });
}

/// `struct mavis_cond *mavis_cond_parse(struct sym *, mem_t *)`
pub(super) unsafe extern "C" fn mavis_cond_parse(
    sym: *mut Sym,
    pool: *mut c_void,
    result: *mut *mut c_void,
) -> c_int {
    // SAFETY: the C side passes on what its caller gave, and room for the result.
    unsafe {
        reading::read(sym, |parser| {
            let condition = script::condition(parser)?;
            *result = export(condition, pool).cast();
            Ok(())
        })
    }
}

/// A condition in the layout of C.
///
/// # Safety
/// `pool` is null or a pool.
unsafe fn export(condition: Condition, pool: *mut c_void) -> *mut Cond {
    let line = condition.line;
    let number = |index: usize| ptr::without_provenance_mut::<c_void>(index);
    // SAFETY: as the caller promises; each condition is new, and gets the part of its type.
    unsafe {
        let several = |code: Code, row: Vec<Condition>| {
            row.into_iter().fold(allocate(pool, code, line), |all, entry| {
                mavis_cond_add(all, pool, export(entry, pool))
            })
        };
        let single = |code, token: Code, attribute: script::Attribute, right, text: &[u8]| {
            let condition = allocate(pool, code, line);
            (*condition).part.single = Single {
                token: token.0,
                left: number(attribute.index),
                left_text: mem_strdup(pool.cast(), Text::new(attribute.name.as_bytes()).as_ptr()),
                right_token: 0,
                right,
                right_text: mem_strdup(pool.cast(), Text::new(text).as_ptr()),
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
                let right = mem_strdup(pool.cast(), Text::new(&text).as_ptr());
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

/// `struct mavis_action *mavis_action_new(struct sym *, mem_t *)`: of the current token; advances.
pub(super) unsafe extern "C" fn mavis_action_new(
    sym: *mut Sym,
    pool: *mut c_void,
    result: *mut *mut c_void,
) -> c_int {
    // SAFETY: the C side passes on what its caller gave, and room for the result; the memory is
    // zeroed and has room for an action.
    unsafe {
        reading::read(sym, |parser| {
            let action = mem_alloc(pool.cast(), size_of::<Action>()).cast::<Action>();
            (*action).code = parser.code().0;
            (*action).line = parser.line();
            *result = action.cast();
            parser.advance()
        })
    }
}

/// `int sym_normalize_cond_start(struct sym *, mem_t *, struct sym **)`: in front of a condition in
/// parentheses, makes a reader of the same with parentheses that say what binds first. -1 if it
/// did, 0 if there is no such condition here.
pub(super) unsafe extern "C" fn normalize_cond(
    sym: *mut Sym,
    _pool: *mut c_void,
    normalized: *mut *mut Sym,
    result: *mut c_int,
) -> c_int {
    // SAFETY: the C side passes on what its caller gave, and room for the results. The text of the
    // new reader is on the heap and belongs to it until sym_normalize_cond_end.
    unsafe {
        let failed = reading::read(sym, |parser| {
            if parser.code() != S_leftbra || normalized.is_null() {
                return Ok(());
            }
            let line = parser.line() as usize;
            let text = [vec![b'\n'; line.saturating_sub(1)], parenthesised(parser)?].concat();
            let length = text.len();
            let mut reader = Owned::new((*sym).clone());
            reader.read_text(Text::new(&text).into_raw().cast(), length);
            *normalized = reader.into_raw();
            *result = -1;
            Ok(())
        });
        if failed == 0 && *result != 0 {
            return reading::sym_init(*normalized);
        }
        failed
    }
}

/// `void sym_normalize_cond_end(struct sym **, mem_t *)`: ends such a reader.
///
/// # Safety
/// The argument is null or points at null or a reader of sym_normalize_cond_start.
#[no_mangle]
pub unsafe extern "C" fn sym_normalize_cond_end(reader: *mut *mut Sym, _pool: *mut c_void) {
    guard((), || {
        // SAFETY: as the caller promises; text and reader are on the heap of malloc(3).
        unsafe {
            let Some(slot) = reader.as_mut() else {
                return;
            };
            if let Some(reader) = Owned::from_raw(std::mem::take(slot)) {
                libc::free(reader.input().0.cast_mut().cast());
            }
        }
    });
}

/// The text of a condition with every row of one operator in parentheses of its own. Ends on the
/// token after it.
fn parenthesised(parser: &mut Parser<'_>) -> Result<Vec<u8>, ConfigError> {
    let mut text = Vec::new();
    let mut depth = 0;
    loop {
        let code = parser.code();
        match code {
            S_eof => return Err(parser.error("EOF unexpected")),
            S_openbra | S_closebra => {
                let got = parser.text_lossy();
                let message = format!("Got '{got}' -- did you omit a ')' somewhere?");
                return Err(parser.error(message));
            }
            // The trick of early FORTRAN compilers: each operator closes and opens as many
            // parentheses as it binds weakly.
            S_leftbra => text.extend_from_slice(b"((("),
            S_rightbra => text.extend_from_slice(b")))"),
            S_and => text.extend_from_slice(b") && ("),
            S_or => text.extend_from_slice(b")) || (("),
            S_slash => {
                text.push(b'/');
                for &byte in parser.text() {
                    if byte == b'/' {
                        text.push(b'\\');
                    }
                    text.push(byte);
                }
                text.push(b'/');
            }
            S_string if parser.is_quoted() => quote(parser.text(), &mut text),
            _ => text.extend_from_slice(parser.text()),
        }
        // A tilde and what follows are no word.
        text.push(b' ');
        depth += i32::from(code == S_leftbra) - i32::from(code == S_rightbra);
        if code == S_tilde {
            parser.set_parses_pcre(true);
        }
        let advanced = parser.advance();
        parser.set_parses_pcre(false);
        advanced?;
        if depth == 0 {
            return Ok(text);
        }
    }
}

fn quote(value: &[u8], text: &mut Vec<u8>) {
    text.push(b'"');
    for &byte in value {
        match byte {
            b'"' | b'\\' => text.extend_from_slice(&[b'\\', byte]),
            0..=31 => text.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
            _ => text.push(byte),
        }
    }
    text.push(b'"');
}
