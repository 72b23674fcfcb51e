//! Runs a module's script over a query.

use super::attributes::{Attributes, IDENTITY_SOURCE, NAMES};
use super::script::{Action, Attribute, Condition, Operand, Script, Statement, Test};
use crate::config::token::*;
use crate::os::regex::Groups;
use crate::os::{common_data, log};

/// The debug bit that traces scripts.
const DEBUG_ACL: u32 = 0x200;

/// One run of a script over a query's attributes.
struct Run<'a> {
    attributes: &'a mut Attributes,
    /// The module's name.
    identity: &'a str,
    /// The groups of the last PCRE match in this run. A copy, because the matched attribute may be
    /// changed later.
    groups: Groups,
    traced: bool,
}

/// Runs `script` for the module called `identity`. Returns the token that ended it (`return`,
/// `continue` or `skip`), or [`S_unknown`] if it ran to its end.
pub fn evaluate(script: &Script, attributes: &mut Attributes, identity: &str) -> Code {
    let traced = common_data::debug() & DEBUG_ACL != 0;
    let mut run = Run { attributes, identity, groups: Vec::new(), traced };
    run.statements(&script.statements).unwrap_or(S_unknown)
}

impl Run<'_> {
    fn trace(&self, line: u32, text: impl FnOnce() -> String) {
        if self.traced {
            log::stderr(&format!("{}/line {line}: {}\n", self.identity, text()));
        }
    }

    fn statements(&mut self, statements: &[Statement]) -> Option<Code> {
        statements.iter().find_map(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &Statement) -> Option<Code> {
        let line = statement.line;
        match &statement.action {
            Action::End(code) => {
                self.trace(line, || format!("[{}]", code.text()));
                return Some(*code);
            }
            Action::Set(attribute, value) => {
                let value = self.substitute(value);
                self.attributes.set(*attribute, &value);
                self.trace(line, || {
                    let value = String::from_utf8_lossy(&value).escape_debug().to_string();
                    format!("[set] {} = \"{value}\"", NAMES[*attribute].0)
                });
            }
            Action::Unset(attribute) => {
                self.attributes.unset(*attribute);
                self.trace(line, || "[unset]".to_owned());
                self.trace(line, || format!("[unset] {}", NAMES[*attribute].0));
            }
            Action::Upper(attribute) => {
                if let Some(value) = self.attributes.get_mut(*attribute) {
                    value.make_ascii_uppercase();
                }
                self.trace(line, || "[toupper]".to_owned());
            }
            Action::Lower(attribute) => {
                if let Some(value) = self.attributes.get_mut(*attribute) {
                    value.make_ascii_lowercase();
                }
                self.trace(line, || "[tolower]".to_owned());
            }
            Action::Evaluate(condition) => drop(self.condition(condition)),
            Action::If(condition, yes, no) => {
                if self.condition(condition) {
                    return self.statements(yes);
                }
                if let Some(no) = no {
                    self.trace(line, || "[else]".to_owned());
                    return self.statements(no);
                }
            }
            Action::Block(statements) => return self.statements(statements),
        }
        None
    }

    /// Replaces `$0` to `$9` by the groups of the last match; a backslash takes the next character
    /// literally.
    fn substitute(&self, value: &[u8]) -> Vec<u8> {
        let mut text = Vec::with_capacity(value.len());
        let mut rest = value;
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            match (byte, after.split_first()) {
                (b'$', Some((digit, after))) if digit.is_ascii_digit() => {
                    let group = self.groups.get(usize::from(digit - b'0'));
                    text.extend(group.into_iter().flatten().flatten());
                    rest = after;
                }
                (b'\\', Some((&escaped, after))) => {
                    text.push(escaped);
                    rest = after;
                }
                (b'\\', None) => {}
                _ => text.push(byte),
            }
        }
        text
    }

    fn condition(&mut self, condition: &Condition) -> bool {
        let line = condition.line;
        // For the trace of a comparison: class of the right side, left side, operator, right side,
        // result.
        let (class, attribute, operator, right, result) = match &condition.test {
            Test::Not(inner) => {
                let result = !self.condition(inner);
                self.trace(line, || format!("[!] => {result}"));
                return result;
            }
            Test::And(row) => {
                let result = row.iter().all(|inner| self.condition(inner));
                self.trace(line, || format!("[&&] => {result}"));
                return result;
            }
            Test::Or(row) => {
                let result = row.iter().any(|inner| self.condition(inner));
                self.trace(line, || format!("[||] => {result}"));
                return result;
            }
            Test::Posix(attribute, expression, _) => {
                let value = self.attributes.get(attribute.index);
                return value.is_some_and(|value| expression.matches(value));
            }
            Test::Defined(attribute) => {
                let result = self.attributes.get(attribute.index).is_some();
                (S_unknown, attribute, S_defined, String::new(), result)
            }
            Test::Undefined(attribute) => {
                let result = self.attributes.get(attribute.index).is_none();
                (S_unknown, attribute, S_undef, String::new(), result)
            }
            Test::Equal(attribute, Operand::Text(text)) => {
                let result = self.attributes.is(attribute.index, text);
                let right = String::from_utf8_lossy(text).into_owned();
                (S_unknown, attribute, S_equal, right, result)
            }
            Test::Equal(attribute, Operand::Attribute(other)) => {
                let result = self.equal(attribute, other);
                (S_attr, attribute, S_equal, other.name.clone(), result)
            }
            Test::Pcre(attribute, expression, pattern) => {
                let result = match self.attributes.get(attribute.index) {
                    None => false,
                    Some(value) => {
                        self.groups = expression.find(value).unwrap_or_default();
                        !self.groups.is_empty()
                    }
                };
                (S_unknown, attribute, S_slash, pattern.clone(), result)
            }
        };
        self.trace(line, || {
            let (class, operator) = (class.text(), operator.text());
            format!("[{class}] {} {operator} '{right}' => {result}", attribute.name)
        });
        result
    }

    fn equal(&self, left: &Attribute, right: &Attribute) -> bool {
        let (Some(value), Some(other)) =
            (self.attributes.get(left.index), self.attributes.get(right.index))
        else {
            return false;
        };
        value == other
            || left.index == IDENTITY_SOURCE
                && other == b"self"
                && value == self.identity.as_bytes()
    }
}
