//! The lexer: bytes to tokens, with aliases, includes and environment variables.

use super::common::Common;
use super::report::Report;
use super::source::Source;
use super::sym::Sym;
use super::token::*;
use super::{ConfigError, Position};
use crate::os::{files, log};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::rc::Rc;

/// How deep includes may nest. A file that includes itself gets here.
const MAX_INCLUDE_DEPTH: usize = 32;

/// Tells a worker that reads its configuration from shared memory what `$CONFDIR` is.
pub const DIRECTORY_VARIABLE: &str = "TCPRELAY_CONFDIR";

/// A token of an alias.
#[derive(Clone, Debug)]
struct AliasToken {
    code: Code,
    text: Vec<u8>,
    quoted: bool,
}

/// An alias that is being read from.
#[derive(Debug)]
struct Expansion {
    name: Rc<[u8]>,
    tokens: Rc<[AliasToken]>,
    next: usize,
}

/// Where an including file goes on.
struct Suspended {
    source: Rc<Source>,
    start: usize,
    tlen: i32,
    ch: [u8; 4],
    chlen: u8,
    line: u32,
    depth: usize,
}

/// A reader of tokens. One token is always loaded: [`code`](Self::code) and
/// [`text`](Self::text).
pub struct Parser<'a> {
    pub(super) sym: Box<Sym>,
    pub(super) report: &'a Report,
    /// What the common directives have set so far.
    pub common: Common,
    source: Rc<Source>,
    suspended: Vec<Suspended>,
    /// How many includes lead to the current source.
    depth: usize,
    aliases: HashMap<Rc<[u8]>, Rc<[AliasToken]>>,
    expansions: Vec<Expansion>,
    /// An alias that stands for nothing was used.
    pub(super) used_empty_alias: bool,
    directory: String,
}

