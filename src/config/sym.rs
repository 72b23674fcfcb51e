//! The lexer's state in the layout of the C `struct sym`, whose fields modules read.
//!
//! The pointers are for C readers; this side never follows them. It reads the text of a source it
//! holds, at the offset that `len` and `tlen` give.

use super::environment::Handle;
use super::source::Source;
use super::token::Code;
use std::ffi::c_char;
use std::ptr;

/// Room for the text of a token, its NUL included.
pub(super) const TEXT_SIZE: usize = 65535;

include!(concat!(env!("OUT_DIR"), "/jump_buffer.rs"));

/// `struct sym` (65840 bytes on x86-64 with glibc or musl). It holds one token (`code`, `buf`) and
/// one character of look-ahead (`ch`).
#[repr(C)]
#[derive(Clone)]
pub struct Sym {
    pub(super) filename: *const c_char,
    pub(super) buf: [u8; TEXT_SIZE],
    /// Start of the current character in the input.
    pub(super) start: *const u8,
    /// Start of the current token in the input.
    pub(super) raw: *const u8,
    /// Length of the text in `buf`.
    pub(super) pos: u32,
    /// Bit-fields: 29 bits of line feeds consumed; flag_parse_pcre; flag_prohibit_include; quoted.
    bits: u32,
    /// Bit-fields: noescape; nowarn.
    more_bits: u8,
    pub(super) ch: [u8; 4],
    pub(super) chlen: u8,
    pub(super) code: Code,
    pub(super) input: *const u8,
    pub(super) len: i32,
    pub(super) tin: *const u8,
    pub(super) tlen: i32,
    /// Where an error jumps to (setjmp(3)), if `env_valid` is set. Zero until C code fills it.
    env: JumpBuffer,
    env_valid: i32,
    /// The alias that tokens are being read from.
    pub(super) token_chain: Handle,
    /// The file that includes this one.
    pub(super) next: Handle,
}

#[cfg(all(target_pointer_width = "64", test))]
mod layout {
    use super::Sym;
    use std::mem::{offset_of, size_of};

    #[test]
    fn layout_is_that_of_struct_sym() {
        if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            assert_eq!(size_of::<Sym>(), 65840);
        }
        assert_eq!(offset_of!(Sym, buf), 8);
        assert_eq!(offset_of!(Sym, start), 65544);
        assert_eq!(offset_of!(Sym, raw), 65552);
        assert_eq!(offset_of!(Sym, pos), 65560);
        assert_eq!(offset_of!(Sym, bits), 65564);
        assert_eq!(offset_of!(Sym, more_bits), 65568);
        assert_eq!(offset_of!(Sym, ch), 65569);
        assert_eq!(offset_of!(Sym, chlen), 65573);
        assert_eq!(offset_of!(Sym, code), 65576);
        assert_eq!(offset_of!(Sym, input), 65584);
        assert_eq!(offset_of!(Sym, len), 65592);
        assert_eq!(offset_of!(Sym, tin), 65600);
        assert_eq!(offset_of!(Sym, tlen), 65608);
        assert_eq!(offset_of!(Sym, env), 65616);
        let end = offset_of!(Sym, env) + size_of::<super::JumpBuffer>();
        assert_eq!(offset_of!(Sym, env_valid), end);
        assert_eq!(offset_of!(Sym, token_chain), (end + 4).next_multiple_of(8));
        assert_eq!(offset_of!(Sym, next), offset_of!(Sym, token_chain) + 8);
    }
}

/// C compilers allocate bit-fields from the lowest bit on little-endian machines, and from the
/// highest bit on big-endian ones.
const FROM_THE_TOP: bool = cfg!(target_endian = "big");
const LINE_BITS: u32 = 29;
const LINE_SHIFT: u32 = if FROM_THE_TOP { u32::BITS - LINE_BITS } else { 0 };
const LINE_MASK: u32 = (1 << LINE_BITS) - 1;
const PARSE_PCRE: u32 = field(LINE_BITS);
const PROHIBIT_INCLUDE: u32 = field(LINE_BITS + 1);
const QUOTED: u32 = field(LINE_BITS + 2);
const NO_ESCAPES: u8 = if FROM_THE_TOP { 0x80 } else { 1 };
const NO_WARNINGS: u8 = if FROM_THE_TOP { 0x40 } else { 2 };

/// The mask of a one-bit field that has `before` bits before it.
const fn field(before: u32) -> u32 {
    if FROM_THE_TOP {
        1 << (u32::BITS - 1 - before)
    } else {
        1 << before
    }
}

/// In `env_valid`: this reader is our own, and an error ends the process cleanly.
const OURS: i32 = 2;

impl Sym {
    pub(super) fn new() -> Box<Sym> {
        Box::new(Sym {
            filename: ptr::null(),
            buf: [0; TEXT_SIZE],
            start: ptr::null(),
            raw: ptr::null(),
            pos: 0,
            bits: 0,
            more_bits: 0,
            ch: [0; 4],
            chlen: 0,
            code: Code(0),
            input: ptr::null(),
            len: 0,
            tin: ptr::null(),
            tlen: 0,
            env: JumpBuffer::EMPTY,
            env_valid: 0,
            token_chain: Handle::NONE,
            next: Handle::NONE,
        })
    }

