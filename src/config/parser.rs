//! The parser: a reader of tokens, with the building blocks for the grammar of each section.

use super::common::Common;
use super::effect::Effect;
use super::environment::{AliasToken, Environment, Shared};
use super::lexer::{Input, Lexer};
use super::rules::Rules;
use super::source::Source;
use super::sym::Sym;
use super::system::System;
use super::token::*;
use super::{ConfigError, Position};
use crate::os::log::Severity;
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

/// A reader's state: its own, or one that C code holds.
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
    pub(super) rules: Rules,
    /// Settings of the common directives so far.
    pub common: Common,
    /// Text and name of the input, if C code supplies it.
    foreign: (&'a [u8], &'a str),
    /// How many blocks are open before the current token.
    depth: u32,
    mistakes: Mistakes,
}

/// How a mistake in a directive is handled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mistakes {
    /// The first mistake ends the reading.
    Fatal,
    /// Mistakes are reported and reading goes on; the number of them so far.
    Reported(u32),
}

/// Most mistakes that are reported for one source; later ones are often consequences of the
/// earlier.
const MOST_MISTAKES: u32 = 10;

impl<'a> Parser<'a> {
    /// A parser for `source`; [`start`](Self::start) reads the first token.
    pub fn new(source: Source, rules: Rules, system: Rc<dyn System>) -> Parser<'a> {
        let mut environment = Environment::new(&source.name, system, rules.debug);
        let source = Rc::new(source);
        environment.add_source(Rc::clone(&source));
        let mut sym = Sym::new();
        sym.read_from(&source);
        sym.mark_as_ours();
        Parser {
            sym: Held::Own(sym),
            environment: Rc::new(RefCell::new(environment)),
            rules,
            common: Common::default(),
            foreign: (&[], ""),
            depth: 0,
            mistakes: Mistakes::Fatal,
        }
    }

    /// A parser that goes on where C code is, in the [current](Environment::current) environment.
    /// `text` is the input of `sym`, `name` is its name; both are used only if the input is not a
    /// source of that environment.
    pub fn resume(sym: &'a mut Sym, text: &'a [u8], name: &'a str, rules: Rules) -> Parser<'a> {
        Parser {
            sym: Held::Foreign(sym),
            environment: Environment::current(),
            rules,
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

    /// From now on, reports mistakes in directives and reads on.
    pub(super) fn report_mistakes(&mut self) {
        self.mistakes = Mistakes::Reported(0);
    }

    /// True if a mistake has been reported: the settings must not be used.
    pub fn has_reported(&self) -> bool {
        matches!(self.mistakes, Mistakes::Reported(1..))
    }

    /// Reads one directive. If that fails and mistakes are reported, reports this one and skips to
    /// the next directive.
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
        // At the end of the text, stop with this mistake: an error about the end would only follow
        // from it.
        let ended = self.skip_directive(depth).is_err() || self.code() == S_eof;
        if ended || before + 1 == MOST_MISTAKES {
            return Err(error);
        }
        self.note(Effect::Mistake(error));
        self.mistakes = Mistakes::Reported(before + 1);
        Ok(())
    }

    /// Reads the directives of a block, up to its closing brace, which stays current, or the end of
    /// the text.
    pub(super) fn directives(
        &mut self,
        mut directive: impl FnMut(&mut Self) -> Result<(), ConfigError>,
    ) -> Result<(), ConfigError> {
        while !matches!(self.code(), S_closebra | S_eof) {
            directive(self)?;
        }
        Ok(())
    }

    /// As [`directives`](Self::directives), for a block that must have a closing brace.
    pub(super) fn block(
        &mut self,
        directive: impl FnMut(&mut Self) -> Result<(), ConfigError>,
    ) -> Result<(), ConfigError> {
        self.directives(directive)?;
        self.check(S_closebra)
    }

    /// Skips `{ … }`, with its opening brace current. After `=~` or `!~` there may be an expression
    /// between slashes, in which braces and quotes have no meaning.
    pub(super) fn skip_block(&mut self) -> Result<(), ConfigError> {
        self.check(S_openbra)?;
        let mut depth = 0;
        loop {
            match self.code() {
                S_openbra => depth += 1,
                S_closebra => depth -= 1,
                S_eof => return Err(self.expected(&[S_closebra])),
                _ => {}
            }
            self.set_parses_pcre(self.code() == S_tilde);
            let advanced = self.advance();
            self.set_parses_pcre(false);
            advanced?;
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// Skips the rest of a directive that began at this depth: up to the end of the block that it
    /// has opened, the end of the block that it is in, or the next line.
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
            rules: self.rules,
            common: Common::default(),
            foreign: self.foreign,
            depth: 0,
            mistakes: Mistakes::Fatal,
        };
        let case = ahead.environment.borrow().case;
        let found = ahead.advance();
        ahead.environment.borrow_mut().case = case;
        found?;
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

    /// The text of the current token as a string, for messages and textual values.
    pub fn text_lossy(&self) -> String {
        String::from_utf8_lossy(self.sym.text()).into_owned()
    }

    /// True if the current token is this word, unquoted. The word need not be reserved.
    pub fn is_word(&self, word: &str) -> bool {
        !self.sym.quoted() && self.sym.code != S_eof && self.sym.text() == word.as_bytes()
    }

    /// The place of the current token.
    pub fn position(&self) -> Position {
        let environment = self.environment.borrow();
        let input = Input::of(&self.sym, &environment, self.foreign.0);
        Position::new(input.source(self.foreign.1), self.sym.token_offset())
    }

    /// The line of the current token, counted from 1.
    pub fn line(&self) -> u32 {
        self.position().line() as u32
    }

    /// An error at the current token.
    pub fn error(&self, message: impl Into<String>) -> ConfigError {
        ConfigError { position: self.position(), message: message.into() }
    }

    /// Turns off reports of unknown escapes, for sections that are skipped.
    pub(super) fn set_quiet(&mut self, on: bool) {
        self.sym.set_nowarn(on);
    }

    /// Whether a slash at the start of a token begins a PCRE.
    pub fn set_parses_pcre(&mut self, on: bool) {
        self.sym.set_parses_pcre(on);
    }

    /// True if the current token was in quotes.
    pub fn is_quoted(&self) -> bool {
        self.sym.quoted()
    }

    /// Returns the reader's state for C code to read on, in this parser's environment.
    pub fn into_sym(mut self) -> Sym {
        self.prepare_for_c();
        self.sym.clone()
    }

    /// Before C code reads on: applies the effects so far, and makes this parser's environment the
    /// current one.
    fn prepare_for_c(&mut self) {
        let case = self.environment.borrow().case.0;
        self.note(Effect::Case(case));
        let effects = self.take_effects();
        let system = self.system();
        system.apply(effects);
        Environment::enter(&self.environment);
    }

    /// Records a side effect or message.
    pub fn note(&mut self, effect: Effect) {
        self.environment.borrow_mut().effects.push(effect);
    }

    /// Records a message that does not end the reading.
    pub fn message(&mut self, severity: Severity, text: impl Into<String>) {
        self.note(Effect::Message(severity, text.into()));
    }

    /// As [`message`](Self::message) about a place, but only the first time for each text.
    pub(super) fn message_once(&mut self, severity: Severity, at: &Position, text: &'static str) {
        if self.environment.borrow_mut().said.insert(text) {
            self.message(severity, format!("{at}: {text}"));
        }
    }

    /// The effects recorded so far, for the caller to apply.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        let mut environment = self.environment.borrow_mut();
        environment.overlay.clear();
        std::mem::take(&mut environment.effects)
    }

    /// The system that answers the parser's questions.
    pub fn system(&self) -> Rc<dyn System> {
        self.environment.borrow().system()
    }

    /// The debug mask as the text has set it.
    pub fn debug(&self) -> u32 {
        self.environment.borrow().debug
    }

    /// Sets the debug mask. Tokens are traced, or not, from the next one on.
    pub fn set_debug(&mut self, mask: u32) {
        self.environment.borrow_mut().debug = mask;
    }

    /// `setenv`, or `unsetenv` without a value. The rest of the text sees the change at once.
    pub(super) fn set_variable(&mut self, name: String, value: Option<String>) {
        self.environment.borrow().overlay.set(&name, value.as_deref());
        self.note(match value {
            Some(value) => Effect::SetVariable(name, value),
            None => Effect::UnsetVariable(name),
        });
    }

    /// True if regular expressions ignore case here.
    pub fn ignores_case(&self) -> bool {
        self.environment.borrow().case.is_ignored()
    }

    /// True if an empty alias was used.
    pub(super) fn used_empty_alias(&self) -> bool {
        self.environment.borrow().used_empty_alias
    }

    /// Lets C code read on with this parser's state.
    pub fn lend<T>(&mut self, read: impl FnOnce(&mut Sym) -> T) -> T {
        self.prepare_for_c();
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
    use crate::config::system::Nowhere;
    use proptest::prelude::*;

    fn parser_with(text: &[u8], system: impl System + 'static) -> Parser<'static> {
        Parser::new(Source::new("test.cfg", text.to_vec()), Rules::default(), Rc::new(system))
    }

    /// A parser at the first token.
    fn parser(text: &[u8]) -> Parser<'static> {
        let mut parser = parser_with(text, Nowhere);
        parser.start().expect("valid");
        parser
    }

    /// All tokens of a text, or the error.
    fn tokens(text: &[u8]) -> Result<Vec<(Code, Vec<u8>)>, ConfigError> {
        tokens_with(text, Nowhere)
    }

    fn tokens_with(
        text: &[u8],
        system: impl System + 'static,
    ) -> Result<Vec<(Code, Vec<u8>)>, ConfigError> {
        let mut parser = parser_with(text, system);
        parser.start()?;
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
        // The text before the variable is shorter than the excerpt in the message.
        let mut parser = parser(b"setenv LONG = \"\" \"a${LONG}\"");
        parser.set_variable("LONG".to_owned(), Some("x".repeat(70_000)));
        let error = (0..4).find_map(|_| parser.advance().err()).expect("refused");
        assert!(error.message.starts_with("Line too long"), "{error}");
    }

    #[test]
    fn aliases_do_not_recurse() {
        let mut parser = self::parser(b"alias A { A x }");
        parser.define_alias().expect("a definition");
        let mut parser = self::parser(b"alias A { B } alias B { A } A");
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
        let mut parser = parser(text.as_bytes());
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
