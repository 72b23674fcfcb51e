//! mavis/mavis.h: the lexer and the functions that read values: `sym_*`, `parse_*`.
//!
//! A function that fails keeps its error and returns 1. The C half then calls `failure`, which
//! reports the error, and jumps or ends the process once no Rust frame is left on the stack.

use crate::config::common;
use crate::config::rules::UnknownNames;
use crate::config::system::System;
use crate::config::token::Code;
use crate::config::{ConfigError, Environment, Ids, JumpBuffer, Parser, ReadError, Sym};
use crate::ffi::entry::{entry, Argument, Out};
use crate::ffi::layout::common_data;
use crate::ffi::memory::slice;
use crate::os::log;
use crate::program::report::{publish_case, Report};
use crate::program::system::Live;
use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_uint, c_void};
use std::ptr;
use std::rc::Rc;

thread_local! {
    /// The system that readers made by C code consult, for files and names.
    static SYSTEM: Rc<dyn System> = Rc::new(Live::direct(report()));
    static KEPT: RefCell<Option<ConfigError>> = const { RefCell::new(None) };
    /// The target that the C half is about to jump to.
    static TARGET: Cell<JumpBuffer> = const { Cell::new(JumpBuffer::EMPTY) };
}

/// How to report messages about the configuration of a C program.
pub(in crate::ffi) fn report() -> Report {
    Report {
        parse_only: common_data::parse_only() != 0,
        debug_to_stderr: common_data::debug_stderr() != 0,
        terminal: common_data::debug_terminal() != 0,
        unknown_names: UnknownNames::Ignored,
    }
}

/// The system that readers made by C code consult, for files and names.
pub(in crate::ffi) fn system() -> Rc<dyn System> {
    SYSTEM.with(Rc::clone)
}

/// A `struct sym` through which C code reads: the lexer's state, and its input with its length.
pub struct Reader<'a>(&'a mut Sym);

impl Argument for Reader<'_> {
    type Raw = *mut Sym;
    unsafe fn take(raw: *mut Sym) -> Option<Self> {
        // SAFETY: as the caller promises.
        unsafe { raw.as_mut() }.map(Reader)
    }
}

