//! The parser: a reader of tokens, and what the grammar of each section is written with.

use super::common::Common;
use super::environment::{case, AliasToken, Environment, Shared};
use super::lexer::{Input, Lexer};
use super::report::Report;
use super::source::Source;
use super::sym::Sym;
use super::token::*;
use super::{ConfigError, Position};
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

/// The state of a reader: its own, or that of C code.
pub(super) enum Held<'a> {
    Own(Box<Sym>),
    Foreign(&'a mut Sym),
}

impl Deref for Held<'_> {
    type Target = Sym;

    fn deref(&self) -> &Sym {
        match self {
            Held::Own(sym) => sym,
            Held::Foreign(sym) => sym,
        }
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Sym {
        match self {
            Held::Own(sym) => sym,
            Held::Foreign(sym) => sym,
        }
    }
}

/// A reader of tokens. One token is always loaded: [`code`](Self::code) and
/// [`text`](Self::text).
pub struct Parser<'a> {
    pub(super) sym: Held<'a>,
    environment: Shared,
    pub(super) report: &'a Report,
    /// What the common directives have set so far.
    pub common: Common,
    /// Text and name of the input, if it is that of C code.
    foreign: (&'a [u8], &'a str),
    /// Blocks that are open before the current token.
    depth: u32,
    mistakes: Mistakes,
}

/// What becomes of a mistake in a directive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mistakes {
    /// The first one ends the reading.
    Fatal,
    /// They are reported, and reading goes on behind them: so many so far.
    Reported(u32),
}

/// Mistakes of one source that are reported; what follows the next one may be nonsense.
const MOST_MISTAKES: u32 = 10;

impl<'a> Parser<'a> {
    /// A parser at the first token of `source`.
    pub fn new(source: Source, report: &'a Report) -> Result<Parser<'a>, ConfigError> {
        let mut environment = Environment::new(&source.name);
        let source = Rc::new(source);
        environment.add_source(Rc::clone(&source));
        let mut sym = Sym::new();
        sym.read_from(&source);
        sym.mark_as_ours();
        let mut parser = Parser {
            sym: Held::Own(sym),
            environment: Rc::new(RefCell::new(environment)),
            report,
            common: Common::default(),
            foreign: (&[], ""),
            depth: 0,
            mistakes: Mistakes::Fatal,
        };
        case::reset();
        parser.start()?;
        Ok(parser)
    }

    /// A parser that goes on where C code is, in the [current](Environment::current) environment.
    /// `text` is the input of `sym`, `name` what C code calls it; both are only used if it is none
    /// of the environment's.
    pub fn resume(
        sym: &'a mut Sym,
        text: &'a [u8],
        name: &'a str,
        report: &'a Report,
    ) -> Parser<'a> {
        Parser {
            sym: Held::Foreign(sym),
            environment: Environment::current(),
            report,
            common: Common::default(),
            foreign: (text, name),
            depth: 0,
            mistakes: Mistakes::Fatal,
        }
    }

