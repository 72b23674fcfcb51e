//! Scripts of modules: their syntax tree and parser. [`evaluate`](super::evaluate) runs them.
//!
//! ```text
//! script     = "script" ( "in" | "out" | "interim" ) [ "=" ] "{" { statement } "}"
//! statement  = "{" { statement } "}" | "return" | "continue" | "skip"
//!            | "set" ATTRIBUTE "=" VALUE | "unset" ATTRIBUTE
//!            | "toupper" ATTRIBUTE | "tolower" ATTRIBUTE
//!            | "eval" condition | "if" condition statement [ "else" statement ]
//! condition  = "(" or ")" | "!" condition | primary
//! or         = and { "||" and }        and = unary { "&&" unary }
//! unary      = "!" unary | "(" or ")" | primary
//! primary    = ATTRIBUTE ( "==" | "!=" ) VALUE | ATTRIBUTE ( "=~" | "!~" ) REGEX
//!            | ( "defined" | "undef" ) { "(" } ATTRIBUTE { ")" }
//! ```

use super::attributes;
use crate::config::token::*;
use crate::config::{ConfigError, Parser};
use crate::os::regex::{posix_ignore_case, Pcre, Posix, PCRE_CASELESS_UTF};

/// How deep statements and conditions may nest.
const MAX_DEPTH: usize = 256;

/// A script: its statements, in order.
#[derive(Debug, Default)]
pub struct Script {
    /// The statements.
    pub statements: Vec<Statement>,
}

/// When a script runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before the module gets the query.
    In,
    /// When there is an answer, before the module sees it.
    Interim,
    /// When the module has finished with the answer.
    Out,
}

/// A statement.
#[derive(Debug)]
pub struct Statement {
    /// The line it begins on, counted from 1.
    pub line: u32,
    /// What it does.
    pub action: Action,
}

/// What a statement does.
#[derive(Debug)]
pub enum Action {
    /// `return`, `continue` or `skip`: ends the script with that result.
    End(Code),
    /// Sets an attribute.
    Set(usize, Vec<u8>),
    /// Unsets an attribute.
    Unset(usize),
    /// Changes an attribute to upper case.
    Upper(usize),
    /// Changes an attribute to lower case.
    Lower(usize),
    /// Evaluates a condition for the groups that its expressions match.
    Evaluate(Condition),
    /// One branch or the other.
    If(Condition, Vec<Statement>, Option<Vec<Statement>>),
    /// Statements in braces.
    Block(Vec<Statement>),
}

/// A condition.
#[derive(Debug)]
pub struct Condition {
    /// The line it begins on, counted from 1.
    pub line: u32,
    /// What is tested.
    pub test: Test,
}

/// What a condition tests.
#[derive(Debug)]
pub enum Test {
    /// The condition is false.
    Not(Box<Condition>),
    /// All conditions are true.
    And(Vec<Condition>),
    /// At least one condition is true.
    Or(Vec<Condition>),
    /// An attribute is set.
    Defined(Attribute),
    /// An attribute is not set.
    Undefined(Attribute),
    /// An attribute is equal to a value or to another attribute.
    Equal(Attribute, Operand),
    /// A PCRE2 expression matches; with its text.
    Pcre(Attribute, Pcre, String),
    /// A POSIX expression matches; with its text.
    Posix(Attribute, Posix, String),
}

/// An attribute, and its name in the script.
#[derive(Debug)]
pub struct Attribute {
    /// Its index.
    pub index: usize,
    /// Its name in the script.
    pub name: String,
}

/// The right-hand side of `==`.
#[derive(Debug)]
pub enum Operand {
    /// A text.
    Text(Vec<u8>),
    /// The value of an attribute.
    Attribute(Attribute),
}

/// `script WHEN [=] { … }`, with the token `script` current. Ends on the token after the closing
/// brace.
pub fn parse(parser: &mut Parser<'_>) -> Result<(When, Vec<Statement>), ConfigError> {
    parser.advance()?;
    let when = match parser.code() {
        S_in => When::In,
        S_out => When::Out,
        S_interim => When::Interim,
        _ => return Err(parser.expected(&[S_in, S_interim, S_out])),
    };
    parser.advance()?;
    parser.accept(S_equal)?;
    parser.expect(S_openbra)?;
    let statements = block(parser, 0)?;
    parser.expect(S_closebra)?;
    Ok((when, statements))
}