impl Reader<'_> {
    /// Runs one step of the parser. An error is kept, and 1 returned.
    pub(in crate::ffi) fn read(
        self,
        step: impl FnOnce(&mut Parser<'_>) -> Result<(), ConfigError>,
    ) -> c_int {
        let (start, length) = self.0.input();
        // SAFETY: `take` was promised a reader with its input; its name is null or ends with NUL.
        let (text, name) = unsafe { (slice(start, length), String::take(self.0.name())) };
        let (name, report) = (name.unwrap_or_default(), report());
        let environment = Environment::current();
        // C code may have changed any of this since the last step.
        let (debug, case) = (common_data::debug(), common_data::case_stack());
        environment.borrow_mut().resume(&system(), debug, case);
        let mut parser = Parser::resume(self.0, text, &name, report.rules());
        let result = step(&mut parser);
        report.apply(parser.take_effects());
        publish_case(environment.borrow().case());
        match result {
            Ok(()) => 0,
            Err(error) => {
                KEPT.set(Some(error));
                1
            }
        }
    }

    /// As [`read`](Self::read), with a result.
    fn value<T>(
        self,
        result: &Out<T>,
        step: impl FnOnce(&mut Parser<'_>) -> Result<T, ConfigError>,
    ) -> c_int {
        self.read(|parser| {
            result.put(step(parser)?);
            Ok(())
        })
    }
}

entry! {
    /// `void parse_error(struct sym *, char *format, ...)`
    pub(in crate::ffi) fn keep_error(sym: Reader, text: Option<String>) {
        sym.read(|parser| Err(parser.error(text.unwrap_or_default())));
    }

    /// `void parse_error_expect(struct sym *, enum token, ...)`
    #[otherwise(0)]
    pub(in crate::ffi) fn describe_expected(
        sym: Reader,
        codes: *const c_int,
        count: usize,
    ) -> c_int {
        // SAFETY: the C half passes an array of that length.
        let codes = unsafe { slice(codes, count) };
        let codes: Vec<Code> = codes.iter().map(|&code| Code(code as u32)).collect();
        sym.read(|parser| Err(parser.expected(&codes)))
    }

    /// Reports the error that was kept. Returns the jmp_buf that the program has filled. If it has
    /// filled none, returns null: all that is left to do is to end the process.
    #[otherwise(ptr::null_mut())]
    pub(in crate::ffi) fn failure(sym: Option<&mut Sym>) -> *mut c_void {
        let mut outermost = sym;
        // The outermost reader has the jmp_buf.
        // SAFETY: C code keeps another reader of its own in that field, or null.
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
    }

    /// `void report_cfg_error(int priority, int level, char *format, ...)`: `level` is a mask of
    /// debug bits, which may make the message one of the debug trace.
    pub(in crate::ffi) fn configuration_message(
        priority: c_int,
        level: c_int,
        message: Option<String>,
    ) {
        report().program_message(priority, level as u32, &message.unwrap_or_default());
    }

    /// `void sym_get(struct sym *)`
    #[otherwise(0)]
    pub(in crate::ffi) fn sym_get(sym: Reader) -> c_int {
        sym.read(|parser| parser.advance())
    }

    /// `void sym_init(struct sym *)`
    #[otherwise(0)]
    pub(in crate::ffi) fn sym_init(sym: Reader) -> c_int {
        sym.read(|parser| parser.start())
    }

    /// `enum token sym_peek(struct sym *)`
    #[otherwise(0)]
    pub(in crate::ffi) fn sym_peek(sym: Reader, code: Out<c_int>) -> c_int {
        sym.value(&code, |parser| Ok(parser.peek()?.0 as c_int))
    }

    /// `void parse(struct sym *, enum token)`
    #[otherwise(0)]
    pub(in crate::ffi) fn parse(sym: Reader, code: c_int) -> c_int {
        sym.read(|parser| parser.expect(Code(code as u32)))
    }

    /// `u_int parse_bool(struct sym *)`
    #[otherwise(0)]
    pub(in crate::ffi) fn parse_bool(sym: Reader, value: Out<c_uint>) -> c_int {
        sym.value(&value, |parser| Ok(parser.boolean()?.into()))
    }

    /// `int parse_comma(struct sym *)`: takes any number of commas. -1 if there was one.
    #[otherwise(0)]
    pub(in crate::ffi) fn parse_comma(sym: Reader, value: Out<c_int>) -> c_int {
        sym.value(&value, |parser| Ok(-c_int::from(parser.commas()?)))
    }

    /// `int parse_int(struct sym *)`
    #[otherwise(0)]
    pub(in crate::ffi) fn parse_int(sym: Reader, value: Out<c_int>) -> c_int {
        sym.value(&value, |parser| parser.wrapping_integer("an integer"))
    }

    /// `u_int parse_uint(struct sym *)`
    #[otherwise(0)]
    pub(in crate::ffi) fn parse_uint(sym: Reader, value: Out<c_uint>) -> c_int {
        sym.value(&value, |parser| {
            Ok(parser.wrapping_integer("an unsigned integer")?.cast_unsigned())
        })
    }

    /// `int parse_seconds(struct sym *)`
    #[otherwise(0)]
    pub(in crate::ffi) fn parse_seconds(sym: Reader, value: Out<c_int>) -> c_int {
        sym.value(&value, |parser| parser.seconds())
    }

    /// `enum token parse_permission(struct sym *)`
    #[otherwise(0)]
    pub(in crate::ffi) fn parse_permission(sym: Reader, value: Out<c_int>) -> c_int {
        sym.value(&value, |parser| Ok(parser.permission()?.0 as c_int))
    }

    /// `void parse_userid(struct sym *, uid_t *, gid_t *)`: a user given by number leaves the group
    /// unchanged.
    #[otherwise(0)]
    pub(in crate::ffi) fn parse_userid(
        sym: Reader,
        uid: Out<libc::uid_t>,
        gid: Out<libc::gid_t>,
    ) -> c_int {
        sym.read(|parser| {
            let mut ids = Ids::default();
            parser.user_id(&mut ids)?;
            uid.put(ids.uid.unwrap_or(0));
            if let Some(group) = ids.gid {
                gid.put(group);
            }
            Ok(())
        })
    }

    /// `void parse_groupid(struct sym *, gid_t *)`
    #[otherwise(0)]
    pub(in crate::ffi) fn parse_groupid(sym: Reader, gid: Out<libc::gid_t>) -> c_int {
        sym.value(&gid, |parser| {
            let mut ids = Ids::default();
            parser.group_id(&mut ids)?;
            Ok(ids.gid.unwrap_or(0))
        })
    }

    /// `void parse_umask(struct sym *, mode_t *)`
    #[otherwise(0)]
    pub(in crate::ffi) fn parse_umask(sym: Reader, mode: Out<libc::mode_t>) -> c_int {
        sym.value(&mode, |parser| Ok(parser.umask()? as libc::mode_t))
    }

    /// `void parse_debug(struct sym *, u_int *)`: the mask may be `common_data.debug` itself.
    #[otherwise(0)]
    pub(in crate::ffi) fn parse_debug(sym: Reader, mask: *mut c_uint) -> c_int {
        // SAFETY: the mask is null, or readable and writable; nobody refers to it.
        let before = unsafe { mask.as_ref() }.copied().unwrap_or(0);
        sym.read(|parser| {
            common::debug_flags(parser, before, |parser, changed| {
                if !mask.is_null() {
                    // SAFETY: as above.
                    unsafe { *mask = changed };
                }
                parser.set_debug(common_data::debug());
            })
        })
    }

    /// `void parse_common(struct sym *)`
    #[otherwise(0)]
    pub(in crate::ffi) fn parse_common(sym: Reader) -> c_int {
        sym.read(|parser| {
            if common::parse_top(parser)? {
                common_data::publish(&std::mem::take(&mut parser.common));
                return Ok(());
            }
            Err(parser.expected(&common::SHARED))
        })
    }

    /// `enum token keycode(char *)`: the token number of a word; that of a string if the word is
    /// not reserved.
    #[otherwise(0)]
    pub fn keycode(word: &[u8]) -> c_uint {
        Code::of(word).0
    }

    /// `int get_syslog_level(char *)`: the number of a severity; 0 if the name is unknown.
    #[otherwise(0)]
    pub fn get_syslog_level(name: String) -> c_int {
        log::Severity::parse(&name).map_or(0, log::Severity::number)
    }

    /// `int get_syslog_facility(char *)`: the number of a facility; 0 if the name is unknown.
    #[otherwise(0)]
    pub fn get_syslog_facility(name: String) -> c_int {
        log::Facility::parse(&name).map_or(0, log::Facility::number)
    }
}
