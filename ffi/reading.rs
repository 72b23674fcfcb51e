//! The lexer and what reads values, for C: `sym_*`, `parse_*` (mavis/mavis.h).
//!
//! A function that may fail keeps its error and says so; the C side then calls `failure`, which
//! reports it, and jumps or ends the process where no Rust frame is left.

use super::{bytes, guard};
use crate::config::common::{self, Common};
use crate::config::report::{Report, UnknownNames};
use crate::config::token::{
    Code, S_closebra, S_comma, S_deny, S_eof, S_equal, S_openbra, S_permit,
};
use crate::config::{
    ConfigError, Environment, Ids, JumpBuffer, Parser, ReadError, Sym, JUMP_WORDS,
};
use crate::os::{common_data, log};
use std::cell::{Cell, RefCell};
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::ptr;

thread_local! {
    static KEPT: RefCell<Option<ConfigError>> = const { RefCell::new(None) };
    /// Where the C side is about to jump to.
    static TARGET: Cell<JumpBuffer> = const { Cell::new([0; JUMP_WORDS]) };
    /// Names of aliases that C code is defining; it has their addresses.
    #[allow(clippy::vec_box, reason = "the addresses must not change")]
    static ALIASES: RefCell<Vec<Box<AliasName>>> = const { RefCell::new(Vec::new()) };
}

/// What C code holds of an alias: a `struct token_list *`, which it only hands back.
#[repr(C)]
struct AliasName {
    list: *mut c_void,
    name: Vec<u8>,
}

/// How messages are written that concern the configuration of a C program.
pub(super) fn report() -> Report {
    Report {
        quiet: false,
        parse_only: common_data::parse_only() != 0,
        debug_to_stderr: common_data::debug_stderr() != 0,
        terminal: common_data::debug_terminal() != 0,
        unknown_names: UnknownNames::Ignored,
    }
}