impl<'a> Parser<'a> {
    /// A parser at the first token of `source`.
    pub fn new(source: Source, report: &'a Report) -> Result<Parser<'a>, ConfigError> {
        let directory = match source.name.rfind('/') {
            // A copy in shared memory stands for a file elsewhere.
            _ if source.name.starts_with("ipc://") => {
                std::env::var(DIRECTORY_VARIABLE).unwrap_or_else(|_| "./".to_owned())
            }
            Some(slash) => source.name[..=slash].to_owned(),
            None => "./".to_owned(),
        };
        let source = Rc::new(source);
        let mut parser = Parser {
            sym: Sym::new(),
            report,
            common: Common::default(),
            source: Rc::clone(&source),
            suspended: Vec::new(),
            depth: 0,
            aliases: HashMap::new(),
            expansions: Vec::new(),
            used_empty_alias: false,
            directory,
        };
        parser.enter(source);
        parser.advance()?;
        Ok(parser)
    }

    /// The number of the current token.
    pub fn code(&self) -> Code {
        self.sym.code
    }

    /// The text of the current token.
    pub fn text(&self) -> &[u8] {
        self.sym.text()
    }

    /// The text of the current token for messages and for values that are text.
    pub fn text_lossy(&self) -> String {
        String::from_utf8_lossy(self.sym.text()).into_owned()
    }

    /// True if the current token is this word, unquoted, whether it is reserved or not.
    pub fn is_word(&self, word: &str) -> bool {
        !self.sym.quoted() && self.sym.code != S_eof && self.sym.text() == word.as_bytes()
    }

    /// The place of the current token.
    pub fn position(&self) -> Position {
        Position::new(Rc::clone(&self.source), self.sym.token_offset())
    }

    /// An error at the current token.
    pub fn error(&self, message: impl Into<String>) -> ConfigError {
        ConfigError { position: self.position(), message: message.into() }
    }

    /// In a section that is skipped unknown escapes are not reported.
    pub(super) fn set_quiet(&mut self, on: bool) {
        self.sym.set_nowarn(on);
    }

    fn enter(&mut self, source: Rc<Source>) {
        let sym = &mut self.sym;
        sym.filename = source.c_name.as_ptr();
        sym.input = source.text.as_ptr();
        sym.raw = sym.input;
        sym.len = source.text.len() as i32;
        sym.tin = sym.input;
        sym.tlen = sym.len;
        sym.set_line(0);
        self.source = source;
        self.next_character();
    }

    /// Goes back to the including file; false at the end of the outermost one.
    fn leave(&mut self) -> bool {
        let Some(outer) = self.suspended.pop() else {
            return false;
        };
        let sym = &mut self.sym;
        sym.filename = outer.source.c_name.as_ptr();
        sym.input = outer.source.text.as_ptr();
        sym.len = outer.source.text.len() as i32;
        sym.tlen = outer.tlen;
        sym.tin = sym.input.wrapping_add((sym.len - sym.tlen) as usize);
        sym.start = sym.input.wrapping_add(outer.start);
        sym.raw = sym.start;
        sym.ch = outer.ch;
        sym.chlen = outer.chlen;
        sym.set_line(outer.line);
        self.source = outer.source;
        self.depth = outer.depth;
        true
    }

    /// Loads the next character: one byte, or a well-formed UTF-8 sequence. At the end `chlen`
    /// is 0.
    fn next_character(&mut self) {
        let sym = &mut self.sym;
        if sym.chlen == 1 && sym.ch[0] == b'\n' && !sym.start.is_null() {
            sym.set_line(sym.line() + 1);
        }
        let offset = (sym.len - sym.tlen) as usize;
        let rest = &self.source.text[offset..];
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
        if let Some(byte @ (0 | 0xff)) = self.byte() {
            return Err(self.bad_byte(byte));
        }
        let (ch, length) = (self.sym.ch, self.sym.chlen as usize);
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
        let position = Position::new(Rc::clone(&self.source), self.sym.offset());
        ConfigError { position, message: format!("Byte 0x{byte:02x} is not allowed here") }
    }

    /// Advances to the next token: aliases replaced, includes entered.
    pub fn advance(&mut self) -> Result<(), ConfigError> {
        loop {
            self.next_token()?;
            self.report.trace(|| {
                format!(
                    "file={} line={} sym=[{}] buf='{}'",
                    self.source.name,
                    self.position().line(),
                    self.sym.code.text(),
                    self.text_lossy()
                )
            });
            if self.sym.code == S_string && self.expand_alias()? {
                continue;
            }
            if self.sym.quoted() {
                return Ok(());
            }
            match self.sym.code {
                S_include => self.include()?,
                S_regex_match_case => {
                    self.next_token()?;
                    self.expect_here(S_equal)?;
                    self.next_token()?;
                    self.boolean_here()?;
                }
                _ => return Ok(()),
            }
        }
    }

    fn expect_here(&self, code: Code) -> Result<(), ConfigError> {
        if self.sym.code == code {
            Ok(())
        } else {
            Err(self.expected(&[code]))
        }
    }

    /// The next token of an alias that is being read from, or else of the input.
    fn next_token(&mut self) -> Result<(), ConfigError> {
        while let Some(expansion) = self.expansions.last_mut() {
            if let Some(token) = expansion.tokens.get(expansion.next) {
                expansion.next += 1;
                let token = token.clone();
                self.sym.code = token.code;
                self.sym.set_quoted(token.quoted);
                self.sym.clear_text();
                self.sym.push_text(&token.text);
                return Ok(());
            }
            self.expansions.pop();
        }
        self.lex()
    }

    /// Reads one token from the input.
    fn lex(&mut self) -> Result<(), ConfigError> {
        self.sym.clear_text();
        self.sym.set_quoted(false);
        loop {
            self.sym.raw = self.sym.start;
            if self.at_end() {
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
                    // A single one is white space.
                }
                Some(byte) if single(byte).is_some() => {
                    self.push(&[byte])?;
                    self.next_character();
                    self.sym.code = single(byte).unwrap_or(S_string);
                    return Ok(());
                }
                Some(quote @ (b'"' | b'\'')) => return self.lex_quoted(quote),
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
                let position = Position::new(Rc::clone(&self.source), self.sym.offset());
                return Err(ConfigError { position, message: "EOF unexpected".into() });
            }
            match self.byte() {
                Some(byte) if byte == quote => break,
                Some(b'\\') => {
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

    /// What follows a backslash.
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
                    self.report.message(log::Severity::INFO, &text);
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
        if value as u8 == 0 {
            return Err(self.error("A NUL character is not allowed in a string"));
        }
        self.push(&[value as u8])
    }

    /// Replaces `${NAME}` by the environment variable if it is set. The value is not looked at
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
            match environment_variable(name) {
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

    fn expand_alias(&mut self) -> Result<bool, ConfigError> {
        let Some((name, tokens)) = self.aliases.get_key_value(self.sym.text()) else {
            return Ok(false);
        };
        if self.expansions.iter().any(|expansion| expansion.name == *name) {
            let text = format!("alias '{}' refers to itself", self.text_lossy());
            return Err(self.error(text));
        }
        self.used_empty_alias |= tokens.is_empty();
        let expansion = Expansion { name: Rc::clone(name), tokens: Rc::clone(tokens), next: 0 };
        self.expansions.push(expansion);
        Ok(true)
    }

    /// `alias [=] NAME { tokens }`, with the token `alias` current. Ends on the token after the
    /// closing brace; the end of the input ends a definition as well.
    pub(super) fn define_alias(&mut self) -> Result<(), ConfigError> {
        self.advance()?;
        self.accept(S_equal)?;
        let name: Rc<[u8]> = self.text().into();
        self.advance()?;
        self.expect(S_openbra)?;
        let mut tokens = Vec::new();
        let mut depth = 0;
        while self.code() != S_eof {
            match self.code() {
                S_openbra => depth += 1,
                S_closebra if depth == 0 => break,
                S_closebra => depth -= 1,
                _ => {}
            }
            tokens.push(AliasToken {
                code: self.code(),
                text: self.text().to_vec(),
                quoted: self.sym.quoted(),
            });
            self.advance()?;
        }
        self.aliases.insert(name, tokens.into());
        self.accept(S_closebra).map(drop)
    }

    /// `include [=] PATTERN`, with the token `include` current. The next token to be read is
    /// the first of the files.
    fn include(&mut self) -> Result<(), ConfigError> {
        self.next_token()?;
        if self.sym.code == S_equal {
            self.next_token()?;
        }
        let position = self.position();
        let mut pattern = self.text().to_vec();
        if let Some(rest) = pattern.strip_prefix(b"$CONFDIR/") {
            pattern = [self.directory.as_bytes(), rest].concat();
        }
        // A URL may have a query, which is no pattern.
        let url = memchr::memmem::find(&pattern, b"://").is_some();
        let found = if url {
            Ok(vec![OsStr::from_bytes(&pattern).into()])
        } else {
            files::glob(OsStr::from_bytes(&pattern))
        };
        let names = match found {
            Ok(paths) => paths,
            Err(failure) => {
                let reason = crate::os::reason(&failure.error);
                let path = failure.path.display();
                let text = format!("{position}: glob({path}): {reason}");
                self.report.message(log::Severity::ERROR, &text);
                return Ok(());
            }
        };
        if self.depth >= MAX_INCLUDE_DEPTH {
            let message = format!(
                "include: more than {MAX_INCLUDE_DEPTH} files deep; does '{}' include itself?",
                String::from_utf8_lossy(&pattern)
            );
            return Err(ConfigError { position, message });
        }
        let depth = self.depth + 1;
        // The last file is entered first, and left last.
        for name in names.into_iter().rev() {
            let name = String::from_utf8_lossy(&name.into_os_string().into_vec()).into_owned();
            match Source::open(&name) {
                Ok(source) => {
                    self.suspended.push(Suspended {
                        source: Rc::clone(&self.source),
                        start: self.sym.offset(),
                        tlen: self.sym.tlen,
                        ch: self.sym.ch,
                        chlen: self.sym.chlen,
                        line: self.sym.line(),
                        depth: self.depth,
                    });
                    self.enter(Rc::new(source));
                    self.depth = depth;
                }
                Err(error) => {
                    let reason = crate::os::reason(&error);
                    let text = format!("Couldn't open {name}: {reason}");
                    self.report.message(log::Severity::ERROR, &text);
                }
            }
        }
        Ok(())
    }
}

fn environment_variable(name: &OsStr) -> Option<Vec<u8>> {
    // std::env::var_os refuses such names by panicking.
    if name.is_empty() || name.as_bytes().iter().any(|&b| b == b'=' || b == 0) {
        return None;
    }
    std::env::var_os(name).map(OsStringExt::into_vec)
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All tokens of a text, or the error.
    fn tokens(text: &[u8]) -> Result<Vec<(Code, Vec<u8>)>, ConfigError> {
        let report = Report { parse_only: true, ..Report::default() };
        let mut parser = Parser::new(Source::new("test.cfg", text.to_vec()), &report)?;
        let mut found = Vec::new();
        while parser.code() != S_eof {
            found.push((parser.code(), parser.text().to_vec()));
            parser.advance()?;
        }
        Ok(found)
    }

    fn texts(text: &str) -> Vec<String> {
        let tokens = tokens(text.as_bytes()).expect("valid");
        tokens.into_iter().map(|(_, text)| String::from_utf8_lossy(&text).into_owned()).collect()
    }

    #[test]
    fn words_quotes_and_delimiters() {
        assert_eq!(
            texts("a=b,{c}!(d)[e] && || & | #x\n~"),
            ["a", "=", "b", ",", "{", "c", "}", "!", "(", "d", ")", "[", "e", "]", "&&", "||", "~"]
        );
        assert_eq!(
            texts(r#"a"b"c "a\tb\101\"" 'x"y' 3001#c"#),
            ["a\"b\"c", "a\tbA\"", "x\"y", "3001#c"]
        );
        let found = tokens(b"port \"port\" Port").expect("valid");
        assert_eq!(
            found.iter().map(|(code, _)| *code).collect::<Vec<_>>(),
            [S_port, S_string, S_string]
        );
    }

    #[test]
    fn errors_name_the_line_of_the_word() {
        for (text, line) in
            [(&b"a\n\n\0"[..], 3), (b"a\n\"b\n", 3), (b"\xff", 1), (b"# \xff\n \xff", 2)]
        {
            let error = tokens(text).expect_err("refused");
            assert_eq!(error.position.line(), line, "{error}");
        }
    }

    #[test]
    fn a_variable_that_is_too_long_is_an_error() {
        // The text before the variable is shorter than what the message shows of it.
        std::env::set_var("TCPRELAY_TEST_LONG", "x".repeat(70_000));
        let error = tokens(b"\"a${TCPRELAY_TEST_LONG}\"").expect_err("refused");
        assert!(error.message.starts_with("Line too long"), "{error}");
    }

    #[test]
    fn aliases_do_not_recurse() {
        let report = Report { parse_only: true, ..Report::default() };
        let mut parser =
            Parser::new(Source::new("t", b"alias A { A x }".to_vec()), &report).expect("valid");
        parser.define_alias().expect("a definition");
        let text = Source::new("t", b"alias A { B } alias B { A } A".to_vec());
        let mut parser = Parser::new(text, &report).expect("valid");
        parser.define_alias().expect("a definition");
        assert!(parser.define_alias().is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_end(text in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assume!(memchr::memmem::find(&text, b"include").is_none());
            let _ = tokens(&text);
        }
    }
}