    /// Text of the current token.
    pub(super) fn text(&self) -> &[u8] {
        &self.buf[..(self.pos as usize).min(TEXT_SIZE)]
    }

    /// The current token's number.
    pub fn token(&self) -> Code {
        self.code
    }

    /// The current token's text as C code sees it, up to the first NUL.
    pub fn c_text(&self) -> &[u8] {
        let end = memchr::memchr(0, &self.buf).unwrap_or(TEXT_SIZE);
        &self.buf[..end]
    }

    /// Makes a text in C code's memory the input.
    pub fn read_text(&mut self, start: *const u8, length: usize) {
        self.input = start;
        self.raw = start;
        self.start = ptr::null();
        self.tin = start;
        self.len = i32::try_from(length).unwrap_or(i32::MAX);
        self.tlen = self.len;
        self.chlen = 0;
        self.set_line(0);
    }

    /// Starts to read `source`.
    pub(super) fn read_from(&mut self, source: &Source) {
        self.filename = source.c_name.as_ptr();
        self.input = source.text.as_ptr();
        self.raw = self.input;
        self.start = ptr::null();
        self.len = source.text.len() as i32;
        self.tin = self.input;
        self.tlen = self.len;
        self.chlen = 0;
        self.set_line(0);
    }

    pub(super) fn mark_as_ours(&mut self) {
        self.env_valid = OURS;
    }

    /// True if the reader is our own, not made by C code.
    pub fn is_ours(&self) -> bool {
        self.env_valid == OURS
    }

    /// The reader, made by C code, that goes on after this one.
    pub fn outer(&self) -> Option<*mut Sym> {
        self.next.address().map(|address| address.cast())
    }

    /// The jmp_buf that C code has filled, if it has. Our own readers always have `env_valid` set,
    /// because C code may rely on that; there, only the contents show whether it was filled. There
    /// it is used once, because programs that fill it for one statement leave it behind when their
    /// function returns.
    pub fn take_jump_target(&mut self) -> Option<JumpBuffer> {
        let empty = JumpBuffer::EMPTY;
        let target = self.env;
        if self.env_valid == 0 || target == empty {
            return None;
        }
        if self.is_ours() {
            self.env = empty;
        }
        Some(target)
    }

    /// The input as C code has set it: its start and length.
    pub fn input(&self) -> (*const u8, usize) {
        (self.input, usize::try_from(self.len).unwrap_or(0))
    }

    /// The name of the input as C code has set it.
    pub fn name(&self) -> *const c_char {
        self.filename
    }

    /// Empties the text.
    pub(super) fn clear_text(&mut self) {
        self.pos = 0;
        self.buf[0] = 0;
    }

    /// Appends to the text; false if it does not fit.
    pub(super) fn push_text(&mut self, bytes: &[u8]) -> bool {
        let (from, to) = (self.pos as usize, self.pos as usize + bytes.len());
        if to >= TEXT_SIZE {
            return false;
        }
        self.buf[from..to].copy_from_slice(bytes);
        self.buf[to] = 0;
        self.pos = to as u32;
        true
    }

    pub(super) fn line(&self) -> u32 {
        self.bits >> LINE_SHIFT & LINE_MASK
    }

    pub(super) fn set_line(&mut self, line: u32) {
        self.bits = (self.bits & !(LINE_MASK << LINE_SHIFT)) | (line & LINE_MASK) << LINE_SHIFT;
    }

    /// True if a slash at the start of a token begins a PCRE.
    pub(super) fn parses_pcre(&self) -> bool {
        self.bits & PARSE_PCRE != 0
    }

    pub(super) fn set_parses_pcre(&mut self, on: bool) {
        self.bits = if on { self.bits | PARSE_PCRE } else { self.bits & !PARSE_PCRE };
    }

    /// True if `include` is an ordinary word.
    pub(super) fn prohibits_include(&self) -> bool {
        self.bits & (PROHIBIT_INCLUDE | PARSE_PCRE) != 0
    }

    /// True if a backslash in a quoted string stands for itself.
    pub(super) fn noescape(&self) -> bool {
        self.more_bits & NO_ESCAPES != 0
    }

    pub(super) fn quoted(&self) -> bool {
        self.bits & QUOTED != 0
    }

    pub(super) fn set_quoted(&mut self, on: bool) {
        self.bits = if on { self.bits | QUOTED } else { self.bits & !QUOTED };
    }

    /// True if unknown escapes are not reported (in skipped sections).
    pub(super) fn nowarn(&self) -> bool {
        self.more_bits & NO_WARNINGS != 0
    }

    pub(super) fn set_nowarn(&mut self, on: bool) {
        self.more_bits =
            if on { self.more_bits | NO_WARNINGS } else { self.more_bits & !NO_WARNINGS };
    }

    /// Bytes of the input that have been read.
    pub(super) fn read(&self) -> usize {
        usize::try_from(self.len.saturating_sub(self.tlen)).unwrap_or(0)
    }

    /// Offset of the current character in the input.
    pub(super) fn offset(&self) -> usize {
        (self.start as usize).saturating_sub(self.input as usize)
    }

    /// Offset of the current token in the input.
    pub(super) fn token_offset(&self) -> usize {
        (self.raw as usize).saturating_sub(self.input as usize)
    }
}