/// Reads on where C code is; an error is kept, and 1 returned.
///
/// # Safety
/// `sym` is null or a `struct sym` that nobody else uses during the call, with its input.
pub(super) unsafe fn read(
    sym: *mut Sym,
    step: impl FnOnce(&mut Parser<'_>) -> Result<(), ConfigError>,
) -> c_int {
    guard(0, || {
        // SAFETY: as the caller promises.
        let Some(sym) = (unsafe { sym.as_mut() }) else {
            return 0;
        };
        let (start, length) = sym.input();
        let text = match start.is_null() {
            true => &[][..],
            // SAFETY: what C code calls the input of a reader is readable memory of that length.
            false => unsafe { std::slice::from_raw_parts(start, length) },
        };
        // SAFETY: the name is null or a NUL-terminated string.
        let name = unsafe { super::text(sym.name()) }.unwrap_or_default();
        let report = report();
        let mut parser = Parser::resume(sym, text, &name, &report);
        match step(&mut parser) {
            Ok(()) => 0,
            Err(error) => {
                KEPT.set(Some(error));
                1
            }
        }
    })
}

/// As [`read`], with a value to give back.
///
/// # Safety
/// As for [`read`]; `result` is null or writable.
unsafe fn read_value<T>(
    sym: *mut Sym,
    result: *mut T,
    step: impl FnOnce(&mut Parser<'_>) -> Result<T, ConfigError>,
) -> c_int {
    // SAFETY: as the caller promises.
    unsafe {
        read(sym, |parser| {
            let value = step(parser)?;
            if !result.is_null() {
                *result = value;
            }
            Ok(())
        })
    }
}

pub(super) unsafe extern "C" fn keep_error(sym: *mut Sym, text: *const c_char) {
    // SAFETY: the C side passes on what its caller gave, and a NUL-terminated text.
    unsafe {
        let text = super::text(text).unwrap_or_default();
        read(sym, |parser| Err(parser.error(text)));
    }
}

pub(super) unsafe extern "C" fn describe_expected(
    sym: *mut Sym,
    codes: *const c_int,
    count: usize,
) -> c_int {
    // SAFETY: the C side passes an array of that length.
    unsafe {
        let codes = std::slice::from_raw_parts(codes, count);
        let codes: Vec<Code> = codes.iter().map(|&code| Code(code as u32)).collect();
        read(sym, |parser| Err(parser.expected(&codes)))
    }
}

/// Reports the error that was kept. Returns the jmp_buf that the program has filled; if it has filled
/// none, the process is to end, and everything else is done.
pub(super) unsafe extern "C" fn failure(sym: *mut Sym) -> *mut c_void {
    guard(ptr::null_mut(), || {
        // SAFETY: the C side passes on what its caller gave.
        let mut outermost = unsafe { sym.as_mut() };
        // It says where to go.
        // SAFETY: what C code has put into that field is another reader of its own.
        while let Some(outer) = outermost.as_ref().and_then(|sym| unsafe { sym.outer()?.as_mut() })
        {
            outermost = Some(outer);
        }
        let ours = outermost.as_ref().is_some_and(|sym| sym.is_ours());
        let target = outermost.and_then(Sym::take_jump_target);
        let report = report();
        match KEPT.take() {
            Some(error) if ours && target.is_none() => {
                report.failure(&ReadError::Syntax(error));
                crate::config::abandon();
            }
            Some(error) => report.syntax(&error),
            None => {}
        }
        target.map_or(ptr::null_mut(), |target| {
            TARGET.with(|place| {
                place.set(target);
                place.as_ptr().cast()
            })
        })
    })
}

pub(super) unsafe extern "C" fn sym_get(sym: *mut Sym) -> c_int {
    // SAFETY: the C side passes on what its caller gave.
    unsafe { read(sym, |parser| parser.advance()) }
}

pub(super) unsafe extern "C" fn sym_init(sym: *mut Sym) -> c_int {
    // SAFETY: as above.
    unsafe { read(sym, |parser| parser.start()) }
}

pub(super) unsafe extern "C" fn sym_peek(sym: *mut Sym, code: *mut c_int) -> c_int {
    // SAFETY: as above; the C side gives room for the result.
    unsafe { read_value(sym, code, |parser| Ok(parser.peek()?.0 as c_int)) }
}

pub(super) unsafe extern "C" fn parse(sym: *mut Sym, code: c_int) -> c_int {
    // SAFETY: as above.
    unsafe { read(sym, |parser| parser.expect(Code(code as u32))) }
}

pub(super) unsafe extern "C" fn parse_bool(sym: *mut Sym, value: *mut c_uint) -> c_int {
    // SAFETY: as above.
    unsafe { read_value(sym, value, |parser| Ok(parser.boolean()?.into())) }
}

pub(super) unsafe extern "C" fn parse_comma(sym: *mut Sym, value: *mut c_int) -> c_int {
    // SAFETY: as above.
    unsafe {
        read_value(sym, value, |parser| {
            let mut found = 0;
            while parser.accept(S_comma)? {
                found = -1;
            }
            Ok(found)
        })
    }
}

pub(super) unsafe extern "C" fn parse_int(sym: *mut Sym, value: *mut c_int) -> c_int {
    // SAFETY: as above.
    unsafe { read_value(sym, value, |parser| parser.wrapping_integer("an integer")) }
}

pub(super) unsafe extern "C" fn parse_uint(sym: *mut Sym, value: *mut c_uint) -> c_int {
    // SAFETY: as above.
    unsafe {
        read_value(sym, value, |parser| {
            Ok(parser.wrapping_integer("an unsigned integer")?.cast_unsigned())
        })
    }
}

pub(super) unsafe extern "C" fn parse_seconds(sym: *mut Sym, value: *mut c_int) -> c_int {
    // SAFETY: as above.
    unsafe { read_value(sym, value, |parser| parser.seconds()) }
}

pub(super) unsafe extern "C" fn parse_permission(sym: *mut Sym, value: *mut c_int) -> c_int {
    // SAFETY: as above.
    unsafe {
        read_value(sym, value, |parser| {
            let code = parser.code();
            if code != S_permit && code != S_deny {
                return Err(parser.expected(&[S_permit, S_deny]));
            }
            parser.advance()?;
            Ok(code.0 as c_int)
        })
    }
}

pub(super) unsafe extern "C" fn parse_userid(
    sym: *mut Sym,
    uid: *mut libc::uid_t,
    gid: *mut libc::gid_t,
) -> c_int {
    // SAFETY: as above; the pointers are null or writable.
    unsafe {
        let Ids { uid: user, gid: group } = {
            let mut ids = Ids::default();
            let failed = read(sym, |parser| parser.user_id(&mut ids));
            if failed != 0 {
                return failed;
            }
            ids
        };
        if let Some(uid) = uid.as_mut() {
            *uid = user.unwrap_or(0);
        }
        if let (Some(gid), Some(group)) = (gid.as_mut(), group) {
            *gid = group;
        }
        0
    }
}

pub(super) unsafe extern "C" fn parse_groupid(sym: *mut Sym, gid: *mut libc::gid_t) -> c_int {
    // SAFETY: as above.
    unsafe {
        read_value(sym, gid, |parser| {
            let mut ids = Ids::default();
            parser.group_id(&mut ids)?;
            Ok(ids.gid.unwrap_or(0))
        })
    }
}

pub(super) unsafe extern "C" fn parse_umask(sym: *mut Sym, mode: *mut libc::mode_t) -> c_int {
    // SAFETY: as above.
    unsafe {
        read_value(sym, mode, |parser| {
            parser.advance()?;
            parser.expect(S_equal)?;
            Ok(parser.octal()? as libc::mode_t)
        })
    }
}

pub(super) unsafe extern "C" fn parse_debug(sym: *mut Sym, mask: *mut c_uint) -> c_int {
    // SAFETY: as above; the mask is null, or readable and writable. It may be that of common_data.
    unsafe {
        let before = mask.as_ref().copied().unwrap_or(0);
        read(sym, |parser| {
            common::debug_flags(parser, before, |changed| {
                if !mask.is_null() {
                    *mask = changed;
                }
            })
        })
    }
}

pub(super) unsafe extern "C" fn parse_common(sym: *mut Sym) -> c_int {
    // SAFETY: as above.
    unsafe {
        read(sym, |parser| {
            if common::parse_top(parser)? {
                publish(&std::mem::take(&mut parser.common));
                return Ok(());
            }
            Err(parser.expected(&common::SHARED))
        })
    }
}

/// What the common directives set, for C code to see.
pub(super) fn publish(common: &Common) {
    if let Some(directory) = &common.core_directory {
        common_data::set_core_directory(&directory.to_string_lossy());
    }
    if let Some(command) = &common.core_command {
        common_data::set_core_command(command);
    }
    if let Some(command) = &common.debug_command {
        common_data::set_debug_command(command);
    }
    if let Some(title) = &common.process_title {
        common_data::set_process_title(title);
    }
}

pub(super) unsafe extern "C" fn parse_timespec(table: *mut c_void, sym: *mut Sym) -> c_int {
    // SAFETY: as above; the table is one of init_timespec, or null.
    unsafe {
        read(sym, |parser| {
            let mut table = super::timespec::Table::of(table.cast());
            parser.advance()?;
            parser.accept(S_equal)?;
            let name = parser.text().to_vec();
            parser.advance()?;
            parser.expect(S_openbra)?;
            if let Some(table) = &mut table {
                table.open(&name);
            }
            while parser.code() != S_closebra {
                if parser.code() == S_eof {
                    return Err(parser.expected(&[S_closebra]));
                }
                if let Some(table) = &mut table {
                    let added = table.add(&name, parser.text());
                    added.map_err(|error| parser.error(error.to_string()))?;
                }
                parser.advance()?;
            }
            parser.advance()
        })
    }
}

/// `struct token_list **add_alias(char *name)`: begins to define an alias.
///
/// # Safety
/// `name` is null or NUL-terminated.
#[no_mangle]
pub unsafe extern "C" fn add_alias(name: *const c_char) -> *mut c_void {
    guard(ptr::null_mut(), || {
        // SAFETY: as the caller promises.
        let Some(name) = (unsafe { bytes(name) }) else {
            return ptr::null_mut();
        };
        Environment::current().borrow_mut().add_alias(name);
        let mut entry = Box::new(AliasName { list: ptr::null_mut(), name: name.to_vec() });
        let handle = (&raw mut *entry).cast();
        ALIASES.with_borrow_mut(|aliases| aliases.push(entry));
        handle
    })
}

pub(super) unsafe extern "C" fn add_token_to_alias(list: *mut *mut c_void, sym: *mut Sym) -> c_int {
    let name = ALIASES.with_borrow(|aliases| {
        let found = aliases.iter().find(|entry| ptr::addr_eq(&***entry, list));
        found.map(|entry| entry.name.clone())
    });
    // SAFETY: as above.
    unsafe {
        read(sym, |parser| {
            if let Some(name) = name {
                parser.add_token_to_alias(&name);
            }
            Ok(())
        })
    }
}

/// `enum token keycode(char *)`: the number of a word, that of a string if it is none.
///
/// # Safety
/// `word` is null or NUL-terminated.
#[no_mangle]
pub unsafe extern "C" fn keycode(word: *const c_char) -> c_uint {
    // SAFETY: as the caller promises.
    guard(0, || unsafe { bytes(word) }.map_or(0, |word| Code::of(word).0))
}

/// `int get_syslog_level(char *)`: the number of a severity, 0 if there is none of that name.
///
/// # Safety
/// `name` is null or NUL-terminated.
#[no_mangle]
pub unsafe extern "C" fn get_syslog_level(name: *const c_char) -> c_int {
    guard(0, || {
        // SAFETY: as the caller promises.
        let name = unsafe { super::text(name) }.unwrap_or_default();
        log::Severity::parse(&name).map_or(0, log::Severity::number)
    })
}

/// `int get_syslog_facility(char *)`: the number of a facility, 0 if there is none of that name.
///
/// # Safety
/// `name` is null or NUL-terminated.
#[no_mangle]
pub unsafe extern "C" fn get_syslog_facility(name: *const c_char) -> c_int {
    guard(0, || {
        // SAFETY: as the caller promises.
        let name = unsafe { super::text(name) }.unwrap_or_default();
        log::Facility::parse(&name).map_or(0, log::Facility::number)
    })
}