/// Statements up to a closing brace, which stays current.
fn block(parser: &mut Parser<'_>, depth: usize) -> Result<Vec<Statement>, ConfigError> {
    let mut statements = Vec::new();
    while parser.code() != S_closebra {
        statements.push(statement(parser, depth)?);
    }
    Ok(statements)
}

fn too_deep(parser: &Parser<'_>, depth: usize) -> Result<(), ConfigError> {
    if depth < MAX_DEPTH {
        return Ok(());
    }
    Err(parser.error(format!("more than {MAX_DEPTH} levels of braces, conditions or branches")))
}

fn statement(parser: &mut Parser<'_>, depth: usize) -> Result<Statement, ConfigError> {
    too_deep(parser, depth)?;
    let line = parser.line();
    let code = parser.code();
    let action = match code {
        S_eof => return Err(parser.error("EOF unexpected")),
        S_openbra => {
            parser.advance()?;
            let statements = block(parser, depth + 1)?;
            parser.expect(S_closebra)?;
            Action::Block(statements)
        }
        S_return | S_continue | S_skip => {
            parser.advance()?;
            Action::End(code)
        }
        S_set | S_unset | S_toupper | S_tolower => {
            parser.advance()?;
            let attribute = attribute(parser)?.index;
            match code {
                S_set => {
                    parser.expect(S_equal)?;
                    let value = parser.text().to_vec();
                    parser.advance()?;
                    Action::Set(attribute, value)
                }
                S_unset => Action::Unset(attribute),
                S_toupper => Action::Upper(attribute),
                _ => Action::Lower(attribute),
            }
        }
        S_eval => {
            parser.advance()?;
            Action::Evaluate(condition(parser)?)
        }
        S_if => {
            parser.advance()?;
            let condition = condition(parser)?;
            let yes = branch(parser, depth + 1)?;
            let no = match parser.accept(S_else)? {
                true => Some(branch(parser, depth + 1)?),
                false => None,
            };
            Action::If(condition, yes, no)
        }
        _ => {
            let words = [
                S_if, S_unset, S_set, S_skip, S_toupper, S_tolower, S_return, S_continue, S_eval,
                S_openbra,
            ];
            return Err(parser.expected(&words));
        }
    };
    Ok(Statement { line, action })
}

/// The branch after a condition or `else`: a statement, or nothing before a closing brace.
fn branch(parser: &mut Parser<'_>, depth: usize) -> Result<Vec<Statement>, ConfigError> {
    if parser.code() == S_closebra {
        return Ok(Vec::new());
    }
    Ok(vec![statement(parser, depth)?])
}

/// The current token as an attribute.
fn attribute(parser: &mut Parser<'_>) -> Result<Attribute, ConfigError> {
    let Some(index) = attributes::by_token(parser.code(), parser.text()) else {
        return Err(unknown_attribute(parser));
    };
    let name = parser.text_lossy();
    parser.advance()?;
    Ok(Attribute { index, name })
}

fn unknown_attribute(parser: &Parser<'_>) -> ConfigError {
    parser.error(format!("'{}' is not a recognized attribute", parser.text_lossy()))
}

/// A condition, with its first token current. Ends on the token after it.
pub fn condition(parser: &mut Parser<'_>) -> Result<Condition, ConfigError> {
    unary(parser, 0)
}

