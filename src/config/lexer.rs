//! The lexer: bytes to tokens, with aliases, includes and environment variables.

use super::effect::Effect;
use super::environment::{AliasToken, Environment, Expansion, Handle, Suspended};
use super::source::Source;
use super::sym::Sym;
use super::system;
use super::token::*;
use super::values::BOOLEANS;
use super::{ConfigError, Position};
use crate::os::log::Severity;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::rc::Rc;

/// How deep includes may nest. A file that includes itself runs into this limit.
const MAX_INCLUDE_DEPTH: usize = 32;

/// The text that a [`Sym`] reads.
#[derive(Clone)]
pub(super) enum Input<'a> {
    /// A source that the environment keeps.
    Ours(Rc<Source>),
    /// The text of a C program.
    Foreign(&'a [u8]),
}

impl<'a> Input<'a> {
    /// The input of `sym`: a source that the environment keeps, or else `foreign`, the text of C
    /// code.
    pub(super) fn of(sym: &Sym, environment: &Environment, foreign: &'a [u8]) -> Input<'a> {
        match environment.source_at(sym.input) {
            Some(source) => Input::Ours(source),
            None => Input::Foreign(foreign),
        }
    }

    fn text(&self) -> &[u8] {
        match self {
            Input::Ours(source) => &source.text,
            Input::Foreign(text) => text,
        }
    }

    /// As a source; the text of a C program is copied.
    pub(super) fn source(&self, name: &str) -> Rc<Source> {
        match self {
            Input::Ours(source) => Rc::clone(source),
            Input::Foreign(text) => Rc::new(Source::new(name, text.to_vec())),
        }
    }
}

/// One step of reading: a [`Sym`] with the data it refers to.
pub(super) struct Lexer<'a> {
    pub(super) sym: &'a mut Sym,
    pub(super) environment: &'a mut Environment,
    pub(super) input: Input<'a>,
    /// The name of the input, if the text is C code's.
    pub(super) name: &'a str,
}