    fn lexer<T>(&mut self, step: impl FnOnce(&mut Lexer<'_>) -> T) -> T {
        let environment = Rc::clone(&self.environment);
        let mut environment = environment.borrow_mut();
        let input = Input::of(&self.sym, &environment, self.foreign.0);
        step(&mut Lexer {
            sym: &mut self.sym,
            environment: &mut environment,
            report: self.report,
            input,
            name: self.foreign.1,
        })
    }

    /// Loads the first character and the first token of the input.
    pub fn start(&mut self) -> Result<(), ConfigError> {
        self.lexer(|lexer| {
            lexer.start();
            lexer.advance()
        })
    }

    /// Advances to the next token: aliases replaced, includes entered.
    pub fn advance(&mut self) -> Result<(), ConfigError> {
        match self.code() {
            S_openbra => self.depth += 1,
            S_closebra => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.lexer(|lexer| lexer.advance())
    }

    /// From now on mistakes in directives are reported, and reading goes on behind them.
    pub(super) fn report_mistakes(&mut self) {
        self.mistakes = Mistakes::Reported(0);
    }

    /// True if a mistake has been reported: what was read is not to be used.
    pub fn has_reported(&self) -> bool {
        matches!(self.mistakes, Mistakes::Reported(1..))
    }

    /// Reads one directive. If that fails and mistakes are to be reported, reports it and goes to the
    /// next directive.
    pub(super) fn attempt(
        &mut self,
        directive: impl FnOnce(&mut Self) -> Result<(), ConfigError>,
    ) -> Result<(), ConfigError> {
        let depth = self.depth;
        let Err(error) = directive(self) else {
            return Ok(());
        };
        let Mistakes::Reported(before) = self.mistakes else {
            return Err(error);
        };
        // What is said of the end would only be what follows from this one.
        let ended = self.skip_directive(depth).is_err() || self.code() == S_eof;
        if ended || before + 1 == MOST_MISTAKES {
            return Err(error);
        }
        self.report.syntax(&error);
        self.mistakes = Mistakes::Reported(before + 1);
        Ok(())
    }

    /// Skips what is left of a directive that began in a block of this depth: up to the end of the
    /// block it has opened, the end of the block it is in, or the next line.
    fn skip_directive(&mut self, depth: u32) -> Result<(), ConfigError> {
        let line = self.position();
        loop {
            let at = self.position();
            let same_line = at.line() == line.line() && at.file() == line.file();
            match self.code() {
                S_eof => return Ok(()),
                S_closebra if self.depth <= depth => return Ok(()),
                _ if self.depth <= depth && !same_line => return Ok(()),
                _ => {}
            }
            let closes = self.code() == S_closebra && self.depth == depth + 1;
            self.advance()?;
            if closes {
                return Ok(());
            }
        }
    }

    /// The next token, without advancing to it.
    pub fn peek(&mut self) -> Result<Code, ConfigError> {
        let mut copy = self.sym.clone();
        let mut ahead = Parser {
            sym: Held::Foreign(&mut copy),
            environment: Rc::clone(&self.environment),
            report: self.report,
            common: Common::default(),
            foreign: self.foreign,
            depth: 0,
            mistakes: Mistakes::Fatal,
        };
        case::unchanged(|| ahead.advance())?;
        Ok(ahead.code())
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
        let environment = self.environment.borrow();
        let input = Input::of(&self.sym, &environment, self.foreign.0);
        Position::new(input.source(self.foreign.1), self.sym.token_offset())
    }

    /// The line of the current token, from one.
    pub fn line(&self) -> u32 {
        self.position().line() as u32
    }

    /// An error at the current token.
    pub fn error(&self, message: impl Into<String>) -> ConfigError {
        ConfigError { position: self.position(), message: message.into() }
    }

    /// In a section that is skipped unknown escapes are not reported.
    pub(super) fn set_quiet(&mut self, on: bool) {
        self.sym.set_nowarn(on);
    }

    /// A slash at the start of a token begins an expression of PCRE.
    pub fn set_parses_pcre(&mut self, on: bool) {
        self.sym.set_parses_pcre(on);
    }

    /// True if the current token was in quotes.
    pub fn is_quoted(&self) -> bool {
        self.sym.quoted()
    }

    /// Gives the state away, for C code to read on in the environment of this parser.
    pub fn into_sym(self) -> Sym {
        Environment::enter(&self.environment);
        self.sym.clone()
    }

    /// An alias that stands for nothing was used.
    pub(super) fn used_empty_alias(&self) -> bool {
        self.environment.borrow().used_empty_alias
    }

    /// Where messages go.
    pub fn report(&self) -> &Report {
        self.report
    }

    /// Lets C code read on with this parser's state.
    pub fn lend<T>(&mut self, read: impl FnOnce(&mut Sym) -> T) -> T {
        Environment::enter(&self.environment);
        read(&mut self.sym)
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
        self.environment.borrow_mut().aliases.insert(name, tokens.into());
        self.accept(S_closebra).map(drop)
    }

    /// Appends the current token to an alias.
    pub fn add_token_to_alias(&self, name: &[u8]) {
        let token =
            AliasToken { code: self.code(), text: self.text().to_vec(), quoted: self.sym.quoted() };
        self.environment.borrow_mut().add_token_to_alias(name, token);
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

    #[test]
    fn aliases_that_multiply_are_refused() {
        let mut text = "alias a0 { x x x x x x x x x x }".to_owned();
        for level in 1..12 {
            let inner = format!("a{} ", level - 1).repeat(10);
            text += &format!(" alias a{level} {{ {inner} }}");
        }
        let report = Report { quiet: true, ..Report::default() };
        let mut parser = Parser::new(Source::new("t", text.into_bytes()), &report).expect("valid");
        let error = (0..12).find_map(|_| parser.define_alias().err()).expect("refused");
        assert!(error.message.contains("too many words"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_end(text in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assume!(memchr::memmem::find(&text, b"include").is_none());
            let _ = tokens(&text);
        }
    }
}