/// Conditions joined by one operator.
fn chain(
    parser: &mut Parser<'_>,
    depth: usize,
    operator: Code,
    next: fn(&mut Parser<'_>, usize) -> Result<Condition, ConfigError>,
) -> Result<Condition, ConfigError> {
    let line = parser.line();
    let mut first = next(parser, depth)?;
    if parser.code() != operator {
        return Ok(first);
    }
    let mut row = Vec::new();
    while parser.accept(operator)? {
        row.push(std::mem::replace(&mut first, next(parser, depth)?));
    }
    row.push(first);
    let test = if operator == S_and { Test::And(row) } else { Test::Or(row) };
    Ok(Condition { line, test })
}

fn or(parser: &mut Parser<'_>, depth: usize) -> Result<Condition, ConfigError> {
    chain(parser, depth, S_or, and)
}

fn and(parser: &mut Parser<'_>, depth: usize) -> Result<Condition, ConfigError> {
    chain(parser, depth, S_and, unary)
}

fn unary(parser: &mut Parser<'_>, depth: usize) -> Result<Condition, ConfigError> {
    too_deep(parser, depth)?;
    let line = parser.line();
    match parser.code() {
        S_eof => Err(parser.error("EOF unexpected")),
        S_openbra => Err(parser.error("Got '{' -- did you omit a ')' somewhere?")),
        S_exclmark => {
            parser.advance()?;
            let inner = unary(parser, depth + 1)?;
            Ok(Condition { line, test: Test::Not(Box::new(inner)) })
        }
        S_leftbra => {
            parser.advance()?;
            let inner = or(parser, depth + 1)?;
            if parser.code() == S_openbra {
                return Err(parser.error("Got '{' -- did you omit a ')' somewhere?"));
            }
            parser.expect(S_rightbra)?;
            Ok(inner)
        }
        S_defined | S_undef => {
            let defined = parser.code() == S_defined;
            parser.advance()?;
            let mut brackets = 0;
            while parser.accept(S_leftbra)? {
                brackets += 1;
            }
            let attribute = attribute(parser)?;
            for _ in 0..brackets {
                parser.expect(S_rightbra)?;
            }
            let test = if defined { Test::Defined(attribute) } else { Test::Undefined(attribute) };
            Ok(Condition { line, test })
        }
        _ => comparison(parser, line),
    }
}

fn comparison(parser: &mut Parser<'_>, line: u32) -> Result<Condition, ConfigError> {
    let attribute = attribute(parser)?;
    let negative = match parser.code() {
        S_exclmark => true,
        S_equal => false,
        _ => return Err(parser.expected(&[S_exclmark, S_equal])),
    };
    parser.advance()?;
    let test = match parser.code() {
        S_equal => {
            parser.advance()?;
            Test::Equal(attribute, operand(parser)?)
        }
        S_tilde => {
            parser.set_parses_pcre(true);
            let expression = parser.advance();
            parser.set_parses_pcre(false);
            expression?;
            regex(parser, attribute)?
        }
        _ => return Err(parser.expected(&[S_equal, S_tilde])),
    };
    let condition = Condition { line, test };
    Ok(match negative {
        true => Condition { line, test: Test::Not(Box::new(condition)) },
        false => condition,
    })
}

fn operand(parser: &mut Parser<'_>) -> Result<Operand, ConfigError> {
    let text = parser.text().to_vec();
    let operand = if parser.code() == S_string {
        let index = text.strip_prefix(b"$").and_then(attributes::by_name);
        match index {
            Some(index) => Operand::Attribute(Attribute { index, name: parser.text_lossy() }),
            None => Operand::Text(text),
        }
    } else {
        // A reserved word is not text unless it is quoted.
        return attribute(parser).map(Operand::Attribute);
    };
    parser.advance()?;
    Ok(operand)
}

fn regex(parser: &mut Parser<'_>, attribute: Attribute) -> Result<Test, ConfigError> {
    let (pattern, name) = (parser.text().to_vec(), parser.text_lossy());
    let compiled = if parser.code() == S_slash {
        let flags = if parser.ignores_case() { PCRE_CASELESS_UTF } else { 0 };
        Pcre::new(&pattern, flags).map(|pcre| Test::Pcre(attribute, pcre, name))
    } else {
        let flags = if parser.ignores_case() { posix_ignore_case() } else { 0 };
        Posix::new(&pattern, flags).map(|posix| Test::Posix(attribute, posix, name))
    };
    let test = compiled.map_err(|text| parser.error(text))?;
    parser.advance()?;
    Ok(test)
}

/// `action error|not-found = continue|reject`, with the token `action` current. Returns the outcome
/// and the token to act on.
pub fn parse_action(parser: &mut Parser<'_>) -> Result<(Outcome, Code), ConfigError> {
    parser.advance()?;
    let outcome = match parser.code() {
        S_error => Outcome::Error,
        S_notfound => Outcome::NotFound,
        _ => return Err(parser.expected(&[S_error, S_notfound])),
    };
    parser.advance()?;
    parser.expect(S_equal)?;
    let code = parser.code();
    if code != S_continue && code != S_reject {
        return Err(parser.expected(&[S_continue, S_reject]));
    }
    parser.advance()?;
    Ok((outcome, code))
}

/// The outcome that an `action` applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The backend has failed.
    Error,
    /// The backend has no entry.
    NotFound,
}