impl Lexer<'_> {
    /// Starts at the first character of the input.
    pub(super) fn start(&mut self) {
        self.sym.start = std::ptr::null();
        if self.sym.next.address().is_none() {
            self.sym.next = Handle::NONE;
        }
        self.sym.token_chain = Handle::NONE;
        self.environment.begin();
        self.next_character();
    }

    fn expand(&mut self, expansion: Expansion) -> Result<(), ConfigError> {
        match self.environment.expand(expansion) {
            Some(handle) => self.sym.token_chain = handle,
            None => return Err(self.error("aliases stand for too many words")),
        }
        Ok(())
    }

    fn say(&mut self, severity: Severity, text: String) {
        self.environment.effects.push(Effect::Message(severity, text));
    }

    fn environment_variable(&self, name: &OsStr) -> Option<Vec<u8>> {
        // No variable can have such a name, and asking for it panics on some systems.
        if name.is_empty() || name.as_bytes().iter().any(|&b| b == b'=' || b == 0) {
            return None;
        }
        self.environment.variable(name).map(OsStringExt::into_vec)
    }

    fn error(&self, message: impl Into<String>) -> ConfigError {
        ConfigError { position: self.position(self.sym.token_offset()), message: message.into() }
    }

    fn position(&self, offset: usize) -> Position {
        Position::new(self.input.source(self.name), offset)
    }

    fn enter(&mut self, source: Rc<Source>) {
        self.environment.add_source(Rc::clone(&source));
        self.sym.read_from(&source);
        self.input = Input::Ours(source);
        self.next_character();
    }

    /// Goes back to the including file; false at the end of the outermost one.
    fn leave(&mut self) -> bool {
        let Some(outer) = self.environment.suspended(self.sym.next).cloned() else {
            return false;
        };
        let sym = &mut *self.sym;
        sym.filename = outer.filename;
        sym.input = outer.input;
        sym.len = outer.source.text.len() as i32;
        sym.tlen = outer.tlen;
        sym.tin = sym.input.wrapping_add((sym.len - sym.tlen) as usize);
        sym.start = sym.input.wrapping_add(outer.start);
        sym.raw = sym.start;
        sym.ch = outer.ch;
        sym.chlen = outer.chlen;
        sym.set_line(outer.line);
        sym.next = outer.outer;
        self.input = Input::Ours(outer.source);
        true
    }

    /// How many includes lead to the current source.
    fn depth(&self) -> usize {
        self.environment.suspended(self.sym.next).map_or(0, |outer| outer.depth + 1)
    }

    /// Loads the next character: one byte, or a well-formed UTF-8 sequence. At the end `chlen`
    /// is 0.
    fn next_character(&mut self) {
        let sym = &mut *self.sym;
        if sym.chlen == 1 && sym.ch[0] == b'\n' && !sym.start.is_null() {
            sym.set_line(sym.line() + 1);
        }
        let text = self.input.text();
        let offset = sym.read().min(text.len());
        let rest = &text[offset..];
        let length = character_length(rest);
        sym.start = sym.input.wrapping_add(offset);
        sym.ch[..length].copy_from_slice(&rest[..length]);
        sym.chlen = length as u8;
        sym.tlen -= length as i32;
        sym.tin = sym.start.wrapping_add(length);
    }

    /// The current character if it is a single byte.
    fn byte(&self) -> Option<u8> {
        (self.sym.chlen == 1).then_some(self.sym.ch[0])
    }

    fn at_end(&self) -> bool {
        self.sym.chlen == 0
    }

    fn push_character(&mut self) -> Result<(), ConfigError> {
        if let (Some(byte @ (0 | 0xff)), Input::Ours(_)) = (self.byte(), &self.input) {
            return Err(self.bad_byte(byte));
        }
        let (ch, length) = (self.sym.ch, usize::from(self.sym.chlen).min(4));
        self.push(&ch[..length])?;
        self.next_character();
        Ok(())
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), ConfigError> {
        if self.sym.push_text(bytes) {
            return Ok(());
        }
        let text = self.sym.text();
        let head = String::from_utf8_lossy(&text[..text.len().min(64)]).into_owned();
        Err(self.error(format!("Line too long: '{head}...'")))
    }

    fn bad_byte(&self, byte: u8) -> ConfigError {
        let position = self.position(self.sym.offset());
        ConfigError { position, message: format!("Byte 0x{byte:02x} is not allowed here") }
    }

    fn unexpected(&self, what: &str) -> ConfigError {
        let position = self.position(self.sym.offset());
        ConfigError { position, message: format!("{what} unexpected") }
    }

    /// Advances to the next token: aliases replaced, includes entered.
    pub(super) fn advance(&mut self) -> Result<(), ConfigError> {
        loop {
            self.next_token()?;
            let Lexer { sym, environment, input, name } = self;
            environment.trace(|| {
                let position = Position::new(input.source(name), sym.token_offset());
                format!(
                    "file={} line={} sym=[{}] buf='{}'",
                    position.file(),
                    position.line(),
                    sym.code.text(),
                    String::from_utf8_lossy(sym.text())
                )
            });
            if self.sym.code == S_string && self.expand_alias()? {
                continue;
            }
            if self.sym.quoted() {
                return Ok(());
            }
            match self.sym.code {
                S_openbra => self.environment.case.open(),
                S_closebra => self.environment.case.close(),
                S_include if !self.sym.prohibits_include() => {
                    self.include()?;
                    continue;
                }
                S_regex_match_case => {
                    self.next_token()?;
                    if self.sym.code != S_equal {
                        return Err(self.expected(&[S_equal]));
                    }
                    self.next_token()?;
                    match self.sym.code.boolean() {
                        Some(yes) => self.environment.case.matters(yes),
                        None => return Err(self.expected(&BOOLEANS)),
                    }
                    continue;
                }
                _ => {}
            }
            return Ok(());
        }
    }

    fn expected(&self, codes: &[Code]) -> ConfigError {
        let words: Vec<&str> = codes.iter().map(|code| code.text()).collect();
        self.error(super::values::expected(&words, self.sym.text()))
    }

    /// The next token of an alias that is being read from, or else of the input.
    fn next_token(&mut self) -> Result<(), ConfigError> {
        while let Some(expansion) = self.environment.expansion(self.sym.token_chain) {
            let mut expansion = expansion.clone();
            if let Some(AliasToken { code, text, quoted }) = expansion.tokens.get(expansion.next) {
                self.sym.code = *code;
                self.sym.set_quoted(*quoted);
                self.sym.clear_text();
                self.sym.push_text(text);
                // Push a new entry: a copy of the reader may still refer to the old one.
                expansion.next += 1;
                return self.expand(expansion);
            }
            self.sym.token_chain = expansion.outer;
        }
        self.lex()
    }

    fn expand_alias(&mut self) -> Result<bool, ConfigError> {
        let aliases = &self.environment.aliases;
        let Some((name, tokens)) = aliases.get_key_value(self.sym.text()) else {
            return Ok(false);
        };
        let (name, tokens) = (Rc::clone(name), Rc::clone(tokens));
        let mut outer = self.sym.token_chain;
        while let Some(expansion) = self.environment.expansion(outer) {
            if expansion.name == name {
                let name = String::from_utf8_lossy(&name);
                return Err(self.error(format!("alias '{name}' refers to itself")));
            }
            outer = expansion.outer;
        }
        self.environment.used_empty_alias |= tokens.is_empty();
        let outer = self.sym.token_chain;
        self.expand(Expansion { name, tokens, next: 0, outer })?;
        Ok(true)
    }

    /// Reads one token from the input.
    fn lex(&mut self) -> Result<(), ConfigError> {
        self.sym.clear_text();
        self.sym.set_quoted(false);
        loop {
            self.sym.raw = self.sym.start;
            // The text of a C program ends with NUL, or with getc(3)'s EOF.
            let foreign = matches!(self.input, Input::Foreign(_));
            if self.at_end() || foreign && matches!(self.byte(), Some(0 | 0xff)) {
                if self.leave() {
                    continue;
                }
                self.sym.code = S_eof;
                return Ok(());
            }
            match self.byte() {
                Some(b' ' | b'\t' | b'\r' | b'\n') => self.next_character(),
                Some(b'#') => {
                    while !self.at_end() && !matches!(self.byte(), Some(b'\n' | b'\r')) {
                        self.next_character();
                    }
                }
                Some(byte @ (b'&' | b'|')) => {
                    self.next_character();
                    if self.byte() == Some(byte) {
                        self.next_character();
                        self.push(&[byte, byte])?;
                        self.sym.code = if byte == b'&' { S_and } else { S_or };
                        return Ok(());
                    }
                    // A single `&` or `|` is white space.
                }
                Some(byte) if single(byte).is_some() => {
                    self.push(&[byte])?;
                    self.next_character();
                    self.sym.code = single(byte).unwrap_or(S_string);
                    return Ok(());
                }
                Some(quote @ (b'"' | b'\'')) => return self.lex_quoted(quote),
                Some(b'/') if self.sym.parses_pcre() => return self.lex_pcre(),
                _ => return self.lex_word(),
            }
        }
    }

    fn lex_word(&mut self) -> Result<(), ConfigError> {
        while !self.at_end() {
            if let Some(byte) = self.byte() {
                if b" \t\r\n|&".contains(&byte) || single(byte).is_some() {
                    break;
                }
            }
            self.push_character()?;
        }
        self.sym.code = Code::of(self.sym.text());
        Ok(())
    }

    fn lex_quoted(&mut self, quote: u8) -> Result<(), ConfigError> {
        self.sym.set_quoted(true);
        self.next_character();
        loop {
            if self.at_end() {
                return Err(self.unexpected("EOF"));
            }
            match self.byte() {
                Some(byte) if byte == quote => break,
                Some(b'\\') if !self.sym.noescape() => {
                    self.next_character();
                    self.lex_escape()?;
                }
                _ => self.push_character()?,
            }
        }
        self.next_character();
        self.sym.code = S_string;
        self.expand_environment()
    }

    /// `/PATTERN/`, where `\/` is a slash and `\\` a backslash. Any other escape is passed to PCRE.
    fn lex_pcre(&mut self) -> Result<(), ConfigError> {
        self.next_character();
        loop {
            match self.byte() {
                _ if self.at_end() => return Err(self.unexpected("EOF")),
                Some(b'\r' | b'\n') => return Err(self.unexpected("EOL")),
                Some(b'/') => break,
                Some(b'\\') => {
                    self.next_character();
                    if !matches!(self.byte(), Some(b'/' | b'\\')) {
                        self.push(b"\\")?;
                        continue;
                    }
                    self.push_character()?;
                }
                _ => self.push_character()?,
            }
        }
        self.next_character();
        self.sym.code = S_slash;
        Ok(())
    }

    /// Reads the escape after a backslash.
    fn lex_escape(&mut self) -> Result<(), ConfigError> {
        let escaped = match self.byte() {
            Some(b'a') => 7,
            Some(b'b') => 8,
            Some(b'e') => 27,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'v') => 11,
            Some(byte @ (b'\\' | b'"' | b'\'')) => byte,
            Some(b'0'..=b'7') => return self.lex_octal(),
            _ if self.at_end() => return Ok(()),
            _ => {
                if !self.sym.nowarn() {
                    let ch = &self.sym.ch[..self.sym.chlen as usize];
                    let text =
                        format!("Unknown escape sequence '\\{}'", String::from_utf8_lossy(ch));
                    self.say(Severity::INFO, text);
                }
                self.next_character();
                return Ok(());
            }
        };
        self.push(&[escaped])?;
        self.next_character();
        Ok(())
    }

    fn lex_octal(&mut self) -> Result<(), ConfigError> {
        let mut value = 0u32;
        for _ in 0..3 {
            match self.byte() {
                Some(digit @ b'0'..=b'7') => {
                    value = value * 8 + u32::from(digit - b'0');
                    self.next_character();
                }
                _ => break,
            }
        }
        if value as u8 == 0 && matches!(self.input, Input::Ours(_)) {
            return Err(self.error("A NUL character is not allowed in a string"));
        }
        self.push(&[value as u8])
    }

    /// Replaces `${NAME}` by the environment variable if it is set. The value is not expanded
    /// again.
    fn expand_environment(&mut self) -> Result<(), ConfigError> {
        if memchr::memmem::find(self.sym.text(), b"${").is_none() {
            return Ok(());
        }
        let text = self.sym.text().to_vec();
        self.sym.clear_text();
        let mut rest = &text[..];
        while let Some(at) = memchr::memmem::find(rest, b"${") {
            let Some(length) = memchr::memchr(b'}', &rest[at + 2..]) else {
                break;
            };
            let name = OsStr::from_bytes(&rest[at + 2..at + 2 + length]);
            let end = at + 2 + length + 1;
            match self.environment_variable(name) {
                Some(value) => {
                    self.push(&rest[..at])?;
                    self.push(&value)?;
                }
                None => self.push(&rest[..end])?,
            }
            rest = &rest[end..];
        }
        self.push(rest)
    }

    /// `include [=] PATTERN`, with the token `include` current. The next token comes from the first
    /// file that matches.
    fn include(&mut self) -> Result<(), ConfigError> {
        self.next_token()?;
        if self.sym.code == S_equal {
            self.next_token()?;
        }
        let position = self.position(self.sym.token_offset());
        let mut pattern = self.sym.text().to_vec();
        if let Some(rest) = pattern.strip_prefix(b"$CONFDIR/") {
            pattern = [self.environment.directory.as_bytes(), rest].concat();
        }
        // A URL may have a query, so its `?` is not a pattern.
        let url = memchr::memmem::find(&pattern, b"://").is_some();
        let found = if url {
            Ok(vec![OsStr::from_bytes(&pattern).into()])
        } else {
            self.environment.system().glob(OsStr::from_bytes(&pattern))
        };
        let names = match found {
            Ok(paths) => paths,
            Err((path, error)) => {
                let reason = crate::os::reason(&error);
                let path = path.display();
                let text = format!("{position}: glob({path}): {reason}");
                self.say(Severity::ERROR, text);
                return Ok(());
            }
        };
        let depth = self.depth();
        if depth >= MAX_INCLUDE_DEPTH {
            let message = format!(
                "include: more than {MAX_INCLUDE_DEPTH} files deep; does '{}' include itself?",
                String::from_utf8_lossy(&pattern)
            );
            return Err(ConfigError { position, message });
        }
        // Enter the last file first, so that it is read last.
        for name in names.into_iter().rev() {
            let name = String::from_utf8_lossy(&name.into_os_string().into_vec()).into_owned();
            match system::open(&name, &*self.environment.system()) {
                Ok(source) => {
                    let outer = self.input.source(self.name);
                    self.sym.next = self.environment.suspend(Suspended {
                        source: outer,
                        input: self.sym.input,
                        filename: self.sym.filename,
                        start: self.sym.offset(),
                        tlen: self.sym.tlen,
                        ch: self.sym.ch,
                        chlen: self.sym.chlen,
                        line: self.sym.line(),
                        outer: self.sym.next,
                        depth,
                    });
                    self.enter(Rc::new(source));
                }
                Err(error) => {
                    let reason = crate::os::reason(&error);
                    let text = format!("Couldn't open {name}: {reason}");
                    self.say(Severity::ERROR, text);
                }
            }
        }
        Ok(())
    }
}

fn single(byte: u8) -> Option<Code> {
    Some(match byte {
        b'=' => S_equal,
        b',' => S_comma,
        b'{' => S_openbra,
        b'}' => S_closebra,
        b'!' => S_exclmark,
        b'(' => S_leftbra,
        b')' => S_rightbra,
        b'[' => S_leftsquarebra,
        b']' => S_rightsquarebra,
        _ => return None,
    })
}

/// Bytes of the first character: a well-formed UTF-8 sequence, or one byte; 0 at the end.
fn character_length(text: &[u8]) -> usize {
    let wanted = match text.first() {
        None => return 0,
        Some(0xc2..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf4) => 4,
        Some(_) => 1,
    };
    match text.get(..wanted) {
        Some(sequence) if std::str::from_utf8(sequence).is_ok() => wanted,
        _ => 1,
    }
}
